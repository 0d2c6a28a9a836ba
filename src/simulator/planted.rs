//! Bugs that are planted on purpose: the simulator has to find each of them.

use crate::apply::PlantedInReconcile;
use crate::queue::Planted as PlantedInQueue;
use crate::source_side::PlantedInLane;

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
    /// An item goes behind packets that come after its stamp.
    GoesLate,
    /// An item goes before its stamp, whatever has changed in between.
    GoesEarly,
    /// The end of a file's content goes before its stamp.
    ClosesEarly,
    /// What changes while it is looked at is shown as it was.
    CountsAreNotCompared,
    /// A file's times and mode are those of the moment when its content was begun.
    ClosesAsOpened,
    /// A file of equal size and time is taken for equal, although it changed since the target had it.
    NothingIsSuspect,
    /// A doubt of a directory whose listing is open is answered by the rest of it.
    OpenListingGoesOn,
    /// The end is sent while doubts are not answered.
    EndsWithDoubts,
    /// Directories that the target asks for are not listed.
    WantedDirectoriesForgotten,
    /// What a target says before it takes up a copy is taken for this history.
    BelievesOldAcknowledgement,
    /// A copy was cut off, and the queue is held for the target all the same.
    HoldsForACutCopy,
    /// Some of what changes is not marked.
    MarksForgotten,
    /// What is marked counts as shown when a copy of it begins, and not when that has ended.
    ForgetsAtTheBeginning,
    /// A generation of the map begins before a change that has marked the one before has its position.
    GenerationBeginsTooEarly,
    /// A change is marked after it was made.
    MarksAfterTheChange,
    /// Of what daemons before have marked the last one's counts, whatever the target has.
    LastRunAlone,
    /// Marks of a daemon before count although some of them were given up.
    RunsWithHoles,
    /// What changes while a copy of what is owed begins is not owed.
    OwesNothingMore,
    /// Content of a file that is owed does not go.
    OwedContentIsDropped,
    /// Of what is owed, an object is not shown.
    DropsWhatIsOwed,
    /// Names of directories that have changed by their time are not owed.
    OwesNoNames,
    /// What was queued at a stop counts as of the next start.
    LeftAsOfTheStart,
    /// A rule of the queue's disk.
    OnDisk(PlantedInQueue),
    /// A rule of the target's half of a copy.
    Converging(PlantedInReconcile),
}

impl Planted {
    pub const ALL: [Planted; 54] = [
        Planted::LeftAsOfTheStart,
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
        Planted::GoesLate,
        Planted::GoesEarly,
        Planted::CountsAreNotCompared,
        Planted::ClosesAsOpened,
        Planted::NothingIsSuspect,
        Planted::EndsWithDoubts,
        Planted::WantedDirectoriesForgotten,
        Planted::BelievesOldAcknowledgement,
        Planted::HoldsForACutCopy,
        Planted::MarksForgotten,
        Planted::ForgetsAtTheBeginning,
        Planted::GenerationBeginsTooEarly,
        Planted::MarksAfterTheChange,
        Planted::LastRunAlone,
        Planted::RunsWithHoles,
        Planted::OwesNothingMore,
        Planted::OwedContentIsDropped,
        Planted::DropsWhatIsOwed,
        Planted::OwesNoNames,
        Planted::OnDisk(PlantedInQueue::RecyclesTooEarly),
        Planted::OnDisk(PlantedInQueue::SkipsAtTheBorder),
        Planted::OnDisk(PlantedInQueue::FillsOutOfOrder),
        Planted::OnDisk(PlantedInQueue::ForgetsWhatWasNotWritten),
        Planted::Converging(PlantedInReconcile::NoDoubt),
        Planted::Converging(PlantedInReconcile::SweepsNamesOfPackets),
        Planted::Converging(PlantedInReconcile::OlderTime),
        Planted::Converging(PlantedInReconcile::EndsInDoubt),
        Planted::Converging(PlantedInReconcile::DropsWhatIsCompared),
        Planted::Converging(PlantedInReconcile::TakesAllForSame),
        Planted::Converging(PlantedInReconcile::KeepsALink),
        Planted::Converging(PlantedInReconcile::AdoptsWhatIsKnown),
        Planted::Converging(PlantedInReconcile::MadeIsListed),
        Planted::Converging(PlantedInReconcile::KeepsNothingShared),
        Planted::Converging(PlantedInReconcile::KeepsALinkOfAPerson),
        Planted::Converging(PlantedInReconcile::PassesWhatIsWritten),
    ];

    /// What 1,000 seeds do not come upon here; the tests of the rooms do (`apply::tests::converge`,
    /// `intercept::model::live`).
    pub const FOUND_ELSEWHERE: [Planted; 9] = [
        Planted::ClosesEarly,
        Planted::OpenListingGoesOn,
        Planted::Converging(PlantedInReconcile::ContentOfUnseen),
        Planted::Converging(PlantedInReconcile::VouchesForTheUnfinished),
        Planted::Converging(PlantedInReconcile::DoubtIsForgotten),
        Planted::Converging(PlantedInReconcile::UnseenIsComplete),
        Planted::Converging(PlantedInReconcile::ClosesAnyInode),
        Planted::Converging(PlantedInReconcile::EndTrusts),
        Planted::Converging(PlantedInReconcile::KeepsItsSize),
    ];

    /// What of it is planted in the queue.
    pub fn in_queue(self) -> Option<PlantedInQueue> {
        match self {
            Planted::OnDisk(planted) => Some(planted),
            _ => None,
        }
    }

    /// What of it is planted in the lane.
    pub fn in_lane(self) -> Option<PlantedInLane> {
        match self {
            Planted::GoesLate => Some(PlantedInLane::GoesLate),
            Planted::GoesEarly => Some(PlantedInLane::GoesEarly),
            Planted::ClosesEarly => Some(PlantedInLane::ClosesEarly),
            _ => None,
        }
    }
}
