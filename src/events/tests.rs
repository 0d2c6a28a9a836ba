//! The machines by table, and at random against what they are to do.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::ring::{HOLD, RECORDS_MAX};
use super::watch::INHERIT;
use super::*;
use crate::random::Random;

fn seen(code: Code, connection: &str) -> Seen {
    let about = About { set: Some("web".into()), connection: Some(connection.into()), target: None };
    Seen { code, severity: Severity::Warning, about, text: format!("{} of {connection}", code.word()) }
}

fn at(seconds: u64) -> Now {
    Now { since_start: Duration::from_secs(seconds), unix_ms: 1_000_000 + seconds * 1000 }
}

impl Ring {
    /// At two looks: what is seen begins.
    fn see(&mut self, now: Now, seen: Vec<Seen>) -> Vec<Record> {
        let told = self.observe(now, seen.clone());
        [told, self.observe(now, seen)].concat()
    }
}

/// `+lagging` begins, `-lagging` ends, `!test` has happened.
fn words(records: &[Record]) -> Vec<String> {
    let mark = |what| match what {
        What::Begin => '+',
        What::End => '-',
        What::Once => '!',
    };
    records.iter().map(|record| format!("{}{}", mark(record.what), record.event.code.word())).collect()
}

#[test]
fn what_is_seen_begins_and_what_is_not_ends_after_its_hold() {
    let mut ring = Ring::new("a".into());
    // Second, what is seen, what is told.
    let steps: [(u64, &[Code], &[&str]); 12] = [
        (0, &[], &[]),
        (1, &[Code::Lagging], &[]),
        (2, &[Code::Lagging, Code::QueueFull], &["+lagging"]),
        (3, &[Code::QueueFull, Code::SetFile], &["+queue_full"]),
        // It flickers: one event still. What is there for one look alone is none.
        (12, &[Code::Lagging, Code::QueueFull], &[]),
        (13, &[], &[]),
        (22, &[], &[]),
        (23, &[Code::SetFile], &["-queue_full", "-lagging"]),
        (24, &[Code::Lagging], &[]),
        // A second time within the hold.
        (34, &[Code::Lagging, Code::SetFile], &["+lagging"]),
        (35, &[Code::Lagging, Code::SetFile], &["+set_file"]),
        (36, &[Code::Lagging, Code::SetFile], &[]),
    ];
    for (second, codes, told) in steps {
        let records = ring.observe(at(second), codes.iter().map(|code| seen(*code, "c")).collect());
        let (mut found, mut told) = (words(&records), told.to_vec());
        found.sort();
        told.sort();
        assert_eq!(found, told, "at {second} s");
    }
    let page = ring.after("a", 0);
    let over: Vec<&Event> =
        page.records.iter().filter(|record| record.what == What::End).map(|record| &record.event).collect();
    let lagging = over.iter().find(|event| event.code == Code::Lagging).unwrap();
    assert_eq!((lagging.count, lagging.first_unix_ms, lagging.last_unix_ms), (2, 1_001_000, 1_012_000));
    assert_eq!(lagging.ended_unix_ms, Some(1_023_000));
    assert_eq!(page.lasting.len(), 2);
}

/// The severity is a part of what it is: who is woken by what is critical hears of it.
#[test]
fn what_gets_worse_is_another_event() {
    let mut ring = Ring::new("a".into());
    let worse = Seen { severity: Severity::Critical, ..seen(Code::NotConsistent, "c") };
    assert_eq!(words(&ring.see(at(0), vec![seen(Code::NotConsistent, "c")])), ["+not_consistent"]);
    assert_eq!(words(&ring.see(at(1), vec![worse.clone()])), ["+not_consistent"]);
    assert_eq!(words(&ring.observe(at(11), vec![worse])), ["-not_consistent"]);
    let page = ring.after("a", 0);
    assert_eq!(page.lasting[0].severity, Severity::Critical);
}

/// How it stands with each.
type Lasts = BTreeMap<(Code, u64), Stand>;

enum Stand {
    /// Seen once, then.
    Suspected(u64),
    /// Since when it is gone, how often it has come.
    Lasts(Option<u64>, u64),
}

