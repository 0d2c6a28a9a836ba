//! The wire and disk format: frames with a fixed prefix, a bincode header, a raw payload.
//!
//! ```text
//! offset size  prefix of a frame, little-endian, 64 bytes
//!      0    2  magic "sd"
//!      2    1  format version
//!      3    1  kind: 1 packet, 2 skip, 3 lane item, 4 names of owners (on a network only)
//!      4    4  length of the header, bytes
//!      8    4  length of the payload, bytes
//!     12    4  crc32c of bytes 0..12, 16..56 and the header
//!     16    4  epoch number
//!     20    4  how the payload travels (packing); 0: as it is
//!     24    8  epoch writer
//!     32    8  incarnation
//!     40    8  sequence number
//!     48    8  chain hash
//!     56    8  xxh3-64 of the payload, seeded with the sequence number
//!     64       header (bincode, fixed-int, little-endian), then the payload as it is
//! ```
//! The payload hash is written last, by whoever sends or stores the frame; the crc leaves it out.
//! All versions of bincode are unmaintained; the bytes are those of fixed-int bincode, so that
//! another codec with the same bytes can take its place in this file alone.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::{Decode, Encode};
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::bounded::Bounded;
use super::item::{ItemNumber, LaneItem};
use super::op::Op;
use super::owners::OwnerNames;
use super::packing::{Packed, Packing};
use super::position::{Chain, Epoch, HeaderDigest, Incarnation, Position, Sequence};
use crate::limits::{CONTROL_LEN_MAX, HEADER_LEN_MAX, PATH_LEN_MAX, PAYLOAD_LEN_MAX};

/// Length of a frame's prefix in bytes.
pub const PREFIX_LEN: usize = 64;
const MAGIC: [u8; 2] = *b"sd";
/// Stands in every frame, also in the one that a killed target finishes. Raised when the bytes of a
/// frame would be read as something else than was written: a kind moved, a field was added. A new kind
/// at the end of its enum moves nothing; for it [`WIRE_VERSION`](super::WIRE_VERSION) alone is raised.
pub const FORMAT_VERSION: u8 = 4;

type Bounds<const MAX: usize> = Configuration<LittleEndian, Fixint, Limit<MAX>>;

fn bounds<const MAX: usize>() -> Bounds<MAX> {
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<MAX>()
}

/// Path of the op's object relative to the root of the set, as of the packet's position.
/// A cross-check and for people; empty where it is longer than [`PATH_LEN_MAX`].
pub type PathHint = Bounded<PATH_LEN_MAX>;

/// Header of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PacketHeader {
    pub path: PathHint,
    pub op: Op,
    pub to_whom: ToWhom,
}

/// Whether the target must have the object that an op is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum ToWhom {
    /// It must.
    #[default]
    AllOf,
    /// The source cannot tell whether one of its names is in the set: where it is not known the op is
    /// nothing.
    WhoKnows,
}

/// Header of a lane item.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ItemHeader {
    pub number: ItemNumber,
    pub item: LaneItem,
}

/// Header of a skip record: a run of packets that is not sent. The prefix's position is the
/// last of them, with its chain hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SkipHeader {
    /// The first packet that was left out.
    pub first: Sequence,
}

/// What a frame holds, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameHeader {
    Packet(PacketHeader),
    Skip(SkipHeader),
    Item(ItemHeader),
}

/// A frame as it was received: everything checked but not yet performed.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Packet: its position. Skip: the last skipped. Item: the position after which it is valid.
    pub position: Position,
    /// Of the header's bytes: a packet's position must be the one before, advanced by it.
    pub digest: HeaderDigest,
    pub header: FrameHeader,
    pub payload: Bytes,
    /// Of the payload, as the prefix has it.
    pub payload_hash: u64,
}

impl Frame {
    pub(super) fn set_payload(&mut self, payload: Bytes) {
        self.payload_hash = payload_hash(&payload, self.position.sequence);
        self.payload = payload;
    }

    /// As if it had been received.
    #[cfg(test)]
    pub(crate) fn new(
        position: Position,
        digest: HeaderDigest,
        header: FrameHeader,
        payload: Bytes,
    ) -> Frame {
        let payload_hash = payload_hash(&payload, position.sequence);
        Frame { position, digest, header, payload, payload_hash }
    }
}

/// An encoded frame: prefix and header in one buffer, the payload behind it.
#[derive(Clone, Debug)]
pub struct EncodedFrame {
    pub head: Bytes,
    pub payload: Bytes,
}

impl EncodedFrame {
    /// Bytes on the wire.
    pub fn len(&self) -> usize {
        self.head.len() + self.payload.len()
    }

