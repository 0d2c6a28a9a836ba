//! What is decided about a request before and after the volume does it: on which thread it runs,
//! what the kernel has to drop before the answer, when a sync may return.
//!
//! One method for every request of which something is decided; the others go to the volume
//! directly. Nothing here knows how a request came or how its answer goes: an answer is a closure,
//! called once, on any thread.

mod asked;
mod backlog;
mod cache;
mod scarce;
mod syncs;
mod writes;

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::Sender;
use rustix::fs::RenameFlags;

use super::attributes::AskedAttributes;
use super::data::{Opened, Sync};
use super::error::{FsError, FsResult};
use super::gate::DurabilityGate;
use super::growth::{Growing, start_looking};
use super::helpers::{Helpers, Place};
use super::listing::Listed;
use super::names::{AskedMode, At};
use super::objects::NodeId;
use super::parking::{Carries, Parking};
use super::standing::serve_request;
use super::volume::{Caller, Meta, Volume};
use crate::sys::Identity;
use backlog::Backlog;
pub use cache::Cache;
use scarce::Scarcity;
use syncs::Syncs;
pub use writes::WriteCall;

/// Threads for jobs that wait for the kernel.
const HELPERS: usize = 2;

/// Serves a volume. Clones share everything; a change that has to wait takes one along.
#[derive(Clone)]
pub struct Serve {
    volume: Arc<Volume>,
    parking: Parking,
    helpers: Helpers,
    /// Files whose size somebody waits for.
    sizes: Sender<NodeId>,
    syncs: Syncs,
    backlog: Backlog,
    scarcity: Scarcity,
    cache: Arc<dyn Cache>,
}

/// How an entry of a listing is shown.
pub enum Shown {
    /// With its attributes, which is a lookup.
    Full(Meta),
    /// With this number and without attributes.
    Bare(NodeId),
}

