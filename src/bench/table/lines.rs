//! The lines, as text.

use super::super::line::Unit;
use super::super::report::{LineReport, Report};
use super::super::stats::Spread;
use super::super::variant::Variant;
use super::grid::{Grid, dash, number, ratio};

/// The medians, and the medians of the ratios.
pub fn rates(report: &Report) -> String {
    let mut grid = Grid::default();
    let mut head = vec![String::new(), String::new()];
    for variant in &report.variants {
        head.push(variant.name().into());
        if *variant != Variant::Native {
            head.push("ratio".into());
        }
    }
    grid.rows.push(head);
    for line in &report.lines {
        let mut row = vec![line.title.to_owned(), line.unit.to_owned()];
        for variant in &line.variants {
            row.push(variant.rate.map_or_else(dash, |rate| number(rate.median)));
            if variant.variant != Variant::Native {
                row.push(variant.ratio_of_medians.map_or_else(dash, ratio));
            }
        }
        grid.rows.push(row);
    }
    grid.text()
}

pub fn spreads(report: &Report) -> String {
    let range = |(spread, best): (Spread, f64)| {
        format!("{}–{}; {}", ratio(spread.min), ratio(spread.max), ratio(best))
    };
    let cell = |line: &LineReport, at: usize| {
        let variant = &line.variants[at];
        let noise = if variant.too_noisy { " !" } else { "" };
        variant.ratio.zip(variant.best_ratio).map(|both| range(both) + noise)
    };
    per_variant(&report.lines.iter().collect::<Vec<_>>(), cell, Some(Variant::Native))
}

/// Processor time of the program, and of the process behind the mount.
pub fn cpu(report: &Report) -> String {
    let mut grid = Grid::default();
    let head = report.variants.iter().map(|variant| variant.name().to_owned());
    grid.rows.push([String::new(), String::new()].into_iter().chain(head).collect());
    for line in &report.lines {
        let cells = line.variants.iter().map(|variant| match (variant.cpu, variant.variant) {
            (None, _) => dash(),
            (Some(cpu), Variant::Native) => number(cpu.writer),
            (Some(cpu), _) => {
                let target =
                    if cpu.target > 0.0 { format!(" + {}", number(cpu.target)) } else { String::new() };
                format!("{} + {}{target}", number(cpu.writer), number(cpu.daemon))
            }
        });
        let unit = match line.line.unit() {
            Unit::Bytes => "s/GiB",
            Unit::Ops => "µs/op",
        };
        grid.rows.push([line.title.to_owned(), unit.to_owned()].into_iter().chain(cells).collect());
    }
    grid.text()
}

/// A table with one column a variant, but for one of them.
fn per_variant(
    lines: &[&LineReport],
    cell: impl Fn(&LineReport, usize) -> Option<String>,
    without: Option<Variant>,
) -> String {
    let mut grid = Grid::default();
    let Some(first) = lines.first() else { return String::new() };
    let columns: Vec<usize> =
        (0..first.variants.len()).filter(|at| Some(first.variants[*at].variant) != without).collect();
    let head = columns.iter().map(|at| first.variants[*at].variant.name().to_owned());
    grid.rows.push(std::iter::once(String::new()).chain(head).collect());
    for line in lines {
        let cells = columns.iter().map(|at| cell(line, *at).unwrap_or_else(dash));
        grid.rows.push(std::iter::once(line.title.to_owned()).chain(cells).collect());
    }
    grid.text()
}

/// Of the lines whose ops are the program's own.
pub fn latencies(report: &Report) -> String {
    let cell = |line: &LineReport, at: usize| {
        let latency = line.variants[at].latency?;
        Some(format!("{} / {}", number(latency.p50_us), number(latency.p99_us)))
    };
    let known = |line: &&LineReport| line.variants.iter().any(|variant| variant.latency.is_some());
    let lines: Vec<&LineReport> = report.lines.iter().filter(known).collect();
    per_variant(&lines, cell, None)
}

/// Where the scheduler put them.
pub fn placement(report: &Report) -> String {
    let cpus = |cpus: &[usize]| match cpus {
        [] => dash(),
        _ => cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
    };
    let cell = |line: &LineReport, at: usize| {
        let placed = &line.variants[at].placed;
        let (program, daemon) = (cpus(&placed.program_cpus), cpus(&placed.daemon_cpus));
        Some(format!("{program} / {daemon}; {} {}", number(placed.switches), number(placed.migrations)))
    };
    per_variant(&report.lines.iter().collect::<Vec<_>>(), cell, Some(Variant::Native))
}
