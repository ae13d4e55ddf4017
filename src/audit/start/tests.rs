//! What a start finds after a crash, and after worse.

use std::path::PathBuf;

use rusqlite::Connection;

use super::super::testing::*;
use super::super::*;
use super::*;

/// A state directory as a crash leaves it: the files of a running log, copied after the last
/// acknowledgement. Returns how long the write-ahead file was after each acknowledged sequence.
async fn crashed(folder: &tempfile::TempDir, events: u64) -> (PathBuf, Vec<u64>) {
    let live = folder.path().join("live");
    let log = AuditLog::open(AuditOptions::new(&live)).unwrap();
    let wal = wal_path(&live.join(STORE_FILE));
    let mut lengths = vec![std::fs::metadata(&wal).unwrap().len()];
    for n in 0..events {
        log.append_durable(expansion(&n.to_string())).await.unwrap();
        lengths.push(std::fs::metadata(&wal).unwrap().len());
    }
    // Copied by another program: closing a file that SQLite has open would drop its locks.
    let copy = folder.path().join("crashed");
    let done = std::process::Command::new("cp").arg("-r").arg(&live).arg(&copy).status().unwrap();
    assert!(done.success());
    log.close().await.unwrap();
    (copy, lengths)
}

/// Starts on a fresh copy of a directory whose files were changed.
async fn restarted(
    from: &Path,
    change: impl FnOnce(&Path),
) -> Result<(AuditLog, Vec<Record>, tempfile::TempDir), AuditError> {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
    }
    change(folder.path());
    let log = AuditLog::open(AuditOptions::new(folder.path()))?;
    let records = all(&log).await;
    Ok((log, records, folder))
}

