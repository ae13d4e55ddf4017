//! The newest durable records in memory: streams that follow read them here and leave the store
//! alone, and a store that lost them gets them back.

use std::collections::VecDeque;

use super::chain::StoredRow;
use super::record::Tip;

/// How many bytes of records are kept.
pub(super) const MOST_BYTES: usize = 4 << 20;
/// What a record takes in memory in addition to its content.
const ROW_BYTES: usize = 128;

/// The ends of the chain and the newest of its records.
#[derive(Debug)]
pub(super) struct Recent {
    /// What is known of the record before the oldest that the store has.
    base: Tip,
    /// The newest record.
    tip: Tip,
    /// The place before the first of `rows`.
    before: Tip,
    rows: VecDeque<StoredRow>,
    bytes: usize,
}

impl Recent {
    /// Knows the ends of a chain, and none of its records yet.
    pub(super) const fn new(base: Tip, tip: Tip) -> Self {
        Self { base, tip, before: tip, rows: VecDeque::new(), bytes: 0 }
    }

    /// What is known of the record before the oldest that is kept.
    pub(super) const fn base(&self) -> Tip {
        self.base
    }

    /// The newest record.
    pub(super) const fn tip(&self) -> Tip {
        self.tip
    }

    /// Adds the next record.
    pub(super) fn push(&mut self, row: StoredRow) {
        self.tip = row.tip();
        self.bytes += ROW_BYTES + row.content.len();
        self.rows.push_back(row);
        while self.bytes > MOST_BYTES
            && let Some(oldest) = self.rows.pop_front()
        {
            self.bytes -= ROW_BYTES + oldest.content.len();
            self.before = oldest.tip();
        }
    }

    /// Forgets the records, since the chain has another end now.
    pub(super) fn reset(&mut self, tip: Tip) {
        *self = Self::new(self.base, tip);
    }

    /// Notes what retention left.
    pub(super) fn set_base(&mut self, base: Tip) {
        self.base = base;
        while self.rows.front().is_some_and(|row| row.sequence <= base.head.sequence)
            && let Some(oldest) = self.rows.pop_front()
        {
            self.bytes -= ROW_BYTES + oldest.content.len();
            self.before = oldest.tip();
        }
    }

    /// The place of a record and at most `limit` records after it; `None` if they are not here.
    pub(super) fn after(&self, sequence: u64, limit: usize) -> Option<(Tip, Vec<StoredRow>)> {
        let skip = usize::try_from(sequence.checked_sub(self.before.head.sequence)?).ok()?;
        let place = match skip.checked_sub(1) {
            None => self.before,
            Some(at) => self.rows.get(at)?.tip(),
        };
        Some((place, self.rows.iter().skip(skip).take(limit).cloned().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Head;
    use super::*;

    fn tip(sequence: u64) -> Tip {
        Tip { head: Head { sequence, hash: [sequence as u8; 32] }, latest_time: sequence as i64 }
    }

    fn row(sequence: u64, bytes: usize) -> StoredRow {
        StoredRow::new(tip(sequence), vec![0; bytes])
    }

    #[track_caller]
    fn check(recent: &Recent, after: u64, limit: usize, expected: Option<&[u64]>) {
        let found = recent.after(after, limit);
        let sequences: Option<Vec<u64>> =
            found.as_ref().map(|(_, rows)| rows.iter().map(|row| row.sequence).collect());
        assert_eq!(sequences.as_deref(), expected, "after {after}");
        if let Some((place, _)) = found {
            assert_eq!(place, tip(after));
        }
    }

    #[test]
    fn records_are_found_by_the_place_before_them() {
        let mut recent = Recent::new(tip(0), tip(7));
        check(&recent, 7, 10, Some(&[]));
        check(&recent, 6, 10, None);
        check(&recent, 8, 10, None);
        (8..=11).for_each(|sequence| recent.push(row(sequence, 10)));
        check(&recent, 7, 2, Some(&[8, 9]));
        check(&recent, 9, 10, Some(&[10, 11]));
        check(&recent, 11, 10, Some(&[]));
        check(&recent, 12, 10, None);
        assert_eq!(recent.tip(), tip(11));
        recent.reset(tip(10));
        check(&recent, 10, 10, Some(&[]));
        check(&recent, 9, 10, None);
    }

    #[test]
    fn what_is_kept_is_bounded_and_nothing_that_retention_deleted() {
        let mut recent = Recent::new(tip(0), tip(0));
        (1..=200).for_each(|sequence| recent.push(row(sequence, 100_000)));
        assert!(recent.bytes <= MOST_BYTES && recent.rows.len() == 41, "{}", recent.rows.len());
        check(&recent, 159, 1, Some(&[160]));
        check(&recent, 158, 1, None);
        recent.set_base(tip(170));
        assert_eq!(recent.base(), tip(170));
        check(&recent, 169, 1, None);
        check(&recent, 170, 1, Some(&[171]));
        recent.set_base(tip(200));
        assert_eq!((recent.bytes, recent.rows.len()), (0, 0));
        check(&recent, 200, 1, Some(&[]));
        // More than fits at once.
        recent.push(row(201, MOST_BYTES));
        check(&recent, 201, 1, Some(&[]));
        assert_eq!(recent.tip(), tip(201));
    }
}
