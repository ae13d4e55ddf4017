//! What became of spans.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Counts spans. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct SpanCounts(Arc<SpanCounters>);

#[derive(Debug)]
struct SpanCounters {
    exported: Counter,
    dropped: Family<LossLabels, Counter>,
    by_cause: [Counter; SpanLoss::ALL.len()],
}

type LossLabels = Vec<(&'static str, &'static str)>;

/// Why the collector does not have a span.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum SpanLoss {
    /// Too many waited.
    QueueFull,
    /// The collector could not be reached, or did not take it in time.
    ExportFailed,
    /// The collector took the export and not this span.
    Rejected,
    /// The server stopped before.
    Shutdown,
}

impl SpanLoss {
    const ALL: [Self; 4] = [Self::QueueFull, Self::ExportFailed, Self::Rejected, Self::Shutdown];

    const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::ExportFailed => "export_failed",
            Self::Rejected => "rejected",
            Self::Shutdown => "shutdown",
        }
    }
}

impl Default for SpanCounts {
    fn default() -> Self {
        let dropped = Family::<LossLabels, Counter>::default();
        // Shown from the start on, so that an increase is seen as one.
        let by_cause =
            SpanLoss::ALL.map(|cause| dropped.get_or_create(&vec![("cause", cause.as_str())]).clone());
        Self(Arc::new(SpanCounters { exported: Counter::default(), dropped, by_cause }))
    }
}

impl SpanCounts {
    pub(super) fn exported(&self, spans: u64) {
        self.0.exported.inc_by(spans);
    }

    pub(super) fn dropped(&self, cause: SpanLoss, spans: u64) {
        if let Some(counter) = self.0.by_cause.get(cause as usize) {
            counter.inc_by(spans);
        }
    }

    /// All that were dropped, for whatever cause.
    pub(super) fn all_dropped(&self) -> u64 {
        self.0.by_cause.iter().map(Counter::get).sum()
    }

    /// Adds the counters to what `/metrics` shows.
    pub(in crate::server) fn register(&self, registry: &mut Registry) {
        let SpanCounters { exported, dropped, .. } = &*self.0;
        registry.register("spans_exported", "Spans that the collector of traces took", exported.clone());
        registry.register(
            "spans_dropped",
            "Spans that the collector of traces does not have, by cause: too many waited, it could not be reached or did not \
             answer in time, it rejected them, the server stopped before",
            dropped.clone(),
        );
    }
}
