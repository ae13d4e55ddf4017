//! The part that copies audit records to the joined store, on a thread of its own that those who answer go before.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::background::yield_to_others;
use super::supervisor::PartResult;
use crate::audit::AuditLog;
use crate::audit::forward::{ForwardStatus, Forwarder};
use crate::audit::joined::JoinedTarget;

/// Where to, and what shows how it stands.
#[derive(Clone, Debug)]
pub(super) struct ForwardPart {
    pub(super) log: AuditLog,
    pub(super) target: JoinedTarget,
    pub(super) status: watch::Sender<ForwardStatus>,
}

impl ForwardPart {
    /// Forwards until it is told to stop. Blocks.
    pub(super) fn run(self, stop: &CancellationToken) -> PartResult {
        let Self { log, target, status } = self;
        yield_to_others();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(Forwarder::new(log, target, status).run(stop));
        // A name that is being resolved cannot be given up.
        runtime.shutdown_background();
        Ok(())
    }
}
