//! Decisions: which scopes a client shall hold, which of them a request may get, and which of those a token has.
//!
//! One pure function for each question: [`registration::expand`], [`authorize::check`] and [`token::check`]. All give an
//! [`Answer`]; their twins `explain` also record how each scope came to its end, so that every caller (RPC, command line, tests) sees the same
//! decision and can explain it. A denial is an answer; deciding cannot fail.

use crate::policy::AudiencePolicy;
use crate::scope::TokenList;
use crate::short_list::ShortList;

mod asked;
pub mod authorize;
pub mod client;
mod holder;
mod joined;
pub mod limit;
mod refusal;
mod registered;
pub mod registration;
mod target;
pub mod token;
pub mod trail;
pub mod work;

pub use client::Client;
pub use limit::{MAX_AUDIENCES, MAX_CORRELATION_ID_BYTES, MAX_SCOPES, QuestionError, check_limits};
pub use token::TokenGrant;
pub use trail::{Coverage, ScopeOutcome, ScopeStep, Withheld};

/// Longest `error_description` in bytes.
pub const MAX_DESCRIPTION_BYTES: usize = 512;

/// Which of the questions is asked.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum RequestKind {
    /// `ExpandRegistrationScopes`.
    Registration,
    /// `CheckAuthorizeScopes`.
    Authorize,
    /// `CheckTokenScopes`.
    Token,
}

impl RequestKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Registration, Self::Authorize, Self::Token];

    /// The key of test files and reports: `register`, `authorize` or `token`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registration => "register",
            Self::Authorize => "authorize",
            Self::Token => "token",
        }
    }

    /// The OAuth error of a denial. RFC 7591 section 3.2.2 has only one that fits a registration.
    const fn error(self, reason: Reason) -> &'static str {
        match self {
            Self::Registration => "invalid_client_metadata",
            Self::Authorize | Self::Token if reason.is_about_audience() => "invalid_target",
            Self::Authorize | Self::Token => "invalid_scope",
        }
    }
}

/// Why a scope or a whole request was refused.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reason {
    /// Not a scope token (RFC 6749 section 3.3), or longer than 512 bytes.
    Malformed,
    /// Forbidden by the policy.
    Forbidden,
    /// Not in `scopesSupported`.
    Unsupported,
    /// Supported, but neither registered nor given by the policy.
    Unregistered,
    /// Not part of what a token may have: of its grant, or without one of what the client holds.
    ExceedsGrant,
    /// The scope was omitted and there is nothing to stand in for it.
    ScopeRequired,
    /// Every scope that was asked for was dropped.
    NothingGranted,
    /// The policy does not know the audience.
    AudienceUnknown,
    /// Not an audience (RFC 8707 section 2).
    AudienceMalformed,
    /// No audience was named and the policy has no default.
    AudienceRequired,
    /// More scopes than a request may name, or than its answer may have.
    TooManyScopes,
    /// More client metadata than is looked at.
    ClientTooLarge,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 12] = [
        Self::Malformed,
        Self::Forbidden,
        Self::Unsupported,
        Self::Unregistered,
        Self::ExceedsGrant,
        Self::ScopeRequired,
        Self::NothingGranted,
        Self::AudienceUnknown,
        Self::AudienceMalformed,
        Self::AudienceRequired,
        Self::TooManyScopes,
        Self::ClientTooLarge,
    ];

    /// The name in the API without its prefix, as in `UNSUPPORTED`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "MALFORMED",
            Self::Forbidden => "FORBIDDEN",
            Self::Unsupported => "UNSUPPORTED",
            Self::Unregistered => "UNREGISTERED",
            Self::ExceedsGrant => "EXCEEDS_GRANT",
            Self::ScopeRequired => "SCOPE_REQUIRED",
            Self::NothingGranted => "NOTHING_GRANTED",
            Self::AudienceUnknown => "AUDIENCE_UNKNOWN",
            Self::AudienceMalformed => "AUDIENCE_MALFORMED",
            Self::AudienceRequired => "AUDIENCE_REQUIRED",
            Self::TooManyScopes => "TOO_MANY_SCOPES",
            Self::ClientTooLarge => "CLIENT_TOO_LARGE",
        }
    }

    /// Returns `true` for the reasons that a single scope can be refused for.
    #[must_use]
    pub const fn is_about_scope(self) -> bool {
        matches!(
            self,
            Self::Malformed | Self::Forbidden | Self::Unsupported | Self::Unregistered | Self::ExceedsGrant
        )
    }

    /// Returns `true` for the reasons that name an audience as the problem.
    #[must_use]
    pub const fn is_about_audience(self) -> bool {
        matches!(self, Self::AudienceUnknown | Self::AudienceMalformed | Self::AudienceRequired)
    }
}

