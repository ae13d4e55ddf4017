//! Requests that begin a login: authorize, pushed, device and backchannel requests. Each is read, decided, and passed on with the
//! scope that is granted, or not at all.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::uri::PathAndQuery;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use tokio::time::Instant;
use tracing::{debug, info};
use uuid::Uuid;

use super::answer::OAuthProblem;
use super::begun::BegunLogin;
use super::body::{GatewayBody, full};
use super::connection::ClientConnection;
use super::discovery::KnownUpstream;
use super::expiring::LONGEST;
use super::head::strip_hop;
use super::pushed::PushedRequest;
use super::question::{Decided, client_of};
use super::request::{Rewritten, TakenRequest, with_query};
use super::settings::{OnDeny, RequestObjects};
use super::upstream::UpstreamError;
use crate::clients::ClientRecord;
use crate::escape::shown;
use crate::gateway::endpoint::EndpointName;
use crate::gateway::form::{
    FormRefusal, MAX_FORM_BYTES, OAuthRequest, check_content_type, check_query_of_post, with_scope,
};
use crate::gateway::kind::UpstreamKind;
use crate::gateway::object::{self, ObjectRefusal};
use crate::proto::borrowed::CheckRequestRef;
use crate::scope;
use crate::server::web::body::{CollectError, collect};
use crate::strict_json::StrictJson;

/// What becomes of a request.
enum LoginVerdict {
    /// It passes, with the parameters as they are or with these, and this scope was granted.
    Pass { form: Option<Vec<u8>>, granted: String },
    /// It is denied: what the policy says.
    Denied(OAuthProblem),
    /// It cannot be passed on, whatever the policy says.
    Malformed(OAuthProblem),
    /// Nobody knows.
    Outage(OAuthProblem),
}

/// What a login asks for, and what is known of who asks.
struct AskedLogin<'f> {
    request: OAuthRequest<'f>,
    client_id: Cow<'f, str>,
    record: Option<Arc<ClientRecord>>,
    /// `""` where the requests of the login cannot be told.
    correlation_id: String,
}

/// The parameters of a request, where they are.
enum LoginForm {
    Query(PathAndQuery),
    Body(Bytes),
}

impl LoginForm {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Query(target) => target.query().unwrap_or_default().as_bytes(),
            Self::Body(body) => body,
        }
    }

    /// What is sent: other parameters, if there are any, in their place. `None` if they fit in no target.
    fn rewritten(self, other: Option<Vec<u8>>) -> Option<Rewritten> {
        Some(match self {
            Self::Query(target) => {
                let target = match other {
                    Some(other) => Some(with_query(&target, &other)?),
                    None => None,
                };
                Rewritten { target, ..Rewritten::default() }
            }
            Self::Body(body) => {
                Rewritten { body: Some(other.map_or(body, Bytes::from)), ..Rewritten::default() }
            }
        })
    }
}

impl ClientConnection {
    /// The authorization endpoint: what is sent to the upstream, if anything is.
    ///
    /// # Errors
    /// The answer where nothing is.
    pub(super) async fn authorize(
        &self,
        request: &mut TakenRequest,
        issuer: usize,
        known: &KnownUpstream,
    ) -> Result<Rewritten, Response<GatewayBody>> {
        let is_post = request.parts.method == Method::POST;
        let form = match is_post {
            // What waits for a body, or is rare, is boxed: then a request that needs neither has a small future.
            true => Box::pin(self.body_form(request)).await,
            false => query_form(request),
        };
        let page = |problem: &OAuthProblem, request: &TakenRequest| problem.page(request.headers());
        let form = form.map_err(|problem| page(&problem, request))?;
        let login = read_login(request, EndpointName::Authorization, form.bytes());
        let mut login = login.map_err(|problem| page(&problem, request))?;
        let verdict =
            self.verdict(request, (EndpointName::Authorization, issuer), form.bytes(), &mut login).await;
        let is_outage = matches!(verdict, LoginVerdict::Outage(_));
        let other = match verdict {
            LoginVerdict::Pass { form, .. } => form,
            LoginVerdict::Malformed(problem) => return Err(page(&problem, request)),
            LoginVerdict::Denied(problem) | LoginVerdict::Outage(problem) => {
                if !is_outage {
                    info!(
                        client_id = shown(&login.client_id),
                        error = problem.error,
                        description = problem.error_description,
                        "an authorize request was denied"
                    );
                }
                match self.gateway.on_deny {
                    OnDeny::Upstream if !is_outage && login.request.request.is_none() => {
                        Some(with_scope(form.bytes(), REFUSED_SCOPE).into_owned())
                    }
                    OnDeny::Redirect => {
                        let redirected = redirect(&login, &problem, known.response_issuer(issuer));
                        return Err(redirected.unwrap_or_else(|| page(&problem, request)));
                    }
                    OnDeny::Upstream | OnDeny::Page => return Err(page(&problem, request)),
                }
            }
        };
        form.rewritten(other).ok_or_else(|| {
            let problem = OAuthProblem::bad_request("invalid_request", "the query is malformed");
            page(&problem, request)
        })
    }

