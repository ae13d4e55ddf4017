//! Whom something that happens to a connection wakes: the task that waits for its answer, the keeper of idle connections, or nobody,
//! since who polls it now will look.
//!
//! The parts of hyper wake one another while one poll goes through all of them. A task that is woken while it is polled is polled again,
//! with all of its client's connection, and would find nothing: so a connection has wakers of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Wake, Waker};

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

/// What happened to a connection since somebody looked, and who is told. It wakes for what comes from within: a part of a body,
/// an answer.
#[derive(Debug)]
pub(super) struct ConnectionWakes {
    state: AtomicU8,
    task: AtomicWaker,
    keeper: Arc<Notify>,
}

impl ConnectionWakes {
    /// Of a connection that somebody holds, and that this keeper is told of while it is idle.
    pub(super) fn new(keeper: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { state: AtomicU8::default(), task: AtomicWaker::new(), keeper })
    }

    /// The waker for its socket.
    pub(super) fn socket_waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::new(SocketWake(Arc::clone(self))))
    }

    /// Nobody is told from now on: the caller looks after it. Returns `true` if something happened to the socket.
    pub(super) fn begin(&self) -> bool {
        self.state.swap(0, Ordering::AcqRel) & SOCKET != 0
    }

    /// As [`Self::begin`], and what happened is still to be looked after.
    pub(super) fn hold(&self) {
        self.state.fetch_and(SOCKET | WITHIN, Ordering::AcqRel);
    }

    /// The task is woken from now on. Returns `false`, and nothing is changed, if something happened since [`Self::begin`].
    pub(super) fn wait(&self, task: &Waker) -> bool {
        self.task.register(task);
        self.state.compare_exchange(0, WAITING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The keeper is told from now on what happens to the socket. Returns `false`, and nothing is changed, if something happened to it
    /// since [`Self::begin`]. What comes from within says nothing then: it is of the request before.
    pub(super) fn rest(&self) -> bool {
        let quiet = |state: u8| (state & SOCKET == 0).then_some(IDLE);
        let rests = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, quiet).is_ok();
        if rests {
            drop(self.task.take());
        }
        rests
    }

    /// Returns `true` if something happened to the socket that nobody looked after.
    pub(super) fn is_touched(&self) -> bool {
        self.state.load(Ordering::Acquire) & SOCKET != 0
    }

    fn note(&self, what: u8) {
        let before = self.state.fetch_or(what, Ordering::AcqRel);
        if before & WAITING != 0 {
            self.task.wake();
        } else if before & IDLE != 0 && what == SOCKET {
            self.keeper.notify_one();
        }
    }
}

impl Wake for ConnectionWakes {
    fn wake(self: Arc<Self>) {
        self.note(WITHIN);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.note(WITHIN);
    }
}

/// Wakes for what happens to the socket.
struct SocketWake(Arc<ConnectionWakes>);

impl Wake for SocketWake {
    fn wake(self: Arc<Self>) {
        self.0.note(SOCKET);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.note(SOCKET);
    }
}

/// Something happened to the socket.
const SOCKET: u8 = 1;
/// Something happened between the parts of the connection.
const WITHIN: u8 = 2;
/// The task is to be woken.
const WAITING: u8 = 4;
/// The keeper is to be told.
const IDLE: u8 = 8;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures_util::FutureExt as _;

    use super::*;

    #[derive(Default)]
    struct CountedWakes(AtomicUsize);

    impl CountedWakes {
        fn take(&self) -> usize {
            self.0.swap(0, Ordering::SeqCst)
        }
    }

    impl Wake for CountedWakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn who_is_told_depends_on_who_has_the_connection() {
        let keeper = Arc::new(Notify::new());
        let is_told = || keeper.notified().now_or_never().is_some();
        let wakes = ConnectionWakes::new(Arc::clone(&keeper));
        let (socket, within) = (wakes.socket_waker(), Waker::from(Arc::clone(&wakes)));
        let count = Arc::new(CountedWakes::default());
        let task = Waker::from(Arc::clone(&count));

        // Somebody polls it: that one will look.
        assert!(!wakes.begin());
        within.wake_by_ref();
        assert!(!wakes.wait(&task), "what happened meanwhile is not lost");
        assert!(!wakes.begin());
        socket.wake_by_ref();
        assert!(!wakes.wait(&task) && !wakes.rest());
        assert!(wakes.is_touched() && wakes.begin());
        assert_eq!((count.take(), is_told()), (0, false));

        // The task waits.
        for waker in [&socket, &within] {
            assert!(wakes.wait(&task));
            waker.wake_by_ref();
            waker.wake_by_ref();
            assert_eq!((count.take(), is_told()), (1, false));
            wakes.hold();
            assert!(!wakes.wait(&task), "it was not looked after");
            wakes.begin();
        }

        // It is idle: the keeper is told of the socket, and of nothing else.
        within.wake_by_ref();
        assert!(wakes.rest());
        within.wake_by_ref();
        assert_eq!((count.take(), is_told(), wakes.is_touched()), (0, false, false));
        socket.wake_by_ref();
        assert_eq!((count.take(), is_told(), wakes.is_touched()), (0, true, true));
    }

    #[test]
    fn an_idle_connection_holds_no_task() {
        let wakes = ConnectionWakes::new(Arc::default());
        let count = Arc::new(CountedWakes::default());
        assert!(wakes.wait(&Waker::from(Arc::clone(&count))));
        wakes.begin();
        assert_eq!(Arc::strong_count(&count), 2);
        assert!(wakes.rest());
        assert_eq!(Arc::strong_count(&count), 1);
    }
}
