//! Streams: records from a start on, with checkpoints between them.
//!
//! A stream reads pages when it is asked for the next item, so a reader that stalls costs one
//! page of memory and no more, and finds in the store whatever retention kept.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, Stream};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::AuditError;
use super::read::{Filter, LogReader};
use super::record::{Head, Record};
use super::retention::Clock;
use super::shared::Shared;

/// How many records a stream holds at most.
const PAGE_RECORDS: usize = 256;
/// The least time between two reads at the end of the log. Under load it lets several commits
/// share one read; after a pause the first record is read at once.
const READ_PAUSE: Duration = Duration::from_millis(5);

/// What a stream is to send.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Query {
    /// Where it starts.
    pub start: Start,
    /// The log that the reader means; required with [`Start::After`], otherwise checked if it is
    /// not empty.
    pub log_id: String,
    /// Which events it sends.
    pub filter: Filter,
    /// Whether it waits for more at the end. Otherwise it ends with what was recorded when it was opened: it waits until that is
    /// durable, for a second at most and not while the store cannot be written.
    pub follow: bool,
}

/// Where a stream starts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Start {
    /// With the oldest record that is kept.
    #[default]
    Earliest,
    /// With the next record that is written.
    Latest,
    /// After this sequence, which the reader has already.
    After(u64),
    /// With the first record that is from this time or later.
    Time(SystemTime),
}

/// What a stream sends.
#[derive(Clone, Debug, PartialEq)]
pub enum StreamItem {
    /// An event or a gap.
    Record(Box<Record>),
    /// Everything up to here was sent.
    Checkpoint(Checkpoint),
}

/// Says that every record up to a place was sent, or did not fit the filter, and is durable.
///
/// The first of a stream only says that the place is durable: nothing was sent yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Checkpoint {
    /// The id of the log.
    pub log_id: Uuid,
    /// The place: a good cursor to continue from, unless this is the first of a stream.
    pub through: Head,
    /// When the checkpoint was made.
    pub server_time: SystemTime,
}

/// A stream of records and checkpoints.
///
/// It sends a checkpoint first, for the newest durable record. One for the place that it starts from
/// comes next, if that is another place. Then it sends one each time that it has caught up with the
/// log, and one at each interval. None but the first is ever ahead of a record that was not sent.
/// After an error it ends.
pub struct AuditStream {
    source: StreamSource,
    filter: Filter,
    /// The first checkpoint, until it was sent.
    newest: Option<Head>,
    /// The checkpoint of the start is still to be sent.
    start_due: bool,
    /// Where a stream that does not follow ends.
    stop: Option<u64>,
    head: watch::Receiver<Head>,
    /// Everything up to here was sent.
    position: Head,
    /// Records that were read and not yet sent.
    page: VecDeque<Record>,
    /// Where the page ends, which is behind its last record if the filter left some out.
    through: Head,
    last_read: Option<Instant>,
    /// A checkpoint is owed when the end is reached.
    behind: bool,
    checkpoint_at: Instant,
    ended: bool,
    lag: Arc<AtomicU64>,
}

/// What a stream needs of a log.
#[derive(Clone)]
pub(super) struct StreamSource {
    pub(super) log_id: Uuid,
    pub(super) reader: LogReader,
    pub(super) shared: Arc<Shared>,
    pub(super) checkpoint_interval: Duration,
    pub(super) clock: Clock,
}

impl AuditStream {
    pub(super) async fn open(source: StreamSource, query: Query) -> Result<Self, AuditError> {
        let Query { start, log_id, filter, follow } = query;
        check_log_id(source.log_id, &log_id, start)?;
        if !follow {
            // Events that nobody waits for are gathered: what was answered before is in the log for who asks now.
            source.reader.committed().await;
        }
        // Before the ends are read, so that no record falls between.
        let head = source.shared.head.subscribe();
        let ends = source.reader.ends();
        let after = match start {
            Start::Earliest => ends.base.sequence,
            Start::Latest => ends.head.sequence,
            Start::After(sequence) => sequence,
            Start::Time(time) => source.reader.sequence_at(time).await?.saturating_sub(1),
        };
        // Checks that the place is there and tells its hash.
        let place = source.reader.page(after, None, Filter::default(), 0, after).await?.through;
        let lag = source.shared.register(place.sequence);
        Ok(Self {
            filter,
            stop: (!follow).then_some(ends.head.sequence.max(place.sequence)),
            head,
            position: place,
            page: VecDeque::new(),
            through: place,
            last_read: None,
            behind: true,
            newest: Some(ends.head),
            start_due: ends.head != place,
            checkpoint_at: Instant::now() + source.checkpoint_interval,
            ended: false,
            lag,
            source,
        })
    }

