//! Words that several rooms use: what was asked for, what is allowed, who somebody is, what is counted.

mod allow;
mod copy_mode;
mod delete_limit;
mod keys;
mod measures;
mod names;
mod options;
mod orphans;
mod profile;
mod right;
mod verify_mode;
mod verify_plan;
mod when_full;

pub use allow::Allow;
pub use copy_mode::{CopyMode, HashKind};
pub use delete_limit::DeleteLimit;
pub use keys::{BadFingerprint, Fingerprint, hmac_sha256, sha256};
pub use measures::QueueStats;
pub use names::{OF_THE_DISK, RESERVED_NAME, SOCKET_SUFFIX, is_set_name, socket_path};
pub use options::{BadData, Late, Needs, ProtectOptions, Rule, Target, TargetError};
pub use orphans::{OrphanChoice, OrphanRules};
pub use profile::Profile;
pub use right::Right;
pub use verify_mode::VerifyMode;
pub use verify_plan::{TimeOfDay, VerifyPlan};
pub use when_full::WhenFull;
