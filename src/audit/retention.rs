//! Retention by age and by size, in steps that fit between two batches.
//!
//! Only these two limits delete anything, always from the oldest record on. A full disk never
//! does.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::AuditError;
use super::age::AgeClock;
use super::ledger::{Cut, Ledger, LedgerError};
use super::recent;
use super::record::{Tip, to_nanos};

/// How many steps of each kind run between two batches.
const STEPS: u64 = 4;
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
    /// The size of a segment after which the next begins.
    pub(super) segment_bytes: u64,
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
#[derive(Debug)]
pub(super) struct Maintained {
    pub(super) space: Space,
    pub(super) evicted: Evicted,
    /// Whether another round should follow soon.
    pub(super) more: bool,
    /// Why records could not be looked at, if what is damaged was in the way.
    pub(super) damage: Option<LedgerError>,
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

    /// The size of a segment after which the next begins. About as much is kept of the newest records in memory, so of a last
    /// segment that is damaged while it is written mostly nothing is lost.
    pub(super) fn segment_bytes(max_bytes: Option<u64>) -> u64 {
        share(max_bytes).min(recent::MOST_BYTES as u64)
    }

    /// `newest` is the time of the newest record.
    pub(super) fn new(
        max_age: Option<Duration>,
        max_bytes: Option<u64>,
        clock: Clock,
        newest: Option<SystemTime>,
    ) -> Self {
        Self {
            max_age,
            max_bytes,
            batch_bytes: usize::try_from(share(max_bytes) / 2).unwrap_or(usize::MAX),
            segment_bytes: Self::segment_bytes(max_bytes),
            age: AgeClock::new((clock.monotonic)(), (clock.wall)(), newest),
            clock,
        }
    }

    /// Does one round. Records after `hold` stay whatever their age is, as long as the size allows it.
    pub(super) fn maintain(&mut self, ledger: &mut dyn Ledger, hold: u64) -> Result<Maintained, LedgerError> {
        let mut evicted = Evicted::default();
        let age = self.max_age.and_then(|max_age| {
            let now = self.age.time((self.clock.monotonic)(), (self.clock.wall)(), max_age);
            Some((now.checked_sub(max_age)?, now))
        });
        let (mut more, mut damage) = (false, None);
        if let Some((cutoff, now)) = age {
            match trim_by_age(ledger, cutoff, now, hold, &mut evicted) {
                // The size is kept all the same.
                Err(error) if error.is_damage() => damage = Some(error),
                trimmed => more |= trimmed?,
            }
        }
        let young = age.map_or(i64::MIN, |(cutoff, _)| to_nanos(cutoff));
        more |= self.trim_by_size(ledger, young, &mut evicted)?;
        let bytes = ledger.usage()?;
        let space = Space { bytes, base: ledger.base()? };
        Ok(Maintained { space, evicted, more, damage })
    }

    fn trim_by_size(
        &self,
        ledger: &mut dyn Ledger,
        young: i64,
        evicted: &mut Evicted,
    ) -> Result<bool, LedgerError> {
        let Some(limit) = self.max_bytes else {
            return Ok(false);
        };
        for _ in 0..STEPS {
            if ledger.usage()? <= high_water(limit) {
                return Ok(false);
            }
            let trimmed = ledger.trim(Cut::Segment(young))?;
            if trimmed.rows == 0 {
                return Ok(false);
            }
            evicted.size += trimmed.young;
            evicted.age += trimmed.rows - trimmed.young;
        }
        Ok(true)
    }
}

fn trim_by_age(
    ledger: &mut dyn Ledger,
    cutoff: SystemTime,
    now: SystemTime,
    hold: u64,
    evicted: &mut Evicted,
) -> Result<bool, LedgerError> {
    for _ in 0..STEPS {
        let rows = ledger.trim(Cut::OlderThan(to_nanos(cutoff), to_nanos(now), hold))?.rows;
        evicted.age += rows;
        if rows == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a transaction and a segment are sized by.
fn share(max_bytes: Option<u64>) -> u64 {
    max_bytes.map_or(8 << 20, |bytes| (bytes / 64).min(8 << 20))
}

/// The size at which records are deleted. What is above is room for what is written until they are.
const fn high_water(limit: u64) -> u64 {
    limit - limit / 8
}
