//! A look whose items are exact as of their stamp.

use super::super::looks::{Found, Looks};
use super::super::sink::{Entry, Gone, Slot, StampedSink};
use crate::packet::{ItemNumber, Sequence};

/// So many looks without a lock before one is taken: a program that writes without rest would have
/// changed the object each time.
const TRIES: u32 = 8;

/// Puts into the stream what `look` puts into its batch, as soon as that is exact: nothing has changed
/// the object since the look began. `look` runs again until then; what it gives is that of its last run,
/// with the number of the last item, where there was one.
///
/// Errors: those of `look`; [`Gone`].
pub(super) fn show<S: StampedSink, T, E: From<Gone>>(
    sink: &mut S,
    looks: &dyn Looks,
    object: Found<'_>,
    mut look: impl FnMut(&mut Vec<Entry>) -> Result<T, E>,
) -> Result<(T, Option<ItemNumber>), E> {
    let mut slot = sink.reserve()?;
    let mut batch = Vec::new();
    let inode = object.object.inode;
    for _ in 0..TRIES {
        let counts = looks.counts(inode);
        if !counts.is_calm() {
            std::thread::yield_now();
            continue;
        }
        batch.clear();
        let seen = look(&mut batch)?;
        if batch.is_empty() {
            return Ok((seen, None));
        }
        let since = looks.changed_at(inode);
        match sink.push_since(slot, &mut batch, since, || looks.counts(inode).begun == counts.begun) {
            Ok(number) => return Ok((seen, Some(number))),
            Err(same) => slot = same,
        }
    }
    // What was read last is in memory.
    let mut outcome = None;
    looks.while_still(object, None, &mut || {
        batch.clear();
        outcome = Some(look(&mut batch).map(|seen| (seen, put(sink, looks.changed_at(inode), &mut batch))));
    });
    outcome.expect("what is still is looked at")
}

/// Under the locks of what was looked at.
fn put(sink: &mut impl StampedSink, since: Option<Sequence>, batch: &mut Vec<Entry>) -> Option<ItemNumber> {
    if batch.is_empty() {
        return None;
    }
    sink.push_since(Slot::granted(), batch, since, || true).ok()
}
