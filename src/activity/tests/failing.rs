//! A log whose disk fails.

use super::*;

#[test]
fn a_log_that_fails_is_taken_back_before_a_change_passes() {
    let kept = Kept::begin();
    kept.settle(true);
    let prepared = kept.log.prepare().unwrap();
    // Nothing can be renamed or made there any more.
    fs::remove_dir_all(kept.dir.path()).unwrap();
    fs::write(kept.dir.path(), "no directory").unwrap();
    assert!(kept.log.rotate(prepared));
    kept.settle(true);
    eventually("the failure", || matches!(kept.log.fill().standing, Standing::Failed(_)));
    assert!(kept.revoked.load(SeqCst));
    kept.heat(1);
    assert_eq!(kept.leave.load(SeqCst), u64::MAX);
    assert!(kept.log.prepare().is_err());
    kept.marked.store(77, SeqCst);
    kept.log.mark().unwrap();
    assert_eq!(kept.marked.load(SeqCst), 77, "what is taken back is not marked again");
    fs::remove_file(kept.dir.path()).unwrap();
    fs::create_dir(kept.dir.path()).unwrap();
}

/// The source's disk took nothing either: the log was believed at a start after a power loss, and changes had
/// passed it.
#[test]
fn a_log_that_fails_is_taken_back_where_the_other_disk_fails_too() {
    for has_own_disk in [true, false] {
        let kept = Kept::begin();
        kept.settle(true);
        kept.refuses.store(true, SeqCst);
        let prepared = kept.log.prepare().unwrap();
        assert!(kept.log.rotate(prepared));
        match has_own_disk {
            // It fails once: nothing can be removed that is not there.
            true => fs::remove_file(kept.dir.path().join("activity.1")).unwrap(),
            false => {
                fs::remove_dir_all(kept.dir.path()).unwrap();
                fs::write(kept.dir.path(), "no directory").unwrap();
            }
        }
        kept.settle(true);
        eventually("the failure", || matches!(kept.log.fill().standing, Standing::Failed(_)));
        kept.heat(1);
        assert!(!kept.revoked.load(SeqCst));
        if has_own_disk {
            assert!(kept.found().all.is_err(), "it says itself that it is worth nothing");
            continue;
        }
        kept.refuses.store(false, SeqCst);
        eventually("the source's disk is told again", || kept.revoked.load(SeqCst));
        fs::remove_file(kept.dir.path()).unwrap();
        fs::create_dir(kept.dir.path()).unwrap();
    }
}
