//! JSON lines for log shippers: to standard output, or to a file that is rotated by size.
//!
//! Fed from the store by a reader of its own, so a full disk or a slow pipe delays lines and loses
//! none that retention keeps. How far it got is in a small file of the state directory, so lines
//! are written at least once; after a crash the end of the file itself says what need not be
//! repeated.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::json;
use super::{AuditError, AuditLog, Filter};
use crate::file;
use crate::proto::json::JsonError;

mod sink;

use self::sink::{Sink, read_tail};

/// The file name, inside the state directory, of how far the lines are.
pub const POSITION_FILE: &str = "audit-jsonl.position";

/// The most records between two writes.
const PAGE_RECORDS: usize = 512;
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// Where lines go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum JsonlTarget {
    /// Standard output.
    Stdout,
    /// A file, made if it is not there, and continued if it is.
    File(PathBuf),
}

/// How lines are written. [`JsonlOptions::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct JsonlOptions {
    /// Where lines go.
    pub target: JsonlTarget,
    /// A file is rotated before it gets larger than this. One line alone may be larger.
    pub max_bytes: u64,
    /// How many rotated files are kept, as `PATH.1` (the newest) and so on; with 0 none.
    pub keep: u32,
    /// Remembers how far the lines are.
    pub position: PathBuf,
    /// How long lines may be written before that is remembered.
    pub save_interval: Duration,
}

impl JsonlOptions {
    /// Files of 64 MiB, five of them kept, the position saved every second.
    #[must_use]
    pub fn new(target: JsonlTarget, state_dir: &Path) -> Self {
        Self {
            target,
            max_bytes: 64 << 20,
            keep: 5,
            position: state_dir.join(POSITION_FILE),
            save_interval: Duration::from_secs(1),
        }
    }
}

/// Writes lines, once it runs.
#[derive(Debug)]
pub struct Jsonl {
    log: AuditLog,
    sink: Arc<Mutex<Sink>>,
    to_stdout: bool,
    position: PathBuf,
    save_interval: Duration,
    /// Everything up to here was written.
    cursor: u64,
    /// Everything up to here was given to the sink.
    given: u64,
    /// Everything up to here is remembered as written.
    saved: u64,
    save_at: Instant,
    lag: Arc<AtomicU64>,
}

impl Jsonl {
    /// Opens the target and finds out where to go on. Blocks.
    ///
    /// # Errors
    ///
    /// The target or the position cannot be read or opened.
    pub fn open(log: AuditLog, options: JsonlOptions) -> Result<Self, AuditError> {
        let JsonlOptions { target, max_bytes, keep, position, save_interval } = options;
        let log_id = log.log_id();
        let saved = load_position(&position, log_id)?;
        let (sink, cursor) = match &target {
            JsonlTarget::Stdout => (Sink::stdout(), saved),
            JsonlTarget::File(path) => {
                let tail = read_tail(path).map_err(AuditError::io("read", path))?;
                let cursor = written(&tail.lines, log_id, saved);
                let sink = Sink::file(path.clone(), max_bytes, keep, tail.partial)
                    .map_err(AuditError::io("open", path))?;
                (sink, cursor)
            }
        };
        Ok(Self {
            lag: log.shared().register(cursor),
            log,
            sink: Arc::new(Mutex::new(sink)),
            to_stdout: target == JsonlTarget::Stdout,
            position,
            save_interval,
            cursor,
            given: cursor,
            saved,
            save_at: Instant::now(),
        })
    }

