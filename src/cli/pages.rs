//! `standin man` and `standin completions`: what shells and readers of manuals need, made from the command line's
//! own definition.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde_json::json;

use super::args::{Cli, Common};
use super::{Outcome, output};
use crate::failure::Failure;

#[derive(Debug, Args)]
pub struct Man {
    /// Where to write them: standin.1, and one page for each command
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct Completions {
    /// For which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

pub(super) fn man(common: &Common, args: &Man) -> Outcome {
    let written = write_pages(&args.dir).map_err(|error| {
        Failure::new(
            format!("The manual cannot be written to {}: {error}.", args.dir.display()),
            "Pages that were written before that stay.",
            "Name a directory that may be written to.",
        )
    })?;
    if common.json {
        output::json(&json!({ "directory": args.dir, "pages": written }));
    } else {
        output::text(&format!("{} pages are in {}.", written.len(), args.dir.display()));
    }
    Ok(0)
}

/// The page of the program, and of each command, as `git` names them: `standin-mirror-start.1`.
fn write_pages(dir: &Path) -> io::Result<Vec<String>> {
    fs::create_dir_all(dir)?;
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let mut written = Vec::new();
    let mut waiting = vec![program];
    while let Some(command) = waiting.pop() {
        waiting.extend(command.get_subcommands().filter(|below| !below.is_hide_set()).cloned());
        let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
        let file = format!("{name}.1");
        let mut text = Vec::new();
        clap_mangen::Man::new(command).title(name).render(&mut text)?;
        fs::write(dir.join(&file), text)?;
        written.push(file);
    }
    written.sort();
    Ok(written)
}

pub(super) fn completions(args: &Completions) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "standin", &mut text);
    output::text(&String::from_utf8_lossy(&text));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command that `--help` shows has its page, with its options in it; none that is hidden has.
    #[test]
    fn every_command_has_its_page() {
        let place = tempfile::tempdir().unwrap();
        let pages = write_pages(place.path()).unwrap();
        for page in [
            "standin.1",
            "standin-protect.1",
            "standin-mirror-start.1",
            "standin-connection-limit.1",
            "standin-monitor.1",
            "standin-merge.1",
            "standin-resync-estimate.1",
        ] {
            assert!(pages.iter().any(|written| written == page), "{page} is not in {pages:?}");
        }
        for hidden in ["standin-flush-mount.1", "standin-drop-pages.1", "standin-help.1"] {
            assert!(!pages.iter().any(|written| written == hidden), "{hidden}");
        }
        for page in &pages {
            let text = fs::read_to_string(place.path().join(page)).unwrap();
            assert!(text.contains(".SH SYNOPSIS") && text.contains("\\-\\-state"), "{page}: {text}");
        }
        let text = fs::read_to_string(place.path().join("standin-protect.1")).unwrap();
        assert!(text.contains("queue\\-memory"), "{text}");
    }

    #[test]
    fn shells_complete_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "standin", &mut text);
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains("wait-sync") && text.contains("queue-memory"), "{shell}");
        }
    }
}
