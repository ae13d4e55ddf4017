//! The writer's side of the store: one write and one sync for each transaction.
//!
//! A transaction is a frame at the end of the last segment. One that failed is cut off again, so the file never has
//! anything behind its last frame that a later one could follow. A new segment begins with its first frame, in the same write.
//!
//! Where transactions are small, zeros are written after one for those to come: a file system with a journal then need not write
//! a new size of the file with each sync.
//!
//! The directory is locked as long as it is open, against tools that read it. The files are looked at before a
//! transaction begins and before it is acknowledged: one that was unlinked can still be written, but nobody would find
//! what is in it.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::super::AuditError;
use super::super::chain::{StoredRow, time_of};
use super::super::files::{DirectoryLock, FileIdentity};
use super::super::ledger::{Cut, Ledger, LedgerError, TRIM_ROWS, Trimmed};
use super::super::record::{GENESIS_HASH, Head, Tip, from_nanos, to_nanos};
use super::current::{CurrentSegment, create_file, replace, with_zeros};
use super::damaged::{has_damaged, keep_damaged, remove_damaged};
use super::format::{self, FRAME_HEADER_BYTES, FrameHeader, HEADER_BYTES, SegmentHeader};
use super::{Segment, SegmentStore, path_of};
use crate::file::sync_parent;

/// A time further ahead than this says that the clock was wrong when the event was recorded.
const CLOCK_SLACK: Duration = Duration::from_secs(24 * 60 * 60);
/// A segment ends when it has this share of the age that records may reach, so that no file has what is much older.
const AGE_SHARE: i64 = 32;
/// How many bytes of records are looked at in one step of retention.
const TRIM_BYTES: usize = 4 << 20;
/// What a probe writes.
const PROBE_BYTES: usize = 64 << 10;
/// How long an opening waits for a tool that reads the store.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// The store, open for writing.
#[derive(Debug)]
pub(in super::super) struct SegmentLedger {
    dir: PathBuf,
    log_id: Uuid,
    created: bool,
    /// How large a segment gets before the next begins.
    segment_bytes: u64,
    open: Option<OpenStore>,
    /// The newest record when it was last open.
    last_known: Option<u64>,
    /// The frame that is being made; its memory is used again.
    frame: Vec<u8>,
    /// There was a transaction since it was last asked whether there is one.
    is_busy: bool,
    pending: Option<PendingFrame>,
    /// How many bytes all segments may have, as if the disk were full then.
    #[cfg(test)]
    limit_bytes: Option<u64>,
}

#[derive(Debug)]
struct OpenStore {
    store: SegmentStore,
    current: CurrentSegment,
    /// The next transaction begins a new segment.
    ends: bool,
    /// Which segment was looked at last, of those that are not written any more.
    looked_at: usize,
    /// There are files with records that were damaged.
    has_damaged: bool,
    /// The directory; locked.
    _lock: DirectoryLock,
}

/// What a transaction has so far.
#[derive(Clone, Copy, Debug)]
struct PendingFrame {
    rows: u32,
    /// The record before its first.
    before: Tip,
    tip: Tip,
    base: Tip,
    accounted: u64,
}

impl Drop for SegmentLedger {
    fn drop(&mut self) {
        if let Some(open) = &mut self.open {
            // If it stays as it is, the next start does this.
            _ = open.current.shorten();
        }
    }
}

