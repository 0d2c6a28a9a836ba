//! The op after *applied* when the target was killed: before, within and after its system calls.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags};

use super::keep::{aside, kept};
use super::source::remove;
use super::*;

/// One op: the change on the source, and its bare system call on the replica.
pub struct Case {
    pub name: &'static str,
    pub change: fn(&Source) -> Said,
    pub by_hand: fn(&Path),
}

fn swap(root: &Path, from: &str, to: &str, flags: RenameFlags) {
    rustix::fs::renameat_with(CWD, root.join(from), CWD, root.join(to), flags).unwrap();
}

pub const CASES: &[Case] = &[
    Case {
        name: "create a file",
        change: |source| source.create("new", 0o640),
        by_hand: |root| drop(fs::File::create_new(root.join("new")).unwrap()),
    },
    Case {
        name: "create a directory",
        change: |source| source.mkdir("dir/new", 0o2750),
        by_hand: |root| fs::create_dir(root.join("dir/new")).unwrap(),
    },
    Case {
        name: "create a symlink",
        change: |source| source.symlink("new", "to here"),
        by_hand: |root| symlink("to here", root.join("new")).unwrap(),
    },
    Case {
        name: "create a fifo",
        change: |source| source.mknod("new", Birth::Fifo),
        by_hand: |root| {
            let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::empty());
            rustix::fs::mknodat(CWD, root.join("new"), kind, mode, 0).unwrap();
        },
    },
    Case {
        name: "link",
        change: |source| source.link("one", "dir/one too"),
        by_hand: |root| fs::hard_link(root.join("one"), root.join("dir/one too")).unwrap(),
    },
    Case {
        name: "unlink the last name",
        change: |source| source.unlink("one"),
        by_hand: |root| remove(&root.join("one")),
    },
    Case {
        name: "unlink one of two names",
        change: |source| source.unlink("linked"),
        by_hand: |root| remove(&root.join("linked")),
    },
    Case {
        name: "keep what was unlinked",
        change: |source| kept(source.unlink("one"), &aside()),
        by_hand: |root| remove(&root.join("one")),
    },
    Case {
        name: "keep one of two names",
        change: |source| kept(source.unlink("linked"), &aside()),
        by_hand: |root| remove(&root.join("linked")),
    },
    Case {
        name: "rmdir",
        change: |source| source.rmdir("empty"),
        by_hand: |root| remove(&root.join("empty")),
    },
    Case {
        name: "rename",
        change: |source| source.rename("one", "dir/moved"),
        by_hand: |root| swap(root, "one", "dir/moved", RenameFlags::empty()),
    },
    Case {
        name: "rename over a file",
        change: |source| source.rename("one", "two"),
        by_hand: |root| swap(root, "one", "two", RenameFlags::empty()),
    },
    Case {
        name: "rename over one of two names",
        change: |source| source.rename("one", "linked"),
        by_hand: |root| swap(root, "one", "linked", RenameFlags::empty()),
    },
    Case {
        name: "rename over a directory",
        change: |source| source.rename("dir", "empty"),
        by_hand: |root| swap(root, "dir", "empty", RenameFlags::empty()),
    },
    Case {
        name: "rename with a whiteout",
        change: |source| source.rename_with("one", "dir/moved", RenameFlags::WHITEOUT),
        by_hand: |root| swap(root, "one", "dir/moved", RenameFlags::WHITEOUT),
    },
    Case {
        name: "exchange",
        change: |source| source.exchange("one", "dir"),
        by_hand: |root| swap(root, "one", "dir", RenameFlags::EXCHANGE),
    },
    Case {
        name: "write",
        change: |source| source.write("one", 3, b"new bytes"),
        by_hand: |root| {
            use std::os::unix::fs::FileExt;
            let file = fs::OpenOptions::new().write(true).open(root.join("one")).unwrap();
            file.write_all_at(b"new", 3).unwrap();
        },
    },
    Case {
        name: "resize",
        change: |source| source.resize("one", 2),
        by_hand: |root| {
            fs::OpenOptions::new().write(true).open(root.join("one")).unwrap().set_len(2).unwrap();
        },
    },
    Case {
        name: "reserve",
        change: |source| source.reserve("one", 1, 9000, Reserve::ZeroRange),
        by_hand: |root| {
            fs::OpenOptions::new().write(true).open(root.join("one")).unwrap().set_len(9001).unwrap();
        },
    },
    Case {
        name: "chown",
        change: |source| source.chown("one", 7, 8),
        by_hand: |root| std::os::unix::fs::chown(root.join("one"), Some(7), Some(8)).unwrap(),
    },
    Case {
        name: "remove an xattr",
        change: |source| source.remove_xattr("one", "user.note"),
        by_hand: |root| rustix::fs::removexattr(root.join("one"), "user.note").unwrap(),
    },
    Case {
        name: "set an xattr",
        change: |source| source.set_xattr("dir", "user.note", b"x"),
        by_hand: |root| {
            rustix::fs::setxattr(root.join("dir"), "user.note", b"x", rustix::fs::XattrFlags::empty())
                .unwrap();
        },
    },
];

