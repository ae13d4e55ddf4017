//! The connection to a collector.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tonic::transport::{Channel, Endpoint};
use tower::Service;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber as _;

use super::settings::TraceSettings;
use crate::server::dial::{connect_tcp, connect_tls};
use crate::server::tls::{ClientTlsFiles, TlsError, client_config};

/// A channel that connects when it is used, and again when it has to. Needs a runtime.
///
/// # Errors
/// If the files of TLS cannot be used.
pub(super) fn channel(settings: &TraceSettings) -> Result<Channel, TlsError> {
    let TraceSettings { endpoint, tls, timeout, .. } = settings;
    let tls = match tls {
        None => None,
        Some(files) => Some((files.clone(), connector(files)?)),
    };
    let dial = Dial { collector: endpoint.clone(), tls };
    let endpoint = Endpoint::from(endpoint.clone())
        .executor(QuietExecutor)
        .connect_timeout(*timeout)
        // So that a connection whose peer is gone is not the one of the next export.
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    Ok(endpoint.connect_with_connector_lazy(dial))
}

fn connector(files: &ClientTlsFiles) -> Result<TlsConnector, TlsError> {
    Ok(TlsConnector::from(Arc::new(client_config(files)?)))
}

/// Connects to one collector, whatever it is asked for.
#[derive(Clone)]
struct Dial {
    collector: Uri,
    /// The files, and what they were at the start.
    tls: Option<(ClientTlsFiles, TlsConnector)>,
}

type Stream = Either<TcpStream, TlsStream<TcpStream>>;

impl Dial {
    async fn connect(self) -> io::Result<Stream> {
        let Self { collector, tls } = self;
        let Some((files, first)) = tls else { return Ok(Either::Left(connect_tcp(&collector).await?)) };
        // Read again, since certificates are replaced while a server runs; what is broken by now is not used.
        let newest = tokio::task::spawn_blocking(move || connector(&files)).await;
        let tls = newest.ok().and_then(Result::ok).unwrap_or(first);
        Ok(Either::Right(connect_tls(&tls, &collector).await?))
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connecting = self.clone().connect();
        Box::pin(async { Ok(TokioIo::new(connecting.await?)) })
    }
}

/// Runs what a connection needs, and logs nothing of it: HTTP/2 has lines for each frame at the lower levels, which would be those of
/// exports and not of calls.
struct QuietExecutor;

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for QuietExecutor {
    fn execute(&self, future: F) {
        tokio::spawn(future.with_subscriber(Dispatch::none()));
    }
}

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
