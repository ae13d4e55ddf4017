//! The one thread that writes: group commit, failure and recovery, retention.
//!
//! Everything that waits is written in one transaction, so that many answers share one sync. Events that nobody waits for are
//! gathered for a moment before. Hashing happens here, so that no serving thread does it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;
use tracing::{error, warn};
use uuid::Uuid;

use super::AuditError;
use super::batch::EventBatch;
use super::blocks::RowBlocks;
use super::chain::{BadRecord, StoredRow};
use super::check::{ChainCheck, WalkResult};
use super::jobs::{JobReceiver, WakeOn};
use super::ledger::{Ledger, LedgerError};
use super::loss::TakenLosses;
use super::read::ReadJob;
use super::record::{Body, EventSealer, GapReason, Head, Tip};
use super::reply::Recorded;
use super::retention::Retention;
use super::shared::{Degraded, DegradedReason, Shared};
use super::state_dir::StateDir;
use super::volume::VolumeProbe;
use crate::proto::v1::Gap;
use crate::throttle::Throttle;
use trouble::{PATIENCE, WriterTrouble};

mod trouble;

/// The most records in one transaction: about as many as are gathered before a quarter of their room is taken.
const BATCH_RECORDS: usize = 2048;
/// How long nothing may happen before the store is maintained.
const MAINTAIN_INTERVAL: Duration = Duration::from_secs(1);
/// The least time between two gaps for denials beyond their rate.
const RATE_GAP_INTERVAL: Duration = Duration::from_secs(1);
/// Is told, on the writer's thread, how long each transaction took and how many records it had.
pub type CommitObserver = Arc<dyn Fn(Duration, usize) + Send + Sync>;

/// What the writer is asked for.
pub(super) enum Job {
    /// Read from the store.
    Read(ReadJob),
    /// Look at the losses.
    Wake,
    /// Write what waits, then end.
    Close(oneshot::Sender<Result<(), AuditError>>),
}

/// The settings of a writer.
pub(super) struct WriterSettings {
    pub(super) log_id: Uuid,
    pub(super) retention: Retention,
    /// The least time between two transactions of events that nobody waits for. After a pause the first is written at once.
    pub(super) gather_interval: Duration,
    /// Told how long each transaction took and how many records it had.
    pub(super) observer: Option<CommitObserver>,
    pub(super) volume: VolumeProbe,
    pub(super) state_dir: PathBuf,
}

/// The state of the thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    jobs: JobReceiver,
    settings: WriterSettings,
    waiting: EventBatch,
    /// Empty, with memory for the events to come.
    spare: EventBatch,
    reads: VecDeque<ReadJob>,
    /// Reads that wait until so many of the first that are `waiting` have been written, in order.
    reads_after: VecDeque<(usize, ReadJob)>,
    tip: Tip,
    accounted: u64,
    trouble: Option<WriterTrouble>,
    /// A transaction failed since `tip` was last read from the store.
    unsure: bool,
    /// The store is to be opened again before the next attempt.
    reopen: bool,
    /// The bytes of content that were written since the store was last maintained.
    unmaintained: u64,
    next_maintenance: Instant,
    /// Before this, events that nobody waits for are gathered.
    gathers_until: Instant,
    /// Before this, denials beyond their rate are not made into another gap.
    next_rate_gap: Instant,
    check: ChainCheck,
    /// Damage of the store that the walk over the chain may not come by.
    store_damage: Option<BadRecord>,
    maintenance_errors: Throttle,
    evictions: Throttle,
    write_errors: Throttle,
    high_water_errors: Throttle,
    closing: bool,
    closed: Option<oneshot::Sender<Result<(), AuditError>>>,
    /// Closed after a panic when those who wait know of it: its disk may hang.
    ledger: Box<dyn Ledger>,
    /// Held until the thread ends.
    locked: StateDir,
}

impl Writer {
    pub(super) fn new(
        ledger: Box<dyn Ledger>,
        shared: Arc<Shared>,
        jobs: JobReceiver,
        settings: WriterSettings,
        tip: Tip,
        accounted: u64,
        locked: StateDir,
    ) -> Self {
        let check = ChainCheck::new(settings.log_id, Instant::now());
        Self {
            shared,
            jobs,
            settings,
            waiting: EventBatch::default(),
            spare: EventBatch::default(),
            reads: VecDeque::new(),
            reads_after: VecDeque::new(),
            tip,
            accounted,
            trouble: None,
            unsure: false,
            reopen: false,
            unmaintained: 0,
            next_maintenance: Instant::now(),
            gathers_until: Instant::now(),
            next_rate_gap: Instant::now(),
            check,
            store_damage: None,
            maintenance_errors: Throttle::every_minute(),
            evictions: Throttle::every_minute(),
            write_errors: Throttle::every_minute(),
            high_water_errors: Throttle::every_minute(),
            closing: false,
            closed: None,
            ledger,
            locked,
        }
    }

