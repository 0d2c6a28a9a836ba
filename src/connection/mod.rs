//! What a connection decides: when it dials, what it sends, when it gives its target up.
//!
//! ```text
//!  person: start stop pause resume disconnect ─┐
//!  link: up, welcome, refused, lost ───────────┼─> Machine ── actions: dial, greet, stream, hold,
//!  queue: full    schedule: met, over ─────────┤             close, let the queue go, end
//!  clock: poll_timeout / handle_timeout ───────┘
//! ```
//! Pure: no I/O, no clock, no lock, no random numbers. The driver (`source_side::connection::driver`) does
//! what it says, in the product and in a simulator. Owns the states of a connection, the pace of its attempts
//! ([`delay`]) and what is to be done with a target's word at the handshake ([`decide`]).

mod handshake;
mod machine;
mod retry;
mod schedule;
mod state;
#[cfg(test)]
mod tests;
mod wish;

pub use handshake::{Decision, Gap, Held, decide};
pub use machine::{Action, Command, Event, Machine, NotNow};
pub use retry::{Jitter, delay};
pub use schedule::{Begun, Ended, KeptSchedule, Look, Outlook, OutsideWindow, Scheduler, Turn};
pub use state::{Fault, FaultKind, Flow, Link, Repair, State, Window};
pub use wish::{Copies, Sending, Wish};
