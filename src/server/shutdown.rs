//! How the service stops: one order, and the part of the whole time that each step may take.

use std::time::Duration;

use tokio::time::Instant;

use super::supervisor::{Abandoned, Part, Supervisor};

/// How a service stopped that was told to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stopped {
    /// What could not be finished within the shutdown timeout; empty if everything was.
    pub abandoned: Vec<Abandoned>,
}

/// Stops every part, in the one order of a shutdown. Each step may take until a part of `timeout` is over,
/// so that none takes the time of those after it: calls and streams end; nothing changes the policy any
/// more, and what is durable is written as lines; the audit is flushed and closed; the rest stops, and spans that wait are sent.
pub(super) async fn stop(supervisor: &mut Supervisor, timeout: Duration) -> Vec<Abandoned> {
    let began = Instant::now();
    let mut abandoned = Vec::new();
    for (parts, by) in [
        (&[Part::Grpc, Part::Gateway][..], CALLS_BY + CUT_BY),
        (
            &[
                Part::Reload,
                Part::Credentials,
                Part::Upstream,
                Part::Shadow,
                Part::AuditLines,
                Part::AuditForward,
            ],
            0.7,
        ),
        (&[Part::AuditWriter], 0.9),
        (&[Part::AuditHealth, Part::Admin, Part::Traces, Part::ServiceManager], 0.97),
    ] {
        abandoned.extend(supervisor.stop(parts, began + timeout.mul_f64(by)).await);
    }
    abandoned
}

/// When calls in flight are cut off, as a part of the shutdown timeout.
pub(super) const CALLS_BY: f64 = 0.5;
/// How long their connections may take to end then, as a part of the shutdown timeout.
pub(super) const CUT_BY: f64 = 0.05;
/// How long the audit may take to close, as a part of the shutdown timeout.
pub(super) const CLOSE: f64 = 0.18;
/// How long spans that wait may take to be sent, as a part of the shutdown timeout.
pub(super) const SEND_SPANS: f64 = 0.06;
