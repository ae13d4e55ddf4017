//! Decisions: which scopes a client shall hold, and which of them a request may get.
//!
//! One pure function for each question: [`registration::expand`] and [`authorize::check`]. Both give an
//! [`Answer`] that carries the trail of how each scope came to its end, so every door (RPC, command
//! line, tests) sees the same decision and can explain it. A denial is an answer; deciding cannot fail.

use crate::audience::MAX_AUDIENCE_BYTES;
use crate::policy::{AudiencePolicy, PolicySet};
use crate::scope::{self, TokenError, printable};

pub mod authorize;
pub mod client;
pub mod registration;

pub use client::Client;

/// Most scopes in one `scope` or `registered_scope`, duplicates counted.
pub const MAX_SCOPES: usize = 256;
/// Most audiences in one request; also how many a registration without audience may span.
pub const MAX_AUDIENCES: usize = 16;
/// Longest `error_description` in bytes.
pub const MAX_DESCRIPTION_BYTES: usize = 512;

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
}

impl Reason {
    /// The name in the API without its prefix, as in `UNSUPPORTED`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "MALFORMED",
            Self::Forbidden => "FORBIDDEN",
            Self::Unsupported => "UNSUPPORTED",
            Self::Unregistered => "UNREGISTERED",
            Self::ScopeRequired => "SCOPE_REQUIRED",
            Self::NothingGranted => "NOTHING_GRANTED",
            Self::AudienceUnknown => "AUDIENCE_UNKNOWN",
            Self::AudienceMalformed => "AUDIENCE_MALFORMED",
            Self::AudienceRequired => "AUDIENCE_REQUIRED",
        }
    }

    const fn is_about_audience(self) -> bool {
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
}

impl Origin {
    /// The name in the API without its prefix, as in `BASELINE`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "REGISTERED",
            Self::Default => "DEFAULT",
            Self::Baseline => "BASELINE",
            Self::StepUp => "STEP_UP",
        }
    }
}

/// An answer to one question under one policy set. Borrows from both.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Why the whole was denied; `None` means allowed.
    pub reason: Option<Reason>,
    /// The effective scopes, each once; empty on denial, never empty otherwise.
    pub scope: Vec<&'a str>,
    /// The effective scopes that were not asked for, or not registered. In the order of `scope`.
    pub added: Vec<Added<'a>>,
    /// Every scope that was asked for and refused, in the order asked; also on an allowed request
    /// where the policy drops them.
    pub refused: Vec<Refused<'a>>,
    /// At authorize, what the caller may take as registered for this request; empty on denial.
    pub registered_scope: Vec<&'a str>,
    /// At authorize, which audience grants which scopes, in the order named; an audience that grants
    /// none is left out. Empty on denial.
    pub audience_grants: Vec<AudienceGrant<'a>>,
    /// What to send to the client; `None` if allowed.
    pub oauth_error: Option<OAuthError>,
    /// The audiences that decided, in the order named; empty if they could not be found.
    pub audiences: Vec<&'a AudiencePolicy>,
    /// How each scope fared at each audience.
    pub trail: Vec<Step<'a>>,
}

impl Answer<'_> {
    /// Tells whether the request was allowed.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        self.reason.is_none()
    }

    /// Tells whether the client got a scope that it neither asked for nor registered: what the audit
    /// calls an expansion.
    #[must_use]
    pub fn is_expansion(&self) -> bool {
        self.is_allowed() && self.added.iter().any(|added| added.origin != Origin::Registered)
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
}

/// A scope that was asked for and refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refused<'a> {
    /// The token as received.
    pub scope: &'a str,
    /// Why.
    pub reason: Reason,
    /// The same for people, printable ASCII, names the audience.
    pub message: String,
}

/// What one audience grants.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AudienceGrant<'a> {
    /// The audience as spelled in the policy.
    pub audience: &'a str,
    /// Its scopes, in the order of the answer; not empty.
    pub scope: Vec<&'a str>,
}

/// An error response as OAuth defines it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OAuthError {
    /// `invalid_scope` (RFC 6749 section 4.1.2.1), `invalid_client_metadata` (RFC 7591 section 3.2.2)
    /// or `invalid_target` (RFC 8707 section 2).
    pub error: &'static str,
    /// Printable ASCII without `"` and `\` (RFC 6749 section 5.2), at most
    /// [`MAX_DESCRIPTION_BYTES`].
    pub error_description: String,
}

