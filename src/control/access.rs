//! Who may ask a daemon for what: by the credentials of whoever has connected, as the kernel states them.
//!
//! ```text
//!  root, the daemon's own user        everything
//!  group standin-admin                everything
//!  group standin-monitor              what changes nothing ([`Deed::Looks`])
//!  others                             not even that: they cannot connect
//! ```
//! The groups count for daemons of root alone. They are looked up in `/etc/group` when the daemon starts, because
//! one that gives up its rights cannot read it later; who is in them is said by the credentials of each process. A
//! group that is not there gives nobody anything.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::deed::Deed;
use crate::failure::Failure;
use crate::sys::Peer;

pub const ADMIN_GROUP: &str = "standin-admin";
pub const MONITOR_GROUP: &str = "standin-monitor";

/// What a caller may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Access {
    Nothing,
    Looking,
    All,
}

/// Who may what, as of the start of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rights {
    own_uid: u32,
    admins: Option<u32>,
    monitors: Option<u32>,
    /// Names of users, for events.
    users: BTreeMap<u32, String>,
}

static OF_PROCESS: OnceLock<Rights> = OnceLock::new();

/// To be called by a daemon that gives up its rights before its control socket is served.
pub fn know_groups() {
    let _ = Rights::of_process();
}

impl Rights {
    /// Of this process, by the files of the host as they were when it was asked first.
    pub fn of_process() -> Rights {
        OF_PROCESS.get_or_init(Rights::read).clone()
    }

    fn read() -> Rights {
        let own_uid = rustix::process::geteuid().as_raw();
        let groups = std::env::var_os("STANDIN_GROUP_FILE").map(PathBuf::from);
        let groups = fs::read_to_string(groups.as_deref().unwrap_or(Path::new("/etc/group")));
        let users = fs::read_to_string("/etc/passwd");
        Rights::by(own_uid, &groups.unwrap_or_default(), &users.unwrap_or_default())
    }

    fn by(own_uid: u32, groups: &str, users: &str) -> Rights {
        let numbers = numbers(groups);
        let group = |name: &str| numbers.iter().find(|(known, _)| known == name).map(|(_, number)| *number);
        // Group 0 is root's own: nobody gets root's rights by a line that says otherwise.
        let group = |name: &str| group(name).filter(|&number| own_uid == 0 && number != 0);
        let users = self::numbers(users).into_iter().rev().map(|(name, number)| (number, name)).collect();
        Rights { own_uid, admins: group(ADMIN_GROUP), monitors: group(MONITOR_GROUP), users }
    }

    /// The groups that may connect.
    pub fn groups(&self) -> impl Iterator<Item = u32> {
        self.admins.into_iter().chain(self.monitors)
    }

    pub fn of(&self, peer: &Peer) -> Access {
        let is_in = |group: Option<u32>| group.is_some_and(|group| peer.groups.contains(&group));
        match () {
            () if peer.uid == 0 || peer.uid == self.own_uid => Access::All,
            () if is_in(self.admins) => Access::All,
            () if is_in(self.monitors) => Access::Looking,
            () => Access::Nothing,
        }
    }

    /// As people know a user.
    pub fn user(&self, uid: u32) -> String {
        match self.users.get(&uid) {
            Some(name) if uid == 0 => name.clone(),
            Some(name) => format!("user {uid} ({name})"),
            None => format!("user {uid}"),
        }
    }

    /// Why this user gets no answer at all.
    pub fn shut_out(&self, uid: u32) -> Failure {
        let who = match self.own_uid {
            0 => format!("root and members of the groups {ADMIN_GROUP} and {MONITOR_GROUP}"),
            own => format!("root and {}", self.user(own)),
        };
        Failure::new(
            format!("The {} may not control this daemon: only {who} may.", self.user(uid)),
            "The daemon goes on as before.",
            "Ask as one of them.",
        )
    }
}

impl Access {
    /// Errors: it is not for this caller.
    pub fn may(self, deed: &Deed, user: &str) -> Result<(), Failure> {
        match (self, deed) {
            (Access::All, _) | (Access::Looking, Deed::Looks) => Ok(()),
            (Access::Nothing | Access::Looking, _) => Err(Failure::new(
                format!(
                    "The {user} may look, and change nothing: `standin {}` is for root and members of the group \
                     {ADMIN_GROUP}.",
                    deed.words()
                ),
                "Nothing was changed.",
                "Ask one of them.",
            )),
        }
    }
}

/// Names and numbers of lines as in `passwd(5)` and `group(5)`: the third field.
fn numbers(text: &str) -> Vec<(String, u32)> {
    let line = |line: &str| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        Some((name.to_owned(), number.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: &str = "root:x:0:\nstandin-admin:x:700:ann\nstandin-monitor:x:701:\nusers:x:100:\n";
    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:100::/home/ann:/bin/sh\nbroken\n";

    fn access(own_uid: u32, groups: &str, uid: u32, member: &[u32]) -> Access {
        let peer = Peer { pid: 1, uid, groups: member.to_vec() };
        Rights::by(own_uid, groups, USERS).of(&peer)
    }

    #[test]
    fn groups_say_who_may_what() {
        use Access::{All, Looking, Nothing};
        let rootish = "standin-admin:x:0:\nstandin-monitor:x:0:\n";
        let broken = "standin-admin\nstandin-monitor:x:many:\n";
        for (own, groups, uid, member, expected) in [
            (0, GROUPS, 0, &[][..], All),
            (0, GROUPS, 1000, &[700], All),
            (0, GROUPS, 1000, &[100, 701, 700], All),
            (0, GROUPS, 1000, &[100, 701], Looking),
            (0, GROUPS, 1000, &[100], Nothing),
            (0, GROUPS, 1000, &[], Nothing),
            // Groups that are not there.
            (0, "root:x:0:\n", 1000, &[700, 701, 0], Nothing),
            (0, broken, 1000, &[700, 701, 0], Nothing),
            (0, rootish, 1000, &[0], Nothing),
            // A daemon of a user is that user's.
            (1000, GROUPS, 1000, &[], All),
            (1000, GROUPS, 1001, &[700, 701], Nothing),
            (1000, GROUPS, 0, &[], All),
        ] {
            assert_eq!(access(own, groups, uid, member), expected, "{own} {uid} {member:?} {groups}");
        }
    }

    #[test]
    fn users_are_named() {
        let rights = Rights::by(0, GROUPS, USERS);
        assert_eq!(rights.user(0), "root");
        assert_eq!(rights.user(1000), "user 1000 (ann)");
        assert_eq!(rights.user(4711), "user 4711");
        let stop = Deed::Does("stop".into());
        let refused = Access::Looking.may(&stop, &rights.user(1000)).unwrap_err().to_string();
        assert!(refused.contains("`standin stop` is for root") && refused.contains("Nothing was changed"));
        assert!(Access::Looking.may(&Deed::Looks, "ann").is_ok() && Access::All.may(&stop, "ann").is_ok());
    }
}
