//! Pending flags: what is immutable or append-only cannot be changed by a target either, so that its flags
//! are cleared before and set last, together with the times that are pending.
//!
//! ```text
//!  the source sets flags, or an op finds its object hindered
//!      ── noted ── cleared ── op*, time ── at rest, at a durable point, at a barrier ── set, forgotten
//! ```
//! They are noted in a log of their own, as times are ([`super::times`]), and before anything is cleared:
//! a killed target sets what it has cleared. After a power loss they are among what is compared. The root is
//! never made immutable or append-only: the replica's mark is an attribute of it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use super::Replica;
use super::descriptors::Access;
use super::times::Times;
use crate::apply::fault::Fault;
use crate::apply::giving_up::objects_of;
use crate::clone::guard;
use crate::failpoint;
use crate::packet::{ObjectId, Op, Timestamp, Xattr};
use crate::xattr::{FLAGS, Flags, are_untaken, is_refusal};

/// See the module.
pub struct PendingFlags {
    /// Flags in the place of seconds.
    log: Times,
}

impl PendingFlags {
    /// As [`Times::open`].
    pub fn open(path: &Path, valid: bool) -> io::Result<PendingFlags> {
        Times::open(path, valid).map(|log| PendingFlags { log })
    }

    /// Written down when it returns, also where an attempt before it failed.
    fn note(&mut self, id: ObjectId, flags: Flags) -> io::Result<()> {
        self.log.add(id, Timestamp { seconds: i64::from(flags.bits()), nanoseconds: 0 });
        failpoint::at("note flags")?;
        self.log.log()
    }

    pub fn of(&self, id: ObjectId) -> Option<Flags> {
        self.log.of(id).map(flags)
    }

    /// As [`Times::forget`].
    pub fn forget(&mut self, id: ObjectId) {
        self.log.forget(id);
    }

    fn pending(&self) -> Vec<(ObjectId, Flags)> {
        self.log.pending().into_iter().map(|(id, time)| (id, flags(time))).collect()
    }

    pub fn clear(&mut self) -> io::Result<()> {
        self.log.clear()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.log.next_deadline()
    }
}

fn flags(time: Timestamp) -> Flags {
    Flags::from_bits(time.seconds as u8)
}

/// Those among attributes.
pub fn flags_among(xattrs: &[Xattr]) -> Flags {
    let value = xattrs.iter().find(|xattr| xattr.name.0 == FLAGS).map(|xattr| &xattr.value.0);
    value.and_then(|value| Flags::from_value(value)).unwrap_or_default()
}

impl Replica {
    /// The flags that an object gets when it is at rest; until then nothing hinders a change of it.
    pub(in crate::apply) fn set_flags_later(&mut self, id: ObjectId, flags: Flags) -> Result<(), Fault> {
        let (file, mut wanted) = (self.object(id)?, self.policy.flags(flags));
        if wanted.is_hindering() && self.is_root(&file)? {
            // The product's own mark is on it.
            wanted = wanted - Flags::HINDERING;
        }
        let held = held(&*file)?;
        if held == wanted && self.flags.of(id).is_none_or(|pending| pending == wanted) {
            return Ok(());
        }
        self.note_flags(id, wanted)?;
        if held.is_hindering() {
            self.clear_hindering(&*file, held);
        }
        Ok(())
    }

    /// Takes away what hinders a change of an object until it is at rest again. `false`: nothing does, or it
    /// cannot be taken away.
    pub(in crate::apply) fn lift(&mut self, id: ObjectId) -> Result<bool, Fault> {
        let file = self.object(id)?;
        let held = held(&*file)?;
        if !held.is_hindering() {
            return Ok(false);
        }
        let noted = self.flags.of(id);
        self.note_flags(id, noted.unwrap_or(held))?;
        failpoint::at("lift").map_err(Fault::system("clear flags"))?;
        let is_lifted = self.clear_hindering(&*file, held);
        if !is_lifted && noted.is_none() {
            // Whoever clears them later is not to be overruled.
            self.flags.forget(id);
        }
        Ok(is_lifted)
    }

