//! A store that fails, hangs or is full.

use std::collections::HashSet;

use super::*;

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
                            assert_eq!(cause, "No space left on device (os error 28)");
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
        let (reply, appending) = AppendReply::future();
        log.append(expansion(&taken.to_string()), room, reply);
        drop(appending);
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
async fn reader_goes_on_when_what_it_waits_for_turns_out_to_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let (log, faults) = open_faulty(options(&folder));
    faults.lock().unwrap().lose_commits = true;
    log.enqueue(denial("a"));
    until(&log, |status| status.errors >= 6).await;
    {
        let mut faults = faults.lock().unwrap();
        (faults.lose_commits, faults.hide_commits) = (false, 1);
    }
    until(&log, |_| faults.lock().unwrap().hide_commits == 0).await;
    // Before the next attempt, which finds the record in the store and has nothing to write.
    log.reader().committed().await;
    until(&log, |status| status.durable == 1 && log.reader().pending() == 0).await;
    assert_eq!(client_ids(&all(&log).await), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn panic_of_the_writer_is_known_to_who_waits_though_the_disk_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let (log, gate, faults) = open_gated_and_faulty(options(&folder));
    {
        let mut faults = faults.lock().unwrap();
        faults.panic = true;
        faults.hang_on_close = true;
    }
    gate.send(()).unwrap();
    let outcome = tokio::time::timeout(DEADLINE, log.append_durable(expansion("a"))).await;
    let error = outcome.expect("an answer").unwrap_err();
    assert!(matches!(error, AuditError::Closed), "{error}");
    drop(gate);
    log.ended().await;
}

/// While the store fails and the next attempt is far, an event and a reader that come during a read need not wait for that attempt.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_during_a_read_while_the_store_fails_is_answered_before_the_next_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(options(&folder)).unwrap();
    log.append_durable(expansion("before")).await.unwrap();
    log.close().await.unwrap();
    drop(log);
    // One that has nothing in memory, so that a page comes from the store.
    let (log, faults) = open_faulty(options(&folder));
    faults.lock().unwrap().lose_commits = true;
    log.append_durable(expansion("refused")).await.unwrap_err();
    // An attempt may come in between by chance.
    for _ in 0..20 {
        let errors = log.status().errors;
        until(&log, |status| status.errors > errors.max(6)).await;
        let (gate, closed) = std::sync::mpsc::channel();
        {
            let mut faults = faults.lock().unwrap();
            faults.steps.clear();
            faults.page_gate = Some(closed);
        }
        let reading = log.clone();
        let page = tokio::spawn(async move { reading.read_after(0, &Filter::default(), 9).await });
        until(&log, |_| faults.lock().unwrap().steps.contains(&"page")).await;
        let event = append(&log, expansion("during"));
        let reader = log.reader().clone();
        let committed = tokio::spawn(async move { reader.committed().await });
        until(&log, |_| log.reader().pending() == 2).await;
        drop(gate);
        assert!(matches!(event.await, Err(AuditError::NotDurable { .. })));
        assert_eq!(client_ids(&page.await.unwrap().unwrap().records), ["before"]);
        committed.await.unwrap();
        // A reader that gave up has its place until the writer comes to it.
        if log.reader().pending() == 0 && faults.lock().unwrap().steps == ["page"] {
            return;
        }
    }
    panic!("an attempt came before the answers each time");
}
