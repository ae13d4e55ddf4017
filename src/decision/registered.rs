//! What a client registered, indexed once for a question, and what of it covers a scope.
//!
//! A registered scope has no number, so nothing here compares each registered token with each requested one: an equal token
//! is looked up, under `hierarchic` so are the few prefixes of the scope, and of patterns only [`MAX_PATTERNS`] are compared.

use std::cell::{OnceCell, RefCell};

use super::asked::AskedScopes;
use crate::policy::AudiencePolicy;
use crate::scope::matching::{ScopeMatching, has_empty_segment, has_star_segment, prefixes};
use crate::scope::{Distinct, scan};

/// Most registered tokens with a `*` segment that cover other scopes under `wildcard`, the first ones: as many as one
/// request can register. Further ones cover nothing but themselves.
pub(super) const MAX_PATTERNS: usize = super::MAX_SCOPES;

/// The well-formed tokens of a registered scope, each once, in order.
#[derive(Debug)]
pub(super) struct Registered<'q, 'a> {
    /// Those that are asked for, where the same are registered.
    asked: Option<&'q Distinct<'a>>,
    /// The tokens where that is not so.
    own: Distinct<'a>,
    longest: usize,
    /// Positions of the tokens with a `*` segment.
    patterns: Vec<usize>,
}

impl<'q, 'a> Registered<'q, 'a> {
    /// Tokens outside the grammar are ignored. `asked`: what the same request asks for.
    pub(super) fn new(scope: &'a str, asked: &'q AskedScopes<'a>) -> Self {
        let mut registered = Self { asked: None, own: Distinct::default(), longest: 0, patterns: Vec::new() };
        // Very many clients ask for what they registered, and that was looked through already.
        if let Some((tokens, has_star)) = asked.tokens_of(scope) {
            registered.asked = Some(tokens);
            let list = tokens.as_slice();
            registered.longest = list.iter().map(|token| token.len()).max().unwrap_or_default();
            if has_star {
                let is_pattern = |(at, token): (usize, &&str)| has_star_segment(token).then_some(at);
                registered.patterns.extend(list.iter().enumerate().filter_map(is_pattern).take(MAX_PATTERNS));
            }
            return registered;
        }
        for token in scan(scope).filter(|token| token.is_well_formed) {
            let (at, is_new) = registered.own.insert(token.text);
            if is_new {
                registered.longest = registered.longest.max(token.text.len());
                if token.has_star && registered.patterns.len() < MAX_PATTERNS && has_star_segment(token.text)
                {
                    registered.patterns.push(at);
                }
            }
        }
        registered
    }

    fn list(&self) -> &Distinct<'a> {
        self.asked.unwrap_or(&self.own)
    }

    pub(super) fn tokens(&self) -> &[&'a str] {
        self.list().as_slice()
    }

    pub(super) fn contains(&self, scope: &str) -> bool {
        self.list().contains(scope)
    }
}

/// One scope against the registered ones: what is the same at every audience is looked for once.
#[derive(Debug)]
pub(super) struct Cover<'r, 'a> {
    registered: &'r Registered<'r, 'a>,
    scope: &'a str,
    equal: Option<&'a str>,
    hierarchic: OnceCell<Vec<usize>>,
    wildcard: OnceCell<Vec<usize>>,
}

impl<'r, 'a> Cover<'r, 'a> {
    pub(super) fn new(registered: &'r Registered<'_, 'a>, scope: &'a str) -> Self {
        let list = registered.list();
        let equal = list.position(scope).and_then(|at| list.as_slice().get(at).copied());
        Self::with(registered, scope, equal)
    }

    /// The same for one of the scopes that are asked for.
    pub(super) fn of_asked(registered: &'r Registered<'_, 'a>, scope: &'a str) -> Self {
        match registered.asked {
            Some(_) => Self::with(registered, scope, Some(scope)),
            None => Self::new(registered, scope),
        }
    }

    fn with(registered: &'r Registered<'_, 'a>, scope: &'a str, equal: Option<&'a str>) -> Self {
        Self { registered, scope, equal, hierarchic: OnceCell::new(), wildcard: OnceCell::new() }
    }

    /// The registered token that covers the scope at an audience; an equal one goes first.
    ///
    /// Another token covers it only if it could be granted itself, and never a privileged scope: the client may have chosen
    /// that token, or the policy may have dropped it since.
    pub(super) fn at(&self, audience: &AudiencePolicy, grantable: &Grantable) -> Option<&'a str> {
        if self.equal.is_some() {
            return self.equal;
        }
        let candidates = match audience.scope_matching {
            ScopeMatching::Exact => return None,
            ScopeMatching::Hierarchic => self.hierarchic.get_or_init(|| self.prefixes()),
            ScopeMatching::Wildcard => self.wildcard.get_or_init(|| self.patterns()),
        };
        let is_privileged =
            || audience.scope_matching.find_stop(&audience.privileged_scopes, self.scope).is_some();
        if candidates.is_empty() || is_privileged() {
            return None;
        }
        let tokens = self.registered.tokens();
        let mut found = candidates.iter().filter_map(|at| Some((*at, *tokens.get(*at)?)));
        found.find(|(at, token)| grantable.get(*at, token, audience)).map(|(_, token)| token)
    }

    fn prefixes(&self) -> Vec<usize> {
        if has_empty_segment(self.scope) {
            return Vec::new();
        }
        let list = self.registered.list();
        prefixes(self.scope, self.registered.longest).filter_map(|prefix| list.position(prefix)).collect()
    }

    fn patterns(&self) -> Vec<usize> {
        let tokens = self.registered.tokens();
        let matches = |at: &usize| {
            tokens.get(*at).is_some_and(|token| ScopeMatching::Wildcard.matches(token, self.scope))
        };
        self.registered.patterns.iter().copied().filter(matches).collect()
    }
}

/// Which registered tokens are supported and not forbidden at one audience, each looked up at most once.
#[derive(Debug, Default)]
pub(super) struct Grantable {
    known: RefCell<Vec<Option<bool>>>,
}

impl Grantable {
    fn get(&self, at: usize, token: &str, audience: &AudiencePolicy) -> bool {
        let mut known = self.known.borrow_mut();
        if known.len() <= at {
            known.resize(at + 1, None);
        }
        let is_grantable = || {
            let matching = audience.scope_matching;
            matching.find(&audience.scopes_supported, token).is_some()
                && matching.find_stop(&audience.forbidden_scopes, token).is_none()
        };
        known.get_mut(at).is_some_and(|known| *known.get_or_insert_with(is_grantable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// A registration that is taken from an equal request is the one that is read from its text.
        #[test]
        fn what_is_registered_does_not_depend_on_what_is_asked(text in "([ab*.]{1,3} {1,2}|\t|é){0,9}", many in 0..300_usize) {
            let text = format!("{text} {}", "a.* b ".repeat(many)) + &(0..many).map(|at| format!("{at}.* ")).collect::<String>();
            let (asked, another) = (AskedScopes::new(&text), AskedScopes::new("another"));
            let taken = Registered::new(&text, &asked);
            let read = Registered::new(&text, &another);
            proptest::prop_assert_eq!(taken.tokens(), read.tokens());
            proptest::prop_assert_eq!((taken.longest, taken.patterns), (read.longest, read.patterns));
        }
    }
}
