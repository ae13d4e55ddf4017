//! The store of the log: segments, one file after the other, that are only ever added to.
//!
//! Here is what can be done with one that nobody else has open: finding out where it ends, and reading. The
//! writer's side is in [`ledger`], the bytes are in [`format`].

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::AuditError;
use super::chain::StoredRow;
use super::ledger::LedgerError;
use super::record::Tip;
use format::{FRAME_HEADER_BYTES, FrameHeader, HEADER_BYTES, HeaderProblem, Rows, SegmentHeader, VERSION};

mod current;
mod damaged;
pub(super) mod format;
mod ledger;
#[cfg(test)]
pub(super) mod tamper;

pub(super) use damaged::keep_damaged;
pub(super) use ledger::SegmentLedger;

/// How a segment's name ends.
const EXTENSION: &str = "log";
/// How many digits a sequence has in a name: all that one can have, so that names sort as sequences do.
const DIGITS: usize = 20;
/// The frames of a store up to this size are found by each start, which reads all of it; of a larger one those of the last segment
/// and of the newest records, and the walk over the chain finds the rest.
const CHECKED_BYTES: u64 = 64 << 20;
/// More than any transaction has: so much at the end was not torn by a crash.
const MOST_TORN_BYTES: u64 = 64 << 20;
/// How much is read at once where frames are small.
const WINDOW_BYTES: u64 = 64 << 10;
/// How far apart the frames are, at least, whose places are remembered.
const INDEX_BYTES: u64 = 64 << 10;

/// The segments of a store, and what they say of its ends.
#[derive(Debug)]
pub(super) struct SegmentStore {
    log_id: Uuid,
    /// Those that have records which retention left, in order; never empty.
    segments: Vec<Segment>,
    /// Those that have none any more, which a crash left.
    dead: Vec<PathBuf>,
    tip: Tip,
    base: Tip,
    accounted: u64,
    tail: Tail,
    damage: Option<String>,
}

/// One file.
#[derive(Debug)]
struct Segment {
    path: PathBuf,
    header: SegmentHeader,
    /// Up to the end of its last whole frame.
    bytes: u64,
    /// Places of frames that were come by: the sequence before the first record, and the offset.
    index: Vec<(u64, u64)>,
}

/// What a crash left at the end.
#[derive(Clone, Debug, Default)]
struct Tail {
    /// What belongs to no whole frame, and is no zero that was written for those to come.
    torn_bytes: u64,
    /// A last segment whose header was not written.
    torn_segment: Option<PathBuf>,
    /// Where the frames of the last segment begin that may never have reached the disk.
    unsure_from: u64,
}

impl SegmentStore {
    /// Reads the headers of all segments and the frames of the last. `acknowledged` is the last record that is known to
    /// have been acknowledged: what is damaged up to there was not torn by a crash. Changes nothing.
    ///
    /// # Errors
    ///
    /// The files cannot be read, or the oldest is not ours. What else is damaged is in [`Self::damage`].
    pub(super) fn open(dir: &Path, acknowledged: Option<u64>) -> Result<Self, AuditError> {
        let mut paths = list(dir).map_err(AuditError::io("read", dir))?.into_iter();
        let Some(first) = paths.next() else {
            return Err(AuditError::Damaged { what: "it has no segment".to_owned() });
        };
        let (mut segments, mut tail, mut damage) = (
            vec![Segment::open(first.clone())?.map_err(|problem| problem.error(&first))?],
            Tail::default(),
            None,
        );
        let log_id = segments.first().map(|first| first.header.log_id).unwrap_or_default();
        for path in paths.by_ref() {
            match Segment::open(path.clone())? {
                Ok(segment) if segment.header.log_id == log_id => {
                    segments.push(segment);
                    continue;
                }
                Ok(other) => {
                    damage = Some(format!("`{}` belongs to log `{}`", path.display(), other.header.log_id));
                }
                Err(problem @ HeaderProblem::Newer(_)) => return Err(problem.error(&path)),
                Err(problem) => match unwritten(&path).map_err(AuditError::io("read", &path))? {
                    // A crash came before its first frame was written; nothing of it was acknowledged.
                    Some(bytes) if problem == HeaderProblem::Missing => {
                        tail.torn_bytes = bytes;
                        tail.torn_segment = Some(path);
                    }
                    _ => damage = Some(problem.error(&path).to_string()),
                },
            }
            break;
        }
        let ended = segments.split_last().map_or(&[][..], |(_, ended)| ended);
        if let Some(long) = ended.iter().find(|segment| segment.bytes > MOST_TORN_BYTES) {
            damage = Some(format!(
                "`{}` has {} bytes, more than a segment can have",
                long.path.display(),
                long.bytes
            ));
        }
        if let (Some(torn), Some(next)) = (&tail.torn_segment, paths.next()) {
            damage = Some(format!("`{}` has no header, though `{}` follows", torn.display(), next.display()));
        }
        let Some(last) = segments.last() else {
            return Err(AuditError::Damaged { what: "it has no segment".to_owned() });
        };
        let SegmentHeader { before, base, accounted, .. } = last.header;
        let dead = Vec::new();
        let mut store = Self { log_id, segments, dead, tip: before, base, accounted, tail, damage };
        store.read_last(acknowledged).map_err(|error| match error {
            LedgerError::Io(source) => AuditError::Io { action: "read", path: dir.to_owned(), source },
            other => other.into(),
        })?;
        store.forget_dead();
        Ok(store)
    }

