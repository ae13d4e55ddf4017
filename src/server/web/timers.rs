//! Timers of a connection that are used again: one that is set to a later time costs next to nothing, and a new one a lock that all threads
//! share, twice.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// The timers that nobody uses now. Clones share them.
#[derive(Clone, Debug, Default)]
pub(in crate::server) struct SpareTimers(Arc<Mutex<Vec<Pin<Box<Sleep>>>>>);

impl SpareTimers {
    /// A time from now on.
    pub(in crate::server) fn timer(&self, time: Duration) -> ConnectionTimer {
        let until = Instant::now() + time;
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let sleep = match spare {
            Some(mut sleep) => {
                sleep.as_mut().reset(until);
                sleep
            }
            None => Box::pin(sleep_until(until)),
        };
        ConnectionTimer { sleep: Some(sleep), spare: self.clone() }
    }

    /// What comes of `work`; `None` if it takes longer than `time`, which begins when somebody has to wait.
    pub(in crate::server) async fn within<T>(
        &self,
        time: Duration,
        work: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        let mut work = work;
        let mut timer = None;
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            timer.get_or_insert_with(|| self.timer(time)).poll_over(cx).map(|()| None)
        })
        .await
    }
}

/// A timer in use, which is spare again when it is dropped.
#[derive(Debug)]
pub(in crate::server) struct ConnectionTimer {
    /// There until it is dropped.
    sleep: Option<Pin<Box<Sleep>>>,
    spare: SpareTimers,
}

impl ConnectionTimer {
    /// Ready once the time is over.
    pub(in crate::server) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().map_or(Poll::Ready(()), |sleep| sleep.as_mut().poll(cx))
    }
}

impl Drop for ConnectionTimer {
    fn drop(&mut self) {
        let mut spare = self.spare.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that is over would have to be made again as well.
        if let Some(sleep) = self.sleep.take().filter(|sleep| !sleep.is_elapsed())
            && spare.len() < MOST_SPARE
        {
            spare.push(sleep);
        }
    }
}

/// As many as one request needs.
const MOST_SPARE: usize = 2;

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_is_used_again_has_its_new_time() {
        let timers = SpareTimers::default();
        let second = Duration::from_secs(1);
        let begin = Instant::now();
        assert_eq!(timers.within(second, pin!(async { 1 })).await, Some(1));
        assert_eq!(timers.0.lock().unwrap().len(), 0, "nobody had to wait");
        let half = async {
            tokio::time::sleep(second / 2).await;
            2
        };
        assert_eq!(timers.within(second, pin!(half)).await, Some(2));
        assert_eq!(timers.0.lock().unwrap().len(), 1);
        assert_eq!(timers.within(2 * second, pin!(std::future::pending::<()>())).await, None);
        assert_eq!(begin.elapsed().as_millis() / 100, 25, "two seconds after the half");
        assert_eq!(timers.within(second / 4, pin!(std::future::pending::<()>())).await, None);
        drop([0; 4].map(|_| timers.timer(second)));
        assert_eq!(timers.0.lock().unwrap().len(), MOST_SPARE);
    }
}
