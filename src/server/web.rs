//! One connection over HTTP/1 or HTTP/2, from its first byte to its end, on hyper: its limits, its age, how it drains, and answers
//! that its peer does not take. What is answered is up to who serves it: the gateway, or the API over HTTP.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::header::{CONNECTION, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::body::OpenResponses;
use self::raw_head::{HeadFaults, HeadWatch};
use self::timers::SpareTimers;
use super::accept::Connection;
use super::access::PeerIdentity;
use super::config::PeerLimits;
use super::pressure::{ConnectionPressure, Pressure};
use crate::backoff::jittered;

pub(super) mod bad_request;
pub(super) mod body;
pub(super) mod raw_head;
pub(super) mod timers;

/// What the requests of a connection share.
#[derive(Debug)]
pub(super) struct WebConnection {
    pub(super) peer: Arc<PeerIdentity>,
    pub(super) pressure: ConnectionPressure,
    pub(super) faults: HeadFaults,
    pub(super) responses: OpenResponses,
    pub(super) timers: SpareTimers,
    /// Requests that began.
    asked: AtomicU64,
    is_http2: AtomicBool,
}

impl WebConnection {
    /// A connection from `peer` that has asked nothing yet.
    pub(super) fn new(peer: PeerIdentity, pressure: &Pressure) -> Self {
        Self {
            peer: Arc::new(peer),
            pressure: pressure.connection(),
            faults: HeadFaults::default(),
            responses: OpenResponses::default(),
            timers: SpareTimers::default(),
            asked: AtomicU64::default(),
            is_http2: AtomicBool::default(),
        }
    }
}

/// Serves a connection until its peer closes it, its age or `stop` ends it, it breaks, or it was upgraded. `closed` completes when the
/// server closes it; the headers of a request have at most `max_head_bytes`.
pub(super) async fn serve<F, B>(
    (connection, closed): (Connection, Pin<&mut impl Future<Output = ()>>),
    shared: Arc<WebConnection>,
    (limits, max_head_bytes): (&PeerLimits, u32),
    stop: &CancellationToken,
    answer: impl Fn(Request<Incoming>, AfterAnswer) -> F,
) where
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>, Data: Send> + Send + 'static,
{
    let watch = HeadWatch::new(connection, shared.faults.clone(), limits.first_frame_timeout);
    // Ends the requests of HTTP/2 with their connection.
    let ended = CancellationToken::new();
    let _ends = ended.clone().drop_guard();
    let builder = builder(limits, max_head_bytes, RequestTasks { ended });
    let service = service_fn(|request: Request<Incoming>| {
        let version = request.version();
        shared.asked.fetch_add(1, Ordering::Release);
        if version == Version::HTTP_2 {
            shared.is_http2.store(true, Ordering::Release);
        }
        // What follows on such a connection is not looked at (`raw_head`), so it is the last request.
        let is_last = version != Version::HTTP_2
            && (request.headers().contains_key(TRANSFER_ENCODING) || request.headers().contains_key(UPGRADE));
        let after = match version {
            Version::HTTP_2 => AfterAnswer::Stream,
            _ if is_last => AfterAnswer::Close,
            _ => AfterAnswer::Next,
        };
        answer(request, after)
    });
    let mut http = pin!(builder.serve_connection_with_upgrades(TokioIo::new(watch), service));
    // It is polled when something happens to it, and not whenever a byte comes.
    let mut watch = FuturesUnordered::new();
    watch.push(ConnectionWatch::new(&shared, limits, stop, closed).next());
    loop {
        tokio::select! {
            biased;
            ended = http.as_mut() => return match ended {
                Ok(()) => {}
                Err(error) => debug!(%error, "a connection broke"),
            },
            Some((event, watching)) = watch.next() => match event {
                WatchEvent::Close(why) => return debug!("a connection was closed, {why}"),
                WatchEvent::Retire => {
                    http.as_mut().graceful_shutdown();
                    watch.push(watching.next());
                }
            },
        }
    }
}

/// What comes after an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum AfterAnswer {
    /// The next request of its connection, if there is one.
    Next,
    /// The end of its connection.
    Close,
    /// The end of its stream.
    Stream,
}

