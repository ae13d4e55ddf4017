//! `serve --log-decisions`: which decisions have a line, what stands in it, and that nobody waits for it.

use std::time::Instant;

use scopeward::rpc::v1;
use scopeward::rpc::v1::scope_policy_service_client::ScopePolicyServiceClient;
use tonic::Request;
use tonic::metadata::MetadataValue;

use super::serve::{Piped, place};
use super::*;
use crate::service::DEADLINE;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn check(scope: Option<&str>, registered: &str) -> v1::CheckAuthorizeScopesRequest {
    v1::CheckAuthorizeScopesRequest {
        audiences: vec![MCP.to_owned()],
        scope: scope.map(str::to_owned),
        registered_scope: Some(registered.to_owned()),
        client: Some(v1::Client { client_id: "client-7".to_owned(), ..Default::default() }),
        correlation_id: "login-3".to_owned(),
    }
}

/// Asks with a token and a trace, as callers do.
fn ask<T>(request: T) -> Request<T> {
    let mut request = Request::new(request);
    let headers = [
        ("authorization", "Bearer secret-token".to_owned()),
        ("traceparent", format!("00-{TRACE_ID}-00f067aa0ba902b7-01")),
    ];
    for (name, value) in headers {
        request.metadata_mut().insert(name, MetadataValue::try_from(value).unwrap());
    }
    request
}

/// An allowed question, a denied one, a batch of both and a registration.
fn ask_all(server: &Piped) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = ScopePolicyServiceClient::connect(server.url.clone()).await.unwrap();
        let (allowed, denied) =
            (check(Some("openid"), "openid"), check(Some("openid no mcp:read"), "openid"));
        client.check_authorize_scopes(ask(allowed.clone())).await.unwrap();
        client.check_authorize_scopes(ask(denied.clone())).await.unwrap();
        let batch = v1::BatchCheckAuthorizeScopesRequest { checks: vec![allowed, denied, check(None, "")] };
        client.batch_check_authorize_scopes(ask(batch)).await.unwrap();
        let expand = v1::ExpandRegistrationScopesRequest {
            audiences: vec![MCP.to_owned()],
            scope: Some("openid".to_owned()),
            ..Default::default()
        };
        client.expand_registration_scopes(ask(expand)).await.unwrap();
        let refresh = v1::CheckTokenScopesRequest {
            audiences: vec![MCP.to_owned()],
            scope: Some("openid no".to_owned()),
            granted_scope: Some("openid".to_owned()),
            grant: v1::TokenGrant::Refresh.into(),
            ..Default::default()
        };
        client.check_token_scopes(ask(refresh)).await.unwrap();
    });
}

/// The lines of decisions of a server that was started with `flags`.
fn lines(flags: &[&str]) -> Vec<Value> {
    let place = place();
    let mut server = Piped::start(&place, &[flags, &["--log-format", "json"]].concat());
    ask_all(&server);
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    let errors = server.errors();
    assert!(!errors.contains("secret-token"), "{errors}");
    let lines = errors.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["fields"].clone());
    lines.filter(|fields| fields["message"] == "decided").collect()
}

#[test]
fn lines_are_of_none_of_denials_or_of_all() {
    assert_eq!(lines(&[]), [Value::Null; 0]);
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
    let short = |lines: &[Value]| {
        let short = lines.iter().map(|line| {
            let fields = ["method", "decision", "reason", "effective", "added", "refused"];
            fields.map(|field| text(line, field)).join("|")
        });
        short.collect::<Vec<_>>()
    };
    let denied = lines(&["--log-decisions", "denied"]);
    let refused = "no=UNSUPPORTED mcp:read=UNREGISTERED";
    let [check, batch] = ["CheckAuthorizeScopes", "BatchCheckAuthorizeScopes"]
        .map(|method| format!("{method}|DENY|UNSUPPORTED|||{refused}"));
    let token = "CheckTokenScopes|DENY|EXCEEDS_GRANT|||no=EXCEEDS_GRANT";
    assert_eq!(short(&denied), [&*check, &batch, token]);
    assert_eq!((text(&denied[2], "grant"), denied[0].get("grant")), ("REFRESH".to_owned(), None));
    let line = &denied[0];
    assert_eq!(
        ["audiences", "client_id", "asked", "correlation_id", "trace_id"].map(|field| text(line, field)),
        [MCP, "client-7", "openid no mcp:read", "login-3", TRACE_ID]
    );
    assert_eq!(line["generation"], 1);
    assert_eq!(text(line, "decision_id").len(), 36);
    assert_eq!(line.get("caller"), None, "there is no access file");
    let all = lines(&["--log-decisions", "all"]);
    assert_eq!(
        short(&all),
        [
            "CheckAuthorizeScopes|ALLOW||openid||",
            &check,
            "BatchCheckAuthorizeScopes|ALLOW||openid||",
            &batch,
            "BatchCheckAuthorizeScopes|ALLOW||offline_access|offline_access=BASELINE|",
            "ExpandRegistrationScopes|ALLOW||openid offline_access|offline_access=BASELINE|",
            token,
        ]
    );
    assert_eq!(all[4].get("asked"), None, "it was omitted");
}

