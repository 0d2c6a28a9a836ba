//! A replica is served in its source's place, the old source is kept out, brought into line, and written to
//! again.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use crate::host::{
    COMMAND_MAX, Daemon, Image, Place, STOP_MAX, SYNC_MAX, clear_mounts_above, describe, dir_on_disk,
    output_within, require_host, require_program, run, standin, wait_in_line,
};
use crate::pair::kill;
use crate::tree;

/// A host that can be source and target: its tree is `srv/web`.
pub struct Side {
    pub at: PathBuf,
    /// Where programs have the data.
    pub point: PathBuf,
    /// Disks that are mounted there themselves.
    disks: usize,
    port: u16,
    pub serve: Option<Daemon>,
    pub protect: Option<Daemon>,
}

impl Side {
    pub fn new(base: &Path, name: &str) -> Side {
        let at = base.join(name);
        for dir in ["srv", "mount", "run", "serve-run"] {
            fs::create_dir_all(at.join(dir)).expect("a directory");
        }
        let free = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        Side {
            point: at.join("mount"),
            disks: 0,
            at,
            port: free.expect("a free port").port(),
            serve: None,
            protect: None,
        }
    }

    pub fn tree(&self) -> PathBuf {
        self.at.join("srv/web")
    }

    pub fn mount(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }

    pub fn command(&self) -> Command {
        let mut command = standin(&self.at.join("run"));
        command.arg("--state").arg(self.at.join("state"));
        command
    }

    /// For the target daemon.
    pub fn target_command(&self) -> Command {
        let mut command = standin(&self.at.join("serve-run"));
        command.arg("--state").arg(self.at.join("state"));
        command
    }

    pub fn serve(&mut self, arguments: &[&str]) {
        let mut command = self.target_command();
        command.arg("serve").arg("--root").arg(self.at.join("srv")).args(arguments);
        command.args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        let mut daemon = Daemon::spawn(command);
        daemon.wait_ready();
        self.serve = Some(daemon);
    }

    pub fn protect_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command();
        command.arg("protect").arg(&self.point);
        if self.point != self.tree() {
            command.arg("--backing").arg(self.tree());
        }
        command.args(["--name", "web"]).args(arguments);
        command
    }

    pub fn protect(&mut self, arguments: &[&str]) {
        let mut daemon = Daemon::spawn(self.protect_command(arguments));
        daemon.wait_ready();
        self.protect = Some(daemon);
    }

    /// It does not come up, and says why.
    #[track_caller]
    pub fn refuses(&self, arguments: &[&str], word: &str) {
        let output = output_within(&mut self.protect_command(arguments), SYNC_MAX);
        let said = describe(&output);
        assert!(output.status.code() == Some(2) && said.contains(word), "no '{word}' in:\n{said}");
    }

    pub fn pair_with(&self, target: &Side) {
        let invited = output_within(target.target_command().args(["invite", "web"]), COMMAND_MAX);
        assert!(invited.status.success(), "{}", describe(&invited));
        let mut command = self.command();
        command.args(["pair", &target.address()]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().expect("standin pair");
        child.stdin.take().expect("piped").write_all(&invited.stdout).expect("it reads the token");
        assert!(child.wait().expect("it ends").success());
    }

    pub fn address(&self) -> String {
        format!("standin://127.0.0.1:{}/web", self.port)
    }

    #[track_caller]
    pub fn in_line(&self) {
        wait_in_line(|| self.command(), || self.said());
        let output = output_within(self.command().args(["wait-sync", "--timeout", "120s"]), SYNC_MAX);
        assert!(output.status.success(), "{}{}", describe(&output), self.said());
    }

    pub fn stop(daemon: &mut Option<Daemon>) {
        let mut daemon = daemon.take().expect("it runs");
        daemon.signal(libc::SIGTERM);
        let status = daemon.wait(STOP_MAX);
        assert!(status.is_some_and(|status| status.success()), "{status:?}\n{}", daemon.said());
    }

    /// Its target may be away: what is queued is left behind.
    pub fn stop_as_it_is(daemon: &mut Option<Daemon>) {
        let mut daemon = daemon.take().expect("it runs");
        daemon.signal(libc::SIGTERM);
        std::thread::sleep(std::time::Duration::from_millis(500));
        daemon.signal(libc::SIGTERM);
        assert!(daemon.wait(STOP_MAX).is_some(), "{}", daemon.said());
    }

    pub fn said(&self) -> String {
        let said = |daemon: &Option<Daemon>| daemon.as_ref().map(Daemon::said).unwrap_or_default();
        format!("--- {}\nprotect: {}\nserve: {}", self.at.display(), said(&self.protect), said(&self.serve))
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
        for mut daemon in [self.protect.take(), self.serve.take()].into_iter().flatten() {
            kill(&mut daemon);
        }
        clear_mounts_above(&self.point, self.disks);
    }
}

