//! Requests that begin a login: authorize, pushed, device and backchannel requests. Each is read, decided, and passed on with the
//! scope that is granted, or not at all.

use std::time::{Duration, SystemTime};

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use tokio::time::Instant;
use tracing::{debug, info};
use uuid::Uuid;

use super::answer::OAuthProblem;
use super::body::{GatewayBody, full};
use super::connection::ClientConnection;
use super::discovery::KnownUpstream;
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
use crate::rpc::v1;
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
struct JudgedLogin {
    verdict: LoginVerdict,
    request: OAuthRequest,
    client_id: String,
    record: Option<ClientRecord>,
    correlation_id: String,
}

impl ClientConnection {
    /// The authorization endpoint.
    pub(super) async fn authorize(
        &self,
        mut request: TakenRequest,
        issuer: usize,
        known: &KnownUpstream,
    ) -> Response<GatewayBody> {
        let is_post = request.parts.method == Method::POST;
        let page = |problem: &OAuthProblem, request: &TakenRequest| problem.page(request.headers());
        let form = match self.form(&mut request, is_post).await {
            Ok(form) => form,
            Err(problem) => return page(&problem, &request),
        };
        let login = match self.judge(&request, EndpointName::Authorization, issuer, &form).await {
            Ok(login) => login,
            Err(problem) => return page(&problem, &request),
        };
        let form = match &login.verdict {
            LoginVerdict::Pass { form: None, .. } => form,
            LoginVerdict::Pass { form: Some(form), .. } => form.clone(),
            LoginVerdict::Malformed(problem) => return page(problem, &request),
            LoginVerdict::Denied(problem) | LoginVerdict::Outage(problem) => {
                let is_outage = matches!(login.verdict, LoginVerdict::Outage(_));
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
                        with_scope(&form, REFUSED_SCOPE)
                    }
                    OnDeny::Redirect => {
                        let redirected = self.redirect(&login, problem, known.response_issuer(issuer));
                        return redirected.unwrap_or_else(|| page(problem, &request));
                    }
                    OnDeny::Upstream | OnDeny::Page => return page(problem, &request),
                }
            }
        };
        let rewritten = if is_post {
            Rewritten { body: Some(form), ..Rewritten::default() }
        } else {
            let Some(target) = with_query(&request.target, &form) else {
                return page(
                    &OAuthProblem::bad_request("invalid_request", "the query is malformed"),
                    &request,
                );
            };
            Rewritten { target: Some(target), ..Rewritten::default() }
        };
        let TakenRequest { parts, target, place, .. } = request;
        match self.send_rewritten(parts, target, rewritten).await {
            Ok(response) => self.passed_back(response, place),
            Err(error) => self.failed(&error),
        }
    }

    /// The endpoints that take a form and answer with JSON.
    pub(super) async fn authorize_by_form(
        &self,
        mut request: TakenRequest,
        name: EndpointName,
        issuer: usize,
    ) -> Response<GatewayBody> {
        let form = match self.form(&mut request, true).await {
            Ok(form) => form,
            Err(problem) => return problem.json(),
        };
        let login = match self.judge(&request, name, issuer, &form).await {
            Ok(login) => login,
            Err(problem) => return problem.json(),
        };
        let (form, granted) = match login.verdict {
            LoginVerdict::Pass { form: other, granted } => (other.unwrap_or(form), granted),
            LoginVerdict::Denied(problem)
            | LoginVerdict::Malformed(problem)
            | LoginVerdict::Outage(problem) => {
                return problem.json();
            }
        };
        let is_read = name == EndpointName::PushedAuthorization;
        let TakenRequest { parts, target, place, .. } = request;
        let rewritten = Rewritten { body: Some(form), is_read, target: None };
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
            let pushed = PushedRequest { issuer, client_id: login.client_id, scope: granted };
            let lifetime = Duration::from_secs(lifetime);
            self.gateway.pushed.remember(uri, pushed, lifetime, Instant::now());
            debug!(correlation_id = login.correlation_id, "a pushed request was taken");
        }
        strip_hop(&mut parts.headers);
        parts.headers.remove(http::header::CONTENT_LENGTH);
        Response::from_parts(parts, full(body))
    }

    /// The parameters of a request: of its query, or of its body.
    async fn form(&self, request: &mut TakenRequest, in_body: bool) -> Result<Vec<u8>, OAuthProblem> {
        let refused =
            |refusal: FormRefusal| OAuthProblem::bad_request("invalid_request", &refusal.to_string());
        if !in_body {
            // Some frameworks read a form in the body of a GET.
            if request.has_body() {
                return Err(OAuthProblem::bad_request("invalid_request", "a GET has no body here"));
            }
            return Ok(request.query().to_vec());
        }
        check_query_of_post(request.query()).map_err(refused)?;
        let mut types = request.headers().get_all(CONTENT_TYPE).iter();
        let (Some(content_type), None) = (types.next(), types.next()) else {
            return Err(refused(FormRefusal::ContentType));
        };
        check_content_type(content_type.as_bytes()).map_err(refused)?;
        if request.is_coded() {
            return Err(refused(FormRefusal::ContentType));
        }
        Ok(self.whole_body(request, MAX_FORM_BYTES).await?.to_vec())
    }

    /// Takes the whole body of a request.
    pub(super) async fn whole_body(
        &self,
        request: &mut TakenRequest,
        limit: usize,
    ) -> Result<bytes::Bytes, OAuthProblem> {
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

    /// Reads and decides a request.
    ///
    /// # Errors
    /// If it cannot be read, or does not say whose it is.
    async fn judge(
        &self,
        taken: &TakenRequest,
        name: EndpointName,
        issuer: usize,
        form: &[u8],
    ) -> Result<JudgedLogin, OAuthProblem> {
        let refused =
            |refusal: FormRefusal| OAuthProblem::bad_request("invalid_request", &refusal.to_string());
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
        let login = |verdict, record| JudgedLogin {
            verdict,
            request: request.clone(),
            client_id: client_id.clone(),
            record,
            correlation_id: correlation_id.clone(),
        };
        let malformed = |error, text: &str| LoginVerdict::Malformed(OAuthProblem::bad_request(error, text));
        if let Some(uri) = request.request_uri.as_deref().filter(|uri| !uri.is_empty()) {
            let pushed = self.gateway.pushed.get(uri, Instant::now()).filter(|pushed| {
                name == EndpointName::Authorization
                    && pushed.issuer == issuer
                    && pushed.client_id == client_id
            });
            let verdict = match pushed {
                Some(_) if request.request.is_some() => {
                    malformed("invalid_request", "request and request_uri must not be there together")
                }
                // Servers differ in whether a scope next to it counts.
                Some(PushedRequest { scope, .. }) => match &request.scope {
                    Some(_) => LoginVerdict::Pass { form: Some(with_scope(form, &scope)), granted: scope },
                    _ => LoginVerdict::Pass { form: None, granted: scope },
                },
                None => malformed(
                    "request_uri_not_supported",
                    "the request_uri is not of a request that was pushed here",
                ),
            };
            return Ok(login(verdict, None));
        }
        let has_object = request.request.as_deref().is_some_and(|object| !object.is_empty());
        let effective = match (has_object, self.gateway.request_objects) {
            (false, _) => request.clone(),
            (true, RequestObjects::Refuse) => {
                let verdict = malformed("request_not_supported", "request objects are not supported");
                return Ok(login(verdict, None));
            }
            (true, RequestObjects::Match) => match object::effective(&request) {
                Ok(effective) => effective,
                Err(refusal) => {
                    return Ok(login(malformed("invalid_request_object", &refusal.to_string()), None));
                }
            },
        };
        let continues = self.gateway.expected.kind == UpstreamKind::Hydra
            && name == EndpointName::Authorization
            && request.continues_login();
        let record = match self.known_client(issuer, &client_id).await {
            Ok(record) => record,
            Err(problem) => return Ok(login(LoginVerdict::Outage(problem), None)),
        };
        let question = v1::CheckAuthorizeScopesRequest {
            audiences: effective.resources.clone(),
            scope: effective.scope.clone(),
            registered_scope: record.as_ref().map(|record| record.registered_scope.clone()),
            client: Some(client_of(&client_id, record.as_ref())),
            correlation_id: correlation_id.clone(),
        };
        let granted = match self.ask_authorize(taken.headers(), taken.identity.clone(), question).await {
            Decided::Granted(granted) => granted,
            Decided::Denied(problem) => return Ok(login(LoginVerdict::Denied(problem), record)),
            Decided::Outage(problem) => return Ok(login(LoginVerdict::Outage(problem), record)),
        };
        let asked = effective.scope.as_deref().unwrap_or_default();
        if has_object && object::check_granted(asked, &granted).is_err() {
            let problem = OAuthProblem::bad_request("invalid_scope", &ObjectRefusal::Scope.to_string());
            return Ok(login(LoginVerdict::Malformed(problem), record));
        }
        if continues {
            // Hydra reads the scope again when it comes back: it must be what was granted when the login began.
            let is_same = same_scopes(request.scope.as_deref().unwrap_or_default(), &granted);
            let verdict = if is_same {
                LoginVerdict::Pass { form: None, granted }
            } else {
                malformed("invalid_scope", "the scope is not the one with which the login began")
            };
            return Ok(login(verdict, record));
        }
        if let Err(problem) = self.complete_client(issuer, &client_id, record.as_ref(), &granted).await {
            return Ok(login(LoginVerdict::Outage(problem), record));
        }
        if let Some(record) = &record {
            self.gateway.clients.note_login(record, SystemTime::now());
        }
        // Also where the scope is as it was asked: servers read a `+` in it in two ways, and what is written here in one.
        Ok(login(LoginVerdict::Pass { form: Some(with_scope(form, &granted)), granted }, record))
    }

    /// A denial at a redirect URI, where that is one that the client registered and the response mode is that of a query.
    fn redirect(
        &self,
        login: &JudgedLogin,
        problem: &OAuthProblem,
        issuer: Option<&str>,
    ) -> Option<Response<GatewayBody>> {
        let JudgedLogin { request, record, .. } = login;
        let uri = request.redirect_uri.as_deref()?;
        let is_registered = record.as_ref()?.metadata.redirect_uris.iter().any(|known| known == uri);
        let is_query = request.response_mode.as_deref().is_none_or(|mode| mode == "query");
        let is_code = request.response_type.as_deref() == Some("code");
        if !is_registered || !is_query || !is_code || uri.contains('#') {
            return None;
        }
        problem.redirect(uri, request.state.as_deref(), issuer)
    }
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
