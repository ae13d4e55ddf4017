//! What the writer, the callers and the readers of one log share: where the chain ends, how the
//! store is, and figures for monitoring.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::chain::{BadRecord, StoredRow};
use super::high_water::HighWaterFile;
use super::loss::Losses;
use super::queue::EventQueue;
use super::recent::Recent;
use super::record::{Head, Tip};
use super::retention::{Evicted, Space};
use super::stall::StallDetector;
use super::volume::StorageLow;

/// Whether the log can do its work.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AuditHealth {
    /// Set while the store cannot be written.
    pub degraded: Option<Degraded>,
    /// Set while events wait too long although nothing has failed: the disk does not answer.
    pub stalled: Option<Stalled>,
    /// Set while the volume of the store is nearly full.
    pub storage_low: Option<StorageLow>,
    /// The first bad record that the newest walk over the whole chain found.
    pub chain_broken: Option<BadRecord>,
}

/// Since when and why the store cannot be written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Degraded {
    /// When the first attempt failed.
    pub since: SystemTime,
    /// What kind of trouble it is.
    pub reason: DegradedReason,
    /// What the last attempt said.
    pub error: String,
}

/// Why a store cannot be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DegradedReason {
    /// Records cannot be appended.
    AppendFailed,
    /// The state directory, or the lock in it, was removed or replaced.
    StateDirectoryMissing,
    /// The thread that writes exited unexpectedly.
    WriterEnded,
}

/// Since when events wait too long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stalled {
    /// When that was noticed.
    pub since: SystemTime,
    /// How long an event may wait before this is set.
    pub limit: Duration,
}

/// A snapshot of the log for metrics and status.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuditStatus {
    /// The id of the log.
    pub log_id: Uuid,
    /// Events that were taken and are not yet written.
    pub queue_length: u64,
    /// The room that they take, reservations of questions that are being decided included.
    pub queue_bytes: u64,
    /// How often a question was refused because there was no such room.
    pub refused: u64,
    /// Records written by this process, gaps included.
    pub appended: u64,
    /// The last durable sequence; 0 if there is none.
    pub durable: u64,
    /// The oldest sequence that is kept; `durable` + 1 if nothing is.
    pub oldest: u64,
    /// Bytes of the store on disk, up to a second old.
    pub bytes: u64,
    /// The limit of these bytes, if there is one.
    pub limit: Option<u64>,
    /// Failed operations on the store since the process started.
    pub errors: u64,
    /// Events that were lost since the process started; gap records count them, or will.
    pub lost: u64,
    /// Records that retention deleted since the process started.
    pub evicted: Evicted,
    /// Whether the log can do its work.
    pub health: AuditHealth,
    /// Transactions of this process.
    pub commits: u64,
    /// The time that they took in all; each includes one sync of the disk.
    pub commit_time: Duration,
    /// How often the store was maintained: looked at for its size and age.
    pub maintained: u64,
    /// Streams that are open.
    pub readers: u64,
    /// How many records the slowest of them has before it; 0 if there is none.
    pub largest_lag: u64,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) losses: Losses,
    pub(super) high_water: HighWaterFile,
    pub(super) queue: Arc<EventQueue>,
    /// The end of what is durable.
    pub(super) head: watch::Sender<Head>,
    pub(super) health: watch::Sender<AuditHealth>,
    pub(super) figures: Figures,
    /// Cancelled when the writer has ended.
    pub(super) closed: CancellationToken,
    /// Records after this one are not deleted for their age.
    hold: AtomicU64,
    readers: Mutex<Vec<Weak<AtomicU64>>>,
    stall: Mutex<StallDetector>,
    recent: Mutex<Recent>,
}

impl Shared {
    pub(super) fn new(high_water: HighWaterFile, queue: Arc<EventQueue>, base: Tip, tip: Tip) -> Self {
        let figures = Figures::default();
        figures.oldest.store(base.head.sequence + 1, Ordering::Relaxed);
        Self {
            losses: Losses::default(),
            high_water,
            queue,
            head: watch::Sender::new(tip.head),
            health: watch::Sender::default(),
            figures,
            closed: CancellationToken::new(),
            hold: AtomicU64::new(u64::MAX),
            readers: Mutex::default(),
            stall: Mutex::default(),
            recent: Mutex::new(Recent::new(base, tip)),
        }
    }

    pub(super) fn set_degraded(&self, degraded: Option<Degraded>) {
        self.health.send_if_modified(|health| {
            let changed = health.degraded != degraded;
            health.degraded = degraded;
            changed
        });
    }

    pub(super) fn is_degraded(&self) -> bool {
        let health = self.health.borrow();
        health.degraded.is_some() || health.stalled.is_some()
    }

