//! The walk over a chain as it comes through the stream: what a client can check without the store.
//!
//! Every hash is computed anew from what was sent, so a server, or whoever stands between, cannot change
//! a record without being noticed, unless everything after it is computed anew too.

use uuid::Uuid;

use crate::audit::{BadRecord, Body, GENESIS_HASH, Head, Problem, Record, VerifyReport};
use crate::rpc::audit::received::{ReceivedError, event_record, gap_record, hash};
use crate::rpc::v1;
use crate::rpc::v1::stream_audit_events_response::Message;

/// Takes the messages of a stream from the oldest record on, without a filter.
#[derive(Debug)]
pub(super) struct Walk {
    expected: Option<Head>,
    report: VerifyReport,
    /// A checkpoint came last: nothing is missing up to there.
    is_complete: bool,
}

impl Walk {
    /// Begins with the first checkpoint, which is for the place before the oldest record.
    pub(super) fn begin(checkpoint: &v1::Checkpoint, expected: Option<Head>) -> Result<Self, ReceivedError> {
        let base = head(checkpoint)?;
        let log_id = Uuid::parse_str(&checkpoint.log_id)
            .map_err(|error| ReceivedError { field: "log_id", problem: format!("is no UUID: {error}") })?;
        let mut walk = Self {
            expected,
            report: VerifyReport {
                log_id,
                base,
                head: base,
                records: 0,
                gaps: 0,
                missing_events: 0,
                bad: None,
            },
            is_complete: false,
        };
        walk.report.bad = walk.unexpected();
        Ok(walk)
    }

    /// Takes the next message. Tells whether it is good; after a bad one nothing more is to be taken.
    pub(super) fn take(&mut self, message: Message) -> bool {
        if self.report.bad.is_none() {
            self.report.bad = self.problem(message);
        }
        self.report.bad.is_none()
    }

    /// What was found, if the stream told where it ends.
    pub(super) fn end(mut self) -> (VerifyReport, bool) {
        let newest = self.report.head.sequence;
        if self.report.bad.is_none() && self.expected.is_some_and(|expected| expected.sequence > newest) {
            self.report.bad = bad(newest + 1, Problem::EndsEarly { newest });
        }
        (self.report, self.is_complete)
    }

    /// What was found so far, with what the server says about a record.
    pub(super) fn damaged(mut self, sequence: u64, problem: String) -> VerifyReport {
        self.report.bad = bad(sequence, Problem::Unreadable(problem));
        self.report
    }

    fn problem(&mut self, message: Message) -> Option<BadRecord> {
        let last = self.report.head;
        let next = last.sequence + 1;
        let record = match message {
            Message::Checkpoint(checkpoint) => return self.checkpoint(&checkpoint),
            Message::Gap(gap) => gap_record(&gap, last.hash),
            Message::Event(event) => event_record(event),
        };
        self.is_complete = false;
        let record = match record {
            Ok(record) => record,
            Err(error) => return bad(next, Problem::Undecodable(error.to_string())),
        };
        if let Some(problem) = misplaced(&record, self.report.log_id, last) {
            return bad(next, problem);
        }
        self.report.head = record.head();
        self.report.records += 1;
        if let Body::Gap(gap) = &record.body {
            self.report.gaps += 1;
            self.report.missing_events += gap.count;
        }
        self.unexpected()
    }

    fn checkpoint(&mut self, checkpoint: &v1::Checkpoint) -> Option<BadRecord> {
        self.is_complete = true;
        let last = self.report.head;
        let told = match head(checkpoint) {
            Ok(told) => told,
            Err(error) => return bad(last.sequence, Problem::Undecodable(error.to_string())),
        };
        if told.sequence > last.sequence {
            return bad(last.sequence + 1, Problem::EndsEarly { newest: last.sequence });
        }
        if told != last {
            return bad(last.sequence, Problem::UnexpectedHash);
        }
        None
    }

    /// Whether the record that was taken last is another than the expected one.
    fn unexpected(&self) -> Option<BadRecord> {
        let last = self.report.head;
        let expected = self.expected.filter(|expected| expected.sequence == last.sequence)?;
        if expected == last { None } else { bad(last.sequence, Problem::UnexpectedHash) }
    }
}

/// Why a record cannot be the one after another.
fn misplaced(record: &Record, log_id: Uuid, last: Head) -> Option<Problem> {
    if record.expected_hash() != record.hash {
        return Some(Problem::ContentChanged);
    }
    if record.log_id != log_id {
        return Some(Problem::OtherLog { found: record.log_id });
    }
    let next = last.sequence + 1;
    if record.sequence > next {
        return Some(Problem::Missing { next: record.sequence });
    }
    if record.sequence < next {
        return Some(Problem::Reordered { found: record.sequence });
    }
    (record.prev_hash != last.hash).then_some(Problem::LinkBroken)
}

/// The place that a checkpoint is for. Before the first record the hash may be left out.
fn head(checkpoint: &v1::Checkpoint) -> Result<Head, ReceivedError> {
    let v1::Checkpoint { log_id: _, durable_sequence, head_hash, server_time: _ } = checkpoint;
    let hash = match (durable_sequence, head_hash.is_empty()) {
        (0, true) => GENESIS_HASH,
        _ => hash("head_hash", head_hash)?,
    };
    Ok(Head { sequence: *durable_sequence, hash })
}

