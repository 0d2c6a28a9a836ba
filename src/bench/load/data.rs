//! Lines on one big file: sequential and random writes, syncs, cold and warm reads.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::super::content::{Block, block_offset, stamped_offset};
use super::super::error::{Context, Error, Result};
use super::{Done, Load};
use crate::random::Random;

/// Written and removed by each sequential line.
const SEQUENTIAL: &str = "sequential";

/// Stays for random writes and reads; each of its pages has a stamp.
pub(super) const BIG: &str = "big";

/// Length of a random write and of a read from the cache.
const PAGE: u64 = 4096;

/// Length of a read of a cold file.
const COLD_READ: usize = 1 << 20;

/// Reads from the cache stay within this much of the file: all of it surely stays cached.
const WARM_MAX: u64 = 64 << 20;

/// Blocks of a sequentially written file that are looked at.
const BLOCKS_CHECKED: u64 = 512;

/// Random writes, as a share of the pages of the file.
const PAGES_PER_RANDOM_WRITE: u64 = 4;

/// Appends, as a share of the pages of a big file.
const PAGES_PER_APPEND: u64 = 4;

/// Small files for each sync: a disk that syncs makes a hundred times fewer ops a second.
const FILES_PER_SYNC: u64 = 10;

/// How a file is open for reads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Handle {
    ReadOnly,
    ReadWrite,
}

impl Load<'_> {
    pub(super) fn write_sequential(&self, block_len: usize) -> Result<Done> {
        let path = self.path(SEQUENTIAL);
        let mut block = Block::new(block_len);
        let mut pace = self.pace();
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path).at(&path)?;
        let mut offset = 0;
        while offset < self.settings.size && pace.go_on()? {
            file.write_all(block.stamped(self.run, offset)).at(&path)?;
            offset += block_len as u64;
        }
        drop(file);
        Ok(pace.done(block_len as u64))
    }

    pub(super) fn check_sequential(&self, block_len: usize, work: u64) -> Result<()> {
        self.place.arrivals(SEQUENTIAL).try_for_each(|path| check_blocks(&path, self.run, block_len, work))
    }

    pub(super) fn clear_sequential(&self) -> Result<()> {
        let path = self.path(SEQUENTIAL);
        fs::remove_file(&path).at(&path)
    }

    /// Writes the big file, unless it is there.
    pub(super) fn prepare_big(&self) -> Result<()> {
        let backing = self.place.backing.join(BIG);
        if fs::metadata(&backing).is_ok_and(|meta| meta.len() == self.settings.size) {
            return Ok(());
        }
        let mut pace = self.pace();
        write_pages(&self.path(BIG), self.run, self.settings.size, || pace.go_on().map(drop))?;
        self.place.settle(self.stop)?;
        File::open(&backing).and_then(|file| file.sync_all()).at(&backing)
    }

    pub(super) fn write_random(&self) -> Result<Done> {
        let path = self.path(BIG);
        let mut block = Block::new(PAGE as usize);
        let mut pace = self.pace();
        let file = OpenOptions::new().read(true).write(true).open(&path).at(&path)?;
        for offset in self.random_offsets() {
            if !pace.go_on()? {
                break;
            }
            file.write_all_at(block.stamped(self.run, offset), offset).at(&path)?;
        }
        drop(file);
        Ok(pace.done(1))
    }

    pub(super) fn check_random(&self, done: &Done) -> Result<()> {
        for path in self.place.arrivals(BIG) {
            check_len(&path, self.settings.size)?;
            let offsets = self.random_offsets().take(done.work as usize);
            Block::new(PAGE as usize).check(&path, self.run, offsets)?;
        }
        Ok(())
    }

    /// The same for each variant of a round, and when they are checked.
    fn random_offsets(&self) -> impl Iterator<Item = u64> + use<> {
        let (size, mut random) = (self.settings.size, Random::new(self.run));
        let count = (size / PAGE / PAGES_PER_RANDOM_WRITE).max(1) as usize;
        std::iter::repeat_with(move || block_offset(&mut random, size, PAGE)).take(count)
    }

    pub(super) fn append(&self) -> Result<Done> {
        let path = self.path(SEQUENTIAL);
        let mut block = Block::new(PAGE as usize);
        let mut pace = self.pace();
        let mut file = OpenOptions::new().append(true).create_new(true).open(&path).at(&path)?;
        for offset in (0..self.settings.size / PAGE / PAGES_PER_APPEND).map(|page| page * PAGE) {
            if !pace.go_on()? {
                break;
            }
            file.write_all(block.stamped(self.run, offset)).at(&path)?;
        }
        drop(file);
        Ok(pace.done(PAGE))
    }

    pub(super) fn append_synced(&self) -> Result<Done> {
        let path = self.path(SEQUENTIAL);
        let mut block = Block::new(PAGE as usize);
        let count = (self.settings.files / FILES_PER_SYNC).max(1);
        let mut pace = self.pace();
        let mut file = OpenOptions::new().append(true).create_new(true).open(&path).at(&path)?;
        for offset in (0..count).map(|page| page * PAGE) {
            if !pace.go_on()? {
                break;
            }
            file.write_all(block.stamped(self.run, offset)).at(&path)?;
            file.sync_all().at(&path)?;
        }
        drop(file);
        Ok(pace.done(1))
    }

    pub(super) fn check_appended(&self, done: &Done) -> Result<()> {
        self.check_sequential(PAGE as usize, done.work * PAGE)
    }

    pub(super) fn read_cold(&self) -> Result<Done> {
        let path = self.path(BIG);
        let mut block = vec![0; COLD_READ];
        let mut pace = self.pace();
        let mut file = File::open(&path).at(&path)?;
        let mut offset = 0;
        while offset < self.settings.size && pace.go_on()? {
            file.read_exact(&mut block).at(&path)?;
            check_stamp(&path, &block, offset)?;
            offset += COLD_READ as u64;
        }
        Ok(pace.done(COLD_READ as u64))
    }

    pub(super) fn read_warm(&self, handle: Handle) -> Result<Done> {
        let path = self.path(BIG);
        let file = OpenOptions::new().read(true).write(handle == Handle::ReadWrite).open(&path).at(&path)?;
        let warm = self.settings.size.min(WARM_MAX);
        io::copy(&mut (&file).take(warm), &mut io::sink()).at(&path)?;
        let mut random = Random::new(self.run);
        let mut block = [0; PAGE as usize];
        let mut pace = self.pace();
        for _ in 0..self.settings.size / PAGE {
            if !pace.go_on()? {
                break;
            }
            let offset = block_offset(&mut random, warm, PAGE);
            file.read_exact_at(&mut block, offset).at(&path)?;
            check_stamp(&path, &block, offset)?;
        }
        Ok(pace.done(1))
    }
}

