//! `standin config check|show|diff` and `standin reload`.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;

use super::super::args::Common;
use super::super::find::{find, no_answer};
use super::super::{Outcome, TIMED_OUT, output};
use super::definition::Definition;
use super::fault::Fault;
use super::file::Section;
use super::settle::{self, Meant, SERVE, UNTOUCHED, serve_path};
use super::{Config, ConfigCommand, Reload, of_drill};
use crate::control::{Client, ClientError, ConfigurationReport, values_text};
use crate::failure::Failure;
use crate::sets::Sets;
use crate::words::{Setting, SettingFrom, socket_path};

/// The name of `standin.toml` among those of sets.
const SERVE_NAME: &str = "serve";

pub fn run(common: &Common, args: &Config) -> Outcome {
    match &args.command {
        ConfigCommand::Check { name } => check(common, name.as_deref()),
        ConfigCommand::Show { name } => show(common, name.as_deref()),
        ConfigCommand::Diff { name } => diff(common, name.as_deref()),
    }
}

/// A file that there is, or could be.
pub(super) struct Known {
    name: String,
    path: PathBuf,
    pub(super) of: Of,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Serve,
    Set,
    Drill,
}

/// Those of this name, or all that there are.
pub(super) fn known(common: &Common, name: Option<&str>) -> Result<Vec<Known>, Failure> {
    let (sets, drills) = (Sets::of(&common.state_dir()), Sets::of_drills(&common.state_dir()));
    let names = sets.names().map_err(|error| failed(&error))?;
    let serve = || Known { name: SERVE_NAME.into(), path: serve_path(common), of: Of::Serve };
    let set = |name: &String| {
        let path = sets.path(name).map_err(|error| failed(&error))?;
        Ok(Known { name: name.clone(), path, of: Of::Set })
    };
    let drill = |name: String| {
        let path = drills.path(&name).map_err(|error| failed(&error))?;
        Ok(Known { name, path, of: Of::Drill })
    };
    let of_drills = drills.names().map_err(|error| failed(&error))?;
    let of_drills: Vec<Known> = of_drills.into_iter().map(drill).collect::<Result<_, Failure>>()?;
    let mut all = match name {
        Some(SERVE_NAME) if !names.iter().any(|name| name == SERVE_NAME) => vec![serve()],
        Some(name) if of_drills.iter().any(|drill| drill.name == name) => {
            let own: Vec<&String> = names.iter().filter(|own| *own == name).collect();
            own.into_iter().map(set).collect::<Result<_, Failure>>()?
        }
        Some(name) => vec![set(&name.to_owned())?],
        None => names.iter().map(set).collect::<Result<_, Failure>>()?,
    };
    if name.is_none() && fs::symlink_metadata(serve_path(common)).is_ok() {
        all.insert(0, serve());
    }
    all.extend(of_drills.into_iter().filter(|drill| name.is_none_or(|name| drill.name == name)));
    Ok(all)
}

fn failed(error: &crate::sets::SetError) -> Failure {
    Failure::new(format!("{error}."), UNTOUCHED, "")
}

/// What was typed where nothing was but these.
fn only(definition: &Definition, options: &[String]) -> settle::Typed {
    let typed = definition.command.clone().try_get_matches_from(options);
    typed.expect("with these the command is whole")
}

impl Known {
    /// What its options are when it is started by its name.
    ///
    /// Errors: what is wrong.
    fn settings(&self, common: &Common) -> Result<Vec<Setting>, Failure> {
        match self.of {
            Of::Serve => {
                let nothing = only(&Definition::serve(), &[]);
                settle::serve(common, &nothing).map(|found| found.configuration.settings)
            }
            Of::Set => self.of_set(common),
            Of::Drill => of_drill::shown(common, &self.name),
        }
    }

    fn of_set(&self, common: &Common) -> Result<Vec<Setting>, Failure> {
        let definition = Definition::protect();
        let parsed = settle::read(&self.path, &definition, Section::Whole)?.checked(UNTOUCHED)?;
        // Without one in the file it is typed; which it is changes nothing of the rest.
        let directory = parsed.entry("dir").is_none().then(|| PathBuf::from("/"));
        let is_typed = directory.is_some();
        let typed = only(&definition, &[format!("--name={}", self.name)]);
        let meant = Meant { name: self.name.clone(), directory };
        let mut settings = settle::set(common, &typed, &meant)?.configuration.settings;
        if let Some(dir) = settings.iter_mut().find(|setting| is_typed && setting.key == "dir") {
            (dir.values, dir.from) = (Vec::new(), SettingFrom::Default);
        }
        Ok(settings)
    }
}

