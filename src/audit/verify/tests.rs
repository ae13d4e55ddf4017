//! Every change to a stored chain is noticed and named.

use std::path::PathBuf;
use std::time::Duration;

use super::super::record::sha256;
use super::super::segments::tamper::{Tampered, tamper};
use super::super::testing::*;
use super::super::*;
use super::*;

/// A closed store with five events and a gap after the third.
async fn store() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(AuditOptions::new(folder.path())).unwrap();
    for n in 0..3 {
        log.append_durable(expansion(&n.to_string())).await.unwrap();
    }
    let mut large = denial("large");
    large.effective_scope = "x".repeat(MAX_RECORD_BYTES);
    log.enqueue(large);
    until(&log, |status| status.durable == 4).await;
    for n in 3..5 {
        log.append_durable(denial(&n.to_string())).await.unwrap();
    }
    log.close().await.unwrap();
    let path = folder.path().join(STORE_DIRECTORY);
    (folder, path)
}

fn check(path: &Path) -> Option<BadRecord> {
    verify(path, &VerifyOptions::default()).unwrap().bad
}

fn found(sequence: u64, problem: ChainProblem) -> Option<BadRecord> {
    Some(BadRecord { sequence, problem })
}

/// Changes the store, checks it, and takes the change back.
#[track_caller]
fn changed(path: &Path, change: impl FnOnce(&mut Tampered)) -> Option<BadRecord> {
    let mut saved = None;
    tamper(path, |stored| {
        saved = Some(stored.clone());
        change(stored);
    });
    let bad = check(path);
    tamper(path, |stored| *stored = saved.unwrap());
    bad
}

