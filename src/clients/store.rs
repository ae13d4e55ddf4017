//! The record of clients in a SQLite file.
//!
//! Other than the audit log it may be open in several processes: people list and forget clients while a gateway runs. SQLite's
//! locks order their commits, and the totals are kept by triggers, so that they are right whoever writes.

use std::fs::{File, Metadata};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, TransactionBehavior, params};

use super::{AVERAGE_BYTES, ClientRecord, ClientsError, RecordSource, seconds};
use crate::escape;
use crate::file::sync_parent;
use crate::scope;

const FORMAT_VERSION: i64 = 1;
/// Marks the file as ours; the letters `SWCL`.
const APPLICATION_ID: i64 = 0x5357_434c;
/// A file up to this size is checked as a whole when it is opened.
const CHECKED_BYTES: u64 = 64 << 20;
/// How many clients one statement removes.
const EVICT_ROWS: u64 = 256;

const SCHEMA: &str = "
    CREATE TABLE upstream (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        url TEXT NOT NULL,
        clients INTEGER NOT NULL,
        bytes INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE client (
        issuer TEXT NOT NULL,
        client_id TEXT NOT NULL,
        source INTEGER NOT NULL,
        registered_scope TEXT NOT NULL,
        metadata TEXT NOT NULL,
        first_time INTEGER NOT NULL,
        registered_time INTEGER NOT NULL,
        login_time INTEGER,
        bytes INTEGER NOT NULL GENERATED ALWAYS AS (
            octet_length(issuer) + octet_length(client_id) + octet_length(registered_scope) + octet_length(metadata)
        ) STORED,
        PRIMARY KEY (issuer, client_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX client_age ON client (login_time, registered_time);
    CREATE TABLE addition (
        issuer TEXT NOT NULL,
        client_id TEXT NOT NULL,
        scope TEXT NOT NULL,
        PRIMARY KEY (issuer, client_id)
    ) STRICT, WITHOUT ROWID;
    CREATE TRIGGER client_inserted AFTER INSERT ON client BEGIN
        UPDATE upstream SET clients = clients + 1, bytes = bytes + new.bytes;
    END;
    CREATE TRIGGER client_updated AFTER UPDATE ON client BEGIN
        UPDATE upstream SET bytes = bytes + new.bytes - old.bytes;
    END;
    CREATE TRIGGER client_deleted AFTER DELETE ON client BEGIN
        UPDATE upstream SET clients = clients - 1, bytes = bytes - old.bytes;
    END;
";

const COLUMNS: &str =
    "issuer, client_id, source, registered_scope, metadata, first_time, registered_time, login_time";
/// [`COLUMNS`], and what was added. Additions outlive their client: a client that is looked up again must not have registered
/// what was only added to it.
const SELECT: &str =
    "SELECT issuer, client_id, source, registered_scope, metadata, first_time, registered_time, login_time,
    ifnull(scope, '') FROM client LEFT JOIN addition USING (issuer, client_id)";

/// What is to be changed.
#[derive(Debug)]
pub(super) enum ClientChange {
    /// See [`super::Clients::put`].
    Put(Box<ClientRecord>),
    /// See [`super::Clients::add`].
    Add { issuer: String, client_id: String, scopes: String },
    /// See [`super::Clients::forget`]. What was added stays unless the client is gone at the upstream too.
    Forget { issuer: String, client_id: String, is_gone: bool },
    /// See [`super::Clients::note_login`].
    Login { issuer: String, client_id: String, time: SystemTime },
}

impl ClientChange {
    /// The issuer and the id of the client.
    pub(super) fn client(&self) -> (&str, &str) {
        match self {
            Self::Put(record) => (&record.issuer, &record.client_id),
            Self::Add { issuer, client_id, .. }
            | Self::Forget { issuer, client_id, .. }
            | Self::Login { issuer, client_id, .. } => (issuer, client_id),
        }
    }
}

/// What a commit did.
#[derive(Debug, Default)]
pub(super) struct WrittenChanges {
    /// For each change whether there was a client that it changed.
    pub(super) done: Vec<bool>,
    /// How many clients there are now.
    pub(super) clients: u64,
    /// The bytes of their texts.
    pub(super) bytes: u64,
    /// Issuers and ids of clients that made room for others.
    pub(super) evicted: Vec<(String, String)>,
    /// How many of those began a login once.
    pub(super) evicted_used: u64,
}

/// An open file.
#[derive(Debug)]
pub(super) struct ClientStore {
    path: PathBuf,
    /// Device and inode.
    file: (u64, u64),
    connection: Connection,
}

impl ClientStore {
    /// Opens the file of an upstream, or makes it.
    pub(super) fn create(path: &Path, upstream: &str) -> Result<Self, ClientsError> {
        // Only the owner may read who its clients are; SQLite makes its other files alike.
        let made = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        made.and_then(|_| sync_parent(path)).map_err(|cause| io_error("create", path, &cause))?;
        let store = Self::connect(path)?;
        let objects = store.number("SELECT count(*) FROM sqlite_schema")?;
        if objects == 0 && store.number("PRAGMA application_id")? == 0 {
            store
                .connection
                .execute_batch(&format!(
                    "BEGIN IMMEDIATE; {SCHEMA}
                     PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT_VERSION};"
                ))
                .and_then(|()| {
                    store.connection.execute(
                        "INSERT INTO upstream (one, url, clients, bytes) VALUES (1, ?1, 0, 0)",
                        [upstream],
                    )
                })
                .and_then(|_| store.connection.execute_batch("COMMIT"))
                .map_err(not_durable)?;
        }
        store.check()?;
        let found = store.upstream()?;
        if found != upstream {
            return Err(ClientsError::OtherUpstream {
                path: path.to_owned(),
                found,
                wanted: upstream.to_owned(),
            });
        }
        Ok(store)
    }

    /// Opens the file, whosever it is.
    pub(super) fn open(path: &Path) -> Result<Self, ClientsError> {
        let store = Self::connect(path)?;
        store.check()?;
        Ok(store)
    }

    fn connect(path: &Path) -> Result<Self, ClientsError> {
        let metadata = std::fs::metadata(path).map_err(|cause| io_error("read", path, &cause))?;
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open_with_flags(
                path,
                OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
            )?;
            connection.busy_timeout(Duration::from_secs(5))?;
            connection.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON")?;
            connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
            // FULL syncs at each commit; NORMAL would lose the last ones when the power fails.
            connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 4194304")?;
            connection.set_prepared_statement_cache_capacity(16);
            // Or a statement is made anew whenever a value is bound to it, which is ten times what running it takes.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
            Ok(connection)
        };
        let connection = open().map_err(|error| unusable(path, &error))?;
        Ok(Self { path: path.to_owned(), file: identity(&metadata), connection })
    }

    /// Checks that the file is a whole record of clients of a format that is known.
    fn check(&self) -> Result<(), ClientsError> {
        let path = || self.path.clone();
        if self.number("PRAGMA application_id")? != APPLICATION_ID {
            return Err(ClientsError::Foreign { path: path() });
        }
        let found = self.number("PRAGMA user_version")?;
        if found != FORMAT_VERSION {
            return Err(ClientsError::UnknownFormat { path: path(), found, known: FORMAT_VERSION });
        }
        let size = std::fs::metadata(&self.path).map_err(|cause| io_error("read", &self.path, &cause))?.len();
        if size <= CHECKED_BYTES {
            let found: rusqlite::Result<String> =
                self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
            let cause = match found {
                Ok(found) if found == "ok" => return Ok(()),
                Ok(found) => found.replace('\n', " "),
                Err(error) => error.to_string(),
            };
            return Err(ClientsError::Damaged { path: path(), cause });
        }
        Ok(())
    }

    fn number(&self, query: &str) -> Result<i64, ClientsError> {
        self.connection.query_row(query, [], |row| row.get(0)).map_err(|error| unusable(&self.path, &error))
    }

    /// Whose clients they are.
    pub(super) fn upstream(&self) -> Result<String, ClientsError> {
        let url = self.connection.query_row("SELECT url FROM upstream", [], |row| row.get(0));
        url.map_err(|error| unusable(&self.path, &error))
    }

    /// How many clients there are, and the bytes of their texts.
    pub(super) fn totals(&self) -> Result<(u64, u64), ClientsError> {
        totals(&self.connection).map_err(unreadable)
    }

    /// Says that the upstream is at another address.
    pub(super) fn move_to(&mut self, upstream: &str) -> Result<(), ClientsError> {
        self.connection.execute("UPDATE upstream SET url = ?1", [upstream]).map_err(not_durable)?;
        Ok(())
    }

    /// What is known of a client.
    pub(super) fn get(&self, issuer: &str, client_id: &str) -> Result<Option<ClientRecord>, ClientsError> {
        let find = || {
            let query = format!("{SELECT} WHERE issuer = ?1 AND client_id = ?2");
            self.connection.prepare_cached(&query)?.query_row([issuer, client_id], record).optional()
        };
        find().map_err(unreadable)
    }

    /// What was added to a client.
    pub(super) fn added(&self, issuer: &str, client_id: &str) -> Result<String, ClientsError> {
        added(&self.connection, issuer, client_id).map_err(unreadable)
    }

    /// Visits each client, by issuer and id, until `visit` says no.
    pub(super) fn list(&self, mut visit: impl FnMut(ClientRecord) -> bool) -> Result<(), ClientsError> {
        let mut after = (String::new(), String::new());
        loop {
            // Short reads, so that a list that nobody reads on does not keep the file from being cleaned up.
            let page = || -> rusqlite::Result<Vec<ClientRecord>> {
                let query = format!(
                    "{SELECT} WHERE (issuer, client_id) > (?1, ?2) ORDER BY issuer, client_id LIMIT 256"
                );
                let mut statement = self.connection.prepare_cached(&query)?;
                statement.query_map([&after.0, &after.1], record)?.collect()
            };
            let page = page().map_err(unreadable)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = (last.issuer.clone(), last.client_id.clone());
            for record in page {
                if !visit(record) {
                    return Ok(());
                }
            }
        }
    }

    /// Makes all changes in one commit, in order, and keeps the number of clients within `limit`. Durable when it returns; nothing
    /// is changed if it fails.
    pub(super) fn write(
        &mut self,
        changes: &[ClientChange],
        limit: u64,
    ) -> Result<WrittenChanges, ClientsError> {
        // What is written to a file that has no name is lost with the process.
        let is_there = std::fs::metadata(&self.path).is_ok_and(|metadata| identity(&metadata) == self.file);
        if !is_there {
            return Err(ClientsError::Replaced { path: self.path.clone() });
        }
        let mut write = || -> rusqlite::Result<WrittenChanges> {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut written = WrittenChanges::default();
            for change in changes {
                let done = apply(&transaction, change, limit, &mut written)?;
                written.done.push(done);
            }
            (written.clients, written.bytes) = totals(&transaction)?;
            transaction.commit()?;
            Ok(written)
        };
        write().map_err(not_durable)
    }

    /// Limits the size of the file, as a full disk would.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: u64) {
        self.connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
    }
}

