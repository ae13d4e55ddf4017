//! A closed store of which something was overwritten or cut off: either nothing is lost and nothing is said, or
//! `verify` and the start both say so, and the remedy that they name works.

use std::fs;
use std::path::Path;

use uuid::Uuid;

use super::super::segments::format::HEADER_BYTES;
use super::super::segments::tamper::{Tampered, Tampering, tamper};
use super::super::testing::*;
use super::super::*;
use super::*;

/// The one segment of a small store.
const SEGMENT: &str = "audit/00000000000000000001.log";

/// A store that was closed in order, with large and small records.
struct ClosedStore {
    folder: tempfile::TempDir,
    log_id: Uuid,
    records: Vec<Record>,
}

impl ClosedStore {
    async fn new() -> Self {
        let folder = scratch();
        let log = AuditLog::open(AuditOptions::new(folder.path())).unwrap();
        for n in 0..12 {
            let mut event = expansion(&n.to_string());
            event.effective_scope = "x".repeat(if n % 4 == 0 { 40_000 } else { 100 });
            log.append_durable(event).await.unwrap();
        }
        let (records, log_id) = (all(&log).await, log.log_id());
        log.close().await.unwrap();
        Self { folder, log_id, records }
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.path().join(name)).unwrap()
    }

    fn copy(&self) -> tempfile::TempDir {
        let copy = scratch();
        fs::create_dir(copy.path().join(STORE_DIRECTORY)).unwrap();
        for file in [SEGMENT, HIGH_WATER_FILE] {
            fs::write(copy.path().join(file), self.read(file)).unwrap();
        }
        copy
    }

    /// Damages a copy of one of the files. Returns whether that was noticed.
    async fn damaged(&self, name: &str, what: &str, damage: impl FnOnce(&mut Vec<u8>)) -> bool {
        let copy = self.copy();
        let mut bytes = self.read(name);
        damage(&mut bytes);
        fs::write(copy.path().join(name), &bytes).unwrap();
        let verified = verify(&copy.path().join(STORE_DIRECTORY), &VerifyOptions::default());
        let opened = AuditLog::open(AuditOptions::new(copy.path()));
        match (verified, opened) {
            (Ok(VerifyReport { bad: None, .. }), Ok(log)) => {
                assert_eq!(all(&log).await, self.records, "{what}");
                self.go_on(copy.path(), log, what).await;
                false
            }
            (Ok(VerifyReport { bad: Some(_), log_id, acknowledged, .. }), Err(error)) => {
                assert!(matches!(error, AuditError::Broken { .. }), "{what}: {error}");
                assert_eq!(fs::read(copy.path().join(name)).unwrap(), bytes, "{what}: it is as it was");
                let text = error.to_string();
                assert!(log_id == self.log_id.to_string() || log_id.is_empty(), "{what}: {log_id}");
                if name == SEGMENT {
                    assert_eq!(acknowledged, Some(12), "{what}");
                    assert!(text.contains("record 12 was the last acknowledged"), "{what}: {text}");
                }
                self.set_aside(copy.path(), &text, what).await;
                true
            }
            // One byte makes a version that a newer program could have written.
            (Err(AuditError::UnknownFormat { .. }), Err(error @ AuditError::UnknownFormat { .. })) => {
                self.set_aside(copy.path(), &error.to_string(), what).await;
                true
            }
            (verified, opened) => panic!("{what}: {verified:?}, {:?}", opened.map(|log| log.start_report())),
        }
    }

    /// A log that nothing is wrong with can be written.
    async fn go_on(&self, state_dir: &Path, log: AuditLog, what: &str) {
        log.append_durable(expansion("next")).await.unwrap();
        log.close().await.unwrap();
        let report = verify(&state_dir.join(STORE_DIRECTORY), &VerifyOptions::default()).unwrap();
        assert_eq!(report.bad, None, "{what}");
    }

    /// The remedy that a refused start names works.
    async fn set_aside(&self, state_dir: &Path, said: &str, what: &str) {
        assert!(said.contains(state_dir.join(STORE_DIRECTORY).to_str().unwrap()), "{what}: {said}");
        assert_eq!(said.matches("--set-aside-broken-audit").count(), 1, "{what}: {said}");
        assert!(!said.contains("move the file away"), "{what}: {said}");
        let options = AuditOptions { set_aside_broken: true, ..AuditOptions::new(state_dir) };
        let log = AuditLog::open(options).unwrap_or_else(|error| panic!("{what}: {error}"));
        let first = all(&log).await.remove(0);
        let Body::Event(event) = first.body else { panic!("{what}: {first:?}") };
        let opened = event.log_opened.unwrap();
        assert!(!opened.cause.is_empty() && !opened.cause.contains("--"), "{what}: {}", opened.cause);
        assert_eq!(opened.previous_log_id, self.log_id.to_string(), "{what}: {}", opened.cause);
        if let Some(at) = opened.previous_sequence.checked_sub(1) {
            assert_eq!(opened.previous_hash, self.records[at as usize].hash, "{what}");
        }
        self.go_on(state_dir, log, what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damaged_place_is_noticed() {
    let store = ClosedStore::new().await;
    let length = store.read(SEGMENT).len();
    assert!((100_000..200_000).contains(&length), "{length}");
    for from in (0..length - 100).step_by(997).chain([length - 100]) {
        let what = format!("100 bytes from {from}");
        let overwrite = |bytes: &mut Vec<u8>| bytes[from..from + 100].fill(0xa5);
        assert!(store.damaged(SEGMENT, &what, overwrite).await, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damaged_byte_of_the_headers_is_noticed() {
    let store = ClosedStore::new().await;
    // That of the segment and that of its first frame.
    for at in 0..2 * HEADER_BYTES {
        let what = format!("byte {at}");
        assert!(store.damaged(SEGMENT, &what, |bytes| bytes[at] ^= 1 << (at % 8)).await, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cut_is_noticed() {
    let store = ClosedStore::new().await;
    let length = store.read(SEGMENT).len();
    for length in (0..length).step_by(1499).chain([HEADER_BYTES, HEADER_BYTES + 10, length - 1]) {
        let what = format!("cut at {length}");
        assert!(store.damaged(SEGMENT, &what, |bytes| bytes.truncate(length)).await, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_after_the_end_does_no_harm() {
    let store = ClosedStore::new().await;
    for what in ["zeros", "text"] {
        let more = if what == "zeros" { vec![0; 5000] } else { b"text\n".repeat(1000) };
        assert!(!store.damaged(SEGMENT, what, |bytes| bytes.extend(more)).await, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_numbers_of_the_high_water_file_are_noticed() {
    let store = ClosedStore::new().await;
    for at in [0, 20, 31, 512, 543, 1024, 1050] {
        let what = format!("byte {at} of the high-water file");
        assert!(store.damaged(HIGH_WATER_FILE, &what, |bytes| bytes[at] ^= 1).await, "{what}");
    }
}

/// Changes a store, checksums and all.
fn changed(state_dir: &Path, change: impl FnOnce(&mut Tampered)) {
    tamper(&state_dir.join(STORE_DIRECTORY), change);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_orderly_close_left_at_the_end_is_not_taken_for_torn_by_a_crash() {
    let store = ClosedStore::new().await;
    let cases: [(&str, Tampering, ChainProblem); 4] = [
        ("the last", |stored| stored.zero(|sequence| sequence == 12), ChainProblem::ContentChanged),
        ("the last three", |stored| stored.zero(|sequence| sequence > 9), ChainProblem::ContentChanged),
        (
            "without the last",
            |stored| stored.remove(|sequence| sequence == 12),
            ChainProblem::EndsEarly { newest: 11 },
        ),
        ("without any", |stored| stored.remove(|_| true), ChainProblem::EndsEarly { newest: 0 }),
    ];
    for (what, change, problem) in cases {
        let copy = store.copy();
        changed(copy.path(), change);
        let error = AuditLog::open(AuditOptions::new(copy.path())).unwrap_err();
        let AuditError::Broken { cause, acknowledged: Some(12), .. } = &error else { panic!("{error}") };
        let found = matches!(&**cause, AuditError::DataLoss { problem: found, .. } if *found == problem);
        assert!(found, "{what}: {error}");
        let report = verify(&copy.path().join(STORE_DIRECTORY), &VerifyOptions::default()).unwrap();
        assert_eq!(report.bad.map(|bad| bad.problem), Some(problem), "{what}");
        store.set_aside(copy.path(), &error.to_string(), what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_a_start_does_not_come_by_is_set_aside_all_the_same() {
    let folder = scratch();
    let log = AuditLog::open(AuditOptions::new(folder.path())).unwrap();
    let log_id = log.log_id().to_string();
    for n in 0..CHECKED_ROWS + 10 {
        log.enqueue(denial(&n.to_string()));
    }
    log.close().await.unwrap();
    drop(log);
    changed(folder.path(), |stored| stored.zero(|sequence| sequence == 5));
    let unnoticed = AuditLog::open(AuditOptions::new(folder.path())).unwrap();
    until(&unnoticed, |status| status.health.chain_broken.is_some()).await;
    unnoticed.close().await.unwrap();
    let options = AuditOptions { set_aside_broken: true, ..AuditOptions::new(folder.path()) };
    let aside = AuditLog::open(options).unwrap();
    let Body::Event(event) = all(&aside).await.remove(0).body else { panic!("no event") };
    let opened = event.log_opened.unwrap();
    assert_eq!((opened.previous_log_id, opened.previous_sequence), (log_id, 4));
}

#[test]
fn a_store_that_is_gone_is_a_broken_chain() {
    let folder = scratch();
    let log_id = Uuid::new_v4();
    HighWaterFile::open(&folder.path().join(HIGH_WATER_FILE), log_id).unwrap().0.reset(42, 42).unwrap();
    let report = verify(&folder.path().join(STORE_DIRECTORY), &VerifyOptions::default()).unwrap();
    assert_eq!((&*report.log_id, report.acknowledged), (&*log_id.to_string(), Some(42)));
    let said = report.bad.unwrap().to_string();
    assert!(said.starts_with("it is missing or empty"), "{said}");
}
