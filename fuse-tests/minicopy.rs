//! A target that lost its place gets what has changed since it was in line, and nothing else.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::host::{COMMAND_MAX, Protected, Setup, describe, output_within, standin};
use serde_json::Value;

/// Directories, and files in each.
const DIRECTORIES: usize = 40;
const FILES: usize = 50;

fn status(run: &Path) -> Value {
    let output = output_within(standin(run).args(["status", "--json"]), COMMAND_MAX);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", describe(&output)))
}

/// Of the copy that ended last.
fn progress(protected: &Protected) -> Value {
    status(&protected.run)["connections"][0]["progress"].clone()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn wait_until(what: &str, max: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + max;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn make_tree(root: &Path) {
    for dir in 0..DIRECTORIES {
        let dir = root.join(format!("d{dir}"));
        fs::create_dir(&dir).expect("a directory");
        for file in 0..FILES {
            fs::write(dir.join(format!("f{file}")), format!("{file} of {}", dir.display())).expect("a file");
        }
    }
}

/// What a file system may be asked for, in a few of the directories.
fn change_some(root: &Path) {
    fs::write(root.join("d1/f1"), "rewritten").expect("a write");
    fs::remove_file(root.join("d2/f2")).expect("a removal");
    fs::rename(root.join("d3"), root.join("d4/inside")).expect("a rename");
    fs::rename(root.join("d4/f4"), root.join("d5/f5")).expect("a replacement");
    fs::set_permissions(root.join("d6"), PermissionsExt::from_mode(0o700)).expect("a mode");
    fs::set_permissions(root.join("d6/f6"), PermissionsExt::from_mode(0o640)).expect("a mode");
    fs::remove_dir_all(root.join("d7")).expect("a removal");
    fs::create_dir_all(root.join("new/below")).expect("directories");
    fs::write(root.join("new/below/file"), "new").expect("a file");
    fs::hard_link(root.join("d8/f8"), root.join("new/link")).expect("a link");
    fs::File::options().write(true).open(root.join("d9/f9")).expect("a file").set_len(3).expect("a cut");
    std::os::unix::fs::symlink("f1", root.join("d1/symlink")).expect("a symlink");
}

/// It follows the stream again.
fn change_some_more(protected: &Protected) {
    fs::write(protected.mount.join("after"), "after").expect("a write");
    protected.wait_sync();
    assert!(protected.assert_in_sync().objects > 0);
}

#[test]
fn an_outage_costs_the_regions_that_changed() {
    const REGION: u64 = 64 << 10;
    let arguments = vec!["--queue-memory", "32M"];
    let mut protected = Protected::start(Setup { arguments, ..Setup::default() });
    let (run, mount) = (protected.run.clone(), protected.mount.clone());
    make_tree(&mount);
    let mut large = File::create(mount.join("large")).expect("a file");
    for piece in 0..64u8 {
        large.write_all(&vec![piece; 1 << 20]).expect("a write");
    }
    protected.wait_sync();
    wait_until("the map begins after what is there", Duration::from_secs(60), || {
        let output = output_within(standin(&run).args(["bitmap", "show", "--json"]), COMMAND_MAX);
        let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let generations = shown["generations"].as_array().expect("a list").clone();
        generations.len() == 1 && generations[0]["percent"] == 0.0
    });
    let command = |word: &str| {
        let output = output_within(standin(&run).args(["connection", word]), COMMAND_MAX);
        assert!(output.status.success(), "{}", describe(&output));
    };
    command("stop");
    change_some(&mount);
    // More than the queue holds, in regions that are few.
    let regions: Vec<u64> = (0..100).map(|number| number * 7 % 1024).collect();
    for round in 0..6u8 {
        for region in &regions {
            large.seek(SeekFrom::Start(region * REGION)).expect("a place");
            large.write_all(&vec![100 + round; REGION as usize]).expect("programs go on");
        }
    }
    wait_until("it is let go", COMMAND_MAX, || status(&run)["connections"][0]["needs_copy"] == true);
    command("start");
    protected.wait_in_line();
    assert!(protected.assert_in_sync().objects > DIRECTORIES * FILES / 2);
    let progress = progress(&protected);
    assert_eq!(progress["mode"], "minicopy", "{progress}");
    drop(large);
    let (sent, changed) = (number(&progress["bytes_done"]), regions.len() as u64 * REGION);
    assert!(sent >= changed && sent <= changed + changed / 10, "{sent} for {changed}: {progress}");
    change_some_more(&protected);
    protected.stop();
}
