//! What a daemon does not become, and what it comes back from.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{HOLDER, another_program, hold, program_of, protected, sent, status, upgrade, upgraded};
use crate::host::{COMMAND_MAX, Disk, Place, Protected, Setup, binary, describe, output_within};
use crate::outlive::holders;
use crate::pair::Pair;
use crate::tree::Rules;

/// A script in the place of a program.
fn script(protected: &Protected, name: &str, text: &str) -> PathBuf {
    let path = protected.base.path().join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a script");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("our own file");
    path
}

#[track_caller]
fn assert_refused(protected: &Protected, program: &Path, why: &str) {
    let (before, pid) = (program_of(protected.daemon()), protected.daemon().pid());
    let began = status(protected)["since_unix_ms"].clone();
    let output = output_within(upgrade(&protected.run, &[]).arg("--binary").arg(program), COMMAND_MAX);
    let said = describe(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(why), "not {why:?}: {said}");
    assert!(said.contains("Nothing was changed"), "{said}");
    assert_eq!(program_of(protected.daemon()), before);
    let after = status(protected);
    assert_eq!((&after["since_unix_ms"], after["pid"].as_u64()), (&began, Some(u64::from(pid))));
    assert_eq!(after["holder"]["upgrade"], serde_json::Value::Null);
    fs::write(protected.mount.join("file"), why).expect("a write");
}

