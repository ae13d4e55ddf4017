//! What can go wrong with the audit log, in words for the log and in variants for the wire.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;

use super::{BadRecord, ChainProblem};
use crate::budget::Exhausted;

/// Why an operation on the audit log failed.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The event is not durable; the answer that depends on it must not leave.
    #[error("audit event could not be made durable: {cause}")]
    NotDurable {
        /// What the store said.
        cause: String,
    },
    /// The encoded event is over the size of a record.
    #[error("audit event has {bytes} bytes, more than the {limit} that a record may have")]
    TooLarge {
        /// Bytes of the encoded event.
        bytes: usize,
        /// The most that is taken.
        limit: usize,
    },
    /// There is no room in the queue; nothing was decided or recorded.
    #[error("too many audit events wait to be written: {0}")]
    QueueFull(#[from] Exhausted),
    /// The log was not closed in time, because its disk does not answer. Its writer was left
    /// behind.
    #[error("{}; the disk does not answer", left_behind(*.records))]
    Abandoned {
        /// How many events were left in memory; 0 if only the store itself could not be closed. Those
        /// that nobody waited for are counted by the next start.
        records: u64,
    },
    /// The log was closed.
    #[error("audit log is closed")]
    Closed,
    /// The asked sequence is older than what is kept, or newer than what was ever written.
    #[error("audit cursor {requested} is outside what is kept: oldest {oldest}, newest {newest}")]
    OutOfRange {
        /// The sequence after which events were asked.
        requested: u64,
        /// The first sequence that is kept; `newest` + 1 if nothing is.
        oldest: u64,
        /// The last sequence that was written; 0 if none was.
        newest: u64,
    },
    /// The cursor belongs to another log.
    #[error("log id `{given}` is not that of this audit log, which is `{actual}`")]
    ForeignLog {
        /// What was sent.
        given: String,
        /// The id of this log.
        actual: String,
    },
    /// A sequence says nothing without the log it counts in.
    #[error("a log id is required with a sequence to start after")]
    LogIdRequired,
    /// The chain does not hold.
    #[error("audit chain is broken at record {sequence}: {problem}")]
    DataLoss {
        /// The first bad record.
        sequence: u64,
        /// What is wrong with it.
        problem: ChainProblem,
    },
    /// Another process writes in the state directory.
    #[error("state directory `{}` is in use by another process", path.display())]
    InUse {
        /// The state directory.
        path: PathBuf,
    },
    /// A running server has the store.
    #[error("`{}` is in use by a running server; use --server, or stop it first", path.display())]
    StoreInUse {
        /// The store.
        path: PathBuf,
    },
    /// A program that reads the store has it.
    #[error("`{}` is being read by another program; start again when that has ended", path.display())]
    StoreRead {
        /// The store.
        path: PathBuf,
    },
    /// More readers wait for the store than may.
    #[error("too many readers wait for the audit log: {0}")]
    TooManyReads(Exhausted),
    /// The store cannot be read at the moment.
    #[error("could not read the audit log: {cause}")]
    Unreadable {
        /// Why.
        cause: String,
    },
    /// The store is damaged, or gone though it is known to have been there.
    #[error(
        "audit store `{}` is broken: {}; {}; start once with --set-aside-broken-audit, which moves it to \
         `audit-broken-<time>` in the state directory and opens a new log that names it",
        path.display(), super::aside::problem_of(cause), last_acknowledged(*.acknowledged)
    )]
    Broken {
        /// The store.
        path: PathBuf,
        /// What is wrong with it.
        cause: Box<Self>,
        /// The last record that was acknowledged; `None` if that is not known.
        acknowledged: Option<u64>,
    },
    /// There is a high-water file, but not the store that it belongs to.
    #[error("it is missing or empty, though `{}` is there", path.display())]
    StoreMissing {
        /// The high-water file.
        path: PathBuf,
    },
    /// A file of the store is damaged elsewhere than in a record.
    #[error("{what}")]
    Damaged {
        /// What is wrong, with the file if it is not the store.
        what: String,
    },
    /// The file is something else than an audit store, or damaged so that nothing says that it is one.
    #[error(
        "`{}` is not an audit log: {detail}; move the file away, or choose another state directory",
        path.display()
    )]
    NotAnAuditLog {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        detail: String,
    },
    /// The store was written by a newer program.
    #[error(
        "`{}` is an audit log of format {found}, and this version of scopeward knows formats up to {known}; use the \
         version that wrote it or a newer one, or start once with --set-aside-broken-audit, which moves it to \
         `audit-broken-<time>` in the state directory and opens a new log that names it",
        path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// The version of the file.
        found: i64,
        /// The version that is known.
        known: i64,
    },
    /// The size limit leaves no room to work.
    #[error("audit size limit of {given} bytes is below the least, {least} bytes")]
    LimitTooSmall {
        /// What was asked for.
        given: u64,
        /// The least that works.
        least: u64,
    },
    /// A file operation failed.
    #[error("could not {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A store of an earlier version failed.
    #[error("could not {action}: {source}")]
    Database {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: rusqlite::Error,
    },
}

fn last_acknowledged(sequence: Option<u64>) -> String {
    match sequence {
        None => "which record was acknowledged last is not known".to_owned(),
        Some(0) => "no record was acknowledged".to_owned(),
        Some(sequence) => format!("record {sequence} was the last acknowledged"),
    }
}

/// Returns `true` if an error of a statement that reads says that the store is damaged. All statements are
/// constant, so one that does not fit the tables, or a value that does not fit its column, is damage too.
pub(super) fn shows_damage(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        Some(code) => matches!(
            code,
            ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::TypeMismatch
                | ErrorCode::Unknown
        ),
        None => true,
    }
}

fn left_behind(records: u64) -> String {
    match records {
        0 => "every audit record is written, and the audit log was not closed before the deadline".to_owned(),
        1 => "1 audit record was not written before the deadline".to_owned(),
        _ => format!("{records} audit records were not written before the deadline"),
    }
}

impl From<BadRecord> for AuditError {
    fn from(BadRecord { sequence, problem }: BadRecord) -> Self {
        Self::DataLoss { sequence, problem }
    }
}

impl AuditError {
    /// Returns `true` if what was read is damaged, and `false` if it could not be read at the moment.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::DataLoss { .. } | Self::Damaged { .. } | Self::StoreMissing { .. } => true,
            Self::Database { source, .. } => shows_damage(source),
            _ => false,
        }
    }

    /// Wraps a file error.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// Wraps an error of the store.
    pub(super) fn database(action: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Database { action, source }
    }
}
