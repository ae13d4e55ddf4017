//! Stores that somebody has changed, checksums and all: for tests of what notices it.

use std::path::Path;

use uuid::Uuid;

use super::super::chain::StoredRow;
use super::super::record::{Head, Tip};
use super::format::{SegmentHeader, put_frames};
use super::{SegmentStore, list, path_of};

/// What a store has, to be changed.
#[derive(Clone, Debug)]
pub(in super::super) struct Tampered {
    pub(in super::super) log_id: Uuid,
    pub(in super::super) base: Tip,
    pub(in super::super) rows: Vec<StoredRow>,
}

impl Tampered {
    /// The record with a sequence.
    pub(in super::super) fn row(&mut self, sequence: u64) -> &mut StoredRow {
        self.rows.iter_mut().find(|row| row.sequence == sequence).unwrap()
    }

    /// Overwrites the content of records.
    pub(in super::super) fn zero(&mut self, wanted: impl Fn(u64) -> bool) {
        for row in self.rows.iter_mut().filter(|row| wanted(row.sequence)) {
            row.content = vec![0; row.content.len()].into();
        }
    }

    /// Removes records.
    pub(in super::super) fn remove(&mut self, wanted: impl Fn(u64) -> bool) {
        self.rows.retain(|row| !wanted(row.sequence));
    }
}

/// A change that captures nothing.
pub(in super::super) type Tampering = fn(&mut Tampered);

/// Writes the store in a directory anew, with something else in it. Nobody has it open.
pub(in super::super) fn tamper(dir: &Path, change: impl FnOnce(&mut Tampered)) {
    let mut store = SegmentStore::open(dir, None).unwrap();
    let rows = store.read(0, u64::MAX, usize::MAX, usize::MAX).unwrap();
    let accounted = store.accounted;
    let mut tampered = Tampered { log_id: store.log_id(), base: store.base(), rows };
    change(&mut tampered);
    list(dir).unwrap().iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let Tampered { log_id, base, rows } = tampered;
    let first = rows.first().map_or(base.head.sequence + 1, |row| row.sequence);
    let before = match base.head.sequence + 1 == first {
        true => base,
        false => Tip { head: Head { sequence: first - 1, hash: [7; 32] }, latest_time: base.latest_time },
    };
    let mut bytes = SegmentHeader { log_id, before, base, accounted }.encode().to_vec();
    put_frames(&mut bytes, &rows, accounted, base);
    std::fs::write(path_of(dir, first), bytes).unwrap();
}
