//! One call, from its headers until its response has left: a place, a deadline, the message, the service, the answer.
//!
//! Each call is a task of its own, so that what one does never stops another. A place is taken before that task begins and is given
//! back when the last byte of the response has left or was dropped, because the last chunk of the response carries it.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, Request, Response};
use http_body::Body as _;
use http_body_util::Full;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout_at};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::Service as _;
use tracing::{debug, error};

use super::access::{Gate, Needs, PeerIdentity};
use super::config::PeerLimits;
use super::lifecycle::Lifecycle;
use super::message::{Messages, NoMessage, receive};
use super::method::{InFlight, Method, Methods, Service, Streaming};
use super::observe::{ObservedCall, code_of};
use super::pressure::{CallPlace, ConnectionPressure, HeldBytes, Pressure};
use super::traces::Traces;
use crate::budget::Permit;
use crate::rpc::caller::CallerIdentity;
use crate::rpc::error::{Overload, RpcError};
use crate::rpc::policy_status::SharedBytes;

/// What the calls of all connections share.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    pub(super) routes: Routes,
    pub(super) methods: Methods,
    pub(super) lifecycle: Lifecycle,
    pub(super) pressure: Pressure,
    pub(super) limits: PeerLimits,
    pub(super) gate: Gate,
    /// If calls are spans.
    pub(super) traces: Option<Traces>,
}

impl Calls {
    /// The calls of a connection from `peer`.
    pub(super) fn on_connection(&self, peer: PeerIdentity) -> ConnectionCalls {
        let Self { routes, methods, lifecycle, pressure, limits, gate, traces } = self;
        let timeouts = Timeouts {
            request: limits.request_timeout,
            message: limits.message_timeout,
            progress: limits.response_progress_timeout,
        };
        ConnectionCalls {
            routes: routes.clone(),
            methods: methods.clone(),
            lifecycle: lifecycle.clone(),
            pressure: pressure.connection(),
            server_pressure: pressure.clone(),
            gate: gate.clone(),
            traces: traces.clone(),
            peer: Arc::new(peer),
            timeouts,
            ending: CancellationToken::new(),
        }
    }
}

/// The calls of a connection.
#[derive(Debug)]
pub(super) struct ConnectionCalls {
    routes: Routes,
    methods: Methods,
    lifecycle: Lifecycle,
    pressure: ConnectionPressure,
    server_pressure: Pressure,
    gate: Gate,
    traces: Option<Traces>,
    peer: Arc<PeerIdentity>,
    timeouts: Timeouts,
    /// Cancelled when streams must end because the connection does.
    ending: CancellationToken,
}

#[derive(Clone, Copy, Debug)]
struct Timeouts {
    request: Duration,
    message: Duration,
    progress: Duration,
}

impl ConnectionCalls {
    /// Every call until its response has left.
    pub(super) const fn open(&self) -> &TaskTracker {
        self.pressure.open()
    }

    /// Ends every stream: with UNAVAILABLE, or with a reset where its reader has stopped inside of a message.
    pub(super) fn end_streams(&self) {
        self.ending.cancel();
    }

    /// Takes a call whose headers are here: a task answers it, or it is refused at once.
    pub(super) fn begin(&self, mut request: Request<RecvStream>, mut respond: SendResponse<Chunk>) {
        let method = self.methods.get(request.uri().path());
        let mut observed = ObservedCall::begin(self.methods.counts(method));
        if let Some(traces) = &self.traces {
            observed.trace(traces.call(&request, method.is_some(), &self.peer.address));
        }
        match self.admit(&request, method) {
            Ok((call, identity)) => {
                request.extensions_mut().insert(self.peer.address);
                if let Some(span) = observed.span() {
                    span.admitted(identity.as_ref());
                    request.extensions_mut().insert(span.notes());
                }
                if let Some(identity) = identity {
                    request.extensions_mut().insert(identity);
                }
                tokio::spawn(call.run(request, respond, observed));
            }
            Err(status) => observed.end(send_status(&mut respond, status)),
        }
    }

