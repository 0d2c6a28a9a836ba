//! Commands against daemons that are made up, and their texts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory, Parser};

use super::args::{Cli, Command, Common};
use super::doctor::census::Census;
use super::*;
use crate::control::tests::{FakeDaemon, sample_status, source_of};
use crate::control::{
    ConnectionState, LinkStatus, MirrorProgress, MirrorStatus, ReplicaStatus, RestoredFrom, Retrying, Role,
    RoleName, Server, SyncReport, SyncedConnection, TargetStatus, WaitFor,
};
use crate::packet::{DataState, Holdings, Sequence, Text};
use crate::preflight::FsFacts;
use crate::words::{Allow, Late, Needs, Right, Rule, Target, WhenFull, socket_path};

/// A run directory with daemons in it.
struct Hosts {
    dir: tempfile::TempDir,
    servers: Vec<Server>,
}

impl Hosts {
    fn new() -> Hosts {
        Hosts { dir: tempfile::tempdir().unwrap(), servers: Vec::new() }
    }

    fn start(&mut self, name: &str, directory: &str) {
        let daemon = FakeDaemon::default();
        let mut status = sample_status();
        status.name = name.into();
        status.directory = directory.into();
        *daemon.status.lock() = Some(status);
        self.servers.push(Server::start(&socket_path(self.dir.path(), name), Arc::new(daemon)).unwrap());
    }

    fn leave_dead(&self, name: &str) {
        drop(std::os::unix::net::UnixListener::bind(socket_path(self.dir.path(), name)).unwrap());
    }

    fn find(&self, set: Option<&str>) -> Result<String, String> {
        let common = Common { run: Some(self.dir.path().into()), ..Default::default() };
        let found = find::find(&common, set.map(Path::new));
        found.map(|found| found.status.name).map_err(|failure| failure.to_string())
    }
}

#[test]
fn a_command_finds_the_daemon_that_was_meant() {
    let mut hosts = Hosts::new();
    assert!(hosts.find(None).unwrap_err().contains("No daemon is running"));
    hosts.leave_dead("old");
    assert!(hosts.find(None).unwrap_err().contains("old is not running any more"));
    hosts.start("web", "/srv/web");
    let one_was_killed = hosts.find(None).unwrap_err();
    for line in ["web  /srv/web\n", "old  not running any more"] {
        assert!(one_was_killed.contains(line), "{one_was_killed}");
    }
    hosts.start("inner", "/srv/web/a/b");
    let several = hosts.find(None).unwrap_err();
    assert!(several.contains("web  /srv/web\n") && several.contains("inner  /srv/web/a/b"), "{several}");
    for (set, name) in [
        ("web", "web"),
        ("inner", "inner"),
        ("/srv/web", "web"),
        ("/srv/../srv/./web/", "web"),
        ("/srv/web/x", "web"),
        ("/srv/web/a/b/c", "inner"),
    ] {
        assert_eq!(hosts.find(Some(set)).as_deref(), Ok(name), "{set}");
    }
    assert!(hosts.find(Some("/srv/website")).unwrap_err().contains("protects the directory /srv/website"));
    assert!(hosts.find(Some("old")).unwrap_err().contains("not running any more"));
}

#[test]
fn a_directory_is_found_through_a_symlink() {
    let mut hosts = Hosts::new();
    let ground = tempfile::tempdir().unwrap();
    let real = ground.path().canonicalize().unwrap().join("real");
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, ground.path().join("link")).unwrap();
    hosts.start("web", real.to_str().unwrap());
    hosts.start("other", "/srv/other");
    assert_eq!(hosts.find(ground.path().join("link").to_str()).as_deref(), Ok("web"));
}

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

