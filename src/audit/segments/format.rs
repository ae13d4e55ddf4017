//! The bytes of a segment: a header, then frames, each of which is one transaction.
//!
//! Knows nothing of files. All numbers are little-endian. The layout is told in `docs/reference/audit-chain.md`.

use bytes::Bytes;
use uuid::Uuid;

use super::super::chain::StoredRow;
use super::super::record::{Hash, Head, Tip};

/// The bytes of a segment's header.
pub(in super::super) const HEADER_BYTES: usize = 136;
/// The bytes of a frame before its records.
pub(in super::super) const FRAME_HEADER_BYTES: usize = 84;
/// The bytes of a record before its content.
pub(super) const ROW_HEADER_BYTES: usize = 44;
/// The version of this layout.
pub(super) const VERSION: u32 = 1;

/// How a segment begins.
const SEGMENT_MAGIC: [u8; 8] = *b"\x89SWAUDIT";
/// How a frame begins: no text in UTF-8 has a byte like its first, so none in a record looks like a frame.
pub(super) const FRAME_MAGIC: [u8; 4] = *b"\xffSWF";

/// What a segment begins with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in super::super) struct SegmentHeader {
    pub(super) log_id: Uuid,
    /// The record before its first.
    pub(super) before: Tip,
    /// What retention had left of the records before the oldest, when it began.
    pub(super) base: Tip,
    /// The events that were in records or counted by gaps, when it began.
    pub(super) accounted: u64,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum HeaderProblem {
    /// There are too few, or only zeros.
    Missing,
    /// Something else begins like this.
    Foreign,
    /// A newer program wrote it.
    Newer(u32),
    /// They do not have their checksum.
    Damaged,
}

impl SegmentHeader {
    /// The bytes of the header.
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = HeaderWriter::<HEADER_BYTES>::default();
        bytes.put(&SEGMENT_MAGIC);
        bytes.put(&VERSION.to_le_bytes());
        bytes.put(self.log_id.as_bytes());
        bytes.put_tip(self.before);
        bytes.put_tip(self.base);
        bytes.put(&self.accounted.to_le_bytes());
        bytes.put_checksum();
        bytes.bytes
    }

    /// Reads a header from the first bytes of a segment.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeaderProblem> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(match SEGMENT_MAGIC.starts_with(bytes) || bytes.starts_with(&SEGMENT_MAGIC) {
                true => HeaderProblem::Missing,
                false if bytes.iter().all(|byte| *byte == 0) => HeaderProblem::Missing,
                false => HeaderProblem::Foreign,
            });
        };
        let mut reader = HeaderReader(header);
        if reader.array() != SEGMENT_MAGIC {
            let is_zero = header.iter().all(|byte| *byte == 0);
            return Err(if is_zero { HeaderProblem::Missing } else { HeaderProblem::Foreign });
        }
        let version = reader.u32();
        if version > VERSION {
            return Err(HeaderProblem::Newer(version));
        }
        let log_id = Uuid::from_bytes(reader.array());
        let (before, base, accounted) = (reader.tip(), reader.tip(), reader.u64());
        if version != VERSION || !has_checksum(header) {
            return Err(HeaderProblem::Damaged);
        }
        Ok(Self { log_id, before, base, accounted })
    }
}

/// What a frame begins with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in super::super) struct FrameHeader {
    /// The bytes of its records.
    pub(super) body_bytes: u32,
    /// How many records it has; none if it only sets the two numbers below.
    pub(super) rows: u32,
    /// The sequence before its first.
    pub(super) before: u64,
    /// The events that are in records or counted by gaps, after it.
    pub(super) accounted: u64,
    /// What retention has left of the records before the oldest.
    pub(super) base: Tip,
    /// The checksum of its records.
    pub(super) body_sum: u32,
}

impl FrameHeader {
    /// The header of a frame with these records, as [`put_row`] wrote them.
    pub(super) fn of(body: &[u8], rows: u32, before: u64, accounted: u64, base: Tip) -> Self {
        // A transaction is far smaller than this can tell.
        let body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        Self { body_bytes, rows, before, accounted, base, body_sum: crc32fast::hash(body) }
    }

    /// The bytes of the header.
    pub(super) fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = HeaderWriter::<FRAME_HEADER_BYTES>::default();
        bytes.put(&FRAME_MAGIC);
        bytes.put(&self.body_bytes.to_le_bytes());
        bytes.put(&self.rows.to_le_bytes());
        bytes.put(&self.before.to_le_bytes());
        bytes.put(&self.accounted.to_le_bytes());
        bytes.put_tip(self.base);
        bytes.put(&self.body_sum.to_le_bytes());
        bytes.put_checksum();
        bytes.bytes
    }

    /// Reads a header; `None` if the bytes are none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
        let mut reader = HeaderReader(header);
        if reader.array() != FRAME_MAGIC || !has_checksum(header) {
            return None;
        }
        let (body_bytes, rows) = (reader.u32(), reader.u32());
        let (before, accounted, base) = (reader.u64(), reader.u64(), reader.tip());
        Some(Self { body_bytes, rows, before, accounted, base, body_sum: reader.u32() })
    }

    /// The sequence of its last record, or of the one before it if it has none.
    pub(super) const fn last(&self) -> u64 {
        self.before.saturating_add(self.rows as u64)
    }

    /// The bytes of the whole frame.
    pub(super) const fn frame_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + self.body_bytes as u64
    }
}

