//! Times of copied files: set after a sync of their bytes, which runs beside what comes next.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;

use super::keep::{aside, kept};
use super::sync::items;
use super::*;
use crate::apply::reconcile::beside::tests::{Where, fill};
use crate::apply::replica::Incomplete;
use crate::failpoint;

/// As many files as wait for one sync, and as many that come while it runs.
const FILES: usize = 8;

fn name(number: usize) -> String {
    format!("file {number}")
}

/// A copy of files whose content has not come.
fn begun() -> Pair {
    fill(Where::InPlace);
    let mut pair = Pair::new();
    let mut entries = Vec::new();
    for number in 0..FILES {
        pair.say(pair.source.create(&name(number), 0o644));
        // What the target never hears of.
        let _ = pair.source.write(&name(number), 0, format!("bytes of {number}").as_bytes());
        let _ =
            pair.source.utimes(&name(number), Timestamp { seconds: 1_000_000, nanoseconds: number as u32 });
        let listed = items(&pair.source, &name(number)).pop();
        let Some(LaneItem::Listing { entries: one, .. }) = listed else { panic!("no listing") };
        entries.extend(one);
    }
    let mut all = items(&pair.source, &name(0));
    let Some(LaneItem::Listing { entries: listed, .. }) = all.last_mut() else { panic!("no listing") };
    *listed = entries;
    all.into_iter().for_each(|item| take(&mut pair, item, b"").unwrap());
    pair
}

fn take(pair: &mut Pair, item: LaneItem, payload: &'static [u8]) -> Result<(), Fault> {
    let at = pair.applier().replica().applied();
    pair.applier().take_item(at, ItemNumber(1), item, Bytes::from_static(payload)).map(drop)
}

/// All content of a file as it is at the source.
fn content(pair: &mut Pair, number: usize) -> Result<(), Fault> {
    let bytes = fs::read(pair.source.path(&name(number))).unwrap();
    let listed = items(&pair.source, &name(number)).pop();
    let Some(LaneItem::Listing { entries, .. }) = listed else { panic!("no listing") };
    let (object, attributes) = (entries[0].object, entries[0].attributes);
    let size = bytes.len() as u64;
    take(pair, LaneItem::OpenContent { object }, b"")?;
    take(pair, LaneItem::Content { object, hole: 0, offset: 0 }, bytes.leak())?;
    take(pair, LaneItem::CloseContent { object, hole: 0, size, attributes, xattrs: Vec::new() }, b"")
}

fn has_its_time(pair: &Pair, number: usize) -> bool {
    let time = |path: PathBuf| fs::metadata(path).unwrap().modified().unwrap();
    time(pair.replica(&name(number))) == time(pair.source.path(&name(number)))
}

struct AtEnd<F: Fn()>(F);

impl<F: Fn()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn kept_time(pair: &Pair, name: &str) -> Timestamp {
    let day = fs::read_dir(pair.places.limbo.join("deleted/trash")).unwrap().next().unwrap().unwrap();
    let time = fs::metadata(day.path().join(name)).unwrap();
    Timestamp { seconds: time.mtime(), nanoseconds: time.mtime_nsec() as u32 }
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "it never comes");
        std::thread::yield_now();
    }
}

#[test]
fn a_sync_of_copied_files_holds_up_nothing_but_their_times() {
    let mut pair = begun();
    let disk = pair.applier().replica().hold.clone();
    disk.close();
    // Who fails here waits for no sync for ever.
    let opens = AtEnd(|| disk.open());
    (0..FILES - 1).for_each(|number| content(&mut pair, number).unwrap());
    wait_until(|| disk.waiting() == 1);
    assert!((0..FILES - 1).all(|number| !has_its_time(&pair, number)), "a time before its bytes");
    // A packet has another time for one of those that wait for the sync, one takes another away, and one has a
    // third kept, with its time.
    pair.say(pair.source.utimes(&name(1), Timestamp { seconds: 2_000_000, nanoseconds: 1 }));
    pair.say(pair.source.unlink(&name(2)));
    let was = pair.source.mtime(&name(3));
    pair.say(kept(pair.source.unlink(&name(3)), &aside()));
    assert_eq!(pair.aside(), [(name(3), "bytes of 3".to_owned())]);
    assert_eq!(kept_time(&pair, &name(3)), was);
    assert!(!has_its_time(&pair, 1), "a time before its bytes");
    drop(opens);
    // As many again have come: the first ones are due.
    content(&mut pair, FILES - 1).unwrap();
    assert!([0, 1].iter().all(|&number| has_its_time(&pair, number)));
    assert!((4..FILES).all(|number| !has_its_time(&pair, number)), "a time before its bytes");
    take(&mut pair, LaneItem::End, b"").unwrap();
    assert_eq!(pair.applier().replica().data().state, DataState::Good);
    pair.assert_same();
}

