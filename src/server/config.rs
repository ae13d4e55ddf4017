//! Settings of the service as plain data, with their defaults. Knows nothing of flags, environment or files:
//! the command line fills them in.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::follow::LOOK_EVERY;
use super::gateway::settings::GatewaySettings;
use super::listen::ListenAddr;
use super::metrics::ProcessCounters;
use super::recorder::AuditMode;
use super::service_manager::ServiceManager;
use super::supervisor::{Part, Roster};
use super::tls::TlsFiles;
use super::traces::settings::TraceSettings;
use crate::audit::joined::JoinedTarget;
use crate::audit::jsonl::JsonlTarget;
use crate::rpc::decision_line::LoggedDecisions;
use crate::rpc::limits::MAX_LARGE_QUESTIONS;

/// Everything that the operator can set.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// The gRPC server, and how long a shutdown may take.
    pub server: Config,
    /// Where the admin endpoint listens. Port 0 picks a free one. Default `127.0.0.1:50552`.
    pub admin_listen: SocketAddr,
    /// Whether the admin endpoint has the console. Default false.
    pub console: bool,
    /// The policy directory. Default `policies`.
    pub policies: PathBuf,
    /// Where state is kept: last good policy and audit log. Default `.scopeward`.
    pub state_dir: PathBuf,
    /// How long file events must pause before a look. Default 150 ms.
    pub debounce: Duration,
    /// How long a policy that removes something must not be written before it serves. Default 2 s.
    pub removal_quiet: Duration,
    /// How often to look without events. Default 30 s.
    pub rescan_interval: Duration,
    /// Who may call what. Default: everybody everything.
    pub access_file: Option<PathBuf>,
    /// How often to look at the files of TLS and at the access file. Default 1 s.
    pub credentials_interval: Duration,
    /// Whether links out of the policy directory are followed. Default false.
    pub allow_outside_links: bool,
    /// Whether a start with a broken policy serves the last good one. Default false.
    pub start_from_last_good: bool,
    /// The directory of a second policy that decides each question too, for comparison. Default none.
    pub shadow: Option<PathBuf>,
    /// Where spans go, and which are made. Default: none are.
    pub traces: Option<TraceSettings>,
    /// Whether decisions are counted by audience. Default false.
    pub metrics_per_audience: bool,
    /// Which decisions have a line in the log. Default none.
    pub log_decisions: LoggedDecisions,
    /// The audit log.
    pub audit: AuditSettings,
    /// What the process counts from its start on, for the metrics.
    pub process: ProcessCounters,
    /// Who started the process and wants to hear of it. Default nobody.
    pub service_manager: Option<ServiceManager>,
    /// The parts that run are listed here.
    pub roster: Roster,
    /// If the server is a gateway, which does not serve gRPC. Default: it is none.
    pub gateway: Option<GatewaySettings>,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            server: Config::default(),
            admin_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 50552)),
            console: false,
            policies: PathBuf::from("policies"),
            state_dir: PathBuf::from(".scopeward"),
            debounce: Duration::from_millis(150),
            removal_quiet: Duration::from_secs(2),
            rescan_interval: Duration::from_secs(30),
            access_file: None,
            credentials_interval: LOOK_EVERY,
            allow_outside_links: false,
            start_from_last_good: false,
            shadow: None,
            traces: None,
            metrics_per_audience: false,
            log_decisions: LoggedDecisions::None,
            audit: AuditSettings::default(),
            process: ProcessCounters::default(),
            service_manager: None,
            roster: Roster::default(),
            gateway: None,
        }
    }
}

/// What the operator can set for the audit log.
#[derive(Clone, Debug)]
pub struct AuditSettings {
    /// Whether expansions wait until their record is durable. Default: they do.
    pub mode: AuditMode,
    /// Records older than this are deleted; `None` keeps them. Default 30 days.
    pub retention: Option<Duration>,
    /// The store stays under this many bytes; `None` means no limit. Default 1 GiB.
    pub max_bytes: Option<u64>,
    /// How many denials are recorded in a second, in a burst ten times that. Default 200.
    pub denials_per_second: u32,
    /// Whether a broken store is moved aside and a new log opened. Default: it stops the start.
    pub set_aside_broken: bool,
    /// Where records are also written as JSON lines. Default: nowhere.
    pub jsonl: Option<JsonlTarget>,
    /// The joined store that records are copied to. Default: none.
    pub forward: Option<JoinedTarget>,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self {
            mode: AuditMode::Blocking,
            retention: Some(Duration::from_secs(30 * 24 * 60 * 60)),
            max_bytes: Some(1 << 30),
            denials_per_second: 200,
            set_aside_broken: false,
            jsonl: None,
            forward: None,
        }
    }
}

