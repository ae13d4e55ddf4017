//! The way to the writer: a queue of events, one of other jobs, and a sleep from which only those wake it that cannot wait.
//!
//! Waking a thread costs a call of the kernel. Events that nobody waits for come one at a time and many in a second, so the writer
//! gathers them: it sleeps until a time, and such an event does not wake it.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, TryRecvError};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Instant;

use super::encoding::EncodedEvent;
use super::queue::{EventQueue, NotQueued};
use super::reply::AppendReply;
use super::writer::Job;
use crate::budget::Permit;

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

/// A way to send events and jobs. The writer learns when the last one is gone.
#[derive(Clone, Debug)]
pub(super) struct JobSender {
    jobs: mpsc::Sender<Job>,
    queue: Arc<EventQueue>,
    /// INVARIANT: dropped after `jobs`, hence declared after it.
    waker: WakeOnDrop,
}

/// Where the writer gets its events and jobs.
#[derive(Debug)]
pub(super) struct JobReceiver {
    jobs: mpsc::Receiver<Job>,
    queue: Arc<EventQueue>,
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

/// Makes both ends of the way that has this queue of events.
pub(super) fn jobs(queue: Arc<EventQueue>) -> (JobSender, JobReceiver) {
    let (sender, receiver) = mpsc::channel();
    let sleep = Arc::<WriterSleep>::default();
    let waker = WakeOnDrop(Arc::clone(&sleep));
    (
        JobSender { jobs: sender, queue: Arc::clone(&queue), waker },
        JobReceiver { jobs: receiver, queue, sleep },
    )
}

impl JobSender {
    /// Sends a job that the writer is to do at once. An error if it has ended.
    pub(super) fn send(&self, job: Job) -> Result<(), WriterGone> {
        self.jobs.send(job).map_err(|_| WriterGone)?;
        self.waker.0.wake(WakeOn::Urgent);
        Ok(())
    }

    /// Sends an event that somebody waits for, in its room, and wakes the writer.
    pub(super) fn append(
        &self,
        event: &EncodedEvent,
        reply: AppendReply,
        room: Permit,
    ) -> Result<(), NotQueued> {
        self.queue.push_awaited(event, reply, room)?;
        self.waker.0.wake(WakeOn::Urgent);
        Ok(())
    }

    /// Sends an event that nobody waits for. The writer may gather others before it writes it.
    pub(super) fn enqueue(&self, event: &EncodedEvent) -> Result<(), NotQueued> {
        let is_much = self.queue.push_unawaited(event)?;
        self.waker.0.wake(if is_much { WakeOn::Urgent } else { WakeOn::Any });
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

    /// Sleeps until `until`, or until an event or a job comes that is to wake the writer; not at all if it is there already. A job
    /// that is there is returned. May also return early for no reason.
    pub(super) fn sleep(&self, wake_on: WakeOn, until: Instant) -> Option<Job> {
        let WriterSleep { state, writer } = &*self.sleep;
        writer.get_or_init(thread::current);
        state.store(if wake_on == WakeOn::Any { SLEEPS } else { GATHERS }, Ordering::SeqCst);
        // In one order with what a sender does: this sees its job, or it sees that the writer sleeps.
        let there = self.jobs.try_recv();
        if matches!(there, Err(TryRecvError::Empty)) && !self.queue.has_event(wake_on == WakeOn::Urgent) {
            thread::park_timeout(until.saturating_duration_since(Instant::now()));
        }
        state.store(AWAKE, Ordering::SeqCst);
        there.ok()
    }
}

impl Drop for JobReceiver {
    fn drop(&mut self) {
        self.queue.close();
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

    use futures_util::FutureExt as _;

    use super::super::AuditError;
    use super::super::batch::EventBatch;
    use super::super::batch::tests::event;
    use super::super::reply::Appending;
    use super::*;

    const FAR: Duration = Duration::from_secs(3600);

    /// Waits until the writer sleeps.
    fn until_asleep(sender: &JobSender, state: u8) {
        while sender.waker.0.state.load(Ordering::SeqCst) != state {
            thread::yield_now();
        }
    }

    /// What a writer has taken.
    #[derive(Default)]
    struct Taken {
        events: EventBatch,
        jobs: usize,
        /// All senders are gone.
        is_last: bool,
    }

    impl Taken {
        /// Sleeps, and takes what is there.
        fn sleep(&mut self, receiver: &JobReceiver, wake_on: WakeOn) {
            self.jobs += usize::from(receiver.sleep(wake_on, Instant::now() + FAR).is_some());
            loop {
                match receiver.try_recv() {
                    Ok(_) => self.jobs += 1,
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        self.is_last = true;
                        break;
                    }
                }
            }
            receiver.queue.take(&mut self.events, &mut EventBatch::default());
        }

        fn names(&self) -> Vec<&[u8]> {
            self.events.iter().map(|(_, fields)| fields).collect()
        }
    }

