//! Small files that are looked at every second, by their state alone: the material of TLS, the access file.
//!
//! A second is soon enough for them, and no event can get lost: renames, swapped links anywhere on the path and filesystems
//! without events need no care (`docs/adr/0011-poll-small-files.md`). The policy, which can be a large tree, is watched instead.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::store::read::Stamp;

/// How often to look.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Files, and the state that they had when they were looked at last.
#[derive(Debug)]
pub(super) struct FollowedFiles {
    paths: Vec<PathBuf>,
    stamps: Vec<Option<Stamp>>,
    /// No file changed so shortly before the last look that an equal stamp proves nothing.
    is_settled: bool,
    was_written: bool,
}

impl FollowedFiles {
    /// Files that nobody looked at yet.
    pub(super) const fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, stamps: Vec::new(), is_settled: false, was_written: false }
    }

    /// Looks at all of them. Returns `true` if one may have changed since the last look.
    pub(super) fn look(&mut self, now: SystemTime) -> bool {
        let stamp = |path: &PathBuf| fs::metadata(path).ok().map(|found| Stamp::of(&found));
        let stamps: Vec<_> = self.paths.iter().map(stamp).collect();
        self.was_written = stamps != self.stamps;
        let changed = self.was_written || !self.is_settled;
        self.is_settled = !stamps.iter().flatten().any(|stamp| stamp.changed_near(now, GRAIN));
        self.stamps = stamps;
        changed
    }

    /// Takes every file for changed at the next look.
    pub(super) const fn forget_state(&mut self) {
        self.is_settled = false;
    }

    /// Returns `true` if the last look found another state than the one before.
    pub(super) const fn was_written(&self) -> bool {
        self.was_written
    }
}

/// Coarser than the clock of any filesystem.
const GRAIN: Duration = Duration::from_secs(2);
