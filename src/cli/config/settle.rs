//! What counts of what was typed and what stands in the files: the command line on top.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, FromArgMatches};

use super::super::args::{Common, Protect, Serve};
use super::super::{protect, serve};
use super::definition::{self, Definition, as_typed, is_live, key_of, option_of, plain, together};
use super::fault::Fault;
use super::file::{self, Entry, Parsed, Section};
use super::reading;
use crate::failure::Failure;
use crate::preflight::{MountTable, resolve};
use crate::sets::{Rule, Sets};
use crate::target_side::ServeOptions;
use crate::words::{
    Configuration, FileTerms, ProtectOptions, Reread, Setting, SettingFrom, TypedRule, is_set_name,
};

pub(super) const UNTOUCHED: &str = "Nothing was started or changed.";

/// What was typed behind `standin protect` or `standin serve`.
pub type Typed = ArgMatches;

/// What a start of a source is about.
#[derive(Clone, Debug)]
pub struct Meant {
    pub name: String,
    /// Without, it stands in the file.
    pub directory: Option<PathBuf>,
}

/// The options of a source, of what was typed and of the file of its set.
pub fn protect(common: &Common, typed: &Typed) -> Result<ProtectOptions, Failure> {
    let meant = meant(common, typed)?;
    set(common, typed, &meant)
}

/// A word without a `/` is the name of a set, where its file says of which directory; everything else is a directory.
fn meant(common: &Common, typed: &Typed) -> Result<Meant, Failure> {
    let (dir, name) = (typed.get_one::<PathBuf>("dir"), typed.get_one::<String>("name"));
    let Some(dir) = dir else {
        let name = name.cloned().ok_or_else(|| refused("Say what is to be protected.", NO_DIRECTORY))?;
        return Ok(Meant { name, directory: None });
    };
    let word = dir.to_str().filter(|word| is_set_name(word) && name.is_none());
    if let Some(word) = word {
        let parsed = read_set(common, word, UNTOUCHED)?;
        if let Some(own) = parsed.entry("dir").and_then(|entry| entry.words.first()) {
            if dir.is_dir() && real(dir) != real(Path::new(own)) {
                aside!("note: '{word}' is the set of that name, of {own}; the directory here is ./{word}.");
            }
            return Ok(Meant { name: word.to_owned(), directory: None });
        }
        if std::fs::symlink_metadata(dir).is_err() {
            return Err(refused(
                &format!(
                    "There is no directory '{word}' here, and no set of that name whose file has `dir`."
                ),
                &format!("Type a directory, or write `dir = \"/...\"` into {}.", parsed.path.display()),
            ));
        }
    }
    let place = resolve_now(dir)?;
    Ok(Meant { name: protect::set_name(name.cloned(), &place)?, directory: Some(place) })
}

const NO_DIRECTORY: &str = "Type a directory, or the name of a set whose file has `dir`.";

fn real(path: &Path) -> Option<PathBuf> {
    resolve_now(path).ok()
}

fn resolve_now(path: &Path) -> Result<PathBuf, Failure> {
    let found = MountTable::read().and_then(|mounts| resolve(path, &mounts));
    found.map_err(|error| {
        refused(&format!("{} cannot be reached: {error}.", path.display()), "Check the path.")
    })
}

