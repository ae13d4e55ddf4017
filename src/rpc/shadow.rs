//! The shadow policy: questions that were answered are decided again by it, off the caller's path, and differences are
//! counted and kept.
//!
//! Handlers offer a question and wait for nothing. What finds no room is dropped and counted, so that the shadow never takes
//! more than its bounds, and never changes an answer: both policies decide the question again here.

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use prost::Message;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::audience::normalise;
use crate::budget::{Budget, Permit};
use crate::call;
use crate::decision::{Answer, authorize, registration, token};
use crate::proto::borrowed::{CheckRequestRef, ExpandRequestRef, TokenRequestRef};
use crate::proto::v1;
use crate::proto::v1::ShadowDifferenceKind;
use crate::rpc::convert;
use crate::rpc::count::DecidingMethod;
use crate::rpc::policy_status;
use crate::status::StatusTracker;
use crate::store::{Active, Current};

/// Most questions that wait to be compared.
pub const MAX_WAITING: usize = 1024;
/// Most bytes of their requests.
pub const MAX_WAITING_BYTES: usize = 16 << 20;
/// Most differences that are kept; the newest are.
pub const MAX_KEPT: usize = 1000;

/// What is counted of the comparison. Clones count together.
#[derive(Clone, Debug)]
pub struct ShadowCounts {
    compared: Counter,
    differences: Family<ShadowLabels, Counter>,
    dropped: Family<ShadowLabels, Counter>,
}

type ShadowLabels = Vec<(&'static str, &'static str)>;

/// Why a question was not compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum DropCause {
    QueueFull,
    NoPolicy,
}

impl DropCause {
    const ALL: [Self; 2] = [Self::QueueFull, Self::NoPolicy];

    const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::NoPolicy => "no_policy",
        }
    }
}

/// Every kind of difference, with the value of its label.
const KINDS: [(ShadowDifferenceKind, &str); 5] = [
    (ShadowDifferenceKind::AllowToDeny, "allow_to_deny"),
    (ShadowDifferenceKind::DenyToAllow, "deny_to_allow"),
    (ShadowDifferenceKind::Wider, "wider"),
    (ShadowDifferenceKind::Narrower, "narrower"),
    (ShadowDifferenceKind::Other, "other"),
];

impl Default for ShadowCounts {
    fn default() -> Self {
        let counts =
            Self { compared: Counter::default(), differences: Family::default(), dropped: Family::default() };
        for (kind, _) in KINDS {
            _ = counts.difference(kind);
        }
        for cause in DropCause::ALL {
            _ = counts.dropped(cause);
        }
        counts
    }
}

impl ShadowCounts {
    fn difference(&self, kind: ShadowDifferenceKind) -> Counter {
        let label = KINDS.iter().find(|(known, _)| *known == kind).map_or("other", |(_, label)| *label);
        self.differences.get_or_create(&vec![("kind", label)]).clone()
    }

    fn dropped(&self, cause: DropCause) -> Counter {
        self.dropped.get_or_create(&vec![("cause", cause.as_str())]).clone()
    }

    /// Adds the counters to what `/metrics` shows.
    pub fn register(&self, registry: &mut Registry) {
        let Self { compared, differences, dropped } = self;
        registry.register(
            "shadow_compared",
            "Questions that the shadow policy (--shadow) decided too",
            compared.clone(),
        );
        registry.register(
            "shadow_differences",
            "Questions that the shadow policy answers differently, by kind",
            differences.clone(),
        );
        registry.register(
            "shadow_dropped",
            "Questions that were not compared: the queue was full, or no shadow policy was valid yet",
            dropped.clone(),
        );
    }
}

/// The shadow policy and what came of it. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Shadow(Arc<ShadowState>);

#[derive(Debug)]
struct ShadowState {
    current: Current,
    tracker: Arc<StatusTracker>,
    queue: mpsc::Sender<ShadowQuestion>,
    room: Budget,
    counts: ShadowCounts,
    kept: Mutex<VecDeque<v1::ShadowDifference>>,
    start_time: SystemTime,
}

