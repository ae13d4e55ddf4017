//! What the writer needs of a store.
//!
//! Knows rows and transactions, nothing of queues, events, readers or SQLite. Tests put a ledger
//! that fails in the place of the real one.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;

use super::chain::StoredRow;
use super::record::Tip;

/// The size of a page of a new store. Records of some 700 bytes share fewer pages of this size than of SQLite's 4 KiB, and each page of a
/// transaction is two writes; a record that is written alone costs little more.
pub(super) const PAGE_BYTES: u16 = 16 << 10;
/// The size of a page of stores that were made before that, which keep it.
pub(super) const SMALL_PAGE_BYTES: u16 = 4096;

/// The most rows that one step of retention deletes.
pub(super) const TRIM_ROWS: u64 = 1000;

/// The space that the store takes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Usage {
    /// Pages in the main file that hold something.
    pub(super) used_bytes: u64,
    /// The main file, free pages included.
    pub(super) main_bytes: u64,
    /// The write-ahead file.
    pub(super) wal_bytes: u64,
}

/// What retention may delete in one step, always from the oldest on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    /// Records until this many bytes of content are gone, but never the newest record. Those from
    /// the time or later (nanoseconds since 1970) count as young.
    Bytes(u64, i64),
    /// Records from before the first time, by a clock that shows the second (nanoseconds since
    /// 1970), and none after this sequence.
    OlderThan(i64, i64, u64),
}

/// What one step of retention deleted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Trimmed {
    /// How many records.
    pub(super) rows: u64,
    /// How many of them were young.
    pub(super) young: u64,
}

/// Why the ledger failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum LedgerError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("`{}` was removed or replaced", .0.display())]
    Replaced(PathBuf),
    #[error(
        "`{}` was removed or replaced while the server was running: put it back, or restart the server",
        .0.display()
    )]
    StateDirectory(PathBuf),
    #[error("`{}` was damaged while it was open: {what}", path.display())]
    Damaged { path: PathBuf, what: &'static str },
    #[error("the store does not continue what was acknowledged")]
    Diverged,
    #[error("the store is not open")]
    NotOpen,
    #[cfg(test)]
    #[error("{0}")]
    Injected(&'static str),
}

/// What the writer needs of a store. All calls come from one thread.
///
/// After any error the caller calls `rollback` and reads `tip` again before it appends more: a
/// failed `commit` may or may not have happened.
pub(super) trait Ledger: Send {
    /// The newest record, or the base if there is none.
    fn tip(&mut self) -> Result<Tip, LedgerError>;
    /// What is known of the record before the oldest.
    fn base(&mut self) -> Result<Tip, LedgerError>;
    /// How many events of the queue are in records or counted by gaps.
    fn accounted(&mut self) -> Result<u64, LedgerError>;
    /// Records after a sequence, in order.
    fn rows_after(&mut self, sequence: u64, limit: u64) -> Result<Vec<StoredRow>, LedgerError>;

    /// The place of a record; `None` if it is not there.
    fn tip_at(&mut self, sequence: u64) -> Result<Option<Tip>, LedgerError>;
    /// Records after a sequence and up to another, in order: at most so many, and no more once they
    /// have so many bytes.
    fn page(
        &mut self,
        after: u64,
        until: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<StoredRow>, LedgerError>;

    /// Starts a transaction.
    fn begin(&mut self) -> Result<(), LedgerError>;
    /// Adds records, in order.
    fn append(&mut self, rows: &[StoredRow]) -> Result<(), LedgerError>;
    /// Sets what `accounted` reads.
    fn account(&mut self, accounted: u64) -> Result<(), LedgerError>;
    /// Ends the transaction; when it returns without error everything in it is durable.
    fn commit(&mut self) -> Result<(), LedgerError>;
    /// Gives the transaction up, if there is one.
    fn rollback(&mut self);

    /// Writes something durable that takes space, and removes it again.
    fn probe(&mut self) -> Result<(), LedgerError>;
    /// The space taken.
    fn usage(&mut self) -> Result<Usage, LedgerError>;
    /// Deletes the oldest records, at most 1000. The last of them becomes the base.
    fn trim(&mut self, cut: Cut) -> Result<Trimmed, LedgerError>;
    /// Gives free pages back to the file system.
    fn vacuum(&mut self, pages: u64) -> Result<(), LedgerError>;
    /// Moves the write-ahead file into the main file; the next transaction begins it again.
    fn checkpoint(&mut self) -> Result<(), LedgerError>;
    /// Closes the store and opens it again.
    fn reopen(&mut self) -> Result<(), LedgerError>;
}

impl LedgerError {
    /// Whether the open connection must not be believed any more.
    pub(super) const fn wants_reopening(&self) -> bool {
        matches!(self, Self::Replaced(_) | Self::Damaged { .. } | Self::NotOpen)
    }

    /// Whether SQLite found the store damaged.
    pub(super) fn is_damage(&self) -> bool {
        let Self::Sqlite(error) = self else { return false };
        matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
    }
}
