//! Words and options in sentences, and in blocks that are not run: the product takes them.

use std::collections::BTreeMap;
use std::process::Command;

use super::page::{self, Fate, Line, Page};
use crate::host::{COMMAND_MAX, binary, describe, output_within};

/// Whether the product understands this much of a command line, whatever it would do.
fn assert_understood(place: &str, words: &str) {
    let mut command = Command::new(binary());
    let output = output_within(command.args(words.split_whitespace()).arg("--help"), COMMAND_MAX);
    assert!(output.status.success(), "{place}: standin {words}: {}", describe(&output));
}

/// What `--help` of the product and of all its commands says, by command.
fn helps() -> BTreeMap<String, String> {
    let help = |words: &[&str]| {
        let output = output_within(Command::new(binary()).args(words).arg("--help"), COMMAND_MAX);
        String::from_utf8(output.stdout).expect("text")
    };
    let commands = |text: &str| -> Vec<String> {
        let lines = text.lines().skip_while(|line| *line != "Commands:").skip(1);
        let lines = lines.take_while(|line| line.starts_with("  "));
        lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
    };
    let mut found = BTreeMap::new();
    for command in commands(&help(&[])) {
        let mut text = help(&[&command]);
        let below: Vec<String> = commands(&text).iter().map(|below| help(&[&command, below])).collect();
        text += &below.concat();
        found.insert(command, text);
    }
    assert!(found.len() > 10, "{found:?}");
    found
}

fn has_option(help: &str, option: &str) -> bool {
    let name = option.split(['=', ' ', '[']).next().unwrap_or(option);
    help.split(|letter: char| !(letter.is_alphanumeric() || letter == '-')).any(|word| word == name)
}

#[test]
fn commands_in_sentences_are_understood() {
    let (mut checked, helps) = (0, helps());
    for page in page::all() {
        for Line { number, text } in page.spans() {
            let place = format!("{}:{number}", page.name);
            let first = text.split(' ').next().unwrap_or_default();
            if let Some(words) = text.strip_prefix("standin ") {
                assert_understood(&place, words);
            } else if helps.contains_key(first) && text.contains(" --") {
                assert_understood(&place, &text);
            } else if text.starts_with("--") {
                let known = helps.values().any(|help| has_option(help, &text));
                assert!(known, "{place}: no command has {text}");
            } else {
                continue;
            }
            checked += 1;
        }
    }
    assert!(checked > 50, "{checked} were found");
}

#[test]
fn commands_that_are_not_run_are_understood() {
    for page in page::all() {
        for block in page.blocks() {
            if let Fate::NotRun(_) = block.fate {
                block.lines.iter().for_each(|line| check_line(&page, line));
            }
        }
    }
}

fn check_line(page: &Page, line: &Line) {
    let typed = line.text.split(" #").next().unwrap_or_default();
    if let Some(words) = typed.strip_prefix("standin ") {
        assert_understood(&format!("{}:{}", page.name, line.number), words);
    }
}

#[test]
fn an_option_is_a_whole_word() {
    assert!(has_option("  --fsync <FSYNC>  or --fsync-timeout", "--fsync=target"));
    assert!(!has_option("  --fsync-timeout <T>", "--fsync"));
}
