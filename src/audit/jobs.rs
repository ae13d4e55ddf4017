//! The way to the writer: a queue of jobs, and a sleep from which only the jobs wake it that cannot wait.
//!
//! Waking a thread costs a call of the kernel. Events that nobody waits for come one at a time and many in a second, so the writer
//! gathers them: it sleeps until a time, and such an event does not wake it. Sending takes no lock.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, TryRecvError};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Instant;

use super::writer::Job;

/// What wakes the writer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum WakeOn {
    /// Any job.
    Any,
    /// Jobs that cannot wait.
    Urgent,
}

/// The writer does not sleep, or is being woken.
const AWAKE: u8 = 0;
/// It sleeps until any job comes.
const SLEEPS: u8 = 1;
/// It sleeps until a job comes that cannot wait.
const GATHERS: u8 = 2;

/// A way to send jobs. The writer learns when the last one is gone.
#[derive(Clone, Debug)]
pub(super) struct JobSender {
    jobs: mpsc::Sender<Job>,
    /// INVARIANT: dropped after `jobs`, hence declared after it.
    waker: WakeOnDrop,
}

/// Where the writer gets its jobs.
#[derive(Debug)]
pub(super) struct JobReceiver {
    jobs: mpsc::Receiver<Job>,
    sleep: Arc<WriterSleep>,
}

#[derive(Debug, Default)]
struct WriterSleep {
    state: AtomicU8,
    writer: OnceLock<Thread>,
}

/// Wakes the writer when it is dropped.
#[derive(Clone, Debug)]
struct WakeOnDrop(Arc<WriterSleep>);

/// Makes both ends.
pub(super) fn jobs() -> (JobSender, JobReceiver) {
    let (sender, receiver) = mpsc::channel();
    let sleep = Arc::<WriterSleep>::default();
    (JobSender { jobs: sender, waker: WakeOnDrop(Arc::clone(&sleep)) }, JobReceiver { jobs: receiver, sleep })
}

impl JobSender {
    /// Sends a job that the writer is to do at once. An error if it has ended.
    pub(super) fn send(&self, job: Job) -> Result<(), WriterGone> {
        self.jobs.send(job).map_err(|_| WriterGone)?;
        self.waker.0.wake(WakeOn::Urgent);
        Ok(())
    }

    /// Sends a job that may wait until the writer has gathered others.
    pub(super) fn send_gathered(&self, job: Job) -> Result<(), WriterGone> {
        self.jobs.send(job).map_err(|_| WriterGone)?;
        self.waker.0.wake(WakeOn::Any);
        Ok(())
    }
}

/// The writer has ended.
#[derive(Debug)]
pub(super) struct WriterGone;

impl JobReceiver {
    /// A job, if one is there.
    pub(super) fn try_recv(&self) -> Result<Job, TryRecvError> {
        self.jobs.try_recv()
    }

    /// Sleeps until `until`, or until a job comes that is to wake the writer. Returns a job that is there already at once. May also
    /// return early for no reason.
    pub(super) fn sleep(&self, wake_on: WakeOn, until: Instant) -> Option<Job> {
        let WriterSleep { state, writer } = &*self.sleep;
        writer.get_or_init(thread::current);
        state.store(if wake_on == WakeOn::Any { SLEEPS } else { GATHERS }, Ordering::SeqCst);
        // In one order with what a sender does: this sees its job, or it sees that the writer sleeps.
        let there = self.jobs.try_recv();
        if matches!(there, Err(TryRecvError::Empty)) {
            thread::park_timeout(until.saturating_duration_since(Instant::now()));
        }
        state.store(AWAKE, Ordering::SeqCst);
        there.ok()
    }
}

impl WriterSleep {
    /// Wakes the writer if it sleeps and this is to wake it.
    fn wake(&self, job: WakeOn) {
        let is_woken = match self.state.load(Ordering::SeqCst) {
            SLEEPS => true,
            GATHERS => job == WakeOn::Urgent,
            _ => false,
        };
        // One of many wakes it.
        if is_woken
            && self.state.swap(AWAKE, Ordering::SeqCst) != AWAKE
            && let Some(writer) = self.writer.get()
        {
            writer.unpark();
        }
    }
}

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        self.0.wake(WakeOn::Urgent);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const FAR: Duration = Duration::from_secs(3600);

    /// Waits until the writer sleeps.
    fn until_asleep(sender: &JobSender, state: u8) {
        while sender.waker.0.state.load(Ordering::SeqCst) != state {
            thread::yield_now();
        }
    }

    #[test]
    fn any_job_wakes_a_writer_that_has_nothing_to_do() {
        let (sender, receiver) = jobs();
        thread::scope(|scope| {
            let writer = scope.spawn(move || {
                while receiver.sleep(WakeOn::Any, Instant::now() + FAR).is_none()
                    && receiver.try_recv().is_err()
                {}
            });
            until_asleep(&sender, SLEEPS);
            sender.send_gathered(Job::Wake).unwrap();
            writer.join().unwrap();
        });
    }

    #[test]
    fn gathering_ends_with_an_urgent_job_and_finds_all_in_order() {
        let (sender, receiver) = jobs();
        thread::scope(|scope| {
            let writer = scope.spawn(move || {
                let mut taken = 0;
                // The last of the jobs is the one that wakes it.
                while taken < 4 {
                    taken += usize::from(receiver.sleep(WakeOn::Urgent, Instant::now() + FAR).is_some());
                    taken += std::iter::from_fn(|| receiver.try_recv().ok()).count();
                }
            });
            until_asleep(&sender, GATHERS);
            (0..3).for_each(|_| sender.send_gathered(Job::Wake).unwrap());
            assert_eq!(sender.waker.0.state.load(Ordering::SeqCst), GATHERS, "it sleeps on");
            sender.send(Job::Wake).unwrap();
            writer.join().unwrap();
        });
    }

    #[test]
    fn no_job_is_slept_through() {
        const JOBS: usize = 20_000;
        let (sender, receiver) = jobs();
        thread::scope(|scope| {
            for sender in [sender.clone(), sender] {
                scope.spawn(move || (0..JOBS).for_each(|_| sender.send_gathered(Job::Wake).unwrap()));
            }
            let mut taken = 0;
            loop {
                // Without the two looks after each other, this would sleep for an hour.
                taken += usize::from(receiver.sleep(WakeOn::Any, Instant::now() + FAR).is_some());
                match receiver.try_recv() {
                    Ok(_) => taken += 1,
                    Err(TryRecvError::Empty) => {}
                    // Both senders are gone: that woke it, too.
                    Err(TryRecvError::Disconnected) => break,
                }
            }
            assert_eq!(taken, 2 * JOBS);
        });
    }
}
