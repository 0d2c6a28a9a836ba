//! `chattr` on the mount: what is immutable or append-only there, and on the replica.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::IFlags;
use serde_json::Value;

use crate::host::{
    COMMAND_MAX, Disk, Protected, SYNC_MAX, Setup, describe, heavy, output_within, require_program, run,
    standin,
};
use crate::pair::Pair;
use crate::sys::Mapping;
use crate::tree::Rules;

/// Nothing below it is immutable when it goes.
struct Clears(PathBuf);

impl Drop for Clears {
    fn drop(&mut self) {
        let _ = Command::new("chattr").args(["-R", "-f", "-i", "-a"]).arg(&self.0).output();
    }
}

fn clears(protected: &Protected) -> [Clears; 2] {
    [&protected.backing, &protected.replica].map(|dir| Clears(dir.clone()))
}

#[track_caller]
fn chattr(how: &str, path: &Path) {
    run(Command::new(require_program("chattr")).arg(how).arg(path));
}

fn flags(path: &Path) -> IFlags {
    let carried = IFlags::IMMUTABLE | IFlags::APPEND | IFlags::NODUMP;
    rustix::fs::ioctl_getflags(File::open(path).expect("it can be read")).expect("it has flags") & carried
}

#[track_caller]
fn is_refused(outcome: std::io::Result<()>) {
    assert_eq!(outcome.expect_err("it is immutable").kind(), ErrorKind::PermissionDenied);
}

#[test]
fn what_is_made_immutable_is_so_on_the_replica() {
    for arguments in [&[][..], &["--profile", "batch"]] {
        let mut protected = Protected::start(Setup { arguments: arguments.to_vec(), ..Setup::default() });
        let _clears = clears(&protected);
        let (mount, replica) = (protected.mount.clone(), protected.replica.clone());
        fs::create_dir_all(mount.join("dir/below")).expect("a directory");
        for name in ["file", "dir/file", "log"] {
            fs::write(mount.join(name), name).expect("room");
        }
        // What a mapping holds is written before.
        let file = File::options().read(true).write(true).open(mount.join("file")).expect("a file");
        let mapping = Mapping::new(&file, 4).expect("a mapping");
        mapping.store(0, b"MAPP").expect("a page");
        chattr("+i", &mount.join("file"));
        assert_eq!(fs::read(protected.backing.join("file")).expect("a file"), b"MAPP");
        is_refused(file.write_all_at(b"x", 0).and_then(|()| file.sync_all()));
        is_refused(File::options().write(true).open(mount.join("file")).map(drop));
        is_refused(fs::set_permissions(mount.join("file"), PermissionsExt::from_mode(0o777)));
        is_refused(fs::remove_file(mount.join("file")));
        drop((mapping, file));
        chattr("+i", &mount.join("dir"));
        is_refused(fs::write(mount.join("dir/new"), "new"));
        is_refused(fs::remove_dir(mount.join("dir/below")));
        fs::write(mount.join("dir/file"), "a file of it is not").expect("a write");
        chattr("+ad", &mount.join("log"));
        let mut log = File::options().append(true).open(mount.join("log")).expect("to append");
        log.write_all(b" and more").expect("appended");
        log.sync_all().expect("synced");
        protected.assert_in_sync();
        assert_eq!(flags(&mount.join("file")), IFlags::IMMUTABLE);
        assert_eq!(flags(&replica.join("dir")), IFlags::IMMUTABLE);
        assert_eq!(flags(&replica.join("log")), IFlags::APPEND | IFlags::NODUMP);
        // The same descriptor, before and behind the change.
        chattr("-a", &mount.join("log"));
        log.write_all(b", to the end").expect("appended");
        let whole = File::options().write(true).open(mount.join("log")).expect("an ordinary file");
        whole.write_all_at(b"LOG", 0).expect("a write");
        whole.sync_all().expect("synced");
        assert_eq!(fs::read_to_string(mount.join("log")).expect("a file"), "LOG and more, to the end");
        chattr("-i", &mount.join("dir"));
        fs::rename(mount.join("dir/file"), mount.join("dir/below/file")).expect("renamed");
        chattr("+i", &mount.join("dir/below/file"));
        protected.assert_in_sync();
        protected.kill9();
        protected.start_again();
        protected.assert_in_sync();
        chattr("-i", &mount.join("file"));
        chattr("-i", &mount.join("dir/below/file"));
        fs::write(mount.join("file"), "other").expect("a write");
        fs::remove_dir_all(mount.join("dir")).expect("removed");
        protected.assert_in_sync();
        protected.stop();
    }
}

