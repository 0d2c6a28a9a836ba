//! standin: real-time, ordered replication for any directory on Linux.
pub mod apply;
pub mod limits;
pub mod packet;
pub mod queue;
pub mod resync;
pub mod store;
pub mod sys;
