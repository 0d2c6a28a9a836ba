//! A peer that reads a replica back, played by hand.

use std::fs;
use std::os::fd::AsFd;
use std::time::Instant;

use super::scene::*;
use crate::link::{FrameReceiver, Received, SourceEvent, SourceLink};
use crate::packet::*;
use crate::sys::FileHandle;

/// A reader of a replica with a file and a directory, beside which there is something else.
struct Reader {
    link: SourceLink,
    frames: FrameReceiver,
    _scene: (tempfile::TempDir, crate::target_side::TargetServer),
    outside: ObjectId,
}

impl Reader {
    fn begin() -> Reader {
        let dir = tempfile::tempdir().unwrap();
        let Scene { source, dial, _server: server, .. } = Scene::begin(dir.path());
        source.close("it stops");
        fs::create_dir(dir.path().join("replica/d")).unwrap();
        fs::write(dir.path().join("replica/f"), "content").unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let file = fs::File::open(&outside).unwrap();
        let handle = FileHandle::of(file.as_fd()).unwrap();
        let inode = std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap());
        let outside = ObjectId::at_first_sight(1, &handle, inode);
        let (link, frames) = SourceLink::dial_to_read(dial);
        link.send(SourceMessage::Restore {
            version_oldest: WIRE_VERSION_OLDEST,
            version: WIRE_VERSION,
            features: Features::OFFERED,
            set_name: Text::from_str_cut("one"),
            accept_bad_data: false,
        });
        let answer = wait_for(&link, |message| matches!(message, TargetMessage::Restoring { .. }));
        assert!(
            matches!(answer, TargetMessage::Restoring { set: SET, data: DataState::Good, .. }),
            "{answer:?}"
        );
        Reader { link, frames, _scene: (dir, server), outside }
    }

    fn say(&self, said: OfCopy) {
        self.link.send(SourceMessage::OfCopy(said));
    }

    /// The next item that fits.
    fn item(&self, fits: impl Fn(&LaneItem) -> bool) -> ItemHeader {
        let deadline = Instant::now() + LONG;
        loop {
            assert!(Instant::now() < deadline, "it never comes");
            match self.frames.recv(LONG) {
                Received::Frame(Frame { header: FrameHeader::Item(item), .. }) if fits(&item.item) => {
                    return item;
                }
                Received::Frame(_) | Received::Idle => {}
                Received::Closed { reason } => panic!("closed: {reason}"),
            }
        }
    }

    fn lost(&self) -> String {
        let deadline = Instant::now() + LONG;
        loop {
            match self.link.events().recv_deadline(deadline).expect("an end in time") {
                SourceEvent::Lost { reason, .. } => return reason,
                SourceEvent::Up | SourceEvent::Message(_) => {}
            }
        }
    }
}

#[test]
fn a_replica_is_shown_and_its_content_comes_where_it_is_wanted() {
    let reader = Reader::begin();
    let listing = reader.item(|item| matches!(item, LaneItem::Listing { .. }));
    let LaneItem::Listing { entries, .. } = &listing.item else { unreachable!() };
    let file = entries.iter().find(|entry| entry.birth == Birth::File).expect("the file");
    reader.say(OfCopy::Wanted { listing: listing.number, objects: vec![file.object] });
    let closed = reader.item(|item| matches!(item, LaneItem::CloseContent { .. }));
    assert!(matches!(closed.item, LaneItem::CloseContent { object, size: 7, .. } if object == file.object));
}

/// Whoever may read one replica names a directory beside it.
#[test]
fn what_lies_outside_of_a_replica_is_never_shown() {
    let reader = Reader::begin();
    let outside = reader.outside;
    let listing = reader.item(|item| matches!(item, LaneItem::Listing { .. }));
    reader.say(OfCopy::Wanted { listing: listing.number, objects: Vec::new() });
    reader.say(OfCopy::Doubt { directories: vec![outside] });
    let answer = reader.item(|item| match item {
        LaneItem::NotListed { dir } | LaneItem::Listing { dir, .. } => *dir == outside,
        _ => false,
    });
    assert_eq!(answer.item, LaneItem::NotListed { dir: outside });
}

#[test]
fn what_was_not_listed_is_not_given() {
    let reader = Reader::begin();
    let listing = reader.item(|item| matches!(item, LaneItem::Listing { .. }));
    reader.say(OfCopy::Wanted { listing: listing.number, objects: vec![reader.outside] });
    let reason = reader.lost();
    assert!(reason.contains("makes no sense"), "{reason}");
}

#[test]
fn only_what_a_reader_says_is_taken_of_it() {
    let reader = Reader::begin();
    reader.link.send(SourceMessage::Diverged { reason: Text::from_str_cut("bad") });
    assert!(reader.lost().contains("says what only a source says"));
}
