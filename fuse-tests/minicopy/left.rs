//! What a daemon has marked that was killed under its mount is all that its targets lack: nothing is searched.

use super::*;

const HOLDER: &[&str] = &["--holder", "--takeover-timeout", "60s"];

fn generations(protected: &Protected) -> Vec<Value> {
    let output = output_within(standin(&protected.run).args(["bitmap", "show", "--json"]), COMMAND_MAX);
    let shown: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", describe(&output)));
    shown["generations"].as_array().expect("generations").clone()
}

#[test]
fn what_a_killed_daemon_has_marked_is_shown_and_nothing_else() {
    let mut protected = Protected::start(Setup { arguments: HOLDER.to_vec(), ..Setup::default() });
    make_tree(&protected.mount);
    protected.wait_sync();
    wait_for_a_moment(&protected);
    wait_until("the map begins after what is there", || {
        let generations = generations(&protected);
        assert!(generations.iter().all(|one| one["kept"] == true), "{generations:?}");
        generations.iter().all(|one| one["percent"].as_f64().is_some_and(|percent| percent < 0.5))
    });
    change_some(&protected.mount);
    // Killed again before anything was brought: what both have marked is owed.
    for _ in 0..2 {
        protected.kill9();
        protected.start_at_once();
    }
    protected.wait_in_line();
    assert!(protected.assert_in_sync().objects > DIRECTORIES * FILES / 2);
    assert_is_mini(&protected);
    assert_taken(&protected, false, "another run of the protection");
    // What was deleted was deleted by a program, through the mount.
    let orphans = output_within(standin(&protected.run).args(["orphans", "list", "--json"]), COMMAND_MAX);
    assert!(!describe(&orphans).contains("f2"), "{}", describe(&orphans));
    change_some_more(&protected);
    wait_until("nothing of daemons before is wanted any more", || {
        generations(&protected).iter().all(|one| one["earlier"] == false)
    });
    protected.stop();
}

#[test]
fn after_kills_under_load_nothing_is_searched() {
    let mut protected = Protected::start(Setup { arguments: HOLDER.to_vec(), ..Setup::default() });
    make_tree(&protected.mount);
    protected.wait_sync();
    wait_for_a_moment(&protected);
    let (end, mount) = (AtomicBool::new(false), protected.mount.clone());
    std::thread::scope(|scope| {
        let _end = crate::host::StopAtEnd(&end);
        let mover = scope.spawn(|| move_about(&mount, &end));
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(300));
            protected.kill9();
            protected.start_again();
            let taken = status(&protected.run)["connections"][0]["resync"].clone();
            assert_eq!((&taken["rung"], &taken["searched"]), (&"owed".into(), &false.into()), "{taken}");
        }
        end.store(true, Ordering::Relaxed);
        mover.join().expect("the mover");
    });
    protected.wait_sync();
    assert!(protected.assert_in_sync().objects > DIRECTORIES * FILES / 2);
    protected.stop();
}
