//! The response of a call: an answer of one message, a stream, or a status alone, as fast as the peer takes it.
//!
//! What a call holds is given back when the last byte of its answer has left or was dropped, because the last chunk carries it.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::Body as _;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::body::Body;
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic::{Code, Status};
use tracing::{debug, error};

use super::lifecycle::Lifecycle;
use super::message::NoMessage;
use super::method::InFlight;
use super::observe::{ObservedCall, code_of};
use super::pressure::CallPlace;
use crate::budget::Permit;
use crate::rpc::error::{Overload, RpcError};

/// How a call ended that was not answered by its service.
#[derive(Debug)]
pub(super) enum Ended {
    /// Nobody waits for an answer any more.
    Gone,
    /// The caller is told.
    Status(Status),
}

impl From<RpcError> for Ended {
    fn from(error: RpcError) -> Self {
        Self::Status(error.into())
    }
}

impl From<NoMessage> for Ended {
    fn from(error: NoMessage) -> Self {
        match error {
            NoMessage::Refused(error) => error.into(),
            NoMessage::Gone => Self::Gone,
        }
    }
}

impl From<h2::Error> for Ended {
    fn from(_: h2::Error) -> Self {
        Self::Gone
    }
}

/// What a call holds.
#[derive(Debug)]
pub(super) struct CallHoldings {
    pub(super) place: CallPlace,
    pub(super) _of_caller: Option<Permit>,
    pub(super) _in_flight: InFlight,
}

/// A call until the last byte of its response has left: what it holds, and what is observed of it.
#[derive(Debug)]
pub(super) struct HeldCall {
    held: Option<CallHoldings>,
    observed: ObservedCall,
}

impl HeldCall {
    pub(super) fn new(held: CallHoldings, observed: ObservedCall) -> Box<Self> {
        Box::new(Self { held: Some(held), observed })
    }

    /// Holds `amount` bytes from now on.
    pub(super) fn hold(&mut self, amount: usize) -> Result<(), Overload> {
        self.held.as_mut().map_or(Ok(()), |held| held.place.hold(amount))
    }

    /// Holds nothing any more: nothing that has to leave is held for.
    pub(super) fn give_back(&mut self) {
        self.held = None;
    }

    /// The call ends now, with this code.
    pub(super) fn end(self, code: Code) {
        self.observed.end(code);
    }
}

/// What a call holds, until the last bytes of its answer take it with them.
pub(super) type Held = Option<Box<HeldCall>>;

/// Holds `amount` bytes from now on.
pub(super) fn hold(held: &mut Held, amount: usize) -> Result<(), Overload> {
    held.as_mut().map_or(Ok(()), |held| held.hold(amount))
}

/// A response of a service on its way.
pub(super) struct Sending {
    pub(super) body: Body,
    /// When a stream ends, if the caller named a time.
    pub(super) deadline: Option<Pin<Box<Sleep>>>,
    /// When a stream ends with its connection.
    pub(super) ending: Option<Ending>,
    /// How long it may make no progress; `None` for as long as the caller likes.
    pub(super) progress: Option<Duration>,
    /// When its caller may no longer see it.
    pub(super) revoked: Option<Revoked>,
    /// Whether other responses hold the same bytes.
    pub(super) shared: bool,
    /// What is wrong with the caller's messages, if it sends several.
    pub(super) fault: Option<Arc<OnceLock<RpcError>>>,
}

/// Completes with the reason when the caller of a stream may no longer see it.
pub(super) type Revoked = Pin<Box<dyn Future<Output = RpcError> + Send>>;

/// The end of the connection of a stream.
pub(super) struct Ending {
    pub(super) lifecycle: Lifecycle,
    pub(super) cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Ending {
    /// What the stream ends with once it must.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<RpcError> {
        self.cancelled.as_mut().poll(cx).map(|()| match self.lifecycle.is_draining() {
            true => RpcError::Draining,
            false => RpcError::ConnectionExpired,
        })
    }
}

