//! `CheckAuthorizeScopes`: which of these scopes may this authorize request get?
//!
//! RFC 6749 section 3.3: a server may ignore part of the scope, and where it is omitted uses a default
//! or fails with `invalid_scope`. RFC 8707 section 2: a request may span several resources. Not for the
//! token endpoint: a refresh may not exceed its grant (RFC 6749 section 6), and this may widen.

use super::{
    Added, Answer, AudienceGrant, Client, Held, Moment, Outcome, Reason, Refused, Step, Withheld, audiences,
    client, denial, is_forbidden, is_granted, malformed, refusal, rule_name,
};
use crate::policy::{AudiencePolicy, OmittedScope, PolicySet, Treatment, UnknownRegistration};
use crate::scope::matching::{ScopeMatching, has_star_segment};
use crate::scope::{Distinct, check_token, distinct_tokens};

/// An authorize request.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The audiences (`resource`, RFC 8707), as named; none means the default one, or the only one.
    pub audiences: &'a [String],
    /// `scope` as received; `None`, `""` and only spaces mean omitted (RFC 6749 section 3.1).
    pub scope: Option<&'a str>,
    /// What the client registered, as stored: `None` means unknown, `""` registered with none.
    pub registered_scope: Option<&'a str>,
    /// The client, as stored.
    pub client: Client<'a>,
}

/// Decides which scopes an authorize request may get.
///
/// A requested scope is granted if it is supported, not forbidden and covered by what the client
/// holds or by the step-up scopes. An allowed answer has at least one scope, in the order asked.
#[must_use]
pub fn check<'a>(policy: &'a PolicySet, question: &Question<'a>) -> Answer<'a> {
    let audiences = match audiences(policy, question.audiences, Moment::Authorize) {
        Ok(audiences) => audiences,
        Err(answer) => return *answer,
    };
    let registered = question.registered_scope.map(|scope| {
        let mut tokens = distinct_tokens(scope);
        tokens.retain(|token| check_token(token).is_ok());
        tokens
    });
    let asked = distinct_tokens(question.scope.unwrap_or_default());
    let omitted = asked.is_empty();
    let mut trail: Vec<Step<'a>> = Vec::with_capacity(audiences.len() * asked.len().max(8));
    let mut refused: Vec<Refused<'a>> = Vec::new();
    let mut scope = Distinct::with_capacity(asked.len().max(4));
    let mut added: Vec<Added<'a>> = Vec::new();

    if omitted {
        if audiences.iter().all(|audience| audience.omitted_scope != OmittedScope::Reject) {
            for audience in &audiences {
                let holder = Holder { audience, registered: registered.as_deref(), client: &question.client };
                holder.give(&audiences, &mut trail);
            }
            for step in trail.iter().filter(|step| step.outcome == Outcome::Granted) {
                scope.push(step.scope);
                note(&mut added, step);
            }
        }
    } else {
        for token in asked {
            if let Err(error) = check_token(token) {
                refused.push(malformed(token, error));
                continue;
            }
            let first = trail.len();
            trail.extend(audiences.iter().map(|audience| {
                Holder { audience, registered: registered.as_deref(), client: &question.client }.judge(token)
            }));
            let steps = trail.get(first..).unwrap_or_default();
            if is_granted(steps) {
                scope.push(token);
                for step in steps.iter().filter(|step| step.outcome == Outcome::Granted) {
                    if !matches!(step.held, Some(Held::Registered(_) | Held::AnySupported)) {
                        note(&mut added, step);
                    }
                }
            } else {
                refused.push(refusal(token, steps));
            }
        }
    }

    let scope = scope.into_vec();
    let treated = |treatment: fn(&AudiencePolicy) -> Treatment| {
        audiences.iter().any(|audience| treatment(audience) == Treatment::Reject)
    };
    let rejects = |reason| match reason {
        Reason::Forbidden | Reason::Unsupported => treated(|audience| audience.unsupported_scopes),
        Reason::Unregistered => treated(|audience| audience.unregistered_scopes),
        _ => true,
    };
    if scope.is_empty() || refused.iter().any(|one| rejects(one.reason)) {
        let answer = denial(Moment::Authorize, omitted, refused, rejects);
        return Answer { audiences, trail, ..answer };
    }
    let registered_scope = updated(&audiences, registered.as_deref().unwrap_or_default(), &scope);
    let audience_grants = grants(&audiences, &scope, &trail);
    Answer {
        reason: None,
        scope,
        added,
        refused,
        registered_scope,
        audience_grants,
        oauth_error: None,
        audiences,
        trail,
    }
}

