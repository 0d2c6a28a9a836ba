//! What a program understands of what this one has written and says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::intercept::MEMORY_FORMAT;
use crate::packet::{FORMAT_VERSION, WIRE_VERSION, WIRE_VERSION_OLDEST};
use crate::source_side::holder::PROTOCOL;
use crate::{activity, apply, map, queue};

/// Name of the hidden subcommand that says them.
pub const FORMATS_COMMAND: &str = "formats";

/// Of a set's record: raised when an older version would read it as something else.
const RECORD: u64 = 1;

/// Of what a program leaves to the next one.
const HANDOVER: u64 = 1;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Formats {
    pub version: String,
    /// The oldest and the newest version of the wire.
    pub wire: [u16; 2],
    /// By name: of memory that outlives a daemon, of files, of words between processes.
    pub kept: BTreeMap<String, u64>,
    /// Why it would not start with the arguments that were named.
    #[serde(default)]
    pub refused: Option<Failure>,
}

impl Formats {
    /// This program's.
    pub fn own() -> Formats {
        let own = [
            ("handover", HANDOVER),
            ("holder", u64::from(PROTOCOL)),
            ("memory", MEMORY_FORMAT),
            ("marks", map::FORMAT),
            ("record", RECORD),
            ("activity", u64::from(activity::FORMAT)),
            ("queue", u64::from(queue::FORMAT)),
            ("packets", u64::from(FORMAT_VERSION)),
        ];
        Formats {
            version: env!("CARGO_PKG_VERSION").into(),
            wire: [WIRE_VERSION_OLDEST, WIRE_VERSION],
            kept: own.into_iter().chain(apply::FORMATS).map(|(name, format)| (name.into(), format)).collect(),
            refused: None,
        }
    }

    /// Why a program with these cannot go on where this one is, and this one where that one was.
    pub fn lacks(&self, next: &Formats) -> Option<String> {
        let [oldest, newest] = next.wire;
        if !(oldest..=newest).contains(&WIRE_VERSION) {
            return Some(format!(
                "it speaks version {newest} of the wire, and targets are spoken to in version {WIRE_VERSION}"
            ));
        }
        let other = self.kept.iter().find(|(name, format)| next.kept.get(*name) != Some(*format))?;
        Some(format!("it has another format of what a daemon keeps ({})", other.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_format_is_told_apart() {
        let own = Formats::own();
        assert_eq!(own.lacks(&Formats { version: "77.0.0".into(), ..Formats::own() }), None);
        for name in own.kept.keys() {
            let mut next = Formats::own();
            next.kept.insert(name.clone(), 77);
            assert!(own.lacks(&next).is_some_and(|why| why.contains(name.as_str())), "{name}");
            next.kept.remove(name);
            assert!(own.lacks(&next).is_some(), "{name}");
        }
        let wire =
            |oldest, newest| own.lacks(&Formats { wire: [oldest, newest], ..Formats::own() }).is_some();
        let now = WIRE_VERSION;
        assert!(wire(now + 1, now + 2) && wire(now - 2, now - 1));
        assert!(!wire(now - 1, now + 1), "it can be spoken to by both");
    }
}