/// Of what is meant: a start, and whenever the files are read anew.
pub fn set(common: &Common, typed: &Typed, meant: &Meant) -> Result<ProtectOptions, Failure> {
    let definition = Definition::protect();
    let parsed = read_set(common, &meant.name, UNTOUCHED)?;
    let terms = terms(&definition, &parsed)?;
    must_be_the_same(meant, &parsed)?;
    let attempt = |entries: &[&Entry]| {
        let arguments = merged(&definition, typed, entries, Some(&meant.name));
        let dir = meant.directory.clone().map(PathBuf::into_os_string).or_else(|| {
            let own =
                parsed.entry("dir").filter(|own| entries.iter().any(|entry| entry.option == own.option));
            own.map(|entry| entry.words[0].clone().into())
        });
        let arguments = arguments.into_iter().chain(dir.into_iter().flat_map(|dir| ["--".into(), dir]));
        let matches = definition.command.clone().try_get_matches_from(arguments);
        let matches = matches.map_err(|error| refused(&format!("{}.", plain(&error)), NO_DIRECTORY))?;
        let args = Protect::from_arg_matches(&matches)
            .map_err(|error| refused(&format!("{}.", plain(&error)), NO_DIRECTORY))?;
        protect::options(common, args).map(|options| (options, matches))
    };
    let (mut options, matches) = settle(&parsed, attempt)?;
    // What only the file says is the file's: it may say otherwise tomorrow.
    let is_typed = |option: &str| is_typed(typed, option);
    let typed_together = |option| together(option).iter().any(|option| is_typed(option));
    options.deletes = options.deletes.filter(|_| typed_together("keep-deleted"));
    options.verify = options.verify.filter(|_| is_typed("verify-every"));
    options.schedule = options.schedule.filter(|_| is_typed("schedule"));
    options.limit = options.limit.filter(|_| is_typed("limit"));
    options.compression = options.compression.filter(|_| is_typed("compression"));
    let mut settings = settings(&definition, typed, &matches, &parsed);
    settings.push(rules(&options.rules, &parsed));
    let (common, typed, meant) = (common.clone(), typed.clone(), meant.clone());
    options.configuration = Configuration {
        file: Some(parsed.path.clone()),
        is_there: parsed.is_there,
        settings,
        terms,
        reread: Some(Reread(Arc::new(move || set(&common, &typed, &meant).map(|found| found.configuration)))),
    };
    Ok(options)
}

/// The file of a set, without a fault; an empty one where there is none.
fn read_set(common: &Common, name: &str, untouched: &str) -> Result<Parsed, Failure> {
    let path = Sets::of(&common.state_dir()).path(name);
    let path = path.map_err(|error| refused(&format!("{error}."), "Choose another name."))?;
    read(&path, &Definition::protect(), Section::Whole)?.checked(untouched)
}

/// Errors: it cannot be read at all.
pub fn read(path: &Path, definition: &Definition, section: Section) -> Result<Parsed, Failure> {
    match reading::read(path) {
        Ok(Some(text)) => Ok(file::parse(path, &text, definition, section)),
        Ok(None) => Ok(Parsed { path: path.to_owned(), ..Parsed::default() }),
        Err(why) => Err(Failure::new(
            format!("{} is not read: {why}.", path.display()),
            UNTOUCHED,
            "Mend this, or take the file away.",
        )),
    }
}

/// A directory that is typed is the one that the file of the set names.
fn must_be_the_same(meant: &Meant, parsed: &Parsed) -> Result<(), Failure> {
    let (Some(typed), Some(entry)) = (&meant.directory, parsed.entry("dir")) else { return Ok(()) };
    let own = Path::new(&entry.words[0]);
    if real(own).as_ref() == Some(typed) {
        return Ok(());
    }
    Err(refused(
        &format!(
            "{}:{}: the set '{}' is of {}, not of {}.",
            parsed.path.display(),
            entry.at.line,
            meant.name,
            own.display(),
            typed.display()
        ),
        "Type another name with --name, or mend the file.",
    ))
}

