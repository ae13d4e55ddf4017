//! What is counted of answers: how they ended, and how often a caller did not say what the client had registered.
//!
//! Labels are small closed sets; nothing of a request is one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::decision::{Answer, Origin, Reason};
use crate::policy::{ClientSource, PolicySet};

pub mod named;

use named::NamedCounters;

/// The RPCs that decide.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DecidingMethod {
    /// A registration.
    Expand,
    /// An authorize request.
    Check,
    /// An authorize request in a batch.
    BatchCheck,
    /// A request for a token.
    Token,
    /// A request for a token in a batch.
    BatchToken,
}

impl DecidingMethod {
    const ALL: [Self; 5] = [Self::Expand, Self::Check, Self::BatchCheck, Self::Token, Self::BatchToken];

    /// The RPC of a path, if it decides.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.path() == path)
    }

    /// The path of the RPC, such as `/scopeward.v1.ScopePolicyService/CheckAuthorizeScopes`.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Expand => "/scopeward.v1.ScopePolicyService/ExpandRegistrationScopes",
            Self::Check => "/scopeward.v1.ScopePolicyService/CheckAuthorizeScopes",
            Self::BatchCheck => "/scopeward.v1.ScopePolicyService/BatchCheckAuthorizeScopes",
            Self::Token => "/scopeward.v1.ScopePolicyService/CheckTokenScopes",
            Self::BatchToken => "/scopeward.v1.ScopePolicyService/BatchCheckTokenScopes",
        }
    }

    /// Returns `true` for the RPCs of which a call decides several times.
    #[must_use]
    pub const fn is_batch(self) -> bool {
        matches!(self, Self::BatchCheck | Self::BatchToken)
    }

    /// The name of the RPC, such as `CheckAuthorizeScopes`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.path().rsplit('/').next().unwrap_or_default()
    }
}

/// Counts answers. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct DecisionCounts(Arc<Counters>);

type Labels = Vec<(&'static str, &'static str)>;

#[derive(Debug)]
struct Counters {
    decisions: Family<Labels, Counter>,
    /// One for each method and each end: allowed, then the reasons.
    by_end: [[Counter; 1 + Reason::ALL.len()]; DecidingMethod::ALL.len()],
    scopes_added: Family<Labels, Counter>,
    /// In the order of the origins.
    by_origin: [Counter; Origin::ALL.len()],
    scopes_refused: Family<Labels, Counter>,
    /// In the order of the reasons.
    by_reason: [Counter; Reason::ALL.len()],
    unknown_registrations: Family<Labels, Counter>,
    /// In the order of `SOURCES`.
    by_source: [Counter; SOURCES.len()],
    has_warned: AtomicBool,
    /// Allowed and denied, for audiences of the policy that serves, if they are counted.
    by_audience: Option<NamedCounters<[Counter; 2]>>,
}

const SOURCES: [(Option<ClientSource>, &str); 4] = [
    (Some(ClientSource::Dcr), "dcr"),
    (Some(ClientSource::Cimd), "cimd"),
    (Some(ClientSource::Static), "static"),
    (None, "unspecified"),
];

impl Default for DecisionCounts {
    fn default() -> Self {
        Self::new(false)
    }
}

impl DecisionCounts {
    /// Nothing is counted yet; `per_audience` counts by audience as well, once [`DecisionCounts::follow`] named a policy.
    #[must_use]
    pub fn new(per_audience: bool) -> Self {
        let child =
            |family: &Family<Labels, Counter>, labels: &[_]| family.get_or_create_owned(&labels.to_vec());
        let decisions = Family::default();
        let by_end = DecidingMethod::ALL.map(|method| {
            let ended = |decision, reason| {
                let labels = [("method", method.name()), ("decision", decision), ("reason", reason)];
                child(&decisions, &labels)
            };
            std::array::from_fn(|end| match end.checked_sub(1).and_then(|at| Reason::ALL.get(at)) {
                None => ended("ALLOW", ""),
                Some(reason) => ended("DENY", reason.as_str()),
            })
        });
        let scopes_added = Family::default();
        let by_origin = Origin::ALL.map(|origin| child(&scopes_added, &[("origin", origin.as_str())]));
        let scopes_refused = Family::default();
        let by_reason = Reason::ALL.map(|reason| match reason.is_about_scope() {
            true => child(&scopes_refused, &[("reason", reason.as_str())]),
            false => Counter::default(),
        });
        let unknown_registrations = Family::default();
        let by_source = SOURCES.map(|(_, source)| child(&unknown_registrations, &[("source", source)]));
        let has_warned = AtomicBool::new(false);
        Self(Arc::new(Counters {
            decisions,
            by_end,
            scopes_added,
            by_origin,
            scopes_refused,
            by_reason,
            unknown_registrations,
            by_source,
            has_warned,
            by_audience: per_audience.then(NamedCounters::default),
        }))
    }

