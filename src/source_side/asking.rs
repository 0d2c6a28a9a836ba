//! Targets to which nothing is sent now (stopped by hand, outside of their schedule) are asked at the start
//! whether somebody else writes the set, as far as they answer in time.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;

use super::remote::Paired;
use crate::link::{Feed, Identity, Outgoing, SourceEvent, SourceLink};
use crate::packet::{EncodedFrame, Epoch, History, Meeting, SetId, SourceMessage, TargetMessage, Text};
use crate::target_side::OtherWriter;
use crate::words::Target;

/// A target that is there answers within this; one that is not must not hold up a start.
const PATIENCE: Duration = Duration::from_secs(3);

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

/// The epoch in which this target's host has stood in for a set of this history; `None` also where it does not say.
pub fn who_took_over(state: &Path, (set, own): (SetId, &History), target: &Target) -> Option<Epoch> {
    match who_writes(state, (set, own), std::iter::once(target))? {
        (Meeting::StoodInFor, other) => other.history.last(),
        (Meeting::TakenIn | Meeting::TwoWriters, _) => None,
    }
}

/// Of which set the target's replica is, and what led to the epoch in which it was stood in for; `None` also where it does not
/// say.
fn ask(paired: &Paired, repset: &str, deadline: Instant) -> Option<(SetId, History)> {
    let link = SourceLink::dial_within(paired.look_up(0).ok()?, NoFrames, Outgoing::default());
    let mut stood_in = None;
    loop {
        match link.events().recv_deadline(deadline).ok()? {
            SourceEvent::Up => link.send(SourceMessage::Ask { set_name: Text::from_str_cut(repset) }),
            SourceEvent::Message(TargetMessage::WrittenIn { set, epoch, history }) => {
                stood_in = Some((set, history.of_epoch(epoch)));
            }
            SourceEvent::Message(TargetMessage::About { .. }) => break,
            SourceEvent::Message(_) => {}
            SourceEvent::Lost { .. } => return None,
        }
    }
    link.close("it has asked who writes the set");
    stood_in
}

/// Nothing is sent but the question.
struct NoFrames;

impl Feed for NoFrames {
    fn next_frames(&mut self, _max_bytes: usize) -> Vec<EncodedFrame> {
        Vec::new()
    }
}
