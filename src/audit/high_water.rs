//! The high-water file: three numbers that survive the end of a process.
//!
//! It holds the last acknowledged sequence, the count of events that were ever given to the queue, and
//! the last sequence when the log was last closed in order. What was in the store then can only go
//! missing by damage, whatever a later process went through. The store itself cannot know either after a crash: what was torn off is gone, and what
//! waited in memory never reached it. The file is written but not synced, so it survives the end
//! of a process; after a power loss it may be older than the store, which only means that less can
//! be counted. Nothing depends on it for what is durable.
//!
//! The count is written by a thread of its own, so that a serving thread only adds to a number:
//! it never waits for a disk. What is counted within the last [`COUNT_PAUSE`] before a SIGKILL may be
//! missing in the file.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant, SystemTime};

use tracing::warn;
use uuid::Uuid;

use super::record::sha256;
use crate::throttle::Throttle;

/// The file name inside the state directory.
pub(super) const HIGH_WATER_FILE: &str = "audit.mark";

/// The least time between two writes of the count. After a pause it is written at once.
const COUNT_PAUSE: Duration = Duration::from_millis(2);
/// Where the last acknowledged sequence is.
const DURABLE_AT: u64 = 0;
/// Where the count of queued events is: in another sector, since another thread writes it.
const QUEUED_AT: u64 = 512;
/// Where the last sequence of the last orderly close is; a file of an earlier version ends before it.
const CLOSED_AT: u64 = 1024;
/// Log id, number, and the first bytes of the hash of both.
const SLOT_BYTES: usize = 16 + 8 + 8;

/// What an earlier process left behind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Remembered {
    /// The last sequence that was acknowledged, if it is known.
    pub(super) durable: Option<u64>,
    /// How many events were given to the queue, if it is known.
    pub(super) queued: Option<u64>,
    /// The last sequence when the log was last closed in order, if it is known.
    pub(super) closed: Option<u64>,
    /// When the file was last written.
    pub(super) time: Option<SystemTime>,
    /// Why the numbers are not known although there are some.
    pub(super) problem: Option<MarkProblem>,
}

/// What is wrong with a high-water file.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum MarkProblem {
    #[error("its content does not have its checksum")]
    Damaged,
    #[error("it belongs to log `{0}`")]
    OtherLog(Uuid),
}

impl Remembered {
    /// Reads what is in a file. Numbers of another log and numbers that do not have their checksum
    /// count as unknown.
    pub(super) fn read(file: &File, log_id: Uuid) -> io::Result<Self> {
        let mut problem = None;
        let mut number = |at| -> io::Result<Option<u64>> {
            Ok(match read_slot(file, at)? {
                MarkNumber::Empty => None,
                MarkNumber::Damaged => {
                    problem = Some(MarkProblem::Damaged);
                    None
                }
                MarkNumber::Known(id, number) if id == log_id => Some(number),
                MarkNumber::Known(other, _) => {
                    problem.get_or_insert(MarkProblem::OtherLog(other));
                    None
                }
            })
        };
        let (durable, queued, closed) = (number(DURABLE_AT)?, number(QUEUED_AT)?, number(CLOSED_AT)?);
        Ok(Self { durable, queued, closed, time: file.metadata()?.modified().ok(), problem })
    }

