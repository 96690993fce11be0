//! The blobs of a manifest on their way: several at once, because one connection rarely fills a network.

use super::Copy;
use crate::error::{Kind, Result, Side};
use crate::oci::Descriptor;
use crate::progress::Progress;
use crate::stream::on_threads;
use crate::transport::{Destination, Source};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// A blob, and whether whoever gets the copy has it.
pub(super) type Wanted<'a> = (&'a Descriptor, bool);

/// What became of a blob.
#[derive(Clone, Copy)]
enum Outcome {
    Present,
    Omitted,
    Mounted,
    Copied,
    Foreign,
}

impl Copy<'_> {
    /// Copies blobs, each unless it is there or whoever gets the copy has it.
    pub(super) fn blobs<'b>(&mut self, blobs: impl IntoIterator<Item = Wanted<'b>>) -> Result<()> {
        let mut once = HashSet::new();
        let wanted: Vec<Wanted> = blobs
            .into_iter()
            .filter(|(blob, _)| !self.seen.contains(&blob.digest) && once.insert(&blob.digest))
            .collect();
        let (from, to, progress) = (self.from, self.to, self.progress);
        let done = side_by_side(self.options.concurrency, &wanted, |(blob, is_elsewhere)| {
            blob_between(from, to, progress, blob, *is_elsewhere).map(|outcome| (*blob, outcome))
        });
        // What arrived is counted even where another one failed: another tag may need it.
        for (blob, outcome) in done.arrived {
            match outcome {
                Outcome::Present => self.done.blobs_present += 1,
                Outcome::Omitted => self.done.blobs_omitted += 1,
                Outcome::Mounted => self.done.blobs_mounted += 1,
                Outcome::Foreign => self.done.blobs_foreign += 1,
                Outcome::Copied => {
                    self.done.blobs_copied += 1;
                    self.done.bytes_copied += blob.size;
                }
            }
            self.seen.insert(blob.digest.clone());
        }
        done.failure
    }
}

/// What came of some of the work, and the first failure, after which nothing more was begun.
struct Done<T> {
    arrived: Vec<T>,
    failure: Result<()>,
}

/// Does the work for all items, on so many threads.
fn side_by_side<I: Sync, T: Send>(
    threads: usize,
    items: &[I],
    work: impl Fn(&I) -> Result<T> + Sync,
) -> Done<T> {
    let queue = Mutex::new((items.iter(), Done { arrived: Vec::new(), failure: Ok(()) }));
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    on_threads(threads.min(items.len()), || {
        loop {
            let item = {
                let (items, done) = &mut *lock();
                items.next().filter(|_| done.failure.is_ok())
            };
            let Some(item) = item else { return };
            let outcome = work(item);
            let (_, done) = &mut *lock();
            match outcome {
                Ok(outcome) => done.arrived.push(outcome),
                Err(error) if done.failure.is_ok() => done.failure = Err(error),
                Err(_) => {}
            }
        }
    });
    queue.into_inner().unwrap_or_else(PoisonError::into_inner).1
}

/// Copies one blob.
fn blob_between(
    from: &dyn Source,
    to: &dyn Destination,
    progress: &dyn Progress,
    blob: &Descriptor,
    is_elsewhere: bool,
) -> Result<Outcome> {
    let task = progress.begin(&format!("copying {}", blob.digest.short()), Some(blob.size));
    let there = |error: crate::error::Error| error.on(Side::Destination);
    if to.contains(blob).map_err(there)? {
        task.skip();
        return Ok(Outcome::Present);
    }
    if is_elsewhere {
        task.skip();
        return Ok(Outcome::Omitted);
    }
    if let Some(origin) = from.origin()
        && to.mount(blob, &origin).map_err(there)?
    {
        task.skip();
        return Ok(Outcome::Mounted);
    }
    let body = match from.open(blob) {
        // As every other tool does: whoever unpacks the image gets such a layer from its own address.
        Err(error) if error.kind() == Kind::NotFound && !blob.urls().is_empty() => {
            task.skip();
            progress.warn(&format!(
                "the foreign layer {} is not copied, because the source does not have it: it is at {}",
                blob.digest,
                blob.urls().join(", ")
            ));
            return Ok(Outcome::Foreign);
        }
        opened => opened.map_err(|error| error.on(Side::Source))?.verify(blob),
    };
    to.upload(body.observed(move |bytes| task.advance(bytes))).map_err(there)?;
    Ok(Outcome::Copied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::sync::Barrier;

    #[test]
    fn work_goes_side_by_side_and_nothing_is_left_out() {
        let together = Barrier::new(4);
        let items: Vec<usize> = (0..20).collect();
        let mut done = side_by_side(4, &items, |item| {
            together.wait();
            Ok(*item)
        });
        done.arrived.sort_unstable();
        assert!(done.failure.is_ok());
        assert_eq!(done.arrived, items);
    }

    #[test]
    fn nothing_begins_after_a_failure_and_what_arrived_counts() {
        let items: Vec<usize> = (0..1000).collect();
        let done = side_by_side(3, &items, |item| match item {
            10 => Err(Error::failed("ten")),
            item => Ok(*item),
        });
        assert_eq!(done.failure.unwrap_err().to_string(), "ten");
        assert!(done.arrived.len() >= 8 && done.arrived.len() < 999);
    }
}
