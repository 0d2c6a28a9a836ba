//! A copy that shows only what is owed; the target vouches for the rest.
//!
//! ```text
//!  BeginOwed Root Owed* │ listings of owed directories ─> what they show first, as in a walk
//!  right at P0          │ ranges of files that were called and that the target has
//!                       │ attributes of everything else
//! ```
//! Files are called in the batch that begins the copy, before any packet: a packet that writes into one of
//! them must not give it the time under which it would be taken for complete. Those that are too many for
//! that are called among packets; what is owed is owed again in the next attempt, whatever has become of
//! this one.
//!
//! What changed between the moment at which it was known what is owed and P0 is neither that nor a packet
//! behind P0: so it is asked once more, right behind P0 ([`WhatIsOwed`]).

mod file;
mod outside;

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::AsFd;
use std::sync::Arc;

use self::file::{OwedFile, Went};
use super::super::error::has_vanished;
use super::super::look::stat;
use super::super::owed::{Owed, OwedContent, OwedObject};
use super::super::place::{ListedFile, TreePath};
use super::super::seeing::{Eyes, NotRead};
use super::super::sink::{Entry, StampedSink};
use super::super::{CopyError, CopyProgress, Wanted};
use super::files::{Place, Reader};
use super::plan::{Descend, Directory, Job, Plan};
use super::{LiveCopy, Stepped};
use crate::limits::{OWED_CALLED_MAX, OWED_CALLS_IN_FLIGHT};
use crate::packet::{ItemNumber, LaneItem, ObjectId};
use crate::sys::{FileHandle, open_by_handle};

/// What is owed and not shown yet; objects by their places in `owed`.
pub(super) struct Owing {
    owed: Vec<OwedObject>,
    /// Files that were not called yet.
    to_call: VecDeque<usize>,
    /// Sent and not answered, oldest first.
    in_flight: VecDeque<Call>,
    /// Files that the target has.
    due: VecDeque<usize>,
    /// Objects whose attributes are owed, and do not come with content.
    bare: VecDeque<usize>,
    open: Option<OwedFile>,
}

struct Call {
    /// `None`: it went with those that began the copy, whose numbers nobody tells.
    number: Option<ItemNumber>,
    files: Vec<usize>,
}

/// What comes next.
enum Turn {
    Call(Vec<usize>),
    File(OwedFile),
    /// It is not known what of it has changed.
    Doubted {
        place: Place,
        size: u64,
    },
    Attributes(usize),
    /// Nothing before an answer.
    Wait,
    Done,
}

impl Owing {
    /// `root`: its attributes come with the beginning of the copy.
    pub fn new(owed: Arc<Owed>, root: &FileHandle) -> Owing {
        let (mut to_call, mut bare) = (VecDeque::new(), VecDeque::new());
        let owed = with_root_listed(Arc::unwrap_or_clone(owed).objects, root);
        for (at, object) in owed.iter().enumerate() {
            match object.content {
                OwedContent::No if object.handle == *root => {}
                OwedContent::No => bare.push_back(at),
                OwedContent::Ranges(_) | OwedContent::From(..) | OwedContent::Doubted { .. } => {
                    to_call.push_back(at);
                }
            }
        }
        Owing { owed, to_call, in_flight: VecDeque::new(), due: VecDeque::new(), bare, open: None }
    }

    /// Directories whose names are owed.
    pub fn plan(&self) -> Plan<(FileHandle, Arc<TreePath>), Place> {
        let directories = self.owed.iter().filter(|object| object.names).map(directory);
        Plan::of(directories)
    }

    /// What is owed as of a later moment, before anything but the first calls has gone. What is more of a file
    /// that was called goes with the rest of it. Gives directories whose names are owed, too.
    fn more(&mut self, now: Owed, root: &FileHandle) -> Vec<Directory<(FileHandle, Arc<TreePath>)>> {
        assert!(self.open.is_none() && self.due.is_empty(), "more is owed of what may have gone");
        let known: HashMap<ObjectId, usize> =
            self.owed.iter().enumerate().map(|(at, object)| (object.id, at)).collect();
        let mut directories = Vec::new();
        for object in with_root_listed(now.objects, root) {
            let has_content = object.content != OwedContent::No;
            let Some(&at) = known.get(&object.id) else {
                directories.extend(object.names.then(|| directory(&object)));
                match has_content {
                    true => self.to_call.push_back(self.owed.len()),
                    false => self.bare.push_back(self.owed.len()),
                }
                self.owed.push(object);
                continue;
            };
            let before = std::mem::replace(&mut self.owed[at], object);
            directories.extend((self.owed[at].names && !before.names).then(|| directory(&self.owed[at])));
            if has_content && before.content == OwedContent::No {
                self.to_call.push_back(at);
            }
        }
        directories
    }

