//! Reusable buffers. Fresh memory for a large buffer takes as long as hashing a third of its content.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A pool of unused buffers.
#[derive(Clone, Default)]
pub struct Pool {
    idle: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// Bytes in memory that returns to the pool when they are dropped.
#[derive(Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    pool: Pool,
}

impl Pool {
    fn idle(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a buffer that `fill` has filled. It is empty before and has any capacity.
    ///
    /// # Errors
    /// Those of `fill`.
    pub fn fill<E>(&self, fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<Buffer, E> {
        let bytes = self.idle().pop().unwrap_or_default();
        let mut buffer = Buffer { bytes, pool: self.clone() };
        fill(&mut buffer.bytes).map(|()| buffer)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() > 0 {
            bytes.clear();
            self.pool.idle().push(bytes);
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_buffer_has_none_of_its_old_content() {
        let pool = Pool::default();
        let hold = |bytes: &[u8]| {
            pool.fill(|buffer| {
                buffer.extend_from_slice(bytes);
                Ok::<_, ()>(())
            })
            .unwrap()
        };
        let first = hold(b"long content");
        let address = first.as_ptr();
        drop(first);
        let second = hold(b"short");
        assert_eq!((&second[..], second.as_ptr()), (&b"short"[..], address));
        assert_ne!(hold(b"third").as_ptr(), address);
    }
}
