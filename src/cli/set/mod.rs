//! `standin set`: which names of a directory are replicated.

mod size;

use std::fmt::Write;
use std::io::Read;
use std::path::Path;

use serde_json::json;

use self::size::Sizes;
use super::args::{Common, DeletesAsked, Set, SetCommand};
use super::config::edit::{Edit, SetText};
use super::{Outcome, config, output};
use crate::control::{Client, ClientError, RulesReport};
use crate::failure::Failure;
use crate::sets::{Changing, Matcher, Rule, SetError, Sets};
use crate::source_side::take_out;
use crate::units;
use crate::words::{Deletes, socket_path};

/// No file of a set is longer: 256 rules of 1,024 bytes.
const FILE_LEN_MAX: u64 = 1 << 20;

const UNTOUCHED: &str = "Nothing was changed.";

pub(super) fn run(common: &Common, args: &Set) -> Outcome {
    let here = Here { common, sets: Sets::of(&common.state_dir()) };
    match &args.command {
        SetCommand::Create { name, directory, rules, deletes } => {
            let changing = here.lock()?;
            here.must_be_free(name)?;
            let mut edit = Edit::default();
            if let Some(directory) = directory {
                edit.set_directory(&std::path::absolute(directory).unwrap_or_else(|_| directory.clone()));
            }
            edit.set_deletes(&typed(deletes)?.unwrap_or_default());
            edit.change_rules(|_| false, &rules.0);
            here.write(changing, name, &edit.text())
        }
        SetCommand::Show { name: Some(name) } => here.show(name),
        SetCommand::Show { name: None } => here.list(),
        SetCommand::Change { name, clear, remove, rules, deletes, follow_deletes } => {
            let follow = follow_deletes.then_some(Deletes::Follow);
            let deletes = typed(deletes)?.or(follow);
            here.change(name, *clear, remove, (&rules.0, deletes))
        }
        SetCommand::Rename { from, to } => here.rename(from, to),
        SetCommand::Copy { from, to } => {
            let changing = here.lock()?;
            here.must_be_free(to)?;
            let file = here.existing(from)?;
            let mut edit = file.edit();
            // Two sets of one directory would be two daemons over it, and two that send to one replica.
            edit.remove(&["dir", "directory", "backing", "to"]);
            here.write(changing, to, &edit.text())
        }
        SetCommand::Export { name } => {
            let file = here.existing(name)?;
            match common.json {
                true => output::json(&json!({ "name": name, "text": file.text() })),
                false => output::raw(file.text()),
            }
            Ok(0)
        }
        SetCommand::Import { name, file } => here.import(name, file),
        SetCommand::Delete { name } => here.delete(name),
        SetCommand::Size { name, directory } => here.size(name, directory.as_deref()),
    }
}

fn typed(deletes: &DeletesAsked) -> Result<Option<Deletes>, Failure> {
    deletes.asked().map_err(|why| Failure::new(why, UNTOUCHED, ""))
}

struct Here<'a> {
    common: &'a Common,
    sets: Sets,
}

