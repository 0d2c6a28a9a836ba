//! Hostile peers against a real `standin serve`: what they cost in memory, what they are told,
//! and that honest ones go on meanwhile. All over loopback.

mod client;

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use standin::packet::*;
use tempfile::TempDir;

use self::client::{BareSession, Key, PAIRING, REPLICATION, dial, endpoint, pour};
use crate::host::{
    self, COMMAND_MAX, Daemon, SYNC_MAX, clear_mounts, describe, output_within, run, wait_until,
};
use crate::tree;

/// What a peer may cost beside what the daemon needs anyway, KiB.
const EXTRA_KIB: u64 = 64 << 10;

/// A target daemon with its directories.
struct Serve {
    daemon: Daemon,
    address: SocketAddr,
    source: Option<Daemon>,
    base: TempDir,
    _mounts: TempDir,
    mount: PathBuf,
}

impl Serve {
    fn start() -> Serve {
        host::require_host();
        let base = host::dir_on_disk();
        let mounts = tempfile::Builder::new().prefix("s").tempdir().expect("a temporary directory");
        let mount = mounts.path().join("m");
        fs::create_dir(&mount).expect("a directory");
        for dir in ["root", "run", "backing"] {
            fs::create_dir(base.path().join(dir)).expect("a directory");
        }
        let mut command = standin(&base, "state");
        command.arg("serve").args(["--listen", "127.0.0.1:0", "--root"]).arg(base.path().join("root"));
        let mut daemon = Daemon::spawn(command);
        daemon.wait_ready();
        let said = daemon.said();
        let address = said.split(" on ").nth(1).and_then(|rest| rest.split(';').next());
        let address = address.and_then(|address| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("no address in: {said}"));
        Serve { daemon, address, source: None, base, _mounts: mounts, mount }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    fn target(&self) -> String {
        format!("standin://{}/web", self.address)
    }

    fn invite(&self) -> Vec<u8> {
        run(standin(&self.base, "state").args(["invite", "web"])).stdout
    }

    /// Pairs the host with this state.
    #[track_caller]
    fn pair(&self, state: &str) {
        let mut command = standin(&self.base, state);
        command.arg("pair").arg(self.target());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("standin pair");
        child.stdin.take().expect("piped").write_all(&self.invite()).expect("it reads the token");
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}{}", describe(&output), self.daemon.said());
    }

    /// A key that is paired, as `protect` would have one.
    fn paired_key(&self) -> Key {
        let key = Key::generate();
        key.install(&self.at("peer-state"));
        self.pair("peer-state");
        key
    }

    /// The desk takes so many attempts a second: after a crowd it is open again within a second.
    #[track_caller]
    fn assert_pairs_soon(&self) {
        let mut command = standin(&self.base, "late-state");
        command.arg("pair").arg(self.target()).arg("--token-file").arg(self.at("token"));
        fs::write(self.at("token"), self.invite()).expect("a file");
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let output = output_within(&mut command, COMMAND_MAX);
            if output.status.success() {
                return;
            }
            assert!(Instant::now() < deadline, "the right token is refused: {}", describe(&output));
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// An honest source that replicates through a mount.
    fn protect(&mut self) {
        self.pair("source-state");
        let mut command = standin(&self.base, "source-state");
        command.arg("protect").arg(&self.mount).arg("--backing").arg(self.at("backing"));
        command.args(crate::host::profile(&[]));
        command.args(["--name", "here", "--to"]).arg(self.target());
        let mut daemon = Daemon::spawn(command);
        daemon.wait_ready();
        self.source = Some(daemon);
    }

    #[track_caller]
    fn assert_in_sync(&self) {
        let mut command = standin(&self.base, "source-state");
        let output = output_within(command.args(["wait-sync", "here", "--timeout", "120s"]), SYNC_MAX);
        assert!(output.status.success(), "{}{}", describe(&output), self.daemon.said());
        tree::assert_same(&self.at("backing"), &self.at("root/web"));
    }

    fn status(&self, name: &str) -> serde_json::Value {
        let output =
            output_within(standin(&self.base, "state").args(["status", name, "--json"]), COMMAND_MAX);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", describe(&output)))
    }

    /// A value of /proc/PID/status, KiB.
    fn memory(&self, what: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(what)).expect("a line");
        line.trim_start_matches(':').split_whitespace().next().and_then(|n| n.parse().ok()).expect("KiB")
    }

