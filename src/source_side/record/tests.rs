//! Whose directory it is, which moments count, what stays.

use super::*;
use crate::connection::{Copies, Sending};
use crate::packet::{Incarnation, Timestamp};
use crate::source_side::kept::FirstCopy;
use crate::source_side::mark::Marks;
use std::os::unix::ffi::OsStrExt;

mod left;
mod standing_in;

fn found(label: Label, place: &Path) -> Found {
    Found { label, ..Found::at(File::open(place).unwrap()).unwrap() }
}

/// Opens, and lets go of it; with the set's id.
fn open(state: &Path, tree: &Path, found: &Found, stranger: Stranger) -> Result<SetRecord, StateError> {
    let state = SetState::open(state, tree, found, stranger)?;
    state.save().unwrap();
    Ok(state.record)
}

/// A second directory with the same last name took over the first one's set: its replica was
/// overwritten with other content, without a word.
/// As every copy asks.
fn suspect_since(record: &SetRecord, target: &str, clock: &Clock) -> Timestamp {
    let marks = Marks::default();
    marks.set(&record.marks, &record.runs);
    marks.suspect_since(target, clock)
}

#[test]
fn a_name_stays_with_its_tree() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Path::new(std::ffi::OsStr::from_bytes(b"/srv/\xff/data"));
    let strange = found(Label::None, dir.path());
    let state = SetState::open(dir.path(), tree, &strange, Stranger::Refuse).unwrap();
    let set = state.record.set;
    state.save().unwrap();
    let in_use = SetState::open(dir.path(), tree, &strange, Stranger::Refuse);
    assert!(matches!(in_use, Err(StateError::InUse)));
    drop(state);
    let other = Path::new("/home/data");
    for label in [Label::None, Label::Set(SetId(7))] {
        let refused = open(dir.path(), other, &found(label, dir.path()), Stranger::Refuse);
        assert!(matches!(refused, Err(StateError::OtherTree(first)) if first == tree));
    }
    // The tree at another place, with its mark.
    let own = found(Label::Set(set), dir.path());
    assert_eq!(open(dir.path(), other, &own, Stranger::Refuse).unwrap().set, set);
}

/// A snapshot of the disk was put back between a stop and a start: what the targets have is newer.
#[test]
fn a_directory_of_an_earlier_state_is_not_taken() {
    let (dir, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dir, tree) = (dir.path(), Path::new("/srv/data"));
    let mut first = open(dir, tree, &found(Label::None, place.path()), Stranger::Refuse).unwrap();
    let (old, new, next) = (Stamp::new(), Stamp::new(), Stamp::new());
    first.stamps = vec![new, next];
    store::replace_json(&dir.join("set.json"), &first).unwrap();
    let of = |stamp| Found { stamp, ..found(Label::Set(first.set), place.path()) };
    for known in [new, next] {
        assert!(open(dir, tree, &of(Some(known)), Stranger::Refuse).is_ok());
    }
    for strange in [Some(old), None] {
        let refused = open(dir, tree, &of(strange), Stranger::Refuse);
        assert!(matches!(refused, Err(StateError::NotTheSource(why)) if why.contains("earlier")));
    }
    let adopted = open(dir, tree, &of(Some(old)), Stranger::Adopt).unwrap();
    assert!(adopted.birth_epoch() > first.birth_epoch(), "inodes of other objects come again");
    assert!(adopted.marks.is_empty() && adopted.stamps.is_empty());
    // Of a version that did not stamp.
    first.stamps.clear();
    store::replace_json(&dir.join("set.json"), &first).unwrap();
    assert!(open(dir, tree, &of(None), Stranger::Refuse).is_ok());
}

