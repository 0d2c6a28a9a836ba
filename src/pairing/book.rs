//! The target's record of invitations and grants: one document, replaced whole, so that a token
//! is consumed and its grant given in one step.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::proof::{Proof, StoredSecret};
use super::token::{Secret, Token};
use crate::limits::{INVITATIONS_MAX, PAIRINGS_MAX};
use crate::paced::Paced;
use crate::packet::PairingVisit;
use crate::packet::{PAIRING_VERSION, PairingAnswer, PairingRequest, Text, decode_message};
use crate::store;
use crate::words::{Allow, Fingerprint, Right};

/// Which way data may go, as this host sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The peer is the source: its changes are performed here.
    #[default]
    FromPeer,
    /// The peer may read the replica back.
    ToPeer,
}

impl Direction {
    pub fn right(self) -> Right {
        match self {
            Direction::FromPeer => Right::Send,
            Direction::ToPeer => Right::Restore,
        }
    }
}

impl From<Right> for Direction {
    fn from(right: Right) -> Direction {
        match right {
            Right::Send => Direction::FromPeer,
            Right::Restore => Direction::ToPeer,
        }
    }
}

/// A key that may send a replication set, or read it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub peer: Fingerprint,
    pub set_name: String,
    pub direction: Direction,
    pub since_unix_ms: u64,
    /// Where it was when it paired; for people.
    pub address: String,
    /// What it may have beside plain data; `None`: what the target allows everybody.
    #[serde(default)]
    pub allow: Option<Allow>,
}

/// A token that was given out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    pub number: u64,
    pub stored: StoredSecret,
    pub set_name: String,
    pub expires_unix_ms: u64,
    /// The key that used it: it alone may come again.
    pub used_by: Option<Fingerprint>,
    /// Goes into the grant.
    #[serde(default)]
    pub allow: Option<Allow>,
    #[serde(default)]
    pub direction: Direction,
}

/// What is offered to whoever brings the token.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    pub set_name: &'a str,
    /// Where the target can be reached, for people; may be empty.
    pub address: &'a str,
    pub good_for: Duration,
    pub allow: Option<Allow>,
    pub right: Right,
}

/// Why there is no invitation.
#[derive(Debug)]
pub enum InviteError {
    TooMany,
    Io(io::Error),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Document {
    invitations: Vec<Invitation>,
    grants: Vec<Grant>,
}

/// See the module. All calls may come from any thread; only those that change it wait for the disk.
pub struct Book {
    path: PathBuf,
    own: Fingerprint,
    /// Locked for a moment only. Changed under `changing`, which is taken first.
    document: Mutex<Arc<Document>>,
    changing: Mutex<()>,
    refusals: Paced,
}

impl Book {
    /// Reads the book of the target with this key, or begins one.
    pub fn open(path: &Path, own: Fingerprint) -> io::Result<Book> {
        let document: Document = store::read_json(path)?.unwrap_or_default();
        Ok(Book {
            path: path.to_owned(),
            own,
            document: Mutex::new(Arc::new(document)),
            changing: Mutex::new(()),
            refusals: Paced::of_known(),
        })
    }

    /// Makes a token for a set; only its hash is kept.
    pub fn invite(&self, offer: Offer<'_>, now_unix_ms: u64) -> Result<(Token, Invitation), InviteError> {
        let secret = Secret::generate();
        let invitation = Invitation {
            number: secret.number(),
            stored: StoredSecret::of(&secret),
            set_name: offer.set_name.to_owned(),
            expires_unix_ms: now_unix_ms.saturating_add(offer.good_for.as_millis() as u64),
            used_by: None,
            allow: offer.allow,
            direction: offer.right.into(),
        };
        let _changing = self.changing.lock();
        let mut next = Document::clone(&self.now());
        next.invitations.retain(|known| !is_stale(known, now_unix_ms));
        if next.invitations.len() >= INVITATIONS_MAX {
            return Err(InviteError::TooMany);
        }
        next.invitations.push(invitation.clone());
        self.replace(next).map_err(InviteError::Io)?;
        let (set_name, address) = (offer.set_name.to_owned(), offer.address.to_owned());
        Ok((Token { target: self.own, secret, set_name, address }, invitation))
    }

    /// Answers a stranger: checks its proof, and grants what the token says, durably.
    pub fn answer(&self, visit: &PairingVisit, now_unix_ms: u64) -> PairingAnswer {
        let outcome = self.consume(visit, now_unix_ms);
        let (peer, from) = (visit.peer, visit.address);
        match outcome {
            Ok((set_name, direction)) => {
                let may = direction.right().verb();
                log::info!("paired: key {peer} at {from} may {may} '{set_name}'");
                PairingAnswer::Paired
            }
            Err(reason) => {
                let line = format!("refused to pair key {peer} at {from}: {reason}");
                self.refusals.line(Instant::now(), &line).iter().for_each(|line| log::warn!("{line}"));
                PairingAnswer::Refused { reason: Text::from_str_cut(&reason) }
            }
        }
    }

    /// What lets a key send this set, if it may.
    pub fn grant(&self, peer: &Fingerprint, set_name: &str) -> Option<Grant> {
        let is_meant = |grant: &&Grant| is_grant(grant, peer, set_name, Direction::FromPeer);
        self.now().grants.iter().find(is_meant).cloned()
    }

