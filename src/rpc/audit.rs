//! `AuditService`: streams the audit log. Converts its items, and knows nothing about how they are kept.

use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future;
use futures_util::stream::{self, Stream, StreamExt};
use prost_types::Timestamp;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::caller::CallOrigin;
use super::error::{Overload, RpcError};
use super::v1;
use super::v1::stream_audit_events_request::Start as WireStart;
use super::v1::stream_audit_events_response::Message;
use crate::audience::MAX_AUDIENCE_BYTES;
use crate::audit::{AuditError, AuditLog, Checkpoint, Filter, Query, Start, StreamItem};
use crate::decision::MAX_AUDIENCES;
use crate::proto::json::is_in_range;

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
        let (_, mut extensions, request) = request.into_parts();
        let identity = CallOrigin::take(&mut extensions).identity;
        let own =
            identity.and_then(|own| Some((own.caller.audiences.clone()?, Arc::clone(&own.caller.name))));
        let mut query = query(request)?;
        if let Some((audiences, caller)) = own {
            query.filter = query.filter.within(&audiences, &caller);
        }
        let items = self.log.stream(query).await.map_err(refused)?.into_stream();
        let items = items.map(|item| match item {
            Ok(item) => Ok(v1::StreamAuditEventsResponse { message: Some(message(item)) }),
            Err(error) => Err(refused(error).into()),
        });
        let draining = self.draining.clone();
        // The stream ends when the server drains, even while it waits. It ends with an error, so that a reader that does
        // not follow does not take it for the end of the log.
        let drained =
            stream::once(async move { draining.is_cancelled().then(|| Err(RpcError::Draining.into())) });
        let items = items.take_until(self.draining.clone().cancelled_owned());
        Ok(Response::new(Box::pin(items.chain(drained.filter_map(future::ready)))))
    }
}

fn query(request: v1::StreamAuditEventsRequest) -> Result<Query, RpcError> {
    let v1::StreamAuditEventsRequest { start, log_id, kinds, audiences, follow } = request;
    let unknown = |field: &str, value| RpcError::UnknownEnumValue { field: field.to_owned(), value };
    let start = match start {
        None => Start::Earliest,
        Some(WireStart::AfterSequence(sequence)) => Start::After(sequence),
        Some(WireStart::Position(position)) => match v1::AuditStart::try_from(position) {
            Ok(v1::AuditStart::Unspecified | v1::AuditStart::Earliest) => Start::Earliest,
            Ok(v1::AuditStart::Latest) => Start::Latest,
            Err(_) => return Err(unknown("position", position)),
        },
        Some(WireStart::StartTime(time)) => Start::Time(start_time(time)?),
    };
    let kinds = kinds.into_iter().map(|kind| match v1::AuditEventKind::try_from(kind) {
        Ok(v1::AuditEventKind::Unspecified) | Err(_) => Err(unknown("kinds", kind)),
        Ok(kind) => Ok(kind),
    });
    let kinds = kinds.collect::<Result<_, _>>()?;
    check_audiences(&audiences)?;
    Ok(Query { start, log_id, filter: Filter::new(kinds, &audiences), follow })
}

/// A time in the range that `google.protobuf.Timestamp` has.
fn start_time(time: Timestamp) -> Result<SystemTime, RpcError> {
    let fits = is_in_range(&time);
    let time = Some(time).filter(|_| fits).and_then(|time| SystemTime::try_from(time).ok());
    time.ok_or(RpcError::TimeOutOfRange { field: "start_time" })
}

fn check_audiences(audiences: &[String]) -> Result<(), RpcError> {
    let over = |field: String, unit, limit, actual| Err(RpcError::OverLimit { field, unit, limit, actual });
    if audiences.len() > MAX_AUDIENCES {
        return over("audiences".to_owned(), "audiences", MAX_AUDIENCES, audiences.len());
    }
    match audiences.iter().enumerate().find(|(_, audience)| audience.len() > MAX_AUDIENCE_BYTES) {
        Some((at, audience)) => over(format!("audiences[{at}]"), "bytes", MAX_AUDIENCE_BYTES, audience.len()),
        None => Ok(()),
    }
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
        AuditError::TooManyReads(_) => RpcError::Overloaded { cause: Overload::Calls },
        error if error.is_damage() => {
            tracing::error!(%error, "audit log is damaged");
            RpcError::DataLoss { sequence: 0 }
        }
        error => {
            tracing::error!(%error, "audit log could not be read");
            RpcError::AuditReadFailed
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
