//! The report as text.

mod against;
mod compression;
mod copies;
mod grid;
mod lines;
mod replication;

use super::cold::Cooling;
use super::line::Line;
use super::report::Report;
use grid::count;

/// The whole report.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    if !report.lines.is_empty() {
        text += &lines::rates(report);
        if report.sizes.rounds > 1 {
            text += &format!("\nRatios of {} rounds: least–most; fastest to fastest\n", report.sizes.rounds);
            text += &lines::spreads(report);
            if report.lines.iter().flat_map(|line| &line.variants).any(|variant| variant.too_noisy) {
                text += "!: the machine was too noisy to judge this one\n";
            }
        }
        let latencies = lines::latencies(report);
        if !latencies.is_empty() {
            text += "\nMicroseconds an op, p50 / p99, medians of the rounds\n";
            text += &latencies;
        }
        text += "\nProcessor time: program + process behind the mount\n";
        text += &lines::cpu(report);
        text += "\nProcessors of the program / of the threads behind the mount; switches and migrations an op or MiB\n";
        text += &lines::placement(report);
    }
    for against in [&report.against, &report.compared].into_iter().flatten() {
        text += &against::against(against);
    }
    if let Some(replication) = &report.replication {
        text += "\nReplication\n";
        text += &replication::replication(replication);
    }
    if let Some(replication) = &report.replication_other {
        text += "\nReplication by the other program\n";
        text += &replication::replication(replication);
    }
    if let Some(stream) = &report.stream {
        text += "\nStream of 1 MiB writes to a target daemon on this machine: medians\n";
        text += &replication::stream(stream);
    }
    if let Some(mirror) = &report.mirror {
        text += &format!(
            "\nCopies of {} files of 4 KiB, and of one of {} MiB, to a target daemon on this machine, until durable: medians\n",
            count(mirror.files),
            count(mirror.large_bytes >> 20)
        );
        text += &copies::copies(mirror);
    }
    if !report.compression.is_empty() {
        text +=
            "\nCompression: times shorter; seconds of processor time a GiB, to make it so and whole again\n";
        text += &compression::compression(&report.compression);
    }
    text + &notes(report)
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
    notes.push(match machine.pinned_to {
        Some(cpu) => format!("everything on processor {cpu}, as told"),
        None => "nothing was bound to a processor".to_owned(),
    });
    if !report.lines.is_empty() {
        notes.push(format!(
            "{}; files of {} MiB, {} small files; ratios are of the medians, to native",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::{LineReport, Machine, Sample, Sizes};
    use crate::bench::variant::Variant;
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
                pinned_to: None,
                load_before: 0.1,
                load_after: 1.0,
            },
            sizes: Sizes { size_bytes: 1 << 30, files: 2000, rounds: 3 },
            variants: vec![Variant::Native, Variant::Null],
            lines,
            cooling: Vec::new(),
            replication: None,
            replication_other: None,
            stream: None,
            mirror: None,
            compression: Vec::new(),
            against: None,
            compared: None,
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
1 MiB sequential write  0.25–1.00; 0.25 !
stat, warm              0.00–0.00; 0.00 !
!: the machine was too noisy to judge this one

Processor time: program + process behind the mount
                               native              null
1 MiB sequential write  s/GiB    0.15       0.25 + 0.50
stat, warm              µs/op    0.17  83,333 + 166,667

Processors of the program / of the threads behind the mount; switches and migrations an op or MiB
                                    null
1 MiB sequential write  – / –; 0.00 0.00
stat, warm              – / –; 0.00 0.00

- ext4, Linux 6.1, 2 processors, load 0.1 before and 1.0 after; standin 1.2.3
- nothing was bound to a processor
- medians of 3 rounds; files of 1024 MiB, 2,000 small files; ratios are of the medians, to native
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
        assert_eq!(json["lines"][1]["variants"][1]["cpu"]["unit"], "us/op");
    }
}
