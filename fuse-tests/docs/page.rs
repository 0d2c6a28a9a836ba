//! A page of the docs, taken apart: blocks of commands, code in sentences, links, headings, tables.

use std::fs;
use std::path::{Path, PathBuf};

/// On which host a block is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Target,
}

/// What becomes of a block's lines: see [`super`].
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    Run(Side),
    NotRun(String),
    Drawing,
}

/// A line of a page, counted from 1.
#[derive(Debug)]
pub struct Line {
    pub number: usize,
    pub text: String,
}

/// What stands between two fences, without empty lines and lines that are comments.
pub struct Block {
    pub fate: Fate,
    pub lines: Vec<Line>,
}

pub struct Page {
    /// Path below the repository.
    pub name: String,
    text: String,
}

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README and all of docs/.
pub fn all() -> Vec<Page> {
    let entries = fs::read_dir(repository().join("docs")).expect("docs/");
    let mut names: Vec<String> = entries
        .map(|entry| format!("docs/{}", entry.expect("an entry").file_name().to_string_lossy()))
        .filter(|name| name.ends_with(".md"))
        .collect();
    names.push("README.md".into());
    names.sort();
    names.iter().map(|name| Page::read(name)).collect()
}

impl Page {
    pub fn read(name: &str) -> Page {
        let path = repository().join(name);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Page { name: name.to_owned(), text }
    }

    pub fn line_count(&self) -> usize {
        self.text.lines().count()
    }

    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        for line in self.lines() {
            match (line.text.strip_prefix("```"), &mut open) {
                (Some(words), None) => {
                    let fate = fate(words).unwrap_or_else(|| {
                        panic!("{}:{}: nobody knows what to do with '{words}'", self.name, line.number)
                    });
                    open = Some(Block { fate, lines: Vec::new() });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (None, Some(block)) if !line.text.is_empty() && !line.text.starts_with('#') => {
                    block.lines.push(line);
                }
                (None, _) => {}
            }
        }
        assert!(open.is_none(), "{}: a fence is not closed", self.name);
        blocks
    }

    /// Code in sentences and tables, with its line.
    pub fn spans(&self) -> Vec<Line> {
        let mut spans = Vec::new();
        for Line { number, text } in self.sentences() {
            let parts: Vec<&str> = text.split('`').collect();
            assert!(
                parts.len() % 2 == 1,
                "{}:{number}: code that begins here ends on another line",
                self.name
            );
            let codes = parts.iter().skip(1).step_by(2);
            spans.extend(codes.map(|code| Line { number, text: (*code).to_owned() }));
        }
        spans
    }

    /// Where links go to, as they stand there.
    pub fn links(&self) -> Vec<Line> {
        let mut links = Vec::new();
        for Line { number, text } in self.sentences() {
            let ends = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
            links.extend(ends.map(|(link, _)| Line { number, text: link.to_owned() }));
        }
        links
    }

    /// Names of the headings, as links name them.
    pub fn anchors(&self) -> Vec<String> {
        let headings = self.sentences().into_iter().filter(|line| line.text.starts_with('#'));
        headings.map(|line| anchor(line.text.trim_start_matches('#').trim())).collect()
    }

    /// Cells of the rows of all tables.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let rows = self.sentences().into_iter().filter(|line| line.text.starts_with('|'));
        rows.map(|line| line.text.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
            .collect()
    }

    /// Where a link of this page leads, as a path below the repository.
    pub fn beside(&self, link: &str) -> PathBuf {
        Path::new(&self.name).parent().expect("a page is a file").join(link)
    }

    /// All lines but those between fences.
    fn sentences(&self) -> Vec<Line> {
        let mut is_inside = false;
        self.lines()
            .filter(|line| {
                let is_fence = line.text.starts_with("```");
                is_inside ^= is_fence;
                !is_inside && !is_fence
            })
            .collect()
    }

    /// Markdown has other ways to write code that stands by itself: nobody would run it.
    pub fn assert_fenced(&self) {
        let mut is_inside = false;
        for (at, line) in self.text.lines().enumerate() {
            is_inside ^= line.trim().starts_with("```");
            let is_code = ["    ", "\t", "~~~"].iter().any(|begin| line.starts_with(begin));
            assert!(is_inside || !is_code, "{}:{}: code without a fence", self.name, at + 1);
        }
    }

    fn lines(&self) -> impl Iterator<Item = Line> {
        let lines = self.text.lines().enumerate();
        lines.map(|(at, text)| Line { number: at + 1, text: text.trim().to_owned() })
    }
}

fn fate(words: &str) -> Option<Fate> {
    match words {
        "sh" | "sh source" => Some(Fate::Run(Side::Source)),
        "sh target" => Some(Fate::Run(Side::Target)),
        // Files are loaded by tests of what reads them.
        "text" | "toml" => Some(Fate::Drawing),
        _ => {
            let why = words.strip_prefix("sh not-run:")?.trim();
            (!why.is_empty()).then(|| Fate::NotRun(why.to_owned()))
        }
    }
}

/// As GitHub makes them.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, '-' | '_')).collect()
}

#[test]
fn fences_say_who_runs_them() {
    assert_eq!(fate("sh"), Some(Fate::Run(Side::Source)));
    assert_eq!(fate("sh target"), Some(Fate::Run(Side::Target)));
    assert_eq!(fate("sh not-run: takes a day"), Some(Fate::NotRun("takes a day".into())));
    for unknown in ["", "bash", "console", "sh not-run", "sh not-run:", "sh elsewhere"] {
        assert_eq!(fate(unknown), None, "{unknown}");
    }
}

#[test]
fn headings_are_linked_as_on_the_web() {
    assert_eq!(anchor("What is not, and `why`"), "what-is-not-and-why");
}
