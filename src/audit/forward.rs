//! Copies the log to the joined store: in order, in batches, as far behind as that store makes it.
//!
//! What the store acknowledged is not believed: on each connection and every minute it is asked what it has, and goes on from there. What it
//! lost is written again as long as it is kept here.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::joined::{JoinedError, JoinedProblem, JoinedRow, JoinedStore, JoinedTarget, MissingRecords};
use super::record::{Hash, Head};
use super::scan::Scan;
use super::stream::Start;
use super::{AuditError, AuditLog, ChainProblem, store_of};
use crate::backoff::Backoff;
use crate::throttle::Throttle;

const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// How often the store is asked what it has.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// At how many of those times all records are counted that are kept here, and not only those since the time before.
const CHECKS_TO_FULL: u32 = 60;
/// How long records may wait, while nothing fails, before that is shown.
const BEHIND_AFTER: Duration = Duration::from_secs(60);
/// How long a stop waits for the store to take what is left; the next start goes on from there.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// The most records and bytes of one transaction; a record alone may have more bytes.
const BATCH_RECORDS: usize = 1000;
const BATCH_BYTES: usize = 4 << 20;
/// How long records are gathered after a transaction that took all there were, so that the next one has more than a few.
const GATHER: Duration = Duration::from_millis(100);

/// How forwarding stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ForwardStatus {
    /// The newest sequence that the store has; `None` until it said so.
    pub forwarded: Option<u64>,
    /// When the store last had everything, or took a batch.
    pub last_success: Option<SystemTime>,
    /// Records that were written there by this process.
    pub records: u64,
    /// Failures since the process started; each is tried again.
    pub retries: u64,
    /// Records that retention deleted here before the store had them, since the process started.
    pub missing: u64,
    /// Records that the store lost and cannot take again in their place.
    pub lost: u64,
    /// Why it is behind, if it is: the reason of the condition, and words.
    pub behind: Option<(&'static str, String)>,
}

/// Why forwarding stopped for now.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The joined store.
    #[error(transparent)]
    Joined(#[from] JoinedError),
    /// The log here.
    #[error("the audit log: {0}")]
    Log(#[from] AuditError),
}

impl ForwardError {
    const fn reason(&self) -> &'static str {
        match self {
            Self::Joined(error) => error.problem.reason(),
            Self::Log(_) => "AuditLogUnreadable",
        }
    }
}

/// Copies a log to the joined store.
#[derive(Debug)]
pub struct Forwarder {
    source: ForwardSource,
    target: JoinedTarget,
    status: watch::Sender<ForwardStatus>,
    failures: Throttle,
    check_interval: Duration,
}

/// How a session ended, other than by an error.
enum SessionEnd {
    /// It was told to, and the store has everything; or the log was closed.
    Stopped,
    /// Its connection broke while the store had everything.
    Broken,
}

/// Where records come from.
#[derive(Debug)]
enum ForwardSource {
    /// A log that is open, and grows.
    Log(AuditLog),
    /// The store of a server that has stopped.
    Store(Box<StoppedStore>),
}

/// The store of a server that has stopped, and its ends.
#[derive(Debug)]
struct StoppedStore {
    scan: Scan,
    path: PathBuf,
    base: Head,
    newest: Head,
}

impl ForwardSource {
    fn log_id(&self) -> Uuid {
        match self {
            Self::Log(log) => log.log_id(),
            Self::Store(store) => store.scan.log_id(),
        }
    }

    /// What is known of the record before the oldest, and the newest one.
    fn ends(&self) -> (Head, Head) {
        match self {
            Self::Log(log) => {
                let (base, tip) = log.shared().ends();
                (base.head, tip.head)
            }
            Self::Store(store) => (store.base, store.newest),
        }
    }

