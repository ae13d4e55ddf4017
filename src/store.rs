//! The policy that serves: a whole set at a time, swapped atomically, the last good one kept.
//!
//! [`Keeper`] is the rule book: what an attempt to load means for the set that serves. It does no I/O
//! and is told the time, so that its promises can be tested. [`Active`] is what a request sees: one
//! set with its generation, the same from start to end. Knows nothing about status, audit or metrics;
//! the floor above tells them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;

use crate::policy::PolicySet;
use crate::policy::change::{Change, changes};
use crate::policy::check::Accepted;
use crate::policy::finding::Findings;

pub mod last_good;
pub mod load;
pub mod read;
pub mod watch;

/// The longest that a removal waits for quiet.
pub const MAX_REMOVAL_WAIT: Duration = Duration::from_secs(30);

/// A set that serves.
#[derive(Debug)]
pub struct Active {
    /// The set.
    pub set: PolicySet,
    /// 1 for the first set of this process, one more for each accepted set.
    pub generation: u64,
    /// When it began to serve.
    pub load_time: SystemTime,
}

/// Where requests find the set that serves; `None` before the first one.
pub type Current = Arc<ArcSwapOption<Active>>;

/// What an attempt to load came to.
#[derive(Debug)]
pub enum Attempt {
    /// The files are a valid set.
    Valid(Accepted),
    /// The files are not.
    Invalid(Findings),
    /// The named directory is not there, or cannot be read, for this reason.
    Missing(String),
}

/// What became of an attempt.
#[derive(Debug)]
pub enum Verdict {
    /// A new set serves.
    Accepted {
        /// The set that serves now.
        active: Arc<Active>,
        /// The digest that served before, if one did.
        previous_digest: Option<String>,
        /// What changed; empty for the first set.
        changes: Vec<Change>,
        /// What its authors should look at.
        warnings: Findings,
    },
    /// The files mean what serves already: nothing changed, older findings are cleared.
    Unchanged {
        /// What its authors should look at.
        warnings: Findings,
    },
    /// The same bytes as in the last attempt: nothing to say.
    Same,
    /// The set is valid and takes something away; look again at this time.
    Waiting {
        /// When to look again.
        until: SystemTime,
    },
    /// What served before goes on serving.
    Rejected {
        /// Every finding.
        findings: Findings,
    },
    /// The source is gone; what served before goes on serving.
    Missing {
        /// Why it cannot be read.
        reason: String,
    },
}

/// Decides what an attempt means. One per process, in one hand.
#[derive(Debug)]
pub struct Keeper {
    current: Current,
    removal_quiet: Duration,
    generation: u64,
    last: Option<Seen>,
    pending: Option<Pending>,
}

/// What the last attempt that was judged looked like.
#[derive(Debug, PartialEq)]
enum Seen {
    Bytes([u8; 32]),
    Missing(String),
}

/// A valid set that takes something away and waits for quiet.
#[derive(Clone, Debug)]
struct Pending {
    /// `None` while the files are something that cannot serve.
    bytes: Option<[u8; 32]>,
    since: SystemTime,
    quiet_since: SystemTime,
}

impl Keeper {
    /// A keeper without a set. `removal_quiet` is how long a set that takes something away must stand
    /// still before it serves.
    #[must_use]
    pub fn new(current: Current, removal_quiet: Duration) -> Self {
        Self { current, removal_quiet, generation: 0, last: None, pending: None }
    }

    /// Tells whether bytes were judged already, so that there is no need to judge them again.
    #[must_use]
    pub fn has_judged(&self, bytes: &[u8; 32]) -> bool {
        self.pending.is_none() && self.last == Some(Seen::Bytes(*bytes))
    }

    /// Puts a set in place that does not come from the policy source (a last good one, kept on disk).
    ///
    /// The next attempt is judged whatever its bytes are.
    pub fn restore(&mut self, set: PolicySet, now: SystemTime) -> Arc<Active> {
        self.last = None;
        self.swap(set, now)
    }

