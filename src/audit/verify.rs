//! The walk over every link of a stored chain, offline or beside a running server.
//!
//! Reads only. What a whole chain proves, and what it does not, is in
//! `docs/reference/audit-chain.md`.

use std::fmt;
use std::path::Path;

use rusqlite::Connection;
use uuid::Uuid;

use super::AuditError;
use super::chain::{Body, Head, Problem, to_nanos};
use super::ledger::{Tip, identify, not_ours, read_base, read_newest, read_row, signed};
use super::read::connect;

/// How many records one query reads.
const PAGE_ROWS: u64 = 1000;

/// What is known about the chain from elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyOptions {
    /// A place that the chain must have, as a checkpoint told it.
    pub expected: Option<Head>,
}

/// What a walk found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifyReport {
    /// The id of the log.
    pub log_id: Uuid,
    /// What retention left of the records before the oldest: its sequence is one less than that of
    /// the first record, its hash the one that the first record has to name.
    pub base: Head,
    /// The last record that was found good; equals `base` if there are no records.
    pub head: Head,
    /// Records that were found good.
    pub records: u64,
    /// Gap records among them.
    pub gaps: u64,
    /// Events that those gaps count.
    pub missing_events: u64,
    /// The first bad record; `None` if the chain holds.
    pub bad: Option<BadRecord>,
}

/// The first bad record, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadRecord {
    /// Its sequence.
    pub sequence: u64,
    /// What is wrong.
    pub problem: Problem,
}

impl fmt::Display for BadRecord {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "record {}: {}", self.sequence, self.problem)
    }
}

/// Walks the whole chain of the store at `path`. Blocks; a server may be writing at the same time.
///
/// A chain that does not hold is a report, not an error.
///
/// # Errors
///
/// The file is not there, is not an audit log, or cannot be read at all.
pub fn verify(path: &Path, options: &VerifyOptions) -> Result<VerifyReport, AuditError> {
    std::fs::metadata(path).map_err(AuditError::io("read", path))?;
    let connection = connect(path).map_err(|error| match error {
        AuditError::Database { source, .. } => not_ours(path, source),
        other => other,
    })?;
    let log_id = identify(&connection, path)?;
    let base = read_base(&connection)?;
    let mut walk = Walk {
        connection,
        log_id,
        last: base,
        report: VerifyReport {
            log_id,
            base: base.head,
            head: base.head,
            records: 0,
            gaps: 0,
            missing_events: 0,
            bad: None,
        },
        expected: options.expected,
    };
    walk.report.bad = walk.run()?;
    Ok(walk.report)
}

struct Walk {
    connection: Connection,
    log_id: Uuid,
    last: Tip,
    report: VerifyReport,
    expected: Option<Head>,
}

impl Walk {
    /// Walks to the end and returns the first bad record.
    fn run(&mut self) -> Result<Option<BadRecord>, AuditError> {
        if let Some(bad) = unexpected(self.expected, self.last.head) {
            return Ok(Some(bad));
        }
        let before: i64 = self.connection.query_row(
            "SELECT count(*) FROM record WHERE sequence <= ?1",
            [signed(self.last.head.sequence)],
            |row| row.get(0),
        )?;
        // Retention deletes in the transaction that moves the base, but may have run in between.
        if before > 0 && read_base(&self.connection)?.head == self.last.head {
            return Ok(bad(self.last.head.sequence, Problem::BeforeBase));
        }
        loop {
            match self.page() {
                Ok(Step::More) => {}
                Ok(Step::End) => break,
                Ok(Step::Bad(found)) => return Ok(Some(found)),
                Err(error) => {
                    let sequence = self.last.head.sequence + 1;
                    return Ok(bad(sequence, Problem::Unreadable(error.to_string())));
                }
            }
        }
        let newest = self.last.head.sequence;
        Ok(self
            .expected
            .filter(|expected| expected.sequence > newest)
            .and_then(|_| bad(newest + 1, Problem::EndsEarly { newest })))
    }

    fn page(&mut self) -> rusqlite::Result<Step> {
        let transaction = self.connection.unchecked_transaction()?;
        let base = read_base(&transaction)?;
        if base.head.sequence > self.last.head.sequence {
            // Retention has overtaken the walk; what it deleted cannot be checked any more.
            self.last = base;
            self.report.base = base.head;
        }
        let mut statement = transaction.prepare_cached(
            "SELECT sequence, latest_time, content, hash FROM record WHERE sequence > ?1
             ORDER BY sequence LIMIT ?2",
        )?;
        let from = self.last;
        let mut rows = statement.query([signed(from.head.sequence), signed(PAGE_ROWS)])?;
        let mut last = from;
        let mut found = None;
        while found.is_none()
            && let Some(row) = rows.next()?
        {
            let row = read_row(row)?;
            let sequence = last.head.sequence + 1;
            if row.sequence != sequence {
                found = bad(sequence, Problem::Missing { next: row.sequence });
                break;
            }
            let record = match row.check_alone(self.log_id) {
                Ok(record) => record,
                Err(problem) => {
                    found = bad(sequence, problem);
                    break;
                }
            };
            if record.prev_hash != last.head.hash {
                // If the next record builds on this one, it is the one before that was replaced.
                let next = rows.next()?.map(read_row).transpose()?;
                let next = next.and_then(|row| row.check(self.log_id, &record.hash).ok());
                found = if next.is_some() && last.head != self.report.base {
                    bad(last.head.sequence, Problem::Replaced)
                } else {
                    bad(sequence, Problem::LinkBroken)
                };
                break;
            }
            let latest_time = last.latest_time.max(to_nanos(record.time()));
            if row.latest_time != latest_time {
                found = bad(sequence, Problem::TimeColumn);
                break;
            }
            last = Tip { head: record.head(), latest_time };
            self.report.records += 1;
            if let Body::Gap(gap) = &record.body {
                self.report.gaps += 1;
                self.report.missing_events += gap.count;
            }
            found = unexpected(self.expected, last.head);
        }
        let newest = read_newest(&transaction)?.unwrap_or(base);
        drop(rows);
        drop(statement);
        drop(transaction);
        self.last = last;
        self.report.head = last.head;
        Ok(match found {
            Some(found) => Step::Bad(found),
            None if last.head == from.head || last.head == newest.head => Step::End,
            None => Step::More,
        })
    }
}

enum Step {
    More,
    End,
    Bad(BadRecord),
}

fn unexpected(expected: Option<Head>, place: Head) -> Option<BadRecord> {
    let expected = expected.filter(|expected| expected.sequence == place.sequence)?;
    if expected.hash == place.hash { None } else { bad(place.sequence, Problem::UnexpectedHash) }
}

#[expect(clippy::unnecessary_wraps, reason = "every caller wants an option")]
const fn bad(sequence: u64, problem: Problem) -> Option<BadRecord> {
    Some(BadRecord { sequence, problem })
}

#[cfg(test)]
mod tests;
