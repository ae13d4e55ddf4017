//! The write-ahead file of the store, looked at and refreshed before SQLite opens it.
//!
//! SQLite recovers from a torn write-ahead file without a word; this file counts what
//! it will leave out, so that a start can report it. The layout is that of "WAL-mode File Format"
//! in the SQLite documentation. Nothing here interprets pages.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What a write-ahead file holds after its last complete transaction.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct TornTail {
    /// Complete frames that belong to no complete transaction.
    pub(super) frames: u64,
    /// All bytes of this round of the file that recovery leaves out, those frames included.
    pub(super) bytes: u64,
}

pub(super) const HEADER_BYTES: usize = 32;
pub(super) const FRAME_HEADER_BYTES: usize = 24;

/// Finds out what recovery will leave out. A file that is missing or empty has no tail.
///
/// Frames of an earlier round, which normally follow the last transaction when the file is reused,
/// are not counted.
pub(super) fn torn_tail(path: &Path) -> io::Result<TornTail> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(TornTail::default()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok(TornTail::default());
    }
    let mut header = [0; HEADER_BYTES];
    let all_lost = Ok(TornTail { frames: 0, bytes: length });
    if length < HEADER_BYTES as u64 {
        return all_lost;
    }
    file.read_exact_at(&mut header, 0)?;
    let Some(order) = Order::of(word(&header, 0, Order::Big)) else {
        return all_lost;
    };
    let page_bytes = word(&header, 8, Order::Big) as usize;
    let (checked, _) = header.split_at(24);
    let mut sum = order.sum((0, 0), checked);
    if sum != (word(&header, 24, Order::Big), word(&header, 28, Order::Big))
        || !(512..=65_536).contains(&page_bytes)
    {
        return all_lost;
    }
    let salt = (word(&header, 16, Order::Big), word(&header, 20, Order::Big));

    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes];
    let frame_bytes = frame.len() as u64;
    let mut at = HEADER_BYTES as u64;
    let mut committed = at;
    let mut end_of_round = at;
    let mut valid = true;
    while at + frame_bytes <= length {
        file.read_exact_at(&mut frame, at)?;
        if (word(&frame, 8, Order::Big), word(&frame, 12, Order::Big)) != salt {
            break;
        }
        at += frame_bytes;
        end_of_round = at;
        if !valid {
            continue;
        }
        let (head, page) = frame.split_at(FRAME_HEADER_BYTES);
        let (checked, _) = head.split_at(8);
        sum = order.sum(order.sum(sum, checked), page);
        valid = sum == (word(head, 16, Order::Big), word(head, 20, Order::Big));
        if valid && word(head, 4, Order::Big) != 0 {
            committed = at;
        }
    }
    // Less than a frame at the end of the file is torn off, whatever it was.
    if at + frame_bytes > length {
        end_of_round = length;
    }
    Ok(TornTail { frames: (end_of_round - committed) / frame_bytes, bytes: end_of_round - committed })
}

/// Returns `true` if the bytes are a header with its checksum.
pub(super) fn is_header(header: &[u8]) -> bool {
    let Some((checked, sum)) = header.split_at_checked(24) else {
        return false;
    };
    Order::of(word(header, 0, Order::Big)).is_some_and(|order| {
        order.sum((0, 0), checked) == (word(sum, 0, Order::Big), word(sum, 4, Order::Big))
    })
}

/// Returns `true` if a frame was written in the round of the file that the header began.
pub(super) fn belongs(frame: &[u8], header: &[u8]) -> bool {
    frame.get(8..16).is_some_and(|salt| header.get(16..24) == Some(salt))
}

/// Returns `true` if a frame ends a transaction.
pub(super) fn is_commit(frame: &[u8]) -> bool {
    word(frame, 4, Order::Big) != 0
}

/// Writes every byte of the file over itself and syncs it.
///
/// After a failed fsync the kernel may hold pages that are marked clean but never reached the
/// disk; a later fsync then succeeds without writing them. If the process ended right after such
/// a failure, recovery could build on frames that are only in memory. Writing them again makes
/// them dirty, so that the sync that follows covers them.
pub(super) fn rewrite_in_place(path: &Path) -> io::Result<()> {
    let file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut buffer = vec![0; 1 << 16];
    let mut at = 0;
    loop {
        let read = file.read_at(&mut buffer, at)?;
        let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) else {
            break;
        };
        file.write_all_at(chunk, at)?;
        at += read as u64;
    }
    file.sync_all()
}

