//! The questions of a gateway, decided in this process by what answers RPCs: with its budgets, counters and audit, and only once the
//! record of an expansion is durable.

use http::HeaderMap;
use tokio::time::timeout;
use tonic::{Code, Status};
use tracing::warn;

use super::answer::OAuthProblem;
use super::connection::ClientConnection;
use super::request::TakenRequest;
use crate::audit::Appending;
use crate::clients::{ClientRecord, RecordSource};
use crate::decision::{Answer, OAuthError};
use crate::gateway::metadata::ClientMetadata;
use crate::proto::borrowed::{CheckRequestRef, ClientRef, ExpandRequestRef};
use crate::rpc::answering::Answering;
use crate::rpc::caller::CallOrigin;
use crate::rpc::error::RpcError;
use crate::rpc::scope_policy::CallHead;
use crate::rpc::trace_parent::TRACE_PARENT;
use crate::rpc::v1;
use crate::scope;

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
pub(super) fn client_of<'a>(client_id: &'a str, record: Option<&'a ClientRecord>) -> ClientRef<'a> {
    match record {
        // One that was looked up may have registered, or somebody entered it.
        Some(ClientRecord { source: RecordSource::Upstream, metadata, .. }) => {
            client(client_id, v1::ClientSource::Unspecified, metadata)
        }
        Some(record) => client(client_id, v1::ClientSource::Dcr, &record.metadata),
        // A client that never registered: its id is the URL of a document about it, or somebody entered it.
        None => {
            let is_document = client_id.starts_with("https://");
            let source = if is_document { v1::ClientSource::Cimd } else { v1::ClientSource::Static };
            ClientRef { client_id, source: source.into(), ..ClientRef::default() }
        }
    }
}

/// A client from what it says of itself.
pub(super) fn client<'a>(
    client_id: &'a str,
    source: v1::ClientSource,
    metadata: &'a ClientMetadata,
) -> ClientRef<'a> {
    let ClientMetadata {
        client_name,
        software_id,
        software_version,
        redirect_uris,
        grant_types,
        application_type,
    } = metadata;
    ClientRef {
        client_id,
        source: source.into(),
        client_name,
        software_id,
        software_version,
        redirect_uris: redirect_uris.iter().map(String::as_str).collect(),
        grant_types: grant_types.iter().map(String::as_str).collect(),
        application_type,
    }
}

impl ClientConnection {
    /// Asks what a client holds after it registers.
    pub(super) async fn ask_registration(
        &self,
        taken: &TakenRequest,
        question: &ExpandRequestRef<'_>,
    ) -> Decided {
        let head = self.call_head(taken);
        let asked = self.gateway.policy.ask_expand(&head, question, decided);
        self.in_time(asked).await.unwrap_or_else(|error| failure(error, "invalid_client_metadata"))
    }

    /// Asks which scopes a login gets.
    pub(super) async fn ask_authorize(
        &self,
        taken: &TakenRequest,
        question: &CheckRequestRef<'_>,
    ) -> Decided {
        let head = self.call_head(taken);
        let asked = self.gateway.policy.ask_check(&head, question, decided);
        self.in_time(asked).await.unwrap_or_else(|error| failure(error, "invalid_request"))
    }

    /// What a question takes of its request.
    fn call_head(&self, taken: &TakenRequest) -> CallHead {
        let mut headers = HeaderMap::new();
        if let Some(value) = taken.headers().get(&TRACE_PARENT) {
            headers.insert(&TRACE_PARENT, value.clone());
        }
        let (identity, notes) = (taken.identity.clone(), taken.notes.clone());
        CallHead { headers, origin: CallOrigin { peer: Some(self.web.peer.address), identity, notes } }
    }

    /// What is answered, by the end of the time that a question has.
    async fn in_time(&self, asked: Answering<'_, Decided, Appending>) -> Result<Decided, RpcError> {
        match asked {
            Answering::Done(answer) => answer,
            // Boxed: a timer is large, and most answers are there at once.
            asked => {
                let answered = Box::pin(timeout(self.gateway.limits.request_timeout, asked.wait())).await;
                answered.unwrap_or(Err(RpcError::DeadlineExceeded))
            }
        }
    }
}

fn decided(answer: &Answer<'_>) -> Decided {
    if answer.is_allowed() {
        return Decided::Granted(scope::join(&answer.scope));
    }
    let (error, error_description) = match &answer.oauth_error {
        Some(OAuthError { error, error_description }) => (*error, error_description.clone()),
        None => ("invalid_scope", String::new()),
    };
    // It was made printable where it was made.
    Decided::Denied(OAuthProblem { status: http::StatusCode::BAD_REQUEST, error, error_description })
}

/// A question that was not answered: the fault of its asker where it is over a limit, and else an outage, which is never a denial.
fn failure(error: RpcError, code: &'static str) -> Decided {
    let status = Status::from(error);
    if status.code() == Code::InvalidArgument {
        return Decided::Denied(OAuthProblem::bad_request(code, status.message()));
    }
    warn!(code = ?status.code(), message = status.message(), "a request of the gateway was not decided");
    Decided::Outage(OAuthProblem::unavailable("the request could not be decided, try again"))
}
