//! The reference: a bare tonic service of our messages, with tonic's own server, that decides nothing.

use scopeward::rpc::v1;
use scopeward::rpc::v1::scope_policy_service_server::{ScopePolicyService, ScopePolicyServiceServer};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// Answers each question with an answer of the same shape and decides nothing.
struct Echo;

#[tonic::async_trait]
impl ScopePolicyService for Echo {
    async fn expand_registration_scopes(
        &self,
        request: Request<v1::ExpandRegistrationScopesRequest>,
    ) -> Result<Response<v1::ExpandRegistrationScopesResponse>, Status> {
        let scope = request.into_inner().scope.unwrap_or_default();
        Ok(Response::new(v1::ExpandRegistrationScopesResponse { scope, ..Default::default() }))
    }

    async fn check_authorize_scopes(
        &self,
        request: Request<v1::CheckAuthorizeScopesRequest>,
    ) -> Result<Response<v1::CheckAuthorizeScopesResponse>, Status> {
        let v1::CheckAuthorizeScopesRequest { audiences, scope, .. } = request.into_inner();
        let scope = scope.unwrap_or_default();
        let audience = audiences.into_iter().next().unwrap_or_default();
        Ok(Response::new(v1::CheckAuthorizeScopesResponse {
            decision: v1::Decision::Allow.into(),
            audience_grants: vec![v1::AudienceGrant { audience, scope: scope.clone() }],
            effective_registered_scope: scope.clone(),
            scope,
            policy: Some(v1::PolicyVersion { generation: 1, digest: format!("sha256:{}", "0".repeat(64)) }),
            decision_id: "00000000-0000-7000-8000-000000000000".to_owned(),
            ..Default::default()
        }))
    }

    async fn batch_check_authorize_scopes(
        &self,
        _: Request<v1::BatchCheckAuthorizeScopesRequest>,
    ) -> Result<Response<v1::BatchCheckAuthorizeScopesResponse>, Status> {
        Ok(Response::new(v1::BatchCheckAuthorizeScopesResponse::default()))
    }

    async fn check_token_scopes(
        &self,
        request: Request<v1::CheckTokenScopesRequest>,
    ) -> Result<Response<v1::CheckTokenScopesResponse>, Status> {
        let scope = request.into_inner().scope.unwrap_or_default();
        Ok(Response::new(v1::CheckTokenScopesResponse { scope, ..Default::default() }))
    }

    async fn batch_check_token_scopes(
        &self,
        _: Request<v1::BatchCheckTokenScopesRequest>,
    ) -> Result<Response<v1::BatchCheckTokenScopesResponse>, Status> {
        Ok(Response::new(v1::BatchCheckTokenScopesResponse::default()))
    }

    async fn describe_audience(
        &self,
        _: Request<v1::DescribeAudienceRequest>,
    ) -> Result<Response<v1::DescribeAudienceResponse>, Status> {
        Ok(Response::new(v1::DescribeAudienceResponse::default()))
    }
}

/// Serves until the process is ended; says its address on standard output, as `scopeward serve` does.
pub async fn serve() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("ready grpc={}", listener.local_addr().unwrap());
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder()
        .add_service(ScopePolicyServiceServer::new(Echo))
        .serve_with_incoming(incoming)
        .await
        .unwrap();
}
