//! The report as text.

use super::cold::Cooling;
use super::line::{Line, Variant};
use super::replication::{Replication, Wire};
use super::report::{LineReport, Report};
use super::stats::Spread;
use super::stream::{Stream, StreamRound};

/// Columns of text: the first to the left, the others to the right.
#[derive(Default)]
struct Grid {
    rows: Vec<Vec<String>>,
}

/// The whole report.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    if !report.lines.is_empty() {
        text += &rates(report);
        if report.sizes.rounds > 1 {
            text += &format!("\nRatios of {} rounds: least–most; fastest to fastest\n", report.sizes.rounds);
            text += &spreads(report);
        }
    }
    if report.lines.iter().any(|line| line.line.counts_cpu()) {
        text += "\nProcessor seconds per GiB written: writer + process behind the mount\n";
        text += &cpu(report);
    }
    if let Some(replication) = &report.replication {
        text += "\nReplication\n";
        text += &self::replication(replication);
    }
    if let Some(stream) = &report.stream {
        text += "\nStream of 1 MiB writes to a target daemon on this machine: medians\n";
        text += &self::stream(stream);
    }
    text + &notes(report)
}

/// The medians, and the medians of the ratios.
fn rates(report: &Report) -> String {
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
                row.push(variant.ratio.map_or_else(dash, |ratio| self::ratio(ratio.median)));
            }
        }
        grid.rows.push(row);
    }
    grid.text()
}

fn spreads(report: &Report) -> String {
    let range = |(spread, best): (Spread, f64)| {
        format!("{}–{}; {}", ratio(spread.min), ratio(spread.max), ratio(best))
    };
    let cell = |line: &LineReport, at: usize| {
        let variant = &line.variants[at];
        variant.ratio.zip(variant.best_ratio).map(range)
    };
    per_variant(&report.lines, cell, Variant::Native)
}

fn cpu(report: &Report) -> String {
    let mut grid = Grid::default();
    grid.rows.push(
        std::iter::once(String::new())
            .chain(report.variants.iter().map(|variant| variant.name().to_owned()))
            .collect(),
    );
    for line in report.lines.iter().filter(|line| line.line.counts_cpu()) {
        let cells = line.variants.iter().map(|variant| match (variant.cpu, variant.variant) {
            (None, _) => dash(),
            (Some(cpu), Variant::Native) => format!("{:.2}", cpu.writer),
            (Some(cpu), _) => format!("{:.2} + {:.2}", cpu.writer, cpu.daemon),
        });
        grid.rows.push(std::iter::once(line.title.to_owned()).chain(cells).collect());
    }
    grid.text()
}

/// A table with one column a variant, but for one.
fn per_variant(
    lines: &[LineReport],
    cell: impl Fn(&LineReport, usize) -> Option<String>,
    without: Variant,
) -> String {
    let mut grid = Grid::default();
    let Some(first) = lines.first() else { return String::new() };
    let columns: Vec<usize> =
        (0..first.variants.len()).filter(|at| first.variants[*at].variant != without).collect();
    let head = columns.iter().map(|at| first.variants[*at].variant.name().to_owned());
    grid.rows.push(std::iter::once(String::new()).chain(head).collect());
    for line in lines {
        let cells = columns.iter().map(|at| cell(line, *at).unwrap_or_else(dash));
        grid.rows.push(std::iter::once(line.title.to_owned()).chain(cells).collect());
    }
    grid.text()
}

