//! The must-pass examples of the design, asked through a real client.

use scopeward::rpc::v1;
use scopeward::rpc::v1::{Decision, Origin, Reason};

use crate::harness::{AUDIENCE, authorize, one_audience, registration};
use crate::service::Service;

/// Registers under a policy of one audience.
async fn register(
    supported: &str,
    baseline: &str,
    scope: Option<&str>,
) -> v1::ExpandRegistrationScopesResponse {
    let members = format!("scopesSupported: [{supported}], baselineClientScopes: [{baseline}]");
    let service = Service::start(&one_audience(&members)).await;
    let mut client = service.scopes();
    let answer =
        client.expand_registration_scopes(registration(scope)).await.expect("an answer").into_inner();
    let policy = answer.policy.as_ref().expect("an answer names its policy");
    assert_eq!((policy.generation, policy.digest.len()), (1, "sha256:".len() + 64));
    assert_eq!(answer.decision_id.len(), 36);
    service.stop().await;
    answer
}

#[track_caller]
fn assert_allowed(answer: &v1::ExpandRegistrationScopesResponse, scope: &str, added: &[(&str, Origin)]) {
    assert_eq!((answer.decision(), answer.scope.as_str()), (Decision::Allow, scope));
    let given = answer.added.iter().map(|added| (added.scope.as_str(), added.origin())).collect::<Vec<_>>();
    assert_eq!(given, added);
    assert_eq!((answer.reason(), answer.oauth_error.as_ref()), (Reason::Unspecified, None));
}

#[track_caller]
fn assert_denied(answer: &v1::ExpandRegistrationScopesResponse, reason: Reason, offenders: &[&str]) {
    assert_eq!((answer.decision(), answer.reason()), (Decision::Deny, reason));
    assert_eq!((answer.scope.as_str(), answer.added.len()), ("", 0));
    let error = answer.oauth_error.as_ref().expect("a denial has an OAuth error");
    assert_eq!(error.error, "invalid_client_metadata");
    assert!(offenders.iter().all(|offender| error.error_description.contains(offender)), "{error:?}");
    let refused = answer.refused.iter().map(|refused| refused.scope.as_str()).collect::<Vec<_>>();
    assert_eq!(refused, offenders);
}

#[tokio::test]
async fn registration_is_united_with_the_baseline() {
    const OFFLINE: &str = "offline_access";
    let answer = register("openid, offline_access", OFFLINE, Some("openid")).await;
    assert_allowed(&answer, "openid offline_access", &[(OFFLINE, Origin::Baseline)]);
    let answer = register("openid, profile", "", Some("openid profile")).await;
    assert_allowed(&answer, "openid profile", &[]);
    let answer = register("openid, offline_access", "openid", Some("openid offline_access")).await;
    assert_allowed(&answer, "openid offline_access", &[]);
    let both = "openid, offline_access";
    let answer = register("openid, profile, offline_access", both, Some("openid profile")).await;
    assert_allowed(&answer, "openid profile offline_access", &[(OFFLINE, Origin::Baseline)]);
    let answer = register("\"mcp:read\", \"mcp:write\", offline_access", OFFLINE, None).await;
    assert_allowed(&answer, OFFLINE, &[(OFFLINE, Origin::Default)]);
}

#[tokio::test]
async fn registration_is_denied_with_every_offender_named() {
    let answer = register("openid, profile", "", Some("openid admin root")).await;
    assert_denied(&answer, Reason::Unsupported, &["admin", "root"]);
    let answer = register("\"mcp:read\"", "", None).await;
    assert_denied(&answer, Reason::ScopeRequired, &[]);
}

#[tokio::test]
async fn authorize_grants_what_used_to_fail_and_still_refuses_the_rest() {
    let members = "scopesSupported: [openid, offline_access], baselineClientScopes: [offline_access]";
    let service = Service::start(&one_audience(members)).await;
    let mut client = service.scopes();
    let mut ask = async |scope, registered| {
        client
            .check_authorize_scopes(authorize(Some(scope), Some(registered)))
            .await
            .expect("an answer")
            .into_inner()
    };

    let answer = ask("openid offline_access", "openid offline_access").await;
    assert_eq!((answer.decision(), answer.scope.as_str()), (Decision::Allow, "openid offline_access"));
    assert_eq!(answer.added, []);
    assert_eq!(
        answer.audience_grants,
        [v1::AudienceGrant { audience: AUDIENCE.to_owned(), scope: "openid offline_access".to_owned() }]
    );

    let answer = ask("openid admin", "openid offline_access").await;
    assert_eq!((answer.decision(), answer.reason()), (Decision::Deny, Reason::Unsupported));
    assert_eq!(answer.oauth_error.as_ref().map(|error| error.error.as_str()), Some("invalid_scope"));
    let refused = answer.refused.iter().map(|one| (one.scope.as_str(), one.reason())).collect::<Vec<_>>();
    assert_eq!(refused, [("admin", Reason::Unsupported)]);
    assert_eq!((answer.effective_registered_scope.as_str(), answer.audience_grants.len()), ("", 0));

    // As stored before the baseline existed.
    let answer = ask("openid offline_access", "openid").await;
    assert_eq!(
        (answer.decision(), answer.effective_registered_scope.as_str()),
        (Decision::Allow, "openid offline_access")
    );
    let added = answer.added.iter().map(|added| (added.scope.as_str(), added.origin())).collect::<Vec<_>>();
    assert_eq!(added, [("offline_access", Origin::Baseline)]);
    service.stop().await;
}

#[tokio::test]
async fn batch_answers_each_check_in_order_under_one_policy() {
    use v1::batch_check_result::Result::{Error, Response};
    let service = Service::start(&one_audience("scopesSupported: [a, b]")).await;
    let mut client = service.scopes();
    let too_many = vec!["a"; 257].join(" ");
    let checks = vec![
        authorize(Some("a"), Some("a")),
        authorize(Some(&too_many), Some("a")),
        v1::CheckAuthorizeScopesRequest {
            correlation_id: "\t".to_owned(),
            ..authorize(Some("a"), Some("a"))
        },
        authorize(Some("b"), Some("a")),
        authorize(Some("b"), Some("b")),
    ];
    let request = v1::BatchCheckAuthorizeScopesRequest { checks };
    let results = client.batch_check_authorize_scopes(request).await.expect("an answer").into_inner().results;
    let mut ids = Vec::new();
    let mut digests = Vec::new();
    let mut shown = Vec::new();
    for result in results {
        shown.push(match result.result.expect("a result is set") {
            Response(response) => {
                digests.push(response.policy.clone());
                ids.push(response.decision_id.clone());
                format!("{} {}", response.decision().as_str_name(), response.scope)
            }
            Error(error) => format!("{} {} {}", error.code, error.reason, error.message),
        });
    }
    assert_eq!(
        shown,
        [
            "DECISION_ALLOW a",
            "DECISION_DENY ",
            "3 NOT_PRINTABLE `checks[2].correlation_id`: byte 0x09 at offset 0 is not printable ASCII",
            "DECISION_DENY ",
            "DECISION_ALLOW b",
        ]
    );
    digests.dedup();
    assert_eq!(digests.len(), 1);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    let empty = v1::BatchCheckAuthorizeScopesRequest::default();
    let answer = client.batch_check_authorize_scopes(empty).await.expect("an answer").into_inner();
    assert_eq!(answer.results, []);
    service.stop().await;
}
