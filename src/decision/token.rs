//! `CheckTokenScopes`: which scopes may this token have?
//!
//! For the token endpoint, where nothing may be added: a refresh may not exceed its grant (RFC 6749 section 6), and what a
//! client gets for its own credentials (section 4.4), for an assertion (RFC 7523) or for another token (RFC 8693) is no more than
//! what they stand for. So this only narrows: what the policy took back since is left out, and nothing that it gives comes in.

use super::asked::AskedScopes;
use super::holder::{Holder, Offer};
use super::joined::Joined;
use super::refusal::denial;
use super::registered::{Cover, Registered};
use super::target::{self, Targets};
use super::trail::Trail;
use super::{
    Answer, Client, Coverage, EffectiveScope, Granted, QuestionError, Reason, RequestKind, ScopeOutcome,
    ScopeStep, Withheld, limit,
};
use crate::policy::{AudiencePolicy, PolicySet, Treatment};
use crate::short_list::TextsRef;

/// What a client presents for a token.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum TokenGrant {
    /// A refresh token (RFC 6749 section 6).
    Refresh,
    /// Its own credentials (RFC 6749 section 4.4).
    ClientCredentials,
    /// A JWT as authorization grant (RFC 7523 section 2.1).
    JwtBearer,
    /// Another token (RFC 8693).
    TokenExchange,
}

impl TokenGrant {
    /// Every grant.
    pub const ALL: [Self; 4] = [Self::Refresh, Self::ClientCredentials, Self::JwtBearer, Self::TokenExchange];

    /// The name in the API without its prefix, as in `CLIENT_CREDENTIALS`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refresh => "REFRESH",
            Self::ClientCredentials => "CLIENT_CREDENTIALS",
            Self::JwtBearer => "JWT_BEARER",
            Self::TokenExchange => "TOKEN_EXCHANGE",
        }
    }

    /// Returns `true` if it stands for scopes that its server has to know: those of the grant that is refreshed, or of the token
    /// that is exchanged.
    #[must_use]
    pub const fn needs_granted_scope(self) -> bool {
        matches!(self, Self::Refresh | Self::TokenExchange)
    }
}

/// Checks that what is asked can be decided: it is said what the client presents, and what that stands for where it has to be
/// known. `grant`: `None` if it is not said.
///
/// # Errors
/// [`QuestionError::GrantMissing`], [`QuestionError::GrantedScopeMissing`].
pub fn check_grant(grant: Option<TokenGrant>, granted_scope: Option<&str>) -> Result<(), QuestionError> {
    match grant {
        None => Err(QuestionError::GrantMissing),
        Some(grant) if grant.needs_granted_scope() && granted_scope.is_none() => {
            Err(QuestionError::GrantedScopeMissing { grant })
        }
        Some(_) => Ok(()),
    }
}

/// A request for a token, of which [`check_grant`] holds.
///
/// What the client presents makes no difference to the answer, only what that stands for.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenQuestion<'a> {
    /// The audiences (`resource` of RFC 8707, `audience` of RFC 8693), as named; none means the default one, or the only one.
    pub audiences: TextsRef<'a>,
    /// `scope` as received; `None`, `""` and only spaces mean omitted (RFC 6749 section 3.1).
    pub scope: Option<&'a str>,
    /// What the grant stands for: `None` means that there is no grant but the client itself, `""` one without scope.
    pub granted_scope: Option<&'a str>,
    /// What the client registered, as stored: `None` means unknown, `""` registered with none. Counts only without a grant.
    pub registered_scope: Option<&'a str>,
    /// The client, as stored. Counts only without a grant.
    pub client: Client<'a>,
}

impl TokenQuestion<'_> {
    /// What the token may have as far as the question says it: what is granted, else what is registered.
    pub(super) fn backing(&self) -> Option<&str> {
        self.granted_scope.or(self.registered_scope)
    }
}

/// Decides which scopes a token may have.
///
/// A requested scope is granted if it is supported, not forbidden and covered by the grant, or without one by what the client
/// holds, for which neither step-up scopes nor the defaults of an unknown registration count. The others are refused with the
/// first that fits of MALFORMED, EXCEEDS_GRANT, FORBIDDEN and UNSUPPORTED. An omitted scope stands for all of
/// that; of what the client holds without a grant, what has to be asked for is not given. An allowed answer has at least one
/// scope, and adds none. Deciding on the answer's own scope changes nothing.
#[must_use]
pub fn check<'a>(policy: &'a PolicySet, question: &TokenQuestion<'a>) -> Answer<'a> {
    decide::<false>(policy, question, None)
}

/// The same for a question that may well name the audience `near`, such as that of the question before. It is one of the policy.
#[must_use]
pub fn check_near<'a>(
    policy: &'a PolicySet,
    question: &TokenQuestion<'a>,
    near: Option<&'a AudiencePolicy>,
) -> Answer<'a> {
    decide::<false>(policy, question, near)
}

/// Decides as [`check`] does, and fills in the trail.
#[must_use]
pub fn explain<'a>(policy: &'a PolicySet, question: &TokenQuestion<'a>) -> Answer<'a> {
    decide::<true>(policy, question, None)
}

const KIND: RequestKind = RequestKind::Token;

