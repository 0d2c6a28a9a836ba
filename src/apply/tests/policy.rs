//! What a target does not allow: left out and counted, and everything else goes on.

use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::privileges;
use crate::words::Allow;

/// A pair whose target allows this.
fn pair(allow: Allow) -> Pair {
    let mut pair = Pair::new();
    pair.reopen(allow);
    pair
}

impl Pair {
    fn reopen(&mut self, allow: Allow) {
        drop(self.applier.take());
        let replica = Replica::open(&self.places, SET).unwrap().allow(allow);
        self.applier = Some(Applier::new(replica));
    }

    fn mode_on_replica(&self, path: &str) -> u32 {
        std::fs::symlink_metadata(self.replica(path)).unwrap().mode()
    }
}

#[test]
fn a_device_becomes_a_placeholder_that_lives_like_it() {
    let mut pair = pair(Allow::NOTHING);
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.mkdir("dir", 0o755));
    pair.say(source.mknod("null", Birth::CharDevice { major: 1, minor: 3 }));
    pair.say(source.mknod("whiteout", Birth::CharDevice { major: 0, minor: 0 }));
    pair.say(source.chmod("null", 0o666));
    pair.say(source.chown("null", 7, 8));
    pair.say(source.rename("null", "dir/zero"));
    let meta = std::fs::symlink_metadata(pair.replica("dir/zero")).unwrap();
    assert!(meta.is_file() && meta.len() == 0, "{meta:?}");
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o666, 7, 8));
    let mark = crate::xattr::get(
        std::fs::File::open(pair.replica("dir/zero")).unwrap(),
        b"trusted.standin.withheld",
    );
    assert_eq!(mark.unwrap().as_deref(), Some(b"char 1:3".as_slice()));
    assert_eq!(pair.mode_on_replica("whiteout") & 0o170_000, 0o020_000, "a whiteout is no device");
    let withheld = pair.applier().replica().withheld();
    assert_eq!(withheld.devices.load(Relaxed), 1);
    pair.say(source.unlink("dir/zero"));
    pair.say(source.unlink("whiteout"));
    pair.assert_same();
}

#[test]
fn setuid_stays_away_and_setgid_stays_on_directories() {
    let mut pair = pair(Allow { setuid: false, ..Allow::ALL });
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.mkdir("shared", 0o2775));
    pair.say(source.create("tool", 0o6755));
    assert_eq!(pair.mode_on_replica("shared") & 0o7777, 0o2775);
    assert_eq!(pair.mode_on_replica("tool") & 0o7777, 0o755);
    pair.say(source.chmod("tool", 0o4711));
    pair.say(source.chmod("shared", 0o7770));
    assert_eq!(pair.mode_on_replica("tool") & 0o7777, 0o711);
    assert_eq!(pair.mode_on_replica("shared") & 0o7777, 0o3770);
    // An ACL travels with the mode that it gives: no way around.
    pair.say(source.set_xattr("tool", "user.x", b"1"));
    assert_eq!(pair.mode_on_replica("tool") & 0o7777, 0o711);
    assert!(pair.applier().replica().withheld().setuid_bits.load(Relaxed) >= 4);
    pair.say(source.chmod("tool", 0o640));
    pair.say(source.chmod("shared", 0o2770));
    pair.assert_same();
}

#[test]
fn security_attributes_are_left_out_and_taken_away() {
    // cap_net_raw, version 2 (`linux/capability.h`).
    let capability = [&[1u8, 0, 0, 2, 0, 0x20][..], &[0; 14]].concat();
    let mut pair = pair(Allow::ALL);
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.create("ping", 0o755));
    pair.say(source.set_xattr("ping", "security.capability", &capability));
    pair.assert_same();
    pair.reopen(Allow { security: false, ..Allow::ALL });
    pair.say(source.create("other", 0o755));
    pair.say(source.set_xattr("other", "security.capability", &capability));
    pair.say(source.set_xattr("other", "user.kept", b"1"));
    let names = |pair: &Pair, path: &str| {
        let found = crate::xattr::read_replicated(std::fs::File::open(pair.replica(path)).unwrap()).unwrap();
        found.into_iter().map(|xattr| format!("{:?}", xattr.name)).collect::<Vec<_>>()
    };
    assert_eq!(names(&pair, "other"), ["\"user.kept\""]);
    assert_eq!(pair.applier().replica().withheld().security_xattrs.load(Relaxed), 1);
    pair.say(source.remove_xattr("other", "security.capability"));
    pair.say(source.remove_xattr("ping", "security.capability"));
    pair.assert_same();
}

/// `serve` without `--allow security` has no `CAP_SETFCAP`: one `setcap -r` on the source, of what
/// had been left out here, held everything behind it up for ever.
#[test]
fn security_attributes_go_without_the_capability_to_set_them() {
    let capability = [&[1u8, 0, 0, 2, 0, 0x20][..], &[0; 14]].concat();
    let mut pair = pair(Allow::ALL);
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.create("ping", 0o6755));
    pair.say(source.set_xattr("ping", "security.capability", &capability));
    pair.reopen(Allow { security: false, ..Allow::ALL });
    let said = [
        source.create("other", 0o755),
        source.set_xattr("other", "security.capability", &capability),
        source.remove_xattr("other", "security.capability"),
        source.remove_xattr("ping", "security.capability"),
    ];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            privileges::give_up(privileges::SERVE).unwrap();
            said.into_iter().for_each(|said| pair.say(said));
        });
    });
    assert_eq!(pair.mode_on_replica("ping") & 0o7777, 0o6755);
    pair.assert_same();
}

/// A target is killed in the middle of making a placeholder: the op is found half done.
#[test]
fn a_placeholder_in_doubt_is_completed() {
    let mut pair = pair(Allow::NOTHING);
    let source = Source { root: pair.source.root.clone() };
    let said = source.mknod("disk", Birth::BlockDevice { major: 8, minor: 1 });
    std::fs::write(pair.replica("disk"), "").unwrap();
    let applier = pair.applier();
    let replica = applier.replica();
    replica.perform(&said.0, b"", Doubt::MayBeDone).unwrap();
    assert!(std::fs::symlink_metadata(pair.replica("disk")).unwrap().is_file());
}