    /// Whether a key may read this set back: whoever may send it, and whoever was invited to.
    pub fn may_read(&self, peer: &Fingerprint, set_name: &str) -> bool {
        let is_meant = |grant: &Grant| grant.peer == *peer && grant.set_name == set_name;
        self.now().grants.iter().any(is_meant)
    }

    /// Everything that some source of this set may have; `usual` where its invitation said nothing, and
    /// where there is none any more.
    pub fn allowed_in(&self, set_name: &str, usual: Allow) -> Allow {
        let document = self.now();
        let of_set = |grant: &&Grant| grant.set_name == set_name && grant.direction == Direction::FromPeer;
        let allowed = document.grants.iter().filter(of_set).map(|grant| grant.allow.unwrap_or(usual));
        allowed.reduce(Allow::or).unwrap_or(usual)
    }

    /// Everything that some source may have, or can be granted by a token that is out.
    pub fn allowed_to_anyone(&self, now_unix_ms: u64) -> Allow {
        let grants = self.grants().into_iter().filter_map(|grant| grant.allow);
        let invitations = self.invitations(now_unix_ms).into_iter().filter_map(|known| known.allow);
        grants.chain(invitations).fold(Allow::NOTHING, Allow::or)
    }

    /// Whether a key may send any set, or read it.
    pub fn knows(&self, peer: &Fingerprint) -> bool {
        self.now().grants.iter().any(|grant| grant.peer == *peer)
    }

    pub fn grants(&self) -> Vec<Grant> {
        self.now().grants.clone()
    }

    /// Invitations that can still be used, and used ones that are not yet forgotten.
    pub fn invitations(&self, now_unix_ms: u64) -> Vec<Invitation> {
        let document = self.now();
        document.invitations.iter().filter(|known| now_unix_ms < known.expires_unix_ms).cloned().collect()
    }

    /// Takes grants away, with the tokens that they came from; gives those that were there.
    pub fn revoke(&self, is_meant: impl Fn(&Grant) -> bool) -> io::Result<Vec<Grant>> {
        let _changing = self.changing.lock();
        let document = self.now();
        let (revoked, grants): (Vec<_>, Vec<_>) = document.grants.clone().into_iter().partition(is_meant);
        let gone = |known: &Invitation| {
            revoked.iter().any(|grant| known.used_by == Some(grant.peer) && known.set_name == grant.set_name)
        };
        let mut invitations = document.invitations.clone();
        invitations.retain(|known| !gone(known));
        self.replace(Document { invitations, grants })?;
        Ok(revoked)
    }

    fn consume(&self, visit: &PairingVisit, now_unix_ms: u64) -> Result<(String, Direction), String> {
        let request: PairingRequest = decode_message(&visit.request).map_err(|error| error.to_string())?;
        if request.version != PAIRING_VERSION {
            return Err("the other side has another version of pairing: update the older one".into());
        }
        let set_name = request.set_name.to_text();
        let _changing = self.changing.lock();
        let mut next = Document::clone(&self.now());
        let known = next.invitations.iter_mut().find(|known| known.number == request.token);
        let proof =
            Proof { binding: &visit.binding, source: visit.peer, target: self.own, set_name: &set_name };
        // One answer for a token that was never there and for one that is not proved.
        let known = known
            .filter(|known| known.set_name == set_name && proof.holds(&known.stored, &request.proof))
            .ok_or("this target knows no such token: make a new one with `standin invite`")?;
        if known.used_by.is_some_and(|user| user != visit.peer) {
            return Err("the token was used by another host: make a new one with `standin invite`".into());
        }
        if now_unix_ms >= known.expires_unix_ms {
            return Err("the token has expired: make a new one with `standin invite`".into());
        }
        known.used_by = Some(visit.peer);
        let (allow, direction, granted) = (known.allow, known.direction, next.grants.len());
        match next.grants.iter_mut().find(|grant| is_grant(grant, &visit.peer, &set_name, direction)) {
            // The latest token counts.
            Some(grant) => grant.allow = allow,
            None if granted >= PAIRINGS_MAX => {
                return Err("this target has as many pairings as it can: revoke some".into());
            }
            None => next.grants.push(Grant {
                peer: visit.peer,
                set_name: set_name.clone(),
                direction,
                since_unix_ms: now_unix_ms,
                address: visit.address.to_string(),
                allow,
            }),
        }
        self.replace(next)
            .map_err(|error| format!("the target cannot write its record of pairings: {error}"))?;
        Ok((set_name, direction))
    }

    /// Persist, then publish.
    fn replace(&self, next: Document) -> io::Result<()> {
        store::replace_json(&self.path, &next)?;
        *self.document.lock() = Arc::new(next);
        Ok(())
    }

    fn now(&self) -> Arc<Document> {
        self.document.lock().clone()
    }
}

fn is_grant(grant: &Grant, peer: &Fingerprint, set_name: &str, direction: Direction) -> bool {
    grant.peer == *peer && grant.set_name == set_name && grant.direction == direction
}

/// Expired for a day: until then its user hears what is wrong with it.
fn is_stale(invitation: &Invitation, now_unix_ms: u64) -> bool {
    const DAY_MS: u64 = 86_400_000;
    now_unix_ms >= invitation.expires_unix_ms.saturating_add(DAY_MS)
}
