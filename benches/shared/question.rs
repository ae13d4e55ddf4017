//! What servers are asked.

use scopeward::rpc::v1;
use scopeward::rpc::v1::scope_policy_service_client::ScopePolicyServiceClient;
use tonic::transport::Channel;

const AUDIENCE: &str = "https://mcp.example.com";
const SCOPE: &str = "openid mcp:read mcp:write offline_access";
/// Checks of one batch.
pub const BATCH: u64 = 100;

/// One kind of call.
#[derive(Clone, Copy)]
pub enum Question {
    /// An authorize request whose four scopes are all registered: nothing to record.
    Plain,
    /// The same of a client that registered them in another order, so that both lists are read as they are for [`Question::Expanding`].
    Registered,
    /// An authorize request that gets a baseline scope unasked: recorded.
    Expanding,
    /// [`BATCH`] authorize requests of three scopes, all registered, in one call.
    Batch,
}

impl Question {
    /// Asks it once, and checks the answer.
    pub async fn ask(self, client: &mut ScopePolicyServiceClient<Channel>) {
        match self {
            Self::Plain | Self::Registered | Self::Expanding => {
                let registered = match self {
                    Self::Plain => SCOPE,
                    Self::Registered => "openid mcp:read offline_access mcp:write",
                    _ => "openid mcp:read mcp:write",
                };
                let request = authorize(SCOPE, registered);
                let answer = client.check_authorize_scopes(request).await.expect("an answer").into_inner();
                assert_eq!(answer.scope, SCOPE);
            }
            Self::Batch => {
                let three = "openid mcp:read mcp:write";
                let checks = (0..BATCH).map(|_| authorize(three, three)).collect();
                let request = v1::BatchCheckAuthorizeScopesRequest { checks };
                let answer = client.batch_check_authorize_scopes(request).await.expect("an answer");
                assert_eq!(answer.into_inner().results.len() as u64, BATCH);
            }
        }
    }
}

/// An authorize request of a client.
pub fn authorize(scope: &str, registered: &str) -> v1::CheckAuthorizeScopesRequest {
    v1::CheckAuthorizeScopesRequest {
        audiences: vec![AUDIENCE.to_owned()],
        scope: Some(scope.to_owned()),
        registered_scope: Some(registered.to_owned()),
        client: Some(v1::Client { client_id: "bench".to_owned(), ..v1::Client::default() }),
        ..Default::default()
    }
}

/// A policy with the audience that is asked about.
pub fn policies() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mcp.yaml"), policy()).unwrap();
    folder
}

/// The same as text.
pub fn policy() -> String {
    format!(
        "audiences:\n  {AUDIENCE}:\n    scopesSupported: [openid, offline_access, \"mcp:read\", \"mcp:write\"]\n    baselineClientScopes: [offline_access]\n"
    )
}
