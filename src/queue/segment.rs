//! The bytes of a segment: a header, then records, each a packet's frame as it travels.
//!
//! ```text
//! offset size  header of a segment, little-endian, 64 bytes
//!      0    8  magic "standinq"
//!      8    4  version of the format: 1
//!     12    4  crc32c of bytes 16..64
//!     16   40  position of the packet before the first one: epoch number (4), zero (4), epoch writer (8),
//!              incarnation (8), sequence number (8), chain hash (8)
//!     56    8  number of the segment
//!     64       records
//!
//! offset size  record
//!      0    8  when the packet was queued, nanoseconds since the queue began
//!      8    4  length of the record, bytes
//!     12    4  crc32c of bytes 0..12 and the sequence number of the packet
//!     16       the frame (packet::codec): prefix, header, payload
//! ```
//! No record is split. A segment is used again as a whole, so that older records stand behind its end: what is
//! read is believed only where the chain of positions leads there.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::behind::Volume;
use super::packet::{Packet, changes_names};
use crate::limits::{HEADER_LEN_MAX, PAYLOAD_LEN_MAX, QUEUE_DISK_MIN, QUEUE_SEGMENTS_MIN};
use crate::packet::{FrameHeader, PREFIX_LEN, Position, Prefix, packet_frame};

/// Where the records of a segment begin.
pub(super) const RECORDS_AT: u64 = 64;
pub(super) const MAGIC: &[u8; 8] = b"standinq";
pub(super) const VERSION: u32 = 1;
const STAMP_LEN: usize = 16;

/// The longest record, in bytes.
pub(super) const RECORD_LEN_MAX: usize = STAMP_LEN + PREFIX_LEN + HEADER_LEN_MAX + PAYLOAD_LEN_MAX;
const _: () = assert!(QUEUE_DISK_MIN / QUEUE_SEGMENTS_MIN >= RECORDS_AT + RECORD_LEN_MAX as u64);

/// The header of a segment whose first packet comes after `before`.
pub(super) fn header(before: &Position, number: u64) -> [u8; RECORDS_AT as usize] {
    let mut bytes = [0; RECORDS_AT as usize];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..20].copy_from_slice(&before.epoch.number.to_le_bytes());
    bytes[24..32].copy_from_slice(&before.epoch.writer.to_le_bytes());
    bytes[32..40].copy_from_slice(&before.incarnation.0.to_le_bytes());
    bytes[40..48].copy_from_slice(&before.sequence.0.to_le_bytes());
    bytes[48..56].copy_from_slice(&before.chain.0.to_le_bytes());
    bytes[56..].copy_from_slice(&number.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[16..]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Length of the record of a packet, in bytes.
pub(super) fn record_len(packet: &Packet) -> usize {
    STAMP_LEN + PREFIX_LEN + packet.header.len() + packet.payload.len()
}

/// Writes a record behind what is there. `began`: as for [`parse`].
pub(super) fn put(bytes: &mut Vec<u8>, packet: &Packet, began: Instant) {
    let since = packet.queued_at.saturating_duration_since(began);
    let nanoseconds = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    let len = u32::try_from(record_len(packet)).expect("header and payload are bounded");
    let at = bytes.len();
    bytes.extend_from_slice(&nanoseconds.to_le_bytes());
    bytes.extend_from_slice(&len.to_le_bytes());
    let crc = stamp_crc(&bytes[at..], packet.position.sequence.0);
    bytes.extend_from_slice(&crc.to_le_bytes());
    let frame = packet_frame(&packet.position, &packet.header, packet.payload.clone());
    bytes.extend_from_slice(&frame.head);
    bytes.extend_from_slice(&frame.payload);
}

fn stamp_crc(stamp: &[u8], sequence: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(stamp), &sequence.to_le_bytes())
}

/// Why there is no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoRecord {
    /// So many bytes show whether there is one.
    Needs(usize),
    /// What stands there is not the record after the one before.
    Damaged(String),
}

/// The record at the beginning of `bytes`, of the packet after `before`, and its length. Every byte of it is
/// checked.
pub(super) fn parse(bytes: &Bytes, before: &Position, began: Instant) -> Result<(Packet, usize), NoRecord> {
    const BEGIN_LEN: usize = STAMP_LEN + PREFIX_LEN;
    let damaged = |why: &dyn ToString| NoRecord::Damaged(why.to_string());
    let Some(begin) = bytes.first_chunk::<BEGIN_LEN>() else { return Err(NoRecord::Needs(BEGIN_LEN)) };
    let (stamp, prefix_bytes) = begin.split_first_chunk::<STAMP_LEN>().expect("it is longer");
    let prefix_bytes: &[u8; PREFIX_LEN] = prefix_bytes.try_into().expect("the rest is the prefix");
    let prefix = Prefix::decode(prefix_bytes).map_err(|error| damaged(&error))?;
    let u32_at = |at: usize| u32::from_le_bytes(stamp[at..at + 4].try_into().expect("4 bytes"));
    if stamp_crc(&stamp[..12], prefix.position.sequence.0) != u32_at(12) {
        return Err(damaged(&"the checksum before a frame is wrong"));
    }
    let len = BEGIN_LEN + prefix.header_len + prefix.payload_len;
    if len != u32_at(8) as usize {
        return Err(damaged(&"a record has another length than its frame"));
    }
    if bytes.len() < len {
        return Err(NoRecord::Needs(len));
    }
    let header = bytes.slice(BEGIN_LEN..BEGIN_LEN + prefix.header_len);
    let payload = bytes.slice(BEGIN_LEN + prefix.header_len..len);
    let frame = prefix.frame(prefix_bytes, &header, payload.clone()).map_err(|error| damaged(&error))?;
    let FrameHeader::Packet(decoded) = &frame.header else {
        return Err(damaged(&"a frame that is no packet"));
    };
    if before.next(frame.digest) != frame.position || before.sequence == frame.position.sequence {
        return Err(damaged(&format!("packet {} does not come after {before}", frame.position)));
    }
    let nanoseconds = u64::from_le_bytes(stamp[..8].try_into().expect("8 bytes"));
    let queued_at = began.checked_add(Duration::from_nanos(nanoseconds));
    let packet = Packet {
        position: frame.position,
        header,
        payload,
        queued_at: queued_at.ok_or_else(|| damaged(&"a moment that no clock has"))?,
        changes_names: changes_names(&decoded.op),
        before: Volume::default(),
    };
    Ok((packet, len))
}
