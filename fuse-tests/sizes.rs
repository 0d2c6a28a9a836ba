//! What programs are told of the size of a file that grows meanwhile.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::host::{Protected, Setup, heavy};
use crate::random::setting;
use crate::sys::Mapping;

const RECORD: usize = 100;
const READERS: usize = 4;

/// How the file grows.
#[derive(Clone, Copy, Debug)]
struct Way {
    is_readable: bool,
    flags: i32,
    /// Of one write.
    records: u64,
}

const WAYS: [Way; 5] = [
    Way { is_readable: true, flags: libc::O_APPEND, records: 1 },
    Way { is_readable: false, flags: libc::O_APPEND, records: 1 },
    // Several requests a call, because one holds a MiB.
    Way { is_readable: true, flags: 0, records: 25_000 },
    Way { is_readable: false, flags: 0, records: 25_000 },
    // The kernel opens those as any other.
    Way { is_readable: false, flags: libc::O_APPEND | libc::O_DSYNC, records: 7 },
];

fn record(number: u64) -> Vec<u8> {
    format!("{number:099}\n").into_bytes()
}

/// Asks for the size, maps so much and looks at the last record, as a viewer of logs does. Gives how
/// often it looked.
fn watch(path: &Path, ended: &AtomicBool) -> Result<u64, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let (mut last, mut looked) = (0, 0);
    while !ended.load(Relaxed) {
        let size = file.metadata().map_err(|error| error.to_string())?.len() as usize;
        if size < last {
            return Err(format!("the size went back from {last} to {size}"));
        }
        last = size;
        let Some(number) = (size / RECORD).checked_sub(1) else { continue };
        let mapping = Mapping::read_only(&file, size).map_err(|error| format!("map {size}: {error}"))?;
        let mut found = [0; RECORD];
        mapping.load(number * RECORD, &mut found).map_err(|error| format!("load near {size}: {error}"))?;
        if found[..] != record(number as u64) {
            return Err(format!("record {number} of size {size}: {:?}", String::from_utf8_lossy(&found)));
        }
        looked += 1;
    }
    Ok(looked)
}

fn grow(path: &Path, way: Way, until: Instant) -> u64 {
    let mut options = File::options();
    let mut file =
        options.read(way.is_readable).write(true).custom_flags(way.flags).open(path).expect("the file");
    let mut number = 0;
    while Instant::now() < until && number < 1 << 22 {
        let records: Vec<u8> = (number..number + way.records).flat_map(record).collect();
        file.write_all(&records).expect("room on the disk");
        number += way.records;
    }
    number
}

/// A viewer of a log was killed by SIGBUS, five times of five: it was told a size that the kernel
/// learnt of a moment later. Beside a program that only writes the size went back, and there were
/// zeros where a record was. `STANDIN_GROWTH_MS` looks for longer.
#[test]
fn a_file_that_grows_can_be_mapped_to_its_size() {
    let _alone = heavy();
    let protected = Protected::start(Setup::default());
    let time = Duration::from_millis(setting("STANDIN_GROWTH_MS").unwrap_or(2000));
    for (name, way) in WAYS.into_iter().enumerate() {
        let path = protected.mount.join(format!("log{name}"));
        File::create_new(&path).expect("a file");
        let ended = AtomicBool::new(false);
        let (written, watched) = std::thread::scope(|scope| {
            let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(|| watch(&path, &ended))).collect();
            let written = grow(&path, way, Instant::now() + time);
            ended.store(true, Relaxed);
            let watched: Vec<_> =
                readers.into_iter().map(|reader| reader.join().expect("a reader")).collect();
            (written, watched)
        });
        println!("{way:?}: {written} records, looks {watched:?}");
        assert!(watched.iter().all(Result::is_ok), "{way:?}: {watched:?}");
        std::fs::remove_file(&path).expect("the file");
    }
    protected.assert_in_sync();
}

/// Nobody waits for long to be told a size: not for a writer that sleeps or has ended, and not for
/// one that keeps its processor busy.
#[test]
fn a_size_is_told_soon_after_the_last_write() {
    let protected = Protected::start(Setup::default());
    let path = protected.mount.join("log");
    let mut file = File::create_new(&path).expect("a file");
    let ask = || {
        let path = path.clone();
        std::thread::spawn(move || path.metadata().expect("the file").len()).join().expect("a thread")
    };
    let mut waited = Duration::ZERO;
    for round in 1..=200u64 {
        file.write_all(&record(round)).expect("room on the disk");
        let began = Instant::now();
        assert_eq!(ask(), round * RECORD as u64);
        waited = waited.max(began.elapsed());
    }
    println!("waited {waited:?} at worst");
    drop(file);
    assert_eq!(ask(), 200 * RECORD as u64);
}

/// Calls of a MiB, one after the other, were taken for one that goes on: a program was told the size from before all
/// of them, although the others had returned long ago.
#[test]
fn what_a_write_has_returned_is_in_the_size() {
    let _alone = heavy();
    let protected = Protected::start(Setup::default());
    let time = Duration::from_millis(setting("STANDIN_GROWTH_MS").unwrap_or(1500));
    for len in [524_288, 700_000, 1 << 20, (1 << 20) - 1, 2_500_000] {
        let path = protected.mount.join(format!("calls{len}"));
        let mut file = File::create_new(&path).expect("a file");
        let (done, ended) = (AtomicU64::new(0), AtomicBool::new(false));
        let asked = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (call, until) = (vec![b'z'; len], Instant::now() + time);
                while Instant::now() < until {
                    file.write_all(&call).expect("room on the disk");
                    done.fetch_add(len as u64, SeqCst);
                    std::thread::sleep(Duration::from_millis(30));
                }
                ended.store(true, SeqCst);
            });
            let mut asked = 0;
            while !ended.load(SeqCst) {
                let returned = done.load(SeqCst);
                let told = path.metadata().expect("the file").len();
                assert!(told >= returned, "calls of {len}: {returned} bytes were written, and {told} told");
                asked += 1;
            }
            asked
        });
        println!("calls of {len}: asked {asked} times");
        assert!(asked > 5, "calls of {len}: {asked} answers");
        std::fs::remove_file(&path).expect("the file");
    }
    protected.assert_in_sync();
}
