//! Messages of the control stream, both ways. Each is bincode behind a `u32` length (codec).

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::bounded::Bounded;
use super::check::{CheckCounts, Difference};
use super::history::History;
use super::item::{ItemNumber, LeftOut, OrphanCounts};
use super::op::ObjectId;
use super::position::{Epoch, Incarnation, Position, Sequence};

/// Versions of the wire that this build speaks: it offers the range, the target picks. Raised with
/// every new kind of op, item or message, and with the version that stands in frames (codec); what
/// an older host would misread raises the oldest one too. What tells it is the same in all of them:
/// [`super::Frozen`].
pub const WIRE_VERSION: u16 = 5;
pub const WIRE_VERSION_OLDEST: u16 = 5;

/// Features as bits; both sides use only what both offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Features(pub u64);

impl Features {
    /// Payloads of packets and lane items may travel compressed ([`super::Packing`]).
    pub const COMPRESSION: Features = Features(1);
    /// Names of owners may travel before their numbers ([`super::OwnerNames`]). Of whoever restores: they are to.
    pub const OWNER_NAMES: Features = Features(2);
    /// Large holes are told as such ([`super::LaneItem::Hole`]).
    pub const HOLES: Features = Features(4);
    pub const OFFERED: Features =
        Features(Features::COMPRESSION.0 | Features::OWNER_NAMES.0 | Features::HOLES.0);

    pub fn has(self, other: Features) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn without(self, other: Features) -> Features {
        Features(self.0 & !other.0)
    }

    pub fn common(self, other: Features) -> Features {
        Features(self.0 & other.0)
    }
}

/// Random id of a replication set, kept with the backing directory and the replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct SetId(pub u128);

impl std::fmt::Display for SetId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Text that travels, at most 1,024 bytes of UTF-8 (checked lossily on arrival).
pub type Text = Bounded<1024>;

impl Text {
    /// Cuts a text to the bound, at a character.
    pub fn from_str_cut(text: &str) -> Text {
        let mut end = text.len().min(1024);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Bounded(text.as_bytes()[..end].to_vec())
    }

    /// For people: what is no UTF-8 and what would steer a terminal or forge a line of a log is
    /// replaced.
    pub fn to_text(&self) -> String {
        printable(&self.0)
    }
}

/// A peer's words, or a name that anybody may have given, made fit for logs and terminals.
pub fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if commands_a_terminal(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// [`printable`], of several lines.
pub fn printable_lines(text: &str) -> String {
    let plain = |c: char| if c != '\n' && commands_a_terminal(c) { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(plain).collect()
}

/// Moves the cursor, erases, colours; or has text run the other way.
fn commands_a_terminal(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What a source sends on the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum SourceMessage {
    /// First message of a connection. Nothing follows it before its answer. Frozen.
    Hello {
        version_oldest: u16,
        version: u16,
        features: Features,
        set: SetId,
        /// Name of the replication set (the target's directory for it).
        set_name: Text,
        /// The last position that the source gave out.
        last: Position,
        /// The oldest packet that the source's queue still holds; `last.sequence.next()` when empty.
        oldest: Sequence,
    },
    /// Packets follow from the one after this position (after a resynchronisation: its end).
    StreamFrom { after: Position },
    /// Make everything applied so far durable and acknowledge it at once.
    MakeDurable,
    /// An orderly end: everything was sent.
    Goodbye,
    /// First message of a connection that only asks how things are: opens nothing, disturbs nobody. Frozen.
    Ask { set_name: Text },
    /// A change was made that no packet tells: the replica is bad until a resynchronisation.
    Diverged { reason: Text },
    /// Answer to `Retrying` of a full target: packets that are still to come remove these objects, or
    /// cut them down to nothing. At most [`crate::limits::RELIEF_OBJECTS_MAX`].
    Relief { objects: Vec<ObjectId> },
    /// First message of a connection that reads a replica back: frames of a copy come the other way. Frozen.
    Restore {
        version_oldest: u16,
        version: u16,
        features: Features,
        set_name: Text,
        /// Also a replica that is no consistent state of its source.
        accept_bad_data: bool,
    },
    /// What a reader says of the copy that it gets.
    OfCopy(OfCopy),
    /// Whatever had returned to a program at this moment of the source has a position up to this one. Now and
    /// then, while packets flow.
    GaveOut { last: Position, at: SourceClock },
    /// Answer to `AskHistory`.
    Writes(Writes),
    /// Behind an `About` of this version: how the replica stands.
    AskReplica { set_name: Text },
    /// The runs of this source and of those before it, as it knows them, the oldest first; at most
    /// [`crate::limits::RUNS_KEPT`].
    Runs { runs: Vec<Incarnation> },
}

/// Who has written the set before, and who writes it now.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Writes {
    pub history: History,
    /// As in [`SourceMessage::Runs`].
    pub runs: Vec<Incarnation>,
    /// A person has said so: also a replica that has more than the one that was stood in with.
    pub overwrites: bool,
}

/// A moment on a source, by two of its clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct SourceClock {
    /// Milliseconds since 1970, by the clock that can be set.
    pub wall_ms: u64,
    /// Milliseconds by one that nobody can set, from a moment that stays the same until the source's host starts
    /// anew.
    pub steady_ms: u64,
}

/// What is said of a copy by whoever it is made to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum OfCopy {
    /// As [`TargetMessage::Wanted`].
    Wanted { listing: ItemNumber, objects: Vec<ObjectId> },
    /// As [`TargetMessage::Doubt`].
    Doubt { directories: Vec<ObjectId> },
    /// The copy that ended with this item is complete and durable.
    Complete { end: ItemNumber },
}

