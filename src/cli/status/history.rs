//! `standin status --history`: the last quarter of an hour and the last day of each connection.

use serde_json::json;

use crate::cli::args::{self, Common};
use crate::cli::find::find;
use crate::cli::{Outcome, output};
use crate::control::ClientError;
use crate::events::{MINUTES, SECONDS, Sample, Series};
use crate::failure::Failure;
use crate::units;

/// Columns of a curve.
const COLUMNS: usize = 60;
/// From nothing to the most.
const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

pub(super) fn history(common: &Common, args: &args::Status) -> Outcome {
    let found = find(common, args.set.as_deref())?;
    let failed = |error: ClientError| {
        Failure::new(
            format!("{} does not tell its history: {error}.", found.status.name),
            "Nothing was changed.",
            "A daemon of an older version keeps none.",
        )
    };
    let connections = found.client()?.history().map_err(failed)?;
    if common.json {
        output::json(&json!({ "name": found.status.name, "connections": connections }));
    } else if connections.is_empty() {
        output::text("There is no history: sources keep one of each connection, from their start on.");
    } else {
        output::text(&connections.iter().map(text).collect::<Vec<_>>().join("\n"));
    }
    Ok(0)
}

fn text(series: &Series) -> String {
    let id = series.connection.get(..8).unwrap_or(&series.connection);
    let mut text = format!("connection {id}  {}\n", series.target);
    let parts = [
        (&series.seconds, SECONDS, "15 minutes, each second"),
        (&series.minutes, MINUTES, "24 hours, each minute"),
    ];
    for (samples, full, what) in parts {
        text += &format!("  the last {what} ({} of {full})\n", samples.len());
        let seconds = |value: f64| format!("{value:.1} s");
        let bytes = |value: f64| units::size(value as u64);
        let rate = |value: f64| format!("{}/s", units::size(value as u64));
        text += &curve("behind", samples, |one| one.lag_seconds.map(f64::from), seconds);
        text += &curve("queued", samples, |one| Some(one.queued_bytes as f64), bytes);
        text += &curve("captured", samples, |one| Some(one.captured_rate.into()), rate);
        text += &curve("sent", samples, |one| Some(one.sent_rate.into()), rate);
    }
    text
}

/// One line; each column has the most of its part of the time, `?` where it was not known.
fn curve(
    name: &str,
    samples: &[Sample],
    of: impl Fn(&Sample) -> Option<f64>,
    words: impl Fn(f64) -> String,
) -> String {
    if samples.is_empty() {
        return format!("    {name:<9} (nothing yet)\n");
    }
    let most_of = |part: &[Sample]| part.iter().filter_map(&of).max_by(f64::total_cmp);
    let most = most_of(samples);
    let part = samples.len().div_ceil(COLUMNS);
    let column = |part: &[Sample]| match (most_of(part), most) {
        (Some(value), Some(most)) if most > 0.0 => {
            let step = (value / most * (STEPS.len() - 1) as f64).ceil() as usize;
            STEPS[step.min(STEPS.len() - 1)]
        }
        (Some(_), _) => STEPS[0],
        (None, _) => '?',
    };
    let curve: String = samples.chunks(part).map(column).collect();
    let said = |value: Option<f64>| value.map_or("unknown".to_owned(), &words);
    let now = samples.last().and_then(&of);
    format!("    {name:<9} {curve}  now {}, at most {}\n", said(now), said(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_the_most_of_each_part() {
        let sample = |at: u64, lag_seconds| Sample { at_unix_ms: at, lag_seconds, ..Sample::default() };
        let mut samples: Vec<Sample> = (0..900).map(|at| sample(at, Some(0.0))).collect();
        samples[0].lag_seconds = Some(8.0);
        samples[450].lag_seconds = Some(4.0);
        samples[885..].iter_mut().for_each(|one| one.lag_seconds = None);
        let line =
            curve("behind", &samples, |one| one.lag_seconds.map(f64::from), |value| format!("{value} s"));
        let curve: Vec<char> = line.split_whitespace().nth(1).unwrap().chars().collect();
        assert_eq!((curve.len(), curve[0], curve[1], curve[30], curve[59]), (60, '█', '▁', '▅', '?'));
        assert!(line.ends_with("now unknown, at most 8 s\n"), "{line}");
    }
}
