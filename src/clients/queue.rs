//! Jobs that wait for one place where they are done, all that wait at once. There is a thread for it only while there is work.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ClientsError;

/// The most jobs that are done at once, so that the first of them does not wait for many.
const BATCH: usize = 256;

/// A bounded queue of jobs.
#[derive(Debug)]
pub(super) struct JobQueue<J> {
    places: usize,
    waiting: Mutex<Waiting<J>>,
}

#[derive(Debug)]
struct Waiting<J> {
    jobs: VecDeque<J>,
    /// Whether there is a thread that does them.
    is_worked: bool,
}

impl<J: Send + 'static> JobQueue<J> {
    /// A queue with so many places.
    pub(super) fn new(places: usize) -> Arc<Self> {
        let waiting = Mutex::new(Waiting { jobs: VecDeque::new(), is_worked: false });
        Arc::new(Self { places, waiting })
    }

    /// Takes a job, which `work` does with those that wait before and behind it: in order, and never on two threads at the same
    /// time. What waits when `work` panics is dropped.
    ///
    /// # Errors
    /// [`ClientsError::Busy`] if there is no place.
    pub(super) fn push(
        self: &Arc<Self>,
        job: J,
        work: impl Fn(Vec<J>) + Send + 'static,
    ) -> Result<(), ClientsError> {
        let mut waiting = self.lock();
        if waiting.jobs.len() >= self.places {
            return Err(ClientsError::Busy);
        }
        waiting.jobs.push_back(job);
        if !waiting.is_worked {
            waiting.is_worked = true;
            let queue = Arc::clone(self);
            // It waits for a disk, which no thread that answers does.
            drop(tokio::task::spawn_blocking(move || queue.work(&work)));
        }
        Ok(())
    }

    fn work(&self, work: &impl Fn(Vec<J>)) {
        let _ended = WorkEnd(self);
        loop {
            let mut waiting = self.lock();
            if waiting.jobs.is_empty() {
                waiting.is_worked = false;
                return;
            }
            let count = waiting.jobs.len().min(BATCH);
            let jobs = waiting.jobs.drain(..count).collect();
            drop(waiting);
            work(jobs);
        }
    }
}

impl<J> JobQueue<J> {
    fn lock(&self) -> MutexGuard<'_, Waiting<J>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the next job have a thread after a panic.
struct WorkEnd<'q, J>(&'q JobQueue<J>);

impl<J> Drop for WorkEnd<'_, J> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut waiting = self.0.lock();
            waiting.is_worked = false;
            waiting.jobs.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_waits_is_done_at_once_and_what_finds_no_place_is_refused() {
        let queue = JobQueue::new(2);
        let (started, begun) = oneshot::channel();
        let (release, released) = mpsc::channel::<()>();
        let (sender, receiver) = mpsc::channel();
        let (started, released) = (Mutex::new(Some(started)), Mutex::new(released));
        let work = Arc::new(move |jobs: Vec<u32>| {
            if let Some(started) = started.lock().unwrap().take() {
                started.send(()).unwrap();
                released.lock().unwrap().recv().unwrap();
            }
            sender.send(jobs).unwrap();
        });
        let push = |job| {
            let work = Arc::clone(&work);
            queue.push(job, move |jobs| work(jobs))
        };
        push(1).unwrap();
        begun.await.unwrap();
        push(2).unwrap();
        push(3).unwrap();
        assert!(matches!(push(4), Err(ClientsError::Busy)));
        release.send(()).unwrap();
        let done = tokio::task::spawn_blocking(move || [receiver.recv().unwrap(), receiver.recv().unwrap()]);
        assert_eq!(done.await.unwrap(), [vec![1], vec![2, 3]]);
    }

    #[tokio::test]
    async fn a_panic_ends_what_waits_and_nothing_later() {
        let queue = JobQueue::new(2);
        let (outcome, done) = oneshot::channel::<()>();
        queue.push(outcome, |_| panic!("out of luck")).unwrap();
        done.await.unwrap_err();
        // The thread has not ended before its guard is dropped; until then the job waits behind it, or is dropped.
        while queue.lock().is_worked {
            tokio::task::yield_now().await;
        }
        let (outcome, done) = oneshot::channel::<()>();
        queue.push(outcome, |jobs| jobs.into_iter().for_each(|job| job.send(()).unwrap())).unwrap();
        done.await.unwrap();
    }
}
