//! Access evaluations of OpenID AuthZEN (Authorization API 1.0, "HTTPS JSON Binding"): what is asked becomes questions of the API, in batches
//! that the same services answer, with the same records and counts.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{Method as HttpMethod, Request, Response, StatusCode};
use hyper::body::Incoming;
use prost::Message;
use tonic::{Code, Status};

use super::connect::ConnectCodec;
use super::{ApiAnswer, ApiConnection, TakenCall, headers_for_services};
use crate::authzen::response::{EVALUATION_PATH, METADATA_PATH, TupleDecision, metadata, write};
use crate::authzen::{
    EvaluationError, EvaluationRequest, EvaluationsSemantic, GateGrant, Tuple, TupleMeaning, TupleQuestion,
    correlation_id, gates, grant_of,
};
use crate::escape::clean;
use crate::rpc::caller::CallOrigin;
use crate::rpc::connect::http_status;
use crate::rpc::error::RpcError;
use crate::rpc::limits::MAX_BATCH_ITEMS;
use crate::rpc::v1;
use crate::server::method::Method;
use crate::server::response::hold;
use crate::server::web::body::{AnswerBody, CollectError};

/// Why a request has no decisions: an error that concerns all of it.
struct EvaluationRefusal {
    status: StatusCode,
    /// How the call ends, for those who count.
    code: Code,
    message: String,
}

impl EvaluationRefusal {
    fn bad_request(message: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: Code::InvalidArgument, message }
    }
}

impl From<Status> for EvaluationRefusal {
    fn from(status: Status) -> Self {
        Self { status: http_status(status.code()), code: status.code(), message: status.message().to_owned() }
    }
}

impl From<RpcError> for EvaluationRefusal {
    fn from(error: RpcError) -> Self {
        Status::from(error).into()
    }
}

impl From<EvaluationError> for EvaluationRefusal {
    fn from(error: EvaluationError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<CollectError> for EvaluationRefusal {
    fn from(error: CollectError) -> Self {
        let (status, code) = match error {
            CollectError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, Code::InvalidArgument),
            CollectError::NoRoom(cause) => return RpcError::Overloaded { cause }.into(),
            CollectError::TooLate => return RpcError::DeadlineExceeded.into(),
            CollectError::Broken => (StatusCode::BAD_REQUEST, Code::Cancelled),
        };
        Self { status, code, message: error.to_string() }
    }
}

impl From<EvaluationRefusal> for ApiAnswer {
    fn from(EvaluationRefusal { status, code, message }: EvaluationRefusal) -> Self {
        let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
        let body = format!("{}\n", clean(&message)).into();
        Self { code, status, content_type, headers: Vec::new(), body }.for_code()
    }
}

impl ApiConnection {
    /// Answers a request to one of the endpoints.
    pub(super) async fn authzen(
        &self,
        endpoint: &Arc<Method>,
        request: &Request<()>,
        body: &mut Incoming,
    ) -> Response<AnswerBody> {
        let request_id = request.headers().get(REQUEST_ID).cloned();
        let with_id = |answer: ApiAnswer| match request_id {
            Some(id) => answer.with(REQUEST_ID, id),
            None => answer,
        };
        let mut call = match self.take(Some(endpoint), AUTHZEN, request, None) {
            Ok(call) => call,
            Err(status) => return self.send(with_id(EvaluationRefusal::from(status).into()), None),
        };
        let deadline = call.limits.deadline;
        let answered = self.evaluated(endpoint, request, body, &mut call);
        let answered = self.answer_within(&endpoint.path, deadline, answered).await;
        let answer = answered.unwrap_or_else(ApiAnswer::from);
        self.send(with_id(answer), call.held)
    }

