//! Frames out of the bytes of a stream, in whatever pieces they come, with the numbers that their owners have here.
//! Without stream or clock.

use bytes::{Buf, Bytes};

use super::owners::Translating;
use super::packing::Unpacker;
use crate::limits::{FRAME_COST, HEADER_COST};
use crate::packet::{CodecError, Frame, PREFIX_LEN, Prefix};
use crate::pool::{Buffer, Pool};

/// The frame under construction. Memory is bounded by one frame, and what it travels as: lengths are checked
/// before anything is allocated.
pub(crate) struct Assembler {
    pool: Pool,
    part: Part,
    unpacker: Unpacker,
    owners: Translating,
}

/// A whole frame, and how many bytes of memory it may hold: a peer chooses what is small on the
/// wire and large when decoded.
pub(crate) struct Assembled {
    pub(crate) frame: Frame,
    pub(crate) cost: usize,
}

fn cost(prefix: &Prefix, buffer: usize) -> usize {
    FRAME_COST + HEADER_COST * prefix.header_len + buffer
}

enum Part {
    Prefix { bytes: [u8; PREFIX_LEN], len: usize },
    Header { bytes: [u8; PREFIX_LEN], prefix: Prefix, header: Vec<u8> },
    Payload { bytes: [u8; PREFIX_LEN], prefix: Prefix, header: Vec<u8>, payload: Buffer },
}

const EMPTY: Part = Part::Prefix { bytes: [0; PREFIX_LEN], len: 0 };

impl Assembler {
    pub(crate) fn new(pool: Pool) -> Assembler {
        let owners = Translating::of_host();
        Assembler { pool, part: EMPTY, unpacker: Unpacker::default(), owners }
    }

    /// Takes bytes from the front of `chunk` until a frame is whole (it comes back, checked and
    /// decoded) or the chunk is used up. After an error nothing of the stream can be trusted.
    pub(crate) fn take(&mut self, chunk: &mut Bytes) -> Result<Option<Assembled>, CodecError> {
        while !chunk.is_empty() {
            let before = chunk.len();
            let (part, frame) = self.step(chunk)?;
            assert!(chunk.len() < before, "no byte of a stream is taken");
            self.part = part;
            if frame.is_some() {
                return Ok(frame);
            }
        }
        Ok(None)
    }

    /// The stream may end here: no frame has begun.
    pub(crate) fn between_frames(&self) -> bool {
        matches!(self.part, Part::Prefix { len: 0, .. })
    }

    /// Adds what the chunk has of the current part.
    fn step(&mut self, chunk: &mut Bytes) -> Result<(Part, Option<Assembled>), CodecError> {
        match std::mem::replace(&mut self.part, EMPTY) {
            Part::Prefix { mut bytes, len } => {
                let count = chunk.len().min(PREFIX_LEN - len);
                chunk.copy_to_slice(&mut bytes[len..len + count]);
                if len + count < PREFIX_LEN {
                    return Ok((Part::Prefix { bytes, len: len + count }, None));
                }
                let prefix = Prefix::from_wire(&bytes)?;
                self.after_header(bytes, prefix, Vec::new())
            }
            Part::Header { bytes, prefix, mut header } => {
                let piece = chunk.split_to(chunk.len().min(prefix.header_len - header.len()));
                header.extend_from_slice(&piece);
                self.after_header(bytes, prefix, header)
            }
            Part::Payload { bytes, prefix, header, mut payload } => {
                let wire_len = prefix.wire_len();
                let piece = chunk.split_to(chunk.len().min(wire_len - payload.as_ref().len()));
                payload.append(&piece);
                assert!(payload.as_ref().len() <= wire_len, "a payload takes bytes of the next frame");
                if payload.as_ref().len() < wire_len {
                    return Ok((Part::Payload { bytes, prefix, header, payload }, None));
                }
                if let Some(packed) = prefix.packed {
                    payload =
                        self.unpacker.unpack(packed, payload.as_ref(), prefix.payload_len, &self.pool)?;
                }
                let cost = cost(&prefix, payload.capacity());
                let mut frame = prefix.frame(&bytes, &header, Bytes::from_owner(payload))?;
                self.owners.translate(&mut frame);
                Ok((EMPTY, Some(Assembled { frame, cost })))
            }
        }
    }

