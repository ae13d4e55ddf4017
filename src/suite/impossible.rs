//! Expectations that no answer can meet, whatever the policy says.
//!
//! Such a case would always fail, or hide that it was never looked at; it is a mistake in the test
//! file, not a failed test. Only what follows from the question and the contract of the API is here.

use super::{Case, Decision, ExpectedAdded, ExpectedRefused};
use crate::decision::{Origin, Reason, RequestKind};
use crate::escape::shown;
use crate::policy::finding::Position;
use crate::scope::{TokenList, check_token, distinct_tokens};

/// One expectation that cannot be met.
pub(super) struct ImpossibleExpectation {
    pub(super) position: Position,
    pub(super) value: String,
    pub(super) message: String,
    pub(super) suggestion: &'static str,
}

/// Every expectation of a case that cannot be met, in the order of the format.
pub(super) fn problems(case: &Case) -> Vec<ImpossibleExpectation> {
    let asked = distinct_tokens(case.call.scope.as_deref().unwrap_or_default());
    let mut judge = ExpectationCheck { case, asked, problems: Vec::new() };
    judge.decision();
    judge.scope();
    judge.added();
    judge.refused();
    judge.error();
    judge.reason();
    judge.kind();
    judge.problems
}

struct ExpectationCheck<'c> {
    case: &'c Case,
    /// The tokens of the requested scope; empty if it is omitted.
    asked: TokenList<'c>,
    problems: Vec<ImpossibleExpectation>,
}

impl<'c> ExpectationCheck<'c> {
    fn report(&mut self, position: Position, value: &str, message: String, suggestion: &'static str) {
        self.problems.push(ImpossibleExpectation { position, value: value.to_owned(), message, suggestion });
    }

    fn is_kind(&self, kind: RequestKind) -> bool {
        self.case.call.kind == kind
    }

    /// Whether the grant of a token names a scope.
    fn is_granted(&self, scope: &str) -> bool {
        let granted = self.case.call.granted_scope.as_deref().unwrap_or_default();
        distinct_tokens(granted).contains(&scope)
    }

