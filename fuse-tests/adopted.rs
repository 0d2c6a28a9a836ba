//! What only the old source had is kept when its directory becomes the replica of who stood in for it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::host::{
    COMMAND_MAX, Image, SYNC_MAX, clear_mounts, describe, dir_on_disk, output_within, require_host, run,
};
use crate::pair::kill;
use crate::stand_in::{Scene, Side};
use crate::switch::{in_line, take_over};

type Draw<'a> = &'a mut dyn FnMut(u64) -> u64;

/// What programs do, to objects that were there before and to others. Some of it goes wrong: the object is gone.
fn work(root: &Path, who: &str, draw: Draw<'_>) {
    for number in 0..80 {
        let mut known = |dir: &str| root.join(dir).join(draw(300).to_string());
        let (one, other) = (known("d"), known("moves"));
        let fresh = root.join(format!("{who} {number}"));
        let _ = match draw(11) {
            0 => fs::OpenOptions::new()
                .write(true)
                .open(&one)
                .and_then(|file| file.write_all_at(b"in place", 30)),
            1 => fs::OpenOptions::new().write(true).open(&one).and_then(|file| file.set_len(draw(9000))),
            2 => fs::write(&other, format!("rewritten by {who}")),
            3 => fs::write(&fresh, who.repeat(number)),
            4 => {
                fs::create_dir_all(fresh.join("deep")).and_then(|()| fs::write(fresh.join("deep/file"), who))
            }
            5 => fs::rename(&one, &other),
            6 => fs::remove_file(&one),
            7 => fs::set_permissions(&other, fs::Permissions::from_mode(0o600 + draw(64) as u32)),
            8 => fs::rename(&other, root.join("d/deep").join(format!("{who} {number}"))),
            9 => std::os::unix::fs::symlink(who, &fresh),
            _ => fs::hard_link(&one, &fresh),
        };
    }
    let _ = fs::rename(root.join("moves"), root.join(format!("moved by {who}")));
}

/// What differs of each object of a directory that was copied away before, by a look of its own at both.
fn traced(before: &Path, now: &Path) -> BTreeMap<PathBuf, Vec<&'static str>> {
    let (mut found, mut todo) = (BTreeMap::new(), vec![PathBuf::new()]);
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(before.join(&dir)).expect("a directory") {
            let path = dir.join(entry.expect("an entry").file_name());
            let (own, other) = (before.join(&path), now.join(&path));
            let one = fs::symlink_metadata(&own).expect("it is there");
            if one.is_dir() {
                todo.push(path.clone());
            }
            let mut how = Vec::new();
            match fs::symlink_metadata(&other) {
                Err(_) => how.push("gone"),
                Ok(two) if one.file_type() != two.file_type() => how.push("content"),
                Ok(two) => {
                    let is_same = match one.file_type() {
                        kind if kind.is_file() => bytes(&own) == bytes(&other),
                        kind if kind.is_symlink() => fs::read_link(&own).ok() == fs::read_link(&other).ok(),
                        _ => true,
                    };
                    if !is_same {
                        how.push("content");
                    }
                    let time =
                        |meta: &fs::Metadata| (!meta.is_dir()).then(|| (meta.mtime(), meta.mtime_nsec()));
                    let looks = |meta: &fs::Metadata| (meta.mode(), meta.uid(), meta.gid(), time(meta));
                    if looks(&one) != looks(&two) {
                        how.push("attributes");
                    }
                }
            }
            if !how.is_empty() {
                found.insert(path, how);
            }
        }
    }
    found
}

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn typed(side: &Side, words: &[&str]) -> Output {
    output_within(side.target_command().args(words), SYNC_MAX)
}

fn listed(side: &Side) -> Value {
    let output = typed(side, &["--json", "lost-writes", "list"]);
    let found: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", describe(&output)));
    assert_eq!(found["lost_writes"].as_array().map(Vec::len), Some(1), "{found}");
    found["lost_writes"][0].clone()
}

fn objects(listed: &Value) -> BTreeMap<PathBuf, Vec<&str>> {
    let objects = listed["objects"].as_array().expect("objects").iter();
    let how = |one: &Value| {
        let differs = one["differs"].as_array().expect("a list").clone();
        differs
            .iter()
            .map(|how| match how.as_str() {
                Some("gone") => "gone",
                Some("content") => "content",
                _ => "attributes",
            })
            .collect()
    };
    objects.map(|one| (PathBuf::from(one["path"].as_str().expect("a path")), how(one))).collect()
}

fn copied_away(side: &Side) -> PathBuf {
    let before = side.at.join("before");
    run(Command::new("cp").arg("-a").arg(side.tree()).arg(&before));
    before
}

/// The same object, with everything that is compared.
#[track_caller]
fn same_object(one: &Path, other: &Path) {
    let looks = |path: &Path| -> io::Result<_> {
        let meta = fs::symlink_metadata(path)?;
        let time = (!meta.is_dir()).then(|| (meta.mtime(), meta.mtime_nsec(), meta.size()));
        Ok((meta.mode(), meta.uid(), meta.gid(), time, fs::read_link(path).ok(), fs::read(path).ok()))
    };
    let (one_looks, other_looks) = (looks(one).expect("it is there"), looks(other).expect("it is there"));
    assert!(one_looks == other_looks, "{} is not {}", one.display(), other.display());
}

