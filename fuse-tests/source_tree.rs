//! A source tree of the size of a kernel's: unpacked onto the mount, built there and removed,
//! with `serve` on another host; the same natively beside it, for the price.
//!
//! `STANDIN_TREE_FILES=80000` for the whole size, `STANDIN_TREE_TAR=FILE` for a tree of your own
//! (its `.c` files are what is built), `STANDIN_SEED` for another generated one.

mod generate;

use std::fmt;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::host::{self, Daemon, heavy, output_within, run};
use crate::hosts::Hosts;
use crate::random::setting;
use crate::tree::{self, Rules};
use standin::random::Random;

/// Files of the tree unless it is set.
const FILES: u64 = 5000;
/// Files that a real compiler builds.
const COMPILED: usize = 300;
/// Jobs of a build.
const JOBS: usize = 4;
/// For a step with the whole tree on a slow machine.
const STEP_MAX: Duration = Duration::from_secs(1200);

/// What happens to the tree.
#[derive(Clone, Copy, Debug)]
enum Step {
    Unpack,
    /// An object for each source: written under another name, then renamed.
    Build,
    /// By gcc.
    Compile,
    Remove,
}

const STEPS: [Step; 4] = [Step::Unpack, Step::Build, Step::Compile, Step::Remove];

impl Step {
    /// Performs it below `root`.
    fn perform(self, root: &Path, tar: &Path) {
        let tree = root.join("tree");
        match self {
            Step::Unpack => {
                fs::create_dir(&tree).expect("a directory");
                succeeds(Command::new("tar").arg("xf").arg(tar).arg("-C").arg(&tree));
            }
            Step::Build => in_parallel(&sources(&tree), build_one),
            Step::Compile => in_parallel(&generate::sources(&tree.join("compiled"), COMPILED), compile_one),
            Step::Remove => succeeds(Command::new("rm").arg("-rf").arg(&tree)),
        }
    }
}

#[track_caller]
fn succeeds(command: &mut Command) {
    let output = output_within(command, STEP_MAX);
    assert!(output.status.success(), "{command:?}: {}", host::describe(&output));
}

/// All sources below a directory, sorted.
fn sources(tree: &Path) -> Vec<PathBuf> {
    let (mut open, mut found) = (vec![tree.to_owned()], Vec::new());
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).expect("a directory") {
            let entry = entry.expect("an entry");
            let (path, kind) = (entry.path(), entry.file_type().expect("a type"));
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|end| end == "c") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn in_parallel(paths: &[PathBuf], each: impl Fn(&Path) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..JOBS {
            scope.spawn(|| {
                while let Some(path) = paths.get(next.fetch_add(1, Relaxed)) {
                    each(path);
                }
            });
        }
    });
}

/// As a compiler does: read, write pieces of varying length out of order, rename.
fn build_one(source: &Path) {
    let content = fs::read(source).expect("a source");
    let mut random = Random::new(content.len() as u64);
    let (object, unfinished) = (source.with_extension("o"), source.with_extension("o.tmp"));
    let file = fs::File::create(&unfinished).expect("a file");
    let header = random.number().to_le_bytes();
    let mut at = 64;
    for piece in content.chunks(1 + random.below(30_000) as usize) {
        file.write_all_at(piece, at).expect("a write");
        at += piece.len() as u64 + random.below(40);
    }
    file.write_all_at(&header, 0).expect("a write");
    drop(file);
    fs::rename(unfinished, object).expect("a rename");
}

fn compile_one(source: &Path) {
    let object = source.with_extension("o");
    run(Command::new(host::require_program("gcc"))
        .args(["-O1", "-g", "-c"])
        .arg(source)
        .arg("-o")
        .arg(object));
}

