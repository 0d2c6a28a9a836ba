//! The packet stream: from a [`Feed`] on the source to a [`FrameReceiver`] on the target.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use parking_lot::Mutex;
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::assembler::{Assembled, Assembler};
use super::direct::Passage;
use super::ending::End;
use super::outgoing::Wrapping;
use crate::limits::{FEED_BATCH, FRAMES_TOGETHER, RECEIVE_WINDOW, SEND_WINDOW_MIN, STREAM_WINDOW};
use crate::packet::{EncodedFrame, Frame};
use crate::pool::Pool;

/// What a source sends next on the packet stream. Called on the link thread: must not block.
pub trait Feed: Send + 'static {
    /// The next frames, in the order in which they go, some `max_bytes` of them (one frame may
    /// exceed it). Empty: nothing right now; after a [`Waker::wake`] it is asked again.
    fn next_frames(&mut self, max_bytes: usize) -> Vec<EncodedFrame>;
}

impl Feed for Box<dyn Feed> {
    fn next_frames(&mut self, max_bytes: usize) -> Vec<EncodedFrame> {
        (**self).next_frames(max_bytes)
    }
}

/// Tells the link thread that its [`Feed`] has something. From any thread; never blocks; while
/// the link thread is awake it costs one atomic read.
#[derive(Clone)]
pub struct Waker(Arc<WakerState>);

struct WakerState {
    asleep: AtomicBool,
    sleeper: Sleeper,
    started: Notify,
}

/// Who asks the feed.
enum Sleeper {
    /// A task of the link thread.
    Task(Notify),
    /// A thread that listens to this bell; the channel holds one.
    Thread(Sender<()>),
}

impl Waker {
    /// Of a feed that is not asleep.
    pub(crate) fn new() -> Waker {
        Waker::of(Sleeper::Task(Notify::new()))
    }

    pub(super) fn ringing(bell: Sender<()>) -> Waker {
        Waker::of(Sleeper::Thread(bell))
    }

    fn of(sleeper: Sleeper) -> Waker {
        Waker(Arc::new(WakerState { asleep: AtomicBool::new(false), sleeper, started: Notify::new() }))
    }

    /// Call it after the feed's state has changed.
    pub fn wake(&self) {
        std::sync::atomic::fence(SeqCst);
        if self.0.asleep.load(SeqCst) && self.0.asleep.swap(false, SeqCst) {
            self.ring();
        }
    }

    /// As [`Waker::wake`], also where the feed would soon be asked by itself.
    pub fn wake_now(&self) {
        std::sync::atomic::fence(SeqCst);
        self.0.asleep.store(false, SeqCst);
        self.ring();
    }

    fn ring(&self) {
        match &self.0.sleeper {
            Sleeper::Task(notify) => notify.notify_one(),
            // Full: it rings already.
            Sleeper::Thread(bell) => drop(bell.try_send(())),
        }
    }

    /// Until somebody wakes the feed's task.
    async fn woken(&self) {
        match &self.0.sleeper {
            Sleeper::Task(notify) => notify.notified().await,
            Sleeper::Thread(_) => {}
        }
    }

    pub(super) fn start(&self) {
        self.0.started.notify_one();
    }

    /// From here on a wake is kept; the feed must be asked once more before sleeping.
    pub(crate) fn fall_asleep(&self) {
        self.0.asleep.store(true, SeqCst);
        std::sync::atomic::fence(SeqCst);
    }

    /// Nobody need wake it: it is about to ask.
    pub(super) fn stay_awake(&self) {
        self.0.asleep.store(false, SeqCst);
    }

    #[cfg(test)]
    pub(crate) fn is_asleep(&self) -> bool {
        self.0.asleep.load(SeqCst)
    }
}

/// Sends what the feed gives until the connection ends.
pub(super) async fn send(
    connection: Connection,
    mut stream: SendStream,
    mut feed: impl Feed,
    waker: Waker,
    mut wrapping: Wrapping,
) -> End {
    waker.0.started.notified().await;
    let mut sent_at = None;
    loop {
        let mut frames = feed.next_frames(wrapping.limiter.batch());
        if frames.is_empty() {
            if let Some(at) = sent_at.take() {
                // Whoever has more right behind them wakes nobody; it goes in one datagram train.
                let _ = timeout_at(at + FRAMES_TOGETHER, waker.woken()).await;
                continue;
            }
            waker.fall_asleep();
            frames = feed.next_frames(wrapping.limiter.batch());
            if frames.is_empty() {
                waker.woken().await;
                continue;
            }
            waker.stay_awake();
        }
        sent_at = Some(Instant::now());
        if let Err(end) = send_batch(&connection, &mut stream, frames, &mut wrapping).await {
            return end;
        }
    }
}

