//! The queue of events that wait to be written: where their bytes lie, what one entry takes, and how much may wait.
//!
//! The bytes of all events lie one after another in the memory of the queue. Memory that each event has for itself, which one
//! thread takes and another gives back, costs both of them more than a copy.
//!
//! The room of an event that somebody waits for is taken before its question is decided, so that a
//! decision is never made that cannot be recorded; the rest of the reservation is given back when
//! the event is known. Events that nobody waits for have room of their own, so that they never
//! cost a caller an answer.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::AuditError;
use super::encoding::EncodedEvent;
use super::record::{Head, PLACE_BYTES};
use crate::budget::{Budget, Exhausted, Permit};

/// The least that an entry takes: what it needs in memory next to its bytes, and a share of what a
/// transaction costs.
const LEAST_BYTES: usize = 1024;
/// The memory for fields that an empty queue keeps.
const KEPT_BYTES: usize = 1 << 20;

/// The bytes that may wait to be written.
#[derive(Debug)]
pub(super) struct QueueBudget {
    awaited: Budget,
    unawaited: Budget,
}

impl QueueBudget {
    /// Half of the bytes for events that somebody waits for, half for those that nobody does.
    pub(super) fn new(bytes: usize) -> Self {
        Self { awaited: Budget::new(bytes / 2), unawaited: Budget::new(bytes / 2) }
    }

    /// Takes room for an event of about so many bytes, for somebody who will wait for it.
    pub(super) fn reserve(&self, bytes: usize) -> Result<Permit, Exhausted> {
        // An event that is larger than the budget may have all of it.
        self.awaited.take(charge(bytes).min(self.awaited.limit()))
    }

    /// Fits a reservation to the bytes of the event that it was made for.
    pub(super) fn fit(&self, room: &mut Permit, bytes: usize) -> Result<(), Exhausted> {
        let bytes = charge(bytes).min(self.awaited.limit());
        match bytes.checked_sub(room.amount()) {
            Some(more) => room.grow(more)?,
            None => room.shrink_to(bytes),
        }
        Ok(())
    }

    /// How often there was no room for an event that somebody would have waited for.
    pub(super) fn refused(&self) -> u64 {
        self.awaited.refused()
    }

    /// Whether so much waits that nobody waits for that it should be written soon.
    pub(super) fn is_filling(&self) -> bool {
        self.unawaited.used() > self.unawaited.limit() / 4
    }

    /// The bytes that wait.
    pub(super) fn used(&self) -> usize {
        self.awaited.used() + self.unawaited.used()
    }
}

fn charge(bytes: usize) -> usize {
    bytes.max(LEAST_BYTES)
}

/// Events that wait to be written, in order. What each event changes is in one line of the caches of the processor, or in two.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct EventQueue {
    entries: VecDeque<QueuedEvent>,
    /// The fields of the events, one after another, and before them what is left of events that are gone.
    fields: Vec<u8>,
    /// Where the fields of the first event begin.
    start: usize,
    /// The room of the events that nobody waits for; `None` until there was one.
    unawaited: Option<Permit>,
    /// Of the events that somebody waits for, in order, who does.
    awaited: VecDeque<Awaited>,
}

/// An event that waits to be written, without a place in the chain. Small, since the writer reads what others have just written.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueuedEvent {
    /// When it happened, nanoseconds since 1970.
    pub(super) time: i64,
    /// How many bytes its fields have; no record has as many as there are numbers.
    field_bytes: u32,
    /// Whether somebody waits for it. If nobody does, it is kept until it can be written.
    pub(super) is_awaited: bool,
}

/// Who waits for an event.
#[derive(Debug)]
struct Awaited {
    reply: AppendReply,
    /// The room of the event.
    _room: Permit,
}

