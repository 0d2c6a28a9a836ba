//! The page. Pure.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::sketch::{Sketch, sketch};
use crate::cli::status::{clock, label};
use crate::cli::top::host::Look;
use crate::cli::top::rows::{Row, TITLES, What};
use crate::control::Severity;
use crate::events::{Code, What as Told};
use crate::units;

pub(super) const STYLE: &str = include_str!("style.css");

/// Events that are shown.
const EVENTS_MAX: usize = 40;

/// Whether a browser is to ask again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Each 5 s.
    Goes,
    Still,
}

/// See the module.
pub(super) fn page(look: &Look, pace: Pace) -> String {
    let rows = look.rows();
    let (verdict, worst) = look.verdict(&rows);
    let refresh = match pace {
        Pace::Goes => "<meta http-equiv=\"refresh\" content=\"5\">\n",
        Pace::Still => "",
    };
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n{refresh}\
         <title>{} standin</title>\n<link rel=\"stylesheet\" href=\"style.css\">\n</head>\n<body>\n\
         <header><h1>standin</h1><p class=\"verdict {}\">{}</p></header>\n<main>\n",
        mark(worst),
        class(worst),
        escaped(&verdict)
    );
    page += &needs(&rows);
    page += &table(&rows);
    rows.iter().for_each(|row| page += &details(look, row));
    page += &events(look);
    page += &footer(look, pace);
    page
}

/// In the title, so that a tab in the background shows it.
fn mark(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "✓",
        Severity::Warning => "(!)",
        Severity::Critical => "(X)",
    }
}

fn class(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "ok",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

/// What a person should do something about, the worst first.
fn needs(rows: &[Row]) -> String {
    let mut all: Vec<(Severity, &str, String, &str)> = Vec::new();
    for row in rows {
        let needs = row.findings.iter().filter(|finding| finding.severity > Severity::Ok);
        let next = |code: Code| match &row.what {
            What::NotServed(next) => next.as_str(),
            What::Connection(..) | What::Replica(..) | What::Daemon(_) => code.next(),
        };
        all.extend(needs.map(|one| (one.severity, row.daemon.as_str(), one.text.clone(), next(one.code))));
        // One that was killed, or does not answer, says nothing of itself.
        let is_silent = matches!(row.what, What::Daemon(None)) || row.cells[2].starts_with("mute ");
        if is_silent && row.severity > Severity::Ok {
            let text = format!("The daemon says nothing: {}.", row.cells[2]);
            let next = "See `standin status` and its log; if it hangs for good, kill it. Start it again.";
            all.push((row.severity, &row.daemon, text, next));
        }
    }
    all.sort_by_key(|(severity, ..)| std::cmp::Reverse(*severity));
    let mut seen = BTreeSet::new();
    let mut items = String::new();
    for (severity, daemon, text, next) in all {
        // What a daemon says of itself stands with each of its rows.
        if seen.insert((daemon, text.clone())) {
            let _ = writeln!(
                items,
                "<li><strong class=\"{}\">{}</strong> <b>{}</b>: {} <span class=\"next\">{}</span></li>",
                class(severity),
                label(severity),
                escaped(daemon),
                escaped(&text),
                escaped(next)
            );
        }
    }
    match items.is_empty() {
        true => String::new(),
        false => format!("<section><h2>What needs you</h2>\n<ul class=\"needs\">\n{items}</ul></section>\n"),
    }
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "<p><code>standin protect DIR --to TARGET</code> starts one.</p>\n".into();
    }
    let heads: String = TITLES.iter().fold("<th scope=\"col\">IS</th>".into(), |text, title| {
        format!("{text}<th scope=\"col\">{}</th>", escaped(title))
    });
    let line = |row: &Row| {
        let word = if row.severity == Severity::Ok { "ok" } else { label(row.severity) };
        let cells: String = row.cells[1..].iter().map(|cell| format!("<td>{}</td>", escaped(cell))).collect();
        format!(
            "<tr><td class=\"{}\">{word}</td><th scope=\"row\">{}</th>{cells}</tr>\n",
            class(row.severity),
            escaped(&row.cells[0])
        )
    };
    let lines: String = rows.iter().map(line).collect();
    format!(
        "<section><h2>Sets and replicas</h2>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Sets and \
         replicas\"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{lines}</tbody></table></div></section>\n"
    )
}

