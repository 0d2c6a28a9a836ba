//! Recycled payload buffers: freshly mapped memory costs more than the write itself.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::limits::{PAYLOAD_LEN_MAX, POOL_FREE_MAX};

/// Capacities of buffers, in bytes: no more than half of one is left empty.
const CLASSES: [usize; 9] =
    [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20];
const _: () = assert!(CLASSES[CLASSES.len() - 1] == PAYLOAD_LEN_MAX);

/// Below this a buffer of its own size is cheaper than the page that a recycled one keeps.
const RECYCLED_MIN: usize = 1 << 10;

/// Free buffers by size, so many bytes in all. Clones share one pool.
#[derive(Clone)]
pub struct Pool(Arc<Mutex<Free>>);

struct Free {
    max: usize,
    bytes: usize,
    classes: [Vec<Vec<u8>>; CLASSES.len()],
}

impl Default for Pool {
    fn default() -> Pool {
        Pool::new()
    }
}

/// A buffer on loan; it returns to its pool when its last user drops it.
pub struct Buffer {
    bytes: Vec<u8>,
    /// `None`: too small to be recycled.
    class: Option<usize>,
    pool: Pool,
}

impl Pool {
    /// Keeps [`POOL_FREE_MAX`] bytes.
    pub fn new() -> Pool {
        Pool::keeping(POOL_FREE_MAX)
    }

    /// Keeps at most so many bytes for reuse.
    pub fn keeping(max: usize) -> Pool {
        Pool(Arc::new(Mutex::new(Free { max, bytes: 0, classes: Default::default() })))
    }

    /// Bytes of memory that a buffer for so many bytes of content holds.
    pub fn held_for(len: usize) -> usize {
        class_of(len).map_or(len, |class| CLASSES[class])
    }

    /// A buffer with exactly this content. `content` is at most [`PAYLOAD_LEN_MAX`] bytes.
    pub fn copy_of(&self, content: &[u8]) -> Bytes {
        if content.is_empty() {
            return Bytes::new();
        }
        let mut buffer = self.take(content.len());
        buffer.bytes.extend_from_slice(content);
        Bytes::from_owner(buffer)
    }

    /// An empty buffer with room for `len` bytes, at most [`PAYLOAD_LEN_MAX`]: filled by
    /// [`Buffer::append`], without being zeroed first.
    pub fn empty(&self, len: usize) -> Buffer {
        self.take(len)
    }

    /// A buffer of `len` bytes with unspecified content, to be filled by its borrower.
    pub fn filled(&self, len: usize) -> Buffer {
        let mut buffer = self.take(len);
        buffer.bytes.resize(len, 0);
        buffer
    }

    fn take(&self, len: usize) -> Buffer {
        let Some(class) = class_of(len) else {
            return Buffer { bytes: Vec::with_capacity(len), class: None, pool: self.clone() };
        };
        let recycled = {
            let mut free = self.0.lock();
            let found = free.classes[class].pop();
            if found.is_some() {
                assert!(free.bytes >= CLASSES[class], "a buffer is given out that the pool does not hold");
                free.bytes -= CLASSES[class];
            }
            found
        };
        let bytes = recycled.unwrap_or_else(|| Vec::with_capacity(CLASSES[class]));
        Buffer { bytes, class: Some(class), pool: self.clone() }
    }
}

/// `None`: too small to be recycled.
fn class_of(len: usize) -> Option<usize> {
    let fitting = || CLASSES.iter().position(|&size| len <= size).expect("payloads are bounded");
    (len >= RECYCLED_MIN).then(fitting)
}

impl Free {
    /// Keeps a buffer, in place of others of the size that has most, where there is no room.
    fn keep(&mut self, class: usize, bytes: Vec<u8>) -> Vec<Vec<u8>> {
        let mut gone = Vec::new();
        while self.bytes + CLASSES[class] > self.max {
            let held = |class: &usize| CLASSES[*class] * self.classes[*class].len();
            let fullest = (0..CLASSES.len()).max_by_key(held).filter(|&fullest| fullest != class);
            let Some((fullest, buffer)) = fullest.and_then(|at| Some((at, self.classes[at].pop()?))) else {
                gone.push(bytes);
                return gone;
            };
            // As it was counted, whatever the buffer has grown to.
            self.bytes -= CLASSES[fullest];
            gone.push(buffer);
        }
        self.bytes += CLASSES[class];
        self.classes[class].push(bytes);
        gone
    }
}

impl Buffer {
    /// Adds bytes at the end.
    pub fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes of memory that it holds, whatever is in it.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(class) = self.class else { return };
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        assert!(bytes.capacity() >= CLASSES[class], "a buffer comes back smaller than its class");
        // What has to go goes unlocked.
        let gone = self.pool.0.lock().keep(class, bytes);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again() {
        let pool = Pool::new();
        let first = pool.copy_of(&[1; 5000]);
        let address = first.as_ptr();
        drop(first);
        let second = pool.copy_of(&[2; 6000]);
        assert_eq!(second.as_ptr(), address);
        assert_eq!(&second[..], &[2; 6000]);
    }

    #[test]
    fn free_memory_is_bounded() {
        let pool = Pool::new();
        let many: Vec<_> = (0..100).map(|_| pool.copy_of(&[0; 1 << 20])).collect();
        drop(many);
        assert_eq!(pool.0.lock().bytes, POOL_FREE_MAX);
        // Another load with other sizes finds its buffers again, too.
        let small = pool.copy_of(&[0; 4096]);
        let address = small.as_ptr();
        drop(small);
        assert!(pool.0.lock().bytes <= POOL_FREE_MAX);
        assert_eq!(pool.copy_of(&[1; 4096]).as_ptr(), address);
    }

    #[test]
    fn what_a_buffer_holds_is_known_before() {
        for (len, held) in [(1, 1), (1023, 1023), (1024, 4096), (4097, 8192), (1 << 20, 1 << 20)] {
            assert_eq!(Pool::held_for(len), held);
            assert!(Pool::new().empty(len).capacity() >= held);
        }
    }
}
