//! The walk along a chain: whether the next record is contiguous, unaltered, and names the record before it.
//!
//! All that read the chain walk it with a [`ChainWalk`]: the start, the writer after a failure, readers and
//! scans, `verify`, and clients that only have what a stream sent. Knows nothing of files.

use std::fmt;

use bytes::Bytes;
use uuid::Uuid;

use super::record::{Body, GENESIS_HASH, Hash, Head, Record, Tip, sha256};
use super::{format1, record};
use crate::proto::v1;
use crate::proto::v1::stream_audit_events_response::Message;

/// A record as the store keeps it: the content, its hash, and what is repeated next to them for look-ups.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct StoredRow {
    pub(super) sequence: u64,
    /// The greatest time of any record up to this one, nanoseconds since 1970.
    pub(super) latest_time: i64,
    /// Shares memory with the records that were written with it.
    pub(super) content: Bytes,
    pub(super) hash: Hash,
}

impl StoredRow {
    /// A record at its place.
    pub(super) fn new(place: Tip, content: impl Into<Bytes>) -> Self {
        let Tip { head, latest_time } = place;
        Self { sequence: head.sequence, latest_time, content: content.into(), hash: head.hash }
    }

    /// Checks what can be checked without the record before, and decodes it.
    pub(super) fn check_alone(&self, log_id: &str) -> Result<Record, ChainProblem> {
        if sha256(&self.content) != self.hash {
            return Err(ChainProblem::ContentChanged);
        }
        let record = decode(&self.content, self.hash).map_err(ChainProblem::Undecodable)?;
        if record.body.log_id() != log_id {
            return Err(ChainProblem::OtherLog { found: record.body.log_id().to_owned() });
        }
        if record.body.sequence() != self.sequence {
            return Err(ChainProblem::Reordered { found: record.body.sequence() });
        }
        Ok(record)
    }

    /// The place of this record, as the columns tell it.
    pub(super) const fn tip(&self) -> Tip {
        Tip { head: Head { sequence: self.sequence, hash: self.hash }, latest_time: self.latest_time }
    }
}

/// Reads content of either format.
///
/// # Errors
///
/// In words, if it is not exactly what this program or an older one writes.
pub(super) fn decode(content: &[u8], hash: Hash) -> Result<Record, String> {
    let (body, prev_hash) = match content.first() {
        Some(&format1::VERSION) => format1::decode(content)?,
        _ => record::decode(content)?,
    };
    Ok(Record::new(body, prev_hash, hash))
}

/// The time in the content of a record; `None` if it is not a record.
pub(super) fn time_of(content: &[u8]) -> Option<i64> {
    Some(decode(content, Hash::default()).ok()?.body.time())
}

/// A walk along a chain from a place on. After an error it stands at the last record that is good in itself.
#[derive(Clone, Debug)]
pub struct ChainWalk {
    log_id: String,
    last: Tip,
    /// Other hashes that the last record may have: a stream tells no hash of a gap, and a gap can be of either
    /// format as long as no record of format 2 came before it.
    others: Vec<Hash>,
    /// No record of format 2 was seen.
    may_be_format1: bool,
    expected: Option<Head>,
    report: VerifyReport,
    is_complete: bool,
}

/// What a walk found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifyReport {
    /// The id of the log.
    pub log_id: String,
    /// What retention left of the records before the oldest: its sequence is one less than that of
    /// the first record, its hash the one that the first record has to name.
    pub base: Head,
    /// The last record that was found good; equals `base` if there are no records.
    pub head: Head,
    /// Records that were found good.
    pub records: u64,
    /// Gap records among them.
    pub gaps: u64,
    /// Events that those gaps count.
    pub missing_events: u64,
    /// The last record that is known to have been acknowledged; `None` if nothing says so.
    pub acknowledged: Option<u64>,
    /// The first bad record; `None` if the chain holds.
    pub bad: Option<BadRecord>,
}

/// The first bad record, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadRecord {
    /// Its sequence; 0 with [`ChainProblem::Store`].
    pub sequence: u64,
    /// What is wrong.
    pub problem: ChainProblem,
}

