//! The plan by a table, and the chain of reports.

use super::isolation::Isolation;
use super::journal::{Journal, Record};
use super::last::{Standing, last};
use super::plan::{Machine, Outcome, Plan, Step, Verdict};
use super::report::{CloneReport, Report};
use crate::commands::Ended;

const BARE: Plan = Plan {
    starts: 0,
    probes: false,
    checks: 0,
    stays_open: false,
    stops: 0,
    proves: false,
    before: false,
    after: false,
};
const OPEN: Plan = Plan { stays_open: true, starts: 1, probes: true, stops: 1, ..BARE };
const ALL: Plan = Plan { starts: 1, probes: true, checks: 2, stops: 1, ..BARE };
const TWICE: Plan = Plan { starts: 2, stops: 2, checks: 1, ..BARE };
const HOOKS: Plan = Plan { before: true, after: true, checks: 1, ..BARE };

/// What a drill does whose step of this name fails, or is interrupted, where it comes.
fn play(plan: Plan, bad: &[(Step, Outcome)]) -> (String, Verdict, bool) {
    let (mut machine, mut steps) = (Machine::new(plan), Vec::new());
    while let Some((step, _)) = machine.at() {
        steps.push(step.to_string());
        let outcome = bad.iter().find(|(at, _)| *at == step).map_or(Outcome::Done, |(_, outcome)| *outcome);
        machine.ended(outcome);
        assert!(steps.len() < 20, "no end: {steps:?}");
    }
    let end = if plan.after { &steps[steps.len() - 2..] } else { &steps[steps.len() - 1..] };
    assert_eq!(end[0], "clean-up");
    (steps.join(" "), machine.verdict(), machine.could_not())
}