#[test]
fn who_waits_for_a_sync_that_fails_stays_incomplete() {
    let mut pair = begun();
    pair.applier().replica().hold.break_once();
    let failed = (0..FILES).map(|number| content(&mut pair, number)).find(Result::is_err);
    assert!(matches!(failed, Some(Err(Fault::SyncFailed(_)))), "{failed:?}");
    assert!((0..FILES).all(|number| !has_its_time(&pair, number)), "what may not be there looks copied");
    assert!(pair.applier().replica().sync_failed());
    let waiting = Incomplete::open(pair.applier().replica()).unwrap().waiting().unwrap();
    assert!((0..4).all(|number| waiting.contains(&pair.source.id(&name(number)))), "{waiting:?}");
    // Nothing goes on with it.
    take(&mut pair, LaneItem::End, b"").unwrap_err();
    assert_eq!(pair.applier().replica().data().state, DataState::Bad);
}

/// Nothing more may come for hours: the kernel says it once.
#[test]
fn a_sync_of_copied_files_that_fails_is_heard_while_nothing_comes() {
    let mut pair = begun();
    pair.applier().replica().hold.break_once();
    (0..4).for_each(|number| content(&mut pair, number).unwrap());
    wait_until(|| pair.applier().hear_of_sync().is_err());
    assert!(pair.applier().replica().sync_failed() && pair.applier().replica().has_noted());
    take(&mut pair, LaneItem::End, b"").unwrap_err();
}

/// A file whose time a damaged disk does not take kept each copy from its end, and was tried again with whatever item came
/// next: that was left out for it.
#[test]
fn a_time_that_cannot_be_set_keeps_no_copy_from_its_end() {
    for number in [libc::EIO, libc::EPERM, libc::EINVAL] {
        let mut pair = begun();
        let bad = std::cell::Cell::new(true);
        let hook: failpoint::Hook = Rc::new(move |place| match place == "settle a file" && bad.take() {
            true => Err(io::Error::from_raw_os_error(number)),
            false => Ok(()),
        });
        failpoint::with(hook, || {
            (0..FILES).for_each(|number| content(&mut pair, number).unwrap());
            let at = pair.applier().replica().applied();
            let end = pair.applier().take_item(at, ItemNumber(1), LaneItem::End, Bytes::new()).unwrap();
            let Some(TargetMessage::Resynchronised { left_out, .. }) = end.last() else { panic!("{end:?}") };
            assert_eq!(left_out.count, 1, "{left_out:?}");
            assert!(format!("{left_out:?}").contains("file "), "{left_out:?}");
        });
        let data = pair.applier().replica().data();
        assert_eq!((data.state, data.in_line), (DataState::Bad, true));
        assert_eq!((0..FILES).filter(|&number| !has_its_time(&pair, number)).count(), 1);
        // What it lacks is known to the next copy.
        let mut entries = 0;
        for number in 0..FILES {
            let mut all = items(&pair.source, &name(number));
            let listing = all.pop().unwrap();
            if number == 0 {
                all.into_iter().for_each(|item| take(&mut pair, item, b"").unwrap());
            }
            let at = pair.applier().replica().applied();
            let answers = pair.applier().take_item(at, ItemNumber(1), listing, Bytes::new()).unwrap();
            for answer in answers {
                if let TargetMessage::Wanted { objects, .. } = answer {
                    entries += objects.len();
                }
            }
        }
        assert_eq!(entries, 1);
    }
}

/// A disk that takes nothing is not one file's.
#[test]
fn a_disk_that_takes_no_time_is_waited_for() {
    let mut pair = begun();
    let hook: failpoint::Hook = Rc::new(|place| match place {
        "settle a file" => Err(io::Error::from_raw_os_error(libc::EROFS)),
        _ => Ok(()),
    });
    (0..3).for_each(|number| content(&mut pair, number).unwrap());
    failpoint::with(hook, || {
        let fault = take(&mut pair, LaneItem::End, b"").unwrap_err();
        assert!(matches!(fault, Fault::System { .. }), "{fault}");
    });
    take(&mut pair, LaneItem::End, b"").unwrap();
    assert!((0..3).all(|number| has_its_time(&pair, number)));
}