/// Writes a file (whole pages) with a stamp on each page; asks `go_on` once a MiB.
pub fn write_pages(path: &Path, run: u64, size: u64, mut go_on: impl FnMut() -> Result<()>) -> Result<()> {
    let mut file = File::create(path).at(path)?;
    let mut page = Block::new(PAGE as usize);
    let mut chunk = Vec::with_capacity(1 << 20);
    let mut offset = 0;
    while offset < size {
        go_on()?;
        chunk.clear();
        while offset < size && chunk.len() < 1 << 20 {
            chunk.extend_from_slice(page.stamped(run, offset));
            offset += PAGE;
        }
        file.write_all(&chunk).at(path)?;
    }
    Ok(())
}

/// Whether a file holds blocks of this run up to this length, and no more; a share of them is looked at.
pub(super) fn check_blocks(path: &Path, run: u64, block_len: usize, len: u64) -> Result<()> {
    let block = block_len as u64;
    check_len(path, len)?;
    let step = (len / block).div_ceil(BLOCKS_CHECKED).max(1) * block;
    let offsets = (0..len).step_by(step as usize).chain(len.checked_sub(block));
    Block::new(block_len).check(path, run, offsets)
}

fn check_stamp(path: &Path, block: &[u8], offset: u64) -> Result<()> {
    match stamped_offset(block) {
        Some(found) if found == offset => Ok(()),
        _ => Err(Error::Wrong(format!("{} was read wrongly at offset {offset}", path.display()))),
    }
}

fn check_len(path: &Path, len: u64) -> Result<()> {
    match fs::metadata(path).at(path)?.len() {
        found if found == len => Ok(()),
        found => Err(Error::Wrong(format!("{} has {found} bytes instead of {len}", path.display()))),
    }
}
