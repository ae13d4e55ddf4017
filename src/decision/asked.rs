//! The scopes that a request asks for, looked through once.

use crate::scope::{Distinct, TokenError, check_token, scan};

/// The tokens of a requested scope, each once, in order; malformed ones among them.
pub(super) struct AskedScopes<'a> {
    tokens: Distinct<'a>,
    is_well_formed: bool,
}

impl<'a> AskedScopes<'a> {
    pub(super) fn new(scope: &'a str) -> Self {
        let mut asked = Self { tokens: Distinct::default(), is_well_formed: true };
        for token in scan(scope) {
            asked.is_well_formed &= token.is_well_formed;
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
}
