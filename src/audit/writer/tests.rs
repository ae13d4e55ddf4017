//! Group commit, failure and recovery, losses, retention.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::testing::*;
use super::super::*;
use super::*;
use crate::proto::v1::{AuditEvent, Reason};

fn options(folder: &tempfile::TempDir) -> AuditOptions {
    AuditOptions::new(folder.path().join("state"))
}

fn state(folder: &tempfile::TempDir) -> std::path::PathBuf {
    folder.path().join("state")
}

fn client_ids(records: &[Record]) -> Vec<&str> {
    records
        .iter()
        .filter_map(|record| match &record.body {
            Body::Event(event) => event.client.as_ref().map(|client| client.client_id.as_str()),
            Body::Gap(_) => None,
        })
        .collect()
}

fn gaps(records: &[Record]) -> Vec<(&str, u64)> {
    records
        .iter()
        .filter_map(|record| match &record.body {
            Body::Event(_) => None,
            Body::Gap(gap) => Some((gap.reason.as_str(), gap.count)),
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_appends_share_commits_and_get_contiguous_sequences() {
    let folder = tempfile::tempdir().unwrap();
    let (log, gate) = open_gated(options(&folder));
    let appends: Vec<_> = (0..300)
        .map(|n| {
            let log = log.clone();
            tokio::spawn(async move { log.append_durable(expansion(&n.to_string())).await.unwrap() })
        })
        .collect();
    until(&log, |status| status.queue_length == 300).await;
    drop(gate);
    let mut sequences = Vec::new();
    for append in appends {
        sequences.push(append.await.unwrap().head.sequence);
    }
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=300).collect::<Vec<u64>>());
    assert!(log.status().commits <= 2, "{:?}", log.status());
    log.close().await.unwrap();
    assert_eq!(assert_holds(&state(&folder)).records, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_place_is_where_the_event_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(options(&folder)).unwrap();
    let event = expansion("a");
    let recorded = log.append_durable(event.clone()).await.unwrap();
    assert_eq!(log.head(), recorded.head);
    let records = all(&log).await;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].head(), recorded.head);
    assert_eq!(records[0].prev_hash, GENESIS_HASH);
    let Body::Event(found) = &records[0].body else { panic!("{records:?}") };
    assert_eq!(found.hash, recorded.head.hash);
    let placed = AuditEvent {
        log_id: log.log_id().to_string(),
        sequence: 1,
        prev_hash: GENESIS_HASH.to_vec(),
        hash: recorded.head.hash.to_vec(),
        ..event
    };
    assert_eq!(**found, placed);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_commit_fails_who_waits_keeps_the_queue_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let (log, faults) = open_faulty(options(&folder));
    log.append_durable(expansion("before")).await.unwrap();
    faults.lock().unwrap().lose_commits = true;
    log.enqueue(denial("queued"));
    let error = log.append_durable(expansion("refused")).await.unwrap_err();
    assert!(matches!(&error, AuditError::NotDurable { cause } if cause == "disk I/O error"), "{error}");
    let degraded = log.status().health.degraded.unwrap();
    assert_eq!(degraded.error, "disk I/O error");
    assert!(log.status().errors > 0);
    until(&log, |_| faults.lock().unwrap().reopened > 0).await;

    faults.lock().unwrap().lose_commits = false;
    until(&log, |status| status.health.degraded.is_none()).await;
    log.append_durable(expansion("after")).await.unwrap();
    let records = all(&log).await;
    assert_eq!(client_ids(&records), ["before", "queued", "after"]);
    log.close().await.unwrap();
    assert_holds(&state(&folder));
}

