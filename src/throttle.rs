//! One line of the log in an interval instead of one for each event, with the count of those that it stands for.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets one of many equal lines through in an interval, and counts the others.
///
/// Knows no clock: the caller says what time it is.
#[derive(Debug)]
pub struct Throttle {
    interval: Duration,
    state: Mutex<ThrottleState>,
}

#[derive(Debug)]
struct ThrottleState {
    last: Option<Instant>,
    left_out: u64,
}

impl Throttle {
    /// One line in each `interval`.
    #[must_use]
    pub const fn every(interval: Duration) -> Self {
        Self { interval, state: Mutex::new(ThrottleState { last: None, left_out: 0 }) }
    }

    /// One line a minute, as all lines that repeat while something lasts.
    #[must_use]
    pub const fn every_minute() -> Self {
        Self::every(Duration::from_secs(60))
    }

    /// Counts an event, as [`Throttle::add`] does.
    pub fn count(&self, now: Instant) -> Option<u64> {
        self.add(1, now)
    }

    /// Counts `more` events. `Some` with the number of events since the last line, these included, if there are any
    /// and it is time for a line.
    pub fn add(&self, more: u64, now: Instant) -> Option<u64> {
        // The two numbers are whole even if somebody panicked meanwhile.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.left_out = state.left_out.saturating_add(more);
        if state.left_out == 0
            || state.last.is_some_and(|last| now.saturating_duration_since(last) < self.interval)
        {
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_stands_for_all_events_since_the_last() {
        let throttle = Throttle::every(Duration::from_secs(60));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(throttle.count(at(0)), Some(1), "the first is written at once");
        for second in 1..60 {
            assert_eq!(throttle.count(at(second)), None);
        }
        assert_eq!(throttle.count(at(60)), Some(60));
        assert_eq!(throttle.count(at(119)), None);
        assert_eq!(throttle.count(at(300)), Some(2));
        assert_eq!(throttle.add(0, at(900)), None, "no line about nothing");
        assert_eq!(throttle.add(7, at(901)), Some(7));
        assert_eq!(throttle.add(3, at(902)), None);
        assert_eq!(throttle.add(0, at(1000)), Some(3), "what was left out is told later");
    }
}
