//! The owner of every long-lived task and thread: knows each by name, learns of its end, panics
//! included, and stops all of them in one order within one deadline.
//!
//! [`Part::ALL`] with [`Part::runs_as`] and [`Part::on_end`] is the table of `ARCHITECTURE.md`, "Parts". Knows nothing of
//! what the parts do.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinError};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::metrics::Metrics;
use crate::backoff::Backoff;
use crate::escape::shown;
use crate::status::{StatusTracker, kind};

/// A long-lived task or thread, or a kind of them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Part {
    /// Accepts connections and answers calls, health included.
    Grpc,
    /// Accepts connections of clients of a gateway, and answers or passes on what they ask.
    Gateway,
    /// Answers probes, metrics and status over HTTP.
    Admin,
    /// Waits for changes of the policy files and reads them.
    Reload,
    /// Follows the files of TLS and the access file.
    Credentials,
    /// Follows the discovery documents of the upstream of a gateway.
    Upstream,
    /// Follows the files of the shadow policy, and compares its answers.
    Shadow,
    /// Writes the audit store.
    AuditWriter,
    /// Writes audit records as JSON lines.
    AuditLines,
    /// Copies audit records to the joined store.
    AuditForward,
    /// Shows the health of the audit as conditions.
    AuditHealth,
    /// Sends spans to a collector.
    Traces,
    /// Serves one connection: HTTP/2 and its limits.
    Connection,
    /// Answers one call, or sends one stream: of the status, of the audit, of health.
    Call,
    /// Writes the log.
    LogWriter,
    /// Tells the service manager what the server does, and answers SIGHUP.
    ServiceManager,
    /// Waits for signals, and ends a shutdown that takes too long.
    Signals,
}

/// What it means that a part ended although it was not told to, or panicked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnEnd {
    /// The process shuts down in order and exits with 1 and the name of the part.
    Exit,
    /// It is started again with backoff; until then this condition holds, for this reason.
    Restart {
        /// The type of the condition.
        condition: &'static str,
        /// Its reason.
        reason: &'static str,
    },
    /// The process continues: this is lost and counted.
    Continue {
        /// What is lost.
        loses: &'static str,
    },
}

impl Part {
    /// Every part, in the order of the documentation.
    pub const ALL: [Self; 17] = [
        Self::Grpc,
        Self::Gateway,
        Self::Admin,
        Self::Reload,
        Self::Credentials,
        Self::Upstream,
        Self::Shadow,
        Self::AuditWriter,
        Self::AuditLines,
        Self::AuditForward,
        Self::AuditHealth,
        Self::Traces,
        Self::Connection,
        Self::Call,
        Self::LogWriter,
        Self::ServiceManager,
        Self::Signals,
    ];

