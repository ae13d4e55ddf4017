//! Registrations and logins: what is decided, what the upstream gets, what the client hears, and what is remembered.

use scopeward::audit::jsonl::JsonlTarget;
use scopeward::gateway::kind::UpstreamKind;
use scopeward::server::gateway::settings::{OnDeny, RequestObjects};

use super::upstream::{PUBLIC, Upstream};
use super::{Gateway, gateway_settings};
use crate::harness::within;

/// Registers a client with a scope: its id.
async fn client(gateway: &Gateway, scope: &str) -> String {
    let body = format!(
        r#"{{"scope": "{scope}", "redirect_uris": ["https://client.example/cb"], "client_name": "x"}}"#
    );
    let answer = gateway.register(&body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["client_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_registration_is_decided_passed_on_and_remembered() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream).await;
    let answer =
        gateway.register(r#"{"scope":"openid","redirect_uris":["https://client.example/cb"]}"#).await;
    assert_eq!(
        (answer.status, answer.json()["scope"].as_str()),
        (201, Some("openid offline_access")),
        "{answer:?}"
    );
    let seen = upstream.one();
    assert_eq!(
        seen.text(),
        r#"{"scope":"openid offline_access","redirect_uris":["https://client.example/cb"]}"#
    );
    assert_eq!(seen.header("accept-encoding"), Some("identity"));
    // What it registered it may ask for, and nothing else.
    let id = answer.json()["client_id"].as_str().unwrap().to_owned();
    let ask = |scope: &str| format!("/authorize?response_type=code&client_id={id}&scope={scope}&state=x%2by");
    assert_eq!(gateway.get(&ask("openid+offline_access")).await.status, 200);
    let seen = upstream.one().target;
    assert_eq!(
        seen,
        ask("openid%20offline_access"),
        "the rest byte for byte, and the scope as every server reads it"
    );
    let denied = gateway.get(&ask("openid+mcp:read")).await;
    assert_eq!(denied.status, 400);
    assert!(denied.text().contains("invalid_scope") && denied.text().contains("mcp:read"), "{denied:?}");
    assert_eq!(upstream.take().len(), 0, "it does not reach the upstream");
    // Nothing asked for: what it holds.
    assert_eq!(gateway.get(&format!("/authorize?client_id={id}")).await.status, 200);
    assert_eq!(upstream.one().target, format!("/authorize?scope=openid%20offline_access&client_id={id}"));
    // A client that nobody knows holds nothing.
    assert_eq!(gateway.get("/authorize?client_id=other&scope=openid").await.status, 400);
    // A restart forgets nothing.
    let folder = gateway.stop().await;
    let settings = gateway_settings(folder.path(), upstream.addr);
    let gateway = Gateway::start_in(folder, settings).await.unwrap();
    assert_eq!(gateway.get(&ask("openid")).await.status, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn a_registration_that_is_denied_or_malformed_never_arrives() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream).await;
    for (body, error) in [
        (r#"{"scope":"openid admin"}"#, "invalid_client_metadata"),
        (r#"{"Scope":"admin"}"#, "invalid_client_metadata"),
        (r#"{"scope":"openid","scope":"admin"}"#, "invalid_client_metadata"),
        (r#"{"scope":"openid"} {"scope":"admin"}"#, "invalid_client_metadata"),
        ("", "invalid_client_metadata"),
        ("[]", "invalid_client_metadata"),
    ] {
        let answer = gateway.register(body).await;
        assert_eq!(
            (answer.status, answer.json()["error"].as_str()),
            (400, Some(error)),
            "{body}: {answer:?}"
        );
    }
    let answer = gateway.form("/register", "scope=openid").await;
    assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some("invalid_client_metadata")));
    let large = format!(r#"{{"scope":"openid","x":"{}"}}"#, "y".repeat(256 * 1024));
    let answer = gateway.register(&large).await;
    assert_eq!(
        (answer.status, answer.json()["error"].as_str()),
        (400, Some("invalid_client_metadata")),
        "{answer:?}"
    );
    assert_eq!(upstream.take().len(), 0);
    gateway.stop().await;
}

/// Where a client is changed: behind the endpoint as with Ory Hydra, or with its id in the query as with Spring Authorization Server.
#[tokio::test]
async fn a_client_is_what_the_upstream_says_and_follows_its_updates() {
    for uri in [|id: &str| format!("/register/{id}"), |id: &str| format!("/register?client_id={id}")] {
        let upstream = Upstream::start().await;
        let gateway = Gateway::start(&upstream).await;
        let own = format!("{PUBLIC}{}", uri("c1"));
        // The upstream drops a scope.
        *upstream.state.registers.lock().unwrap() =
            vec![("scope", "openid".into()), ("registration_client_uri", own.clone().into())];
        let answer = gateway.register(r#"{"scope":"openid mcp:read"}"#).await.json();
        assert_eq!(
            (&answer["registration_client_uri"], &answer["registration_access_token"]),
            (&own.into(), &"token".into())
        );
        upstream.state.registers.lock().unwrap().clear();
        let ask = |scope: &str| format!("/authorize?client_id=c1&scope={scope}");
        assert_eq!(gateway.get(&ask("mcp:read")).await.status, 400, "it is not registered");
        // An update, then a read, are learned from.
        let put = |body: &str| super::post(&uri("c1"), "application/json", body).replace("POST", "PUT");
        let answer = gateway.send(put(r#"{"client_id":"c1","scope":"openid mcp:write"}"#)).await;
        assert_eq!(answer.json()["scope"], "openid mcp:write offline_access", "{answer:?}");
        upstream.take();
        assert_eq!(gateway.get(&ask("mcp:write")).await.status, 200);
        assert_eq!(upstream.one().path(), "/authorize");
        // Without a scope it keeps what it had.
        let answer = gateway.send(put(r#"{"client_id":"c1"}"#)).await;
        assert_eq!(answer.json()["scope"], "openid mcp:write offline_access", "{answer:?}");
        assert_eq!(upstream.one().target, uri("c1"));
        assert_eq!(gateway.send(put(r#"{"client_id":"another","scope":"openid"}"#)).await.status, 400);
        assert_eq!(gateway.send(put(r#"{"scope":"admin"}"#)).await.status, 400);
        let read = gateway.get(&uri("c1")).await;
        assert_eq!(read.json()["scope"], "openid mcp:read", "what the upstream has");
        assert_eq!(gateway.get(&ask("mcp:read")).await.status, 200);
        assert_eq!(gateway.get(&ask("mcp:write")).await.status, 400);
        let delete = format!("DELETE {} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", uri("c1"));
        assert_eq!(gateway.send(delete).await.status, 204);
        assert_eq!(gateway.get(&ask("openid")).await.status, 400, "it is forgotten");
        gateway.stop().await;
    }
}

/// A query that servers read differently, or that names another client than the path, changes none.
#[tokio::test]
async fn a_query_that_could_name_another_client_changes_none() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream).await;
    for target in [
        "/register?client_id=a&client_id=b",
        "/register?Client_id=a",
        "/register?client_id=a;b",
        "/register?client_id=",
        "/register?client_id=a&scope=admin",
        "/register?client%5fid=a",
        "/register/a?client_id=b",
        "/register/a?scope=admin",
    ] {
        let put = super::post(target, "application/json", r#"{"scope":"openid"}"#).replace("POST", "PUT");
        let answer = gateway.send(put).await;
        assert!(matches!(answer.status, 400 | 405), "{target}: {answer:?}");
    }
    // A registration names no client.
    let answer = gateway.post("/register?client_id=a", "application/json", r#"{"scope":"openid"}"#).await;
    assert_eq!(answer.status, 405);
    assert_eq!(upstream.take().len(), 0);
    gateway.stop().await;
}

#[tokio::test]
async fn an_answer_to_a_registration_that_cannot_be_used_is_a_server_error() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream).await;
    for members in [
        vec![("client_id", serde_json::Value::Null)],
        vec![("client_id", 7.into())],
        vec![("scope", 7.into())],
    ] {
        *upstream.state.registers.lock().unwrap() = members;
        let answer = gateway.register(r#"{"scope":"openid"}"#).await;
        assert_eq!(
            (answer.status, answer.json()["error"].as_str()),
            (502, Some("server_error")),
            "{answer:?}"
        );
    }
    // Without a scope the client has none; a URI that leads past the gateway is not handed out.
    *upstream.state.registers.lock().unwrap() = vec![
        ("scope", serde_json::Value::Null),
        ("registration_client_uri", format!("{PUBLIC}/elsewhere/1").into()),
    ];
    let answer = gateway.register(r#"{"scope":"openid"}"#).await;
    assert_eq!(answer.json()["scope"], "", "{answer:?}");
    assert!(answer.json().get("registration_client_uri").is_none(), "{answer:?}");
    assert!(answer.json().get("registration_access_token").is_none(), "{answer:?}");
    gateway.stop().await;
}

#[tokio::test]
async fn errors_of_the_gateway_can_be_read_where_answers_of_the_upstream_can() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream).await;
    let bad = r#"{"scope":"admin"}"#;
    let with_origin = |request: String| {
        request.replace("Host: auth.example.com", "Host: auth.example.com\r\nOrigin: https://page.example")
    };
    let before = gateway.send(with_origin(super::post("/register", "application/json", bad))).await;
    assert_eq!(before.header("access-control-allow-origin"), None, "nobody said that it may");
    let preflight =
        "OPTIONS /register HTTP/1.1\r\nHost: auth.example.com\r\nConnection: close\r\n\r\n".to_owned();
    assert_eq!(gateway.send(with_origin(preflight)).await.status, 200);
    let after = gateway.send(with_origin(super::post("/register", "application/json", bad))).await;
    assert_eq!(
        after.header("access-control-allow-origin").as_deref(),
        Some("https://page.example"),
        "{after:?}"
    );
    let other = super::post("/register", "application/json", bad)
        .replace("Host: auth.example.com", "Host: auth.example.com\r\nOrigin: https://other.example");
    assert_eq!(gateway.send(other).await.header("access-control-allow-origin"), None);
    gateway.stop().await;
}

#[tokio::test]
async fn a_pushed_request_is_decided_once_and_a_foreign_one_does_not_pass() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream).await;
    let id = client(&gateway, "openid mcp:read").await;
    upstream.take();
    let answer = gateway.form("/par", &format!("client_id={id}&scope=mcp:read+openid&redirect_uri=x")).await;
    assert_eq!(
        (answer.status, answer.json()["request_uri"].as_str()),
        (201, Some("urn:par:1")),
        "{answer:?}"
    );
    assert_eq!(upstream.one().text(), format!("client_id={id}&scope=mcp%3Aread%20openid&redirect_uri=x"));
    let by_uri = |id: &str, uri: &str| format!("/authorize?client_id={id}&request_uri={uri}");
    assert_eq!(gateway.get(&by_uri(&id, "urn:par:1")).await.status, 200);
    assert_eq!(upstream.one().target, by_uri(&id, "urn:par:1"));
    // What stands next to it is the same, whatever it was.
    assert_eq!(gateway.get(&(by_uri(&id, "urn:par:1") + "&scope=admin")).await.status, 200);
    assert_eq!(upstream.one().target, by_uri(&id, "urn:par:1") + "&scope=mcp%3Aread%20openid");
    for target in
        [by_uri(&id, "urn:par:2"), by_uri("other", "urn:par:1"), by_uri(&id, "https://evil.example/object")]
    {
        let answer = gateway.get(&target).await;
        assert_eq!(answer.status, 400, "{target}");
        assert!(answer.text().contains("request_uri_not_supported"), "{answer:?}");
    }
    let denied = gateway.form("/par", &format!("client_id={id}&scope=admin")).await;
    assert_eq!((denied.status, denied.json()["error"].as_str()), (400, Some("invalid_scope")));
    for (path, member) in [("/device", "device_code"), ("/bc", "auth_req_id")] {
        let answer = gateway.form(path, &format!("client_id={id}&scope=openid")).await;
        assert!(answer.json()[member].is_string(), "{answer:?}");
        let denied = gateway.form(path, &format!("client_id={id}&scope=root")).await;
        assert_eq!((denied.status, denied.json()["error"].as_str()), (400, Some("invalid_scope")));
    }
    upstream.take();
    // Servers differ in which of two headers says whose the request is.
    for path in ["/par", "/device", "/bc"] {
        let twice =
            "application/x-www-form-urlencoded\r\nAuthorization: Basic YTpi\r\nAuthorization: Basic Yzpi";
        let answer = gateway.post(path, twice, &format!("client_id={id}&scope=openid")).await;
        assert_eq!(
            (answer.status, answer.json()["error"].as_str()),
            (400, Some("invalid_request")),
            "{path}"
        );
    }
    assert!(upstream.take().is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn a_post_to_the_authorization_endpoint_is_decided_like_a_get() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream).await;
    let id = client(&gateway, "openid").await;
    upstream.take();
    assert_eq!(gateway.form("/authorize", &format!("a=%20&client_id={id}")).await.status, 200);
    assert_eq!(upstream.one().text(), format!("scope=openid%20offline_access&a=%20&client_id={id}"));
    assert_eq!(gateway.form("/authorize?scope=admin", &format!("client_id={id}")).await.status, 400);
    assert_eq!(gateway.form("/authorize", &format!("client_id={id}&scope=admin")).await.status, 400);
    let multipart = gateway.post("/authorize", "multipart/form-data; boundary=x", "--x").await;
    assert_eq!(multipart.status, 400);
    assert_eq!(upstream.take().len(), 0);
    gateway.stop().await;
}

#[tokio::test]
async fn a_denial_reaches_the_client_as_was_chosen() {
    let upstream = Upstream::start().await;
    let on_deny = async |on_deny| {
        Gateway::start_with(upstream.addr, |settings| settings.on_deny = Some(on_deny)).await.unwrap()
    };
    let gateway = on_deny(OnDeny::Redirect).await;
    let id = client(&gateway, "openid").await;
    let ask =
        |more: &str| format!("/authorize?response_type=code&client_id={id}&scope=admin&state=a%26b{more}");
    let registered = "&redirect_uri=https://client.example/cb";
    let answer = gateway.get(&ask(registered)).await;
    let location = answer.header("location").unwrap();
    assert_eq!(answer.status, 303, "{answer:?}");
    assert!(
        location.starts_with("https://client.example/cb?error=invalid_scope&error_description="),
        "{location}"
    );
    assert!(location.ends_with("&state=a%26b&iss=http%3A%2F%2Fauth.example.com"), "{location}");
    for more in [
        "",
        "&redirect_uri=https://client.example/cb/",
        "&redirect_uri=https://evil.example/",
        "&redirect_uri=https://client.example/cb&response_mode=form_post",
    ] {
        let answer = gateway.get(&ask(more)).await;
        assert_eq!((answer.status, answer.header("location")), (400, None), "{more}");
    }
    gateway.stop().await;

    let gateway = on_deny(OnDeny::Upstream).await;
    let id = client(&gateway, "openid").await;
    upstream.take();
    let answer = gateway.get(&format!("/authorize?client_id={id}&scope=openid+admin&state=s")).await;
    assert_eq!(answer.status, 200, "what the upstream says");
    assert_eq!(upstream.one().target, format!("/authorize?client_id={id}&scope=scopeward-refused&state=s"));
    gateway.stop().await;

    let gateway = on_deny(OnDeny::Page).await;
    let page = gateway.get("/authorize?client_id=%3Cscript%3E&scope=admin").await;
    assert_eq!(page.header("content-type").as_deref(), Some("text/html; charset=utf-8"));
    assert!(!page.text().contains("<script>"), "{page:?}");
    let machine = "GET /authorize?client_id=x&scope=admin HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\nConnection: close\r\n\r\n";
    assert_eq!(gateway.send(machine).await.json()["error"], "invalid_scope");
    gateway.stop().await;
}

/// A request object that is not signed.
fn object(payload: &str) -> String {
    use base64::Engine;
    let part = |text: &str| base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.", part(r#"{"alg":"none"}"#), part(payload))
}

#[tokio::test]
async fn a_request_object_is_refused_or_must_be_what_is_granted() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream).await;
    let id = client(&gateway, "openid").await;
    let ask = |id: &str, payload: &str| format!("/authorize?client_id={id}&request={}", object(payload));
    let refused = gateway.get(&ask(&id, r#"{"scope":"openid"}"#)).await;
    assert!(refused.status == 400 && refused.text().contains("request_not_supported"), "{refused:?}");
    gateway.stop().await;

    let gateway =
        Gateway::start_with(upstream.addr, |settings| settings.request_objects = RequestObjects::Match).await;
    let gateway = gateway.unwrap();
    let id = client(&gateway, "openid").await;
    upstream.take();
    assert_eq!(gateway.get(&ask(&id, r#"{"scope":"openid"}"#)).await.status, 200);
    let seen = upstream.one().target;
    assert!(seen.starts_with("/authorize?scope=openid&"), "{seen}");
    for payload in [
        r#"{"scope":"openid admin"}"#,
        r#"{"scope":"admin"}"#,
        r#"{}"#,
        r#"{"scope":"openid","client_id":"x"}"#,
    ] {
        assert_eq!(gateway.get(&ask(&id, payload)).await.status, 400, "{payload}");
    }
    let both = gateway.get(&(ask(&id, r#"{"scope":"openid admin"}"#) + "&scope=openid")).await;
    assert_eq!(both.status, 400, "the object counts");
    assert_eq!(upstream.take().len(), 0);
    gateway.stop().await;
}

#[tokio::test]
async fn hydra_comes_back_with_a_verifier_and_the_scope_of_the_start() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start_with(upstream.addr, |settings| {
        settings.kind = UpstreamKind::Hydra;
    })
    .await;
    // The preset has its endpoints next to those of the document.
    let gateway = gateway.unwrap();
    let answer = gateway.post("/oauth2/register", "application/json", r#"{"scope":"openid"}"#).await;
    assert_eq!(answer.status, 404, "the upstream of this test has none there: {answer:?}");
    let id = client(&gateway, "openid").await;
    upstream.take();
    let ask = |more: &str| format!("/oauth2/auth?client_id={id}&{more}");
    let back = ask("scope=openid&login_verifier=v");
    gateway.get(&back).await;
    assert_eq!(upstream.one().target, back);
    for more in ["scope=openid+admin&login_verifier=v", "scope=mcp:read&consent_verifier=v"] {
        gateway.get(&ask(more)).await;
        for seen in upstream.take() {
            assert!(seen.target.contains("scope=scopeward-refused"), "{seen:?}");
        }
    }
    gateway.stop().await;
}

/// A login with Hydra is one decision, however often its requests come back, as long as nothing changed that it depends on.
#[tokio::test]
async fn a_login_that_hydra_continues_is_decided_and_recorded_once() {
    let upstream = Upstream::start().await;
    let folder = super::folder();
    let lines = folder.path().join("audit.jsonl");
    let mut settings = gateway_settings(folder.path(), upstream.addr);
    settings.gateway.as_mut().unwrap().kind = UpstreamKind::Hydra;
    settings.audit.jsonl = Some(JsonlTarget::File(lines.clone()));
    let gateway = Gateway::start_in(folder, settings).await.unwrap();
    let id = client(&gateway, "openid mcp:read").await;
    upstream.take();
    let decided = async || -> u64 {
        let metrics = gateway.admin("/metrics").await.text();
        let decisions = metrics.lines().filter(|line| {
            line.starts_with("scopeward_decisions_total{") && line.contains("CheckAuthorizeScopes")
        });
        decisions.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
    };
    let ask = |scope: &str, more: &str| {
        format!("/oauth2/auth?scope={scope}&response_type=code&client_id={id}&state=s1{more}")
    };
    let (login, consent) = ("&login_verifier=v1", "&consent_verifier=v2");
    gateway.get(&ask("openid%20mcp:read", "")).await;
    let begun = upstream.one().target;
    assert!(begun.contains("scope=openid%20mcp"), "{begun}");
    assert_eq!(decided().await, 1);
    // In another order, as Hydra writes it, and again.
    for more in [login, consent, consent] {
        let back = ask("mcp:read+openid", more);
        gateway.get(&back).await;
        assert_eq!(upstream.one().target, back);
    }
    assert_eq!(decided().await, 1, "each came back with what was decided");
    // Whatever is not that login is asked for itself.
    for other in [
        ask("openid", login),
        ask("openid%20mcp:read", &format!("{login}&resource=https://mcp.example.com")),
        ask("openid%20mcp:read", login).replace("s1", "s2"),
    ] {
        let before = decided().await;
        gateway.get(&other).await;
        assert_eq!(decided().await, before + 1, "{other}");
    }
    let before = decided().await;
    for odd in ["&login_verifier=", "&login_verifier=v&consent_verifier=v"] {
        gateway.get(&ask("openid%20mcp:read", odd)).await;
    }
    assert_eq!(decided().await, before + 2, "these begin a login");
    upstream.take();
    // A policy that forbids it holds for a login that has begun.
    let policies = gateway.folder.path().join("policies/mcp.yaml");
    let stricter =
        super::POLICY.replace("forbiddenScopes: [admin]", "forbiddenScopes: [admin, \"mcp:read\"]");
    std::fs::write(policies, stricter).unwrap();
    within("the policy is served", async {
        while gateway.admin("/status.json").await.json()["active"]["generation"] != "2" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    gateway.get(&ask("openid%20mcp:read", login)).await;
    assert!(upstream.one().target.contains("scope=scopeward-refused"));
    let denials = || {
        let text = std::fs::read_to_string(&lines).unwrap();
        text.lines().filter(|line| line.contains("AUDIT_EVENT_KIND_DENIAL")).count()
    };
    within("the denial is recorded", async {
        while denials() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let _folder = gateway.stop().await;
    assert_eq!(denials(), 1);
}

#[tokio::test]
async fn clients_that_never_registered_are_told_apart() {
    const RULES: &str = "\
audiences:
  https://mcp.example.com:
    scopesSupported: [openid, \"mcp:read\"]
    defaultClientScopes: [openid]
    authorization:
      unknownRegistration: {cimd: supported, static: none}
";
    let upstream = Upstream::start().await;
    let folder = super::folder();
    std::fs::write(folder.path().join("policies/mcp.yaml"), RULES).unwrap();
    let settings = gateway_settings(folder.path(), upstream.addr);
    let gateway = Gateway::start_in(folder, settings).await.unwrap();
    let ask = |id: &str| format!("/authorize?client_id={id}&scope=mcp:read&resource=https://mcp.example.com");
    assert_eq!(gateway.get(&ask("https://app.example/client.json")).await.status, 200);
    assert_eq!(upstream.one().target, ask("https://app.example/client.json"));
    assert_eq!(gateway.get(&ask("static")).await.status, 400);
    let unknown =
        gateway.get("/authorize?client_id=https://app.example/c&scope=openid&resource=https://other").await;
    assert!(unknown.status == 400 && unknown.text().contains("invalid_target"), "{unknown:?}");
    gateway.stop().await;
}