/// A file and what is wrong with it.
#[derive(Serialize)]
struct Checked {
    name: String,
    file: String,
    /// Whether it is there.
    exists: bool,
    good: bool,
    errors: Vec<Fault>,
    /// What is wrong with all of it together.
    problem: Option<String>,
}

fn check(common: &Common, name: Option<&str>) -> Outcome {
    let files = known(common, name)?;
    if let (Some(name), [only]) = (name, files.as_slice())
        && fs::symlink_metadata(&only.path).is_err()
    {
        return Err(Failure::new(
            format!("There is no file {} that says anything of '{name}'.", only.path.display()),
            UNTOUCHED,
            "Write it, or name another set or drill.",
        ));
    }
    let mut checked: Vec<Checked> = files.iter().map(|file| file.check(common)).collect();
    if name.is_none() {
        checked.extend(strays(common)?);
    }
    let is_good = checked.iter().all(|checked| checked.good);
    match common.json {
        true => output::json(&json!({ "good": is_good, "files": checked })),
        false if checked.is_empty() => {
            output::text(&format!("There is no file of options in {}.", common.state_dir().display()));
        }
        false => output::text(&checked.iter().map(Checked::text).collect::<Vec<_>>().join("\n")),
    }
    Ok(if is_good { 0 } else { super::super::CANNOT })
}

/// Files that nothing reads, and that look as if something did.
fn strays(common: &Common) -> Result<Vec<Checked>, Failure> {
    let (state, mut found) = (common.state_dir(), Vec::new());
    for (files, of) in [(Sets::of(&state), "set"), (Sets::of_drills(&state), "drill")] {
        let strays = files.strays().map_err(|error| failed(&error))?;
        found.extend(strays.iter().map(|path| Checked::stray(path, of)));
    }
    Ok(found)
}

/// How many files of options there are, and what is wrong with which.
pub(in crate::cli) fn faults(common: &Common) -> Result<(usize, Vec<String>), Failure> {
    let mut checked: Vec<Checked> = known(common, None)?.iter().map(|file| file.check(common)).collect();
    checked.extend(strays(common)?);
    let faults = checked.iter().filter(|checked| !checked.good).map(Checked::text);
    Ok((checked.len(), faults.collect()))
}

impl Known {
    fn check(&self, common: &Common) -> Checked {
        let (definition, section) = match self.of {
            Of::Serve => (Definition::serve(), SERVE),
            Of::Set => (Definition::protect(), Section::Whole),
            Of::Drill => (Definition::drill(), Section::Drill),
        };
        let (errors, problem) = match settle::read(&self.path, &definition, section) {
            Err(failure) => (Vec::new(), Some(failure.what)),
            Ok(parsed) if !parsed.faults.is_empty() => (parsed.faults, None),
            Ok(_) => (Vec::new(), self.settings(common).err().map(|failure| failure.what)),
        };
        Checked {
            name: self.name.clone(),
            file: self.path.display().to_string(),
            exists: self.path.exists(),
            good: errors.is_empty() && problem.is_none(),
            errors,
            problem,
        }
    }
}

impl Checked {
    /// A file that nothing reads, and looks as if something did.
    fn stray(path: &Path, of: &str) -> Checked {
        let file = path.display().to_string();
        let why = format!(
            "it is the file of no {of}: a name has letters, digits and - _ . @ +, and .toml behind it"
        );
        let problem = Some(format!("{}: {why}.", file.escape_debug()));
        Checked { name: String::new(), file, exists: true, good: false, errors: Vec::new(), problem }
    }

    fn text(&self) -> String {
        let faults = self.errors.iter().map(|fault| format!("{}:{fault}", self.file));
        let lines: Vec<String> = faults.chain(self.problem.clone()).collect();
        match lines.is_empty() {
            true => format!("{}: good", self.file),
            false => lines.join("\n"),
        }
    }
}

fn show(common: &Common, name: Option<&str>) -> Outcome {
    let files = known(common, name)?;
    let mut shown = Vec::new();
    for file in &files {
        shown.push(Shown::of(common, file)?);
    }
    match common.json {
        true => output::json(&json!({ "configurations": shown })),
        false if shown.is_empty() => output::text(&format!(
            "There is no file of options in {}. `standin config show NAME` shows what is so without one.",
            common.state_dir().display()
        )),
        false => output::text(&shown.iter().map(Shown::text).collect::<Vec<_>>().join("\n\n")),
    }
    Ok(0)
}

