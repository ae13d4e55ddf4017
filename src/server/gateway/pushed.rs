//! Pushed authorization requests (RFC 9126) that the upstream took from this gateway: a `request_uri` of one of them passes at the
//! authorization endpoint, since its scope was decided when it was pushed.
//!
//! Kept in memory: what was pushed before a restart has to be pushed again, which takes a client one more request.

use super::expiring::ExpiringMap;

/// What was pushed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PushedRequest {
    /// The 0-based place of the issuer.
    pub(super) issuer: usize,
    /// Whose it is.
    pub(super) client_id: String,
    /// The scope that was granted and passed on.
    pub(super) scope: String,
}

/// The requests, by their `request_uri`.
pub(super) type PushedRequests = ExpiringMap<Box<str>, PushedRequest>;
