//! Starts and stops the product for a test, on the normal disk or on loop images, and cleans up
//! whatever happens: after a panic too no mount, process, loop device or directory stays.
//!
//! `STANDIN_TEST_BIN` names another binary to test (an installed one), `STANDIN_TEST_DIR` another
//! place for the directories, `STANDIN_TEST_PROFILE` a profile for all that name none.

mod frozen;
mod mounts;

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rustix::mount::UnmountFlags;
use tempfile::TempDir;

pub use self::frozen::Frozen;
pub use self::mounts::{clear_mounts, clear_mounts_above, is_mounted};
use crate::tree::{self, Rules, Seen};

/// From the start of the daemon to its line `ready`.
const READY_MAX: Duration = Duration::from_secs(30);
/// Until the pipe of a daemon that has ended is read to its end.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// For a command that answers at once.
pub const COMMAND_MAX: Duration = Duration::from_secs(30);
/// For `wait-sync` after the largest load of these tests.
pub const SYNC_MAX: Duration = Duration::from_secs(180);
/// From SIGTERM to the end of the daemon, with a queue to drain.
pub const STOP_MAX: Duration = Duration::from_secs(90);

static HEAVY: Mutex<()> = Mutex::new(());

/// Held by tests that load the machine, so that they do not run into each other's time-outs.
pub fn heavy() -> MutexGuard<'static, ()> {
    HEAVY.lock()
}

/// An empty directory on the normal disk (the build directory's): a tmpfs has other holes, xattrs
/// and handles than what users protect.
pub fn dir_on_disk() -> TempDir {
    let base = std::env::var_os("STANDIN_TEST_DIR").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    tempfile::Builder::new().prefix("standin-test-").tempdir_in(base).expect("a temporary directory")
}

/// Panics with what is missing where real mounts are impossible.
pub fn require_host() {
    assert!(rustix::process::geteuid().is_root(), "these tests mount file systems: run them as root");
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        panic!(
            "these tests need /dev/fuse: {error} (load the module `fuse`, or give the container the device)"
        );
    }
}

/// Path of a program that a test needs. Panics with its name where it is missing.
pub fn require_program(name: &str) -> PathBuf {
    let own = std::env::var_os("STANDIN_SUITE_BIN").unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&own).chain(std::env::split_paths(&path));
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = places.chain(system).map(|place| place.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("`{name}` is missing: install it, or name its directory in STANDIN_SUITE_BIN")
    })
}

/// Ends the work of a thread that goes on until it is told to stop, also where the test fails: it would be
/// waited for without end.
pub struct StopAtEnd<'a>(pub &'a std::sync::atomic::AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Waits for what comes by itself.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SYNC_MAX;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until copies have brought every target into line that is there, as `status` says it.
#[track_caller]
pub fn wait_in_line(standin: impl Fn() -> Command, said: impl Fn() -> String) {
    let deadline = Instant::now() + SYNC_MAX;
    loop {
        let output = output_within(standin().args(["status", "--json"]), COMMAND_MAX);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let connections = status["connections"].as_array().cloned().unwrap_or_default();
        let is_settled = |connection: &serde_json::Value| {
            let is_away = matches!(connection["state"].as_str(), Some("error" | "stopped"));
            is_away || connection["kind"] == "null" || connection["mirror"]["phase"] == "complete"
        };
        if !status.is_null() && connections.iter().all(is_settled) {
            return;
        }
        assert!(Instant::now() < deadline, "not in line in time: {status:#}\n{}", said());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Where a side of the test lives.
#[derive(Clone, Copy)]
pub enum Disk {
    /// On the normal disk.
    Plain,
    /// On a file system of its own in a sparse file; options of `mkfs` may stand behind its kind.
    Image { kind: &'static str, mib: u64 },
}

/// Where the mount is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Over the protected directory: the backing tree cannot be seen while it is up.
    Over,
    /// Beside it (`--backing`): both can be seen.
    Beside,
}

/// What a test wants.
pub struct Setup {
    pub source: Disk,
    pub replica: Disk,
    pub place: Place,
    pub arguments: Vec<&'static str>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup { source: Disk::Plain, replica: Disk::Plain, place: Place::Beside, arguments: Vec::new() }
    }
}

/// A loop image that is mounted; unmounted and detached on drop.
pub struct Image(PathBuf);

impl Image {
    /// Makes a file system of `mib` MiB in a file below `base` and mounts it at `at`; `tmpfs` is in
    /// memory. `kind` may have options behind it: `xfs -b size=1024`.
    pub fn mount(base: &Path, at: PathBuf, kind: &str, mib: u64) -> Image {
        if kind == "tmpfs" {
            fs::create_dir(&at).expect("a mount point");
            let size = format!("size={mib}m");
            run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(&at));
            return Image(at);
        }
        let name = at.file_name().expect("a name").to_string_lossy();
        let file = base.join(format!("{name}.image"));
        fs::File::create_new(&file).and_then(|file| file.set_len(mib << 20)).expect("an image file");
        fs::create_dir(&at).expect("a mount point");
        let (kind, options) = kind.split_once(' ').unwrap_or((kind, ""));
        let mkfs = require_program(&format!("mkfs.{kind}"));
        run(Command::new(mkfs).arg("-q").args(options.split_whitespace()).arg(&file));
        Image::mount_existing(&file, at)
    }

    /// Mounts an image that was made before.
    pub fn mount_existing(file: &Path, at: PathBuf) -> Image {
        run(Command::new("mount").args(["-o", "loop"]).arg(file).arg(&at));
        Image(at)
    }

    /// Unmounts it; returns when the kernel has forgotten it, for who changes the file by hand.
    #[track_caller]
    pub fn forget(self, file: &Path) {
        unmount_for_good(file, &self.0);
        std::mem::forget(self);
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // `mount -o loop` made a device that detaches itself with the last user.
        if rustix::mount::unmount(&self.0, UnmountFlags::empty()).is_err() {
            let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
        }
    }
}

