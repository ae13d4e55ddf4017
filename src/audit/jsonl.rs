//! JSON lines for log shippers: to standard output or another stream, or to a file that is rotated by
//! size.
//!
//! Fed from the store by a reader of its own, on a thread of its own, so a full disk or a slow pipe
//! delays lines and loses none that retention keeps. How far it got is in a small file of the state
//! directory, so lines are written at least once; after a crash the end of the file itself says what
//! need not be repeated.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::json;
use super::{AuditError, AuditLog, Cursor, Filter};
use crate::backoff::Backoff;
use crate::file;
use crate::proto::json::JsonError;
use crate::throttle::Throttle;

mod sink;

use self::sink::{TargetSink, is_stream, read_tail};

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
    /// A file, made if it is not there, and continued if it is; a FIFO or a character device is written
    /// as the stream that it is.
    File(PathBuf),
}

impl JsonlTarget {
    /// Returns `true` if lines go to standard output, under whatever name.
    #[must_use]
    pub fn is_stdout(&self) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        match self {
            Self::Stdout => true,
            Self::File(path) => {
                let identity = |path: &Path| std::fs::metadata(path).map(|data| (data.dev(), data.ino()));
                identity(path).is_ok_and(|target| {
                    identity(Path::new("/dev/stdout")).is_ok_and(|stdout| stdout == target)
                })
            }
        }
    }
}

/// Whether lines are written.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum LinesHealth {
    /// Nothing is being written, or nothing is left to write.
    #[default]
    Idle,
    /// A write began then and has not returned.
    Writing(Instant),
    /// Lines cannot be written, for this reason; it is tried again.
    Failing(String),
}

/// Is told, on the thread that writes, how many lines were written.
pub type LinesObserver = Arc<dyn Fn(usize) + Send + Sync>;

/// How lines are written. [`JsonlOptions::new`] has the defaults.
#[derive(Clone)]
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
    /// Shows whether lines are written.
    pub health: watch::Sender<LinesHealth>,
    /// Told about each write.
    pub observer: Option<LinesObserver>,
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
            health: watch::Sender::default(),
            observer: None,
        }
    }
}

impl fmt::Debug for JsonlOptions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("JsonlOptions").field("target", &self.target).finish_non_exhaustive()
    }
}

/// Writes lines, once it runs.
pub struct Jsonl {
    log: AuditLog,
    sink: TargetSink,
    position: PathBuf,
    save_interval: Duration,
    failures: Throttle,
    health: watch::Sender<LinesHealth>,
    observer: Option<LinesObserver>,
    /// Everything up to here was written.
    cursor: u64,
    /// Everything up to here was given to the sink.
    given: u64,
    /// Everything up to here is remembered as written.
    saved: u64,
    save_at: Instant,
    lag: Arc<AtomicU64>,
}

impl fmt::Debug for Jsonl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Jsonl")
            .field("sink", &self.sink)
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

impl Jsonl {
    /// Opens the target and finds out where to continue. Blocks.
    ///
    /// # Errors
    ///
    /// The target cannot hold lines (it is a directory, a block device, or a memory device such as
    /// `/dev/full`), or it or the position cannot be read or opened. A FIFO without a reader is no error.
    pub fn open(log: AuditLog, options: JsonlOptions) -> Result<Self, AuditError> {
        let JsonlOptions { target, max_bytes, keep, position, save_interval, health, observer } = options;
        let log_id = log.log_id();
        let saved = load_position(&position, log_id)?;
        let (sink, cursor) = match target {
            JsonlTarget::Stdout => {
                (TargetSink::stdout().map_err(AuditError::io("write lines to", "standard output"))?, saved)
            }
            JsonlTarget::File(path) if is_stream_path(&path)? => (TargetSink::stream(path), saved),
            JsonlTarget::File(path) => {
                let tail = read_tail(&path).map_err(AuditError::io("read", &path))?;
                let cursor = written(&tail.lines, log_id, saved);
                let sink = TargetSink::file(path.clone(), max_bytes, keep, tail.partial)
                    .map_err(AuditError::io("open", &path))?;
                (sink, cursor)
            }
        };
        Ok(Self {
            lag: log.shared().register(cursor),
            log,
            sink,
            position,
            save_interval,
            health,
            observer,
            cursor,
            given: cursor,
            saved,
            failures: Throttle::every_minute(),
            save_at: Instant::now(),
        })
    }

