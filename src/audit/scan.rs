//! Reading a whole store without a log being open: for tools that look at what was recorded.
//!
//! Reads only, page by page; no server may have the store. Each record is checked against its hash
//! and the record before it, since a tool must not conclude from what somebody changed.

use std::path::Path;

use super::AuditError;
use super::chain::ChainWalk;
use super::offline::OfflineStore;
use super::record::Record;
use super::sqlite::{read_base, read_rows};

/// How many records one query reads.
const PAGE_ROWS: u64 = 1000;

/// Hands every record of the store at `path` to `each`, oldest first, up to the newest at the end.
/// Blocks.
///
/// # Errors
///
/// The file is not there, is not an audit log, is in use by a server, cannot be read, or its chain does not hold
/// ([`AuditError::DataLoss`]). Records that were handed out before that are good.
pub fn scan(path: &Path, mut each: impl FnMut(Record)) -> Result<(), AuditError> {
    let OfflineStore { connection, log_id, .. } = &OfflineStore::open(path)?;
    let mut walk = ChainWalk::new(*log_id, read_base(connection)?);
    loop {
        let transaction = connection.unchecked_transaction()?;
        let base = read_base(&transaction)?;
        if base.head.sequence > walk.last().head.sequence {
            // Retention has overtaken the walk, and what it deleted is gone.
            walk.skip_to(base);
        }
        let rows = read_rows(&transaction, walk.last().head.sequence, PAGE_ROWS)?;
        drop(transaction);
        if rows.is_empty() {
            return Ok(());
        }
        for row in rows {
            each(walk.take(&row)?);
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::super::testing::*;
    use super::super::*;
    use super::*;

    fn sequences(path: &Path) -> (Vec<u64>, Option<AuditError>) {
        let mut seen = Vec::new();
        let error = scan(path, |record| seen.push(record.body.sequence())).err();
        (seen, error)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_record_is_handed_out_once_no_log_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(STORE_FILE);
        let log = AuditLog::open(AuditOptions::new(folder.path())).unwrap();
        let count = PAGE_ROWS + 7;
        for n in 1..count {
            log.enqueue(denial(&n.to_string()));
        }
        log.append_durable(expansion("last")).await.unwrap();
        let expected: Vec<u64> = (1..=count).collect();
        let (seen, error) = sequences(&path);
        assert!(seen.is_empty() && matches!(error, Some(AuditError::StoreInUse { .. })), "{error:?}");
        log.close().await.unwrap();
        assert_eq!(sequences(&path).0, expected);

        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("UPDATE record SET content = x'00' WHERE sequence = 1003").unwrap();
        let (seen, error) = sequences(&path);
        assert_eq!(seen.last(), Some(&1002));
        assert!(matches!(error, Some(AuditError::DataLoss { sequence: 1003, .. })), "{error:?}");
        connection.execute_batch("DELETE FROM record WHERE sequence = 3").unwrap();
        let (seen, error) = sequences(&path);
        assert_eq!(seen, [1, 2]);
        let missing = ChainProblem::Missing { next: 4 };
        assert!(matches!(error, Some(AuditError::DataLoss { sequence: 3, problem }) if problem == missing));
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