/// What the gRPC server is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen for gRPC; all addresses share every limit. Default `127.0.0.1:50551`.
    pub listen: Vec<ListenAddr>,
    /// Where to listen for HTTP/1.1 and HTTP/2, for the same calls without gRPC, or for the clients of a gateway. Default: nowhere.
    pub http_listen: Vec<ListenAddr>,
    /// The mode of Unix sockets. Default `0660`.
    pub listen_unix_mode: u32,
    /// TLS on TCP addresses. Default: plaintext.
    pub tls: Option<TlsFiles>,
    /// Allows `listen` to be reachable from other machines although nothing is encrypted. Default false.
    pub insecure_allow_remote_plaintext: bool,
    /// How long a shutdown may take, over everything. What is left then is abandoned; calls in flight are
    /// cut off after half of it. Default 20 s.
    pub shutdown_timeout: Duration,
    /// What a peer may use up.
    pub limits: PeerLimits,
    /// For tests of what happens when a part panics.
    #[doc(hidden)]
    pub fault: Fault,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 50551)).into()],
            http_listen: Vec::new(),
            listen_unix_mode: 0o660,
            tls: None,
            insecure_allow_remote_plaintext: false,
            shutdown_timeout: Duration::from_secs(20),
            limits: PeerLimits::default(),
            fault: Fault::default(),
        }
    }
}

/// What a peer may use up. Each one is set here, because most defaults of the HTTP/2 stack are no limit at all.
#[derive(Clone, Debug)]
pub struct PeerLimits {
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
    /// Questions that are too large to be decided on a serving thread and are decided elsewhere at once. Default 8.
    pub max_large_questions: usize,
    /// How long a call may take from its headers until its answer is ready, if the caller allows no less. Default 30 s.
    pub request_timeout: Duration,
    /// How long the message of a call may take from its headers on. Default 10 s.
    pub message_timeout: Duration,
    /// How long a response may make no progress until it is reset. Default 30 s.
    pub response_progress_timeout: Duration,
    /// How old a connection may become, a tenth more or less, until its peer has to open another. Default 30 min.
    pub max_connection_age: Duration,
    /// How long after that age its streams may go on, so that their readers reconnect elsewhere. Default 30 s.
    pub max_connection_age_grace: Duration,
    /// How long after the shutdown signal a connection stays open for the peer's acknowledgement once it has no call in
    /// flight, and streams for their last message. Default 1 s.
    pub drain_grace: Duration,
    /// How long a new connection may take to send the HTTP/2 preface and the head of its first frame.
    /// Default 10 s.
    pub first_frame_timeout: Duration,
    /// How long a TLS handshake may take. Default 5 s.
    pub handshake_timeout: Duration,
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

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_calls: 4096,
            max_calls_per_connection: 128,
            max_streams: 1024,
            max_streams_per_connection: 32,
            max_bytes_in_flight: 256 << 20,
            max_large_questions: MAX_LARGE_QUESTIONS,
            request_timeout: Duration::from_secs(30),
            message_timeout: Duration::from_secs(10),
            response_progress_timeout: Duration::from_secs(30),
            max_connection_age: Duration::from_secs(30 * 60),
            max_connection_age_grace: Duration::from_secs(30),
            drain_grace: Duration::from_secs(1),
            first_frame_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            max_concurrent_streams: 256,
            max_header_list_bytes: 16 * 1024,
            max_pending_accept_reset_streams: 20,
            max_local_error_reset_streams: 1024,
        }
    }
}

/// Called by parts at work with their name, so that a test can let them panic.
#[doc(hidden)]
#[derive(Clone, Default)]
pub struct Fault(pub Option<Arc<dyn Fn(Part) + Send + Sync>>);

impl Fault {
    pub(super) fn at(&self, part: Part) {
        if let Self(Some(fault)) = self {
            fault(part);
        }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Fault").field(&self.0.is_some()).finish()
    }
}
