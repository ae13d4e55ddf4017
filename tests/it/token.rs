//! `CheckTokenScopes` and its batch through a whole service: answers, errors, what is recorded, counted and traced of them.

use scopeward::rpc::v1;
use scopeward::rpc::v1::audit_service_client::AuditServiceClient;
use scopeward::rpc::v1::batch_check_token_result::Result as ItemResult;
use scopeward::rpc::v1::stream_audit_events_response::Message;
use scopeward::rpc::v1::{Decision, Reason, TokenGrant};
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{AUDIENCE, info, one_audience, reason, refresh};
use crate::service::{DEADLINE, Service};

const MEMBERS: &str = "scopesSupported: [openid, offline_access, read, write], baselineClientScopes: [offline_access], \
    authorization: {stepUpScopes: [write]}";

/// A client that asks with its own credentials.
fn credentials(scope: Option<&str>, registered: Option<&str>) -> v1::CheckTokenScopesRequest {
    v1::CheckTokenScopesRequest {
        granted_scope: None,
        registered_scope: registered.map(str::to_owned),
        grant: TokenGrant::ClientCredentials.into(),
        ..refresh(scope, "")
    }
}

fn refused(answer: &v1::CheckTokenScopesResponse) -> Vec<(&str, Reason)> {
    answer.refused.iter().map(|refused| (&*refused.scope, refused.reason())).collect()
}

#[tokio::test]
async fn tokens_are_narrowed_and_never_get_more() {
    let service = Service::start(&one_audience(MEMBERS)).await;
    let mut client = service.scopes();
    let mut ask = async |request| client.check_token_scopes(request).await.expect("an answer").into_inner();

    let answer = ask(refresh(None, "openid write")).await;
    assert_eq!((answer.decision(), &*answer.scope), (Decision::Allow, "openid write"));
    let grant = v1::AudienceGrant { audience: AUDIENCE.to_owned(), scope: "openid write".to_owned() };
    assert_eq!(answer.audience_grants, [grant]);
    assert_eq!((answer.reason(), answer.oauth_error.as_ref()), (Reason::Unspecified, None));
    let policy = answer.policy.as_ref().expect("an answer names its policy");
    assert_eq!((policy.generation, answer.decision_id.len()), (1, 36));

    // RFC 6749 section 6: no scope beyond what was granted, be it the baseline or a step-up scope.
    for scope in ["offline_access", "write", "read"] {
        let answer = ask(refresh(Some(&format!("openid {scope}")), "openid")).await;
        assert_eq!((answer.decision(), answer.reason()), (Decision::Deny, Reason::ExceedsGrant));
        assert_eq!((refused(&answer), &*answer.scope), (vec![(scope, Reason::ExceedsGrant)], ""));
        let error = answer.oauth_error.as_ref().expect("a denial has an OAuth error");
        assert_eq!(error.error, "invalid_scope");
        assert_eq!(error.error_description, format!("scope exceeds the grant: {scope}"));
        assert_eq!(answer.audience_grants, []);
    }
    // What the policy took back is left out.
    let answer = ask(refresh(Some("openid gone"), "openid gone")).await;
    assert_eq!((&*answer.scope, refused(&answer)), ("openid", vec![("gone", Reason::Unsupported)]));
    let answer = ask(credentials(None, Some("openid"))).await;
    assert_eq!((answer.decision(), &*answer.scope), (Decision::Allow, "openid offline_access"));
    let answer = ask(refresh(None, "gone")).await;
    assert_eq!((answer.decision(), answer.reason()), (Decision::Deny, Reason::ScopeRequired));
    let elsewhere =
        v1::CheckTokenScopesRequest { audiences: vec!["other".to_owned()], ..refresh(None, "openid") };
    let answer = ask(elsewhere).await;
    assert_eq!(answer.reason(), Reason::AudienceUnknown);
    assert_eq!(answer.oauth_error.map(|error| error.error), Some("invalid_target".to_owned()));
    service.stop().await;
}

