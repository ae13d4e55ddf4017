//! Reading a store without a log being open: for tools that look at what was recorded.
//!
//! Reads only, page by page; no server may have the store. Each record is checked against its hash
//! and the record before it, since a tool must not conclude from what somebody changed.

use std::collections::VecDeque;
use std::path::Path;

use uuid::Uuid;

use super::chain::{ChainWalk, StoredRow};
use super::offline::OfflineStore;
use super::record::{Head, Record, Tip, to_nanos};
use super::stream::{Start, check_log_id};
use super::{AuditError, ChainProblem};

/// How many records one query reads.
const PAGE_ROWS: usize = 1000;

/// The records of a store from a place on, oldest first, up to the newest.
///
/// After an error it ends; records that were handed out before that are good.
#[derive(Debug)]
pub struct Scan {
    store: OfflineStore,
    walk: ChainWalk,
    /// What was read and is not yet handed out.
    rows: VecDeque<StoredRow>,
    ended: bool,
}

impl Scan {
    /// Opens the store at `path`. `log_id` is the log that the reader means; empty: whichever it is. Blocks.
    ///
    /// # Errors
    ///
    /// The file is not there, is not an audit log, is damaged, or is in use by a server; as for a stream
    /// [`AuditError::OutOfRange`] and [`AuditError::ForeignLog`].
    pub fn open(path: &Path, start: Start, log_id: &str) -> Result<Self, AuditError> {
        let mut store = OfflineStore::open(path)?;
        if !log_id.is_empty() {
            check_log_id(store.log_id(), log_id, start)?;
        }
        let (base, newest) = (store.base()?, store.newest()?);
        let from = match start {
            Start::Earliest => base,
            Start::Latest => newest,
            Start::After(sequence) => tip_at(&mut store, sequence, base, newest)?,
            Start::Time(time) => {
                let first = store.first_from(to_nanos(time))?.unwrap_or(newest.head.sequence + 1);
                tip_at(&mut store, first.saturating_sub(1), base, newest)?
            }
        };
        let walk = ChainWalk::new(store.log_id(), from);
        Ok(Self { store, walk, rows: VecDeque::new(), ended: false })
    }

    /// The id of the log.
    #[must_use]
    pub fn log_id(&self) -> Uuid {
        self.store.log_id()
    }

    /// The place of the last record that was handed out, or that of the start.
    #[must_use]
    pub const fn position(&self) -> Head {
        self.walk.last().head
    }

    /// The next record, as the store has it and decoded.
    pub(super) fn next_row(&mut self) -> Result<Option<(StoredRow, Record)>, AuditError> {
        if self.rows.is_empty() {
            self.read()?;
        }
        let Some(row) = self.rows.pop_front() else { return Ok(None) };
        let record = self.walk.take(&row)?;
        Ok(Some((row, record)))
    }

    fn read(&mut self) -> Result<(), AuditError> {
        let after = self.walk.last().head.sequence;
        let rows = self.store.rows_after(after, PAGE_ROWS).map_err(|error| match error.is_damage() {
            true => unreadable(after + 1, &error.to_string()),
            false => error,
        })?;
        if rows.is_empty()
            && let Some(damage) = self.store.known_damage()
        {
            return Err(unreadable(after + 1, damage));
        }
        self.rows.extend(rows);
        Ok(())
    }
}

fn unreadable(sequence: u64, what: &str) -> AuditError {
    AuditError::DataLoss { sequence, problem: ChainProblem::Unreadable(what.to_owned()) }
}

impl Iterator for Scan {
    type Item = Result<Record, AuditError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.next_row();
        self.ended = !matches!(next, Ok(Some(_)));
        next.map(|found| found.map(|(_, record)| record)).transpose()
    }
}

/// The place of a record that is kept, or of the one before the oldest.
fn tip_at(store: &mut OfflineStore, sequence: u64, base: Tip, newest: Tip) -> Result<Tip, AuditError> {
    let (oldest, newest) = (base.head.sequence + 1, newest.head.sequence);
    if sequence == base.head.sequence {
        return Ok(base);
    }
    if sequence < base.head.sequence || sequence > newest {
        return Err(AuditError::OutOfRange { requested: sequence, oldest, newest });
    }
    let found = store.tip_at(sequence)?;
    found.ok_or(AuditError::DataLoss { sequence, problem: ChainProblem::Missing { next: sequence + 1 } })
}

