//! What a directory holds at one moment: which files belong to the policy, their stamps, and what to watch.
//!
//! One walk, link by link, gives all of it. Nothing is opened here but directories. Two listings are equal exactly if nothing that the stamps can
//! show has moved between them; [`super`] leans on that.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{FileKind, ProblemKind, ReadError, ReadProblem, ReadSettings, is_transient};
use crate::store::watch_targets::WatchTargets;

/// Most links that are followed from one path, as in Linux (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// What identifies one state of one file; equal stamps mean equal content, up to the grain of the clock.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Unlike `modified` no program can set this one back.
    changed: (i64, i64),
}

impl Stamp {
    /// The state that a file had when it was looked at.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The stamp of what is no file.
    pub(super) const fn none(size: u64) -> Self {
        Self { device: 0, inode: 0, size, modified: (0, 0), changed: (0, 0) }
    }

    const fn identity(&self) -> DirectoryIdentity {
        (self.device, self.inode)
    }

    /// The size of the file in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Returns `true` if the file changed later than `window` before `moment`; a time ahead of it counts.
    #[must_use]
    pub fn changed_near(&self, moment: SystemTime, window: Duration) -> bool {
        let Some(edge) = moment.checked_sub(window) else { return true };
        let since_epoch = edge.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let edge =
            (i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX), i64::from(since_epoch.subsec_nanos()));
        self.changed > edge
    }
}

/// Device and inode: the same folder, whatever path led to it.
pub(in crate::store) type DirectoryIdentity = (u64, u64);

/// Which files of a folder are read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Wanted {
    /// Those of a policy: see [`is_policy_name`].
    #[default]
    Policies,
    /// The tests next to a policy: see [`is_test_name`].
    Tests,
}

impl Wanted {
    fn takes(self, name: &OsStr) -> bool {
        match self {
            Self::Policies => is_policy_name(name),
            Self::Tests => is_test_name(name),
        }
    }
}

/// A policy file that was found; not opened yet.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Listed {
    pub(super) path: PathBuf,
    pub(super) shown: Arc<str>,
    pub(super) stamp: Stamp,
    /// It is not in the named directory: a link leads to it.
    pub(super) is_outside: bool,
}

/// A directory at one moment. Files are sorted by the path shown, without duplicates.
///
/// What does not concern the policy is not in it: an entry of another name that comes and goes changes nothing.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Listing {
    pub(super) files: Vec<Listed>,
    pub(super) problems: Vec<ReadProblem>,
    /// Every link on the way to something, in the order in which they were followed: one that was turned away and
    /// back is another link.
    links: Vec<Stamp>,
    /// In the order in which they were visited.
    directories: Vec<DirectoryIdentity>,
    /// What vanished between being named by its directory and being looked at.
    pub(super) moved: Vec<Arc<str>>,
}

impl Listing {
    /// A hash over the stamps of the files.
    pub(super) fn stamps(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for file in &self.files {
            (&file.shown, file.stamp).hash(&mut hasher);
        }
        self.links.hash(&mut hasher);
        hasher.finish()
    }

    /// Some of what is not the same in another listing, for people.
    pub(super) fn difference(&self, other: &Self) -> Vec<Arc<str>> {
        const MOST: usize = 5;
        let (mine, theirs): (HashSet<&Listed>, HashSet<&Listed>) =
            (self.files.iter().collect(), other.files.iter().collect());
        let mut names: Vec<Arc<str>> =
            mine.symmetric_difference(&theirs).map(|file| Arc::clone(&file.shown)).collect();
        let problems = self.problems.iter().filter(|one| !other.problems.contains(one));
        names.extend(problems.map(|problem| Arc::clone(&problem.path)));
        names.sort_unstable();
        names.dedup();
        names.truncate(MOST);
        names
    }
}

/// Returns `true` if a file of this name belongs to a policy: `*.yaml` or `*.yml`, but not `_test.yaml`,
/// `_test.yml` or a name that starts with a dot.
#[must_use]
pub fn is_policy_name(name: &OsStr) -> bool {
    has_policy_suffix(name) && !is_hidden(name) && !has_test_suffix(name)
}

