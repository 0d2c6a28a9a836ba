//! How old a replica is, in words.

use std::fmt::Write;
use std::time::Duration;

use super::words::age;
use crate::control::ReplicaStatus;
use crate::packet::DataState;
use crate::sys::utc_offset;
use crate::units;
use crate::words::shown;

/// Clocks that are apart by less are told as one: what is on its way for a moment looks like that.
const CLOCKS_APART_MS: u64 = 2000;

/// How old its data is, and what is known to be missing.
pub(super) fn age_lines(replica: &ReplicaStatus, now: u64, text: &mut String) -> std::fmt::Result {
    let ahead = replica.clock_ahead_ms.unwrap_or(0);
    if let Some(as_of) = replica.as_of_unix_ms {
        let was = if replica.data == DataState::Good { "as of" } else { "was good as of" };
        let ago = age(as_of.saturating_add_signed(ahead.saturating_neg()), now);
        writeln!(text, "  age         {was} {} by the source's clock, {ago} ago", moment(as_of))?;
    }
    if let (Some(beyond), Some(heard), None) = (replica.beyond, replica.heard_unix_ms, &replica.connected) {
        let what = match beyond {
            0 => "no change more was".into(),
            1 => "1 change more was".into(),
            _ => format!("{} changes more were", units::count(beyond)),
        };
        let when = moment(heard);
        writeln!(text, "  beyond      {what} given out at {when}, when the source was heard last")?;
    }
    if ahead.unsigned_abs() > CLOCKS_APART_MS {
        let (by, where_to) = (units::duration(Duration::from_millis(ahead.unsigned_abs())), direction(ahead));
        writeln!(text, "  clocks      the source's is {by} {} this host's", where_to.0)?;
    }
    if let Some(set) = replica.clock_set {
        let by = units::duration(Duration::from_millis(set.by_ms.unsigned_abs()));
        let (when, where_to) = (moment(set.at_unix_ms), direction(set.by_ms));
        writeln!(text, "  clock set   the source's was set {} by {by}, to {when}", where_to.1)?;
    }
    Ok(())
}

fn direction(ms: i64) -> (&'static str, &'static str) {
    if ms < 0 { ("behind", "back") } else { ("ahead of", "forward") }
}

/// To the second, as clocks on the wall show it here.
pub(super) fn moment(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
    format!("{}:{:02}", shown(seconds, &utc_offset), seconds.rem_euclid(60))
}

/// The time of the day alone, as `12:03:07`.
pub(in crate::cli) fn clock(unix_ms: u64) -> String {
    moment(unix_ms).rsplit(' ').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::sample_replica;
    use crate::control::{ClockSet, ConnectedSource};

    fn said(replica: &ReplicaStatus) -> String {
        let mut text = String::new();
        age_lines(replica, 100_000, &mut text).unwrap();
        text
    }

    #[test]
    fn what_is_known_of_the_age_is_said_and_nothing_else() {
        let unknown = sample_replica();
        assert_eq!(said(&unknown), "");
        let known = ReplicaStatus {
            data: DataState::Good,
            as_of_unix_ms: Some(95_000),
            heard_unix_ms: Some(96_000),
            beyond: Some(7),
            clock_ahead_ms: Some(-300),
            ..unknown
        };
        let (as_of, heard) = (moment(95_000), moment(96_000));
        assert_eq!(
            said(&known),
            format!(
                "  age         as of {as_of} by the source's clock, 4.7 s ago\n  \
                 beyond      7 changes more were given out at {heard}, when the source was heard last\n"
            )
        );
        let connected =
            Some(ConnectedSource { fingerprint: String::new(), address: String::new(), since_unix_ms: 0 });
        assert_eq!(said(&ReplicaStatus { connected, ..known.clone() }).lines().count(), 1);
        let apart = ReplicaStatus {
            clock_ahead_ms: Some(-60_000),
            clock_set: Some(ClockSet { at_unix_ms: 90_000, by_ms: -3_600_000 }),
            ..known
        };
        let said = said(&apart);
        assert!(said.contains("clocks      the source's is 1 min 0 s behind this host's"), "{said}");
        assert!(said.contains(&format!("was set back by 1 h 0 min, to {}", moment(90_000))), "{said}");
    }
}
