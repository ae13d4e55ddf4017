//! A request on its way to an answer: what each audience makes of it, and how that is joined.
//!
//! What an authorize request and a token have in common. Each audience decides alone, and a scope is granted if one grants it
//! and none forbids it.

use super::asked::AskedScopes;
use super::holder::{Holder, Offer};
use super::refusal::{is_granted, malformed, refusal};
use super::registered::{Cover, Registered};
use super::trail::Trail;
use super::{Coverage, Granted, Grants, Refused, ScopeOutcome, ScopeStep, Standing, is_forbidden};
use crate::policy::AudiencePolicy;
use crate::scope::Distinct;

/// A request on its way to an answer.
pub(super) struct Joined<'q, 'a, const TRAIL: bool> {
    /// Whether what counts is a grant, and not what the client registered.
    pub(super) has_grant: bool,
    /// One for each of `audiences`.
    pub(super) holders: &'q mut [Holder<'a>],
    pub(super) audiences: &'q [&'a AudiencePolicy],
    /// What the client registered, or what the grant has.
    pub(super) registered: Option<&'q Registered<'q, 'a>>,
    pub(super) granted: Granted<'a>,
    pub(super) trail: Trail<'a, TRAIL>,
}

impl<'a, const TRAIL: bool> Joined<'_, 'a, TRAIL> {
    /// Keeps what was asked for and may be granted; returns the rest. `judge` says how a scope fares at one audience.
    #[inline]
    pub(super) fn keep(
        &mut self,
        asked: &AskedScopes<'a>,
        judge: impl Fn(&Holder<'a>, &'a str, Option<&Cover<'_, 'a>>) -> ScopeStep<'a>,
        mut granted_by: impl FnMut(&mut Granted<'a>, &[ScopeStep<'a>]),
    ) -> Vec<Refused<'a>> {
        let Self { has_grant, holders, audiences: _, registered, granted, trail } = self;
        let mut refused = Vec::new();
        for token in asked.tokens() {
            if let Err(error) = asked.check(token) {
                refused.push(malformed(token, error));
                continue;
            }
            let cover = registered.map(|registered| Cover::of_asked(registered, token));
            // Most questions have one audience, and no need for a list of steps.
            let (one, many);
            let steps = match &**holders {
                [holder] => {
                    one = judge(holder, token, cover.as_ref());
                    std::slice::from_ref(&one)
                }
                holders => {
                    let steps = holders.iter().map(|holder| judge(holder, token, cover.as_ref()));
                    many = steps.collect::<Vec<_>>();
                    &many
                }
            };
            if is_granted(steps, true) {
                granted.keep_new(token);
                granted_by(granted, steps);
                let several = if steps.len() > 1 { &mut **holders } else { &mut [] };
                for (holder, step) in several.iter_mut().zip(steps) {
                    if step.outcome == ScopeOutcome::Granted {
                        holder.granted.push_new(token);
                    }
                }
            } else {
                let is_known = registered.map(|registered| registered.contains(token));
                let standing = match has_grant {
                    true => Standing::of_granted(is_known == Some(true)),
                    false => Standing::of_registered(is_known),
                };
                refused.push(refusal(token, steps, true, standing));
            }
            trail.record(steps);
        }
        refused
    }

    /// Gives a request without scope what stands in for it: of what each audience offers, what `judge` grants, told whether one
    /// of the audiences forbids it.
    pub(super) fn give(
        &mut self,
        offers: impl Fn(&Holder<'a>, Option<&Registered<'_, 'a>>) -> Vec<Offer<'a>>,
        judge: impl Fn(&Holder<'a>, &'a str, Option<Coverage<'a>>, bool) -> ScopeStep<'a>,
        mut grant: impl FnMut(&mut Granted<'a>, &ScopeStep<'a>, Coverage<'a>),
    ) {
        let Self { has_grant: _, holders, audiences, registered, granted, trail } = self;
        // A scope that several audiences offer is compared with what each forbids once.
        let mut offered = Distinct::default();
        let mut forbidden = Vec::new();
        for holder in holders.iter_mut() {
            for (scope, held) in offers(holder, *registered) {
                let (at, is_new) = offered.insert(scope);
                if is_new {
                    forbidden.push(is_forbidden(audiences, scope));
                }
                let step = judge(holder, scope, held, forbidden.get(at).copied().unwrap_or(true));
                if let Some(held) = held.filter(|_| step.outcome == ScopeOutcome::Granted) {
                    grant(granted, &step, held);
                    holder.granted.push(scope);
                }
                trail.record(&[step]);
            }
        }
    }

    /// Which audience grants which scopes of what is granted, in that order; an audience with none is left out.
    pub(super) fn grants(&self) -> Grants<'a> {
        let scope = self.granted.scope.as_slice();
        if let [holder] = &*self.holders {
            return match scope {
                [] => Grants::Nothing,
                _ => Grants::Whole(&holder.audience.audience),
            };
        }
        let grant = |holder: &Holder<'a>| {
            let scope: Vec<&str> =
                scope.iter().filter(|token| holder.granted.contains(token)).copied().collect();
            (!scope.is_empty()).then_some((&*holder.audience.audience, scope))
        };
        Grants::Parts(self.holders.iter().filter_map(grant).collect())
    }
}
