//! `DescribeAudience`: one, all in pages, and what is wrong with a question.

use scopeward::rpc::v1;
use tonic::Code;

use crate::harness::{AUDIENCE, Wire, info, one_audience, reason};
use crate::service::Service;

fn ask(audience: &str, page_size: i32, page_token: &str) -> v1::DescribeAudienceRequest {
    v1::DescribeAudienceRequest {
        audience: audience.to_owned(),
        page_size,
        page_token: page_token.to_owned(),
    }
}

fn policy_of(names: &[&str]) -> String {
    let audiences =
        names.iter().map(|name| format!("  {name}: {{scopesSupported: [a]}}\n")).collect::<String>();
    format!("audiences:\n{audiences}")
}

#[tokio::test]
async fn one_audience_is_described_without_forbidden_scopes() {
    let members =
        "scopesSupported: [b, openid, a, admin], baselineClientScopes: [a], forbiddenScopes: [admin]";
    let service = Service::start(&one_audience(members)).await;
    let mut client = service.scopes();
    // Found by any spelling of the same audience, told in the policy's.
    let answer =
        client.describe_audience(ask("HTTPS://mcp.example.com:443/", 0, "")).await.expect("an answer");
    let answer = answer.into_inner();
    assert_eq!(
        answer.audiences,
        [v1::AudienceDescription {
            audience: AUDIENCE.to_owned(),
            scopes_supported: ["b", "openid", "a"].map(str::to_owned).to_vec(),
            baseline_client_scopes: vec!["a".to_owned()],
            default_client_scopes: vec!["openid".to_owned()],
            scope_matching: "exact".to_owned(),
            advertised_scopes: ["b", "openid", "a"].map(str::to_owned).to_vec(),
            ..Default::default()
        }]
    );
    assert_eq!(answer.next_page_token, "");
    assert_eq!(answer.policy.map(|policy| policy.generation), Some(1));

    for unknown in ["https://other.example.com", "https://mcp.example.com#x", "\u{202e}\n"] {
        let error = client.describe_audience(ask(unknown, 0, "")).await.expect_err("it is not declared");
        assert_eq!((error.code(), reason(&error).as_str()), (Code::NotFound, "AUDIENCE_NOT_FOUND"));
        assert!(error.message().is_ascii() && !error.message().contains('\n'), "{error:?}");
    }
    let long = format!("https://{}", "a".repeat(2041));
    let error = client.describe_audience(ask(&long, 0, "")).await.expect_err("it is too long");
    assert_eq!((error.code(), info(&error, "field").as_str()), (Code::InvalidArgument, "audience"));
    let error = client.describe_audience(ask(&long[1..], 0, "")).await.expect_err("it is not declared");
    assert_eq!(error.code(), Code::NotFound);
    service.stop().await;
}

#[tokio::test]
async fn pages_go_on_after_the_last_audience_when_the_policy_changes() {
    let wire = Wire::start(None, |_| {}).await;
    wire.serve(&policy_of(&["e", "a", "c", "d", "b"]));
    let mut client = wire.client().await;
    let mut page = async |size, token: &str| {
        let answer = client.describe_audience(ask("", size, token)).await.expect("an answer").into_inner();
        let names = answer.audiences.into_iter().map(|one| one.audience).collect::<Vec<_>>();
        (names.join(" "), answer.next_page_token)
    };
    let (names, token) = page(2, "").await;
    assert_eq!(names, "a b");
    // The last audience that was sent is gone, and others have come on both sides of it.
    wire.serve(&policy_of(&["a", "aa", "bb", "c", "e"]));
    let (names, token) = page(2, &token).await;
    assert_eq!(names, "bb c");
    let (names, token) = page(2, &token).await;
    assert_eq!((names.as_str(), token.as_str()), ("e", ""));
    assert_eq!(page(0, "").await, ("a aa bb c e".to_owned(), String::new()));
    assert_eq!(page(5, "").await, ("a aa bb c e".to_owned(), String::new()));
    assert_eq!(page(i32::MAX, "").await, ("a aa bb c e".to_owned(), String::new()));
    wire.stop().await;
}

