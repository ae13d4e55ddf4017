//! A store that was written before format 2 is read, verified, streamed and continued.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::chain::StoredRow;
use super::super::database::Database;
use super::super::offline::OfflineStore;
use super::super::testing::*;
use super::super::*;
use super::*;
use crate::proto::json::from_value;
use crate::proto::v1::stream_audit_events_response::Message;
use crate::{hex, proto::v1};

const LOG_ID: &str = "f00573ae-e1d9-4ca7-92f5-c0e1ed95f175";

/// A copy of the store in `tests/fixtures/audit-format1`, which the last version before format 2 wrote.
fn old_store() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/audit-format1");
    for name in ["audit.db", "audit.mark"] {
        std::fs::copy(fixture.join(name), folder.path().join(name)).unwrap();
    }
    let path = folder.path().join(DATABASE_FILE);
    (folder, path)
}

fn old_rows() -> Vec<StoredRow> {
    let (_folder, path) = old_store();
    Database::open(&path).unwrap().rows_after(0, 100).unwrap()
}

fn old_records() -> Vec<Record> {
    let mut records = Vec::new();
    records.extend(Scan::open(&old_store().1, Start::Earliest, "").unwrap().map(Result::unwrap));
    records
}

fn checkpoint(head: Head) -> v1::Checkpoint {
    v1::Checkpoint {
        log_id: LOG_ID.to_owned(),
        durable_sequence: head.sequence,
        head_hash: head.hash.to_vec(),
        server_time: None,
    }
}

/// What the version of that time printed for each record.
fn expected() -> Vec<Body> {
    let lines = include_str!("../../../tests/fixtures/audit-format1/events.jsonl");
    let read = |line: &str| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        if let Some(gap) = value.get_mut("gap") {
            return Body::Gap(from_value(gap.take()).unwrap());
        }
        let mut event: AuditEvent = from_value(value).unwrap();
        event.asked_audiences.clone_from(&event.audiences);
        Body::Event(Box::new(event))
    };
    lines.lines().map(read).collect()
}

#[test]
fn records_say_what_they_said() {
    let found: Vec<Body> = old_records().into_iter().map(|record| record.body).collect();
    assert_eq!(found.len(), 11);
    assert_eq!(found, expected());
}

#[test]
fn records_have_the_bytes_and_the_hash_that_they_had() {
    for (row, record) in old_rows().into_iter().zip(old_records()) {
        assert_eq!(encode(&record.body, &record.prev_hash), Some(row.content.to_vec()));
        assert_eq!(hash(&record.body, &record.prev_hash), Some(row.hash));
        for at in 0..row.content.len() {
            let mut bytes = row.content.to_vec();
            bytes[at] ^= 1 << (at % 8);
            if let Ok((body, prev_hash)) = decode(&bytes) {
                assert_eq!(encode(&body, &prev_hash), Some(bytes));
            }
            assert!(decode(&row.content[..at]).is_err());
        }
    }
}

#[test]
fn a_message_with_what_the_format_does_not_know_was_not_written_in_it() {
    let records = old_records();
    let Body::Event(event) = &records[0].body else { panic!("not an event") };
    let cannot = |change: fn(&mut AuditEvent)| {
        let mut changed = (**event).clone();
        change(&mut changed);
        assert_eq!(encode(&Body::Event(Box::new(changed)), &GENESIS_HASH), None);
    };
    cannot(|event| event.asked_audiences.clear());
    cannot(|event| event.correlation_id.push('c'));
    cannot(|event| event.log_opened = Some(v1::LogOpened::default()));
    cannot(|event| event.kind = AuditEventKind::LogOpened.into());
    cannot(|event| event.reason = 10);
    cannot(|event| event.policy = None);
    cannot(|event| event.event_id = event.event_id.to_uppercase());
    let Body::Gap(gap) = &records[4].body else { panic!("not a gap") };
    let counted = Gap { reason_counts: [("a".to_owned(), 1)].into(), ..gap.clone() };
    assert_eq!(encode(&Body::Gap(counted), &GENESIS_HASH), None);
    let other = Gap { reason: "DENIAL_RATE".to_owned(), ..gap.clone() };
    assert_eq!(encode(&Body::Gap(other), &GENESIS_HASH), None);
}

