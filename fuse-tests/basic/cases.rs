//! Content, attributes and kinds of open.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{
    AtFlags, FallocateFlags, FileType, Mode, OFlags, SeekFrom, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT,
    XattrFlags,
};

use super::{Bench, Case};
use crate::sys::{Aio, Aligned, Mapping};

pub const CASES: &[Case] = &[
    ("create and write", create_and_write),
    ("append", append),
    ("truncate", truncate),
    ("exclusive and truncating opens", exclusive_and_truncating_opens),
    ("direct", direct),
    ("asynchronous direct", asynchronous_direct),
    ("synchronous", synchronous),
    ("vectored", vectored),
    ("shared mapping", shared_mapping),
    ("private mapping of new file", read_after_write_through_other_handle),
    ("reserve", reserve),
    ("punch and zero", punch_and_zero),
    ("unsupported reserves", unsupported_reserves),
    ("sparse", sparse),
    ("beyond four gigabytes", beyond_four_gigabytes),
    ("seek data and hole", seek_data_and_hole),
    ("copy file range", copy_file_range),
    ("sendfile and splice", sendfile_into),
    ("deleted while open", deleted_while_open),
    ("temporary file", temporary_file),
    ("modes", modes),
    ("owners", owners),
    ("times", times),
    ("time of a directory changes", directory_time_changes),
    ("xattrs", xattrs),
    ("xattr limits", xattr_limits),
    ("special files", special_files),
    ("many small writes", many_small_writes),
    ("large write", large_write),
];

fn pattern(len: usize, seed: u64) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(seed | 1) >> 5) as u8).collect()
}

fn create_and_write(b: &mut Bench) {
    let mut file = b.open("file", OFlags::CREATE | OFlags::WRONLY);
    b.note("write", file.write(b"hello"));
    b.note("write again", file.write(b" world"));
    b.note("overwrite", file.write_at(b"J", 0));
    b.note("beyond the end", file.write_at(b"end", 10_000));
    b.note("read a write-only handle", file.read_at(&mut [0; 4], 0).map_err(|e| e.raw_os_error()));
    b.note("nothing", file.write_at(b"", 50_000));
    b.stat("file");
    b.content("file");
}

fn append(b: &mut Bench) {
    b.file("file", &[1; 100]);
    let mut first = b.open("file", OFlags::APPEND | OFlags::WRONLY);
    let mut second = b.open("file", OFlags::APPEND | OFlags::RDWR);
    b.note("first", first.write(b"first"));
    b.note("second", second.write(b"second"));
    b.note("first again, at 0", first.write_at(b"third", 0));
    b.note("truncate", first.set_len(50));
    b.note("after truncate", second.write(b"fourth"));
    let flags = rustix::fs::fcntl_getfl(&first).map(|flags| flags - OFlags::APPEND);
    b.done("leave append mode", flags.and_then(|flags| rustix::fs::fcntl_setfl(&first, flags)));
    b.note("at 3", first.write_at(b"fifth", 3));
    b.stat("file");
    b.content("file");
}

fn truncate(b: &mut Bench) {
    let file = b.file("file", &pattern(10_000, 3));
    for len in [5000, 4096, 4095, 20_000, 0, 1] {
        b.note("set_len", file.set_len(len));
        b.content("file");
    }
    let read_only = b.open("file", OFlags::RDONLY);
    b.note("read-only handle", read_only.set_len(9).map_err(|e| e.raw_os_error()));
    b.done(
        "path",
        rustix::fs::open(b.path.join("file"), OFlags::WRONLY, Mode::empty())
            .map(|f| File::from(f).set_len(3)),
    );
    b.note("too long", file.set_len(1 << 62).map_err(|e| e.raw_os_error()));
    b.stat("file");
}

