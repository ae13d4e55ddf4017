//! One connection of a client: its requests, and the tunnel that it may become.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::Gateway;
use super::head::ClientAddress;
use crate::server::accept::Connection;
use crate::server::web::{self, AfterAnswer, WebConnection};

/// What the requests of a connection share.
pub(super) struct ClientConnection {
    pub(super) gateway: Arc<Gateway>,
    pub(super) web: Arc<WebConnection>,
    pub(super) address: ClientAddress,
    tunnel: Mutex<Option<Tunnel>>,
}

/// What a connection does after it was upgraded.
pub(super) type Tunnel = Pin<Box<dyn Future<Output = ()> + Send>>;

impl ClientConnection {
    /// Runs once HTTP ends on this connection.
    pub(super) fn become_tunnel(&self, tunnel: Tunnel) {
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
    }
}

/// Serves a connection until its peer closes it, its age or `stop` ends it, or it breaks.
pub(super) async fn serve(mut connection: Connection, gateway: Arc<Gateway>, stop: CancellationToken) {
    let mut closed = pin!(connection.take_closed());
    let limits = gateway.limits.clone();
    let web = Arc::new(WebConnection::new(connection.peer(), &gateway.pressure));
    let client = Arc::new(ClientConnection {
        address: ClientAddress::new(&web.peer.address),
        gateway,
        web: Arc::clone(&web),
        tunnel: Mutex::default(),
    });
    let answer = {
        let client = Arc::clone(&client);
        move |request, after: AfterAnswer| {
            let client = Arc::clone(&client);
            async move { after.apply_to(client.respond(request).await) }
        }
    };
    web::serve((connection, closed.as_mut()), web, (&limits, MAX_HEAD_BYTES), &stop, answer).await;
    let tunnel = client.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(tunnel) = tunnel {
        tokio::select! {
            () = tunnel => {}
            () = closed => {}
            () = stop.cancelled() => {}
        }
    }
}

/// The headers of a request: cookies of an authorization server are long.
const MAX_HEAD_BYTES: u32 = 64 * 1024;
