//! What a target may allow a source.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a source may have on a target beside plain data. In documents a list of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Kind>", into = "Vec<Kind>")]
pub struct Allow {
    pub device: bool,
    pub setuid: bool,
    pub security: bool,
}

impl Allow {
    pub const ALL: Allow = Allow { device: true, setuid: true, security: true };
    pub const NOTHING: Allow = Allow { device: false, setuid: false, security: false };

    /// What one of the two allows.
    pub fn or(self, other: Allow) -> Allow {
        Allow {
            device: self.device || other.device,
            setuid: self.setuid || other.setuid,
            security: self.security || other.security,
        }
    }

    /// What both allow.
    pub fn and(self, other: Allow) -> Allow {
        Allow {
            device: self.device && other.device,
            setuid: self.setuid && other.setuid,
            security: self.security && other.security,
        }
    }

    /// What this allows and the other does not.
    pub fn without(self, other: Allow) -> Allow {
        Allow {
            device: self.device && !other.device,
            setuid: self.setuid && !other.setuid,
            security: self.security && !other.security,
        }
    }
}

/// A word of `--allow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Device,
    Setuid,
    Security,
}

impl From<Vec<Kind>> for Allow {
    fn from(kinds: Vec<Kind>) -> Allow {
        let has = |kind| kinds.contains(&kind);
        Allow { device: has(Kind::Device), setuid: has(Kind::Setuid), security: has(Kind::Security) }
    }
}

impl From<Allow> for Vec<Kind> {
    fn from(allow: Allow) -> Vec<Kind> {
        let all =
            [(allow.device, Kind::Device), (allow.setuid, Kind::Setuid), (allow.security, Kind::Security)];
        all.into_iter().filter_map(|(is_allowed, kind)| is_allowed.then_some(kind)).collect()
    }
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = Vec::<Kind>::from(*self)
            .into_iter()
            .map(|kind| match kind {
                Kind::Device => "device",
                Kind::Setuid => "setuid",
                Kind::Security => "security",
            })
            .collect();
        f.write_str(if words.is_empty() { "nothing" } else { "" })?;
        f.write_str(&words.join(","))
    }
}
