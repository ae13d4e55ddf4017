//! The whole service, put together: from settings to parts, and the parts to the supervisor.
//!
//! What it means if a part ends is the supervisor's to know.

use std::fmt;
use std::fs;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinError;
use tokio::time::Instant;
use tracing::info;

use super::audit_health::{Show, log_start};
use super::config::Config;
use super::lifecycle::Lifecycle;
use super::metrics::{Metrics, ProcessCounters, commit_histogram};
use super::pressure::Pressure;
use super::recorder::{AuditMode, AuditRecorder};
use super::reload::{self, Reloader, StartError};
use super::supervisor::{Abandoned, Part, PartEnd, Reporter, Roster, Supervisor};
use super::{Listeners, ServerError, Services, admin, descriptors, require_loopback, run};
use crate::audit::jsonl::{Jsonl, JsonlOptions, JsonlTarget};
use crate::audit::{AuditError, AuditLog, AuditOptions};
use crate::escape::shown;
use crate::rpc::audit::Audit;
use crate::rpc::count::DecisionCounts;
use crate::rpc::policy_status::{PolicyStatus, StatusMessages};
use crate::rpc::scope_policy::ScopePolicy;
use crate::rpc::v1::audit_service_server::AuditServiceServer;
use crate::status::StatusTracker;
use crate::store::Current;
use crate::store::load::Loader;
use crate::store::read::ReadSettings;
use crate::store::watch::{FolderWatch, Hints};

/// Everything that the operator can set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The gRPC server.
    pub server: Config,
    /// Where the admin endpoint listens. Port 0 picks a free one. Default `127.0.0.1:50552`.
    pub admin_listen: SocketAddr,
    /// The policy directory. Default `policies`.
    pub policies: PathBuf,
    /// Where state is kept: last good policy and audit log. Default `.scopeward`.
    pub state_dir: PathBuf,
    /// How long file events must pause before a look. Default 150 ms.
    pub debounce: Duration,
    /// How long a policy that takes something away must stand still. Default 2 s.
    pub removal_quiet: Duration,
    /// How often to look without events. Default 30 s.
    pub rescan_interval: Duration,
    /// Whether links out of the policy directory are followed. Default false.
    pub allow_outside_links: bool,
    /// Whether a start with a broken policy serves the last good one. Default false.
    pub start_from_last_good: bool,
    /// How long a shutdown may take, over everything. What is left then is abandoned. Default 20 s.
    pub shutdown_timeout: Duration,
    /// The audit log.
    pub audit: AuditSettings,
    /// What the process counts from its start on, for the metrics.
    pub process: ProcessCounters,
    /// The parts that run are listed here.
    pub roster: Roster,
    /// For tests of what happens when a part panics.
    #[doc(hidden)]
    pub fault: Fault,
}

/// Called by parts at work with their name, so that a test can let them panic.
#[doc(hidden)]
#[derive(Clone, Default)]
pub struct Fault(pub Option<Arc<dyn Fn(Part) + Send + Sync>>);

impl Fault {
    fn at(&self, part: Part) {
        if let Self(Some(fault)) = self {
            fault(part);
        }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Fault").field(&self.0.is_some()).finish()
    }
}

/// What the operator can set for the audit log.
#[derive(Clone, Debug)]
pub struct AuditSettings {
    /// Whether expansions wait until their record is durable. Default: they do.
    pub mode: AuditMode,
    /// Records older than this are deleted; `None` keeps them. Default 30 days.
    pub retention: Option<Duration>,
    /// The store stays under this many bytes; `None` means no limit. Default 1 GiB.
    pub max_bytes: Option<u64>,
    /// How many denials are recorded in a second, in a burst ten times that. Default 200.
    pub denials_per_second: u32,
    /// Whether a broken store is moved aside and a new log opened. Default: it stops the start.
    pub set_aside_broken: bool,
    /// Where records are also written as JSON lines. Default: nowhere.
    pub jsonl: Option<JsonlTarget>,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self {
            mode: AuditMode::Blocking,
            retention: Some(Duration::from_secs(30 * 24 * 60 * 60)),
            max_bytes: Some(1 << 30),
            denials_per_second: 200,
            set_aside_broken: false,
            jsonl: None,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            server: Config::default(),
            admin_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 50552)),
            policies: PathBuf::from("policies"),
            state_dir: PathBuf::from(".scopeward"),
            debounce: Duration::from_millis(150),
            removal_quiet: Duration::from_secs(2),
            rescan_interval: Duration::from_secs(30),
            allow_outside_links: false,
            start_from_last_good: false,
            shutdown_timeout: Duration::from_secs(20),
            audit: AuditSettings::default(),
            process: ProcessCounters::default(),
            roster: Roster::default(),
            fault: Fault::default(),
        }
    }
}

