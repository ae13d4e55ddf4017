//! How large a question may be, and what it has to say: what is refused as an error, and what is answered with a denial.
//!
//! What the caller controls (audiences, its own ids) is over a limit: an error. What clients choose (their scopes, their
//! metadata) is answered, since the caller can pass nothing else on. What this service gave out itself, a registered scope,
//! has no number: an answer is always accepted as the next question.

use hashbrown::HashSet;

use super::{Answer, Client, Reason, RequestKind, TokenGrant, refusal};
use crate::audience::MAX_AUDIENCE_BYTES;
use crate::scope;
use crate::short_list::TextsRef;

/// Most scopes in one `scope` that the client does not hold yet, duplicates counted; more are a denial.
pub const MAX_SCOPES: usize = 256;
/// Most bytes of client metadata, see [`Client::bytes`]; more are a denial.
pub const MAX_CLIENT_BYTES: usize = 64 * 1024;
/// Most bytes of the scope of an answer; more are a denial. With this, the next question fits its message (256 KiB) even if it
/// has the answer twice, as what the client holds and as what it asks for, beside the largest client and audiences.
pub const MAX_ANSWER_SCOPE_BYTES: usize = 76 * 1024;
/// Most audiences that a request names; those left out do not count.
pub const MAX_AUDIENCES: usize = 16;
/// Longest `correlation_id` in bytes.
pub const MAX_CORRELATION_ID_BYTES: usize = 128;

/// What makes a question one that cannot be answered: it is over a limit, or lacks what its answer depends on. Not a denial.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum QuestionError {
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
    /// The correlation id is too long.
    #[error("`correlation_id` has {length} bytes, at most {MAX_CORRELATION_ID_BYTES}")]
    CorrelationIdLength {
        /// Its length in bytes.
        length: usize,
    },
    /// The correlation id has a byte that is not printable ASCII.
    #[error("`correlation_id`: byte 0x{byte:02X} at offset {offset} is not printable ASCII")]
    CorrelationIdByte {
        /// The first such byte.
        byte: u8,
        /// Its 0-based offset in bytes.
        offset: usize,
    },
    /// It is not said what a client presents for a token.
    #[error("`grant` is required: what the client presents for the token")]
    GrantMissing,
    /// It is not said what the grant of a token stands for.
    #[error("`granted_scope` is required where `grant` is {}", grant.as_str())]
    GrantedScopeMissing {
        /// What the client presents.
        grant: TokenGrant,
    },
}

/// Checks the parts of a question that the caller controls, before it is decided.
///
/// # Errors
/// The first [`QuestionError`], in the order audiences, `correlation_id`.
pub fn check_limits(audiences: TextsRef<'_>, correlation_id: &str) -> Result<(), QuestionError> {
    if audiences.len() > MAX_AUDIENCES {
        let count = audiences.iter().filter(|audience| !audience.is_empty()).count();
        if count > MAX_AUDIENCES {
            return Err(QuestionError::Audiences { count });
        }
    }
    if let Some((index, audience)) =
        audiences.iter().enumerate().find(|(_, audience)| audience.len() > MAX_AUDIENCE_BYTES)
    {
        return Err(QuestionError::AudienceLength { index, length: audience.len() });
    }
    if correlation_id.len() > MAX_CORRELATION_ID_BYTES {
        return Err(QuestionError::CorrelationIdLength { length: correlation_id.len() });
    }
    let unprintable = correlation_id.bytes().enumerate().find(|(_, byte)| !matches!(byte, 0x20..=0x7E));
    match unprintable {
        Some((offset, byte)) => Err(QuestionError::CorrelationIdByte { byte, offset }),
        None => Ok(()),
    }
}

/// The denial of a question that asks too much to be looked at. `held` is what the client holds, if that was said: asking for
/// all of it is never too much, since this service gave it out.
pub(super) fn over<'a>(
    kind: RequestKind,
    scope: &str,
    held: Option<&str>,
    client: &Client<'_>,
) -> Option<Answer<'a>> {
    // A scope of n tokens has at least 2n - 1 bytes, so most need no counting.
    if scope.len() >= 2 * MAX_SCOPES {
        let count = scope::tokens(scope).count();
        if count > MAX_SCOPES && !may_be_an_answer(scope, held.unwrap_or_default()) {
            let description = format!("too many scopes: {count} were requested, at most {MAX_SCOPES}");
            return Some(refusal::denied(kind, Reason::TooManyScopes, Vec::new(), description));
        }
    }
    let bytes = client.bytes();
    (bytes > MAX_CLIENT_BYTES).then(|| {
        let description = format!("client metadata too large: {bytes} bytes, at most {MAX_CLIENT_BYTES}");
        refusal::denied(kind, Reason::ClientTooLarge, Vec::new(), description)
    })
}

/// Whether `scope` may be what this service gave out, and a few more: no token twice, and at most [`MAX_SCOPES`] that are not
/// in `held`.
fn may_be_an_answer(scope: &str, held: &str) -> bool {
    let held: HashSet<&str> = scope::tokens(held).collect();
    let mut seen = HashSet::new();
    let mut more = 0;
    scope::tokens(scope).all(|token| {
        more += usize::from(!held.contains(token));
        seen.insert(token) && more <= MAX_SCOPES
    })
}

/// The denial of an answer that would be too large to be the next question.
pub(super) fn answer_over<'a>(kind: RequestKind, scope: &[&str]) -> Option<Answer<'a>> {
    let bytes = scope.iter().map(|scope| scope.len() + 1).sum::<usize>().saturating_sub(1);
    (bytes > MAX_ANSWER_SCOPE_BYTES).then(|| {
        let description =
            format!("too many scopes: the granted ones have {bytes} bytes, at most {MAX_ANSWER_SCOPE_BYTES}");
        refusal::denied(kind, Reason::TooManyScopes, Vec::new(), description)
    })
}