/// Everything that the old host had and nobody else has was overwritten.
#[test]
fn what_only_the_old_source_had_is_listed_and_taken_out() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let mut seed: u64 = seed.unwrap_or_else(standin::store::random_u64);
    eprintln!("SEED={seed}");
    let mut draw = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut scene = Scene::with_a_source(&[]);
    let Scene { old, new, .. } = &mut scene;
    // The link is cut, programs go on, the source dies.
    let cut = output_within(old.command().args(["connection", "pause"]), COMMAND_MAX);
    assert!(cut.status.success(), "{}", describe(&cut));
    work(&old.point, "old", &mut draw);
    fs::write(old.mount("only here"), "nobody else has it").expect("a write");
    kill(old.protect.as_mut().expect("it runs"));
    old.protect = None;
    clear_mounts(&old.point);
    take_over(new, &[]);
    work(&new.point, "new", &mut draw);
    let before = copied_away(old);

    old.serve(&["--adopt"]);
    new.pair_with(old);
    let added = typed(new, &["connection", "add", &old.address(), "web"]);
    assert!(added.status.success(), "{}", describe(&added));
    in_line(new);
    let expected = traced(&before, &old.tree());
    assert!(expected.len() > 40, "{expected:?}");
    for how in ["gone", "content", "attributes"] {
        assert!(expected.values().any(|found| found.contains(&how)), "nothing is '{how}'");
    }
    let found = listed(old);
    assert_eq!(objects(&found), expected, "{found}");
    assert!(found["copy_ended"] == true && found["taken_out"] == false, "{found}");

    // It stays when the daemon is killed, and is said.
    kill(old.serve.as_mut().expect("it runs"));
    old.serve(&["--adopt"]);
    in_line(new);
    let status = describe(&typed(old, &["status"]));
    assert!(status.contains("is kept (") && status.contains("are refused until it was"), "{status}");
    assert_eq!(objects(&listed(old)), expected);
    let point = old.point.to_str().expect("text").to_owned();
    let served = describe(&typed(old, &["failover", "web", "--dry-run", "--at", &point]));
    assert!(served.contains("standin lost-writes extract --to"), "{served}");

    let shown = typed(old, &["lost-writes", "show", "only here"]);
    assert_eq!(shown.stdout, b"nobody else has it", "{}", describe(&shown));
    let shown = describe(&typed(old, &["lost-writes", "show", "written"]));
    assert!(shown.contains("as it was, or was never there"), "{shown}");
    let part = old.at.join("part");
    let words = ["lost-writes", "extract", "only here", "--to", part.to_str().expect("text")];
    let taken = typed(old, &words);
    assert!(taken.status.success(), "{}", describe(&taken));
    assert_eq!(bytes(&part.join("only here")), b"nobody else has it");
    assert_eq!(fs::read_dir(&part).expect("a directory").count(), 1);
    assert_eq!(listed(old)["taken_out"], false, "a part is not all");

    let lost = old.at.join("lost");
    let taken = typed(old, &["lost-writes", "extract", "--to", lost.to_str().expect("text")]);
    assert!(taken.status.success(), "{}", describe(&taken));
    expected.keys().for_each(|path| same_object(&before.join(path), &lost.join(path)));
    let found = listed(old);
    assert!(found["taken_out"] == true && objects(&found) == expected, "it is kept all the same: {found}");
    let served = describe(&typed(old, &["failover", "web", "--dry-run", "--at", &point]));
    assert!(!served.contains("lost-writes"), "{served}");
    assert!(!describe(&typed(old, &["status"])).contains("lost-writes"), "it is still warned of");
    Side::stop(&mut new.protect);
}

/// What does not fit is not found out when it is lost.
#[test]
fn a_directory_that_may_not_fit_beside_itself_is_not_adopted_before_it_is_said() {
    require_host();
    let base = dir_on_disk();
    let side = Side::new(base.path(), "old");
    fs::remove_dir(side.at.join("srv")).expect("it is empty");
    let _disk = Image::mount(base.path(), side.at.join("srv"), "ext4", 96);
    // Dropped before its disk.
    let mut side = side;
    fs::create_dir(side.tree()).expect("a directory");
    fs::write(side.tree().join("large"), vec![7; 60 << 20]).expect("a file");
    side.protect(&["--to", "null:"]);
    Side::stop(&mut side.protect);
    let mut command = side.target_command();
    command.arg("serve").arg("--root").arg(side.at.join("srv")).arg("--adopt");
    let refused = output_within(&mut command, COMMAND_MAX);
    let said = describe(&refused);
    assert!(refused.status.code() == Some(2) && said.contains("is kept before it is overwritten"), "{said}");
    assert!(said.contains("--lost-writes"), "{said}");
    side.serve(&["--adopt", "--lost-writes", "10M"]);
    Side::stop(&mut side.serve);
}
