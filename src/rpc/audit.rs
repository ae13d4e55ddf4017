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
use crate::audit::{AuditError, AuditLog, Checkpoint, Filter, Query, Start, StreamItem};

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
            Ok(v1::AuditEventKind::Unspecified) | Err(_) => return Err(unknown_value("kinds", kind)),
            Ok(kind) => kind,
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
            RpcError::Internal
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
        StreamItem::Record(record) => record.into_message(),
    }
}
