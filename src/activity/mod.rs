//! The activity log: whose content was being changed, on disk before it is. After a power loss of the source
//! nothing else can differ from what a replica has without a trace.
//!
//! ```text
//!  first change of a file's content ── wait ──> its record is on disk ──> the change
//!                                        └ of all that wait: one write, one sync
//!  generations   5 ────────────── 6 (records go here)
//!  begins       10:00            10:01     5 goes when a sync of the source's file system has ended that began
//!                                          when every change had ended that began in 5
//! ```
//! An object is *hot* in a generation that has its record, and *cold* in all others. One that is born in a
//! generation is hot in it without a record: its change time, and its time of birth, say so for ever.
//! A log is *whole* while no change has passed it: not before a first sync of what was changed while nobody
//! kept it, not once its disk is full or fails.
//!
//! # Why the content of a cold object is that of the replica
//! Let B be the moment at which the oldest generation that is kept began, and M the one up to which the target had
//! everything *on its disk*. After a power loss the source's disk has an object that is hot in no generation, whose
//! change time and time of birth there are before B and M, and the target knows it by its id, with the same size and
//! modification time.
//! - Nobody has changed its content since B through the mount: it would have a record, written before the change,
//!   or it was born since, and its time of birth would say so.
//! - All that was changed before B is on the source's disk: a sync that began after those changes has ended. So the
//!   disk has the object's last content, with its change time, which is before M.
//! - Then the target had that content at M; and has got nothing else for it since, because nothing changed.
//!
//! So no generation waits for a target: what it was told since M, and the disk has kept, its change time says, and what
//! the disk has not kept is hot. A target that is away for a week keeps its M of a week ago, and costs no log.
//!
//! What speaks against it, and why it holds:
//! - *The target has lost power, too.* It has at least what it had on its disk, which is all of M.
//! - *The target is ahead: the source's disk lost what it was sent.* The object is hot, or was born, since B.
//! - *Names were lost or came back* (renames, exchanges, deletions, another file in the place): all names are
//!   listed, and the target finds each object by its id, never by its name: what it has under an id that it knows is
//!   that object's content, wherever its name went. What has no id there is copied. So a target that has lost its index
//!   gets all content.
//! - *Owners, modes, ACLs, attributes, sizes, times* are compared of every object, hot or not.
//! - *An inode number is given again after the cut*: whatever has it now was born, or has changed, after B.
//! - *Holes, allocation, truncation* are changes of content, as writes are.
//! - *A copy was under way.* M does not move before its target is in line; what a copy to a target that had no M
//!   has sent counts for nothing after a power loss.
//! - *The next power loss comes before a target is in line.* What was hot is carried into the next log, and is owed
//!   until every target has everything as of a run after it.
//! - *The directory's disk alone was put back* to an earlier state, with old bytes of what is not hot any more. It
//!   says with which generation it goes, since the sync that the end of the one before leans on, and goes with no other.
//! - *The whole machine was put back to a snapshot of itself.* Packets go out only up to a *ceiling* that is on disk
//!   (`ceiling`); a target that has applied more, or of a run that is not known here, is compared as
//!   a whole.
//! - *The clock was set between M and now.* No M stays over that ([`crate::source_side`]), and until it is forgotten
//!   on disk the log is not whole, and no generation goes.
//! - *Something was written past the mount*, or the disk lost writes: where it is seen, the log is not whole from there
//!   on. Where nobody protects the directory, after the daemon has died, nobody sees it before it is synced.
//!
//! What it leans on besides: that a sync means what it says.
//!
//! Bounded and preallocated ([`crate::limits`]). A log that is full or fails costs the proof and nothing else: it
//! is taken back durably before the next change passes ([`Outside::revoke`]).

mod ceiling;
mod files;
mod log;
mod record;
#[cfg(test)]
mod tests;

pub use files::{Found, Known, Marked, forget, look};
pub use log::{ActivityLog, Fill, Outside, Prepared, Standing};
pub use record::HotObject;

/// Of what a log looks like on disk.
pub const FORMAT: u32 = record::VERSION;
