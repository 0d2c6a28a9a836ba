//! When, how fast and how short a source sends, as it was typed or stands in the file of the set.

use crate::words::{Compression, FileTerms, LimitPlan, Origin, ProtectOptions, SchedulePlan};

/// See the module. What was typed goes before what stands in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    pub schedule: Option<(SchedulePlan, Origin)>,
    pub limit: Option<(LimitPlan, Origin)>,
    pub compression: Option<(Compression, Origin)>,
}

impl Terms {
    pub fn of(options: &ProtectOptions, file: &FileTerms) -> Terms {
        Terms {
            schedule: first(options.schedule, file.schedule),
            limit: first(options.limit.clone(), file.limit.clone()),
            compression: first(options.compression, file.compression),
        }
    }

    pub fn at_start(options: &ProtectOptions) -> Terms {
        Terms::of(options, &options.configuration.terms)
    }
}

fn first<T>(typed: Option<T>, in_file: Option<T>) -> Option<(T, Origin)> {
    let typed = typed.map(|value| (value, Origin::Option));
    typed.or_else(|| in_file.map(|value| (value, Origin::File)))
}