/// What the file alone says of that which can change later.
pub fn terms(definition: &Definition, parsed: &Parsed) -> Result<FileTerms, Failure> {
    let live: Vec<Entry> = parsed.entries.iter().filter(|entry| is_live(&entry.option)).cloned().collect();
    let attempt = |entries: &[&Entry]| -> Result<FileTerms, Failure> {
        let entries = entries.iter().filter(|entry| is_live(&entry.option));
        let arguments = entries.flat_map(|entry| words(definition, entry));
        let arguments = arguments.chain(["--".into(), "/".into()]);
        let of_clap = |error: clap::Error| refused(&format!("{}.", plain(&error)), "");
        let matches = definition.command.clone().try_get_matches_from(arguments).map_err(of_clap)?;
        let args = Protect::from_arg_matches(&matches).map_err(of_clap)?;
        Ok(FileTerms {
            rules: parsed.rules.iter().map(|(rule, _)| protect::typed(rule)).collect(),
            deletes: protect::deletes(&args)?,
            verify: protect::verify_plan(&args)?,
            schedule: args.schedule,
            limit: args.limit,
            compression: args.compression,
        })
    };
    settle(&Parsed { path: parsed.path.clone(), entries: live, ..Parsed::default() }, attempt)
}

/// What comes of all entries of a file.
///
/// Errors: with the line of the one without which it would go, where there is one.
pub(super) fn settle<T>(
    parsed: &Parsed,
    attempt: impl Fn(&[&Entry]) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let all: Vec<&Entry> = parsed.entries.iter().collect();
    let failure = match attempt(&all) {
        Ok(settled) => return Ok(settled),
        Err(failure) => failure,
    };
    let goes_without = |without: &&&Entry| {
        let others: Vec<&Entry> =
            all.iter().filter(|entry| entry.option != without.option).copied().collect();
        attempt(&others).is_ok()
    };
    // Where it takes several: the one with which it begins to go wrong.
    let begins = || {
        let upto = |end: &usize| attempt(&all[..*end]).err().is_some_and(|found| found.what == failure.what);
        (1..=all.len()).find(upto).map(|end| &all[end - 1])
    };
    match all.iter().find(goes_without).or_else(begins) {
        Some(entry) => {
            let fault = Fault { at: entry.at, what: failure.what.trim_end_matches('.').to_owned() };
            let what = format!("{}:{fault}.", parsed.path.display());
            let next = format!("{} `standin config check` says when the file is right.", failure.next);
            Err(Failure::new(what, failure.untouched, next.trim_start()))
        }
        None => Err(failure),
    }
}

/// What would be typed for what counts: of the file what was not typed, and what was.
pub(super) fn merged(
    definition: &Definition,
    typed: &Typed,
    entries: &[&Entry],
    name: Option<&str>,
) -> Vec<OsString> {
    let counts = |entry: &&&Entry| {
        let group = together(&entry.option);
        !is_typed(typed, &entry.option) && !group.iter().any(|option| is_typed(typed, option))
    };
    let mut arguments: Vec<OsString> =
        entries.iter().filter(counts).flat_map(|entry| words(definition, entry)).collect();
    let name = name.map(|name| OsString::from(format!("--name={name}")));
    let is_of_file = name.is_some();
    arguments.extend(name);
    let mut given: Vec<(usize, OsString)> = Vec::new();
    for arg in definition.command.get_arguments().filter(|arg| !arg.is_positional()) {
        let (id, option) = (arg.get_id().as_str(), option_of(arg));
        if !is_typed(typed, &option) || (is_of_file && option == "name") {
            continue;
        }
        let values: Vec<&OsStr> = typed.get_raw(id).into_iter().flatten().collect();
        let places = typed.indices_of(id).into_iter().flatten();
        given.extend(places.zip(values).map(|(at, value)| (at, as_typed(arg, &[value]).remove(0))));
    }
    given.sort_by_key(|(at, _)| *at);
    arguments.extend(given.into_iter().map(|(_, word)| word));
    arguments
}

fn words(definition: &Definition, entry: &Entry) -> Vec<OsString> {
    match definition.arg(&entry.option) {
        Some(arg) if !arg.is_positional() => as_typed(arg, &entry.words),
        Some(_) | None => Vec::new(),
    }
}

/// `option`: as on the command line.
pub(super) fn is_typed(typed: &Typed, option: &str) -> bool {
    let id = option.replace('-', "_");
    // `try_`: of an option that this command lacks nothing was typed.
    let is_there = typed.try_contains_id(&id).unwrap_or(false);
    is_there && typed.value_source(&id) == Some(ValueSource::CommandLine)
}

