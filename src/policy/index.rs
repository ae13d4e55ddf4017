//! The audiences of a set in their order, and which one each name means.
//!
//! Knows nothing of files: which audiences are in a set, and that no name means two of them, is said by the caller.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::AudiencePolicy;
use super::cost::AudienceCost;
use crate::audience::{self, AudienceError};

/// Audiences, sorted by their normal form, each once. Clones share what is in it.
#[derive(Clone, Debug)]
pub struct AudienceIndex {
    audiences: Arc<[Arc<AudiencePolicy>]>,
    names: Arc<Names>,
    cost: AudienceCost,
}

impl AudienceIndex {
    /// The index of some audiences; of two equal ones the first stays, and a name means the first audience that has it.
    pub(crate) fn of(mut audiences: Vec<Arc<AudiencePolicy>>) -> Self {
        audiences.sort_by(|one, other| one.normal().cmp(other.normal()));
        audiences.dedup_by(|one, other| one.normal() == other.normal());
        let mut names = Names::with_capacity(audiences.len());
        for at in 0..audiences.len() {
            // The first one stays.
            _ = names.add(&audiences, at);
        }
        Self::with(audiences, names)
    }

    /// The index of some audiences; `None` if a name means two of them, or may: where an audience ignores queries.
    pub(crate) fn unique(mut audiences: Vec<Arc<AudiencePolicy>>) -> Option<Self> {
        audiences.sort_by(|one, other| one.normal().cmp(other.normal()));
        let mut names = Names::with_capacity(audiences.len());
        let is_unique = (0..audiences.len()).all(|at| names.add(&audiences, at));
        (is_unique && !names.ignores_queries).then(|| Self::with(audiences, names))
    }

    fn with(audiences: Vec<Arc<AudiencePolicy>>, names: Names) -> Self {
        let cost = most(&audiences);
        Self { audiences: audiences.into(), names: Arc::new(names), cost }
    }

    /// The same with another cost.
    pub(super) fn with_cost(self, cost: AudienceCost) -> Self {
        Self { cost, ..self }
    }

    /// The same index without some of its audiences and with others: equal to [`AudienceIndex::unique`] of them all, in
    /// much less time. `None` where that is `None`, and if one that is to be removed is not there.
    pub(crate) fn patched(
        &self,
        removed: &[&Arc<AudiencePolicy>],
        mut added: Vec<Arc<AudiencePolicy>>,
    ) -> Option<Self> {
        let place = |audience: &AudiencePolicy| {
            self.audiences.binary_search_by(|known| known.normal().cmp(audience.normal()))
        };
        let mut gone = removed.iter().map(|audience| place(audience).ok()).collect::<Option<Vec<_>>>()?;
        gone.sort_unstable();
        added.sort_by(|one, other| one.normal().cmp(other.normal()));
        let added_cost = most(&added);
        let count = (self.audiences.len() + added.len()).checked_sub(gone.len())?;
        let mut audiences: Vec<Arc<AudiencePolicy>> = Vec::with_capacity(count);
        // Where each audience of before is now.
        let mut moved: Vec<u32> = Vec::with_capacity(self.audiences.len());
        let mut new = Vec::with_capacity(added.len());
        let mut gone = gone.into_iter().peekable();
        let mut added =
            added.into_iter().map(|audience| (place(&audience).unwrap_or_else(|at| at), audience)).peekable();
        for (at, known) in self.audiences.iter().enumerate() {
            while let Some((_, audience)) = added.next_if(|(before, _)| *before <= at) {
                new.push(audiences.len());
                audiences.push(audience);
            }
            if gone.next_if_eq(&at).is_some() {
                moved.push(GONE);
            } else {
                moved.push(number(audiences.len()));
                audiences.push(Arc::clone(known));
            }
        }
        for (_, audience) in added {
            new.push(audiences.len());
            audiences.push(audience);
        }
        let mut names = self.names.moved(&moved);
        let is_unique = new.into_iter().all(|at| names.add(&audiences, at));
        if !is_unique || names.ignores_queries {
            return None;
        }
        let cost = match self.cost.without(most(removed.iter().copied()), added_cost) {
            Some(cost) => cost,
            None => most(&audiences),
        };
        Some(Self { audiences: audiences.into(), names: Arc::new(names), cost })
    }

    /// Every audience, sorted by its normal form.
    pub(crate) const fn audiences(&self) -> &Arc<[Arc<AudiencePolicy>]> {
        &self.audiences
    }

    /// What deciding costs at most at each audience.
    pub(super) const fn cost(&self) -> AudienceCost {
        self.cost
    }

    /// The audience that exactly this text names.
    fn get(&self, name: &str) -> Option<&Arc<AudiencePolicy>> {
        self.audiences.get(self.names.get(&self.audiences, name)? as usize)
    }

