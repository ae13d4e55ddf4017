//! Parts of audiences that are alike are in memory once: nearly all audiences of a file have the same settings, and often the
//! same scopes.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::policy::AudienceSettings;
use crate::scope::ScopeList;

/// The newest different parts of the audiences of a file.
#[derive(Default)]
pub(super) struct SharedParts {
    settings: VecDeque<Arc<AudienceSettings>>,
    lists: VecDeque<ScopeList>,
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

    /// The same list, shared with an audience before if it has it.
    pub(super) fn list(&mut self, made: ScopeList) -> ScopeList {
        if let Some(known) = self.lists.iter().find(|known| **known == made) {
            return known.clone();
        }
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
