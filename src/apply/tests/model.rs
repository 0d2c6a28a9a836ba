//! Random changes of a plain directory, told to a replica that is killed now and then.

use std::collections::BTreeSet;

use super::*;
use crate::random::Random;

#[derive(Default)]
struct Names {
    dirs: Vec<String>,
    files: Vec<String>,
    others: Vec<String>,
}

/// What there is on the source now.
fn names(root: &Path) -> Names {
    fn walk(root: &Path, dir: &str, names: &mut Names) {
        let mut entries: Vec<_> = std::fs::read_dir(root.join(dir)).unwrap().map(Result::unwrap).collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name().into_string().unwrap();
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                walk(root, &path, names);
                names.dirs.push(path);
            } else if kind.is_file() {
                names.files.push(path);
            } else {
                names.others.push(path);
            }
        }
    }
    let mut found = Names::default();
    walk(root, "", &mut found);
    found
}

/// One random change; `None` where this one is not possible now.
pub fn change(source: &Source, random: &mut Random) -> Option<Said> {
    let names = names(&source.root);
    let all: Vec<String> = [&names.dirs[..], &names.files, &names.others].concat();
    let dir = random.pick(&names.dirs).filter(|_| all.len().is_multiple_of(2)).cloned();
    let dir = dir.map(|dir| dir + "/").unwrap_or_default();
    let fresh = format!("{dir}n{}", random.below(60));
    let free = !source.path(&fresh).exists() && !source.path(&fresh).is_symlink();
    let file = random.pick(&names.files).cloned();
    let any = random.pick(&all).cloned();
    let other = random.pick(&all).cloned();
    let mode = random.below(0o10000) as u32;
    let (offset, len) = (random.below(40_000), random.below(9000) + 1);
    match random.below(21) {
        0 | 1 if free => Some(source.create(&fresh, mode)),
        2 if free => Some(source.mkdir(&fresh, mode)),
        3 if free => Some(source.symlink(&fresh, "somewhere/else")),
        4 if free => Some(source.mknod(&fresh, Birth::CharDevice { major: 5, minor: 6 })),
        5 if free => Some(source.link(&file?, &fresh)),
        6 => Some(source.unlink(names.others.first().or(file.as_ref())?)),
        7 => {
            let empty = |dir: &&String| std::fs::read_dir(source.path(dir)).unwrap().next().is_none();
            Some(source.rmdir(names.dirs.iter().find(empty)?))
        }
        8 | 9 if free => {
            let from = any?;
            (!fresh.starts_with(&(from.clone() + "/"))).then(|| source.rename(&from, &fresh))
        }
        10 => {
            let (from, to) = (file?, other?);
            let fits =
                source.path(&to).symlink_metadata().unwrap().is_file() && source.id(&from) != source.id(&to);
            fits.then(|| source.rename(&from, &to))
        }
        11 => {
            let (left, right) = (any?, other?);
            let nested = left.starts_with(&right) || right.starts_with(&left);
            (!nested && source.id(&left) != source.id(&right)).then(|| source.exchange(&left, &right))
        }
        12..=14 => Some(source.write(&file?, offset, &vec![len as u8; len as usize])),
        15 => Some(source.resize(&file?, offset)),
        16 => Some(source.reserve(&file?, offset, len, Reserve::ZeroRange)),
        17 => Some(source.chown(&any?, mode, offset as u32)),
        18 => Some(source.chmod(&names.dirs.first().cloned().or(file)?, mode)),
        19 => Some(source.set_xattr(&file?, "user.x", &[mode as u8; 20])),
        20 => {
            let mtime = Timestamp { seconds: offset as i64 - 20_000, nanoseconds: len as u32 * 1000 + 7 };
            Some(source.utimes(&any?, mtime))
        }
        _ => None,
    }
}

#[test]
fn random_changes_arrive_whatever_dies() {
    for seed in [1, 2, 3, 4] {
        eprintln!("seed {seed}");
        let mut pair = Pair::new();
        let mut random = Random::new(seed);
        let mut changes = 0;
        while changes < 500 {
            let Some(said) = change(&pair.source, &mut random) else { continue };
            changes += 1;
            match random.below(12) {
                0 => {
                    // Killed between the op and its record.
                    let frame = pair.frame(&said);
                    let replica = pair.applier().replica();
                    replica.pretend_begun(frame.position);
                    replica.perform(&said.0, &said.1, Doubt::None).unwrap();
                    pair.crash();
                    assert!(matches!(pair.applier().handle(&frame), Outcome::Applied), "{:?}", said.0);
                }
                1 => {
                    pair.say(said);
                    pair.crash();
                }
                _ => pair.say(said),
            }
            if changes % 50 == 0 {
                pair.assert_same();
            }
        }
        pair.applier().durable_point().unwrap();
        pair.assert_same();
        assert_eq!(known(&mut pair), expected(&pair), "objects that are gone are forgotten, no others");
    }
}

fn known(pair: &mut Pair) -> BTreeSet<ObjectId> {
    let mut known = BTreeSet::new();
    let index = pair.applier().replica().index();
    index.for_each(|id, _| Ok(_ = known.insert(id))).unwrap();
    known
}

fn expected(pair: &Pair) -> BTreeSet<ObjectId> {
    let Names { dirs, files, others } = names(&pair.source.root);
    let root = [String::new()];
    root.iter().chain(&dirs).chain(&files).chain(&others).map(|path| pair.source.id(path)).collect()
}