fn apply(
    connection: &Connection,
    change: &ClientChange,
    limit: u64,
    written: &mut WrittenChanges,
) -> rusqlite::Result<bool> {
    let count = match change {
        ClientChange::Put(record) => {
            make_room(connection, record, limit, written)?;
            put(connection, record)?
        }
        ClientChange::Add { issuer, client_id, scopes } => {
            let known = added(connection, issuer, client_id)?;
            let both = format!("{known} {scopes}");
            let added = scope::join(&scope::distinct_tokens(&both));
            let set = "INSERT INTO addition (issuer, client_id, scope) VALUES (?1, ?2, ?3)
                       ON CONFLICT DO UPDATE SET scope = ?3";
            connection.prepare_cached(set)?.execute([issuer, client_id, &added])?
        }
        ClientChange::Forget { issuer, client_id, is_gone } => {
            if *is_gone {
                let delete = "DELETE FROM addition WHERE issuer = ?1 AND client_id = ?2";
                connection.prepare_cached(delete)?.execute([issuer, client_id])?;
            }
            let delete = "DELETE FROM client WHERE issuer = ?1 AND client_id = ?2";
            connection.prepare_cached(delete)?.execute([issuer, client_id])?
        }
        ClientChange::Login { issuer, client_id, time } => {
            let set = "UPDATE client SET login_time = ?3 WHERE issuer = ?1 AND client_id = ?2";
            connection.prepare_cached(set)?.execute(params![issuer, client_id, signed(seconds(*time))])?
        }
    };
    Ok(count > 0)
}

