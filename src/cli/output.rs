//! Printing. A reader that has gone (`standin status | head -1`) is no error.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::json;

use crate::failure::Failure;

pub(super) fn text(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{}", text.trim_end_matches('\n')).and_then(|()| out.flush());
}

/// For whoever watches on standard error, if somebody does: one that is closed or full ends nothing.
pub(super) fn aside(what: &str) {
    let _ = writeln!(io::stderr(), "standin: {what}");
}

/// Of all JSON documents together; the next one when a field goes away or changes its meaning.
const FORMAT: u32 = 1;

/// A document as it is printed: what its fields mean stands before them.
#[derive(Serialize)]
pub(super) struct Printed<T: Serialize> {
    format: u32,
    #[serde(flatten)]
    document: T,
}

impl<T: Serialize> Printed<T> {
    /// `document`: an object.
    pub(super) fn new(document: T) -> Printed<T> {
        Printed { format: FORMAT, document }
    }
}

/// One JSON document, an object, on one line.
pub(super) fn json(document: &impl Serialize) {
    match serde_json::to_string(&Printed::new(document)) {
        Ok(line) => text(&line),
        Err(error) => eprintln!("standin: the answer cannot be written as JSON: {error}"),
    }
}

/// On standard error; as JSON on standard output, where a script looks for it.
pub(super) fn failure(failure: &Failure, as_json: bool) {
    if as_json {
        json(&json!({ "error": failure }));
    } else {
        let _ = writeln!(io::stderr(), "standin: {failure}");
    }
}