impl EventQueue {
    /// How many events wait.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no event waits.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether somebody waits for one of them.
    pub(super) fn is_awaited(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// Adds an event that somebody waits for, in the room that was reserved for it.
    pub(super) fn push_awaited(&mut self, event: &EncodedEvent, reply: AppendReply, room: Permit) {
        self.awaited.push_back(Awaited { reply, _room: room });
        self.push(event, true);
    }

    /// Adds an event that nobody waits for, if there is room for it.
    pub(super) fn push_unawaited(
        &mut self,
        event: &EncodedEvent,
        budget: &QueueBudget,
    ) -> Result<(), Exhausted> {
        let bytes = charge(PLACE_BYTES + event.fields().len()).min(budget.unawaited.limit());
        match &mut self.unawaited {
            Some(room) => room.grow(bytes)?,
            none => *none = Some(budget.unawaited.take(bytes)?),
        }
        self.push(event, false);
        Ok(())
    }

    fn push(&mut self, event: &EncodedEvent, is_awaited: bool) {
        let fields = event.fields();
        self.fields.extend_from_slice(fields);
        let field_bytes = u32::try_from(fields.len()).unwrap_or(u32::MAX);
        self.entries.push_back(QueuedEvent { time: event.time(), field_bytes, is_awaited });
    }

    /// Takes all events of another queue over, to the end of this one. The other keeps some memory for those to come.
    pub(super) fn take_over(&mut self, other: &mut Self) {
        if self.is_empty() {
            mem::swap(self, other);
        } else if !other.is_empty() {
            // Not more often than as many bytes have come.
            if self.start > self.fields.len() / 2 {
                self.fields.drain(..mem::take(&mut self.start));
            }
            self.fields.extend_from_slice(other.fields.get(other.start..).unwrap_or_default());
            self.entries.append(&mut other.entries);
            self.awaited.append(&mut other.awaited);
            match (&mut self.unawaited, other.unawaited.take()) {
                (Some(room), Some(more)) => room.join(more),
                (none, room) => *none = none.take().or(room),
            }
        }
        other.clear();
    }

    /// Forgets all events.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.entries.shrink_to(KEPT_BYTES / LEAST_BYTES);
        self.fields.clear();
        self.fields.shrink_to(KEPT_BYTES);
        self.awaited.clear();
        self.awaited.shrink_to(KEPT_BYTES / LEAST_BYTES);
        (self.start, self.unawaited) = (0, None);
    }

    /// The events in order, each with its fields.
    pub(super) fn iter(&self) -> impl Iterator<Item = (QueuedEvent, &[u8])> {
        let mut rest = self.fields.get(self.start..).unwrap_or_default();
        self.entries.iter().map(move |entry| (*entry, entry.split(&mut rest)))
    }

    /// Takes the first `count` events out, all if they are fewer. Returns of those that somebody waits for who does, with the number of
    /// the event among all that were taken out, from 0.
    pub(super) fn take_first(&mut self, count: usize) -> Vec<(usize, AppendReply)> {
        let (mut given_back, mut replies) = (0, Vec::new());
        for (at, entry) in self.entries.drain(..count.min(self.entries.len())).enumerate() {
            self.start += entry.field_bytes();
            if !entry.is_awaited {
                given_back += charge(entry.record_bytes());
            } else if let Some(Awaited { reply, _room }) = self.awaited.pop_front() {
                replies.push((at, reply));
            }
        }
        self.give_back(given_back);
        if self.is_empty() {
            self.clear();
        }
        replies
    }

    /// Keeps those events of which `keep` says so when it sees them and their fields. Returns who waits for the others.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(QueuedEvent, &[u8]) -> bool) -> Vec<AppendReply> {
        let Self { entries, fields, start, unawaited, mut awaited } = mem::take(self);
        self.unawaited = unawaited;
        let (mut given_back, mut replies) = (0, Vec::new());
        let mut rest = fields.get(start..).unwrap_or_default();
        for entry in entries {
            let fields = entry.split(&mut rest);
            let waits = if entry.is_awaited { awaited.pop_front() } else { None };
            if keep(entry, fields) {
                self.fields.extend_from_slice(fields);
                self.entries.push_back(entry);
                self.awaited.extend(waits);
            } else if let Some(Awaited { reply, _room }) = waits {
                replies.push(reply);
            } else {
                given_back += charge(entry.record_bytes());
            }
        }
        self.give_back(given_back);
        replies
    }

    /// Gives back the room of events that nobody waited for. One that is larger than the budget had all of it, and was alone.
    fn give_back(&mut self, bytes: usize) {
        if let Some(room) = &mut self.unawaited {
            room.shrink_to(room.amount().saturating_sub(bytes));
        }
    }
}

