//! The gateway: a reverse proxy in front of an authorization server that has no place where a question could be asked.
//!
//! What says something about scopes is read, decided in this process and passed on with what was decided; everything else is
//! passed on as it comes. What an OAuth request says, and what it becomes, is the business of `crate::gateway`; here are sockets,
//! the upstream, the order of things, and what happens when something fails: nothing passes then that was not decided.

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::answer::CorsMemory;
use self::begun::BegunLogins;
use self::count::GatewayCounts;
use self::discovery::{CurrentUpstream, DiscoveryFault, ExpectedUpstream};
use self::head::ForwardedAs;
use self::pushed::PushedRequests;
use self::settings::{BaseUrl, GatewaySettings, OnDeny, RequestObjects};
use self::upstream::Upstream;
use self::upstream_admin::{AdminSettingsError, UpstreamAdmin};
use super::accept::Connection;
use super::access::Gate;
use super::config::PeerLimits;
use super::listen::ListenAddr;
use super::pressure::Pressure;
use super::tls::TlsError;
use super::traces::Traces;
use super::traces::request::{RequestTraces, SpanAddress};
use crate::clients::{Clients, ClientsError};
use crate::gateway::kind::UpstreamKind;
use crate::rpc::scope_policy::ScopePolicy;
use crate::status::StatusTracker;
use crate::store::Current;
use crate::throttle::Throttle;

