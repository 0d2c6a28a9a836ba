//! The network: one link is a stream of bytes to the target and messages both ways. What has not
//! arrived when it is cut is lost; each side learns of the cut in its own time.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use crate::link::Assembler;
use crate::packet::{
    EncodedFrame, Frame, SourceMessage, TargetMessage, decode_message, encode_message, message_len,
};
use crate::pool::Pool;
use crate::random::Random;

/// Frames that wait at the target before the stream stands still.
const INBOX_MAX: usize = 12;

pub struct Wire {
    stream: VecDeque<u8>,
    assembler: Assembler,
    /// Arrived and not yet taken by the session.
    pub inbox: VecDeque<Frame>,
    to_target: VecDeque<Vec<u8>>,
    to_source: VecDeque<Vec<u8>>,
    /// Nothing goes through any more, in neither direction.
    pub is_cut: bool,
    pub source: End,
    pub target: End,
}

/// What one side knows of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It takes the link for alive.
    Open,
    /// It will notice then that the link is gone.
    NoticesAt(Instant),
    Closed,
}

impl End {
    pub fn is_closed(self) -> bool {
        self == End::Closed
    }

    pub fn is_due(self, now: Instant) -> bool {
        matches!(self, End::NoticesAt(at) if at <= now)
    }

    /// The earlier notice counts.
    pub fn notices(&mut self, at: Instant) {
        match *self {
            End::Open => *self = End::NoticesAt(at),
            End::NoticesAt(before) => *self = End::NoticesAt(before.min(at)),
            End::Closed => {}
        }
    }
}

impl Wire {
    pub fn new() -> Wire {
        Wire {
            stream: VecDeque::new(),
            assembler: Assembler::new(Pool::new()),
            inbox: VecDeque::new(),
            to_target: VecDeque::new(),
            to_source: VecDeque::new(),
            is_cut: false,
            source: End::Open,
            target: End::Open,
        }
    }

    /// Bytes that were sent and have not arrived.
    pub fn under_way(&self) -> usize {
        self.stream.len()
    }

    pub fn send_frame(&mut self, frame: &EncodedFrame) {
        if !self.is_cut {
            self.stream.extend(frame.head.iter().chain(frame.payload.iter()));
        }
    }

    pub fn send_to_target(&mut self, message: &SourceMessage) {
        if !self.is_cut && !self.source.is_closed() {
            self.to_target.push_back(encode_message(message));
        }
    }

    pub fn send_to_source(&mut self, message: &TargetMessage) {
        if !self.is_cut && !self.target.is_closed() {
            self.to_source.push_back(encode_message(message));
        }
    }

    /// A piece of the stream arrives; answers how many bytes.
    ///
    /// Errors: the codec's.
    pub fn deliver_stream(&mut self, random: &mut Random) -> Result<usize, String> {
        let blocked = self.is_cut || self.target.is_closed() || self.inbox.len() >= INBOX_MAX;
        if blocked || self.stream.is_empty() {
            return Ok(0);
        }
        let most = if random.one_in(3) { 70 } else { 3000 };
        let len = (random.below(most) as usize + 1).min(self.stream.len());
        let mut piece: Bytes = self.stream.drain(..len).collect();
        while let Some(assembled) = self.assembler.take(&mut piece).map_err(|error| error.to_string())? {
            self.inbox.push_back(assembled.frame);
        }
        Ok(len)
    }

    /// The next message for the target, if one arrives.
    pub fn deliver_to_target(&mut self) -> Option<SourceMessage> {
        if self.is_cut || self.target.is_closed() {
            return None;
        }
        self.to_target.pop_front().map(|bytes| decoded(&bytes))
    }

    /// The next message for the source, if one arrives.
    pub fn deliver_to_source(&mut self) -> Option<TargetMessage> {
        if self.is_cut || self.source.is_closed() {
            return None;
        }
        self.to_source.pop_front().map(|bytes| decoded(&bytes))
    }

    /// Whether messages are on their way to the source.
    pub fn says_something(&self) -> bool {
        !self.to_source.is_empty() && !self.is_cut && !self.source.is_closed()
    }

    pub fn cut(&mut self) {
        self.is_cut = true;
        self.stream.clear();
        self.to_target.clear();
        self.to_source.clear();
    }
}

fn decoded<M: bincode::Decode<()>>(bytes: &[u8]) -> M {
    let prefix = bytes[..4].try_into().expect("four bytes");
    assert_eq!(message_len(prefix), Ok(bytes.len() - 4));
    decode_message(&bytes[4..]).expect("our own message")
}
