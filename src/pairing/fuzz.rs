//! Tokens as people mangle them, and the documents of pairings, damaged on disk.

use std::fs;

use super::*;
use crate::mutation::with_damage;
use crate::sys::allocated;
use crate::words::Fingerprint;
use crate::words::Right;

#[test]
fn a_mangled_token_is_refused_or_the_same() {
    let token = |set_name: &str, address: &str| Token {
        target: Fingerprint::from_bytes([7; 32]),
        secret: Secret::generate(),
        set_name: set_name.into(),
        address: address.into(),
    };
    let tokens = [token("web", "target.example.org:7447"), token("", ""), token(&"x".repeat(255), "a")];
    let texts: Vec<Vec<u8>> = tokens.iter().map(|token| token.to_string().into_bytes()).collect();
    with_damage(30_000, |damage| {
        let good = damage.pick(&texts).clone();
        let bytes = damage.damaged(&good, &texts);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (parsed, memory) = allocated(|| text.parse::<Token>());
        assert!(memory.peak <= 4 * (text.len() + TOKEN_TEXT_MAX), "{memory:?} for {}", text.len());
        match parsed {
            Ok(parsed) => assert!(tokens.contains(&parsed), "{text}"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
}

#[test]
fn damaged_documents_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pairings.json");
    let own = Fingerprint::from_bytes([1; 32]);
    let book = Book::open(&path, own).unwrap();
    for set in ["web", "mail"] {
        let good_for = std::time::Duration::from_secs(60);
        book.invite(Offer { set_name: set, address: "", good_for, allow: None, right: Right::Send }, 5)
            .unwrap();
    }
    let invited = fs::read(&path).unwrap();
    let known = Known::in_state(dir.path());
    known.put("standin://a:1/web", KnownTarget { fingerprint: own, since_unix_ms: 3 }).unwrap();
    let targets = fs::read(dir.path().join("targets.json")).unwrap();
    let deep = vec![b'['; 100_000];
    let others = [invited.clone(), targets.clone(), deep];
    let (mut good, mut bad) = (0, 0);
    with_damage(1500, |damage| {
        fs::write(&path, damage.damaged(&invited, &others)).unwrap();
        fs::write(dir.path().join("targets.json"), damage.damaged(&targets, &others)).unwrap();
        let (read, memory) = allocated(|| {
            let grants = Book::open(&path, own).map(|book| book.grants().len());
            (grants, known.get("standin://a:1/web"))
        });
        assert!(memory.peak <= 600_000, "{memory:?}");
        for is_good in [read.0.is_ok(), read.1.is_ok()] {
            *(if is_good { &mut good } else { &mut bad }) += 1;
        }
    });
    assert!(good > 100 && bad > 100 || good + bad == 2, "{good} good, {bad} bad");
}
