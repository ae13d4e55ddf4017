//! A store that no server has open, for tools that read it: in segments, or in the form of earlier versions.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::chain::StoredRow;
use super::database::{Database, side_files};
use super::files::DirectoryLock;
use super::high_water::{HIGH_WATER_FILE, read_last};
use super::record::Tip;
use super::segments::{SegmentStore, has_segments};
use super::{AuditError, DATABASE_FILE, STORE_DIRECTORY};

/// How many bytes of records are read at once.
const PAGE_BYTES: usize = 4 << 20;

/// A store that is open for reading.
#[derive(Debug)]
pub(super) enum OfflineStore {
    /// The segments, whose directory is locked.
    Segments { store: Box<SegmentStore>, _lock: DirectoryLock },
    /// A store of an earlier version.
    Database(Database),
}

/// The store of a state directory: `audit`, or `audit.db` where an earlier version made it and none has been started since.
#[must_use]
pub fn store_of(state_dir: &Path) -> PathBuf {
    let (directory, database) = (state_dir.join(STORE_DIRECTORY), state_dir.join(DATABASE_FILE));
    if !has_segments(&directory) && has_database(state_dir) { database } else { directory }
}

/// Whether a directory is a store itself.
#[must_use]
pub fn is_store(directory: &Path) -> bool {
    has_segments(directory)
}

/// Whether a state directory has a store of an earlier version.
pub(super) fn has_database(state_dir: &Path) -> bool {
    std::fs::metadata(state_dir.join(DATABASE_FILE)).is_ok_and(|data| data.is_file() && data.len() > 0)
}

/// The files of a store of an earlier version, the store itself last.
pub(super) fn database_files(state_dir: &Path) -> [PathBuf; 3] {
    let store = state_dir.join(DATABASE_FILE);
    let [wal, index] = side_files(&store);
    [wal, index, store]
}

impl OfflineStore {
    /// Opens a store for reading and reads its log id. Blocks.
    ///
    /// # Errors
    ///
    /// It is not there, is damaged, is not an audit log that this program understands, or a running server has
    /// it ([`AuditError::StoreInUse`]).
    pub(super) fn open(path: &Path) -> Result<Self, AuditError> {
        if !std::fs::metadata(path).map_err(AuditError::io("read", path))?.is_dir() {
            return Database::open(path).map(Self::Database);
        }
        let Some(lock) = DirectoryLock::of_reader(path)? else {
            return Err(AuditError::StoreInUse { path: path.to_owned() });
        };
        let acknowledged = read_last(&path.with_file_name(HIGH_WATER_FILE)).map(|(_, durable)| durable);
        Ok(Self::Segments { store: Box::new(SegmentStore::open(path, acknowledged)?), _lock: lock })
    }

    /// The id of the log.
    pub(super) fn log_id(&self) -> Uuid {
        match self {
            Self::Segments { store, .. } => store.log_id(),
            Self::Database(store) => store.log_id(),
        }
    }

    /// What retention left of the records before the oldest.
    pub(super) fn base(&self) -> Result<Tip, AuditError> {
        match self {
            Self::Segments { store, .. } => Ok(store.base()),
            Self::Database(store) => store.base(),
        }
    }

    /// The newest record, or the base if there is none.
    pub(super) fn newest(&self) -> Result<Tip, AuditError> {
        match self {
            Self::Segments { store, .. } => Ok(store.tip()),
            Self::Database(store) => store.newest(),
        }
    }

    /// Records after a sequence, in order, no more once they have 4 MiB. What can be read goes first; the next call begins with what cannot.
    pub(super) fn rows_after(&mut self, sequence: u64, limit: usize) -> Result<Vec<StoredRow>, AuditError> {
        match self {
            Self::Segments { store, .. } => Ok(store.read(sequence, u64::MAX, limit, PAGE_BYTES)?),
            Self::Database(store) => store.rows_after(sequence, limit),
        }
    }

    /// The place of a record; `None` if it is not there.
    pub(super) fn tip_at(&mut self, sequence: u64) -> Result<Option<Tip>, AuditError> {
        match self {
            Self::Segments { store, .. } => Ok(store.tip_at(sequence)?),
            Self::Database(store) => store.tip_at(sequence),
        }
    }

    /// The first record whose time, or that of one before it, is this or later; nanoseconds since 1970.
    pub(super) fn first_from(&mut self, time: i64) -> Result<Option<u64>, AuditError> {
        match self {
            Self::Segments { store, .. } => Ok(store.first_from(time)?),
            Self::Database(store) => store.first_from(time),
        }
    }

    /// Whether there are records that count as deleted and should be gone. Segments go as a whole, hence later.
    pub(super) fn has_records_before_base(&self) -> Result<bool, AuditError> {
        match self {
            Self::Segments { .. } => Ok(false),
            Self::Database(store) => store.has_records_before_base(),
        }
    }

    /// What was found damaged elsewhere than in a record when it was opened: the newest record is before it.
    pub(super) fn known_damage(&self) -> Option<&str> {
        match self {
            Self::Segments { store, .. } => store.damage(),
            Self::Database(_) => None,
        }
    }

    /// What is damaged elsewhere than in a record; reads everything. `None` if that is nothing.
    pub(super) fn find_damage(&self) -> Result<Option<String>, AuditError> {
        match self {
            Self::Segments { store, .. } => Ok(store.find_damage()?),
            Self::Database(store) => store.find_damage(),
        }
    }
}
