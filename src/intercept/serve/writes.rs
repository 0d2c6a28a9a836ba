//! Writes: they may wait for room in the queue, for space on the disk, for the kernel to drop pages,
//! and for a sync, and hold no thread meanwhile.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::{Serve, act_for};
use crate::intercept::data::{Origin, Sync, WriteRequest, Written};
use crate::intercept::error::{FsError, FsResult};
use crate::intercept::growth::Growing;
use crate::intercept::objects::NodeId;
use crate::intercept::parking::Carries;
use crate::intercept::volume::Caller;

/// How long a write to a full disk waits for files that were removed and are about to be forgotten:
/// the kernel may be late with that on a busy machine.
const SPACE_PATIENCE: Duration = Duration::from_secs(5);
const SPACE_POLL: Duration = Duration::from_millis(20);

/// A write request without its bytes.
#[derive(Clone, Copy)]
pub struct WriteCall {
    pub caller: Caller,
    pub node: NodeId,
    pub handle: u64,
    pub offset: u64,
    pub clear_privileges: bool,
    pub origin: Origin,
    /// Those of the open file (`O_SYNC`, `O_DSYNC`).
    pub flags: i32,
}

/// A write that is under way.
struct Write<R> {
    call: WriteCall,
    /// The disk was full, and until then it is tried again.
    no_space_until: Option<Instant>,
    reply: R,
}

impl Serve {
    /// The answer is how much was written.
    pub fn write(
        &self,
        mut call: WriteCall,
        data: &[u8],
        reply: impl FnOnce(FsResult<usize>) + Send + 'static,
    ) {
        if call.origin == Origin::PageCache
            && let Ok(owner) = self.volume.owner(call.handle)
        {
            (call.caller.uid, call.caller.gid) = (owner.uid, owner.gid);
        }
        let write = Write { call, no_space_until: None, reply };
        match self.parking.enter(Carries::Content) {
            Some(_serving) => self.write_now(write, data),
            None => self.write_parked(write, data),
        }
    }

