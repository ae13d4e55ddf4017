//! The task that follows the files by which the server and its callers know one another: the material of TLS, and the access file.

use std::time::{Duration, SystemTime};

use tokio::task::JoinError;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::access::AccessFollower;
use super::tls::follow::TlsFollower;

/// The task.
#[derive(Debug)]
pub(super) struct CredentialsTask {
    pub(super) tls: Option<TlsFollower>,
    pub(super) access: Option<AccessFollower>,
    /// How often it looks.
    pub(super) interval: Duration,
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
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            // Files may be on a disk that does not answer.
            self = tokio::task::spawn_blocking(move || {
                self.look(SystemTime::now());
                self
            })
            .await?;
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
