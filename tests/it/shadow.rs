//! `serve --shadow`: a second policy decides what was answered, and nothing of that reaches a caller.

use scopeward::rpc::v1;
use scopeward::rpc::v1::ShadowDifferenceKind as Kind;
use scopeward::rpc::v1::policy_status_service_client::PolicyStatusServiceClient;
use tonic::Code;

use crate::harness::{reason, within};
use crate::service::{POLICY, Service, condition, settings};

/// A service with a shadow policy of these files; none means a folder that is not there.
async fn start(shadow: Option<&str>) -> Service {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("policies")).unwrap();
    std::fs::write(folder.path().join("policies/mcp.yaml"), POLICY).unwrap();
    if let Some(policy) = shadow {
        std::fs::create_dir(folder.path().join("shadow")).unwrap();
        std::fs::write(folder.path().join("shadow/mcp.yaml"), policy).unwrap();
    }
    let mut settings = settings(folder.path());
    settings.shadow = Some(folder.path().join("shadow"));
    Service::start_in(folder, settings).await.unwrap()
}

async fn ask_report(service: &Service) -> v1::GetShadowReportResponse {
    let mut client = PolicyStatusServiceClient::new(service.channel.clone());
    let request = v1::GetShadowReportRequest { max_differences: 0 };
    client.get_shadow_report(request).await.expect("a report").into_inner()
}

/// The report once so many questions were done with.
async fn report_of(service: &Service, done: u64) -> v1::GetShadowReportResponse {
    let seen = async {
        loop {
            let report = ask_report(service).await;
            if report.compared_count + report.dropped_count >= done {
                return report;
            }
            tokio::task::yield_now().await;
        }
    };
    within("the questions are compared", seen).await
}

async fn accepted(service: &Service) {
    let is_accepted = |status: &v1::PolicyStatus| {
        condition(&status.conditions, "ShadowPolicyAccepted") == Some(("True", "PolicyAccepted"))
    };
    service.status_when("the shadow policy is accepted", is_accepted).await;
}

fn client() -> Option<v1::Client> {
    Some(v1::Client {
        client_id: "cli-1".to_owned(),
        client_name: "secret name".to_owned(),
        ..Default::default()
    })
}

/// Questions of each RPC that decides, with answers of each kind.
async fn ask_everything(service: &Service) -> Vec<Vec<u8>> {
    let mut scopes = service.scopes();
    let mut answers = Vec::new();
    for scope in [None, Some("openid"), Some("openid mcp:read"), Some("openid payments"), Some("a\tb")] {
        let registration = v1::ExpandRegistrationScopesRequest {
            scope: scope.map(str::to_owned),
            client: client(),
            ..Default::default()
        };
        let mut answer = scopes.expand_registration_scopes(registration).await.unwrap().into_inner();
        answer.decision_id.clear();
        answers.push(prost::Message::encode_to_vec(&answer));
        for registered in [None, Some("openid"), Some("openid mcp:read payments")] {
            let check = v1::CheckAuthorizeScopesRequest {
                scope: scope.map(str::to_owned),
                registered_scope: registered.map(str::to_owned),
                client: client(),
                ..Default::default()
            };
            let batch = v1::BatchCheckAuthorizeScopesRequest { checks: vec![check.clone(), check.clone()] };
            let mut answer = scopes.check_authorize_scopes(check).await.unwrap().into_inner();
            answer.decision_id.clear();
            answers.push(prost::Message::encode_to_vec(&answer));
            let mut answer = scopes.batch_check_authorize_scopes(batch).await.unwrap().into_inner();
            for result in &mut answer.results {
                match &mut result.result {
                    Some(v1::batch_check_result::Result::Response(response)) => response.decision_id.clear(),
                    other => panic!("{other:?}"),
                }
            }
            answers.push(prost::Message::encode_to_vec(&answer));
        }
    }
    answers
}

#[tokio::test]
async fn answers_are_the_same_bytes_with_and_without_a_shadow() {
    let plain = Service::start(POLICY).await;
    let expected = ask_everything(&plain).await;
    plain.stop().await;
    // One that denies nearly everything, one that is broken, and none.
    let other = "audiences: {https://other.example.com: {scopesSupported: [x]}}";
    for policy in [Some(other), Some("audiences: ["), None] {
        let service = start(policy).await;
        if policy == Some(other) {
            accepted(&service).await;
        }
        assert_eq!(ask_everything(&service).await, expected, "{policy:?}");
        let asked = 5 + 15 + 30;
        let report = report_of(&service, asked).await;
        let compared = if policy == Some(other) { asked } else { 0 };
        assert_eq!((report.compared_count, report.dropped_count), (compared, asked - compared), "{policy:?}");
        assert_eq!(report.differences.is_empty(), compared == 0);
        service.stop().await;
    }
}