/// Lists a granted scope as added, once, under the origin that comes first in the order of origins.
fn note<'a>(added: &mut Vec<Added<'a>>, step: &Step<'a>) {
    let Some((held, origin)) = step.held.and_then(|held| Some((held, held.origin()?))) else { return };
    let rule = rule_name(step.audience, held);
    match added.iter_mut().find(|known| known.scope == step.scope) {
        None => added.push(Added { scope: step.scope, origin, rule }),
        Some(known) if origin < known.origin => {
            known.origin = origin;
            known.rule = rule;
        }
        Some(_) => {}
    }
}

/// The received registration without what is forbidden or no longer supported, then what is granted
/// and not in it.
fn updated<'a>(audiences: &[&AudiencePolicy], registered: &[&'a str], granted: &[&'a str]) -> Vec<&'a str> {
    let mut scope = Distinct::with_capacity(registered.len() + granted.len());
    for token in registered {
        let supported = |audience: &&AudiencePolicy| {
            audience.scope_matching.find(&audience.scopes_supported, token).is_some()
        };
        // What is granted is supported and not forbidden; no need to look again.
        let stays =
            || granted.contains(token) || audiences.iter().any(supported) && !is_forbidden(audiences, token);
        if stays() {
            scope.push(token);
        }
    }
    for token in granted {
        scope.push(token);
    }
    scope.into_vec()
}

/// Which audience grants which scopes, in the order of the answer; an audience with none is left out.
fn grants<'a>(
    audiences: &[&'a AudiencePolicy],
    scope: &[&'a str],
    trail: &[Step<'a>],
) -> Vec<AudienceGrant<'a>> {
    if let [audience] = audiences {
        return vec![AudienceGrant { audience: &audience.audience, scope: scope.to_vec() }];
    }
    let grant = |audience: &&'a AudiencePolicy| {
        let own: Vec<&str> = trail
            .iter()
            .filter(|step| std::ptr::eq(step.audience, *audience) && step.outcome == Outcome::Granted)
            .map(|step| step.scope)
            .collect();
        let scope: Vec<&str> = scope.iter().filter(|token| own.contains(token)).copied().collect();
        (!scope.is_empty()).then_some(AudienceGrant { audience: &audience.audience, scope })
    };
    audiences.iter().filter_map(grant).collect()
}

/// What a client holds at one audience.
struct Holder<'a, 'q> {
    audience: &'a AudiencePolicy,
    /// The well-formed registered tokens; `None` if unknown.
    registered: Option<&'q [&'a str]>,
    client: &'q Client<'a>,
}

