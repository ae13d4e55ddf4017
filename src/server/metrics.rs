//! Metrics in the text format of Prometheus: what happened is counted here, what is now is read from
//! its owner when somebody asks.
//!
//! Labels are small closed sets; client ids, scopes and digests of requests belong in the audit record.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use super::access::count::CallerCounts;
use super::gateway::count::GatewayCounts;
use super::method::Service;
use super::observe::CallCounts;
use super::pressure::{ConnectionRefusal, Pressure};
use super::process::ProcessCollector;
use super::supervisor::{OnEnd, Part};
use super::tls::TlsRole;
use super::traces::count::SpanCounts;
use crate::audit::AuditLog;
use crate::audit::forward::ForwardStatus;
use crate::policy::PolicySet;
use crate::rpc::count::DecisionCounts;
use crate::rpc::error::Overload;
use crate::rpc::shadow::ShadowCounts;
use crate::status::condition_type::{CONDITION_TYPES, ConditionType};
use crate::status::{ConditionStatus, Snapshot, StatusTracker};

/// The commit that was built, if whoever built it set `BUILD_REVISION`: an archive of the source does not know it.
const REVISION: &str = match option_env!("BUILD_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What came of an attempt to load a policy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reload {
    /// A new set serves.
    Accepted,
    /// Other bytes, the same meaning.
    Unchanged,
    /// The files are not valid, or not there.
    Rejected,
}

impl Reload {
    /// The value of a metric's label, and of an attribute.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Unchanged => "unchanged",
            Self::Rejected => "rejected",
        }
    }
}

/// What is counted from the start of the process on, before there is anybody who shows it.
#[derive(Clone, Debug, Default)]
pub struct ProcessCounters {
    /// Lines of the log that were dropped.
    pub log_lines_dropped: Counter,
    /// Panics.
    pub panics: Counter,
    /// What became of spans.
    pub spans: SpanCounts,
}

/// What is counted of answers, wherever they are given.
#[derive(Clone, Debug, Default)]
pub struct AnswerCounts {
    /// Decisions.
    pub decisions: DecisionCounts,
    /// How the shadow policy decides otherwise.
    pub shadow: ShadowCounts,
    /// Whether a gateway counts what it is asked.
    pub is_gateway: bool,
}

/// Where the figures of the audit come from.
#[derive(Debug)]
pub struct AuditFigures {
    /// The log.
    pub log: AuditLog,
    /// Observed by the log itself.
    pub commits: Histogram,
    /// How forwarding stands.
    pub forward: watch::Receiver<ForwardStatus>,
}