/// State of the replica's data, for every decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataState {
    /// Nothing was ever copied here.
    #[default]
    Empty,
    /// The replica is the source as of its applied position.
    Good,
    /// A resynchronisation runs or stopped half-way, or an op was given up.
    Bad,
}

/// Why a replica is bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadBy {
    /// Only a copy makes it good, and nothing goes on before.
    #[default]
    Anything,
    /// It follows the stream without the objects that were set aside.
    Aside,
    /// It follows the stream; files that it had no room for are empty until they are removed.
    Relief,
    /// It is no state of the source, but it lacks nothing that its source does not know to owe: a copy of
    /// what is owed was cut off.
    Owed,
}

/// What a target can prove about its replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ReplicaProof {
    pub data: DataState,
    /// Why it is bad; without meaning while it is not.
    pub bad_by: BadBy,
    /// Packets up to here are applied (page cache), as far as this process or boot can prove.
    pub applied: Position,
    /// Packets up to here are durable.
    pub durable: Position,
    /// Packets up to here were received by this same target process.
    pub received: Position,
    /// Random id of this target process.
    pub process: u64,
}

/// What a target sends on the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum TargetMessage {
    /// Answer to `Hello`.
    Welcome { version: u16, features: Features, proof: ReplicaProof },
    /// Answer to `Hello`: no. The text says why and what to do. Frozen.
    Refused { reason: Text },
    /// Progress of the packet stream.
    Acknowledge { received: Sequence, applied: Sequence, durable: Sequence },
    /// Answer to a listing: these files of it lack their content, these directories their listing.
    Wanted { listing: ItemNumber, objects: Vec<ObjectId> },
    /// The resynchronisation whose `End` had this number is complete and durable.
    /// Where something was left out, by either side, the data stays bad.
    Resynchronised { end: ItemNumber, orphans: u64, left_out: LeftOut },
    /// The op at the head of the line cannot be performed and is being retried.
    Retrying { sequence: Sequence, op: Text, reason: Text, attempts: u32, stuck: Stuck },
    /// It went through after all.
    Recovered { sequence: Sequence },
    /// The state of the data has changed while packets flow. `aside`: objects that are set aside.
    Data { state: DataState, reason: Text, aside: u64 },
    /// One of the objects that are set aside.
    SetAside { path: Text, op: Text, reason: Text, since_ms: u64 },
    /// Answer to `Ask`. Frozen.
    About {
        version_oldest: u16,
        version: u16,
        /// Version of the product.
        product: Text,
        /// The target's clock, milliseconds since 1970.
        now_ms: u64,
        /// One line about the set, or why this source cannot send it.
        standing: Standing,
    },
    /// What this target has not taken as it came, when that has changed.
    Withheld(WithheldCounts),
    /// A packet met what no listing has shown: the names of these directories are to be listed again,
    /// from the first chunk on. An end that was sent before this is heard is none. At most
    /// [`crate::limits::DOUBTS_MAX`]. Of none: the first word to a copy, right behind its root directory. What is
    /// acknowledged from then on is of the history that the copy began with.
    Doubt { directories: Vec<ObjectId> },
    /// Answer to hashes: which of their blocks differ, the first one in the lowest bit. To a hole in a comparison: up to
    /// which offset it was looked at.
    Hashed { item: ItemNumber, differing: u64 },
    /// What a comparison has found, in messages of [`crate::limits::DIFFERENCES_LEN_CUT`] or so. Not all
    /// are named.
    Differences { found: Vec<Difference> },
    /// The comparison whose `End` had this number is over.
    Checked { end: ItemNumber, counts: CheckCounts },
    /// The replica cannot be compared (any further): it is not good, or cannot be read.
    NotChecked { reason: Text },
    /// Nothing more comes of a comparison.
    CheckStopped,
    /// Answer to `Restore`: the copy of this replica follows.
    Restoring {
        version: u16,
        features: Features,
        set: SetId,
        data: DataState,
        /// Why it is bad.
        reason: Text,
        /// What its source may have had here beside plain data, in words.
        allowed: Text,
        /// The packets up to here are in it.
        applied: Position,
    },
    /// Right before `Resynchronised`, where rules for orphans were given.
    Orphans(OrphanCounts),
    /// Right before `About`, where the source may send the set.
    Holds(Holdings),
    /// Before the answer to a listing: these of the files that it asks for are here with other content,
    /// whose blocks are to be compared. Only behind [`super::LaneItem::ByBlocks`].
    HasOld { listing: ItemNumber, objects: Vec<ObjectId> },
    /// Answer to `Hello`: no, the set is written in this epoch, or in one that is not known here. The text says
    /// what to do.
    KeptOut { epoch: Epoch, reason: Text },
    /// Right before `About`, where the replica was stood in for: of this set, in this epoch. Frozen.
    WrittenIn { set: SetId, epoch: Epoch },
    /// Before the acknowledgement of a marker: what became of it here.
    Marker { sequence: Sequence, end: MarkerEnd, text: Text },
    /// To a source that writes in an epoch which was raised: what led to it is to be known before the answer to
    /// its `Hello`.
    AskHistory,
    /// Right before `KeptOut`: of the replica.
    Wrote { history: History },
    /// Answer to `AskReplica`; `None`: there is none, or it cannot be looked at.
    Replica(Option<ReplicaStands>),
}

