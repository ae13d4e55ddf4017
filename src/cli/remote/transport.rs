//! The way to a server, and what went wrong on it in words that say what to try.
//!
//! What a library says of a failed connection names its own parts and not the cause. So the first bytes that a peer
//! sends are kept: they tell a wrong port, another protocol and a full server apart.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderValue, Request, Response, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower::Service;

use super::address::ServerAddress;
use crate::escape::shown;
use crate::server::dial::{cause, connect_tcp, connect_tls, connect_tls_at};

/// A connection to a server, for generated clients.
#[derive(Clone)]
pub(in crate::cli) struct Remote {
    channel: Channel,
    server: ServerAddress,
    tls: Option<TlsConnector>,
    /// What each call shows of the caller.
    token: Option<HeaderValue>,
    heard: Heard,
}

impl Remote {
    /// Connects, over TLS to an https server, and shows `token` with each call.
    ///
    /// # Errors
    /// If there is nothing to connect to.
    pub(super) async fn connect(
        server: &ServerAddress,
        endpoint: Endpoint,
        tls: Option<TlsConnector>,
        token: Option<HeaderValue>,
    ) -> Result<Self, TransportProblem> {
        let heard = Heard::default();
        let connector = Connector { server: server.clone(), tls: tls.clone(), heard: heard.clone() };
        match endpoint.connect_with_connector(connector).await {
            Ok(channel) => Ok(Self { channel, server: server.clone(), tls, token, heard }),
            Err(error) => Err(TransportProblem(not_connected(server, &error))),
        }
    }
}

impl Service<Request<Body>> for Remote {
    type Response = Response<Body>;
    type Error = TransportProblem;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, TransportProblem>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportProblem>> {
        // Waited for in the call: generated clients wrap what is said here into words of their own.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let Self { mut channel, server, tls, token, heard } = self.clone();
        if let Some(token) = token {
            request.headers_mut().insert(header::AUTHORIZATION, token);
        }
        Box::pin(async move {
            let answer = match poll_fn(|context| channel.poll_ready(context)).await {
                Ok(()) => channel.call(request).await,
                Err(error) => Err(error),
            };
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => return Err(heard.problem(&server, tls.as_ref(), &error).await),
            };
            let content = answer.headers().get(header::CONTENT_TYPE);
            if content.is_some_and(|content| content.as_bytes().starts_with(b"application/grpc")) {
                return Ok(answer);
            }
            let status = answer.status().as_u16();
            Err(TransportProblem(format!(
                "{server} answers with HTTP status {status} and not with gRPC; {}",
                hint("it is another server, or a proxy that does not pass gRPC on")
            )))
        })
    }
}

/// Why there is no answer: a sentence for people.
#[derive(Clone, Debug)]
pub(in crate::cli) struct TransportProblem(String);

impl TransportProblem {
    /// The one behind an error of a call, if it is that and no answer of a server.
    pub(super) fn of(status: &Status) -> Option<&Self> {
        std::error::Error::source(status)?.downcast_ref()
    }
}

impl fmt::Display for TransportProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for TransportProblem {}

/// What was heard of a peer first, on whichever connection: a channel connects again before it says what failed.
#[derive(Clone, Debug, Default)]
struct Heard(Arc<Mutex<FirstBytes>>);

#[derive(Debug, Default)]
struct FirstBytes {
    bytes: Vec<u8>,
    is_closed: bool,
}

