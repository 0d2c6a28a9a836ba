//! Files of drills.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::CommandFactory;

use super::super::super::args::{Cli, Common};
use super::super::super::drill::{Check, Run};
use super::super::definition::{Definition, key_of};
use super::super::{Config, ConfigCommand, commands, drill};
use super::Ground;
use crate::drill::report::FromFile;

/// Each key of the file of a drill, in order, with a value that is not its default.
const KEYS: [(&str, &str); 20] = [
    ("after", "\"true\""),
    ("at", "\"/srv/web\""),
    ("before", "\"true\""),
    ("check", "\"test -f known\""),
    ("clone_timeout", "\"2h\""),
    ("cpu_max", "150"),
    ("cpu_weight", "50"),
    ("dir", "\"/spare\""),
    ("expect_every", "\"7d\""),
    ("io_weight", "50"),
    ("keep", "true"),
    ("memory_max", "\"2G\""),
    ("net", "\"host\""),
    ("prove", "true"),
    ("ready", "\"true\""),
    ("set", "\"other\""),
    ("show", "[\"/opt/tools\"]"),
    ("start", "[\"true\", \"echo x\"]"),
    ("stop", "[\"true\"]"),
    ("timeout", "\"1m\""),
];

fn write(ground: &Ground, name: &str, text: &str) -> PathBuf {
    fs::create_dir_all(ground.0.path().join("drills")).unwrap();
    let path = ground.0.path().join(format!("drills/{name}.toml"));
    fs::write(&path, text).unwrap();
    path
}

fn run(ground: &Ground, words: &[&str]) -> Result<(Run, Option<FromFile>), String> {
    let words = ["standin", "drill", "run"].into_iter().chain(words.iter().copied());
    let typed = Cli::command().try_get_matches_from(words).map_err(|error| error.to_string())?;
    let typed = typed.subcommand_matches("drill").unwrap().subcommand_matches("run").unwrap();
    drill(&ground.common(), typed).map_err(|failure| failure.to_string())
}

fn of_command(command: &str) -> Check {
    Check { name: None, command: command.into(), timeout: None }
}

#[test]
fn every_option_of_a_drill_stands_in_its_file() {
    let definition = Definition::drill();
    let mut keys: Vec<String> = definition.keys().map(key_of).collect();
    keys.sort();
    assert_eq!(keys, KEYS.map(|(key, _)| key));
    let page = include_str!("../../../../docs/configuration.md");
    let ground = Ground::new();
    for (key, value) in KEYS {
        assert!(page.contains(&format!("`{key}`")), "docs/configuration.md says nothing of `{key}`");
        let check = if key == "prove" { "check = \"cat known\"\n" } else { "" };
        for spelt in [key.to_owned(), key.replace('_', "-")] {
            write(&ground, "web", &format!("{check}{spelt} = {value}\n"));
            let (mut plain, _) = run(&ground, &["nothing"]).unwrap();
            plain.set = Some("web".into());
            plain.named.extend((key == "prove").then(|| of_command("cat known")));
            let (found, file) = run(&ground, &["web"]).unwrap_or_else(|error| panic!("{spelt}: {error}"));
            assert_ne!(format!("{found:?}"), format!("{plain:?}"), "{spelt}");
            assert_eq!(file.unwrap(), FromFile { name: "web".into(), typed: Vec::new() });
        }
    }
}

