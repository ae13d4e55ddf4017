//! Spans over OTLP/gRPC: one for each call, two for each request to a gateway, and one for each reload of the policy.
//!
//! Spans are made with the API and the SDK of OpenTelemetry, and sent by a part of this server (`SpanExport`), so that a collector
//! never holds up anything else. Without a collector in the settings there is none of this.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use opentelemetry::trace::{
    Span, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use self::count::SpanCounts;
use self::export::SpanExport;
use self::settings::TraceSettings;
use super::metrics::Reload;
use super::tls::TlsError;
use crate::rpc::trace_parent::TraceParent;

pub(super) mod call;
pub mod count;
mod dial;
pub(in crate::server) mod export;
pub(super) mod request;
pub mod settings;

/// Makes spans. Clones share everything.
#[derive(Clone, Debug)]
pub struct Traces {
    tracer: SdkTracer,
    /// Whether callers say which span is the parent.
    reads_parents: bool,
}

impl Traces {
    /// What makes spans and what sends them. Needs a runtime.
    ///
    /// # Errors
    /// If the files of TLS cannot be used.
    pub(super) fn start(settings: TraceSettings, counts: SpanCounts) -> Result<(Self, SpanExport), TlsError> {
        let resource = Resource::builder_empty()
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_attributes(settings.resource.iter().cloned())
            .build();
        let (queue, export) = SpanExport::new(&settings, &resource, counts)?;
        let provider = SdkTracerProvider::builder()
            .with_sampler(settings.sampler)
            .with_resource(resource)
            .with_span_processor(queue)
            .build();
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        Ok((
            Self { tracer: provider.tracer_with_scope(scope), reads_parents: settings.reads_parents },
            export,
        ))
    }

    /// A span for an attempt to load the policy that was judged just now. It has no parent.
    pub(super) fn reloaded(&self, reload: Reload, generation: u64, findings: usize, took: Duration) {
        let now = SystemTime::now();
        let builder = SpanBuilder::from_name("policy reload")
            .with_kind(SpanKind::Internal)
            .with_start_time(now.checked_sub(took).unwrap_or(now))
            .with_attributes([
                KeyValue::new("scopeward.reload.result", reload.as_str()),
                KeyValue::new("scopeward.policy.generation", number(generation)),
                KeyValue::new("scopeward.policy.findings", number(findings)),
            ]);
        let mut span = self.tracer.build_with_context(builder, &Context::new());
        if reload == Reload::Rejected {
            span.set_attribute(KeyValue::new("error.type", "policy_rejected"));
            span.set_status(Status::error("the policy was rejected"));
        }
        span.end_with_timestamp(now);
    }

    /// The span of the caller, if it names one.
    fn parent(&self, headers: &HeaderMap) -> Context {
        let text = |name| headers.get(name)?.to_str().ok();
        let parent = text("traceparent").filter(|_| self.reads_parents).and_then(TraceParent::read);
        let Some(TraceParent { trace_id, span_id, is_sampled }) = parent else { return Context::new() };
        let (Ok(trace_id), Ok(span_id)) = (TraceId::from_hex(trace_id), SpanId::from_hex(span_id)) else {
            return Context::new();
        };
        let flags = TraceFlags::default().with_sampled(is_sampled);
        // A header that is not well-formed leaves the parent as it is, and none has to be kept that is longer (W3C Trace Context
        // section 3.3.1).
        let state = text("tracestate").filter(|state| state.len() <= MAX_STATE_BYTES);
        let state = state.and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
        Context::new().with_remote_span_context(SpanContext::new(trace_id, span_id, flags, true, state))
    }
}

/// As attributes have it.
fn number(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

const MAX_STATE_BYTES: usize = 512;
