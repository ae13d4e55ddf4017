//! Registrations (RFC 7591) and their management (RFC 7592): what a client asks to register is decided, and what the upstream then
//! says it registered is remembered before the client hears of it.

use std::sync::Arc;
use std::time::SystemTime;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use tracing::{error, info, warn};

use super::answer::OAuthProblem;
use super::body::{GatewayBody, full};
use super::connection::ClientConnection;
use super::head::strip_hop;
use super::question::{Decided, client};
use super::request::{Rewritten, TakenRequest};
use super::upstream::UpstreamError;
use super::upstream::body::UpstreamBody;
use super::upstream_admin::AdminError;
use crate::clients::{ClientRecord, ClientsError};
use crate::escape::shown;
use crate::gateway::endpoint::GatewayRoute;
use crate::gateway::form::client_of_query;
use crate::gateway::metadata::{
    ClientMetadata, MAX_METADATA_BYTES, MetadataRefusal, RegistrationAnswer, RegistrationBody, Sent,
    read_answer,
};
use crate::gateway::path::CanonicalTarget;
use crate::proto::borrowed::ExpandRequestRef;
use crate::rpc::v1;

impl ClientConnection {
    /// A registration.
    pub(super) async fn register(&self, request: TakenRequest, issuer: usize) -> Response<GatewayBody> {
        match self.decide_registration(request, issuer, None).await {
            Ok(response) => response,
            Err(problem) => problem.json(),
        }
    }

    /// A read, an update or a removal of one client.
    pub(super) async fn configure(
        &self,
        request: TakenRequest,
        issuer: usize,
        client_id: &str,
    ) -> Response<GatewayBody> {
        let done = match request.parts.method {
            Method::PUT => self.decide_registration(request, issuer, Some(client_id)).await,
            Method::GET => self.read_registration(request, issuer, client_id).await,
            _ => self.remove_registration(request, issuer, client_id).await,
        };
        done.unwrap_or_else(|problem| problem.json())
    }

    /// A registration, or an update of the registration of a client.
    async fn decide_registration(
        &self,
        mut request: TakenRequest,
        issuer: usize,
        update_of: Option<&str>,
    ) -> Result<Response<GatewayBody>, OAuthProblem> {
        let refused =
            |refusal: MetadataRefusal| OAuthProblem::bad_request(refusal.error(), &refusal.to_string());
        let invalid = |text: &str| OAuthProblem::bad_request("invalid_client_metadata", text);
        let named = client_of_query(request.query()).map_err(|refusal| invalid(&refusal.to_string()))?;
        if named.as_deref().is_some_and(|named| Some(named) != update_of) {
            return Err(invalid("the query names another client"));
        }
        let mut types = request.headers().get_all(CONTENT_TYPE).iter();
        let is_json = types.next().is_some_and(|kind| is_json(kind.as_bytes())) && types.next().is_none();
        if !is_json || request.is_coded() {
            return Err(invalid("the client metadata must be application/json"));
        }
        let body = match self.whole_body(&mut request, MAX_METADATA_BYTES).await {
            Err(problem) if problem.status == StatusCode::PAYLOAD_TOO_LARGE => {
                return Err(refused(MetadataRefusal::TooLong));
            }
            body => body?,
        };
        let body = RegistrationBody::read(&body).map_err(refused)?;
        let record = match update_of {
            None => None,
            Some(id) if body.client_id.as_deref().is_some_and(|own| own != id) => {
                return Err(invalid("client_id is not that of the client"));
            }
            Some(id) => self.known_client(issuer, id).await?,
        };
        let question = ExpandRequestRef {
            scope: body.scope.as_deref(),
            client: Some(client(update_of.unwrap_or_default(), v1::ClientSource::Dcr, &body.client)),
            previous_scope: record.as_ref().map(|record| record.registered_scope.as_str()),
            ..ExpandRequestRef::default()
        };
        let asked = self.ask_registration(&request, &question).await;
        let granted = match asked {
            Decided::Granted(granted) => granted,
            Decided::Denied(problem) | Decided::Outage(problem) => return Err(problem),
        };
        let rewritten =
            Rewritten { body: Some(body.with_scope(&granted).into()), is_read: true, target: None };
        let TakenRequest { parts, target, .. } = request;
        let response = match self.send_rewritten(parts, target, rewritten).await {
            Ok(response) => response,
            Err(error) => return Ok(self.failed(&error)),
        };
        self.learn(response, issuer, Sent::Scope(&granted), Some(&body.client), update_of).await
    }

