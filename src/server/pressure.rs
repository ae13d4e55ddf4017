//! How much may be in flight: calls, streams, bytes and connections, each with a [`Budget`] for the server and one for each
//! connection, so that no peer can use up what the others need.
//!
//! What does not fit is refused at once, with a cause that callers and metrics can tell apart. Nothing waits here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::budget::{Budget, Permit};
use crate::rpc::error::Overload;
use crate::server::config::PeerLimits;
use crate::server::method::{Service, Streaming};

/// The budgets of the server, and what was refused. Clones share them.
#[derive(Clone, Debug)]
pub struct Pressure {
    shared: Arc<PressureState>,
}

#[derive(Debug)]
struct PressureState {
    calls: Budget,
    streams: Budget,
    bytes: Budget,
    large_questions: Budget,
    calls_per_connection: usize,
    streams_per_connection: usize,
    bytes_per_connection: usize,
    refused: [AtomicU64; Overload::ALL.len()],
    open_streams: [AtomicUsize; Service::ALL.len()],
    connections: AtomicUsize,
    connections_refused: [AtomicU64; ConnectionRefusal::ALL.len()],
}

/// Why a connection was closed before it could be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConnectionRefusal {
    /// As many connections as the server takes are open.
    Limit,
    /// One address has as many connections as it may have, half of them all.
    PeerLimit,
    /// The handshake of TLS failed: another protocol, no certificate, or one that is not trusted.
    Handshake,
    /// The handshake of TLS was not done in time.
    HandshakeTimeout,
}

impl ConnectionRefusal {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Limit, Self::PeerLimit, Self::Handshake, Self::HandshakeTimeout];

    /// The value of a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::PeerLimit => "peer_limit",
            Self::Handshake => "handshake",
            Self::HandshakeTimeout => "handshake_timeout",
        }
    }
}

impl Pressure {
    /// Nothing is in flight yet.
    #[must_use]
    pub fn new(limits: &PeerLimits) -> Self {
        let shared = PressureState {
            calls: Budget::new(limits.max_calls),
            streams: Budget::new(limits.max_streams),
            bytes: Budget::new(limits.max_bytes_in_flight),
            large_questions: Budget::new(limits.max_large_questions),
            calls_per_connection: limits.max_calls_per_connection,
            streams_per_connection: limits.max_streams_per_connection,
            bytes_per_connection: limits.max_bytes_in_flight / CONNECTION_SHARE,
            refused: Default::default(),
            open_streams: Default::default(),
            connections: AtomicUsize::new(0),
            connections_refused: Default::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The calls that hold a place now.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.shared.calls.used()
    }

    /// The bytes of requests and answers that are held now.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.shared.bytes.used()
    }

    /// The open streams of a service.
    #[must_use]
    pub fn streams(&self, service: Service) -> usize {
        self.shared.streams_of(service).load(Ordering::Relaxed)
    }

    /// The calls that were refused for `cause`.
    #[must_use]
    pub fn refused(&self, cause: Overload) -> u64 {
        match cause {
            Overload::LargeQuestions => self.shared.large_questions.refused(),
            _ => self.shared.refused_for(cause).load(Ordering::Relaxed),
        }
    }

    /// The places for questions that are decided off the serving threads.
    #[must_use]
    pub fn large_questions(&self) -> &Budget {
        &self.shared.large_questions
    }

    /// Counts a call that was refused because its caller has as many as it may.
    pub(super) fn refuse_caller(&self) -> Overload {
        self.shared.refuse(Overload::CallerCalls)
    }

    /// The open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// The connections that were closed before they could be used, for `cause`.
    #[must_use]
    pub fn connections_refused(&self, cause: ConnectionRefusal) -> u64 {
        self.shared.connections_refused_for(cause).load(Ordering::Relaxed)
    }

    /// Counts a connection until the result is dropped.
    pub(super) fn connection_opened(&self) -> OpenConnection {
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        OpenConnection { server: Arc::clone(&self.shared) }
    }

