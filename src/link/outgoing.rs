//! On which terms a link sends what its feed gives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::limiter::Limiter;
use super::packing::{Compressor, Packer};
use crate::packet::{EncodedFrame, Features};

/// Of all sessions of one connection: how fast, and how short.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    pub limiter: Limiter,
    pub compressor: Compressor,
}

/// What both ends of one session know how to do; nothing before it is agreed.
#[derive(Clone, Debug, Default)]
pub(super) struct Agreed(Arc<AtomicBool>);

impl Agreed {
    /// `theirs`: what the other side offers.
    pub(super) fn agree(&self, theirs: Features) {
        self.0.store(Features::OFFERED.common(theirs).has(Features::COMPRESSION), Relaxed);
    }
}

/// Makes frames ready for the stream of one session.
pub(super) struct Wrapping {
    pub(super) limiter: Limiter,
    packer: Packer,
    agreed: Agreed,
}

impl Wrapping {
    pub(super) fn new(outgoing: Outgoing, agreed: Agreed) -> Wrapping {
        let Outgoing { limiter, compressor } = outgoing;
        Wrapping { limiter, packer: Packer::new(compressor), agreed }
    }

    /// As fast as it goes, and as it is.
    pub(super) fn plain() -> Wrapping {
        Wrapping::new(Outgoing::default(), Agreed::default())
    }

    pub(super) fn wrap(&mut self, frame: EncodedFrame) -> EncodedFrame {
        if self.agreed.0.load(Relaxed) { self.packer.pack(frame) } else { frame }
    }
}
