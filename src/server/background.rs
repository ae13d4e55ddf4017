//! Work that no caller waits for, on threads that leave the processor to those that answer.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use tokio::sync::oneshot;

use super::supervisor::text_of;

/// How much nicer such a thread is than the process: where both want the same processor, a thread that answers gets
/// about nine times as much of it, and does not wait for it when a call comes. A busy machine still loads a policy.
#[cfg(target_os = "linux")]
const NICER: i32 = 10;

/// Why work has no outcome.
#[derive(Debug, thiserror::Error)]
pub(super) enum BackgroundError {
    /// There is no thread for it.
    #[error("could not start a thread: {0}")]
    NotStarted(#[from] io::Error),
    /// It panicked.
    #[error("panicked: {0}")]
    Panicked(String),
}

/// Runs work on a thread of its own of this name, which yields to others, as do the threads that it starts. Begins at once; whoever drops
/// what is returned does not end it.
pub(super) fn in_background<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T, BackgroundError>> + Send + 'static {
    let (sender, outcome) = oneshot::channel();
    let started = thread::Builder::new().name(name.to_owned()).spawn(move || {
        yield_to_others();
        let outcome = catch_unwind(AssertUnwindSafe(work));
        // Nobody listens if the stop did not wait for it.
        _ = sender.send(outcome.map_err(|payload| BackgroundError::Panicked(text_of(&*payload))));
    });
    async move {
        started?;
        outcome.await.unwrap_or_else(|_| Err(BackgroundError::Panicked(String::new())))
    }
}

/// Makes this thread, and no other, one that others go before. Where that cannot be done it is one like the others.
#[cfg(target_os = "linux")]
pub(super) fn yield_to_others() {
    _ = rustix::process::nice(NICER);
}

/// Elsewhere it would be the whole process.
#[cfg(not(target_os = "linux"))]
pub(super) const fn yield_to_others() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_has_its_outcome_or_a_panic() {
        assert_eq!(in_background("test", || 7).await.unwrap(), 7);
        let panicked = in_background("test", || -> u8 { panic!("out of luck") }).await.unwrap_err();
        assert_eq!(panicked.to_string(), "panicked: out of luck");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn its_threads_are_nicer_and_no_others() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let own = nice();
        let (there, inside) =
            in_background("test", move || (nice(), thread::scope(|scope| scope.spawn(nice).join().unwrap())))
                .await
                .unwrap();
        assert_eq!((there, inside), ((own + NICER).min(19), (own + NICER).min(19)));
        assert_eq!(nice(), own);
    }
}
