//! What each request does: the one table of what only looks and what changes something. A request that is not in
//! it does not compile.

use super::clones::{CloneRequest, ClonesRequest};
use super::message::{CallSource, ConnectionChange, Request, StopMode};
use super::orphans::OrphansRequest;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// It changes nothing, and costs little.
    Looks,
    /// In the words of the command line.
    Does(String),
    /// The same, again and again: no event each time.
    Serves(&'static str),
}

impl Deed {
    pub fn of(request: &Request) -> Deed {
        let does = |words: &str| Deed::Does(words.to_owned());
        match request {
            Request::Status => Deed::Looks,
            Request::WaitSync { .. } => Deed::Looks,
            Request::Files { .. } => Deed::Looks,
            Request::Configuration => Deed::Looks,
            Request::Pairings => Deed::Looks,
            Request::Foresee => Deed::Looks,
            Request::Events { .. } => Deed::Looks,
            Request::History => Deed::Looks,
            Request::Marker { marker } => does(&format!("marker {}", marker.name)),
            Request::Attend { .. } => Deed::Serves("markers run"),
            Request::Stop { mode: StopMode::Orderly } => does("stop"),
            Request::Stop { mode: StopMode::Covered } => does("switch"),
            Request::Stop { mode: StopMode::Now } => does("stop --now"),
            Request::Upgrade { upgrade } if upgrade.dry_run => does("upgrade --dry-run"),
            Request::Upgrade { .. } => does("upgrade"),
            Request::Connection { change, which } => {
                let which = which.as_deref().unwrap_or_default();
                does(format!("{} {which}", change_words(change)).trim_end())
            }
            // It reads both disks to their ends, and its outcome is kept.
            Request::Verify { verify } => does(if verify.repair { "verify --repair" } else { "verify" }),
            Request::Orphans { orphans: OrphansRequest { remove: None, .. } } => Deed::Looks,
            Request::Orphans { orphans: OrphansRequest { remove: Some(_), .. } } => does("orphans remove"),
            Request::Clones { clones: ClonesRequest { what, .. } } => match what {
                CloneRequest::List => Deed::Looks,
                CloneRequest::Start { name, .. } => does(&format!("clone start {name}")),
                CloneRequest::Copy { name, .. } => does(&format!("clone copy {name}")),
                CloneRequest::Stop { name, .. } => does(&format!("clone stop {name}")),
            },
            Request::CallSource { call: CallSource { end_silent_for_ms: None, .. } } => Deed::Looks,
            Request::CallSource { call } => does(&format!("failover {}", call.replica)),
            Request::Rules => does("set change"),
            Request::Reload => does("reload"),
            Request::Invite { invite } => does(&format!("invite {}", invite.set_name)),
            Request::Revoke { revoke } => does(&format!("peers revoke {}", revoke.fingerprint)),
        }
    }

    /// Of what only looks there are none.
    pub fn words(&self) -> &str {
        match self {
            Deed::Looks => "",
            Deed::Does(words) => words,
            Deed::Serves(words) => words,
        }
    }
}

fn change_words(change: &ConnectionChange) -> &'static str {
    match change {
        ConnectionChange::Add { .. } => "connection add",
        ConnectionChange::Start => "connection start",
        ConnectionChange::Stop => "connection stop",
        ConnectionChange::StopReplication => "replication stop",
        ConnectionChange::StartReplication => "replication start",
        ConnectionChange::Pause => "connection pause",
        ConnectionChange::Resume => "connection resume",
        ConnectionChange::AcceptDeletes => "connection resume --accept-deletes",
        ConnectionChange::Disconnect => "connection disconnect",
        ConnectionChange::StartMirror { .. } => "mirror start",
        ConnectionChange::Merge => "merge",
        ConnectionChange::StopMirror { .. } => "mirror stop",
        ConnectionChange::PauseMirror => "mirror pause",
        ConnectionChange::ResumeMirror { .. } => "mirror resume",
        ConnectionChange::Schedule { .. } => "connection schedule",
        ConnectionChange::Limit { .. } => "connection limit",
        ConnectionChange::Compression { .. } => "connection compression",
    }
}
