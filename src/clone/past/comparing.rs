//! What an object was at the barrier, beside what has its path now.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::FileType;

use super::{Child, Content, Past};
use crate::clone::limits::CHUNK;
use crate::clone::looks::Looks;
use crate::privileges::by_handle;
use crate::reads::{Reads, read_up_to};
use crate::sys::FileHandle;

/// In what an object differs from what has its path now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Nothing has its path.
    Gone,
    /// Bytes of a file, where a symlink leads, the kind of an object.
    Content,
    /// Owner, mode, extended attributes; but for directories the time of the last change, too.
    Attributes,
}

impl How {
    pub fn word(self) -> &'static str {
        match self {
            How::Gone => "gone",
            How::Content => "content",
            How::Attributes => "attributes",
        }
    }
}

impl Past {
    pub(super) fn compare(
        &mut self,
        child: &Child,
        looks: &Looks,
        now: Option<&(FileHandle, File)>,
    ) -> io::Result<Vec<How>> {
        let Some((handle, file)) = now else { return Ok(vec![How::Gone]) };
        let own = Looks::of(file.as_fd())?;
        if own.kind() != looks.kind() {
            return Ok(vec![How::Content]);
        }
        let is_same = match looks.kind() {
            FileType::RegularFile if looks.size != own.size => false,
            FileType::RegularFile if *handle == child.handle => self.has_its_blocks(child, looks.size)?,
            FileType::RegularFile => self.has_content(child, looks.size, file)?,
            FileType::Symlink if *handle != child.handle => {
                let leads = |file: &File| rustix::fs::readlinkat(file, c"", Vec::new());
                child.file.as_ref().map(leads).transpose()? == Some(leads(file)?)
            }
            FileType::CharacterDevice | FileType::BlockDevice => looks.device == own.device,
            _ => true,
        };
        let mut how = Vec::new();
        if !is_same {
            how.push(How::Content);
        }
        if differ(looks, &own) {
            how.push(How::Attributes);
        }
        Ok(how)
    }

    /// Of the same file, of the same size: whether it has again, or still, what was preserved.
    fn has_its_blocks(&mut self, child: &Child, size: u64) -> io::Result<bool> {
        let Some(file) = &child.file else { return Ok(false) };
        self.read_on()?;
        let Some(ranges) = self.content.get(&child.handle) else { return Ok(true) };
        let (now, blocks) = (by_handle::reopen_to_read(file.as_fd())?, self.blocks_of(&child.handle)?);
        let mut buffers = [vec![0; CHUNK as usize], vec![0; CHUNK as usize]];
        for (&from, &to) in ranges {
            let (mut at, end) = (from, to.min(size));
            while at < end {
                let len = (end - at).min(CHUNK) as usize;
                let [own, kept] = &mut buffers;
                own[..len].fill(0);
                kept[..len].fill(0);
                read_up_to(&now, &mut own[..len], at, Reads::Cached)?;
                if let Some(blocks) = &blocks {
                    read_up_to(blocks, &mut kept[..len], at, Reads::Cached)?;
                }
                if own[..len] != kept[..len] {
                    return Ok(false);
                }
                at += len as u64;
            }
        }
        Ok(true)
    }

    /// Of another file of the same size.
    fn has_content(&mut self, child: &Child, size: u64, other: &File) -> io::Result<bool> {
        let mut content = Content::of_child(child, size)?;
        let (other, mut buffer) = (by_handle::reopen_to_read(other.as_fd())?, Vec::new());
        while let Some((at, bytes)) = content.next(self)? {
            buffer.clear();
            buffer.resize(bytes.len(), 0);
            read_up_to(&other, &mut buffer, at, Reads::Passing)?;
            if buffer != bytes {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn differ(one: &Looks, other: &Looks) -> bool {
    let sorted = |looks: &Looks| {
        let mut xattrs = looks.xattrs.clone();
        xattrs.sort();
        xattrs
    };
    // That of a directory says that a name in it has changed.
    let times = one.kind() != FileType::Directory && one.mtime != other.mtime;
    times
        || (one.mode, one.uid, one.gid) != (other.mode, other.uid, other.gid)
        || sorted(one) != sorted(other)
}