    /// The name in the log, in metrics and in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Gateway => "gateway",
            Self::Admin => "admin",
            Self::Reload => "reload",
            Self::Credentials => "credentials",
            Self::Upstream => "upstream",
            Self::Shadow => "shadow",
            Self::AuditWriter => "audit-writer",
            Self::AuditLines => "audit-lines",
            Self::AuditForward => "audit-forward",
            Self::AuditHealth => "audit-health",
            Self::Traces => "traces",
            Self::Connection => "connection",
            Self::Call => "call",
            Self::LogWriter => "log-writer",
            Self::ServiceManager => "service-manager",
            Self::Signals => "signals",
        }
    }

    /// Whether it is a task or a thread.
    #[must_use]
    pub const fn runs_as(self) -> &'static str {
        match self {
            Self::Grpc
            | Self::Gateway
            | Self::Admin
            | Self::Reload
            | Self::Credentials
            | Self::Upstream
            | Self::Shadow
            | Self::AuditHealth
            | Self::Traces
            | Self::ServiceManager => "task",
            Self::AuditWriter | Self::AuditLines | Self::AuditForward | Self::LogWriter | Self::Signals => {
                "thread"
            }
            Self::Connection | Self::Call => "task each",
        }
    }

    /// What its unexpected end means.
    #[must_use]
    pub const fn on_end(self) -> OnEnd {
        match self {
            Self::Grpc
            | Self::Gateway
            | Self::Admin
            | Self::Reload
            | Self::Credentials
            | Self::AuditWriter
            | Self::ServiceManager
            | Self::Signals => OnEnd::Exit,
            Self::AuditLines => {
                OnEnd::Restart { condition: kind::AUDIT_LINES_STALLED, reason: "AuditLinesEnded" }
            }
            Self::Upstream => OnEnd::Restart { condition: kind::UPSTREAM_STALLED, reason: "UpstreamEnded" },
            Self::AuditForward => {
                OnEnd::Restart { condition: kind::AUDIT_FORWARDING_BEHIND, reason: "ForwardingEnded" }
            }
            Self::Shadow => OnEnd::Restart { condition: kind::SHADOW_STALLED, reason: "ShadowEnded" },
            Self::AuditHealth => {
                OnEnd::Restart { condition: kind::AUDIT_DEGRADED, reason: "AuditHealthUnknown" }
            }
            Self::Traces => OnEnd::Restart { condition: kind::TRACES_STALLED, reason: "TracesEnded" },
            Self::Connection => OnEnd::Continue { loses: "the connection, with the calls on it," },
            Self::Call => {
                OnEnd::Continue { loses: "the answer or the rest of the stream, whose caller gets INTERNAL," }
            }
            Self::LogWriter => OnEnd::Continue { loses: "one line" },
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// How a part ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PartEnd {
    /// It returned.
    Returned,
    /// It returned an error.
    Failed(String),
    /// It panicked, with this message.
    Panicked(String),
}

impl fmt::Display for PartEnd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned => formatter.write_str("it returned"),
            Self::Failed(error) => formatter.write_str(error),
            Self::Panicked(message) => write!(formatter, "panic: {message}"),
        }
    }
}

/// Something that a stop could not finish.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Abandoned {
    /// Whose it was.
    pub part: Part,
    /// What is left undone.
    pub what: String,
}

impl Part {
    /// What is said of it if it did not stop in time.
    const fn left_behind(self) -> &'static str {
        match self {
            Self::AuditLines => {
                "a write did not return: its reader does not read, or the disk does not answer; the lines continue at \
                 the next start"
            }
            _ => "did not stop in time",
        }
    }
}

impl fmt::Display for Abandoned {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.part, self.what)
    }
}

/// The parts that run now. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Roster(Arc<Mutex<Vec<Part>>>);

impl Roster {
    /// The names of the parts, in the order in which they were started.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.parts().iter().map(|part| part.name()).collect()
    }

    fn parts(&self) -> std::sync::MutexGuard<'_, Vec<Part>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hears of parts that ended, wherever they run.
#[derive(Clone, Debug)]
pub struct Reporter {
    tracker: Arc<StatusTracker>,
    metrics: Metrics,
}

impl Reporter {
    /// Joins those who show what happened.
    #[must_use]
    pub const fn new(tracker: Arc<StatusTracker>, metrics: Metrics) -> Self {
        Self { tracker, metrics }
    }

    /// A part ended although it was not told to.
    pub fn ended(&self, part: Part, end: &PartEnd) {
        error!(%part, %end, "part ended unexpectedly");
        self.metrics.part_ended(part.name());
        if let OnEnd::Restart { condition, reason } = part.on_end() {
            let message =
                format!("{part} ended unexpectedly and is started again: {}", shown(&end.to_string()));
            self.tracker.toggle(condition, Some((reason, message)), SystemTime::now());
        }
    }
}

/// What a part of the process returns in the end: nothing, or why it failed.
pub type PartResult = Result<(), String>;

/// Owns the parts of a process.
#[derive(Debug)]
pub struct Supervisor {
    reporter: Reporter,
    roster: Roster,
    running: Vec<Running>,
    ended: mpsc::UnboundedSender<(Part, PartEnd)>,
    ends: mpsc::UnboundedReceiver<(Part, PartEnd)>,
}

