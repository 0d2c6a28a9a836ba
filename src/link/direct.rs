//! A link within one process: the same frames and messages, and no network between.
//!
//! ```text
//!  Feed <── asked by the thread that applies (FrameReceiver::recv) ── frames ──> applied
//!   │ Waker rings the bell, only while that thread waits for the first frame after a rest
//!  SourceMessage ──> TargetEvent        TargetMessage ──> SourceEvent
//! ```
//! Nothing is encrypted or copied, no thread stands between the queue and the applier: what waits is
//! taken when the applier has nothing left, so that batches grow with the load.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, Sender, bounded, unbounded};
use parking_lot::Mutex;

use super::frames::{Feed, FrameReceiver, Received, Waker};
use super::source::{LostBy, SourceEvent, SourceLink};
use super::stats::LinkStats;
use super::target::{TargetEvent, TargetLink};
use crate::limits::{DIRECT_BATCH, DIRECT_MESSAGES_MAX, FRAMES_TOGETHER};
use crate::packet::{CodecError, Frame, SourceMessage, TargetMessage};

/// Both ends of a new link. It is up at once.
pub fn direct(feed: impl Feed) -> (SourceLink, TargetLink) {
    let (ring, bell) = bounded(1);
    let (to_source, source_events) = unbounded();
    let (to_target, target_events) = unbounded();
    let passage = Arc::new(Passage {
        waker: Waker::ringing(ring),
        bell,
        taking: Mutex::new(Taking { feed: Box::new(feed), ready: VecDeque::new(), taken_at: None }),
        to_source,
        to_target,
        end: OnceLock::new(),
        started: AtomicBool::new(false),
        welcomed: AtomicBool::new(false),
        moved_bytes: AtomicU64::new(0),
    });
    let _ = passage.to_source.send(SourceEvent::Up);
    let source = SourceLink::direct(passage.clone(), source_events);
    let target = TargetLink::direct(passage.clone(), FrameReceiver::direct(passage), target_events);
    (source, target)
}

/// What both ends share.
pub(super) struct Passage {
    waker: Waker,
    bell: Receiver<()>,
    /// Of the one thread that applies.
    taking: Mutex<Taking>,
    to_source: Sender<SourceEvent>,
    to_target: Sender<TargetEvent>,
    /// Why it is over.
    end: OnceLock<String>,
    started: AtomicBool,
    welcomed: AtomicBool,
    moved_bytes: AtomicU64,
}

struct Taking {
    feed: Box<dyn Feed>,
    /// Taken from the feed and not yet handed out.
    ready: VecDeque<Frame>,
    /// When the feed had something last.
    taken_at: Option<Instant>,
}

/// What ended a wait.
enum Heard {
    /// The bell: something may be there.
    Bell,
    /// Something came elsewhere.
    News,
    Nothing,
}

impl Passage {
    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    pub(super) fn start(&self) {
        self.started.store(true, SeqCst);
        self.waker.wake_now();
    }

    pub(super) fn welcome(&self) {
        self.welcomed.store(true, SeqCst);
        self.waker.wake_now();
    }

    pub(super) fn tell_target(&self, message: SourceMessage) {
        self.tell(&self.to_target, TargetEvent::Message(message), "the target");
    }

    pub(super) fn tell_source(&self, message: TargetMessage) {
        self.tell(&self.to_source, SourceEvent::Message(message), "the source");
    }

    /// What is told behind the end is not heard.
    fn tell<E>(&self, to: &Sender<E>, event: E, whom: &str) {
        if self.end.get().is_some() {
            return;
        }
        if to.len() >= DIRECT_MESSAGES_MAX {
            return self.end(&format!("{whom} left {DIRECT_MESSAGES_MAX} messages unread"));
        }
        let _ = to.send(event);
    }

    /// The first reason counts; both sides hear it behind everything that they were told.
    pub(super) fn end(&self, reason: &str) {
        if self.end.set(reason.to_owned()).is_ok() {
            let _ = self.to_source.send(SourceEvent::Lost { by: LostBy::Network, reason: reason.to_owned() });
            let _ = self.to_target.send(TargetEvent::Lost { reason: reason.to_owned() });
            self.waker.wake_now();
        }
    }

    /// No network: bytes of frames is all that there is to count.
    pub(super) fn stats(&self) -> LinkStats {
        LinkStats { sent_bytes: self.moved_bytes.load(Relaxed), ..LinkStats::default() }
    }

    /// [`FrameReceiver::recv`]; with `news`, [`FrameReceiver::recv_or_news`].
    pub(super) fn recv<T>(&self, timeout: Duration, news: Option<&Receiver<T>>) -> Received {
        let mut taking = self.taking.lock();
        if let Some(frame) = taking.ready.pop_front() {
            return Received::Frame(frame);
        }
        let until = Instant::now() + timeout;
        loop {
            if let Some(received) = self.look(&mut taking) {
                return received;
            }
            let soon = taking.taken_at.map(|at| at + FRAMES_TOGETHER).filter(|&soon| soon > Instant::now());
            let heard = match soon {
                // Right after frames whoever has more wakes nobody: it is looked for again soon.
                Some(soon) if soon < until => match self.listen(soon, news) {
                    Heard::News => Heard::News,
                    Heard::Bell | Heard::Nothing => Heard::Bell,
                },
                Some(_) => self.listen(until, news),
                None => {
                    self.waker.fall_asleep();
                    if let Some(received) = self.look(&mut taking) {
                        self.waker.stay_awake();
                        return received;
                    }
                    self.listen(until, news)
                }
            };
            match heard {
                Heard::Bell => {}
                Heard::News => return Received::Idle,
                Heard::Nothing => return self.look(&mut taking).unwrap_or(Received::Idle),
            }
        }
    }

    pub(super) fn at_hand(&self) -> Option<Frame> {
        self.taking.lock().ready.pop_front()
    }

    fn listen<T>(&self, until: Instant, news: Option<&Receiver<T>>) -> Heard {
        let Some(news) = news else {
            return if self.bell.recv_deadline(until).is_ok() { Heard::Bell } else { Heard::Nothing };
        };
        let mut select = Select::new();
        let bell = select.recv(&self.bell);
        select.recv(news);
        match select.ready_deadline(until) {
            Ok(ready) if ready == bell => {
                let _ = self.bell.try_recv();
                Heard::Bell
            }
            Ok(_) => Heard::News,
            Err(_) => Heard::Nothing,
        }
    }

    /// What is there at this moment.
    fn look(&self, taking: &mut Taking) -> Option<Received> {
        if self.end.get().is_none()
            && self.started.load(SeqCst)
            && self.welcomed.load(SeqCst)
            && let Err(error) = self.take(taking)
        {
            self.end(&format!("packet stream: {error}"));
        }
        match taking.ready.pop_front() {
            Some(frame) => Some(Received::Frame(frame)),
            None => self.end.get().map(|reason| Received::Closed { reason: reason.clone() }),
        }
    }

    fn take(&self, taking: &mut Taking) -> Result<(), CodecError> {
        let frames = taking.feed.next_frames(DIRECT_BATCH);
        if frames.is_empty() {
            return Ok(());
        }
        taking.taken_at = Some(Instant::now());
        self.moved_bytes.fetch_add(frames.iter().map(|frame| frame.len() as u64).sum(), Relaxed);
        for frame in frames {
            taking.ready.push_back(frame.decode()?);
        }
        Ok(())
    }
}
