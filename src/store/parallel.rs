//! The same work on many files, on all processors.

use std::thread;

/// Most threads that work at the same time.
const MAX_THREADS: usize = 8;
/// Fewer files than this are not worth a thread.
pub(super) const WORTHWHILE: usize = 16;

/// As many threads as `count` files are worth.
pub(super) fn threads_for(count: usize) -> usize {
    if count < WORTHWHILE {
        return 1;
    }
    thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS)
}

/// What `run` makes of each share of the items, one share for each thread, in the order of the items.
pub(super) fn in_shares<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    run: impl Fn(&[T]) -> Vec<R> + Sync,
) -> Vec<R> {
    if threads < 2 || items.is_empty() {
        return run(items);
    }
    thread::scope(|scope| {
        let shares = items.chunks(items.len().div_ceil(threads));
        let workers: Vec<_> = shares.map(|share| (share, scope.spawn(|| run(share)))).collect();
        // A thread that died (out of memory, say) leaves its share to this one.
        let finished =
            workers.into_iter().map(|(share, worker)| worker.join().unwrap_or_else(|_| run(share)));
        finished.flatten().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_keep_the_order_of_the_items() {
        let items: Vec<usize> = (0..100).collect();
        let double = |share: &[usize]| share.iter().map(|item| item * 2).collect::<Vec<_>>();
        for (count, threads) in [(0, 3), (1, 3), (2, 3), (100, 3), (100, 1), (100, 8), (7, 8)] {
            assert_eq!(
                in_shares(&items[..count], threads, double),
                double(&items[..count]),
                "{count} {threads}"
            );
        }
    }

    #[test]
    fn the_share_of_a_thread_that_died_is_done_all_the_same() {
        let caller = thread::current().id();
        let run = |share: &[usize]| {
            assert!(thread::current().id() == caller || !share.contains(&5), "out of memory");
            share.to_vec()
        };
        assert_eq!(in_shares(&[0, 1, 2, 3, 4, 5, 6], 2, |share| run(share)), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(in_shares(&[5, 1, 2], 3, |share| run(share)), [5, 1, 2]);
    }
}
