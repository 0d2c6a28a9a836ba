//! A program that a daemon may become: asked what it understands, before anything is touched.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::AS_BEFORE;
use super::formats::{FORMATS_COMMAND, Formats};
use crate::failure::Failure;
use crate::limits::{PROGRAM_ANSWER_LEN_MAX, PROGRAM_ANSWER_MAX};

/// How often it is looked whether it has answered.
const POLL: Duration = Duration::from_millis(5);

/// See the module.
pub struct Program {
    pub path: PathBuf,
    pub formats: Formats,
    /// As it was asked: not the content of another file under the same name.
    file: File,
}

impl Program {
    /// Errors: it is none, gives no answer, has another format, or would not start with this process's arguments.
    pub fn ask(path: &Path) -> Result<Program, Failure> {
        let shown = path.display();
        let bad = |why: String| {
            let next = "Name the program of a version that fits, with --binary.";
            Failure::new(
                format!("{shown} is no program that this daemon can become: {why}."),
                AS_BEFORE,
                next,
            )
        };
        if !path.is_absolute() {
            return Err(bad("its path is not absolute".into()));
        }
        let flags = rustix::fs::OFlags::PATH.bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let file = file.map_err(|error| bad(error.to_string()))?;
        if !file.metadata().is_ok_and(|meta| meta.is_file()) {
            return Err(bad("it is no file".into()));
        }
        let answer = question(path).and_then(answer_of).map_err(bad)?;
        let formats: Formats = serde_json::from_str(&answer).map_err(|_| {
            bad(format!("it does not answer `{FORMATS_COMMAND}`, as versions before this one"))
        })?;
        if let Some(why) = Formats::own().lacks(&formats) {
            return Err(Failure::new(
                format!("Version {} ({shown}) cannot go on where this one is: {why}.", formats.version),
                AS_BEFORE,
                "Upgrade by a stop and a start, in a moment when no program works in the directory.",
            ));
        }
        if let Some(failure) = &formats.refused {
            return Err(Failure::new(
                format!("Version {} would not start as this one was: {}", formats.version, failure.what),
                AS_BEFORE,
                failure.next.clone(),
            ));
        }
        Ok(Program { path: path.to_owned(), formats, file })
    }

    /// Nobody has put another file there, or written into it.
    pub fn is_unchanged(&self) -> bool {
        let facts =
            |meta: fs::Metadata| (meta.dev(), meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec());
        match (fs::metadata(&self.path), self.file.metadata()) {
            // What is written into it in between has another time than what answered: close enough, for root's files.
            (Ok(now), Ok(then)) => facts(now) == facts(then),
            _ => false,
        }
    }
}

fn question(path: &Path) -> Result<Child, String> {
    let mut command = Command::new(path);
    command.arg(FORMATS_COMMAND).arg("--").args(env::args_os().skip(1));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().map_err(|error| error.to_string())
}

/// What it has said when it has ended; it is killed when it does not.
fn answer_of(mut child: Child) -> Result<String, String> {
    let output = child.stdout.take();
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        let read = output.map(|output| output.take(PROGRAM_ANSWER_LEN_MAX).read_to_string(&mut text));
        read.is_some_and(|read| read.is_ok()).then_some(text)
    });
    let deadline = Instant::now() + PROGRAM_ANSWER_MAX;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(POLL),
            Ok(None) | Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it gave no answer within {} s", PROGRAM_ANSWER_MAX.as_secs()));
            }
        }
    };
    match (status.success(), reading.is_finished() || status.success()) {
        (true, _) => reading.join().ok().flatten().ok_or_else(|| "its answer cannot be read".to_owned()),
        (false, _) => Err(format!("asked what it understands it ended with {status}")),
    }
}
