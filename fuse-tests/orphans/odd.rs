//! Trees with everything odd that a source has no more: moved aside, kept, deleted, listed and removed, and counted
//! true. `STANDIN_ODD_FILES=n` sets their size, as for `odd`.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;

use super::{orphans, told};
use crate::host::{COMMAND_MAX, Protected, Setup, describe, heavy, output_within, standin};
use crate::mirror::{connection, is_complete, wait_for_within};
use crate::odd::{Clean, fill, patience};
use crate::random::setting;

const FILES: u64 = 300;

/// All names in a tree, with its own, and which of them are names of one object. Paths in it are longer than a path
/// may be.
#[derive(Debug, PartialEq, Eq)]
struct Names(BTreeSet<BTreeSet<Vec<u8>>>);

impl Names {
    fn of(tree: &Path) -> Names {
        let find = output_within(Command::new("find").arg(tree).args(["-printf", "%i %P\\0"]), COMMAND_MAX);
        assert!(find.status.success(), "{}", describe(&find));
        let mut objects: HashMap<&[u8], BTreeSet<Vec<u8>>> = HashMap::new();
        for line in find.stdout.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
            let space = line.iter().position(|byte| *byte == b' ').expect("a number and a name");
            objects.entry(&line[..space]).or_default().insert(line[space + 1..].to_vec());
        }
        Names(objects.into_values().collect())
    }

    fn objects(&self) -> u64 {
        self.0.len() as u64
    }

    /// Of files with several names.
    fn linked(&self) -> usize {
        self.0.iter().filter(|names| names.len() > 1).map(BTreeSet::len).sum()
    }
}

fn counts(protected: &Protected) -> [u64; 4] {
    let counts = connection(protected)["orphans"].clone();
    ["moved", "kept", "deleted", "spared"].map(|kind| counts[kind].as_u64().unwrap_or_default())
}

/// In line with an odd tree; then stopped, and the source has it no more.
fn prepared(choice: &'static str, files: usize) -> (Protected, Clean, Names) {
    let arguments = vec!["--orphans", choice, "--delete-guard", "off"];
    let mut protected = Protected::prepare(Setup { arguments, ..Setup::default() });
    let clean = Clean(protected.base.path().to_owned());
    let odd = protected.backing.join("odd");
    fs::create_dir(&odd).expect("a directory");
    drop(fill::fill(&odd, 7, files));
    fill::with_flags(&odd);
    fs::write(protected.backing.join("stays"), "stays").expect("a file");
    start(&mut protected, files);
    protected.stop();
    fill::without_flags(&odd);
    let removed = output_within(Command::new("rm").arg("-rf").arg(&odd), COMMAND_MAX);
    assert!(removed.status.success(), "{}", describe(&removed));
    let names = Names::of(&protected.replica.join("odd"));
    assert!(names.objects() > files as u64 + 1100 && names.linked() > 10, "{}", names.objects());
    (protected, clean, names)
}

fn start(protected: &mut Protected, files: usize) {
    protected.start_at_once();
    wait_for_within(patience(files), protected, "good", is_complete);
}

fn assert_is_gone(protected: &Protected) {
    let left = told(protected, &["list"]);
    assert_eq!((&left["count"], &left["objects"]), (&0.into(), &0.into()), "{left}");
    assert!(!protected.replica.join("odd").exists());
    protected.assert_in_sync();
}