    async fn evaluated(
        &self,
        endpoint: &Method,
        request: &Request<()>,
        body: &mut Incoming,
        call: &mut TakenCall,
    ) -> Result<ApiAnswer, EvaluationRefusal> {
        let is_metadata = endpoint.path == METADATA_PATH;
        let expected = if is_metadata { HttpMethod::GET } else { HttpMethod::POST };
        if request.method() != expected {
            let message = format!("use {expected}");
            let refusal = EvaluationRefusal {
                status: StatusCode::METHOD_NOT_ALLOWED,
                code: Code::Unimplemented,
                message,
            };
            let allow = HeaderValue::from_static(if is_metadata { "GET" } else { "POST" });
            return Ok(ApiAnswer::from(refusal).with(ALLOW, allow));
        }
        if is_metadata {
            let base = self.base_url(request)?;
            return Ok(
                answer(metadata(&base).into()).with(CACHE_CONTROL, HeaderValue::from_static("no-store"))
            );
        }
        let content_type = request.headers().get(CONTENT_TYPE);
        if content_type.and_then(ConnectCodec::of) != Some(ConnectCodec::Json) {
            return Err(EvaluationRefusal::bad_request(
                "the content type must be application/json".to_owned(),
            ));
        }
        let text = self.body(body, call, endpoint.max_message_bytes).await?;
        let asked = match endpoint.path == EVALUATION_PATH {
            true => EvaluationRequest::read_one(&text)?,
            false => EvaluationRequest::read_many(&text)?,
        };
        let origin = call.origin.clone();
        let decisions = Evaluating {
            api: self,
            origin,
            headers: request.headers(),
            asked: &asked,
            gates: gates(&asked.tuples),
        }
        .all()
        .await?;
        let body = Bytes::from(write(&decisions, asked.is_single));
        hold(&mut call.held, body.len()).map_err(|cause| RpcError::Overloaded { cause })?;
        Ok(answer(body))
    }

    /// The URL of this server as the caller names it.
    fn base_url(&self, request: &Request<()>) -> Result<String, EvaluationRefusal> {
        let host = || request.headers().get(HOST)?.to_str().ok()?.parse::<Authority>().ok();
        let authority = request.uri().authority().cloned().or_else(host);
        // A name of a user would make another URL of it.
        let authority = authority.filter(|authority| !authority.as_str().contains('@'));
        let authority =
            authority.ok_or_else(|| EvaluationRefusal::bad_request("the Host is not valid".to_owned()))?;
        Ok(format!("{}://{authority}", if self.is_tls { "https" } else { "http" }))
    }
}

fn answer(body: Bytes) -> ApiAnswer {
    let content_type = HeaderValue::from_static("application/json");
    ApiAnswer { code: Code::Ok, status: StatusCode::OK, content_type, headers: Vec::new(), body }
}

/// A request whose evaluations are executed.
struct Evaluating<'r> {
    api: &'r ApiConnection,
    origin: CallOrigin,
    headers: &'r HeaderMap,
    asked: &'r EvaluationRequest,
    gates: Vec<(&'r str, GateGrant)>,
}

/// An evaluation as far as it can be said without the policy.
enum PreparedTuple<'t> {
    Decided(TupleDecision),
    /// What is asked, and the scope that must be in the answer.
    Asked(Box<TupleQuestion>, Option<&'t str>),
}

impl Evaluating<'_> {
    /// The decisions that are returned, in the order of the evaluations.
    async fn all(&self) -> Result<Vec<TupleDecision>, EvaluationRefusal> {
        let EvaluationRequest { tuples, semantic, .. } = self.asked;
        if *semantic == EvaluationsSemantic::ExecuteAll {
            let prepared = tuples.iter().map(|tuple| self.prepare(tuple)).collect::<Result<Vec<_>, _>>()?;
            return self.decide(prepared).await;
        }
        // What is not executed leaves no record.
        let mut decisions = Vec::new();
        for tuple in tuples {
            let mut decided = self.decide(vec![self.prepare(tuple)?]).await?;
            let Some(decision) = decided.pop() else { return Err(RpcError::Internal.into()) };
            let is_last = semantic.ends_with(decision.is_permitted);
            decisions.push(decision);
            if is_last {
                break;
            }
        }
        Ok(decisions)
    }

