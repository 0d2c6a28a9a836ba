//! The control group of a drill: what it may take of the host beside everything else. It lies at the top of the hierarchy
//! (cgroups(7), version 2), where weights count against all of the host, and goes with the drill.
//!
//! Where there is none, or not with all that is wanted, the drill runs all the same, and its report says so.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::limits::{GRACE, LOOKED_EVERY};
use crate::preflight::MountTable;
use crate::units;

/// What a drill may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From 1 to 10,000, as `cpu.weight`; everything else has 100.
    pub cpu_weight: u32,
    /// Percent of one processor.
    pub cpu_max: Option<u32>,
    /// As the other one, of the disks.
    pub io_weight: u32,
    /// Bytes; a drill that wants more is killed, or a part of it.
    pub memory_max: Option<u64>,
}

/// What came of that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limited {
    /// Its directory, while the drill runs; `null` where there is none.
    pub group: Option<PathBuf>,
    /// What holds.
    pub set: Vec<String>,
    /// What does not, and why.
    pub not: Vec<String>,
}

/// A setting: the names of its file, which are tried in order, and what is written there.
struct Setting {
    controller: &'static str,
    files: &'static [&'static str],
    value: String,
    /// For people.
    words: String,
}

impl Limits {
    fn settings(&self) -> Vec<Setting> {
        let mut all = vec![
            Setting::new("cpu", &["cpu.weight"], self.cpu_weight.to_string()),
            // The second one is that of the BFQ scheduler.
            Setting::new("io", &["io.weight", "io.bfq.weight"], self.io_weight.to_string()),
        ];
        all.extend(self.cpu_max.map(|percent| Setting {
            // Microseconds of each 100,000.
            value: format!("{} 100000", u64::from(percent) * 1000),
            words: format!("cpu.max {percent}%"),
            ..Setting::new("cpu", &["cpu.max"], String::new())
        }));
        all.extend(self.memory_max.map(|bytes| Setting {
            words: format!("memory.max {}", units::size(bytes)),
            ..Setting::new("memory", &["memory.max"], bytes.to_string())
        }));
        all
    }
}

impl Setting {
    fn new(controller: &'static str, files: &'static [&'static str], value: String) -> Setting {
        let words = format!("{} {value}", files[0]);
        Setting { controller, files, value, words }
    }
}

/// Makes the group of the drill of this name; nothing is in it yet.
pub(super) fn make(name: &str, limits: &Limits) -> Limited {
    match top() {
        Ok(Some(top)) => make_below(&top, name, limits),
        Ok(None) => Limited::none(limits, "this host has no control groups of version 2"),
        Err(error) => Limited::none(limits, &format!("the mounts cannot be read: {error}")),
    }
}

fn make_below(top: &Path, name: &str, limits: &Limits) -> Limited {
    let group = below(top, name);
    // Where it does not go, its file in the group says so.
    for setting in limits.settings() {
        let _ = fs::write(top.join("cgroup.subtree_control"), format!("+{}", setting.controller));
    }
    match fs::create_dir(&group) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Limited::none(limits, &format!("{} cannot be made: {error}", group.display()))
        }
        Ok(()) | Err(_) => set(group, limits),
    }
}

fn set(group: PathBuf, limits: &Limits) -> Limited {
    let mut limited = Limited::default();
    for Setting { files, value, words, .. } in limits.settings() {
        if files.iter().any(|file| write(&group.join(file), &value).is_ok()) {
            limited.set.push(words);
            continue;
        }
        let why = match write(&group.join(files[0]), &value) {
            Ok(()) => String::new(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                ": the host does not have it here".into()
            }
            Err(error) => format!(": {error}"),
        };
        limited.not.push(format!("{words}{why}"));
    }
    limited.group = Some(group);
    limited
}

