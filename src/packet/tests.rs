use bytes::Bytes;

use super::samples::position;
use super::*;

fn write() -> Op {
    Op::Write {
        object: ObjectId { birth_epoch: 1, generation: 2, inode: 3 },
        offset: 4096,
        result: ContentResult {
            size: 8192,
            mtime: Timestamp { seconds: -1, nanoseconds: 5 },
            mode: Some(0o644),
        },
    }
}

fn join(frame: &EncodedFrame) -> Vec<u8> {
    [&frame.head[..], &frame.payload[..]].concat()
}

fn parse(bytes: &[u8]) -> Result<Frame, CodecError> {
    let prefix: &[u8; PREFIX_LEN] = bytes.first_chunk().ok_or(CodecError::NotAFrame)?;
    let decoded = Prefix::decode(prefix)?;
    let header = &bytes[PREFIX_LEN..PREFIX_LEN + decoded.header_len];
    decoded.frame(prefix, header, Bytes::copy_from_slice(&bytes[PREFIX_LEN + decoded.header_len..]))
}

#[test]
fn a_packet_comes_back_as_it_was_sent() {
    let header = encode_packet_header(b"dir/file", &write());
    let sent = packet_frame(&position(), &header, Bytes::from_static(b"payload"));
    let frame = parse(&join(&sent)).unwrap();
    assert_eq!(frame.position, position());
    assert_eq!(frame.payload, "payload");
    let FrameHeader::Packet(packet) = frame.header else { panic!("not a packet") };
    assert_eq!(packet.op, write());
    assert_eq!(packet.path.0, b"dir/file");
}

#[test]
fn every_flipped_bit_is_noticed() {
    let header = encode_packet_header(b"dir/file", &write());
    let good = join(&packet_frame(&position(), &header, Bytes::from_static(b"payload")));
    for at in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[at / 8] ^= 1 << (at % 8);
        let outcome = std::panic::catch_unwind(|| match Prefix::decode(bad.first_chunk().unwrap()) {
            Ok(prefix) if PREFIX_LEN + prefix.header_len > bad.len() => Err(CodecError::NotAFrame),
            Ok(_) => parse(&bad).map(|_| ()),
            Err(error) => Err(error),
        });
        assert!(matches!(outcome, Ok(Err(_))), "bit {at} went unnoticed");
    }
}

#[test]
fn lengths_are_refused_before_anything_is_allocated() {
    let header = encode_packet_header(b"", &write());
    let mut bytes = join(&packet_frame(&position(), &header, Bytes::new()));
    bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = Prefix::decode(bytes.first_chunk().unwrap()).unwrap_err();
    assert!(matches!(error, CodecError::TooLong { what: "payload", .. }), "{error}");
    assert!(matches!(message_len(u32::MAX.to_le_bytes()), Err(CodecError::TooLong { .. })));
}

/// A 44-byte packet once made bincode ask for 8 GB: a list's length is bounded by the limit.
#[test]
fn a_declared_list_does_not_allocate_beyond_the_limit() {
    let mut bytes = 3u32.to_le_bytes().to_vec();
    bytes.extend_from_slice(&1u64.to_le_bytes());
    bytes.extend_from_slice(&(1u64 << 40).to_le_bytes());
    assert!(decode_message::<TargetMessage>(&bytes).is_err());
}

#[test]
fn bytes_behind_a_message_are_refused() {
    let mut bytes = encode_message(&SourceMessage::Goodbye);
    bytes.push(0);
    assert_eq!(decode_message::<SourceMessage>(&bytes[4..]), Err(CodecError::Trailing(1)));
}

#[test]
fn names_are_checked_at_the_border() {
    let name = Name::new(b"\xff not utf-8").unwrap();
    let mut op = Op::RemoveDirectory {
        at: Entry { dir: ObjectId::default(), name },
        dir_mtime: Timestamp::default(),
        object: ObjectId::default(),
    };
    for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 256]] {
        assert_eq!(Name::new(bad), Err(BadName));
    }
    let header = encode_packet_header(b"", &op);
    let with_slash: Vec<u8> = header.iter().map(|&b| if b == b' ' { b'/' } else { b }).collect();
    let frame = join(&packet_frame(&position(), &with_slash, Bytes::new()));
    assert!(matches!(parse(&frame), Err(CodecError::Header(_))));
    let Op::RemoveDirectory { at, .. } = &mut op else { unreachable!() };
    assert_eq!(at.name.as_bytes(), b"\xff not utf-8");
}

/// To the kernel they are orders. One in an item kept a copy from its end, for ever.
#[test]
fn a_time_that_is_none_is_refused_at_the_border() {
    for (nanoseconds, is_one) in
        [(999_999_999, true), (1_000_000_000, false), (0x3fff_fffe, false), (u32::MAX, false)]
    {
        let mtime = Timestamp { seconds: 5, nanoseconds };
        let attributes = Attributes { mode: 0o644, uid: 0, gid: 0, mtime };
        let object = ObjectId::default();
        let op = Op::SetAttributes { object, mode: None, owner: None, mtime: Some(mtime) };
        let packet = packet_frame(&position(), &encode_packet_header(b"", &op), Bytes::new());
        let item = LaneItem::CloseContent { object, hole: 0, size: 0, attributes, xattrs: Vec::new() };
        let item = item_frame(&position(), &ItemHeader { number: ItemNumber(1), item }, Bytes::new());
        for frame in [packet, item] {
            let parsed = parse(&join(&frame));
            assert_eq!(parsed.is_ok(), is_one, "{parsed:?}");
        }
    }
    // What a source shows of a damaged inode everybody takes.
    assert_eq!(Timestamp::of_status(5, 0x3fff_ffff), Timestamp { seconds: 5, nanoseconds: 999_999_999 });
}

#[test]
fn a_path_beyond_the_bound_travels_without_it() {
    let header = encode_packet_header(&[b'x'; 5000], &write());
    let frame = parse(&join(&packet_frame(&position(), &header, Bytes::new()))).unwrap();
    let FrameHeader::Packet(packet) = frame.header else { panic!("not a packet") };
    assert!(packet.path.0.is_empty());
}

#[test]
fn what_anybody_may_have_named_orders_a_terminal_nothing() {
    let name = "a\u{1b}]0;x\u{7}\r\u{9b}31m\u{202e}b\nthe replica is identical";
    let shown = super::printable(name.as_bytes());
    assert!(!shown.chars().any(|c| c.is_control() || c == '\u{202e}'), "{shown:?}");
    assert!(
        shown.starts_with("a\u{fffd}]0;x") && shown.ends_with("b\u{fffd}the replica is identical"),
        "{shown:?}"
    );
    assert_eq!(super::printable_lines(name), shown.replace("b\u{fffd}the", "b\nthe"));
    assert_eq!(super::printable("größe 大\u{301}".as_bytes()), "größe 大\u{301}");
}
