//! Tests through a real mount: they need root, `/dev/fuse` and loop devices, and say so loudly
//! where one is missing. `tree` is the judge of equality, `host` starts and stops the product.

mod append_only;
mod aside;
mod bad_input;
mod basic;
mod batch;
mod by_blocks;
mod clones;
mod conflict;
mod connections;
mod databases;
mod deep;
mod deletes;
mod disk_queue;
mod docs;
mod drills;
mod fenced;
mod fsync;
mod full_state;
mod guards;
mod half_done;
mod halves;
mod host;
mod hostile;
mod hosts;
mod kept;
mod kept_listings;
mod killed;
mod left_out;
mod listings;
mod lost_writes;
mod managed;
mod metrics;
mod minicopy;
mod mirror;
mod mmap;
mod mount_options;
mod odd;
mod offline;
mod orphans;
#[cfg(feature = "suites")]
mod packages;
mod pair;
mod parts;
mod past;
mod power;
mod random;
mod refused;
mod reserve;
mod restart;
mod restored;
mod scheduled;
mod sets;
mod sizes;
#[cfg(feature = "suites")]
mod source_tree;
mod stand_in;
#[cfg(feature = "suites")]
mod suites;
mod sys;
mod times;
mod tree;
mod trees;
mod unmounts;
mod verify;
mod waiting;