fn exclusive_and_truncating_opens(b: &mut Bench) {
    b.file("file", b"content");
    let open = |name: &str, flags| rustix::fs::openat(b.dir(), name, flags, Mode::from(0o600)).map(drop);
    let exclusive = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
    let answers = [
        open("file", exclusive),
        open("missing", OFlags::RDWR),
        open("file", OFlags::DIRECTORY),
        open(".", OFlags::WRONLY),
        open("file/below", OFlags::RDONLY),
        open("new", exclusive),
        open("new", exclusive),
        open("file", OFlags::TRUNC | OFlags::WRONLY),
        open("new", OFlags::CREATE | OFlags::TRUNC | OFlags::RDWR),
    ];
    b.value("opens", answers);
    b.stat("file");
    b.stat("new");
}

fn direct(b: &mut Bench) {
    b.file("file", &pattern(20_000, 7));
    let file = b.open("file", OFlags::DIRECT | OFlags::RDWR);
    let mut buffer = Aligned::new(2, 9);
    b.note("write", file.write_at(buffer.bytes(), 4096));
    b.note("extend", file.write_at(buffer.bytes(), 40_960));
    b.note("read", file.read_at(buffer.bytes_mut(), 0));
    b.value("first bytes", buffer.bytes()[..8].to_vec());
    let write_only = b.open("other", OFlags::CREATE | OFlags::DIRECT | OFlags::WRONLY);
    b.note("write-only", write_only.write_at(buffer.bytes(), 8192));
    b.content("file");
    b.content("other");
}

fn asynchronous_direct(b: &mut Bench) {
    let file = b.open("file", OFlags::CREATE | OFlags::DIRECT | OFlags::WRONLY);
    let aio = Aio::new(8).expect("io_setup");
    let offsets = [0, 1 << 20, 4096, 65536, 8192];
    let results = aio.write_all(&file, &Aligned::new(1, 5), &offsets);
    b.note("results", results.map_err(|e| e.raw_os_error()));
    b.content("file");
}

fn synchronous(b: &mut Bench) {
    for (name, flag) in [("sync", OFlags::SYNC), ("dsync", OFlags::DSYNC)] {
        let file = b.open(name, OFlags::CREATE | OFlags::WRONLY | flag);
        b.note("write", file.write_at(&pattern(5000, 11), 100));
        b.note("data", file.sync_data());
        b.note("all", file.sync_all());
        b.content(name);
    }
    b.done("the directory", rustix::fs::fsync(b.dir()));
}

fn vectored(b: &mut Bench) {
    let mut file = b.open("file", OFlags::CREATE | OFlags::WRONLY);
    let parts = [pattern(3, 1), pattern(70_000, 3), Vec::new(), pattern(4096, 5)];
    let slices: Vec<_> = parts.iter().map(|part| std::io::IoSlice::new(part)).collect();
    b.note("writev", file.write_vectored(&slices));
    b.content("file");
}

fn shared_mapping(b: &mut Bench) {
    let file = b.file("file", &pattern(10_000, 13));
    let Some(mapping) = b.done("map", Mapping::new(&file, 12_288).map_err(|e| e.raw_os_error())) else {
        return;
    };
    b.note("store", mapping.store(4000, b"across the page").map_err(|e| e.raw_os_error()));
    b.note("sync", mapping.sync().map_err(|e| e.raw_os_error()));
    b.content("file");
    b.note("store unsynced", mapping.store(9000, b"later").map_err(|e| e.raw_os_error()));
    b.note("past the end, same page", mapping.store(10_100, b"lost").map_err(|e| e.raw_os_error()));
    drop(mapping);
    drop(file);
    b.stat("file");
    b.content("file");
}

fn read_after_write_through_other_handle(b: &mut Bench) {
    let cached = b.file("file", &pattern(9000, 17));
    let mut seen = [0; 4];
    b.note("cache", cached.read_at(&mut seen, 4096));
    drop(cached);
    let reader = b.open("file", OFlags::RDONLY);
    b.note("read", reader.read_at(&mut seen, 4096));
    let writer = b.open("file", OFlags::WRONLY);
    b.note("write", writer.write_at(b"abcd", 4096));
    b.note("read again", reader.read_at(&mut seen, 4096));
    b.value("read", seen);
    b.note("truncate", writer.set_len(4098));
    b.note("read at the end", reader.read_at(&mut seen, 4096));
}

