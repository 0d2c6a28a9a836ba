//! `standin size` against a load that is known.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::{COMMAND_MAX, Protected, Setup, StopAtEnd, describe, heavy, output_within, standin};

/// What is written in one go, ten times a second.
const STEP: usize = 128 << 10;

#[test]
fn a_load_is_measured_as_it_is() {
    let _alone = heavy();
    let protected = Protected::start(Setup::default());
    let (stop, data) = (AtomicBool::new(false), vec![7; STEP]);
    let file = File::create(protected.mount.join("load")).expect("a file");
    let output = std::thread::scope(|scope| {
        let _end = StopAtEnd(&stop);
        let written = scope.spawn(|| {
            let (began, mut steps) = (Instant::now(), 0);
            while !stop.load(SeqCst) {
                file.write_all_at(&data, 0).expect("a write");
                steps += 1;
                std::thread::sleep((Duration::from_millis(100) * steps).saturating_sub(began.elapsed()));
            }
            f64::from(steps) * STEP as f64 / began.elapsed().as_secs_f64()
        });
        let mut command = standin(&protected.run);
        command.args(["size", "m", "--for", "10s", "--outage", "10s", "--outage", "1h", "--json"]);
        let output = output_within(&mut command, COMMAND_MAX);
        stop.store(true, SeqCst);
        (output, written.join().expect("it wrote"))
    });
    let (output, rate) = output;
    assert!(output.status.success(), "{}", describe(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mean = report["mean"].as_f64().expect("a number");
    assert!((mean / rate - 1.0).abs() < 0.05, "{mean} is not {rate}: {report:#}");
    let queue = |at: usize| report["outages"][at]["bytes"].as_f64().expect("a number");
    // What was written in that time, and a tenth more; scaled where it was not measured.
    for (at, seconds) in [(0, 10.0), (1, 3600.0)] {
        let bytes = queue(at);
        assert!((1.05..1.2).contains(&(bytes / (rate * seconds))), "{bytes} for {seconds} s: {report:#}");
    }
    assert_eq!(report["peak_hour"], Value::Null, "{report:#}");
}
