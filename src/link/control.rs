//! The control stream: messages with their length before them, both ways, in order. Both
//! directions are bounded by bytes: what a peer does not read, and what it sends too fast.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bincode::Encode;
use crossbeam_channel::Sender;
use parking_lot::Mutex;
use quinn::{ReadExactError, RecvStream, SendStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::ending::{CLOSED_BY_PEER, End};
use crate::limits::{CLOSE_FLUSH, CONTROL_IN_BYTES_MAX, CONTROL_IN_MAX, CONTROL_OUT_BYTES_MAX};
use crate::packet::{Frozen, decode_control, encode_message, message_len};

/// How soon a stream that was left alone, because nobody takes its messages, is looked at again.
const BACKLOG_PAUSE: Duration = Duration::from_millis(5);

/// Begins what a side says that cannot read a message, in every version.
const UNREADABLE: &str = "control stream";

/// Whether a connection was ended by a peer that could not read what this side has said.
pub fn was_unreadable(reason: &str) -> bool {
    reason.strip_prefix(CLOSED_BY_PEER).is_some_and(|said| said.starts_with(UNREADABLE))
}

/// Messages on their way out, and the wish to close. Any thread puts in, the link thread takes out.
pub(super) struct Outbox<M> {
    state: Mutex<OutboxState>,
    changed: Notify,
    overflow: Notify,
    messages: PhantomData<fn(M)>,
}

#[derive(Default)]
struct OutboxState {
    /// Encoded messages, one behind the other.
    bytes: Vec<u8>,
    closing: Option<String>,
}

impl<M: Encode + Send + 'static> Outbox<M> {
    pub(super) fn new() -> Arc<Outbox<M>> {
        Arc::new(Outbox {
            state: Mutex::default(),
            changed: Notify::new(),
            overflow: Notify::new(),
            messages: PhantomData,
        })
    }

    /// Never blocks. A peer that lets [`CONTROL_OUT_BYTES_MAX`] bytes pile up loses the connection.
    pub(super) fn put(&self, message: M) {
        let message = encode_message(&message);
        let mut state = self.state.lock();
        if state.closing.is_some() {
            return;
        }
        if state.bytes.len() + message.len() > CONTROL_OUT_BYTES_MAX {
            self.overflow.notify_one();
            return;
        }
        state.bytes.extend_from_slice(&message);
        drop(state);
        self.changed.notify_one();
    }

    /// Closes once everything put in before is sent. The first reason counts.
    pub(super) fn close(&self, reason: &str) {
        self.state.lock().closing.get_or_insert_with(|| reason.to_owned());
        self.changed.notify_one();
    }

    /// Waits for the wish to close, whatever is still to be sent.
    pub(super) async fn closing(&self) -> End {
        loop {
            if let Some(reason) = &self.state.lock().closing {
                return End::Closed(reason.clone());
            }
            self.changed.notified().await;
        }
    }

    /// Waits until too many messages have piled up.
    async fn overflowed(&self) -> End {
        self.overflow.notified().await;
        End::Fault(format!("the peer left {CONTROL_OUT_BYTES_MAX} bytes of control messages unread"))
    }

    /// Adds the parts of a connection that send what is put in.
    pub(super) fn spawn(self: &Arc<Self>, parts: &mut JoinSet<End>, stream: SendStream) {
        let outbox = self.clone();
        parts.spawn(async move { outbox.send(stream).await });
        let outbox = self.clone();
        parts.spawn(async move { outbox.overflowed().await });
    }

    fn take(&self) -> (Vec<u8>, Option<String>) {
        let mut state = self.state.lock();
        (std::mem::take(&mut state.bytes), state.closing.clone())
    }

    /// Sends what is put in, until it is closed and all has arrived.
    async fn send(&self, mut stream: SendStream) -> End {
        loop {
            let (bytes, closing) = self.take();
            if !bytes.is_empty() {
                if let Err(error) = stream.write_all(&bytes).await {
                    return error.into();
                }
            } else if let Some(reason) = closing {
                flush(stream).await;
                return End::Closed(reason);
            } else {
                self.changed.notified().await;
            }
        }
    }
}

/// Waits, within bounds, until the peer has every byte.
async fn flush(mut stream: SendStream) {
    if stream.finish().is_ok() {
        let _ = timeout(CLOSE_FLUSH, stream.stopped()).await;
    }
}

/// Hands on what arrives until the stream ends. A receiver that nobody empties stops the reading.
pub(super) async fn receive<M, E>(mut stream: RecvStream, events: Sender<E>, event: fn(M) -> E) -> End
where
    M: Frozen,
{
    let mut backlog = Backlog::default();
    loop {
        while backlog.is_full(events.len()) {
            sleep(BACKLOG_PAUSE).await;
        }
        match next_message(&mut stream).await {
            Ok(Some((message, len))) => {
                backlog.sizes.push_back(len);
                if events.send(event(message)).is_err() {
                    return End::Closed("nobody takes control messages any more".into());
                }
            }
            Ok(None) => return End::Lost("the peer ended the connection".into()),
            Err(end) => return end,
        }
    }
}

/// Sizes of the messages that were handed on lately: those that nobody has taken yet are the last.
#[derive(Default)]
struct Backlog {
    sizes: VecDeque<usize>,
}

impl Backlog {
    /// Whether the `waiting` messages that were not taken yet are as many, or as large, as may be.
    fn is_full(&mut self, waiting: usize) -> bool {
        let taken = self.sizes.len().saturating_sub(waiting);
        self.sizes.drain(..taken);
        waiting >= CONTROL_IN_MAX || self.sizes.iter().sum::<usize>() >= CONTROL_IN_BYTES_MAX
    }
}

/// A message and its length in bytes. `None`: the stream ended between two messages.
async fn next_message<M: Frozen>(stream: &mut RecvStream) -> Result<Option<(M, usize)>, End> {
    let mut prefix = [0; 4];
    if !read_whole(stream, &mut prefix).await? {
        return Ok(None);
    }
    let len = message_len(prefix).map_err(|error| End::Fault(format!("{UNREADABLE}: {error}")))?;
    let body = read_body(stream, len).await?;
    let message = decode_control(&body).map_err(|error| End::Fault(format!("{UNREADABLE}: {error}")))?;
    Ok(Some((message, len)))
}

/// The buffer grows with what arrives: a length alone costs nothing.
async fn read_body(stream: &mut RecvStream, len: usize) -> Result<Vec<u8>, End> {
    let mut body = Vec::new();
    while body.len() < len {
        match stream.read_chunk(len - body.len(), true).await? {
            Some(chunk) => {
                assert!(chunk.bytes.len() <= len - body.len(), "a message takes bytes of the next one");
                body.extend_from_slice(&chunk.bytes);
            }
            None => return Err(End::Fault("the control stream ended within a message".into())),
        }
    }
    Ok(body)
}

/// `false`: the stream ended before the first byte.
async fn read_whole(stream: &mut RecvStream, bytes: &mut [u8]) -> Result<bool, End> {
    match stream.read_exact(bytes).await {
        Ok(()) => Ok(true),
        Err(ReadExactError::FinishedEarly(0)) => Ok(false),
        Err(ReadExactError::FinishedEarly(_)) => {
            Err(End::Fault("the control stream ended within a message".into()))
        }
        Err(ReadExactError::ReadError(error)) => Err(error.into()),
    }
}