#[derive(Debug)]
struct Running {
    part: Part,
    stop: CancellationToken,
    task: AbortHandle,
}

impl Supervisor {
    /// Owns nothing yet.
    #[must_use]
    pub fn new(reporter: Reporter, roster: Roster) -> Self {
        let (ended, ends) = mpsc::unbounded_channel();
        Self { reporter, roster, running: Vec::new(), ended, ends }
    }

    /// Runs a task until it ends. `make` gets what tells it to stop.
    pub fn task<F>(&mut self, part: Part, make: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = PartResult> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = tokio::spawn(make(stop.clone()));
        self.own(part, stop, async move { end_of(task.await) });
    }

    /// Runs a task, and runs it again with backoff if it ends before it was told to.
    pub fn restarting_task<F>(
        &mut self,
        part: Part,
        mut make: impl FnMut(CancellationToken) -> F + Send + 'static,
    ) where
        F: Future<Output = PartResult> + Send + 'static,
    {
        self.restarting(part, move |stop| {
            let task = tokio::spawn(make(stop));
            async move { end_of(task.await) }
        });
    }

    /// Runs a thread, and runs it again with backoff if it ends before it was told to. `work` blocks.
    pub fn restarting_thread<W>(
        &mut self,
        part: Part,
        mut make: impl FnMut(CancellationToken) -> W + Send + 'static,
    ) where
        W: FnOnce() -> PartResult + Send + 'static,
    {
        self.restarting(part, move |stop| {
            let work = make(stop);
            let (sender, ended) = tokio::sync::oneshot::channel();
            let started = std::thread::Builder::new().name(part.name().to_owned()).spawn(move || {
                let end = match catch_unwind(AssertUnwindSafe(work)) {
                    Ok(outcome) => outcome.map_or_else(PartEnd::Failed, |()| PartEnd::Returned),
                    Err(payload) => PartEnd::Panicked(text_of(&*payload)),
                };
                // Nobody listens if the stop did not wait for it.
                _ = sender.send(end);
            });
            async move {
                match started {
                    Err(error) => PartEnd::Failed(format!("could not start a thread: {error}")),
                    Ok(_) => ended.await.unwrap_or(PartEnd::Panicked(String::new())),
                }
            }
        });
    }

    fn restarting<F>(&mut self, part: Part, mut start: impl FnMut(CancellationToken) -> F + Send + 'static)
    where
        F: Future<Output = PartEnd> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let reporter = self.reporter.clone();
        let told = stop.clone();
        self.own(part, stop, async move {
            let mut backoff = Backoff::new(FIRST_RESTART, LONGEST_RESTART);
            loop {
                let started = Instant::now();
                let end = start(told.clone()).await;
                if told.is_cancelled() {
                    return end;
                }
                reporter.ended(part, &end);
                if started.elapsed() > LONGEST_RESTART {
                    backoff.reset();
                }
                tokio::select! {
                    () = sleep(backoff.failed()) => info!(%part, "part is started again"),
                    () = told.cancelled() => return PartEnd::Returned,
                }
            }
        });
    }

    fn own(
        &mut self,
        part: Part,
        stop: CancellationToken,
        until_end: impl Future<Output = PartEnd> + Send + 'static,
    ) {
        let (ended, roster) = (self.ended.clone(), self.roster.clone());
        roster.parts().push(part);
        let task = tokio::spawn(async move {
            let end = until_end.await;
            roster.parts().retain(|running| *running != part);
            // The supervisor is gone if the process ends without it.
            _ = ended.send((part, end));
        });
        self.running.push(Running { part, stop, task: task.abort_handle() });
    }

