//! The text of a file of options, if nobody but root (and who runs this) can have written it: whoever can decides what
//! is replicated, and to where. That is so of the file, and of every directory and link on the way to it, since who
//! may write to one of those can put another file in its place.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::limits::{CONFIGURATION_LEN_MAX, CONFIGURATION_LINKS_MAX};
use crate::xattr::ACL_ACCESS;

/// How often a file that is being written meanwhile is read again, and what is waited before that.
const AGAIN: u32 = 20;
const BEFORE_AGAIN: Duration = Duration::from_millis(5);

/// See the module. `None` where there is none.
///
/// Errors: why it is not read. A link that leads nowhere is no file that is not there: its disk may not be mounted.
pub fn read(path: &Path) -> Result<Option<String>, String> {
    read_while(path, &|| {})
}

/// `meanwhile`: between the reading and the look whether somebody wrote.
pub(super) fn read_while(path: &Path, meanwhile: &dyn Fn()) -> Result<Option<String>, String> {
    let path = &std::path::absolute(path).map_err(|error| error.to_string())?;
    if Way::to(path).check()?.is_none() {
        return Ok(None);
    }
    for _ in 0..AGAIN {
        match read_once(path, meanwhile)? {
            Reading::Absent => return Ok(None),
            Reading::Text(text) => return Ok(Some(text)),
            Reading::Changing => std::thread::sleep(BEFORE_AGAIN),
        }
    }
    Err("it is being written all the time".to_owned())
}

enum Reading {
    Absent,
    Text(String),
    /// Somebody wrote to it meanwhile: it may be half of what it becomes.
    Changing,
}

fn read_once(path: &Path, meanwhile: &dyn Fn()) -> Result<Reading, String> {
    // Whatever lies there, nobody waits for it.
    let flags = (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits() as i32;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Reading::Absent),
        opened => opened.map_err(|error| error.to_string())?,
    };
    let found = file.metadata().map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("it is no file".to_owned());
    }
    if found.len() > CONFIGURATION_LEN_MAX {
        return Err(format!("it is longer than {}", crate::units::size(CONFIGURATION_LEN_MAX)));
    }
    must_be_own("it", &found)?;
    nobody_may_write("it", &found, acl_of_file(&file)?.as_deref())?;
    let mut bytes = Vec::new();
    (&file).take(CONFIGURATION_LEN_MAX).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    meanwhile();
    let now = file.metadata().map_err(|error| error.to_string())?;
    let state = |of: &Metadata| (of.len(), of.ctime(), of.ctime_nsec());
    if state(&now) != state(&found) || now.len() != bytes.len() as u64 {
        return Ok(Reading::Changing);
    }
    String::from_utf8(bytes).map(Reading::Text).map_err(|_| "it is no text in UTF-8".to_owned())
}

/// From the root to a file, through every link.
struct Way {
    at: PathBuf,
    /// What is still to go, the next one last.
    left: Vec<OsString>,
    /// Links on whose way this is, the outermost first: how much is left behind the end of each.
    inside: Vec<(usize, PathBuf)>,
    links: usize,
}

impl Way {
    /// `path`: from the root on.
    fn to(path: &Path) -> Way {
        let mut way = Way { at: PathBuf::from("/"), left: Vec::new(), inside: Vec::new(), links: 0 };
        way.put(path);
        way
    }

    fn put(&mut self, path: &Path) {
        if path.is_absolute() {
            self.at = PathBuf::from("/");
        }
        for part in path.components().rev() {
            match part {
                Component::Normal(name) => self.left.push(name.to_owned()),
                Component::ParentDir => self.left.push(OsString::from("..")),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
    }

    /// `None`: there is no such file.
    ///
    /// Errors: others decide what is there, or a link leads nowhere.
    fn check(mut self) -> Result<Option<()>, String> {
        self.directory(&fs::symlink_metadata("/").map_err(|error| error.to_string())?)?;
        while let Some(next) = self.left.pop() {
            self.inside.retain(|(behind, _)| *behind <= self.left.len());
            if next == ".." {
                self.at.pop();
                continue;
            }
            let path = self.at.join(&next);
            let found = match fs::symlink_metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return match self.inside.first() {
                        Some((_, link)) => Err(format!(
                            "{} is a link that leads nowhere (is its disk mounted?)",
                            link.display()
                        )),
                        None => Ok(None),
                    };
                }
                found => found.map_err(|error| error.to_string())?,
            };
            self.step(path, &found)?;
        }
        Ok(Some(()))
    }

    fn step(&mut self, path: PathBuf, found: &Metadata) -> Result<(), String> {
        if found.is_symlink() {
            self.links += 1;
            if self.links > CONFIGURATION_LINKS_MAX {
                return Err(format!("{} is one of too many links", path.display()));
            }
            must_be_own(&format!("the link {}", path.display()), found)?;
            let target = fs::read_link(&path).map_err(|error| error.to_string())?;
            self.inside.push((self.left.len(), path));
            self.put(&target);
            return Ok(());
        }
        self.at = path;
        match found.is_dir() {
            true => self.directory(found),
            false => Ok(()),
        }
    }