impl SegmentLedger {
    /// Opens the store in a directory, or makes one if nothing is there. The caller holds the lock of the state directory. Of a
    /// store that is there nothing is changed before [`Self::settle`]. `acknowledged` is as for [`SegmentStore::open`].
    pub(in super::super) fn open(
        dir: &Path,
        segment_bytes: u64,
        acknowledged: Option<u64>,
    ) -> Result<Self, AuditError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(AuditError::io("create", dir))?;
        let created =
            super::list(dir).map_err(AuditError::io("read", dir))?.iter().all(|path| is_empty(path));
        if created {
            let header = SegmentHeader { log_id: Uuid::new_v4(), before: START, base: START, accounted: 0 };
            create(dir, &header).map_err(AuditError::io("create the audit log in", dir))?;
        }
        let open = OpenStore::open(dir, acknowledged)?;
        let log_id = open.store.log_id();
        let (dir, frame) = (dir.to_owned(), Vec::new());
        Ok(Self {
            dir,
            log_id,
            created,
            segment_bytes,
            open: Some(open),
            last_known: acknowledged,
            frame,
            is_busy: false,
            pending: None,
            #[cfg(test)]
            limit_bytes: None,
        })
    }

    /// Makes a store that goes on after a place: for records that another store had.
    pub(in super::super) fn create(
        dir: &Path,
        segment_bytes: u64,
        log_id: Uuid,
        base: Tip,
        accounted: u64,
    ) -> Result<Self, AuditError> {
        DirBuilder::new().mode(0o700).create(dir).map_err(AuditError::io("create", dir))?;
        let header = SegmentHeader { log_id, before: base, base, accounted };
        create(dir, &header).map_err(AuditError::io("create the audit log in", dir))?;
        Self::open(dir, segment_bytes, None)
    }

    /// The id of the log.
    pub(in super::super) const fn log_id(&self) -> Uuid {
        self.log_id
    }

    /// Whether `open` made the store.
    pub(in super::super) const fn created(&self) -> bool {
        self.created
    }

    /// The bytes at the end that belong to no whole transaction.
    pub(in super::super) fn torn_bytes(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.store.torn_bytes())
    }

    /// What was found damaged elsewhere than in a record when it was opened: the newest record is before it.
    #[cfg(test)]
    pub(super) fn known_damage(&self) -> Option<&str> {
        self.open.as_ref()?.store.damage()
    }

    /// What is damaged so that records cannot be told apart, if the store is small.
    pub(in super::super) fn find_broken_frames(&self) -> Result<Option<String>, LedgerError> {
        self.open.as_ref().ok_or(LedgerError::NotOpen)?.store.find_broken_frames()
    }

    /// What is damaged anywhere; reads everything. `None` if that is nothing.
    pub(in super::super) fn find_damage(&self) -> Result<Option<String>, LedgerError> {
        self.open.as_ref().ok_or(LedgerError::NotOpen)?.store.find_damage()
    }

    /// Brings the end in order, with the first transaction at the latest: cuts off what a crash tore, and writes again what may only be
    /// in the memory of the system.
    pub(in super::super) fn settle(&mut self) -> Result<(), LedgerError> {
        self.open.as_mut().ok_or(LedgerError::NotOpen)?.settle()
    }

    /// Goes on after another place than that of the newest record: for a store whose records have a hole.
    pub(in super::super) fn go_on_after(&mut self, place: Tip) -> Result<(), LedgerError> {
        self.open.as_mut().ok_or(LedgerError::NotOpen)?.store.tip = place;
        Ok(())
    }

    /// Puts other records in the place of those from the first of them to the newest, which go to a file of their own. Durable
    /// when it returns; after a crash meanwhile the old ones are there, or those that were replaced are missing.
    pub(in super::super) fn replace_end(&mut self, rows: &[StoredRow], now: i64) -> Result<(), LedgerError> {
        let Some(first) = rows.first() else { return Ok(()) };
        let kept = first.sequence.saturating_sub(1);
        let open = self.open.as_mut().ok_or(LedgerError::NotOpen)?;
        let (tip, base, accounted) = (open.store.tip, open.store.base, open.store.accounted);
        let begins = |segment: &Segment| segment.header.before.head.sequence <= kept;
        let at = open.store.segments.partition_point(begins).saturating_sub(1);
        let Some(segment) = open.store.segments.get(at) else { return Err(LedgerError::NotOpen) };
        let (path, header) = (segment.path.clone(), segment.header);
        // All of it is read before anything is changed: what goes, and the good records of the same segment, if retention has left any.
        let replaced = open.store.read_all(kept, tip.head.sequence)?;
        let from = header.before.head.sequence.max(base.head.sequence);
        let mut kept_rows = open.store.read_all(from, kept)?;
        kept_rows.extend_from_slice(rows);
        keep_damaged(&self.dir, self.log_id, &replaced, now)?;
        // From the end on, so that no hole comes to be.
        while open.store.segments.len() > at + 1
            && let Some(segment) = open.store.segments.pop()
        {
            std::fs::remove_file(&segment.path)?;
            sync_parent(&segment.path)?;
        }
        let mut bytes = header.encode().to_vec();
        format::put_frames(&mut bytes, &kept_rows, accounted, base);
        replace(&path, &bytes)?;
        self.reopen()
    }

    /// Fails transactions that would make the store larger than this, as a full disk would.
    #[cfg(test)]
    pub(in super::super) const fn limit(&mut self, bytes: Option<u64>) {
        self.limit_bytes = bytes;
    }

    #[cfg(test)]
    pub(super) fn store_mut(&mut self) -> &mut SegmentStore {
        self.store().unwrap()
    }

    /// Closes the store, as a failed attempt to open it again does.
    #[cfg(test)]
    pub(in super::super) fn close(&mut self) {
        self.open = None;
    }

    fn store(&mut self) -> Result<&mut SegmentStore, LedgerError> {
        Ok(&mut self.open.as_mut().ok_or(LedgerError::NotOpen)?.store)
    }

    fn pending(&mut self) -> Result<&mut PendingFrame, LedgerError> {
        self.pending.as_mut().ok_or(LedgerError::NotOpen)
    }

    /// Sets the base, in a transaction of its own.
    fn set_base(&mut self, base: Tip) -> Result<(), LedgerError> {
        self.begin()?;
        self.pending()?.base = base;
        self.commit()
    }

    /// The last record that is to be deleted, and what goes with it.
    fn last_to_trim(&mut self, cut: Cut) -> Result<Option<(Tip, Trimmed)>, LedgerError> {
        let store = self.store()?;
        let base = store.base.head.sequence;
        // The end of the oldest segment, unless it is the last.
        let end = store.segments.get(1).map(|next| next.header.before);
        let all = |last: Tip| last.head.sequence.saturating_sub(base);
        match cut {
            Cut::Segment(young) => {
                let Some(last) = end else { return Ok(None) };
                let rows = all(last);
                let old = match store.first_from(young) {
                    _ if last.latest_time < young => rows,
                    Ok(first) => first.unwrap_or(u64::MAX).saturating_sub(base + 1).min(rows),
                    // What cannot be read is deleted for its size all the same.
                    Err(LedgerError::Corrupt { .. }) => 0,
                    Err(error) => return Err(error),
                };
                Ok(Some((last, Trimmed { rows, young: rows - old })))
            }
            Cut::OlderThan(cutoff, now, hold) => {
                let ahead = to_nanos(from_nanos(now) + CLOCK_SLACK);
                let mut found = None;
                let mut seen = Trimmed::default();
                let rows = match store.read(base, hold, 1, usize::MAX) {
                    // Most of the time nothing is old: one record tells.
                    Ok(first) if first.first().is_none_or(|row| is_young(row, cutoff, ahead)) => {
                        return Ok(None);
                    }
                    Ok(_) => store.read(base, hold, TRIM_ROWS, TRIM_BYTES)?,
                    // What cannot be read goes when all that was recorded up to its end is old.
                    Err(error @ LedgerError::Corrupt { .. }) => {
                        let is_old = |last: &Tip| last.latest_time < cutoff && last.head.sequence <= hold;
                        let last = end.filter(is_old).ok_or(error)?;
                        return Ok(Some((last, Trimmed { rows: all(last), young: 0 })));
                    }
                    Err(error) => return Err(error),
                };
                for row in rows {
                    seen.rows += 1;
                    if is_young(&row, cutoff, ahead) {
                        break;
                    }
                    // A time that the clock has not reached says nothing: its neighbours decide.
                    if time(&row) < cutoff {
                        found = Some((row.tip(), seen));
                    }
                }
                Ok(found)
            }
        }
    }
}

