//! A file of options, read as a whole: what stands in it, where, and everything that is wrong with it.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::drill::Check;
use super::definition::{self, Definition, Place};
use super::fault::{At, Fault, bad, legible};
use crate::failure::Failure;
use crate::limits::FAULTS_MAX;
use crate::sets::{Matcher, Rule, Rules};

/// What a file says.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    pub path: PathBuf,
    /// There is such a file.
    pub is_there: bool,
    pub entries: Vec<Entry>,
    pub rules: Vec<(Rule, usize)>,
    /// Of a drill, in order, and where each stands.
    pub checks: Vec<(Check, At)>,
    /// In the order in which they stand.
    pub faults: Vec<Fault>,
}

/// An option that is set.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name on the command line.
    pub option: String,
    pub at: At,
    /// None: a flag that is off.
    pub words: Vec<String>,
}

/// Which part of a file holds the options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// All of it: the file of a set.
    Whole,
    /// All of it: the file of a drill.
    Drill,
    /// The table of this name: `standin.toml`.
    Table(&'static str),
    /// The table of this name in the file of a set, whatever else is in it.
    Inside(&'static str),
}

impl Parsed {
    pub fn entry(&self, option: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.option == option)
    }

    /// Errors: all that is wrong, with lines and columns.
    pub fn checked(self, untouched: &str) -> Result<Parsed, Failure> {
        match self.faults.is_empty() {
            true => Ok(self),
            false => Err(bad(&self.path, &self.faults, untouched)),
        }
    }
}

/// What a text says.
pub fn parse(path: &Path, text: &str, definition: &Definition, section: Section) -> Parsed {
    let (document, errors) = DeTable::parse_recoverable(text);
    let parsed = Parsed { path: path.to_owned(), is_there: true, ..Parsed::default() };
    let mut reader = Reader { text, lines: starts(text), definition, parsed };
    for error in errors {
        if reader.has_enough() {
            break;
        }
        let at = error.span().map_or(0, |span| span.start);
        reader.fault(at, error.message());
    }
    match section {
        Section::Whole | Section::Drill => reader.options(document.get_ref(), section),
        Section::Table(name) => reader.table(document.get_ref(), name),
        Section::Inside(name) => reader.inside(document.get_ref(), name),
    }
    reader.parsed.faults.sort_by_key(|fault| fault.at);
    if reader.has_enough()
        && let Some(last) = reader.parsed.faults.last().map(|last| last.at)
    {
        let what = format!("more may be wrong: no more than {FAULTS_MAX} faults are looked for");
        reader.parsed.faults.push(Fault { at: last, what });
    }
    reader.parsed
}

/// Where each line begins.
fn starts(text: &str) -> Vec<usize> {
    let behind = text.match_indices('\n').map(|(end, _)| end + 1);
    std::iter::once(0).chain(behind).collect()
}

pub(super) struct Reader<'a> {
    text: &'a str,
    /// Where each begins.
    lines: Vec<usize>,
    definition: &'a Definition,
    pub(super) parsed: Parsed,
}

/// The table of a set's monitor.
pub const MONITOR: &str = "monitor";

/// Tables that stand for several options: what is in them, and the option that it is.
const TABLES: [(&str, &[(&str, &str)]); 2] = [
    ("verify", &[("every", "verify-every"), ("at", "verify-at"), ("mode", "verify-mode")]),
    ("keep-deleted", &[("dir", "keep-deleted"), ("days", "keep-days")]),
];

