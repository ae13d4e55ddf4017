//! `CheckAuthorizeScopes`: which of these scopes may this authorize request get?
//!
//! RFC 6749 section 3.3: a server may ignore part of the scope, and where it is omitted uses a default
//! or fails with `invalid_scope`. RFC 8707 section 2: a request may span several resources. Not for the
//! token endpoint: a refresh may not exceed its grant (RFC 6749 section 6), and this may widen.

use super::asked::AskedScopes;
use super::refusal::{denial, is_granted, malformed, refusal};
use super::registered::{Cover, Grantable, Registered};
use super::target::{self, Targets};
use super::trail::Trail;
use super::{
    Added, Answer, Client, Coverage, EffectiveScope, Granted, Grants, Origin, Reason, Refused, RequestKind,
    ScopeOutcome, ScopeStep, Withheld, client, is_forbidden, limit,
};
use crate::policy::{
    AudiencePolicy, ClientRule, NothingLeft, OmittedScope, PolicySet, Treatment, UnknownRegistration,
};
use crate::scope::matching::{ScopeMatching, has_star_segment};
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
    let mut authorization = Authorization::<TRAIL> {
        holders,
        audiences: &audiences,
        registered: registered.as_ref(),
        granted: Granted::default(),
        trail: Trail::default(),
    };

    let refused = authorization.keep(&asked);
    let rejects = |reason| {
        let treatment: fn(&AudiencePolicy) -> Treatment = match reason {
            Reason::Forbidden | Reason::Unsupported => |audience| audience.unsupported_scopes,
            Reason::Unregistered => |audience| audience.unregistered_scopes,
            _ => |_| Treatment::Reject,
        };
        audiences.iter().any(|audience| treatment(audience) == Treatment::Reject)
    };
    let is_rejected = refused.iter().any(|one| rejects(one.reason));
    let is_nothing_left = !is_rejected && authorization.granted.is_empty();
    let stands_in = asked.is_empty()
        || is_nothing_left && audiences.iter().all(|audience| audience.nothing_left == NothingLeft::Default);
    if !stands_in {
        authorization.grant_always(&asked);
    } else if audiences.iter().all(|audience| audience.omitted_scope != OmittedScope::Reject) {
        authorization.give();
    }
    let Authorization { holders, granted, trail, .. } = authorization;
    let grants = grants(holders, granted.scope.as_slice());
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

/// An authorize request on its way to an answer.
struct Authorization<'q, 'a, const TRAIL: bool> {
    /// One for each of `audiences`.
    holders: &'q mut [Holder<'a>],
    audiences: &'q [&'a AudiencePolicy],
    registered: Option<&'q Registered<'q, 'a>>,
    granted: Granted<'a>,
    trail: Trail<'a, TRAIL>,
}

