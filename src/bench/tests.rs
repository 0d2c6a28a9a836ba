//! A report in which nothing is empty, for tests of what is made of it.

use std::time::Duration;

use super::Report;
use super::against;
use super::cold::Cooling;
use super::compression::Compressed;
use super::line::Line;
use super::mirror::{Copied, CopierReport, Meanwhile, Mirror, Step, StepReport};
use super::replication::{Files, Lag, Rename, Replication, Rewrites, Wire};
use super::report::{LineReport, Machine, Sample, Sizes};
use super::stream::{Stream, StreamRound};
use super::variant::Variant;
use crate::words::Compression;

pub fn full_report() -> Report {
    let sample = |seconds: f64| Sample {
        daemon_cpu_seconds: seconds,
        p50_us: Some(1.0),
        p99_us: Some(2.0),
        program_cpus: vec![0],
        daemon_cpus: vec![1],
        ..Sample::elapsed(1 << 30, Duration::from_secs_f64(seconds))
    };
    let samples = |seconds: f64| vec![sample(seconds); 3];
    let variants = [(Variant::Native, 0.5), (Variant::Null, 1.0), (Variant::NullAgainst, 2.0)];
    let lines = vec![LineReport::new(
        Line::Write1M,
        variants.into_iter().map(|(variant, seconds)| (variant, samples(seconds))).collect(),
    )];
    let mut against = against::in_one_run("other".into(), &lines);
    against.notes.push("A note.".into());
    let mut compared = against::with_earlier("earlier".into(), &lines, |_, _| Some(samples(1.0)));
    compared.notes.push("A note.".into());
    Report {
        version: "1.2.3",
        machine: Machine {
            file_system: "ext4".into(),
            kernel: "6.1".into(),
            cpus: 2,
            pinned_to: Some(0),
            load_before: 0.1,
            load_after: 1.0,
        },
        sizes: Sizes { size_bytes: 1 << 30, files: 2000, rounds: 3 },
        variants: variants.map(|(variant, _)| variant).to_vec(),
        lines,
        cooling: vec![Cooling::Advice],
        replication: Some(replication()),
        replication_other: Some(replication()),
        stream: Some(stream()),
        mirror: Some(mirror()),
        compression: vec![Compressed {
            content: "text",
            level: Compression::Fast,
            ratio: 2.0,
            packing: 1.0,
            unpacking: 0.5,
        }],
        against: Some(against),
        compared: Some(compared),
        notes: vec!["A note.".into()],
    }
}

fn replication() -> Replication {
    let wire = Wire { packets: 1, udp_sent_bytes: 2, udp_received_bytes: 3, seconds: 1.0 };
    Replication {
        lag: lag(),
        lag_busy: lag(),
        files: Files { count: 1, create_seconds: 1.0, identical_after_seconds: 1.0 },
        rewrites: Rewrites { count: 1, file_bytes: 1 << 20, write_seconds: 1.0, readable_seconds: 1.0, wire },
        rename: Rename { files: 1, seconds: 1.0, wire },
        idle_udp_bytes_per_second: 1.0,
    }
}

fn lag() -> Lag {
    Lag { p50_ms: 1.0, p99_ms: 2.0, max_ms: 3.0, samples_ms: vec![1.0] }
}

fn mirror() -> Mirror {
    let rounds = vec![Copied { source_memory: Some(1), target_memory: Some(2), ..Copied::default() }];
    let step = StepReport { step: Step::SmallFirst, rounds };
    Mirror {
        files: 1000,
        large_bytes: 1 << 20,
        changed_blocks: 1,
        copiers: vec![CopierReport { name: "standin", steps: vec![step] }],
        meanwhile: Meanwhile::default(),
    }
}

fn stream() -> Stream {
    let round = StreamRound {
        native_seconds: 1.0,
        write_seconds: 1.0,
        durable_seconds: 1.0,
        source_cpu_seconds: 1.0,
        target_cpu_seconds: 1.0,
        lag_p50_ms: 1.0,
        lag_p99_ms: 1.0,
        lag_max_ms: 1.0,
        behind_max_bytes: 1,
    };
    Stream { bytes: 1 << 30, rounds: vec![round] }
}