    fn admit(
        &self,
        request: &Request<RecvStream>,
        method: Option<&Arc<Method>>,
    ) -> Result<(AdmittedCall, Option<CallerIdentity>), Status> {
        let path = request.uri().path();
        let needs = method.map_or(Needs::Listing, |method| method.needs);
        let mut let_in =
            self.gate.admit(&self.peer, request.headers(), needs, path, &self.server_pressure)?;
        let Some(method) = method else { return Err(Status::unimplemented("")) };
        // These are asked when things go badly.
        let always = matches!(method.service, Service::Health | Service::Reflection);
        if self.lifecycle.is_draining() && !always {
            return Err(RpcError::Draining.into());
        }
        let refuse = |cause| Status::from(RpcError::Overloaded { cause });
        let place = self.pressure.place(method.kind, method.service).map_err(refuse)?;
        let bytes = self.pressure.bytes().map_err(refuse)?;
        let now = Instant::now();
        let asked = request.headers().get("grpc-timeout").and_then(|value| timeout(value.to_str().ok()?));
        // A little early, so that the answer is there before the caller stops waiting for it.
        let asked = asked.map(|timeout| timeout - DEADLINE_LEAD.min(timeout / 10));
        let begun = now + asked.unwrap_or(self.timeouts.request).min(self.timeouts.request);
        let revoked = (method.kind != Streaming::Unary)
            .then(|| self.gate.revoked(Arc::clone(&self.peer), needs, path.to_owned(), &let_in))
            .flatten()
            .map(|revoked| Box::pin(revoked) as Revoked);
        let call = AdmittedCall {
            method: Arc::clone(method),
            routes: self.routes.clone(),
            held: CallHoldings {
                _place: place,
                _of_caller: let_in.place.take(),
                _in_flight: InFlight::new(method),
                bytes,
            },
            revoked,
            lifecycle: self.lifecycle.clone(),
            ending: self.ending.clone(),
            message_deadline: begun.min(now + self.timeouts.message),
            deadline: begun,
            // An hour of the caller's choice may be longer than the clock goes.
            stream_deadline: asked.and_then(|timeout| now.checked_add(timeout)),
            progress: self.timeouts.progress,
        };
        Ok((call, let_in.identity))
    }
}

/// A call that has its place.
struct AdmittedCall {
    method: Arc<Method>,
    routes: Routes,
    held: CallHoldings,
    lifecycle: Lifecycle,
    ending: CancellationToken,
    /// When the whole message must be here.
    message_deadline: Instant,
    /// When the response must begin.
    deadline: Instant,
    /// When a response that is a stream ends, if the caller named a time.
    stream_deadline: Option<Instant>,
    /// How long a response may make no progress.
    progress: Duration,
    /// When the caller of a stream may no longer see it.
    revoked: Option<Revoked>,
}

type Revoked = Pin<Box<dyn Future<Output = RpcError> + Send>>;

/// What a call holds.
#[derive(Debug)]
struct CallHoldings {
    _place: CallPlace,
    _of_caller: Option<Permit>,
    _in_flight: InFlight,
    bytes: HeldBytes,
}

impl AdmittedCall {
    async fn run(
        self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Chunk>,
        observed: ObservedCall,
    ) {
        let path = request.uri().path().to_owned();
        let mut observed = Some(observed);
        let answered = self.answer(request, &mut respond, &mut observed);
        // A panic is a fault of this call alone; the caller learns that there is no answer.
        let code = match AssertUnwindSafe(answered).catch_unwind().await {
            Ok(Ok(code)) => code,
            Ok(Err(Ended::Gone)) => {
                debug!(path, "the caller is gone");
                Code::Cancelled
            }
            Ok(Err(Ended::Status(status))) => send_status(&mut respond, status),
            Err(_) => {
                error!(path, "a call panicked");
                send_status(&mut respond, RpcError::Internal.into())
            }
        };
        // It may be on its way with the last bytes of an answer.
        if let Some(observed) = observed {
            observed.end(code);
        }
    }