    /// The id of the log.
    pub(super) const fn log_id(&self) -> Uuid {
        self.log_id
    }

    /// The newest record, or the base if there is none.
    pub(super) const fn tip(&self) -> Tip {
        self.tip
    }

    /// What is known of the record before the oldest.
    pub(super) const fn base(&self) -> Tip {
        self.base
    }

    /// What is damaged elsewhere than in a record, as far as it was come by; the tip is before it then.
    pub(super) fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// The bytes at the end that belong to no whole frame.
    pub(super) const fn torn_bytes(&self) -> u64 {
        self.tail.torn_bytes
    }

    /// The bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Records after a sequence, up to another, in order: at most so many, and no more once they have so many bytes.
    ///
    /// # Errors
    ///
    /// The first of them cannot be read. What can be read goes first; the next call begins with what cannot.
    pub(super) fn read(
        &mut self,
        after: u64,
        until: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<StoredRow>, LedgerError> {
        let mut rows =
            RowPage { after: after.max(self.base.head.sequence), until, limit, bytes, rows: Vec::new() };
        let begins = |segment: &Segment| segment.header.before.head.sequence <= rows.after;
        let first = self.segments.partition_point(begins).saturating_sub(1);
        for segment in self.segments.iter_mut().skip(first) {
            if rows.is_full() || segment.header.before.head.sequence >= until {
                break;
            }
            match segment.read(&mut rows) {
                Err(_) if !rows.rows.is_empty() => break,
                read => read?,
            }
        }
        Ok(rows.rows)
    }

    /// All records after a sequence and up to another.
    ///
    /// # Errors
    ///
    /// One of them cannot be read, or is not there.
    fn read_all(&mut self, after: u64, until: u64) -> Result<Vec<StoredRow>, LedgerError> {
        let mut rows = Vec::new();
        let mut last = after;
        while last < until {
            let more = self.read(last, until, usize::MAX, usize::MAX)?;
            last = more.last().map(|row| row.sequence).ok_or(LedgerError::Diverged)?;
            rows.extend(more);
        }
        Ok(rows)
    }

    /// The place of a record; `None` if it is not there.
    pub(super) fn tip_at(&mut self, sequence: u64) -> Result<Option<Tip>, LedgerError> {
        let Some(before) = sequence.checked_sub(1) else { return Ok(None) };
        let rows = self.read(before, sequence, 1, usize::MAX)?;
        Ok(rows.first().map(StoredRow::tip).filter(|tip| tip.head.sequence == sequence))
    }

    /// The first record at which the greatest time of any record up to it reaches this one; nanoseconds since 1970.
    pub(super) fn first_from(&mut self, time: i64) -> Result<Option<u64>, LedgerError> {
        let earlier = |segment: &Segment| segment.header.before.latest_time < time;
        let first = self.segments.partition_point(earlier).saturating_sub(1);
        let mut after = self.segments.get(first).map_or(0, |segment| segment.header.before.head.sequence);
        loop {
            let rows = self.read(after, u64::MAX, 100, usize::MAX)?;
            if let Some(row) = rows.iter().find(|row| row.latest_time >= time) {
                return Ok(Some(row.sequence));
            }
            match rows.last() {
                Some(row) => after = row.sequence,
                None => return Ok(None),
            }
        }
    }

    /// What is damaged so that records cannot be told apart; `None` if that is nothing. What the records say is not
    /// looked at, nor is all of a large store.
    pub(super) fn find_broken_frames(&self) -> Result<Option<String>, LedgerError> {
        if self.bytes() <= CHECKED_BYTES {
            self.find(false)
        } else {
            Ok(self.damage.clone().or(self.missing()))
        }
    }

    /// What is damaged anywhere; reads everything. `None` if that is nothing.
    pub(super) fn find_damage(&self) -> Result<Option<String>, LedgerError> {
        self.find(true)
    }

    /// The oldest records, if their segments are gone.
    fn missing(&self) -> Option<String> {
        let base = self.base.head.sequence;
        let first = self.segments.first().map_or(0, |first| first.header.before.head.sequence);
        (first > base).then(|| format!("the segments with records {} to {first} are missing", base + 1))
    }

    fn find(&self, by_checksum: bool) -> Result<Option<String>, LedgerError> {
        if self.damage.is_some() {
            return Ok(self.damage.clone());
        }
        if let Some(missing) = self.missing() {
            return Ok(Some(missing));
        }
        let followers = self.segments.iter().skip(1).map(|next| Some(next.header.before)).chain([None]);
        for (segment, next) in self.segments.iter().zip(followers) {
            match segment.check(next, by_checksum) {
                Err(error @ LedgerError::Corrupt { .. }) => return Ok(Some(error.to_string())),
                checked => checked?,
            }
        }
        Ok(None)
    }

    /// Reads the last segment to find out where the log ends.
    fn read_last(&mut self, acknowledged: Option<u64>) -> Result<(), LedgerError> {
        let Some(segment) = self.segments.last_mut() else { return Ok(()) };
        let acknowledged = acknowledged.unwrap_or(0);
        let mut frames = SegmentFile::open(segment)?;
        let mut at = HEADER_BYTES as u64;
        self.tail.unsure_from = at;
        while let Some(header) = frames.header(at)? {
            let Some(body) = frames.body(at, &header)? else { break };
            let is_whole = crc32fast::hash(body) == header.body_sum;
            // What was acknowledged was whole once. Which of its records are damaged is told by their hashes.
            if !is_whole && header.before >= acknowledged {
                break;
            }
            let Some(rows) = Rows::of(&header, body) else { break };
            if let Some((last, _)) = rows.last() {
                self.tip = last;
            }
            self.base = header.base;
            self.accounted = header.accounted;
            segment.note(header.before, at);
            at += header.frame_bytes();
            // One without records may be of a sync that failed, whatever was acknowledged.
            if header.rows > 0 && header.last() <= acknowledged {
                self.tail.unsure_from = at;
            }
        }
        segment.bytes = at;
        if frames.length - at > MOST_TORN_BYTES {
            let what = format!(
                "`{}` has no record after byte {at}, but {} bytes",
                segment.path.display(),
                frames.length - at
            );
            self.damage.get_or_insert(what);
            return Ok(());
        }
        let Some(rest) = frames.rest(at)? else { return Ok(()) };
        if format::has_frame(rest.get(1..).unwrap_or_default()) {
            let what =
                format!("`{}` is damaged at byte {at}, and what follows is not", segment.path.display());
            self.damage.get_or_insert(what);
        }
        // If a segment follows, whether its header was written or not, this one was whole when that was made.
        if !rest.is_empty() && self.tail.torn_segment.is_some() {
            let what = format!("`{}` is damaged at byte {at}", segment.path.display());
            self.damage.get_or_insert(what);
        }
        self.tail.torn_bytes += rest.len() as u64;
        Ok(())
    }

    /// Leaves out the segments of which retention has left no record.
    fn forget_dead(&mut self) {
        let base = self.base.head.sequence;
        let ended = |next: &Segment| next.header.before.head.sequence <= base;
        let dead = self.segments.get(1..).unwrap_or_default().partition_point(ended);
        self.dead.extend(self.segments.drain(..dead).map(|segment| segment.path));
    }
}

impl HeaderProblem {
    /// What is wrong with a segment that begins like this.
    fn error(self, path: &Path) -> AuditError {
        match self {
            Self::Foreign => AuditError::NotAnAuditLog {
                path: path.to_owned(),
                detail: "it does not begin as a segment of an audit log does".to_owned(),
            },
            Self::Newer(version) => AuditError::UnknownFormat {
                path: path.to_owned(),
                found: version.into(),
                known: VERSION.into(),
            },
            Self::Missing => AuditError::Damaged { what: format!("`{}` has no header", path.display()) },
            Self::Damaged => {
                AuditError::Damaged { what: format!("the header of `{}` is damaged", path.display()) }
            }
        }
    }
}

impl Segment {
    /// Opens a segment and reads its header. Its frames are not looked at: it ends where the file does.
    fn open(path: PathBuf) -> Result<Result<Self, HeaderProblem>, AuditError> {
        let read = || -> io::Result<(u64, Vec<u8>)> {
            let file = File::open(&path)?;
            let length = file.metadata()?.len();
            let mut header = vec![0; HEADER_BYTES.min(usize::try_from(length).unwrap_or(usize::MAX))];
            file.read_exact_at(&mut header, 0)?;
            Ok((length, header))
        };
        let (bytes, header) = read().map_err(AuditError::io("read", &path))?;
        Ok(SegmentHeader::decode(&header).and_then(|header| {
            let segment = Self { path, header, bytes, index: Vec::new() };
            // Somebody gave it the name of another.
            if sequence_of(&segment.path) == Some(segment.first()) {
                Ok(segment)
            } else {
                Err(HeaderProblem::Damaged)
            }
        }))
    }

