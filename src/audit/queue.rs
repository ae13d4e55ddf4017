//! The queue of events that wait to be written: how much may wait, and who adds and takes.
//!
//! The room of an event that somebody waits for is taken before its question is decided, so that a
//! decision is never made that cannot be recorded; the rest of the reservation is given back when
//! the event is known. Events that nobody waits for have room of their own, so that they never
//! cost a caller an answer.
//!
//! The lock is held while one event is copied, or while the writer takes all of them, which copies none.

use std::mem;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::batch::{EventBatch, QueuedEvent};
use super::encoding::EncodedEvent;
use super::record::PLACE_BYTES;
use super::reply::AppendReply;
use crate::budget::{Budget, Exhausted, Permit};

/// The least that an entry takes: what it needs in memory next to its bytes, and a share of what a
/// transaction costs.
const LEAST_BYTES: usize = 1024;

/// The events that were sent and that the writer has not taken, and the count of those that it has.
#[derive(Debug)]
pub(super) struct EventQueue {
    sent: OwnLine<Mutex<SentEvents>>,
    awaited: Budget,
    /// The most room that events may take that nobody waits for.
    limit: usize,
    /// The room of those of them that the writer has.
    at_writer: AtomicUsize,
    /// Events that the writer ever took.
    taken: AtomicU64,
    /// Those of them that were written, refused or given up.
    left: AtomicU64,
}

/// Begins where a line of the processor's caches begins.
#[derive(Debug, Default)]
#[repr(align(64))]
struct OwnLine<T>(T);

#[derive(Debug, Default)]
#[repr(C)]
struct SentEvents {
    events: EventBatch,
    /// The writer has ended: nobody takes any more.
    is_closed: bool,
}

/// Why an event was not put into the queue.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(super) enum NotQueued {
    /// The writer has ended.
    #[error("the writer has ended")]
    Closed,
    /// There is no room.
    #[error(transparent)]
    Full(#[from] Exhausted),
}

