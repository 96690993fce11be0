//! Work on a list of items by several threads.

use super::threads::{on_threads, start_in};
use crate::error::{Error, Result};
use std::iter::{Skip, StepBy};
use std::slice;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// The outcome of [`try_for_each`].
pub struct ItemResults<T> {
    /// The results of the items that succeeded, each with the item's number, in the order of the items.
    pub done: Vec<(usize, T)>,
    /// The number of the item that failed first, and its error.
    pub failure: Option<(usize, Error)>,
}

impl<T> ItemResults<T> {
    /// Returns the results of all items, in their order.
    ///
    /// # Errors
    /// The first failure.
    pub fn into_result(self) -> Result<Vec<T>> {
        match self.failure {
            Some((_, error)) => Err(error),
            None => Ok(self.done.into_iter().map(|(_, result)| result).collect()),
        }
    }
}

/// Calls `work` with the number of each item and the item itself, on several threads. After a failure no further item is
/// begun.
pub fn try_for_each<I: Sync, T: Send>(
    threads: usize,
    items: &[I],
    work: impl Fn(usize, &I) -> Result<T> + Sync,
) -> ItemResults<T> {
    let state = Mutex::new((items.iter().enumerate(), ItemResults { done: Vec::new(), failure: None }));
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    on_threads(threads.min(items.len()), || {
        loop {
            let next = {
                let (items, outcome) = &mut *lock();
                items.next().filter(|_| outcome.failure.is_none())
            };
            let Some((number, item)) = next else { return };
            let result = work(number, item);
            let (_, outcome) = &mut *lock();
            match result {
                Ok(result) => outcome.done.push((number, result)),
                Err(error) => _ = outcome.failure.get_or_insert((number, error)),
            }
        }
    });
    let (_, mut outcome) = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcome.done.sort_by_key(|(number, _)| *number);
    outcome
}

/// Calls `work` with all items on several threads, and `take` with a function that waits for the next result. That returns
/// the results in the order of the items, and `None` after the last one.
///
/// Each thread holds one result that was not taken, and does no more work before it is. If `take` returns early, work that
/// was begun is finished and the rest is not done.
pub fn map_in_order<I: Sync, T: Send, R>(
    threads: usize,
    items: &[I],
    work: impl Fn(&I) -> T + Sync,
    take: impl FnOnce(&mut dyn FnMut() -> Option<T>) -> R,
) -> R {
    let threads = threads.clamp(1, items.len().max(1));
    let work = &work;
    thread::scope(|scope| {
        let begin = |first: usize| {
            let mut share = items.iter().skip(first).step_by(threads);
            let rest = share.clone();
            let (sender, results) = sync_channel(0);
            let thread = start_in(scope, move || share.try_for_each(|item| sender.send(work(item)).ok()));
            match thread {
                Ok(_) => Share::OnThread(results),
                Err(_) => Share::OnDemand(rest),
            }
        };
        let mut shares: Vec<_> = (0..threads).map(begin).collect();
        let mut current = 0;
        take(&mut || {
            let share = shares.get_mut(current)?;
            current = (current + 1) % threads;
            match share {
                Share::OnThread(results) => results.recv().ok(),
                Share::OnDemand(items) => items.next().map(work),
            }
        })
        // The receivers are dropped here, which ends threads that wait for their result to be taken.
    })
}

/// The items of one thread.
enum Share<'a, I, T> {
    OnThread(Receiver<T>),
    /// The system could not start a thread for these items, so each is worked on when its result is taken.
    OnDemand(StepBy<Skip<slice::Iter<'a, I>>>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn all_items_are_done_in_parallel_and_returned_in_their_order() {
        let (together, items) = (Barrier::new(4), (0..20).collect::<Vec<usize>>());
        let outcome = try_for_each(4, &items, |number, item| {
            together.wait();
            Ok(number + item)
        });
        assert_eq!(outcome.into_result().unwrap(), (0..40).step_by(2).collect::<Vec<_>>());
    }

    #[test]
    fn after_a_failure_no_item_is_begun_and_what_succeeded_is_returned() {
        let items: Vec<usize> = (0..1000).collect();
        let work = |number, _: &usize| if number == 5 { Err(Error::failed("five")) } else { Ok(number) };
        let outcome = try_for_each(2, &items, work);
        assert_eq!(outcome.failure.as_ref().map(|(number, _)| *number), Some(5));
        assert!((5..1000).contains(&outcome.done.len()), "{}", outcome.done.len());
        assert_eq!(outcome.into_result().unwrap_err().to_string(), "five");
    }

    #[test]
    fn results_are_taken_in_order_and_end() {
        let items: Vec<usize> = (0..100).collect();
        for threads in [0, 1, 3, 200] {
            let taken = map_in_order(
                threads,
                &items,
                |n| n * 2,
                |next| {
                    let all: Vec<_> = std::iter::from_fn(&mut *next).collect();
                    assert_eq!(next(), None);
                    all
                },
            );
            assert_eq!(taken, (0..100).map(|n| n * 2).collect::<Vec<_>>());
        }
        assert!(map_in_order(3, &[], |(): &()| (), |next| next()).is_none());
    }

    #[test]
    fn each_thread_holds_one_result_and_stops_when_none_is_taken() {
        let done = AtomicUsize::new(0);
        let work = |_: &usize| done.fetch_add(1, Ordering::SeqCst);
        let items: Vec<usize> = (0..1000).collect();
        map_in_order(4, &items, work, |next| _ = (next(), next()));
        assert!(done.load(Ordering::SeqCst) <= 2 + 4 + 2, "{done:?}");
    }
}
