//! Directories of this host that were handed over and become replicas: their covers are lifted at the start of the target
//! daemon, which cannot do that later (it is confined then).

use std::path::{Path, PathBuf};

use rustix::fs::StatVfsMountFlags;

use super::options::ServeOptions;
use crate::cover::{Cover, Standing, doubt_uncovered};

/// Covers that are not there any more, each with where its set is kept.
pub type Lifted = Vec<(PathBuf, Cover)>;

/// Those of replicas that are written elsewhere now, and, with `--adopt`, of all directories that may become one.
pub fn uncover(options: &ServeOptions) -> Lifted {
    doubt_uncovered(&options.state);
    let mut lifted = Vec::new();
    for (name, cover) in Cover::all(&options.state) {
        // One over another place than the data is in no replica's way.
        let of_root = cover.at == cover.tree && cover.tree.parent() == Some(&*options.root);
        let is_known = || {
            let name = cover.tree.file_name().map(|name| options.own_state().join(name).join("set.json"));
            name.is_some_and(|owner| owner.exists())
        };
        if !of_root || !(options.adopt || (cover.taken_over && is_known())) {
            continue;
        }
        let set_state = options.state.join(name);
        match cover.lift(&set_state) {
            Ok(Standing::OnTop) => {
                aside!("note: the cover of {} is lifted: it is a replica from here on.", cover.at.display());
                lifted.push((set_state, cover));
            }
            Ok(Standing::Beneath | Standing::Gone | Standing::GoneByStart) => {}
            Err(error) => {
                aside!("warning: the cover of {} cannot be lifted: {error}.", cover.at.display());
            }
        }
    }
    lifted
}

/// The daemon does not start after all.
pub fn put_back(lifted: &Lifted) {
    for (set_state, cover) in lifted {
        if let Err(error) = cover.put_back(set_state) {
            aside!("warning: {} cannot be covered again: {error}.", cover.at.display());
        }
    }
}

/// Why this directory cannot be a replica yet, in one line for both sides.
pub fn covered(state: &Path, root: &Path) -> Option<String> {
    let (name, _) = Cover::all(state).into_iter().find(|(_, cover)| cover.at == root)?;
    let is_read_only =
        rustix::fs::statvfs(root).is_ok_and(|vfs| vfs.f_flag.contains(StatVfsMountFlags::RDONLY));
    is_read_only.then(|| {
        format!(
            "{} on the target is covered (read-only) since its set was handed over: there, have `standin switch {name}` go \
             on, or restart `standin serve` with --adopt",
            root.display()
        )
    })
}
