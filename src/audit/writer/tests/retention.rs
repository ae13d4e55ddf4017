//! What age, size and the volume do.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn age_deletes_the_oldest_and_the_chain_still_holds() {
    let folder = tempfile::tempdir().unwrap();
    let ahead = Ahead::default();
    let log = AuditLog::open(AuditOptions {
        max_age: Some(Duration::from_secs(3600)),
        clock: ahead.clock(),
        ..options(&folder)
    })
    .unwrap();
    let dated = |seconds: u64| {
        let mut event = expansion(&seconds.to_string());
        event.event_time = Some((SystemTime::now() + Duration::from_secs(seconds)).into());
        event
    };
    for n in 0..2500 {
        log.enqueue(dated(n));
    }
    until(&log, |status| status.durable == 2500).await;
    assert_eq!(log.status().oldest, 1);
    // A wall clock that is set forward makes nothing old, whatever is recorded by it.
    let maintained = log.status().maintained;
    ahead.jump(1_000_000);
    log.append_durable(dated(1_000_000)).await.unwrap();
    until(&log, |status| status.maintained > maintained + 1).await;
    assert_eq!(log.status().oldest, 1);
    ahead.pass(3600 + 2000);
    until(&log, |status| status.oldest > 2000).await;
    let oldest = log.status().oldest;
    assert!((2001..2100).contains(&oldest), "{oldest}");
    let error = log.read_after(100, &Filter::default(), 10).await.unwrap_err();
    assert!(matches!(error, AuditError::OutOfRange { requested: 100, newest: 2501, .. }), "{error}");
    ahead.pass(2_000_000);
    // What was evicted is counted after it is gone.
    until(&log, |status| status.evicted == Evicted { age: 2501, size: 0 }).await;
    assert_eq!(log.status().oldest, 2502);
    log.append_durable(dated(2_000_000)).await.unwrap();
    log.close().await.unwrap();
    let report = assert_holds(&state(&folder));
    assert_eq!((report.base.sequence, report.head.sequence, report.records), (2501, 2502, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn size_limit_is_kept_by_deleting_the_oldest() {
    let folder = tempfile::tempdir().unwrap();
    let limit = Retention::LEAST_BYTES;
    let log = AuditLog::open(AuditOptions {
        max_bytes: Some(limit),
        volume: Arc::new(|_| Ok(Volume { total: 1 << 40, free: 1 << 39 })),
        ..options(&folder)
    })
    .unwrap();
    let path = state(&folder).join(STORE_FILE);
    let size = || {
        let wal = crate::audit::sqlite::wal_path(&path);
        std::fs::metadata(&path).unwrap().len() + std::fs::metadata(wal).map_or(0, |data| data.len())
    };
    let mut large = expansion("large");
    large.requested_scope = Some("scope ".repeat(8000));
    for _ in 0..50 {
        let appends: Vec<_> = (0..16)
            .map(|_| {
                let (log, large) = (log.clone(), large.clone());
                tokio::spawn(async move { log.append_durable(large).await.unwrap() })
            })
            .collect();
        for append in appends {
            append.await.unwrap();
        }
        assert!(size() <= limit, "{} bytes", size());
    }
    // A log that its own limit keeps small is no reason to worry; that young records go is counted.
    assert_eq!(log.status().health.storage_low, None);
    let status = log.status();
    assert!(status.oldest > 1);
    assert_eq!(status.evicted, Evicted { age: 0, size: status.oldest - 1 });
    log.close().await.unwrap();
    let report = assert_holds(&state(&folder));
    assert_eq!(report.head.sequence, 800);
    assert_eq!(report.records, 800 - report.base.sequence);

    // A lower limit would shrink the file; here age does.
    let ahead = Ahead::default();
    let max_age = Some(Duration::from_secs(60));
    let log = AuditLog::open(AuditOptions { max_age, clock: ahead.clock(), ..options(&folder) }).unwrap();
    ahead.pass(3600);
    until(&log, |status| status.oldest == 801 && status.bytes < 8 << 20).await;
    log.close().await.unwrap();
    assert_holds(&state(&folder));
}

#[test]
fn limit_without_room_to_work_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = AuditLog::open(AuditOptions { max_bytes: Some(1 << 20), ..options(&folder) }).unwrap_err();
    assert!(matches!(error, AuditError::LimitTooSmall { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn volume_that_is_nearly_full_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(5 << 30));
    let probe = Arc::clone(&free);
    let volume: crate::audit::volume::VolumeProbe =
        Arc::new(move |_| Ok(Volume { total: 100 << 30, free: probe.load(Ordering::Relaxed) }));
    let log = AuditLog::open(AuditOptions { volume, ..options(&folder) }).unwrap();
    let mut health = log.watch_health();
    let low = health.wait_for(|health| health.storage_low.is_some()).await.unwrap().storage_low.unwrap();
    assert_eq!(low, StorageLow { free: 5 << 30, threshold: 10 << 30 });
    free.store(20 << 30, Ordering::Relaxed);
    health.wait_for(|health| health.storage_low.is_none()).await.unwrap();
}

/// Also where it takes longer than one round of maintenance until it is large: else it would grow as long as the process runs.
#[tokio::test(flavor = "multi_thread")]
async fn write_ahead_file_is_moved_however_slowly_it_grows() {
    let folder = tempfile::tempdir().unwrap();
    // It is moved when it has about 256 KiB; a commit takes 48 KiB and more.
    let log =
        AuditLog::open(AuditOptions { max_bytes: Some(Retention::LEAST_BYTES), ..options(&folder) }).unwrap();
    let store = state(&folder).join(STORE_FILE);
    let length = || std::fs::metadata(&store).unwrap().len();
    let before = length();
    for _ in 0..2 {
        assert_eq!(length(), before, "it is not large yet");
        for n in 0..4 {
            let mut event = expansion(&n.to_string());
            event.effective_scope = "x".repeat(4000);
            log.append_durable(event).await.unwrap();
        }
        let maintained = log.status().maintained;
        until(&log, |status| status.maintained > maintained).await;
    }
    until(&log, |_| length() > before).await;
    log.close().await.unwrap();
}
