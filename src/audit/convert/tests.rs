//! A store of an earlier version becomes segments, whatever it has and whenever that is cut short.

use std::path::PathBuf;

use rusqlite::{Connection, params};
use uuid::Uuid;

use super::super::chain::StoredRow;
use super::super::offline::OfflineStore;
use super::super::testing::*;
use super::super::*;
use super::*;

/// The tables of such a store.
const SCHEMA: &str = "
    PRAGMA page_size = 16384;
    PRAGMA journal_mode = wal;
    CREATE TABLE log (one INTEGER PRIMARY KEY CHECK (one = 1), log_id BLOB NOT NULL, base_sequence INTEGER NOT NULL,
        base_hash BLOB NOT NULL, base_latest_time INTEGER NOT NULL, accounted INTEGER NOT NULL) STRICT;
    CREATE TABLE record (sequence INTEGER PRIMARY KEY, latest_time INTEGER NOT NULL, content BLOB NOT NULL,
        hash BLOB NOT NULL) STRICT;
    CREATE TABLE damaged (id INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, latest_time INTEGER NOT NULL,
        content BLOB NOT NULL, hash BLOB NOT NULL, found_time INTEGER NOT NULL) STRICT;
    CREATE TABLE probe (filler BLOB NOT NULL) STRICT;
    PRAGMA application_id = 1398227276;
    PRAGMA user_version = 2;
";

/// A state directory of an earlier version, of which retention has deleted the first record, and what is in it.
struct OldState {
    folder: tempfile::TempDir,
    log_id: Uuid,
    rows: Vec<StoredRow>,
}

impl OldState {
    async fn new(count: u64) -> Self {
        let folder = scratch();
        let log = AuditLog::open(AuditOptions::new(folder.path())).unwrap();
        for n in 1..count {
            log.enqueue(denial(&n.to_string()));
        }
        log.append_durable(expansion("last")).await.unwrap();
        log.close().await.unwrap();
        let log_id = log.log_id();
        drop(log);
        let segments = folder.path().join(STORE_DIRECTORY);
        let mut rows =
            OfflineStore::open(&segments).unwrap().rows_after(0, usize::try_from(count).unwrap()).unwrap();
        assert_eq!(rows.len() as u64, count);
        std::fs::remove_dir_all(segments).unwrap();
        let base = rows.remove(0).tip();
        let connection = Connection::open(folder.path().join(DATABASE_FILE)).unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        connection
            .execute(
                "INSERT INTO log VALUES (1, ?1, ?2, ?3, ?4, ?5)",
                params![
                    log_id.as_bytes().as_slice(),
                    1,
                    base.head.hash,
                    base.latest_time,
                    (count - 1) as i64
                ],
            )
            .unwrap();
        connection.execute_batch("BEGIN").unwrap();
        for row in &rows {
            connection
                .execute(
                    "INSERT INTO record VALUES (?1, ?2, ?3, ?4)",
                    params![row.sequence as i64, row.latest_time, &*row.content, row.hash],
                )
                .unwrap();
        }
        connection.execute_batch("COMMIT").unwrap();
        Self { folder, log_id, rows }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(DATABASE_FILE)
    }

    fn sql(&self, statement: &str) {
        Connection::open(self.path()).unwrap().execute_batch(statement).unwrap();
    }