    /// [`Replica::lift`] of whatever an op changes; whether anything was lifted.
    pub(in crate::apply) fn lift_for(&mut self, op: &Op) -> Result<bool, Fault> {
        let mut lifted = false;
        for id in objects_of(op) {
            if !self.is_hindered(id)? {
                continue;
            }
            match self.lift(id) {
                Ok(this) => lifted |= this,
                // The op says what is wrong with it.
                Err(Fault::MissingObject(_) | Fault::Outside { .. } | Fault::System { .. }) => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(lifted)
    }

    /// A look, wherever it lies.
    fn is_hindered(&mut self, id: ObjectId) -> Result<bool, Fault> {
        let held = match self.descriptors.get(id, Access::Path) {
            Some(file) => Flags::of(&*file),
            None => match self.handle(id)? {
                Some(handle) => {
                    self.open_handle(&handle, libc::O_PATH | libc::O_NOFOLLOW).and_then(Flags::of)
                }
                None => return Ok(false),
            },
        };
        Ok(held.is_ok_and(Flags::is_hindering))
    }

    /// An object gets other flags with the last of its content or attributes: those that it has are gone.
    pub(in crate::apply) fn drop_flags(&mut self, id: ObjectId) -> Result<bool, Fault> {
        let file = self.object(id)?;
        let held = held(&*file)?;
        if self.flags.of(id).is_some() {
            self.note_flags(id, held - Flags::HINDERING)?;
        }
        Ok(held.is_hindering() && self.clear_hindering(&*file, held))
    }

    /// What an object has, or gets when it is at rest.
    pub(in crate::apply) fn pending_flags(&self, id: ObjectId) -> Option<Flags> {
        self.flags.of(id)
    }

    /// The flags among attributes of an object of the replica are those that it gets.
    pub(in crate::apply) fn with_pending_flags(&self, id: ObjectId, mut held: Vec<Xattr>) -> Vec<Xattr> {
        let Some(flags) = self.flags.of(id) else { return held };
        held.retain(|xattr| xattr.name.0 != FLAGS);
        if let Some(value) = flags.value() {
            use crate::packet::Bounded;
            held.push(Xattr { name: Bounded(FLAGS.to_vec()), value: Bounded(value) });
            held.sort_unstable();
        }
        held
    }

    /// Sets all pending flags now. No descriptor of the replica's is open for writing any more.
    /// One object that does not get its own keeps nothing up that `unset` lets pass.
    pub(super) fn settle_flags_or(
        &mut self,
        unset: &mut impl FnMut(&Replica, ObjectId, Fault) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut stuck = Ok(());
        for (id, flags) in self.flags.pending() {
            let set = failpoint::at("flags").map_err(Fault::system("set flags"));
            let Err(fault) = set.and_then(|()| self.settle_flags_of(id, flags)) else { continue };
            // A copy that goes on without them shows them again, as a time.
            if self.goes_aside_with_others(id, &fault) {
                self.goes_without_its_time(id);
            } else if let Err(fault) = unset(self, id, fault) {
                stuck = Err(Fault::Time { object: id, fault: Box::new(fault) });
            }
        }
        stuck?;
        self.flags.clear().map_err(Fault::own("pending flags"))
    }

    fn settle_flags_of(&mut self, id: ObjectId, flags: Flags) -> Result<(), Fault> {
        let file = match self.object(id) {
            // It went, or was moved away.
            Err(Fault::MissingObject(_) | Fault::Outside { .. }) => return Ok(()),
            file => file?,
        };
        self.give_flags(&file, flags)
    }

    fn give_flags(&self, file: &File, flags: Flags) -> Result<(), Fault> {
        let mut wanted = self.policy.flags(flags);
        while held(file)? != wanted {
            guard::attributes(file.as_fd());
            match wanted.set(file.as_fd()) {
                // Some may be taken without the others.
                Err(error) if are_untaken(&error) => {
                    let left = self.policy.flags_are_not_taken(wanted, &error);
                    if left == wanted {
                        return Ok(());
                    }
                    wanted = left;
                }
                done => return done.map_err(Fault::system("set flags")),
            }
        }
        Ok(())
    }

    /// The pending flags of an object that has gone to this place.
    pub(in crate::apply) fn settle_flags_at(&mut self, id: ObjectId, file: &File) -> Result<(), Fault> {
        self.flags.of(id).map_or(Ok(()), |flags| self.give_flags(file, flags))
    }

    /// One whose id is about to be forgotten.
    pub(in crate::apply) fn settle_flags_before_it_goes(&mut self, id: ObjectId) -> Result<(), Fault> {
        self.flags.of(id).map_or(Ok(()), |flags| self.settle_flags_of(id, flags))
    }

    fn note_flags(&mut self, id: ObjectId, flags: Flags) -> Result<(), Fault> {
        self.flags.note(id, flags).map_err(Fault::own("pending flags"))
    }

    /// Before an op, where there are many: nothing that it has lifted is set under it.
    pub(in crate::apply) fn settle_many_flags(&mut self) -> Result<(), Fault> {
        if self.flags.log.is_full() { self.settle_times() } else { Ok(()) }
    }

    fn clear_hindering(&self, fd: impl AsFd, held: Flags) -> bool {
        guard::attributes(fd.as_fd());
        match (held - Flags::HINDERING).set(fd.as_fd()) {
            Ok(()) => true,
            Err(error) => {
                let level = if are_untaken(&error) { log::Level::Debug } else { log::Level::Warn };
                log::log!(level, "flags cannot be cleared: {error}");
                false
            }
        }
    }

    /// Does something to an object once more where its flags were in the way.
    pub(in crate::apply) fn lifting<T>(
        &mut self,
        id: ObjectId,
        mut change: impl FnMut(&mut Replica) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        match change(self) {
            Err(fault) if is_refusal(fault.errno()) && self.lift(id)? => change(self),
            done => done,
        }
    }
}

fn held(fd: impl AsFd) -> Result<Flags, Fault> {
    Flags::of(fd).map_err(Fault::system("look at flags"))
}
