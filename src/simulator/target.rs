//! The target: the product's session and applier in a directory, a process that dies at any step,
//! a disk that fails for a while, a host that loses power.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use super::disk::{self, Image};
use super::planted::Planted;
use crate::apply::{Applier, DurablePoint, Index, OpenError, Places, Replica};
use crate::link::{Received, TargetEvent};
use crate::packet::*;
use crate::random::Random;
use crate::target_side::{SourceSession, Surroundings, Synced, View};
use crate::{clock, failpoint};

pub const SET: SetId = SetId(0x5e7);
/// A target that retries for longer without a fault of its disk never goes on.
const SLEEPS_MAX: u32 = 1500;
/// A fault of one object sets it aside after so long: some do, most are mended before.
const PATIENCE: Duration = Duration::from_millis(100);

/// The process was killed.
struct Died;

/// What the disk and the process are going to suffer; asked at every failpoint.
pub struct Fate {
    random: RefCell<Random>,
    dies_in: Cell<Option<u64>>,
    faults: Cell<u32>,
    /// So many times an object cannot be opened.
    object_faults: Cell<u32>,
    sync_fails: Cell<bool>,
    sync_failed: Cell<bool>,
    /// What was on the disk at the last sync.
    image: RefCell<Option<Image>>,
    opening: Cell<bool>,
}

impl Fate {
    fn at(&self, place: &'static str, places: &Places) -> io::Result<()> {
        match place {
            "object" => return self.at_object(),
            // What fails is an object, not the disk.
            "probe" => return Ok(()),
            _ => {}
        }
        if let Some(left) = self.dies_in.get() {
            if left == 0 {
                self.dies_in.set(None);
                resume_unwind(Box::new(Died));
            }
            self.dies_in.set(Some(left - 1));
        }
        if place == "sync" {
            if self.sync_fails.replace(false) {
                self.sync_failed.set(true);
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            let index = Index::open(&places.state.join("index"))?;
            *self.image.borrow_mut() = Some(Image::take(places, &index));
        } else if self.faults.get() > 0 && !self.opening.get() && self.random.borrow_mut().one_in(2) {
            self.faults.set(self.faults.get() - 1);
            let number = self.random.borrow_mut().pick(&[libc::ENOSPC, libc::EIO]).copied();
            return Err(io::Error::from_raw_os_error(number.unwrap_or(libc::EIO)));
        }
        Ok(())
    }
}

impl Fate {
    fn at_object(&self) -> io::Result<()> {
        match self.object_faults.get() {
            left @ 1.. if !self.opening.get() => {
                self.object_faults.set(left - 1);
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
            _ => Ok(()),
        }
    }
}

/// What a session has around it.
pub struct Desk(Rc<DeskState>);

#[derive(Default)]
struct DeskState {
    out: RefCell<VecDeque<TargetMessage>>,
    events: RefCell<VecDeque<TargetEvent>>,
    cut: RefCell<Option<String>>,
    sync: RefCell<Option<(Sender<Synced>, DurablePoint)>>,
    /// The link is gone from then on.
    lost_at: Cell<Option<Instant>>,
    sleeps: Cell<u32>,
    swallow_welcome: Cell<bool>,
}

impl Surroundings for Desk {
    fn send(&self, message: TargetMessage) {
        if matches!(message, TargetMessage::Welcome { .. }) && self.0.swallow_welcome.get() {
            return;
        }
        self.0.out.borrow_mut().push_back(message);
    }

    fn next_event(&self) -> Option<TargetEvent> {
        self.0.events.borrow_mut().pop_front()
    }

    fn has_to_end(&self) -> Option<String> {
        self.0.cut.borrow().clone()
    }

    fn sleep(&self, how_long: Duration) {
        clock::set(Some(clock::now() + how_long));
        self.0.sleeps.set(self.0.sleeps.get() + 1);
        assert!(self.0.sleeps.get() < SLEEPS_MAX, "an op is retried for ever");
        if self.0.lost_at.get().is_some_and(|at| at <= clock::now()) {
            self.0.lost_at.set(None);
            self.lost();
        }
    }

    fn sync(&self, point: DurablePoint) -> io::Result<Receiver<Synced>> {
        let (sender, outcome) = bounded(1);
        *self.0.sync.borrow_mut() = Some((sender, point));
        Ok(outcome)
    }

