//! What is counted of a gateway. Labels are small closed sets; nothing of a request is among them.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::upstream::UpstreamError;
use crate::clients::{Clients, ClientsStatus};
use crate::gateway::endpoint::{EndpointName, GatewayRoute};

/// What a request is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum RequestTarget {
    /// An endpoint at which a scope is decided.
    Endpoint(EndpointName),
    /// One registered client.
    Client,
    /// A discovery document.
    Discovery,
    /// Anything else.
    Other,
    /// Nothing: it is refused.
    Refused,
}

impl RequestTarget {
    const ALL: [Self; 9] = [
        Self::Endpoint(EndpointName::Registration),
        Self::Endpoint(EndpointName::Authorization),
        Self::Endpoint(EndpointName::PushedAuthorization),
        Self::Endpoint(EndpointName::DeviceAuthorization),
        Self::Endpoint(EndpointName::Backchannel),
        Self::Client,
        Self::Discovery,
        Self::Other,
        Self::Refused,
    ];

    pub(super) const fn of(route: &GatewayRoute) -> Self {
        match route {
            GatewayRoute::Endpoint(name, _) => Self::Endpoint(*name),
            GatewayRoute::ClientConfiguration(..) => Self::Client,
            GatewayRoute::Discovery(_) => Self::Discovery,
            GatewayRoute::Other => Self::Other,
            GatewayRoute::Refused(_) => Self::Refused,
        }
    }

    /// The value of a label.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Endpoint(name) => name.as_str(),
            Self::Client => "client",
            Self::Discovery => "discovery",
            Self::Other => "other",
            Self::Refused => "refused",
        }
    }

    fn place(self) -> usize {
        Self::ALL.iter().position(|known| *known == self).unwrap_or_default()
    }
}

/// What is asked of the admin API of the upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum AdminOperation {
    /// A client is looked up.
    LookUp,
    /// Scopes are added to a client.
    Add,
}

impl AdminOperation {
    const ALL: [Self; 2] = [Self::LookUp, Self::Add];

    /// The value of a label.
    const fn as_str(self) -> &'static str {
        match self {
            Self::LookUp => "look_up",
            Self::Add => "add",
        }
    }
}

/// The counters. Clones count together.
#[derive(Clone, Debug)]
pub(in crate::server) struct GatewayCounts(Arc<GatewayCounters>);

#[derive(Debug)]
struct GatewayCounters {
    /// There once it is open.
    clients: OnceLock<Clients>,
    families: GatewayFamilies,
    /// By target, then by class of the status.
    requests: Vec<Vec<Counter>>,
    durations: Vec<Histogram>,
    upstream_errors: Vec<Counter>,
    /// By operation, then by whether it failed.
    admin_requests: Vec<[Counter; 2]>,
}

#[derive(Debug)]
struct GatewayFamilies {
    requests: Family<GatewayLabels, Counter>,
    durations: Family<GatewayLabels, Histogram, fn() -> Histogram>,
    errors: Family<GatewayLabels, Counter>,
    admin: Family<GatewayLabels, Counter>,
}

type GatewayLabels = Vec<(&'static str, &'static str)>;

impl Default for GatewayCounts {
    /// All counters are there from the start.
    fn default() -> Self {
        let families = GatewayFamilies {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            errors: Family::default(),
            admin: Family::default(),
        };
        let GatewayFamilies { requests, durations, errors, admin } = &families;
        let counters = GatewayCounters {
            clients: OnceLock::new(),
            requests: RequestTarget::ALL
                .iter()
                .map(|target| {
                    let of = |class: &&'static str| {
                        requests.get_or_create_owned(&vec![("endpoint", target.as_str()), ("status", *class)])
                    };
                    CLASSES.iter().map(of).collect()
                })
                .collect(),
            durations: RequestTarget::ALL
                .iter()
                .map(|target| durations.get_or_create_owned(&vec![("endpoint", target.as_str())]))
                .collect(),
            upstream_errors: ERRORS
                .iter()
                .map(|cause| errors.get_or_create_owned(&vec![("cause", *cause)]))
                .collect(),
            admin_requests: AdminOperation::ALL
                .iter()
                .map(|operation| {
                    OUTCOMES.map(|outcome| {
                        admin.get_or_create_owned(&vec![
                            ("operation", operation.as_str()),
                            ("outcome", outcome),
                        ])
                    })
                })
                .collect(),
            families,
        };
        Self(Arc::new(counters))
    }
}