impl EventQueue {
    /// A queue for so many bytes: half for events that somebody waits for, half for those that nobody does.
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            sent: OwnLine::default(),
            awaited: Budget::new(bytes / 2),
            limit: bytes / 2,
            at_writer: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            left: AtomicU64::new(0),
        }
    }

    fn sent(&self) -> MutexGuard<'_, SentEvents> {
        self.sent.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for an event of about so many bytes, for somebody who will wait for it.
    pub(super) fn reserve(&self, bytes: usize) -> Result<Permit, Exhausted> {
        self.awaited.take(self.charge(bytes))
    }

    /// Fits a reservation to the bytes of the event that it was made for.
    pub(super) fn fit(&self, room: &mut Permit, bytes: usize) -> Result<(), Exhausted> {
        let bytes = self.charge(bytes);
        match bytes.checked_sub(room.amount()) {
            Some(more) => room.grow(more)?,
            None => room.shrink_to(bytes),
        }
        Ok(())
    }

    /// The room of an event whose record has at most so many bytes. One that is larger than the budget may have all of it.
    fn charge(&self, bytes: usize) -> usize {
        bytes.max(LEAST_BYTES).min(self.limit)
    }

    /// Adds an event that somebody waits for, in its room. If the queue is closed, its reply says so.
    pub(super) fn push_awaited(
        &self,
        event: &EncodedEvent,
        reply: AppendReply,
        room: Permit,
    ) -> Result<(), NotQueued> {
        let mut sent = self.sent();
        if sent.is_closed {
            // Who waits may do anything when it learns it.
            drop(sent);
            return Err(NotQueued::Closed);
        }
        sent.events.push_awaited(event, reply, room);
        Ok(())
    }

    /// Adds an event that nobody waits for. Returns `true` if so much waits that it should be written soon.
    pub(super) fn push_unawaited(&self, event: &EncodedEvent) -> Result<bool, NotQueued> {
        let bytes = self.charge(PLACE_BYTES + event.fields().len());
        let mut sent = self.sent();
        if sent.is_closed {
            return Err(NotQueued::Closed);
        }
        let used = self.unawaited_bytes(&sent);
        if used.checked_add(bytes).is_none_or(|sum| sum > self.limit) {
            return Err(Exhausted { limit: self.limit, used, asked: bytes }.into());
        }
        sent.events.push_unawaited(event, bytes);
        Ok(self.is_much(used + bytes))
    }

    fn unawaited_bytes(&self, sent: &SentEvents) -> usize {
        sent.events.unawaited_bytes() + self.at_writer.load(Ordering::Relaxed)
    }

    const fn is_much(&self, bytes: usize) -> bool {
        bytes > self.limit / 4
    }

    /// Whether so much waits that nobody waits for that it should be written soon.
    pub(super) fn is_filling(&self) -> bool {
        self.is_much(self.unawaited_bytes(&self.sent()))
    }

    /// Whether an event is there that the writer has not taken: any, or only what it is to be woken for while it gathers.
    pub(super) fn has_event(&self, urgent: bool) -> bool {
        let sent = self.sent();
        let is_urgent = || sent.events.is_awaited() || self.is_much(self.unawaited_bytes(&sent));
        !sent.events.is_empty() && (!urgent || is_urgent())
    }

    /// How often there was no room for an event that somebody would have waited for.
    pub(super) fn refused(&self) -> u64 {
        self.awaited.refused()
    }

    /// The bytes that wait.
    pub(super) fn used(&self) -> usize {
        self.awaited.used() + self.unawaited_bytes(&self.sent())
    }

    /// How many events the queue ever got, and how many of them have left it.
    pub(super) fn counts(&self) -> (u64, u64) {
        // In this order, so that nothing seems to have left that never entered.
        let left = self.left.load(Ordering::Acquire);
        let sent = self.sent();
        (self.taken.load(Ordering::Relaxed) + sent.events.len() as u64, left)
    }

    /// How many events wait.
    pub(super) fn waiting(&self) -> u64 {
        let (entered, left) = self.counts();
        entered.saturating_sub(left)
    }

    /// Moves all events to the end of `waiting`. `spare` is an empty batch, whose memory is for the events to come; it is empty again
    /// then, with other memory. Returns `true` if somebody waits for one of the events. For the writer alone, as all that follows.
    pub(super) fn take(&self, waiting: &mut EventBatch, spare: &mut EventBatch) -> bool {
        let mut sent = self.sent();
        if sent.events.is_empty() {
            return false;
        }
        self.taken.fetch_add(sent.events.len() as u64, Ordering::Relaxed);
        self.at_writer.fetch_add(sent.events.unawaited_bytes(), Ordering::Relaxed);
        mem::swap(&mut sent.events, spare);
        drop(sent);
        let is_awaited = spare.is_awaited();
        waiting.take_over(spare);
        is_awaited
    }

    /// Takes the first `count` of `waiting` out, and their room. Returns who waits for them, each with the number of its event, from 0.
    pub(super) fn leave_first(&self, waiting: &mut EventBatch, count: usize) -> Vec<(usize, AppendReply)> {
        self.leave(waiting, |waiting| waiting.take_first(count, |bytes| self.charge(bytes)))
    }

    /// Takes those of `waiting` out of which `stays` does not say that they stay, and their room. Returns who waits for them.
    pub(super) fn leave_unless(
        &self,
        waiting: &mut EventBatch,
        stays: impl FnMut(QueuedEvent, &[u8]) -> bool,
    ) -> Vec<AppendReply> {
        self.leave(waiting, |waiting| waiting.retain(|bytes| self.charge(bytes), stays))
    }

    fn leave<T>(&self, waiting: &mut EventBatch, work: impl FnOnce(&mut EventBatch) -> T) -> T {
        let (events, bytes) = (waiting.len(), waiting.unawaited_bytes());
        let done = work(waiting);
        self.at_writer.fetch_sub(bytes - waiting.unawaited_bytes(), Ordering::Relaxed);
        self.left.fetch_add((events - waiting.len()) as u64, Ordering::AcqRel);
        done
    }

    /// Takes no event from now on. Those that the writer has not taken are gone; who waits for them learns that the log is closed.
    pub(super) fn close(&self) {
        let mut gone = EventBatch::default();
        self.sent().is_closed = true;
        self.take(&mut gone, &mut EventBatch::default());
        self.leave_first(&mut gone, usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::tests::event;
    use super::*;

    fn take(queue: &EventQueue, waiting: &mut EventBatch) -> bool {
        queue.take(waiting, &mut EventBatch::default())
    }

    fn push(queue: &EventQueue, fields: &str) -> Result<bool, NotQueued> {
        queue.push_unawaited(&event(fields))
    }

    #[test]
    fn room_is_taken_with_each_event_and_given_back_when_it_leaves() {
        let queue = EventQueue::new(8 * LEAST_BYTES);
        assert!(!push(&queue, "a").unwrap(), "a quarter is not much");
        assert!(queue.has_event(false) && !queue.has_event(true));
        assert!(push(&queue, "b").unwrap());
        assert!(queue.has_event(true));
        push(&queue, "c").unwrap();
        assert!(matches!(push(&queue, &"d".repeat(2 * LEAST_BYTES)), Err(NotQueued::Full(_))));
        assert_eq!((queue.used(), queue.counts()), (3 * LEAST_BYTES, (3, 0)));
        let mut waiting = EventBatch::default();
        take(&queue, &mut waiting);
        assert_eq!((queue.used(), queue.counts(), queue.waiting()), (3 * LEAST_BYTES, (3, 0), 3));
        assert!(!queue.has_event(false) && !queue.has_event(true), "the writer has them");
        push(&queue, "e").unwrap();
        assert!(push(&queue, "f").is_err(), "what the writer has takes room as well");
        queue.leave_first(&mut waiting, 2);
        assert_eq!((queue.used(), queue.counts(), queue.waiting()), (2 * LEAST_BYTES, (4, 2), 2));
        take(&queue, &mut waiting);
        queue.leave_unless(&mut waiting, |_, fields| fields == b"c");
        assert_eq!((queue.used(), queue.counts()), (LEAST_BYTES, (4, 3)));
        queue.leave_first(&mut waiting, 9);
        assert_eq!((queue.used(), queue.counts()), (0, (4, 4)));
    }

    #[test]
    fn event_that_is_larger_than_the_budget_may_have_all_of_it() {
        let queue = EventQueue::new(8 * LEAST_BYTES);
        let large = "a".repeat(9 * LEAST_BYTES);
        push(&queue, &large).unwrap();
        assert_eq!(queue.used(), 4 * LEAST_BYTES);
        assert!(push(&queue, "b").is_err());
        let mut waiting = EventBatch::default();
        take(&queue, &mut waiting);
        queue.leave_first(&mut waiting, 1);
        assert_eq!(queue.used(), 0);
        push(&queue, "b").unwrap();
    }

    #[test]
    fn events_that_somebody_waits_for_have_room_of_their_own() {
        let queue = EventQueue::new(4 * LEAST_BYTES);
        push(&queue, "a").unwrap();
        let (reply, _appending) = AppendReply::future();
        let mut room = queue.reserve(0).unwrap();
        queue.fit(&mut room, 2 * LEAST_BYTES).unwrap();
        assert!(queue.reserve(0).is_err());
        queue.push_awaited(&event("b"), reply, room).unwrap();
        assert_eq!((queue.used(), queue.refused()), (3 * LEAST_BYTES, 1));
        let mut waiting = EventBatch::default();
        assert!(take(&queue, &mut waiting));
        push(&queue, "c").unwrap();
        assert!(!take(&queue, &mut waiting) && waiting.is_awaited(), "nobody waits for what was taken now");
        let replies = queue.leave_unless(&mut waiting, |event, _| !event.is_awaited);
        assert_eq!((replies.len(), queue.used(), queue.waiting()), (1, 2 * LEAST_BYTES, 2));
    }

    #[test]
    fn many_threads_never_exceed_the_limit() {
        let queue = EventQueue::new(8 * LEAST_BYTES);
        std::thread::scope(|scope| {
            let pushing: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..2_000).filter(|_| push(&queue, "a").is_ok()).count()))
                .collect();
            let mut waiting = EventBatch::default();
            while pushing.iter().any(|thread| !thread.is_finished()) {
                take(&queue, &mut waiting);
                assert!(waiting.len() <= 4 && queue.used() <= 4 * LEAST_BYTES);
                queue.leave_first(&mut waiting, 1);
            }
            take(&queue, &mut waiting);
            queue.leave_first(&mut waiting, usize::MAX);
            let pushed: usize = pushing.into_iter().map(|thread| thread.join().unwrap()).sum();
            assert_eq!((queue.used(), queue.counts()), (0, (pushed as u64, pushed as u64)));
        });
    }
}
