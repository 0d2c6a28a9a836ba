//! Content of wanted files: bytes, then attributes, and last the mtime that says they are good.

use std::fs::File;
use std::sync::Arc;

use rustix::fs::Stat;

use super::Session;
use crate::apply::fault::Fault;
use crate::apply::inode;
use crate::apply::replica::Replica;
use crate::apply::replica::Writer;
use crate::limits::{UNSETTLED_BYTES_MAX, UNSETTLED_FILES_MAX};
use crate::packet::{Attributes, ObjectId, Timestamp, Xattr};

/// The file whose content arrives.
pub(super) struct OpenFile {
    object: ObjectId,
    file: Arc<File>,
    writer: Writer,
    /// Where the bytes and holes that came end.
    reached: u64,
}

impl OpenFile {
    /// Where what follows a hole of so many bytes begins.
    fn behind_hole(&self, hole: u64) -> Result<u64, Fault> {
        let end = self.reached.checked_add(hole).filter(|&end| end <= i64::MAX as u64);
        end.ok_or(Fault::Refused("content beyond the largest file"))
    }
}

impl Session {
    pub(super) fn open_content(&mut self, replica: &mut Replica, object: ObjectId) -> Result<(), Fault> {
        let done = self.empty(replica, object);
        self.or_leave_content(replica, object, done)
    }

    fn empty(&mut self, replica: &mut Replica, object: ObjectId) -> Result<(), Fault> {
        if !self.asked.contains(object)? {
            return Err(Fault::Refused("content of a file that was not asked for"));
        }
        let file = replica.writable(object)?;
        let before = inode::stat(&*file)?;
        // Whoever may read the old content may not read the new one.
        if !is_private(&before) {
            inode::make_private(&*file)?;
        }
        // Also where nothing is cut off ext4 would write the file to its disk at its close.
        if before.st_size > 0 {
            file.set_len(0).map_err(Fault::system("truncate"))?;
        }
        self.open = Some(OpenFile { object, file, writer: replica.writer().clone(), reached: 0 });
        Ok(())
    }

    pub(super) fn write_content(
        &mut self,
        object: ObjectId,
        hole: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Fault> {
        let open = self.opened(object)?;
        if open.behind_hole(hole)? != offset || bytes.is_empty() {
            return Err(Fault::Refused("content that does not follow what came before it"));
        }
        let reached = open.behind_hole(hole.saturating_add(bytes.len() as u64))?;
        open.writer.write_all_at(&open.file, bytes, offset).map_err(Fault::system("write"))?;
        assert_eq!(reached, offset + bytes.len() as u64, "content ends where its bytes do not");
        open.reached = reached;
        self.unsettled.bytes += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn close_content(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        (hole, size): (u64, u64),
        attributes: &Attributes,
        xattrs: &[Xattr],
    ) -> Result<(), Fault> {
        let open = self.opened(object)?;
        if open.behind_hole(hole)? != size {
            return Err(Fault::Refused("a file whose bytes and holes do not add up to its size"));
        }
        let file = open.file.clone();
        if hole > 0 {
            file.set_len(size).map_err(Fault::system("truncate"))?;
        }
        let mode = replica.policy().mode(&*file, attributes.mode)?;
        let attributes = Attributes { mode, ..*attributes };
        self.make_attributes(replica, &file, &attributes, &replica.policy().xattrs(xattrs))?;
        self.unsettled.files.push((object, attributes.mtime));
        if self.unsettled.is_full() {
            self.settle(replica)?;
        }
        self.asked.copied(object)?;
        self.open = None;
        assert!(!self.unsettled.is_full(), "content is not made durable in time");
        Ok(())
    }

    /// The source cannot read a file that was asked for.
    pub(super) fn leave_content(&mut self, object: ObjectId) -> Result<(), Fault> {
        self.open = None;
        // Known as incomplete: the next copy asks for it again.
        self.asked.copied(object)
    }

    /// Makes the bytes durable, then sets the mtimes.
    pub(super) fn settle(&mut self, replica: &mut Replica) -> Result<(), Fault> {
        if self.unsettled.files.is_empty() {
            return Ok(());
        }
        if let Err(error) = replica.sync_files() {
            return Err(replica.sync_has_failed(error));
        }
        for &(object, mtime) in &self.unsettled.files {
            match replica.object(object).and_then(|file| replica.policy().set_mtime(&*file, mtime)) {
                Ok(()) | Err(Fault::MissingObject(_) | Fault::Outside { .. }) => {}
                Err(fault) if fault.keeps_out_one() => {
                    self.left_out.add(&format!("object {object}: {fault}"));
                }
                Err(fault) => return Err(fault),
            }
            self.incomplete.remove(object)?;
        }
        self.unsettled = Unsettled::default();
        Ok(())
    }

    fn opened(&mut self, object: ObjectId) -> Result<&mut OpenFile, Fault> {
        let open = self.open.as_mut().filter(|open| open.object == object);
        open.ok_or(Fault::Refused("content of a file that is not open"))
    }
}

/// As a file is made: root's alone, and nothing but its owner's rights.
fn is_private(status: &Stat) -> bool {
    (status.st_uid, status.st_mode & 0o7077) == (0, 0)
}

/// Files whose content is complete and whose mtime is not set yet. Size and mtime are what a
/// later copy compares: the mtime is set only once the bytes are on disk, so that a power loss
/// never leaves a file that looks copied and is not.
#[derive(Default)]
pub(super) struct Unsettled {
    files: Vec<(ObjectId, Timestamp)>,
    bytes: u64,
}

impl Unsettled {
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    fn is_full(&self) -> bool {
        self.files.len() >= UNSETTLED_FILES_MAX || self.bytes >= UNSETTLED_BYTES_MAX
    }
}