/// The data disk was not mounted at the start: the empty mount point was taken for the
/// directory, and the replica was emptied.
#[test]
fn only_the_directory_itself_is_taken_for_it() {
    let (dir, place, elsewhere) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dir, tree) = (dir.path(), Path::new("/srv/data"));
    let at = |label| found(label, place.path());
    let first = open(dir, tree, &at(Label::None), Stranger::Refuse).unwrap();
    let own = Label::Set(first.set);
    let cases = [
        ("the directory", at(own), None),
        ("emptied, or another one", at(Label::None), Some("does not carry")),
        ("of another set", at(Label::Set(SetId(7))), Some("another set")),
        ("a copy with its mark", found(own, elsewhere.path()), Some("another directory")),
        ("no xattrs, another one", found(Label::Impossible, elsewhere.path()), Some("another directory")),
        ("no xattrs, the same", at(Label::Impossible), None),
    ];
    for (what, found, refused) in cases {
        match (open(dir, tree, &found, Stranger::Refuse), refused) {
            (Ok(record), None) => assert_eq!(record.set, first.set, "{what}"),
            (Err(StateError::NotTheSource(why)), Some(part)) => {
                assert!(why.contains(part), "{what}: {why}")
            }
            (outcome, _) => panic!("{what}: {outcome:?}"),
        }
    }
    let adopted = open(dir, tree, &found(Label::None, elsewhere.path()), Stranger::Adopt).unwrap();
    assert_eq!((adopted.set, adopted.birth_epoch()), (first.set, first.birth_epoch() + 1));
    assert_eq!(adopted.epoch, first.epoch);
    let again = open(dir, tree, &found(own, elsewhere.path()), Stranger::Refuse).unwrap();
    assert_eq!(again.birth_epoch(), adopted.birth_epoch());
    // The state is lost, the mark is there.
    std::fs::remove_file(dir.join("set.json")).unwrap();
    assert_eq!(open(dir, tree, &at(own), Stranger::Refuse).unwrap().set, first.set);
    // A copy of the directory carries its mark, and was taken for it.
    let copy = Found { is_copy: true, ..found(own, elsewhere.path()) };
    let as_new = |stranger| {
        std::fs::remove_file(dir.join("set.json")).unwrap();
        open(dir, tree, &copy, stranger).unwrap()
    };
    let another = as_new(Stranger::Refuse);
    assert_ne!(another.set, first.set);
    // After a start that its target refused it can still be adopted.
    let marked = found(Label::Set(another.set), elsewhere.path());
    assert_eq!(open(dir, tree, &marked, Stranger::Refuse).unwrap().set, another.set);
    assert_eq!(open(dir, tree, &marked, Stranger::Adopt).unwrap().set, first.set);
    let adopted = as_new(Stranger::Adopt);
    assert_eq!(adopted.set, first.set);
    assert!(adopted.birth_epoch() > first.birth_epoch());
}

fn no_log() -> LeftLog {
    LeftLog { all: Err("there is none".into()), carried: Err("there is none".into()) }
}

/// After a power loss the source was behind its replica, and its own times said nothing of it:
/// both were called equal.
#[test]
fn marks_count_only_where_nothing_was_lost() {
    let dir = tempfile::tempdir().unwrap();
    let cache = PageCache::of(File::open(dir.path()).unwrap()).unwrap();
    let strange = found(Label::None, dir.path());
    let check = |settled: bool, left: Option<PageCache>, now: Option<PageCache>, counts: bool| {
        let mut state = SetState::open(dir.path(), Path::new("/srv"), &strange, Stranger::Adopt).unwrap();
        state.record.marks.insert("null:".into(), Mark::now());
        (state.record.settled, state.record.page_cache) = (settled, left);
        state.begin(Incarnation(1), now.clone(), &Clock::now(), &no_log());
        assert_eq!(suspect_since(&state.record, "null:", &Clock::now()) != EVERYTHING, counts);
        assert_eq!((state.record.settled, &state.record.page_cache), (false, &now));
        assert_eq!(suspect_since(&state.record, "local:/never", &Clock::now()), EVERYTHING);
    };
    check(true, None, Some(cache.clone()), true);
    check(true, Some(cache.clone()), None, true);
    check(false, Some(cache.clone()), Some(cache.clone()), true);
    check(false, Some(cache.clone()), None, false);
    check(false, None, Some(cache), false);
    check(false, None, None, false);
}