impl Reader<'_> {
    pub(super) fn at(&self, offset: usize) -> At {
        let boundary = (0..=offset.min(self.text.len())).rev().find(|at| self.text.is_char_boundary(*at));
        let at = boundary.unwrap_or_default();
        let line = self.lines.partition_point(|start| *start <= at);
        At { line, column: self.text[self.lines[line - 1]..at].chars().count() + 1 }
    }

    pub(super) fn fault(&mut self, offset: usize, what: impl AsRef<str>) {
        if !self.has_enough() {
            let fault = Fault { at: self.at(offset), what: legible(what.as_ref()) };
            self.parsed.faults.push(fault);
        }
    }

    /// Nobody mends more at once, and each costs time.
    pub(super) fn has_enough(&self) -> bool {
        self.parsed.faults.len() >= FAULTS_MAX
    }

    /// `standin.toml`: one table for each daemon.
    fn table(&mut self, document: &DeTable<'_>, name: &'static str) {
        for (key, value) in document.iter() {
            if self.has_enough() {
                return;
            }
            match value.get_ref() {
                DeValue::Table(table) if key.get_ref().as_ref() == name => {
                    self.options(table, Section::Inside(name))
                }
                _ if key.get_ref().as_ref() == name => {
                    let what = format!("`{name}` is a table: write [{name}]");
                    self.fault(value.span().start, what);
                }
                _ => {
                    let what = match self.definition.place(key.get_ref()) {
                        Place::Key(_) => format!("`{}` stands below [{name}]", key.get_ref()),
                        Place::Refused(why) => format!("`{}` does not stand in a file: {why}", key.get_ref()),
                        Place::Unknown(_) => format!("unknown key `{}`; expected [{name}]", key.get_ref()),
                    };
                    self.fault(key.span().start, what);
                }
            }
        }
    }

    /// One table of several.
    fn inside(&mut self, document: &DeTable<'_>, name: &'static str) {
        for (key, value) in document.iter().filter(|(key, _)| key.get_ref().as_ref() == name) {
            match value.get_ref() {
                DeValue::Table(table) => self.options(table, Section::Inside(name)),
                _ => self.fault(key.span().start, format!("`{name}` is a table: write [{name}]")),
            }
        }
    }

    /// What a monitor reads; here it is only looked at.
    fn of_monitor(&mut self, document: &DeTable<'_>) {
        let definition = Definition::monitor();
        let parsed = Parsed::default();
        let mut reader =
            Reader { text: self.text, lines: self.lines.clone(), definition: &definition, parsed };
        reader.inside(document, MONITOR);
        self.parsed.faults.extend(reader.parsed.faults);
    }

    fn options(&mut self, table: &DeTable<'_>, section: Section) {
        let (document, is_set) = (table, section == Section::Whole);
        let mut options: Vec<_> = table.iter().collect();
        options.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in options {
            if self.has_enough() {
                return;
            }
            let (name, option) = (key.get_ref().as_ref(), key.get_ref().replace('_', "-"));
            let table = TABLES.iter().find(|(table, _)| *table == option).map(|(_, below)| *below);
            match (value.get_ref(), table) {
                _ if is_set && option == "rule" => self.rules(value),
                _ if section == Section::Drill && option == "check" => self.checks(value),
                _ if is_set && option == MONITOR => self.of_monitor(document),
                (DeValue::Table(inner), Some(below)) if is_set => self.below(name, inner, below),
                (_, Some(below)) if is_set && option == "verify" => {
                    let keys: Vec<&str> = below.iter().map(|(key, _)| *key).collect();
                    let what = format!("`{name}`: expected a table with {}", keys.join(", "));
                    self.fault(value.span().start, what);
                }
                _ => self.option(name, key.span().start, value),
            }
        }
    }

    /// A table that stands for several options.
    fn below(&mut self, name: &str, table: &DeTable<'_>, below: &[(&str, &str)]) {
        let mut keys: Vec<_> = table.iter().collect();
        keys.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in keys {
            match below.iter().find(|(known, _)| *known == key.get_ref().as_ref()) {
                Some((_, option)) => self.option(option, key.span().start, value),
                None => {
                    let known: Vec<&str> = below.iter().map(|(known, _)| *known).collect();
                    let what =
                        format!("unknown key `{}` in `{name}`; expected {}", key.get_ref(), known.join(", "));
                    self.fault(key.span().start, what);
                }
            }
        }
    }

    fn option(&mut self, key: &str, offset: usize, value: &Spanned<DeValue<'_>>) {
        let arg = match self.definition.place(key) {
            Place::Key(arg) => arg,
            Place::Refused(why) => {
                return self.fault(offset, format!("`{key}` does not stand in a file: {why}"));
            }
            Place::Unknown(near) => {
                let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                return self.fault(offset, format!("unknown key `{key}`{near}"));
            }
        };
        let option = definition::option_of(arg);
        if let Some(first) = self.parsed.entry(&option) {
            let what = format!("`{key}` is said twice: line {} says it, too", first.at.line);
            return self.fault(offset, what);
        }
        let words = match words(arg, value.get_ref()) {
            Ok(words) => words,
            Err(expected) => {
                let found = value.get_ref().type_str();
                return self.fault(value.span().start, format!("`{key}`: expected {expected}, not {found}"));
            }
        };
        let relative = words.iter().find(|word| !definition::is_absolute(arg, word));
        let checked = match relative {
            Some(word) => Err(format!("expected an absolute path, not '{word}'")),
            None if words.iter().any(|word| word.contains('\0')) => {
                Err("expected no NUL character".to_owned())
            }
            None => self.definition.check(arg, &words),
        };
        match checked {
            Ok(()) => {
                let at = self.at(value.span().start);
                self.parsed.entries.push(Entry { option, at, words });
            }
            Err(why) => self.fault(value.span().start, format!("`{key}`: {why}")),
        }
    }

    fn rules(&mut self, value: &Spanned<DeValue<'_>>) {
        let DeValue::Array(rules) = value.get_ref() else {
            let found = value.get_ref().type_str();
            return self.fault(value.span().start, format!("`rule`: expected [[rule]], not {found}"));
        };
        for rule in rules.iter() {
            if self.has_enough() {
                return;
            }
            match self.rule(rule) {
                Ok(found) => {
                    let line = self.at(rule.span().start).line;
                    self.parsed.rules.push((found, line));
                }
                Err((offset, what)) => self.fault(offset, what),
            }
        }
        let rules = Rules(self.parsed.rules.iter().map(|(rule, _)| rule.clone()).collect());
        if let Err(bad) = Matcher::new(&rules) {
            self.fault(value.span().start, bad.to_string());
        }
    }

    /// Errors: what is wrong, and where.
    fn rule(&self, rule: &Spanned<DeValue<'_>>) -> Result<Rule, (usize, String)> {
        let here = rule.span().start;
        let DeValue::Table(table) = rule.get_ref() else {
            return Err((here, format!("`rule`: expected [[rule]], not {}", rule.get_ref().type_str())));
        };
        let (mut pattern, mut recursive) = (None, true);
        for (key, value) in table.iter() {
            let offset = value.span().start;
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("include" | "exclude", DeValue::String(_)) if pattern.is_some() => {
                    return Err((here, "a rule has either `include` or `exclude`".to_owned()));
                }
                ("include", DeValue::String(text)) => pattern = Some((true, text.to_string(), offset)),
                ("exclude", DeValue::String(text)) => pattern = Some((false, text.to_string(), offset)),
                ("recursive", DeValue::Boolean(value)) => recursive = *value,
                (key @ ("include" | "exclude"), other) => {
                    return Err((offset, format!("`{key}`: expected a text, not {}", other.type_str())));
                }
                ("recursive", other) => {
                    let what = format!("`recursive`: expected true or false, not {}", other.type_str());
                    return Err((offset, what));
                }
                (other, _) => {
                    let what =
                        format!("unknown key `{other}` in a rule; expected include, exclude, recursive");
                    return Err((key.span().start, what));
                }
            }
        }
        let Some((includes, pattern, offset)) = pattern else {
            return Err((here, "a rule has either `include` or `exclude`".to_owned()));
        };
        let rule = Rule { includes, pattern, is_recursive: recursive };
        match Matcher::new(&Rules(vec![rule.clone()])) {
            Ok(_) => Ok(rule),
            Err(bad) => Err((offset, bad.to_string())),
        }
    }
}

/// What would be typed for a value.
///
/// Errors: what is expected in its place.
fn words(arg: &clap::Arg, value: &DeValue<'_>) -> Result<Vec<String>, &'static str> {
    let one = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        _ => None,
    };
    match value {
        DeValue::Boolean(is_on) if definition::is_flag(arg) => {
            Ok(is_on.then(|| "true".to_owned()).into_iter().collect())
        }
        _ if definition::is_flag(arg) => Err("true or false"),
        DeValue::Array(values) if definition::is_list(arg) => {
            values.iter().map(|value| one(value.get_ref())).collect::<Option<_>>().ok_or("a list of texts")
        }
        _ if definition::is_list(arg) => one(value).map(|word| vec![word]).ok_or("a text or a list of texts"),
        _ => one(value).map(|word| vec![word]).ok_or("a text"),
    }
}