/// A question to be decided again.
#[derive(Debug)]
pub struct ShadowQuestion {
    request: ShadowRequest,
    method: DecidingMethod,
    serving: Arc<Active>,
    /// The audiences that the caller knows, if not all.
    known: Option<Arc<[Box<str>]>>,
    decision_id: Uuid,
    /// Given back when the question is done with.
    _room: Permit,
}

/// What was asked.
#[derive(Debug)]
pub(super) enum ShadowRequest {
    Expand(v1::ExpandRegistrationScopesRequest),
    Check(v1::CheckAuthorizeScopesRequest),
    Token(v1::CheckTokenScopesRequest),
}

impl Shadow {
    /// Compares with the policy in `current`, whose state is in `tracker`; the questions come out of the receiver.
    #[must_use]
    pub fn new(
        current: Current,
        tracker: Arc<StatusTracker>,
        counts: ShadowCounts,
        start_time: SystemTime,
    ) -> (Self, mpsc::Receiver<ShadowQuestion>) {
        let (queue, questions) = mpsc::channel(MAX_WAITING);
        let (room, kept) = (Budget::new(MAX_WAITING_BYTES), Mutex::default());
        (Self(Arc::new(ShadowState { current, tracker, queue, room, counts, kept, start_time })), questions)
    }

    /// Where the shadow policy is.
    #[must_use]
    pub fn current(&self) -> &Current {
        &self.0.current
    }

    /// Its state.
    #[must_use]
    pub fn tracker(&self) -> &Arc<StatusTracker> {
        &self.0.tracker
    }

    /// Puts a question whose request has so many bytes into the queue if there is room; never waits.
    pub(super) fn offer(
        &self,
        request: impl FnOnce() -> ShadowRequest,
        bytes: usize,
        method: DecidingMethod,
        serving: &Arc<Active>,
        known: Option<Arc<[Box<str>]>>,
        decision_id: Uuid,
    ) {
        let ShadowState { queue, room, counts, .. } = &*self.0;
        let (Ok(place), Ok(room)) = (queue.try_reserve(), room.take(bytes)) else {
            counts.dropped(DropCause::QueueFull).inc();
            return;
        };
        place.send(ShadowQuestion {
            request: request(),
            method,
            serving: Arc::clone(serving),
            known,
            decision_id,
            _room: room,
        });
    }

    /// Decides a question by both policies, and keeps the difference if there is one. May take as long as a decision does.
    pub fn compare(&self, question: &ShadowQuestion) {
        let Some(shadow) = self.0.current.load_full() else {
            self.0.counts.dropped(DropCause::NoPolicy).inc();
            return;
        };
        self.keep_difference(question, &shadow);
        // Last: who sees the count sees the difference, too.
        self.0.counts.compared.inc();
    }

    fn keep_difference(&self, question: &ShadowQuestion, shadow: &Arc<Active>) {
        let seen = question.known.as_deref().map(|known| Active {
            set: shadow.set.seen_with(known),
            generation: shadow.generation,
            load_time: shadow.load_time,
        });
        let (serving, shadow) = (&*question.serving, seen.as_ref().unwrap_or(shadow));
        // Equal digests mean equal answers.
        if serving.set.digest() == shadow.set.digest() {
            return;
        }
        let policies = [serving, shadow];
        let mut grant = (None, 0);
        let (found, audiences, client, requested, registered) = match &question.request {
            ShadowRequest::Expand(request) => {
                let asked = ExpandRequestRef::of(request);
                let asked = call::registration(&asked);
                let answers = policies.map(|active| (active, registration::expand(&active.set, &asked)));
                let v1::ExpandRegistrationScopesRequest { audiences, client, scope, previous_scope, .. } =
                    request;
                (difference(answers), audiences, client, scope, previous_scope)
            }
            ShadowRequest::Check(request) => {
                let asked = CheckRequestRef::of(request);
                let asked = call::authorize(&asked);
                let answers = policies.map(|active| (active, authorize::check(&active.set, &asked)));
                let v1::CheckAuthorizeScopesRequest { audiences, client, scope, registered_scope, .. } =
                    request;
                (difference(answers), audiences, client, scope, registered_scope)
            }
            ShadowRequest::Token(request) => {
                let asked = TokenRequestRef::of(request);
                let asked = call::token(&asked);
                let answers = policies.map(|active| (active, token::check(&active.set, &asked)));
                let v1::CheckTokenScopesRequest { audiences, client, scope, registered_scope, .. } = request;
                grant = (request.granted_scope.clone(), request.grant);
                (difference(answers), audiences, client, scope, registered_scope)
            }
        };
        let Some(found) = found else { return };
        self.0.counts.difference(found.kind()).inc();
        let found = cut(v1::ShadowDifference {
            decision_time: time_of(question.decision_id),
            decision_id: question.decision_id.to_string(),
            method: question.method.path().to_owned(),
            audiences: audiences.clone(),
            client_id: client.as_ref().map_or_else(String::new, |client| client.client_id.clone()),
            requested_scope: requested.clone(),
            registered_scope: registered.clone(),
            granted_scope: grant.0,
            grant: grant.1,
            ..found
        });
        let mut kept = self.kept();
        if kept.len() == MAX_KEPT {
            kept.pop_front();
        }
        kept.push_back(found);
    }