    fn open(&self) -> Result<AuditLog, AuditError> {
        AuditLog::open(AuditOptions::new(self.folder.path()))
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Everything is there, byte for byte, and the log goes on.
    async fn assert_moved(&self) {
        assert_eq!(self.names(), ["audit", "audit.mark", "lock"]);
        let log = self.open().unwrap();
        assert!(log.start_report().is_clean() && !log.start_report().created, "{:?}", log.start_report());
        assert_eq!(log.log_id(), self.log_id);
        log.append_durable(expansion("next")).await.unwrap();
        log.close().await.unwrap();
        let mut rows =
            OfflineStore::open(&store_of(self.folder.path())).unwrap().rows_after(0, 10_000).unwrap();
        rows.pop();
        assert_eq!(rows, self.rows);
        let report = assert_holds(self.folder.path());
        assert_eq!((report.base.sequence, report.records), (1, self.rows.len() as u64 + 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_moved_byte_for_byte_and_the_log_goes_on() {
    let old = OldState::new(2500).await;
    // Before it is moved it can be read and verified where it is.
    assert_eq!(store_of(old.folder.path()), old.path());
    assert_eq!(assert_holds(old.folder.path()).records, 2499);
    let log = old.open().unwrap();
    assert!(log.start_report().is_clean(), "{:?}", log.start_report());
    assert_eq!((log.status().oldest, log.head().sequence), (2, 2500));
    log.close().await.unwrap();
    drop(log);
    old.assert_moved().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn move_that_was_cut_short_begins_again_and_one_that_was_done_is_not_repeated() {
    let old = OldState::new(50).await;
    let database = std::fs::read(old.path()).unwrap();
    // What a process left that ended meanwhile.
    let new = old.folder.path().join(NEW_DIRECTORY);
    std::fs::create_dir(&new).unwrap();
    std::fs::write(new.join("00000000000000000002.log"), b"half").unwrap();
    old.open().unwrap().close().await.unwrap();
    assert_eq!(old.names(), ["audit", "audit.mark", "lock"]);
    // It ended before the old store was removed.
    std::fs::write(old.path(), &database).unwrap();
    old.open().unwrap().close().await.unwrap();
    old.assert_moved().await;
    // A store of another log is not ours to remove.
    let other = OldState::new(3).await;
    std::fs::copy(other.path(), old.path()).unwrap();
    old.open().unwrap().close().await.unwrap();
    assert!(old.path().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn old_store_stays_until_the_new_one_was_found_good() {
    // A copy was put back without its write-ahead file, in which the newest records are.
    let old = OldState::new(30).await;
    let whole = std::fs::read(old.path()).unwrap();
    old.sql("DELETE FROM record WHERE sequence > 20");
    let before = std::fs::read(old.path()).unwrap();
    let error = old.open().unwrap_err();
    assert!(error.to_string().contains("the chain ends at record 20"), "{error}");
    assert!(error.to_string().contains("audit.db` is broken"), "{error}");
    assert_eq!(std::fs::read(old.path()).unwrap(), before);
    assert!(!old.names().iter().any(|name| name == "audit" || name == NEW_DIRECTORY), "{:?}", old.names());
    std::fs::write(old.path(), whole).unwrap();
    old.open().unwrap().close().await.unwrap();
    old.assert_moved().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_in_the_write_ahead_file_are_moved_too() {
    let old = OldState::new(30).await;
    // A process that ended without closing: its files are copied while they are open.
    let connection = Connection::open(old.path()).unwrap();
    connection
        .execute_batch(
            "PRAGMA wal_autocheckpoint = 0; CREATE TEMP TABLE last AS SELECT * FROM record WHERE sequence > 20;
             DELETE FROM record WHERE sequence > 20; PRAGMA wal_checkpoint(TRUNCATE);
             INSERT INTO record SELECT * FROM last",
        )
        .unwrap();
    let copies =
        database_files(old.folder.path()).map(|path| std::fs::read(&path).map(|bytes| (path, bytes)));
    drop(connection);
    let written = copies[0].as_ref().unwrap().1.len();
    assert!(written > 1000, "{written} bytes in the write-ahead file");
    for (path, bytes) in copies.into_iter().flatten() {
        std::fs::write(path, bytes).unwrap();
    }
    old.open().unwrap().close().await.unwrap();
    old.assert_moved().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_aside_is_moved_and_gets_no_older() {
    let old = OldState::new(10).await;
    old.sql(
        "INSERT INTO damaged (sequence, latest_time, content, hash, found_time) VALUES
        (7, 1, x'01', x'00', 5000), (8, 1, x'02', x'00', 5000), (9, 1, x'03', x'00', 6000)",
    );
    old.open().unwrap().close().await.unwrap();
    let damaged = || {
        let entries = std::fs::read_dir(old.folder.path().join(STORE_DIRECTORY)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.starts_with("damaged-")).collect();
        names.sort();
        names
    };
    assert_eq!(damaged(), ["damaged-5000", "damaged-6000"]);
    let max_age = Some(std::time::Duration::from_secs(3600));
    let log = AuditLog::open(AuditOptions { max_age, ..AuditOptions::new(old.folder.path()) }).unwrap();
    until(&log, |status| status.maintained > 0).await;
    assert_eq!(damaged(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_moved_as_it_is_or_stops_the_start() {
    // What the walk over the chain tells is moved.
    for (statement, sequence) in [
        ("UPDATE record SET content = x'00' WHERE sequence = 53", 53),
        ("DELETE FROM record WHERE sequence IN (53, 54)", 53),
    ] {
        let old = OldState::new(1200).await;
        old.sql(statement);
        let log = old.open().unwrap();
        let mut health = log.watch_health();
        let bad = health.wait_for(|health| health.chain_broken.is_some()).await.unwrap().chain_broken.clone();
        assert_eq!(bad.unwrap().sequence, sequence, "{statement}");
        log.close().await.unwrap();
        assert_eq!(
            verify(&store_of(old.folder.path()), &VerifyOptions::default()).unwrap().bad.unwrap().sequence,
            sequence
        );
    }
    // What is not is not.
    let header = |old: &OldState| {
        std::fs::write(old.path(), [&b"SQLite format 3\0"[..], &[7; 5000]].concat()).unwrap()
    };
    let hidden = |old: &OldState| old.sql("UPDATE log SET base_sequence = 3");
    let cases: [fn(&OldState); 2] = [header, hidden];
    for break_it in cases {
        let old = OldState::new(20).await;
        break_it(&old);
        let before = std::fs::read(old.path()).unwrap();
        let error = old.open().unwrap_err();
        assert!(matches!(error, AuditError::Broken { .. }), "{error}");
        assert!(error.to_string().contains("audit.db` is broken"), "{error}");
        assert_eq!(std::fs::read(old.path()).unwrap(), before);
        assert!(!old.folder.path().join(NEW_DIRECTORY).exists());
        let options = AuditOptions { set_aside_broken: true, ..AuditOptions::new(old.folder.path()) };
        let log = AuditLog::open(options).unwrap();
        assert_ne!(log.log_id(), old.log_id);
        assert!(!old.path().exists());
        log.close().await.unwrap();
        assert_holds(old.folder.path());
    }
}