/// Of other formats than those that are carried nothing is set, nor of the root anything that keeps its mark from
/// being changed; and only for root.
#[test]
fn what_cannot_be_set_is_refused() {
    let mut protected = Protected::start(Setup::default());
    let _clears = clears(&protected);
    fs::write(protected.mount.join("file"), "f").expect("room");
    fs::set_permissions(&protected.mount, PermissionsExt::from_mode(0o755)).expect("ours");
    std::os::unix::fs::chown(protected.mount.join("file"), Some(1234), Some(1234)).expect("root may");
    let refused = |how: &str, path: &Path, user: &str| {
        let mut command = Command::new(require_program("setpriv"));
        command.args(["--reuid", user, "--regid", user, "--clear-groups", "chattr", how]).arg(path);
        !output_within(&mut command, SYNC_MAX).status.success()
    };
    let file = protected.mount.join("file");
    assert!(refused("+c", &file, "0") && refused("+i", &protected.mount, "0"));
    assert!(refused("+i", &file, "1234") && refused("+a", &file, "1234"));
    assert!(refused("+d", &file, "4321") && !refused("+d", &file, "1234") && !refused("+S", &file, "0"));
    assert_eq!(flags(&file), IFlags::NODUMP);
    let attribute = rustix::fs::setxattr(&file, "standin.flags", b"\x01", rustix::fs::XattrFlags::empty());
    assert_eq!(attribute, Err(rustix::io::Errno::OPNOTSUPP));
    run(Command::new("chattr").arg("-S").arg(&file));
    protected.assert_in_sync();
    protected.stop();
}

/// `verify` finds a flag that was changed on the replica, and puts it right.
#[test]
fn a_changed_flag_is_found_and_repaired() {
    let mut protected = Protected::start(Setup::default());
    let _clears = clears(&protected);
    for name in ["fixed", "free", "lost"] {
        fs::write(protected.mount.join(name), name).expect("room");
    }
    for name in ["fixed", "lost"] {
        chattr("+i", &protected.mount.join(name));
    }
    protected.assert_in_sync();
    let verify = |repairs: &[&str]| {
        let mut command = standin(&protected.run);
        let output = output_within(command.args(["verify", "--json"]).args(repairs), SYNC_MAX);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
        let mut found: Vec<_> = lines
            .filter_map(|line| {
                let found = line.get("difference")?;
                let path = Path::new(found["path"].as_str()?).file_name()?.to_string_lossy().into_owned();
                Some((found["kind"].as_str()?.to_owned(), path))
            })
            .collect();
        found.sort();
        found
    };
    assert_eq!(verify(&[]), []);
    chattr("+i", &protected.replica.join("free"));
    chattr("-i", &protected.replica.join("lost"));
    let expected = ["free", "lost"].map(|name| ("xattr".to_owned(), name.to_owned()));
    assert_eq!(verify(&[]), expected);
    verify(&["--repair"]);
    assert_eq!(verify(&[]), []);
    protected.assert_in_sync();
    protected.stop();
}

