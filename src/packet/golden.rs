//! The bytes on the wire are a promise: what stands in `golden.txt` changes only with the version of
//! the wire, and every kind of everything stands there.

use std::collections::BTreeSet;
use std::fmt::Debug;

use bincode::error::{AllowedEnumVariants, DecodeError};
use bincode::{Decode, Encode};
use bytes::Bytes;

use super::*;

/// A kind that takes the place of another one would be taken for it by an older host, and by the
/// record of the op that was being performed.
#[test]
fn golden_bytes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/packet/golden.txt");
    let (now, kept) = (all_lines(), std::fs::read_to_string(path).unwrap());
    for (now, kept) in now.lines().zip(kept.lines()) {
        assert_eq!(now, kept, "what was sent once is read for ever, or the version of the wire changes");
    }
    assert_eq!(now.lines().count(), kept.lines().count(), "every kind has its line in golden.txt:\n{now}");
}

fn all_lines() -> String {
    let header = encode_packet_header(b"f", &samples::ops()[0]);
    let item = ItemHeader { number: ItemNumber(5), item: LaneItem::End };
    let mut lines = vec![
        frame_line("packet", &packet_frame(&samples::position(), &header, Bytes::from_static(b"x"))),
        frame_line(
            "packed packet",
            &packet_frame(&samples::position(), &header, Bytes::from(vec![7; COMPRESSED_MIN]))
                .packed(Packing::Zstandard, Bytes::from_static(b"not really")),
        ),
        frame_line("item", &item_frame(&samples::position(), &item, Bytes::from_static(b"y"))),
        frame_line("skip", &skip_frame(Sequence(4), &samples::position())),
        frame_line("names", &names_frame(&samples::names())),
    ];
    lines.extend(lines_of("birth", &samples::births()));
    lines.extend(lines_of("reserve", &samples::reserves()));
    lines.extend(lines_of("keeping", &samples::keepings()));
    lines.extend(lines_of("op", &samples::ops()));
    lines.extend(lines_of("block hash", &samples::block_hashes()));
    lines.extend(lines_of("difference", &samples::difference_kinds()));
    lines.extend(lines_of("unlisted", &samples::unlisted()));
    lines.extend(lines_of("orphan rule", &samples::orphan_rules()));
    lines.extend(lines_of("item", &samples::items()));
    lines.extend(lines_of("data state", &samples::data_states()));
    lines.extend(lines_of("bad by", &samples::bad_bys()));
    lines.extend(lines_of("stuck", &samples::stucks()));
    lines.extend(lines_of("standing", &samples::standings()));
    lines.extend(lines_of("of a copy", &samples::said_of_copies()));
    lines.extend(lines_of("source says", &samples::source_messages()));
    lines.extend(lines_of("target says", &samples::target_messages()));
    lines.extend(samples::pairing_requests().iter().map(|request| line("pairing", request)));
    lines.extend(lines_of("pairing answer", &samples::pairing_answers()));
    lines.join("\n")
}

fn frame_line(what: &str, frame: &EncodedFrame) -> String {
    format!("frame, {what}: {}", hex(&[&frame.head[..], &frame.payload[..]].concat()))
}

/// All samples of an enum, its first kind first. Every kind must have one.
fn lines_of<T: Encode + Decode<()> + Debug>(what: &str, samples: &[T]) -> Vec<String> {
    let mut samples: Vec<(u32, &T)> = samples.iter().map(|sample| (kind_of(sample), sample)).collect();
    samples.sort_by_key(|&(kind, _)| kind);
    let seen: BTreeSet<u32> = samples.iter().map(|&(kind, _)| kind).collect();
    let all: BTreeSet<u32> = (0..=last_kind::<T>()).collect();
    assert_eq!(seen, all, "a kind of `{what}` has no sample in samples.rs");
    samples.into_iter().map(|(_, sample)| line(what, sample)).collect()
}

fn line<T: Encode + Debug>(what: &str, sample: &T) -> String {
    let text = format!("{sample:?}");
    let name = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    format!("{what} {name}: {}", hex(&encode_message(sample)[4..]))
}

/// The number of its kind, as it travels.
fn kind_of<T: Encode>(sample: &T) -> u32 {
    u32::from_le_bytes(*encode_message(sample)[4..].first_chunk().unwrap())
}

/// The highest number that the decoder takes.
fn last_kind<T: Decode<()>>() -> u32 {
    let config = bincode::config::standard().with_little_endian().with_fixed_int_encoding();
    match bincode::decode_from_slice::<T, _>(&u32::MAX.to_le_bytes(), config) {
        Err(DecodeError::UnexpectedVariant {
            allowed: AllowedEnumVariants::Range { min: 0, max }, ..
        }) => *max,
        other => panic!("{:?}", other.map(|_| "no such kind was taken").err()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
