//! Who may do what by the control socket: root all, one group all, another one only what changes nothing, and all
//! others nothing; with every command that there is.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use clap::CommandFactory;
use serde_json::Value;
use standin::cli::args::Cli;

use crate::host::{
    COMMAND_MAX, Daemon, Protected, Setup, binary, describe, output_within, require_program, standin,
    wait_until,
};
use crate::pair::kill;

/// Nobody else has these numbers here.
const USER: u32 = 64_700;
const OWN_GROUP: u32 = 64_703;
const ADMINS: u32 = 64_701;
const MONITORS: u32 = 64_702;

/// A source and a target daemon that know the groups.
struct Host {
    serve: Daemon,
    protected: Protected,
    _run: tempfile::TempDir,
}

impl Host {
    fn start(groups: &str) -> Host {
        let mut protected = Protected::prepare(Setup::default());
        let run = tempfile::Builder::new().prefix("s").tempdir().expect("a directory");
        fs::set_permissions(run.path(), fs::Permissions::from_mode(0o755)).expect("our own directory");
        protected.run = run.path().join("run");
        let file = protected.base.path().join("group");
        fs::write(&file, groups).expect("a file");
        protected.environment.push(("STANDIN_GROUP_FILE", file.clone().into()));
        fs::write(protected.backing.join("file"), "x").expect("a file");
        protected.start_again();
        protected.wait_sync();
        let free = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = free.expect("a free port").port();
        fs::create_dir(protected.base.path().join("served")).expect("a directory");
        let mut serve = standin(&protected.run);
        serve.args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--root"]);
        serve.arg(protected.base.path().join("served")).arg("--state").arg(&protected.state);
        serve.env("STANDIN_GROUP_FILE", file);
        let mut serve = Daemon::spawn(serve);
        serve.wait_ready();
        Host { serve, protected, _run: run }
    }

    /// A command of a user who is in this group beside his own.
    fn by(&self, group: u32, arguments: &[&str]) -> Output {
        let mut command = Command::new(require_program("setpriv"));
        command.args(["--reuid", &USER.to_string(), "--regid", &OWN_GROUP.to_string()]);
        command.args(["--groups", &group.to_string(), "--no-new-privs"]).arg(binary());
        command.arg("--run").arg(&self.protected.run).arg("--state").arg(&self.protected.state);
        command.args(arguments).current_dir("/").env_remove("XDG_RUNTIME_DIR");
        output_within(&mut command, COMMAND_MAX)
    }

    /// Everything that a command could change.
    fn snapshot(&self) -> (Value, BTreeSet<PathBuf>) {
        let mut status: Value = serde_json::from_str(&self.source()).expect("JSON");
        let connection = status["connections"][0].take();
        let told = ["id", "state", "data", "mirror", "schedule", "limit", "compression", "verified"];
        let told = told.map(|name| connection[name].clone());
        let values =
            serde_json::json!([told, status["rules"], status["phase"], status["pid"], status["alerts"]]);
        let mut files = BTreeSet::new();
        for dir in
            [&self.protected.state, &self.protected.run, &self.protected.replica, &self.protected.mount]
        {
            walk(dir, &mut files);
        }
        (values, files)
    }

    fn source(&self) -> String {
        let output = output_within(standin(&self.protected.run).args(["status", "m", "--json"]), COMMAND_MAX);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn events(&self) -> String {
        describe(&output_within(standin(&self.protected.run).args(["events", "list", "--json"]), COMMAND_MAX))
    }
}

/// Before the directories go.
impl Drop for Host {
    fn drop(&mut self) {
        kill(&mut self.serve);
    }
}

fn walk(dir: &Path, files: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        // A daemon replaces its own files under names that come and go.
        if entry.extension().is_some_and(|extension| extension == "new") {
            continue;
        }
        if entry.is_dir() {
            walk(&entry, files);
        }
        files.insert(entry);
    }
}

