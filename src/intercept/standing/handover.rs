//! What a daemon leaves to the program that it becomes, and what came of that.
//!
//! ```text
//! word 0  state: nothing, left, taken, failed     1  process     2  descriptor of the program of before
//!      3  since when changes are held, ms of CLOCK_BOOTTIME
//!      4..9  position: epoch number and writer, incarnation, sequence, chain (all 0: none is left)
//!      9  rules by which that is the targets'    10  upgrades    11  pause of the last, ms    12  packets sent in it
//!     13  when it was, ms since 1970    14..18  version of the program of before    18..56  why it failed
//! ```
//! The position is one behind which nothing was given out, and which every target has that follows the stream: the
//! next daemon goes on from there as the same run. It is taken by the one that does, before it gives anything out, so
//! that whoever comes later does not count from it again.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::{HANDOVER, INTENTS, Standing};
use crate::packet::{Chain, Epoch, Incarnation, Position, Sequence};

const STATE: usize = HANDOVER;
const PROCESS: usize = HANDOVER + 1;
const PROGRAM: usize = HANDOVER + 2;
const HELD_SINCE: usize = HANDOVER + 3;
const POSITION: usize = HANDOVER + 4;
const TERMS: usize = HANDOVER + 9;
const UPGRADES: usize = HANDOVER + 10;
const PAUSE: usize = HANDOVER + 11;
const SENT: usize = HANDOVER + 12;
const AT: usize = HANDOVER + 13;
const FROM: usize = HANDOVER + 14;
const FROM_WORDS: usize = 4;
const WHY: usize = FROM + FROM_WORDS;
const WHY_WORDS: usize = INTENTS - WHY;

const _: () = assert!(WHY < INTENTS);

/// In the state's word.
const NOTHING: u64 = 0;
const LEFT: u64 = 1;
const FAILED: u64 = 2;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The process that goes on as another program.
    pub process: u32,
    /// A descriptor of the program that it was.
    pub program: i32,
    /// The version of that.
    pub from: String,
    /// Since when changes of programs wait: milliseconds as of `crate::clock::steady_ms`.
    pub held_since_ms: u64,
    /// Where the next one goes on; `None`: as after any other end.
    pub position: Option<Position>,
    /// What the set is by rules and removals.
    pub terms: u64,
    /// Packets that targets got while changes were held.
    pub sent: u64,
    /// Milliseconds since 1970.
    pub at_unix_ms: u64,
}

/// The last change of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgraded {
    /// How many there were since the mount was made.
    pub upgrades: u64,
    pub from: String,
    pub at_unix_ms: u64,
    /// How long changes of programs waited.
    pub pause_ms: u64,
    pub sent: u64,
    /// The new one did not come to serve: the one of before does.
    pub failed: Option<String>,
}

impl Standing {
    /// From here on this process is about to be another program.
    pub fn leave(&self, handover: &Handover) {
        let words = [
            (PROCESS, u64::from(handover.process)),
            (PROGRAM, handover.program as u64),
            (HELD_SINCE, handover.held_since_ms),
            (TERMS, handover.terms),
            (SENT, handover.sent),
            (AT, handover.at_unix_ms),
        ];
        words.into_iter().for_each(|(at, value)| self.head.word(at).store(value, Relaxed));
        self.leave_position(handover.position);
        self.store_text(FROM, FROM_WORDS, &handover.from);
        self.store_text(WHY, WHY_WORDS, "");
        self.head.word(STATE).store(LEFT, Release);
    }

    /// What a daemon before has left; `None`: it has ended in another way, or somebody has served since.
    pub fn left(&self) -> Option<Handover> {
        if self.head.word(STATE).load(Acquire) == NOTHING {
            return None;
        }
        let word = |at: usize| self.head.word(at).load(Relaxed);
        let [number, writer, run, sequence, chain] = std::array::from_fn(|n| word(POSITION + n));
        let position = (run != 0).then_some(Position {
            epoch: Epoch { number: number as u32, writer },
            incarnation: Incarnation(run),
            sequence: Sequence(sequence),
            chain: Chain(chain),
        });
        Some(Handover {
            process: word(PROCESS) as u32,
            program: word(PROGRAM) as i32,
            from: self.text(FROM, FROM_WORDS),
            held_since_ms: word(HELD_SINCE),
            position,
            terms: word(TERMS),
            sent: word(SENT),
            at_unix_ms: word(AT),
        })
    }

    /// Nobody else goes on from the position that was left.
    pub fn take_position(&self) {
        self.leave_position(None);
    }

    /// The program that this process became is not the one that will serve.
    pub fn note_failed(&self, why: &str) {
        self.store_text(WHY, WHY_WORDS, why);
        self.head.word(STATE).store(FAILED, Release);
    }

    /// One was noted for what is left.
    pub fn has_failed(&self) -> bool {
        self.head.word(STATE).load(Acquire) == FAILED
    }