    /// Judges an attempt whose bytes have this digest (ignored for a missing source).
    ///
    /// A set with the digest of the one that serves changes nothing. A set that takes away an audience
    /// or a protection has to stand still first, because a half-written file is often a valid shorter
    /// policy; at most [`MAX_REMOVAL_WAIT`]. The first set of a process serves at once.
    pub fn judge(&mut self, attempt: Attempt, bytes: [u8; 32], now: SystemTime) -> Verdict {
        let accepted = match attempt {
            Attempt::Valid(accepted) => accepted,
            Attempt::Invalid(findings) => {
                self.interrupt(now);
                if self.last == Some(Seen::Bytes(bytes)) {
                    return Verdict::Same;
                }
                self.last = Some(Seen::Bytes(bytes));
                return Verdict::Rejected { findings };
            }
            Attempt::Missing(reason) => {
                let seen = Seen::Missing(reason.clone());
                self.interrupt(now);
                if self.last.as_ref() == Some(&seen) {
                    return Verdict::Same;
                }
                self.last = Some(seen);
                return Verdict::Missing { reason };
            }
        };
        if self.has_judged(&bytes) {
            return Verdict::Same;
        }
        let serving = self.current.load_full();
        let Some(serving) = serving else {
            self.last = Some(Seen::Bytes(bytes));
            let active = self.swap(accepted.set, now);
            return Verdict::Accepted {
                active,
                previous_digest: None,
                changes: Vec::new(),
                warnings: accepted.warnings,
            };
        };
        if serving.set.digest() == accepted.set.digest() {
            self.last = Some(Seen::Bytes(bytes));
            self.pending = None;
            return Verdict::Unchanged { warnings: accepted.warnings };
        }
        let changes = changes(&serving.set, &accepted.set);
        if changes.iter().any(|change| change.removal)
            && let Some(until) = self.must_wait(bytes, now)
        {
            return Verdict::Waiting { until };
        }
        self.last = Some(Seen::Bytes(bytes));
        self.pending = None;
        let previous_digest = Some(serving.set.digest().to_string());
        let active = self.swap(accepted.set, now);
        Verdict::Accepted { active, previous_digest, changes, warnings: accepted.warnings }
    }

    /// Until when a removal has to wait; `None` if it has waited enough.
    fn must_wait(&mut self, bytes: [u8; 32], now: SystemTime) -> Option<SystemTime> {
        let waited = |since: SystemTime| now.duration_since(since).unwrap_or_default();
        let fresh = Pending { bytes: Some(bytes), since: now, quiet_since: now };
        let pending = self.pending.get_or_insert_with(|| fresh.clone());
        // A clock that was set back starts the wait again: it makes nothing serve too early, nor wait for the
        // time that the clock lost.
        pending.since = pending.since.min(now);
        pending.quiet_since = pending.quiet_since.min(now);
        if pending.bytes.is_none() && waited(pending.quiet_since) >= self.removal_quiet {
            // What could not serve stood still: this is another edit, with a longest wait of its own.
            *pending = fresh;
        } else if pending.bytes != Some(bytes) {
            pending.bytes = Some(bytes);
            pending.quiet_since = now;
        }
        if waited(pending.quiet_since) >= self.removal_quiet || waited(pending.since) >= MAX_REMOVAL_WAIT {
            return None;
        }
        Some((pending.quiet_since + self.removal_quiet).min(pending.since + MAX_REMOVAL_WAIT))
    }

    /// A pending removal that turned into something else starts its quiet time again, but not the
    /// longest wait.
    fn interrupt(&mut self, now: SystemTime) {
        if let Some(pending) = &mut self.pending
            && pending.bytes.take().is_some()
        {
            pending.quiet_since = now;
        }
    }