    /// Decisions are counted by the audiences of `policy` from now on: at most [`MAX_COUNTED_AUDIENCES`], the first in the order of
    /// their normalised spelling, so that servers of one policy show the same.
    pub fn follow(&self, policy: &PolicySet) {
        if let Some(by_audience) = &self.0.by_audience {
            let first = policy.audiences().iter().take(MAX_COUNTED_AUDIENCES);
            by_audience.follow(first.map(|audience| &*audience.audience));
        }
    }

    /// Counts an answer and its scopes.
    pub(super) fn decided(&self, method: DecidingMethod, answer: &Answer<'_>) {
        let Counters { by_end, by_origin, by_reason, by_audience, .. } = &*self.0;
        let end = answer.reason.map_or(0, |reason| 1 + reason as usize);
        if let Some(counter) = by_end.get(method as usize).and_then(|ends| ends.get(end)) {
            counter.inc();
        }
        for added in &answer.added {
            if let Some(counter) = by_origin.get(added.origin as usize) {
                counter.inc();
            }
        }
        for refused in &answer.refused {
            if let Some(counter) = by_reason.get(refused.reason as usize) {
                counter.inc();
            }
        }
        if let Some(by_audience) = by_audience {
            let by_audience = by_audience.load();
            // Only audiences that the policy declares are here.
            for audience in &answer.audiences {
                if let Some([allowed, denied]) =
                    by_audience.get(&*audience.audience).map(|counters| &**counters)
                {
                    if answer.is_allowed() {
                        allowed.inc()
                    } else {
                        denied.inc()
                    };
                }
            }
        }
    }

    /// Counts a request that does not say what the client registered, though its answer depends on that. For a client that
    /// registered dynamically that is worth one line in the log: its server knows, and something was lost on the way.
    pub(super) fn unknown_registration(&self, source: Option<ClientSource>) {
        let known = SOURCES.iter().position(|(one, _)| *one == source);
        if let Some(counter) = known.and_then(|at| self.0.by_source.get(at)) {
            counter.inc();
        }
        if source == Some(ClientSource::Dcr) && !self.0.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a request for a client of source DCR came without `registered_scope`, so `unknownRegistration` \
                 decides what it holds; send the stored scope, or an empty one for none (said once, see \
                 scopeward_unknown_registrations_total)"
            );
        }
    }

    /// How many answers of each kind there were: the RPC, the reason (`None` if they allow), the count. What never happened is
    /// left out.
    pub fn totals(&self) -> impl Iterator<Item = (&'static str, Option<Reason>, u64)> {
        DecidingMethod::ALL
            .into_iter()
            .zip(&self.0.by_end)
            .flat_map(|(method, ends)| {
                let reasons = std::iter::once(None).chain(Reason::ALL.into_iter().map(Some));
                ends.iter().zip(reasons).map(move |(counter, reason)| (method.name(), reason, counter.get()))
            })
            .filter(|(.., count)| *count > 0)
    }

    /// Adds the counters to what `/metrics` shows.
    pub fn register(&self, registry: &mut Registry) {
        let Counters { decisions, scopes_added, scopes_refused, unknown_registrations, .. } = &*self.0;
        registry.register(
            "decisions",
            "Answers by RPC (each check of a batch), decision and reason",
            decisions.clone(),
        );
        registry.register(
            "scopes_added",
            "Scopes that answers gave although they were not asked for or not registered, by origin",
            scopes_added.clone(),
        );
        registry.register(
            "scopes_refused",
            "Scopes that were asked for and refused, in denials and where the policy drops them, by reason",
            scopes_refused.clone(),
        );
        if let Some(by_audience) = &self.0.by_audience {
            registry.register_collector(Box::new(AudienceCollector(by_audience.clone())));
        }
        registry.register(
            "unknown_registrations",
            "Authorize requests, and token requests without grant, that lack registered_scope, by source of the client; for dcr the caller lost what it should know",
            unknown_registrations.clone(),
        );
    }
}

/// The most audiences that decisions are counted by.
pub const MAX_COUNTED_AUDIENCES: usize = 1000;

/// Shows the counters of the audiences that there are.
#[derive(Debug)]
struct AudienceCollector(NamedCounters<[Counter; 2]>);