    /// Waits until a part ends that was not told to; it is reported already.
    pub async fn unexpected_end(&mut self) -> (Part, PartEnd) {
        match self.ends.recv().await {
            Some((part, end)) => {
                self.running.retain(|running| running.part != part);
                self.reporter.ended(part, &end);
                (part, end)
            }
            // Not reached: this has a sender itself.
            None => std::future::pending().await,
        }
    }

    /// Tells parts to stop and waits until they have, but no longer than `until`. Returns what they left
    /// undone; parts that do not run are no matter.
    pub async fn stop(&mut self, parts: &[Part], until: Instant) -> Vec<Abandoned> {
        let (mut waiting, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.running).into_iter().partition(|running| parts.contains(&running.part));
        self.running = others;
        for running in &waiting {
            running.stop.cancel();
        }
        let mut abandoned = Vec::new();
        while !waiting.is_empty() {
            let Ok(Some((part, end))) = timeout_at(until, self.ends.recv()).await else {
                break;
            };
            waiting.retain(|running| running.part != part);
            self.running.retain(|running| running.part != part);
            let what = match end {
                PartEnd::Returned if parts.contains(&part) => continue,
                PartEnd::Returned => "ended unexpectedly during the shutdown".to_owned(),
                PartEnd::Failed(error) => error,
                PartEnd::Panicked(message) => format!("panic: {message}"),
            };
            abandoned.push(Abandoned { part, what });
        }
        for Running { part, task, .. } in waiting {
            task.abort();
            abandoned.push(Abandoned { part, what: part.left_behind().to_owned() });
        }
        for left in &abandoned {
            warn!(part = %left.part, what = left.what, "not stopped cleanly");
        }
        abandoned
    }
}

fn end_of(joined: Result<PartResult, JoinError>) -> PartEnd {
    match joined {
        Ok(Ok(())) => PartEnd::Returned,
        Ok(Err(error)) => PartEnd::Failed(error),
        Err(error) => match error.try_into_panic() {
            Ok(payload) => PartEnd::Panicked(text_of(&*payload)),
            Err(error) => PartEnd::Failed(error.to_string()),
        },
    }
}

/// The message of a panic.
pub(super) fn text_of(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or_default().to_owned()
}

