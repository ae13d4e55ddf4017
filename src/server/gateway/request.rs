//! One request of a client: whether it is taken, where it goes, and what is passed on unchanged.

use bytes::Bytes;
use futures_util::{FutureExt as _, TryFutureExt as _};
use http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_REQUEST_HEADERS, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue,
    ORIGIN, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade;
use hyper_util::rt::TokioIo;
use opentelemetry::trace::SpanContext;
use tokio::io::copy_bidirectional;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::answer::{busy, last_text, method_not_allowed, respond, text};
use super::body::{BodyProgress, GatewayBody, StreamedBody, empty, full};
use super::connection::ClientConnection;
use super::count::RequestTarget;
use super::discovery::KnownUpstream;
use super::head::{has_length, strip_hop, upgrade_of};
use super::upstream::UpstreamError;
use super::upstream::body::UpstreamBody;
use crate::access::Right;
use crate::escape::shown;
use crate::gateway::endpoint::{EndpointName, GatewayRoute};
use crate::gateway::path::{CanonicalTarget, PathRefusal};
use crate::rpc::caller::CallerIdentity;
use crate::rpc::error::RpcError;
use crate::rpc::notes::DecisionNotes;
use crate::server::access::{LetIn, Needs};
use crate::server::method::{Service, Streaming};
use crate::server::pressure::CallPlace;
use crate::server::traces::request::RequestSpan;
use crate::server::web::bad_request::{BadRequest, check};

/// A request that was taken.
pub(super) struct TakenRequest {
    pub(super) parts: Parts,
    pub(super) body: Incoming,
    /// The path and the query as the client sent them, and as they are passed on.
    pub(super) target: PathAndQuery,
    pub(super) place: CallPlace,
    pub(super) identity: Option<CallerIdentity>,
    pub(super) deadline: Instant,
    /// Where what is decided is noted, if the request has a span.
    pub(super) notes: Option<DecisionNotes>,
}

impl TakenRequest {
    /// The bytes of the query; empty without one.
    pub(super) fn query(&self) -> &[u8] {
        self.target.query().unwrap_or_default().as_bytes()
    }

    /// The page that asks, if one does.
    fn page(&self) -> Option<AskingPage> {
        AskingPage::of(&self.target, self.headers())
    }

    /// The headers.
    pub(super) const fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// Whether it has a body.
    pub(super) fn has_body(&self) -> bool {
        !self.body.is_end_stream()
    }

    /// Whether its body is coded, so that what is in it is not what it says.
    pub(super) fn is_coded(&self) -> bool {
        let mut codings = self.headers().get_all(CONTENT_ENCODING).iter();
        codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    }
}

/// A page of a browser, by its origin, and the target that it asks for.
struct AskingPage {
    target: PathAndQuery,
    origin: HeaderValue,
}

impl AskingPage {
    /// The page that sends a request with these headers; none without `Origin`.
    fn of(target: &PathAndQuery, headers: &HeaderMap) -> Option<Self> {
        let origin = headers.get(ORIGIN)?.clone();
        Some(Self { target: target.clone(), origin })
    }
}

/// What is sent to the upstream instead of what came.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    /// Another target.
    pub(super) target: Option<PathAndQuery>,
    /// A body that is here.
    pub(super) body: Option<Bytes>,
    /// Whether the answer is to be read here, so that it must not be coded.
    pub(super) is_read: bool,
}

impl ClientConnection {
    /// Answers a request.
    pub(super) async fn respond(&self, request: Request<Incoming>) -> Response<GatewayBody> {
        let began = Instant::now();
        let method = request.method().clone();
        let path = tracing::enabled!(tracing::Level::DEBUG).then(|| shown(request.uri().path()));
        let traces = self.gateway.traces.as_ref();
        // Spans are large, and few requests have one.
        let mut span = traces
            .and_then(|traces| traces.request(request.method(), request.headers(), &self.web.peer.address))
            .map(Box::new);
        let (target, response) = self.take(request, span.as_deref_mut()).await;
        if let Some(span) = span {
            span.end(response.status());
        }
        let took = began.elapsed();
        self.gateway.counts.answered(target, response.status(), took);
        if let Some(path) = path {
            let (endpoint, status) = (target.as_str(), response.status().as_u16());
            debug!(%method, path, endpoint, status, ?took, peer = %self.web.peer.address, "request");
        }
        response
    }

