//! Orphans that a copy has left in their places give way to whatever needs their names, on a good replica.
//!
//! Only where the last copy has left some ([`Replica::keep_orphans`]): else what is in the way of an op is
//! somebody else's work, and the op waits.

use std::fs::File;

use super::fault::Fault;
use super::perform::Doubt;
use super::replica::{Delete, Limbo, Replica, Why, read_directory};
use crate::packet::{Entry, Name, ObjectId, Op};
use crate::xattr::is_refusal;

impl Replica {
    /// [`Replica::perform`]; what an earlier copy has kept is moved aside where it is in the way.
    pub(super) fn perform_making_way(&mut self, op: &Op, payload: &[u8], doubt: Doubt) -> Result<(), Fault> {
        match self.perform_lifting(op, payload, doubt) {
            Err(fault) if self.keeps_orphans() && is_in_the_way(&fault) => match self.make_way(op)? {
                0 => Err(fault),
                names => {
                    log::info!("{names} kept names gave way: the source needs their place");
                    self.perform_lifting(op, payload, Doubt::MayBeDone)
                }
            },
            done => done,
        }
    }

    /// [`Replica::perform`]; flags that are in the way are cleared, and set again at rest.
    fn perform_lifting(&mut self, op: &Op, payload: &[u8], doubt: Doubt) -> Result<(), Fault> {
        match self.perform(op, payload, doubt) {
            Err(fault) if is_refusal(fault.errno()) && self.lift_for(op)? => {
                self.perform(op, payload, Doubt::MayBeDone)
            }
            done => done,
        }
    }

    /// How many names went.
    fn make_way(&mut self, op: &Op) -> Result<u64, Fault> {
        let mut limbo = Limbo::open(self.root(), self.limbo())?;
        let names = match op {
            Op::Create { at, object, .. } => self.free(&mut limbo, at, *object, Own::IsThere)?,
            Op::Link { at, object, .. } | Op::Place { at, object, replaced: None, .. } => {
                self.free(&mut limbo, at, *object, Own::WasKept)?
            }
            Op::Rename { from, to, object, replaced: None, .. } => {
                let own = if self.holds(from, *object)? { Own::IsInTheWay } else { Own::IsThere };
                self.free(&mut limbo, to, *object, own)?
            }
            Op::Rename { replaced: Some(replaced), .. } => self.empty(&mut limbo, replaced.object)?,
            Op::RemoveDirectory { object, .. } => self.empty(&mut limbo, *object)?,
            _ => return Ok(0),
        };
        self.places_changed();
        let (root, place) = (self.root(), self.limbo());
        // What has another name here is dropped, and counts as well: its name is free.
        limbo.resolve(root, place, Delete::Nothing)?;
        Ok(names)
    }

    /// `own`: what it means that the name holds the very object that is to come there.
    fn free(&mut self, limbo: &mut Limbo, at: &Entry, object: ObjectId, own: Own) -> Result<u64, Fault> {
        let dir = self.directory(at.dir)?;
        let Some(found) = self.name_holds(&dir, &at.name)? else { return Ok(0) };
        match own {
            Own::IsThere if self.handle(object)? == Some(found) => Ok(0),
            Own::WasKept if self.handle(object)? == Some(found) => Ok(1),
            Own::IsThere | Own::WasKept | Own::IsInTheWay => {
                // An append-only directory lets nothing go; it is to have its flags again.
                self.lift(at.dir)?;
                self.take(limbo, &dir, &at.name).map(|()| 1)
            }
        }
    }

    fn holds(&mut self, at: &Entry, object: ObjectId) -> Result<bool, Fault> {
        let (dir, handle) = (self.directory(at.dir)?, self.handle(object)?);
        Ok(handle.is_some() && self.name_holds(&dir, &at.name)? == handle)
    }

    /// On the source nothing is in this directory.
    fn empty(&mut self, limbo: &mut Limbo, object: ObjectId) -> Result<u64, Fault> {
        let dir = self.directory(object)?;
        let mut names = 0;
        for entry in read_directory(&*dir)? {
            let entry = entry.map_err(Fault::system("list a directory"))?;
            if let Ok(name) = Name::new(entry.file_name().to_bytes()) {
                self.take(limbo, &dir, &name)?;
                names += 1;
            }
        }
        Ok(names)
    }

    fn take(&self, limbo: &mut Limbo, dir: &File, name: &Name) -> Result<(), Fault> {
        limbo.take(dir, name, Why::InTheWay)
    }
}

/// A name that was kept may be a link of an object that lives on by another one.
#[derive(Clone, Copy)]
enum Own {
    /// The op itself has given it the name.
    IsThere,
    /// Nothing is to be done any more: whoever does the op again finds that.
    WasKept,
    /// It has the name that it comes from as well, and a rename between two links of one file does nothing.
    IsInTheWay,
}

fn is_in_the_way(fault: &Fault) -> bool {
    matches!(fault, Fault::Mismatch(_)) || matches!(fault.errno(), Some(libc::ENOTEMPTY | libc::EEXIST))
}