impl QueuedEvent {
    /// The most bytes that its record can have.
    pub(super) const fn record_bytes(&self) -> usize {
        PLACE_BYTES + self.field_bytes()
    }

    const fn field_bytes(self) -> usize {
        self.field_bytes as usize
    }

    /// Splits its fields off the front of `rest`.
    fn split<'f>(&self, rest: &mut &'f [u8]) -> &'f [u8] {
        let (first, after) = rest.split_at_checked(self.field_bytes()).unwrap_or_default();
        *rest = after;
        first
    }
}

/// The place that an event got in the chain. It is durable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Recorded {
    /// Its sequence and hash.
    pub head: Head,
}

/// Waits for many events, and is woken once for all that became durable together.
pub trait AppendWaiter: fmt::Debug + Send + Sync {
    /// Learns that the event of `key` is durable, or cannot be made so. Returns `true` if it has to be woken for that; it is when
    /// all events of a transaction have been told of.
    fn settle(&self, key: usize, outcome: Result<Recorded, AuditError>) -> bool;

    /// Wakes it.
    fn wake(&self);
}

/// Where the outcome of one event goes. Dropped without one, it says that the log is closed.
#[derive(Debug)]
pub struct AppendReply(Option<ReplyTarget>);

#[derive(Debug)]
enum ReplyTarget {
    Future(oneshot::Sender<Result<Recorded, AuditError>>),
    Waiter(Arc<dyn AppendWaiter>, usize),
}

impl AppendReply {
    /// A reply that a future waits for.
    pub fn future() -> (Self, Appending) {
        let (reply, done) = oneshot::channel();
        (Self(Some(ReplyTarget::Future(reply))), Appending { done })
    }

    /// A reply that `waiter` gets for `key`.
    #[must_use]
    pub fn to(waiter: Arc<dyn AppendWaiter>, key: usize) -> Self {
        Self(Some(ReplyTarget::Waiter(waiter, key)))
    }

    /// Tells the outcome.
    pub fn send(mut self, outcome: Result<Recorded, AuditError>) {
        if let Some(waiter) = self.settle(outcome) {
            waiter.wake();
        }
    }

    /// Tells the outcome. Returns who is to be woken once all others know theirs.
    pub(super) fn settle(&mut self, outcome: Result<Recorded, AuditError>) -> Option<Arc<dyn AppendWaiter>> {
        match self.0.take()? {
            ReplyTarget::Future(reply) => {
                // Nobody listens if the caller has disconnected.
                let _ = reply.send(outcome);
                None
            }
            ReplyTarget::Waiter(waiter, key) => waiter.settle(key, outcome).then_some(waiter),
        }
    }
}

impl Drop for AppendReply {
    fn drop(&mut self) {
        if let Some(waiter) = self.settle(Err(AuditError::Closed)) {
            waiter.wake();
        }
    }
}

/// An event on its way to the disk. Completes when it is durable, or cannot be made so.
///
/// Dropping it does not take the event back.
#[derive(Debug)]
#[must_use = "the event is durable only when this has completed"]
pub struct Appending {
    done: oneshot::Receiver<Result<Recorded, AuditError>>,
}

impl Future for Appending {
    type Output = Result<Recorded, AuditError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // A reply always has an outcome; this is for the sake of the type.
        Pin::new(&mut self.done).poll(context).map(|done| done.unwrap_or(Err(AuditError::Closed)))
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;
    use crate::proto::v1::{AuditEventKind, Reason};

    fn event(fields: &str) -> EncodedEvent {
        EncodedEvent::new(AuditEventKind::Denial, Reason::Unspecified, Timestamp::default(), fields.into())
    }

    fn queue(budget: &QueueBudget, events: impl IntoIterator<Item = impl AsRef<str>>) -> EventQueue {
        let mut queue = EventQueue::default();
        for fields in events {
            let fields = fields.as_ref();
            queue.push_unawaited(&event(fields), budget).unwrap();
        }
        queue
    }

