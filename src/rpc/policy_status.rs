//! `PolicyStatusService`: shows the board on the wire, and converts it for every other door.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::v1;
use crate::policy::finding::Finding;
use crate::status::{AudienceStatus, Board, Condition, LastAttempt, Snapshot};

/// How often a watcher hears the state although nothing changed.
pub const REPEAT_INTERVAL: Duration = Duration::from_secs(30);

/// Serves the board.
#[derive(Clone, Debug)]
pub struct PolicyStatus {
    board: Arc<Board>,
    draining: CancellationToken,
    repeat: Duration,
}

impl PolicyStatus {
    /// Serves `board`; streams end when `draining` is cancelled.
    #[must_use]
    pub fn new(board: Arc<Board>, draining: CancellationToken) -> Self {
        Self { board, draining, repeat: REPEAT_INTERVAL }
    }

    /// Repeats the state to watchers at another interval than [`REPEAT_INTERVAL`].
    #[must_use]
    pub fn with_repeat(mut self, repeat: Duration) -> Self {
        self.repeat = repeat;
        self
    }
}

type StatusStream = Pin<Box<dyn Stream<Item = Result<v1::WatchPolicyStatusResponse, Status>> + Send>>;

#[tonic::async_trait]
impl v1::policy_status_service_server::PolicyStatusService for PolicyStatus {
    async fn get_policy_status(
        &self,
        _: Request<v1::GetPolicyStatusRequest>,
    ) -> Result<Response<v1::GetPolicyStatusResponse>, Status> {
        let status = Some(convert(&self.board.snapshot()));
        Ok(Response::new(v1::GetPolicyStatusResponse { status }))
    }

    type WatchPolicyStatusStream = StatusStream;

    async fn watch_policy_status(
        &self,
        _: Request<v1::WatchPolicyStatusRequest>,
    ) -> Result<Response<StatusStream>, Status> {
        // One place: a slow reader gets the newest state once it is ready for one, and nothing piles up.
        let (sender, receiver) = mpsc::channel(1);
        let Self { board, draining, repeat } = self.clone();
        tokio::spawn(async move {
            let mut changes = board.watch();
            loop {
                let Ok(place) = sender.reserve().await else { return };
                changes.mark_unchanged();
                place.send(Ok(v1::WatchPolicyStatusResponse { status: Some(convert(&board.snapshot())) }));
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(repeat) => {}
                    () = draining.cancelled() => return,
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// The board as a message: the same for gRPC, `/status.json` and the command line.
#[must_use]
pub fn convert(snapshot: &Snapshot) -> v1::PolicyStatus {
    let Snapshot { serving, source, last_attempt, conditions, audience_statuses, audience_status_count } =
        snapshot;
    v1::PolicyStatus {
        active: serving.as_ref().map(|serving| v1::PolicyVersion {
            generation: serving.generation,
            digest: serving.digest.clone(),
        }),
        load_time: serving.as_ref().map(|serving| timestamp(serving.load_time)),
        source: source.to_string(),
        audience_count: serving.as_ref().map_or(0, |serving| count(serving.audiences.len())),
        last_attempt: last_attempt.as_ref().map(attempt),
        conditions: conditions.iter().map(condition).collect(),
        audience_statuses: audience_statuses.iter().map(audience_status).collect(),
        audience_status_count: count(*audience_status_count),
    }
}

fn attempt(attempt: &LastAttempt) -> v1::PolicyAttempt {
    v1::PolicyAttempt {
        attempt_time: Some(timestamp(attempt.attempt_time)),
        accepted: attempt.accepted,
        digest: attempt.digest.clone(),
        findings: attempt.findings.iter().map(finding).collect(),
        finding_count: count(attempt.finding_count),
    }
}

/// A finding as a message.
#[must_use]
pub fn finding(finding: &Finding) -> v1::Finding {
    v1::Finding {
        file: finding.file.to_string(),
        line: finding.position.line,
        column: finding.position.column,
        code: finding.code.as_str().to_owned(),
        severity: finding.severity().as_str().to_owned(),
        audience: finding.audience.clone(),
        value: finding.value.clone(),
        message: finding.message.clone(),
        suggestion: finding.suggestion.clone(),
    }
}

fn audience_status(status: &AudienceStatus) -> v1::AudienceStatus {
    v1::AudienceStatus {
        audience: status.audience.clone(),
        conditions: status.conditions.iter().map(condition).collect(),
    }
}

fn condition(condition: &Condition) -> v1::Condition {
    v1::Condition {
        r#type: condition.kind.to_owned(),
        status: condition.status.as_str().to_owned(),
        reason: condition.reason.to_owned(),
        message: condition.message.clone(),
        observed_generation: i64::try_from(condition.observed_generation).unwrap_or(i64::MAX),
        last_transition_time: Some(timestamp(condition.last_transition_time)),
    }
}

fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    time.into()
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
