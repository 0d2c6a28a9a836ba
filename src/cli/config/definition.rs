//! Which options may stand in a file, and how: taken from the command line's own definition, so that a file knows
//! every option that can be typed, and says of a value what the command line says of it.

use std::ffi::OsString;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command, CommandFactory};

use super::super::args::Cli;

/// The options of one command.
pub struct Definition {
    /// Without the name of a program before its options.
    pub command: Command,
    elsewhere: &'static [(&'static str, &'static str)],
    /// A value of this option with which the command is complete, for the check of another one.
    complete: &'static [&'static str],
}

/// What an option is to a file.
pub enum Place<'a> {
    Key(&'a Arg),
    /// It does not belong there, and why.
    Refused(String),
    /// There is no such option; the one that is nearest, if one is near.
    Unknown(Option<String>),
}

/// Decisions of a moment: somebody has looked, and says so this once.
const MOMENTS: [&str; 10] = [
    "accept-bad-data",
    "adopt",
    "adopt-source",
    "daemon",
    "force",
    "hide-nested",
    "lost-writes",
    "overwrite-further",
    "stand-in",
    "start-unconfirmed",
];

const RULES: &str = "rules have an order: write a [[rule]] with `include` or `exclude`";
const PLACES: &str = "every command has to know it before it reads a file: it is typed";
const OF_PROTECT: [(&str, &str); 8] = [
    ("name", "the file's own name is the name of the set"),
    ("include", RULES),
    ("exclude", RULES),
    ("include-flat", "write a [[rule]] with `include` and `recursive = false`"),
    ("exclude-flat", "write a [[rule]] with `exclude` and `recursive = false`"),
    ("state", PLACES),
    ("run", PLACES),
    ("json", "it says how one command answers"),
];
const OF_SERVE: [(&str, &str); 3] =
    [("state", PLACES), ("run", PLACES), ("json", "it says how one command answers")];

const OF_MONITOR: [(&str, &str); 6] = [
    ("set", "the file's own name is the name of the set"),
    ("status", "it asks a monitor that runs"),
    ("dry-run", "it says what one command does"),
    ("state", PLACES),
    ("run", PLACES),
    ("json", "it says how one command answers"),
];

const OF_DRILL: [(&str, &str); 4] = [
    ("marker", "it is not in this version"),
    ("state", PLACES),
    ("run", PLACES),
    ("json", "it says how one command answers"),
];

/// What a daemon of `protect` can take up while it runs; the rest counts from its next start on.
const LIVE: [&str; 10] = [
    "rule",
    "ignore-deletes",
    "keep-deleted",
    "keep-days",
    "verify-every",
    "verify-at",
    "verify-mode",
    "schedule",
    "limit",
    "compression",
];

/// What is typed of one of these goes before all that the file says of them.
const TOGETHER: [&[&str]; 2] =
    [&["ignore-deletes", "keep-deleted", "keep-days"], &["verify-every", "verify-at", "verify-mode"]];

/// Words of a secret, which has no place in a file that is shown, kept and copied.
const SECRETS: [&str; 5] = ["token", "secret", "password", "passphrase", "private"];

impl Definition {
    pub fn protect() -> Definition {
        Definition::of("protect", &OF_PROTECT, &["--name=x"])
    }

    pub fn serve() -> Definition {
        Definition::of("serve", &OF_SERVE, &[])
    }

    pub fn monitor() -> Definition {
        Definition::of("monitor", &OF_MONITOR, &["x"])
    }

    pub fn drill() -> Definition {
        Definition::of("drill run", &OF_DRILL, &[])
    }

