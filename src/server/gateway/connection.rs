//! One connection of a client, from its first byte to its end: HTTP/1 or HTTP/2, its age, how it drains, and the tunnel that it
//! may become.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Gateway;
use super::body::{GatewayBody, OpenResponses};
use super::head::ClientAddress;
use super::raw_head::{HeadFaults, HeadWatch, MAX_HEAD_BYTES};
use crate::backoff::jittered;
use crate::server::accept::Connection;
use crate::server::access::PeerIdentity;
use crate::server::config::PeerLimits;
use crate::server::pressure::ConnectionPressure;

/// What the requests of a connection share.
pub(super) struct ClientConnection {
    pub(super) gateway: Arc<Gateway>,
    pub(super) peer: PeerIdentity,
    pub(super) address: ClientAddress,
    pub(super) pressure: ConnectionPressure,
    pub(super) faults: HeadFaults,
    pub(super) responses: OpenResponses,
    has_asked: AtomicBool,
    tunnel: Mutex<Option<Tunnel>>,
}

/// What a connection does after it was upgraded.
pub(super) type Tunnel = Pin<Box<dyn Future<Output = ()> + Send>>;

impl ClientConnection {
    /// Runs once HTTP ends on this connection.
    pub(super) fn become_tunnel(&self, tunnel: Tunnel) {
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<GatewayBody>, Infallible> {
        self.has_asked.store(true, Ordering::Release);
        Ok(self.respond(request).await)
    }
}

/// Serves a connection until its peer closes it, its age or `stop` ends it, or it breaks.
pub(super) async fn serve(mut connection: Connection, gateway: Arc<Gateway>, stop: CancellationToken) {
    let peer = connection.peer();
    let mut closed = pin!(connection.take_closed());
    let limits = gateway.limits.clone();
    let faults = HeadFaults::default();
    let io = TokioIo::new(HeadWatch::new(connection, faults.clone(), limits.first_frame_timeout));
    let shared = Arc::new(ClientConnection {
        pressure: gateway.pressure.connection(),
        gateway,
        address: ClientAddress::new(&peer.address),
        peer,
        faults,
        responses: OpenResponses::default(),
        has_asked: AtomicBool::new(false),
        tunnel: Mutex::default(),
    });
    // Ends the requests of HTTP/2 with their connection.
    let ended = CancellationToken::new();
    let _ends = ended.clone().drop_guard();
    let builder = builder(&limits, RequestTasks { ended });
    let service = {
        let shared = Arc::clone(&shared);
        service_fn(move |request| Arc::clone(&shared).answer(request))
    };
    let mut http = pin!(builder.serve_connection_with_upgrades(io, service));
    let mut silence = pin!(sleep(limits.first_frame_timeout));
    let mut age = pin!(sleep(jittered(limits.max_connection_age, 0.1)));
    let patience = limits.response_progress_timeout;
    let mut looks = interval(patience.max(LEAST_LOOK) / 3);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut may_be_silent, mut is_retired) = (true, false);
    loop {
        tokio::select! {
            biased;
            ended = http.as_mut() => match ended {
                Ok(()) => break,
                Err(error) => return debug!(%error, "a connection broke"),
            },
            () = &mut closed => return debug!("a connection was closed by the server"),
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
    let tunnel = shared.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(tunnel) = tunnel {
        tokio::select! {
            () = tunnel => {}
            () = &mut closed => {}
            () = stop.cancelled() => {}
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
fn builder(limits: &PeerLimits, tasks: RequestTasks) -> Builder<RequestTasks> {
    let mut builder = Builder::new(tasks);
    builder
        .http1()
        .timer(TokioTimer::new())
        // From one request to the next; a head that has begun has less time (`raw_head`).
        .header_read_timeout(IDLE)
        .max_buf_size(MAX_HEAD_BYTES)
        .preserve_header_case(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
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
const MAX_HEADER_LIST_BYTES: u32 = 64 * 1024;
/// What a peer may send of one body before it was passed on.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// What a peer may send of all bodies of a connection before they were passed on.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// What is handed to a stream before the socket has taken it.
const MAX_SEND_BUFFER_BYTES: usize = 256 * 1024;