    /// A client reads its registration, which the gateway learns from too.
    async fn read_registration(
        &self,
        request: TakenRequest,
        issuer: usize,
        client_id: &str,
    ) -> Result<Response<GatewayBody>, OAuthProblem> {
        let record = self.known_client(issuer, client_id).await?;
        let TakenRequest { parts, target, .. } = request;
        let rewritten = Rewritten { is_read: true, ..Rewritten::default() };
        let response = match self.send_rewritten(parts, target, rewritten).await {
            Ok(response) => response,
            Err(error) => return Ok(self.failed(&error)),
        };
        let known = record.as_ref().map(|record| record.registered_scope.as_str());
        let added = record.as_ref().map(|record| record.added_scope.as_str()).unwrap_or_default();
        self.learn(response, issuer, Sent::Nothing { known, added }, None, Some(client_id)).await
    }

    async fn remove_registration(
        &self,
        request: TakenRequest,
        issuer: usize,
        client_id: &str,
    ) -> Result<Response<GatewayBody>, OAuthProblem> {
        let TakenRequest { parts, target, place, .. } = request;
        let response = match self.send_rewritten(parts, target, Rewritten::default()).await {
            Ok(response) => response,
            Err(error) => return Ok(self.failed(&error)),
        };
        if response.status().is_success() {
            let issuer = self.gateway.issuer_path(issuer);
            self.gateway.clients.forget(issuer, client_id).await.map_err(|error| not_remembered(&error))?;
        }
        Ok(self.passed_back(response, place))
    }

    /// Remembers what the upstream answered, and makes the answer for the client. Of an answer that is an error nothing is learned.
    async fn learn(
        &self,
        response: Response<UpstreamBody>,
        issuer: usize,
        sent: Sent<'_>,
        asked: Option<&ClientMetadata>,
        update_of: Option<&str>,
    ) -> Result<Response<GatewayBody>, OAuthProblem> {
        let (mut parts, body) = response.into_parts();
        let body = match Limited::new(body, MAX_ANSWER_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return Ok(self.failed(&UpstreamError::Broken(error.to_string()))),
        };
        strip_hop(&mut parts.headers);
        parts.headers.remove(CONTENT_LENGTH);
        if !parts.status.is_success() {
            return Ok(Response::from_parts(parts, full(body)));
        }
        let unusable = || {
            let text = "the registration cannot be used: the authorization server answered in a way that is not understood";
            OAuthProblem::new(StatusCode::BAD_GATEWAY, "server_error", text)
        };
        let answer = read_answer(self.gateway.expected.kind, sent, asked, |uri| self.managed_uri(uri), &body);
        let answer = answer.map_err(|error| {
            warn!(%error, "a registration was not passed back");
            unusable()
        })?;
        if update_of.is_some_and(|id| id != answer.client_id) {
            warn!(client_id = shown(&answer.client_id), "the upstream answered a request for another client");
            return Err(unusable());
        }
        let RegistrationAnswer { client_id, registered_scope, says_no_scope, client, unmanaged, body } =
            answer;
        if says_no_scope {
            info!(
                client_id = shown(&client_id),
                "the upstream does not say which scope a client has, so it has none"
            );
        }
        if unmanaged {
            info!(
                client_id = shown(&client_id),
                "the upstream lets clients be changed at a URI that is not behind this gateway"
            );
        }
        let issuer = self.gateway.issuer_path(issuer);
        let record = ClientRecord::registered(issuer, client_id, registered_scope, client, SystemTime::now());
        self.gateway.clients.put(record).await.map_err(|error| not_remembered(&error))?;
        parts.headers.remove(http::header::ETAG);
        Ok(Response::from_parts(parts, full(body)))
    }