#[tokio::test]
async fn a_question_that_does_not_say_its_grant_is_an_error_and_no_denial() {
    let service = Service::start(&one_audience(MEMBERS)).await;
    let mut client = service.scopes();
    let of = |grant: i32, granted_scope: Option<&str>| v1::CheckTokenScopesRequest {
        grant,
        granted_scope: granted_scope.map(str::to_owned),
        ..refresh(Some("openid"), "")
    };
    for (request, why, field) in [
        (of(0, Some("openid")), "FIELD_MISSING", "grant"),
        (of(TokenGrant::Refresh.into(), None), "FIELD_MISSING", "granted_scope"),
        (of(TokenGrant::TokenExchange.into(), None), "FIELD_MISSING", "granted_scope"),
        (of(99, Some("openid")), "ENUM_VALUE_UNKNOWN", "grant"),
    ] {
        let status = client.check_token_scopes(request).await.expect_err("no answer");
        assert_eq!((status.code(), &*reason(&status)), (Code::InvalidArgument, why));
        assert_eq!(info(&status, "field"), field);
        let violations = status.get_details_bad_request().expect("the field is named").field_violations;
        assert_eq!(violations.iter().map(|one| &*one.field).collect::<Vec<_>>(), [field]);
    }
    // An empty grant is one.
    let empty = of(TokenGrant::Refresh.into(), Some(""));
    let answer = client.check_token_scopes(empty).await.expect("an answer").into_inner();
    assert_eq!(answer.reason(), Reason::ExceedsGrant);
    let unprintable =
        v1::CheckTokenScopesRequest { correlation_id: "\t".to_owned(), ..refresh(None, "openid") };
    let status = client.check_token_scopes(unprintable).await.expect_err("no answer");
    assert_eq!((&*reason(&status), &*info(&status, "field")), ("NOT_PRINTABLE", "correlation_id"));
    service.stop().await;
}

#[tokio::test]
async fn a_batch_has_an_answer_or_an_error_for_each_check() {
    let service = Service::start(&one_audience(MEMBERS)).await;
    let mut client = service.scopes();
    let checks = vec![
        refresh(Some("openid"), "openid read"),
        v1::CheckTokenScopesRequest { granted_scope: None, ..refresh(None, "") },
        refresh(Some("write"), "openid"),
        v1::CheckTokenScopesRequest { grant: 7, ..refresh(None, "openid") },
        credentials(Some("offline_access"), None),
    ];
    let request = v1::BatchCheckTokenScopesRequest { checks };
    let results = client.batch_check_token_scopes(request).await.expect("an answer").into_inner().results;
    let shown: Vec<String> = results
        .into_iter()
        .map(|result| match result.result.expect("a result is set") {
            ItemResult::Response(answer) => {
                format!("{} {}", answer.decision().as_str_name(), answer.scope)
            }
            ItemResult::Error(error) => format!("{} {} {}", error.code, error.reason, error.message),
        })
        .collect();
    assert_eq!(
        shown,
        [
            "DECISION_ALLOW openid",
            "3 FIELD_MISSING `checks[1].granted_scope` is required: it says what the grant that is refreshed stands for",
            "DECISION_DENY ",
            "3 ENUM_VALUE_UNKNOWN `checks[3].grant` has the unknown value 7",
            "DECISION_ALLOW offline_access",
        ]
    );
    let many = v1::BatchCheckTokenScopesRequest { checks: vec![refresh(None, "openid"); 101] };
    let status = client.batch_check_token_scopes(many).await.expect_err("no answer");
    assert_eq!((status.code(), &*reason(&status)), (Code::InvalidArgument, "LIMIT_EXCEEDED"));
    service.stop().await;
}

