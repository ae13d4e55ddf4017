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
    /// Calls in flight over all connections; a further one is UNAVAILABLE. A stream counts until it begins.
    /// Default 4096.
    pub max_calls_in_flight: usize,
    /// How long a new connection may take to send the HTTP/2 preface and the head of its first frame.
    /// Default 10 s.
    pub first_frame_timeout: Duration,
    /// How long a connection may be quiet before it is pinged. Default 30 s.
    pub keepalive_interval: Duration,
    /// How long the answer to that ping may take. Default 10 s.
    pub keepalive_timeout: Duration,
    /// Open streams of one connection. Default 256.
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
            max_calls_in_flight: 4096,
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