/// What comes next in a response.
enum Next {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Sending {
    /// Sends the answer of a service that has one message.
    pub(super) async fn message(
        mut self,
        head: Response<()>,
        respond: &mut SendResponse<Chunk>,
        held: &mut Held,
    ) -> Result<Code, Ended> {
        // Nothing is sent before the answer is known to have room.
        let first = poll_fn(|cx| self.poll_next(cx)).await;
        let Next::Data(mut data) = first else {
            let Next::Trailers(trailers) = first else { return Ok(Code::Unknown) };
            held.iter_mut().for_each(|held| held.give_back());
            let code = code_of(&trailers);
            let mut stream = respond.send_response(head, false)?;
            stream.send_trailers(trailers)?;
            return Ok(code);
        };
        // One message is one chunk; this is for the sake of the type.
        let trailers = loop {
            match poll_fn(|cx| self.poll_next(cx)).await {
                Next::Data(more) => data = [data, more].concat().into(),
                Next::Trailers(trailers) => break trailers,
            }
        };
        self.hold(held, &data).map_err(|cause| RpcError::Overloaded { cause })?;
        send_message(head, data, trailers, respond, held.take(), self.progress).await
    }

    /// Sends a stream of messages.
    pub(super) async fn stream(
        mut self,
        head: Response<()>,
        respond: &mut SendResponse<Chunk>,
        held: &mut Held,
    ) -> Result<Code, Ended> {
        let mut stream = respond.send_response(head, false)?;
        loop {
            let next = poll_fn(|cx| {
                if let Poll::Ready(next) = self.poll_next(cx) {
                    return Poll::Ready(Ok(next));
                }
                if stream.poll_reset(cx).is_ready() {
                    return Poll::Ready(Err(Ended::Gone));
                }
                Poll::Pending
            });
            match next.await? {
                Next::Data(data) => match self.hold(held, &data) {
                    Ok(()) => {
                        send_data(&mut stream, data, None, self.progress, self.ending.as_mut()).await?;
                    }
                    Err(cause) => {
                        let status = Status::from(RpcError::Overloaded { cause });
                        let code = status.code();
                        stream.send_trailers(trailers(status))?;
                        return Ok(code);
                    }
                },
                Next::Trailers(trailers) => {
                    let code = code_of(&trailers);
                    stream.send_trailers(trailers)?;
                    return Ok(code);
                }
            }
        }
    }

    /// Holds the bytes of `data` instead of those before.
    fn hold(&self, held: &mut Held, data: &Bytes) -> Result<(), Overload> {
        hold(held, if self.shared { 0 } else { data.len() })
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        // First, or a stream that always has more would never end.
        if let Some(ending) = &mut self.ending
            && let Poll::Ready(error) = ending.poll(cx)
        {
            return Poll::Ready(Next::Trailers(trailers(error.into())));
        }
        if let Some(revoked) = &mut self.revoked
            && let Poll::Ready(error) = revoked.as_mut().poll(cx)
        {
            return Poll::Ready(Next::Trailers(trailers(error.into())));
        }
        let body = Pin::new(&mut self.body);
        let Ok(polled) = catch_unwind(AssertUnwindSafe(|| body.poll_frame(cx))) else {
            // Part of the response may have left: it ends with a status, since a reset would take that back.
            error!("a response panicked");
            return Poll::Ready(Next::Trailers(trailers(RpcError::Internal.into())));
        };
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                let next = match frame.into_data() {
                    Ok(data) => Next::Data(data),
                    Err(frame) => Next::Trailers(frame.into_trailers().unwrap_or_default()),
                };
                return Poll::Ready(self.unless_faulty(next));
            }
            Poll::Ready(Some(Err(status))) => return Poll::Ready(Next::Trailers(trailers(status))),
            Poll::Ready(None) => {
                let next = Next::Trailers(trailers(Status::ok("")));
                return Poll::Ready(self.unless_faulty(next));
            }
            Poll::Pending => {}
        }
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Next::Trailers(trailers(RpcError::DeadlineExceeded.into())));
        }
        Poll::Pending
    }

    /// The end of a call whose messages were wrong says so.
    fn unless_faulty(&self, next: Next) -> Next {
        match (&next, self.fault.as_ref().and_then(|fault| fault.get())) {
            (Next::Trailers(_), Some(error)) => Next::Trailers(trailers(error.clone().into())),
            _ => next,
        }
    }
}

/// Sends the one message of an answer, which takes what the call holds with it: it must hold the bytes of `data`.
async fn send_message(
    head: Response<()>,
    data: Bytes,
    trailers: HeaderMap,
    respond: &mut SendResponse<Chunk>,
    held: Held,
    progress: Option<Duration>,
) -> Result<Code, Ended> {
    let code = code_of(&trailers);
    let mut stream = respond.send_response(head, false)?;
    send_data(&mut stream, data, held.map(|held| (held, code)), progress, None).await?;
    stream.send_trailers(trailers)?;
    Ok(code)
}

