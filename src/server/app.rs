//! The whole service, put together: from settings to parts, and the parts to the supervisor.
//!
//! What it means if a part ends is the supervisor's to know.

use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use super::accept::Connections;
use super::access::{AccessError, AccessFollower, Gate, Reach};
use super::audit_health::{Show, log_start};
use super::background::in_background;
use super::config::{AuditSettings, Config, ServerSettings};
use super::console::Console;
use super::console::served::Served;
use super::credentials::CredentialsTask;
use super::forward::ForwardPart;
use super::gateway::settings::{BaseUrl, GatewaySettings};
use super::gateway::{self, Gateway, GatewayError, GatewayParts};
use super::lifecycle::Lifecycle;
use super::listen::{ListenAddr, ListenerProtocol, Listeners};
use super::metrics::{AnswerCounts, AuditFigures, Metrics, commit_histogram};
use super::pressure::Pressure;
use super::recorder::AuditRecorder;
use super::reload::{self, Reloader, StartError};
use super::service_manager::{Liveness, ServiceManager, ServiceManagerTask};
use super::shadow::ShadowPart;
use super::shutdown::{self, Stopped};
use super::supervisor::{Abandoned, Part, PartEnd, PartResult, Reporter, Roster, Supervisor};
use super::task_request::TaskRequests;
use super::tls::TlsError;
use super::tls::follow::TlsFollower;
use super::traces::Traces;
use super::traces::export::SpanExport;
use super::{Drained, Front, ServerError, Services, admin, descriptors, run};
use crate::audit::jsonl::{Jsonl, JsonlOptions};
use crate::audit::{AuditError, AuditLog, AuditOptions};
use crate::clients::Clients;
use crate::escape::shown;
use crate::rpc::audit::Audit;
use crate::rpc::count::DecisionCounts;
use crate::rpc::policy_status::{PolicyStatus, StatusMessages};
use crate::rpc::scope_policy::ScopePolicy;
use crate::rpc::shadow::{Shadow, ShadowCounts};
use crate::rpc::v1::audit_service_server::AuditServiceServer;
use crate::status::{StatusTracker, TrackedPolicy, kind};
use crate::store::Current;
use crate::store::load::Loader;
use crate::store::read::ReadSettings;
use crate::store::watch::{FolderWatch, Hints};

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
    /// The access file cannot be used.
    #[error("could not use the access file: {0}")]
    Access(#[from] AccessError),
    /// The gateway cannot start.
    #[error("could not start the gateway: {0}")]
    Gateway(#[from] GatewayError),
    /// Spans cannot be sent.
    #[error("could not use the files of TLS for traces: {0}")]
    Traces(TlsError),
    /// A step of the start panicked.
    #[error("{step} failed: {how}")]
    Start {
        /// Which one.
        step: &'static str,
        /// How.
        how: String,
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
    /// What the console shows, if there is one.
    served: Option<Served>,
    tracker: Arc<StatusTracker>,
    current: Current,
    metrics: Metrics,
    reloader: Reloader,
    folders: FolderWatch,
    hints: Hints,
    hangup: Signal,
    service_manager: Option<ServiceManager>,
    rereads: TaskRequests,
    credentials_interval: Duration,
    access: Option<AccessFollower>,
    gate: Gate,
    log: AuditLog,
    decisions: DecisionCounts,
    policy: ScopePolicy,
    /// Serves instead of gRPC, if there is one.
    gateway: Option<Arc<Gateway>>,
    shadow: Option<ShadowPart>,
    spans: Option<(Traces, SpanExport)>,
    /// Opened already, so that what is wrong with it stops the start.
    lines: Option<(Jsonl, JsonlOptions)>,
    forward: Option<ForwardPart>,
    roster: Roster,
}

impl App {
    /// Binds the addresses and loads the policy.
    ///
    /// # Errors
    /// [`AppError`] if an address cannot be bound, the state directory or the target of the audit lines
    /// cannot be used, or there is no valid policy.
    pub async fn start(settings: ServerSettings) -> Result<Self, AppError> {
        let (mut opened, timeout) = (None, settings.server.shutdown_timeout);
        let started = Self::open(settings, &mut opened).await;
        if let (Err(_), Some(log)) = (&started, opened) {
            // The state directory is free again when the caller hears of the failure.
            _ = log.close_by(Instant::now() + timeout).await;
        }
        started
    }

    async fn open(settings: ServerSettings, opened: &mut Option<AuditLog>) -> Result<Self, AppError> {
        let ServerSettings {
            server: mut config,
            admin_listen,
            console: has_console,
            policies,
            state_dir,
            debounce,
            removal_quiet,
            rescan_interval,
            access_file,
            credentials_interval,
            allow_outside_links,
            start_from_last_good,
            shadow,
            traces,
            metrics_per_audience,
            log_decisions,
            audit,
            process,
            service_manager,
            roster,
            gateway,
        } = settings;
        if gateway.is_some() {
            // A client of a gateway may be a browser, which speaks either version.
            config.http_listen = std::mem::take(&mut config.listen);
        }
        // Caught before anybody is told that there is a server: uncaught, it would end the process.
        let hangup = signal(SignalKind::hangup()).map_err(AppError::Signal)?;
        // Before anything is opened: connections must not take the descriptors that files need.
        let open_files = descriptors::raise_limit();
        config.limits.max_connections =
            descriptors::connection_limit(config.limits.max_connections, open_files);
        let listeners = Listeners::bind(&config).await?;
        let bind = |source| ServerError::Bind { addr: admin_listen.into(), source };
        let admin = TcpListener::bind(admin_listen).await.map_err(bind)?;
        let admin_addr = admin.local_addr().map_err(bind)?;
        if has_console && !admin_addr.ip().to_canonical().is_loopback() {
            warn!(%admin_addr, "the console shows the whole policy to everybody who reaches the admin address");
        }
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
        let AuditSettings {
            mode,
            retention,
            max_bytes,
            denials_per_second,
            set_aside_broken,
            jsonl,
            forward,
        } = audit;
        let commits = commit_histogram();
        let options = AuditOptions {
            max_age: retention,
            max_bytes,
            denials_per_second: Some(denials_per_second),
            set_aside_broken,
            commit_observer: Some({
                let (commits, fault) = (commits.clone(), config.fault.clone());
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
        let forwarding = watch::Sender::default();
        let decisions = DecisionCounts::new(metrics_per_audience);
        let shadow_counts = ShadowCounts::default();
        let pressure = Pressure::new(&config.limits);
        let spans = match traces {
            None => None,
            Some(settings) => {
                info!(collector = %settings.endpoint, sampler = ?settings.sampler, "spans are sent to a collector");
                let counts = process.spans.clone();
                let start = move || Traces::start(settings, counts);
                Some(blocking("reading the files of TLS", start).await?.map_err(AppError::Traces)?)
            }
        };
        let metrics = Metrics::new(
            Arc::clone(&tracker),
            AuditFigures { log: log.clone(), commits, forward: forwarding.subscribe() },
            process,
            &pressure,
            &AnswerCounts {
                decisions: decisions.clone(),
                shadow: shadow_counts.clone(),
                is_gateway: gateway.is_some(),
            },
        );
        let lines = match jsonl {
            None => None,
            Some(target) => {
                let (metrics, fault) = (metrics.clone(), config.fault.clone());
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
        let forward = forward.map(|target| ForwardPart { log: log.clone(), target, status: forwarding });
        let recorder = AuditRecorder::new(log.clone(), mode);
        let rereads = TaskRequests::default();
        let shadow = shadow.map(|policies| {
            let now = SystemTime::now();
            let source = policies.to_string_lossy().into();
            let own = Arc::new(StatusTracker::of(source, TrackedPolicy::Shadow, now));
            let (shadow, questions) = Shadow::new(Current::default(), own, shadow_counts, now);
            ShadowPart {
                shadow,
                questions: Arc::new(Mutex::new(questions)),
                policies,
                debounce,
                removal_quiet,
                rescan_interval,
                read: ReadSettings { allow_outside_links, ..ReadSettings::default() },
                rereads: rereads.clone(),
                tracker: Arc::clone(&tracker),
            }
        });
        let is_remote =
            |address: &ListenAddr| address.tcp().is_some_and(|tcp| !tcp.ip().to_canonical().is_loopback());
        let is_remote = listeners.addresses().iter().any(is_remote);
        let access = match access_file {
            None => {
                // Everybody who has a browser is a client of a gateway.
                if is_remote && gateway.is_none() {
                    warn!(
                        "everybody who reaches the server may call everything; name who may with --access-file"
                    );
                    let message =
                        "there is no --access-file, and other machines can reach the server".to_owned();
                    tracker.toggle(
                        kind::ACCESS_UNRESTRICTED,
                        Some(("NoAccessFile", message)),
                        SystemTime::now(),
                    );
                }
                None
            }
            Some(path) => {
                let reach = Reach {
                    has_client_ca: config.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()),
                    has_socket: listeners.addresses().iter().any(|address| address.tcp().is_none()),
                    has_remote_plaintext: is_remote && config.tls.is_none(),
                };
                let (tracker, recorder) = (Arc::clone(&tracker), recorder.clone());
                let counts = metrics.callers().clone();
                let read =
                    move || AccessFollower::start(path, reach, removal_quiet, tracker, recorder, counts);
                Some(blocking("reading the access file", read).await??)
            }
        };
        let (access, gate) = access
            .map_or_else(|| (None, Gate::open(metrics.callers())), |(access, gate)| (Some(access), gate));
        let current = Current::default();
        let hints = Hints::new(debounce, rescan_interval);
        let mut reloader = Reloader::new(
            loader,
            removal_quiet,
            Arc::clone(&current),
            Arc::clone(&tracker),
            metrics.clone(),
            spans.as_ref().map(|(traces, _)| traces.clone()),
            {
                let recorder = recorder.clone();
                Box::new(move |change| recorder.policy_change(change))
            },
            state_dir.clone(),
            start_from_last_good,
        );
        let served = has_console.then(Served::default);
        if let Some(served) = &served {
            reloader = reloader.shown_by(Arc::clone(served));
        }
        let reloader = blocking("the first load", move || reloader.start().map(|()| reloader)).await??;
        let mut folders = FolderWatch::new(hints.clone());
        // In the background, since the thread that takes events is one like the one that asks for them.
        let (reloader, folders) = in_background("watch", move || {
            // What falls between the two is seen by the first look of the task.
            folders.arm(reloader.watch_targets());
            (reloader, folders)
        })
        .await
        .map_err(|error| AppError::Start { step: "watching the policy", how: error.to_string() })?;
        let policy = ScopePolicy::new(Arc::clone(&current))
            .with_recorder(Arc::new(recorder))
            .with_counts(decisions.clone())
            .with_logged(log_decisions)
            .with_shadow(shadow.as_ref().map(|part| part.shadow.clone()))
            .with_large_questions(metrics.pressure().large_questions());
        let gateway = match gateway {
            None => None,
            Some(settings) => {
                let public_url =
                    gateway::public_url(&settings, &listeners.addresses(), config.tls.is_some())?;
                let (upstream, folder) = (settings.upstream.to_string(), state_dir.clone());
                let open = move || Clients::open(&folder, &upstream, settings.max_clients);
                let clients =
                    blocking("opening the record of clients", open).await?.map_err(GatewayError::from)?;
                metrics.gateway().follow(&clients);
                let parts = GatewayParts {
                    limits: config.limits.clone(),
                    pressure: metrics.pressure().clone(),
                    gate: gate.clone(),
                    policy: policy.clone(),
                    current: Arc::clone(&current),
                    clients,
                    counts: metrics.gateway().clone(),
                    tracker: Arc::clone(&tracker),
                    traces: spans.as_ref().map(|(traces, _)| traces.clone()),
                };
                Some(Arc::new(start_gateway(settings, &public_url, parts, &tracker).await?))
            }
        };
        Ok(Self {
            config,
            listeners,
            admin,
            admin_addr,
            served,
            tracker,
            current,
            metrics,
            reloader,
            folders,
            hints,
            hangup,
            service_manager,
            rereads,
            credentials_interval,
            access,
            gate,
            log,
            decisions,
            policy,
            gateway,
            shadow,
            spans,
            lines,
            forward,
            roster,
        })
    }

    /// The real addresses of the server: those of gRPC, then those of HTTP, which are those of a gateway.
    #[must_use]
    pub fn addresses(&self) -> Vec<ListenAddr> {
        self.listeners.addresses()
    }

    /// The real addresses at which this is spoken.
    #[must_use]
    pub fn addresses_of(&self, protocol: ListenerProtocol) -> Vec<ListenAddr> {
        self.listeners.addresses_of(protocol)
    }

    /// What clients of the gateway see, and its upstream; `None` without a gateway.
    #[must_use]
    pub fn gateway_urls(&self) -> Option<(&str, &str)> {
        self.gateway.as_ref().map(|gateway| (gateway.public_url(), gateway.upstream_url()))
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
        let (tracker, timeout) = (Arc::clone(&self.tracker), self.config.shutdown_timeout);
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
        let abandoned = shutdown::stop(&mut supervisor, timeout).await;
        match ended {
            None => Ok(Stopped { abandoned }),
            Some((part, end)) => Err(AppError::Ended { part, end, abandoned }),
        }
    }

    /// Starts every part.
    fn hand_over(self, lifecycle: &Lifecycle) -> Supervisor {
        let Self {
            config,
            listeners,
            admin,
            admin_addr,
            served,
            tracker,
            current: _,
            metrics,
            reloader,
            folders,
            hints,
            hangup,
            service_manager,
            rereads,
            credentials_interval,
            access,
            gate,
            log,
            decisions,
            policy,
            gateway,
            shadow,
            spans,
            lines,
            forward,
            roster,
        } = self;
        let (traces, export) = spans.unzip();
        let reporter = Reporter::new(Arc::clone(&tracker), metrics.clone());
        let mut supervisor = Supervisor::new(reporter, roster);
        let draining = lifecycle.draining();
        let acceptors = TaskRequests::default();
        let messages = StatusMessages::new(Arc::clone(&tracker));
        let comparing = shadow.as_ref().map(|part| part.shadow.clone());
        let console = served.map(|served| Console::new(messages.clone(), decisions.clone(), served));
        let services = Services::new(lifecycle)
            .counted_by(metrics.pressure())
            .observed_by(metrics.calls())
            .behind(gate)
            .traced_by(traces)
            .attended_for(&acceptors)
            .with_scope_policy(policy)
            .with(AuditServiceServer::new(Audit::new(log.clone(), draining.clone())))
            .with(PolicyStatus::new(messages.clone(), draining.clone()).with_shadow(comparing).into_server());

        let close = config.shutdown_timeout.mul_f64(shutdown::CLOSE);
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
            forward: forward.as_ref().map(|part| part.status.subscribe()),
            tracker: Arc::clone(&tracker),
        };
        supervisor.restarting_task(Part::AuditHealth, move |stop| {
            let show = show.clone();
            async move {
                show.run(stop).await;
                Ok(())
            }
        });
        if let Some(export) = export {
            let (tracker, flush) =
                (Arc::clone(&tracker), config.shutdown_timeout.mul_f64(shutdown::SEND_SPANS));
            supervisor.restarting_task(Part::Traces, move |stop| {
                export.clone().run(stop, flush, Arc::clone(&tracker))
            });
        }
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
        if let Some(part) = forward {
            supervisor.restarting_thread(Part::AuditForward, move |stop| {
                let part = part.clone();
                move || part.run(&stop)
            });
        }
        supervisor.task(Part::Admin, |stop| {
            let serving = admin::serve(admin, messages, metrics.clone(), console, stop.cancelled_owned());
            async { serving.await.map_err(|error| error.to_string()) }
        });
        let tls = listeners.tls.clone();
        let tls = tls.map(|tls| TlsFollower::new(tls, Arc::clone(&tracker), metrics.clone()));
        if tls.is_some() || access.is_some() {
            let credentials =
                CredentialsTask { tls, access, interval: credentials_interval, rereads: rereads.listen() };
            supervisor.task(Part::Credentials, |stop| async {
                credentials.run(stop).await.map_err(|error| error.to_string())
            });
        }
        let service_manager = ServiceManagerTask {
            manager: service_manager,
            lifecycle: lifecycle.clone(),
            tracker: Arc::clone(&tracker),
            hangup,
            rereads: rereads.clone(),
            liveness: Liveness { acceptors: acceptors.clone(), admin: admin_addr },
            shutdown_timeout: config.shutdown_timeout,
        };
        supervisor.task(Part::ServiceManager, |stop| async {
            service_manager.run(stop).await;
            Ok(())
        });
        let reload = reload::task::Task {
            reloader,
            folders,
            hints,
            rereads: rereads.listen(),
            tracker: Arc::clone(&tracker),
            metrics: Some(metrics.clone()),
        };
        supervisor
            .task(Part::Reload, |stop| async { reload.run(stop).await.map_err(|error| error.to_string()) });
        if let Some(part) = shadow {
            supervisor.restarting_task(Part::Shadow, move |stop| part.clone().run(stop));
        }
        let Some(gateway) = gateway else {
            supervisor.task(Part::Grpc, |stop| async {
                whole(run(config, services, listeners, stop.cancelled_owned()).await)
            });
            return supervisor;
        };
        let pressure = metrics.pressure().clone();
        let serving = Arc::clone(&gateway);
        let front = Front {
            lifecycle: lifecycle.clone(),
            connections: Connections::new(&config.limits, pressure.clone()),
            acceptors,
            serve: move |connection, stop| gateway::serve(connection, Arc::clone(&serving), stop),
            in_flight: move || match pressure.calls() {
                0 => Vec::new(),
                count => vec![("requests".to_owned(), count)],
            },
        };
        supervisor.task(Part::Gateway, |stop| async {
            whole(front.run(config, listeners, stop.cancelled_owned()).await)
        });
        supervisor.restarting_task(Part::Upstream, move |stop| {
            let (gateway, tracker, rereads) = (Arc::clone(&gateway), Arc::clone(&tracker), rereads.listen());
            async move {
                gateway.follow(&tracker, rereads, &stop).await;
                Ok(())
            }
        });
        supervisor
    }
}

/// Makes a gateway and reads the discovery document of its upstream. One that is down is waited for later; one that is not
/// configured for this gateway stops the start.
async fn start_gateway(
    settings: GatewaySettings,
    public_url: &BaseUrl,
    parts: GatewayParts,
    tracker: &StatusTracker,
) -> Result<Gateway, GatewayError> {
    let gateway = Gateway::new(settings, public_url, parts)?;
    match gateway.discover().await {
        Err(fault) if fault.is_configuration() => Err(fault.into()),
        found => {
            gateway.take_discovered(found, tracker, SystemTime::now());
            Ok(gateway)
        }
    }
}

/// What a front that ended in order left undone.
fn whole(drained: Result<Drained, ServerError>) -> PartResult {
    let cut = drained.map_err(|error| error.to_string())?.cut_calls;
    if cut.is_empty() {
        return Ok(());
    }
    let calls: Vec<_> = cut.iter().map(|(path, count)| format!("{count} of {path}")).collect();
    Err(format!("calls in flight were cut off: {}", calls.join(", ")))
}

async fn blocking<T: Send + 'static>(
    step: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, AppError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| AppError::Start { step, how: error.to_string() })
}
