//! Where paths lead, and what is said of them.

use std::sync::Arc;

use super::*;
use crate::cli::schema::full_target;
use crate::control::tests::{FakeDaemon, sample_status};
use crate::control::{AsideStatus, Server, Status, TargetStatus};
use crate::packet::{DataState, Sequence};
use crate::words::socket_path;

/// A target with one replica that has all that its source has given out.
fn replica() -> ReplicaStatus {
    let mut replica = full_target().replicas.remove(0);
    replica.directory = "/backup/web".into();
    (replica.data, replica.problem, replica.retrying) = (DataState::Good, None, None);
    replica.aside = AsideStatus::default();
    (replica.applied, replica.durable) = (Sequence(9), Sequence(9));
    (replica.given_out, replica.beyond) = (Some(Sequence(9)), Some(0));
    replica
}

fn daemon(name: &str, status: Status) -> Daemon {
    Daemon { name: name.into(), socket: "/nowhere".into(), answer: Answer::Status(Box::new(status)) }
}

fn source(name: &str, directory: &str) -> Daemon {
    let mut status = sample_status();
    (status.name, status.directory) = (name.into(), directory.into());
    daemon(name, status)
}

fn target() -> Daemon {
    let target = TargetStatus { replicas: vec![replica()], ..full_target() };
    daemon("serve", Status { role: Role::Target { target }, directory: "/backup".into(), ..sample_status() })
}

#[test]
fn a_path_leads_to_the_closest_directory_around_it() {
    let mounts = MountTable::read().unwrap();
    let daemons = [source("web", "/srv/web"), source("inner", "/srv/web/a/b"), target()];
    let found = |path: &str| match place(&daemons, &mounts, Path::new(path)) {
        Place::Source(daemon, path) => format!("{} {}", daemon.name, path.display()),
        Place::Replica(daemon, replica, path) => {
            format!("{} {} {}", daemon.name, replica.name, path.display())
        }
        Place::Nowhere(_, why) => why,
    };
    let set = replica().name;
    for (path, expected) in [
        ("/srv/web/x", "web /srv/web/x".to_owned()),
        ("/srv/web", "web /srv/web/".into()),
        ("/srv/web/a/b/c", "inner /srv/web/a/b/c".into()),
        ("/srv/../srv/web/a/./x", "web /srv/web/a/x".into()),
        // The replica of a `local:` target is what its source knows best.
        ("/srv/replica/dir/x", "inner /srv/web/a/b/dir/x".into()),
        ("/backup/web/x", format!("serve {set} /backup/web/x")),
        ("/etc/passwd", "it is in no directory and no replica of web, inner, serve".into()),
    ] {
        assert_eq!(found(path), expected, "{path}");
    }
}

#[test]
fn a_symlink_is_asked_about_and_not_followed() {
    let ground = tempfile::tempdir().unwrap();
    let base = ground.path().canonicalize().unwrap();
    std::fs::create_dir(base.join("real")).unwrap();
    std::os::unix::fs::symlink("/etc", base.join("real/link")).unwrap();
    std::os::unix::fs::symlink(base.join("real"), base.join("way")).unwrap();
    let daemons = [source("web", base.join("real").to_str().unwrap())];
    let mounts = MountTable::read().unwrap();
    let leads = |path: PathBuf| match place(&daemons, &mounts, &path) {
        Place::Source(_, path) => Some(path),
        _ => None,
    };
    assert_eq!(leads(base.join("real/link")), Some(base.join("real/link")));
    assert_eq!(leads(base.join("way/link")), Some(base.join("real/link")));
    assert_eq!(leads(base.join("way")), Some(base.join("real/")));
    assert_eq!(leads(base.join("real/link/passwd")), None);
}

