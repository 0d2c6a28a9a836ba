//! The users and groups of this host: `/etc/passwd` and `/etc/group`, read again when they have changed.
//!
//! No service is asked: that may take long, and a link waits for nothing.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::limits::OWNER_NAME_LEN_MAX;
use crate::privileges::unconfined;

/// Both.
pub(super) struct Accounts {
    pub(super) users: Table,
    pub(super) groups: Table,
}

impl Accounts {
    pub(super) fn of_host() -> Accounts {
        Accounts { users: Table::of("/etc/passwd".into()), groups: Table::of("/etc/group".into()) }
    }
}

/// What one of the files says: a name, something, a number, separated by colons.
pub(super) struct Table {
    path: PathBuf,
    /// What the file was like when it was read.
    read: Option<Stamp>,
    names: HashMap<u32, Vec<u8>>,
    numbers: HashMap<Vec<u8>, u32>,
}

/// Device, inode, size, times.
type Stamp = (u64, u64, u64, i64, i64, i64, i64);

impl Table {
    pub(super) fn of(path: PathBuf) -> Table {
        Table { path, read: None, names: HashMap::new(), numbers: HashMap::new() }
    }

    /// The first of its names.
    pub(super) fn name(&mut self, number: u32) -> Option<&[u8]> {
        self.refresh();
        self.names.get(&number).map(Vec::as_slice)
    }

    pub(super) fn number(&mut self, name: &[u8]) -> Option<u32> {
        self.refresh();
        self.numbers.get(name).copied()
    }

    /// Of a file that cannot be read what was read before counts.
    fn refresh(&mut self) {
        let (path, known) = (self.path.clone(), self.read);
        match unconfined(move || read_if_changed(&path, known)) {
            Ok(Some((stamp, text))) => {
                self.take(&text);
                self.read = Some(stamp);
            }
            Ok(None) => {}
            Err(error) => log::debug!("{} cannot be read: {error}", self.path.display()),
        }
    }

    fn take(&mut self, text: &[u8]) {
        self.names.clear();
        self.numbers.clear();
        for (name, number) in text.split(|byte| *byte == b'\n').filter_map(account) {
            self.names.entry(number).or_insert_with(|| name.to_vec());
            self.numbers.entry(name.to_vec()).or_insert(number);
        }
    }
}

/// `None`: it is as it was.
fn read_if_changed(path: &Path, known: Option<Stamp>) -> io::Result<Option<(Stamp, Vec<u8>)>> {
    let mut file = File::open(path)?;
    let status = file.metadata()?;
    let times = (status.mtime(), status.mtime_nsec(), status.ctime(), status.ctime_nsec());
    let stamp = (status.dev(), status.ino(), status.size(), times.0, times.1, times.2, times.3);
    if known == Some(stamp) {
        return Ok(None);
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(Some((stamp, text)))
}

/// `None`: a remark, a reference to a service, or nonsense.
fn account(line: &[u8]) -> Option<(&[u8], u32)> {
    let mut fields = line.split(|byte| *byte == b':');
    let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
    let is_name = (1..=OWNER_NAME_LEN_MAX).contains(&name.len()) && !b"+-#".contains(&name[0]);
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    is_name.then_some((name, number))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_first_line_counts_and_nonsense_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwd");
        let mut table = Table::of(path.clone());
        assert!(table.name(7).is_none());
        let text =
            "ada:x:7:1::/:\nalso:x:7:1\nada:x:8:2\n+nis:x:9:1\n#x:y:9\n:x:9:\nx\nbad:x:-1:\nb\u{e9}:!:10";
        fs::write(&path, text).unwrap();
        assert_eq!(table.name(7), Some(&b"ada"[..]));
        assert_eq!(
            [table.number(b"ada"), table.number(b"also"), table.number(b"bad")],
            [Some(7), Some(7), None]
        );
        assert_eq!(table.name(8), Some(&b"ada"[..]));
        assert_eq!(table.name(9), None);
        assert_eq!(table.name(10), Some("b\u{e9}".as_bytes()));
        // As `useradd` does it.
        fs::write(dir.path().join("new"), "ada:x:70:1\n").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert_eq!((table.number(b"ada"), table.name(7)), (Some(70), None));
        fs::remove_file(&path).unwrap();
        assert_eq!(table.number(b"ada"), Some(70));
    }
}
