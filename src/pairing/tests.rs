//! Tokens, proofs and grants, also against strangers that cheat.

use std::time::Duration;

use super::*;
use crate::link::Identity;
use crate::packet::PairingVisit;
use crate::packet::{PAIRING_VERSION, PairingAnswer, PairingRequest, Text, encode_message};
use crate::words::{Allow, Fingerprint, Right};

const HOUR: Duration = Duration::from_secs(3600);

struct Ground {
    dir: tempfile::TempDir,
    own: Fingerprint,
    book: Book,
}

impl Ground {
    fn new() -> Ground {
        let dir = tempfile::tempdir().unwrap();
        let own = Identity::generate().fingerprint();
        let book = Book::open(&dir.path().join("book.json"), own).unwrap();
        Ground { dir, own, book }
    }

    fn read_again(&mut self) {
        self.book = Book::open(&self.dir.path().join("book.json"), self.own).unwrap();
    }

    fn token(&self, set_name: &str) -> Token {
        self.token_with(set_name, None)
    }

    fn token_with(&self, set_name: &str, allow: Option<Allow>) -> Token {
        self.book
            .invite(Offer { set_name, address: "", good_for: HOUR, allow, right: Right::Send }, 0)
            .unwrap()
            .0
    }
}

fn visit(peer: Fingerprint, token: &Token, binding: [u8; 32]) -> PairingVisit {
    let (target, set_name) = (token.target, token.set_name.as_str());
    let proof = Proof { binding: &binding, source: peer, target, set_name }.make(&token.secret);
    let request = PairingRequest {
        version: PAIRING_VERSION,
        token: token.secret.number(),
        set_name: Text::from_str_cut(set_name),
        proof,
    };
    let request = encode_message(&request)[4..].to_vec();
    PairingVisit { peer, address: ([192, 0, 2, 1], 1).into(), binding, request }
}

fn key() -> Fingerprint {
    Identity::generate().fingerprint()
}

#[track_caller]
fn refused(answer: PairingAnswer, word: &str) {
    match answer {
        PairingAnswer::Refused { reason } if reason.to_text().contains(word) => {}
        other => panic!("{other:?} instead of a refusal with '{word}'"),
    }
}

#[test]
fn a_token_comes_back_from_its_text_and_slips_are_found() {
    let token = Token {
        target: key(),
        secret: Secret::generate(),
        set_name: "wörk-1".into(),
        address: "[2001:db8::1]:7447".into(),
    };
    let text = token.to_string();
    assert_eq!(text.parse(), Ok(token.clone()));
    assert_eq!(format!(" {}\n", text.to_uppercase()).parse(), Ok(token.clone()));
    let start = "standin1-".len();
    for at in start..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        let slip = String::from_utf8(bytes).unwrap();
        assert_eq!(slip.parse::<Token>(), Err(BadToken::Mistyped), "{slip}");
    }
    assert_eq!(text[..text.len() - 1].parse::<Token>(), Err(BadToken::Mistyped));
    assert_eq!(format!("{text}0").parse::<Token>(), Err(BadToken::Mistyped));
    assert_eq!("standin1-".parse::<Token>(), Err(BadToken::Mistyped));
    assert_eq!(text.replace("standin1", "standin2").parse::<Token>(), Err(BadToken::OtherVersion));
    assert_eq!("hello".parse::<Token>(), Err(BadToken::NotAToken));
    assert!(!format!("{token:?}").contains(&format!("{:?}", token.secret.number())));
}

#[test]
fn a_token_pairs_one_key_with_one_set_and_survives_a_restart() {
    let mut ground = Ground::new();
    let (token, source) = (ground.token("web"), key());
    assert!(!ground.book.knows(&source) && ground.book.grant(&source, "web").is_none());
    assert_eq!(ground.book.answer(&visit(source, &token, [1; 32]), 5), PairingAnswer::Paired);
    ground.read_again();
    assert!(ground.book.knows(&source) && ground.book.grant(&source, "web").is_some());
    assert!(ground.book.grant(&source, "other").is_none() && ground.book.grant(&key(), "web").is_none());
    // The answer was lost: the same key comes again, another one does not.
    assert_eq!(ground.book.answer(&visit(source, &token, [2; 32]), 6), PairingAnswer::Paired);
    assert_eq!(ground.book.grants().len(), 1);
    refused(ground.book.answer(&visit(key(), &token, [3; 32]), 7), "used by another");
}

#[test]
fn a_proof_is_good_in_its_own_session_only() {
    let ground = Ground::new();
    let (token, source) = (ground.token("web"), key());
    let seen = visit(source, &token, [1; 32]);
    let replayed =
        |peer, binding| PairingVisit { peer, address: seen.address, binding, request: seen.request.clone() };
    refused(ground.book.answer(&replayed(source, [2; 32]), 0), "no such token");
    refused(ground.book.answer(&replayed(key(), [1; 32]), 0), "no such token");
    let other_set = Token { set_name: "other".into(), ..token.clone() };
    refused(ground.book.answer(&visit(source, &other_set, [1; 32]), 0), "no such token");
    let guessed = Token { secret: Secret::generate(), ..token.clone() };
    refused(ground.book.answer(&visit(source, &guessed, [1; 32]), 0), "no such token");
    let junk = PairingVisit { request: vec![0xff; 100], ..replayed(source, [1; 32]) };
    refused(ground.book.answer(&junk, 0), "");
    assert!(ground.book.grants().is_empty());
    assert_eq!(ground.book.answer(&seen, 0), PairingAnswer::Paired);
}