    /// Counts a connection that was closed before it could be used.
    pub(super) fn connection_refused(&self, cause: ConnectionRefusal) {
        self.shared.connections_refused_for(cause).fetch_add(1, Ordering::Relaxed);
    }

    /// The budgets of one more connection.
    pub(super) fn connection(&self) -> ConnectionPressure {
        let PressureState { calls_per_connection, streams_per_connection, bytes_per_connection, .. } =
            *self.shared;
        ConnectionPressure {
            server: Arc::clone(&self.shared),
            calls: Budget::new(calls_per_connection),
            streams: Budget::new(streams_per_connection),
            bytes: Budget::new(bytes_per_connection),
            open: TaskTracker::new(),
        }
    }
}

impl PressureState {
    // The arrays have one entry for each variant, in the order of the variants.
    #[expect(clippy::indexing_slicing, reason = "one entry for each variant")]
    fn refused_for(&self, cause: Overload) -> &AtomicU64 {
        &self.refused[cause as usize]
    }

    #[expect(clippy::indexing_slicing, reason = "one entry for each variant")]
    fn streams_of(&self, service: Service) -> &AtomicUsize {
        &self.open_streams[service as usize]
    }

    #[expect(clippy::indexing_slicing, reason = "one entry for each variant")]
    fn connections_refused_for(&self, cause: ConnectionRefusal) -> &AtomicU64 {
        &self.connections_refused[cause as usize]
    }

    fn refuse(&self, cause: Overload) -> Overload {
        self.refused_for(cause).fetch_add(1, Ordering::Relaxed);
        cause
    }
}

/// Counts as an open connection until it is dropped.
#[derive(Debug)]
pub(super) struct OpenConnection {
    server: Arc<PressureState>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.server.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The budgets of a connection, within those of the server.
#[derive(Clone, Debug)]
pub(super) struct ConnectionPressure {
    server: Arc<PressureState>,
    calls: Budget,
    streams: Budget,
    bytes: Budget,
    /// Every call and stream, those that need no place too.
    open: TaskTracker,
}

impl ConnectionPressure {
    /// A place for a call or a stream, as its method needs.
    ///
    /// # Errors
    ///
    /// The budget that is used up. Health is never refused.
    pub(super) fn place(&self, kind: Streaming, service: Service) -> Result<CallPlace, Overload> {
        let server = &self.server;
        let (own, own_cause, shared, shared_cause) = match (kind, service) {
            (_, Service::Health) => {
                return Ok(CallPlace { _permits: None, _open: self.open.token(), stream: None });
            }
            (Streaming::Unary, _) => (&self.calls, Overload::ConnectionCalls, &server.calls, Overload::Calls),
            (Streaming::ServerStream | Streaming::BidiStream, _) => {
                (&self.streams, Overload::ConnectionStreams, &server.streams, Overload::Streams)
            }
        };
        let own = own.take(1).map_err(|_| server.refuse(own_cause))?;
        let shared = shared.take(1).map_err(|_| server.refuse(shared_cause))?;
        let stream = (kind != Streaming::Unary).then(|| OpenStream::new(server, service));
        Ok(CallPlace { _permits: Some((own, shared)), _open: self.open.token(), stream })
    }

    /// Every call and stream of the connection until it has ended.
    pub(super) const fn open(&self) -> &TaskTracker {
        &self.open
    }

