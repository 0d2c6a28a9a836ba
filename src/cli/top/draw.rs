//! One picture of the screen. Pure.
//!
//! ```text
//!  standin top   2 daemons, 3 lines: 1 critical                            12:03:07
//!  SET    TARGET/REPLICA          STATE     DATA  BEHIND   QUEUED  SENT
//!  rows, the chosen one marked
//!  ── web 1 ─────────── findings, then the words of `standin status`
//!  behind ▁▁▂█▁▁  now, most
//!  ── events ────────── the last ones
//!  a question, what came of the last one, or the keys
//! ```

use ratatui::Frame as Terminal;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::host::Look;
use super::rows::{COLUMNS, Row, TITLES, What};
use super::screen::{Mode, Screen};
use crate::cli::curve::{Curve, Frame, curve};
use crate::cli::status::{clock, connection_text, label, replica_text};
use crate::control::{MirrorStatus, Severity};
use crate::events::{Sample, What as Told};
use crate::units;

/// Smaller ones show what fits.
const WIDTH_MIN: u16 = 20;
/// Of the table's columns but the second, which takes the rest.
const WIDTHS: [usize; COLUMNS] = [12, 0, 16, 5, 12, 9, 11];
/// The same on a screen that is narrower than this.
const NARROW: u16 = 110;
const NARROW_WIDTHS: [usize; COLUMNS] = [10, 0, 14, 5, 9, 8, 10];
/// Lines of a question, or of what came of it.
const ANSWER_LINES_MAX: usize = 3;
/// What came of a deed is shown for so long.
const SAID_FOR_MS: u64 = 20_000;
const QUARTER_OF_AN_HOUR_MS: u64 = 15 * 60 * 1000;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Columns beside a curve: its name, and its words.
const NAME: usize = 9;
const WORDS: usize = 34;
const HELP: [&str; 12] = [
    "up, down, k, j   another line of the table (g, G: the first, the last)",
    "p                pause the connection: changes are queued, nothing is sent",
    "r                resume one that is paused, start one that is stopped",
    "t                try one that has failed now, not when its wait is over",
    "l                limit how fast it sends",
    "d                curves of the last 24 hours, or of the last 15 minutes",
    "?                this text",
    "q, Ctrl-C        end; nothing remains on the terminal",
    "",
    "What changes something is asked once, and done with y.",
    "Before the set's name: ! a warning, X critical; the findings say why.",
    "In a curve ? stands where the value was not known, as while a copy runs.",
];
const KEYS: &str = "q end  ? help  p pause  r resume  t retry now  l limit  d day";

/// See the module.
pub(super) fn draw(terminal: &mut Terminal, look: &Look, screen: &mut Screen) {
    let area = terminal.area();
    let mut page = Page { buffer: terminal.buffer_mut(), area, row: 0, plain: screen.no_color };
    if area.width < WIDTH_MIN || area.height < 3 {
        page.line("too small", Style::new());
        return;
    }
    let rows = look.rows();
    page.title(look, &rows);
    if screen.mode == Mode::Help {
        HELP.iter().for_each(|line| page.line(line, Style::new()));
    } else {
        page.body(look, &rows, screen);
    }
    page.row = area.height - 1;
    page.footer(look, screen);
}

struct Page<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    /// The next one that is written.
    row: u16,
    plain: bool,
}