    /// The endpoints that take a form and answer with JSON.
    pub(super) async fn authorize_by_form(
        &self,
        mut request: TakenRequest,
        name: EndpointName,
        issuer: usize,
    ) -> Response<GatewayBody> {
        let form = match self.body_form(&mut request).await {
            Ok(form) => form,
            Err(problem) => return problem.json(),
        };
        let mut login = match read_login(&request, name, form.bytes()) {
            Ok(login) => login,
            Err(problem) => return problem.json(),
        };
        let (other, granted) = match self.verdict(&request, (name, issuer), form.bytes(), &mut login).await {
            LoginVerdict::Pass { form, granted } => (form, granted),
            LoginVerdict::Denied(problem)
            | LoginVerdict::Malformed(problem)
            | LoginVerdict::Outage(problem) => {
                return problem.json();
            }
        };
        let is_read = name == EndpointName::PushedAuthorization;
        let AskedLogin { client_id, correlation_id, .. } = login;
        let client_id = client_id.into_owned();
        let TakenRequest { parts, target, place, .. } = request;
        let rewritten = Rewritten { is_read, ..form.rewritten(other).unwrap_or_default() };
        let response = match self.send_rewritten(parts, target, rewritten).await {
            Ok(response) => response,
            Err(error) => return self.failed(&error),
        };
        if !is_read || !response.status().is_success() {
            return self.passed_back(response, place);
        }
        // What it says is remembered before the client can use it.
        let (mut parts, body) = response.into_parts();
        let body = match Limited::new(body, MAX_PUSHED_ANSWER_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return self.failed(&UpstreamError::Broken(error.to_string())),
        };
        let answer = StrictJson::read(&body).ok();
        let uri = answer.as_ref().and_then(|answer| answer.get("request_uri")).and_then(StrictJson::as_str);
        if let Some(uri) = uri {
            let lifetime = match answer.as_ref().and_then(|answer| answer.get("expires_in")) {
                Some(StrictJson::Number(seconds)) => seconds.as_u64().unwrap_or_default(),
                _ => DEFAULT_LIFETIME_SECONDS,
            };
            let pushed = PushedRequest { issuer, client_id, scope: granted };
            let lifetime = Duration::from_secs(lifetime);
            self.gateway.pushed.remember(uri.into(), pushed, lifetime, Instant::now());
            debug!(correlation_id, "a pushed request was taken");
        }
        strip_hop(&mut parts.headers);
        parts.headers.remove(http::header::CONTENT_LENGTH);
        Response::from_parts(parts, full(body))
    }

    /// The parameters in the body of a request.
    async fn body_form(&self, request: &mut TakenRequest) -> Result<LoginForm, OAuthProblem> {
        let refused = |refusal: FormRefusal| refused(&refusal);
        check_query_of_post(request.query()).map_err(refused)?;
        let mut types = request.headers().get_all(CONTENT_TYPE).iter();
        let (Some(content_type), None) = (types.next(), types.next()) else {
            return Err(refused(FormRefusal::ContentType));
        };
        check_content_type(content_type.as_bytes()).map_err(refused)?;
        if request.is_coded() {
            return Err(refused(FormRefusal::ContentType));
        }
        Ok(LoginForm::Body(self.whole_body(request, MAX_FORM_BYTES).await?))
    }