#[test]
fn odd_trees_are_moved_kept_deleted_and_counted() {
    let _alone = heavy();
    let files = setting("STANDIN_ODD_FILES").unwrap_or(FILES) as usize;
    for (choice, expected) in [("aside", [1, 0, 0, 0]), ("keep", [0, 1, 0, 0]), ("delete", [0, 0, 1, 0])] {
        println!("{choice}");
        let (mut protected, _clean, names) = prepared(choice, files);
        let objects = names.objects();
        start(&mut protected, files);
        assert_eq!(counts(&protected), expected, "{choice}");
        match choice {
            "aside" => {
                let listed = told(&protected, &["list"]);
                assert_eq!((&listed["count"], &listed["objects"]), (&1.into(), &objects.into()), "{listed}");
                assert_eq!(listed["orphans"][0]["path"], "odd");
                let place = listed["orphans"][0]["place"].as_str().expect("where it lies");
                let beside = format!(".{}.standin", protected.replica.file_name().expect("a name").display());
                let aside = protected.replica.with_file_name(beside).join("orphans").join(place);
                // Of each object one name was left.
                assert!(Names::of(&aside) == names, "it has other names than before");
                let removed = told(&protected, &["remove", "--path", "odd"])["removed"].clone();
                assert_eq!(
                    (&removed["count"], &removed["objects"]),
                    (&1.into(), &objects.into()),
                    "{removed}"
                );
            }
            "keep" => {
                assert!(Names::of(&protected.replica.join("odd")) == names, "it has other names than before");
                let verified = output_within(standin(&protected.run).args(["verify", "--json"]), COMMAND_MAX);
                let said = String::from_utf8_lossy(&verified.stdout).into_owned();
                let summary: Value =
                    serde_json::from_str(said.lines().last().expect("a line")).expect("JSON");
                assert_eq!(summary["summary"]["extra"], 1, "{said}");
                let mirror = ["mirror", "start", "--orphans", "delete"];
                let output = output_within(standin(&protected.run).args(mirror), COMMAND_MAX);
                assert!(output.status.success(), "{}", describe(&output));
                wait_for_within(patience(files), &protected, "deleted", |connection| {
                    is_complete(connection) && connection["orphans"]["deleted"] == 1
                });
            }
            _ => {}
        }
        assert_is_gone(&protected);
        protected.stop();
    }
}

/// What somebody has mounted in one stays, with what it hangs on; everything else goes, and it is said.
#[test]
fn a_mount_in_an_orphan_is_left_alone() {
    for choice in ["aside", "delete"] {
        println!("{choice}");
        let (mut protected, _clean, names) = prepared(choice, 20);
        let outside = protected.base.path().join("outside");
        fs::create_dir(&outside).expect("a directory");
        fs::write(outside.join("kept"), "x").expect("a file");
        let place = protected.replica.join("odd/mounted");
        fs::create_dir(&place).expect("a directory");
        mount(&outside, &place, "", MountFlags::BIND, None).expect("a mount");
        let hangs = Mounted(outside.clone());
        start(&mut protected, 20);
        assert!(!protected.replica.join("odd").exists());
        let listed = told(&protected, &["list"]);
        assert_eq!(listed["count"], 1, "{choice}: {listed}");
        if choice == "aside" {
            assert_eq!(listed["objects"], names.objects(), "{choice}: {listed}");
        }
        let output = orphans(&protected, &["remove", "--all"]);
        assert_eq!(output.status.code(), Some(1), "{choice}: {}", describe(&output));
        assert!(describe(&output).contains("mounted"), "{choice}: {}", describe(&output));
        // The mount point, and the tree that it is in.
        assert_eq!(told(&protected, &["list"])["objects"], 1, "{choice}");
        assert_eq!(fs::read(outside.join("kept")).expect("a file"), b"x");
        drop(hangs);
        assert_eq!(told(&protected, &["remove", "--all"])["removed"]["count"], 1, "{choice}");
        assert_is_gone(&protected);
        protected.stop();
    }
}

/// Taken away at the end, wherever it was moved to.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let root = self.0.to_str().expect("text").to_owned();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
        let ends = root.rsplit_once("/tmp/").map_or(root.clone(), |(_, end)| end.to_owned());
        for line in mounts.lines().filter(|line| line.contains(&ends)) {
            let fields: Vec<&str> = line.split(' ').collect();
            if fields[3].ends_with("/outside") {
                let _ = unmount(fields[4], UnmountFlags::DETACH);
            }
        }
    }
}
