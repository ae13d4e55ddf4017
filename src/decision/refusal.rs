//! Denials and refused scopes in words: for the client (RFC 6749 section 5.2) and for whoever reads `refused`.

use super::{
    AddedList, Answer, AudienceList, EffectiveScope, Grants, MAX_DESCRIPTION_BYTES, OAuthError, Reason,
    Refused, RequestKind, ScopeOutcome, ScopeStep, Standing,
};
use crate::escape::printable;
use crate::scope::{TokenError, TokenList};

/// A denial without more.
pub(super) fn denied<'a>(
    kind: RequestKind,
    reason: Reason,
    refused: Vec<Refused<'a>>,
    error_description: String,
) -> Answer<'a> {
    Answer {
        reason: Some(reason),
        scope: TokenList::new(),
        added: AddedList::new(),
        refused,
        effective: EffectiveScope::Granted,
        grants: Grants::Nothing,
        as_omitted: false,
        oauth_error: Some(OAuthError { error: kind.error(reason), error_description }),
        audiences: AudienceList::new(),
        trail: Vec::new(),
    }
}

/// Denies a request because of what was refused, or because nothing is left.
///
/// `stands_in` says that the scope was omitted, or is decided as if it had been.
pub(super) fn denial<'a>(
    kind: RequestKind,
    stands_in: bool,
    refused: Vec<Refused<'a>>,
    rejects: impl Fn(Reason) -> bool,
) -> Answer<'a> {
    let first = refused.iter().map(|one| one.reason).find(|reason| rejects(*reason));
    let (reason, description) = match first {
        Some(reason) => (reason, describe_refused(refused.iter().filter(|one| rejects(one.reason)))),
        None if stands_in => {
            (Reason::ScopeRequired, "a scope is required: nothing stands in for an omitted one".to_owned())
        }
        None => (Reason::NothingGranted, describe_refused(refused.iter())),
    };
    denied(kind, reason, refused, description)
}

fn describe_refused<'r>(refused: impl Iterator<Item = &'r Refused<'r>>) -> String {
    let named: Vec<_> = refused.map(|one| (refused_label(one), one.scope)).collect();
    join(&named)
}

/// Names every audience by reason, as in `audience unknown: a b`.
pub(super) fn describe(offenders: &[(Reason, &str)]) -> String {
    let named: Vec<_> = offenders.iter().map(|(reason, name)| (label(*reason), *name)).collect();
    join(&named)
}

/// Names every offender by label, as in `scope not supported: admin root`; says how many did not fit.
fn join(offenders: &[(&'static str, &str)]) -> String {
    const LONGEST_NAME: usize = 120;
    const ROOM_FOR_REST: usize = " and 65535 more".len();
    let mut text = String::with_capacity(128);
    let mut last = None;
    // Grouped by label, in the order in which the labels first appear.
    let mut labels: Vec<&str> = Vec::new();
    for (label, _) in offenders {
        if !labels.contains(label) {
            labels.push(label);
        }
    }
    let grouped = labels.iter().flat_map(|label| offenders.iter().filter(move |(other, _)| other == label));
    for (count, (label, name)) in grouped.enumerate() {
        let mut piece = String::new();
        if last != Some(label) {
            if last.is_some() {
                piece.push_str("; ");
            }
            piece.push_str(label);
            piece.push(':');
        }
        piece.push(' ');
        piece.push_str(&printable(name, LONGEST_NAME));
        if text.len() + piece.len() + ROOM_FOR_REST > MAX_DESCRIPTION_BYTES {
            text.push_str(&format!(" and {} more", offenders.len() - count));
            break;
        }
        text.push_str(&piece);
        last = Some(label);
    }
    text
}

fn refused_label(refused: &Refused<'_>) -> &'static str {
    match (refused.reason, refused.standing) {
        (Reason::Forbidden | Reason::Unsupported, Standing::Registered) => {
            "scope registered but not granted now"
        }
        (Reason::Forbidden | Reason::Unsupported, Standing::Granted) => "scope granted before but not now",
        (Reason::Unregistered, Standing::Unknown) => "scope not known to be registered for this client",
        (Reason::ExceedsGrant, Standing::Unknown | Standing::NotRegistered | Standing::Registered) => {
            "scope not held by this client"
        }
        (reason, _) => label(reason),
    }
}

const fn label(reason: Reason) -> &'static str {
    match reason {
        Reason::Malformed => "scope malformed",
        Reason::Forbidden => "scope forbidden",
        Reason::Unsupported => "scope not supported",
        Reason::Unregistered => "scope not registered for this client",
        Reason::ExceedsGrant => "scope exceeds the grant",
        Reason::ScopeRequired => "scope required",
        Reason::NothingGranted => "no scope left",
        Reason::AudienceUnknown => "audience unknown",
        Reason::AudienceMalformed => "audience malformed",
        Reason::AudienceRequired => "audience required",
        Reason::TooManyScopes => "too many scopes",
        Reason::ClientTooLarge => "client metadata too large",
    }
}

/// The refusal of a token that is not a valid one.
pub(super) fn malformed<'a>(scope: &'a str, error: TokenError) -> Refused<'a> {
    let message = format!("{}: {error}", printable(scope, 120));
    Refused { scope, reason: Reason::Malformed, standing: Standing::Unknown, message }
}

