//! The UDP socket under QUIC, and the settings of the connections over it.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{
    AckFrequencyConfig, AsyncUdpSocket, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, Runtime,
    ServerConfig, TokioRuntime, TransportConfig, UdpPoller, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use quinn_proto::crypto::{CryptoError, HmacKey};
use rustix::net::sockopt;

use super::limited::{Limited, Pacing};
use crate::limits::{
    INITIAL_WINDOW, SEND_WINDOW_MIN, SOCKET_BUFFER, STRANGER_WINDOW, STREAM_WINDOW, UDP_PAYLOAD_MAX,
    UDP_SEND_MAX,
};
use crate::words::hmac_sha256;

/// Bytes of an IP packet that are not UDP payload.
const IPV4_AND_UDP_LEN: u32 = 20 + 8;
const IPV6_AND_UDP_LEN: u32 = 40 + 8;

/// UDP payload that every path of QUIC carries, bytes (RFC 9000, 14).
const UDP_PAYLOAD_MIN: u16 = 1200;

/// Survives a restart of a listener: a peer that goes on sending to the process before is told at
/// once that its connection is gone (RFC 9000, 10.3), and need not miss three heartbeats.
#[derive(Clone, Copy)]
pub(super) struct ResetKey(pub(super) [u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature: &mut [u8]) {
        signature.copy_from_slice(&hmac_sha256(&self.0, data));
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        if hmac_sha256(&self.0, data) == signature { Ok(()) } else { Err(CryptoError) }
    }
}

impl ResetKey {
    /// Connection ids that a later process knows for its own kind.
    fn connection_ids(&self) -> u64 {
        let hash = hmac_sha256(&self.0, b"connection ids");
        u64::from_le_bytes(*hash.first_chunk().expect("a hash has 32 bytes"))
    }
}

/// A QUIC endpoint on `address`; with a server configuration it also listens. Call it within a
/// runtime.
pub(super) fn endpoint(
    address: SocketAddr,
    server: Option<(ServerConfig, ResetKey)>,
) -> io::Result<Endpoint> {
    open(address, server, None)
}

/// One that sends as fast as it is let, and listens to nobody.
pub(super) fn paced_endpoint(address: SocketAddr, pacing: Pacing) -> io::Result<Endpoint> {
    open(address, None, Some(pacing))
}

fn open(
    address: SocketAddr,
    server: Option<(ServerConfig, ResetKey)>,
    pacing: Option<Pacing>,
) -> io::Result<Endpoint> {
    let socket = UdpSocket::bind(address)?;
    enlarge_buffers(&socket);
    let inner = TokioRuntime.wrap_udp_socket(socket)?;
    let bounded = Arc::new(BoundedSegments { inner, segment: AtomicUsize::new(UDP_PAYLOAD_MAX.into()) });
    let socket: Arc<dyn AsyncUdpSocket> = match pacing {
        Some(pacing) => Arc::new(Limited::new(bounded, pacing)),
        None => bounded,
    };
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(UDP_PAYLOAD_MAX).map_err(io::Error::other)?;
    if let Some((_, key)) = &server {
        let key = *key;
        let ids = key.connection_ids();
        config.reset_key(Arc::new(key));
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    }
    let server = server.map(|(server, _)| server);
    Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime))
}

