//! What of a protected directory is replicated: ordered rules, one matcher of them for capture, copy and
//! the target's sweep, and the file of a set.
//!
//! ```text
//!  sets/NAME.toml ── file ──> Rules ── Matcher ──┬─ intercept: which change is told, and how
//!                                                ├─ resync: which names a listing shows
//!                                                └─ apply: which names that no listing shows stay
//! ```

mod file;
mod matcher;
mod rules;

pub use file::{Changing, SetError, Sets};
pub use matcher::{DirRules, Matcher};
pub use rules::{BadRule, Rule, Rules};