impl Page<'_> {
    /// Of the lines before the last one.
    fn room(&self) -> usize {
        usize::from(self.area.height.saturating_sub(self.row + 1))
    }

    fn width(&self) -> usize {
        usize::from(self.area.width)
    }

    /// What does not fit is cut off; letters that would move the cursor are left out by the buffer.
    fn line(&mut self, text: &str, style: Style) {
        if self.row < self.area.height {
            let (x, y) = (self.area.x, self.area.y + self.row);
            self.buffer.set_stringn(x, y, text, self.width(), style);
        }
        self.row += 1;
    }

    fn color(&self, severity: Severity) -> Style {
        match (self.plain, severity) {
            (false, Severity::Ok) => Style::new().fg(Color::Green),
            (false, Severity::Warning) => Style::new().fg(Color::Yellow),
            (false, Severity::Critical) => Style::new().fg(Color::Red),
            (true, Severity::Ok) => Style::new(),
            (true, Severity::Warning | Severity::Critical) => Style::new().add_modifier(Modifier::BOLD),
        }
    }

    fn title(&mut self, look: &Look, rows: &[Row]) {
        let (verdict, worst) = look.verdict(rows);
        let style = if look.daemons.is_empty() { Style::new() } else { self.color(worst) };
        let time = clock(look.now_unix_ms);
        self.line("standin top", Style::new().add_modifier(Modifier::BOLD));
        let (y, width) = (self.area.y, self.width());
        self.buffer.set_stringn(self.area.x + 13, y, verdict, width.saturating_sub(13 + 10), style);
        let at = width.saturating_sub(time.len());
        self.buffer.set_stringn(self.area.x + at as u16, y, &time, time.len(), Style::new());
    }

    fn body(&mut self, look: &Look, rows: &[Row], screen: &mut Screen) {
        if rows.is_empty() {
            self.line("", Style::new());
            self.line("Start one with `standin protect` or `standin serve`; it appears here.", Style::new());
            return;
        }
        // At most a third of the screen, and all of it where there is room.
        let height = rows.len().min((usize::from(self.area.height) / 3).max(1));
        screen.scroll(rows, height);
        let at = screen.at(rows);
        self.cells(&TITLES.map(str::to_owned), "  ", Style::new().add_modifier(Modifier::UNDERLINED));
        for (number, row) in rows.iter().enumerate().skip(screen.first).take(height) {
            let mark = match row.severity {
                Severity::Ok => "  ",
                Severity::Warning => "! ",
                Severity::Critical => "X ",
            };
            let style = self.color(row.severity);
            let style = if number == at { style.add_modifier(Modifier::REVERSED) } else { style };
            self.cells(&row.cells, mark, style);
        }
        if rows.len() > height {
            let shown =
                format!("  lines {} to {} of {}", screen.first + 1, screen.first + height, rows.len());
            self.line(&shown, Style::new());
        }
        let row = &rows[at];
        self.details(look, row, screen);
        self.curves(look, row, screen);
        self.events(look, screen);
    }

    fn cells(&mut self, cells: &[String; COLUMNS], mark: &str, style: Style) {
        let widths = if self.area.width < NARROW { NARROW_WIDTHS } else { WIDTHS };
        let fixed: usize = widths.iter().map(|width| width + 1).sum::<usize>() + mark.len();
        let target = self.width().saturating_sub(fixed).max(10);
        let blank = " ".repeat(self.width());
        let (left, y) = (self.area.x, self.area.y + self.row);
        self.line(&blank, style);
        self.buffer.set_stringn(left, y, mark, mark.len(), style);
        let mut x = mark.len();
        for (cell, width) in cells.iter().zip(widths) {
            let (cell, width) = match width {
                0 => (tail(cell, target), target),
                width => (cell.clone(), width),
            };
            let room = self.width().saturating_sub(x).min(width);
            if room > 0 {
                self.buffer.set_stringn(left + x as u16, y, cell, room, style);
            }
            x += width + 1;
        }
    }

    fn heading(&mut self, text: &str, screen: &Screen) {
        let dash = if screen.ascii { "-" } else { "─" };
        let rest = self.width().saturating_sub(text.chars().count() + 4);
        self.line(
            &format!("{dash}{dash} {text} {}", dash.repeat(rest)),
            Style::new().add_modifier(Modifier::DIM),
        );
    }

    /// Findings first: what is wrong has to be seen on the smallest screen.
    fn details(&mut self, look: &Look, row: &Row, screen: &Screen) {
        self.heading(&format!("{} {}", row.cells[0], row.cells[1]), screen);
        // Curves and three events are left their room.
        let below = self.curves_height(row) + 4;
        let room = self.room().saturating_sub(below).max(1);
        let mut lines: Vec<(String, Style)> = Vec::new();
        for finding in &row.findings {
            let text = format!("{}: {}", label(finding.severity), finding.text);
            let style = self.color(finding.severity);
            lines.extend(folded(&text, self.width()).into_iter().map(|line| (line, style)));
        }
        lines.extend(self.progress(row, screen));
        let words = match &row.what {
            What::Connection(status, _) => {
                let queue = status.source().map(|source| &source.queue);
                let time_left = queue.and_then(|queue| time_left(look, row, queue.bytes, queue.limit_bytes));
                let one = row.connection().map(|one| connection_text(one, look.now_unix_ms));
                one.unwrap_or_default() + &time_left.unwrap_or_default()
            }
            What::Replica(status, at) => {
                let one = status.target().and_then(|target| target.replicas.get(*at));
                one.map(|one| replica_text(one, look.now_unix_ms)).unwrap_or_default()
            }
            What::Daemon(Some(status)) => format!("standin {}, pid {}", status.version, status.pid),
            // What stands in its line may be cut off there.
            What::Daemon(None) => row.cells[2].clone(),
            What::NotServed(next) => folded(&format!("{}; {next}", row.cells[2]), self.width()).join("\n"),
        };
        // The first line of it says what the heading says, and the reason.
        lines.extend(
            words.lines().filter(|line| !line.is_empty()).map(|line| (line.to_owned(), Style::new())),
        );
        for (line, style) in lines.into_iter().take(room) {
            self.line(&line, style);
        }
    }

    /// The bar of a copy.
    fn progress(&self, row: &Row, screen: &Screen) -> Option<(String, Style)> {
        let MirrorStatus::Mirroring { percent } = row.connection()?.mirror else { return None };
        let width = self.width().saturating_sub(20).min(60);
        let done = ((percent / 100.0 * width as f64) as usize).min(width);
        let (full, empty) = if screen.ascii { ("#", ".") } else { ("█", "░") };
        let bar = full.repeat(done) + &empty.repeat(width - done);
        Some((format!("  copy        {bar} {percent:.0} %"), Style::new()))
    }

    fn curves_height(&self, row: &Row) -> usize {
        match (row.connection().is_some(), self.area.height) {
            (false, _) | (true, ..16) => 0,
            (true, 16..40) => 1 + 3,
            (true, 40..) => 1 + 3 * 3,
        }
    }

    fn curves(&mut self, look: &Look, row: &Row, screen: &Screen) {
        let (height, Some(uuid)) = (self.curves_height(row), row.uuid()) else { return };
        if height == 0 || self.room() < height {
            return;
        }
        let Some(known) = look.daemons.get(&row.daemon) else { return };
        let samples = known.series(uuid, screen.by_minutes);
        let (span_ms, title) = match screen.by_minutes {
            false => (QUARTER_OF_AN_HOUR_MS, "15 minutes (d: 24 hours)"),
            true => (DAY_MS, "24 hours (d: 15 minutes)"),
        };
        self.heading(title, screen);
        let frame = Frame {
            now_unix_ms: look.now_unix_ms,
            span_ms,
            width: self.width().saturating_sub(NAME + WORDS),
            height: (height - 1) / 3,
            ascii: screen.ascii,
        };
        let seconds = |value: f64| format!("{value:.1} s");
        let rate = |value: f64| format!("{}/s", units::size(value as u64));
        let of = |value: fn(&Sample) -> Option<f64>| curve(&samples, frame, value);
        self.curve("behind", &of(|one| one.lag_seconds.map(f64::from)), seconds);
        self.curve("captured", &of(|one| Some(one.captured_rate.into())), rate);
        self.curve("sent", &of(|one| Some(one.sent_rate.into())), rate);
    }

    fn curve(&mut self, name: &str, curve: &Curve, words: impl Fn(f64) -> String) {
        let said = |value: Option<f64>| value.map_or("unknown".to_owned(), &words);
        let last = curve.lines.len() - 1;
        for (at, line) in curve.lines.iter().enumerate() {
            // Name and words stand on the line at the bottom.
            let (name, words) = match at == last {
                true => (name, format!(" {}, at most {}", said(curve.now), said(curve.most))),
                false => ("", String::new()),
            };
            self.line(&format!("{name:<NAME$}{line}{words}"), Style::new());
        }
    }

    fn events(&mut self, look: &Look, screen: &Screen) {
        if self.room() < 2 {
            return;
        }
        self.heading("events", screen);
        let mut records: Vec<_> = look.daemons.values().flat_map(|known| &known.records).collect();
        records.sort_by_key(|record| record.event.last_unix_ms);
        let room = self.room();
        for record in records.iter().rev().take(room) {
            let event = &record.event;
            let word = match record.what {
                Told::Begin | Told::Once => label(event.severity),
                Told::End => "over",
            };
            let line = format!("{} {word:<8} {}", clock(event.last_unix_ms), event.text);
            let style = match record.what {
                Told::Begin | Told::Once => self.color(event.severity),
                Told::End => Style::new(),
            };
            self.line(&line, style);
        }
        if records.is_empty() {
            self.line("none since the daemons were started", Style::new());
        }
    }

    fn footer(&mut self, look: &Look, screen: &Screen) {
        let strong = Style::new().add_modifier(Modifier::BOLD);
        let recent =
            look.said.as_ref().filter(|said| look.now_unix_ms.saturating_sub(said.at_unix_ms) < SAID_FOR_MS);
        let (text, style) = match (&screen.mode, &screen.hint, recent) {
            (Mode::Ask(deed), ..) => (format!("{} y: yes, any other key: no", deed.question), strong),
            (Mode::Type { text, wrong: None, .. }, ..) => {
                (format!("Limit (1M, 8Mbit, none, rules, clear, on, off; Esc: leave it): {text}_"), strong)
            }
            (Mode::Type { text, wrong: Some(why), .. }, ..) => {
                (format!("Limit: {text}_   {why}"), self.color(Severity::Warning))
            }
            (Mode::Help, ..) => ("any key: back".to_owned(), strong),
            (Mode::Look, Some(hint), _) => (hint.clone(), strong),
            (Mode::Look, None, Some(said)) => {
                let severity = if said.is_failure { Severity::Critical } else { Severity::Ok };
                (said.text.clone(), self.color(severity))
            }
            (Mode::Look, None, None) => (KEYS.to_owned(), Style::new().add_modifier(Modifier::DIM)),
        };
        let lines = folded(&text, self.width());
        let shown = lines.len().min(ANSWER_LINES_MAX).min(usize::from(self.area.height));
        self.row = self.area.height - shown as u16;
        for line in &lines[..shown] {
            // It lies over what was drawn there.
            self.line(&" ".repeat(self.width()), Style::new());
            self.row -= 1;
            self.line(line, style);
        }
    }
}

