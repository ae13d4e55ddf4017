//! Reads a policy folder as one consistent snapshot of bytes, or says what is wrong with it.
//!
//! Which files belong to a policy, how much is read, and the proof that nothing moved meanwhile live
//! here. What the bytes mean is not known here: nothing is parsed.
//!
//! # One snapshot
//! The folder is listed, its files are read, and it is listed again: only if both listings are equal,
//! and every file had its listed stamp before and after its bytes were taken, there is a snapshot.
//! Stamps have the grain of the kernel's clock (some milliseconds before Linux 6.13), so a file that
//! changed about that time is read a second time and compared by its bytes. A swap of the `..data`
//! link of a Kubernetes volume in mid-read changes what every path resolves to, and so is noticed.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

mod listing;
mod problem;

pub(super) use listing::{DirectoryIdentity, looks_like_policy};
pub use listing::{Stamp, Wanted, is_hidden, is_policy_name, is_test_name};

pub use problem::{FileKind, ProblemKind, ReadError, ReadProblem};

use listing::{Listed, Listing};
use problem::is_transient;

use super::parallel;
use super::watch_targets::WatchTargets;

/// Largest policy file in bytes.
pub const MAX_FILE_BYTES: u64 = 16 << 20;
/// Largest sum of all policy files in bytes.
pub const MAX_TOTAL_BYTES: u64 = 256 << 20;
/// Most files and folders of one policy.
pub const MAX_FILES: usize = 100_000;
/// Most folders between the named one and a file.
pub const MAX_DEPTH: usize = 32;

/// One policy file as it was read.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// The named path joined with the path below it, such as `policies/mcp.yaml`.
    pub path: Arc<str>,
    /// The whole content; unchanged files share it with the snapshot before. `None` if the file did not change since it was
    /// in a valid set, and its text was forgotten, see [`FolderSnapshot::forget_texts`].
    pub text: Option<Arc<str>>,
    /// The state of the file that the content belongs to.
    pub stamp: Stamp,
    /// SHA-256 of the content.
    pub content_hash: [u8; 32],
    /// A link out of the named directory leads to it. Its text may be anybody's secret, and is not to be shown.
    pub is_outside: bool,
    /// The file changed so shortly before it was read that an equal stamp proves nothing next time.
    needs_recheck: bool,
}

/// All bytes of a policy at one moment.
#[derive(Clone, Debug)]
pub struct FolderSnapshot {
    /// Sorted by path, no path twice; empty if there is no policy file.
    pub files: Vec<SourceFile>,
    /// What is wrong inside the folder, sorted by path; a file with a problem is not among `files`.
    pub problems: Vec<ReadProblem>,
    /// SHA-256 over all paths, contents and problems: equal exactly if a check must come out equal.
    pub digest: [u8; 32],
    /// Over the stamps of all files that were found, read or not: another value means that something was written.
    pub stamps: u64,
}

impl SourceFile {
    /// The whole content; empty if it was forgotten, which it never is when a folder is read for the first time.
    #[must_use]
    pub fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }
}

impl FolderSnapshot {
    /// Forgets the texts. A file that does not change has none in the snapshots after this one.
    pub fn forget_texts(&mut self) {
        for file in &mut self.files {
            file.text = None;
        }
    }
}

/// How much is read; all limits are themselves allowed.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
    /// Files and folders.
    pub files: usize,
    /// Folders below the named one.
    pub depth: usize,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self { file_bytes: MAX_FILE_BYTES, total_bytes: MAX_TOTAL_BYTES, files: MAX_FILES, depth: MAX_DEPTH }
    }
}