    /// Looks an audience up as a request names it.
    ///
    /// # Errors
    /// [`AudienceError`] if the text cannot name an audience.
    pub(crate) fn find(&self, name: &str) -> Result<Option<&Arc<AudiencePolicy>>, AudienceError> {
        // Nearly every request names an audience as the policy does.
        if let Some(found) = self.get(name) {
            return Ok(Some(found));
        }
        let normal = audience::normalise(name)?;
        if let Cow::Owned(normal) = &normal
            && let Some(found) = self.get(normal)
        {
            return Ok(Some(found));
        }
        let bare = audience::without_query(&normal);
        if !self.names.ignores_queries || bare.len() == normal.len() {
            return Ok(None);
        }
        Ok(self.get(bare).filter(|policy| policy.ignore_query))
    }
}

/// What no audience of these exceeds.
fn most<'p>(audiences: impl IntoIterator<Item = &'p Arc<AudiencePolicy>>) -> AudienceCost {
    let costs = audiences.into_iter().map(|audience| AudienceCost::of(audience));
    costs.fold(AudienceCost::default(), AudienceCost::max)
}

/// A place that is no longer there.
const GONE: u32 = u32::MAX;

fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(GONE)
}

/// What audiences are called: places in their order.
#[derive(Debug)]
struct Names {
    /// By the normal form of each audience, as far as it is compared. The text is that of the audience.
    own: HashTable<u32>,
    /// By each other name: spellings that are not normal, and aliases.
    others: HashTable<(Box<str>, u32)>,
    hasher: hashbrown::DefaultHashBuilder,
    /// Whether the query of some audience is not compared.
    ignores_queries: bool,
}

impl Names {
    fn with_capacity(audiences: usize) -> Self {
        Self {
            own: HashTable::with_capacity(audiences),
            others: HashTable::new(),
            hasher: hashbrown::DefaultHashBuilder::default(),
            ignores_queries: false,
        }
    }

    /// Adds all names of the audience at a place; one that means another audience already is left to that. Returns `true` if
    /// there was none.
    fn add(&mut self, audiences: &[Arc<AudiencePolicy>], at: usize) -> bool {
        let Some(audience) = audiences.get(at) else { return true };
        let at = number(at);
        self.ignores_queries |= audience.ignore_query;
        let mut is_new = self.add_own(audiences, at, audience.compared());
        for name in audience.other_names() {
            is_new &= self.add_other(audiences, at, name);
        }
        is_new
    }

    fn add_own(&mut self, audiences: &[Arc<AudiencePolicy>], at: u32, name: &str) -> bool {
        let Self { own, others, hasher, .. } = self;
        let key = hasher.hash_one(name);
        if let Some((_, owner)) = others.find(key, |(known, _)| **known == *name) {
            return *owner == at;
        }
        let text = |at: &u32| audiences.get(*at as usize).map_or("", |audience| audience.compared());
        match own.entry(key, |at| text(at) == name, |at| hasher.hash_one(text(at))) {
            Entry::Occupied(known) => *known.get() == at,
            Entry::Vacant(vacant) => {
                vacant.insert(at);
                true
            }
        }
    }

    fn add_other(&mut self, audiences: &[Arc<AudiencePolicy>], at: u32, name: &str) -> bool {
        if let Some(owner) = self.get(audiences, name) {
            return owner == at;
        }
        let Self { others, hasher, .. } = self;
        let key = hasher.hash_one(name);
        others.insert_unique(key, (name.into(), at), |(name, _)| hasher.hash_one(&**name));
        true
    }

    fn get(&self, audiences: &[Arc<AudiencePolicy>], name: &str) -> Option<u32> {
        let key = self.hasher.hash_one(name);
        let is_named =
            |at: &u32| audiences.get(*at as usize).is_some_and(|audience| audience.compared() == name);
        if let Some(at) = self.own.find(key, is_named) {
            return Some(*at);
        }
        if self.others.is_empty() {
            return None;
        }
        self.others.find(key, |(known, _)| **known == *name).map(|(_, at)| *at)
    }

    /// The same names for audiences that are at other places, without those that are gone.
    fn moved(&self, places: &[u32]) -> Self {
        let place = |at: u32| places.get(at as usize).copied().unwrap_or(GONE);
        let (mut own, mut others) = (self.own.clone(), self.others.clone());
        own.retain(|at| {
            *at = place(*at);
            *at != GONE
        });
        others.retain(|(_, at)| {
            *at = place(*at);
            *at != GONE
        });
        Self { own, others, hasher: self.hasher.clone(), ignores_queries: self.ignores_queries }
    }
}
