//! The file of a set as `standin set` reads and changes it: what it does not change stays as people wrote it, with
//! their comments.

use std::path::{Path, PathBuf};

use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value, value};

use super::definition::Definition;
use super::file::{self, Parsed, Section};
use super::{reading, settle};
use crate::failure::Failure;
use crate::sets::{Rule, Rules};
use crate::words::{Deletes, FileTerms};

/// A file of a set that is right.
pub struct SetText {
    text: String,
    parsed: Parsed,
    terms: FileTerms,
}

impl SetText {
    /// Of a file that is there; `None` where there is none.
    ///
    /// Errors: it is wrong.
    pub fn read(path: &Path, untouched: &str) -> Result<Option<SetText>, Failure> {
        let text = reading::read(path).map_err(|why| {
            Failure::new(format!("{} is not read: {why}.", path.display()), untouched, "Mend this.")
        })?;
        text.map(|text| SetText::parse(path, &text, untouched)).transpose()
    }

    /// What a text says that may come from elsewhere; `from` names it in an error.
    pub fn parse(from: &Path, text: &str, untouched: &str) -> Result<SetText, Failure> {
        let definition = Definition::protect();
        let parsed = file::parse(from, text, &definition, Section::Whole).checked(untouched)?;
        let terms = settle::terms(&definition, &parsed)?;
        Ok(SetText { text: text.to_owned(), parsed, terms })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The protected directory.
    pub fn directory(&self) -> Option<PathBuf> {
        self.parsed.entry("dir").and_then(|entry| entry.words.first()).map(PathBuf::from)
    }

    pub fn rules(&self) -> Rules {
        Rules(self.parsed.rules.iter().map(|(rule, _)| rule.clone()).collect())
    }

    pub fn terms(&self) -> &FileTerms {
        &self.terms
    }

    /// To be changed.
    pub fn edit(&self) -> Edit {
        let has_mark = self.text.starts_with(MARK);
        let (lines, of_dos) = (self.text.matches('\n').count(), self.text.matches("\r\n").count());
        let document = self.text.trim_start_matches(MARK).parse().unwrap_or_default();
        Edit { document, has_mark, is_of_dos: of_dos > 0 && lines == of_dos }
    }
}

/// With which some editors begin a file.
const MARK: char = '\u{feff}';

/// Changes of a text.
#[derive(Default)]
pub struct Edit {
    document: DocumentMut,
    has_mark: bool,
    /// Its lines end with CR LF.
    is_of_dos: bool,
}

impl Edit {
    pub fn text(&self) -> String {
        let text = self.document.to_string().replace("\r\n", "\n");
        let text = if self.is_of_dos { text.replace('\n', "\r\n") } else { text };
        if self.has_mark { format!("{MARK}{text}") } else { text }
    }

    pub fn set_directory(&mut self, directory: &Path) {
        self.remove(&["dir", "directory"]);
        self.document.insert("dir", value(directory.to_string_lossy().into_owned()));
    }

    /// A removal means this from now on.
    pub fn set_deletes(&mut self, deletes: &Deletes) {
        self.remove(&["ignore_deletes", "keep_deleted", "keep_days"]);
        match deletes {
            Deletes::Follow => {}
            Deletes::Ignore => drop(self.document.insert("ignore_deletes", value(true))),
            Deletes::Keep(keep) => {
                let mut table = InlineTable::new();
                table.insert("dir", keep.dir().into());
                table.insert("days", i64::from(keep.days()).into());
                self.document.insert("keep_deleted", value(table));
            }
        }
    }

    /// Keys in both of their spellings.
    pub fn remove(&mut self, keys: &[&str]) {
        for key in keys {
            self.document.remove(key);
            self.document.remove(&key.replace('_', "-"));
        }
    }