pub fn prepared() -> Pair {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    for dir in ["dir", "empty"] {
        pair.say(source.mkdir(dir, 0o755));
    }
    for file in ["one", "two", "three", "dir/inner"] {
        pair.say(source.create(file, 0o4755));
        pair.say(source.write(file, 0, file.as_bytes()));
    }
    pair.say(source.link("three", "linked"));
    pair.say(source.set_xattr("one", "user.note", b"1"));
    pair.assert_same();
    pair
}

#[derive(Clone, Copy, Debug)]
enum Killed {
    BeforeTheCall,
    AfterTheCall,
    AfterTheOp,
}

#[test]
fn the_op_in_doubt_is_done_exactly_once() {
    for case in CASES {
        for killed in [Killed::BeforeTheCall, Killed::AfterTheCall, Killed::AfterTheOp] {
            eprintln!("{}, killed {killed:?}", case.name);
            let mut pair = prepared();
            let said = (case.change)(&pair.source);
            let frame = pair.frame(&said);
            let replica = pair.applier().replica();
            replica.pretend_begun(frame.position);
            match killed {
                Killed::BeforeTheCall => {}
                Killed::AfterTheCall => (case.by_hand)(&pair.places.root),
                Killed::AfterTheOp => replica.perform(&said.0, &said.1, Doubt::None).unwrap(),
            }
            pair.crash();
            assert!(matches!(pair.applier().handle(&frame), Outcome::Applied), "{}", case.name);
            pair.assert_same();
            // What the redo left in the index is right: the next ops find their objects.
            pair.say(pair.source.create("afterwards", 0o600));
            pair.say(pair.source.write("two", 0, b"again"));
            pair.assert_same();
        }
    }
}

/// `a -> b; c -> a` applied, then killed: redoing more than the one op in doubt would destroy c.
#[test]
fn only_the_op_in_doubt_is_redone() {
    let mut pair = prepared();
    let first = pair.source.rename("one", "b");
    let first_frame = pair.frame(&first);
    pair.say(first);
    pair.say(pair.source.rename("two", "one"));
    pair.crash();
    assert!(matches!(
        pair.applier().handle(&first_frame),
        Outcome::Refused(Refusal::Order(OrderError::AlreadyApplied { .. }))
    ));
    pair.assert_same();
}

/// Without the doubt, a name that is taken is a fault: adopting is for the one op only.
#[test]
fn a_planted_file_is_not_adopted_when_it_has_content() {
    let mut pair = prepared();
    let said = pair.source.create("new", 0o644);
    fs::write(pair.replica("new"), "planted").unwrap();
    assert!(pair.fails(&said).contains("already there"));
    pair.crash();
    assert!(pair.fails(&said).contains("already there"));
    assert_eq!(fs::read(pair.replica("new")).unwrap(), b"planted");
}
