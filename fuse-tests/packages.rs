//! Packages: made, installed into a root of their own, upgraded, removed.

mod rpm;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::host::{
    COMMAND_MAX, Daemon, STOP_MAX, binary, describe, dir_on_disk, output_within, require_program, run,
    standin,
};

/// To compress a program with all that debuggers want takes half a minute where nothing else runs.
const BUILD_MAX: Duration = Duration::from_secs(300);

/// `kind`: a directory of `packaging`.
fn build(kind: &str, to: &Path) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(kind).join("build");
    let output = output_within(Command::new(script).arg(binary()).arg(to), BUILD_MAX);
    assert!(output.status.success(), "{}", describe(&output));
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
}

/// A root that holds nothing but what packages bring.
struct Root(PathBuf);

impl Root {
    fn new(at: PathBuf) -> Root {
        for part in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/log"] {
            fs::create_dir_all(at.join(part)).expect("a directory");
        }
        for file in ["var/lib/dpkg/status", "var/lib/dpkg/available"] {
            fs::write(at.join(file), "").expect("a file");
        }
        Root(at)
    }

    fn dpkg(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("dpkg");
        command.arg(format!("--root={}", self.0.display()));
        command.args(["--force-script-chrootless", "--force-depends"]).args(arguments);
        output_within(command.env("LC_ALL", "C"), COMMAND_MAX)
    }

    fn files(&self) -> Vec<String> {
        let output = self.dpkg(&["--listfiles", "standin"]);
        String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
    }
}

#[track_caller]
fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}", describe(output));
}

#[test]
fn a_package_comes_and_goes_in_order() {
    require_program("dpkg-deb");
    let place = dir_on_disk();
    let package = build("deb", place.path());
    let root = Root::new(place.path().join("root"));
    succeeds(&root.dpkg(&["--install", &package.display().to_string()]));
    let files = root.files();
    for file in [
        "/usr/bin/standin",
        "/usr/lib/systemd/system/standin@.service",
        "/usr/lib/systemd/system/standin-serve.service",
        "/usr/lib/systemd/system/standin-events.service",
        "/usr/lib/systemd/system/standin-monitor@.service",
        "/usr/lib/systemd/system/standin-drill@.service",
        "/usr/lib/systemd/system/standin-drill@.timer",
        "/usr/lib/systemd/system/standin-clone@.service",
        "/usr/lib/systemd/system/standin-clone@.timer",
        "/usr/lib/standin/hooks/mail",
        "/usr/share/man/man1/standin-protect.1.gz",
        "/usr/share/bash-completion/completions/standin",
        "/usr/share/doc/standin/docs/operating.md",
        "/usr/share/doc/standin/copyright",
    ] {
        assert!(files.iter().any(|there| there == file), "{file} is not in {files:#?}");
    }
    let program = root.0.join("usr/bin/standin");
    let units = fs::read_to_string(root.0.join("usr/lib/systemd/system/standin@.service")).expect("a unit");
    assert!(units.contains("ExecStart=/usr/bin/standin protect"), "{units}");
    run(Command::new("bash").arg("-n").arg(root.0.join("usr/share/bash-completion/completions/standin")));
    run(Command::new("gzip").arg("-t").arg(root.0.join("usr/share/man/man1/standin-protect.1.gz")));

    let (data, replica, state) =
        (root.0.join("srv/data"), root.0.join("srv/replica"), root.0.join("var/lib/standin"));
    fs::create_dir_all(&data).expect("a directory");
    let run_dir = place.path().join("run");
    let mut protect = Command::new(&program);
    protect.arg("--run").arg(&run_dir).arg("--state").arg(&state).arg("protect").arg(&data);
    let mut daemon = Daemon::spawn({
        protect.arg("--to").arg(format!("local:{}", replica.display()));
        protect
    });
    daemon.wait_ready();
    let refused = root.dpkg(&["--remove", "standin"]);
    let said = describe(&refused);
    assert!(!refused.status.success() && said.contains("standin protects:"), "{said}");
    assert!(said.contains(&data.display().to_string()) && program.exists(), "{said}");

    // Nobody is ended by an upgrade.
    succeeds(&root.dpkg(&["--install", &package.display().to_string()]));
    fs::write(data.join("after"), "the upgrade").expect("the mount serves");
    succeeds(&output_within(standin(&run_dir).arg("wait-sync"), COMMAND_MAX));
    daemon.signal(libc::SIGTERM);
    assert!(daemon.wait(STOP_MAX).is_some_and(|status| status.success()), "{}", daemon.said());

    succeeds(&root.dpkg(&["--remove", "standin"]));
    assert!(!program.exists());
    let purged = root.dpkg(&["--purge", "standin"]);
    succeeds(&purged);
    assert_eq!(fs::read_to_string(replica.join("after")).expect("the replica"), "the upgrade");
    assert!(state.is_dir(), "{}", describe(&purged));
}
