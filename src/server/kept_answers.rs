//! The answers of a connection that are ready and wait until their record is durable.
//!
//! One commit of the audit makes many of them ready to leave. Their connection is woken once and sends them all; the tasks that
//! decided them take other calls meanwhile. Calls that are reset or too late while they wait are looked for now and then, since
//! a record that takes longer than a moment is rare.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use h2::server::SendResponse;
use slab::Slab;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Code;
use tracing::error;

use super::response::{Chunk, Ended, Held, send_answer, send_status};
use crate::audit::{AppendReply, AppendWaiter, AuditError, Recorded};
use crate::rpc::error::RpcError;
use crate::rpc::record::{RecordWait, not_durable};

/// The answers of one connection. Tasks of its calls add them, the audit says that their records are durable.
#[derive(Debug, Default)]
pub(super) struct KeptAnswers {
    state: Mutex<KeptState>,
    connection: AtomicWaker,
}

#[derive(Debug, Default)]
struct KeptState {
    /// By the key of the record.
    slots: Slab<AnswerSlot>,
    settled: Vec<SettledAnswer>,
    /// When the connection looks at those that wait; `None` while it does not.
    looks_at: Option<Instant>,
    /// The connection has ended.
    is_closed: bool,
}

/// What is known of an answer whose record is not settled, or which is not here yet.
#[derive(Debug)]
enum AnswerSlot {
    /// It is being made.
    Expected,
    /// Its record was settled before it came.
    Settled(Result<(), RpcError>),
    /// It waits.
    Kept(KeptAnswer),
    /// Nobody waits for it any more.
    Given,
}

/// An answer that may leave once its record is durable.
#[derive(Debug)]
pub(super) struct KeptAnswer {
    pub(super) bytes: Bytes,
    pub(super) respond: SendResponse<Chunk>,
    pub(super) held: Held,
    /// When the response must begin.
    pub(super) deadline: Instant,
}

/// An answer that waits no longer, and what becomes of it.
#[derive(Debug)]
pub(super) struct SettledAnswer {
    answer: KeptAnswer,
    outcome: Result<(), Ended>,
}