    /// Looks whether an event has waited for longer than `limit`. To be called a few times in that
    /// time.
    pub(super) fn look_for_stall(&self, limit: Duration, now: SystemTime) {
        let (entered, left) = self.queue.counts();
        let mut detector = self.stall.lock().unwrap_or_else(PoisonError::into_inner);
        let stalled = detector.look(Instant::now(), entered, left, limit);
        self.health.send_if_modified(|health| {
            let changed = health.stalled.is_some() != stalled;
            if changed {
                health.stalled = stalled.then_some(Stalled { since: now, limit });
            }
            changed
        });
    }

    /// What is known of the record before the oldest, and the newest durable record.
    pub(super) fn ends(&self) -> (Tip, Tip) {
        let recent = self.recent();
        (recent.base(), recent.tip())
    }

    /// The place of a record and the records after it, if they are recent.
    pub(super) fn recent_after(&self, sequence: u64, limit: usize) -> Option<(Tip, Vec<StoredRow>)> {
        self.recent().after(sequence, limit)
    }

    pub(super) fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_space(&self, space: &Space) {
        self.figures.bytes.store(space.bytes, Ordering::Relaxed);
        self.figures.oldest.store(space.base.head.sequence + 1, Ordering::Relaxed);
        self.recent().set_base(space.base);
    }

    pub(super) fn set_chain_broken(&self, bad: Option<BadRecord>) {
        self.health.send_if_modified(|health| {
            let changed = health.chain_broken != bad;
            health.chain_broken = bad;
            changed
        });
    }

    pub(super) fn set_storage_low(&self, low: Option<StorageLow>) {
        self.health.send_if_modified(|health| {
            let changed = match (health.storage_low, low) {
                (Some(known), Some(low)) => !known.is_near(low),
                (known, low) => known != low,
            };
            if changed {
                health.storage_low = low;
            }
            changed
        });
    }

    /// Records after this sequence are kept whatever their age is, as long as there is room.
    pub(super) fn hold(&self) -> u64 {
        match self.health.borrow().storage_low {
            None => self.hold.load(Ordering::Acquire),
            Some(_) => u64::MAX,
        }
    }

    /// Sets that sequence.
    pub(super) fn hold_after(&self, sequence: u64) {
        self.hold.store(sequence, Ordering::Release);
    }

    /// Registers a reader by its position, for as long as it keeps the returned value.
    pub(super) fn register(&self, position: u64) -> Arc<AtomicU64> {
        let reader = Arc::new(AtomicU64::new(position));
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|known| known.strong_count() > 0);
        readers.push(Arc::downgrade(&reader));
        reader
    }

    pub(super) fn status(&self, log_id: Uuid, limit: Option<u64>) -> AuditStatus {
        let durable = self.head.borrow().sequence;
        let positions: Vec<u64> = {
            let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
            readers.iter().filter_map(Weak::upgrade).map(|at| at.load(Ordering::Relaxed)).collect()
        };
        let slowest = positions.iter().min().copied().unwrap_or(durable);
        let figures = &self.figures;
        AuditStatus {
            log_id,
            queue_length: self.queue.waiting(),
            queue_bytes: self.queue.used() as u64,
            refused: self.queue.refused(),
            appended: figures.appended.load(Ordering::Relaxed),
            durable,
            oldest: figures.oldest.load(Ordering::Relaxed),
            bytes: figures.bytes.load(Ordering::Relaxed),
            limit,
            errors: figures.errors.load(Ordering::Relaxed) + self.high_water.errors(),
            lost: figures.lost.load(Ordering::Relaxed),
            evicted: Evicted {
                age: figures.evicted_by_age.load(Ordering::Relaxed),
                size: figures.evicted_by_size.load(Ordering::Relaxed),
            },
            health: self.health.borrow().clone(),
            commits: figures.commits.load(Ordering::Relaxed),
            commit_time: Duration::from_nanos(figures.commit_nanos.load(Ordering::Relaxed)),
            maintained: figures.maintained.load(Ordering::Relaxed),
            readers: positions.len() as u64,
            largest_lag: durable.saturating_sub(slowest),
        }
    }
}

/// Counters that anyone may read at any time.
#[derive(Debug, Default)]
pub(super) struct Figures {
    appended: AtomicU64,
    errors: AtomicU64,
    lost: AtomicU64,
    evicted_by_age: AtomicU64,
    evicted_by_size: AtomicU64,
    bytes: AtomicU64,
    oldest: AtomicU64,
    commits: AtomicU64,
    maintained: AtomicU64,
    commit_nanos: AtomicU64,
}

impl Figures {
    pub(super) fn error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn lost(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn maintained(&self) {
        self.maintained.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn evicted(&self, Evicted { age, size }: Evicted) {
        self.evicted_by_age.fetch_add(age, Ordering::Relaxed);
        self.evicted_by_size.fetch_add(size, Ordering::Relaxed);
    }

    pub(super) fn committed(&self, records: u64, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.appended.fetch_add(records, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.commit_nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}
