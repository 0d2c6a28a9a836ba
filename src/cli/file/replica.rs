//! What a target knows of a file of a replica, without its source: pure, but for a look at the file.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::control::{
    Answer, Daemon, FileKind, FileOnTarget, FileReport, FileState, ReplicaStatus, Verdict, unix_ms,
};
use crate::packet::DataState;

/// As far as the source was heard: what it has written since nobody here knows.
pub(super) fn report(daemon: &Daemon, replica: &ReplicaStatus, path: PathBuf, durable: bool) -> FileReport {
    let now = match &daemon.answer {
        Answer::Status(status) => status.now_unix_ms,
        Answer::Dead | Answer::None(_) => unix_ms(SystemTime::now()),
    };
    let (kind, changed_unix_ms) = look(&path);
    let below = path.strip_prefix(&replica.directory).unwrap_or(Path::new(""));
    let (state, why) = judge(replica, below);
    let verdict = match state {
        // Nobody here can say what the source has now.
        FileState::Away => Verdict::Unknown,
        state => state.verdict(durable),
    };
    let target = FileOnTarget {
        connection: None,
        target: format!("{} (this replica)", replica.name),
        state,
        verdict,
        applied: replica.applied,
        durable: replica.durable,
        lacks: None,
        since_unix_ms: None,
        why,
    };
    FileReport {
        path,
        set: replica.name.clone(),
        kind,
        verdict,
        as_of: replica.given_out,
        as_of_unix_ms: replica.heard_unix_ms.unwrap_or(now),
        changed_unix_ms,
        note: "as the source was heard last; only the source knows what its file is now".into(),
        targets: vec![target],
    }
}

fn look(path: &Path) -> (FileKind, Option<u64>) {
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return (FileKind::Gone, None),
        Err(_) => return (FileKind::Unknown, None),
    };
    let of = meta.file_type();
    let kind = match () {
        () if of.is_file() => FileKind::File,
        () if of.is_dir() => FileKind::Directory,
        () if of.is_symlink() => FileKind::Symlink,
        () => FileKind::Special,
    };
    let changed = u64::try_from(meta.ctime()).unwrap_or(0) * 1000 + meta.ctime_nsec() as u64 / 1_000_000;
    (kind, Some(changed))
}

pub(super) fn judge(replica: &ReplicaStatus, below: &Path) -> (FileState, String) {
    let aside = replica.aside.objects.iter().find(|object| Path::new(&object.path).starts_with(below));
    match (replica.data, replica.beyond, replica.given_out) {
        _ if let Some(problem) = &replica.problem => (FileState::Doubtful, problem.clone()),
        _ if let Some(aside) = aside => {
            (FileState::SetAside, format!("{} could not be performed: {}", aside.op, aside.reason))
        }
        (DataState::Empty, ..) => {
            (FileState::Resynchronising, "nothing was copied to the replica yet".into())
        }
        (DataState::Bad, ..) => {
            let why = format!("the replica is no consistent copy ({})", replica.reason);
            (FileState::Doubtful, format!("{why}, and it is not known whether for this"))
        }
        _ if replica.connected.is_none() => (FileState::Away, "its source is not connected".into()),
        _ if let Some(retrying) = &replica.retrying => {
            (FileState::Retrying, format!("{} is tried again ({})", retrying.op, retrying.reason))
        }
        (DataState::Good, Some(0), Some(given_out)) if replica.durable >= given_out => {
            (FileState::Durable, String::new())
        }
        (DataState::Good, Some(0), _) => (FileState::Applied, String::new()),
        (DataState::Good, Some(beyond), _) => (FileState::Behind, format!("{beyond} packets before it")),
        (DataState::Good, None, _) => {
            (FileState::Doubtful, "the source has not said what it has given out".into())
        }
    }
}