/// Directories of one protected directory and, while it runs, its daemon.
///
/// Fields drop in order: the daemon is gone and unmounted before its disks, these before the
/// directory that has their files.
pub struct Protected {
    daemon: Option<Daemon>,
    place: Place,
    arguments: Vec<&'static str>,
    /// Where applications work.
    pub mount: PathBuf,
    /// The real directory on the source's disk. The same as `mount` with [`Place::Over`].
    pub backing: PathBuf,
    pub replica: PathBuf,
    pub state: PathBuf,
    pub run: PathBuf,
    /// How long the target waits before it sets an object aside, where a test cannot.
    pub patience: Option<Duration>,
    /// How often the source's own disk is synced, where a test cannot wait.
    pub sync_every: Option<Duration>,
    /// How often a generation of the activity log begins, where a test cannot wait.
    pub activity_every: Option<Duration>,
    /// How many files the daemon may have open, where a test wants few.
    pub open_files: Option<u32>,
    /// The daemon may change nothing that is immutable.
    pub heeds_flags: bool,
    /// What else the daemon is told.
    pub environment: Vec<(&'static str, OsString)>,
    _images: Vec<Image>,
    /// Has the mount points that are not the protected directory itself.
    _mounts: TempDir,
    pub base: TempDir,
}

impl Protected {
    /// Directories beside each other, the daemon running, the mount up.
    pub fn start(setup: Setup) -> Protected {
        let mut protected = Protected::prepare(setup);
        protected.start_again();
        protected
    }

    /// Only the directories.
    pub fn prepare(setup: Setup) -> Protected {
        require_host();
        let base = dir_on_disk();
        // Short, for the names of sockets, and open to all users, for tests by other users.
        let mounts = tempfile::Builder::new().prefix("s").tempdir().expect("a temporary directory");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(mounts.path(), open).expect("our own directory");
        let mut images = Vec::new();
        let mut side = |name: &str, disk: Disk| {
            let mut at = base.path().to_path_buf();
            if let Disk::Image { kind, mib } = disk {
                at = mounts.path().join(name);
                images.push(Image::mount(base.path(), at.clone(), kind, mib));
            }
            fs::create_dir(at.join(name)).expect("a directory");
            at.join(name)
        };
        let (backing, replica) = (side("source", setup.source), side("replica", setup.replica));
        let mount = match setup.place {
            Place::Over => backing.clone(),
            Place::Beside => mounts.path().join("m"),
        };
        let (state, run) = (base.path().join("state"), base.path().join("run"));
        for dir in [&mount, &state, &run] {
            fs::create_dir_all(dir).expect("a directory");
        }
        let arguments = setup.arguments;
        Protected {
            daemon: None,
            place: setup.place,
            arguments,
            mount,
            backing,
            replica,
            state,
            run,
            patience: None,
            sync_every: None,
            activity_every: None,
            open_files: None,
            heeds_flags: false,
            environment: Vec::new(),
            _images: images,
            _mounts: mounts,
            base,
        }
    }