    async fn take(
        &self,
        request: Request<Incoming>,
        span: Option<&mut RequestSpan>,
    ) -> (RequestTarget, Response<GatewayBody>) {
        let gateway = &self.gateway;
        let refused = |response| (RequestTarget::Refused, response);
        let Ok(place) = self.web.pressure.place(Streaming::Unary, Service::ScopePolicy) else {
            return refused(busy("too many requests are in flight"));
        };
        let (mut parts, body) = request.into_parts();
        if let Err(error) = check(&parts, self.web.faults.first()) {
            return refused(last_text(error.status(), &error.to_string()));
        }
        let Some(target) = parts.uri.path_and_query().cloned() else {
            return refused(last_text(StatusCode::BAD_REQUEST, &BadRequest::Target.to_string()));
        };
        // A token in `authorization` is one of the upstream's.
        let needs = Needs::Right(Right::Decide);
        let let_in =
            gateway.gate.admit(&self.web.peer, &HeaderMap::new(), needs, target.path(), &gateway.pressure);
        let LetIn { identity, place: _caller, .. } = match let_in {
            Ok(let_in) => let_in,
            Err(RpcError::Overloaded { .. }) => return refused(busy("too many requests are in flight")),
            Err(error) => return refused(text(StatusCode::FORBIDDEN, &error.to_string())),
        };
        let Some(known) = gateway.known.load_full() else {
            return refused(busy("the authorization server behind this gateway is not known yet"));
        };
        let route = match CanonicalTarget::parse(target.as_str().as_bytes()) {
            Ok(canonical) => known.table.route(&canonical),
            Err(refusal) => GatewayRoute::Refused(refusal),
        };
        let deadline = Instant::now() + gateway.limits.message_timeout;
        let name = RequestTarget::of(&route);
        let mut notes = None;
        if let Some(span) = span {
            span.admitted(identity.as_ref());
            span.routed(&parts.method, name.as_str(), route_of(&route, &known).as_deref());
            notes = Some(span.notes());
            parts.extensions.insert(SpanOfRequest(span.context()));
        }
        let request = TakenRequest { parts, body, target, place, identity, deadline, notes };
        let is_decided =
            !matches!(route, GatewayRoute::Other | GatewayRoute::Refused(_) | GatewayRoute::Discovery(_));
        let page = if is_decided { request.page() } else { None };
        let mut response = self.answer_route(route, request, &known).await;
        if let Some(AskingPage { target, origin }) = page
            && !response.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN)
        {
            gateway.cors.apply(target.path(), &origin, response.headers_mut());
        }
        (name, response)
    }

    async fn answer_route(
        &self,
        route: GatewayRoute,
        mut request: TakenRequest,
        known: &KnownUpstream,
    ) -> Response<GatewayBody> {
        let method = request.parts.method.clone();
        // What passes is most of it: boxed, the others take no place in its future, which is moved.
        match route {
            GatewayRoute::Refused(refusal) => {
                let status = match refusal {
                    PathRefusal::SiblingDoor => StatusCode::FORBIDDEN,
                    PathRefusal::TooLong => StatusCode::URI_TOO_LONG,
                    _ => StatusCode::BAD_REQUEST,
                };
                text(status, &refusal.to_string())
            }
            GatewayRoute::Other => self.pass(request).await,
            GatewayRoute::Discovery(issuer) => Box::pin(self.discovery(issuer, request, known)).await,
            // What a browser asks before it sends a request of another origin.
            GatewayRoute::Endpoint(..) | GatewayRoute::ClientConfiguration(..)
                if method == Method::OPTIONS =>
            {
                self.pass(request).await
            }
            GatewayRoute::Endpoint(EndpointName::Registration, issuer) if method == Method::POST => {
                Box::pin(self.register(request, issuer)).await
            }
            GatewayRoute::Endpoint(EndpointName::Registration, _) => method_not_allowed("POST, OPTIONS"),
            GatewayRoute::ClientConfiguration(issuer, id) => match method {
                Method::GET | Method::PUT | Method::DELETE => {
                    Box::pin(self.configure(request, issuer, &id)).await
                }
                _ => method_not_allowed("GET, PUT, DELETE, OPTIONS"),
            },
            GatewayRoute::Endpoint(EndpointName::Authorization, issuer) => match method {
                Method::GET | Method::HEAD | Method::POST => {
                    match self.authorize(&mut request, issuer, known).await {
                        Ok(rewritten) => self.pass_decided(request, rewritten).await,
                        Err(response) => response,
                    }
                }
                _ => method_not_allowed("GET, HEAD, POST, OPTIONS"),
            },
            GatewayRoute::Endpoint(name, issuer) => match method {
                Method::POST => Box::pin(self.authorize_by_form(request, name, issuer)).await,
                _ => method_not_allowed("POST, OPTIONS"),
            },
        }
    }

    async fn discovery(
        &self,
        issuer: usize,
        request: TakenRequest,
        known: &KnownUpstream,
    ) -> Response<GatewayBody> {
        let Some(policy) = self.gateway.current.load_full() else { return busy("there is no policy yet") };
        let Some(document) = known.document(issuer, &policy) else { return self.pass(request).await };
        let mut response = match request.parts.method {
            Method::GET => respond(StatusCode::OK, "application/json", document),
            Method::HEAD => {
                let length = HeaderValue::from(document.len());
                let mut response = respond(StatusCode::OK, "application/json", "");
                *response.body_mut() = empty();
                response.headers_mut().insert(CONTENT_LENGTH, length);
                response
            }
            Method::OPTIONS => {
                let mut response = Response::new(empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                let headers = response.headers_mut();
                headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
                if let Some(asked) = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS) {
                    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
                }
                response
            }
            _ => method_not_allowed("GET, HEAD, OPTIONS"),
        };
        // It is for everybody.
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        response
    }

    /// Passes a request on and its answer back, both as they come.
    pub(super) fn pass(&self, request: TakenRequest) -> impl Future<Output = Response<GatewayBody>> + Send {
        let upgrade = upgrade_of(request.parts.version, request.headers());
        let patience = self.gateway.limits.response_progress_timeout;
        let TakenRequest { mut parts, body, target, place, .. } = request;
        let client = upgrade.is_some().then(|| parts.extensions.remove::<upgrade::OnUpgrade>()).flatten();
        parts.extensions.remove::<upgrade::OnUpgrade>();
        let progress = if body.is_end_stream() { BodyProgress::default() } else { BodyProgress::of_parts() };
        let page = AskingPage::of(&target, &parts.headers);
        let is_sized = body.is_end_stream() || has_length(&parts.headers);
        let body = match body.is_end_stream() {
            true => empty(),
            false => StreamedBody::of_request(body, patience, &self.web, progress.clone()),
        };
        self.prepare(&mut parts);
        if !is_sized {
            // hyper takes a GET for one without a body unless it is told.
            parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if let Some(protocol) = &upgrade {
            parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(UPGRADE, protocol.clone());
        }
        // Not in an async block, which would have the size of the request.
        self.send(parts, target, body, progress).map(move |sent| {
            let response = match sent {
                Ok(response) => response,
                Err(error) => return self.failed(&error),
            };
            self.note_cors(page.as_ref(), &response);
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return self.upgraded(response, client, upgrade, place);
            }
            self.passed_back(response, place)
        })
    }

    /// The answer of the upstream as it comes.
    pub(super) fn passed_back(
        &self,
        response: Response<UpstreamBody>,
        place: CallPlace,
    ) -> Response<GatewayBody> {
        let (mut parts, body) = response.into_parts();
        strip_hop(&mut parts.headers);
        parts.version = Version::HTTP_11;
        let body = if body.is_end_stream() {
            empty()
        } else {
            StreamedBody::of_response(body, self.gateway.upstream.timeout(), &self.web, place)
        };
        Response::from_parts(parts, body)
    }

    fn upgraded(
        &self,
        mut response: Response<UpstreamBody>,
        client: Option<upgrade::OnUpgrade>,
        protocol: Option<HeaderValue>,
        place: CallPlace,
    ) -> Response<GatewayBody> {
        let (Some(client), Some(protocol)) = (client, protocol) else {
            // It was not asked to.
            return text(StatusCode::BAD_GATEWAY, "the upstream changed the protocol without being asked");
        };
        let upstream = upgrade::on(&mut response);
        self.become_tunnel(Box::pin(async move {
            let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else { return };
            let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
            // It ends when either side does.
            _ = copy_bidirectional(&mut client, &mut upstream).await;
            drop(place);
        }));
        let (mut parts, _) = response.into_parts();
        let chosen = parts.headers.get(UPGRADE).cloned().unwrap_or(protocol);
        strip_hop(&mut parts.headers);
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, chosen);
        parts.version = Version::HTTP_11;
        Response::from_parts(parts, empty())
    }

    /// Makes the headers of a request those for the upstream.
    fn prepare(&self, parts: &mut Parts) {
        self.gateway.forwarded.apply(parts.version, &mut parts.headers, &self.address);
    }

    /// Passes a request on as it was decided, and its answer back as it comes.
    fn pass_decided(
        &self,
        request: TakenRequest,
        rewritten: Rewritten,
    ) -> impl Future<Output = Response<GatewayBody>> + Send {
        let TakenRequest { parts, target, place, .. } = request;
        self.send_rewritten(parts, target, rewritten).map(move |sent| match sent {
            Ok(response) => self.passed_back(response, place),
            Err(error) => self.failed(&error),
        })
    }

    /// Sends what was decided on: its body, if it has one, is here.
    pub(super) fn send_rewritten(
        &self,
        mut parts: Parts,
        target: PathAndQuery,
        rewritten: Rewritten,
    ) -> impl Future<Output = Result<Response<UpstreamBody>, UpstreamError>> + Send {
        let Rewritten { target: other, body, is_read } = rewritten;
        let page = AskingPage::of(&target, &parts.headers);
        parts.extensions.remove::<upgrade::OnUpgrade>();
        self.prepare(&mut parts);
        if is_read {
            parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        let body = match body {
            Some(body) => {
                parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
                full(body)
            }
            None => {
                parts.headers.remove(CONTENT_LENGTH);
                empty()
            }
        };
        let sent = self.send(parts, other.unwrap_or(target), body, BodyProgress::default());
        sent.inspect_ok(move |response| self.note_cors(page.as_ref(), response))
    }

    /// Notes what the upstream says to a page, if one asked.
    fn note_cors(&self, page: Option<&AskingPage>, response: &Response<UpstreamBody>) {
        if let Some(AskingPage { target, origin }) = page {
            self.gateway.cors.note(target.path(), origin, response.headers());
        }
    }

    fn send(
        &self,
        mut parts: Parts,
        target: PathAndQuery,
        body: GatewayBody,
        progress: BodyProgress,
    ) -> impl Future<Output = Result<Response<UpstreamBody>, UpstreamError>> + Send {
        parts.uri = target.into();
        parts.version = Version::HTTP_11;
        let span = match (parts.extensions.remove::<SpanOfRequest>(), &self.gateway.traces) {
            (Some(SpanOfRequest(below)), Some(traces)) => {
                Some(Box::new(traces.to_upstream(&parts.method, &below, &mut parts.headers)))
            }
            _ => None,
        };
        let sent = self.gateway.upstream.send(Request::from_parts(parts, body), progress, &self.web.timers);
        sent.map(move |sent| {
            if let Some(span) = span {
                span.end(sent.as_ref().map(Response::status).map_err(UpstreamError::as_str));
            }
            sent.inspect_err(|error| {
                self.gateway.counts.upstream_failed(error);
                if let Some(count) = self.gateway.failures.count(std::time::Instant::now()) {
                    warn!(%error, count, "requests were not answered by the upstream");
                }
            })
        })
    }

    /// What is answered where the upstream does not answer; the text says nothing of it.
    pub(super) fn failed(&self, error: &UpstreamError) -> Response<GatewayBody> {
        let message = match error {
            UpstreamError::Timeout => "the authorization server did not answer in time",
            UpstreamError::Connect(_) | UpstreamError::Broken(_) => {
                "the authorization server cannot be reached"
            }
        };
        text(error.status(), message)
    }
}

