//! Names: renames, links, directories, odd and deep names.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};

use super::{Bench, Case};

pub const CASES: &[Case] = &[
    ("rename", rename),
    ("rename over", rename_over),
    ("rename of directories", rename_of_directories),
    ("rename flags", rename_flags),
    ("whiteout", whiteout),
    ("rename of two links", rename_of_two_links),
    ("links", links),
    ("other name never looked up", other_name_never_looked_up),
    ("symlinks", symlinks),
    ("directories", directories),
    ("a directory in use", a_directory_in_use),
    ("odd names", odd_names),
    ("long names", long_names),
    ("deep path", deep_path),
    ("many names", many_names),
    ("name reuse", name_reuse),
];

fn mkdir(b: &mut Bench, name: &str) {
    b.done("mkdir", rustix::fs::mkdirat(b.dir(), name, Mode::from(0o755)));
}

fn mv(b: &mut Bench, from: &str, to: &str, flags: RenameFlags) {
    let answer = rustix::fs::renameat_with(b.dir(), from, b.dir(), to, flags);
    b.done(&format!("{from} -> {to} {flags:?}"), answer);
}

fn rename(b: &mut Bench) {
    let file = b.file("file", b"1");
    mkdir(b, "dir");
    mv(b, "file", "other", RenameFlags::empty());
    mv(b, "other", "dir/moved", RenameFlags::empty());
    mv(b, "missing", "x", RenameFlags::empty());
    mv(b, "dir/moved", "dir/moved", RenameFlags::empty());
    b.note("write by the old handle", file.write_at(b"still", 0));
    b.content("dir/moved");
    b.list();
}

fn rename_over(b: &mut Bench) {
    b.file("a", b"content of a");
    let old = b.file("b", b"content of b");
    mv(b, "a", "b", RenameFlags::empty());
    b.note("the replaced lives on", old.write_at(b"x", 0));
    b.content("b");
    mkdir(b, "dir");
    mkdir(b, "empty");
    b.file("dir/f", b"");
    mv(b, "b", "dir", RenameFlags::empty());
    mv(b, "dir", "b", RenameFlags::empty());
    mv(b, "empty", "dir", RenameFlags::empty());
    mv(b, "dir", "empty", RenameFlags::empty());
    b.list();
}

fn rename_of_directories(b: &mut Bench) {
    ["a", "a/b", "a/b/c", "x"].iter().for_each(|name| mkdir(b, name));
    let file = b.file("a/b/c/file", b"deep");
    mv(b, "a", "a/b/inside", RenameFlags::empty());
    mv(b, "a/b", "x/b", RenameFlags::empty());
    b.note("write", file.write_at(b"D", 0));
    mv(b, "x", "a/x", RenameFlags::empty());
    b.content("a/x/b/c/file");
    b.stat("a");
    b.stat("a/x");
    mv(b, "a/x/b", "top", RenameFlags::empty());
    b.list();
}

fn rename_flags(b: &mut Bench) {
    b.file("a", b"A");
    b.file("b", b"B");
    mkdir(b, "dir");
    b.file("dir/f", b"F");
    mv(b, "a", "b", RenameFlags::NOREPLACE);
    mv(b, "a", "new", RenameFlags::NOREPLACE);
    mv(b, "new", "b", RenameFlags::EXCHANGE);
    b.content("b");
    mv(b, "b", "dir", RenameFlags::EXCHANGE);
    b.content("dir");
    b.content("b/f");
    mv(b, "b", "b/f", RenameFlags::EXCHANGE);
    mv(b, "b", "missing", RenameFlags::EXCHANGE);
    mv(b, "new", "x", RenameFlags::NOREPLACE | RenameFlags::EXCHANGE);
    b.list();
}

fn whiteout(b: &mut Bench) {
    b.file("a", b"A");
    b.file("b", b"B");
    mv(b, "a", "moved", RenameFlags::WHITEOUT);
    mv(b, "b", "moved", RenameFlags::WHITEOUT);
    b.stat("a");
    b.stat("b");
    b.content("moved");
}

/// A no-op by POSIX: both names stay.
fn rename_of_two_links(b: &mut Bench) {
    b.file("h1", b"one");
    b.done("link", rustix::fs::linkat(b.dir(), "h1", b.dir(), "h2", AtFlags::empty()));
    mv(b, "h1", "h2", RenameFlags::empty());
    b.stat("h1");
    mv(b, "h1", "h2", RenameFlags::EXCHANGE);
    b.list();
}

