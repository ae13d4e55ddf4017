//! The volume that the store is on: how much of it is free.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A volume is nearly full below a tenth of its size, or below this.
const LEAST_FREE: u64 = 1 << 30;

/// The size of a volume and what of it this process may still fill, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Volume {
    /// All of it.
    pub total: u64,
    /// What is free.
    pub free: u64,
}

/// Looks at the volume of a file; a test says what it likes.
pub type VolumeProbe = Arc<dyn Fn(&Path) -> io::Result<Volume> + Send + Sync>;

impl Volume {
    /// Looks at the volume of a file.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let found = rustix::fs::statvfs(path)?;
        Ok(Self {
            total: found.f_blocks.saturating_mul(found.f_frsize),
            free: found.f_bavail.saturating_mul(found.f_frsize),
        })
    }

    /// Set if the volume is nearly full.
    pub(super) fn low(self) -> Option<StorageLow> {
        let threshold = LEAST_FREE.max(self.total / 10);
        (self.free < threshold).then_some(StorageLow { free: self.free, threshold })
    }
}

/// The volume of the store is nearly full.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StorageLow {
    /// The bytes that were free when it was noticed, or when they last changed by more than a
    /// tenth.
    pub free: u64,
    /// Below so many free bytes it counts as nearly full: a tenth of the volume, and at least 1 GiB.
    pub threshold: u64,
}

impl StorageLow {
    /// Returns `true` if `newer` says about the same.
    pub(super) const fn is_near(self, newer: Self) -> bool {
        self.threshold == newer.threshold && self.free.abs_diff(newer.free) <= self.free / 10
    }
}

impl fmt::Display for StorageLow {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        write!(
            out,
            "{} MiB are free, less than {} MiB (a tenth of it, and at least 1 GiB)",
            mib(self.free),
            mib(self.threshold)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_low_below_a_tenth_or_a_gibibyte() {
        #[track_caller]
        fn check(total: u64, free: u64, threshold: Option<u64>) {
            let volume = Volume { total, free };
            assert_eq!(volume.low(), threshold.map(|threshold| StorageLow { free, threshold }));
        }
        const GIB: u64 = 1 << 30;
        check(100 * GIB, 10 * GIB, None);
        check(100 * GIB, 10 * GIB - 1, Some(10 * GIB));
        check(5 * GIB, GIB, None);
        check(5 * GIB, GIB - 1, Some(GIB));
        let low = StorageLow { free: 300 << 20, threshold: GIB };
        assert_eq!(
            low.to_string(),
            "300 MiB are free, less than 1024 MiB (a tenth of it, and at least 1 GiB)"
        );
    }

    #[test]
    fn the_volume_of_a_file_can_be_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::of(folder.path()).unwrap();
        assert!(volume.total > 0 && volume.free <= volume.total, "{volume:?}");
        assert!(Volume::of(&folder.path().join("missing")).is_err());
    }
}
