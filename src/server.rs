//! The assembly: takes settings, services and listeners, and serves until it is told to stop.
//!
//! Every task that is started here is awaited here. What the services do is
//! theirs; what the process prints and which code it exits with is the command line's.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;

use futures_util::future::join_all;
use http::{Request, Response};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tower::Service;
use tracing::{debug, info, warn};

use crate::rpc::FILE_DESCRIPTOR_SET;
use crate::rpc::scope_policy::ScopePolicy;
use crate::server::accept::{Connection, Connections, accept};
use crate::server::access::Gate;
use crate::server::call::Calls;
use crate::server::config::Config;
use crate::server::health::HealthService;
use crate::server::lifecycle::Lifecycle;
use crate::server::listen::{ListenAddr, ListenerProtocol, Listeners, require_loopback};
use crate::server::method::Methods;
use crate::server::observe::CallCounts;
use crate::server::pressure::Pressure;
use crate::server::shutdown::{CALLS_BY, CUT_BY};
use crate::server::supervisor::Part;
use crate::server::task_request::TaskRequests;
use crate::server::tls::TlsError;
use crate::server::traces::Traces;

mod accept;
pub mod access;
pub mod admin;
pub mod app;
mod audit_health;
mod background;
mod call;
mod call_task;
pub mod config;
mod connection;
mod console;
mod credentials;
mod descriptors;
pub mod dial;
mod follow;
mod forward;
pub mod gateway;
mod health;
mod http_api;
mod kept_answers;
pub mod lifecycle;
pub mod listen;
pub mod log;
pub mod memory;
mod message;
pub mod method;
pub mod metrics;
pub mod observe;
pub mod pressure;
mod process;
pub mod recorder;
pub mod reload;
mod response;
pub mod service_manager;
mod shadow;
pub mod shutdown;
pub mod signals;
pub mod supervisor;
mod task_request;
pub mod tls;
pub mod traces;
mod web;

/// Serves `services` on `listeners` until `shutdown`, then drains. At listeners of HTTP the RPCs of one message and one answer are served
/// without gRPC.
///
/// Health and reflection are added here, for all services by name. Health says NOT_SERVING until [`Lifecycle::serve`].
/// Draining: health says NOT_SERVING, the listeners are closed, new calls are refused, streams are told to end through
/// [`Lifecycle::draining`], and calls in flight continue for at most half of [`Config::shutdown_timeout`]; what is left then is cut off.
///
/// # Errors
///
/// If a listener is reachable from other machines without permission ([`Config::insecure_allow_remote_plaintext`]), or if
/// serving ends without `shutdown`.
pub async fn run(
    config: Config,
    services: Services,
    listeners: Listeners,
    shutdown: impl Future<Output = ()>,
) -> Result<Drained, ServerError> {
    let limits = &config.limits;
    let lifecycle = services.lifecycle.clone();
    let pressure = services.pressure.clone().unwrap_or_else(|| Pressure::new(limits));
    let connections = Connections::new(limits, pressure.clone());
    let (gate, traces) = (services.gate.clone(), services.traces.clone());
    let acceptors = services.acceptors.clone();
    let direct = services.direct.clone();
    let (methods, routes) = services.into_routes()?;
    let calls = Calls {
        routes,
        direct,
        methods: methods.clone(),
        lifecycle: lifecycle.clone(),
        pressure,
        limits: limits.clone(),
        gate,
        traces,
    };
    let front = Front {
        lifecycle,
        connections,
        acceptors,
        serve: move |connection: Connection, stop| {
            let calls = calls.clone();
            async move {
                match connection.protocol() {
                    ListenerProtocol::Grpc => connection::serve(connection, calls, stop).await,
                    ListenerProtocol::Http => Box::pin(http_api::serve(connection, calls, stop)).await,
                }
            }
        },
        in_flight: move || methods.in_flight(),
    };
    front.run(config, listeners, shutdown).await
}

