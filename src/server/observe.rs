//! Observes each call, from its headers until the last byte of its response has left: the one place that knows how a call ended,
//! whoever ended it.
//!
//! What has to be told of a call when it begins and when it ends belongs into `ObservedCall`: `begin` sees the headers, and `Drop`
//! the code and the duration, for calls that are answered, refused, reset, or that panic.

use std::sync::Arc;

use http::HeaderMap;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::method::Streaming;
use super::traces::call::CallSpan;

/// A call that is observed until this is dropped. It counts as cancelled unless [`ObservedCall::end`] says otherwise, so that no way
/// out of a call is missed.
#[derive(Debug)]
pub(super) struct ObservedCall {
    method: Arc<MethodCounts>,
    begun: Instant,
    code: Code,
    /// If there are spans, and this call is sampled.
    span: Option<Box<CallSpan>>,
}

impl ObservedCall {
    /// A call whose headers are here.
    pub(super) fn begin(method: &Arc<MethodCounts>) -> Self {
        method.started.inc();
        Self { method: Arc::clone(method), begun: Instant::now(), code: Code::Cancelled, span: None }
    }

    /// When its headers were here.
    pub(super) const fn begun(&self) -> Instant {
        self.begun
    }

    /// The call is a span, too.
    pub(super) fn trace(&mut self, span: Option<Box<CallSpan>>) {
        self.span = span;
    }

    /// Its span, if it has one.
    pub(super) fn span(&mut self) -> Option<&mut CallSpan> {
        self.span.as_deref_mut()
    }

    /// The call ends now, with this code.
    pub(super) fn end(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for ObservedCall {
    fn drop(&mut self) {
        let Self { method, begun, code, span } = self;
        if let Some(handled) = method.handled.get(*code as usize) {
            handled.inc();
        }
        method.seconds.observe(begun.elapsed().as_secs_f64());
        if let Some(span) = span {
            span.end(*code);
        }
    }
}

/// The code in the headers or trailers that end a response; a response without one is broken.
pub(super) fn code_of(headers: &HeaderMap) -> Code {
    headers.get(Status::GRPC_STATUS).map_or(Code::Unknown, |code| Code::from_bytes(code.as_bytes()))
}

/// What is counted of calls, under the names that interceptors of gRPC servers have in other languages. Clones count together.
#[derive(Clone, Debug)]
pub struct CallCounts {
    started: Family<MethodLabels, Counter>,
    handled: Family<MethodLabels, Counter>,
    seconds: Family<MethodLabels, Histogram, Seconds>,
}

type MethodLabels = Vec<(&'static str, String)>;

/// Makes histograms of durations.
#[derive(Clone, Copy, Debug)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(BUCKETS)
    }
}

impl Default for CallCounts {
    fn default() -> Self {
        Self {
            started: Family::default(),
            handled: Family::default(),
            seconds: Family::new_with_constructor(Seconds),
        }
    }
}

impl CallCounts {
    /// The counters of a method, which are shown from now on.
    pub(super) fn of(&self, kind: Streaming, service: &str, method: &str) -> Arc<MethodCounts> {
        let mut labels = vec![
            ("grpc_type", kind.as_str().to_owned()),
            ("grpc_service", service.to_owned()),
            ("grpc_method", method.to_owned()),
        ];
        let started = self.started.get_or_create_owned(&labels);
        let seconds = self.seconds.get_or_create_owned(&labels);
        let handled = CODES.map(|code| {
            labels.truncate(3);
            labels.push(("grpc_code", code.to_owned()));
            self.handled.get_or_create_owned(&labels)
        });
        Arc::new(MethodCounts { started, handled, seconds })
    }

    /// Adds the counters to what `/metrics` shows.
    pub fn register(&self, registry: &mut Registry) {
        let Self { started, handled, seconds } = self;
        registry.register("grpc_server_started", "Calls that began, refused ones too", started.clone());
        registry.register(
            "grpc_server_handled",
            "Calls that ended, by code; Canceled if the caller did not wait for the end",
            handled.clone(),
        );
        registry.register_with_unit(
            "grpc_server_handling",
            "Time from the headers of a call until the last byte of its response was sent",
            Unit::Seconds,
            seconds.clone(),
        );
    }
}

/// The counters of one method, found once.
#[derive(Debug)]
pub(super) struct MethodCounts {
    started: Counter,
    /// In the order of the codes.
    handled: [Counter; CODES.len()],
    seconds: Histogram,
}

/// The codes by their numbers, as Go spells them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// 10 µs to 10 s.
const BUCKETS: [f64; 19] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_names_of_go() {
        for (number, name) in CODES.iter().enumerate() {
            let code = Code::from_i32(i32::try_from(number).unwrap());
            assert_eq!(code as usize, number, "a code of gRPC");
            let ours = format!("{code:?}");
            assert!(
                *name == ours || matches!((*name, &*ours), ("OK", "Ok") | ("Canceled", "Cancelled")),
                "{name} for {ours}"
            );
        }
    }

    #[test]
    fn a_call_that_is_dropped_counts_as_cancelled() {
        let counts = CallCounts::default();
        let method = counts.of(Streaming::Unary, "s", "m");
        ObservedCall::begin(&method).end(Code::NotFound);
        drop(ObservedCall::begin(&method));
        let of = |code: Code| method.handled[code as usize].get();
        assert_eq!((method.started.get(), of(Code::NotFound), of(Code::Cancelled)), (2, 1, 1));
        assert_eq!(method.handled.iter().map(Counter::get).sum::<u64>(), 2);
    }
}
