//! Runs test cases through the decision core and compares.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Case, Decision, Expectation, ExpectedAdded, ExpectedGrant, ExpectedRefused, Suite, trail};
use crate::audience::normalise;
use crate::decision::{Added, Answer, AudienceGrant, Refused, RequestKind, ScopeOutcome};
use crate::policy::finding::Position;
use crate::policy::{AudiencePolicy, PolicySet};
use crate::scope::distinct_tokens;

/// How all cases went.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SuiteReport {
    /// Each case that ran: suites as given, cases in file order.
    pub results: Vec<CaseResult>,
    /// How many cases the filter left out.
    pub filtered: usize,
    /// What the cases that ran touched: one entry for each audience of the policy, sorted.
    pub coverage: Vec<AudienceCoverage>,
}

impl SuiteReport {
    /// How many cases passed.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.results.iter().filter(|result| result.passed()).count()
    }

    /// How many cases failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.results.len() - self.passed()
    }
}

/// How one case went.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CaseResult {
    /// The test file.
    pub file: Arc<str>,
    /// The name of the case.
    pub name: String,
    /// Where it starts.
    pub position: Position,
    /// Which question it asks.
    pub kind: RequestKind,
    /// Where the answer is not as expected; empty if the case passed.
    pub differences: Vec<Mismatch>,
    /// The way of each scope through the policy, one line each; empty if the audience was refused.
    pub trail: Vec<String>,
}

impl CaseResult {
    /// Tells whether the answer is as expected.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.differences.is_empty()
    }
}

/// One member of the answer that is not as expected. Lists are joined with spaces or `, `.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mismatch {
    /// The key of `expect`.
    pub key: &'static str,
    /// What was expected; `(none)` for nothing.
    pub expected: String,
    /// What came; `(none)` for nothing.
    pub actual: String,
    /// Entries of lists that were expected and did not come.
    pub missing: Vec<String>,
    /// Entries of lists that came and were not expected.
    pub unexpected: Vec<String>,
}

/// What the cases touched of one audience.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AudienceCoverage {
    /// The audience as spelled in the policy.
    pub audience: String,
    /// How many registrations it decided.
    pub register: usize,
    /// How many authorize requests it decided.
    pub authorize: usize,
    /// How many requests for a token it decided.
    pub token: usize,
    /// Its client rules in policy order.
    pub rules: Vec<RuleCoverage>,
}

impl AudienceCoverage {
    /// Tells whether a case was decided here.
    #[must_use]
    pub const fn is_touched(&self) -> bool {
        self.register + self.authorize + self.token > 0
    }
}

/// What the cases touched of one client rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RuleCoverage {
    /// Its name.
    pub rule: String,
    /// In how many cases it gave a scope that the client had not asked for or registered.
    pub gave: usize,
}

/// Runs every case whose name contains `filter` (all if it is `None`).
///
/// The caller has made sure that no suite has findings.
#[must_use]
pub fn run(policy: &PolicySet, suites: &[Suite], filter: Option<&str>) -> SuiteReport {
    let mut report = SuiteReport::default();
    let audiences = policy.audiences();
    let mut places = HashMap::with_capacity(audiences.len());
    for (at, audience) in audiences.iter().enumerate() {
        places.insert(Arc::as_ptr(audience), at);
        let rules = audience.client_rules.iter();
        report.coverage.push(AudienceCoverage {
            audience: audience.audience.to_string(),
            register: 0,
            authorize: 0,
            token: 0,
            rules: rules.map(|rule| RuleCoverage { rule: rule.name.to_string(), gave: 0 }).collect(),
        });
    }
    for suite in suites {
        for case in &suite.cases {
            if filter.is_some_and(|filter| !case.name.contains(filter)) {
                report.filtered += 1;
                continue;
            }
            let answer = case.call.explain(policy);
            for audience in &answer.audiences {
                let place = places.get(&std::ptr::from_ref::<AudiencePolicy>(audience));
                if let Some(covered) = place.and_then(|at| report.coverage.get_mut(*at)) {
                    cover(covered, case.call.kind, audience, &answer);
                }
            }
            report.results.push(CaseResult {
                file: Arc::clone(&suite.file),
                name: case.name.clone(),
                position: case.position,
                kind: case.call.kind,
                differences: compare(case, &answer),
                trail: trail::lines(&answer),
            });
        }
    }
    report
}

