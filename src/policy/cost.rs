//! What deciding costs at an audience, known once its lists are: how many look-ups each scope of a question takes at most.

use super::AudiencePolicy;
use crate::scope::matching::ScopeMatching;

/// What an audience costs at most, in look-ups of a scope in a list.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct AudienceCost {
    /// For each scope of a question.
    pub per_scope: usize,
    /// How many scopes are given unasked.
    pub unasked: usize,
    /// How many client rules there are.
    pub rules: usize,
    /// Whether registered patterns are compared.
    pub compares_patterns: bool,
}

impl AudienceCost {
    /// The cost of one audience.
    pub(super) fn of(audience: &AudiencePolicy) -> Self {
        let stops = audience.forbidden_scopes.len() + audience.privileged_scopes.len();
        // Lists that are compared entry by entry.
        let compared = match audience.scope_matching {
            ScopeMatching::Exact => 0,
            ScopeMatching::Hierarchic => stops,
            ScopeMatching::Wildcard => {
                let lists = [&audience.scopes_supported, &audience.step_up_scopes];
                stops + lists.iter().filter(|list| list.has_patterns()).map(|list| list.len()).sum::<usize>()
            }
        };
        let rules = &audience.client_rules;
        let unasked = audience.default_client_scopes.len()
            + audience.baseline_client_scopes.len()
            + audience.always_grant_scopes.len()
            + rules.iter().map(|rule| rule.baseline_client_scopes.len()).sum::<usize>();
        Self {
            per_scope: LISTS + rules.len() + compared / COMPARED_PER_LOOKUP,
            unasked,
            rules: rules.len(),
            compares_patterns: audience.scope_matching == ScopeMatching::Wildcard,
        }
    }

    /// What no audience exceeds where this was so before some were removed, that do not exceed `removed`, and others were
    /// added, of which one reaches each part of `added`; `None` if that cannot be told.
    pub(super) fn without(self, removed: Self, added: Self) -> Option<Self> {
        let most = self.max(added);
        let is_known = |most: usize, removed: usize, added: usize| removed < most || added == most;
        let is_known = is_known(most.per_scope, removed.per_scope, added.per_scope)
            && is_known(most.unasked, removed.unasked, added.unasked)
            && is_known(most.rules, removed.rules, added.rules)
            && (!most.compares_patterns || !removed.compares_patterns || added.compares_patterns);
        is_known.then_some(most)
    }

    /// What no audience of two exceeds.
    pub(super) fn max(self, other: Self) -> Self {
        Self {
            per_scope: self.per_scope.max(other.per_scope),
            unasked: self.unasked.max(other.unasked),
            rules: self.rules.max(other.rules),
            compares_patterns: self.compares_patterns || other.compares_patterns,
        }
    }
}

/// The lists that a scope is looked up in, once or twice.
const LISTS: usize = 5;
/// How many entries are compared in the time of a look-up.
pub const COMPARED_PER_LOOKUP: usize = 8;
