//! The body of an answer of the upstream, which comes as its connection is polled, and gives the connection back at its end.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::connection::UpstreamConnection;
use super::pool::UpstreamPool;

/// The body of an answer. A connection whose body is dropped before its end is closed.
pub(in crate::server::gateway) struct UpstreamBody {
    body: Incoming,
    /// Where it comes from; `None` once it is given back, and if a task of its own polls it.
    connection: Option<(UpstreamConnection, UpstreamPool)>,
    /// Whether the body of the request came in parts.
    was_streamed: bool,
}

impl UpstreamBody {
    /// A body that somebody else sees to.
    pub(super) fn alone(body: Incoming) -> Self {
        Self { body, connection: None, was_streamed: false }
    }

    /// A body of a connection, which is one of this pool afterwards.
    pub(super) fn of(
        body: Incoming,
        connection: UpstreamConnection,
        pool: &UpstreamPool,
        was_streamed: bool,
    ) -> Self {
        let mut body = Self { body, connection: Some((connection, pool.clone())), was_streamed };
        if body.body.is_end_stream() {
            body.give_back();
        }
        body
    }

    fn give_back(&mut self) {
        if let Some((connection, pool)) = self.connection.take()
            // A request in parts can be of so many that hyper left off before it came to the end of what it could do.
            && let Some(idle) = connection.rest(self.was_streamed)
        {
            pool.put(idle);
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let Self { body, connection, .. } = &mut *self;
        let Some((connection, _)) = connection else { return Pin::new(body).poll_frame(cx) };
        let polled = connection.poll(cx, |cx| Pin::new(&mut *body).poll_frame(cx));
        match &polled {
            Poll::Ready(Some(Err(_))) => self.connection = None,
            // After trailers nothing comes, and nobody asks.
            Poll::Ready(Some(Ok(frame))) if !frame.is_trailers() && !self.body.is_end_stream() => {}
            Poll::Ready(_) => self.give_back(),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
