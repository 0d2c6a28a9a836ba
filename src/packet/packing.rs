//! How a payload travels: as it is, or compressed. Bytes 20 to 23 of a frame's prefix say it.
//!
//! ```text
//! offset size  of the prefix, little-endian
//!     20    3  bytes of the payload on the wire where it is compressed, fewer than its length; 0: as it is
//!     23    1  how: 0 as it is, 1 an LZ4 block, 2 a Zstandard frame
//! ```
//! The length and the hash in the prefix are those of the payload itself: what a peer makes of the bytes is
//! checked as if they had never been compressed. Only a network carries such frames, and only to a peer that
//! offers [`Features::COMPRESSION`](super::Features::COMPRESSION); nothing of this is ever on a disk.

use super::codec::CodecError;

/// Shorter payloads travel as they are, bytes: with its frame and its share of a datagram little is saved.
pub const COMPRESSED_MIN: usize = 1024;

/// A method. Each payload is compressed on its own, so that a cut costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Block format, without a length before it: <https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>.
    Lz4,
    /// RFC 8878.
    Zstandard,
}

/// A compressed payload: the method, and bytes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    pub by: Packing,
    pub len: usize,
}

impl Packed {
    /// What stands in the prefix.
    pub(super) fn encode(packed: Option<Packed>) -> [u8; 4] {
        let Some(Packed { by, len }) = packed else { return [0; 4] };
        let method = match by {
            Packing::Lz4 => 1,
            Packing::Zstandard => 2,
        };
        assert!(len < 1 << 24, "a payload of {len} bytes has no place in a prefix");
        (len as u32 | method << 24).to_le_bytes()
    }

    /// Errors: no method that is known, or nothing that compression makes of a payload of this length.
    pub(super) fn decode(field: [u8; 4], payload_len: usize) -> Result<Option<Packed>, CodecError> {
        if field == [0; 4] {
            return Ok(None);
        }
        let by = match field[3] {
            1 => Packing::Lz4,
            2 => Packing::Zstandard,
            _ => return Err(CodecError::NotAFrame),
        };
        let len = (u32::from_le_bytes(field) & 0xff_ffff) as usize;
        match payload_len >= COMPRESSED_MIN && (1..payload_len).contains(&len) {
            true => Ok(Some(Packed { by, len })),
            false => Err(CodecError::Packing),
        }
    }
}