    /// What is expected must not mean ALLOW in one place and DENY in another.
    fn decision(&mut self) {
        let expect = &self.case.expect;
        let mut signs: Vec<(Position, &'static str, Decision)> = Vec::new();
        if let Some(decision) = expect.decision {
            signs.push((decision.position, "`decision`", decision.value));
        }
        // An allowed answer has at least one scope, a denied one has none.
        let by_content = |is_empty: bool| if is_empty { Decision::Deny } else { Decision::Allow };
        for (what, text) in
            [("`scope`", &expect.scope), ("`effectiveRegisteredScope`", &expect.effective_registered_scope)]
        {
            if let Some(text) = text {
                signs.push((text.position, what, by_content(distinct_tokens(&text.value).is_empty())));
            }
        }
        if let Some(first) = expect.added.as_ref().and_then(|added| added.first()) {
            signs.push((first.scope.position, "an entry of `added`", Decision::Allow));
        }
        if let Some(first) = expect.audience_grants.as_ref().and_then(|grants| grants.first()) {
            signs.push((first.audience.position, "an entry of `audienceGrants`", Decision::Allow));
        }
        if let Some(error) = expect.error {
            signs.push((error.position, "`error`", Decision::Deny));
        }
        if let Some(reason) = expect.reason {
            signs.push((reason.position, "`reason`", Decision::Deny));
        }
        let Some((_, first, decision)) = signs.first().copied() else { return };
        if let Some((position, what, other)) = signs.iter().find(|(.., other)| *other != decision) {
            let message =
                format!("{what} here means {}, but {first} means {}", other.as_str(), decision.as_str());
            self.report(*position, "", message, "keep one of the two");
            return;
        }
        // A token outside the grammar rejects the whole request, whatever the policy says.
        if decision == Decision::Allow
            && let Some(token) = self.asked.iter().find(|token| check_token(token).is_err())
            && let Some((position, ..)) = signs.first()
        {
            let message = format!(
                "`{}` in the request is not a valid scope token, which is always denied",
                shown(token)
            );
            self.report(*position, token, message, "expect a denial with `reason: MALFORMED`");
        }
    }

    fn scope(&mut self) {
        let expect = &self.case.expect;
        for text in [&expect.scope, &expect.effective_registered_scope].into_iter().flatten() {
            for token in &distinct_tokens(&text.value) {
                if let Err(error) = check_token(token) {
                    let message = format!("`{}` is in no answer: {error}", shown(token));
                    self.report(text.position, token, message, "remove it");
                }
            }
        }
    }

    fn added(&mut self) {
        let expect = &self.case.expect;
        let granted = expect.scope.as_ref().map(|scope| distinct_tokens(&scope.value));
        let omitted = self.asked.is_empty();
        let mut seen: Vec<&str> = Vec::new();
        for ExpectedAdded { scope, origin, rule } in expect.added.iter().flatten() {
            let (token, position) = (&*scope.value, scope.position);
            let name = shown(token);
            if let Err(error) = check_token(token) {
                let message = format!("`added`: `{name}` is in no answer: {error}");
                self.report(position, token, message, "name one scope");
                continue;
            }
            if seen.contains(&token) {
                self.report(position, token, format!("duplicate entry `{name}` in `added`"), "remove it");
            }
            seen.push(token);
            if granted.as_ref().is_some_and(|granted| !granted.contains(&token)) {
                let message = format!("`{name}` is in `added` but not in `scope`");
                self.report(position, token, message, "what is added is granted: add it to `scope`");
            }
            let asked = self.asked.contains(&token);
            if self.is_kind(RequestKind::Token) {
                let message = format!("`{name}` in `added`: nothing is added to a token");
                self.report(position, token, message, "remove it; `scope` has what the token gets");
                continue;
            }
            if self.is_kind(RequestKind::Registration) && asked {
                let message = format!("`{name}` is asked for, so a registration does not add it");
                self.report(position, token, message, "remove it");
            }
            let Some(origin) = origin else { continue };
            let has_registered = self.case.call.registered_scope.is_some();
            let problem = match (origin.value, self.case.call.kind) {
                (Origin::StepUp | Origin::Always, RequestKind::Registration) => {
                    Some("never comes from a registration")
                }
                (Origin::Default, RequestKind::Registration) if has_registered => {
                    Some("never comes from an update")
                }
                (Origin::Registered, RequestKind::Registration) if !has_registered => {
                    Some("needs a `previousScope`")
                }
                (Origin::StepUp, RequestKind::Authorize) if omitted => {
                    Some("needs the scope to be asked for")
                }
                (Origin::Always, RequestKind::Authorize) if omitted => Some("needs a request with a scope"),
                (Origin::Registered, RequestKind::Authorize) if asked => {
                    Some("needs a scope that is not asked for")
                }
                (Origin::Registered, RequestKind::Authorize) if !has_registered => {
                    Some("needs a `registeredScope`")
                }
                _ => None,
            };
            if let Some(problem) = problem {
                let message = format!("the origin {} {problem}", origin.value.as_str());
                self.report(origin.position, origin.value.as_str(), message, "expect another origin");
            }
            if let Some(rule) = rule
                && !rule.value.is_empty()
                && origin.value != Origin::Baseline
            {
                let message =
                    format!("a client rule adds with origin BASELINE, not {}", origin.value.as_str());
                self.report(rule.position, &rule.value, message, "remove the rule or expect BASELINE");
            }
        }
    }

    fn refused(&mut self) {
        let expect = &self.case.expect;
        let granted = expect.scope.as_ref().map(|scope| distinct_tokens(&scope.value)).unwrap_or_default();
        let mut seen: Vec<&str> = Vec::new();
        for ExpectedRefused { scope, reason } in expect.refused.iter().flatten() {
            let (token, position) = (&*scope.value, scope.position);
            let name = shown(token);
            if !self.asked.contains(&token) {
                let message = format!("`{name}` is not asked for, so it is not refused");
                self.report(position, token, message, "ask for it or remove it");
                continue;
            }
            if seen.contains(&token) {
                self.report(position, token, format!("duplicate entry `{name}` in `refused`"), "remove it");
            }
            seen.push(token);
            if granted.contains(&token) {
                let message = format!("`{name}` is in `refused` and in `scope`");
                self.report(position, token, message, "keep it in one of them");
            }
            let Some(reason) = reason else { continue };
            let malformed = check_token(token).is_err();
            let message = match reason.value {
                Reason::Malformed if !malformed => {
                    Some(format!("`{name}` is a valid scope token, so it is not MALFORMED"))
                }
                other if malformed && other != Reason::Malformed => {
                    Some(format!("`{name}` is not a valid scope token, so it is refused as MALFORMED"))
                }
                Reason::Unregistered if self.is_kind(RequestKind::Registration) => {
                    Some("a registration is never refused as UNREGISTERED".to_owned())
                }
                Reason::Unregistered if self.is_kind(RequestKind::Token) => {
                    Some("a token is never refused a scope as UNREGISTERED, but as EXCEEDS_GRANT".to_owned())
                }
                Reason::ExceedsGrant if !self.is_kind(RequestKind::Token) => {
                    Some("only a token is refused a scope as EXCEEDS_GRANT".to_owned())
                }
                Reason::ExceedsGrant if self.is_granted(token) => {
                    Some(format!("`{name}` is in `grantedScope`, so it does not exceed it"))
                }
                Reason::Malformed
                | Reason::Forbidden
                | Reason::Unsupported
                | Reason::Unregistered
                | Reason::ExceedsGrant => None,
                other => Some(format!("{} is why a request is denied, not one scope", other.as_str())),
            };
            if let Some(message) = message {
                let suggestion = "expect another reason";
                self.report(reason.position, reason.value.as_str(), message, suggestion);
            }
        }
    }

    fn error(&mut self) {
        let expect = &self.case.expect;
        let Some(error) = expect.error else { return };
        let is_registration = self.is_kind(RequestKind::Registration);
        let wrong = match error.value {
            "invalid_client_metadata" if !is_registration => {
                Some("such a request is refused with `invalid_scope` (RFC 6749 sections 4.1.2.1 and 5.2)")
            }
            "invalid_scope" | "invalid_target" if is_registration => {
                Some("a registration is refused with `invalid_client_metadata` (RFC 7591 section 3.2.2)")
            }
            _ => None,
        };
        if let Some(message) = wrong {
            self.report(error.position, error.value, message.to_owned(), "expect that error");
            return;
        }
        let is_target = error.value == "invalid_target";
        if let Some(reason) = expect.reason
            && !is_registration
            && reason.value.is_about_audience() != is_target
        {
            let message = format!("`{}` does not go with the reason {}", error.value, reason.value.as_str());
            self.report(error.position, error.value, message, "`invalid_target` goes with AUDIENCE_* only");
        }
        if is_target && let Some(refused) = expect.refused.as_ref().and_then(|refused| refused.first()) {
            let message = "`invalid_target` is decided before any scope, so none is refused".to_owned();
            self.report(refused.scope.position, &refused.scope.value, message, "remove it");
        }
    }

    fn reason(&mut self) {
        let Some(reason) = self.case.expect.reason else { return };
        let omitted = self.asked.is_empty();
        let unnamed = self.case.call.audiences.is_empty();
        let problem = match reason.value {
            Reason::Unregistered if self.is_kind(RequestKind::Registration) => {
                "never comes from a registration"
            }
            Reason::Unregistered if self.is_kind(RequestKind::Token) => {
                "never comes from a request for a token, which has EXCEEDS_GRANT instead"
            }
            Reason::ExceedsGrant if !self.is_kind(RequestKind::Token) => {
                "comes from a request for a token only"
            }
            Reason::NothingGranted
            | Reason::Malformed
            | Reason::Forbidden
            | Reason::Unsupported
            | Reason::Unregistered
            | Reason::ExceedsGrant
                if omitted =>
            {
                "needs a request with a scope"
            }
            Reason::Malformed if self.asked.iter().all(|token| check_token(token).is_ok()) => {
                "needs a scope that is not a valid token"
            }
            Reason::AudienceUnknown | Reason::AudienceMalformed if unnamed => "needs a named audience",
            Reason::AudienceRequired if !unnamed => "needs a request without audience",
            _ => return,
        };
        let message = format!("the reason {} {problem}", reason.value.as_str());
        self.report(reason.position, reason.value.as_str(), message, "expect another reason");
    }

    fn kind(&mut self) {
        let question = match self.case.call.kind {
            RequestKind::Registration => "a registration",
            RequestKind::Authorize => return,
            RequestKind::Token => "a request for a token",
        };
        let expect = &self.case.expect;
        let message = |key: &str| format!("the answer to {question} has no `{key}`");
        if let Some(text) = &expect.effective_registered_scope {
            self.report(text.position, &text.value, message("effectiveRegisteredScope"), "compare `scope`");
        }
        if expect.audience_grants.is_some() && self.is_kind(RequestKind::Registration) {
            self.report(expect.position, "", message("audienceGrants"), "compare `scope`");
        }
    }
}
