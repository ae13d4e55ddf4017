//! Group commit, failure and recovery, losses, retention.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::testing::*;
use super::super::*;
use super::*;
use crate::proto::v1::{AuditEvent, Reason};

mod failure;
mod files;
mod gather;
mod loss;
mod retention;

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
    assert_eq!((log.status().commits, log.status().durable), (0, 0));
    drop(gate);
    log.close().await.unwrap();
    assert_eq!(assert_holds(&state(&folder)).records, 500);
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
        appends.push(append(&log, expansion(&n.to_string())));
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
