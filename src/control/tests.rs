//! The socket as callers meet it: with a real daemon's end, and a handler that is made up.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::*;
use crate::events::Code;
use crate::failure::Failure;
use crate::limits::{CONTROL_CALLERS_MAX, CONTROL_REQUEST_LEN_MAX};
use crate::packet::{DataState, Sequence};
use crate::words::{QueueStats, StatisticsTo, socket_path};

/// A source with one local target that has everything.
pub(crate) fn sample_status() -> Status {
    Status {
        role: Role::Source(sample_source()),
        name: "web".into(),
        directory: "/srv/web".into(),
        fingerprint: String::new(),
        version: "0.1.0".into(),
        pid: 4711,
        process: ProcessStatus { cpu_seconds: 83.25, memory_bytes: 48 << 20, memory_peak_bytes: 96 << 20 },
        since_unix_ms: 1_000_000,
        now_unix_ms: 1_185_000,
        phase: Phase::Serving,
        alerts: Vec::new(),
    }
}

pub(crate) fn sample_source() -> SourceStatus {
    SourceStatus {
        set_id: "0123456789abcdef0123456789abcdef".into(),
        backing: "/srv/web".into(),
        history: "1.deadbeef".into(),
        last: Sequence(42),
        queue: QueueStats {
            limit_bytes: 128 << 20,
            captured_packets: 42,
            captured_bytes: 4096,
            ..Default::default()
        },
        capture: CaptureStatus::default(),
        connections: vec![sample_connection()],
        fsync: FsyncStatus::default(),
        map: Vec::new(),
        activity: ActivityStatus::default(),
        holder: HolderStatus::default(),
        rules: Vec::new(),
    }
}

/// The part of a source, to be changed.
pub(crate) fn source_of(status: &mut Status) -> &mut SourceStatus {
    match &mut status.role {
        Role::Source(source) => source,
        Role::Target { .. } => panic!("{} is a target", status.name),
    }
}

pub(crate) fn sample_connection() -> ConnectionStatus {
    ConnectionStatus {
        id: 1,
        uuid: "c0ffee".into(),
        kind: TargetKind::Local,
        target: "local:/srv/replica".into(),
        state: ConnectionState::Started,
        since_unix_ms: 1_000_000,
        reason: String::new(),
        attempts: 0,
        retry_unix_ms: None,
        needs_copy: false,
        unqueued: false,
        unheard: false,
        data: DataState::Good,
        data_reason: String::new(),
        aside: Default::default(),
        withheld: Default::default(),
        left_out: LeftOutStatus::default(),
        orphans: None,
        mirror: MirrorStatus::Complete,
        progress: None,
        resync: None,
        verified: None,
        queued: Amount::default(),
        sent: Amount { packets: 42, bytes: 5000 },
        resent: Amount::default(),
        applied: Sequence(42),
        durable: Sequence(42),
        lag_applied: Some(Lag::default()),
        lag_durable: Some(Lag::default()),
        link: None,
        retrying: None,
        schedule: None,
        limit: None,
        compression: None,
    }
}

/// Answers from a script; `wait_sync` blocks until it is released or the caller goes.
#[derive(Default)]
pub(crate) struct FakeDaemon {
    pub status: Mutex<Option<Status>>,
    pub statistics: Option<StatisticsTo>,
    release: AtomicBool,
    waiting: AtomicBool,
    caller_left: AtomicBool,
    asked: Mutex<Vec<String>>,
}

impl Handler for FakeDaemon {
    fn status(&self) -> Status {
        self.status.lock().clone().unwrap_or_else(sample_status)
    }

    fn statistics(&self) -> Option<StatisticsTo> {
        self.statistics.clone()
    }