/// Why the service could not start, or did not run until it was told to stop.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// There is no policy to serve.
    #[error(transparent)]
    Policy(#[from] StartError),
    /// The gRPC server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The state directory cannot be used.
    #[error("could not use the state directory `{}`: {source}", shown(&path.to_string_lossy()))]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The audit log cannot be opened.
    #[error("could not open the audit log: {0}")]
    Audit(#[from] AuditError),
    /// The audit lines cannot be written.
    #[error("could not open the audit lines: {0}")]
    Lines(AuditError),
    /// A step of the start panicked.
    #[error("{step} failed: {source}")]
    Start {
        /// Which one.
        step: &'static str,
        /// How.
        source: JoinError,
    },
    /// Signals cannot be caught.
    #[error("could not catch signals: {0}")]
    Signal(std::io::Error),
    /// A part ended that must not. Everything else was stopped in order, as far as it could be.
    #[error("{part} ended unexpectedly: {end}")]
    Ended {
        /// Which one.
        part: Part,
        /// How.
        end: PartEnd,
        /// What the stop could not finish.
        abandoned: Vec<Abandoned>,
    },
}

/// A service that is loaded and bound and not yet running.
#[derive(Debug)]
pub struct App {
    config: Config,
    listeners: Listeners,
    admin: TcpListener,
    admin_addr: SocketAddr,
    tracker: Arc<StatusTracker>,
    current: Current,
    metrics: Metrics,
    reloader: Reloader,
    folders: FolderWatch,
    hints: Hints,
    hangup: Signal,
    log: AuditLog,
    recorder: AuditRecorder,
    decisions: DecisionCounts,
    /// Opened already, so that what is wrong with it stops the start.
    lines: Option<(Jsonl, JsonlOptions)>,
    shutdown_timeout: Duration,
    roster: Roster,
}

impl App {
    /// Binds the addresses and loads the policy.
    ///
    /// # Errors
    /// [`AppError`] if an address cannot be bound, the state directory or the target of the audit lines
    /// cannot be used, or there is no valid policy.
    pub async fn start(settings: Settings) -> Result<Self, AppError> {
        let (mut opened, timeout) = (None, settings.shutdown_timeout);
        let started = Self::open(settings, &mut opened).await;
        if let (Err(_), Some(log)) = (&started, opened) {
            // The state directory is free again when the caller hears of the failure.
            _ = log.close_by(Instant::now() + timeout).await;
        }
        started
    }

    async fn open(settings: Settings, opened: &mut Option<AuditLog>) -> Result<Self, AppError> {
        let Settings {
            server: mut config,
            admin_listen,
            policies,
            state_dir,
            debounce,
            removal_quiet,
            rescan_interval,
            allow_outside_links,
            start_from_last_good,
            shutdown_timeout,
            audit,
            process,
            roster,
            fault,
        } = settings;
        // Caught before anybody is told that there is a server: uncaught, it would end the process.
        let hangup = signal(SignalKind::hangup()).map_err(AppError::Signal)?;
        // Before anything is opened: connections must not take the descriptors that files need.
        let open_files = descriptors::raise_limit();
        config.limits.max_connections =
            descriptors::connection_limit(config.limits.max_connections, open_files);
        let listeners = Listeners::bind(&config).await?;
        require_loopback(admin_listen, config.insecure_allow_remote_plaintext)?;
        let bind = |source| ServerError::Bind { addr: admin_listen, source };
        let admin = TcpListener::bind(admin_listen).await.map_err(bind)?;
        let admin_addr = admin.local_addr().map_err(bind)?;
        let unusable = |source| AppError::StateDir { path: state_dir.clone(), source };
        // Only for the owner: the audit log holds what clients said of themselves.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&state_dir).map_err(unusable)?;

        let read = ReadSettings { allow_outside_links, ..ReadSettings::default() };
        let loader = Loader::new(vec![policies], read);
        let tracker = Arc::new(StatusTracker::new(
            Arc::clone(loader.source()),
            start_from_last_good,
            SystemTime::now(),
        ));
        let AuditSettings { mode, retention, max_bytes, denials_per_second, set_aside_broken, jsonl } = audit;
        let commits = commit_histogram();
        let options = AuditOptions {
            max_age: retention,
            max_bytes,
            denials_per_second: Some(denials_per_second),
            set_aside_broken,
            commit_observer: Some({
                let (commits, fault) = (commits.clone(), fault.clone());
                Arc::new(move |took, _| {
                    commits.observe(took.as_secs_f64());
                    fault.at(Part::AuditWriter);
                })
            }),
            ..AuditOptions::new(&state_dir)
        };
        let log = blocking("opening the audit log", move || AuditLog::open(options)).await??;
        *opened = Some(log.clone());
        log_start(&log);
        let decisions = DecisionCounts::default();
        let pressure = Pressure::new(&config.limits);
        let metrics = Metrics::new(Arc::clone(&tracker), &log, commits, process, &pressure, &decisions);
        let lines = match jsonl {
            None => None,
            Some(target) => {
                let metrics = metrics.clone();
                let options = JsonlOptions {
                    observer: Some(Arc::new(move |lines| {
                        metrics.audit_lines(lines);
                        fault.at(Part::AuditLines);
                    })),
                    ..JsonlOptions::new(target, &state_dir)
                };
                let (log, kept) = (log.clone(), options.clone());
                let opened = blocking("opening the audit lines", move || Jsonl::open(log, kept)).await?;
                Some((opened.map_err(AppError::Lines)?, options))
            }
        };
        let recorder = AuditRecorder::new(log.clone(), mode);
        let current = Current::default();
        let hints = Hints::new(debounce, rescan_interval);
        let mut reloader = Reloader::new(
            loader,
            removal_quiet,
            Arc::clone(&current),
            Arc::clone(&tracker),
            metrics.clone(),
            {
                let recorder = recorder.clone();
                Box::new(move |change| recorder.policy_change(change))
            },
            state_dir,
            start_from_last_good,
        );
        let mut folders = FolderWatch::new(hints.clone());
        let (reloader, folders) = blocking("the first load", move || {
            // What falls between the two is seen by the first look of the task.
            reloader.start()?;
            folders.arm(reloader.watch_targets());
            Ok::<_, StartError>((reloader, folders))
        })
        .await??;
        Ok(Self {
            config,
            listeners,
            admin,
            admin_addr,
            tracker,
            current,
            metrics,
            reloader,
            folders,
            hints,
            hangup,
            log,
            recorder,
            decisions,
            lines,
            shutdown_timeout,
            roster,
        })
    }

    /// The real address of the gRPC server.
    #[must_use]
    pub fn grpc_addr(&self) -> SocketAddr {
        self.listeners.grpc_addr()
    }

    /// The real address of the admin endpoint.
    #[must_use]
    pub const fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// The digest and the number of audiences of the policy that serves.
    #[must_use]
    pub fn policy(&self) -> (String, usize) {
        let active = self.current.load();
        active.as_ref().map_or_else(Default::default, |active| {
            (active.set.digest().to_string(), active.set.audiences().len())
        })
    }

    /// Serves until `shutdown`, then stops everything in order within the shutdown timeout.
    ///
    /// # Errors
    /// [`AppError::Ended`] if a part ends that must not; everything else was stopped then.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<Stopped, AppError> {
        let (tracker, timeout) = (Arc::clone(&self.tracker), self.shutdown_timeout);
        let lifecycle = Lifecycle::new();
        let mut supervisor = self.hand_over(&lifecycle);
        lifecycle.serve();
        let ended = tokio::select! {
            () = shutdown => None,
            ended = supervisor.unexpected_end() => Some(ended),
        };
        info!(?timeout, "stopping");
        tracker.drain(SystemTime::now());
        lifecycle.drain();
        let abandoned = stop(&mut supervisor, timeout).await;
        match ended {
            None => Ok(Stopped { abandoned }),
            Some((part, end)) => Err(AppError::Ended { part, end, abandoned }),
        }
    }

    /// Starts every part.
    fn hand_over(self, lifecycle: &Lifecycle) -> Supervisor {
        let Self {
            mut config,
            listeners,
            admin,
            admin_addr: _,
            tracker,
            current,
            metrics,
            reloader,
            folders,
            hints,
            hangup,
            log,
            recorder,
            decisions,
            lines,
            shutdown_timeout,
            roster,
        } = self;
        config.drain_deadline = shutdown_timeout.mul_f64(CALLS_BY);
        let reporter = Reporter::new(Arc::clone(&tracker), metrics.clone());
        let mut supervisor = Supervisor::new(reporter, roster);
        let draining = lifecycle.draining();
        let messages = StatusMessages::new(Arc::clone(&tracker));
        let services = Services::new(lifecycle)
            .counted_by(metrics.pressure())
            .with(
                ScopePolicy::new(current)
                    .with_recorder(Arc::new(recorder))
                    .with_counts(decisions)
                    .into_server(),
            )
            .with(AuditServiceServer::new(Audit::new(log.clone(), draining.clone())))
            .with(PolicyStatus::new(messages.clone(), draining.clone()).into_server());

        let close = shutdown_timeout.mul_f64(CLOSE);
        supervisor.task(Part::AuditWriter, |stop| {
            let log = log.clone();
            async move {
                tokio::select! {
                    () = log.ended() => Err("the audit store is no longer written".to_owned()),
                    () = stop.cancelled() => log.close_by(Instant::now() + close).await.map_err(|error| error.to_string()),
                }
            }
        });
        let show = Show {
            log: log.clone(),
            lines: lines.as_ref().map(|(_, options)| options.health.subscribe()),
            tracker: Arc::clone(&tracker),
        };
        supervisor.restarting_task(Part::AuditHealth, move |stop| {
            let show = show.clone();
            async move {
                show.run(stop).await;
                Ok(())
            }
        });
        if let Some((first, options)) = lines {
            let (mut first, runtime) = (Some(first), Handle::current());
            supervisor.restarting_thread(Part::AuditLines, move |stop| {
                let (first, log) = (first.take(), log.clone());
                let (options, runtime) = (options.clone(), runtime.clone());
                move || {
                    let lines = first.map_or_else(|| Jsonl::open(log, options), Ok);
                    lines.and_then(|lines| lines.run(&runtime, &stop)).map_err(|error| error.to_string())
                }
            });
        }
        supervisor.task(Part::Admin, |stop| {
            let serving = admin::serve(admin, messages, metrics.clone(), stop.cancelled_owned());
            async { serving.await.map_err(|error| error.to_string()) }
        });
        let reload = reload::task::Task { reloader, folders, hints, hangup, tracker, metrics };
        supervisor
            .task(Part::Reload, |stop| async { reload.run(stop).await.map_err(|error| error.to_string()) });
        supervisor.task(Part::Grpc, |stop| async {
            let drained = run(config, services, listeners, stop.cancelled_owned()).await;
            match drained.map_err(|error| error.to_string())?.cut_connections {
                0 => Ok(()),
                cut => Err(format!("{cut} connections were cut off with calls in flight")),
            }
        });
        supervisor
    }
}