    fn way() -> (JobSender, JobReceiver) {
        jobs(Arc::new(EventQueue::new(1 << 30)))
    }

    fn append(sender: &JobSender, name: &str) -> (Result<(), NotQueued>, Appending) {
        let (reply, appending) = AppendReply::future();
        (sender.append(&event(name), reply, sender.queue.reserve(0).unwrap()), appending)
    }

    #[test]
    fn any_event_or_job_wakes_a_writer_that_has_nothing_to_do() {
        let sends: [fn(&JobSender); 2] =
            [|sender| sender.send(Job::Wake).unwrap(), |sender| sender.enqueue(&event("a")).unwrap()];
        for send in sends {
            let (sender, receiver) = way();
            thread::scope(|scope| {
                let writer = scope.spawn(move || {
                    let mut taken = Taken::default();
                    while taken.jobs + taken.events.len() == 0 {
                        taken.sleep(&receiver, WakeOn::Any);
                    }
                });
                until_asleep(&sender, SLEEPS);
                send(&sender);
                writer.join().unwrap();
            });
        }
    }

    #[test]
    fn gathering_ends_with_an_event_that_somebody_waits_for_and_finds_all_in_order() {
        let (sender, receiver) = way();
        thread::scope(|scope| {
            let writer = scope.spawn(move || {
                let mut taken = Taken::default();
                // The last of the events is the one that wakes it.
                while !taken.events.is_awaited() {
                    taken.sleep(&receiver, WakeOn::Urgent);
                }
                assert_eq!(taken.names(), [b"a", b"b", b"c", b"d"]);
            });
            until_asleep(&sender, GATHERS);
            ["a", "b", "c"].iter().for_each(|name| sender.enqueue(&event(name)).unwrap());
            assert_eq!(sender.waker.0.state.load(Ordering::SeqCst), GATHERS, "it sleeps on");
            append(&sender, "d").0.unwrap();
            writer.join().unwrap();
        });
    }

    #[test]
    fn no_event_and_no_job_is_slept_through() {
        const EACH: usize = 20_000;
        let (sender, receiver) = way();
        thread::scope(|scope| {
            for (sender, sends_jobs) in [(sender.clone(), false), (sender.clone(), false), (sender, true)] {
                scope.spawn(move || {
                    for _ in 0..EACH {
                        match sends_jobs {
                            true => sender.send(Job::Wake).unwrap(),
                            false => sender.enqueue(&event("a")).unwrap(),
                        }
                    }
                });
            }
            let mut taken = Taken::default();
            // Without the two looks after each other, this would sleep for an hour. That the senders are gone wakes it, too.
            while !taken.is_last {
                taken.sleep(&receiver, WakeOn::Any);
            }
            assert_eq!((taken.events.len(), taken.jobs), (2 * EACH, EACH));
        });
    }

    #[test]
    fn when_the_writer_has_ended_nothing_is_taken_and_those_who_wait_learn_it() {
        let (sender, receiver) = way();
        let is_closed = |appending: Appending| {
            let outcome = appending.now_or_never();
            assert!(matches!(outcome, Some(Err(AuditError::Closed))), "{outcome:?}");
        };
        let (sent, before) = append(&sender, "a");
        sent.unwrap();
        sender.enqueue(&event("b")).unwrap();
        drop(receiver);
        is_closed(before);
        let (sent, after) = append(&sender, "c");
        assert!(sent.is_err());
        is_closed(after);
        assert!(matches!(sender.enqueue(&event("d")), Err(NotQueued::Closed)));
        assert!(sender.send(Job::Wake).is_err());
        assert_eq!((sender.queue.used(), sender.queue.waiting()), (0, 0), "all room is given back");
    }
}