/// The bytes of a record in a frame.
pub(super) fn row_bytes(row: &StoredRow) -> usize {
    ROW_HEADER_BYTES + row.content.len()
}

/// Adds a record to those of a frame.
pub(super) fn put_row(body: &mut Vec<u8>, row: &StoredRow) {
    // A record has at most 1 MiB.
    let length = u32::try_from(row.content.len()).unwrap_or(u32::MAX);
    body.extend_from_slice(&length.to_le_bytes());
    body.extend_from_slice(&row.latest_time.to_le_bytes());
    body.extend_from_slice(&row.hash);
    body.extend_from_slice(&row.content);
}

/// Adds records as frames of one each, so that any sequences can follow each other.
pub(super) fn put_frames(bytes: &mut Vec<u8>, rows: &[StoredRow], accounted: u64, base: Tip) {
    let mut body = Vec::new();
    for row in rows {
        body.clear();
        put_row(&mut body, row);
        let before = row.sequence.wrapping_sub(1);
        bytes.extend_from_slice(&FrameHeader::of(&body, 1, before, accounted, base).encode());
        bytes.extend_from_slice(&body);
    }
}

/// The records of a frame, in order. Nothing is checked but that they are as many and as long as their lengths say.
pub(super) struct Rows<'a> {
    next: u64,
    left: u32,
    rest: &'a [u8],
}

impl<'a> Rows<'a> {
    /// The records of a frame; `None` if they are not as many, or not as long, as they should be.
    pub(super) fn of(header: &FrameHeader, body: &'a [u8]) -> Option<Self> {
        let rows = Self { next: header.before.wrapping_add(1), left: header.rows, rest: body };
        let mut check = Self { ..rows };
        while check.left > 0 {
            check.split()?;
        }
        check.rest.is_empty().then_some(rows)
    }

    fn split(&mut self) -> Option<(Tip, &'a [u8])> {
        let (header, rest) = self.rest.split_first_chunk::<ROW_HEADER_BYTES>()?;
        let mut reader = HeaderReader(header);
        let length = usize::try_from(reader.u32()).ok()?;
        let latest_time = i64::from_le_bytes(reader.array());
        let head = Head { sequence: self.next, hash: reader.array() };
        let (content, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        self.next = self.next.wrapping_add(1);
        self.left -= 1;
        Some((Tip { head, latest_time }, content))
    }
}

impl<'a> Iterator for Rows<'a> {
    /// The place of a record, and its content.
    type Item = (Tip, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.split()
    }
}

/// A record with memory of its own.
pub(super) fn to_row((place, content): (Tip, &[u8])) -> StoredRow {
    StoredRow::new(place, Bytes::copy_from_slice(content))
}

/// Whether a whole frame, with the right checksums, begins anywhere in the bytes.
pub(super) fn has_frame(bytes: &[u8]) -> bool {
    memchr::memmem::find_iter(bytes, &FRAME_MAGIC).any(|at| {
        let Some(frame) = bytes.get(at..) else { return false };
        let Some(header) = FrameHeader::decode(frame) else { return false };
        let body = frame.get(FRAME_HEADER_BYTES..).and_then(|rest| rest.get(..header.body_bytes as usize));
        body.is_some_and(|body| crc32fast::hash(body) == header.body_sum)
    })
}

/// Whether the last four bytes are the checksum of those before them.
fn has_checksum<const N: usize>(bytes: &[u8; N]) -> bool {
    bytes.split_last_chunk::<4>().is_some_and(|(checked, sum)| crc32fast::hash(checked).to_le_bytes() == *sum)
}

/// Bytes that are filled from the front.
struct HeaderWriter<const N: usize> {
    bytes: [u8; N],
    filled: usize,
}

impl<const N: usize> Default for HeaderWriter<N> {
    fn default() -> Self {
        Self { bytes: [0; N], filled: 0 }
    }
}

impl<const N: usize> HeaderWriter<N> {
    fn put(&mut self, bytes: &[u8]) {
        let end = self.filled + bytes.len();
        if let Some(free) = self.bytes.get_mut(self.filled..end) {
            free.copy_from_slice(bytes);
        }
        self.filled = end;
    }