    /// Takes rules away by `goes`, which is told their numbers from 1 on, and puts others behind.
    pub fn change_rules(&mut self, goes: impl Fn(usize) -> bool, added: &[Rule]) {
        let item = self.document.entry("rule").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
        let left = match item {
            Item::Value(Value::Array(rules)) => change_inline(rules, goes, added),
            Item::ArrayOfTables(rules) => change_tables(rules, goes, added),
            Item::None | Item::Value(_) | Item::Table(_) => 0,
        };
        if left == 0 {
            self.document.remove("rule");
        }
    }
}

fn change_tables(rules: &mut ArrayOfTables, goes: impl Fn(usize) -> bool, added: &[Rule]) -> usize {
    (0..rules.len()).rev().filter(|at| goes(at + 1)).for_each(|at| drop(rules.remove(at)));
    for rule in added {
        let mut table = Table::new();
        table.insert(verb(rule), value(rule.pattern.as_str()));
        if !rule.is_recursive {
            table.insert("recursive", value(false));
        }
        rules.push(table);
    }
    rules.len()
}

fn change_inline(rules: &mut Array, goes: impl Fn(usize) -> bool, added: &[Rule]) -> usize {
    (0..rules.len()).rev().filter(|at| goes(at + 1)).for_each(|at| drop(rules.remove(at)));
    for rule in added {
        let mut table = InlineTable::new();
        table.insert(verb(rule), rule.pattern.as_str().into());
        if !rule.is_recursive {
            table.insert("recursive", false.into());
        }
        rules.push(table);
    }
    rules.len()
}

fn verb(rule: &Rule) -> &'static str {
    if rule.includes { "include" } else { "exclude" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> SetText {
        SetText::parse(Path::new("web.toml"), text, "").unwrap()
    }

    /// Comments, order and everything that was not asked for.
    #[test]
    fn a_change_leaves_what_people_wrote() {
        let text = "\
# of the shop
limit = \"1M\" # at night: more
keep-days = 3
keep_deleted = \"bin\"

# nobody needs these
[[rule]]
exclude = \"*.tmp\"

# but this one
[[rule]]
include = \"keep.tmp\" # Anna

[verify]
every = \"1d\"
";
        let before = set(text);
        let mut edit = before.edit();
        edit.change_rules(|number| number == 1, &[Rule { is_recursive: false, ..Rule::exclude("/x") }]);
        edit.set_deletes(&Deletes::Ignore);
        edit.set_directory(Path::new("/srv/web"));
        let after = set(&edit.text());
        let expected = [Rule::include("keep.tmp"), Rule { is_recursive: false, ..Rule::exclude("/x") }];
        assert_eq!(after.rules().0, expected);
        assert_eq!(after.terms().deletes, Some(Deletes::Ignore));
        assert_eq!(after.terms().verify, before.terms().verify);
        assert_eq!(after.directory(), Some("/srv/web".into()));
        for comment in ["# of the shop", "# at night: more", "# but this one", "# Anna"] {
            assert!(after.text().contains(comment), "{}", after.text());
        }
        let mut none = after.edit();
        none.change_rules(|_| true, &[]);
        none.set_deletes(&Deletes::Follow);
        let none = set(&none.text());
        assert!(none.rules().is_empty() && none.terms().deletes.is_none(), "{}", none.text());
    }

    #[test]
    fn a_file_of_another_system_stays_one() {
        let text = "\u{feff}# of the shop\r\nlimit = \"1M\"\r\n\r\n[[rule]]\r\nexclude = \"a\"\r\n";
        let mut edit = set(text).edit();
        edit.change_rules(|_| false, &[Rule::exclude("b")]);
        let after = edit.text();
        assert!(after.starts_with(text) && after.ends_with("\r\nexclude = \"b\"\r\n"), "{after:?}");
        assert_eq!(set(&after).rules().0.len(), 2);
    }

    #[test]
    fn rules_on_one_line_are_changed_there() {
        let mut edit = set("rule = [{ exclude = \"a\" }, { include = \"a/b\" }]\n").edit();
        edit.change_rules(|number| number == 1, &[Rule::exclude("c")]);
        assert_eq!(set(&edit.text()).rules().0, [Rule::include("a/b"), Rule::exclude("c")]);
        assert_eq!(edit.text().matches("rule").count(), 1, "{}", edit.text());
    }
}
