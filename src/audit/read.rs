//! Readers: pages of the log, from memory where they are recent, and otherwise from the store.
//!
//! Only the writer has the store open, so that no reader, of this process or another, can keep it
//! from writing. It reads short pages between two commits. Every record that is handed out was
//! checked against its hash and the record before it, by the task that asked.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use uuid::Uuid;

use super::chain::{ChainWalk, StoredRow};
use super::jobs::JobSender;
use super::ledger::{Ledger, LedgerError};
use super::record::{Body, Hash, Head, Record, Tip, to_nanos};
use super::shared::Shared;
use super::writer::Job;
use super::{AuditError, BadRecord, ChainProblem};
use crate::audience::normalise;
use crate::budget::{Budget, Permit};
use crate::proto::v1::{AuditEvent, AuditEventKind};

/// The most records of one page.
const PAGE_ROWS: usize = 256;
/// The most content of one page; one record may have more.
const PAGE_BYTES: usize = 512 << 10;
/// How many pages may be asked for at the same time; those of readers that gave up count until the
/// writer comes to them.
const PLACES: usize = 4096;
/// How long a reader waits for events that were queued before it came.
const COMMIT_DEADLINE: Duration = Duration::from_secs(1);

/// Which events a reader wants. Gaps are always sent.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Filter {
    kinds: Vec<AuditEventKind>,
    /// Normalised.
    audiences: Vec<String>,
    /// Only what concerns these audiences alone, normalised, or this caller.
    within: Option<(Vec<String>, String)>,
}

impl Filter {
    /// Only these kinds, and only events that name one of these audiences, as asked or as decided.
    /// Audiences are compared normalised. An empty list means all.
    #[must_use]
    pub fn new(kinds: Vec<AuditEventKind>, audiences: &[String]) -> Self {
        let audiences = audiences.iter().map(|audience| normal(audience).into_owned()).collect();
        Self { kinds, audiences, within: None }
    }

    /// Only events that name these audiences and no other, and those of the calls of `caller`.
    #[must_use]
    pub fn within(mut self, audiences: &[Box<str>], caller: &str) -> Self {
        let audiences = audiences.iter().map(|audience| normal(audience).into_owned()).collect();
        self.within = Some((audiences, caller.to_owned()));
        self
    }

    /// Whether a reader with this filter is sent the record.
    #[must_use]
    pub fn wants(&self, record: &Record) -> bool {
        match &record.body {
            Body::Event(event) => self.wants_event(event),
            Body::Gap(_) => true,
        }
    }

    /// The same for an event.
    #[must_use]
    pub fn wants_event(&self, event: &AuditEvent) -> bool {
        let wants = |audience: &String| self.audiences.iter().any(|wanted| *wanted == normal(audience));
        if let Some((own, caller)) = &self.within {
            let mut named = event.audiences.iter().chain(&event.asked_audiences).peekable();
            let is_own =
                named.peek().is_some() && named.all(|name| own.iter().any(|own| *own == normal(name)));
            let calls = event.caller.as_ref().is_some_and(|who| who.name == *caller);
            if !is_own && !calls {
                return false;
            }
        }
        (self.kinds.is_empty() || self.kinds.contains(&event.kind()))
            && (self.audiences.is_empty() || event.audiences.iter().chain(&event.asked_audiences).any(wants))
    }
}

/// What is not an audience is compared as it is.
fn normal(audience: &str) -> Cow<'_, str> {
    normalise(audience).unwrap_or(Cow::Borrowed(audience))
}

/// One page of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The records that fit the filter, in order; may be empty though more follow.
    pub records: Vec<Record>,
    /// The last record that was looked at: where the next page starts.
    pub through: Head,
    /// The end of what was durable when the page was read. The page is the last one for now if it
    /// equals `through`.
    pub head: Head,
    /// The oldest sequence that was kept then.
    pub oldest: u64,
}

/// The ends of what is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// What is known of the record before the oldest.
    pub(super) base: Head,
    pub(super) head: Head,
}

/// What a reader asks of the writer.
pub(super) struct ReadJob {
    question: ReadRequest,
    _place: Permit,
}

enum ReadRequest {
    Page {
        after: u64,
        until: u64,
        limit: usize,
        reply: Reply<RawPage>,
    },
    SequenceAt {
        time: i64,
        reply: Reply<u64>,
    },
    /// Nothing but the end of a commit that has all that was queued before this.
    Committed {
        reply: Reply<()>,
    },
}

