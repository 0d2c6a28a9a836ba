//! The way home after a failover, as far as the host decides it that stands in: which target was the source before,
//! and what it still lacks.

use crate::packet::DataState;
use crate::words::Fingerprint;

/// A target of the stand-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub target: String,
    pub is_remote: bool,
    /// The key that it showed when the two were paired.
    pub key: Option<Fingerprint>,
    pub is_connected: bool,
    pub data: DataState,
    /// What the connection says; may be empty.
    pub reason: String,
}

/// Why it is taken for the one that was the source before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownBy {
    /// A person has named it.
    Name,
    /// Its key is the one that has sent the set here.
    Key,
    /// There is no other one.
    Only,
}

/// What is missing before roles can be switched back, in the order in which it is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The stand-in replicates to nobody who could be it.
    Target,
    /// It does not answer, or does not take the stand-in: why.
    Connection(String),
    /// It is being brought into line: how it stands.
    Copy(String),
}

/// The target that was the source before; `None`: there is none yet.
///
/// `sources`: keys that have sent the set to this host.
///
/// Errors: in one line, why that cannot be told.
pub fn home<'a>(
    candidates: &'a [Candidate],
    sources: &[Fingerprint],
    wanted: Option<&str>,
) -> Result<Option<(&'a Candidate, KnownBy)>, String> {
    if let Some(wanted) = wanted {
        let meant = candidates.iter().find(|one| one.target == wanted);
        return match meant {
            None => Err(format!("{wanted} is no target of it")),
            Some(one) if !one.is_remote => Err(format!("{wanted} is on this host")),
            Some(one) => Ok(Some((one, KnownBy::Name))),
        };
    }
    let remote: Vec<&Candidate> = candidates.iter().filter(|one| one.is_remote).collect();
    let was_source = |one: &&&Candidate| one.key.is_some_and(|key| sources.contains(&key));
    let by_key: Vec<&&Candidate> = remote.iter().filter(was_source).collect();
    match (by_key.as_slice(), remote.as_slice()) {
        ([one], _) => Ok(Some((one, KnownBy::Key))),
        ([], []) => Ok(None),
        // Another host than the one that was the source, which may come yet.
        ([], [one]) if sources.is_empty() || one.key.is_none() => Ok(Some((one, KnownBy::Only))),
        ([], [one]) => Err(format!(
            "{} has another key than the host that was the source before: name it all the same (--target), or add the \
             old host as a target",
            one.target
        )),
        (_, _) => Err("it has several targets: say which one was the source before (--target)".into()),
    }
}

/// `None`: roles can be switched.
pub fn missing(home: Option<&Candidate>) -> Option<Missing> {
    let Some(home) = home else { return Some(Missing::Target) };
    match (home.is_connected, home.data) {
        (false, _) => Some(Missing::Connection(home.reason.clone())),
        (true, DataState::Good) => None,
        (true, DataState::Empty | DataState::Bad) => Some(Missing::Copy(home.reason.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(digit: u8) -> Fingerprint {
        format!("{digit:x}").repeat(64).parse().unwrap()
    }

    fn one(target: &str, of: Option<u8>) -> Candidate {
        Candidate {
            target: target.into(),
            is_remote: true,
            key: of.map(key),
            is_connected: true,
            data: DataState::Good,
            reason: String::new(),
        }
    }

    #[test]
    fn the_one_whose_key_has_sent_the_set_was_the_source() {
        let (old, other, local) =
            (one("old", Some(1)), one("other", Some(2)), Candidate { is_remote: false, ..one("here", None) });
        let check = |candidates: &[&Candidate],
                     sources: &[u8],
                     wanted: Option<&str>,
                     expected: Result<Option<(&str, KnownBy)>, &str>| {
            let candidates: Vec<Candidate> = candidates.iter().map(|&one| one.clone()).collect();
            let sources: Vec<Fingerprint> = sources.iter().map(|&digit| key(digit)).collect();
            let found = home(&candidates, &sources, wanted);
            match (&found, expected) {
                (Ok(found), Ok(expected)) => {
                    assert_eq!(found.map(|(one, by)| (one.target.as_str(), by)), expected);
                }
                (Err(said), Err(word)) => assert!(said.contains(word), "{said}"),
                _ => panic!("{found:?}"),
            }
        };
        check(&[&old, &other], &[1], None, Ok(Some(("old", KnownBy::Key))));
        check(&[&old, &other], &[1], Some("other"), Ok(Some(("other", KnownBy::Name))));
        check(&[&old], &[], None, Ok(Some(("old", KnownBy::Only))));
        check(&[&old, &local], &[1], None, Ok(Some(("old", KnownBy::Key))));
        check(&[&local], &[1], None, Ok(None));
        check(&[], &[1], None, Ok(None));
        check(&[&other], &[1], None, Err("another key than the host that was the source"));
        check(&[&old, &other], &[], None, Err("several targets"));
        check(&[&old, &other], &[1, 2], None, Err("several targets"));
        check(&[&old], &[1], Some("new"), Err("no target of it"));
        check(&[&local], &[1], Some("here"), Err("on this host"));
    }

    #[test]
    fn nothing_is_switched_to_what_is_not_connected_and_good() {
        let good = one("old", None);
        let why = || "why".to_owned();
        assert_eq!(missing(None), Some(Missing::Target));
        assert_eq!(missing(Some(&good)), None);
        let gone = Candidate { is_connected: false, reason: why(), ..good.clone() };
        assert_eq!(missing(Some(&gone)), Some(Missing::Connection(why())));
        for data in [DataState::Empty, DataState::Bad] {
            let bad = Candidate { data, reason: why(), ..good.clone() };
            assert_eq!(missing(Some(&bad)), Some(Missing::Copy(why())));
        }
    }
}