/// How one scope fared at one audience. Positions are 0-based in the compiled lists.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The scope.
    pub scope: &'a str,
    /// The audience.
    pub audience: &'a AudiencePolicy,
    /// Whether the request named it.
    pub asked: bool,
    /// The entry of `scopesSupported` that covers it.
    pub supported: Option<usize>,
    /// The entry of `forbiddenScopes` that stops it.
    pub forbidden: Option<usize>,
    /// What covers it; at registration, what gives it.
    pub held: Option<Held<'a>>,
    /// How it ended at this audience.
    pub outcome: Outcome,
}

/// What covers a scope, the first that fits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Held<'a> {
    /// This registered scope.
    Registered(&'a str),
    /// Any supported scope, because the registration is unknown.
    AnySupported,
    /// This entry of `defaultClientScopes`.
    Default(usize),
    /// This entry of `baselineClientScopes`.
    Baseline(usize),
    /// This entry of the baseline of this client rule.
    Rule(usize, usize),
    /// This entry of `stepUpScopes`.
    StepUp(usize),
}

impl Held<'_> {
    const fn origin(self) -> Option<Origin> {
        match self {
            Self::AnySupported => None,
            Self::Registered(_) => Some(Origin::Registered),
            Self::Default(_) => Some(Origin::Default),
            Self::Baseline(_) | Self::Rule(..) => Some(Origin::Baseline),
            Self::StepUp(_) => Some(Origin::StepUp),
        }
    }
}

/// How a scope ended at one audience.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Granted here.
    Granted,
    /// Asked for and refused here.
    Refused(Reason),
    /// Not asked for, and not given unasked for this reason.
    Withheld(Withheld),
}

/// Why a scope that the client holds is not given to a request without scope.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Withheld {
    /// It is forbidden, here or at another named audience.
    Forbidden,
    /// It is not supported any more.
    Unsupported,
    /// It is privileged.
    Privileged,
    /// It is a step-up scope.
    StepUp,
    /// It is a pattern.
    Wildcard,
    /// The default list has it, but the client does not hold it.
    NotHeld,
}

/// A question over a limit: it cannot be answered, and it is not a denial.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LimitError {
    /// Too many audiences.
    #[error("`audiences` names {count} audiences, at most {MAX_AUDIENCES}")]
    Audiences {
        /// How many there are.
        count: usize,
    },
    /// An audience is too long.
    #[error("`audiences[{index}]` has {length} bytes, at most {MAX_AUDIENCE_BYTES}")]
    AudienceLength {
        /// 0-based place in `audiences`.
        index: usize,
        /// Its length in bytes.
        length: usize,
    },
    /// Too many scopes.
    #[error("`{field}` has {count} scopes, at most {MAX_SCOPES}")]
    Scopes {
        /// `scope` or `registered_scope`.
        field: &'static str,
        /// How many there are, duplicates counted.
        count: usize,
    },
}

impl LimitError {
    /// The field that is over its limit, as the API names it.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Audiences { .. } | Self::AudienceLength { .. } => "audiences",
            Self::Scopes { field, .. } => field,
        }
    }
}

/// Checks the parts of a question that have a limit, before it is decided.
///
/// # Errors
/// The first [`LimitError`], in the order audiences, `scope`, `registered_scope`.
pub fn check_limits(
    audiences: &[String],
    scope: Option<&str>,
    registered_scope: Option<&str>,
) -> Result<(), LimitError> {
    if audiences.len() > MAX_AUDIENCES {
        return Err(LimitError::Audiences { count: audiences.len() });
    }
    if let Some((index, audience)) =
        audiences.iter().enumerate().find(|(_, audience)| audience.len() > MAX_AUDIENCE_BYTES)
    {
        return Err(LimitError::AudienceLength { index, length: audience.len() });
    }
    for (field, value) in [("scope", scope), ("registered_scope", registered_scope)] {
        let value = value.unwrap_or_default();
        // A scope of n tokens has at least 2n - 1 bytes, so most need no counting.
        if value.len() >= 2 * MAX_SCOPES {
            let count = scope::tokens(value).count();
            if count > MAX_SCOPES {
                return Err(LimitError::Scopes { field, count });
            }
        }
    }
    Ok(())
}