    /// There is nobody else to end it.
    fn outcome(&self, sync: &Receiver<Synced>) -> Option<Synced> {
        match self.0.sync.take() {
            Some((_, point)) => {
                let synced = point.sync();
                Some((point, synced))
            }
            None => sync.try_recv().ok(),
        }
    }
}

impl Desk {
    fn lost(&self) {
        self.0.events.borrow_mut().push_back(TargetEvent::Lost { reason: "the link is gone".into() });
    }
}

struct Live {
    link: u32,
    session: SourceSession<Desk, Box<Applier>>,
    desk: Desk,
}

/// What became of a step.
pub enum Step {
    Done,
    /// The session on this link is over.
    Ended {
        link: u32,
        reason: String,
    },
    /// The process is dead.
    Died,
}

/// How a target process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The page cache stays.
    Process,
    /// What was not synced is lost; `everything`: by luck all of it had reached the disk.
    Power { everything: bool },
}

pub struct Target {
    _temp: tempfile::TempDir,
    pub places: Places,
    pub fate: Rc<Fate>,
    planted: Option<Planted>,
    applier: Option<Box<Applier>>,
    live: Option<Live>,
    /// Links whose source was heard, in the order in which they get the applier.
    waiting: VecDeque<u32>,
    /// `None`: the process runs.
    pub down_until: Option<Instant>,
    saved: Option<Saved>,
    /// The dead process could not note a failed sync on its disk: the next one knows nothing of it.
    pub forgets_failed_sync: bool,
    /// Applied, as the dead process had it.
    before: Option<Position>,
    /// The dead process had begun an op.
    pub was_in_doubt: bool,
}

/// An older state directory.
struct Saved {
    files: Vec<(OsString, Vec<u8>)>,
    reached: Position,
}

impl Target {
    pub fn new(random: Random, planted: Option<Planted>) -> Target {
        let temp = temporary_directory();
        let root = temp.path().join("replica");
        std::fs::create_dir(&root).unwrap();
        let places = Places::beside(&root, &temp.path().join("state"));
        let fate = Rc::new(Fate {
            random: RefCell::new(random),
            dies_in: Cell::new(None),
            faults: Cell::new(0),
            object_faults: Cell::new(0),
            sync_fails: Cell::new(false),
            sync_failed: Cell::new(false),
            image: RefCell::new(None),
            opening: Cell::new(false),
        });
        let hook = (fate.clone(), places.clone());
        failpoint::set(Some(Rc::new(move |place| hook.0.at(place, &hook.1))));
        let mut target = Target {
            _temp: temp,
            places,
            fate,
            planted,
            applier: None,
            live: None,
            waiting: VecDeque::new(),
            down_until: None,
            saved: None,
            forgets_failed_sync: false,
            before: None,
            was_in_doubt: false,
        };
        target.applier = Some(Box::new(Applier::new(target.open_replica().unwrap()).with_patience(PATIENCE)));
        let index = Index::open(&target.places.state.join("index")).unwrap();
        *target.fate.image.borrow_mut() = Some(Image::take(&target.places, &index));
        target
    }

    fn open_replica(&self) -> Result<Replica, OpenError> {
        self.fate.opening.set(true);
        let opened = Replica::open(&self.places, SET);
        self.fate.opening.set(false);
        opened
    }

    /// The process starts.
    ///
    /// Errors: the replica cannot be opened, or is not what the dead process left.
    pub fn start(&mut self) -> Result<Step, String> {
        let opened = catch_unwind(AssertUnwindSafe(|| self.open_replica()));
        let mut replica = match self.survived(opened)? {
            Some(opened) => opened.map_err(|error| format!("the replica does not open: {error}"))?,
            None => return Ok(Step::Died),
        };
        if self.planted == Some(Planted::ReplaysFromDurable) {
            replica.pretend_applied(replica.durable());
            self.before = None;
        }
        let applied = replica.applied();
        if let Some(before) = self.before.take()
            && before != applied
            && replica.data().state == DataState::Good
        {
            return Err(format!("applied was {before}, and is {applied} in the next process"));
        }
        self.was_in_doubt = replica.in_doubt();
        let rested = catch_unwind(AssertUnwindSafe(|| match self.planted {
            Some(Planted::LeavesWhatWasBegun) => Applier::new(replica),
            _ => Applier::at_rest(replica),
        }));
        let Some(applier) = self.survived(rested)? else { return Ok(Step::Died) };
        self.applier = Some(Box::new(applier.with_patience(PATIENCE)));
        self.down_until = None;
        Ok(Step::Done)
    }

    pub fn is_up(&self) -> bool {
        self.down_until.is_none()
    }

    pub fn applier(&mut self) -> Option<&mut Applier> {
        match &mut self.live {
            Some(live) => Some(live.session.applier()),
            None => self.applier.as_deref_mut(),
        }
    }

