//! The tasks that answer the calls of a connection: each has one call at a time, and another one after it.
//!
//! A call is a task, so that what one does never stops another. To make a task and to end it costs more than to hand a call to one
//! that has nothing to do, so a few wait for the next call of their connection, and end with it.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Tasks of one connection that wait for a call `C`.
pub(super) struct IdleTasks<C>(Mutex<Vec<Arc<TaskSlot<C>>>>);

/// Where a task finds its next call.
pub(super) struct TaskSlot<C>(Mutex<SlotState<C>>);

struct SlotState<C> {
    call: Option<C>,
    waker: Option<Waker>,
    /// Nothing comes any more.
    is_closed: bool,
}

impl<C> fmt::Debug for IdleTasks<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("IdleTasks").field(&lock(&self.0).len()).finish()
    }
}

impl<C> Default for IdleTasks<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<C> IdleTasks<C> {
    /// Hands a call to a task that waits; gives it back if there is none.
    pub(super) fn hand_over(&self, call: C) -> Result<(), C> {
        let Some(slot) = lock(&self.0).pop() else { return Err(call) };
        let mut state = lock(&slot.0);
        state.call = Some(call);
        if let Some(waker) = &state.waker {
            waker.wake_by_ref();
        }
        Ok(())
    }

    /// Keeps a task that has nothing to do, unless enough wait already.
    pub(super) fn keep(&self, slot: &Arc<TaskSlot<C>>) -> bool {
        let mut idle = lock(&self.0);
        let is_kept = idle.len() < MAX_IDLE_TASKS;
        if is_kept {
            idle.push(Arc::clone(slot));
        }
        is_kept
    }
}

impl<C> Drop for IdleTasks<C> {
    fn drop(&mut self) {
        for slot in lock(&self.0).drain(..) {
            let mut state = lock(&slot.0);
            state.is_closed = true;
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        }
    }
}

impl<C> TaskSlot<C> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(SlotState { call: None, waker: None, is_closed: false })))
    }

    /// The next call; `None` once nothing comes any more.
    pub(super) async fn next(&self) -> Option<C> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<C>> {
        let mut state = lock(&self.0);
        if state.call.is_some() || state.is_closed {
            return Poll::Ready(state.call.take());
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these is whole whenever something panics.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The most tasks of a connection that wait for a call; each takes about as much memory as a call.
const MAX_IDLE_TASKS: usize = 16;

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn a_task_that_waits_gets_the_next_call_and_ends_with_its_connection() {
        let idle = Arc::new(IdleTasks::default());
        assert_eq!(idle.hand_over(1), Err(1), "nobody waits");
        let slot = TaskSlot::new();
        assert!(idle.keep(&slot));
        assert_eq!(idle.hand_over(2), Ok(()));
        assert_eq!(slot.next().await, Some(2), "what came before it waited");
        let (waiting, keeper) = (Arc::clone(&slot), Arc::clone(&idle));
        let task = tokio::spawn(async move {
            let mut calls = Vec::new();
            loop {
                assert!(keeper.keep(&waiting));
                let Some(call) = waiting.next().await else { return calls };
                calls.push(call);
                if call == 4 {
                    // Nothing but the task itself holds the connection now.
                    drop(keeper);
                    assert_eq!(waiting.next().await, None);
                    return calls;
                }
            }
        });
        for mut call in 3..5 {
            while let Err(back) = idle.hand_over(call) {
                call = back;
                tokio::task::yield_now().await;
            }
        }
        assert!(idle.keep(&slot));
        drop(idle);
        assert_eq!(task.await.unwrap(), [3, 4]);
    }

    #[test]
    fn no_more_tasks_wait_than_are_worth_it() {
        let idle = IdleTasks::<()>::default();
        let kept = (0..2 * MAX_IDLE_TASKS).filter(|_| idle.keep(&TaskSlot::new())).count();
        assert_eq!(kept, MAX_IDLE_TASKS);
        let slot = TaskSlot::<()>::new();
        let mut next = pin!(slot.next());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Future::poll(next.as_mut(), &mut cx).is_pending());
    }
}
