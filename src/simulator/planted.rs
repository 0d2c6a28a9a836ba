//! Bugs that are planted on purpose: the simulator has to find each of them.

/// See the module. Each stands for a rule of the product that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// The stream resumes with the packet that is applied already.
    ResumesTooEarly,
    /// The stream resumes behind a packet that is not applied.
    ResumesTooLate,
    /// A target says "applied" of what it has only received.
    AcknowledgesBeforeApply,
    /// A source trims its queue at *received*.
    TrimsAtReceived,
    /// The durable position is written although the sync has not happened.
    DurableBeforeSync,
    /// After the death of the process nothing says which op was begun.
    NoInDoubtRecord,
    /// After the death of the process the target goes on from *durable*.
    ReplaysFromDurable,
    /// After the death of the process pending times are forgotten.
    ForgetsPendingTimes,
    /// What the dead process had begun, and the times it had to set, are left until a source comes.
    LeavesWhatWasBegun,
    /// Pausing does not reach the stream.
    SendsWhilePaused,
    /// The network connection stays when the connection is stopped.
    StopsWithoutClosing,
    /// A new session is answered while the old one still applies.
    OldSessionGoesOn,
    /// Nobody looks at the chain of two histories that split.
    ChainIsNotChecked,
    /// After a power loss the target claims what it had applied.
    TrustsThePageAfterPowerLoss,
    /// What was sent and not acknowledged is not sent again after a reconnection.
    ForgetsWhatWasInFlight,
    /// An acknowledgement beyond what was sent is believed.
    BelievesWhatWasNotSent,
    /// What happened late in a session is heard in the next one.
    LateEventActs,
    /// A replica that lacks what was set aside calls itself good.
    GoodWithoutProof,
}

impl Planted {
    pub const ALL: [Planted; 18] = [
        Planted::ResumesTooEarly,
        Planted::ResumesTooLate,
        Planted::AcknowledgesBeforeApply,
        Planted::TrimsAtReceived,
        Planted::DurableBeforeSync,
        Planted::NoInDoubtRecord,
        Planted::ReplaysFromDurable,
        Planted::ForgetsPendingTimes,
        Planted::LeavesWhatWasBegun,
        Planted::SendsWhilePaused,
        Planted::StopsWithoutClosing,
        Planted::OldSessionGoesOn,
        Planted::ChainIsNotChecked,
        Planted::TrustsThePageAfterPowerLoss,
        Planted::ForgetsWhatWasInFlight,
        Planted::BelievesWhatWasNotSent,
        Planted::LateEventActs,
        Planted::GoodWithoutProof,
    ];
}