    pub fn serves(&self, link: u32) -> bool {
        self.live.as_ref().is_some_and(|live| live.link == link)
    }

    /// A source greets: it gets the applier when an older session of it has ended.
    pub fn greeted(&mut self, link: u32) -> Option<TargetMessage> {
        let early = match (&mut self.live, self.planted) {
            (Some(live), Some(Planted::OldSessionGoesOn)) => {
                let proof = live.session.applier().proof();
                Some(TargetMessage::Welcome { version: WIRE_VERSION, features: Features::OFFERED, proof })
            }
            (Some(live), _) => {
                let reason = "a newer connection of the same source took over";
                live.desk.0.cut.borrow_mut().get_or_insert(reason.into());
                None
            }
            (None, _) => None,
        };
        self.waiting.push_back(link);
        early
    }

    pub fn forget_waiting(&mut self, link: u32) {
        self.waiting.retain(|waiting| *waiting != link);
    }

    /// The next session that waits begins, where none runs. Answers its link.
    pub fn begin_session(&mut self, welcomed: bool) -> Option<u32> {
        if self.live.is_some() || self.applier.is_none() {
            return None;
        }
        let link = self.waiting.pop_front()?;
        let applier = self.applier.take()?;
        let view = Arc::new(Mutex::new(View::of(&applier)));
        let state = Rc::new(DeskState::default());
        state.swallow_welcome.set(welcomed);
        let session = SourceSession::welcome(Desk(state.clone()), &view, applier);
        self.live = Some(Live { link, session, desk: Desk(state) });
        Some(link)
    }

    pub fn next_waiting(&self) -> Option<u32> {
        if self.live.is_some() { None } else { self.waiting.front().copied() }
    }

    /// The link of the session that runs.
    pub fn live_link(&self) -> Option<u32> {
        self.live.as_ref().map(|live| live.link)
    }

    pub fn hear(&mut self, message: SourceMessage) {
        if let Some(live) = &self.live {
            live.desk.0.events.borrow_mut().push_back(TargetEvent::Message(message));
        }
    }

    /// The session learns that its link is gone: now, or while it waits.
    pub fn link_is_gone(&mut self, at: Instant) {
        if let Some(live) = &self.live {
            match at <= clock::now() {
                true => live.desk.lost(),
                false => live.desk.0.lost_at.set(Some(at)),
            }
        }
    }

    pub fn take_messages(&mut self) -> Vec<TargetMessage> {
        let out = self.live.as_ref().map(|live| live.desk.0.out.take());
        out.map(Vec::from).unwrap_or_default()
    }

    /// The session does what comes next.
    pub fn turn(&mut self, received: Received) -> Result<Step, String> {
        let Some(live) = &mut self.live else { return Ok(Step::Done) };
        live.desk.0.sleeps.set(0);
        let link = live.link;
        let turned = catch_unwind(AssertUnwindSafe(|| live.session.turn(received)));
        match self.survived(turned)? {
            None => Ok(Step::Died),
            Some(Ok(())) => {
                self.calls_it_good();
                Ok(Step::Done)
            }
            Some(Err(reason)) => Ok(Step::Ended { link, reason }),
        }
    }

    /// A planted bug: what was set aside is forgotten.
    fn calls_it_good(&mut self) {
        if self.planted != Some(Planted::GoodWithoutProof) {
            return;
        }
        let Some(applier) = self.applier() else { return };
        let replica = applier.replica();
        if replica.proof(Position::default()).bad_by == BadBy::Aside {
            // A death that is planned for here comes to nothing.
            let _ = catch_unwind(AssertUnwindSafe(|| replica.mark_good()));
        }
    }

    /// The session is over: it makes durable what it applied, and lends the applier no more.
    pub fn end_session(&mut self) -> Result<Step, String> {
        if let Step::Died = self.sync_ends()? {
            return Ok(Step::Died);
        }
        let Some(live) = &mut self.live else { return Ok(Step::Done) };
        let finished = catch_unwind(AssertUnwindSafe(|| live.session.finish()));
        if self.survived(finished)?.is_none() {
            return Ok(Step::Died);
        }
        self.applier = self.live.take().map(|live| live.session.into_applier());
        Ok(Step::Done)
    }

    pub fn syncs(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.desk.0.sync.borrow().is_some())
    }

