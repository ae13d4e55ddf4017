//! The start of a log: the lock, what a crash left behind, and what is done about it.
//!
//! Only an end of the chain is ever repaired, and every repair is a record of the chain itself.
//! Damage anywhere else stops the start.

use std::path::Path;
use std::time::SystemTime;

use super::aside::{check_present, is_broken, open_log, set_store_aside};
use super::chain::ChainWalk;
use super::convert::{convert, remove_moved, take_back};
use super::high_water::{HIGH_WATER_FILE, HighWaterFile, Remembered, read_last};
use super::ledger::{Ledger, LedgerError};
use super::offline::store_of;
use super::record::{GapReason, Tip, gap};
use super::repair::{fill_lost, known_time, set_aside};
use super::segments::SegmentLedger;
use super::state_dir::StateDir;
use super::{AuditError, BadRecord, ChainProblem, STORE_DIRECTORY};
use crate::proto::v1::Gap;

/// How many of the newest records a start checks.
const CHECKED_ROWS: usize = 1000;

/// What a start found, and did about it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StartReport {
    /// The store did not exist before.
    pub created: bool,
    /// Bytes at the end of the store that belong to no whole transaction. They were
    /// cut off. Nothing in them was acknowledged, unless `lost` says so.
    pub torn_bytes: u64,
    /// Records at the end of the chain whose content was damaged. They were set aside in a file
    /// `damaged-<time>`, and a gap record has the sequence of each.
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
    pub(super) ledger: SegmentLedger,
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
/// start, or is moved aside if `aside` says so; the whole store is read to find out then.
pub(super) fn start(
    state_dir: &Path,
    aside: bool,
    segment_bytes: u64,
    now: SystemTime,
) -> Result<Started, AuditError> {
    let locked = StateDir::lock(state_dir)?;
    let (mut opened, log_opened) = match open_store(state_dir, segment_bytes, aside, now) {
        Err(error) if is_broken(state_dir, &error) || (aside && is_of_newer_format(&error)) => {
            if !aside {
                let acknowledged = read_last(&state_dir.join(HIGH_WATER_FILE)).map(|(_, durable)| durable);
                let path = store_of(state_dir);
                return Err(AuditError::Broken { path, cause: Box::new(error), acknowledged });
            }
            let log_opened = set_store_aside(state_dir, &error, now)?;
            (open_store(state_dir, segment_bytes, false, now)?, Some(log_opened))
        }
        opened => (opened?, None),
    };
    let ledger = &mut opened.ledger;
    if let Some(log_opened) = log_opened {
        open_log(ledger, log_opened, now).map_err(cannot_start)?;
    }
    let tip = ledger.tip().map_err(cannot_start)?;
    let base = ledger.base().map_err(cannot_start)?;
    let accounted = ledger.accounted().map_err(cannot_start)?;
    let OpenedStore { ledger, high_water, remembered, mut report } = opened;
    let unwritten = unwritten(&remembered, accounted, tip, now);
    report.unwritten = unwritten.as_ref().map_or(0, |gap| gap.count);
    high_water
        .reset(tip.head.sequence, accounted + report.unwritten)
        .map_err(AuditError::io("write", state_dir.join(HIGH_WATER_FILE)))?;
    Ok(Started { ledger, state_dir: locked, high_water, tip, base, accounted, unwritten, report })
}

/// A store whose end is in order.
struct OpenedStore {
    ledger: SegmentLedger,
    high_water: HighWaterFile,
    remembered: Remembered,
    report: StartReport,
}

/// Opens the store; one of an earlier version is moved to segments first, and stays what it is unless those are found good.
fn open_store(
    state_dir: &Path,
    segment_bytes: u64,
    whole: bool,
    now: SystemTime,
) -> Result<OpenedStore, AuditError> {
    check_present(state_dir)?;
    let is_moved = convert(state_dir, segment_bytes)?;
    let opened = open_segments(state_dir, segment_bytes, whole, now);
    match &opened {
        Ok(opened) => remove_moved(state_dir, opened.ledger.log_id()),
        Err(_) if is_moved => take_back(state_dir)?,
        Err(_) => {}
    }
    opened
}