type Reply<T> = oneshot::Sender<Result<T, AuditError>>;

/// Records as the store has them.
struct RawPage {
    /// The record before them.
    place: Tip,
    rows: Vec<StoredRow>,
}

impl ReadJob {
    /// Whether everything that was queued before it has to be written first.
    pub(super) const fn waits_for_commit(&self) -> bool {
        matches!(self.question, ReadRequest::Committed { .. })
    }

    /// Answers from the store, whose durable records end at `tip`. Does nothing if nobody waits any
    /// more.
    pub(super) fn run(self, ledger: &mut dyn Ledger, tip: Tip) {
        // Nobody listens if the reader has disconnected meanwhile.
        match self.question {
            ReadRequest::Page { reply, .. } if reply.is_closed() => {}
            ReadRequest::SequenceAt { reply, .. } if reply.is_closed() => {}
            ReadRequest::Page { after, until, limit, reply } => {
                let _ = reply.send(page(ledger, tip, after, until, limit));
            }
            ReadRequest::SequenceAt { time, reply } => {
                let _ = reply.send(sequence_at(ledger, tip, time));
            }
            ReadRequest::Committed { reply } => {
                let _ = reply.send(Ok(()));
            }
        }
    }
}

fn page(
    ledger: &mut dyn Ledger,
    tip: Tip,
    after: u64,
    until: u64,
    limit: usize,
) -> Result<RawPage, AuditError> {
    let base = ledger.base()?;
    check_range(after, base, tip)?;
    let place = match base.head.sequence == after {
        true => Some(base),
        false => ledger.tip_at(after)?,
    };
    let place = place.ok_or_else(|| lost(after, ChainProblem::Missing { next: after + 1 }))?;
    let until = until.min(tip.head.sequence);
    let rows = match limit {
        0 => Vec::new(),
        limit => ledger.page(after, until, limit.min(PAGE_ROWS), PAGE_BYTES).map_err(|error| {
            // Damage is a finding about a record.
            match AuditError::from(error) {
                error if error.is_damage() => lost(after + 1, ChainProblem::Unreadable(error.to_string())),
                other => other,
            }
        })?,
    };
    Ok(RawPage { place, rows })
}

