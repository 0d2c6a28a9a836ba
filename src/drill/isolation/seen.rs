//! What a drill has become, as the kernel tells it from inside. What is not as it should be ends the drill before
//! a command is run.

use std::fs;
use std::io;
use std::path::Path;

use super::mounts::{Arranged, FRESH};
use super::{Isolation, Wanted, namespaces};
use crate::preflight::MountTable;
use crate::sys::MountOptions;

/// Errors: what is not as it should be.
pub(super) fn measure(wanted: &Wanted, arranged: Arranged) -> Result<Isolation, String> {
    let fail = |error: io::Error| format!("what was arranged cannot be read: {error}");
    let inside = namespaces();
    let mut own = Vec::new();
    for (kind, outside) in &wanted.outside {
        match inside.get(kind) {
            Some(inside) if inside != outside => own.push(kind.clone()),
            _ if kind == "net" && !wanted.has_own_network => {}
            _ => return Err(format!("the {kind} namespace is the host's")),
        }
    }
    let interfaces = interfaces(&fs::read_to_string("/proc/net/dev").map_err(fail)?);
    if wanted.has_own_network && interfaces != ["lo"] {
        return Err(format!("there are other interfaces than loopback: {}", interfaces.join(", ")));
    }
    let status = fs::read_to_string("/proc/self/status").map_err(fail)?;
    let bounds = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap_or_default();
    let hidden = wanted.hidden.iter().filter(|path| **path != wanted.at);
    for path in hidden.clone() {
        if !wanted.at.starts_with(path) && fs::read_dir(path).is_ok_and(|mut all| all.next().is_some()) {
            return Err(format!("{} can be seen", path.display()));
        }
    }
    Ok(Isolation {
        namespaces: own,
        interfaces,
        writable: writable(&wanted.at).map_err(fail)??,
        hidden: hidden.map(|path| path.display().to_string()).collect(),
        capabilities: bounds.trim().to_owned(),
        made_in: arranged.made_in.map(|dir| dir.display().to_string()),
        left_out: arranged.left_out.iter().map(|at| at.display().to_string()).collect(),
        shown: wanted.shown.iter().map(|at| at.display().to_string()).collect(),
    })
}

/// The names before the colons of `/proc/net/dev`.
fn interfaces(table: &str) -> Vec<String> {
    table.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

/// Every mount that can be written to; one that should not be is an error, and one of a protected directory.
fn writable(at: &Path) -> io::Result<Result<Vec<String>, String>> {
    let at = fs::canonicalize(at)?;
    let mut places = vec![at, "/dev".into()];
    places.extend(FRESH.iter().filter_map(|(path, _)| fs::canonicalize(path).ok()));
    let mut found = Vec::new();
    for mount in MountTable::read()?.all() {
        if mount.is_standin() {
            return Ok(Err(format!("the protected directory {} is there", mount.point.display())));
        }
        if !mount.options.only(MountOptions::READ_ONLY).is_empty() {
            continue;
        }
        if !places.iter().any(|place| mount.point.starts_with(place)) {
            return Ok(Err(format!("{} can be written to", mount.point.display())));
        }
        found.push(mount.point.display().to_string());
    }
    found.sort();
    found.dedup();
    Ok(Ok(found))
}

#[cfg(test)]
mod tests {
    #[test]
    fn interfaces_are_read() {
        let table = "Inter-|   Receive\n face |bytes\n    lo: 1 2 3\n  eth0:4 5 6\n";
        assert_eq!(super::interfaces(table), ["lo", "eth0"]);
    }
}
