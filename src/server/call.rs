//! One call, from its headers until its response has left: a place, a deadline, the message, the service, the answer.
//!
//! Each call is a task (`call_task`), so that what one does never stops another. A place is taken before that task has it and is given
//! back when the last byte of the response has left or was dropped (`response`). An answer that is ready and waits for its record is left
//! to its connection (`kept_answers`).
//!
//! The RPCs that decide are answered from the bytes of their message to the bytes of their answer, without the router and the generated
//! service, which cost more than the decision. What is not plain among their calls goes to the generated service, like all other
//! calls: the answers of both are the same (`docs/adr/`, `tests/it/direct.rs`).

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use h2::RecvStream;
use h2::server::SendResponse;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, Version, request};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::Service as _;
use tracing::{debug, error};

use super::access::{Gate, Needs, PeerIdentity};
use super::call_task::{IdleTasks, TaskSlot};
use super::config::PeerLimits;
use super::kept_answers::{KeptAnswer, KeptAnswers, SettledAnswers};
use super::lifecycle::Lifecycle;
use super::message::{Messages, receive};
use super::method::{InFlight, Method, Methods, Service, Streaming};
use super::observe::{ObservedCall, code_of};
use super::pressure::{ConnectionPressure, Pressure};
use super::response::{
    CallHoldings, Chunk, Ended, Ending, HeldCall, Revoked, Sending, send_answer, send_status,
};
use super::traces::Traces;
use super::traces::call::GRPC;
use crate::rpc::answering::Answering;
use crate::rpc::caller::CallOrigin;
use crate::rpc::codec::{PREFIX_BYTES, frame, frame_with_capacity};
use crate::rpc::count::DecidingMethod;
use crate::rpc::error::RpcError;
use crate::rpc::policy_status::SharedBytes;
use crate::rpc::scope_policy::{CallHead, ScopePolicy};

/// What the calls of all connections share.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    pub(super) routes: Routes,
    /// What answers the RPCs that decide; `None` if the generated services answer all.
    pub(super) direct: Option<ScopePolicy>,
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
    pub(super) fn on_connection(&self, peer: PeerIdentity) -> Arc<ConnectionCalls> {
        Arc::new(ConnectionCalls {
            pressure: self.pressure.connection(),
            server: self.clone(),
            peer: Arc::new(peer),
            ending: CancellationToken::new(),
            idle: IdleTasks::default(),
            kept: Arc::default(),
        })
    }
}

/// The calls of a connection.
#[derive(Debug)]
pub(super) struct ConnectionCalls {
    server: Calls,
    pressure: ConnectionPressure,
    peer: Arc<PeerIdentity>,
    /// Cancelled when streams must end because the connection does.
    ending: CancellationToken,
    /// Tasks that wait for a call.
    idle: IdleTasks<(AdmittedCall, RoutedRequest)>,
    /// Answers that wait for their records.
    kept: Arc<KeptAnswers>,
}

impl ConnectionCalls {
    /// Every call until its response has left.
    pub(super) fn open(&self) -> &TaskTracker {
        self.pressure.open()
    }

    /// The answers that wait for their records, for the connection to send them.
    pub(super) fn settled_answers(&self) -> SettledAnswers {
        SettledAnswers::of(Arc::clone(&self.kept))
    }

    /// Ends every stream: with UNAVAILABLE, or with a reset where its reader has stopped inside of a message.
    pub(super) fn end_streams(&self) {
        self.ending.cancel();
    }

    /// Takes a call whose headers are here: a task answers it, or it is refused at once.
    pub(super) fn begin(self: &Arc<Self>, request: Request<RecvStream>, mut respond: SendResponse<Chunk>) {
        let Calls { methods, traces, direct, .. } = &self.server;
        let method = methods.get(request.uri().path());
        let mut observed = ObservedCall::begin(methods.counts(method));
        if let Some(traces) = traces {
            observed.trace(traces.call(GRPC, &request, method.is_some(), &self.peer.address));
        }
        let asked = request.headers().get(TIMEOUT).and_then(|value| timeout(value.to_str().ok()?));
        let (path, headers) = (request.uri().path(), request.headers());
        let from = (&self.peer, &self.pressure);
        match self.server.admit(from, (path, headers), method, asked, observed.begun()) {
            Ok((limits, mut origin, held)) => {
                if let Some(span) = observed.span() {
                    span.admitted(origin.identity.as_ref());
                    origin.notes = Some(span.notes());
                }
                let (head, body) = request.into_parts();
                let direct = direct.as_ref().and(limits.method.decides).filter(|_| is_plain(&head));
                let request = match direct {
                    Some(method) => {
                        RoutedRequest::Direct(method, CallHead { headers: head.headers, origin }, body)
                    }
                    None => RoutedRequest::Generated(Some(Box::new((head, origin, body)))),
                };
                let held = Some(HeldCall::new(held, observed));
                let call = AdmittedCall { connection: Arc::clone(self), limits, respond, held };
                if let Err(call) = self.idle.hand_over((call, request)) {
                    tokio::spawn(answer_calls(call));
                }
            }
            Err(status) => observed.end(send_status(&mut respond, status)),
        }
    }
}