/// The refusal of a scope that no audience grants, from how it fared at each.
pub(super) fn refusal<'a>(
    scope: &'a str,
    steps: &[ScopeStep<'a>],
    forbid_together: bool,
    standing: Standing,
) -> Refused<'a> {
    let is_granted = steps.iter().any(|step| step.outcome == ScopeOutcome::Granted);
    // Where one audience would grant, another forbids it; apart, all that support it forbid it. Otherwise a scope that
    // all refuse has the reason closest to a grant.
    let reasons = if is_granted || (!forbid_together && steps.iter().any(|step| step.supported.is_some())) {
        [Reason::Forbidden, Reason::Unregistered, Reason::ExceedsGrant, Reason::Unsupported]
    } else {
        [Reason::Unregistered, Reason::ExceedsGrant, Reason::Unsupported, Reason::Forbidden]
    };
    let is_refused = |step: &&ScopeStep<'_>, reason| match reason {
        Reason::Forbidden if is_granted => step.forbidden.is_some(),
        _ => step.outcome == ScopeOutcome::Refused(reason),
    };
    let reason = reasons
        .into_iter()
        .find(|reason| steps.iter().any(|step| is_refused(&step, *reason)))
        .unwrap_or(Reason::Unsupported);
    let mut at = steps.iter().filter(|step| is_refused(step, reason));
    let first = at.next().map(|step| printable(&step.audience.audience, 200)).unwrap_or_default();
    let rest = match at.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let shown = printable(scope, 120);
    let since = match standing {
        Standing::Registered => " now, though this client registered it",
        Standing::Granted => " now, though the grant has it",
        _ => "",
    };
    let message = match reason {
        Reason::Forbidden => format!("{shown} is forbidden at {first}{rest}{since}"),
        Reason::Unregistered => {
            let why = match standing {
                Standing::Unknown => "what this client registered is unknown",
                _ => "this client has not registered it",
            };
            format!("{shown} is supported at {first}{rest}, but {why}")
        }
        Reason::ExceedsGrant => {
            let why = match standing {
                Standing::Granted | Standing::NotGranted => "the grant does not cover it",
                Standing::Unknown => "there is no grant, and what this client registered is unknown",
                _ => "there is no grant, and this client does not hold it",
            };
            format!("{shown} is not granted at {first}{rest}: {why}")
        }
        _ => format!("{shown} is not supported at {first}{rest}{since}"),
    };
    Refused { scope, reason, standing, message }
}

/// Joins how one scope fared at each audience: granted if one grants it and none that may says no.
pub(super) fn is_granted(steps: &[ScopeStep<'_>], forbid_together: bool) -> bool {
    steps.iter().any(|step| step.outcome == ScopeOutcome::Granted)
        && (!forbid_together || steps.iter().all(|step| step.forbidden.is_none()))
}