impl Here<'_> {
    fn read(&self, name: &str) -> Result<Option<SetText>, Failure> {
        SetText::read(&self.sets.path(name).map_err(|error| failed(&error))?, UNTOUCHED)
    }

    fn existing(&self, name: &str) -> Result<SetText, Failure> {
        self.read(name)?.ok_or_else(|| {
            Failure::new(
                format!("There is no set {name:?} with a file: everything belongs to it."),
                UNTOUCHED,
                format!("Make one: standin set create {name} --exclude PATTERN"),
            )
        })
    }

    fn must_be_free(&self, name: &str) -> Result<(), Failure> {
        match self.read(name)? {
            None => Ok(()),
            Some(_) => Err(Failure::new(
                format!("There is a set {name:?} already."),
                UNTOUCHED,
                format!("Change it with `standin set change {name}`, or delete it first."),
            )),
        }
    }

    /// From what is read of a set to what is written: two commands at once do one after the other.
    fn lock(&self) -> Result<Changing, Failure> {
        self.sets.lock().map_err(|error| failed(&error))
    }

    /// Writes the file, and has a daemon of that name follow it.
    ///
    /// Errors: the text is no file of a set; then nothing is written.
    fn write(&self, changing: Changing, name: &str, text: &str) -> Outcome {
        let path = self.sets.path(name).map_err(|error| failed(&error))?;
        let file = SetText::parse(&path, text, UNTOUCHED)?;
        let deletes = |file: &SetText| file.terms().deletes.clone().unwrap_or_default();
        let ignored =
            self.read(name).ok().flatten().is_some_and(|before| deletes(&before) == Deletes::Ignore);
        let ends_ignoring = ignored && deletes(&file) != Deletes::Ignore;
        self.sets.write(name, text).map_err(|error| failed(&error))?;
        // A daemon that takes long keeps nobody else from the files.
        drop(changing);
        let rules = file.rules();
        let told = self.tell(name)?;
        match self.common.json {
            true => output::json(&json!({
                "name": name, "file": path.display().to_string(), "directory": file.directory(),
                "rules": rules, "protected": told.is_some(),
                "compares": told.as_ref().is_some_and(|report| report.has_changed),
            })),
            false => {
                let what = match &told {
                    Some(RulesReport { has_changed: true, deletions, .. }) => format!(
                        "its daemon follows it from now on, and compares the replicas: `standin status` says how \
                         far that is. Deletions are {deletions}."
                    ),
                    Some(RulesReport { deletions, .. }) => {
                        format!("its daemon follows these rules already. Deletions are {deletions}.")
                    }
                    None => "`standin protect` of this name follows it.".to_owned(),
                };
                let left = match ends_ignoring {
                    true => {
                        format!(
                            " What was deleted until now stays on the replicas until the next copy: \
                             standin mirror start {name}"
                        )
                    }
                    false => String::new(),
                };
                output::text(&format!("{}: {}; {what}{left}", path.display(), counted(rules.0.len())));
            }
        }
        Ok(0)
    }

    /// `None`: none runs.
    fn tell(&self, name: &str) -> Result<Option<RulesReport>, Failure> {
        let socket = socket_path(&self.common.run_dir(), name);
        let Ok(mut client) = Client::connect(&socket) else { return Ok(None) };
        client.rules().map(Some).map_err(|error| match error {
            ClientError::Failure(refusal) => Failure::new(
                format!("The daemon of {name} does not follow the file: {}", refusal.what),
                "The file is written; the daemon goes on with what held before.",
                format!("{} Then: standin reload {name}", refusal.next).trim_start(),
            ),
            other => config::unknown(name, &other, "The file is written."),
        })
    }

    fn show(&self, name: &str) -> Outcome {
        let file = self.existing(name)?;
        let path = self.sets.path(name).map_err(|error| failed(&error))?;
        let (rules, deletes) = (file.rules(), file.terms().deletes.clone().unwrap_or_default());
        if self.common.json {
            output::json(&json!({
                "name": name, "file": path.display().to_string(), "directory": file.directory(),
                "rules": rules, "verify": file.terms().verify, "deletes": deletes.to_string(),
            }));
            return Ok(0);
        }
        let mut text = format!("{name}  {}\n", path.display());
        if let Some(directory) = file.directory() {
            let _ = writeln!(text, "  directory  {}", directory.display());
        }
        if let Some(verify) = &file.terms().verify {
            let _ = writeln!(text, "  verified   {verify}");
        }
        let _ = writeln!(text, "  deletions  {deletes}");
        for (number, rule) in rules.0.iter().enumerate() {
            let _ = writeln!(text, "  {:>2}  {rule}", number + 1);
        }
        let rest = match rules.0.first() {
            Some(first) if first.includes => "What no rule applies to is not replicated.",
            Some(_) | None => "What no rule applies to is replicated.",
        };
        let _ = writeln!(text, "  {rest} The last rule that applies decides.");
        output::text(text.trim_end());
        Ok(0)
    }

    fn list(&self) -> Outcome {
        let names = self.sets.names().map_err(|error| failed(&error))?;
        match self.common.json {
            true => output::json(&json!({ "sets": names })),
            false if names.is_empty() => {
                output::text("No set has a file: everything in a protected directory belongs to it.");
            }
            false => output::text(&names.join("\n")),
        }
        Ok(0)
    }

    fn change(
        &self,
        name: &str,
        clear: bool,
        remove: &[usize],
        (added, deletes): (&[Rule], Option<Deletes>),
    ) -> Outcome {
        let changing = self.lock()?;
        let file = self.existing(name)?;
        let count = file.rules().0.len();
        if let Some(number) = remove.iter().find(|number| **number == 0 || **number > count) {
            return Err(Failure::new(
                format!("The set {name:?} has no rule {number}: it has {}.", counted(count)),
                UNTOUCHED,
                format!("See their numbers: standin set show {name}"),
            ));
        }
        let mut edit = file.edit();
        if let Some(deletes) = deletes {
            edit.set_deletes(&deletes);
        }
        edit.change_rules(|number| clear || remove.contains(&number), added);
        self.write(changing, name, &edit.text())
    }

    fn rename(&self, from: &str, to: &str) -> Outcome {
        let _changing = self.lock()?;
        let file = self.existing(from)?;
        self.must_be_free(to)?;
        self.must_not_run(from)?;
        self.must_not_run(to)?;
        let path = self.sets.write(to, file.text()).map_err(|error| failed(&error))?;
        self.sets.remove(from).map_err(|error| failed(&error))?;
        self.say(&path, json!({ "name": to, "was": from }), &format!("the set {from:?} is {to:?} now."))
    }

    fn import(&self, name: &str, from: &Path) -> Outcome {
        let mut text = String::new();
        let read = match from == Path::new("-") {
            true => std::io::stdin().lock().take(FILE_LEN_MAX).read_to_string(&mut text).map(drop),
            false => std::fs::File::open(from)
                .and_then(|file| file.take(FILE_LEN_MAX).read_to_string(&mut text))
                .map(drop),
        };
        read.map_err(|error| {
            Failure::new(format!("{} cannot be read: {error}.", from.display()), UNTOUCHED, "")
        })?;
        SetText::parse(from, &text, UNTOUCHED)?;
        self.write(self.lock()?, name, &text)
    }

    fn delete(&self, name: &str) -> Outcome {
        let _changing = self.lock()?;
        self.must_not_run(name)?;
        let path = self.sets.path(name).map_err(|error| failed(&error))?;
        let is_deleted = self.sets.remove(name).map_err(|error| failed(&error))?;
        let state = self.common.state_dir();
        let is_taken_out = take_out(&state, name).map_err(|error| {
            let what =
                format!("What is known of '{name}' in {} cannot be changed: {error}.", state.display());
            let done = if is_deleted { "The file of the set is deleted." } else { UNTOUCHED };
            Failure::new(what, done, format!("Mend this, then again: standin set delete {name}"))
        })?;
        let text = match (is_deleted, is_taken_out) {
            (false, false) => return self.existing(name).map(|_| 0),
            (true, false) => "deleted: everything belongs to the set from its next start on.",
            (true, true) => {
                "deleted, and `standin status` does not miss the set any more: everything belongs to it from its next \
                 start on."
            }
            (false, true) => {
                "there is no such file; `standin status` does not miss the set any more. What is known of its targets \
                 stays, for a next start."
            }
        };
        let json = json!({ "name": name, "deleted": is_deleted, "taken_out": is_taken_out });
        self.say(&path, json, text)
    }

    fn say(&self, path: &Path, json: serde_json::Value, text: &str) -> Outcome {
        match self.common.json {
            true => output::json(&json),
            false => output::text(&format!("{}: {text}", path.display())),
        }
        Ok(0)
    }

    fn must_not_run(&self, name: &str) -> Result<(), Failure> {
        match Client::connect(&socket_path(&self.common.run_dir(), name)) {
            Err(_) => Ok(()),
            Ok(_) => Err(Failure::new(
                format!("The set {name:?} is protected now."),
                UNTOUCHED,
                format!("Stop it first: standin stop {name}"),
            )),
        }
    }

    fn size(&self, name: &str, directory: Option<&Path>) -> Outcome {
        let file = self.existing(name)?;
        let own = file.directory();
        let directory = directory.or(own.as_deref()).ok_or_else(|| {
            Failure::new(
                format!("The file of the set {name:?} names no directory."),
                UNTOUCHED,
                format!("Name it: standin set size {name} DIR"),
            )
        })?;
        let matcher =
            Matcher::new(&file.rules()).map_err(|bad| Failure::new(bad.to_string(), UNTOUCHED, ""))?;
        let mut counted = Sizes::default();
        counted.walk(directory, &matcher).map_err(|(path, error)| {
            Failure::new(format!("{} cannot be read: {error}.", path.display()), UNTOUCHED, "")
        })?;
        let Sizes { inside, outside } = counted;
        match self.common.json {
            true => output::json(&json!({
                "name": name, "directory": directory,
                "inside": { "objects": inside.objects, "bytes": inside.bytes },
                "outside": { "objects": outside.objects, "bytes": outside.bytes },
            })),
            false => output::text(&format!(
                "{}\n  in the set      {} objects, {}\n  not in the set  {} objects, {}",
                directory.display(),
                inside.objects,
                units::size(inside.bytes),
                outside.objects,
                units::size(outside.bytes),
            )),
        }
        Ok(0)
    }
}

fn counted(rules: usize) -> String {
    match rules {
        0 => "no rule".to_owned(),
        1 => "1 rule".to_owned(),
        more => format!("{more} rules"),
    }
}

fn failed(error: &SetError) -> Failure {
    Failure::new(format!("{error}."), UNTOUCHED, "")
}