    /// Records after a place, in order: as many as one transaction takes.
    async fn rows(&mut self, after: u64, hash: Option<Hash>) -> Result<Vec<JoinedRow>, AuditError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        match self {
            Self::Log(log) => {
                let (mut after, mut hash) = (after, hash);
                while batch.len() < BATCH_RECORDS && bytes < BATCH_BYTES {
                    let rows = log.reader().rows(after, hash).await?;
                    if rows.is_empty() {
                        break;
                    }
                    for (row, record) in rows {
                        bytes += row.content.len();
                        (after, hash) = (row.sequence, Some(row.hash));
                        batch.push(JoinedRow::new(row, &record));
                    }
                }
            }
            Self::Store(store) => {
                if store.scan.position().sequence != after {
                    let log_id = store.scan.log_id().to_string();
                    store.scan = Scan::open(&store.path, Start::After(after), &log_id)?;
                }
                if hash.is_some_and(|known| known != store.scan.position().hash) {
                    let problem = ChainProblem::UnexpectedHash;
                    return Err(AuditError::DataLoss { sequence: after, problem });
                }
                while batch.len() < BATCH_RECORDS
                    && bytes < BATCH_BYTES
                    && let Some((row, record)) = store.scan.next_row()?
                {
                    bytes += row.content.len();
                    batch.push(JoinedRow::new(row, &record));
                }
            }
        }
        Ok(batch)
    }

    /// Lets records be deleted for their age only up to this one.
    fn hold_after(&self, sequence: u64) {
        if let Self::Log(log) = self {
            log.shared().hold_after(sequence);
        }
    }
}

impl Forwarder {
    /// Forwards a log that is open. From now on records are not deleted for their age before the store has them.
    #[must_use]
    pub fn new(log: AuditLog, target: JoinedTarget, status: watch::Sender<ForwardStatus>) -> Self {
        log.shared().hold_after(status.borrow().forwarded.unwrap_or(0));
        // Whatever an earlier part left there.
        status.send_modify(|status| status.behind = None);
        Self::of(ForwardSource::Log(log), target, status)
    }

    /// Forwards the store of a state directory whose server has stopped. Blocks.
    ///
    /// # Errors
    ///
    /// The store cannot be read, or a server has it.
    pub fn of_store(state_dir: &Path, target: JoinedTarget) -> Result<Self, AuditError> {
        let path = store_of(state_dir);
        let newest = Scan::open(&path, Start::Latest, "")?.position();
        let scan = Scan::open(&path, Start::Earliest, "")?;
        let base = scan.position();
        let source = ForwardSource::Store(Box::new(StoppedStore { scan, path, base, newest }));
        Ok(Self::of(source, target, watch::Sender::default()))
    }

    fn of(source: ForwardSource, target: JoinedTarget, status: watch::Sender<ForwardStatus>) -> Self {
        Self { source, target, status, failures: Throttle::every_minute(), check_interval: CHECK_INTERVAL }
    }

