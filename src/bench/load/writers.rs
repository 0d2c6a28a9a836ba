//! Lines of several threads that write at the same time, each a file of its own.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Barrier;

use super::super::content::Block;
use super::super::error::{Context, Error, Result};
use super::data::check_blocks;
use super::{Done, Load};

/// Length of a write.
const PAGE: usize = 4096;

impl Load<'_> {
    /// Each writes its share of a big file.
    pub(super) fn write_together(&self, writers: u64) -> Result<Done> {
        let barrier = Barrier::new(writers as usize);
        let parts: Vec<Result<Done>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..writers)
                .map(|writer| {
                    scope.spawn({
                        let barrier = &barrier;
                        move || self.write_one(writer, writers, barrier)
                    })
                })
                .collect();
            let panicked = |_| Err(Error::Wrong("a writer panicked".into()));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
        });
        Ok(Done::together(parts.into_iter().collect::<Result<_>>()?))
    }

    fn write_one(&self, writer: u64, writers: u64, barrier: &Barrier) -> Result<Done> {
        let path = self.path(&name(writer));
        let file = OpenOptions::new().write(true).create_new(true).open(&path).at(&path);
        let mut block = Block::new(PAGE);
        // Also after an error: the others wait.
        barrier.wait();
        let mut file = file?;
        let (mut pace, mut offset) = (self.pace(), 0);
        while offset < self.settings.size / writers && pace.go_on()? {
            file.write_all(block.stamped(self.run, offset)).at(&path)?;
            offset += PAGE as u64;
        }
        drop(file);
        Ok(pace.done(PAGE as u64))
    }

    pub(super) fn check_together(&self, writers: u64, work: u64) -> Result<()> {
        let mut found = 0;
        for writer in 0..writers {
            let arrivals: Vec<PathBuf> = self.place.arrivals(&name(writer)).collect();
            let len = fs::metadata(&arrivals[0]).at(&arrivals[0])?.len();
            found += len;
            arrivals.iter().try_for_each(|path| check_blocks(path, self.run, PAGE, len))?;
        }
        if found == work {
            return Ok(());
        }
        Err(Error::Wrong(format!("{} writers left {found} bytes instead of {work}", writers)))
    }

    pub(super) fn clear_together(&self, writers: u64) -> Result<()> {
        (0..writers).try_for_each(|writer| {
            let path = self.path(&name(writer));
            fs::remove_file(&path).at(&path)
        })
    }
}

fn name(writer: u64) -> String {
    format!("writer-{writer}")
}