/// Which of the two questions is asked; decides the OAuth error code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Moment {
    Registration,
    Authorize,
}

impl Moment {
    const fn error(self, reason: Reason) -> &'static str {
        match self {
            _ if reason.is_about_audience() => "invalid_target",
            Self::Registration => "invalid_client_metadata",
            Self::Authorize => "invalid_scope",
        }
    }
}

/// Finds the audiences of a question, each once, in the order named.
fn audiences<'a>(
    policy: &'a PolicySet,
    named: &'a [String],
    moment: Moment,
) -> Result<Vec<&'a AudiencePolicy>, Box<Answer<'a>>> {
    if named.is_empty() {
        return unnamed_audiences(policy, moment);
    }
    let mut found: Vec<&AudiencePolicy> = Vec::with_capacity(named.len());
    let mut reason = None;
    let mut offenders: Vec<(Reason, &str)> = Vec::new();
    for name in named {
        let problem = match policy.audience(name) {
            Ok(Some(audience)) => {
                if !found.iter().any(|known| std::ptr::eq(*known, &**audience)) {
                    found.push(audience);
                }
                continue;
            }
            Ok(None) => Reason::AudienceUnknown,
            Err(_) => Reason::AudienceMalformed,
        };
        reason = reason.or(Some(problem));
        offenders.push((problem, name));
    }
    match reason {
        None => Ok(found),
        Some(reason) => Err(Box::new(denied(moment, reason, Vec::new(), describe(&offenders)))),
    }
}

fn unnamed_audiences<'a>(
    policy: &'a PolicySet,
    moment: Moment,
) -> Result<Vec<&'a AudiencePolicy>, Box<Answer<'a>>> {
    let all = policy.audiences();
    // RFC 7591 knows no `resource`: a registration is for whatever this server protects.
    let spans = match moment {
        Moment::Registration => MAX_AUDIENCES,
        Moment::Authorize => 1,
    };
    let default = policy.default_audience().map(|audience| vec![&**audience]);
    let every = || (all.len() <= spans).then(|| all.iter().map(|audience| &**audience).collect());
    let found = match moment {
        Moment::Registration => every().or(default),
        Moment::Authorize => default.or_else(every),
    };
    found.ok_or_else(|| {
        let description = "an audience is required: this server protects several".to_owned();
        Box::new(denied(moment, Reason::AudienceRequired, Vec::new(), description))
    })
}

fn denied<'a>(
    moment: Moment,
    reason: Reason,
    refused: Vec<Refused<'a>>,
    error_description: String,
) -> Answer<'a> {
    Answer {
        reason: Some(reason),
        scope: Vec::new(),
        added: Vec::new(),
        refused,
        registered_scope: Vec::new(),
        audience_grants: Vec::new(),
        oauth_error: Some(OAuthError { error: moment.error(reason), error_description }),
        audiences: Vec::new(),
        trail: Vec::new(),
    }
}

/// Denies a request because of what was refused, or because nothing is left.
fn denial<'a>(
    moment: Moment,
    omitted: bool,
    refused: Vec<Refused<'a>>,
    rejects: impl Fn(Reason) -> bool,
) -> Answer<'a> {
    let rejecting: Vec<(Reason, &str)> =
        refused.iter().filter(|one| rejects(one.reason)).map(|one| (one.reason, one.scope)).collect();
    let (reason, description) = match rejecting.first() {
        Some((reason, _)) => (*reason, describe(&rejecting)),
        None if omitted => (Reason::ScopeRequired, "a scope is required: none was requested".to_owned()),
        None => {
            let all: Vec<_> = refused.iter().map(|one| (one.reason, one.scope)).collect();
            (Reason::NothingGranted, describe(&all))
        }
    };
    denied(moment, reason, refused, description)
}

