//! What is found in segments that a crash, a disk or somebody has changed.

use super::super::ledger::Ledger as _;
use super::super::record::Head;
use super::super::testing::scratch;
use super::*;

fn rows(sequences: std::ops::RangeInclusive<u64>, bytes: usize) -> Vec<StoredRow> {
    let row = |sequence: u64| {
        let head = Head { sequence, hash: [sequence as u8; 32] };
        StoredRow::new(Tip { head, latest_time: sequence as i64 }, vec![sequence as u8; bytes])
    };
    sequences.map(row).collect()
}

fn write(ledger: &mut SegmentLedger, rows: &[StoredRow]) -> Result<(), LedgerError> {
    ledger.begin()?;
    ledger.append(rows)?;
    ledger.commit()
}

fn ledger(folder: &tempfile::TempDir, segment_bytes: u64) -> SegmentLedger {
    SegmentLedger::open(&folder.path().join("audit"), segment_bytes, None).unwrap()
}

fn all(ledger: &mut SegmentLedger) -> Vec<StoredRow> {
    ledger.rows_after(0, usize::MAX).unwrap()
}

fn sequences(rows: &[StoredRow]) -> Vec<u64> {
    rows.iter().map(|row| row.sequence).collect()
}

/// Each transaction of two records, and where the file ends after each.
fn three_transactions(folder: &tempfile::TempDir) -> (PathBuf, Vec<u64>) {
    let mut ledger = ledger(folder, u64::MAX);
    let path = path_of(&folder.path().join("audit"), 1);
    let mut ends = vec![HEADER_BYTES as u64];
    for first in [1, 3, 5] {
        write(&mut ledger, &rows(first..=first + 1, 20)).unwrap();
        ends.push(ledger.store_mut().bytes());
    }
    assert_eq!(path.metadata().unwrap().len(), 64 << 10, "zeros follow");
    drop(ledger);
    assert_eq!(path.metadata().unwrap().len(), ends[3], "they go when it is closed");
    (path, ends)
}

/// Each of a transaction of two records.
fn three_segments(folder: &tempfile::TempDir) -> PathBuf {
    let mut ledger = ledger(folder, 1);
    for first in [1, 3, 5] {
        write(&mut ledger, &rows(first..=first + 1, 20)).unwrap();
    }
    folder.path().join("audit")
}

#[test]
fn cut_at_every_byte_leaves_the_transactions_before_it() {
    let folder = scratch();
    let (path, ends) = three_transactions(&folder);
    let mut whole = std::fs::read(&path).unwrap();
    whole.truncate(ends[3] as usize);
    for length in HEADER_BYTES..=whole.len() {
        // Of what was acknowledged nothing is torn, yet it can be missing.
        for acknowledged in [None, Some(0), Some(2), Some(6)] {
            // Without those that the attempt before has begun.
            list(path.parent().unwrap()).unwrap().iter().for_each(|path| std::fs::remove_file(path).unwrap());
            std::fs::write(&path, &whole[..length]).unwrap();
            let mut ledger =
                SegmentLedger::open(&folder.path().join("audit"), u64::MAX, acknowledged).unwrap();
            let kept = ends.iter().filter(|end| **end <= length as u64).count() as u64 - 1;
            assert_eq!(ledger.tip().unwrap().head.sequence, 2 * kept, "{length} {acknowledged:?}");
            let torn = length as u64 - ends[kept as usize];
            // Zeros could be those that are written for what comes.
            let zeros = whole[..length].iter().rev().take_while(|byte| **byte == 0).count() as u64;
            assert_eq!(ledger.torn_bytes(), torn - zeros.min(torn), "{length}");
            assert_eq!(
                path.metadata().unwrap().len(),
                length as u64,
                "nothing is changed before it is settled"
            );
            ledger.settle().unwrap();
            assert_eq!(path.metadata().unwrap().len(), ends[kept as usize]);
            write(&mut ledger, &rows(2 * kept + 1..=2 * kept + 3, 7)).unwrap();
            assert_eq!(sequences(&all(&mut ledger)), (1..=2 * kept + 3).collect::<Vec<_>>());
        }
    }
}

