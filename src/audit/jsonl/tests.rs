//! Lines are complete, in order, and written at least once.

use std::collections::BTreeSet;
use std::fs::File;
use std::time::SystemTime;

use super::super::testing::*;
use super::super::*;
use super::*;

struct Fixture {
    folder: tempfile::TempDir,
    log: AuditLog,
}

async fn fixture(events: u64) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(AuditOptions::new(folder.path().join("state"))).unwrap();
    for n in 0..events {
        log.enqueue(expansion(&n.to_string()));
    }
    until(&log, |status| status.durable == events).await;
    Fixture { folder, log }
}

impl Fixture {
    fn file(&self) -> PathBuf {
        self.folder.path().join("audit.jsonl")
    }

    fn options(&self) -> JsonlOptions {
        JsonlOptions::new(JsonlTarget::File(self.file()), &self.folder.path().join("state"))
    }

    /// Writes what there is.
    async fn write(&self, options: JsonlOptions) -> Result<(), AuditError> {
        let stop = CancellationToken::new();
        stop.cancel();
        self.run(self.open(options)?, &stop).await.unwrap()
    }

    fn open(&self, options: JsonlOptions) -> Result<Jsonl, AuditError> {
        Jsonl::open(self.log.clone(), options)
    }

    /// Runs on a thread that may block.
    fn run(&self, jsonl: Jsonl, stop: &CancellationToken) -> tokio::task::JoinHandle<Result<(), AuditError>> {
        let (stop, runtime) = (stop.clone(), Handle::current());
        tokio::task::spawn_blocking(move || jsonl.run(&runtime, &stop))
    }

    /// A FIFO with this name.
    fn fifo(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.file()).unwrap()
    }
}

#[track_caller]
fn sequences(text: &str) -> Vec<u64> {
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| place_of(&serde_json::from_str(line).unwrap()).unwrap().1).collect()
}