mod answer;
mod begun;
mod body;
mod connection;
pub(super) mod count;
pub mod discovery;
mod expiring;
mod head;
mod login;
mod pushed;
mod question;
mod registration;
mod request;
pub mod settings;
pub mod upstream;
pub mod upstream_admin;

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// There is no URL that clients see.
    #[error("say with `--public-url` what clients see: {0}")]
    NoPublicUrl(&'static str),
    /// Nobody would know whether it is the right upstream.
    #[error(
        "an upstream over TLS needs `--upstream-ca-file`; for one with a public certificate that is the file of the system, \
         such as `/etc/ssl/certs/ca-certificates.crt`"
    )]
    NoUpstreamCa,
    /// No realm is named.
    #[error("for Keycloak, name each realm with `--issuer-path /realms/NAME`")]
    NoRealm,
    /// The file of the CA cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The record of clients cannot be used.
    #[error(transparent)]
    Clients(#[from] ClientsError),
    /// The upstream is not configured for this gateway.
    #[error(transparent)]
    Upstream(#[from] DiscoveryFault),
    /// The admin API cannot be used as it is named.
    #[error(transparent)]
    Admin(#[from] AdminSettingsError),
    /// A URL cannot be in a header.
    #[error("the URL cannot be in a header: {0}")]
    Header(#[from] http::Error),
}

/// A gateway. What it decides by is that of the server.
pub(super) struct Gateway {
    limits: PeerLimits,
    pressure: Pressure,
    gate: Gate,
    policy: ScopePolicy,
    current: Current,
    upstream: Upstream,
    forwarded: ForwardedAs,
    expected: ExpectedUpstream,
    known: CurrentUpstream,
    clients: Clients,
    admin: Option<UpstreamAdmin>,
    pushed: PushedRequests,
    begun: BegunLogins,
    cors: CorsMemory,
    counts: GatewayCounts,
    /// If requests are spans.
    traces: Option<RequestTraces>,
    on_deny: OnDeny,
    request_objects: RequestObjects,
    /// Of lines about the upstream.
    failures: Throttle,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Gateway").field("expected", &self.expected).finish_non_exhaustive()
    }
}

/// What a gateway shares with the rest of the server.
pub(super) struct GatewayParts {
    pub(super) limits: PeerLimits,
    pub(super) pressure: Pressure,
    pub(super) gate: Gate,
    pub(super) policy: ScopePolicy,
    pub(super) current: Current,
    pub(super) clients: Clients,
    pub(super) counts: GatewayCounts,
    pub(super) tracker: Arc<StatusTracker>,
    pub(super) traces: Option<Traces>,
}

impl Gateway {
    /// A gateway that knows nothing of its upstream yet.
    ///
    /// # Errors
    /// If the settings do not fit together, or a file cannot be used.
    pub(super) fn new(
        settings: GatewaySettings,
        public_url: &BaseUrl,
        parts: GatewayParts,
    ) -> Result<Self, GatewayError> {
        let on_deny = settings.on_deny();
        let GatewaySettings {
            upstream: url,
            upstream_ca_file,
            upstream_timeout,
            public_url: _,
            kind,
            issuer_paths,
            endpoints,
            on_deny: _,
            request_objects,
            rewrite_discovery,
            trusted_proxies,
            discovery_interval,
            upstream_admin,
            max_clients: _,
        } = settings;
        let is_admin_over_tls = upstream_admin.as_ref().is_some_and(|admin| admin.url.is_tls());
        if (url.is_tls() || is_admin_over_tls) && upstream_ca_file.is_none() {
            return Err(GatewayError::NoUpstreamCa);
        }
        if kind == UpstreamKind::Keycloak {
            if issuer_paths.iter().all(String::is_empty) {
                return Err(GatewayError::NoRealm);
            }
            // keycloak#50807: the gateway always sends a scope.
            warn!(
                "before 26.8 Keycloak takes the default client scopes of the realm (basic, roles, web-origins) away from a client \
                 that registers with a scope: list in the policy what clients need of them, or use 26.8; \"Allowed Client Scopes\" of \
                 the realm must list the scopes of the policy and openid, or registrations are refused"
            );
        }
        let upstream = Upstream::new(
            url.scheme().clone(),
            url.authority().clone(),
            upstream_ca_file.as_deref(),
            upstream_timeout,
        )?;
        let header = |text: &str| HeaderValue::try_from(text).map_err(http::Error::from);
        let forwarded = ForwardedAs {
            host: upstream.host()?,
            public_host: header(public_url.authority().as_str())?,
            public_scheme: header(public_url.scheme().as_str())?,
            public_port: HeaderValue::from(public_url.port()),
            trusted: trusted_proxies,
        };
        let expected = ExpectedUpstream {
            kind,
            public_url: public_url.to_string(),
            upstream_url: url.to_string(),
            issuer_paths,
            endpoints,
            rewrite: rewrite_discovery,
            refuses_request_objects: request_objects == RequestObjects::Refuse,
            interval: discovery_interval,
        };
        let GatewayParts { limits, pressure, gate, policy, current, clients, counts, tracker, traces } =
            parts;
        let traces = traces.map(|traces| RequestTraces {
            traces,
            public: address_of(public_url),
            upstream: address_of(&url),
        });
        let admin = match upstream_admin {
            None => None,
            Some(admin) => {
                admin.check(kind)?;
                let ca = upstream_ca_file.as_deref();
                Some(UpstreamAdmin::new(
                    admin,
                    ca,
                    upstream_timeout,
                    clients.clone(),
                    counts.clone(),
                    tracker,
                )?)
            }
        };
        Ok(Self {
            limits,
            pressure,
            gate,
            policy,
            current,
            upstream,
            forwarded,
            expected,
            known: CurrentUpstream::default(),
            clients,
            admin,
            pushed: PushedRequests::default(),
            begun: BegunLogins::default(),
            cors: CorsMemory::default(),
            counts,
            traces,
            on_deny,
            request_objects,
            failures: Throttle::every_minute(),
        })
    }

    /// The path of an issuer by its 0-based place.
    fn issuer_path(&self, issuer: usize) -> &str {
        self.expected.issuer_paths.get(issuer).map_or("", String::as_str)
    }

    /// What clients see.
    pub(super) fn public_url(&self) -> &str {
        &self.expected.public_url
    }

    /// Where the authorization server is.
    pub(super) fn upstream_url(&self) -> &str {
        &self.expected.upstream_url
    }
}

/// A URL of the settings, for spans.
fn address_of(url: &BaseUrl) -> SpanAddress {
    SpanAddress {
        scheme: url.scheme().to_string(),
        host: url.authority().host().to_owned(),
        port: url.port(),
    }
}

/// The URL that clients see: the one that was named, or the only address if that is a loopback one.
pub(super) fn public_url(
    settings: &GatewaySettings,
    addresses: &[ListenAddr],
    is_tls: bool,
) -> Result<BaseUrl, GatewayError> {
    if let Some(url) = &settings.public_url {
        return Ok(url.clone());
    }
    match addresses {
        [ListenAddr::Tcp(address)] if address.ip().is_loopback() && !is_tls => {
            BaseUrl::http(&address.to_string())
                .map_err(|_| GatewayError::NoPublicUrl("the address is not a URL"))
        }
        [ListenAddr::Tcp(_)] => {
            Err(GatewayError::NoPublicUrl("only plaintext on a loopback address has a default"))
        }
        _ => Err(GatewayError::NoPublicUrl("there are several addresses, or a socket")),
    }
}

/// Serves a connection until its peer closes it, its age or `stop` ends it, or it breaks.
pub(super) async fn serve(connection: Connection, gateway: Arc<Gateway>, stop: CancellationToken) {
    connection::serve(connection, gateway, stop).await;
}
