//! What a client holds at one audience: by its registration, by what the policy gives, or by a grant.

use super::registered::{Cover, Grantable, Registered};
use super::{Client, Coverage, Reason, ScopeOutcome, ScopeStep, Withheld, client};
use crate::policy::{AudiencePolicy, ClientRule, UnknownRegistration};
use crate::scope::Distinct;
use crate::scope::matching::{ScopeMatching, has_star_segment};

/// A scope that may stand in for an omitted one, and what holds it; `None` if nothing does.
pub(super) type Offer<'a> = (&'a str, Option<Coverage<'a>>);

/// What a client holds at one audience.
pub(super) struct Holder<'a> {
    pub(super) audience: &'a AudiencePolicy,
    /// What an unknown registration is worth; `None` where it is known, or does not count.
    unknown: Option<UnknownRegistration>,
    /// Whether the baseline and the rules cover this client: always if its registration is unknown and
    /// taken as one without scope, and otherwise if they cover existing clients.
    has_baseline: bool,
    /// Whether the defaults are held: only where the registration is unknown and taken as one without
    /// scope. Under `supported` that matters for a request without scope.
    has_defaults: bool,
    /// The client rules that hold, with their positions; none where they do not cover this client.
    rules: Vec<(usize, &'a ClientRule)>,
    grantable: Grantable,
    /// What is granted here; what was asked for is in it only where several audiences are asked about.
    pub(super) granted: Distinct<'a>,
}

impl<'a> Holder<'a> {
    /// A client that registered something, or of which that is not known.
    pub(super) fn new(audience: &'a AudiencePolicy, is_registered: bool, client: &Client<'_>) -> Self {
        let unknown = (!is_registered).then(|| audience.unknown_registration.of(client.source));
        let has_defaults = unknown.is_some_and(|unknown| unknown != UnknownRegistration::None);
        let has_baseline = match unknown {
            None => audience.baseline_for_existing_clients,
            Some(_) => has_defaults,
        };
        let mut rules = Vec::new();
        if has_baseline {
            rules.extend(client::rules(audience, client));
        }
        Self {
            audience,
            unknown,
            has_baseline,
            has_defaults,
            rules,
            grantable: Grantable::default(),
            granted: Distinct::default(),
        }
    }

    /// The same without the defaults, which are what a client may ask for at authorize and no grant.
    pub(super) fn without_defaults(self) -> Self {
        Self { has_defaults: false, ..self }
    }

    /// A client of which only a grant counts.
    pub(super) fn of_grant(audience: &'a AudiencePolicy) -> Self {
        Self {
            audience,
            unknown: None,
            has_baseline: false,
            has_defaults: false,
            rules: Vec::new(),
            grantable: Grantable::default(),
            granted: Distinct::default(),
        }
    }

    /// What covers a scope without step-up, the first that fits in the order of origins.
    pub(super) fn held(&self, scope: &str, cover: Option<&Cover<'_, 'a>>) -> Option<Coverage<'a>> {
        let audience = self.audience;
        let matching = audience.scope_matching;
        if let Some(token) = cover.and_then(|cover| cover.at(audience, &self.grantable)) {
            return Some(Coverage::Registered(token));
        }
        if self.has_defaults
            && let Some(at) = matching.find(&audience.default_client_scopes, scope)
        {
            return Some(Coverage::Default(at));
        }
        if !self.has_baseline {
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
    pub(super) fn holds(&self, scope: &str, cover: Option<&Cover<'_, 'a>>) -> Option<Coverage<'a>> {
        let audience = self.audience;
        let is_supported = || audience.scope_matching.find(&audience.scopes_supported, scope).is_some();
        if self.unknown == Some(UnknownRegistration::Supported) && is_supported() {
            return Some(Coverage::AnySupported);
        }
        self.held(scope, cover)
    }

    /// How a requested scope fares here that the client holds so. `beyond`: why it is refused if the client does not hold it.
    #[inline]
    pub(super) fn judge(&self, scope: &'a str, held: Option<Coverage<'a>>, beyond: Reason) -> ScopeStep<'a> {
        let audience = self.audience;
        let matching = audience.scope_matching;
        let forbidden = matching.find_stop(&audience.forbidden_scopes, scope);
        let supported = matching.find(&audience.scopes_supported, scope);
        let outcome = if forbidden.is_some() {
            ScopeOutcome::Refused(Reason::Forbidden)
        } else if supported.is_none() {
            ScopeOutcome::Refused(Reason::Unsupported)
        } else if held.is_none() {
            ScopeOutcome::Refused(beyond)
        } else {
            ScopeOutcome::Granted
        };
        ScopeStep { scope, audience, asked: true, supported, forbidden, held, outcome }
    }

    /// All that is held here, each once, in the order of origins.
    pub(super) fn all_held(&self, registered: Option<&Registered<'_, 'a>>) -> Vec<Offer<'a>> {
        let audience = self.audience;
        let held = |scope: &'a str| {
            let cover = registered.map(|registered| Cover::new(registered, scope));
            self.held(scope, cover.as_ref())
        };
        let mut seen = Distinct::default();
        let mut found = Vec::new();
        let mut add = |scope: &'a str, held: Coverage<'a>| {
            if seen.push(scope) {
                found.push((scope, Some(held)));
            }
        };
        for token in registered.map_or(&[][..], Registered::tokens) {
            add(token, Coverage::Registered(token));
        }
        if self.has_defaults {
            let defaults = audience.default_client_scopes.iter().enumerate();
            defaults.for_each(|(at, scope)| add(scope, Coverage::Default(at)));
        }
        if self.has_baseline {
            // A baseline scope that a registered or default entry covers has that origin.
            for (at, scope) in audience.baseline_client_scopes.iter().enumerate() {
                add(scope, held(scope).unwrap_or(Coverage::Baseline(at)));
            }
            for (rule, list) in &self.rules {
                for (at, scope) in list.baseline_client_scopes.iter().enumerate() {
                    add(scope, held(scope).unwrap_or(Coverage::Rule(*rule, at)));
                }
            }
        }
        found
    }

    /// How a scope fares here that is offered to a request without scope. Never granted is what has to be asked for.
    /// `is_forbidden`: here or at another audience of the request.
    pub(super) fn offer(
        &self,
        scope: &'a str,
        held: Option<Coverage<'a>>,
        is_forbidden: bool,
    ) -> ScopeStep<'a> {
        let audience = self.audience;
        let matching = audience.scope_matching;
        let mut step = self.judge(scope, held, Reason::Unregistered).unasked();
        if is_forbidden {
            step.outcome = ScopeOutcome::Withheld(Withheld::Forbidden);
        }
        if step.outcome == ScopeOutcome::Granted {
            if matching.find_stop(&audience.privileged_scopes, scope).is_some() {
                step.outcome = ScopeOutcome::Withheld(Withheld::Privileged);
            } else if matching.find(&audience.step_up_scopes, scope).is_some() {
                step.outcome = ScopeOutcome::Withheld(Withheld::StepUp);
            } else if matching == ScopeMatching::Wildcard && has_star_segment(scope) {
                step.outcome = ScopeOutcome::Withheld(Withheld::Wildcard);
            }
        }
        step
    }
}
