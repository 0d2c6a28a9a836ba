//! Options of one mount (not of its file system): what they are, and changing them in place.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use rustix::mount::{MountAttrFlags, MountFlags};

/// `ro`, `nosuid`, `nodev`, `noexec`, `nosymfollow`, and the rule for access times: the bits of
/// `mount_setattr(2)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountOptions(u64);

/// Bits, their names in `/proc/PID/mountinfo`, and their flags for `mount(2)` (`linux/mount.h`).
/// Without any of the last two access times are strict; `relatime` is no bit.
const NAMES: [(u64, &str, u32); 7] = [
    (MountOptions::READ_ONLY.0, "ro", 1),
    (0x2, "nosuid", 2),
    (0x4, "nodev", 4),
    (0x8, "noexec", 8),
    (0x20_0000, "nosymfollow", 256),
    (0x80, "nodiratime", 2048),
    (NOATIME, "noatime", 1024),
];
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const MS_RELATIME: u32 = 1 << 21;
const MS_STRICTATIME: u32 = 1 << 24;

impl MountOptions {
    pub const READ_ONLY: MountOptions = MountOptions(0x1);
    /// Everything about access times.
    pub const ACCESS_TIMES: MountOptions = MountOptions(0x70 | 0x80);
    const ACCESS_TIME_RULE: MountOptions = MountOptions(0x70);

    /// Reads them as mountinfo has them: those of the mount, and those of its file system, which
    /// can be read-only by itself.
    pub fn parse(mount: &str, file_system: &str) -> MountOptions {
        let has = |name: &str| mount.split(',').any(|option| option == name);
        let mut bits: u64 = NAMES.iter().filter(|(_, name, _)| has(name)).map(|(bit, ..)| bit).sum();
        if bits & NOATIME == 0 && !has("relatime") {
            bits |= STRICTATIME;
        }
        let read_only = file_system.split(',').any(|option| option == "ro");
        MountOptions(if read_only { bits | Self::READ_ONLY.0 } else { bits })
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn with(self, more: MountOptions) -> MountOptions {
        MountOptions(self.0 | more.0)
    }

    pub fn only(self, mask: MountOptions) -> MountOptions {
        MountOptions(self.0 & mask.0)
    }

    pub fn without(self, mask: MountOptions) -> MountOptions {
        MountOptions(self.0 & !mask.0)
    }

    /// Where the two differ; the rule for access times as one.
    pub fn differing(self, other: MountOptions) -> MountOptions {
        let differing = self.0 ^ other.0;
        let rule = Self::ACCESS_TIME_RULE.0;
        MountOptions(if differing & rule != 0 { differing | rule } else { differing })
    }

    /// For a new mount, `ro` left out: that flag would be the file system's.
    pub fn flags(self) -> MountFlags {
        let rest = self.without(Self::READ_ONLY);
        let mut flags: u32 = NAMES.iter().filter(|(bit, ..)| rest.0 & bit != 0).map(|(.., flag)| flag).sum();
        flags |= match self.0 & Self::ACCESS_TIME_RULE.0 {
            0 => MS_RELATIME,
            NOATIME => 0,
            _ => MS_STRICTATIME,
        };
        MountFlags::from_bits_retain(flags)
    }

    /// For a new mount that is not attached yet.
    pub fn attributes(self) -> MountAttrFlags {
        MountAttrFlags::from_bits_retain(self.0 as u32)
    }

    /// As words, for messages.
    pub fn in_words(self) -> String {
        let mut words: Vec<&str> =
            NAMES.iter().filter(|(bit, ..)| self.0 & bit != 0).map(|(_, name, _)| *name).collect();
        match self.0 & Self::ACCESS_TIME_RULE.0 {
            STRICTATIME => words.push("strictatime"),
            0 => words.push("relatime"),
            _ => {}
        }
        words.join(",")
    }
}

/// `struct mount_attr` of `linux/mount.h`.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Changes the options of `mask` to what `options` say, of the mount whose root this is: `path`
/// (no symlink), or with an empty one what `at` itself is.
///
/// Errors: `EBUSY` where it is to be read-only and files are open for writing.
pub fn set_mount_options(
    at: impl AsFd,
    path: &Path,
    mask: MountOptions,
    options: MountOptions,
) -> io::Result<()> {
    let rule = MountOptions::ACCESS_TIME_RULE;
    let wanted = options.only(mask);
    // The kernel takes the rule for access times only with all of its bits in the other field.
    let clear = mask.without(wanted.without(rule));
    let attr = MountAttr { set: wanted.0, clear: clear.0, propagation: 0, user_namespace: 0 };
    let path = std::ffi::CString::new(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))?;
    // SAFETY: a descriptor that lives, a string that ends with 0, a structure of the length that is
    // given; the call only reads them.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at.as_fd().as_raw_fd(),
            path.as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What [`seal_tree`] leaves to the mounts of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// No device node opens.
    NoDevices,
    /// Nothing is written either.
    ReadOnly,
}