    /// Returns the code that the response ends with. An answer that is still on its way when this returns takes `observed` with it.
    async fn answer(
        self,
        request: Request<RecvStream>,
        respond: &mut SendResponse<Chunk>,
        observed: &mut Option<ObservedCall>,
    ) -> Result<Code, Ended> {
        let Self {
            method,
            mut routes,
            mut held,
            lifecycle,
            ending,
            message_deadline,
            deadline,
            stream_deadline,
            progress,
            revoked,
        } = self;
        let (response, fault) = {
            let called = async {
                let (mut head, mut body) = request.into_parts();
                let names_encoding = head.headers.contains_key(ENCODING);
                if method.service == Service::Health {
                    // Calls without a place must not cost much while they wait.
                    let encoding = head.headers.remove(ENCODING);
                    head.headers = HeaderMap::new();
                    head.headers.extend(encoding.map(|encoding| (ENCODING, encoding)));
                }
                let (body, fault) = if method.kind == Streaming::BidiStream {
                    let messages = Messages::new(body, &method, names_encoding);
                    let fault = messages.fault();
                    (Body::new(messages), Some(fault))
                } else {
                    let message = receive(&mut body, &method, names_encoding, &mut held.bytes);
                    let message = timeout_at(message_deadline, message).await;
                    (Body::new(Full::new(message.map_err(|_| RpcError::DeadlineExceeded)??)), None)
                };
                match routes.call(Request::from_parts(head, body)).await {
                    Ok(response) => Ok((response, fault)),
                    Err(infallible) => match infallible {},
                }
            };
            until(called, respond, deadline).await?
        };
        let (head, body) = response.into_parts();
        let shared = head.extensions.get::<SharedBytes>().is_some();
        let head = Response::from_parts(head, ());
        if body.is_end_stream() {
            drop(held);
            let code = code_of(head.headers());
            respond.send_response(head, true)?;
            return Ok(code);
        }
        let unary = method.kind == Streaming::Unary;
        // A reader of the audit may stop reading for as long as it likes: it costs one chunk.
        let patient = method.kind == Streaming::ServerStream && method.service == Service::Audit;
        let sending = Sending {
            body,
            deadline: stream_deadline.filter(|_| !unary).map(|deadline| Box::pin(sleep_until(deadline))),
            ending: (!unary).then(|| Ending { lifecycle, cancelled: Box::pin(ending.cancelled_owned()) }),
            progress: (!patient).then_some(progress),
            revoked,
            shared,
            fault,
        };
        if unary {
            sending.message(head, respond, held, observed).await
        } else {
            sending.stream(head, respond, held).await
        }
    }
}

/// How a call ended that was not answered by its service.
#[derive(Debug)]
enum Ended {
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

/// What comes of `called`, unless the caller resets the call or `deadline` passes before.
async fn until<T>(
    called: impl Future<Output = Result<T, Ended>>,
    respond: &mut SendResponse<Chunk>,
    deadline: Instant,
) -> Result<T, Ended> {
    let mut called = pin!(called);
    let mut timer = pin!(sleep_until(deadline));
    poll_fn(|cx| {
        // First, so that a call that never waits pays for nothing else.
        if let Poll::Ready(result) = called.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        if respond.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(Ended::Gone));
        }
        timer.as_mut().poll(cx).map(|()| Err(RpcError::DeadlineExceeded.into()))
    })
    .await
}

/// A response on its way.
struct Sending {
    body: Body,
    /// When a stream ends, if the caller named a time.
    deadline: Option<Pin<Box<Sleep>>>,
    /// When a stream ends with its connection.
    ending: Option<Ending>,
    /// How long it may make no progress; `None` for as long as the caller likes.
    progress: Option<Duration>,
    /// When its caller may no longer see it.
    revoked: Option<Revoked>,
    /// Whether other responses hold the same bytes.
    shared: bool,
    /// What is wrong with the caller's messages, if it sends several.
    fault: Option<Arc<OnceLock<RpcError>>>,
}

