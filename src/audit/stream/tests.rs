//! Starts, filters, checkpoints, and what a stream owes its reader.

use std::collections::HashSet;

use futures_util::StreamExt as _;
use proptest::prelude::*;

use super::super::segments::tamper::{Tampered, tamper};
use super::super::testing::*;
use super::super::*;
use super::*;
use crate::proto::v1::AuditEventKind;

struct Fixture {
    _folder: tempfile::TempDir,
    log: AuditLog,
}

fn fixture() -> Fixture {
    fixture_with(|_| {})
}

fn fixture_with(change: impl FnOnce(&mut AuditOptions)) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let mut options = AuditOptions::new(folder.path());
    change(&mut options);
    Fixture { log: AuditLog::open(options).unwrap(), _folder: folder }
}

impl Fixture {
    async fn fill(&self, count: u64) {
        for n in 0..count {
            self.log.enqueue(expansion(&n.to_string()));
        }
        let durable = self.log.head().sequence;
        until(&self.log, |status| status.queue_length == 0 && status.durable >= durable).await;
    }

    fn after(&self, sequence: u64) -> Query {
        Query { start: Start::After(sequence), log_id: self.log.log_id().to_string(), ..Query::default() }
    }
}

/// One letter for each item with its sequence.
async fn drain(mut stream: AuditStream) -> Vec<(char, u64)> {
    let mut items = Vec::new();
    while let Some(item) = stream.next().await {
        items.push(match item.unwrap() {
            StreamItem::Checkpoint(checkpoint) => ('c', checkpoint.through.sequence),
            StreamItem::Record(record) => match record.body {
                Body::Event(_) => ('e', record.body.sequence()),
                Body::Gap(_) => ('g', record.body.sequence()),
            },
        });
    }
    items
}

