//! The handle of an audit log: open, append, read, look at, close.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::AuditError;
use super::encoding::EncodedEvent;
use super::jobs::{JobSender, jobs};
use super::ledger::Ledger;
use super::queue::{EventQueue, NotQueued};
use super::rate::RateLimit;
use super::read::{Filter, LogReader, Page};
use super::record::{GapReason, Head, PLACE_BYTES, from_nanos};
use super::reply::{AppendReply, Recorded};
use super::retention::{Clock, Retention};
use super::shared::{AuditHealth, AuditStatus, Shared};
use super::start::{StartReport, Started, start};
use super::stream::{AuditStream, Query, StreamSource};
use super::volume::{Volume, VolumeProbe};
use super::writer::{CommitObserver, Job, Writer, WriterSettings};
use crate::budget::Permit;
use crate::proto::v1::AuditEventKind;

/// The least size limit of a store.
pub const LEAST_STORE_BYTES: u64 = Retention::LEAST_BYTES;

/// The most bytes that a record may have, with its place in the chain reckoned at its longest.
pub const MAX_RECORD_BYTES: usize = 1 << 20;

/// How a log is opened. [`AuditOptions::new`] has the defaults.
#[derive(Clone)]
pub struct AuditOptions {
    /// The folder of the store; made if it is not there.
    pub state_dir: PathBuf,
    /// Whether a store that is broken is moved aside and a new log opened; otherwise it stops the
    /// start.
    pub set_aside_broken: bool,
    /// Records older than this are deleted; `None` keeps them.
    pub max_age: Option<Duration>,
    /// The store stays under this many bytes by deleting the oldest records; `None`: no limit. At
    /// least [`LEAST_STORE_BYTES`].
    pub max_bytes: Option<u64>,
    /// How many bytes of events may wait to be written: half for those that somebody waits for,
    /// half for those that nobody does. A smaller event counts as 1 KiB.
    pub queue_bytes: usize,
    /// The least time between two writes of events that nobody waits for: those that come meanwhile are gathered. An event that
    /// somebody waits for is written at once, with what was gathered before it.
    pub gather_interval: Duration,
    /// How long an event may wait before the log counts as stalled.
    pub stall_after: Duration,
    /// How often a stream sends a checkpoint.
    pub checkpoint_interval: Duration,
    /// How many denials are recorded in a second, in a burst ten times that; more are counted by
    /// gaps, at most one a second. `None` records all.
    pub denials_per_second: Option<u32>,
    /// The clocks that retention, rates and checkpoints go by.
    pub clock: Clock,
    /// Looks at the volume of the store.
    pub volume: VolumeProbe,
    /// Told about each transaction.
    pub commit_observer: Option<CommitObserver>,
}

impl AuditOptions {
    /// No limits, 16 MiB that may wait, for at most 5 s, gathered for 20 ms, a checkpoint every 15 s, the clock of the
    /// system.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            set_aside_broken: false,
            max_age: None,
            max_bytes: None,
            queue_bytes: 16 << 20,
            gather_interval: Duration::from_millis(20),
            stall_after: Duration::from_secs(5),
            checkpoint_interval: Duration::from_secs(15),
            denials_per_second: None,
            clock: Clock::default(),
            volume: Arc::new(Volume::of),
            commit_observer: None,
        }
    }
}

impl fmt::Debug for AuditOptions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("AuditOptions")
            .field("state_dir", &self.state_dir)
            .field("set_aside_broken", &self.set_aside_broken)
            .field("max_age", &self.max_age)
            .field("max_bytes", &self.max_bytes)
            .field("queue_bytes", &self.queue_bytes)
            .field("gather_interval", &self.gather_interval)
            .field("stall_after", &self.stall_after)
            .field("checkpoint_interval", &self.checkpoint_interval)
            .field("denials_per_second", &self.denials_per_second)
            .finish_non_exhaustive()
    }
}

