//! The first copy, as text.

use super::super::first_copy::{CopyRound, FirstCopy};
use super::super::stats::Spread;
use super::grid::{Grid, number};

pub fn copies(copy: &FirstCopy) -> String {
    let mut grid = Grid::default();
    let head = ["", "first", "processor", "nothing changed", "processor"];
    grid.rows.push(head.map(str::to_owned).to_vec());
    for copier in &copy.copiers {
        let median = |of: fn(&CopyRound) -> f64| {
            let values: Vec<f64> = copier.rounds.iter().map(of).collect();
            format!("{} s", number(Spread::of(&values).map_or(0.0, |spread| spread.median)))
        };
        grid.rows.push(vec![
            copier.name.to_owned(),
            median(|round| round.first_seconds),
            median(|round| round.first_cpu_seconds),
            median(|round| round.unchanged_seconds),
            median(|round| round.unchanged_cpu_seconds),
        ]);
    }
    grid.text()
}