    /// The sequence of its first record.
    const fn first(&self) -> u64 {
        self.header.before.head.sequence.saturating_add(1)
    }

    /// Remembers the place of a frame, if it is far enough from the last.
    fn note(&mut self, before: u64, at: u64) {
        match self.index.last() {
            Some((known, known_at)) if before <= *known || at < known_at + INDEX_BYTES => {}
            _ => self.index.push((before, at)),
        }
    }

    /// Adds records of this segment to a page.
    fn read(&mut self, page: &mut RowPage) -> Result<(), LedgerError> {
        let mut frames = SegmentFile::open(self)?;
        let known = self.index.partition_point(|(before, _)| *before <= page.after).checked_sub(1);
        let known = known.and_then(|at| self.index.get(at));
        let mut at = known.map_or(HEADER_BYTES as u64, |(_, at)| *at);
        while at < self.bytes && !page.is_full() {
            let Some(header) = frames.header(at)? else {
                if frames.rest(at)?.is_some_and(<[u8]>::is_empty) {
                    // The zeros of a segment that ended before they could be cut off.
                    break;
                }
                return Err(self.damaged(at));
            };
            if header.before >= page.until {
                break;
            }
            if header.last() > page.after {
                let body = frames.body(at, &header)?.ok_or_else(|| self.damaged(at))?;
                let rows = Rows::of(&header, body).ok_or_else(|| self.damaged(at))?;
                rows.for_each(|row| page.add(row));
            }
            self.note(header.before, at);
            at += header.frame_bytes();
        }
        Ok(())
    }