#[test]
fn zeros_in_place_of_the_last_transaction_are_torn_off() {
    // As a loss of power leaves a file whose size was written before its content.
    let folder = scratch();
    let (path, ends) = three_transactions(&folder);
    let whole = std::fs::read(&path).unwrap();
    for from in ends[2] as usize..ends[3] as usize - 1 {
        let mut bytes = whole.clone();
        bytes[from..].fill(0);
        std::fs::write(&path, &bytes).unwrap();
        let mut ledger = SegmentLedger::open(&folder.path().join("audit"), u64::MAX, Some(4)).unwrap();
        assert_eq!(ledger.tip().unwrap().head.sequence, 4, "{from}");
        assert!(ledger.torn_bytes() <= from as u64 - ends[2], "{from}");
        assert_eq!(ledger.known_damage(), None);
    }
}

#[test]
fn damage_that_good_transactions_follow_is_no_torn_end() {
    let folder = scratch();
    let (path, ends) = three_transactions(&folder);
    let whole = std::fs::read(&path).unwrap();
    for at in ends[1] as usize..ends[2] as usize {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bytes).unwrap();
        let store = SegmentStore::open(&folder.path().join("audit"), None).unwrap();
        assert!(store.damage().is_some_and(|damage| damage.contains("is damaged at byte")), "{at}");
        assert_eq!(store.tip().head.sequence, 2, "{at}");
        // Of what is known to have been acknowledged the records are read, as far as they can be told apart.
        let mut store = SegmentStore::open(&folder.path().join("audit"), Some(6)).unwrap();
        match store.damage() {
            Some(_) => assert_eq!(store.tip().head.sequence, 2, "{at}"),
            None => assert_eq!(store.read(0, u64::MAX, 100, usize::MAX).unwrap().len(), 6, "{at}"),
        }
        assert!(store.find_damage().unwrap().is_some(), "{at}");
    }
}

#[test]
fn segment_whose_making_was_cut_short_is_none() {
    let folder = scratch();
    let dir = three_segments(&folder);
    let last = path_of(&dir, 5);
    let mut whole = std::fs::read(&last).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    whole.truncate(end);
    assert_eq!(list(&dir).unwrap(), [1, 3, 5].map(|first| path_of(&dir, first)));
    for length in 0..whole.len() {
        std::fs::write(&last, &whole[..length]).unwrap();
        let mut ledger = SegmentLedger::open(&dir, 1, Some(4)).unwrap();
        assert_eq!(ledger.tip().unwrap().head.sequence, 4, "{length}");
        let header = if length < HEADER_BYTES { 0 } else { HEADER_BYTES };
        assert!(ledger.torn_bytes() <= (length - header) as u64, "{length}");
        assert_eq!(ledger.known_damage(), None, "{length}");
        ledger.settle().unwrap();
        write(&mut ledger, &rows(5..=5, 3)).unwrap();
        assert_eq!(sequences(&all(&mut ledger)), [1, 2, 3, 4, 5]);
        assert_eq!(ledger.find_damage().unwrap(), None);
    }
}

