//! Where the server listens: TCP addresses and Unix sockets, bound before anything else starts.
//!
//! A Unix socket has its mode from the moment that it is there, replaces a stale one that a killed server left, and is removed when
//! the server ends. Whether somebody still answers at an old one is asked by connecting to it, with the folder locked, so that
//! two servers that start at once do not both find it stale.

use std::fmt;
use std::fs::{self, File, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio::time::{Instant, sleep};
use tokio_rustls::server::TlsStream;

use super::ServerError;
use super::config::Config;
use super::tls::CurrentTls;
use crate::escape::shown;
use crate::rpc::caller::PeerAddress;

/// Where to listen. Printed as it is written on the command line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ListenAddr {
    /// A TCP address; port 0 picks a free one.
    Tcp(SocketAddr),
    /// The absolute path of a Unix socket.
    Unix(PathBuf),
}

impl ListenAddr {
    /// The TCP address, if it is one.
    #[must_use]
    pub const fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for ListenAddr {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", shown(&path.to_string_lossy())),
        }
    }
}

/// The sockets to serve on, bound before anything else starts, so that a port in use is known at once.
#[derive(Debug)]
pub struct Listeners {
    pub(super) all: Vec<BoundListener>,
    pub(super) tls: Option<CurrentTls>,
}

impl Listeners {
    /// Binds what `config` names.
    ///
    /// # Errors
    ///
    /// If an address is reachable from other machines without TLS or permission, or cannot be bound, or none is named; if a
    /// file of TLS cannot be used.
    pub async fn bind(config: &Config) -> Result<Self, ServerError> {
        let grpc = config.listen.iter().map(|address| (ListenerProtocol::Grpc, address));
        let http = config.http_listen.iter().map(|address| (ListenerProtocol::Http, address));
        let named: Vec<_> = grpc.chain(http).collect();
        if named.is_empty() {
            return Err(ServerError::NoListener);
        }
        named.iter().try_for_each(|(_, address)| require_loopback(address, config))?;
        let tls = config.tls.as_ref().map(CurrentTls::load).transpose()?;
        let mut all = Vec::with_capacity(named.len());
        for (protocol, address) in named {
            let bound = BoundListener::bind(protocol, address, config.listen_unix_mode).await;
            all.push(bound.map_err(|source| ServerError::Bind { addr: address.clone(), source })?);
        }
        Ok(Self { all, tls })
    }

    /// The real addresses, those of gRPC first, in the order in which they were named: with the port that was picked if port 0 was
    /// asked for.
    #[must_use]
    pub fn addresses(&self) -> Vec<ListenAddr> {
        self.all.iter().map(|listener| listener.address().clone()).collect()
    }

    /// Those of one protocol.
    #[must_use]
    pub fn addresses_of(&self, protocol: ListenerProtocol) -> Vec<ListenAddr> {
        let own = self.all.iter().filter(|listener| listener.protocol() == protocol);
        own.map(|listener| listener.address().clone()).collect()
    }
}

/// What is spoken at a listener.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ListenerProtocol {
    /// gRPC, over HTTP/2.
    Grpc,
    /// HTTP/1.1 and HTTP/2.
    Http,
}

impl ListenerProtocol {
    /// As in the ready line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

/// An address that other machines can reach needs encryption, or permission to do without.
pub(super) fn require_loopback(address: &ListenAddr, config: &Config) -> Result<(), ServerError> {
    match address {
        ListenAddr::Tcp(tcp) if !tcp.ip().to_canonical().is_loopback() => {
            if config.tls.is_some() || config.insecure_allow_remote_plaintext {
                Ok(())
            } else {
                Err(ServerError::RemotePlaintext { addr: *tcp })
            }
        }
        _ => Ok(()),
    }
}

/// One bound socket.
#[derive(Debug)]
pub(super) struct BoundListener {
    protocol: ListenerProtocol,
    socket: BoundSocket,
    address: ListenAddr,
    /// After the socket, so that nobody listens any more when its file is removed.
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum BoundSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl BoundListener {
    async fn bind(protocol: ListenerProtocol, address: &ListenAddr, unix_mode: u32) -> io::Result<Self> {
        match address {
            ListenAddr::Tcp(address) => {
                let listener = TcpListener::bind(address).await?;
                let address = ListenAddr::Tcp(listener.local_addr()?);
                Ok(Self { protocol, socket: BoundSocket::Tcp(listener), address, _file: None })
            }
            ListenAddr::Unix(path) => {
                // Held until it listens: of two servers that start at once, one finds the other.
                let _lock = lock_folder(path).await?;
                remove_stale(path).await?;
                let socket = UnixSocket::new_stream()?;
                // Before it has a name, so that nobody can connect whom the mode shuts out.
                fchmod(&socket, Mode::from_raw_mode(unix_mode))?;
                socket.bind(path)?;
                let file = SocketFile::of(path)?;
                // The umask may have taken bits away.
                fs::set_permissions(path, Permissions::from_mode(unix_mode))?;
                let socket = BoundSocket::Unix(socket.listen(BACKLOG)?);
                Ok(Self { protocol, socket, address: address.clone(), _file: Some(file) })
            }
        }
    }

    pub(super) const fn protocol(&self) -> ListenerProtocol {
        self.protocol
    }

    pub(super) const fn address(&self) -> &ListenAddr {
        &self.address
    }

    pub(super) async fn accept(&self) -> io::Result<(Socket, PeerAddress)> {
        match &self.socket {
            BoundSocket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Socket::Tcp(stream), PeerAddress::Tcp(peer)))
            }
            BoundSocket::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred()?.uid();
                Ok((Socket::Unix(stream), PeerAddress::Unix { uid }))
            }
        }
    }
}