fn range(from: u64, to: u64) -> Vec<u64> {
    (from..=to).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_continue_where_they_ended() {
    let fixture = fixture(700).await;
    fixture.write(fixture.options()).await.unwrap();
    assert_eq!(sequences(&fixture.text()), range(1, 700));
    fixture.log.append_durable(denial("next")).await.unwrap();
    fixture.write(fixture.options()).await.unwrap();
    fixture.write(fixture.options()).await.unwrap();
    assert_eq!(sequences(&fixture.text()), range(1, 701));
}

#[tokio::test(flavor = "multi_thread")]
async fn running_writer_follows_the_log_until_it_closes() {
    let fixture = fixture(3).await;
    let running = fixture.run(fixture.open(fixture.options()).unwrap(), &CancellationToken::new());
    for n in 0..20 {
        fixture.log.append_durable(expansion(&n.to_string())).await.unwrap();
    }
    until(&fixture.log, |status| status.readers == 1 && status.largest_lag == 0).await;
    fixture.log.close().await.unwrap();
    running.await.unwrap().unwrap();
    assert_eq!(sequences(&fixture.text()), range(1, 23));
}

#[tokio::test(flavor = "multi_thread")]
async fn line_cut_by_a_crash_is_completed() {
    let fixture = fixture(5).await;
    fixture.write(fixture.options()).await.unwrap();
    let whole = fixture.text();
    let last_line = whole.trim_end().rfind('\n').unwrap() + 1;
    for cut in [last_line, last_line + 1, last_line + 300, whole.len() - 1, 7] {
        std::fs::write(fixture.file(), &whole.as_bytes()[..cut]).unwrap();
        // As if it had never been saved.
        std::fs::remove_file(fixture.options().position).unwrap();
        fixture.write(fixture.options()).await.unwrap();
        assert_eq!(fixture.text(), whole, "cut at {cut}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_end_of_a_file_is_ended_and_everything_follows() {
    let fixture = fixture(2).await;
    std::fs::write(fixture.file(), "something else\nand a pie").unwrap();
    fixture.write(fixture.options()).await.unwrap();
    let text = fixture.text();
    let rest = text.strip_prefix("something else\nand a pie\n").unwrap();
    assert_eq!(sequences(rest), range(1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn hole_in_what_was_not_saved_is_not_trusted() {
    let fixture = fixture(6).await;
    fixture.write(fixture.options()).await.unwrap();
    let position = fixture.options().position;
    save_position(&position, fixture.log.log_id(), 2).unwrap();
    let lines: Vec<String> = fixture.text().lines().map(str::to_owned).collect();
    let holed: String =
        lines.iter().enumerate().filter(|(n, _)| *n != 3).map(|(_, line)| line.clone() + "\n").collect();
    std::fs::write(fixture.file(), holed).unwrap();
    fixture.write(fixture.options()).await.unwrap();
    let seen: BTreeSet<u64> = sequences(&fixture.text()).into_iter().collect();
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), range(1, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_rotated_by_size_and_the_oldest_goes() {
    let fixture = fixture(100).await;
    let options = JsonlOptions { max_bytes: 10_000, keep: 3, ..fixture.options() };
    fixture.write(options.clone()).await.unwrap();
    let mut all = Vec::new();
    for name in ["audit.jsonl.3", "audit.jsonl.2", "audit.jsonl.1", "audit.jsonl"] {
        let text = std::fs::read_to_string(fixture.folder.path().join(name)).unwrap();
        assert!(text.len() <= 10_000 && !text.is_empty(), "{name}: {}", text.len());
        all.extend(sequences(&text));
    }
    assert_eq!(all, range(*all.first().unwrap(), 100));
    assert!(!fixture.folder.path().join("audit.jsonl.4").exists());

    // One line alone may be longer than a file.
    let options = JsonlOptions { max_bytes: 10, keep: 0, ..options };
    fixture.log.append_durable(expansion("101")).await.unwrap();
    fixture.log.append_durable(expansion("102")).await.unwrap();
    fixture.write(options).await.unwrap();
    assert_eq!(sequences(&fixture.text()), [102]);
}

#[tokio::test(flavor = "multi_thread")]
async fn file_that_was_moved_away_is_made_again() {
    let fixture = fixture(1).await;
    let running = fixture.run(fixture.open(fixture.options()).unwrap(), &CancellationToken::new());
    until(&fixture.log, |status| status.largest_lag == 0).await;
    let moved = fixture.folder.path().join("moved");
    std::fs::rename(fixture.file(), &moved).unwrap();
    fixture.log.append_durable(expansion("2")).await.unwrap();
    until(&fixture.log, |status| status.largest_lag == 0).await;
    fixture.log.close().await.unwrap();
    running.await.unwrap().unwrap();
    assert_eq!(sequences(&std::fs::read_to_string(moved).unwrap()), [1]);
    assert_eq!(sequences(&fixture.text()), [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn target_that_cannot_be_written_is_tried_again_and_nothing_is_lost() {
    let fixture = fixture(3).await;
    let options = fixture.options();
    let mut health = options.health.subscribe();
    let jsonl = fixture.open(options).unwrap();
    // The file is gone and a directory has its name.
    std::fs::remove_file(fixture.file()).unwrap();
    std::fs::create_dir(fixture.file()).unwrap();
    let running = fixture.run(jsonl, &CancellationToken::new());
    health
        .wait_for(|health| matches!(health, LinesHealth::Failing(error) if error.contains("irectory")))
        .await
        .unwrap();
    until(&fixture.log, |status| status.errors >= 2).await;
    std::fs::remove_dir(fixture.file()).unwrap();
    until(&fixture.log, |status| status.largest_lag == 0).await;
    fixture.log.close().await.unwrap();
    running.await.unwrap().unwrap();
    assert_eq!(sequences(&fixture.text()), range(1, 3));
    assert_eq!(*health.borrow_and_update(), LinesHealth::Idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_deleted_before_they_became_lines_leave_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let options = AuditOptions { max_age: Some(Duration::from_secs(60)), ..AuditOptions::new(&state) };
    let log = AuditLog::open(options).unwrap();
    let mut old = expansion("old");
    old.event_time = Some((SystemTime::now() - Duration::from_secs(3600)).into());
    log.append_durable(old.clone()).await.unwrap();
    log.append_durable(old).await.unwrap();
    until(&log, |status| status.oldest == 3).await;
    log.append_durable(expansion("new")).await.unwrap();
    let fixture = Fixture { folder, log };
    fixture.write(fixture.options()).await.unwrap();
    let text = fixture.text();
    assert_eq!(sequences(&text), [2, 3]);
    let gap: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(gap["gap"]["reason"], "retention");
    assert_eq!(gap["gap"]["count"], "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn position_of_another_log_does_not_count() {
    let fixture = fixture(2).await;
    save_position(&fixture.options().position, Uuid::new_v4(), 50).unwrap();
    fixture.write(fixture.options()).await.unwrap();
    assert_eq!(sequences(&fixture.text()), range(1, 2));
    std::fs::write(fixture.options().position, "{").unwrap();
    std::fs::remove_file(fixture.file()).unwrap();
    fixture.write(fixture.options()).await.unwrap();
    assert_eq!(sequences(&fixture.text()), range(1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_no_lines_is_refused_with_the_reason() {
    let fixture = fixture(1).await;
    let folder = fixture.folder.path().to_owned();
    for (path, reason) in [
        (folder.clone(), "it is a directory"),
        (PathBuf::from("/dev/full"), "it is a memory device"),
        (PathBuf::from("/dev/zero"), "it is a memory device"),
        (folder.join("missing/lines"), "No such file"),
    ] {
        let options = JsonlOptions { target: JsonlTarget::File(path.clone()), ..fixture.options() };
        let error = fixture.open(options).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains(path.to_str().unwrap()), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn character_devices_are_written_and_not_read() {
    let fixture = fixture(3).await;
    let target = JsonlTarget::File(PathBuf::from("/dev/null"));
    fixture.write(JsonlOptions { target, ..fixture.options() }).await.unwrap();
    assert_eq!(load_position(&fixture.options().position, fixture.log.log_id()).unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fifo_waits_for_its_reader_and_the_next_reader_gets_whole_lines() {
    let fixture = fixture(300).await;
    let path = fixture.fifo("lines");
    let options = JsonlOptions { target: JsonlTarget::File(path.clone()), ..fixture.options() };
    let mut health = options.health.subscribe();
    let stop = CancellationToken::new();
    let running = fixture.run(fixture.open(options).unwrap(), &stop);
    health.wait_for(|health| matches!(health, LinesHealth::Failing(_))).await.unwrap();

    // One reader disconnects inside a line; the next one gets that line again.
    let read_some = {
        let path = path.clone();
        move || {
            use std::io::Read as _;
            let mut reader = File::open(path).unwrap();
            let mut bytes = vec![0; 1000];
            reader.read_exact(&mut bytes).unwrap();
            (reader, bytes)
        }
    };
    let (reader, first) = tokio::task::spawn_blocking(read_some).await.unwrap();
    let errors = fixture.log.status().errors;
    drop(reader);
    until(&fixture.log, |status| status.errors > errors).await;
    let read_all = tokio::task::spawn_blocking(move || std::fs::read_to_string(path).unwrap());
    health.wait_for(|health| *health == LinesHealth::Idle).await.unwrap();
    stop.cancel();
    running.await.unwrap().unwrap();
    let second = read_all.await.unwrap();
    let got = sequences(&second);
    assert_eq!(got, range(*got.first().unwrap(), 300));
    assert!(first.starts_with(b"{"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_reading_shows_as_a_write_that_does_not_return() {
    let fixture = fixture(300).await;
    let path = fixture.fifo("lines");
    let reader = File::options().read(true).write(true).open(&path).unwrap();
    let options = JsonlOptions { target: JsonlTarget::File(path), ..fixture.options() };
    let mut health = options.health.subscribe();
    let stop = CancellationToken::new();
    let running = fixture.run(fixture.open(options).unwrap(), &stop);
    health.wait_for(|health| matches!(health, LinesHealth::Writing(_))).await.unwrap();
    stop.cancel();
    assert!(!running.is_finished());
    let reading = tokio::task::spawn_blocking(move || {
        use std::io::{BufRead as _, BufReader};
        BufReader::new(reader).lines().take(300).map(|line| line.unwrap() + "\n").collect::<String>()
    });
    running.await.unwrap().unwrap();
    assert_eq!(sequences(&reading.await.unwrap()), range(1, 300));
}