/// The options of a daemon that runs, or would be started.
#[derive(Serialize)]
pub(super) struct Shown {
    pub(super) name: String,
    pub(super) file: String,
    /// It is as a daemon has it that runs.
    pub(super) running: bool,
    /// Options of which its files say otherwise.
    pub(super) differs: Vec<String>,
    pub(super) settings: Vec<Setting>,
}

impl Shown {
    pub(super) fn of(common: &Common, file: &Known) -> Result<Shown, Failure> {
        let socket = socket_path(&common.run_dir(), &file.name);
        // A drill has no daemon.
        let told = (file.of != Of::Drill).then(|| Client::connect(&socket).ok()).flatten();
        let told = told.and_then(|mut client| client.configuration().ok());
        let (running, differs, settings) = match told {
            Some(ConfigurationReport { settings, changes, .. }) => {
                (true, changes.into_iter().map(|change| change.key).collect(), settings)
            }
            None => (false, Vec::new(), file.settings(common)?),
        };
        let shown = file.path.display().to_string();
        Ok(Shown { name: file.name.clone(), file: shown, running, differs, settings })
    }

    fn text(&self) -> String {
        let how = if self.running { "as it runs" } else { "as it would start" };
        let mut text = format!("{}  {}, {how}", self.name, self.file);
        let width = self.settings.iter().map(|setting| setting.key.len()).max().unwrap_or_default();
        for setting in &self.settings {
            let (key, from) = (&setting.key, setting.from.text());
            let values = match setting.values.as_slice() {
                [] => vec!["-".to_owned()],
                [one] => vec![one.clone()],
                several => several.to_vec(),
            };
            for (number, value) in values.iter().enumerate() {
                let (key, from) = if number == 0 { (key.as_str(), from.as_str()) } else { ("", "") };
                let _ = write!(text, "\n  {}", format!("{key:width$}  {value:<32}  {from}").trim_end());
            }
        }
        if !self.differs.is_empty() {
            let _ = write!(
                text,
                "\n  Its file says otherwise of {}: standin config diff {}",
                self.differs.join(", "),
                self.name
            );
        }
        text
    }
}

fn diff(common: &Common, name: Option<&Path>) -> Outcome {
    let found = find(common, name)?;
    let report = found.client()?.configuration().map_err(|error| no_answer(&found.status.name, &error))?;
    if let Some(failure) = report.failure {
        return Err(failure);
    }
    let (live, restart): (Vec<_>, Vec<_>) = report.changes.iter().partition(|change| change.live);
    if common.json {
        output::json(&json!({
            "name": report.name, "file": report.file, "reload": live, "restart": restart,
        }));
    } else if report.changes.is_empty() {
        output::text(&format!("{}: the files say what runs.", report.name));
    } else {
        let reload = live.iter().map(|change| format!("reload   {}", line(change)));
        let restart = restart.iter().map(|change| format!("restart  {}", line(change)));
        output::text(&reload.chain(restart).collect::<Vec<_>>().join("\n"));
    }
    Ok(if report.changes.is_empty() { 0 } else { TIMED_OUT })
}

fn line(change: &crate::words::SettingChange) -> String {
    let crate::words::SettingChange { key, before, after, from, .. } = change;
    format!("{key}  {} -> {}  {}", values_text(before), values_text(after), from.text())
}

/// Of a daemon that was told to read its file and did not answer: it may still do so.
pub fn unknown(name: &str, error: &ClientError, untouched: &str) -> Failure {
    Failure::new(
        format!("Whether the daemon of {name} follows its file is not known: {error}. It may do so yet."),
        untouched,
        format!(
            "See how it is with `standin status {name}`, then what it follows: standin config diff {name}"
        ),
    )
}

/// Tells a daemon to read its file anew.
pub fn reload(common: &Common, args: &Reload) -> Outcome {
    let found = find(common, args.name.as_deref())?;
    let name = &found.status.name;
    let report = found.client()?.reload().map_err(|error| match error {
        ClientError::Failure(_) | ClientError::Absent | ClientError::Dead | ClientError::Denied => {
            no_answer(name, &error)
        }
        ClientError::Mute | ClientError::Broken(_) => unknown(name, &error, "The files are as they were."),
    })?;
    match common.json {
        true => output::json(&report),
        false => output::text(&report.lines().join("\n")),
    }
    Ok(0)
}
