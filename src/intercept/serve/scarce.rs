//! Little room on the disk, where the kernel gathers writes: it takes more than the disk can hold.
//!
//! As long as all that it can have unwritten fits, nothing is done. Below that each write is asked for
//! ([`super::asked`]), and what the file's writers have gathered is written back before they may have
//! more than fits: a refusal of it reaches the program at that write.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::cache::Cache;
use crate::intercept::mount::unwritten_max;
use crate::intercept::volume::Volume;

/// How often the disk is looked at. It has room for what the kernel takes meanwhile: more than
/// [`unwritten_max`] it never takes.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Others write to the disk, too.
const MARGIN: u64 = 16 << 20;
/// What a write is taken to be, bytes: the kernel does not say. A larger one is noticed after it.
const WRITE_LEN: u64 = 1 << 20;

/// Whether room is scarce. Clones share it.
#[derive(Clone)]
pub struct Scarcity(Arc<AtomicBool>);

impl Scarcity {
    /// Looks at the disk of a volume until the last clone goes, where the kernel gathers writes.
    pub fn start(volume: &Arc<Volume>, cache: &Arc<dyn Cache>) -> Scarcity {
        let scarcity = Scarcity(Arc::default());
        if volume.profile.gathers() {
            let (is_scarce, volume) = (Arc::downgrade(&scarcity.0), Arc::downgrade(volume));
            let looks = Looks { is_scarce, volume, cache: Arc::downgrade(cache) };
            if let Err(error) = std::thread::Builder::new().name("room".into()).spawn(move || looks.run()) {
                log::error!("nobody looks how much room the disk has: {error}");
            }
        }
        scarcity
    }

    pub fn is_scarce(&self) -> bool {
        self.0.load(SeqCst)
    }
}

/// How many writes each file that is written to may have gathered now.
pub fn writes_that_fit(volume: &Volume) -> u64 {
    free(volume) / 2 / WRITE_LEN / volume.shared_writers().open.max(1)
}

/// Bytes that an ordinary user's files may take; where it is not known, enough.
fn free(volume: &Volume) -> u64 {
    volume.statfs().map_or(u64::MAX, |fs| fs.f_bavail.saturating_mul(fs.f_frsize))
}

struct Looks {
    is_scarce: Weak<AtomicBool>,
    volume: Weak<Volume>,
    cache: Weak<dyn Cache>,
}

impl Looks {
    fn run(self) {
        let wanted = unwritten_max() + MARGIN;
        while self.look(wanted).is_some() {
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// `None`: the mount is gone.
    fn look(&self, wanted: u64) -> Option<()> {
        let is_scarce = self.is_scarce.upgrade()?;
        let (volume, cache) = (self.volume.upgrade()?, self.cache.upgrade()?);
        let is_now = free(&volume) < wanted;
        is_scarce.store(is_now, SeqCst);
        if is_now {
            volume.files_written().into_iter().for_each(|id| cache.forget_attributes(id));
        }
        Some(())
    }
}