    /// Takes the whole body of a request.
    pub(super) async fn whole_body(
        &self,
        request: &mut TakenRequest,
        limit: usize,
    ) -> Result<Bytes, OAuthProblem> {
        let (body, place) = (&mut request.body, &mut request.place);
        collect(body, limit, |amount| place.hold(amount), request.deadline).await.map_err(|error| {
            let status = match error {
                CollectError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
                CollectError::NoRoom(_) => StatusCode::SERVICE_UNAVAILABLE,
                CollectError::TooLate => StatusCode::REQUEST_TIMEOUT,
                CollectError::Broken => StatusCode::BAD_REQUEST,
            };
            let code = if matches!(error, CollectError::NoRoom(_)) {
                "temporarily_unavailable"
            } else {
                "invalid_request"
            };
            OAuthProblem::new(status, code, &error.to_string())
        })
    }

    /// Decides a request that was read, and fills in what is known of its client.
    async fn verdict(
        &self,
        taken: &TakenRequest,
        (name, issuer): (EndpointName, usize),
        form: &[u8],
        login: &mut AskedLogin<'_>,
    ) -> LoginVerdict {
        let AskedLogin { request, client_id, record, correlation_id } = login;
        let malformed = |error, text: &str| LoginVerdict::Malformed(OAuthProblem::bad_request(error, text));
        if let Some(uri) = request.request_uri.as_deref().filter(|uri| !uri.is_empty()) {
            let pushed = self.gateway.pushed.get(uri, Instant::now()).filter(|pushed| {
                name == EndpointName::Authorization
                    && pushed.issuer == issuer
                    && pushed.client_id == *client_id
            });
            return match pushed {
                Some(_) if request.request.is_some() => {
                    malformed("invalid_request", "request and request_uri must not be there together")
                }
                // Servers differ in whether a scope next to it counts.
                Some(PushedRequest { scope, .. }) if request.scope.is_some() => {
                    LoginVerdict::Pass { form: changed(with_scope(form, &scope)), granted: scope }
                }
                Some(PushedRequest { scope, .. }) => LoginVerdict::Pass { form: None, granted: scope },
                None => malformed(
                    "request_uri_not_supported",
                    "the request_uri is not of a request that was pushed here",
                ),
            };
        }
        let has_object = request.request.as_deref().is_some_and(|object| !object.is_empty());
        let of_object = match (has_object, self.gateway.request_objects) {
            (false, _) => None,
            (true, RequestObjects::Refuse) => {
                return malformed("request_not_supported", "request objects are not supported");
            }
            (true, RequestObjects::Match) => match object::effective(request) {
                Ok(effective) => Some(Box::new(effective)),
                Err(refusal) => return malformed("invalid_request_object", &refusal.to_string()),
            },
        };
        let effective = of_object.as_deref().unwrap_or(request);
        let continues = self.gateway.expected.kind == UpstreamKind::Hydra
            && name == EndpointName::Authorization
            && request.continues_login();
        *record = match self.known_client(issuer, client_id).await {
            Ok(record) => record,
            Err(problem) => return LoginVerdict::Outage(problem),
        };
        let record = record.as_deref();
        let question = CheckRequestRef {
            audiences: effective.resources.iter().map(|resource| &**resource).collect(),
            scope: effective.scope.as_deref(),
            registered_scope: record.map(|record| record.registered_scope.as_str()),
            client: Some(client_of(client_id, record)),
            correlation_id,
        };
        // Hydra reads the scope again when it comes back: it must be what was granted when the login began.
        // The policy may be another one by the time of the decision: then it is asked again, and not the other way round.
        let generation = self.gateway.current.load().as_ref().map(|policy| policy.generation);
        let begun = |scope: &str| {
            let is_one = !has_object
                && name == EndpointName::Authorization
                && self.gateway.expected.kind == UpstreamKind::Hydra;
            let caller = taken.identity.as_ref().map(|identity| &*identity.caller);
            let decided_by = (issuer, generation.filter(|_| is_one)?, caller);
            Some(BegunLogin::new(decided_by, request, &question, scope))
        };
        let said = request.scope.as_deref().unwrap_or_default();
        if continues
            && begun(said).is_some_and(|login| self.gateway.begun.get(&login, Instant::now()).is_some())
        {
            return LoginVerdict::Pass { form: None, granted: said.to_owned() };
        }
        let granted = match self.ask_authorize(taken, &question).await {
            Decided::Granted(granted) => granted,
            Decided::Denied(problem) => return LoginVerdict::Denied(problem),
            Decided::Outage(problem) => return LoginVerdict::Outage(problem),
        };
        let asked = effective.scope.as_deref().unwrap_or_default();
        if has_object && object::check_granted(asked, &granted).is_err() {
            return malformed("invalid_scope", &ObjectRefusal::Scope.to_string());
        }
        if continues {
            return if same_scopes(said, &granted) {
                LoginVerdict::Pass { form: None, granted }
            } else {
                malformed("invalid_scope", "the scope is not the one with which the login began")
            };
        }
        if let Err(problem) = self.complete_client(issuer, client_id, record, &granted).await {
            return LoginVerdict::Outage(problem);
        }
        if let Some(login) = begun(&granted) {
            self.gateway.begun.remember(login, (), LONGEST, Instant::now());
        }
        if let Some(record) = record {
            self.gateway.clients.note_login(record, SystemTime::now());
        }
        // Also where the scope is as it was asked: servers read a `+` in it in two ways, and what is written here in one.
        LoginVerdict::Pass { form: changed(with_scope(form, &granted)), granted }
    }
}

