//! An index is a map, whatever dies.

use super::*;
use std::collections::HashMap;

fn id(number: u64) -> ObjectId {
    ObjectId { birth_epoch: 1, generation: number as u32 ^ 7, inode: number }
}

fn handle(number: u64) -> FileHandle {
    FileHandle::from_parts(1, &number.to_le_bytes()).unwrap()
}

#[test]
fn random_changes_agree_with_a_map() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let mut index = Index::open(&path).unwrap();
    let mut model = HashMap::new();
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    for step in 0..60_000u64 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let number = (random >> 33) % 12_000;
        if random >> 62 == 0 {
            assert_eq!(index.remove(id(number)).unwrap(), model.remove(&id(number)), "step {step}");
        } else {
            index.insert(id(number), handle(step)).unwrap();
            model.insert(id(number), handle(step));
        }
        if step % 20_000 == 9_999 {
            // Dropped without a sync: what the process wrote is there.
            drop(index);
            index = Index::open(&path).unwrap();
        }
    }
    assert_eq!(index.len(), model.len() as u64);
    for number in 0..12_000 {
        assert_eq!(index.get(id(number)).unwrap(), model.get(&id(number)).copied());
    }
    let mut listed = HashMap::new();
    index
        .for_each(|id, handle| {
            assert!(listed.insert(id, handle).is_none());
            Ok(())
        })
        .unwrap();
    assert_eq!(listed, model);
    assert!(index.slots > SLOTS_MIN, "it never grew");
}

#[test]
fn a_killed_process_has_lost_neither_objects_nor_their_count() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let mut made = 0;
    for round in 0..100u64 {
        let mut index = Index::open(&path).unwrap();
        assert_eq!(index.len(), made - round, "round {round}");
        for _ in 0..=round {
            index.insert(id(made), handle(made)).unwrap();
            made += 1;
        }
        assert_eq!(index.get_or_insert(id(made - 1), handle(0)).unwrap(), handle(made - 1));
        assert_eq!(index.remove(id(round)).unwrap(), Some(handle(round)));
        // As a kill leaves it.
        std::mem::forget(index);
    }
    let index = Index::open(&path).unwrap();
    assert!((100..made).all(|number| index.get(id(number)).unwrap() == Some(handle(number))));
    assert_eq!((index.len(), index.slots), (made - 100, 2 * SLOTS_MIN));
}

#[test]
fn tombstones_alone_never_make_it_grow() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = Index::open(&dir.path().join("index")).unwrap();
    for number in 0..20_000 {
        index.insert(id(number), handle(number)).unwrap();
        index.remove(id(number)).unwrap();
    }
    assert_eq!((index.slots, index.len()), (SLOTS_MIN, 0));
}

/// Each two thousand of those that came and went it was rewritten, and synced: 24 times here.
#[test]
fn a_list_that_many_come_to_and_leave_is_hardly_ever_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let inode = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap());
    for seed in 0..4 {
        let mut index = Index::create_alike(&path, seed).unwrap();
        let (mut last, mut rewritten) = (inode(), 0);
        for number in 0..50_000 {
            index.insert(id(number), handle(number)).unwrap();
            if let Some(gone) = number.checked_sub(1000) {
                assert_eq!(index.remove(id(gone)).unwrap(), Some(handle(gone)));
            }
            let now = if number % 100 == 0 { inode() } else { last };
            rewritten += u32::from(now != last);
            last = now;
        }
        assert!(rewritten <= 6, "seed {seed}: {rewritten} times");
        assert_eq!((index.slots, index.len()), (SLOTS_MIN, 1000));
        let counts = index.counts;
        index.count_anew().unwrap();
        assert_eq!((index.counts.used, index.counts.live), (counts.used, counts.live));
    }
}