    /// The command line of `protect` for these directories.
    pub fn protect_command(&self) -> Command {
        let mut to = OsString::from("local:");
        to.push(&self.replica);
        let mut command = match self.open_files {
            Some(files) => limited(&self.run, files),
            None if self.heeds_flags => heeding_flags(&self.run),
            None => standin(&self.run),
        };
        command.arg("protect").arg(&self.mount).arg("--to").arg(to).arg("--state").arg(&self.state);
        if self.place == Place::Beside {
            command.arg("--backing").arg(&self.backing);
        }
        command.args(&self.arguments).args(profile(&self.arguments));
        let times = [
            ("STANDIN_SET_ASIDE_AFTER_MS", self.patience),
            ("STANDIN_SOURCE_SYNC_EVERY_MS", self.sync_every),
            ("STANDIN_ACTIVITY_EVERY_MS", self.activity_every),
        ];
        for (name, time) in times.into_iter().filter_map(|(name, time)| Some((name, time?))) {
            command.env(name, time.as_millis().to_string());
        }
        command.envs(self.environment.iter().cloned());
        command
    }

    /// Starts the daemon on the same directories and waits until its target is in line.
    pub fn start_again(&mut self) {
        self.start_at_once();
        self.wait_in_line();
    }

    /// As [`Protected::start_again`]; what the target lacks is still being copied.
    pub fn start_at_once(&mut self) {
        assert!(self.daemon.is_none(), "it runs already");
        let mut daemon = Daemon::spawn(self.protect_command());
        daemon.wait_ready();
        assert!(is_mounted(&self.mount), "ready, but nothing is mounted on {}", self.mount.display());
        self.daemon = Some(daemon);
    }

    /// One that the test has started itself is the running daemon.
    pub fn adopt_daemon(&mut self, daemon: Daemon) {
        assert!(self.daemon.replace(daemon).is_none(), "one runs already");
    }

    /// Waits until copies have brought every target that is there into line.
    #[track_caller]
    pub fn wait_in_line(&self) {
        wait_in_line(|| standin(&self.run), || self.stderr());
    }

    /// Waits until everything written before is on the replica.
    #[track_caller]
    pub fn wait_sync(&self) {
        let output = output_within(standin(&self.run).arg("wait-sync"), SYNC_MAX);
        assert!(output.status.success(), "wait-sync: {}{}", describe(&output), self.stderr());
    }

    /// Text of `status --json`. Its exit code says how things are (0 well, 1 warning, 2 critical);
    /// all three are answers.
    #[track_caller]
    pub fn status(&self) -> String {
        let output = output_within(standin(&self.run).args(["status", "--json"]), COMMAND_MAX);
        let answered = output.status.code().is_some_and(|code| code <= 2) && output.stdout.starts_with(b"{");
        assert!(answered, "status: {}{}", describe(&output), self.stderr());
        String::from_utf8(output.stdout).expect("JSON is UTF-8")
    }

    /// Waits until everything is applied, then compares backing tree and replica.
    #[track_caller]
    pub fn assert_in_sync(&self) -> Seen {
        self.assert_in_sync_by(&Rules::default())
    }

    /// As [`Protected::assert_in_sync`], by own rules.
    #[track_caller]
    pub fn assert_in_sync_by(&self, rules: &Rules) -> Seen {
        self.wait_sync();
        assert!(self.place == Place::Beside, "the backing tree is under the mount: stop first");
        tree::assert_same_by(&self.backing, &self.replica, rules)
    }

    /// SIGTERM: the daemon drains, unmounts and ends with 0. Gives what it said on stderr.
    #[track_caller]
    pub fn stop(&mut self) -> String {
        self.end_by(libc::SIGTERM, 0)
    }

