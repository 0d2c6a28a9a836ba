//! Copies of whole trees, as text.

use super::super::mirror::{Copied, CopierReport, Mirror, Step};
use super::super::stats::Spread;
use super::grid::{Grid, number};

/// Bytes of a MiB, for people.
const MIB: f64 = (1 << 20) as f64;

pub fn copies(mirror: &Mirror) -> String {
    let mut grid = Grid::default();
    let mut head = vec![String::new()];
    for copier in &mirror.copiers {
        head.extend([copier.name.to_owned(), "processor".to_owned()]);
    }
    grid.rows.push(head);
    for step in Step::ALL {
        let mut row = vec![step.title().to_owned()];
        for copier in &mirror.copiers {
            row.push(median(copier, step, |copied| Some(copied.seconds), "s"));
            row.push(median(copier, step, |copied| Some(copied.cpu_seconds), "s"));
        }
        grid.rows.push(row);
    }
    grid.text() + &memory(mirror) + &meanwhile(mirror)
}

/// The most memory of both sides.
fn memory(mirror: &Mirror) -> String {
    let mut grid = Grid::default();
    grid.rows.push(["", "source", "target"].map(str::to_owned).to_vec());
    for copier in &mirror.copiers {
        for step in Step::ALL {
            let side = |of: fn(&Copied) -> Option<u64>| {
                median(copier, step, |copied| of(copied).map(|bytes| bytes as f64 / MIB), "MiB")
            };
            let row = [side(|copied| copied.source_memory), side(|copied| copied.target_memory)];
            if row.iter().all(|side| !side.is_empty()) {
                let [source, target] = row;
                grid.rows.push(vec![format!("{}: {}", copier.name, step.title()), source, target]);
            }
        }
    }
    format!("\nMemory at most\n{}", grid.text())
}

fn meanwhile(mirror: &Mirror) -> String {
    let meanwhile = &mirror.meanwhile;
    format!(
        "\n4 KiB writes through the mount: {} a second while the large file is copied ({} s), {} afterwards\n",
        number(meanwhile.copying_per_second),
        number(meanwhile.copy_seconds),
        number(meanwhile.afterwards_per_second)
    )
}

/// Empty where no round knows.
fn median(copier: &CopierReport, step: Step, of: impl Fn(&Copied) -> Option<f64>, unit: &str) -> String {
    let rounds = copier.steps.iter().filter(|report| report.step == step).flat_map(|report| &report.rounds);
    let values: Vec<f64> = rounds.filter_map(of).collect();
    Spread::of(&values).map_or(String::new(), |spread| format!("{} {unit}", number(spread.median)))
}
