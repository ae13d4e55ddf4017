//! The admin HTTP endpoint: `/livez`, `/readyz`, `/metrics`, `/status.json`, and `/console` if it was asked for.
//!
//! Plain HTTP/1 on its own address, for probes and monitoring; it answers no decisions. `/livez` never depends on the policy:
//! restarting a process does not fix a file.
//!
//! One request for each connection, with one deadline for all of it. Peers that are slow to ask or to read cannot keep a probe from
//! its answer: the oldest that has not asked yet is closed to make room, and only what is large needs a place.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tracing::debug;

use super::accept::next_connection;
use super::console::Console;
use super::metrics::{self, Metrics};
use crate::budget::{Budget, Permit};
use crate::rpc::policy_status::StatusMessages;

/// Serves until `stop`. Connections that are open then are cut off: nothing here is worth waiting for.
///
/// # Errors
///
/// None today: what a peer does ends its connection, and what the system lacks is waited for.
pub(super) async fn serve(
    listener: TcpListener,
    messages: StatusMessages,
    metrics: Metrics,
    console: Option<Console>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let endpoint = Arc::new(Endpoint {
        messages,
        metrics,
        console,
        waiting: Mutex::default(),
        large: Budget::new(MAX_LARGE_ANSWERS),
    });
    // Aborts what is left when it is dropped.
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => return Ok(()),
            (stream, _) = next_connection(|| listener.accept()) => {
                let handle = connections.spawn(Arc::clone(&endpoint).connection(stream));
                endpoint.wait(handle);
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// What the endpoint shows, and who wants to see it.
struct Endpoint {
    messages: StatusMessages,
    metrics: Metrics,
    console: Option<Console>,
    /// Connections that have not asked yet, the oldest first.
    waiting: Mutex<VecDeque<AbortHandle>>,
    /// Answers that are large.
    large: Budget,
}

impl Endpoint {
    /// Notes a connection that has not asked yet, and closes the oldest of them if there are too many.
    fn wait(&self, handle: AbortHandle) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|handle| !handle.is_finished());
        if waiting.len() >= MAX_WAITING
            && let Some(oldest) = waiting.pop_front()
        {
            debug!("closed the oldest connection that had not asked anything");
            oldest.abort();
        }
        waiting.push_back(handle);
    }

    /// This task's connection has asked.
    fn asked(&self) {
        let Some(id) = tokio::task::try_id() else { return };
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).retain(|handle| handle.id() != id);
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        // Held until the connection ends, since it has one answer.
        let place: Mutex<Option<Permit>> = Mutex::new(None);
        let service = service_fn(async |request| {
            self.asked();
            let (answer, permit) = match &self.console {
                Some(console) if Console::is_asked(&request) => console.answer(request).await,
                _ => self.answer(&request),
            };
            *place.lock().unwrap_or_else(PoisonError::into_inner) = permit;
            Ok::<_, Infallible>(answer)
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(DEADLINE)
            .keep_alive(false)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        match timeout(DEADLINE, served).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "an admin connection broke"),
            Err(_) => debug!("an admin connection was closed at its deadline"),
        }
    }

    fn answer<B>(&self, request: &Request<B>) -> AdminAnswer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return (response, None);
        }
        let response = match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => self.readyz(request.uri().query()),
            path @ ("/status.json" | "/metrics") => {
                let Ok(permit) = self.large.take(1) else { return (busy(), None) };
                let response = if path == "/metrics" {
                    answer(StatusCode::OK, metrics::CONTENT_TYPE, self.metrics.render())
                } else {
                    self.status()
                };
                return (response, Some(permit));
            }
            _ => not_found(),
        };
        (response, None)
    }

    /// 200 while requests are answered, 503 otherwise; with `?verbose` every condition in a line.
    fn readyz(&self, query: Option<&str>) -> Response<Full<Bytes>> {
        let snapshot = self.messages.snapshot();
        let ready = snapshot.is_ready();
        let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let verbose = query.is_some_and(|query| {
            query.split('&').any(|part| part == "verbose" || part.starts_with("verbose="))
        });
        let mut lines = String::new();
        if verbose {
            for condition in &snapshot.conditions {
                // Writing to a String cannot fail.
                let _ = writeln!(
                    lines,
                    "{}={} {}: {}",
                    condition.kind,
                    condition.status.as_str(),
                    condition.reason,
                    condition.message
                );
            }
        }
        lines.push_str(if ready { "ok\n" } else { "not ready\n" });
        text(code, lines)
    }

    fn status(&self) -> Response<Full<Bytes>> {
        match self.messages.newest().json() {
            Some(json) => answer(StatusCode::OK, JSON, json),
            None => {
                let text = "{\"error\":\"status could not be printed\"}";
                answer(StatusCode::INTERNAL_SERVER_ERROR, JSON, text)
            }
        }
    }
}

/// A response, and the place that it holds until the connection ends.
pub(super) type AdminAnswer = (Response<Full<Bytes>>, Option<Permit>);

pub(super) fn not_found() -> Response<Full<Bytes>> {
    text(StatusCode::NOT_FOUND, "not found\n".to_owned())
}

/// For what cannot be answered because of others, and may be asked again in a second.
pub(super) fn busy() -> Response<Full<Bytes>> {
    let mut response =
        text(StatusCode::SERVICE_UNAVAILABLE, "too many answers are on their way\n".to_owned());
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

pub(super) fn text(code: StatusCode, body: String) -> Response<Full<Bytes>> {
    answer(code, "text/plain; charset=utf-8", body)
}

pub(super) fn answer(
    code: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub(super) const JSON: &str = "application/json";
/// How long a connection may take from its first byte to its last.
const DEADLINE: Duration = Duration::from_secs(10);
/// Connections that have not asked yet.
const MAX_WAITING: usize = 64;
/// Large answers that are on their way.
const MAX_LARGE_ANSWERS: usize = 8;
/// The request line and all headers.
const MAX_HEAD_BYTES: usize = 16 * 1024;
