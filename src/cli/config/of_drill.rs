//! What a drill is to do, of what was typed and of its file, `drills/NAME.toml`.

use std::fs;
use std::path::PathBuf;

use clap::{ArgMatches, FromArgMatches};

use super::super::args::Common;
use super::super::drill::{self, Run};
use super::definition::{Definition, option_of, plain};
use super::file::{Entry, Parsed, Section};
use super::settle::{Typed, UNTOUCHED, is_typed, merged, read, refused, settings, settle};
use crate::drill::report::FromFile;
use crate::failure::Failure;
use crate::sets::Sets;
use crate::words::{Setting, SettingFrom, is_set_name};

/// `typed`: behind `standin drill run`. A word is the name of a drill where there is such a file, and that of a set
/// otherwise.
pub fn drill(common: &Common, typed: &Typed) -> Result<(Run, Option<FromFile>), Failure> {
    let word = typed.get_one::<PathBuf>("set").and_then(|word| word.to_str());
    let path = word.filter(|word| is_set_name(word)).and_then(|word| Some((word, path(common, word).ok()?)));
    let Some((name, _)) = path.filter(|(_, path)| fs::symlink_metadata(path).is_ok()) else {
        return Run::from_arg_matches(typed).map(|run| (run, None)).map_err(|error| of_clap(&error));
    };
    let Found { run, .. } = found(common, typed, name)?;
    let definition = Definition::drill();
    let options = definition.keys().map(option_of).filter(|option| option != "set");
    let typed = options.filter(|option| is_typed(typed, option)).collect();
    Ok((run, Some(FromFile { name: name.to_owned(), typed })))
}

/// Where the file of a drill is.
pub(super) fn path(common: &Common, name: &str) -> Result<PathBuf, Failure> {
    let path = Sets::of_drills(&common.state_dir()).path(name);
    path.map_err(|error| refused(&format!("{error}."), "Choose another name."))
}

/// The drill that is run by its name alone.
pub fn drill_of_file(common: &Common, name: &str) -> Result<Run, Failure> {
    let typed = Definition::drill().command.try_get_matches_from([name]).map_err(|error| of_clap(&error))?;
    found(common, &typed, name).map(|found| found.run)
}

/// What a drill would be that is run by its name alone, as `standin config show` tells it.
pub(super) fn shown(common: &Common, name: &str) -> Result<Vec<Setting>, Failure> {
    let definition = Definition::drill();
    let typed = definition.command.clone().try_get_matches_from([name]).map_err(|error| of_clap(&error))?;
    let Found { run, matches, parsed } = found(common, &typed, name)?;
    let mut settings = settings(&definition, &typed, &matches, &parsed);
    let of_file = |line: Option<usize>| match line {
        Some(line) => SettingFrom::File { path: parsed.path.clone(), line },
        None => SettingFrom::Default,
    };
    for setting in &mut settings {
        match setting.key.as_str() {
            "set" => setting.from = of_file(parsed.entry("set").map(|entry| entry.at.line)),
            "check" => {
                let words = |check: &drill::Check| match &check.name {
                    Some(name) => format!("{name}: {}", check.command),
                    None => check.command.clone(),
                };
                setting.values = run.named.iter().map(words).collect();
                setting.from = of_file(parsed.checks.first().map(|(_, at)| at.line));
            }
            _ => {}
        }
    }
    Ok(settings)
}

struct Found {
    run: Run,
    matches: ArgMatches,
    parsed: Parsed,
}

fn found(common: &Common, typed: &Typed, name: &str) -> Result<Found, Failure> {
    let definition = Definition::drill();
    let parsed = read(&path(common, name)?, &definition, Section::Drill)?.checked(UNTOUCHED)?;
    let (run, matches) = settle(&parsed, |entries: &[&Entry]| {
        let own = entries.iter().find(|entry| entry.option == "set");
        let set = own.and_then(|entry| entry.words.first()).map_or(name, String::as_str);
        let arguments = merged(&definition, typed, entries, None);
        let arguments = arguments.into_iter().chain(["--".into(), set.into()]);
        let matches = definition.command.clone().try_get_matches_from(arguments);
        let matches = matches.map_err(|error| of_clap(&error))?;
        let mut run = Run::from_arg_matches(&matches).map_err(|error| of_clap(&error))?;
        if run.check.is_empty() {
            run.named = parsed.checks.iter().map(|(check, _)| check.clone()).collect();
        }
        drill::checked(&run)?;
        Ok((run, matches))
    })?;
    Ok(Found { run, matches, parsed })
}

fn of_clap(error: &clap::Error) -> Failure {
    refused(&format!("{}.", plain(error)), "`standin drill run --help` says what there is.")
}
