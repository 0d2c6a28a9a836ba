//! Maildirs and a database that are copied while programs work in them, in every mode: mail is delivered (by a rename, or a
//! link and an unlink), moves from `new` to `cur`, gets flags by renames and is expunged, by several programs. Whenever
//! the replica is good each message that is there for good is there exactly once, and whole.
//!
//! `STANDIN_SEED=x` replays what each program does, not who was first.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Cut, Site, copy_away, seeded, sqlite};
use crate::host::{SYNC_MAX, describe, heavy, output_within, require_program};
use crate::mirror::is_complete;
use standin::random::Random;

const FOLDERS: [&str; 3] = ["INBOX", "Archive", "Lists"];
const MODES: [&str; 4] = ["full", "differences", "differences+checksum", "checksum"];
/// Before the first copy.
const OLD_MESSAGES: u64 = 1500;
/// In each mode.
const CUTS: u64 = 3;

/// Programs that work in the maildirs.
struct Programs {
    running: Vec<Child>,
    log: PathBuf,
}

/// What they have said.
#[derive(Default)]
struct Said {
    delivered: BTreeSet<String>,
    /// Somebody has begun to expunge it, perhaps in vain.
    expunged: BTreeSet<String>,
    kept: BTreeSet<String>,
}

impl Programs {
    fn start(root: &Path, log: PathBuf, seed: u64) -> Programs {
        let mut programs = Programs { running: Vec::new(), log };
        for (number, (what, pause)) in
            [("deliver", 0.01), ("deliver", 0.02), ("read", 0.005), ("read", 0.007), ("expunge", 0.02)]
                .into_iter()
                .enumerate()
        {
            let mut command = Command::new(require_program("python3"));
            command.arg("-c").arg(include_str!("maildir_program.py")).arg(what).arg(root).arg(&programs.log);
            command.args([format!("p{number}"), (seed ^ number as u64).to_string(), pause.to_string()]);
            let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
            let mut child = child.expect("python3 starts");
            let mut ready = String::new();
            BufReader::new(child.stdout.take().expect("piped")).read_line(&mut ready).expect("a line");
            assert_eq!(ready, "ready\n", "{what} could not begin: its error is above");
            programs.running.push(child);
        }
        programs
    }

    fn said(&self) -> Said {
        let log = fs::read_to_string(&self.log).expect("the log");
        let mut said = Said::default();
        for line in log.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let (word, base) = line.split_once(' ').expect("a word and a name");
            let known = match word {
                "d" => &mut said.delivered,
                "e" => &mut said.expunged,
                "k" => &mut said.kept,
                _ => panic!("{line}"),
            };
            known.insert(base.to_owned());
        }
        said
    }

    #[track_caller]
    fn end(&mut self) {
        for mut program in self.running.drain(..) {
            drop(program.stdin.take());
            let status = program.wait().expect("our own child");
            assert!(status.success(), "a program failed: {status}; its error is above");
        }
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        for program in &mut self.running {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

fn body(base: &str) -> Vec<u8> {
    let times = 1 + base.bytes().map(usize::from).sum::<usize>() % 400;
    format!("{base}\n").repeat(times).into_bytes()
}

fn plant(root: &Path) {
    for (number, folder) in FOLDERS.iter().enumerate() {
        for part in ["tmp", "new", "cur"] {
            fs::create_dir_all(root.join(folder).join(part)).expect("a directory");
        }
        for message in (0..OLD_MESSAGES).filter(|message| message % 3 == number as u64) {
            let base = format!("{message}.old.host");
            let (part, end) = if message % 2 == 0 { ("new", "") } else { ("cur", ":2,S") };
            fs::write(root.join(folder).join(part).join(format!("{base}{end}")), body(&base))
                .expect("a message");
        }
    }
}

/// How often each message is there; each is whole.
#[track_caller]
fn messages(root: &Path) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    for (folder, part) in FOLDERS.into_iter().flat_map(|folder| [(folder, "new"), (folder, "cur")]) {
        for entry in fs::read_dir(root.join(folder).join(part)).expect("a part of a maildir") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_str().expect("text");
            let base = name.split(":2,").next().expect("a base").to_owned();
            assert!(fs::read(&path).expect("a message") == body(&base), "{} is not whole", path.display());
            *found.entry(base).or_default() += 1;
        }
    }
    found
}

/// The target stands still; what it has then holds what is to be there.
#[track_caller]
fn cut_and_look(site: &mut Site, programs: &Programs, cut: Cut, arrived: &Said) -> usize {
    site.cut(cut);
    // Who is gone by now may have been there at the cut, or not.
    let after = programs.said();
    let copy = site.base().join("copy");
    copy_away(&site.replica().join("mail"), &copy);
    site.go_on(cut);
    let found = messages(&copy);
    let twice: Vec<_> = found.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "{cut:?}: {twice:?}\n{}", site.said());
    let old = (0..OLD_MESSAGES).map(|message| format!("{message}.old.host"));
    let due = arrived.delivered.iter().cloned().chain(old).filter(|base| !after.expunged.contains(base));
    let lost: Vec<_> = due.filter(|base| !found.contains_key(base)).collect();
    assert!(lost.is_empty(), "{cut:?}: lost {lost:?}\n{}", site.said());
    fs::remove_dir_all(copy).expect("our own copy");
    found.len()
}