#[test]
fn what_is_no_program_that_fits_changes_nothing() {
    let mut protected = protected(Place::Beside);
    let real = binary().display().to_string();
    let answer = |change: &str| format!("{real} \"$@\" | sed -e '{change}'");
    let plain = protected.base.path().join("plain");
    fs::copy(binary(), &plain).expect("a copy");
    fs::set_permissions(&plain, PermissionsExt::from_mode(0o644)).expect("our own file");
    let other = |name: &str, change: &str| script(&protected, name, &answer(change));
    let cases = [
        (PathBuf::from("/nowhere/standin"), "No such file"),
        (protected.base.path().to_owned(), "it is no file"),
        (plain, "Permission denied"),
        (PathBuf::from("/bin/true"), "does not answer"),
        (PathBuf::from("/bin/false"), "ended with exit status: 1"),
        (
            other("memory", r#"s/"memory":[0-9]*/"memory":77/"#),
            "another format of what a daemon keeps (memory)",
        ),
        (other("none", r#"s/"holder":[0-9]*,//"#), "another format of what a daemon keeps (holder)"),
        (other("wire", r#"s/"wire":\[[0-9]*,[0-9]*\]/"wire":[77,78]/"#), "version 78 of the wire"),
        (script(&protected, "options", &format!("{real} \"$@\" --unknown")), "--unknown"),
    ];
    for (program, why) in cases {
        assert_refused(&protected, &program, why);
    }
    protected.assert_in_sync();
    protected.stop();
}

#[test]
fn without_a_holder_it_is_said_what_is_needed() {
    let mut protected = Protected::start(Setup::default());
    assert_refused(&protected, Path::new(&binary()), "--holder");
    protected.assert_in_sync();
    protected.stop();
}

/// The program that goes on looks for the directory of the queue: without it, it would not, and neither would the one
/// of before.
#[test]
fn a_directory_of_the_queue_that_is_gone_is_said_before() {
    let base = tempfile::tempdir().expect("a directory");
    let [queue, away] = ["queue", "away"].map(|name| base.path().join(name));
    fs::create_dir(&queue).expect("a directory");
    let queue_text: &'static str = queue.display().to_string().leak();
    let arguments = [HOLDER.to_vec(), vec!["--queue-dir", queue_text]].concat();
    let mut protected = Protected::start(Setup { arguments, ..Setup::default() });
    fs::rename(&queue, &away).expect("moved away");
    assert_refused(&protected, Path::new(&binary()), "it is not created by itself");
    fs::rename(&away, &queue).expect("back");
    upgraded(&protected.run, Path::new(&binary()));
    protected.assert_in_sync();
    protected.stop();
}

/// A target that does not take the rest: changes are held no longer than was said, and none of them fails.
#[test]
fn changes_are_held_no_longer_than_was_said() {
    let mut pair = Pair::start(Disk::Plain, Disk::Plain);
    hold(&mut pair);
    fs::write(pair.mount.join("before"), "it").expect("a write");
    pair.assert_in_sync_of(1, &Rules::default());
    let target = pair.target.as_ref().expect("it serves");
    target.signal(libc::SIGSTOP);
    let program = PathBuf::from(binary());
    let request = format!(
        r#"{{"request":"upgrade","upgrade":{{"program":"{}","patience_ms":1500,"anyway":false,"dry_run":false}}}}"#,
        program.display()
    );
    let mut socket = UnixStream::connect(pair.run("source").join("here.sock")).expect("the daemon");
    writeln!(socket, "{request}").expect("a request");
    let path = pair.mount.join("meanwhile");
    let writing = std::thread::spawn(move || {
        let began = Instant::now();
        (0..50).try_for_each(|number| {
            std::thread::sleep(Duration::from_millis(20));
            fs::write(&path, format!("{number}"))
        })?;
        std::io::Result::Ok(began.elapsed())
    });
    let mut answer = String::new();
    BufReader::new(&socket).read_line(&mut answer).expect("an answer");
    target.signal(libc::SIGCONT);
    assert!(answer.contains("longer than 1.5 s") && answer.contains("Nothing was changed"), "{answer}");
    let took = writing.join().expect("a thread").expect("no write failed");
    assert!(took > Duration::from_millis(2000), "nothing was held: {took:?}");
    let (_, status) = sent(&pair);
    assert_eq!(status["holder"]["upgrade"], serde_json::Value::Null);
    pair.assert_in_sync_of(1, &Rules::default());
    // And then it is done.
    super::upgraded(&pair.run("source"), &program);
    pair.stop_source();
}

/// The new program fails before it serves: the one of before goes on in the same process, and says why.
#[test]
fn a_program_that_does_not_come_to_serve_gives_the_mount_back() {
    let mut protected = protected(Place::Beside);
    let (old, real) = (program_of(protected.daemon()), another_program(&protected, "real"));
    let (replica, own) = (protected.replica.display(), real.display());
    // Its target is not there, until the other program looks for it.
    let away = format!(
        "if [ \"$1\" = formats ]; then exec {own} \"$@\"; fi\n\
         pid=$$\n\
         mv {replica} {replica}.away\n\
         (until [ \"$(readlink /proc/$pid/exe)\" = {} ]; do :; done\n\
          kill -STOP $pid; mv {replica}.away {replica}; kill -CONT $pid) > /dev/null 2>&1 &\n\
         exec {own} \"$@\"",
        old.display()
    );
    let program = script(&protected, "fails", &away);
    let writing = {
        let path = protected.mount.join("waits");
        std::thread::spawn(move || {
            (0..200).try_for_each(|number| {
                std::thread::sleep(Duration::from_millis(5));
                fs::write(&path, format!("{number}"))
            })
        })
    };
    let output = output_within(upgrade(&protected.run, &[]).arg("--binary").arg(&program), COMMAND_MAX);
    let said = describe(&output);
    assert_eq!(output.status.code(), Some(2), "{said}\n{}", protected.said());
    assert!(said.contains("did not come to serve") && said.contains("goes on"), "{said}");
    writing.join().expect("a thread").expect("no write failed");
    assert_eq!(program_of(protected.daemon()), old);
    let status = status(&protected);
    let why = status["holder"]["upgrade"]["failed"].as_str().unwrap_or_default();
    assert!(!why.is_empty() && protected.said().contains("the one of before does"), "{status:#}");
    protected.assert_in_sync();
    protected.stop();
}

/// It answers what it is asked, and ends when it should serve: that is said at once, and the next daemon goes on.
#[test]
fn a_program_that_ends_at_once_is_not_waited_for() {
    let mut protected = protected(Place::Beside);
    let real = binary().display().to_string();
    let text = format!("case \" $* \" in *\" formats \"*) exec {real} \"$@\";; esac\nexit 7");
    let program = script(&protected, "brief", &text);
    let output = output_within(upgrade(&protected.run, &[]).arg("--binary").arg(program), COMMAND_MAX);
    let said = describe(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("has ended before the next program served"), "{said}");
    protected.forget_ended_with(&[7]);
    // Everything was handed over: it goes on as the same run, and nothing is copied.
    protected.start_at_once();
    assert_eq!(status(&protected)["connections"][0]["progress"], serde_json::Value::Null);
    fs::write(protected.mount.join("file"), "again").expect("a write");
    protected.assert_in_sync();
    protected.stop();
}

/// On a busy machine it takes its time, and was taken for one of an older version.
#[test]
fn a_holder_that_answers_late_is_waited_for() {
    let mut protected = protected(Place::Beside);
    let [holder] = holders(&protected)[..] else { panic!("no holder, or several") };
    let holder = rustix::process::Pid::from_raw(holder as i32).expect("a process");
    let signal = |signal| rustix::process::kill_process(holder, signal).expect("it lives");
    let program = another_program(&protected, "late");
    signal(rustix::process::Signal::STOP);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(3));
            signal(rustix::process::Signal::CONT);
        });
        upgraded(&protected.run, &program);
    });
    assert_eq!(program_of(protected.daemon()), program);
    protected.assert_in_sync();
    protected.stop();
}