    /// What it holds now, KiB. After the first of each kind: that is no peer's doing.
    fn idle(&self) -> u64 {
        self.memory("VmRSS")
    }

    /// Runs hostile work; gives what it cost at its highest beside what it held when idle, KiB.
    fn cost_of<F: Future<Output = ()>>(&self, idle: u64, work: impl FnOnce() -> F) -> u64 {
        fs::write(format!("/proc/{}/clear_refs", self.daemon.pid()), "5").expect("our own child");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(work());
        self.memory("VmHWM").saturating_sub(idle)
    }

    /// It lives, says nothing of a panic, and knows an honest peer.
    #[track_caller]
    fn assert_well(&self) {
        assert_eq!(self.status("serve")["role"], "target");
        let said = self.daemon.said();
        assert!(!said.contains("panicked"), "{said}");
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- target:\n{}", self.daemon.said());
        }
        for daemon in [self.source.as_mut(), Some(&mut self.daemon)].into_iter().flatten() {
            daemon.signal(libc::SIGKILL);
            daemon.wait(COMMAND_MAX);
        }
        clear_mounts(&self.mount);
    }
}

fn standin(base: &TempDir, state: &str) -> Command {
    let mut command = host::standin(&base.path().join("run"));
    command.arg("--state").arg(base.path().join(state));
    command
}

/// Strangers that open all they may open and fill all they may fill, 60 at a time.
#[test]
fn strangers_cost_little_memory() {
    let _heavy = host::heavy();
    let serve = Serve::start();
    serve.pair("first-state");
    let (idle, poured) = (serve.idle(), AtomicU64::new(0));
    let cost = serve.cost_of(idle, || async {
        let (endpoint, key) = (endpoint(), Key::generate());
        let crowd = (0..60).map(|_| {
            let (endpoint, key, poured) = (&endpoint, &key, &poured);
            async move {
                let Ok(stranger) = dial(endpoint, serve.address, Some(key), &[PAIRING]).await else { return };
                if let Ok(mut stream) = stranger.open_uni().await {
                    poured.fetch_add(pour(&mut stream, 32 << 20).await as u64, Relaxed);
                }
                // More streams than it may have, and datagrams, which it may not send at all.
                let more = tokio::time::timeout(Duration::from_millis(50), async {
                    while stranger.open_uni().await.is_ok() {}
                });
                assert!(more.await.is_err() || stranger.close_reason().is_some(), "streams without end");
                assert!(stranger.send_datagram(Bytes::from_static(b"x")).is_err());
            }
        });
        join_all(crowd).await;
    });
    eprintln!("{} KiB for {} KiB poured by strangers", cost, poured.load(Relaxed) >> 10);
    assert!(cost < EXTRA_KIB, "{cost} KiB");
    assert!(poured.load(Relaxed) > 0, "nobody got anywhere: this proves nothing");
    serve.assert_well();
    serve.assert_pairs_soon();
}

/// Each of them is refused; the target says whom and why, and the honest one comes through.
#[test]
fn who_does_not_belong_is_turned_away() {
    let serve = Serve::start();
    let key = Key::generate();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let endpoint = endpoint();
        for (key, protocols) in [
            (Some(&key), &[b"h3".as_slice()][..]),
            (Some(&key), &[]),
            (None, &[PAIRING]),
            (None, &[REPLICATION]),
            (Some(&key), &[REPLICATION]),
            (Some(&key), &[REPLICATION, PAIRING]),
        ] {
            let refused = match dial(&endpoint, serve.address, key, protocols).await {
                Err(error) => error,
                // Its TLS is through before the target has seen a key, or missed it.
                Ok(connection) => {
                    tokio::time::timeout(Duration::from_secs(20), connection.closed()).await.expect("closed")
                }
            };
            let by_tls = matches!(refused, quinn::ConnectionError::ConnectionClosed(_));
            assert!(by_tls, "{protocols:?}: {refused}");
        }
        // A pairing request that is none, and one that never ends.
        let stranger = dial(&endpoint, serve.address, Some(&key), &[PAIRING]).await.expect("a handshake");
        let (mut send, mut receive) = stranger.open_bi().await.expect("a stream");
        send.write_all(b"give me everything").await.expect("written");
        send.finish().expect("ended");
        let answer = receive.read_to_end(4096).await.expect("an answer");
        assert!(matches!(decode_message(&answer), Ok(PairingAnswer::Refused { .. })), "{answer:?}");
    });
    let other_version = other_version_of_quic(serve.address);
    assert!(other_version.windows(4).any(|word| word == 1u32.to_be_bytes()), "no offer of version 1");
    let target = &serve.status("serve")["target"];
    assert!(target["refused"].as_u64() >= Some(5), "{target}");
    let said = serve.daemon.said();
    assert!(
        said.contains("refused a connection from 127.0.0.1") && said.contains("refused to pair key"),
        "{said}"
    );
    serve.assert_well();
    serve.pair("honest-state");
}

