//! How long to wait before something that failed is tried again: doubled from failure to failure, with
//! jitter, so that many who failed together do not come back together.
//!
//! Knows nothing of what failed, and neither waits nor reads a clock.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// Counts failures in a row and says how long to wait after each.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits about `first` after the first failure and never much longer than `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// Counts a failure and returns how long to wait: twice as long as after the failure before, at
    /// most `longest`, up to a fifth more or less.
    pub fn failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        jittered(self.nominal(), 0.2)
    }

    /// The failures in a row so far.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Starts again with the first delay: it succeeded.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// The delay after the newest failure, without jitter.
    fn nominal(&self) -> Duration {
        let doublings = self.failures.saturating_sub(1);
        self.first.saturating_mul(2u32.saturating_pow(doublings)).min(self.longest)
    }
}

/// A duration that is up to `part` of itself longer or shorter, another one each time.
#[must_use]
pub fn jittered(duration: Duration, part: f64) -> Duration {
    let random = u32::try_from(RandomState::new().hash_one(duration) >> 32).unwrap_or_default();
    let seconds =
        duration.as_secs_f64() * (1.0 - part + 2.0 * part * f64::from(random) / f64::from(u32::MAX));
    // Longer than a clock counts.
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let nominal = |backoff: &mut Backoff| {
            let delay = backoff.failed();
            let nominal = backoff.nominal();
            assert!(delay >= nominal.mul_f64(0.79) && delay <= nominal.mul_f64(1.21), "{delay:?}");
            nominal.as_millis()
        };
        let delays: Vec<u128> = (0..7).map(|_| nominal(&mut backoff)).collect();
        assert_eq!(delays, [50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.failures(), 7);
        backoff.reset();
        assert_eq!((backoff.failures(), nominal(&mut backoff)), (0, 50));
    }

    #[test]
    fn jitter_stays_within_its_part_and_never_overflows() {
        let age = Duration::from_secs(1000);
        let many: std::collections::BTreeSet<Duration> = (0..1000).map(|_| jittered(age, 0.1)).collect();
        assert!(many.len() > 500 && many.iter().all(|one| (900..=1100).contains(&one.as_secs())), "{many:?}");
        assert!((0..100).map(|_| jittered(Duration::MAX, 0.1)).any(|one| one == Duration::MAX));
        assert_eq!(jittered(Duration::ZERO, 0.1), Duration::ZERO);
    }

    #[test]
    fn many_failures_do_not_overflow_and_delays_differ() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let delays: std::collections::BTreeSet<Duration> = (0..200).map(|_| backoff.failed()).collect();
        assert!(delays.len() > 100, "{delays:?}");
        assert!(delays.iter().all(|delay| *delay <= Duration::from_secs(6)), "{delays:?}");
    }
}
