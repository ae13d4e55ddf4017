//! Events that wait to be written, in order.
//!
//! Their bytes lie one after another in one piece of memory. Memory that each event has for itself, which one thread takes and another
//! gives back, costs both of them more than a copy.

use std::collections::VecDeque;
use std::mem;

use super::encoding::EncodedEvent;
use super::record::PLACE_BYTES;
use super::reply::AppendReply;
use crate::budget::Permit;

/// The memory for fields, and the places for events, that an empty batch keeps.
const KEPT_BYTES: usize = 1 << 20;
const KEPT_EVENTS: usize = 2048;

/// Events that wait to be written. What an event that nobody waits for changes comes first, so that it is in as few lines of the
/// processor's caches as it can be.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct EventBatch {
    /// The events, and before them those that are gone.
    entries: Vec<QueuedEvent>,
    /// Their fields, one after another.
    fields: Vec<u8>,
    /// The room that the events take that nobody waits for.
    unawaited_bytes: usize,
    /// Where the first event is in `entries`.
    first: usize,
    /// Where its fields begin.
    start: usize,
    /// Of the events that somebody waits for, in order, who does.
    awaited: VecDeque<Awaited>,
}

/// An event without a place in the chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueuedEvent {
    /// When it happened, nanoseconds since 1970.
    pub(super) time: i64,
    /// How many bytes its fields have: far fewer than there are numbers.
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

impl EventBatch {
    /// How many events there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.first
    }

    /// Whether there is no event.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether somebody waits for one of them.
    pub(super) fn is_awaited(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// The room that the events take that nobody waits for.
    pub(super) const fn unawaited_bytes(&self) -> usize {
        self.unawaited_bytes
    }

    /// Adds an event that somebody waits for, in its room.
    pub(super) fn push_awaited(&mut self, event: &EncodedEvent, reply: AppendReply, room: Permit) {
        self.awaited.push_back(Awaited { reply, _room: room });
        self.push(event, true);
    }

    /// Adds an event that nobody waits for and that takes so much room.
    pub(super) fn push_unawaited(&mut self, event: &EncodedEvent, bytes: usize) {
        self.unawaited_bytes += bytes;
        self.push(event, false);
    }

    fn push(&mut self, event: &EncodedEvent, is_awaited: bool) {
        let fields = event.fields();
        self.fields.extend_from_slice(fields);
        let field_bytes = u32::try_from(fields.len()).unwrap_or(u32::MAX);
        self.entries.push(QueuedEvent { time: event.time(), field_bytes, is_awaited });
    }

    /// Takes all events of another batch over, to the end of this one. The other keeps some memory for those to come.
    pub(super) fn take_over(&mut self, other: &mut Self) {
        if self.is_empty() {
            mem::swap(self, other);
        } else if !other.is_empty() {
            // So that no more is moved than has gone.
            if self.first > self.entries.len() / 2 || self.start > self.fields.len() / 2 {
                self.entries.drain(..mem::take(&mut self.first));
                self.fields.drain(..mem::take(&mut self.start));
            }
            self.entries.extend_from_slice(other.entries.get(other.first..).unwrap_or_default());
            self.fields.extend_from_slice(other.fields.get(other.start..).unwrap_or_default());
            self.awaited.append(&mut other.awaited);
            self.unawaited_bytes += other.unawaited_bytes;
        }
        other.clear();
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.entries.shrink_to(KEPT_EVENTS);
        self.fields.clear();
        self.fields.shrink_to(KEPT_BYTES);
        self.awaited.clear();
        self.awaited.shrink_to(KEPT_EVENTS);
        (self.unawaited_bytes, self.first, self.start) = (0, 0, 0);
    }

    /// The events in order, each with its fields.
    pub(super) fn iter(&self) -> impl Iterator<Item = (QueuedEvent, &[u8])> {
        let mut rest = self.fields.get(self.start..).unwrap_or_default();
        let entries = self.entries.get(self.first..).unwrap_or_default();
        entries.iter().map(move |entry| (*entry, entry.split(&mut rest)))
    }

    /// Takes the first `count` events out, all if they are fewer. `room` says how much room one of so many bytes takes. Returns who waits
    /// for them, each with the number of the event among those that were taken out, from 0.
    pub(super) fn take_first(
        &mut self,
        count: usize,
        room: impl Fn(usize) -> usize,
    ) -> Vec<(usize, AppendReply)> {
        let mut replies = Vec::new();
        for (at, entry) in self.entries.iter().skip(self.first).take(count).enumerate() {
            self.start += entry.field_bytes();
            if !entry.is_awaited {
                self.unawaited_bytes -= room(entry.record_bytes());
            } else if let Some(Awaited { reply, _room }) = self.awaited.pop_front() {
                replies.push((at, reply));
            }
        }
        self.first += count.min(self.len());
        if self.is_empty() {
            self.clear();
        }
        replies
    }

    /// Keeps those events of which `keep` says so when it sees them and their fields. `room` is as for `take_first`. Returns who waits for
    /// the others.
    pub(super) fn retain(
        &mut self,
        room: impl Fn(usize) -> usize,
        mut keep: impl FnMut(QueuedEvent, &[u8]) -> bool,
    ) -> Vec<AppendReply> {
        let mut awaited = mem::take(&mut self.awaited);
        let mut replies = Vec::new();
        // What is kept is moved only if something before it is not.
        let (mut events, mut bytes, mut next) = (self.first, self.start, self.start);
        for at in self.first..self.entries.len() {
            let Some(&entry) = self.entries.get(at) else { break };
            let from = next..next + entry.field_bytes();
            next = from.end;
            let waits = if entry.is_awaited { awaited.pop_front() } else { None };
            if keep(entry, self.fields.get(from.clone()).unwrap_or_default()) {
                if bytes < from.start {
                    self.fields.copy_within(from, bytes);
                }
                self.entries.swap(events, at);
                (events, bytes) = (events + 1, bytes + entry.field_bytes());
                self.awaited.extend(waits);
            } else if let Some(Awaited { reply, _room }) = waits {
                replies.push(reply);
            } else {
                self.unawaited_bytes -= room(entry.record_bytes());
            }
        }
        self.entries.truncate(events);
        self.fields.truncate(bytes);
        if self.is_empty() {
            self.clear();
        }
        replies
    }
}

