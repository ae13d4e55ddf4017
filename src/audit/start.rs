//! The start of a log: the lock, what a crash left behind, and what is done about it.
//!
//! Only an end of the chain is ever repaired, and every repair is a record of the chain itself.
//! Damage anywhere else stops the start.

use std::path::Path;
use std::time::SystemTime;

use super::aside::{check_present, is_broken, open_log, set_store_aside};
use super::chain::ChainWalk;
use super::high_water::{HIGH_WATER_FILE, HighWaterFile, Remembered};
use super::ledger::{Ledger, LedgerError};
use super::record::{GapReason, Tip, gap};
use super::repair::{fill_lost, known_time, set_aside};
use super::sqlite::{SqliteLedger, wal_path};
use super::state_dir::StateDir;
use super::{AuditError, BadRecord, ChainProblem, STORE_FILE, wal};
use crate::proto::v1::Gap;

/// How many of the newest records a start checks.
const CHECKED_ROWS: u64 = 1000;

/// What a start found, and did about it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StartReport {
    /// The store did not exist before.
    pub created: bool,
    /// Bytes at the end of the write-ahead file that belong to no complete transaction. They were
    /// cut off. Nothing in them was acknowledged, unless `lost` says so.
    pub torn_bytes: u64,
    /// Complete frames among these bytes.
    pub torn_frames: u64,
    /// Records at the end of the chain whose content was damaged. They were set aside in the table
    /// `damaged`, and a gap record has the sequence of each.
    pub damaged: u64,
    /// Records that were acknowledged but are gone from the end of the store. A gap record has the
    /// sequence of each.
    pub lost: u64,
    /// Events that waited in memory when the last process ended; one gap record counts them.
    pub unwritten: u64,
}

impl StartReport {
    /// Whether the last process ended without leaving a trace.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.torn_bytes == 0 && self.damaged == 0 && self.lost == 0 && self.unwritten == 0
    }
}

/// All that a log works with.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) ledger: SqliteLedger,
    pub(super) state_dir: StateDir,
    pub(super) high_water: HighWaterFile,
    pub(super) tip: Tip,
    pub(super) base: Tip,
    pub(super) accounted: u64,
    /// Not yet in the chain; the writer puts it there.
    pub(super) unwritten: Option<Gap>,
    pub(super) report: StartReport,
}

/// Takes the lock, opens the store and brings its end in order. A store that is broken stops the
/// start, or is moved aside if `aside` says so.
pub(super) fn start(state_dir: &Path, aside: bool, now: SystemTime) -> Result<Started, AuditError> {
    let locked = StateDir::lock(state_dir)?;
    let found = check_present(state_dir).and_then(|()| open_store(state_dir, now));
    let (opened, log_opened) = match found {
        Err(error) if is_broken(state_dir, &error) => {
            if !aside {
                let path = state_dir.join(STORE_FILE);
                return Err(AuditError::Broken { path, cause: Box::new(error) });
            }
            let log_opened = set_store_aside(state_dir, &error, now)?;
            (open_store(state_dir, now)?, Some(log_opened))
        }
        found => (found?, None),
    };
    let (mut ledger, mut report) = opened;
    if let Some(log_opened) = log_opened {
        open_log(&mut ledger, log_opened, now).map_err(unusable)?;
    }
    let log_id = ledger.log_id();
    let high_water_path = state_dir.join(HIGH_WATER_FILE);
    let (high_water, remembered) =
        HighWaterFile::open(&high_water_path, log_id).map_err(AuditError::io("open", &high_water_path))?;
    let tip = ledger.tip().map_err(unusable)?;
    if let Some(durable) = remembered.durable.filter(|durable| *durable > tip.head.sequence) {
        report.lost = durable - tip.head.sequence;
        fill_lost(&mut ledger, log_id, tip, durable, now).map_err(unusable)?;
    }

    let tip = ledger.tip().map_err(unusable)?;
    let base = ledger.base().map_err(unusable)?;
    let accounted = ledger.accounted().map_err(unusable)?;
    let unwritten = unwritten(&remembered, accounted, tip, now);
    report.unwritten = unwritten.as_ref().map_or(0, |gap| gap.count);
    high_water
        .reset(tip.head.sequence, accounted + report.unwritten)
        .map_err(AuditError::io("write", &high_water_path))?;
    Ok(Started { ledger, state_dir: locked, high_water, tip, base, accounted, unwritten, report })
}

