//! Cases by name: what a walk has passed already meets what it has not come to.

use super::*;

/// Ids in the order in which a story makes its objects.
const A: u64 = 2;
const Z: u64 = 3;
const F: u64 = 4;
const G: u64 = 5;

/// What there is before, what of it the target has, which directories are listed, and what happens then.
fn story(
    before: impl Fn(&mut Origin),
    is_known: bool,
    listed: &[u64],
    then: impl Fn(&mut World) -> Checked,
) -> Checked {
    let mut random = Random::new(1);
    let mut world = World::new();
    world.origin.create(ROOT, "a", Birth::Directory);
    world.origin.create(ROOT, "z", Birth::Directory);
    before(&mut world.origin);
    if is_known {
        world.packets()?;
    }
    world.begin()?;
    listed.iter().try_for_each(|dir| world.list(*dir, &mut random))?;
    then(&mut world)?;
    world.packets()?;
    match world.go_on(&mut random, 0, None)? {
        true => world.check(),
        false => Err("it has no end".into()),
    }
}

impl World {
    /// Everything that lies in the lane goes, and what is answered is heard.
    pub fn exchange_all(&mut self) -> Checked {
        while let Some(item) = self.owed.lane.pop_front() {
            self.item(item)?;
        }
        for message in std::mem::take(&mut self.inbox) {
            self.owed.hear(message)?;
        }
        Ok(())
    }

    pub fn list(&mut self, dir: u64, random: &mut Random) -> Checked {
        self.owed.list_whole(&self.origin, dir, random);
        self.exchange_all()
    }

    pub fn copy_on(&mut self, random: &mut Random) -> Checked {
        self.owed.copy_on(&self.origin, random);
        self.exchange_all()
    }
}

fn file(origin: &mut Origin, dir: u64, name: &str) -> u64 {
    let file = origin.create(dir, name, Birth::File);
    origin.write(file, 0, &[7; 2000], false);
    file
}

fn put(origin: &mut Origin, dir: u64, name: &str) {
    file(origin, dir, name);
}

fn tell(change: impl Fn(&mut Origin)) -> impl Fn(&mut World) -> Checked {
    move |world| {
        change(&mut world.origin);
        world.packets()
    }
}

/// Into a directory that is listed, out of one that is not; the target has nothing, or an older copy.
#[test]
fn what_comes_into_a_listed_directory_is_asked_for() {
    let one = |origin: &mut Origin| put(origin, Z, "f");
    let two = |origin: &mut Origin| {
        file(origin, Z, "f");
        file(origin, A, "g");
    };
    let tree = |origin: &mut Origin| {
        let dir = origin.create(Z, "f", Birth::Directory);
        file(origin, dir, "below");
    };
    let write = |origin: &mut Origin| origin.write(F, 100, &[9; 50], false);
    for is_known in [false, true] {
        let check = |before: &dyn Fn(&mut Origin), then: &dyn Fn(&mut Origin)| {
            let done = story(before, is_known, &[ROOT, A], tell(then));
            assert_eq!(done, Ok(()), "known: {is_known}");
        };
        check(&one, &|origin| origin.rename((Z, "f"), (A, "f")));
        check(&one, &|origin| {
            origin.rename((Z, "f"), (A, "f"));
            write(origin);
        });
        check(&one, &|origin| {
            write(origin);
            origin.link(F, A, "f");
        });
        check(&tree, &|origin| origin.rename((Z, "f"), (A, "f")));
        check(&two, &|origin| origin.exchange((Z, "f"), (A, "g")));
        check(&two, &|origin| origin.rename((Z, "f"), (A, "g")));
        check(&two, &|origin| {
            origin.remove(Z, "f");
            origin.remove(A, "g");
            origin.create(Z, "f", Birth::Directory);
            origin.create(A, "g", Birth::File);
        });
        check(&two, &|origin| {
            origin.rename((A, "g"), (Z, "g"));
            origin.write(G, 0, &[3; 10], false);
            origin.rename((Z, "g"), (A, "h"));
        });
    }
}