/// Something that each mode finds, in the replica: the mode of files, and what is too much.
fn damage(replica: &Path, random: &mut Random) {
    use std::os::unix::fs::PermissionsExt;
    for part in FOLDERS.map(|folder| replica.join("mail").join(folder).join("cur")) {
        let names = fs::read_dir(&part).into_iter().flatten().flatten().map(|entry| entry.path());
        for path in names.take(60) {
            // It may be gone by now.
            let _ = fs::set_permissions(&path, PermissionsExt::from_mode(0o600));
        }
        fs::write(part.join(format!("{}.stray.host:2,S", random.number())), "nobody's").expect("a file");
    }
}

fn told(site: &Site, arguments: &[&str]) {
    let Site::Hosts(hosts) = site else { panic!("there are two hosts") };
    let output = output_within(hosts.on_source().args(arguments), SYNC_MAX);
    assert!(output.status.success(), "{arguments:?}: {}{}", describe(&output), site.said());
}

#[track_caller]
fn wait_until_complete(site: &Site) -> Value {
    let Site::Hosts(hosts) = site else { panic!("there are two hosts") };
    let deadline = Instant::now() + SYNC_MAX;
    loop {
        let connection = hosts.connection();
        if is_complete(&connection) {
            return connection;
        }
        assert!(Instant::now() < deadline, "the copy does not end: {connection}\n{}", site.said());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Its objects had no names for a while, or two.
#[test]
fn each_message_is_there_once_in_whatever_mode_it_is_copied() {
    let _heavy = heavy();
    let (seed, mut random) = seeded("maildirs");
    let hosts = crate::hosts::Hosts::prepare();
    plant(&hosts.backing().join("mail"));
    let mut site = Site::hosts_with(hosts, &["--delete-guard", "off"]);
    let mut programs = Programs::start(&site.mount().join("mail"), site.base().join("said"), seed);
    for mode in MODES {
        // The target is back from the last cut.
        site.wait_sync();
        damage(&site.replica(), &mut random);
        told(&site, &["mirror", "start", "--mode", mode]);
        std::thread::sleep(Duration::from_millis(random.below(300)));
        wait_until_complete(&site);
        let counts = (0..CUTS).map(|_| {
            let arrived = programs.said();
            site.wait_sync();
            std::thread::sleep(Duration::from_millis(random.below(500)));
            let cut = site.pick_cut(&mut random);
            let found = cut_and_look(&mut site, &programs, cut, &arrived);
            wait_until_complete(&site);
            found
        });
        let counts: Vec<usize> = counts.collect();
        println!("{mode}: messages {counts:?}");
    }
    programs.end();
    let said = programs.said();
    assert!(said.delivered.len() > 500 && said.expunged.len() > 100, "too little was done");
    let found = messages(&site.mount().join("mail"));
    assert!(found.values().all(|times| *times == 1));
    for base in &said.delivered {
        let is_gone = said.expunged.contains(base) && !said.kept.contains(base);
        assert!(
            found.contains_key(base) || is_gone || said.expunged.contains(base),
            "{base} is lost at the source"
        );
    }
    assert!(site.assert_in_sync().objects > 100);
    assert_eq!(messages(&site.replica().join("mail")), found);
    site.stop();
}

/// The first copy, too, begins under them.
#[test]
fn the_first_copy_of_maildirs_under_programs_is_whole() {
    let _heavy = heavy();
    let (seed, _) = seeded("maildirs, the first copy");
    let mut hosts = crate::hosts::Hosts::prepare();
    plant(&hosts.backing().join("mail"));
    hosts.serve();
    hosts.pair();
    let mut daemon = crate::host::Daemon::spawn(hosts.protect_command());
    daemon.wait_ready();
    hosts.source = Some(daemon);
    let mut site = Site::Hosts(Box::new(hosts));
    let mut programs = Programs::start(&site.mount().join("mail"), site.base().join("said"), seed);
    wait_until_complete(&site);
    let arrived = programs.said();
    site.wait_sync();
    cut_and_look(&mut site, &programs, Cut::Freeze, &arrived);
    std::thread::sleep(Duration::from_secs(1));
    programs.end();
    assert!(site.assert_in_sync().objects > 100);
    site.stop();
}

#[test]
fn a_database_opens_in_whatever_mode_it_is_copied() {
    let _heavy = heavy();
    for journal_mode in ["wal", "delete"] {
        sqlite::copied_in_each(&MODES, journal_mode, told, |site| drop(wait_until_complete(site)));
    }
}