fn time(row: &StoredRow) -> i64 {
    time_of(&row.content).unwrap_or(0)
}

/// Whether a record is from this time or later, but not from one that the clock has not reached.
fn is_young(row: &StoredRow, cutoff: i64, ahead: i64) -> bool {
    (cutoff..=ahead).contains(&time(row))
}

/// What is before the first record of a log.
const START: Tip = Tip { head: Head { sequence: 0, hash: GENESIS_HASH }, latest_time: i64::MIN };

impl Ledger for SegmentLedger {
    fn tip(&mut self) -> Result<Tip, LedgerError> {
        Ok(self.store()?.tip())
    }

    fn base(&mut self) -> Result<Tip, LedgerError> {
        Ok(self.store()?.base())
    }

    fn accounted(&mut self) -> Result<u64, LedgerError> {
        Ok(self.store()?.accounted)
    }

    fn tip_at(&mut self, sequence: u64) -> Result<Option<Tip>, LedgerError> {
        self.store()?.tip_at(sequence)
    }

    fn page(
        &mut self,
        after: u64,
        until: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<StoredRow>, LedgerError> {
        self.store()?.read(after, until, limit, bytes)
    }

    fn begin(&mut self) -> Result<(), LedgerError> {
        let open = self.open.as_mut().ok_or(LedgerError::NotOpen)?;
        if !open.current.is_settled {
            open.settle()?;
        }
        open.current.check()?;
        let SegmentStore { tip, base, accounted, .. } = open.store;
        self.frame.clear();
        // Room for the headers, which are known at the end.
        self.frame.resize(HEADER_BYTES + FRAME_HEADER_BYTES, 0);
        self.pending = Some(PendingFrame { rows: 0, before: tip, tip, base, accounted });
        Ok(())
    }

    fn append(&mut self, rows: &[StoredRow]) -> Result<(), LedgerError> {
        let frame = self.pending.as_mut().ok_or(LedgerError::NotOpen)?;
        // Pages of new memory would cost more than what is written to them.
        self.frame.reserve(rows.iter().map(format::row_bytes).sum());
        for row in rows {
            if row.sequence != frame.tip.head.sequence.wrapping_add(1) {
                return Err(LedgerError::Diverged);
            }
            format::put_row(&mut self.frame, row);
            frame.rows += 1;
            frame.tip = row.tip();
        }
        Ok(())
    }

    fn account(&mut self, accounted: u64) -> Result<(), LedgerError> {
        self.pending()?.accounted = accounted;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), LedgerError> {
        let frame = *self.pending()?;
        let open = self.open.as_mut().ok_or(LedgerError::NotOpen)?;
        let store = &open.store;
        if frame.rows == 0 && frame.accounted == store.accounted && frame.base == store.base {
            self.pending = None;
            return open.current.check();
        }
        let (headers, body) = self.frame.split_at_mut(HEADER_BYTES + FRAME_HEADER_BYTES);
        let frame_header =
            FrameHeader::of(body, frame.rows, frame.before.head.sequence, frame.accounted, frame.base);
        let frame_bytes = frame_header.frame_bytes();
        let (segment_space, frame_space) = headers.split_at_mut(HEADER_BYTES);
        frame_space.copy_from_slice(&frame_header.encode());
        #[cfg(test)]
        if self.limit_bytes.is_some_and(|limit| store.bytes() + frame_bytes > limit) {
            return Err(io::Error::from_raw_os_error(28).into());
        }
        let has_rows = store.segments.last().is_some_and(|last| last.first() <= frame.before.head.sequence);
        // What only says that records are deleted takes no new file, which a full volume may not have room for.
        let is_full = open.current.bytes
            >= if frame.rows > 0 { self.segment_bytes } else { self.segment_bytes.saturating_mul(2) };
        if has_rows && ((open.ends && frame.rows > 0) || is_full) {
            let header = SegmentHeader {
                log_id: self.log_id,
                before: frame.before,
                base: store.base,
                accounted: store.accounted,
            };
            segment_space.copy_from_slice(&header.encode());
            // The one before it needs no room any more.
            open.current.shorten()?;
            open.begin_segment(&self.dir, header, &mut self.frame)?;
        } else {
            let at = open.current.bytes;
            let end = at + frame_bytes;
            if end > open.current.length {
                let grows_in_steps = frame.rows > 0;
                open.current.length =
                    if grows_in_steps { with_zeros(&mut self.frame, frame_bytes, end) } else { end };
            }
            open.current.file.write_all_at(self.frame.get(HEADER_BYTES..).unwrap_or_default(), at)?;
            open.current.file.sync_data()?;
            open.current.bytes = end;
            if let Some(segment) = open.store.segments.last_mut() {
                segment.bytes = open.current.bytes;
                segment.note(frame.before.head.sequence, at);
            }
        }
        open.store.tip = frame.tip;
        open.store.base = frame.base;
        open.store.accounted = frame.accounted;
        self.pending = None;
        self.is_busy = true;
        open.current.check()
    }

    fn rollback(&mut self) {
        self.pending = None;
        if let Some(open) = &mut self.open
            && open.current.shorten().is_err()
        {
            // What is behind the last frame must not be followed by another: it is opened again before the next.
            self.open = None;
        }
    }

    fn probe(&mut self) -> Result<(), LedgerError> {
        let open = self.open.as_mut().ok_or(LedgerError::NotOpen)?;
        open.current.check()?;
        #[cfg(test)]
        if self.limit_bytes.is_some_and(|limit| open.store.bytes() + PROBE_BYTES as u64 > limit) {
            return Err(io::Error::from_raw_os_error(28).into());
        }
        let path = self.dir.join("probe");
        let written = create_file(&path, false).and_then(|file| {
            file.write_all_at(&[0; PROBE_BYTES], 0)?;
            file.sync_all()
        });
        let removed = std::fs::remove_file(&path);
        written?;
        Ok(removed?)
    }

    fn usage(&mut self) -> Result<u64, LedgerError> {
        Ok(self.store()?.bytes())
    }

    fn look(&mut self) -> Result<(), LedgerError> {
        if !std::mem::take(&mut self.is_busy) {
            self.frame = Vec::new();
        }
        self.open.as_mut().ok_or(LedgerError::NotOpen)?.look_at_one()
    }

    fn trim(&mut self, cut: Cut) -> Result<Trimmed, LedgerError> {
        if let Cut::OlderThan(cutoff, now, _) = cut {
            // What was set aside is as personal as what was not.
            if let Some(open) = self.open.as_mut().filter(|open| open.has_damaged) {
                remove_damaged(&self.dir, cutoff)?;
                open.has_damaged = has_damaged(&self.dir)?;
            }
            self.end_old_segment(now, now.saturating_sub(cutoff))?;
        }
        match self.last_to_trim(cut)? {
            None => {
                // What an earlier attempt has left.
                self.leave_dead_segment()?;
                Ok(Trimmed::default())
            }
            Some((last, trimmed)) => {
                self.set_base(last)?;
                self.leave_dead_segment()?;
                Ok(trimmed)
            }
        }
    }

    fn reopen(&mut self) -> Result<(), LedgerError> {
        self.pending = None;
        if let Some(OpenStore { store, current, .. }) = self.open.take() {
            self.last_known = Some(store.tip.head.sequence);
            // Nothing but its header is needed to find what else is left of it.
            current.restore_header()?;
        }
        let replaced = || LedgerError::Replaced(self.dir.clone());
        let mut open = match OpenStore::open(&self.dir, self.last_known) {
            Ok(open) if open.store.log_id == self.log_id => open,
            Ok(_) => return Err(replaced()),
            Err(AuditError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(replaced());
            }
            Err(AuditError::Io { source, .. }) => return Err(source.into()),
            Err(error @ AuditError::StoreRead { .. }) => return Err(io::Error::other(error).into()),
            Err(error) => {
                return Err(LedgerError::Corrupt { path: self.dir.clone(), what: error.to_string() });
            }
        };
        if let Some(what) = open.store.damage() {
            return Err(LedgerError::Corrupt { path: self.dir.clone(), what: what.to_owned() });
        }
        open.settle()?;
        self.open = Some(open);
        Ok(())
    }
}

impl SegmentLedger {
    /// Lets the last segment end if it began long ago, for the age that records may reach.
    fn end_old_segment(&mut self, now: i64, max_age: i64) -> Result<(), LedgerError> {
        let open = self.open.as_mut().ok_or(LedgerError::NotOpen)?;
        let Some(segment) = open.store.segments.last() else { return Ok(()) };
        let first = segment.first();
        if open.ends || first > open.store.tip.head.sequence {
            return Ok(());
        }
        open.ends = match open.store.read(first.saturating_sub(1), first, 1, usize::MAX) {
            // If its first record is not there any more, that was too old itself. A clock may have been wrong.
            Ok(began) => began
                .first()
                .is_none_or(|row| now.saturating_sub(time(row)).saturating_abs() > max_age / AGE_SHARE),
            Err(LedgerError::Corrupt { .. }) => true,
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// Begins a new segment, and removes the last, if retention has left nothing of it.
    fn leave_dead_segment(&mut self) -> Result<(), LedgerError> {
        let open = self.open.as_mut().ok_or(LedgerError::NotOpen)?;
        let SegmentStore { tip, base, accounted, log_id, .. } = open.store;
        let has_rows = open.store.segments.last().is_some_and(|last| last.first() <= tip.head.sequence);
        if has_rows && base.head.sequence == tip.head.sequence {
            let header = SegmentHeader { log_id, before: tip, base, accounted };
            let mut bytes = header.encode().to_vec();
            open.begin_segment(&self.dir, header, &mut bytes)?;
        }
        Ok(open.remove_dead()?)
    }
}

impl OpenStore {
    fn open(dir: &Path, acknowledged: Option<u64>) -> Result<Self, AuditError> {
        let lock = lock(dir)?;
        let store = SegmentStore::open(dir, acknowledged)?;
        let Some(segment) = store.segments.last() else {
            return Err(AuditError::Damaged { what: "it has no segment".to_owned() });
        };
        let current = CurrentSegment::open(segment).map_err(AuditError::io("open", &segment.path))?;
        // Memory has none of its records, and the first may be old.
        let ends = segment.first() <= store.tip.head.sequence;
        let has_damaged = has_damaged(dir).map_err(AuditError::io("read", dir))?;
        Ok(Self { store, current, ends, looked_at: 0, has_damaged, _lock: lock })
    }

    fn settle(&mut self) -> Result<(), LedgerError> {
        if let Some(torn) = self.store.tail.torn_segment.take() {
            std::fs::remove_file(torn)?;
        }
        self.current.settle(self.store.tail.unsure_from)?;
        self.store.tail = super::Tail::default();
        sync_parent(&self.current.path)?;
        // Retention tries again.
        _ = self.remove_dead();
        Ok(())
    }

    /// Writes a new segment, which is the last from then on. Zeros may come to the bytes.
    fn begin_segment(
        &mut self,
        dir: &Path,
        header: SegmentHeader,
        bytes: &mut Vec<u8>,
    ) -> Result<(), LedgerError> {
        let end = bytes.len() as u64;
        let length = with_zeros(bytes, end, end);
        let path = path_of(dir, header.before.head.sequence.saturating_add(1));
        let write = || -> io::Result<CurrentSegment> {
            // A file of this name can only be what is left of an attempt that failed.
            let file = create_file(&path, true)?;
            file.write_all_at(bytes, 0)?;
            file.sync_all()?;
            sync_parent(&path)?;
            let identity = FileIdentity::of(&file.metadata()?);
            let (path, header) = (path.clone(), header.encode());
            Ok(CurrentSegment { path, file, identity, header, bytes: end, length, is_settled: true })
        };
        match write() {
            Ok(current) => {
                let mut segment = Segment { path, header, bytes: current.bytes, index: Vec::new() };
                segment.note(header.before.head.sequence, HEADER_BYTES as u64);
                self.store.segments.push(segment);
                self.current = current;
                self.ends = false;
                Ok(())
            }
            Err(error) => {
                _ = std::fs::remove_file(&path);
                // If it is still there, nothing may be added to the one before it: the next attempt makes it anew.
                self.ends = true;
                Err(error.into())
            }
        }
    }

    /// Removes the segments of which retention has left nothing.
    fn remove_dead(&mut self) -> io::Result<()> {
        self.store.forget_dead();
        while let Some(path) = self.store.dead.last() {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => self.store.dead.pop(),
            };
        }
        Ok(())
    }

    /// Looks at one of the segments that are not written any more, another each time: whether it is there, whole.
    fn look_at_one(&mut self) -> Result<(), LedgerError> {
        let Some((_, ended)) = self.store.segments.split_last() else { return Ok(()) };
        self.looked_at = if self.looked_at + 1 < ended.len() { self.looked_at + 1 } else { 0 };
        let Some(segment) = ended.get(self.looked_at) else { return Ok(()) };
        let what = match std::fs::metadata(&segment.path) {
            Ok(data) if data.len() == segment.bytes => return Ok(()),
            Ok(_) => "its size is not what it was",
            Err(error) if error.kind() == io::ErrorKind::NotFound => "it is missing",
            Err(error) => return Err(error.into()),
        };
        Err(LedgerError::Corrupt { path: segment.path.clone(), what: what.to_owned() })
    }
}

/// Takes the lock of a store's directory for writing.
fn lock(dir: &Path) -> Result<DirectoryLock, AuditError> {
    let started = Instant::now();
    loop {
        match DirectoryLock::of_writer(dir)? {
            Some(lock) => return Ok(lock),
            None if started.elapsed() < LOCK_PATIENCE => std::thread::sleep(Duration::from_millis(10)),
            None => return Err(AuditError::StoreRead { path: dir.to_owned() }),
        }
    }
}

/// Makes the first segment of a store.
fn create(dir: &Path, header: &SegmentHeader) -> io::Result<()> {
    let path = path_of(dir, header.before.head.sequence.saturating_add(1));
    replace(&path, &header.encode())?;
    sync_parent(dir)
}

fn is_empty(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|data| data.len() == 0)
}