    /// Writes lines until it is told to stop or the log is closed. What is durable when it is told to
    /// stop is written first, if it can be. What cannot be written is tried again until it can.
    ///
    /// Blocks, for as long as the target does: run it on a thread of its own, outside of the runtime.
    ///
    /// # Errors
    ///
    /// Something could not be written when it was told to stop. It is, at the next start.
    pub fn run(mut self, runtime: &Handle, stop: &CancellationToken) -> Result<(), AuditError> {
        let mut head = self.log.watch_head();
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        // Whatever an earlier run left there.
        self.health.send_replace(LinesHealth::Idle);
        loop {
            let stopping = stop.is_cancelled();
            let end = head.borrow_and_update().sequence;
            match self.step(runtime) {
                Ok(()) => {
                    if backoff.failures() > 0 {
                        info!("audit lines are written again");
                    }
                    backoff.reset();
                    self.health.send_if_modified(|health| std::mem::take(health) != LinesHealth::Idle);
                }
                Err(AuditError::Closed) => break,
                Err(error) => {
                    self.failed(&error);
                    if stopping {
                        return Err(error);
                    }
                    let delay = backoff.failed();
                    runtime.block_on(async {
                        tokio::select! {
                            () = tokio::time::sleep(delay) => {}
                            () = stop.cancelled() => {}
                        }
                    });
                    continue;
                }
            }
            if self.cursor < end {
                continue;
            }
            if stopping {
                break;
            }
            let closed = runtime.block_on(async {
                tokio::select! {
                    _ = head.changed() => false,
                    () = stop.cancelled() => false,
                    () = self.log.shared().closed.cancelled() => true,
                    () = tokio::time::sleep_until(self.save_at), if self.saved < self.cursor => false,
                }
            });
            if closed {
                break;
            }
        }
        self.save()
    }

    /// Shows a failure, and logs it once a minute.
    fn failed(&self, error: &AuditError) {
        self.log.shared().figures.error();
        let failing = LinesHealth::Failing(error.to_string());
        self.health.send_if_modified(|health| std::mem::replace(health, failing.clone()) != failing);
        if let Some(count) = self.failures.count(Instant::now().into_std()) {
            warn!(%error, count, "audit lines could not be written");
        }
    }

    /// Writes one page, and remembers the position if it is time to.
    fn step(&mut self, runtime: &Handle) -> Result<(), AuditError> {
        let mut count = 0;
        if self.given == self.cursor {
            let (lines, through) = runtime.block_on(self.read())?;
            count = lines.len();
            self.sink.give(lines);
            self.given = through;
        }
        // If this fails the rest stays in the sink, and nothing is given to it meanwhile.
        let health = &self.health;
        let before_write = || {
            health.send_modify(|health| {
                // What failed before is a failure until it succeeds.
                if !matches!(health, LinesHealth::Failing(_)) {
                    *health = LinesHealth::Writing(Instant::now());
                }
            });
        };
        self.sink.flush(before_write).map_err(|source| self.error("write", source))?;
        if let Some(observer) = self.observer.as_ref().filter(|_| count > 0) {
            observer(count);
        }
        self.cursor = self.given;
        self.lag.store(self.cursor, Ordering::Relaxed);
        if self.saved < self.cursor && self.save_at <= Instant::now() {
            self.save()?;
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

    fn save(&mut self) -> Result<(), AuditError> {
        self.save_at = Instant::now() + self.save_interval;
        if self.saved == self.cursor {
            return Ok(());
        }
        self.sink.sync().map_err(|source| self.error("sync", source))?;
        save_position(&self.position, self.log.log_id(), self.cursor)
            .map_err(AuditError::io("write", &self.position))?;
        self.saved = self.cursor;
        Ok(())
    }

    fn error(&self, action: &'static str, source: io::Error) -> AuditError {
        AuditError::Io { action, path: self.sink.path(), source }
    }
}

/// Returns `true` if the path is a stream; a path that does not exist will be a file.
fn is_stream_path(path: &Path) -> Result<bool, AuditError> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        // What another process has open under such a name must not be renamed away.
        Ok(metadata) => {
            let is_alias = path.starts_with("/dev") || path.starts_with("/proc");
            is_stream(&metadata).map(|stream| stream || is_alias)
        }
        Err(error) => Err(error),
    }
    .map_err(AuditError::io("write lines to", path))
}

/// A record that has no JSON form, such as one from after the year 9999.
fn not_json(error: JsonError) -> AuditError {
    AuditError::Io { action: "write", path: "a line of JSON".into(), source: io::Error::other(error) }
}

/// How far the lines of this log are remembered to be; 0 if nothing is known.
fn load_position(path: &Path, log_id: Uuid) -> Result<u64, AuditError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(source) => return Err(AuditError::Io { action: "read", path: path.to_owned(), source }),
    };
    match Cursor::read(text.as_bytes()) {
        Ok(Cursor { log_id: id, sequence }) if id == log_id.to_string() => Ok(sequence),
        // Of another log, or damaged: every line is written again, and none is lost.
        _ => Ok(0),
    }
}

/// Replaces the position as a whole.
fn save_position(path: &Path, log_id: Uuid, sequence: u64) -> io::Result<()> {
    let cursor = Cursor { log_id: log_id.to_string(), sequence };
    file::replace(path, |out| {
        serde_json::to_writer(&mut *out, &cursor)?;
        writeln!(out)
    })
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

/// The log and the sequence that a line names.
fn place_of(value: &Value) -> Option<(Uuid, u64)> {
    let object = value.get("gap").unwrap_or(value);
    let log_id = Uuid::parse_str(object.get("logId")?.as_str()?).ok()?;
    Some((log_id, object.get("sequence")?.as_str()?.parse().ok()?))
}

#[cfg(test)]
mod tests;
