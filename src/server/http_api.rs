//! The API over HTTP/1.1 and HTTP/2, for callers without gRPC: the RPCs of one message and one answer by the Connect protocol, and
//! access evaluations of OpenID AuthZEN.
//!
//! A call is let in, holds its place and its bytes, is observed and is answered as one over gRPC is (`call`): here is what differs, which
//! is how a request says what it asks and how an answer looks.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tracing::error;

use super::accept::Connection;
use super::call::{CallLimits, Calls};
use super::method::Method;
use super::observe::ObservedCall;
use super::response::{Held, HeldCall, hold};
use super::web::bad_request::check;
use super::web::body::{AnswerBody, CollectError, collect};
use super::web::{self, AfterAnswer, WebConnection};
use crate::rpc::caller::CallOrigin;
use crate::rpc::error::RpcError;
use crate::rpc::record::PREVIOUS_ATTEMPTS;
use crate::rpc::trace_parent::TRACE_PARENT;

mod authzen;
mod connect;

/// Serves a connection until its peer closes it, its age or `stop` ends it, or it breaks.
pub(super) async fn serve(mut connection: Connection, calls: Calls, stop: CancellationToken) {
    let mut closed = pin!(connection.take_closed());
    let limits = calls.limits.clone();
    let web = Arc::new(WebConnection::new(connection.peer(), &calls.pressure));
    let api = Arc::new(ApiConnection { calls, web: Arc::clone(&web), is_tls: connection.is_tls() });
    let answer = move |request, after: AfterAnswer| {
        let api = Arc::clone(&api);
        async move { after.apply_to(api.respond(request).await) }
    };
    let with_limits = (&limits, limits.max_header_list_bytes);
    web::serve((connection, closed.as_mut()), web, with_limits, &stop, answer).await;
}

/// What the requests of a connection share.
struct ApiConnection {
    calls: Calls,
    web: Arc<WebConnection>,
    is_tls: bool,
}

/// A call that was let in.
struct TakenCall {
    limits: CallLimits,
    origin: CallOrigin,
    held: Held,
}

/// An answer, or why there is none, as it is sent.
struct ApiAnswer {
    /// How the call ends.
    code: Code,
    status: StatusCode,
    content_type: HeaderValue,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl ApiConnection {
    /// Answers a request.
    async fn respond(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        let (parts, mut body) = request.into_parts();
        let version = parts.version;
        let response = match check(&parts, self.web.faults.first()) {
            Ok(()) => {
                let head = Request::from_parts(parts, ());
                match self.calls.methods.endpoint(head.uri().path()) {
                    Some(endpoint) => self.authzen(endpoint, &head, &mut body).await,
                    None => self.connect(&head, &mut body).await,
                }
            }
            Err(error) => {
                let refused = connect::refusal(&Status::invalid_argument(error.to_string()));
                let refused = refused.with_status(error.status());
                return self.send(refused.with(CONNECTION, HeaderValue::from_static("close")), None);
            }
        };
        if version != Version::HTTP_2 {
            // A client that is still sending when its connection is closed would not see the answer.
            _ = timeout(UNREAD_PATIENCE, Limited::new(body, MAX_UNREAD_BYTES).collect()).await;
        }
        response
    }

    /// Begins a call whose headers are here.
    fn take(
        &self,
        method: Option<&Arc<Method>>,
        system: &'static str,
        request: &Request<()>,
        asked: Option<Duration>,
    ) -> Result<TakenCall, Status> {
        let Calls { methods, traces, .. } = &self.calls;
        let mut observed = ObservedCall::begin(methods.counts(method));
        if let Some(traces) = traces {
            observed.trace(traces.call(system, request, method.is_some(), &self.web.peer.address));
        }
        let from = (&self.web.peer, &self.web.pressure);
        let head = (request.uri().path(), request.headers());
        match self.calls.admit(from, head, method, asked, observed.begun()) {
            Ok((limits, mut origin, holdings)) => {
                if let Some(span) = observed.span() {
                    span.admitted(origin.identity.as_ref());
                    origin.notes = Some(span.notes());
                }
                Ok(TakenCall { limits, origin, held: Some(HeldCall::new(holdings, observed)) })
            }
            Err(status) => {
                observed.end(status.code());
                Err(status)
            }
        }
    }

    /// Takes the whole body of a request, of which the call holds the bytes.
    async fn body(
        &self,
        body: &mut Incoming,
        call: &mut TakenCall,
        limit: usize,
    ) -> Result<Bytes, CollectError> {
        let held = &mut call.held;
        collect(body, limit, |amount| hold(held, amount), call.limits.message_deadline).await
    }

    /// Answers a call that was let in by `answered`, within its deadline. A panic is a fault of this call alone.
    async fn answer_within<E: From<RpcError>>(
        &self,
        path: &str,
        deadline: Instant,
        answered: impl Future<Output = Result<ApiAnswer, E>>,
    ) -> Result<ApiAnswer, E> {
        let answered = AssertUnwindSafe(answered).catch_unwind();
        match timeout_at(deadline, answered).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(_)) => {
                error!(path, "a call panicked");
                Err(RpcError::Internal.into())
            }
            Err(_) => Err(RpcError::DeadlineExceeded.into()),
        }
    }

    /// Makes an answer into a response. What its call holds leaves with it.
    fn send(&self, answer: ApiAnswer, held: Held) -> Response<AnswerBody> {
        let ApiAnswer { code, status, content_type, headers, body } = answer;
        let body = match held {
            Some(held) if code == Code::Ok => AnswerBody::of_call(body, held, code, &self.web.responses),
            held => {
                if let Some(held) = held {
                    held.end(code);
                }
                AnswerBody::alone(body, &self.web.responses)
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response.headers_mut().extend(headers);
        response
    }
}

impl ApiAnswer {
    fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// With what belongs to an error whatever its form is.
    fn for_code(self) -> Self {
        match self.code {
            // RFC 9110 section 11.6.1.
            Code::Unauthenticated => self.with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            _ => self,
        }
    }
}

/// The headers of a request that the services look at.
fn headers_for_services(headers: &HeaderMap) -> HeaderMap {
    let passed = [&TRACE_PARENT, &PREVIOUS_ATTEMPTS];
    passed.into_iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone()))).collect()
}

/// What is still read of a body that nobody wants.
const MAX_UNREAD_BYTES: usize = 64 * 1024;
const UNREAD_PATIENCE: Duration = Duration::from_secs(1);
