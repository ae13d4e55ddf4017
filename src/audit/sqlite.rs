//! The ledger in a SQLite file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use uuid::Uuid;

use super::chain::{StoredRow, time_of};
use super::files::{StoreFiles, Written};
use super::header::StoreHeader;
use super::ledger::{Cut, Ledger, LedgerError, TRIM_ROWS, Trimmed, Usage};
use super::record::{Hash, Head, Tip, from_nanos, to_nanos};
use super::{AuditError, wal};
use open::{FORMAT_VERSION, connect, create, integrity, is_empty, open_file, read_log_id};

mod append;
mod open;

pub(super) use open::{APPLICATION_ID, check_header, find_damage, identify};

/// A store up to this size is checked as a whole by each start, which reads all of it; of a larger one
/// a start checks the newest records and the small tables, and the walk over the chain reads the rest.
const CHECKED_BYTES: u64 = 64 << 20;
/// A time further ahead than this says that the clock was wrong when the event was recorded.
const CLOCK_SLACK: Duration = Duration::from_secs(24 * 60 * 60);

/// The store in a SQLite file.
#[derive(Debug)]
pub(super) struct SqliteLedger {
    path: PathBuf,
    log_id: Uuid,
    created: bool,
    open: Option<OpenStore>,
}

#[derive(Debug)]
struct OpenStore {
    connection: Connection,
    /// INVARIANT: closed after the connection, hence declared after it.
    files: StoreFiles,
}

impl SqliteLedger {
    /// Opens the store, or makes one. The caller holds the lock of the state directory.
    pub(super) fn open(path: &Path) -> Result<Self, AuditError> {
        let file = open_file(path).map_err(AuditError::io("open", path))?;
        let header = StoreHeader::read(&file).map_err(AuditError::io("read", path))?;
        drop(file);
        if let Some(header) = header {
            check_header(&header, path)?;
        }
        let connection = connect(path).map_err(AuditError::database("open the audit log"))?;
        let created = is_empty(&connection).map_err(AuditError::database("open the audit log"))?;
        let log_id = if created {
            let log_id = create(&connection).map_err(AuditError::database("create the audit log"))?;
            // Whatever becomes of the write-ahead file, the tables are there.
            connection
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
                .map_err(AuditError::database("create the audit log"))?;
            log_id
        } else {
            identify(&connection, path)?
        };
        let opened = OpenStore::new(connection, path).map_err(cannot_start)?;
        Ok(Self { path: path.to_owned(), log_id, created, open: Some(opened) })
    }

    /// Marks the store as one with records of the newest format, which older programs must not take for
    /// damage.
    pub(super) fn mark_format(&mut self) -> Result<(), LedgerError> {
        let connection = self.connection()?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version == FORMAT_VERSION {
            return Ok(());
        }
        self.transaction(|connection| Ok(connection.pragma_update(None, "user_version", FORMAT_VERSION)?))
    }

    /// What SQLite finds wrong with the file: all of it if it is small or `whole` says so, else the tables
    /// that stay small. `None` if that is nothing.
    pub(super) fn find_damage(&mut self, whole: bool) -> Result<Option<String>, LedgerError> {
        let main_bytes = self.usage()?.main_bytes;
        let connection = self.connection()?;
        if whole || main_bytes <= CHECKED_BYTES {
            return Ok(find_damage(connection)?);
        }
        for table in ["sqlite_schema", "log", "damaged", "probe"] {
            if let Some(found) = integrity(connection, table)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The id of the log.
    pub(super) const fn log_id(&self) -> Uuid {
        self.log_id
    }

    /// Whether `open` made the store.
    pub(super) const fn created(&self) -> bool {
        self.created
    }

    /// Moves damaged records from the end of the chain to a table of their own. Part of the
    /// running transaction.
    pub(super) fn set_aside(&mut self, from: u64, now: i64) -> Result<(), LedgerError> {
        let connection = self.connection()?;
        connection.execute(
            "INSERT INTO damaged (sequence, latest_time, content, hash, found_time)
             SELECT sequence, latest_time, content, hash, ?2 FROM record WHERE sequence >= ?1",
            params![signed(from), now],
        )?;
        connection.execute("DELETE FROM record WHERE sequence >= ?1", [signed(from)])?;
        Ok(())
    }

    /// Limits the size of the main file, as a full disk would.
    #[cfg(test)]
    pub(super) fn limit_pages(&mut self, pages: u64) {
        if let Ok(connection) = self.connection() {
            connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
        }
    }

    /// Closes the store, as a failed attempt to open it again does.
    #[cfg(test)]
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    fn connection(&self) -> Result<&Connection, LedgerError> {
        self.open.as_ref().map(|open| &open.connection).ok_or(LedgerError::NotOpen)
    }

    /// Runs a transaction of its own.
    fn transaction<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let open = self.open.as_mut().ok_or(LedgerError::NotOpen)?;
        let transaction = open.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = work(&transaction)?;
        transaction.commit()?;
        open.files.check_commit()?;
        Ok(result)
    }
}

impl Ledger for SqliteLedger {
    fn tip(&mut self) -> Result<Tip, LedgerError> {
        let connection = self.connection()?;
        Ok(match read_newest(connection)? {
            Some(tip) => tip,
            None => read_base(connection)?,
        })
    }

