//! Sources beside the one that works on a replica: whether that one lives, which somebody asks who is about to take
//! its place.

use std::sync::Arc;
use std::time::Instant;

use super::super::roles::history_of;
use super::super::seat::Cut;
use super::{Held, Open, Store};
use crate::apply::resting;
use crate::control::{CallSource, CalledSource};
use crate::limits::CALLED_SOURCE_ANSWERS;
use crate::link::TargetLinkHandle;
use crate::packet::{OtherSource, ReplicaStands, Text};
use crate::pairing::Direction;
use crate::words::Fingerprint;

/// A source that works on a replica.
struct Other {
    link: TargetLinkHandle,
    cut: Arc<Cut>,
    who: String,
}

impl Store {
    /// Whether the source that works on a replica answers a call; `None`: none does. One that was called before, and
    /// is still silent, may be ended.
    pub fn call(&self, request: &CallSource) -> Option<CalledSource> {
        let began = Instant::now();
        let (link, cut) = match self.held.lock().get(&request.replica)? {
            Held::Open(Open { live: Some(live), .. }) => (live.link.clone(), live.cut.clone()),
            Held::Open(_) | Held::Closed { .. } => return None,
        };
        let answered = match request.end_silent_for_ms {
            None => link.call(CALLED_SOURCE_ANSWERS),
            Some(silent_ms) => link.stats().heartbeat_age_ms < silent_ms,
        };
        let ended = !answered && request.end_silent_for_ms.is_some();
        if ended {
            let reason = "it was called, and was silent: somebody on this host stands in for it";
            log::warn!("the source of '{}': {reason}", request.replica);
            cut.cut(reason);
            link.close(reason);
        }
        Some(CalledSource { answered, ended, waited_ms: began.elapsed().as_millis() as u64 })
    }

    /// Another source that works on this replica.
    fn other_source(&self, peer: &Fingerprint, name: &str) -> Option<Other> {
        let held = self.held.lock();
        let Held::Open(open) = held.get(name)? else { return None };
        let live =
            open.live.as_ref().filter(|live| live.peer != *peer && live.direction == Direction::FromPeer);
        live.map(|live| Other {
            link: live.link.clone(),
            cut: live.cut.clone(),
            who: format!("key {}, at {}", live.peer, live.address),
        })
    }

    /// A source that has died counts as connected for some heartbeats: whoever comes in its place has it called.
    pub(super) fn give_up_silent(&self, peer: &Fingerprint, name: &str) {
        let Some(other) = self.other_source(peer, name) else { return };
        if other.link.call(CALLED_SOURCE_ANSWERS) {
            return;
        }
        let reason = "it was called, and was silent: another source has come in its place";
        log::warn!("the source of '{name}' ({}): {reason}", other.who);
        other.cut.cut(reason);
        other.link.close(reason);
        // Its session ends soon, and its seat is the next one's in any case.
        if let Some(Held::Open(open)) = self.held.lock().get_mut(name)
            && open.live.as_ref().is_some_and(|live| Arc::ptr_eq(&live.cut, &other.cut))
        {
            open.live = None;
        }
    }

    pub(super) fn how_it_stands(&self, peer: &Fingerprint, name: &str) -> Option<ReplicaStands> {
        let source = self.other_source(peer, name).map(|other| OtherSource {
            answers: other.link.call(CALLED_SOURCE_ANSWERS),
            who: Text::from_str_cut(&other.who),
        });
        let state = self.options.own_state().join(name);
        let open = match self.held.lock().get(name)? {
            Held::Open(open) => Some((open.set, open.view.clone())),
            Held::Closed { .. } => None,
        };
        let (set, data, applied) = match open {
            Some((set, view)) => {
                let view = view.lock();
                (set, view.data.state, view.applied)
            }
            // Who stands in with it, or wants it, has it.
            None => {
                let resting = resting(&state).ok()??;
                (resting.set, resting.data, resting.durable)
            }
        };
        let fence = self.stood_in_on_disk(name).map(|(_, epoch)| epoch);
        let history = history_of(&state, fence).ok()?;
        Some(ReplicaStands { set, history, data, applied, source })
    }
}