/// The byte order in which a file's checksums read it.
#[derive(Clone, Copy)]
enum Order {
    Big,
    Little,
}

impl Order {
    const fn of(magic: u32) -> Option<Self> {
        match magic {
            0x377f_0682 => Some(Self::Little),
            0x377f_0683 => Some(Self::Big),
            _ => None,
        }
    }

    fn sum(self, start: (u32, u32), bytes: &[u8]) -> (u32, u32) {
        let (mut first, mut second) = start;
        for pair in bytes.chunks_exact(8) {
            first = first.wrapping_add(word(pair, 0, self)).wrapping_add(second);
            second = second.wrapping_add(word(pair, 4, self)).wrapping_add(first);
        }
        (first, second)
    }
}

/// The word at an offset; 0 outside of the bytes.
fn word(bytes: &[u8], at: usize, order: Order) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).unwrap_or([0; 4]);
    match order {
        Order::Big => u32::from_be_bytes(word),
        Order::Little => u32::from_le_bytes(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database with two transactions in its write-ahead file, copied while it is open.
    fn two_transactions(folder: &Path) -> (std::path::PathBuf, u64) {
        let source = folder.join("source.db");
        let connection = rusqlite::Connection::open(&source).unwrap();
        connection
            .execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES(1)")
            .unwrap();
        let wal = folder.join("source.db-wal");
        let first = std::fs::metadata(&wal).unwrap().len();
        connection.execute_batch("INSERT INTO t VALUES(zeroblob(20000))").unwrap();
        let copy = folder.join("copy-wal");
        std::fs::copy(&wal, &copy).unwrap();
        (copy, first)
    }

    #[test]
    fn complete_file_has_no_torn_tail() {
        let folder = tempfile::tempdir().unwrap();
        let (wal, _) = two_transactions(folder.path());
        assert_eq!(torn_tail(&wal).unwrap(), TornTail::default());
    }

    #[test]
    fn missing_and_empty_files_have_no_torn_tail() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none-wal");
        assert_eq!(torn_tail(&path).unwrap(), TornTail::default());
        std::fs::write(&path, b"").unwrap();
        assert_eq!(torn_tail(&path).unwrap(), TornTail::default());
    }

    #[test]
    fn cut_anywhere_in_the_second_transaction_counts_what_is_left_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let (wal, first) = two_transactions(folder.path());
        let whole = std::fs::read(&wal).unwrap();
        for length in (first..whole.len() as u64).step_by(97) {
            std::fs::write(&wal, &whole[..length as usize]).unwrap();
            let tail = torn_tail(&wal).unwrap();
            assert_eq!(tail.bytes, length - first, "cut at {length}");
            assert_eq!(tail.frames, (length - first) / (4096 + 24));
        }
    }

    #[test]
    fn flipped_byte_ends_what_counts_as_complete() {
        let folder = tempfile::tempdir().unwrap();
        let (wal, first) = two_transactions(folder.path());
        let mut bytes = std::fs::read(&wal).unwrap();
        bytes[first as usize + 100] ^= 1;
        std::fs::write(&wal, &bytes).unwrap();
        assert_eq!(torn_tail(&wal).unwrap().bytes, bytes.len() as u64 - first);
    }

    #[test]
    fn broken_header_loses_everything() {
        let folder = tempfile::tempdir().unwrap();
        let (wal, _) = two_transactions(folder.path());
        let mut bytes = std::fs::read(&wal).unwrap();
        bytes[9] ^= 1;
        std::fs::write(&wal, &bytes).unwrap();
        assert_eq!(torn_tail(&wal).unwrap().bytes, bytes.len() as u64);
    }

    #[test]
    fn rewriting_changes_no_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("any");
        let bytes: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        rewrite_in_place(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        rewrite_in_place(&folder.path().join("missing")).unwrap();
    }
}
