//! Changes that cannot be made twice, noted before they are made, for whoever serves their request again.

use std::collections::HashMap;
use std::sync::atomic::{
    AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::time::{Duration, Instant};

use crate::sys::SharedWords;

/// Changes of names that may be under way at once: as many as threads perform them.
pub const INTENTS_MAX: usize = 512;
/// Words that they take.
pub const INTENT_WORDS: usize = 3 * INTENTS_MAX;

/// In the place of a number: some thread is about to store one.
const TAKEN: u64 = u64::MAX;

/// Long after the kernel has sent again what was under way.
const SETTLED: Duration = Duration::from_secs(60);

/// What a request was about to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// A name gets a new object.
    Birth,
    /// A name, and what it holds, go.
    Removal,
    /// The object with this inode number gets another name.
    Move(u64),
    /// An object gets one more name.
    Link,
    /// An attribute is set that must not be there, or removed.
    Attribute,
}

impl Intent {
    fn words(self) -> (u64, u64) {
        match self {
            Intent::Birth => (1, 0),
            Intent::Removal => (2, 0),
            Intent::Move(inode) => (3, inode),
            Intent::Link => (4, 0),
            Intent::Attribute => (5, 0),
        }
    }

    fn of(kind: u64, inode: u64) -> Option<Intent> {
        Some(match kind {
            1 => Intent::Birth,
            2 => Intent::Removal,
            3 => Intent::Move(inode),
            4 => Intent::Link,
            5 => Intent::Attribute,
            _ => return None,
        })
    }
}

/// ```text
/// numbers of requests (0: free) | kinds | inode numbers      each INTENTS_MAX words
/// ```
/// A number is stored last. It is the kernel's, which never gives one twice; cleared when the request is answered,
/// so that what is found of a process that is gone is what it had not answered, or just had.
pub struct Intents {
    /// First word.
    from: usize,
    before: HashMap<u64, Intent>,
    opened: Instant,
}

impl Intents {
    pub fn open(words: &SharedWords, from: usize) -> Intents {
        let intent = |at: usize| {
            let number = words.word(from + at).load(Acquire);
            // It was killed before it could say for which.
            let _ = words.word(from + at).compare_exchange(TAKEN, 0, AcqRel, Relaxed);
            let (kind, inode) = (from + INTENTS_MAX + at, from + 2 * INTENTS_MAX + at);
            let intent = Intent::of(words.word(kind).load(Relaxed), words.word(inode).load(Relaxed))?;
            (number != 0 && number != TAKEN).then_some((number, intent))
        };
        Intents { from, before: (0..INTENTS_MAX).filter_map(intent).collect(), opened: Instant::now() }
    }

    /// The request is about to do this.
    pub fn note(&self, words: &SharedWords, number: u64, intent: Intent) {
        let first = number as usize / 2;
        let free = (0..INTENTS_MAX).map(|n| (first + n) % INTENTS_MAX).find(|at| self.take(words, *at));
        let Some(at) = free else {
            return log::error!("more changes of names are under way than threads perform");
        };
        let (kind, inode) = intent.words();
        words.word(self.from + INTENTS_MAX + at).store(kind, Relaxed);
        words.word(self.from + 2 * INTENTS_MAX + at).store(inode, Relaxed);
        words.word(self.from + at).store(number, Release);
    }

    /// It was answered, or has changed nothing.
    pub fn clear(&self, words: &SharedWords, number: u64) {
        let first = number as usize / 2;
        // Nearly always it is the first; one that was served before may have two.
        let is_again = self.before.contains_key(&number);
        for at in (0..INTENTS_MAX).map(|n| (first + n) % INTENTS_MAX) {
            let word = words.word(self.from + at);
            let is_it = word.load(Relaxed) == number;
            if is_it && word.compare_exchange(number, 0, AcqRel, Relaxed).is_ok() && !is_again {
                return;
            }
        }
    }

    /// What the process before was about to do for it.
    pub fn before(&self, number: u64) -> Option<Intent> {
        self.before.get(&number).copied()
    }

    fn take(&self, words: &SharedWords, at: usize) -> bool {
        let word: &AtomicU64 = words.word(self.from + at);
        let now = word.load(Relaxed);
        let is_free = now == 0 || (self.opened.elapsed() > SETTLED && self.before.contains_key(&now));
        is_free && word.compare_exchange(now, TAKEN, AcqRel, Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> SharedWords {
        let words = SharedWords::create(c"standin-test", 8 + INTENT_WORDS).unwrap();
        words.grow(8 + INTENT_WORDS).unwrap();
        words
    }

    #[test]
    fn the_next_process_finds_what_was_not_answered() {
        let words = words();
        let first = Intents::open(&words, 8);
        for number in 1..=200 {
            first.note(&words, number * 2, Intent::Move(number));
            if number % 3 != 0 {
                first.clear(&words, number * 2);
            }
        }
        assert_eq!(first.before(6), None, "it is not before itself");
        let next = Intents::open(&words, 8);
        for number in 1..=200 {
            let expected = (number % 3 == 0).then_some(Intent::Move(number));
            assert_eq!(next.before(number * 2), expected, "{number}");
        }
        // And the one after that, which may find it still unanswered.
        next.clear(&words, 6);
        let third = Intents::open(&words, 8);
        assert_eq!((third.before(6), third.before(12)), (None, Some(Intent::Move(6))));
    }

    #[test]
    fn kinds_come_back_as_they_were() {
        let words = words();
        let all = [Intent::Birth, Intent::Removal, Intent::Move(7), Intent::Link, Intent::Attribute];
        let first = Intents::open(&words, 8);
        all.iter().zip(1..).for_each(|(intent, number)| first.note(&words, number, *intent));
        let next = Intents::open(&words, 8);
        for (intent, number) in all.into_iter().zip(1..) {
            assert_eq!(next.before(number), Some(intent));
        }
    }

    #[test]
    fn each_has_a_place_of_its_own() {
        let words = words();
        let first = Intents::open(&words, 8);
        (1..=INTENTS_MAX as u64).for_each(|number| first.note(&words, number * 1024, Intent::Birth));
        let next = Intents::open(&words, 8);
        assert!((1..=INTENTS_MAX as u64).all(|number| next.before(number * 1024).is_some()));
    }
}
