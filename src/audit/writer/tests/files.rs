//! Files of the store that are removed, replaced or damaged while it is open.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn store_that_was_removed_acknowledges_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(options(&folder)).unwrap();
    log.append_durable(expansion("a")).await.unwrap();
    std::fs::rename(state(&folder).join(STORE_FILE), state(&folder).join("elsewhere")).unwrap();
    let error = log.append_durable(expansion("b")).await.unwrap_err();
    assert!(error.to_string().contains("was removed or replaced"), "{error}");
    std::fs::rename(state(&folder).join("elsewhere"), state(&folder).join(STORE_FILE)).unwrap();
    until(&log, |status| status.health.degraded.is_none()).await;
    log.append_durable(expansion("c")).await.unwrap();
    assert_eq!(client_ids(&all(&log).await), ["a", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn state_directory_that_was_removed_is_not_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(options(&folder)).unwrap();
    log.append_durable(expansion("a")).await.unwrap();
    let away = folder.path().join("away");
    std::fs::rename(state(&folder), &away).unwrap();
    let error = log.append_durable(expansion("b")).await.unwrap_err();
    assert!(error.to_string().contains("was removed or replaced"), "{error}");
    let degraded = log.status().health.degraded.unwrap();
    assert_eq!(degraded.reason, DegradedReason::StateDirectoryMissing);
    assert!(degraded.error.contains(state(&folder).to_str().unwrap()), "{degraded:?}");
    assert!(!state(&folder).exists());
    // Another directory of the same name is not the one that this log has locked.
    std::fs::create_dir(state(&folder)).unwrap();
    log.append_durable(expansion("c")).await.unwrap_err();
    assert_eq!(std::fs::read_dir(state(&folder)).unwrap().count(), 0);
    std::fs::remove_dir(state(&folder)).unwrap();
    std::fs::rename(&away, state(&folder)).unwrap();
    until(&log, |status| status.health.degraded.is_none()).await;
    log.append_durable(expansion("d")).await.unwrap();
    assert_eq!(client_ids(&all(&log).await), ["a", "d"]);
}

/// Damages a file of the store while it is open.
fn damage(path: &std::path::Path, at: u64, bytes: Option<&[u8]>) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(path).unwrap();
    match bytes {
        Some(bytes) => file.write_all_at(bytes, at).unwrap(),
        None => file.set_len(at).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn write_ahead_file_that_was_damaged_loses_nothing_that_is_in_memory() {
    let damages: [(u64, Option<&[u8]>); 4] = [(0, None), (5000, None), (0, Some(&[0; 32])), (40, None)];
    for (at, bytes) in damages {
        let folder = tempfile::tempdir().unwrap();
        let log = AuditLog::open(options(&folder)).unwrap();
        for n in 0..10 {
            log.append_durable(expansion(&n.to_string())).await.unwrap();
        }
        let wal = crate::audit::sqlite::wal_path(&state(&folder).join(STORE_FILE));
        damage(&wal, at, bytes);
        // Whatever is acknowledged from here on is there.
        let mut expected: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        for n in 10..14 {
            match log.append_durable(expansion(&n.to_string())).await {
                Ok(_) => expected.push(n.to_string()),
                Err(error) => assert!(error.to_string().contains("audit.db-wal"), "{error}"),
            }
        }
        until(&log, |status| status.health.degraded.is_none()).await;
        assert!(log.status().errors > 0, "the damage at {at} was not noticed");
        log.append_durable(expansion("last")).await.unwrap();
        expected.push("last".to_owned());
        log.close().await.unwrap();
        drop(log);
        let log = AuditLog::open(options(&folder)).unwrap();
        assert!(log.start_report().is_clean(), "{:?}", log.start_report());
        assert_eq!(client_ids(&all(&log).await), expected);
        log.close().await.unwrap();
        assert_holds(&state(&folder));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_damaged_file_lost_and_memory_has_not_is_counted() {
    // Where nobody waits, the write-ahead file has more than memory keeps, and none of it was moved to the main file.
    for somebody_waits in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let log = AuditLog::open(options(&folder)).unwrap();
        let mut large = expansion("large");
        large.requested_scope = Some("scope ".repeat(80_000));
        for written in 1..=12 {
            if somebody_waits {
                log.append_durable(large.clone()).await.unwrap();
            } else {
                log.enqueue(large.clone());
                until(&log, |status| status.durable == written).await;
            }
        }
        let wal = crate::audit::sqlite::wal_path(&state(&folder).join(STORE_FILE));
        damage(&wal, 0, Some(&[0; 32]));
        log.append_durable(expansion("refused")).await.unwrap_err();
        until(&log, |status| status.health.degraded.is_none()).await;
        let recorded = log.append_durable(expansion("after")).await.unwrap();
        assert_eq!(recorded.head.sequence, 13);
        let lost = log.status().lost;
        assert_eq!(lost > 0, !somebody_waits, "{lost}");
        log.close().await.unwrap();
        let report = assert_holds(&state(&folder));
        assert_eq!((report.records, report.missing_events), (13, lost));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn main_file_that_was_damaged_acknowledges_nothing() {
    let damages: [(u64, Option<&[u8]>); 3] = [(0, None), (8192, None), (0, Some(&[0; 100]))];
    for (at, bytes) in damages {
        let folder = tempfile::tempdir().unwrap();
        let log = AuditLog::open(options(&folder)).unwrap();
        log.append_durable(expansion("a")).await.unwrap();
        log.close().await.unwrap();
        drop(log);
        let log = AuditLog::open(options(&folder)).unwrap();
        log.append_durable(expansion("b")).await.unwrap();
        damage(&state(&folder).join(STORE_FILE), at, bytes);
        assert!(log.append_durable(expansion("c")).await.is_err(), "the damage at {at} was not noticed");
        // If the write-ahead file has all that is missing, the store works again; else it refuses.
        let acknowledged = log.append_durable(expansion("d")).await.is_ok();
        if log.close().await.is_err() || !acknowledged {
            continue;
        }
        drop(log);
        let log = AuditLog::open(options(&folder)).unwrap();
        assert_eq!(client_ids(&all(&log).await), ["a", "b", "d"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_process_can_open_a_store_that_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(options(&folder)).unwrap();
    log.append_durable(expansion("a")).await.unwrap();
    let path = state(&folder).join(STORE_FILE);
    assert!(!path.with_extension("db-shm").exists(), "no memory is shared through a file");
    let foreign = rusqlite::Connection::open(&path).unwrap();
    foreign.busy_timeout(Duration::ZERO).unwrap();
    let error = foreign.query_row("SELECT count(*) FROM record", [], |_| Ok(())).unwrap_err();
    assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy), "{error}");
    drop(foreign);
    log.append_durable(expansion("b")).await.unwrap();
    assert_eq!(client_ids(&all(&log).await), ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_a_start_does_not_look_for_is_found_by_the_walk() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(options(&folder)).unwrap();
    for n in 0..1500 {
        log.enqueue(denial(&n.to_string()));
    }
    log.append_durable(expansion("last")).await.unwrap();
    log.close().await.unwrap();
    drop(log);
    let damage = "UPDATE record SET content = zeroblob(length(content)) WHERE sequence = 7";
    rusqlite::Connection::open(state(&folder).join(STORE_FILE)).unwrap().execute_batch(damage).unwrap();

    let log = AuditLog::open(options(&folder)).unwrap();
    let mut health = log.watch_health();
    let bad = health.wait_for(|health| health.chain_broken.is_some()).await.unwrap().chain_broken.clone();
    assert_eq!(bad, Some(BadRecord { sequence: 7, problem: ChainProblem::ContentChanged }));
    // What is new is recorded all the same.
    log.append_durable(expansion("next")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn write_ahead_file_is_moved_sooner_where_somebody_waits_for_records() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(options(&folder)).unwrap();
    let large = |event: AuditEvent| AuditEvent { requested_scope: Some("a".repeat(250_000)), ..event };
    let wal = crate::audit::sqlite::wal_path(&state(&folder).join(STORE_FILE));
    let wal_bytes = || std::fs::metadata(&wal).unwrap().len();
    for n in 0..40 {
        log.append_durable(large(expansion(&n.to_string()))).await.unwrap();
    }
    assert!(wal_bytes() < AWAITED_WAL_BYTES + (1 << 20), "{}", wal_bytes());
    for n in 0..40 {
        log.enqueue(large(denial(&n.to_string())));
        until(&log, |status| status.durable == 41 + n).await;
    }
    assert!(wal_bytes() > AWAITED_WAL_BYTES + (2 << 20), "{}", wal_bytes());
    log.close().await.unwrap();
    assert_eq!(assert_holds(&state(&folder)).records, 80);
}