/// Returns `true` if a file of this name is a test file next to a policy: `*_test.yaml` or `*_test.yml`,
/// but not a name that starts with a dot.
#[must_use]
pub fn is_test_name(name: &OsStr) -> bool {
    has_test_suffix(name) && !is_hidden(name)
}

/// Returns `true` for a name that reads as if its file was part of a policy, and that no file of a policy has: the ending in
/// upper case or misspelt, `.json`, or another ending behind the right one, as in `mcp.yaml.txt`.
///
/// What editors and tools leave behind (`mcp.yaml~`, `mcp.yaml.bak`) is not one of them: it comes and goes.
pub(in crate::store) fn looks_like_policy(name: &OsStr) -> bool {
    const ENDINGS: [&str; 7] = ["yaml", "yml", "ymal", "yalm", "json", "jsonc", "json5"];
    const BEHIND: [&str; 5] = ["txt", "j2", "tmpl", "tpl", "gotmpl"];
    let Some(name) = name.to_str().filter(|_| !has_policy_suffix(name)) else { return false };
    let mut parts = name.rsplit('.').map(str::to_ascii_lowercase);
    let (Some(last), Some(before)) = (parts.next(), parts.next()) else { return false };
    let is_behind = BEHIND.contains(&&*last) && ENDINGS.contains(&&*before) && parts.next().is_some();
    is_behind || ENDINGS.contains(&&*last)
}

/// Returns `true` if a name starts with a dot; neither files nor folders of such a name are looked at.
#[must_use]
pub fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn has_policy_suffix(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.ends_with(b".yaml") || name.ends_with(b".yml")
}

fn has_test_suffix(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.ends_with(b"_test.yaml") || name.ends_with(b"_test.yml")
}

/// Lists what the named paths hold, and what is to be watched to learn that it changed. A named file is taken
/// whatever its name is.
///
/// The targets are those up to where the walk ended, if it did with an error.
pub(super) fn list(paths: &[PathBuf], settings: &ReadSettings) -> (WatchTargets, Result<Listing, ReadError>) {
    let mut walk = TreeWalk {
        settings,
        roots: Vec::new(),
        targets: WatchTargets::default(),
        listing: Listing::default(),
        seen: HashSet::new(),
        above: Vec::new(),
        count: 0,
    };
    let listed = walk.paths(paths);
    let TreeWalk { targets, listing, .. } = walk;
    (targets, listed.map(|()| listing))
}

struct TreeWalk<'a> {
    settings: &'a ReadSettings,
    /// Where the named paths really are: what is in none of them is outside.
    roots: Vec<PathBuf>,
    targets: WatchTargets,
    listing: Listing,
    seen: HashSet<DirectoryIdentity>,
    /// The directories from the named one down to the current one, with the paths that led there.
    above: Vec<(DirectoryIdentity, Arc<str>)>,
    count: usize,
}

/// A directory on the way down: as it is shown, and where it really is.
#[derive(Clone, Copy)]
struct DirectoryPlace<'p> {
    shown: &'p Path,
    real: &'p Path,
}

