//! standin: real-time, ordered replication for any directory on Linux.
pub mod intercept;
pub mod cli;
pub mod control;
pub mod failure;
pub mod limits;
pub mod link;
pub mod packet;
pub mod preflight;
pub mod queue;
pub mod source;
pub mod store;
pub mod sys;
