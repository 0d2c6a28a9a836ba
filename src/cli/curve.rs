//! A curve over time, some lines high. Pure.

use crate::events::Sample;

/// From nothing to all of a cell: eighths of a block.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The same in plain letters.
const LETTERS: [char; 3] = ['.', ':', '#'];
/// Where the value was not known.
const UNKNOWN: char = '?';

/// What is drawn.
pub(in crate::cli) struct Curve {
    /// From the top down, each `width` columns.
    pub lines: Vec<String>,
    /// The most in the time that is shown; `None`: never known.
    pub most: Option<f64>,
    /// At its end.
    pub now: Option<f64>,
}

/// The frame of a curve.
#[derive(Clone, Copy)]
pub(in crate::cli) struct Frame {
    pub now_unix_ms: u64,
    /// The time that all columns together are.
    pub span_ms: u64,
    pub width: usize,
    pub height: usize,
    pub ascii: bool,
}

/// Each column has the most of its part of the time; it is empty where nothing was measured.
pub(in crate::cli) fn curve(samples: &[Sample], frame: Frame, of: impl Fn(&Sample) -> Option<f64>) -> Curve {
    let begin = frame.now_unix_ms.saturating_sub(frame.span_ms);
    let mut columns: Vec<Column> = vec![Column::Empty; frame.width];
    for sample in samples {
        let Some(after) = sample.at_unix_ms.checked_sub(begin) else { continue };
        // What was measured a moment after the question belongs to its last column.
        let at = (u128::from(after) * frame.width as u128 / u128::from(frame.span_ms.max(1))) as usize;
        let Some(column) = columns.get_mut(at.min(frame.width.saturating_sub(1))) else { continue };
        *column = column.with(of(sample));
    }
    let known = columns.iter().filter_map(|column| column.value());
    let most = known.max_by(f64::total_cmp);
    let steps = if frame.ascii { LETTERS.as_slice() } else { BLOCKS.as_slice() };
    let line = |row: usize| -> String {
        // Rows below this one.
        let below = frame.height - 1 - row;
        columns.iter().map(|column| column.cell(most, below, frame.height, steps)).collect()
    };
    let lines = (0..frame.height).map(line).collect();
    Curve { lines, most, now: samples.last().and_then(of) }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Column {
    Empty,
    Unknown,
    Value(f64),
}

impl Column {
    fn with(self, value: Option<f64>) -> Column {
        match (self, value) {
            (Column::Value(old), Some(new)) => Column::Value(old.max(new)),
            (Column::Value(old), None) => Column::Value(old),
            (Column::Empty | Column::Unknown, Some(new)) => Column::Value(new),
            (Column::Empty | Column::Unknown, None) => Column::Unknown,
        }
    }

    fn value(self) -> Option<f64> {
        match self {
            Column::Value(value) => Some(value),
            Column::Empty | Column::Unknown => None,
        }
    }

    /// What nothing is has the lowest step: a line is to be seen where something was measured.
    fn cell(self, most: Option<f64>, below: usize, height: usize, steps: &[char]) -> char {
        let value = match self {
            Column::Empty => return ' ',
            Column::Unknown => return if below == 0 { UNKNOWN } else { ' ' },
            Column::Value(value) => value,
        };
        let all = (steps.len() * height) as f64;
        let share = most.filter(|most| *most > 0.0).map_or(0.0, |most| value / most);
        let filled = ((share * all).ceil() as usize).max(1);
        match filled.saturating_sub(below * steps.len()) {
            0 => ' ',
            part => steps[part.min(steps.len()) - 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(samples: &[(u64, Option<f32>)], height: usize, ascii: bool) -> Vec<String> {
        let sample = |(at, lag_seconds): &(u64, Option<f32>)| Sample {
            at_unix_ms: *at,
            lag_seconds: *lag_seconds,
            ..Sample::default()
        };
        let samples: Vec<Sample> = samples.iter().map(sample).collect();
        let frame = Frame { now_unix_ms: 1_010_000, span_ms: 10_000, width: 10, height, ascii };
        curve(&samples, frame, |one| one.lag_seconds.map(f64::from)).lines
    }

    #[test]
    fn a_column_is_a_part_of_the_time() {
        let samples = [
            (999_000, Some(99.0)), // before
            (1_002_100, Some(0.0)),
            (1_003_200, Some(8.0)),
            (1_003_900, Some(2.0)), // the most counts
            (1_004_000, None),
            (1_009_999, Some(4.0)),
            (1_010_300, Some(1.0)), // after: in the last one
        ];
        assert_eq!(drawn(&samples, 1, false), ["  ▁█?    ▄"]);
        assert_eq!(drawn(&samples, 2, false), ["   █      ", "  ▁█?    █"]);
        assert_eq!(drawn(&samples, 1, true), ["  .#?    :"]);
        assert_eq!(drawn(&[], 1, false), [" ".repeat(10)]);
        assert_eq!(drawn(&[(1_002_000, None)], 1, false), ["  ?       "]);
    }
}