/// The old source, what stands in for it, and their files.
pub struct Scene {
    pub old: Side,
    pub new: Side,
    // Dropped after those who use them.
    _disks: Vec<Image>,
    _base: TempDir,
}

impl Scene {
    /// A source and its target, with everything at both.
    pub fn with_a_source(arguments: &[&str]) -> Scene {
        require_host();
        let base = dir_on_disk();
        let (old, new) = (Side::new(base.path(), "old"), Side::new(base.path(), "new"));
        Scene { old, new, _disks: Vec::new(), _base: base }.with_everything_at_both(arguments)
    }

    /// As [`Scene::with_a_source`]; programs on the source have the data where they are.
    pub fn in_place(arguments: &[&str]) -> Scene {
        require_host();
        let base = dir_on_disk();
        let (mut old, new) = (Side::new(base.path(), "old"), Side::new(base.path(), "new"));
        fs::create_dir_all(old.tree()).expect("a directory");
        old.point = old.tree();
        Scene { old, new, _disks: Vec::new(), _base: base }.with_everything_at_both(arguments)
    }

    /// On either host the directory is a mount point, or with btrfs the root of a subvolume.
    pub fn on_disks(kind: &'static str, mib: u64, place: Place) -> Scene {
        require_host();
        let base = dir_on_disk();
        let (mut old, new) = (Side::new(base.path(), "old"), Side::new(base.path(), "new"));
        let disk = |side: &Side| match kind {
            "btrfs" => {
                fs::remove_dir(side.at.join("srv")).expect("it is empty");
                let disk = Image::mount(&side.at, side.at.join("srv"), kind, mib);
                let mut made = Command::new(require_program("btrfs"));
                run(made.args(["-q", "subvolume", "create"]).arg(side.tree()));
                disk
            }
            kind => Image::mount(&side.at, side.tree(), kind, mib),
        };
        let disks = [&old, &new].map(disk).into();
        if place == Place::Over {
            old.point = old.tree();
            old.disks = usize::from(kind != "btrfs");
        }
        Scene { old, new, _disks: disks, _base: base }.with_everything_at_both(&[])
    }

    fn with_everything_at_both(mut self, arguments: &[&str]) -> Scene {
        let Scene { old, new, .. } = &mut self;
        fill(&old.tree());
        new.serve(&[]);
        old.pair_with(new);
        let to = new.address();
        old.protect(&[&["--to", &to], arguments].concat());
        fs::write(old.mount("written"), "through the mount").expect("a write");
        old.in_line();
        self
    }

    /// The source is gone in the middle of its work: what it wrote last never came.
    fn without_a_source() -> Scene {
        let mut scene = Scene::with_a_source(&[]);
        scene.source_dies();
        scene
    }

    fn source_dies(&mut self) {
        let old = &mut self.old;
        kill(old.protect.as_mut().expect("it runs"));
        old.protect = None;
        clear_mounts_above(&old.point, old.disks);
        fs::write(old.tree().join("d/1"), "never shipped").expect("a write");
    }
}

/// What belongs to a replica, and lies in it where it is a mount point, is none of the data.
#[track_caller]
pub fn assert_same(left: &Path, right: &Path) {
    let rules = tree::Rules { skip_at_root: vec![b".standin.limbo".to_vec()], ..tree::Rules::default() };
    tree::assert_same_by(left, right, &rules);
}

