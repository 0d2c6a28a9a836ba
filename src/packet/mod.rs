//! Packets: one file-system change with its position, and everything else that travels.
//!
//! Owns the words of the wire: ops and their results (`op`), positions (`position`), lane
//! items (`item`), comparisons (`check`), control messages (`message`), of which some are the same for ever (`frozen`),
//! pairing (`pairing`), names of owners (`owners`), their bytes (`codec`)
//! and how these travel (`packing`); which epochs keep which out (`fence`), and how two histories of them meet (`history`); which ids objects have (`ids`). Performs nothing.

mod bounded;
mod check;
mod codec;
mod fence;
mod frozen;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod golden;
mod history;
mod ids;
mod item;
mod message;
mod op;
mod owners;
mod packing;
mod pairing;
mod position;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

pub use bounded::*;
pub use check::*;
pub use codec::*;
pub use fence::*;
pub use frozen::*;
pub use history::*;
pub use ids::*;
pub use item::*;
pub use message::*;
pub use op::*;
pub use owners::*;
pub use packing::*;
pub use pairing::*;
pub use position::*;
