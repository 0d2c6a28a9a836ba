//! A data directory on a stand-in, which goes home: how long nobody can write, and that nothing of it is lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use super::{Postgres, Server};
use crate::host::{SYNC_MAX, describe, heavy, output_within};
use crate::stand_in::Scene;
use crate::switch::{handed_over, in_line, over, switch, take_over};
use crate::tree;

/// Under pgbench until the server ends for it; the old host gets all while programs work.
#[test]
fn postgresql_goes_home_from_a_stand_in() {
    let _heavy = heavy();
    let mut scene = Scene::with_a_source(&[]);
    let Scene { old, new, .. } = &mut scene;
    let base = old.at.parent().expect("a parent").to_owned();
    for path in [&base, &old.at, &new.at] {
        fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("our own directory");
    }
    let waits = handed_over(old, switch(old, &[]));
    old.protect = None;
    take_over(new, &[]);
    over(waits, old, 2);
    let mut server = Postgres::create(&new.mount("data"));
    let mut clients = server.start_load();

    old.serve(&["--adopt"]);
    new.pair_with(old);
    let mut add = new.target_command();
    let output = output_within(add.args(["connection", "add", &old.address(), "web"]), SYNC_MAX);
    assert!(output.status.success(), "{}{}", describe(&output), new.said());
    clients.assert_goes_on();
    in_line(new);
    clients.assert_goes_on();
    std::thread::sleep(Duration::from_secs(3));
    let told = clients.end();
    assert!(told.0.iter().all(|last| *last > 10), "{told:?}");

    let stops = Instant::now();
    server.stop();
    let stopped = stops.elapsed();
    let mut command = new.target_command();
    command.args(["switch", "web", "--yes"]);
    let waits = handed_over(new, command);
    new.protect = None;
    take_over(old, &["--to", &new.address()]);
    let frozen_ms = over(waits, new, 3);
    let starts = Instant::now();
    let mut server = Postgres::start(&old.mount("data")).unwrap_or_else(|wrong| panic!("{wrong}"));
    let (started, all) = (starts.elapsed(), stops.elapsed());
    println!(
        "no server for {all:?}: it stops in {stopped:?}, nobody can write for {frozen_ms} ms, it starts in {started:?}"
    );
    assert_eq!(server.check().expect("all is there"), told.0);
    server.stop();
    in_line(old);
    assert!(tree::assert_same(&old.tree(), &new.tree()).objects > Postgres::OBJECTS);
    let copy = base.join("copy");
    crate::databases::copy_away(&new.tree().join("data"), &copy);
    assert_eq!(Postgres::recover(&copy).expect("the replica at home"), told.0);
}