fn replication(replication: &Replication) -> String {
    let Replication { lag, files, rewrites, rename, idle_udp_bytes_per_second: idle } = replication;
    let wire = |wire: &Wire| {
        let bytes = wire.udp_sent_bytes + wire.udp_received_bytes;
        format!(
            "{} packets, {} bytes in UDP ({} to the replica)",
            count(wire.packets),
            count(bytes),
            count(wire.udp_sent_bytes)
        )
    };
    let rows = [
        (
            format!("lag of {} appends of 4 KiB", lag.samples_ms.len()),
            format!("p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms", lag.p50_ms, lag.p99_ms, lag.max_ms),
        ),
        (
            format!("{} files of 4 KiB", count(files.count)),
            format!(
                "created in {:.2} s, identical {:.1} ms later",
                files.create_seconds,
                files.identical_after_seconds * 1e3
            ),
        ),
        (
            format!("{} random rewrites of 4 KiB in {} MiB", rewrites.count, rewrites.file_bytes >> 20),
            format!(
                "written in {:.3} s, readable after {:.3} s; {}",
                rewrites.write_seconds,
                rewrites.readable_seconds,
                wire(&rewrites.wire)
            ),
        ),
        (
            format!("rename of a directory of {} files", count(rename.files)),
            format!("there after {:.1} ms; {}", rename.seconds * 1e3, wire(&rename.wire)),
        ),
        ("link at rest".into(), format!("{idle:.0} bytes a second in UDP, part of the above")),
    ];
    pairs(&rows)
}

fn stream(stream: &Stream) -> String {
    let mib = stream.bytes as f64 / f64::from(1 << 20);
    let median = |value: &dyn Fn(&StreamRound) -> f64| {
        let values: Vec<f64> = stream.rounds.iter().map(value).collect();
        Spread::of(&values).map_or(0.0, |spread| spread.median)
    };
    let cpu = |seconds: f64| format!("{:.2} s", seconds * 1024.0 / mib);
    pairs(&[
        (
            format!("{} MiB until durable there", count(stream.bytes >> 20)),
            format!(
                "{} MiB/s; write and fsync in the plain directory beside {} MiB/s; ratio {:.2}",
                number(median(&|round| mib / round.durable_seconds)),
                number(median(&|round| mib / round.native_seconds)),
                median(&|round| round.native_seconds / round.durable_seconds)
            ),
        ),
        (
            "lag meanwhile".into(),
            format!(
                "p50 {:.0} ms, p99 {:.0} ms, most {:.0} ms and {} MiB",
                median(&|round| round.lag_p50_ms),
                median(&|round| round.lag_p99_ms),
                median(&|round| round.lag_max_ms),
                number(median(&|round| round.behind_max_bytes as f64 / f64::from(1 << 20)))
            ),
        ),
        (
            "processor time per GiB".into(),
            format!(
                "source {}, target {}",
                cpu(median(&|round| round.source_cpu_seconds)),
                cpu(median(&|round| round.target_cpu_seconds))
            ),
        ),
    ])
}

/// Lines of a name and what belongs to it.
fn pairs(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(what, found)| format!("{what:width$}  {found}\n")).collect()
}

fn notes(report: &Report) -> String {
    let machine = &report.machine;
    let mut notes = vec![format!(
        "{}, Linux {}, {} processors, load {:.1} before and {:.1} after; standin {}",
        machine.file_system,
        machine.kernel,
        machine.cpus,
        machine.load_before,
        machine.load_after,
        report.version
    )];
    if !report.lines.is_empty() {
        notes.push(format!(
            "{}; files of {} MiB, {} small files; ratios are to native, round by round",
            match report.sizes.rounds {
                1 => "one round".to_owned(),
                rounds => format!("medians of {rounds} rounds"),
            },
            report.sizes.size_bytes >> 20,
            count(report.sizes.files)
        ));
    }
    if report.lines.iter().any(|line| line.line == Line::ColdRead) {
        let way = |cooling: &Cooling| match cooling {
            Cooling::Advice => "posix_fadvise(DONTNEED) on backing file and mount",
            Cooling::DropCaches => "/proc/sys/vm/drop_caches",
            Cooling::Impossible => "nothing: this file system lives in memory, the cold reads are warm",
        };
        let ways: Vec<&str> = report.cooling.iter().map(way).collect();
        notes.push(format!("caches emptied by {}", ways.join(" and ")));
    }
    notes.extend(report.notes.iter().cloned());
    std::iter::once("\n".to_owned()).chain(notes.iter().map(|note| format!("- {note}\n"))).collect()
}

