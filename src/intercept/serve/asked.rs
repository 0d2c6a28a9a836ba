//! Files of which the disk has refused what the kernel had gathered: it asks before it takes more.
//!
//! It asks where it has no attributes. An answer that comes after it was told to forget them is good
//! for whoever asked, and is not kept: so it is told before each answer.

use std::time::{Duration, Instant};

use super::Serve;
use crate::intercept::error::FsResult;
use crate::intercept::objects::NodeId;
use crate::intercept::refusals::MayWrite;
use crate::intercept::volume::Meta;

/// How long a write waits for the kernel to know the size that the disk has: it has to write back
/// before, or may have lost the helper that it needs for it.
const PATIENCE: Duration = Duration::from_secs(10);
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
            MayWrite::Yes => reply(self.volume.getattr(node, Some(handle))),
            MayWrite::AskAgain => {
                self.cache.forget_attributes(node);
                reply(self.volume.getattr(node, Some(handle)));
            }
            MayWrite::Later(_) if Instant::now() < until => {
                let serve = self.clone();
                self.parking.park_later(POLL, move || serve.ask_until(node, handle, until, reply));
            }
            MayWrite::Later(error) | MayWrite::No(error) => reply(Err(error)),
        }
    }

    /// Attributes of a file are about to be answered.
    pub(super) fn ask_again(&self, node: NodeId) {
        if self.volume.is_asked_before_writes(node) {
            self.cache.forget_attributes(node);
        }
    }

    pub(super) fn asked_again(&self, meta: Meta) -> Meta {
        self.ask_again(meta.node);
        meta
    }
}