/// The file has other bytes than the copy has brought, and was given the time that says that they are good.
#[test]
fn a_write_that_fails_is_not_forgotten_by_a_sync() {
    let mut pair = begun();
    (0..3).for_each(|number| content(&mut pair, number).unwrap());
    let said = pair.source.write(&name(1), 3, b"more");
    let hook: failpoint::Hook = Rc::new(|place| match place {
        "object" => Err(io::Error::from_raw_os_error(libc::EIO)),
        _ => Ok(()),
    });
    failpoint::with(hook, || pair.say(said));
    (3..FILES).for_each(|number| content(&mut pair, number).unwrap());
    take(&mut pair, LaneItem::End, b"").unwrap();
    let data = pair.applier().replica().data();
    assert_eq!((data.state, data.in_line), (DataState::Bad, true));
    let lacking = Incomplete::open(pair.applier().replica()).unwrap();
    let is_lacking = |number| lacking.lack(pair.source.id(&name(number))).unwrap().is_some();
    assert!(is_lacking(1) && !is_lacking(0) && !is_lacking(2));
}

/// The replica lacked more than what was owed by then, for a copy that was to begin: it never did.
#[test]
fn a_time_that_cannot_be_set_keeps_no_copy_of_what_is_owed_from_its_beginning() {
    for lasts in [false, true] {
        let mut pair = Pair::new();
        pair.say(pair.source.create("one", 0o644));
        pair.say(pair.source.write("one", 0, b"bytes"));
        let attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: pair.source.mtime("") };
        let begin = LaneItem::BeginOwed { percent_max: None, compares: false };
        let root = LaneItem::Root { object: pair.source.id(""), attributes, xattrs: Vec::new() };
        let hook: failpoint::Hook = Rc::new(|place| match place {
            "object" => Err(io::Error::from_raw_os_error(libc::EIO)),
            _ => Ok(()),
        });
        failpoint::with(hook.clone(), || take(&mut pair, begin, b"").unwrap());
        take(&mut pair, root, b"").unwrap();
        let hook = if lasts { hook } else { Rc::new(|_: &'static str| Ok(())) };
        failpoint::with(hook, || take(&mut pair, LaneItem::End, b"").unwrap());
        let data = pair.applier().replica().data();
        match lasts {
            true => assert_eq!((data.state, data.in_line), (DataState::Bad, true)),
            false => {
                assert_eq!(data.state, DataState::Good);
                pair.assert_same();
            }
        }
    }
}

/// The disk was full as an owner was to be set, and it was tried again: an empty file, and what is no file, kept the time
/// of that moment, and what a packet had made lacked its owner.
#[test]
fn what_is_made_at_the_second_attempt_is_whole() {
    for by_packet in [false, true] {
        let mut pair = Pair::new();
        pair.say(pair.source.chmod("", 0o755));
        pair.say(pair.source.create("stays", 0o640));
        pair.applier().set_pending_times().unwrap();
        let begins = [
            LaneItem::BeginOwed { percent_max: None, compares: false },
            items(&pair.source, "stays").remove(1),
        ];
        begins.into_iter().for_each(|item| take(&mut pair, item, b"").unwrap());
        let said = [pair.source.create("file", 0o604), pair.source.mknod("fifo", Birth::Fifo)];
        let time = Timestamp { seconds: 1_000_000, nanoseconds: 7 };
        let times = ["file", "fifo"].map(|name| pair.source.utimes(name, time));
        let mut listing = items(&pair.source, "stays").pop().unwrap();
        let LaneItem::Listing { entries, dir_mtime, .. } = &mut listing else { panic!("no listing") };
        for name in ["file", "fifo"] {
            let Some(LaneItem::Listing { entries: one, dir_mtime: now, .. }) =
                items(&pair.source, name).pop()
            else {
                panic!("no listing")
            };
            entries.extend(one);
            *dir_mtime = now;
        }
        entries[2].birth = Birth::Fifo;
        let fails = std::cell::Cell::new(0);
        failpoint::set(Some(Rc::new(move |place| match place == "owner" {
            true if fails.replace(fails.get() + 1) % 2 == 0 => {
                Err(io::Error::from_raw_os_error(libc::ENOSPC))
            }
            _ => Ok(()),
        })));
        let is_made = |attempts: usize| (1..4).contains(&attempts);
        if by_packet {
            for said in &said {
                let attempts = (1..9).find(|_| matches!(pair.try_say(said), Outcome::Applied));
                assert!(attempts.is_some_and(is_made));
            }
            times.into_iter().for_each(|said| pair.say(said));
        } else {
            let attempts = (1..9).find(|_| take(&mut pair, listing.clone(), b"").is_ok());
            assert!(attempts.is_some_and(is_made), "{attempts:?}");
        }
        failpoint::set(None);
        take(&mut pair, LaneItem::End, b"").unwrap();
        pair.applier().set_pending_times().unwrap();
        pair.assert_same();
        assert_eq!(pair.applier().missing(), None);
    }
}
