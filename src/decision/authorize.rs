//! `CheckAuthorizeScopes`: which of these scopes may this authorize request get?
//!
//! RFC 6749 section 3.3: a server may ignore part of the scope, and where it is omitted uses a default
//! or fails with `invalid_scope`. RFC 8707 section 2: a request may span several resources. Not for the
//! token endpoint: a refresh may not exceed its grant (RFC 6749 section 6), and this may widen.

use super::asked::AskedScopes;
use super::holder::{Holder, Offer};
use super::joined::Joined;
use super::refusal::denial;
use super::registered::{Cover, Registered};
use super::target::{self, Targets};
use super::trail::Trail;
use super::{
    Added, Answer, Client, Coverage, EffectiveScope, Granted, Origin, Reason, RequestKind, ScopeOutcome,
    ScopeStep, Withheld, is_forbidden, limit,
};
use crate::policy::{AudiencePolicy, NothingLeft, OmittedScope, PolicySet, Treatment};
use crate::scope::{Distinct, TokenList};
use crate::short_list::TextsRef;

/// An authorize request.
#[derive(Clone, Copy, Debug, Default)]
pub struct AuthorizeQuestion<'a> {
    /// The audiences (`resource`, RFC 8707), as named; none means the default one, or the only one.
    pub audiences: TextsRef<'a>,
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
pub fn check<'a>(policy: &'a PolicySet, question: &AuthorizeQuestion<'a>) -> Answer<'a> {
    decide::<false>(policy, question, None)
}

/// The same for a question that may well name the audience `near`, such as that of the question before. It is one of the policy.
#[must_use]
pub fn check_near<'a>(
    policy: &'a PolicySet,
    question: &AuthorizeQuestion<'a>,
    near: Option<&'a AudiencePolicy>,
) -> Answer<'a> {
    decide::<false>(policy, question, near)
}

/// Decides as [`check`] does, and fills in the trail.
#[must_use]
pub fn explain<'a>(policy: &'a PolicySet, question: &AuthorizeQuestion<'a>) -> Answer<'a> {
    decide::<true>(policy, question, None)
}

const KIND: RequestKind = RequestKind::Authorize;

/// The evaluator; it records the trail where that is wanted.
fn decide<'a, const TRAIL: bool>(
    policy: &'a PolicySet,
    question: &AuthorizeQuestion<'a>,
    near: Option<&'a AudiencePolicy>,
) -> Answer<'a> {
    let AuthorizeQuestion { audiences, scope, registered_scope, client } = question;
    let scope = scope.unwrap_or_default();
    let Targets { audiences, .. } = match target::find(policy, *audiences, KIND, near) {
        Ok(targets) => targets,
        Err(answer) => return *answer,
    };
    if let Some(answer) = limit::over(KIND, scope, *registered_scope, client) {
        return Answer { audiences, ..answer };
    }
    let asked = AskedScopes::new(scope);
    let registered = registered_scope.map(|registered| Registered::new(registered, &asked));
    let holder = |audience: &&'a AudiencePolicy| Holder::new(audience, registered.is_some(), client);
    // Most questions have one audience, and no need for a list on the heap.
    let (mut one, mut many);
    let holders: &mut [Holder<'a>] = match &*audiences {
        [audience] => {
            one = holder(audience);
            std::slice::from_mut(&mut one)
        }
        audiences => {
            many = audiences.iter().map(holder).collect::<Vec<_>>();
            &mut many
        }
    };
    let mut joined = Joined::<TRAIL> {
        has_grant: false,
        holders,
        audiences: &audiences,
        registered: registered.as_ref(),
        granted: Granted::default(),
        trail: Trail::default(),
    };

    let refused = joined.keep(&asked, judge, Granted::mark);
    let rejects = |reason| {
        let treatment: fn(&AudiencePolicy) -> Treatment = match reason {
            Reason::Forbidden | Reason::Unsupported => |audience| audience.unsupported_scopes,
            Reason::Unregistered => |audience| audience.unregistered_scopes,
            _ => |_| Treatment::Reject,
        };
        audiences.iter().any(|audience| treatment(audience) == Treatment::Reject)
    };
    let is_rejected = refused.iter().any(|one| rejects(one.reason));
    let is_nothing_left = !is_rejected && joined.granted.is_empty();
    let stands_in = asked.is_empty()
        || is_nothing_left && audiences.iter().all(|audience| audience.nothing_left == NothingLeft::Default);
    if !stands_in {
        grant_always(&mut joined, &asked);
    } else if audiences.iter().all(|audience| audience.omitted_scope != OmittedScope::Reject) {
        joined.give(offers, Holder::offer, Granted::add);
    }
    let grants = joined.grants();
    let Joined { granted, trail, .. } = joined;
    let trail = trail.into_steps();
    let (scope, added) = granted.into_parts();
    if is_rejected || scope.is_empty() {
        let answer = denial(KIND, stands_in, refused, rejects);
        return Answer { audiences, as_omitted: stands_in, trail, ..answer };
    }
    if let Some(answer) = limit::answer_over(KIND, &scope) {
        return Answer { audiences, as_omitted: stands_in, trail, ..answer };
    }
    let effective = effective(&audiences, registered.as_ref(), &scope);
    Answer {
        reason: None,
        scope,
        added,
        refused,
        effective,
        grants,
        as_omitted: stands_in,
        oauth_error: None,
        audiences,
        trail,
    }
}

