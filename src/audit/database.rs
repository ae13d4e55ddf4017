//! Stores of earlier versions: one SQLite file. They are read, and moved to segments by the next start.
//!
//! Nothing is written here but what SQLite itself does to recover a write-ahead file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Row};
use uuid::Uuid;

use super::AuditError;
use super::chain::StoredRow;
use super::error::shows_damage;
use super::record::{Hash, Head, Tip};
use header::StoreHeader;

mod header;

/// The newest format of such a store.
const FORMAT_VERSION: i64 = 2;
/// The oldest format that is read.
const OLDEST_FORMAT: i64 = 1;
/// How many bytes of records are read at once.
const PAGE_BYTES: usize = 4 << 20;
/// Marks the file as ours; the letters `SWAL`.
const APPLICATION_ID: i64 = 0x5357_414c;

/// A store that is open for reading.
#[derive(Debug)]
pub(super) struct Database {
    connection: Connection,
    log_id: Uuid,
    /// INVARIANT: closed after the connection, hence declared after it: closing any descriptor of a file
    /// gives the process's locks on it back, SQLite's too.
    _file: File,
}

/// A record that was found damaged and set aside, and when: nanoseconds since 1970.
#[derive(Debug)]
pub(super) struct DamagedRow {
    pub(super) found: i64,
    pub(super) row: StoredRow,
}

impl Database {
    /// Opens a store for reading and reads its log id. Blocks.
    ///
    /// # Errors
    ///
    /// The file is not there, is damaged, is not an audit log that this program understands, or a running
    /// server has it ([`AuditError::StoreInUse`]).
    pub(super) fn open(path: &Path) -> Result<Self, AuditError> {
        std::fs::metadata(path).map_err(AuditError::io("read", path))?;
        let connected = connect(path);
        if let Err(error) = &connected
            && let Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) = error.sqlite_error_code()
        {
            return Err(AuditError::StoreInUse { path: path.to_owned() });
        }
        let file = File::open(path).map_err(AuditError::io("read", path))?;
        match StoreHeader::read(&file).map_err(AuditError::io("read", path))? {
            Some(header) => check_header(&header, path)?,
            None => return Err(AuditError::Damaged { what: "the file is empty".to_owned() }),
        }
        let connection = connected.map_err(AuditError::database("open the audit log"))?;
        let log_id = identify(&connection, path)?;
        Ok(Self { connection, log_id, _file: file })
    }

    /// The id of the log.
    pub(super) const fn log_id(&self) -> Uuid {
        self.log_id
    }

    /// What retention left of the records before the oldest.
    pub(super) fn base(&self) -> Result<Tip, AuditError> {
        let select = "SELECT base_sequence, base_hash, base_latest_time FROM log";
        Ok(self.connection.prepare_cached(select)?.query_row([], read_tip)?)
    }

    /// The newest record, or the base if there is none.
    pub(super) fn newest(&self) -> Result<Tip, AuditError> {
        let select = "SELECT sequence, hash, latest_time FROM record ORDER BY sequence DESC LIMIT 1";
        let found = self.connection.prepare_cached(select)?.query_row([], read_tip).optional()?;
        found.map_or_else(|| self.base(), Ok)
    }

    /// How many events of the queue are in records or counted by gaps.
    pub(super) fn accounted(&self) -> Result<u64, AuditError> {
        let accounted: i64 = self.connection.query_row("SELECT accounted FROM log", [], |row| row.get(0))?;
        Ok(unsigned(accounted))
    }

    /// Records after a sequence, in order, no more once they have 4 MiB. What can be read goes first; the next call begins with what cannot.
    pub(super) fn rows_after(&self, sequence: u64, limit: usize) -> Result<Vec<StoredRow>, AuditError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT sequence, latest_time, content, hash FROM record WHERE sequence > ?1
             ORDER BY sequence LIMIT ?2",
        )?;
        let mut found = statement.query([signed(sequence), signed(limit as u64)])?;
        let mut rows: Vec<StoredRow> = Vec::new();
        let mut bytes = 0;
        loop {
            match found.next().and_then(|row| row.map(read_row).transpose()) {
                Ok(Some(row)) => {
                    bytes += row.content.len();
                    rows.push(row);
                    if bytes >= PAGE_BYTES {
                        return Ok(rows);
                    }
                }
                Ok(None) => return Ok(rows),
                Err(_) if !rows.is_empty() => return Ok(rows),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The place of a record; `None` if it is not there.
    pub(super) fn tip_at(&self, sequence: u64) -> Result<Option<Tip>, AuditError> {
        let select = "SELECT sequence, hash, latest_time FROM record WHERE sequence = ?1";
        Ok(self.connection.query_row(select, [signed(sequence)], read_tip).optional()?)
    }

    /// The first record whose time, or that of one before it, is this or later.
    pub(super) fn first_from(&self, time: i64) -> Result<Option<u64>, AuditError> {
        let select = "SELECT sequence FROM record WHERE latest_time >= ?1 ORDER BY sequence LIMIT 1";
        let found = self.connection.query_row(select, [time], |row| row.get(0)).optional()?;
        Ok(found.map(unsigned))
    }

    /// Whether there are records that count as deleted.
    pub(super) fn has_records_before_base(&self) -> Result<bool, AuditError> {
        let select = "SELECT count(*) FROM record WHERE sequence <= (SELECT base_sequence FROM log)";
        let before: i64 = self.connection.query_row(select, [], |row| row.get(0))?;
        Ok(before > 0)
    }

    /// Records that were set aside.
    pub(super) fn damaged(&self) -> Result<Vec<DamagedRow>, AuditError> {
        let select = "SELECT sequence, latest_time, content, hash, found_time FROM damaged ORDER BY found_time, sequence";
        let mut statement = self.connection.prepare(select)?;
        let rows =
            statement.query_map([], |row| Ok(DamagedRow { found: row.get(4)?, row: read_row(row)? }))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// What SQLite finds wrong with the whole file, which it reads; `None` if that is nothing.
    pub(super) fn find_damage(&self) -> Result<Option<String>, AuditError> {
        let found = self.connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0));
        let found: String = match found {
            Err(error) if shows_damage(&error) => error.to_string(),
            found => found?,
        };
        let line = found.lines().find(|line| !line.starts_with("***")).unwrap_or_default();
        Ok((line != "ok").then(|| format!("its pages are damaged: {line}")))
    }
}

