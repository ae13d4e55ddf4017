//! The scopes that a request asks for, looked through once.

use crate::scope::{Distinct, TokenError, check_token, scan};

/// The tokens of a requested scope, each once, in order; malformed ones among them.
pub(super) struct AskedScopes<'a> {
    text: &'a str,
    tokens: Distinct<'a>,
    is_well_formed: bool,
    has_star: bool,
}

impl<'a> AskedScopes<'a> {
    #[inline]
    pub(super) fn new(text: &'a str) -> Self {
        let mut asked = Self { text, tokens: Distinct::default(), is_well_formed: true, has_star: false };
        for token in scan(text) {
            asked.is_well_formed &= token.is_well_formed;
            asked.has_star |= token.has_star;
            asked.tokens.push(token.text);
        }
        asked
    }

    pub(super) fn tokens(&self) -> &[&'a str] {
        self.tokens.as_slice()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tokens().is_empty()
    }

    pub(super) fn contains(&self, scope: &str) -> bool {
        self.tokens.contains(scope)
    }

    /// Checks one of the tokens against the grammar.
    pub(super) fn check(&self, token: &str) -> Result<(), TokenError> {
        // Nearly always none has to be looked at again.
        if self.is_well_formed { Ok(()) } else { check_token(token) }
    }

    /// Its tokens, and whether there is a `*` in one of them, if these are the tokens of another text too: an equal one, and
    /// all of them well-formed.
    pub(super) fn tokens_of(&self, other: &str) -> Option<(&Distinct<'a>, bool)> {
        (self.is_well_formed && self.text == other).then_some((&self.tokens, self.has_star))
    }
}