    fn wait_sync(&self, wait: WaitSync, caller: &Caller<'_>) -> Result<SyncReport, Failure> {
        self.asked.lock().push(format!("{wait:?}"));
        self.waiting.store(true, SeqCst);
        while !self.release.load(SeqCst) {
            if caller.is_gone() {
                self.caller_left.store(true, SeqCst);
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(SyncReport { complete: true, upto: Sequence(42), waited_ms: 1, connections: Vec::new() })
    }

    fn connection(
        &self,
        change: ConnectionChange,
        which: Option<&str>,
    ) -> Result<ChangedConnection, Failure> {
        self.asked.lock().push(format!("{change:?} {which:?}"));
        let SourceStatus { queue, mut connections, .. } = source_of(&mut Handler::status(self)).clone();
        Ok(ChangedConnection { change, connection: connections.remove(0), queue })
    }

    fn reload(&self) -> Result<ReloadReport, Failure> {
        Err(Failure::new("The file is wrong.", "It goes on.", "Mend it."))
    }

    fn configuration(&self) -> ConfigurationReport {
        ConfigurationReport {
            name: "web".into(),
            file: None,
            settings: Vec::new(),
            changes: Vec::new(),
            failure: None,
        }
    }

    fn stop(&self, mode: StopMode, _: &Caller<'_>) -> Result<StopReport, Failure> {
        self.asked.lock().push(format!("{mode:?}"));
        match mode {
            StopMode::Now => Ok(StopReport { drained: false, left: vec!["12 packets".into()] }),
            StopMode::Orderly | StopMode::Covered => {
                Err(Failure::new("The mount is busy.", "It goes on.", "Stop its users."))
            }
        }
    }
}

/// A served socket in a directory of its own.
struct Served {
    dir: tempfile::TempDir,
    daemon: Arc<FakeDaemon>,
    server: Option<Server>,
}

impl Served {
    fn new() -> Served {
        Served::with(FakeDaemon::default())
    }

    fn with(daemon: FakeDaemon) -> Served {
        let dir = tempfile::tempdir().unwrap();
        let daemon = Arc::new(daemon);
        let server = Server::start(&socket_path(dir.path(), "web"), daemon.clone()).unwrap();
        Served { dir, daemon, server: Some(server) }
    }

    fn path(&self) -> std::path::PathBuf {
        socket_path(self.dir.path(), "web")
    }

    fn client(&self) -> Client {
        Client::connect(&self.path()).unwrap()
    }
}

fn eventually(what: &str, check: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !check() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends raw bytes and reads one answer line.
fn raw(path: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    // The server may hang up before it has read everything.
    let _ = stream.write_all(bytes);
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn a_status_comes_through_and_one_client_may_ask_again() {
    let served = Served::new();
    let mut client = served.client();
    assert_eq!(client.status().unwrap(), sample_status());
    let mut later = sample_status();
    source_of(&mut later).last = Sequence(u64::MAX);
    source_of(&mut later).connections[0].mirror = MirrorStatus::Mirroring { percent: 12.5 };
    *served.daemon.status.lock() = Some(later.clone());
    assert_eq!(client.status().unwrap(), later);
}

#[test]
fn requests_reach_the_handler_as_they_were_meant() {
    let served = Served::new();
    served.daemon.release.store(true, SeqCst);
    let wait = WaitSync { wait_for: WaitFor::Durable, timeout: Some(Duration::from_millis(1500)) };
    assert!(served.client().wait_sync(wait).unwrap().complete);
    let report = served.client().stop(StopMode::Now, Duration::from_secs(5)).unwrap();
    assert_eq!(report.left, ["12 packets"]);
    let refused = served.client().stop(StopMode::Orderly, Duration::from_secs(5)).unwrap_err();
    assert!(
        matches!(&refused, ClientError::Failure(failure) if failure.what == "The mount is busy."),
        "{refused}"
    );
    assert_eq!(*served.daemon.asked.lock(), [format!("{wait:?}"), "Now".into(), "Orderly".into()]);
}

#[test]
fn a_person_can_talk_to_it_by_hand() {
    let served = Served::new();
    let answer = raw(&served.path(), b"{\"request\":\"status\"}\n");
    assert!(answer.starts_with("{\"response\":\"status\",\"status\":{\"role\":\"source\""), "{answer}");
    let answer = raw(&served.path(), b"{\"request\":\"explode\"}\n");
    assert!(answer.contains("does not understand"), "{answer}");
}

#[test]
fn only_its_owner_may_open_the_socket() {
    let served = Served::new();
    assert_eq!(fs::metadata(served.path()).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn another_user_is_refused_even_where_the_file_lets_him_in() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
    let served = Served::new();
    fs::set_permissions(served.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = served.path();
    let as_other = |mode: u32| {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let path = path.clone();
        // Credentials are per thread in the kernel: this one becomes user 1234 for good.
        let other = move || {
            let uid = rustix::process::Uid::from_raw(1234);
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            Client::connect(&path).and_then(|mut client| client.status()).unwrap_err()
        };
        std::thread::spawn(other).join().unwrap()
    };
    let refused = as_other(0o666);
    assert!(
        matches!(&refused, ClientError::Failure(failure) if failure.what.contains("user 1234 may not")),
        "{refused}"
    );
    let kept_out = as_other(0o600);
    assert!(matches!(kept_out, ClientError::Denied), "{kept_out}");
}

#[test]
fn a_line_without_end_is_cut_off() {
    let served = Served::new();
    let answer = raw(&served.path(), &vec![b'x'; CONTROL_REQUEST_LEN_MAX + 1]);
    assert!(answer.contains("too long"), "{answer}");
    let mut exact = b"{\"request\":\"status\"}".to_vec();
    exact.resize(CONTROL_REQUEST_LEN_MAX - 1, b' ');
    exact.push(b'\n');
    assert!(raw(&served.path(), &exact).contains("\"response\":\"status\""));
    // Neither hurts the daemon.
    served.client().status().unwrap();
}

#[test]
fn callers_are_bounded_and_places_come_free() {
    let served = Served::new();
    let mut crowd: Vec<Client> = (0..CONTROL_CALLERS_MAX).map(|_| served.client()).collect();
    crowd.iter_mut().for_each(|client| assert!(client.status().is_ok()));
    let refused = served.client().status().unwrap_err();
    assert!(
        matches!(&refused, ClientError::Failure(failure) if failure.what.contains("as many callers")),
        "{refused}"
    );
    crowd.pop();
    eventually("a place comes free", || served.client().status().is_ok());
}

#[test]
fn a_waiting_handler_learns_that_its_caller_has_gone() {
    let served = Served::new();
    let mut stream = UnixStream::connect(served.path()).unwrap();
    stream.write_all(b"{\"request\":\"wait_sync\",\"durable\":false}\n").unwrap();
    // Having nothing more to say is not being gone.
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    eventually("the handler is asked", || served.daemon.waiting.load(SeqCst));
    std::thread::sleep(Duration::from_millis(50));
    assert!(!served.daemon.caller_left.load(SeqCst));
    drop(stream);
    eventually("the handler sees it", || served.daemon.caller_left.load(SeqCst));
}

/// The daemon's own looks at itself were waited for, however long its disk hung.
#[test]
fn a_status_that_hangs_keeps_no_daemon_from_its_end() {
    let served = Served::new();
    let daemon = served.daemon.clone();
    let hangs = daemon.status.lock();
    // Whoever looks waits by now, or does so with the next look.
    std::thread::sleep(Duration::from_millis(1100));
    let (over, ends) = std::sync::mpsc::channel();
    let ending = std::thread::spawn(move || {
        drop(served);
        let _ = over.send(());
    });
    let ended = ends.recv_timeout(Duration::from_secs(30));
    drop(hangs);
    ending.join().unwrap();
    ended.expect("the server ends while a status hangs");
}

/// Each second while something is done, once when that is over; and all know when it cannot be written.
#[test]
fn statistics_are_told_of_each_second() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().join("web.jsonl");
    let statistics = Some(StatisticsTo { path: path.clone(), size: 1 << 20, keep: 2 });
    let served = Served::with(FakeDaemon { statistics, ..FakeDaemon::default() });
    let said = || -> Vec<String> {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| line["activity"].as_str().unwrap().to_owned()).collect()
    };
    eventually("the first look", || said() == ["idle"]);
    let mut busy = sample_status();
    source_of(&mut busy).connections[0].queued.packets = 1;
    *served.daemon.status.lock() = Some(busy);
    eventually("two seconds", || said().len() == 3);
    *served.daemon.status.lock() = None;
    eventually("it becomes idle", || said() == ["idle", "active", "active", "idle"]);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(said().len(), 4, "and stays so");
    drop(dir);
    let mut failing = sample_status();
    source_of(&mut failing).connections[0].queued.packets = 1;
    *served.daemon.status.lock() = Some(failing);
    let has_alert = |status: &Status| status.alerts.iter().any(|alert| alert.code == Code::StatisticsFailing);
    eventually("status says it", || has_alert(&served.client().status().unwrap()));
    let lasting = || served.client().events("", 0).unwrap().lasting;
    eventually("an event begins", || lasting().iter().any(|event| event.code == Code::StatisticsFailing));
}

#[test]
fn a_socket_of_a_killed_daemon_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = socket_path(dir.path(), "web");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a killed daemon leaves its socket");
    let killed = Client::connect(&path).err().unwrap();
    assert!(matches!(killed, ClientError::Dead), "{killed}");
    let listed = daemons(dir.path()).unwrap();
    assert!(matches!(listed[0].answer, Answer::Dead));

    let server = Server::start(&path, Arc::new(FakeDaemon::default())).unwrap();
    Client::connect(&path).unwrap().status().unwrap();
    drop(server);
    assert!(!path.exists());
    let absent = Client::connect(&path).err().unwrap();
    assert!(matches!(absent, ClientError::Absent), "{absent}");
}

#[test]
fn a_living_daemon_and_a_strange_file_are_left_alone() {
    let served = Served::new();
    let second = Server::start(&served.path(), Arc::new(FakeDaemon::default())).err().unwrap();
    assert!(second.what.contains("Another daemon"), "{second}");
    served.client().status().unwrap();

    let file = socket_path(served.dir.path(), "file");
    fs::write(&file, "precious").unwrap();
    let refused = Server::start(&file, Arc::new(FakeDaemon::default())).err().unwrap();
    assert!(refused.what.contains("no socket"), "{refused}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn of_many_daemons_that_start_at_once_over_a_stale_socket_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let path = socket_path(dir.path(), "web");
    drop(UnixListener::bind(&path).unwrap());
    let started: Vec<_> = std::thread::scope(|scope| {
        let start = || Server::start(&path, Arc::new(FakeDaemon::default()));
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(started.iter().filter(|result| result.is_ok()).count(), 1);
    Client::connect(&path).unwrap().status().unwrap();
}

#[test]
fn a_server_does_not_take_its_successors_socket_away() {
    let mut served = Served::new();
    let path = served.path();
    fs::remove_file(&path).unwrap();
    let _successor = Server::start(&path, Arc::new(FakeDaemon::default())).unwrap();
    drop(served.server.take());
    Client::connect(&path).unwrap().status().unwrap();
}

#[test]
fn an_answer_under_way_gets_out_before_the_end() {
    let mut served = Served::new();
    let mut idle = served.client();
    let path = served.path();
    let waiting = std::thread::spawn(move || {
        let wait = WaitSync { wait_for: WaitFor::Applied, timeout: None };
        Client::connect(&path).unwrap().wait_sync(wait)
    });
    eventually("the handler is asked", || served.daemon.waiting.load(SeqCst));
    let before = Instant::now();
    drop(served.server.take());
    assert!(before.elapsed() < Duration::from_secs(2), "idle callers do not hold the end up");
    assert!(waiting.join().unwrap().is_ok());
    assert!(idle.wait_for_end(Duration::from_secs(5)));
}

#[test]
fn a_long_run_directory_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("d".repeat(120)).join("run");
    let _server = Server::start(&socket_path(&run, "web"), Arc::new(FakeDaemon::default())).unwrap();
    let found = daemons(&run).unwrap();
    assert!(matches!(&found[..], [Daemon { name, answer: Answer::Status(_), .. }] if name == "web"));
    assert!(daemons(&dir.path().join("none")).unwrap().is_empty());
}

#[test]
fn verdicts_follow_from_the_state() {
    let check = |what: &str, expected: Severity, change: &dyn Fn(&mut Status)| {
        let mut status = sample_status();
        change(&mut status);
        assert_eq!(status.severity(), expected, "{what}: {:?}", status.findings());
        assert_eq!(status.findings().is_empty(), expected == Severity::Ok, "{what}");
    };
    let mirroring = MirrorStatus::Mirroring { percent: 99.9 };
    check("all well", Severity::Ok, &|_| {});
    check("writers wait", Severity::Warning, &|status| source_of(status).queue.writers_waiting = 1);
    check("half full", Severity::Warning, &|status| source_of(status).queue.bytes = 64 << 20);
    check("less than half full", Severity::Ok, &|status| source_of(status).queue.bytes = (64 << 20) - 1);
    check("nobody connected", Severity::Warning, &|status| source_of(status).connections.clear());
    check("draining", Severity::Warning, &|status| status.phase = Phase::Draining);
    check("stopping", Severity::Warning, &|status| status.phase = Phase::Stopping);
    check("ending", Severity::Warning, &|status| status.phase = Phase::Ending);
    check("paused", Severity::Warning, &|status| {
        source_of(status).connections[0].state = ConnectionState::Paused
    });
    check("waits for its time", Severity::Ok, &|status| {
        source_of(status).connections[0].state = ConnectionState::Scheduled
    });
    let behind = |seconds| Some(Lag { seconds, ..Lag::default() });
    check("line broken", Severity::Critical, &|status| {
        source_of(status).connections[0].state = ConnectionState::Error
    });
    check("first copy", Severity::Warning, &|status| {
        source_of(status).connections[0].data = DataState::Bad;
        source_of(status).connections[0].mirror = mirroring;
    });
    for mirror in [MirrorStatus::Calculating, mirroring] {
        check("a copy is about to begin, or has", Severity::Warning, &|status| {
            let at = &mut source_of(status).connections[0];
            (at.data, at.needs_copy, at.mirror) = (DataState::Bad, true, mirror);
        });
    }
    check("half a copy, and nobody at it", Severity::Critical, &|status| {
        source_of(status).connections[0].data = DataState::Bad;
        source_of(status).connections[0].mirror = MirrorStatus::Stopped;
    });
    check("a null target has no data to be bad", Severity::Ok, &|status| {
        source_of(status).connections[0].kind = TargetKind::Null;
        source_of(status).connections[0].data = DataState::Empty;
        source_of(status).connections[0].lag_applied = behind(1e6);
    });
    check("a minute behind", Severity::Ok, &|status| {
        source_of(status).connections[0].lag_applied = behind(60.0)
    });
    check("more than a minute behind", Severity::Warning, &|status| {
        source_of(status).connections[0].lag_applied = behind(60.5);
    });
    check("an op that fails", Severity::Warning, &|status| {
        let op = Retrying {
            op: "write a".into(),
            reason: "disk full".into(),
            since_unix_ms: 0,
            attempts: 3,
            marker: false,
        };
        source_of(status).connections[0].retrying = Some(op);
    });
    check("a target that was let go", Severity::Critical, &|status| {
        source_of(status).connections[0].state = ConnectionState::Stopped;
        source_of(status).connections[0].needs_copy = true;
    });
    check("the daemon's own alarm", Severity::Critical, &|status| {
        status.alerts = vec![Alert { severity: Severity::Critical, code: Code::MountLost, text: "x".into() }];
    });
    assert_eq!([Severity::Ok, Severity::Warning, Severity::Critical].map(Severity::exit_code), [0, 1, 2]);
}

#[test]
fn states_are_bits_for_scripts() {
    use ConnectionState::*;
    let bits = [Stopped, Started, Paused, Scheduled, Error, ScheduledAfterError].map(ConnectionState::bits);
    assert_eq!(bits, [0, 1, 2, 4, 8, 12]);
}

#[test]
fn a_change_of_a_connection_comes_through() {
    let served = Served::new();
    let changed = served.client().connection(ConnectionChange::Stop, Some("2".into())).unwrap();
    assert_eq!((changed.change, changed.connection), (ConnectionChange::Stop, sample_connection()));
    assert_eq!(*served.daemon.asked.lock(), ["Stop Some(\"2\")"]);
}

/// Lines of requests and responses, damaged: an error value, or exactly what the line says.
#[test]
fn damaged_lines() {
    let requests = [
        Request::Status,
        Request::WaitSync { durable: true, timeout_ms: Some(5) },
        Request::Stop { mode: StopMode::Now },
        Request::Connection { change: ConnectionChange::Pause, which: Some("local:/srv/replica".into()) },
        Request::Pairings,
        Request::Revoke { revoke: Revoke { fingerprint: "0123".into(), set_name: Some("web".into()) } },
    ];
    let responses = [
        Response::Stop { report: StopReport { drained: true, left: vec!["x".into()] } },
        Response::Failure { failure: Failure::new("what", "untouched", "next") },
    ];
    let mut lines: Vec<Vec<u8>> = requests.iter().map(|line| serde_json::to_vec(line).unwrap()).collect();
    lines.extend(responses.iter().map(|line| serde_json::to_vec(line).unwrap()));
    lines.push(b"[".repeat(CONTROL_REQUEST_LEN_MAX));
    crate::mutation::with_damage(30_000, |damage| {
        let good = damage.pick(&lines).clone();
        let line = damage.damaged(&good, &lines);
        let (parsed, memory) = crate::sys::allocated(|| {
            (serde_json::from_slice::<Request>(&line), serde_json::from_slice::<Response>(&line))
        });
        assert!(memory.peak <= 64 * line.len() + 64 * 1024, "{memory:?} for {}", line.len());
        if let Ok(request) = parsed.0 {
            let again = serde_json::to_vec(&request).unwrap();
            assert_eq!(serde_json::from_slice::<Request>(&again).unwrap(), request);
        }
    });
}

#[test]
fn what_was_left_out_is_critical_and_named() {
    let left_out = LeftOutStatus { count: 20, objects: vec!["dir/file: cannot be read".into()] };
    let connection = ConnectionStatus { data: DataState::Bad, left_out, ..sample_connection() };
    let source = SourceStatus { connections: vec![connection], ..sample_source() };
    let status = Status { role: Role::Source(source), ..sample_status() };
    assert_eq!(status.severity(), Severity::Critical);
    let text = status.findings()[0].text.clone();
    assert!(text.contains("20 objects were left out") && text.contains("dir/file: cannot be read"), "{text}");
}

/// Whoever may open the run directory kept every daemon of the host from starting.
#[test]
fn a_run_directory_that_somebody_keeps_locked_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let kept = std::fs::File::open(dir.path()).unwrap();
    kept.lock().unwrap();
    let wait = std::thread::spawn({
        let run = dir.path().to_owned();
        move || {
            let daemon = std::fs::File::open(&run).unwrap();
            super::server::wait_for_turn(&daemon, &run)
        }
    });
    wait.join().unwrap().unwrap();
    drop(kept);
}
