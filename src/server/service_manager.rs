//! What the server and the service manager that started it tell each other (sd_notify(3)): ready, reloading, stopping, a line about
//! what serves, and that the server is alive. SIGHUP is answered here, with or without one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::signal::unix::Signal;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use self::socket::NotifySocket;
use super::lifecycle::{Lifecycle, Phase};
use super::task_request::TaskRequests;
use crate::status::condition_type::CONDITION_TYPES;
use crate::status::{ConditionStatus, Serving, Snapshot, StatusTracker};

mod socket;

/// The service manager that started the process.
#[derive(Clone, Debug)]
pub struct ServiceManager {
    /// Where it listens.
    pub socket: NotifySocket,
    /// How often it has to hear that the process is alive; `None` if it does not care.
    pub watchdog: Option<Duration>,
}

/// The task.
#[derive(Debug)]
pub(super) struct ServiceManagerTask {
    /// Nobody is told anything without one.
    pub(super) manager: Option<ServiceManager>,
    pub(super) lifecycle: Lifecycle,
    pub(super) tracker: Arc<StatusTracker>,
    pub(super) hangup: Signal,
    /// Has everything that is followed looked at at once.
    pub(super) rereads: TaskRequests,
    pub(super) liveness: Liveness,
    pub(super) shutdown_timeout: Duration,
}

impl ServiceManagerTask {
    /// Runs until it is told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = self.serve() => {}
            () = stop.cancelled() => {}
        }
    }

    async fn serve(&mut self) {
        let Self { manager, lifecycle, tracker, hangup, rereads, liveness, shutdown_timeout } = self;
        let manager = manager.as_ref();
        // The phases last as long as this task.
        _ = lifecycle.phases().wait_for(|phase| *phase >= Phase::Serving).await;
        let watchdog = async {
            match manager {
                Some(ServiceManager { socket, watchdog: Some(most) }) => {
                    keep_alive(socket, *most, liveness).await;
                }
                _ => std::future::pending().await,
            }
        };
        let tell = async |lines: &[String]| {
            if let Some(ServiceManager { socket, .. }) = manager
                && let Err(error) = socket.send(lines).await
            {
                warn!(%error, %socket, "the service manager could not be told");
            }
        };
        let changes = async {
            let mut changes = tracker.watch();
            let mut shown = status(&changes.borrow_and_update());
            tell(&["READY=1".to_owned(), shown.clone()]).await;
            loop {
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { std::future::pending().await },
                    _ = hangup.recv() => {
                        info!("SIGHUP received, looking at every file");
                        tell(&["RELOADING=1".to_owned(), monotonic_time()]).await;
                        if timeout(LONGEST_REREAD, rereads.ask()).await.is_err() {
                            warn!(after = ?LONGEST_REREAD, "the files that SIGHUP asked for were not all read yet");
                        }
                        shown = status(&changes.borrow_and_update());
                        tell(&["READY=1".to_owned(), shown.clone()]).await;
                    }
                }
                let now = status(&changes.borrow_and_update());
                if now != shown {
                    tell(std::slice::from_ref(&now)).await;
                    shown = now;
                }
            }
        };
        tokio::select! {
            () = watchdog => {}
            () = changes => {}
            () = lifecycle.draining().cancelled() => {}
        }
        // Longer than the longest shutdown: what holds it up is named by the server itself.
        let longest = (*shutdown_timeout + SHUTDOWN_MARGIN).as_micros();
        let extended = format!("EXTEND_TIMEOUT_USEC={longest}");
        tell(&["STOPPING=1".to_owned(), extended, "STATUS=stopping".to_owned()]).await;
        std::future::pending().await
    }
}

/// Tells the service manager in time that the server is alive, as long as it is.
async fn keep_alive(socket: &NotifySocket, most: Duration, liveness: &Liveness) {
    let period = most / BEATS;
    let mut beats = interval(period);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        let told = match timeout(period, liveness.check()).await {
            Ok(Ok(())) => socket.send(&["WATCHDOG=1".to_owned()]).await,
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::other("parts of the server did not answer in time")),
        };
        match told {
            Ok(()) => debug!("the service manager was told that the server is alive"),
            Err(error) => warn!(%error, "the service manager was not told that the server is alive"),
        }
    }
}

/// Asks the parts that serve whether they do.
#[derive(Debug)]
pub(super) struct Liveness {
    /// Those who accept connections.
    pub(super) acceptors: TaskRequests,
    /// The admin endpoint.
    pub(super) admin: SocketAddr,
}

impl Liveness {
    /// Returns once every listener is attended and `/livez` was answered, which needs a thread that serves, sockets and timers.
    async fn check(&self) -> io::Result<()> {
        self.acceptors.ask().await;
        let mut stream = TcpStream::connect(self.admin).await?;
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut answer = [0; LIVE.len()];
        stream.read_exact(&mut answer).await?;
        if answer == *LIVE { Ok(()) } else { Err(io::Error::other("/livez did not answer with 200")) }
    }
}

/// What serves, and what is not as it should be, on one line.
fn status(snapshot: &Snapshot) -> String {
    let mut text = match &snapshot.serving {
        Some(Serving { generation, digest, audiences, .. }) => {
            format!("STATUS=serving generation {generation}, {digest}, audiences: {}", audiences.len())
        }
        None => "STATUS=nothing to serve".to_owned(),
    };
    let is_bad = |kind: &str, status: ConditionStatus| {
        let known = CONDITION_TYPES.iter().find(|known| known.kind == kind);
        match status {
            ConditionStatus::True => known.is_some_and(|known| known.is_only_true),
            ConditionStatus::False => true,
            ConditionStatus::Unknown => false,
        }
    };
    let bad = snapshot.conditions.iter().filter(|condition| is_bad(condition.kind, condition.status));
    let bad: Vec<_> =
        bad.map(|condition| format!("{}={}", condition.kind, condition.status.as_str())).collect();
    if !bad.is_empty() {
        text.push_str("; look at ");
        text.push_str(&bad.join(", "));
    }
    text
}

/// When a reload began, in the clock that systemd compares with.
fn monotonic_time() -> String {
    let now = clock_gettime(ClockId::Monotonic);
    format!("MONOTONIC_USEC={}", now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1_000))
}

/// How often the server is checked within the time that the watchdog allows.
const BEATS: u32 = 4;
const LIVE: &[u8; 12] = b"HTTP/1.1 200";
/// How long a reload may be under way until it counts as done.
const LONGEST_REREAD: Duration = Duration::from_secs(30);
/// How much longer than its own timeout a shutdown may take.
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(5);
