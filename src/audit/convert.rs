//! The move of a store of an earlier version, one SQLite file, to segments.
//!
//! The records are copied byte for byte, so the chain stays what it is. Until all of them are durable in their new place, the
//! old store is the one that counts; a move that was cut short begins again.

use std::fs;
use std::io;
use std::path::Path;

use tracing::{info, warn};
use uuid::Uuid;

use super::database::Database;
use super::ledger::{Ledger as _, LedgerError};
use super::offline::{database_files, has_database};
use super::record::{Head, Tip};
use super::segments::{SegmentLedger, has_segments, keep_damaged};
use super::{AuditError, BadRecord, ChainProblem, DATABASE_FILE, STORE_DIRECTORY};
use crate::file::sync_parent;

/// The directory that the segments are in until all are there.
const NEW_DIRECTORY: &str = "audit.new";
/// How many records are copied at once.
const PAGE_ROWS: usize = 1000;

/// Moves the store of a state directory to segments if it is of an earlier version, and returns whether it did. The caller holds the
/// lock of the directory, and lets the old store go with [`remove_moved`] when the new one has been found good.
///
/// # Errors
///
/// The old store is damaged or cannot be read, or there is no room for the new one. The old one is as it was, and nothing is left of
/// the new one.
pub(super) fn convert(state_dir: &Path, segment_bytes: u64) -> Result<bool, AuditError> {
    let (new, directory) = (state_dir.join(NEW_DIRECTORY), state_dir.join(STORE_DIRECTORY));
    // What is left of a move that was cut short.
    remove_all(&new)?;
    if has_segments(&directory) || !has_database(state_dir) {
        return Ok(false);
    }
    let moved = move_to(&state_dir.join(DATABASE_FILE), &new, segment_bytes).and_then(|newest| {
        fs::rename(&new, &directory)
            .and_then(|()| sync_parent(&directory))
            .map_err(AuditError::io("move the audit log to", &directory))?;
        info!(newest, "the audit log was moved to segments");
        Ok(true)
    });
    if moved.is_err() {
        // It would take room, and nothing would ever be deleted from it.
        remove_all(&new)?;
    }
    moved
}

/// Takes a move back, of which the store was not found good.
pub(super) fn take_back(state_dir: &Path) -> Result<(), AuditError> {
    remove_all(&state_dir.join(STORE_DIRECTORY))
}

/// Removes what is left of a store that was moved to segments with this log id. One of another log is not ours to remove.
pub(super) fn remove_moved(state_dir: &Path, log_id: Uuid) {
    if !has_database(state_dir) {
        return;
    }
    let path = state_dir.join(DATABASE_FILE);
    if !Database::open(&path).is_ok_and(|old| old.log_id() == log_id) {
        warn!(path = %path.display(), "this file is not a part of the audit log, and is left alone");
        return;
    }
    for path in database_files(state_dir) {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // The next start tries again.
                warn!(path = %path.display(), %error, "an audit log that was moved could not be removed");
            }
            _ => {}
        }
    }
}

/// Makes segments of a store. Returns the sequence of the newest record.
fn move_to(path: &Path, new: &Path, segment_bytes: u64) -> Result<u64, AuditError> {
    let old = Database::open(path)?;
    let base = old.base()?;
    if old.has_records_before_base()? {
        let sequence = base.head.sequence;
        return Err(BadRecord { sequence, problem: ChainProblem::BeforeBase }.into());
    }
    if let Some(what) = old.find_damage()? {
        return Err(AuditError::Damaged { what });
    }
    info!(path = %path.display(), "the audit log is moved to segments, which may take a while");
    let failed = |error: LedgerError| match error {
        LedgerError::Io(source) => {
            AuditError::Io { action: "move the audit log to", path: new.to_owned(), source }
        }
        other => other.into(),
    };
    let mut segments = SegmentLedger::create(new, segment_bytes, old.log_id(), base, old.accounted()?)?;
    let newest = copy(&old, &mut segments, base, failed)?;
    let damaged = old.damaged()?;
    for rows in damaged.chunk_by(|one, next| one.found == next.found) {
        let found = rows.first().map_or(0, |first| first.found);
        let rows: Vec<_> = rows.iter().map(|damaged| damaged.row.clone()).collect();
        keep_damaged(new, old.log_id(), &rows, found).map_err(failed)?;
    }
    Ok(newest)
}

/// Copies all records. Returns the sequence of the newest.
fn copy(
    old: &Database,
    segments: &mut SegmentLedger,
    base: Tip,
    failed: impl Fn(LedgerError) -> AuditError,
) -> Result<u64, AuditError> {
    let mut last = base.head.sequence;
    loop {
        let rows = old.rows_after(last, PAGE_ROWS)?;
        // Whoever removed a record has left a hole, which stays.
        for rows in rows.chunk_by(|one, next| one.sequence + 1 == next.sequence) {
            let Some(first) = rows.first() else { continue };
            let mut write = || {
                if first.sequence != last + 1 {
                    let head = Head { sequence: first.sequence - 1, hash: [0xff; 32] };
                    segments.go_on_after(Tip { head, latest_time: first.latest_time })?;
                }
                segments.begin()?;
                segments.append(rows)?;
                segments.commit()
            };
            write().map_err(&failed)?;
            last = rows.last().map_or(last, |row| row.sequence);
        }
        if rows.is_empty() {
            return Ok(last);
        }
    }
}

/// Removes a directory with all that is in it, if it is there.
fn remove_all(path: &Path) -> Result<(), AuditError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(AuditError::Io { action: "remove", path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
