//! What a start finds after a crash, and after worse.

use std::path::PathBuf;

use super::super::segments::SegmentStore;
use super::super::segments::tamper::{Tampered, Tampering, tamper};
use super::super::testing::*;
use super::super::*;
use super::*;
use crate::proto::v1::AuditEvent;

/// A state directory as a crash leaves it: the files of a running log, copied after the last
/// acknowledgement. Returns where the segment ended after each acknowledged sequence.
async fn crashed(folder: &tempfile::TempDir, events: u64) -> (PathBuf, Vec<u64>) {
    let live = folder.path().join("live");
    let log = AuditLog::open(AuditOptions::new(&live)).unwrap();
    let end = || SegmentStore::open(&live.join(STORE_DIRECTORY), None).unwrap().bytes();
    let mut lengths = vec![end()];
    for n in 0..events {
        log.append_durable(expansion(&n.to_string())).await.unwrap();
        lengths.push(end());
    }
    let copy = folder.path().join("crashed");
    let done = std::process::Command::new("cp").arg("-r").arg(&live).arg(&copy).status().unwrap();
    assert!(done.success());
    log.close().await.unwrap();
    (copy, lengths)
}

/// The one segment of a small store.
fn segment(state: &Path) -> PathBuf {
    state.join(STORE_DIRECTORY).join("00000000000000000001.log")
}

