//! What the writer needs of a store.
//!
//! Knows rows and transactions, nothing of queues, events, readers or files. Tests put a ledger
//! that fails in the place of the real one.

use std::io;
use std::path::PathBuf;

use super::chain::StoredRow;
use super::record::Tip;

/// The most rows that one step of retention deletes for their age.
pub(super) const TRIM_ROWS: usize = 1000;

/// What retention may delete in one step, always from the oldest on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    /// The oldest segment with all its records, but never the last one. Records from the time or later
    /// (nanoseconds since 1970) count as young.
    Segment(i64),
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
    #[error("`{}`: {what}", path.display())]
    Corrupt { path: PathBuf, what: String },
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
    fn rows_after(&mut self, sequence: u64, limit: usize) -> Result<Vec<StoredRow>, LedgerError> {
        self.page(sequence, u64::MAX, limit, usize::MAX)
    }

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
    /// The bytes of all its files.
    fn usage(&mut self) -> Result<u64, LedgerError>;
    /// Looks at a part of the store that is not written any more, another each time: whether it is there, whole.
    fn look(&mut self) -> Result<(), LedgerError>;
    /// Deletes the oldest records, as one step of retention does. The last of them becomes the base.
    fn trim(&mut self, cut: Cut) -> Result<Trimmed, LedgerError>;
    /// Closes the store and opens it again.
    fn reopen(&mut self) -> Result<(), LedgerError>;
}

impl LedgerError {
    /// Whether the open connection must not be believed any more.
    pub(super) const fn wants_reopening(&self) -> bool {
        matches!(self, Self::Replaced(_) | Self::Damaged { .. } | Self::NotOpen)
    }

    /// Whether the store was found damaged, elsewhere than where it is written.
    pub(super) const fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }
}
