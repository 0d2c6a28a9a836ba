//! A source daemon and a target daemon on this host, paired over loopback.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::host::{
    COMMAND_MAX, Daemon, Disk, Image, STOP_MAX, SYNC_MAX, clear_mounts, describe, dir_on_disk, output_within,
    require_host, standin,
};
use crate::tree::{self, Rules};

/// A source and a target daemon on this host over loopback, each on a disk of its own.
pub struct Pair {
    pub source: Option<Daemon>,
    pub target: Option<Daemon>,
    port: u16,
    pub mount: PathBuf,
    pub backing: PathBuf,
    root: PathBuf,
    _images: Vec<Image>,
    _mounts: TempDir,
    base: TempDir,
}

impl Pair {
    pub fn start(source: Disk, target: Disk) -> Pair {
        require_host();
        let base = dir_on_disk();
        let mounts = tempfile::Builder::new().prefix("s").tempdir().expect("a temporary directory");
        let mut images = Vec::new();
        let mut side = |name: &str, disk: Disk| {
            let mut at = base.path().to_path_buf();
            if let Disk::Image { kind, mib } = disk {
                at = mounts.path().join(name);
                images.push(Image::mount(base.path(), at.clone(), kind, mib));
            }
            let data = at.join(format!("{name}-data"));
            fs::create_dir(&data).expect("a directory");
            data
        };
        let (backing, root) = (side("backing", source), side("root", target));
        let mount = mounts.path().join("m");
        for dir in [&mount, &base.path().join("source-run"), &base.path().join("target-run")] {
            fs::create_dir(dir).expect("a directory");
        }
        let free = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = free.expect("a free port").port();
        let (source, target) = (None, None);
        let mut pair =
            Pair { source, target, port, mount, backing, root, _images: images, _mounts: mounts, base };
        pair.serve();
        pair.pair();
        pair.protect();
        pair
    }

    pub fn run(&self, side: &str) -> PathBuf {
        self.base.path().join(format!("{side}-run"))
    }

    pub fn daemon(&self, side: &str) -> Command {
        let mut command = standin(&self.run(side));
        command.arg("--state").arg(self.base.path().join(format!("{side}-state")));
        command
    }

    pub fn serve_command(&self) -> Command {
        let mut command = self.daemon("target");
        command.arg("serve").arg("--root").arg(&self.root).args(["--allow", "device,setuid,security"]);
        command.args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        command
    }

    pub fn serve(&mut self) {
        let mut daemon = Daemon::spawn(self.serve_command());
        daemon.wait_ready();
        self.target = Some(daemon);
    }

    pub fn repset(&self) -> String {
        format!("standin://127.0.0.1:{}/web", self.port)
    }

    /// Where the target listens.
    pub fn address(&self) -> std::net::SocketAddr {
        (std::net::Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub fn pair(&self) {
        let invited = output_within(self.daemon("target").args(["invite", "web"]), COMMAND_MAX);
        assert!(invited.status.success(), "{}", describe(&invited));
        let mut command = self.daemon("source");
        command.args(["pair", &self.repset()]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().expect("standin pair");
        child.stdin.take().expect("piped").write_all(&invited.stdout).expect("it reads the token");
        assert!(child.wait().expect("it ends").success());
    }

    pub fn protect(&mut self) {
        self.protect_at_once();
        crate::host::wait_in_line(|| self.daemon("source"), || self.said());
    }

    pub fn protect_command(&self) -> Command {
        let mut command = self.daemon("source");
        command.arg("protect").arg(&self.mount).arg("--backing").arg(&self.backing);
        command.args(crate::host::profile(&[]));
        command.args(["--to", &self.repset(), "--name", "here"]);
        command
    }

    /// What the target lacks is still being copied, or it is not there.
    pub fn protect_at_once(&mut self) {
        let mut daemon = Daemon::spawn(self.protect_command());
        daemon.wait_ready();
        self.source = Some(daemon);
    }

    /// Of a target on a file system of its own: its image and where it is mounted.
    pub fn target_image(&self) -> (PathBuf, PathBuf) {
        (self.base.path().join("root.image"), self.root.parent().expect("a mount point").to_owned())
    }

    pub fn state(&self, side: &str) -> PathBuf {
        self.base.path().join(format!("{side}-state"))
    }

    pub fn replica(&self) -> PathBuf {
        self.root.join("web")
    }

    pub fn kill_target(&mut self) {
        kill(&mut self.target.take().expect("it serves"));
    }

    pub fn stop_target(&mut self) {
        let mut target = self.target.take().expect("it serves");
        target.signal(libc::SIGTERM);
        let status = target.wait(STOP_MAX);
        assert!(status.is_some_and(|status| status.success()), "serve: {status:?}\n{}", target.said());
    }

    pub fn stop_source(&mut self) {
        let mut source = self.source.take().expect("it runs");
        source.signal(libc::SIGTERM);
        let status = source.wait(STOP_MAX);
        assert!(status.is_some_and(|status| status.success()), "protect: {status:?}\n{}", source.said());
    }

    #[track_caller]
    pub fn assert_in_sync(&self, rules: &Rules) {
        self.assert_in_sync_of(10, rules);
    }

    /// With at least so many objects.
    #[track_caller]
    pub fn assert_in_sync_of(&self, objects: usize, rules: &Rules) {
        let mut command = standin(&self.run("source"));
        let output = output_within(command.args(["wait-sync", "--timeout", "120s"]), SYNC_MAX);
        assert!(output.status.success(), "{}{}", describe(&output), self.said());
        let seen = tree::assert_same_by(&self.backing, &self.replica(), rules);
        assert!(seen.objects >= objects, "{seen:?}");
    }

    pub fn said(&self) -> String {
        let said = |daemon: &Option<Daemon>| daemon.as_ref().map(Daemon::said).unwrap_or_default();
        format!("--- source:\n{}\n--- target:\n{}", said(&self.source), said(&self.target))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
        for mut daemon in [self.source.take(), self.target.take()].into_iter().flatten() {
            kill(&mut daemon);
        }
        clear_mounts(&self.mount);
    }
}

pub fn kill(daemon: &mut Daemon) {
    daemon.signal(libc::SIGKILL);
    daemon.wait(COMMAND_MAX);
}
