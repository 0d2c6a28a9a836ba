//! How much of what is owed there is, without reading it.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::look::stat;
use super::{CopyProgress, Owed, OwedContent, OwedObject};
use crate::sys::open_by_handle;

/// Bytes of a block as `stat(2)` counts them.
const BLOCK: u64 = 512;

/// Bounds of what a copy sends of what is owed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weight {
    /// Bytes of content.
    pub at_least: u64,
    /// `None`: not known.
    pub at_most: Option<u64>,
}

/// What a copy of what is owed has to do, as it begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    pub objects: u64,
    /// Of them, files of which content is owed.
    pub files: u64,
    pub content: Weight,
}

/// Notes how much a copy of what is owed has to do, which does not wait for it: by its marks at once, and as
/// [`Owed::weigh`] when that is over.
pub fn expect_beside(
    owed: Arc<Owed>,
    root: BorrowedFd<'_>,
    progress: Arc<CopyProgress>,
    is_wanted: impl FnMut() -> bool + Send + 'static,
) {
    progress.expect(owed.expected(root, || false));
    let begun = root.try_clone_to_owned().and_then(|root| {
        let weigh = move || progress.expect(owed.expected(root.as_fd(), is_wanted));
        std::thread::Builder::new().name("weigh".into()).spawn(weigh)
    });
    if let Err(error) = begun {
        log::warn!("how much a copy has to do is known by its marks alone: {error}");
    }
}

impl Owed {
    /// As [`Owed::weigh`].
    fn expected(&self, root: BorrowedFd<'_>, is_wanted: impl FnMut() -> bool) -> Expected {
        let files = self.objects.iter().filter(|object| object.content != OwedContent::No).count();
        let content = self.weigh(root, is_wanted);
        Expected { objects: self.objects.len() as u64, files: files as u64, content }
    }

    /// Looks at the size of each file as long as somebody wants that: what was not looked at has no size that is known.
    /// `root`: what the handles are of.
    pub fn weigh(&self, root: BorrowedFd<'_>, mut is_wanted: impl FnMut() -> bool) -> Weight {
        let mut all = Weight { at_least: 0, at_most: Some(0) };
        for object in self.objects.iter().filter(|object| object.content != OwedContent::No) {
            let one = if is_wanted() { looked_at(object, root) } else { as_marked(object) };
            all.at_least = all.at_least.saturating_add(one.at_least);
            all.at_most = all.at_most.zip(one.at_most).map(|(sum, more)| sum.saturating_add(more));
        }
        all
    }
}

fn looked_at(object: &OwedObject, root: BorrowedFd<'_>) -> Weight {
    let opened = open_by_handle(root, &object.handle, libc::O_PATH);
    let status = match opened.and_then(|fd| stat(fd.as_fd())) {
        Ok(status) => status,
        // Deleted meanwhile.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESTALE | libc::ENOENT)) => {
            return Weight { at_least: 0, at_most: Some(0) };
        }
        Err(_) => return as_marked(object),
    };
    let size = status.stx_size;
    let within = |range: std::ops::Range<u64>| range.end.min(size).saturating_sub(range.start);
    let most = covered(object).into_iter().map(within).sum();
    // Holes are not sent.
    let holes = size.saturating_sub(status.stx_blocks.saturating_mul(BLOCK));
    let least: u64 = match object.content {
        // What both sides have is compared first.
        OwedContent::Doubted { .. } => 0,
        OwedContent::No | OwedContent::Ranges(_) | OwedContent::From(..) => u64::saturating_sub(most, holes),
    };
    Weight { at_least: least, at_most: Some(most) }
}

/// By its marks alone.
fn as_marked(object: &OwedObject) -> Weight {
    let ranges = covered(object);
    let is_bounded = ranges.last().is_none_or(|last| last.end < u64::MAX);
    let bytes = ranges.into_iter().map(|range| range.end - range.start).fold(0, u64::saturating_add);
    Weight { at_least: 0, at_most: is_bounded.then_some(bytes) }
}

