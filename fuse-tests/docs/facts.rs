//! What the pages name, quote and link: files, headings, rooms, tests, assertions, messages.

use std::fs;
use std::path::Path;

use super::page::{self, Page, repository};

/// A start page is read to its end.
const README_LINES_MAX: usize = 100;

/// Rust files below a folder of the repository, in one text; strings that go over several lines are
/// joined, as the compiler joins them.
fn sources(folder: &str) -> String {
    fn read(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                read(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                *text += &fs::read_to_string(&path).expect("a source file");
            }
        }
    }
    let mut text = String::new();
    read(&repository().join(folder), &mut text);
    let mut parts = text.split("\\\n");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |joined, part| joined + part.trim_start())
}

/// The code in a cell of a table.
fn codes(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_start_page_is_short() {
    let lines = Page::read("README.md").line_count();
    assert!(lines <= README_LINES_MAX, "{lines} lines");
}

#[test]
fn what_is_linked_is_there() {
    for page in page::all() {
        for link in page.links() {
            if link.text.starts_with("https://") {
                continue;
            }
            let (file, heading) = link.text.split_once('#').unwrap_or((&link.text, ""));
            let place = format!("{}:{}: {}", page.name, link.number, link.text);
            let path = if file.is_empty() { page.name.clone().into() } else { page.beside(file) };
            assert!(repository().join(&path).is_file(), "{place}: no such file");
            if !heading.is_empty() {
                let anchors = Page::read(&path.to_string_lossy()).anchors();
                assert!(anchors.iter().any(|anchor| anchor == heading), "{place}: none of {anchors:?}");
            }
        }
    }
}

#[test]
fn files_that_are_named_exist() {
    for page in page::all() {
        for span in page.spans() {
            let is_ours = ["src/", "docs/", "fuse-tests", "packaging/", ".ci/"]
                .iter()
                .any(|folder| span.text.starts_with(folder));
            let there = repository().join(&span.text).exists();
            assert!(!is_ours || there, "{}:{}: there is no {}", page.name, span.number, span.text);
        }
    }
}

/// Messages that the troubleshooting page explains are those of the product; `…` is what differs.
#[test]
fn messages_are_said_as_they_are_quoted() {
    let (source, mut quoted) = (sources("src"), 0);
    for row in Page::read("docs/troubleshooting.md").rows() {
        for message in codes(&row[0]) {
            for part in message.split('…').map(str::trim).filter(|part| part.len() > 2) {
                assert!(source.contains(part), "nobody says '{part}' of '{message}'");
            }
            quoted += 1;
        }
    }
    assert!(quoted > 40, "{quoted} were found");
}

/// Each invariant has what holds it: a test, or an assertion with its text.
#[test]
fn invariants_are_held() {
    let source = sources("src") + &sources("fuse-tests");
    let mut number = 0;
    for row in Page::read("docs/architecture.md").rows() {
        let [count, _, held_by] = row.as_slice() else { continue };
        let Ok(count) = count.parse::<usize>() else { continue };
        number += 1;
        assert_eq!(count, number, "they are numbered");
        let (tests, texts) = (codes(held_by), held_by.split('"').skip(1).step_by(2));
        assert!(!tests.is_empty(), "{count}: nothing holds it");
        for test in tests {
            assert!(source.contains(&format!("fn {test}(")), "{count}: there is no test {test}");
        }
        for text in texts {
            assert!(source.contains(&format!("\"{text}\"")), "{count}: nothing asserts '{text}'");
        }
    }
    assert!(number > 20, "{number} were found");
}

/// The map has the rooms of the library, all of them and no others.
#[test]
fn the_map_has_all_rooms() {
    let library = fs::read_to_string(repository().join("src/lib.rs")).expect("the library");
    let modules = library.lines().filter_map(|line| {
        line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned)
    });
    let mut rooms: Vec<String> = modules.collect();
    let page = Page::read("docs/architecture.md");
    let rows = page.rows();
    let table = rows.iter().skip_while(|row| row[0] != "room").skip(2);
    let table = table.take_while(|row| row.len() == 2);
    let mut mapped: Vec<String> =
        table.flat_map(|row| codes(&row[0]).into_iter().map(str::to_owned).collect::<Vec<_>>()).collect();
    rooms.sort();
    mapped.sort();
    assert_eq!(mapped, rooms);
}
