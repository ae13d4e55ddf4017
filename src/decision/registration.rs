//! `ExpandRegistrationScopes`: which scopes shall this client hold?
//!
//! RFC 7591 section 2 lets a server use a default set where `scope` is omitted, and section 3.2.1
//! lets it replace what was asked for; a refusal is `invalid_client_metadata` (section 3.2.2).

use super::{
    Added, Answer, Held, Moment, Origin, Outcome, Reason, Refused, Step, Withheld, audiences, client, denial,
    is_forbidden, is_granted, malformed, refusal, rule_name,
};
use crate::decision::Client;
use crate::policy::{AudiencePolicy, PolicySet, Treatment};
use crate::scope::{Distinct, check_token, distinct_tokens};

/// A registration request.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The audiences it is for, as named; none means all of a small policy, or the default one.
    pub audiences: &'a [String],
    /// `scope` as received; `None`, `""` and only spaces mean omitted (RFC 6749 section 3.1).
    pub scope: Option<&'a str>,
    /// The client.
    pub client: Client<'a>,
}

/// Decides which scopes a client shall hold.
///
/// Keeps what was asked for and is supported, in the order asked, or starts from the defaults if
/// nothing was asked; then appends each baseline scope that is not yet there, in policy order. An
/// allowed answer has at least one scope. Deciding on the answer's own scope changes nothing.
#[must_use]
pub fn expand<'a>(policy: &'a PolicySet, question: &Question<'a>) -> Answer<'a> {
    let audiences = match audiences(policy, question.audiences, Moment::Registration) {
        Ok(audiences) => audiences,
        Err(answer) => return *answer,
    };
    let asked = distinct_tokens(question.scope.unwrap_or_default());
    let omitted = asked.is_empty();
    let mut trail = Vec::with_capacity(audiences.len() * (asked.len() + 4));
    let mut refused: Vec<Refused<'a>> = Vec::new();
    let mut scope = Distinct::with_capacity(asked.len() + 4);
    let mut added = Vec::new();

    for token in asked {
        if let Err(error) = check_token(token) {
            refused.push(malformed(token, error));
            continue;
        }
        let first = trail.len();
        trail.extend(audiences.iter().map(|audience| judge(audience, token)));
        let steps = trail.get(first..).unwrap_or_default();
        if is_granted(steps) {
            scope.push(token);
        } else {
            refused.push(refusal(token, steps));
        }
    }

    let rejects = |reason| match reason {
        Reason::Forbidden | Reason::Unsupported => {
            audiences.iter().any(|audience| audience.registration_unsupported_scopes == Treatment::Reject)
        }
        _ => true,
    };
    if refused.iter().any(|one| rejects(one.reason)) {
        let answer = denial(Moment::Registration, omitted, refused, rejects);
        return Answer { audiences, trail, ..answer };
    }

    for audience in &audiences {
        for (given, held) in given(audience, omitted, &question.client) {
            let Some(origin) = held.origin() else { continue };
            let mut step = judge(audience, given);
            step.asked = false;
            step.held = Some(held);
            if is_forbidden(&audiences, given) {
                step.outcome = Outcome::Withheld(Withheld::Forbidden);
            } else if scope.push(given) {
                added.push(Added { scope: given, origin, rule: rule_name(audience, held) });
            } else {
                prefer_default(&mut added, given, origin);
            }
            trail.push(step);
        }
    }

    let scope = scope.into_vec();
    if scope.is_empty() {
        let answer = denial(Moment::Registration, omitted, refused, rejects);
        return Answer { audiences, trail, ..answer };
    }
    Answer {
        reason: None,
        scope,
        added,
        refused,
        registered_scope: Vec::new(),
        audience_grants: Vec::new(),
        oauth_error: None,
        audiences,
        trail,
    }
}

/// What an audience gives unasked, in order: the defaults if the scope was omitted, the baseline, then
/// the baselines of the client rules that hold.
fn given<'a>(
    audience: &'a AudiencePolicy,
    omitted: bool,
    client: &Client<'_>,
) -> impl Iterator<Item = (&'a str, Held<'a>)> {
    let defaults = omitted.then(|| {
        audience.default_client_scopes.iter().enumerate().map(|(at, scope)| (scope, Held::Default(at)))
    });
    let baseline =
        audience.baseline_client_scopes.iter().enumerate().map(|(at, scope)| (scope, Held::Baseline(at)));
    let rules = client::rules(audience, client).flat_map(|(rule, client_rule)| {
        let list = client_rule.baseline_client_scopes.iter().enumerate();
        list.map(move |(at, scope)| (scope, Held::Rule(rule, at)))
    });
    defaults.into_iter().flatten().chain(baseline).chain(rules)
}

/// A scope that two audiences give has the origin that comes first in the order of origins.
fn prefer_default<'a>(added: &mut [Added<'a>], scope: &str, origin: Origin) {
    if let Some(known) = added.iter_mut().find(|known| known.scope == scope)
        && origin < known.origin
    {
        known.origin = origin;
        known.rule = "";
    }
}

/// How a scope fares at one audience when it is registered.
fn judge<'a>(audience: &'a AudiencePolicy, scope: &'a str) -> Step<'a> {
    let forbidden = audience.scope_matching.find_stop(&audience.forbidden_scopes, scope);
    let supported = audience.scope_matching.find(&audience.scopes_supported, scope);
    let outcome = if forbidden.is_some() {
        Outcome::Refused(Reason::Forbidden)
    } else if supported.is_none() {
        Outcome::Refused(Reason::Unsupported)
    } else {
        Outcome::Granted
    };
    Step { scope, audience, asked: true, supported, forbidden, held: None, outcome }
}