impl TreeWalk<'_> {
    fn paths(&mut self, paths: &[PathBuf]) -> Result<(), ReadError> {
        let mut found = Vec::with_capacity(paths.len());
        for path in paths {
            let real = std::path::absolute(path).and_then(|path| self.resolve(Path::new("/"), &path));
            let metadata = real.and_then(|real| Ok((fs::metadata(&real)?, real)));
            let (metadata, real) = metadata.map_err(|source| ReadError::named(path, source))?;
            self.roots.push(real.clone());
            found.push((path, metadata, real));
        }
        let mut named_files = Vec::new();
        for (path, metadata, real) in found {
            if metadata.is_dir() {
                let place = DirectoryPlace { shown: path, real: &real };
                self.directory(place, &metadata)?.map_err(|source| ReadError::named(path, source))?;
            } else if metadata.is_file() {
                named_files.push(Listed {
                    path: path.clone(),
                    shown: shown_path(path),
                    stamp: Stamp::of(&metadata),
                    is_outside: false,
                });
                self.targets.add_file(real);
            } else {
                return Err(ReadError::NotRegular { path: path.clone(), kind: kind(&metadata) });
            }
        }
        // A file that is named, and found in a named directory too, is one file.
        let files = &mut self.listing.files;
        let mut known: HashSet<DirectoryIdentity> = files.iter().map(|file| file.stamp.identity()).collect();
        files.extend(named_files.into_iter().filter(|file| known.insert(file.stamp.identity())));
        files.sort_by(|one, other| one.shown.cmp(&other.shown));
        Ok(())
    }

    /// Goes from a directory along a path, link by link, and notes where each step is taken: whoever replaces a name
    /// on the way does it there. The directory where the way ends early is noted too: its event comes when the
    /// missing name does.
    fn resolve(&mut self, from: &Path, path: &Path) -> io::Result<PathBuf> {
        let mut here = from.to_owned();
        let mut steps = Vec::new();
        push(&mut steps, path);
        let mut links = 0;
        while let Some(step) = steps.pop() {
            match step {
                ListingStep::Root => here = PathBuf::from("/"),
                ListingStep::Up => _ = here.pop(),
                ListingStep::Down(name) => {
                    self.targets.add_entry(&here, &name);
                    let next = here.join(&name);
                    let metadata = fs::symlink_metadata(&next)?;
                    if metadata.is_symlink() {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(io::Error::from_raw_os_error(libc::ELOOP));
                        }
                        self.listing.links.push(Stamp::of(&metadata));
                        push(&mut steps, &fs::read_link(&next)?);
                    } else {
                        here = next;
                    }
                }
            }
        }
        Ok(here)
    }

    /// Lists one directory and what is below. The inner error is that it cannot be listed itself.
    fn directory(
        &mut self,
        place: DirectoryPlace<'_>,
        metadata: &Metadata,
    ) -> Result<io::Result<()>, ReadError> {
        let DirectoryPlace { shown, real } = place;
        let identity = (metadata.dev(), metadata.ino());
        if let Some((_, first)) = self.above.iter().find(|(other, _)| *other == identity) {
            let leads_to = Arc::clone(first);
            self.problem(shown, ProblemKind::DirectoryLoop { leads_to });
            return Ok(Ok(()));
        }
        if self.above.len() > self.settings.limits.depth {
            self.problem(shown, ProblemKind::TooDeep { limit: self.settings.limits.depth });
            return Ok(Ok(()));
        }
        // A directory that two links reach is part of the policy once.
        if !self.seen.insert(identity) {
            return Ok(Ok(()));
        }
        self.listing.directories.push(identity);
        self.targets.add_directory(real);
        let mut entries = Vec::new();
        if let Err(error) = fs::read_dir(real).and_then(|all| self.relevant(shown, all, &mut entries)) {
            return Ok(Err(error));
        }
        // The order in which a directory names its entries means nothing; the one that is reported does.
        entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        self.above.push((identity, shown_path(shown)));
        for (name, is_link) in entries {
            self.entry(place, &name, is_link)?;
        }
        self.above.pop();
        Ok(Ok(()))
    }

    /// Collects the entries that can matter: all but hidden names and plain files whose names do not look like those of
    /// a policy.
    fn relevant(
        &mut self,
        directory: &Path,
        all: fs::ReadDir,
        entries: &mut Vec<(OsString, bool)>,
    ) -> io::Result<()> {
        let limit = self.settings.limits.files;
        for entry in all {
            let entry = entry?;
            let name = entry.file_name();
            if is_hidden(&name) {
                continue;
            }
            let file_type = match entry.file_type() {
                Ok(file_type) => file_type,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.moved(&entry.path());
                    continue;
                }
                Err(error) => return Err(error),
            };
            let is_wanted = self.settings.wanted.takes(&name) || self.is_reported(&name);
            if !is_wanted && !file_type.is_dir() && !file_type.is_symlink() {
                continue;
            }
            if self.count == limit {
                self.problem(directory, ProblemKind::TooManyFiles { limit });
                // Said once; what comes after it is not looked at.
                self.count += 1;
            }
            if self.count > limit {
                return Ok(());
            }
            self.count += 1;
            entries.push((name, file_type.is_symlink()));
        }
        Ok(())
    }

    /// Returns `true` for a name that is reported since its file is not read.
    fn is_reported(&self, name: &OsStr) -> bool {
        self.settings.wanted == Wanted::Policies && looks_like_policy(name)
    }

    fn entry(&mut self, above: DirectoryPlace<'_>, name: &OsStr, is_link: bool) -> Result<(), ReadError> {
        let shown = above.shown.join(name);
        let real =
            if is_link { self.resolve(above.real, Path::new(name)) } else { Ok(above.real.join(name)) };
        let (metadata, real) = match real.and_then(|real| Ok((fs::metadata(&real)?, real))) {
            Ok(found) => found,
            Err(error) => return self.lost(&shown, name, error),
        };
        let is_wanted = self.settings.wanted.takes(name);
        if !is_wanted && !metadata.is_dir() {
            // One that is named by itself is read.
            if metadata.is_file() && self.is_reported(name) && !self.roots.contains(&real) {
                self.problem(&shown, ProblemKind::NotRead);
            }
            return Ok(());
        }
        let is_outside = !self.roots.iter().any(|root| real.starts_with(root));
        if is_outside && is_link && !self.settings.allow_outside_links {
            let target = real.to_string_lossy().into_owned();
            self.problem(&shown, ProblemKind::LeadsOutside { target });
        } else if name.to_str().is_none() {
            self.problem(&shown, ProblemKind::NameNotUtf8);
        } else if is_wanted {
            // A directory with the name of a file is what container runtimes leave when the source of a
            // file mount is missing; to walk it would hide that the policy is not there.
            if metadata.is_file() {
                let stamp = Stamp::of(&metadata);
                let named = shown_path(&shown);
                self.listing.files.push(Listed { path: shown, shown: named, stamp, is_outside });
                self.targets.add_file(real);
            } else {
                self.problem(&shown, ProblemKind::NotRegular { kind: kind(&metadata) });
            }
        } else if let Err(error) = self.directory(DirectoryPlace { shown: &shown, real: &real }, &metadata)? {
            if is_transient(&error) {
                return Err(ReadError::Transient { path: shown, source: error });
            }
            if error.kind() == io::ErrorKind::NotFound {
                self.moved(&shown);
            } else {
                self.problem(&shown, ProblemKind::unreadable(&error));
            }
        }
        Ok(())
    }

    /// Handles an entry that cannot be looked at. Links are a problem whatever their name: one that
    /// leads nowhere may have led to a directory with guardrails in it.
    fn lost(&mut self, path: &Path, name: &OsStr, error: io::Error) -> Result<(), ReadError> {
        let is_test = has_test_suffix(name);
        if is_test != (self.settings.wanted == Wanted::Tests) {
            return Ok(());
        }
        if is_transient(&error) {
            return Err(ReadError::Transient { path: path.to_owned(), source: error });
        }
        if error.kind() != io::ErrorKind::NotFound {
            self.problem(path, ProblemKind::unreadable(&error));
            return Ok(());
        }
        match fs::read_link(path) {
            Ok(target) => {
                let target = target.to_string_lossy().into_owned();
                self.problem(path, ProblemKind::DanglingLink { target });
            }
            Err(_) => self.moved(path),
        }
        Ok(())
    }

    fn problem(&mut self, path: &Path, kind: ProblemKind) {
        self.listing.problems.push(ReadProblem { path: shown_path(path), kind });
    }

    fn moved(&mut self, path: &Path) {
        self.listing.moved.push(shown_path(path));
    }
}

enum ListingStep {
    Root,
    Up,
    Down(OsString),
}

/// Puts the steps of a path on top, the first one last.
fn push(steps: &mut Vec<ListingStep>, path: &Path) {
    steps.extend(path.components().rev().filter_map(|component| match component {
        Component::RootDir => Some(ListingStep::Root),
        Component::ParentDir => Some(ListingStep::Up),
        Component::Normal(name) => Some(ListingStep::Down(name.to_owned())),
        Component::CurDir | Component::Prefix(_) => None,
    }));
}

fn shown_path(path: &Path) -> Arc<str> {
    path.to_string_lossy().into()
}

fn kind(metadata: &Metadata) -> FileKind {
    let file_type = metadata.file_type();
    if file_type.is_dir() {
        FileKind::Directory
    } else if file_type.is_fifo() {
        FileKind::Fifo
    } else if file_type.is_socket() {
        FileKind::Socket
    } else {
        FileKind::Device
    }
}