fn links(b: &mut Bench) {
    let file = b.file("a", b"linked");
    mkdir(b, "dir");
    let mut link = |from: &str, to: &str, flags| {
        let answer = rustix::fs::linkat(b.dir(), from, b.dir(), to, flags);
        b.done(&format!("link {from} {to}"), answer);
    };
    link("a", "b", AtFlags::empty());
    link("a", "dir/c", AtFlags::empty());
    link("a", "b", AtFlags::empty());
    link("dir", "d", AtFlags::empty());
    link("missing", "d", AtFlags::empty());
    b.done("symlink", rustix::fs::symlinkat("a", b.dir(), "s"));
    let mut link = |from: &str, to: &str, flags| {
        let answer = rustix::fs::linkat(b.dir(), from, b.dir(), to, flags);
        b.done(&format!("link {from} {to}"), answer);
    };
    link("s", "of-symlink", AtFlags::empty());
    link("s", "of-target", AtFlags::SYMLINK_FOLLOW);
    b.note("write", file.write_at(b"LINK", 0));
    b.stat("a");
    b.done("unlink", rustix::fs::unlinkat(b.dir(), "a", AtFlags::empty()));
    b.content("dir/c");
    b.stat("of-symlink");
    b.stat("b");
}

fn other_name_never_looked_up(b: &mut Bench) {
    let file = b.file("known", b"before");
    b.done("link", rustix::fs::linkat(b.dir(), "known", b.dir(), "unknown", AtFlags::empty()));
    drop(file);
    b.done("unlink", rustix::fs::unlinkat(b.dir(), "known", AtFlags::empty()));
    let file = b.open("unknown", OFlags::WRONLY);
    b.note("write", file.write_at(b"after!", 0));
    b.stat("unknown");
    b.content("unknown");
}

fn symlinks(b: &mut Bench) {
    let long = "x".repeat(4095);
    let targets: [&[u8]; 5] = [b"target", b"../..//odd/./path", b"\xff\xfe", b"/absolute", long.as_bytes()];
    for (i, target) in targets.iter().enumerate() {
        let name = format!("link{i}");
        b.done("symlink", rustix::fs::symlinkat(OsStr::from_bytes(target), b.dir(), &name));
        b.note("readlink", rustix::fs::readlinkat(b.dir(), &name, Vec::new()));
        b.stat(&name);
    }
    b.done("empty", rustix::fs::symlinkat("", b.dir(), "none"));
    b.done("too long", rustix::fs::symlinkat(&(long + "x"), b.dir(), "none"));
    b.done("exists", rustix::fs::symlinkat("y", b.dir(), "link0"));
    b.note("readlink of no link", rustix::fs::readlinkat(b.dir(), ".", Vec::new()));
    b.done("loop", rustix::fs::symlinkat("loop", b.dir(), "loop"));
    b.done("open a loop", rustix::fs::openat(b.dir(), "loop", OFlags::RDONLY, Mode::empty()));
    b.done("unlink", rustix::fs::unlinkat(b.dir(), "link3", AtFlags::empty()));
}

fn directories(b: &mut Bench) {
    mkdir(b, "dir");
    mkdir(b, "dir");
    mkdir(b, "dir/sub");
    mkdir(b, "missing/sub");
    b.file("file", b"");
    let mut remove = |name: &str, flags| {
        let answer = rustix::fs::unlinkat(b.dir(), name, flags);
        b.done(&format!("remove {name}"), answer);
    };
    remove("dir", AtFlags::REMOVEDIR);
    remove("dir", AtFlags::empty());
    remove("file", AtFlags::REMOVEDIR);
    remove("dir/sub", AtFlags::REMOVEDIR);
    remove("dir/.", AtFlags::REMOVEDIR);
    remove("dir/..", AtFlags::REMOVEDIR);
    remove("dir", AtFlags::REMOVEDIR);
    remove("missing", AtFlags::REMOVEDIR);
    b.stat(".");
    b.list();
}

fn a_directory_in_use(b: &mut Bench) {
    mkdir(b, "dir");
    let dir = rustix::fs::openat(b.dir(), "dir", OFlags::DIRECTORY, Mode::empty()).expect("a directory");
    b.done("rmdir", rustix::fs::unlinkat(b.dir(), "dir", AtFlags::REMOVEDIR));
    b.done("create below", rustix::fs::openat(&dir, "x", OFlags::CREATE, Mode::from(0o600)));
    b.done("mkdir below", rustix::fs::mkdirat(&dir, "y", Mode::from(0o700)));
    mkdir(b, "dir");
    b.done(
        "create below the new one",
        rustix::fs::openat(b.dir(), "dir/x", OFlags::CREATE, Mode::from(0o600)),
    );
    b.list();
}