    /// Programs are served again: what was left is over.
    pub fn note_upgraded(&self, now_ms: u64) -> Option<Upgraded> {
        let left = self.left()?;
        let has_failed = self.head.word(STATE).swap(NOTHING, AcqRel) == FAILED;
        self.head.word(PAUSE).store(now_ms.saturating_sub(left.held_since_ms), Relaxed);
        if !has_failed {
            self.store_text(WHY, WHY_WORDS, "");
        }
        self.head.word(UPGRADES).fetch_add(1, Relaxed);
        self.upgraded()
    }

    /// The last one that came to its end.
    pub fn upgraded(&self) -> Option<Upgraded> {
        let word = |at: usize| self.head.word(at).load(Relaxed);
        let why = self.text(WHY, WHY_WORDS);
        (word(UPGRADES) > 0).then(|| Upgraded {
            upgrades: word(UPGRADES),
            from: self.text(FROM, FROM_WORDS),
            at_unix_ms: word(AT),
            pause_ms: word(PAUSE),
            sent: word(SENT),
            failed: Some(why).filter(|why| !why.is_empty()),
        })
    }

    fn leave_position(&self, position: Option<Position>) {
        let Position { epoch, incarnation, sequence, chain } = position.unwrap_or_default();
        // Without a run there is none: it goes first, and comes last.
        self.head.word(POSITION + 2).store(0, Release);
        let words = [(0, u64::from(epoch.number)), (1, epoch.writer), (3, sequence.0), (4, chain.0)];
        words.into_iter().for_each(|(at, value)| self.head.word(POSITION + at).store(value, Relaxed));
        self.head.word(POSITION + 2).store(incarnation.0, Release);
    }

    /// What fits, up to the first byte of 0.
    fn store_text(&self, at: usize, words: usize, text: &str) {
        let mut end = text.len().min(words * 8);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut bytes = text.as_bytes()[..end].to_vec();
        bytes.resize(words * 8, 0);
        for (word, bytes) in bytes.as_chunks::<8>().0.iter().enumerate() {
            self.head.word(at + word).store(u64::from_le_bytes(*bytes), Relaxed);
        }
    }

    fn text(&self, at: usize, words: usize) -> String {
        let words = (at..at + words).map(|word| self.head.word(word).load(Relaxed).to_le_bytes());
        let bytes: Vec<u8> = words.flatten().take_while(|byte| *byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{KeepsFiles, Memory};
    use super::*;
    use crate::intercept::objects::NodeId;
    use std::os::fd::{BorrowedFd, OwnedFd};

    struct Nobody;

    impl KeepsFiles for Nobody {
        fn keep(&self, _: NodeId, _: BorrowedFd<'_>) {}
        fn let_go(&self, _: NodeId) {}
        fn process(&self) -> Option<OwnedFd> {
            None
        }
    }

    fn next(standing: &Standing) -> Standing {
        let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        let Memory { head, nodes, handles } = standing.memory();
        let memory = Memory { head: own(head), nodes: own(nodes), handles: own(handles) };
        Standing::take(memory, [], Box::new(Nobody)).unwrap()
    }

    fn left() -> Handover {
        let origin = Position::origin(Epoch { number: 3, writer: u64::MAX - 1 }, Incarnation(u64::MAX));
        Handover {
            process: 77,
            program: 5,
            from: "1.2.3-with-a-tail".into(),
            held_since_ms: 1000,
            position: Some(Position { sequence: Sequence(u64::MAX - 7), ..origin }),
            terms: 9,
            sent: 4,
            at_unix_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn the_next_program_finds_what_was_left_once() {
        let first = Standing::begin(Box::new(Nobody)).unwrap();
        assert_eq!((first.left(), first.upgraded()), (None, None));
        first.note_connection(&[7; 512], 44);
        first.leave(&left());
        let second = next(&first);
        assert_eq!(second.left(), Some(left()));
        second.take_position();
        let third = next(&second);
        assert_eq!(third.left(), Some(Handover { position: None, ..left() }));
        assert_eq!(third.upgraded(), None, "nobody has served yet");
        let upgraded = third.note_upgraded(1400).unwrap();
        assert_eq!((upgraded.upgrades, upgraded.pause_ms, upgraded.failed), (1, 400, None));
        assert_eq!((upgraded.from, upgraded.sent), ("1.2.3-with-a-tail".into(), 4));
        assert_eq!((third.left(), third.note_upgraded(1500)), (None, None));
        assert_eq!(next(&third).upgraded().unwrap().pause_ms, 400);
        assert_eq!(third.connection(), (vec![7; 512], 44), "what is beside it is as it was");
    }

    #[test]
    fn why_a_program_did_not_come_to_serve_is_known_until_the_next() {
        let standing = Standing::begin(Box::new(Nobody)).unwrap();
        standing.leave(&left());
        standing.note_failed(&"ä".repeat(400));
        assert_eq!(standing.left().unwrap().process, 77);
        let failed = standing.note_upgraded(2000).unwrap().failed.unwrap();
        assert!(failed.len() > 250 && failed.chars().all(|c| c == 'ä'), "{failed}");
        standing.leave(&left());
        assert_eq!(standing.note_upgraded(3000).unwrap().failed, None);
    }
}
