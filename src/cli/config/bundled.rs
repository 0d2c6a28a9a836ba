//! Options for a bundle that is handed on: what they are, without what is nobody else's.

use clap::Arg;
use serde::Serialize;

use super::commands::{Known, Of, Shown, known};
use super::definition::{Definition, is_flag, key_of};
use crate::cli::args::Common;
use crate::words::{Setting, SettingFrom};

/// Values of these are sizes, times and choices, whoever typed them.
const HARMLESS: [&str; 11] =
    ["DAYS", "HH:MM", "KINDS", "LEVEL", "N", "PERCENT", "PERCENT|off", "PLAN", "RATE|RULES", "SIZE", "T"];

/// Values of these are run by a shell: keys of other services may stand in them.
const COMMAND: &str = "COMMAND";

/// The options of a daemon, or a drill.
#[derive(Serialize)]
pub struct Options {
    name: String,
    file: String,
    running: bool,
    differs: Vec<String>,
    settings: Vec<One>,
}

#[derive(Serialize)]
struct One {
    key: String,
    /// What may be shown.
    values: Vec<String>,
    /// So many more.
    withheld: usize,
    from: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    live: bool,
}

/// Of all files that there are, and what is wrong with others. `names`: with what may name something.
pub fn options(common: &Common, names: bool) -> (Vec<Options>, Vec<String>) {
    let files = match known(common, None) {
        Ok(files) => files,
        Err(failure) => return (Vec::new(), vec![failure.what]),
    };
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for file in &files {
        match Shown::of(common, file) {
            Ok(shown) => found.push(of_file(file, shown, names)),
            Err(failure) => problems.push(failure.what),
        }
    }
    (found, problems)
}

fn of_file(file: &Known, shown: Shown, names: bool) -> Options {
    let definition = match file.of {
        Of::Serve => Definition::serve(),
        Of::Set => Definition::protect(),
        Of::Drill => Definition::drill(),
    };
    let Shown { name, file, running, differs, settings } = shown;
    let settings = settings.into_iter().map(|setting| one(&definition, setting, names)).collect();
    Options { name, file, running, differs, settings }
}

fn one(definition: &Definition, setting: Setting, names: bool) -> One {
    let Setting { key, values, from, live } = setting;
    let arg = definition.keys().find(|arg| key_of(arg) == key);
    let all = values.len();
    let is_shown = |value: &String| match arg {
        Some(arg) => is_shown(arg, value, names),
        // Rules; the checks of a drill are commands.
        None => names && key == "rule",
    };
    let values: Vec<String> = values.into_iter().filter(is_shown).collect();
    let (from, line) = match from {
        SettingFrom::Default => ("default", None),
        SettingFrom::File { line, .. } => ("file", Some(line)),
        SettingFrom::CommandLine => ("command_line", None),
    };
    One { withheld: all - values.len(), key, values, from, line, live }
}

fn is_shown(arg: &Arg, value: &str, names: bool) -> bool {
    let is_called = |word: &str| arg.get_value_names().unwrap_or_default().iter().any(|name| name == word);
    if is_called(COMMAND) {
        return false;
    }
    let is_choice = arg.get_possible_values().iter().any(|choice| choice.matches(value, false));
    names || is_flag(arg) || is_choice || HARMLESS.iter().any(|word| is_called(word))
}
