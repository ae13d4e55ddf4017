//! The state directory: for its owner alone, for one process at a time, and never made again while
//! it is in use.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tracing::warn;

use super::AuditError;
use super::files::FileIdentity;
use super::ledger::LedgerError;

/// The file whose lock one process holds.
const LOCK_FILE: &str = "lock";
/// How often a lock is tried whose file was exchanged while it was taken.
const TRIES: usize = 10;

/// A directory that this process has locked.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    directory: FileIdentity,
    lock_path: PathBuf,
    lock: File,
    lock_file: FileIdentity,
}

impl StateDir {
    /// Takes the lock of a directory, which is made with mode 0700 if it is not there.
    pub(super) fn lock(path: &Path) -> Result<Self, AuditError> {
        let failed = |action| AuditError::io(action, path);
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create"))?;
        let lock_path = path.join(LOCK_FILE);
        for _ in 0..TRIES {
            let directory = FileIdentity::of(&std::fs::metadata(path).map_err(failed("read"))?);
            let lock = open_lock(&lock_path).map_err(AuditError::io("open", &lock_path))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(AuditError::InUse { path: path.to_owned() }),
                Err(TryLockError::Error(source)) => {
                    return Err(AuditError::Io { action: "lock", path: lock_path, source });
                }
            }
            let locked = lock.metadata().map_err(AuditError::io("read", &lock_path))?;
            let lock_file = FileIdentity::of(&locked);
            // Whoever removes the file lets another process lock a new one: the lock counts only
            // while the file has the name.
            if is(&lock_path, lock_file) && is(path, directory) {
                return Ok(Self { path: path.to_owned(), directory, lock_path, lock, lock_file });
            }
        }
        Err(AuditError::InUse { path: path.to_owned() })
    }

    /// The directory and its lock are the ones that were taken.
    pub(super) fn check(&self) -> Result<(), LedgerError> {
        for (path, known) in [(&self.path, self.directory), (&self.lock_path, self.lock_file)] {
            if !is(path, known) {
                return Err(LedgerError::StateDirectory(path.clone()));
            }
        }
        Ok(())
    }
}

impl Drop for StateDir {
    /// Gives the lock back.
    fn drop(&mut self) {
        // Not by closing the file: a process that is being started has a copy of it for a moment.
        if let Err(error) = self.lock.unlock() {
            warn!(%error, "the lock of the state directory could not be given back");
        }
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn is(path: &Path, known: FileIdentity) -> bool {
    std::fs::metadata(path).is_ok_and(|data| FileIdentity::of(&data) == known)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_directory_is_made_for_its_owner_alone_and_locked_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let first = StateDir::lock(&path).unwrap();
        for made in [folder.path().join("a"), path.clone()] {
            assert_eq!(std::fs::metadata(made).unwrap().permissions().mode() & 0o777, 0o700);
        }
        let error = StateDir::lock(&path).unwrap_err();
        assert!(matches!(&error, AuditError::InUse { path: used } if *used == path), "{error}");
        drop(first);
        StateDir::lock(&path).unwrap();
    }

    #[test]
    fn a_directory_or_a_lock_that_was_exchanged_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let held = StateDir::lock(&path).unwrap();
        held.check().unwrap();
        std::fs::rename(path.join(LOCK_FILE), path.join("away")).unwrap();
        held.check().unwrap_err();
        // Another process may take a new file, so this one must not go on.
        StateDir::lock(&path).unwrap();
        held.check().unwrap_err();
        std::fs::rename(path.join("away"), path.join(LOCK_FILE)).unwrap();
        held.check().unwrap();
        std::fs::rename(&path, folder.path().join("away")).unwrap();
        let error = held.check().unwrap_err();
        assert!(matches!(&error, LedgerError::StateDirectory(missing) if *missing == path), "{error}");
        assert!(!path.exists(), "it is not made again");
    }
}