/// Which span a request to the upstream is below of.
#[derive(Clone)]
struct SpanOfRequest(SpanContext);

/// The path of an endpoint as the upstream publishes it, for spans.
fn route_of(route: &GatewayRoute, known: &KnownUpstream) -> Option<String> {
    let (name, issuer, rest) = match route {
        GatewayRoute::Endpoint(name, issuer) => (*name, *issuer, ""),
        GatewayRoute::ClientConfiguration(issuer, _) => (EndpointName::Registration, *issuer, "/{client_id}"),
        GatewayRoute::Discovery(_) | GatewayRoute::Other | GatewayRoute::Refused(_) => return None,
    };
    Some(format!("{}{rest}", known.table.path(name, issuer)?))
}

/// A target of the same path with another query.
pub(super) fn with_query(target: &PathAndQuery, query: &[u8]) -> Option<PathAndQuery> {
    let whole = [target.path().as_bytes(), query].join(&b'?');
    PathAndQuery::from_maybe_shared(Bytes::from(whole)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// hyper moves the future of a request, and an async block has each future twice that it awaits as a captured one.
    #[test]
    fn the_future_of_a_request_is_small() {
        fn size<'c, F>(_: impl FnOnce(&'c ClientConnection, Request<Incoming>) -> F) -> usize {
            size_of::<F>()
        }
        let respond = size(ClientConnection::respond);
        assert!(respond < 4096, "{respond}");
    }
}