    /// The thread that syncs is through.
    pub fn sync_ends(&mut self) -> Result<Step, String> {
        let Some(live) = &self.live else { return Ok(Step::Done) };
        let Some((sender, point)) = live.desk.0.sync.take() else { return Ok(Step::Done) };
        let synced = match self.planted {
            Some(Planted::DurableBeforeSync) => Ok(Ok(())),
            _ => catch_unwind(AssertUnwindSafe(|| point.sync())),
        };
        match self.survived(synced)? {
            Some(outcome) => _ = sender.send((point, outcome)),
            None => return Ok(Step::Died),
        }
        Ok(Step::Done)
    }

    /// `None`: the process died in it. Errors: the text of a panic of the product.
    fn survived<T>(&mut self, done: std::thread::Result<T>) -> Result<Option<T>, String> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(payload) if payload.is::<Died>() => {
                self.fate.opening.set(false);
                Ok(None)
            }
            Err(payload) => {
                let text = payload.downcast_ref::<String>().cloned();
                let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                Err(format!("a panic: {}", text.unwrap_or_default()))
            }
        }
    }

    /// The process is gone, and with a power loss what was not synced. Answers whether the replica
    /// cannot be proved any more.
    pub fn die(&mut self, loss: Loss, back_at: Instant) -> bool {
        let at_rest = self.applier().is_some_and(|applier| {
            let now = applier.acknowledged();
            now.applied == now.durable && !applier.replica().in_doubt()
        });
        self.fate.sync_failed.set(false);
        self.forgets_failed_sync = self.applier().is_some_and(|applier| !applier.replica().has_noted());
        self.before = self.applier().map(|applier| applier.replica().applied()).or(self.before);
        self.live = None;
        self.applier = None;
        self.waiting.clear();
        self.down_until = Some(back_at);
        let state = &self.places.state;
        match loss {
            Loss::Process => match self.planted {
                Some(Planted::NoInDoubtRecord) => disk::forget_begun(state),
                Some(Planted::ForgetsPendingTimes) => {
                    let _ = std::fs::remove_file(state.join("times"));
                }
                _ => {}
            },
            Loss::Power { everything } => {
                self.before = None;
                if self.planted != Some(Planted::TrustsThePageAfterPowerLoss) {
                    disk::forget_page_cache(state);
                }
                if !everything {
                    let identity = self.fate.random.borrow_mut().one_in(2);
                    let image = self.fate.image.borrow();
                    image.as_ref().expect("one is taken at the start").restore(&self.places, identity);
                }
            }
        }
        matches!(loss, Loss::Power { .. }) && !at_rest
    }

    /// Remembers the state directory as it is, for a person who puts it back later.
    pub fn save_state(&mut self) {
        if let Some(applier) = self.applier() {
            let reached = applier.replica().applied();
            let files = disk::save_state(&self.places.state);
            self.saved = Some(Saved { files, reached });
        }
    }

    /// Puts an older state directory back, where the replica itself can tell: it says of a later
    /// durable point.
    pub fn set_state_back(&mut self) -> bool {
        let Some(durable) = self.applier().map(|applier| applier.replica().durable()) else { return false };
        let tells = |saved: &mut Saved| {
            durable.same_history(&saved.reached) && durable.sequence > saved.reached.sequence
        };
        let Some(saved) = self.saved.take_if(tells) else { return false };
        self.die(Loss::Process, clock::now());
        self.before = None;
        disk::restore_state(&self.places.state, &saved.files);
        true
    }

    /// Whether the page or the sync of the disk is about to fail or the process to die.
    pub fn plan(&self, dies_in: Option<u64>, faults: u32, sync_fails: bool) {
        self.fate.dies_in.set(dies_in);
        self.fate.faults.set(faults);
        self.fate.sync_fails.set(sync_fails);
    }

    /// An object is damaged for so many attempts.
    pub fn damage_object(&self, attempts: u32) {
        self.fate.object_faults.set(attempts);
    }

    /// Whether a sync has failed since this was asked last, and the applier has heard of it. (A
    /// process that is killed between the failure and its note leaves no trace of it.)
    pub fn take_sync_failure(&mut self) -> bool {
        let noted = self.applier().is_some_and(|applier| applier.replica().sync_failed());
        noted && self.fate.sync_failed.replace(false)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        failpoint::set(None);
    }
}

/// In memory where that file system has file handles.
pub fn temporary_directory() -> tempfile::TempDir {
    use std::os::fd::AsFd;
    let in_memory = std::path::Path::new("/dev/shm");
    let fits =
        std::fs::File::open(in_memory).is_ok_and(|dir| crate::sys::FileHandle::of(dir.as_fd()).is_ok());
    let made = if fits { tempfile::tempdir_in(in_memory) } else { tempfile::tempdir() };
    made.expect("a temporary directory")
}
