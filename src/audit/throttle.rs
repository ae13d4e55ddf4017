//! Log lines about what happens again and again: at most one a minute, with a count.

use std::time::{Duration, Instant};

/// The least time between two lines.
const PAUSE: Duration = Duration::from_secs(60);

/// Counts until the next line is due.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    count: u64,
    last: Option<Instant>,
}

impl Throttle {
    /// Counts `more` of it. `Some` is the count since the last line, if one is due.
    pub(super) fn add(&mut self, more: u64, now: Instant) -> Option<u64> {
        self.count += more;
        let is_due = self.last.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
        if self.count == 0 || !is_due {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_rest_once_a_minute() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        let mut told = Vec::new();
        for second in 0..130 {
            let more = u64::from(second < 100);
            told.extend(throttle.add(more, start + Duration::from_secs(second)).map(|count| (second, count)));
        }
        assert_eq!(told, [(0, 1), (60, 60), (120, 39)]);
        assert_eq!(throttle.add(0, start + Duration::from_secs(900)), None);
    }
}
