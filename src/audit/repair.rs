//! Repairs of the end of a chain. Each is a record of the chain itself: no sequence ever means two
//! things to a reader.

use std::time::SystemTime;

use uuid::Uuid;

use super::chain::StoredRow;
use super::ledger::{Ledger, LedgerError};
use super::record::{Body, GapReason, Tip, from_nanos, gap, to_nanos};
use super::sqlite::SqliteLedger;

/// How many records a repair writes in one transaction.
const REPAIR_ROWS: u64 = 1000;

/// Moves the damaged records after the last good one to a table of their own and gives each of
/// their sequences to a gap. Returns how many there were.
pub(super) fn set_aside(
    ledger: &mut SqliteLedger,
    last_good: Tip,
    now: SystemTime,
) -> Result<u64, LedgerError> {
    let newest = ledger.tip()?.head.sequence;
    let log_id = ledger.log_id();
    let mut tip = last_good;
    let mut work = || {
        ledger.begin()?;
        ledger.set_aside(last_good.head.sequence + 1, to_nanos(now))?;
        while tip.head.sequence < newest {
            tip = append_gap(ledger, log_id, tip, GapReason::TailDamaged, now)?;
        }
        ledger.commit()
    };
    let result = work();
    ledger.rollback();
    result.map(|()| newest - last_good.head.sequence)
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
                tip = append_gap(ledger, log_id, tip, GapReason::TailLost, now)?;
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

fn append_gap(
    ledger: &mut dyn Ledger,
    log_id: Uuid,
    tip: Tip,
    reason: GapReason,
    now: SystemTime,
) -> Result<Tip, LedgerError> {
    let first_time = known_time(tip).unwrap_or(now).min(now);
    let (next, content) = Body::Gap(gap(reason, 1, first_time, now)).seal(log_id, tip);
    ledger.append(&[StoredRow::new(next, content)])?;
    Ok(next)
}
