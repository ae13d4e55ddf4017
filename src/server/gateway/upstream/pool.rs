//! Connections to the upstream that are kept for the next request, the newest first, and those that are made when there is none.

use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tower::Service as _;

use super::UpstreamError;
use super::connection::{UpstreamConnection, UpstreamSocket, send_upgrade};
use crate::server::dial::cause;
use crate::server::gateway::body::GatewayBody;

/// The connections to one upstream. Clones share them.
#[derive(Clone)]
pub(super) struct UpstreamPool(Arc<PoolParts>);

struct PoolParts {
    connector: HttpsConnector<HttpConnector>,
    scheme: Scheme,
    authority: Authority,
    idle: Mutex<IdleConnections>,
    /// Notified when something happens to an idle connection.
    touched: Arc<Notify>,
    /// Notified when there is an idle connection that somebody waits for.
    returned: Notify,
}

#[derive(Default)]
struct IdleConnections {
    /// The newest last.
    connections: Vec<UpstreamConnection>,
    /// How many requests wait for one, or for a new one.
    waiting: usize,
    /// The task that closes them in time, as long as there are any.
    keeper: Option<JoinHandle<()>>,
}

impl UpstreamPool {
    /// No connection yet, to the upstream that is there.
    pub(super) fn new(
        connector: HttpsConnector<HttpConnector>,
        scheme: Scheme,
        authority: Authority,
    ) -> Self {
        let (idle, touched, returned) = (Mutex::default(), Arc::default(), Notify::new());
        Self(Arc::new(PoolParts { connector, scheme, authority, idle, touched, returned }))
    }

    /// The idle connection that was used last.
    pub(super) fn take(&self) -> Option<UpstreamConnection> {
        loop {
            let mut idle = self.0.idle();
            let mut connection = idle.connections.pop()?;
            if connection.idle_since().elapsed() >= KEPT_IDLE {
                // The others are older.
                let all = std::mem::take(&mut idle.connections);
                drop(idle);
                drop(all);
                return None;
            }
            drop(idle);
            if connection.resume() {
                return Some(connection);
            }
        }
    }

    /// A new connection, or one that becomes idle before that is there.
    pub(super) async fn connect(&self) -> Result<UpstreamConnection, UpstreamError> {
        let _waiting = WaitingRequest::new(&self.0);
        // One that was put back before that told nobody.
        if let Some(idle) = self.take() {
            return Ok(idle);
        }
        let parts = Arc::clone(&self.0);
        let mut connecting = Box::pin(async move { parts.connect().await });
        loop {
            tokio::select! {
                biased;
                connected = connecting.as_mut() => return connected,
                () = self.0.returned.notified() => {
                    let Some(idle) = self.take() else { continue };
                    self.finish(connecting);
                    return Ok(idle);
                }
            }
        }
    }

    /// Makes a connection that nobody waits for any more.
    fn finish(
        &self,
        connecting: impl Future<Output = Result<UpstreamConnection, UpstreamError>> + Send + 'static,
    ) {
        let pool = self.clone();
        tokio::spawn(async move {
            if let Ok(Ok(connection)) = timeout(KEPT_IDLE, connecting).await
                && let Some(idle) = connection.rest(true)
            {
                pool.put(idle);
            }
        });
    }

    /// Keeps an idle connection, if there is room.
    pub(super) fn put(&self, connection: UpstreamConnection) {
        let mut idle = self.0.idle();
        if idle.connections.len() >= MAX_IDLE {
            drop(idle);
            return drop(connection);
        }
        idle.connections.push(connection);
        if idle.waiting > 0 {
            self.0.returned.notify_one();
        }
        // One is there, unless it panicked.
        if idle.keeper.as_ref().is_none_or(JoinHandle::is_finished) {
            let (pool, touched) = (Arc::downgrade(&self.0), Arc::clone(&self.0.touched));
            idle.keeper = Some(tokio::spawn(keep(pool, touched)));
        }
    }

    /// Sends a request that asks for another protocol, on a connection of its own.
    pub(super) async fn send_upgrade(
        &self,
        request: Request<GatewayBody>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let io = self.0.dial().await?;
        send_upgrade(io, request).await.map_err(UpstreamError::from)
    }
}

impl PoolParts {
    fn idle(&self) -> MutexGuard<'_, IdleConnections> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn dial(&self) -> Result<UpstreamSocket, UpstreamError> {
        let (scheme, authority) = (self.scheme.clone(), self.authority.clone());
        let address = Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build();
        let address = address.map_err(|error| UpstreamError::Connect(error.to_string()))?;
        let mut connector = self.connector.clone();
        let dialled = async {
            poll_fn(|cx| connector.poll_ready(cx)).await?;
            connector.call(address).await
        };
        dialled.await.map_err(|error| {
            let cause = cause(&*error);
            let is_late = io::ErrorKind::TimedOut.to_string() == cause;
            if is_late { UpstreamError::Timeout } else { UpstreamError::Connect(cause) }
        })
    }

    async fn connect(&self) -> Result<UpstreamConnection, UpstreamError> {
        Ok(UpstreamConnection::new(self.dial().await?, &self.touched).await?)
    }

    /// Closes what ended or has been idle for too long. Returns when one of the others will have been; `None` if there is none.
    fn close_ended(&self) -> Option<Instant> {
        let mut idle = self.idle();
        let now = Instant::now();
        let is_over = |connection: &mut UpstreamConnection| {
            now.saturating_duration_since(connection.idle_since()) >= KEPT_IDLE || !connection.is_open()
        };
        let ended: Vec<_> = idle.connections.extract_if(.., is_over).collect();
        let oldest = idle.connections.first().map(UpstreamConnection::idle_since);
        if oldest.is_none() {
            idle.keeper = None;
        }
        drop(idle);
        drop(ended);
        oldest.map(|since| since + KEPT_IDLE)
    }
}

impl Drop for PoolParts {
    fn drop(&mut self) {
        let idle = self.idle.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(keeper) = idle.keeper.take() {
            keeper.abort();
        }
    }
}

/// A request that waits for a connection.
struct WaitingRequest<'p>(&'p PoolParts);

impl<'p> WaitingRequest<'p> {
    fn new(pool: &'p PoolParts) -> Self {
        pool.idle().waiting += 1;
        Self(pool)
    }
}

impl Drop for WaitingRequest<'_> {
    fn drop(&mut self) {
        self.0.idle().waiting -= 1;
    }
}

/// Closes idle connections in time, until there are none.
async fn keep(pool: Weak<PoolParts>, touched: Arc<Notify>) {
    while let Some(next) = pool.upgrade().and_then(|pool| pool.close_ended()) {
        _ = timeout_at(next, touched.notified()).await;
    }
}

/// Less than the 5 s after which servers with Node close a connection that is idle: a request on one that is being closed is lost.
pub(super) const KEPT_IDLE: Duration = Duration::from_secs(4);
pub(super) const MAX_IDLE: usize = 256;
