//! Who may import whom: the rooms of lib.rs stand on floors, and a room imports from below alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up. On the ground everybody may import everybody.
const FLOORS: [&[&str]; 10] = [
    &[
        "aside",
        "clock",
        "commands",
        "failpoint",
        "failure",
        "limits",
        "locked",
        "mutation",
        "open_files",
        "paced",
        "place",
        "pool",
        "ranks",
        "random",
        "reads",
        "service_manager",
        "signals",
        "store",
        "sys",
        "units",
        "words",
    ],
    &["packet"],
    &["activity", "address", "blocks", "events", "map", "privileges", "sets"],
    &["xattr"],
    &["clone"],
    &["apply", "connection", "control", "intercept", "link", "pairing", "preflight", "queue", "resync"],
    &["cover"],
    &["drill", "failover", "source_side", "target_side"],
    &["monitor"],
    &["bench", "cli", "dependencies", "floors", "lib", "main", "shape", "simulator"],
];

/// Importing on one's own floor, and why.
const BESIDE: [(&str, &str); 3] = [
    // What is captured goes into the queue under the same locks.
    ("intercept", "queue"),
    // `local:` is a target in the source's process.
    ("source_side", "target_side"),
    // Measures what a command shows.
    ("cli", "bench"),
];

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => files(&entry.path(), found),
            false => found.push(entry.path()),
        }
    }
}

/// What a file of the product names of the crate; tests may use what they like.
fn imports(path: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap();
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let named = code.flat_map(|line| line.split("crate::").skip(1));
    let room = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    named.map(room).filter(|room| floor(room).is_some()).collect()
}

fn is_test(path: &Path) -> bool {
    let names = || path.iter().map(|part| part.to_string_lossy());
    names().any(|name| {
        matches!(
            &*name,
            "tests"
                | "tests.rs"
                | "fuzz.rs"
                | "hostile.rs"
                | "model"
                | "simulator"
                | "floors.rs"
                | "dependencies.rs"
                | "shape.rs"
        )
    })
}

#[test]
fn rooms_import_from_below() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&src, &mut all);
    let (mut wrong, mut used) = (Vec::new(), BTreeSet::<(&str, &str)>::new());
    for path in all.iter().filter(|path| !is_test(path)) {
        let below = path.strip_prefix(&src).unwrap();
        let own = Path::new(below.iter().next().unwrap()).file_stem().unwrap().to_string_lossy().into_owned();
        let Some(at) = floor(&own) else { panic!("{own} stands on no floor") };
        for room in imports(path).into_iter().filter(|room| *room != own) {
            let beside = BESIDE.iter().find(|pair| **pair == (own.as_str(), room.as_str()));
            used.extend(beside);
            let is_below = floor(&room).is_some_and(|floor| floor < at || floor == 0);
            if !is_below && beside.is_none() {
                wrong.push(format!("{}: {room}", below.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imported from above or beside:\n{}", wrong.join("\n"));
    assert_eq!(used.len(), BESIDE.len(), "an exception that nobody needs: {used:?}");
}