impl Calls {
    /// Lets a call from a connection in, whatever it came over, or says why not. `asked` is how long its caller waits.
    pub(super) fn admit(
        &self,
        (peer, connection): (&Arc<PeerIdentity>, &ConnectionPressure),
        (path, headers): (&str, &HeaderMap),
        method: Option<&Arc<Method>>,
        asked: Option<Duration>,
        now: Instant,
    ) -> Result<(CallLimits, CallOrigin, CallHoldings), Status> {
        let Self { lifecycle, pressure, limits, gate, .. } = self;
        let needs = method.map_or(Needs::Listing, |method| method.needs);
        let mut let_in = gate.admit(peer, headers, needs, path, pressure)?;
        let Some(method) = method else { return Err(Status::unimplemented("")) };
        // These are asked when things go badly.
        let always = matches!(method.service, Service::Health | Service::Reflection);
        if lifecycle.is_draining() && !always {
            return Err(RpcError::Draining.into());
        }
        let refuse = |cause| Status::from(RpcError::Overloaded { cause });
        let place = connection.place(method.kind, method.service).map_err(refuse)?;
        // A little early, so that the answer is there before the caller stops waiting for it.
        let asked = asked.map(|timeout| timeout - DEADLINE_LEAD.min(timeout / 10));
        let deadline = now + asked.unwrap_or(limits.request_timeout).min(limits.request_timeout);
        let revoked = (method.kind != Streaming::Unary)
            .then(|| gate.revoked(Arc::clone(peer), needs, path.to_owned(), &let_in))
            .flatten()
            .map(|revoked| Box::pin(revoked) as Revoked);
        let limits = CallLimits {
            method: Arc::clone(method),
            message_deadline: deadline.min(now + limits.message_timeout),
            deadline,
            // An hour of the caller's choice may be longer than the clock goes.
            stream_deadline: asked.and_then(|timeout| now.checked_add(timeout)),
            revoked,
        };
        let held = CallHoldings { place, _of_caller: let_in.place.take(), _in_flight: InFlight::new(method) };
        let origin = CallOrigin { peer: Some(peer.address), identity: let_in.identity, notes: None };
        Ok((limits, origin, held))
    }

    /// Has the generated service answer a call of one message, which came without gRPC.
    ///
    /// # Errors
    /// The status that the call ends with.
    pub(super) async fn unary(
        &self,
        path: &str,
        headers: HeaderMap,
        origin: CallOrigin,
        message: &[u8],
    ) -> Result<Bytes, Status> {
        let mut framed = frame_with_capacity(message.len());
        framed.extend_from_slice(message);
        let mut request = Request::new(Body::new(Full::new(frame(framed))));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = Uri::try_from(path).map_err(|_| RpcError::Internal)?;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = headers;
        request.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        request.extensions_mut().insert(origin);
        let response = match self.routes.clone().call(request).await {
            Ok(response) => response,
            Err(infallible) => match infallible {},
        };
        let (head, body) = response.into_parts();
        let ended =
            |headers: &HeaderMap| Status::from_header_map(headers).filter(|status| status.code() != Code::Ok);
        if let Some(status) = ended(&head.headers) {
            return Err(status);
        }
        let collected = body.collect().await?;
        if let Some(status) = collected.trailers().and_then(ended) {
            return Err(status);
        }
        let message = collected.to_bytes();
        Ok(message.slice(PREFIX_BYTES.min(message.len())..))
    }
}

/// What ends a call early.
pub(super) struct CallLimits {
    method: Arc<Method>,
    /// When the whole message must be here.
    pub(super) message_deadline: Instant,
    /// When the response must begin.
    pub(super) deadline: Instant,
    /// When a response that is a stream ends, if the caller named a time.
    stream_deadline: Option<Instant>,
    /// When the caller of a stream may no longer see it.
    revoked: Option<Revoked>,
}

