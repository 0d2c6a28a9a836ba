//! Content of wanted files: bytes, then attributes, and last the mtime that says they are good.

use std::fs::File;
use std::sync::Arc;

use super::Session;
use crate::apply::fault::Fault;
use crate::apply::inode;
use crate::apply::replica::Replica;
use crate::apply::writer::Writer;
use crate::limits::{UNSETTLED_BYTES_MAX, UNSETTLED_FILES_MAX};
use crate::packet::{Attributes, ObjectId, Timestamp, Xattr};

/// The file whose content arrives.
pub(super) struct OpenFile {
    object: ObjectId,
    file: Arc<File>,
    writer: Writer,
}

impl Session {
    pub(super) fn open_content(&mut self, replica: &mut Replica, object: ObjectId) -> Result<(), Fault> {
        if !self.asked.contains(object)? {
            return Err(Fault::Refused("content of a file that was not asked for"));
        }
        let file = replica.writable(object)?;
        file.set_len(0).map_err(Fault::system("truncate"))?;
        self.open = Some(OpenFile { object, file, writer: replica.writer.clone() });
        Ok(())
    }

    pub(super) fn write_content(&mut self, object: ObjectId, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let open = self.opened(object)?;
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > i64::MAX as u64) {
            return Err(Fault::Refused("content beyond the largest file"));
        }
        open.writer.write_all_at(&open.file, bytes, offset).map_err(Fault::system("write"))?;
        self.unsettled.bytes += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn close_content(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        size: u64,
        attributes: &Attributes,
        xattrs: &[Xattr],
    ) -> Result<(), Fault> {
        let file = self.opened(object)?.file.clone();
        file.set_len(size).map_err(Fault::system("truncate"))?;
        let mode = replica.policy.mode(&*file, attributes.mode)?;
        inode::make_attributes(&*file, &Attributes { mode, ..*attributes }, &replica.policy.xattrs(xattrs))?;
        self.unsettled.files.push((object, attributes.mtime));
        if self.unsettled.is_full() {
            self.settle(replica)?;
        }
        self.asked.copied(object)?;
        self.open = None;
        Ok(())
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
            match replica.object(object) {
                Ok(file) => inode::set_mtime(&*file, mtime)?,
                Err(Fault::MissingObject(_) | Fault::Outside { .. }) => {}
                Err(fault) => return Err(fault),
            }
            self.incomplete.remove(object)?;
        }
        self.unsettled = Unsettled::default();
        Ok(())
    }

    fn opened(&self, object: ObjectId) -> Result<&OpenFile, Fault> {
        let open = self.open.as_ref().filter(|open| open.object == object);
        open.ok_or(Fault::Refused("content of a file that is not open"))
    }
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
    fn is_full(&self) -> bool {
        self.files.len() >= UNSETTLED_FILES_MAX || self.bytes >= UNSETTLED_BYTES_MAX
    }
}
