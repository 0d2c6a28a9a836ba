//! Makes payloads shorter on their way over a network, and whole again.
//!
//! Each is compressed on its own. What would not shrink travels as it is: of a long payload a few pieces are tried
//! first, so that a film or an archive costs little more than without compression.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use zstd::bulk::{Compressor as Zstandard, Decompressor as Unzstandard};

use crate::limits::PAYLOAD_LEN_MAX;
use crate::packet::{COMPRESSED_MIN, CodecError, EncodedFrame, Packed, Packing};
use crate::pool::{Buffer, Pool};
use crate::words::Compression;

/// Pieces that are tried of a payload which is longer than four times as many, and their length in bytes.
const PIECES: usize = 3;
const PIECE_LEN: usize = 4096;

/// What saves less than this part of a payload is not worth the work of the other side.
const SAVED_PART_MIN: usize = 16;

/// Level of all sessions of one connection, and what it has saved; changed and read from any thread.
#[derive(Clone, Debug, Default)]
pub struct Compressor(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    level: AtomicU8,
    payload_bytes: AtomicU64,
    wire_bytes: AtomicU64,
}

/// Payloads that went while their connection was to compress, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    pub payload_bytes: u64,
    pub wire_bytes: u64,
}

impl Compressor {
    /// From the next frame on.
    pub fn set(&self, level: Compression) {
        self.0.level.store(level.into(), Relaxed);
    }

    pub fn saved(&self) -> Saved {
        let (payload_bytes, wire_bytes) = (&self.0.payload_bytes, &self.0.wire_bytes);
        Saved { payload_bytes: payload_bytes.load(Relaxed), wire_bytes: wire_bytes.load(Relaxed) }
    }

    fn level(&self) -> Compression {
        Compression::try_from(self.0.level.load(Relaxed)).unwrap_or_default()
    }
}

/// Compresses what one session sends.
pub(super) struct Packer {
    level: Compressor,
    zstandard: Option<Zstandard<'static>>,
    /// Room for whatever a payload becomes.
    room: Vec<u8>,
}

impl Packer {
    pub(super) fn new(level: Compressor) -> Packer {
        Packer { level, zstandard: None, room: Vec::new() }
    }

    /// The frame as it travels.
    pub(super) fn pack(&mut self, frame: EncodedFrame) -> EncodedFrame {
        let level = self.level.level();
        let len = frame.payload.len();
        if level == Compression::Off || len == 0 {
            return frame;
        }
        let packed = (len >= COMPRESSED_MIN).then(|| self.compressed(level, &frame.payload)).flatten();
        let frame = match packed {
            Some((by, payload)) => frame.packed(by, payload),
            None => frame,
        };
        self.level.0.payload_bytes.fetch_add(len as u64, Relaxed);
        self.level.0.wire_bytes.fetch_add(frame.payload.len() as u64, Relaxed);
        frame
    }

    /// `None`: it does not shrink by enough.
    fn compressed(&mut self, level: Compression, payload: &[u8]) -> Option<(Packing, Bytes)> {
        if payload.len() > 4 * PIECES * PIECE_LEN {
            let step = (payload.len() - PIECE_LEN) / (PIECES - 1);
            let pieces = (0..PIECES).map(|at| &payload[at * step..at * step + PIECE_LEN]);
            let len: usize =
                pieces.map(|piece| self.compress(level, piece).map_or(PIECE_LEN, |(_, len)| len)).sum();
            is_worth_it(PIECES * PIECE_LEN, len).then_some(())?;
        }
        let (by, len) = self.compress(level, payload)?;
        is_worth_it(payload.len(), len).then(|| (by, Bytes::copy_from_slice(&self.room[..len])))
    }

    /// Into the room; how, and how long it is there. `None`: it cannot be compressed.
    fn compress(&mut self, level: Compression, payload: &[u8]) -> Option<(Packing, usize)> {
        assert!(payload.len() <= PAYLOAD_LEN_MAX, "a payload of {} bytes is to travel", payload.len());
        let lz4_max = lz4_flex::block::get_maximum_output_size(payload.len());
        let room = lz4_max.max(zstd::zstd_safe::compress_bound(payload.len()));
        if self.room.len() < room {
            self.room.resize(room, 0);
        }
        match level {
            Compression::Off => None,
            Compression::Fast => {
                let len = lz4_flex::block::compress_into(payload, &mut self.room).ok()?;
                Some((Packing::Lz4, len))
            }
            Compression::Good => self.zstandard(1, payload),
            Compression::Better => self.zstandard(3, payload),
        }
    }

    fn zstandard(&mut self, level: i32, payload: &[u8]) -> Option<(Packing, usize)> {
        if self.zstandard.is_none() {
            self.zstandard = Some(Zstandard::new(level).ok()?);
        }
        let zstandard = self.zstandard.as_mut()?;
        zstandard.set_compression_level(level).ok()?;
        let len = zstandard.compress_to_buffer(payload, &mut self.room[..]).ok()?;
        Some((Packing::Zstandard, len))
    }
}

fn is_worth_it(before: usize, after: usize) -> bool {
    after <= before - before / SAVED_PART_MIN
}

/// Makes whole what one session receives.
#[derive(Default)]
pub(super) struct Unpacker(Option<Unzstandard<'static>>);

impl Unpacker {
    /// The payload, of exactly the length that its frame says: that much is taken from the pool and never more,
    /// whatever the bytes claim to become.
    pub(super) fn unpack(
        &mut self,
        packed: Packed,
        bytes: &[u8],
        payload_len: usize,
        pool: &Pool,
    ) -> Result<Buffer, CodecError> {
        let mut payload = pool.filled(payload_len);
        let len = match packed.by {
            Packing::Lz4 => lz4_flex::block::decompress_into(bytes, payload.as_mut()).ok(),
            Packing::Zstandard => {
                self.zstandard().and_then(|by| by.decompress_to_buffer(bytes, payload.as_mut()).ok())
            }
        };
        if len == Some(payload_len) { Ok(payload) } else { Err(CodecError::Packing) }
    }

    fn zstandard(&mut self) -> Option<&mut Unzstandard<'static>> {
        if self.0.is_none() {
            self.0 = Some(Unzstandard::new().ok()?);
        }
        self.0.as_mut()
    }
}

/// What a level makes of payloads, and the processor time that it takes, and that to make them whole again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trial {
    pub saved: Saved,
    pub packing: Duration,
    pub unpacking: Duration,
}

/// Compresses payloads as they would travel. `used`: processor time up to now.
pub fn try_compression(level: Compression, payloads: &[Bytes], used: impl Fn() -> Duration) -> Trial {
    let compressor = Compressor::default();
    let (mut packer, mut unpacker, pool) = (Packer::new(compressor), Unpacker::default(), Pool::new());
    let mut trial = Trial::default();
    for payload in payloads {
        let began = used();
        let packed = packer.compressed(level, payload);
        let packed_at = used();
        trial.packing += packed_at - began;
        trial.saved.payload_bytes += payload.len() as u64;
        trial.saved.wire_bytes += packed.as_ref().map_or(payload.len(), |(_, bytes)| bytes.len()) as u64;
        if let Some((by, bytes)) = packed {
            let whole = unpacker.unpack(Packed { by, len: bytes.len() }, &bytes, payload.len(), &pool);
            assert!(
                whole.is_ok_and(|whole| whole.as_ref() == &payload[..]),
                "a payload is another one afterwards"
            );
            trial.unpacking += used() - packed_at;
        }
    }
    trial
}
