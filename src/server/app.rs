//! The whole service, put together: policy, reload, status, metrics, gRPC and admin endpoint.
//!
//! Every long-lived task is awaited here; if one ends by itself, the process ends with the reason.

use std::fs;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::config::Config;
use super::lifecycle::Lifecycle;
use super::metrics::{Metrics, commit_histogram};
use super::recorder::{AuditMode, AuditRecorder};
use super::reload::{Reloader, StartError};
use super::{Drained, Listeners, ServerError, Services, admin, reload, require_loopback, run};
use crate::audit::jsonl::{Jsonl, JsonlOptions, JsonlTarget};
use crate::audit::{AuditError, AuditHealth, AuditLog, AuditOptions};
use crate::policy::finding::shown;
use crate::rpc::audit::Audit;
use crate::rpc::policy_status::{PolicyStatus, StatusMessages};
use crate::rpc::scope_policy::ScopePolicy;
use crate::rpc::v1::audit_service_server::AuditServiceServer;
use crate::status::{StatusTracker, kind};
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
    /// The audit log.
    pub audit: AuditSettings,
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
    /// Where records are also written as JSON lines. Default: nowhere.
    pub jsonl: Option<JsonlTarget>,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self {
            mode: AuditMode::Blocking,
            retention: Some(Duration::from_secs(30 * 24 * 60 * 60)),
            max_bytes: Some(1 << 30),
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
            audit: AuditSettings::default(),
        }
    }
}

/// Why the service could not start, or ended by itself.
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
    /// The admin endpoint ended.
    #[error("the admin endpoint ended by itself: {0}")]
    Admin(std::io::Error),
    /// A task ended that must not.
    #[error("{task} ended by itself: {source}")]
    Task {
        /// Which one.
        task: &'static str,
        /// How.
        source: JoinError,
    },
    /// A task stopped in order before it was told to.
    #[error("{task} stopped before it was told to")]
    Stopped {
        /// Which one.
        task: &'static str,
    },
    /// Signals cannot be caught.
    #[error("could not catch signals: {0}")]
    Signal(std::io::Error),
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
    lifecycle: Lifecycle,
    reloader: Reloader,
    folders: FolderWatch,
    hints: Hints,
    hangup: Signal,
    log: AuditLog,
    recorder: AuditRecorder,
    jsonl: Option<Jsonl>,
}

