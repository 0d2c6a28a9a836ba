//! Which profile suits this machine: what a call of the mount costs, however little it does.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::time::{Duration, Instant};

/// From here on two of them are ten times what a small write costs without a mount.
const DEAR: Duration = Duration::from_micros(20);
const ROUNDS: usize = 500;

/// What it costs to wake another thread that sleeps: the middle of many.
pub(super) fn wake_up() -> io::Result<Duration> {
    let (mut there_end, mut there) = io::pipe()?;
    let (mut back_end, mut back) = io::pipe()?;
    std::thread::scope(move |scope| {
        // It ends with `there`, which this closure owns.
        scope.spawn(move || while pass(&mut there_end, &mut back).is_ok() {});
        let mut rounds = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let began = Instant::now();
            there.write_all(b"x")?;
            back_end.read_exact(&mut [0; 1])?;
            rounds.push(began.elapsed());
        }
        rounds.sort_unstable();
        Ok(rounds[ROUNDS / 2] / 2)
    })
}

/// Hands one byte on. Errors: there is none any more.
fn pass(from: &mut PipeReader, to: &mut PipeWriter) -> io::Result<()> {
    let mut byte = [0; 1];
    from.read_exact(&mut byte)?;
    to.write_all(&byte)
}

pub(super) fn advice(wake_up: Duration) -> String {
    let micros = wake_up.as_micros();
    let cost =
        format!("to wake another thread takes {micros} µs here, and each call of the mount does that twice");
    match wake_up >= DEAR {
        true => format!(
            "{cost}: --profile batch for programs that write in small pieces and sync what must last (databases, \
             builds, logs). The default profile where each write has to be on its way when it returns."
        ),
        false => format!(
            "{cost}: the default profile. --profile batch still pays for programs that write in small pieces and \
             sync what must last."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dear_wake_up_speaks_for_batch() {
        let batch = advice(Duration::from_micros(45));
        assert!(batch.contains("takes 45 µs") && batch.contains("twice: --profile batch for"), "{batch}");
        let default = advice(Duration::from_micros(5));
        assert!(default.contains("twice: the default profile"), "{default}");
        assert!(wake_up().unwrap() > Duration::ZERO);
    }
}
