//! What of a directory a target could not hold: counted, for a few seconds at most.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::packet::Holdings;

/// Longer than that nobody waits for a number: what was looked at until then is said.
const PATIENCE: Duration = Duration::from_secs(5);

/// What XFS takes as the target of a symlink: `XFS_SYMLINK_MAXLEN` of the kernel's `xfs_format.h`, with the byte that ends
/// it. Other file systems take a page, or what the system calls pass on.
const XFS_LINK_LEN_MAX: u64 = 1023;

/// See the module.
#[derive(Debug, Default)]
pub(in crate::cli) struct Census {
    pub(in crate::cli) objects: u64,
    /// Of the disk.
    pub bytes: u64,
    /// Not all was looked at.
    pub is_cut_off: bool,
    pub long_names: u64,
    pub long_files: u64,
    pub long_links: u64,
    pub fine_times: u64,
    pub odd_times: u64,
    pub user_xattrs: u64,
    pub acls: u64,
    pub long_xattrs: u64,
    pub folded_names: u64,
}

impl Census {
    /// Of one file system. What cannot be read is left out.
    pub fn of(dir: &Path, holdings: &Holdings) -> Census {
        let (mut census, mut waiting) = (Census::default(), vec![dir.to_owned()]);
        let Ok(root) = fs::symlink_metadata(dir) else { return census };
        let deadline = Instant::now() + PATIENCE;
        while let Some(dir) = waiting.pop() {
            let mut folded = HashSet::new();
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                let (path, name) = (entry.path(), entry.file_name());
                let Ok(meta) = entry.metadata() else { continue };
                census.count(&path, name.as_bytes(), &meta, holdings);
                if holdings.case_insensitive && !folded.insert(name.to_string_lossy().to_lowercase()) {
                    census.folded_names += 1;
                }
                if meta.is_dir() && meta.dev() == root.dev() {
                    waiting.push(path);
                }
            }
            if Instant::now() > deadline && !waiting.is_empty() {
                census.is_cut_off = true;
                break;
            }
        }
        census
    }

    fn count(&mut self, path: &PathBuf, name: &[u8], meta: &Metadata, holdings: &Holdings) {
        let mut add = |counter: fn(&mut Census) -> &mut u64, is_so: bool| *counter(self) += u64::from(is_so);
        add(|census| &mut census.objects, true);
        add(|census| &mut census.long_names, name.len() > holdings.name_len_max as usize);
        add(|census| &mut census.long_files, meta.is_file() && meta.len() > holdings.file_len_max);
        add(|census| &mut census.long_links, meta.is_symlink() && meta.len() > XFS_LINK_LEN_MAX);
        add(|census| &mut census.fine_times, !holdings.nanoseconds && meta.mtime_nsec() != 0);
        let is_odd = |seconds: i64| {
            !holdings.early_times && seconds < i64::from(i32::MIN)
                || !holdings.late_times && seconds > i64::from(i32::MAX)
        };
        add(|census| &mut census.odd_times, is_odd(meta.mtime()));
        self.bytes = self.bytes.saturating_add(meta.blocks().saturating_mul(512));
        self.attributes(path, holdings);
    }

    fn attributes(&mut self, path: &PathBuf, holdings: &Holdings) {
        let mut names = [0; 4096];
        let Ok(len) = rustix::fs::llistxattr(path, &mut names) else { return };
        for name in names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            self.user_xattrs += u64::from(name.starts_with(b"user."));
            self.acls += u64::from(name.starts_with(b"system.posix_acl"));
            let mut value = vec![0; 65_536];
            let len = rustix::fs::lgetxattr(path, name, &mut value).unwrap_or_default();
            self.long_xattrs += u64::from(len > holdings.xattr_len_max as usize);
        }
    }
}