#[test]
fn a_target_says_what_it_knows() {
    use FileState::*;
    let dir = tempfile::tempdir().unwrap();
    let good = || ReplicaStatus { directory: dir.path().into(), ..replica() };
    let aside = || full_target().replicas.remove(0).aside;
    let other = AsideStatus { total: 1, objects: Vec::new() };
    let retrying = || full_target().replicas.remove(0).retrying;
    let bad = DataState::Bad;
    let table = [
        (Durable, Verdict::There, good()),
        (Applied, Verdict::There, ReplicaStatus { durable: Sequence(8), ..good() }),
        (Behind, Verdict::NotThere, ReplicaStatus { beyond: Some(3), ..good() }),
        (Away, Verdict::Unknown, ReplicaStatus { connected: None, ..good() }),
        (Doubtful, Verdict::Unknown, ReplicaStatus { beyond: None, ..good() }),
        (Doubtful, Verdict::Unknown, ReplicaStatus { problem: Some("it is not there".into()), ..good() }),
        (Resynchronising, Verdict::NotThere, ReplicaStatus { data: DataState::Empty, ..good() }),
        (Doubtful, Verdict::Unknown, ReplicaStatus { data: bad, aside: other, ..good() }),
        (SetAside, Verdict::NotThere, ReplicaStatus { data: bad, aside: aside(), ..good() }),
        (Retrying, Verdict::NotThere, ReplicaStatus { retrying: retrying(), ..good() }),
    ];
    let path = |replica: &ReplicaStatus| {
        let named = replica.aside.objects.first().map_or("file".into(), |aside| aside.path.clone());
        dir.path().join(named)
    };
    for (state, verdict, status) in table {
        let report = replica::report(&target(), &status, path(&status), false);
        assert_eq!((report.targets[0].state, report.verdict), (state, verdict), "{report:?}");
    }
    let unsynced = ReplicaStatus { durable: Sequence(8), ..good() };
    let report = replica::report(&target(), &unsynced, path(&unsynced), true);
    assert_eq!(report.verdict, Verdict::NotThere, "{report:?}");
}

#[test]
fn many_paths_are_asked_about_in_batches() {
    let path = |at: usize| PathBuf::from(format!("/srv/web/{}{at}", "x".repeat(200)));
    let paths: Vec<(usize, PathBuf)> = (0..1000).map(|at| (at, path(at))).collect();
    let batches = batches(paths.clone());
    assert!(batches.len() > 1000 / FILES_ASKED_MAX);
    assert_eq!(batches.concat(), paths);
    for batch in batches {
        let paths = batch.into_iter().map(|(_, path)| PathText(path)).collect();
        let request = FilesRequest { paths, durable: true, timeout_ms: Some(u64::MAX) };
        let files = serde_json::to_string(&crate::control::Request::Files { files: request }).unwrap();
        assert!(files.len() < crate::limits::CONTROL_REQUEST_LEN_MAX, "{}", files.len());
    }
}

#[test]
fn a_report_is_said_in_words() {
    let target = |id, state, why: &str, since| FileOnTarget {
        connection: Some(id),
        target: "local:/copy".into(),
        state,
        verdict: FileState::verdict(state, false),
        applied: Sequence(40),
        durable: Sequence(38),
        lacks: None,
        since_unix_ms: since,
        why: why.into(),
    };
    let report = FileReport {
        path: "/srv/web/a".into(),
        set: "web".into(),
        kind: FileKind::File,
        verdict: Verdict::NotThere,
        as_of: Some(Sequence(42)),
        as_of_unix_ms: 10_000,
        changed_unix_ms: Some(5_000),
        note: String::new(),
        targets: vec![
            target(1, FileState::Applied, "", None),
            target(2, FileState::Behind, "2 packets (4 KiB) before it", Some(6_000)),
        ],
    };
    assert_eq!(
        text(&report, 10_000),
        "/srv/web/a: not there as of position 42 (file, changed 5.0 s ago)\n  \
         1 local:/copy: applied (applied 40, durable 38)\n  \
         2 local:/copy: behind for 4.0 s: 2 packets (4 KiB) before it (applied 40, durable 38)\n"
    );
}

/// A daemon that was killed is no reason to say that a file is of no set.
#[test]
fn what_does_not_answer_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(&socket_path(dir.path(), "web"), Arc::new(FakeDaemon::default())).unwrap();
    drop(std::os::unix::net::UnixListener::bind(socket_path(dir.path(), "old")).unwrap());
    let common = Common { run: Some(dir.path().into()), ..Common::default() };
    let daemons = find::all(&common.run_dir()).unwrap();
    match place(&daemons, &MountTable::read().unwrap(), Path::new("/srv/other/x")) {
        Place::Nowhere(_, why) => assert!(why.contains("old does not answer"), "{why}"),
        _ => panic!("it is of no set"),
    }
}