#[test]
fn an_expired_token_is_refused_with_the_reason() {
    let ground = Ground::new();
    let (token, source) = (ground.token("web"), key());
    let end = HOUR.as_millis() as u64;
    refused(ground.book.answer(&visit(source, &token, [1; 32]), end), "expired");
    assert_eq!(ground.book.answer(&visit(source, &token, [1; 32]), end - 1), PairingAnswer::Paired);
    refused(ground.book.answer(&visit(source, &token, [1; 32]), end), "expired");
}

#[test]
fn what_is_revoked_does_not_come_back_with_the_old_token() {
    let mut ground = Ground::new();
    let (token, source) = (ground.token("web"), key());
    let kept = ground.token("other");
    for token in [&token, &kept] {
        assert_eq!(ground.book.answer(&visit(source, token, [1; 32]), 0), PairingAnswer::Paired);
    }
    let revoked = ground.book.revoke(|grant| grant.peer == source && grant.set_name == "web").unwrap();
    assert_eq!(revoked.len(), 1);
    ground.read_again();
    assert!(ground.book.grant(&source, "web").is_none() && ground.book.grant(&source, "other").is_some());
    refused(ground.book.answer(&visit(source, &token, [1; 32]), 0), "no such token");
}

#[test]
fn the_record_holds_no_secret() {
    let ground = Ground::new();
    let token = ground.token("web");
    let path = ground.dir.path().join("book.json");
    let text: String = std::fs::read_to_string(&path).unwrap().split_whitespace().collect();
    let as_list = |bytes: &[u8]| format!("{bytes:?}").replace(' ', "");
    assert!(!text.contains(as_list(&token.secret.key()).trim_matches(['[', ']'])));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_source_knows_its_targets_by_what_was_typed() {
    let dir = tempfile::tempdir().unwrap();
    let known = Known::in_state(dir.path());
    assert_eq!(known.get("standin://a:1/web").unwrap(), None);
    let target = KnownTarget { fingerprint: key(), since_unix_ms: 7 };
    known.put("standin://a:1/web", target.clone()).unwrap();
    known.put("standin://b:1/web", KnownTarget { fingerprint: key(), since_unix_ms: 8 }).unwrap();
    assert_eq!(known.get("standin://a:1/web").unwrap(), Some(target));
}

#[test]
fn what_a_source_may_have_is_said_by_its_token() {
    let mut ground = Ground::new();
    let peer = key();
    let pair = |ground: &Ground, allow| {
        let token = ground.token_with("web", allow);
        assert_eq!(ground.book.answer(&visit(peer, &token, [1; 32]), 0), PairingAnswer::Paired);
    };
    let allowed = |ground: &Ground| ground.book.grant(&peer, "web").unwrap().allow;
    pair(&ground, None);
    assert_eq!(allowed(&ground), None);
    let device = Allow { device: true, ..Allow::NOTHING };
    ground.token_with("mail", Some(Allow { setuid: true, ..Allow::NOTHING }));
    pair(&ground, Some(device));
    assert_eq!(allowed(&ground), Some(device), "the latest token counts");
    ground.read_again();
    assert_eq!(allowed(&ground), Some(device));
    assert_eq!(ground.book.allowed_to_anyone(0), Allow { setuid: true, ..device });
    let later = HOUR.as_millis() as u64 + 1;
    assert_eq!(ground.book.allowed_to_anyone(later), device, "an expired token grants nothing");
    pair(&ground, Some(Allow::NOTHING));
    assert_eq!(allowed(&ground), Some(Allow::NOTHING));
}

#[test]
fn a_book_of_an_older_version_is_read() {
    let ground = Ground::new();
    let peer = key();
    let old = serde_json::json!({ "invitations": [], "grants": [{
        "peer": peer.to_string(), "set_name": "web", "direction": "from_peer", "since_unix_ms": 1, "address": "x",
    }] });
    let path = ground.dir.path().join("old.json");
    std::fs::write(&path, old.to_string()).unwrap();
    let book = Book::open(&path, ground.own).unwrap();
    assert_eq!(book.grant(&peer, "web").unwrap().allow, None);
}

/// Reading is a right of its own: it gives nothing else, is nobody's by default, and can be taken away.
#[test]
fn who_may_read_may_not_send_and_who_may_send_may_read() {
    let mut ground = Ground::new();
    let (reader, source, stranger) = (key(), key(), key());
    let offer = Offer { set_name: "web", address: "", good_for: HOUR, allow: None, right: Right::Restore };
    let to_read = ground.book.invite(offer, 0).unwrap().0;
    assert_eq!(ground.book.answer(&visit(reader, &to_read, [1; 32]), 1), PairingAnswer::Paired);
    assert_eq!(ground.book.answer(&visit(source, &ground.token("web"), [1; 32]), 1), PairingAnswer::Paired);
    ground.read_again();
    let book = &ground.book;
    let may = |key: &Fingerprint, set: &str| (book.grant(key, set).is_some(), book.may_read(key, set));
    assert_eq!(may(&reader, "web"), (false, true));
    assert_eq!(may(&source, "web"), (true, true));
    assert_eq!((may(&stranger, "web"), may(&source, "other")), ((false, false), (false, false)));
    // A second token adds the other right, and both go at once.
    assert_eq!(book.answer(&visit(reader, &ground.token("web"), [1; 32]), 1), PairingAnswer::Paired);
    assert_eq!(may(&reader, "web"), (true, true));
    assert_eq!(book.revoke(|grant| grant.peer == reader).unwrap().len(), 2);
    assert_eq!(may(&reader, "web"), (false, false));
}