    pub fn is_empty(&self) -> bool {
        false
    }

    /// The same frame with its payload compressed, which makes it shorter. Only for peers that offer it.
    pub fn packed(self, by: Packing, payload: Bytes) -> EncodedFrame {
        assert!(payload.len() < self.payload.len(), "a payload grows by its compression");
        let mut head = self.head.to_vec();
        head[20..24].copy_from_slice(&Packed::encode(Some(Packed { by, len: payload.len() })));
        let prefix: &[u8; PREFIX_LEN] = head.first_chunk().expect("a frame begins with its prefix");
        let crc = header_crc(prefix, &head[PREFIX_LEN..]);
        head[12..16].copy_from_slice(&crc.to_le_bytes());
        EncodedFrame { head: Bytes::from(head), payload }
    }

    /// What arrives of it in the same process. The payload, which nobody has touched, is not read again.
    pub fn decode(self) -> Result<Frame, CodecError> {
        let (bytes, header) = self.head.split_first_chunk().ok_or(CodecError::NotAFrame)?;
        let prefix = Prefix::decode(bytes)?;
        prefix.check_header(bytes, header)?;
        prefix.unchecked_frame(header, self.payload)
    }
}

/// Why bytes are not a frame or a message. Nothing of a connection is trusted after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodecError {
    NotAFrame,
    Version(u8),
    Kind(u8),
    /// A declared length beyond its bound: nothing was allocated.
    TooLong {
        what: &'static str,
        len: usize,
        max: usize,
    },
    HeaderChecksum,
    PayloadChecksum,
    /// Compressed, and not to what the prefix says, or where nothing may be compressed.
    Packing,
    Header(String),
    /// Bytes were left over behind the header.
    Trailing(usize),
}

impl std::fmt::Display for CodecError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CodecError::NotAFrame => write!(f, "not a frame"),
            CodecError::Version(version) => write!(f, "frame format version {version} is not known"),
            CodecError::Kind(kind) => write!(f, "frame kind {kind} is not known"),
            CodecError::TooLong { what, len, max } => {
                write!(f, "{what} of {len} bytes, over the bound of {max}")
            }
            CodecError::HeaderChecksum => write!(f, "header checksum is wrong"),
            CodecError::PayloadChecksum => write!(f, "payload checksum is wrong"),
            CodecError::Packing => write!(f, "compressed payload is not what its frame says"),
            CodecError::Header(why) => write!(f, "header cannot be decoded: {why}"),
            CodecError::Trailing(len) => write!(f, "{len} bytes left over behind a header"),
        }
    }
}

impl std::error::Error for CodecError {}

pub(super) const KIND_PACKET: u8 = 1;
pub(super) const KIND_SKIP: u8 = 2;
pub(super) const KIND_ITEM: u8 = 3;
pub(super) const KIND_NAMES: u8 = 4;

/// The first 64 bytes of a frame, decoded, with lengths within their bounds.
#[derive(Clone, Copy, Debug)]
pub struct Prefix {
    kind: u8,
    pub header_len: usize,
    pub payload_len: usize,
    header_crc: u32,
    pub position: Position,
    payload_hash: u64,
    /// How the payload travels, where not as it is.
    pub packed: Option<Packed>,
}

impl Prefix {
    /// Checks magic, version, kind and lengths, and that it is of a kind that is kept as it is. The checksum needs the header:
    /// [`Prefix::frame`].
    pub fn decode(bytes: &[u8; PREFIX_LEN]) -> Result<Prefix, CodecError> {
        let prefix = Prefix::from_wire(bytes)?;
        match prefix.packed {
            Some(_) => Err(CodecError::Packing),
            None if prefix.is_of_names() => Err(CodecError::Kind(prefix.kind)),
            None => Ok(prefix),
        }
    }

    /// As [`Prefix::decode`], of a frame as networks carry it: its payload may be compressed, it may be of names.
    pub fn from_wire(bytes: &[u8; PREFIX_LEN]) -> Result<Prefix, CodecError> {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        if bytes[..2] != MAGIC {
            return Err(CodecError::NotAFrame);
        }
        if bytes[2] != FORMAT_VERSION {
            return Err(CodecError::Version(bytes[2]));
        }
        if !matches!(bytes[3], KIND_PACKET | KIND_SKIP | KIND_ITEM | KIND_NAMES) {
            return Err(CodecError::Kind(bytes[3]));
        }
        let payload_len = within("payload", u32_at(8) as usize, PAYLOAD_LEN_MAX)?;
        Ok(Prefix {
            kind: bytes[3],
            header_len: within("header", u32_at(4) as usize, HEADER_LEN_MAX)?,
            payload_len,
            packed: Packed::decode(bytes[20..24].try_into().expect("4 bytes"), payload_len)?,
            header_crc: u32_at(12),
            position: Position {
                epoch: Epoch { number: u32_at(16), writer: u64_at(24) },
                incarnation: Incarnation(u64_at(32)),
                sequence: Sequence(u64_at(40)),
                chain: Chain(u64_at(48)),
            },
            payload_hash: u64_at(56),
        })
    }

