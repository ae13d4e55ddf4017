//! One connection, from its first byte to its end: HTTP/2, its calls, pings, its age, and how it drains.
//!
//! Built on `h2` rather than on a server above it: only there can a response that its peer does not take be reset together with the
//! bytes that wait for it, and a message be refused before it is buffered (`docs/adr/`).

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use h2::{Ping, PingPong};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::accept::Connection;
use super::call::Calls;
use super::config::PeerLimits;
use super::response::Chunk;
use crate::backoff::jittered;

/// Serves a connection until its peer closes it, its age or `stop` ends it, or it breaks.
///
/// At `stop`, or when it is old, the peer is told to open no further stream (GOAWAY, RFC 9113 section 6.8), streams end after a grace, and
/// the connection ends with the last call: at once if the peer acknowledges that, and else after the same grace.
pub(super) async fn serve(mut connection: Connection, calls: Calls, stop: CancellationToken) {
    let peer = connection.peer();
    let written = connection.written();
    let mut closed = Box::pin(connection.take_closed());
    let limits = &calls.limits;
    let handshake = builder(limits).handshake::<_, Chunk>(connection);
    let mut http2 = tokio::select! {
        () = &mut closed => return debug!("a connection was closed by the server"),
        http2 = handshake => match http2 {
            Ok(http2) => http2,
            Err(error) => return debug!(%error, "a connection broke before its first frame"),
        }
    };
    // A tenth more or less, so that connections that began together do not end together.
    let age = jittered(limits.max_connection_age, 0.1);
    let pings = http2.ping_pong();
    let calls = calls.on_connection(peer);
    let mut settled = calls.settled_answers();
    let grace = || async {
        tokio::select! {
            () = sleep(limits.max_connection_age_grace) => {}
            () = async { stop.cancelled().await; sleep(limits.drain_grace).await } => {}
        }
    };
    // What is waited for apart from frames: looked at when it has come, and not with every frame.
    let mut events = FuturesUnordered::<Pin<Box<dyn Future<Output = Event> + Send + '_>>>::new();
    events.push(Box::pin(closed.map(|()| Event::Closed)));
    let alive = keep_alive(pings, limits.keepalive_interval, limits.keepalive_timeout);
    events.push(Box::pin(alive.map(|()| Event::Silent)));
    events.push(Box::pin(async {
        tokio::select! {
            () = sleep(age) => {}
            () = stop.cancelled() => {}
        }
        Event::Retire
    }));
    // What a peer asks without reading any answer piles up in HTTP/2, refusals too.
    let (mut seen, mut begun) = (0, 0);
    loop {
        let event = tokio::select! {
            biased;
            accepted = http2.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let now = written.load(Ordering::Relaxed);
                    begun = if now == seen { begun + 1 } else { 1 };
                    seen = now;
                    if begun > MAX_UNREAD_CALLS {
                        return debug!("a connection was closed, its peer asks and does not read");
                    }
                    calls.begin(request, respond);
                    continue;
                }
                Some(Err(error)) => return debug!(%error, "a connection broke"),
                None => return,
            },
            answers = settled.next() => {
                answers.into_iter().for_each(|answer| answer.send(limits.response_progress_timeout));
                continue;
            }
            Some(event) = events.next() => event,
        };
        match event {
            Event::Closed => return debug!("a connection was closed by the server"),
            Event::Silent => return debug!("a connection was closed, its peer does not answer pings"),
            Event::Idle => {
                return debug!("a connection was closed, its peer does not acknowledge that it ends");
            }
            Event::EndStreams => calls.end_streams(),
            Event::Retire => {
                calls.open().close();
                http2.graceful_shutdown();
                events.push(Box::pin(grace().map(|()| Event::EndStreams)));
                // Without it, a peer that does not read, and so acknowledges nothing, would keep the connection open.
                events.push(Box::pin(async {
                    loop {
                        calls.open().wait().await;
                        grace().await;
                        if calls.open().is_empty() {
                            return Event::Idle;
                        }
                    }
                }));
            }
        }
    }
}

/// What happens to a connection apart from its frames.
enum Event {
    /// The server closes it.
    Closed,
    /// Its peer does not answer pings.
    Silent,
    /// It is old, or the server stops.
    Retire,
    /// Its streams have had their time.
    EndStreams,
    /// Nothing has been open for a while, and its peer does not close it.
    Idle,
}

/// Completes when a ping is not answered in time.
async fn keep_alive(pings: Option<PingPong>, interval: Duration, deadline: Duration) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        sleep(interval).await;
        match timeout(deadline, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection is broken, which its own task notices.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// Every limit of HTTP/2 by its name, because most defaults are no limit at all.
fn builder(limits: &PeerLimits) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(limits.max_header_list_bytes)
        .max_pending_accept_reset_streams(limits.max_pending_accept_reset_streams)
        .max_local_error_reset_streams(Some(limits.max_local_error_reset_streams))
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(MAX_SEND_BUFFER_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .max_concurrent_reset_streams(MAX_RESET_STREAMS)
        .reset_stream_duration(RESET_STREAM_DURATION);
    builder
}

/// What a peer may send of one message before it was looked at.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// What a peer may send of all messages of a connection before they were looked at.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// What is handed to a stream before the socket has taken it.
const MAX_SEND_BUFFER_BYTES: usize = 400 * 1024;
/// The largest frame that a peer may send; the least that the protocol allows.
const MAX_FRAME_BYTES: u32 = 16 * 1024;
/// Calls that a peer may begin while its socket takes nothing: many times what it may have at once.
const MAX_UNREAD_CALLS: u32 = 4096;
/// Streams that we reset and still remember, for frames that were on their way.
const MAX_RESET_STREAMS: usize = 50;
const RESET_STREAM_DURATION: Duration = Duration::from_secs(1);