pub fn fill(root: &Path) {
    fs::create_dir_all(root.join("d/deep")).expect("directories");
    fs::create_dir_all(root.join("moves")).expect("directories");
    for number in 0..300 {
        fs::write(root.join(format!("d/{number}")), vec![b'x'; number * 37]).expect("a file");
        fs::write(root.join(format!("moves/{number}")), format!("{number}")).expect("a file");
    }
    fs::hard_link(root.join("d/7"), root.join("d/deep/again")).expect("a link");
    std::os::unix::fs::symlink("d/7", root.join("in")).expect("a symlink");
}

/// What programs do on the stand-in, to objects that were born on the old source and on it.
fn work(side: &Side, round: &str) {
    let at = |name: &str| side.mount(name);
    fs::write(at(&format!("born {round}")), "here").expect("a write");
    fs::write(at("d/2"), format!("rewritten in {round}")).expect("a write");
    fs::rename(at("moves"), at(&format!("moved in {round}"))).expect("renamed");
    fs::create_dir(at("moves")).expect("a directory");
    fs::write(at("moves/new"), round).expect("a write");
    fs::hard_link(at("d/9"), at(&format!("d/deep/{round}"))).expect("a link");
    let _ = fs::remove_file(at("d/4"));
    fs::rename(at("d/11"), at("d/12")).expect("renamed over");
    fs::write(at("d/11"), round).expect("a write");
}

/// What it said of copies.
fn copied(side: &Side) -> String {
    side.said().lines().filter(|line| line.contains("content of")).collect::<Vec<_>>().join("\n")
}

/// The old source came back and was answered with a copy: what the stand-in had written was overwritten.
#[test]
fn a_replica_stands_in_and_its_source_comes_home() {
    comes_home(Scene::without_a_source());
}

/// Where neither is a directory of its disk, but the whole of it.
#[test]
fn a_disk_stands_in_for_a_disk() {
    for (kind, mib) in [("ext4", 96), ("xfs", 320), ("btrfs", 200)] {
        eprintln!("{kind}");
        let mut scene = Scene::on_disks(kind, mib, Place::Beside);
        scene.source_dies();
        comes_home(scene);
    }
}

fn comes_home(mut scene: Scene) {
    let Scene { old, new, .. } = &mut scene;
    // While the target daemon runs, which lets the replica go.
    new.protect(&["--stand-in"]);
    assert_eq!(fs::read(new.mount("written")).expect("read"), b"through the mount");
    work(new, "the first");
    let lost = fs::read(old.tree().join("d/1")).expect("read");
    old.refuses(&["--to", &new.address()], "was stood in for");
    assert!(!old.mount("written").exists(), "it is mounted");
    Side::stop(&mut new.protect);
    old.refuses(&["--to", &new.address()], "epoch 2");
    assert_eq!(fs::read(new.tree().join("moves/new")).expect("read"), b"the first");
    assert_eq!(fs::read(old.tree().join("d/1")).expect("read"), lost);

    // The old host holds the copy now; a later start goes on in the same epoch.
    old.serve(&["--adopt"]);
    new.pair_with(old);
    new.protect(&["--to", &old.address()]);
    new.in_line();
    work(new, "the second");
    new.in_line();
    assert_same(&new.tree(), &old.tree());
    eprintln!("to the old source: {}", copied(new));

    // What only the old source had is kept until somebody says that it may go.
    let status = output_within(old.target_command().arg("status"), COMMAND_MAX);
    let said = describe(&status);
    assert!(
        status.status.code() == Some(1) && said.contains("clone stop lost-writes --force --set web"),
        "{said}"
    );
    let mut command = old.target_command();
    let gone = output_within(command.args(["clone", "stop", "lost-writes", "--force"]), COMMAND_MAX);
    assert!(gone.status.success(), "{}", describe(&gone));

    // Home: stop here, start there.
    let last = Instant::now();
    Side::stop(&mut new.protect);
    Side::stop(&mut old.serve);
    old.refuses(&["--to", &new.address()], "replica of a stand-in");
    old.protect(&["--stand-in", "--to", &new.address()]);
    eprintln!("frozen for {:?}, with a start that was refused", last.elapsed());
    work(old, "the third");
    old.in_line();
    assert_same(&old.tree(), &new.tree());
    new.refuses(&[], "replica of a stand-in");
    Side::stop(&mut old.protect);
}