/// The curves of a connection.
fn details(look: &Look, row: &Row) -> String {
    let (Some(uuid), Some(known)) = (row.uuid(), look.daemons.get(&row.daemon)) else { return String::new() };
    let (samples, now) = (known.series(uuid, false), look.now_unix_ms);
    let seconds = |value: f64| format!("{value:.1} s");
    let size = |value: f64| units::size(value as u64);
    let rate = |value: f64| format!("{}/s", units::size(value as u64));
    let curves = [
        sketch("behind", &samples, now, |one| one.lag_seconds.map(f64::from), seconds),
        sketch("queued", &samples, now, |one| Some(one.queued_bytes as f64), size),
        sketch("captured", &samples, now, |one| Some(one.captured_rate.into()), rate),
        sketch("sent", &samples, now, |one| Some(one.sent_rate.into()), rate),
    ];
    let figure = |Sketch { name, drawing, words }: &Sketch| {
        format!("<figure>{drawing}<figcaption><b>{name}</b> {}</figcaption></figure>\n", escaped(words))
    };
    let figures: String = curves.iter().map(figure).collect();
    format!(
        "<section><h2>{} {}: the last 15 minutes</h2>\n<div class=\"curves\">\n{figures}</div></section>\n",
        escaped(&row.cells[0]),
        escaped(&row.cells[1])
    )
}

fn events(look: &Look) -> String {
    let mut records: Vec<_> = look
        .daemons
        .iter()
        .flat_map(|(daemon, known)| known.records.iter().map(move |record| (daemon, record)))
        .collect();
    records.sort_by_key(|(_, record)| std::cmp::Reverse(record.event.last_unix_ms));
    if records.is_empty() {
        return "<section><h2>Events</h2>\n<p>None since the daemons were started.</p></section>\n".into();
    }
    let line = |(daemon, record): &(&String, &crate::events::Record)| {
        let event = &record.event;
        let (word, class) = match record.what {
            Told::Begin | Told::Once => (label(event.severity), class(event.severity)),
            Told::End => ("over", "ok"),
        };
        format!(
            "<tr><td>{}</td><td class=\"{class}\">{word}</td><th scope=\"row\">{}</th><td>{}</td></tr>\n",
            clock(event.last_unix_ms),
            escaped(daemon),
            escaped(&event.text)
        )
    };
    let lines: String = records.iter().take(EVENTS_MAX).map(line).collect();
    format!(
        "<section><h2>Events</h2>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Events\"><table>\n<thead><tr>\
         <th scope=\"col\">AT</th><th scope=\"col\">IS</th><th scope=\"col\">SET</th><th scope=\"col\">WHAT</th></tr></thead>\n\
         <tbody>\n{lines}</tbody></table></div></section>\n"
    )
}

fn footer(look: &Look, pace: Pace) -> String {
    let pace = match pace {
        Pace::Goes => "anew each 5 s; <a href=\"still\">keep it as it is</a>",
        Pace::Still => "<a href=\"./\">let it go on</a>",
    };
    format!(
        "</main>\n<footer><p>As of {}, {pace}. standin {}; this page changes nothing: commands do.</p></footer>\n</body>\n</html>\n",
        clock(look.now_unix_ms),
        env!("CARGO_PKG_VERSION")
    )
}

/// As text of a page, or within an attribute.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            // What would turn a line around, or end it.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => safe.push('\u{fffd}'),
            letter if letter.is_control() => safe.push('\u{fffd}'),
            letter => safe.push(letter),
        }
    }
    safe
}