    /// Those that go with the beginning of the copy.
    pub fn first_calls(&mut self) -> Vec<LaneItem> {
        let mut items = Vec::new();
        while let Some((files, item)) = self.next_call() {
            self.in_flight.push_back(Call { number: None, files });
            items.push(item);
        }
        items
    }

    fn next_call(&mut self) -> Option<(Vec<usize>, LaneItem)> {
        if self.to_call.is_empty() || self.in_flight.len() >= OWED_CALLS_IN_FLIGHT {
            return None;
        }
        let count = self.to_call.len().min(OWED_CALLED_MAX);
        let files: Vec<usize> = self.to_call.drain(..count).collect();
        let objects = files.iter().map(|&at| self.owed[at].id).collect();
        Some((files, LaneItem::Owed { objects }))
    }

    /// Whether an answer is to the oldest call.
    pub fn is_due(&self, listing: ItemNumber) -> bool {
        self.in_flight.front().is_some_and(|call| call.number.is_none_or(|number| number == listing))
    }

    /// Errors: what makes no sense in the answer.
    pub fn wanted(&mut self, objects: Vec<ObjectId>) -> Result<(), String> {
        let mut asked: HashSet<ObjectId> = objects.into_iter().collect();
        let files = self.in_flight.pop_front().map_or(Vec::new(), |call| call.files);
        let owed = &self.owed;
        self.due.extend(files.into_iter().filter(|&at| asked.remove(&owed[at].id)));
        match asked.into_iter().next() {
            Some(stranger) => Err(format!("object {stranger} was not called")),
            None => Ok(()),
        }
    }

    fn turn(&mut self) -> Turn {
        if let Some(open) = self.open.take() {
            return Turn::File(open);
        }
        if let Some(at) = self.due.pop_front() {
            let place = self.place(at, libc::S_IFREG);
            if let OwedContent::Doubted { size } = self.owed[at].content {
                return Turn::Doubted { place, size };
            }
            return Turn::File(OwedFile::new(place, &self.owed[at].content));
        }
        if let Some(at) = self.bare.pop_front() {
            return Turn::Attributes(at);
        }
        match self.next_call() {
            Some((files, _)) => Turn::Call(files),
            None if self.in_flight.is_empty() => Turn::Done,
            None => Turn::Wait,
        }
    }

    fn place(&self, at: usize, file_type: u32) -> Place {
        let object = &self.owed[at];
        let listed =
            ListedFile { object: object.id, handle: object.handle, file_type, name: None, size: 0, links: 1 };
        Place { listed, dir: TreePath::of_object(object.id) }
    }

    fn call(&self, files: &[usize]) -> LaneItem {
        LaneItem::Owed { objects: files.iter().map(|&at| self.owed[at].id).collect() }
    }
}

/// Its attributes begin the copy, and its time comes with its names.
fn with_root_listed(mut objects: Vec<OwedObject>, root: &FileHandle) -> Vec<OwedObject> {
    objects.iter_mut().filter(|object| object.handle == *root).for_each(|object| object.names = true);
    objects
}

fn directory(object: &OwedObject) -> Directory<(FileHandle, Arc<TreePath>)> {
    let place = (object.handle, TreePath::of_id(object.id));
    Directory { id: object.id, place, descend: Descend::WhereAsked }
}

/// What is owed, as of now: all that has changed since the target was as the source, and has a position.
/// `None`: it is not known any more.
pub type WhatIsOwed = Arc<dyn Fn() -> Option<Owed> + Send + Sync>;

impl<S: StampedSink> LiveCopy<S> {
    /// Only what is owed is shown, to a target that was as the source before that has changed. What was
    /// deleted since is deleted there, up to so many percent of all that it has; with 0 it is moved aside. Where the set
    /// has rules, no directory has come to other ones since.
    pub fn only(
        mut self,
        owed: Arc<Owed>,
        owed_now: WhatIsOwed,
        delete_percent_max: Option<u8>,
    ) -> LiveCopy<S> {
        self.owed_now = Some(owed_now);
        let owing = Owing::new(owed, &self.root);
        let before = std::mem::replace(&mut self.plan, owing.plan());
        #[cfg(test)]
        (self.plan.planted = before.planted);
        drop(before);
        self.preamble.owed = Some(LaneItem::BeginOwed { percent_max: delete_percent_max, compares: false });
        self.owing = Some(owing);
        self
    }

    /// The copy has begun: what has changed until then is owed.
    pub(super) fn owe_the_rest(&mut self) -> Result<(), CopyError> {
        let (Some(owing), Some(owed_now)) = (&mut self.owing, self.owed_now.take()) else { return Ok(()) };
        #[cfg(test)]
        if self.plan.planted == Some(super::Planted::OwesNothingMore) {
            return Ok(());
        }
        let now = owed_now().ok_or(CopyError::Owed)?;
        owing.more(now, &self.root).into_iter().for_each(|dir| self.plan.also(dir));
        Ok(())
    }