#[test]
fn each_way_through_a_drill_ends_with_its_clean_up() {
    use Outcome::{Failed, Interrupted};
    use Step::{Check, CleanUp, Clone, Isolate, Prove, Ready, Start, Stop};
    let whole = "clone isolate start ready check 1 check 2 stop clean-up";
    let checks = Plan { checks: 2, ..BARE };
    let proves = Plan { proves: true, ..checks };
    let proven = "clone isolate check 1 check 2 prove clean-up";
    let all_proven = "clone isolate start ready check 1 check 2 stop prove clean-up";
    for (plan, bad, steps, verdict, could_not) in [
        (ALL, &[][..], whole, Verdict::Passed, false),
        (BARE, &[], "clone isolate clean-up", Verdict::Opened, false),
        (checks, &[], "clone isolate check 1 check 2 clean-up", Verdict::Passed, false),
        (Plan { stops: 1, ..BARE }, &[], "clone isolate stop clean-up", Verdict::Opened, false),
        (Plan { probes: true, ..BARE }, &[], "clone isolate ready clean-up", Verdict::Opened, false),
        (ALL, &[(Clone, Failed)], "clone clean-up", Verdict::Failed, true),
        (BARE, &[(Isolate, Failed)], "clone isolate clean-up", Verdict::Failed, true),
        (ALL, &[(Start, Failed)], "clone isolate start stop clean-up", Verdict::Failed, false),
        (ALL, &[(Ready, Failed)], "clone isolate start ready stop clean-up", Verdict::Failed, false),
        (ALL, &[(Check(1), Failed)], whole, Verdict::Failed, false),
        (ALL, &[(Check(2), Failed)], whole, Verdict::Failed, false),
        (ALL, &[(Stop, Failed)], whole, Verdict::Failed, false),
        (ALL, &[(CleanUp, Failed)], whole, Verdict::Failed, false),
        (proves, &[], proven, Verdict::Passed, false),
        (Plan { proves: true, ..ALL }, &[], all_proven, Verdict::Passed, false),
        (proves, &[(Prove, Failed)], proven, Verdict::Passed, false),
        (proves, &[(Prove, Interrupted)], proven, Verdict::Interrupted, false),
        (proves, &[(Check(1), Failed)], "clone isolate check 1 check 2 clean-up", Verdict::Failed, false),
        (Plan { proves: true, ..ALL }, &[(Stop, Failed)], whole, Verdict::Failed, false),
        (Plan { checks: 0, ..proves }, &[], "clone isolate clean-up", Verdict::Opened, false),
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

/// Several commands of one step, hooks, and one that stays open.
#[test]
fn each_way_through_more_steps_does_so_too() {
    use Outcome::{Failed, Interrupted};
    use Step::{After, Before, Check, CleanUp, Clone, Isolate, Open, Ready, Start, Stop};
    let open = "clone isolate start ready open stop clean-up";
    let hooks = "clone isolate check 1 before clean-up after";
    for (plan, bad, steps, verdict, could_not) in [
        (OPEN, &[][..], open, Verdict::Opened, false),
        (OPEN, &[(Open, Failed)], open, Verdict::Failed, false),
        (OPEN, &[(Ready, Failed)], "clone isolate start ready stop clean-up", Verdict::Failed, false),
        (OPEN, &[(Stop, Interrupted)], open, Verdict::Interrupted, false),
        (Plan { stays_open: true, ..BARE }, &[], "clone isolate open clean-up", Verdict::Opened, false),
        (TWICE, &[], "clone isolate start start check 1 stop stop clean-up", Verdict::Passed, false),
        (TWICE, &[(Start, Failed)], "clone isolate start stop stop clean-up", Verdict::Failed, false),
        (
            TWICE,
            &[(Stop, Failed)],
            "clone isolate start start check 1 stop stop clean-up",
            Verdict::Failed,
            false,
        ),
        (HOOKS, &[], hooks, Verdict::Passed, false),
        (HOOKS, &[(Before, Failed), (After, Failed)], hooks, Verdict::Passed, false),
        (HOOKS, &[(After, Interrupted)], hooks, Verdict::Passed, false),
        (HOOKS, &[(Before, Interrupted), (Check(1), Failed)], hooks, Verdict::Failed, false),
        (HOOKS, &[(CleanUp, Failed)], hooks, Verdict::Failed, false),
        (HOOKS, &[(Clone, Failed)], "clone before clean-up after", Verdict::Failed, true),
        (
            HOOKS,
            &[(Isolate, Interrupted)],
            "clone isolate before clean-up after",
            Verdict::Interrupted,
            false,
        ),
        (
            Plan { proves: true, ..HOOKS },
            &[],
            "clone isolate check 1 prove before clean-up after",
            Verdict::Passed,
            false,
        ),
    ] {
        assert_eq!(play(plan, bad), (steps.to_owned(), verdict, could_not), "{plan:?} {bad:?}");
    }
}

pub(super) fn report(number: u64) -> Report {
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
        file: None,
        replica: "/r/web".into(),
        at: "/srv/web".into(),
        started_unix_ms: 0,
        ended_unix_ms: 0,
        point: None,
        steps: Vec::new(),
        usable_after_ms: None,
        checked_after_ms: None,
        isolation: Some(Isolation::default()),
        limits: None,
        lag: None,
        clone: CloneReport::default(),
        proof: None,
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
            command: None,
            is_open: false,
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
    let newest = dir.path().join(".drills/000003.json");
    let text = std::fs::read_to_string(&newest).unwrap();
    std::fs::write(&newest, text.replace("passed", "failed")).unwrap();
    assert_eq!(linked(), [true, true, false]);
    std::fs::remove_file(&newest).unwrap();
    assert_eq!(linked(), [true, false]);
    std::fs::write(&newest, text).unwrap();
    assert_eq!(linked(), [true, true, true]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(linked(), [true, false]);
}

/// Killed when the report was written, and its hash was not.
#[test]
fn a_report_that_was_written_last_is_no_altered_one() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let record = |number| Record {
        report: report(number),
        run: "/run".into(),
        replica: "/r/web".into(),
        keeps: false,
        is_begun: true,
        process: None,
        command: None,
        is_open: false,
    };
    let head = dir.path().join(".drills/head.json");
    for number in 1..=3 {
        let before = std::fs::read(&head).ok();
        journal.note(&record(number)).unwrap();
        journal.keep(&mut report(number)).unwrap();
        match before {
            Some(before) => std::fs::write(&head, before).unwrap(),
            None => std::fs::remove_file(&head).unwrap(),
        }
        journal.note(&record(number)).unwrap();
        super::recovery::recover(&journal, record(number), None).unwrap();
        assert_eq!(journal.running().unwrap(), None);
        assert!(journal.all().unwrap().iter().all(|kept| kept.is_linked), "after {number}");
    }
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

#[test]
fn what_passed_last_is_what_counts() {
    use Standing::{Failed, Never, Overdue, Passed};
    let all = |verdicts: &[Verdict]| -> Vec<Report> {
        let reports = (1..).zip(verdicts).map(|(number, verdict)| Report {
            verdict: Some(*verdict),
            ended_unix_ms: number * 1000,
            ..report(number)
        });
        reports.collect()
    };
    let (passed, failed) = (Verdict::Passed, Verdict::Failed);
    let (opened, interrupted) = (Verdict::Opened, Verdict::Interrupted);
    for (verdicts, now, every, standing, drill) in [
        (&[][..], 9000, Some(1), Never, None),
        (&[opened, interrupted], 9000, Some(1), Never, None),
        (&[passed], 9000, None, Passed, Some(1)),
        (&[passed], 9000, Some(8000), Passed, Some(1)),
        (&[passed], 9001, Some(8000), Overdue, Some(1)),
        (&[passed, failed], 9000, Some(1), Failed, Some(2)),
        (&[failed, passed], 9000, None, Passed, Some(2)),
        (&[passed, interrupted, opened], 9000, Some(8000), Passed, Some(1)),
        (&[failed, interrupted], 9000, None, Failed, Some(1)),
        // A clock that was set back.
        (&[passed], 500, Some(1), Passed, Some(1)),
    ] {
        let found = last(&all(verdicts), Some("web"), now, every);
        assert_eq!(found.len(), 1, "{verdicts:?}");
        assert_eq!((found[0].standing, found[0].drill), (standing, drill), "{verdicts:?} {now} {every:?}");
    }
    let mut mixed = all(&[passed, failed]);
    mixed[1].set = "mail".into();
    let sets: Vec<_> =
        last(&mixed, None, 9000, None).into_iter().map(|last| (last.set, last.standing)).collect();
    assert_eq!(sets, [("mail".to_owned(), Failed), ("web".to_owned(), Passed)]);
    assert_eq!(
        last(&mixed, Some("/r/web"), 9000, None)[0].drill,
        Some(2),
        "by the replica: the last of both"
    );
}

#[test]
fn a_report_is_told_as_junit() {
    let step = |step, outcome, ended| super::report::StepReport {
        step,
        name: None,
        command: matches!(step, Step::Check(_)).then(|| "test a < \"b\" && true".to_owned()),
        started_unix_ms: 0,
        length_ms: 1234,
        outcome,
        ended,
        tries: 0,
        reason: None,
    };
    let ended = Ended { exit_code: Some(7), output: "<oh>\n\u{1b}[1m".into(), ..Ended::default() };
    let failed = Report {
        verdict: Some(Verdict::Failed),
        started_unix_ms: 86_399_000,
        ended_unix_ms: 86_401_500,
        steps: vec![
            step(Step::Clone, Outcome::Done, None),
            step(Step::Check(1), Outcome::Failed, Some(ended)),
            step(Step::CleanUp, Outcome::Done, None),
        ],
        ..report(3)
    };
    let xml = failed.junit();
    for part in [
        "<testsuite name=\"standin drill 3 of web\" tests=\"4\" failures=\"2\" errors=\"0\" skipped=\"0\" \
         time=\"2.500\" timestamp=\"1970-01-01T23:59:59\" hostname=\"host\">",
        "<testcase classname=\"standin.drill.web\" name=\"check 1: test a &lt; &quot;b&quot; &amp;&amp; true\" \
         time=\"1.234\">\n      <failure message=\"exit code 7\"/>\n      \
         <system-out>&lt;oh&gt;\n\u{fffd}[1m</system-out>\n    </testcase>",
        "name=\"verdict\" time=\"0.000\">\n      <failure message=\"failed\"/>",
    ] {
        assert!(xml.contains(part), "no {part} in\n{xml}");
    }
    for (verdict, could_not, said) in [
        (Verdict::Passed, false, "errors=\"0\" skipped=\"0\""),
        (Verdict::Opened, false, "<skipped message=\"no check was given"),
        (Verdict::Interrupted, false, "<error message=\"interrupted\"/>"),
        (Verdict::Failed, true, "<error message=\"nothing was run on the data\"/>"),
    ] {
        let xml = Report { verdict: Some(verdict), could_not, ..report(1) }.junit();
        assert!(xml.contains(said), "no {said} in\n{xml}");
    }
}

#[test]
fn what_a_proof_says_of_a_check() {
    use super::isolation::{Damaged, Harm, LeftOut};
    use super::proof::{CheckProof, Conclusion, Finding, Proof};
    let check = |check, finding| CheckProof { check, finding, read_files: 1, ended: None };
    let harm = || Harm {
        damaged: vec![Damaged { path: "shop.db".into(), bytes: 8192 }],
        left_out: vec![LeftOut { path: "kept".into(), reason: "it is kept".into() }],
    };
    for (findings, noticed_by, conclusion, words) in [
        (&[Finding::Noticed][..], None, Conclusion::Proven, "the checks notice damage; 8 KiB in 1 file"),
        (&[Finding::Passed], None, Conclusion::ProvesNothing, "check 1 PROVES NOTHING: it passes on damaged"),
        (
            &[Finding::Noticed, Finding::ReadNothing],
            None,
            Conclusion::ProvesNothing,
            "check 2 PROVES NOTHING: it reads",
        ),
        (
            &[Finding::NotDamaged],
            None,
            Conclusion::ProvesNothing,
            "nothing of what it reads could be damaged",
        ),
        (&[Finding::Noticed], None, Conclusion::Proven, "; 1 file could not be damaged"),
        (&[Finding::NotRepeatable], None, Conclusion::ProvesNothing, "fails without damage"),
        (
            &[Finding::NotReached],
            Some(Step::Start),
            Conclusion::Proven,
            "already start failed on damaged data",
        ),
        (
            &[Finding::NotReached, Finding::ReadNothing],
            Some(Step::Start),
            Conclusion::ProvesNothing,
            "check 2",
        ),
    ] {
        let checks = (1..).zip(findings).map(|(number, finding)| check(number, *finding)).collect();
        let proof = Proof::made(checks, noticed_by, harm());
        assert_eq!(proof.conclusion, conclusion, "{findings:?}");
        assert!(proof.words().contains(words), "no {words} in {}", proof.words());
        assert!(proof.files().eq(["8 KiB in shop.db", "not damaged: kept: it is kept"]));
        let proven = Report { proof: Some(proof), ..report(1) };
        assert_eq!(proven.is_unproven(), conclusion != Conclusion::Proven);
        let failures = findings.iter().filter(|one| !matches!(one, Finding::Noticed | Finding::NotReached));
        assert!(proven.junit().contains(&format!("failures=\"{}\"", failures.count())), "{}", proven.junit());
    }
    let mut not_made =
        serde_json::to_value(Report { proof: Some(Proof::not_made("x".into())), ..report(1) }).unwrap();
    assert!(serde_json::from_value::<Report>(not_made.clone()).unwrap().is_unproven());
    // As reports were before there were proofs.
    not_made.as_object_mut().unwrap().remove("proof");
    assert!(!serde_json::from_value::<Report>(not_made).unwrap().is_unproven());
}
