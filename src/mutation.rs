//! Damage to bytes that were good, from a seed: what every decoder of the product is tried with.
//! Only in the test binary. `STANDIN_TEST_SEED` replays one seed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::random::Random;

/// Tries with as many seeds as a plain run takes; `STANDIN_TEST_ROUNDS` asks for more.
pub fn rounds(usual: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    match number("STANDIN_TEST_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("STANDIN_TEST_ROUNDS").unwrap_or(usual)).collect(),
    }
}

/// Runs `check` with damage of each seed; a panic is told with its seed.
#[track_caller]
pub fn with_damage(usual: u64, mut check: impl FnMut(&mut Damage)) {
    for seed in rounds(usual) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(&mut Damage::of(seed)))) {
            eprintln!("STANDIN_TEST_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// A reproducible source of damage.
pub struct Damage(Random);

impl Damage {
    pub fn of(seed: u64) -> Damage {
        Damage(Random::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    pub fn number(&mut self) -> u64 {
        self.0.number()
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound.max(1) as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// Good bytes after one to four steps of damage; now and then unharmed.
    pub fn damaged(&mut self, good: &[u8], others: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        for _ in 0..self.below(5) {
            self.step(&mut bytes, others);
        }
        bytes
    }

    fn step(&mut self, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
        let at = self.below(bytes.len());
        let span = self.below(bytes.len() - at).min(64);
        match self.below(9) {
            0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            2 if !bytes.is_empty() => bytes[at] = *self.pick(&[0, 1, 0x7f, 0x80, 0xff, b'/', b'.', b'"']),
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..at + span)),
            5 => {
                let copy = bytes[at..at + span].to_vec();
                drop(bytes.splice(at..at, copy));
            }
            6 => {
                // A length, mostly.
                let edge =
                    *self.pick(&[0, 1, 255, 256, 4097, 65_537, 1 << 20, 1 << 31, u64::MAX >> 1, u64::MAX]);
                let width = *self.pick(&[4usize, 8]);
                let at = self.below(bytes.len().saturating_sub(width));
                for (byte, new) in bytes[at..].iter_mut().zip(&edge.to_le_bytes()[..width]) {
                    *byte = *new;
                }
            }
            7 if !others.is_empty() => {
                let other = self.pick(others).clone();
                bytes.truncate(at);
                bytes.extend_from_slice(&other[self.below(other.len())..]);
            }
            _ => bytes.extend((0..self.below(40)).map(|_| self.number() as u8)),
        }
    }
}
