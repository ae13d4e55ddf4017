//! The datagram socket of a service manager, as sd_notify(3) has it.
//!
//! Written here and not taken from a library: the one that is common knows no abstract sockets.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::time::timeout;

use crate::escape::shown;

/// Where the service manager listens. Printed as in `NOTIFY_SOCKET`.
#[derive(Clone)]
pub struct NotifySocket {
    address: SocketAddr,
    name: String,
}

impl NotifySocket {
    /// Reads the value of `NOTIFY_SOCKET`: an absolute path, or `@` and the name of an abstract socket.
    ///
    /// # Errors
    /// If it is neither, or too long.
    pub fn parse(name: &OsStr) -> io::Result<Self> {
        let bytes = name.as_bytes();
        let address = match bytes.first() {
            Some(b'/') => SocketAddr::from_pathname(name)?,
            Some(b'@') => abstract_address(bytes.get(1..).unwrap_or_default())?,
            _ => return Err(io::Error::other("neither an absolute path nor `@` and a name")),
        };
        Ok(Self { address, name: name.to_string_lossy().into_owned() })
    }

    /// Sends lines such as `READY=1` as one message.
    ///
    /// # Errors
    /// If nobody listens, or takes the message within a second.
    pub(super) async fn send(&self, lines: &[String]) -> io::Result<()> {
        // Connected each time: a service manager that was started again has another socket of that name.
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&self.address)?;
        socket.set_nonblocking(true)?;
        let socket = tokio::net::UnixDatagram::from_std(socket)?;
        let message = lines.join("\n");
        timeout(LONGEST_SEND, socket.send(message.as_bytes())).await.map_err(io::Error::from)??;
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

impl fmt::Display for NotifySocket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&shown(&self.name))
    }
}

impl fmt::Debug for NotifySocket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("NotifySocket").field(&self.name).finish()
    }
}

/// How long the queue of the service manager may be full.
const LONGEST_SEND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_path_or_an_abstract_name() {
        for name in ["/run/systemd/notify", "@scopeward/notify"] {
            assert_eq!(NotifySocket::parse(OsStr::new(name)).unwrap().to_string(), name);
        }
        for name in ["", "run/notify", "vsock:2:1", &format!("/{}", "x".repeat(200))] {
            assert!(NotifySocket::parse(OsStr::new(name)).is_err(), "{name}");
        }
    }
}