#[tokio::test(flavor = "multi_thread")]
async fn untouched_store_holds_and_is_counted() {
    let (_folder, path) = store().await;
    let report = verify(&path, &VerifyOptions::default()).unwrap();
    assert_eq!(report.bad, None);
    assert_eq!((report.records, report.gaps, report.missing_events), (6, 1, 1));
    assert_eq!(report.base, Head { sequence: 0, hash: GENESIS_HASH });
    assert_eq!(report.head.sequence, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flipped_byte_of_every_record_is_noticed() {
    let (_folder, path) = store().await;
    let mut rows = Vec::new();
    tamper(&path, |stored| rows.clone_from(&stored.rows));
    let mut flips = 0;
    for row in rows {
        let sequence = row.sequence;
        for (column, count) in [("content", row.content.len()), ("hash", row.hash.len())] {
            for at in 0..count {
                let flip = |bytes: &mut [u8]| bytes[at] ^= 1 << (at % 8);
                let bad = changed(&path, |stored| match column {
                    "hash" => flip(&mut stored.row(sequence).hash),
                    _ => {
                        let mut content = row.content.to_vec();
                        flip(&mut content);
                        stored.row(sequence).content = content.into();
                    }
                });
                assert_eq!(bad, found(sequence, ChainProblem::ContentChanged), "{column} {at}");
                flips += 1;
            }
        }
    }
    assert!(flips > 1000, "{flips}");
    assert_eq!(check(&path), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flipped_byte_of_the_file_is_noticed() {
    let (_folder, path) = store().await;
    let segment = path.join("00000000000000000001.log");
    let bytes = std::fs::read(&segment).unwrap();
    let mut records = 0;
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(&segment, flipped).unwrap();
        match verify(&path, &VerifyOptions::default()) {
            Ok(report) => records += usize::from(report.bad.unwrap().sequence > 0),
            Err(AuditError::UnknownFormat { .. }) => assert!((8..12).contains(&at), "{at}"),
            Err(error) => panic!("{at}: {error}"),
        }
    }
    std::fs::write(&segment, &bytes).unwrap();
    assert_eq!(check(&path), None);
    assert!(records > bytes.len() / 2, "{records} of {} name a record", bytes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_tamper_is_named() {
    let (_folder, path) = store().await;
    let removed = changed(&path, |stored| stored.remove(|sequence| sequence == 3));
    assert_eq!(removed, found(3, ChainProblem::Missing { next: 4 }));
    let first = changed(&path, |stored| stored.remove(|sequence| sequence == 1));
    assert_eq!(first, found(1, ChainProblem::Missing { next: 2 }));
    let swapped = changed(&path, |stored| {
        stored.rows.swap(1, 2);
        (stored.rows[1].sequence, stored.rows[2].sequence) = (2, 3);
    });
    assert_eq!(swapped, found(2, ChainProblem::Reordered { found: 3 }));
    let time = changed(&path, |stored| stored.row(4).latest_time += 1);
    assert_eq!(time, found(4, ChainProblem::TimeColumn));
    let base = changed(&path, |stored| stored.base.head.hash = [9; 32]);
    assert_eq!(base, found(1, ChainProblem::LinkBroken));
    let hidden = changed(&path, |stored| stored.base.head.sequence = 2);
    assert_eq!(hidden, found(3, ChainProblem::LinkBroken));
    let other = changed(&path, |stored| stored.log_id = uuid::Uuid::new_v4());
    assert!(matches!(other, Some(BadRecord { sequence: 1, problem: ChainProblem::OtherLog { .. } })));
    let prev = changed(&path, |stored| stored.row(5).hash = [0; 32]);
    assert_eq!(prev, found(5, ChainProblem::ContentChanged));
    assert_eq!(check(&path), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn record_replaced_with_a_fitting_hash_is_found_by_the_next() {
    let (_folder, path) = store().await;
    let replace = |sequence: u64| {
        tamper(&path, |stored| {
            let row = stored.row(sequence);
            let mut content = row.content.to_vec();
            // Another digit in the log id would be noticed, one of the event id is not.
            let at = content.windows(4).position(|bytes| bytes == [0x1a, 36, b'0', b'1']).unwrap() + 20;
            content[at] ^= 1;
            row.hash = sha256(&content);
            row.content = content.into();
        });
    };
    replace(2);
    assert_eq!(check(&path), found(2, ChainProblem::Replaced));
    replace(2);
    // The newest has no successor to tell on it: that takes a hash kept elsewhere.
    let expected = verify(&path, &VerifyOptions::default()).unwrap().head;
    replace(6);
    assert_eq!(check(&path), None);
    let with = VerifyOptions { expected: Some(expected) };
    assert_eq!(verify(&path, &with).unwrap().bad, found(6, ChainProblem::UnexpectedHash));
    tamper(&path, |stored| stored.remove(|sequence| sequence == 6));
    assert_eq!(check(&path), found(6, ChainProblem::EndsEarly { newest: 5 }));
    std::fs::remove_file(path.with_file_name("audit.mark")).unwrap();
    assert_eq!(check(&path), None);
    assert_eq!(verify(&path, &with).unwrap().bad, found(6, ChainProblem::EndsEarly { newest: 5 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn chain_holds_after_the_log_was_written_and_trimmed() {
    let folder = tempfile::tempdir().unwrap();
    let ahead = Ahead::default();
    let log = AuditLog::open(AuditOptions {
        max_age: Some(Duration::from_secs(60)),
        clock: ahead.clock(),
        ..AuditOptions::new(folder.path())
    })
    .unwrap();
    for _ in 0..3000 {
        log.enqueue(denial("c"));
    }
    until(&log, |status| status.durable == 3000).await;
    let path = folder.path().join(STORE_DIRECTORY);
    let error = verify(&path, &VerifyOptions::default()).unwrap_err();
    assert!(error.to_string().ends_with("is in use by a running server; use --server, or stop it first"));
    ahead.pass(3600);
    for _ in 0..200 {
        log.append_durable(expansion("c")).await.unwrap();
    }
    until(&log, |status| status.oldest > 1000).await;
    log.close().await.unwrap();
    assert!(assert_holds(folder.path()).base.sequence >= 1000);
}

#[test]
fn what_is_no_audit_log_is_an_error() {
    use rusqlite::Connection;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("any.db");
    let error = verify(&path, &VerifyOptions::default()).unwrap_err();
    assert!(matches!(error, AuditError::Io { .. }), "{error}");
    std::fs::write(&path, b"this is no database, whatever its name says").unwrap();
    let error = verify(&path, &VerifyOptions::default()).unwrap_err();
    assert!(matches!(error, AuditError::NotAnAuditLog { .. }), "{error}");
    std::fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
    let error = verify(&path, &VerifyOptions::default()).unwrap_err();
    assert!(matches!(error, AuditError::NotAnAuditLog { .. }), "{error}");
    Connection::open(&path)
        .unwrap()
        .execute_batch("PRAGMA application_id = 1398227276; PRAGMA user_version = 9")
        .unwrap();
    let error = verify(&path, &VerifyOptions::default()).unwrap_err();
    assert!(matches!(error, AuditError::UnknownFormat { found: 9, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_missing_at_the_end_are_known_from_the_high_water_file() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(AuditOptions::new(folder.path())).unwrap();
    for n in 0..5 {
        log.append_durable(expansion(&n.to_string())).await.unwrap();
    }
    log.close().await.unwrap();
    assert_holds(folder.path());
    let path = folder.path().join(STORE_DIRECTORY);
    tamper(&path, |stored| stored.remove(|sequence| sequence > 3));
    let report = verify(&path, &VerifyOptions::default()).unwrap();
    assert_eq!(report.bad, Some(BadRecord { sequence: 4, problem: ChainProblem::EndsEarly { newest: 3 } }));
    assert_eq!(report.records, 3);
}