/// The reference.
fn expected(
    second: u64,
    codes: &[Code],
    these: &BTreeSet<(Code, u64)>,
    lasts: &mut Lasts,
) -> Vec<((Code, u64), What, u64)> {
    let mut expected = Vec::new();
    for code in codes.iter().copied() {
        for connection in 0..2 {
            let key = (code, connection);
            match (these.contains(&key), lasts.get_mut(&key)) {
                (true, Some(Stand::Suspected(then))) if second - *then <= HOLD.as_secs() => {
                    lasts.insert(key, Stand::Lasts(None, 1));
                    expected.push((key, What::Begin, 1));
                }
                (true, None | Some(Stand::Suspected(_))) => drop(lasts.insert(key, Stand::Suspected(second))),
                (true, Some(Stand::Lasts(gone, count))) => *count += u64::from(gone.take().is_some()),
                (false, Some(Stand::Lasts(gone, count))) => {
                    if second - *gone.get_or_insert(second) >= HOLD.as_secs() {
                        expected.push((key, What::End, *count));
                        lasts.remove(&key);
                    }
                }
                (false, Some(Stand::Suspected(_)) | None) => {}
            }
        }
    }
    expected
}

/// Whatever is seen in whatever order: begins and ends alternate for each, the count is that of the breaks, an
/// end comes the hold after it was seen last, and pages of any size together are what happened.
#[test]
fn a_random_life_is_told_as_it_was() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(crate::store::random_u64);
    println!("SEED={seed}");
    let mut random = Random::new(seed);
    let codes = [Code::Lagging, Code::QueueFull, Code::ConnectionFailed];
    for _ in 0..200 {
        let mut ring = Ring::new("run".into());
        let mut lasts = Lasts::new();
        let (mut told, mut cursor, mut heard) = (Vec::new(), 0, Vec::new());
        let mut second = 0;
        for _ in 0..100 {
            second += random.below(6);
            let mut these = BTreeSet::new();
            for code in codes {
                for connection in 0..2 {
                    if random.below(3) == 0 {
                        these.insert((code, connection));
                    }
                }
            }
            let seen = these.iter().map(|(code, connection)| seen(*code, &connection.to_string())).collect();
            let records = ring.observe(at(second), seen);
            let mut expected = expected(second, &codes, &these, &mut lasts);
            let key = |record: &Record| {
                let connection = record.event.about.connection.as_ref().unwrap().parse::<u64>().unwrap();
                ((record.event.code, connection), record.what, record.event.count)
            };
            let mut found: Vec<_> = records.iter().map(key).collect();
            let sort = |(key, what, _): &((Code, u64), What, u64)| (*key, *what == What::End);
            found.sort_by_key(sort);
            expected.sort_by_key(sort);
            assert_eq!(found, expected, "seed {seed}, second {second}");
            told.extend(records);
            if random.below(4) == 0 {
                let page = ring.after("run", cursor);
                assert_eq!(page.lost, 0);
                (cursor, heard) = (page.next, [heard, page.records].concat());
            }
        }
        while cursor < told.len() as u64 {
            let page = ring.after("run", cursor);
            (cursor, heard) = (page.next, [heard, page.records].concat());
        }
        assert_eq!(heard, told, "seed {seed}");
    }
}

#[test]
fn what_a_ring_cannot_keep_is_counted() {
    let mut ring = Ring::new("a".into());
    for number in 0..RECORDS_MAX as u64 + 100 {
        ring.happened(at(number), seen(Code::CommandGiven, "c"));
    }
    let page = ring.after("a", 10);
    assert_eq!((page.lost, page.records[0].number, page.more), (90, 101, true));
    // Another run: all that there is.
    assert_eq!(ring.after("b", 500).records[0].number, 101);
    assert_eq!(ring.after("a", 10_000).records.len(), 0);
}

/// A long text with whatever in it is one line.
#[test]
fn a_text_is_one_line_of_bounded_length() {
    let text = format!("a\nb\0{}", "ä".repeat(5000));
    let event = Event::new(1, Seen { text, ..seen(Code::Test, "c") }, 1);
    assert!(event.text.starts_with("a b ä") && event.text.ends_with("ä ...") && event.text.len() <= 1010);
    assert_eq!(event.ended_unix_ms, Some(1));
}

