//! Accepting connections, and closing them again: a limit on their number, a deadline for the first frame, and a
//! way to end those that would outlast a shutdown.
//!
//! The HTTP/2 stack keeps a connection open forever that sends nothing, half a preface, or a preface alone, and
//! its graceful shutdown waits as long for such a connection (RFC 9113 section 3.4 has the preface).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::access::PeerIdentity;
use super::config::PeerLimits;
use super::listen::{BoundListener, ListenerProtocol, Socket};
use super::pressure::{ConnectionRefusal, OpenConnection, Pressure};
use super::task_request::TaskRequestListener;
use super::tls::{CurrentTls, client_names};
use crate::rpc::caller::PeerAddress;
use crate::throttle::Throttle;

/// Accepts connections and hands them to `serve` until `stop`, and closes the listener then.
///
/// A connection over a limit is closed at once, so that its peer fails fast instead of waiting in a queue.
pub(super) async fn accept(
    listener: BoundListener,
    connections: Connections,
    serve: impl Fn(Connection),
    mut checks: TaskRequestListener,
    stop: CancellationToken,
) {
    let refusals = Throttle::every_minute();
    loop {
        let (socket, peer) = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            // That it is heard is all that is asked.
            _ = checks.next() => continue,
            next = next_connection(|| listener.accept()) => next,
        };
        if let Err(error) = socket.set_nodelay() {
            debug!(%error, %peer, "a connection broke while it was accepted");
            continue;
        }
        match connections.admit(listener.protocol(), socket, peer) {
            Ok(connection) => serve(connection),
            Err(cause) => {
                if let Some(count) = refusals.count(Instant::now()) {
                    let (cause, limit) = (cause.as_str(), connections.limit);
                    warn!(%peer, cause, limit, count, "connections were closed at once, the limit is reached");
                }
            }
        }
    }
}

/// The next connection. When the process runs out of file descriptors or memory, accepting pauses instead of spinning.
pub(super) async fn next_connection<T, F>(accept: impl Fn() -> F) -> T
where
    F: Future<Output = io::Result<T>>,
{
    static FAILURES: Throttle = Throttle::every_minute();
    loop {
        match accept().await {
            Ok(next) => return next,
            Err(error) if is_about_one_peer(&error) => {
                debug!(%error, "a connection broke before it was accepted");
            }
            Err(error) => {
                if let Some(count) = FAILURES.count(Instant::now()) {
                    warn!(%error, count, "connections cannot be accepted, trying again");
                }
                sleep(PAUSE).await;
            }
        }
    }
}

fn is_about_one_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// The open connections. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    limit: usize,
    limit_of_peer: usize,
    first_frame_timeout: Duration,
    handshake_timeout: Duration,
    pressure: Pressure,
    open: Arc<Mutex<OpenConnections>>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    next_id: u64,
    /// No further connection is admitted.
    closing: bool,
    by_id: HashMap<u64, Handle>,
    by_peer: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Handle {
    close: oneshot::Sender<()>,
    has_first_frame: Arc<AtomicBool>,
}

impl Connections {
    /// None is open yet. What is open and what was refused is counted in `pressure`.
    pub(super) fn new(limits: &PeerLimits, pressure: Pressure) -> Self {
        let PeerLimits { max_connections: limit, first_frame_timeout, handshake_timeout, .. } = *limits;
        Self {
            limit,
            limit_of_peer: limit.div_ceil(2),
            first_frame_timeout,
            handshake_timeout,
            pressure,
            open: Arc::default(),
        }
    }

