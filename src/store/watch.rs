//! File events as hints that something may have changed. What changed, only reading tells.
//!
//! Events get lost on network filesystems, when the system's limits are reached, and for names that
//! come and go between two looks; so there is a rescan too, and every hint may be a false one. Knows
//! nothing about policies but the names of their files.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, CreateKind, RemoveKind};
use notify::{ErrorKind, Event, EventHandler, EventKind, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

mod mount;

pub use mount::static_source;

use super::read::{DirectoryIdentity, is_hidden, is_policy_name, looks_like_policy};
use super::watch_targets::{Interest, WatchTargets};

/// Longest time that a stream of events may put off a look.
pub const MAX_DEBOUNCE: Duration = Duration::from_secs(1);
/// Most folders that are watched; beyond, the rescan alone finds changes.
pub const MAX_WATCHES: usize = 10_000;

/// Why to look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hint {
    /// The system reported events, or somebody asked.
    Event,
    /// Nothing was reported for the rescan interval.
    Rescan,
    /// A time came for which a look was planned.
    Planned,
}

/// Says when to look; cheap to clone.
#[derive(Clone, Debug)]
pub struct Hints {
    notify: Arc<Notify>,
    /// When the newest event came.
    last_event: Arc<Mutex<Option<std::time::Instant>>>,
    debounce: Duration,
    rescan_interval: Duration,
}

impl Hints {
    /// Hints that come when nothing was reported for `debounce` after a report, or every
    /// `rescan_interval` regardless.
    #[must_use]
    pub fn new(debounce: Duration, rescan_interval: Duration) -> Self {
        Self { notify: Arc::new(Notify::new()), last_event: Arc::default(), debounce, rescan_interval }
    }

    /// Asks for a look, as an event does.
    pub fn hint(&self) {
        self.notify.notify_one();
    }

    /// Notes that something was written, and asks for a look.
    fn written(&self) {
        *self.last_event.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::time::Instant::now());
        self.hint();
    }

    /// When the newest event came.
    #[must_use]
    pub fn last_event(&self) -> Option<std::time::Instant> {
        *self.last_event.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next reason to look; `planned` is a time at which there is one anyway.
    pub async fn next(&self, planned: Option<std::time::Instant>) -> Hint {
        let rescan = Instant::now() + self.rescan_interval;
        let planned = planned.map(Instant::from_std);
        let first = planned.map_or(rescan, |planned| planned.min(rescan));
        if timeout_at(first, self.notify.notified()).await.is_err() {
            return if planned.is_some_and(|planned| planned <= rescan) {
                Hint::Planned
            } else {
                Hint::Rescan
            };
        }
        // Events come in bursts: look when they pause, but not later than the most, nor than the rescan.
        let latest = (Instant::now() + MAX_DEBOUNCE.max(self.debounce)).min(rescan);
        loop {
            let quiet = (Instant::now() + self.debounce).min(latest);
            tokio::select! {
                () = self.notify.notified() => if Instant::now() >= latest { return Hint::Event },
                () = sleep_until(quiet) => return Hint::Event,
            }
        }
    }
}

/// Whether events come.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WatchState {
    /// They do.
    Events,
    /// They do not, or not for all folders, for this reason; only the rescan finds all changes.
    PollingOnly(String),
}

/// Watches the folders that a policy is made of.
pub struct FolderWatch {
    make: Make,
    watcher: Option<Box<dyn Watcher + Send>>,
    shared: Arc<WatchShared>,
    /// What is watched, by path free of links: the identity that the folder had then.
    armed: HashMap<PathBuf, DirectoryIdentity>,
    state: WatchState,
}

/// Makes a watcher that reports to this listener.
type Make = Box<dyn FnMut(Listener) -> notify::Result<Box<dyn Watcher + Send>> + Send>;

