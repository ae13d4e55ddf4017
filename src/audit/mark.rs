//! The mark: a small file that remembers two numbers across the end of a process.
//!
//! It holds the last acknowledged sequence and the count of events that were ever given to the
//! queue. The store itself cannot know either after a crash: what was torn off is gone, and what
//! waited in memory never reached it. The file is written but not synced, so it survives the end
//! of a process at any moment; after a power loss it may be older than the store, which only means
//! that less can be counted. Nothing depends on it for what is durable.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use uuid::Uuid;

use super::chain::sha256;

/// The file name inside the state directory.
pub(super) const MARK_FILE: &str = "audit.mark";

/// Where the last acknowledged sequence is.
const DURABLE_AT: u64 = 0;
/// Where the count of queued events is: in another sector, since another thread writes it.
const QUEUED_AT: u64 = 512;
/// Log id, number, and the first bytes of the hash of both.
const SLOT_BYTES: usize = 16 + 8 + 8;

/// What an earlier process left behind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Remembered {
    /// The last sequence that was acknowledged, if it is known.
    pub(super) durable: Option<u64>,
    /// How many events were given to the queue, if it is known.
    pub(super) queued: Option<u64>,
    /// When the file was last written.
    pub(super) time: Option<SystemTime>,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    log_id: Uuid,
    queued: Mutex<u64>,
}

impl Mark {
    /// Opens the file, or makes it, and reads what is in it. Numbers of another log and numbers
    /// that do not have their checksum count as unknown.
    pub(super) fn open(path: &Path, log_id: Uuid) -> io::Result<(Self, Remembered)> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let remembered = Remembered {
            durable: read_slot(&file, DURABLE_AT, log_id)?,
            queued: read_slot(&file, QUEUED_AT, log_id)?,
            time: file.metadata()?.modified().ok(),
        };
        Ok((Self { file, log_id, queued: Mutex::new(0) }, remembered))
    }

    /// Sets both numbers, at the start of a process.
    pub(super) fn reset(&self, durable: u64, queued: u64) -> io::Result<()> {
        *self.queued.lock().unwrap_or_else(PoisonError::into_inner) = queued;
        self.write_slot(QUEUED_AT, queued)?;
        self.write_slot(DURABLE_AT, durable)
    }

    /// Remembers that everything up to this sequence may have been acknowledged.
    pub(super) fn acknowledge(&self, sequence: u64) -> io::Result<()> {
        self.write_slot(DURABLE_AT, sequence)
    }

    /// Counts one more event that is given to the queue.
    pub(super) fn count_queued(&self) -> io::Result<()> {
        // Held while writing, so that the greater number is also the later one in the file.
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        *queued += 1;
        self.write_slot(QUEUED_AT, *queued)
    }

    fn write_slot(&self, at: u64, number: u64) -> io::Result<()> {
        self.file.write_all_at(&slot(self.log_id, number), at)
    }
}

fn slot(log_id: Uuid, number: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    let (content, check) = slot.split_at_mut(24);
    let (id, value) = content.split_at_mut(16);
    id.copy_from_slice(log_id.as_bytes());
    value.copy_from_slice(&number.to_be_bytes());
    let hash = sha256(content);
    for (to, from) in check.iter_mut().zip(hash) {
        *to = from;
    }
    slot
}

fn read_slot(file: &File, at: u64, log_id: Uuid) -> io::Result<Option<u64>> {
    let mut found = [0; SLOT_BYTES];
    match file.read_exact_at(&mut found, at) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let number = found.get(16..24).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
    Ok((found == slot(log_id, number)).then_some(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_remembered_for_the_same_log_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(MARK_FILE);
        let log_id = Uuid::new_v4();
        let (mark, before) = Mark::open(&path, log_id).unwrap();
        assert_eq!((before.durable, before.queued), (None, None));
        mark.reset(3, 10).unwrap();
        mark.acknowledge(7).unwrap();
        mark.count_queued().unwrap();
        drop(mark);

        let (_, same) = Mark::open(&path, log_id).unwrap();
        assert_eq!((same.durable, same.queued), (Some(7), Some(11)));
        let (_, other) = Mark::open(&path, Uuid::new_v4()).unwrap();
        assert_eq!((other.durable, other.queued), (None, None));
    }

    #[test]
    fn damaged_numbers_are_unknown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(MARK_FILE);
        let log_id = Uuid::new_v4();
        Mark::open(&path, log_id).unwrap().0.reset(3, 10).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in 0..SLOT_BYTES {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            std::fs::write(&path, bytes).unwrap();
            let (_, remembered) = Mark::open(&path, log_id).unwrap();
            assert_eq!(remembered.durable, None, "byte {at}");
            assert_eq!(remembered.queued, Some(10));
        }
    }
}
