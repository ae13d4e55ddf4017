//! How the rows of a transaction are added: many with a statement, which takes SQLite less than one for each.

use rusqlite::{CachedStatement, Connection, params};

use super::super::chain::StoredRow;
use super::super::ledger::LedgerError;
use super::signed;

/// How many rows one statement adds where there are so many.
const ROWS: usize = 16;

/// Adds rows to the running transaction. After an error the caller rolls it back: it may be gone already, or have some of the rows.
pub(super) fn append(connection: &Connection, rows: &[StoredRow]) -> Result<(), LedgerError> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO record (sequence, latest_time, content, hash) VALUES (?1, ?2, ?3, ?4)",
    )?;
    let mut insert_one = |StoredRow { sequence, latest_time, content, hash }: &StoredRow| {
        insert.execute(params![signed(*sequence), latest_time, &**content, hash]).map(|_| ())
    };
    // Once the first is there, SQLite numbers those after it in the same way.
    let numbered =
        |pair: &[StoredRow]| matches!(pair, [one, next] if next.sequence == one.sequence.wrapping_add(1));
    let Some((first, more)) = rows.split_first().filter(|_| rows.windows(2).all(numbered)) else {
        return Ok(rows.iter().try_for_each(insert_one)?);
    };
    insert_one(first)?;
    let (groups, rest) = more.as_chunks::<ROWS>();
    if let Some([.., last]) = groups.last() {
        let mut statement = connection.prepare_cached(&insert_next())?;
        groups.iter().try_for_each(|rows| run_insert_next(&mut statement, rows))?;
        if connection.last_insert_rowid() != signed(last.sequence) {
            return Err(LedgerError::Diverged);
        }
    }
    Ok(rest.iter().try_for_each(insert_one)?)
}

/// The statement that adds [`ROWS`] rows after the newest, with the sequences that follow.
///
/// A number that is not given is one more than the largest of the table, and the row goes to its end, without a search. SQLite keeps no copy
/// of the pages for the case that this statement alone fails: most errors end the transaction, and after the others its first rows are
/// still there, so the caller rolls back in any case.
fn insert_next() -> String {
    let rows = ["(?, ?, ?)"; ROWS].join(", ");
    format!("INSERT OR ROLLBACK INTO record (latest_time, content, hash) VALUES {rows}")
}

/// Runs it.
fn run_insert_next(statement: &mut CachedStatement<'_>, rows: &[StoredRow; ROWS]) -> rusqlite::Result<()> {
    let parameters = |at: usize| 3 * at + 1;
    for (at, StoredRow { latest_time, content, hash, .. }) in rows.iter().enumerate() {
        statement.raw_bind_parameter(parameters(at), latest_time)?;
        statement.raw_bind_parameter(parameters(at) + 1, &**content)?;
        statement.raw_bind_parameter(parameters(at) + 2, hash)?;
    }
    statement.raw_execute().map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::super::super::ledger::Ledger as _;
    use super::super::super::record::{Head, Tip};
    use super::super::SqliteLedger;
    use super::*;

    fn ledger(folder: &tempfile::TempDir) -> SqliteLedger {
        SqliteLedger::open(&folder.path().join("audit.db")).unwrap()
    }

    /// Rows of these sequences, each of so many bytes that differ from those of the others.
    fn rows(sequences: impl IntoIterator<Item = u64>, bytes: usize) -> Vec<StoredRow> {
        let row = |sequence: u64| {
            let head = Head { sequence, hash: [sequence as u8; 32] };
            StoredRow::new(Tip { head, latest_time: -(sequence as i64) }, vec![sequence as u8; bytes])
        };
        sequences.into_iter().map(row).collect()
    }

    fn append(ledger: &mut SqliteLedger, rows: &[StoredRow]) -> Result<(), LedgerError> {
        ledger.begin()?;
        ledger.append(rows)?;
        ledger.commit()
    }

    #[test]
    fn rows_are_stored_as_they_are_given_however_many_they_are() {
        let rooms = ROWS as u64;
        for count in [0, 1, 2, rooms, rooms + 1, rooms + 2, 3 * rooms, 3 * rooms + 7] {
            let folder = tempfile::tempdir().unwrap();
            let mut ledger = ledger(&folder);
            let given = [rows(1..=count, 700), rows(count + 1..=2 * count, 20_000)];
            given.iter().for_each(|rows| append(&mut ledger, rows).unwrap());
            assert_eq!(ledger.rows_after(0, 1000).unwrap(), given.concat(), "{count}");
        }
    }

    #[test]
    fn rows_with_a_hole_keep_their_sequences() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = ledger(&folder);
        let given = rows((5..40).filter(|sequence| *sequence != 30), 10);
        append(&mut ledger, &given).unwrap();
        assert_eq!(ledger.rows_after(0, 1000).unwrap(), given);
    }

    #[test]
    fn rows_that_do_not_follow_the_newest_of_the_store_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = ledger(&folder);
        let stored = rows([1, 2, 50], 10);
        append(&mut ledger, &stored).unwrap();
        let error = append(&mut ledger, &rows(3..40, 10)).unwrap_err();
        assert!(matches!(error, LedgerError::Diverged), "{error}");
        ledger.rollback();
        assert_eq!(ledger.rows_after(0, 1000).unwrap(), stored);
    }

    #[test]
    fn what_does_not_fit_leaves_nothing_of_its_transaction() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = ledger(&folder);
        append(&mut ledger, &rows(1..=3, 10)).unwrap();
        ledger.limit_pages(20);
        let large = rows(4..100, 9000);
        assert!(append(&mut ledger, &large).is_err());
        ledger.rollback();
        assert_eq!(ledger.rows_after(0, 1000).unwrap(), rows(1..=3, 10));
        ledger.limit_pages(1 << 20);
        append(&mut ledger, &large).unwrap();
        assert_eq!(ledger.rows_after(3, 1000).unwrap(), large);
    }
}
