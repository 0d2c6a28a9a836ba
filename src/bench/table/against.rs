//! This program beside another one, as text.

use super::super::against::{Against, Comparison};
use super::super::verdict::{Judged, Wanted};
use super::grid::{Grid, dash, ratio};

pub fn against(against: &Against) -> String {
    let mut text =
        format!("\nBeside {}: this one's median to the other's (where the middle lies)\n", against.other);
    text += &comparisons(&against.comparisons);
    against.notes.iter().for_each(|note| text += &format!("- {note}\n"));
    text
}

fn comparisons(comparisons: &[Comparison]) -> String {
    let mut grid = Grid::default();
    let head = ["", "", "rate", "", "daemon's processor time", ""];
    grid.rows.push(head.map(str::to_owned).to_vec());
    for comparison in comparisons {
        let mut row = vec![comparison.line.title().to_owned(), comparison.variant.name().to_owned()];
        row.extend(cells(comparison.rate, Wanted::More));
        row.extend(cells(comparison.daemon_cpu, Wanted::Less));
        grid.rows.push(row);
    }
    grid.text()
}

fn cells(judged: Option<Judged>, wanted: Wanted) -> [String; 2] {
    let Some(judged) = judged else { return [dash(), dash()] };
    let range = format!("{} ({}–{})", ratio(judged.ratio), ratio(judged.low), ratio(judged.high));
    [range, judged.verdict.word(wanted).to_owned()]
}