/// A power loss keeps each sector as of another moment since the last sync.
#[test]
fn what_was_there_and_still_lies_somewhere_is_found_after_a_power_loss() {
    const SECTOR: usize = 512;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    for round in 0..400 {
        let mut index = Index::create_with_seed(&path, 64, round).unwrap();
        (0..30).for_each(|number| index.insert(id(number), handle(number)).unwrap());
        let mut versions = vec![std::fs::read(&path).unwrap()];
        for _ in 0..next(40) {
            let number = next(30);
            match next(3) {
                0 => index.insert(id(number), handle(number)).unwrap(),
                _ => drop(index.remove(id(number)).unwrap()),
            }
            versions.push(std::fs::read(&path).unwrap());
        }
        std::mem::forget(index);
        let mut kept = versions[0].clone();
        for (at, sector) in kept.chunks_mut(SECTOR).enumerate().skip(1) {
            let version = &versions[next(versions.len() as u64) as usize];
            sector.copy_from_slice(&version[at * SECTOR..][..sector.len()]);
        }
        std::fs::write(&path, kept).unwrap();
        let index = Index::open(&path).unwrap();
        let mut lying = Vec::new();
        let mut list = |id, _| {
            lying.push(id);
            Ok(())
        };
        index.for_each(&mut list).unwrap();
        for id in lying {
            assert!(index.get(id).unwrap().is_some(), "round {round}: {id} lies there and is not found");
        }
    }
}

/// It is tried again and again: each time one of those that are left was counted less.
#[test]
fn what_cannot_be_removed_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let mut index = Index::open(&path).unwrap();
    (0..3).for_each(|number| index.insert(id(number), handle(number)).unwrap());
    let writable = std::mem::replace(&mut index.file, File::open(&path).unwrap());
    (0..5).for_each(|_| drop(index.remove(id(1)).unwrap_err()));
    assert_eq!((index.len(), index.get(id(1)).unwrap()), (3, Some(handle(1))));
    index.file = writable;
    assert_eq!(index.remove(id(1)).unwrap(), Some(handle(1)));
    assert_eq!((index.len(), index.get(id(1)).unwrap()), (2, None));
}

#[test]
fn a_torn_slot_is_absent_and_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = Index::open(&dir.path().join("index")).unwrap();
    for number in 0..2000 {
        index.insert(id(number), handle(number)).unwrap();
    }
    let Found::Here { at, .. } = index.find(id(55)).unwrap() else { panic!("not there") };
    index.file.write_all_at(&[0xff; 20], offset(at) + 30).unwrap();
    let found = (0..2000).filter(|&number| index.get(id(number)).unwrap().is_some()).count();
    assert_eq!(found, 1999);
    assert_eq!(index.get(id(55)).unwrap(), None);
    assert_eq!(index.torn(), 1);
    index.insert(id(55), handle(1)).unwrap();
    assert_eq!(index.get(id(55)).unwrap(), Some(handle(1)));
}

#[test]
fn a_damaged_header_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    Index::open(&path).unwrap().file.write_all_at(&[9], 16).unwrap();
    assert_eq!(Index::open(&path).err().unwrap().kind(), io::ErrorKind::InvalidData);
}

/// The header of a grown index was stored through a mapping of a file without blocks: on a full
/// disk that was the signal that ended the daemon, and the applications' mount with it.
#[test]
fn a_full_disk_is_an_error_that_passes() {
    assert!(rustix::process::geteuid().is_root(), "this test mounts a tmpfs: run it as root");
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(dir.path());
    let mut index = Index::open(&disk.0.join("index")).unwrap();
    // All of its slots have their blocks.
    for number in 0..3000 {
        index.insert(id(number), handle(number)).unwrap();
    }
    let filler = disk.fill();
    let (full_at, error) = (3000..)
        .find_map(|number| index.insert(id(number), handle(number)).err().map(|error| (number, error)))
        .unwrap();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
    assert_eq!(index.get(id(full_at)).unwrap(), None);
    assert_eq!(index.get(id(full_at - 1)).unwrap(), Some(handle(full_at - 1)));
    std::fs::remove_file(filler).unwrap();
    for number in full_at..5000 {
        index.insert(id(number), handle(number)).unwrap();
    }
    assert_eq!((index.len(), index.slots), (5000, 2 * SLOTS_MIN));
}

/// A tmpfs that goes away with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> SmallDisk {
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("none", at, "tmpfs", flags, c"size=1m").unwrap();
        SmallDisk(at.to_owned())
    }

    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let file = File::create(&path).unwrap();
        let full = (0..).find_map(|page| file.write_all_at(&[1; 4096], page * 4096).err()).unwrap();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}