    /// Works until it is told to close, or nobody is left who could tell it.
    pub(super) fn run(mut self) {
        let _end = EndNotice(Arc::clone(&self.shared));
        loop {
            self.receive();
            if !self.closing
                && let Some(delay) = self.backoff()
            {
                if delay > PATIENCE {
                    self.refuse();
                }
                self.read();
                continue;
            }
            let written = self.write_batch();
            self.read();
            self.check_chain();
            if self.next_maintenance <= Instant::now()
                || self.unmaintained >= self.settings.retention.segment_bytes
            {
                self.maintain();
            }
            if self.closing && (!written || (self.waiting.is_empty() && self.shared.losses.count() == 0)) {
                break;
            }
        }
        self.finish();
    }

    /// Takes a step of the walk over the chain, if nothing else is to be done.
    fn check_chain(&mut self) {
        if !self.waiting.is_empty() || !self.reads.is_empty() || self.closing || self.trouble.is_some() {
            return;
        }
        match self.check.step(self.ledger.as_mut(), self.tip, Instant::now()) {
            None => {}
            Some(WalkResult::Intact) => self.shared.set_chain_broken(self.store_damage.clone()),
            Some(WalkResult::Bad(bad)) => {
                error!(sequence = bad.sequence, problem = %bad.problem, "the stored audit chain is broken");
                self.shared.set_chain_broken(Some(bad));
            }
        }
    }

    /// Notes an error that says that the store is damaged.
    fn note_damage(&mut self, error: &LedgerError) {
        if error.is_damage() && self.store_damage.is_none() {
            let found = BadRecord::store(error.to_string());
            error!(%error, "the audit store is damaged");
            self.shared.set_chain_broken(Some(found.clone()));
            self.store_damage = Some(found);
        }
    }

    /// Waits for the next thing to do and takes all jobs that are there.
    fn receive(&mut self) {
        let mut has_work = self.accept_all();
        while !has_work
            && let Some((wake_on, until)) = self.pause()
            && Instant::now() < until
        {
            let mut first = self.jobs.sleep(wake_on, until);
            let may_gather = wake_on == WakeOn::Any && Instant::now() < self.gathers_until;
            if may_gather && first.is_none() && self.shared.queue.has_event(false) {
                // Woken by an event that nobody waits for, it gathers more of them. All stay in the queue: if the first few were taken now,
                // those that come later would have to be copied behind them.
                first = self.jobs.sleep(WakeOn::Urgent, self.gathers_until);
            }
            let first = first.map(|job| self.accept(job)).is_some();
            has_work = self.accept_all() || first || (wake_on == WakeOn::Any && self.waiting.is_empty());
        }
    }

    /// Takes all events and jobs that are there. Returns `true` if one of them cannot wait.
    fn accept_all(&mut self) -> bool {
        let mut is_urgent = false;
        // The queues are bounded, hence so is this.
        loop {
            match self.jobs.try_recv() {
                Ok(job) => {
                    self.accept(job);
                    is_urgent = true;
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.closing = true;
                    is_urgent = true;
                    break;
                }
            }
        }
        self.take_events() | is_urgent
    }

    /// Takes all events that are there. Returns `true` if somebody waits for one of them.
    fn take_events(&mut self) -> bool {
        self.shared.queue.take(&mut self.waiting, &mut self.spare)
    }

    /// Until when to sleep, and what ends it earlier; `None` if there is work already.
    fn pause(&self) -> Option<(WakeOn, Instant)> {
        match &self.trouble {
            _ if !self.reads.is_empty() || self.closing => None,
            // Taken during a read; what comes later wakes the writer.
            Some(trouble) if trouble.delay > PATIENCE && self.waiting.is_awaited() => None,
            Some(trouble) => Some((WakeOn::Urgent, trouble.retry_at)),
            None if self.waiting.is_empty() => {
                Some((WakeOn::Any, self.next_maintenance.min(self.check.next())))
            }
            None if self.waiting.len() >= BATCH_RECORDS
                || self.shared.queue.is_filling()
                || !self.reads_after.is_empty()
                || self.waiting.is_awaited() =>
            {
                None
            }
            None => Some((WakeOn::Urgent, self.gathers_until)),
        }
    }

    /// Reads for those who wait: one page if anything waits to be written, else until something does.
    fn read(&mut self) {
        while let Some(job) = self.reads.pop_front() {
            job.run(self.ledger.as_mut(), self.tip);
            self.accept_all();
            if !self.waiting.is_empty() || self.closing {
                return;
            }
        }
    }