/// Locks the folder of a socket against other servers that take a name in it. Given back when the file is closed.
async fn lock_folder(path: &Path) -> io::Result<Option<File>> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let folder = match File::open(folder) {
        // A folder may be written to and not be listed. Nothing in it can be locked that stays nowhere.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        opened => opened?,
    };
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(folder)),
            Err(Errno::WOULDBLOCK) if Instant::now() < until => sleep(LOCK_RETRY).await,
            Err(Errno::WOULDBLOCK) => {
                let text = "another process holds a lock on the folder".to_owned();
                return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
            }
            // Not every filesystem has locks.
            Err(_) => return Ok(None),
        }
    }
}

/// Removes a socket at which nobody answers.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let in_the_way = |what: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, what.to_owned()));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => in_the_way("there is a file that is no socket"),
        Ok(_) => match UnixStream::connect(path).await {
            // Only this says that nobody listens; a server that is merely busy refuses otherwise.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
            _ => in_the_way("another process listens there"),
        },
    }
}

/// The name of a socket, removed when this is dropped unless something else has that name then.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // The next start would replace it anyway.
            _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// The bytes of a connection.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Socket {
    /// Sends what is written at once: answers are small, and each one is waited for.
    pub(super) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            // It was set before the handshake.
            Self::Tls(_) | Self::Unix(_) => Ok(()),
        }
    }
}

/// Calls the same of whichever stream it is.
macro_rules! of_stream {
    ($socket:expr, $method:ident ( $($argument:expr),* )) => {
        match $socket.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Socket::Tls(stream) => Pin::new(&mut **stream).$method($($argument),*),
            Socket::Unix(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        of_stream!(self, poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        of_stream!(self, poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_stream!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_stream!(self, poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        of_stream!(self, poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }
}

/// As many as the standard library asks for.
const BACKLOG: u32 = 128;
/// How long another server may take to bind its socket.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use std::os::unix::net;

    use tempfile::TempDir;

    use super::*;

    async fn bind(path: &Path) -> Result<Listeners, String> {
        let config = Config { listen: vec![ListenAddr::Unix(path.to_owned())], ..Config::default() };
        Listeners::bind(&config).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_socket_has_its_mode_and_is_gone_with_its_server() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("s");
        let listeners = bind(&path).await.expect("a socket");
        assert_eq!(fs::metadata(&path).expect("the socket").permissions().mode() & 0o7777, 0o660);
        let Some(listener) = listeners.all.first() else { panic!("one listener") };
        let (client, accepted) = tokio::join!(UnixStream::connect(&path), listener.accept());
        let own = fs::metadata(folder.path()).expect("the folder").uid();
        assert_eq!(accepted.expect("a connection").1, PeerAddress::Unix { uid: own });
        drop(client);
        drop(listeners);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("s");
        drop(net::UnixListener::bind(&path).expect("a socket"));
        assert!(path.exists(), "as a killed server leaves it");
        let first = bind(&path).await.expect("it is stale");
        let error = bind(&path).await.expect_err("it is live");
        assert_eq!(
            error,
            format!("could not listen on unix:{}: another process listens there", path.display())
        );
        let other = folder.path().join("file");
        fs::write(&other, "precious").expect("a file");
        let error = bind(&other).await.expect_err("it is no socket");
        assert!(error.ends_with("there is a file that is no socket"), "{error}");
        // What another server put there stays when this one ends.
        fs::remove_file(&path).expect("the socket");
        let second = bind(&path).await.expect("the name is free");
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_servers_that_start_at_once_on_a_stale_socket_one_wins() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("s");
        for round in 0..20 {
            drop(net::UnixListener::bind(&path).expect("a stale socket"));
            let starts: Vec<_> = (0..8)
                .map(|_| {
                    let path = path.clone();
                    tokio::spawn(async move { bind(&path).await })
                })
                .collect();
            let mut ended = Vec::new();
            for start in starts {
                ended.push(start.await.expect("it ends"));
            }
            let lost: Vec<_> = ended.iter().filter_map(|ended| ended.as_ref().err()).collect();
            assert_eq!(lost.len(), 7, "round {round}: {lost:?}");
            assert!(lost.iter().all(|error| error.ends_with("another process listens there")), "{lost:?}");
            UnixStream::connect(&path).await.expect("the one that won is reached by the name");
            drop(ended);
        }
    }
}
