//! A replica that is read back: the very copy that a source makes, of a tree in which nothing changes.
//!
//! ```text
//!  replica at rest ── LiveCopy ── ReadingLane ──> ReadingFeed ── link ──> who restores
//!                        ^                                                    │
//!                        └──────────── Answer: Wanted, Doubt, Complete <──────┘
//! ```
//! Nothing of the replica is written, and nothing outside of it is ever shown: the copy stays on its file
//! system and follows no link, and what is doubted is listed only where it lies inside. Whoever starts it
//! keeps the replica's own source away meanwhile.

mod giving;
mod lane;

use std::fs::File;
use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

pub(super) use self::giving::give;
pub use self::lane::{Lane, ReadingFeed};
use crate::apply::Applier;
use crate::limits::LIVE_ANSWERS_MAX;
use crate::link::Waker;
use crate::packet::{DataState, OfCopy};
use crate::resync::{Answer, CopyError, CopyProgress, CopyReport, LiveCopy, Still, Wanted};
use crate::sets::Matcher;

/// Ids of what is read are of this epoch: they mean something in this copy, and in one that goes on with
/// it, alone.
const BIRTH_EPOCH: u32 = 1;

/// A replica that is being read, by a thread of its own. Dropped, that one ends with its next item.
pub struct Reading {
    answers: Sender<Answer>,
    ended: Receiver<Result<CopyReport, CopyError>>,
}

/// Whom a replica is read for, before anything is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// A consistent state of its source alone.
    Good,
    /// Whatever is there.
    Anything,
}

/// Brings a replica to rest, so that it is its source as of one position.
///
/// Errors: one line; it cannot be read.
pub fn come_to_rest(applier: &mut Applier, accept: Accept) -> Result<(), String> {
    applier.come_to_rest();
    let data = applier.data_shown();
    let reason = data.reason.as_deref().unwrap_or("nobody knows why");
    match (data.state, accept) {
        (DataState::Empty, _) => Err("nothing was ever copied to it".into()),
        (DataState::Good, _) | (DataState::Bad, Accept::Anything) => Ok(()),
        (DataState::Bad, Accept::Good) => {
            Err(format!("it is no consistent copy ({reason}): add --accept-bad-data to take what is there"))
        }
    }
}

impl Reading {
    /// Starts to read `root`, a directory opened for reading; what it shows goes into the lane.
    /// `rules`: those of the set, where it has some. `progress`: counts what was shown.
    pub fn start(
        root: File,
        lane: Lane,
        waker: Waker,
        rules: Option<Arc<Matcher>>,
        progress: Arc<CopyProgress>,
    ) -> io::Result<Reading> {
        let (answers, heard) = bounded(LIVE_ANSWERS_MAX);
        let (outcome, ended) = bounded(1);
        let sink = lane.into_link(waker);
        let read = move || {
            let still = Arc::new(Still(rules));
            let copy = LiveCopy::new(root.into(), still, BIRTH_EPOCH, None, sink, heard, progress)?;
            copy.of_replica().run()
        };
        std::thread::Builder::new().name("read".into()).spawn(move || drop(outcome.send(read())))?;
        Ok(Reading { answers, ended })
    }

    /// Hands on what is said of the copy.
    ///
    /// Errors: one line; more is said than was asked.
    pub fn hear(&self, said: OfCopy) -> Result<(), String> {
        let answer = match said {
            OfCopy::Wanted { listing, objects } => Answer::Wanted(Wanted { listing, objects }),
            OfCopy::Doubt { directories } => Answer::Doubt(directories),
            OfCopy::Complete { end } => Answer::Complete(end),
        };
        match self.answers.try_send(answer) {
            Ok(()) => Ok(()),
            // Its outcome says why it does not listen.
            Err(error) if error.is_disconnected() => Ok(()),
            Err(_) => Err("it answers listings that it was not sent".into()),
        }
    }

    /// The end of the copy, once.
    pub fn ended(&self) -> &Receiver<Result<CopyReport, CopyError>> {
        &self.ended
    }
}
