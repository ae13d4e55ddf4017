//! Where the process stands between start and end, for all who must know: health, admission, and streams that
//! have to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The phase of the process. It only ever moves forward.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    /// No policy is loaded yet: health says NOT_SERVING.
    Starting,
    /// Questions are answered.
    Serving,
    /// The shutdown signal came: health says NOT_SERVING, new calls are refused, streams end.
    Draining,
}

/// A handle on the phase. Clones share it.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    phase: Arc<watch::Sender<Phase>>,
    /// The same as `phase`, to be read without a lock by each call.
    is_draining: Arc<AtomicBool>,
    draining: CancellationToken,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    /// Begins with [`Phase::Starting`].
    pub fn new() -> Self {
        Self {
            phase: Arc::new(watch::Sender::new(Phase::Starting)),
            is_draining: Arc::default(),
            draining: CancellationToken::new(),
        }
    }

    /// Moves to [`Phase::Serving`]. Does nothing in a later phase.
    pub fn serve(&self) {
        self.advance(Phase::Serving);
    }

    /// Moves to [`Phase::Draining`]. There is no way back.
    pub fn drain(&self) {
        self.advance(Phase::Draining);
        self.is_draining.store(true, Ordering::Release);
        self.draining.cancel();
    }

    /// Whether the phase is [`Phase::Draining`].
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }

    /// Is cancelled when draining begins. A long-lived stream ends on it, or it would hold the shutdown up.
    pub fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// The phase now and each change of it.
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = to > *phase;
            if later {
                *phase = to;
            }
            later
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draining_is_final() {
        let lifecycle = Lifecycle::new();
        let phases = lifecycle.phases();
        assert_eq!(*phases.borrow(), Phase::Starting);
        lifecycle.serve();
        assert_eq!(*phases.borrow(), Phase::Serving);
        assert!(!lifecycle.is_draining() && !lifecycle.draining().is_cancelled());
        lifecycle.drain();
        lifecycle.serve();
        assert_eq!(*phases.borrow(), Phase::Draining);
        assert!(lifecycle.is_draining() && lifecycle.draining().is_cancelled());
    }
}