/// How hard it is tried.
#[derive(Clone, Copy, Debug)]
pub struct ReadSettings {
    /// Which files of a folder are read; a named file is read whatever its name is.
    pub wanted: Wanted,
    /// How much is read.
    pub limits: ReadLimits,
    /// Whether links out of the named directories are followed. Those of the named paths themselves are always.
    pub allow_outside_links: bool,
    /// How often the whole is tried before [`ReadError::Unstable`]; none counts as one.
    pub attempts: u32,
    /// The wait between two attempts.
    pub pause: Duration,
    /// A file that changed this shortly before it was read is read again the next time, because
    /// another change may have left the stamp as it was. Two seconds is the coarsest grain in use.
    pub recheck_window: Duration,
}

impl Default for ReadSettings {
    fn default() -> Self {
        Self {
            wanted: Wanted::Policies,
            limits: ReadLimits::default(),
            allow_outside_links: false,
            attempts: 10,
            pause: Duration::from_millis(15),
            recheck_window: Duration::from_secs(2),
        }
    }
}

/// Reads the named folders and files as one snapshot. Blocks; call it where that is allowed.
///
/// Files whose stamp is the one in `previous` are not opened again. A named path that is missing gets
/// a second and third chance, since replacing a link in two steps leaves such a moment.
///
/// # Errors
/// [`ReadError`] if a named path cannot be read, or if nothing stood still. Everything wrong inside a
/// folder is in [`FolderSnapshot::problems`] instead.
pub fn read_folder(
    paths: &[PathBuf],
    previous: Option<&FolderSnapshot>,
    settings: &ReadSettings,
) -> Result<FolderSnapshot, ReadError> {
    read_folder_and_targets(paths, previous, settings, &mut WatchTargets::default())
}

/// Like [`read_folder`], and says what is to be watched to learn that something changed, whether it could be read or not.
///
/// # Errors
/// As for [`read_folder`].
pub fn read_folder_and_targets(
    paths: &[PathBuf],
    previous: Option<&FolderSnapshot>,
    settings: &ReadSettings,
    targets: &mut WatchTargets,
) -> Result<FolderSnapshot, ReadError> {
    read_with(paths, previous, settings, targets, &mut |step| {
        if step == ReadMoment::Pause {
            thread::sleep(settings.pause);
        }
    })
}

/// Takes bytes that are in no file for one.
///
/// # Errors
/// [`ReadProblem`] if a file with these bytes could not be used.
pub(super) fn source_file(
    name: &str,
    bytes: Vec<u8>,
    limits: &ReadLimits,
) -> Result<SourceFile, ReadProblem> {
    let path: Arc<str> = name.into();
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let content_hash = hash_of(&bytes);
    let problem = |kind| ReadProblem { path: Arc::clone(&path), kind };
    if size > limits.file_bytes {
        return Err(problem(ProblemKind::TooLarge { size, limit: limits.file_bytes }));
    }
    match String::from_utf8(bytes) {
        Ok(text) => {
            let (text, stamp) = (Some(text.into()), Stamp::none(size));
            Ok(SourceFile { path, text, stamp, content_hash, is_outside: false, needs_recheck: false })
        }
        Err(error) => Err(problem(not_utf8(error.as_bytes(), error.utf8_error().valid_up_to()))),
    }
}

/// The moments between which the world may move; tests move it there.
#[derive(Debug, PartialEq)]
enum ReadMoment<'a> {
    Listed,
    Opened(&'a str),
    Read,
    Pause,
}