/// How a command line of somebody who may only look ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ends {
    /// It answers.
    Looks,
    /// The daemon says that it is not for him.
    Refused,
    /// It needs no daemon, and the files of root's keep it from anything.
    Fails,
    /// It touches nothing of the host's.
    Harmless,
}

/// A command line for each command, by how it ends.
const LOOKS: [&str; 16] = [
    "status m",
    "wait-sync m --timeout 20s",
    "file MOUNT/file --wait --timeout 20s",
    "connection list m",
    "connection schedule show m",
    "connection limit show m",
    "connection compression show m",
    "mirror list m",
    "bitmap show m",
    "resync estimate m",
    "metrics",
    "orphans list m",
    "clone list",
    "events list",
    "peers list",
    "size m --for 3s",
];
const REFUSED: [&str; 30] = [
    "connection add local:BASE/added m",
    "connection start m",
    "connection stop m",
    "connection pause m",
    "connection resume m",
    "connection disconnect m",
    "replication stop m",
    "replication start m",
    "connection schedule set at=22:00,every=1d m",
    "connection schedule clear m",
    "connection schedule on m",
    "connection schedule off m",
    "connection limit 1M m",
    "connection compression 1 m",
    "merge m",
    "mirror start m",
    "mirror stop m",
    "mirror pause m",
    "mirror resume m",
    "verify m",
    "orphans remove m --all",
    "clone start one --set m --to BASE/clone",
    "clone rotate one --set m --to BASE",
    "stop m",
    "stop m --now",
    "stop serve",
    "reload m",
    "marker noon m",
    "invite web",
    "peers revoke 0123456789",
];
const FAILS: [&str; 40] = [
    "address m 192.0.2.10/32@lo",
    "web --listen 0.0.0.0:9467",
    "upgrade m",
    "top",
    "clone copy one --set m --to BASE/clone",
    "clone stop one --set m",
    "clone activate one",
    "clone restart one",
    "clone restore one",
    "clone swap one",
    "protect BASE/source --to local:BASE/x",
    "serve --root BASE/root --listen 127.0.0.1:1",
    "pair standin://127.0.0.1:1/web",
    "set create web",
    "set change m --exclude x",
    "set rename m n",
    "set copy m n",
    "set import web /etc/hostname",
    "set delete m",
    "set export m",
    "set size m",
    "drill run m --at /srv --check true",
    "drill init x",
    "drill start m",
    "drill shell -- true",
    "drill stop",
    "drill report x",
    "failover m --at BASE/source --yes",
    "events run --hook true",
    "roles keep m --yes",
    "switch m --yes",
    "events test --timeout 1s",
    "restore local:REPLICA --to BASE/restored",
    "bench BASE",
    "monitor m",
    "failback m --yes",
    "lost-writes list",
    "lost-writes show x",
    "lost-writes extract --to BASE/lost",
    "man BASE/man",
];
const HARMLESS: [&str; 8] = [
    "drill list",
    "drill last",
    "config check",
    "config show m",
    "config diff m",
    "set show",
    "doctor",
    "completions bash",
];

fn examples() -> Vec<(Ends, &'static str)> {
    let all = [
        (Ends::Looks, &LOOKS[..]),
        (Ends::Refused, &REFUSED),
        (Ends::Fails, &FAILS),
        (Ends::Harmless, &HARMLESS),
    ];
    all.into_iter().flat_map(|(ends, lines)| lines.iter().map(move |line| (ends, *line))).collect()
}

/// Commands that go on until somebody ends them, or that are inner parts of others.
const APART: [&str; 10] = [
    "events follow",
    "formats",
    "markers run",
    "drill-init",
    "drill-open",
    "drill-enter",
    "run-commands",
    "flush-mount",
    "hold-mount",
    "drop-pages",
];

