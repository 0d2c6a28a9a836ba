//! Up to which packet readers get any: what a source may send it has to know of after a power loss.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};

use super::list::{Queue, WakeList};
use super::packet::{Haste, Packet};
use crate::packet::Sequence;

/// Everything may go, until somebody says otherwise.
pub(super) struct Leave {
    upto: AtomicU64,
    asks: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Default for Leave {
    fn default() -> Leave {
        Leave { upto: AtomicU64::new(u64::MAX), asks: OnceLock::new() }
    }
}

impl Leave {
    /// Keeps what may go.
    pub(super) fn cut(&self, packets: &mut Vec<Packet>) {
        let upto = Sequence(self.upto.load(Acquire));
        let may_go = packets.partition_point(|packet| packet.position.sequence <= upto);
        if may_go < packets.len() {
            packets.truncate(may_go);
            self.asks.get().into_iter().for_each(|ask| ask());
        }
    }
}

impl Queue {
    /// Readers get packets up to this one from now on, and are woken.
    pub fn let_leave(&self, upto: Sequence) {
        self.leave.upto.store(upto.0, Release);
        let wakes: WakeList = self.tail.lock().cursors.values().map(|cursor| cursor.wake.clone()).collect();
        wakes.iter().for_each(|wake| wake(Haste::Now));
    }

    /// Called by whoever reads and finds more than may go: must not block. Once.
    pub fn when_held(&self, ask: impl Fn() + Send + Sync + 'static) {
        let _ = self.leave.asks.set(Box::new(ask));
    }
}
