//! Counts events that are not recorded, until a gap record says so in the chain.
//!
//! Adding to a count takes no lock, since serving threads do it for every denial beyond the rate.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::SystemTime;

use super::record::{GapReason, from_nanos, gap, nanos_of, to_nanos};
use crate::proto::v1::{Gap, Reason};

/// More than the numbers that `Reason` has.
const REASONS: usize = 32;

/// Losses that no record counts yet, one entry for each reason.
#[derive(Debug, Default)]
pub(super) struct Losses {
    slots: [Slot; GapReason::ALL.len()],
    /// Those with [`GapReason::DenialRate`], by the number of their reason.
    denials: [AtomicU64; REASONS],
}

#[derive(Debug)]
struct Slot {
    count: AtomicU64,
    /// Nanoseconds since 1970; extremes that no time has if nothing is counted.
    first: AtomicI64,
    last: AtomicI64,
}

/// Which losses are taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TakenLosses {
    /// All but denials beyond the rate, which would otherwise fill the log with gaps.
    Urgent,
    /// All.
    All,
}

impl Losses {
    /// Counts one lost event. `true` if none of its reason was counted before it. `time` is in
    /// nanoseconds since 1970.
    pub(super) fn add(&self, reason: GapReason, time: i64) -> bool {
        self.slot(reason.as_str()).is_some_and(|slot| slot.add(1, time, time))
    }

