//! Every change to a stored chain is noticed and named.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::params;

use super::super::record::sha256;
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
    let path = folder.path().join(STORE_FILE);
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
fn changed(path: &Path, sql: &str) -> Option<BadRecord> {
    let connection = Connection::open(path).unwrap();
    let saved = std::fs::read(path).unwrap();
    connection.execute_batch(sql).unwrap();
    drop(connection);
    let bad = check(path);
    std::fs::write(path, saved).unwrap();
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
    let connection = Connection::open(&path).unwrap();
    let rows = super::super::sqlite::read_rows(&connection, 0, 100).unwrap();
    let mut flips = 0;
    for row in rows {
        for (column, bytes) in [("content", row.content.to_vec()), ("hash", row.hash.to_vec())] {
            let update = format!("UPDATE record SET {column} = ?1 WHERE sequence = ?2");
            for at in 0..bytes.len() {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << (at % 8);
                connection.execute(&update, params![flipped, signed(row.sequence)]).unwrap();
                assert_eq!(check(&path), found(row.sequence, ChainProblem::ContentChanged), "{column} {at}");
                flips += 1;
            }
            connection.execute(&update, params![bytes, signed(row.sequence)]).unwrap();
        }
    }
    assert!(flips > 1000, "{flips}");
    assert_eq!(check(&path), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_tamper_is_named() {
    let (_folder, path) = store().await;
    let removed = changed(&path, "DELETE FROM record WHERE sequence = 3");
    assert_eq!(removed, found(3, ChainProblem::Missing { next: 4 }));
    let first = changed(&path, "DELETE FROM record WHERE sequence = 1");
    assert_eq!(first, found(1, ChainProblem::Missing { next: 2 }));
    let swapped = "UPDATE record SET sequence = -2 WHERE sequence = 2;
        UPDATE record SET sequence = 2 WHERE sequence = 3;
        UPDATE record SET sequence = 3 WHERE sequence = -2";
    assert_eq!(changed(&path, swapped), found(2, ChainProblem::Reordered { found: 3 }));
    let time = "UPDATE record SET latest_time = latest_time + 1 WHERE sequence = 4";
    assert_eq!(changed(&path, time), found(4, ChainProblem::TimeColumn));
    let base = "UPDATE log SET base_hash = randomblob(32)";
    assert_eq!(changed(&path, base), found(1, ChainProblem::LinkBroken));
    let base = "UPDATE log SET base_sequence = 2";
    assert_eq!(changed(&path, base), found(2, ChainProblem::BeforeBase));
    let hidden = "UPDATE record SET sequence = sequence - 10 WHERE sequence = 1";
    assert_eq!(changed(&path, hidden), found(0, ChainProblem::BeforeBase));
    let other = "UPDATE log SET log_id = randomblob(16)";
    assert!(matches!(
        changed(&path, other),
        Some(BadRecord { sequence: 1, problem: ChainProblem::OtherLog { .. } })
    ));
    let prev = "UPDATE record SET hash = x'00' WHERE sequence = 5";
    assert_eq!(changed(&path, prev), found(5, ChainProblem::ContentChanged));
    assert_eq!(check(&path), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn record_replaced_with_a_fitting_hash_is_found_by_the_next() {
    let (_folder, path) = store().await;
    let connection = Connection::open(&path).unwrap();
    let replace = |sequence: u64| {
        let row = super::super::sqlite::read_rows(&connection, sequence - 1, 1).unwrap().remove(0);
        let mut content = row.content.to_vec();
        // Another digit in the log id would be noticed, one of the event id is not.
        let at = content.windows(4).position(|bytes| bytes == [0x1a, 36, b'0', b'1']).unwrap() + 20;
        content[at] ^= 1;
        let hash = sha256(&content);
        let update = "UPDATE record SET content = ?1, hash = ?2 WHERE sequence = ?3";
        connection.execute(update, params![content, hash, signed(sequence)]).unwrap();
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
    connection.execute("DELETE FROM record WHERE sequence = 6", []).unwrap();
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
    let path = folder.path().join(STORE_FILE);
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
    let path = folder.path().join(STORE_FILE);
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch("DELETE FROM record WHERE sequence > 3")
        .unwrap();
    let report = verify(&path, &VerifyOptions::default()).unwrap();
    assert_eq!(report.bad, Some(BadRecord { sequence: 4, problem: ChainProblem::EndsEarly { newest: 3 } }));
    assert_eq!(report.records, 3);
}
