//! The checks of a drill's file: `check` with commands, or a `[[check]]` each with a name and a time-out.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::drill::Check;
use super::file::Reader;
use crate::units::parse_duration;

const KEYS: [&str; 3] = ["name", "command", "timeout"];
/// Letters of a name: it stands on lines of reports.
const NAME_LEN_MAX: usize = 64;

/// What is wrong, and at which byte of the file.
type Wrong = (usize, String);

impl Reader<'_> {
    /// A command, or a list of commands and tables.
    pub(super) fn checks(&mut self, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Array(checks) => {
                for check in checks.iter() {
                    if self.has_enough() {
                        return;
                    }
                    self.check(check);
                }
            }
            _ => self.check(value),
        }
    }

    fn check(&mut self, value: &Spanned<DeValue<'_>>) {
        let found = match value.get_ref() {
            DeValue::String(command) => text(value, "check").map(|_| Check {
                name: None,
                command: command.to_string(),
                timeout: None,
            }),
            DeValue::Table(table) => of_table(table, value.span().start),
            other => Err((
                value.span().start,
                format!("`check`: expected a command or [[check]], not {}", other.type_str()),
            )),
        };
        let is_named =
            |name: &String| self.parsed.checks.iter().any(|(check, _)| check.name.as_ref() == Some(name));
        let found = match found {
            Ok(Check { name: Some(name), .. }) if is_named(&name) => {
                Err((value.span().start, format!("two checks have the name '{name}'")))
            }
            found => found,
        };
        match found {
            Ok(check) => {
                let at = self.at(value.span().start);
                self.parsed.checks.push((check, at));
            }
            Err((offset, what)) => self.fault(offset, what),
        }
    }
}

fn of_table(table: &DeTable<'_>, here: usize) -> Result<Check, Wrong> {
    let (mut name, mut command, mut timeout) = (None, None, None);
    for (key, value) in table.iter() {
        match key.get_ref().as_ref() {
            "name" => name = Some(of_name(value)?),
            "command" => command = Some(text(value, "command")?),
            "timeout" => {
                let time = text(value, "timeout")?;
                let wrong = |why| (value.span().start, format!("`timeout`: {why}"));
                timeout = Some(parse_duration(&time).map_err(wrong)?);
            }
            other => {
                let near = nearest(other).map_or_else(
                    || format!("; expected {}", KEYS.join(", ")),
                    |near| format!("; did you mean `{near}`?"),
                );
                return Err((key.span().start, format!("unknown key `{other}` in a check{near}")));
            }
        }
    }
    let command = command.ok_or_else(|| (here, "a check has a `command`".to_owned()))?;
    Ok(Check { name, command, timeout })
}

fn of_name(value: &Spanned<DeValue<'_>>) -> Result<String, Wrong> {
    let name = text(value, "name")?;
    match name.chars().count() > NAME_LEN_MAX || name.chars().any(char::is_control) {
        true => {
            Err((value.span().start, format!("`name`: expected {NAME_LEN_MAX} letters on one line at most")))
        }
        false => Ok(name),
    }
}

/// One that says something.
fn text(value: &Spanned<DeValue<'_>>, key: &str) -> Result<String, Wrong> {
    let here = value.span().start;
    match value.get_ref() {
        DeValue::String(text) if text.trim().is_empty() => Err((here, format!("`{key}` is empty"))),
        DeValue::String(text) if text.contains('\0') => {
            Err((here, format!("`{key}`: expected no NUL character")))
        }
        DeValue::String(text) => Ok(text.to_string()),
        other => Err((here, format!("`{key}`: expected a text, not {}", other.type_str()))),
    }
}

/// With which it has most letters in common, from the beginning and from the end, and one is lacking or wrong at most.
fn nearest(word: &str) -> Option<&'static str> {
    let alike = |key: &str| {
        let same = |(a, b): &(char, char)| a == b;
        let head = key.chars().zip(word.chars()).take_while(same).count();
        let tail = key.chars().rev().zip(word.chars().rev()).take_while(same).count();
        head + tail + 1 >= key.len().max(word.len())
    };
    KEYS.into_iter().find(|key| alike(key))
}
