//! Files of which the disk has refused what the kernel had gathered, or may do so soon: it asks before
//! it takes more.
//!
//! It asks where it has no attributes. An answer that comes after it was told to forget them is good
//! for whoever asked, and is not kept: so it is told before each answer.

use std::time::{Duration, Instant};

use super::Serve;
use super::scarce::writes_that_fit;
use crate::intercept::error::FsResult;
use crate::intercept::objects::NodeId;
use crate::intercept::refusals::MayWrite;
use crate::intercept::volume::Meta;
use crate::limits::KERNEL_CACHE_TTL;

/// How long a write waits for the kernel to know the size that the disk has. A search for the end of a
/// file asks in the same way, with the file locked, and until it is answered no size can be told.
const PATIENCE: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(5);

impl Serve {
    /// Tells whether a write to this file may be taken, and the attributes.
    pub(super) fn ask_to_write(
        &self,
        node: NodeId,
        handle: u64,
        reply: impl FnOnce(FsResult<Meta>) + Send + 'static,
    ) {
        self.ask_until(node, handle, Instant::now() + PATIENCE, reply);
    }

    fn ask_until(
        &self,
        node: NodeId,
        handle: u64,
        until: Instant,
        reply: impl FnOnce(FsResult<Meta>) + Send + 'static,
    ) {
        match self.volume.may_write(node, handle) {
            MayWrite::Yes if !self.scarcity.is_scarce() => reply(self.volume.getattr(node, Some(handle))),
            MayWrite::Yes | MayWrite::AskAgain if !self.has_gathered_enough(node) => {
                self.cache.forget_attributes(node);
                reply(self.volume.getattr(node, Some(handle)));
            }
            MayWrite::Yes | MayWrite::AskAgain => {
                let serve = self.clone();
                self.wait_parked(move || {
                    serve.volume.flush_file(node);
                    serve.ask_until(node, handle, until, reply);
                });
            }
            MayWrite::Later(_) if Instant::now() < until => {
                let serve = self.clone();
                self.parking.park_later(POLL, move || serve.ask_until(node, handle, until, reply));
            }
            MayWrite::Later(error) | MayWrite::No(error) => reply(Err(error)),
        }
    }

    /// How long the kernel keeps attributes of files that it makes or changes for somebody: these it takes
    /// also where it was told to forget them. With a size that the flush helper brings it has to ask
    /// before the next write.
    pub fn attributes_told_last(&self, asker: u32) -> Duration {
        match self.scarcity.is_scarce() || self.volume.is_flush_helper(asker) {
            true => Duration::ZERO,
            false => KERNEL_CACHE_TTL,
        }
    }

    /// Whether what the kernel has of a file could be more than fits: it is written back then. One more
    /// write is counted.
    fn has_gathered_enough(&self, node: NodeId) -> bool {
        self.scarcity.is_scarce() && !self.volume.count_write(node, writes_that_fit(&self.volume))
    }

    /// Attributes of a file are about to be answered.
    pub(super) fn ask_again(&self, node: NodeId) {
        let is_scarce = || self.scarcity.is_scarce() && self.volume.may_be_gathered(node);
        if self.volume.is_asked_before_writes(node) || is_scarce() {
            self.cache.forget_attributes(node);
        }
    }

    pub(super) fn asked_again(&self, meta: Meta) -> Meta {
        self.ask_again(meta.node);
        meta
    }
}
