//! A curve as a drawing (SVG), with the same in words. Pure.

use std::fmt::Write;

use crate::events::Sample;

/// Of the drawing, in its own units: one a second, and a hundredth of the most.
const WIDTH: u64 = 900;
const HEIGHT: f64 = 100.0;
/// Between two samples that are joined.
const GAP_MS: u64 = 5_000;

/// See the module.
pub(super) struct Sketch {
    pub name: &'static str,
    pub drawing: String,
    /// As "now 0.0 s, at most 3.1 s".
    pub words: String,
}

/// The last 900 seconds before this moment. Where the value was not known there is no line.
pub(super) fn sketch(
    name: &'static str,
    samples: &[Sample],
    now_unix_ms: u64,
    of: impl Fn(&Sample) -> Option<f64>,
    said: impl Fn(f64) -> String,
) -> Sketch {
    let begin = now_unix_ms.saturating_sub(WIDTH * 1000);
    let shown: Vec<(u64, Option<f64>)> = samples
        .iter()
        .filter_map(|sample| Some((sample.at_unix_ms.checked_sub(begin)?, of(sample))))
        .collect();
    let most = shown.iter().filter_map(|(_, value)| *value).max_by(f64::total_cmp);
    let word = |value: Option<f64>| value.map_or("unknown".to_owned(), &said);
    let words = match shown.last() {
        None => "nothing measured yet".to_owned(),
        Some((_, now)) => format!("now {}, at most {}", word(*now), word(most)),
    };
    let label = format!("{name}, the last 15 minutes: {words}");
    let mut drawing = format!(
        "<svg role=\"img\" aria-label=\"{label}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\">"
    );
    for line in lines(&shown) {
        let points = line.iter().fold(String::new(), |mut text, (at, value)| {
            let share = most.filter(|most| *most > 0.0).map_or(0.0, |most| value / most);
            let x = (*at as f64 / 1000.0).min(WIDTH as f64);
            let _ = write!(text, "{x:.0},{:.1} ", (1.0 - share) * (HEIGHT - 2.0) + 1.0);
            text
        });
        let _ = write!(drawing, "<polyline points=\"{}\"/>", points.trim_end());
    }
    drawing += "</svg>";
    Sketch { name, drawing, words }
}

/// Parts in which each second is known.
fn lines(shown: &[(u64, Option<f64>)]) -> Vec<Vec<(u64, f64)>> {
    let mut lines: Vec<Vec<(u64, f64)>> = Vec::new();
    let mut last = None;
    for (at, value) in shown {
        let is_next = last.is_some_and(|last| at.saturating_sub(last) <= GAP_MS);
        last = value.is_some().then_some(*at);
        let Some(value) = value else { continue };
        match lines.last_mut().filter(|_| is_next) {
            Some(line) => line.push((*at, *value)),
            None => lines.push(vec![(*at, *value)]),
        }
    }
    // A point alone becomes a line of no length, which is drawn.
    for line in lines.iter_mut().filter(|line| line.len() == 1) {
        line.extend_from_within(..);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(samples: &[(u64, Option<f32>)]) -> Sketch {
        let sample = |(at, lag_seconds): &(u64, Option<f32>)| Sample {
            at_unix_ms: *at,
            lag_seconds: *lag_seconds,
            ..Sample::default()
        };
        let samples: Vec<Sample> = samples.iter().map(sample).collect();
        let of = |one: &Sample| one.lag_seconds.map(f64::from);
        sketch("behind", &samples, 1_000_000, of, |value| format!("{value:.1} s"))
    }

    #[test]
    fn what_was_not_known_is_no_line() {
        let known = [(99_000, Some(50.0)), (100_000, Some(0.0)), (101_000, Some(4.0)), (102_000, None)];
        let sketch = drawn(&[&known[..], &[(103_000, Some(2.0)), (999_000, Some(1.0))]].concat());
        assert_eq!(sketch.words, "now 1.0 s, at most 4.0 s", "the first was before");
        let lines: Vec<&str> = sketch.drawing.split("points=").skip(1).collect();
        assert_eq!(lines.len(), 3, "{}", sketch.drawing);
        assert!(lines[0].starts_with("\"0,99.0 1,1.0\""), "{}", sketch.drawing);
        assert!(lines[1].starts_with("\"3,50.0 3,50.0\"") && lines[2].starts_with("\"899,74.5 899,74.5\""));
        assert!(drawn(&[(999_000, None)]).words.starts_with("now unknown, at most unknown"));
        let none = drawn(&[]);
        assert!(none.words == "nothing measured yet" && !none.drawing.contains("polyline"));
    }
}