/// Daemons of a host, and who listens to them.
#[derive(Default)]
struct Scene {
    rings: BTreeMap<&'static str, Ring>,
    dead: BTreeSet<&'static str>,
    watch: Watch,
}

impl Scene {
    fn observe(&mut self, second: u64, daemon: &'static str, codes: &[Code]) {
        let seen = codes.iter().map(|code| seen(*code, "c")).collect();
        self.rings.get_mut(daemon).unwrap().see(at(second), seen);
    }

    fn start(&mut self, second: u64, daemon: &'static str, run: &str) {
        self.dead.remove(daemon);
        let mut ring = Ring::new(run.into());
        ring.happened(at(second), seen(Code::DaemonStarted, "c"));
        self.rings.insert(daemon, ring);
    }

    fn hear(&mut self, second: u64) -> Vec<String> {
        let page = |(name, ring): (&&'static str, &Ring)| {
            let (run, after) = self.watch.place(name);
            let heard =
                if self.dead.contains(name) { Heard::Gone } else { Heard::Page(ring.after(&run, after)) };
            ((*name).to_owned(), heard)
        };
        let heard = self.rings.iter().map(page).collect();
        let told = self.watch.hear(at(second), heard);
        told.iter().map(|told| words(std::slice::from_ref(&told.record)).remove(0)).collect()
    }

    /// As from a disk.
    fn restart_watch(&mut self) {
        let kept = serde_json::to_string(&self.watch).unwrap();
        self.watch = serde_json::from_str(&kept).unwrap();
    }
}

#[test]
fn a_watch_tells_each_once_over_its_own_restarts() {
    let mut scene = Scene::default();
    scene.start(0, "web", "1");
    scene.observe(0, "web", &[Code::Lagging]);
    // What lasts already is told; what has happened before is not.
    assert_eq!(scene.hear(1), ["+lagging"]);
    assert!(scene.hear(2).is_empty());
    scene.observe(3, "web", &[Code::Lagging, Code::QueueFull]);
    scene.restart_watch();
    assert_eq!(scene.hear(4), ["+queue_full"]);
    scene.restart_watch();
    assert!(scene.hear(5).is_empty());
    // A daemon that comes later is told of from its start.
    scene.start(6, "db", "1");
    assert_eq!(scene.hear(7), ["!daemon_started"]);
    scene.observe(8, "web", &[]);
    scene.observe(18, "web", &[]);
    scene.restart_watch();
    let mut over = scene.hear(19);
    over.sort();
    assert_eq!(over, ["-lagging", "-queue_full"]);
}

#[test]
fn what_lasts_over_a_restart_of_its_daemon_is_one_event() {
    let mut scene = Scene::default();
    scene.start(0, "web", "1");
    scene.observe(0, "web", &[Code::Lagging, Code::QueueFull]);
    assert_eq!(scene.hear(1).len(), 2);
    scene.restart_watch();
    scene.start(5, "web", "2");
    assert_eq!(scene.hear(6), ["!daemon_started"]);
    scene.observe(7, "web", &[Code::Lagging]);
    assert!(scene.hear(8).is_empty(), "it goes on");
    assert_eq!(scene.hear(6 + INHERIT.as_secs()), ["-queue_full"]);
    scene.observe(50, "web", &[]);
    scene.observe(60, "web", &[]);
    assert_eq!(scene.hear(61), ["-lagging"]);
}

/// What is left of it on disk brought it back each second.
#[test]
fn a_daemon_that_was_killed_and_forgotten_stays_so_until_it_answers() {
    let mut scene = Scene::default();
    scene.start(0, "web", "1");
    scene.start(0, "db", "1");
    assert!(scene.hear(1).is_empty());
    scene.dead.insert("db");
    assert_eq!(scene.hear(2), ["+daemon_gone"]);
    assert!(scene.watch.forget("db"));
    assert!(scene.hear(3).is_empty());
    scene.restart_watch();
    assert!(scene.hear(4).is_empty());
    assert_eq!(scene.watch.known().collect::<Vec<_>>(), ["web"]);
    scene.start(5, "db", "2");
    assert_eq!(scene.hear(6), ["!daemon_started"]);
    scene.dead.insert("db");
    assert_eq!(scene.hear(7), ["+daemon_gone"]);
}

