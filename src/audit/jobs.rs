//! The way to the writer: a queue of events, one of other jobs, and a sleep from which only those wake it that cannot wait.
//!
//! Waking a thread costs a call of the kernel. Events that nobody waits for come one at a time and many in a second, so the writer
//! gathers them: it sleeps until a time, and such an event does not wake it. The lock of the events is held while one is copied
//! into their queue, or while the writer takes all of them, which moves no event.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Instant;

use super::encoding::EncodedEvent;
use super::queue::{AppendReply, EventQueue, QueueBudget};
use super::writer::Job;
use crate::budget::{Exhausted, Permit};

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
    events: Arc<Mutex<SentEvents>>,
    /// INVARIANT: dropped after `jobs`, hence declared after it.
    waker: WakeOnDrop,
}

/// Where the writer gets its events and jobs.
#[derive(Debug)]
pub(super) struct JobReceiver {
    jobs: mpsc::Receiver<Job>,
    events: Arc<Mutex<SentEvents>>,
    sleep: Arc<WriterSleep>,
}

/// The events that were sent and that the writer has not taken.
#[derive(Debug, Default)]
struct SentEvents {
    queue: EventQueue,
    /// The writer has ended: nobody takes any more.
    is_closed: bool,
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
    let events = Arc::<Mutex<SentEvents>>::default();
    let sleep = Arc::<WriterSleep>::default();
    let waker = WakeOnDrop(Arc::clone(&sleep));
    (
        JobSender { jobs: sender, events: Arc::clone(&events), waker },
        JobReceiver { jobs: receiver, events, sleep },
    )
}

impl JobSender {
    /// Sends a job that the writer is to do at once. An error if it has ended.
    pub(super) fn send(&self, job: Job) -> Result<(), WriterGone> {
        self.jobs.send(job).map_err(|_| WriterGone)?;
        self.waker.0.wake(WakeOn::Urgent);
        Ok(())
    }

    /// Sends an event that somebody waits for, in its room, and wakes the writer. An error if it has ended; the reply has said so.
    pub(super) fn append(
        &self,
        event: &EncodedEvent,
        reply: AppendReply,
        room: Permit,
    ) -> Result<(), WriterGone> {
        let mut events = locked(&self.events);
        if events.is_closed {
            drop(events);
            return Err(WriterGone);
        }
        events.queue.push_awaited(event, reply, room);
        drop(events);
        self.waker.0.wake(WakeOn::Urgent);
        Ok(())
    }

    /// Sends an event that nobody waits for, if there is room for it. The writer may gather others before it writes it.
    pub(super) fn enqueue(&self, event: &EncodedEvent, budget: &QueueBudget) -> Result<(), NotQueued> {
        let mut events = locked(&self.events);
        if events.is_closed {
            return Err(NotQueued::Gone);
        }
        events.queue.push_unawaited(event, budget)?;
        drop(events);
        self.waker.0.wake(if budget.is_filling() { WakeOn::Urgent } else { WakeOn::Any });
        Ok(())
    }
}

