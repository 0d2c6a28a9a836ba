//! Sources that speak another version of the wire: they live, though they are not connected.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::control::TurnedAway;
use crate::words::Fingerprint;

/// The last one of each set.
#[derive(Default)]
pub(super) struct LastTurnedAway(Mutex<BTreeMap<String, (Fingerprint, TurnedAway)>>);

impl LastTurnedAway {
    pub(super) fn note(&self, peer: &Fingerprint, name: &str, why: &str, at_unix_ms: u64) {
        let turned_away = TurnedAway { reason: why.to_owned(), at_unix_ms };
        self.0.lock().insert(name.to_owned(), (*peer, turned_away));
    }

    /// It was taken in: from now on its connection says whether it lives.
    pub(super) fn taken_in(&self, peer: &Fingerprint, name: &str) {
        let mut all = self.0.lock();
        if all.get(name).is_some_and(|(key, _)| key == peer) {
            all.remove(name);
        }
    }

    pub(super) fn of(&self, name: &str) -> Option<TurnedAway> {
        self.0.lock().get(name).map(|(_, turned_away)| turned_away.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It kept a failover away for two minutes after a source that had been updated, and was gone.
    #[test]
    fn who_is_taken_in_is_not_turned_away() {
        let (one, other) = (Fingerprint::from_bytes([1; 32]), Fingerprint::from_bytes([2; 32]));
        let all = LastTurnedAway::default();
        all.note(&one, "web", "it speaks version 4", 7);
        all.taken_in(&other, "web");
        all.taken_in(&one, "mail");
        assert_eq!(all.of("web"), Some(TurnedAway { reason: "it speaks version 4".into(), at_unix_ms: 7 }));
        all.taken_in(&one, "web");
        assert_eq!(all.of("web"), None);
    }
}