impl AfterAnswer {
    /// The answer with what it has to say of that. For the end of whatever future answers: another one around that would have twice its
    /// size, and hyper moves it.
    pub(super) fn apply_to<B>(self, mut response: Response<B>) -> Result<Response<B>, Infallible> {
        match self {
            Self::Close if response.status() != StatusCode::SWITCHING_PROTOCOLS => {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::Stream => _ = response.headers_mut().remove(CONNECTION),
            Self::Next | Self::Close => {}
        }
        Ok(response)
    }
}

/// What becomes of a connection, whatever its requests are.
enum WatchEvent {
    /// It is closed, since this is so.
    Close(&'static str),
    /// It takes no new request.
    Retire,
}

/// Watches what ends a connection.
struct ConnectionWatch<'s, C> {
    shared: &'s WebConnection,
    stop: &'s CancellationToken,
    closed: Pin<&'s mut C>,
    patience: Duration,
    looks: Interval,
    /// Until a first request must be there.
    silence: Option<Pin<Box<Sleep>>>,
    /// Until it takes no new request.
    age: Option<Pin<Box<Sleep>>>,
    /// Since when no request was seen, and how many there were before.
    idle: (Instant, u64),
}

impl<'s, C: Future<Output = ()>> ConnectionWatch<'s, C> {
    fn new(
        shared: &'s WebConnection,
        limits: &PeerLimits,
        stop: &'s CancellationToken,
        closed: Pin<&'s mut C>,
    ) -> Self {
        let patience = limits.response_progress_timeout;
        let mut looks = interval((patience.max(LEAST_LOOK) / 3).min(IDLE / 6));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            shared,
            stop,
            closed,
            patience,
            looks,
            silence: Some(Box::pin(sleep(limits.first_frame_timeout))),
            age: Some(Box::pin(sleep(jittered(limits.max_connection_age, 0.1)))),
            idle: (Instant::now(), 0),
        }
    }

    /// What happens next.
    async fn next(mut self) -> (WatchEvent, Self) {
        loop {
            let is_retired = self.age.is_none();
            tokio::select! {
                biased;
                () = self.closed.as_mut() => return (WatchEvent::Close("by the server"), self),
                () = elapsed(self.silence.as_mut()) => {
                    self.silence = None;
                    if self.shared.asked.load(Ordering::Acquire) == 0 {
                        return (WatchEvent::Close("it asked nothing in time"), self);
                    }
                }
                // HTTP/2 has windows, behind which a response can wait while the socket takes all that it is given.
                now = self.looks.tick() => {
                    if self.shared.responses.are_stalled(self.patience, now) {
                        return (WatchEvent::Close("its peer does not take an answer"), self);
                    }
                    if self.is_idle(now) {
                        return (WatchEvent::Close("it is idle"), self);
                    }
                }
                () = elapsed(self.age.as_mut()) => {
                    self.age = None;
                    return (WatchEvent::Retire, self);
                }
                () = self.stop.cancelled(), if !is_retired => {
                    self.age = None;
                    return (WatchEvent::Retire, self);
                }
            }
        }
    }

    /// Returns `true` if a connection over HTTP/1 has been without a request for too long. One over HTTP/2 is pinged.
    fn is_idle(&mut self, now: Instant) -> bool {
        let Self { shared, idle: (since, before), .. } = self;
        let asked = shared.asked.load(Ordering::Acquire);
        if asked != *before || !shared.pressure.open().is_empty() {
            (*since, *before) = (now, asked);
        }
        !shared.is_http2.load(Ordering::Acquire) && now.saturating_duration_since(*since) >= IDLE
    }
}

/// Completes when the time is over, and never without one.
async fn elapsed(time: Option<&mut Pin<Box<Sleep>>>) {
    match time {
        Some(time) => time.await,
        None => std::future::pending().await,
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
        // Of no use without a timer: heads have a time in `raw_head`, and idle connections in `ConnectionWatch`.
        .header_read_timeout(None)
        .max_buf_size(max_head_bytes as usize);
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
