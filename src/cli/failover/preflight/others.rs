//! Whether others are in the way of a failover: a source that lives on the other side of an update, and targets that
//! would not take this host in its place, or are further than it.

use std::time::{Duration, SystemTime};

use super::{Place, UNTOUCHED};
use crate::control::{ReplicaStatus, unix_ms};
use crate::failure::Failure;
use crate::limits::TURNED_AWAY_LIVES;
use crate::packet::{Beyond, DataState, History, Meeting, Position, ReplicaStands};
use crate::source_side::{Asked, WouldWrite};
use crate::units;
use crate::words::ProtectOptions;

/// It is connected and was heard, or comes again and again.
pub(super) fn source_lives(place: &Place) -> Vec<Failure> {
    let connected = place.source().filter(|_| place.silent_since.is_none()).map(|source| {
        Failure::new(
            format!(
                "The source of {} is connected, from {}, and was heard while this was looked at.",
                place.directory.display(),
                source.address
            ),
            UNTOUCHED,
            "Stop it there (standin stop), or cut it off: two hosts would write one set.",
        )
    });
    let now = unix_ms(SystemTime::now());
    let turned_away = place.said.as_ref().and_then(|said| lives_all_the_same(said, now));
    connected.into_iter().chain(turned_away).collect()
}

/// A source of another version is not taken in, and comes again and again.
fn lives_all_the_same(said: &ReplicaStatus, now_ms: u64) -> Option<Failure> {
    let came = said.turned_away.as_ref()?;
    let age = Duration::from_millis(now_ms.saturating_sub(came.at_unix_ms));
    (age < TURNED_AWAY_LIVES).then(|| {
        Failure::new(
            format!(
                "The source of {} lives: it came {} ago, and was not taken in, because {}.",
                said.directory.display(),
                units::duration(age),
                came.reason
            ),
            UNTOUCHED,
            format!(
                "Update the older side, or stop the source there (standin stop); it counts as gone {} after it came last.",
                units::duration(TURNED_AWAY_LIVES)
            ),
        )
    })
}

/// What a target has said that was asked; `said`: of the own replica, by the daemon that has it. Answers what is worth
/// knowing.
///
/// Errors: the set would be written by two, or what only that one has would be overwritten, or it would not take this
/// host for its source.
pub(super) fn stands(
    options: &ProtectOptions,
    target: &str,
    asked: &Asked,
    would: &WouldWrite,
    said: Option<&ReplicaStatus>,
) -> Result<Vec<String>, Failure> {
    let is_named = options.targets.iter().any(|named| named.to_string() == target);
    let stands = match asked {
        Asked::Said { stands: Some(stands), .. } => stands,
        Asked::Said { stands: None, .. } => return Ok(Vec::new()),
        Asked::OtherVersion { why, .. } if is_named => {
            let next = "Update the older side, or leave this --to out and name it later.";
            return Err(Failure::new(
                format!("{target} would not be replicated to: {why}."),
                UNTOUCHED,
                next,
            ));
        }
        Asked::OtherVersion { why, .. } => return Ok(vec![not_known(target, why)]),
        Asked::Not(why) => return Ok(vec![not_known(target, why)]),
    };
    if stands.set != would.set {
        return match is_named {
            false => Ok(Vec::new()),
            true => Err(Failure::new(
                format!("{target} has the replica of another set."),
                UNTOUCHED,
                "Name another target, or pair this set with it under another name.",
            )),
        };
    }
    let mut notes = Vec::new();
    if let Some(source) = &stands.source {
        let who = source.who.to_text();
        if source.answers {
            return Err(Failure::new(
                format!(
                    "The source of the set lives: it is connected to {target} ({who}), and answers there."
                ),
                UNTOUCHED,
                "Stop it there (standin stop), or cut it off: two hosts would write one set.",
            ));
        }
        notes.push(format!(
            "The source ({who}) is still connected to {target}, and was called there: it gave no sign of life."
        ));
    }
    written_there(target, stands, would)?;
    notes.extend(further(options, target, stands, would, said)?);
    Ok(notes)
}

fn not_known(target: &str, why: &str) -> String {
    format!("{target} is not asked how far its replica is: {}.", why.trim_end_matches('.'))
}

/// The history of who has stood in for the same source as this host, each for itself.
pub(super) fn split_brain<'a>(asked: &'a Asked, would: &WouldWrite) -> Option<&'a History> {
    let Asked::Said { stands: Some(stands), .. } = asked else { return None };
    let is_split = would.goes_on && stands.set == would.set;
    Some(&stands.history).filter(|theirs| is_split && would.history.meets(theirs) == Meeting::TwoWriters)
}