impl BadRecord {
    /// What is wrong with the store as a whole.
    pub(super) const fn store(problem: String) -> Self {
        Self { sequence: 0, problem: ChainProblem::Store(problem) }
    }
}

impl fmt::Display for BadRecord {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { sequence: 0, problem: ChainProblem::Store(detail) } => out.write_str(detail),
            Self { sequence, problem } => write!(out, "record {sequence}: {problem}"),
        }
    }
}

const fn bad(sequence: u64, problem: ChainProblem) -> BadRecord {
    BadRecord { sequence, problem }
}

impl ChainWalk {
    /// Stands at `last`, so that the record after it is the next.
    pub(super) fn new(log_id: Uuid, last: Tip) -> Self {
        Self::start(log_id.to_string(), last)
    }

    /// Stands where a stream starts, which its second checkpoint tells; the first names the newest record.
    ///
    /// # Errors
    ///
    /// If the checkpoint has no hash.
    pub fn at_checkpoint(checkpoint: &v1::Checkpoint) -> Result<Self, BadRecord> {
        let head = head_of(checkpoint)?;
        Ok(Self::start(checkpoint.log_id.clone(), Tip { head, latest_time: i64::MIN }))
    }

    fn start(log_id: String, last: Tip) -> Self {
        let report = VerifyReport {
            log_id: log_id.clone(),
            base: last.head,
            head: last.head,
            records: 0,
            gaps: 0,
            missing_events: 0,
            acknowledged: None,
            bad: None,
        };
        Self {
            log_id,
            last,
            others: Vec::new(),
            may_be_format1: true,
            expected: None,
            report,
            is_complete: false,
        }
    }

    /// A place that the chain must have, as it was told elsewhere.
    ///
    /// # Errors
    ///
    /// If the walk stands at this sequence and the hash is another.
    pub fn expect(&mut self, expected: Option<Head>) -> Result<(), BadRecord> {
        self.expected = expected;
        self.check_expected()
    }

    /// The last record that was taken, or the place that the walk began at.
    #[must_use]
    pub const fn last(&self) -> Tip {
        self.last
    }

    /// Takes the next record of a store.
    ///
    /// # Errors
    ///
    /// What is wrong with it, or with the record that should be in its place.
    pub(super) fn take(&mut self, row: &StoredRow) -> Result<Record, BadRecord> {
        let sequence = self.last.head.sequence + 1;
        let wrong = |problem| bad(sequence, problem);
        if row.sequence != sequence {
            return Err(wrong(ChainProblem::Missing { next: row.sequence }));
        }
        let record = row.check_alone(&self.log_id).map_err(wrong)?;
        if record.prev_hash != self.last.head.hash {
            return Err(wrong(ChainProblem::LinkBroken));
        }
        if row.latest_time != self.last.latest_time.max(record.body.time()) {
            return Err(wrong(ChainProblem::TimeColumn));
        }
        self.advance(row.tip(), &record.body)?;
        Ok(record)
    }

    /// Takes the next message of a stream that sends everything. Every hash is computed from what was sent, so
    /// nobody on the way can change a record unnoticed, unless everything after it is computed again too.
    ///
    /// # Errors
    ///
    /// What is wrong with it, or with the record that should be in its place.
    pub fn receive(&mut self, message: Message) -> Result<(), BadRecord> {
        self.is_complete = false;
        match message {
            Message::Checkpoint(checkpoint) => self.receive_checkpoint(&checkpoint),
            Message::Event(event) => self.receive_event(event),
            Message::Gap(gap) => self.receive_gap(gap),
        }
    }

    /// What was found. The flag says whether a checkpoint came last, so that nothing is missing up to there.
    #[must_use]
    pub fn finish(mut self, found: Option<BadRecord>) -> (VerifyReport, bool) {
        let newest = self.last.head.sequence;
        self.report.head = self.last.head;
        self.report.bad = found.or_else(|| {
            let ahead = self.expected.is_some_and(|expected| expected.sequence > newest);
            ahead.then(|| bad(newest + 1, ChainProblem::EndsEarly { newest }))
        });
        (self.report, self.is_complete)
    }

