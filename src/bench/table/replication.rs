//! How the replica follows, as text.

use super::super::replication::{Replication, Wire};
use super::super::stats::Spread;
use super::super::stream::{Stream, StreamRound};
use super::grid::{count, number, pairs};

pub fn replication(replication: &Replication) -> String {
    let Replication { lag, lag_busy, files, rewrites, rename, idle_udp_bytes_per_second: idle } = replication;
    let wire = |wire: &Wire| {
        let bytes = wire.udp_sent_bytes + wire.udp_received_bytes;
        format!(
            "{} packets, {} bytes on the link ({} to the replica)",
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
            "the same while others write 100 MB/s".into(),
            format!(
                "p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms",
                lag_busy.p50_ms, lag_busy.p99_ms, lag_busy.max_ms
            ),
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
        ("link at rest".into(), format!("{idle:.0} bytes a second, part of the above")),
    ];
    pairs(&rows)
}

pub fn stream(stream: &Stream) -> String {
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