impl<'a, const TRAIL: bool> Authorization<'_, 'a, TRAIL> {
    /// Keeps what was asked for and may be granted; returns the rest.
    fn keep(&mut self, asked: &AskedScopes<'a>) -> Vec<Refused<'a>> {
        let Self { holders, audiences: _, registered, granted, trail } = self;
        let mut refused = Vec::new();
        for token in asked.tokens() {
            if let Err(error) = asked.check(token) {
                refused.push(malformed(token, error));
                continue;
            }
            let cover = registered.map(|registered| Cover::of_asked(registered, token));
            let (one, many);
            let steps = match &**holders {
                [holder] => {
                    one = holder.judge(token, cover.as_ref());
                    std::slice::from_ref(&one)
                }
                holders => {
                    let steps = holders.iter().map(|holder| holder.judge(token, cover.as_ref()));
                    many = steps.collect::<Vec<_>>();
                    &many
                }
            };
            if is_granted(steps, true) {
                granted.keep_new(token);
                granted.mark(steps);
                let several = if steps.len() > 1 { &mut **holders } else { &mut [] };
                for (holder, step) in several.iter_mut().zip(steps) {
                    if step.outcome == ScopeOutcome::Granted {
                        holder.granted.push_new(token);
                    }
                }
            } else {
                let is_registered = registered.map(|registered| registered.contains(token));
                refused.push(refusal(token, steps, true, is_registered));
            }
            trail.record(steps);
        }
        refused
    }

    /// Grants what every client gets that holds it, at each audience that grants something that was asked for.
    fn grant_always(&mut self, asked: &AskedScopes<'a>) {
        let Self { holders, audiences, registered, granted, trail } = self;
        let (is_alone, is_granted) = (holders.len() == 1, !granted.is_empty());
        let grants = |holder: &Holder<'_>| match is_alone {
            true => is_granted,
            false => !holder.granted.as_slice().is_empty(),
        };
        for holder in holders.iter_mut().filter(|holder| grants(holder)) {
            let list = holder.audience.always_grant_scopes.iter();
            for scope in list.filter(|scope| !asked.contains(scope)) {
                let cover = registered.map(|registered| Cover::new(registered, scope));
                let mut step = holder.judge(scope, cover.as_ref()).unasked();
                // A step-up scope is not in this list, but an entry of that one may cover it.
                step.held = holder.holds(scope, cover.as_ref());
                step.outcome = match step.held {
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

    /// Gives a request without scope what stands in for it.
    fn give(&mut self) {
        let Self { holders, audiences, registered, granted, trail } = self;
        // A scope that several audiences offer is compared with what each forbids once.
        let mut offered = Distinct::default();
        let mut forbidden = Vec::new();
        for holder in holders.iter_mut() {
            for (scope, held) in holder.offers(*registered) {
                let (at, is_new) = offered.insert(scope);
                if is_new {
                    forbidden.push(is_forbidden(audiences, scope));
                }
                let step = holder.offer(scope, held, forbidden.get(at).copied().unwrap_or(true));
                if let Some(held) = held.filter(|_| step.outcome == ScopeOutcome::Granted) {
                    granted.add(&step, held);
                    holder.granted.push(scope);
                }
                trail.record(&[step]);
            }
        }
    }
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
    if registered.len() == granted.len() && registered.iter().zip(granted).all(is_equal) {
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

/// Which audience grants which scopes, in the order of the answer; an audience with none is left out.
fn grants<'a>(holders: &[Holder<'a>], scope: &[&'a str]) -> Grants<'a> {
    if let [holder] = holders {
        return match scope {
            [] => Grants::Nothing,
            _ => Grants::Whole(&holder.audience.audience),
        };
    }
    let grant = |holder: &Holder<'a>| {
        let scope: Vec<&str> = scope.iter().filter(|token| holder.granted.contains(token)).copied().collect();
        (!scope.is_empty()).then_some((&*holder.audience.audience, scope))
    };
    Grants::Parts(holders.iter().filter_map(grant).collect())
}

/// What a client holds at one audience.
struct Holder<'a> {
    audience: &'a AudiencePolicy,
    /// What an unknown registration is worth; `None` where it is known.
    unknown: Option<UnknownRegistration>,
    /// The client rules that hold, with their positions; none where they do not cover this client.
    rules: Vec<(usize, &'a ClientRule)>,
    grantable: Grantable,
    /// What is granted here; what was asked for is in it only where several audiences are asked about.
    granted: Distinct<'a>,
}

impl<'a> Holder<'a> {
    fn new(audience: &'a AudiencePolicy, is_registered: bool, client: &Client<'_>) -> Self {
        let unknown = (!is_registered).then(|| audience.unknown_registration.of(client.source));
        let mut holder = Self {
            audience,
            unknown,
            rules: Vec::new(),
            grantable: Grantable::default(),
            granted: Distinct::default(),
        };
        if holder.has_baseline() {
            holder.rules.extend(client::rules(audience, client));
        }
        holder
    }

    /// Whether the baseline and the rules cover this client: always if its registration is unknown and
    /// taken as one without scope, and otherwise if they cover existing clients.
    fn has_baseline(&self) -> bool {
        match self.unknown {
            None => self.audience.baseline_for_existing_clients,
            Some(unknown) => unknown != UnknownRegistration::None,
        }
    }

    /// Whether the defaults are held: only where the registration is unknown and taken as one without
    /// scope. Under `supported` that matters for a request without scope.
    fn has_defaults(&self) -> bool {
        self.unknown.is_some_and(|unknown| unknown != UnknownRegistration::None)
    }

    /// What covers a scope without step-up, the first that fits in the order of origins.
    fn held(&self, scope: &str, cover: Option<&Cover<'_, 'a>>) -> Option<Coverage<'a>> {
        let audience = self.audience;
        let matching = audience.scope_matching;
        if let Some(token) = cover.and_then(|cover| cover.at(audience, &self.grantable)) {
            return Some(Coverage::Registered(token));
        }
        if self.has_defaults()
            && let Some(at) = matching.find(&audience.default_client_scopes, scope)
        {
            return Some(Coverage::Default(at));
        }
        if !self.has_baseline() {
            return None;
        }
        if let Some(at) = matching.find(&audience.baseline_client_scopes, scope) {
            return Some(Coverage::Baseline(at));
        }
        self.rules.iter().find_map(|(rule, list)| {
            Some(Coverage::Rule(*rule, matching.find(&list.baseline_client_scopes, scope)?))
        })
    }

    /// What the client holds of a scope here, any supported one included.
    fn holds(&self, scope: &str, cover: Option<&Cover<'_, 'a>>) -> Option<Coverage<'a>> {
        let audience = self.audience;
        let is_supported = || audience.scope_matching.find(&audience.scopes_supported, scope).is_some();
        if self.unknown == Some(UnknownRegistration::Supported) && is_supported() {
            return Some(Coverage::AnySupported);
        }
        self.held(scope, cover)
    }

    /// How a requested scope fares here.
    fn judge(&self, scope: &'a str, cover: Option<&Cover<'_, 'a>>) -> ScopeStep<'a> {
        let audience = self.audience;
        let matching = audience.scope_matching;
        let forbidden = matching.find_stop(&audience.forbidden_scopes, scope);
        let supported = matching.find(&audience.scopes_supported, scope);
        let step_up = || matching.find(&audience.step_up_scopes, scope).map(Coverage::StepUp);
        let held = self.holds(scope, cover).or_else(step_up);
        let outcome = if forbidden.is_some() {
            ScopeOutcome::Refused(Reason::Forbidden)
        } else if supported.is_none() {
            ScopeOutcome::Refused(Reason::Unsupported)
        } else if held.is_none() {
            ScopeOutcome::Refused(Reason::Unregistered)
        } else {
            ScopeOutcome::Granted
        };
        ScopeStep { scope, audience, asked: true, supported, forbidden, held, outcome }
    }

    /// What a request without scope may get here, each once: what is held, or the defaults with what holds them.
    fn offers(&self, registered: Option<&Registered<'_, 'a>>) -> Vec<(&'a str, Option<Coverage<'a>>)> {
        let audience = self.audience;
        let held = |scope: &'a str| {
            let cover = registered.map(|registered| Cover::new(registered, scope));
            self.held(scope, cover.as_ref())
        };
        let default = |(at, scope)| (scope, Coverage::Default(at));
        let defaults = audience.default_client_scopes.iter().enumerate().map(default);
        if audience.omitted_scope == OmittedScope::Default {
            // What the defaults name is a default, however it is held; a registered one needs no origin of ours.
            let offer = |(scope, default)| match held(scope) {
                Some(Coverage::Registered(token)) => (scope, Some(Coverage::Registered(token))),
                other => (scope, other.map(|_| default)),
            };
            return defaults.map(offer).collect();
        }
        let mut seen = Distinct::default();
        let mut offers = Vec::new();
        let mut offer = |scope: &'a str, held: Coverage<'a>| {
            if seen.push(scope) {
                offers.push((scope, Some(held)));
            }
        };
        for token in registered.map_or(&[][..], Registered::tokens) {
            offer(token, Coverage::Registered(token));
        }
        if self.has_defaults() {
            defaults.for_each(|(scope, default)| offer(scope, default));
        }
        if self.has_baseline() {
            // A baseline scope that a registered or default entry covers has that origin.
            for (at, scope) in audience.baseline_client_scopes.iter().enumerate() {
                offer(scope, held(scope).unwrap_or(Coverage::Baseline(at)));
            }
            for (rule, list) in &self.rules {
                for (at, scope) in list.baseline_client_scopes.iter().enumerate() {
                    offer(scope, held(scope).unwrap_or(Coverage::Rule(*rule, at)));
                }
            }
        }
        offers
    }

    /// How a scope fares here that is offered to a request without scope. Never granted is what has to be asked for.
    /// `is_forbidden`: here or at another audience of the request.
    fn offer(&self, scope: &'a str, held: Option<Coverage<'a>>, is_forbidden: bool) -> ScopeStep<'a> {
        let audience = self.audience;
        let matching = audience.scope_matching;
        let forbidden = matching.find_stop(&audience.forbidden_scopes, scope);
        let supported = matching.find(&audience.scopes_supported, scope);
        let outcome = if is_forbidden {
            ScopeOutcome::Withheld(Withheld::Forbidden)
        } else if supported.is_none() {
            ScopeOutcome::Withheld(Withheld::Unsupported)
        } else if held.is_none() {
            ScopeOutcome::Withheld(Withheld::NotHeld)
        } else if matching.find_stop(&audience.privileged_scopes, scope).is_some() {
            ScopeOutcome::Withheld(Withheld::Privileged)
        } else if matching.find(&audience.step_up_scopes, scope).is_some() {
            ScopeOutcome::Withheld(Withheld::StepUp)
        } else if matching == ScopeMatching::Wildcard && has_star_segment(scope) {
            ScopeOutcome::Withheld(Withheld::Wildcard)
        } else {
            ScopeOutcome::Granted
        };
        ScopeStep { scope, audience, asked: false, supported, forbidden, held, outcome }
    }
}
