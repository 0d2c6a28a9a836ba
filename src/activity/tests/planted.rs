//! What may be wrong with a log, for a model that has to find it.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// An object is made hot after its change.
    HeatsAfterTheChange,
    /// It is not looked at again, under the lock, whether it is hot in the generation that counts.
    LooksOnce,
    /// What is born counts as hot, and a start does not look for it.
    ForgetsWhatIsBorn,
    /// A generation goes although nothing was synced.
    GivesUpWithoutSync,
    /// A generation goes with a sync that began before all changes noted in it had ended.
    SyncsTooEarly,
    /// The moment up to which the target has everything is noted when it has applied that, and it loses power, too.
    NotesWhatIsApplied,
    /// That moment is noted while changes that began before it are under way.
    NotesTooEarly,
    /// Packets go out above the ceiling.
    SendsTooMuch,
    /// The source's disk says that it has a generation's sync before that has ended.
    MarksBeforeTheSync,
    /// It is not asked what the source's disk says of that.
    TrustsAnOlderDisk,
}

impl Planted {
    pub const ALL: [Planted; 10] = [
        Planted::HeatsAfterTheChange,
        Planted::LooksOnce,
        Planted::ForgetsWhatIsBorn,
        Planted::GivesUpWithoutSync,
        Planted::SyncsTooEarly,
        Planted::NotesWhatIsApplied,
        Planted::NotesTooEarly,
        Planted::SendsTooMuch,
        Planted::MarksBeforeTheSync,
        Planted::TrustsAnOlderDisk,
    ];
}
