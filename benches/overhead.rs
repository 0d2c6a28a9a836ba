//! `cargo bench`: a small `standin bench`, with the program of this build. Needs root and FUSE.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use standin::bench::{self, Settings};

fn main() -> ExitCode {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        if let Err(error) = signal_hook::flag::register(signal, stop.clone()) {
            eprintln!("signals cannot be caught: {error}");
            return ExitCode::FAILURE;
        }
    }
    let settings =
        Settings { size: 64 << 20, files: 500, rounds: 3, replication: true, ..Settings::default().quick() };
    let program = Path::new(env!("CARGO_BIN_EXE_standin"));
    match bench::run(Path::new(env!("CARGO_TARGET_TMPDIR")), program, &settings, &stop) {
        Ok(report) => {
            println!("{}", bench::text(&report));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