/// Everything that is counted. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    accepted: Counter,
    unchanged: Counter,
    rejected: Counter,
    reload_duration: Histogram,
    watching: Gauge,
    audit_lines: Counter,
    part_ends: Family<Vec<(&'static str, &'static str)>, Counter>,
    tls_not_after: Family<Vec<(&'static str, &'static str)>, Gauge<f64, AtomicU64>>,
    pressure: Pressure,
    calls: CallCounts,
    callers: CallerCounts,
    decisions: DecisionCounts,
    gateway: GatewayCounts,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Registers everything; `answers` is counted by the service.
    pub fn new(
        tracker: Arc<StatusTracker>,
        audit: AuditFigures,
        process: ProcessCounters,
        pressure: &Pressure,
        answers: &AnswerCounts,
    ) -> Self {
        let AnswerCounts { decisions, shadow, is_gateway } = answers;
        let AuditFigures { log, commits, forward } = audit;
        let ProcessCounters { log_lines_dropped, panics, spans } = process;
        let mut all = Registry::default();
        let calls = CallCounts::default();
        calls.register(&mut all);
        all.register_collector(Box::new(ProcessCollector::new()));
        let registry = all.sub_registry_with_prefix("scopeward");
        let callers = CallerCounts::default();
        callers.register(registry);
        let build = Family::<Vec<(&'static str, &'static str)>, Gauge>::default();
        build
            .get_or_create(&vec![
                ("version", env!("CARGO_PKG_VERSION")),
                ("revision", REVISION),
                ("os", std::env::consts::OS),
                ("arch", std::env::consts::ARCH),
            ])
            .set(1);
        registry.register("build_info", "What was built: 1 for the version that runs", build);
        decisions.register(registry);
        shadow.register(registry);
        let gateway = GatewayCounts::default();
        if *is_gateway {
            gateway.register(registry);
        }
        let reloads: Family<Vec<(&'static str, &'static str)>, Counter> = Family::default();
        let result = |result: Reload| reloads.get_or_create(&vec![("result", result.as_str())]).clone();
        let (accepted, unchanged, rejected) =
            (result(Reload::Accepted), result(Reload::Unchanged), result(Reload::Rejected));
        registry.register(
            "policy_reloads",
            "Attempts to load a policy whose bytes were new, by result",
            reloads.clone(),
        );
        let reload_duration = Histogram::new([0.001, 0.005, 0.02, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0]);
        registry.register_with_unit(
            "policy_reload_duration",
            "Time to read and check the policy files when something changed",
            prometheus_client::registry::Unit::Seconds,
            reload_duration.clone(),
        );
        let watching = Gauge::default();
        registry.register(
            "policy_file_events",
            "1 if file events announce changes, 0 if only the rescan finds them",
            watching.clone(),
        );
        registry.register(
            "log_lines_dropped",
            "Lines of the log that were dropped because the queue was full or nobody read them",
            log_lines_dropped,
        );
        registry.register("panics", "Panics of the process, wherever they were caught", panics);
        spans.register(registry);
        let part_ends = Family::<Vec<(&'static str, &'static str)>, Counter>::default();
        for part in Part::ALL.into_iter().filter(|part| matches!(part.on_end(), OnEnd::Restart { .. })) {
            // Shown from the start on, so that an increase is seen as one.
            _ = part_ends.get_or_create(&vec![("part", part.name())]);
        }
        registry.register(
            "part_unexpected_ends",
            "Tasks and threads that ended although they were not told to and were started again, by part",
            part_ends.clone(),
        );
        let audit_lines = Counter::default();
        registry.register("audit_lines_written", "Audit records written as JSON lines", audit_lines.clone());
        let tls_not_after = Family::default();
        registry.register(
            "tls_not_after_timestamp_seconds",
            "When the first certificate of each role ceases to be valid; only with TLS",
            tls_not_after.clone(),
        );
        registry.register_collector(Box::new(StatusCollector(tracker)));
        registry.register_with_unit(
            "audit_commit_duration",
            "Time that a transaction of the audit store took, its fsync included",
            prometheus_client::registry::Unit::Seconds,
            commits,
        );
        registry.register_collector(Box::new(AuditCollector(log, forward)));
        registry.register_collector(Box::new(PressureCollector(pressure.clone())));
        Self {
            registry: Arc::new(all),
            accepted,
            unchanged,
            rejected,
            reload_duration,
            watching,
            audit_lines,
            part_ends,
            tls_not_after,
            pressure: pressure.clone(),
            calls,
            callers,
            decisions: decisions.clone(),
            gateway,
        }
    }

    /// What is in flight.
    #[must_use]
    pub fn pressure(&self) -> &Pressure {
        &self.pressure
    }

    /// How calls end.
    #[must_use]
    pub fn calls(&self) -> &CallCounts {
        &self.calls
    }

    /// What a gateway counts.
    #[must_use]
    pub(super) const fn gateway(&self) -> &GatewayCounts {
        &self.gateway
    }

    /// Who calls.
    #[must_use]
    pub const fn callers(&self) -> &CallerCounts {
        &self.callers
    }

    /// This policy is about to serve.
    pub fn follow(&self, policy: &PolicySet) {
        self.decisions.follow(policy);
    }

    /// Counts an attempt to load a policy and how long it took.
    pub fn reloaded(&self, reload: Reload, took: Duration) {
        match reload {
            Reload::Accepted => self.accepted.inc(),
            Reload::Unchanged => self.unchanged.inc(),
            Reload::Rejected => self.rejected.inc(),
        };
        self.reload_duration.observe(took.as_secs_f64());
    }

    /// Notes whether file events come.
    pub fn watching(&self, events: bool) {
        self.watching.set(i64::from(events));
    }

    /// Counts lines of the audit that were written.
    pub fn audit_lines(&self, lines: usize) {
        self.audit_lines.inc_by(lines as u64);
    }

    /// Counts a part that ended unexpectedly.
    pub fn part_ended(&self, part: &'static str) {
        self.part_ends.get_or_create(&vec![("part", part)]).inc();
    }

    /// Notes when certificates cease to be valid.
    pub fn tls_not_after(&self, expiries: &[(TlsRole, SystemTime)]) {
        for (role, end) in expiries {
            self.tls_not_after.get_or_create(&vec![("role", role.as_str())]).set(seconds(*end));
        }
    }

    /// All metrics as text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