    /// Takes a job. Each of them is urgent.
    fn accept(&mut self, job: Job) {
        // The events that came before it; some of those that come after it may be among them.
        self.take_events();
        match job {
            Job::Read(job) if job.waits_for_commit() && !self.waiting.is_empty() => {
                self.reads_after.push_back((self.waiting.len(), job));
            }
            Job::Read(job) => self.reads.push_back(job),
            Job::Wake => {}
            Job::Close(closed) => {
                self.closing = true;
                self.closed = Some(closed);
            }
        }
    }

    /// Writes one batch, or probes a store that failed. False if the store failed.
    fn write_batch(&mut self) -> bool {
        if let Err(error) = self.make_sure() {
            return self.failed(&error);
        }
        let gaps = self.take_losses();
        if self.waiting.is_empty() && gaps.is_empty() {
            if self.trouble.is_some() {
                match self.ledger.probe() {
                    Ok(()) => self.recovered(),
                    Err(error) => return self.failed(&error),
                }
            }
            return true;
        }

        let count = self.batch_len();
        let started = Instant::now();
        match self.commit(count, &gaps) {
            Ok(rows) => {
                self.acknowledge(count, rows, started.elapsed());
                self.recovered();
                true
            }
            Err(error) => {
                self.shared.losses.put_back(gaps);
                self.failed(&error)
            }
        }
    }

    /// What is lost and not yet in the chain; denials beyond their rate at most once a second.
    fn take_losses(&mut self) -> Vec<Gap> {
        let now = Instant::now();
        let which =
            if self.closing || self.next_rate_gap <= now { TakenLosses::All } else { TakenLosses::Urgent };
        let losses = self.shared.losses.take(which, (self.settings.retention.clock.wall)());
        if losses.iter().any(|gap| gap.reason == GapReason::DenialRate.as_str()) {
            self.next_rate_gap = now + RATE_GAP_INTERVAL;
        }
        losses
    }

    /// How many of those that wait fit into one transaction; at least one if any waits.
    fn batch_len(&self) -> usize {
        let mut bytes = 0;
        self.waiting
            .iter()
            .take(BATCH_RECORDS)
            .take_while(|(entry, _)| {
                let fits = bytes == 0 || bytes + entry.record_bytes() <= self.settings.retention.batch_bytes;
                bytes += entry.record_bytes();
                fits
            })
            .count()
    }

    /// Writes the first records that wait and the gaps after them. Returns them as the store has them.
    fn commit(&mut self, count: usize, gaps: &[Gap]) -> Result<Vec<StoredRow>, LedgerError> {
        let log_id = self.settings.log_id;
        let mut tip = self.tip;
        let events = || self.waiting.iter().take(count);
        let bytes = events().map(|(entry, _)| entry.record_bytes()).sum();
        let mut rows = RowBlocks::new(count + gaps.len(), bytes);
        let mut accounted = self.accounted;
        let sealer = EventSealer::new(log_id);
        for (entry, fields) in events() {
            tip = rows.add(entry.record_bytes(), |contents| sealer.seal(fields, entry.time, tip, contents));
            accounted += u64::from(!entry.is_awaited);
        }
        let mut rows = rows.finish();
        for gap in gaps {
            let (next, content) = Body::Gap(gap.clone()).seal(log_id, tip);
            accounted += gap.count;
            rows.push(StoredRow::new(next, content));
            tip = next;
        }
        let bytes: usize = rows.iter().map(|row| row.content.len()).sum();
        self.ledger.begin()?;
        self.ledger.append(&rows)?;
        if accounted != self.accounted {
            self.ledger.account(accounted)?;
        }
        self.ledger.commit()?;
        self.accounted = accounted;
        self.unmaintained += bytes as u64;
        Ok(rows)
    }

    /// Tells everyone that a batch is durable.
    fn acknowledge(&mut self, count: usize, rows: Vec<StoredRow>, took: Duration) {
        self.gathers_until = Instant::now() + self.settings.gather_interval;
        self.shared.figures.committed(rows.len() as u64, took);
        if let Some(observer) = &self.settings.observer {
            observer(took, rows.len());
        }
        let heads: Vec<Head> = match self.waiting.is_awaited() {
            true => rows.iter().map(|row| row.tip().head).collect(),
            false => Vec::new(),
        };
        if let Some(last) = rows.last().map(StoredRow::tip) {
            let mut recent = self.shared.recent();
            rows.into_iter().for_each(|row| recent.push(row));
            drop(recent);
            self.advance(last);
        }
        // Each of those who wait is woken once, when all that it waits for is known to it.
        let mut woken = Vec::new();
        for (at, mut reply) in self.shared.queue.leave_first(&mut self.waiting, count) {
            if let Some(&head) = heads.get(at) {
                woken.extend(reply.settle(Ok(Recorded { head })));
            }
        }
        woken.iter().for_each(|waiter| waiter.wake());
        if !woken.is_empty() {
            // They run first where they would run on this processor: then more of what they do next shares the next transaction.
            thread::yield_now();
        }
        self.release_reads(count);
    }

