//! Small files of a copy, filled on a thread beside what comes next.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::Command;

use super::sync::items;
use super::*;
use crate::apply::reconcile::beside::tests::{Where, fill};
use crate::apply::reconcile::planted::{self, Planted};
use crate::failpoint;

const FILES: usize = 12;

fn name(number: usize) -> String {
    format!("file {number}")
}

fn take(pair: &mut Pair, item: LaneItem, payload: &[u8]) -> Result<(), Fault> {
    let at = pair.applier().replica().applied();
    pair.applier().take_item(at, ItemNumber(1), item, Bytes::copy_from_slice(payload)).map(drop)
}

fn listed(pair: &Pair, name: &str) -> ListedObject {
    let last = items(&pair.source, name).pop();
    let Some(LaneItem::Listing { mut entries, .. }) = last else { panic!("no listing") };
    entries.remove(0)
}

/// A copy to nothing: the files are listed, their content has not come.
fn begun(at: Where, names: &[String]) -> Pair {
    fill(at);
    let mut pair = Pair::new();
    // The thread's umask has changed with the first pair.
    fs::set_permissions(&pair.source.root, PermissionsExt::from_mode(0o755)).unwrap();
    for (number, name) in names.iter().enumerate() {
        // What the target never hears of.
        let _ = pair.source.create(name, 0o640);
        let _ = pair.source.write(name, 0, format!("{number}").repeat(100 + number).as_bytes());
    }
    begin(&mut pair, names);
    pair
}

fn begin(pair: &mut Pair, names: &[String]) {
    let entries: Vec<_> = names.iter().map(|name| listed(pair, name)).collect();
    let mut all = items(&pair.source, &names[0]);
    let Some(LaneItem::Listing { entries: first, .. }) = all.last_mut() else { panic!("no listing") };
    *first = entries;
    all.into_iter().for_each(|item| take(pair, item, b"").unwrap());
}

/// All content of a file as it is at the source, in pieces of so many bytes.
fn content_in(pair: &mut Pair, name: &str, piece: usize) -> Result<(), Fault> {
    let ListedObject { object, attributes, xattrs, size, .. } = listed(pair, name);
    let bytes = fs::read(pair.source.path(name)).unwrap();
    take(pair, LaneItem::OpenContent { object }, b"")?;
    for (number, bytes) in bytes.chunks(piece).enumerate() {
        take(pair, LaneItem::Content { object, hole: 0, offset: (number * piece) as u64 }, bytes)?;
    }
    take(pair, LaneItem::CloseContent { object, hole: 0, size, attributes, xattrs }, b"")
}

fn content(pair: &mut Pair, name: &str) -> Result<(), Fault> {
    content_in(pair, name, 1 << 20)
}

fn end(pair: &mut Pair) {
    take(pair, LaneItem::End, b"").unwrap();
    assert_eq!(pair.applier().replica().data().state, DataState::Good);
}

/// Packets come right after the content of the files that they change.
fn packets_after_content(at: Where) {
    let names: Vec<_> = (0..FILES).map(name).collect();
    let mut pair = begun(at, &names);
    for name in &names[..7] {
        content(&mut pair, name).unwrap();
    }
    pair.say(pair.source.write(&names[5], 1, b"newer"));
    content(&mut pair, &names[7]).unwrap();
    pair.say(pair.source.resize(&names[7], 3));
    content(&mut pair, &names[8]).unwrap();
    pair.say(pair.source.unlink(&names[8]));
    content(&mut pair, &names[9]).unwrap();
    pair.say(pair.source.rename(&names[9], &names[0]));
    content(&mut pair, &names[10]).unwrap();
    pair.say(pair.source.chmod(&names[10], 0o4711));
    content(&mut pair, &names[11]).unwrap();
    pair.say(pair.source.set_xattr(&names[11], "user.of", b"a packet"));
    end(&mut pair);
    pair.assert_same();
}