/// Every option that may stand in a file, and what it is.
pub(super) fn settings(
    definition: &Definition,
    typed: &Typed,
    matches: &ArgMatches,
    parsed: &Parsed,
) -> Vec<Setting> {
    let one = |arg: &Arg| {
        let (option, id) = (option_of(arg), arg.get_id().as_str());
        let is_typed = is_typed(typed, &option);
        let values: Vec<&OsStr> = matches.get_raw(id).into_iter().flatten().collect();
        let counts = matches.value_source(id) == Some(ValueSource::CommandLine);
        let from = match parsed.entry(&option) {
            _ if is_typed && option != "dir" => SettingFrom::CommandLine,
            Some(entry) if counts || definition::is_flag(arg) => {
                SettingFrom::File { path: parsed.path.clone(), line: entry.at.line }
            }
            Some(_) | None if counts => SettingFrom::CommandLine,
            Some(_) | None => SettingFrom::Default,
        };
        let values = values.iter().map(|value| value.to_string_lossy().into_owned());
        Setting { key: key_of(arg), values: values.collect(), from, live: is_live(&option) }
    };
    definition.keys().map(one).collect()
}

/// Those of the file, and behind them what was typed.
fn rules(typed: &[TypedRule], parsed: &Parsed) -> Setting {
    let typed = typed.iter().map(Rule::from);
    let values = parsed.rules.iter().map(|(rule, _)| rule.clone()).chain(typed);
    let values: Vec<String> = values.map(|rule| rule.to_string()).collect();
    let from = match parsed.rules.first() {
        Some((_, line)) => SettingFrom::File { path: parsed.path.clone(), line: *line },
        None if values.is_empty() => SettingFrom::Default,
        None => SettingFrom::CommandLine,
    };
    Setting { key: "rule".into(), values, from, live: true }
}

/// The file of target daemons.
pub fn serve_path(common: &Common) -> PathBuf {
    common.state_dir().join("standin.toml")
}

/// The table of it that is a target daemon's.
pub const SERVE: Section = Section::Table("serve");

/// The options of a target daemon, of what was typed and of its file.
pub fn serve(common: &Common, typed: &Typed) -> Result<ServeOptions, Failure> {
    let mounts = MountTable::read().map_err(|error| {
        refused(&format!("/proc/self/mountinfo cannot be read: {error}."), "Check /proc.")
    })?;
    target(common, typed, &Arc::new(mounts))
}

fn target(common: &Common, typed: &Typed, mounts: &Arc<MountTable>) -> Result<ServeOptions, Failure> {
    let definition = Definition::serve();
    let path = serve_path(common);
    let parsed = read(&path, &definition, SERVE)?.checked(UNTOUCHED)?;
    let attempt = |entries: &[&Entry]| {
        let of_clap = |error: clap::Error| refused(&format!("{}.", plain(&error)), "");
        let arguments = merged(&definition, typed, entries, None);
        let matches = definition.command.clone().try_get_matches_from(arguments).map_err(of_clap)?;
        let args = Serve::from_arg_matches(&matches).map_err(of_clap)?;
        serve::options(common, args, mounts).map(|options| (options, matches))
    };
    let (mut options, matches) = settle(&parsed, attempt)?;
    let (again, mounts) = ((common.clone(), typed.clone()), mounts.clone());
    let reread = move || target(&again.0, &again.1, &mounts).map(|found| found.configuration);
    options.configuration = Configuration {
        file: Some(path),
        is_there: parsed.is_there,
        // Of a target nothing changes while it runs.
        settings: settings(&definition, typed, &matches, &parsed),
        terms: FileTerms::default(),
        reread: Some(Reread(Arc::new(reread))),
    };
    Ok(options)
}

pub(super) fn refused(what: &str, next: &str) -> Failure {
    Failure::new(what, UNTOUCHED, next)
}