/// Sends an answer of one message with its length prefix, as a generated service does: nothing but the content type before it, and
/// OK behind it. What has to wait for the peer is left to the future that is returned.
pub(super) fn send_answer(
    data: Bytes,
    respond: &mut SendResponse<Chunk>,
    held: &mut Held,
    progress: Duration,
) -> Result<Option<SendingRest>, Ended> {
    hold(held, data.len()).map_err(|cause| RpcError::Overloaded { cause })?;
    let mut head = Response::new(());
    *head.headers_mut() = one_header(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    let trailers = one_header(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    let mut stream = respond.send_response(head, false)?;
    let last = held.take().map(|held| (held, Code::Ok));
    if data.len() <= PIECE_BYTES {
        stream.reserve_capacity(data.len());
        // Nearly always the peer has room for all of it.
        if stream.capacity() >= data.len() {
            stream.send_data(Chunk { bytes: data, last }, false)?;
            stream.send_trailers(trailers)?;
            return Ok(None);
        }
    }
    Ok(Some(Box::pin(async move {
        send_data(&mut stream, data, last, Some(progress), None).await?;
        Ok(stream.send_trailers(trailers)?)
    })))
}

/// The rest of an answer on its way.
pub(super) type SendingRest = Pin<Box<dyn Future<Output = Result<(), Ended>> + Send>>;

/// Headers with room for no other one.
fn one_header(name: HeaderName, value: HeaderValue) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(1);
    headers.insert(name, value);
    headers
}

/// Hands `data` over as fast as the peer takes it, in pieces, so that what does not leave can still be dropped: only what the peer's
/// window has room for is given to HTTP/2. Resets the stream if a piece makes no progress, or has not left when the stream must end.
async fn send_data(
    stream: &mut SendStream<Chunk>,
    mut data: Bytes,
    mut last: Option<(Box<HeldCall>, Code)>,
    progress: Option<Duration>,
    mut ending: Option<&mut Ending>,
) -> Result<(), Ended> {
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    let mut piece = data.len().min(PIECE_BYTES);
    while !data.is_empty() {
        stream.reserve_capacity(piece);
        let capacity = poll_fn(|cx| {
            loop {
                let capacity = stream.capacity();
                if capacity > 0 {
                    return Poll::Ready(Ok(capacity));
                }
                match stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Err(Ended::Gone)),
                    Poll::Pending => break,
                }
            }
            if stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(Ended::Gone));
            }
            if ending.as_mut().is_some_and(|ending| ending.poll(cx).is_ready()) {
                stream.send_reset(Reason::CANCEL);
                return Poll::Ready(Err(Ended::Gone));
            }
            let Some(progress) = progress else { return Poll::Pending };
            let timer = timer.get_or_insert_with(|| Box::pin(sleep(progress)));
            if timer.as_mut().poll(cx).is_ready() {
                debug!("a response made no progress and was reset");
                // What the peer has not made room for is dropped with it.
                stream.send_reset(Reason::CANCEL);
                return Poll::Ready(Err(Ended::Gone));
            }
            Poll::Pending
        })
        .await?;
        let part = data.split_to(capacity.min(piece));
        piece -= part.len();
        if piece == 0 {
            // A whole piece has left: that is progress.
            timer = None;
            piece = data.len().min(PIECE_BYTES);
        }
        let last = if data.is_empty() { last.take() } else { None };
        stream.send_data(Chunk { bytes: part, last }, false)?;
    }
    Ok(())
}

/// Ends a call that has no answer, if its response has not begun yet. Returns the code of `status`.
pub(super) fn send_status(respond: &mut SendResponse<Chunk>, status: Status) -> Code {
    let code = status.code();
    // An error means that the caller is gone, or has its answer.
    _ = respond.send_response(status.into_http(), true);
    code
}

fn trailers(status: Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("13"));
    }
    trailers
}

/// Bytes of a response. The last chunk of an answer has the call with it, so that HTTP/2 ends it when the bytes have left or are
/// dropped.
#[derive(Debug)]
pub(super) struct Chunk {
    bytes: Bytes,
    /// The call, and how it ends if the bytes leave.
    last: Option<(Box<HeldCall>, Code)>,
}

impl Chunk {
    /// Bytes of a response; with the last of them, its call and how it ends.
    pub(super) const fn new(bytes: Bytes, last: Option<(Box<HeldCall>, Code)>) -> Self {
        Self { bytes, last }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some((held, code)) = self.last.take()
            && self.bytes.is_empty()
        {
            held.end(code);
        }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

/// How much of a response has to leave to count as progress, unless less is left.
const PIECE_BYTES: usize = 16 * 1024;