    /// Does something that is owed; `None`: there is nothing more.
    pub(super) fn step_of_owed(&mut self) -> Result<Option<Stepped>, CopyError> {
        let Some(owing) = &mut self.owing else { return Ok(None) };
        match owing.turn() {
            Turn::File(file) if file.is_new() && self.is_out(&file.place) => self.say_left(&file.place)?,
            Turn::Doubted { place, .. } if self.is_out(&place) => self.say_left(&place)?,
            Turn::File(file) => self.send_owed(file)?,
            Turn::Doubted { place, size } => self.send_doubted(place, size)?,
            Turn::Attributes(at) => self.send_bare(at)?,
            Turn::Call(files) => self.call(files)?,
            Turn::Wait => return Ok(Some(Stepped::Waits)),
            Turn::Done => return Ok(None),
        }
        Ok(Some(Stepped::On))
    }

    fn call(&mut self, files: Vec<usize>) -> Result<(), CopyError> {
        let Some(owing) = &mut self.owing else { return Ok(()) };
        let slot = self.sink.reserve()?;
        let mut batch = vec![Entry::of(owing.call(&files))];
        if let Ok(number) = self.sink.push(slot, &mut batch, || true) {
            owing.in_flight.push_back(Call { number: Some(number), files });
        }
        Ok(())
    }

    /// By blocks where that pays, as in a copy of everything.
    fn send_doubted(&mut self, place: Place, size: u64) -> Result<(), CopyError> {
        let least = self.preamble.by_blocks.map_or(u64::MAX, |order| order.least.max(1));
        match self.blocks.as_mut().filter(|_| size >= least) {
            Some(blocks) => {
                blocks.open(place);
                Ok(())
            }
            None => self.send_owed(OwedFile::new(place, &OwedContent::Doubted { size })),
        }
    }

    fn send_owed(&mut self, mut file: OwedFile) -> Result<(), CopyError> {
        let reader = Reader {
            mount: self.eyes.root_fd(),
            looks: &*self.looks,
            pool: &self.pool,
            chunk: self.sizes.bytes,
        };
        let Went { bytes, is_over } = file.next(&reader, &mut self.sink)?;
        self.pace.sent(bytes);
        CopyProgress::add(&self.progress.bytes_copied, bytes);
        match is_over {
            None => {
                if let Some(owing) = &mut self.owing {
                    owing.open = Some(file);
                }
            }
            Some(file::End::Whole { has_large }) => {
                CopyProgress::add(&self.progress.files_copied, 1);
                self.report.copied += 1;
                if has_large {
                    self.plan.copy_later(Job::Xattrs(file.place));
                }
            }
            Some(file::End::Gone) => self.report.vanished += 1,
            Some(file::End::Unreadable(why)) => self.leave_out(&file.place.path(), why)?,
        }
        Ok(())
    }

    /// Attributes alone, of whatever it is.
    fn send_bare(&mut self, at: usize) -> Result<(), CopyError> {
        let Some(owing) = &self.owing else { return Ok(()) };
        match kind_of(&self.eyes, &owing.owed[at].handle) {
            Ok(Some(file_type)) => {
                let place = owing.place(at, file_type);
                if self.is_out(&place) { Ok(()) } else { self.send_xattrs(&place) }
            }
            Ok(None) => Ok(()),
            Err(why) => {
                let path = owing.place(at, 0).path();
                self.leave_out(&path, why)
            }
        }
    }

    pub(super) fn hear_wanted(&mut self, wanted: Wanted) -> Result<Option<Wanted>, CopyError> {
        match &mut self.owing {
            Some(owing) if owing.is_due(wanted.listing) => {
                owing.wanted(wanted.objects).map(|()| None).map_err(CopyError::Answer)
            }
            Some(_) | None => Ok(Some(wanted)),
        }
    }
}

/// `S_IFMT` bits; `None`: it is gone.
fn kind_of(eyes: &Eyes, handle: &FileHandle) -> Result<Option<u32>, NotRead> {
    let fd = match open_by_handle(eyes.root_fd(), handle, libc::O_PATH | libc::O_NOFOLLOW) {
        Ok(fd) => fd,
        Err(error) if has_vanished(&error) => return Ok(None),
        Err(error) => return Err(("open", error)),
    };
    let status = stat(fd.as_fd()).map_err(|error| ("look at", error))?;
    Ok((status.stx_nlink > 0).then_some(u32::from(status.stx_mode) & libc::S_IFMT))
}