fn reserve(b: &mut Bench) {
    let file = b.file("file", b"12345");
    let all = FallocateFlags::empty();
    b.note("grow", rustix::fs::fallocate(&file, all, 0, 100_000));
    b.stat("file");
    b.note("keep size", rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 100_000, 100_000));
    b.stat("file");
    b.note("nothing", rustix::fs::fallocate(&file, all, 0, 0));
    let read_only = b.open("file", OFlags::RDONLY);
    b.note("read-only", rustix::fs::fallocate(&read_only, all, 0, 10));
    b.content("file");
}

fn punch_and_zero(b: &mut Bench) {
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let file = b.file("file", &pattern(200_000, 19));
    b.note("punch", rustix::fs::fallocate(&file, punch, 8192, 65_536));
    b.note("punch odd", rustix::fs::fallocate(&file, punch, 100_001, 5));
    b.note("punch beyond", rustix::fs::fallocate(&file, punch, 190_000, 1 << 20));
    b.content("file");
    b.note("zero", rustix::fs::fallocate(&file, FallocateFlags::ZERO_RANGE, 150_000, 100_000));
    b.stat("file");
    let zero_keep = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    b.note("zero, keep size", rustix::fs::fallocate(&file, zero_keep, 249_000, 100_000));
    b.stat("file");
    b.content("file");
}

/// These do not pass through FUSE: the answer must be a clear no, and nothing may change.
fn unsupported_reserves(b: &mut Bench) {
    let file = b.file("file", &pattern(65_536, 23));
    let result = rustix::fs::fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, 4096);
    let undone = match result {
        Ok(()) => rustix::fs::fallocate(&file, FallocateFlags::INSERT_RANGE, 0, 4096)
            .map(|()| file.write_all_at(&pattern(65_536, 23), 0).expect("restored")),
        error => error,
    };
    b.value("done or refused", matches!(undone, Ok(()) | Err(rustix::io::Errno::OPNOTSUPP)));
    b.content("file");
}

fn sparse(b: &mut Bench) {
    let file = b.open("file", OFlags::CREATE | OFlags::WRONLY);
    b.note("size", file.set_len(50 << 20));
    b.note("middle", file.write_all_at(&pattern(10_000, 29), 20 << 20));
    b.note("last byte", file.write_all_at(b"x", (50 << 20) - 1));
    b.stat("file");
    b.content("file");
}

fn beyond_four_gigabytes(b: &mut Bench) {
    let file = b.file("file", b"start");
    for at in [(4_u64 << 30) - 2, (4 << 30) + 12_345, 5 << 30] {
        b.note("write", file.write_at(b"far away", at));
    }
    b.note("truncate", file.set_len((5 << 30) + 3));
    let mut read = [0; 16];
    b.note("read", file.read_at(&mut read, (4 << 30) - 4));
    b.value("across 4 GiB", read);
    b.note("read the end", file.read_at(&mut read, (5 << 30) - 4));
    b.stat("file");
}

fn seek_data_and_hole(b: &mut Bench) {
    let file = b.open("file", OFlags::CREATE | OFlags::RDWR);
    b.note("size", file.set_len(10 << 20));
    b.note("data", file.write_all_at(&[1; 65_536], 1 << 20));
    b.note("data", file.write_all_at(&[2; 65_536], 4 << 20));
    b.note("sync", file.sync_all());
    let places = [0, 1 << 20, (1 << 20) + 70_000, 4 << 20, 9 << 20, 11 << 20];
    for at in places {
        b.note("data from", rustix::fs::seek(&file, SeekFrom::Data(at)));
        b.note("hole from", rustix::fs::seek(&file, SeekFrom::Hole(at)));
    }
}

fn copy_file_range(b: &mut Bench) {
    let from = b.file("from", &pattern(300_000, 31));
    let to = b.file("to", &[8; 1000]);
    let (mut in_at, mut out_at) = (1000, 500);
    // A short copy is legal; the loop copies what an application would.
    let mut left = 250_000;
    while left > 0 {
        match rustix::fs::copy_file_range(&from, Some(&mut in_at), &to, Some(&mut out_at), left) {
            Ok(0) => break,
            Ok(done) => left -= done,
            Err(error) => return b.value("failed", error),
        }
    }
    b.value("left", left);
    b.content("to");
}

