//! The walk over every link of a stored chain that no server has open.
//!
//! Reads only. What a whole chain proves, and what it does not, is in
//! `docs/reference/audit-chain.md`.

use std::path::Path;

use rusqlite::Connection;
use uuid::Uuid;

use super::AuditError;
use super::aside::{check_present, is_broken, problem_of};
use super::chain::{BadRecord, ChainProblem, ChainWalk, VerifyReport};
use super::error::shows_damage;
use super::high_water::{HIGH_WATER_FILE, Remembered, read_last};
use super::offline::OfflineStore;
use super::record::{GENESIS_HASH, Head, Tip};
use super::sqlite::{find_damage, read_base, read_newest, read_row, signed};

/// How many records one query reads.
const PAGE_ROWS: u64 = 1000;

/// What is known about the chain from elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyOptions {
    /// A place that the chain must have, as a checkpoint told it.
    pub expected: Option<Head>,
}

/// Walks the whole chain of the store at `path`, up to where the high-water file next to it says that
/// records were acknowledged, and lets SQLite check the file. Blocks. No server may have it.
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
    let OfflineStore { connection, log_id, .. } = &OfflineStore::open(path)?;
    let mark = path.with_file_name(HIGH_WATER_FILE);
    let remembered = Remembered::read_path(&mark, *log_id).map_err(AuditError::io("read", &mark))?;
    let mut walk = ChainWalk::new(*log_id, read_base(connection)?);
    let mut bad = walk_to_end(connection, *log_id, &mut walk, options)?;
    let newest = walk.last().head.sequence;
    if bad.is_none() && remembered.durable.is_some_and(|durable| durable > newest) {
        bad = Some(BadRecord { sequence: newest + 1, problem: ChainProblem::EndsEarly { newest } });
    }
    if bad.is_none() {
        bad = match find_damage(connection) {
            Ok(found) => found.map(BadRecord::store),
            Err(error) if shows_damage(&error) => Some(BadRecord::store(error.to_string())),
            Err(error) => return Err(error.into()),
        };
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
    connection: &Connection,
    log_id: Uuid,
    walk: &mut ChainWalk,
    options: &VerifyOptions,
) -> Result<Option<BadRecord>, AuditError> {
    if let Err(bad) = walk.expect(options.expected) {
        return Ok(Some(bad));
    }
    let base = walk.last().head;
    let before: i64 = connection.query_row(
        "SELECT count(*) FROM record WHERE sequence <= ?1",
        [signed(base.sequence)],
        |row| row.get(0),
    )?;
    // Retention deletes in the transaction that moves the base, but may have run in between.
    if before > 0 && read_base(connection)?.head == base {
        return Ok(Some(BadRecord { sequence: base.sequence, problem: ChainProblem::BeforeBase }));
    }
    loop {
        match page(connection, log_id, walk) {
            Ok(VerifyStep::More) => {}
            Ok(VerifyStep::End) => return Ok(None),
            Ok(VerifyStep::Bad(bad)) => return Ok(Some(bad)),
            Err(error) => {
                let sequence = walk.last().head.sequence + 1;
                return Ok(Some(BadRecord {
                    sequence,
                    problem: ChainProblem::Unreadable(error.to_string()),
                }));
            }
        }
    }
}

fn page(connection: &Connection, log_id: Uuid, walk: &mut ChainWalk) -> rusqlite::Result<VerifyStep> {
    let transaction = connection.unchecked_transaction()?;
    let base = read_base(&transaction)?;
    if base.head.sequence > walk.last().head.sequence {
        // Retention has overtaken the walk; what it deleted cannot be checked any more.
        walk.skip_to(base);
    }
    let mut statement = transaction.prepare_cached(
        "SELECT sequence, latest_time, content, hash FROM record WHERE sequence > ?1
         ORDER BY sequence LIMIT ?2",
    )?;
    let from = walk.last().head;
    let mut rows = statement.query([signed(from.sequence), signed(PAGE_ROWS)])?;
    while let Some(row) = rows.next()? {
        let row = read_row(row)?;
        match walk.take(&row) {
            Ok(_) => {}
            Err(BadRecord { problem: ChainProblem::LinkBroken, .. }) if !walk.is_at_base() => {
                // If the next record builds on this one, it is the one before that was replaced.
                let next = rows.next()?.map(read_row).transpose()?;
                let builds_on_it = |next| ChainWalk::new(log_id, row.tip()).take(&next).is_ok();
                let (sequence, problem) = match next.is_some_and(builds_on_it) {
                    true => (row.sequence - 1, ChainProblem::Replaced),
                    false => (row.sequence, ChainProblem::LinkBroken),
                };
                return Ok(VerifyStep::Bad(BadRecord { sequence, problem }));
            }
            Err(bad) => return Ok(VerifyStep::Bad(bad)),
        }
    }
    let newest = read_newest(&transaction)?.unwrap_or(base).head;
    let last = walk.last().head;
    Ok(if last == from || last == newest { VerifyStep::End } else { VerifyStep::More })
}

enum VerifyStep {
    More,
    End,
    Bad(BadRecord),
}

#[cfg(test)]
mod tests;
