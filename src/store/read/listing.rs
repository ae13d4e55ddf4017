//! What a folder holds at one moment: which files belong to the policy, and their stamps.
//!
//! Nothing is opened here but folders. Two listings are equal exactly if nothing that the stamps can
//! show has moved between them; [`super`] leans on that.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{FileKind, Limits, ProblemKind, ReadError, ReadProblem};

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
    pub(super) fn of(metadata: &Metadata) -> Self {
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

    const fn identity(&self) -> Identity {
        (self.device, self.inode)
    }

    /// The size of the file in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Tells whether the file changed later than `window` before `moment`; a time ahead of it counts.
    pub(super) fn changed_near(&self, moment: SystemTime, window: Duration) -> bool {
        let Some(edge) = moment.checked_sub(window) else { return true };
        let since_epoch = edge.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let edge =
            (i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX), i64::from(since_epoch.subsec_nanos()));
        self.changed > edge
    }
}

/// Device and inode: the same folder, whatever path led to it.
type Identity = (u64, u64);

/// Which files of a folder are read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Wanted {
    /// Those of a policy: see [`is_policy_name`].
    #[default]
    Policies,
    /// The tests beside a policy: see [`is_test_name`].
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
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Listed {
    pub(super) path: PathBuf,
    pub(super) shown: Arc<str>,
    pub(super) stamp: Stamp,
}

/// A folder at one moment. Files are sorted by the path shown, without duplicates.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Listing {
    pub(super) files: Vec<Listed>,
    pub(super) problems: Vec<ReadProblem>,
    /// Stamps of the folders, in the order they were visited: a folder that gained and lost an entry
    /// between two listings differs, though the entries are the same.
    folders: Vec<Stamp>,
    /// Something vanished between being named by its folder and being looked at.
    pub(super) moved: bool,
}