impl GatewayCounts {
    /// Shows the record of clients from now on.
    pub(in crate::server) fn follow(&self, clients: &Clients) {
        // There is one record in a process.
        _ = self.0.clients.set(clients.clone());
    }

    pub(in crate::server) fn register(&self, registry: &mut Registry) {
        let GatewayFamilies { requests, durations, errors, admin } = &self.0.families;
        registry.register(
            "gateway_requests",
            "Requests to the gateway, by what they are for and the class of the status that they were answered with",
            requests.clone(),
        );
        registry.register_with_unit(
            "gateway_request_duration",
            "Time until the answer to a request to the gateway began",
            Unit::Seconds,
            durations.clone(),
        );
        registry.register(
            "gateway_upstream_errors",
            "Requests of the gateway that the upstream did not answer, by cause",
            errors.clone(),
        );
        registry.register(
            "gateway_admin_requests",
            "What was asked of the admin API of the upstream, by operation and outcome",
            admin.clone(),
        );
        registry.register_collector(Box::new(ClientsCollector(self.clone())));
    }

    pub(super) fn answered(&self, target: RequestTarget, status: StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        let at = target.place();
        if let Some(counter) = self.0.requests.get(at).and_then(|classes| classes.get(class)) {
            counter.inc();
        }
        if let Some(duration) = self.0.durations.get(at) {
            duration.observe(took.as_secs_f64());
        }
    }

    pub(super) fn admin_asked(&self, operation: AdminOperation, succeeded: bool) {
        let at = AdminOperation::ALL.iter().position(|known| *known == operation);
        let outcomes = at.and_then(|at| self.0.admin_requests.get(at));
        if let Some([ok, failed]) = outcomes {
            if succeeded {
                ok.inc()
            } else {
                failed.inc()
            };
        }
    }

    pub(super) fn upstream_failed(&self, error: &UpstreamError) {
        let at = ERRORS.iter().position(|cause| *cause == error.as_str());
        if let Some(counter) = at.and_then(|at| self.0.upstream_errors.get(at)) {
            counter.inc();
        }
    }
}

/// Reads the record of clients when metrics are asked for.
#[derive(Debug)]
struct ClientsCollector(GatewayCounts);

impl Collector for ClientsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let status = self.0.0.clients.get().map(Clients::status).unwrap_or_default();
        let ClientsStatus { clients, limit, bytes, evicted_unused, evicted_used, errors } = status;
        for (name, help, value) in [
            ("gateway_clients", "Registered clients that the gateway remembers", clients),
            ("gateway_clients_limit", "The most that it remembers (--max-clients)", limit),
            ("gateway_clients_bytes", "Bytes of text that they take", bytes),
        ] {
            let gauge = ConstGauge::new(value as f64);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let mut family = encoder.encode_descriptor(
            "gateway_clients_evicted",
            "Clients that were forgotten to make room for others, by whether they ever began a login",
            None,
            MetricType::Counter,
        )?;
        for (began, count) in [("no", evicted_unused), ("yes", evicted_used)] {
            let labels = [("began_login", began)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        let counter = ConstCounter::new(errors);
        let help = "Commits of the record of clients that failed";
        counter.encode(encoder.encode_descriptor(
            "gateway_clients_errors",
            help,
            None,
            counter.metric_type(),
        )?)
    }
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const OUTCOMES: [&str; 2] = ["ok", "error"];
const ERRORS: [&str; 3] = ["connect", "timeout", "broken"];
const BUCKETS: [f64; 10] = [0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];
