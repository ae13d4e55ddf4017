//! The queue of events that wait to be written: what one entry takes, and how much may wait.
//!
//! The room of an event that somebody waits for is taken before its question is decided, so that a
//! decision is never made that cannot be recorded; the rest of the reservation is given back when
//! the event is known. Events that nobody waits for have room of their own, so that they never
//! cost a caller an answer.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::AuditError;
use super::encoding::EncodedEvent;
use super::record::Head;
use crate::budget::{Budget, Exhausted, Permit};

/// The least that an entry takes: what it needs in memory next to its bytes, and a share of what a
/// transaction costs.
const LEAST_BYTES: usize = 1024;

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

    /// Takes room for an event of so many bytes that nobody waits for.
    pub(super) fn take(&self, bytes: usize) -> Result<Permit, Exhausted> {
        self.unawaited.take(charge(bytes).min(self.unawaited.limit()))
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

/// A record that waits to be written.
pub(super) struct QueuedEvent {
    /// The event, without a place in the chain.
    pub(super) event: EncodedEvent,
    /// The most bytes that its record can have.
    pub(super) bytes: usize,
    /// Who waits for it; `None` if nobody does, and then it is kept until it can be written.
    pub(super) reply: Option<AppendReply>,
    /// The room it takes in the queue.
    pub(super) _room: Permit,
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