    /// Where everybody may write and nobody may take away what is another one's, as in /tmp, only what lies directly in
    /// it could be anybody's.
    fn directory(&self, found: &Metadata) -> Result<(), String> {
        let what = match self.left.len() {
            1 => "its directory".to_owned(),
            _ => format!("the directory {} above it", self.at.display()),
        };
        must_be_own(&what, found)?;
        let is_sticky = found.mode() & 0o1000 != 0;
        if is_sticky && self.left.len() > 1 {
            return Ok(());
        }
        nobody_may_write(&what, found, acl_of(&self.at)?.as_deref())
    }
}

fn must_be_own(what: &str, found: &Metadata) -> Result<(), String> {
    match is_own(found.uid()) {
        true => Ok(()),
        false => Err(format!("{what} belongs to user {}, who may not say what this host does", found.uid())),
    }
}

fn is_own(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// With an access control list the bits of the group are its mask, and say nothing of the group.
fn nobody_may_write(what: &str, found: &Metadata, acl: Option<&[u8]>) -> Result<(), String> {
    let mode = found.mode() & 0o7777;
    let others = match acl {
        Some(acl) => match writers(acl, found.gid()) {
            Some(others) => others,
            None => return Err(format!("the access control list of {what} is not understood")),
        },
        None if mode & 0o002 != 0 || (mode & 0o020 != 0 && found.gid() != 0) => vec!["others".to_owned()],
        None => Vec::new(),
    };
    let by = match acl {
        Some(_) => "by its access control list, which getfacl shows".to_owned(),
        None => format!("mode {mode:04o}"),
    };
    match others.first() {
        None => Ok(()),
        Some(who) => Err(format!("{who} may write to {what} ({by}): take that right away")),
    }
}

/// Entries of a list as the kernel gives it (`linux/posix_acl_xattr.h`: a version, then tag, rights and id of each, little
/// endian).
const ACL_VERSION: u32 = 2;
const ACL_USER: u16 = 0x02;
const ACL_GROUP_OBJ: u16 = 0x04;
const ACL_GROUP: u16 = 0x08;
const ACL_MASK: u16 = 0x10;
const ACL_OTHER: u16 = 0x20;
const ACL_WRITE: u16 = 0x02;

/// Who may write by a list and is not root. `None`: it is no such list.
fn writers(acl: &[u8], gid: u32) -> Option<Vec<String>> {
    let (version, entries) = acl.split_first_chunk::<4>()?;
    let (entries, rest) = entries.as_chunks::<8>();
    if u32::from_le_bytes(*version) != ACL_VERSION || !rest.is_empty() {
        return None;
    }
    let of = |entry: &[u8; 8]| {
        let [tag, tag2, rights, rights2, id @ ..] = *entry;
        (u16::from_le_bytes([tag, tag2]), u16::from_le_bytes([rights, rights2]), u32::from_le_bytes(id))
    };
    let all: Vec<(u16, u16, u32)> = entries.iter().map(of).collect();
    let mask = all.iter().find(|(tag, ..)| *tag == ACL_MASK).map_or(u16::MAX, |(_, rights, _)| *rights);
    let who = |&(tag, rights, id): &(u16, u16, u32)| match tag {
        ACL_OTHER if rights & ACL_WRITE != 0 => Some("others".to_owned()),
        _ if rights & mask & ACL_WRITE == 0 => None,
        ACL_USER if !is_own(id) => Some(format!("user {id}")),
        ACL_GROUP if id != 0 => Some(format!("group {id}")),
        ACL_GROUP_OBJ if gid != 0 => Some(format!("group {gid}")),
        _ => None,
    };
    Some(all.iter().filter_map(who).collect())
}

fn acl_of_file(file: &File) -> Result<Option<Vec<u8>>, String> {
    acl(|name, value| rustix::fs::fgetxattr(file, name, value))
}

fn acl_of(directory: &Path) -> Result<Option<Vec<u8>>, String> {
    acl(|name, value| rustix::fs::getxattr(directory, name, value))
}

/// `None`: there is none, or the file system knows none.
fn acl(
    get: impl Fn(&OsStr, &mut [u8]) -> Result<usize, rustix::io::Errno>,
) -> Result<Option<Vec<u8>>, String> {
    use std::os::unix::ffi::OsStrExt;
    let mut value = vec![0; 64 << 10];
    match get(OsStr::from_bytes(ACL_ACCESS), &mut value) {
        Ok(len) => {
            value.truncate(len);
            Ok(Some(value))
        }
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(format!("its access control list cannot be read: {error}")),
    }
}
