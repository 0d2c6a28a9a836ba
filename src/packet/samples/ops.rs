//! One of every op.

use super::*;

pub(in crate::packet) fn ops() -> Vec<Op> {
    let mtime = attributes().mtime;
    let create = |birth| Op::Create {
        at: entry("new"),
        dir_mtime: mtime,
        object: object(1),
        birth,
        attributes: attributes(),
        xattrs: xattrs(),
    };
    let mut ops: Vec<Op> = births().into_iter().map(create).collect();
    ops.extend([
        Op::Link { object: object(1), at: entry("l"), dir_mtime: mtime, links: 2 },
        Op::Unlink { at: entry("l"), dir_mtime: mtime, object: object(1), links: 1 },
        Op::RemoveDirectory { at: entry("d"), dir_mtime: mtime, object: object(1) },
        Op::Rename {
            from: entry("a"),
            from_mtime: mtime,
            to: entry("b"),
            to_mtime: mtime,
            object: object(1),
            object_mtime: Some(mtime),
            replaced: Some(Replaced { object: object(2), links: 0 }),
            whiteout: Some(Whiteout { object: object(3), attributes: attributes() }),
        },
        Op::Exchange {
            left: entry("a"),
            left_mtime: mtime,
            left_object: object(1),
            left_object_mtime: Some(mtime),
            right: entry("b"),
            right_mtime: mtime,
            right_object: object(2),
            right_object_mtime: None,
        },
        Op::Write { object: object(1), offset: 4096, result: result() },
        Op::Resize { object: object(1), result: result() },
        Op::Reserve { object: object(1), offset: 1, length: 2, how: Reserve::PunchHole, result: result() },
        Op::SetAttributes {
            object: object(1),
            mode: Some(1),
            owner: Some(Owner { uid: 1, gid: 2 }),
            mtime: Some(mtime),
        },
        Op::SetXattr { object: object(1), name: xattr_name(), mode: None },
        Op::RemoveXattr { object: object(1), name: xattr_name(), mode: Some(1) },
        Op::Barrier { durable: true, name: None },
        Op::Barrier { durable: false, name: MarkerName::new("before-upgrade") },
        Op::Stage {
            object: object(1),
            may_be_known: true,
            birth: Birth::File,
            attributes: attributes(),
            xattrs: xattrs(),
        },
        Op::Place {
            object: object(1),
            at: entry("p"),
            dir_mtime: mtime,
            replaced: Some(Replaced { object: object(2), links: 1 }),
        },
        Op::Leave { at: entry("d"), dir_mtime: mtime, object: object(1) },
        Op::Unstage { object: object(1) },
    ]);
    ops.extend(keepings().into_iter().map(keep));
    ops
}

fn keep(keeping: Keeping) -> Op {
    let (at, dir_mtime, object) = (entry("k"), attributes().mtime, object(1));
    Op::Keep { at, dir_mtime, object, links: 0, keeping }
}
