//! The log gives back what was written, and nothing of what is torn.

use std::fs::OpenOptions;

use crate::clone::looks::Looks;
use crate::clone::records::{Log, Record};
use crate::sys::FileHandle;

fn records() -> Vec<Record> {
    let handle = |byte: u8| FileHandle::from_parts(1, &[byte; 12]).unwrap();
    let looks = Looks {
        mode: 0o100_644,
        uid: 7,
        gid: 8,
        size: 1 << 40,
        mtime: (-5, 999_999_999),
        links: 3,
        device: 259 << 8,
        xattrs: vec![(b"user.x".to_vec(), vec![0; 300]), (b"user.y".to_vec(), Vec::new())],
    };
    vec![
        Record::Name { dir: handle(1), name: b"a\xff".as_slice().into(), held: Some(handle(2)) },
        Record::Name { dir: handle(1), name: b"b".as_slice().into(), held: None },
        Record::Looks { object: handle(2), looks },
        Record::Content { object: handle(2), from: 4096, to: u64::MAX },
        Record::Born { object: handle(3) },
    ]
}

#[test]
fn whatever_is_cut_off_what_is_whole_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records");
    let mut log = Log::create(&path).unwrap();
    let mut ends = vec![log.len()];
    for record in records() {
        log.add(&record).unwrap();
        ends.push(log.len());
    }
    let all = std::fs::read(&path).unwrap();
    assert_eq!(all.len() as u64, log.len());
    for len in ends[0]..=log.len() {
        std::fs::write(&path, &all[..len as usize]).unwrap();
        let mut found = Vec::new();
        let mut log = Log::open(&path, |record| found.push(record)).unwrap();
        let whole = ends.iter().filter(|end| **end <= len).count() - 1;
        assert_eq!(found, records()[..whole], "{len} bytes");
        // What comes next stands behind what was whole.
        log.add(&records()[4]).unwrap();
        let mut count = 0;
        Log::open(&path, |_| count += 1).unwrap();
        assert_eq!(count, whole + 1);
    }
}

#[test]
fn what_is_damaged_or_no_log_is_refused() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records");
    let mut log = Log::create(&path).unwrap();
    let first = log.len();
    records().iter().for_each(|record| log.add(record).unwrap());
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"!", first + 12).unwrap();
    assert!(Log::open(&path, |_| ()).is_err());
    for none in [&b""[..], b"standin clone 2\n", b"standin"] {
        std::fs::write(&path, none).unwrap();
        assert!(Log::open(&path, |_| ()).is_err(), "{none:?}");
    }
}
