//! Paths in JSON: as they are where they are UTF-8, else `bytes:` and hexadecimal digits.
//! Absolute paths never start like that, so nothing is ambiguous.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&to_text(path))
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    from_text(&String::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("no path"))
}

/// A path that may not be there.
pub mod optional {
    use super::*;

    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
        match path {
            Some(path) => serializer.serialize_some(&to_text(path)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| from_text(&text).ok_or_else(|| D::Error::custom("no path"))).transpose()
    }
}

fn to_text(path: &Path) -> String {
    match path.to_str() {
        Some(text) => text.to_owned(),
        None => path
            .as_os_str()
            .as_bytes()
            .iter()
            .fold("bytes:".into(), |text, byte| text + &format!("{byte:02x}")),
    }
}

fn from_text(text: &str) -> Option<PathBuf> {
    let Some(digits) = text.strip_prefix("bytes:") else { return Some(PathBuf::from(text)) };
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    if digits.len() % 2 != 0 {
        return None;
    }
    let bytes = digits.as_bytes().chunks(2).map(pair).collect::<Option<Vec<u8>>>()?;
    Some(PathBuf::from(OsString::from_vec(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_comes_back() {
        for bytes in [&b"/srv/data"[..], "/srv/d\u{e4}ta".as_bytes(), b"/srv/\xff\\x", b""] {
            let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            assert_eq!(from_text(&to_text(&path)), Some(path));
        }
        assert_eq!(from_text("bytes:f"), None);
        assert_eq!(from_text("bytes:zz"), None);
    }
}
