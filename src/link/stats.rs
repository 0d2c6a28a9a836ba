//! What a link moved, readable from any thread while it runs and after it.

use std::sync::Arc;

use parking_lot::Mutex;
use quinn::Connection;
use serde::Serialize;
use tokio::sync::Notify;

use super::heartbeat::Heard;

/// What a link has moved and how it is. Bytes are UDP payload, both connections together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LinkStats {
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// QUIC packets given up as lost, of those this side sent.
    pub lost_packets: u64,
    /// Round trip on the small connection, µs.
    pub rtt_us: u64,
    /// Largest UDP payload that the path of the packets carries, bytes.
    pub mtu: u16,
    /// Bytes that the network takes in one round trip, as far as is known.
    pub congestion_window: u64,
    /// Time since a heartbeat was heard, ms.
    pub heartbeat_age_ms: u64,
}

/// Reads the connections of a link, as far as they have come.
#[derive(Clone)]
pub(super) struct Meter {
    state: Arc<Mutex<State>>,
    pub(super) heard: Heard,
    /// The peer is to say something at once.
    pub(super) call: Arc<Notify>,
}

#[derive(Default)]
struct State {
    small: Option<Connection>,
    large: Option<Connection>,
    /// What was read last.
    stats: LinkStats,
}

impl Meter {
    pub(super) fn new() -> Meter {
        Meter { state: Arc::default(), heard: Heard::now(), call: Arc::default() }
    }

    pub(super) fn set_small(&self, connection: Connection) {
        self.state.lock().small = Some(connection);
    }

    pub(super) fn set_large(&self, connection: Connection) {
        self.state.lock().large = Some(connection);
    }

    pub(super) fn connections(&self) -> Vec<Connection> {
        let state = self.state.lock();
        [&state.small, &state.large].into_iter().flatten().cloned().collect()
    }

    /// All zero before the link is up; after its end what it was then.
    pub(super) fn read(&self) -> LinkStats {
        let mut state = self.state.lock();
        let Some(small) = &state.small else { return state.stats };
        let mut stats = LinkStats {
            rtt_us: small.rtt().as_micros() as u64,
            heartbeat_age_ms: self.heard.age().as_millis() as u64,
            ..LinkStats::default()
        };
        for connection in [&state.small, &state.large].into_iter().flatten() {
            let of = connection.stats();
            stats.sent_bytes += of.udp_tx.bytes;
            stats.received_bytes += of.udp_rx.bytes;
            stats.lost_packets += of.path.lost_packets;
            stats.mtu = of.path.current_mtu;
            stats.congestion_window = of.path.cwnd;
        }
        state.stats = stats;
        stats
    }

    /// Lets the connections go: each holds its socket open, and with it the address.
    pub(super) fn stop(&self) {
        self.read();
        let mut state = self.state.lock();
        (state.small, state.large) = (None, None);
    }
}
