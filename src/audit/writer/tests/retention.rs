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
    let size = || segments(&folder).iter().map(|(_, bytes)| bytes).sum::<u64>();
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

/// The segments of a store and their sizes, in order.
fn segments(folder: &tempfile::TempDir) -> Vec<(String, u64)> {
    let entries = std::fs::read_dir(state(folder).join(STORE_DIRECTORY)).unwrap().map(Result::unwrap);
    let mut found: Vec<_> = entries
        // One may be deleted at this moment.
        .filter_map(|entry| Some((entry.file_name().into_string().unwrap(), entry.metadata().ok()?.len())))
        .collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_end_at_their_size_and_the_next_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let log =
        AuditLog::open(AuditOptions { max_bytes: Some(Retention::LEAST_BYTES), ..options(&folder) }).unwrap();
    let large = AuditEvent { effective_scope: "x".repeat(40_000), ..expansion("large") };
    for n in 0..25 {
        log.append_durable(AuditEvent { event_id: format!("{n}"), ..large.clone() }).await.unwrap();
    }
    log.close().await.unwrap();
    // A quarter of a MiB each.
    let found = segments(&folder);
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [1, 8, 15, 22].map(|first| format!("{first:020}.log"));
    assert_eq!(names, expected);
    assert!(found.iter().take(3).all(|(_, bytes)| (256 << 10..300 << 10).contains(bytes)), "{found:?}");
    assert_eq!(assert_holds(&state(&folder)).records, 25);
    let log = AuditLog::open(options(&folder)).unwrap();
    assert!(log.start_report().is_clean());
    assert_eq!(all(&log).await.len(), 25);
}

/// What has grown old is in no file for longer than a share of its age, however little is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn segments_end_with_time_and_a_log_of_which_all_is_old_has_nothing_in_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let ahead = Ahead::default();
    let max_age = Some(Duration::from_secs(3200));
    let log = AuditLog::open(AuditOptions { max_age, clock: ahead.clock(), ..options(&folder) }).unwrap();
    let dated = |client_id: &str, seconds: u64| AuditEvent {
        event_time: Some((SystemTime::now() + Duration::from_secs(seconds)).into()),
        ..expansion(client_id)
    };
    log.append_durable(dated("first", 0)).await.unwrap();
    let maintained = log.status().maintained;
    until(&log, |status| status.maintained > maintained + 1).await;
    log.append_durable(dated("second", 0)).await.unwrap();
    assert_eq!(segments(&folder).len(), 1, "it is not old");
    ahead.pass(110);
    let maintained = log.status().maintained;
    until(&log, |status| status.maintained > maintained + 1).await;
    log.append_durable(dated("third", 110)).await.unwrap();
    assert_eq!(segments(&folder).len(), 2);
    // The first two are old, the third is not.
    ahead.pass(3280);
    until(&log, |status| status.oldest == 3).await;
    until(&log, |_| segments(&folder).len() == 1).await;
    ahead.pass(10_000);
    until(&log, |status| status.oldest == 4).await;
    let name = format!("{:020}.log", 4);
    until(&log, |_| matches!(&*segments(&folder), [(only, _)] if *only == name)).await;
    let bytes = std::fs::read(state(&folder).join(STORE_DIRECTORY).join(&name)).unwrap();
    assert!(bytes.iter().rposition(|byte| *byte != 0).unwrap() < 500, "there are headers, and nothing else");
    log.append_durable(dated("fourth", 10_000)).await.unwrap();
    log.close().await.unwrap();
    let report = assert_holds(&state(&folder));
    assert_eq!((report.base.sequence, report.records), (3, 1));
}

/// Else one segment that cannot be read would let the store grow without limit, and keep what is too old.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_deleted_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let ahead = Ahead::default();
    let log = AuditLog::open(AuditOptions {
        max_bytes: Some(Retention::LEAST_BYTES),
        max_age: Some(Duration::from_secs(3600)),
        clock: ahead.clock(),
        ..options(&folder)
    })
    .unwrap();
    let large = AuditEvent { effective_scope: "x".repeat(40_000), ..expansion("large") };
    let write = async |count: u32| {
        for n in 0..count {
            log.append_durable(AuditEvent { event_id: format!("{n}"), ..large.clone() }).await.unwrap();
        }
    };
    write(100).await;
    let oldest = || state(&folder).join(STORE_DIRECTORY).join(&segments(&folder).first().unwrap().0);
    // The header of a frame.
    let mut bytes = std::fs::read(oldest()).unwrap();
    bytes[136 + 30] ^= 1;
    std::fs::write(oldest(), bytes).unwrap();
    write(400).await;
    until(&log, |status| status.oldest > 8 && status.bytes < Retention::LEAST_BYTES).await;
    std::fs::remove_file(oldest()).unwrap();
    let before = log.status().oldest;
    ahead.pass(4000);
    until(&log, |status| status.oldest > before + 7).await;
    until(&log, |status| status.oldest == 501).await;
    assert!(log.status().health.chain_broken.is_some());
    log.append_durable(expansion("next")).await.unwrap();
    log.close().await.unwrap();
    // Of what was damaged nothing is left.
    assert_eq!(assert_holds(&state(&folder)).records, 1);
}
