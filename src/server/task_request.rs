//! Asking tasks for something that takes each of them a moment, and hearing when all have done it.

use std::future::pending;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

/// Asks every task that listens. Clones ask the same ones.
#[derive(Clone, Debug)]
pub(super) struct TaskRequests(broadcast::Sender<TaskRequest>);

/// What a task is asked for; done once it is dropped.
#[derive(Clone, Debug)]
pub(super) struct TaskRequest {
    _done: mpsc::Sender<()>,
}

/// Where a task hears what it is asked for.
#[derive(Debug)]
pub(super) struct TaskRequestListener(broadcast::Receiver<TaskRequest>);

impl Default for TaskRequests {
    fn default() -> Self {
        Self(broadcast::Sender::new(MOST_WAITING))
    }
}

impl TaskRequests {
    /// Listens from now on.
    pub(super) fn listen(&self) -> TaskRequestListener {
        TaskRequestListener(self.0.subscribe())
    }

    /// Returns once each task that listens now has done it or ended.
    pub(super) async fn ask(&self) {
        let (request, mut done) = mpsc::channel(1);
        // Without a listener it is dropped at once.
        _ = self.0.send(TaskRequest { _done: request });
        // Nothing is ever sent: the channel closes with the last copy of the request.
        _ = done.recv().await;
    }
}

impl TaskRequestListener {
    /// Waits for the next request; forever if nobody can ask any more.
    pub(super) async fn next(&mut self) -> TaskRequest {
        loop {
            match self.0.recv().await {
                Ok(request) => return request,
                // What was missed is done by the next one, which waits already.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => pending().await,
            }
        }
    }
}

/// Requests that a task has not heard yet; an older one counts as done.
const MOST_WAITING: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Waker};

    #[tokio::test]
    async fn a_request_is_done_when_every_listener_has_done_it() {
        let requests = TaskRequests::default();
        requests.ask().await;
        let (mut first, mut second, third) = (requests.listen(), requests.listen(), requests.listen());
        let mut asking = pin!(requests.ask());
        let mut is_done = || asking.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        assert!(!is_done());
        drop(first.next().await);
        assert!(!is_done());
        let request = second.next().await;
        assert!(!is_done());
        // Its task ended and never heard of it.
        drop(third);
        assert!(!is_done());
        drop(request);
        assert!(is_done());
    }
}