fn protect_options(line: &str) -> Result<crate::words::ProtectOptions, String> {
    let Cli { common, command } = parse(line).map_err(|error| error.to_string())?;
    match command {
        Command::Protect(args) => protect::options(&common, args).map_err(|failure| failure.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn syncs_wait_for_targets_only_where_there_are_some() {
    let fsync =
        |more: &str| protect_options(&format!("standin protect /x {more}")).map(|options| options.fsync);
    let rule = |needs, seconds, late| Rule { needs, timeout: Duration::from_secs(seconds), late };
    assert_eq!(fsync("--to local:/y"), Ok(None));
    assert_eq!(fsync("--to local:/y --fsync=target"), Ok(Some(rule(Needs::All, 30, Late::Fail))));
    let all =
        "--to null: --to local:/y --fsync target --fsync-timeout 5s --fsync-degrade --fsync-targets any";
    assert_eq!(fsync(all), Ok(Some(rule(Needs::Any, 5, Late::Degrade))));
    for none in ["--fsync=target", "--to null: --fsync=target"] {
        assert!(fsync(none).unwrap_err().contains("needs a target that has a disk"), "{none}");
    }
    assert!(fsync("--to local:/y --fsync=target --fsync-timeout 0").unwrap_err().contains("every fsync"));
}

#[test]
fn protect_is_understood() {
    let options = protect_options(
        "standin protect /nowhere/./web --to local:/copy/a --to null: --state /s --run /r --queue-memory 64M --force",
    )
    .unwrap();
    assert_eq!((options.name.as_str(), options.directory.as_path()), ("web", Path::new("/nowhere/web")));
    assert_eq!(options.targets, [Target::Local("/copy/a".into()), Target::Null]);
    assert_eq!((options.queue_memory, options.force, options.adopt), (64 << 20, true, false));
    assert_eq!(options.socket(), PathBuf::from("/r/web.sock"));
    assert_eq!(options.set_state(), PathBuf::from("/s/web"));
    assert_eq!(options.tree(), Path::new("/nowhere/web"));
    let options =
        protect_options("standin --run /r protect /nowhere/web --backing /data --name other").unwrap();
    assert_eq!((options.name.as_str(), options.tree()), ("other", Path::new("/data")));
    assert_eq!(options.queue_memory, crate::limits::QUEUE_MEMORY);
    assert_eq!(options.mmap_lag, Some(Duration::from_secs(1)));
    assert_eq!(options.when_full, WhenFull::Resync);
    let waits = protect_options("standin protect /nowhere/web --on-queue-full block").unwrap();
    assert_eq!(waits.when_full, WhenFull::Block);
    let off = protect_options("standin protect /nowhere/web --mmap-lag 0").unwrap();
    assert_eq!(off.mmap_lag, None);
    let here = std::env::current_dir().unwrap();
    let relative = protect_options("standin protect x --to local:y").unwrap();
    let remote = protect_options("standin protect /x --to standin://h:1/r").unwrap();
    assert_eq!(remote.targets, ["standin://h:1/r".parse().unwrap()]);
    assert_eq!((relative.directory, relative.targets), (here.join("x"), vec![Target::Local(here.join("y"))]));
}

#[test]
fn the_queue_on_disk_lies_with_the_set_or_in_a_directory_of_its_own() {
    let options = |line: &str| {
        protect_options(format!("standin protect /srv/web --state /s {line}").trim_end()).unwrap()
    };
    let usual = options("");
    assert_eq!(usual.queue_directory(), Some("/s/web/queue".into()));
    assert_eq!(usual.queue_disk.unwrap().limit, None);
    let own = options("--queue-dir /fast --queue-disk-limit 1G");
    assert_eq!(own.queue_directory(), Some("/fast/web.queue".into()));
    assert_eq!(own.queue_disk.unwrap().limit, Some(1 << 30));
    assert_eq!(options("--queue-disk-limit 0").queue_directory(), None);
}

#[test]
fn protect_refuses_what_cannot_be() {
    let refused = |line: &str| protect_options(line).unwrap_err();
    assert!(refused("standin protect /x --queue-memory 31M").contains("32 MiB at least"));
    assert!(refused("standin protect /x --queue-disk-limit 31M").contains("32 MiB at least, or 0"));
    assert!(
        refused("standin protect /x --queue-disk-limit 0 --queue-dir /q").contains("nothing would be put")
    );
    assert!(refused("standin protect /x --to ssh:r").contains("is no target"));
    assert!(refused("standin protect /x --name a/b").contains("cannot name"));
    assert!(refused("standin protect /srv/.hidden").contains("--name"));
    assert!(refused("standin protect").contains("<DIR|NAME>"));
}

#[test]
fn serve_is_understood() {
    let options = |line: &str| {
        let Cli { common, command } = parse(line).map_err(|error| error.to_string())?;
        match command {
            Command::Serve(args) => {
                let mounts = crate::preflight::MountTable::read().unwrap();
                serve::options(&common, args, &mounts).map_err(|failure| failure.to_string())
            }
            other => panic!("{other:?}"),
        }
    };
    let all = options("standin serve --root /nowhere/./r --state /s --run /r").unwrap();
    assert_eq!((all.root.as_path(), all.name.as_str()), (Path::new("/nowhere/r"), "serve"));
    assert_eq!(all.listen, ["[::]:7447".parse().unwrap(), "0.0.0.0:7447".parse().unwrap()]);
    assert_eq!((all.allow, all.adopt), (crate::words::Allow::NOTHING, false));
    assert_eq!((all.socket(), all.own_state()), ("/r/serve.sock".into(), "/s/.serve".into()));
    let some = options("standin serve --root /r --listen 192.0.2.1 --allow device,security").unwrap();
    assert_eq!(some.listen, ["192.0.2.1:7447".parse().unwrap()]);
    assert!(some.allow.device && some.allow.security && !some.allow.setuid);
    for (listen, address) in [("[::1]", "[::1]:7447"), ("::1", "[::1]:7447"), ("127.0.0.1:9", "127.0.0.1:9")]
    {
        let options = options(&format!("standin serve --root /r --listen {listen}")).unwrap();
        assert_eq!(options.listen, [address.parse().unwrap()]);
    }
    assert!(options("standin serve --root /r --listen host:1").unwrap_err().contains("address of this host"));
    let nothing = options("standin serve --root /r --allow nothing").unwrap();
    assert_eq!(nothing.allow, crate::words::Allow::NOTHING);
    assert!(options("standin serve --root /r --allow everything").unwrap_err().contains("setuid"));
    assert!(options("standin serve").unwrap_err().contains("--root"));
}

#[test]
fn a_merge_is_of_what_is_marked_or_of_everything() {
    Cli::command().debug_assert();
    let parsed = |line: &str| parse(&format!("standin {line}")).map(|cli| cli.command);
    assert!(matches!(parsed("merge web --full --connection 2").unwrap(), Command::Merge(_)));
    assert!(matches!(parsed("resync estimate").unwrap(), Command::Resync(_)));
    for wrong in ["merge --mode full", "merge web DIR", "resync", "resync merge", "nonsense"] {
        assert!(parsed(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_status_reads_well() {
    assert_eq!(
        status::text(&sample_status()),
        "\
web  source of /srv/web, serving for 3 min 5 s
  set         0123456789abcdef0123456789abcdef at 1.deadbeef:42
  daemon      standin 0.1.0, pid 4711
  uses        1 min 23 s of processor time, 48 MiB of memory (at most 96 MiB)
  queue       0 packets, 0 B of 128 MiB
  captured    42 packets, 4 KiB; 0 open files

connection 1  local:/srv/replica, started for 3 min 5 s
  replica     good
  mirror      complete
  applied     42, behind by nothing
  durable     42, behind by nothing
  queued      0 packets, 0 B
  sent        42 packets, 4.9 KiB
"
    );
}

#[test]
fn trouble_and_progress_are_shown() {
    let mut status = sample_status();
    source_of(&mut status).queue.writers_waiting = 2;
    let connection = &mut source_of(&mut status).connections[0];
    connection.state = ConnectionState::Error;
    connection.reason = "no answer".into();
    connection.data = DataState::Bad;
    connection.mirror = MirrorStatus::Mirroring { percent: 45.25 };
    connection.progress = Some(MirrorProgress {
        mode: "differences".into(),
        files_done: 1234,
        files_total: Some(2000),
        bytes_total: Some(3 << 30),
        is_counted: true,
        bytes_done: 3 << 29,
        bytes_skipped: 1 << 20,
        bytes_per_second: 2e6,
        eta_seconds: Some(75),
        current: "a/b".into(),
        ..Default::default()
    });
    connection.resync = Some(super::schema::full_resync());
    connection.lag_applied = Some(crate::control::Lag { seconds: 2.5, packets: 1, bytes: 10 });
    connection.lag_durable = None;
    connection.link = Some(LinkStatus { connected_unix_ms: 1_184_000, rtt_ms: 0.25, ..Default::default() });
    let retrying = Retrying {
        op: "create a/c".into(),
        reason: "write: No space left on device (os error 28)".into(),
        since_unix_ms: 1_180_000,
        attempts: 9,
        marker: false,
    };
    connection.retrying = Some(retrying);
    let text = status::text(&status);
    for part in [
        "error for 3 min 5 s (no answer)",
        "replica     bad (not a consistent copy)",
        "mirroring 45.2 %",
        "differences: 1,234 of 2,000 files in line, 1.5 GiB sent, 1 MiB skipped, 3 GiB in all, 1.9 MiB/s, 1 min 15 s to go\n              a/b\n",
        "  resync      takes now a copy of what has changed behind packet 7 (minicopy): 3 objects, 1 MiB to 2 MiB of content\n              because the queue became full\n",
        "behind by 2.5 s (1 packet, 10 B)",
        "it is not known how far behind",
        "up for 1.0 s, round trip 0.2 ms",
        "retrying    create a/c for 5.0 s, 9 attempts: write: No space left",
        "WARNING: The queue is full: 2 writers wait",
        "CRITICAL: Connection 1 (local:/srv/replica) failed and is tried again: no answer",
        "everything behind it waits (9 attempts in 5 s)",
        "(os error 28). Make room on the target's disk: it goes on by itself. What this copy has moved aside takes room, too: \
         `standin orphans list` on the target shows it, and how it is removed first. What was removed on the source \
         meanwhile is there once the connection was stopped and started.\n",
    ] {
        assert!(text.contains(part), "'{part}' is missing in:\n{text}");
    }
}

#[test]
fn wait_sync_says_who_lacks_what() {
    let lacking = SyncedConnection {
        id: 2,
        target: "local:/b".into(),
        complete: false,
        applied: Sequence(7),
        durable: Sequence(3),
        waits_for: "the first copy".into(),
    };
    let mut report =
        SyncReport { complete: false, upto: Sequence(9), waited_ms: 1500, connections: vec![lacking] };
    let text = wait_sync::text(&report, WaitFor::Durable);
    assert_eq!(
        text,
        "Not all targets have made durable everything up to 9 after 1.5 s:\n  \
         connection 2 (local:/b): applied 7, durable 3; the first copy"
    );
    report.complete = true;
    assert!(
        wait_sync::text(&report, WaitFor::Applied).starts_with("All targets have applied everything up to 9")
    );
}

#[test]
fn the_doctors_verdict_is_the_worst_line() {
    use doctor::{Level, Report};
    let mut report = Report::default();
    for (level, code) in
        [(Level::Ok, 0), (Level::Note, 0), (Level::Warn, 1), (Level::Fail, 2), (Level::Ok, 2)]
    {
        report.add(level, "topic", "text");
        assert_eq!(report.exit_code(), code, "{level:?}");
    }
    assert!(report.text().contains("WARN  topic        text\n"), "{}", report.text());
}

#[test]
fn the_doctor_names_what_a_replica_cannot_hold() {
    let ext4 = FsFacts {
        fs_type: "ext2/3/4".into(),
        handles: true,
        user_xattrs: true,
        trusted_xattrs: true,
        acls: true,
        read_only: false,
        errors: 0,
        case_insensitive: false,
        reflinks: false,
        total_bytes: 1,
        free_bytes: 1,
        free_inodes: 1,
    };
    let place = tempfile::tempdir().unwrap();
    let all = Holdings {
        fs_type: Text::from_str_cut("ext4"),
        flags: true,
        acls: true,
        user_xattrs: true,
        trusted_xattrs: true,
        case_insensitive: false,
        late_times: true,
        early_times: true,
        nanoseconds: true,
        ..FsFacts::of(place.path()).unwrap().holdings(place.path()).unwrap()
    };
    let lacks = |holdings: &Holdings| doctor::lacks(&ext4, holdings, &Census::of(place.path(), holdings));
    assert!(lacks(&all).is_empty());
    std::fs::write(place.path().join("File"), "12345").unwrap();
    std::fs::write(place.path().join("file"), "123").unwrap();
    let few = Holdings {
        fs_type: Text::from_str_cut("vfat"),
        user_xattrs: false,
        trusted_xattrs: false,
        acls: false,
        case_insensitive: true,
        flags: false,
        nanoseconds: false,
        late_times: false,
        file_len_max: 4,
        ..all.clone()
    };

    let lacks = lacks(&few);
    let counted: Vec<_> = lacks.iter().filter_map(|lack| lack.objects).collect();
    assert_eq!(counted, [0, 0, 1, 2, 2, 0, 1], "attributes, ACLs, case, all, nanoseconds, times, size");
    assert_eq!(lacks.len(), 9);
    // The kernel's XFS takes 1,023 bytes and no more, ext4 a block.
    for length in [1023, 1024] {
        std::os::unix::fs::symlink("x".repeat(length), place.path().join(format!("link {length}"))).unwrap();
    }
    let xfs = Holdings { fs_type: Text::from_str_cut("xfs"), ..all };
    let census = Census::of(place.path(), &xfs);
    let lacks: Vec<_> =
        doctor::lacks(&ext4, &xfs, &census).iter().map(|lack| (lack.what, lack.objects)).collect();
    assert_eq!(lacks, [("holds no symlinks to more than 1,023 bytes", Some(1))]);
}

#[test]
fn durations_in_json_are_what_was_typed() {
    match parse("standin wait-sync web --durable --timeout 1m30s --json").unwrap() {
        Cli { common: Common { json: true, .. }, command: Command::WaitSync(args) } => {
            assert_eq!((args.durable, args.timeout), (true, Some(Duration::from_secs(90))));
            assert_eq!(args.set, Some("web".into()));
        }
        other => panic!("{other:?}"),
    }
}

/// A host can be source and target at once: commands that are for one of them find it.
#[test]
fn a_role_is_enough_where_a_host_is_both() {
    let mut hosts = Hosts::new();
    hosts.start("web", "/srv/web");
    let role_of = |hosts: &Hosts, name: Option<&str>, role| {
        let common = Common { run: Some(hosts.dir.path().into()), ..Default::default() };
        find::find_role(&common, name.map(Path::new), role)
            .map(|found| found.status.name)
            .map_err(|failure| failure.to_string())
    };
    assert!(role_of(&hosts, None, RoleName::Target).unwrap_err().contains("No target daemon is running"));
    let target = FakeDaemon::default();
    let role = Role::Target { target: TargetStatus::default() };
    *target.status.lock() = Some(crate::control::Status { role, name: "serve".into(), ..sample_status() });
    let socket = socket_path(hosts.dir.path(), "serve");
    hosts.servers.push(Server::start(&socket, Arc::new(target)).unwrap());
    assert_eq!(role_of(&hosts, None, RoleName::Target).as_deref(), Ok("serve"));
    assert_eq!(role_of(&hosts, None, RoleName::Source).as_deref(), Ok("web"));
    assert_eq!(role_of(&hosts, Some("serve"), RoleName::Source).as_deref(), Ok("serve"), "a name is a name");
    assert!(hosts.find(None).unwrap_err().contains("Several daemons"));
}

/// Of a source that is not connected.
pub(super) fn sample_replica() -> ReplicaStatus {
    ReplicaStatus {
        name: "web".into(),
        directory: "/backup/web".into(),
        set_id: String::new(),
        sources: vec!["aa11".into()],
        connected: None,
        restored_from: None,
        data: DataState::Bad,
        reason: "a resynchronisation has begun and not ended".into(),
        in_line: false,
        since_unix_ms: 0,
        applied: Sequence(7),
        durable: Sequence(5),
        retrying: None,
        aside: Default::default(),
        withheld: crate::packet::WithheldCounts { devices: 2, ..Default::default() },
        as_of_unix_ms: None,
        given_out: None,
        heard_unix_ms: None,
        beyond: None,
        clock_ahead_ms: None,
        clock_set: None,
        last_good: None,
        lost_writes: None,
        turned_away: None,
        problem: None,
    }
}

#[test]
fn a_target_reads_well() {
    let replica = sample_replica();
    let target = TargetStatus {
        not_confined: None,
        listening: "[::]:7447".into(),
        refused: 3,
        last_refused: Some("refused a connection".into()),
        replicas: vec![replica],
    };
    let mut status = sample_status();
    (status.role, status.name) = (Role::Target { target }, "serve".into());
    (status.directory, status.fingerprint) = ("/backup".into(), "bb22".into());
    assert_eq!(
        status::text(&status),
        "\
serve  target of /backup, serving for 3 min 5 s
  key         bb22
  daemon      standin 0.1.0, pid 4711
  uses        1 min 23 s of processor time, 48 MiB of memory (at most 96 MiB)
  listening   [::]:7447
  refused     3, last: refused a connection

replica web  /backup/web
  source      not connected
  paired      aa11
  data        bad (not a consistent copy): a resynchronisation has begun and not ended
  applied     7
  durable     5

CRITICAL: Replica web is not a consistent copy, and its source is not connected.
note: Replica web: device nodes were left out 2 times (--allow device takes them).
"
    );
    let (fingerprint, address) = ("cc33".into(), "192.0.2.3:5".into());
    let (since_unix_ms, files_sent, bytes_sent) = (status.now_unix_ms - 5000, 2, 3 << 20);
    let reader = RestoredFrom { fingerprint, address, since_unix_ms, files_sent, bytes_sent };
    if let Role::Target { target } = &mut status.role {
        target.replicas[0].restored_from = Some(reader);
    }
    let text = status::text(&status);
    assert!(text.contains("\n  restored    by cc33 at 192.0.2.3:5, for 5.0 s, 3 MiB sent\n"), "{text}");
}

#[test]
fn a_pairing_reads_well() {
    let paired = crate::control::Paired {
        right: Right::Send,
        fingerprint: "aa11".into(),
        set_name: "web".into(),
        since_unix_ms: 1000,
        address: "192.0.2.1:5".into(),
        allow: Allow { device: true, setuid: true, security: false },
        by_default: false,
        after_restart: Allow { device: true, ..Allow::NOTHING },
    };
    assert_eq!(
        pairing::line(&paired, 61_000),
        "aa11  may send 'web', paired 1 min 0 s ago from 192.0.2.1:5; beside plain data: device,setuid (by its \
         invitation). Not yet: device. This daemon gave up the right to that when it started; start `standin \
         serve` again."
    );
    let json = serde_json::to_value(&paired).unwrap();
    assert_eq!(json["allow"], serde_json::json!(["device", "setuid"]));
    let plain = crate::control::Paired {
        allow: Allow::NOTHING,
        by_default: true,
        after_restart: Allow::NOTHING,
        ..paired
    };
    assert!(pairing::line(&plain, 61_000).ends_with("beside plain data: nothing (as serve allows)"));
}
