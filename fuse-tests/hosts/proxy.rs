//! A bad network: a UDP proxy in the source's namespace that loses, repeats, holds back, delays,
//! damages and throttles datagrams, each direction by its own weather. Which datagram meets which
//! fate follows from the seed, which it prints; `STANDIN_SEED` runs one again.

use std::collections::BinaryHeap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::sockopt;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::random::setting;
use standin::random::Random;

/// Longest wait for a datagram, so that the end is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What a throttled line holds before it drops: a quarter of a second at 1 Mbit/s, as home routers do.
const LINE_BUFFER: usize = 32 * 1024;
const SOCKET_BUFFER: usize = 4 << 20;

/// What happens to datagrams of one direction. Chances are per thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub loss: u64,
    pub duplication: u64,
    /// Held back for up to 20 ms, while later ones pass.
    pub reordering: u64,
    /// One byte is changed.
    pub corruption: u64,
    pub delay: Duration,
    /// Bytes a second; a line that is full drops what comes.
    pub rate: Option<u64>,
    pub cut: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToTarget = 0,
    ToSource = 1,
}

/// What happened to the datagrams of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub passed: u64,
    pub passed_bytes: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub corrupted: u64,
    /// Dropped by a full line.
    pub overflowed: u64,
}

/// A proxy that runs until it is dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    /// Where the source reaches the target through it.
    pub address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    weather: Mutex<[Weather; 2]>,
    counts: Mutex<[Counts; 2]>,
    end: std::sync::atomic::AtomicBool,
}

impl Proxy {
    /// Starts in fine weather, in this network namespace, towards this target.
    pub fn start(namespace: &str, port: u16, target: SocketAddr) -> Proxy {
        let seed =
            setting("STANDIN_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 20 | u64::from(port));
        println!("proxy: STANDIN_SEED={seed}");
        let address: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
        let shared = Arc::new(Shared::default());
        let (namespace, of_thread) = (format!("/run/netns/{namespace}"), shared.clone());
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let namespace = File::open(namespace).expect("the namespace");
            // Of this thread alone; its sockets stay there.
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns");
            let front = bind(address);
            ready.send(()).expect("the test waits");
            let randoms = [Random::new(seed), Random::new(!seed)];
            let now = Instant::now();
            let mut line = Line {
                shared: of_thread,
                front,
                target,
                backs: Vec::new(),
                randoms,
                free_at: [now; 2],
                under_way: BinaryHeap::new(),
                taken: 0,
            };
            line.run();
        });
        is_ready.recv().expect("the proxy starts");
        Proxy { shared, address, thread: Some(thread) }
    }

    /// From now on the weather is this, both ways.
    pub fn set(&self, weather: Weather) {
        *self.shared.weather.lock() = [weather; 2];
    }

    pub fn counts(&self, way: Way) -> Counts {
        self.shared.counts.lock()[way as usize]
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.end.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the proxy failed");
        }
    }
}

fn bind(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(address).expect("a UDP socket");
    socket.set_nonblocking(true).expect("a UDP socket");
    sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER).expect("root may");
    socket
}

/// A datagram that arrives later. The earliest is the greatest, for the heap.
#[derive(PartialEq, Eq)]
struct Datagram {
    due: Instant,
    number: u64,
    way: usize,
    client: usize,
    bytes: Vec<u8>,
}