/// Who is told of them, from whatever thread.
struct Hook<'h>(Mutex<&'h mut (dyn FnMut(ReadMoment<'_>) + Send)>);

impl Hook<'_> {
    fn call(&self, moment: ReadMoment<'_>) {
        (self.0.lock().unwrap_or_else(PoisonError::into_inner))(moment);
    }
}

fn read_with(
    paths: &[PathBuf],
    previous: Option<&FolderSnapshot>,
    settings: &ReadSettings,
    targets: &mut WatchTargets,
    hook: &mut (dyn FnMut(ReadMoment<'_>) + Send),
) -> Result<FolderSnapshot, ReadError> {
    let hook = Hook(Mutex::new(hook));
    let mut known: HashMap<Arc<str>, SourceFile> = previous
        .map(|snapshot| &snapshot.files)
        .into_iter()
        .flatten()
        .map(|file| (Arc::clone(&file.path), file.clone()))
        .collect();
    let attempts = settings.attempts.max(1);
    let mut attempt = 0;
    let mut changing = BTreeSet::new();
    loop {
        attempt += 1;
        let outcome =
            TreeAttempt { settings, known: &mut known, targets, changing: &mut changing, hook: &hook }
                .run(paths);
        match outcome {
            Ok(Some(snapshot)) => return Ok(snapshot),
            Ok(None) if attempt >= attempts => {
                let names = changing.iter().take(MAX_NAMES).map(|name| name.to_string()).collect();
                return Err(ReadError::Unstable { attempts, names });
            }
            Err(error) if error.is_transient() && attempt < attempts => hook.call(ReadMoment::Pause),
            Err(error) if !error.is_missing() || attempt >= attempts.min(3) => return Err(error),
            Ok(None) | Err(_) => hook.call(ReadMoment::Pause),
        }
    }
}

/// Most files that are named because they keep changing.
const MAX_NAMES: usize = 5;

struct TreeAttempt<'a, 'h> {
    settings: &'a ReadSettings,
    /// The newest state of each file that was ever read; filled even by attempts that fail.
    known: &'a mut HashMap<Arc<str>, SourceFile>,
    /// What the newest listing says is to be watched.
    targets: &'a mut WatchTargets,
    /// What moved in any attempt.
    changing: &'a mut BTreeSet<Arc<str>>,
    hook: &'a Hook<'h>,
}

/// What became of one listed file.
enum Taken {
    Kept(SourceFile),
    Read(SourceFile),
    Problem(ProblemKind),
    Moved,
}

impl TreeAttempt<'_, '_> {
    /// Tries once; nothing if something moved.
    fn run(&mut self, paths: &[PathBuf]) -> Result<Option<FolderSnapshot>, ReadError> {
        let limits = &self.settings.limits;
        let started = SystemTime::now();
        let before = self.list(paths)?;
        self.hook.call(ReadMoment::Listed);
        if !before.moved.is_empty() {
            return Ok(self.moved(before.moved));
        }
        let mut files = Vec::with_capacity(before.files.len());
        let mut problems = before.problems.clone();
        let mut fresh = Vec::new();
        let mut budget = SizeTally::of(&before, limits);
        let mut wanted = Vec::with_capacity(before.files.len());
        for listed in &before.files {
            match budget.refusal(listed) {
                Some(kind) => problems.push(ReadProblem { path: Arc::clone(&listed.shown), kind }),
                None if budget.spent => {}
                None => wanted.push(listed),
            }
        }
        let unread = wanted.iter().filter(|listed| self.unchanged(listed).is_none()).count();
        let taken = parallel::in_shares(&wanted, parallel::threads_for(unread), |share| self.take_all(share));
        // What is behind a file that moved, or that cannot be read now, is missing and not needed.
        for (listed, taken) in wanted.into_iter().zip(taken) {
            match taken? {
                Taken::Kept(file) => files.push(file),
                Taken::Read(file) => {
                    if listed.stamp.changed_near(started, CLOCK_GRAIN) {
                        fresh.push((listed, file.content_hash));
                    }
                    self.known.insert(Arc::clone(&file.path), file.clone());
                    files.push(file);
                }
                Taken::Problem(kind) => problems.push(ReadProblem { path: Arc::clone(&listed.shown), kind }),
                Taken::Moved => return Ok(self.moved([Arc::clone(&listed.shown)])),
            }
        }
        self.hook.call(ReadMoment::Read);
        let after = self.list(paths)?;
        if after != before {
            return Ok(self.moved(after.difference(&before)));
        }
        // Each fresh file held the same bytes before and after the moment between reading and listing,
        // and the stamps vouch for all others; so the snapshot is that of this moment.
        for (listed, hash) in fresh {
            match bytes_of(&listed.path, &listed.stamp, &mut || ()) {
                Ok(Content::Whole(bytes)) if hash_of(&bytes) == hash => {}
                _ => return Ok(self.moved([Arc::clone(&listed.shown)])),
            }
        }
        problems.sort_by(|one, other| one.path.cmp(&other.path));
        let digest = digest(&files, &problems);
        let stamps = before.stamps();
        Ok(Some(FolderSnapshot { files, problems, digest, stamps }))
    }

    fn list(&mut self, paths: &[PathBuf]) -> Result<Listing, ReadError> {
        let (targets, listing) = listing::list(paths, self.settings);
        // An error of the system ended the walk early, which is no reason to watch less.
        if !listing.as_ref().is_err_and(ReadError::is_transient) {
            *self.targets = targets;
        }
        listing
    }

    /// Notes what moved: this attempt is over.
    fn moved<T>(&mut self, names: impl IntoIterator<Item = Arc<str>>) -> Option<T> {
        self.changing.extend(names);
        None
    }

    /// The file as it is known, if its stamp says that it is the same.
    fn unchanged(&self, listed: &Listed) -> Option<&SourceFile> {
        self.known.get(&listed.shown).filter(|known| known.stamp == listed.stamp && !known.needs_recheck)
    }

    /// Takes files up to one that moved or cannot be read now.
    fn take_all(&self, wanted: &[&Listed]) -> Vec<Result<Taken, ReadError>> {
        let mut all = Vec::with_capacity(wanted.len());
        for listed in wanted {
            let taken = self.take(listed);
            let is_over = matches!(taken, Err(_) | Ok(Taken::Moved));
            all.push(taken);
            if is_over {
                break;
            }
        }
        all
    }

    fn take(&self, listed: &Listed) -> Result<Taken, ReadError> {
        if let Some(known) = self.unchanged(listed) {
            return Ok(Taken::Kept(SourceFile { is_outside: listed.is_outside, ..known.clone() }));
        }
        let known = self.known.get(&listed.shown);
        let moment = SystemTime::now();
        let opened = &mut || self.hook.call(ReadMoment::Opened(&listed.shown));
        let bytes = match bytes_of(&listed.path, &listed.stamp, opened) {
            Ok(Content::Whole(bytes)) => bytes,
            Ok(Content::Moved) => return Ok(Taken::Moved),
            // Perhaps it is only being written: a file that does not change has had time to agree with itself.
            Ok(Content::WrongSize(_)) if listed.stamp.changed_near(moment, CLOCK_GRAIN) => {
                return Ok(Taken::Moved);
            }
            Ok(Content::WrongSize(read)) => {
                return Ok(Taken::Problem(ProblemKind::WrongSize { size: listed.stamp.size(), read }));
            }
            Err(source) if is_transient(&source) => {
                return Err(ReadError::Transient { path: listed.path.clone(), source });
            }
            Err(error) => return Ok(Taken::Problem(ProblemKind::unreadable(&error))),
        };
        let content_hash = hash_of(&bytes);
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let kind = not_utf8(error.as_bytes(), error.utf8_error().valid_up_to());
                return Ok(Taken::Problem(kind));
            }
        };
        // Equal texts are there once.
        let text = match known {
            Some(SourceFile { text: Some(known), content_hash: hash, .. }) if *hash == content_hash => {
                Arc::clone(known)
            }
            _ => text.into(),
        };
        let (stamp, is_outside) = (listed.stamp, listed.is_outside);
        let needs_recheck = stamp.changed_near(moment, self.settings.recheck_window);
        let path = Arc::clone(&listed.shown);
        let text = Some(text);
        Ok(Taken::Read(SourceFile { path, text, stamp, content_hash, is_outside, needs_recheck }))
    }
}

/// Keeps the sizes within the limits, by what the listing says, before anything is opened.
struct SizeTally<'a> {
    limits: &'a ReadLimits,
    total: u64,
    sum: u64,
    /// The sum is over the limit, and that was said.
    spent: bool,
}

