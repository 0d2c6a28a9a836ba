//! What programs meet in a directory that was handed over: nothing that they are told is written is lost.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::host::{
    COMMAND_MAX, Daemon, Place, STOP_MAX, SYNC_MAX, clear_mounts, describe, is_mounted, output_within,
};
use crate::pair::kill;
use crate::stand_in::{Scene, Side, assert_same};
use crate::switch::{handed_over, in_line, over, switch, take_over};
use crate::tree;

/// A program that writes file after file, each synced, until it is told to end.
pub struct Writer {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Written>,
}

#[derive(Default)]
pub struct Written {
    /// What it was told is on disk.
    pub acknowledged: Vec<String>,
    pub refused: u64,
    /// Other errors than that nothing may be written.
    pub others: Vec<String>,
}

impl Writer {
    pub fn start(at: &Path, name: &str) -> Writer {
        let ends = Arc::new(AtomicBool::new(false));
        let (at, name, told) = (at.to_owned(), name.to_owned(), ends.clone());
        let thread = std::thread::spawn(move || {
            let mut written = Written::default();
            for number in 0.. {
                if told.load(Relaxed) {
                    break;
                }
                let name = format!("{name} {number}");
                match write(&at.join(&name), &name) {
                    Ok(()) => written.acknowledged.push(name),
                    Err(error) if error.raw_os_error() == Some(libc::EROFS) => written.refused += 1,
                    Err(error) => written.others.push(format!("{name}: {error}")),
                }
                std::thread::sleep(Duration::from_millis(4));
            }
            written
        });
        Writer { ends, thread }
    }

    pub fn end(self) -> Written {
        self.ends.store(true, Relaxed);
        self.thread.join().expect("it writes")
    }
}

