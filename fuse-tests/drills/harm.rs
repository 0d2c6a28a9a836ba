//! What a proof damages, and that it is the content alone.

use std::os::unix::ffi::OsStrExt;

use super::*;

/// Nothing below it is immutable when it goes.
struct Clears(PathBuf);

impl Drop for Clears {
    fn drop(&mut self) {
        let _ = Command::new("chattr").args(["-R", "-f", "-i"]).arg(&self.0).output();
    }
}

/// Of a file with two names each bit was turned over twice; times told of the damage; a file that nobody may change ended
/// the proof; and a name that is no text was not seen.
#[test]
fn a_proof_damages_each_file_once_and_its_content_alone() {
    require_program("chattr");
    let pair = filled();
    let _clears = [&pair.backing, &pair.replica()].map(|dir| Clears(dir.clone()));
    let fill = "mkdir odd && printf content > odd/a && ln odd/a odd/b && touch -d @1000000000 odd/a \
                && printf kept > odd/kept && chattr +i odd/kept && printf text > odd/no\"$(printf '\\377')\"text";
    run(Command::new("sh").args(["-c", fill]).current_dir(&pair.mount));
    wait_sync(&pair);
    assert!(fs::read_dir(pair.replica().join("odd")).expect("a directory").count() == 4);
    let name = std::ffi::OsStr::from_bytes(b"no\xfftext");
    assert!(pair.replica().join("odd").join(name).exists());
    for (check, code, finding, damaged) in [
        ("cat odd/a odd/b | grep -qx contentcontent", 0, "noticed", &["odd/a"][..]),
        ("cat odd/a > /dev/null && test $(stat -c %Y odd/a) = 1000000000", 3, "passed", &["odd/a"]),
        ("cat odd/a > /dev/null && cat odd/kept | grep -qx kept", 0, "noticed", &["odd/a", "odd/kept"]),
        ("cat odd/kept > /dev/null && lsattr odd/kept | grep -q '^....i'", 3, "passed", &["odd/kept"]),
        ("cat odd/no* | grep -qx text", 0, "noticed", &["bytes:6f64642f6e6fff74657874"]),
    ] {
        let report = ran(&pair, code, &["--prove", "--check", check]);
        let proof = &report["proof"];
        assert_eq!(proof["checks"][0]["finding"], finding, "{check}: {proof}");
        let named: Vec<_> =
            proof["damaged"].as_array().expect("a list").iter().map(|one| &one["path"]).collect();
        assert_eq!(
            named,
            damaged.iter().map(|path| Value::from(*path)).collect::<Vec<_>>().iter().collect::<Vec<_>>()
        );
        assert_eq!(
            (&proof["left_out_files"], &proof["checks"][0]["read_files"]),
            (&0.into(), &damaged.len().into())
        );
        assert_nothing_left(&pair);
    }
}
