//! `standin invite` and `standin peers` on a target, `standin pair` on a source.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::args::{Common, Invite, Pair, Peers, PeersCommand};
use super::find::{find_role, no_answer};
use super::serve::allow;
use super::{Outcome, output};
use crate::control::{self, Paired, Revoke, RoleName, unix_ms};
use crate::failure::Failure;
use crate::limits::INVITATION_TIME_MAX;
use crate::link::{Dial, Identity, visit_desk};
use crate::packet::{PAIRING_VERSION, PairingAnswer, PairingRequest, Text, decode_message, encode_message};
use crate::pairing::{Known, KnownTarget, Proof, TOKEN_TEXT_MAX, Token};
use crate::source_side::resolve;
use crate::units;
use crate::words::{Allow, Fingerprint, Right, Target};

const UNTOUCHED: &str = "Nothing was changed.";

/// The token alone goes to standard output, for scripts; the rest is for people.
pub(super) fn invite(common: &Common, args: &Invite) -> Outcome {
    if args.expires.is_zero() || args.expires > INVITATION_TIME_MAX {
        return Err(Failure::new(
            format!("No token can be good for {}.", units::duration(args.expires)),
            UNTOUCHED,
            format!(
                "Give --expires more than nothing, and {} at most.",
                units::duration(INVITATION_TIME_MAX)
            ),
        ));
    }
    let found = find_role(common, args.name.as_deref(), RoleName::Target)?;
    let invite = control::Invite {
        set_name: args.repset.clone(),
        address: args.address.clone().unwrap_or_default(),
        good_for_ms: args.expires.as_millis() as u64,
        allow: Some(allow(&args.allow)).filter(|_| !args.allow.is_empty()),
        right: if args.restore { Right::Restore } else { Right::Send },
    };
    let invited = found.client()?.invite(invite).map_err(|error| no_answer(&found.status.name, &error))?;
    if common.json {
        output::json(&invited);
        return Ok(0);
    }
    output::text(&invited.token);
    let place = args.address.clone().unwrap_or_else(|| "HOST:PORT".into());
    let whom = if args.restore { "On the host that restores" } else { "On the source" };
    aside!(
        "Good once, for {}. {whom}, with this token on standard input:\n    standin pair \
         standin://{place}/{}\nThis target listens on {} with the key {}.",
        units::duration(args.expires),
        invited.set_name,
        invited.listening,
        invited.fingerprint
    );
    if invited.after_restart != Allow::NOTHING {
        aside!("{}", needs_restart(invited.after_restart));
    }
    Ok(0)
}

pub(super) fn peers(common: &Common, args: &Peers) -> Outcome {
    let found = find_role(common, args.name.as_deref(), RoleName::Target)?;
    let mut client = found.client()?;
    let failed = |error| no_answer(&found.status.name, &error);
    match &args.command {
        PeersCommand::List => {
            let pairings = client.pairings().map_err(failed)?;
            show(common, "pairings", &pairings, "No source is paired with this target.");
        }
        PeersCommand::Revoke { fingerprint, repset } => {
            let revoke = Revoke { fingerprint: fingerprint.clone(), set_name: repset.clone() };
            let revoked = client.revoke(revoke).map_err(failed)?;
            show(common, "revoked", &revoked, "");
        }
    }
    Ok(0)
}

fn show(common: &Common, what: &str, pairings: &[Paired], none: &str) {
    if common.json {
        return output::json(&json!({ what: pairings }));
    }
    if pairings.is_empty() {
        return output::text(none);
    }
    let now = unix_ms(SystemTime::now());
    for paired in pairings {
        let mark = if what == "revoked" { "revoked: " } else { "" };
        output::text(&format!("{mark}{}", line(paired, now)));
    }
}

pub(super) fn line(paired: &Paired, now_unix_ms: u64) -> String {
    let Paired { fingerprint, set_name, right, since_unix_ms, address, allow, .. } = paired;
    let age = units::duration(Duration::from_millis(now_unix_ms.saturating_sub(*since_unix_ms)));
    let rule = if paired.by_default { "as serve allows" } else { "by its invitation" };
    let paired_since =
        format!("{fingerprint}  may {} '{set_name}', paired {age} ago from {address}", right.verb());
    if *right == Right::Restore {
        return paired_since;
    }
    let mut text = format!("{paired_since}; beside plain data: {allow} ({rule})");
    if paired.after_restart != Allow::NOTHING {
        text += &format!(". {}", needs_restart(paired.after_restart));
    }
    text
}

fn needs_restart(what: Allow) -> String {
    format!(
        "Not yet: {what}. This daemon gave up the right to that when it started; start `standin serve` again."
    )
}

