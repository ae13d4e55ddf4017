//! The move of a store of an earlier version, one SQLite file, to segments.
//!
//! The records are copied byte for byte, so the chain stays what it is. Until all of them are durable in their new place, the
//! old store is the one that counts; a move that was cut short begins again.

use std::fs;
use std::io;
use std::path::Path;

use tracing::{info, warn};

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

/// Moves the store of a state directory to segments if it is of an earlier version. The caller holds the lock of the directory.
///
/// # Errors
///
/// The old store cannot be read, or there is no room for the new one; the old one is as it was then.
pub(super) fn convert(state_dir: &Path, segment_bytes: u64) -> Result<(), AuditError> {
    if !has_database(state_dir) {
        return Ok(());
    }
    let (path, directory) = (state_dir.join(DATABASE_FILE), state_dir.join(STORE_DIRECTORY));
    if has_segments(&directory) {
        return remove_moved(state_dir, &directory);
    }
    let old = Database::open(&path)?;
    let base = old.base()?;
    if old.has_records_before_base()? {
        let sequence = base.head.sequence;
        return Err(BadRecord { sequence, problem: ChainProblem::BeforeBase }.into());
    }
    info!(path = %path.display(), "the audit log is moved to segments, which may take a while");
    let new = state_dir.join(NEW_DIRECTORY);
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(AuditError::Io { action: "remove", path: new, source: error });
        }
        _ => {}
    }
    let failed = |error: LedgerError| match error {
        LedgerError::Io(source) => {
            AuditError::Io { action: "move the audit log to", path: new.clone(), source }
        }
        other => other.into(),
    };
    let mut segments = SegmentLedger::create(&new, segment_bytes, old.log_id(), base, old.accounted()?)?;
    let newest = copy(&old, &mut segments, base, failed)?;
    let damaged = old.damaged()?;
    for rows in damaged.chunk_by(|one, next| one.found == next.found) {
        let found = rows.first().map_or(0, |first| first.found);
        let rows: Vec<_> = rows.iter().map(|damaged| damaged.row.clone()).collect();
        keep_damaged(&new, old.log_id(), &rows, found).map_err(failed)?;
    }
    drop(segments);
    fs::rename(&new, &directory)
        .and_then(|()| sync_parent(&directory))
        .map_err(AuditError::io("move the audit log to", &directory))?;
    drop(old);
    remove_files(state_dir);
    info!(newest, "the audit log was moved to segments");
    Ok(())
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

/// Removes what is left of a store that was moved. One of another log is not ours to remove.
fn remove_moved(state_dir: &Path, directory: &Path) -> Result<(), AuditError> {
    let path = state_dir.join(DATABASE_FILE);
    let moved = super::segments::SegmentStore::open(directory, None)?.log_id();
    match Database::open(&path) {
        Ok(old) if old.log_id() == moved => {
            drop(old);
            remove_files(state_dir);
        }
        _ => warn!(path = %path.display(), "this file is not a part of the audit log, and is left alone"),
    }
    Ok(())
}

fn remove_files(state_dir: &Path) {
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

#[cfg(test)]
mod tests;