/// The write-ahead file of a store, and the index of that.
pub(super) fn side_files(path: &Path) -> [PathBuf; 2] {
    ["-wal", "-shm"].map(|end| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    })
}

/// Checks what the first bytes of a file say of it.
fn check_header(header: &StoreHeader, path: &Path) -> Result<(), AuditError> {
    let other = |detail: &str| AuditError::NotAnAuditLog { path: path.to_owned(), detail: detail.to_owned() };
    match header.problem() {
        Some(problem) if header.is_ours() => Err(AuditError::Damaged { what: problem.to_owned() }),
        Some(problem) => Err(other(problem)),
        None if header.is_foreign() => Err(other("it is a SQLite database of another application")),
        None => Ok(()),
    }
}

/// Checks that the file is an audit log that this program understands, and reads its id.
fn identify(connection: &Connection, path: &Path) -> Result<Uuid, AuditError> {
    let failed = || AuditError::database("open the audit log");
    let number = |pragma: &str| -> rusqlite::Result<i64> {
        connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))
    };
    let application = number("application_id").map_err(failed())?;
    if application != APPLICATION_ID {
        return Err(AuditError::NotAnAuditLog {
            path: path.to_owned(),
            detail: format!(
                "it is a SQLite database of another application, with application id {application:#x} and not \
                 {APPLICATION_ID:#x}"
            ),
        });
    }
    let version = number("user_version").map_err(failed())?;
    if !(OLDEST_FORMAT..=FORMAT_VERSION).contains(&version) {
        return Err(AuditError::UnknownFormat {
            path: path.to_owned(),
            found: version,
            known: FORMAT_VERSION,
        });
    }
    let bytes: Vec<u8> =
        connection.query_row("SELECT log_id FROM log", [], |row| row.get(0)).map_err(failed())?;
    let log_id = Uuid::from_slice(&bytes).ok();
    log_id.ok_or_else(|| AuditError::Damaged { what: "it has no log id".to_owned() })
}

/// Opens a store for reading only. A store in a folder that cannot be written, and that no
/// process has open, can be read too.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let [wal, _] = side_files(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = |location: &Path, flags| -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(location, flags)?;
        connection.busy_timeout(Duration::from_millis(100))?;
        connection.execute_batch(
            "PRAGMA query_only = ON; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON",
        )?;
        // The first read is what opens the files.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    };
    match open(path, flags) {
        Ok(connection) => Ok(connection),
        Err(error)
            if matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
                && path.exists()
                && !wal.exists() =>
        {
            // Nothing is left in a write-ahead file, and none can be made here.
            let location = format!("file:{}?immutable=1", escaped(path));
            open(Path::new(&location), flags | OpenFlags::SQLITE_OPEN_URI)
        }
        Err(error) => Err(error),
    }
}

/// A path as a part of a `file:` URI.
fn escaped(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;

    path.as_os_str().as_bytes().iter().fold(String::new(), |mut uri, byte| {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                uri.push(char::from(*byte));
            }
            other => {
                // Writing to a string cannot fail.
                let _ = write!(uri, "%{other:02X}");
            }
        }
        uri
    })
}

/// Reads the place of a row of the columns sequence, hash, `latest_time`.
fn read_tip(row: &Row<'_>) -> rusqlite::Result<Tip> {
    Ok(Tip { head: Head { sequence: unsigned(row.get(0)?), hash: hash(row, 1)? }, latest_time: row.get(2)? })
}

/// Reads one row of the columns sequence, `latest_time`, content, hash.
fn read_row(row: &Row<'_>) -> rusqlite::Result<StoredRow> {
    Ok(StoredRow {
        sequence: unsigned(row.get(0)?),
        latest_time: row.get(1)?,
        content: row.get::<_, Vec<u8>>(2)?.into(),
        hash: hash(row, 3)?,
    })
}

/// A hash column. One of another length stands for no hash, hence a value that nothing has (zeros are the genesis).
fn hash(row: &Row<'_>, column: usize) -> rusqlite::Result<Hash> {
    let bytes: Vec<u8> = row.get(column)?;
    Ok(bytes.try_into().unwrap_or([0xff; 32]))
}

/// SQLite counts in signed numbers; sequences never come near the difference.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The inverse of [`signed`].
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