/// Scripts that name a connection by its UUID missed it after each restart.
#[test]
fn a_connection_keeps_its_uuid() {
    let dir = tempfile::tempdir().unwrap();
    let own = found(Label::Impossible, dir.path());
    let uuids = |targets: &[&str]| -> Vec<String> {
        let mut state = SetState::open(dir.path(), Path::new("/srv"), &own, Stranger::Adopt).unwrap();
        let uuid = |target: &&str| state.record.connection(&target.parse().unwrap()).uuid.clone();
        let uuids = targets.iter().map(uuid).collect();
        state.save().unwrap();
        uuids
    };
    let first = uuids(&["local:/r", "standin://host:7447/web"]);
    assert_ne!(first[0], first[1]);
    // One that no start names meanwhile is the same when it is back.
    assert_eq!(uuids(&["local:/r"]), first[..1]);
    assert_eq!(uuids(&["standin://host:7447/web", "local:/r"]), [first[1].clone(), first[0].clone()]);
}

/// Records of earlier versions are read; the moments that they have are worth nothing.
#[test]
fn an_old_record_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let old = serde_json::json!({
        "set": SetId(5), "epoch": Epoch { number: 1, writer: 2 }, "tree": "/srv/data",
        "synced_as_of": { "null:": Timestamp { seconds: 7, nanoseconds: 0 } }, "stopped_cleanly": true,
    });
    std::fs::write(dir.path().join("set.json"), old.to_string()).unwrap();
    let own = found(Label::Set(SetId(5)), dir.path());
    let state = SetState::open(dir.path(), Path::new("/srv/data"), &own, Stranger::Refuse).unwrap();
    assert_eq!(suspect_since(&state.record, "null:", &Clock::now()), EVERYTHING);
}

/// A change that could not be captured was forgotten with the process: the next start believed
/// the times, and the replica stayed without it for good.
#[test]
fn after_a_divergence_no_time_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, clock) = (Path::new("/srv/data"), Clock::now());
    let mut state =
        SetState::open(dir.path(), tree, &found(Label::None, dir.path()), Stranger::Refuse).unwrap();
    state.record.marks.insert("local:/r".into(), Mark::now());
    assert_ne!(suspect_since(&state.record, "local:/r", &clock), EVERYTHING);
    assert!(state.record.diverge("write: I/O error"));
    assert!(!state.record.diverge("another"), "once is enough");
    state.save().unwrap();
    let own = found(Label::Set(state.record.set), dir.path());
    drop(state);
    let state = SetState::open(dir.path(), tree, &own, Stranger::Refuse).unwrap();
    assert_eq!(suspect_since(&state.record, "local:/r", &clock), EVERYTHING);
    assert_eq!(state.record.diverged.as_deref(), Some("write: I/O error"));
}

