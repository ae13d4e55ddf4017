//! Events that are counted by gaps instead of being recorded.

use super::*;

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
    let nanos = |time: Option<prost_types::Timestamp>| crate::audit::record::nanos_of(time);
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
        appends.push(append(&log, expansion("e")));
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
