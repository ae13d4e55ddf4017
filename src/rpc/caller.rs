//! Who calls: where the connection comes from. In the extensions of every call.

use std::fmt;
use std::net::SocketAddr;

/// Where a connection comes from. Printed as in the audit: `192.0.2.7:51512`, or `unix:uid=998`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PeerAddress {
    /// Over TCP.
    Tcp(SocketAddr),
    /// A process of this machine, over a Unix socket.
    Unix {
        /// The user that it ran as when it connected, as the kernel says.
        uid: u32,
    },
}

impl PeerAddress {
    /// The address that many connections can come from, and that is not of this machine.
    #[must_use]
    pub fn remote_ip(&self) -> Option<std::net::IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip().to_canonical()).filter(|address| !address.is_loopback()),
            Self::Unix { .. } => None,
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix { uid } => write!(formatter, "unix:uid={uid}"),
        }
    }
}