impl Heard {
    fn note(&self, change: impl FnOnce(&mut FirstBytes)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn problem(
        &self,
        server: &ServerAddress,
        tls: Option<&TlsConnector>,
        error: &tonic::transport::Error,
    ) -> TransportProblem {
        let (mut bytes, mut is_closed) = (Vec::new(), false);
        self.note(|heard| (bytes, is_closed) = (heard.bytes.clone(), heard.is_closed));
        if let ServerAddress::Https(_) | ServerAddress::HttpsAt(..) = server {
            // What was heard was encrypted, and TLS says what it was, unless a write failed first.
            let alert = timeout(PROBE_TIMEOUT, alert(server, tls)).await.ok().flatten();
            let cause = alert.unwrap_or_else(|| tls_cause(error));
            return TransportProblem(format!("the connection to {server} failed: {cause}"));
        }
        if bytes.is_empty() && is_closed {
            // A server of HTTP/1 may close where HTTP/2 begins and say nothing.
            bytes = timeout(PROBE_TIMEOUT, probe(server)).await.ok().and_then(Result::ok).unwrap_or_default();
        }
        TransportProblem(explain(server, &bytes, is_closed, error))
    }
}

/// What a server says in TLS to who is silent after the handshake: in TLS 1.3 that is where it refuses a client.
async fn alert(server: &ServerAddress, tls: Option<&TlsConnector>) -> Option<String> {
    let mut stream = open(server, tls).await.ok()?;
    stream.read_u8().await.err().map(|error| tls_cause(&error))
}

/// What a peer answers in HTTP/1.
async fn probe(server: &ServerAddress) -> io::Result<Vec<u8>> {
    let mut stream = open(server, None).await?;
    stream.write_all(b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut bytes = vec![0; MAX_HEARD_BYTES];
    let read = stream.read(&mut bytes).await?;
    bytes.truncate(read);
    Ok(bytes)
}

async fn open(server: &ServerAddress, tls: Option<&TlsConnector>) -> io::Result<AnyStream> {
    match (server, tls) {
        (ServerAddress::Https(uri), Some(tls)) => {
            Ok(Either::Left(Either::Right(connect_tls(tls, uri).await?)))
        }
        (ServerAddress::HttpsAt(uri, address), Some(tls)) => {
            Ok(Either::Left(Either::Right(connect_tls_at(tls, uri, *address).await?)))
        }
        (ServerAddress::HttpsAt(_, address), None) => {
            Ok(Either::Left(Either::Left(TcpStream::connect(address).await?)))
        }
        (ServerAddress::Http(uri) | ServerAddress::Https(uri), _) => {
            Ok(Either::Left(Either::Left(connect_tcp(uri).await?)))
        }
        (ServerAddress::Unix(path), _) => Ok(Either::Right(UnixStream::connect(path).await?)),
    }
}

/// What the first bytes of a peer say about why a connection failed.
fn explain(server: &ServerAddress, bytes: &[u8], is_closed: bool, error: &dyn std::error::Error) -> String {
    let text = String::from_utf8_lossy(bytes);
    let expects_tls = bytes.starts_with(&[0x15, 0x03]) || text.to_lowercase().contains("https");
    // A server's preface is a SETTINGS frame on stream 0 (RFC 9113 section 3.4).
    let is_http2 = bytes.get(3) == Some(&0x04) && bytes.first() == Some(&0);
    match bytes {
        _ if expects_tls => {
            format!("{server} expects TLS; {}", hint("it is another server, or a proxy that ends TLS"))
        }
        _ if is_http2 => format!(
            "the connection to {server} was closed before the answer was here; the server may be stopping or starting \
             again, try again"
        ),
        _ if text.starts_with("HTTP/1") => format!(
            "{server} answers with HTTP/1 and not with gRPC; {}",
            hint("the address of --admin-listen (port 50552 by default) answers like that")
        ),
        [] if is_closed => format!(
            "{server} closed the connection at once; the server may be at its limit of connections \
             (`--max-connections`, counted in scopeward_connections_refused_total), or it is another server"
        ),
        [] => format!("the connection to {server} failed: {}", cause(error)),
        _ => {
            let first = text.lines().next().unwrap_or_default();
            format!(
                "{server} answers with something else than gRPC, `{}`; {}",
                shown(first),
                hint("it is another server")
            )
        }
    }
}

fn hint(what: &str) -> String {
    format!(
        "{what}; name the address of `scopeward serve --listen` (port 50551 by default) with `--server HOST:PORT`"
    )
}

fn not_connected(server: &ServerAddress, error: &dyn std::error::Error) -> String {
    let cause = tls_cause(error);
    if cause.contains("lookup address") {
        return format!(
            "could not connect to {server}: the host is not known ({cause}); name another one with `--server HOST:PORT`"
        );
    }
    format!(
        "could not connect to {server}: {cause}; start a server there with `scopeward serve`, or name another one \
         with `--server`"
    )
}

/// The innermost cause; what a server says of the certificate that it was shown, or was not, in words that say what to try.
fn tls_cause(error: &dyn std::error::Error) -> String {
    let cause = cause(error);
    let Some(alert) = cause.strip_prefix("received fatal alert: ") else { return cause };
    match alert {
        "CertificateRequired" => {
            "the server requires a client certificate, for every call and health, too; name one that its \
             --tls-client-ca-file issued with --tls-cert-file and --tls-private-key-file"
                .to_owned()
        }
        "UnknownCA"
        | "BadCertificate"
        | "UnsupportedCertificate"
        | "CertificateExpired"
        | "CertificateUnknown"
        | "CertificateRevoked" => {
            format!(
                "the server does not accept the client certificate of --tls-cert-file ({alert}); it has to be one for \
                 clients that the server's --tls-client-ca-file issued"
            )
        }
        _ => cause,
    }
}

/// Connects and keeps what is heard.
struct Connector {
    server: ServerAddress,
    tls: Option<TlsConnector>,
    heard: Heard,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<ListeningStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (server, tls, heard) = (self.server.clone(), self.tls.clone(), self.heard.clone());
        Box::pin(async move {
            let stream = open(&server, tls.as_ref()).await?;
            Ok(TokioIo::new(ListeningStream { stream, heard }))
        })
    }
}

type AnyStream = Either<Either<TcpStream, TlsStream<TcpStream>>, UnixStream>;

/// A connection whose first bytes are kept.
struct ListeningStream {
    stream: AnyStream,
    heard: Heard,
}

impl ListeningStream {
    /// A peer that closed may have said why before, which nobody reads once a write has failed.
    fn hear_the_rest(&self) {
        let mut bytes = [0; MAX_HEARD_BYTES];
        let read = match &self.stream {
            Either::Left(Either::Left(stream)) => stream.try_read(&mut bytes),
            Either::Left(Either::Right(_)) => Ok(0),
            Either::Right(stream) => stream.try_read(&mut bytes),
        };
        let read = read.unwrap_or(0);
        self.heard.note(|heard| {
            if heard.bytes.is_empty() {
                heard.bytes.extend_from_slice(bytes.get(..read).unwrap_or_default());
            }
            heard.is_closed = true;
        });
    }
}

impl AsyncRead for ListeningStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        let new = buffer.filled().get(before..).unwrap_or_default();
        self.heard.note(|heard| {
            let room = MAX_HEARD_BYTES.saturating_sub(heard.bytes.len()).min(new.len());
            heard.bytes.extend_from_slice(new.get(..room).unwrap_or_default());
            heard.is_closed |= new.is_empty() || read.is_err();
        });
        Poll::Ready(read)
    }
}

impl AsyncWrite for ListeningStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        if written.is_err() {
            self.hear_the_rest();
        }
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Enough for the first line of an answer in HTTP/1, and for its first sentence.
const MAX_HEARD_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], is_closed: bool, said: &str) {
        let server = "127.0.0.1:1".parse().unwrap();
        let error = io::Error::other("operation was canceled");
        let text = explain(&server, bytes, is_closed, &error);
        assert!(text.contains(said) && text.contains("127.0.0.1:1"), "{text}");
        assert!(!text.contains('\u{1b}') && !text.contains('\n'), "{text}");
    }

    #[test]
    fn first_bytes_say_what_to_try() {
        check(b"HTTP/1.1 400 Bad Request\r\n\r\n", true, "--admin-listen");
        check(
            b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.",
            true,
            "expects TLS",
        );
        check(b"\x15\x03\x01\0\x02\x02\x50", true, "expects TLS");
        check(b"\0\0\x12\x04\0\0\0\0\0", true, "try again");
        check(b"SSH-2.0-OpenSSH_9.2\r\n", false, "`SSH-2.0-OpenSSH_9.2`");
        check(b"\x1b[2J", false, "something else");
        check(b"", true, "--max-connections");
        check(b"", false, "operation was canceled");
    }
}
