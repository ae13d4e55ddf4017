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

/// The most bytes of one list in a status: two of them stay well under the 4 MiB that clients take by default.
pub const MAX_LIST_BYTES: usize = 1 << 20;

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
        audience_statuses: within_bytes(audience_statuses.iter().map(audience_status)),
        audience_status_count: count(*audience_status_count),
    }
}

fn attempt(attempt: &LastAttempt) -> v1::PolicyAttempt {
    v1::PolicyAttempt {
        attempt_time: Some(timestamp(attempt.attempt_time)),
        accepted: attempt.accepted,
        digest: attempt.digest.clone(),
        findings: within_bytes(attempt.findings.iter().map(finding)),
        finding_count: count(attempt.finding_count),
    }
}

/// As many messages as fit into [`MAX_LIST_BYTES`]; the counts beside a list say how many there are.
fn within_bytes<M: prost::Message>(messages: impl Iterator<Item = M>) -> Vec<M> {
    let mut bytes = 0;
    messages
        .take_while(|message| {
            bytes += message.encoded_len();
            bytes <= MAX_LIST_BYTES
        })
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_long_names_stays_within_what_clients_take() {
        let status = |count: usize| {
            let long = v1::AudienceStatus { audience: "a".repeat(2000), conditions: Vec::new() };
            within_bytes(std::iter::repeat_n(long, count))
        };
        assert_eq!(status(100).len(), 100);
        assert_eq!(status(1000).len(), MAX_LIST_BYTES / 2003);
    }
}
