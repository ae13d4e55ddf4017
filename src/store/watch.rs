//! File events as hints that something may have changed. What changed, only reading tells.
//!
//! Events get lost on network filesystems, when the system's limits are reached, and for names that
//! come and go between two looks; so there is a rescan too, and every hint may be a false one. Knows
//! nothing about policies.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Longest time that a stream of events may put off a look.
pub const MAX_DEBOUNCE: Duration = Duration::from_secs(1);
/// Most folders that are watched; beyond, the rescan alone finds changes.
const MAX_WATCHES: usize = 10_000;
/// Most links that are followed from one path.
const MAX_HOPS: usize = 40;

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
    debounce: Duration,
    rescan_interval: Duration,
}

impl Hints {
    /// Hints that come when nothing was reported for `debounce` after a report, or every
    /// `rescan_interval` regardless.
    #[must_use]
    pub fn new(debounce: Duration, rescan_interval: Duration) -> Self {
        Self { notify: Arc::new(Notify::new()), debounce, rescan_interval }
    }

    /// Asks for a look, as an event does.
    pub fn hint(&self) {
        self.notify.notify_one();
    }

    /// Waits for the next reason to look; `planned` is a time at which there is one anyway.
    pub async fn next(&self, planned: Option<SystemTime>) -> Hint {
        let now = Instant::now();
        let rescan = now + self.rescan_interval;
        let planned = planned.map(|at| now + at.duration_since(SystemTime::now()).unwrap_or_default());
        let first = planned.map_or(rescan, |planned| planned.min(rescan));
        if timeout_at(first, self.notify.notified()).await.is_err() {
            return if planned.is_some_and(|planned| planned <= rescan) {
                Hint::Planned
            } else {
                Hint::Rescan
            };
        }
        // Events come in bursts: look when they pause, but not later than the most.
        let latest = Instant::now() + MAX_DEBOUNCE.max(self.debounce);
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
    /// They do not, for this reason; only the rescan finds changes.
    PollingOnly(String),
}

/// Watches the folders that a policy is made of.
#[derive(Debug)]
pub struct FolderWatch {
    paths: Vec<PathBuf>,
    hints: Hints,
    watcher: Option<RecommendedWatcher>,
    /// What is watched, by path: the identity that the folder had then.
    armed: HashMap<PathBuf, (u64, u64)>,
    state: WatchState,
}

impl FolderWatch {
    /// Prepares to watch; nothing is watched before [`FolderWatch::arm`].
    #[must_use]
    pub fn new(paths: Vec<PathBuf>, hints: Hints) -> Self {
        Self { paths, hints, watcher: None, armed: HashMap::new(), state: WatchState::Events }
    }

    /// Whether events come, as of the last [`FolderWatch::arm`].
    #[must_use]
    pub const fn state(&self) -> &WatchState {
        &self.state
    }

    /// Watches what the named paths lead to now: each folder below them, the folder above them, and the
    /// folder of every link on the way. Blocks.
    ///
    /// Tells whether a folder is watched that was not watched before: something may have happened in it
    /// in between, so look once more.
    pub fn arm(&mut self) -> bool {
        let wanted = wanted(&self.paths);
        if self.watcher.is_none() {
            match self.watcher_for_hints() {
                Ok(watcher) => self.watcher = Some(watcher),
                Err(error) => {
                    self.state = WatchState::PollingOnly(plain(&error));
                    return false;
                }
            }
        }
        let Some(watcher) = &mut self.watcher else { return false };
        let gone: Vec<PathBuf> = self
            .armed
            .iter()
            .filter(|(path, id)| wanted.get(*path) != Some(*id))
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            // A folder that was deleted has no watch any more; that it cannot be taken away is no news.
            let _ = watcher.unwatch(&path);
            self.armed.remove(&path);
        }
        let mut state = WatchState::Events;
        if wanted.len() > MAX_WATCHES {
            state = WatchState::PollingOnly(format!("the policy has more than {MAX_WATCHES} folders"));
        }
        let mut is_new = false;
        for (path, id) in wanted.into_iter().take(MAX_WATCHES) {
            if self.armed.contains_key(&path) {
                continue;
            }
            match watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.armed.insert(path, id);
                    is_new = true;
                }
                // Gone again: the next event or rescan sees that.
                Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => {}
                Err(error) if path_is_gone(&path) => drop(error),
                Err(error) => state = WatchState::PollingOnly(plain(&error)),
            }
        }
        self.state = state;
        is_new
    }

    fn watcher_for_hints(&self) -> notify::Result<RecommendedWatcher> {
        let hints = self.hints.clone();
        notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let is_change = match &event {
                // Reading a file is reported too, and would make every look the reason for the next.
                Ok(event) => match event.kind {
                    EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
                    EventKind::Access(_) => false,
                    _ => true,
                },
                // Events were lost.
                Err(_) => true,
            };
            if is_change {
                hints.hint();
            }
        })
    }
}