#[tokio::test]
async fn pages_have_a_hundred_audiences_unless_asked_and_never_over_a_thousand() {
    let names = (0..1001).map(|number| format!("n{number:04}")).collect::<Vec<_>>();
    let wire = Wire::start(None, |_| {}).await;
    wire.serve(&policy_of(&names.iter().map(String::as_str).collect::<Vec<_>>()));
    let mut client = wire.client().await;
    for (size, expected) in [(0, 100), (1000, 1000), (1001, 1000)] {
        let answer = client.describe_audience(ask("", size, "")).await.expect("an answer").into_inner();
        assert_eq!((answer.audiences.len(), answer.next_page_token.is_empty()), (expected, false), "{size}");
    }
    wire.stop().await;
}

#[tokio::test]
async fn what_is_advertised_leaves_out_what_clients_should_not_ask_for() {
    let members = "scopeMatching: wildcard, scopesSupported: [a, \"mcp.*\", admin, pay, root], privilegedScopes: [admin], \
        forbiddenScopes: [root], authorization: {stepUpScopes: [pay]}, scopeDescriptions: {a: Read, pay: Pay}, \
        description: The example, aliases: [api, \"https://mcp.example.com/x\"]";
    let service = Service::start(&one_audience(members)).await;
    let answer = service.scopes().describe_audience(ask("api", 0, "")).await.expect("an answer").into_inner();
    let owned = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let texts = [("a", "Read"), ("pay", "Pay")].map(|(scope, text)| (scope.to_owned(), text.to_owned()));
    assert_eq!(
        answer.audiences,
        [v1::AudienceDescription {
            audience: AUDIENCE.to_owned(),
            scopes_supported: owned(&["a", "mcp.*", "admin", "pay"]),
            advertised_scopes: owned(&["a"]),
            privileged_scopes: owned(&["admin"]),
            step_up_scopes: owned(&["pay"]),
            scope_matching: "wildcard".to_owned(),
            scope_descriptions: texts.into(),
            description: "The example".to_owned(),
            aliases: owned(&["api", "https://mcp.example.com/x"]),
            ..Default::default()
        }]
    );
    service.stop().await;
}

#[tokio::test]
async fn a_bad_page_is_an_invalid_argument() {
    let service = Service::start(&one_audience("scopesSupported: [a]")).await;
    let mut client = service.scopes();
    let error = client.describe_audience(ask("", -1, "")).await.expect_err("the size is negative");
    assert_eq!((error.code(), reason(&error).as_str()), (Code::InvalidArgument, "PAGE_SIZE_INVALID"));
    assert_eq!((info(&error, "field"), info(&error, "actual")), ("page_size".to_owned(), "-1".to_owned()));
    for token in ["1", "100", "next", "https://mcp.example.com", "\u{0}"] {
        let error = client.describe_audience(ask("", 0, token)).await.expect_err("the token is not ours");
        assert_eq!((error.code(), reason(&error).as_str()), (Code::InvalidArgument, "PAGE_TOKEN_INVALID"));
    }
    service.stop().await;
}

#[tokio::test]
async fn description_that_clients_would_refuse_is_an_error() {
    let scope = |number: usize| format!("s{number:0499}");
    // Each scope is in `scopes_supported` and in `advertised_scopes`.
    let policy = |count| {
        let scopes: Vec<_> = (0..count).map(scope).collect();
        one_audience(&format!("scopesSupported: [{}]", scopes.join(", ")))
    };
    let wire = Wire::start(None, |_| {}).await;
    let mut client = wire.client().await;
    wire.serve(&policy(4_000));
    for audience in [AUDIENCE, ""] {
        client.describe_audience(ask(audience, 0, "")).await.expect("4 MB fit");
    }
    wire.serve(&policy(4_300));
    for audience in [AUDIENCE, ""] {
        let error = client.describe_audience(ask(audience, 0, "")).await.expect_err("too large");
        assert_eq!(
            (error.code(), reason(&error).as_str()),
            (Code::ResourceExhausted, "ANSWER_TOO_LARGE"),
            "{audience}"
        );
    }
    wire.stop().await;
}
