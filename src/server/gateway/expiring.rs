//! What is remembered for a while, in memory and of a bounded number: requests that the upstream took and will be shown again.

use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hashbrown::{Equivalent, HashMap};
use tokio::time::Instant;

/// Values by their keys, each until it expires. The oldest makes room for a new one when there are too many.
#[derive(Debug)]
pub(super) struct ExpiringMap<K, V>(Mutex<ExpiringState<K, V>>);

#[derive(Debug)]
struct ExpiringState<K, V> {
    by_key: HashMap<K, (V, Instant)>,
    /// In the order in which they came.
    order: VecDeque<K>,
}

impl<K, V> Default for ExpiringMap<K, V> {
    fn default() -> Self {
        Self(Mutex::new(ExpiringState { by_key: HashMap::new(), order: VecDeque::new() }))
    }
}

impl<K: Clone + Eq + Hash, V: Clone> ExpiringMap<K, V> {
    /// Remembers a value until it expires, at most for an hour.
    pub(super) fn remember(&self, key: K, value: V, lifetime: Duration, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ExpiringState { by_key, order } = &mut *state;
        while let Some(oldest) = order.front() {
            let is_over = by_key.get(oldest).is_none_or(|(_, until)| *until <= now);
            if !is_over && order.len() < MOST {
                break;
            }
            if let Some(oldest) = order.pop_front() {
                by_key.remove(&oldest);
            }
        }
        if by_key.insert(key.clone(), (value, now + lifetime.min(LONGEST))).is_none() {
            order.push_back(key);
        }
    }

    /// The value of a key that has not expired.
    pub(super) fn get<Q: Equivalent<K> + Hash + ?Sized>(&self, key: &Q, now: Instant) -> Option<V> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.by_key.get(key).filter(|(_, until)| *until > now).map(|(value, _)| value.clone())
    }
}

const MOST: usize = 10_000;
/// Longer than any server keeps a login that nobody ends.
pub(super) const LONGEST: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_until_it_expires_and_their_number_is_bounded() {
        let (known, start) = (ExpiringMap::<Box<str>, &str>::default(), Instant::now());
        let minute = Duration::from_secs(60);
        known.remember("1".into(), "a", minute, start);
        assert_eq!(known.get("1", start), Some("a"));
        assert_eq!(known.get("1", start + minute), None);
        assert_eq!(known.get("2", start), None);
        known.remember("2".into(), "b", minute, start + minute);
        for number in 0..MOST {
            known.remember(format!("n{number}").into(), "c", minute, start + minute);
        }
        assert_eq!(known.get("2", start + minute), None, "the oldest made room");
        known.remember("long".into(), "d", 2 * LONGEST, start);
        assert_eq!(known.get("long", start + LONGEST), None);
        let state = known.0.lock().expect("no panic");
        assert_eq!((state.by_key.len(), state.order.len()), (MOST, MOST));
    }
}
