//! A limit on the plain content of compressed layers: a few kilobytes can decompress to terabytes of zeros.

use crate::error::{Error, Result};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The plain content that is always allowed, in bytes.
const FREE: u64 = 1 << 30;
/// The number of plain bytes that are allowed for one stored byte. Images of freshly formatted disks reach a few hundred.
const RATIO: u64 = 1000;

/// Counts the stored and the plain bytes of the layers of an image, for commands that write none of them to a disk.
///
/// Without an explicit limit it allows 1 GiB plus 1 000 times the stored bytes.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    limit: Option<u64>,
    stored: Arc<AtomicU64>,
    plain: Arc<AtomicU64>,
}

impl Meter {
    /// Creates a meter with this limit on the plain bytes, or with the default one.
    pub fn new(limit: Option<u64>) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Returns a function that counts stored bytes, for [`Body::on_read`](crate::stream::Body::on_read).
    pub fn stored(&self) -> impl Fn(u64) + Send + 'static {
        let stored = Arc::clone(&self.stored);
        move |bytes| _ = stored.fetch_add(bytes, Ordering::Relaxed)
    }

    /// Returns a reader of the plain bytes that fails when there are too many.
    pub fn bound<R: Read>(&self, plain: R) -> Metered<R> {
        Metered { plain, meter: self.clone() }
    }

    /// Counts plain bytes.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if there are too many.
    pub fn pass(&self, bytes: u64) -> Result<()> {
        let plain = self.plain.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        self.allow(plain, self.stored.load(Ordering::Relaxed))
    }

    /// Checks a number of plain bytes against a number of stored bytes.
    ///
    /// # Errors
    /// As [`pass`](Self::pass).
    pub fn allow(&self, plain: u64, stored: u64) -> Result<()> {
        let max = self.limit.unwrap_or_else(|| stored.saturating_mul(RATIO).saturating_add(FREE));
        if plain > max {
            return Err(Error::integrity(format!("the image has more than {max} bytes of plain content"))
                .with_hint("few images compress that well; --max-content allows more"));
        }
        Ok(())
    }
}

/// A reader of plain bytes that counts them.
pub struct Metered<R> {
    plain: R,
    meter: Meter,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.plain.read(buffer)?;
        self.meter.pass(read as u64)?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number of bytes after which the meter fails.
    fn passing(meter: &Meter) -> u64 {
        const STEP: u64 = 1 << 20;
        let mut passed = 0;
        while meter.pass(STEP).is_ok() {
            passed += STEP;
        }
        passed
    }

    #[test]
    fn the_stored_bytes_decide_how_many_plain_bytes_are_allowed() {
        assert_eq!(passing(&Meter::new(Some(5 << 20))), 5 << 20);
        let meter = Meter::new(None);
        assert_eq!(passing(&meter), FREE);
        meter.stored()(10 << 20);
        assert!(meter.pass(9 << 30).is_ok());
        assert!(meter.pass(1 << 30).is_err());
    }

    #[test]
    fn a_reader_fails_when_there_are_too_many_bytes() {
        let mut plain = Meter::new(Some(3)).bound(&b"abcd"[..]);
        let mut two = [0; 2];
        plain.read_exact(&mut two).unwrap();
        assert!(plain.read_exact(&mut two).unwrap_err().to_string().contains("plain content"));
    }
}