/// How a requested scope fares at one audience: what the client does not hold may be a step-up scope.
#[inline]
fn judge<'a>(holder: &Holder<'a>, scope: &'a str, cover: Option<&Cover<'_, 'a>>) -> ScopeStep<'a> {
    let audience = holder.audience;
    let step_up = || audience.scope_matching.find(&audience.step_up_scopes, scope).map(Coverage::StepUp);
    holder.judge(scope, holder.holds(scope, cover).or_else(step_up), Reason::Unregistered)
}

/// Grants what every client gets that holds it, at each audience that grants something that was asked for.
fn grant_always<'a, const TRAIL: bool>(joined: &mut Joined<'_, 'a, TRAIL>, asked: &AskedScopes<'a>) {
    let Joined { has_grant: _, holders, audiences, registered, granted, trail } = joined;
    let (is_alone, is_granted) = (holders.len() == 1, !granted.is_empty());
    let grants = |holder: &Holder<'_>| match is_alone {
        true => is_granted,
        false => !holder.granted.as_slice().is_empty(),
    };
    for holder in holders.iter_mut().filter(|holder| grants(holder)) {
        let list = holder.audience.always_grant_scopes.iter();
        for scope in list.filter(|scope| !asked.contains(scope)) {
            let cover = registered.map(|registered| Cover::new(registered, scope));
            // A step-up scope is not in this list, but an entry of that one may cover it.
            let held = holder.holds(scope, cover.as_ref());
            let mut step = holder.judge(scope, held, Reason::Unregistered).unasked();
            step.outcome = match held {
                _ if is_forbidden(audiences, scope) => ScopeOutcome::Withheld(Withheld::Forbidden),
                None => ScopeOutcome::Withheld(Withheld::NotHeld),
                Some(held) => {
                    let is_registered = matches!(held, Coverage::Registered(_));
                    granted.add_as(Added { scope, origin: Origin::Always, rule: "", is_registered });
                    holder.granted.push(scope);
                    ScopeOutcome::Granted
                }
            };
            trail.record(&[step]);
        }
    }
}

/// What a request without scope may get at one audience, each once: what is held, or the defaults with what holds them.
fn offers<'a>(holder: &Holder<'a>, registered: Option<&Registered<'_, 'a>>) -> Vec<Offer<'a>> {
    let audience = holder.audience;
    if audience.omitted_scope != OmittedScope::Default {
        return holder.all_held(registered);
    }
    // What the defaults name is a default, however it is held; a registered one needs no origin of ours.
    let offer = |(at, scope)| {
        let cover = registered.map(|registered| Cover::new(registered, scope));
        match holder.held(scope, cover.as_ref()) {
            Some(Coverage::Registered(token)) => (scope, Some(Coverage::Registered(token))),
            other => (scope, other.map(|_| Coverage::Default(at))),
        }
    };
    audience.default_client_scopes.iter().enumerate().map(offer).collect()
}

/// The received registration without what is forbidden or no longer supported, then what is granted
/// and not in it.
fn effective<'a>(
    audiences: &[&AudiencePolicy],
    registered: Option<&Registered<'_, 'a>>,
    granted: &TokenList<'a>,
) -> EffectiveScope<'a> {
    let registered = registered.map_or(&[][..], Registered::tokens);
    // Very often they are the same text of the request.
    let is_equal = |(one, other): (&&str, &&str)| std::ptr::eq(*one, *other) || one == other;
    // What is granted begins with all that is registered, which may be nothing.
    if registered.len() <= granted.len() && registered.iter().zip(granted).all(is_equal) {
        return EffectiveScope::Granted;
    }
    let mut known = Distinct::default();
    for token in granted {
        known.push(token);
    }
    let mut scope = Distinct::default();
    for token in registered {
        let is_supported = |audience: &&AudiencePolicy| {
            audience.scope_matching.find(&audience.scopes_supported, token).is_some()
        };
        // What is granted is supported and not forbidden; no need to look again.
        if known.contains(token) || audiences.iter().any(is_supported) && !is_forbidden(audiences, token) {
            scope.push(token);
        }
    }
    for token in granted {
        scope.push(token);
    }
    EffectiveScope::Other(scope.as_slice().to_vec())
}
