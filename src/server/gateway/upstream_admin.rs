//! The admin API of the upstream: looks clients up that registered before this gateway was there, and gives a client there what
//! a decision grants beyond what it has.
//!
//! One task at a time is at one client. What is added is in the record before it is at the upstream, so that it never looks
//! registered.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hashbrown::HashMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::{Mutex as TaskMutex, Semaphore};
use tokio::time::timeout;
use tracing::{info, warn};

use self::hydra::HydraAdmin;
use self::keycloak::KeycloakAdmin;
use super::body::{BodyProgress, empty, full};
use super::count::{AdminOperation, GatewayCounts};
use super::upstream::{Upstream, UpstreamError};
use crate::clients::{ClientRecord, Clients, ClientsError, RecordSource};
use crate::escape::shown;
use crate::gateway::kind::UpstreamKind;
use crate::gateway::metadata::ClientMetadata;
use crate::scope;
use crate::server::tls::TlsError;
use crate::server::web::timers::SpareTimers;
use crate::status::{StatusTracker, kind};
use crate::strict_json::StrictJson;
use crate::throttle::Throttle;

mod hydra;
mod keycloak;

/// Where the admin API of an upstream is: `hydra+http://HOST:PORT`, `keycloak+https://HOST`, each maybe with a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AdminUrl {
    kind: AdminKind,
    scheme: Scheme,
    authority: Authority,
    /// `""`, or a path without a slash at its end.
    base: String,
    /// The realm of the service account, of Keycloak: that of the client where none is named.
    realm: Option<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum AdminKind {
    Hydra,
    Keycloak,
}

/// A text is no such URL.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{}` is not `hydra+http://HOST:PORT`, `hydra+https://HOST:PORT`, `keycloak+http://HOST:PORT` or `keycloak+https://HOST:PORT`, \
     each maybe with a path",
    shown(.0)
)]
pub struct AdminUrlError(String);

impl AdminUrl {
    /// Returns `true` if it is over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }
}

impl FromStr for AdminUrl {
    type Err = AdminUrlError;

    fn from_str(text: &str) -> Result<Self, AdminUrlError> {
        let wrong = || AdminUrlError(text.to_owned());
        let (kind, url) = match text.split_once('+') {
            Some(("hydra", url)) => (AdminKind::Hydra, url),
            Some(("keycloak", url)) => (AdminKind::Keycloak, url),
            _ => return Err(wrong()),
        };
        let uri = Uri::from_str(url).map_err(|_| wrong())?;
        let path = uri.path().trim_end_matches('/').to_owned();
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else { return Err(wrong()) };
        let is_http = scheme == Scheme::HTTP || scheme == Scheme::HTTPS;
        let is_plain = !authority.as_str().contains('@') && !authority.host().is_empty();
        let is_path = crate::gateway::endpoint::issuer_path(&path).is_ok();
        if !is_http || !is_plain || !is_path || url.contains(['?', '#', '%']) {
            return Err(wrong());
        }
        let (base, realm) = match (kind, path.rsplit_once("/realms/")) {
            (AdminKind::Keycloak, Some((base, realm))) if !realm.contains('/') => {
                (base.to_owned(), Some(realm.to_owned()))
            }
            _ => (path, None),
        };
        Ok(Self { kind, scheme, authority, base, realm })
    }
}

impl fmt::Display for AdminUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, scheme, authority, base, realm } = self;
        let kind = match kind {
            AdminKind::Hydra => "hydra",
            AdminKind::Keycloak => "keycloak",
        };
        write!(formatter, "{kind}+{scheme}://{authority}{base}")?;
        realm.as_ref().map_or(Ok(()), |realm| write!(formatter, "/realms/{realm}"))
    }
}

/// What the operator can set of the admin API.
#[derive(Clone, Debug)]
pub struct UpstreamAdminSettings {
    /// Where it is.
    pub url: AdminUrl,
    /// The file with the credentials: `CLIENT_ID:SECRET` of a service account for Keycloak, a bearer token for Hydra behind a proxy
    /// that wants one. Read again whenever they are used anew.
    pub credentials_file: Option<PathBuf>,
}

/// Why an admin API cannot be used as it is named.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AdminSettingsError {
    /// It is not the API of this upstream.
    #[error("`--upstream-admin` names the admin API of another server than `--upstream-kind`")]
    Kind,
    /// Nobody may change clients without.
    #[error(
        "the admin API of Keycloak needs `--upstream-admin-credentials-file` with CLIENT_ID:SECRET of a service account"
    )]
    NoCredentials,
}

