//! One connection to the upstream: HTTP/1.1 by hyper, polled by the task whose request it has.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::debug;

use super::wakes::ConnectionWakes;
use crate::server::gateway::body::GatewayBody;

/// A connection that has no request, or the one of its holder.
pub(super) struct UpstreamConnection(Box<ConnectionParts>);

struct ConnectionParts {
    send: SendRequest<GatewayBody>,
    http: DrivenHttp,
    /// Since when it is idle.
    idle_since: Instant,
}

impl UpstreamConnection {
    /// A connection over a socket. While it is idle, `keeper` is notified of what happens to it.
    pub(super) async fn new(io: UpstreamSocket, keeper: &Arc<Notify>) -> hyper::Result<Self> {
        let wakes = ConnectionWakes::new(Arc::clone(keeper));
        let io = UpstreamIo { io, waker: Some(wakes.socket_waker()) };
        let (send, connection) = builder().handshake(io).await?;
        let waker = Waker::from(Arc::clone(&wakes));
        let http = DrivenHttp { connection: Some(connection), wakes, waker };
        Ok(Self(Box::new(ConnectionParts { send, http, idle_since: Instant::now() })))
    }

    /// Since when it is idle.
    pub(super) fn idle_since(&self) -> Instant {
        self.0.idle_since
    }

    /// Returns `true` if it is still open, of an idle one.
    pub(super) fn is_open(&mut self) -> bool {
        !self.0.http.wakes.is_touched() || self.settle(true)
    }

    /// Sends a request. The connection comes back with the head of the answer, of which it has more.
    pub(super) fn send(
        mut self,
        request: Request<GatewayBody>,
    ) -> impl Future<Output = hyper::Result<(Response<Incoming>, Self)>> + Send {
        // Not in the block, which would have the size of the request.
        let answered = self.0.send.send_request(request);
        async move {
            let (mut answered, http) = (pin!(answered), &mut self.0.http);
            let response = poll_fn(|cx| http.poll(cx, |cx, _| answered.as_mut().poll(cx))).await?;
            Ok((response, self))
        }
    }

    /// Polls what the connection brings: what of it is here already, and else the connection and then that.
    pub(super) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut poll_brought: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.0.http.wakes.hold();
        match poll_brought(&mut Context::from_waker(&self.0.http.waker)) {
            Poll::Ready(brought) => Poll::Ready(brought),
            Poll::Pending => self.0.http.poll(cx, |cx, _| poll_brought(cx)),
        }
    }

    /// The connection as an idle one; `None` if it takes no more requests. `is_due`: it is polled even if nothing seems to have
    /// happened.
    pub(super) fn rest(mut self, is_due: bool) -> Option<Self> {
        if self.settle(is_due) {
            self.0.idle_since = Instant::now();
            return Some(self);
        }
        if self.0.http.connection.is_some() {
            // Something is still to be written: of its request, or that it ends.
            self.end_alone();
        }
        None
    }

    /// Polls it until it is idle. Returns `false` if it ends instead.
    fn settle(&mut self, mut is_due: bool) -> bool {
        let ConnectionParts { send, http, .. } = &mut *self.0;
        for _ in 0..SETTLE_TURNS {
            if is_due {
                http.advance();
            }
            if http.connection.is_none() {
                return false;
            }
            if send.is_ready() && http.wakes.rest() {
                return true;
            }
            is_due = true;
        }
        false
    }

    /// Takes it out of its rest. Returns `false` if it ended meanwhile.
    pub(super) fn resume(&mut self) -> bool {
        let ConnectionParts { send, http, .. } = &mut *self.0;
        if http.wakes.begin() {
            http.advance();
        }
        http.connection.is_some() && send.is_ready()
    }

    /// Lets it do what is left to do, and end, whether or not the client takes the answer.
    pub(super) fn end_alone(self) {
        let ConnectionParts { send, mut http, .. } = *self.0;
        // Without it there is no other request, so the connection ends after this one.
        drop(send);
        tokio::spawn(async move {
            poll_fn(|cx| http.poll(cx, |_, is_open| if is_open { Poll::Pending } else { Poll::Ready(()) }))
                .await;
        });
    }
}

/// HTTP on a connection, with its wakers.
struct DrivenHttp {
    /// Until it ends.
    connection: Option<Connection<UpstreamIo, GatewayBody>>,
    wakes: Arc<ConnectionWakes>,
    /// Of what is within the connection.
    waker: Waker,
}

impl DrivenHttp {
    /// Polls it, and `then` what it brings, which is told whether the connection is still open, until nothing happens any more.
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut then: impl FnMut(&mut Context<'_>, bool) -> Poll<T>,
    ) -> Poll<T> {
        for _ in 0..MAX_TURNS {
            self.advance();
            let done = then(&mut Context::from_waker(&self.waker), self.connection.is_some());
            if done.is_ready() {
                return done;
            }
            if self.wakes.wait(cx.waker()) {
                return Poll::Pending;
            }
        }
        // Others have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Polls the connection once.
    fn advance(&mut self) {
        self.wakes.begin();
        let Some(connection) = &mut self.connection else { return };
        if let Poll::Ready(ended) = Pin::new(connection).poll(&mut Context::from_waker(&self.waker)) {
            // Whoever waits for an answer knows why by now.
            if let Err(error) = ended {
                debug!(%error, "a connection to the upstream broke");
            }
            self.connection = None;
        }
    }
}

/// Sends a request that asks for another protocol, over a socket that becomes that of the protocol.
pub(super) async fn send_upgrade(
    io: UpstreamSocket,
    request: Request<GatewayBody>,
) -> hyper::Result<Response<Incoming>> {
    let (mut send, connection) = builder().handshake(UpstreamIo { io, waker: None }).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, "a connection to the upstream broke");
        }
    });
    send.send_request(request).await
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    // Odd clients get the names of headers as the upstream spells them. What clients send has no need of it.
    builder.preserve_header_case(true).max_buf_size(MAX_BUFFER_BYTES);
    builder
}

/// The socket of a connection.
pub(super) type UpstreamSocket = MaybeHttpsStream<TokioIo<TcpStream>>;

/// A socket with a waker of its own, so that what happens to it is known from what hyper wakes itself for.
struct UpstreamIo {
    io: UpstreamSocket,
    /// `None` for that of the task.
    waker: Option<Waker>,
}

impl UpstreamIo {
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut UpstreamSocket>, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let io = Pin::new(&mut self.io);
        match &self.waker {
            Some(waker) => poll(io, &mut Context::from_waker(waker)),
            None => poll(io, cx),
        }
    }
}

impl Read for UpstreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll(cx, |io, cx| io.poll_read(cx, buf))
    }
}

impl Write for UpstreamIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(cx, |io, cx| io.poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |io, cx| io.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |io, cx| io.poll_shutdown(cx))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(cx, |io, cx| io.poll_write_vectored(cx, bufs))
    }
}

/// What is read of the upstream before a client has taken it.
const MAX_BUFFER_BYTES: usize = 256 * 1024;
/// How often a connection is polled before others have their turn.
const MAX_TURNS: usize = 16;
/// How often a connection is polled that should be idle after one time.
const SETTLE_TURNS: usize = 3;