    /// Lets those reads go on that waited for nothing but the first `written` of what waited.
    fn release_reads(&mut self, written: usize) {
        self.reads_after.iter_mut().for_each(|(left, _)| *left = left.saturating_sub(written));
        let ready = self.reads_after.partition_point(|(left, _)| *left == 0);
        self.reads.extend(self.reads_after.drain(..ready).map(|(_, job)| job));
    }

    /// Lets no read wait for more than there is, after events have gone that this did not write.
    fn release_reads_of_gone(&mut self) {
        let most = self.waiting.len();
        self.reads_after.iter_mut().for_each(|(left, _)| *left = most.min(*left));
        self.release_reads(0);
    }

    fn advance(&mut self, tip: Tip) {
        self.tip = tip;
        // Before anyone can know of the record, so that a later start knows that one may.
        if let Err(error) = self.shared.high_water.acknowledge(tip.head.sequence) {
            self.shared.figures.error();
            if let Some(count) = self.high_water_errors.count(Instant::now()) {
                warn!(%error, count, "audit high-water file not written");
            }
        }
        self.shared.head.send_replace(tip.head);
    }

    /// Keeps the store within its size and age.
    fn maintain(&mut self) {
        // Also after an error: otherwise every batch would try again.
        self.unmaintained = 0;
        let hold = self.shared.hold();
        let more = match self.settings.retention.maintain(self.ledger.as_mut(), hold) {
            Ok(done) => {
                self.shared.set_space(&done.space);
                self.shared.figures.evicted(done.evicted);
                if let Some(count) = self.evictions.add(done.evicted.size, Instant::now()) {
                    warn!(
                        count,
                        oldest = done.space.base.head.sequence + 1,
                        "audit records were deleted for the size of the store although they are younger than the retention"
                    );
                }
                if let Some(damage) = &done.damage {
                    self.note_damage(damage);
                }
                done.more
            }
            Err(error) => {
                self.ledger.rollback();
                self.note_damage(&error);
                self.shared.figures.error();
                if let Some(count) = self.maintenance_errors.add(1, Instant::now()) {
                    warn!(%error, count, "audit log could not be maintained");
                }
                false
            }
        };
        if let Err(error) = self.ledger.look() {
            self.note_damage(&error);
        }
        // If the volume cannot be looked at, what was known stays.
        if let Ok(volume) = (self.settings.volume)(&self.settings.state_dir) {
            self.shared.set_storage_low(volume.low());
        }
        self.shared.figures.maintained();
        self.next_maintenance = Instant::now() + if more { Duration::ZERO } else { MAINTAIN_INTERVAL };
    }

    /// Closes the store and gives the lock back.
    fn finish(self) {
        let Self { ledger, shared, jobs, mut waiting, trouble, closed, locked, tip, unsure, .. } = self;
        // What is sent from here on fails at once, and what was sent and not taken is counted by
        // the mark.
        drop(jobs);
        let unwritten = waiting.len() as u64 + shared.losses.count();
        let result = match trouble {
            Some(trouble) if unwritten > 0 => {
                warn!(unwritten, error = trouble.error, "audit log closed with events not written");
                Err(AuditError::NotDurable { cause: trouble.error })
            }
            _ => Ok(()),
        };
        shared.queue.leave_first(&mut waiting, usize::MAX);
        drop(ledger);
        // Without this the next start takes what is missing at the end for what a crash tore off.
        if !unsure && let Err(error) = shared.high_water.close(tip.head.sequence) {
            warn!(%error, "audit high-water file not written");
        }
        // The lock goes last: then the files are another's.
        shared.high_water.finish();
        drop(locked);
        if let Some(closed) = closed {
            let _ = closed.send(result);
        }
    }
}

/// Tells everyone that the writer has ended, whatever the reason.
struct EndNotice(Arc<Shared>);

impl Drop for EndNotice {
    fn drop(&mut self) {
        if thread::panicking() {
            let error = "the audit writer exited unexpectedly".to_owned();
            let reason = DegradedReason::WriterEnded;
            self.0.set_degraded(Some(Degraded { since: SystemTime::now(), reason, error }));
        }
        self.0.closed.cancel();
    }
}

#[cfg(test)]
mod tests;