pub(super) fn pair(common: &Common, args: &Pair) -> Outcome {
    let Target::Remote { host, port, repset } = &args.target else {
        return Err(Failure::new(
            format!("{} needs no pairing: it is on this host.", args.target),
            UNTOUCHED,
            "Name a target on another host, as in standin://host:7447/repset.",
        ));
    };
    let token = read_token(args.token_file.as_deref())?;
    if token.set_name != *repset {
        return Err(Failure::new(
            format!("The token is for the set '{}', not for '{repset}'.", token.set_name),
            UNTOUCHED,
            format!("Use standin://{host}:{port}/{}, or another token.", token.set_name),
        ));
    }
    let state = common.state_dir();
    let in_state = |error: io::Error| {
        Failure::new(
            format!("The state in {} cannot be used: {error}.", state.display()),
            UNTOUCHED,
            "Run it as the user of the daemon (root), or choose another place with --state.",
        )
    };
    let identity = Arc::new(Identity::load_or_create(&state).map_err(in_state)?);
    if identity.fingerprint() == token.target {
        return Err(with_itself(&args.target, &state));
    }
    exchange(host, *port, &token, &identity).map_err(|why| match why {
        NotPaired::Refused(why) => Failure::new(
            format!("{} did not pair: {why}.", args.target),
            UNTOUCHED,
            "Do what it says; the log of `standin serve` on the target has the same line.",
        ),
        NotPaired::NotAsked(why) => Failure::new(
            format!("{} did not pair: {why}.", args.target),
            "The target is as it was before, as far as is known here; the same token may be tried again.",
            format!("Check the address; `standin serve` has to run there, and UDP port {port} to be open."),
        ),
    })?;
    let known = KnownTarget { fingerprint: token.target, since_unix_ms: unix_ms(SystemTime::now()) };
    Known::in_state(&state).put(&args.target.to_string(), known).map_err(in_state)?;
    let own = identity.fingerprint();
    if common.json {
        output::json(&json!({
            "paired": args.target.to_string(), "target_fingerprint": token.target, "fingerprint": own,
        }));
    } else {
        output::text(&format!(
            "Paired with {}.\n  its key   {}\n  our key   {own}",
            args.target, token.target
        ));
    }
    Ok(0)
}

/// Both ends with one key: nobody could tell them apart, and revoking one would cut off the other.
fn with_itself(target: &Target, state: &Path) -> Failure {
    Failure::new(
        format!(
            "This host's key is the one that the token names: {target} would be paired with itself. This is the target's \
             own host, or its state in {} was copied from there.",
            state.display()
        ),
        "Nothing was changed, and the token is still good.",
        "Run `standin pair` on the source's host. For a replica on this very host: `standin protect DIR --to \
         local:REPLICA`, without pairing. On a copy of the target's host, give it a key of its own first: remove \
         identity.key from that state.",
    )
}

/// From a file, or from standard input: never from the command line, which others can see.
fn read_token(file: Option<&Path>) -> Result<Token, Failure> {
    let mut bytes = Vec::new();
    let limit = TOKEN_TEXT_MAX as u64 + 1;
    let (from, read) = match file {
        Some(path) => (
            path.display().to_string(),
            std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)),
        ),
        None => ("standard input".into(), io::stdin().lock().take(limit).read_to_end(&mut bytes)),
    };
    let unreadable = |why: String| {
        Failure::new(
            format!("No token could be read from {from}: {why}."),
            UNTOUCHED,
            "Give it what `standin invite` printed on the target, all of it.",
        )
    };
    read.map_err(|error| unreadable(error.to_string()))?;
    String::from_utf8_lossy(&bytes)
        .parse()
        .map_err(|bad: crate::pairing::BadToken| unreadable(bad.to_string()))
}

/// Why there is no pairing.
enum NotPaired {
    /// The target said no.
    Refused(String),
    /// The target did not answer, or not in a way that could be understood.
    NotAsked(String),
}

/// Tries the addresses of the target one after the other; the first that answers decides.
fn exchange(host: &str, port: u16, token: &Token, identity: &Arc<Identity>) -> Result<(), NotPaired> {
    let mut last = String::new();
    for address in resolve(host, port).map_err(NotPaired::NotAsked)? {
        let dial = Dial::new(address, token.target, identity.clone());
        match visit_desk(&dial, |binding| request(token, identity.fingerprint(), binding)) {
            Ok(answer) => {
                return match decode_message(&answer)
                    .map_err(|error| NotPaired::NotAsked(error.to_string()))?
                {
                    PairingAnswer::Paired => Ok(()),
                    PairingAnswer::Refused { reason } => Err(NotPaired::Refused(reason.to_text())),
                };
            }
            Err(why) => last = why,
        }
    }
    Err(NotPaired::NotAsked(last))
}

fn request(token: &Token, own: Fingerprint, binding: &[u8; 32]) -> Vec<u8> {
    let proof = Proof { binding, source: own, target: token.target, set_name: &token.set_name };
    let request = PairingRequest {
        version: PAIRING_VERSION,
        token: token.secret.number(),
        set_name: Text::from_str_cut(&token.set_name),
        proof: proof.make(&token.secret),
    };
    // Without the length: the request is the whole of its stream.
    encode_message(&request).split_off(4)
}
