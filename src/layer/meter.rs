//! How much plain content comes out of compressed layers: a few kilobytes can be terabytes of zeros.

use crate::error::{Error, Result};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What may come out of an image at least, in bytes, however small it is.
const FREE: u64 = 1 << 30;
/// How many plain bytes may come out of one stored byte. Freshly formatted disks reach some hundred.
const RATIO: u64 = 1000;

/// Counts what was read of the layers of an image and what came out of them, for commands that write none of it to a disk.
///
/// Without a limit of its own it allows 1 GiB, and 1 000 times what was read.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    limit: Option<u64>,
    stored: Arc<AtomicU64>,
    plain: Arc<AtomicU64>,
}

impl Meter {
    /// A meter that allows this many plain bytes, or as many as the stored ones justify.
    pub fn new(limit: Option<u64>) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Counts bytes that were read as they are stored; for [`Body::observed`](crate::stream::Body::observed).
    pub fn stored(&self) -> impl Fn(u64) + Send + 'static {
        let stored = Arc::clone(&self.stored);
        move |bytes| _ = stored.fetch_add(bytes, Ordering::Relaxed)
    }

    /// The same plain bytes, which fail once they are too many.
    pub fn bound<R: Read>(&self, plain: R) -> Metered<R> {
        Metered { plain, meter: self.clone() }
    }

    /// Counts plain bytes.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when they are too many.
    pub fn pass(&self, bytes: u64) -> Result<()> {
        let plain = self.plain.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        self.allow(plain, self.stored.load(Ordering::Relaxed))
    }

    /// Insists that so many plain bytes may come out of so many stored ones.
    ///
    /// # Errors
    /// As [`pass`](Self::pass).
    pub fn allow(&self, plain: u64, stored: u64) -> Result<()> {
        let most = self.limit.unwrap_or_else(|| stored.saturating_mul(RATIO).saturating_add(FREE));
        match plain > most {
            true => Err(Error::integrity(format!("the image has more than {most} bytes of plain content"))
                .with_hint("few images compress that well; --max-content allows more")),
            false => Ok(()),
        }
    }
}

/// Plain bytes that are counted.
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

    /// How many bytes pass until the meter fails.
    fn passing(meter: &Meter) -> u64 {
        const STEP: u64 = 1 << 20;
        let mut passed = 0;
        while meter.pass(STEP).is_ok() {
            passed += STEP;
        }
        passed
    }

    #[test]
    fn what_was_read_decides_what_may_come_out() {
        assert_eq!(passing(&Meter::new(Some(5 << 20))), 5 << 20);
        let meter = Meter::new(None);
        assert_eq!(passing(&meter), FREE);
        meter.stored()(10 << 20);
        assert!(meter.pass(9 << 30).is_ok());
        assert!(meter.pass(1 << 30).is_err());
    }

    #[test]
    fn a_reader_fails_where_too_much_comes() {
        let mut plain = Meter::new(Some(3)).bound(&b"abcd"[..]);
        let mut two = [0; 2];
        plain.read_exact(&mut two).unwrap();
        assert!(plain.read_exact(&mut two).unwrap_err().to_string().contains("plain content"));
    }
}