fn sendfile_into(b: &mut Bench) {
    let from = b.file("from", &pattern(100_000, 37));
    let to = b.open("to", OFlags::CREATE | OFlags::WRONLY);
    b.note("sendfile", rustix::fs::sendfile(&to, &from, Some(&mut 10), 70_000));
    b.content("to");
}

fn deleted_while_open(b: &mut Bench) {
    let file = b.file("file", b"before");
    let other = b.file("other", b"replaced");
    b.done("unlink", rustix::fs::unlinkat(b.dir(), "file", AtFlags::empty()));
    b.note("write", file.write_at(b"after", 6));
    b.note("truncate", file.set_len(9));
    b.note("sync", file.sync_all());
    b.note("links", rustix::fs::fstat(&file).map(|stat| (stat.st_nlink, stat.st_size)));
    b.done("mode", rustix::fs::fchmod(&file, Mode::from(0o600)));
    b.done("xattr", rustix::fs::fsetxattr(&file, "user.gone", b"1", XattrFlags::empty()));
    b.done("a new file of that name", rustix::fs::renameat(b.dir(), "other", b.dir(), "file"));
    b.note("write to the renamed", other.write_at(b"RE", 0));
    let mut read = [0; 9];
    b.note("read", file.read_at(&mut read, 0));
    b.value("read", read);
    b.content("file");
}

/// FUSE has it, the adapter not: refused clearly, or right.
fn temporary_file(b: &mut Bench) {
    let answer = rustix::fs::openat(b.dir(), ".", OFlags::TMPFILE | OFlags::RDWR, Mode::from(0o600));
    match answer {
        Err(rustix::io::Errno::OPNOTSUPP) => b.value("temporary file", "fine"),
        Err(error) => b.value("temporary file", error),
        Ok(fd) => {
            rustix::io::write(&fd, b"never named").expect("a temporary file can be written");
            b.value("temporary file", "fine");
        }
    }
    b.list();
}

fn modes(b: &mut Bench) {
    b.file("file", b"");
    b.done("mkdir", rustix::fs::mkdirat(b.dir(), "dir", Mode::from(0o700)));
    for mode in [0o000, 0o777, 0o4755, 0o2755, 0o1777, 0o7777, 0o640] {
        for name in ["file", "dir"] {
            b.done("chmod", rustix::fs::chmodat(b.dir(), name, Mode::from(mode), AtFlags::empty()));
            b.stat(name);
        }
    }
    b.done("symlink", rustix::fs::symlinkat("file", b.dir(), "link"));
    b.done("through a symlink", rustix::fs::chmodat(b.dir(), "link", Mode::from(0o604), AtFlags::empty()));
    b.stat("file");
}

fn owners(b: &mut Bench) {
    let id = |uid, gid| (Some(rustix::fs::Uid::from_raw(uid)), Some(rustix::fs::Gid::from_raw(gid)));
    b.file("file", b"x");
    b.done("symlink", rustix::fs::symlinkat("file", b.dir(), "link"));
    b.done("set-id", rustix::fs::chmodat(b.dir(), "file", Mode::from(0o6755), AtFlags::empty()));
    let (uid, gid) = id(1234, 5678);
    b.done("both", rustix::fs::chownat(b.dir(), "file", uid, gid, AtFlags::empty()));
    b.stat("file");
    b.done("group", rustix::fs::chownat(b.dir(), "file", None, id(0, 99).1, AtFlags::empty()));
    let (uid, gid) = id(4_000_000_000, 77);
    b.done("link", rustix::fs::chownat(b.dir(), "link", uid, gid, AtFlags::SYMLINK_NOFOLLOW));
    b.done("nothing", rustix::fs::chownat(b.dir(), "file", None, None, AtFlags::empty()));
    b.stat("file");
    b.stat("link");
}

