//! A socket behind which no more leaves this host than a [`Limiter`] lets.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::time::{Sleep, sleep};

use super::limiter::{Limiter, Rank};

/// Bytes of a datagram on the wire beside its UDP payload: Ethernet, IP and UDP.
const BESIDE_V4: usize = 14 + 20 + 8;
const BESIDE_V6: usize = 14 + 40 + 8;

/// How fast a socket may send, and before whom.
#[derive(Clone, Debug)]
pub(super) struct Pacing {
    pub(super) limiter: Limiter,
    pub(super) rank: Rank,
}

#[derive(Debug)]
pub(super) struct Limited {
    inner: Arc<dyn AsyncUdpSocket>,
    pacing: Pacing,
    /// Length of the datagrams sent last, bytes.
    datagram: AtomicUsize,
}

impl Limited {
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, pacing: Pacing) -> Limited {
        Limited { inner, pacing, datagram: AtomicUsize::new(1200) }
    }
}

/// What goes over the wire for it.
fn on_the_wire(transmit: &Transmit<'_>) -> usize {
    let beside = if transmit.destination.is_ipv4() { BESIDE_V4 } else { BESIDE_V6 };
    let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
    transmit.contents.len() + transmit.contents.len().div_ceil(segment) * beside
}

impl AsyncUdpSocket for Limited {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        let inner = self.inner.clone().create_io_poller();
        Box::pin(LimitedPoller { inner, pacing: self.pacing.clone(), sleep: None })
    }

    /// What cannot go now is kept by QUIC, which asks the poller when it can.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len());
        self.datagram.store(segment, Relaxed);
        match self.pacing.limiter.take(self.pacing.rank, on_the_wire(transmit) as u64) {
            // What the kernel does not take then is counted again: less goes, never more.
            Ok(()) => self.inner.try_send(transmit),
            Err(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(context, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments().min(self.pacing.limiter.datagrams(self.datagram.load(Relaxed)))
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// Of one connection: ready when its next datagrams may go.
struct LimitedPoller {
    inner: Pin<Box<dyn UdpPoller>>,
    pacing: Pacing,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl UdpPoller for LimitedPoller {
    fn poll_writable(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(context));
                self.sleep = None;
            }
            match self.pacing.limiter.wait(self.pacing.rank) {
                None => return self.inner.as_mut().poll_writable(context),
                Some(wait) => self.sleep = Some(Box::pin(sleep(wait))),
            }
        }
    }
}

impl fmt::Debug for LimitedPoller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitedPoller").field("inner", &self.inner).finish_non_exhaustive()
    }
}
