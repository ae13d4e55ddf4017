//! What those learn who wait for an event to be durable: a future each, or one waiter for many.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::AuditError;
use super::record::Head;

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
