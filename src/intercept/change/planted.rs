//! Bugs that are planted on purpose: the model has to find each of them.

use std::cell::{Cell, RefCell};
use std::os::fd::AsFd;

use bytes::Bytes;
use rustix::fs::Stat;

use super::Touched;
use crate::packet::{ContentResult, Op};

/// See the module. Each stands for something that an op has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// An op is put into the queue before its change is made: with what was there before.
    AppendsBeforeTheChange,
    /// Of two directories whose names a rename changes one is not locked.
    LocksOneParent,
    /// The link count is read before the lock under which the name is removed.
    ReadsLinksTooEarly,
    /// Of a write that the disk took in part the size before is sent, and nothing of its bytes.
    ForgetsTheSizeOfAShortWrite,
    /// Of the two names of an exchange one is sent.
    ExchangeSendsOneName,
    /// A change counts as ended before its op is in the queue: only who looks meanwhile is misled, which
    /// is not in this model but in that of the live copy.
    EndsBeforeItIsTold,
    /// A generation of the map begins at the last position although older changes have none yet.
    BeginsTooEarly,
    /// Of a size change what comes behind the new size is marked, and not what is behind the old one.
    MarksTheNewSize,
    /// Content is changed that is not in the activity log.
    ChangesWhatIsCold,
}

impl Planted {
    pub const ALL: [Planted; 5] = [
        Planted::AppendsBeforeTheChange,
        Planted::LocksOneParent,
        Planted::ReadsLinksTooEarly,
        Planted::ForgetsTheSizeOfAShortWrite,
        Planted::ExchangeSendsOneName,
    ];
}

thread_local! {
    static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
    /// The object of the change under way, before it.
    static BEFORE: RefCell<Option<Stat>> = const { RefCell::new(None) };
}

/// For this thread.
pub fn set(planted: Option<Planted>) {
    PLANTED.set(planted);
}

pub fn is(planted: Planted) -> bool {
    PLANTED.get() == Some(planted)
}

/// A change has its locks.
pub fn begins(fd: impl AsFd) {
    if PLANTED.get().is_some() {
        BEFORE.set(rustix::fs::fstat(fd).ok());
    }
}

/// What is seen after a change.
pub fn seen(stat: Stat) -> Stat {
    match is(Planted::AppendsBeforeTheChange) {
        true => BEFORE.with_borrow(|before| before.unwrap_or(stat)),
        false => stat,
    }
}

/// What is told of a change.
pub fn told(touched: &Touched<'_>, op: &Op, payload: Bytes) -> (Op, Bytes) {
    match (op, PLANTED.get()) {
        (Op::Write { object, offset, result }, Some(Planted::ForgetsTheSizeOfAShortWrite))
            if touched.has_content(*offset, payload.len() as u64 + 1) =>
        {
            let size = BEFORE.with_borrow(|before| before.map_or(0, |before| before.st_size as u64));
            let result = ContentResult { size, ..*result };
            (Op::Resize { object: *object, result }, Bytes::new())
        }
        (
            Op::Exchange { left, left_mtime, left_object, left_object_mtime, right, right_mtime, .. },
            Some(Planted::ExchangeSendsOneName),
        ) => {
            let op = Op::Rename {
                from: left.clone(),
                from_mtime: *left_mtime,
                to: right.clone(),
                to_mtime: *right_mtime,
                object: *left_object,
                object_mtime: *left_object_mtime,
                replaced: None,
                whiteout: None,
            };
            (op, payload)
        }
        _ => (op.clone(), payload),
    }
}