    /// Bytes of the payload as it travels.
    pub fn wire_len(&self) -> usize {
        self.packed.map_or(self.payload_len, |packed| packed.len)
    }

    /// It has names of owners: [`Prefix::names`].
    pub fn is_of_names(&self) -> bool {
        self.kind == KIND_NAMES
    }

    /// Checks the checksum of the header and decodes it, which must be consumed whole. There is no payload.
    pub fn names(&self, prefix: &[u8; PREFIX_LEN], header: &[u8]) -> Result<OwnerNames, CodecError> {
        assert!(self.is_of_names(), "another frame is read as one of names");
        self.check_header(prefix, header)?;
        within("names", self.payload_len, 0)?;
        decode_whole::<_, HEADER_LEN_MAX>(header)
    }

    /// Checks both checksums and decodes the header, which must be consumed whole. `payload` as it is once more,
    /// however it has travelled.
    pub fn frame(
        &self,
        prefix: &[u8; PREFIX_LEN],
        header: &[u8],
        payload: Bytes,
    ) -> Result<Frame, CodecError> {
        assert_eq!(header.len(), self.header_len, "a header is decoded that its prefix does not announce");
        self.check_header(prefix, header)?;
        if payload.len() != self.payload_len
            || payload_hash(&payload, self.position.sequence) != self.payload_hash
        {
            return Err(CodecError::PayloadChecksum);
        }
        self.unchecked_frame(header, payload)
    }

    fn check_header(&self, prefix: &[u8; PREFIX_LEN], header: &[u8]) -> Result<(), CodecError> {
        match header_crc(prefix, header) == self.header_crc {
            true => Ok(()),
            false => Err(CodecError::HeaderChecksum),
        }
    }

    fn unchecked_frame(&self, header: &[u8], payload: Bytes) -> Result<Frame, CodecError> {
        let digest = HeaderDigest::of(header, payload.len());
        let header = match self.kind {
            KIND_PACKET => FrameHeader::Packet(decode_whole::<_, HEADER_LEN_MAX>(header)?),
            KIND_SKIP => FrameHeader::Skip(decode_whole::<_, HEADER_LEN_MAX>(header)?),
            KIND_NAMES => return Err(CodecError::Kind(self.kind)),
            _ => FrameHeader::Item(decode_whole::<_, HEADER_LEN_MAX>(header)?),
        };
        Ok(Frame { position: self.position, digest, header, payload, payload_hash: self.payload_hash })
    }
}

/// Encodes the header of a packet, before its position is known.
pub fn encode_packet_header(path: &[u8], op: &Op) -> Vec<u8> {
    encode_packet_header_to(path, op, ToWhom::AllOf)
}

/// As [`encode_packet_header`].
pub fn encode_packet_header_to(path: &[u8], op: &Op, to_whom: ToWhom) -> Vec<u8> {
    /// Borrowed twin of [`PacketHeader`]: the same bytes without a copy of the op.
    #[derive(Encode)]
    struct Borrowed<'a> {
        path: &'a [u8],
        op: &'a Op,
        to_whom: ToWhom,
    }
    let path = if path.len() > PATH_LEN_MAX { &[] } else { path };
    encode(&Borrowed { path, op, to_whom })
}

/// What [`encode_packet_header`] encoded.
pub fn decode_packet_header(header: &[u8]) -> Result<PacketHeader, CodecError> {
    decode_whole::<_, HEADER_LEN_MAX>(header)
}

/// A packet's frame. `header` comes from [`encode_packet_header`].
pub fn packet_frame(position: &Position, header: &[u8], payload: Bytes) -> EncodedFrame {
    frame(KIND_PACKET, position, header, payload)
}

/// The frame of a packet that was received, once more: its payload is not read for that.
pub fn same_packet_frame(received: &Frame, packet: &PacketHeader) -> EncodedFrame {
    let header = encode_packet_header_to(&packet.path.0, &packet.op, packet.to_whom);
    hashed_frame(KIND_PACKET, &received.position, &header, received.payload.clone(), received.payload_hash)
}

