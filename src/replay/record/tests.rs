//! What the service prints is read back.

use super::*;
use crate::decision::TokenGrant;
use crate::proto::{json, v1};

fn event() -> v1::AuditEvent {
    v1::AuditEvent {
        log_id: "7f3c".into(),
        sequence: 18_000_000_000_000_000_000,
        kind: v1::AuditEventKind::Denial.into(),
        method: "/scopeward.v1.ScopePolicyService/CheckAuthorizeScopes".into(),
        audiences: vec!["https://mcp.example.com".into()],
        asked_audiences: vec!["https://MCP.example.com".into()],
        client: Some(v1::Client {
            client_id: "https://app.example.com/c".into(),
            source: v1::ClientSource::Cimd.into(),
            client_name: "App".into(),
            software_id: "s".into(),
            software_version: "1".into(),
            redirect_uris: vec!["http://localhost/cb".into()],
            grant_types: vec!["refresh_token".into()],
            application_type: "native".into(),
        }),
        requested_scope: Some(" openid  admin".into()),
        registered_scope: Some(String::new()),
        client_truncated: true,
        ..v1::AuditEvent::default()
    }
}

/// What the service prints is read back member for member.
#[test]
fn events_come_back_from_the_json_of_the_service() {
    let expected = RecordedCall {
        sequence: 18_000_000_000_000_000_000,
        call: Call {
            kind: RequestKind::Authorize,
            grant: None,
            granted_scope: None,
            audiences: vec!["https://MCP.example.com".into()],
            scope: Some(" openid  admin".into()),
            registered_scope: Some(String::new()),
            client: v1::Client {
                client_id: "https://app.example.com/c".into(),
                source: v1::ClientSource::Cimd.into(),
                client_name: "App".into(),
                software_id: "s".into(),
                software_version: "1".into(),
                redirect_uris: vec!["http://localhost/cb".into()],
                grant_types: vec!["refresh_token".into()],
                application_type: "native".into(),
            },
        },
        allowed: false,
        scope: String::new(),
        client_truncated: true,
        audiences_assumed: false,
        client_too_large: false,
    };
    let text = json::to_string(&event()).unwrap();
    assert_eq!(Line::read(&text).unwrap(), Line::Call(Box::new(expected.clone())));
    let streamed = v1::StreamAuditEventsResponse {
        message: Some(v1::stream_audit_events_response::Message::Event(event())),
    };
    let text = json::to_string(&streamed).unwrap();
    assert_eq!(Line::read(&text).unwrap(), Line::Call(Box::new(expected)));

    let token = v1::AuditEvent {
        method: "/scopeward.v1.ScopePolicyService/BatchCheckTokenScopes".into(),
        granted_scope: Some("openid".into()),
        grant: v1::TokenGrant::TokenExchange.into(),
        ..event()
    };
    let Line::Call(recorded) = Line::read(&json::to_string(&token).unwrap()).unwrap() else {
        panic!("a call")
    };
    assert_eq!(
        (recorded.call.kind, recorded.call.grant),
        (RequestKind::Token, Some(TokenGrant::TokenExchange))
    );
    assert_eq!(recorded.call.granted_scope.as_deref(), Some("openid"));

    let unset = v1::AuditEvent {
        kind: v1::AuditEventKind::Expansion.into(),
        method: "/scopeward.v1.ScopePolicyService/ExpandRegistrationScopes".into(),
        requested_scope: None,
        registered_scope: None,
        client: None,
        effective_scope: "openid".into(),
        client_truncated: false,
        ..event()
    };
    let Line::Call(recorded) = Line::read(&json::to_string(&unset).unwrap()).unwrap() else {
        panic!("a call")
    };
    assert_eq!((recorded.call.scope, recorded.call.registered_scope), (None, None));
    assert_eq!((recorded.allowed, &*recorded.scope), (true, "openid"));
    assert_eq!(recorded.call.client, v1::Client::default());
}

#[test]
fn both_spellings_of_names_are_read() {
    let text = r#"{"kind":"AUDIT_EVENT_KIND_DENIAL","method":"x/ExpandRegistrationScopes","requested_scope":"a","sequence":7,"client":{"client_name":"n"}}"#;
    let Line::Call(recorded) = Line::read(text).unwrap() else { panic!("a call") };
    assert_eq!((recorded.sequence, recorded.call.scope.as_deref()), (7, Some("a")));
    assert_eq!(recorded.call.client.client_name, "n");
}

#[test]
fn what_is_no_record_says_why() {
    #[track_caller]
    fn check(line: &str, expected: &str) {
        let error = Line::read(line).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    check("{", "not JSON: ");
    check("[]", "not an audit record: not an object");
    check("{}", "not an audit record: no known `kind`");
    check(r#"{"kind":"X"}"#, "not an audit record: no known `kind`");
    check(
        r#"{"kind":"AUDIT_EVENT_KIND_DENIAL","method":"DescribeAudience"}"#,
        "not an audit record: no known `method`",
    );
    let with = |rest: &str| {
        format!(r#"{{"kind":"AUDIT_EVENT_KIND_DENIAL","method":"ExpandRegistrationScopes",{rest}}}"#)
    };
    check(r#"{"kind":true}"#, "not an audit record: `kind`: ");
    check(r#"{"gap":{"count":-1}}"#, "not an audit record: `count`: ");
    check(&with(r#""audiences":"api""#), "not an audit record: `audiences`: ");
    check(&with(r#""client":[]"#), "not an audit record: `client`: ");
    check(&with(r#""clientTruncated":"no""#), "not an audit record: `clientTruncated`: ");
    assert_eq!(Line::read("  ").unwrap(), Line::Other);
}

/// Records from before `asked_audiences` say only which audiences decided.
#[test]
fn what_was_asked_is_replayed_where_it_is_known() {
    let audiences = |asked: &str| {
        let line = format!(
            r#"{{"kind":"AUDIT_EVENT_KIND_DENIAL","method":"x/CheckAuthorizeScopes","audiences":["a"]{asked}}}"#
        );
        let Line::Call(recorded) = Line::read(&line).unwrap() else { panic!("a call") };
        recorded.call.audiences
    };
    assert_eq!(audiences(""), ["a"]);
    assert!(audiences(r#","askedAudiences":[]"#).is_empty());
    assert_eq!(audiences(r#","askedAudiences":["A","a"]"#), ["A", "a"]);
    let other = r#"{"kind":"AUDIT_EVENT_KIND_LOG_OPENED","sequence":"1"}"#;
    assert_eq!(Line::read(other).unwrap(), Line::Other);
}