/// How a service stopped that was told to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stopped {
    /// What could not be finished within the shutdown timeout; empty if everything was.
    pub abandoned: Vec<Abandoned>,
}

/// The one order of a shutdown. Each step may take until a part of the whole time is over, so that none
/// takes the time of those after it: calls and streams end; nothing changes the policy any more, and what
/// is durable is written as lines; the audit is flushed and closed; the rest stops.
async fn stop(supervisor: &mut Supervisor, timeout: Duration) -> Vec<Abandoned> {
    let began = Instant::now();
    let mut abandoned = Vec::new();
    for (parts, by) in [
        (&[Part::Grpc][..], CALLS_BY + CUT_BY),
        (&[Part::Reload, Part::AuditLines], 0.7),
        (&[Part::AuditWriter], 0.9),
        (&[Part::AuditHealth, Part::Admin], 0.95),
    ] {
        abandoned.extend(supervisor.stop(parts, began + timeout.mul_f64(by)).await);
    }
    abandoned
}

/// When calls in flight are cut off, as a part of the shutdown timeout.
const CALLS_BY: f64 = 0.5;
/// How long their connections may take to end then, as a part of the shutdown timeout.
const CUT_BY: f64 = 0.05;
/// How long the audit may take to close, as a part of the shutdown timeout.
const CLOSE: f64 = 0.18;

async fn blocking<T: Send + 'static>(
    step: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, AppError> {
    tokio::task::spawn_blocking(work).await.map_err(|source| AppError::Start { step, source })
}