    fn base(&mut self) -> Result<Tip, LedgerError> {
        Ok(read_base(self.connection()?)?)
    }

    fn accounted(&mut self) -> Result<u64, LedgerError> {
        let accounted: i64 =
            self.connection()?.query_row("SELECT accounted FROM log", [], |row| row.get(0))?;
        Ok(unsigned(accounted))
    }

    fn rows_after(&mut self, sequence: u64, limit: u64) -> Result<Vec<StoredRow>, LedgerError> {
        Ok(read_rows(self.connection()?, sequence, limit)?)
    }

    fn tip_at(&mut self, sequence: u64) -> Result<Option<Tip>, LedgerError> {
        let mut statement = self
            .connection()?
            .prepare_cached("SELECT sequence, hash, latest_time FROM record WHERE sequence = ?1")?;
        Ok(statement.query_row([signed(sequence)], read_tip).optional()?)
    }

    fn page(
        &mut self,
        after: u64,
        until: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<StoredRow>, LedgerError> {
        let mut statement = self.connection()?.prepare_cached(
            "SELECT sequence, latest_time, content, hash FROM record
             WHERE sequence > ?1 AND sequence <= ?2 ORDER BY sequence LIMIT ?3",
        )?;
        let mut found = statement.query((signed(after), signed(until), signed(limit as u64)))?;
        let mut rows = Vec::new();
        let mut size = 0;
        while size < bytes {
            match found.next().and_then(|row| row.map(read_row).transpose()) {
                Ok(Some(row)) => {
                    size += row.content.len();
                    rows.push(row);
                }
                Ok(None) => break,
                // What can be read goes first; the next page begins with what cannot.
                Err(_) if !rows.is_empty() => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(rows)
    }

    fn begin(&mut self) -> Result<(), LedgerError> {
        let open = self.open.as_mut().ok_or(LedgerError::NotOpen)?;
        // A file that was unlinked can still be written, but nobody will find what is in it.
        open.files.check()?;
        open.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(())
    }

    fn append(&mut self, rows: &[StoredRow]) -> Result<(), LedgerError> {
        append::append(self.connection()?, rows)
    }

    fn account(&mut self, accounted: u64) -> Result<(), LedgerError> {
        self.connection()?.prepare_cached("UPDATE log SET accounted = ?1")?.execute([signed(accounted)])?;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), LedgerError> {
        let open = self.open.as_mut().ok_or(LedgerError::NotOpen)?;
        open.connection.prepare_cached("COMMIT")?.execute([])?;
        open.files.check_commit()
    }

    fn rollback(&mut self) {
        if let Some(open) = &self.open
            && !open.connection.is_autocommit()
        {
            // An error here leaves the transaction open; the next `begin` then fails and the
            // store is opened again.
            let _ = open.connection.execute_batch("ROLLBACK");
        }
    }

    fn probe(&mut self) -> Result<(), LedgerError> {
        self.open.as_mut().ok_or(LedgerError::NotOpen)?.files.check()?;
        // Two transactions, since pages that come and go in one are never written.
        self.transaction(|connection| {
            connection.execute("INSERT INTO probe (filler) VALUES (zeroblob(65536))", [])?;
            Ok(())
        })?;
        self.transaction(|connection| {
            connection.execute("DELETE FROM probe", [])?;
            Ok(())
        })
    }

    fn usage(&mut self) -> Result<Usage, LedgerError> {
        let connection = self.connection()?;
        let pragma = |name: &str| -> rusqlite::Result<u64> {
            let value: i64 =
                connection.prepare_cached(&format!("PRAGMA {name}"))?.query_row([], |row| row.get(0))?;
            Ok(unsigned(value))
        };
        let page_bytes = pragma("page_size")?;
        let pages = pragma("page_count")?;
        let free = pragma("freelist_count")?;
        Ok(Usage {
            used_bytes: pages.saturating_sub(free) * page_bytes,
            main_bytes: pages * page_bytes,
            wal_bytes: self.open.as_ref().map_or(0, |open| open.files.wal_bytes()),
        })
    }

    fn trim(&mut self, cut: Cut) -> Result<Trimmed, LedgerError> {
        self.transaction(|connection| {
            if let Cut::OlderThan(cutoff, ..) = cut {
                // What was set aside is as personal as what was not.
                connection.prepare_cached("DELETE FROM damaged WHERE found_time < ?1")?.execute([cutoff])?;
            }
            let Some((last, trimmed)) = last_to_trim(connection, cut)? else {
                return Ok(Trimmed::default());
            };
            connection.execute(
                "UPDATE log SET (base_sequence, base_hash, base_latest_time) =
                 (SELECT sequence, hash, latest_time FROM record WHERE sequence = ?1)",
                [last],
            )?;
            connection.execute("DELETE FROM record WHERE sequence <= ?1", [last])?;
            Ok(trimmed)
        })
    }

    fn vacuum(&mut self, pages: u64) -> Result<(), LedgerError> {
        let connection = self.connection()?;
        // One page is freed each time the statement is stepped.
        let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        drop(rows);
        drop(statement);
        self.open.as_mut().ok_or(LedgerError::NotOpen)?.files.check_commit()
    }

    fn checkpoint(&mut self) -> Result<(), LedgerError> {
        let open = self.open.as_mut().ok_or(LedgerError::NotOpen)?;
        open.files.check()?;
        let (busy, frames, moved): (i64, i64, i64) =
            open.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
        open.files.moved(busy == 0 && frames == moved)
    }

    fn reopen(&mut self) -> Result<(), LedgerError> {
        if let Some(OpenStore { connection, files }) = self.open.take() {
            // What is in memory is not to be believed; closing must not write it anywhere.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            drop(connection);
            drop(files);
        }
        // Opening reads the write-ahead file again, and with it what may never have reached the
        // disk.
        wal::rewrite_in_place(&wal_path(&self.path))?;
        if !self.path.exists() {
            return Err(LedgerError::Replaced(self.path.clone()));
        }
        let connection = connect(&self.path)?;
        let found: Option<Uuid> = read_log_id(&connection)?;
        if found != Some(self.log_id) {
            return Err(LedgerError::Replaced(self.path.clone()));
        }
        self.open = Some(OpenStore::new(connection, &self.path)?);
        Ok(())
    }
}

impl OpenStore {
    fn new(mut connection: Connection, path: &Path) -> Result<Self, LedgerError> {
        // The first read makes the write-ahead file.
        connection.query_row("SELECT count(*) FROM log", [], |_| Ok(()))?;
        let page_bytes: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let written = Arc::new(Written::default());
        let told = Arc::clone(&written);
        connection.wal_hook(Some(move |_: &mut Wal, frames: i32| {
            told.commit(u64::try_from(frames).unwrap_or(0));
            Ok(())
        }))?;
        let files = StoreFiles::new(path, &wal_path(path), unsigned(page_bytes), written)?;
        Ok(Self { connection, files })
    }
}

/// The last record that one step of retention deletes, and what goes with it.
fn last_to_trim(connection: &Connection, cut: Cut) -> rusqlite::Result<Option<(i64, Trimmed)>> {
    let newest: Option<i64> =
        connection.query_row("SELECT max(sequence) FROM record", [], |row| row.get(0))?;
    // Only an age needs the content.
    let mut statement = connection.prepare_cached(match cut {
        Cut::Bytes(..) => {
            "SELECT sequence, latest_time, length(content) FROM record ORDER BY sequence LIMIT ?1"
        }
        Cut::OlderThan(..) => "SELECT sequence, latest_time, content FROM record ORDER BY sequence LIMIT ?1",
    })?;
    let mut rows = statement.query([signed(TRIM_ROWS)])?;
    let mut last = None;
    let mut seen = Trimmed::default();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let sequence: i64 = row.get(0)?;
        seen.rows += 1;
        match cut {
            Cut::Bytes(wanted, young) => {
                if bytes >= wanted || Some(sequence) == newest {
                    break;
                }
                bytes += unsigned(row.get(2)?);
                seen.young += u64::from(row.get::<_, i64>(1)? >= young);
                last = Some((sequence, seen));
            }
            Cut::OlderThan(_, _, last) if unsigned(sequence) > last => break,
            Cut::OlderThan(cutoff, now, _) => {
                let time = time_of(row.get_ref(2)?.as_blob()?).unwrap_or(0);
                let ahead = to_nanos(from_nanos(now) + CLOCK_SLACK);
                if time < cutoff {
                    last = Some((sequence, seen));
                } else if time <= ahead {
                    break;
                }
                // A time that the clock has not reached says nothing: its neighbours decide.
            }
        }
    }
    Ok(last)
}

/// The path of the write-ahead file.
pub(super) fn wal_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

/// An error of the ledger before the log is open.
pub(super) fn cannot_start(error: LedgerError) -> AuditError {
    match error {
        LedgerError::Sqlite(source) => AuditError::Database { action: "open the audit log", source },
        other => AuditError::NotDurable { cause: other.to_string() },
    }
}

/// Reads what retention left of the records before the oldest.
pub(super) fn read_base(connection: &Connection) -> rusqlite::Result<Tip> {
    connection
        .prepare_cached("SELECT base_sequence, base_hash, base_latest_time FROM log")?
        .query_row([], read_tip)
}

/// Reads the newest record; `None` if there is none.
pub(super) fn read_newest(connection: &Connection) -> rusqlite::Result<Option<Tip>> {
    let mut statement = connection
        .prepare_cached("SELECT sequence, hash, latest_time FROM record ORDER BY sequence DESC LIMIT 1")?;
    let mut rows = statement.query([])?;
    rows.next()?.map(read_tip).transpose()
}

/// Reads the place of a row of the columns sequence, hash, `latest_time`.
pub(super) fn read_tip(row: &rusqlite::Row<'_>) -> rusqlite::Result<Tip> {
    Ok(Tip { head: Head { sequence: unsigned(row.get(0)?), hash: hash(row, 1)? }, latest_time: row.get(2)? })
}

/// Reads records after a sequence, in order.
pub(super) fn read_rows(connection: &Connection, after: u64, limit: u64) -> rusqlite::Result<Vec<StoredRow>> {
    let mut statement = connection.prepare_cached(
        "SELECT sequence, latest_time, content, hash FROM record WHERE sequence > ?1
         ORDER BY sequence LIMIT ?2",
    )?;
    let rows = statement.query_map([signed(after), signed(limit)], read_row)?;
    rows.collect()
}

/// Reads one row of the columns sequence, `latest_time`, content, hash.
pub(super) fn read_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredRow> {
    Ok(StoredRow {
        sequence: unsigned(row.get(0)?),
        latest_time: row.get(1)?,
        content: row.get::<_, Vec<u8>>(2)?.into(),
        hash: hash(row, 3)?,
    })
}

/// A hash column. One of another length stands for no hash, hence a value that nothing has (zeros are the genesis).
fn hash(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Hash> {
    let bytes: Vec<u8> = row.get(column)?;
    Ok(bytes.try_into().unwrap_or([0xff; 32]))
}

/// SQLite counts in signed numbers; sequences never come near the difference.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The inverse of [`signed`].
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    // SQLite cuts a write-ahead file of more than its limit of 16 MiB when it begins it again; that is no damage.
    #[test]
    fn write_ahead_file_that_sqlite_cuts_to_its_limit_is_not_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = SqliteLedger::open(&folder.path().join("audit.db")).unwrap();
        let mut sequence = 0;
        let mut write = |ledger: &mut SqliteLedger, bytes: usize| {
            sequence += 1;
            let tip = Tip { head: Head { sequence, hash: [7; 32] }, latest_time: 0 };
            ledger.begin().unwrap();
            ledger.append(&[StoredRow::new(tip, vec![1; bytes])]).unwrap();
            ledger.commit()
        };
        for _ in 0..20 {
            write(&mut ledger, 1 << 20).unwrap();
        }
        assert!(ledger.usage().unwrap().wal_bytes > 16 << 20, "the file is longer than its limit");
        ledger.checkpoint().unwrap();
        write(&mut ledger, 100).unwrap();
        write(&mut ledger, 100).unwrap();
        assert!(ledger.usage().unwrap().wal_bytes <= 16 << 20, "SQLite has cut it");
    }
}
