//! The RPM package: in a root that is this host's, with all that changes on a layer of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{build, succeeds};
use crate::host::{COMMAND_MAX, Daemon, STOP_MAX, describe, output_within, require_program, run};

/// A layer over the root of this host, with places that are no layers for data and sockets; unmounted on drop.
struct Layer(PathBuf);

impl Layer {
    fn new(base: &Path) -> Layer {
        let [upper, work, root] = ["upper", "work", "root"].map(|name| base.join(name));
        [&upper, &work, &root].into_iter().for_each(|dir| fs::create_dir(dir).expect("a directory"));
        let options = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
        run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&root));
        let layer = Layer(root);
        for (kind, at) in [("proc", "proc"), ("tmpfs", "run"), ("tmpfs", "srv")] {
            run(Command::new("mount").args(["-t", kind, kind]).arg(layer.0.join(at)));
        }
        run(Command::new("mount").args(["--bind", "/dev"]).arg(layer.0.join("dev")));
        // Nothing of a database of this host's.
        let _ = fs::remove_dir_all(layer.0.join("var/lib/rpm"));
        layer
    }

    fn rpm(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("rpm");
        command.arg("--root").arg(&self.0).args(["--dbpath", "/var/lib/rpm", "--nodeps"]).args(arguments);
        output_within(command.env("LC_ALL", "C"), COMMAND_MAX)
    }

    fn standin(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("chroot");
        command.arg(&self.0).arg("/usr/bin/standin").args(arguments);
        command
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--recursive", "--lazy"]).arg(&self.0).status();
    }
}

#[test]
fn an_rpm_comes_and_goes_in_order() {
    for program in ["rpm", "rpmbuild", "findmnt"] {
        require_program(program);
    }
    // What lies on a layer itself cannot be one.
    let place = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let package = build("rpm", place.path());
    let package = package.to_str().expect("UTF-8");
    let layer = Layer::new(place.path());
    let listed = output_within(Command::new("rpm").args(["-qlp", package]), COMMAND_MAX);
    let files = String::from_utf8(listed.stdout).expect("text");
    for file in [
        "/usr/bin/standin",
        "/usr/lib/systemd/system/standin@.service",
        "/usr/lib/standin/hooks/mail",
        "/usr/share/man/man1/standin-protect.1.gz",
        "/usr/share/zsh/site-functions/_standin",
        "/usr/share/doc/standin/docs/quickstart.md",
        "/usr/share/licenses/standin/LICENSE",
    ] {
        assert!(files.lines().any(|there| there == file), "{file} is not in {files}");
    }
    succeeds(&layer.rpm(&["--install", package]));
    fs::create_dir(layer.0.join("srv/data")).expect("a directory");
    let mut daemon = Daemon::spawn(layer.standin(&["protect", "/srv/data", "--to", "local:/srv/replica"]));
    daemon.wait_ready();
    let program = layer.0.join("usr/bin/standin");
    let refused = layer.rpm(&["--erase", "standin"]);
    let said = describe(&refused);
    assert!(
        !refused.status.success() && said.contains("standin protects:") && said.contains("/srv/data"),
        "{said}"
    );
    assert!(program.exists());

    // Nobody is ended by an upgrade.
    let upgraded = layer.rpm(&["--upgrade", "--replacepkgs", package]);
    succeeds(&upgraded);
    fs::write(layer.0.join("srv/data/after"), "the upgrade").expect("the mount serves");
    succeeds(&output_within(&mut layer.standin(&["wait-sync"]), COMMAND_MAX));
    daemon.signal(libc::SIGTERM);
    assert!(daemon.wait(STOP_MAX).is_some_and(|status| status.success()), "{}", daemon.said());

    // Nor beside one that no mount table here shows.
    let mut hidden = Command::new("unshare");
    hidden.args(["--mount", "--propagation", "private", "chroot"]).arg(&layer.0).arg("/usr/bin/standin");
    let mut daemon = Daemon::spawn({
        hidden.args(["protect", "/srv/data", "--to", "local:/srv/replica"]);
        hidden
    });
    daemon.wait_ready();
    let refused = layer.rpm(&["--erase", "standin"]);
    let said = describe(&refused);
    assert!(
        !refused.status.success() && said.contains("in another mount namespace") && program.exists(),
        "{said}"
    );
    daemon.signal(libc::SIGTERM);
    assert!(daemon.wait(STOP_MAX).is_some_and(|status| status.success()), "{}", daemon.said());

    let erased = layer.rpm(&["--erase", "standin"]);
    succeeds(&erased);
    assert!(!program.exists(), "{}", describe(&erased));
    assert_eq!(fs::read_to_string(layer.0.join("srv/replica/after")).expect("the replica"), "the upgrade");
    assert!(layer.0.join("var/lib/standin").is_dir(), "{}", describe(&erased));
}