/// What the target answers to a QUIC version that nobody has.
fn other_version_of_quic(target: SocketAddr) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    socket.send_to(&initial(0x1a2a_3a4a, 7), target).expect("sent");
    let mut answer = vec![0; 2000];
    let len = loop {
        match socket.recv(&mut answer) {
            // These tests were stopped for a moment.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            len => break len.expect("an answer"),
        }
    };
    answer.truncate(len);
    answer
}

/// Looks like the first datagram of a connection (RFC 9000, 17.2.2); nothing in it is true.
fn initial(version: u32, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0xc3];
    bytes.extend_from_slice(&version.to_be_bytes());
    for number in [seed, !seed] {
        bytes.push(8);
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.extend_from_slice(&[0, 0x44, 0xb0]);
    bytes.resize(1200, seed as u8);
    bytes
}

/// Junk, half handshakes, whole handshakes of strangers and wrong tokens, as fast as one can:
/// the source that is there goes on over the connection that it has.
#[test]
fn a_flood_leaves_a_paired_source_alone() {
    let _heavy = host::heavy();
    let mut serve = Serve::start();
    serve.protect();
    serve.assert_in_sync();
    let since = |serve: &Serve| serve.status("here")["connections"][0]["link"]["connected_unix_ms"].as_u64();
    let (before, end, attempts) = (since(&serve), AtomicBool::new(false), AtomicU64::new(0));
    assert!(before.is_some());
    let idle = serve.idle();
    let cost = std::thread::scope(|scope| {
        scope.spawn(|| junk(serve.address, &end));
        scope.spawn(|| strangers(serve.address, &end, &attempts));
        let cost = serve.cost_of(idle, || async {
            for round in 0..200 {
                fs::write(serve.mount.join(format!("file{}", round % 50)), vec![round as u8; 3000])
                    .expect("a write");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            serve.assert_in_sync();
        });
        end.store(true, Relaxed);
        cost
    });
    eprintln!("{cost} KiB for a flood with {} handshakes", attempts.load(Relaxed));
    assert!(cost < EXTRA_KIB, "{cost} KiB");
    assert!(attempts.load(Relaxed) > 20, "no flood: this proves nothing");
    assert_eq!(since(&serve), before, "the source had to come again");
    serve.assert_well();
    serve.assert_pairs_soon();
}

fn junk(target: SocketAddr, end: &AtomicBool) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for seed in 0.. {
        if end.load(Relaxed) {
            return;
        }
        let _ = socket.send_to(&initial(1, seed), target);
        let _ = socket.send_to(&vec![seed as u8; 1 + seed as usize % 1400], target);
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn strangers(target: SocketAddr, end: &AtomicBool, attempts: &AtomicU64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (endpoint, key) = (endpoint(), Key::generate());
        while !end.load(Relaxed) {
            let crowd = (0..8).map(|number| {
                let (endpoint, key) = (&endpoint, &key);
                async move {
                    attempts.fetch_add(1, Relaxed);
                    let protocols = [if number % 2 == 0 { REPLICATION } else { PAIRING }];
                    let Ok(stranger) = dial(endpoint, target, Some(key), &protocols).await else { return };
                    if let Ok((mut send, _receive)) = stranger.open_bi().await {
                        let request = PairingRequest {
                            version: PAIRING_VERSION,
                            token: number,
                            set_name: Text::from_str_cut("web"),
                            proof: [number as u8; 32],
                        };
                        let _ = send.write_all(&encode_message(&request)[4..]).await;
                        let _ = send.finish();
                    }
                    let _ = tokio::time::timeout(Duration::from_secs(1), stranger.closed()).await;
                }
            });
            join_all(crowd).await;
        }
    });
}