/// Reads the tracker when metrics are asked for.
#[derive(Debug)]
struct StatusCollector(Arc<StatusTracker>);

impl Collector for StatusCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let snapshot = self.0.snapshot();
        let Snapshot { serving, last_attempt, conditions, .. } = &*snapshot;
        let mut gauge = |name: &str, help: &str, value: f64| {
            let gauge = ConstGauge::new(value);
            let encoder = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(encoder)
        };
        let serving_number =
            |number: fn(&crate::status::Serving) -> f64| serving.as_ref().map_or(0.0, number);
        gauge(
            "policy_generation",
            "Generation of the policy that serves, 0 before the first",
            serving_number(|serving| serving.generation as f64),
        )?;
        gauge(
            "policy_audiences",
            "Audiences of the policy that serves",
            serving_number(|serving| serving.audiences.len() as f64),
        )?;
        gauge(
            "policy_last_reload_success_timestamp_seconds",
            "When the policy that serves began to serve, 0 before the first",
            serving_number(|serving| seconds(serving.load_time)),
        )?;
        gauge(
            "policy_last_reload_attempt_timestamp_seconds",
            "When policy files were last judged, 0 before the first attempt",
            last_attempt.as_ref().map_or(0.0, |attempt| seconds(attempt.attempt_time)),
        )?;
        gauge(
            "policy_last_reload_successful",
            "1 if the newest policy files are what serves",
            last_attempt.as_ref().map_or(0.0, |attempt| f64::from(u8::from(attempt.accepted))),
        )?;
        gauge(
            "policy_findings",
            "Findings of the newest attempt, warnings included",
            last_attempt.as_ref().map_or(0.0, |attempt| attempt.finding_count as f64),
        )?;
        let mut family = encoder.encode_descriptor(
            "policy_info",
            "The digest of the policy that serves",
            None,
            MetricType::Gauge,
        )?;
        if let Some(serving) = serving {
            let labels = [("digest", serving.digest.as_str())];
            let encoder = family.encode_family(&labels)?;
            ConstGauge::new(1i64).encode(encoder)?;
        }
        let mut family = encoder.encode_descriptor(
            "condition",
            "1 for the status that a condition has, 0 for the others; 0 for all of one that is only there when true",
            None,
            MetricType::Gauge,
        )?;
        // Each type is always there, so that a condition that is over is seen to be over.
        for ConditionType { kind, .. } in CONDITION_TYPES {
            let condition = conditions.iter().find(|condition| condition.kind == *kind);
            for status in [ConditionStatus::True, ConditionStatus::False, ConditionStatus::Unknown] {
                let labels = [("type", *kind), ("status", status.as_str())];
                let holds = condition.is_some_and(|condition| condition.status == status);
                ConstGauge::new(i64::from(holds)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// The histogram of [`Metrics::new`].
#[must_use]
pub fn commit_histogram() -> Histogram {
    Histogram::new([0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0])
}

/// Reads what is in flight when metrics are asked for.
#[derive(Debug)]
struct PressureCollector(Pressure);

impl Collector for PressureCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Self(pressure) = self;
        let gauges = [
            ("calls_in_flight", "Calls that hold a place (--max-calls)", pressure.calls()),
            (
                "bytes_in_flight",
                "Bytes of requests being received and answers being sent (--max-bytes-in-flight)",
                pressure.bytes(),
            ),
            ("connections", "Open gRPC connections (--max-connections)", pressure.connections()),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value as f64);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let mut family = encoder.encode_descriptor(
            "streams",
            "Open streams, by service (--max-streams)",
            None,
            MetricType::Gauge,
        )?;
        for service in Service::ALL.into_iter().filter(|service| service.has_streams()) {
            let labels = [("service", service.as_str())];
            ConstGauge::new(pressure.streams(service) as f64).encode(family.encode_family(&labels)?)?;
        }
        let mut family = encoder.encode_descriptor(
            "calls_refused",
            "Calls and streams that were refused because a budget was used up",
            None,
            MetricType::Counter,
        )?;
        for cause in Overload::ALL {
            let labels = [("cause", cause.as_str())];
            ConstCounter::new(pressure.refused(cause)).encode(family.encode_family(&labels)?)?;
        }
        let mut family = encoder.encode_descriptor(
            "connections_refused",
            "Connections that were closed before they could be used: at the limit, because one address had half of it, or in the handshake of TLS",
            None,
            MetricType::Counter,
        )?;
        for cause in ConnectionRefusal::ALL {
            let labels = [("cause", cause.as_str())];
            ConstCounter::new(pressure.connections_refused(cause)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Reads the audit log when metrics are asked for.
#[derive(Debug)]
struct AuditCollector(AuditLog, watch::Receiver<ForwardStatus>);

impl Collector for AuditCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let status = self.0.status();
        let counters = [
            ("audit_appended", "Audit events taken over for writing", status.appended),
            ("audit_errors", "Failures of the audit store", status.errors),
            ("audit_lost", "Audit events that a gap counts instead of recording", status.lost),
            (
                "audit_refused",
                "Questions refused (AUDIT_QUEUE_FULL) because too many audit records waited to be written",
                status.refused,
            ),
            ("audit_commits", "Transactions of the audit store", status.commits),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let mut family = encoder.encode_descriptor(
            "audit_evicted_records",
            "Audit records that retention deleted: by age, or by size although their age would keep them",
            None,
            MetricType::Counter,
        )?;
        for (cause, count) in [("age", status.evicted.age), ("size", status.evicted.size)] {
            let labels = [("cause", cause)];
            let encoder = family.encode_family(&labels)?;
            ConstCounter::new(count).encode(encoder)?;
        }
        let health = [
            ("audit_durable_sequence", "Newest sequence that is durable", status.durable),
            ("audit_oldest_sequence", "Oldest sequence that retention keeps", status.oldest),
            ("audit_queue_length", "Audit events that wait to be written", status.queue_length),
            ("audit_queue_bytes", "Room that they take", status.queue_bytes),
            ("audit_store_bytes", "Bytes of the audit store", status.bytes),
            (
                "audit_store_limit_bytes",
                "Most bytes of the audit store (--audit-max-size), 0 for no limit",
                status.limit.unwrap_or(0),
            ),
            ("audit_readers", "Open streams of the audit log", status.readers),
            ("audit_reader_lag", "Sequences that the slowest open stream is behind", status.largest_lag),
            (
                "audit_chain_intact",
                "0 if the newest walk over the stored audit chain found a bad record, else 1",
                u64::from(status.health.chain_broken.is_none()),
            ),
            (
                "audit_degraded",
                "1 while audit records cannot be made durable",
                u64::from(status.health.degraded.is_some() || status.health.stalled.is_some()),
            ),
        ];
        for (name, help, value) in health {
            let gauge = ConstGauge::new(value as f64);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        self.encode_forwarding(&mut encoder, status.durable)
    }
}

impl AuditCollector {
    fn encode_forwarding(&self, encoder: &mut DescriptorEncoder<'_>, durable: u64) -> Result<(), fmt::Error> {
        let ForwardStatus { forwarded, last_success, records, retries, missing, .. } = &*self.1.borrow();
        let counters = [
            ("audit_forwarded_records", "Audit records written to the joined store", *records),
            ("audit_forward_retries", "Failures of forwarding; each was tried again", *retries),
            (
                "audit_forward_missing_records",
                "Audit records that retention deleted before the joined store had them",
                *missing,
            ),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let gauges = [
            (
                "audit_forward_lag",
                "Sequences that the joined store is behind; 0 without --audit-forward and until it said what it has",
                forwarded.map_or(0.0, |forwarded| durable.saturating_sub(forwarded) as f64),
            ),
            (
                "audit_forward_last_success_timestamp_seconds",
                "When the joined store last took records or had all of them, 0 before",
                last_success.map_or(0.0, seconds),
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
