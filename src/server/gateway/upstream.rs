//! The client of the upstream: HTTP/1.1 over connections that are kept for a while, each request sent once.

use std::fmt;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::Either;
use http::header::{ACCEPT, ACCEPT_ENCODING, HOST, HeaderValue, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::time::{Instant, timeout_at};

use self::body::UpstreamBody;
use self::connection::UpstreamConnection;
use self::pool::UpstreamPool;
use super::body::{BodyProgress, GatewayBody, empty};
use crate::server::dial::cause;
use crate::server::tls::{ClientTlsFiles, ServerTrust, TlsError, client_config};
use crate::server::web::timers::SpareTimers;

pub(super) mod body;
mod connection;
mod pool;
mod wakes;

/// Where an authorization server is.
#[derive(Clone)]
pub(super) struct Upstream {
    pool: UpstreamPool,
    authority: Authority,
    timeout: Duration,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Upstream").field("authority", &self.authority).finish_non_exhaustive()
    }
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

impl From<hyper::Error> for UpstreamError {
    fn from(error: hyper::Error) -> Self {
        Self::Broken(cause(&error))
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
        Ok(Self { pool: UpstreamPool::new(connector, scheme, authority.clone()), authority, timeout })
    }

    /// How long it may take to begin its answer, and between two parts of it.
    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Its authority, for `Host`.
    pub(super) fn host(&self) -> Result<HeaderValue, http::Error> {
        Ok(HeaderValue::try_from(self.authority.as_str())?)
    }

    /// Sends a request, once. The time begins again with each part of its body, noted in `progress`.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub(super) async fn send(
        &self,
        request: Request<GatewayBody>,
        progress: BodyProgress,
        timers: &SpareTimers,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let mut answered = pin!(self.exchange(request, &progress));
        loop {
            let seen = progress.parts();
            match timers.within(self.timeout, answered.as_mut()).await {
                Some(answered) => return answered,
                None if progress.parts() > seen => {}
                None => return Err(UpstreamError::Timeout),
            }
        }
    }

    /// Sends a request, however long it takes.
    fn exchange<'u>(
        &'u self,
        request: Request<GatewayBody>,
        progress: &'u BodyProgress,
    ) -> impl Future<Output = Result<Response<UpstreamBody>, UpstreamError>> + Send + 'u {
        let is_upgrade = request.headers().contains_key(UPGRADE);
        match if is_upgrade { None } else { self.pool.take() } {
            Some(connection) => {
                Either::Left(connection.send(request).map(|answered| Ok(self.answered(answered?, progress))))
            }
            None => Either::Right(Box::pin(async move {
                if is_upgrade {
                    return Ok(self.pool.send_upgrade(request).await?.map(UpstreamBody::alone));
                }
                let connection = self.pool.connect().await?;
                Ok(self.answered(connection.send(request).await?, progress))
            })),
        }
    }

    /// An answer with the body that its connection brings.
    fn answered(
        &self,
        (response, connection): (Response<Incoming>, UpstreamConnection),
        progress: &BodyProgress,
    ) -> Response<UpstreamBody> {
        if progress.is_under_way() {
            // The rest of the request goes on even if the client does not take the answer.
            connection.end_alone();
            return response.map(UpstreamBody::alone);
        }
        response.map(|body| UpstreamBody::of(body, connection, &self.pool, progress.is_of_parts()))
    }

    /// Gets a JSON document of at most `limit` bytes: status and bytes.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub(super) async fn get(&self, path: &str, limit: usize) -> Result<(StatusCode, Bytes), UpstreamError> {
        let broken = |error: http::Error| UpstreamError::Broken(error.to_string());
        let target = PathAndQuery::try_from(path).map_err(|error| broken(error.into()))?;
        let request = Request::get(target)
            .header(HOST, self.host().map_err(broken)?)
            .header(ACCEPT, "application/json")
            .header(ACCEPT_ENCODING, "identity")
            .body(empty())
            .map_err(broken)?;
        let whole = async {
            let response = self.send(request, BodyProgress::default(), &SpareTimers::default()).await?;
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

#[cfg(test)]
mod tests;
