//! Bytes of a generation: what is read of what was written, torn or damaged.

use super::super::record::{Entry, HEAD, Head, RECORD};
use super::object;
use crate::packet::{Sequence, Timestamp};

const HEAD_OF: Head =
    Head { log: 77, generation: 3, begins: Timestamp { seconds: 1_700_000_000, nanoseconds: 9 } };

/// Two writes before the last one, which has three records.
fn written() -> (Vec<Entry>, Vec<u8>) {
    let hot = |inode| Entry::Hot(object(inode));
    let writes: [&[Entry]; 3] = [
        &[Entry::Ceiling(Sequence(1))],
        &[hot(10), hot(11)],
        &[hot(12), Entry::Ceiling(Sequence(7)), hot(13)],
    ];
    let mut raw = vec![0; 16 * RECORD];
    let mut number = 0;
    for write in writes {
        let first = number;
        for entry in write {
            let at = number as usize * RECORD;
            raw[at..at + RECORD].copy_from_slice(&HEAD_OF.record(number, first, entry));
            number += 1;
        }
    }
    (writes.concat(), raw)
}

#[test]
fn what_was_written_is_read() {
    let (entries, raw) = written();
    assert_eq!(HEAD_OF.recover(&raw), Ok(entries));
    assert_eq!(Head::decode(&HEAD_OF.encode()), Some(HEAD_OF));
    let other = Head { generation: 4, ..HEAD_OF };
    assert!(other.recover(&raw).is_err(), "records of another generation");
}

/// Any part of a write may come to a disk, sector by sector: nobody has gone on because of it.
#[test]
fn a_torn_write_is_cut() {
    let (entries, raw) = written();
    for kept in 0..8 {
        let mut torn = raw.clone();
        for record in (0..3).filter(|record| kept >> record & 1 == 0) {
            torn[(3 + record) * RECORD..(4 + record) * RECORD].fill(0);
        }
        let recovered = HEAD_OF.recover(&torn).expect("a torn write is no damage");
        assert_eq!(recovered[..3], entries[..3], "{kept:03b}");
        assert_eq!(recovered, entries[..recovered.len()], "{kept:03b}");
    }
}

/// What was synced once and is not there any more makes it no log.
#[test]
fn damage_is_never_taken_for_the_end() {
    let (_, raw) = written();
    let last = 5 * RECORD..6 * RECORD;
    let middle = RECORD..2 * RECORD;
    for at in last.chain(middle.clone()) {
        for flip in [1, 0x80, 0xff] {
            let mut damaged = raw.clone();
            damaged[at] ^= flip;
            assert!(HEAD_OF.recover(&damaged).is_err(), "byte {at} ^ {flip:02x}");
        }
    }
    let mut lost = raw;
    lost[middle].fill(0);
    assert!(HEAD_OF.recover(&lost).is_err(), "a record of an earlier write is gone");
}

#[test]
fn a_damaged_head_is_none() {
    let raw = HEAD_OF.encode();
    for at in 0..HEAD {
        let mut damaged = raw;
        damaged[at] ^= 0x10;
        assert!(Head::decode(&damaged).is_none(), "byte {at}");
    }
}
