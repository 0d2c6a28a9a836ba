//! On which terms a link sends what its feed gives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::limiter::Limiter;
use super::owners::Telling;
use super::packing::{Compressor, Packer};
use crate::packet::{EncodedFrame, Features};
use crate::words::OwnedBy;

/// Of all sessions of one connection: how fast, how short, and by what its owners are told.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    pub limiter: Limiter,
    pub compressor: Compressor,
    pub owned_by: OwnedBy,
}

/// What both ends of one session know how to do; nothing before it is agreed.
#[derive(Clone, Debug, Default)]
pub(super) struct Agreed(Arc<AtomicU64>);

impl Agreed {
    /// `theirs`: what the other side offers.
    pub(super) fn agree(&self, theirs: Features) {
        self.0.store(Features::OFFERED.common(theirs).0, Relaxed);
    }

    fn has(&self, feature: Features) -> bool {
        Features(self.0.load(Relaxed)).has(feature)
    }
}

/// Makes frames ready for the stream of one session.
pub(super) struct Wrapping {
    pub(super) limiter: Limiter,
    packer: Packer,
    /// Where owners are told by name.
    telling: Option<Telling>,
    agreed: Agreed,
}

impl Wrapping {
    pub(super) fn new(outgoing: Outgoing, agreed: Agreed) -> Wrapping {
        let Outgoing { limiter, compressor, owned_by } = outgoing;
        let telling = match owned_by {
            OwnedBy::Name => Some(Telling::of_host()),
            OwnedBy::Number => None,
        };
        Wrapping { limiter, packer: Packer::new(compressor), telling, agreed }
    }

    /// As fast as it goes, and as it is, to a peer that knows all that is known here.
    pub(super) fn plain(owned_by: OwnedBy) -> Wrapping {
        let agreed = Agreed::default();
        agreed.agree(Features::OFFERED);
        Wrapping::new(Outgoing { owned_by, ..Outgoing::default() }, agreed)
    }

    /// Adds what goes in this frame's place.
    pub(super) fn wrap(&mut self, frame: EncodedFrame, wrapped: &mut Vec<EncodedFrame>) {
        if let Some(telling) = self.telling.as_mut().filter(|_| self.agreed.has(Features::OWNER_NAMES)) {
            wrapped.extend(telling.before(&frame));
        }
        let is_packed = self.agreed.has(Features::COMPRESSION);
        wrapped.push(if is_packed { self.packer.pack(frame) } else { frame });
    }
}