    /// Holds no bytes yet.
    pub(super) fn bytes(&self) -> Result<HeldBytes, Overload> {
        let own = self.bytes.take(0).map_err(|_| self.server.refuse(Overload::ConnectionBytes))?;
        let shared = self.server.bytes.take(0).map_err(|_| self.server.refuse(Overload::Bytes))?;
        Ok(HeldBytes { own, shared, server: Arc::clone(&self.server) })
    }
}

/// A place of a call or a stream, given back when it is dropped.
#[derive(Debug)]
pub(super) struct CallPlace {
    _permits: Option<(Permit, Permit)>,
    _open: TaskTrackerToken,
    #[expect(dead_code, reason = "held until the stream has ended")]
    stream: Option<OpenStream>,
}

/// Counts as an open stream of its service until it is dropped.
#[derive(Debug)]
struct OpenStream {
    server: Arc<PressureState>,
    service: Service,
}

impl OpenStream {
    fn new(server: &Arc<PressureState>, service: Service) -> Self {
        server.streams_of(service).fetch_add(1, Ordering::Relaxed);
        Self { server: Arc::clone(server), service }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.server.streams_of(self.service).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of a request or an answer, given back when this is dropped.
#[derive(Debug)]
pub(super) struct HeldBytes {
    own: Permit,
    shared: Permit,
    server: Arc<PressureState>,
}

impl HeldBytes {
    /// Holds `amount` bytes from now on, and no others.
    ///
    /// # Errors
    ///
    /// The budget that is used up; what was held stays held.
    pub(super) fn resize(&mut self, amount: usize) -> Result<(), Overload> {
        match amount.checked_sub(self.own.amount()) {
            None | Some(0) => {
                self.own.shrink_to(amount);
                self.shared.shrink_to(amount);
                Ok(())
            }
            Some(more) => {
                self.own.grow(more).map_err(|_| self.server.refuse(Overload::ConnectionBytes))?;
                self.shared.grow(more).map_err(|_| {
                    self.own.shrink_to(amount - more);
                    self.server.refuse(Overload::Bytes)
                })
            }
        }
    }
}

/// One connection gets at most the bytes of the server divided by this, so that one peer that does not read cannot hold them all.
const CONNECTION_SHARE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn pressure() -> Pressure {
        Pressure::new(&PeerLimits {
            max_calls: 3,
            max_calls_per_connection: 2,
            max_streams: 3,
            max_streams_per_connection: 2,
            max_bytes_in_flight: 800,
            ..PeerLimits::default()
        })
    }

    #[test]
    fn a_connection_leaves_places_to_the_others() {
        for (kind, own, shared) in [
            (Streaming::Unary, Overload::ConnectionCalls, Overload::Calls),
            (Streaming::ServerStream, Overload::ConnectionStreams, Overload::Streams),
        ] {
            let pressure = pressure();
            let (first, second) = (pressure.connection(), pressure.connection());
            let place = |connection: &ConnectionPressure| connection.place(kind, Service::Audit);
            let one = place(&first).expect("room");
            let _two = place(&first).expect("room");
            assert_eq!(place(&first).expect_err("the connection is full"), own);
            let _three = place(&second).expect("room");
            assert_eq!(place(&second).expect_err("the server is full"), shared);
            assert_eq!((pressure.refused(own), pressure.refused(shared)), (1, 1));
            drop(one);
            assert!(place(&second).is_ok(), "a refusal keeps no place");
            let streams = if kind == Streaming::Unary { 0 } else { 2 };
            assert_eq!(pressure.streams(Service::Audit), streams);
        }
    }

    #[test]
    fn health_needs_no_place() {
        let pressure = Pressure::new(&PeerLimits { max_calls: 0, max_streams: 0, ..PeerLimits::default() });
        let connection = pressure.connection();
        for kind in [Streaming::Unary, Streaming::ServerStream] {
            assert!(connection.place(kind, Service::Health).is_ok());
            assert!(connection.place(kind, Service::Reflection).is_err());
        }
    }

    #[test]
    fn bytes_are_bounded_for_a_connection_and_for_all() {
        let pressure = pressure();
        let connections: Vec<_> = (0..9).map(|_| pressure.connection()).collect();
        let mut held: Vec<_> =
            connections.iter().map(|connection| connection.bytes().expect("nothing is taken")).collect();
        let (last, first) = held.split_last_mut().expect("nine of them");
        assert_eq!(first[0].resize(101), Err(Overload::ConnectionBytes));
        for bytes in first.iter_mut() {
            bytes.resize(100).expect("the share of a connection");
        }
        assert_eq!(last.resize(1), Err(Overload::Bytes));
        assert_eq!(pressure.bytes(), 800);
        first[0].resize(40).expect("less always fits");
        last.resize(60).expect("room");
        assert_eq!(pressure.bytes(), 800);
        drop(held);
        assert_eq!(pressure.bytes(), 0);
    }
}
