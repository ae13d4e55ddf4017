//! Readers: short, read-only queries, each in a transaction of its own.
//!
//! A long read would keep the write-ahead file from being reused, so everything here is a page.
//! Every record that is handed out was checked against its hash and the record before it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::chain::ChainWalk;
use super::ledger::{read_base, read_newest, read_row, read_tip, signed};
use super::record::{Body, Hash, Head, Record, Tip, to_nanos};
use super::{AuditError, Problem};
use crate::audience::normalise;
use crate::proto::v1::AuditEventKind;

/// How many queries run at the same time.
const PARALLEL: usize = 4;
/// The most records that one query looks at.
const SCAN_ROWS: u64 = 4096;
/// The most content that one query looks at; one record may have more.
const SCAN_BYTES: usize = 8 << 20;
/// The most content that one page holds; one record may have more.
const PAGE_BYTES: usize = 1 << 20;

/// Which events a reader wants. Gaps are always sent.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Filter {
    kinds: Vec<AuditEventKind>,
    /// Normalised.
    audiences: Vec<String>,
}

impl Filter {
    /// Only these kinds, and only events that name one of these audiences, as asked or as decided.
    /// Audiences are compared normalised. An empty list means all.
    #[must_use]
    pub fn new(kinds: Vec<AuditEventKind>, audiences: &[String]) -> Self {
        Self { kinds, audiences: audiences.iter().map(|audience| normal(audience).into_owned()).collect() }
    }

    /// Whether a reader with this filter is sent the record.
    #[must_use]
    pub fn wants(&self, record: &Record) -> bool {
        let Body::Event(event) = &record.body else {
            return true;
        };
        let wants = |audience: &String| self.audiences.iter().any(|wanted| *wanted == normal(audience));
        (self.kinds.is_empty() || self.kinds.contains(&event.kind()))
            && (self.audiences.is_empty() || event.audiences.iter().chain(&event.asked_audiences).any(wants))
    }
}

/// What is not an audience is compared as it is.
fn normal(audience: &str) -> Cow<'_, str> {
    normalise(audience).unwrap_or(Cow::Borrowed(audience))
}

/// One page of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The records that fit the filter, in order; may be empty though more follow.
    pub records: Vec<Record>,
    /// The last record that was looked at: where the next page starts.
    pub through: Head,
    /// The end of what was durable when the page was read. The page is the last one for now if it
    /// equals `through`.
    pub head: Head,
    /// The oldest sequence that was kept then.
    pub oldest: u64,
}

/// The ends of what is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// What is known of the record before the oldest.
    pub(super) base: Head,
    pub(super) head: Head,
}

