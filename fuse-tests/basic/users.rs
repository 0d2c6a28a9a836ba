//! What depends on who calls: owners of new objects, set-id bits, umask, ACLs, permissions.

use std::process::Command;

use rustix::fs::{AtFlags, Mode, OFlags, XattrFlags};

use super::{Bench, Case};
use crate::host::{describe, require_program};
use crate::sys::as_other_user;

pub const CASES: &[Case] = &[
    ("owner of new objects", owner_of_new_objects),
    ("set-group directory", set_group_directory),
    ("set-id bits and writes", set_id_bits_and_writes),
    ("set-group bit and chmod", set_group_bit_and_chmod),
    ("umask", umask),
    ("default acl", default_acl),
    ("acl and mode", acl_and_mode),
    ("acl decides", acl_decides),
    ("permissions", permissions),
    ("sticky directory", sticky_directory),
];

/// Runs a shell script in the directory of the case as user and group 1234 with further groups,
/// and notes all it says.
fn as_user(b: &mut Bench, groups: &str, script: &str) {
    let mut command = Command::new(require_program("setpriv"));
    command.current_dir(&b.path).args(["--reuid=1234", "--regid=1234"]);
    match groups {
        "" => command.arg("--clear-groups"),
        groups => command.arg(format!("--groups={groups}")),
    };
    let output = command.args(["sh", "-c", script]).env("LC_ALL", "C").output().expect("setpriv runs");
    b.value(script, describe(&output));
}

fn root(b: &mut Bench, script: &str) {
    let output = Command::new("sh").current_dir(&b.path).args(["-c", script]).env("LC_ALL", "C").output();
    b.value(script, describe(&output.expect("sh runs")));
}

const STAT: &str = "stat -c '%n %F %a %u %g %h' ";

fn open_to_all(b: &mut Bench, mode: u32) {
    b.done("open to all", rustix::fs::chmodat(b.dir(), ".", Mode::from(mode), AtFlags::empty()));
}

fn owner_of_new_objects(b: &mut Bench) {
    open_to_all(b, 0o777);
    as_user(b, "", "umask 022; echo x > file; mkdir dir; ln -s t link; mkfifo fifo; ln file hard");
    root(b, &format!("{STAT} *"));
}

fn set_group_directory(b: &mut Bench) {
    root(b, "chown 0:4321 . && chmod 2777 .");
    let make = |who: &str| {
        format!(
            "umask 0; echo x > {who}; mkdir {who}-dir; cp -p {who} {who}-copy; chmod 2755 {who}; {STAT} {who}*"
        )
    };
    as_user(b, "", &make("stranger"));
    as_user(b, "77,4321", &make("member"));
    // A creation with set-group and group execute in one call: the bit stays for members only.
    for (name, groups) in
        [("direct-stranger", &[][..]), ("direct-member", &[4321]), ("among-many", &[1, 2, 4321, 9])]
    {
        let flags = OFlags::CREATE | OFlags::WRONLY;
        let create = || rustix::fs::openat(b.dir(), name, flags, Mode::from(0o2775)).map(drop);
        let answer = as_other_user(1234, groups, create);
        b.done(name, answer);
        b.stat(name);
    }
    root(b, &format!("{STAT} *"));
}

fn set_id_bits_and_writes(b: &mut Bench) {
    open_to_all(b, 0o777);
    let fresh = "rm -f f; echo 0123456789 > f; chmod ";
    for mode in ["6777", "4666", "2766", "2676"] {
        for change in [
            "echo x >> f",
            "echo x > f",
            "echo x 1<> f",
            "truncate -s 3 f",
            "fallocate -l 99 f",
            "fallocate -p -l 5 f",
        ] {
            root(b, &format!("{fresh} {mode} f"));
            as_user(b, "", &format!("{change}; {STAT} f"));
        }
    }
    root(b, &format!("{fresh} 6777 f; echo root >> f; {STAT} f; truncate -s 1 f; {STAT} f"));
    root(b, &format!("{fresh} 6777 f; chown 5 f; {STAT} f"));
    root(b, &format!("{fresh} 6777 f; chgrp 5 f; {STAT} f"));
}

fn set_group_bit_and_chmod(b: &mut Bench) {
    root(b, "echo x > f; chown 1234:4321 f; mkdir d; chown 1234:4321 d");
    as_user(b, "", &format!("chmod 2775 f d; {STAT} f d"));
    as_user(b, "4321", &format!("chmod 2775 f d; {STAT} f d; chgrp 77 f"));
    as_user(b, "77,4321", &format!("chgrp 77 f; {STAT} f; chown 1 f"));
}

fn umask(b: &mut Bench) {
    for mask in ["0", "022", "077", "777", "027"] {
        root(b, &format!("umask {mask}; echo x > f{mask}; mkdir d{mask}; mkfifo p{mask}; {STAT} *{mask}"));
    }
}