/// What does not fit loses its beginning: the end of a path tells more. The number before it stays.
fn tail(cell: &str, room: usize) -> String {
    let length = cell.chars().count();
    if length <= room {
        return cell.to_owned();
    }
    let (number, rest) = match cell.split_once(' ') {
        Some((number, rest)) if number.len() < 4 && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            (format!("{number} "), rest)
        }
        _ => (String::new(), cell),
    };
    let keep = room.saturating_sub(number.len() + 2);
    let skip = rest.chars().count().saturating_sub(keep);
    format!("{number}..{}", rest.chars().skip(skip).collect::<String>())
}

/// How long until the queue is full, at the rate of the last half minute.
fn time_left(look: &Look, row: &Row, bytes: u64, limit: u64) -> Option<String> {
    const OVER_MS: u64 = 30_000;
    let samples = look.daemons.get(&row.daemon)?.series(row.uuid()?, false);
    let last = samples.last()?;
    let first = samples.iter().find(|one| one.at_unix_ms + OVER_MS >= last.at_unix_ms)?;
    let seconds = (last.at_unix_ms - first.at_unix_ms) as f64 / 1000.0;
    let grown = last.queued_bytes.checked_sub(first.queued_bytes).filter(|grown| *grown > 0)?;
    // A moment says nothing.
    if seconds < 5.0 {
        return None;
    }
    let left = limit.saturating_sub(bytes) as f64 / (grown as f64 / seconds);
    let left = std::time::Duration::try_from_secs_f64(left).ok()?;
    Some(format!("  queue       full in {} at this rate\n", units::duration(left)))
}

/// A text on lines of this width, from the second on moved in.
fn folded(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut last) = (Vec::new(), String::new());
    for word in text.split_whitespace() {
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::replace(&mut last, format!("  {word}")));
        } else if last.is_empty() {
            last.push_str(word);
        } else {
            last.push(' ');
            last.push_str(word);
        }
    }
    lines.push(last);
    lines
}