    /// As [`Protected::stop`], but changes cannot get to the target: it ends with 3.
    #[track_caller]
    pub fn stop_incomplete_by(&mut self, signal: i32) -> String {
        self.end_by(signal, 3)
    }

    #[track_caller]
    fn end_by(&mut self, signal: i32, code: i32) -> String {
        let mut daemon = self.daemon.take().expect("it runs");
        daemon.signal(signal);
        let status = daemon.wait(STOP_MAX);
        let said = daemon.stderr.lock().clone();
        assert!(status.is_some_and(|status| status.code() == Some(code)), "stop: {status:?}\n{said}");
        assert!(!is_mounted(&self.mount), "still mounted after the stop\n{said}");
        said
    }

    /// Ends the daemon with a signal, whatever it says and whether it could send everything.
    #[track_caller]
    pub fn stop_by(&mut self, signal: i32) {
        let mut daemon = self.daemon.take().expect("it runs");
        daemon.signal(signal);
        assert!(daemon.wait(STOP_MAX).is_some(), "it does not end");
        clear_mounts(&self.mount);
    }

    /// Takes notice of a daemon that was told to stop by a command.
    #[track_caller]
    pub fn forget_ended(&mut self) {
        self.forget_ended_with(&[0]);
    }

    /// As [`Protected::forget_ended`], with one of these exit codes.
    #[track_caller]
    pub fn forget_ended_with(&mut self, codes: &[i32]) {
        let mut daemon = self.daemon.take().expect("it ran");
        let status = daemon.wait(COMMAND_MAX);
        let is_right = status.and_then(|status| status.code()).is_some_and(|code| codes.contains(&code));
        assert!(is_right, "the end: {status:?}\n{}", daemon.said());
    }

    /// kill -9 of the daemon. The mount stays behind, dead or held.
    pub fn kill9(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        daemon.signal(libc::SIGKILL);
        let status = daemon.wait(COMMAND_MAX).expect("SIGKILL ends it");
        assert_eq!(status.signal(), Some(libc::SIGKILL));
    }

    /// The running daemon.
    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("it runs")
    }

    /// What the running daemon has said on stdout (complete lines) and stderr.
    pub fn said(&self) -> String {
        self.daemon.as_ref().map(|daemon| daemon.said()).unwrap_or_default()
    }

    fn stderr(&self) -> String {
        self.daemon.as_ref().map(|daemon| daemon.stderr.lock().clone()).unwrap_or_default()
    }
}

impl Drop for Protected {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon said:\n{}", self.said());
        }
        if let Some(mut daemon) = self.daemon.take() {
            daemon.signal(libc::SIGKILL);
            let _ = daemon.child.wait();
        }
        clear_mounts(&self.mount);
        // Disks that the test holds itself outlive it, and their directory could not be removed.
        mounts::clear_below(self.base.path());
    }
}

/// A running daemon with what it says.
pub struct Daemon {
    child: Child,
    lines: Receiver<String>,
    stdout: RefCell<Vec<String>>,
    stderr: Arc<Mutex<String>>,
    listeners: [JoinHandle<()>; 2],
}