#[test]
fn packets_wait_for_content_that_came_before_them() {
    for at in [Where::InTime, Where::OnAThread, Where::InPlace] {
        packets_after_content(at);
    }
    planted::set(Some(Planted::PassesWhatIsWritten));
    let is_same = std::panic::catch_unwind(|| packets_after_content(Where::InTime));
    planted::set(None);
    assert!(is_same.is_err(), "a packet that does not wait is not found");
}

/// Whatever the thread does not do is done in its place.
#[test]
fn files_that_are_not_plain_come_as_any_other() {
    for at in [Where::InTime, Where::OnAThread] {
        let names: Vec<_> = (0..FILES).map(name).collect();
        let mut pair = begun(at, &names);
        let _ = pair.source.chmod(&names[1], 0o6755);
        let _ = pair.source.chown(&names[2], 1234, 2345);
        let _ = pair.source.set_xattr(&names[3], "user.a", b"value");
        let _ = pair.source.resize(&names[4], 0);
        fs::write(pair.source.path(&names[5]), vec![7; 300_000]).unwrap();
        let file = fs::File::options().write(true).open(pair.source.path(&names[6])).unwrap();
        file.set_len(100_000).unwrap();
        // Others have been here since they were made.
        let replica = |number: usize| pair.replica(&names[number]);
        fs::File::options().write(true).open(replica(7)).unwrap().write_all_at(b"foreign", 9000).unwrap();
        fs::set_permissions(replica(8), PermissionsExt::from_mode(0o666)).unwrap();
        let acl = Command::new("setfattr").args(["-n", "user.b", "-v", "foreign"]).arg(replica(9)).status();
        assert!(acl.unwrap().success());
        begin(&mut pair, &names);
        for (number, name) in names.iter().enumerate() {
            // One comes in pieces.
            content_in(&mut pair, name, if number == 10 { 50 } else { 1 << 20 }).unwrap();
        }
        end(&mut pair);
        pair.assert_same();
    }
}

/// What has no room is tried again with whatever comes next, and lost nowhere.
#[test]
fn a_write_that_fails_beside_is_done_in_its_place() {
    let names: Vec<_> = (0..FILES).map(name).collect();
    let mut pair = begun(Where::InTime, &names);
    let fails = std::rc::Rc::new(std::cell::Cell::new(true));
    let full = fails.clone();
    failpoint::set(Some(std::rc::Rc::new(move |place| match place == "content" && full.get() {
        true => Err(std::io::Error::from_raw_os_error(libc::ENOSPC)),
        false => Ok(()),
    })));
    let mut held_up = 0;
    for name in &names {
        while let Err(fault) = content(&mut pair, name) {
            assert!(
                matches!(&fault, Fault::System { error, .. } if error.raw_os_error() == Some(libc::ENOSPC))
            );
            held_up += 1;
            fails.set(held_up < 3);
        }
    }
    failpoint::set(None);
    assert!(held_up >= 3, "{held_up}");
    end(&mut pair);
    pair.assert_same();
}

/// A connection is lost, or a target killed, with files under way: they come again, and nothing else is wrong.
#[test]
fn what_is_under_way_at_a_cut_comes_again() {
    for at in [Where::InTime, Where::OnAThread] {
        for is_killed in [false, true] {
            let names: Vec<_> = (0..FILES).map(name).collect();
            let mut pair = begun(at, &names);
            for name in &names[..6] {
                content(&mut pair, name).unwrap();
            }
            let object = listed(&pair, &names[6]).object;
            take(&mut pair, LaneItem::OpenContent { object }, b"").unwrap();
            take(&mut pair, LaneItem::Content { object, hole: 0, offset: 0 }, b"some").unwrap();
            if is_killed {
                pair.crash();
            } else {
                pair.applier().end_session();
            }
            assert_eq!(pair.applier().replica().data().state, DataState::Bad);
            begin(&mut pair, &names);
            for name in &names {
                content(&mut pair, name).unwrap();
            }
            end(&mut pair);
            pair.assert_same();
        }
    }
}