    fn put_tip(&mut self, Tip { head, latest_time }: Tip) {
        self.put(&head.sequence.to_le_bytes());
        self.put(&head.hash);
        self.put(&latest_time.to_le_bytes());
    }

    fn put_checksum(&mut self) {
        let sum = crc32fast::hash(self.bytes.get(..self.filled).unwrap_or_default());
        self.put(&sum.to_le_bytes());
    }
}

/// Bytes that are read from the front. What is beyond the end reads as zeros; callers have checked the length.
struct HeaderReader<'a>(&'a [u8]);

impl HeaderReader<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let Some((array, rest)) = self.0.split_first_chunk::<N>() else { return [0; N] };
        self.0 = rest;
        *array
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    fn tip(&mut self) -> Tip {
        let sequence = self.u64();
        let hash: Hash = self.array();
        Tip { head: Head { sequence, hash }, latest_time: i64::from_le_bytes(self.array()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tip(sequence: u64) -> Tip {
        Tip { head: Head { sequence, hash: [sequence as u8; 32] }, latest_time: -(sequence as i64) }
    }

    fn header() -> SegmentHeader {
        SegmentHeader { log_id: Uuid::from_u128(7), before: tip(41), base: tip(3), accounted: 99 }
    }

    fn rows() -> Vec<StoredRow> {
        (42..45)
            .map(|sequence| StoredRow::new(tip(sequence), vec![sequence as u8; sequence as usize]))
            .collect()
    }

    /// A frame with three records.
    fn frame() -> Vec<u8> {
        let mut body = Vec::new();
        rows().iter().for_each(|row| put_row(&mut body, row));
        let mut frame = FrameHeader::of(&body, 3, 41, 100, tip(3)).encode().to_vec();
        frame.extend_from_slice(&body);
        frame
    }

    #[test]
    fn header_is_read_as_it_was_written_and_no_byte_may_change() {
        let bytes = header().encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
        for at in 0..bytes.len() {
            let mut changed = bytes;
            changed[at] ^= 1 << (at % 8);
            let problem = SegmentHeader::decode(&changed).unwrap_err();
            let expected: &[HeaderProblem] = match at {
                0..8 => &[HeaderProblem::Foreign],
                8..12 => &[HeaderProblem::Newer(VERSION | 1 << 8), HeaderProblem::Damaged],
                _ => &[HeaderProblem::Damaged],
            };
            let is_newer = matches!(problem, HeaderProblem::Newer(_)) && (8..12).contains(&at);
            assert!(expected.contains(&problem) || is_newer, "{at}: {problem:?}");
        }
    }

    #[test]
    fn header_that_a_crash_left_half_written_is_missing_and_not_foreign() {
        let bytes = header().encode();
        for length in 0..bytes.len() {
            assert_eq!(SegmentHeader::decode(&bytes[..length]), Err(HeaderProblem::Missing), "{length}");
        }
        assert_eq!(SegmentHeader::decode(&[0; 500]), Err(HeaderProblem::Missing));
        assert_eq!(SegmentHeader::decode(b"SQLite format 3\0"), Err(HeaderProblem::Foreign));
        assert_eq!(SegmentHeader::decode(&[b'x'; 500]), Err(HeaderProblem::Foreign));
    }

    #[test]
    fn frame_is_read_as_it_was_written_and_no_byte_may_change() {
        let bytes = frame();
        let header = FrameHeader::decode(&bytes).unwrap();
        assert_eq!((header.before, header.rows, header.last()), (41, 3, 44));
        assert_eq!((header.accounted, header.base, header.frame_bytes()), (100, tip(3), bytes.len() as u64));
        let read: Vec<_> = Rows::of(&header, &bytes[FRAME_HEADER_BYTES..]).unwrap().map(to_row).collect();
        assert_eq!(read, rows());
        assert!(has_frame(&[&[0xff, b'S', b'W'], &bytes[..], &[7; 9]].concat()));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            assert!(!has_frame(&changed), "{at}");
            assert!(!has_frame(&bytes[..at]), "{at}");
        }
    }

    #[test]
    fn records_that_do_not_fill_their_frame_are_none() {
        let bytes = frame();
        let header = FrameHeader::decode(&bytes).unwrap();
        let body = &bytes[FRAME_HEADER_BYTES..];
        for length in 0..body.len() {
            assert!(Rows::of(&header, &body[..length]).is_none(), "{length}");
        }
        assert!(Rows::of(&header, &[body, &[0]].concat()).is_none());
        assert!(Rows::of(&FrameHeader { rows: 2, ..header }, body).is_none());
        assert!(Rows::of(&FrameHeader { rows: u32::MAX, ..header }, body).is_none());
        let none = FrameHeader::of(&[], 0, 41, 0, tip(0));
        assert_eq!(Rows::of(&none, &[]).unwrap().count(), 0);
    }
}
