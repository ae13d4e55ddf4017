//! One way to bound what piles up: a budget of places or bytes, taken at once or refused at once, and counted.
//!
//! Calls, streams, connections, bytes in flight and the audit's queue each have one. Nothing ever waits for a budget. Knows
//! nothing of what is counted, and no clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A number of places, or of bytes, that is never exceeded. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget {
    state: Arc<BudgetState>,
}

#[derive(Debug)]
struct BudgetState {
    limit: usize,
    used: AtomicUsize,
    refused: AtomicU64,
}

impl Budget {
    /// A budget of `limit` units, none of them used.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { state: Arc::new(BudgetState { limit, used: AtomicUsize::new(0), refused: AtomicU64::new(0) }) }
    }

    /// Takes `amount` units until the permit is dropped.
    ///
    /// # Errors
    ///
    /// [`Exhausted`] if fewer are left; nothing is taken then, and the refusal is counted.
    pub fn take(&self, amount: usize) -> Result<Permit, Exhausted> {
        self.add(amount)?;
        Ok(Permit { budget: self.clone(), amount })
    }

    /// Takes `amount` units until [`Budget::give_back`], for whoever keeps the count.
    ///
    /// # Errors
    ///
    /// As for [`Budget::take`].
    pub fn add(&self, amount: usize) -> Result<(), Exhausted> {
        let BudgetState { limit, used, refused } = &*self.state;
        let more = |taken: usize| taken.checked_add(amount).filter(|sum| sum <= limit);
        match used.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more) {
            Ok(_) => Ok(()),
            Err(used) => {
                refused.fetch_add(1, Ordering::Relaxed);
                Err(Exhausted { limit: *limit, used, asked: amount })
            }
        }
    }

    /// Gives back units that were added.
    pub fn give_back(&self, amount: usize) {
        if amount > 0 {
            self.state.used.fetch_sub(amount, Ordering::AcqRel);
        }
    }

    /// The most units that can be taken together.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.state.limit
    }

    /// The units that are taken now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.state.used.load(Ordering::Relaxed)
    }

    /// How often [`Budget::take`] refused, since the budget was made.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.state.refused.load(Ordering::Relaxed)
    }
}

/// Units of a [`Budget`], given back when this is dropped.
#[derive(Debug)]
pub struct Permit {
    budget: Budget,
    amount: usize,
}

impl Permit {
    /// How many units this holds.
    #[must_use]
    pub const fn amount(&self) -> usize {
        self.amount
    }

    /// Takes `more` units on top of those held.
    ///
    /// # Errors
    ///
    /// [`Exhausted`] if fewer are left; what is held stays held.
    pub fn grow(&mut self, more: usize) -> Result<(), Exhausted> {
        self.budget.add(more)?;
        self.amount += more;
        Ok(())
    }

    /// Gives back all but `amount` units. Does nothing if no more are held.
    pub fn shrink_to(&mut self, amount: usize) {
        let spare = self.amount.saturating_sub(amount);
        self.amount -= spare;
        self.budget.give_back(spare);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.give_back(self.amount);
    }
}

/// A budget has not enough units left.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{asked} more would exceed the limit of {limit}, {used} are in use")]
pub struct Exhausted {
    /// The limit of the budget.
    pub limit: usize,
    /// The units that were taken.
    pub used: usize,
    /// The units that were asked for.
    pub asked: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_can_be_taken_again() {
        let budget = Budget::new(3);
        let two = budget.take(2).expect("room");
        assert_eq!(budget.take(2).expect_err("full"), Exhausted { limit: 3, used: 2, asked: 2 });
        assert_eq!((budget.used(), budget.refused()), (2, 1));
        drop(two);
        assert_eq!(budget.used(), 0);
        assert!(budget.take(3).is_ok());
        assert!(budget.take(usize::MAX).is_err(), "a sum that overflows is no room");
    }

    #[test]
    fn a_permit_grows_and_shrinks_within_the_budget() {
        let budget = Budget::new(10);
        let mut permit = budget.take(4).expect("room");
        permit.grow(6).expect("room");
        assert_eq!((permit.amount(), budget.used()), (10, 10));
        assert!(permit.grow(1).is_err());
        assert_eq!(permit.amount(), 10, "what is held stays held");
        permit.shrink_to(3);
        permit.shrink_to(7);
        assert_eq!((permit.amount(), budget.used()), (3, 3));
        drop(permit);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn many_threads_never_exceed_the_limit() {
        let budget = Budget::new(5);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        if let Ok(permit) = budget.take(2) {
                            assert!(budget.used() <= 5);
                            drop(permit);
                        }
                    }
                });
            }
        });
        assert_eq!(budget.used(), 0);
    }
}