/// Names every offender by reason, as in `not supported: admin root`; says how many did not fit.
fn describe(offenders: &[(Reason, &str)]) -> String {
    const LONGEST_NAME: usize = 120;
    const ROOM_FOR_REST: usize = " and 65535 more".len();
    let mut text = String::with_capacity(128);
    let mut last = None;
    // Grouped by reason, in the order in which the reasons first appear.
    let mut reasons: Vec<Reason> = Vec::new();
    for (reason, _) in offenders {
        if !reasons.contains(reason) {
            reasons.push(*reason);
        }
    }
    let grouped =
        reasons.iter().flat_map(|reason| offenders.iter().filter(move |(other, _)| other == reason));
    for (count, (reason, name)) in grouped.enumerate() {
        let mut piece = String::new();
        if last != Some(reason) {
            if last.is_some() {
                piece.push(';');
                piece.push(' ');
            }
            piece.push_str(label(*reason));
            piece.push(':');
        }
        piece.push(' ');
        piece.push_str(&if name.is_empty() { "(empty)".to_owned() } else { printable(name, LONGEST_NAME) });
        if text.len() + piece.len() + ROOM_FOR_REST > MAX_DESCRIPTION_BYTES {
            text.push_str(&format!(" and {} more", offenders.len() - count));
            break;
        }
        text.push_str(&piece);
        last = Some(reason);
    }
    text
}

const fn label(reason: Reason) -> &'static str {
    match reason {
        Reason::Malformed => "scope malformed",
        Reason::Forbidden => "scope forbidden",
        Reason::Unsupported => "scope not supported",
        Reason::Unregistered => "scope not registered for this client",
        Reason::ScopeRequired => "scope required",
        Reason::NothingGranted => "no scope left",
        Reason::AudienceUnknown => "audience unknown",
        Reason::AudienceMalformed => "audience malformed",
        Reason::AudienceRequired => "audience required",
    }
}

/// The refusal of a token that is none.
fn malformed<'a>(scope: &'a str, error: TokenError) -> Refused<'a> {
    let message = format!("{}: {error}", printable(scope, 120));
    Refused { scope, reason: Reason::Malformed, message }
}

/// The refusal of a scope that no audience grants, from how it fared at each.
fn refusal<'a>(scope: &'a str, steps: &[Step<'a>]) -> Refused<'a> {
    // Where one audience would grant, another forbids it. A scope that all refuse has the reason closest to
    // a grant.
    let reasons = if steps.iter().any(|step| step.outcome == Outcome::Granted) {
        [Reason::Forbidden, Reason::Unregistered, Reason::Unsupported]
    } else {
        [Reason::Unregistered, Reason::Unsupported, Reason::Forbidden]
    };
    let reason = reasons
        .into_iter()
        .find(|reason| steps.iter().any(|step| step.outcome == Outcome::Refused(*reason)))
        .unwrap_or(Reason::Unsupported);
    let mut at = steps.iter().filter(|step| step.outcome == Outcome::Refused(reason));
    let first = at.next().map(|step| printable(&step.audience.audience, 200)).unwrap_or_default();
    let rest = match at.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let shown = printable(scope, 120);
    let message = match reason {
        Reason::Forbidden => format!("{shown} is forbidden at {first}{rest}"),
        Reason::Unregistered => {
            format!("{shown} is supported at {first}{rest}, but this client has not registered it")
        }
        _ => format!("{shown} is not supported at {first}{rest}"),
    };
    Refused { scope, reason, message }
}

/// Joins how one scope fared at each audience: granted if one grants it and none forbids it.
fn is_granted(steps: &[Step<'_>]) -> bool {
    steps.iter().any(|step| step.outcome == Outcome::Granted)
        && steps.iter().all(|step| step.forbidden.is_none())
}

/// The rule name that a scope is given under; `""` for everything but a client rule.
fn rule_name<'a>(audience: &'a AudiencePolicy, held: Held<'a>) -> &'a str {
    match held {
        Held::Rule(rule, _) => audience.client_rules.get(rule).map_or("", |rule| &rule.name),
        _ => "",
    }
}

/// Tells whether one of the audiences forbids a scope.
fn is_forbidden(audiences: &[&AudiencePolicy], scope: &str) -> bool {
    audiences
        .iter()
        .any(|audience| audience.scope_matching.find_stop(&audience.forbidden_scopes, scope).is_some())
}

#[cfg(test)]
mod tests;