/// A call that has its place. It is copied on its way to the task that answers it, so what is rarely needed is boxed.
struct AdmittedCall {
    connection: Arc<ConnectionCalls>,
    limits: CallLimits,
    respond: SendResponse<Chunk>,
    /// Gone with the last bytes of an answer.
    held: Option<Box<HeldCall>>,
}

/// The request of a call, for what answers it.
enum RoutedRequest {
    /// A call that is answered from its bytes.
    Direct(DecidingMethod, CallHead, RecvStream),
    /// A call for the generated services, until they have it.
    Generated(Option<Box<GeneratedRequest>>),
}

type GeneratedRequest = (request::Parts, CallOrigin, RecvStream);

/// What came of a call that was not refused.
enum CallOutcome {
    /// It has a response, which ends with this code.
    Responded(Code),
    /// Its answer is ready, and waits for the record of this key.
    Recording(Bytes, usize),
}

/// Answers a call, and those that are handed over to the same task after it.
#[expect(clippy::manual_async_fn, reason = "an `async fn` would have room for what it is given twice")]
fn answer_calls(first: (AdmittedCall, RoutedRequest)) -> impl Future<Output = ()> + Send {
    async move {
        let slot = TaskSlot::new();
        let mut next = Some(first);
        while let Some((call, request)) = &mut next {
            let ready = call.run(request).await;
            let connection = Arc::clone(&call.connection);
            match (next.take(), ready) {
                (Some((call, _)), Some((bytes, record))) => call.keep(bytes, record),
                (call, _) => drop(call),
            }
            // Nothing of the call or its connection is held while the next one is waited for.
            let is_kept = connection.idle.keep(&slot);
            drop(connection);
            if !is_kept {
                return;
            }
            next = slot.next().await;
        }
    }
}

impl AdmittedCall {
    /// Answers it. Returns an answer that has to wait for a record.
    async fn run(&mut self, request: &mut RoutedRequest) -> Option<(Bytes, usize)> {
        let answered = async {
            match request {
                RoutedRequest::Direct(method, head, body) => self.answer(*method, head, body).await,
                RoutedRequest::Generated(request) => match request.take() {
                    Some(request) => Box::pin(self.serve(*request)).await.map(CallOutcome::Responded),
                    None => Err(RpcError::Internal.into()),
                },
            }
        };
        // A panic is a fault of this call alone; the caller learns that there is no answer.
        let ended = AssertUnwindSafe(answered).catch_unwind().await;
        let path = self.limits.method.path.as_str();
        let code = match ended {
            Ok(Ok(CallOutcome::Responded(code))) => code,
            Ok(Ok(CallOutcome::Recording(bytes, record))) => return Some((bytes, record)),
            Ok(Err(Ended::Gone)) => {
                debug!(path, "the caller is gone");
                Code::Cancelled
            }
            Ok(Err(Ended::Status(status))) => self.refuse(status),
            Err(_) => {
                error!(path, "a call panicked");
                self.refuse(RpcError::Internal.into())
            }
        };
        // It may be on its way with the last bytes of an answer.
        if let Some(held) = self.held.take() {
            held.end(code);
        }
        None
    }

    /// Leaves an answer to its connection, which sends it when `record` is durable.
    fn keep(self, bytes: Bytes, record: usize) {
        let Self { connection, limits: CallLimits { deadline, .. }, respond, held } = self;
        connection.kept.keep(record, KeptAnswer { bytes, respond, held, deadline });
    }

    /// Ends the call with a status alone.
    fn refuse(&mut self, status: Status) -> Code {
        self.held.iter_mut().for_each(|held| held.give_back());
        send_status(&mut self.respond, status)
    }

    /// Answers from the bytes of the message.
    async fn answer(
        &mut self,
        method: DecidingMethod,
        head: &CallHead,
        body: &mut RecvStream,
    ) -> Result<CallOutcome, Ended> {
        let Self { connection, limits, respond, held } = self;
        let Calls { direct, limits: peer_limits, .. } = &connection.server;
        let message = {
            let message = pin!(receive(body, &limits.method, false, held));
            until(message, respond, limits.message_deadline).await?
        };
        let service = direct.as_ref().ok_or(RpcError::Internal)?;
        let answer = match service.answer(method, head, message.slice(PREFIX_BYTES..), &connection.kept) {
            Answering::Done(answer) => answer?,
            Answering::Recording(answer, record) => return Ok(CallOutcome::Recording(answer, record)),
            Answering::Waiting(mut waiting) => until(waiting.as_mut(), respond, limits.deadline).await?,
        };
        let rest = send_answer(answer, respond, held, peer_limits.response_progress_timeout)?;
        if let Some(rest) = rest {
            rest.await?;
        }
        Ok(CallOutcome::Responded(Code::Ok))
    }