/// Into the mount, and nowhere else.
fn write(path: &Path, text: &str) -> io::Result<()> {
    const FUSE: u32 = 0x6573_5546;
    let mut file = File::create(path)?;
    if rustix::fs::fstatfs(&file)?.f_type as u32 != FUSE {
        return Err(io::Error::other("it is past the mount"));
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[track_caller]
pub fn all_there(names: &[String], at: &Path) {
    let lacks = |name: &&String| fs::read(at.join(name)).ok().as_deref() != Some(name.as_bytes());
    let lost: Vec<&String> = names.iter().filter(lacks).collect();
    assert!(lost.is_empty(), "{} of {} are lost in {}: {lost:?}", lost.len(), names.len(), at.display());
}

#[track_caller]
fn says(side: &Side, arguments: &[&str], word: &str) {
    let output = output_within(side.command().args(arguments), COMMAND_MAX);
    let said = describe(&output);
    assert!(said.contains(word), "no '{word}' in:\n{said}");
}

#[track_caller]
fn is_covered(side: &Side) {
    let error = fs::write(side.mount("past"), "").expect_err("it is covered");
    assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{error}");
    assert!(fs::read(side.mount("written")).is_ok_and(|data| data == b"through the mount"), "reads go on");
}

fn mounts(at: &Path) -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("/proc");
    table.lines().filter(|line| line.split(' ').nth(4) == at.to_str()).count()
}

/// 130 of 156 synced writes were lost: nothing stood in the mount's place, and the directory became the replica.
#[test]
fn nothing_is_written_past_a_hand_over() {
    let mut scene = Scene::in_place(&[]);
    let Scene { old, new, .. } = &mut scene;
    let writer = Writer::start(&old.point, "first");
    std::thread::sleep(Duration::from_millis(200));

    // Given up: the cover stays until the directory is served again.
    let mut waits = handed_over_under_writers(old, || switch(old, &["--wait", "1s"]));
    assert_eq!(waits.wait(SYNC_MAX).and_then(|status| status.code()), Some(1), "{}", waits.said());
    assert!(waits.said().contains("is covered: reads go on"), "{}", waits.said());
    old.protect = None;
    let written = writer.end();
    assert!(written.refused > 0 && written.others.is_empty(), "{:?}", written.others);
    let mut acknowledged = written.acknowledged;
    is_covered(old);
    says(old, &["roles"], "is covered since");
    says(old, &["roles", "--json"], "is covered since");
    says(old, &["status", "web"], "is covered since");
    // A start that comes to nothing puts it back.
    old.refuses(&["--to", "standin://127.0.0.1:9/nobody"], "not paired");
    is_covered(old);
    old.protect(&["--to", &new.address()]);
    // What may have changed while it was covered is looked for, and nobody takes over from a copy that is not complete.
    old.in_line();
    assert_eq!(mounts(&old.point), 1, "the cover is beneath the mount");
    fs::write(old.mount("taken back"), "").expect("it is served");
    let writer = Writer::start(&old.point, "second");
    std::thread::sleep(Duration::from_millis(200));

    let waits = handed_over_under_writers(old, || switch(old, &[]));
    old.protect = None;
    take_over(new, &[]);
    over(waits, old, 2);
    is_covered(old);
    // A service that starts by itself is refused, and does not open the directory to programs.
    old.refuses(&["--to", &new.address()], "was stood in for");
    is_covered(old);
    let written = writer.end();
    assert!(written.refused > 0 && !written.acknowledged.is_empty(), "nobody wrote meanwhile");
    assert!(written.others.is_empty(), "{:?}", written.others);
    acknowledged.extend(written.acknowledged);
    all_there(&acknowledged, &new.point);

    // It is a replica: a target daemon has it for itself.
    old.serve(&["--adopt"]);
    assert!(!is_mounted(&old.point), "{}", old.said());
    new.pair_with(old);
    Side::stop(&mut new.protect);
    take_over(new, &["--to", &old.address()]);
    in_line(new);
    // It had handed everything over: nothing is only there.
    let mut command = old.target_command();
    let listed = describe(&output_within(command.args(["clone", "list"]), COMMAND_MAX));
    assert!(!listed.contains("lost-writes"), "{listed}");
    says(old, &["roles"], "a replica");
    Side::stop(&mut new.protect);
    tree::assert_same(&old.tree(), &new.tree());
}

/// It was lifted some time before the mount was there: what programs wrote in between nobody saw.
#[test]
fn while_it_is_taken_back_there_is_the_cover_or_the_mount() {
    for mut scene in [Scene::in_place(&[]), Scene::with_a_source(&[])] {
        let Scene { old, new, .. } = &mut scene;
        for round in 0..3 {
            let mut waits = handed_over(old, switch(old, &["--wait", "1s"]));
            assert_eq!(waits.wait(SYNC_MAX).and_then(|status| status.code()), Some(1), "{}", waits.said());
            old.protect = None;
            is_covered(old);
            let writers = ["a", "b"].map(|name| Writer::start(&old.point, &format!("{name} {round}")));
            std::thread::sleep(Duration::from_millis(100));
            old.protect(&["--to", &new.address()]);
            assert_eq!(mounts(&old.point), 1, "the cover is beneath the mount");
            std::thread::sleep(Duration::from_millis(200));
            for written in writers.map(Writer::end) {
                assert!(written.others.is_empty(), "{:?}", written.others);
                assert!(written.refused > 0 && !written.acknowledged.is_empty(), "nobody wrote meanwhile");
                old.in_line();
                all_there(&written.acknowledged, &new.tree());
            }
        }
        Side::stop(&mut old.protect);
        tree::assert_same(&old.tree(), &new.tree());
    }
}

/// Another start asks first: where the other host has taken over nobody here has heard of it yet.
#[test]
fn a_cover_is_not_lifted_where_the_other_host_has_taken_over() {
    let mut scene = Scene::in_place(&[]);
    let Scene { old, new, .. } = &mut scene;
    let mut waits = handed_over(old, switch(old, &[]));
    kill(&mut waits);
    old.protect = None;
    take_over(new, &[]);
    let writer = Writer::start(&old.point, "late");
    old.refuses(&["--to", &new.address()], "was stood in for");
    let written = writer.end();
    assert!(written.acknowledged.is_empty() && written.refused > 0, "{:?}", written.acknowledged);
    is_covered(old);
    // The same command goes on, and says that it is over.
    over(Daemon::spawn(switch(old, &[])), old, 2);
    Side::stop(&mut new.protect);
}

/// Whatever dies and when, it is served again by the same command, and nothing is lost.
#[test]
fn killed_at_any_moment_the_directory_is_served_again() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let mut seed: u64 = seed.unwrap_or_else(standin::store::random_u64);
    eprintln!("SEED={seed}");
    let mut draw = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut scene = Scene::in_place(&[]);
    let Scene { old, new, .. } = &mut scene;
    let mut acknowledged = Vec::new();
    for round in 0..12 {
        let writer = Writer::start(&old.point, &format!("round {round}"));
        let mut command = Daemon::spawn(switch(old, &["--wait", "1s"]));
        std::thread::sleep(Duration::from_millis(draw(900)));
        let who = draw(3);
        if who != 1 {
            kill(old.protect.as_mut().expect("it runs"));
        }
        if who != 0 {
            kill(&mut command);
        }
        // What was begun comes to its end.
        std::thread::sleep(Duration::from_millis(draw(400)));
        let deadline = Instant::now() + SYNC_MAX;
        while who == 0 && !command.has_ended() {
            assert!(Instant::now() < deadline, "{}", command.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        let serves = who == 1 && !old.protect.as_mut().is_some_and(|daemon| ends_within(daemon, 2));
        let written = writer.end();
        acknowledged.extend(written.acknowledged);
        if !serves {
            old.protect = None;
            old.protect(&["--to", &new.address()]);
        }
        assert!(mounts(&old.point) <= 2, "round {round}: covers are heaped up");
        fs::write(old.mount("again"), format!("{round}")).expect("it is served");
        eprintln!("round {round}: {who} killed, {} mounts", mounts(&old.point));
    }
    old.in_line();
    Side::stop(&mut old.protect);
    assert!(!is_mounted(&old.point), "a cover is left");
    all_there(&acknowledged, &old.tree());
    all_there(&acknowledged, &new.tree());
    tree::assert_same(&old.tree(), &new.tree());
}

fn ends_within(daemon: &mut Daemon, seconds: u64) -> bool {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !daemon.has_ended() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// While programs write: where one has a file open in the very moment the mount stays, and it is typed again.
fn handed_over_under_writers(side: &Side, command: impl Fn() -> Command) -> Daemon {
    let deadline = Instant::now() + SYNC_MAX;
    loop {
        let mut daemon = Daemon::spawn(command());
        while !daemon.has_ended() {
            if daemon.said().contains("handed over; on the host of") {
                is_covered(side);
                return daemon;
            }
            assert!(Instant::now() < deadline, "{}{}", daemon.said(), side.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon.wait(STOP_MAX);
        assert!(daemon.said().contains("cannot be unmounted"), "{}", daemon.said());
    }
}

/// As it is typed where the replica's directory is that of programs.
fn take_over_at_home(side: &mut Side, to: &str) {
    if side.serve.is_some() {
        Side::stop(&mut side.serve);
    }
    let mut command = side.command();
    command.arg("failover").arg(side.tree()).args(["--yes", "--to", to, "--at"]).arg(&side.point);
    let mut daemon = Daemon::spawn(command);
    daemon.wait_ready();
    side.protect = Some(daemon);
}

/// To and fro under programs that write: nothing that they were told is written is missing at the end.
#[test]
fn ten_switches_under_load_lose_nothing() {
    switches_under_load_lose_nothing(Scene::in_place(&[]), 10);
}

#[test]
fn switches_of_whole_disks_under_load_lose_nothing() {
    switches_under_load_lose_nothing(Scene::on_disks("ext4", 96, Place::Over), 4);
}

fn switches_under_load_lose_nothing(mut scene: Scene, rounds: u32) {
    let Scene { old, new, .. } = &mut scene;
    let mut acknowledged: Vec<String> = Vec::new();
    let mut frozen = Vec::new();
    for round in 1..=rounds {
        let leaves = if round % 2 == 1 { &mut *old } else { &mut *new };
        let writers =
            ["a", "b"].map(|name| Writer::start(&leaves.point, &format!("{name} in round {round}")));
        std::thread::sleep(Duration::from_millis(300));
        let waits = handed_over_under_writers(leaves, || {
            let mut command = if round % 2 == 1 { leaves.command() } else { leaves.target_command() };
            command.args(["switch", "web", "--yes"]);
            command
        });
        leaves.protect = None;
        match round % 2 {
            1 => take_over(new, &[]),
            _ => take_over_at_home(old, &new.address()),
        }
        let (left, taker) = if round % 2 == 1 { (&*old, &*new) } else { (&*new, &*old) };
        frozen.push(over(waits, left, round + 1));
        for written in writers.map(Writer::end) {
            assert!(written.others.is_empty(), "{:?}", written.others);
            acknowledged.extend(written.acknowledged);
        }
        all_there(&acknowledged, &taker.point);
        if round % 2 == 1 {
            old.serve(&["--adopt"]);
            if round == 1 {
                new.pair_with(old);
            }
            Side::stop(&mut new.protect);
            take_over(new, &["--to", &old.address()]);
            in_line(new);
        } else {
            old.in_line();
        }
    }
    Side::stop(&mut old.protect);
    assert_same(&old.tree(), &new.tree());
    all_there(&acknowledged, &new.tree());
    clear_mounts(&new.point);
    eprintln!("{} synced writes, none lost; no mount for (ms) {frozen:?}", acknowledged.len());
}