/// Any local port from which `address` can be reached.
pub(super) fn local_for(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// What a connection is for.
pub(super) enum Purpose {
    /// Control and heartbeats, at the source.
    Small,
    /// Packets, at the source, which dials this address.
    Large { target: SocketAddr },
    /// As [`Purpose::Large`], at a source that reads its replica back: the target sends.
    Reading { target: SocketAddr },
    /// Either, at the target: which one is known only after the handshake.
    Incoming,
}

impl Purpose {
    /// Streams that the peer may open: both ways (control, heartbeats), one way (packets).
    fn peer_streams(&self) -> (u8, u8) {
        match self {
            Purpose::Small | Purpose::Large { .. } => (0, 0),
            Purpose::Reading { .. } => (0, 1),
            Purpose::Incoming => (2, 1),
        }
    }

    /// Only where the bulk goes are larger datagrams worth the bytes of looking for them.
    fn mtu_discovery(&self) -> Option<MtuDiscoveryConfig> {
        match self {
            Purpose::Small | Purpose::Incoming => None,
            Purpose::Large { target } | Purpose::Reading { target } => Some(mtu_discovery(*target)),
        }
    }
}

/// Settings of a connection. What the peer may send unasked is little ([`STRANGER_WINDOW`]);
/// a target opens the connection for packets further once it has welcomed its source. `idle` ends it where nothing at all is heard any more (the
/// heartbeats notice sooner); `keep_alive` keeps the path open.
pub(super) fn transport(
    purpose: Purpose,
    idle: Duration,
    keep_alive: Option<Duration>,
) -> Arc<TransportConfig> {
    let (both_ways, one_way) = purpose.peer_streams();
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(both_ways.into())
        .max_concurrent_uni_streams(one_way.into())
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(IdleTimeout::try_from(idle).ok())
        .keep_alive_interval(keep_alive)
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(STRANGER_WINDOW.into())
        .send_window(SEND_WINDOW_MIN)
        .mtu_discovery_config(purpose.mtu_discovery())
        .ack_frequency_config(Some(ack_frequency()))
        .congestion_controller_factory(Arc::new(cubic()));
    Arc::new(config)
}

/// Never a large `initial_mtu`: it stalls for ever on a path that cannot carry it. A coarser
/// step where much is to be gained saves a third of the bytes of the search.
fn mtu_discovery(target: SocketAddr) -> MtuDiscoveryConfig {
    let upper_bound = payload_max(target);
    let mut config = MtuDiscoveryConfig::default();
    config.upper_bound(upper_bound).minimum_change(if upper_bound > 2000 { 64 } else { 20 });
    config
}

/// The largest UDP payload that leaves this host towards `target`, bytes; what lies further on
/// the path is for the discovery to find.
pub(crate) fn payload_max(target: SocketAddr) -> u16 {
    let mtu = || -> io::Result<u32> {
        let socket = UdpSocket::bind(local_for(target))?;
        socket.connect(target)?;
        Ok(match target {
            SocketAddr::V4(_) => sockopt::ip_mtu(&socket)?.saturating_sub(IPV4_AND_UDP_LEN),
            SocketAddr::V6(_) => sockopt::ipv6_mtu(&socket)?.saturating_sub(IPV6_AND_UDP_LEN),
        })
    };
    let known = mtu().ok().and_then(|mtu| u16::try_from(mtu).ok());
    known.map_or(UDP_PAYLOAD_MAX, |mtu| mtu.clamp(UDP_PAYLOAD_MIN, UDP_PAYLOAD_MAX))
}

/// One acknowledgement for ten datagrams: bytes and processor time. The delay bounds what a tail
/// of fewer costs a sender whose window is full; gaps are reported at once.
fn ack_frequency() -> AckFrequencyConfig {
    let mut config = AckFrequencyConfig::default();
    config.ack_eliciting_threshold(VarInt::from_u32(9)).max_ack_delay(Some(Duration::from_millis(10)));
    config
}

fn cubic() -> CubicConfig {
    let mut config = CubicConfig::default();
    config.initial_window(INITIAL_WINDOW);
    config
}

/// Beyond the system's limits where the process may, else up to them: a smaller buffer works,
/// only slower.
fn enlarge_buffers(socket: &UdpSocket) {
    let receive = sockopt::set_socket_recv_buffer_size_force(socket, SOCKET_BUFFER)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(socket, SOCKET_BUFFER));
    let send = sockopt::set_socket_send_buffer_size_force(socket, SOCKET_BUFFER)
        .or_else(|_| sockopt::set_socket_send_buffer_size(socket, SOCKET_BUFFER));
    if let Err(error) = receive.and(send) {
        log::debug!("socket buffers stay as they are: {error}");
    }
}

/// A socket that never asks the kernel for more than it takes in one segmented send.
///
/// Beyond that the kernel answers EMSGSIZE, quinn-udp takes it for a lost probe and says
/// nothing, and the connection would stall for ever.
#[derive(Debug)]
struct BoundedSegments {
    inner: Arc<dyn AsyncUdpSocket>,
    /// Length in bytes of the segments last sent: what the next batch is most likely made of.
    segment: AtomicUsize,
}

impl AsyncUdpSocket for BoundedSegments {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        let Some(segment) = transmit.segment_size else { return self.inner.try_send(transmit) };
        let segment = segment.clamp(1, UDP_SEND_MAX);
        self.segment.store(segment, Relaxed);
        // Right after the datagrams grew, or where connections with several sizes share the
        // socket, a batch can still be too long. Where only its first part can be sent, quinn sends
        // all again, and the peer drops what it has twice.
        for contents in transmit.contents.chunks(UDP_SEND_MAX / segment * segment) {
            self.inner.try_send(&Transmit { contents, ..transmit.clone() })?;
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(context, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments().min(UDP_SEND_MAX / self.segment.load(Relaxed)).max(1)
    }

    /// quinn makes room for this many of the largest datagrams; the kernel joins at most 64 KiB.
    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments().min((1 << 16) / usize::from(UDP_PAYLOAD_MAX) + 1)
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    /// Takes what the kernel would, and notes it.
    #[derive(Debug, Default)]
    struct Kernel(Mutex<Vec<(usize, Option<usize>)>>);

    impl AsyncUdpSocket for Kernel {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            unreachable!()
        }

        fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
            assert!(transmit.contents.len() <= 65_507, "EMSGSIZE");
            self.0.lock().push((transmit.contents.len(), transmit.segment_size));
            Ok(())
        }

        fn poll_recv(
            &self,
            _: &mut Context,
            _: &mut [IoSliceMut<'_>],
            _: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(([127, 0, 0, 1], 1).into())
        }

        fn max_transmit_segments(&self) -> usize {
            64
        }
    }

    /// Ten jumbo datagrams in one call once stalled a connection for ever.
    #[test]
    fn no_send_is_longer_than_the_kernel_takes() {
        let kernel = Arc::new(Kernel::default());
        let socket = BoundedSegments { inner: kernel.clone(), segment: AtomicUsize::new(1200) };
        assert_eq!(socket.max_transmit_segments(), 54);
        let contents = vec![0; 9 * 8952 + 100];
        let batch = Transmit {
            destination: ([127, 0, 0, 1], 1).into(),
            ecn: None,
            contents: &contents,
            segment_size: Some(8952),
            src_ip: None,
        };
        socket.try_send(&batch).unwrap();
        assert_eq!(*kernel.0.lock(), [(7 * 8952, Some(8952)), (2 * 8952 + 100, Some(8952))]);
        assert_eq!(socket.max_transmit_segments(), 7);
    }

    #[test]
    fn loopback_carries_jumbo_datagrams() {
        assert_eq!(payload_max(([127, 0, 0, 1], 9).into()), UDP_PAYLOAD_MAX);
    }
}
