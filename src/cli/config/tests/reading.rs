//! Which files are read: those that nobody else can have written, as a whole, and none in place of one that is gone.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::Path;

use super::super::definition::Definition;
use super::super::file::{self, Section};
use super::super::reading::{read, read_while};
use super::Ground;
use crate::limits::{FAULT_LEN_MAX, FAULTS_MAX};
use crate::xattr::ACL_ACCESS;

const NOBODY: u32 = 65534;

/// As `linux/posix_acl_xattr.h` has it; the owner may read and write.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut list = 2u32.to_le_bytes().to_vec();
    let mut entries = entries.to_vec();
    entries.push((0x01, 6, u32::MAX));
    entries.sort_unstable();
    for (tag, rights, id) in entries {
        list.extend(tag.to_le_bytes().into_iter().chain(rights.to_le_bytes()).chain(id.to_le_bytes()));
    }
    list
}

fn set_acl(path: &Path, entries: &[(u16, u16, u32)]) {
    let name = std::str::from_utf8(ACL_ACCESS).unwrap();
    rustix::fs::setxattr(path, name, &acl(entries), rustix::fs::XattrFlags::empty()).unwrap();
}

/// The bits of the group are the mask there, and root's group was taken for who may write.
#[test]
fn a_list_that_lets_others_write_is_seen() {
    let ground = Ground::new();
    let path = ground.set("web", "dir = \"/srv/data\"\n");
    let own = (0x04, 4, u32::MAX);
    let (mask, others) = ((0x10, 6, u32::MAX), (0x20, 4, u32::MAX));
    set_acl(&path, &[(0x02, 4, NOBODY), own, mask, others]);
    assert!(read(&path).unwrap().is_some(), "who may only read says nothing");
    set_acl(&path, &[(0x02, 6, 0), own, mask, others]);
    assert!(read(&path).unwrap().is_some(), "root may");
    set_acl(&path, &[(0x02, 6, NOBODY), own, (0x10, 4, u32::MAX), others]);
    assert!(read(&path).unwrap().is_some(), "the mask takes it away");
    for (entry, who) in [((0x02, 6, NOBODY), "user 65534"), ((0x08, 6, NOBODY), "group 65534")] {
        set_acl(&path, &[entry, own, mask, others]);
        let why = read(&path).unwrap_err();
        assert!(why.contains(who) && why.contains("getfacl"), "{why}");
    }
    let other = ground.set("other", "");
    let sets = other.parent().unwrap();
    set_acl(sets, &[(0x02, 7, NOBODY), (0x04, 5, u32::MAX), (0x10, 7, u32::MAX), (0x20, 5, u32::MAX)]);
    assert!(read(&other).unwrap_err().contains("user 65534 may write to its directory"));
}

/// Who may write to a directory on the way puts another file there.
#[test]
fn others_decide_nothing_on_the_way() {
    let ground = Ground::new();
    let path = ground.set("web", "dir = \"/srv/data\"\n");
    let base = ground.0.path();
    let with = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    with(base, 0o777);
    assert!(read(&path).unwrap_err().contains("above it"));
    with(base, 0o1777);
    assert!(read(&path).unwrap().is_some(), "nobody takes away what is another one's");
    with(base, 0o700);
    let theirs = base.join("theirs");
    fs::create_dir(&theirs).unwrap();
    fs::write(theirs.join("web.toml"), "").unwrap();
    chown(&theirs, Some(NOBODY), None).unwrap();
    let link = base.join("sets/link.toml");
    symlink("../theirs/web.toml", &link).unwrap();
    assert!(read(&link).unwrap_err().contains("belongs to user 65534"));
    chown(&theirs, Some(0), None).unwrap();
    assert_eq!(read(&link), Ok(Some(String::new())));
    lchown(&link, Some(NOBODY), None).unwrap();
    let why = read(&link).unwrap_err();
    assert!(why.contains("the link") && why.contains("user 65534"), "{why}");
}