#[test]
fn the_bytes_are_those_of_the_reference() {
    let gap = Gap {
        log_id: "00112233-4455-6677-8899-aabbccddeeff".to_owned(),
        sequence: 1,
        count: 300,
        reason: "queue_full".to_owned(),
        first_time: Some(Timestamp { seconds: 1, nanos: 0 }),
        last_time: Some(Timestamp { seconds: 2, nanos: 0 }),
        ..Gap::default()
    };
    let content = encode(&Body::Gap(gap), &GENESIS_HASH).unwrap();
    assert_eq!(
        hex::encode(&content),
        "010200112233445566778899aabbccddeeff0000000000000001\
         0000000000000000000000000000000000000000000000000000000000000000\
         000000007735940001ac02000000003b9aca00"
    );
    let hash = "5382e3e6db6171d226230a3e4d0c1380d1d3e8d56135febfa868b8718f5b9807";
    assert_eq!(hex::encode(&sha256(&content)), hash);
}

#[test]
fn numbers_have_one_encoding() {
    let number = |bytes: &[u8]| Bytes(bytes).number();
    assert_eq!(number(&[0]), Ok(0));
    assert_eq!(number(&[0xac, 2]), Ok(300));
    assert_eq!(number(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), Ok(u64::MAX));
    assert!(number(&[0x80, 0]).is_err());
    assert!(number(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).is_err());
    assert!(number(&[0x80]).is_err());
}

#[test]
fn an_old_store_verifies_without_being_changed() {
    let (_folder, path) = old_store();
    let before = std::fs::read(&path).unwrap();
    let report = verify(&path, &VerifyOptions::default()).unwrap();
    assert_eq!((report.bad, report.records, report.gaps, report.missing_events), (None, 11, 6, 1800));
    assert_eq!(report.log_id, LOG_ID);
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_store_goes_on_in_the_new_format_and_its_chain_holds() {
    let (folder, _) = old_store();
    let log = AuditLog::open(AuditOptions::new(folder.path())).unwrap();
    assert!(log.start_report().is_clean(), "{:?}", log.start_report());
    let mut event = expansion("new");
    event.asked_audiences = vec!["asked".to_owned()];
    log.append_durable(event).await.unwrap();
    // A client that only has what the stream sends walks both formats too.
    let mut stream = log.stream(Query::default()).await.unwrap();
    // The first checkpoint is for the newest record, the second for the start.
    stream.next().await.unwrap().unwrap();
    let mut walk = None;
    while let Some(item) = stream.next().await {
        match (item.unwrap(), &mut walk) {
            (StreamItem::Checkpoint(place), None) => {
                walk = Some(ChainWalk::at_checkpoint(&checkpoint(place.through)).unwrap());
            }
            (StreamItem::Checkpoint(place), Some(walk)) => {
                walk.receive(Message::Checkpoint(checkpoint(place.through))).unwrap();
            }
            (StreamItem::Record(record), Some(walk)) => walk.receive(record.into_message()).unwrap(),
            (StreamItem::Record(_), None) => panic!("no checkpoint first"),
        }
    }
    let (report, is_complete) = walk.unwrap().finish(None);
    assert_eq!((report.records, report.bad, is_complete), (12, None, true));
    assert_eq!(report.head, log.head());
    log.close().await.unwrap();

    assert_eq!(assert_holds(folder.path()).records, 12);
    let rows = OfflineStore::open(&store_of(folder.path())).unwrap().rows_after(0, 100).unwrap();
    let formats: Vec<u8> = rows.iter().map(|row| row.content[0]).collect();
    assert_eq!(formats, [vec![1; 11], vec![2]].concat());
}
