//! The walk over every link of a stored chain that no server has open.
//!
//! Reads only. What a whole chain proves, and what it does not, is in
//! `docs/reference/audit-chain.md`.

use std::path::Path;

use super::AuditError;
use super::aside::{check_present, is_broken, problem_of};
use super::chain::{BadRecord, ChainProblem, ChainWalk, VerifyReport};
use super::high_water::{HIGH_WATER_FILE, Remembered, read_last};
use super::offline::OfflineStore;
use super::record::{GENESIS_HASH, Head, Tip};

/// How many records are read at once.
const PAGE_ROWS: usize = 1000;

/// What is known about the chain from elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyOptions {
    /// A place that the chain must have, as a checkpoint told it.
    pub expected: Option<Head>,
}

/// Walks the whole chain of the store at `path`, up to where the high-water file next to it says that
/// records were acknowledged, and checks the rest of its files. Blocks. No server may have it.
///
/// A chain that does not hold, and a store that is damaged or gone, are a report, not an error.
///
/// # Errors
///
/// There is no store and never was, the file is not an audit log, is in use by a server, or cannot be read
/// at the moment.
pub fn verify(path: &Path, options: &VerifyOptions) -> Result<VerifyReport, AuditError> {
    let state_dir = path.parent().unwrap_or(Path::new(""));
    let known = read_last(&state_dir.join(HIGH_WATER_FILE));
    let acknowledged = known.map(|(_, durable)| durable);
    let report = match check_present(state_dir).and_then(|()| verify_store(path, options)) {
        // Nothing of it can be read.
        Err(error) if is_broken(state_dir, &error) => {
            let start = Tip { head: Head { sequence: 0, hash: GENESIS_HASH }, latest_time: i64::MIN };
            let walk = ChainWalk::new(known.map(|(log_id, _)| log_id).unwrap_or_default(), start);
            let (report, _) = walk.finish(Some(BadRecord::store(problem_of(&error))));
            let log_id = if known.is_none() { String::new() } else { report.log_id };
            VerifyReport { log_id, ..report }
        }
        report => report?,
    };
    Ok(VerifyReport { acknowledged, ..report })
}

fn verify_store(path: &Path, options: &VerifyOptions) -> Result<VerifyReport, AuditError> {
    let mut store = OfflineStore::open(path)?;
    let mark = path.with_file_name(HIGH_WATER_FILE);
    let remembered = Remembered::read_path(&mark, store.log_id()).map_err(AuditError::io("read", &mark))?;
    let mut walk = ChainWalk::new(store.log_id(), store.base()?);
    let mut bad = walk_to_end(&mut store, &mut walk, options)?;
    let newest = walk.last().head.sequence;
    if bad.is_none() {
        bad = store.known_damage().map(|damage| BadRecord::store(damage.to_owned()));
    }
    if bad.is_none() && remembered.durable.is_some_and(|durable| durable > newest) {
        bad = Some(BadRecord { sequence: newest + 1, problem: ChainProblem::EndsEarly { newest } });
    }
    if bad.is_none() {
        bad = store.find_damage()?.map(BadRecord::store);
    }
    if bad.is_none() {
        bad = remembered
            .problem
            .map(|problem| BadRecord::store(format!("`{}` is damaged: {problem}", mark.display())));
    }
    Ok(walk.finish(bad).0)
}

/// Walks to the end and returns the first bad record.
fn walk_to_end(
    store: &mut OfflineStore,
    walk: &mut ChainWalk,
    options: &VerifyOptions,
) -> Result<Option<BadRecord>, AuditError> {
    if let Err(bad) = walk.expect(options.expected) {
        return Ok(Some(bad));
    }
    if store.has_records_before_base()? {
        let sequence = walk.last().head.sequence;
        return Ok(Some(BadRecord { sequence, problem: ChainProblem::BeforeBase }));
    }
    loop {
        let after = walk.last().head.sequence;
        let rows = match store.rows_after(after, PAGE_ROWS) {
            Ok(rows) if rows.is_empty() => return Ok(None),
            Ok(rows) => rows,
            Err(error) => {
                let problem = ChainProblem::Unreadable(error.to_string());
                return Ok(Some(BadRecord { sequence: after + 1, problem }));
            }
        };
        for row in &rows {
            match walk.take(row) {
                Ok(_) => {}
                Err(BadRecord { problem: ChainProblem::LinkBroken, .. }) if !walk.is_at_base() => {
                    // If the next record builds on this one, it is the one before that was replaced.
                    let next = store.rows_after(row.sequence, 1).unwrap_or_default();
                    let mut from_it = ChainWalk::new(store.log_id(), row.tip());
                    let (sequence, problem) =
                        match next.first().is_some_and(|next| from_it.take(next).is_ok()) {
                            true => (row.sequence - 1, ChainProblem::Replaced),
                            false => (row.sequence, ChainProblem::LinkBroken),
                        };
                    return Ok(Some(BadRecord { sequence, problem }));
                }
                Err(bad) => return Ok(Some(bad)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
