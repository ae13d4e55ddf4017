//! Retention by age and by size, in steps that fit between two batches.
//!
//! Only these two limits delete anything, always from the oldest record on. A full disk never
//! does.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::AuditError;
use super::ledger::{Cut, Ledger, LedgerError, TRIM_ROWS, Usage};
use super::record::to_nanos;

/// How many steps of each kind run between two batches.
const STEPS: u64 = 4;
/// Pages given back to the file system in one step.
const VACUUM_PAGES: u64 = 256;
/// Free pages that are kept for records to come: they cost less than to shrink and grow.
const SPARE_BYTES: u64 = 4 << 20;
const PAGE_BYTES: u64 = 4096;

/// The current time; a test turns it by hand.
pub(super) type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The limits, and the sizes that follow from them.
pub(super) struct Retention {
    pub(super) max_age: Option<Duration>,
    pub(super) max_bytes: Option<u64>,
    /// The most content in one transaction, unless a single record has more.
    pub(super) batch_bytes: usize,
    /// The size of the write-ahead file after which it is moved into the main file.
    pub(super) wal_bytes: u64,
    pub(super) clock: Clock,
}

/// The space that the store takes, and the oldest record that it has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    pub(super) bytes: u64,
    pub(super) low: bool,
    pub(super) oldest: u64,
}

/// What one round did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Maintained {
    pub(super) space: Space,
    /// Transactions that were needed.
    pub(super) steps: u64,
    /// Whether another round should follow soon.
    pub(super) more: bool,
}

impl Retention {
    /// The least size limit: 16 times the largest record.
    pub(super) const LEAST_BYTES: u64 = 16 << 20;

    pub(super) fn new(
        max_age: Option<Duration>,
        max_bytes: Option<u64>,
        clock: Clock,
    ) -> Result<Self, AuditError> {
        if let Some(given) = max_bytes.filter(|bytes| *bytes < Self::LEAST_BYTES) {
            return Err(AuditError::LimitTooSmall { given, least: Self::LEAST_BYTES });
        }
        let share = max_bytes.map_or(8 << 20, |bytes| (bytes / 64).min(8 << 20));
        Ok(Self {
            max_age,
            max_bytes,
            batch_bytes: usize::try_from(share / 2).unwrap_or(usize::MAX),
            wal_bytes: share,
            clock,
        })
    }

    /// Does one round. `move_wal` says that the write-ahead file has grown to its size.
    pub(super) fn maintain(
        &self,
        ledger: &mut dyn Ledger,
        move_wal: bool,
    ) -> Result<Maintained, LedgerError> {
        if move_wal {
            let left = ledger.checkpoint(false)? * PAGE_BYTES;
            if left > 4 * self.wal_bytes {
                // Readers were in the way each time; wait for those that are there now.
                ledger.checkpoint(true)?;
            }
        }
        let mut steps = 0;
        let mut more = self.trim_by_age(ledger, &mut steps)?;
        more |= self.trim_by_size(ledger, &mut steps)?;
        more |= self.vacuum(ledger, &mut steps)?;
        let bytes = total(ledger.usage()?);
        Ok(Maintained {
            space: Space {
                bytes,
                low: self.max_bytes.is_some_and(|limit| bytes >= limit / 5 * 4),
                oldest: ledger.base()?.head.sequence + 1,
            },
            steps,
            more,
        })
    }

    fn trim_by_age(&self, ledger: &mut dyn Ledger, steps: &mut u64) -> Result<bool, LedgerError> {
        let now = (self.clock)();
        let Some(cutoff) = self.max_age.and_then(|age| now.checked_sub(age)) else {
            return Ok(false);
        };
        for _ in 0..STEPS {
            let rows = ledger.trim(Cut::OlderThan(to_nanos(cutoff), to_nanos(now)))?;
            *steps += u64::from(rows > 0);
            if rows < TRIM_ROWS {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn trim_by_size(&self, ledger: &mut dyn Ledger, steps: &mut u64) -> Result<bool, LedgerError> {
        let Some(limit) = self.max_bytes else {
            return Ok(false);
        };
        for _ in 0..STEPS {
            let usage = ledger.usage()?;
            // A foreign reader can keep the write-ahead file from being reused. Records must not
            // be deleted for that, since it would not make the file smaller.
            let counted = usage.used_bytes + usage.wal_bytes.min(4 * self.wal_bytes);
            let Some(excess) = counted.checked_sub(high_water(limit)) else {
                return Ok(false);
            };
            // A little more than needed, so that not every batch has to delete.
            let rows = ledger.trim(Cut::Bytes(excess + self.wal_bytes / 4))?;
            if rows == 0 {
                return Ok(false);
            }
            *steps += 1;
        }
        Ok(true)
    }

    fn vacuum(&self, ledger: &mut dyn Ledger, steps: &mut u64) -> Result<bool, LedgerError> {
        for _ in 0..STEPS {
            let usage = ledger.usage()?;
            let free = usage.main_bytes.saturating_sub(usage.used_bytes);
            let too_large = self.max_bytes.is_some_and(|limit| total(usage) > high_water(limit));
            if free < PAGE_BYTES || !(too_large || free > usage.used_bytes / 4 + SPARE_BYTES) {
                return Ok(false);
            }
            ledger.vacuum(VACUUM_PAGES)?;
            *steps += 1;
        }
        Ok(true)
    }
}

/// The size at which records are deleted. What is above is room for the batch that is being
/// written, which for a moment is both in the write-ahead file and in the main file.
const fn high_water(limit: u64) -> u64 {
    limit - limit / 8
}

const fn total(usage: Usage) -> u64 {
    usage.main_bytes + usage.wal_bytes
}
