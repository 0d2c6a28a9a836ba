//! Whether what the index knows is still there: somebody may have emptied the replica, in part or in
//! full, and no packet may have met that yet.
//!
//! Of a good replica every object of the index has a name in it, the root of a replica that knows more
//! than itself has names, and it has a name itself. A sample is looked at: who emptied a replica took all
//! of it, and who took one file in fifty is found with 64 looks three times in four. What is said is
//! always true, and that nothing is said proves nothing.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::inside::Remembered;
use super::progress::is_empty;
use super::{Access, Replica, by_handle, path_of};
use crate::apply::fault::Fault;
use crate::apply::inode;
use crate::packet::{DataState, ObjectId};
use crate::store::random_u64;
use crate::sys::FileHandle;

impl Replica {
    /// Looks for some of what a good replica has; gives what is missing, if something is. Of a replica
    /// that is not good nothing is expected.
    ///
    /// Errors: the system's; nothing follows.
    pub(in crate::apply) fn missing(&self, looks: usize) -> Result<Option<String>, Fault> {
        if self.data().state != DataState::Good || self.in_doubt() || self.sync_failed() {
            return Ok(None);
        }
        if inode::stat(self.root())?.st_nlink == 0 {
            return Ok(Some("its directory was removed".to_owned()));
        }
        let has_objects = self.index().len() > 1;
        if has_objects && is_empty(self.root()).map_err(Fault::system("list the replica"))? {
            return Ok(Some("its directory was emptied".to_owned()));
        }
        self.missing_object(looks)
    }

    /// What is written to by a descriptor that was opened before may have lost its name to somebody since.
    pub(in crate::apply) fn look_at_names(&mut self, id: ObjectId) {
        let held = self.descriptors.get(id, Access::Path);
        if held.is_some_and(|file| inode::stat(&*file).is_ok_and(|status| status.st_nlink == 0)) {
            self.without_name.set(Some(id));
        }
    }

    fn missing_object(&self, looks: usize) -> Result<Option<String>, Fault> {
        let mut met = Vec::new();
        if let Some(id) = self.without_name.take() {
            met.extend(self.handle(id)?.map(|handle| (id, handle)));
        }
        let some = self.index().some(random_u64(), looks).map_err(Fault::own("object index"))?;
        for (id, handle) in met.into_iter().chain(some) {
            if !self.is_present(id, &handle)? {
                return Ok(Some(format!("somebody removed objects from it (object {id}, and perhaps more)")));
            }
        }
        Ok(None)
    }

    /// What cannot be told without a search counts as present.
    pub(in crate::apply) fn is_present(&self, id: ObjectId, handle: &FileHandle) -> Result<bool, Fault> {
        let file = match by_handle::open(self.root(), handle, libc::O_PATH | libc::O_NOFOLLOW) {
            Ok(file) => File::from(file),
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => return Ok(false),
            Err(error) => return Err(Fault::System { what: "open by handle", error }),
        };
        let status = inode::stat(&file)?;
        if FileType::from_raw_mode(status.st_mode) != FileType::Directory {
            // With several names one outside says nothing of the others.
            return Ok(match status.st_nlink {
                0 => false,
                1 => self.remembered(&file)? != Remembered::Outside,
                _ => true,
            });
        }
        match self.directory_inside(id, &file) {
            Ok(()) => Ok(true),
            Err(Fault::Outside { .. } | Fault::MissingObject(_)) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Whether its path still leads to it: its disk may have been unmounted, or another directory put
    /// there.
    pub fn is_where_it_was(&self) -> bool {
        let own = handle_and_device(self.root());
        path_of(self.root().as_fd()).is_ok() && own.is_some() && self.at_its_path(own)
    }

    /// Nothing that may be there instead is opened: that of a fifo would wait. Where nothing can be opened at all it is
    /// taken to be there.
    fn at_its_path(&self, own: Option<(FileHandle, u64)>) -> bool {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(&self.path, flags, Mode::empty()) {
            Ok(dir) => handle_and_device(&File::from(dir)) == own,
            Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => true,
            Err(_) => false,
        }
    }
}

fn handle_and_device(dir: &File) -> Option<(FileHandle, u64)> {
    Some((FileHandle::of(dir.as_fd()).ok()?, inode::stat(dir).ok()?.st_dev))
}