    /// What came of it so far, with at most so many differences, the newest first, as far as they fit an answer.
    #[must_use]
    pub fn report(&self, most: usize) -> v1::GetShadowReportResponse {
        let ShadowState { tracker, counts, start_time, .. } = &*self.0;
        let mut shadow = policy_status::convert(&tracker.snapshot());
        // Of no use here, and long.
        shadow.audience_statuses = Vec::new();
        // First, see `compare`.
        let compared_count = counts.compared.get();
        let difference_counts = KINDS.map(|(kind, _)| v1::ShadowDifferenceCount {
            kind: kind.into(),
            count: counts.difference(kind).get(),
        });
        let mut bytes = 0;
        let newest = self.kept().iter().rev().take(most).cloned().collect::<Vec<_>>();
        let fits = newest.into_iter().take_while(|one| {
            bytes += one.encoded_len() + 8;
            bytes <= MAX_REPORT_BYTES
        });
        v1::GetShadowReportResponse {
            shadow: Some(shadow),
            serving: None,
            start_time: Some((*start_time).into()),
            compared_count,
            dropped_count: DropCause::ALL.map(|cause| counts.dropped(cause).get()).iter().sum(),
            difference_counts: difference_counts.to_vec(),
            differences: fits.collect(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<v1::ShadowDifference>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The two answers to a question and how they differ, if they do.
fn difference(answers: [(&Active, Answer<'_>); 2]) -> Option<v1::ShadowDifference> {
    let [(serving, given), (shadow, other)] = answers;
    let kind = kind(&given, &other)?;
    let answer = |active: &Active, answer: &Answer<'_>| v1::ShadowAnswer {
        decision: convert::decision(answer).into(),
        scope: answer.scope.join(" "),
        reason: convert::reason(answer.reason).into(),
        policy: Some(convert::policy_version(active)),
    };
    Some(v1::ShadowDifference {
        kind: kind.into(),
        serving: Some(answer(serving, &given)),
        shadow: Some(answer(shadow, &other)),
        ..Default::default()
    })
}

fn kind(given: &Answer<'_>, other: &Answer<'_>) -> Option<ShadowDifferenceKind> {
    let (before, after) = (granted(given), granted(other));
    let kind = match (given.is_allowed(), other.is_allowed()) {
        (true, false) => ShadowDifferenceKind::AllowToDeny,
        (false, true) => ShadowDifferenceKind::DenyToAllow,
        _ if before == after => {
            return (details(given) != details(other)).then_some(ShadowDifferenceKind::Other);
        }
        _ if before.is_subset(&after) => ShadowDifferenceKind::Wider,
        _ if before.is_superset(&after) => ShadowDifferenceKind::Narrower,
        _ => ShadowDifferenceKind::Other,
    };
    Some(kind)
}

/// Which scopes are granted, and at which audiences.
fn granted<'a>(answer: &'a Answer<'_>) -> BTreeSet<(String, &'a str)> {
    let whole = answer.scope.iter().map(|scope| (String::new(), *scope));
    let by_audience = answer.audience_grants().flat_map(|grant| {
        let audience = normalise(grant.audience).map_or_else(|_| grant.audience.to_owned(), Cow::into_owned);
        grant.scope.iter().map(move |scope| (audience.clone(), *scope))
    });
    whole.chain(by_audience).collect()
}

/// What else a caller sees: the order, where scopes come from, what was refused, why. Not the texts for people, nor what counts as
/// registered, which differs for each client that registered something that only one of the policies supports.
fn details<'a>(answer: &'a Answer<'_>) -> impl PartialEq + use<'a> {
    (
        answer.reason,
        &*answer.scope,
        answer.added.iter().map(|added| (added.scope, added.origin, added.rule)).collect::<Vec<_>>(),
        answer.refused.iter().map(|refused| (refused.scope, refused.reason)).collect::<Vec<_>>(),
    )
}

/// Cuts what callers choose, so that what is kept is bounded.
fn cut(mut difference: v1::ShadowDifference) -> v1::ShadowDifference {
    let mut is_truncated = difference.audiences.len() > MAX_KEPT_AUDIENCES;
    difference.audiences.truncate(MAX_KEPT_AUDIENCES);
    let v1::ShadowDifference {
        audiences,
        client_id,
        requested_scope,
        registered_scope,
        granted_scope,
        serving,
        shadow,
        ..
    } = &mut difference;
    let answers = [serving, shadow].into_iter().flatten().map(|answer| &mut answer.scope);
    let scopes = [requested_scope, registered_scope, granted_scope].into_iter().flatten();
    for text in audiences.iter_mut().chain([client_id]).chain(scopes).chain(answers) {
        if text.len() > MAX_TEXT_BYTES {
            is_truncated = true;
            let end = (0..=MAX_TEXT_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
            text.shrink_to_fit();
        }
    }
    v1::ShadowDifference { truncated: is_truncated, ..difference }
}

/// The time in an id of version 7 (RFC 9562 section 5.7).
fn time_of(id: Uuid) -> Option<prost_types::Timestamp> {
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    Some((UNIX_EPOCH + Duration::new(seconds, nanos)).into())
}

/// Most bytes of a text that a caller chose.
const MAX_TEXT_BYTES: usize = 512;
/// Most audiences of a difference.
const MAX_KEPT_AUDIENCES: usize = 4;
/// Most bytes of the differences of a report, which fits what clients take by default (4 MiB) with the status.
const MAX_REPORT_BYTES: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn active(policy: &str) -> Arc<Active> {
        let file: Arc<str> = "policy.yaml".into();
        let document = crate::policy::document::Document::read(&file, policy);
        let set = crate::policy::check::check(&file, &[document]).expect("a valid policy").set;
        Arc::new(Active { set, generation: 1, load_time: UNIX_EPOCH })
    }

    fn shadow(policy: Option<&str>) -> (Shadow, mpsc::Receiver<ShadowQuestion>) {
        let current = Current::default();
        current.store(policy.map(active));
        let tracker = Arc::new(StatusTracker::new("shadow".into(), false, UNIX_EPOCH));
        Shadow::new(current, tracker, ShadowCounts::default(), UNIX_EPOCH)
    }

    fn request(scope: &str, registered: &str) -> v1::CheckAuthorizeScopesRequest {
        v1::CheckAuthorizeScopesRequest {
            scope: Some(scope.to_owned()),
            registered_scope: Some(registered.to_owned()),
            ..Default::default()
        }
    }

    fn offer(shadow: &Shadow, serving: &Arc<Active>, request: &v1::CheckAuthorizeScopesRequest) {
        let asked = || ShadowRequest::Check(request.clone());
        let bytes = request.encoded_len();
        shadow.offer(asked, bytes, DecidingMethod::Check, serving, None, Uuid::now_v7());
    }

    #[track_caller]
    fn check(serving: &str, shadow_policy: &str, scope: &str, expected: Option<ShadowDifferenceKind>) {
        let serving = active(&format!("audiences: {{one: {{{serving}}}}}"));
        let (shadow, mut questions) = shadow(Some(&format!("audiences: {{one: {{{shadow_policy}}}}}")));
        offer(&shadow, &serving, &request(scope, "a b c"));
        shadow.compare(&questions.try_recv().expect("it was offered"));
        let report = shadow.report(10);
        assert_eq!((report.compared_count, report.dropped_count), (1, 0));
        assert_eq!(report.differences.first().map(v1::ShadowDifference::kind), expected);
        let counted: Vec<_> = report.difference_counts.iter().filter(|one| one.count > 0).collect();
        assert_eq!(
            counted.iter().map(|one| (one.kind(), one.count)).collect::<Vec<_>>(),
            Vec::from_iter(expected.map(|kind| (kind, 1)))
        );
    }

    #[test]
    fn differences_are_told_by_kind() {
        let drop = "authorization: {unsupportedScopes: drop}";
        check("scopesSupported: [a, b]", "scopesSupported: [b, a]", "a", None);
        check("scopesSupported: [a, b]", "scopesSupported: [a]", "a", None);
        check(
            "scopesSupported: [a, b]",
            "scopesSupported: [a]",
            "a b",
            Some(ShadowDifferenceKind::AllowToDeny),
        );
        check(
            "scopesSupported: [a]",
            "scopesSupported: [a, b]",
            "a b",
            Some(ShadowDifferenceKind::DenyToAllow),
        );
        check(
            &format!("scopesSupported: [a], {drop}"),
            "scopesSupported: [a, b]",
            "a b",
            Some(ShadowDifferenceKind::Wider),
        );
        check(
            "scopesSupported: [a, b]",
            &format!("scopesSupported: [a], {drop}"),
            "a b",
            Some(ShadowDifferenceKind::Narrower),
        );
        check(
            &format!("scopesSupported: [a, c], {drop}"),
            &format!("scopesSupported: [b, c], {drop}"),
            "a b c",
            Some(ShadowDifferenceKind::Other),
        );
        // Both deny, for another reason.
        check(
            "scopesSupported: [a]",
            "scopesSupported: [a], forbiddenScopes: [b]",
            "b",
            Some(ShadowDifferenceKind::Other),
        );
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted() {
        let serving = active("audiences: {one: {scopesSupported: [a]}}");
        let (shadow, mut questions) = shadow(Some("audiences: {one: {scopesSupported: [a, b]}}"));
        for _ in 0..MAX_WAITING + 5 {
            offer(&shadow, &serving, &request("b", "a b"));
        }
        assert_eq!(shadow.report(0).dropped_count, 5);
        while let Ok(question) = questions.try_recv() {
            shadow.compare(&question);
        }
        assert_eq!(shadow.report(0).compared_count, MAX_WAITING as u64);
        assert_eq!(shadow.report(usize::MAX).differences.len(), MAX_KEPT);
        // By bytes: each takes a quarter of a megabyte.
        let large = request("b", &"a ".repeat(120_000));
        for _ in 0..100 {
            offer(&shadow, &serving, &large);
        }
        let dropped = shadow.report(0).dropped_count - 5;
        assert!((30..60).contains(&dropped), "{dropped}");
        while let Ok(question) = questions.try_recv() {
            shadow.compare(&question);
        }
        let newest = shadow.report(1).differences.remove(0);
        assert!(newest.truncated && newest.encoded_len() < 4096, "{}", newest.encoded_len());
        offer(&shadow, &serving, &large);
        assert!(questions.try_recv().is_ok(), "there is room again");
    }

    #[test]
    fn without_a_shadow_policy_nothing_is_compared() {
        let serving = active("audiences: {one: {scopesSupported: [a]}}");
        let (shadow, mut questions) = shadow(None);
        offer(&shadow, &serving, &request("a", "a"));
        shadow.compare(&questions.try_recv().expect("it was offered"));
        let report = shadow.report(10);
        assert_eq!((report.compared_count, report.dropped_count, report.differences.len()), (0, 1, 0));
    }
}
