//! What a person asks for, and why it is not done.

/// What a person asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Start,
    Stop,
    Pause,
    Resume,
    /// [`Command::Resume`]; deletions that were asked about may go.
    AcceptDeletes,
    Disconnect,
    /// One copy, now.
    StartMirror,
    /// One copy, now, of what is in doubt.
    Merge,
    /// One of a part of the set, to a target that is in line, over the network connection that is there.
    MirrorPart,
    /// [`Command::Stop`], and nothing is queued: what changes is marked, and a copy of that follows.
    StopReplication,
    /// The end of [`Command::StopReplication`]; nothing else is started.
    StartReplication,
    /// Give up the copy under way; none begins before [`Command::StartMirror`].
    StopMirror,
}

/// Why a command is not followed; the state is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotNow {
    /// There is no network connection to pause or resume.
    Stopped,
    Scheduled,
    /// Outside of the window of its schedule nothing is sent.
    OutsideWindow,
    /// It is paused because of deletions that a person has to accept.
    Deletes,
    /// It is paused because of files that are gone, before a copy.
    Missing,
    Gone,
    /// A copy of a connection that is held back.
    Paused,
    /// There is no network connection to copy over, or the target has not answered yet.
    NotConnected,
    MirrorRuns,
    NoMirror,
    /// A part of a replica that is not good.
    NeedsAll,
    /// Beside a comparison.
    Verifies,
    /// Before all that an earlier run has left is there.
    SendsLeft,
    /// It is not known what is in doubt, for this reason.
    NeedsFull(&'static str),
    /// Nothing is in doubt.
    NothingInDoubt,
}