/// The evaluator; it records the trail where that is wanted.
fn decide<'a, const TRAIL: bool>(
    policy: &'a PolicySet,
    question: &TokenQuestion<'a>,
    near: Option<&'a AudiencePolicy>,
) -> Answer<'a> {
    let TokenQuestion { audiences, scope, granted_scope, registered_scope, client } = question;
    let scope = scope.unwrap_or_default();
    let Targets { audiences, .. } = match target::find(policy, *audiences, KIND, near) {
        Ok(targets) => targets,
        Err(answer) => return *answer,
    };
    if let Some(answer) = limit::over(KIND, scope, question.backing(), client) {
        return Answer { audiences, ..answer };
    }
    let asked = AskedScopes::new(scope);
    let has_grant = granted_scope.is_some();
    let registered = granted_scope.or(*registered_scope).map(|backing| Registered::new(backing, &asked));
    let holder = |audience: &&'a AudiencePolicy| match has_grant {
        true => Holder::of_grant(audience),
        false => Holder::new(audience, registered_scope.is_some(), client).without_defaults(),
    };
    let mut holders = audiences.iter().map(holder).collect::<Vec<_>>();
    let mut joined = Joined::<TRAIL> {
        has_grant,
        holders: &mut holders,
        audiences: &audiences,
        registered: registered.as_ref(),
        granted: Granted::default(),
        trail: Trail::default(),
    };

    let judge: fn(&Holder<'a>, &'a str, Option<&Cover<'_, 'a>>) -> ScopeStep<'a> =
        if has_grant { judge_granted } else { judge_held };
    let refused = joined.keep(&asked, judge, |_, _| ());
    let rejects = |reason| {
        let treatment: fn(&AudiencePolicy) -> Treatment = match reason {
            Reason::Forbidden | Reason::Unsupported => |audience| audience.token_unsupported_scopes,
            Reason::ExceedsGrant => |audience| audience.token_exceeding_scopes,
            _ => |_| Treatment::Reject,
        };
        audiences.iter().any(|audience| treatment(audience) == Treatment::Reject)
    };
    let is_rejected = refused.iter().any(|one| rejects(one.reason));
    if asked.is_empty() {
        let offer: fn(&Holder<'a>, &'a str, Option<Coverage<'a>>, bool) -> ScopeStep<'a> =
            if has_grant { offer_granted } else { Holder::offer };
        joined.give(
            |holder, registered| offers(holder, registered, has_grant),
            offer,
            |granted, step, _| granted.keep(step.scope),
        );
    }
    let grants = joined.grants();
    let Joined { granted, trail, .. } = joined;
    let trail = trail.into_steps();
    let (scope, added) = granted.into_parts();
    let denied = if is_rejected || scope.is_empty() {
        Some(denial(KIND, asked.is_empty(), refused.clone(), rejects))
    } else {
        limit::answer_over(KIND, &scope)
    };
    if let Some(answer) = denied {
        return Answer { audiences, as_omitted: asked.is_empty(), trail, ..answer };
    }
    Answer {
        reason: None,
        scope,
        added,
        refused,
        effective: EffectiveScope::Other(Vec::new()),
        grants,
        as_omitted: asked.is_empty(),
        oauth_error: None,
        audiences,
        trail,
    }
}

/// How a requested scope fares at one audience, by what the grant has.
fn judge_granted<'a>(holder: &Holder<'a>, scope: &'a str, cover: Option<&Cover<'_, 'a>>) -> ScopeStep<'a> {
    judge(holder, scope, holder.held(scope, cover).map(of_grant))
}

/// How a requested scope fares at one audience, by what the client holds.
fn judge_held<'a>(holder: &Holder<'a>, scope: &'a str, cover: Option<&Cover<'_, 'a>>) -> ScopeStep<'a> {
    judge(holder, scope, holder.holds(scope, cover))
}

/// What is not covered exceeds the grant, whatever else stops it: else a scope that rejects a request today would be dropped
/// from it once the policy no longer supports it, and less of a policy would let more through.
fn judge<'a>(holder: &Holder<'a>, scope: &'a str, held: Option<Coverage<'a>>) -> ScopeStep<'a> {
    let step = holder.judge(scope, held, Reason::ExceedsGrant);
    match held {
        Some(_) => step,
        None => ScopeStep { outcome: ScopeOutcome::Refused(Reason::ExceedsGrant), ..step },
    }
}

/// How a scope of the grant fares at one audience that the request does not name. It was granted already, so that nothing of it
/// has to be asked for again. `is_forbidden`: here or at another audience of the request.
fn offer_granted<'a>(
    holder: &Holder<'a>,
    scope: &'a str,
    held: Option<Coverage<'a>>,
    is_forbidden: bool,
) -> ScopeStep<'a> {
    let step = holder.judge(scope, held, Reason::ExceedsGrant).unasked();
    match is_forbidden {
        true => ScopeStep { outcome: ScopeOutcome::Withheld(Withheld::Forbidden), ..step },
        false => step,
    }
}

/// What a request without scope may get at one audience, each once.
fn offers<'a>(
    holder: &Holder<'a>,
    registered: Option<&Registered<'_, 'a>>,
    has_grant: bool,
) -> Vec<Offer<'a>> {
    let mut offers = holder.all_held(registered);
    if has_grant {
        offers.iter_mut().for_each(|(_, held)| *held = held.map(of_grant));
    }
    offers
}

/// A token that covers a scope, as one of the grant.
fn of_grant(held: Coverage<'_>) -> Coverage<'_> {
    match held {
        Coverage::Registered(token) => Coverage::Granted(token),
        other => other,
    }
}