#[tokio::test(flavor = "multi_thread")]
async fn store_that_cannot_be_opened_again_at_once_is_opened_later() {
    let folder = tempfile::tempdir().unwrap();
    let (log, faults) = open_faulty(options(&folder));
    {
        let mut faults = faults.lock().unwrap();
        faults.lose_commits = true;
        faults.fail_reopen = true;
    }
    log.enqueue(denial("queued"));
    until(&log, |_| faults.lock().unwrap().reopened >= 2).await;
    assert_eq!(log.status().health.degraded.unwrap().error, "disk I/O error on opening");
    *faults.lock().unwrap() = Faults::default();
    until(&log, |status| status.durable == 1).await;
    assert_eq!(log.status().health.degraded, None);
    log.close().await.unwrap();
    assert_holds(&state(&folder));
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_that_failed_and_happened_is_not_chained_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (log, faults) = open_faulty(options(&folder));
    for round in 0..5 {
        faults.lock().unwrap().hide_commits = 1 + round % 2;
        log.enqueue(denial(&format!("queued-{round}")));
        let mut outcomes = Vec::new();
        for n in 0..3 {
            outcomes.push(log.append_durable(expansion(&format!("{round}-{n}"))).await.is_ok());
        }
        faults.lock().unwrap().hide_commits = 0;
        until(&log, |status| status.health.degraded.is_none() && status.queue_length == 0).await;
    }
    log.append_durable(expansion("last")).await.unwrap();
    let records = all(&log).await;
    let ids = client_ids(&records);
    let distinct: HashSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "{ids:?}");
    for round in 0..5 {
        assert!(ids.contains(&format!("queued-{round}").as_str()), "{ids:?}");
    }
    assert_eq!(gaps(&records), []);
    log.close().await.unwrap();
    assert_holds(&state(&folder));
}