    #[track_caller]
    fn check(queue: &EventQueue, expected: &[&str]) {
        let found: Vec<&[u8]> = queue.iter().map(|(_, fields)| fields).collect();
        let expected: Vec<&[u8]> = expected.iter().map(|fields| fields.as_bytes()).collect();
        assert_eq!(found, expected);
        assert_eq!((queue.len(), queue.is_empty()), (expected.len(), expected.is_empty()));
        assert!(queue.iter().all(|(entry, fields)| entry.record_bytes() == PLACE_BYTES + fields.len()));
    }

    #[test]
    fn events_leave_in_the_order_in_which_they_came_each_with_its_fields() {
        let budget = QueueBudget::new(1 << 20);
        let mut waiting = EventQueue::default();
        let mut sent = queue(&budget, ["a", "", "bcd"]);
        waiting.take_over(&mut sent);
        check(&sent, &[]);
        check(&waiting, &["a", "", "bcd"]);
        assert_eq!(waiting.take_first(1).len(), 0);
        sent.push_unawaited(&event("ef"), &budget).unwrap();
        waiting.take_over(&mut sent);
        check(&waiting, &["", "bcd", "ef"]);
        let (reply, _appending) = AppendReply::future();
        sent.push_awaited(&event("g"), reply, budget.reserve(0).unwrap());
        assert!(sent.is_awaited() && !waiting.is_awaited());
        waiting.take_over(&mut sent);
        assert!(!sent.is_awaited() && waiting.is_awaited());
        let replies = waiting.retain(|entry, fields| !entry.is_awaited && fields != b"bcd");
        assert_eq!((replies.len(), waiting.is_awaited()), (1, false));
        check(&waiting, &["", "ef"]);
        assert_eq!(budget.used(), 2 * LEAST_BYTES);
        let (reply, _appending) = AppendReply::future();
        waiting.push_awaited(&event("h"), reply, budget.reserve(0).unwrap());
        let replies = waiting.take_first(9);
        assert_eq!(replies.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [2]);
        check(&waiting, &[]);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn room_is_taken_with_each_event_and_given_back_when_it_leaves() {
        let budget = QueueBudget::new(8 * LEAST_BYTES);
        let mut sent = queue(&budget, ["a", "b", "c"]);
        let large = "d".repeat(2 * LEAST_BYTES);
        assert!(sent.push_unawaited(&event(&large), &budget).is_err());
        check(&sent, &["a", "b", "c"]);
        let mut waiting = EventQueue::default();
        waiting.take_over(&mut sent);
        sent.push_unawaited(&event("e"), &budget).unwrap();
        assert!(sent.push_unawaited(&event("f"), &budget).is_err(), "both queues share it");
        waiting.take_first(3);
        assert_eq!(budget.used(), LEAST_BYTES);
        // More than all may have all.
        waiting.take_over(&mut sent);
        waiting.take_first(1);
        let larger = "g".repeat(9 * LEAST_BYTES);
        sent.push_unawaited(&event(&larger), &budget).unwrap();
        assert_eq!(budget.used(), 4 * LEAST_BYTES);
        drop(sent);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn queue_that_never_empties_does_not_grow() {
        let budget = QueueBudget::new(1 << 30);
        let mut waiting = queue(&budget, ["first"; 10]);
        for round in 0..10_000 {
            let mut sent = queue(&budget, [format!("{round}-a"), format!("{round}-b")]);
            waiting.take_over(&mut sent);
            waiting.take_first(2);
        }
        let last = ["9995-a", "9995-b", "9996-a", "9996-b", "9997-a", "9997-b", "9998-a", "9998-b", "9999-a", "9999-b"];
        check(&waiting, &last);
        assert!(waiting.fields.capacity() < 1000, "{}", waiting.fields.capacity());
    }

    #[test]
    fn memory_of_a_burst_is_given_back() {
        let budget = QueueBudget::new(64 << 20);
        let mut sent = queue(&budget, vec!["a".repeat(1 << 20); 8]);
        let mut waiting = EventQueue::default();
        waiting.take_over(&mut sent);
        waiting.take_first(8);
        waiting.take_over(&mut sent);
        assert!(sent.fields.capacity() <= KEPT_BYTES && waiting.fields.capacity() <= KEPT_BYTES);
    }
}
