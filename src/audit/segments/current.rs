//! The last segment, which is written: whether it is still the file that was opened, and where it ends.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::super::files::FileIdentity;
use super::super::ledger::LedgerError;
use super::Segment;
use super::format::HEADER_BYTES;
use crate::file::sync_parent;

/// A transaction that is smaller makes the file longer in steps of so many bytes.
const STEP_BYTES: u64 = 64 << 10;

/// The last segment, which is written.
#[derive(Debug)]
pub(super) struct CurrentSegment {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) identity: FileIdentity,
    pub(super) header: [u8; HEADER_BYTES],
    /// The end of its last frame.
    pub(super) bytes: u64,
    /// The end of the zeros after it.
    pub(super) length: u64,
    /// Nothing but zeros is behind its last frame. Until then it is not changed.
    pub(super) is_settled: bool,
}

impl CurrentSegment {
    pub(super) fn open(segment: &Segment) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(&segment.path)?;
        let identity = FileIdentity::of(&file.metadata()?);
        let (path, header, bytes) = (segment.path.clone(), segment.header.encode(), segment.bytes);
        Ok(Self { path, file, identity, header, bytes, length: bytes, is_settled: false })
    }

    /// It is the file that was opened, and nothing of it is missing.
    pub(super) fn check(&self) -> Result<(), LedgerError> {
        let data = std::fs::metadata(&self.path).ok().filter(|data| FileIdentity::of(data) == self.identity);
        let length = data.ok_or_else(|| LedgerError::Replaced(self.path.clone()))?.len();
        if length < self.bytes {
            return Err(self.damaged("it was cut off"));
        }
        let mut header = [0; HEADER_BYTES];
        match self.file.read_exact_at(&mut header, 0) {
            Ok(()) if header == self.header => Ok(()),
            Ok(()) => Err(self.damaged("its header was overwritten")),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.damaged("it was cut off")),
            Err(error) => Err(error.into()),
        }
    }

    /// Cuts off what is behind the last frame.
    pub(super) fn shorten(&mut self) -> io::Result<()> {
        if !self.is_settled {
            return Ok(());
        }
        self.length = self.bytes;
        // A file that somebody has cut off must not become longer by this.
        if self.file.metadata()?.len() > self.bytes { self.file.set_len(self.bytes) } else { Ok(()) }
    }

    /// Cuts off what is behind the last frame, and writes what is there from an offset on again: what was read may only be in the
    /// memory of the system, after a sync that failed.
    pub(super) fn settle(&mut self, from: u64) -> Result<(), LedgerError> {
        self.file.set_len(self.bytes)?;
        let unsure = usize::try_from(self.bytes.saturating_sub(from)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; unsure];
        self.file.read_exact_at(&mut bytes, from)?;
        self.file.write_all_at(&bytes, from)?;
        self.file.sync_all()?;
        self.is_settled = true;
        Ok(())
    }

    /// Puts the header back if somebody has overwritten it or cut it off, in the file that was opened.
    pub(super) fn restore_header(&self) -> io::Result<()> {
        let is_there =
            std::fs::metadata(&self.path).is_ok_and(|data| FileIdentity::of(&data) == self.identity);
        let mut found = [0; HEADER_BYTES];
        if is_there && (self.file.read_exact_at(&mut found, 0).is_err() || found != self.header) {
            self.file.write_all_at(&self.header, 0)?;
        }
        Ok(())
    }

    fn damaged(&self, what: &'static str) -> LedgerError {
        LedgerError::Damaged { path: self.path.clone(), what }
    }
}

/// Adds zeros to a small transaction of so many bytes, which makes the file this long. Returns how long it is with them.
pub(super) fn with_zeros(frame: &mut Vec<u8>, frame_bytes: u64, end: u64) -> u64 {
    if frame_bytes >= STEP_BYTES {
        return end;
    }
    let length = end.next_multiple_of(STEP_BYTES);
    let zeros = usize::try_from(length - end).unwrap_or(0);
    frame.resize(frame.len() + zeros, 0);
    length
}

/// Replaces a file, or makes it, as a whole: after a crash the old one is there or the new one. Only the owner may read it.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_added_extension("new");
    let file = create_file(&new, false)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    sync_parent(path)
}

/// Makes a file that only the owner may read: it has what clients asked for. What was there is gone.
pub(super) fn create_file(path: &Path, reads: bool) -> io::Result<File> {
    File::options().read(reads).write(true).create(true).truncate(true).mode(0o600).open(path)
}
