//! The questions of a gateway, decided in this process by the service that answers RPCs: with its budgets, counters and audit, and
//! only once the record of an expansion is durable.

use http::{HeaderMap, HeaderName};
use tokio::time::timeout;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};
use tracing::warn;

use super::answer::OAuthProblem;
use super::connection::ClientConnection;
use crate::clients::{ClientRecord, RecordSource};
use crate::gateway::metadata::ClientMetadata;
use crate::rpc::caller::{CallOrigin, CallerIdentity};
use crate::rpc::v1;
use crate::rpc::v1::scope_policy_service_server::ScopePolicyService as _;

/// What was decided.
#[derive(Clone, Debug)]
pub(super) enum Decided {
    /// This scope is granted.
    Granted(String),
    /// The request is denied.
    Denied(OAuthProblem),
    /// There is no decision.
    Outage(OAuthProblem),
}

/// A client as the policy sees it.
pub(super) fn client_of(client_id: &str, record: Option<&ClientRecord>) -> v1::Client {
    match record {
        // One that was looked up may have registered, or somebody entered it.
        Some(ClientRecord { source: RecordSource::Upstream, metadata, .. }) => {
            client(client_id, v1::ClientSource::Unspecified, metadata)
        }
        Some(record) => client(client_id, v1::ClientSource::Dcr, &record.metadata),
        // A client that never registered: its id is the URL of a document about it, or somebody entered it.
        None if client_id.starts_with("https://") => {
            client(client_id, v1::ClientSource::Cimd, &ClientMetadata::default())
        }
        None => client(client_id, v1::ClientSource::Static, &ClientMetadata::default()),
    }
}

/// A client from what it says of itself.
pub(super) fn client(client_id: &str, source: v1::ClientSource, metadata: &ClientMetadata) -> v1::Client {
    let ClientMetadata {
        client_name,
        software_id,
        software_version,
        redirect_uris,
        grant_types,
        application_type,
    } = metadata.clone();
    v1::Client {
        client_id: client_id.to_owned(),
        source: source.into(),
        client_name,
        software_id,
        software_version,
        redirect_uris,
        grant_types,
        application_type,
    }
}

impl ClientConnection {
    /// Asks what a client holds after it registers.
    pub(super) async fn ask_registration(
        &self,
        headers: &HeaderMap,
        identity: Option<CallerIdentity>,
        question: v1::ExpandRegistrationScopesRequest,
    ) -> Decided {
        let call = self.gateway.policy.expand_registration_scopes(self.call(headers, identity, question));
        match self.decide(call).await {
            Ok(answer) => {
                let v1::ExpandRegistrationScopesResponse { decision, scope, oauth_error, .. } = answer;
                verdict(decision, scope, oauth_error)
            }
            Err(status) => failure(&status, "invalid_client_metadata"),
        }
    }

    /// Asks which scopes a login gets.
    pub(super) async fn ask_authorize(
        &self,
        headers: &HeaderMap,
        identity: Option<CallerIdentity>,
        question: v1::CheckAuthorizeScopesRequest,
    ) -> Decided {
        let call = self.gateway.policy.check_authorize_scopes(self.call(headers, identity, question));
        match self.decide(call).await {
            Ok(answer) => {
                let v1::CheckAuthorizeScopesResponse { decision, scope, oauth_error, .. } = answer;
                verdict(decision, scope, oauth_error)
            }
            Err(status) => failure(&status, "invalid_request"),
        }
    }

    fn call<T>(&self, headers: &HeaderMap, identity: Option<CallerIdentity>, question: T) -> Request<T> {
        // All that a question takes of the headers.
        let mut carried = HeaderMap::new();
        carried.extend(headers.get(TRACE_PARENT).map(|value| (TRACE_PARENT, value.clone())));
        let mut request = Request::new(question);
        *request.metadata_mut() = MetadataMap::from_headers(carried);
        let origin = CallOrigin { peer: Some(self.web.peer.address), identity, notes: None };
        request.extensions_mut().insert(origin);
        request
    }

    async fn decide<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Status> {
        match timeout(self.gateway.limits.request_timeout, call).await {
            Ok(answered) => answered.map(tonic::Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("the request was not decided in time")),
        }
    }
}

fn verdict(decision: i32, scope: String, error: Option<v1::OAuthError>) -> Decided {
    if decision == i32::from(v1::Decision::Allow) {
        return Decided::Granted(scope);
    }
    let v1::OAuthError { error, error_description } = error.unwrap_or_default();
    let error = match &*error {
        "invalid_client_metadata" => "invalid_client_metadata",
        "invalid_target" => "invalid_target",
        _ => "invalid_scope",
    };
    // It was made printable where it was made.
    Decided::Denied(OAuthProblem { status: http::StatusCode::BAD_REQUEST, error, error_description })
}

/// A question that was not answered: the fault of its asker where it is over a limit, and else an outage, which is never a denial.
fn failure(status: &Status, error: &'static str) -> Decided {
    if status.code() == Code::InvalidArgument {
        return Decided::Denied(OAuthProblem::bad_request(error, status.message()));
    }
    warn!(code = ?status.code(), message = status.message(), "a request of the gateway was not decided");
    Decided::Outage(OAuthProblem::unavailable("the request could not be decided, try again"))
}

const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
