//! Words that several rooms use: what was asked for, what is allowed, who somebody is, what is counted.

mod allow;
mod copy_mode;
mod delete_limit;
mod deletes;
mod keys;
mod limit_plan;
mod measures;
mod names;
mod options;
mod order;
mod orphans;
mod profile;
mod right;
mod schedule_plan;
mod verify_mode;
mod verify_plan;
mod wall_clock;
mod when_full;

pub use allow::Allow;
pub use copy_mode::{CopyMode, HashKind};
pub use delete_limit::DeleteLimit;
pub use deletes::{Deletes, KeepDeleted};
pub use keys::{BadFingerprint, Fingerprint, hmac_sha256, sha256};
pub use limit_plan::{LimitPlan, Rate};
pub use measures::QueueStats;
pub use names::{OF_THE_DISK, RESERVED_NAME, SOCKET_SUFFIX, is_set_name, socket_path};
pub use options::{BadData, Late, Needs, ProtectOptions, Rule, Target, TargetError, TypedRule};
pub use order::{Order, Origin, Own};
pub use orphans::{OrphanChoice, OrphanRules};
pub use profile::Profile;
pub use right::Right;
pub use schedule_plan::{QueueLevel, SchedulePlan, Waiting};
pub use verify_mode::VerifyMode;
pub use verify_plan::VerifyPlan;
pub use wall_clock::{DAY, Date, Recurring, Span, TimeOfDay, Zone, first_minute, shown, wall};
pub use when_full::WhenFull;
