//! The task that follows the files by which the server and its callers know one another: the material of TLS, and the access file.

use std::time::{Duration, SystemTime};

use tokio::task::JoinError;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::access::AccessFollower;
use super::task_request::TaskRequestListener;
use super::tls::follow::TlsFollower;

/// The task.
#[derive(Debug)]
pub(super) struct CredentialsTask {
    pub(super) tls: Option<TlsFollower>,
    pub(super) access: Option<AccessFollower>,
    /// How often it looks.
    pub(super) interval: Duration,
    /// Asks to read everything at once, whether it seems to have changed or not.
    pub(super) rereads: TaskRequestListener,
}

impl CredentialsTask {
    /// Looks again and again until it is told to stop.
    ///
    /// # Errors
    /// A look panicked.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), JoinError> {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Done once it is dropped, after the look.
            let request = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => None,
                request = self.rereads.next() => Some(request),
            };
            // Files may be on a disk that does not answer.
            self = tokio::task::spawn_blocking(move || {
                if request.is_some() {
                    self.reread(SystemTime::now());
                } else {
                    self.look(SystemTime::now());
                }
                self
            })
            .await?;
        }
    }

    /// Reads every file. Whoever asks for that says that they are complete, so what is wrong is found wrong twice.
    fn reread(&mut self, now: SystemTime) {
        for _ in 0..2 {
            if let Some(tls) = &mut self.tls {
                tls.forget_state();
            }
            if let Some(access) = &mut self.access {
                access.forget_state();
            }
            self.look(now);
        }
    }

    fn look(&mut self, now: SystemTime) {
        if let Some(tls) = &mut self.tls {
            tls.look(now);
        }
        if let Some(access) = &mut self.access {
            access.look(now);
        }
    }
}