    /// Checks every frame, and that the last ends where the next segment goes on.
    fn check(&self, next: Option<Tip>, by_checksum: bool) -> Result<(), LedgerError> {
        let mut frames = SegmentFile::open(self)?;
        let mut at = HEADER_BYTES as u64;
        let mut last = self.header.before;
        while at < self.bytes {
            let Some(header) = frames.header(at)? else {
                if frames.rest(at)?.is_some_and(<[u8]>::is_empty) {
                    break;
                }
                return Err(self.damaged(at));
            };
            let body = frames.body(at, &header)?.ok_or_else(|| self.damaged(at))?;
            let is_whole = !by_checksum || crc32fast::hash(body) == header.body_sum;
            let rows = Rows::of(&header, body).filter(|_| is_whole).ok_or_else(|| self.damaged(at))?;
            last = rows.last().map_or(last, |(place, _)| place);
            at += header.frame_bytes();
        }
        match next {
            Some(next) if next != last => Err(LedgerError::Corrupt {
                path: self.path.clone(),
                what: format!(
                    "it ends with record {}, and the next goes on after another record {}",
                    last.head.sequence, next.head.sequence
                ),
            }),
            _ => Ok(()),
        }
    }

    fn damaged(&self, at: u64) -> LedgerError {
        LedgerError::Corrupt { path: self.path.clone(), what: format!("it is damaged at byte {at}") }
    }
}

/// Records that are read, and how many may be.
struct RowPage {
    after: u64,
    until: u64,
    limit: usize,
    /// What is left of the bytes.
    bytes: usize,
    rows: Vec<StoredRow>,
}

impl RowPage {
    fn is_full(&self) -> bool {
        self.rows.len() >= self.limit || self.bytes == 0
    }