/// What a first copy has told is worth something only as a mark is; what a person wants always stays.
#[test]
fn a_first_copy_counts_only_where_nothing_was_lost() {
    let dir = tempfile::tempdir().unwrap();
    let cache = PageCache::of(File::open(dir.path()).unwrap()).unwrap();
    let strange = found(Label::None, dir.path());
    let target: Target = "local:/r".parse().unwrap();
    let copy = FirstCopy::begins(Mark::now(), Incarnation(7));
    let wish = Wish { sending: Sending::Stopped, copies: Copies::Stopped, unqueued: true };
    let check = |what: &str, counts: bool, happens: &dyn Fn(&mut SetState)| {
        let mut state = SetState::open(dir.path(), Path::new("/srv"), &strange, Stranger::Adopt).unwrap();
        state.record.connection(&target);
        state.record.connections.get_mut("local:/r").unwrap().kept =
            Kept { wish, first_copy: Some(copy.clone()), ..Kept::default() };
        state.record.diverged = None;
        happens(&mut state);
        state.save().unwrap();
        let kept = std::fs::read(dir.path().join("set.json")).unwrap();
        let kept: SetRecord = serde_json::from_slice(&kept).unwrap();
        let kept = &kept.connections["local:/r"].kept;
        assert_eq!((kept.first_copy.is_some(), kept.wish), (counts, wish), "{what}");
    };
    let begin = |settled: bool, left: Option<PageCache>| {
        let now = cache.clone();
        move |state: &mut SetState| {
            (state.record.settled, state.record.page_cache) = (settled, left.clone());
            state.begin(Incarnation(1), Some(now.clone()), &Clock::now(), &no_log());
        }
    };
    check("an orderly end", true, &begin(true, None));
    check("a kill", true, &begin(false, Some(cache.clone())));
    check("a power loss", false, &begin(false, None));
    check("a change that was not captured", false, &|state| {
        state.record.diverge("write");
    });
    check("a clock that was set", false, &|state| state.record.forget_moments());
}

/// A record in which something is damaged is told, and nothing of it is believed.
#[test]
fn a_damaged_record_is_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let own = found(Label::Impossible, dir.path());
    let mut state = SetState::open(dir.path(), Path::new("/srv"), &own, Stranger::Adopt).unwrap();
    state.record.connection(&"local:/r".parse().unwrap());
    state.save().unwrap();
    drop(state);
    let path = dir.path().join("set.json");
    let whole = std::fs::read_to_string(&path).unwrap();
    for (what, damaged) in [
        ("cut", whole[..whole.len() / 2].to_owned()),
        ("empty", String::new()),
        ("an unknown wish", whole.replace("\"now\"", "\"sideways\"")),
    ] {
        assert_ne!(damaged, whole, "{what}");
        std::fs::write(&path, damaged).unwrap();
        let opened = open(dir.path(), Path::new("/srv"), &own, Stranger::Adopt);
        assert!(matches!(opened, Err(StateError::Io(_))), "{what}: {opened:?}");
    }
    std::fs::write(&path, whole.replace("\"disconnected\": false,", "")).unwrap();
    assert!(open(dir.path(), Path::new("/srv"), &own, Stranger::Adopt).is_ok(), "of an older version");
}

/// A directory that was restored is the set's, and what the target had as of the end counts.
#[test]
fn a_restored_directory_is_the_sets_and_its_mark_counts() {
    let (state, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dir, tree, set, from) = (state.path().join("web"), Path::new("/srv/web"), SetId(7), "local:/backup");
    let own = found(Label::Set(set), place.path());
    let restored = |before: Option<u32>| {
        let mark = Mark::now();
        Restoring::begin(&dir, set)
            .unwrap()
            .done(set, tree, &own, from, Some((mark.clone(), Position::default())))
            .unwrap();
        let mut state = SetState::open(&dir, tree, &own, Stranger::Refuse).unwrap();
        state.begin(Incarnation(1), None, &Clock::now(), &no_log());
        let record = state.record.clone();
        assert_eq!((record.set, record.restored_from.as_deref()), (set, Some(from)));
        assert_eq!(suspect_since(&record, from, &Clock::now()), mark.suspect_since(&Clock::now()));
        assert!(before.is_none_or(|before| record.birth_epoch() > before), "ids are new ones");
        record.birth_epoch()
    };
    let first = restored(None);
    assert!(first > 1, "ids of the directory before are others");
    restored(Some(first));
    // The name is this set's alone, and nobody's who comes meanwhile.
    assert!(matches!(Restoring::begin(&dir, SetId(8)), Err(StateError::OtherTree(_))));
    let _held = Restoring::begin(&dir, set).unwrap();
    assert!(matches!(SetState::open(&dir, tree, &own, Stranger::Refuse), Err(StateError::InUse)));
}
