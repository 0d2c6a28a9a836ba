//! How large files and functions are at most: what fits a head, and what fits a screen.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file of the product.
const FILE_MAX: usize = 700;
/// Lines of nine files of ten of it.
const FILE_MOSTLY_MAX: usize = 350;
/// Lines of a function, from `fn` to its last brace.
const FUNCTION_MAX: usize = 70;

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => files(&entry.path(), found),
            false if entry.path().extension().is_some_and(|end| end == "rs") => found.push(entry.path()),
            false => {}
        }
    }
}

fn below(dir: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    files(&root.join(dir), &mut found);
    let name = |path: &PathBuf| path.strip_prefix(root).unwrap().display().to_string();
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// Functions with their lines. What rustfmt has written ends with a brace below its first letter.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let begun = |at: usize| Some((begins_function(lines[at])?, length(&lines[at..])));
    (0..lines.len()).filter_map(begun).collect()
}

/// Lines of the function that begins with the first of these. One without a body counts as one.
fn length(lines: &[&str]) -> usize {
    let indent = |line: &str| line.len() - line.trim_start().len();
    if lines[0].ends_with(['}', ';']) {
        return 1;
    }
    let beside =
        |line: &&str| indent(line) == indent(lines[0]) && (line.ends_with(';') || line.trim() == "}");
    match lines.iter().skip(1).position(beside) {
        Some(behind) if lines[behind + 1].ends_with('}') => behind + 2,
        _ => 1,
    }
}

/// The name of the function that this line begins.
fn begins_function(line: &str) -> Option<String> {
    let (before, behind) = line.split_once("fn ")?;
    let is_word = |word: &str| {
        matches!(word, "pub" | "const" | "async" | "unsafe" | "extern" | "\"C\"" | "super)" | "crate)")
            || word.starts_with("pub(")
            || word.starts_with("crate::")
    };
    let is_one = before.split_whitespace().all(is_word) && (before.is_empty() || before.ends_with(' '));
    let name: String = behind.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (is_one && !name.is_empty()).then_some(name)
}

#[test]
fn files_fit_a_head() {
    let mut lines: Vec<(usize, String)> =
        below("src").into_iter().map(|(name, text)| (text.lines().count(), name)).collect();
    lines.sort();
    let (largest, name) = lines.last().unwrap();
    assert!(*largest <= FILE_MAX, "{name} has {largest} lines");
    // The nearest rank: nine of ten have no more.
    let mostly = (lines.len() * 9).div_ceil(10);
    let over: Vec<_> = lines.iter().filter(|(count, _)| *count > FILE_MOSTLY_MAX).collect();
    assert!(
        over.len() <= lines.len() - mostly,
        "{} of {} files have more than {FILE_MOSTLY_MAX} lines: {over:?}",
        over.len(),
        lines.len()
    );
}

#[test]
fn functions_fit_a_screen() {
    let mut over = Vec::new();
    for (file, text) in ["src", "fuse-tests", "benches"].into_iter().flat_map(below) {
        for (name, lines) in functions(&text).into_iter().filter(|(_, lines)| *lines > FUNCTION_MAX) {
            over.push(format!("{file}: {name} has {lines} lines"));
        }
    }
    assert!(over.is_empty(), "too large:\n{}", over.join("\n"));
}

#[test]
fn functions_are_measured() {
    let text = "\
impl A {
    pub(in crate::b) fn long(
        &self,
    ) -> u64
    where
        A: B,
    {
        let x = |fn_| fn_;

        x(1)
    }

    fn short() {}
}
fn two() {
}
trait C {
    fn none(&self);
}
";
    let found = functions(text);
    let expected = [("long", 10), ("short", 1), ("two", 2), ("none", 1)];
    assert_eq!(found, expected.map(|(name, lines)| (name.to_owned(), lines)));
}
