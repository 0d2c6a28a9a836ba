//! How much work goes into making what travels shorter.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Level of compression of one connection. Written as its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Compression {
    #[default]
    Off,
    /// LZ4.
    Fast,
    /// Zstandard, level 1.
    Good,
    /// Zstandard, level 3.
    Better,
}

impl Compression {
    pub const ALL: [Compression; 4] =
        [Compression::Off, Compression::Fast, Compression::Good, Compression::Better];

    /// The method, for people.
    pub fn method(self) -> &'static str {
        match self {
            Compression::Off => "off",
            Compression::Fast => "lz4",
            Compression::Good => "zstd 1",
            Compression::Better => "zstd 3",
        }
    }
}

impl From<Compression> for u8 {
    fn from(level: Compression) -> u8 {
        match level {
            Compression::Off => 0,
            Compression::Fast => 1,
            Compression::Good => 2,
            Compression::Better => 3,
        }
    }
}

impl TryFrom<u8> for Compression {
    type Error = String;

    fn try_from(level: u8) -> Result<Compression, String> {
        let found = Compression::ALL.into_iter().find(|known| u8::from(*known) == level);
        found.ok_or_else(|| no_level(&level.to_string()))
    }
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Compression, String> {
        text.parse::<u8>().map_err(|_| no_level(text)).and_then(Compression::try_from)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", u8::from(*self))
    }
}

fn no_level(text: &str) -> String {
    format!("'{text}' is no level of compression: 0 (off), 1 (lz4), 2 (zstd 1) or 3 (zstd 3)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_written_as_it_is_read() {
        for level in Compression::ALL {
            assert_eq!(level.to_string().parse(), Ok(level));
            assert_eq!(
                serde_json::from_str::<Compression>(&serde_json::to_string(&level).unwrap()).unwrap(),
                level
            );
        }
        for text in ["4", "-1", "", "fast", "300"] {
            assert!(text.parse::<Compression>().unwrap_err().contains("no level"), "{text}");
        }
    }
}
