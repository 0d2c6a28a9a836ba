//! How connections end: who ended it, and why, in one clear line.

use std::future::Future;
use std::time::Duration;

use quinn::{Connection, ConnectionError, ReadError, TransportErrorCode, VarInt, WriteError};

use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use super::tls::ALERT_ACCESS_DENIED;
use crate::limits::CLOSE_FLUSH;
use crate::packet::printable;

/// Why a part of a connection stopped; the connection stops with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// This side was asked to close it, and everything is sent.
    Closed(String),
    /// The peer closed it, or nothing is heard of it any more.
    Lost(String),
    /// The peer does not behave: it is told so.
    Fault(String),
    /// One side does not take the other's key.
    Refused(String),
}

/// Codes on the wire; the reason goes beside it as text.
const CODE_CLOSED: VarInt = VarInt::from_u32(0);
const CODE_LOST: VarInt = VarInt::from_u32(1);
const CODE_FAULT: VarInt = VarInt::from_u32(2);

/// How long the peer's reason is waited for after it ended a stream.
const TELL_TIME: Duration = Duration::from_millis(200);

/// Before the reason for which a peer has closed a connection.
pub(super) const CLOSED_BY_PEER: &str = "the peer closed it: ";

/// Longest reason that travels, in bytes.
const REASON_MAX: usize = 512;

impl End {
    pub(super) fn reason(&self) -> &str {
        match self {
            End::Closed(reason) | End::Lost(reason) | End::Fault(reason) | End::Refused(reason) => reason,
        }
    }

    /// Ends a connection for this reason; nothing happens where it has ended already.
    pub(super) fn close(&self, connection: &Connection) {
        let code = match self {
            End::Closed(_) => CODE_CLOSED,
            End::Lost(_) => CODE_LOST,
            End::Fault(_) | End::Refused(_) => CODE_FAULT,
        };
        let reason = self.reason().as_bytes();
        connection.close(code, &reason[..reason.len().min(REASON_MAX)]);
    }
}

/// Waits for the first part of a link to end and ends the others with it: closes the
/// connections that it has by then, and hands on the messages that had still arrived.
pub(super) async fn first_of(
    mut parts: JoinSet<End>,
    messages: impl Future<Output = End>,
    connections: impl FnOnce() -> Vec<Connection>,
) -> End {
    tokio::pin!(messages);
    let (end, messages_left) = tokio::select! {
        part = parts.join_next() => (part_end(part), true),
        end = &mut messages => (end, false),
    };
    let connections = connections();
    let end = told_by_peer(end, &connections).await;
    connections.iter().for_each(|connection| end.close(connection));
    if messages_left {
        let _ = timeout(CLOSE_FLUSH, messages).await;
    }
    end
}

/// A part's end. A panic in one part must not leave a link that hangs.
fn part_end(part: Option<Result<End, JoinError>>) -> End {
    match part {
        Some(Ok(end)) => end,
        Some(Err(error)) => End::Fault(format!("a part of the link failed: {error}")),
        None => End::Fault("the link has no parts".into()),
    }
}

/// A stream's end often comes just before the peer's own word on why.
async fn told_by_peer(end: End, connections: &[Connection]) -> End {
    let told = connections.iter().any(|connection| connection.close_reason().is_some());
    let (End::Lost(_), false, [first, ..]) = (&end, told, connections) else { return end };
    match timeout(TELL_TIME, first.closed()).await {
        Ok(error) => error.into(),
        Err(_) => end,
    }
}

/// Ends when the connection does.
pub(super) async fn gone(connection: Connection) -> End {
    connection.closed().await.into()
}

impl From<ConnectionError> for End {
    fn from(error: ConnectionError) -> End {
        let reason = describe(&error);
        if refused_our_key(&error) { End::Refused(reason) } else { End::Lost(reason) }
    }
}

impl From<WriteError> for End {
    fn from(error: WriteError) -> End {
        match error {
            WriteError::ConnectionLost(error) => error.into(),
            WriteError::Stopped(_) => End::Fault("the peer stopped reading a stream".into()),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => {
                End::Lost("the stream is closed".into())
            }
        }
    }
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> End {
        match error {
            ReadError::ConnectionLost(error) => error.into(),
            ReadError::Reset(_) => End::Fault("the peer broke off a stream".into()),
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
                End::Lost("the stream is closed".into())
            }
        }
    }
}

/// The peer's TLS refused our key.
pub(super) fn refused_our_key(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::ConnectionClosed(close)
        if close.error_code == TransportErrorCode::crypto(ALERT_ACCESS_DENIED))
}

/// One line about the end of a connection.
pub(super) fn describe(error: &ConnectionError) -> String {
    match error {
        _ if refused_our_key(error) => "the peer refused this host's key".into(),
        ConnectionError::ApplicationClosed(close) => {
            format!("{CLOSED_BY_PEER}{}", printable(&close.reason))
        }
        ConnectionError::ConnectionClosed(close) => {
            format!("the peer broke it off: {}", printable(close.to_string().as_bytes()))
        }
        ConnectionError::TransportError(error) => format!("the peer broke the protocol: {error}"),
        ConnectionError::TimedOut => "the peer does not answer any more".into(),
        ConnectionError::Reset => "the peer has restarted".into(),
        ConnectionError::LocallyClosed => "closed by this side".into(),
        ConnectionError::VersionMismatch | ConnectionError::CidsExhausted => error.to_string(),
    }
}