/// What serves connections, whatever is spoken on them.
struct Front<S, I> {
    lifecycle: Lifecycle,
    connections: Connections,
    /// Asks each listener whether it is attended.
    acceptors: TaskRequests,
    /// Serves one connection until it ends; it ends soon once the token is cancelled.
    serve: S,
    /// What is in flight, by path and sorted.
    in_flight: I,
}

impl<S, I> Front<S, I> {
    /// Serves connections of `listeners` until `shutdown`, then drains.
    ///
    /// # Errors
    ///
    /// Those of [`run`].
    async fn run<F>(
        self,
        config: Config,
        listeners: Listeners,
        shutdown: impl Future<Output = ()>,
    ) -> Result<Drained, ServerError>
    where
        S: Fn(Connection, CancellationToken) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
        I: Fn() -> Vec<(String, usize)>,
    {
        let Self { lifecycle, connections, acceptors, serve, in_flight } = self;
        let Listeners { all: listeners, tls } = listeners;
        listeners.iter().try_for_each(|listener| require_loopback(listener.address(), &config))?;
        let Config { shutdown_timeout, fault, .. } = config;
        let stop = CancellationToken::new();
        let serving = TaskTracker::new();
        let serve = {
            let (serving, stop) = (serving.clone(), stop.clone());
            move |connection: Connection| {
                let (serve, stop, fault, tls) = (serve.clone(), stop.clone(), fault.clone(), tls.clone());
                // A panic ends this connection alone, whose socket is closed and whose place is given back.
                serving.spawn(async move {
                    fault.at(Part::Connection);
                    match connection.encrypt(tls).await {
                        Ok(connection) => serve(connection, stop).await,
                        Err(error) => debug!(%error, "a connection ended with its TLS handshake"),
                    }
                });
            }
        };
        let accept =
            |listener| accept(listener, connections.clone(), serve.clone(), acceptors.listen(), stop.clone());
        let mut acceptor = tokio::spawn(join_all(listeners.into_iter().map(accept)));
        tokio::pin!(shutdown);
        tokio::select! {
            () = &mut shutdown => {}
            ended = &mut acceptor => {
                return Err(ServerError::AcceptEnded { cause: ended.err().map(|error| error.to_string()) });
            }
        }

        let drain_deadline = shutdown_timeout.mul_f64(CALLS_BY);
        info!(deadline = ?drain_deadline, "draining");
        lifecycle.drain();
        stop.cancel();
        connections.close_silent();
        // It saw `stop`; no connection begins after it.
        _ = acceptor.await;
        serving.close();
        let cut_calls = tokio::select! {
            () = serving.wait() => Vec::new(),
            () = sleep(drain_deadline) => {
                let cut = in_flight();
                let connections = connections.close_all();
                warn!(connections, calls = ?cut, "drain deadline passed, connections cut off");
                // Each connection's task ends once it sees that its socket is closed.
                if timeout(shutdown_timeout.mul_f64(CUT_BY), serving.wait()).await.is_err() {
                    warn!("some connections did not end when cut off");
                }
                cut
            }
        };
        Ok(Drained { cut_calls })
    }
}

/// How a server ended that was told to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Drained {
    /// How many calls and streams were cut off at the drain deadline, by path and sorted. Empty if all ended in time.
    pub cut_calls: Vec<(String, usize)>,
}

/// The gRPC services to serve.
pub struct Services {
    lifecycle: Lifecycle,
    pressure: Option<Pressure>,
    calls: CallCounts,
    gate: Gate,
    traces: Option<Traces>,
    acceptors: TaskRequests,
    routes: Routes,
    direct: Option<ScopePolicy>,
    names: Vec<&'static str>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Services {
    /// None yet. Their health follows `lifecycle`.
    pub fn new(lifecycle: &Lifecycle) -> Self {
        Self {
            lifecycle: lifecycle.clone(),
            pressure: None,
            calls: CallCounts::default(),
            gate: Gate::default(),
            traces: None,
            acceptors: TaskRequests::default(),
            routes: Routes::default(),
            direct: None,
            names: Vec::new(),
        }
    }

    /// Counts calls, streams and bytes in `pressure`, for somebody who wants to look at it.
    #[must_use]
    pub fn counted_by(mut self, pressure: &Pressure) -> Self {
        self.pressure = Some(pressure.clone());
        self
    }

