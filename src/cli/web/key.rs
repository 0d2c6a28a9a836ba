//! What has to stand in the address of the page: whoever may read the file of the key may see it.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::failure::Failure;
use crate::store::{self, Symlink};

/// 128 random bits, in hexadecimal.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key(String);

const LEN: usize = 32;

impl Key {
    /// The one that is there, or a new one.
    pub(super) fn of(dir: &Path, anew: bool) -> Result<Key, Failure> {
        let path = dir.join("key");
        let failed = |error: std::io::Error| {
            Failure::new(
                format!("The key of the page, {}, cannot be kept: {error}.", path.display()),
                "Nothing is served.",
                "Start as root, or name another state directory with --state.",
            )
        };
        store::own_directory(dir, 0o700, Symlink::Own).map_err(failed)?;
        let found = match fs::read_to_string(&path) {
            Ok(text) => Key::parse(text.trim_end()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        if let Some(key) = found.filter(|_| !anew) {
            return Ok(key);
        }
        let key = Key(format!("{:032x}", store::random_u128()));
        store::replace(&path, format!("{key}\n").as_bytes()).map_err(failed)?;
        Ok(key)
    }

    fn parse(text: &str) -> Option<Key> {
        let is_one = text.len() == LEN && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_one.then(|| Key(text.to_owned()))
    }

    /// What is asked for behind the key.
    pub(super) fn opens<'a>(&self, path: &'a str) -> Option<&'a str> {
        let (key, rest) = path.strip_prefix('/')?.split_once('/')?;
        // Compared in a time that says nothing of where they differ.
        (blake3::hash(key.as_bytes()) == blake3::hash(self.0.as_bytes())).then_some(rest)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_stays_until_a_new_one_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("web");
        let first = Key::of(&place, false).unwrap();
        assert!(Key::of(&place, false).unwrap() == first);
        assert_eq!(fs::metadata(place.join("key")).unwrap().permissions().mode() & 0o7777, 0o600);
        let second = Key::of(&place, true).unwrap();
        assert!(second != first);
        fs::write(place.join("key"), "nonsense").unwrap();
        assert!(Key::of(&place, false).unwrap() != second, "what is no key is replaced");
    }

    #[test]
    fn only_the_whole_key_opens() {
        let key = Key("0123456789abcdef0123456789abcdef".into());
        assert_eq!(key.opens(&format!("/{key}/")), Some(""));
        assert_eq!(key.opens(&format!("/{key}/style.css")), Some("style.css"));
        let short = format!("/{}/", &key.0[1..]);
        for path in ["", "/", "//", "/style.css", "/0123456789abcdef/", &short, &format!("/{key}")] {
            assert_eq!(key.opens(path), None, "{path}");
        }
    }
}
