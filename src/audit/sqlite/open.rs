//! How the file of a store is opened or made, and what it says of itself.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, params};
use uuid::Uuid;

use super::super::AuditError;
use super::super::header::StoreHeader;
use super::super::ledger::PAGE_BYTES;
use super::super::record::GENESIS_HASH;
use crate::file::sync_parent;

/// The format of the records that this program writes; those of older formats in a store stay as they are.
pub(super) const FORMAT_VERSION: i64 = 2;
/// The oldest format that it reads.
const OLDEST_FORMAT: i64 = 1;
/// Marks the file as ours; the letters `SWAL`.
pub(in super::super) const APPLICATION_ID: i64 = 0x5357_414c;
const SCHEMA: &str = "
    CREATE TABLE log (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        log_id BLOB NOT NULL,
        base_sequence INTEGER NOT NULL,
        base_hash BLOB NOT NULL,
        base_latest_time INTEGER NOT NULL,
        accounted INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE record (
        sequence INTEGER PRIMARY KEY,
        latest_time INTEGER NOT NULL,
        content BLOB NOT NULL,
        hash BLOB NOT NULL
    ) STRICT;
    CREATE TABLE damaged (
        id INTEGER PRIMARY KEY,
        sequence INTEGER NOT NULL,
        latest_time INTEGER NOT NULL,
        content BLOB NOT NULL,
        hash BLOB NOT NULL,
        found_time INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE probe (filler BLOB NOT NULL) STRICT;
";

/// Opens the file, or makes it.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    // Only the owner may read what clients asked for.
    let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    sync_parent(path)?;
    Ok(file)
}

pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(Duration::from_secs(2))?;
    // Before the first read: then SQLite keeps its index of the write-ahead file in memory of its
    // own, and no other process can open the store, stall it, or cut that index off.
    connection.pragma_update_and_check(None, "locking_mode", "exclusive", |_| Ok(()))?;
    connection.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON")?;
    // Both say something to a new file only.
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    // FULL syncs the write-ahead file at each commit; NORMAL would lose the last commits when the
    // power fails.
    connection.execute_batch("PRAGMA synchronous = FULL")?;
    // The writer moves pages itself, after it has answered.
    connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", 16 << 20, |_| Ok(()))?;
    connection.set_prepared_statement_cache_capacity(32);
    // Or a statement whose condition has a value is made anew whenever one is bound to it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

pub(super) fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    let objects: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok(objects == 0 && version == 0)
}

pub(super) fn create(connection: &Connection) -> rusqlite::Result<Uuid> {
    let log_id = Uuid::new_v4();
    let mode: i64 = connection.query_row("PRAGMA auto_vacuum", [], |row| row.get(0))?;
    if mode != 2 {
        // The file got its first page in an attempt that ended before this setting.
        connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM")?;
    }
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {SCHEMA}
         PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT_VERSION};"
    ))?;
    connection.execute(
        "INSERT INTO log (one, log_id, base_sequence, base_hash, base_latest_time, accounted)
         VALUES (1, ?1, 0, ?2, ?3, 0)",
        params![log_id.as_bytes().as_slice(), GENESIS_HASH, i64::MIN],
    )?;
    connection.execute_batch("COMMIT")?;
    Ok(log_id)
}

/// Checks what the first bytes of a file say of it.
pub(in super::super) fn check_header(header: &StoreHeader, path: &Path) -> Result<(), AuditError> {
    let other = |detail: &str| AuditError::NotAnAuditLog { path: path.to_owned(), detail: detail.to_owned() };
    match header.problem() {
        Some(problem) if header.is_ours() => Err(AuditError::Damaged { what: problem.to_owned() }),
        Some(problem) => Err(other(problem)),
        None if header.is_foreign() => Err(other("it is a SQLite database of another application")),
        None => Ok(()),
    }
}

/// Checks that the file is an audit log that this program understands, and reads its id.
pub(in super::super) fn identify(connection: &Connection, path: &Path) -> Result<Uuid, AuditError> {
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
    let log_id = read_log_id(connection).map_err(failed())?;
    log_id.ok_or_else(|| AuditError::Damaged { what: "it has no log id".to_owned() })
}

/// What SQLite finds wrong with the whole file, which it reads; `None` if that is nothing.
pub(in super::super) fn find_damage(connection: &Connection) -> rusqlite::Result<Option<String>> {
    integrity(connection, "1")
}

/// The first finding of SQLite's integrity check. `scope` is the name of a table, or a number of findings
/// for all of the file.
pub(super) fn integrity(connection: &Connection, scope: &str) -> rusqlite::Result<Option<String>> {
    let found: String =
        connection.query_row(&format!("PRAGMA integrity_check({scope})"), [], |row| row.get(0))?;
    let line = found.lines().find(|line| !line.starts_with("***")).unwrap_or_default();
    Ok((line != "ok").then(|| format!("its pages are damaged: {line}")))
}

pub(super) fn read_log_id(connection: &Connection) -> rusqlite::Result<Option<Uuid>> {
    let bytes: Vec<u8> = connection.query_row("SELECT log_id FROM log", [], |row| row.get(0))?;
    Ok(Uuid::from_slice(&bytes).ok())
}