    fn add(&mut self, (place, content): (Tip, &[u8])) {
        if place.head.sequence > self.after && place.head.sequence <= self.until && !self.is_full() {
            self.bytes = self.bytes.saturating_sub(content.len());
            self.rows.push(format::to_row((place, content)));
        }
    }
}

/// Reads the frames of a segment, with as little as one read for many small ones.
struct SegmentFile {
    file: File,
    /// Where the file ends.
    length: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl SegmentFile {
    fn open(segment: &Segment) -> Result<Self, LedgerError> {
        let path = &segment.path;
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LedgerError::Corrupt { path: path.clone(), what: "it is missing".to_owned() });
            }
            Err(error) => return Err(error.into()),
        };
        let length = file.metadata()?.len();
        if length < segment.bytes {
            return Err(LedgerError::Corrupt { path: path.clone(), what: "it was cut off".to_owned() });
        }
        Ok(Self { file, length, window: Vec::new(), window_at: 0 })
    }

    /// The header of the frame at an offset; `None` if none is there.
    fn header(&mut self, at: u64) -> Result<Option<FrameHeader>, LedgerError> {
        Ok(self.bytes(at, FRAME_HEADER_BYTES as u64)?.and_then(FrameHeader::decode))
    }

    /// The records of a frame; `None` if the file ends before.
    fn body(&mut self, at: u64, header: &FrameHeader) -> Result<Option<&[u8]>, LedgerError> {
        self.bytes(at + FRAME_HEADER_BYTES as u64, header.body_bytes.into())
    }

    /// What follows an offset, but for the zeros at the end; `None` if the file ends before.
    fn rest(&mut self, at: u64) -> Result<Option<&[u8]>, LedgerError> {
        let Some(count) = self.length.checked_sub(at).filter(|rest| *rest <= MOST_TORN_BYTES) else {
            return Ok(None);
        };
        Ok(self.bytes(at, count)?.map(|rest| {
            let end = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            rest.get(..end).unwrap_or_default()
        }))
    }

    /// Bytes of the file; `None` if it ends before.
    fn bytes(&mut self, at: u64, count: u64) -> Result<Option<&[u8]>, LedgerError> {
        let Some(end) = at.checked_add(count).filter(|end| *end <= self.length) else { return Ok(None) };
        if at < self.window_at || end > self.window_at + self.window.len() as u64 {
            let bytes = count.max(WINDOW_BYTES).min(self.length - at);
            self.window.resize(usize::try_from(bytes).unwrap_or(usize::MAX), 0);
            self.window_at = at;
            if let Err(error) = self.file.read_exact_at(&mut self.window, at) {
                self.window.clear();
                return Err(error.into());
            }
        }
        let from = usize::try_from(at - self.window_at).unwrap_or(usize::MAX);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        Ok(self.window.get(from..).and_then(|rest| rest.get(..count)))
    }
}

/// The bytes of a file in which no whole frame is; `None` if one is, or it has more than any transaction.
fn unwritten(path: &Path) -> io::Result<Option<u64>> {
    let bytes = std::fs::metadata(path)?.len();
    Ok((bytes <= MOST_TORN_BYTES && !format::has_frame(&std::fs::read(path)?)).then_some(bytes))
}

/// The segments in a directory, in order.
fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if sequence_of(&path).is_some() {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// The segment whose first record has a sequence.
fn path_of(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:0DIGITS$}.{EXTENSION}"))
}

/// The inverse of [`path_of`]; `None` if a file has no such name.
fn sequence_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(EXTENSION)?.strip_suffix('.')?;
    let is_number = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

/// Whether a directory has a segment.
pub(super) fn has_segments(dir: &Path) -> bool {
    list(dir).is_ok_and(|paths| paths.iter().any(|path| path.metadata().is_ok_and(|data| data.len() > 0)))
}

#[cfg(test)]
mod tests;