impl Grid {
    fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let len = |cell: &String| cell.chars().count();
        let widths: Vec<usize> = (0..columns)
            .map(|at| self.rows.iter().filter_map(|row| row.get(at)).map(len).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, &width))| match at {
                0 => format!("{cell:width$}"),
                _ => format!("  {cell:>width$}"),
            });
            let line: String = cells.collect();
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

fn dash() -> String {
    "–".into()
}

/// Three digits that count; thousands are parted.
fn number(value: f64) -> String {
    match value {
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => count(value.round() as u64),
    }
}

fn ratio(value: f64) -> String {
    if value < 9.995 { format!("{value:.2}") } else { format!("{value:.1}") }
}

/// `1,234,567`.
fn count(number: u64) -> String {
    crate::units::count(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::{Machine, Sample, Sizes};
    use std::time::Duration;

    fn samples(work: u64, seconds: &[f64]) -> Vec<Sample> {
        let sample = |seconds: &f64| Sample {
            daemon_cpu_seconds: seconds / 2.0,
            writer_cpu_seconds: seconds / 4.0,
            ..Sample::elapsed(work, Duration::from_secs_f64(*seconds))
        };
        seconds.iter().map(sample).collect()
    }

    fn report() -> Report {
        let lines = vec![
            LineReport::new(
                Line::Write1M,
                vec![
                    (Variant::Native, samples(1 << 30, &[0.5, 1.0, 0.25])),
                    (Variant::Null, samples(1 << 30, &[1.0, 1.0, 1.0])),
                ],
            ),
            LineReport::new(
                Line::Stat,
                vec![
                    (Variant::Native, samples(1_500_000, &[1.0, 1.0, 1.0])),
                    (Variant::Null, samples(7, &[1.0, 2.0, 4.0])),
                ],
            ),
        ];
        Report {
            version: "1.2.3",
            machine: Machine {
                file_system: "ext4".into(),
                kernel: "6.1".into(),
                cpus: 2,
                load_before: 0.1,
                load_after: 1.0,
            },
            sizes: Sizes { size_bytes: 1 << 30, files: 2000, rounds: 3 },
            variants: vec![Variant::Native, Variant::Null],
            lines,
            cooling: Vec::new(),
            replication: None,
            stream: None,
            notes: vec!["A note.".into()],
        }
    }

    #[test]
    fn a_report_reads_as_a_table() {
        let expected = "
                                  native   null  ratio
1 MiB sequential write  MiB/s      2,048  1,024   0.50
stat, warm              ops/s  1,500,000   3.50   0.00

Ratios of 3 rounds: least–most; fastest to fastest
                                   null
1 MiB sequential write  0.25–1.00; 0.25
stat, warm              0.00–0.00; 0.00

Processor seconds per GiB written: writer + process behind the mount
                        native         null
1 MiB sequential write    0.15  0.25 + 0.50

- ext4, Linux 6.1, 2 processors, load 0.1 before and 1.0 after; standin 1.2.3
- medians of 3 rounds; files of 1024 MiB, 2,000 small files; ratios are to native, round by round
- A note.
";
        assert_eq!(format!("\n{}", text(&report())), expected);
    }

    #[test]
    fn the_json_has_every_sample() {
        let json = serde_json::to_value(report()).unwrap();
        let null = &json["lines"][0]["variants"][1];
        assert_eq!(json["lines"][0]["line"], "write-1m");
        assert_eq!(null["variant"], "null");
        assert_eq!(null["samples"].as_array().unwrap().len(), 3);
        assert_eq!(null["ratio"]["median"], 0.5);
        assert_eq!(null["cpu"]["daemon"], 0.5);
        assert!(json["lines"][1]["variants"][1]["cpu"].is_null());
    }

    #[test]
    fn numbers_keep_what_counts() {
        for (value, text) in [(0.5, "0.50"), (12.34, "12.3"), (999.6, "1,000"), (123_456.0, "123,456")] {
            assert_eq!(number(value), text);
        }
        for (value, text) in [(0.004, "0.00"), (0.987, "0.99"), (9.996, "10.0"), (12.34, "12.3")] {
            assert_eq!(ratio(value), text);
        }
    }
}
