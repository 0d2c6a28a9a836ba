//! What a driver has around it: links and walks. In the product each is a thread of its own, in a
//! simulator both are imitated.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crossbeam_channel::{Receiver, TryRecvError, bounded};

use crate::intercept::Volume;
use crate::limits::EXPECTED_MAX;
use crate::link::{LinkStats, Outgoing, Saved, SourceEvent, SourceLink, Waker};
use crate::packet::{Features, Ids, LaneItem, ObjectId, SourceMessage, Timestamp};
use crate::resync::{
    Answer, BlockOrder, CheckOrder, CopyError, CopyProgress, CopyReport, Gone, LiveCopy, Looks, NamesHad,
    Owed, Pace, Search, TargetHad, WhatIsOwed, expect_beside,
};
use crate::sets::Matcher;
use crate::source_side::feed::{PacketFeed, StampedLane};
use crate::source_side::remote::Route;
use crate::words::Compression;

/// See the module. Nothing here waits for the network or the disk, but the end of a link.
pub(crate) trait Surroundings {
    type Link: NetworkLink;

    /// Begins an attempt at a network connection that sends what `feed` gives. `attempt` counts
    /// failed ones in a row before this one.
    ///
    /// Errors: one line; it is tried again like a lost connection.
    fn dial(&mut self, attempt: u32, feed: PacketFeed) -> Result<Self::Link, String>;

    /// Begins to walk a tree elsewhere; the outcome comes on the channel. The walk ends early when
    /// its answers or its sink are gone.
    fn walk(&mut self, order: WalkOrder) -> io::Result<Receiver<Walked>>;

    /// From now on no more is sent over a network: bytes a second; `None`: as fast as it goes.
    fn limit(&mut self, rate: Option<u64>);

    /// From the next frame on payloads are compressed like this, where the target takes it.
    fn compress(&mut self, level: Compression);

    /// What that has saved since the connection was made.
    fn saved(&self) -> Saved;

    /// The rules of the set, if it has some: not all that is marked belongs to it then.
    fn rules(&self) -> Option<Arc<Matcher>>;

    /// What is removed stays on targets, in its place or aside.
    fn keeps_removed(&self) -> bool;

    /// A number that chance gives.
    fn random(&mut self) -> u64;
}

/// One network connection, from the first attempt to its end.
pub(crate) trait NetworkLink {
    /// What happens on it. Nothing of another link comes here.
    fn events(&self) -> &Receiver<SourceEvent>;

    /// Queues a control message; it goes as soon as the link is up. Never blocks.
    fn send(&self, message: SourceMessage);

    /// From now on the feed is asked for frames; `theirs`: what the target offers.
    fn start_feed(&self, theirs: Features);

    fn stats(&self) -> LinkStats;

    /// Wakes the feed.
    fn waker(&self) -> Waker;

    /// Ends it once the control messages have arrived, or at the latest after a bounded time.
    fn close(self, reason: &str);
}

/// What a walk is made of.
pub(crate) struct WalkOrder {
    /// Nothing is copied: this is compared.
    pub check: Option<CheckOrder>,
    /// What the target had, where a person is to be asked before most of it goes.
    pub names_had: Option<NamesHad>,
    pub ids: Ids,
    /// What changed since then is copied whatever the target compares.
    pub suspect_since: Timestamp,
    /// The content of these, too.
    pub suspects: Arc<HashSet<ObjectId>>,
    /// Before this copy.
    pub had: TargetHad,
    /// The tree was restored from the target.
    pub of_restored: bool,
    /// What the target is told of orphans.
    pub orphans: Option<LaneItem>,
    /// Content that the target has otherwise is compared before it is sent.
    pub by_blocks: Option<BlockOrder>,
    /// Only this is shown.
    pub owed: Option<OwedOrder>,
    /// Only what lies at this path below the root is shown, to a target that was good.
    pub part: Option<PathBuf>,
    pub sink: StampedLane,
    /// What the target says to it.
    pub answers: Receiver<Answer>,
    pub progress: Arc<CopyProgress>,
    /// As a person wants it, also while it runs.
    pub pace: Arc<Pace>,
}

/// What is owed when the order is given, and what programs have changed when the copy has begun. What was deleted
/// is deleted at the target, up to so many percent of all; with 0 it is moved aside.
pub(crate) struct OwedOrder {
    pub first: FirstOwed,
    pub now: WhatIsOwed,
    pub percent_max: Option<u8>,
}

pub(crate) enum FirstOwed {
    Known(Arc<Owed>),
    /// What has changed since a moment, for as long as the clock bears that out. It is looked for once.
    ByTime {
        since: Arc<dyn Fn() -> Option<Timestamp> + Send + Sync>,
        found: Arc<OnceLock<Owed>>,
    },
}

impl FirstOwed {
    /// What is owed before the copy has begun, and when it has.
    ///
    /// Errors: [`CopyError::ByTime`] and its kin, where everything has to be looked at.
    fn find(
        self,
        backing: OwnedFd,
        ids: Ids,
        now: WhatIsOwed,
        answers: &Receiver<Answer>,
    ) -> Result<(Arc<Owed>, WhatIsOwed), CopyError> {
        let (since, found) = match self {
            FirstOwed::Known(owed) => return Ok((owed, now)),
            FirstOwed::ByTime { since, found } => (since, found),
        };
        if found.get().is_none() {
            const SET: CopyError = CopyError::ByTime("the clock was set");
            let moment = since().ok_or(SET)?;
            let mut is_wanted = || is_unasked(answers);
            let owed = Search::new(backing, ids, moment, &now, &mut is_wanted)?.run()?;
            // What was stamped meanwhile by a clock that is set back says nothing of what was there before.
            if since() != Some(moment) {
                return Err(SET);
            }
            let _ = found.set(owed);
        }
        let all = move || Some(found.get()?.clone().and(now()?));
        let first = Arc::new(all().ok_or(CopyError::Owed)?);
        Ok((first, Arc::new(all)))
    }
}

