//! Something that is wrong with a file of options: where, and what.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::failure::Failure;
use crate::limits::FAULT_LEN_MAX;

/// Both from 1 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct At {
    pub line: usize,
    pub column: usize,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    #[serde(flatten)]
    pub at: At,
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.at.line, self.at.column, self.what)
    }
}

/// What a person is told of a file that is wrong.
pub fn bad(path: &Path, faults: &[Fault], untouched: &str) -> Failure {
    let lines: Vec<String> = faults.iter().map(|fault| format!("{}:{fault}", path.display())).collect();
    let next = "Mend the file; `standin config check` says when it is right.";
    Failure::new(lines.join("\n"), untouched, next)
}

/// What somebody wrote, on one line and of a length that can be read, without what a terminal would act upon.
pub(super) fn legible(what: &str) -> String {
    let words = what.split_whitespace().collect::<Vec<_>>().join(" ");
    let plain = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    let text: String = words.chars().take(FAULT_LEN_MAX + 1).map(plain).collect();
    match text.char_indices().nth(FAULT_LEN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
