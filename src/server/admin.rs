//! The admin HTTP endpoint: `/livez`, `/readyz`, `/metrics`, `/status.json`.
//!
//! Plain HTTP on its own address, for probes and monitoring; it answers no decisions. `/livez` never
//! depends on the policy: restarting a process does not mend a file.

use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

use super::metrics::{CONTENT_TYPE, Metrics};
use crate::proto::json;
use crate::rpc::policy_status::StatusMessages;

/// What the endpoint shows.
#[derive(Clone, Debug)]
struct Shown {
    messages: StatusMessages,
    metrics: Metrics,
}

/// Serves until `stop`. Connections that are open then are cut off: nothing here is worth waiting for.
///
/// # Errors
/// If serving ends by itself.
pub async fn serve(
    listener: TcpListener,
    messages: StatusMessages,
    metrics: Metrics,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let routes = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/status.json", get(status))
        .route("/metrics", get(render))
        .with_state(Shown { messages, metrics });
    tokio::select! {
        ended = axum::serve(Limited { listener, places: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }, routes).into_future() => ended,
        () = stop => Ok(()),
    }
}

async fn livez() -> &'static str {
    "ok\n"
}

/// 200 while requests are answered, 503 otherwise; with `?verbose` every condition in a line.
async fn readyz(State(shown): State<Shown>, RawQuery(query): RawQuery) -> impl IntoResponse {
    let snapshot = shown.messages.snapshot();
    let ready = snapshot.is_ready();
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let verbose = query
        .is_some_and(|query| query.split('&').any(|part| part == "verbose" || part.starts_with("verbose=")));
    let mut text = String::new();
    if verbose {
        for condition in &snapshot.conditions {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{}={} {}: {}",
                condition.kind,
                condition.status.as_str(),
                condition.reason,
                condition.message
            );
        }
    }
    text.push_str(if ready { "ok\n" } else { "not ready\n" });
    (code, text)
}

async fn status(State(shown): State<Shown>) -> impl IntoResponse {
    match json::to_string_pretty(shown.messages.newest().message()) {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], text),
        Err(error) => {
            tracing::error!(%error, "status could not be printed as JSON");
            let text = "{\"error\":\"status could not be printed\"}".to_owned();
            (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "application/json")], text)
        }
    }
}

async fn render(State(shown): State<Shown>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], shown.metrics.render())
}

/// Most open connections; further ones wait. Descriptors that are used up here would be missing where
/// decisions are asked for.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may send nothing, so that silent ones give their place back.
const MAX_SILENCE: Duration = Duration::from_secs(30);

/// Accepts as many connections as there are places.
#[derive(Debug)]
struct Limited {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Listener for Limited {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // The semaphore is never closed.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        (Connection { stream, silence: Box::pin(sleep(MAX_SILENCE)), _place: place }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with its place.
#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    silence: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(read) => {
                self.silence.as_mut().reset(Instant::now() + MAX_SILENCE);
                Poll::Ready(read)
            }
            Poll::Pending => {
                let over = self.silence.as_mut().poll(context);
                over.map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was sent for too long")))
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
