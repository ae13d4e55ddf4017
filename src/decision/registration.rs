//! `ExpandRegistrationScopes`: which scopes shall this client hold?
//!
//! RFC 7591 section 2 lets a server use a default set where `scope` is omitted, and section 3.2.1
//! lets it replace what was asked for; a refusal is `invalid_client_metadata` (section 3.2.2).

use super::asked::AskedScopes;
use super::refusal::{denial, is_granted, malformed, refusal};
use super::registered::Registered;
use super::target::{self, Targets};
use super::trail::Trail;
use super::{
    Answer, Client, Coverage, EffectiveScope, Granted, Grants, Reason, Refused, RequestKind, ScopeOutcome,
    ScopeStep, Standing, Withheld, client, is_forbidden, limit,
};
use crate::policy::{AudiencePolicy, NothingLeft, PolicySet, Treatment};
use crate::short_list::TextsRef;

/// A registration request.
#[derive(Clone, Copy, Debug, Default)]
pub struct RegistrationQuestion<'a> {
    /// The audiences it is for, as named; none means those that the policy has for registrations.
    pub audiences: TextsRef<'a>,
    /// `scope` as received; `None`, `""` and only spaces mean omitted (RFC 6749 section 3.1).
    pub scope: Option<&'a str>,
    /// What the client holds so far, where this is an update (RFC 7592 section 2.2); `None` for a new registration.
    pub previous_scope: Option<&'a str>,
    /// The client.
    pub client: Client<'a>,
}

/// Decides which scopes a client shall hold.
///
/// Keeps what was asked for and is supported, in the order asked, or starts from the defaults (at an update, from what the
/// client holds) if nothing was asked; then appends each baseline scope that is not yet there, in policy order. An
/// allowed answer has at least one scope. Deciding on the answer's own scope changes nothing.
#[must_use]
pub fn expand<'a>(policy: &'a PolicySet, question: &RegistrationQuestion<'a>) -> Answer<'a> {
    decide::<false>(policy, question)
}

/// Decides as [`expand`] does, and fills in the trail.
#[must_use]
pub fn explain<'a>(policy: &'a PolicySet, question: &RegistrationQuestion<'a>) -> Answer<'a> {
    decide::<true>(policy, question)
}

const KIND: RequestKind = RequestKind::Registration;

/// The evaluator; it records the trail where that is wanted.
fn decide<'a, const TRAIL: bool>(policy: &'a PolicySet, question: &RegistrationQuestion<'a>) -> Answer<'a> {
    let RegistrationQuestion { audiences, scope, previous_scope, client } = *question;
    let scope = scope.unwrap_or_default();
    let targets = match target::find(policy, audiences, KIND, None) {
        Ok(targets) => targets,
        Err(answer) => return *answer,
    };
    if let Some(answer) = limit::over(KIND, scope, previous_scope, &client) {
        return Answer { audiences: targets.audiences, ..answer };
    }
    let asked = AskedScopes::new(scope);
    let previous = previous_scope.map(|previous| Registered::new(previous, &asked));
    let mut registration =
        Registration::<TRAIL> { targets, granted: Granted::default(), trail: Trail::default() };

    let refused = registration.keep(&asked, previous.as_ref());
    let Targets { audiences, .. } = &registration.targets;
    let rejects = |reason| match reason {
        Reason::Forbidden | Reason::Unsupported => {
            audiences.iter().any(|audience| audience.registration_unsupported_scopes == Treatment::Reject)
        }
        _ => true,
    };
    let is_rejected = refused.iter().any(|one| rejects(one.reason));
    let defaults = |audience: &&AudiencePolicy| audience.registration_nothing_left == NothingLeft::Default;
    let stands_in =
        asked.is_empty() || !is_rejected && registration.granted.is_empty() && audiences.iter().all(defaults);
    let denied = if is_rejected {
        Some(denial(KIND, stands_in, refused.clone(), rejects))
    } else {
        registration.give(stands_in, previous.as_ref(), &client);
        let granted = registration.granted.scope.as_slice();
        match granted.is_empty() {
            true => Some(denial(KIND, stands_in, refused.clone(), |_| false)),
            false => limit::answer_over(KIND, granted),
        }
    };
    let Registration { targets: Targets { audiences, .. }, granted, trail } = registration;
    let trail = trail.into_steps();
    if let Some(answer) = denied {
        return Answer { audiences, as_omitted: stands_in, trail, ..answer };
    }
    let (scope, added) = granted.into_parts();
    Answer {
        reason: None,
        scope,
        added,
        refused,
        effective: EffectiveScope::Other(Vec::new()),
        grants: Grants::Nothing,
        as_omitted: stands_in,
        oauth_error: None,
        audiences,
        trail,
    }
}

