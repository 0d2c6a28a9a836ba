//! What the page says in each state, and that no name of anybody's is anything but text in it.

use std::sync::Arc;

use super::html::{Pace, STYLE, escaped, page};
use crate::cli::status::not_served::tests::sample;
use crate::cli::top::host::{Answer, Known, Look};
use crate::control::tests::{sample_status, source_of};
use crate::control::{Lag, Status};
use crate::events::{About, Code, Event, Record, Sample, Series, Severity, What};
use crate::source_side::LastEnded;

const NOW: u64 = 1_700_000_000_000;

fn known(change: impl FnOnce(&mut Status)) -> Known {
    let mut status = sample_status();
    change(&mut status);
    answering(Answer::Status(Arc::new(status)))
}

fn answering(answer: Answer) -> Known {
    let mut known = Known::default();
    known.answer = answer;
    known
}

fn look(daemons: Vec<(&str, Known)>) -> Look {
    let daemons = daemons.into_iter().map(|(name, known)| (name.to_owned(), known)).collect();
    Look { now_unix_ms: NOW, run: "/run/standin".into(), daemons, absent: Vec::new(), said: None }
}

/// Every element is closed, and none is there that a name has made.
#[track_caller]
fn assert_whole(page: &str) {
    const EMPTY: [&str; 4] = ["meta", "link", "!DOCTYPE", "polyline"];
    const KNOWN: [&str; 33] = [
        "html",
        "head",
        "meta",
        "title",
        "link",
        "body",
        "header",
        "h1",
        "h2",
        "p",
        "main",
        "section",
        "ul",
        "li",
        "strong",
        "b",
        "span",
        "div",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "figure",
        "figcaption",
        "svg",
        "polyline",
        "footer",
        "a",
        "code",
        "em",
        "!DOCTYPE",
    ];
    let mut open = Vec::new();
    for tag in page.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap();
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        assert!(KNOWN.contains(&name), "<{tag}>");
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "</{name}> in {page}"),
            None if !EMPTY.contains(&name) => open.push(name),
            None => {}
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn each_state_is_said_in_words() {
    let shows = |look: &Look, parts: &[&str]| {
        let page = page(look, Pace::Goes);
        assert_whole(&page);
        for part in parts {
            assert!(page.contains(part), "no '{part}' in {page}");
        }
        page
    };
    shows(
        &look(Vec::new()),
        &["<title>(X) standin", "no daemon runs (none in /run/standin)", "standin protect"],
    );
    let well = shows(
        &look(vec![("web", known(|_| {}))]),
        &[
            "<title>✓ standin",
            "1 daemon: all is well",
            "local:/srv/replica",
            "<td class=\"ok\">ok</td>",
            "good",
        ],
    );
    assert!(!well.contains("What needs you"), "{well}");
    let behind = known(|status| {
        source_of(status).connections[0].lag_applied =
            Some(Lag { seconds: 90.0, packets: 9, bytes: 1 << 20 });
    });
    let dead = answering(Answer::Dead);
    let bad = look(vec![("web", behind), ("mail", dead)]);
    let page = shows(
        &bad,
        &["<title>(X) standin", "1 critical, 1 with a warning", "What needs you", "1 min 30 s", "was killed"],
    );
    let (critical, warning) =
        (page.find("<strong class=\"critical\""), page.find("<strong class=\"warning\""));
    assert!(critical.is_some() && critical < warning, "the worst comes first: {page}");
}

#[test]
fn a_set_that_no_daemon_serves_needs_somebody() {
    let mut look = look(vec![]);
    look.absent = vec![sample(LastEnded::Stopped)];
    let page = page(&look, Pace::Goes);
    for part in [
        "<title>(!) standin",
        "What needs you",
        "it was stopped in order",
        "systemctl start standin@srv-web.service",
    ] {
        assert!(page.contains(part), "no '{part}' in {page}");
    }
    assert_whole(&page);
}

#[test]
fn curves_and_events_are_those_of_the_daemon() {
    let mut known = known(|_| {});
    let Answer::Status(status) = &known.answer else { unreachable!("it has one") };
    let connection = status.connections()[0].uuid.clone();
    let sample = |at: u64| Sample {
        at_unix_ms: NOW - 1000 * (3 - at),
        lag_seconds: Some(at as f32),
        sent_rate: 2048.0,
        ..Sample::default()
    };
    let seconds = (0..3).map(sample).collect();
    known.past = vec![Series { connection, target: "t".into(), seconds, minutes: Vec::new() }];
    let event = Event {
        id: 1,
        code: Code::DaemonStarted,
        severity: Severity::Warning,
        about: About::default(),
        text: "writers wait <here>".into(),
        next: String::new(),
        first_unix_ms: NOW,
        last_unix_ms: NOW,
        count: 1,
        ended_unix_ms: None,
    };
    known.records = vec![Record { number: 1, what: What::Begin, event }];
    let page = page(&look(vec![("web", known)]), Pace::Still);
    assert_whole(&page);
    for part in ["now 2.0 s, at most 2.0 s", "2 KiB/s", "writers wait &lt;here&gt;", "the last 15 minutes"] {
        assert!(page.contains(part), "no '{part}' in {page}");
    }
    assert!(!page.contains("http-equiv"), "it stands still");
}

#[test]
fn names_are_text() {
    let planted = "</td><script>alert('1')</script>\"&\u{202e}\n";
    let known = known(|status| {
        status.name = planted.into();
        status.directory = planted.into();
        let one = &mut source_of(status).connections[0];
        (one.reason, one.data_reason) = (planted.into(), planted.into());
    });
    let page =
        page(&look(vec![(planted, known), ("dead", answering(Answer::Failed(planted.into())))]), Pace::Goes);
    assert_whole(&page);
    assert!(!page.contains("<script") && !page.contains('\u{202e}'), "{page}");
    assert_eq!(escaped("a<b>&\"'\t"), "a&lt;b&gt;&amp;&quot;&#39;\u{fffd}");
}

#[test]
fn the_style_loads_nothing() {
    assert!(!STYLE.contains("url(") && !STYLE.contains("@import") && !STYLE.contains("//"));
}