fn added(connection: &Connection, issuer: &str, client_id: &str) -> rusqlite::Result<String> {
    let mut known =
        connection.prepare_cached("SELECT scope FROM addition WHERE issuer = ?1 AND client_id = ?2")?;
    Ok(known.query_row([issuer, client_id], |row| row.get(0)).optional()?.unwrap_or_default())
}

fn put(connection: &Connection, record: &ClientRecord) -> rusqlite::Result<usize> {
    let ClientRecord {
        issuer,
        client_id,
        source,
        registered_scope,
        added_scope: _,
        metadata,
        first_time,
        registered_time,
        login_time,
    } = record;
    let metadata =
        escape::json(metadata).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let mut statement = connection.prepare_cached(&format!(
        "INSERT INTO client ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT DO UPDATE SET source = ?3, registered_scope = ?4, metadata = ?5, registered_time = ?7"
    ))?;
    statement.execute(params![
        issuer,
        client_id,
        number_of(*source),
        registered_scope,
        metadata,
        signed(seconds(*first_time)),
        signed(seconds(*registered_time)),
        login_time.map(|time| signed(seconds(time))),
    ])
}

/// Removes clients until there is room for one more, if it is a new one: those that never began a login first, and of those
/// the oldest; then those whose last login is the oldest.
fn make_room(
    connection: &Connection,
    record: &ClientRecord,
    limit: u64,
    written: &mut WrittenChanges,
) -> rusqlite::Result<()> {
    let mut known = connection.prepare_cached("SELECT 1 FROM client WHERE issuer = ?1 AND client_id = ?2")?;
    if known.exists([&record.issuer, &record.client_id])? {
        return Ok(());
    }
    loop {
        let (clients, bytes) = totals(connection)?;
        let too_many = (clients + 1).saturating_sub(limit);
        let too_large = u64::from(bytes > limit.saturating_mul(AVERAGE_BYTES));
        let rows = too_many.max(too_large).min(EVICT_ROWS);
        if rows == 0 || clients == 0 {
            return Ok(());
        }
        let mut statement = connection.prepare_cached(
            "DELETE FROM client WHERE (issuer, client_id) IN
             (SELECT issuer, client_id FROM client ORDER BY login_time, registered_time LIMIT ?1)
             RETURNING issuer, client_id, login_time IS NOT NULL",
        )?;
        let mut rows = statement.query([signed(rows)])?;
        while let Some(row) = rows.next()? {
            written.evicted.push((row.get(0)?, row.get(1)?));
            written.evicted_used += u64::from(row.get::<_, bool>(2)?);
        }
    }
}