    fn admit(
        &self,
        protocol: ListenerProtocol,
        socket: Socket,
        peer: PeerAddress,
    ) -> Result<Connection, ConnectionRefusal> {
        let (close, closed) = oneshot::channel();
        let has_first_frame = Arc::new(AtomicBool::new(false));
        let mut open = self.lock();
        let address = peer.remote_ip();
        let of_peer = address.and_then(|address| open.by_peer.get(&address)).copied().unwrap_or_default();
        let refusal = if open.closing || open.by_id.len() >= self.limit {
            Some(ConnectionRefusal::Limit)
        } else if of_peer >= self.limit_of_peer && address.is_some() {
            Some(ConnectionRefusal::PeerLimit)
        } else {
            None
        };
        if let Some(cause) = refusal {
            self.pressure.connection_refused(cause);
            return Err(cause);
        }
        let id = open.next_id;
        open.next_id += 1;
        open.by_id.insert(id, Handle { close, has_first_frame: Arc::clone(&has_first_frame) });
        if let Some(address) = address {
            *open.by_peer.entry(address).or_default() += 1;
        }
        drop(open);
        Ok(Connection {
            protocol,
            socket,
            peer: PeerIdentity { address: peer, spiffe_id: None, dns_names: Box::default() },
            closed: Some(closed),
            written: Arc::default(),
            first_frame: Some(FirstFrameDeadline {
                missing: match protocol {
                    ListenerProtocol::Grpc => FIRST_FRAME_BYTES,
                    ListenerProtocol::Http => FIRST_REQUEST_BYTES,
                },
                deadline: Box::pin(sleep(self.first_frame_timeout)),
                done: has_first_frame,
            }),
            entry: OpenEntry {
                id,
                address,
                connections: self.clone(),
                _counted: self.pressure.connection_opened(),
            },
        })
    }

    /// Admits no further connection, and closes those that have not sent their first frame: they have no call in
    /// flight.
    pub(super) fn close_silent(&self) {
        let mut open = self.lock();
        open.closing = true;
        let silent = open.by_id.extract_if(|_, handle| !handle.has_first_frame.load(Ordering::Acquire));
        silent.for_each(|(_, handle)| handle.close());
    }

    /// Closes all connections, and says how many there were.
    pub(super) fn close_all(&self) -> usize {
        let mut open = self.lock();
        open.closing = true;
        let count = open.by_id.len();
        open.by_id.drain().for_each(|(_, handle)| handle.close());
        count
    }

    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        // Nothing panics while it holds the lock, and the map would be whole if something did.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handle {
    fn close(self) {
        // The connection may have ended meanwhile.
        _ = self.close.send(());
    }
}

/// A place among the open connections, given back when it is dropped.
#[derive(Debug)]
struct OpenEntry {
    id: u64,
    /// Not there if it is of this machine.
    address: Option<IpAddr>,
    connections: Connections,
    _counted: OpenConnection,
}

impl Drop for OpenEntry {
    fn drop(&mut self) {
        let mut open = self.connections.lock();
        open.by_id.remove(&self.id);
        if let Some(address) = self.address
            && let Entry::Occupied(mut count) = open.by_peer.entry(address)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// An accepted connection.
#[derive(Debug)]
pub(super) struct Connection {
    protocol: ListenerProtocol,
    socket: Socket,
    peer: PeerIdentity,
    /// `None` once somebody waits for it.
    closed: Option<oneshot::Receiver<()>>,
    /// How often the socket took bytes.
    written: Arc<AtomicU64>,
    /// `None` once the first frame is here, so that a connection at work pays nothing for it.
    first_frame: Option<FirstFrameDeadline>,
    entry: OpenEntry,
}

#[derive(Debug)]
struct FirstFrameDeadline {
    /// A peer is silent until that many bytes more are here.
    missing: usize,
    deadline: Pin<Box<Sleep>>,
    done: Arc<AtomicBool>,
}

impl Connection {
    /// Does the handshake of TLS, if there is TLS and the connection is one over TCP.
    ///
    /// # Errors
    ///
    /// If the peer does not do its part, or not in time, or the server closed the connection meanwhile.
    pub(super) async fn encrypt(mut self, tls: Option<CurrentTls>) -> io::Result<Self> {
        static FAILURES: Throttle = Throttle::every_minute();
        let (socket, tls) = match (self.socket, tls) {
            (Socket::Tcp(socket), Some(tls)) => (socket, tls),
            (socket, _) => return Ok(Self { socket, ..self }),
        };
        let connections = &self.entry.connections;
        let accepting = TlsAcceptor::from(tls.config(self.protocol)).accept(socket);
        let closed = async {
            match &mut self.closed {
                Some(closed) => _ = closed.await,
                None => std::future::pending().await,
            }
        };
        let (error, cause) = tokio::select! {
            () = closed => return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "closed by the server")),
            accepted = timeout(connections.handshake_timeout, accepting) => match accepted {
                Ok(Ok(stream)) => {
                    let (spiffe_id, dns_names) = client_names(stream.get_ref().1.peer_certificates());
                    let socket = Socket::Tls(Box::new(stream));
                    let peer = PeerIdentity { spiffe_id, dns_names, ..self.peer };
                    return Ok(Self { socket, peer, ..self });
                }
                Ok(Err(error)) => (error, ConnectionRefusal::Handshake),
                Err(_) => {
                    (io::Error::new(io::ErrorKind::TimedOut, "it took too long"), ConnectionRefusal::HandshakeTimeout)
                }
            }
        };
        connections.pressure.connection_refused(cause);
        if let Some(count) = FAILURES.count(Instant::now()) {
            // What rustls says has no text of the peer.
            warn!(peer = %self.peer.address, %error, count, "TLS handshakes failed");
        }
        Err(error)
    }