async fn next(stream: &mut AuditStream) -> StreamItem {
    tokio::time::timeout(DEADLINE, stream.next()).await.unwrap().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_that_does_not_follow_sends_all_between_two_checkpoints() {
    let fixture = fixture();
    fixture.fill(3).await;
    let stream = fixture.log.stream(Query::default()).await.unwrap();
    assert_eq!(drain(stream).await, [('c', 3), ('c', 0), ('e', 1), ('e', 2), ('e', 3), ('c', 3)]);
    let stream = fixture.log.stream(fixture.after(2)).await.unwrap();
    assert_eq!(drain(stream).await, [('c', 3), ('c', 2), ('e', 3), ('c', 3)]);
    let stream = fixture.log.stream(fixture.after(3)).await.unwrap();
    assert_eq!(drain(stream).await, [('c', 3), ('c', 3)]);
    let latest = Query { start: Start::Latest, ..Query::default() };
    assert_eq!(drain(fixture.log.stream(latest).await.unwrap()).await, [('c', 3), ('c', 3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_that_does_not_follow_has_what_was_recorded_before_it() {
    let fixture = fixture_with(|options| options.gather_interval = Duration::from_secs(3600));
    // Far more than one transaction has.
    for count in [1, 2, 3000] {
        let known = fixture.log.head().sequence;
        (0..count).for_each(|n| fixture.log.enqueue(denial(&n.to_string())));
        let items = drain(fixture.log.stream(fixture.after(known)).await.unwrap()).await;
        assert_eq!(items[0], ('c', known + count), "{count}");
        assert_eq!(items.len() as u64, count + 3, "{count}");
    }
}

// The clock goes on by itself while nothing else does.
#[tokio::test(start_paused = true)]
async fn stream_that_does_not_follow_waits_neither_for_a_stalled_nor_for_a_broken_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (log, gate, faults) = open_gated_and_faulty(AuditOptions::new(folder.path()));
    gate.send(()).unwrap();
    log.append_durable(expansion("1")).await.unwrap();
    log.enqueue(denial("2"));
    let durable = [('c', 1), ('c', 0), ('e', 1), ('c', 1)];
    let started = Instant::now();
    assert_eq!(drain(log.stream(Query::default()).await.unwrap()).await, durable, "stalled");
    assert_eq!(started.elapsed().as_secs(), 1);
    faults.lock().unwrap().lose_commits = true;
    drop(gate);
    let mut health = log.watch_health();
    health.wait_for(|health| health.degraded.is_some()).await.unwrap();
    assert_eq!(drain(log.stream(Query::default()).await.unwrap()).await, durable, "broken");
    faults.lock().unwrap().lose_commits = false;
    health.wait_for(|health| health.degraded.is_none()).await.unwrap();
    assert_eq!(drain(log.stream(Query::default()).await.unwrap()).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_log_streams_checkpoints_of_its_start() {
    let fixture = fixture();
    let mut stream = fixture.log.stream(Query { follow: true, ..Query::default() }).await.unwrap();
    for _ in 0..2 {
        let StreamItem::Checkpoint(checkpoint) = next(&mut stream).await else { panic!() };
        assert_eq!(checkpoint.through, Head { sequence: 0, hash: GENESIS_HASH });
        assert_eq!(checkpoint.log_id, fixture.log.log_id());
    }
    fixture.fill(1).await;
    let StreamItem::Record(record) = next(&mut stream).await else { panic!() };
    assert_eq!(record.body.sequence(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_choose_events_and_never_hide_a_gap() {
    let fixture = fixture();
    let log = &fixture.log;
    log.append_durable(expansion("1")).await.unwrap();
    log.append_durable(denial("2")).await.unwrap();
    let mut large = denial("3");
    large.effective_scope = "x".repeat(MAX_RECORD_BYTES);
    log.enqueue(large);
    until(log, |status| status.durable == 3).await;
    let mut elsewhere = expansion("4");
    elsewhere.audiences = vec!["https://a.example".to_owned(), "https://b.example".to_owned()];
    elsewhere.asked_audiences = vec!["https://Asked.example/".to_owned()];
    log.append_durable(elsewhere).await.unwrap();

    let query = |kinds: &[AuditEventKind], audiences: &[&str]| {
        let audiences: Vec<String> = audiences.iter().map(|name| (*name).to_owned()).collect();
        Query { filter: Filter::new(kinds.to_vec(), &audiences), ..Query::default() }
    };
    let items = |query| async { drain(log.stream(query).await.unwrap()).await };
    assert_eq!(
        items(query(&[AuditEventKind::Denial], &[])).await,
        [('c', 4), ('c', 0), ('e', 2), ('g', 3), ('c', 4)]
    );
    let named = [('c', 4), ('c', 0), ('g', 3), ('e', 4), ('c', 4)];
    // Compared as the policy compares them, and as asked or as decided.
    for audience in ["https://b.example", "HTTPS://B.example:443/", "https://asked.example"] {
        assert_eq!(items(query(&[], &[audience])).await, named, "{audience}");
    }
    assert_eq!(items(query(&[], &["https://b.example/x"])).await, [('c', 4), ('c', 0), ('g', 3), ('c', 4)]);
    let both = query(&[AuditEventKind::PolicyChange], &["https://b.example"]);
    assert_eq!(items(both).await, [('c', 4), ('c', 0), ('g', 3), ('c', 4)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn start_time_begins_with_the_first_event_from_then_on() {
    let fixture = fixture();
    let at = |second: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
    // Times do not always rise with sequences.
    for second in [10, 30, 20, 40] {
        let mut event = expansion("c");
        event.event_time = Some(at(second).into());
        fixture.log.append_durable(event).await.unwrap();
    }
    for (second, sequence) in [(0, 1), (10, 1), (11, 2), (30, 2), (31, 4), (40, 4), (41, 5)] {
        assert_eq!(fixture.log.sequence_at(at(second)).await.unwrap(), sequence, "from {second}");
        let query = Query { start: Start::Time(at(second)), ..Query::default() };
        let items = drain(fixture.log.stream(query).await.unwrap()).await;
        assert_eq!(items[0], ('c', 4));
        let start = if sequence == 5 { 0 } else { 1 };
        assert_eq!(items[start], ('c', sequence - 1));
        assert_eq!(items.len() as u64, start as u64 + 2 + 5 - sequence);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cursor_that_does_not_belong_is_refused() {
    let fixture = fixture();
    fixture.fill(2).await;
    let refused = |query: Query| async { fixture.log.stream(query).await.unwrap_err() };
    let error = refused(Query { start: Start::After(1), ..Query::default() }).await;
    assert!(matches!(error, AuditError::LogIdRequired), "{error}");
    for start in [Start::After(1), Start::Earliest] {
        let log_id = Uuid::new_v4().to_string();
        let error = refused(Query { start, log_id: log_id.clone(), ..Query::default() }).await;
        assert!(matches!(&error, AuditError::ForeignLog { given, .. } if *given == log_id), "{error}");
    }
    let error = refused(fixture.after(3)).await;
    assert!(matches!(error, AuditError::OutOfRange { requested: 3, oldest: 1, newest: 2 }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_overtaken_by_retention_is_told_and_skips_nothing() {
    let ahead = Ahead::default();
    let fixture = fixture_with(|options| {
        options.max_age = Some(Duration::from_secs(60));
        options.clock = ahead.clock();
    });
    fixture.fill(600).await;
    let mut stream = fixture.log.stream(Query { follow: true, ..Query::default() }).await.unwrap();
    // Two checkpoints and a record: one page is read now.
    for _ in 0..3 {
        next(&mut stream).await;
    }
    ahead.pass(3600);
    until(&fixture.log, |status| status.oldest == 601).await;
    let mut sent = 1;
    let error = loop {
        match tokio::time::timeout(DEADLINE, stream.next()).await.unwrap().unwrap() {
            Ok(StreamItem::Record(record)) => {
                sent += 1;
                assert_eq!(record.body.sequence(), sent);
            }
            Ok(StreamItem::Checkpoint(checkpoint)) => assert_eq!(checkpoint.through.sequence, sent),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, AuditError::OutOfRange { requested, oldest: 601, newest: 600 } if requested == sent),
        "{error}"
    );
    assert!(stream.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_stream_repeats_its_checkpoint_and_ends_with_the_log() {
    let fixture = fixture_with(|options| options.checkpoint_interval = Duration::from_millis(5));
    fixture.fill(1).await;
    let mut stream = fixture.log.stream(Query { follow: true, ..Query::default() }).await.unwrap();
    let mut last = Vec::new();
    next(&mut stream).await;
    while last.len() < 5 {
        if let StreamItem::Checkpoint(checkpoint) = next(&mut stream).await {
            last.push(checkpoint.through.sequence);
        }
    }
    assert_eq!(last.last(), Some(&1));
    fixture.log.close().await.unwrap();
    loop {
        match tokio::time::timeout(DEADLINE, stream.next()).await.unwrap() {
            Some(Ok(StreamItem::Checkpoint(_))) => {}
            Some(Err(AuditError::Closed)) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(stream.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn status_knows_the_readers_and_the_slowest() {
    let fixture = fixture();
    fixture.fill(10).await;
    assert_eq!((fixture.log.status().readers, fixture.log.status().largest_lag), (0, 0));
    let slow = fixture.log.stream(Query::default()).await.unwrap();
    let quick = fixture.log.stream(fixture.after(8)).await.unwrap();
    assert_eq!((fixture.log.status().readers, fixture.log.status().largest_lag), (2, 10));
    drop(slow);
    assert_eq!((fixture.log.status().readers, fixture.log.status().largest_lag), (1, 2));
    drain(quick).await;
    assert_eq!(fixture.log.status().readers, 0);
}

/// A log of which the start checks only the end, with damage before that.
async fn damaged(change: impl FnOnce(&mut Tampered)) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(AuditOptions::new(folder.path())).unwrap();
    for n in 0..1200 {
        log.enqueue(denial(&n.to_string()));
    }
    log.append_durable(expansion("last")).await.unwrap();
    log.close().await.unwrap();
    drop(log);
    tamper(&folder.path().join(STORE_DIRECTORY), change);
    let log = AuditLog::open(AuditOptions::new(folder.path())).unwrap();
    Fixture { log, _folder: folder }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_good_before_a_bad_record_is_sent_before_data_loss() {
    let damages: [fn(&mut Tampered); 3] = [
        |stored| stored.zero(|sequence| sequence == 53),
        |stored| stored.remove(|sequence| sequence == 53),
        |stored| stored.row(53).latest_time -= 1,
    ];
    for (at, change) in damages.into_iter().enumerate() {
        let fixture = damaged(change).await;
        for after in [0, 50, 52] {
            let stream = fixture.log.stream(fixture.after(after)).await.unwrap();
            let mut items: Vec<_> = stream.into_stream().collect().await;
            let error = items.pop().unwrap().unwrap_err();
            assert!(matches!(error, AuditError::DataLoss { sequence: 53, .. }), "{at}: {error}");
            let records = items.into_iter().filter_map(|item| match item.unwrap() {
                StreamItem::Record(record) => Some(record.body.sequence()),
                StreamItem::Checkpoint(_) => None,
            });
            assert_eq!(records.collect::<Vec<_>>(), (after + 1..=52).collect::<Vec<_>>(), "{at}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_streams_give_back_what_they_held() {
    let fixture = fixture();
    fixture.fill(300).await;
    for _ in 0..6 {
        let mut streams = tokio::task::JoinSet::new();
        for _ in 0..240 {
            let log = fixture.log.clone();
            streams.spawn(async move {
                let query = Query { follow: true, ..Query::default() };
                let Ok(mut stream) = log.stream(query).await else { return };
                while stream.next().await.is_some() {}
            });
        }
        // Some have not begun to read, some are within a read, some are done with it.
        tokio::task::yield_now().await;
        streams.shutdown().await;
    }
    fixture.log.read_after(0, &Filter::default(), 1).await.unwrap();
    while fixture.log.reader().pending() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fixture.log.status().readers, 0);
}

/// What a reader does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Read(u8),
    Append(u8),
    Reconnect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..40u8).prop_map(Step::Read),
        3 => (1..90u8).prop_map(Step::Append),
        1 => Just(Step::Reconnect),
    ];
    prop::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever the order of writing, reading and reconnecting: a checkpoint never names a record
    /// that was not sent, and in the end everything was sent once and in order.
    #[test]
    fn no_checkpoint_overtakes_data_and_nothing_is_lost_or_sent_twice(
        steps in steps(), denials_only in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let fixture = fixture_with(|options| options.checkpoint_interval = Duration::from_micros(200));
            let log = &fixture.log;
            let kinds = if denials_only { vec![AuditEventKind::Denial] } else { Vec::new() };
            let filter = Filter::new(kinds, &[]);
            let open = |sequence| log.stream(Query {
                follow: true, filter: filter.clone(), ..fixture.after(sequence)
            });
            let (mut written, mut wanted) = (0u64, Vec::new());
            let mut sent: Vec<u64> = Vec::new();
            let mut cursor = 0;
            let mut stream = open(0).await.unwrap();
            // The first checkpoint is for the newest record.
            next(&mut stream).await;
            let take = |item: StreamItem, wanted: &[u64], sent: &mut Vec<u64>, cursor: &mut u64| match item {
                StreamItem::Record(record) => {
                    sent.push(record.body.sequence());
                    *cursor = record.body.sequence();
                }
                StreamItem::Checkpoint(checkpoint) => {
                    let place = checkpoint.through.sequence;
                    let due = wanted.iter().filter(|sequence| **sequence <= place).count();
                    assert_eq!(due, sent.len(), "checkpoint {place} after {:?}", sent.last());
                    *cursor = place;
                }
            };
            for step in steps {
                match step {
                    Step::Append(count) => for n in 0..count {
                        written += 1;
                        let denied = n % 3 == 0;
                        if denied || !denials_only {
                            wanted.push(written);
                        }
                        log.enqueue(event(if denied { AuditEventKind::Denial } else { AuditEventKind::Expansion }, "c"));
                    },
                    Step::Read(count) => for _ in 0..count {
                        take(next(&mut stream).await, &wanted, &mut sent, &mut cursor);
                    },
                    Step::Reconnect => {
                        stream = open(cursor).await.unwrap();
                        next(&mut stream).await;
                    }
                }
            }
            while sent.len() < wanted.len() {
                take(next(&mut stream).await, &wanted, &mut sent, &mut cursor);
            }
            assert_eq!(sent, wanted);
            log.close().await.unwrap();
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_stalled_and_reconnecting_readers_get_everything_under_load() {
    const EVENTS: u64 = 4000;
    let fixture = fixture_with(|options| options.checkpoint_interval = Duration::from_millis(3));
    let log = fixture.log.clone();
    let readers: Vec<_> = (0..6u64)
        .map(|reader| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut seen = Vec::new();
                let mut cursor = 0;
                while cursor < EVENTS {
                    let query = Query {
                        start: Start::After(cursor),
                        log_id: log.log_id().to_string(),
                        follow: true,
                        ..Query::default()
                    };
                    let mut stream = log.stream(query).await.unwrap();
                    // The first checkpoint is for the newest record.
                    next(&mut stream).await;
                    // Reader 0 stays connected, the others reconnect after a while.
                    let mut left = if reader == 0 { u64::MAX } else { 97 * reader };
                    while left > 0 && cursor < EVENTS {
                        left -= 1;
                        match next(&mut stream).await {
                            StreamItem::Record(record) => {
                                cursor = record.body.sequence();
                                seen.push(cursor);
                            }
                            StreamItem::Checkpoint(checkpoint) => {
                                assert!(checkpoint.through.sequence <= cursor);
                            }
                        }
                        if reader == 5 && cursor == 100 {
                            // Stalls until all is written.
                            until(&log, |status| status.durable == EVENTS).await;
                        }
                        if reader == 4 && cursor % 200 == 0 {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                    }
                }
                seen
            })
        })
        .collect();
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let log = log.clone();
            tokio::spawn(async move {
                for n in 0..EVENTS / 8 {
                    log.append_durable(expansion(&n.to_string())).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    for reader in readers {
        let seen = reader.await.unwrap();
        assert_eq!(seen.len(), seen.iter().collect::<HashSet<_>>().len());
        assert_eq!(seen, (1..=EVENTS).collect::<Vec<_>>());
    }
}
