//! One peer that reads a replica back, from its welcome to the end of its connection.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, select};

use super::{Reading, ReadingFeed, come_to_rest};
use crate::link::{TargetEvent, TargetLink};
use crate::packet::{Features, SourceMessage, TargetMessage, Text, WIRE_VERSION};
use crate::resync::CopyReport;
use crate::target_side::seat::ReadingSeat;
use crate::words::OwnedBy;

/// How often an end from elsewhere is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Shows the replica until everything was taken, or the connection ends; answers why it ended. `owned_by`: as the peer
/// asks for.
///
/// Errors: it was refused; the reason is for both sides.
pub fn give(
    link: &TargetLink,
    seat: &ReadingSeat,
    owned_by: OwnedBy,
    stopping: &AtomicBool,
) -> Result<String, String> {
    // An older session ends first; nobody else gets it before this one has.
    let mut applier = seat.seat.applier.lock();
    come_to_rest(&mut applier, seat.accept).map_err(|why| format!("the replica cannot be given: {why}"))?;
    seat.seat.view.lock().update(&applier);
    let data = applier.data();
    let root = applier.root().map_err(|error| format!("the replica cannot be opened: {error}"))?;
    link.send(TargetMessage::Restoring {
        version: WIRE_VERSION,
        features: Features::OFFERED,
        set: seat.set,
        data: data.state,
        reason: Text::from_str_cut(data.reason.as_deref().unwrap_or_default()),
        allowed: Text::from_str_cut(&seat.allowed.to_string()),
        applied: applier.proof().applied,
    });
    let feed = ReadingFeed::new();
    let lane = feed.lane();
    let waker = link.send_back(feed, owned_by).ok_or("a replica in this process is not read over a link")?;
    let rules = applier.rules_of_set();
    let rules = rules.map_err(|error| format!("the rules of the set cannot be read: {error}"))?;
    let reading = Reading::start(root, lane, waker, rules, seat.progress.clone())
        .map_err(|error| format!("no thread to read with: {error}"))?;
    Ok(serve(link, seat, stopping, &reading))
}

/// Until one of the two has had enough.
fn serve(link: &TargetLink, seat: &ReadingSeat, stopping: &AtomicBool, reading: &Reading) -> String {
    loop {
        if stopping.load(Relaxed) {
            return "the target stops".into();
        }
        if let Some(reason) = seat.seat.cut.reason() {
            return reason.to_owned();
        }
        select! {
            recv(link.messages()) -> event => match event {
                Ok(TargetEvent::Message(message)) => if let Err(reason) = hear(reading, message) { return reason },
                Ok(TargetEvent::Lost { reason }) => return reason,
                Err(_) => return "the connection is gone".into(),
            },
            recv(reading.ended()) -> outcome => return match outcome {
                Ok(Ok(report)) => all_given(link, &report),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the reading thread died".into(),
            },
            default(LOOK_EVERY) => {}
        }
    }
}

fn hear(reading: &Reading, message: SourceMessage) -> Result<(), String> {
    match message {
        SourceMessage::OfCopy(said) => reading.hear(said),
        SourceMessage::Goodbye => Ok(()),
        SourceMessage::Hello { .. }
        | SourceMessage::StreamFrom { .. }
        | SourceMessage::MakeDurable
        | SourceMessage::Ask { .. }
        | SourceMessage::Diverged { .. }
        | SourceMessage::Relief { .. }
        | SourceMessage::GaveOut { .. }
        | SourceMessage::Writes(_)
        | SourceMessage::Runs { .. }
        | SourceMessage::AskReplica { .. }
        | SourceMessage::Restore { .. } => Err("whoever restores says what only a source says".into()),
    }
}

/// Whoever restores closes, when it has noted that it has everything.
fn all_given(link: &TargetLink, report: &CopyReport) -> String {
    const LAST_WORD: Duration = Duration::from_secs(30);
    log::info!(
        "a replica was read back: {} files were sent, {} objects were not",
        report.copied,
        report.left_out
    );
    loop {
        match link.messages().recv_timeout(LAST_WORD) {
            Ok(TargetEvent::Message(_)) => {}
            Ok(TargetEvent::Lost { reason }) => return reason,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return "everything was given".into();
            }
        }
    }
}
