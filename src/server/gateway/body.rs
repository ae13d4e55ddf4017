//! Bodies on their way between a client and the upstream: streamed with back pressure and a time for each part.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::upstream::body::UpstreamBody;
use crate::server::pressure::CallPlace;
use crate::server::web::WebConnection;
use crate::server::web::body::ResponseTaking;
use crate::server::web::timers::{ConnectionTimer, SpareTimers};

/// Any error of a body; nobody looks into it.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body in either direction.
pub(super) type GatewayBody = UnsyncBoxBody<Bytes, BodyError>;

/// A body that is there.
pub(super) fn full(bytes: impl Into<Bytes>) -> GatewayBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// No body.
pub(super) fn empty() -> GatewayBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A part of a body did not come in time.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a part of the body did not come in time")]
pub(super) struct BodyStalled;

/// How often parts of a body came. Clones share it; the default is of a body that is here.
#[derive(Clone, Debug, Default)]
pub(super) struct BodyProgress(Option<Arc<AtomicU64>>);

impl BodyProgress {
    /// Of a body that comes in parts.
    pub(super) fn of_parts() -> Self {
        Self(Some(Arc::default()))
    }

    /// A number that grows with each part.
    pub(super) fn parts(&self) -> u64 {
        self.0.as_ref().map_or(0, |parts| parts.load(Ordering::Relaxed))
    }

    /// Returns `true` of a body that comes in parts.
    pub(super) const fn is_of_parts(&self) -> bool {
        self.0.is_some()
    }

    /// Returns `true` as long as there is somebody who takes the parts of the body.
    pub(super) fn is_under_way(&self) -> bool {
        // The body has the other one.
        self.0.as_ref().is_some_and(|parts| Arc::strong_count(parts) > 1)
    }

    fn note(&self) {
        if let Some(parts) = &self.0 {
            parts.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A body that is passed on as it comes. Nothing is read ahead: a part is taken when the other side wants one.
#[derive(Debug)]
pub(super) struct StreamedBody<B> {
    body: B,
    /// How long a part may take that is waited for.
    patience: Duration,
    waiting: Option<ConnectionTimer>,
    timers: SpareTimers,
    progress: BodyProgress,
    /// Whether the client takes it, of a response.
    taking: Option<Arc<ResponseTaking>>,
    /// Held until the last part has left.
    _place: Option<CallPlace>,
}

impl StreamedBody<Incoming> {
    /// The body of a request. Each part is noted in `progress`.
    pub(super) fn of_request(
        body: Incoming,
        patience: Duration,
        web: &WebConnection,
        progress: BodyProgress,
    ) -> GatewayBody {
        let timers = web.timers.clone();
        Self { body, patience, waiting: None, timers, progress, taking: None, _place: None }.boxed_unsync()
    }
}

impl StreamedBody<UpstreamBody> {
    /// The body of a response of a connection, which holds its place.
    pub(super) fn of_response(
        body: UpstreamBody,
        patience: Duration,
        web: &WebConnection,
        place: CallPlace,
    ) -> GatewayBody {
        let (progress, taking) = (BodyProgress::default(), Some(web.responses.open()));
        let timers = web.timers.clone();
        Self { body, patience, waiting: None, timers, progress, taking, _place: Some(place) }.boxed_unsync()
    }
}

impl<B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin> Body for StreamedBody<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Some(taking) = &this.taking {
            // It is asked for the next part once there is room for it.
            taking.note(polled.is_ready().then(Instant::now));
        }
        match polled {
            Poll::Ready(frame) => {
                this.progress.note();
                this.waiting = None;
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                let patience = this.patience;
                let waiting = this.waiting.get_or_insert_with(|| this.timers.timer(patience));
                match waiting.poll_over(cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(()) => Poll::Ready(Some(Err(BodyStalled.into()))),
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
