//! Content of wanted files: bytes, then attributes, and last the mtime that says they are good.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::Stat;

use super::Session;
use super::blocks::make_hole;
use super::planted::{self, Planted};
use crate::apply::fault::Fault;
use crate::apply::inode;
use crate::apply::replica::Replica;
use crate::apply::replica::Writer;
use crate::clone::guard;
use crate::failpoint;
use crate::packet::{Attributes, ObjectId, Timestamp, Xattr};
use crate::sys::FileHandle;

/// The file whose content arrives.
pub(super) struct OpenFile {
    object: ObjectId,
    /// The inode that was opened: content is complete on no other.
    handle: FileHandle,
    file: Arc<File>,
    writer: Writer,
    comes: Comes,
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comes {
    /// All of it. The bytes and holes that came end at `reached`.
    All { reached: u64 },
    /// Bytes at any offsets: of the rest it is known that it is right.
    Blocks,
}

impl OpenFile {
    pub(super) fn open(replica: &mut Replica, object: ObjectId, comes: Comes) -> Result<OpenFile, Fault> {
        let (file, handle) = (replica.writable(object)?, replica.known_handle(object)?);
        // They come with the last of it.
        replica.drop_flags(object)?;
        let before = inode::stat(&*file)?;
        // Whoever may read the old content may not read the new one.
        if !is_private(&before) {
            inode::make_private(&*file)?;
        }
        // Also where nothing is cut off ext4 would write the file to its disk at its close.
        if before.st_size > 0 && comes != Comes::Blocks {
            guard::resizing(&file, 0);
            file.set_len(0).map_err(Fault::system("truncate"))?;
        }
        Ok(OpenFile { object, handle, file, writer: replica.writer().clone(), comes })
    }

    /// Takes bytes behind a hole.
    pub(super) fn write(&mut self, hole: u64, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let is_in_place = match self.comes {
            Comes::All { reached } => behind_hole(reached, hole)? == offset && !bytes.is_empty(),
            Comes::Blocks => hole <= offset,
        };
        if !is_in_place {
            return Err(Fault::Refused("content that does not follow what came before it"));
        }
        let end = behind_hole(offset, bytes.len() as u64)?;
        match self.comes {
            Comes::Blocks => make_hole(&self.file, offset - hole..offset)?,
            // XFS gives what is written at the end of a file more room than it needs, which stays where a hole follows:
            // what lies inside of the file gets none.
            Comes::All { .. } if hole > 0 && (inode::stat(&*self.file)?.st_size as u64) < end => {
                guard::resizing(&self.file, end);
                self.file.set_len(end).map_err(Fault::system("truncate"))?;
            }
            Comes::All { .. } => {}
        }
        failpoint::at("content").map_err(Fault::system("write"))?;
        guard::content(&self.file, offset, bytes.len() as u64);
        self.writer.write_all_at(&self.file, bytes, offset).map_err(Fault::system("write"))?;
        // Not before: what had no room comes once more.
        if let Comes::All { reached } = &mut self.comes {
            *reached = end;
        }
        Ok(())
    }

    /// Errors: what came is not all of a file of this size.
    fn check_end(&self, hole: u64, size: u64) -> Result<(), Fault> {
        let due = match self.comes {
            // It may have become shorter while it was read.
            Comes::All { reached } => size.saturating_sub(reached),
            Comes::Blocks => 0,
        };
        match hole == due && size <= i64::MAX as u64 {
            true => Ok(()),
            false => Err(Fault::Refused("a file whose bytes and holes do not add up to its size")),
        }
    }
}

/// Where what follows a hole of so many bytes begins.
fn behind_hole(reached: u64, hole: u64) -> Result<u64, Fault> {
    let end = reached.checked_add(hole).filter(|&end| end <= i64::MAX as u64);
    end.ok_or(Fault::Refused("content beyond the largest file"))
}

impl Session {
    pub(super) fn open_content(&mut self, replica: &mut Replica, object: ObjectId) -> Result<(), Fault> {
        self.open = None;
        if !self.asked.contains(object)? {
            // An op has removed it, or nobody asked.
            return Ok(());
        }
        if self.hold(replica, object) {
            return Ok(());
        }
        let all = Comes::All { reached: 0 };
        let done = OpenFile::open(replica, object, all).map(|open| self.open = Some(open));
        self.or_leave_content(replica, object, done)
    }

