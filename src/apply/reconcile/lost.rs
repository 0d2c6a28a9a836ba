//! What has lost a name in a copy of what is owed and has others: outside of the replica, perhaps, where a person has
//! linked it. Its name in limbo goes as that of what lives on; in the end its id goes as well where it has none in the
//! replica, or whoever looks whether that is still there would miss it.

use std::collections::HashMap;

use super::Session;
use super::claims::key;
use super::entry::find_handle;
use super::packets::is_of_one;
use super::stayed::Names;
use super::table::Kept;
use super::vouched::failed;
use crate::apply::fault::Fault;
use crate::apply::replica::Replica;
use crate::limits::LEAVING_IN_MEMORY;
use crate::packet::ObjectId;
use crate::sys::FileHandle;

/// What an object has lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Some of its names.
    Names,
    /// All that it had on the source: any other is a person's, or stayed once.
    All,
}

impl Kept for Lost {
    fn to_handle(self) -> FileHandle {
        Names(u64::from(matches!(self, Lost::All))).to_handle()
    }

    fn from_handle(handle: &FileHandle) -> Option<Lost> {
        match Names::from_handle(handle)? {
            Names(0) => Some(Lost::Names),
            Names(_) => Some(Lost::All),
        }
    }
}

impl Session {
    /// Of what waits in limbo, what has other names.
    pub(super) fn note_shared(&mut self, replica: &Replica) -> Result<(), Fault> {
        let Some(vouching) = &mut self.vouching else { return Ok(()) };
        let note = |handle: &FileHandle| match vouching.lost.get(key(handle)).map_err(failed)? {
            Some(_) => Ok(()),
            None => vouching.lost.insert(key(handle), Lost::Names).map_err(failed),
        };
        self.limbo.each_shared(replica.root(), note)
    }

    /// Forgets those that have no name in the replica; what a packet has removed, whatever it has there.
    pub(super) fn forget_the_lost(&self, replica: &mut Replica) -> Result<(), Fault> {
        let Some(vouching) = &self.vouching else { return Ok(()) };
        let (mut lost, mut removed): (Vec<(ObjectId, FileHandle)>, _) = (Vec::new(), Vec::new());
        let look = |id, handle: FileHandle| {
            match vouching.lost.get(key(&handle))? {
                Some(_) if id == self.root || self.claims.claimant(&handle)?.is_some() => {}
                Some(Lost::Names) => lost.push((id, handle)),
                Some(Lost::All) => removed.push(id),
                None => {}
            }
            Ok(())
        };
        replica.index().for_each(look).map_err(Fault::own("object index"))?;
        removed.into_iter().try_for_each(|id| replica.forget(id))?;
        for some in lost.chunks(LEAVING_IN_MEMORY) {
            let mut nameless = HashMap::new();
            for (_, handle) in some {
                match find_handle(replica, handle) {
                    Ok(Some(found)) => _ = nameless.insert(*handle, found.status.st_ino),
                    Ok(None) => {}
                    // What one object's own fault hides keeps no copy from its end.
                    Err(fault) if is_of_one(replica, &fault) => {}
                    Err(fault) => return Err(fault),
                }
            }
            replica.strike_names_below_root(&mut nameless)?;
            let gone = some.iter().filter(|(_, handle)| nameless.contains_key(handle));
            gone.copied().try_for_each(|(id, _)| replica.forget(id))?;
        }
        Ok(())
    }
}
