//! What `standin failback` has found, and what is to be typed.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde_json::json;

use super::super::args::Common;
use super::super::output;
use super::super::switch::changes;
use super::Found;
use crate::failover::failback::{KnownBy, Missing};

/// What is typed on the old host, and here, in this order. Paths there are taken to be those of here.
fn commands(found: &Found) -> (Vec<String>, Vec<String>) {
    let name = found.replica.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_else(|| found.name.clone());
    // What was the source's is often where programs have the data now.
    let parent = found.at.parent().filter(|_| found.at.file_name() == found.replica.file_name());
    let parent =
        parent.map_or_else(|| "PARENT-OF-ITS-DIRECTORY".into(), |parent| parent.display().to_string());
    let serve = format!("standin serve --root {parent} --adopt");
    let target = || format!("standin://{}:7447/{name}", old_host(found.last_seen));
    let pairing = |target: &str| {
        vec![format!("standin pair {target} < token     (the token is what `standin invite` has printed)")]
    };
    match (&found.missing, &found.home) {
        (None | Some(Missing::Copy(_)), _) => (Vec::new(), Vec::new()),
        (Some(Missing::Connection(_)), Some((home, _))) if home.key.is_some() => (vec![serve], Vec::new()),
        (Some(Missing::Connection(_)), Some((home, _))) => {
            (vec![serve, format!("standin invite {name}")], pairing(&home.target))
        }
        (Some(_), _) => {
            let mut here = pairing(&target());
            here.push(format!("standin connection add {} {}", target(), found.name));
            (vec![serve, format!("standin invite {name}")], here)
        }
    }
}

/// As it is written in a target. Under which port its target daemon will be nobody knows here.
fn old_host(last_seen: Option<IpAddr>) -> String {
    match last_seen {
        None => "OLD-HOST".into(),
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => format!("[{address}]"),
    }
}

pub(super) fn say(common: &Common, found: &Found) {
    match common.json {
        true => output::json(&document(found)),
        false => output::text(&text(found)),
    }
}

fn document(found: &Found) -> serde_json::Value {
    let (there, here) = commands(found);
    let missing = found.missing.as_ref().map(|missing| match missing {
        Missing::Target => "target",
        Missing::Connection(_) => "connection",
        Missing::Copy(_) => "copy",
    });
    json!({
        "set": found.name,
        "ready": found.missing.is_none(),
        "missing": missing,
        "home": found.home.as_ref().map(|(home, _)| home.target.as_str()),
        "known_by": found.home.as_ref().map(|(_, by)| match by {
            KnownBy::Name => "name",
            KnownBy::Key => "key",
            KnownBy::Only => "only",
        }),
        "epoch": found.epoch,
        "only_there": found.only_there,
        "progress": found.progress,
        "there": there,
        "here": here,
        "returns_to": found.returns_to,
    })
}

/// For people.
pub(super) fn text(found: &Found) -> String {
    let verdict = if found.missing.is_none() { "can be done" } else { "NOT YET" };
    let mut text = format!("Failback of {}: {verdict}; nothing was changed yet.\n", found.name);
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<10} {value}");
    };
    line("epoch", &format!("{}, of this stand-in", found.epoch));
    match &found.home {
        Some((home, by)) => {
            let why = match by {
                KnownBy::Name => "named with --target",
                KnownBy::Key => "its key has sent the set here before",
                KnownBy::Only => "the only target; that it was the source before is not known here",
            };
            line("home", &format!("{} ({why})", home.target));
        }
        None => line("home", "no target of this stand-in is another host"),
    }
    line("stands", &found.progress);
    match found.only_there {
        Some(0) => line("only there", "nothing: the old host had given out no change that never came here"),
        Some(never_came) => line(
            "only there",
            &format!(
                "{} that the old host had given out and that never came here, and what was written there since: the copy overwrites \
                 it, and it is kept there (standin lost-writes)",
                changes(never_came)
            ),
        ),
        None => line(
            "only there",
            "not known: what the old host wrote and this one never got is overwritten by the copy; save it there first",
        ),
    }
    if found.returns_to.is_none() {
        line(
            "note",
            "no target daemon of this host has the replica: afterwards the old host replicates to nobody",
        );
    }
    let (there, here) = commands(found);
    if !there.is_empty() {
        let _ = writeln!(
            text,
            "On the old host (where its directory is not {}: its parent):",
            found.at.display()
        );
        there.iter().for_each(|command| text.push_str(&format!("  {command}\n")));
    }
    if !here.is_empty() {
        let _ = writeln!(text, "Then here, while programs work:");
        here.iter().for_each(|command| text.push_str(&format!("  {command}\n")));
        match found.last_seen {
            _ if found.home.is_some() => {}
            Some(address) => {
                let _ = writeln!(
                    text,
                    "{address} is where the host was that has sent the set here, when the two were paired; 7447 the port \
                     without --listen."
                );
            }
            None => {
                let _ =
                    writeln!(text, "For OLD-HOST give the address of the host that was the source before.");
            }
        }
    }
    text
}
