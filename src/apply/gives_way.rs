//! Orphans that a copy has left in their places give way to whatever needs their names, on a good replica.
//!
//! Only where the last copy has left some ([`Replica::keep_orphans`]): else what is in the way of an op is
//! somebody else's work, and the op waits.

use std::fs::File;

use super::fault::Fault;
use super::perform::Doubt;
use super::replica::{Delete, Limbo, Replica, Why, read_directory};
use crate::packet::{Entry, Name, ObjectId, Op};

impl Replica {
    /// [`Replica::perform`]; what an earlier copy has kept is moved aside where it is in the way.
    pub(super) fn perform_making_way(&mut self, op: &Op, payload: &[u8], doubt: Doubt) -> Result<(), Fault> {
        match self.perform(op, payload, doubt) {
            Err(fault) if self.keeps_orphans() && is_in_the_way(&fault) => match self.make_way(op)? {
                0 => Err(fault),
                names => {
                    log::info!("{names} kept orphans were moved aside: the source needs their place");
                    self.perform(op, payload, Doubt::MayBeDone)
                }
            },
            done => done,
        }
    }

    /// How many names went.
    fn make_way(&mut self, op: &Op) -> Result<u64, Fault> {
        let mut limbo = Limbo::open(self.root(), self.limbo())?;
        let names = match op {
            Op::Create { at, object, .. }
            | Op::Link { at, object, .. }
            | Op::Place { at, object, replaced: None, .. } => self.free(&mut limbo, at, *object)?,
            Op::Rename { to, object, replaced: None, .. } => self.free(&mut limbo, to, *object)?,
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

    fn free(&mut self, limbo: &mut Limbo, at: &Entry, object: ObjectId) -> Result<u64, Fault> {
        let dir = self.directory(at.dir)?;
        match self.name_holds(&dir, &at.name)? {
            None => Ok(0),
            // The op itself has given it the name.
            Some(found) if self.handle(object)? == Some(found) => Ok(0),
            Some(_) => self.take(limbo, &dir, &at.name).map(|()| 1),
        }
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

fn is_in_the_way(fault: &Fault) -> bool {
    matches!(fault, Fault::Mismatch(_)) || matches!(fault.errno(), Some(libc::ENOTEMPTY | libc::EEXIST))
}