#[expect(clippy::unnecessary_wraps, reason = "every caller wants an option")]
const fn bad(sequence: u64, problem: Problem) -> Option<BadRecord> {
    Some(BadRecord { sequence, problem })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::audit::{AuditEvent, EventKind, Gap, GapReason};
    use crate::rpc::audit::record_message;

    /// A chain of three records after record 4: an event, a gap, an event.
    fn chain() -> (v1::Checkpoint, Vec<Message>) {
        let log_id = Uuid::new_v4();
        let mut last = Head { sequence: 4, hash: [4; 32] };
        let first = checkpoint(log_id, last);
        let mut messages = Vec::new();
        let time = UNIX_EPOCH + Duration::from_secs(1);
        let gap = Gap { count: 3, reason: GapReason::QueueFull, first_time: time, last_time: time };
        let event = || Body::Event(Box::new(AuditEvent::new(EventKind::Denial, time)));
        for body in [event(), Body::Gap(gap), event()] {
            let sequence = last.sequence + 1;
            let mut record = Record { log_id, sequence, prev_hash: last.hash, hash: [0; 32], body };
            record.hash = record.expected_hash();
            last = record.head();
            messages.push(record_message(record));
        }
        messages.push(Message::Checkpoint(checkpoint(log_id, last)));
        (first, messages)
    }

    fn checkpoint(log_id: Uuid, head: Head) -> v1::Checkpoint {
        v1::Checkpoint {
            log_id: log_id.to_string(),
            durable_sequence: head.sequence,
            head_hash: head.hash.to_vec(),
            server_time: None,
        }
    }

    fn walk(first: &v1::Checkpoint, messages: Vec<Message>, expected: Option<Head>) -> (VerifyReport, bool) {
        let mut walk = Walk::begin(first, expected).unwrap();
        for message in messages {
            if !walk.take(message) {
                break;
            }
        }
        walk.end()
    }

    fn event(message: &mut Message) -> &mut v1::AuditEvent {
        match message {
            Message::Event(event) => event,
            other => panic!("{other:?}"),
        }
    }

    fn gap(message: &mut Message) -> &mut v1::Gap {
        match message {
            Message::Gap(gap) => gap,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_chain_that_was_not_touched_holds() {
        let (first, messages) = chain();
        let (report, is_complete) = walk(&first, messages.clone(), None);
        assert_eq!((report.records, report.gaps, report.missing_events), (3, 1, 3));
        assert_eq!((report.base.sequence, report.head.sequence), (4, 7));
        assert_eq!((report.bad, is_complete), (None, true));
        let (_, is_complete) = walk(&first, messages[..2].to_vec(), None);
        assert!(!is_complete, "without a checkpoint at the end it may have been cut off");
    }

    #[track_caller]
    fn check(change: impl Fn(&mut Vec<Message>), sequence: u64, problem: &str) {
        let (first, mut messages) = chain();
        change(&mut messages);
        let bad = walk(&first, messages, None).0.bad.expect("something is bad");
        assert_eq!(bad.sequence, sequence, "{bad}");
        assert!(bad.problem.to_string().contains(problem), "{bad}");
    }

    #[test]
    fn the_first_bad_record_is_named() {
        check(|messages| event(&mut messages[0]).effective_scope.push('x'), 5, "content changed");
        check(|messages| event(&mut messages[2]).sequence = 8, 7, "content changed");
        check(|messages| event(&mut messages[2]).kind = 0, 7, "`kind` is not set");
        // A gap has no hash of its own: the next record tells.
        check(|messages| gap(&mut messages[1]).count += 1, 7, "link broken");
        check(|messages| drop(messages.remove(0)), 5, "removed: the next record is 6");
        check(|messages| messages.swap(0, 2), 5, "removed: the next record is 7");
        check(|messages| messages.insert(1, messages[0].clone()), 6, "reordered");
        check(|messages| drop(messages.remove(2)), 7, "ends at record 6");
        let other = |messages: &mut Vec<Message>| {
            messages[3] = Message::Checkpoint(checkpoint(Uuid::nil(), Head { sequence: 7, hash: [0; 32] }))
        };
        check(other, 7, "does not have the expected hash");
        let another = |messages: &mut Vec<Message>| messages[2] = chain().1[2].clone();
        check(another, 7, "it belongs to log");
    }

    #[test]
    fn a_head_that_was_kept_elsewhere_must_be_found() {
        let (first, mut messages) = chain();
        let hash = event(&mut messages[0]).hash.clone().try_into().unwrap();
        let at = |sequence, hash| {
            walk(&first, messages.clone(), Some(Head { sequence, hash })).0.bad.map(|bad| bad.sequence)
        };
        assert_eq!(at(5, hash), None);
        assert_eq!(at(4, [4; 32]), None);
        assert_eq!(at(5, [0; 32]), Some(5));
        assert_eq!(at(4, [0; 32]), Some(4));
        assert_eq!(at(8, hash), Some(8));
    }
}
