//! Who calls: where the connection comes from, and which caller of the access file it is.

use std::fmt;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http::Extensions;

use super::notes::DecisionNotes;
use super::v1;
use crate::access::AuthenticatedBy;
use crate::store::Active;

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
    /// Appends what it is printed as.
    pub(super) fn append_to(&self, text: &mut Vec<u8>) {
        // Most are of this kind, and what formats anything takes many times as long for it.
        if let Self::Tcp(SocketAddr::V4(address)) = self {
            let mut digits = Digits { bytes: [0; 24], count: 0 };
            for (at, octet) in address.ip().octets().into_iter().enumerate() {
                if at > 0 {
                    digits.push(b'.');
                }
                digits.number(octet.into());
            }
            digits.push(b':');
            digits.number(address.port());
            text.extend_from_slice(digits.as_slice());
            return;
        }
        // Writing to a vector cannot fail.
        _ = write!(text, "{self}");
    }

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

/// Text of digits: at most an IPv4 address with its port.
struct Digits {
    bytes: [u8; 24],
    count: usize,
}

impl Digits {
    #[inline]
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.count) {
            *place = byte;
            self.count += 1;
        }
    }

    #[inline]
    fn number(&mut self, number: u16) {
        for power in [10_000, 1_000, 100, 10] {
            if number >= power {
                self.push(b'0' + (number / power % 10) as u8);
            }
        }
        self.push(b'0' + (number % 10) as u8);
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.count).unwrap_or_default()
    }
}

/// A caller of the access file, as the services need to know it.
#[derive(Debug)]
pub struct Caller {
    /// In audit events.
    pub name: Arc<str>,
    /// The audiences that it knows; `None` for all.
    pub audiences: Option<Arc<[Box<str>]>>,
    /// The policy as it sees it, made once for each generation.
    view: Mutex<Option<Arc<Active>>>,
}

impl Caller {
    /// A caller of this name that knows these audiences.
    #[must_use]
    pub const fn new(name: Arc<str>, audiences: Option<Arc<[Box<str>]>>) -> Self {
        Self { name, audiences, view: Mutex::new(None) }
    }

    /// The policy as the caller sees it; `None` if it sees all of it.
    #[must_use]
    pub fn view(&self, active: &Active) -> Option<Arc<Active>> {
        let known = self.audiences.as_deref()?;
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = view.as_ref().filter(|view| view.generation == active.generation) {
            return Some(Arc::clone(view));
        }
        let Active { set, generation, load_time } = active;
        let set = set.seen_with(known);
        let made = Arc::new(Active { set, generation: *generation, load_time: *load_time });
        *view = Some(Arc::clone(&made));
        Some(made)
    }
}

/// Where a call comes from, and who wants to know what it decides. In the extensions of calls of generated services; a call that came
/// over no connection has none.
#[derive(Clone, Debug, Default)]
pub struct CallOrigin {
    /// Where the connection comes from; `None` if there is none.
    pub peer: Option<PeerAddress>,
    /// Who calls; `None` without an access file.
    pub identity: Option<CallerIdentity>,
    /// Where what is decided is noted, if the call has a span.
    pub notes: Option<DecisionNotes>,
}

impl CallOrigin {
    /// The audiences that the caller knows, if not all.
    #[must_use]
    pub fn known_audiences(&self) -> Option<&Arc<[Box<str>]>> {
        self.identity.as_ref()?.caller.audiences.as_ref()
    }

    /// The policy as the caller sees it; `None` if it sees all of it.
    #[must_use]
    pub fn view(&self, active: &Active) -> Option<Arc<Active>> {
        self.identity.as_ref()?.caller.view(active)
    }

    /// Takes it out of the extensions of a call.
    #[must_use]
    pub fn take(extensions: &mut Extensions) -> Self {
        extensions.remove().unwrap_or_default()
    }
}

/// Which caller a call is from. Not there without an access file.
#[derive(Clone, Debug)]
pub struct CallerIdentity {
    /// The caller.
    pub caller: Arc<Caller>,
    /// How that is known.
    pub authenticated_by: AuthenticatedBy,
}

impl CallerIdentity {
    /// As in audit events.
    #[must_use]
    pub fn message(&self) -> v1::Caller {
        v1::Caller {
            name: self.caller.name.to_string(),
            authenticated_by: self.authenticated_by.as_str().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(peer: PeerAddress) {
        let mut text = b"before ".to_vec();
        peer.append_to(&mut text);
        assert_eq!(String::from_utf8(text).unwrap(), format!("before {peer}"));
    }

    proptest! {
        #[test]
        fn appended_address_is_the_one_that_is_printed(
            four in any::<u32>(), six in any::<u128>(), port in any::<u16>(), uid in any::<u32>(),
        ) {
            check(PeerAddress::Tcp((Ipv4Addr::from(four), port).into()));
            check(PeerAddress::Tcp((Ipv6Addr::from(six), port).into()));
            check(PeerAddress::Unix { uid });
        }
    }

    #[test]
    fn zeros_of_an_address_are_appended() {
        check(PeerAddress::Tcp((Ipv4Addr::UNSPECIFIED, 0).into()));
        check(PeerAddress::Tcp((Ipv4Addr::new(10, 0, 100, 255), 65_535).into()));
    }
}