#[test]
fn a_daemon_that_is_gone_is_told_and_so_is_its_return() {
    let mut scene = Scene::default();
    scene.start(0, "web", "1");
    assert!(scene.hear(1).is_empty());
    scene.dead.insert("web");
    assert_eq!(scene.hear(2), ["+daemon_gone"]);
    scene.restart_watch();
    assert!(scene.hear(3).is_empty());
    scene.start(4, "web", "2");
    assert_eq!(scene.hear(5), ["-daemon_gone", "!daemon_started"]);
    // An orderly end takes the socket away.
    scene.rings.clear();
    assert!(scene.hear(6).is_empty(), "it may be started again at once");
    assert_eq!(scene.hear(16), ["!daemon_ended"]);
    assert!(scene.hear(17).is_empty());
    assert_eq!(scene.watch.known().collect::<Vec<_>>(), ["web"]);
    // Killed before anybody listened.
    scene.start(18, "db", "1");
    scene.dead.insert("db");
    assert_eq!(scene.hear(19), ["+daemon_gone"]);
}

#[test]
fn a_mute_daemon_and_lost_events_are_told() {
    let mut watch = Watch::default();
    let hear = |watch: &mut Watch, second, heard| {
        let told = watch.hear(at(second), [("web".to_owned(), heard)].into());
        words(&told.into_iter().map(|told| told.record).collect::<Vec<_>>())
    };
    let mut ring = Ring::new("1".into());
    assert!(hear(&mut watch, 0, Heard::Page(ring.after("", 0))).is_empty());
    assert_eq!(hear(&mut watch, 1, Heard::Mute("it does not answer".into())), ["+daemon_mute"]);
    assert!(hear(&mut watch, 2, Heard::Mute("it does not answer".into())).is_empty());
    // What began while it was mute, and is not among the records any more.
    ring.see(at(3), vec![seen(Code::Lagging, "c")]);
    (0..RECORDS_MAX as u64 + 1).for_each(|_| drop(ring.happened(at(3), seen(Code::CommandGiven, "c"))));
    let (run, after) = watch.place("web");
    let told = hear(&mut watch, 4, Heard::Page(ring.after(&run, after)));
    assert_eq!(told[..2], ["-daemon_mute", "!events_lost"]);
    assert_eq!(told.last().unwrap(), "+lagging", "it lasts: it is told");
}

#[test]
fn who_takes_a_sources_place_is_told() {
    let mut watch = Watch::default();
    let mut hear = |second, name: &str, epoch| {
        let page = Page { epoch: Some(epoch), ..Ring::new(format!("run {second}")).after("", 0) };
        let told = watch.hear(at(second), [(name.to_owned(), Heard::Page(page))].into());
        told.iter().filter(|told| told.record.event.code == Code::RoleChanged).count()
    };
    assert_eq!(hear(0, "web", 2), 0, "how it was");
    assert_eq!(hear(1, "web", 3), 1);
    assert_eq!(hear(2, "new", 1), 0, "the first that writes the set");
    assert_eq!(hear(3, "stand-in", 2), 1);
}

#[test]
fn drills_are_told_once() {
    let mut watch = Watch::default();
    let drill = |number, is_passed| Drilled { number, set: "web".into(), is_passed, text: "x".into() };
    assert!(watch.drilled(at(0), &[drill(1, true)]).is_empty(), "from before");
    let told = watch.drilled(at(1), &[drill(1, true), drill(2, false)]);
    assert_eq!((told.len(), told[0].record.event.severity), (1, Severity::Critical));
    assert!(watch.drilled(at(2), &[drill(1, true), drill(2, false)]).is_empty());
}