#[tokio::test]
async fn differences_are_counted_and_kept_for_the_report() {
    let narrower = POLICY.replace(", \"mcp:write\"", "");
    let service = start(Some(&narrower)).await;
    accepted(&service).await;
    let ask = async |scope: &str| {
        let check = v1::CheckAuthorizeScopesRequest {
            audiences: vec!["https://mcp.example.com".to_owned()],
            scope: Some(scope.to_owned()),
            registered_scope: Some(scope.to_owned()),
            client: client(),
            ..Default::default()
        };
        service.scopes().check_authorize_scopes(check).await.unwrap().into_inner()
    };
    ask("mcp:read").await;
    let given = ask("mcp:read mcp:write").await;
    let report = report_of(&service, 2).await;
    assert_eq!(report.compared_count, 2);
    let [found] = &*report.differences else { panic!("{report:#?}") };
    assert_eq!(found.kind(), Kind::AllowToDeny);
    assert_eq!(found.decision_id, given.decision_id);
    assert_eq!(
        (&*found.client_id, &*found.audiences),
        ("cli-1", &["https://mcp.example.com".to_owned()][..])
    );
    assert_eq!(found.requested_scope.as_deref(), Some("mcp:read mcp:write"));
    let (serving, shadow) = (found.serving.clone().unwrap(), found.shadow.clone().unwrap());
    assert_eq!((serving.decision(), &*serving.scope), (v1::Decision::Allow, &*given.scope));
    assert_eq!((shadow.decision(), shadow.reason()), (v1::Decision::Deny, v1::Reason::Unsupported));
    assert_eq!(serving.policy, given.policy);
    assert_ne!(serving.policy, shadow.policy);
    assert!(!format!("{report:?}").contains("secret name"), "no metadata but the client id is kept");
    let metric = "scopeward_shadow_differences_total{kind=\"allow_to_deny\"}";
    assert_eq!(service.metric(metric).await, Some(1.0));
    assert_eq!(service.metric("scopeward_shadow_compared_total").await, Some(2.0));

    // At the token endpoint a scope that was taken back is dropped, and what was granted is part of the difference.
    let refresh = v1::CheckTokenScopesRequest {
        audiences: vec!["https://mcp.example.com".to_owned()],
        granted_scope: Some("mcp:read mcp:write".to_owned()),
        grant: v1::TokenGrant::Refresh.into(),
        ..Default::default()
    };
    service.scopes().check_token_scopes(refresh).await.unwrap();
    let report = report_of(&service, 3).await;
    let [found, _] = &*report.differences else { panic!("{report:#?}") };
    assert_eq!((found.kind(), found.grant()), (Kind::Narrower, v1::TokenGrant::Refresh));
    assert_eq!(found.granted_scope.as_deref(), Some("mcp:read mcp:write"));
    assert_eq!(found.method, "/scopeward.v1.ScopePolicyService/CheckTokenScopes");

    // An edit of the shadow is followed as one of the policy that serves, and changes nothing there.
    let generation = service.status().await.active.unwrap().generation;
    std::fs::write(service.folder.path().join("shadow/mcp.yaml"), POLICY).unwrap();
    let same = async {
        while ask_report(&service).await.shadow.unwrap().active.map(|active| active.digest)
            != given.policy.clone().map(|policy| policy.digest)
        {
            tokio::task::yield_now().await;
        }
    };
    within("the edited shadow is compared", same).await;
    ask("mcp:read mcp:write").await;
    let report = report_of(&service, 4).await;
    assert_eq!((report.compared_count, report.differences.len()), (4, 2));
    assert_eq!(service.status().await.active.unwrap().generation, generation);
    service.stop().await;
}

#[tokio::test]
async fn a_broken_shadow_never_touches_what_serves() {
    let service = start(Some("audiences: [")).await;
    let rejected = |status: &v1::PolicyStatus| {
        condition(&status.conditions, "ShadowPolicyAccepted") == Some(("False", "PolicyRejected"))
    };
    let status = service.status_when("the shadow policy is rejected", rejected).await;
    assert_eq!(condition(&status.conditions, "Ready"), Some(("True", "PolicyLoaded")));
    assert_eq!(condition(&status.conditions, "PolicyAccepted"), Some(("True", "PolicyAccepted")));
    assert_eq!(condition(&status.conditions, "ServingLastGood"), None);
    assert_eq!(service.get("/readyz").await.0, 200);
    assert_eq!(service.ask("openid").await.decision(), v1::Decision::Allow);
    let report = report_of(&service, 1).await;
    assert!(report.shadow.unwrap().last_attempt.unwrap().finding_count > 0);
    assert_eq!(service.metric("scopeward_shadow_dropped_total{cause=\"no_policy\"}").await, Some(1.0));
    // What is counted of reloads is of the policy that serves.
    assert_eq!(service.metric("scopeward_policy_reloads_total{result=\"rejected\"}").await, Some(0.0));

    // A good one is taken over, a later bad one keeps it.
    let path = service.folder.path().join("shadow/mcp.yaml");
    std::fs::write(&path, POLICY).unwrap();
    accepted(&service).await;
    std::fs::write(&path, "audiences: {").unwrap();
    let keeps = |status: &v1::PolicyStatus| condition(&status.conditions, "ShadowServingLastGood").is_some();
    service.status_when("the last good shadow is compared", keeps).await;
    service.ask("openid").await;
    assert_eq!(report_of(&service, 2).await.compared_count, 1);
    service.stop().await;
}

#[tokio::test]
async fn without_a_shadow_there_is_no_report() {
    let service = Service::start(POLICY).await;
    let mut client = PolicyStatusServiceClient::new(service.channel.clone());
    let refused = client.get_shadow_report(v1::GetShadowReportRequest::default()).await.unwrap_err();
    assert_eq!((refused.code(), &*reason(&refused)), (Code::NotFound, "NO_SHADOW"));
    service.stop().await;
}
