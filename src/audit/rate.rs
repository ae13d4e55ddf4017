//! A token bucket without a lock: how many events of one kind are recorded in a second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lets so many events pass in a second, after a pause a burst of ten times that.
///
/// Keeps one number, the time at which the bucket will be full again (the generic cell rate
/// algorithm), so that any number of threads can ask at the same time.
#[derive(Debug)]
pub(super) struct RateLimit {
    start: Instant,
    /// What one event takes, in nanoseconds.
    interval: u64,
    /// Nanoseconds after `start`.
    full_at: AtomicU64,
}

/// What the bucket holds: ten seconds' worth.
const BURST: Duration = Duration::from_secs(10);

impl RateLimit {
    /// A full bucket. `per_second` is from 1 to 1,000,000; what is outside counts as the nearest.
    pub(super) fn new(per_second: u32, start: Instant) -> Self {
        let interval = 1_000_000_000 / u64::from(per_second.clamp(1, 1_000_000));
        Self { start, interval, full_at: AtomicU64::new(0) }
    }

    /// Takes one event out of the bucket. `false` if it is empty.
    pub(super) fn take(&self, now: Instant) -> bool {
        let now = nanos(now.saturating_duration_since(self.start));
        let next = |full_at: u64| {
            let next = full_at.max(now).saturating_add(self.interval);
            (next - now <= nanos(BURST)).then_some(next)
        };
        self.full_at.fetch_update(Ordering::AcqRel, Ordering::Relaxed, next).is_ok()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let start = Instant::now();
        let limit = RateLimit::new(200, start);
        let passed = |now, tries: usize| (0..tries).filter(|_| limit.take(now)).count();
        assert_eq!(passed(start, 5000), 2000);
        assert_eq!(passed(start + Duration::from_millis(4), 10), 0);
        assert_eq!(passed(start + Duration::from_millis(5), 10), 1);
        assert_eq!(passed(start + Duration::from_secs(2), 5000), 399);
        // It fills up to the burst and no further.
        assert_eq!(passed(start + Duration::from_secs(3600), 5000), 2000);
    }

    #[test]
    fn many_threads_share_the_bucket() {
        let start = Instant::now();
        let limit = RateLimit::new(100, start);
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..2000).filter(|_| limit.take(start)).count())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 1000);
    }

    #[test]
    fn rates_outside_the_range_are_the_nearest() {
        let start = Instant::now();
        for (given, burst) in [(0, 10), (1, 10), (u32::MAX, 10_000_000)] {
            let limit = RateLimit::new(given, start);
            assert_eq!(nanos(BURST) / limit.interval, burst);
        }
    }
}
