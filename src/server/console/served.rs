//! The policy that serves, with the files that it was made of.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;

use crate::explanation::places::Places;
use crate::policy::document::Document;
use crate::store::Active;
use crate::store::read::SourceFile;

/// A set that serves, and where everything in it is declared.
#[derive(Debug)]
pub(in crate::server) struct ServedPolicy {
    pub(in crate::server) active: Arc<Active>,
    texts: Vec<PolicyText>,
    places: OnceLock<Places>,
}

/// A file of the policy.
#[derive(Debug)]
pub(in crate::server) struct PolicyText {
    pub(in crate::server) path: Arc<str>,
    pub(in crate::server) text: Arc<str>,
    /// A link out of the policy directory leads to it.
    pub(in crate::server) is_outside: bool,
}

impl PolicyText {
    /// A file as it was read. Shares its text.
    pub(in crate::server) fn of(file: &SourceFile) -> Self {
        Self {
            path: Arc::clone(&file.path),
            text: file.text.clone().unwrap_or_default(),
            is_outside: file.is_outside,
        }
    }
}

/// Where the console finds it; `None` before the first set.
pub(in crate::server) type Served = Arc<ArcSwapOption<ServedPolicy>>;

impl ServedPolicy {
    pub(in crate::server) fn new(active: Arc<Active>, texts: Vec<PolicyText>) -> Self {
        Self { active, texts, places: OnceLock::new() }
    }

    /// Where everything is declared. Reads all files again the first time that somebody asks, which blocks for as long as a load
    /// does.
    pub(in crate::server) fn places(&self) -> &Places {
        self.places.get_or_init(|| {
            Places::new(
                self.texts.iter().map(|file| (Document::read(&file.path, &file.text), file.is_outside)),
            )
        })
    }
}