impl Ord for Datagram {
    fn cmp(&self, other: &Datagram) -> std::cmp::Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl PartialOrd for Datagram {
    fn partial_cmp(&self, other: &Datagram) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The thread's own.
struct Line {
    shared: Arc<Shared>,
    front: UdpSocket,
    target: SocketAddr,
    /// For each address that the source sends from, a socket towards the target.
    backs: Vec<(SocketAddr, UdpSocket)>,
    randoms: [Random; 2],
    /// When a throttled line has sent what it holds.
    free_at: [Instant; 2],
    under_way: BinaryHeap<Datagram>,
    taken: u64,
}

impl Line {
    fn run(&mut self) {
        while !self.shared.end.load(std::sync::atomic::Ordering::Relaxed) {
            self.wait();
            self.take();
            self.deliver();
        }
    }

    fn wait(&self) {
        let due = self.under_way.peek().map(|first| first.due.saturating_duration_since(Instant::now()));
        let timeout = Timespec::try_from(due.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)).expect("short");
        let sockets = std::iter::once(&self.front).chain(self.backs.iter().map(|(_, socket)| socket));
        let mut polled: Vec<_> = sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        let _ = rustix::event::poll(&mut polled, Some(&timeout));
    }

    /// Takes in what has arrived; an error is a port that nobody listens on.
    fn take(&mut self) {
        let mut buffer = [0; 1 << 16];
        for _ in 0..64 {
            let Ok((len, from)) = self.front.recv_from(&mut buffer) else { break };
            let client = self.client(from);
            self.meet(Way::ToTarget, client, &buffer[..len]);
        }
        for client in 0..self.backs.len() {
            for _ in 0..64 {
                let Ok(len) = self.backs[client].1.recv(&mut buffer) else { break };
                self.meet(Way::ToSource, client, &buffer[..len]);
            }
        }
    }

    fn client(&mut self, from: SocketAddr) -> usize {
        if let Some(known) = self.backs.iter().position(|(address, _)| *address == from) {
            return known;
        }
        let socket = bind((Ipv4Addr::UNSPECIFIED, 0).into());
        socket.connect(self.target).expect("the target's address");
        self.backs.push((from, socket));
        self.backs.len() - 1
    }

    /// Decides what becomes of a datagram: as many draws for each, so that a seed replays.
    fn meet(&mut self, way: Way, client: usize, bytes: &[u8]) {
        let way = way as usize;
        let weather = self.shared.weather.lock()[way];
        let mut draw = |chance: u64| self.randoms[way].below(1000) < chance;
        let [lost, duplicated, reordered, corrupted] =
            [weather.loss, weather.duplication, weather.reordering, weather.corruption].map(&mut draw);
        let (hold, place) = (self.randoms[way].below(20_000), self.randoms[way].number());
        let mut counts = self.shared.counts.lock();
        let counts = &mut counts[way];
        if weather.cut || lost {
            counts.lost += 1;
            return;
        }
        let now = Instant::now();
        let mut due = now;
        if let Some(rate) = weather.rate {
            let seconds = |bytes: usize| Duration::from_secs_f64(bytes as f64 / rate as f64);
            let free_at = self.free_at[way].max(now);
            if free_at - now > seconds(LINE_BUFFER) {
                counts.overflowed += 1;
                return;
            }
            due = free_at + seconds(bytes.len());
            self.free_at[way] = due;
        }
        due += weather.delay;
        if reordered {
            counts.reordered += 1;
            due += Duration::from_micros(hold);
        }
        let mut bytes = bytes.to_vec();
        if corrupted && let len @ 1.. = bytes.len() as u64 {
            counts.corrupted += 1;
            bytes[(place % len) as usize] ^= 1 + (place >> 32) as u8 % 255;
        }
        counts.duplicated += u64::from(duplicated);
        for _ in 0..1 + u64::from(duplicated) {
            self.taken += 1;
            self.under_way.push(Datagram { due, number: self.taken, way, client, bytes: bytes.clone() });
        }
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        while self.under_way.peek().is_some_and(|first| first.due <= now) {
            let datagram = self.under_way.pop().expect("it was there");
            let (address, back) = &self.backs[datagram.client];
            let sent = match datagram.way {
                0 => back.send(&datagram.bytes),
                _ => self.front.send_to(&datagram.bytes, address),
            };
            if sent.is_ok() {
                let counts = &mut self.shared.counts.lock()[datagram.way];
                counts.passed += 1;
                counts.passed_bytes += datagram.bytes.len() as u64;
            }
        }
    }
}