impl<'a> SizeTally<'a> {
    fn of(listing: &Listing, limits: &'a ReadLimits) -> Self {
        let sizes = listing.files.iter().map(|file| file.stamp.size());
        let total = sizes.filter(|size| *size <= limits.file_bytes).fold(0, u64::saturating_add);
        Self { limits, total, sum: 0, spent: false }
    }

    /// Says why a file is not read, once for the sum.
    fn refusal(&mut self, listed: &Listed) -> Option<ProblemKind> {
        let size = listed.stamp.size();
        if size > self.limits.file_bytes {
            return Some(ProblemKind::TooLarge { size, limit: self.limits.file_bytes });
        }
        self.sum = self.sum.saturating_add(size);
        if self.sum > self.limits.total_bytes && !self.spent {
            self.spent = true;
            return Some(ProblemKind::SetTooLarge { size: self.total, limit: self.limits.total_bytes });
        }
        None
    }
}

/// What a file held.
enum Content {
    /// As many bytes as its stamp says.
    Whole(Vec<u8>),
    /// It is not the file that was listed any more.
    Moved,
    /// It did not move, and has another number of bytes than its stamp says: this one, or more.
    WrongSize(u64),
}

/// Reads a file in the state that `stamp` tells.
fn bytes_of(path: &Path, stamp: &Stamp, opened: &mut dyn FnMut()) -> io::Result<Content> {
    // Should a named pipe have taken the file's place, opening it must not wait for a writer, and a
    // terminal must not become ours.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if is_gone(&error) => return Ok(Content::Moved),
        Err(error) => return Err(error),
    };
    if Stamp::of(&file.metadata()?) != *stamp {
        return Ok(Content::Moved);
    }
    opened();
    let mut bytes = Vec::with_capacity(usize::try_from(stamp.size()).unwrap_or_default());
    match read_bounded(&mut file, stamp.size(), &mut bytes) {
        Ok(()) => {}
        Err(error) if is_gone(&error) => return Ok(Content::Moved),
        Err(error) => return Err(error),
    }
    if Stamp::of(&file.metadata()?) != *stamp {
        return Ok(Content::Moved);
    }
    let read = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    Ok(if read == stamp.size() { Content::Whole(bytes) } else { Content::WrongSize(read) })
}

