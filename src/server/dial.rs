//! Connections that this process opens to servers: over TCP, and over TLS to those that speak HTTP/2.

use std::io;
use std::net::SocketAddr;

use http::Uri;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls::ALPN_H2;

/// The host of an address, without the brackets of an IPv6 address.
#[must_use]
pub fn host(uri: &Uri) -> &str {
    let host = uri.host().unwrap_or_default();
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Connects over TCP, to port 80 if none is named.
///
/// # Errors
/// If nobody answers there, or the host is not known.
pub async fn connect_tcp(uri: &Uri) -> io::Result<TcpStream> {
    connect(uri, HTTP_PORT).await
}

/// Connects over TLS to a server that speaks HTTP/2, to port 443 if none is named.
///
/// # Errors
/// If nobody answers there, the host is not known, or the handshake fails.
pub async fn connect_tls(tls: &TlsConnector, uri: &Uri) -> io::Result<TlsStream<TcpStream>> {
    secure(tls, uri, connect(uri, HTTPS_PORT).await?).await
}

/// The same at one address of the server that the URI names.
///
/// # Errors
/// As those.
pub async fn connect_tls_at(
    tls: &TlsConnector,
    uri: &Uri,
    address: SocketAddr,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    secure(tls, uri, stream).await
}

async fn secure(tls: &TlsConnector, uri: &Uri, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    let name = ServerName::try_from(host(uri).to_owned()).map_err(|error| invalid(error.to_string()))?;
    let stream = tls.connect(name, stream).await?;
    if stream.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
        return Err(invalid("the server does not speak HTTP/2 over TLS".to_owned()));
    }
    Ok(stream)
}

async fn connect(uri: &Uri, default_port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host(uri), uri.port_u16().unwrap_or(default_port))).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The innermost cause, which is what the system says; those around it only say that it was a transport.
pub fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let cause = cause.to_string();
    let mut letters = cause.split(" (os error").next().unwrap_or_default().chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;