    fn write_now<R: FnOnce(FsResult<usize>) + Send + 'static>(&self, write: Write<R>, data: &[u8]) {
        let WriteCall { caller, node, handle, offset, clear_privileges, origin, .. } = write.call;
        act_for(caller.identity());
        let request = WriteRequest { handle, offset, data, clear_privileges, origin };
        let departed = self.volume.departed();
        let written = self.volume.write(caller, request);
        if clear_privileges && !written.is_ok_and(|written| !written.cleared) {
            self.cache.forget_attributes(node);
        }
        let growing = request.growing(caller);
        match written {
            Ok(written) => self.after_write(write, written, data.len(), growing),
            Err(error) if self.volume.expects_space(error, departed) && write.is_patient() => {
                self.write_later(write, data, error, growing);
            }
            Err(error) => self.after_failure(write, error, data.len(), growing),
        }
    }

    /// A write that has to wait: what it keeps of its bytes, and is then written.
    fn write_parked<R: FnOnce(FsResult<usize>) + Send + 'static>(&self, write: Write<R>, data: &[u8]) {
        let (serve, call) = (self.clone(), &write.call);
        // Pages that are written back whole cannot be taken in part.
        let (held, waits) = match call.origin {
            Origin::PageCache => (None, Some(self.backlog.enter())),
            Origin::Program => (Some(self.parking.hold(call.caller.uid, call.offset, data.len())), None),
        };
        let data = data[..held.as_ref().map_or(data.len(), |held| held.len)].to_vec();
        self.parking.park(move || {
            serve.write_now(write, &data);
            drop((held, waits));
        });
    }

    /// The disk may have room in a moment: the write is tried again. Nothing waits meanwhile but the
    /// write. Where its bytes cannot be kept, it has failed.
    fn write_later<R>(&self, mut write: Write<R>, data: &[u8], error: FsError, growing: Growing)
    where
        R: FnOnce(FsResult<usize>) + Send + 'static,
    {
        let held = self.parking.hold(write.call.caller.uid, write.call.offset, data.len());
        if held.len < data.len() {
            return self.after_failure(write, error, data.len(), growing);
        }
        write.no_space_until.get_or_insert_with(|| Instant::now() + SPACE_PATIENCE);
        let (serve, data) = (self.clone(), data.to_vec());
        self.parking.park_later(SPACE_POLL, move || {
            serve.write_now(write, &data);
            drop(held);
        });
    }

    fn after_failure<R>(&self, write: Write<R>, error: FsError, len: usize, growing: Growing)
    where
        R: FnOnce(FsResult<usize>) + Send + 'static,
    {
        let (call, reply) = (write.call, write.reply);
        self.note_refused(call, len, error);
        let answer = move |serve: &Serve| {
            reply(Err(error));
            serve.volume.growth_answered(call.node, growing);
        };
        match error.may_have_changed() {
            true => self.after_failed_write(call.handle, call.rest(0, len), answer),
            false => answer(self),
        }
    }

    /// What the disk took is written: the answer comes when nothing is owed any more.
    fn after_write<R>(&self, write: Write<R>, written: Written, len: usize, growing: Growing)
    where
        R: FnOnce(FsResult<usize>) + Send + 'static,
    {
        let (call, reply) = (write.call, write.reply);
        let volume = self.volume.clone();
        let rest = FsError::new(libc::ENOSPC, "a short write");
        // The kernel takes a short write-back for a whole one.
        let is_lost = call.origin == Origin::PageCache && written.bytes < len;
        let answer = move |outcome: FsResult<()>| {
            reply(outcome.and(if is_lost { Err(rest) } else { Ok(written.bytes) }));
            volume.growth_answered(call.node, growing);
        };
        let finish = move |serve: &Serve| match written.mixing {
            None => serve.finish_write(call, answer),
            Some(mixing) => {
                serve.end_mixing(call, call.rest(0, len), mixing, move |serve| {
                    serve.finish_write(call, answer);
                });
            }
        };
        let failed = call.rest(written.bytes, len);
        self.note_refused(call, len - written.bytes, rest);
        match failed.is_empty() {
            true => finish(self),
            false => self.after_failed_write(call.handle, failed, finish),
        }
    }

    /// So many bytes that the kernel had were not taken: the program has gone on long ago. Before the
    /// answer: afterwards the kernel asks before it takes more.
    fn note_refused(&self, call: WriteCall, bytes: usize, error: FsError) {
        if call.origin == Origin::PageCache && bytes > 0 {
            self.volume.note_refused(call.node, bytes, error);
            self.ask_again(call.node);
        }
    }

    /// Goes on when what a failed write, or the rest of a short one, has left is sent.
    fn after_failed_write(
        &self,
        handle: u64,
        range: Range<u64>,
        go_on: impl FnOnce(&Serve) + Send + 'static,
    ) {
        let serve = self.clone();
        self.parking.park(move || {
            serve.volume.send_failed_write(handle, range);
            go_on(&serve);
        });
    }

    /// Goes on when the kernel has dropped the pages that may lack a direct write.
    fn end_mixing(
        &self,
        call: WriteCall,
        range: Range<u64>,
        mixing: u64,
        go_on: impl FnOnce(&Serve) + Send + 'static,
    ) {
        let serve = self.clone();
        self.wait_parked(move || {
            serve.cache.write_back(call.node, range);
            serve.volume.end_mixing(call.handle, mixing);
            go_on(&serve);
        });
    }

    /// Answers a write when it is as durable as the handle asks for.
    fn finish_write(&self, call: WriteCall, answer: impl FnOnce(FsResult<()>) + Send + 'static) {
        let Some(what) = synchronous(call.flags).filter(|_| !self.volume.kernel_syncs(call.handle)) else {
            return answer(Ok(()));
        };
        match self.volume.sync_target(call.handle) {
            Ok(fd) => self.syncs.run(fd, what, answer),
            Err(error) => answer(Err(error)),
        }
    }
}

impl<R> Write<R> {
    /// Whether it may wait for space (still).
    fn is_patient(&self) -> bool {
        self.no_space_until.is_none_or(|until| Instant::now() < until)
    }
}

impl WriteCall {
    /// Where the bytes of so many belong that come after the first `done`.
    fn rest(&self, done: usize, len: usize) -> Range<u64> {
        self.offset + done as u64..self.offset + len as u64
    }
}

/// What a write with these open flags has to sync before it returns.
fn synchronous(flags: i32) -> Option<Sync> {
    match flags & libc::O_SYNC {
        0 => None,
        libc::O_DSYNC => Some(Sync::Data),
        _ => Some(Sync::All),
    }
}