fn times(b: &mut Bench) {
    let file = b.file("file", b"x");
    b.done("symlink", rustix::fs::symlinkat("nowhere", b.dir(), "link"));
    b.done("mkdir", rustix::fs::mkdirat(b.dir(), "dir", Mode::from(0o755)));
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    // -1.2 s is kept as second -2 and 800,000,000 ns.
    let cases = [(-2, 800_000_000), (0, 0), (1, 999_999_999), (2_500_000_000, 1), (-86_400, 0), (-1, 1)];
    for (seconds, nanoseconds) in cases {
        let times = Timestamps { last_access: time(5, 5), last_modification: time(seconds, nanoseconds) };
        for name in ["file", "link", "dir"] {
            b.done("utimensat", rustix::fs::utimensat(b.dir(), name, &times, AtFlags::SYMLINK_NOFOLLOW));
            b.mtime(name);
        }
    }
    let keep = Timestamps { last_access: time(9, 9), last_modification: time(0, UTIME_OMIT) };
    b.done("only atime", rustix::fs::futimens(&file, &keep));
    b.mtime("file");
    let now = Timestamps { last_access: time(0, UTIME_OMIT), last_modification: time(0, UTIME_NOW) };
    b.done("now", rustix::fs::futimens(&file, &now));
    let stat = rustix::fs::fstat(&file).expect("fstat");
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    b.value("now is now", (clock.as_secs() as i64 - stat.st_mtime).abs() < 5);
    let bad = Timestamps { last_access: time(0, 0), last_modification: time(0, 1_000_000_000) };
    b.done("no nanosecond", rustix::fs::futimens(&file, &bad));
}

fn directory_time_changes(b: &mut Bench) {
    let old = Timespec { tv_sec: 1000, tv_nsec: 1 };
    let times = Timestamps { last_access: old, last_modification: old };
    b.done("mkdir", rustix::fs::mkdirat(b.dir(), "dir", Mode::from(0o755)));
    let dir = rustix::fs::openat(b.dir(), "dir", OFlags::DIRECTORY, Mode::empty()).expect("a directory");
    type Change = fn(&std::os::fd::OwnedFd) -> rustix::io::Result<()>;
    let changes: [(&str, Change); 7] = [
        ("create", |dir| rustix::fs::openat(dir, "a", OFlags::CREATE, Mode::from(0o600)).map(drop)),
        ("write", |dir| {
            let file = rustix::fs::openat(dir, "a", OFlags::WRONLY, Mode::empty())?;
            rustix::io::write(&file, b"x").map(drop)
        }),
        ("chmod", |dir| rustix::fs::chmodat(dir, "a", Mode::from(0o640), AtFlags::empty())),
        ("link", |dir| rustix::fs::linkat(dir, "a", dir, "b", AtFlags::empty())),
        ("rename", |dir| rustix::fs::renameat(dir, "a", dir, "c")),
        ("mkdir", |dir| rustix::fs::mkdirat(dir, "d", Mode::from(0o700))),
        ("unlink", |dir| rustix::fs::unlinkat(dir, "b", AtFlags::empty())),
    ];
    for (what, change) in changes {
        b.done("reset", rustix::fs::futimens(&dir, &times));
        b.done(what, change(&dir));
        let changed = rustix::fs::fstat(&dir).map(|stat| stat.st_mtime != 1000);
        b.note("changed the directory's time", changed);
    }
}

