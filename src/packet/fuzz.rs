//! Every decoder of the wire, fed with damaged bytes whose checksums are right: no panic, no more
//! memory than the limits say, and what is understood is exactly what was said.

use bytes::Bytes;

use super::codec::{KIND_ITEM, KIND_PACKET, KIND_SKIP, frame};
use super::samples::{attributes, object};
use super::*;
use crate::limits::{CONTROL_LEN_MAX, HEADER_COST, HEADER_LEN_MAX};
use crate::mutation::{Damage, with_damage};
use crate::sys::allocated;

/// Errors have texts.
const TEXT: usize = 4096;

fn packets() -> Vec<Vec<u8>> {
    samples::ops().iter().map(|op| encode_packet_header(b"dir/file", op)).collect()
}

fn items() -> Vec<Vec<u8>> {
    let header = |item| encode_message(&ItemHeader { number: ItemNumber(5), item }).split_off(4);
    samples::items().into_iter().map(header).collect()
}

fn decode(bytes: &[u8]) -> Result<Frame, CodecError> {
    let raw: &[u8; PREFIX_LEN] = bytes.first_chunk().ok_or(CodecError::NotAFrame)?;
    let prefix = Prefix::decode(raw)?;
    let header = bytes[PREFIX_LEN..].get(..prefix.header_len).ok_or(CodecError::NotAFrame)?;
    let payload = Bytes::copy_from_slice(&bytes[PREFIX_LEN + prefix.header_len..]);
    prefix.frame(raw, header, payload)
}

fn encode(decoded: &Frame) -> EncodedFrame {
    let (position, payload) = (&decoded.position, decoded.payload.clone());
    match &decoded.header {
        FrameHeader::Packet(packet) => packet_frame(
            position,
            &encode_packet_header_to(&packet.path.0, &packet.op, packet.to_whom),
            payload,
        ),
        FrameHeader::Item(item) => item_frame(position, item, payload),
        FrameHeader::Skip(skip) => skip_frame(skip.first, position),
    }
}

fn join(frame: &EncodedFrame) -> Vec<u8> {
    [&frame.head[..], &frame.payload[..]].concat()
}

#[test]
fn damaged_headers_with_right_checksums() {
    let goldens = [packets(), items(), vec![7u64.to_le_bytes().to_vec()]];
    let all = goldens.concat();
    let mut understood = 0;
    with_damage(60_000, |damage: &mut Damage| {
        let which = damage.below(3);
        let kind = [KIND_PACKET, KIND_ITEM, KIND_SKIP][which];
        let good = damage.pick(&goldens[which]).clone();
        let header = damage.damaged(&good, &all);
        let position = Position { sequence: Sequence(damage.number()), ..Position::default() };
        let payload = if kind == KIND_SKIP { Bytes::new() } else { Bytes::from_static(b"payload") };
        let bytes = join(&frame(kind, &position, &header, payload));
        let (decoded, memory) = allocated(|| decode(&bytes));
        let most = HEADER_LEN_MAX + HEADER_COST * header.len() + TEXT;
        assert!(memory.peak <= most, "{memory:?} for {} bytes", header.len());
        match decoded {
            Ok(decoded) => {
                understood += 1;
                assert!(memory.held <= HEADER_COST * header.len() + TEXT, "{memory:?}");
                assert_eq!(join(&encode(&decoded)), bytes, "said and understood differ");
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
    assert!(understood > 1000 || std::env::var_os("STANDIN_TEST_SEED").is_some(), "{understood}");
}

#[test]
fn damaged_frames_as_they_come() {
    let position = Position { sequence: Sequence(3), ..Position::default() };
    let goldens: Vec<Vec<u8>> = packets()
        .iter()
        .map(|header| join(&packet_frame(&position, header, Bytes::from_static(b"payload"))))
        .collect();
    with_damage(40_000, |damage| {
        let good = damage.pick(&goldens).clone();
        let bytes = damage.damaged(&good, &goldens);
        let (decoded, memory) = allocated(|| decode(&bytes));
        assert!(memory.peak <= HEADER_LEN_MAX + HEADER_COST * bytes.len() + TEXT, "{memory:?}");
        assert!(decoded.is_err() || goldens.contains(&bytes), "damage went unnoticed");
    });
}

/// The smallest attributes there are: what [`HEADER_COST`] is for.
#[test]
fn memory_of_a_header_is_bounded_by_its_bytes() {
    for (name, value, pieces) in [
        (vec![], vec![], 0),
        (vec![b'u'], vec![], 1),
        (vec![b'u'], vec![1], 2),
        (vec![b'u'; 9], vec![1; 9], 2),
    ] {
        let xattr = Xattr { name: Bounded(name), value: Bounded(value) };
        let item =
            LaneItem::Root { object: object(1), attributes: attributes(), xattrs: vec![xattr; 20_000] };
        let header = ItemHeader { number: ItemNumber(1), item };
        let bytes = join(&item_frame(&Position::default(), &header, Bytes::new()));
        let (decoded, memory) = allocated(|| decode(&bytes));
        assert!(decoded.is_ok(), "{decoded:?}");
        // The allocator makes 32 bytes of each piece.
        let rounding = 20_000 * 31 * pieces;
        assert!(memory.held + rounding <= HEADER_COST * bytes.len(), "{memory:?} for {} bytes", bytes.len());
    }
}

fn check_messages<M>(goldens: &[M])
where
    M: bincode::Encode + bincode::Decode<()> + std::fmt::Debug,
{
    let goldens: Vec<Vec<u8>> = goldens.iter().map(|golden| encode_message(golden).split_off(4)).collect();
    with_damage(30_000, |damage| {
        let good = damage.pick(&goldens).clone();
        let bytes = damage.damaged(&good, &goldens);
        let (decoded, memory) = allocated(|| decode_message::<M>(&bytes));
        assert!(memory.peak <= CONTROL_LEN_MAX + 2 * bytes.len() + TEXT, "{memory:?} for {}", bytes.len());
        if let Ok(message) = decoded {
            assert_eq!(encode_message(&message)[4..], bytes, "said and understood differ: {message:?}");
        }
    });
}

#[test]
fn damaged_control_messages_of_sources() {
    check_messages(&samples::source_messages());
}

#[test]
fn damaged_control_messages_of_targets() {
    check_messages(&samples::target_messages());
}

#[test]
fn damaged_pairing_messages() {
    check_messages(&samples::pairing_requests());
    check_messages(&samples::pairing_answers());
}
