//! Records that a start found damaged and set aside: each time a file of their own, in the form of a segment.

use std::io;
use std::path::Path;

use uuid::Uuid;

use super::super::chain::StoredRow;
use super::super::ledger::LedgerError;
use super::super::record::{Head, Tip};
use super::current::replace;
use super::format::{SegmentHeader, put_frames};

/// How the name of a file begins that has records which were damaged.
const DAMAGED_PREFIX: &str = "damaged-";

/// Writes records that were damaged, when they were found, to a file of their own: in the form of a segment.
pub(in super::super) fn keep_damaged(
    dir: &Path,
    log_id: Uuid,
    rows: &[StoredRow],
    found: i64,
) -> Result<(), LedgerError> {
    let Some(first) = rows.first() else { return Ok(()) };
    let before =
        Tip { head: Head { sequence: first.sequence.saturating_sub(1), hash: [0; 32] }, latest_time: found };
    let header = SegmentHeader { log_id, before, base: before, accounted: 0 };
    let mut bytes = header.encode().to_vec();
    put_frames(&mut bytes, rows, 0, before);
    let path = dir.join(format!("{DAMAGED_PREFIX}{found}"));
    Ok(replace(&path, &bytes)?)
}

/// Whether there are files with damaged records.
pub(super) fn has_damaged(dir: &Path) -> io::Result<bool> {
    let mut names = std::fs::read_dir(dir)?;
    names.try_fold(false, |found, entry| {
        let name = entry?.file_name();
        Ok(found || name.to_str().is_some_and(|name| name.starts_with(DAMAGED_PREFIX)))
    })
}

/// Removes the damaged records that were found before a time.
pub(super) fn remove_damaged(dir: &Path, cutoff: i64) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let found = name.to_str().and_then(|name| name.strip_prefix(DAMAGED_PREFIX)?.parse::<i64>().ok());
        if found.is_some_and(|found| found < cutoff) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
