//! Targets to which nothing is sent now (stopped by hand, outside of their schedule) are asked at the start
//! whether somebody else writes the set, as far as they answer in time.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};

use super::remote::Paired;
use crate::limits::CALLED_SOURCE_ANSWERS;
use crate::link::{Feed, Identity, LostBy, Outgoing, SourceEvent, SourceLink};
use crate::packet::{
    EncodedFrame, Epoch, History, Meeting, Raised, ReplicaStands, SetId, SourceMessage, TargetMessage, Text,
    other_version, understands,
};
use crate::pairing::Known;
use crate::target_side::OtherWriter;
use crate::words::{ProtectOptions, Target};

/// A target that is there answers within this; one that is not must not hold up a start.
/// Above what a source is given that is called for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

const _: () = assert!(PATIENCE.as_millis() > CALLED_SOURCE_ANSWERS.as_millis());

/// Whether one of these targets says that somebody else writes this very set: who has stood in for this source, or
/// one of two of whom a person has to name the one to keep. Takes
/// [`PATIENCE`] at most, whatever their number.
pub fn who_writes<'a>(
    state: &Path,
    (set, own): (SetId, &History),
    targets: impl Iterator<Item = &'a Target>,
) -> Option<(Meeting, OtherWriter)> {
    let (answers, answered) = unbounded();
    let deadline = Instant::now() + PATIENCE;
    for target in targets {
        let Target::Remote { repset, .. } = target else { continue };
        let Ok(identity) = Identity::load_or_create(state) else { continue };
        let Ok(paired) = Paired::new(target, state, Arc::new(identity)) else { continue };
        let (answers, repset, told_by) = (answers.clone(), repset.clone(), target.to_string());
        let asks = move || {
            let said = ask(&paired, &repset, deadline).filter(|said| said.0 == set);
            let _ = answers.send(said.map(|(_, history)| OtherWriter::now(history, told_by)));
        };
        if let Err(error) = std::thread::Builder::new().name("ask".into()).spawn(asks) {
            log::warn!("{target} is not asked who writes the set: {error}");
        }
    }
    drop(answers);
    let first = own.last().unwrap_or(Epoch { number: Epoch::FIRST, writer: 0 });
    let counts = |other: OtherWriter| {
        let outranks = other.history.last().is_some_and(|epoch| first.is_outranked_by(epoch));
        match own.meets(&other.history) {
            Meeting::TakenIn => None,
            Meeting::StoodInFor => outranks.then_some((Meeting::StoodInFor, other)),
            Meeting::TwoWriters => Some((Meeting::TwoWriters, other)),
        }
    };
    std::iter::from_fn(|| answered.recv_deadline(deadline).ok()).flatten().find_map(counts)
}

/// Of this target's host, which has stood in for a set of this history: in which epoch, and after what; `None` also where
/// it does not say.
pub fn who_took_over(state: &Path, (set, own): (SetId, &History), target: &Target) -> Option<Raised> {
    match who_writes(state, (set, own), std::iter::once(target))? {
        (Meeting::StoodInFor, other) => other.history.raised().last().copied(),
        (Meeting::TakenIn | Meeting::TwoWriters, _) => None,
    }
}

/// Of which set the target's replica is, and what led to the epoch in which it was stood in for; `None` also where it does not
/// say.
fn ask(paired: &Paired, repset: &str, deadline: Instant) -> Option<(SetId, History)> {
    let (written_in, stands) = match ask_how_it_stands(paired, repset, deadline) {
        Asked::Said { written_in, stands } => (written_in, stands),
        Asked::OtherVersion { written_in, .. } => (written_in, None),
        Asked::Not(_) => return None,
    };
    let (set, epoch) = written_in?;
    // A target of another version says no more than the epoch.
    let history = stands.map_or_else(History::default, |stands| stands.history);
    Some((set, history.of_epoch(epoch)))
}

/// What came of a question to a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Said {
        /// Where it was stood in for.
        written_in: Option<(SetId, Epoch)>,
        /// `None`: there is none yet, or this target's version does not say.
        stands: Option<ReplicaStands>,
    },
    /// It speaks none that this host does: one line. What it says all the same.
    OtherVersion { why: String, written_in: Option<(SetId, Epoch)> },
    /// It cannot be asked, or does not take this host's set: why.
    Not(String),
}