thread_local! {
    /// One buffer a thread for reads, as large as the largest one so far.
    static READ_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Serve {
    /// For `threads` threads that serve requests. Without a gate syncs return when the local disk has
    /// everything.
    pub fn new(
        volume: Arc<Volume>,
        threads: usize,
        gate: Option<Arc<dyn DurabilityGate>>,
        cache: Arc<dyn Cache>,
    ) -> Serve {
        Serve {
            parking: volume.parking(threads),
            helpers: Helpers::start(HELPERS),
            sizes: start_looking(volume.clone()),
            syncs: Syncs::start(gate, volume.divergence()),
            scarcity: Scarcity::start(&volume, &cache),
            volume,
            backlog: Backlog::new(cache.clone()),
            cache,
        }
    }

    /// For requests of which nothing is decided.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// `None`: a name that does not exist, which may be remembered.
    pub fn lookup(&self, parent: NodeId, name: &OsStr) -> FsResult<Option<Meta>> {
        match self.volume.lookup(parent, name) {
            Err(error) if error.errno == libc::ENOENT => Ok(None),
            outcome => outcome.map(|meta| Some(self.asked_again(meta))),
        }
    }

    /// With a handle the kernel asks for itself, and uses what it takes over: where it gathers writes,
    /// before it takes one. Without a handle it asks for a program, `asker`, which sees the answer in
    /// any case.
    pub fn getattr(
        &self,
        asker: u32,
        node: NodeId,
        handle: Option<u64>,
        reply: impl FnOnce(FsResult<Meta>) + Send + 'static,
    ) {
        if let Some(handle) = handle {
            return self.ask_to_write(node, handle, reply);
        }
        self.ask_again(node);
        if self.volume.ask_attributes(node, asker, Box::new(reply)) {
            let _ = self.sizes.send(node);
        }
    }

    pub fn setattr(
        &self,
        caller: Caller,
        node: NodeId,
        handle: Option<u64>,
        changes: AskedAttributes,
        reply: impl FnOnce(FsResult<Meta>) + Send + 'static,
    ) {
        if changes.size.is_some() && self.volume.is_flush_helper(caller.pid) {
            return reply(self.volume.tell_size(node));
        }
        let change = move |serve: &Serve| {
            reply(serve.volume.setattr(caller, node, handle, changes));
            if let Some(size) = changes.size {
                serve.volume.growth_answered(node, Growing::to(caller.pid, handle, size));
            }
        };
        // What a mapping has stored before is written back before: it would set the time again. Where
        // the kernel gathers writes it does so itself, and tells its own times in this way, too.
        let sets_time = changes.mtime.is_some() && !self.volume.may_be_gathered(node);
        let mapped = (sets_time && self.volume.may_be_mapped(node)).then_some(node);
        self.written_back(mapped, move |serve| serve.change(caller, change));
    }

    /// `device` is (major, minor).
    pub fn mknod(
        &self,
        caller: Caller,
        at: At<'_>,
        asked: AskedMode,
        device: (u32, u32),
        reply: impl FnOnce(FsResult<Meta>) + Send + 'static,
    ) {
        let at = Kept::of(at);
        self.change(caller, move |serve| reply(serve.volume.mknod(caller, at.at(), asked, device)));
    }

    pub fn mkdir(
        &self,
        caller: Caller,
        at: At<'_>,
        asked: AskedMode,
        reply: impl FnOnce(FsResult<Meta>) + Send + 'static,
    ) {
        let at = Kept::of(at);
        self.change(caller, move |serve| reply(serve.volume.mkdir(caller, at.at(), asked)));
    }

    pub fn symlink(
        &self,
        caller: Caller,
        at: At<'_>,
        target: &Path,
        reply: impl FnOnce(FsResult<Meta>) + Send + 'static,
    ) {
        let (at, target) = (Kept::of(at), target.to_owned());
        self.change(caller, move |serve| reply(serve.volume.symlink(caller, at.at(), &target)));
    }

    pub fn link(
        &self,
        caller: Caller,
        node: NodeId,
        at: At<'_>,
        reply: impl FnOnce(FsResult<Meta>) + Send + 'static,
    ) {
        let at = Kept::of(at);
        let gathered = self.volume.may_be_gathered(node).then_some(node);
        let link = move |serve: &Serve| reply(serve.volume.link(node, at.at()));
        self.written_back(gathered, move |serve| serve.change(caller, link));
    }

    pub fn unlink(&self, caller: Caller, at: At<'_>, reply: impl FnOnce(FsResult<()>) + Send + 'static) {
        let at = Kept::of(at);
        self.change(caller, move |serve| reply(serve.volume.unlink(at.at())));
    }

    pub fn rmdir(&self, caller: Caller, at: At<'_>, reply: impl FnOnce(FsResult<()>) + Send + 'static) {
        let at = Kept::of(at);
        self.change(caller, move |serve| reply(serve.volume.rmdir(at.at())));
    }

    pub fn rename(
        &self,
        caller: Caller,
        from: At<'_>,
        to: At<'_>,
        flags: RenameFlags,
        reply: impl FnOnce(FsResult<()>) + Send + 'static,
    ) {
        // A new name does not come before what was written under the old one.
        let ends = [Some(from), Some(to).filter(|_| flags.contains(RenameFlags::EXCHANGE))];
        let gathered: Vec<_> =
            ends.into_iter().flatten().filter_map(|at| self.volume.gathered_at(at)).collect();
        let (from, to) = (Kept::of(from), Kept::of(to));
        let rename = move |serve: &Serve| reply(serve.volume.rename(from.at(), to.at(), flags));
        self.written_back(gathered, move |serve| serve.change(caller, rename));
    }

    pub fn create(
        &self,
        caller: Caller,
        at: At<'_>,
        asked: AskedMode,
        flags: i32,
        reply: impl FnOnce(FsResult<(Meta, Opened)>) + Send + 'static,
    ) {
        let at = Kept::of(at);
        self.change(caller, move |serve| match serve.volume.create(caller, at.at(), asked, flags) {
            Ok((meta, opened)) => {
                serve.drop_stale_pages(meta.node, opened, move || reply(Ok((meta, opened))));
            }
            Err(error) => reply(Err(error)),
        });
    }

    pub fn open(
        &self,
        caller: Caller,
        node: NodeId,
        flags: i32,
        reply: impl FnOnce(FsResult<Opened>) + Send + 'static,
    ) {
        serve_request(caller.request);
        let open = move |serve: &Serve| match serve.volume.open(node, flags) {
            Ok(opened) => {
                serve.ask_again(node);
                serve.drop_stale_pages(node, opened, move || reply(Ok(opened)));
            }
            Err(error) => reply(Err(error)),
        };
        // A truncation on the way is a change.
        match flags & libc::O_TRUNC {
            0 => open(self),
            _ => self.change(caller, open),
        }
    }

    pub fn read(&self, handle: u64, offset: u64, size: usize, reply: impl FnOnce(FsResult<&[u8]>)) {
        READ_BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            let read = self.volume.read(handle, offset, &mut buffer[..size]);
            reply(read.map(|count| &buffer[..count]));
        });
    }

    /// `mode` as `fallocate(2)`.
    pub fn fallocate(
        &self,
        caller: Caller,
        (node, handle): (NodeId, u64),
        (offset, length): (u64, u64),
        mode: i32,
        reply: impl FnOnce(FsResult<()>) + Send + 'static,
    ) {
        self.change_patiently(caller, move |serve| {
            let outcome = serve.volume.fallocate(caller, handle, offset, length, mode);
            if caller.uid != 0 {
                serve.cache.forget_attributes(node);
            }
            reply(outcome);
            let growing = Growing::to(caller.pid, Some(handle), offset.saturating_add(length));
            serve.volume.growth_answered(node, growing);
        });
    }

    pub fn setxattr(
        &self,
        caller: Caller,
        node: NodeId,
        (name, value): (&OsStr, &[u8]),
        flags: i32,
        reply: impl FnOnce(FsResult<()>) + Send + 'static,
    ) {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.change(caller, move |serve| {
            reply(serve.volume.setxattr(caller, node, &name, &value, flags));
        });
    }

    pub fn removexattr(
        &self,
        caller: Caller,
        node: NodeId,
        name: &OsStr,
        reply: impl FnOnce(FsResult<()>) + Send + 'static,
    ) {
        let name = name.to_owned();
        self.change(caller, move |serve| reply(serve.volume.removexattr(node, &name)));
    }

    pub fn fsync(
        &self,
        caller: Caller,
        (node, handle): (NodeId, u64),
        what: Sync,
        reply: impl FnOnce(FsResult<()>) + Send + 'static,
    ) {
        self.volume.note_fsync(handle);
        self.settled(caller, node, move |serve| match serve.volume.sync_target(handle) {
            Ok(fd) => serve.syncs.run(fd, what, reply),
            Err(error) => reply(Err(error)),
        });
    }

    /// The last descriptor and mapping of a handle are gone.
    pub fn release(
        &self,
        caller: Caller,
        (node, handle): (NodeId, u64),
        reply: impl FnOnce() + Send + 'static,
    ) {
        self.settled(caller, node, move |serve| {
            serve.volume.release(handle);
            reply();
        });
    }

    /// `whence`: `SEEK_DATA` or `SEEK_HOLE`.
    pub fn seek(
        &self,
        (node, handle): (NodeId, u64),
        offset: i64,
        whence: i32,
        reply: impl FnOnce(FsResult<i64>) + Send + 'static,
    ) {
        // The disk shows holes where the kernel has something.
        let gathered = self.volume.may_be_gathered(node).then_some(node);
        self.written_back(gathered, move |serve| reply(serve.volume.seek(handle, offset, whence)));
    }

    pub fn fsyncdir(&self, handle: u64, what: Sync, reply: impl FnOnce(FsResult<()>) + Send + 'static) {
        match self.volume.sync_directory_target(handle) {
            Ok(fd) => self.syncs.run(Arc::new(fd), what, reply),
            Err(error) => reply(Err(error)),
        }
    }

    /// `add` answers whether an entry has found room. What it has taken with attributes is a lookup.
    pub fn readdirplus(
        &self,
        handle: u64,
        offset: u64,
        mut add: impl FnMut(&Listed, &Shown) -> bool,
    ) -> FsResult<()> {
        self.volume.readdir(handle, offset, |entry| {
            let Some(shown) = self.shown(handle, entry) else { return true };
            let fits = add(entry, &shown);
            if let (false, Shown::Full(meta)) = (fits, &shown) {
                self.volume.forget(meta.node, 1);
            }
            fits
        })
    }

    /// `None`: it is gone by now.
    fn shown(&self, handle: u64, entry: &Listed) -> Option<Shown> {
        if entry.is_dot() {
            return Some(Shown::Bare(entry.node));
        }
        match self.volume.lookup_listed(handle, entry) {
            Ok(meta) => meta.map(|meta| Shown::Full(self.asked_again(meta))),
            // Its name is in the directory, as everybody would see on the disk itself.
            Err(error) => {
                log::warn!("{} is listed without attributes: {error}", entry.name.display());
                Some(Shown::Bare(NodeId::ROOT))
            }
        }
    }

    /// Performs a change for its caller: at once, or on a worker where it might wait.
    pub(super) fn change(&self, caller: Caller, change: impl FnOnce(&Serve) + Send + 'static) {
        if let Some(_serving) = self.parking.enter(Carries::Names) {
            serve_request(caller.request);
            act_for(caller.identity());
            let _answered = self.volume.answering(caller.request);
            return change(self);
        }
        self.change_patiently(caller, change);
    }

    /// A change that may have to wait half-way.
    fn change_patiently(&self, caller: Caller, change: impl FnOnce(&Serve) + Send + 'static) {
        let serve = self.clone();
        self.parking.park(move || {
            serve_request(caller.request);
            act_for(caller.identity());
            let _answered = serve.volume.answering(caller.request);
            change(&serve);
        });
    }

    /// Goes on with an open when the kernel has no stale pages of the file.
    fn drop_stale_pages(&self, node: NodeId, opened: Opened, go_on: impl FnOnce() + Send + 'static) {
        self.written_back(opened.has_stale_pages.then_some(node), move |_| go_on());
    }

    /// Goes on when the kernel has written back, and dropped, what it has of these files: at once
    /// where there is none.
    pub(super) fn written_back(
        &self,
        nodes: impl IntoIterator<Item = NodeId>,
        go_on: impl FnOnce(&Serve) + Send + 'static,
    ) {
        let nodes: Vec<NodeId> = nodes.into_iter().collect();
        if nodes.is_empty() {
            return go_on(self);
        }
        let serve = self.clone();
        self.wait_parked(move || {
            nodes.iter().for_each(|node| serve.cache.write_back(*node, 0..i64::MAX as u64));
            go_on(&serve);
        });
    }

    /// Goes on when a file of which the kernel has told everything has the time that it told.
    pub(super) fn settled(&self, caller: Caller, node: NodeId, go_on: impl FnOnce(&Serve) + Send + 'static) {
        if !self.volume.owes_time(node) {
            return go_on(self);
        }
        self.change(caller, move |serve| {
            // It has a later time then, and so has the replica.
            if let Err(error) = serve.volume.settle_time(node) {
                log::info!("a file keeps the time of its write-back: {error}");
            }
            go_on(serve);
        });
    }

    /// Runs what needs the serving threads meanwhile: on a helper, or on a thread of its own.
    fn wait_parked(&self, job: impl FnOnce() + Send + 'static) {
        let parking = self.parking.clone();
        self.helpers.run(move |place| match place {
            Place::Helper => job(),
            Place::Caller => parking.run(job),
        });
    }
}

/// A name in a directory, for a request that waits.
struct Kept {
    parent: NodeId,
    name: OsString,
}

impl Kept {
    fn of(at: At<'_>) -> Kept {
        Kept { parent: at.parent, name: at.name.to_owned() }
    }

    fn at(&self) -> At<'_> {
        At { parent: self.parent, name: &self.name }
    }
}

/// From here on this thread uses the caller's quota, and no blocks that are root's.
fn act_for(identity: Identity) {
    if let Err(error) = crate::sys::act_as(identity) {
        log::warn!("a change cannot be made as its caller, but only as root: {error}");
    }
}

/// What a sync has come to, as every call answers it.
fn sync_error(error: &std::io::Error) -> FsError {
    FsError::new(error.raw_os_error().unwrap_or(libc::EIO), "sync")
}
