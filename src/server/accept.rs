//! Accepting connections, and closing them again: a limit on their number, a deadline for the first frame, and a
//! way to end those that would outlast a shutdown.
//!
//! The HTTP/2 stack leaves a connection open for ever that says nothing, half a preface, or a preface alone, and
//! its graceful shutdown waits as long for such a connection (RFC 9113 section 3.4 has the preface).

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::{debug, warn};

/// Accepts connections and hands them to `serve` until `stop`, and closes the listener then.
///
/// A connection over the limit is closed at once, so that its peer fails fast instead of waiting in a queue. When
/// the process runs out of file descriptors or memory, accepting pauses instead of spinning.
pub(super) async fn accept(
    listener: TcpListener,
    connections: Connections,
    serve: impl Fn(Connection),
    stop: CancellationToken,
) {
    let local = listener.local_addr().ok();
    // Says once, not once for each connection, that the limit is reached.
    let mut full = false;
    loop {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            next = listener.accept() => next,
        };
        let (stream, peer) = match next {
            Ok(next) => next,
            Err(error) if is_about_one_peer(&error) => {
                debug!(%error, "a connection broke before it was accepted");
                continue;
            }
            Err(error) => {
                warn!(%error, "connections cannot be accepted, pausing");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(PAUSE) => continue,
                }
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, %peer, "a connection broke while it was accepted");
            continue;
        }
        match connections.admit(stream, peer, local) {
            Some(connection) => {
                full = false;
                serve(connection);
            }
            None if full => debug!(%peer, "connection closed, the limit is reached"),
            None => {
                full = true;
                warn!(%peer, limit = connections.limit, "connection closed, the limit is reached");
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
    first_frame_timeout: Duration,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    next_id: u64,
    /// No further connection is admitted.
    closing: bool,
    by_id: HashMap<u64, Handle>,
}

#[derive(Debug)]
struct Handle {
    close: oneshot::Sender<()>,
    has_first_frame: Arc<AtomicBool>,
}

impl Connections {
    /// At most `limit` of them, each of which has `first_frame_timeout` for its first frame.
    pub(super) fn new(limit: usize, first_frame_timeout: Duration) -> Self {
        Self { limit, first_frame_timeout, open: Arc::default() }
    }

    /// `None` if the limit is reached or the server is closing.
    fn admit(&self, stream: TcpStream, peer: SocketAddr, local: Option<SocketAddr>) -> Option<Connection> {
        let (close, closed) = oneshot::channel();
        let has_first_frame = Arc::new(AtomicBool::new(false));
        let mut open = self.lock();
        if open.closing || open.by_id.len() >= self.limit {
            return None;
        }
        let id = open.next_id;
        open.next_id += 1;
        open.by_id.insert(id, Handle { close, has_first_frame: Arc::clone(&has_first_frame) });
        drop(open);
        Some(Connection {
            stream,
            info: TcpConnectInfo { local_addr: local, remote_addr: Some(peer) },
            closed: Some(closed),
            first_frame: Some(FirstFrameDeadline {
                received: 0,
                deadline: Box::pin(sleep(self.first_frame_timeout)),
                done: has_first_frame,
            }),
            _entry: Entry { id, connections: self.clone() },
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

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Nothing panics while it holds the lock, and the map would be whole if something did.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handle {
    fn close(self) {
        // The connection may have ended by itself meanwhile.
        _ = self.close.send(());
    }
}

/// A place among the open connections, given back when it is dropped.
#[derive(Debug)]
struct Entry {
    id: u64,
    connections: Connections,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connections.lock().by_id.remove(&self.id);
    }
}

/// An accepted connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    info: TcpConnectInfo,
    /// `None` once it has fired.
    closed: Option<oneshot::Receiver<()>>,
    /// `None` once the first frame is here, so that a connection at work pays nothing for it.
    first_frame: Option<FirstFrameDeadline>,
    _entry: Entry,
}

#[derive(Debug)]
struct FirstFrameDeadline {
    received: usize,
    deadline: Pin<Box<Sleep>>,
    done: Arc<AtomicBool>,
}

impl Connection {
    /// An error if the server closed the connection. Registers the task, so that it wakes when that happens.
    fn check_open(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(closed) = &mut self.closed {
            if Pin::new(closed).poll(cx).is_pending() {
                return Ok(());
            }
            self.closed = None;
        }
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "closed by the server"))
    }

    /// Counts bytes of the first_frame. An error if they took too long.
    fn note_received(&mut self, received: usize, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(first_frame) = &mut self.first_frame else {
            return Ok(());
        };
        first_frame.received += received;
        if first_frame.received >= FIRST_FRAME_BYTES {
            first_frame.done.store(true, Ordering::Release);
            self.first_frame = None;
        } else if first_frame.deadline.as_mut().poll(cx).is_ready() {
            debug!(peer = ?self.info.remote_addr, "connection closed, its first frame took too long");
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
        self.check_open(cx)?;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.note_received(buf.filled().len() - before, cx)?;
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check_open(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_open(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.info.clone()
    }
}

/// The preface (RFC 9113 section 3.4) and the head of the SETTINGS frame that follows it (section 4.1).
const FIRST_FRAME_BYTES: usize = 24 + 9;
const PAUSE: Duration = Duration::from_millis(100);
