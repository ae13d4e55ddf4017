//! Counts events that could not be queued, until a gap record says so in the chain.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::record::{GapReason, gap, nanos_of};
use crate::proto::v1::Gap;

/// Losses that no record counts yet, one entry for each reason.
#[derive(Debug, Default)]
pub(super) struct Losses {
    gaps: Mutex<Vec<Gap>>,
}

impl Losses {
    /// Counts one lost event. True if nothing was counted before it.
    pub(super) fn add(&self, reason: GapReason, time: SystemTime) -> bool {
        self.merge(vec![gap(reason, 1, time, time)])
    }

    /// Takes all that is counted, to be written.
    pub(super) fn take(&self) -> Vec<Gap> {
        std::mem::take(&mut *self.gaps.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts back what could not be written. True if nothing was counted before it.
    pub(super) fn merge(&self, gaps: Vec<Gap>) -> bool {
        let mut all = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        let first = all.is_empty();
        for gap in gaps {
            match all.iter_mut().find(|known| known.reason == gap.reason) {
                Some(known) => {
                    known.count = known.count.saturating_add(gap.count);
                    if nanos_of(gap.first_time) < nanos_of(known.first_time) {
                        known.first_time = gap.first_time;
                    }
                    if nanos_of(gap.last_time) > nanos_of(known.last_time) {
                        known.last_time = gap.last_time;
                    }
                }
                None => all.push(gap),
            }
        }
        first
    }

    /// Takes off what turned out to be written after all.
    pub(super) fn subtract(&self, written: &Gap) {
        let mut all = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        for known in all.iter_mut().filter(|known| known.reason == written.reason) {
            known.count = known.count.saturating_sub(written.count);
        }
        all.retain(|known| known.count > 0);
    }

    /// How many events are lost and not yet counted by a record.
    pub(super) fn count(&self) -> u64 {
        let all = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|gap| gap.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn losses_of_one_reason_become_one_gap_with_first_and_last_time() {
        let losses = Losses::default();
        let start = SystemTime::UNIX_EPOCH;
        for second in [5, 3, 9] {
            losses.add(GapReason::QueueFull, start + Duration::from_secs(second));
        }
        losses.add(GapReason::TooLarge, start);
        assert_eq!(losses.count(), 4);
        let gaps = losses.take();
        assert_eq!(gaps.len(), 2);
        assert_eq!(gaps[0].count, 3);
        assert_eq!(gaps[0].first_time, Some((start + Duration::from_secs(3)).into()));
        assert_eq!(gaps[0].last_time, Some((start + Duration::from_secs(9)).into()));
        assert_eq!(losses.count(), 0);
    }

    #[test]
    fn what_was_written_after_all_is_taken_off_once() {
        let losses = Losses::default();
        let now = SystemTime::UNIX_EPOCH;
        losses.add(GapReason::QueueFull, now);
        let tried = losses.take();
        losses.merge(tried.clone());
        losses.add(GapReason::QueueFull, now);
        losses.subtract(&tried[0]);
        assert_eq!(losses.count(), 1);
        losses.subtract(&tried[0]);
        assert_eq!(losses.count(), 0);
        assert!(losses.take().is_empty());
    }
}