/// The wait before a part is started again, doubled up to the longest.
const FIRST_RESTART: Duration = Duration::from_millis(100);
const LONGEST_RESTART: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{AuditLog, AuditOptions};
    use tokio::sync::watch;

    use crate::server::metrics::{AuditFigures, commit_histogram};

    struct Fixture {
        supervisor: Supervisor,
        roster: Roster,
        tracker: Arc<StatusTracker>,
        metrics: Metrics,
        _folder: tempfile::TempDir,
    }

    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let log = AuditLog::open(AuditOptions::new(folder.path())).unwrap();
        let tracker = Arc::new(StatusTracker::new("policies".into(), false, SystemTime::now()));
        let pressure = crate::server::pressure::Pressure::new(&Default::default());
        let metrics = Metrics::new(
            Arc::clone(&tracker),
            AuditFigures { log, commits: commit_histogram(), forward: watch::channel(Default::default()).1 },
            Default::default(),
            &pressure,
            &Default::default(),
        );
        let roster = Roster::default();
        let reporter = Reporter::new(Arc::clone(&tracker), metrics.clone());
        let supervisor = Supervisor::new(reporter, roster.clone());
        Fixture { supervisor, roster, tracker, metrics, _folder: folder }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[test]
    fn the_architecture_shows_the_table() {
        let rows = Part::ALL.map(|part| {
            let end = match part.on_end() {
                OnEnd::Exit => "the process stops in order, names it and exits with 1".to_owned(),
                OnEnd::Restart { condition, reason } => {
                    format!(
                        "it is started again with backoff; condition `{condition}` (`{reason}`) until then"
                    )
                }
                OnEnd::Continue { loses } => format!("the process continues; {loses} is lost and counted"),
            };
            format!("| `{part}` | {} | {end} |\n", part.runs_as())
        });
        let head = "| part | runs as | what it means if it ends although it was not told to, or panics |\n| --- | --- | --- |\n";
        let table = format!("{head}{}\n", rows.concat());
        assert!(
            include_str!("../../ARCHITECTURE.md").contains(&table),
            "ARCHITECTURE.md should have:\n{table}"
        );
    }

    #[tokio::test]
    async fn a_part_that_ends_or_panics_is_noticed_by_name() {
        let mut fixture = fixture();
        fixture.supervisor.task(Part::Admin, |stop| async move {
            stop.cancelled().await;
            Ok(())
        });
        fixture.supervisor.task(Part::Reload, |_| async { panic!("for the test") });
        let ended = fixture.supervisor.unexpected_end().await;
        assert_eq!(ended, (Part::Reload, PartEnd::Panicked("for the test".to_owned())));
        fixture.supervisor.task(Part::Grpc, |_| async { Err("no more".to_owned()) });
        assert_eq!(
            fixture.supervisor.unexpected_end().await,
            (Part::Grpc, PartEnd::Failed("no more".to_owned()))
        );
        assert_eq!(fixture.roster.names(), ["admin"]);
        let rendered = fixture.metrics.render();
        assert!(rendered.contains("scopeward_part_unexpected_ends_total{part=\"reload\"} 1"), "{rendered}");
        assert_eq!(fixture.supervisor.stop(&Part::ALL, soon()).await, []);
        assert!(fixture.roster.names().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn parts_that_restart_show_a_condition_and_run_again() {
        let mut fixture = fixture();
        let (runs, mut started) = mpsc::unbounded_channel();
        let mut count = 0;
        fixture.supervisor.restarting_task(Part::AuditHealth, move |stop| {
            count += 1;
            runs.send(count).unwrap();
            let panics = count < 3;
            async move {
                assert!(!panics, "for the test");
                stop.cancelled().await;
                Ok(())
            }
        });
        for run in 1..=3 {
            assert_eq!(started.recv().await, Some(run));
        }
        let conditions = fixture.tracker.snapshot().conditions.clone();
        let shown = conditions.iter().find(|condition| condition.kind == kind::AUDIT_DEGRADED).unwrap();
        assert_eq!(shown.reason, "AuditHealthUnknown");
        assert!(shown.message.contains("for the test"), "{}", shown.message);
        assert_eq!(fixture.supervisor.stop(&[Part::AuditHealth], soon()).await, []);
    }

    #[tokio::test]
    async fn threads_that_panic_or_return_are_started_again() {
        let mut fixture = fixture();
        let (runs, mut started) = mpsc::unbounded_channel();
        let mut count = 0;
        fixture.supervisor.restarting_thread(Part::AuditLines, move |stop| {
            count += 1;
            let (count, runs) = (count, runs.clone());
            move || {
                runs.send(count).unwrap();
                match count {
                    1 => panic!("for the test"),
                    2 => Err("an error".to_owned()),
                    _ => {
                        while !stop.is_cancelled() {
                            std::thread::yield_now();
                        }
                        Err("lines are left".to_owned())
                    }
                }
            }
        });
        for run in 1..=3 {
            assert_eq!(started.recv().await, Some(run));
        }
        let left = fixture.supervisor.stop(&[Part::AuditLines], soon()).await;
        assert_eq!(left, [Abandoned { part: Part::AuditLines, what: "lines are left".to_owned() }]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_leaves_behind_what_does_not_end_and_says_so() {
        let mut fixture = fixture();
        fixture.supervisor.task(Part::Grpc, |_| std::future::pending());
        fixture.supervisor.task(Part::Admin, |stop| async move {
            stop.cancelled().await;
            panic!("at the end");
        });
        let left = fixture.supervisor.stop(&[Part::Grpc, Part::Admin, Part::Reload], soon()).await;
        let left: Vec<String> = left.iter().map(ToString::to_string).collect();
        assert_eq!(left, ["admin: panic: at the end", "grpc: did not stop in time"]);
    }
}
