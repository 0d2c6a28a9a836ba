//! Every decoder of the wire, fed with damaged bytes whose checksums are right: no panic, no more
//! memory than the limits say, and what is understood is exactly what was said.

use bytes::Bytes;

use super::codec::{KIND_ITEM, KIND_PACKET, KIND_SKIP, frame};
use super::*;
use crate::limits::{CONTROL_LEN_MAX, HEADER_COST, HEADER_LEN_MAX};
use crate::mutation::{Damage, with_damage};
use crate::sys::allocated;

/// Errors have texts.
const TEXT: usize = 4096;

fn object(inode: u64) -> ObjectId {
    ObjectId { birth_epoch: 1, generation: 2, inode }
}

fn attributes() -> Attributes {
    Attributes { mode: 0o644, uid: 1, gid: 2, mtime: Timestamp { seconds: 3, nanoseconds: 4 } }
}

fn xattrs() -> Vec<Xattr> {
    (0..3).map(|n| Xattr { name: Bounded(b"user.x".to_vec()), value: Bounded(vec![n; 20]) }).collect()
}

fn entry(name: &str) -> Entry {
    Entry { dir: object(9), name: Name::new(name.as_bytes()).unwrap() }
}

/// Every op, encoded with a path.
fn packets() -> Vec<Vec<u8>> {
    let (mtime, result) =
        (attributes().mtime, ContentResult { size: 9, mtime: attributes().mtime, mode: Some(7) });
    let create = |birth| Op::Create {
        at: entry("new"),
        dir_mtime: mtime,
        object: object(1),
        birth,
        attributes: attributes(),
        xattrs: xattrs(),
    };
    let name = Bounded(b"user.x".to_vec());
    let ops = vec![
        create(Birth::File),
        create(Birth::Symlink { target: Bounded(b"../there".to_vec()) }),
        create(Birth::CharDevice { major: 1, minor: 3 }),
        Op::Link { object: object(1), at: entry("l"), dir_mtime: mtime, links: 2 },
        Op::Unlink { at: entry("l"), dir_mtime: mtime, object: object(1), links: 1 },
        Op::RemoveDirectory { at: entry("d"), dir_mtime: mtime, object: object(1) },
        Op::Rename {
            from: entry("a"),
            from_mtime: mtime,
            to: entry("b"),
            to_mtime: mtime,
            object: object(1),
            object_mtime: Some(mtime),
            replaced: Some(Replaced { object: object(2), links: 0 }),
            whiteout: Some(Whiteout { object: object(3), attributes: attributes() }),
        },
        Op::Exchange {
            left: entry("a"),
            left_mtime: mtime,
            left_object: object(1),
            left_object_mtime: Some(mtime),
            right: entry("b"),
            right_mtime: mtime,
            right_object: object(2),
            right_object_mtime: None,
        },
        Op::Write { object: object(1), offset: 4096, result },
        Op::Resize { object: object(1), result },
        Op::Reserve { object: object(1), offset: 1, length: 2, how: Reserve::PunchHole, result },
        Op::SetAttributes {
            object: object(1),
            mode: Some(1),
            owner: Some(Owner { uid: 1, gid: 2 }),
            mtime: Some(mtime),
        },
        Op::SetXattr { object: object(1), name: name.clone(), mode: None },
        Op::RemoveXattr { object: object(1), name, mode: Some(1) },
        Op::Barrier { durable: true },
    ];
    ops.iter().map(|op| encode_packet_header(b"dir/file", op)).collect()
}

fn items() -> Vec<Vec<u8>> {
    let listed = |name: &str| ListedObject {
        name: Name::new(name.as_bytes()).unwrap(),
        object: object(1),
        birth: Birth::File,
        attributes: attributes(),
        xattrs: xattrs(),
        large_xattrs: false,
        size: 5,
        links: 1,
        suspect: false,
    };
    let entries = vec![listed("a"), listed("b"), listed("c")];
    let name = Bounded(b"user.x".to_vec());
    let items = [
        LaneItem::Begin,
        LaneItem::Root { object: object(1), attributes: attributes(), xattrs: xattrs() },
        LaneItem::Listing { dir: object(1), dir_mtime: attributes().mtime, entries, last: true },
        LaneItem::OpenContent { object: object(1) },
        LaneItem::Content { object: object(1), hole: 2, offset: 7 },
        LaneItem::CloseContent {
            object: object(1),
            hole: 0,
            size: 1,
            attributes: attributes(),
            xattrs: xattrs(),
        },
        LaneItem::Unreadable { dir: object(1), names: Unlisted::These(vec![Name::new(b"a").unwrap()]) },
        LaneItem::Unreadable { dir: object(1), names: Unlisted::TheRest },
        LaneItem::Xattrs { object: object(1), attributes: attributes(), names: vec![name.clone()] },
        LaneItem::Xattr { object: object(1), name },
        LaneItem::Attributes { object: object(1), attributes: attributes() },
        LaneItem::Leave { object: object(1) },
        LaneItem::LeftOut { left_out: LeftOut { count: 2, named: vec![Text::from_str_cut("a")] } },
        LaneItem::End,
    ];
    let header = |item| encode_message(&ItemHeader { number: ItemNumber(5), item }).split_off(4);
    items.into_iter().map(header).collect()
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
        FrameHeader::Packet(packet) => {
            packet_frame(position, &encode_packet_header(&packet.path.0, &packet.op), payload)
        }
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
    let text = Text::from_str_cut("web");
    check_messages(&[
        SourceMessage::Hello {
            version_oldest: 1,
            version: 2,
            features: Features(3),
            set: SetId(4),
            set_name: text,
            last: Position::default(),
            oldest: Sequence(5),
        },
        SourceMessage::StreamFrom { after: Position::default() },
        SourceMessage::MakeDurable,
        SourceMessage::Goodbye,
        SourceMessage::Relief { objects: (0..20).map(object).collect() },
        SourceMessage::Diverged { reason: Text::from_str_cut("write: no space") },
    ]);
}

#[test]
fn damaged_control_messages_of_targets() {
    let text = Text::from_str_cut("a reason");
    check_messages(&[
        TargetMessage::Welcome { version: 1, features: Features(0), proof: ReplicaProof::default() },
        TargetMessage::Refused { reason: text.clone() },
        TargetMessage::Acknowledge { received: Sequence(3), applied: Sequence(2), durable: Sequence(1) },
        TargetMessage::Wanted { listing: ItemNumber(1), objects: (0..20).map(object).collect() },
        TargetMessage::Resynchronised {
            end: ItemNumber(1),
            orphans: 2,
            left_out: LeftOut { count: 3, named: vec![Text::from_str_cut("a")] },
        },
        TargetMessage::Retrying {
            sequence: Sequence(1),
            op: text.clone(),
            reason: text.clone(),
            attempts: 2,
            stuck: Stuck::Full,
        },
        TargetMessage::Data { state: DataState::Bad, reason: text.clone(), aside: 1 },
        TargetMessage::SetAside { path: text.clone(), op: text.clone(), reason: text, since_ms: 3 },
        TargetMessage::Recovered { sequence: Sequence(1) },
        TargetMessage::Withheld(WithheldCounts { devices: 1, setuid_bits: 2, security_xattrs: 3, times: 4 }),
    ]);
}

#[test]
fn damaged_pairing_messages() {
    let set_name = Text::from_str_cut("web");
    check_messages(&[PairingRequest { version: 1, token: 2, set_name, proof: [7; 32] }]);
    let reason = Text::from_str_cut("expired");
    check_messages(&[PairingAnswer::Paired, PairingAnswer::Refused { reason }]);
}