fn xattrs(b: &mut Bench) {
    let file = b.file("file", b"x");
    b.done("create", rustix::fs::fsetxattr(&file, "user.a", b"1", XattrFlags::CREATE));
    b.done("create again", rustix::fs::fsetxattr(&file, "user.a", b"2", XattrFlags::CREATE));
    b.done("replace", rustix::fs::fsetxattr(&file, "user.a", b"\0\xff", XattrFlags::REPLACE));
    b.done("replace none", rustix::fs::fsetxattr(&file, "user.b", b"2", XattrFlags::REPLACE));
    b.done("empty", rustix::fs::fsetxattr(&file, "user.empty", b"", XattrFlags::empty()));
    b.done("trusted", rustix::fs::fsetxattr(&file, "trusted.t", b"root only", XattrFlags::empty()));
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    b.done(
        "capability",
        rustix::fs::fsetxattr(&file, "security.capability", &capability, XattrFlags::empty()),
    );
    b.done("unknown", rustix::fs::fsetxattr(&file, "none.x", b"1", XattrFlags::empty()));
    b.done("on a directory", rustix::fs::fsetxattr(b.dir(), "user.dir", b"1", XattrFlags::empty()));
    let mut value = [0; 16];
    b.note("get", rustix::fs::fgetxattr(&file, "user.a", &mut value));
    b.value("value", value);
    b.note("get none", rustix::fs::fgetxattr(&file, "user.none", &mut value));
    b.note("too small", rustix::fs::fgetxattr(&file, "trusted.t", &mut value[..2]));
    b.done("remove", rustix::fs::fremovexattr(&file, "user.empty"));
    b.done("remove none", rustix::fs::fremovexattr(&file, "user.empty"));
    let mut names = [0; 1024];
    let len = rustix::fs::flistxattr(&file, &mut names).expect("list");
    let mut names: Vec<String> =
        names[..len].split(|&byte| byte == 0).map(|name| name.escape_ascii().to_string()).collect();
    names.sort();
    b.value("names", names);
    b.note("a write strips capabilities", file.write_at(b"y", 0));
    b.note("capability", rustix::fs::fgetxattr(&file, "security.capability", &mut [0; 64]));
}

fn xattr_limits(b: &mut Bench) {
    let file = b.file("file", b"");
    let name = format!("user.{}", "n".repeat(250));
    b.done("long name", rustix::fs::fsetxattr(&file, &name, b"1", XattrFlags::empty()));
    b.done("too long", rustix::fs::fsetxattr(&file, &(name + "n"), b"1", XattrFlags::empty()));
    b.done("3,000 bytes", rustix::fs::fsetxattr(&file, "user.long", &[7; 3000], XattrFlags::empty()));
    b.done("65,537 bytes", rustix::fs::fsetxattr(&file, "user.huge", &[7; 65_537], XattrFlags::empty()));
    b.done("symlink", rustix::fs::symlinkat("x", b.dir(), "link"));
    let link = b.path.join("link");
    b.done("user on a symlink", rustix::fs::lsetxattr(&link, "user.x", b"1", XattrFlags::empty()));
    b.done("trusted on a symlink", rustix::fs::lsetxattr(&link, "trusted.x", b"1", XattrFlags::empty()));
}

fn special_files(b: &mut Bench) {
    let kinds = [
        ("fifo", FileType::Fifo, (0, 0)),
        ("socket", FileType::Socket, (0, 0)),
        ("char", FileType::CharacterDevice, (1, 3)),
        ("block", FileType::BlockDevice, (7, 200)),
        ("large numbers", FileType::CharacterDevice, (300, 70_000)),
        ("regular", FileType::RegularFile, (0, 0)),
    ];
    for (name, kind, (major, minor)) in kinds {
        let device = rustix::fs::makedev(major, minor);
        b.done("mknod", rustix::fs::mknodat(b.dir(), name, kind, Mode::from(0o640), device));
        b.done("again", rustix::fs::mknodat(b.dir(), name, kind, Mode::from(0o640), device));
        b.stat(name);
    }
    let null = rustix::fs::openat(b.dir(), "char", OFlags::RDWR, Mode::empty());
    let read = null.map(|null| rustix::io::read(&null, &mut [0; 4]));
    b.note("the null device works", read);
    let listener = std::os::unix::net::UnixListener::bind(format!("/proc/self/fd/{}/s", b.dir().as_raw_fd()));
    b.done("bind", listener.map_err(|e| e.raw_os_error()));
    b.stat("s");
}

fn many_small_writes(b: &mut Bench) {
    let file = b.file("file", b"");
    let other = b.open("file", OFlags::WRONLY);
    for i in 0..500_u64 {
        let writer = if i % 2 == 0 { &file } else { &other };
        writer.write_all_at(&pattern(37, i), i * 31 % 5000).expect("a small write");
    }
    b.content("file");
}

fn large_write(b: &mut Bench) {
    let file = b.file("file", &pattern(9_000_001, 41));
    b.note("over it", file.write_at(&pattern(3_000_000, 43), 1_234_567));
    b.content("file");
}
