//! Streams: records from a start on, with checkpoints between them.
//!
//! A stream reads pages when it is asked for the next item, so a reader that stalls costs one
//! page of memory and no more, and finds in the store whatever retention kept.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::AuditError;
use super::log::AuditLog;
use super::read::Filter;
use super::record::{Head, Record};

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
    /// Whether it waits for more at the end. Otherwise it ends with what was durable when it was
    /// opened.
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
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Checkpoint {
    /// The id of the log.
    pub log_id: Uuid,
    /// The place: a good cursor to go on from.
    pub through: Head,
    /// When the checkpoint was made.
    pub server_time: SystemTime,
}

/// A stream of records and checkpoints.
///
/// It sends a checkpoint first, for the place that it starts from, one each time that it has
/// caught up with the log, and one at each interval. None is ever ahead of a record that was not
/// sent. After an error it ends.
pub struct AuditStream {
    log: AuditLog,
    filter: Filter,
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

impl AuditStream {
    pub(super) async fn open(log: AuditLog, query: Query) -> Result<Self, AuditError> {
        let Query { start, log_id, filter, follow } = query;
        check_log_id(&log, &log_id, start)?;
        // Before the ends are read, so that no record falls between.
        let head = log.watch_head();
        let ends = log.reader().ends().await?;
        let after = match start {
            Start::Earliest => ends.base.sequence,
            Start::Latest => ends.head.sequence,
            Start::After(sequence) => sequence,
            Start::Time(time) => log.reader().sequence_at(time).await?.saturating_sub(1),
        };
        // Checks that the place is there and tells its hash.
        let place = log.reader().page(after, None, Filter::default(), 0, after).await?.through;
        let lag = log.shared().register(place.sequence);
        Ok(Self {
            filter,
            stop: (!follow).then_some(ends.head.sequence.max(place.sequence)),
            head,
            position: place,
            page: VecDeque::new(),
            through: place,
            last_read: None,
            behind: true,
            // The first one is due at once.
            checkpoint_at: Instant::now(),
            ended: false,
            lag,
            log,
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
    #[must_use]
    pub fn into_stream(self) -> ItemStream {
        ItemStream { state: State::Idle(Box::new(self)) }
    }

    /// Everything up to here was sent.
    #[must_use]
    pub const fn position(&self) -> Head {
        self.position
    }

    async fn try_next(&mut self) -> Result<Option<StreamItem>, AuditError> {
        loop {
            if Instant::now() >= self.checkpoint_at {
                return Ok(Some(self.checkpoint()));
            }
            if let Some(record) = self.page.pop_front() {
                let place = if self.page.is_empty() { self.through } else { record.head() };
                self.advance(place);
                return Ok(Some(StreamItem::Record(Box::new(record))));
            }
            if self.stop.is_some_and(|stop| self.position.sequence >= stop) {
                return Ok(std::mem::take(&mut self.behind).then(|| self.checkpoint()));
            }
            if self.head.borrow_and_update().sequence <= self.position.sequence {
                if std::mem::take(&mut self.behind) {
                    return Ok(Some(self.checkpoint()));
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
            () = self.log.shared().closed.cancelled() => Err(AuditError::Closed),
        }
    }

    async fn read(&mut self) -> Result<(), AuditError> {
        if !self.behind
            && let Some(last) = self.last_read
        {
            tokio::time::sleep_until(last + READ_PAUSE).await;
        }
        let page = self
            .log
            .reader()
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

    fn checkpoint(&mut self) -> StreamItem {
        self.checkpoint_at = Instant::now() + self.log.checkpoint_interval();
        StreamItem::Checkpoint(Checkpoint {
            log_id: self.log.log_id(),
            through: self.position,
            server_time: self.log.now(),
        })
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

fn check_log_id(log: &AuditLog, given: &str, start: Start) -> Result<(), AuditError> {
    if given.is_empty() {
        return match start {
            Start::After(_) => Err(AuditError::LogIdRequired),
            _ => Ok(()),
        };
    }
    if Uuid::parse_str(given).ok() == Some(log.log_id()) {
        return Ok(());
    }
    Err(AuditError::ForeignLog { given: given.to_owned(), actual: log.log_id().to_string() })
}

/// The items of an [`AuditStream`] as a `Stream`.
pub struct ItemStream {
    state: State,
}

type Item = Option<Result<StreamItem, AuditError>>;

enum State {
    Idle(Box<AuditStream>),
    Waiting(Pin<Box<dyn Future<Output = (Box<AuditStream>, Item)> + Send>>),
    Ended,
}

impl tokio_stream::Stream for ItemStream {
    type Item = Result<StreamItem, AuditError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Item> {
        let mut future = match std::mem::replace(&mut self.state, State::Ended) {
            State::Ended => return Poll::Ready(None),
            State::Waiting(future) => future,
            State::Idle(mut stream) => Box::pin(async move {
                let item = stream.next().await;
                (stream, item)
            }),
        };
        match future.as_mut().poll(context) {
            Poll::Pending => {
                self.state = State::Waiting(future);
                Poll::Pending
            }
            Poll::Ready((stream, item)) => {
                if item.is_some() {
                    self.state = State::Idle(stream);
                }
                Poll::Ready(item)
            }
        }
    }
}

impl fmt::Debug for ItemStream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ItemStream")
    }
}

#[cfg(test)]
mod tests;