impl UpstreamAdminSettings {
    /// Checks that it is the admin API of such an upstream, and that what it needs is there.
    ///
    /// # Errors
    /// [`AdminSettingsError`].
    pub(super) fn check(&self, kind: UpstreamKind) -> Result<(), AdminSettingsError> {
        match (self.url.kind, kind) {
            (_, UpstreamKind::Generic)
            | (AdminKind::Hydra, UpstreamKind::Hydra)
            | (AdminKind::Keycloak, UpstreamKind::Keycloak) => {}
            _ => return Err(AdminSettingsError::Kind),
        }
        if self.url.kind == AdminKind::Keycloak && self.credentials_file.is_none() {
            return Err(AdminSettingsError::NoCredentials);
        }
        Ok(())
    }
}

/// Why the admin API was of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdminError {
    /// There is no answer.
    #[error("the admin API: {0}")]
    Upstream(#[from] UpstreamError),
    /// There are no credentials.
    #[error("the credentials in `{}` cannot be used: {cause}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// They are not enough.
    #[error("the admin API refuses the credentials: {what} was answered with {status}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// The status.
        status: StatusCode,
    },
    /// The answer is not what it should be.
    #[error("the admin API answered {what} in a way that is not understood: {how}")]
    Answer {
        /// What was asked for.
        what: &'static str,
        /// The status, or what is missing.
        how: String,
    },
    /// Nobody made such a client scope.
    #[error(
        "realm `{}` has no client scope `{}`, so no client can have it: create it",
        shown(realm),
        shown(scope)
    )]
    NoScope {
        /// The realm.
        realm: String,
        /// The scope.
        scope: String,
    },
    /// The record of clients.
    #[error(transparent)]
    Clients(#[from] ClientsError),
    /// Too many wait already.
    #[error("too many wait for the admin API")]
    Busy,
}

impl AdminError {
    /// The reason of the condition; `None` for what is not wrong with the admin API.
    const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Upstream(_) => Some("AdminUnreachable"),
            Self::Credentials { .. } | Self::Refused { .. } => Some("AdminCredentialsRefused"),
            Self::Answer { .. } => Some("AdminAnswerInvalid"),
            Self::NoScope { .. } => Some("AdminScopeMissing"),
            Self::Clients(_) | Self::Busy => None,
        }
    }
}

/// A client as the upstream has it.
#[derive(Clone, Debug)]
pub(super) struct StoredClient {
    /// What the admin API names it by.
    handle: String,
    /// What it may ask for.
    scope: String,
    metadata: ClientMetadata,
}

/// The admin API of an upstream.
pub(super) struct UpstreamAdmin {
    api: AdminApi,
    clients: Clients,
    busy_clients: ClientLocks,
    places: Semaphore,
    counts: GatewayCounts,
    tracker: Arc<StatusTracker>,
    failures: Throttle,
}

impl fmt::Debug for UpstreamAdmin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("UpstreamAdmin").finish_non_exhaustive()
    }
}

enum AdminApi {
    Hydra(HydraAdmin),
    Keycloak(KeycloakAdmin),
}

impl UpstreamAdmin {
    /// The admin API that the operator named.
    ///
    /// # Errors
    /// If the file of the CA cannot be used.
    pub(super) fn new(
        settings: UpstreamAdminSettings,
        ca: Option<&Path>,
        timeout: Duration,
        clients: Clients,
        counts: GatewayCounts,
        tracker: Arc<StatusTracker>,
    ) -> Result<Self, TlsError> {
        let UpstreamAdminSettings { url, credentials_file } = settings;
        let AdminUrl { kind, scheme, authority, base, realm } = url;
        let upstream = Upstream::new(scheme, authority, ca, timeout)?;
        let http = AdminHttp { upstream, base, credentials_file };
        let api = match kind {
            AdminKind::Hydra => AdminApi::Hydra(HydraAdmin::new(http)),
            AdminKind::Keycloak => AdminApi::Keycloak(KeycloakAdmin::new(http, realm)),
        };
        Ok(Self {
            api,
            clients,
            busy_clients: ClientLocks::default(),
            places: Semaphore::new(PLACES),
            counts,
            tracker,
            failures: Throttle::every_minute(),
        })
    }