/// The frame of a lane item that is valid after `after`.
pub fn item_frame(after: &Position, header: &ItemHeader, payload: Bytes) -> EncodedFrame {
    frame(KIND_ITEM, after, &encode(header), payload)
}

/// The frame of a skip record from `first` to `last`. Targets take it; no source sends it yet.
pub fn skip_frame(first: Sequence, last: &Position) -> EncodedFrame {
    frame(KIND_SKIP, last, &encode(&SkipHeader { first }), Bytes::new())
}

/// A frame of names of owners.
pub fn names_frame(names: &OwnerNames) -> EncodedFrame {
    frame(KIND_NAMES, &Position::default(), &encode(names), Bytes::new())
}

/// A control message with its length before it (`u32`, little-endian).
pub fn encode_message<M: Encode>(message: &M) -> Vec<u8> {
    let body = encode(message);
    assert!(body.len() <= CONTROL_LEN_MAX, "a message of {} bytes, which no peer takes", body.len());
    let mut bytes = Vec::with_capacity(4 + body.len());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// Length of the message behind this prefix, within its bound.
pub fn message_len(prefix: [u8; 4]) -> Result<usize, CodecError> {
    within("message", u32::from_le_bytes(prefix) as usize, CONTROL_LEN_MAX)
}

/// A control message from its bytes (without the length).
pub fn decode_message<M: Decode<()>>(bytes: &[u8]) -> Result<M, CodecError> {
    decode_whole::<M, CONTROL_LEN_MAX>(bytes)
}

/// As [`decode_message`], and how many bytes it is.
pub(super) fn decode_first<M: Decode<()>>(bytes: &[u8]) -> Result<(M, usize), CodecError> {
    within("message", bytes.len(), CONTROL_LEN_MAX)?;
    bincode::decode_from_slice(bytes, bounds::<CONTROL_LEN_MAX>())
        .map_err(|error| CodecError::Header(error.to_string()))
}

pub(super) fn frame(kind: u8, position: &Position, header: &[u8], payload: Bytes) -> EncodedFrame {
    let hash = payload_hash(&payload, position.sequence);
    hashed_frame(kind, position, header, payload, hash)
}

fn hashed_frame(
    kind: u8,
    position: &Position,
    header: &[u8],
    payload: Bytes,
    payload_hash: u64,
) -> EncodedFrame {
    let mut head = Vec::with_capacity(PREFIX_LEN + header.len());
    head.extend_from_slice(&MAGIC);
    head.push(FORMAT_VERSION);
    head.push(kind);
    head.extend_from_slice(&(header.len() as u32).to_le_bytes());
    head.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    head.extend_from_slice(&[0; 4]);
    head.extend_from_slice(&position.epoch.number.to_le_bytes());
    head.extend_from_slice(&[0; 4]);
    head.extend_from_slice(&position.epoch.writer.to_le_bytes());
    head.extend_from_slice(&position.incarnation.0.to_le_bytes());
    head.extend_from_slice(&position.sequence.0.to_le_bytes());
    head.extend_from_slice(&position.chain.0.to_le_bytes());
    head.extend_from_slice(&payload_hash.to_le_bytes());
    let prefix: &[u8; PREFIX_LEN] = head.first_chunk().expect("the prefix was just written");
    let crc = header_crc(prefix, header);
    head[12..16].copy_from_slice(&crc.to_le_bytes());
    head.extend_from_slice(header);
    EncodedFrame { head: Bytes::from(head), payload }
}

fn header_crc(prefix: &[u8; PREFIX_LEN], header: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&prefix[..12]);
    let crc = crc32c::crc32c_append(crc, &prefix[16..56]);
    crc32c::crc32c_append(crc, header)
}

fn payload_hash(payload: &[u8], sequence: Sequence) -> u64 {
    xxh3_64_with_seed(payload, sequence.0)
}

fn encode<T: Encode>(value: &T) -> Vec<u8> {
    let config = bincode::config::standard().with_little_endian().with_fixed_int_encoding();
    bincode::encode_to_vec(value, config).expect("our own types encode into memory")
}

fn decode_whole<T: Decode<()>, const MAX: usize>(bytes: &[u8]) -> Result<T, CodecError> {
    within("header", bytes.len(), MAX)?;
    let (value, used) = bincode::decode_from_slice(bytes, bounds::<MAX>())
        .map_err(|error| CodecError::Header(error.to_string()))?;
    if used != bytes.len() {
        return Err(CodecError::Trailing(bytes.len() - used));
    }
    Ok(value)
}

fn within(what: &'static str, len: usize, max: usize) -> Result<usize, CodecError> {
    if len > max { Err(CodecError::TooLong { what, len, max }) } else { Ok(len) }
}