impl QueuedEvent {
    /// The most bytes that its record can have.
    pub(super) const fn record_bytes(&self) -> usize {
        PLACE_BYTES + self.field_bytes()
    }

    const fn field_bytes(&self) -> usize {
        self.field_bytes as usize
    }

    /// Splits its fields off the front of `rest`.
    fn split<'f>(&self, rest: &mut &'f [u8]) -> &'f [u8] {
        let (first, after) = rest.split_at_checked(self.field_bytes()).unwrap_or_default();
        *rest = after;
        first
    }
}

#[cfg(test)]
pub(super) mod tests {
    use prost_types::Timestamp;

    use super::*;
    use crate::budget::Budget;
    use crate::proto::v1::{AuditEventKind, Reason};

    pub(in super::super) fn event(fields: &str) -> EncodedEvent {
        EncodedEvent::new(AuditEventKind::Denial, Reason::Unspecified, Timestamp::default(), fields.into())
    }

    /// Each takes a room of ten.
    fn ten(_: usize) -> usize {
        10
    }

    fn batch(events: impl IntoIterator<Item = impl AsRef<str>>) -> EventBatch {
        let mut batch = EventBatch::default();
        events.into_iter().for_each(|fields| batch.push_unawaited(&event(fields.as_ref()), 10));
        batch
    }

    fn push_awaited(batch: &mut EventBatch, fields: &str) {
        batch.push_awaited(&event(fields), AppendReply::future().0, Budget::new(1).take(1).unwrap());
    }

    #[track_caller]
    fn check(batch: &EventBatch, expected: &[&str]) {
        let found: Vec<&[u8]> = batch.iter().map(|(_, fields)| fields).collect();
        let expected: Vec<&[u8]> = expected.iter().map(|fields| fields.as_bytes()).collect();
        assert_eq!(found, expected);
        assert_eq!((batch.len(), batch.is_empty()), (expected.len(), expected.is_empty()));
        assert!(batch.iter().all(|(entry, fields)| entry.record_bytes() == PLACE_BYTES + fields.len()));
        let awaited = batch.iter().filter(|(entry, _)| entry.is_awaited).count();
        assert_eq!((batch.awaited.len(), batch.is_awaited()), (awaited, awaited > 0));
        assert_eq!(batch.unawaited_bytes(), 10 * (expected.len() - awaited));
    }

    #[test]
    fn events_leave_in_the_order_in_which_they_came_each_with_its_fields() {
        let mut waiting = EventBatch::default();
        let mut sent = batch(["a", "", "bcd"]);
        waiting.take_over(&mut sent);
        check(&sent, &[]);
        check(&waiting, &["a", "", "bcd"]);
        assert_eq!(waiting.take_first(1, ten).len(), 0);
        check(&waiting, &["", "bcd"]);
        sent.push_unawaited(&event("ef"), 10);
        push_awaited(&mut sent, "g");
        check(&sent, &["ef", "g"]);
        waiting.take_over(&mut sent);
        check(&sent, &[]);
        check(&waiting, &["", "bcd", "ef", "g"]);
        let replies = waiting.retain(ten, |entry, fields| !entry.is_awaited && fields != b"bcd");
        assert_eq!(replies.len(), 1);
        check(&waiting, &["", "ef"]);
        push_awaited(&mut waiting, "h");
        let replies = waiting.take_first(9, ten);
        assert_eq!(replies.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [2]);
        check(&waiting, &[]);
    }

    #[test]
    fn batch_that_never_empties_does_not_grow() {
        let mut waiting = batch(["first"; 10]);
        for round in 0..10_000 {
            waiting.take_over(&mut batch([format!("{round}-a"), format!("{round}-b")]));
            waiting.take_first(2, ten);
        }
        let last = [9995, 9996, 9997, 9998, 9999].map(|n| [format!("{n}-a"), format!("{n}-b")]);
        check(&waiting, &last.iter().flatten().map(String::as_str).collect::<Vec<_>>());
        let (events, bytes) = (waiting.entries.capacity(), waiting.fields.capacity());
        assert!(events < 100 && bytes < 1000, "{events} events, {bytes} bytes");
    }

    #[test]
    fn memory_of_a_burst_is_given_back() {
        let mut sent = batch(vec!["a".repeat(1 << 20); 8]);
        let mut waiting = EventBatch::default();
        waiting.take_over(&mut sent);
        waiting.take_first(8, ten);
        sent.take_over(&mut waiting);
        assert!(sent.fields.capacity() <= KEPT_BYTES && waiting.fields.capacity() <= KEPT_BYTES);
    }
}