/// Reads a store from any number of tasks. Clones share its connections.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    log_id: Uuid,
    turns: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl Reader {
    pub(super) fn new(path: PathBuf, log_id: Uuid) -> Self {
        Self {
            inner: Arc::new(Inner {
                path,
                log_id,
                turns: Arc::new(Semaphore::new(PARALLEL)),
                idle: Mutex::default(),
            }),
        }
    }

    /// Lets queries that run finish and begins no other.
    pub(super) fn close(&self) {
        self.inner.turns.close();
        self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) async fn ends(&self) -> Result<Ends, AuditError> {
        self.with(|connection, _| {
            let (base, head) = read_ends(connection)?;
            Ok(Ends { base: base.head, head: head.head })
        })
        .await
    }

    /// Reads the records after a sequence and up to another. `hash` is that of the record at the
    /// sequence, if the caller knows it.
    pub(super) async fn page(
        &self,
        after: u64,
        hash: Option<Hash>,
        filter: Filter,
        limit: usize,
        until: u64,
    ) -> Result<Page, AuditError> {
        self.with(move |connection, log_id| {
            let (base, tip) = read_ends(connection)?;
            let (oldest, newest) = (base.head.sequence + 1, tip.head.sequence);
            if after < base.head.sequence || after > newest {
                return Err(AuditError::OutOfRange { requested: after, oldest, newest });
            }
            let place = match tip_at(connection, base, after)? {
                Some(place) => place,
                None => return Err(lost(after, Problem::Missing { next: after + 1 })),
            };
            if hash.is_some_and(|known| known != place.head.hash) {
                return Err(lost(after, Problem::UnexpectedHash));
            }
            let mut walk = ChainWalk::new(log_id, place);
            let mut records = Vec::new();
            let (mut scanned, mut bytes) = (0, 0);
            let mut statement = connection.prepare_cached(
                "SELECT sequence, latest_time, content, hash FROM record
                 WHERE sequence > ?1 AND sequence <= ?2 ORDER BY sequence LIMIT ?3",
            )?;
            let mut rows = statement.query((signed(after), signed(until), signed(SCAN_ROWS)))?;
            while records.len() < limit && bytes < PAGE_BYTES && scanned < SCAN_BYTES {
                let next = walk.last().head.sequence + 1;
                let row = rows.next().and_then(|row| row.map(read_row).transpose()).map_err(unreadable(next));
                let taken = row.and_then(|row| {
                    let Some(row) = row else { return Ok(None) };
                    Ok(Some((walk.take(&row)?, row.content.len())))
                });
                match taken {
                    Ok(Some((record, length))) => {
                        scanned += length;
                        if filter.wants(&record) {
                            bytes += length;
                            records.push(record);
                        }
                    }
                    Ok(None) => break,
                    // What is good is delivered first; the next page begins with the bad record.
                    Err(_) if walk.last() != place => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(Page { records, through: walk.last().head, head: tip.head, oldest })
        })
        .await
    }

    /// The first sequence whose record is from this time or later.
    pub(super) async fn sequence_at(&self, time: SystemTime) -> Result<u64, AuditError> {
        self.with(move |connection, _| {
            let (base, tip) = read_ends(connection)?;
            let time = to_nanos(time);
            let mut statement =
                connection.prepare_cached("SELECT latest_time FROM record WHERE sequence = ?1")?;
            // The column never falls with the sequence, so the first record at which it reaches
            // the time is also the first that has it.
            let (mut low, mut high) = (base.head.sequence + 1, tip.head.sequence + 1);
            while low < high {
                let middle = low + (high - low) / 2;
                let latest: Option<i64> =
                    statement.query_row([signed(middle)], |row| row.get(0)).optional()?;
                let Some(latest) = latest else {
                    return Err(lost(middle, Problem::Missing { next: middle + 1 }));
                };
                if latest < time {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            Ok(low)
        })
        .await
    }

    /// Runs a query on a thread that may block.
    async fn with<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection, Uuid) -> Result<T, AuditError> + Send + 'static,
    ) -> Result<T, AuditError> {
        let turn = Arc::clone(&self.inner.turns).acquire_owned().await.map_err(|_| AuditError::Closed)?;
        let inner = Arc::clone(&self.inner);
        // The query keeps its turn, so that there are never more connections than turns. If nobody waits for it any
        // more it does not begin, or ends with its page; either gives the turn back.
        let task = AbortOnDropHandle::new(tokio::task::spawn_blocking(move || {
            let _turn = turn;
            inner.run(query)
        }));
        match task.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => Err(AuditError::QueryPanicked),
            // The runtime shuts down.
            Err(_) => Err(AuditError::Closed),
        }
    }
}

#[cfg(test)]
impl Reader {
    /// Checks that all turns and all connections come back, and that there are no more of these than turns.
    pub(super) async fn assert_idle(&self) {
        let all = u32::try_from(PARALLEL).unwrap();
        let turns = self.inner.turns.acquire_many(all).await.unwrap();
        assert!(self.inner.idle.lock().unwrap().len() <= PARALLEL);
        drop(turns);
    }

    pub(super) async fn panicking(&self) -> Result<(), AuditError> {
        self.with(|_, _| panic!("as a query may")).await
    }
}

impl Inner {
    fn run<T>(
        &self,
        query: impl FnOnce(&Connection, Uuid) -> Result<T, AuditError>,
    ) -> Result<T, AuditError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.path)?,
        };
        let transaction = connection.unchecked_transaction()?;
        let result = query(&transaction, self.log_id);
        let ended = transaction.rollback();
        // A connection that failed is not used again, in case it is the reason.
        let healthy = ended.is_ok() && !matches!(result, Err(AuditError::Database { .. }));
        if healthy && !self.turns.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        result
    }
}

impl From<rusqlite::Error> for AuditError {
    fn from(source: rusqlite::Error) -> Self {
        Self::Database { action: "read the audit log", source }
    }
}

/// Opens a store for reading only. A store in a folder that cannot be written, and that no
/// process has open, can be read too.
pub(super) fn connect(path: &Path) -> Result<Connection, AuditError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = |location: &Path, flags| -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(location, flags)?;
        connection.busy_timeout(Duration::from_secs(2))?;
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
                && !super::ledger::wal_path(path).exists() =>
        {
            // Nothing is left in a write-ahead file, and none can be made here.
            let location = format!("file:{}?immutable=1", escaped(path));
            Ok(open(Path::new(&location), flags | OpenFlags::SQLITE_OPEN_URI)?)
        }
        Err(error) => Err(error.into()),
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

/// What is known before the oldest record, and the newest; both are the same if there is none.
fn read_ends(connection: &Connection) -> rusqlite::Result<(Tip, Tip)> {
    let base = read_base(connection)?;
    Ok((base, read_newest(connection)?.unwrap_or(base)))
}

/// The place of a record; `None` if it is not there.
fn tip_at(connection: &Connection, base: Tip, sequence: u64) -> rusqlite::Result<Option<Tip>> {
    if sequence == base.head.sequence {
        return Ok(Some(base));
    }
    connection
        .prepare_cached("SELECT sequence, hash, latest_time FROM record WHERE sequence = ?1")?
        .query_row([signed(sequence)], read_tip)
        .optional()
}

/// What an error of SQLite means for a record: damage is a finding about it.
fn unreadable(sequence: u64) -> impl FnOnce(rusqlite::Error) -> AuditError {
    move |error| match AuditError::from(error) {
        error if error.is_damage() => lost(sequence, Problem::Unreadable(error.to_string())),
        other => other,
    }
}

const fn lost(sequence: u64, problem: Problem) -> AuditError {
    AuditError::DataLoss { sequence, problem }
}
