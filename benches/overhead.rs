//! `cargo bench`: a small `standin bench`, with the program of this build. Needs root and FUSE.
//! `cargo bench -- --against BINARY` measures another version beside it, and judges each line.

use std::path::{Path, PathBuf};
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
    let against = against();
    let rounds = if against.is_some() { 8 } else { 3 };
    let replication = against.is_none();
    let quick = Settings::default().quick();
    let settings = Settings { size: 64 << 20, files: 500, rounds, replication, against, ..quick };
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

/// What follows the word; cargo gives words of its own, too.
fn against() -> Option<PathBuf> {
    let mut words = std::env::args_os().skip_while(|word| word != "--against");
    words.nth(1).map(PathBuf::from)
}