impl Listing {
    /// A hash over the stamps of the files.
    pub(super) fn stamps(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for file in &self.files {
            (&file.shown, file.stamp).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// Tells whether a file of this name belongs to a policy: `*.yaml` or `*.yml`, but not `_test.yaml`,
/// `_test.yml` or a name that starts with a dot.
#[must_use]
pub fn is_policy_name(name: &OsStr) -> bool {
    has_policy_suffix(name) && !is_hidden(name) && !has_test_suffix(name)
}

/// Tells whether a file of this name is a test file beside a policy: `*_test.yaml` or `*_test.yml`,
/// but not a name that starts with a dot.
#[must_use]
pub fn is_test_name(name: &OsStr) -> bool {
    has_test_suffix(name) && !is_hidden(name)
}

/// Tells whether a name starts with a dot; neither files nor folders of such a name are looked at.
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

/// Lists what the named paths hold. A named file is taken whatever its name is.
pub(super) fn list(paths: &[PathBuf], wanted: Wanted, limits: &Limits) -> Result<Listing, ReadError> {
    let mut walk = Walk {
        limits,
        wanted,
        listing: Listing::default(),
        seen: HashSet::new(),
        above: Vec::new(),
        count: 0,
    };
    let mut named_files = Vec::new();
    for path in paths {
        let named = |source| ReadError::Named { path: path.clone(), source };
        let metadata = fs::metadata(path).map_err(named)?;
        if metadata.is_dir() {
            walk.folder(path, &metadata, true).map_err(named)?;
        } else if metadata.is_file() {
            named_files.push(Listed {
                path: path.clone(),
                shown: shown_path(path),
                stamp: Stamp::of(&metadata),
            });
        } else {
            return Err(ReadError::NotRegular { path: path.clone(), kind: kind(&metadata) });
        }
    }
    let mut listing = walk.listing;
    // A file that is named, and found in a named folder too, is one file.
    let mut known: HashSet<Identity> = listing.files.iter().map(|file| file.stamp.identity()).collect();
    listing.files.extend(named_files.into_iter().filter(|file| known.insert(file.stamp.identity())));
    listing.files.sort_by(|one, other| one.shown.cmp(&other.shown));
    Ok(listing)
}

struct Walk<'a> {
    limits: &'a Limits,
    wanted: Wanted,
    listing: Listing,
    seen: HashSet<Identity>,
    /// The folders from the named one down to the current one, with the paths that led there.
    above: Vec<(Identity, Arc<str>)>,
    count: usize,
}

impl Walk<'_> {
    /// Lists one folder and what is below. `Err` only for a named folder that cannot be listed.
    fn folder(&mut self, path: &Path, metadata: &Metadata, named: bool) -> io::Result<()> {
        let identity = (metadata.dev(), metadata.ino());
        if let Some((_, first)) = self.above.iter().find(|(other, _)| *other == identity) {
            let leads_to = Arc::clone(first);
            self.problem(path, ProblemKind::DirectoryLoop { leads_to });
            return Ok(());
        }
        if self.above.len() > self.limits.depth {
            self.problem(path, ProblemKind::TooDeep { limit: self.limits.depth });
            return Ok(());
        }
        // A folder that two links reach is part of the policy once.
        if !self.seen.insert(identity) {
            return Ok(());
        }
        self.listing.folders.push(Stamp::of(metadata));
        let mut entries = Vec::new();
        match fs::read_dir(path).and_then(|all| self.relevant(path, all, &mut entries)) {
            Ok(()) => {}
            Err(error) if named => return Err(error),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.listing.moved = true,
            Err(error) => self.problem(path, ProblemKind::unreadable(&error)),
        }
        // The order in which a folder names its entries means nothing; the one that is reported does.
        entries.sort_unstable();
        self.above.push((identity, shown_path(path)));
        for entry in entries {
            self.entry(&entry);
        }
        self.above.pop();
        Ok(())
    }

    /// Collects the entries that can matter: all but hidden names and plain files of other names.
    fn relevant(&mut self, folder: &Path, all: fs::ReadDir, entries: &mut Vec<PathBuf>) -> io::Result<()> {
        for entry in all {
            let entry = entry?;
            let name = entry.file_name();
            if is_hidden(&name) {
                continue;
            }
            let file_type = match entry.file_type() {
                Ok(file_type) => file_type,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.listing.moved = true;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if !self.wanted.takes(&name) && !file_type.is_dir() && !file_type.is_symlink() {
                continue;
            }
            if self.count == self.limits.files {
                self.problem(folder, ProblemKind::TooManyFiles { limit: self.limits.files });
                // Said once; what comes after it is not looked at.
                self.count += 1;
            }
            if self.count > self.limits.files {
                return Ok(());
            }
            self.count += 1;
            entries.push(entry.path());
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path) {
        let Some(name) = path.file_name() else { return };
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) => return self.lost(path, name, &error),
        };
        let takes_part = self.wanted.takes(name) || (metadata.is_dir() && !is_hidden(name));
        if !takes_part {
            return;
        }
        if name.to_str().is_none() {
            self.problem(path, ProblemKind::NameNotUtf8);
        } else if self.wanted.takes(name) {
            // A folder with the name of a file is what container runtimes leave when the source of a
            // file mount is missing; to walk it would hide that the policy is not there.
            if metadata.is_file() {
                let stamp = Stamp::of(&metadata);
                self.listing.files.push(Listed { path: path.to_owned(), shown: shown_path(path), stamp });
            } else {
                self.problem(path, ProblemKind::NotRegular { kind: kind(&metadata) });
            }
        } else if let Err(error) = self.folder(path, &metadata, false) {
            self.problem(path, ProblemKind::unreadable(&error));
        }
    }

    /// Handles an entry that cannot be looked at. Links are a problem whatever their name: one that
    /// leads nowhere may have led to a folder with guardrails in it.
    fn lost(&mut self, path: &Path, name: &OsStr, error: &io::Error) {
        let is_test = has_test_suffix(name);
        if is_test != (self.wanted == Wanted::Tests) {
            return;
        }
        if error.kind() != io::ErrorKind::NotFound {
            return self.problem(path, ProblemKind::unreadable(error));
        }
        match fs::read_link(path) {
            Ok(target) => {
                let target = target.to_string_lossy().into_owned();
                self.problem(path, ProblemKind::DanglingLink { target });
            }
            Err(_) => self.listing.moved = true,
        }
    }

    fn problem(&mut self, path: &Path, kind: ProblemKind) {
        self.listing.problems.push(ReadProblem { path: shown_path(path), kind });
    }
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
