//! Other people's programs, run to their end.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::super::error::{Context, Error, Result};

/// Whether a program of this name is in `PATH`.
pub fn is_installed(name: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|dir| dir.join(name).is_file())
}

/// Errors: it cannot be started, or it failed; with what it said.
pub fn run(command: &mut Command) -> Result<()> {
    end(command, |_| Ok(()))
}

/// With something to read.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Result<()> {
    end(command.stdin(Stdio::piped()).stdout(Stdio::null()), |child| {
        child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input))
    })
}

fn end(command: &mut Command, feed: impl FnOnce(&mut Child) -> std::io::Result<()>) -> Result<()> {
    let program = PathBuf::from(command.get_program());
    let mut child = command.stderr(Stdio::piped()).spawn().at(&program)?;
    let fed = feed(&mut child);
    let output = child.wait_with_output().at(&program)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Wrong(format!("{} failed ({}): {said}", program.display(), output.status)));
    }
    fed.at(Path::new(&program))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_is_quoted() {
        assert!(is_installed("sh") && !is_installed("no-such-program"));
        run(Command::new("sh").args(["-c", "true"])).unwrap();
        let failed = run(Command::new("sh").args(["-c", "echo broken >&2; exit 3"]));
        assert!(failed.unwrap_err().to_string().contains("broken"));
        run_with_input(Command::new("sh").args(["-c", "read word; test $word = here"]), b"here\n").unwrap();
    }
}
