//! What is sent of an object beside its listing: content, blocks, hashes, attributes.

use super::super::{CopyError, CopyProgress, StampedSink};
use super::blocks::{Finished, Turn, Went as Compared};
use super::check::Hashed;
use super::files::{self, Content, Dressed, Place, Reader, Went};
use super::plan::Job;
use super::{LiveCopy, Stepped};

impl<S: StampedSink> LiveCopy<S> {
    pub(super) fn send_content(&mut self, mut content: Content) -> Result<(), CopyError> {
        let reader = Reader {
            mount: self.eyes.root_fd(),
            looks: &*self.looks,
            pool: &self.pool,
            chunk: self.sizes.bytes,
        };
        let before = content.reached();
        let went = content.next(&reader, &mut self.ahead, &mut self.sink)?;
        CopyProgress::add(&self.progress.bytes_settled, content.reached() - before);
        match went {
            Went::On(bytes) => {
                self.pace.sent(bytes);
                CopyProgress::add(&self.progress.bytes_copied, bytes);
                self.content = Some(content);
            }
            Went::Whole { bytes, has_large } => {
                self.pace.sent(bytes);
                CopyProgress::add(&self.progress.bytes_copied, bytes);
                CopyProgress::add(&self.progress.files_copied, 1);
                self.report.copied += 1;
                if has_large {
                    self.plan.copy_later(Job::Xattrs(content.place));
                }
            }
            Went::Gone => self.report.vanished += 1,
            Went::Unreadable(why) => self.leave_out(&content.place.path(), why)?,
        }
        Ok(())
    }

    /// What the files that are compared by blocks have to do; `None`: nothing before an answer, and other
    /// things may be done.
    pub(super) fn step_of_blocks(&mut self) -> Result<Option<Stepped>, CopyError> {
        let Some(blocks) = &mut self.blocks else { return Ok(None) };
        let (looks, pool, chunk) = (&*self.looks, &self.pool, self.sizes.bytes);
        let reader = Reader { mount: self.eyes.root_fd(), looks, pool, chunk };
        let went = match blocks.turn() {
            Turn::Open => return Ok(None),
            Turn::Wait => return Ok(Some(Stepped::Waits)),
            Turn::Send => blocks.send(&reader, &mut self.sink)?,
            Turn::Close => blocks.close(&reader, &mut self.sink)?,
            Turn::Hash => blocks.hash(&reader, &mut self.sink)?,
            Turn::Finish => {
                if let Some(finished) = blocks.finish() {
                    self.finished(finished);
                }
                return Ok(Some(Stepped::On));
            }
        };
        match went {
            Compared::On => {}
            Compared::Sent(bytes) => {
                self.pace.sent(bytes);
                CopyProgress::add(&self.progress.bytes_copied, bytes);
            }
            Compared::Empty(place) => self.plan.copy_later(Job::Content(place)),
            Compared::Gone => self.report.vanished += 1,
            Compared::Unreadable(path, why) => self.leave_out(&path, why)?,
        }
        Ok(Some(Stepped::On))
    }

    fn finished(&mut self, Finished { place, is_same, has_large }: Finished) {
        match is_same {
            true => CopyProgress::add(&self.progress.files_identical, 1),
            false => {
                CopyProgress::add(&self.progress.files_copied, 1);
                self.report.copied += 1;
            }
        }
        if has_large {
            self.plan.copy_later(Job::Xattrs(place));
        }
    }

    pub(super) fn send_hashes(&mut self) -> Result<Stepped, CopyError> {
        let Some(checking) = self.checking.as_mut().filter(|checking| checking.has_room()) else {
            return Ok(Stepped::Waits);
        };
        match checking.step(&self.eyes, &*self.looks, &mut self.sink)? {
            Hashed::On(piece) => {
                CopyProgress::add(&self.progress.bytes_copied, piece.bytes);
                self.pace.sent(piece.read);
            }
            Hashed::Later => {}
            Hashed::Whole => CopyProgress::add(&self.progress.files_copied, 1),
            Hashed::Unreadable(place, why) => self.leave_out(&place.path(), why)?,
        }
        Ok(Stepped::On)
    }

    pub(super) fn send_xattrs(&mut self, place: &Place) -> Result<(), CopyError> {
        let reader = Reader {
            mount: self.eyes.root_fd(),
            looks: &*self.looks,
            pool: &self.pool,
            chunk: self.sizes.bytes,
        };
        match files::send_xattrs(&reader, place, &mut self.sink)? {
            Dressed::Whole => Ok(()),
            Dressed::Gone => {
                self.report.vanished += 1;
                Ok(())
            }
            Dressed::Unreadable(why) => self.leave_out(&place.path(), why),
        }
    }
}