/// Whether a copy that has not begun is still wanted: nobody has asked the target anything yet.
fn is_unasked(answers: &Receiver<Answer>) -> Result<(), Gone> {
    match answers.try_recv() {
        Err(TryRecvError::Empty) => Ok(()),
        Ok(_) | Err(TryRecvError::Disconnected) => Err(Gone),
    }
}

fn cannot_open(error: io::Error) -> CopyError {
    CopyError::Read { doing: "open", path: ".".into(), error }
}

/// How a walk ended.
pub(crate) type Walked = Result<CopyReport, CopyError>;

/// The links and threads of the product.
pub struct Around {
    pub route: Route,
    /// Opened for reading, not through the mount.
    pub backing: OwnedFd,
    pub volume: Arc<Volume>,
    pub outgoing: Outgoing,
}

#[cfg(test)]
impl Around {
    /// For a tree that nobody has mounted.
    pub(crate) fn of(route: Route, tree: &std::path::Path, queue: &Arc<crate::queue::Queue>) -> Around {
        let backing = || std::fs::File::open(tree).expect("the tree is there").into();
        let volume = Volume::new(backing(), queue.clone(), 1).expect("a volume");
        Around { route, backing: backing(), volume: Arc::new(volume), outgoing: Outgoing::default() }
    }
}

impl Surroundings for Around {
    type Link = SourceLink;

    fn dial(&mut self, attempt: u32, feed: PacketFeed) -> Result<SourceLink, String> {
        self.route.dial(attempt, feed, self.outgoing.clone())
    }

    fn limit(&mut self, rate: Option<u64>) {
        self.outgoing.limiter.set(rate);
    }

    fn compress(&mut self, level: Compression) {
        self.outgoing.compressor.set(level);
    }

    fn saved(&self) -> Saved {
        self.outgoing.compressor.saved()
    }

    fn walk(&mut self, order: WalkOrder) -> io::Result<Receiver<Walked>> {
        let WalkOrder {
            check,
            names_had,
            ids,
            suspect_since,
            suspects,
            had,
            of_restored,
            orphans,
            by_blocks,
            owed,
            part,
            sink,
            answers,
            progress,
            pace,
        } = order;
        let (backing, volume) = (self.backing.try_clone()?, self.volume.clone());
        let copy = move || {
            let since = Some(suspect_since);
            if let Some(had) = names_had {
                let missing = had.missing(backing.as_fd(), volume.matcher(), || is_unasked(&answers))?;
                if let Some(gone) = missing {
                    return Err(CopyError::ManyGone { gone, of: had.names });
                }
            }
            let owed = owed.map(|order| {
                let looked = order.first.find(
                    backing.try_clone().map_err(cannot_open)?,
                    ids.clone(),
                    order.now,
                    &answers,
                );
                looked.map(|(owed, now)| (owed, now, order.percent_max))
            });
            let owed = owed.transpose()?;
            if let Some((owed, ..)) = &owed {
                let until = Instant::now() + EXPECTED_MAX;
                let is_wanted = move || Instant::now() < until;
                expect_beside(owed.clone(), backing.as_fd(), progress.clone(), is_wanted);
            }
            let copy = LiveCopy::new(backing, volume, ids, since, sink, answers, progress)?;
            let copy = copy.suspecting(suspects).at_pace(pace).treating_orphans(orphans);
            let copy = if of_restored { copy.of_restored() } else { copy };
            match check {
                Some(order) => copy.compare(order).run(),
                None => match (owed, part) {
                    (Some((owed, now, percent_max)), _) => {
                        copy.by_blocks(by_blocks).only(owed, now, percent_max).run()
                    }
                    (None, Some(part)) => copy.by_blocks(by_blocks).of_part(&part)?.run(),
                    (None, None) => copy.to(had).by_blocks(by_blocks).run(),
                },
            }
        };
        let (outcome, ended) = bounded(1);
        std::thread::Builder::new().name("copy".into()).spawn(move || drop(outcome.send(copy())))?;
        Ok(ended)
    }

    fn keeps_removed(&self) -> bool {
        Looks::keeping(&*self.volume).is_some()
    }

    fn rules(&self) -> Option<Arc<Matcher>> {
        self.volume.matcher()
    }

    fn random(&mut self) -> u64 {
        crate::store::random_u64()
    }
}

impl NetworkLink for SourceLink {
    fn events(&self) -> &Receiver<SourceEvent> {
        SourceLink::events(self)
    }

    fn send(&self, message: SourceMessage) {
        SourceLink::send(self, message);
    }

    fn start_feed(&self, theirs: Features) {
        SourceLink::start_feed(self, theirs);
    }

    fn stats(&self) -> LinkStats {
        SourceLink::stats(self)
    }

    fn waker(&self) -> Waker {
        SourceLink::waker(self)
    }

    fn close(self, reason: &str) {
        SourceLink::close(self, reason);
    }
}