fn is_gap(record: &Record, wanted: GapReason) -> bool {
    matches!(&record.body, Body::Gap(gap) if gap.reason == wanted.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_right_after_an_acknowledgement_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (copy, _) = crashed(&folder, 20).await;
    let (log, records, _folder) = restarted(&copy, |_| {}).await.unwrap();
    assert!(log.start_report().is_clean(), "{:?}", log.start_report());
    assert_eq!(records.len(), 20);
    log.append_durable(expansion("next")).await.unwrap();
    assert_eq!(log.head().sequence, 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn file_torn_anywhere_keeps_what_is_before_and_gives_no_sequence_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (copy, lengths) = crashed(&folder, 12).await;
    let whole = *lengths.last().unwrap();
    for length in (lengths[0]..whole).step_by(1031).chain([whole - 1, lengths[5], lengths[5] - 1]) {
        let kept = lengths.iter().filter(|end| **end <= length).count() as u64 - 1;
        let (log, records, folder) = restarted(&copy, |state| {
            let wal = std::fs::File::options().write(true).open(wal_path(&state.join(STORE_FILE))).unwrap();
            wal.set_len(length).unwrap();
        })
        .await
        .unwrap();
        let report = log.start_report();
        assert_eq!(report.lost, 12 - kept, "cut at {length}: {report:?}");
        // The header is no part of a transaction.
        let whole = lengths[kept as usize].max(32);
        assert_eq!(report.torn_bytes, length.saturating_sub(whole), "cut at {length}");
        assert_eq!(records.len(), 12);
        for record in &records {
            assert_eq!(is_gap(record, GapReason::TailLost), record.body.sequence() > kept, "cut at {length}");
        }
        assert_eq!(log.append_durable(expansion("next")).await.unwrap().head.sequence, 13);
        log.close().await.unwrap();
        assert_holds(folder.path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn torn_tail_of_what_was_never_acknowledged_is_reported_and_leaves_no_gap() {
    let folder = tempfile::tempdir().unwrap();
    let (copy, lengths) = crashed(&folder, 5).await;
    let (log, records, _folder) = restarted(&copy, |state| {
        let path = wal_path(&state.join(STORE_FILE));
        let bytes = std::fs::read(&path).unwrap();
        // Half a transaction more: the frames of the last one without their end.
        let (start, end) = (lengths[4] as usize, lengths[5] as usize);
        let mut torn = bytes.clone();
        torn.extend_from_slice(&bytes[start..start + (end - start) / 2]);
        std::fs::write(&path, torn).unwrap();
    })
    .await
    .unwrap();
    let report = log.start_report();
    assert!(report.torn_bytes > 0 && !report.is_clean());
    assert_eq!((report.lost, report.damaged, records.len()), (0, 0, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_end_is_set_aside_and_its_sequences_become_gaps() {
    let folder = tempfile::tempdir().unwrap();
    let (copy, _) = crashed(&folder, 10).await;
    let damage = "UPDATE record SET content = zeroblob(length(content)) WHERE sequence > 8";
    let (log, records, folder) = restarted(&copy, |state| {
        Connection::open(state.join(STORE_FILE)).unwrap().execute_batch(damage).unwrap();
    })
    .await
    .unwrap();
    assert_eq!(log.start_report().damaged, 2);
    assert_eq!(records.len(), 10);
    for record in &records {
        assert_eq!(is_gap(record, GapReason::TailDamaged), record.body.sequence() > 8);
    }
    log.close().await.unwrap();
    assert_holds(folder.path());
    let aside: i64 = Connection::open(folder.path().join(STORE_FILE))
        .unwrap()
        .query_row("SELECT count(*) FROM damaged WHERE sequence IN (9, 10)", [], |row| row.get(0))
        .unwrap();
    assert_eq!(aside, 2);
    // The next start has nothing to do.
    let again = AuditLog::open(AuditOptions::new(folder.path())).unwrap();
    assert!(again.start_report().is_clean());
    again.close().await.unwrap();
    // What was set aside gets no older than the rest.
    let options =
        AuditOptions { max_age: Some(std::time::Duration::ZERO), ..AuditOptions::new(folder.path()) };
    let aged = AuditLog::open(options).unwrap();
    until(&aged, |status| status.oldest == 11).await;
    aged.close().await.unwrap();
    let aside: i64 = Connection::open(folder.path().join(STORE_FILE))
        .unwrap()
        .query_row("SELECT count(*) FROM damaged", [], |row| row.get(0))
        .unwrap();
    assert_eq!(aside, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_before_the_end_stops_the_start_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (copy, _) = crashed(&folder, 10).await;
    let cases = [
        ("UPDATE record SET content = x'00' WHERE sequence = 5", 5),
        ("DELETE FROM record WHERE sequence = 7", 7),
        ("UPDATE record SET hash = x'00' WHERE sequence IN (3, 10)", 3),
        ("UPDATE record SET latest_time = 0 WHERE sequence = 10", 10),
        ("UPDATE log SET base_hash = x'00'", 1),
    ];
    for (damage, expected) in cases {
        let mut path = PathBuf::new();
        let error = restarted(&copy, |state| {
            path = state.join(STORE_FILE);
            Connection::open(&path).unwrap().execute_batch(damage).unwrap();
        })
        .await
        .unwrap_err();
        assert!(
            matches!(
                &error,
                AuditError::Broken { cause, .. }
                    if matches!(**cause, AuditError::DataLoss { sequence, .. } if sequence == expected)
            ),
            "{damage}: {error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_queued_at_a_crash_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("live");
    let (log, gate) = open_gated(AuditOptions::new(&live));
    for n in 0..3 {
        log.enqueue(denial(&n.to_string()));
    }
    let high_water = std::fs::File::open(live.join(HIGH_WATER_FILE)).unwrap();
    while Remembered::read(&high_water, log.log_id()).unwrap().queued != Some(3) {
        tokio::task::yield_now().await;
    }
    let (log, records, _folder) = restarted(&live, |_| {}).await.unwrap();
    assert_eq!(log.start_report().unwritten, 3);
    drop(gate);
    until(&log, |status| status.durable == 1).await;
    assert!(records.is_empty() || is_gap(&records[0], GapReason::ProcessEnded));
    assert!(is_gap(&all(&log).await[0], GapReason::ProcessEnded));
}

#[test]
fn file_of_another_program_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(STORE_FILE);
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = AuditLog::open(AuditOptions::new(folder.path())).unwrap_err();
    assert!(matches!(error, AuditError::NotAnAuditLog { .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap().len(), before.len());
    std::fs::write(&path, b"not a database at all, just some text that is long enough").unwrap();
    let error = AuditLog::open(AuditOptions::new(folder.path())).unwrap_err();
    assert!(matches!(error, AuditError::NotAnAuditLog { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_store_stops_the_start_until_it_is_to_be_set_aside() {
    /// What is done to a state directory with ten records, and the last good one of it.
    type Case = (fn(&std::path::Path), u64);
    let cases: [Case; 4] = [
        (|state| sql(state, "UPDATE record SET content = x'00' WHERE sequence = 5"), 4),
        (|state| std::fs::remove_file(state.join(STORE_FILE)).unwrap(), 0),
        (|state| std::fs::write(state.join(STORE_FILE), "x".repeat(5000)).unwrap(), 0),
        (|state| sql(state, "UPDATE log SET base_hash = x'00'"), 0),
    ];
    for (at, (break_it, last_good)) in cases.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let log = AuditLog::open(AuditOptions::new(folder.path())).unwrap();
        for n in 0..10 {
            log.append_durable(expansion(&n.to_string())).await.unwrap();
        }
        let good = all(&log).await;
        log.close().await.unwrap();
        let log_id = log.log_id();
        drop(log);
        break_it(folder.path());

        let error = AuditLog::open(AuditOptions::new(folder.path())).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, AuditError::Broken { .. }), "case {at}: {text}");
        assert!(text.contains(folder.path().join(STORE_FILE).to_str().unwrap()), "{text}");
        assert!(text.contains("--set-aside-broken-audit"), "{text}");

        let options = AuditOptions { set_aside_broken: true, ..AuditOptions::new(folder.path()) };
        let log = AuditLog::open(options.clone()).unwrap();
        assert_ne!(log.log_id(), log_id);
        let records = all(&log).await;
        let Body::Event(event) = &records[0].body else { panic!("{records:?}") };
        assert_eq!((records.len(), event.kind()), (1, crate::proto::v1::AuditEventKind::LogOpened));
        let opened = event.log_opened.clone().unwrap();
        assert_eq!((&*opened.previous_log_id, opened.previous_sequence), (&*log_id.to_string(), last_good));
        let hash = last_good.checked_sub(1).map_or_else(Vec::new, |at| good[at as usize].hash.to_vec());
        assert_eq!(opened.previous_hash, hash);
        assert!(!opened.cause.is_empty());
        log.append_durable(expansion("next")).await.unwrap();
        log.close().await.unwrap();
        assert_holds(folder.path());
        let aside = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("audit-broken-"))
            .count();
        assert_eq!(aside, 1);
        // Told so again, a store that is whole stays.
        drop(log);
        let log = AuditLog::open(options).unwrap();
        assert_eq!(all(&log).await.len(), 2);
    }
}

fn sql(state: &std::path::Path, statement: &str) {
    Connection::open(state.join(STORE_FILE)).unwrap().execute_batch(statement).unwrap();
}