/// Between the chunks of a listing names of it move, come and go.
#[test]
fn names_that_change_between_chunks_stay() {
    for planted in [None, Some(Planted::SweepsNamesOfPackets)] {
        let before = |origin: &mut Origin| (0..6).for_each(|n| put(origin, ROOT, &format!("f{n}")));
        let then = |world: &mut World| {
            let mut random = Random::new(3);
            world.owed.list_whole(&world.origin, ROOT, &mut random);
            let first = world.owed.lane.pop_front().unwrap();
            world.item(first)?;
            // Those that lie in the lane show what was before: they are looked at anew.
            world.owed.lane.clear();
            for n in 0..6 {
                world.origin.rename((ROOT, &format!("f{n}")), (ROOT, &format!("g{n}")));
            }
            world.origin.create(ROOT, "new", Birth::Directory);
            world.packets()?;
            let last = LaneItem::Listing {
                dir: id(ROOT),
                dir_mtime: world.origin.objects[&ROOT].mtime,
                entries: Vec::new(),
                unlisted: None,
                first: false,
                last: true,
            };
            let (sent, root) = (world.sent, &world.places.root.clone());
            world.item(Stamped { after: sent, item: last, payload: Vec::new(), number: ItemNumber(900) })?;
            let is_there = |name: &str| root.join(name).exists();
            match is_there("new") {
                true if (0..6).all(|n| !is_there(&format!("f{n}"))) => world.begin(),
                _ => Err("what a packet has set is swept".into()),
            }
        };
        planted::set(planted);
        let done = story(before, true, &[], then);
        planted::set(None);
        assert_eq!(done.is_ok(), planted.is_none(), "{done:?}");
    }
}

/// x/y has become y/x: what is to come into y lies above it here.
#[test]
fn a_directory_below_itself_is_taken_out() {
    let before = |origin: &mut Origin| {
        let x = origin.create(A, "x", Birth::Directory);
        let y = origin.create(x, "y", Birth::Directory);
        put(origin, y, "f");
    };
    let then = |world: &mut World| {
        let mut random = Random::new(1);
        let (x, y) = (F, G);
        // The target hears nothing of the first of the two.
        world.origin.rename((x, "y"), (Z, "y"));
        world.begin()?;
        [ROOT, A].iter().try_for_each(|dir| world.list(*dir, &mut random))?;
        world.origin.rename((A, "x"), (y, "x"));
        world.packets()
    };
    assert_eq!(story(before, true, &[], then), Ok(()));
}

/// While the content of a file comes it is written, cut and removed.
#[test]
fn content_comes_while_its_file_changes() {
    let before = |origin: &mut Origin| put(origin, ROOT, "f");
    for change in 0..6 {
        for step in 0..4 {
            let then = |world: &mut World| {
                let mut random = Random::new(1);
                for _ in 0..step {
                    world.copy_on(&mut random)?;
                }
                let origin = &mut world.origin;
                match change {
                    0 => origin.write(F, 1500, &[1; 1000], false),
                    1 => origin.resize(F, 300),
                    2 => origin.resize(F, 5000),
                    3 => origin.punch(F, 100, 1000),
                    4 => origin.remove(ROOT, "f"),
                    _ => {
                        origin.resize(F, 0);
                        origin.write(F, 2500, &[2; 10], false);
                        origin.rename((ROOT, "f"), (Z, "g"));
                    }
                }
                world.packets()
            };
            assert_eq!(story(before, false, &[ROOT], then), Ok(()), "change {change} after {step} steps");
        }
    }
}

/// A file that the copy has not looked at is written, and has its old size and time again.
#[test]
fn content_that_was_passed_over_is_not_forgotten() {
    for planted in [None, Some(Planted::UnseenIsComplete)] {
        let before = |origin: &mut Origin| put(origin, Z, "f");
        let then = tell(|origin| {
            let mtime = origin.objects[&F].mtime;
            origin.write(F, 0, &[9; 2000], false);
            origin.set_time(F, mtime);
        });
        planted::set(planted);
        let done = story(before, true, &[ROOT], then);
        planted::set(None);
        assert_eq!(done.is_ok(), planted.is_none(), "{done:?}");
    }
}

/// Somebody removes the file on the target whose content comes: another one takes its place, and what
/// has come is not in it.
#[test]
fn content_is_complete_only_where_it_was_opened() {
    for planted in [None, Some(Planted::ClosesAnyInode), Some(Planted::EndTrusts)] {
        let before = |origin: &mut Origin| put(origin, ROOT, "f");
        let then = |world: &mut World| {
            let mut random = Random::new(1);
            for _ in 0..2 {
                world.copy_on(&mut random)?;
            }
            std::fs::remove_file(world.places.root.join("f")).unwrap();
            world.list(ROOT, &mut random)
        };
        planted::set(planted);
        let done = story(before, false, &[ROOT], then);
        planted::set(None);
        assert_eq!(done.is_ok(), planted.is_none(), "{planted:?}: {done:?}");
    }
}

