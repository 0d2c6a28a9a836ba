//! Files that are locked for as long as a value lives (`flock`): who has the lock has what the file stands for, and a
//! killed process has nothing.
//!
//! The lock is let go itself, not only its descriptor: a process that is just being started, by any thread, has a copy of
//! every descriptor until it runs its program, and whoever closes one does not unlock what another copy holds.

use std::fs::{File, TryLockError};
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

/// See the module. Nobody else has the file locked.
#[derive(Debug)]
pub struct Locked(File);

/// Who looks with [`is_locked`] has a file for a moment: of one that is looked at this counts for nothing.
pub const LOOKED_FOR: Duration = Duration::from_millis(500);
const TRIED_EVERY: Duration = Duration::from_millis(10);

impl Locked {
    /// `None`: somebody else has it.
    pub fn now(file: File) -> io::Result<Option<Locked>> {
        Locked::within(file, Duration::ZERO)
    }

    /// `None`: somebody else has had it for as long.
    pub fn within(file: File, patience: Duration) -> io::Result<Option<Locked>> {
        let until = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Locked(file))),
                Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(TRIED_EVERY),
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        unlock(&self.0);
    }
}

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl AsFd for Locked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether somebody has the file.
pub fn is_locked(file: &File) -> bool {
    match file.try_lock_shared() {
        Ok(()) => {
            unlock(file);
            false
        }
        Err(error) => matches!(error, TryLockError::WouldBlock),
    }
}

/// It fails for what is no file alone.
fn unlock(file: &File) {
    let _ = rustix::fs::flock(file, FlockOperation::Unlock);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_descriptor_elsewhere_keeps_nothing_locked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let locked = Locked::now(File::create(&path).unwrap()).unwrap().unwrap();
        let copy = locked.try_clone().unwrap();
        assert!(Locked::now(File::open(&path).unwrap()).unwrap().is_none());
        assert!(is_locked(&File::open(&path).unwrap()));
        drop(locked);
        let looked = File::open(&path).unwrap();
        assert!(!is_locked(&looked));
        assert!(Locked::now(File::open(&path).unwrap()).unwrap().is_some());
        drop(copy);
    }

    #[test]
    fn who_looks_for_a_moment_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let looks = File::create(&path).unwrap();
        looks.lock_shared().unwrap();
        let over = std::thread::spawn(move || {
            std::thread::sleep(LOOKED_FOR / 10);
            drop(looks);
        });
        assert!(Locked::within(File::open(&path).unwrap(), LOOKED_FOR).unwrap().is_some());
        over.join().unwrap();
    }
}