#[test]
fn header_that_was_damaged_is_not_taken_for_torn() {
    let folder = scratch();
    let dir = three_segments(&folder);
    for (first, newest) in [(3, 2), (5, 4)] {
        let path = path_of(&dir, first);
        let whole = std::fs::read(&path).unwrap();
        for change in
            [|bytes: &mut Vec<u8>| bytes[..HEADER_BYTES].fill(0), |bytes: &mut Vec<u8>| bytes[70] ^= 1]
        {
            let mut bytes = whole.clone();
            change(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
            let mut store = SegmentStore::open(&dir, None).unwrap();
            let name = format!("{first:020}.log");
            assert!(store.damage().is_some_and(|damage| damage.contains(&name)), "{:?}", store.damage());
            assert_eq!(store.tip().head.sequence, newest);
            assert_eq!(store.read(0, u64::MAX, 100, usize::MAX).unwrap().len() as u64, newest);
        }
        std::fs::write(&path, whole).unwrap();
    }
    // One of another log, and one that is gone.
    std::fs::rename(path_of(&dir, 5), folder.path().join("5")).unwrap();
    std::fs::rename(path_of(&dir, 3), folder.path().join("3")).unwrap();
    std::fs::copy(folder.path().join("5"), path_of(&dir, 5)).unwrap();
    let mut store = SegmentStore::open(&dir, None).unwrap();
    assert_eq!(
        sequences(&store.read(0, u64::MAX, 100, usize::MAX).unwrap()),
        [1, 2, 5, 6],
        "the walk tells the hole"
    );
    assert!(
        store.find_damage().unwrap().is_some_and(|found| found.contains("goes on after another record 4"))
    );
    std::fs::rename(folder.path().join("3"), path_of(&dir, 5)).unwrap();
    assert!(SegmentStore::open(&dir, None).unwrap().damage().is_some(), "it has the name of another");
}

#[test]
fn file_that_somebody_made_huge_is_damaged_and_not_read() {
    let folder = scratch();
    let (path, _) = three_transactions(&folder);
    let huge =
        |path: &Path| std::fs::File::options().write(true).open(path).unwrap().set_len(1 << 40).unwrap();
    huge(&path);
    let store = SegmentStore::open(&folder.path().join("audit"), None).unwrap();
    assert!(store.damage().is_some_and(|damage| damage.contains("has no record after byte")));
    assert_eq!(store.tip().head.sequence, 6);
    std::fs::write(path_of(&folder.path().join("audit"), 9), b"").unwrap();
    let store = SegmentStore::open(&folder.path().join("audit"), None).unwrap();
    assert!(store.damage().is_some(), "{:?}", store.damage());
    std::fs::remove_file(path_of(&folder.path().join("audit"), 9)).unwrap();
    std::fs::File::create(path_of(&folder.path().join("audit"), 7)).unwrap();
    huge(&path_of(&folder.path().join("audit"), 7));
    let store = SegmentStore::open(&folder.path().join("audit"), None).unwrap();
    assert!(store.damage().is_some_and(|damage| damage.contains("7.log` has no header")));
}

#[test]
fn oldest_segment_that_is_gone_is_missed() {
    let folder = scratch();
    let dir = three_segments(&folder);
    std::fs::remove_file(path_of(&dir, 1)).unwrap();
    let store = SegmentStore::open(&dir, None).unwrap();
    let found = store.find_broken_frames().unwrap();
    assert_eq!(found.as_deref(), Some("the segments with records 1 to 2 are missing"));
}

#[test]
fn records_are_read_from_any_place_across_segments() {
    let folder = scratch();
    let mut ledger = ledger(&folder, 400_000);
    let mut written = Vec::new();
    for at in 0..100 {
        let more = rows(at * 20 + 1..=at * 20 + 20, 1000);
        write(&mut ledger, &more).unwrap();
        written.extend(more);
    }
    assert!(list(&folder.path().join("audit")).unwrap().len() >= 5);
    // Twice: with what was remembered of the writing, and after an opening, with what is remembered of the reading.
    for _ in 0..2 {
        for after in (0..=2000).step_by(37).chain([2000, 5000]) {
            let expected = written.get(after..).unwrap_or_default();
            assert_eq!(ledger.rows_after(after as u64, 50).unwrap(), expected[..expected.len().min(50)]);
            let tip = ledger.tip_at(after as u64).unwrap();
            assert_eq!(tip, after.checked_sub(1).and_then(|at| written.get(at)).map(StoredRow::tip));
        }
        assert_eq!(ledger.page(10, 15, 100, usize::MAX).unwrap(), written[10..15]);
        assert_eq!(ledger.page(10, 2000, 100, 2500).unwrap(), written[10..13]);
        for time in [0, 1, 500, 1999, 2000] {
            let found = ledger.store_mut().first_from(time).unwrap();
            assert_eq!(found, Some(time.max(1) as u64));
        }
        assert_eq!(ledger.store_mut().first_from(2001).unwrap(), None);
        ledger.reopen().unwrap();
    }
}

#[test]
fn transaction_that_failed_leaves_nothing_and_none_without_content_writes() {
    let folder = scratch();
    let (path, ends) = three_transactions(&folder);
    let mut ledger = ledger(&folder, u64::MAX);
    ledger.begin().unwrap();
    ledger.append(&rows(7..=8, 20)).unwrap();
    ledger.rollback();
    write(&mut ledger, &[]).unwrap();
    assert_eq!(path.metadata().unwrap().len(), ends[3]);
    // What does not follow is refused.
    assert!(matches!(write(&mut ledger, &rows(8..=8, 1)), Err(LedgerError::Diverged)));
    ledger.rollback();
    // As a write that failed half-way leaves it.
    std::fs::File::options()
        .append(true)
        .open(&path)
        .and_then(|file| std::io::Write::write(&mut &file, &[1; 99]))
        .unwrap();
    ledger.rollback();
    assert_eq!(path.metadata().unwrap().len(), ends[3]);
    ledger.begin().unwrap();
    ledger.account(17).unwrap();
    ledger.commit().unwrap();
    drop(ledger);
    let mut ledger = SegmentLedger::open(&folder.path().join("audit"), u64::MAX, None).unwrap();
    assert_eq!((ledger.accounted().unwrap(), ledger.tip().unwrap().head.sequence), (17, 6));
}

#[test]
fn end_that_is_replaced_may_span_segments() {
    let folder = scratch();
    let dir = folder.path().join("audit");
    let mut ledger = ledger(&folder, 1);
    for first in [1, 4, 7] {
        write(&mut ledger, &rows(first..=first + 2, 20)).unwrap();
    }
    let others: Vec<_> = rows(5..=9, 3);
    ledger.replace_end(&others, 1234).unwrap();
    let expected = [rows(1..=4, 20), others.clone()].concat();
    assert_eq!(all(&mut ledger), expected);
    assert_eq!(list(&dir).unwrap(), [path_of(&dir, 1), path_of(&dir, 4)]);
    assert_eq!(ledger.find_damage().unwrap(), None);
    // What was replaced is kept, in the form of a segment.
    let kept = folder.path().join("kept");
    std::fs::create_dir(&kept).unwrap();
    std::fs::copy(dir.join("damaged-1234"), path_of(&kept, 5)).unwrap();
    let mut damaged = SegmentStore::open(&kept, None).unwrap();
    assert_eq!(damaged.read(0, u64::MAX, 100, usize::MAX).unwrap(), rows(5..=9, 20));
    write(&mut ledger, &rows(10..=11, 20)).unwrap();
    drop(ledger);
    let mut again = SegmentLedger::open(&dir, 1, None).unwrap();
    assert_eq!(all(&mut again), [expected, rows(10..=11, 20)].concat());
}

#[test]
fn end_is_not_replaced_where_good_records_cannot_be_told_apart() {
    let folder = scratch();
    let dir = folder.path().join("audit");
    let mut ledger = ledger(&folder, 1);
    for first in [1, 4, 7] {
        write(&mut ledger, &rows(first..=first + 2, 20)).unwrap();
    }
    // The header of the only frame of the second segment.
    let path = path_of(&dir, 4);
    let whole = std::fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    bytes[HEADER_BYTES + 30] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    for first in [3, 5, 8] {
        if first == 8 {
            // What is kept of the same segment cannot be read.
            std::fs::write(&path, &whole).unwrap();
            let last = path_of(&dir, 7);
            let mut bytes = std::fs::read(&last).unwrap();
            bytes[HEADER_BYTES + 30] ^= 1;
            std::fs::write(last, bytes).unwrap();
        }
        assert!(ledger.replace_end(&rows(first..=9, 3), 1).is_err(), "{first}");
        assert_eq!(list(&dir).unwrap().len(), 3, "nothing is removed");
    }
}

#[test]
fn only_the_owner_may_read_any_of_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let folder = scratch();
    let dir = folder.path().join("audit");
    let mut ledger = ledger(&folder, 1);
    for first in [1, 4, 7] {
        write(&mut ledger, &rows(first..=first + 2, 20)).unwrap();
    }
    ledger.replace_end(&rows(8..=9, 3), 1234).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let entries: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(entries.len(), 4, "{entries:?}");
    entries.iter().for_each(|path| assert_eq!(mode(path), 0o600, "{}", path.display()));
    assert_eq!(mode(&dir), 0o700);
}

#[test]
fn only_names_of_segments_count() {
    for (name, expected) in [
        ("00000000000000000001.log", Some(1)),
        ("18446744073709551615.log", Some(u64::MAX)),
        ("18446744073709551616.log", None),
        ("1.log", None),
        ("00000000000000000001.log.new", None),
        ("+0000000000000000001.log", None),
        ("damaged-1", None),
        ("probe", None),
    ] {
        assert_eq!(sequence_of(Path::new(name)), expected, "{name}");
    }
    assert_eq!(sequence_of(&path_of(Path::new("x"), 4711)), Some(4711));
}