/// The disk that a link leads to is not mounted: that took every rule away.
#[test]
fn a_link_that_leads_nowhere_is_no_missing_file() {
    let ground = Ground::new();
    let base = ground.0.path();
    let path = ground.set("web", "");
    fs::remove_file(&path).unwrap();
    assert_eq!(read(&path), Ok(None));
    symlink("/nowhere/at/all.toml", &path).unwrap();
    assert!(read(&path).unwrap_err().contains("leads nowhere"));
    let error = ground.protect("/srv/web").unwrap_err();
    assert!(error.contains("leads nowhere"), "{error}");
    // A directory on the way.
    fs::create_dir(base.join("disk")).unwrap();
    symlink("../disk/web.toml", base.join("sets/other.toml")).unwrap();
    assert!(read(&base.join("sets/other.toml")).unwrap_err().contains("leads nowhere"));
    fs::rename(base.join("sets"), base.join("disk/sets")).unwrap();
    symlink("disk/sets", base.join("sets")).unwrap();
    assert_eq!(read(&base.join("sets/none.toml")), Ok(None), "the link leads somewhere");
    fs::rename(base.join("disk"), base.join("away")).unwrap();
    let why = read(&base.join("sets/none.toml")).unwrap_err();
    assert!(why.contains("leads nowhere") && why.contains("mounted"), "{why}");
    // In a circle.
    symlink("b.toml", base.join("a.toml")).unwrap();
    symlink("a.toml", base.join("b.toml")).unwrap();
    assert!(read(&base.join("a.toml")).unwrap_err().contains("too many links"));
}

/// Each fault was looked for from the beginning of the file, and all of them were listed: minutes, and megabytes.
#[test]
fn a_file_of_faults_is_no_work() {
    let check = |text: &str| {
        let parsed = file::parse(Path::new("web.toml"), text, &Definition::protect(), Section::Whole);
        assert_eq!(parsed.faults.len(), FAULTS_MAX + 1);
        assert!(parsed.faults[FAULTS_MAX].what.contains("more may be wrong"));
        let what = parsed.checked("").unwrap_err().what;
        assert!(what.len() < (FAULTS_MAX + 1) * (FAULT_LEN_MAX + 100), "{}", what.len());
    };
    check(&"=".repeat(900_000));
    check(&"=\n".repeat(450_000));
    check(&(0..30_000).map(|number| format!("k{number}=1\n")).collect::<String>());
    check(&"[[rule]]\nexclud = 1\n".repeat(20_000));
}

/// A key of control characters would be the terminal's; one as long as the file, nobody's.
#[test]
fn what_is_said_can_be_read() {
    let long = format!("{} = 1\n", "k".repeat(100_000));
    for text in ["\"\\u001b[2Jx\" = 1\n", "limit = \"\\u001b]0;x\\u0007\"\n", &long] {
        let parsed = file::parse(Path::new("web.toml"), text, &Definition::protect(), Section::Whole);
        assert_eq!(parsed.faults.len(), 1, "{text:.50}");
        let what = &parsed.faults[0].what;
        assert!(!what.chars().any(char::is_control) && what.chars().count() <= FAULT_LEN_MAX + 1, "{what:?}");
    }
}

/// A program that writes in place is not read in the middle.
#[test]
fn half_a_file_is_not_read() {
    let ground = Ground::new();
    let path = ground.set("web", "limit = ");
    let left = std::cell::Cell::new(1);
    let goes_on = || {
        if left.replace(0) > 0 {
            fs::write(&path, "limit = \"1M\"\n").unwrap();
        }
    };
    assert_eq!(read_while(&path, &goes_on), Ok(Some("limit = \"1M\"\n".to_owned())));
    let number = std::cell::Cell::new(0);
    let never_ends = || fs::write(&path, "#".repeat(number.replace(number.get() + 1) % 7)).unwrap();
    assert!(read_while(&path, &never_ends).unwrap_err().contains("being written"));
}
