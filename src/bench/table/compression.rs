//! What compression saves and costs, as text.

use super::super::compression::Compressed;
use super::grid::{Grid, number, ratio};

pub fn compression(lines: &[Compressed]) -> String {
    let mut grid = Grid::default();
    grid.rows.push(["", "level", "shorter", "source", "target"].map(str::to_owned).to_vec());
    for line in lines {
        grid.rows.push(vec![
            line.content.to_owned(),
            format!("{} ({})", line.level, line.level.method()),
            ratio(line.ratio),
            number(line.packing),
            number(line.unpacking),
        ]);
    }
    grid.text()
}
