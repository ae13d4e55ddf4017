//! `AuditService`: streams the audit log. Converts its items, and knows nothing about how they are kept.

use std::pin::Pin;
use std::time::SystemTime;

use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::error::RpcError;
use super::v1;
use super::v1::stream_audit_events_request::Start as WireStart;
use super::v1::stream_audit_events_response::Message;
use crate::audit::{
    self, AuditError, AuditEvent, AuditLog, Body, Checkpoint, EventKind, Filter, Gap, Query, Record, Start,
    StreamItem,
};

pub mod received;

/// Serves an audit log.
#[derive(Clone, Debug)]
pub struct Audit {
    log: AuditLog,
    draining: CancellationToken,
}

impl Audit {
    /// Serves `log`; streams end with UNAVAILABLE when `draining` is cancelled.
    #[must_use]
    pub const fn new(log: AuditLog, draining: CancellationToken) -> Self {
        Self { log, draining }
    }
}

type EventStream = Pin<Box<dyn Stream<Item = Result<v1::StreamAuditEventsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl v1::audit_service_server::AuditService for Audit {
    type StreamAuditEventsStream = EventStream;

    async fn stream_audit_events(
        &self,
        request: Request<v1::StreamAuditEventsRequest>,
    ) -> Result<Response<EventStream>, Status> {
        let query = query(request.into_inner())?;
        let stream = self.log.stream(query).await.map_err(refused)?.into_stream();
        let stream = stream.map(|item| match item {
            Ok(item) => Ok(v1::StreamAuditEventsResponse { message: Some(message(item)) }),
            Err(error) => Err(refused(error).into()),
        });
        let draining = self.draining.clone().cancelled_owned();
        Ok(Response::new(Box::pin(Until { stream: Box::pin(stream), end: Some(Box::pin(draining)) })))
    }
}

/// A stream that ends when the server drains, even while it waits. It ends with an error, so that a
/// reader that does not follow does not take it for the end of the log.
struct Until<S, F> {
    stream: Pin<Box<S>>,
    /// `None` after the end.
    end: Option<Pin<Box<F>>>,
}

impl<T, S: Stream<Item = Result<T, Status>>, F: Future<Output = ()>> Stream for Until<S, F> {
    type Item = S::Item;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        let Some(end) = &mut self.end else { return std::task::Poll::Ready(None) };
        if end.as_mut().poll(context).is_ready() {
            self.end = None;
            return std::task::Poll::Ready(Some(Err(RpcError::Draining.into())));
        }
        self.stream.as_mut().poll_next(context)
    }
}

fn query(request: v1::StreamAuditEventsRequest) -> Result<Query, RpcError> {
    let v1::StreamAuditEventsRequest { start, log_id, kinds, audiences, follow } = request;
    let start = match start {
        None => Start::Earliest,
        Some(WireStart::AfterSequence(sequence)) => Start::After(sequence),
        Some(WireStart::Position(position)) => match v1::AuditStart::try_from(position) {
            Ok(v1::AuditStart::Unspecified | v1::AuditStart::Earliest) => Start::Earliest,
            Ok(v1::AuditStart::Latest) => Start::Latest,
            Err(_) => return Err(unknown_value("position", position)),
        },
        Some(WireStart::StartTime(time)) => Start::Time(
            SystemTime::try_from(time)
                .map_err(|error| RpcError::MalformedMessage { cause: error.to_string() })?,
        ),
    };
    let mut wanted = Vec::with_capacity(kinds.len());
    for kind in kinds {
        wanted.push(match v1::AuditEventKind::try_from(kind) {
            Ok(v1::AuditEventKind::Expansion) => EventKind::Expansion,
            Ok(v1::AuditEventKind::Denial) => EventKind::Denial,
            Ok(v1::AuditEventKind::PolicyChange) => EventKind::PolicyChange,
            // Neither is recorded yet.
            Ok(
                v1::AuditEventKind::Unspecified
                | v1::AuditEventKind::LogOpened
                | v1::AuditEventKind::AccessChange,
            )
            | Err(_) => return Err(unknown_value("kinds", kind)),
        });
    }
    Ok(Query { start, log_id, filter: Filter { kinds: wanted, audiences }, follow })
}

fn unknown_value(field: &str, value: i32) -> RpcError {
    RpcError::MalformedMessage { cause: format!("`{field}` has the unknown value {value}") }
}

fn refused(error: AuditError) -> RpcError {
    match error {
        AuditError::OutOfRange { requested, oldest, newest } => {
            RpcError::CursorOutOfRange { after: requested, oldest, newest }
        }
        AuditError::ForeignLog { given, actual } => RpcError::ForeignLogId { given, actual },
        AuditError::LogIdRequired => RpcError::MissingLogId,
        AuditError::DataLoss { sequence, problem } => {
            tracing::error!(sequence, %problem, "audit chain is broken");
            RpcError::DataLoss { sequence }
        }
        AuditError::Closed => RpcError::Draining,
        // What is left is trouble of the store itself: it may pass, and its cause is for the log.
        AuditError::NotDurable { .. }
        | AuditError::QueueFull(_)
        | AuditError::Abandoned { .. }
        | AuditError::TooLarge { .. }
        | AuditError::InUse { .. }
        | AuditError::NotAnAuditLog { .. }
        | AuditError::UnknownFormat { .. }
        | AuditError::LimitTooSmall { .. }
        | AuditError::Io { .. }
        | AuditError::Database { .. } => {
            tracing::error!(%error, "audit log could not be read");
            RpcError::Shedding
        }
    }
}