impl Daemon {
    pub fn spawn(mut command: Command) -> Daemon {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (sender, lines) = channel();
        let stdout = child.stdout.take().expect("piped");
        let of_stdout = std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            let _ = lines.try_for_each(|line| sender.send(line));
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let (reader, said) = (child.stderr.take().expect("piped"), stderr.clone());
        let of_stderr = std::thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                *said.lock() += &(line + "\n");
            }
        });
        Daemon { child, lines, stdout: RefCell::default(), stderr, listeners: [of_stdout, of_stderr] }
    }

    pub fn wait_ready(&mut self) {
        self.wait_ready_within(READY_MAX);
    }

    pub fn wait_ready_within(&mut self, max: Duration) {
        let deadline = Instant::now() + max;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let ready = line == "ready" || line.starts_with("ready ");
                    self.stdout.get_mut().push(line);
                    if ready {
                        return;
                    }
                }
                Err(why) => {
                    let _ = self.child.kill();
                    let status = self.child.wait();
                    // The rest of stderr arrives through its own thread.
                    std::thread::sleep(Duration::from_millis(100));
                    let why = match why {
                        RecvTimeoutError::Timeout => "not in time",
                        RecvTimeoutError::Disconnected => "it ended",
                    };
                    panic!("no line `ready`: {why}, {status:?}\n{}", self.said());
                }
            }
        }
    }

    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn said(&self) -> String {
        let mut stdout = self.stdout.borrow_mut();
        stdout.extend(self.lines.try_iter());
        format!("{}\n{}", stdout.join("\n"), self.stderr.lock())
    }

    pub fn signal(&self, signal: i32) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let signal = rustix::process::Signal::from_named_raw(signal).expect("a named signal");
        let _ = rustix::process::kill_process(pid, signal);
    }

    pub fn wait(&mut self, max: Duration) -> Option<ExitStatus> {
        let status = wait_within(&mut self.child, max);
        if status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        self.hear_the_rest();
        status
    }

    /// Its last words are on their way when it has ended; a process that it has left may keep the pipe.
    fn hear_the_rest(&self) {
        let deadline = Instant::now() + LAST_WORDS;
        while !self.listeners.iter().all(JoinHandle::is_finished) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A test that fails leaves no process.
impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The product's binary, with its run directory.
pub fn standin(run: &Path) -> Command {
    let mut command = Command::new(binary());
    command.arg("--run").arg(run);
    command
}

/// The profile that all tests run with, where `STANDIN_TEST_PROFILE` names one.
pub fn profile(arguments: &[&str]) -> Vec<OsString> {
    let named = std::env::var_os("STANDIN_TEST_PROFILE").filter(|_| !arguments.contains(&"--profile"));
    named.into_iter().flat_map(|name| ["--profile".into(), name]).collect()
}

/// The binary under test.
pub fn binary() -> OsString {
    std::env::var_os("STANDIN_TEST_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_standin").into())
}

/// As [`standin`], without `CAP_LINUX_IMMUTABLE`.
fn heeding_flags(run: &Path) -> Command {
    let plain = standin(run);
    let mut command = Command::new(require_program("setpriv"));
    command.arg("--bounding-set=-linux_immutable").arg(plain.get_program()).args(plain.get_args());
    plain.get_envs().for_each(|(name, value)| {
        command.env(name, value.unwrap_or_default());
    });
    command
}

/// As [`standin`], with a hard limit of open files.
fn limited(run: &Path, open_files: u32) -> Command {
    let plain = standin(run);
    let mut command = Command::new("sh");
    let script = format!("ulimit -n {open_files} && exec \"$0\" \"$@\"");
    command.arg("-c").arg(script).arg(plain.get_program()).args(plain.get_args());
    plain.get_envs().for_each(|(name, value)| {
        command.env(name, value.unwrap_or_default());
    });
    command
}

/// Unmounts a file system in an image file; returns when it is really gone. What a killed daemon had
/// open may keep it, and its dead superblock, for a moment: a mount at once would get that again.
#[track_caller]
pub fn unmount_for_good(image: &Path, at: &Path) {
    let mut is_mounted = true;
    for _ in 0..400 {
        is_mounted = is_mounted && rustix::mount::unmount(at, UnmountFlags::empty()).is_err();
        if !is_mounted && !is_attached(image) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{} stays busy", at.display());
}

/// Whether a loop device has the image.
fn is_attached(image: &Path) -> bool {
    let devices = fs::read_dir("/sys/block").expect("the devices").flatten();
    let mut files = devices.filter_map(|device| fs::read(device.path().join("loop/backing_file")).ok());
    files.any(|file| file.trim_ascii_end() == image.as_os_str().as_encoded_bytes())
}

/// Runs a command that must succeed.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", describe(&output));
    output
}

/// Status and both outputs, for messages.
pub fn describe(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// Runs a command that must end in time; it is killed if it does not.
#[track_caller]
pub fn output_within(command: &mut Command, max: Duration) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = read_all(child.stdout.take().expect("piped"));
    let stderr = read_all(child.stderr.take().expect("piped"));
    let status = wait_within(&mut child, max);
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let status = status.unwrap_or_else(|| panic!("{command:?}: did not end within {max:?}"));
    Output { status, stdout: stdout.join().expect("a reader"), stderr: stderr.join().expect("a reader") }
}

fn read_all(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

fn wait_within(child: &mut Child, max: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + max;
    loop {
        if let Some(status) = child.try_wait().expect("our own child") {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