fn path_is_gone(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err()
}

fn plain(error: &notify::Error) -> String {
    match &error.kind {
        notify::ErrorKind::Io(error) => error.to_string(),
        notify::ErrorKind::MaxFilesWatch => "the system's limit of watches is reached".to_owned(),
        _ => error.to_string(),
    }
}

/// Every folder to watch with its identity.
fn wanted(paths: &[PathBuf]) -> HashMap<PathBuf, (u64, u64)> {
    let mut found = Wanted { folders: HashMap::new(), walked: HashSet::new() };
    for path in paths {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        found.way(&path);
        found.walk(&path);
    }
    found.folders
}

struct Wanted {
    folders: HashMap<PathBuf, (u64, u64)>,
    walked: HashSet<(u64, u64)>,
}

impl Wanted {
    fn add(&mut self, folder: &Path) {
        if let Ok(metadata) = fs::metadata(folder)
            && metadata.is_dir()
        {
            self.folders.insert(folder.to_owned(), (metadata.dev(), metadata.ino()));
        }
    }

    /// The folder that holds each name on the way from a path to what it stands for: where one of them
    /// is replaced, that folder has the event. While one is missing, the nearest folder that is there.
    fn way(&mut self, path: &Path) {
        let mut path = path.to_owned();
        for _ in 0..MAX_HOPS {
            for above in path.ancestors().skip(1) {
                if above.is_dir() {
                    self.add(above);
                    break;
                }
            }
            // A link may also stand higher up: `/etc/policies` where `/etc` is one.
            for above in path.ancestors().skip(1) {
                if fs::symlink_metadata(above).is_ok_and(|metadata| metadata.is_symlink())
                    && let Some(holder) = above.parent()
                {
                    self.add(holder);
                }
            }
            match fs::read_link(&path) {
                Ok(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
                Err(_) => return,
            }
        }
    }

    /// The folders below a path, links followed, each once.
    fn walk(&mut self, path: &Path) {
        let mut open = vec![path.to_owned()];
        while let Some(folder) = open.pop() {
            if self.folders.len() > MAX_WATCHES {
                return;
            }
            let Ok(metadata) = fs::metadata(&folder) else { continue };
            if !metadata.is_dir() || !self.walked.insert((metadata.dev(), metadata.ino())) {
                continue;
            }
            self.folders.insert(folder.clone(), (metadata.dev(), metadata.ino()));
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                let Ok(kind) = entry.file_type() else { continue };
                let name = entry.file_name();
                if is_hidden(&name) {
                    continue;
                }
                if kind.is_symlink() {
                    self.way(&entry.path());
                    open.push(entry.path());
                } else if kind.is_dir() {
                    open.push(entry.path());
                }
            }
        }
    }
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().first() == Some(&b'.')
}

/// Tells whether a named path is a single mounted file, as a `subPath` volume of Kubernetes is: it
/// never changes while the process runs. Returns the words for people.
///
/// `mountinfo` is the text of `/proc/self/mountinfo` (proc(5)); paths are the named ones, absolute.
#[must_use]
pub fn static_source(paths: &[PathBuf], mountinfo: &str) -> Option<String> {
    let mounts: HashSet<PathBuf> =
        mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescaped).collect();
    for path in paths {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let files = if path.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).filter(|file| file.is_file()).collect()
        } else {
            vec![path]
        };
        if let Some(file) = files.iter().find(|file| mounts.contains(*file)) {
            let file = crate::policy::finding::shown(&file.to_string_lossy());
            return Some(format!(
                "`{file}` is mounted as a single file (`subPath`), which is never updated; mount its folder"
            ));
        }
    }
    None
}

/// Spaces and such are written as `\040` in mountinfo.
fn unescaped(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let code = (*first == b'\\')
            .then(|| more.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = more.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    PathBuf::from(OsStr::from_bytes(&bytes))
}
