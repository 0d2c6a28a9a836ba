//! Drills beside the replicas that they are of.

use std::path::Path;

use crate::cli::args::Common;
use crate::cli::drill;
use crate::control::{Status, TargetKind};
use crate::drill::expected::Expected;
use crate::drill::last::Standing;

/// Those of these replicas that are expected to pass now and then; and where there are replicas here, files that are wrong.
pub(super) fn drills(common: &Common, status: &Status) -> Vec<Expected> {
    let replicas = replicas(status);
    if replicas.is_empty() {
        return Vec::new();
    }
    let mut drills = drill::expected(common);
    drills.retain(|one| {
        let set = &one.last.set;
        let is_of = |(name, directory): &(&str, &Path)| name == set || *directory == Path::new(set);
        one.last.standing == Standing::Unknown || replicas.iter().any(is_of)
    });
    drills
}

/// Name and directory of each on this host.
fn replicas(status: &Status) -> Vec<(&str, &Path)> {
    let of_target = status.target().into_iter().flat_map(|target| &target.replicas);
    let of_target = of_target.map(|replica| (replica.name.as_str(), replica.directory.as_path()));
    let embedded = status.connections().iter().filter(|connection| connection.kind == TargetKind::Local);
    let embedded = embedded.filter_map(|connection| connection.target.strip_prefix("local:"));
    of_target.chain(embedded.map(|path| (status.name.as_str(), Path::new(path)))).collect()
}

/// As people read it.
pub(super) fn drill_lines(drills: &[Expected]) -> String {
    drills.iter().map(|one| format!("\ndrill {}  {}\n", one.file, one.words())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Role;
    use crate::control::tests::sample_status;

    #[test]
    fn a_replica_beside_its_source_is_on_this_host() {
        let mut status = sample_status();
        let Role::Source(source) = &mut status.role else { panic!("a source") };
        source.connections[0].kind = TargetKind::Local;
        source.connections[0].target = "local:/srv/replica".into();
        source.connections.truncate(1);
        assert_eq!(replicas(&status), [(status.name.as_str(), Path::new("/srv/replica"))]);
    }
}
