//! README and docs are true: every command is run as it is typed, in the order of its page, on two
//! hosts made of namespaces. What a page names exists, what it links is there, what it quotes is said.
//!
//! | fence | what becomes of its lines |
//! |---|---|
//! | `sh`, `sh source` | run on the source's host, one after the other; each must end with 0 |
//! | `sh target` | the same on the target's |
//! | `sh not-run: REASON` | words and options are checked, and the reason is listed |
//! | `text` | a drawing |
//!
//! Any other fence is an error, so that no command comes in that nobody runs. A fence in a comment of
//! the page is run and not shown: it does what the page only tells of. `standin serve` and `standin
//! protect` stay in the foreground: the next line is typed when they are ready; after `standin failback` when it waits for the
//! other host. `KEY` stands for the
//! key of the source.

mod facts;
mod page;
mod stage;
mod words;

use page::{Fate, Page};
use stage::Stage;

/// Pages with commands, and the most blocks that may be left out: few, each with a reason.
const PLAYED: [&str; 10] = [
    "README.md",
    "docs/configuration.md",
    "docs/databases.md",
    "docs/events.md",
    "docs/failover.md",
    "docs/monitoring.md",
    "docs/operating.md",
    "docs/performance.md",
    "docs/quickstart.md",
    "docs/troubleshooting.md",
];
const NOT_RUN_MAX: usize = 3;

/// Types a page's commands on fresh hosts.
fn play(name: &str) {
    assert!(PLAYED.contains(&name), "{name} is no page of the list");
    let page = Page::read(name);
    let mut stage = Stage::set();
    for block in page.blocks() {
        let Fate::Run(side) = block.fate else { continue };
        for line in &block.lines {
            stage.enter(side, &format!("{name}:{}", line.number), &line.text);
        }
    }
    stage.finish();
}

#[test]
fn the_readmes_commands_work() {
    play("README.md");
}

#[test]
fn the_commands_of_the_configuration_work() {
    play("docs/configuration.md");
}

#[test]
fn the_commands_for_databases_work() {
    play("docs/databases.md");
}

#[test]
fn the_commands_for_events_work() {
    play("docs/events.md");
}

#[test]
fn the_commands_of_a_failover_work() {
    play("docs/failover.md");
}

#[test]
fn the_commands_for_operating_work() {
    play("docs/operating.md");
}

#[test]
fn the_commands_for_monitoring_work() {
    play("docs/monitoring.md");
}

#[test]
fn the_commands_for_measuring_work() {
    play("docs/performance.md");
}

#[test]
fn the_quickstarts_commands_work() {
    play("docs/quickstart.md");
}

#[test]
fn the_commands_for_trouble_work() {
    play("docs/troubleshooting.md");
}

/// No page with commands is left out, and few blocks are.
#[test]
fn every_command_is_run_or_left_out_for_a_reason() {
    let mut left_out = Vec::new();
    for page in page::all() {
        page.assert_fenced();
        let blocks = page.blocks();
        let runs = blocks.iter().any(|block| matches!(block.fate, Fate::Run(_)));
        assert_eq!(runs, PLAYED.contains(&page.name.as_str()), "{}: is it played?", page.name);
        for block in blocks {
            if let Fate::NotRun(why) = &block.fate {
                let commands: Vec<&str> = block.lines.iter().map(|line| line.text.as_str()).collect();
                left_out.push(format!("{}: {why}: {}", page.name, commands.join("; ")));
            }
        }
    }
    println!("not run:\n{}", left_out.join("\n"));
    assert!(left_out.len() <= NOT_RUN_MAX, "too many blocks are not run:\n{}", left_out.join("\n"));
}
