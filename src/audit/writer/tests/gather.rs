//! Events that nobody waits for are written together, and what ends the wait for more of them.

use super::*;

/// Gathers for so long that only something else ends it.
fn gathering(folder: &tempfile::TempDir) -> AuditOptions {
    AuditOptions { gather_interval: Duration::from_secs(3600), ..options(folder) }
}

/// When the second event comes.
#[derive(Clone, Copy, Debug)]
enum Second {
    /// While the first is written: the writer gathers from the end of that on.
    Meanwhile,
    /// After that: it wakes the writer, which then gathers.
    Later,
}

const BOTH: [Second; 2] = [Second::Meanwhile, Second::Later];

/// A log that has written `first` and gathers: it has `second`.
async fn gathering_log(options: AuditOptions, second: Second) -> (AuditLog, Arc<std::sync::Mutex<Faults>>) {
    let (log, gate, faults) = open_gated_and_faulty(options);
    log.enqueue(denial("first"));
    while faults.lock().unwrap().begun == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    match second {
        Second::Meanwhile => {
            log.enqueue(denial("second"));
            drop(gate);
            until(&log, |status| status.durable == 1).await;
        }
        Second::Later => {
            drop(gate);
            until(&log, |status| (status.durable, status.queue_length) == (1, 0)).await;
            // Until it sleeps, and again.
            tokio::time::sleep(Duration::from_millis(5)).await;
            log.enqueue(denial("second"));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    (log, faults)
}

#[tokio::test(flavor = "multi_thread")]
async fn first_event_after_a_pause_is_written_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(gathering(&folder)).unwrap();
    log.enqueue(denial("first"));
    until(&log, |status| status.durable == 1).await;
    log.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn event_that_wakes_the_writer_within_the_interval_is_gathered() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(gathering(&folder)).unwrap();
    log.enqueue(denial("first"));
    until(&log, |status| (status.durable, status.queue_length) == (1, 0)).await;
    log.enqueue(denial("second"));
    // Long enough to write it, if it were to be written.
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!((log.status().commits, log.status().queue_length), (1, 1));
    log.close().await.unwrap();
    assert_eq!(assert_holds(&state(&folder)).records, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_gathered_is_written_with_an_event_that_somebody_waits_for() {
    for second in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let (log, _) = gathering_log(gathering(&folder), second).await;
        (0..100).for_each(|n| log.enqueue(denial(&n.to_string())));
        assert_eq!((log.status().commits, log.status().queue_length), (1, 101));
        let recorded = log.append_durable(expansion("awaited")).await.unwrap();
        // In the order in which they came.
        assert_eq!(recorded.head.sequence, 103);
        assert_eq!((log.status().commits, log.status().queue_length), (2, 0));
        let names: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        assert!(client_ids(&all(&log).await)[2..102].iter().eq(names.iter()));
        log.close().await.unwrap();
        assert_eq!(assert_holds(&state(&folder)).records, 103);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_gathered_is_written_at_the_end_of_the_interval() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(AuditOptions { gather_interval: Duration::from_millis(20), ..options(&folder) });
    let log = log.unwrap();
    for count in 1..=5 {
        log.enqueue(denial("a"));
        until(&log, |status| status.durable == count).await;
    }
    log.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_writes_what_was_gathered() {
    for second in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let (log, _) = gathering_log(gathering(&folder), second).await;
        (0..2_000).for_each(|n| log.enqueue(denial(&n.to_string())));
        log.close().await.unwrap();
        let report = assert_holds(&state(&folder));
        assert_eq!((report.records, report.gaps), (2_002, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn last_handle_that_goes_writes_what_was_gathered() {
    for second in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let (log, _) = gathering_log(gathering(&folder), second).await;
        let reader = log.watch_head();
        let shared = Arc::downgrade(log.shared());
        drop((log, reader));
        while shared.strong_count() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(assert_holds(&state(&folder)).records, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_that_fills_ends_the_gathering_before_it_is_full() {
    for second in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let (log, _) =
            gathering_log(AuditOptions { queue_bytes: 64 << 10, ..gathering(&folder) }, second).await;
        // A quarter of the half that they may take; each counts as 1 KiB.
        (0..8).for_each(|n| log.enqueue(denial(&n.to_string())));
        until(&log, |status| status.queue_length == 0).await;
        assert_eq!((log.status().durable, log.status().lost), (10, 0));
        log.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_batch_is_not_held_back() {
    let folder = tempfile::tempdir().unwrap();
    // Room for so many that they do not fill the queue.
    let (log, gate) = open_gated(AuditOptions { queue_bytes: 64 << 20, ..gathering(&folder) });
    log.enqueue(denial("first"));
    // Whatever the first transaction takes of them, it leaves more than the next can take.
    (0..2 * BATCH_RECORDS).for_each(|n| log.enqueue(denial(&n.to_string())));
    drop(gate);
    until(&log, |status| status.durable > BATCH_RECORDS as u64).await;
    log.close().await.unwrap();
    assert_eq!(assert_holds(&state(&folder)).records, 2 * BATCH_RECORDS as u64 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn gathered_events_outlast_a_disk_that_is_full_for_a_while() {
    for second in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let (log, faults) = gathering_log(gathering(&folder), second).await;
        faults.lock().unwrap().lose_commits = true;
        (0..10).for_each(|n| log.enqueue(denial(&n.to_string())));
        let error = log.append_durable(expansion("refused")).await.unwrap_err();
        assert!(matches!(error, AuditError::NotDurable { .. }), "{error}");
        // They stay, and are written once it works, without anything that asks for it.
        assert_eq!(log.status().queue_length, 11);
        faults.lock().unwrap().lose_commits = false;
        until(&log, |status| status.queue_length == 0).await;
        assert_eq!((log.status().durable, log.status().lost), (12, 0));
        log.close().await.unwrap();
        assert_eq!(assert_holds(&state(&folder)).gaps, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn caller_that_disconnects_while_its_event_waits_leaves_the_event_and_its_neighbours() {
    let folder = tempfile::tempdir().unwrap();
    let (log, gate) = open_gated(gathering(&folder));
    let appends: Vec<_> = (0..20).map(|n| append(&log, expansion(&n.to_string()))).collect();
    // Every other caller goes while the disk has not answered.
    let left: Vec<_> = appends.into_iter().step_by(2).collect();
    drop(gate);
    for append in left {
        append.await.unwrap();
    }
    // Those that nobody waits for any more may come with the next transaction.
    until(&log, |status| (status.durable, status.queue_length) == (20, 0)).await;
    log.close().await.unwrap();
    assert_eq!(assert_holds(&state(&folder)).records, 20);
}