/// A paired peer that connects as often as it can and fills what it can before it says who it is;
/// then one that is welcomed, sends what waits for ever and costs most, and reads nothing.
#[test]
fn a_paired_peer_costs_bounded_memory() {
    let _heavy = host::heavy();
    let serve = Serve::start();
    let key = serve.paired_key();
    let idle = serve.idle();
    let cost = serve.cost_of(idle, || async {
        let endpoint = endpoint();
        let crowd = (0..40).map(|number| {
            let (endpoint, key) = (&endpoint, &key);
            async move {
                let mut session = BareSession::open(endpoint, serve.address, key, number).await.ok()?;
                pour(&mut session.packets, 32 << 20).await;
                Some(session)
            }
        });
        let sessions: Vec<BareSession> = join_all(crowd).await.into_iter().flatten().collect();
        assert!(sessions.len() > 10, "{} got in", sessions.len());
    });
    eprintln!("{cost} KiB for 40 silent sessions");
    assert!(cost < EXTRA_KIB, "{cost} KiB");
    for payload in [1, 1100, 1 << 20] {
        let cost = serve.cost_of(idle, || waits_for_ever(&serve, &key, payload));
        eprintln!("{cost} KiB for packets of {payload} bytes that wait");
        assert!(cost < EXTRA_KIB, "{cost} KiB");
    }
    let cost = serve.cost_of(idle, || announces(&serve, &key));
    eprintln!("{cost} KiB for what was announced and never came");
    assert!(cost < EXTRA_KIB, "{cost} KiB");
    serve.assert_well();
}

fn hello() -> SourceMessage {
    SourceMessage::Hello {
        version_oldest: WIRE_VERSION_OLDEST,
        version: WIRE_VERSION,
        features: Features(u64::MAX),
        set: SetId(7),
        set_name: Text::from_str_cut("web"),
        last: Position::default(),
        oldest: Sequence(u64::MAX),
    }
}

