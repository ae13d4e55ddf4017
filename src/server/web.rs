//! One connection over HTTP/1 or HTTP/2, from its first byte to its end, on hyper: its limits, its age, how it drains, and answers
//! that its peer does not take. What is answered is up to who serves it: the gateway, or the API over HTTP.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::body::OpenResponses;
use self::raw_head::{HeadFaults, HeadWatch};
use super::accept::Connection;
use super::access::PeerIdentity;
use super::config::PeerLimits;
use super::pressure::{ConnectionPressure, Pressure};
use crate::backoff::jittered;

pub(super) mod bad_request;
pub(super) mod body;
pub(super) mod raw_head;

/// What the requests of a connection share.
#[derive(Debug)]
pub(super) struct WebConnection {
    pub(super) peer: Arc<PeerIdentity>,
    pub(super) pressure: ConnectionPressure,
    pub(super) faults: HeadFaults,
    pub(super) responses: OpenResponses,
    has_asked: AtomicBool,
}

impl WebConnection {
    /// A connection from `peer` that has asked nothing yet.
    pub(super) fn new(peer: PeerIdentity, pressure: &Pressure) -> Self {
        Self {
            peer: Arc::new(peer),
            pressure: pressure.connection(),
            faults: HeadFaults::default(),
            responses: OpenResponses::default(),
            has_asked: AtomicBool::new(false),
        }
    }
}

/// Serves a connection until its peer closes it, its age or `stop` ends it, it breaks, or it was upgraded. `closed` completes when the
/// server closes it; the headers of a request have at most `max_head_bytes`.
pub(super) async fn serve<F, B>(
    (connection, mut closed): (Connection, Pin<&mut impl Future<Output = ()>>),
    shared: Arc<WebConnection>,
    (limits, max_head_bytes): (&PeerLimits, u32),
    stop: &CancellationToken,
    answer: impl Fn(Request<Incoming>) -> F,
) where
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>, Data: Send> + Send + 'static,
{
    let watch = HeadWatch::new(connection, shared.faults.clone(), limits.first_frame_timeout);
    // Ends the requests of HTTP/2 with their connection.
    let ended = CancellationToken::new();
    let _ends = ended.clone().drop_guard();
    let builder = builder(limits, max_head_bytes, RequestTasks { ended });
    let service = service_fn(|request: Request<Incoming>| {
        shared.has_asked.store(true, Ordering::Release);
        let version = request.version();
        // What follows on such a connection is not looked at (`raw_head`), so it is the last request.
        let is_last = version != Version::HTTP_2
            && (request.headers().contains_key(TRANSFER_ENCODING) || request.headers().contains_key(UPGRADE));
        let answer = answer(request);
        async move {
            let mut response = answer.await;
            if is_last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            if version == Version::HTTP_2 {
                response.headers_mut().remove(CONNECTION);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut http = pin!(builder.serve_connection_with_upgrades(TokioIo::new(watch), service));
    let mut silence = pin!(sleep(limits.first_frame_timeout));
    let mut age = pin!(sleep(jittered(limits.max_connection_age, 0.1)));
    let patience = limits.response_progress_timeout;
    let mut looks = interval(patience.max(LEAST_LOOK) / 3);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut may_be_silent, mut is_retired) = (true, false);
    loop {
        tokio::select! {
            biased;
            ended = http.as_mut() => return match ended {
                Ok(()) => {}
                Err(error) => debug!(%error, "a connection broke"),
            },
            () = closed.as_mut() => return debug!("a connection was closed by the server"),
            () = &mut silence, if may_be_silent => {
                may_be_silent = false;
                if !shared.has_asked.load(Ordering::Acquire) {
                    return debug!("a connection was closed, it asked nothing in time");
                }
            }
            // HTTP/2 has windows, behind which a response can wait while the socket takes all that it is given.
            now = looks.tick() => if shared.responses.are_stalled(patience, now) {
                return debug!("a connection was closed, its peer does not take an answer");
            },
            () = &mut age, if !is_retired => {
                is_retired = true;
                http.as_mut().graceful_shutdown();
            }
            () = stop.cancelled(), if !is_retired => {
                is_retired = true;
                http.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Runs the requests of an HTTP/2 connection.
#[derive(Clone, Debug)]
struct RequestTasks {
    ended: CancellationToken,
}

impl<F> Executor<F> for RequestTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, request: F) {
        let ended = self.ended.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = request => {}
                () = ended.cancelled() => {}
            }
        });
    }
}

/// Every limit by its name, because most defaults are no limit at all.
fn builder(limits: &PeerLimits, max_head_bytes: u32, tasks: RequestTasks) -> Builder<RequestTasks> {
    let mut builder = Builder::new(tasks);
    builder
        .http1()
        .timer(TokioTimer::new())
        // From one request to the next; a head that has begun has less time (`raw_head`).
        .header_read_timeout(IDLE)
        .max_buf_size(max_head_bytes as usize)
        .preserve_header_case(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(max_head_bytes)
        .max_pending_accept_reset_streams(limits.max_pending_accept_reset_streams)
        .max_local_error_reset_streams(limits.max_local_error_reset_streams)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(MAX_SEND_BUFFER_BYTES)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    builder
}

/// Between looks whether answers are taken, three times.
const LEAST_LOOK: Duration = Duration::from_millis(30);
/// How long a connection over HTTP/1 may be idle between two requests.
const IDLE: Duration = Duration::from_secs(60);
/// What a peer may send of one body before it was taken.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// What a peer may send of all bodies of a connection before they were taken.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// What is handed to a stream before the socket has taken it.
const MAX_SEND_BUFFER_BYTES: usize = 256 * 1024;