/// The column `latest_time` never falls with the sequence, so the first record at which it reaches
/// the time is also the first that has it.
fn sequence_at(ledger: &mut dyn Ledger, tip: Tip, time: i64) -> Result<u64, AuditError> {
    let (mut low, mut high) = (ledger.base()?.head.sequence + 1, tip.head.sequence + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let found = ledger.tip_at(middle)?;
        let found = found.ok_or_else(|| lost(middle, ChainProblem::Missing { next: middle + 1 }))?;
        if found.latest_time < time {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// Reads a log from any number of tasks.
#[derive(Clone, Debug)]
pub(super) struct LogReader {
    log_id: Uuid,
    shared: Arc<Shared>,
    jobs: JobSender,
    places: Budget,
    closed: Arc<AtomicBool>,
}

impl LogReader {
    pub(super) fn new(log_id: Uuid, shared: Arc<Shared>, jobs: JobSender) -> Self {
        Self { log_id, shared, jobs, places: Budget::new(PLACES), closed: Arc::default() }
    }

    /// Begins no other read.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(super) fn ends(&self) -> Ends {
        let (base, tip) = self.shared.ends();
        Ends { base: base.head, head: tip.head }
    }

    /// Reads records after a sequence and up to another, at most `limit` that fit the filter. `hash`
    /// is that of the record at the sequence, if the caller knows it.
    pub(super) async fn page(
        &self,
        after: u64,
        hash: Option<Hash>,
        filter: Filter,
        limit: usize,
        until: u64,
    ) -> Result<Page, AuditError> {
        let (base, tip) = self.shared.ends();
        check_range(after, base, tip)?;
        let RawPage { place, rows } = self.raw_page(after, until, limit).await?;
        if hash.is_some_and(|known| known != place.head.hash) {
            return Err(lost(after, ChainProblem::UnexpectedHash));
        }
        let mut walk = ChainWalk::new(self.log_id, place);
        let mut records = Vec::new();
        let mut bytes = 0;
        for row in rows.iter().take_while(|row| row.sequence <= until) {
            if records.len() >= limit || bytes >= PAGE_BYTES {
                break;
            }
            let record = match walk.take(row) {
                Ok(record) => record,
                // What is good is delivered first; the next page begins with the bad record.
                Err(_) if walk.last() != place => break,
                Err(bad) => return Err(bad.into()),
            };
            bytes += row.content.len();
            if filter.wants(&record) {
                records.push(record);
            }
        }
        let (base, tip) = self.shared.ends();
        Ok(Page { records, through: walk.last().head, head: tip.head, oldest: base.head.sequence + 1 })
    }

    /// Records from memory where they are recent, and otherwise from the store.
    async fn raw_page(&self, after: u64, until: u64, limit: usize) -> Result<RawPage, AuditError> {
        match self.shared.recent_after(after, limit.min(PAGE_ROWS)) {
            Some((place, rows)) if !self.closed.load(Ordering::Acquire) => Ok(RawPage { place, rows }),
            _ => self.ask(|reply| ReadRequest::Page { after, until, limit, reply }).await,
        }
    }

    /// Waits until every event that was queued before is durable. Returns without that if the store cannot be written, or does not
    /// answer within [`COMMIT_DEADLINE`].
    pub(super) async fn committed(&self) {
        let committed = self.ask(|reply| ReadRequest::Committed { reply });
        // A reader gets what is durable in any case, and learns from its first page if the log is closed.
        let _ = tokio::time::timeout(COMMIT_DEADLINE, committed).await;
    }

    /// The records after a sequence, as they are stored and decoded; `hash` is that of the record at the sequence.
    pub(super) async fn rows(
        &self,
        after: u64,
        hash: Option<Hash>,
    ) -> Result<Vec<(StoredRow, Record)>, AuditError> {
        let (base, tip) = self.shared.ends();
        check_range(after, base, tip)?;
        let RawPage { place, rows } = self.raw_page(after, u64::MAX, PAGE_ROWS).await?;
        if hash.is_some_and(|known| known != place.head.hash) {
            return Err(lost(after, ChainProblem::UnexpectedHash));
        }
        let mut walk = ChainWalk::new(self.log_id, place);
        let taken =
            rows.into_iter().map(|row| Ok((walk.take(&row)?, row)).map(|(record, row)| (row, record)));
        Ok(taken.collect::<Result<_, BadRecord>>()?)
    }

    /// The first sequence whose record is from this time or later.
    pub(super) async fn sequence_at(&self, time: SystemTime) -> Result<u64, AuditError> {
        let time = to_nanos(time);
        self.ask(|reply| ReadRequest::SequenceAt { time, reply }).await
    }

    /// How many reads were asked for and are not over.
    #[cfg(test)]
    pub(super) fn pending(&self) -> usize {
        self.places.used()
    }

    async fn ask<T>(&self, question: impl FnOnce(Reply<T>) -> ReadRequest) -> Result<T, AuditError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(AuditError::Closed);
        }
        let place = self.places.take(1).map_err(AuditError::TooManyReads)?;
        let (reply, answer) = oneshot::channel();
        let job = ReadJob { question: question(reply), _place: place };
        self.jobs.send(Job::Read(job)).map_err(|_| AuditError::Closed)?;
        // The writer drops the sender only when it ends.
        answer.await.unwrap_or(Err(AuditError::Closed))
    }
}

fn check_range(after: u64, base: Tip, tip: Tip) -> Result<(), AuditError> {
    let (oldest, newest) = (base.head.sequence + 1, tip.head.sequence);
    if after < base.head.sequence || after > newest {
        return Err(AuditError::OutOfRange { requested: after, oldest, newest });
    }
    Ok(())
}

const fn lost(sequence: u64, problem: ChainProblem) -> AuditError {
    AuditError::DataLoss { sequence, problem }
}

impl From<LedgerError> for AuditError {
    fn from(error: LedgerError) -> Self {
        match error {
            damage @ LedgerError::Corrupt { .. } => Self::Damaged { what: damage.to_string() },
            other => Self::Unreadable { cause: other.to_string() },
        }
    }
}

impl From<rusqlite::Error> for AuditError {
    fn from(source: rusqlite::Error) -> Self {
        Self::Database { action: "read the audit log", source }
    }
}