fn message(item: StreamItem) -> Message {
    match item {
        StreamItem::Checkpoint(Checkpoint { log_id, through, server_time }) => {
            Message::Checkpoint(v1::Checkpoint {
                log_id: log_id.to_string(),
                durable_sequence: through.sequence,
                head_hash: through.hash.to_vec(),
                server_time: Some(server_time.into()),
            })
        }
        StreamItem::Record(record) => record_message(*record),
    }
}

/// A record as the API shows it: an event or a gap.
#[must_use]
pub fn record_message(record: Record) -> Message {
    let Record { log_id, sequence, prev_hash, hash, body } = record;
    let log_id = log_id.to_string();
    match body {
        Body::Gap(Gap { count, reason, first_time, last_time }) => Message::Gap(v1::Gap {
            log_id,
            sequence,
            count,
            reason: reason.wire_name().to_owned(),
            first_time: Some(first_time.into()),
            last_time: Some(last_time.into()),
            ..v1::Gap::default()
        }),
        Body::Event(event) => Message::Event(v1::AuditEvent {
            log_id,
            sequence,
            prev_hash: prev_hash.to_vec(),
            hash: hash.to_vec(),
            ..event_message(*event)
        }),
    }
}

fn event_message(event: AuditEvent) -> v1::AuditEvent {
    let client = event.client().map(client);
    let client_truncated = event.client_truncated();
    v1::AuditEvent {
        log_id: String::new(),
        sequence: 0,
        event_id: event.event_id.to_string(),
        event_time: Some(event.event_time.into()),
        kind: match event.kind {
            EventKind::Expansion => v1::AuditEventKind::Expansion,
            EventKind::Denial => v1::AuditEventKind::Denial,
            EventKind::PolicyChange => v1::AuditEventKind::PolicyChange,
        }
        .into(),
        decision_id: event.decision_id.map(|id| id.to_string()).unwrap_or_default(),
        method: event.method,
        audiences: event.audiences,
        client,
        requested_scope: event.requested_scope,
        registered_scope: event.registered_scope,
        effective_scope: event.effective_scope,
        added: event
            .added
            .into_iter()
            .map(|added| v1::AddedScope {
                scope: added.scope,
                origin: origin(added.origin).into(),
                rule: added.rule,
            })
            .collect(),
        refused: event
            .refused
            .into_iter()
            .map(|refused| v1::RefusedScope {
                scope: refused.scope,
                reason: reason(refused.reason).into(),
                message: refused.message,
            })
            .collect(),
        reason: event.reason.map_or(v1::Reason::Unspecified, reason).into(),
        policy: Some(v1::PolicyVersion { generation: event.policy.generation, digest: event.policy.digest }),
        policy_change: event.policy_change.map(|change| v1::PolicyChange {
            accepted: change.accepted,
            previous_digest: change.previous_digest,
            finding_count: change.finding_count,
            ..v1::PolicyChange::default()
        }),
        caller: Some(v1::Caller { name: event.caller.name, authenticated_by: event.caller.authenticated_by }),
        peer: event.peer,
        trace_id: event.trace_id,
        attempt: event.attempt,
        client_truncated,
        ..v1::AuditEvent::default()
    }
}

fn client(client: &audit::Client) -> v1::Client {
    v1::Client {
        client_id: client.client_id.clone(),
        source: match client.source {
            None => v1::ClientSource::Unspecified,
            Some(audit::ClientSource::Dcr) => v1::ClientSource::Dcr,
            Some(audit::ClientSource::Cimd) => v1::ClientSource::Cimd,
            Some(audit::ClientSource::Static) => v1::ClientSource::Static,
        }
        .into(),
        client_name: client.client_name.clone(),
        software_id: client.software_id.clone(),
        software_version: client.software_version.clone(),
        redirect_uris: client.redirect_uris.clone(),
        grant_types: client.grant_types.clone(),
        application_type: client.application_type.clone(),
    }
}

const fn origin(origin: audit::Origin) -> v1::Origin {
    match origin {
        audit::Origin::Baseline => v1::Origin::Baseline,
        audit::Origin::Default => v1::Origin::Default,
        audit::Origin::Registered => v1::Origin::Registered,
        audit::Origin::StepUp => v1::Origin::StepUp,
    }
}

const fn reason(reason: audit::Reason) -> v1::Reason {
    match reason {
        audit::Reason::Malformed => v1::Reason::Malformed,
        audit::Reason::Forbidden => v1::Reason::Forbidden,
        audit::Reason::Unsupported => v1::Reason::Unsupported,
        audit::Reason::Unregistered => v1::Reason::Unregistered,
        audit::Reason::ScopeRequired => v1::Reason::ScopeRequired,
        audit::Reason::NothingGranted => v1::Reason::NothingGranted,
        audit::Reason::AudienceUnknown => v1::Reason::AudienceUnknown,
        audit::Reason::AudienceMalformed => v1::Reason::AudienceMalformed,
        audit::Reason::AudienceRequired => v1::Reason::AudienceRequired,
    }
}
