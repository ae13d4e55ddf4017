//! When to ask a server again that disconnected: which errors may pass, how long to wait, when to give up.

use std::time::Duration;

use tonic::Code;

use crate::backoff::Backoff;

/// Returns `true` if the same call may succeed later, without anybody doing something about it.
pub(in crate::cli) const fn may_pass(code: Code) -> bool {
    !matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
            | Code::OutOfRange
            | Code::DataLoss
    )
}

/// When to connect again, and when to give up.
#[derive(Debug)]
pub(in crate::cli) struct Retries {
    backoff: Backoff,
    most: u32,
}

impl Retries {
    /// Gives up after so many tries in a row without an answer.
    pub(in crate::cli) const fn new(most: u32) -> Self {
        Self { backoff: Backoff::new(FIRST_DELAY, LONGEST_DELAY), most }
    }

    /// How long to wait before the next try; `None` if there were enough.
    pub(in crate::cli) fn next(&mut self) -> Option<Duration> {
        (self.backoff.failures() < self.most).then(|| self.backoff.failed())
    }

    /// Returns `true` if the newest try is the first one since the last answer.
    pub(in crate::cli) const fn is_first(&self) -> bool {
        self.backoff.failures() == 1
    }

    /// Starts again: the server answered.
    pub(in crate::cli) const fn reset(&mut self) {
        self.backoff.reset();
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self::new(MOST_TRIES)
    }
}

const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// Together some two minutes: enough for a server to be replaced.
pub(in crate::cli) const MOST_TRIES: u32 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_end_after_about_two_minutes_and_start_again() {
        let mut retries = Retries::default();
        let whole: Duration = std::iter::from_fn(|| retries.next()).sum();
        assert!((100..170).contains(&whole.as_secs()), "{whole:?}");
        assert!(!retries.is_first());
        retries.reset();
        assert!(retries.next().is_some() && retries.is_first());
        assert_eq!(Retries::new(0).next(), None);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for code in
            [Code::Unavailable, Code::Unknown, Code::Cancelled, Code::Internal, Code::DeadlineExceeded]
        {
            assert!(may_pass(code), "{code:?}");
        }
        for code in [Code::Unimplemented, Code::PermissionDenied, Code::Unauthenticated, Code::DataLoss] {
            assert!(!may_pass(code), "{code:?}");
        }
    }
}
