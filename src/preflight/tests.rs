//! Checks before a mount, against real symlinks, bind mounts, processes and dead mounts.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

use super::*;

fn assert_root() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
}

/// A mount that goes away with the test, whatever happens in it.
struct Mounted(PathBuf);

impl Mounted {
    fn bind(source: &Path, point: &Path) -> Mounted {
        fs::create_dir_all(point).unwrap();
        mount_bind(source, point).unwrap();
        Mounted(point.to_owned())
    }

    fn tmpfs(point: &Path) -> Mounted {
        fs::create_dir_all(point).unwrap();
        mount("none", point, "tmpfs", MountFlags::empty(), c"size=1m").unwrap();
        Mounted(point.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// A mount of this product's type whose daemon has never said a word; closing `device` kills it.
struct MuteDaemon {
    device: Option<File>,
    _mounted: Mounted,
}

impl MuteDaemon {
    fn new(point: &Path) -> MuteDaemon {
        fs::create_dir_all(point).unwrap();
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let options = std::ffi::CString::new(options).unwrap();
        mount("standin", point, FS_TYPE, MountFlags::empty(), options.as_c_str()).unwrap();
        MuteDaemon { device: Some(device), _mounted: Mounted(point.to_owned()) }
    }

    fn kill(&mut self) {
        self.device = None;
    }
}

/// A temporary directory without symlinks on the way to it.
struct Ground(tempfile::TempDir);

impl Ground {
    fn new() -> Ground {
        Ground(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    fn dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn options(&self, directory: &Path) -> ProtectOptions {
        ProtectOptions::in_tests(directory, &self.path(""))
    }
}

const MOUNTINFO: &str = r"1 1 8:1 / / rw - ext4 /dev/sda1 rw
20 1 0:20 / /proc rw - proc proc rw
30 1 8:2 / /srv rw shared:5 master:2 - xfs /dev/sdb1 rw
31 30 8:3 /sub /srv/a\040b\134c rw - ext4 /dev/sdc1 rw
32 30 0:40 / /srv/web rw - ext4 old rw
33 32 0:41 / /srv/web rw - fuse.standin standin rw
34 32 0:42 / /srv/web/hidden rw - tmpfs none rw
not a mount
35 1 8:2 /deep/inside /mnt/bind rw - xfs /dev/sdb1 rw
";

#[test]
fn mountinfo_is_read_with_its_escapes_stacks_and_hidden_mounts() {
    let mounts = MountTable::parse(MOUNTINFO.as_bytes());
    let id_at = |path: &str| mounts.at(Path::new(path)).map(|mount| mount.id);
    let id_holding = |path: &str| mounts.holding(Path::new(path)).map(|mount| mount.id);
    assert_eq!(id_at(r"/srv/a b\c"), Some(31));
    assert_eq!(mounts.by_id(31).unwrap().root, Path::new("/sub"));
    assert_eq!(mounts.by_id(31).unwrap().source, "/dev/sdc1");
    assert_eq!(id_at("/srv/web"), Some(33), "the upper one of two");
    assert!(mounts.at(Path::new("/srv/web")).unwrap().is_standin());
    assert_eq!(id_holding("/srv/web/hidden/x"), Some(33), "what is below was hidden");
    assert_eq!(id_holding("/srv/website"), Some(30), "a name is no prefix");
    assert_eq!(id_holding("/etc/passwd"), Some(1));
    assert_eq!(id_at("/srv/nothing"), None);
    let below: Vec<u64> = mounts.below(Path::new("/srv")).iter().map(|mount| mount.id).collect();
    assert_eq!(below, [31, 33]);
    assert!(mounts.holding(Path::new("/")).is_some());
}

#[test]
fn a_location_is_the_same_through_every_mount() {
    let mounts = MountTable::parse(MOUNTINFO.as_bytes());
    let location = |path: &str| mounts.location(Path::new(path)).unwrap();
    assert_eq!(location("/mnt/bind/x"), location("/srv/deep/inside/x"));
    assert!(location("/mnt/bind").is_within(&location("/srv/deep")));
    assert!(!location("/mnt/bind").is_within(&location("/srv/deep/ins")));
    assert!(!location("/srv/x").is_within(&location("/")), "another file system");
}

#[test]
fn paths_are_resolved_like_the_kernel_does() {
    let ground = Ground::new();
    let real = ground.dir("real/sub");
    symlink(ground.path("real"), ground.path("absolute")).unwrap();
    symlink("real/sub", ground.path("relative")).unwrap();
    symlink("loop", ground.path("loop")).unwrap();
    let mounts = MountTable::read().unwrap();
    for name in ["absolute/sub", "relative", "./real//sub/.", "relative/../sub", "absolute/../real/sub"] {
        assert_eq!(resolve(&ground.path(name), &mounts).unwrap(), real, "{name}");
        assert_eq!(ground.path(name).canonicalize().unwrap(), real, "{name}");
    }
    assert_eq!(resolve(&ground.path("relative/new/x"), &mounts).unwrap(), real.join("new/x"));
    let error = resolve(&ground.path("loop"), &mounts).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    assert_eq!(resolve(Path::new("."), &mounts).unwrap(), std::env::current_dir().unwrap());
}

#[test]
fn statistics_lie_apart_from_the_tree_and_replicas() {
    let ground = Ground::new();
    let (tree, elsewhere) = (ground.dir("tree"), ground.dir("elsewhere"));
    let check = |expected: Option<&str>, dir: &Path, change: &dyn Fn(&mut ProtectOptions)| {
        let mut options = ground.options(&tree);
        let path = dir.join("web.jsonl");
        options.statistics = Some(crate::words::StatisticsTo { path, size: 1 << 20, keep: 2 });
        change(&mut options);
        let found = check_places(&options, &MountTable::read().unwrap()).err();
        match expected {
            None => assert_eq!(found, None, "{}", dir.display()),
            Some(part) => {
                let what = found.expect("it is refused").what;
                assert!(what.contains("for the statistics") && what.contains(part), "{what}");
            }
        }
    };
    check(None, &elsewhere, &|_| {});
    check(None, tree.parent().unwrap(), &|_| {});
    check(Some("the protected directory"), &tree.join("sub"), &|_| {});
    check(Some("the mount point"), &tree, &|options| options.backing = Some(elsewhere.clone()));
    check(Some("the protected directory"), &elsewhere, &|options| options.backing = Some(elsewhere.clone()));
    check(Some("the replica"), &elsewhere, &|options| {
        options.targets = vec![Target::Local(elsewhere.clone())];
    });
}

/// Somebody could have a file written that is not theirs.
#[test]
fn links_of_others_lead_to_no_file_that_is_written() {
    assert_root();
    let ground = Ground::new();
    let real = ground.dir("real");
    symlink("real", ground.path("own")).unwrap();
    symlink("real", ground.path("theirs")).unwrap();
    std::os::unix::fs::lchown(ground.path("theirs"), Some(1234), None).unwrap();
    symlink("theirs", ground.path("over")).unwrap();
    symlink("elsewhere", ground.path("real/link")).unwrap();
    let mounts = MountTable::read().unwrap();
    let at = |name: &str| resolve_own(&ground.path(name), &mounts).map_err(|error| error.to_string());
    assert_eq!(at("own/file"), Ok(real.join("file")));
    assert_eq!(at("own/new/file"), Ok(real.join("new/file")));
    for name in ["theirs/file", "over/file"] {
        assert!(at(name).unwrap_err().ends_with("theirs is a symbolic link of user 1234"), "{name}");
    }
    assert!(at("own/link").unwrap_err().ends_with("real/link is a symbolic link"));
}

/// A host that had stood in at a place beside its replica, and had got another target there, could not stand in again:
/// its own cover was in the way.
#[test]
fn a_target_comes_to_a_directory_below_its_cover() {
    assert_root();
    let ground = Ground::new();
    let (tree, at) = (ground.dir("tree"), ground.dir("at"));
    let cover = Mounted::bind(&tree, &at);
    let private = rustix::mount::MountPropagationFlags::PRIVATE;
    rustix::mount::mount_change(&cover.0, private).unwrap();
    let mut options = ground.options(&at);
    options.backing = Some(tree);
    let check = || check_addition(&options, &Target::Local(ground.path("other")));
    let failure = check().unwrap_err();
    assert!(failure.what.contains("is the mount point"), "it can be written to: {failure}");
    rustix::mount::mount_remount(&cover.0, MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();
    check().unwrap();
}

#[test]
fn replicas_and_own_directories_must_lie_apart_from_the_tree() {
    let ground = Ground::new();
    let (tree, elsewhere) = (ground.dir("tree"), ground.dir("elsewhere"));
    ground.dir("tree/sub");
    let check = |what: &str, expected: Option<&str>, change: &dyn Fn(&mut ProtectOptions)| {
        let mut options = ground.options(&tree);
        change(&mut options);
        match (check_places(&options, &MountTable::read().unwrap()), expected) {
            (Ok(()), None) => {}
            (Err(failure), Some(part)) => assert!(failure.what.contains(part), "{what}: {failure}"),
            (got, _) => panic!("{what}: {got:?}"),
        }
    };
    let local = |path: &Path| Target::Local(path.to_owned());
    let queue_in = |options: &mut ProtectOptions, parent: &Path| {
        options.queue_disk = Some(crate::words::QueueDisk { parent: Some(parent.to_owned()), limit: None });
    };
    // What is used is a directory in the one that is named.
    let (around, named) = (ground.dir("around"), ground.dir("around/test.queue"));
    check("a queue elsewhere", None, &|options| queue_in(options, &elsewhere));
    check("a queue that is the tree", Some("directory of the queue"), &|options| {
        options.directory = named.clone();
        queue_in(options, &around);
    });
    check("a queue around the tree", Some("directory of the queue"), &|options| {
        options.directory = ground.dir("around/test.queue/below");
        queue_in(options, &around);
    });
    check("a queue that is a replica", Some("directory of the queue"), &|options| {
        options.targets = vec![Target::Local(named.clone())];
        queue_in(options, &around);
    });
    check("apart", None, &|options| options.targets = vec![local(&elsewhere), Target::Null]);
    check("not there yet", None, &|options| options.targets = vec![local(&ground.path("new"))]);
    check("a name is no prefix", None, &|options| options.targets = vec![local(&ground.path("tree2"))]);
    check("same", Some("is the protected"), &|options| options.targets = vec![local(&tree)]);
    check("in it", Some("The replica"), &|options| options.targets = vec![local(&tree.join("sub/new"))]);
    check("around it", Some("protected directory (/"), &|options| {
        options.targets = vec![local(tree.parent().unwrap())]
    });
    check("state in it", Some("The state directory"), &|options| options.state = tree.join("sub"));
    check("run is it", Some("The run directory"), &|options| options.run = tree.clone());
    check("state in the replica", Some("The state directory"), &|options| {
        options.targets = vec![local(&elsewhere)];
        options.state = elsewhere.join("state");
    });
    check("replica in a replica", Some("Another replica"), &|options| {
        options.targets = vec![local(&elsewhere), local(&elsewhere.join("two"))];
    });
    check("backing in the mount point", Some("The backing"), &|options| {
        options.backing = Some(tree.join("sub"))
    });
    check("replica in the mount point", Some("the mount point"), &|options| {
        options.backing = Some(elsewhere.clone());
        options.targets = vec![local(&tree.join("replica"))];
    });
}

#[test]
fn bind_mounts_do_not_hide_a_conflict() {
    assert_root();
    let ground = Ground::new();
    let tree = ground.dir("tree");
    ground.dir("tree/deep/replica");
    // A second way to a part of the tree: none of its parents is the tree itself.
    let _bind = Mounted::bind(&ground.path("tree/deep"), &ground.path("bind"));
    let _whole = Mounted::bind(&tree, &ground.path("whole"));
    let mounts = MountTable::read().unwrap();
    let relation_of = |inner: &str| relation(&ground.path(inner), &tree, &mounts);
    assert_eq!(relation_of("bind/replica"), Relation::Inside);
    assert_eq!(relation_of("bind/replica/new"), Relation::Inside);
    assert_eq!(relation_of("whole"), Relation::Same);
    assert_eq!(relation_of("bindx"), Relation::Apart);
    assert_eq!(relation(&tree, &ground.path("bind"), &mounts), Relation::Around);
}

#[test]
fn a_replica_on_another_disk_below_the_tree_is_a_conflict() {
    assert_root();
    let ground = Ground::new();
    let tree = ground.dir("tree");
    let _disk = Mounted::tmpfs(&ground.path("tree/backup"));
    let mounts = MountTable::read().unwrap();
    assert_eq!(relation(&ground.path("tree/backup/replica"), &tree, &mounts), Relation::Inside);
}

#[test]
fn nested_mounts_are_named_and_hidden_only_on_demand() {
    assert_root();
    let ground = Ground::new();
    let tree = ground.dir("tree");
    let _nested = Mounted::tmpfs(&ground.path("tree/a b"));
    let mut options = ground.options(&tree);
    let check = |options: &ProtectOptions| {
        check_nested(options, &MountTable::read().unwrap(), &FsFacts::of(&tree).unwrap())
    };
    let refused = check(&options).unwrap_err();
    assert!(refused.what.contains("tree/a b"), "{refused}");
    options.hide_nested = true;
    assert_eq!(check(&options).unwrap(), [ground.path("tree/a b")]);
    drop(_nested);
    options.hide_nested = false;
    assert_eq!(check(&options).unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn directories_that_cannot_be_protected_are_refused_with_the_reason() {
    let ground = Ground::new();
    fs::write(ground.path("file"), "x").unwrap();
    let what = |path: &Path| check_directory(path).unwrap_err().what;
    assert!(what(Path::new("/")).contains("cannot be protected"));
    assert!(what(&ground.path("none")).contains("does not exist"));
    assert!(what(&ground.path("file")).contains("no directory"));
    check_directory(&ground.dir("dir")).unwrap();
    assert!(check_root_user(1000).unwrap_err().what.contains("user 1000"));
    check_root_user(0).unwrap();
}

#[test]
fn targets_that_cannot_work_are_refused_with_the_reason() {
    let ground = Ground::new();
    fs::write(ground.path("file"), "x").unwrap();
    let what = |text: &str| check_target(&text.parse().unwrap()).unwrap_err().what;
    let local = |name: &str| format!("local:{}", ground.path(name).display());
    assert!(what(&local("file")).contains("no directory"));
    assert!(what(&local("none/replica")).contains("cannot be created"));
    assert!(what(&local("file/replica")).contains("file/replica"));
    check_target(&local("new").parse().unwrap()).unwrap();
    check_target(&Target::Null).unwrap();
    check_target(&"standin://host:1/web".parse().unwrap()).unwrap();
}

/// A child that says `ready` on its standard output when it is; killed with the test.
struct Busy(Child);

impl Busy {
    fn start(mut command: Command) -> Busy {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("ready")), "the child did not start");
        Busy(child)
    }

    fn shell(script: &str, dir: &Path) -> Busy {
        let mut command = Command::new("sh");
        Self::start({
            command.arg("-c").arg(format!("{script}; echo ready; read wait")).current_dir(dir);
            command
        })
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn uses_by(pid: u32, uses: &[Use]) -> Vec<(UseKind, PathBuf)> {
    let by = |entry: &&Use| matches!(entry.user, User::Process { pid: user, .. } if user == pid);
    uses.iter().filter(by).map(|entry| (entry.kind, entry.path.clone())).collect()
}

#[test]
fn open_writers_are_found_and_told_from_others() {
    assert_root();
    let ground = Ground::new();
    let tree = ground.dir("tree");
    fs::write(ground.path("tree/read"), "x").unwrap();
    let outside = Busy::shell("exec 3>outside 4<tree/read", &ground.path(""));
    let writer = Busy::shell(
        "exec 3>>'tree/log file' 4>tree/gone; rm tree/gone; mkfifo tree/pipe; exec 5<>tree/pipe",
        &ground.path(""),
    );
    let stander = Busy::shell("true", &tree);

    let users = users_of(&tree).unwrap();
    let writers = open_writers(&users);
    assert_eq!(uses_by(writer.pid(), &writers), [(UseKind::Writing, ground.path("tree/log file"))]);
    assert_eq!(uses_by(outside.pid(), &writers), []);
    assert_eq!(uses_by(outside.pid(), &users.uses), [(UseKind::Open, ground.path("tree/read"))]);
    assert_eq!(uses_by(stander.pid(), &users.uses), [(UseKind::WorkingDirectory, tree.clone())]);

    let mut options = ground.options(&tree);
    let refused = check_users(&options, None, &mut Vec::new()).unwrap_err();
    assert!(refused.what.contains(&format!("sh (pid {})", writer.pid())), "{refused}");
    assert!(refused.what.contains("log file"), "{refused}");
    options.force = true;
    let mut warnings = Vec::new();
    assert_eq!(check_users(&options, None, &mut warnings).unwrap().len(), 1);
    assert!(warnings.iter().any(|warning| warning.contains("log file")), "{warnings:?}");
    assert!(
        warnings.iter().any(|warning| warning.contains(&format!("pid {}", stander.pid()))),
        "{warnings:?}"
    );

    // One that is ending is waited for.
    options.force = false;
    let ends = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        drop(writer);
    });
    check_users(&options, None, &mut warnings).unwrap();
    ends.join().unwrap();
}

#[test]
fn a_writer_behind_a_bind_mount_or_in_a_container_is_found() {
    assert_root();
    let ground = Ground::new();
    let tree = ground.dir("tree");
    let _bind = Mounted::bind(&tree, &ground.path("bind"));
    let behind = Busy::shell("exec 3>bind/one", &ground.path(""));
    // A mount namespace of its own, in which the tree lies where only it can see it.
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]).current_dir(ground.path("")).arg(
        "mkdir -p inner && mount --bind tree inner && umount bind && exec 3>inner/two && echo ready && read wait",
    );
    let contained = Busy::start(command);
    let writers = open_writers(&users_of(&tree).unwrap());
    assert_eq!(uses_by(behind.pid(), &writers), [(UseKind::Writing, ground.path("bind/one"))]);
    assert_eq!(uses_by(contained.pid(), &writers), [(UseKind::Writing, ground.path("inner/two"))]);
}

const MAPPED_FILE: &str = "STANDIN_TEST_MAPPED_FILE";

/// Not a test by itself: the child of the next one. Holds a mapping whose descriptor is closed.
#[test]
#[ignore = "only as the child of another test"]
fn child_that_maps() {
    let path = std::env::var_os(MAPPED_FILE).unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    let page = crate::sys::SharedPage::map(&file).unwrap();
    drop(file);
    println!("ready");
    let _ = std::io::stdin().read_line(&mut String::new());
    drop(page);
}

#[test]
fn a_shared_mapping_counts_although_its_descriptor_is_closed() {
    assert_root();
    let ground = Ground::new();
    let tree = ground.dir("tree");
    fs::write(ground.path("tree/mapped"), [0; 4096]).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "preflight::tests::child_that_maps", "--ignored", "--nocapture"])
        .env(MAPPED_FILE, ground.path("tree/mapped"));
    let child = Busy::start(command);
    let writers = open_writers(&users_of(&tree).unwrap());
    assert_eq!(uses_by(child.pid(), &writers), [(UseKind::Mapping, ground.path("tree/mapped"))]);
}

#[test]
fn a_dead_mount_is_recognised_and_a_living_one_refused() {
    assert_root();
    let ground = Ground::new();
    let (tree, point) = (ground.dir("tree"), ground.path("tree/web"));
    assert_eq!(standing_mount(&tree).unwrap(), None);
    let mut daemon = MuteDaemon::new(&point);

    let around = standing_mount(&tree).unwrap_err();
    assert!(around.what.contains("is around"), "{around}");
    let inside = standing_mount(&point.join("sub")).unwrap_err();
    assert!(inside.what.contains("is inside"), "{inside}");
    let hung = standing_mount(&point).unwrap_err();
    assert!(hung.what.contains("does not answer"), "{hung}");
    // Nothing on the way to a path touches the mount either: this would hang.
    let mounts = MountTable::read().unwrap();
    assert_eq!(resolve(&point.join("a/../b"), &mounts).unwrap(), point.join("b"));

    daemon.kill();
    assert_eq!(standing_mount(&point).unwrap(), Some(DeadMount { point: point.clone() }));
    drop(daemon);
    assert_eq!(standing_mount(&point).unwrap(), None);
}

#[test]
fn facts_are_those_of_the_file_system() {
    assert_root();
    let ground = Ground::new();
    let _disk = Mounted::tmpfs(&ground.path("tmpfs"));
    let facts = FsFacts::of(&ground.path("tmpfs")).unwrap();
    assert_eq!(facts.fs_type, "tmpfs");
    assert_eq!(facts.total_bytes, 1 << 20);
    assert!(
        facts.trusted_xattrs
            && facts.handles
            && !facts.case_insensitive
            && !facts.read_only
            && !facts.reflinks
    );
    assert!(!FsFacts::of(Path::new("/proc")).unwrap().user_xattrs);
    assert!(kernel_version() >= (3, 0, String::new()));
    open_dev_fuse().unwrap();
}

#[test]
fn a_whole_preflight_says_what_it_lets_pass() {
    assert_root();
    let ground = Ground::new();
    let tree = ground.dir("tree");
    let mut options = ground.options(&tree);
    options.targets = vec![Target::Local(ground.path("replica"))];
    let clear = check(&options).unwrap();
    assert!(clear.hidden.is_empty() && clear.writers.is_empty(), "{clear:?}");

    let _nested = Mounted::tmpfs(&ground.path("tree/nested"));
    assert!(check(&options).is_err());
    options.hide_nested = true;
    let passed = check(&options).unwrap();
    assert_eq!(passed.hidden, [ground.path("tree/nested")]);
    assert!(passed.warnings.iter().any(|warning| warning.contains("nested")), "{:?}", passed.warnings);
}

/// It was left out in silence.
#[test]
fn a_name_of_standins_own_is_named() {
    let ground = Ground::new();
    let tree = ground.dir("tree");
    let options = ground.options(&tree);
    let is_named = || {
        let passed = check(&options).unwrap();
        passed.warnings.iter().any(|warning| warning.contains(".standin.limbo"))
    };
    assert!(!is_named());
    std::fs::create_dir(tree.join(".standin.limbo")).unwrap();
    assert!(is_named());
}

/// An overlay got as far as a copy that failed with "Operation not supported".
#[test]
fn a_tree_without_handles_is_refused_where_it_has_to_be_copied() {
    let dir = tempfile::tempdir().unwrap();
    let facts = FsFacts { handles: false, ..FsFacts::of(dir.path()).unwrap() };
    let local = Target::Local("/srv/replica".into());
    assert!(check_handles(dir.path(), &facts, &[]).is_ok());
    assert!(check_handles(dir.path(), &facts, &[Target::Null]).is_ok());
    let refused = check_handles(dir.path(), &facts, &[Target::Null, local.clone()]).unwrap_err();
    assert!(refused.what.contains("no file handles"), "{refused}");
    let facts = FsFacts { handles: true, ..facts };
    assert!(check_handles(dir.path(), &facts, &[local]).is_ok());
}