    /// Reads the file at a path; nothing is known if there is none.
    pub(super) fn read_path(path: &Path, log_id: Uuid) -> io::Result<Self> {
        match File::open(path) {
            Ok(file) => Self::read(&file, log_id),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }
}

/// Reads the log id and the last acknowledged sequence from the file of a state directory, whatever
/// log it belongs to; `None` if there is none, or they do not have their checksum.
pub(super) fn read_last(path: &Path) -> Option<(Uuid, u64)> {
    match read_slot(&File::open(path).ok()?, DURABLE_AT).ok()? {
        MarkNumber::Known(log_id, durable) => Some((log_id, durable)),
        MarkNumber::Empty | MarkNumber::Damaged => None,
    }
}

/// The open file and the thread that writes the count.
#[derive(Debug)]
pub(super) struct HighWaterFile {
    shared: Arc<MarkState>,
    counter: Thread,
    join: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct MarkState {
    file: File,
    log_id: Uuid,
    queued: AtomicU64,
    /// The thread that writes the count sleeps until it is woken.
    sleeps: AtomicBool,
    errors: AtomicU64,
    stop: AtomicBool,
}

impl HighWaterFile {
    /// Opens the file, or makes it, and reads what is in it.
    pub(super) fn open(path: &Path, log_id: Uuid) -> io::Result<(Self, Remembered)> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let remembered = Remembered::read(&file, log_id)?;
        let shared = Arc::new(MarkState {
            file,
            log_id,
            queued: AtomicU64::new(remembered.queued.unwrap_or(0)),
            sleeps: AtomicBool::new(false),
            errors: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let worker = Arc::clone(&shared);
        let initial = shared.queued.load(Ordering::Acquire);
        let join = std::thread::Builder::new()
            .name("audit-count".to_owned())
            .spawn(move || worker.count(initial))?;
        Ok((Self { shared, counter: join.thread().clone(), join: Mutex::new(Some(join)) }, remembered))
    }

    /// Sets the first two numbers, at the start of a process.
    pub(super) fn reset(&self, durable: u64, queued: u64) -> io::Result<()> {
        self.shared.queued.store(queued, Ordering::Release);
        self.shared.write_slot(QUEUED_AT, queued)?;
        self.shared.write_slot(DURABLE_AT, durable)
    }

    /// Remembers that the log was closed in order after this sequence.
    pub(super) fn close(&self, sequence: u64) -> io::Result<()> {
        self.shared.write_slot(CLOSED_AT, sequence)
    }

    /// Remembers that everything up to this sequence may have been acknowledged.
    pub(super) fn acknowledge(&self, sequence: u64) -> io::Result<()> {
        self.shared.write_slot(DURABLE_AT, sequence)
    }

    /// Counts one more event that is given to the queue. Neither blocks nor touches the file.
    pub(super) fn count_queued(&self) {
        let MarkState { queued, sleeps, .. } = &*self.shared;
        queued.fetch_add(1, Ordering::SeqCst);
        // In one order with what the thread does before it sleeps: it sees the count, or this sees that it sleeps.
        if sleeps.load(Ordering::SeqCst) && sleeps.swap(false, Ordering::SeqCst) {
            self.counter.unpark();
        }
    }

    /// How often the count could not be written.
    pub(super) fn errors(&self) -> u64 {
        self.shared.errors.load(Ordering::Relaxed)
    }

    /// Writes the last count and ends the thread. Nothing is written after this.
    pub(super) fn finish(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.counter.unpark();
        let join = self.join.lock().unwrap_or_else(PoisonError::into_inner).take();
        if join.is_some_and(|join| join.join().is_err()) {
            warn!("the thread that counts queued audit events exited unexpectedly");
        }
    }
}

impl Drop for HighWaterFile {
    fn drop(&mut self) {
        // Without waiting: the disk may hang.
        self.shared.stop.store(true, Ordering::SeqCst);
        self.counter.unpark();
    }
}

impl MarkState {
    /// Writes the count whenever it has changed, until it is told to stop.
    fn count(&self, initial: u64) {
        let mut written = initial;
        let lines = Throttle::every_minute();
        loop {
            let stop = self.stop.load(Ordering::Acquire);
            let queued = self.queued.load(Ordering::Acquire);
            if written != queued {
                if let Err(error) = self.write_slot(QUEUED_AT, queued) {
                    self.errors.fetch_add(1, Ordering::Relaxed);
                    if let Some(count) = lines.count(Instant::now()) {
                        warn!(%error, count, "the count of queued audit events could not be written");
                    }
                }
                written = queued;
                // What comes meanwhile shares the next write. Woken early only to stop.
                std::thread::park_timeout(COUNT_PAUSE);
            } else if stop {
                return;
            } else {
                self.sleeps.store(true, Ordering::SeqCst);
                if self.queued.load(Ordering::SeqCst) == written && !self.stop.load(Ordering::SeqCst) {
                    std::thread::park();
                }
                self.sleeps.store(false, Ordering::SeqCst);
            }
        }
    }

    fn write_slot(&self, at: u64, number: u64) -> io::Result<()> {
        self.file.write_all_at(&slot(self.log_id, number), at)
    }
}

/// What is at a place of the file.
enum MarkNumber {
    /// Nothing was written there yet.
    Empty,
    Known(Uuid, u64),
    Damaged,
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

fn read_slot(file: &File, at: u64) -> io::Result<MarkNumber> {
    let mut found = [0; SLOT_BYTES];
    match file.read_exact_at(&mut found, at) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(MarkNumber::Empty),
        Err(error) => return Err(error),
    }
    let (id, rest) = found.split_at(16);
    let log_id = Uuid::from_slice(id).unwrap_or_default();
    let number = rest.get(..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
    Ok(match found {
        found if found == [0; SLOT_BYTES] => MarkNumber::Empty,
        found if found == slot(log_id, number) => MarkNumber::Known(log_id, number),
        _ => MarkNumber::Damaged,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_remembered_for_the_same_log_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(HIGH_WATER_FILE);
        let log_id = Uuid::new_v4();
        let (file, before) = HighWaterFile::open(&path, log_id).unwrap();
        assert_eq!((before.durable, before.queued), (None, None));
        file.reset(3, 10).unwrap();
        file.acknowledge(7).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..250).for_each(|_| file.count_queued()));
            }
        });
        file.finish();
        drop(file);

        let (_, same) = HighWaterFile::open(&path, log_id).unwrap();
        assert_eq!((same.durable, same.queued), (Some(7), Some(1010)));
        let (_, other) = HighWaterFile::open(&path, Uuid::new_v4()).unwrap();
        assert_eq!((other.durable, other.queued), (None, None));
    }

    #[test]
    fn the_count_is_written_without_a_further_call() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(HIGH_WATER_FILE);
        let log_id = Uuid::new_v4();
        let (file, _) = HighWaterFile::open(&path, log_id).unwrap();
        file.reset(0, 0).unwrap();
        file.count_queued();
        let reader = File::open(&path).unwrap();
        while Remembered::read(&reader, log_id).unwrap().queued != Some(1) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn damaged_numbers_are_unknown_and_a_problem() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(HIGH_WATER_FILE);
        let log_id = Uuid::new_v4();
        HighWaterFile::open(&path, log_id).unwrap().0.reset(3, 10).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in 0..SLOT_BYTES {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            std::fs::write(&path, bytes).unwrap();
            let (_, remembered) = HighWaterFile::open(&path, log_id).unwrap();
            assert_eq!(remembered.durable, None, "byte {at}");
            assert_eq!(remembered.queued, Some(10));
            assert_eq!(remembered.problem, Some(MarkProblem::Damaged));
        }
        std::fs::write(&path, whole).unwrap();
        assert_eq!(Remembered::read_path(&path, log_id).unwrap().problem, None);
        let other = Remembered::read_path(&path, Uuid::new_v4()).unwrap();
        assert_eq!((other.durable, other.problem), (None, Some(MarkProblem::OtherLog(log_id))));
    }
}