fn totals(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    connection
        .prepare_cached("SELECT clients, bytes FROM upstream")?
        .query_row([], |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?))))
}

/// A row of [`SELECT`].
fn record(row: &Row<'_>) -> rusqlite::Result<ClientRecord> {
    let bad =
        |column, error| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error);
    let metadata: String = row.get(4)?;
    let source = match row.get(2)? {
        1 => RecordSource::Registration,
        2 => RecordSource::Upstream,
        other => return Err(rusqlite::Error::IntegralValueOutOfRange(2, other)),
    };
    let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(unsigned(seconds));
    Ok(ClientRecord {
        issuer: row.get(0)?,
        client_id: row.get(1)?,
        source,
        registered_scope: row.get(3)?,
        metadata: serde_json::from_str(&metadata).map_err(|error| bad(4, Box::new(error)))?,
        first_time: time(row.get(5)?),
        registered_time: time(row.get(6)?),
        login_time: row.get::<_, Option<i64>>(7)?.map(time),
        added_scope: row.get(8)?,
    })
}

const fn number_of(source: RecordSource) -> i64 {
    match source {
        RecordSource::Registration => 1,
        RecordSource::Upstream => 2,
    }
}

/// SQLite counts in signed numbers; none here comes near the difference.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn io_error(action: &'static str, path: &Path, cause: &std::io::Error) -> ClientsError {
    ClientsError::Io { action, path: path.to_owned(), cause: cause.to_string() }
}

/// Why a file could not be opened.
fn unusable(path: &Path, error: &rusqlite::Error) -> ClientsError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(NotADatabase) => ClientsError::Foreign { path },
        Some(DatabaseCorrupt) => ClientsError::Damaged { path, cause: error.to_string() },
        _ => ClientsError::Io { action: "open", path, cause: error.to_string() },
    }
}

fn not_durable(error: rusqlite::Error) -> ClientsError {
    ClientsError::NotDurable { cause: error.to_string() }
}

fn unreadable(error: rusqlite::Error) -> ClientsError {
    ClientsError::Unreadable { cause: error.to_string() }
}
