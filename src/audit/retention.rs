//! Retention by age and by size, in steps that fit between two batches.
//!
//! Only these two limits delete anything, always from the oldest record on. A full disk never
//! does.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::AuditError;
use super::age::AgeClock;
use super::ledger::{Cut, Ledger, LedgerError, PAGE_BYTES, TRIM_ROWS, Usage};
use super::record::{Tip, to_nanos};

/// How many steps of each kind run between two batches.
const STEPS: u64 = 4;
/// Pages given back to the file system in one step.
const VACUUM_PAGES: u64 = 64;
/// Free pages that are kept for records to come: they cost less than to shrink and grow.
const SPARE_BYTES: u64 = 4 << 20;

/// The two clocks of a log; a test turns them by hand.
#[derive(Clone)]
pub struct Clock {
    /// The time of day, which may jump: for what is recorded and shown.
    pub wall: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    /// A clock that never jumps: for how long something takes.
    pub monotonic: Arc<dyn Fn() -> Instant + Send + Sync>,
}

impl Default for Clock {
    /// The clocks of the system.
    fn default() -> Self {
        Self { wall: Arc::new(SystemTime::now), monotonic: Arc::new(Instant::now) }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Clock")
    }
}

/// The limits, and the sizes that follow from them.
pub(super) struct Retention {
    pub(super) max_age: Option<Duration>,
    pub(super) max_bytes: Option<u64>,
    /// The most content in one transaction, unless a single record has more.
    pub(super) batch_bytes: usize,
    /// The size of the write-ahead file after which it is moved into the main file.
    pub(super) wal_bytes: u64,
    pub(super) clock: Clock,
    age: AgeClock,
}

/// The space that the store takes, and where its records begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    pub(super) bytes: u64,
    /// What is left of the records before the oldest.
    pub(super) base: Tip,
}

/// How many records were deleted, by what deleted them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Evicted {
    /// Deleted because they were old.
    pub age: u64,
    /// Deleted for the size of the store although they were not old.
    pub size: u64,
}

/// What one round did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Maintained {
    pub(super) space: Space,
    pub(super) evicted: Evicted,
    /// Transactions that were needed.
    pub(super) steps: u64,
    /// Whether another round should follow soon.
    pub(super) more: bool,
}

impl Retention {
    /// The least size limit: 16 times the largest record.
    pub(super) const LEAST_BYTES: u64 = 16 << 20;

    /// Checks a size limit.
    pub(super) const fn check(max_bytes: Option<u64>) -> Result<(), AuditError> {
        match max_bytes {
            Some(given) if given < Self::LEAST_BYTES => {
                Err(AuditError::LimitTooSmall { given, least: Self::LEAST_BYTES })
            }
            _ => Ok(()),
        }
    }

    /// `newest` is the time of the newest record.
    pub(super) fn new(
        max_age: Option<Duration>,
        max_bytes: Option<u64>,
        clock: Clock,
        newest: Option<SystemTime>,
    ) -> Self {
        let share = max_bytes.map_or(8 << 20, |bytes| (bytes / 64).min(8 << 20));
        Self {
            max_age,
            max_bytes,
            batch_bytes: usize::try_from(share / 2).unwrap_or(usize::MAX),
            wal_bytes: share,
            age: AgeClock::new((clock.monotonic)(), (clock.wall)(), newest),
            clock,
        }
    }

    /// Does one round. `move_wal` says that the write-ahead file has grown to its size. Records after `hold` stay whatever their age
    /// is, as long as the size allows it.
    pub(super) fn maintain(
        &mut self,
        ledger: &mut dyn Ledger,
        move_wal: bool,
        hold: u64,
    ) -> Result<Maintained, LedgerError> {
        if move_wal {
            ledger.checkpoint()?;
        }
        let mut steps = 0;
        let mut evicted = Evicted::default();
        let age = self.max_age.and_then(|max_age| {
            let now = self.age.time((self.clock.monotonic)(), (self.clock.wall)(), max_age);
            Some((now.checked_sub(max_age)?, now))
        });
        let mut more = false;
        if let Some((cutoff, now)) = age {
            more |= trim_by_age(ledger, cutoff, now, hold, &mut steps, &mut evicted)?;
        }
        let young = age.map_or(i64::MIN, |(cutoff, _)| to_nanos(cutoff));
        more |= self.trim_by_size(ledger, young, &mut steps, &mut evicted)?;
        more |= self.vacuum(ledger, &mut steps)?;
        let bytes = total(ledger.usage()?);
        let space = Space { bytes, base: ledger.base()? };
        Ok(Maintained { space, evicted, steps, more })
    }

    fn trim_by_size(
        &self,
        ledger: &mut dyn Ledger,
        young: i64,
        steps: &mut u64,
        evicted: &mut Evicted,
    ) -> Result<bool, LedgerError> {
        let Some(limit) = self.max_bytes else {
            return Ok(false);
        };
        for _ in 0..STEPS {
            let usage = ledger.usage()?;
            // Records must not be deleted for a write-ahead file that does not get smaller by it.
            let counted = usage.used_bytes + usage.wal_bytes.min(4 * self.wal_bytes);
            let Some(excess) = counted.checked_sub(high_water(limit)) else {
                return Ok(false);
            };
            // A little more than needed, so that not every batch has to delete.
            let trimmed = ledger.trim(Cut::Bytes(excess + self.wal_bytes / 4, young))?;
            if trimmed.rows == 0 {
                return Ok(false);
            }
            evicted.size += trimmed.young;
            evicted.age += trimmed.rows - trimmed.young;
            *steps += 1;
        }
        Ok(true)
    }

    fn vacuum(&self, ledger: &mut dyn Ledger, steps: &mut u64) -> Result<bool, LedgerError> {
        for _ in 0..STEPS {
            let usage = ledger.usage()?;
            let free = usage.main_bytes.saturating_sub(usage.used_bytes);
            let too_large = self.max_bytes.is_some_and(|limit| total(usage) > high_water(limit));
            if free < u64::from(PAGE_BYTES) || !(too_large || free > usage.used_bytes / 4 + SPARE_BYTES) {
                return Ok(false);
            }
            ledger.vacuum(VACUUM_PAGES)?;
            *steps += 1;
        }
        Ok(true)
    }
}

fn trim_by_age(
    ledger: &mut dyn Ledger,
    cutoff: SystemTime,
    now: SystemTime,
    hold: u64,
    steps: &mut u64,
    evicted: &mut Evicted,
) -> Result<bool, LedgerError> {
    for _ in 0..STEPS {
        let rows = ledger.trim(Cut::OlderThan(to_nanos(cutoff), to_nanos(now), hold))?.rows;
        *steps += u64::from(rows > 0);
        evicted.age += rows;
        if rows < TRIM_ROWS {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The size at which records are deleted. What is above is room for the batch that is being
/// written, which for a moment is both in the write-ahead file and in the main file.
const fn high_water(limit: u64) -> u64 {
    limit - limit / 8
}

const fn total(usage: Usage) -> u64 {
    usage.main_bytes + usage.wal_bytes
}
