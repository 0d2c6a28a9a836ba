//! Files that chance has made: good ones, and good ones that were damaged. `STANDIN_SEED` says with which seed to
//! begin.

use super::Ground;
use crate::random::Random;
use crate::words::SettingFrom;

#[path = "../../../../fuse-tests/config_files.rs"]
mod files;

const FIRST: &str = "dir = \"/srv/data\"";

fn seeds(count: u64) -> std::ops::Range<u64> {
    let first = std::env::var("STANDIN_SEED").ok().map_or(1, |seed| seed.parse().unwrap());
    first..first + count
}

/// What is bad leaves everything as it was, and is said with its place.
#[test]
fn files_are_taken_whole_or_not_at_all() {
    let ground = Ground::new();
    ground.set("web", FIRST);
    let runs = ground.protect("web").unwrap().configuration;
    for seed in seeds(500) {
        let mut random = Random::new(seed);
        let mut below = |end| random.below(end);
        let good = files::good(&mut below, FIRST);
        ground.set("web", &good);
        let read =
            runs.read_again().unwrap_or_else(|failure| panic!("STANDIN_SEED={seed}\n{good}\n{failure}"));
        for key in good.lines().filter_map(key_of_line) {
            let setting = read.settings.iter().find(|setting| setting.key == key).unwrap();
            let is_of_file = matches!(setting.from, SettingFrom::File { .. });
            assert!(is_of_file, "STANDIN_SEED={seed}: {key} does not count\n{good}");
        }
        let mut random = Random::new(seed);
        let bad = files::bad(&mut |end| random.below(end), FIRST);
        let path = ground.set("web", &bad);
        let failure =
            runs.read_again().err().unwrap_or_else(|| panic!("STANDIN_SEED={seed} is good:\n{bad}"));
        assert!(
            failure.what.contains(&format!("{}:", path.display())),
            "STANDIN_SEED={seed}\n{bad}\n{failure}"
        );
    }
}

/// The option that a line sets.
fn key_of_line(line: &str) -> Option<String> {
    let (key, _) = line.split_once(" = ").filter(|_| !line.trim_start().starts_with('#'))?;
    match key.replace('-', "_").as_str() {
        "exclude" | "include" | "recursive" => Some("rule".into()),
        "verify" => Some("verify_every".into()),
        other => Some(other.to_owned()),
    }
}

/// Whatever bytes come, they are taken or refused, and every place that is said is one of the file.
#[test]
fn damaged_bytes_are_no_fault_of_the_program() {
    use super::{Definition, Section, file};
    let definition = Definition::protect();
    for seed in seeds(300) {
        let mut random = Random::new(seed);
        let mut bytes = files::good(&mut |end| random.below(end), FIRST).into_bytes();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len() as u64) as usize;
            match random.below(3) {
                0 => bytes[at] = random.below(256) as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, *random.one_of(b"\"'[]{}=.#\n\\x_0-")),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let parsed = file::parse("web.toml".as_ref(), &text, &definition, Section::Whole);
        for fault in &parsed.faults {
            let lines = text.split('\n').count();
            assert!((1..=lines).contains(&fault.at.line), "STANDIN_SEED={seed}: {fault}\n{text}");
        }
    }
}
