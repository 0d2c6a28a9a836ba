//! How much of a replica may be deleted within a minute before a person is asked.

use std::fmt;
use std::str::FromStr;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteLimit {
    /// So many percent of its files, 1 to 99.
    Percent(u8),
    /// Nobody is asked.
    Off,
}

impl Default for DeleteLimit {
    fn default() -> DeleteLimit {
        DeleteLimit::Percent(50)
    }
}

impl FromStr for DeleteLimit {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<DeleteLimit, &'static str> {
        match text.trim_end_matches('%').parse() {
            _ if text == "off" => Ok(DeleteLimit::Off),
            Ok(percent @ 1..=99) => Ok(DeleteLimit::Percent(percent)),
            Ok(_) | Err(_) => Err("a percentage from 1 to 99, or off"),
        }
    }
}

impl fmt::Display for DeleteLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeleteLimit::Percent(percent) => write!(f, "{percent}"),
            DeleteLimit::Off => f.write_str("off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_read_as_it_is_written() {
        for (text, limit) in
            [("50", DeleteLimit::Percent(50)), ("1%", DeleteLimit::Percent(1)), ("off", DeleteLimit::Off)]
        {
            assert_eq!(text.parse(), Ok(limit));
            assert_eq!(limit.to_string().parse(), Ok(limit));
        }
        for text in ["0", "100", "", "-1", "on", "50.5"] {
            assert!(text.parse::<DeleteLimit>().is_err(), "{text}");
        }
    }
}