    /// Writes lines until it is told to stop or the log is closed. What is durable when it is told
    /// to stop is written first, if it can be.
    ///
    /// # Errors
    ///
    /// The chain is broken, or standard output cannot be written. A file that cannot be written is
    /// tried again until it can.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), AuditError> {
        let mut head = self.log.watch_head();
        let mut delay = FIRST_RETRY;
        loop {
            let stopping = stop.is_cancelled();
            let end = head.borrow_and_update().sequence;
            match self.step().await {
                Ok(()) => delay = FIRST_RETRY,
                Err(AuditError::Closed) => break,
                Err(error) if self.is_final(&error) => return Err(error),
                Err(error) => {
                    self.log.shared().figures.error();
                    warn!(%error, "audit lines could not be written");
                    if stopping {
                        break;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(delay) => {}
                        () = stop.cancelled() => {}
                    }
                    delay = (delay * 2).min(LONGEST_RETRY);
                    continue;
                }
            }
            if self.cursor < end {
                continue;
            }
            if stopping {
                break;
            }
            tokio::select! {
                _ = head.changed() => {}
                () = stop.cancelled() => {}
                () = self.log.shared().closed.cancelled() => break,
                () = tokio::time::sleep_until(self.save_at), if self.saved < self.cursor => {}
            }
        }
        self.save().await
    }

    /// Writes one page, and remembers the position if it is time to.
    async fn step(&mut self) -> Result<(), AuditError> {
        if self.given == self.cursor {
            let (lines, through) = self.read().await?;
            self.with_sink("write", move |sink| {
                sink.give(lines);
                Ok(())
            })
            .await?;
            self.given = through;
        }
        // If this fails the rest stays in the sink, and nothing is given to it meanwhile.
        self.with_sink("write", Sink::flush).await?;
        self.cursor = self.given;
        self.lag.store(self.cursor, Ordering::Relaxed);
        if self.saved < self.cursor && self.save_at <= Instant::now() {
            self.save().await?;
        }
        Ok(())
    }

    /// The next lines, and the sequence that they lead to.
    async fn read(&self) -> Result<(Vec<String>, u64), AuditError> {
        let page = self.log.read_after(self.cursor, &Filter::default(), PAGE_RECORDS).await;
        match page {
            Ok(page) => {
                let lines = page.records.iter().map(|record| json::line(&record.body).map_err(not_json));
                Ok((lines.collect::<Result<_, _>>()?, page.through.sequence))
            }
            Err(AuditError::OutOfRange { oldest, .. }) if self.cursor < oldest => {
                let (first, last) = (self.cursor + 1, oldest - 1);
                warn!(first, last, "audit records were deleted before they became lines");
                let log_id = self.log.log_id().to_string();
                let gap = json::retention_gap(log_id, first, last, self.log.now());
                Ok((vec![json::gap_line(&gap).map_err(not_json)?], last))
            }
            Err(AuditError::OutOfRange { newest, .. }) => {
                // The store lost its end without a trace; whatever is written from now on is new.
                warn!(cursor = self.cursor, newest, "audit lines are ahead of the store");
                Ok((Vec::new(), newest))
            }
            Err(error) => Err(error),
        }
    }

    async fn save(&mut self) -> Result<(), AuditError> {
        self.save_at = Instant::now() + self.save_interval;
        if self.saved == self.cursor {
            return Ok(());
        }
        self.with_sink("sync", Sink::sync).await?;
        let (path, log_id, cursor) = (self.position.clone(), self.log.log_id(), self.cursor);
        blocking(move || save_position(&path, log_id, cursor).map_err(AuditError::io("write", path))).await?;
        self.saved = cursor;
        Ok(())
    }

    async fn with_sink(
        &self,
        action: &'static str,
        work: impl FnOnce(&mut Sink) -> io::Result<()> + Send + 'static,
    ) -> Result<(), AuditError> {
        let sink = Arc::clone(&self.sink);
        blocking(move || {
            let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut sink).map_err(|source| AuditError::Io { action, path: sink.path(), source })
        })
        .await
    }

    /// Whether trying again cannot help.
    fn is_final(&self, error: &AuditError) -> bool {
        match error {
            AuditError::DataLoss { .. } => true,
            AuditError::Io { path, .. } => self.to_stdout && *path != self.position,
            _ => false,
        }
    }
}

/// A record that has no JSON form, such as one from after the year 9999.
fn not_json(error: JsonError) -> AuditError {
    AuditError::Io { action: "write", path: "a line of JSON".into(), source: io::Error::other(error) }
}

/// Runs something on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AuditError> + Send + 'static,
) -> Result<T, AuditError> {
    // The task fails only if the runtime shuts down or the work panics.
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(AuditError::Closed))
}

/// How far the lines of this log are remembered to be; 0 if nothing is known.
fn load_position(path: &Path, log_id: Uuid) -> Result<u64, AuditError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(source) => return Err(AuditError::Io { action: "read", path: path.to_owned(), source }),
    };
    let known = serde_json::from_str(&text).ok().and_then(|value| place_of(&value));
    match known {
        Some((id, sequence)) if id == log_id => Ok(sequence),
        // Of another log, or damaged: every line is written again, and none is lost.
        _ => Ok(0),
    }
}

/// Replaces the position as a whole.
fn save_position(path: &Path, log_id: Uuid, sequence: u64) -> io::Result<()> {
    file::replace(path, |out| writeln!(out, r#"{{"logId":"{log_id}","sequence":"{sequence}"}}"#))
}

/// How far the lines are, seeing the last ones of the file: those behind the saved position count
/// only if all from there on are there, since only what was saved was synced.
fn written(lines: &[String], log_id: Uuid, saved: u64) -> u64 {
    let mut newest = None;
    let mut expected = None;
    for line in lines.iter().rev() {
        let place = serde_json::from_str(line).ok().and_then(|value| place_of(&value));
        let Some((id, sequence)) = place else {
            return saved;
        };
        if id != log_id || expected.is_some_and(|expected| expected != sequence) {
            return saved;
        }
        newest.get_or_insert(sequence);
        if sequence <= saved + 1 {
            return newest.unwrap_or(saved).max(saved);
        }
        expected = Some(sequence - 1);
    }
    saved
}

/// The log and the sequence that a line or a position names.
fn place_of(value: &Value) -> Option<(Uuid, u64)> {
    let object = value.get("gap").unwrap_or(value);
    let log_id = Uuid::parse_str(object.get("logId")?.as_str()?).ok()?;
    Some((log_id, object.get("sequence")?.as_str()?.parse().ok()?))
}

#[cfg(test)]
mod tests;
