//! Finds out that events wait too long: a disk that neither fails nor answers.
//!
//! Looks at two counters from time to time and keeps no entry's time, so that queueing costs
//! nothing more. Reads no clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Remembers what had entered the queue at earlier looks.
#[derive(Debug, Default)]
pub(super) struct StallDetector {
    /// When a look was taken, and how many entries the queue had ever had by then; oldest first.
    looks: VecDeque<(Instant, u64)>,
}

impl StallDetector {
    /// Takes a look: `entered` and `left` count the entries that the queue ever got and lost, in
    /// order. Returns `true` if one that was there at a look `limit` ago is still there.
    pub(super) fn look(&mut self, now: Instant, entered: u64, left: u64, limit: Duration) -> bool {
        self.looks.push_back((now, entered));
        let is_old = |look: &(Instant, u64)| now.saturating_duration_since(look.0) >= limit;
        // Of the looks that are old enough the newest knows most.
        while self.looks.get(1).is_some_and(is_old) {
            self.looks.pop_front();
        }
        self.looks.front().filter(|look| is_old(look)).is_some_and(|(_, entered)| left < *entered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// Each look: seconds since the start, entered, left, and whether the queue counts as stalled.
    #[track_caller]
    fn check(looks: &[(u64, u64, u64, bool)]) {
        let start = Instant::now();
        let mut detector = StallDetector::default();
        for (second, entered, left, stalled) in looks {
            let now = start + Duration::from_secs(*second);
            assert_eq!(detector.look(now, *entered, *left, LIMIT), *stalled, "second {second}");
        }
        assert!(detector.looks.len() <= 7, "{}", detector.looks.len());
    }

    #[test]
    fn a_queue_that_moves_is_not_stalled_however_long_it_is() {
        check(&[(0, 100, 0, false), (1, 200, 50, false), (5, 600, 101, false), (6, 700, 201, false)]);
        check(&[(0, 0, 0, false), (100, 0, 0, false), (200, 7, 7, false)]);
    }

    #[test]
    fn one_entry_that_waits_too_long_is_a_stall_until_it_leaves() {
        check(&[
            (0, 1, 0, false),
            (4, 50, 0, false),
            (5, 60, 0, true),
            (9, 60, 0, true),
            (10, 60, 60, false),
            (11, 61, 60, false),
        ]);
        // Those behind it are next.
        check(&[(0, 1, 0, false), (3, 2, 0, false), (5, 3, 1, false), (8, 3, 1, true)]);
    }

    #[test]
    fn many_looks_are_forgotten() {
        let looks: Vec<_> = (0..100).map(|second| (second, second, second, false)).collect();
        check(&looks);
    }
}
