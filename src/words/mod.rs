//! Words that several rooms use: what was asked for, what is allowed, who somebody is, what is counted.

mod activity;
mod allow;
mod compression;
mod configuration;
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
mod owners;
mod profile;
mod right;
mod schedule_plan;
mod statistics;
mod verify_mode;
mod verify_plan;
mod wall_clock;
mod when_full;

pub use activity::ActivityLogging;
pub use allow::Allow;
pub use compression::Compression;
pub use configuration::{Configuration, FileTerms, Reread, Setting, SettingChange, SettingFrom};
pub use copy_mode::{CopyMode, HashKind};
pub use delete_limit::DeleteLimit;
pub use deletes::{Deletes, KeepDeleted};
pub use keys::{BadFingerprint, Fingerprint, hmac_sha256, sha256};
pub use limit_plan::{LimitPlan, Rate};
pub use measures::{DiskQueueStats, DiskTrouble, QueueStats};
pub use names::{OF_THE_DISK, RESERVED_NAME, SET_NAME_LEN_MAX, SOCKET_SUFFIX, is_set_name, socket_path};
pub use options::{BadData, Late, Needs, ProtectOptions, QueueDisk, Rule, Target, TargetError, TypedRule};
pub use order::{Order, Origin, Own};
pub use orphans::{OrphanChoice, OrphanRules};
pub use owners::OwnedBy;
pub use profile::Profile;
pub use right::Right;
pub use schedule_plan::{QueueLevel, SchedulePlan, Waiting};
pub use statistics::{
    STATISTICS_KEEP, STATISTICS_KEEP_MAX, STATISTICS_SIZE, STATISTICS_SIZE_MIN, StatisticsTo,
};
pub use verify_mode::VerifyMode;
pub use verify_plan::VerifyPlan;
pub use wall_clock::{DAY, Date, Recurring, Span, TimeOfDay, Zone, first_minute, shown, wall};
pub use when_full::WhenFull;
