//! The plan by a table, and the chain of reports.

use super::isolation::Isolation;
use super::journal::{Journal, Record};
use super::plan::{Machine, Outcome, Plan, Step, Verdict};
use super::report::{CloneReport, Report};

const ALL: Plan = Plan { starts: true, probes: true, checks: 2, stops: true };
const BARE: Plan = Plan { starts: false, probes: false, checks: 0, stops: false };

/// What a drill does whose step of this name fails, or is interrupted, where it comes.
fn play(plan: Plan, bad: &[(Step, Outcome)]) -> (String, Verdict, bool) {
    let (mut machine, mut steps) = (Machine::new(plan), Vec::new());
    while let Some(step) = machine.step() {
        steps.push(step.to_string());
        let outcome = bad.iter().find(|(at, _)| *at == step).map_or(Outcome::Done, |(_, outcome)| *outcome);
        machine.ended(outcome);
        assert!(steps.len() < 20, "no end: {steps:?}");
    }
    assert_eq!(steps.last().map(String::as_str), Some("clean-up"));
    (steps.join(" "), machine.verdict(), machine.could_not())
}

#[test]
fn each_way_through_a_drill_ends_with_its_clean_up() {
    use Outcome::{Failed, Interrupted};
    use Step::{Check, CleanUp, Clone, Isolate, Ready, Start, Stop};
    let whole = "clone isolate start ready check 1 check 2 stop clean-up";
    let checks = Plan { checks: 2, ..BARE };
    for (plan, bad, steps, verdict, could_not) in [
        (ALL, &[][..], whole, Verdict::Passed, false),
        (BARE, &[], "clone isolate clean-up", Verdict::Opened, false),
        (checks, &[], "clone isolate check 1 check 2 clean-up", Verdict::Passed, false),
        (Plan { stops: true, ..BARE }, &[], "clone isolate stop clean-up", Verdict::Opened, false),
        (Plan { probes: true, ..BARE }, &[], "clone isolate ready clean-up", Verdict::Opened, false),
        (ALL, &[(Clone, Failed)], "clone clean-up", Verdict::Failed, true),
        (BARE, &[(Isolate, Failed)], "clone isolate clean-up", Verdict::Failed, true),
        (ALL, &[(Start, Failed)], "clone isolate start stop clean-up", Verdict::Failed, false),
        (ALL, &[(Ready, Failed)], "clone isolate start ready stop clean-up", Verdict::Failed, false),
        (ALL, &[(Check(1), Failed)], whole, Verdict::Failed, false),
        (ALL, &[(Check(2), Failed)], whole, Verdict::Failed, false),
        (ALL, &[(Stop, Failed)], whole, Verdict::Failed, false),
        (ALL, &[(CleanUp, Failed)], whole, Verdict::Failed, false),
        (ALL, &[(Clone, Interrupted)], "clone clean-up", Verdict::Interrupted, false),
        (ALL, &[(Ready, Interrupted)], "clone isolate start ready clean-up", Verdict::Interrupted, false),
        (
            checks,
            &[(Check(1), Failed), (Check(2), Interrupted)],
            "clone isolate check 1 check 2 clean-up",
            Verdict::Interrupted,
            false,
        ),
    ] {
        assert_eq!(play(plan, bad), (steps.to_owned(), verdict, could_not), "{plan:?} {bad:?}");
    }
}

fn report(number: u64) -> Report {
    Report {
        number,
        previous: None,
        verdict: Some(Verdict::Passed),
        could_not: false,
        name: format!("drill-{number}"),
        by: "root".into(),
        host: "host".into(),
        version: "0".into(),
        set: "web".into(),
        replica: "/r/web".into(),
        at: "/srv/web".into(),
        started_unix_ms: 0,
        ended_unix_ms: 0,
        point: None,
        steps: Vec::new(),
        usable_after_ms: None,
        checked_after_ms: None,
        isolation: Some(Isolation::default()),
        clone: CloneReport::default(),
        left: None,
    }
}

#[test]
fn a_report_that_was_changed_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    for number in 1..=3 {
        assert_eq!(journal.next_number().unwrap(), number);
        let mut report = report(number);
        let replica = "/r/web".into();
        let record = Record {
            report: report.clone(),
            run: "/run".into(),
            replica,
            keeps: false,
            is_begun: false,
            process: None,
        };
        journal.note(&record).unwrap();
        assert_eq!(journal.running().unwrap(), Some(record));
        journal.keep(&mut report).unwrap();
        assert_eq!(journal.running().unwrap(), None);
    }
    let linked = || journal.all().unwrap().iter().map(|kept| kept.is_linked).collect::<Vec<_>>();
    assert_eq!(linked(), [true, true, true]);
    let path = dir.path().join(".drills/000002.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("passed", "failed")).unwrap();
    assert_eq!(linked(), [true, true, false]);
    std::fs::write(&path, text).unwrap();
    assert_eq!(linked(), [true, true, true]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(linked(), [true, false]);
}

#[test]
fn one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let turn = journal.turn().unwrap();
    assert!(turn.is_some() && journal.turn().unwrap().is_none());
    drop(turn);
    assert!(journal.turn().unwrap().is_some());
}