/// In order, each byte once.
fn covered(object: &OwedObject) -> Vec<std::ops::Range<u64>> {
    let mut joined: Vec<std::ops::Range<u64>> = Vec::new();
    for range in object.content.ranges() {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    // Ranges are meant, each of them one.
    #![allow(clippy::single_range_in_vec_init)]

    use std::fs::{self, File};
    use std::os::unix::fs::FileExt;
    use std::path::Path;
    use std::sync::mpsc::channel;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::packet::ObjectId;
    use crate::sys::FileHandle;

    const REGION: u64 = 64 << 10;

    fn object(path: &Path, content: OwedContent) -> OwedObject {
        let id = ObjectId { birth_epoch: 1, generation: 1, inode: 7 };
        OwedObject {
            id,
            handle: FileHandle::of(File::open(path).unwrap().as_fd()).unwrap(),
            names: false,
            content,
        }
    }

    fn exactly(bytes: u64) -> Weight {
        Weight { at_least: bytes, at_most: Some(bytes) }
    }

    #[test]
    fn what_is_marked_is_weighed_by_the_size_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("small"), "ten bytes!").unwrap();
        fs::write(at("large"), vec![1; 3 * REGION as usize]).unwrap();
        let sparse = File::create(at("sparse")).unwrap();
        sparse.set_len(10 * REGION).unwrap();
        sparse.write_all_at(&[1; 4096], 0).unwrap();
        sparse.sync_all().unwrap();
        let gone = {
            fs::write(at("gone"), "x").unwrap();
            object(&at("gone"), OwedContent::From(0, Vec::new()))
        };
        fs::remove_file(at("gone")).unwrap();
        let root = File::open(dir.path()).unwrap();
        let weigh = |object: &OwedObject| Owed { objects: vec![object.clone()] }.weigh(root.as_fd(), || true);
        let ranges = |ranges: &[std::ops::Range<u64>]| OwedContent::Ranges(ranges.to_vec());
        for (object, expected) in [
            (object(&at("small"), OwedContent::No), exactly(0)),
            (object(&at("small"), ranges(&[0..REGION])), exactly(10)),
            (object(&at("small"), OwedContent::From(4, Vec::new())), exactly(6)),
            (object(&at("small"), ranges(&[REGION..2 * REGION])), exactly(0)),
            (object(&at("large"), ranges(&[0..REGION, 2 * REGION..3 * REGION])), exactly(2 * REGION)),
            // Ranges of two sources may overlap.
            (object(&at("large"), ranges(&[0..REGION, 0..2 * REGION])), exactly(2 * REGION)),
            (
                object(&at("large"), OwedContent::Doubted { size: 7 }),
                Weight { at_least: 0, at_most: Some(3 * REGION) },
            ),
            (gone.clone(), exactly(0)),
        ] {
            assert_eq!(weigh(&object), expected, "{:?}", object.content);
        }
        let sparse = weigh(&object(&at("sparse"), OwedContent::From(0, Vec::new())));
        assert!(sparse.at_least <= 4096 && sparse.at_most == Some(10 * REGION), "{sparse:?}");
    }

    #[test]
    fn what_nobody_looks_at_has_bounds_by_its_marks() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "x").unwrap();
        let root = File::open(dir.path()).unwrap();
        let of = |content| Owed { objects: vec![object(&dir.path().join("file"), content)] };
        let ranges = of(OwedContent::Ranges(vec![0..REGION]));
        assert_eq!(ranges.weigh(root.as_fd(), || false), Weight { at_least: 0, at_most: Some(REGION) });
        let grown = of(OwedContent::From(7, Vec::new()));
        assert_eq!(grown.weigh(root.as_fd(), || false), Weight { at_least: 0, at_most: None });
    }

    /// A copy waited for it, for half a second.
    #[test]
    fn nobody_waits_while_it_is_weighed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "ten bytes!").unwrap();
        let root = File::open(dir.path()).unwrap();
        let owed = Owed { objects: vec![object(&dir.path().join("file"), OwedContent::From(0, Vec::new()))] };
        let (begin, begins) = channel();
        let progress = Arc::new(CopyProgress::new());
        let is_wanted = move || begins.recv_timeout(Duration::from_secs(20)).is_ok();
        expect_beside(Arc::new(owed), root.as_fd(), progress.clone(), is_wanted);
        let expected = || progress.snapshot().expected.unwrap();
        assert_eq!((expected().objects, expected().content.at_most), (1, None));
        begin.send(()).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while expected().content != exactly(10) {
            assert!(Instant::now() < until, "{:?}", expected());
            std::thread::yield_now();
        }
    }
}