/// Errors: somebody has stood in there.
fn written_there(target: &str, stands: &ReplicaStands, would: &WouldWrite) -> Result<(), Failure> {
    let Some(theirs) = stands.history.last() else { return Ok(()) };
    if would.history.meets(&stands.history) == Meeting::TakenIn {
        return Ok(());
    }
    if would.goes_on && would.history.meets(&stands.history) == Meeting::TwoWriters {
        return Err(Failure::new(
            format!(
                "Split brain: {target} says that the set is written in epoch {}, and this host has written it in epoch {}: \
                 neither has what the other has.",
                theirs.writing(),
                would.history.last().unwrap_or_default().writing()
            ),
            UNTOUCHED,
            "`standin roles` shows both histories; `standin roles keep` on the host whose data are to stay goes above the \
             other one.",
        ));
    }
    Err(Failure::new(
        format!(
            "{target} says that the set is written in epoch {}, and nothing of that has come here: there would be two \
             histories.",
            theirs.writing()
        ),
        UNTOUCHED,
        "Serve what is there: standin failover on that host. `standin roles` shows both histories.",
    ))
}

/// Errors: it has more than this host, or may have.
fn further(
    options: &ProtectOptions,
    target: &str,
    stands: &ReplicaStands,
    would: &WouldWrite,
    said: Option<&ReplicaStatus>,
) -> Result<Option<String>, Failure> {
    if stands.data == DataState::Empty {
        return Ok(None);
    }
    let beyond = match would.history.beyond(&stands.applied, &would.runs) {
        // What is applied here, and not durable yet, is served all the same.
        Beyond::Further { .. } if has_here(said, &stands.applied) => Beyond::Nothing,
        beyond => beyond,
    };
    let what = match (beyond, stands.data) {
        (Beyond::Nothing, _) => return Ok(None),
        (Beyond::Further { after }, DataState::Good) => format!(
            "{target} is further than this replica: it has packet {}, this one {}",
            stands.applied.sequence,
            said.map_or(after, |said| said.applied.max(after))
        ),
        (Beyond::Unknown, DataState::Good) => format!(
            "Whether {target} is further than this replica cannot be told: the two are of different runs of the source"
        ),
        // Nobody could serve it as it is.
        (_, DataState::Bad | DataState::Empty) => {
            return Ok(Some(format!(
                "{target} may have had more than this replica; what it has now is no consistent state."
            )));
        }
    };
    if options.overwrite_further {
        return Ok(Some(format!("{what}; what only it has is given up (--overwrite-further).")));
    }
    Err(Failure::new(
        format!("{what}."),
        UNTOUCHED,
        "Serve that one instead: standin failover on its host. To give up what only it has: --overwrite-further.",
    ))
}