    fn prepare<'t>(
        &self,
        tuple: &'t Result<Tuple, EvaluationError>,
    ) -> Result<PreparedTuple<'t>, EvaluationRefusal> {
        let tuple = match tuple {
            Ok(tuple) => tuple,
            Err(error) => return Ok(PreparedTuple::Decided(TupleDecision::malformed(error))),
        };
        let request_id = self.headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
        let correlation_id = correlation_id(&[&tuple.token_id, request_id]);
        let asked = |scope, grant: GateGrant| {
            PreparedTuple::Asked(Box::new(tuple.question(scope, grant, correlation_id)), scope)
        };
        Ok(match tuple.meaning() {
            TupleMeaning::Unknown(why) => PreparedTuple::Decided(TupleDecision::denied(why)),
            TupleMeaning::Scope(scope) => asked(Some(scope), grant_of(&self.gates, &tuple.target)),
            TupleMeaning::Gate(grant) => {
                let policy = self.api.calls.direct.as_ref().ok_or(RpcError::Internal)?;
                match policy.knows_audience(&self.origin, &tuple.target)? {
                    true => PreparedTuple::Decided(TupleDecision::permitted()),
                    false => asked(None, grant),
                }
            }
        })
    }

    /// Asks what has to be asked, as many at once as a batch takes.
    async fn decide(
        &self,
        prepared: Vec<PreparedTuple<'_>>,
    ) -> Result<Vec<TupleDecision>, EvaluationRefusal> {
        let mut decisions = Vec::with_capacity(prepared.len());
        let (mut tokens, mut authorizes) = (TupleBatch::default(), TupleBatch::default());
        for (at, prepared) in prepared.into_iter().enumerate() {
            decisions.push(match prepared {
                PreparedTuple::Decided(decision) => decision,
                PreparedTuple::Asked(question, scope) => {
                    match *question {
                        TupleQuestion::Token(check) => tokens.push(at, scope, check),
                        TupleQuestion::Authorize(check) => authorizes.push(at, scope, check),
                    }
                    // Until its answer is here.
                    TupleDecision::denied("")
                }
            });
        }
        let asked = BatchRpc {
            path: BATCH_TOKEN,
            encode: |checks| v1::BatchCheckTokenScopesRequest { checks }.encode_to_vec(),
            decode: |answer| Some(v1::BatchCheckTokenScopesResponse::decode(answer).ok()?.results),
            decide: TupleDecision::of_token,
        };
        self.ask(asked, tokens, &mut decisions).await?;
        let asked = BatchRpc {
            path: BATCH_AUTHORIZE,
            encode: |checks| v1::BatchCheckAuthorizeScopesRequest { checks }.encode_to_vec(),
            decode: |answer| Some(v1::BatchCheckAuthorizeScopesResponse::decode(answer).ok()?.results),
            decide: TupleDecision::of_authorize,
        };
        self.ask(asked, authorizes, &mut decisions).await?;
        Ok(decisions)
    }

    /// Asks questions of one kind, and puts each decision into its place.
    async fn ask<C, R>(
        &self,
        BatchRpc { path, encode, decode, decide }: BatchRpc<C, R>,
        TupleBatch { places, checks }: TupleBatch<'_, C>,
        decisions: &mut [TupleDecision],
    ) -> Result<(), EvaluationRefusal> {
        let mut checks = checks.into_iter();
        for places in places.chunks(MAX_BATCH_ITEMS) {
            let message = encode(checks.by_ref().take(places.len()).collect());
            let (headers, origin) = (headers_for_services(self.headers), self.origin.clone());
            let answer = self.api.calls.unary(path, headers, origin, &message).await?;
            let results = decode(answer).filter(|results| results.len() == places.len());
            for ((at, scope), result) in places.iter().zip(results.ok_or(RpcError::Internal)?) {
                let place = decisions.get_mut(*at).ok_or(RpcError::Internal)?;
                *place = decide(*scope, result).ok_or(RpcError::Internal)?;
            }
        }
        Ok(())
    }
}

/// How questions of one kind are asked: checks `C` with results `R`.
struct BatchRpc<C, R> {
    path: &'static str,
    encode: fn(Vec<C>) -> Vec<u8>,
    decode: fn(Bytes) -> Option<Vec<R>>,
    decide: fn(Option<&str>, R) -> Option<TupleDecision>,
}

/// Questions of one kind, with the places of their evaluations and the scopes that must be in the answers.
struct TupleBatch<'t, C> {
    places: Vec<(usize, Option<&'t str>)>,
    checks: Vec<C>,
}

impl<C> Default for TupleBatch<'_, C> {
    fn default() -> Self {
        Self { places: Vec::new(), checks: Vec::new() }
    }
}

impl<'t, C> TupleBatch<'t, C> {
    fn push(&mut self, at: usize, scope: Option<&'t str>, check: C) {
        self.places.push((at, scope));
        self.checks.push(check);
    }
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const BATCH_TOKEN: &str = "/scopeward.v1.ScopePolicyService/BatchCheckTokenScopes";
const BATCH_AUTHORIZE: &str = "/scopeward.v1.ScopePolicyService/BatchCheckAuthorizeScopes";
/// `rpc.system.name` of these calls.
const AUTHZEN: &str = "authzen";