/// Into a file that is there.
fn write(file: &Path, value: &str) -> io::Result<()> {
    use io::Write;
    fs::OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

/// Puts a process into it, and all that this one starts from then on.
pub(super) fn join(group: &Path, pid: u32) -> io::Result<()> {
    write(&group.join("cgroup.procs"), &pid.to_string())
}

/// Puts this process there.
pub(super) fn enter(group: &Path) -> io::Result<()> {
    join(group, 0)
}

/// Removes the group of the drill of this name, if there is one; whoever was in it has ended or is about to.
///
/// Errors: why it is still there.
pub(super) fn remove(name: &str) -> Result<(), String> {
    match top() {
        Ok(Some(top)) => remove_one(&below(&top, name)),
        // What was there is not to be seen: nobody is in it.
        Ok(None) | Err(_) => Ok(()),
    }
}

fn remove_one(group: &Path) -> Result<(), String> {
    let deadline = Instant::now() + GRACE;
    loop {
        match fs::remove_dir(group) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) if Instant::now() < deadline => std::thread::sleep(LOOKED_EVERY),
            Err(error) => {
                return Err(format!("the control group {} could not be removed: {error}", group.display()));
            }
        }
    }
}

fn below(top: &Path, name: &str) -> PathBuf {
    top.join(format!("standin-{name}"))
}

/// Where the hierarchy of version 2 is mounted.
fn top() -> io::Result<Option<PathBuf>> {
    let table = MountTable::read()?;
    let top = table.all().find(|mount| mount.fs_type == "cgroup2").map(|mount| mount.point.clone());
    Ok(top)
}

impl Limited {
    fn none(limits: &Limits, why: &str) -> Limited {
        let not = limits.settings().into_iter().map(|setting| format!("{}: {why}", setting.words)).collect();
        Limited { group: None, set: Vec::new(), not }
    }

    /// Nobody is in the group: nothing of it holds.
    pub(super) fn without_group(&self, why: &str) -> Limited {
        let not = self.set.iter().map(|setting| format!("{setting}: {why}"));
        Limited { group: None, set: Vec::new(), not: not.chain(self.not.iter().cloned()).collect() }
    }

    /// On one line.
    pub fn words(&self) -> String {
        match (self.set.is_empty(), self.not.is_empty()) {
            (true, true) => "none".into(),
            (false, true) => self.set.join(", "),
            (true, false) => format!("NONE: {}", self.not.join("; ")),
            (false, false) => format!("{}; NOT {}", self.set.join(", "), self.not.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Limits =
        Limits { cpu_weight: 20, cpu_max: Some(150), io_weight: 30, memory_max: Some(1 << 30) };

    /// As the kernel would have it: with these files.
    fn fake(files: &[&str]) -> tempfile::TempDir {
        let group = tempfile::tempdir().unwrap();
        for file in files {
            fs::write(group.path().join(file), "").unwrap();
        }
        group
    }

    #[test]
    fn what_the_host_has_is_set_and_the_rest_is_said() {
        let whole = fake(&["cpu.weight", "cpu.max", "io.weight", "memory.max"]);
        let limited = set(whole.path().to_owned(), &ALL);
        assert_eq!(limited.words(), "cpu.weight 20, io.weight 30, cpu.max 150%, memory.max 1 GiB");
        for (file, value) in [
            ("cpu.weight", "20"),
            ("cpu.max", "150000 100000"),
            ("io.weight", "30"),
            ("memory.max", "1073741824"),
        ] {
            assert_eq!(fs::read_to_string(whole.path().join(file)).unwrap(), value, "{file}");
        }
        let part = fake(&["cpu.weight", "io.bfq.weight", "cpu.max"]);
        let limited = set(part.path().to_owned(), &ALL);
        assert_eq!(limited.set, ["cpu.weight 20", "io.weight 30", "cpu.max 150%"]);
        assert_eq!(limited.not, ["memory.max 1 GiB: the host does not have it here"]);
        assert_eq!(fs::read_to_string(part.path().join("io.bfq.weight")).unwrap(), "30");
        let least = Limits { cpu_max: None, memory_max: None, ..ALL };
        let none = Limited::none(&least, "there is none");
        assert_eq!(none.words(), "NONE: cpu.weight 20: there is none; io.weight 30: there is none");
        let top = fake(&["cgroup.subtree_control"]);
        let made = make_below(top.path(), "drill-1", &least);
        let group = made.group.clone().unwrap();
        assert!(group.is_dir() && group.starts_with(top.path()) && made.set.is_empty(), "{made:?}");
        remove_one(&group).unwrap();
        remove_one(&group).unwrap();
        assert!(!group.exists());
        let nowhere = make_below(&top.path().join("gone"), "drill-1", &least);
        assert!(nowhere.group.is_none() && nowhere.words().contains("cannot be made"), "{nowhere:?}");
    }
}