/// The parameters in the query of a request.
///
/// # Errors
/// If it has a body: some frameworks read a form in the body of a GET.
fn query_form(request: &TakenRequest) -> Result<LoginForm, OAuthProblem> {
    if request.has_body() {
        return Err(OAuthProblem::bad_request("invalid_request", "a GET has no body here"));
    }
    Ok(LoginForm::Query(request.target.clone()))
}

/// What a request asks for; nothing is known of its client yet.
///
/// # Errors
/// If it cannot be read, or does not say whose it is.
fn read_login<'f>(
    taken: &TakenRequest,
    name: EndpointName,
    form: &'f [u8],
) -> Result<AskedLogin<'f>, OAuthProblem> {
    let refused = |refusal: FormRefusal| refused(&refusal);
    let request = OAuthRequest::read(form).map_err(refused)?;
    let authorization = match name {
        EndpointName::Authorization => None,
        _ => {
            let mut headers = taken.headers().get_all(AUTHORIZATION).iter();
            match (headers.next(), headers.next()) {
                // Servers differ in which of them says whose the request is.
                (Some(_), Some(_)) => {
                    let text = "there is more than one Authorization header";
                    return Err(OAuthProblem::bad_request("invalid_request", text));
                }
                (one, _) => one.map(http::HeaderValue::as_bytes),
            }
        }
    };
    let client_id = request.client(authorization).map_err(refused)?;
    let client_id =
        client_id.ok_or_else(|| OAuthProblem::bad_request("invalid_request", "there is no client_id"))?;
    let correlation_id = match name {
        EndpointName::PushedAuthorization => Uuid::now_v7().to_string(),
        _ => String::new(),
    };
    Ok(AskedLogin { request, client_id, record: None, correlation_id })
}

fn refused(refusal: &FormRefusal) -> OAuthProblem {
    OAuthProblem::bad_request("invalid_request", &refusal.to_string())
}

/// Other parameters, if they are others.
fn changed(form: Cow<'_, [u8]>) -> Option<Vec<u8>> {
    match form {
        Cow::Borrowed(_) => None,
        Cow::Owned(form) => Some(form),
    }
}

/// A denial at a redirect URI, where that is one that the client registered and the response mode is that of a query.
fn redirect(
    login: &AskedLogin<'_>,
    problem: &OAuthProblem,
    issuer: Option<&str>,
) -> Option<Response<GatewayBody>> {
    let AskedLogin { request, record, .. } = login;
    let uri = request.redirect_uri.as_deref()?;
    let is_registered = record.as_ref()?.metadata.redirect_uris.iter().any(|known| known == uri);
    let is_query = request.response_mode.as_deref().is_none_or(|mode| mode == "query");
    let is_code = request.response_type.as_deref() == Some("code");
    if !is_registered || !is_query || !is_code || uri.contains('#') {
        return None;
    }
    problem.redirect(uri, request.state.as_deref(), issuer)
}

fn same_scopes(one: &str, other: &str) -> bool {
    let (one, other) = (scope::distinct_tokens(one), scope::distinct_tokens(other));
    one.len() == other.len() && one.iter().all(|token| other.contains(token))
}

/// A scope that no server knows, so that the upstream refuses the request in its own way.
const REFUSED_SCOPE: &str = "scopeward-refused";
const MAX_PUSHED_ANSWER_BYTES: usize = 64 * 1024;
/// Of a pushed request whose answer does not say how long it lives.
const DEFAULT_LIFETIME_SECONDS: u64 = 60;