fn cover(covered: &mut AudienceCoverage, kind: RequestKind, audience: &AudiencePolicy, answer: &Answer<'_>) {
    match kind {
        RequestKind::Registration => covered.register += 1,
        RequestKind::Authorize => covered.authorize += 1,
        RequestKind::Token => covered.token += 1,
    }
    for (rule, covered) in audience.client_rules.iter().zip(&mut covered.rules) {
        let gave = answer.added.iter().any(|added| {
            added.rule == &*rule.name
                && answer.trail.iter().any(|step| {
                    step.scope == added.scope
                        && std::ptr::eq(step.audience, audience)
                        && step.outcome == ScopeOutcome::Granted
                        && matches!(step.held, Some(crate::decision::Coverage::Rule(at, _))
                            if audience.client_rules.get(at).is_some_and(|held| held.name == rule.name))
                })
        });
        covered.gave += usize::from(gave);
    }
}

/// Every difference between an answer and what is expected, in the order of the format.
fn compare(case: &Case, answer: &Answer<'_>) -> Vec<Mismatch> {
    let Expectation {
        position: _,
        decision,
        scope,
        added,
        refused,
        error,
        reason,
        effective_registered_scope,
        audience_grants,
    } = &case.expect;
    let mut found = CaseMismatches::default();
    if let Some(decision) = decision {
        let actual = if answer.is_allowed() { Decision::Allow } else { Decision::Deny };
        found.value("decision", decision.value.as_str(), actual.as_str());
    }
    if let Some(scope) = scope {
        found.scopes("scope", &distinct_tokens(&scope.value), &answer.scope);
    }
    if let Some(added) = added {
        found.entries("added", added, &answer.added, ExpectedAdded::matches, ExpectedAdded::show, show_added);
    }
    if let Some(refused) = refused {
        found.entries(
            "refused",
            refused,
            &answer.refused,
            ExpectedRefused::matches,
            ExpectedRefused::show,
            show_refused,
        );
    }
    if let Some(error) = error {
        let actual = answer.oauth_error.as_ref().map_or(NONE, |error| error.error);
        found.value("error", error.value, actual);
    }
    if let Some(reason) = reason {
        found.value("reason", reason.value.as_str(), answer.reason.map_or(NONE, |reason| reason.as_str()));
    }
    if let Some(scope) = effective_registered_scope {
        found.scopes(
            "effectiveRegisteredScope",
            &distinct_tokens(&scope.value),
            answer.effective_registered_scope(),
        );
    }
    if let Some(grants) = audience_grants {
        let actual = &answer.audience_grants().collect::<Vec<_>>();
        found.entries(
            "audienceGrants",
            grants,
            actual,
            ExpectedGrant::matches,
            ExpectedGrant::show,
            show_grant,
        );
    }
    found.differences
}

const NONE: &str = "(none)";

#[derive(Default)]
struct CaseMismatches {
    differences: Vec<Mismatch>,
}

impl CaseMismatches {
    fn value(&mut self, key: &'static str, expected: &str, actual: &str) {
        if expected != actual {
            let (missing, unexpected) = (Vec::new(), Vec::new());
            let (expected, actual) = (expected.to_owned(), actual.to_owned());
            self.differences.push(Mismatch { key, expected, actual, missing, unexpected });
        }
    }

