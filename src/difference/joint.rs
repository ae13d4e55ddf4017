//! Requests that name several audiences: whether the change of one of them may give such a request more, though none that
//! names it alone gets more.
//!
//! Not asked for each combination, of which there are too many, but judged by how answers of audiences are joined. Errs on the
//! side of caution: what may widen with some other audience of the set counts.

use std::collections::BTreeSet;

use super::rejects;
use crate::decision::{Answer, Reason, RequestKind};
use crate::policy::{AudiencePolicy, NothingLeft, OmittedScope, PolicySet, Treatment};
use crate::scope::matching::ScopeMatching;

/// How a scope fares at one audience, as far as the settings tell it apart.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Fate {
    Granted,
    /// Not held, or beyond the grant of a token.
    Unregistered,
    /// Not supported, or forbidden: one setting is for both.
    Unsupported,
}

/// How single scopes fared under both policies, over all questions.
#[derive(Debug, Default)]
pub(super) struct Shifts {
    /// Of registrations and authorize requests.
    seen: BTreeSet<(Fate, Fate)>,
    /// Of requests for a token, which have settings of their own.
    seen_of_tokens: BTreeSet<(Fate, Fate)>,
}

impl Shifts {
    /// Notes how a scope fared that was asked for alone.
    pub(super) fn record(&mut self, kind: RequestKind, scope: &str, old: &Answer<'_>, new: &Answer<'_>) {
        let fate = |answer: &Answer<'_>| match answer.refused.first().map(|refused| refused.reason) {
            None => answer.scope.contains(&scope).then_some(Fate::Granted),
            Some(Reason::Unregistered | Reason::ExceedsGrant) => Some(Fate::Unregistered),
            Some(Reason::Unsupported | Reason::Forbidden) => Some(Fate::Unsupported),
            Some(_) => None,
        };
        if let (Some(old), Some(new)) = (fate(old), fate(new)) {
            match kind {
                RequestKind::Token => self.seen_of_tokens.insert((old, new)),
                RequestKind::Registration | RequestKind::Authorize => self.seen.insert((old, new)),
            };
        }
        debug_assert!(!rejects(new) || new.scope.is_empty(), "a denial grants nothing");
    }

    fn has(&self, old: Fate, new: Fate) -> bool {
        self.seen.contains(&(old, new))
    }
}

/// Why requests that name the audience with others may get more; `None` if they do not.
pub(super) fn widens(
    before: &PolicySet,
    after: &PolicySet,
    old: &AudiencePolicy,
    new: &AudiencePolicy,
    shifts: &Shifts,
) -> Option<&'static str> {
    if before.audiences().len() < 2 || after.audiences().len() < 2 {
        return None;
    }
    // A scope that one of several audiences forbids is not granted at all.
    if !forbids_as_much(old, new) {
        return Some("it no longer forbids what others may grant");
    }
    // Of several settings, the one that rejects decides for all.
    let relaxes = |of: fn(&AudiencePolicy) -> bool| of(old) && !of(new);
    if relaxes(|one| one.registration_unsupported_scopes == Treatment::Reject)
        || relaxes(|one| one.unsupported_scopes == Treatment::Reject)
        || relaxes(|one| one.unregistered_scopes == Treatment::Reject)
        || relaxes(|one| one.token_unsupported_scopes == Treatment::Reject)
        || relaxes(|one| one.token_exceeding_scopes == Treatment::Reject)
        || relaxes(|one| one.registration_nothing_left == NothingLeft::Reject)
        || relaxes(|one| one.nothing_left == NothingLeft::Reject)
        || relaxes(|one| one.omitted_scope == OmittedScope::Reject)
    {
        return Some("it no longer rejects them as a whole");
    }
    // A scope that is refused for another reason may be dropped where it denied the request.
    let mut others = after.audiences().iter().filter(|other| other.normal() != new.normal());
    let drops_instead = |old_rule: fn(&AudiencePolicy) -> Treatment,
                         new_rule: fn(&AudiencePolicy) -> Treatment| {
        move |other: &AudiencePolicy| {
            [old_rule(old), old_rule(other)].contains(&Treatment::Reject)
                && [new_rule(new), new_rule(other)] == [Treatment::Drop; 2]
        }
    };
    let authorize: [fn(&AudiencePolicy) -> Treatment; 2] =
        [|one| one.unsupported_scopes, |one| one.unregistered_scopes];
    let token: [fn(&AudiencePolicy) -> Treatment; 2] =
        [|one| one.token_unsupported_scopes, |one| one.token_exceeding_scopes];
    let is_dropped = [(&shifts.seen, authorize), (&shifts.seen_of_tokens, token)].into_iter().any(
        |(seen, [unsupported, unregistered])| {
            let has = |old, new| seen.contains(&(old, new));
            let to_unregistered =
                has(Fate::Granted, Fate::Unregistered) || has(Fate::Unsupported, Fate::Unregistered);
            let to_unsupported = has(Fate::Unregistered, Fate::Unsupported);
            others.clone().any(|other| {
                to_unregistered && drops_instead(unsupported, unregistered)(other)
                    || to_unsupported && drops_instead(unregistered, unsupported)(other)
            })
        },
    );
    if is_dropped {
        return Some("a scope that denied them is dropped");
    }
    // What is no longer granted may leave nothing, and the defaults stand in.
    let is_taken = shifts.has(Fate::Granted, Fate::Unregistered)
        || shifts.has(Fate::Granted, Fate::Unsupported)
        || !forbids_as_much(new, old);
    let stands_in = |one: &AudiencePolicy| {
        one.nothing_left == NothingLeft::Default || one.registration_nothing_left == NothingLeft::Default
    };
    if is_taken && stands_in(new) && others.any(|other| stands_in(other)) {
        return Some("the default stands in for a scope that is no longer granted");
    }
    None
}

/// Whether all that one policy forbids the other one forbids, whatever other audiences support.
fn forbids_as_much(old: &AudiencePolicy, new: &AudiencePolicy) -> bool {
    let (was, matching) = (old.scope_matching, new.scope_matching);
    old.forbidden_scopes.iter().all(|entry| {
        if was == ScopeMatching::Exact {
            return matching.find_stop(&new.forbidden_scopes, entry).is_some();
        }
        // An entry that matches another one stops all that the other one stops.
        was == matching && new.forbidden_scopes.iter().any(|other| matching.matches(other, entry))
    })
}