    /// The next item; `None` at the end. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<StreamItem, AuditError>> {
        if self.ended {
            return None;
        }
        let item = self.try_next().await;
        self.ended = !matches!(item, Ok(Some(_)));
        item.transpose()
    }

    /// Turns this into a stream for a server to send.
    pub fn into_stream(self) -> impl Stream<Item = Result<StreamItem, AuditError>> + Send {
        stream::unfold(self, |mut stream| async move { stream.next().await.map(|item| (item, stream)) })
    }

    /// Everything up to here was sent.
    #[must_use]
    pub const fn position(&self) -> Head {
        self.position
    }

    async fn try_next(&mut self) -> Result<Option<StreamItem>, AuditError> {
        if let Some(newest) = self.newest.take() {
            return Ok(Some(self.checkpoint(newest)));
        }
        if std::mem::take(&mut self.start_due) {
            return Ok(Some(self.checkpoint(self.position)));
        }
        loop {
            if Instant::now() >= self.checkpoint_at {
                return Ok(Some(self.checkpoint(self.position)));
            }
            if let Some(record) = self.page.pop_front() {
                let place = if self.page.is_empty() { self.through } else { record.head() };
                self.advance(place);
                return Ok(Some(StreamItem::Record(Box::new(record))));
            }
            if self.stop.is_some_and(|stop| self.position.sequence >= stop) {
                return Ok(std::mem::take(&mut self.behind).then(|| self.checkpoint(self.position)));
            }
            if self.head.borrow_and_update().sequence <= self.position.sequence {
                if std::mem::take(&mut self.behind) {
                    return Ok(Some(self.checkpoint(self.position)));
                }
                self.wait().await?;
            } else {
                self.read().await?;
            }
        }
    }

    /// Waits for a new record or for the time of a checkpoint.
    async fn wait(&mut self) -> Result<(), AuditError> {
        tokio::select! {
            changed = self.head.changed() => changed.map_err(|_| AuditError::Closed),
            () = tokio::time::sleep_until(self.checkpoint_at) => Ok(()),
            () = self.source.shared.closed.cancelled() => Err(AuditError::Closed),
        }
    }

    async fn read(&mut self) -> Result<(), AuditError> {
        if !self.behind
            && let Some(last) = self.last_read
        {
            tokio::time::sleep_until(last + READ_PAUSE).await;
        }
        let page = self
            .source
            .reader
            .page(
                self.position.sequence,
                Some(self.position.hash),
                self.filter.clone(),
                PAGE_RECORDS,
                self.stop.unwrap_or(u64::MAX),
            )
            .await?;
        self.last_read = Some(Instant::now());
        self.behind |= page.through != page.head;
        self.through = page.through;
        self.page = page.records.into();
        if self.page.is_empty() {
            self.advance(page.through);
        }
        Ok(())
    }

    fn advance(&mut self, place: Head) {
        self.position = place;
        self.lag.store(place.sequence, Ordering::Relaxed);
    }

    fn checkpoint(&mut self, through: Head) -> StreamItem {
        let StreamSource { log_id, checkpoint_interval, clock, .. } = &self.source;
        self.checkpoint_at = Instant::now() + *checkpoint_interval;
        StreamItem::Checkpoint(Checkpoint { log_id: *log_id, through, server_time: (clock.wall)() })
    }
}

impl fmt::Debug for AuditStream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("AuditStream")
            .field("position", &self.position.sequence)
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}

pub(super) fn check_log_id(log_id: Uuid, given: &str, start: Start) -> Result<(), AuditError> {
    if given.is_empty() {
        return match start {
            Start::After(_) => Err(AuditError::LogIdRequired),
            _ => Ok(()),
        };
    }
    if Uuid::parse_str(given).ok() == Some(log_id) {
        return Ok(());
    }
    Err(AuditError::ForeignLog { given: given.to_owned(), actual: log_id.to_string() })
}

#[cfg(test)]
mod tests;