    /// Has the generated service answer. Returns the code that the response ends with.
    async fn serve(&mut self, (mut head, origin, mut body): GeneratedRequest) -> Result<Code, Ended> {
        let Self { connection, limits, respond, held } = self;
        let CallLimits { method, message_deadline, deadline, stream_deadline, revoked } = limits;
        let (message_deadline, deadline) = (*message_deadline, *deadline);
        head.extensions.insert(origin);
        let names_encoding = head.headers.contains_key(ENCODING);
        let mut routes = connection.server.routes.clone();
        let (response, fault) = {
            let called = pin!(async {
                if method.service == Service::Health {
                    // Calls without a place must not cost much while they wait.
                    let encoding = head.headers.remove(ENCODING);
                    head.headers = HeaderMap::new();
                    head.headers.extend(encoding.map(|encoding| (ENCODING, encoding)));
                }
                let (body, fault) = if method.kind == Streaming::BidiStream {
                    let messages = Messages::new(body, Arc::clone(method), names_encoding);
                    let fault = messages.fault();
                    (Body::new(messages), Some(fault))
                } else {
                    let message = receive(&mut body, method, names_encoding, held);
                    let message = timeout_at(message_deadline, message).await;
                    (Body::new(Full::new(message.map_err(|_| RpcError::DeadlineExceeded)??)), None)
                };
                match routes.call(Request::from_parts(head, body)).await {
                    Ok(response) => Ok::<_, Ended>((response, fault)),
                    Err(infallible) => match infallible {},
                }
            });
            until(called, respond, deadline).await?
        };
        let (head, body) = response.into_parts();
        let shared = head.extensions.get::<SharedBytes>().is_some();
        let head = Response::from_parts(head, ());
        if body.is_end_stream() {
            held.iter_mut().for_each(|held| held.give_back());
            let code = code_of(head.headers());
            respond.send_response(head, true)?;
            return Ok(code);
        }
        let unary = method.kind == Streaming::Unary;
        // A reader of the audit may stop reading for as long as it likes: it costs one chunk.
        let patient = method.kind == Streaming::ServerStream && method.service == Service::Audit;
        let ending = || Ending {
            lifecycle: connection.server.lifecycle.clone(),
            cancelled: Box::pin(connection.ending.clone().cancelled_owned()),
        };
        let sending = Sending {
            body,
            deadline: stream_deadline.filter(|_| !unary).map(|deadline| Box::pin(sleep_until(deadline))),
            ending: (!unary).then(ending),
            progress: (!patient).then_some(connection.server.limits.response_progress_timeout),
            revoked: revoked.take(),
            shared,
            fault,
        };
        if unary {
            sending.message(head, respond, held).await
        } else {
            sending.stream(head, respond, held).await
        }
    }
}

/// Whether nothing about a call asks for more than its one message as it is: the generated services do not answer calls of other HTTP
/// methods alike, nor those that name an encoding.
fn is_plain(head: &request::Parts) -> bool {
    head.method == http::Method::POST && !head.headers.contains_key(ENCODING)
}

/// What comes of `called`, unless the caller resets the call or `deadline` passes before.
async fn until<T, E: Into<Ended>>(
    mut called: Pin<&mut (impl Future<Output = Result<T, E>> + ?Sized)>,
    respond: &mut SendResponse<Chunk>,
    deadline: Instant,
) -> Result<T, Ended> {
    // Made when somebody has to wait for it.
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        // First, so that a call that never waits pays for nothing else.
        if let Poll::Ready(result) = called.as_mut().poll(cx) {
            return Poll::Ready(result.map_err(E::into));
        }
        if respond.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(Ended::Gone));
        }
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        timer.as_mut().poll(cx).map(|()| Err(RpcError::DeadlineExceeded.into()))
    })
    .await
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

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// How much earlier than the caller asked a call ends.
const DEADLINE_LEAD: Duration = Duration::from_millis(5);

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