/// Header and five entries of an access or default ACL: user 1234 and group 4321 beside the owner.
fn acl(user: u8, group: u8, mask: u8) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    let none = u32::MAX;
    let entries =
        [(1, 7, none), (2, user, 1234), (4, 5, none), (8, group, 4321), (16, mask, none), (32, 0, none)];
    for (tag, permission, id) in entries {
        bytes.extend([tag, 0, permission, 0]);
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn set_acl(b: &mut Bench, name: &str, which: &str, value: &[u8]) {
    let answer = rustix::fs::setxattr(b.path.join(name), which, value, XattrFlags::empty());
    b.done(&format!("{which} of {name}"), answer);
}

fn show_acls(b: &mut Bench, name: &str) {
    for which in ["system.posix_acl_access", "system.posix_acl_default"] {
        let mut value = [0; 256];
        let answer = rustix::fs::getxattr(b.path.join(name), which, &mut value);
        b.note(&format!("{which} of {name}"), answer.map(|len| value[..len].to_vec()));
    }
    b.stat(name);
}

fn default_acl(b: &mut Bench) {
    set_acl(b, ".", "system.posix_acl_default", &acl(7, 6, 7));
    open_to_all(b, 0o777);
    root(b, "umask 077; echo x > file; mkdir dir; echo y > dir/below; mkfifo fifo; ln -s x link");
    root(b, "umask 0; install -m 640 /dev/null installed; cp file copied; mkdir -m 700 narrow");
    as_user(b, "", "umask 0; echo x > of-user; mkdir dir-of-user");
    for name in
        ["file", "dir", "dir/below", "fifo", "installed", "copied", "narrow", "of-user", "dir-of-user"]
    {
        show_acls(b, name);
    }
}

fn acl_and_mode(b: &mut Bench) {
    b.file("file", b"x");
    set_acl(b, "file", "system.posix_acl_access", &acl(6, 4, 6));
    show_acls(b, "file");
    root(b, "chmod 2750 file");
    show_acls(b, "file");
    set_acl(b, "file", "system.posix_acl_access", &acl(7, 7, 1));
    show_acls(b, "file");
    set_acl(b, "file", "system.posix_acl_default", &acl(7, 7, 1));
    set_acl(b, "file", "system.posix_acl_access", b"\x02\0\0\0\x63");
    set_acl(b, "file", "system.posix_acl_access", &[1; 44]);
    // An ACL that says no more than a mode becomes the mode.
    let minimal: Vec<u8> = [
        [2, 0, 0, 0].as_slice(),
        &[1, 0, 6, 0, 255, 255, 255, 255],
        &[4, 0, 4, 0, 255, 255, 255, 255],
        &[32, 0, 4, 0, 255, 255, 255, 255],
    ]
    .concat();
    set_acl(b, "file", "system.posix_acl_access", &minimal);
    show_acls(b, "file");
    set_acl(b, "file", "system.posix_acl_access", &acl(6, 4, 6));
    b.done("remove", rustix::fs::removexattr(b.path.join("file"), "system.posix_acl_access"));
    show_acls(b, "file");
    // The set-group bit goes when somebody outside the group sets the ACL.
    root(b, "chown 1234:4321 file; chmod 2755 file");
    let (path, value) = (b.path.join("file"), acl(7, 5, 7));
    let set = || rustix::fs::setxattr(&path, "system.posix_acl_access", &value, XattrFlags::empty());
    let answer = as_other_user(1234, &[], set);
    b.done("ACL by the owner, not in the group", answer);
    show_acls(b, "file");
}

fn acl_decides(b: &mut Bench) {
    open_to_all(b, 0o755);
    root(b, "echo secret > file; chmod 600 file");
    as_user(b, "", "cat file; echo x >> file");
    set_acl(b, "file", "system.posix_acl_access", &acl(4, 0, 7));
    as_user(b, "", "cat file; echo x >> file");
    set_acl(b, "file", "system.posix_acl_access", &acl(6, 0, 7));
    as_user(b, "", "cat file; echo x >> file");
    set_acl(b, "file", "system.posix_acl_access", &acl(6, 0, 4));
    as_user(b, "", "cat file; echo x >> file");
    b.content("file");
}

fn permissions(b: &mut Bench) {
    open_to_all(b, 0o755);
    root(
        b,
        "echo x > file; chmod 644 file; mkdir open closed; chmod 777 open; chmod 700 closed; echo y > closed/in",
    );
    let script = "cat file; echo n >> file; echo n > new; rm -f file; mv file moved; mkdir d; ln -s a b; \
        cat closed/in; ls closed; chmod 777 file; chown 1234 file; touch -d @5 file; touch file; \
        echo mine > open/mine; ln file open/linked; mv open/mine open/yours; mknod open/dev c 1 3; mknod open/pipe p";
    as_user(b, "", script);
    let set = || rustix::fs::setxattr(b.path.join("file"), "user.x", b"1", XattrFlags::empty());
    let answer = as_other_user(1234, &[], set);
    b.done("xattr by a stranger", answer);
    root(b, &format!("{STAT} * open/* closed/*"));
}

fn sticky_directory(b: &mut Bench) {
    open_to_all(b, 0o1777);
    root(b, "echo x > root; mkdir dir; echo y > theirs; chown 99 theirs");
    as_user(b, "", "echo m > mine; rm -f root; mv theirs t; mv mine root; mv mine own; rmdir dir; rm own");
    b.list();
}