#[tokio::test]
async fn denials_are_recorded_with_their_grant_and_allows_are_not() {
    let service = Service::start(&one_audience(MEMBERS)).await;
    let mut client = service.scopes();
    // Neither of these is an expansion, the baseline of a client included.
    client.check_token_scopes(refresh(None, "openid read")).await.expect("an answer");
    client.check_token_scopes(credentials(None, Some("openid"))).await.expect("an answer");
    let denied = v1::CheckTokenScopesRequest {
        client: Some(v1::Client { client_id: "c1".to_owned(), ..Default::default() }),
        correlation_id: "login-1".to_owned(),
        registered_scope: Some("openid write".to_owned()),
        ..refresh(Some("openid write"), "openid")
    };
    let answer = client.check_token_scopes(denied).await.expect("an answer").into_inner();
    let batch = v1::BatchCheckTokenScopesRequest { checks: vec![credentials(Some("write"), Some(""))] };
    client.batch_check_token_scopes(batch).await.expect("an answer");

    let request = v1::StreamAuditEventsRequest { follow: true, ..Default::default() };
    let mut stream = AuditServiceClient::new(service.channel.clone())
        .stream_audit_events(request)
        .await
        .expect("a stream")
        .into_inner();
    let mut found = Vec::new();
    while found.len() < 3 {
        let next = tokio::time::timeout(DEADLINE, stream.message()).await.expect("more events");
        if let Some(Message::Event(event)) = next.expect("a message").expect("it follows").message {
            found.push(event);
        }
    }
    let [start, refresh, credentials] = &found[..] else { unreachable!() };
    assert_eq!(start.kind(), v1::AuditEventKind::PolicyChange);
    assert_eq!((refresh.kind(), refresh.reason()), (v1::AuditEventKind::Denial, Reason::ExceedsGrant));
    assert_eq!(refresh.decision_id, answer.decision_id);
    assert_eq!(refresh.method, "/scopeward.v1.ScopePolicyService/CheckTokenScopes");
    assert_eq!(refresh.grant(), TokenGrant::Refresh);
    assert_eq!(
        [&refresh.requested_scope, &refresh.granted_scope, &refresh.registered_scope].map(Option::as_deref),
        [Some("openid write"), Some("openid"), Some("openid write")]
    );
    assert_eq!((&refresh.refused, &*refresh.correlation_id), (&answer.refused, "login-1"));
    assert_eq!(credentials.method, "/scopeward.v1.ScopePolicyService/BatchCheckTokenScopes");
    assert_eq!((credentials.grant(), &credentials.granted_scope), (TokenGrant::ClientCredentials, &None));
    assert_eq!(credentials.registered_scope.as_deref(), Some(""));

    let metric = async |name: &str, labels: &str| {
        service.metric(&format!("scopeward_{name}{{{labels}}}")).await.unwrap_or_default()
    };
    let decided = async |method: &str, decision: &str, reason: &str| {
        let labels = format!("method=\"{method}\",decision=\"{decision}\",reason=\"{reason}\"");
        metric("decisions_total", &labels).await
    };
    assert_eq!(decided("CheckTokenScopes", "ALLOW", "").await, 2.0);
    assert_eq!(decided("CheckTokenScopes", "DENY", "EXCEEDS_GRANT").await, 1.0);
    assert_eq!(decided("BatchCheckTokenScopes", "DENY", "EXCEEDS_GRANT").await, 1.0);
    assert_eq!(metric("scopes_refused_total", "reason=\"EXCEEDS_GRANT\"").await, 2.0);
    assert_eq!(metric("scopes_added_total", "origin=\"BASELINE\"").await, 0.0, "a token is given nothing");
    service.stop().await;
}

/// Only where nothing else says what a token may have does it matter that a registration is unknown.
#[tokio::test]
async fn an_unknown_registration_is_counted_where_there_is_no_grant() {
    let service = Service::start(&one_audience(MEMBERS)).await;
    let mut client = service.scopes();
    client.check_token_scopes(refresh(None, "openid")).await.expect("an answer");
    client.check_token_scopes(credentials(None, Some(""))).await.expect("an answer");
    let unknown = "scopeward_unknown_registrations_total{source=\"unspecified\"}";
    assert_eq!(service.metric(unknown).await, Some(0.0));
    client.check_token_scopes(credentials(None, None)).await.expect("an answer");
    assert_eq!(service.metric(unknown).await, Some(1.0));
    service.stop().await;
}

#[tokio::test]
async fn the_current_policy_decides_about_an_old_grant() {
    let service = Service::start(&one_audience(MEMBERS)).await;
    let ask = async |scope: Option<&str>| {
        let answer = service.scopes().check_token_scopes(refresh(scope, "openid read")).await;
        let answer = answer.expect("an answer").into_inner();
        (answer.policy.map(|policy| policy.generation).unwrap_or_default(), answer.scope)
    };
    assert_eq!(ask(None).await, (1, "openid read".to_owned()));
    // `read` goes, and `more` comes as baseline: an edit takes from a refresh and never gives.
    let edited = MEMBERS.replace(", read,", ",").replace("write],", "write, more],");
    service.write("mcp.yaml", &one_audience(&edited.replace("[offline_access]", "[more]")));
    service
        .status_when("the edit serves", |status| {
            status.active.as_ref().is_some_and(|active| active.generation == 2)
        })
        .await;
    assert_eq!(ask(None).await, (2, "openid".to_owned()));
    assert_eq!(ask(Some("openid read")).await, (2, "openid".to_owned()));
    assert_eq!(ask(Some("openid more")).await, (2, String::new()));
    service.stop().await;
}