/// Of a mount and all mounts below it: nothing is passed on from here or comes in from elsewhere
/// (private propagation), and what [`Seal`] says; options that are there stay. `at` is the root of
/// the topmost one. All or nothing.
pub fn seal_tree(at: impl AsFd, seal: Seal) -> io::Result<()> {
    const NO_DEVICES: u64 = 0x4;
    let set = match seal {
        Seal::NoDevices => NO_DEVICES,
        Seal::ReadOnly => NO_DEVICES | MountOptions::READ_ONLY.0,
    };
    let attr = MountAttr { set, clear: 0, propagation: libc::MS_PRIVATE, user_namespace: 0 };
    // SAFETY: a descriptor that lives, a string that ends with 0, a structure of the length that is
    // given; the call only reads them.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_written() {
        let check = |mount: &str, file_system: &str, bits: u64, flags: u32, words: &str| {
            let options = MountOptions::parse(mount, file_system);
            assert_eq!((options.0, options.flags().bits()), (bits, flags), "{mount}");
            assert_eq!(options.in_words(), words);
        };
        check("rw,relatime", "rw", 0, MS_RELATIME, "relatime");
        check(
            "rw,nosuid,nodev,noexec,noatime",
            "rw,x",
            0x1e,
            2 | 4 | 8 | 1024,
            "nosuid,nodev,noexec,noatime",
        );
        check("ro,nodiratime,relatime", "rw", 0x81, 2048 | MS_RELATIME, "ro,nodiratime,relatime");
        check("rw", "ro,errors=remount-ro", 0x21, MS_STRICTATIME, "ro,strictatime");
        check("rw,nosymfollow,relatime", "rw", 0x20_0000, 256 | MS_RELATIME, "nosymfollow,relatime");
    }

    #[test]
    fn the_rule_for_access_times_differs_as_one() {
        let options = |text| MountOptions::parse(text, "rw");
        let differing = options("rw,noatime").differing(options("rw,nosuid,relatime"));
        assert_eq!(differing, MountOptions(0x72));
        assert!(options("rw").differing(options("rw")).is_empty());
    }

    #[test]
    fn a_mount_takes_them_one_by_one() {
        assert!(rustix::process::geteuid().is_root(), "this test mounts a tmpfs: run it as root");
        let dir = tempfile::tempdir().unwrap();
        let start = MountOptions::parse("rw,nodev,noatime", "rw");
        rustix::mount::mount("none", dir.path(), "tmpfs", start.flags(), None).unwrap();
        let read = || {
            let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            let line = table.lines().find(|line| line.contains(dir.path().to_str().unwrap())).unwrap();
            MountOptions::parse(line.split(' ').nth(5).unwrap(), "rw")
        };
        let began = read();
        let set = |mask: MountOptions, options: &str| {
            set_mount_options(rustix::fs::CWD, dir.path(), mask, MountOptions::parse(options, "rw"))
        };
        let steps = [
            (MountOptions::ACCESS_TIMES, "rw,nosuid,nodiratime,relatime", "rw,nodev,nodiratime,relatime"),
            (MountOptions(0x2), "rw,nosuid", "rw,nosuid,nodev,nodiratime,relatime"),
            (MountOptions::READ_ONLY, "ro", "ro,nosuid,nodev,nodiratime,relatime"),
            (MountOptions::ACCESS_TIME_RULE, "rw", "ro,nosuid,nodev,nodiratime"),
            (MountOptions::READ_ONLY, "rw", "rw,nosuid,nodev,nodiratime"),
        ];
        let outcomes = steps.map(|(mask, options, _)| set(mask, options).map(|()| read()));
        rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        assert_eq!(began, start);
        for (outcome, (_, _, after)) in outcomes.into_iter().zip(steps) {
            assert_eq!(outcome.unwrap(), MountOptions::parse(after, "rw"), "{after}");
        }
    }
}
