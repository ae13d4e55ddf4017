//! The policy that serves, with the files that it was made of.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;
use tracing::warn;

use crate::explanation::places::Places;
use crate::policy::document::Document;
use crate::store::Active;
use crate::store::last_good::{self, KeptContents};
use crate::store::read::SourceFile;

/// A set that serves, and where everything in it is declared.
#[derive(Debug)]
pub(in crate::server) struct ServedPolicy {
    pub(in crate::server) active: Arc<Active>,
    files: Mutex<Vec<PolicyFile>>,
    /// Where the last good copy is.
    state_dir: PathBuf,
    places: OnceLock<ServedPlaces>,
}

/// Where everything is declared that is in files whose content of then is still somewhere.
#[derive(Debug)]
pub(in crate::server) struct ServedPlaces {
    pub(in crate::server) places: Places,
    /// How many files have changed since, and are in no copy.
    pub(in crate::server) changed_files: usize,
}

/// A file of the policy.
#[derive(Clone, Debug)]
pub(in crate::server) struct PolicyFile {
    path: Arc<str>,
    /// Nothing if it was forgotten, since it is on disk.
    text: Option<Arc<str>>,
    content_hash: [u8; 32],
    /// A link out of the policy directory leads to it.
    is_outside: bool,
}

impl PolicyFile {
    /// A file as it was read. Shares its text.
    pub(in crate::server) fn of(file: &SourceFile) -> Self {
        Self {
            path: Arc::clone(&file.path),
            text: file.text.clone(),
            content_hash: file.content_hash,
            is_outside: file.is_outside,
        }
    }

    /// A file of the last good copy. Whether it was outside of the policy directory is not known any more, so it is as if it
    /// were.
    pub(in crate::server) fn restored(path: Arc<str>, text: Arc<str>) -> Self {
        Self { path, content_hash: last_good::hash_of(&text), text: Some(text), is_outside: true }
    }

    /// What it held when it was read: from memory, from the last good copy or from where it was read. Blocks.
    fn content(&self, kept: &KeptContents) -> Option<Arc<str>> {
        if let Some(text) = &self.text {
            return Some(Arc::clone(text));
        }
        if let Some(text) = kept.get(&self.content_hash) {
            return Some(text.into());
        }
        let text = fs::read_to_string(&*self.path).ok()?;
        (last_good::hash_of(&text) == self.content_hash).then(|| text.into())
    }
}

/// Where the console finds it; `None` before the first set.
pub(in crate::server) type Served = Arc<ArcSwapOption<ServedPolicy>>;

impl ServedPolicy {
    pub(in crate::server) fn new(active: Arc<Active>, files: Vec<PolicyFile>, state_dir: &Path) -> Self {
        Self { active, files: Mutex::new(files), state_dir: state_dir.to_owned(), places: OnceLock::new() }
    }

    /// Forgets the texts: the last good copy has them.
    pub(in crate::server) fn forget_texts(&self) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.iter_mut().for_each(|file| file.text = None);
    }

    /// Where everything is declared. Reads all files again the first time that somebody asks, which blocks for as long as a load
    /// does.
    pub(in crate::server) fn places(&self) -> &ServedPlaces {
        self.places.get_or_init(|| {
            let files = self.files.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let kept = KeptContents::open(&self.state_dir);
            let mut changed_files = 0;
            let documents = files.into_iter().filter_map(|file| {
                let text = file.content(&kept);
                changed_files += usize::from(text.is_none());
                Some((Document::read(&file.path, &text?), file.is_outside))
            });
            let places = Places::new(documents);
            if changed_files > 0 {
                warn!(changed_files, "the console cannot say where all of the policy is declared");
            }
            ServedPlaces { places, changed_files }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::store::load::Loader;
    use crate::store::read::ReadSettings;

    #[test]
    fn places_are_those_of_the_content_that_serves_wherever_that_is() {
        let folder = tempfile::tempdir().unwrap();
        let (policies, state) = (folder.path().join("policies"), folder.path().join("state"));
        fs::create_dir(&policies).unwrap();
        fs::create_dir(&state).unwrap();
        let write = |name: &str, before: &str| {
            let text = format!("{before}audiences:\n  {name}:\n    scopesSupported: [openid]\n");
            fs::write(policies.join(format!("{name}.yaml")), text).unwrap();
        };
        write("a", "");
        write("b", "");
        let loaded = Loader::new(vec![policies.clone()], ReadSettings::default()).load().unwrap();
        let files: Vec<PolicyFile> = loaded.files.iter().map(PolicyFile::of).collect();
        let set = loaded.outcome.unwrap().set;
        last_good::keep(&state, set.digest().as_str(), &loaded.files).unwrap();
        let active = Arc::new(Active { set, generation: 1, load_time: SystemTime::UNIX_EPOCH });
        #[track_caller]
        fn check(served: &ServedPolicy, expected: (usize, [bool; 2])) {
            let ServedPlaces { places, changed_files } = served.places();
            let [a, b] = [0, 1].map(|at| places.place(&served.active.set.audiences()[at]));
            assert_eq!((*changed_files, [a.is_some(), b.is_some()]), expected);
        }
        let served = || ServedPolicy::new(Arc::clone(&active), files.clone(), &state);
        let forgotten = || {
            let served = served();
            served.forget_texts();
            served
        };
        check(&forgotten(), (0, [true, true]));
        // Another content under the same path is not that of this set.
        write("b", "# changed\n");
        check(&forgotten(), (0, [true, true]));
        fs::remove_dir_all(state.join(last_good::CONTENTS_NAME)).unwrap();
        check(&forgotten(), (1, [true, false]));
        check(&served(), (0, [true, true]));
    }
}
