//! Rules that are left out on purpose: the model of a source has to find each of them.

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// What no listing has shown is moved, and nobody asks where it belongs.
    NoDoubt,
    /// Content goes into a file that no listing has shown.
    ContentOfUnseen,
    /// Content that did not go into such a file is forgotten.
    UnseenIsComplete,
    /// Names that packets have set since the first chunk of a listing are swept.
    SweepsNamesOfPackets,
    /// The time that a copy has brought is set over a newer one of a packet.
    OlderTime,
    /// Content is called complete on another inode than it was opened on.
    ClosesAnyInode,
    /// An end counts although content that was asked for has not come.
    EndTrusts,
    /// An end counts although directories are in doubt.
    EndsInDoubt,
    /// Packets with content of a file are dropped while its blocks are compared: they are owed.
    DropsWhatIsCompared,
    /// A file keeps what it has behind the end of the source's while its blocks are compared.
    KeepsItsSize,
    /// Blocks are called the same whatever their hashes say.
    TakesAllForSame,
    /// What was deleted while only what is owed was noted is moved aside.
    DeletedIsAnOrphan,
    /// A name is given to an inode that has an id.
    AdoptsWhatIsKnown,
    /// A directory that a listing has shown first counts as listed.
    MadeIsListed,
    /// What a session has made counts as shown in the one after it.
    VouchesForTheUnfinished,
    /// A doubt of a session that is cut off is forgotten.
    DoubtIsForgotten,
    /// A copy that compares looks at nothing that is vouched for.
    ComparesNothing,
    /// What a part holds that belongs elsewhere is taken for what nobody knows.
    KeepsToThePart,
    /// What a packet brings into a walked directory counts as looked at.
    MovedIntoTheWalked,
    /// What packets have removed while it waited in limbo is moved aside.
    ForgetsWhatIsRemoved,
    /// What is kept aside may be a link of what is in the replica: the source's count of links decides.
    KeepsALink,
    /// Of what is kept aside and has other names here, nothing is kept.
    KeepsNothingShared,
    /// Nobody looks for links of what is kept but where something has stayed.
    KeepsALinkOfAPerson,
    /// What a copy finds deleted and has other names here is not kept.
    LosesWhatIsLinked,
    /// A packet does not wait for content that came before it and is written beside.
    PassesWhatIsWritten,
    /// What waits in limbo counts as shown, although nobody tells of it any more.
    TrustsWhatWaits,
    /// So does a file with several names that comes in with a directory.
    TrustsALinkFromOutside,
}

#[cfg(test)]
impl Planted {
    pub const ALL: [Planted; 19] = [
        Planted::NoDoubt,
        Planted::ContentOfUnseen,
        Planted::UnseenIsComplete,
        Planted::SweepsNamesOfPackets,
        Planted::OlderTime,
        Planted::ClosesAnyInode,
        Planted::EndTrusts,
        Planted::EndsInDoubt,
        Planted::DropsWhatIsCompared,
        Planted::KeepsItsSize,
        Planted::TakesAllForSame,
        Planted::DeletedIsAnOrphan,
        Planted::AdoptsWhatIsKnown,
        Planted::MadeIsListed,
        Planted::VouchesForTheUnfinished,
        Planted::DoubtIsForgotten,
        Planted::ComparesNothing,
        Planted::KeepsToThePart,
        Planted::MovedIntoTheWalked,
    ];
}

#[cfg(not(test))]
#[inline]
pub(in crate::apply) fn is(_: Planted) -> bool {
    false
}

#[cfg(test)]
pub use simulated::{is, set};

#[cfg(test)]
mod simulated {
    use std::cell::Cell;

    use super::Planted;

    thread_local! {
        static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
    }

    /// For this thread.
    pub fn set(planted: Option<Planted>) {
        PLANTED.set(planted);
    }

    pub fn is(planted: Planted) -> bool {
        PLANTED.get() == Some(planted)
    }
}