/// Targets that are asked how their replicas of the set stand, all at once.
pub struct Asking {
    answers: Receiver<(String, Asked)>,
    deadline: Instant,
}

impl Asking {
    /// Those that are named, and others of this host's that are paired under the same name.
    pub fn begin(options: &ProtectOptions) -> Asking {
        let (sender, answers) = unbounded();
        let deadline = Instant::now() + PATIENCE;
        for target in asked(options) {
            let Target::Remote { repset, .. } = &target else { continue };
            let (sender, repset, shown) = (sender.clone(), repset.clone(), target.to_string());
            let identity = Identity::load_or_create(&options.state);
            let paired = identity
                .map_err(|error| format!("the key of this host cannot be read: {error}"))
                .and_then(|identity| {
                    Paired::new(&target, &options.state, Arc::new(identity)).map_err(|failure| failure.what)
                });
            let asks = move || {
                let asked = match paired {
                    Ok(paired) => ask_how_it_stands(&paired, &repset, deadline),
                    Err(why) => Asked::Not(why),
                };
                let _ = sender.send((shown, asked));
            };
            if let Err(error) = std::thread::Builder::new().name("ask".into()).spawn(asks) {
                log::warn!("{target} is not asked how its replica stands: {error}");
            }
        }
        Asking { answers, deadline }
    }

    /// What all of them have said, `PATIENCE` after the beginning at most.
    pub fn answers(&self) -> Vec<(String, Asked)> {
        // Each says itself that its time is over.
        let last = self.deadline + Duration::from_secs(1);
        let mut all: Vec<_> = std::iter::from_fn(|| self.answers.recv_deadline(last).ok()).collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }
}

fn asked(options: &ProtectOptions) -> Vec<Target> {
    let mut targets = options.targets.clone();
    let known = Known::in_state(&options.state).targets().unwrap_or_default();
    let same = known
        .iter()
        .filter_map(|known| known.parse::<Target>().ok())
        .filter(|known| matches!(known, Target::Remote { repset, .. } if *repset == options.name));
    for target in same {
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    targets
}

fn ask_how_it_stands(paired: &Paired, repset: &str, deadline: Instant) -> Asked {
    let name = || Text::from_str_cut(repset);
    let link = match paired.look_up(0) {
        Ok(lookup) => SourceLink::dial_within(lookup, NoFrames, Outgoing::default()),
        Err(why) => return Asked::Not(why),
    };
    let (mut written_in, mut has_answered) = (None, false);
    let asked = loop {
        let event = link.events().recv_deadline(deadline);
        match event.unwrap_or_else(|_| silent()) {
            SourceEvent::Up => link.send(SourceMessage::Ask { set_name: name() }),
            SourceEvent::Message(TargetMessage::WrittenIn { set, epoch }) => written_in = Some((set, epoch)),
            SourceEvent::Message(TargetMessage::About { version_oldest, version, .. })
                if !understands(version_oldest, version) =>
            {
                let why = other_version("it", version_oldest, version);
                break Asked::OtherVersion { why, written_in };
            }
            SourceEvent::Message(TargetMessage::About { .. }) => {
                has_answered = true;
                link.send(SourceMessage::AskReplica { set_name: name() });
            }
            SourceEvent::Message(TargetMessage::Replica(stands)) => break Asked::Said { written_in, stands },
            SourceEvent::Message(_) => {}
            SourceEvent::Lost { .. } if has_answered => break Asked::Said { written_in, stands: None },
            SourceEvent::Lost { reason, .. } => break Asked::Not(reason),
        }
    };
    link.close("it has asked how the replica stands");
    asked
}

fn silent() -> SourceEvent {
    SourceEvent::Lost { by: LostBy::Network, reason: "it does not answer".into() }
}

/// Nothing is sent but the question.
struct NoFrames;

impl Feed for NoFrames {
    fn next_frames(&mut self, _max_bytes: usize) -> Vec<EncodedFrame> {
        Vec::new()
    }
}
