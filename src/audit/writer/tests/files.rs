//! Files of the store that are removed, replaced or damaged while it is open.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn store_that_was_removed_acknowledges_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(options(&folder)).unwrap();
    log.append_durable(expansion("a")).await.unwrap();
    std::fs::rename(state(&folder).join(STORE_DIRECTORY), state(&folder).join("elsewhere")).unwrap();
    let error = log.append_durable(expansion("b")).await.unwrap_err();
    assert!(error.to_string().contains("was removed or replaced"), "{error}");
    std::fs::rename(state(&folder).join("elsewhere"), state(&folder).join(STORE_DIRECTORY)).unwrap();
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

/// The segment that is written.
fn segment(folder: &tempfile::TempDir) -> std::path::PathBuf {
    let mut paths: Vec<_> = std::fs::read_dir(state(folder).join(STORE_DIRECTORY))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.pop().unwrap()
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
async fn segment_that_was_removed_acknowledges_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(options(&folder)).unwrap();
    log.append_durable(expansion("a")).await.unwrap();
    let (path, away) = (segment(&folder), folder.path().join("elsewhere"));
    std::fs::rename(&path, &away).unwrap();
    let error = log.append_durable(expansion("b")).await.unwrap_err();
    assert!(error.to_string().contains("was removed or replaced"), "{error}");
    // A copy is as good.
    std::fs::copy(&away, &path).unwrap();
    until(&log, |status| status.health.degraded.is_none()).await;
    log.append_durable(expansion("c")).await.unwrap();
    assert_eq!(client_ids(&all(&log).await), ["a", "c"]);
    log.close().await.unwrap();
    assert_holds(&state(&folder));
}

#[tokio::test(flavor = "multi_thread")]
async fn segment_that_was_damaged_while_it_is_written_loses_nothing_that_is_in_memory() {
    let header = crate::audit::segments::format::HEADER_BYTES as u64;
    let damages: [(u64, Option<&[u8]>); 6] = [
        (0, None),
        (5000, None),
        (0, Some(&[0; 32])),
        (40, None),
        (header, None),
        (0, Some(b"something else")),
    ];
    for (at, bytes) in damages {
        let folder = tempfile::tempdir().unwrap();
        let log = AuditLog::open(options(&folder)).unwrap();
        for n in 0..10 {
            log.append_durable(expansion(&n.to_string())).await.unwrap();
        }
        damage(&segment(&folder), at, bytes);
        // Whatever is acknowledged from here on is there.
        let mut expected: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        for n in 10..14 {
            match log.append_durable(expansion(&n.to_string())).await {
                Ok(_) => expected.push(n.to_string()),
                Err(error) => assert!(error.to_string().contains("00000000000000000001.log"), "{error}"),
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
async fn what_a_damaged_segment_lost_and_memory_has_not_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(options(&folder)).unwrap();
    let mut large = expansion("large");
    large.requested_scope = Some("scope ".repeat(80_000));
    // A restart leaves nothing in memory.
    for n in 0..6 {
        log.append_durable(AuditEvent { event_id: format!("{n}"), ..large.clone() }).await.unwrap();
    }
    log.close().await.unwrap();
    drop(log);
    let log = AuditLog::open(options(&folder)).unwrap();
    damage(&segment(&folder), 1_000_000, None);
    log.append_durable(expansion("refused")).await.unwrap_err();
    until(&log, |status| status.health.degraded.is_none()).await;
    let recorded = log.append_durable(expansion("after")).await.unwrap();
    assert_eq!(recorded.head.sequence, 7);
    let lost = log.status().lost;
    assert!((2..6).contains(&lost), "{lost}");
    log.close().await.unwrap();
    let report = assert_holds(&state(&folder));
    assert_eq!((report.records, report.missing_events), (7, lost));
}

#[tokio::test(flavor = "multi_thread")]
async fn earlier_segment_that_is_gone_is_found_while_the_log_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let max_bytes = Some(Retention::LEAST_BYTES);
    let log = AuditLog::open(AuditOptions { max_bytes, ..options(&folder) }).unwrap();
    let mut large = denial("large");
    large.requested_scope = Some("scope ".repeat(8000));
    for n in 0..30 {
        log.append_durable(AuditEvent { event_id: format!("{n}"), ..large.clone() }).await.unwrap();
    }
    let mut health = log.watch_health();
    std::fs::remove_file(state(&folder).join(STORE_DIRECTORY).join("00000000000000000001.log")).unwrap();
    let bad =
        health.wait_for(|health| health.chain_broken.is_some()).await.unwrap().chain_broken.clone().unwrap();
    assert!(bad.to_string().contains("it is missing"), "{bad}");
    log.append_durable(expansion("next")).await.unwrap();
    log.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_can_read_a_store_that_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(options(&folder)).unwrap();
    log.append_durable(expansion("a")).await.unwrap();
    let path = state(&folder).join(STORE_DIRECTORY);
    let error = Scan::open(&path, Start::Earliest, "").unwrap_err();
    assert!(matches!(error, AuditError::StoreInUse { .. }), "{error}");
    log.append_durable(expansion("b")).await.unwrap();
    assert_eq!(client_ids(&all(&log).await), ["a", "b"]);
    log.close().await.unwrap();
    let reader = Scan::open(&path, Start::Earliest, "").unwrap();
    let other = Scan::open(&path, Start::Earliest, "").unwrap();
    assert_eq!((reader.count(), other.count()), (2, 2));
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
    crate::audit::segments::tamper::tamper(&state(&folder).join(STORE_DIRECTORY), |stored| {
        stored.zero(|sequence| sequence == 7);
    });

    let log = AuditLog::open(options(&folder)).unwrap();
    let mut health = log.watch_health();
    let bad = health.wait_for(|health| health.chain_broken.is_some()).await.unwrap().chain_broken.clone();
    assert_eq!(bad, Some(BadRecord { sequence: 7, problem: ChainProblem::ContentChanged }));
    // What is new is recorded all the same.
    log.append_durable(expansion("next")).await.unwrap();
}
