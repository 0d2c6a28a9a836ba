//! A disk that does not answer: a thread of the daemon that waits in one call for longer than any disk takes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::status::Alert;
use crate::events::{Code, Severity};
use crate::sys::{Call, Sleep, call_of, stuck_threads};
use crate::units;

/// A single wait of a disk that is only busy is over by then: a commit of a journal, some seconds.
const HANGS_AFTER: Duration = Duration::from_secs(20);

/// Threads that no signal wakes, and since when: of those that slept again meanwhile, since then.
#[derive(Default)]
pub(super) struct Hanging(BTreeMap<String, (Sleep, Duration)>);

impl Hanging {
    /// Looks at this process, at a time that only goes forward.
    pub fn look(&mut self, now: Duration) -> Option<Alert> {
        self.seen(now, stuck_threads(), call_of)
    }

    fn seen(
        &mut self,
        now: Duration,
        asleep: BTreeMap<String, Sleep>,
        call_of: impl Fn(&str) -> Call,
    ) -> Option<Alert> {
        let before = std::mem::take(&mut self.0);
        let since = |thread: &String, sleep: &Sleep| match before.get(thread) {
            Some((same, since)) if same == sleep => *since,
            Some(_) | None => now,
        };
        self.0 = asleep
            .into_iter()
            .map(|(thread, sleep)| {
                let since = since(&thread, &sleep);
                (thread, (sleep, since))
            })
            .collect();
        let (thread, (sleep, since)) = self.0.iter().min_by_key(|(_, (_, since))| *since)?;
        let waits = now.saturating_sub(*since);
        (waits >= HANGS_AFTER).then(|| alert(sleep, waits, &call_of(thread)))
    }
}

fn alert(sleep: &Sleep, waits: Duration, call: &Call) -> Alert {
    let at = call.mount.as_ref().map_or(String::new(), |at| format!(" at {}", at.display()));
    let name = call.name.map_or(String::new(), |name| format!(" in {name}(2)"));
    let text = format!(
        "A disk does not answer{at}: the thread '{}' of this daemon has waited for it for {}{name}, and what comes behind it \
         waits, too.",
        sleep.name,
        units::duration(waits)
    );
    Alert { severity: Severity::Critical, code: Code::DiskHangs, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asleep(all: &[(&str, u64)]) -> BTreeMap<String, Sleep> {
        let one = |(name, number): &(&str, u64)| {
            ((*name).to_owned(), Sleep { name: (*name).to_owned(), number: *number })
        };
        all.iter().map(one).collect()
    }

    #[test]
    fn one_long_wait_is_an_alarm_and_many_short_ones_are_none() {
        let mut hanging = Hanging::default();
        let call = |thread: &str| Call {
            name: (thread == "apply").then_some("fsync"),
            mount: (thread == "apply").then(|| "/backup".into()),
        };
        for second in 0..100 {
            let now = Duration::from_secs(second);
            // One waits again and again, the other in one call from 50 to 80 s.
            let busy = ("busy", second);
            let all =
                if (50..80).contains(&second) { asleep(&[busy, ("apply", 7)]) } else { asleep(&[busy]) };
            let alert = hanging.seen(now, all, call);
            assert_eq!(alert.is_some(), (70..80).contains(&second), "{second}: {alert:?}");
            if let Some(alert) = alert {
                let part = "A disk does not answer at /backup: the thread 'apply'";
                assert!(alert.text.contains(part) && alert.text.contains(" in fsync(2)"), "{}", alert.text);
            }
        }
        assert_eq!(hanging.seen(Duration::from_secs(200), BTreeMap::new(), call), None);
    }

    #[test]
    fn this_process_hangs_nowhere() {
        let mut hanging = Hanging::default();
        for second in [0, 10, 20, 30] {
            assert_eq!(hanging.look(Duration::from_secs(second)), None);
        }
    }
}