fn odd_names(b: &mut Bench) {
    let names: [&[u8]; 9] = [
        b"\xff\xfe",
        b" ",
        b"\n",
        b"-rf",
        b"\x01\x7f",
        b"...",
        b"\xc3\x28",
        "ä\u{1f600}".as_bytes(),
        b"*?[\\]",
    ];
    for name in names {
        let answer = rustix::fs::openat(b.dir(), OsStr::from_bytes(name), OFlags::CREATE, Mode::from(0o600));
        b.done("create", answer);
    }
    let (from, to) = (OsStr::from_bytes(b"\xff\xfe"), OsStr::from_bytes(b"\xfe\xff"));
    b.done("rename", rustix::fs::renameat(b.dir(), from, b.dir(), to));
    b.done("link", rustix::fs::linkat(b.dir(), to, b.dir(), from, AtFlags::empty()));
    b.list();
}

fn long_names(b: &mut Bench) {
    let name = "n".repeat(255);
    b.file(&name, b"long");
    b.content(&name);
    let long = name.clone() + "n";
    b.done("too long", rustix::fs::openat(b.dir(), &long, OFlags::CREATE, Mode::from(0o600)));
    b.done("mkdir too long", rustix::fs::mkdirat(b.dir(), &long, Mode::from(0o700)));
    b.done("rename too long", rustix::fs::renameat(b.dir(), &name, b.dir(), &long));
    b.done("look up too long", rustix::fs::statat(b.dir(), &long, AtFlags::empty()).map(drop));
    let other = "m".repeat(255);
    b.done("rename", rustix::fs::renameat(b.dir(), &name, b.dir(), &other));
    b.content(&other);
}

/// 20 levels of 255 bytes are longer than any path string may be.
fn deep_path(b: &mut Bench) {
    let name = "d".repeat(255);
    let mut dir = rustix::fs::openat(b.dir(), ".", OFlags::DIRECTORY, Mode::empty()).expect("a directory");
    for level in 0..20 {
        b.done(&format!("level {level}"), rustix::fs::mkdirat(&dir, &name, Mode::from(0o755)));
        dir = rustix::fs::openat(&dir, &name, OFlags::DIRECTORY, Mode::empty()).expect("a directory");
    }
    let flags = OFlags::CREATE | OFlags::WRONLY;
    let file = rustix::fs::openat(&dir, "file", flags, Mode::from(0o600));
    let file = std::fs::File::from(file.expect("a file at the bottom"));
    b.note("write", file.write_at(b"bottom", 0));
    b.done("rename at the bottom", rustix::fs::renameat(&dir, "file", &dir, "renamed"));
    b.done("move to the top", rustix::fs::linkat(&dir, "renamed", b.dir(), "top", AtFlags::empty()));
    b.content("top");
    b.stat("top");
}

fn many_names(b: &mut Bench) {
    mkdir(b, "dir");
    for i in 0..1500 {
        let name = format!("dir/{i:0>60}");
        rustix::fs::openat(b.dir(), &name, OFlags::CREATE, Mode::from(0o600)).expect("one of many files");
    }
    for i in (0..1500).step_by(3) {
        rustix::fs::unlinkat(b.dir(), format!("dir/{i:0>60}"), AtFlags::empty()).expect("one of many files");
    }
    let names = std::fs::read_dir(b.path.join("dir")).map(|names| names.count());
    b.note("names left", names.map_err(|e| e.raw_os_error()));
}

/// Freed inode numbers come back at once on ext4: an old object must not be taken for the new.
fn name_reuse(b: &mut Bench) {
    for i in 0..50_u8 {
        let file = b.file("file", &[i; 100]);
        drop(file);
        if i % 2 == 0 {
            b.done("unlink", rustix::fs::unlinkat(b.dir(), "file", AtFlags::empty()));
            mkdir(b, "file");
            b.done("rmdir", rustix::fs::unlinkat(b.dir(), "file", AtFlags::REMOVEDIR));
        } else {
            mv(b, "file", &format!("kept{i}"), RenameFlags::empty());
        }
    }
    b.content("kept49");
    b.list();
}