/// Reads at most one byte more than the file had, which is enough to see that it grew.
fn read_bounded(file: &mut File, size: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
    file.take(size.saturating_add(1)).read_to_end(bytes).map(drop)
}

/// The file was there when it was listed: that it is not now means that something moved.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn hash_of(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn digest(files: &[SourceFile], problems: &[ReadProblem]) -> [u8; 32] {
    // Each part is preceded by its length, so that no two snapshots run together into one text.
    let mut hasher = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        hasher.update(bytes);
    };
    for file in files {
        part(b"file");
        part(file.path.as_bytes());
        part(&file.content_hash);
    }
    for problem in problems {
        part(b"problem");
        part(problem.path.as_bytes());
        part(problem.kind.to_string().as_bytes());
    }
    hasher.finalize().into()
}

fn not_utf8(bytes: &[u8], offset: usize) -> ProblemKind {
    let text = bytes.get(..offset).and_then(|good| std::str::from_utf8(good).ok()).unwrap_or_default();
    let mut line = 1u32;
    let mut column = 1u32;
    let mut after_return = false;
    for character in text.chars() {
        // YAML ends a line with CR LF, LF or CR (YAML 1.2.2 section 5.4).
        match character {
            '\n' if after_return => {}
            '\n' | '\r' => (line, column) = (line.saturating_add(1), 1),
            _ => column = column.saturating_add(1),
        }
        after_return = character == '\r';
    }
    ProblemKind::NotUtf8 { line, column, offset: u64::try_from(offset).unwrap_or(u64::MAX) }
}

/// Two changes within this time may leave equal stamps; twice the tick of the slowest common kernel.
const CLOCK_GRAIN: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests;
