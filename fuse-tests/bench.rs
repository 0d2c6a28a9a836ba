//! `standin bench` from end to end, with little of everything: that it comes to an end, and what it says.

use serde_json::Value;

use crate::host::{binary, describe, dir_on_disk, heavy, output_within, standin};

/// More than it takes on a busy machine.
const BENCH_MAX: std::time::Duration = std::time::Duration::from_secs(240);

/// Two of this product copy the same tree in turns: neither takes it for one that was put back from elsewhere.
#[test]
fn two_versions_copy_the_same_trees_in_turns() {
    let _alone = heavy();
    let base = dir_on_disk();
    let mut command = standin(&base.path().join("run"));
    command.args(["--json", "bench", "--mirror", "--no-lines", "--mirror-files=1000", "--mirror-size=8M"]);
    command.arg("--rounds=2").arg("--against").arg(binary()).arg(base.path());
    let output = output_within(&mut command, BENCH_MAX);
    assert!(output.status.success(), "{}", describe(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for name in ["standin", "other"] {
        let copiers = report["mirror"]["copiers"].as_array().expect("copiers");
        let copier = copiers.iter().find(|copier| copier["name"] == name);
        let copier = copier.unwrap_or_else(|| panic!("{name} is not in {report:#}"));
        let steps = copier["steps"].as_array().expect("steps");
        assert_eq!(steps.len(), 6, "{copier:#}");
        assert!(steps.iter().all(|step| step["rounds"].as_array().is_some_and(|rounds| rounds.len() == 2)));
    }
    let left = std::fs::read_dir(base.path()).expect("a directory").filter_map(Result::ok);
    let left: Vec<_> = left.map(|entry| entry.file_name()).filter(|name| name != "run").collect();
    assert!(left.is_empty(), "{left:?}");
}

/// What watches a daemon ends with the run, and the lines have its column.
#[test]
fn a_daemon_is_measured_while_it_is_watched() {
    let _alone = heavy();
    let base = dir_on_disk();
    let mut command = standin(&base.path().join("run"));
    command.args(["--json", "bench", "--quick", "--variants", "replicating,watched", "--only", "write-4k"]);
    let output = output_within(command.arg(base.path()), BENCH_MAX);
    assert!(output.status.success(), "{}", describe(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let variants = report["lines"][0]["variants"].as_array().expect("variants");
    let names: Vec<&str> = variants.iter().filter_map(|one| one["variant"].as_str()).collect();
    assert_eq!(names, ["native", "replicating", "watched"], "{report:#}");
    let marker = base.path().to_str().expect("UTF-8");
    let left = std::fs::read_dir("/proc").expect("/proc").flatten().filter(|process| {
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(marker)
    });
    assert_eq!(left.count(), 0, "what has watched goes on");
}