/// A session that has been welcomed.
async fn welcomed(endpoint: &quinn::Endpoint, serve: &Serve, key: &Key) -> BareSession {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let session = u128::from(std::process::id()) << 64 | deadline.elapsed().as_nanos();
        if let Ok(mut session) = BareSession::open(endpoint, serve.address, key, session).await {
            session.control.0.write_all(&encode_message(&hello())).await.expect("written");
            let mut len = [0; 4];
            if session.control.1.read_exact(&mut len).await.is_ok() {
                let mut body = vec![0; message_len(len).expect("a length")];
                session.control.1.read_exact(&mut body).await.expect("a message");
                let message: TargetMessage = decode_message(&body).expect("a message");
                assert!(matches!(message, TargetMessage::Welcome { .. }), "{message:?}");
                return session;
            }
        }
        assert!(Instant::now() < deadline, "it is not let in again");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The first item is refused for ever, everything behind it waits.
async fn waits_for_ever(serve: &Serve, key: &Key, payload: usize) {
    let endpoint = endpoint();
    let mut session = welcomed(&endpoint, serve, key).await;
    let object = ObjectId::default();
    let item = ItemHeader { number: ItemNumber(1), item: LaneItem::Content { object, hole: 0, offset: 0 } };
    let frame = item_frame(&Position::default(), &item, Bytes::from(vec![7; payload]));
    let frame = [&frame.head[..], &frame.payload[..]].concat();
    let many = frame.repeat((256 << 10) / frame.len() + 1);
    let mut sent = 0;
    while let Ok(Ok(())) =
        tokio::time::timeout(Duration::from_secs(2), session.packets.write_all(&many)).await
    {
        sent += many.len();
        assert!(sent < 256 << 20, "nothing slows it down");
    }
    eprintln!("{sent} bytes went");
    assert!(sent > 1 << 20, "only {sent} bytes went: this proves nothing");
    assert_eq!(session.small.close_reason(), None, "it was cut off");
}

/// Lengths within their bounds, of what never comes; then one beyond.
async fn announces(serve: &Serve, key: &Key) {
    let endpoint = endpoint();
    let mut session = welcomed(&endpoint, serve, key).await;
    let skip = skip_frame(Sequence(1), &Position::default()).head.to_vec();
    let mut prefix = skip[..PREFIX_LEN].to_vec();
    prefix[4..8].copy_from_slice(&(1u32 << 20).to_le_bytes());
    prefix[8..12].copy_from_slice(&(1u32 << 20).to_le_bytes());
    session.packets.write_all(&prefix).await.expect("written");
    session.control.0.write_all(&(60_000u32).to_le_bytes()).await.expect("written");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(session.small.close_reason(), None, "it may be slow");
    drop(session);
    for (at, what) in [(4, "header of 4294967295 bytes"), (8, "payload of 4294967295 bytes")] {
        let mut session = welcomed(&endpoint, serve, key).await;
        let mut prefix = skip[..PREFIX_LEN].to_vec();
        prefix[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        session.packets.write_all(&prefix).await.expect("written");
        let end = session.end().await;
        assert!(end.contains(what), "{end}");
    }
}

/// One line for whoever comes with what is not theirs.
#[test]
fn a_session_that_is_not_granted_is_told_why() {
    let serve = Serve::start();
    let key = serve.paired_key();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let set_name = |name: &str| match hello() {
        SourceMessage::Hello { version_oldest, version, features, set, last, oldest, .. } => {
            let set_name = Text::from_str_cut(name);
            SourceMessage::Hello { version_oldest, version, features, set, set_name, last, oldest }
        }
        other => other,
    };
    let encoded = |(message, why)| (encode_message(&message), why);
    let cases = [
        (set_name("other"), "may not send the set 'other'"),
        (set_name("../web"), "names no replication set"),
        (set_name("\x1b[2Jweb\n"), "names no replication set"),
        (set_name(".serve"), "names no replication set"),
        (SourceMessage::MakeDurable, "did not begin with its greeting"),
    ];
    let (older, newer) = (of_version(4), of_version(6));
    let cases: Vec<(Vec<u8>, &str)> = cases
        .map(encoded)
        .into_iter()
        .chain([
            (older, "the source speaks version 4 of the protocol"),
            (newer, "the source speaks version 6 of the protocol"),
        ])
        .collect();
    runtime.block_on(async {
        let endpoint = endpoint();
        for (number, (message, why)) in cases.iter().enumerate() {
            let session = BareSession::open(&endpoint, serve.address, &key, number as u128).await;
            let mut session = session.expect("a paired key gets this far");
            session.control.0.write_all(message).await.expect("written");
            let end = session.end().await;
            assert!(end.contains(why), "{why}: {end}");
        }
    });
    // It says so to its source first.
    let says_all = || cases.iter().all(|(_, why)| serve.daemon.said().contains(why));
    wait_until("its log says why each was turned away", says_all);
    let said = serve.daemon.said();
    assert!(!said.contains('\x1b'), "a peer steers the terminal");
    assert_eq!(fs::read_dir(serve.at("root")).expect("the root").count(), 0, "nothing was made for it");
    serve.assert_well();
}

/// The greeting of another version, with more behind it than this one knows.
fn of_version(version: u16) -> Vec<u8> {
    let mut bytes = encode_message(&hello());
    bytes.extend_from_slice(&[0xff; 60]);
    let len = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    bytes[8..10].copy_from_slice(&version.to_le_bytes());
    bytes[10..12].copy_from_slice(&version.to_le_bytes());
    bytes
}

/// The target of a host comes as its source: what is paired is one direction.
#[test]
fn a_target_may_not_send() {
    let (here, there) = (Serve::start(), Serve::start());
    // `here` sends to `there`.
    fs::write(here.at("token"), there.invite()).expect("a file");
    let mut pair = standin(&here.base, "state");
    run(pair.arg("pair").arg(there.target()).arg("--token-file").arg(here.at("token")));
    let key = here.status("serve")["fingerprint"].as_str().expect("a key").to_owned();
    let known = serde_json::json!({ here.target(): { "fingerprint": key, "since_unix_ms": 1 } });
    fs::write(there.at("state/targets.json"), known.to_string()).expect("a forged record");
    let mut protect = standin(&there.base, "state");
    protect.arg("protect").arg(there.at("backing")).arg("--to").arg(here.target());
    let refused = describe(&output_within(&mut protect, COMMAND_MAX));
    assert!(refused.contains("does not know this host's key"), "{refused}");
    let said = here.daemon.said();
    assert!(said.contains("may receive from it, not send to it"), "{said}");
    assert!(!here.at("root/web").exists());
    here.assert_well();
}

/// All at once on one thread.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut is_done = true;
        for (future, output) in &mut pending {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => is_done = false,
                }
            }
        }
        if is_done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    pending.into_iter().filter_map(|(_, output)| output).collect()
}