    pub(super) fn write_content(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        hole: u64,
        offset: u64,
        bytes: &Bytes,
    ) -> Result<(), Fault> {
        if self.hold_bytes(replica, object, (hole, offset), bytes)? {
            self.unsettled.add_bytes(bytes.len() as u64);
            return Ok(());
        }
        let Some(open) = self.opened(object) else { return Ok(()) };
        // Flags that have come meanwhile may have been set.
        replica.lifting(object, |_| open.write(hole, offset, bytes))?;
        self.unsettled.add_bytes(bytes.len() as u64);
        Ok(())
    }

    /// All content has come: the file has this size, whatever has become of it while it was read.
    pub(super) fn close_content(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        (hole, size): (u64, u64),
        attributes: &Attributes,
        xattrs: &[Xattr],
    ) -> Result<(), Fault> {
        if self.hand_over(replica, object, (hole, size), attributes, xattrs)? {
            return Ok(());
        }
        let Some(open) = self.opened(object) else { return Ok(()) };
        open.check_end(hole, size)?;
        let handle = open.handle;
        if replica.handle(object)? != Some(handle) && !planted::is(Planted::ClosesAnyInode) {
            // Another inode has taken its place: what has come is not in it.
            self.open = None;
            return Ok(());
        }
        self.complete(replica, object, size, attributes, xattrs)
    }

    /// All of its content is here.
    pub(super) fn complete(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        size: u64,
        attributes: &Attributes,
        xattrs: &[Xattr],
    ) -> Result<(), Fault> {
        let file = replica.writable(object)?;
        if inode::stat(&*file)?.st_size as u64 != size {
            guard::resizing(&file, size);
            file.set_len(size).map_err(Fault::system("truncate"))?;
        }
        let mode = replica.policy().mode(&*file, attributes.mode)?;
        let attributes = Attributes { mode, ..*attributes };
        let xattrs = replica.policy().xattrs(xattrs);
        self.make_attributes(replica, (object, &file), &attributes, &xattrs)?;
        replica.policy().unmark(&*file)?;
        self.has_come(replica, object, attributes.mtime)
    }

    /// All of its content is here, and its attributes.
    pub(super) fn has_come(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        mtime: Timestamp,
    ) -> Result<(), Fault> {
        self.complete_with(replica, object, mtime)?;
        self.asked.forget(object)?;
        self.uncall(object)?;
        self.close_open(object);
        self.forget_compared(object);
        Ok(())
    }

    /// Nothing more comes of it.
    fn close_open(&mut self, object: ObjectId) {
        self.open.take_if(|open| open.object == object);
        self.beside.drop_held(object);
    }

    /// What is on the way of a file is not taken: all of it is to be asked for.
    pub(super) fn comes_anew(&mut self, object: ObjectId) -> Result<(), Fault> {
        self.close_open(object);
        self.forget_compared(object);
        self.uncall(object)?;
        self.asked.forget(object)
    }

    /// No content comes of a file that was asked for: the source cannot read it, or it is gone.
    pub(super) fn leave_content(&mut self, object: ObjectId) -> Result<(), Fault> {
        self.close_open(object);
        self.forget_compared(object);
        self.uncall(object)?;
        if !self.asked.contains(object)? {
            return Ok(());
        }
        // The next copy asks for it again.
        self.incomplete.leave(object)?;
        self.asked.forget(object)
    }

    /// A fault of this file alone: the rest of its content is not taken.
    pub(super) fn or_leave_content(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        done: Result<(), Fault>,
    ) -> Result<(), Fault> {
        match done {
            // Somebody has taken it away since it was asked for.
            Err(fault @ (Fault::MissingObject(_) | Fault::Outside { .. })) => {
                self.leave_for_good(replica, object, &fault);
                self.leave_content(object)
            }
            Err(fault) if self.keeps_out(replica, &fault) => {
                self.leave_for_good(replica, object, &fault);
                self.leave_content(object)
            }
            done => done,
        }
    }

    /// None where an op has removed it since, or nobody has asked for it.
    fn opened(&mut self, object: ObjectId) -> Option<&mut OpenFile> {
        self.open.as_mut().filter(|open| open.object == object)
    }
}

/// As a file is made: root's alone, and nothing but its owner's rights.
fn is_private(status: &Stat) -> bool {
    (status.st_uid, status.st_mode & 0o7077) == (0, 0)
}
