//! The copy on disk of the set that was accepted last: what is to be written, and when again if that failed.
//!
//! Writing takes as long as the disk does, so it is a job for another thread: neither the first answer nor the next edit
//! waits for it. The newest set wins.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::{error, info};

use crate::backoff::Backoff;
use crate::status::{StatusTracker, kind};
use crate::store::Active;
use crate::store::last_good::{self, LastGoodError};
use crate::store::read::SourceFile;
use crate::store::state::Moment;

/// How soon, and how late at most, writing is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A set that is to be written.
#[derive(Debug)]
struct Unsaved {
    generation: u64,
    digest: String,
    files: Vec<SourceFile>,
}

/// What is on disk and what is not.
#[derive(Debug)]
pub(super) struct LastGoodCopy {
    state_dir: PathBuf,
    /// What is not written yet and is not being written.
    unsaved: Option<Unsaved>,
    is_writing: bool,
    /// When to write again after a failure.
    again: Option<Instant>,
    backoff: Backoff,
}

/// A set that is being written.
#[derive(Debug)]
pub(in crate::server) struct SavingJob {
    state_dir: PathBuf,
    set: Unsaved,
}

/// What became of it.
#[derive(Debug)]
pub(in crate::server) struct SavingOutcome {
    set: Unsaved,
    result: Result<(), LastGoodError>,
}

impl SavingJob {
    /// Writes. Blocks.
    pub(in crate::server) fn run(self) -> SavingOutcome {
        let Self { state_dir, set } = self;
        let result = last_good::keep(&state_dir, &set.digest, &set.files);
        SavingOutcome { set, result }
    }
}

impl LastGoodCopy {
    pub(super) const fn new(state_dir: PathBuf) -> Self {
        let (first, longest) = RETRY;
        let backoff = Backoff::new(first, longest);
        Self { state_dir, unsaved: None, is_writing: false, again: None, backoff }
    }

    pub(super) fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// A set is to be written in the place of the one before.
    pub(super) fn keep(&mut self, active: &Active, files: Vec<SourceFile>) {
        let digest = active.set.digest().to_string();
        self.unsaved = Some(Unsaved { generation: active.generation, digest, files });
        self.again = None;
    }

    /// What is to be written now, if anything is; nothing is as long as something is being written.
    pub(super) fn start(&mut self, now: Instant) -> Option<SavingJob> {
        if self.is_writing || self.again.is_some_and(|again| now < again) {
            return None;
        }
        let set = self.unsaved.take()?;
        self.is_writing = true;
        Some(SavingJob { state_dir: self.state_dir.clone(), set })
    }

    /// When to try again; nothing while something is being written.
    pub(super) const fn next(&self) -> Option<Instant> {
        if self.is_writing { None } else { self.again }
    }

    /// Takes an outcome; returns `true` if nothing is left to be written.
    pub(super) fn finish(&mut self, outcome: SavingOutcome, tracker: &StatusTracker, now: Moment) -> bool {
        let SavingOutcome { set, result } = outcome;
        self.is_writing = false;
        match result {
            Ok(()) => {
                if self.backoff.failures() > 0 {
                    info!(generation = set.generation, "the last good policy is saved again");
                }
                self.backoff.reset();
                self.again = None;
                if self.unsaved.is_none() {
                    tracker.toggle(kind::LAST_GOOD_NOT_SAVED, None, now.time);
                }
            }
            Err(error) => {
                let generation = set.generation;
                if self.backoff.failures() == 0 {
                    error!(%error, generation, "the last good policy could not be saved");
                }
                let message = format!(
                    "{error}; a start from the last good policy would serve an older one than generation {generation}"
                );
                tracker.toggle(kind::LAST_GOOD_NOT_SAVED, Some(("WriteFailed", message)), now.time);
                self.again = Some(now.instant + self.backoff.failed());
                self.unsaved.get_or_insert(set);
            }
        }
        self.unsaved.is_none()
    }
}