    /// Goes on from `base`, since retention deleted what lies between.
    pub(super) fn skip_to(&mut self, base: Tip) {
        self.last = base;
        self.report.base = base.head;
    }

    /// Whether the walk has taken no record after its base yet.
    pub(super) fn is_at_base(&self) -> bool {
        self.last.head == self.report.base
    }

    fn receive_checkpoint(&mut self, checkpoint: &v1::Checkpoint) -> Result<(), BadRecord> {
        let told = head_of(checkpoint)?;
        let last = self.last.head.sequence;
        if told.sequence > last {
            return Err(bad(last + 1, ChainProblem::EndsEarly { newest: last }));
        }
        if told.sequence < last || !self.settle(&told.hash) {
            return Err(bad(last, ChainProblem::UnexpectedHash));
        }
        self.is_complete = true;
        Ok(())
    }

    fn receive_event(&mut self, mut event: v1::AuditEvent) -> Result<(), BadRecord> {
        let wrong = |problem| bad(self.last.head.sequence + 1, problem);
        let prev_hash = hash("prev_hash", &std::mem::take(&mut event.prev_hash)).map_err(wrong)?;
        let hash = hash("hash", &std::mem::take(&mut event.hash)).map_err(wrong)?;
        let body = Body::Event(Box::new(event));
        let is_format2 = body.hash(&prev_hash) == hash;
        if !is_format2 && format1::hash(&body, &prev_hash) != Some(hash) {
            return Err(wrong(ChainProblem::ContentChanged));
        }
        self.check_place(&body)?;
        if !self.settle(&prev_hash) {
            return Err(bad(self.last.head.sequence + 1, ChainProblem::LinkBroken));
        }
        self.may_be_format1 &= !is_format2;
        self.step(hash, Vec::new(), &body)
    }

    fn receive_gap(&mut self, gap: v1::Gap) -> Result<(), BadRecord> {
        let body = Body::Gap(gap);
        self.check_place(&body)?;
        let mut hashes: Vec<Hash> = Vec::with_capacity(self.others.len() + 2);
        for prev_hash in std::iter::once(&self.last.head.hash).chain(&self.others) {
            hashes.push(body.hash(prev_hash));
        }
        if self.may_be_format1 {
            // The last of the candidates is the one that has been of format 1 all along.
            let prev_hash = self.others.last().unwrap_or(&self.last.head.hash);
            let format1 = format1::hash(&body, prev_hash);
            self.may_be_format1 = format1.is_some();
            hashes.extend(format1);
        }
        let first = hashes.remove(0);
        self.step(first, hashes, &body)
    }

    /// Chooses among the hashes that the last record may have. False if it has none like this.
    fn settle(&mut self, hash: &Hash) -> bool {
        if self.last.head.hash != *hash {
            if !self.others.contains(hash) {
                return false;
            }
            self.may_be_format1 &= self.others.last() == Some(hash);
            self.last.head.hash = *hash;
        } else if !self.others.is_empty() {
            self.may_be_format1 = false;
        }
        self.others.clear();
        true
    }

    /// Whether a message is of this log and the next.
    fn check_place(&self, body: &Body) -> Result<(), BadRecord> {
        let next = self.last.head.sequence + 1;
        let wrong = |problem| Err(bad(next, problem));
        if body.log_id() != self.log_id {
            return wrong(ChainProblem::OtherLog { found: body.log_id().to_owned() });
        }
        match body.sequence() {
            found if found > next => wrong(ChainProblem::Missing { next: found }),
            found if found < next => wrong(ChainProblem::Reordered { found }),
            _ => Ok(()),
        }
    }

    fn step(&mut self, hash: Hash, others: Vec<Hash>, body: &Body) -> Result<(), BadRecord> {
        self.others = others;
        let latest_time = self.last.latest_time.max(body.time());
        self.advance(Tip { head: Head { sequence: body.sequence(), hash }, latest_time }, body)
    }