/// What a step took.
struct Measured {
    step: Step,
    native: Duration,
    mount: Duration,
    /// Of the replica when the step ended.
    lag_packets: u64,
    lag_bytes: u64,
    /// From the end of the step until everything was applied.
    caught_up: Duration,
    objects: usize,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (native, mount) = (self.native.as_secs_f64(), self.mount.as_secs_f64());
        write!(
            f,
            "{:8} native {native:7.2} s, mount {mount:7.2} s ({:.2} times); then {} packets, {:.1} MiB behind, \
             caught up in {:.2} s; {} objects",
            format!("{:?}", self.step),
            mount / native,
            self.lag_packets,
            self.lag_bytes as f64 / f64::from(1 << 20),
            self.caught_up.as_secs_f64(),
            self.objects
        )
    }
}

/// Runs a step natively, then on the mount, then compares.
fn measure(step: Step, hosts: &Hosts, native: &Path, tar: &Path) -> Measured {
    let timed = |root: &Path| {
        rustix::fs::sync();
        let began = Instant::now();
        step.perform(root, tar);
        began.elapsed()
    };
    let (native, mount) = (timed(native), timed(&hosts.mount));
    let lag = hosts.status(hosts.on_source())["connections"][0]["lag_applied"].clone();
    let lag = |field: &str| lag[field].as_u64().unwrap_or_else(|| panic!("no {field} in {lag}"));
    let began = Instant::now();
    let mut wait = hosts.on_source();
    succeeds(wait.args(["wait-sync", "--timeout", "1000s"]));
    let caught_up = began.elapsed();
    let seen = tree::assert_same(&hosts.backing(), &hosts.replica());
    let (lag_packets, lag_bytes) = (lag("packets"), lag("bytes"));
    Measured { step, native, mount, lag_packets, lag_bytes, caught_up, objects: seen.objects }
}

/// The most memory a daemon ever had, in MiB.
fn memory_max(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("our own child");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("proc(5)");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

/// The tree to unpack; a generated one is made in `work`.
fn tarball(work: &Path) -> PathBuf {
    if let Some(own) = std::env::var_os("STANDIN_TREE_TAR") {
        return own.into();
    }
    let seed = setting("STANDIN_SEED").unwrap_or(1);
    let files = setting("STANDIN_TREE_FILES").unwrap_or(FILES);
    println!("STANDIN_SEED={seed} STANDIN_TREE_FILES={files}");
    let tree = work.join("generated");
    generate::tree(&tree, files, &mut Random::new(seed));
    let tar = work.join("tree.tar");
    succeeds(Command::new(host::require_program("tar")).arg("cf").arg(&tar).arg("-C").arg(&tree).arg("."));
    fs::remove_dir_all(tree).expect("our own tree");
    tar
}

#[test]
fn a_source_tree_is_unpacked_built_and_removed() {
    let _heavy = heavy();
    let mut hosts = Hosts::prepare();
    let native = hosts.at("native");
    fs::create_dir(&native).expect("a directory");
    let tar = tarball(hosts.base.path());
    hosts.serve();
    hosts.pair();
    hosts.protect();
    let mut objects = 0;
    for step in STEPS {
        let measured = measure(step, &hosts, &native, &tar);
        println!("{measured}");
        objects = objects.max(measured.objects);
    }
    // What was done natively is what was done on the mount.
    tree::assert_same_by(&native, &hosts.replica(), &Rules { ignore_times: true, ..Rules::default() });
    let memory = [&hosts.source, &hosts.target].map(|daemon| memory_max(daemon.as_ref().expect("it runs")));
    println!("most memory: source {} MiB, target {} MiB", memory[0], memory[1]);
    assert!(memory.iter().all(|mib| *mib < memory_bound_mib(objects)), "{memory:?}, {objects} objects");
    hosts.stop_source();
    hosts.stop_target();
    tree::assert_same(&hosts.backing(), &hosts.replica());
}

/// The queue's 128 MiB twice over, and for each object what a daemon knows of it while the kernel
/// does: 2.5 KiB were measured.
fn memory_bound_mib(objects: usize) -> u64 {
    256 + 4 * objects as u64 / 1024
}
