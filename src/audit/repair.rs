//! Repairs of the end of a chain. Each is a record of the chain itself: no sequence ever means two
//! things to a reader.

use std::time::SystemTime;

use uuid::Uuid;

use super::chain::StoredRow;
use super::ledger::{Ledger, LedgerError};
use super::record::{Body, GapReason, Tip, from_nanos, gap, to_nanos};
use super::segments::SegmentLedger;

/// How many records a repair writes in one transaction.
const REPAIR_ROWS: u64 = 1000;

/// Moves the damaged records after the last good one to a file of their own and gives each of
/// their sequences to a gap. Returns how many there were.
pub(super) fn set_aside(
    ledger: &mut SegmentLedger,
    last_good: Tip,
    now: SystemTime,
) -> Result<u64, LedgerError> {
    let newest = ledger.tip()?.head.sequence;
    let log_id = ledger.log_id();
    let mut gaps = Vec::new();
    let mut tip = last_good;
    while tip.head.sequence < newest {
        let gap = gap_after(log_id, tip, GapReason::TailDamaged, now);
        tip = gap.tip();
        gaps.push(gap);
    }
    ledger.replace_end(&gaps, to_nanos(now))?;
    Ok(newest - last_good.head.sequence)
}

/// Gives the sequence of each record that is lost between `tip` and `durable` to a gap. Returns the
/// new end.
pub(super) fn fill_lost(
    ledger: &mut dyn Ledger,
    log_id: Uuid,
    mut tip: Tip,
    durable: u64,
    now: SystemTime,
) -> Result<Tip, LedgerError> {
    while tip.head.sequence < durable {
        let until = durable.min(tip.head.sequence + REPAIR_ROWS);
        let mut work = || {
            ledger.begin()?;
            while tip.head.sequence < until {
                let gap = gap_after(log_id, tip, GapReason::TailLost, now);
                ledger.append(std::slice::from_ref(&gap))?;
                tip = gap.tip();
            }
            ledger.commit()
        };
        let result = work();
        ledger.rollback();
        result?;
    }
    Ok(tip)
}

/// The greatest time of any record up to a place; `None` before the first.
pub(super) fn known_time(tip: Tip) -> Option<SystemTime> {
    (tip.latest_time > i64::MIN).then(|| from_nanos(tip.latest_time))
}

/// The record of a gap of one sequence.
fn gap_after(log_id: Uuid, tip: Tip, reason: GapReason, now: SystemTime) -> StoredRow {
    let first_time = known_time(tip).unwrap_or(now).min(now);
    let (next, content) = Body::Gap(gap(reason, 1, first_time, now)).seal(log_id, tip);
    StoredRow::new(next, content)
}