    fn advance(&mut self, tip: Tip, body: &Body) -> Result<(), BadRecord> {
        self.last = tip;
        self.report.records += 1;
        if let Body::Gap(gap) = body {
            self.report.gaps += 1;
            self.report.missing_events = self.report.missing_events.saturating_add(gap.count);
        }
        self.check_expected()
    }

    fn check_expected(&self) -> Result<(), BadRecord> {
        let last = self.last.head;
        let found = |expected: Head| expected.hash == last.hash || self.others.contains(&expected.hash);
        match self.expected.filter(|expected| expected.sequence == last.sequence) {
            Some(expected) if !found(expected) => Err(bad(last.sequence, ChainProblem::UnexpectedHash)),
            _ => Ok(()),
        }
    }
}

/// The place that a checkpoint is for. Before the first record the hash may be left out.
fn head_of(checkpoint: &v1::Checkpoint) -> Result<Head, BadRecord> {
    let v1::Checkpoint { log_id: _, durable_sequence: sequence, head_hash, server_time: _ } = checkpoint;
    let hash = match (sequence, head_hash.is_empty()) {
        (0, true) => GENESIS_HASH,
        _ => hash("head_hash", head_hash).map_err(|problem| bad(*sequence, problem))?,
    };
    Ok(Head { sequence: *sequence, hash })
}

/// A hash as the messages have it.
fn hash(field: &str, bytes: &[u8]) -> Result<Hash, ChainProblem> {
    let wrong = |_| ChainProblem::Undecodable(format!("`{field}` has {} bytes, a hash has 32", bytes.len()));
    bytes.try_into().map_err(wrong)
}

/// What is wrong with a record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ChainProblem {
    /// The stored hash is not that of the stored content.
    ContentChanged,
    /// The content has the stored hash, but is not a record.
    Undecodable(String),
    /// The record belongs to another log.
    OtherLog {
        /// The id of that log.
        found: String,
    },
    /// The record was written under another sequence.
    Reordered {
        /// The sequence it was written under.
        found: u64,
    },
    /// The record does not name the hash of the one before it: one of the two was replaced.
    LinkBroken,
    /// The record is not there, though a later one is.
    Missing {
        /// The next sequence that is there.
        next: u64,
    },
    /// The time column of the store does not say what the records say.
    TimeColumn,
    /// A column of the joined store does not say what the record says.
    ColumnChanged {
        /// Which one.
        column: &'static str,
    },
    /// The chain ends before a record that is known to have been written.
    EndsEarly {
        /// Where the chain ends.
        newest: u64,
    },
    /// The next record names another hash than this record has.
    Replaced,
    /// The record is there though retention recorded that it was deleted.
    BeforeBase,
    /// The record does not have the hash that is known from elsewhere.
    UnexpectedHash,
    /// The store could not read the record.
    Unreadable(String),
    /// The store is damaged elsewhere than in a record, or is gone.
    Store(String),
}

impl fmt::Display for ChainProblem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ContentChanged => write!(out, "content changed: it does not have the stored hash"),
            Self::Undecodable(detail) => write!(out, "content is not a record: {detail}"),
            Self::OtherLog { found } => write!(out, "it belongs to log `{found}`"),
            Self::Reordered { found } => {
                write!(out, "reordered: the content was written as record {found}")
            }
            Self::LinkBroken => {
                write!(out, "link broken: it, or the record before it, was replaced")
            }
            Self::Missing { next } => write!(out, "removed: the next record is {next}"),
            Self::TimeColumn => write!(out, "its time column disagrees with the contents"),
            Self::ColumnChanged { column } => {
                write!(out, "its column `{column}` does not say what the record says")
            }
            Self::EndsEarly { newest } => write!(out, "removed: the chain ends at record {newest}"),
            Self::Replaced => write!(out, "replaced: the next record names another hash"),
            Self::BeforeBase => write!(out, "it is there although it counts as deleted"),
            Self::UnexpectedHash => write!(out, "replaced: it does not have the expected hash"),
            Self::Unreadable(detail) => write!(out, "the store could not read it: {detail}"),
            Self::Store(detail) => out.write_str(detail),
        }
    }
}

#[cfg(test)]
mod tests;
