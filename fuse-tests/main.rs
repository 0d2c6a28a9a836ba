//! Tests through a real mount: they need root, `/dev/fuse` and loop devices, and say so loudly
//! where one is missing. `tree` is the judge of equality, `host` starts and stops the product.

mod basic;
mod conflict;
mod halves;
mod host;
mod random;
mod sys;
mod tree;