    /// Goes on to the payload once the header is whole; a frame may have neither.
    fn after_header(
        &mut self,
        bytes: [u8; PREFIX_LEN],
        prefix: Prefix,
        header: Vec<u8>,
    ) -> Result<(Part, Option<Assembled>), CodecError> {
        assert!(header.len() <= prefix.header_len, "a header takes bytes of what follows it");
        if header.len() < prefix.header_len {
            return Ok((Part::Header { bytes, prefix, header }, None));
        }
        if prefix.is_of_names() {
            self.owners.learn(&prefix.names(&bytes, &header)?)?;
            return Ok((EMPTY, None));
        }
        if prefix.payload_len == 0 {
            let mut frame = prefix.frame(&bytes, &header, Bytes::new())?;
            self.owners.translate(&mut frame);
            return Ok((EMPTY, Some(Assembled { frame, cost: cost(&prefix, 0) })));
        }
        let payload = self.pool.empty(prefix.wire_len());
        Ok((Part::Payload { bytes, prefix, header, payload }, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::*;
    use proptest::prelude::*;

    fn frame(sequence: u64, payload: Vec<u8>) -> Vec<u8> {
        let header = encode_packet_header(b"path", &Op::Barrier { durable: false, name: None });
        let position = Position { sequence: Sequence(sequence), ..Position::default() };
        let frame = packet_frame(&position, &header, Bytes::from(payload));
        [&frame.head[..], &frame.payload[..]].concat()
    }

    fn assemble(stream: &[u8], cuts: &[usize]) -> Result<Vec<Frame>, CodecError> {
        let mut assembler = Assembler::new(Pool::new());
        let mut frames = Vec::new();
        let mut rest = Bytes::copy_from_slice(stream);
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let cut = cuts.next().copied().unwrap_or(usize::MAX).clamp(1, rest.len());
            let mut chunk = rest.split_to(cut);
            while let Some(assembled) = assembler.take(&mut chunk)? {
                frames.push(assembled.frame);
            }
        }
        assert!(assembler.between_frames());
        Ok(frames)
    }

    proptest! {
        #[test]
        fn frames_come_back_however_the_stream_is_cut(
            sizes in prop::collection::vec(0usize..3000, 1..20),
            cuts in prop::collection::vec(1usize..700, 1..20),
        ) {
            let stream: Vec<u8> =
                sizes.iter().enumerate().flat_map(|(n, &size)| frame(n as u64, vec![n as u8; size])).collect();
            let frames = assemble(&stream, &cuts).unwrap();
            prop_assert_eq!(frames.len(), sizes.len());
            for (n, (frame, &size)) in frames.iter().zip(&sizes).enumerate() {
                prop_assert_eq!(frame.position.sequence, Sequence(n as u64));
                prop_assert_eq!(&frame.payload[..], &vec![n as u8; size][..]);
            }
        }

        #[test]
        fn junk_is_an_error_and_never_a_panic(
            mut junk in prop::collection::vec(any::<u8>(), 64..2000),
            like_a_frame in any::<bool>(),
        ) {
            if like_a_frame {
                let good = frame(1, vec![1; 10]);
                junk[..good.len().min(8)].copy_from_slice(&good[..8]);
                junk[20..24].fill(0);
            }
            let mut assembler = Assembler::new(Pool::new());
            let mut chunk = Bytes::from(junk);
            prop_assert!(!matches!(assembler.take(&mut chunk), Ok(Some(_))));
        }
    }
}
