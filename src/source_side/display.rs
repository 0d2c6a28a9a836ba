//! The first copy on the terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

use crate::control::Retrying;
use crate::resync::ProgressSnapshot;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A line that lives on a terminal; elsewhere a line now and then.
pub struct Display {
    target: String,
    bar: Option<ProgressBar>,
    next_line: Instant,
    /// The connection was lost, and it was said.
    is_away: bool,
}

impl Display {
    pub fn new(target: &str) -> Display {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Display { target: target.to_owned(), bar, next_line: Instant::now() + LINE_EVERY, is_away: false }
    }

    /// How far attempt number `attempt` is.
    pub fn show(&mut self, progress: &ProgressSnapshot, attempt: u32, retrying: Option<&Retrying>) {
        if std::mem::take(&mut self.is_away) {
            self.say(&format!("{} is back: the copy goes on with what is not identical", self.target));
        }
        let mut text = self.text(progress, retrying);
        if attempt > 1 {
            text += &format!(" (attempt {attempt})");
        }
        self.line(text);
    }

    /// There is no connection, for this reason; so many attempts at one have failed.
    pub fn away(&mut self, reason: &str, attempts: u32) {
        if !std::mem::replace(&mut self.is_away, true) {
            self.say(&format!("{} is not connected: {reason}; it is dialled until it is back", self.target));
        }
        self.line(format!("waiting for {} ({attempts} attempts): {reason}", self.target));
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    fn line(&mut self, text: String) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(text);
                bar.tick();
            }
            None if Instant::now() >= self.next_line => {
                self.next_line = Instant::now() + LINE_EVERY;
                eprintln!("{text}");
            }
            None => {}
        }
    }

    fn text(&self, progress: &ProgressSnapshot, retrying: Option<&Retrying>) -> String {
        let trouble = retrying.map(|retrying| format!(" RETRYING {}: {}", retrying.op, retrying.reason));
        format!(
            "copying to {}: {} files of {} seen in line, {} sent {}{}",
            self.target,
            HumanCount(progress.files_identical + progress.files_copied),
            HumanCount(progress.files_compared),
            HumanBytes(progress.bytes_copied),
            progress.current,
            trouble.unwrap_or_default()
        )
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
