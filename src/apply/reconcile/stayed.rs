//! What stays in its place though the source does not list it: where it was an object of the source, its id is
//! forgotten at the end. It would be missed when it gives way, or when somebody removes it by hand.
//!
//! A file is gone from the source when all its names in the replica stayed: of a further one there nobody knows, and it
//! keeps its id. One elsewhere, as a person makes it, is none of the source's. What a claim has, or a packet has named,
//! lives.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::FileType;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::Session;
use super::claims::key;
use super::entry::{Found, find_handle};
use super::places::is_directory;
use super::table::{Kept, Table};
use crate::apply::fault::Fault;
use crate::apply::replica::Replica;
use crate::limits::{CLAIMS_IN_MEMORY, LEAVING_IN_MEMORY};
use crate::packet::{Name, ObjectId};
use crate::sys::FileHandle;

/// Files of a session in the replica's state directory.
const STAYED: &str = "stayed";
const STAYED_NAMES: &str = "stayed-names";
const STAYED_BELOW: &str = "stayed-below";

pub(super) struct Stayed {
    /// By inode: how many of its names.
    objects: Table<Names>,
    /// What each held: a directory that is listed again is counted once.
    names: Table<FileHandle>,
    are_any: bool,
}

/// So many names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Names(pub(super) u64);

impl Stayed {
    pub(super) fn start(state: &Path) -> Stayed {
        let (objects, names) = (state.join(STAYED), state.join(STAYED_NAMES));
        Stayed {
            objects: Table::start(&objects, CLAIMS_IN_MEMORY),
            names: Table::start(&names, CLAIMS_IN_MEMORY),
            are_any: false,
        }
    }

    /// A name was not listed, and stays.
    pub(super) fn note(&mut self, dir: &FileHandle, name: &Name, held: FileHandle) -> Result<(), Fault> {
        self.are_any = true;
        let (at, object) = (place(dir, name), key(&held));
        let names = self.objects.get(object).map_err(failed)?;
        if names.is_some() && self.names.get(at).map_err(failed)? == Some(held) {
            return Ok(());
        }
        self.names.insert(at, held).map_err(failed)?;
        let names = names.map_or(0, |Names(names)| names);
        self.objects.insert(object, Names(names + 1)).map_err(failed)
    }

    /// A name goes that may have stayed.
    pub(super) fn goes(&mut self, dir: &File, name: &Name, held: &FileHandle) -> Result<(), Fault> {
        if !self.are_any {
            return Ok(());
        }
        let dir = FileHandle::of(dir.as_fd()).map_err(Fault::system("file handle"))?;
        let (at, object) = (place(&dir, name), key(held));
        if self.names.get(at).map_err(failed)? != Some(*held) {
            return Ok(());
        }
        self.names.remove(at).map_err(failed)?;
        match self.objects.get(object).map_err(failed)? {
            Some(Names(names)) => self.objects.insert(object, Names(names.saturating_sub(1))).map_err(failed),
            None => Ok(()),
        }
    }

    /// It has a name that the source has.
    pub(super) fn is_elsewhere(&mut self, held: &FileHandle) -> Result<(), Fault> {
        self.objects.remove(key(held)).map(drop).map_err(failed)
    }

    fn names_of(&self, held: &FileHandle) -> std::io::Result<Option<Names>> {
        self.objects.get(key(held))
    }
}

impl Session {
    /// Forgets the ids of what has stayed, and of all below.
    pub(super) fn forget_what_stayed(&self, replica: &mut Replica) -> Result<(), Fault> {
        let mut tops = Vec::new();
        let mut top = |_: ObjectId, handle: FileHandle| {
            if let Some(names) = self.stayed.names_of(&handle)?
                && self.claims.claimant(&handle)?.is_none()
            {
                tops.push((handle, names));
            }
            Ok(())
        };
        replica.index().for_each(&mut top).map_err(Fault::own("object index"))?;
        if tops.is_empty() {
            return Ok(());
        }
        let mut found = Below::start(replica.state());
        for (handle, Names(names)) in tops {
            if let Some(top) = find_handle(replica, &handle)? {
                found.add_all(replica, &top, names)?;
            }
        }
        self.forget_all_found(replica, &found)
    }

    fn forget_all_found(&self, replica: &mut Replica, found: &Below) -> Result<(), Fault> {
        let (mut gone, mut unsure) = (Vec::new(), Vec::new());
        let look = |id, handle: FileHandle| {
            match found.0.get(key(&handle))? {
                Some(_) if id == self.root || self.claims.claimant(&handle)?.is_some() => {}
                Some(Names(0)) => gone.push(id),
                Some(left) => unsure.push((id, handle, left)),
                None => {}
            }
            Ok(())
        };
        replica.index().for_each(look).map_err(Fault::own("object index"))?;
        for some in unsure.chunks(LEAVING_IN_MEMORY) {
            stays_alone(replica, some, &mut gone)?;
        }
        gone.into_iter().try_for_each(|id| replica.forget(id))
    }
}

/// Of what has so many names that have not been met, adds what has none of them in the replica.
fn stays_alone(
    replica: &Replica,
    some: &[(ObjectId, FileHandle, Names)],
    gone: &mut Vec<ObjectId>,
) -> Result<(), Fault> {
    let (mut inside, mut met) = (HashMap::new(), HashMap::new());
    for (_, handle, Names(left)) in some {
        if let Some(found) = find_handle(replica, handle)? {
            inside.insert(*handle, (found.status.st_ino, 0));
            met.insert(*handle, found.status.st_nlink.saturating_sub(*left));
        }
    }
    replica.count_names_below_root(&mut inside)?;
    let is_alone = |handle: &FileHandle| match (inside.get(handle), met.get(handle)) {
        (Some((_, names)), Some(met)) => names <= met,
        _ => false,
    };
    gone.extend(some.iter().filter(|(_, handle, _)| is_alone(handle)).map(|(id, ..)| *id));
    Ok(())
}

fn place(dir: &FileHandle, name: &Name) -> u128 {
    xxh3_128_with_seed(name.as_bytes(), key(dir) as u64)
}

/// By inode: how many names of it have not been met.
struct Below(Table<Names>);

impl Below {
    fn start(state: &Path) -> Below {
        Below(Table::start(&state.join(STAYED_BELOW), CLAIMS_IN_MEMORY))
    }

    fn add_all(&mut self, replica: &Replica, top: &Found, names: u64) -> Result<(), Fault> {
        if !is_directory(top) {
            return self.add(&top.handle, top.status.st_nlink, names);
        }
        self.add(&top.handle, 0, 0)?;
        let dir: &File = &top.file;
        replica.each_below(dir, |handle, status| {
            let is_directory = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
            self.add(handle, if is_directory { 0 } else { status.st_nlink }, 1)
        })
    }

    fn add(&mut self, handle: &FileHandle, links: u64, met: u64) -> Result<(), Fault> {
        let before = self.0.get(key(handle)).map_err(failed)?;
        let left = before.map_or(links, |Names(left)| left).saturating_sub(met);
        self.0.insert(key(handle), Names(left)).map_err(failed)
    }
}

impl Kept for Names {
    fn to_handle(self) -> FileHandle {
        FileHandle::from_parts(0, &self.0.to_le_bytes()).expect("8 bytes fit into a handle")
    }

    fn from_handle(handle: &FileHandle) -> Option<Names> {
        Some(Names(u64::from_le_bytes(handle.as_bytes().try_into().ok()?)))
    }
}

fn failed(error: std::io::Error) -> Fault {
    Fault::Own { what: "list of what stayed", error }
}
