//! The health of the audit log and of its JSON lines, shown as conditions.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::audit::forward::ForwardStatus;
use crate::audit::jsonl::LinesHealth;
use crate::audit::{AuditHealth, AuditLog, DegradedReason};
use crate::status::{StatusTracker, kind};
use crate::throttle::Throttle;

/// How long one write of lines may take before the condition says so.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// Shows the health until it is told to stop.
#[derive(Clone, Debug)]
pub(super) struct Show {
    pub(super) log: AuditLog,
    /// Of the JSON lines, if they are written.
    pub(super) lines: Option<watch::Receiver<LinesHealth>>,
    /// Of the joined store, if records are forwarded.
    pub(super) forward: Option<watch::Receiver<ForwardStatus>>,
    pub(super) tracker: Arc<StatusTracker>,
}

impl Show {
    pub(super) async fn run(self, stop: CancellationToken) {
        let Self { log, lines, forward, tracker } = self;
        let lines = async {
            match lines {
                None => std::future::pending().await,
                Some(lines) => show_lines(lines, &tracker).await,
            }
        };
        let forward = async {
            match forward {
                None => std::future::pending().await,
                Some(forward) => show_forward(forward, &tracker).await,
            }
        };
        let shown = async {
            tokio::select! {
                () = show_log(&log, &tracker) => {}
                () = lines => {}
                () = forward => {}
            }
        };
        tokio::select! {
            () = shown => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn show_log(log: &AuditLog, tracker: &StatusTracker) {
    let mut health = log.watch_health();
    loop {
        let AuditHealth { degraded, stalled, storage_low, chain_broken } = health.borrow_and_update().clone();
        let now = SystemTime::now();
        let degraded = degraded.map(|degraded| {
            let message = format!(
                "audit records cannot be made durable, so expansions are refused: {}",
                degraded.error
            );
            let reason = match degraded.reason {
                DegradedReason::AppendFailed => "AuditAppendFailed",
                DegradedReason::StateDirectoryMissing => "StateDirectoryMissing",
                DegradedReason::WriterEnded => "AuditWriterEnded",
            };
            (reason, message)
        });
        let stalled = stalled.map(|stalled| {
            let message = format!(
                "audit records have waited for more than {} s: the disk of the state directory does not answer, so expansions are not answered",
                stalled.limit.as_secs()
            );
            ("AuditStalled", message)
        });
        tracker.toggle(kind::AUDIT_DEGRADED, degraded.or(stalled), now);
        let low = storage_low.map(|low| {
            let message = format!(
                "the volume of the state directory is nearly full: {low}; when it is full, expansions are refused"
            );
            ("VolumeNearlyFull", message)
        });
        tracker.toggle(kind::AUDIT_STORAGE_LOW, low, now);
        let broken = chain_broken.map(|bad| {
            let message = format!(
                "the audit store is broken: {bad}; stop the server, run `scopeward audit verify` on its state directory, and \
                 start it once with --set-aside-broken-audit, which moves the store aside and opens a new log that names it"
            );
            ("AuditRecordBad", message)
        });
        tracker.toggle(kind::AUDIT_CHAIN_BROKEN, broken, now);
        tokio::select! {
            changed = health.changed() => if changed.is_err() { return },
            () = log.watch_stalls() => {}
        }
    }
}

async fn show_lines(mut health: watch::Receiver<LinesHealth>, tracker: &StatusTracker) {
    let stalls = Throttle::every_minute();
    loop {
        let now = health.borrow_and_update().clone();
        let failing = match &now {
            LinesHealth::Idle | LinesHealth::Writing(_) => None,
            LinesHealth::Failing(error) => Some(("AuditLinesFailing", error.clone())),
        };
        tracker.toggle(kind::AUDIT_LINES_STALLED, failing, SystemTime::now());
        let changed = async {
            // Its sender lives as long as the process.
            if health.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::pin!(changed);
        let LinesHealth::Writing(since) = now else {
            changed.await;
            continue;
        };
        tokio::select! {
            () = &mut changed => continue,
            () = sleep_until(since + STALLED_AFTER) => {}
        }
        if let Some(count) = stalls.count(Instant::now().into_std()) {
            warn!(count, "audit lines are stalled: their reader does not read, or the disk does not answer");
        }
        let message =
            "a write of audit lines does not return: their reader does not read, or the disk does not answer";
        tracker.toggle(
            kind::AUDIT_LINES_STALLED,
            Some(("AuditLinesStalled", message.to_owned())),
            SystemTime::now(),
        );
        changed.await;
    }
}

async fn show_forward(mut status: watch::Receiver<ForwardStatus>, tracker: &StatusTracker) {
    loop {
        let behind = status.borrow_and_update().behind.clone();
        tracker.toggle(kind::AUDIT_FORWARDING_BEHIND, behind, SystemTime::now());
        // Its sender lives as long as the process.
        if status.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Logs what the start of the audit log found.
pub(super) fn log_start(log: &AuditLog) {
    let report = log.start_report();
    let head = log.head();
    info!(log_id = %log.log_id(), sequence = head.sequence, created = report.created, "audit log open");
    if report.torn_bytes > 0 {
        warn!(
            torn_bytes = report.torn_bytes,
            "the audit log was not closed in order: an unfinished transaction at its end was cut off"
        );
    }
    if report.damaged > 0 || report.lost > 0 {
        warn!(
            damaged = report.damaged,
            lost = report.lost,
            "the audit log was not closed in order, and acknowledged records at its end are damaged or lost: gaps have \
             their sequences"
        );
    }
    if report.unwritten > 0 {
        warn!(
            unwritten = report.unwritten,
            "the last process ended with audit events in memory: they are lost, and a gap counts them"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reason of the condition, if it is there.
    fn shown(tracker: &StatusTracker) -> Option<&'static str> {
        let conditions = tracker.snapshot().conditions.clone();
        conditions
            .iter()
            .find(|condition| condition.kind == kind::AUDIT_LINES_STALLED)
            .map(|found| found.reason)
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_does_not_return_and_a_failure_are_conditions_until_lines_are_written() {
        let tracker = Arc::new(StatusTracker::new("policies".into(), false, SystemTime::now()));
        let health = watch::Sender::new(LinesHealth::Idle);
        let showing = tokio::spawn({
            let (tracker, health) = (Arc::clone(&tracker), health.subscribe());
            async move { show_lines(health, &tracker).await }
        });
        let mut changes = tracker.watch();
        // A slow reader that makes progress is no matter.
        for _ in 0..5 {
            health.send_replace(LinesHealth::Writing(Instant::now()));
            tokio::time::sleep(STALLED_AFTER / 2).await;
            assert_eq!(shown(&tracker), None);
        }
        for (state, reason) in [
            (LinesHealth::Writing(Instant::now()), Some("AuditLinesStalled")),
            (LinesHealth::Idle, None),
            (LinesHealth::Failing("no space".to_owned()), Some("AuditLinesFailing")),
            (LinesHealth::Idle, None),
        ] {
            changes.mark_unchanged();
            health.send_replace(state);
            changes.changed().await.unwrap();
            assert_eq!(shown(&tracker), reason);
        }
        showing.abort();
    }
}