/// Opens the store, cuts off what a crash tore, and checks the newest records.
fn open_store(state_dir: &Path, now: SystemTime) -> Result<(SqliteLedger, StartReport), AuditError> {
    let path = state_dir.join(STORE_FILE);
    let wal = wal_path(&path);
    let torn = wal::torn_tail(&wal).map_err(AuditError::io("read", &wal))?;
    wal::rewrite_in_place(&wal).map_err(AuditError::io("refresh", &wal))?;

    let mut ledger = SqliteLedger::open(&path)?;
    let mut report = StartReport {
        created: ledger.created(),
        torn_bytes: torn.bytes,
        torn_frames: torn.frames,
        ..StartReport::default()
    };

    if let Some(last_good) = check_tail(&mut ledger)? {
        report.damaged = set_aside(&mut ledger, last_good, now).map_err(unusable)?;
    }
    Ok((ledger, report))
}

/// Checks the newest records. `Some` is the last good place, if all records after it have damaged
/// content; anything else that is wrong is an error.
fn check_tail(ledger: &mut SqliteLedger) -> Result<Option<Tip>, AuditError> {
    let log_id = ledger.log_id();
    let base = ledger.base().map_err(unusable)?;
    let newest = ledger.tip().map_err(unusable)?.head.sequence;
    let from = newest.saturating_sub(CHECKED_ROWS).max(base.head.sequence);
    let unreadable = |sequence: u64| {
        move |error: LedgerError| AuditError::DataLoss {
            sequence,
            problem: ChainProblem::Unreadable(error.to_string()),
        }
    };
    // The record before those that are checked is only trusted for what the next one says of it.
    let start = if from == base.head.sequence {
        base
    } else {
        let rows = ledger.rows_after(from - 1, 1).map_err(unreadable(from))?;
        match rows.first() {
            Some(row) if row.sequence == from => row.tip(),
            row => return Err(missing(from, row.map_or(newest, |row| row.sequence))),
        }
    };

    let mut walk = ChainWalk::new(log_id, start);
    let mut damaged: Option<BadRecord> = None;
    for (sequence, row) in
        (from + 1..).zip(ledger.rows_after(from, CHECKED_ROWS).map_err(unreadable(from + 1))?)
    {
        let Some(bad) = &damaged else {
            match walk.take(&row) {
                Ok(_) => {}
                Err(bad @ BadRecord { problem: ChainProblem::ContentChanged, .. }) => damaged = Some(bad),
                Err(bad) => return Err(bad.into()),
            }
            continue;
        };
        if row.sequence != sequence {
            return Err(missing(sequence, row.sequence));
        }
        match row.check_alone(&log_id.to_string()) {
            Err(ChainProblem::ContentChanged) => {}
            Err(problem) => return Err(AuditError::DataLoss { sequence, problem }),
            // A good record behind a bad one: the damage is not at the end.
            Ok(_) => return Err(bad.clone().into()),
        }
    }
    Ok(damaged.map(|_| walk.last()))
}

const fn missing(sequence: u64, next: u64) -> AuditError {
    AuditError::DataLoss { sequence, problem: ChainProblem::Missing { next } }
}

/// The gap for what waited in memory when the last process ended.
fn unwritten(remembered: &Remembered, accounted: u64, tip: Tip, now: SystemTime) -> Option<Gap> {
    let count = remembered.queued?.checked_sub(accounted).filter(|count| *count > 0)?;
    let last_time = remembered.time.unwrap_or(now);
    let first_time = known_time(tip).unwrap_or(last_time).min(last_time);
    Some(gap(GapReason::ProcessEnded, count, first_time, last_time))
}

fn unusable(error: LedgerError) -> AuditError {
    AuditError::NotDurable { cause: error.to_string() }
}

#[cfg(test)]
mod tests;