#[test]
fn the_caller_is_named() {
    let place = place();
    let access = format!(
        "callers: [{{name: my server, match: [{{tokenSha256: {}}}], may: [decide]}}]",
        crate::access::hash("secret-token")
    );
    place.write("access.yaml", access);
    let flags = ["--access-file", "access.yaml", "--log-decisions", "denied", "--log-format", "json"];
    let mut server = Piped::start(&place, &flags);
    ask_all(&server);
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    let errors = server.errors();
    assert_eq!(errors.matches(r#""caller":"my server""#).count(), 3, "{errors}");
    assert!(!errors.contains("secret-token"), "{errors}");
}

#[test]
fn hostile_text_is_escaped_and_cut() {
    let place = place();
    let mut server = Piped::start(&place, &["--log-decisions", "all"]);
    let hostile = "\u{1b}[31m\r\n\u{202e}\u{7f}\u{85}\" decided decision=\"ALLOW\" ".repeat(40);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = ScopePolicyServiceClient::connect(server.url.clone()).await.unwrap();
        let many: Vec<String> = (0..256).map(|number| format!("{}{number}", "s".repeat(500))).collect();
        for (audiences, scope) in [
            (vec![hostile.clone(); 3], hostile.clone()),
            (vec![MCP.to_owned()], hostile.clone()),
            (vec![MCP.to_owned()], many.join(" ")),
        ] {
            let request = v1::CheckAuthorizeScopesRequest {
                audiences: audiences.into_iter().map(|one| one.chars().take(500).collect()).collect(),
                scope: Some(scope),
                registered_scope: Some(hostile.clone()),
                client: Some(v1::Client {
                    client_id: hostile.clone(),
                    client_name: hostile.clone(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            client.check_authorize_scopes(request).await.unwrap();
        }
    });
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    let errors = server.errors();
    let decided: Vec<&str> = errors.lines().filter(|line| line.contains(" decided ")).collect();
    assert_eq!(decided.len(), 3, "{errors}");
    for line in decided {
        assert!(line.len() < 16 * 1024, "{} bytes", line.len());
        assert!(!line.contains(['\u{1b}', '\u{202e}', '\u{7f}', '\u{85}', '\r']), "{line:?}");
        assert!(line.contains("decision=\"DENY\""), "{line}");
    }
    assert!(errors.contains(" and 2"), "what does not fit is counted: {errors}");
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_decision() {
    let place = place();
    let mut server = Piped::start(&place, &["--log-decisions", "all"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let checks = vec![check(Some(&"s".repeat(500)), "openid"); 100];
    let ask = || {
        runtime.block_on(async {
            let mut client = ScopePolicyServiceClient::connect(server.url.clone()).await.unwrap();
            for _ in 0..5 {
                let batch = v1::BatchCheckAuthorizeScopesRequest { checks: checks.clone() };
                let answer = client.batch_check_authorize_scopes(batch).await.unwrap();
                assert_eq!(answer.into_inner().results.len(), 100);
            }
        });
    };
    let deadline = Instant::now() + DEADLINE;
    while server.metric("scopeward_log_lines_dropped_total") < 1.0 {
        assert!(Instant::now() < deadline, "the log never fills up");
        ask();
    }
    ask();
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
}
