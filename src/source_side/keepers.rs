//! Who else has a mount of a file system: containers and other mount namespaces, bind mounts.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use crate::preflight::MountTable;

/// Each mount namespace that has the device (`major:minor`) mounted, by one of its processes and
/// the place, as in "sleep (pid 7) at /srv/data". Touches no mount.
pub fn keepers(device: &str) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let proc = entry.path();
        let is_new = fs::read_link(proc.join("ns/mnt")).is_ok_and(|namespace| seen.insert(namespace));
        if is_new && let Some(text) = keeper(&proc, pid, device) {
            found.push(text);
        }
    }
    found
}

fn keeper(proc: &Path, pid: u32, device: &str) -> Option<String> {
    let table = MountTable::read_from(&proc.join("mountinfo")).ok()?;
    let point = table.of_device(device).next()?.point.display().to_string();
    let command = fs::read_to_string(proc.join("comm")).unwrap_or_default();
    Some(format!("{} (pid {pid}) at {point}", command.trim_end()))
}
