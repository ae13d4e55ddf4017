//! How much may be in flight: calls, streams, bytes and connections, each with a [`Budget`] for the server and one for each
//! connection, so that no peer can use up what the others need.
//!
//! What does not fit is refused at once, with a cause that callers and metrics can tell apart. Nothing waits here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::budget::Budget;
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
        ConnectionPressure(Arc::new(ConnectionState {
            server: Arc::clone(&self.shared),
            calls: Budget::new(calls_per_connection),
            streams: Budget::new(streams_per_connection),
            bytes: Budget::new(bytes_per_connection),
            open: TaskTracker::new(),
        }))
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

/// The budgets of a connection, within those of the server. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct ConnectionPressure(Arc<ConnectionState>);

#[derive(Debug)]
struct ConnectionState {
    server: Arc<PressureState>,
    calls: Budget,
    streams: Budget,
    bytes: Budget,
    /// Every call and stream, those that need no place too.
    open: TaskTracker,
}

impl ConnectionPressure {
    /// A place for a call or a stream, as its method needs; no bytes are held yet.
    ///
    /// # Errors
    ///
    /// The budget that is used up. Health is never refused.
    pub(super) fn place(&self, kind: Streaming, service: Service) -> Result<CallPlace, Overload> {
        let place = match (kind, service) {
            (_, Service::Health) => PlaceKind::Free,
            (Streaming::Unary, _) => PlaceKind::Call,
            (Streaming::ServerStream | Streaming::BidiStream, _) => PlaceKind::Stream(service),
        };
        let server = &self.0.server;
        if let Some((own, shared)) = self.0.budgets(place) {
            let (own_cause, shared_cause) = match place {
                PlaceKind::Stream(_) => (Overload::ConnectionStreams, Overload::Streams),
                PlaceKind::Free | PlaceKind::Call => (Overload::ConnectionCalls, Overload::Calls),
            };
            own.add(1).map_err(|_| server.refuse(own_cause))?;
            shared.add(1).map_err(|_| {
                own.give_back(1);
                server.refuse(shared_cause)
            })?;
        }
        if let PlaceKind::Stream(service) = place {
            server.streams_of(service).fetch_add(1, Ordering::Relaxed);
        }
        Ok(CallPlace { connection: self.clone(), place, bytes: 0, _open: self.0.open.token() })
    }

    /// Every call and stream of the connection until it has ended.
    pub(super) fn open(&self) -> &TaskTracker {
        &self.0.open
    }
}

impl ConnectionState {
    /// The budgets that a place is taken from, this connection's first.
    fn budgets(&self, place: PlaceKind) -> Option<(&Budget, &Budget)> {
        match place {
            PlaceKind::Free => None,
            PlaceKind::Call => Some((&self.calls, &self.server.calls)),
            PlaceKind::Stream(_) => Some((&self.streams, &self.server.streams)),
        }
    }
}

/// What a call takes up.
#[derive(Clone, Copy, Debug)]
enum PlaceKind {
    /// Nothing that is counted.
    Free,
    /// The place of a call.
    Call,
    /// The place of a stream of this service.
    Stream(Service),
}

/// A place of a call or a stream, and the bytes of its request or its answer, given back when it is dropped.
#[derive(Debug)]
pub(super) struct CallPlace {
    connection: ConnectionPressure,
    place: PlaceKind,
    bytes: usize,
    _open: TaskTrackerToken,
}

impl CallPlace {
    /// Holds `amount` bytes from now on, and no others.
    ///
    /// # Errors
    ///
    /// The budget that is used up; what was held stays held.
    pub(super) fn hold(&mut self, amount: usize) -> Result<(), Overload> {
        let ConnectionState { server, bytes, .. } = &*self.connection.0;
        if let Some(more) = amount.checked_sub(self.bytes) {
            bytes.add(more).map_err(|_| server.refuse(Overload::ConnectionBytes))?;
            server.bytes.add(more).map_err(|_| {
                bytes.give_back(more);
                server.refuse(Overload::Bytes)
            })?;
        } else {
            bytes.give_back(self.bytes - amount);
            server.bytes.give_back(self.bytes - amount);
        }
        self.bytes = amount;
        Ok(())
    }
}

impl Drop for CallPlace {
    fn drop(&mut self) {
        let ConnectionState { server, bytes, .. } = &*self.connection.0;
        bytes.give_back(self.bytes);
        server.bytes.give_back(self.bytes);
        if let Some((own, shared)) = self.connection.0.budgets(self.place) {
            own.give_back(1);
            shared.give_back(1);
        }
        if let PlaceKind::Stream(service) = self.place {
            server.streams_of(service).fetch_sub(1, Ordering::Relaxed);
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
        // Health needs no place, but its bytes count.
        let place = |connection: &ConnectionPressure| connection.place(Streaming::Unary, Service::Health);
        let mut held: Vec<_> =
            connections.iter().map(|connection| place(connection).expect("free")).collect();
        let (last, first) = held.split_last_mut().expect("nine of them");
        assert_eq!(first[0].hold(101), Err(Overload::ConnectionBytes));
        for bytes in first.iter_mut() {
            bytes.hold(100).expect("the share of a connection");
        }
        assert_eq!(last.hold(1), Err(Overload::Bytes));
        assert_eq!(pressure.bytes(), 800);
        first[0].hold(40).expect("less always fits");
        last.hold(60).expect("room");
        assert_eq!(pressure.bytes(), 800);
        drop(held);
        assert_eq!(pressure.bytes(), 0);
    }
}