    /// `name`: of a command, and of one below it.
    fn of(
        name: &str,
        elsewhere: &'static [(&'static str, &'static str)],
        complete: &'static [&'static str],
    ) -> Definition {
        let below = |command: Command, name: &str| {
            command.find_subcommand(name).expect("the command line has this command").clone()
        };
        let command = name.split(' ').fold(Cli::command(), below);
        Definition { command: command.no_binary_name(true), elsewhere, complete }
    }

    /// What may stand in a file.
    pub fn keys(&self) -> impl Iterator<Item = &Arg> {
        self.command.get_arguments().filter(|arg| matches!(self.place(&option_of(arg)), Place::Key(_)))
    }

    /// `key`: as it stands in a file.
    pub fn place(&self, key: &str) -> Place<'_> {
        let option = key.replace('_', "-");
        if MOMENTS.contains(&option.as_str()) && self.arg(&option).is_some() {
            let why = "it is the decision of a moment, which no file makes: it is typed".to_owned();
            return Place::Refused(why);
        }
        if let Some((_, why)) = self.elsewhere.iter().find(|(name, _)| *name == option) {
            return Place::Refused((*why).to_owned());
        }
        if SECRETS.iter().any(|word| option.contains(word)) {
            return Place::Refused("a secret never stands in a file: `standin pair` takes tokens".to_owned());
        }
        match self.arg(&option) {
            Some(arg) => Place::Key(arg),
            None => Place::Unknown(self.nearest(&option)),
        }
    }

    pub fn arg(&self, option: &str) -> Option<&Arg> {
        // The word of older files.
        let option = if option == "directory" { "dir" } else { option };
        self.command.get_arguments().find(|arg| option_of(arg) == option)
    }

    /// By what the command line itself would suggest.
    fn nearest(&self, option: &str) -> Option<String> {
        let is_word = option.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        let typed = is_word.then(|| format!("--{option}"))?;
        let error = self.command.clone().try_get_matches_from([typed]).err()?;
        match error.get(ContextKind::SuggestedArg)? {
            ContextValue::String(text) => {
                let near = text.trim_start_matches('-').split(' ').next()?.to_owned();
                matches!(self.place(&near), Place::Key(_)).then_some(near.replace('-', "_"))
            }
            _ => None,
        }
    }

    /// Errors: what the command line says to these words, if they alone are wrong.
    pub fn check(&self, arg: &Arg, words: &[String]) -> Result<(), String> {
        if arg.is_positional() {
            return Ok(());
        }
        let typed = as_typed(arg, words).into_iter().chain(self.complete.iter().map(OsString::from));
        match self.command.clone().try_get_matches_from(typed) {
            Err(error) if is_of_value(error.kind()) => Err(plain(&error)),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// The name of an option, without its dashes; of the directory, too.
pub fn option_of(arg: &Arg) -> String {
    arg.get_long().map_or_else(|| arg.get_id().to_string(), str::to_owned)
}

/// As it stands in a file.
pub fn key_of(arg: &Arg) -> String {
    option_of(arg).replace('-', "_")
}

pub fn is_live(option: &str) -> bool {
    LIVE.contains(&option)
}

/// Options of which one that is typed goes before all that a file says of any.
pub fn together(option: &str) -> &'static [&'static str] {
    TOGETHER.iter().find(|all| all.contains(&option)).copied().unwrap_or_default()
}

pub fn is_flag(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

pub fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// Its values are places on this host.
pub fn is_path(arg: &Arg) -> bool {
    let names = arg.get_value_names().unwrap_or_default();
    names.iter().any(|name| matches!(name.as_str(), "DIR" | "PATH" | "FILE" | "DIR|NAME"))
}

/// A place that means the same wherever it is read.
pub fn is_absolute(arg: &Arg, word: &str) -> bool {
    let place = if is_path(arg) { Some(word) } else { word.strip_prefix("local:") };
    place.is_none_or(|place| Path::new(place).is_absolute())
}

/// What would be typed for these values.
pub fn as_typed<W: AsRef<std::ffi::OsStr>>(arg: &Arg, words: &[W]) -> Vec<OsString> {
    let long = arg.get_long().unwrap_or_default();
    if is_flag(arg) {
        return words.iter().map(|_| OsString::from(format!("--{long}"))).collect();
    }
    let one = |word: &W| {
        let mut typed = OsString::from(format!("--{long}="));
        typed.push(word.as_ref());
        typed
    };
    words.iter().map(one).collect()
}

fn is_of_value(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::InvalidValue
            | ErrorKind::ValueValidation
            | ErrorKind::InvalidUtf8
            | ErrorKind::NoEquals
            | ErrorKind::TooManyValues
            | ErrorKind::TooFewValues
            | ErrorKind::WrongNumberOfValues
    )
}

/// What an error says, on one line and without the hints for who types.
pub fn plain(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let ends = ["\n\nUsage:", "\n\nFor more information"].into_iter().filter_map(|end| text.find(end));
    let text = &text[..ends.min().unwrap_or(text.len())];
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
