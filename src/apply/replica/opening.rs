//! Opening a replica: whose directory it is, what of its state can be believed, and what is made
//! where it is missing.

use std::cell::{Cell, RefCell};
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, Timespec, Timestamps, UTIME_OMIT, statx};

use super::Replica;
use super::aside::Aside;
use super::begun::Begun;
use super::descriptors::{Descriptors, Shared};
use super::durable::Points;
use super::flags::PendingFlags;
use super::handles;
use super::index::Index;
use super::inside::{Placed, SeenNames};
use super::kept;
use super::nameless::Nameless;
use super::progress::{OpenError, Progress, Strange};
use super::times::Times;
use super::writer::Writer;
use crate::apply::policy::Policy;
use crate::clone::{self, Sessions};
use crate::limits::{COPY_DESCRIPTORS, target_descriptors};
use crate::open_files;
use crate::packet::{Epoch, Position, SetId};
use crate::store::{Symlink, own_directory};
use crate::sys::FileHandle;
use crate::words::{Allow, RESERVED_NAME};

/// Where a replica and what belongs to it lie. Limbo is on the file system of the root, beside it.
#[derive(Clone, Debug)]
pub struct Places {
    pub root: PathBuf,
    /// Temporary files, and objects without a name. Made if it is not there.
    pub limbo: PathBuf,
    /// Index, positions, pending times. Made if it is not there.
    pub state: PathBuf,
}

impl Places {
    /// The usual place of limbo: `.NAME.standin` beside the root.
    pub fn beside(root: &Path, state: &Path) -> Places {
        Places { root: root.to_owned(), limbo: Places::limbo_of(root), state: state.to_owned() }
    }

    /// Where it is, or would be: beside the root, or in it where that is a mount point (or the root of a
    /// subvolume), from which nothing can be moved out.
    pub fn limbo_of(root: &Path) -> PathBuf {
        if is_a_border(root) {
            return root.join(RESERVED_NAME);
        }
        let mut name = std::ffi::OsString::from(".");
        name.push(root.file_name().unwrap_or_default());
        name.push(".standin");
        root.with_file_name(name)
    }
}

impl Replica {
    /// Opens the replica of a set: an empty directory becomes one, a directory of another set or
    /// with files of unknown origin is refused and left untouched.
    pub fn open(places: &Places, set: SetId) -> Result<Replica, OpenError> {
        Self::open_as(places, set, Strange::Refuse)
    }

    /// [`Replica::open`], but a directory with files of unknown origin is taken over: bad until a
    /// resynchronisation has compared everything in it.
    pub fn open_or_adopt(places: &Places, set: SetId) -> Result<Replica, OpenError> {
        Self::open_as(places, set, Strange::Adopt)
    }

