//! What a comparison has come to, and what of it a copy has to mend.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::limits::PATH_LEN_MAX;
use crate::packet::{CheckCounts, Difference, DifferenceKind, ObjectId, Sequence};
use crate::words::VerifyMode;

/// What a comparison came to.
#[derive(Clone, Debug)]
pub struct Verified {
    pub mode: VerifyMode,
    pub counts: CheckCounts,
    /// Differences by name, in the order in which they were found; perhaps not all.
    pub found: Vec<Difference>,
    /// Objects that the source could not read.
    pub unread: u64,
    /// The first and the last position as of which something was compared.
    pub from: Sequence,
    pub upto: Sequence,
    pub took: Duration,
}

impl Verified {
    /// Whether all that differs is named.
    pub fn names_all(&self) -> bool {
        let is_name =
            |found: &&Difference| matches!(found.kind, DifferenceKind::Missing | DifferenceKind::Extra);
        let names = self.found.iter().filter(is_name).count() as u64;
        let objects = self.differing(|_| true).collect::<HashSet<_>>().len() as u64;
        let CheckCounts { missing, extra, different, .. } = self.counts;
        names + objects >= missing + extra + different
    }

    /// Objects that both sides have and that differ in this; one may come several times.
    pub fn differing(&self, is_meant: impl Fn(DifferenceKind) -> bool) -> impl Iterator<Item = ObjectId> {
        let is_of_both = |kind| !matches!(kind, DifferenceKind::Missing | DifferenceKind::Extra);
        self.found
            .iter()
            .filter(move |found| is_of_both(found.kind) && is_meant(found.kind))
            .filter_map(|found| found.object)
    }

    /// The smallest part of the directory in which all lies that differs; `None`: it is all of it, or not known.
    pub fn part(&self) -> Option<PathBuf> {
        if !self.names_all() || self.unread > 0 {
            return None;
        }
        let mut around: Option<PathBuf> = None;
        for Difference { kind, path, .. } in &self.found {
            // The end of a longer one may be cut.
            if path.0.len() >= PATH_LEN_MAX {
                return None;
            }
            let path = Path::new(OsStr::from_bytes(&path.0));
            let place = match kind {
                DifferenceKind::Content | DifferenceKind::Size => path,
                _ => path.parent()?,
            };
            let common = match &around {
                None => place.to_owned(),
                Some(around) => around
                    .components()
                    .zip(place.components())
                    .take_while(|(a, b)| a == b)
                    .map(|(a, _)| a)
                    .collect(),
            };
            around = Some(common);
        }
        around.filter(|part| !part.as_os_str().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Suspects;
    use super::*;
    use crate::packet::Bounded;

    fn found(kind: DifferenceKind, path: &str, inode: u64) -> Difference {
        let object = Some(ObjectId { birth_epoch: 1, generation: 1, inode });
        Difference { kind, object, path: Bounded(path.as_bytes().to_vec()), bytes: 0 }
    }

    fn verified(found: Vec<Difference>, counts: CheckCounts) -> Verified {
        let (from, upto, took) = (Sequence(1), Sequence(2), Duration::ZERO);
        Verified { mode: VerifyMode::Checksum, counts, found, unread: 0, from, upto, took }
    }

    /// One wrong byte cost a copy, and a comparison, of everything.
    #[test]
    fn what_differs_lies_in_a_part() {
        use DifferenceKind::{Content, Extra, Missing, Mode, Mtime};
        let part = |found: &[(DifferenceKind, &str)]| {
            let found: Vec<_> =
                found.iter().zip(1..).map(|(&(kind, path), inode)| self::found(kind, path, inode)).collect();
            verified(found, CheckCounts::default()).part()
        };
        let is = |text: &str| Some(PathBuf::from(text));
        assert_eq!(part(&[(Content, "a/b/file")]), is("a/b/file"));
        assert_eq!(part(&[(Mode, "a/b/file")]), is("a/b"));
        assert_eq!(part(&[(Content, "a/b/file"), (Mtime, "a/b")]), is("a"));
        assert_eq!(part(&[(Missing, "a/b/x"), (Extra, "a/c/x"), (Content, "a/b/y")]), is("a"));
        assert_eq!(part(&[(Content, "ab/x"), (Content, "a/x")]), None);
        assert_eq!(part(&[(Missing, "top")]), None);
        assert_eq!(part(&[]), None);
        assert_eq!(part(&[(Content, &"x".repeat(PATH_LEN_MAX))]), None);
        // One more is counted, and not named.
        let counts = CheckCounts { different: 2, ..CheckCounts::default() };
        let mut one = verified(vec![found(Content, "a/file", 1)], counts);
        assert_eq!(one.part(), None);
        one.counts.different = 1;
        assert_eq!(one.part(), is("a/file"));
        one.unread = 1;
        assert_eq!(one.part(), None);
    }

    /// After a comparison of attributes content was sent of whatever differed; of all where more differed than is named.
    #[test]
    fn of_content_only_what_is_in_doubt_is_sent() {
        use DifferenceKind::{Content, Mode, Owner, Size, Xattr};
        let kinds = [Mode, Owner, Size, Xattr];
        let counts = CheckCounts { different: 100_000, ..CheckCounts::default() };
        let named = kinds.iter().zip(1..).map(|(&kind, inode)| found(kind, "a", inode)).collect();
        let attributes = Verified { mode: VerifyMode::Attributes, ..verified(named, counts) };
        let by_size = attributes.differing(|kind| kind == Size).collect();
        assert_eq!(Suspects::found(&attributes), Suspects::These(Arc::new(by_size)));
        let content = verified(vec![found(Content, "a", 1)], counts);
        assert_eq!(Suspects::found(&content), Suspects::All);
    }
}