fn commands(command: &clap::Command, above: &str, found: &mut Vec<String>) {
    for below in command.get_subcommands() {
        let path = format!("{above} {}", below.get_name()).trim().to_owned();
        match below.has_subcommands() {
            true => commands(below, &path, found),
            false => found.push(path),
        }
    }
}

#[test]
fn there_is_an_example_of_every_command() {
    let (mut all, examples) = (Vec::new(), examples());
    commands(&Cli::command(), "", &mut all);
    assert!(all.len() > 60, "{all:?}");
    for command in all {
        let is_it = |(_, example): &(Ends, &str)| format!("{example} ").starts_with(&format!("{command} "));
        assert!(APART.contains(&command.as_str()) || examples.iter().any(is_it), "none of `{command}`");
    }
}

const GROUPS: &str = "root:x:0:\nstandin-admin:x:64701:\nstandin-monitor:x:64702:\n";

/// Nothing changes, whatever somebody tries who may only look.
#[test]
fn who_may_look_changes_nothing() {
    let host = Host::start(GROUPS);
    let base = host.protected.base.path().to_str().expect("a name").to_owned();
    let filled = |example: &str| {
        let mount = host.protected.mount.to_str().expect("a name");
        let replica = host.protected.replica.to_str().expect("a name");
        example.replace("MOUNT", mount).replace("REPLICA", replica).replace("BASE", &base)
    };
    let before = host.snapshot();
    for (ends, example) in examples() {
        let line = filled(example);
        let output = host.by(MONITORS, &line.split(' ').collect::<Vec<_>>());
        let (code, said) = (output.status.code(), describe(&output));
        match ends {
            Ends::Looks => assert!(matches!(code, Some(0 | 1)), "{line}: {said}"),
            Ends::Refused => {
                assert_eq!(code, Some(2), "{line}: {said}");
                assert!(said.contains("members of the group standin-admin"), "{line}: {said}");
                assert!(said.contains("Nothing was changed"), "{line}: {said}");
            }
            Ends::Fails => assert!(code.is_some_and(|code| code != 0), "{line}: {said}"),
            Ends::Harmless => assert!(code.is_some(), "{line}: {said}"),
        }
        assert!(!said.contains("panicked"), "{line}: {said}");
        assert_eq!(host.snapshot(), before, "{line}: {said}");
    }
    let told = host.events();
    assert!(told.contains("user 64700") && told.contains("refused"), "{told}");
}

/// One group may all, and what it did is told; who is in neither does not come in.
#[test]
fn who_may_all_does_it_and_is_named() {
    let host = Host::start(GROUPS);
    let output = host.by(ADMINS, &["connection", "pause", "m"]);
    assert!(output.status.success(), "{}", describe(&output));
    assert!(host.source().contains("\"state\":\"paused\""), "{}", host.source());
    wait_until("it is told", || {
        let told = host.events();
        told.contains("Told by user 64700") && told.contains("connection pause")
    });
    let output = host.by(ADMINS, &["connection", "resume", "m"]);
    assert!(output.status.success(), "{}", describe(&output));
    for group in [OWN_GROUP, 0] {
        let output = host.by(group, &["status", "m"]);
        let said = describe(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("this user may not talk to it"), "{said}");
    }
}

/// Groups that the host does not have give nobody anything.
#[test]
fn groups_that_are_not_there_let_nobody_in() {
    let host = Host::start("root:x:0:\nusers:x:100:\n");
    let socket = host.protected.run.join("m.sock");
    assert_eq!(fs::metadata(&socket).expect("the socket").permissions().mode() & 0o777, 0o600);
    for group in [ADMINS, MONITORS, 0] {
        let output = host.by(group, &["status", "m"]);
        assert_eq!(output.status.code(), Some(2), "{}", describe(&output));
    }
    // Root always may.
    let mut status = standin(&host.protected.run);
    assert!(output_within(status.args(["status", "m"]), Duration::from_secs(30)).status.success());
}