/// The end of the connection of a stream.
struct Ending {
    lifecycle: Lifecycle,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
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
    /// Sends an answer of one message, which takes what the call holds with it.
    async fn message(
        mut self,
        head: Response<()>,
        respond: &mut SendResponse<Chunk>,
        mut held: CallHoldings,
        observed: &mut Option<ObservedCall>,
    ) -> Result<Code, Ended> {
        // Nothing is sent before the answer is known to have room.
        let first = poll_fn(|cx| self.poll_next(cx)).await;
        let Next::Data(mut data) = first else {
            let Next::Trailers(trailers) = first else { return Ok(Code::Unknown) };
            drop(held);
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
        self.hold(&mut held, &data).map_err(|cause| RpcError::Overloaded { cause })?;
        let code = code_of(&trailers);
        let mut stream = respond.send_response(head, false)?;
        let last = observed.take().map(|observed| LastOfCall { _held: held, observed, code });
        send_data(&mut stream, data, last, self.progress, None).await?;
        stream.send_trailers(trailers)?;
        Ok(code)
    }

    /// Sends a stream of messages.
    async fn stream(
        mut self,
        head: Response<()>,
        respond: &mut SendResponse<Chunk>,
        mut held: CallHoldings,
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
                Next::Data(data) => match self.hold(&mut held, &data) {
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
    fn hold(&self, held: &mut CallHoldings, data: &Bytes) -> Result<(), Overload> {
        held.bytes.resize(if self.shared { 0 } else { data.len() })
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

/// Hands `data` over as fast as the peer takes it, in pieces, so that what does not leave can still be dropped: only what the peer's
/// window has room for is given to HTTP/2. Resets the stream if a piece makes no progress, or has not left when the stream must end.
async fn send_data(
    stream: &mut SendStream<Chunk>,
    mut data: Bytes,
    mut last: Option<LastOfCall>,
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
fn send_status(respond: &mut SendResponse<Chunk>, status: Status) -> Code {
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

/// Bytes of a response. The last chunk of an answer has with it what the call holds, so that HTTP/2 gives it back when the bytes have
/// left or are dropped.
#[derive(Debug)]
pub(super) struct Chunk {
    bytes: Bytes,
    last: Option<LastOfCall>,
}

/// What ends with the last bytes of an answer.
#[derive(Debug)]
struct LastOfCall {
    _held: CallHoldings,
    observed: ObservedCall,
    /// How the call ends if they leave.
    code: Code,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(LastOfCall { _held, observed, code }) = self.last.take()
            && self.bytes.is_empty()
        {
            observed.end(code);
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

/// gRPC over HTTP/2, `Timeout`: at most 8 digits and a unit.
fn timeout(header: &str) -> Option<Duration> {
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count = digits.parse::<u64>().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// How much earlier than the caller asked a call ends.
const DEADLINE_LEAD: Duration = Duration::from_millis(5);
/// How much of a response has to leave to count as progress, unless less is left.
const PIECE_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeout_is_read_in_every_unit() {
        #[track_caller]
        fn check(header: &str, expected: Option<Duration>) {
            assert_eq!(timeout(header), expected, "{header}");
        }
        check("2H", Some(Duration::from_secs(7200)));
        check("3M", Some(Duration::from_secs(180)));
        check("4S", Some(Duration::from_secs(4)));
        check("5m", Some(Duration::from_millis(5)));
        check("6u", Some(Duration::from_micros(6)));
        check("7n", Some(Duration::from_nanos(7)));
        check("99999999H", Some(Duration::from_secs(99_999_999 * 3600)));
        check("0S", Some(Duration::ZERO));
        for bad in ["", "S", "1", "123456789S", "-1S", "1 S", "1x", "1\u{e9}"] {
            check(bad, None);
        }
    }
}
