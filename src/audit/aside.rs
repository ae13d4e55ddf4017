//! What a start does with a store that is broken: it stops, or moves the store aside if it was told to.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::warn;

use super::high_water::{HIGH_WATER_FILE, read_last};
use super::ledger::{Ledger, LedgerError};
use super::offline::{database_files, has_database, store_of};
use super::record::seal_event;
use super::segments::{SegmentLedger, has_segments};
use super::{AuditError, Head, STORE_DIRECTORY, VerifyOptions, new_event, verify};
use crate::proto::v1::{AuditEventKind, LogOpened};

/// Checks that the store of a state directory is there if it ever was.
pub(super) fn check_present(state_dir: &Path) -> Result<(), AuditError> {
    let high_water = state_dir.join(HIGH_WATER_FILE);
    let has_store = has_segments(&state_dir.join(STORE_DIRECTORY)) || has_database(state_dir);
    if has_store || !high_water.exists() {
        return Ok(());
    }
    Err(AuditError::StoreMissing { path: high_water })
}

/// Whether an error of opening says that the store itself is broken: damaged, or gone. A file of
/// another program is not ours to move; one that is no audit log counts as broken if a log was here.
pub(super) fn is_broken(state_dir: &Path, error: &AuditError) -> bool {
    match error {
        AuditError::NotAnAuditLog { .. } => state_dir.join(HIGH_WATER_FILE).exists(),
        other => other.is_damage(),
    }
}

/// What is wrong with a broken store, without what to do about it.
pub(super) fn problem_of(error: &AuditError) -> String {
    match error {
        AuditError::NotAnAuditLog { detail, .. } => detail.clone(),
        AuditError::UnknownFormat { found, .. } => format!("it has format {found}, which is not known"),
        other => other.to_string(),
    }
}

/// Moves a broken store with its files to a directory of its own. Returns what the first record of
/// the next log says of it.
pub(super) fn set_store_aside(
    state_dir: &Path,
    broken: &AuditError,
    now: SystemTime,
) -> Result<LogOpened, AuditError> {
    let target = new_directory(state_dir, now)?;
    let high_water = state_dir.join(HIGH_WATER_FILE);
    let known = read_last(&high_water);
    let segments = state_dir.join(STORE_DIRECTORY);
    for from in database_files(state_dir).into_iter().chain([segments, high_water]) {
        let Some(name) = from.file_name() else { continue };
        match std::fs::rename(&from, target.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(AuditError::Io { action: "move aside", path: from, source: error });
            }
            _ => {}
        }
    }
    // What is good of it, as far as it can be read.
    let good = verify(&store_of(&target), &VerifyOptions::default()).ok();
    let log_id = good.as_ref().map(|report| report.log_id.clone()).filter(|id| !id.is_empty());
    let head = good.map(|report| report.head).filter(|head| head.sequence > 0);
    warn!(
        directory = %target.display(),
        last_good = head.map_or(0, |head| head.sequence),
        error = problem_of(broken),
        "the broken audit store was moved aside, and a new log is opened"
    );
    Ok(LogOpened {
        previous_log_id: log_id.or(known.map(|(log_id, _)| log_id.to_string())).unwrap_or_default(),
        previous_sequence: head.map_or(0, |head| head.sequence),
        previous_hash: head.map_or_else(Vec::new, |Head { hash, .. }| hash.to_vec()),
        cause: problem_of(broken),
    })
}

/// Writes the first record of a log that follows a broken one.
pub(super) fn open_log(
    ledger: &mut SegmentLedger,
    opened: LogOpened,
    now: SystemTime,
) -> Result<(), LedgerError> {
    let mut event = new_event(AuditEventKind::LogOpened, now);
    event.log_opened = Some(opened);
    let row = seal_event(&event.into(), ledger.log_id(), ledger.tip()?);
    ledger.begin()?;
    ledger.append(&[row])?;
    ledger.commit()
}

/// Makes `audit-broken-<time>`, with the seconds since 1970, or a name after it that is free.
fn new_directory(state_dir: &Path, now: SystemTime) -> Result<PathBuf, AuditError> {
    let mut second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    loop {
        let path = state_dir.join(format!("audit-broken-{second}"));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => second += 1,
            Err(source) => return Err(AuditError::Io { action: "create", path, source }),
        }
    }
}