/// Copies: a first one, one to what is immutable elsewhere, one of what changed while nothing was protected.
#[test]
fn flags_are_copied_to_replicas_of_each_disk() {
    for replica in
        [Disk::Plain, Disk::Image { kind: "xfs", mib: 320 }, Disk::Image { kind: "btrfs", mib: 200 }]
    {
        let mut protected = Protected::prepare(Setup { replica, ..Setup::default() });
        let _clears = clears(&protected);
        let backing = protected.backing.clone();
        let at = |name: &str| backing.join(name);
        fs::create_dir_all(at("dir/below")).expect("a directory");
        for name in ["file", "dir/file", "dir/below/file", "log"] {
            fs::write(at(name), name).expect("room");
        }
        for name in ["file", "dir/below/file", "dir/below", "dir"] {
            chattr("+i", &at(name));
        }
        chattr("+a", &at("log"));
        protected.start_again();
        protected.assert_in_sync();
        let mut log = File::options().append(true).open(protected.mount.join("log")).expect("to append");
        log.write_all(b" and more").expect("appended");
        drop(log);
        protected.assert_in_sync();
        protected.stop();
        for name in ["dir", "dir/below", "dir/below/file"] {
            chattr("-i", &at(name));
        }
        fs::rename(at("dir/below"), at("moved")).expect("renamed");
        fs::write(at("moved/file"), "other content").expect("a write");
        chattr("+i", &at("moved/file"));
        chattr("+i", &protected.replica.join("dir/file"));
        protected.start_again();
        protected.assert_in_sync();
        protected.stop();
    }
}

/// After its host was started anew a target finds objects by their handles alone.
#[test]
fn flags_are_set_on_what_nobody_has_looked_at_since_the_boot() {
    let _alone = heavy();
    let mut pair = Pair::start(Disk::Plain, Disk::Image { kind: "ext4", mib: 64 });
    let (image, at) = pair.target_image();
    let _clears = [pair.backing.clone(), at.clone()].map(Clears);
    fs::create_dir(pair.mount.join("dir")).expect("a directory");
    for name in ["dir/f", "dir/g", "dir/h"] {
        fs::write(pair.mount.join(name), name).expect("a file");
    }
    chattr("+i", &pair.mount.join("dir/f"));
    let sync = |pair: &Pair| {
        let command = &mut pair.daemon("source");
        let output = output_within(command.args(["wait-sync", "--durable", "--timeout", "20s"]), COMMAND_MAX);
        assert!(output.status.success(), "{}{}", describe(&output), pair.said());
    };
    sync(&pair);
    pair.stop_target();
    run(Command::new("umount").arg(&at));
    run(Command::new("mount").args(["-o", "loop"]).args([&image, &at]));
    pair.serve();
    chattr("+i", &pair.mount.join("dir/g"));
    chattr("+d", &pair.mount.join("dir/h"));
    chattr("-i", &pair.mount.join("dir/f"));
    fs::remove_file(pair.mount.join("dir/f")).expect("it goes");
    sync(&pair);
    pair.assert_in_sync_of(4, &Rules::default());
    assert_eq!(flags(&pair.replica().join("dir/g")), IFlags::IMMUTABLE);
    assert_eq!(flags(&pair.replica().join("dir/h")), IFlags::NODUMP);
}

/// The interface of XFS knows a part of the flags: what the disk's file system has beside them stays.
#[test]
fn the_other_interface_changes_the_flags_that_it_knows() {
    const GET: libc::c_ulong = 0x801c_581f;
    const SET: libc::c_ulong = 0x401c_5820;
    const NODUMP: u32 = 0x80;
    let mut protected = Protected::start(Setup::default());
    let file = fs::File::create(protected.mount.join("file")).expect("a file");
    let backing = fs::File::open(protected.backing.join("file")).expect("a file");
    let before = rustix::fs::ioctl_getflags(&backing).expect("flags");
    let call = |number, words: &mut [u32; 7]| {
        // SAFETY: the call reads or writes a `struct fsxattr`, 28 bytes.
        let code = unsafe { libc::ioctl(file.as_raw_fd(), number, words.as_mut_ptr()) };
        assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
    };
    let mut words = [0; 7];
    call(GET, &mut words);
    assert_eq!(words[0] & NODUMP, 0);
    words[0] |= NODUMP;
    call(SET, &mut words);
    let with = rustix::fs::ioctl_getflags(&backing).expect("flags");
    assert_eq!(with, before | IFlags::NODUMP);
    words[0] &= !NODUMP;
    call(SET, &mut words);
    assert_eq!(rustix::fs::ioctl_getflags(&backing).expect("flags"), before);
    drop((file, backing));
    protected.stop();
}
