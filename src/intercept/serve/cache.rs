//! What whoever shows the volume has cached of its files.

use std::ops::Range;

use crate::intercept::objects::NodeId;

/// See the module. No lock may be held in either call.
pub trait Cache: Send + Sync {
    /// The daemon changed attributes that may be cached. Before the reply: afterwards nobody sees the
    /// old ones.
    fn forget_attributes(&self, node: NodeId);

    /// Writes back what shared mappings hold in a range, drops its pages, and waits for that. Needs
    /// serving threads meanwhile: only for helpers.
    fn write_back(&self, node: NodeId, range: Range<u64>);

    /// Whether requests that the kernel makes by itself come however many are under way, or wait for
    /// each other.
    fn let_all_through(&self, all: bool);
}
