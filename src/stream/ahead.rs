//! Work that is done ahead of who waits for it, by several threads, and handed over in order.

use super::threads::start_in;
use std::iter::{Skip, StepBy};
use std::slice;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

/// Does the work for all items on so many threads, and hands the results to `take`, by a function that waits for the next
/// one: in the order of the items, `None` behind the last one.
///
/// Each thread holds one result that nobody has taken, and does no more work before it is. Where `take` returns early,
/// what was begun is finished and the rest is left.
pub fn in_order<I: Sync, T: Send, R>(
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
                Ok(_) => Share::Ahead(results),
                Err(_) => Share::WhenWanted(rest),
            }
        };
        let mut shares: Vec<_> = (0..threads).map(begin).collect();
        let mut turn = 0;
        take(&mut || {
            let share = shares.get_mut(turn)?;
            turn = (turn + 1) % threads;
            match share {
                Share::Ahead(results) => results.recv().ok(),
                Share::WhenWanted(items) => items.next().map(work),
            }
        })
        // The ends of the channels go here: nobody waits for them any more.
    })
}

/// The part of the items that one thread works on.
enum Share<'a, I, T> {
    Ahead(Receiver<T>),
    /// There is no thread for them: each is worked on when somebody waits for it.
    WhenWanted(StepBy<Skip<slice::Iter<'a, I>>>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn results_come_in_order_and_end() {
        let items: Vec<usize> = (0..100).collect();
        for threads in [0, 1, 3, 200] {
            let taken = in_order(
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
        assert!(in_order(3, &[], |(): &()| (), |next| next()).is_none());
    }

    #[test]
    fn no_more_is_done_than_each_thread_may_hold_and_nothing_when_nobody_waits() {
        let done = AtomicUsize::new(0);
        let work = |_: &usize| done.fetch_add(1, Ordering::SeqCst);
        let items: Vec<usize> = (0..1000).collect();
        in_order(4, &items, work, |next| _ = (next(), next()));
        assert!(done.load(Ordering::SeqCst) <= 2 + 4 + 2, "{done:?}");
    }
}