#[cfg(test)]
mod tests {
    use super::super::segments::tamper::tamper;
    use super::super::testing::*;
    use super::super::*;
    use super::*;

    fn sequences(path: &Path) -> (Vec<u64>, Option<AuditError>) {
        let mut seen = Vec::new();
        let mut read = || -> Result<(), AuditError> {
            for record in Scan::open(path, Start::Earliest, "")? {
                seen.push(record?.body.sequence());
            }
            Ok(())
        };
        let error = read().err();
        (seen, error)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_record_is_handed_out_once_no_log_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(STORE_DIRECTORY);
        let log = AuditLog::open(AuditOptions::new(folder.path())).unwrap();
        let count = PAGE_ROWS as u64 + 7;
        for n in 1..count {
            log.enqueue(denial(&n.to_string()));
        }
        log.append_durable(expansion("last")).await.unwrap();
        let expected: Vec<u64> = (1..=count).collect();
        let (seen, error) = sequences(&path);
        assert!(seen.is_empty() && matches!(error, Some(AuditError::StoreInUse { .. })), "{error:?}");
        log.close().await.unwrap();
        assert_eq!(sequences(&path).0, expected);

        tamper(&path, |stored| stored.zero(|sequence| sequence == 1003));
        let (seen, error) = sequences(&path);
        assert_eq!(seen.last(), Some(&1002));
        assert!(matches!(error, Some(AuditError::DataLoss { sequence: 1003, .. })), "{error:?}");
        tamper(&path, |stored| stored.remove(|sequence| sequence == 3));
        let (seen, error) = sequences(&path);
        assert_eq!(seen, [1, 2]);
        let missing = ChainProblem::Missing { next: 4 };
        assert!(matches!(error, Some(AuditError::DataLoss { sequence: 3, problem }) if problem == missing));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_scan_starts_where_a_stream_would() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(STORE_DIRECTORY);
        let log = AuditLog::open(AuditOptions::new(folder.path())).unwrap();
        for n in 0..3 {
            log.append_durable(expansion(&n.to_string())).await.unwrap();
        }
        let middle = std::time::SystemTime::now();
        for n in 3..5 {
            log.append_durable(expansion(&n.to_string())).await.unwrap();
        }
        log.close().await.unwrap();
        let from = |start| -> Result<Vec<u64>, AuditError> {
            Scan::open(&path, start, "")?.map(|record| Ok(record?.body.sequence())).collect()
        };
        let time = |seconds| middle + std::time::Duration::from_secs(seconds);
        for (start, expected) in [
            (Start::Earliest, &[1, 2, 3, 4, 5][..]),
            (Start::Latest, &[]),
            (Start::After(0), &[1, 2, 3, 4, 5]),
            (Start::After(3), &[4, 5]),
            (Start::After(5), &[]),
            (Start::Time(std::time::UNIX_EPOCH), &[1, 2, 3, 4, 5]),
            (Start::Time(middle), &[4, 5]),
            (Start::Time(time(3600)), &[]),
        ] {
            assert_eq!(from(start).unwrap(), expected, "{start:?}");
        }
        let error = from(Start::After(6)).unwrap_err();
        assert!(matches!(error, AuditError::OutOfRange { requested: 6, oldest: 1, newest: 5 }), "{error}");
        let foreign = Scan::open(&path, Start::Earliest, &Uuid::nil().to_string()).unwrap_err();
        assert!(matches!(foreign, AuditError::ForeignLog { .. }), "{foreign}");
    }

    #[test]
    fn other_files_are_no_stores() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        assert!(matches!(sequences(&path).1, Some(AuditError::Io { .. })));
        std::fs::write(&path, "x".repeat(5000)).unwrap();
        assert!(matches!(sequences(&path).1, Some(AuditError::NotAnAuditLog { .. })));
    }
}