async fn send_batch(
    connection: &Connection,
    stream: &mut SendStream,
    frames: Vec<EncodedFrame>,
    wrapping: &mut Wrapping,
) -> Result<(), End> {
    let mut wrapped = Vec::with_capacity(frames.len());
    frames.into_iter().for_each(|frame| wrapping.wrap(frame, &mut wrapped));
    let frames = wrapped;
    let bytes: usize = frames.iter().map(EncodedFrame::len).sum();
    if let Some(window) = wrapping.limiter.window() {
        connection.set_send_window(window);
    } else if bytes >= FEED_BATCH / 2 {
        connection.set_send_window(send_window(connection.stats().path.cwnd));
    }
    let mut chunks: Vec<Bytes> = frames
        .into_iter()
        .flat_map(|frame| [frame.head, frame.payload])
        .filter(|part| !part.is_empty())
        .collect();
    debug_assert_eq!(chunks.iter().map(Bytes::len).sum::<usize>(), bytes, "a batch is not its frames");
    stream.write_all_chunks(&mut chunks).await?;
    // Lets the connection send this before the next batch is made.
    tokio::task::yield_now().await;
    Ok(())
}

/// Bytes handed to QUIC and not yet acknowledged. Twice what the network takes keeps it busy;
/// more would only make what comes next wait behind it.
fn send_window(congestion_window: u64) -> u64 {
    (2 * congestion_window).clamp(SEND_WINDOW_MIN, STREAM_WINDOW.into())
}

/// What [`FrameReceiver::recv`] has.
// One is made for each frame and taken apart at once: boxing it would only cost.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum Received {
    Frame(Frame),
    /// Nothing came within the time given.
    Idle,
    /// Nothing will come any more: every frame that had arrived was handed out.
    Closed {
        reason: String,
    },
}

/// Frames as they arrive, in order, checked and decoded. Up to [`RECEIVE_WINDOW`] bytes wait
/// here; then the source is slowed down. Taking a frame gives its bytes back.
#[derive(Clone)]
pub struct FrameReceiver(Way);

#[derive(Clone)]
enum Way {
    Network(Arrived),
    Direct(Arc<Passage>),
}

impl FrameReceiver {
    pub(super) fn direct(passage: Arc<Passage>) -> FrameReceiver {
        FrameReceiver(Way::Direct(passage))
    }

    /// The next frame, if it came with the one before: nothing new is looked for.
    pub fn at_hand(&self) -> Option<Frame> {
        match &self.0 {
            Way::Network(arrived) => arrived.at_hand(),
            Way::Direct(passage) => passage.at_hand(),
        }
    }

    /// Waits up to `timeout` for the next frame.
    pub fn recv(&self, timeout: Duration) -> Received {
        match &self.0 {
            Way::Network(arrived) => arrived.recv(timeout),
            Way::Direct(passage) => passage.recv::<()>(timeout, None),
        }
    }

    /// [`FrameReceiver::recv`], but [`Received::Idle`] as soon as `news` has something and no
    /// frame is there.
    pub fn recv_or_news<T>(&self, timeout: Duration, news: &Receiver<T>) -> Received {
        match &self.0 {
            Way::Network(arrived) => arrived.recv_or_news(timeout, news),
            Way::Direct(passage) => passage.recv(timeout, Some(news)),
        }
    }

    /// Bytes received and not yet taken, with what they cost beside their content.
    pub fn waiting_bytes(&self) -> usize {
        match &self.0 {
            Way::Network(arrived) => arrived.window.used.load(SeqCst),
            Way::Direct(_) => 0,
        }
    }
}

/// Frames that have arrived over the network.
#[derive(Clone)]
struct Arrived {
    /// What came together is one entry.
    batches: Receiver<Vec<Assembled>>,
    /// The rest of the last one.
    opened: Arc<Mutex<VecDeque<Assembled>>>,
    window: Arc<Window>,
    reason: Arc<Mutex<String>>,
}

impl Arrived {
    fn at_hand(&self) -> Option<Frame> {
        let Assembled { frame, cost } = self.opened.lock().pop_front()?;
        self.window.give_back(cost);
        Some(frame)
    }

    fn recv(&self, timeout: Duration) -> Received {
        if let Some(frame) = self.at_hand() {
            return Received::Frame(frame);
        }
        match self.batches.recv_timeout(timeout) {
            Ok(batch) => {
                self.opened.lock().extend(batch);
                self.at_hand().map_or(Received::Idle, Received::Frame)
            }
            Err(RecvTimeoutError::Timeout) => Received::Idle,
            Err(RecvTimeoutError::Disconnected) => Received::Closed { reason: self.reason.lock().clone() },
        }
    }