#[test]
fn the_journal_gets_fields() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let listens = UnixDatagram::bind(&path).unwrap();
    let mut ring = Ring::new("1".into());
    let records = ring.see(at(0), vec![seen(Code::Lagging, "c0ffee")]);
    let journal = Journal::at(&path).unwrap();
    journal.tell("web", &records[0]);
    let mut buffer = [0; 4096];
    let len = listens.recv(&mut buffer).unwrap();
    let text = String::from_utf8(buffer[..len].to_vec()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for line in [
        "MESSAGE=lagging of c0ffee",
        "PRIORITY=4",
        "SYSLOG_IDENTIFIER=standin",
        "STANDIN_DAEMON=web",
        "STANDIN_EVENT=begin",
        "STANDIN_CODE=lagging",
        "STANDIN_SEVERITY=warning",
        "STANDIN_SET=web",
        "STANDIN_CONNECTION=c0ffee",
    ] {
        assert!(lines.contains(&line), "{line} in {text}");
    }
    assert!(lines.iter().any(|line| line.len() == 43 && line.starts_with("MESSAGE_ID=")), "{text}");
    // Nobody listens any more: nothing waits, nothing fails.
    drop(listens);
    (0..10_000).for_each(|_| journal.tell("web", &records[0]));
}

fn pace() -> Pace {
    Pace { a_minute: 3, again: vec![Duration::from_secs(5), Duration::from_secs(30)] }
}

fn told(number: u64, code: Code) -> Told {
    let mut ring = Ring::new("1".into());
    let record = ring.see(at(number), vec![seen(code, "c")]).remove(0);
    Told { id: format!("web/1/{number}"), daemon: "web".into(), record: Record { number, ..record } }
}

#[test]
fn a_hook_that_fails_is_tried_again_and_given_up() {
    let (mut calls, pace) = (Calls::default(), Pace { a_minute: 100, ..pace() });
    let second = Duration::from_secs;
    calls.add(told(1, Code::Lagging));
    calls.add(told(2, Code::QueueFull));
    let first = calls.due(second(0), &pace).unwrap();
    assert!(calls.due(second(0), &pace).is_none(), "one after the other");
    assert_eq!(calls.ended(second(1), false, &pace), Outcome::Again(second(5)));
    assert!(calls.is_failing(second(36), second(50)));
    assert!(calls.due(second(5), &pace).is_none(), "not yet, and nobody passes it");
    assert_eq!(calls.due(second(6), &pace).unwrap().told, first.told);
    assert_eq!(calls.ended(second(6), false, &pace), Outcome::Again(second(30)));
    assert_eq!(calls.due(second(36), &pace).unwrap().told, first.told);
    assert_eq!(calls.ended(second(36), false, &pace), Outcome::GivenUp);
    assert!(calls.is_failing(second(36), second(50)));
    // Whoever tries it waits for nothing.
    calls.try_out(once("test/1".into(), at(36), seen(Code::Test, "c")));
    assert_eq!(calls.due(second(36), &pace).unwrap().told.id, "test/1");
    assert_eq!((calls.ended(second(36), false, &pace), calls.len()), (Outcome::GivenUp, 1));
    let second_call = calls.due(second(37), &pace).unwrap();
    assert_eq!(second_call.told.record.event.code, Code::QueueFull);
    assert_eq!(calls.ended(second(37), true, &pace), Outcome::Done);
    assert!(calls.is_empty() && !calls.is_failing(second(37), second(50)));
}

/// The pulse stayed away although a person had mended the hook, and had tried it.
#[test]
fn a_trial_that_succeeds_says_that_the_hook_is_well() {
    let (mut calls, pace) = (Calls::default(), Pace { a_minute: 100, ..pace() });
    let (second, longest) = (Duration::from_secs, Duration::from_secs(50));
    let trial = |number: u64| once(format!("test/{number}"), at(number), seen(Code::Test, "c"));
    calls.add(told(1, Code::Lagging));
    for now in [0, 6, 36] {
        calls.due(second(now), &pace).unwrap();
        calls.ended(second(now), false, &pace);
    }
    assert!(calls.is_failing(second(40), longest), "given up");
    calls.try_out(trial(41));
    assert!(calls.trial_due(second(41)).is_some() && calls.trial_due(second(41)).is_none());
    calls.ended(second(41), true, &pace);
    assert!(!calls.is_failing(second(41), longest));
    // One that is to be tried again waits no longer, and counts until it is done.
    calls.add(told(2, Code::QueueFull));
    calls.due(second(42), &pace).unwrap();
    assert!(matches!(calls.ended(second(42), false, &pace), Outcome::Again(_)));
    calls.try_out(trial(43));
    calls.trial_due(second(43)).unwrap();
    calls.ended(second(43), true, &pace);
    assert!(calls.is_failing(second(43), longest));
    calls.due(second(43), &pace).expect("tried again at once");
    calls.ended(second(44), true, &pace);
    assert!(!calls.is_failing(second(44), longest));
}