    /// Asks the store so often what it has, instead of every minute.
    #[must_use]
    pub fn check_every(self, check_interval: Duration) -> Self {
        Self { check_interval, ..self }
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> ForwardStatus {
        self.status.borrow().clone()
    }

    /// The id of the log.
    #[must_use]
    pub fn log_id(&self) -> Uuid {
        self.source.log_id()
    }

    /// Forwards until it is told to stop or the log is closed; then once more what is durable, if the store takes it.
    pub async fn run(mut self, stop: &CancellationToken) {
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        let gives_up = async {
            stop.cancelled().await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::pin!(gives_up);
        loop {
            let ended = tokio::select! {
                ended = self.session(stop, &mut backoff) => ended,
                () = &mut gives_up => return,
            };
            match ended {
                Ok(SessionEnd::Stopped) | Err(ForwardError::Log(AuditError::Closed)) => return,
                // Nothing waits for it: whether it can be made again is seen at once.
                Ok(SessionEnd::Broken) => {}
                Err(error) => self.failed(&error),
            }
            if stop.is_cancelled() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.failed()) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Forwards what there is, and returns.
    ///
    /// # Errors
    ///
    /// [`ForwardError`], at once.
    pub async fn run_once(&mut self) -> Result<ForwardStatus, ForwardError> {
        let mut store = self.connect().await?;
        let mut place = self.reconcile(&mut store).await?;
        while self.forward(&mut store, &mut place).await? {}
        Ok(self.status())
    }

    async fn connect(&self) -> Result<JoinedStore, ForwardError> {
        let mut store = JoinedStore::connect(&self.target).await?;
        match store.check_writable().await {
            Err(JoinedError { problem: JoinedProblem::NoSchema, .. }) => {
                store.create_schema(1).await?;
                info!(store = %store.shown(), "made the tables of the joined audit store");
            }
            Ok(Some(replicas)) => info!(store = %store.shown(), replicas, "audit records go to a stream"),
            checked => _ = checked?,
        }
        Ok(store)
    }

    /// One connection, from its start to its end.
    async fn session(
        &mut self,
        stop: &CancellationToken,
        backoff: &mut Backoff,
    ) -> Result<SessionEnd, ForwardError> {
        let ForwardSource::Log(log) = &self.source else { return Ok(SessionEnd::Stopped) };
        let (log, mut head) = (log.clone(), log.watch_head());
        let mut store = self.connect().await?;
        let mut place = self.reconcile(&mut store).await?;
        let mut verified = place;
        let mut check_at = Instant::now() + self.check_interval;
        let mut checks = 0_u32;
        let mut behind_since = None;
        loop {
            let stopping = stop.is_cancelled();
            let newest = head.borrow_and_update().sequence;
            let has_written = self.forward(&mut store, &mut place).await?;
            if backoff.failures() > 0 {
                info!(store = %store.shown(), "audit records are forwarded again");
                backoff.reset();
            }
            // What came meanwhile is gathered, but for a stop, which waits for all.
            let is_behind = place.sequence < if stopping { log.head().sequence } else { newest };
            self.show(is_behind.then(|| *behind_since.get_or_insert_with(Instant::now)));
            if !is_behind {
                behind_since = None;
            }
            if Instant::now() >= check_at {
                store.check_writable().await?;
                checks = checks.wrapping_add(1);
                let (base, _) = self.source.ends();
                if checks.is_multiple_of(CHECKS_TO_FULL) && base.sequence < verified.sequence {
                    verified = base;
                }
                if !store.has_all(log.log_id(), verified, place).await? {
                    warn!(store = %store.shown(), "the joined audit store does not have what it acknowledged; it is written again");
                    place = self.reconcile(&mut store).await?;
                }
                verified = place;
                check_at = Instant::now() + self.check_interval;
            }
            match (is_behind, stopping) {
                (true, _) => continue,
                (false, true) => return Ok(SessionEnd::Stopped),
                (false, false) => {}
            }
            if has_written {
                tokio::select! {
                    () = tokio::time::sleep(GATHER) => {}
                    () = stop.cancelled() => {}
                }
            }
            tokio::select! {
                _ = head.changed() => {}
                () = stop.cancelled() => {}
                () = log.ended() => return Ok(SessionEnd::Stopped),
                () = store.broken() => return Ok(SessionEnd::Broken),
                () = tokio::time::sleep_until(check_at) => {}
            }
        }
    }

    /// Writes the next batch. Returns `true` if there was one.
    async fn forward(&mut self, store: &mut JoinedStore, place: &mut Head) -> Result<bool, ForwardError> {
        let rows = self.source.rows(place.sequence, Some(place.hash)).await?;
        let Some(last) = rows.last() else { return Ok(false) };
        let last = Head { sequence: last.stored.sequence, hash: last.stored.hash };
        store.append(self.source.log_id(), &rows).await?;
        *place = last;
        self.forwarded(last.sequence, rows.len() as u64);
        Ok(true)
    }

    fn forwarded(&self, sequence: u64, records: u64) {
        self.source.hold_after(sequence);
        // Nobody is woken: these are read when metrics are.
        self.status.send_if_modified(|status| {
            status.forwarded = Some(sequence);
            status.last_success = Some(SystemTime::now());
            status.records += records;
            false
        });
    }

    /// Asks the store what it has of this log, writes again what it lost, and returns the place to go on from.
    async fn reconcile(&mut self, store: &mut JoinedStore) -> Result<Head, ForwardError> {
        let log_id = self.source.log_id();
        let (base, newest) = self.source.ends();
        let there = store.head(log_id).await?;
        let place = match there {
            // What was deleted before forwarding began was never promised to anybody.
            None => base,
            Some(there) if there.sequence > newest.sequence => {
                let (there, here) = (there.sequence, newest.sequence);
                return Err(store.error(JoinedProblem::Ahead { log_id, there, here }).into());
            }
            Some(there) if there.sequence < base.sequence => {
                let missing = base.sequence - there.sequence;
                let (first, last) = (there.sequence + 1, base.sequence);
                warn!(
                    missing,
                    first, last, "audit records were deleted here before the joined store had them"
                );
                self.status.send_modify(|status| status.missing += missing);
                base
            }
            Some(there) => {
                self.check_same(store, there, base).await?;
                there
            }
        };
        let mut after = base.sequence;
        loop {
            let missing = match store.missing(log_id, after).await? {
                MissingRecords::Ranges(missing) => missing,
                MissingRecords::ForGood(missing) => {
                    self.lost_for_good(store, missing);
                    break;
                }
            };
            let (Some((first, _)), Some((_, last))) = (missing.first(), missing.last()) else { break };
            self.write_again(store, &missing, *first - 1, *last).await?;
            after = *last;
        }
        self.forwarded(place.sequence, 0);
        Ok(place)
    }

    /// Whether the record there is the one here.
    async fn check_same(&mut self, store: &JoinedStore, there: Head, base: Head) -> Result<(), ForwardError> {
        let same = match there.sequence == base.sequence {
            true => there.hash == base.hash,
            false => match self.source.rows(there.sequence - 1, None).await {
                Ok(rows) => rows.first().is_some_and(|row| row.stored.hash == there.hash),
                Err(error) => return Err(error.into()),
            },
        };
        if same {
            return Ok(());
        }
        let forked = JoinedProblem::Forked { log_id: self.source.log_id(), sequence: there.sequence };
        Err(store.error(forked).into())
    }

    /// Writes the records of ranges that the store has lost, all of them after `after` and up to `last`.
    async fn write_again(
        &mut self,
        store: &mut JoinedStore,
        missing: &[(u64, u64)],
        mut after: u64,
        last: u64,
    ) -> Result<(), ForwardError> {
        let first = after + 1;
        let is_missing =
            |sequence: u64| missing.iter().any(|(first, last)| (*first..=*last).contains(&sequence));
        while after < last {
            let mut rows = self.source.rows(after, None).await?;
            let Some(newest) = rows.last() else { break };
            after = newest.stored.sequence;
            rows.retain(|row| is_missing(row.stored.sequence));
            if !rows.is_empty() {
                store.append(self.source.log_id(), &rows).await?;
                self.status.send_modify(|status| status.records += rows.len() as u64);
            }
        }
        warn!(first, last, "the joined audit store had lost records, which were written again");
        Ok(())
    }

    fn lost_for_good(&self, store: &JoinedStore, missing: u64) {
        if missing > self.status.borrow().lost {
            let store = store.shown();
            warn!(%store, missing, "the joined audit store lost records, and cannot take them again in their place");
        }
        self.status.send_modify(|status| status.lost = missing);
    }

    /// Shows that records have waited since then, or that none waits.
    fn show(&self, since: Option<Instant>) {
        let is_behind = since.is_some_and(|since| since.elapsed() >= BEHIND_AFTER);
        self.status.send_if_modified(|status| {
            let behind = match status.lost {
                0 => is_behind.then(|| {
                    let words = format!("{} takes records more slowly than they are made", self.target);
                    ("CatchingUp", words)
                }),
                lost => Some((
                    "RecordsLost",
                    format!(
                        "{} lost {lost} records of this log, and cannot take them again in their place; once the messages of this log are \
                         purged there, all that are kept here are written again",
                        self.target
                    ),
                )),
            };
            let changed = status.behind != behind;
            status.behind = behind;
            if since.is_none() {
                status.last_success = Some(SystemTime::now());
            }
            changed
        });
    }

    fn failed(&self, error: &ForwardError) {
        if let Some(count) = self.failures.count(Instant::now().into_std()) {
            warn!(%error, count, "audit records could not be forwarded");
        }
        self.status.send_modify(|status| {
            status.retries += 1;
            status.behind = Some((error.reason(), error.to_string()));
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::testing::*;
    use super::super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn records_that_wait_for_the_joined_store_outlive_their_age() {
        let folder = tempfile::tempdir().unwrap();
        let ahead = Ahead::default();
        let options = AuditOptions {
            max_age: Some(std::time::Duration::from_secs(60)),
            clock: ahead.clock(),
            volume: Arc::new(|_| Ok(Volume { total: 1 << 40, free: 1 << 39 })),
            ..AuditOptions::new(folder.path())
        };
        let log = AuditLog::open(options).unwrap();
        for n in 0..5 {
            log.append_durable(expansion(&n.to_string())).await.unwrap();
        }
        log.shared().hold_after(0);
        ahead.pass(120);
        let maintained = log.status().maintained;
        until(&log, |status| status.maintained > maintained + 1).await;
        assert_eq!(log.status().oldest, 1);
        log.shared().hold_after(3);
        until(&log, |status| status.oldest == 4).await;
        let maintained = log.status().maintained;
        until(&log, |status| status.maintained > maintained + 1).await;
        assert_eq!((log.status().oldest, log.status().evicted.age), (4, 3));
        log.close().await.unwrap();
    }
}