impl App {
    /// Binds the addresses and loads the policy.
    ///
    /// # Errors
    /// [`AppError`] if an address cannot be bound, the state directory cannot be used, or there is no
    /// valid policy.
    pub async fn start(settings: Settings) -> Result<Self, AppError> {
        let Settings {
            server: config,
            admin_listen,
            policies,
            state_dir,
            debounce,
            removal_quiet,
            rescan_interval,
            allow_outside_links,
            start_from_last_good,
            audit,
        } = settings;
        // Caught before anybody is told that there is a server: uncaught, it would end the process.
        let hangup = signal(SignalKind::hangup()).map_err(AppError::Signal)?;
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
        let AuditSettings { mode, retention, max_bytes, jsonl } = audit;
        let commits = commit_histogram();
        let observed = commits.clone();
        let options = AuditOptions {
            max_age: retention,
            max_bytes,
            commit_observer: Some(Arc::new(move |took, _| observed.observe(took.as_secs_f64()))),
            ..AuditOptions::new(&state_dir)
        };
        let log = blocking("opening the audit log", move || AuditLog::open(options)).await??;
        log_start(&log);
        let jsonl = match jsonl {
            None => None,
            Some(target) => {
                let (log, options) = (log.clone(), JsonlOptions::new(target, &state_dir));
                Some(blocking("opening the audit lines", move || Jsonl::open(log, options)).await??)
            }
        };
        let recorder = AuditRecorder::new(log.clone(), mode);
        let metrics = Metrics::new(Arc::clone(&tracker), &log, commits);
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
        let lifecycle = Lifecycle::new();
        Ok(Self {
            config,
            listeners,
            admin,
            admin_addr,
            tracker,
            current,
            metrics,
            lifecycle,
            reloader,
            folders,
            hints,
            hangup,
            log,
            recorder,
            jsonl,
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

    /// Serves until `shutdown`, then drains.
    ///
    /// # Errors
    /// [`AppError`] if a part of the service ends by itself.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<Drained, AppError> {
        let Self {
            config,
            listeners,
            admin,
            admin_addr: _,
            tracker,
            current,
            metrics,
            lifecycle,
            reloader,
            folders,
            hints,
            hangup,
            log,
            recorder,
            jsonl,
        } = self;
        let stop = CancellationToken::new();
        let messages = StatusMessages::new(Arc::clone(&tracker));
        let status = PolicyStatus::new(messages.clone(), lifecycle.draining().clone());
        let services = Services::new(&lifecycle)
            .with(ScopePolicy::new(current).with_recorder(Arc::new(recorder)).into_server())
            .with(AuditServiceServer::new(Audit::new(log.clone(), lifecycle.draining().clone())))
            .with(status.into_server());
        lifecycle.serve();

        let reload = reload::task::Task {
            reloader,
            folders,
            hints,
            hangup,
            tracker: Arc::clone(&tracker),
            metrics: metrics.clone(),
        };
        let mut reload = tokio::spawn(reload.run(stop.clone()));
        let health = tokio::spawn(show_health(log.clone(), Arc::clone(&tracker), stop.clone()));
        let mut admin = tokio::spawn(admin::serve(admin, messages, metrics, stop.clone().cancelled_owned()));
        // Trouble of a shipper is no reason to refuse logins: the store has every record, and the lines go
        // on where they ended at the next start.
        let lines = jsonl.map(|jsonl| {
            let stop = stop.clone();
            tokio::spawn(async move {
                if let Err(error) = jsonl.run(stop).await {
                    error!(%error, "audit lines are no longer written; they go on at the next start");
                }
            })
        });
        let shutdown = async {
            shutdown.await;
            tracker.drain(SystemTime::now());
        };
        let mut ended = None;
        let drained = tokio::select! {
            drained = run(config, services, listeners, shutdown) => drained.map_err(AppError::from),
            result = &mut reload => { ended = Some("reload"); Err(early("reload", result.map(|ended| ended.map_err(|source| AppError::Task { task: "reload", source })))) }
            result = &mut admin => {
                ended = Some("admin");
                Err(early("the admin endpoint", result.map(|ended| ended.map_err(AppError::Admin))))
            }
        };
        stop.cancel();
        if ended != Some("reload")
            && let Err(source) = reload.await
        {
            warn!(%source, "reload did not end in order");
        }
        if ended != Some("admin")
            && let Err(source) = admin.await
        {
            warn!(%source, "the admin endpoint did not end in order");
        }
        if let Err(source) = health.await {
            warn!(%source, "the audit's health was not shown to the end");
        }
        if let Some(lines) = lines
            && let Err(source) = lines.await
        {
            warn!(%source, "the audit lines did not end in order");
        }
        // Last: everything that may still record has ended.
        if let Err(error) = log.close_by(Instant::now() + AUDIT_CLOSE).await {
            warn!(%error, "audit events were not written, the next start counts them in a gap");
        }
        drained
    }
}

/// How long closing the audit log may take.
const AUDIT_CLOSE: Duration = Duration::from_secs(10);

/// Says what the start of the audit log found.
fn log_start(log: &AuditLog) {
    let report = log.start_report();
    let head = log.head();
    info!(log_id = %log.log_id(), sequence = head.sequence, created = report.created, "audit log open");
    if report.torn_bytes > 0 || report.damaged > 0 || report.lost > 0 || report.unwritten > 0 {
        warn!(
            torn_bytes = report.torn_bytes,
            torn_frames = report.torn_frames,
            damaged = report.damaged,
            lost = report.lost,
            unwritten = report.unwritten,
            "the audit log did not end in order: its tail was cut off, and what is missing is counted in a gap"
        );
    }
}

/// Shows the health of the audit log as conditions.
async fn show_health(log: AuditLog, tracker: Arc<StatusTracker>, stop: CancellationToken) {
    let mut health = log.watch_health();
    loop {
        let AuditHealth { degraded, stalled, storage_low } = health.borrow_and_update().clone();
        let now = SystemTime::now();
        let degraded = degraded.map(|degraded| {
            let message = format!(
                "audit records cannot be made durable, so expansions are refused: {}",
                degraded.error
            );
            ("AuditAppendFailed", message)
        });
        let stalled = stalled.map(|stalled| {
            let message = format!(
                "audit records have waited for more than {} s: the disk of the state directory does not answer, so expansions are not answered",
                stalled.limit.as_secs()
            );
            ("AuditStalled", message)
        });
        tracker.toggle(kind::AUDIT_DEGRADED, degraded.or(stalled), now);
        let low = storage_low.then(|| {
            let message =
                "the audit store is over 80 % of its size limit; the oldest records are deleted at the limit";
            ("AuditStorageNearLimit", message.to_owned())
        });
        tracker.toggle(kind::AUDIT_STORAGE_LOW, low, now);
        tokio::select! {
            changed = health.changed() => if changed.is_err() { return },
            () = log.watch_stalls() => {}
            () = stop.cancelled() => return,
        }
    }
}

/// The error of a part that ended although it must not.
fn early<E: Into<AppError>>(task: &'static str, result: Result<Result<(), E>, JoinError>) -> AppError {
    match result {
        Err(source) => AppError::Task { task, source },
        Ok(Err(error)) => error.into(),
        Ok(Ok(())) => AppError::Stopped { task },
    }
}

async fn blocking<T: Send + 'static>(
    task: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, AppError> {
    tokio::task::spawn_blocking(work).await.map_err(|source| AppError::Task { task, source })
}