/// Where a scope comes from that was not asked for or not registered. In order of preference.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Origin {
    /// What the client registered.
    Registered,
    /// `defaultClientScopes`.
    Default,
    /// `baselineClientScopes`, of the audience or of a client rule.
    Baseline,
    /// `authorization.stepUpScopes`.
    StepUp,
    /// `authorization.alwaysGrantScopes`.
    Always,
}

impl Origin {
    /// Every origin.
    pub const ALL: [Self; 5] = [Self::Registered, Self::Default, Self::Baseline, Self::StepUp, Self::Always];

    /// The name in the API without its prefix, as in `BASELINE`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "REGISTERED",
            Self::Default => "DEFAULT",
            Self::Baseline => "BASELINE",
            Self::StepUp => "STEP_UP",
            Self::Always => "ALWAYS",
        }
    }
}

/// An answer to one question under one policy set. Borrows from both.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Why the whole was denied; `None` means allowed.
    pub reason: Option<Reason>,
    /// The effective scopes, each once; empty on denial, never empty otherwise.
    pub scope: TokenList<'a>,
    /// The effective scopes that were not asked for, or not registered. In the order of `scope`.
    pub added: AddedList<'a>,
    /// Every scope that was asked for and refused, in the order asked; also on an allowed request
    /// where the policy drops them. Empty where the question was not looked at scope by scope.
    pub refused: Vec<Refused<'a>>,
    /// See [`Answer::effective_registered_scope`].
    pub effective: EffectiveScope<'a>,
    /// See [`Answer::audience_grants`].
    pub grants: Grants<'a>,
    /// Whether the scope was omitted, or decided as if it had been because nothing was left of it
    /// (`nothingLeft: default`).
    pub as_omitted: bool,
    /// What to send to the client; `None` if allowed.
    pub oauth_error: Option<OAuthError>,
    /// The audiences that decided, in the order named; empty if they could not be found or were not looked for.
    pub audiences: AudienceList<'a>,
    /// How each scope fared at each audience; only filled in by `explain`.
    pub trail: Vec<ScopeStep<'a>>,
}

/// What a client gets without asking: most get little.
pub type AddedList<'a> = ShortList<Added<'a>, 2>;

/// The audiences of a question: most have one.
pub type AudienceList<'a> = ShortList<&'a AudiencePolicy, 1>;

/// What the caller may take as registered.
#[derive(Clone, Debug)]
pub enum EffectiveScope<'a> {
    /// The scopes of the answer, as nearly always.
    Granted,
    /// These.
    Other(Vec<&'a str>),
}

/// Which audiences grant which scopes.
#[derive(Clone, Debug, Default)]
pub enum Grants<'a> {
    /// None does, or the question was another one.
    #[default]
    Nothing,
    /// This one grants all scopes of the answer.
    Whole(&'a str),
    /// These grant these; each at least one, in the order of the answer.
    Parts(Vec<(&'a str, Vec<&'a str>)>),
}

impl<'a> Answer<'a> {
    /// At authorize and for a token, which audience grants which scopes, in the order named; an audience that grants
    /// none is left out. None on denial.
    pub fn audience_grants(&self) -> impl Iterator<Item = AudienceGrant<'_>> {
        let (whole, parts) = match &self.grants {
            Grants::Nothing => (None, &[][..]),
            Grants::Whole(audience) => (Some(AudienceGrant { audience, scope: &self.scope }), &[][..]),
            Grants::Parts(parts) => (None, &**parts),
        };
        let parts = parts.iter().map(|(audience, scope)| AudienceGrant { audience, scope });
        whole.into_iter().chain(parts)
    }

    /// At authorize, what the caller may take as registered for this request, each scope once; empty on denial, at
    /// registration and for a token.
    #[must_use]
    pub fn effective_registered_scope(&self) -> &[&'a str] {
        match &self.effective {
            EffectiveScope::Granted => &self.scope,
            EffectiveScope::Other(scope) => scope,
        }
    }

    /// Returns `true` if the request was allowed.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        self.reason.is_none()
    }

    /// Returns `true` if the client got a scope that it neither asked for nor registered: what the audit
    /// calls an expansion.
    #[must_use]
    pub fn is_expansion(&self) -> bool {
        self.is_allowed() && self.added.iter().any(|added| !added.is_registered)
    }
}

/// A scope that the client gets beyond what it asked for or registered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Added<'a> {
    /// The scope.
    pub scope: &'a str,
    /// Where it comes from.
    pub origin: Origin,
    /// Name of the client rule that gives it; empty if none does.
    pub rule: &'a str,
    /// Whether the client registered it, so that giving it unasked is no expansion.
    pub is_registered: bool,
}

/// A scope that was asked for and refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refused<'a> {
    /// The token as received.
    pub scope: &'a str,
    /// Why.
    pub reason: Reason,
    /// What was known of it before.
    pub standing: Standing,
    /// The same for people, printable ASCII, names the audience.
    pub message: String,
}