    /// RFC 6749 section 3.3: the order of scopes has no meaning.
    fn scopes(&mut self, key: &'static str, expected: &[&str], actual: &[&str]) {
        let without = |list: &[&str], other: &[&str]| -> Vec<String> {
            list.iter().filter(|scope| !other.contains(scope)).map(|scope| (*scope).to_owned()).collect()
        };
        let (missing, unexpected) = (without(expected, actual), without(actual, expected));
        if !missing.is_empty() || !unexpected.is_empty() {
            let (expected, actual) = (or_none(expected.join(" ")), or_none(actual.join(" ")));
            self.differences.push(Mismatch { key, expected, actual, missing, unexpected });
        }
    }

    fn entries<E, A>(
        &mut self,
        key: &'static str,
        expected: &[E],
        actual: &[A],
        matches: impl Fn(&E, &A) -> bool,
        show_expected: impl Fn(&E) -> String,
        show_actual: impl Fn(&A) -> String,
    ) {
        let missing: Vec<String> = expected
            .iter()
            .filter(|one| !actual.iter().any(|other| matches(one, other)))
            .map(&show_expected)
            .collect();
        let unexpected: Vec<String> = actual
            .iter()
            .filter(|other| !expected.iter().any(|one| matches(one, other)))
            .map(&show_actual)
            .collect();
        if !missing.is_empty() || !unexpected.is_empty() {
            let expected = expected.iter().map(&show_expected).collect::<Vec<_>>().join(", ");
            let actual = actual.iter().map(&show_actual).collect::<Vec<_>>().join(", ");
            let (expected, actual) = (or_none(expected), or_none(actual));
            self.differences.push(Mismatch { key, expected, actual, missing, unexpected });
        }
    }
}

fn or_none(text: String) -> String {
    if text.is_empty() { NONE.to_owned() } else { text }
}

impl ExpectedAdded {
    fn matches(&self, added: &Added<'_>) -> bool {
        *self.scope.value == *added.scope
            && self.origin.is_none_or(|origin| origin.value == added.origin)
            && self.rule.as_ref().is_none_or(|rule| *rule.value == *added.rule)
    }

    fn show(&self) -> String {
        let rule = self.rule.as_ref().map(|rule| &*rule.value);
        details(&self.scope.value, self.origin.map(|origin| origin.value.as_str()), rule)
    }
}

fn show_added(added: &Added<'_>) -> String {
    details(added.scope, Some(added.origin.as_str()), Some(added.rule))
}

/// `offline_access (BASELINE, rule cli)`.
fn details(scope: &str, word: Option<&str>, rule: Option<&str>) -> String {
    let rule = rule.filter(|rule| !rule.is_empty()).map(|rule| format!("rule {rule}"));
    match (word, rule) {
        (None, None) => scope.to_owned(),
        (Some(word), None) => format!("{scope} ({word})"),
        (None, Some(rule)) => format!("{scope} ({rule})"),
        (Some(word), Some(rule)) => format!("{scope} ({word}, {rule})"),
    }
}

impl ExpectedRefused {
    fn matches(&self, refused: &Refused<'_>) -> bool {
        *self.scope.value == *refused.scope && self.reason.is_none_or(|reason| reason.value == refused.reason)
    }

    fn show(&self) -> String {
        details(&self.scope.value, self.reason.map(|reason| reason.value.as_str()), None)
    }
}

fn show_refused(refused: &Refused<'_>) -> String {
    details(refused.scope, Some(refused.reason.as_str()), None)
}

impl ExpectedGrant {
    fn matches(&self, grant: &AudienceGrant<'_>) -> bool {
        let same_audience = match (normalise(&self.audience.value), normalise(grant.audience)) {
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        };
        same_audience
            && self.scope.as_ref().is_none_or(|scope| {
                let expected = distinct_tokens(&scope.value);
                expected.len() == grant.scope.len()
                    && expected.iter().all(|token| grant.scope.contains(token))
            })
    }

    fn show(&self) -> String {
        details(&self.audience.value, self.scope.as_ref().map(|scope| &*scope.value), None)
    }
}

fn show_grant(grant: &AudienceGrant<'_>) -> String {
    details(grant.audience, Some(&grant.scope.join(" ")), None)
}
