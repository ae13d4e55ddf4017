//! The spans of a request to a gateway, as the conventions have them ("Semantic conventions for HTTP spans", of version 1.45): one of the
//! request, with what was decided, and below it one of each request to the upstream, which gets its `traceparent`.

use std::time::SystemTime;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::Span;

use super::Traces;
use super::call::set_decisions;
use crate::rpc::caller::{CallerIdentity, PeerAddress};
use crate::rpc::notes::DecisionNotes;
use crate::rpc::trace_parent::TRACE_PARENT;

/// A host that is in the settings, as spans name it.
#[derive(Clone, Debug)]
pub(in crate::server) struct SpanAddress {
    pub(in crate::server) scheme: String,
    pub(in crate::server) host: String,
    pub(in crate::server) port: u16,
}

impl SpanAddress {
    fn attributes(&self) -> [KeyValue; 3] {
        let Self { scheme, host, port } = self;
        [
            KeyValue::new("url.scheme", scheme.clone()),
            KeyValue::new("server.address", host.clone()),
            KeyValue::new("server.port", i64::from(*port)),
        ]
    }
}

/// Makes the spans of a gateway.
#[derive(Debug)]
pub(in crate::server) struct RequestTraces {
    pub(in crate::server) traces: Traces,
    /// What clients see.
    pub(in crate::server) public: SpanAddress,
    pub(in crate::server) upstream: SpanAddress,
}

/// The span of a request that is being answered. One that is dropped before its end is of a request whose client did not wait.
#[derive(Debug)]
pub(in crate::server) struct RequestSpan {
    span: Span,
    notes: DecisionNotes,
}

impl RequestTraces {
    /// Begins the span of a request whose headers are here; `None` if it is not sampled.
    pub(in crate::server) fn request(
        &self,
        method: &Method,
        headers: &HeaderMap,
        peer: &PeerAddress,
    ) -> Option<RequestSpan> {
        let name = name_of(method);
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Server);
        let mut span = self.traces.tracer.build_with_context(builder, &self.traces.parent(headers));
        if !span.is_recording() {
            return None;
        }
        span.set_attribute(KeyValue::new("http.request.method", name));
        span.set_attributes(self.public.attributes());
        if let PeerAddress::Tcp(address) = peer {
            let ip = address.ip().to_canonical().to_string();
            span.set_attribute(KeyValue::new("network.peer.address", ip));
            span.set_attribute(KeyValue::new("network.peer.port", i64::from(address.port())));
        }
        Some(RequestSpan { span, notes: DecisionNotes::default() })
    }

    /// Begins the span of a request to the upstream below that of the client's, and says so in its headers.
    pub(in crate::server) fn to_upstream(
        &self,
        method: &Method,
        below: &SpanContext,
        headers: &mut HeaderMap,
    ) -> UpstreamSpan {
        let name = name_of(method);
        let parent = Context::new().with_remote_span_context(below.clone());
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Client);
        let mut span = self.traces.tracer.build_with_context(builder, &parent);
        span.set_attribute(KeyValue::new("http.request.method", name));
        span.set_attributes(self.upstream.attributes());
        let context = span.span_context();
        let (trace, id, flags) = (context.trace_id(), context.span_id(), context.trace_flags());
        let parent = format!("00-{trace}-{id}-{:02x}", flags.to_u8());
        headers.remove(TRACE_STATE);
        for (name, text) in [(TRACE_PARENT.clone(), parent), (TRACE_STATE, context.trace_state().header())] {
            if let Some(value) = HeaderValue::try_from(text).ok().filter(|value| !value.is_empty()) {
                headers.insert(name, value);
            }
        }
        UpstreamSpan(span)
    }
}

impl RequestSpan {
    /// What a request to the upstream is below of.
    pub(in crate::server) fn context(&self) -> SpanContext {
        self.span.span_context().clone()
    }

    /// Where what is decided is noted.
    pub(in crate::server) fn notes(&self) -> DecisionNotes {
        self.notes.clone()
    }

    /// The request may go on; with an access file it is known who sends it.
    pub(in crate::server) fn admitted(&mut self, identity: Option<&CallerIdentity>) {
        if let Some(identity) = identity {
            self.span.set_attribute(KeyValue::new("scopeward.caller", identity.caller.name.clone()));
        }
    }

    /// It is for this endpoint, whose path is `route` where it is one of the upstream's.
    pub(in crate::server) fn routed(&mut self, method: &Method, endpoint: &'static str, route: Option<&str>) {
        self.span.set_attribute(KeyValue::new("scopeward.endpoint", endpoint));
        if let Some(route) = route {
            self.span.update_name(format!("{} {route}", name_of(method)));
            self.span.set_attribute(KeyValue::new("http.route", route.to_owned()));
        }
    }

    /// Its answer begins now.
    pub(in crate::server) fn end(mut self, status: StatusCode) {
        if let Some(noted) = self.notes.take() {
            set_decisions(&mut self.span, &noted);
        }
        // What the client did wrong is no error of the server.
        end(&mut self.span, status, status.is_server_error());
    }
}

/// The span of a request to the upstream. One that is dropped before its end is of a request that nobody waits for any more.
#[derive(Debug)]
pub(in crate::server) struct UpstreamSpan(Span);

impl UpstreamSpan {
    /// The answer began, or there is none, for a reason.
    pub(in crate::server) fn end(mut self, answer: Result<StatusCode, &'static str>) {
        match answer {
            Ok(status) => end(&mut self.0, status, status.is_client_error() || status.is_server_error()),
            Err(reason) => {
                self.0.set_attribute(KeyValue::new("error.type", reason));
                self.0.set_status(Status::error(""));
                self.0.end_with_timestamp(SystemTime::now());
            }
        }
    }
}

fn end(span: &mut Span, status: StatusCode, is_error: bool) {
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    if is_error {
        span.set_attribute(KeyValue::new("error.type", status.as_str().to_owned()));
        span.set_status(Status::error(""));
    }
    span.end_with_timestamp(SystemTime::now());
}

/// A method as spans name it: those of RFC 9110 section 9 and RFC 5789, and one name for all that a client may think of.
fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::CONNECT => "CONNECT",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::PATCH => "PATCH",
        _ => "_OTHER",
    }
}

const TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");
