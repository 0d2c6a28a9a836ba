//! A source whose replica is served elsewhere hears of it while it runs, or at its next start: it takes no
//! changes any more.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::time::{Duration, Instant};

use crate::host::{COMMAND_MAX, Daemon, SYNC_MAX, clear_mounts, describe, is_mounted, output_within};
use crate::pair::kill;
use crate::stand_in::{Scene, Side};
use crate::sys::Mapping;

fn errno<T>(outcome: std::io::Result<T>) -> Option<i32> {
    outcome.err().and_then(|error| error.raw_os_error())
}

/// The source goes on while its target is away, stands in, and is there again.
fn stood_in_for_meanwhile(scene: &mut Scene, acknowledged: impl FnOnce(&Side)) {
    let Scene { old, new, .. } = scene;
    kill(new.serve.as_mut().expect("it serves"));
    new.serve = None;
    acknowledged(old);
    new.protect(&["--stand-in"]);
    new.serve(&[]);
    let deadline = Instant::now() + SYNC_MAX;
    // A change that changes nothing: what is made and removed again stays where the fence comes in between, and
    // what is there already is refused for another reason from then on.
    let modes = fs::metadata(old.mount("d")).expect("a directory").permissions();
    while errno(fs::set_permissions(old.mount("d"), modes.clone())) != Some(libc::EROFS) {
        assert!(Instant::now() < deadline, "it goes on: {}", old.said());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn status(side: &Side) -> (Option<i32>, String) {
    let output = output_within(side.command().args(["status", "--json"]), COMMAND_MAX);
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// It wrote beside its stand-in for as long as nobody stopped it.
#[test]
fn a_source_that_runs_takes_no_changes_once_it_was_stood_in_for() {
    let mut scene = Scene::with_a_source(&[]);
    let open = File::options().append(true).create_new(true).open(scene.old.mount("open")).expect("a file");
    let file = File::options().read(true).write(true).create_new(true).open(scene.old.mount("mapped"));
    let file = file.expect("a file");
    file.set_len(4096).expect("a size");
    let mapping = Mapping::new(&file, 4096).expect("a mapping");
    scene.old.in_line();
    stood_in_for_meanwhile(&mut scene, |old| {
        (&open).write_all(b"acknowledged").expect("a write");
        mapping.store(0, b"stored").expect("a store");
        mapping.sync().expect("on the disk");
        fs::write(old.mount("late"), "acknowledged").expect("a write");
    });
    let Scene { old, new, .. } = &mut scene;
    let at = |name: &str| old.mount(name);
    for (what, outcome) in [
        ("an open file", errno((&open).write(b"more"))),
        ("a mapped file", errno(file.write_at(b"more", 0))),
        ("truncate", errno(file.set_len(1))),
        ("open", errno(File::options().write(true).open(at("late")))),
        ("create", errno(File::create_new(at("new")))),
        ("rename", errno(fs::rename(at("late"), at("later")))),
        ("unlink", errno(fs::remove_file(at("late")))),
        ("link", errno(fs::hard_link(at("late"), at("later")))),
        ("chmod", errno(fs::set_permissions(at("late"), fs::Permissions::from_mode(0o600)))),
        ("rmdir", errno(fs::remove_dir(at("moves")))),
    ] {
        assert_eq!(outcome, Some(libc::EROFS), "{what}");
    }
    // What had returned to a program is there, and reads go on.
    assert_eq!(fs::read(at("open")).expect("read"), b"acknowledged");
    assert_eq!(fs::read(at("late")).expect("read"), b"acknowledged");
    assert!(fs::read(old.tree().join("mapped")).expect("read").starts_with(b"stored"));
    // What a program stores is refused when it is written back, and who asks is told.
    mapping.store(0, b"beside").expect("a store");
    let told = mapping.sync().expect_err("nobody takes it");
    assert_eq!(told.raw_os_error(), Some(libc::EROFS), "{told}");
    assert!(fs::read(old.tree().join("mapped")).expect("read").starts_with(b"stored"));
    let (code, said) = status(old);
    assert!(code == Some(2) && said.contains("\"stood_in_for\"") && said.contains("epoch 2"), "{said}");
    assert!(said.contains("mapped_stores_refused"), "{said}");
    assert_eq!(fs::read(new.tree().join("open")).expect("read"), b"", "nothing of it came to the replica");
    drop((open, file, mapping));

    later_starts_are_refused(&mut scene);
    comes_home(&mut scene);
}

/// It stays so: the next start knows, also while the target is away.
fn later_starts_are_refused(Scene { old, new, .. }: &mut Scene) {
    kill(old.protect.as_mut().expect("it runs"));
    old.protect = None;
    clear_mounts(&old.at.join("mount"));
    old.refuses(&["--to", &new.address()], "was stood in for");
    kill(new.serve.as_mut().expect("it serves"));
    new.serve = None;
    old.refuses(&["--to", &new.address()], "epoch 2");
    // A person says otherwise: it takes changes as long as no target objects.
    old.protect(&["--to", &new.address(), "--start-unconfirmed"]);
    fs::write(old.mount("late"), "a person wants it").expect("a write");
    Side::stop_as_it_is(&mut old.protect);
    old.protect(&["--to", &new.address()]);
    Side::stop_as_it_is(&mut old.protect);
    new.serve(&[]);
    old.refuses(&["--to", &new.address(), "--start-unconfirmed"], "was stood in for");
}

/// The way home forgets it.
fn comes_home(Scene { old, new, .. }: &mut Scene) {
    Side::stop(&mut new.protect);
    old.serve(&["--adopt"]);
    new.pair_with(old);
    new.protect(&["--to", &old.address()]);
    new.in_line();
    // What only it had would go.
    let mut command = old.target_command();
    let gone = output_within(command.args(["clone", "stop", "lost-writes", "--force"]), COMMAND_MAX);
    assert!(gone.status.success(), "{}", describe(&gone));
    Side::stop(&mut new.protect);
    Side::stop(&mut old.serve);
    old.protect(&["--stand-in", "--to", &new.address()]);
    old.in_line();
    fs::write(old.mount("late"), "at home").expect("a write");
    old.in_line();
    Side::stop(&mut old.protect);
    old.protect(&["--to", &new.address()]);
}

/// What the kernel has gathered was told to be written, and nobody has it: who asks is told.
#[test]
fn what_was_gathered_is_refused_and_said() {
    let arguments = ["--profile", "batch", "--mmap-lag", "0"];
    let mut scene = Scene::with_a_source(&arguments);
    let gathered = File::create_new(scene.old.mount("gathered")).expect("a file");
    gathered.write_all_at(&[b'a'; 8192], 0).expect("a write");
    gathered.sync_all().expect("on the disk");
    scene.old.in_line();
    let mut taken = 0;
    stood_in_for_meanwhile(&mut scene, |_| {
        // The kernel writes back what is half a minute old: until then it has these bytes alone.
        taken = gathered.write_at(&[b'b'; 4096], 4096).expect("the kernel takes it");
    });
    let old = &scene.old;
    let told = gathered.sync_all();
    let content = fs::read(old.tree().join("gathered")).expect("read");
    match errno(told) {
        // A busy machine: it was written back before the fence came.
        None => assert_eq!(content[4096..], vec![b'b'; taken]),
        Some(number) => {
            assert_eq!(number, libc::EROFS);
            assert_eq!(content, [b'a'; 8192], "a prefix of what was written");
            assert_eq!(fs::read(old.mount("gathered")).expect("read"), content, "programs see what is there");
            let (code, said) = status(old);
            assert!(code == Some(2) && said.contains("mapped_stores_refused"), "{said}");
            assert!(said.contains("takes no changes any more"), "{said}");
        }
    }
    assert_eq!(
        errno(gathered.write_at(b"more", 0).and_then(|_| gathered.sync_all().map(|()| 0))),
        Some(libc::EROFS)
    );
    assert_eq!(gathered.metadata().map(|metadata| metadata.len()).ok(), Some(8192));
}

/// Nothing is sent there by a person's wish: the start asked nobody, and wrote beside the stand-in.
#[test]
fn a_start_asks_a_target_to_which_nothing_is_sent() {
    let mut scene = Scene::with_a_source(&[]);
    let Scene { old, new, .. } = &mut scene;
    old.in_line();
    let stopped = output_within(old.command().args(["connection", "stop"]), COMMAND_MAX);
    assert!(stopped.status.success(), "{}", describe(&stopped));
    kill(old.protect.as_mut().expect("it runs"));
    old.protect = None;
    clear_mounts(&old.at.join("mount"));
    let without_an_answer = |old: &mut Side| {
        let began = Instant::now();
        old.protect(&["--to", &new.address()]);
        eprintln!("started within {:?}", began.elapsed());
        Side::stop_as_it_is(&mut old.protect);
    };
    without_an_answer(old);
    new.protect(&["--stand-in"]);
    old.refuses(&["--to", &new.address()], "was stood in for");
    // It knows by itself from now on.
    kill(new.serve.as_mut().expect("it serves"));
    new.serve = None;
    old.refuses(&["--to", &new.address()], "epoch 2");
}

/// Whoever only tries to stand in, and is refused, must not keep the source from coming up: it ended with an error,
/// and a service manager gave it up. Nor may it write before that is decided.
#[test]
fn a_start_waits_until_it_is_decided_who_writes() {
    let mut scene = Scene::with_a_source(&[]);
    let Scene { old, new, .. } = &mut scene;
    old.in_line();
    Side::stop(&mut old.protect);
    // As a stand-in does before it knows whether the replica is good.
    let wanted = File::create(new.at.join("state/.serve/web/wanted")).expect("the state of a replica");
    wanted.try_lock().expect("nobody else wants it");
    let mut daemon = Daemon::spawn(old.protect_command(&["--to", &new.address()]));
    let deadline = Instant::now() + SYNC_MAX;
    while !daemon.said().contains("is not decided yet") {
        assert!(Instant::now() < deadline, "{}", daemon.said());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!is_mounted(&old.at.join("mount")), "it writes");
    drop(wanted);
    daemon.wait_ready();
    old.protect = Some(daemon);
    fs::write(old.mount("late"), "the stand-in was refused").expect("a write");
    old.in_line();
    // It does not wait for ever, and may be tried again.
    Side::stop(&mut old.protect);
    let wanted = File::create(new.at.join("state/.serve/web/wanted")).expect("the state of a replica");
    wanted.try_lock().expect("nobody else wants it");
    let refused = output_within(&mut old.protect_command(&["--to", &new.address()]), SYNC_MAX);
    let said = describe(&refused);
    assert!(refused.status.code() == Some(1) && said.contains("Start again"), "{said}");
    drop(wanted);
    old.protect(&["--to", &new.address()]);
    Side::stop(&mut old.protect);
}
