//! When to ask a server again that went away: which errors may pass, how long to wait, when to give up.

use std::time::Duration;

use tonic::Code;

/// Tells whether the same call may succeed later, without anybody doing something about it.
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

/// How long to wait before each try to connect again, and when to give up.
#[derive(Debug)]
pub(in crate::cli) struct Backoff {
    tries: u32,
    most_tries: u32,
}

impl Backoff {
    /// Gives up after so many tries without an answer.
    pub(in crate::cli) const fn new(most_tries: u32) -> Self {
        Self { tries: 0, most_tries }
    }

    /// The time before the next try: doubled from try to try up to [`LONGEST_DELAY`]; `None` when there
    /// were enough.
    pub(in crate::cli) fn next(&mut self) -> Option<Duration> {
        if self.tries == self.most_tries {
            return None;
        }
        let delay = FIRST_DELAY.saturating_mul(2u32.saturating_pow(self.tries));
        self.tries += 1;
        Some(delay.min(LONGEST_DELAY))
    }

    /// Tells whether the newest try is the first one.
    pub(in crate::cli) const fn is_first(&self) -> bool {
        self.tries == 1
    }

    /// Begins anew: the server answered.
    pub(in crate::cli) const fn reset(&mut self) {
        self.tries = 0;
    }
}

impl Default for Backoff {
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
    fn waiting_grows_and_ends() {
        let mut backoff = Backoff::default();
        let delays: Vec<Duration> = std::iter::from_fn(|| backoff.next()).collect();
        assert_eq!(delays[..3], [250, 500, 1000].map(Duration::from_millis));
        assert!(delays.is_sorted());
        assert_eq!(delays.last(), Some(&LONGEST_DELAY));
        let whole: Duration = delays.iter().sum();
        assert!((120..150).contains(&whole.as_secs()), "{whole:?}");
        backoff.reset();
        assert_eq!(backoff.next(), Some(FIRST_DELAY));
        assert!(backoff.is_first());
        assert_eq!(Backoff::new(0).next(), None);
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