    fn recv_or_news<T>(&self, timeout: Duration, news: &Receiver<T>) -> Received {
        match self.recv(Duration::ZERO) {
            Received::Idle => {}
            received => return received,
        }
        let mut select = crossbeam_channel::Select::new();
        let frames = select.recv(&self.batches);
        select.recv(news);
        match select.ready_timeout(timeout) {
            Ok(ready) if ready == frames => self.recv(Duration::ZERO),
            _ => Received::Idle,
        }
    }
}

/// The link thread's end of a [`FrameReceiver`].
#[derive(Clone)]
pub(super) struct FrameSender {
    batches: Sender<Vec<Assembled>>,
    window: Arc<Window>,
    pub(super) reason: Arc<Mutex<String>>,
}

pub(super) fn channel() -> (FrameSender, FrameReceiver) {
    let (sender, batches) = crossbeam_channel::unbounded();
    let window = Arc::new(Window::default());
    let reason = Arc::new(Mutex::new(String::new()));
    let arrived = Arrived { batches, opened: Arc::default(), window: window.clone(), reason: reason.clone() };
    (FrameSender { batches: sender, window, reason }, FrameReceiver(Way::Network(arrived)))
}

/// Assembles frames from the stream until it ends.
pub(super) async fn receive(mut stream: RecvStream, pool: Pool, sender: FrameSender) -> End {
    let mut assembler = Assembler::new(pool);
    let mut chunks: [Bytes; 32] = Default::default();
    loop {
        let count = match stream.read_chunks(&mut chunks).await {
            Ok(Some(count)) => count,
            Ok(None) if assembler.between_frames() => {
                return End::Lost("the source ended the packet stream".into());
            }
            Ok(None) => return End::Fault("the packet stream ended within a frame".into()),
            Err(error) => return error.into(),
        };
        if let Err(end) = hand_on(&mut assembler, &mut chunks[..count], &sender).await {
            return end;
        }
    }
}

/// Hands on the frames that these chunks complete, together: the applier wakes once for them.
async fn hand_on(assembler: &mut Assembler, chunks: &mut [Bytes], sender: &FrameSender) -> Result<(), End> {
    let mut batch = Vec::new();
    for chunk in chunks {
        while let Some(assembled) = next_of(assembler, chunk, &mut batch, sender)? {
            if !sender.window.try_take(assembled.cost) {
                sender.send(&mut batch)?;
                sender.window.take(assembled.cost).await;
            }
            batch.push(assembled);
        }
    }
    sender.send(&mut batch)
}

/// The frame that the chunk completes next. Before an error is told, what came whole is handed on.
fn next_of(
    assembler: &mut Assembler,
    chunk: &mut Bytes,
    batch: &mut Vec<Assembled>,
    sender: &FrameSender,
) -> Result<Option<Assembled>, End> {
    assembler.take(chunk).or_else(|error| {
        sender.send(batch)?;
        Err(End::Fault(format!("packet stream: {error}")))
    })
}

impl FrameSender {
    /// Errors: nobody takes them.
    fn send(&self, batch: &mut Vec<Assembled>) -> Result<(), End> {
        if batch.is_empty() {
            return Ok(());
        }
        let gone = |_| End::Closed("nobody takes frames any more".into());
        self.batches.send(std::mem::take(batch)).map_err(gone)
    }
}

/// Bytes received and not yet taken: at most [`RECEIVE_WINDOW`], or one frame.
#[derive(Default)]
struct Window {
    used: AtomicUsize,
    waiting: AtomicBool,
    room: Notify,
}

impl Window {
    /// Waits for room; only the one task that receives takes.
    async fn take(&self, bytes: usize) {
        while !self.try_take(bytes) {
            self.waiting.store(true, SeqCst);
            if self.try_take(bytes) {
                return self.waiting.store(false, SeqCst);
            }
            self.room.notified().await;
        }
    }

    fn try_take(&self, bytes: usize) -> bool {
        let used = self.used.load(SeqCst);
        let fits = used == 0 || used + bytes <= RECEIVE_WINDOW;
        if fits {
            let before = self.used.fetch_add(bytes, SeqCst);
            assert!(before <= used, "two take of the window at once");
        }
        fits
    }

    /// Wakes the receiving task only when half the window is free: not once for each frame.
    fn give_back(&self, bytes: usize) {
        let used = self.used.fetch_sub(bytes, SeqCst);
        assert!(bytes <= used, "more of the window is given back than was taken");
        let left = used - bytes;
        if left <= RECEIVE_WINDOW / 2 && self.waiting.load(SeqCst) && self.waiting.swap(false, SeqCst) {
            self.room.notify_one();
        }
    }
}
