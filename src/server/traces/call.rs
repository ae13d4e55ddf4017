//! The span of a call, as the conventions have it ("Semantic conventions for gRPC", "Server", of version 1.45).

use std::time::SystemTime;

use http::Request;
use http::header::HOST;
use http::uri::Authority;
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status, Tracer};
use opentelemetry_sdk::trace::Span;
use tonic::Code;

use super::{Traces, number};
use crate::rpc::caller::{CallerIdentity, PeerAddress};
use crate::rpc::notes::{DecisionNotes, NotedDecisions};

/// The span of a call that is going on.
#[derive(Debug)]
pub(in crate::server) struct CallSpan {
    span: Span,
    notes: DecisionNotes,
}

impl Traces {
    /// Begins the span of a call whose headers are here; `None` if it is not sampled. `is_known` says whether there is such a method.
    pub(in crate::server) fn call<T>(
        &self,
        system: &'static str,
        request: &Request<T>,
        is_known: bool,
        peer: &PeerAddress,
    ) -> Option<Box<CallSpan>> {
        // Its real name is given to it once it is known to be sampled.
        let builder = SpanBuilder::from_name(system).with_kind(SpanKind::Server);
        let mut span = self.tracer.build_with_context(builder, &self.parent(request.headers()));
        if !span.is_recording() {
            return None;
        }
        span.set_attribute(KeyValue::new("rpc.system.name", system));
        let path = request.uri().path();
        if is_known {
            let method = path.trim_start_matches('/').to_owned();
            span.update_name(method.clone());
            span.set_attribute(KeyValue::new("rpc.method", method));
        } else {
            span.set_attribute(KeyValue::new("rpc.method", "_OTHER"));
            span.set_attribute(KeyValue::new("rpc.method_original", cut(path.trim_start_matches('/'))));
        }
        // As the caller names the server, which the conventions want, and not as the connection was accepted.
        let host = || request.headers().get(HOST)?.to_str().ok()?.parse::<Authority>().ok();
        if let Some(authority) = request.uri().authority().cloned().or_else(host) {
            span.set_attribute(KeyValue::new("server.address", cut(authority.host())));
            if let Some(port) = authority.port_u16() {
                span.set_attribute(KeyValue::new("server.port", i64::from(port)));
            }
        }
        if let PeerAddress::Tcp(address) = peer {
            span.set_attribute(KeyValue::new(
                "network.peer.address",
                address.ip().to_canonical().to_string(),
            ));
            span.set_attribute(KeyValue::new("network.peer.port", i64::from(address.port())));
        }
        Some(Box::new(CallSpan { span, notes: DecisionNotes::default() }))
    }
}

impl CallSpan {
    /// Where the service notes what it decides.
    pub(in crate::server) fn notes(&self) -> DecisionNotes {
        self.notes.clone()
    }

    /// The call may go on; with an access file it is known who calls.
    pub(in crate::server) fn admitted(&mut self, identity: Option<&CallerIdentity>) {
        if let Some(identity) = identity {
            self.span.set_attribute(KeyValue::new("scopeward.caller", identity.caller.name.clone()));
        }
    }

    /// The call ends now.
    pub(in crate::server) fn end(&mut self, code: Code) {
        let code_name = name(code);
        self.span.set_attribute(KeyValue::new("rpc.status_code", code_name));
        if is_error(code) {
            self.span.set_attribute(KeyValue::new("error.type", code_name));
            self.span.set_status(Status::error(""));
        }
        if let Some(noted) = self.notes.take() {
            set_decisions(&mut self.span, &noted);
        }
        self.span.end_with_timestamp(SystemTime::now());
    }
}

/// Says in a span what was decided.
pub(super) fn set_decisions(span: &mut Span, noted: &NotedDecisions) {
    let NotedDecisions { method, generation, allowed, denied, reason, decision_id, audiences } = *noted;
    let mut set = |attribute| span.set_attribute(attribute);
    set(KeyValue::new("scopeward.policy.generation", number(generation)));
    set(KeyValue::new("scopeward.audiences", number(audiences)));
    if method.is_batch() {
        set(KeyValue::new("scopeward.batch.allowed", i64::from(allowed)));
        set(KeyValue::new("scopeward.batch.denied", i64::from(denied)));
        return;
    }
    set(KeyValue::new("scopeward.decision", if denied == 0 { "ALLOW" } else { "DENY" }));
    if let Some(reason) = reason {
        set(KeyValue::new("scopeward.reason", reason.as_str()));
    }
    set(KeyValue::new("scopeward.decision_id", decision_id.to_string()));
}

/// A text that a caller sends for whatever it is, as much of it as a name may be long.
fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(MAX_TEXT_BYTES)).unwrap_or_default().to_owned()
}

/// As the conventions want it, and as gRPC spells it.
const fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Whether the server is to blame, by the conventions.
const fn is_error(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// `rpc.system.name`, and the name of a span whose method is not known.
pub(in crate::server) const GRPC: &str = "grpc";
/// The same of the Connect protocol.
pub(in crate::server) const CONNECT: &str = "connectrpc";
/// The longest name of a host, and longer than every path that is served.
const MAX_TEXT_BYTES: usize = 255;