/// A call that nobody could end was no failure as long as it went on.
#[test]
fn a_call_that_hangs_is_a_failure() {
    let (mut calls, pace) = (Calls::default(), pace());
    let second = Duration::from_secs;
    calls.add(told(1, Code::Lagging));
    calls.due(second(5), &pace).unwrap();
    assert!(!calls.is_failing(second(55), second(50)));
    assert!(calls.is_failing(second(56), second(50)));
    calls.ended(second(60), true, &pace);
    assert!(!calls.is_failing(second(200), second(50)));
}

#[test]
fn a_flood_is_summed_up_and_each_is_counted() {
    let (mut calls, pace) = (Calls::default(), pace());
    (0..1000).for_each(|number| calls.add(told(number, Code::Lagging)));
    calls.add(told(1000, Code::QueueFull));
    let mut counted = 0;
    let (mut made, mut now) = (0, Duration::ZERO);
    while !calls.is_empty() && now < Duration::from_secs(300) {
        if let Some(call) = calls.due(now, &pace) {
            made += 1;
            counted += call.summed.iter().map(|one| one.count).sum::<u64>().max(1);
            if call.told.record.event.code == Code::EventsSummed {
                assert!(call.told.record.event.text.contains("web lagging × "), "{:?}", call.told);
            }
            calls.ended(now, true, &pace);
        }
        now += Duration::from_secs(1);
    }
    assert_eq!(counted, 1001);
    assert!(made <= 4, "{made} calls");
}

/// What waits is kept; a call that was under way is made again.
#[test]
fn calls_come_back_from_the_disk() {
    let (mut calls, pace) = (Calls::default(), pace());
    calls.add(told(1, Code::Lagging));
    let under_way = calls.due(Duration::ZERO, &pace).unwrap();
    let kept = serde_json::to_string(&calls).unwrap();
    let mut calls: Calls = serde_json::from_str(&kept).unwrap();
    assert_eq!(calls.due(Duration::ZERO, &pace).unwrap(), under_way);
}

/// However long it runs, and however the clock is set.
#[test]
fn a_history_is_bounded_and_means_what_it_says() {
    let mut history = History::default();
    let begin = 1_000_000 * 60_000_u64;
    let days = 26 * 3600_u64;
    for second in 0..=days {
        let lag_seconds = (second % 60 != 30).then_some((second % 60) as f32);
        let measured = Measured {
            lag_seconds,
            sent_bytes: second * 1000,
            queued_bytes: second % 60,
            ..Default::default()
        };
        history.add(begin + second * 1000, "c", "local:/x", measured);
    }
    let series = history.series().remove(0);
    assert_eq!((series.seconds.len(), series.minutes.len()), (history::SECONDS, history::MINUTES));
    let last = series.seconds.last().unwrap();
    assert_eq!((last.at_unix_ms, last.sent_rate), (begin + days * 1000, 1000.0));
    for minute in &series.minutes {
        assert_eq!((minute.lag_seconds, minute.queued_bytes), (Some(59.0), 59), "{minute:?}");
        assert!((minute.sent_rate - 1000.0).abs() < 1.0);
    }
    // The clock goes back: no sample is made up.
    let before = series.seconds.len();
    history.add(begin, "c", "local:/x", Measured::default());
    assert_eq!(history.series()[0].seconds.len(), before);
    history.add(begin + 1000, "c", "local:/x", Measured { sent_bytes: 7, ..Default::default() });
    assert_eq!(history.series()[0].seconds.last().unwrap().sent_rate, 7.0);
    history.retain(|_| false);
    assert!(history.series().is_empty());
}
