//! SIGTERM and SIGINT: the first one begins the shutdown, the second one ends the process at once, and
//! so does a shutdown that takes longer than it may.
//!
//! Runs on a thread of its own, so that it works whatever the rest of the process hangs on.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::info;

use super::log::Log;
use super::supervisor::Roster;

/// How long the last line may take.
const LAST_LINE: Duration = Duration::from_millis(200);
/// What ends the process when it did not end as it should: it ran, and something is left undone.
const ABANDONED: i32 = 1;

/// Catches both signals from now on. What is returned completes at the first one with `true`, or with
/// `false` if signals can no longer be heard. After a signal the process ends
/// within `most`, with exit code 1 and the names of the parts in `roster` that still run, unless it
/// ended before.
///
/// # Errors
///
/// If the system does not let us catch signals or start a thread.
pub fn shutdown_within(most: Duration, roster: Roster, log: Log) -> io::Result<impl Future<Output = bool>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _context = runtime.enter();
        Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? }
    };
    let (begin, begun) = oneshot::channel();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let signal = signals.next().await;
            info!("{signal} received");
            // The process may be at its end already.
            _ = begin.send(());
            let last = match tokio::time::timeout(most, signals.next()).await {
                Ok(name) => format!("{name} received again, ending at once"),
                Err(_) => format!("not stopped after {most:?}, abandoned: {}", roster.names().join(", ")),
            };
            log.print(&format!("scopeward: {last}\n"));
            log.flush(LAST_LINE);
            std::process::exit(ABANDONED);
        });
    })?;
    Ok(async move { begun.await.is_ok() })
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