    /// The URI at which a client is changed, as clients reach it; `None` if a change there would not be seen.
    fn managed_uri(&self, uri: &str) -> Option<String> {
        let expected = &self.gateway.expected;
        let rest = uri
            .strip_prefix(&expected.public_url)
            .or_else(|| uri.strip_prefix(&expected.upstream_url).filter(|_| expected.rewrite))?;
        let canonical = CanonicalTarget::parse(rest.as_bytes()).ok()?;
        let known = self.gateway.known.load_full()?;
        let route = known.table.route(&canonical);
        let is_managed = matches!(route, GatewayRoute::ClientConfiguration(..));
        is_managed.then(|| format!("{}{rest}", expected.public_url))
    }

    /// What is known of a client: what is in the record, or else, where the gateway may ask there, at the upstream.
    pub(super) async fn known_client(
        &self,
        issuer: usize,
        client_id: &str,
    ) -> Result<Option<Arc<ClientRecord>>, OAuthProblem> {
        let gateway = &self.gateway;
        let issuer = gateway.issuer_path(issuer);
        let known = gateway.clients.get(issuer, client_id).await.map_err(|error| {
            error!(%error, "the record of clients cannot be read");
            OAuthProblem::unavailable("the request could not be decided, try again")
        })?;
        // The id of a client with a metadata document is its URL: there is nothing to look up.
        let admin = gateway.admin.as_ref().filter(|_| known.is_none() && !client_id.starts_with("https://"));
        let Some(admin) = admin else { return Ok(known) };
        let policy = gateway.current.load_full();
        let is_step_up =
            |scope: &str| {
                policy.as_ref().is_some_and(|policy| {
                    policy.set.audiences().iter().any(|audience| {
                        audience.scope_matching.find(&audience.step_up_scopes, scope).is_some()
                    })
                })
            };
        // Boxed, as what is rare takes no place in the future of what is not.
        Box::pin(admin.look_up(issuer, client_id, is_step_up)).await.map_err(|error| admin_problem(&error))
    }

    /// Gives a client at the upstream what was granted beyond what it has there, where the gateway may.
    pub(super) async fn complete_client(
        &self,
        issuer: usize,
        client_id: &str,
        record: Option<&ClientRecord>,
        granted: &str,
    ) -> Result<(), OAuthProblem> {
        let Some(admin) = &self.gateway.admin else { return Ok(()) };
        let registered = record.map_or("", |record| record.registered_scope.as_str());
        let completed = admin.complete(self.gateway.issuer_path(issuer), client_id, registered, granted);
        Box::pin(completed).await.map_err(|error| admin_problem(&error))
    }
}

/// What is wrong was logged; a client hears that something is.
fn admin_problem(error: &AdminError) -> OAuthProblem {
    let text = "the registration of the client could not be read or completed at the authorization server, try again";
    match error {
        AdminError::Busy => OAuthProblem::unavailable(text),
        _ => OAuthProblem::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", text),
    }
}

fn not_remembered(error: &ClientsError) -> OAuthProblem {
    error!(%error, "a registration could not be remembered, so it is not passed back");
    OAuthProblem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "temporarily_unavailable",
        "the registration could not be remembered, try again",
    )
}

/// `application/json`, in UTF-8 if it says in what.
fn is_json(content_type: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(content_type) else { return false };
    let mut parts = text.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    is_json
        && parts.all(|part| {
            part.split_once('=').is_some_and(|(name, charset)| {
                name.eq_ignore_ascii_case("charset")
                    && charset.trim_matches('"').eq_ignore_ascii_case("utf-8")
            })
        })
}

/// An answer to a registration is not much larger than the registration.
const MAX_ANSWER_BYTES: usize = 2 * MAX_METADATA_BYTES;
