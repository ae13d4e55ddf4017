//! Parts of audiences that are alike are in memory once: nearly all audiences of a file have the same settings, and often the
//! same scopes.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::policy::AudienceSettings;
use crate::policy::format::read::LocatedText;
use crate::scope::ScopeList;

/// The newest different parts of the audiences of a file.
#[derive(Default)]
pub(super) struct SharedParts {
    settings: VecDeque<Arc<AudienceSettings>>,
    lists: VecDeque<ScopeList>,
    /// Room for what digests are taken of.
    pub(super) digested: Vec<u8>,
}

/// How many of each are compared: alike ones are mostly neighbours.
const COMPARED: usize = 8;

impl SharedParts {
    /// The same settings, shared with an audience before if it has them.
    pub(super) fn settings(&mut self, made: AudienceSettings) -> Arc<AudienceSettings> {
        if let Some(known) = self.settings.iter().find(|known| ***known == made) {
            return Arc::clone(known);
        }
        let made = Arc::new(made);
        keep(&mut self.settings, &made);
        made
    }

    /// The list of these scopes, each once: that of an audience before if it has the same.
    pub(super) fn list(&mut self, entries: &[&LocatedText]) -> ScopeList {
        let scopes = || entries.iter().map(|entry| &*entry.value);
        let is_same = |known: &&ScopeList| known.len() == entries.len() && known.iter().eq(scopes());
        if let Some(known) = self.lists.iter().find(is_same) {
            return known.clone();
        }
        let made = ScopeList::new(scopes());
        keep(&mut self.lists, &made);
        made
    }
}

fn keep<T: Clone>(newest: &mut VecDeque<T>, made: &T) {
    if newest.len() >= COMPARED {
        newest.pop_back();
    }
    newest.push_front(made.clone());
}