/// A file leaves the set by one of its names, is changed by the other one, which nobody tells, and comes back.
#[test]
fn what_was_out_of_the_set_meanwhile_is_taken_for_new() {
    for is_known in [false, true] {
        for may_be_known in [false, true] {
            let then = |origin: &mut Origin| {
                let file = origin.leave(A, "f");
                let there = origin.objects.get_mut(&file).unwrap();
                there.mode = 0o600;
                there.xattrs.insert("user.x".into(), b"set outside".to_vec());
                there.content[5] ^= 1;
                origin.come(file, A, "back", may_be_known);
            };
            let done = story(|origin| put(origin, A, "f"), is_known, &[ROOT, A], tell(then));
            assert_eq!(done, Ok(()), "known: {is_known}, may be known: {may_be_known}");
        }
    }
}

/// It was listed, and has its last name in the set no more: nothing of it is known from then on.
#[test]
fn what_left_the_set_by_its_last_name_is_known_no_more() {
    for is_known in [false, true] {
        let done = story(
            |origin| put(origin, A, "f"),
            is_known,
            &[ROOT, A],
            tell(|origin| {
                origin.leave(A, "f");
            }),
        );
        assert_eq!(done, Ok(()), "known: {is_known}");
    }
}

/// A name that cannot be taken away is looked at again; what it held was listed before, and has no link on the source
/// any more. Its id stayed: a later start missed the object, and called the replica bad.
#[test]
fn what_is_gone_is_known_no_more_where_its_name_stays_for_a_while() {
    for is_replaced in [false, true] {
        let before = |origin: &mut Origin| {
            put(origin, A, "f");
            put(origin, Z, "g");
        };
        let then = |world: &mut World| {
            let dir = world.places.root.join("a");
            crate::xattr::immutable(&dir, true);
            match is_replaced {
                true => world.origin.rename((Z, "g"), (A, "f")),
                false => world.origin.remove(A, "f"),
            }
            let done = world.packets();
            crate::xattr::immutable(&dir, false);
            done?;
            assert!(world.places.root.join("a/f").exists(), "nothing kept its name");
            let known = world.applier().replica().handle(id(F)).unwrap();
            known.map_or(Ok(()), |_| Err("the target knows what is gone".into()))
        };
        assert_eq!(story(before, true, &[ROOT, A, Z], then), Ok(()), "replaced: {is_replaced}");
    }
}

/// What a program moved to where the copy had not been, and removed there, waited in limbo, and its id was forgotten:
/// it ended as an orphan that nothing explained.
#[test]
fn what_is_removed_while_it_waits_in_limbo_is_no_orphan() {
    type Then = fn(&mut World) -> Checked;
    let cases: [(&str, Then); 4] = [
        ("a file", |world| {
            world.origin.rename((A, "f"), (FAR, "f"));
            world.packets()?;
            world.origin.remove(FAR, "f");
            world.packets()
        }),
        ("a file that another takes the place of", |world| {
            world.origin.rename((A, "f"), (FAR, "f"));
            world.packets()?;
            put(&mut world.origin, FAR, "other");
            world.origin.rename((FAR, "other"), (FAR, "f"));
            world.packets()
        }),
        ("a directory, and what is in it", |world| {
            world.origin.rename((A, "d"), (FAR, "d"));
            world.packets()?;
            world.origin.remove(D, "in it");
            world.origin.remove(FAR, "d");
            world.packets()
        }),
        ("a directory in another one", |world| {
            world.origin.rename((A, "f"), (D, "f"));
            world.origin.rename((A, "d"), (FAR, "d"));
            world.packets()?;
            world.origin.remove(D, "f");
            world.origin.remove(D, "in it");
            world.origin.remove(FAR, "d");
            world.packets()
        }),
    ];
    for (what, then) in cases {
        for planted in [None, Some(Planted::ForgetsWhatIsRemoved)] {
            planted::set(planted);
            let done = without_orphans(then);
            planted::set(None);
            assert_eq!(done.is_err(), planted.is_some(), "{what}, {planted:?}: {done:?}");
        }
    }
}

/// Of the stories above: what is in a directory that is not listed.
const FAR: u64 = 4;
/// In one that is.
const D: u64 = 6;

fn without_orphans(then: impl Fn(&mut World) -> Checked) -> Checked {
    let mut random = Random::new(1);
    let mut world = World::new();
    world.origin.create(ROOT, "a", Birth::Directory);
    let other = world.origin.create(ROOT, "b", Birth::Directory);
    assert_eq!(world.origin.create(other, "far", Birth::Directory), FAR);
    put(&mut world.origin, A, "f");
    assert_eq!(world.origin.create(A, "d", Birth::Directory), D);
    put(&mut world.origin, D, "in it");
    world.begin()?;
    [ROOT, A, D].iter().try_for_each(|dir| world.list(*dir, &mut random))?;
    then(&mut world)?;
    match world.go_on(&mut random, 0, None)? {
        true => world.check().and_then(|()| world.has_no_orphans()),
        false => Err("it has no end".into()),
    }
}