/// A registration on its way to an answer.
struct Registration<'a, const TRAIL: bool> {
    targets: Targets<'a>,
    granted: Granted<'a>,
    trail: Trail<'a, TRAIL>,
}

impl<'a, const TRAIL: bool> Registration<'a, TRAIL> {
    /// Keeps what was asked for and may be registered; returns the rest.
    fn keep(&mut self, asked: &AskedScopes<'a>, previous: Option<&Registered<'_, 'a>>) -> Vec<Refused<'a>> {
        let Self { targets: Targets { audiences, forbid_together }, granted, trail } = self;
        let mut refused = Vec::new();
        for token in asked.tokens() {
            if let Err(error) = asked.check(token) {
                refused.push(malformed(token, error));
                continue;
            }
            // Most questions have one audience, and no need for a list of steps.
            let (one, many);
            let steps = match &**audiences {
                [audience] => {
                    one = judge(audience, token);
                    std::slice::from_ref(&one)
                }
                audiences => {
                    many = audiences.iter().map(|audience| judge(audience, token)).collect::<Vec<_>>();
                    &many
                }
            };
            if is_granted(steps, *forbid_together) {
                granted.keep_new(token);
            } else {
                let standing = Standing::of_registered(previous.map(|previous| previous.contains(token)));
                refused.push(refusal(token, steps, *forbid_together, standing));
            }
            trail.record(steps);
        }
        refused
    }

    /// Adds what was not asked for: what stands in for an omitted scope, then the baselines.
    fn give(&mut self, stands_in: bool, previous: Option<&Registered<'_, 'a>>, client: &Client<'_>) {
        let Self { targets: Targets { audiences, forbid_together }, granted, trail } = self;
        if let Some(previous) = previous.filter(|_| stands_in) {
            let mut steps = Vec::with_capacity(audiences.len());
            for token in previous.tokens() {
                steps.clear();
                steps.extend(audiences.iter().map(|audience| judge(audience, token).unasked()));
                let is_granted = is_granted(&steps, *forbid_together);
                for step in &mut steps {
                    step.held = Some(Coverage::Registered(token));
                    if step.outcome == ScopeOutcome::Granted {
                        match is_granted {
                            true => granted.add(step, Coverage::Registered(token)),
                            false => step.outcome = ScopeOutcome::Withheld(Withheld::Forbidden),
                        }
                    }
                }
                trail.record(&steps);
            }
        }
        for audience in &*audiences {
            for (scope, held) in given(audience, stands_in && previous.is_none(), client) {
                let mut step = judge(audience, scope).unasked();
                step.held = Some(held);
                if *forbid_together && is_forbidden(audiences, scope) {
                    step.outcome = ScopeOutcome::Withheld(Withheld::Forbidden);
                } else {
                    granted.add(&step, held);
                }
                trail.record(&[step]);
            }
        }
    }
}

/// What an audience gives unasked, in order: the defaults, the baseline, then the baselines of the client rules that hold.
fn given<'a>(
    audience: &'a AudiencePolicy,
    with_defaults: bool,
    client: &Client<'_>,
) -> impl Iterator<Item = (&'a str, Coverage<'a>)> {
    let defaults = with_defaults.then(|| {
        audience.default_client_scopes.iter().enumerate().map(|(at, scope)| (scope, Coverage::Default(at)))
    });
    let baseline =
        audience.baseline_client_scopes.iter().enumerate().map(|(at, scope)| (scope, Coverage::Baseline(at)));
    let rules = client::rules(audience, client).flat_map(|(rule, client_rule)| {
        let list = client_rule.baseline_client_scopes.iter().enumerate();
        list.map(move |(at, scope)| (scope, Coverage::Rule(rule, at)))
    });
    defaults.into_iter().flatten().chain(baseline).chain(rules)
}

/// How a scope fares at one audience when it is registered.
fn judge<'a>(audience: &'a AudiencePolicy, scope: &'a str) -> ScopeStep<'a> {
    let forbidden = audience.scope_matching.find_stop(&audience.forbidden_scopes, scope);
    let supported = audience.scope_matching.find(&audience.scopes_supported, scope);
    let outcome = if forbidden.is_some() {
        ScopeOutcome::Refused(Reason::Forbidden)
    } else if supported.is_none() {
        ScopeOutcome::Refused(Reason::Unsupported)
    } else {
        ScopeOutcome::Granted
    };
    ScopeStep { scope, audience, asked: true, supported, forbidden, held: None, outcome }
}