impl fmt::Debug for FolderWatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("FolderWatch")
            .field("armed", &self.armed)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl FolderWatch {
    /// Prepares to watch; nothing is watched before [`FolderWatch::arm`].
    #[must_use]
    pub fn new(hints: Hints) -> Self {
        Self::with_watcher(
            hints,
            Box::new(|listener| {
                let watcher = notify::recommended_watcher(listener)?;
                Ok(Box::new(watcher) as Box<dyn Watcher + Send>)
            }),
        )
    }

    fn with_watcher(hints: Hints, make: Make) -> Self {
        let shared = WatchShared {
            hints,
            interests: Mutex::default(),
            is_looking: AtomicBool::new(false),
            is_broken: AtomicBool::new(false),
        };
        Self {
            make,
            watcher: None,
            shared: Arc::new(shared),
            armed: HashMap::new(),
            state: WatchState::Events,
        }
    }

    /// Whether events come, as of the last [`FolderWatch::arm`].
    #[must_use]
    pub const fn state(&self) -> &WatchState {
        &self.state
    }

    /// Prepares for a walk of the files: watches again what the one before said. Blocks.
    pub fn before_walk(&mut self, targets: &WatchTargets) {
        self.arm(targets);
        self.shared.is_looking.store(true, Ordering::Relaxed);
    }

    /// Watches what the newest walk of the files said. Blocks.
    ///
    /// Returns `true` if a directory is watched that was not before, or one is gone: something may have happened between
    /// the walk and now, so the files have to be looked at again. Nothing is missed if this is called after each walk until it returns
    /// `false`, and [`FolderWatch::before_walk`] before the first.
    pub fn arm(&mut self, targets: &WatchTargets) -> bool {
        let is_new = self.watch_targets(targets);
        self.shared.is_looking.store(false, Ordering::Relaxed);
        is_new
    }

    fn watch_targets(&mut self, targets: &WatchTargets) -> bool {
        if self.shared.is_broken.swap(false, Ordering::Relaxed) {
            self.watcher = None;
        }
        if self.watcher.is_none() {
            self.armed.clear();
            let listener = Listener { shared: Arc::clone(&self.shared) };
            match (self.make)(listener) {
                Ok(watcher) => self.watcher = Some(watcher),
                Err(error) => {
                    self.state = WatchState::PollingOnly(plain(&error));
                    return false;
                }
            }
        }
        let Some(watcher) = &mut self.watcher else { return false };
        let mut pass = Pass {
            watcher: watcher.as_mut(),
            shared: &self.shared,
            by_identity: self.armed.iter().map(|(path, id)| (*id, path.clone())).collect(),
            armed: &mut self.armed,
            wanted: HashMap::new(),
            wanted_by_identity: HashMap::new(),
            failure: None,
            is_new: false,
        };
        targets.visit_watch_targets(|directory, interest| pass.directory(directory, interest));
        let is_new = pass.finish();
        self.state = pass.failure.take().map_or(WatchState::Events, WatchState::PollingOnly);
        is_new
    }
}

/// One round of watching what there is now.
struct Pass<'a> {
    watcher: &'a mut (dyn Watcher + Send),
    shared: &'a WatchShared,
    armed: &'a mut HashMap<PathBuf, DirectoryIdentity>,
    /// What was armed before this pass.
    by_identity: HashMap<DirectoryIdentity, PathBuf>,
    wanted: HashMap<PathBuf, Interest>,
    wanted_by_identity: HashMap<DirectoryIdentity, PathBuf>,
    failure: Option<String>,
    is_new: bool,
}

impl Pass<'_> {
    fn directory(&mut self, directory: &Path, interest: &Interest) {
        let Some(identity) = identity(directory) else {
            self.is_new = true;
            return;
        };
        // The system has one watch for each directory, however many paths (of bind mounts) lead there.
        let path = match self.wanted_by_identity.get(&identity) {
            Some(first) => first.clone(),
            None => directory.to_owned(),
        };
        let is_known = self.wanted.contains_key(&path);
        if !is_known && self.wanted.len() == MAX_WATCHES {
            self.failure.get_or_insert_with(|| format!("the policy has more than {MAX_WATCHES} directories"));
            return;
        }
        let wanted = self.wanted.entry(path.clone()).or_default();
        wanted.all |= interest.all;
        wanted.names.extend(interest.names.iter().cloned());
        self.shared.interests().insert(path.clone(), wanted.clone());
        if !is_known {
            self.wanted_by_identity.insert(identity, path.clone());
            self.watch(&path, identity);
        }
    }

    fn watch(&mut self, folder: &Path, identity: DirectoryIdentity) {
        // A folder that moved still has its watch, under the old name. It goes first, since to take it
        // away after the new one would take that.
        if let Some(old) = self.by_identity.get(&identity)
            && old != folder
        {
            let old = old.clone();
            self.unwatch(&old);
        }
        if self.armed.get(folder).is_some_and(|other| *other != identity) {
            self.unwatch(folder);
        }
        // Also where it is watched already, which costs next to nothing: an event about the folder itself
        // (it was moved away and back, or its inode was used again at once) makes the watcher drop it
        // without a word.
        match self.watcher.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => self.is_new |= self.armed.insert(folder.to_owned(), identity).is_none(),
            // It is gone again, which has an event in the folder above; or it is not ours to list, and
            // reading reports that where it matters.
            Err(error) if is_gone_or_closed(&error) => {
                self.armed.remove(folder);
            }
            Err(error) => {
                self.armed.remove(folder);
                self.failure.get_or_insert_with(|| plain(&error));
            }
        }
    }

    fn unwatch(&mut self, folder: &Path) {
        // A folder that was deleted has no watch any more; that it cannot be taken away is no news.
        let _ = self.watcher.unwatch(folder);
        self.armed.remove(folder);
    }

    /// Stops watching what is not wanted any more; returns `true` if a folder is watched that was not before.
    fn finish(&mut self) -> bool {
        let gone: Vec<PathBuf> =
            self.armed.keys().filter(|folder| !self.wanted.contains_key(*folder)).cloned().collect();
        for folder in gone {
            self.unwatch(&folder);
        }
        *self.shared.interests() = std::mem::take(&mut self.wanted);
        self.is_new
    }
}

