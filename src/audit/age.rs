//! The clock that the age of records is judged by: a wall clock that never jumps forward.
//!
//! A wall clock that is set forward would make every record old at once. So the time begins at
//! what the newest record says and goes on with a monotonic clock. A wall clock that stays ahead
//! for as long as records are kept is believed: by then whatever was recorded before the jump is
//! old by any clock.

use std::time::{Duration, Instant, SystemTime};

/// How far the two clocks may differ without it being a jump.
const SLACK: Duration = Duration::from_secs(60);

/// Tells the time for retention.
#[derive(Debug)]
pub(super) struct AgeClock {
    /// The time that this clock showed at an instant.
    base: (Instant, SystemTime),
    /// Since when the wall clock is ahead.
    ahead_since: Option<Instant>,
}

impl AgeClock {
    /// Begins at the time of the newest record, if there is one and the wall clock is not before
    /// it.
    pub(super) fn new(now: Instant, wall: SystemTime, newest: Option<SystemTime>) -> Self {
        Self { base: (now, newest.map_or(wall, |newest| newest.min(wall))), ahead_since: None }
    }

    /// The time; never later than the wall clock's. `max_age` is how long records are kept.
    pub(super) fn time(&mut self, now: Instant, wall: SystemTime, max_age: Duration) -> SystemTime {
        let (start, base) = self.base;
        let time = base.checked_add(now.saturating_duration_since(start)).unwrap_or(wall);
        let is_ahead = wall.duration_since(time).is_ok_and(|ahead| ahead > SLACK);
        if !is_ahead {
            self.ahead_since = None;
            return time.min(wall);
        }
        let since = *self.ahead_since.get_or_insert(now);
        if now.saturating_duration_since(since) < max_age {
            return time;
        }
        *self = Self::new(now, wall, None);
        wall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

    #[test]
    fn it_goes_on_with_the_monotonic_clock_from_the_newest_record() {
        let (now, wall) = (Instant::now(), SystemTime::UNIX_EPOCH + 1000 * DAY);
        let mut clock = AgeClock::new(now, wall, Some(wall - DAY));
        assert_eq!(clock.time(now, wall, MAX_AGE), wall - DAY);
        assert_eq!(clock.time(now + 3 * DAY, wall + 3 * DAY, MAX_AGE), wall + 2 * DAY);
        let mut clock = AgeClock::new(now, wall, None);
        assert_eq!(clock.time(now + DAY, wall + DAY, MAX_AGE), wall + DAY);
    }

    #[test]
    fn a_jump_forward_is_believed_only_after_the_retention() {
        let (now, wall) = (Instant::now(), SystemTime::UNIX_EPOCH + 1000 * DAY);
        let mut clock = AgeClock::new(now, wall, None);
        let jump = 365 * DAY;
        assert_eq!(clock.time(now, wall + jump, MAX_AGE), wall);
        assert_eq!(clock.time(now + 29 * DAY, wall + jump + 29 * DAY, MAX_AGE), wall + 29 * DAY);
        assert_eq!(clock.time(now + 30 * DAY, wall + jump + 30 * DAY, MAX_AGE), wall + jump + 30 * DAY);
        assert_eq!(clock.time(now + 31 * DAY, wall + jump + 31 * DAY, MAX_AGE), wall + jump + 31 * DAY);
    }

    #[test]
    fn a_jump_that_is_taken_back_leaves_no_trace() {
        let (now, wall) = (Instant::now(), SystemTime::UNIX_EPOCH + 1000 * DAY);
        let mut clock = AgeClock::new(now, wall, None);
        assert_eq!(clock.time(now, wall + 365 * DAY, MAX_AGE), wall);
        assert_eq!(clock.time(now + 20 * DAY, wall + 20 * DAY, MAX_AGE), wall + 20 * DAY);
        assert_eq!(clock.time(now + 31 * DAY, wall + 365 * DAY, MAX_AGE), wall + 31 * DAY);
    }

    #[test]
    fn a_clock_that_is_set_back_makes_nothing_older() {
        let (now, wall) = (Instant::now(), SystemTime::UNIX_EPOCH + 1000 * DAY);
        let mut clock = AgeClock::new(now, wall, None);
        assert_eq!(clock.time(now + DAY, wall - 9 * DAY, MAX_AGE), wall - 9 * DAY);
        // The newest record is from a clock that was ahead.
        let mut clock = AgeClock::new(now, wall, Some(wall + 9 * DAY));
        assert_eq!(clock.time(now, wall, MAX_AGE), wall);
    }
}