/// Starts on a fresh copy of a directory whose files were changed.
async fn restarted(
    from: &Path,
    change: impl FnOnce(&Path),
) -> Result<(AuditLog, Vec<Record>, tempfile::TempDir), AuditError> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(STORE_DIRECTORY)).unwrap();
    for directory in [Path::new(""), Path::new(STORE_DIRECTORY)] {
        for entry in std::fs::read_dir(from.join(directory)).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), folder.path().join(directory).join(entry.file_name())).unwrap();
            }
        }
    }
    change(folder.path());
    let before = std::fs::read(segment(folder.path())).unwrap();
    let log = AuditLog::open(AuditOptions::new(folder.path())).inspect_err(|_| {
        assert_eq!(
            std::fs::read(segment(folder.path())).unwrap(),
            before,
            "a start that is refused changes nothing"
        );
    })?;
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
    for length in (lengths[0]..whole).step_by(131).chain([whole - 1, lengths[5], lengths[5] - 1]) {
        let kept = lengths.iter().filter(|end| **end <= length).count() as u64 - 1;
        let (log, records, folder) = restarted(&copy, |state| {
            let segment = std::fs::File::options().write(true).open(segment(state)).unwrap();
            segment.set_len(length).unwrap();
        })
        .await
        .unwrap();
        let report = log.start_report();
        assert_eq!(report.lost, 12 - kept, "cut at {length}: {report:?}");
        let torn = length - lengths[kept as usize];
        // Zeros at the end of the cut count as none.
        assert!(report.torn_bytes <= torn && report.torn_bytes + 64 >= torn, "cut at {length}: {report:?}");
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
        let path = segment(state);
        let bytes = std::fs::read(&path).unwrap();
        // Half a transaction more: the last one again, without its end.
        let (start, end) = (lengths[4] as usize, lengths[5] as usize);
        let mut torn = bytes[..end].to_vec();
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
    let (log, records, folder) = restarted(&copy, |state| {
        tamper(&state.join(STORE_DIRECTORY), |stored| stored.zero(|sequence| sequence > 8));
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
    let aside = || {
        let entries = std::fs::read_dir(folder.path().join(STORE_DIRECTORY)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("damaged-"))
            .collect::<Vec<_>>()
    };
    let [damaged] = aside().try_into().unwrap();
    // It has the form of a segment.
    let looked_at = folder.path().join("looked-at");
    std::fs::create_dir(&looked_at).unwrap();
    std::fs::copy(damaged, looked_at.join("00000000000000000009.log")).unwrap();
    tamper(&looked_at, |stored| {
        let sequences: Vec<u64> = stored.rows.iter().map(|row| row.sequence).collect();
        assert_eq!(sequences, [9, 10]);
        assert!(
            stored
                .rows
                .iter()
                .all(|row| row.content.len() > 100 && row.content.iter().all(|byte| *byte == 0))
        );
    });
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
    assert_eq!(aside(), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_were_damaged_at_the_end_are_told_from_torn_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (copy, lengths) = crashed(&folder, 10).await;
    let content = |of: usize| lengths[of] as usize + 84 + 44 + 50;
    // In the content of the last two, which were acknowledged: their checksums do not hold either.
    let (log, records, folder) = restarted(&copy, |state| {
        let mut bytes = std::fs::read(segment(state)).unwrap();
        [8, 9].into_iter().for_each(|of| bytes[content(of)] ^= 1);
        std::fs::write(segment(state), bytes).unwrap();
    })
    .await
    .unwrap();
    let report = log.start_report();
    assert_eq!((report.damaged, report.lost, report.torn_bytes), (2, 0, 0), "{report:?}");
    for record in &records {
        assert_eq!(is_gap(record, GapReason::TailDamaged), record.body.sequence() > 8);
    }
    log.close().await.unwrap();
    assert_eq!(assert_holds(folder.path()).records, 10);
    // So that the last one cannot be told apart: what was acknowledged is lost then.
    let (log, records, folder) = restarted(&copy, |state| {
        let mut bytes = std::fs::read(segment(state)).unwrap();
        bytes[lengths[9] as usize + 84] ^= 1;
        std::fs::write(segment(state), bytes).unwrap();
    })
    .await
    .unwrap();
    let report = log.start_report();
    assert!((report.damaged, report.lost) == (0, 1) && report.torn_bytes > 0, "{report:?}");
    assert!(is_gap(&records[9], GapReason::TailLost));
    log.close().await.unwrap();
    assert_eq!(assert_holds(folder.path()).records, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_before_the_end_stops_the_start_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (copy, _) = crashed(&folder, 10).await;
    let cases: [(Tampering, u64); 5] = [
        (|stored| stored.zero(|sequence| sequence == 5), 5),
        (|stored| stored.remove(|sequence| sequence == 7), 7),
        (|stored| [3, 10].iter().for_each(|sequence| stored.row(*sequence).hash = [0; 32]), 3),
        (|stored| stored.row(10).latest_time = 0, 10),
        (|stored| stored.base.head.hash = [9; 32], 1),
    ];
    for (damage, expected) in cases {
        let error = restarted(&copy, |state| {
            tamper(&state.join(STORE_DIRECTORY), damage);
        })
        .await
        .unwrap_err();
        assert!(
            matches!(
                &error,
                AuditError::Broken { cause, .. }
                    if matches!(**cause, AuditError::DataLoss { sequence, .. } if sequence == expected)
            ),
            "{expected}: {error}"
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
    let path = folder.path().join(DATABASE_FILE);
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
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
        (|state| changed(state, |stored| stored.zero(|sequence| sequence == 5)), 4),
        (|state| std::fs::remove_dir_all(state.join(STORE_DIRECTORY)).unwrap(), 0),
        (|state| std::fs::write(segment(state), "x".repeat(5000)).unwrap(), 0),
        (|state| changed(state, |stored| stored.base.head.hash = [9; 32]), 0),
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
        assert!(text.contains(folder.path().join(STORE_DIRECTORY).to_str().unwrap()), "{text}");
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

fn changed(state: &std::path::Path, change: impl FnOnce(&mut Tampered)) {
    tamper(&state.join(STORE_DIRECTORY), change);
}

/// Else the good records behind it would be taken for a damaged end, and set aside.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_before_the_end_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("live");
    let least = AuditOptions { max_bytes: Some(16 << 20), ..AuditOptions::new(&live) };
    let log = AuditLog::open(least).unwrap();
    let large = AuditEvent { effective_scope: "x".repeat(40_000), ..expansion("large") };
    for n in 0..20 {
        log.append_durable(AuditEvent { event_id: format!("{n}"), ..large.clone() }).await.unwrap();
    }
    let crashed = folder.path().join("crashed");
    let done = std::process::Command::new("cp").arg("-r").arg(&live).arg(&crashed).status().unwrap();
    assert!(done.success());
    log.close().await.unwrap();
    // Of segment 8 to 14 the end of the content of record 10, and the header of the frame of record 11.
    let path = crashed.join(STORE_DIRECTORY).join("00000000000000000008.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let frames: Vec<usize> = memchr::memmem::find_iter(&bytes, b"\xffSWF").collect();
    let header = frames[3];
    bytes[header - 40..header + 40].fill(0xa5);
    std::fs::write(&path, &bytes).unwrap();
    let error = AuditLog::open(AuditOptions::new(&crashed)).unwrap_err();
    let AuditError::Broken { cause, .. } = &error else { panic!("{error}") };
    let problem =
        matches!(**cause, AuditError::DataLoss { sequence: 11, problem: ChainProblem::Unreadable(_) });
    assert!(problem, "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert!(crashed.join(STORE_DIRECTORY).join("00000000000000000015.log").exists());
}
