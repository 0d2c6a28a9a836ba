//! Where a drill's clone may be found, and what must not be seen in it.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::UNTOUCHED;
use crate::cli::args::Common;
use crate::cli::clone::Meant;
use crate::cli::find::all;
use crate::control::{Answer, Client, ReplicaStatus, Role, Status};
use crate::failure::Failure;
use crate::packet::DataState;

/// Nothing runs without these, or the kernel speaks there.
const NOT_BELOW: [&str; 3] = ["/proc", "/sys", "/dev"];
/// A drill has its own of these.
const OWN: [&str; 6] = ["/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp"];
const NOT_OVER: [&str; 8] = ["/", "/bin", "/etc", "/lib", "/lib64", "/sbin", "/usr", "/usr/bin"];

/// Errors: it is none, or no clone can be there.
pub(super) fn check(at: Option<&Path>) -> Result<PathBuf, Failure> {
    let refuse = |what: String| {
        Err(Failure::new(
            what,
            UNTOUCHED,
            "Name the path at which applications have the data: --at /srv/web.",
        ))
    };
    let Some(at) = at else { return refuse("A drill needs the data's own path.".into()) };
    text(at)?;
    let is_plain = |part: Component| matches!(part, Component::RootDir | Component::Normal(_));
    if !at.is_absolute() || !at.components().all(is_plain) {
        return refuse(format!("{} is no absolute path without '..'.", at.display()));
    }
    let real = real(at);
    text(&real)?;
    let is_needed = |path: &Path| NOT_OVER.iter().any(|needed| path == Path::new(needed));
    let is_kernels = |path: &Path| NOT_BELOW.iter().any(|place| path.starts_with(place));
    let at: PathBuf = at.components().collect();
    if [&at, &real].into_iter().any(|path| is_needed(path) || is_kernels(path)) {
        return refuse(format!(
            "No data can be at {}: nothing would run without what is there.",
            at.display()
        ));
    }
    Ok(real)
}

/// Where a path leads to, without symlinks; what is not there on this host is as it is written.
fn real(path: &Path) -> PathBuf {
    let mut real = PathBuf::new();
    for part in path.components() {
        real.push(part);
        real = fs::canonicalize(&real).unwrap_or(real);
    }
    real
}

/// Places of the host that are to be seen in a drill, without symlinks.
///
/// Errors: there is no such place, or it is the kernel's or the drill's own.
pub(super) fn shown(places: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let real = |place: &PathBuf| {
        let refuse = |why: String| {
            Failure::new(
                format!("--show {}: {why}.", place.display()),
                UNTOUCHED,
                "Name a directory of this host that the commands need.",
            )
        };
        let real = fs::canonicalize(place).map_err(|error| refuse(error.to_string()))?;
        text(&real)?;
        match real == Path::new("/") || OWN.iter().any(|own| real.starts_with(own)) {
            true => Err(refuse("a drill has its own of these".into())),
            false => Ok(real),
        }
    };
    places.iter().map(real).collect()
}

/// Errors: a path that no report could name.
pub(super) fn text(path: &Path) -> Result<String, Failure> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Failure::new(
            format!("{} is no text.", path.display()),
            UNTOUCHED,
            "A drill needs paths that are UTF-8.",
        )
    })
}

pub(super) fn several() -> Failure {
    Failure::new(
        "Several replicas are on this host.",
        UNTOUCHED,
        "Say which one is meant: `standin drill run SET`.",
    )
}

/// What the daemon of `standin serve` says of a replica.
pub(super) fn replica_status(replica: &Meant) -> Option<ReplicaStatus> {
    let (_, path) = replica.only()?;
    let status = Client::connect(replica.socket()).and_then(|mut client| client.status()).ok()?;
    match status.role {
        Role::Target { target } => target.replicas.into_iter().find(|replica| replica.directory == path),
        Role::Source(_) => None,
    }
}

/// Errors: the data's own path lies in the replica, which nobody else's is.
pub(super) fn check_beside(at: &Path, replica: &Meant) -> Result<(), Failure> {
    match replica.only() {
        Some((_, path)) if at != path && at.starts_with(path) => Err(Failure::new(
            format!("{} lies in the replica {}.", at.display(), path.display()),
            UNTOUCHED,
            "Name the path at which applications have the data on their host.",
        )),
        Some(_) | None => Ok(()),
    }
}

/// Of a replica that is no consistent state of its source a drill would say nothing.
pub(super) fn check_good(replica: &Meant) -> Result<(), Failure> {
    match replica_status(replica) {
        Some(status) if status.data != DataState::Good => {
            let reason =
                if status.reason.is_empty() { String::new() } else { format!(" ({})", status.reason) };
            let what =
                format!("The replica of {} is no consistent state of its source{reason}.", status.name);
            Err(Failure::new(
                what,
                UNTOUCHED,
                "Run the drill when `standin status` says that the data is good.",
            ))
        }
        Some(_) | None => Ok(()),
    }
}

/// Replicas and what lies beside them and protected directories of the daemons that are found here, with their
/// sockets, and the state directory.
///
/// Errors: to hide one would hide everything.
pub(super) fn hidden(common: &Common) -> Result<Vec<PathBuf>, Failure> {
    let run = common.run_dir();
    let mut places = vec![common.state_dir(), run.clone()];
    for daemon in all(&run)? {
        if let Answer::Status(status) = &daemon.answer {
            of_daemon(status, &mut places);
        }
    }
    let mut hidden: Vec<PathBuf> = places.iter().filter_map(|place| fs::canonicalize(place).ok()).collect();
    hidden.sort();
    hidden.dedup();
    if let Some(place) =
        hidden.iter().find(|place| NOT_OVER.iter().any(|needed| place.as_path() == Path::new(needed)))
    {
        return Err(Failure::new(
            format!("Replicas lie in {}, which cannot be hidden from a drill.", place.display()),
            UNTOUCHED,
            "Start `standin serve` with a --root of its own.",
        ));
    }
    hidden.iter().try_for_each(|place| text(place).map(|_| ()))?;
    Ok(hidden)
}

fn of_daemon(status: &Status, places: &mut Vec<PathBuf>) {
    places.push(status.directory.clone());
    match &status.role {
        Role::Target { target } => {
            places.extend(target.replicas.iter().map(|replica| replica.directory.clone()))
        }
        Role::Source(source) => {
            places.push(source.backing.clone());
            for target in &source.connections {
                let Some(path) = target.target.strip_prefix("local:").map(PathBuf::from) else { continue };
                if let Some(name) = path.file_name() {
                    let mut beside = std::ffi::OsString::from(".");
                    beside.push(name);
                    beside.push(".standin");
                    places.push(path.with_file_name(beside));
                }
                places.push(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_through_symlinks_is_taken_for_where_it_leads() {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir(base.join("data")).unwrap();
        for (name, to) in
            [("link", "data"), ("programs", "/usr"), ("kernel", "/proc"), ("dangling", "nowhere")]
        {
            std::os::unix::fs::symlink(to, base.join(name)).unwrap();
        }
        let checked = |path: &str| check(Some(&base.join(path))).ok();
        assert_eq!(checked("data/"), Some(base.join("data")));
        assert_eq!(checked("link"), Some(base.join("data")));
        assert_eq!(checked("link/new/path"), Some(base.join("data/new/path")));
        assert_eq!(checked("new/path"), Some(base.join("new/path")));
        assert_eq!(checked("dangling"), Some(base.join("dangling")));
        assert_eq!(checked("programs"), None);
        assert_eq!(checked("kernel/self"), None);
    }
}