impl<'a> Holder<'a, '_> {
    /// What an unknown registration counts as for a client of this source.
    fn unknown_registration(&self) -> UnknownRegistration {
        self.audience.unknown_registration.of(self.client.source)
    }

    /// Whether the baseline and the rules cover this client: always if its registration is unknown and
    /// taken as one without scope, and otherwise if they cover existing clients.
    fn has_baseline(&self) -> bool {
        match self.registered {
            Some(_) => self.audience.baseline_for_existing_clients,
            None => self.unknown_registration() != UnknownRegistration::None,
        }
    }

    /// Whether the defaults are held: only where the registration is unknown and taken as one without
    /// scope. Under `supported` that matters for a request without scope.
    fn has_defaults(&self) -> bool {
        self.registered.is_none() && self.unknown_registration() != UnknownRegistration::None
    }

    /// What covers a scope without step-up, the first that fits in the order of origins.
    fn held(&self, scope: &str) -> Option<Held<'a>> {
        let audience = self.audience;
        let matching = audience.scope_matching;
        if let Some(registered) = self.registered {
            let equal = registered.iter().find(|token| **token == scope);
            let covering = || {
                if matching == ScopeMatching::Exact {
                    return None;
                }
                registered.iter().find(|token| matching.matches(token, scope))
            };
            if let Some(token) = equal.or_else(covering) {
                return Some(Held::Registered(token));
            }
        }
        if self.has_defaults()
            && let Some(at) = matching.find(&audience.default_client_scopes, scope)
        {
            return Some(Held::Default(at));
        }
        if !self.has_baseline() {
            return None;
        }
        if let Some(at) = matching.find(&audience.baseline_client_scopes, scope) {
            return Some(Held::Baseline(at));
        }
        client::rules(audience, self.client).find_map(|(rule, list)| {
            Some(Held::Rule(rule, matching.find(&list.baseline_client_scopes, scope)?))
        })
    }

    /// How a requested scope fares here.
    fn judge(&self, scope: &'a str) -> Step<'a> {
        let audience = self.audience;
        let matching = audience.scope_matching;
        let forbidden = matching.find_stop(&audience.forbidden_scopes, scope);
        let supported = matching.find(&audience.scopes_supported, scope);
        let any_supported =
            self.registered.is_none() && self.unknown_registration() == UnknownRegistration::Supported;
        let held = if any_supported && supported.is_some() {
            Some(Held::AnySupported)
        } else {
            self.held(scope).or_else(|| matching.find(&audience.step_up_scopes, scope).map(Held::StepUp))
        };
        let outcome = if forbidden.is_some() {
            Outcome::Refused(Reason::Forbidden)
        } else if supported.is_none() {
            Outcome::Refused(Reason::Unsupported)
        } else if held.is_none() {
            Outcome::Refused(Reason::Unregistered)
        } else {
            Outcome::Granted
        };
        Step { scope, audience, asked: true, supported, forbidden, held, outcome }
    }

    /// What a request without scope gets here: what is held, or the defaults that are held. Never a
    /// scope that wants to be asked for.
    fn give(&self, audiences: &[&AudiencePolicy], trail: &mut Vec<Step<'a>>) {
        let audience = self.audience;
        if audience.omitted_scope == OmittedScope::Default {
            for (at, scope) in audience.default_client_scopes.iter().enumerate() {
                let held = match self.held(scope) {
                    Some(Held::Registered(token)) => Some(Held::Registered(token)),
                    Some(_) => Some(Held::Default(at)),
                    None => None,
                };
                trail.push(self.offer(audiences, scope, held));
            }
            return;
        }
        let mut seen = Distinct::default();
        let mut offer = |scope: &'a str, held| {
            if seen.push(scope) {
                trail.push(self.offer(audiences, scope, Some(held)));
            }
        };
        for token in self.registered.unwrap_or_default() {
            offer(token, Held::Registered(token));
        }
        if self.has_defaults() {
            for (at, scope) in audience.default_client_scopes.iter().enumerate() {
                offer(scope, Held::Default(at));
            }
        }
        if self.has_baseline() {
            // A baseline scope that a registered or default entry covers has that origin.
            for (at, scope) in audience.baseline_client_scopes.iter().enumerate() {
                offer(scope, self.held(scope).unwrap_or(Held::Baseline(at)));
            }
            for (rule, list) in client::rules(audience, self.client) {
                for (at, scope) in list.baseline_client_scopes.iter().enumerate() {
                    offer(scope, self.held(scope).unwrap_or(Held::Rule(rule, at)));
                }
            }
        }
    }

    fn offer(&self, audiences: &[&AudiencePolicy], scope: &'a str, held: Option<Held<'a>>) -> Step<'a> {
        let audience = self.audience;
        let matching = audience.scope_matching;
        let forbidden = matching.find_stop(&audience.forbidden_scopes, scope);
        let supported = matching.find(&audience.scopes_supported, scope);
        let outcome = if forbidden.is_some() || is_forbidden(audiences, scope) {
            Outcome::Withheld(Withheld::Forbidden)
        } else if supported.is_none() {
            Outcome::Withheld(Withheld::Unsupported)
        } else if held.is_none() {
            Outcome::Withheld(Withheld::NotHeld)
        } else if matching.find_stop(&audience.privileged_scopes, scope).is_some() {
            Outcome::Withheld(Withheld::Privileged)
        } else if matching.find(&audience.step_up_scopes, scope).is_some() {
            Outcome::Withheld(Withheld::StepUp)
        } else if matching == ScopeMatching::Wildcard && has_star_segment(scope) {
            Outcome::Withheld(Withheld::Wildcard)
        } else {
            Outcome::Granted
        };
        Step { scope, audience, asked: false, supported, forbidden, held, outcome }
    }
}