    /// Looks up a client that the record does not know, and remembers what it holds; `None` if the upstream does not know it
    /// either. `is_step_up` tells which scopes are never registered by being there.
    ///
    /// # Errors
    /// If nobody knows whether there is such a client, or it could not be remembered.
    pub(super) async fn look_up(
        &self,
        issuer: &str,
        client_id: &str,
        is_step_up: impl Fn(&str) -> bool,
    ) -> Result<Option<Arc<ClientRecord>>, AdminError> {
        let lock = self.busy_clients.of(issuer, client_id);
        let _alone = lock.lock().await;
        // Whoever was here before may have found it, and may have added to it since.
        if let Some(record) = self.clients.get(issuer, client_id).await? {
            return Ok(Some(record));
        }
        let found = self.watched(AdminOperation::LookUp, self.stored(issuer, client_id)).await?;
        let Some(StoredClient { scope, metadata, .. }) = found else { return Ok(None) };
        let added = self.clients.added(issuer, client_id).await?;
        let added = scope::distinct_tokens(&added);
        let registered = scope::distinct_tokens(&scope);
        let registered: Vec<&str> =
            registered.iter().copied().filter(|token| !added.contains(token) && !is_step_up(token)).collect();
        let mut record = ClientRecord::registered(
            issuer,
            client_id,
            scope::join(&registered),
            metadata,
            SystemTime::now(),
        );
        record.source = RecordSource::Upstream;
        self.clients.put(record.clone()).await?;
        info!(client_id = shown(client_id), "a client was looked up at the upstream and remembered");
        Ok(Some(Arc::new(record)))
    }

    /// Gives a client at the upstream what was granted beyond what it has there. Returns when it has it.
    ///
    /// # Errors
    /// If it may not have it.
    pub(super) async fn complete(
        &self,
        issuer: &str,
        client_id: &str,
        registered: &str,
        granted: &str,
    ) -> Result<(), AdminError> {
        let lock = self.busy_clients.of(issuer, client_id);
        let _alone = lock.lock().await;
        let stored = self.watched(AdminOperation::LookUp, self.stored(issuer, client_id)).await?;
        // One that is not there is refused by the upstream.
        let Some(stored) = stored else { return Ok(()) };
        let (has, granted) = (scope::distinct_tokens(&stored.scope), scope::distinct_tokens(granted));
        let missing: Vec<&str> = granted.iter().copied().filter(|token| !has.contains(token)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let registered = scope::distinct_tokens(registered);
        let added: Vec<&str> = missing.iter().copied().filter(|token| !registered.contains(token)).collect();
        if !added.is_empty() {
            self.clients.add(issuer, client_id, &scope::join(&added)).await?;
        }
        let adding = async {
            match &self.api {
                AdminApi::Hydra(hydra) => hydra.add(&stored, &missing).await,
                AdminApi::Keycloak(keycloak) => keycloak.add(realm_of(issuer), &stored, &missing).await,
            }
        };
        self.watched(AdminOperation::Add, adding).await?;
        info!(
            client_id = shown(client_id),
            scopes = shown(&scope::join(&missing)),
            "scopes were added to a client at the upstream"
        );
        Ok(())
    }

    async fn stored(&self, issuer: &str, client_id: &str) -> Result<Option<StoredClient>, AdminError> {
        match &self.api {
            AdminApi::Hydra(hydra) => hydra.look_up(client_id).await,
            AdminApi::Keycloak(keycloak) => keycloak.look_up(realm_of(issuer), client_id).await,
        }
    }

    /// Counts an operation, and shows what is wrong with the admin API until one succeeds.
    async fn watched<T>(
        &self,
        operation: AdminOperation,
        work: impl Future<Output = Result<T, AdminError>>,
    ) -> Result<T, AdminError> {
        let place = timeout(PLACE_TIMEOUT, self.places.acquire()).await;
        let Ok(Ok(_place)) = place else { return Err(AdminError::Busy) };
        let done = work.await;
        self.counts.admin_asked(operation, done.is_ok());
        let failing = match &done {
            Ok(_) => None,
            Err(error) => {
                if let Some(count) = self.failures.count(std::time::Instant::now()) {
                    warn!(%error, count, "the admin API of the upstream was of no use");
                }
                error.reason().map(|reason| (reason, error.to_string()))
            }
        };
        self.tracker.toggle(kind::UPSTREAM_ADMIN_FAILING, failing, SystemTime::now());
        done
    }
}

/// The realm of an issuer path of Keycloak.
fn realm_of(issuer: &str) -> &str {
    issuer.rsplit_once("/realms/").map_or("", |(_, realm)| realm)
}

/// A lock for each client that somebody is at.
#[derive(Debug, Default)]
struct ClientLocks(Mutex<HashMap<ClientKey, Arc<TaskMutex<()>>>>);

/// Issuer path and client id.
type ClientKey = (String, String);

impl ClientLocks {
    fn of(&self, issuer: &str, client_id: &str) -> Arc<TaskMutex<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody is at any more. There are not many: each is one of a request that is in flight.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry((issuer.to_owned(), client_id.to_owned())).or_default())
    }
}