/// The identity of what is a directory.
fn identity(directory: &Path) -> Option<DirectoryIdentity> {
    let metadata = fs::metadata(directory).ok()?;
    metadata.is_dir().then(|| (metadata.dev(), metadata.ino()))
}

/// What the watcher's thread and the rounds share.
struct WatchShared {
    hints: Hints,
    interests: Mutex<HashMap<PathBuf, Interest>>,
    /// A walk is under way: it may have seen what the interests do not say yet.
    is_looking: AtomicBool,
    /// The watcher reported an error: it is replaced in the next round.
    is_broken: AtomicBool,
}

impl WatchShared {
    /// Held for a moment only, and never while the watcher is called: its thread waits here.
    fn interests(&self) -> MutexGuard<'_, HashMap<PathBuf, Interest>> {
        self.interests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns `true` if an event can have to do with the policy. The folders above it are shared with
    /// others, whose doings must not put off a look.
    fn concerns(&self, event: &Event) -> bool {
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
            // Reading is reported too, and would make every look the reason for the next.
            EventKind::Access(_) => return false,
            _ => {}
        }
        // Events were lost.
        if event.need_rescan() || event.paths.is_empty() {
            return true;
        }
        let is_directory = matches!(
            event.kind,
            EventKind::Create(CreateKind::Folder) | EventKind::Remove(RemoveKind::Folder)
        );
        event.paths.iter().any(|path| match self.concern(path) {
            Concern::Yes => true,
            Concern::No => false,
            // An editor's or a locker's file is none of our business; a directory or a link may lead to policies.
            Concern::IfDirectory => {
                is_directory
                    || match fs::symlink_metadata(path) {
                        Ok(entry) => entry.is_dir() || entry.is_symlink(),
                        // What is gone may have been either, and the walk that is under way may have seen it.
                        Err(_) => self.is_looking.load(Ordering::Relaxed),
                    }
            }
        })
    }

    fn concern(&self, path: &Path) -> Concern {
        let interests = self.interests();
        if interests.contains_key(path) {
            return Concern::Yes;
        }
        let above = path.parent().and_then(|directory| interests.get(directory));
        match above.zip(path.file_name()) {
            Some((interest, name)) if interest.names.contains(name) => Concern::Yes,
            Some((interest, name)) if interest.all && (is_policy_name(name) || looks_like_policy(name)) => {
                Concern::Yes
            }
            Some((interest, name)) if interest.all && !is_hidden(name) => Concern::IfDirectory,
            _ => Concern::No,
        }
    }
}

/// Whether an event about a path can have to do with the policy.
enum Concern {
    Yes,
    No,
    IfDirectory,
}

/// Turns events into hints, on the watcher's thread.
struct Listener {
    shared: Arc<WatchShared>,
}

impl EventHandler for Listener {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        let is_news = match event {
            Ok(event) => self.shared.concerns(&event),
            Err(_) => {
                self.shared.is_broken.store(true, Ordering::Relaxed);
                true
            }
        };
        if is_news {
            self.shared.hints.written();
        }
    }
}

fn is_gone_or_closed(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::PathNotFound | ErrorKind::WatchNotFound => true,
        ErrorKind::Io(error) => {
            matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied)
        }
        _ => false,
    }
}

fn plain(error: &notify::Error) -> String {
    match &error.kind {
        ErrorKind::Io(error) => error.to_string(),
        ErrorKind::MaxFilesWatch => "the system's limit of watches is reached".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
