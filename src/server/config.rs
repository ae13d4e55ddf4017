//! Settings of the server as plain data, with their defaults. Knows nothing of flags, environment or files:
//! the command line fills it in.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// What the server is told from outside.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen for gRPC. Port 0 picks a free one. Default `127.0.0.1:50551`.
    pub listen: SocketAddr,
    /// Allows `listen` to be reachable from other machines although nothing is encrypted. Default false.
    pub insecure_allow_remote_plaintext: bool,
    /// How long calls in flight may take to end after the shutdown signal before they are cut off.
    /// Default 10 s.
    pub drain_deadline: Duration,
    /// What a peer may use up.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 50551)),
            insecure_allow_remote_plaintext: false,
            drain_deadline: Duration::from_secs(10),
            limits: Limits::default(),
        }
    }
}

/// What a peer may use up. Each one is set here, because most defaults of the HTTP/2 stack are no limit at all.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections; a further one is closed at once. Default 1024.
    pub max_connections: usize,
    /// Calls in flight over all connections, but health; a further one is UNAVAILABLE. A call counts until its response
    /// has left. Default 4096.
    pub max_calls: usize,
    /// Calls in flight on one connection. Default 128.
    pub max_calls_per_connection: usize,
    /// Open streams of the audit, of the status and of reflection over all connections. Default 1024.
    pub max_streams: usize,
    /// Open streams of one connection. Default 32.
    pub max_streams_per_connection: usize,
    /// Bytes of requests that are received and of answers that are sent, together; one connection may hold an eighth.
    /// Default 256 MiB.
    pub max_bytes_in_flight: usize,
    /// How long a call may take from its headers until its answer is ready, if the caller allows no less. Default 30 s.
    pub request_timeout: Duration,
    /// How long the message of a call may take from its headers on. Default 10 s.
    pub message_timeout: Duration,
    /// How long a response may make no progress until it is reset. Default 30 s.
    pub response_progress_timeout: Duration,
    /// How old a connection may become, a tenth more or less, until its peer has to open another. Default 30 min.
    pub max_connection_age: Duration,
    /// How long a new connection may take to send the HTTP/2 preface and the head of its first frame.
    /// Default 10 s.
    pub first_frame_timeout: Duration,
    /// How often a connection is pinged. Default 30 s.
    pub keepalive_interval: Duration,
    /// How long the answer to that ping may take. Default 10 s.
    pub keepalive_timeout: Duration,
    /// Open HTTP/2 streams of one connection: calls and streams of every kind, refused ones too. Default 256.
    pub max_concurrent_streams: u32,
    /// Bytes of the headers of one request, as HTTP/2 counts them. Default 16 KiB.
    pub max_header_list_bytes: u32,
    /// Streams that a peer may reset before we saw them, until its connection is closed. Default 20.
    pub max_pending_accept_reset_streams: usize,
    /// Streams that a peer may make us reset, until its connection is closed. Default 1024.
    pub max_local_error_reset_streams: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_calls: 4096,
            max_calls_per_connection: 128,
            max_streams: 1024,
            max_streams_per_connection: 32,
            max_bytes_in_flight: 256 << 20,
            request_timeout: Duration::from_secs(30),
            message_timeout: Duration::from_secs(10),
            response_progress_timeout: Duration::from_secs(30),
            max_connection_age: Duration::from_secs(30 * 60),
            first_frame_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            max_concurrent_streams: 256,
            max_header_list_bytes: 16 * 1024,
            max_pending_accept_reset_streams: 20,
            max_local_error_reset_streams: 1024,
        }
    }
}
