//! How often each caller of the access file calls, and how it is known then. Its names are the only ones that are shown.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use crate::access::AuthenticatedBy;
use crate::rpc::count::named::{ByName, NamedCounters};

/// Counts calls by caller. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct CallerCounts {
    callers: NamedCounters<CallerCounters>,
    /// Calls that need no caller: without an access file, and of health.
    none: Counter,
    /// Calls that show nothing that the access file knows.
    unknown: Counter,
}

impl CallerCounts {
    /// These are the callers from now on. Those that stay go on counting. Returns their counters.
    pub(super) fn follow<'n>(&self, names: impl Iterator<Item = &'n str>) -> Arc<ByName<CallerCounters>> {
        self.callers.follow(names)
    }

    pub(super) fn needs_none(&self) {
        self.none.inc();
    }

    pub(super) fn is_unknown(&self) {
        self.unknown.inc();
    }

    /// Adds the counters to what `/metrics` shows.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
    }
}

/// The counters of one caller, in the order of [`AuthenticatedBy::ALL`].
#[derive(Debug, Default)]
pub(super) struct CallerCounters([Counter; AuthenticatedBy::ALL.len()]);

impl CallerCounters {
    pub(super) fn count(&self, authenticated_by: AuthenticatedBy) {
        if let Some(counter) = self.0.get(authenticated_by as usize) {
            counter.inc();
        }
    }
}

impl Collector for CallerCounts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Self { callers, none, unknown } = self;
        let mut family = encoder.encode_descriptor(
            "caller_calls",
            "Calls by caller of the access file and by what it showed, refused ones too; no caller where none is needed \
             (none) or what was shown is not in the file (unknown)",
            None,
            MetricType::Counter,
        )?;
        let mut show = |caller: &str, authenticated_by: &str, counter: &Counter| {
            let labels = [("caller", caller), ("authenticated_by", authenticated_by)];
            counter.encode(family.encode_family(&labels)?)
        };
        show("", "none", none)?;
        show("", "unknown", unknown)?;
        for (name, CallerCounters(counters)) in
            callers.load().iter().map(|(name, counters)| (name, &**counters))
        {
            for (authenticated_by, counter) in AuthenticatedBy::ALL.iter().zip(counters) {
                show(name, authenticated_by.as_str(), counter)?;
            }
        }
        Ok(())
    }
}