impl Collector for AudienceCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut family = encoder.encode_descriptor(
            "audience_decisions",
            "Answers by audience of the policy that serves and by decision; only with --metrics-per-audience",
            None,
            MetricType::Counter,
        )?;
        for (audience, [allowed, denied]) in self.0.load().iter().map(|(name, counters)| (name, &**counters))
        {
            for (decision, counter) in [("ALLOW", allowed), ("DENY", denied)] {
                let labels = [("audience", &**audience), ("decision", decision)];
                counter.encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{Added, Refused, Standing};
    use crate::decision::{AudienceList, EffectiveScope, Grants};
    use crate::scope::TokenList;

    /// What is logged on this thread.
    #[derive(Clone, Debug, Default)]
    struct ThreadLog(Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for ThreadLog {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn first_dcr_client_without_registration_is_worth_a_warning() {
        let log = ThreadLog::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let counts = DecisionCounts::default();
            let lines = || {
                let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
                text.lines()
                    .filter(|line| line.contains(" WARN ") && line.contains("`registered_scope`"))
                    .count()
            };
            for source in [None, Some(ClientSource::Cimd), Some(ClientSource::Static)] {
                counts.unknown_registration(source);
            }
            assert_eq!(lines(), 0, "their servers may not know");
            for _ in 0..3 {
                counts.unknown_registration(Some(ClientSource::Dcr));
            }
            assert_eq!(lines(), 1, "said once");
        });
    }

    /// An answer that ended so.
    fn answer<'a>(reason: Option<Reason>, added: &[Origin], refused: &[Reason]) -> Answer<'a> {
        let added =
            added.iter().map(|origin| Added { scope: "a", origin: *origin, rule: "", is_registered: false });
        let refused = refused.iter().map(|reason| Refused {
            scope: "b",
            reason: *reason,
            standing: Standing::Unknown,
            message: String::new(),
        });
        Answer {
            reason,
            scope: TokenList::new(),
            added: added.collect(),
            refused: refused.collect(),
            effective: EffectiveScope::Granted,
            grants: Grants::Nothing,
            as_omitted: false,
            oauth_error: None,
            audiences: AudienceList::new(),
            trail: Vec::new(),
        }
    }

    #[test]
    fn each_end_has_a_counter_of_its_own() {
        let counts = DecisionCounts::default();
        let added = [Origin::Baseline, Origin::Baseline, Origin::Always];
        counts.decided(DecidingMethod::Check, &answer(None, &added, &[Reason::Forbidden; 3]));
        for reason in Reason::ALL {
            counts.decided(DecidingMethod::Expand, &answer(Some(reason), &[], &[]));
        }
        counts.decided(DecidingMethod::BatchCheck, &answer(Some(Reason::ClientTooLarge), &[], &[]));
        for source in [None, Some(ClientSource::Dcr), Some(ClientSource::Dcr), Some(ClientSource::Static)] {
            counts.unknown_registration(source);
        }
        let mut registry = Registry::with_prefix("scopeward");
        counts.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let counted: Vec<&str> =
            text.lines().filter(|line| !line.starts_with('#') && !line.ends_with(" 0")).collect();
        assert_eq!(counted.len(), 1 + Reason::ALL.len() + 1 + 2 + 1 + 3, "{text}");
        let totals: Vec<_> = counts.totals().collect();
        assert_eq!(totals.len(), 1 + Reason::ALL.len() + 1);
        assert!(totals.contains(&("CheckAuthorizeScopes", None, 1)), "{totals:?}");
        assert!(
            totals.contains(&("BatchCheckAuthorizeScopes", Some(Reason::ClientTooLarge), 1)),
            "{totals:?}"
        );
        for line in [
            r#"scopeward_decisions_total{method="CheckAuthorizeScopes",decision="ALLOW",reason=""} 1"#,
            r#"scopeward_decisions_total{method="ExpandRegistrationScopes",decision="DENY",reason="TOO_MANY_SCOPES"} 1"#,
            r#"scopeward_decisions_total{method="BatchCheckAuthorizeScopes",decision="DENY",reason="CLIENT_TOO_LARGE"} 1"#,
            r#"scopeward_scopes_added_total{origin="BASELINE"} 2"#,
            r#"scopeward_scopes_added_total{origin="ALWAYS"} 1"#,
            r#"scopeward_scopes_refused_total{reason="FORBIDDEN"} 3"#,
            r#"scopeward_unknown_registrations_total{source="dcr"} 2"#,
            r#"scopeward_unknown_registrations_total{source="unspecified"} 1"#,
        ] {
            assert!(counted.contains(&line), "{line} in {text}");
        }
    }

    #[test]
    fn counters_are_in_the_order_of_what_they_count() {
        assert!(Reason::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
        assert!(Origin::ALL.iter().enumerate().all(|(at, origin)| *origin as usize == at));
    }
}