/// An open audit log. Clones are handles of the same log.
///
/// One thread writes; it ends when [`AuditLog::close`] was called or the last handle is gone, and
/// gives the state directory free only then.
#[derive(Clone, Debug)]
pub struct AuditLog {
    inner: Arc<LogParts>,
}

#[derive(Debug)]
struct LogParts {
    log_id: Uuid,
    report: StartReport,
    max_bytes: Option<u64>,
    checkpoint_interval: Duration,
    stall_after: Duration,
    clock: Clock,
    denial_rate: Option<RateLimit>,
    jobs: JobSender,
    closing: AtomicBool,
    shared: Arc<Shared>,
    reader: LogReader,
}

impl AuditLog {
    /// Opens the log of a state directory, or makes one. Blocks while it reads the store.
    ///
    /// # Errors
    ///
    /// Another process has the directory ([`AuditError::InUse`]), the file is not ours or newer
    /// than this program, the store is broken ([`AuditError::Broken`]), or the files cannot be read and written.
    pub fn open(options: AuditOptions) -> Result<Self, AuditError> {
        Self::open_with(options, |ledger| Box::new(ledger))
    }

    /// Opens the log with something between the writer and the store.
    pub(super) fn open_with(
        options: AuditOptions,
        wrap: impl FnOnce(super::segments::SegmentLedger) -> Box<dyn Ledger>,
    ) -> Result<Self, AuditError> {
        let AuditOptions {
            state_dir,
            set_aside_broken,
            max_age,
            max_bytes,
            queue_bytes,
            gather_interval,
            stall_after,
            checkpoint_interval,
            denials_per_second,
            clock,
            volume,
            commit_observer,
        } = options;
        Retention::check(max_bytes)?;
        let Started { ledger, state_dir: locked, high_water, tip, base, accounted, unwritten, report } =
            start(&state_dir, set_aside_broken, Retention::segment_bytes(max_bytes), (clock.wall)())?;
        let newest = (tip.latest_time > i64::MIN).then(|| from_nanos(tip.latest_time));
        let retention = Retention::new(max_age, max_bytes, clock.clone(), newest);
        let denial_rate = denials_per_second.map(|rate| RateLimit::new(rate, (clock.monotonic)()));
        let log_id = ledger.log_id();
        let queue = Arc::new(EventQueue::new(queue_bytes));
        let shared = Arc::new(Shared::new(high_water, Arc::clone(&queue), base, tip));
        shared.figures.lost(report.unwritten + report.lost + report.damaged);
        shared.losses.put_back(unwritten.into_iter().collect());

        let (jobs, receiver) = jobs(queue);
        let reader = LogReader::new(log_id, Arc::clone(&shared), jobs.clone());
        let settings = WriterSettings {
            log_id,
            retention,
            gather_interval,
            observer: commit_observer,
            volume,
            state_dir: state_dir.clone(),
        };
        let writer =
            Writer::new(wrap(ledger), Arc::clone(&shared), receiver, settings, tip, accounted, locked);
        std::thread::Builder::new()
            .name("audit-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(AuditError::io("start the writer of", &state_dir))?;
        Ok(Self {
            inner: Arc::new(LogParts {
                log_id,
                report,
                max_bytes,
                checkpoint_interval,
                stall_after,
                clock,
                denial_rate,
                jobs,
                closing: AtomicBool::new(false),
                shared,
                reader,
            }),
        })
    }

    /// The id of the log, born with the store.
    #[must_use]
    pub fn log_id(&self) -> Uuid {
        self.inner.log_id
    }

    /// What the start found.
    #[must_use]
    pub fn start_report(&self) -> StartReport {
        self.inner.report
    }

    /// Takes room in the queue for an event of about so many bytes, before it is known that there
    /// is one. Dropping the permit gives the room back.
    ///
    /// # Errors
    ///
    /// [`AuditError::QueueFull`], at once; it is counted.
    pub fn reserve(&self, bytes: usize) -> Result<Permit, AuditError> {
        Ok(self.inner.shared.queue.reserve(bytes)?)
    }

    /// Puts an event into the queue, in the room that was reserved for it. `reply` is told once it is durable, or cannot be made so:
    /// [`AuditError::NotDurable`] if the store cannot be written, [`AuditError::TooLarge`], [`AuditError::Closed`], or
    /// [`AuditError::QueueFull`] if the event is larger than its room and there is no more.
    ///
    /// Nothing takes an event back. One whose append failed is normally not in the log; it is there at most once.
    pub fn append<'e>(&self, event: impl Into<Cow<'e, EncodedEvent>>, mut room: Permit, reply: AppendReply) {
        let event = event.into();
        let bytes = PLACE_BYTES + event.fields().len();
        if bytes > MAX_RECORD_BYTES {
            return reply.send(Err(AuditError::TooLarge { bytes, limit: MAX_RECORD_BYTES }));
        }
        if let Err(error) = self.inner.shared.queue.fit(&mut room, bytes) {
            return reply.send(Err(error.into()));
        }
        // The reply of an event that nobody takes any more says that the log is closed.
        if !self.inner.closing.load(Ordering::Acquire) {
            let _ = self.inner.jobs.append(&event, reply, room);
        }
    }

