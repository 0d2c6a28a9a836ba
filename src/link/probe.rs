//! Whether anybody is there: QUIC over an unconnected socket never hears what the network says to
//! that, and would wait until its time is over.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

use super::ending::End;
use super::socket;

/// Most handshakes are through before the first question.
const BEFORE: Duration = Duration::from_millis(250);

/// Between two questions.
const EVERY: Duration = Duration::from_secs(1);

/// No packet of QUIC: a listener drops it without an answer.
pub(super) const KNOCK: [u8; 1] = [0];

/// Ends only when the network says that nothing comes through to this address.
pub(super) async fn nobody_there(address: SocketAddr) -> End {
    sleep(BEFORE).await;
    loop {
        match knock(address).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return End::Lost(format!("nobody listens at {address} (UDP)"));
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable
                ) =>
            {
                return End::Lost(format!("{address} cannot be reached: {error}"));
            }
            // Also a filter on this host, which may let the next datagram pass.
            Ok(()) | Err(_) => sleep(EVERY).await,
        }
    }
}

/// Errors: what the network answers within [`EVERY`] (ICMP), or this host's own (no route).
async fn knock(address: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(socket::local_for(address)).await?;
    socket.connect(address).await?;
    socket.send(&KNOCK).await?;
    match timeout(EVERY, socket.recv(&mut [0; 64])).await {
        Ok(heard) => heard.map(drop),
        Err(_) => Ok(()),
    }
}
