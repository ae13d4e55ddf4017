//! A gateway as it is operated: who may come in, who is believed, how long a head may take, what a full disk does, what is shown.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use scopeward::audit::jsonl::JsonlTarget;
use scopeward::gateway::endpoint::EndpointFlag;
use scopeward::server::gateway::settings::GatewaySettings;
use scopeward::server::listen::ListenAddr;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::upstream::{PUBLIC, Upstream, discovery};
use super::{Answer, Binary, Gateway, gateway_settings, get, post};
use crate::harness::within;

async fn over_socket(path: &Path, request: &str) -> Answer {
    let exchange = async {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        Answer::of(&answer)
    };
    within("the connection ends", exchange).await
}

#[tokio::test]
async fn an_access_file_says_who_may_come_in() {
    let upstream = Upstream::start().await;
    let folder = super::folder();
    let (socket, access) = (folder.path().join("socket"), folder.path().join("access.yaml"));
    let caller = |rights: &str| {
        let uid = std::fs::metadata("/proc/self").unwrap().uid();
        format!("callers: [{{name: front, match: [{{unixUid: {uid}}}], may: [{rights}]}}]\n")
    };
    std::fs::write(&access, caller("status")).unwrap();
    let mut settings = gateway_settings(folder.path(), upstream.addr);
    settings.server.listen.push(ListenAddr::Unix(socket.clone()));
    settings.access_file = Some(access.clone());
    settings.audit.jsonl = Some(JsonlTarget::File(folder.path().join("audit.jsonl")));
    let gateway = Gateway::start_in(folder, settings).await.unwrap();
    let login = get("/authorize?client_id=x&scope=admin");
    // Nobody is known on TCP without certificates, whatever a token says: it is one of the upstream's.
    let with_token = login.replace("\r\n\r\n", "\r\nAuthorization: Bearer x\r\n\r\n");
    for request in [login.clone(), with_token, get("/echo"), post("/register", "application/json", "{}")] {
        assert_eq!(gateway.send(&request).await.status, 403, "{request}");
    }
    // One who is known, and may not.
    assert_eq!(over_socket(&socket, &login).await.status, 403);
    assert_eq!(upstream.take().len(), 0);
    std::fs::write(&access, caller("decide")).unwrap();
    within("the access file is read again", async {
        while over_socket(&socket, &get("/echo")).await.status != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(gateway.get("/echo").await.status, 403);
    upstream.take();
    // What is decided is audited with the caller.
    assert_eq!(over_socket(&socket, &login).await.status, 400);
    let lines = gateway.folder.path().join("audit.jsonl");
    let denial = within("the denial is written", async {
        loop {
            let lines = std::fs::read_to_string(&lines).unwrap_or_default();
            if let Some(denial) = lines
                .split_inclusive('\n')
                .find(|line| line.contains("EVENT_KIND_DENIAL") && line.ends_with('\n'))
            {
                return serde_json::from_str::<Value>(denial).unwrap();
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(denial["caller"], json!({"name": "front", "authenticatedBy": "unix"}));
    gateway.stop().await;
}

#[tokio::test]
async fn only_a_trusted_proxy_says_where_a_request_comes_from() {
    let upstream = Upstream::start().await;
    for (trusted, chain, host) in [
        ("192.0.2.0/24", "127.0.0.1", "auth.example.com"),
        ("127.0.0.0/8", "203.0.113.9, 127.0.0.1", "front.example.com"),
    ] {
        let change =
            |settings: &mut GatewaySettings| settings.trusted_proxies = vec![trusted.parse().unwrap()];
        let gateway = Gateway::start_with(upstream.addr, change).await.unwrap();
        let claims = "\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Host: front.example.com\r\n\
                      X-Original-URL: /register\r\n\r\n";
        for target in ["/echo", "/authorize?client_id=x&scope=mcp:read&login_verifier="] {
            let request = get(target).replace("\r\n\r\n", claims);
            gateway.send(request).await;
        }
        // Denied, so that only the first one arrives.
        let seen = upstream.one();
        assert_eq!(seen.header("x-forwarded-for"), Some(chain));
        assert_eq!(seen.header("x-forwarded-host"), Some(host));
        assert_eq!(seen.header("x-original-url"), None, "whoever says it");
        assert_eq!(seen.header("host").unwrap(), upstream.addr.to_string());
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_head_that_does_not_come_in_time_ends_its_connection() {
    let upstream = Upstream::start().await;
    let folder = super::folder();
    let mut settings = gateway_settings(folder.path(), upstream.addr);
    settings.server.limits.first_frame_timeout = Duration::from_millis(100);
    let gateway = Gateway::start_in(folder, settings).await.unwrap();
    let whole = "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n";
    for (begun, answers) in [
        (String::new(), 0),
        ("GET /echo HT".to_owned(), 0),
        ("POST /register HTTP/1.1\r\nHost: a\r\nContent-Type: appl".to_owned(), 0),
        // After one that was answered.
        (format!("{whole}GET /echo HTTP/1.1\r\nHo"), 1),
    ] {
        // Ends although the client neither closes it nor sends more.
        let answer = super::raw(gateway.addr, begun.as_bytes()).await;
        let count = answer.windows(12).filter(|part| *part == b"HTTP/1.1 200").count();
        assert_eq!(count, answers, "{begun:?}: {}", String::from_utf8_lossy(&answer));
        assert_eq!(upstream.take().len(), answers);
    }
    // Others are served.
    assert_eq!(gateway.get("/echo").await.status, 200);
    gateway.stop().await;
}

/// What follows a body is no header and no parameter.
#[tokio::test]
async fn trailers_change_nothing_that_is_decided() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream).await;
    let chunked = |target: &str, kind: &str, body: &str| {
        format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nTrailer: x-one, scope\r\n\
             Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\nx-one: 1\r\ncontent-length: 99\r\n\
             x-forwarded-for: 1.2.3.4\r\nscope: admin\r\n\r\n",
            body.len()
        )
    };
    let form = "application/x-www-form-urlencoded";
    assert_eq!(
        gateway.register(r#"{"scope":"openid","redirect_uris":["https://c.example/cb"]}"#).await.status,
        201
    );
    upstream.take();
    for (target, kind, body, arrives) in [
        ("/echo", "text/plain", "hello", "hello"),
        ("/authorize", form, "client_id=c1&scope=openid", "client_id=c1&scope=openid"),
        ("/par", form, "client_id=c1", "scope=openid%20offline_access&client_id=c1"),
        ("/register", "application/json", r#"{"scope":"openid"}"#, r#"{"scope":"openid offline_access"}"#),
    ] {
        let answer = gateway.send(chunked(target, kind, body)).await;
        assert!(answer.status < 300, "{target}: {answer:?}");
        let seen = upstream.one();
        assert_eq!(seen.text(), arrives, "{target}");
        assert_eq!((seen.header("x-one"), seen.header("scope")), (None, None), "{target}");
        assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"), "{target}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_that_cannot_be_written_lets_no_expansion_pass() {
    const STEP_UP: &str = "\
audiences:
  https://mcp.example.com:
    scopesSupported: [openid, \"mcp:write\"]
    authorization: {stepUpScopes: [\"mcp:write\"], unknownRegistration: none}
";
    let upstream = Upstream::start().await;
    let folder = super::folder();
    std::fs::write(folder.path().join("policies/mcp.yaml"), STEP_UP).unwrap();
    // No file grows beyond 256 blocks. SIGXFSZ is ignored, so that writing fails as on a full disk instead of ending the process.
    let binary = Binary::start(folder.path(), &upstream, "trap '' XFSZ; ulimit -S -f 256;", &[]);
    assert_eq!(binary.send(post("/register", "application/json", r#"{"scope":"openid"}"#)).await.status, 201);
    upstream.take();
    // Each is an expansion, whose record is durable before it is passed on.
    let mut passed = 0;
    let refused = loop {
        let answer = binary.get("/authorize?client_id=c1&scope=mcp:write").await;
        if answer.status != 200 {
            break answer;
        }
        passed += 1;
        assert!(passed < 5000, "the disk is never full");
    };
    assert!(passed > 0, "{refused:?}");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(!refused.text().contains("invalid_scope"), "an outage is no denial: {refused:?}");
    for _ in 0..20 {
        let json = get("/authorize?client_id=c1&scope=openid+mcp:write")
            .replace("\r\n\r\n", "\r\nAccept: application/json\r\n\r\n");
        let form = post("/par", "application/x-www-form-urlencoded", "client_id=c1&scope=mcp:write");
        for request in [json, form] {
            let answer = binary.send(request).await;
            // The audit makes room for a few more when it moves its write-ahead file.
            if answer.status < 300 {
                passed += 1;
            } else {
                assert_eq!(
                    (answer.status, &answer.json()["error"]),
                    (503, &"temporarily_unavailable".into())
                );
            }
        }
    }
    assert_eq!(upstream.take().len(), passed, "nothing arrives that was not recorded");
    // What expands nothing passes as ever, and a denial is one.
    assert_eq!(binary.get("/authorize?client_id=c1&scope=openid").await.status, 200);
    assert_eq!(binary.get("/echo").await.status, 200);
    assert_eq!(upstream.take().len(), 2);
    assert_eq!(binary.get("/authorize?client_id=c1&scope=admin").await.status, 400);
    assert_eq!(upstream.take().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_before_keycloak_warns_of_what_the_realm_must_have() {
    const WARNING: &str =
        "Keycloak takes the default client scopes of the realm (basic, roles, web-origins) away";
    for (kind, issuer, warnings) in [("keycloak", "/realms/t", 1), ("generic", "", 0)] {
        let upstream = Upstream::start().await;
        *upstream.state.discovery.lock().unwrap() = Some(discovery(&format!("{PUBLIC}{issuer}")).to_string());
        let folder = super::folder();
        let flags = ["--upstream-kind", kind, &format!("--issuer-path={issuer}")];
        let binary = Binary::start(folder.path(), &upstream, "", &flags);
        // The log is written behind: it is whole once the process ended in order.
        let id = binary.child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let mut binary = binary;
        assert!(binary.child.wait().unwrap().success());
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
        assert_eq!(log.matches(WARNING).count(), warnings, "{log}");
        assert_eq!(log.matches("keycloak#").count(), 0, "{log}");
    }
}

#[tokio::test]
async fn the_record_of_clients_is_counted() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start_with(upstream.addr, |settings| settings.max_clients = 2).await.unwrap();
    let count = async |wanted: &[&str]| {
        let metrics = gateway.admin("/metrics").await.text();
        for line in wanted {
            assert!(metrics.contains(&format!("scopeward_gateway_clients{line}\n")), "{line}: {metrics}");
        }
    };
    count(&[" 0.0", "_limit 2.0", "_bytes 0.0", "_errors_total 0"]).await;
    for _ in 0..3 {
        assert_eq!(gateway.register(r#"{"scope":"openid"}"#).await.status, 201);
    }
    count(&[" 2.0", "_evicted_total{began_login=\"no\"} 1", "_evicted_total{began_login=\"yes\"} 0"]).await;
    for id in ["c2", "c3"] {
        assert_eq!(gateway.get(&format!("/authorize?client_id={id}&scope=openid")).await.status, 200);
    }
    // Which one began a login is written with the next commit.
    gateway.register(r#"{"scope":"openid"}"#).await;
    count(&[" 2.0", "_evicted_total{began_login=\"yes\"} 1", "_errors_total 0"]).await;
    gateway.stop().await;
}

/// An endpoint that a flag names is one of the issuer that its path begins with.
#[tokio::test]
async fn a_named_endpoint_belongs_to_the_issuer_of_its_path() {
    let upstream = Upstream::start().await;
    let bare = |issuer: &str| json!({"issuer": format!("{PUBLIC}{issuer}"), "authorization_endpoint": format!("{PUBLIC}{issuer}/auth")});
    upstream.state.documents.lock().unwrap().extend(
        ["/a", "/b"]
            .map(|issuer| (format!("{issuer}/.well-known/openid-configuration"), bare(issuer).to_string())),
    );
    let change = |settings: &mut GatewaySettings| {
        settings.issuer_paths = vec!["/a".into(), "/b".into()];
        let flags = ["registration=/b/register", "pushed_authorization_request=/ab/par"];
        settings.endpoints = flags.map(|flag| flag.parse::<EndpointFlag>().unwrap()).to_vec();
    };
    let gateway = Gateway::start_with(upstream.addr, change).await.unwrap();
    let registered = gateway.post("/b/register", "application/json", r#"{"scope":"openid"}"#).await;
    assert_eq!(registered.status, 201, "{registered:?}");
    // It is known where it registered, and nowhere else.
    assert_eq!(gateway.get("/b/auth?client_id=c1&scope=openid").await.status, 200);
    assert_eq!(gateway.get("/a/auth?client_id=c1&scope=openid").await.status, 400);
    let document = |issuer: &str| format!("{issuer}/.well-known/openid-configuration");
    let (a, b) = (gateway.get(&document("/a")).await.json(), gateway.get(&document("/b")).await.json());
    assert_eq!(b["registration_endpoint"], format!("{PUBLIC}/b/register"));
    assert_eq!(a.get("registration_endpoint"), None);
    assert_eq!(a["pushed_authorization_request_endpoint"], format!("{PUBLIC}/ab/par"));
    assert_eq!(gateway.form("/ab/par", "client_id=c1&scope=admin").await.status, 400);
    gateway.stop().await;
}
