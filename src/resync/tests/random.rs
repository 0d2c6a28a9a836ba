//! Random trees, random changes on either side, random cuts: always equal afterwards.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, RenameFlags};

use super::cases::{acl, set_mtime, set_xattr};
use super::{Pair, tree};
use crate::random::Random;

/// Directories (with the root) and everything else, by path.
fn list(root: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut dirs, mut others, mut at) = (vec![root.to_owned()], Vec::new(), 0);
    while at < dirs.len() {
        for name in tree::names(&dirs[at]) {
            let path = dirs[at].join(name);
            if fs::symlink_metadata(&path).unwrap().is_dir() { dirs.push(path) } else { others.push(path) }
        }
        at += 1;
    }
    (dirs, others)
}

/// One random change below a root. What cannot be done is not done.
pub(super) fn change(root: &Path, random: &mut Random) {
    let (dirs, others) = list(root);
    let dir = random.pick(&dirs).cloned().unwrap();
    // Few names: collisions are what hurts.
    let new = dir.join(format!("n{}", random.below(6)));
    let any: Vec<_> = dirs[1..].iter().chain(&others).cloned().collect();
    let is_new = fs::symlink_metadata(&new).is_err();
    match random.below(16) {
        0..=2 if is_new => write_file(&new, random),
        3 if is_new => fs::create_dir(&new).unwrap(),
        4 if is_new => symlink(format!("to {}", random.below(2)), &new).unwrap(),
        5 if is_new => {
            let kind = *random.one_of(&[FileType::Fifo, FileType::Socket, FileType::CharacterDevice]);
            rustix::fs::mknodat(CWD, &new, kind, Mode::RUSR, rustix::fs::makedev(1, 3)).unwrap();
        }
        6 | 7 => {
            if let Some(old) = random.pick(&others).cloned() {
                let _ = fs::hard_link(old, new);
            }
        }
        8 | 9 => {
            if let Some(old) = random.pick(&any).cloned() {
                let _ = fs::rename(old, new);
            }
        }
        10 => {
            if let (Some(left), Some(right)) = (random.pick(&any).cloned(), random.pick(&any).cloned()) {
                let _ = rustix::fs::renameat_with(CWD, left, CWD, right, RenameFlags::EXCHANGE);
            }
        }
        11 => {
            if let Some(path) = random.pick(&any).cloned() {
                let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
            }
        }
        12 | 13 => {
            let files: Vec<_> =
                others.into_iter().filter(|path| path.symlink_metadata().unwrap().is_file()).collect();
            if let Some(path) = random.pick(&files).cloned() {
                write_file(&path, random);
            }
        }
        _ => {
            if let Some(path) = random.pick(&any).cloned() {
                change_attributes(&path, random);
            }
        }
    }
}

fn write_file(path: &Path, random: &mut Random) {
    let file = File::options().write(true).create(true).truncate(random.below(2) == 0).open(path).unwrap();
    for _ in 0..random.below(4) {
        let bytes = vec![random.number() as u8; random.below(20_000) as usize];
        file.write_all_at(&bytes, random.below(10) * 50_000).unwrap();
    }
    if random.below(4) == 0 {
        file.set_len(random.below(600_000)).unwrap();
    }
    // Distinct times: two contents of one size and one mtime are what `suspect` is for.
    set_mtime(path, random.below(1 << 31) as i64, random.below(1_000_000_000) as i64);
}

fn change_attributes(path: &Path, random: &mut Random) {
    if path.symlink_metadata().unwrap().is_symlink() {
        return set_mtime(path, random.below(1 << 31) as i64, 5);
    }
    match random.below(5) {
        0 => chown(path, Some(random.below(9) as u32), Some(random.below(9) as u32)).unwrap(),
        1 => fs::set_permissions(path, fs::Permissions::from_mode(random.below(0o10000) as u32)).unwrap(),
        2 => {
            _ = rustix::fs::lsetxattr(
                path,
                "user.a",
                &[random.number() as u8],
                rustix::fs::XattrFlags::empty(),
            )
        }
        3 if path.is_dir() => set_xattr(path, "system.posix_acl_default", &acl()),
        3 => {
            _ = rustix::fs::setxattr(path, "system.posix_acl_access", &acl(), rustix::fs::XattrFlags::empty())
        }
        _ => _ = rustix::fs::lremovexattr(path, "user.a"),
    }
}

fn run(seed: u64) {
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let pair = Pair::new();
    for round in 0..8 {
        for _ in 0..random.below(60) {
            change(&pair.source, &mut random);
        }
        // In every third round somebody works on the replica, too: then content may have to be
        // compared byte by byte, which sizes and random times make sure of.
        if round % 3 == 2 {
            for _ in 0..random.below(20) {
                change(pair.replica(), &mut random);
            }
        }
        if random.below(2) == 0 {
            let _ = pair.run(None, 1 + random.below(30) as usize);
        }
        pair.converges();
        let again = pair.converges();
        assert_eq!((again.report.copied, again.orphans), (0, 0), "seed {seed}, round {round}");
    }
}

#[test]
fn random_trees_converge() {
    for _ in 0..6 {
        run(crate::store::random_u64());
    }
}