impl KeptAnswers {
    /// Keeps an answer until the record of this key is settled.
    pub(super) fn keep(&self, key: usize, answer: KeptAnswer) {
        let mut state = self.lock();
        let is_closed = state.is_closed;
        let Some(slot) = state.slots.get_mut(key) else { return };
        if matches!(slot, AnswerSlot::Settled(_)) {
            if let AnswerSlot::Settled(outcome) = state.slots.remove(key)
                && !is_closed
            {
                state.settled.push(SettledAnswer { answer, outcome: outcome.map_err(Ended::from) });
                drop(state);
                self.connection.wake();
            }
            return;
        }
        if is_closed {
            *slot = AnswerSlot::Given;
            return;
        }
        let deadline = answer.deadline;
        *slot = AnswerSlot::Kept(answer);
        if state.looks_at.is_none_or(|at| deadline < at) {
            state.looks_at = Some(deadline.min(Instant::now() + LOOK_INTERVAL));
            drop(state);
            // It has to know when to look.
            self.connection.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, KeptState> {
        // What is behind it is whole whenever something panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RecordWait for Arc<KeptAnswers> {
    type Waiting = usize;

    fn expect(&self) -> (AppendReply, usize) {
        let key = self.lock().slots.insert(AnswerSlot::Expected);
        (AppendReply::to(Arc::clone(self) as Arc<dyn AppendWaiter>, key), key)
    }
}

impl AppendWaiter for KeptAnswers {
    fn settle(&self, key: usize, outcome: Result<Recorded, AuditError>) -> bool {
        let outcome = outcome.map(drop).map_err(|error| not_durable(&error));
        let mut state = self.lock();
        match state.slots.get_mut(key) {
            Some(slot @ AnswerSlot::Expected) => {
                *slot = AnswerSlot::Settled(outcome);
                false
            }
            Some(AnswerSlot::Kept(_)) => {
                let is_first = state.settled.is_empty();
                if let AnswerSlot::Kept(answer) = state.slots.remove(key) {
                    state.settled.push(SettledAnswer { answer, outcome: outcome.map_err(Ended::from) });
                }
                is_first
            }
            Some(AnswerSlot::Given) => {
                state.slots.remove(key);
                false
            }
            // A record is settled once.
            Some(AnswerSlot::Settled(_)) | None => false,
        }
    }

    fn wake(&self) {
        self.connection.wake();
    }
}

/// The side of the connection. When it is dropped, the connection has ended, and answers that wait are dropped with it.
#[derive(Debug)]
pub(super) struct SettledAnswers {
    kept: Arc<KeptAnswers>,
    look: Option<Pin<Box<Sleep>>>,
}

impl SettledAnswers {
    pub(super) const fn of(kept: Arc<KeptAnswers>) -> Self {
        Self { kept, look: None }
    }

    /// The answers that wait no longer, at least one. Dropping the future loses none.
    pub(super) async fn next(&mut self) -> Vec<SettledAnswer> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Vec<SettledAnswer>> {
        let Self { kept, look } = self;
        kept.connection.register(cx.waker());
        let mut state = kept.lock();
        loop {
            if !state.settled.is_empty() {
                return Poll::Ready(std::mem::take(&mut state.settled));
            }
            let Some(at) = state.looks_at else { return Poll::Pending };
            let timer = look.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if timer.deadline() != at {
                timer.as_mut().reset(at);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            state.look(cx);
        }
    }
}

impl Drop for SettledAnswers {
    fn drop(&mut self) {
        let mut state = self.kept.lock();
        state.is_closed = true;
        let mut dropped = std::mem::take(&mut state.settled);
        for (_, slot) in &mut state.slots {
            if matches!(slot, AnswerSlot::Kept(_))
                && let AnswerSlot::Kept(answer) = std::mem::replace(slot, AnswerSlot::Given)
            {
                dropped.push(SettledAnswer { answer, outcome: Err(Ended::Gone) });
            }
        }
        // What they hold is given back without the lock.
        drop(state);
    }
}

impl KeptState {
    /// Takes out those that were reset or have waited too long, and says when to look again.
    fn look(&mut self, cx: &mut Context<'_>) {
        let Self { slots, settled, looks_at, .. } = self;
        let now = Instant::now();
        *looks_at = None;
        for (_, slot) in slots {
            let AnswerSlot::Kept(answer) = slot else { continue };
            let outcome = if answer.respond.poll_reset(cx).is_ready() {
                Ended::Gone
            } else if answer.deadline <= now {
                RpcError::DeadlineExceeded.into()
            } else {
                let next = answer.deadline.min(now + LOOK_INTERVAL);
                *looks_at = Some(looks_at.map_or(next, |at| at.min(next)));
                continue;
            };
            if let AnswerSlot::Kept(answer) = std::mem::replace(slot, AnswerSlot::Given) {
                settled.push(SettledAnswer { answer, outcome: Err(outcome) });
            }
        }
    }
}

impl SettledAnswer {
    /// Sends it, or why there is none. What has to wait for the peer is left to a task of its own.
    pub(super) fn send(self, progress: Duration) {
        let Self { answer: KeptAnswer { bytes, mut respond, mut held, .. }, outcome } = self;
        // A panic is a fault of this call alone.
        let sent = outcome.and_then(|()| {
            catch_unwind(AssertUnwindSafe(|| send_answer(bytes, &mut respond, &mut held, progress)))
                .unwrap_or_else(|_| {
                    error!("sending an answer panicked");
                    Err(RpcError::Internal.into())
                })
        });
        let code = match sent {
            Ok(None) => Code::Ok,
            Ok(Some(rest)) => {
                // Its last bytes have the call with them, however it ends.
                tokio::spawn(async move { _ = rest.await });
                return;
            }
            Err(Ended::Gone) => Code::Cancelled,
            Err(Ended::Status(status)) => {
                held.iter_mut().for_each(|held| held.give_back());
                send_status(&mut respond, status)
            }
        };
        // It may be on its way with the last bytes of the answer.
        if let Some(held) = held {
            held.end(code);
        }
    }
}

/// How often answers that wait are looked at, in case their callers are gone.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