fn has_here(said: Option<&ReplicaStatus>, applied: &Position) -> bool {
    said.is_some_and(|said| said.data == DataState::Good && said.applied >= applied.sequence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::sample_replica;
    use crate::control::TurnedAway;
    use crate::packet::{DataState, Epoch, Incarnation, OtherSource, Position, Sequence, SetId, Text};

    /// It was stood in for, while it went on, on the other side of an update.
    #[test]
    fn a_source_that_was_not_taken_in_lives() {
        let turned_away = TurnedAway { reason: "the source speaks version 4".into(), at_unix_ms: 1_000_000 };
        let said = ReplicaStatus { turned_away: Some(turned_away), ..sample_replica() };
        let lives = |after: Duration| lives_all_the_same(&said, 1_000_000 + after.as_millis() as u64);
        let refused = lives(Duration::from_secs(7)).expect("it lives");
        assert!(
            refused.what.contains("lives: it came 7") && refused.what.contains("speaks version 4"),
            "{refused}"
        );
        assert!(lives(TURNED_AWAY_LIVES - Duration::from_secs(1)).is_some());
        assert!(lives(TURNED_AWAY_LIVES).is_none());
        assert!(lives_all_the_same(&sample_replica(), 1_000_000).is_none());
    }

    const TARGET: &str = "standin://other:7447/web";

    fn at(run: u64, sequence: u64) -> Position {
        let origin = Position::origin(Epoch { number: 1, writer: 3 }, Incarnation(run));
        Position { sequence: Sequence(sequence), ..origin }
    }

    /// A stand-in of a replica that had packet 100 of the second of two runs.
    fn would() -> WouldWrite {
        let mut history = History::default();
        history.raise(Epoch { number: 2, writer: 0 }, 0, at(20, 100));
        WouldWrite { set: SetId(7), history, runs: [10, 20].map(Incarnation).to_vec(), goes_on: false }
    }

    /// The other target's replica, which is as far but for this.
    fn says(change: impl FnOnce(&mut ReplicaStands)) -> Asked {
        let (set, history, data) = (SetId(7), History::default(), DataState::Good);
        let mut stands = ReplicaStands { set, history, data, applied: at(20, 100), source: None };
        change(&mut stands);
        Asked::Said { written_in: None, stands: Some(stands) }
    }

    fn options() -> ProtectOptions {
        let nowhere = std::path::Path::new("/nowhere");
        ProtectOptions {
            targets: vec![TARGET.parse().unwrap()],
            ..ProtectOptions::in_tests(nowhere, nowhere)
        }
    }

    /// `expected`: words of what is worth knowing, or of why it is refused; none: nothing is said.
    #[track_caller]
    fn check(options: &ProtectOptions, asked: &Asked, applied: Option<u64>, expected: Result<&str, &str>) {
        let said = applied.map(|applied| ReplicaStatus {
            data: DataState::Good,
            applied: Sequence(applied),
            ..sample_replica()
        });
        let answer = stands(options, TARGET, asked, &would(), said.as_ref());
        let answer = answer.map(|notes| notes.join(" ")).map_err(|failure| failure.what);
        match (&answer, expected) {
            (Ok(notes), Ok("")) => assert!(notes.is_empty(), "{notes}"),
            (Ok(text), Ok(words)) | (Err(text), Err(words)) => assert!(text.contains(words), "{text}"),
            _ => panic!("{answer:?}"),
        }
    }

    /// It was refused with the advice to serve the other one, on both hosts, and noted on neither.
    #[test]
    fn two_that_have_stood_in_are_split_brain() {
        let mut elsewhere = History::default();
        elsewhere.raise(Epoch { number: 2, writer: 8 }, 1, at(20, 50));
        let asked = says(|it| it.history = elsewhere.clone());
        let stood_in = WouldWrite { goes_on: true, ..would() };
        let refused = stands(&options(), TARGET, &asked, &stood_in, None).unwrap_err();
        assert!(refused.what.contains("Split brain") && refused.next.contains("roles keep"), "{refused}");
        assert_eq!(split_brain(&asked, &stood_in), Some(&elsewhere));
        // One that has not stood in yet has nothing to keep.
        assert_eq!(split_brain(&asked, &would()), None);
        assert_eq!(split_brain(&says(|_| ()), &stood_in), None);
    }

    /// It was overwritten without a word.
    #[test]
    fn a_target_that_is_further_is_in_the_way() {
        let named = options();
        let overruled = ProtectOptions { overwrite_further: true, ..named.clone() };
        let unnamed = ProtectOptions { targets: Vec::new(), ..named.clone() };
        let ahead = || says(|it| it.applied = at(20, 103));
        check(&named, &says(|_| ()), None, Ok(""));
        check(&named, &ahead(), None, Err("is further than this replica: it has packet 103, this one 100"));
        check(&unnamed, &ahead(), None, Err("is further"));
        check(&overruled, &ahead(), None, Ok("is given up"));
        // What is applied here, and not durable yet, counts.
        check(&named, &ahead(), Some(103), Ok(""));
        check(&named, &ahead(), Some(102), Err("this one 102"));
        check(&named, &says(|it| it.applied = at(10, 500)), None, Ok(""));
        check(&named, &says(|it| it.applied = at(30, 5)), None, Err("cannot be told"));
        let in_state = |state| says(move |it| (it.applied, it.data) = (at(20, 103), state));
        check(&named, &in_state(DataState::Bad), None, Ok("no consistent state"));
        check(&named, &in_state(DataState::Empty), None, Ok(""));
        let other_set = || says(|it| (it.applied, it.set) = (at(20, 103), SetId(8)));
        check(&named, &other_set(), None, Err("of another set"));
        check(&unnamed, &other_set(), None, Ok(""));
    }

    /// The epoch was raised, and then it was found that the target does not take this host.
    #[test]
    fn a_target_that_would_not_take_this_host_is_in_the_way() {
        let named = options();
        let unnamed = ProtectOptions { targets: Vec::new(), ..named.clone() };
        let source = |answers| {
            says(move |it| it.source = Some(OtherSource { who: Text::from_str_cut("aa"), answers }))
        };
        check(&named, &source(true), None, Err("and answers there"));
        check(&unnamed, &source(true), None, Err("and answers there"));
        check(&named, &source(false), None, Ok("no sign of life"));
        let mut elsewhere = History::default();
        elsewhere.raise(Epoch { number: 2, writer: 8 }, 1, at(20, 50));
        check(&named, &says(|it| it.history = elsewhere), None, Err("two histories"));
        let old = Asked::OtherVersion { why: "it speaks version 4".into(), written_in: None };
        check(&named, &old, None, Err("it speaks version 4"));
        check(&unnamed, &old, None, Ok("is not asked"));
        check(&named, &Asked::Not("nobody listens".into()), None, Ok("is not asked how far"));
        check(&named, &Asked::Said { written_in: None, stands: None }, None, Ok(""));
    }
}