/// Opens the segments, cuts off what a crash tore, and checks the newest records; all of them if `whole`
/// says so.
fn open_segments(
    state_dir: &Path,
    segment_bytes: u64,
    whole: bool,
    now: SystemTime,
) -> Result<OpenedStore, AuditError> {
    let mark = state_dir.join(HIGH_WATER_FILE);
    let acknowledged = read_last(&mark).map(|(_, durable)| durable);
    let mut ledger = SegmentLedger::open(&state_dir.join(STORE_DIRECTORY), segment_bytes, acknowledged)?;
    let log_id = ledger.log_id();
    let mut report =
        StartReport { created: ledger.created(), torn_bytes: ledger.torn_bytes(), ..StartReport::default() };
    let remembered = Remembered::read_path(&mark, log_id).map_err(AuditError::io("read", &mark))?;
    if let Some(problem) = remembered.problem {
        return Err(AuditError::Damaged { what: format!("`{}` is damaged: {problem}", mark.display()) });
    }

    let damaged = check_tail(&mut ledger)?;
    if let Some(found) = ledger.find_broken_frames().map_err(cannot_start)? {
        return Err(AuditError::Damaged { what: found });
    }
    let newest = ledger.tip().map_err(cannot_start)?.head.sequence;
    // The last process closed the store in order after this record, so no crash took what is missing up to it.
    let closed = remembered.closed.unwrap_or(0);
    match &damaged {
        Some((_, bad)) if bad.sequence <= closed => return Err(bad.clone().into()),
        _ if newest < closed => {
            return Err(
                BadRecord { sequence: newest + 1, problem: ChainProblem::EndsEarly { newest } }.into()
            );
        }
        _ => {}
    }
    ledger.settle().map_err(cannot_start)?;
    if let Some((last_good, _)) = damaged {
        report.damaged = set_aside(&mut ledger, last_good, now).map_err(cannot_start)?;
    }
    if whole {
        walk_all(&mut ledger)?;
        if let Some(found) = ledger.find_damage().map_err(cannot_start)? {
            return Err(AuditError::Damaged { what: found });
        }
    }
    if let Some(durable) = remembered.durable.filter(|durable| *durable > newest) {
        report.lost = durable - newest;
        let tip = ledger.tip().map_err(cannot_start)?;
        fill_lost(&mut ledger, log_id, tip, durable, now).map_err(cannot_start)?;
    }
    let (high_water, _) = HighWaterFile::open(&mark, log_id).map_err(AuditError::io("open", &mark))?;
    Ok(OpenedStore { ledger, high_water, remembered, report })
}

const fn is_of_newer_format(error: &AuditError) -> bool {
    matches!(error, AuditError::UnknownFormat { .. })
}

/// Checks every record.
fn walk_all(ledger: &mut SegmentLedger) -> Result<(), AuditError> {
    let mut walk = ChainWalk::new(ledger.log_id(), ledger.base().map_err(cannot_start)?);
    loop {
        let rows = ledger.rows_after(walk.last().head.sequence, CHECKED_ROWS).map_err(cannot_start)?;
        if rows.is_empty() {
            return Ok(());
        }
        for row in rows {
            walk.take(&row)?;
        }
    }
}

/// Checks the newest records. `Some` is the last good place and the record after it, if all records after
/// it have damaged content; anything else that is wrong is an error.
fn check_tail(ledger: &mut SegmentLedger) -> Result<Option<(Tip, BadRecord)>, AuditError> {
    let log_id = ledger.log_id();
    let base = ledger.base().map_err(cannot_start)?;
    let newest = ledger.tip().map_err(cannot_start)?.head.sequence;
    let from = newest.saturating_sub(CHECKED_ROWS as u64).max(base.head.sequence);
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

    // What cannot be read may lie before records that can.
    let mut rows = Vec::new();
    let mut last = from;
    while last < newest {
        let more = ledger.rows_after(last, CHECKED_ROWS).map_err(unreadable(last + 1))?;
        last = more.last().map(|row| row.sequence).ok_or_else(|| missing(last + 1, newest))?;
        rows.extend(more);
    }
    let mut walk = ChainWalk::new(log_id, start);
    let mut damaged: Option<BadRecord> = None;
    for (sequence, row) in (from + 1..).zip(rows) {
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
    Ok(damaged.map(|bad| (walk.last(), bad)))
}

/// An error of the ledger before the log is open.
fn cannot_start(error: LedgerError) -> AuditError {
    match error {
        damage @ LedgerError::Corrupt { .. } => damage.into(),
        other => AuditError::NotDurable { cause: other.to_string() },
    }
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

#[cfg(test)]
mod damaged;
#[cfg(test)]
mod tests;
