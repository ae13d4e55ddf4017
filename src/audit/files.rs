//! The files of an open store, looked at from outside: whether what SQLite wrote is still there.
//!
//! SQLite trusts its files while they are open. If somebody cuts one off, overwrites its header or
//! puts another in its place, it notices late or never, and a record that was acknowledged would be
//! gone. So both files are looked at before a transaction begins and before it is acknowledged. A
//! look costs two calls for each file and one for the last frame.
//!
//! The files stay open for as long as the connection: closing any descriptor of a file gives the
//! process's locks on it back, SQLite's too.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ledger::LedgerError;
use super::wal;

/// What of the main file only a checkpoint changes.
const MAIN_HEADER_BYTES: usize = 100;

/// Both files of a store.
#[derive(Debug)]
pub(super) struct StoreFiles {
    main: Watched,
    wal: Watched,
    page_bytes: u64,
    written: Arc<Written>,
    /// What of it was looked at.
    seen_commits: u64,
    seen_frames: u64,
    /// All frames were moved: the next transaction begins the write-ahead file again.
    may_restart: bool,
}

/// What SQLite says of the write-ahead file after each commit.
#[derive(Debug, Default)]
pub(super) struct Written {
    commits: AtomicU64,
    /// How many frames the file has.
    frames: AtomicU64,
}

impl Written {
    /// Notes a commit after which the file has so many frames.
    pub(super) fn commit(&self, frames: u64) {
        self.frames.store(frames, Ordering::Release);
        self.commits.fetch_add(1, Ordering::AcqRel);
    }
}

impl StoreFiles {
    /// Looks at the files of a connection that was just opened. `written` is what it tells.
    pub(super) fn new(main: &Path, wal: &Path, page_bytes: u64, written: Arc<Written>) -> io::Result<Self> {
        let main = Watched::new(main, MAIN_HEADER_BYTES)?;
        let wal = Watched::new(wal, wal::HEADER_BYTES)?;
        // What recovery left out is overwritten by the next transaction.
        let may_restart = true;
        let seen_commits = written.commits.load(Ordering::Acquire);
        Ok(Self { main, wal, page_bytes, written, seen_commits, seen_frames: 0, may_restart })
    }

    /// Both files are the ones that were opened, and nothing of them is missing.
    pub(super) fn check(&mut self) -> Result<(), LedgerError> {
        self.main.check(Header::Same)?;
        self.wal.check(Header::Same)?;
        Ok(())
    }

    /// The same after a commit, and the new frames end with a commit.
    pub(super) fn check_commit(&mut self) -> Result<(), LedgerError> {
        let commits = self.written.commits.load(Ordering::Acquire);
        if commits == self.seen_commits {
            // The transaction changed nothing.
            return self.check();
        }
        self.seen_commits = commits;
        let frames = self.written.frames.load(Ordering::Acquire);
        self.main.check(Header::Same)?;
        let restarted = std::mem::take(&mut self.may_restart);
        if restarted {
            // SQLite cuts a longer file to its limit when it begins again; the frames below are looked at all the same.
            self.wal.size = 0;
        }
        self.wal.check(if restarted { Header::New } else { Header::Same })?;
        let frame_bytes = wal::FRAME_HEADER_BYTES as u64 + self.page_bytes;
        if restarted || frames < self.seen_frames {
            self.seen_frames = 0;
        }
        let header = self.wal.header.clone();
        for frame in [(self.seen_frames + 1).min(frames), frames] {
            let at = wal::HEADER_BYTES as u64 + frame.saturating_sub(1) * frame_bytes;
            let mut found = [0; wal::FRAME_HEADER_BYTES];
            self.wal.file.read_exact_at(&mut found, at).map_err(|error| self.wal.cut_off(error))?;
            if !wal::belongs(&found, &header) || (frame == frames && !wal::is_commit(&found)) {
                return Err(self.wal.damaged("what was just written is not there"));
            }
        }
        self.wal.size = self.wal.size.max(wal::HEADER_BYTES as u64 + frames * frame_bytes);
        self.seen_frames = frames;
        Ok(())
    }

    /// Takes over what a checkpoint has changed. `complete` says that it moved all frames.
    pub(super) fn moved(&mut self, complete: bool) -> Result<(), LedgerError> {
        self.main.renew()?;
        if complete {
            self.may_restart = true;
            self.seen_frames = 0;
            // SQLite cuts it to its limit when it begins again.
            self.wal.size = 0;
        }
        Ok(())
    }

    /// The size of the write-ahead file.
    pub(super) fn wal_bytes(&self) -> u64 {
        self.wal.file.metadata().map_or(0, |data| data.len())
    }
}

/// What the header must be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Header {
    /// What it was.
    Same,
    /// Any that is valid.
    New,
}

/// One file, as it was when it was last good.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    file: File,
    identity: FileIdentity,
    /// It never gets smaller than this.
    size: u64,
    /// Empty if the file was.
    header: Vec<u8>,
    header_bytes: usize,
}

impl Watched {
    fn new(path: &Path, header_bytes: usize) -> io::Result<Self> {
        let file = File::open(path)?;
        let data = file.metadata()?;
        let mut watched = Self {
            path: path.to_owned(),
            identity: FileIdentity::of(&data),
            size: data.len(),
            header: Vec::new(),
            header_bytes,
            file,
        };
        watched.header = watched.read_header(data.len())?;
        Ok(watched)
    }

    fn renew(&mut self) -> Result<(), LedgerError> {
        let size = self.file.metadata()?.len();
        self.header = self.read_header(size)?;
        self.size = size;
        Ok(())
    }

    fn read_header(&self, size: u64) -> io::Result<Vec<u8>> {
        if size == 0 {
            return Ok(Vec::new());
        }
        let mut header = vec![0; self.header_bytes];
        self.file.read_exact_at(&mut header, 0)?;
        Ok(header)
    }

    fn check(&mut self, expected: Header) -> Result<(), LedgerError> {
        let data = std::fs::metadata(&self.path);
        let data = data.ok().filter(|data| FileIdentity::of(data) == self.identity);
        let size = data.ok_or_else(|| LedgerError::Replaced(self.path.clone()))?.len();
        if size < self.size {
            return Err(self.damaged("it was cut off"));
        }
        self.size = self.size.max(size);
        let found = self.read_header(size).map_err(|error| self.cut_off(error))?;
        if expected == Header::New {
            if !wal::is_header(&found) {
                return Err(self.damaged("its header was overwritten"));
            }
            self.header = found;
        } else if found != self.header {
            return Err(self.damaged("its header was overwritten"));
        }
        Ok(())
    }

    fn damaged(&self, what: &'static str) -> LedgerError {
        LedgerError::Damaged { path: self.path.clone(), what }
    }

    fn cut_off(&self, error: io::Error) -> LedgerError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("it was cut off"),
            _ => error.into(),
        }
    }
}

/// Tells a file from another of the same name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    pub(super) fn of(data: &Metadata) -> Self {
        Self { device: data.dev(), inode: data.ino() }
    }
}
