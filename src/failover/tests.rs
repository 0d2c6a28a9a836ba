//! What is said and kept of failovers; the commands and the mount are those of `fuse-tests`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;

use super::journal::Journal;
use super::report::{Outcome, Point, Report, State, Step};
use super::steps::{Hooks, Steps};
use crate::commands::Runner;
use crate::failure::Failure;
use crate::store;

fn report(number: u64) -> Report {
    Report {
        number,
        state: State::Running,
        set: "web".into(),
        replica: "/replicas/web".into(),
        at: "/srv/web".into(),
        by: "root".into(),
        host: "b".into(),
        version: "0".into(),
        started_unix_ms: 1_000_000,
        ended_unix_ms: None,
        point: None,
        epoch: None,
        goes_on: false,
        accepted_bad_data: false,
        steps: Vec::new(),
    }
}

fn point() -> Point {
    Point {
        packet: 7,
        as_of_unix_ms: Some(900_000),
        clock_ahead_ms: Some(-40_000),
        given_out: Some(9),
        beyond: Some(2),
    }
}

#[test]
fn a_point_says_what_is_known_and_no_more() {
    let all = point();
    // The source's clock is behind: 900 s there are 940 s here.
    assert_eq!(all.age_ms(1_000_000), Some(60_000));
    assert!(all.words(1_000_000).contains("2 changes that the source had given out ARE NOT HERE"));
    assert_eq!(Point { clock_ahead_ms: None, ..all }.age_ms(1_000_000), None);
    assert_eq!(Point { clock_ahead_ms: Some(1_000_000), ..all }.age_ms(1_000_000), None);
    let nothing =
        Point { packet: 7, as_of_unix_ms: None, clock_ahead_ms: None, given_out: None, beyond: None };
    let words = nothing.words(1_000_000);
    assert!(words.contains("as of when is not known") && words.contains("beyond it is not known"), "{words}");
    assert!(Point { beyond: Some(0), ..all }.words(1).contains("nothing beyond it"));
}

#[test]
fn an_interrupted_one_is_closed_by_the_next() {
    let state = tempfile::tempdir().unwrap();
    let open = || Journal::open(state.path(), "web").unwrap().unwrap();
    let begun = |journal: &Journal| {
        let mut report = report(0);
        journal.begin(&mut report).unwrap();
        report.number
    };
    assert!(!Journal::is_busy(state.path(), "web"));
    let (journal, left) = open();
    assert!(left.is_none() && begun(&journal) == 1);
    assert!(Journal::is_busy(state.path(), "web"));
    assert!(Journal::open(state.path(), "web").unwrap().is_none(), "two at once");
    // Its process is dead.
    drop(journal);
    let (journal, left) = open();
    assert_eq!(left.map(|left| (left.number, left.state)), Some((1, State::Interrupted)));
    // Killed between the report and the end of it.
    assert_eq!(begun(&journal), 2);
    let over = Report { state: State::Active, ..report(2) };
    journal.note(&over).unwrap();
    drop(journal);
    let (journal, left) = open();
    assert!(left.is_none() && begun(&journal) == 3);
    let kept: Report = store::read_json(&state.path().join(".failovers/000002.json")).unwrap().unwrap();
    assert_eq!(kept, over);
    // Another set waits for nobody.
    let (other, _) = Journal::open(state.path(), "mail").unwrap().unwrap();
    assert_eq!(begun(&other), 4);
}

/// What came of the steps that `act` performs.
fn followed(is_served: bool, act: impl FnOnce(&mut Steps) -> Option<Failure>) -> Report {
    let state = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(state.path(), "web").unwrap().unwrap();
    let (_tell, stops) = crossbeam_channel::unbounded();
    let told: Arc<Mutex<Vec<Report>>> = Arc::default();
    let (hear, has_told) = (told.clone(), Arc::new(AtomicBool::new(false)));
    let done = has_told.clone();
    let tell = Box::new(move |report: &Report| {
        hear.lock().push(report.clone());
        done.store(true, SeqCst);
    });
    let hooks = Hooks { before: None, after: None, timeout: Duration::from_secs(1) };
    let running = (hooks, Runner::start().unwrap());
    let mut steps =
        Steps::begin((journal, report(1)), running, stops, Box::new(move || is_served), tell).unwrap();
    let why = act(&mut steps);
    while is_served && !has_told.load(SeqCst) {
        std::thread::yield_now();
    }
    if is_served {
        assert!(!Journal::is_busy(state.path(), "web"), "it serves, and is over");
    }
    steps.over(why.as_ref());
    assert!(!state.path().join(".failovers/web.running").exists());
    let kept: Report = store::read_json(&state.path().join(".failovers/000001.json")).unwrap().unwrap();
    assert_eq!(told.lock().as_slice(), std::slice::from_ref(&kept), "told once, as it is kept");
    kept
}

fn steps_of(report: &Report) -> Vec<(Step, Outcome)> {
    report.steps.iter().map(|step| (step.step, step.outcome)).collect()
}

#[test]
fn each_end_is_told_as_what_it_is() {
    use Outcome::{Done, Failed, Interrupted};
    use Step::{Raise, Serve, Take};
    let why = || Some(Failure::new("It does not work.", "", ""));
    let active = followed(true, |steps| {
        steps.taken(point()).unwrap();
        steps.raised(2, false);
        None
    });
    assert_eq!((active.state, active.epoch, active.point), (State::Active, Some(2), Some(point())));
    assert_eq!(steps_of(&active), [(Take, Done), (Raise, Done), (Serve, Done)]);
    let in_use = followed(false, |_| why());
    assert_eq!((in_use.state, in_use.epoch), (State::Failed, None));
    assert_eq!(steps_of(&in_use), [(Take, Failed)]);
    assert!(in_use.text().contains("nothing was raised"), "{}", in_use.text());
    let not_raised = followed(false, |steps| {
        steps.taken(point()).unwrap();
        why()
    });
    assert_eq!(steps_of(&not_raised), [(Take, Done), (Raise, Failed)]);
    assert_eq!(not_raised.epoch, None);
    let not_served = followed(false, |steps| {
        steps.taken(point()).unwrap();
        steps.raised(2, false);
        why()
    });
    assert_eq!((not_served.state, not_served.epoch), (State::Failed, Some(2)));
    assert!(not_served.text().contains("the same command goes on"), "{}", not_served.text());
    let goes_on = followed(false, |steps| {
        steps.raised(2, true);
        None
    });
    assert_eq!((goes_on.state, goes_on.goes_on), (State::Interrupted, true));
    assert_eq!(steps_of(&goes_on), [(Take, Done), (Raise, Done), (Serve, Interrupted)]);
}