    /// Counts one denial beyond the rate.
    pub(super) fn add_denial(&self, reason: Reason, time: i64) {
        // In this order, so that the counts by reason are never more than the count of all.
        self.add(GapReason::DenialRate, time);
        if let Some(count) = self.denial(reason) {
            count.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Takes what is counted, to be written. `now` stands in for times that are just being noted.
    pub(super) fn take(&self, which: TakenLosses, now: SystemTime) -> Vec<Gap> {
        let wanted = |reason: &GapReason| which == TakenLosses::All || *reason != GapReason::DenialRate;
        let take = |reason: GapReason| {
            let slot = self.slot(reason.as_str())?;
            if reason != GapReason::DenialRate {
                return slot.take(reason, u64::MAX, to_nanos(now));
            }
            let reason_counts: BTreeMap<_, _> = self.take_denials().collect();
            let gap = slot.take(reason, reason_counts.values().sum(), to_nanos(now))?;
            Some(Gap { reason_counts, ..gap })
        };
        GapReason::ALL.into_iter().filter(wanted).filter_map(take).collect()
    }

    /// Puts back what could not be written.
    pub(super) fn put_back(&self, gaps: Vec<Gap>) {
        for gap in gaps {
            if let Some(slot) = self.slot(&gap.reason) {
                slot.add(gap.count, nanos_of(gap.first_time), nanos_of(gap.last_time));
            }
            for (reason, more) in gap.reason_counts {
                if let Some(count) = Reason::from_str_name(&reason).and_then(|reason| self.denial(reason)) {
                    count.fetch_add(more, Ordering::AcqRel);
                }
            }
        }
    }

    /// Takes off what turned out to be written after all.
    pub(super) fn subtract(&self, written: &Gap) {
        if let Some(slot) = self.slot(&written.reason) {
            subtract(&slot.count, written.count);
        }
        for (reason, less) in &written.reason_counts {
            if let Some(count) = Reason::from_str_name(reason).and_then(|reason| self.denial(reason)) {
                subtract(count, *less);
            }
        }
    }

    /// How many events are lost and not yet counted by a record.
    pub(super) fn count(&self) -> u64 {
        self.slots.iter().map(|slot| slot.count.load(Ordering::Acquire)).sum()
    }

    fn slot(&self, reason: &str) -> Option<&Slot> {
        self.slots.get(GapReason::ALL.iter().position(|known| known.as_str() == reason)?)
    }

    fn denial(&self, reason: Reason) -> Option<&AtomicU64> {
        self.denials.get(usize::try_from(i32::from(reason)).ok()?)
    }

    fn take_denials(&self) -> impl Iterator<Item = (String, u64)> {
        let counts = self.denials.iter().map(|count| count.swap(0, Ordering::AcqRel));
        (0..).zip(counts).filter(|(_, count)| *count > 0).map(|(number, count)| {
            let reason = Reason::try_from(number).unwrap_or_default();
            (reason.as_str_name().to_owned(), count)
        })
    }
}

impl Slot {
    fn add(&self, count: u64, first: i64, last: i64) -> bool {
        // The times before the count, so that who takes a count finds its times, or a taker just
        // before did.
        self.first.fetch_min(first, Ordering::AcqRel);
        self.last.fetch_max(last, Ordering::AcqRel);
        self.count.fetch_add(count, Ordering::AcqRel) == 0
    }

    /// Takes at most so many.
    fn take(&self, reason: GapReason, most: u64, now: i64) -> Option<Gap> {
        let left = |count: u64| Some(count.saturating_sub(most));
        let counted = self.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, left).unwrap_or(0);
        let count = Some(counted.min(most)).filter(|count| *count > 0)?;
        let first = self.first.swap(i64::MAX, Ordering::AcqRel);
        let last = self.last.swap(i64::MIN, Ordering::AcqRel);
        let (first, last) = if first > last { (now, now) } else { (first, last) };
        Some(gap(reason, count, from_nanos(first), from_nanos(last)))
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self { count: AtomicU64::new(0), first: AtomicI64::new(i64::MAX), last: AtomicI64::new(i64::MIN) }
    }
}

fn subtract(count: &AtomicU64, less: u64) {
    // An update that always gives a number does not fail.
    let _ = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| Some(count.saturating_sub(less)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn losses_of_one_reason_become_one_gap_with_first_and_last_time() {
        let losses = Losses::default();
        let firsts = [5, 3, 9].map(|nanos| losses.add(GapReason::QueueFull, nanos));
        assert_eq!(firsts, [true, false, false]);
        assert!(losses.add(GapReason::TooLarge, 0));
        assert_eq!(losses.count(), 4);
        let taken = losses.take(TakenLosses::All, START);
        assert_eq!(taken.len(), 2);
        assert_eq!(taken[0], gap(GapReason::QueueFull, 3, from_nanos(3), from_nanos(9)));
        assert_eq!(losses.count(), 0);
        assert!(losses.take(TakenLosses::All, START).is_empty());
    }

    #[test]
    fn denials_are_counted_by_reason_and_taken_only_with_all() {
        let losses = Losses::default();
        for reason in [Reason::Unsupported, Reason::Unspecified, Reason::ClientTooLarge, Reason::Unsupported]
        {
            losses.add_denial(reason, 7);
        }
        assert!(losses.take(TakenLosses::Urgent, START).is_empty());
        let taken = losses.take(TakenLosses::All, START);
        let expected = [("REASON_CLIENT_TOO_LARGE", 1), ("REASON_UNSPECIFIED", 1), ("REASON_UNSUPPORTED", 2)];
        assert_eq!((&*taken[0].reason, taken[0].count), ("DENIAL_RATE", 4));
        assert!(taken[0].reason_counts.iter().map(|(reason, count)| (&**reason, *count)).eq(expected));
        losses.put_back(taken.clone());
        assert_eq!(losses.take(TakenLosses::All, START), taken);
        assert!(losses.take(TakenLosses::All, START).is_empty());
    }

    #[test]
    fn what_was_written_after_all_is_taken_off_once() {
        let losses = Losses::default();
        losses.add(GapReason::QueueFull, 1);
        losses.add_denial(Reason::Malformed, 1);
        let tried = losses.take(TakenLosses::All, START);
        losses.put_back(tried.clone());
        losses.add(GapReason::QueueFull, 2);
        tried.iter().for_each(|gap| losses.subtract(gap));
        assert_eq!(losses.count(), 1);
        losses.subtract(&tried[0]);
        assert_eq!(losses.count(), 0);
        assert!(losses.take(TakenLosses::All, START).is_empty());
    }

    #[test]
    fn no_loss_is_missed_while_others_are_taken() {
        let losses = Losses::default();
        let taken = std::thread::scope(|scope| {
            let adders: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).for_each(|_| losses.add_denial(Reason::Malformed, 1))))
                .collect();
            let take = || {
                let gaps = losses.take(TakenLosses::All, START);
                for gap in &gaps {
                    assert_eq!(gap.count, gap.reason_counts.values().sum::<u64>());
                }
                gaps.iter().map(|gap| gap.count).sum::<u64>()
            };
            let mut taken = 0;
            while adders.iter().any(|adder| !adder.is_finished()) {
                taken += take();
            }
            taken + take()
        });
        assert_eq!(taken, 4000);
    }
}