    /// Records an event and returns when it is durable: [`AuditLog::reserve`] and
    /// [`AuditLog::append`] in one.
    ///
    /// # Errors
    ///
    /// As those.
    pub async fn append_durable<'e>(
        &self,
        event: impl Into<Cow<'e, EncodedEvent>>,
    ) -> Result<Recorded, AuditError> {
        let room = self.reserve(0)?;
        let (reply, appending) = AppendReply::future();
        self.append(event, room, reply);
        appending.await
    }

    /// Records an event without waiting. What cannot be queued, and denials beyond their rate, are
    /// counted by gap records. Takes no lock that is held during anything but a copy in memory, and does not touch the disk.
    pub fn enqueue<'e>(&self, event: impl Into<Cow<'e, EncodedEvent>>) {
        let event = event.into();
        let inner = &self.inner;
        if inner.closing.load(Ordering::Acquire) {
            inner.shared.figures.lost(1);
            return tracing::warn!("an audit event came after the log was closed");
        }
        inner.shared.high_water.count_queued();
        if event.kind() == AuditEventKind::Denial
            && let Some(rate) = &inner.denial_rate
            && !rate.take((inner.clock.monotonic)())
        {
            inner.shared.figures.lost(1);
            return inner.shared.losses.add_denial(event.reason(), event.time());
        }
        let bytes = PLACE_BYTES + event.fields().len();
        if bytes > MAX_RECORD_BYTES {
            return self.lose(GapReason::TooLarge, event.time());
        }
        match inner.jobs.enqueue(&event) {
            // If the writer has ended, the high-water file has counted the event, and the next start says so.
            Ok(()) | Err(NotQueued::Closed) => {}
            Err(NotQueued::Full(_)) if inner.shared.is_degraded() => {
                self.lose(GapReason::WriteFailed, event.time());
            }
            Err(NotQueued::Full(_)) => self.lose(GapReason::QueueFull, event.time()),
        }
    }

    /// One page of the records after a sequence that fit the filter, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`AuditError::OutOfRange`] if records after `sequence` are gone already or `sequence` was
    /// never reached; [`AuditError::DataLoss`] if the chain does not hold; an error of the store.
    pub async fn read_after(&self, sequence: u64, filter: &Filter, limit: usize) -> Result<Page, AuditError> {
        self.inner.reader.page(sequence, None, filter.clone(), limit, u64::MAX).await
    }

    /// The first sequence whose event is from this time or later; the next sequence to be written
    /// if there is none.
    ///
    /// # Errors
    ///
    /// An error of the store.
    pub async fn sequence_at(&self, time: SystemTime) -> Result<u64, AuditError> {
        self.inner.reader.sequence_at(time).await
    }

    /// Streams records from a start on.
    ///
    /// # Errors
    ///
    /// [`AuditError::OutOfRange`], [`AuditError::ForeignLog`], [`AuditError::LogIdRequired`] if
    /// the start is not one of this log; an error of the store.
    pub async fn stream(&self, query: Query) -> Result<AuditStream, AuditError> {
        let inner = &self.inner;
        let source = StreamSource {
            log_id: inner.log_id,
            reader: inner.reader.clone(),
            shared: Arc::clone(&inner.shared),
            checkpoint_interval: inner.checkpoint_interval,
            clock: inner.clock.clone(),
        };
        AuditStream::open(source, query).await
    }

    /// The end of what is durable.
    #[must_use]
    pub fn head(&self) -> Head {
        *self.inner.shared.head.borrow()
    }

    /// Follows the end of what is durable.
    #[must_use]
    pub fn watch_head(&self) -> watch::Receiver<Head> {
        self.inner.shared.head.subscribe()
    }

    /// Follows whether the log can do its work.
    #[must_use]
    pub fn watch_health(&self) -> watch::Receiver<AuditHealth> {
        self.inner.shared.health.subscribe()
    }

    /// A snapshot for metrics and status.
    #[must_use]
    pub fn status(&self) -> AuditStatus {
        self.inner.shared.status(self.inner.log_id, self.inner.max_bytes)
    }

    /// Watches whether events wait too long, and shows it in the health. Never returns.
    pub async fn watch_stalls(&self) {
        loop {
            self.inner.shared.look_for_stall(self.inner.stall_after, self.now());
            tokio::time::sleep(self.inner.stall_after / 10).await;
        }
    }

    /// Returns when the writer has ended, after [`AuditLog::close`] or because it failed.
    pub async fn ended(&self) {
        self.inner.shared.closed.cancelled().await;
    }

    /// Writes what is queued, ends the writer and gives the state directory free. Streams end.
    /// Closing twice does nothing.
    ///
    /// # Errors
    ///
    /// [`AuditError::NotDurable`] if queued events could not be written. The next start then
    /// counts them in a gap record.
    pub async fn close(&self) -> Result<(), AuditError> {
        let inner = &self.inner;
        inner.reader.close();
        if inner.closing.swap(true, Ordering::AcqRel) {
            self.ended().await;
            return Ok(());
        }
        let (reply, done) = oneshot::channel();
        if inner.jobs.send(Job::Close(reply)).is_err() {
            return Ok(());
        }
        done.await.unwrap_or(Ok(()))
    }

    /// Closes the log as [`AuditLog::close`] does, but leaves its writer behind if that takes
    /// longer than until `deadline`: a thread that the disk does not let go cannot be ended.
    ///
    /// # Errors
    ///
    /// As [`AuditLog::close`], and [`AuditError::Abandoned`] at the deadline.
    pub async fn close_by(&self, deadline: Instant) -> Result<(), AuditError> {
        match tokio::time::timeout_at(deadline, self.close()).await {
            Ok(result) => result,
            Err(_) => {
                let shared = &self.inner.shared;
                Err(AuditError::Abandoned { records: shared.queue.waiting() + shared.losses.count() })
            }
        }
    }

    pub(super) fn reader(&self) -> &LogReader {
        &self.inner.reader
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    pub(super) fn now(&self) -> SystemTime {
        (self.inner.clock.wall)()
    }

    fn lose(&self, reason: GapReason, time: i64) {
        let shared = &self.inner.shared;
        shared.figures.lost(1);
        if shared.losses.add(reason, time) {
            // The first loss after the writer last looked; it may be asleep.
            let _ = self.inner.jobs.send(Job::Wake);
        }
    }
}