/// What is known of a scope apart from the policy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// Nothing: what the client registered is unknown, and there is no grant.
    Unknown,
    /// The client did not register it.
    NotRegistered,
    /// The client registered it.
    Registered,
    /// The grant that a token is for does not name it.
    NotGranted,
    /// The grant that a token is for names it.
    Granted,
}

impl Standing {
    /// `is_registered`: `None` where that is unknown.
    const fn of_registered(is_registered: Option<bool>) -> Self {
        match is_registered {
            None => Self::Unknown,
            Some(false) => Self::NotRegistered,
            Some(true) => Self::Registered,
        }
    }

    const fn of_granted(is_granted: bool) -> Self {
        if is_granted { Self::Granted } else { Self::NotGranted }
    }
}

/// What one audience grants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AudienceGrant<'a> {
    /// The audience as spelled in the policy.
    pub audience: &'a str,
    /// Its scopes, in the order of the answer; not empty.
    pub scope: &'a [&'a str],
}

/// An error response as OAuth defines it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OAuthError {
    /// `invalid_client_metadata` (RFC 7591 section 3.2.2) at registration, else `invalid_target` for an audience
    /// (RFC 8707 section 2) or `invalid_scope` (RFC 6749 section 4.1.2.1).
    pub error: &'static str,
    /// Printable ASCII without `"` and `\` (RFC 6749 section 5.2), at most [`MAX_DESCRIPTION_BYTES`].
    pub error_description: String,
}

/// The scopes of an answer as they are granted, each once, with where those come from that are added.
#[derive(Debug, Default)]
struct Granted<'a> {
    scope: crate::scope::Distinct<'a>,
    /// Those of `scope` that were not asked for or not registered, with their positions, in order.
    added: ShortList<(usize, Added<'a>), 2>,
}

impl<'a> Granted<'a> {
    fn is_empty(&self) -> bool {
        self.scope.as_slice().is_empty()
    }

    /// Grants what was asked for and needs no origin.
    fn keep(&mut self, scope: &'a str) {
        self.scope.push(scope);
    }

    /// The same for one that is not granted yet.
    fn keep_new(&mut self, scope: &'a str) {
        self.scope.push_new(scope);
    }

    /// Grants a scope as added. One that is added already keeps the origin that comes first in the order of origins; one
    /// that was kept stays so.
    fn add(&mut self, step: &ScopeStep<'a>, held: Coverage<'a>) {
        let Some(origin) = held.origin() else { return self.keep(step.scope) };
        let rule = trail::rule_name(step.audience, held);
        self.add_as(Added { scope: step.scope, origin, rule, is_registered: origin == Origin::Registered });
    }

    fn add_as(&mut self, added: Added<'a>) {
        let (at, is_new) = self.scope.insert(added.scope);
        if is_new {
            self.added.push((at, added));
        } else if let Ok(known) = self.place(at)
            && let Some((_, known)) = self.added.get_mut(known)
        {
            if added.origin < known.origin {
                *known = added;
            } else if added.origin == known.origin {
                known.is_registered &= added.is_registered;
            }
        }
    }

    /// Marks a scope that was asked for as added, if it is not registered at one of the audiences that grant it.
    #[inline]
    fn mark(&mut self, steps: &[ScopeStep<'a>]) {
        for step in steps {
            if !matches!(step.held, None | Some(Coverage::Registered(_))) {
                self.mark_step(step);
            }
        }
    }

    fn mark_step(&mut self, step: &ScopeStep<'a>) {
        if step.outcome == ScopeOutcome::Granted
            && let Some(held) = step.held
            && let Some(origin) = held.origin()
        {
            let (at, _) = self.scope.insert(step.scope);
            let rule = trail::rule_name(step.audience, held);
            let added = Added { scope: step.scope, origin, rule, is_registered: false };
            match self.place(at) {
                Err(place) => self.added.insert(place, (at, added)),
                Ok(place) => {
                    if let Some((_, known)) =
                        self.added.get_mut(place).filter(|(_, known)| origin < known.origin)
                    {
                        *known = added;
                    }
                }
            }
        }
    }

    /// Where the scope at a position is in `added`, or belongs.
    fn place(&self, at: usize) -> Result<usize, usize> {
        self.added.binary_search_by_key(&at, |(known, _)| *known)
    }

    fn into_parts(self) -> (TokenList<'a>, AddedList<'a>) {
        let added = self.added.iter().map(|(_, added)| *added).collect();
        (self.scope.into_list(), added)
    }
}

/// Returns `true` if one of the audiences forbids a scope.
fn is_forbidden(audiences: &[&AudiencePolicy], scope: &str) -> bool {
    audiences
        .iter()
        .any(|audience| audience.scope_matching.find_stop(&audience.forbidden_scopes, scope).is_some())
}

#[cfg(test)]
pub(crate) mod tests;
