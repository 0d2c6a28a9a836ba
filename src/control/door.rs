//! The mode of the control socket: root's, and an access list where groups may ask, too. A mode alone has room for
//! one group.

use std::io;
use std::path::Path;

use rustix::fs::{XattrFlags, setxattr};

const ACCESS_LIST: &str = "system.posix_acl_access";

/// `linux/posix_acl.h`, `linux/posix_acl_xattr.h`.
const VERSION: u32 = 2;
const USER_OBJECT: u16 = 0x01;
const GROUP_OBJECT: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const NO_ID: u32 = u32::MAX;
const READ_WRITE: u16 = 6;

/// Lets these groups connect beside the owner, and nobody else; without groups the mode is left as it is. `socket`
/// is no symlink.
///
/// Errors: the file system takes no access lists.
pub(super) fn open_to(socket: &Path, groups: impl Iterator<Item = u32>) -> io::Result<()> {
    let mut groups: Vec<u32> = groups.collect();
    groups.sort_unstable();
    groups.dedup();
    if groups.is_empty() {
        return Ok(());
    }
    Ok(setxattr(socket, ACCESS_LIST, &access_list(&groups), XattrFlags::empty())?)
}

fn access_list(groups: &[u32]) -> Vec<u8> {
    let mut entries = vec![(USER_OBJECT, READ_WRITE, NO_ID), (GROUP_OBJECT, 0, NO_ID)];
    entries.extend(groups.iter().map(|&group| (GROUP, READ_WRITE, group)));
    entries.extend([(MASK, READ_WRITE, NO_ID), (OTHER, 0, NO_ID)]);
    let mut list = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::net::UnixListener;

    /// The mask stands where the group's own rights stood; others stay out.
    #[test]
    fn groups_come_in_and_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("x.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        let mode = || std::fs::metadata(&socket).unwrap().mode() & 0o777;
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600)).unwrap();
        open_to(&socket, [].into_iter()).unwrap();
        assert_eq!(mode(), 0o600);
        open_to(&socket, [701, 700, 701].into_iter()).unwrap();
        assert_eq!(mode(), 0o660);
        let mut list = vec![0; 256];
        let len = rustix::fs::getxattr(&socket, ACCESS_LIST, &mut list[..]).unwrap();
        assert_eq!(list[..len], access_list(&[700, 701]));
    }
}