/// Requests to an admin API.
#[derive(Debug)]
struct AdminHttp {
    upstream: Upstream,
    base: String,
    credentials_file: Option<PathBuf>,
}

/// A body and its type.
type AdminBody = Option<(&'static str, String)>;

impl AdminHttp {
    /// Sends a request, once: the status and the whole body of its answer.
    async fn send(
        &self,
        method: Method,
        path: &str,
        authorization: Option<HeaderValue>,
        body: AdminBody,
    ) -> Result<(StatusCode, Bytes), AdminError> {
        let broken = |error: http::Error| AdminError::Upstream(UpstreamError::Broken(error.to_string()));
        let target =
            PathAndQuery::try_from(format!("{}{path}", self.base)).map_err(|error| broken(error.into()))?;
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, self.upstream.host().map_err(broken)?)
            .header(ACCEPT, "application/json")
            .header(ACCEPT_ENCODING, "identity");
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = match body {
            Some((kind, body)) => {
                request.header(CONTENT_TYPE, kind).header(CONTENT_LENGTH, body.len()).body(full(body))
            }
            None => request.header(CONTENT_LENGTH, 0).body(empty()),
        };
        let request = request.map_err(broken)?;
        let whole = async {
            let response =
                self.upstream.send(request, BodyProgress::default(), &SpareTimers::default()).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| UpstreamError::Broken(error.to_string()))?;
            Ok((status, body.to_bytes()))
        };
        timeout(self.upstream.timeout(), whole)
            .await
            .map_err(|_| AdminError::Upstream(UpstreamError::Timeout))?
    }

    /// The first line of the file with the credentials; `None` without one.
    fn credentials(&self) -> Result<Option<String>, AdminError> {
        let Some(path) = &self.credentials_file else { return Ok(None) };
        let unusable = |cause: String| AdminError::Credentials { path: path.clone(), cause };
        // A file of one line on a disk of this machine.
        let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
        let line = text.lines().next().unwrap_or_default().trim();
        if line.is_empty() {
            return Err(unusable("it is empty".to_owned()));
        }
        Ok(Some(line.to_owned()))
    }
}

/// An answer that is not a success.
fn unexpected(what: &'static str, status: StatusCode) -> AdminError {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => AdminError::Refused { what, status },
        _ => AdminError::Answer { what, how: status.to_string() },
    }
}

fn json_of(what: &'static str, body: &[u8]) -> Result<StrictJson, AdminError> {
    StrictJson::read(body).map_err(|error| AdminError::Answer { what, how: error.to_string() })
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// A secret in a header.
fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::try_from(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// Unreserved characters (RFC 3986 section 2.3) stand for themselves.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// How many operations are under way at the same time.
const PLACES: usize = 16;
/// How long one waits for that.
const PLACE_TIMEOUT: Duration = Duration::from_secs(10);
/// A realm may have many client scopes.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_says_whose_api_it_is() {
        #[track_caller]
        fn check(text: &str, expected: Option<(AdminKind, &str, Option<&str>)>) {
            let read = text.parse::<AdminUrl>().ok();
            let found = read.as_ref().map(|url| (url.kind, url.base.as_str(), url.realm.as_deref()));
            assert_eq!(found, expected, "{text}");
            if let Some(url) = read {
                assert_eq!(url.to_string(), text.trim_end_matches('/'));
            }
        }
        check("hydra+http://127.0.0.1:4445", Some((AdminKind::Hydra, "", None)));
        check("hydra+https://admin.example.com/hydra/", Some((AdminKind::Hydra, "/hydra", None)));
        check("keycloak+https://kc", Some((AdminKind::Keycloak, "", None)));
        check("keycloak+http://kc:8080/auth", Some((AdminKind::Keycloak, "/auth", None)));
        check(
            "keycloak+http://kc:8080/auth/realms/master",
            Some((AdminKind::Keycloak, "/auth", Some("master"))),
        );
        for text in [
            "",
            "http://a",
            "hydra+a",
            "hydra+ftp://a",
            "hydra+http://u@a",
            "hydra+http://a/?b",
            "okta+http://a",
            "hydra+http://a/../b",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn a_lock_is_one_clients_and_goes_with_the_last_request() {
        let locks = ClientLocks::default();
        let (one, same, other) = (locks.of("", "a"), locks.of("", "a"), locks.of("/t", "a"));
        assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
        drop((one, same, other));
        _ = locks.of("", "b");
        assert_eq!(locks.0.lock().unwrap().len(), 1);
    }
}