    fn open_as(places: &Places, set: SetId, strange: Strange) -> Result<Replica, OpenError> {
        let io = |what| move |error| OpenError::Io(what, error);
        let root = open_directory(&places.root)?;
        FileHandle::of(root.as_fd()).map_err(|error| match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => OpenError::NoFileHandles,
            _ => OpenError::Io("file handle of the root", error),
        })?;
        if let Some(why) = handles::are_passing(&root).map_err(io("file system of the root"))? {
            return Err(OpenError::NoIdentities(why));
        }
        own_directory(&places.state, 0o700, Symlink::Own).map_err(io("state directory of the replica"))?;
        let mut progress = Progress::open(&root, &places.state, set, strange)?;
        // Who may write beside the replica could have planted it.
        let limbo = own_limbo(&root, places).map_err(io("place for temporary files"))?;
        if device(&root)? != device(&limbo)? {
            return Err(OpenError::LimboElsewhere);
        }
        if let Some(why) = handles::are_of_names(&limbo) {
            return Err(OpenError::NoIdentities(why));
        }
        let nameless = Nameless::open(&limbo).map_err(|error| OpenError::Io("open limbo", error.into()))?;
        let mut index = open_index(&places.state.join("index"), &mut progress)?;
        let knows_nothing = progress.durable() == Position::default() && !progress.same_page_cache();
        if knows_nothing || progress.is_elsewhere() {
            // Of another directory, or of none: nothing was ever durable in this one.
            index.clear().map_err(|error| OpenError::Io("object index", error))?;
        }
        let times = Times::open(&places.state.join("times"), progress.same_page_cache())
            .map_err(|error| OpenError::Io("pending times", error))?;
        let flags = PendingFlags::open(&places.state.join("flags"), progress.same_page_cache())
            .map_err(|error| OpenError::Io("pending flags", error))?;
        let aside = Aside::open(places.state.join("aside"), progress.data().state);
        let begun = Begun::open(&places.state.join("begun"))
            .map_err(|error| OpenError::Io("record of what is begun", error))?;
        let own = target_descriptors(open_files::limit());
        let descriptors = Descriptors::new(own, COPY_DESCRIPTORS, Shared::of_process());
        let policy = Policy::new(Allow::ALL);
        let clones = load_clones(&root, &limbo, places, progress.fence()).map_err(io("clones"))?;
        Ok(Replica {
            root,
            path: places.root.clone(),
            limbo,
            nameless,
            state: places.state.clone(),
            index,
            descriptors,
            times,
            flags,
            progress,
            begun,
            unrest: None,
            policy,
            writer: Writer::default(),
            hint: Vec::new(),
            seen: SeenNames::default(),
            placed: Placed::default(),
            grounds: RefCell::default(),
            without_name: Cell::default(),
            points: Points::default(),
            sync_failed: false,
            aside,
            keeps_orphans: kept::keeps(&places.state),
            has_rules: places.state.join(super::RULES).exists(),
            clones,
            goes_on: None,
            #[cfg(test)]
            hold: std::sync::Arc::default(),
        })
    }
}

fn load_clones(
    root: &File,
    limbo: &File,
    places: &Places,
    fence: Option<Epoch>,
) -> io::Result<Arc<Sessions>> {
    let own = clone::Places {
        root: root.try_clone()?,
        limbo: limbo.try_clone()?,
        root_path: places.root.clone(),
        limbo_path: places.limbo.clone(),
        state: places.state.clone(),
    };
    Ok(Sessions::load(own, fence))
}

/// Whether the root is another mount, or file system, than the directory that it lies in.
fn is_a_border(root: &Path) -> bool {
    let place = |path: &Path| {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let status = statx(CWD, path, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID).ok()?;
        Some((status.stx_dev_major, status.stx_dev_minor, status.stx_mnt_id))
    };
    let (Some(own), Some(above)) = (place(root), root.parent().and_then(place)) else { return false };
    own != above
}

/// Makes the place where it is missing. The time of a replica that it lies in stays as it is.
fn own_limbo(root: &File, places: &Places) -> io::Result<File> {
    let before = root.metadata()?;
    let is_inside = places.limbo.parent() == Some(&*places.root) && !places.limbo.exists();
    let limbo = own_directory(&places.limbo, 0o700, Symlink::Never)?;
    limbo.set_permissions(Permissions::from_mode(0o700))?;
    if is_inside {
        let time = Timespec { tv_sec: before.mtime(), tv_nsec: before.mtime_nsec() };
        let unchanged = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: unchanged, last_modification: time };
        rustix::fs::futimens(root, &times)?;
    }
    Ok(limbo)
}

fn open_directory(path: &Path) -> Result<File, OpenError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => Ok(File::from(fd)),
        Err(rustix::io::Errno::NOTDIR) => Err(OpenError::NotADirectory),
        Err(error) => Err(OpenError::Io("open a directory", error.into())),
    }
}

fn device(dir: &File) -> Result<u64, OpenError> {
    rustix::fs::fstat(dir).map(|stat| stat.st_dev).map_err(|error| OpenError::Io("stat", error.into()))
}

/// A lost or damaged index beside a replica that has content means that nothing can be resolved.
fn open_index(path: &Path, progress: &mut Progress) -> Result<Index, OpenError> {
    let lost = !path.exists();
    let index = match Index::open(path) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            std::fs::rename(path, path.with_extension("damaged"))
                .map_err(|error| OpenError::Io("object index", error))?;
            progress.lose("the object index is damaged")?;
            Index::open(path)
        }
        opened => opened,
    };
    if lost {
        progress.lose("the object index is lost")?;
    }
    index.map_err(|error| OpenError::Io("object index", error))
}
