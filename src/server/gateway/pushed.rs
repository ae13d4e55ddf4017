//! Pushed authorization requests (RFC 9126) that the upstream took from this gateway: a `request_uri` of one of them passes at the
//! authorization endpoint, since its scope was decided when it was pushed.
//!
//! Kept in memory: what was pushed before a restart has to be pushed again, which takes a client one more request.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

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

/// The requests that have not expired. The oldest gives way to a new one when there are too many.
#[derive(Debug, Default)]
pub(super) struct PushedRequests(Mutex<PushedState>);

#[derive(Debug, Default)]
struct PushedState {
    by_uri: HashMap<Box<str>, (PushedRequest, Instant)>,
    /// The order in which they came.
    order: VecDeque<Box<str>>,
}

impl PushedRequests {
    /// Remembers a request until it expires.
    pub(super) fn remember(&self, uri: &str, request: PushedRequest, lifetime: Duration, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let PushedState { by_uri, order } = &mut *state;
        while let Some(oldest) = order.front() {
            let is_over = by_uri.get(oldest).is_none_or(|(_, until)| *until <= now);
            if !is_over && order.len() < MAX_PUSHED {
                break;
            }
            if let Some(oldest) = order.pop_front() {
                by_uri.remove(&oldest);
            }
        }
        if by_uri.insert(uri.into(), (request, now + lifetime.min(LONGEST))).is_none() {
            order.push_back(uri.into());
        }
    }

    /// What a URI stands for.
    pub(super) fn get(&self, uri: &str, now: Instant) -> Option<PushedRequest> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.by_uri.get(uri).filter(|(_, until)| *until > now).map(|(request, _)| request.clone())
    }
}

const MAX_PUSHED: usize = 10_000;
/// Longer than any server keeps one.
const LONGEST: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_known_until_it_expires_and_their_number_is_bounded() {
        let (pushed, start) = (PushedRequests::default(), Instant::now());
        let request = |scope: &str| PushedRequest { issuer: 0, client_id: "c".into(), scope: scope.into() };
        let minute = Duration::from_secs(60);
        pushed.remember("urn:1", request("a"), minute, start);
        assert_eq!(pushed.get("urn:1", start), Some(request("a")));
        assert_eq!(pushed.get("urn:1", start + minute), None);
        assert_eq!(pushed.get("urn:2", start), None);
        pushed.remember("urn:2", request("b"), minute, start + minute);
        for number in 0..MAX_PUSHED {
            pushed.remember(&format!("urn:n{number}"), request("c"), minute, start + minute);
        }
        assert_eq!(pushed.get("urn:2", start + minute), None, "the oldest made room");
        let state = pushed.0.lock().expect("no panic");
        assert_eq!((state.by_uri.len(), state.order.len()), (MAX_PUSHED, MAX_PUSHED));
    }
}
