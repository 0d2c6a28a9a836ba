//! When, how fast and how short a source sends, as it was typed or stands in the file of the set.

use crate::sets::{SetFile, Sets};
use crate::words::{Compression, LimitPlan, Origin, ProtectOptions, SchedulePlan};

/// See the module. What was typed goes before what stands in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    pub schedule: Option<(SchedulePlan, Origin)>,
    pub limit: Option<(LimitPlan, Origin)>,
    pub compression: Option<(Compression, Origin)>,
}

impl Terms {
    pub fn of(options: &ProtectOptions, file: Option<&SetFile>) -> Terms {
        Terms {
            schedule: first(options.schedule, file.and_then(|file| file.schedule)),
            limit: first(options.limit.clone(), file.and_then(|file| file.limit.clone())),
            compression: first(options.compression, file.and_then(|file| file.compression)),
        }
    }

    /// One that cannot be read says nothing here: whoever reads the rules in it has refused the start.
    pub fn at_start(options: &ProtectOptions) -> Terms {
        let file = Sets::of(&options.state).read(&options.name).ok().flatten();
        Terms::of(options, file.as_ref())
    }
}

fn first<T>(typed: Option<T>, in_file: Option<T>) -> Option<(T, Origin)> {
    let typed = typed.map(|value| (value, Origin::Option));
    typed.or_else(|| in_file.map(|value| (value, Origin::File)))
}