/// How a replica stands, for who is about to stand in with another one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReplicaStands {
    pub set: SetId,
    pub history: History,
    pub data: DataState,
    /// Packets up to here are in it.
    pub applied: Position,
    /// Another source than the one that asks works on it.
    pub source: Option<OtherSource>,
}

/// A source that is connected to a target.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OtherSource {
    /// For people: its key and address.
    pub who: Text,
    /// It was called, and has answered.
    pub answers: bool,
}

/// How it went with a marker on a target. What a target runs for it, if anything, the target alone knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MarkerEnd {
    /// Its command has run on the replica as of the marker, and ended well.
    Done,
    /// It has run, and failed.
    Failed,
    /// It was not through in its time.
    TimedOut,
    /// Nobody wanted to see the state.
    NoCommand,
    /// The replica was no consistent state: nothing was run.
    NotGood,
}

/// What the file system of a replica can hold.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Holdings {
    pub fs_type: Text,
    pub read_only: bool,
    pub user_xattrs: bool,
    pub trusted_xattrs: bool,
    pub acls: bool,
    /// Names that differ only in case are one name.
    pub case_insensitive: bool,
    /// Those of `chattr`.
    pub flags: bool,
    /// Bytes.
    pub name_len_max: u32,
    /// Bytes of a value, roughly.
    pub xattr_len_max: u32,
    pub nanoseconds: bool,
    /// Before 1901.
    pub early_times: bool,
    /// After 2038.
    pub late_times: bool,
    pub file_len_max: u64,
    pub free_bytes: u64,
    /// `None`: they are made as they are needed.
    pub free_inodes: Option<u64>,
    /// No copy is there yet: it needs all the room.
    pub is_fresh: bool,
}

/// What sources asked for and a target does not allow or cannot hold, counted since it opened the
/// replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct WithheldCounts {
    pub devices: u64,
    pub setuid_bits: u64,
    pub security_xattrs: u64,
    /// Modification times that the replica's file system cannot hold.
    #[serde(default)]
    pub times: u64,
    /// Flags of inodes that it has not.
    #[serde(default)]
    pub flags: u64,
}

/// What holds up the op at the head of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Stuck {
    /// One object: it is set aside if that lasts.
    Object,
    /// The whole target.
    Target,
    /// The whole target has no room.
    Full,
    /// Nothing is wrong: the command of a marker runs.
    Marker,
}

/// How a source stands with a target.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Standing {
    Welcome(Text),
    Unwelcome(Text),
}