    fn swap(&mut self, set: PolicySet, now: SystemTime) -> Arc<Active> {
        self.generation += 1;
        let active = Arc::new(Active { set, generation: self.generation, load_time: now });
        self.current.store(Some(Arc::clone(&active)));
        active
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::policy::check::check;
    use crate::policy::document::Document;

    const QUIET: Duration = Duration::from_secs(2);

    fn valid(text: &str) -> Attempt {
        let file: Arc<str> = "policy.yaml".into();
        Attempt::Valid(check(&file, &[Document::read(&file, text)]).unwrap())
    }

    fn invalid() -> Attempt {
        let file: Arc<str> = "policy.yaml".into();
        Attempt::Invalid(check(&file, &[Document::read(&file, "audiences: [")]).unwrap_err())
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn keeper() -> (Keeper, Current) {
        let current = Current::default();
        (Keeper::new(Arc::clone(&current), QUIET), current)
    }

    const ONE: &str = "audiences: {one: {scopesSupported: [a]}}";
    const ONE_WIDER: &str = "audiences: {one: {scopesSupported: [a, b]}}";
    const TWO: &str = "audiences: {one: {scopesSupported: [a]}, two: {scopesSupported: [a]}}";

    #[test]
    fn an_invalid_set_leaves_the_last_good_one_serving() {
        let (mut keeper, current) = keeper();
        assert!(matches!(keeper.judge(invalid(), [9; 32], at(0)), Verdict::Rejected { .. }));
        assert!(current.load().is_none(), "there is nothing to serve yet");
        assert!(matches!(keeper.judge(valid(ONE), [1; 32], at(1)), Verdict::Accepted { .. }));
        assert!(matches!(keeper.judge(invalid(), [9; 32], at(2)), Verdict::Rejected { .. }));
        assert!(matches!(keeper.judge(invalid(), [9; 32], at(3)), Verdict::Same));
        assert!(matches!(
            keeper.judge(Attempt::Missing("gone".into()), [0; 32], at(4)),
            Verdict::Missing { .. }
        ));
        assert!(matches!(keeper.judge(Attempt::Missing("gone".into()), [0; 32], at(5)), Verdict::Same));
        assert_eq!(current.load().as_ref().unwrap().generation, 1);
        assert!(matches!(keeper.judge(valid(ONE), [1; 32], at(6)), Verdict::Unchanged { .. }));
        assert!(matches!(keeper.judge(valid(ONE_WIDER), [2; 32], at(7)), Verdict::Accepted { .. }));
        assert_eq!(current.load().as_ref().unwrap().generation, 2);
    }

    #[test]
    fn a_removal_waits_for_quiet_and_an_addition_does_not() {
        let (mut keeper, current) = keeper();
        keeper.judge(valid(ONE), [1; 32], at(0));
        assert!(matches!(keeper.judge(valid(TWO), [2; 32], at(1)), Verdict::Accepted { .. }));
        let verdict = keeper.judge(valid(ONE), [1; 32], at(10));
        assert!(matches!(verdict, Verdict::Waiting { until } if until == at(12)), "{verdict:?}");
        assert_eq!(current.load().as_ref().unwrap().generation, 2);
        // Another shorter state: the quiet time starts again.
        let verdict = keeper.judge(valid("audiences: {two: {scopesSupported: [a]}}"), [3; 32], at(11));
        assert!(matches!(verdict, Verdict::Waiting { until } if until == at(13)), "{verdict:?}");
        assert!(matches!(keeper.judge(valid(ONE), [1; 32], at(12)), Verdict::Waiting { .. }));
        assert!(matches!(keeper.judge(valid(ONE), [1; 32], at(14)), Verdict::Accepted { .. }));
        assert_eq!(current.load().as_ref().unwrap().generation, 3);
    }

    #[test]
    fn a_half_written_file_that_is_completed_never_serves() {
        let (mut keeper, current) = keeper();
        keeper.judge(valid(TWO), [2; 32], at(0));
        assert!(matches!(keeper.judge(valid(ONE), [1; 32], at(1)), Verdict::Waiting { .. }));
        assert!(matches!(keeper.judge(valid(TWO), [2; 32], at(2)), Verdict::Unchanged { .. }));
        assert_eq!(current.load().as_ref().unwrap().generation, 1);
        assert!(matches!(keeper.judge(valid(TWO), [2; 32], at(3)), Verdict::Same));
    }

    #[test]
    fn a_removal_waits_no_longer_than_the_most() {
        let (mut keeper, _) = keeper();
        keeper.judge(valid(TWO), [0; 32], at(0));
        for second in 1..31u8 {
            let text = if second % 2 == 0 { ONE } else { "audiences: {two: {scopesSupported: [a]}}" };
            let verdict = keeper.judge(valid(text), [second; 32], at(second.into()));
            assert!(
                matches!(verdict, Verdict::Waiting { until } if until <= at(31)),
                "{second}: {verdict:?}"
            );
        }
        assert!(matches!(keeper.judge(valid(ONE), [31; 32], at(31)), Verdict::Accepted { .. }));
    }

    #[test]
    fn a_removal_after_a_long_rejected_state_waits_for_quiet_like_any_other() {
        let (mut keeper, current) = keeper();
        keeper.judge(valid(TWO), [2; 32], at(0));
        assert!(matches!(keeper.judge(valid(ONE), [1; 32], at(1)), Verdict::Waiting { .. }));
        assert!(matches!(keeper.judge(invalid(), [9; 32], at(2)), Verdict::Rejected { .. }));
        // The broken file stood for an hour; the next removal is another edit.
        let verdict = keeper.judge(valid(ONE), [1; 32], at(3602));
        assert!(matches!(verdict, Verdict::Waiting { until } if until == at(3604)), "{verdict:?}");
        assert_eq!(current.load().as_ref().unwrap().generation, 1);
    }

    #[test]
    fn the_quiet_time_starts_again_after_bytes_that_were_rejected_before() {
        let (mut keeper, current) = keeper();
        keeper.judge(valid(TWO), [2; 32], at(0));
        assert!(matches!(keeper.judge(invalid(), [9; 32], at(1)), Verdict::Rejected { .. }));
        assert!(matches!(keeper.judge(valid(ONE), [1; 32], at(2)), Verdict::Waiting { .. }));
        assert!(matches!(keeper.judge(invalid(), [9; 32], at(3)), Verdict::Same));
        let verdict = keeper.judge(valid(ONE), [1; 32], at(4));
        assert!(matches!(verdict, Verdict::Waiting { until } if until == at(6)), "{verdict:?}");
        assert_eq!(current.load().as_ref().unwrap().generation, 1);
    }

    #[test]
    fn a_clock_that_is_set_back_starts_the_wait_again() {
        let (mut keeper, _) = keeper();
        keeper.judge(valid(TWO), [2; 32], at(1000));
        assert!(matches!(keeper.judge(valid(ONE), [1; 32], at(1001)), Verdict::Waiting { .. }));
        let verdict = keeper.judge(valid(ONE), [1; 32], at(1));
        assert!(matches!(verdict, Verdict::Waiting { until } if until == at(3)), "{verdict:?}");
        assert!(matches!(keeper.judge(valid(ONE), [1; 32], at(3)), Verdict::Accepted { .. }));
    }

    #[test]
    fn a_restored_set_serves_until_the_files_are_mended() {
        let (mut keeper, current) = keeper();
        keeper.judge(invalid(), [9; 32], at(0));
        let Attempt::Valid(accepted) = valid(ONE) else { unreachable!() };
        assert_eq!(keeper.restore(accepted.set, at(0)).generation, 1);
        assert!(matches!(keeper.judge(invalid(), [9; 32], at(1)), Verdict::Rejected { .. }));
        assert!(matches!(keeper.judge(valid(ONE_WIDER), [2; 32], at(2)), Verdict::Accepted { .. }));
        assert_eq!(current.load().as_ref().unwrap().generation, 2);
    }

    /// A small world of snapshots: which scopes one audience supports, or something broken.
    #[derive(Clone, Debug)]
    enum Files {
        Good(u8),
        Bad(u8),
        Gone,
    }

    fn files() -> impl Strategy<Value = Files> {
        prop_oneof![(0u8..4).prop_map(Files::Good), (0u8..2).prop_map(Files::Bad), Just(Files::Gone)]
    }

    proptest! {
        // Whatever the order of good and bad snapshots: the last good one serves, generations grow by
        // one for each accepted set, and an equal digest is never accepted twice in a row.
        #[test]
        fn any_order_of_snapshots_leaves_the_last_good_one_serving(steps in prop::collection::vec(files(), 1..40)) {
            let (mut keeper, current) = keeper();
            let (mut good, mut generation) = (None, 0);
            let mut digests = HashSet::new();
            for (second, step) in steps.into_iter().enumerate() {
                let now = at(second as u64);
                let verdict = match &step {
                    Files::Good(kind) => {
                        let scopes = ["a", "b", "c", "d"].split_at(usize::from(*kind) + 1).0.join(", ");
                        let text = format!("audiences: {{one: {{scopesSupported: [{scopes}]}}}}");
                        keeper.judge(valid(&text), [*kind; 32], now)
                    }
                    Files::Bad(kind) => keeper.judge(invalid(), [100 + kind; 32], now),
                    Files::Gone => keeper.judge(Attempt::Missing("gone".into()), [0; 32], now),
                };
                if let Files::Good(kind) = step {
                    if good == Some(kind) {
                        let unchanged = matches!(verdict, Verdict::Unchanged { .. } | Verdict::Same);
                        prop_assert!(unchanged, "{:?}", verdict);
                    } else {
                        prop_assert!(matches!(verdict, Verdict::Accepted { .. }), "{:?}", verdict);
                        generation += 1;
                        good = Some(kind);
                    }
                } else {
                    let kept = matches!(verdict, Verdict::Rejected { .. } | Verdict::Missing { .. } | Verdict::Same);
                    prop_assert!(kept, "{:?}", verdict);
                }
                let active = current.load_full();
                prop_assert_eq!(active.as_ref().map(|active| active.generation).unwrap_or(0), generation);
                if let (Some(active), Some(kind)) = (active, good) {
                    let supported = active.set.audiences()[0].scopes_supported.len();
                    prop_assert_eq!(supported, usize::from(kind) + 1);
                    digests.insert((kind, active.set.digest().to_string()));
                }
            }
            // Digest equal exactly if the meaning is equal.
            let kinds: HashSet<_> = digests.iter().map(|(kind, _)| kind).collect();
            let values: HashSet<_> = digests.iter().map(|(_, digest)| digest).collect();
            prop_assert_eq!(kinds.len(), digests.len());
            prop_assert_eq!(values.len(), digests.len());
        }
    }
}
