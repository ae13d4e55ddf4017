//! The client of the upstream: HTTP/1.1 over connections that are kept for a while, each request sent once.

use std::io;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, HOST, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout_at};

use super::body::{BodyProgress, GatewayBody, empty};
use crate::server::dial::cause;
use crate::server::tls::{ClientTlsFiles, ServerTrust, TlsError, client_config};
use crate::server::web::timers::SpareTimers;

/// Where an authorization server is.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    client: Client<HttpsConnector<HttpConnector>, GatewayBody>,
    scheme: Scheme,
    authority: Authority,
    timeout: Duration,
}

/// Why there is no answer of the upstream.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection.
    #[error("could not connect to the upstream: {0}")]
    Connect(String),
    /// It took too long.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// It answered something that cannot be passed on, or broke off.
    #[error("the upstream broke off: {0}")]
    Broken(String),
}

impl UpstreamError {
    /// The status to answer with (RFC 9110 sections 15.6.3 and 15.6.5).
    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Connect(_) | Self::Broken(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// The value of a metric's label.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Timeout => "timeout",
            Self::Broken(_) => "broken",
        }
    }
}

impl Upstream {
    /// A client of `url`, which has a scheme and an authority. Over TLS it is known by a certificate of `ca`.
    ///
    /// # Errors
    /// If the file cannot be used.
    pub(super) fn new(
        scheme: Scheme,
        authority: Authority,
        ca: Option<&Path>,
        timeout: Duration,
    ) -> Result<Self, TlsError> {
        let trust = ca.map_or(ServerTrust::Unverified, |ca| ServerTrust::IssuedBy(ca.to_owned()));
        let mut tls = client_config(&ClientTlsFiles { trust, own: None })?;
        // The connector sets its own.
        tls.alpn_protocols.clear();
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT.min(timeout)));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEPT_IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            // Odd clients get the names of headers as the upstream spells them. What clients send has no need of it.
            .http1_preserve_header_case(true)
            .http1_max_buf_size(MAX_BUFFER_BYTES)
            .set_host(false)
            .retry_canceled_requests(false)
            .build(connector);
        Ok(Self { client, scheme, authority, timeout })
    }

    /// How long it may take to begin its answer, and between two parts of it.
    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Its authority, for `Host`.
    pub(super) fn host(&self) -> Result<HeaderValue, http::Error> {
        Ok(HeaderValue::try_from(self.authority.as_str())?)
    }

    /// The whole URI of something there.
    pub(super) fn uri(&self, target: PathAndQuery) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(target)
            .build()
    }

    /// Sends a request, once. The time begins again with each part of its body, noted in `progress`.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub(super) async fn send(
        &self,
        request: Request<GatewayBody>,
        progress: &BodyProgress,
        timers: &SpareTimers,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let mut answered = pin!(self.client.request(request));
        loop {
            let seen = progress.parts();
            match timers.within(self.timeout, answered.as_mut()).await {
                Some(Ok(response)) => return Ok(response),
                Some(Err(error)) if error.is_connect() => {
                    let cause = cause(&error);
                    let is_late = io::ErrorKind::TimedOut.to_string() == cause;
                    return Err(if is_late { UpstreamError::Timeout } else { UpstreamError::Connect(cause) });
                }
                Some(Err(error)) => return Err(UpstreamError::Broken(cause(&error))),
                None if progress.parts() > seen => {}
                None => return Err(UpstreamError::Timeout),
            }
        }
    }

    /// Gets a JSON document of at most `limit` bytes: status and bytes.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub(super) async fn get(&self, path: &str, limit: usize) -> Result<(StatusCode, Bytes), UpstreamError> {
        let broken = |error: http::Error| UpstreamError::Broken(error.to_string());
        let target = PathAndQuery::try_from(path).map_err(|error| broken(error.into()))?;
        let request = Request::get(self.uri(target).map_err(broken)?)
            .header(HOST, self.host().map_err(broken)?)
            .header(ACCEPT, "application/json")
            .header(ACCEPT_ENCODING, "identity")
            .body(empty())
            .map_err(broken)?;
        let whole = async {
            let response = self.send(request, &BodyProgress::default(), &SpareTimers::default()).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), limit).collect().await;
            let body = body.map_err(|error| UpstreamError::Broken(cause(&*error)))?;
            Ok((status, body.to_bytes()))
        };
        timeout_at(Instant::now() + self.timeout.min(DOCUMENT_TIMEOUT), whole)
            .await
            .map_err(|_| UpstreamError::Timeout)?
    }
}

/// How long a document may take: a start waits for it.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Less than the 5 s after which servers with Node close a connection that is idle: a request on one that is being closed is lost.
const KEPT_IDLE: Duration = Duration::from_secs(4);
const MAX_IDLE: usize = 256;
/// What is read of the upstream before a client has taken it.
const MAX_BUFFER_BYTES: usize = 256 * 1024;
