//! Paths that must not touch: what is inside of what, through symlinks and bind mounts.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::mounts::MountTable;

/// Symlinks followed before a path counts as a loop (the kernel's own number).
const SYMLINKS_MAX: u32 = 40;

/// The absolute path without symlinks, found without ever touching a mount of this product: from
/// such a mount on (and from what does not exist on) the rest is taken as it is written.
///
/// Errors: `ELOOP`; whatever an existing directory on the way answers, except `ENOENT`.
pub fn resolve(path: &Path, mounts: &MountTable) -> io::Result<PathBuf> {
    resolve_by(path, mounts, |_, _| Ok(()))
}

/// [`resolve`] of a file that is to be written, where others may have put links in the way: those of root (and of this
/// user) may lead to its directory, and it is none itself.
///
/// Errors: `PermissionDenied` with the link that is not followed; else as of [`resolve`].
pub fn resolve_own(path: &Path, mounts: &MountTable) -> io::Result<PathBuf> {
    resolve_by(path, mounts, |(link, uid), is_last| {
        let why = match uid {
            _ if is_last => "is a symbolic link".to_owned(),
            uid if uid == 0 || uid == rustix::process::geteuid().as_raw() => return Ok(()),
            uid => format!("is a symbolic link of user {uid}"),
        };
        Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{} {why}", link.display())))
    })
}

/// `follow`: a link and who has made it; whether nothing comes behind it.
fn resolve_by(
    path: &Path,
    mounts: &MountTable,
    follow: impl Fn((&Path, u32), bool) -> io::Result<()>,
) -> io::Result<PathBuf> {
    let absolute = if path.is_absolute() { path.to_owned() } else { std::env::current_dir()?.join(path) };
    let mut todo = parts(&absolute);
    let mut done = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = todo.pop_front() {
        if part == ".." {
            done.pop();
            continue;
        }
        done.push(&part);
        if inside_standin(&done, mounts) {
            continue;
        }
        match fs::symlink_metadata(&done) {
            Ok(meta) if meta.is_symlink() => {
                links += 1;
                if links > SYMLINKS_MAX {
                    return Err(rustix::io::Errno::LOOP.into());
                }
                follow((&done, meta.uid()), todo.is_empty())?;
                let link = fs::read_link(&done)?;
                done.pop();
                if link.is_absolute() {
                    done = PathBuf::from("/");
                }
                parts(&link).into_iter().rev().for_each(|part| todo.push_front(part));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Names and `..` of a path; the root and `.` say nothing.
fn parts(path: &Path) -> VecDeque<OsString> {
    let telling = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(telling).collect()
}

fn inside_standin(path: &Path, mounts: &MountTable) -> bool {
    mounts.holding(path).is_some_and(|mount| mount.is_standin())
}

/// Whether `inner` is `outer` or below it. Both are resolved; they need not exist. Sees through
/// bind mounts in both directions.
pub fn is_within(inner: &Path, outer: &Path, mounts: &MountTable) -> bool {
    let by_location = match (mounts.location(inner), mounts.location(outer)) {
        (Some(inner), Some(outer)) => inner.is_within(&outer),
        _ => false,
    };
    inner.starts_with(outer) || by_location || has_ancestor(inner, outer, mounts)
}

/// Whether the object `outer` is among `inner` and its parents: catches what mountinfo does not
/// show, as subvolumes.
fn has_ancestor(inner: &Path, outer: &Path, mounts: &MountTable) -> bool {
    let identity = |path: &Path| {
        if inside_standin(path, mounts) || mounts.is_covered(path) {
            return None;
        }
        fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
    };
    let Some(sought) = identity(outer) else { return false };
    inner.ancestors().any(|ancestor| identity(ancestor) == Some(sought))
}

/// How two places lie to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    Apart,
    Same,
    /// The first is inside the second.
    Inside,
    /// The second is inside the first.
    Around,
}

/// The relation of two resolved paths.
pub fn relation(first: &Path, second: &Path, mounts: &MountTable) -> Relation {
    match (is_within(first, second, mounts), is_within(second, first, mounts)) {
        (true, true) => Relation::Same,
        (true, false) => Relation::Inside,
        (false, true) => Relation::Around,
        (false, false) => Relation::Apart,
    }
}