/// What fills files preserves nothing: what came before a clone is in it, whole.
#[test]
fn what_is_under_way_when_a_clone_begins_is_in_it() {
    let names: Vec<_> = (0..FILES).map(name).collect();
    let mut pair = begun(Where::InTime, &names);
    for name in &names[..4] {
        content(&mut pair, name).unwrap();
    }
    let dir = pair.temp.path().join("clone");
    clones::begin(&mut pair, &dir, None, true).unwrap();
    let then = tree::describe(&pair.places.root);
    for name in &names[4..] {
        content(&mut pair, name).unwrap();
    }
    end(&mut pair);
    clones::copy_all(&mut pair).unwrap();
    assert_eq!(tree::describe(&dir), then);
    pair.assert_same();
}

/// A file that was handed over and cannot be written held up whatever came next for ever: an end, or a packet.
#[test]
fn a_file_that_cannot_be_written_holds_up_nothing_for_ever() {
    for is_ended in [true, false] {
        let names: Vec<_> = (0..4).map(name).collect();
        let mut pair = begun(Where::InTime, &names).with_patience(std::time::Duration::ZERO);
        for name in &names {
            content(&mut pair, name).unwrap();
        }
        failpoint::set(Some(std::rc::Rc::new(|place| match place {
            "content" => Err(std::io::Error::from_raw_os_error(libc::EIO)),
            _ => Ok(()),
        })));
        let said = pair.source.mkdir("d", 0o755);
        let attempts = (1..9).find(|_| match is_ended {
            true => take(&mut pair, LaneItem::End, b"").is_ok(),
            false => matches!(pair.try_say(&said), Outcome::Applied),
        });
        failpoint::set(None);
        assert_eq!(attempts, Some(2), "ended: {is_ended}");
        if !is_ended {
            take(&mut pair, LaneItem::End, b"").unwrap();
        }
        // The first one was written in its place.
        assert!(names[1..].iter().all(|name| fs::metadata(pair.replica(name)).unwrap().len() == 0));
        // The next copy brings them.
        begin(&mut pair, &names);
        for name in &names {
            content(&mut pair, name).unwrap();
        }
        end(&mut pair);
        assert_eq!(
            fs::read(pair.replica(&names[1])).unwrap(),
            fs::read(pair.source.path(&names[1])).unwrap()
        );
    }
}

/// What the target could not note is asked for when the listing comes again.
#[test]
fn what_is_wanted_is_asked_for_although_it_could_not_be_noted_at_first() {
    let names: Vec<_> = (0..FILES).map(name).collect();
    let mut pair = begun(Where::InTime, &names);
    let entries: Vec<_> = names.iter().map(|name| listed(&pair, name)).collect();
    let mut all = items(&pair.source, &names[0]);
    let Some(LaneItem::Listing { entries: first, .. }) = all.last_mut() else { panic!("no listing") };
    *first = entries;
    let listing = all.pop().unwrap();
    all.into_iter().for_each(|item| take(&mut pair, item, b"").unwrap());
    let fails = std::cell::Cell::new(true);
    failpoint::set(Some(std::rc::Rc::new(move |place| match place == "incomplete" && fails.take() {
        true => Err(std::io::Error::from_raw_os_error(libc::ENOSPC)),
        false => Ok(()),
    })));
    let at = pair.applier().replica().applied();
    take(&mut pair, listing.clone(), b"").unwrap_err();
    let answers = pair.applier().take_item(at, ItemNumber(1), listing, Bytes::new()).unwrap();
    failpoint::set(None);
    let wanted = answers.iter().find_map(|answer| match answer {
        TargetMessage::Wanted { objects, .. } => Some(objects.len()),
        _ => None,
    });
    assert_eq!(wanted, Some(FILES));
}