#[test]
fn a_file_says_what_is_done_and_what_is_typed_goes_on_top() {
    let ground = Ground::new();
    let text =
        "set = \"other\"\nat = \"/srv/web\"\nstart = [\"a\", \"b\"]\ntimeout = \"1m\"\nafter = \"mail\"
check = \"plain\"\n";
    write(&ground, "web", text);
    let named = "[[check]]\nname = \"integrity\"\ncommand = \"sqlite3\"\ntimeout = \"2m\"\n\n[[check]]\ncommand = \"x\"\n";
    write(&ground, "named", named);
    let (found, _) = run(&ground, &["web"]).unwrap();
    assert_eq!(found.set, Some("other".into()));
    assert_eq!((found.start, found.timeout), (vec!["a".to_owned(), "b".into()], Duration::from_secs(60)));
    assert_eq!(found.named, [of_command("plain")]);
    let (found, file) = run(&ground, &["web", "--check", "typed", "--timeout", "3m"]).unwrap();
    assert_eq!((found.named.as_slice(), found.check.as_slice()), (&[][..], &["typed".to_owned()][..]));
    assert_eq!((found.timeout, found.after.as_deref()), (Duration::from_secs(180), Some("mail")));
    assert_eq!(file.unwrap().typed, ["check", "timeout"]);
    // Without `set` it is the set of its own name, and a check has the time-out of its own.
    let (found, _) = run(&ground, &["named"]).unwrap();
    assert_eq!(found.set, Some("named".into()));
    let two = Duration::from_secs(120);
    let integrity = Check { name: Some("integrity".into()), command: "sqlite3".into(), timeout: Some(two) };
    assert_eq!(found.named, [integrity, of_command("x")]);
    // A word of which there is no file is the name of a set, and a path never is a drill.
    for word in ["other", "/named", "./named"] {
        let (found, file) = run(&ground, &[word, "--at", "/srv/web"]).unwrap();
        assert_eq!((found.set, file), (Some(word.into()), None));
    }
}

#[test]
fn what_is_wrong_with_the_file_of_a_drill_is_said_with_its_place() {
    let ground = Ground::new();
    for (text, line, column, part) in [
        ("att = \"/srv/web\"\n", 1, 1, "unknown key `att`; did you mean `at`?"),
        ("at = \"/srv/web\"\nexpect-evry = \"7d\"\n", 2, 1, "did you mean `expect_every`?"),
        (
            "[[check]]\nnam = \"x\"\ncommand = \"true\"\n",
            2,
            1,
            "unknown key `nam` in a check; did you mean `name`?",
        ),
        ("[[check]]\ncomand = \"true\"\n", 2, 1, "did you mean `command`?"),
        ("[[check]]\nwhat = \"true\"\n", 2, 1, "expected name, command, timeout"),
        ("[[check]]\nname = \"x\"\n", 1, 1, "a check has a `command`"),
        ("[[check]]\ncommand = \" \"\n", 2, 11, "`command` is empty"),
        ("[[check]]\ncommand = \"true\"\ntimeout = \"soon\"\n", 3, 11, "'soon' is no duration"),
        ("check = [\"true\", 3]\n", 1, 18, "expected a command or [[check]], not integer"),
        ("check = true\n", 1, 9, "not boolean"),
        (
            "[[check]]\nname = \"x\"\ncommand = \"a\"\n[[check]]\nname = \"x\"\ncommand = \"b\"\n",
            4,
            1,
            "two checks have the name 'x'",
        ),
        ("at = \"srv\"\n", 1, 6, "absolute path"),
        ("at = \"/proc/x\"\n", 1, 6, "nothing would run"),
        ("start = [\"\"]\n", 1, 9, "is empty"),
        ("timeout = \"1m\"\nprove = true\n", 2, 9, "needs a check"),
        ("keep = true\nprove = true\ncheck = \"true\"\n", 1, 8, "cannot be used with"),
        ("marker = \"m\"\n", 1, 1, "not in this version"),
        ("json = true\n", 1, 1, "does not stand in a file"),
        ("[[rule]]\nexclude = \"a\"\n", 1, 3, "unknown key `rule`"),
    ] {
        let path = write(&ground, "web", text);
        let error = run(&ground, &["web"]).unwrap_err();
        let place = format!("{}:{line}:{column}: ", path.display());
        assert!(error.contains(&place) && error.contains(part), "{text:?}: {error}");
        assert_eq!(check(&ground.common(), Some("web")), 2, "{text:?}");
    }
    write(&ground, "web", "at = \"/srv/web\"\n");
    assert_eq!(check(&ground.common(), Some("web")), 0);
    assert_eq!(check(&ground.common(), None), 0);
    write(&ground, "no name", "");
    assert_eq!(check(&ground.common(), None), 2);
}

fn check(common: &Common, name: Option<&str>) -> u8 {
    let name = name.map(str::to_owned);
    commands::run(common, &Config { command: ConfigCommand::Check { name } }).unwrap()
}