    /// Counts how calls end in `calls`.
    #[must_use]
    pub fn observed_by(mut self, calls: &CallCounts) -> Self {
        self.calls = calls.clone();
        self
    }

    /// Lets only those call whom the access file lists.
    #[must_use]
    pub fn behind(mut self, gate: Gate) -> Self {
        self.gate = gate;
        self
    }

    /// Makes a span of each call.
    #[must_use]
    pub fn traced_by(mut self, traces: Option<Traces>) -> Self {
        self.traces = traces;
        self
    }

    /// Lets `acceptors` ask each listener whether it is attended.
    #[must_use]
    fn attended_for(mut self, acceptors: &TaskRequests) -> Self {
        self.acceptors = acceptors.clone();
        self
    }

    /// Adds the service that decides, which answers plain calls without its generated server.
    #[must_use]
    pub fn with_scope_policy(mut self, policy: ScopePolicy) -> Self {
        self.direct = Some(policy.clone());
        self.with(policy.into_server())
    }

    /// Adds a generated server, such as `ScopePolicyServiceServer`.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.names.push(S::NAME);
        self.routes = self.routes.add_service(service);
        self
    }

    /// With health and reflection.
    fn into_routes(self) -> Result<(Methods, Routes), ServerError> {
        let Self {
            lifecycle,
            pressure: _,
            calls,
            gate: _,
            traces: _,
            acceptors: _,
            routes,
            direct: _,
            names,
        } = self;
        let served: Vec<_> = names.iter().copied().chain(BESIDES).collect();
        let methods = Methods::of(&served, &calls).map_err(ServerError::Descriptors)?;
        let health = HealthServer::new(HealthService::new(lifecycle, &names));
        // Only what is served is listed; descriptors of our other services would promise what nobody answers.
        let reflection = || {
            served.iter().copied().fold(
                tonic_reflection::server::Builder::configure()
                    .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                    .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                    // Each version describes both, since it lists both; tools resolve everything that is listed.
                    .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
                    .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
                    // The details of errors.
                    .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET),
                tonic_reflection::server::Builder::with_service_name,
            )
        };
        let v1 = reflection().build_v1().map_err(ServerError::Reflection)?;
        let v1alpha = reflection().build_v1alpha().map_err(ServerError::Reflection)?;
        Ok((methods, routes.add_service(health).add_service(v1).add_service(v1alpha).prepare()))
    }
}

/// Why the server could not start, or ended unexpectedly.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The address cannot be bound.
    #[error("could not listen on {addr}: {source}")]
    Bind {
        /// The address as configured.
        addr: ListenAddr,
        /// What the system says, such as that the port is in use.
        source: io::Error,
    },
    /// A file of TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No address is named.
    #[error("there is no address to listen on")]
    NoListener,
    /// The address can be reached from other machines, and nothing is encrypted.
    #[error(
        "{addr} can be reached from other machines in plaintext; listen on a loopback address, serve TLS with \
         `--tls-cert-file` and `--tls-private-key-file`, or allow it with `--insecure-allow-remote-plaintext`"
    )]
    RemotePlaintext {
        /// The address as configured.
        addr: SocketAddr,
    },
    /// The descriptors that were compiled in cannot be served.
    #[error("descriptors could not be read")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// The descriptors that were compiled in do not describe what is served.
    #[error("descriptors could not be read")]
    Descriptors(#[source] prost_reflect::DescriptorError),
    /// The task that accepts connections ended.
    #[error("connections are no longer accepted{}", cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default())]
    AcceptEnded {
        /// Why, if it is known.
        cause: Option<String>,
    },
}

/// Completes when the process gets SIGTERM or SIGINT. The signals are caught from the call on, not only once it is awaited.
///
/// # Errors
///
/// If the system does not let us catch signals.
pub fn shutdown_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM received"),
            _ = interrupt.recv() => info!("SIGINT received"),
        }
    })
}

/// Served next to our own services.
const BESIDES: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];
