//! Which file a path stands for, and who has a directory.

use std::fs::{File, Metadata, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::AuditError;

/// Tells a file from another of the same name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    pub(super) fn of(data: &Metadata) -> Self {
        Self { device: data.dev(), inode: data.ino() }
    }
}

/// The lock of a store's directory: of one who writes, or of any number of readers.
#[derive(Debug)]
pub(super) struct DirectoryLock(File);

impl DirectoryLock {
    /// Takes the lock for one who writes; `None` if others have it.
    pub(super) fn of_writer(dir: &Path) -> Result<Option<Self>, AuditError> {
        Self::take(dir, File::try_lock)
    }

    /// Takes the lock for a reader; `None` if one who writes has it.
    pub(super) fn of_reader(dir: &Path) -> Result<Option<Self>, AuditError> {
        Self::take(dir, File::try_lock_shared)
    }

    fn take(
        dir: &Path,
        lock: impl FnOnce(&File) -> Result<(), TryLockError>,
    ) -> Result<Option<Self>, AuditError> {
        let file = File::open(dir).map_err(AuditError::io("open", dir))?;
        match lock(&file) {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => {
                Err(AuditError::Io { action: "lock", path: dir.to_owned(), source })
            }
        }
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Not by closing the file: a process that is being started has a copy of it for a moment. If it fails, closing does it.
        _ = self.0.unlock();
    }
}