fn locked(events: &Mutex<SentEvents>) -> MutexGuard<'_, SentEvents> {
    events.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why an event was not put into the queue.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(super) enum NotQueued {
    /// The writer has ended.
    #[error("the writer has ended")]
    Gone,
    /// There is no room.
    #[error(transparent)]
    Full(#[from] Exhausted),
}

/// The writer has ended.
#[derive(Debug)]
pub(super) struct WriterGone;

impl JobReceiver {
    /// A job, if one is there.
    pub(super) fn try_recv(&self) -> Result<Job, TryRecvError> {
        self.jobs.try_recv()
    }

    /// Moves all events that are there to the end of `waiting`.
    pub(super) fn take_events(&self, waiting: &mut EventQueue) {
        waiting.take_over(&mut locked(&self.events).queue);
    }

    /// Sleeps until `until`, or until an event or a job comes that is to wake the writer; not at all if it is there already. A job
    /// that is there is returned. May also return early for no reason.
    pub(super) fn sleep(&self, wake_on: WakeOn, until: Instant) -> Option<Job> {
        let WriterSleep { state, writer } = &*self.sleep;
        writer.get_or_init(thread::current);
        state.store(if wake_on == WakeOn::Any { SLEEPS } else { GATHERS }, Ordering::SeqCst);
        // In one order with what a sender does: this sees its job, or it sees that the writer sleeps.
        let there = self.jobs.try_recv();
        if matches!(there, Err(TryRecvError::Empty)) && !self.has_event(wake_on) {
            thread::park_timeout(until.saturating_duration_since(Instant::now()));
        }
        state.store(AWAKE, Ordering::SeqCst);
        there.ok()
    }

    /// Whether an event is there that would have woken the writer.
    fn has_event(&self, wake_on: WakeOn) -> bool {
        let events = locked(&self.events);
        match wake_on {
            WakeOn::Any => !events.queue.is_empty(),
            WakeOn::Urgent => events.queue.is_awaited(),
        }
    }
}

impl Drop for JobReceiver {
    fn drop(&mut self) {
        let mut events = locked(&self.events);
        events.is_closed = true;
        let left = std::mem::take(&mut events.queue);
        drop(events);
        // Those who wait for an event learn that the log is closed, and may do something then.
        drop(left);
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
    use prost_types::Timestamp;

    use super::super::AuditError;
    use super::super::queue::Appending;
    use super::*;
    use crate::proto::v1::{AuditEventKind, Reason};

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
        events: EventQueue,
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
            receiver.take_events(&mut self.events);
        }

        fn names(&self) -> Vec<&[u8]> {
            self.events.iter().map(|(_, fields)| fields).collect()
        }
    }

    fn event(name: &str) -> EncodedEvent {
        EncodedEvent::new(AuditEventKind::Denial, Reason::Unspecified, Timestamp::default(), name.into())
    }

    fn enqueue(sender: &JobSender, budget: &QueueBudget, name: &str) {
        sender.enqueue(&event(name), budget).unwrap();
    }

    #[test]
    fn any_event_or_job_wakes_a_writer_that_has_nothing_to_do() {
        let budget = QueueBudget::new(1 << 20);
        let sends: [fn(&JobSender, &QueueBudget); 2] =
            [|sender, _| sender.send(Job::Wake).unwrap(), |sender, budget| enqueue(sender, budget, "a")];
        for send in sends {
            let (sender, receiver) = jobs();
            thread::scope(|scope| {
                let writer = scope.spawn(move || {
                    let mut taken = Taken::default();
                    while taken.jobs + taken.events.len() == 0 {
                        taken.sleep(&receiver, WakeOn::Any);
                    }
                });
                until_asleep(&sender, SLEEPS);
                send(&sender, &budget);
                writer.join().unwrap();
            });
        }
    }

    #[test]
    fn gathering_ends_with_an_event_that_somebody_waits_for_and_finds_all_in_order() {
        let budget = QueueBudget::new(1 << 20);
        let (sender, receiver) = jobs();
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
            ["a", "b", "c"].iter().for_each(|name| enqueue(&sender, &budget, name));
            assert_eq!(sender.waker.0.state.load(Ordering::SeqCst), GATHERS, "it sleeps on");
            let (reply, _appending) = AppendReply::future();
            sender.append(&event("d"), reply, budget.reserve(0).unwrap()).unwrap();
            writer.join().unwrap();
        });
    }

    #[test]
    fn no_event_and_no_job_is_slept_through() {
        const EACH: usize = 20_000;
        let budget = &QueueBudget::new(usize::MAX);
        let (sender, receiver) = jobs();
        thread::scope(|scope| {
            for (sender, sends_jobs) in [(sender.clone(), false), (sender.clone(), false), (sender, true)] {
                scope.spawn(move || {
                    for _ in 0..EACH {
                        match sends_jobs {
                            true => sender.send(Job::Wake).unwrap(),
                            false => enqueue(&sender, budget, "a"),
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
        let budget = QueueBudget::new(1 << 20);
        let (sender, receiver) = jobs();
        let append = || {
            let (reply, appending) = AppendReply::future();
            (sender.append(&event("a"), reply, budget.reserve(0).unwrap()), appending)
        };
        let is_closed = |appending: Appending| {
            let outcome = appending.now_or_never();
            assert!(matches!(outcome, Some(Err(AuditError::Closed))), "{outcome:?}");
        };
        let (sent, before) = append();
        sent.unwrap();
        enqueue(&sender, &budget, "b");
        drop(receiver);
        is_closed(before);
        let (sent, after) = append();
        assert!(sent.is_err());
        is_closed(after);
        assert!(matches!(sender.enqueue(&event("c"), &budget), Err(NotQueued::Gone)));
        assert!(sender.send(Job::Wake).is_err());
        assert_eq!(budget.used(), 0, "all room is given back");
    }
}