    /// What is spoken on it.
    pub(super) const fn protocol(&self) -> ListenerProtocol {
        self.protocol
    }

    /// Whether it is encrypted.
    pub(super) const fn is_tls(&self) -> bool {
        matches!(self.socket, Socket::Tls(_))
    }

    /// Who it comes from.
    pub(super) fn peer(&self) -> PeerIdentity {
        self.peer.clone()
    }

    /// A counter that grows whenever the socket takes bytes.
    pub(super) fn written(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.written)
    }

    /// Notes that the socket took bytes, if it did.
    fn note_written(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.written.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    /// Completes when the server closes the connection: whoever serves it has to drop it then. Never, if it was taken before.
    pub(super) fn take_closed(&mut self) -> impl Future<Output = ()> + Send + use<> {
        let closed = self.closed.take();
        async {
            match closed {
                // It does not matter how it is told.
                Some(closed) => _ = closed.await,
                None => std::future::pending().await,
            }
        }
    }

    /// Counts bytes of the first frame. An error if they took too long.
    fn note_received(&mut self, received: usize, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(first_frame) = &mut self.first_frame else {
            return Ok(());
        };
        first_frame.missing = first_frame.missing.saturating_sub(received);
        if first_frame.missing == 0 {
            first_frame.done.store(true, Ordering::Release);
            self.first_frame = None;
        } else if first_frame.deadline.as_mut().poll(cx).is_ready() {
            debug!(peer = %self.peer.address, "connection closed, its first frame took too long");
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the first frame took too long"));
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        self.note_received(buf.filled().len() - before, cx)?;
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.note_written(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.note_written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

/// The preface (RFC 9113 section 3.4) and the head of the SETTINGS frame that follows it (section 4.1).
const FIRST_FRAME_BYTES: usize = 24 + 9;
/// A request of HTTP/1 may be short.
const FIRST_REQUEST_BYTES: usize = 1;
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// What becomes of a connection from `peer`.
    async fn admit(connections: &Connections, peer: &str) -> Result<Connection, ConnectionRefusal> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stream, _) = tokio::join!(TcpStream::connect(address), listener.accept());
        let peer = PeerAddress::Tcp(format!("{peer}:7").parse().expect("an address"));
        connections.admit(ListenerProtocol::Grpc, Socket::Tcp(stream.expect("a connection")), peer)
    }

    #[tokio::test]
    async fn one_address_has_at_most_half_of_the_connections_unless_it_is_loopback() {
        let limits = PeerLimits { max_connections: 4, ..PeerLimits::default() };
        let pressure = Pressure::new(&limits);
        let connections = Connections::new(&limits, pressure.clone());
        let first = admit(&connections, "192.0.2.1").await.expect("room");
        // The same address, as IPv6 has it.
        let _second = admit(&connections, "[::ffff:192.0.2.1]").await.expect("room");
        let refused = admit(&connections, "192.0.2.1").await.expect_err("half of them");
        assert_eq!(refused, ConnectionRefusal::PeerLimit);
        let third = admit(&connections, "127.0.0.1").await.expect("room");
        drop(first);
        let _fourth = admit(&connections, "192.0.2.1").await.expect("the place is free again");
        let _fifth = admit(&connections, "127.0.0.1").await.expect("room");
        assert_eq!(pressure.connections(), 4);
        let refused = admit(&connections, "127.0.0.1").await.expect_err("all of them");
        assert_eq!(refused, ConnectionRefusal::Limit);
        drop(third);
        let _sixth = admit(&connections, "127.0.0.1").await.expect("room");
        for cause in [ConnectionRefusal::Limit, ConnectionRefusal::PeerLimit] {
            assert_eq!(pressure.connections_refused(cause), 1, "{cause:?}");
        }
    }
}
