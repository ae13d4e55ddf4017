//! An upstream that is down, slow, lies or changes, and a gateway that is killed: never open, and right again by itself.

use std::time::Duration;

use scopeward::server::app::AppError;

use super::upstream::{PUBLIC, Upstream, discovery};
use super::{Answer, Binary, Gateway, post, raw};
use crate::harness::within;

/// Waits until `/readyz` says so.
async fn ready_is(gateway: &Gateway, wanted: bool) {
    within("readiness", async {
        while (gateway.admin("/readyz").await.status == 200) != wanted {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Waits until a condition has a reason.
async fn reason_is(gateway: &Gateway, kind: &str, wanted: &str) {
    within(wanted, async {
        loop {
            let lines = gateway.admin("/readyz?verbose").await.text();
            let found = lines.lines().find(|line| line.starts_with(&format!("{kind}=")));
            if found.is_some_and(|line| line.contains(&format!(" {wanted}:"))) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_is_down_at_the_start_is_waited_for() {
    let upstream = Upstream::start().await;
    let (addr, state) = upstream.stop().await;
    let gateway = Gateway::start_with(addr, |_| {}).await.unwrap();
    ready_is(&gateway, false).await;
    for target in ["/authorize?client_id=x&scope=openid", "/anything", "/.well-known/openid-configuration"] {
        let answer = gateway.get(target).await;
        assert_eq!((answer.status, answer.header("retry-after").as_deref()), (503, Some("1")), "{answer:?}");
    }
    let upstream = Upstream::start_at(addr, state).await;
    ready_is(&gateway, true).await;
    assert_eq!(gateway.get("/echo").await.status, 200);
    upstream.take();
    gateway.stop().await;
}

#[tokio::test]
async fn an_upstream_that_goes_down_leaves_the_last_good_document() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream).await;
    let document = gateway.get("/.well-known/openid-configuration").await;
    let scopes = ["openid", "offline_access", "mcp:read", "mcp:write"];
    assert_eq!(document.json()["scopes_supported"], serde_json::json!(scopes), "what may be asked for");
    assert_eq!(document.header("access-control-allow-origin").as_deref(), Some("*"));
    for path in ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"] {
        assert_eq!(gateway.get(path).await.json(), document.json(), "{path}");
    }
    let (addr, state) = upstream.stop().await;
    reason_is(&gateway, "UpstreamAccepted", "UpstreamUnreachable").await;
    ready_is(&gateway, true).await;
    assert_eq!(gateway.get("/.well-known/openid-configuration").await.json(), document.json());
    assert_eq!(gateway.get("/echo").await.status, 502);
    assert_eq!(gateway.register(r#"{"scope":"openid"}"#).await.status, 502);
    let _upstream = Upstream::start_at(addr, state).await;
    reason_is(&gateway, "UpstreamAccepted", "UpstreamRead").await;
    assert_eq!(gateway.get("/echo").await.status, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn an_upstream_of_another_issuer_stops_the_start_and_later_changes_nothing() {
    let upstream = Upstream::start().await;
    *upstream.state.discovery.lock().unwrap() = Some(discovery("http://up:1").to_string());
    let Err(error) = Gateway::start_with(upstream.addr, |_| {}).await else { panic!("it started") };
    assert!(matches!(error, AppError::Gateway(_)), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("its issuer is `http://up:1`, but clients will know it as `http://auth.example.com`"),
        "{text}"
    );
    *upstream.state.discovery.lock().unwrap() = None;
    let gateway = Gateway::start(&upstream).await;
    for (document, reason) in [
        (discovery("http://evil.example").to_string(), "IssuerMismatch"),
        ("{".to_owned(), "DiscoveryInvalid"),
        (discovery(PUBLIC).to_string().replace("/register", "/../register"), "DiscoveryInvalid"),
    ] {
        *upstream.state.discovery.lock().unwrap() = Some(document);
        reason_is(&gateway, "UpstreamAccepted", reason).await;
        let served = gateway.get("/.well-known/openid-configuration").await.json();
        assert_eq!(
            (&served["issuer"], &served["registration_endpoint"]),
            (&PUBLIC.into(), &format!("{PUBLIC}/register").into())
        );
        assert_eq!(gateway.get("/authorize?client_id=x&scope=admin").await.status, 400);
    }
    // Another endpoint is followed, and the one before stays decided.
    let moved = discovery(PUBLIC).to_string().replace("/authorize", "/authorize2");
    *upstream.state.discovery.lock().unwrap() = Some(moved);
    reason_is(&gateway, "UpstreamAccepted", "UpstreamRead").await;
    for path in ["/authorize", "/authorize2"] {
        assert_eq!(gateway.get(&format!("{path}?client_id=x&scope=admin")).await.status, 400, "{path}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_rewritten_document_has_the_public_url() {
    let upstream = Upstream::start().await;
    let own = discovery("http://up:1").to_string().replace(PUBLIC, "http://up:1");
    *upstream.state.discovery.lock().unwrap() = Some(own);
    let gateway =
        Gateway::start_with(upstream.addr, |settings| settings.rewrite_discovery = true).await.unwrap();
    let document = gateway.get("/.well-known/openid-configuration").await.json();
    assert_eq!(document["issuer"], PUBLIC);
    assert_eq!(document["token_endpoint"], format!("{PUBLIC}/token"));
    assert_eq!(gateway.get("/authorize?client_id=x&scope=admin").await.status, 400);
    gateway.stop().await;
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_in_time_is_a_504() {
    let upstream = Upstream::start().await;
    let timeout = |settings: &mut scopeward::server::gateway::settings::GatewaySettings| {
        settings.upstream_timeout = Duration::from_millis(100);
    };
    let gateway = Gateway::start_with(upstream.addr, timeout).await.unwrap();
    assert_eq!(gateway.get("/slow").await.status, 504);
    upstream.take();
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_registered_is_known_after_kill_9() {
    let upstream = Upstream::start().await;
    let folder = super::folder();
    let binary = Binary::start(folder.path(), &upstream, "", &[]);
    let registration = post("/register", "application/json", r#"{"scope":"openid mcp:read"}"#);
    let answer = Answer::of(&raw(binary.addr, registration.as_bytes()).await);
    // The answer is here: from now on the client is known, whatever happens.
    drop(binary);
    let id = answer.json()["client_id"].as_str().unwrap().to_owned();
    let binary = Binary::start(folder.path(), &upstream, "", &[]);
    let ask = |scope: &str| {
        let target = format!("/authorize?client_id={id}&scope={scope}");
        format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    };
    assert_eq!(Answer::of(&raw(binary.addr, ask("mcp:read").as_bytes()).await).status, 200);
    assert_eq!(Answer::of(&raw(binary.addr, ask("mcp:write").as_bytes()).await).status, 400);
}

#[tokio::test]
async fn a_state_directory_of_another_upstream_is_refused() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream).await;
    let folder = gateway.stop().await;
    let other = Upstream::start().await;
    let settings = super::gateway_settings(folder.path(), other.addr);
    let Err(error) = Gateway::start_in(folder, settings).await else { panic!("it started") };
    let text = error.to_string();
    assert!(text.contains(&upstream.addr.to_string()) && text.contains(&other.addr.to_string()), "{text}");
}
