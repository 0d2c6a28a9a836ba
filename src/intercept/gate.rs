//! When a sync of an application may return, beyond the local disk.

use std::io;

/// Answers a sync, exactly once. Called without any lock; does not wait.
pub type SyncAnswer = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Holds the answers of syncs back until more than the local disk has what they ask for.
pub trait DurabilityGate: Send + Sync {
    /// A sync was asked for: it covers every op that is in the queue now. Takes its answer, gives
    /// what is to be called with the outcome of the local sync, which may go on meanwhile. Never
    /// waits. `answer` comes after both, or with an error when the gate's own time is over.
    fn enter(&self, answer: SyncAnswer) -> SyncAnswer;
}