#[tokio::test(flavor = "multi_thread")]
async fn gap_that_failed_and_was_written_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let (log, faults) = open_faulty(options(&folder));
    faults.lock().unwrap().hide_commits = 1;
    let mut large = denial("large");
    large.effective_scope = "x".repeat(MAX_RECORD_BYTES);
    log.enqueue(large);
    until(&log, |status| status.durable == 1 && status.health.degraded.is_none()).await;
    log.append_durable(expansion("last")).await.unwrap();
    assert_eq!(gaps(&all(&log).await), [(GapReason::TooLarge.as_str(), 1)]);
    log.close().await.unwrap();
    drop(log);
    assert!(AuditLog::open(options(&folder)).unwrap().start_report().is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_the_queue_becomes_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let (log, gate) = open_gated(AuditOptions { queue_bytes: 8 << 10, ..options(&folder) });
    let first = SystemTime::now();
    for n in 0..10 {
        log.enqueue(denial(&n.to_string()));
    }
    assert_eq!(log.status().lost, 6);
    drop(gate);
    log.append_durable(expansion("last")).await.unwrap();
    let records = all(&log).await;
    assert_eq!(client_ids(&records), ["0", "1", "2", "3", "last"]);
    // One gap, or two if some were lost while the first was being written.
    let nanos = |time: Option<prost_types::Timestamp>| super::super::record::nanos_of(time);
    for record in &records {
        let Body::Gap(gap) = &record.body else { continue };
        assert_eq!(gap.reason, GapReason::QueueFull.as_str());
        assert!(nanos(Some(first.into())) <= nanos(gap.first_time));
        assert!(nanos(gap.first_time) <= nanos(gap.last_time));
    }
    log.close().await.unwrap();
    assert_eq!(assert_holds(&state(&folder)).missing_events, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn losses_while_the_store_fails_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let (log, faults) = open_faulty(AuditOptions { queue_bytes: 8 << 10, ..options(&folder) });
    faults.lock().unwrap().lose_commits = true;
    log.append_durable(expansion("refused")).await.unwrap_err();
    for n in 0..10 {
        log.enqueue(denial(&n.to_string()));
    }
    faults.lock().unwrap().lose_commits = false;
    until(&log, |status| status.durable == 5).await;
    assert_eq!(gaps(&all(&log).await), [(GapReason::WriteFailed.as_str(), 6)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_an_event_is_refused_or_counted() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(options(&folder)).unwrap();
    let mut large = denial("large");
    large.effective_scope = "x".repeat(MAX_RECORD_BYTES);
    let error = log.append_durable(large.clone()).await.unwrap_err();
    assert!(matches!(error, AuditError::TooLarge { .. }), "{error}");
    log.enqueue(large);
    until(&log, |status| status.durable == 1).await;
    assert_eq!(gaps(&all(&log).await), [(GapReason::TooLarge.as_str(), 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disk_under_load_loses_nothing_acknowledged_and_recovers_without_traffic() {
    let folder = tempfile::tempdir().unwrap();
    let (log, faults) = open_faulty(options(&folder));
    let acknowledged = Arc::new(std::sync::Mutex::new(Vec::new()));
    let refused = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..32)
        .map(|task| {
            let (log, acknowledged, refused) = (log.clone(), Arc::clone(&acknowledged), Arc::clone(&refused));
            let faults = Arc::clone(&faults);
            tokio::spawn(async move {
                for n in 0..60 {
                    if task == 0 && n == 20 {
                        faults.lock().unwrap().full = true;
                    }
                    let id = format!("{task}-{n}");
                    match log.append_durable(expansion(&id)).await {
                        Ok(_) => acknowledged.lock().unwrap().push(id),
                        Err(AuditError::NotDurable { cause }) => {
                            assert_eq!(cause, "database or disk is full");
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(refused.load(Ordering::Relaxed) > 0);
    assert!(log.status().health.degraded.is_some());

    faults.lock().unwrap().full = false;
    until(&log, |status| status.health.degraded.is_none()).await;
    log.append_durable(expansion("after")).await.unwrap();
    let records = all(&log).await;
    let mut stored = client_ids(&records);
    assert_eq!(stored.pop(), Some("after"));
    stored.sort_unstable();
    let mut acknowledged = acknowledged.lock().unwrap().clone();
    acknowledged.sort_unstable();
    assert_eq!(stored, acknowledged);
    log.close().await.unwrap();
    assert_holds(&state(&folder));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_could_not_be_written_before_the_end_are_counted_by_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let (log, faults) = open_faulty(AuditOptions { queue_bytes: 8 << 10, ..options(&folder) });
    log.enqueue(denial("written"));
    until(&log, |status| status.durable == 1).await;
    faults.lock().unwrap().lose_commits = true;
    for n in 0..7 {
        log.enqueue(denial(&n.to_string()));
    }
    log.close().await.unwrap_err();
    // The files are another's by now.
    let lost = log.status().lost;
    log.enqueue(denial("after the end"));
    assert_eq!(log.status().lost, lost + 1);
    drop(log);

    let log = AuditLog::open(options(&folder)).unwrap();
    assert_eq!(log.start_report().unwritten, 7);
    until(&log, |status| status.durable == 2).await;
    assert_eq!(gaps(&all(&log).await), [(GapReason::ProcessEnded.as_str(), 7)]);
    log.close().await.unwrap();
    drop(log);
    assert!(AuditLog::open(options(&folder)).unwrap().start_report().is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_append_leaves_a_whole_event_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let (log, gate) = open_gated(options(&folder));
    // Queued, then given up.
    let append = log.append_durable(expansion("queued"));
    let given_up = tokio::time::timeout(Duration::ZERO, append).await;
    assert!(given_up.is_err());
    // Never begun.
    drop(log.append_durable(expansion("never")));
    drop(gate);
    log.append_durable(expansion("last")).await.unwrap();
    assert_eq!(client_ids(&all(&log).await), ["queued", "last"]);
    log.close().await.unwrap();
    assert_holds(&state(&folder));
}

#[tokio::test(flavor = "multi_thread")]
async fn second_log_of_the_same_directory_is_refused_until_the_first_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(options(&folder)).unwrap();
    let error = AuditLog::open(options(&folder)).unwrap_err();
    assert!(matches!(error, AuditError::InUse { .. }), "{error}");
    log.append_durable(expansion("a")).await.unwrap();
    log.close().await.unwrap();
    log.close().await.unwrap();
    let error = log.append_durable(expansion("late")).await.unwrap_err();
    assert!(matches!(error, AuditError::Closed), "{error}");
    let again = AuditLog::open(options(&folder)).unwrap();
    assert_eq!(again.log_id(), log.log_id());
    assert_eq!(again.head(), log.head());
    assert!(!again.start_report().created);
}

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
    until(&log, |status| status.oldest == 2502).await;
    assert_eq!(log.status().evicted, Evicted { age: 2501, size: 0 });
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
        let wal = super::super::sqlite::wal_path(&path);
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

/// The bytes and calls that the calling thread has written so far, as Linux counts them.
fn written_by_this_thread() -> Vec<String> {
    let counts = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    counts
        .lines()
        .filter(|line| line.contains("wchar") || line.contains("syscw"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_writes_nothing_on_the_thread_that_records_it() {
    let folder = tempfile::tempdir().unwrap();
    let (log, gate) = open_gated(options(&folder));
    let recording = log.clone();
    let recorder = std::thread::spawn(move || {
        let before = written_by_this_thread();
        for n in 0..500 {
            recording.enqueue(denial(&n.to_string()));
        }
        (before, written_by_this_thread())
    });
    let (before, after) = recorder.join().unwrap();
    assert_eq!(before.len(), 2);
    assert_eq!(before, after);
    // Nor was anything encoded or hashed for it: the writer has not begun, and the queue has messages.
    assert_eq!((log.status().commits, log.status().durable), (0, 0));
    drop(gate);
    log.close().await.unwrap();
    assert_eq!(assert_holds(&state(&folder)).records, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_that_does_not_answer_is_shown_and_leaves_a_bounded_amount_behind() {
    let folder = tempfile::tempdir().unwrap();
    let queue_bytes = 64 << 10;
    let stall_after = Duration::from_millis(20);
    let (log, gate) = open_gated(AuditOptions { queue_bytes, stall_after, ..options(&folder) });
    let watch = {
        let log = log.clone();
        tokio::spawn(async move { log.watch_stalls().await })
    };
    // Callers that give up at once, as many as there is room for.
    let mut taken = 0;
    let full = loop {
        let room = match log.reserve(0) {
            Ok(room) => room,
            Err(error) => break error,
        };
        drop(log.append(expansion(&taken.to_string()), room).unwrap());
        taken += 1;
    };
    assert!(matches!(full, AuditError::QueueFull(_)), "{full}");
    assert_eq!(taken, 32);
    // Denials have room of their own, and are counted when that is full.
    for n in 0..100 {
        log.enqueue(denial(&n.to_string()));
    }
    let status = log.status();
    assert_eq!((status.queue_length, status.lost, status.refused), (64, 68, 1));
    assert!(status.queue_bytes <= queue_bytes as u64);
    let mut health = log.watch_health();
    let stalled = health.wait_for(|health| health.stalled.is_some()).await.unwrap().clone();
    assert_eq!((stalled.degraded, stalled.stalled.unwrap().limit), (None, stall_after));

    drop(gate);
    health.wait_for(|health| health.stalled.is_none()).await.unwrap();
    until(&log, |status| status.queue_length == 0).await;
    assert_eq!(log.status().queue_bytes, 0);
    watch.abort();
    log.close().await.unwrap();
    assert_eq!(assert_holds(&state(&folder)).missing_events, 68);
}

#[tokio::test(flavor = "multi_thread")]
async fn close_leaves_a_writer_behind_that_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (log, gate) = open_gated(options(&folder));
    log.enqueue(denial("a"));
    log.enqueue(denial("b"));
    let error = log.close_by(tokio::time::Instant::now()).await.unwrap_err();
    assert!(matches!(error, AuditError::Abandoned { records: 2 }), "{error}");
    // Once the disk answers, the writer ends as it was told to.
    drop(gate);
    log.ended().await;
    assert_eq!(assert_holds(&state(&folder)).records, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn panic_of_the_writer_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (log, faults) = open_faulty(options(&folder));
    faults.lock().unwrap().panic = true;
    let error = log.append_durable(expansion("a")).await.unwrap_err();
    assert!(matches!(error, AuditError::Closed), "{error}");
    log.ended().await;
    let degraded = log.status().health.degraded.unwrap();
    assert_eq!(degraded.error, "the audit writer exited unexpectedly");
}

#[tokio::test(flavor = "multi_thread")]
async fn denials_beyond_their_rate_are_counted_and_displace_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let ahead = Ahead::default();
    let (log, gate) =
        open_gated(AuditOptions { denials_per_second: Some(1), clock: ahead.clock(), ..options(&folder) });
    let mut appends = Vec::new();
    for n in 0..50 {
        let mut denial = denial(&n.to_string());
        denial.set_reason(if n % 5 == 0 { Reason::Malformed } else { Reason::Unsupported });
        log.enqueue(denial);
        let room = log.reserve(0).unwrap();
        appends.push(log.append(expansion("e"), room).unwrap());
    }
    // A second later there is one more.
    ahead.pass(1);
    log.enqueue(denial("later"));
    assert_eq!(log.status().lost, 40);
    drop(gate);
    for append in appends {
        append.await.unwrap();
    }
    log.close().await.unwrap();
    drop(log);
    let log = AuditLog::open(options(&folder)).unwrap();
    assert!(log.start_report().is_clean());
    let records = all(&log).await;
    let ids = client_ids(&records);
    let count = |wanted: &dyn Fn(&str) -> bool| ids.iter().filter(|id| wanted(id)).count();
    assert_eq!(count(&|id| id == "e"), 50);
    assert_eq!(count(&|id| id.parse::<u32>().is_ok_and(|n| n < 10)), 10);
    assert_eq!(ids.len(), 61);
    let mut counted = std::collections::BTreeMap::<String, u64>::new();
    for record in &records {
        let Body::Gap(gap) = &record.body else { continue };
        assert_eq!(gap.reason, "DENIAL_RATE");
        assert_eq!(gap.count, gap.reason_counts.values().sum::<u64>());
        for (reason, count) in &gap.reason_counts {
            *counted.entry(reason.clone()).or_default() += count;
        }
    }
    assert_eq!(counted, [("REASON_MALFORMED".to_owned(), 8), ("REASON_UNSUPPORTED".to_owned(), 32)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn volume_that_is_nearly_full_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(5 << 30));
    let probe = Arc::clone(&free);
    let volume: super::super::volume::VolumeProbe =
        Arc::new(move |_| Ok(Volume { total: 100 << 30, free: probe.load(Ordering::Relaxed) }));
    let log = AuditLog::open(AuditOptions { volume, ..options(&folder) }).unwrap();
    let mut health = log.watch_health();
    let low = health.wait_for(|health| health.storage_low.is_some()).await.unwrap().storage_low.unwrap();
    assert_eq!(low, StorageLow { free: 5 << 30, threshold: 10 << 30 });
    free.store(20 << 30, Ordering::Relaxed);
    health.wait_for(|health| health.storage_low.is_none()).await.unwrap();
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
        let wal = super::super::sqlite::wal_path(&state(&folder).join(STORE_FILE));
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
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(options(&folder)).unwrap();
    // More than memory keeps, and none of it moved to the main file.
    let mut large = expansion("large");
    large.requested_scope = Some("scope ".repeat(80_000));
    for _ in 0..12 {
        log.append_durable(large.clone()).await.unwrap();
    }
    let wal = super::super::sqlite::wal_path(&state(&folder).join(STORE_FILE));
    damage(&wal, 0, Some(&[0; 32]));
    log.append_durable(expansion("refused")).await.unwrap_err();
    until(&log, |status| status.health.degraded.is_none()).await;
    let recorded = log.append_durable(expansion("after")).await.unwrap();
    assert_eq!(recorded.head.sequence, 13);
    let lost = log.status().lost;
    assert!(lost > 0);
    log.close().await.unwrap();
    let report = assert_holds(&state(&folder));
    assert_eq!((report.records, report.missing_events), (13, lost));
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
async fn readers_wait_for_commits_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(options(&folder)).unwrap();
    for n in 0..300 {
        log.enqueue(denial(&n.to_string()));
    }
    log.append_durable(expansion("last")).await.unwrap();
    log.close().await.unwrap();
    drop(log);
    // None of the records is in memory after a start.
    let (log, gate) = open_gated(options(&folder));
    let mut appends = Vec::new();
    // One commit is tried and waits for the gate; everything else waits behind it.
    log.enqueue(denial("first"));
    let readers: Vec<_> = (0..40)
        .map(|n| {
            let log = log.clone();
            tokio::spawn(
                async move { log.read_after(n, &Filter::default(), 10).await.unwrap().records.len() },
            )
        })
        .collect();
    // Readers that give up before they are served.
    for n in 0..100 {
        let (log, filter) = (log.clone(), Filter::default());
        let mut read = Box::pin(log.read_after(n, &filter, 10));
        let polled = std::future::poll_fn(|context| std::task::Poll::Ready(read.as_mut().poll(context)));
        assert!(polled.await.is_pending());
    }
    for n in 0..20 {
        let room = log.reserve(0).unwrap();
        appends.push(log.append(expansion(&n.to_string()), room).unwrap());
    }
    gate.send(()).unwrap();
    gate.send(()).unwrap();
    for append in appends {
        append.await.unwrap();
    }
    drop(gate);
    for reader in readers {
        assert_eq!(reader.await.unwrap(), 10);
    }
    log.close().await.unwrap();
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
