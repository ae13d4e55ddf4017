//! Counters for names that come and go with a file: the audiences of a policy, the callers of an access file.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// Counters of the kind `C` by name. There are those of the newest names and no others, so nothing grows. Clones share them.
#[derive(Debug)]
pub struct NamedCounters<C>(Arc<ArcSwap<ByName<C>>>);

/// Counters by name, sorted.
pub type ByName<C> = BTreeMap<Box<str>, Arc<C>>;

impl<C> Clone for NamedCounters<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C> Default for NamedCounters<C> {
    fn default() -> Self {
        Self(Arc::new(ArcSwap::from_pointee(BTreeMap::new())))
    }
}

impl<C: Default> NamedCounters<C> {
    /// There are counters of these names from now on, which are returned: those of a name that stays go on, new ones begin at 0, the
    /// others are gone.
    pub fn follow<'n>(&self, names: impl Iterator<Item = &'n str>) -> Arc<ByName<C>> {
        let before = self.0.load();
        let counters = names.map(|name| (name.into(), before.get(name).cloned().unwrap_or_default()));
        let counters = Arc::new(counters.collect());
        self.0.store(Arc::clone(&counters));
        counters
    }
}

impl<C> NamedCounters<C> {
    /// The counters now.
    #[must_use]
    pub fn load(&self) -> Arc<ByName<C>> {
        self.0.load_full()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn counters_of_names_that_stay_go_on() {
        let counters = NamedCounters::<Counter>::default();
        let shown = || {
            let counters = counters.load();
            counters.iter().map(|(name, counter)| format!("{name} {}", counter.get())).collect::<Vec<_>>()
        };
        let count = |name: &str| counters.load().get(name).map(|counter| counter.inc());
        counters.follow(["b", "a"].into_iter());
        count("a");
        count("b");
        assert_eq!(count("c"), None, "nobody follows it");
        assert_eq!(shown(), ["a 1", "b 1"]);
        counters.follow(["c", "b"].into_iter());
        count("b");
        assert_eq!(shown(), ["b 2", "c 0"]);
        counters.follow(["a", "b", "c"].into_iter());
        assert_eq!(shown(), ["a 0", "b 2", "c 0"], "what was gone begins again");
        for round in 0..100 {
            counters.follow([format!("{round}")].iter().map(String::as_str));
        }
        assert_eq!(shown(), ["99 0"]);
    }
}
