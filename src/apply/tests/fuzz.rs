//! Small files of a replica, damaged: no panic, no more memory than a page or two, and either an
//! error value or values that were once written.

use std::{fs, io};

use super::*;
use crate::apply::replica::INDEX_GROWTH;
use crate::apply::replica::slot::SlotFile;
use crate::apply::replica::times::Times;
use crate::mutation::with_damage;
use crate::sys::{FileHandle, allocated};

/// A read buffer of the index, and the text of an error.
const MEMORY_MAX: usize = 128 * 1024;

fn id(inode: u64) -> ObjectId {
    ObjectId { birth_epoch: 1, generation: 2, inode }
}

fn handle(inode: u64) -> FileHandle {
    FileHandle::from_parts(1, &inode.to_le_bytes()).unwrap()
}

#[test]
fn a_damaged_index_gives_what_was_put_in_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let mut index = Index::create_alike(&path, 1).unwrap();
    (0..500).for_each(|inode| index.insert(id(inode), handle(inode)).unwrap());
    drop(index);
    // Small enough to be damaged often: header, and the first slots.
    let good = fs::read(&path).unwrap();
    let (mut opened, mut refused) = (0, 0);
    with_damage(300, |damage| {
        let head = damage.damaged(&good[..64], &[]);
        let slots = damage.damaged(&good[4096..4096 + 64 * 512], &[good[..4096].to_vec()]);
        let mut bytes = good.clone();
        // The first words are checked by a hash: mostly left alone, so that the slots are read.
        if damage.below(4) == 0 {
            let len = head.len().min(4096);
            bytes[..len].copy_from_slice(&head[..len]);
        } else {
            bytes[40..56].copy_from_slice(&damage.pick(&[[0xff; 16], [0; 16]])[..]);
        }
        bytes.truncate(4096);
        bytes.extend(slots);
        if damage.below(3) > 0 {
            bytes.resize(good.len(), damage.below(256) as u8);
        }
        fs::write(&path, &bytes).unwrap();
        let (read, memory) = allocated(|| {
            let index = Index::open(&path)?;
            for inode in 0..600 {
                let found = index.get(id(inode))?;
                assert!(found.is_none_or(|found| found == handle(inode)), "{inode}: {found:?}");
            }
            index.for_each(|_, _| Ok(()))?;
            io::Result::Ok(index)
        });
        assert!(memory.peak <= MEMORY_MAX, "{memory:?}");
        // Where the damage fills it up, it grows.
        let (changed, memory) = allocated(|| {
            let mut index = read?;
            index.insert(id(1000), handle(1000))?;
            assert_eq!(index.get(id(1000))?, Some(handle(1000)));
            index.remove(id(3)).map(drop)
        });
        assert!(memory.peak <= MEMORY_MAX + INDEX_GROWTH, "{memory:?}");
        match changed {
            Ok(()) => opened += 1,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
                refused += 1;
            }
        }
    });
    assert!(opened > 30 && refused > 30 || opened + refused < 2, "{opened} opened, {refused} refused");
}

#[test]
fn a_damaged_slot_file_gives_a_document_that_was_written_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("slot");
    let (mut slot, _) = SlotFile::<String>::open(&path).unwrap();
    let documents = ["first".to_owned(), "second".repeat(100), "third".to_owned()];
    documents.iter().for_each(|document| slot.write(document).unwrap());
    drop(slot);
    let good = fs::read(&path).unwrap();
    with_damage(300, |damage| {
        let bytes = damage.damaged(&good, &[]);
        fs::write(&path, &bytes).unwrap();
        let (opened, memory) = allocated(|| SlotFile::<String>::open(&path));
        assert!(memory.peak <= MEMORY_MAX, "{memory:?}");
        let (mut slot, found) = opened.unwrap();
        assert!(found.is_none_or(|found| documents.contains(&found)));
        slot.write(&"new".to_owned()).unwrap();
        assert_eq!(SlotFile::<String>::open(&path).unwrap().1.as_deref(), Some("new"));
    });
}

#[test]
fn a_damaged_log_of_times_gives_times_that_were_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("times");
    let time = |inode| Timestamp { seconds: inode as i64, nanoseconds: 7 };
    let mut times = Times::open(&path, true).unwrap();
    (0..200).for_each(|inode| times.add(id(inode), time(inode)));
    times.log().unwrap();
    drop(times);
    let good = fs::read(&path).unwrap();
    with_damage(1000, |damage| {
        fs::write(&path, damage.damaged(&good, &[])).unwrap();
        let (times, memory) = allocated(|| Times::open(&path, true).unwrap());
        assert!(memory.peak <= MEMORY_MAX, "{memory:?}");
        assert!(
            times.pending().iter().all(|(found, at)| (*found, *at) == (id(found.inode), time(found.inode)))
        );
    });
}
