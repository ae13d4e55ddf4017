//! Clients from before the gateway: looked up by the admin API of the upstream, and given there what is granted.
//!
//! The admin APIs here answer as those of Ory Hydra 2.3 and Keycloak 26 do.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use scopeward::audit::jsonl::JsonlTarget;
use scopeward::clients::{ClientFile, ClientRecord, RecordSource};
use scopeward::gateway::kind::UpstreamKind;
use scopeward::server::app::AppError;
use scopeward::server::gateway::settings::GatewaySettings;
use scopeward::server::gateway::upstream_admin::UpstreamAdminSettings;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::upstream::{PUBLIC, Upstream, discovery};
use super::{Gateway, gateway_settings};
use crate::harness::within;

const POLICY: &str = "\
audiences:
  https://mcp.example.com:
    scopesSupported: [openid, offline_access, \"mcp:read\", \"mcp:write\"]
    baselineClientScopes: [offline_access]
    authorization:
      unknownRegistration: none
      stepUpScopes: [\"mcp:write\"]
";

#[derive(Clone, Debug)]
struct Asked {
    method: Method,
    target: String,
    authorization: String,
    body: String,
}

/// What an admin API has, changed by tests while it runs.
#[derive(Debug, Default)]
struct AdminState {
    /// By id. Of Hydra the client, of Keycloak the representation of one.
    clients: Mutex<BTreeMap<String, Value>>,
    asked: Mutex<Vec<Asked>>,
    /// Answers every request so instead.
    fault: Mutex<Option<(StatusCode, &'static str)>>,
    /// The tokens that were given out and are good.
    tokens: Mutex<Vec<String>>,
    /// Names of client scopes; the id is `id-` and the name.
    scopes: Mutex<Vec<&'static str>>,
}

struct Admin {
    addr: SocketAddr,
    state: Arc<AdminState>,
    running: tokio::task::JoinHandle<()>,
}

type Answered = (StatusCode, Value);

impl Admin {
    async fn start(answer: fn(&AdminState, &Asked) -> Answered) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), Arc::default(), answer).await
    }

    async fn start_at(
        addr: SocketAddr,
        state: Arc<AdminState>,
        answer: fn(&AdminState, &Asked) -> Answered,
    ) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let served = Arc::clone(&state);
        let running = tokio::spawn(async move {
            // Ends with this task.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&served);
                connections.spawn(async move {
                    let service = service_fn(move |request| respond(Arc::clone(&state), request, answer));
                    _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { addr, state, running }
    }

    /// What was asked since the last time.
    fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.state.asked.lock().unwrap())
    }

    fn client(&self, id: &str) -> Value {
        self.state.clients.lock().unwrap()[id].clone()
    }

    fn put(&self, id: &str, client: Value) {
        self.state.clients.lock().unwrap().insert(id.to_owned(), client);
    }
}

async fn respond(
    state: Arc<AdminState>,
    request: Request<Incoming>,
    answer: fn(&AdminState, &Asked) -> Answered,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
    let authorization = parts.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let asked = Asked {
        method: parts.method,
        target: parts.uri.to_string(),
        authorization: authorization.unwrap_or_default(),
        body: String::from_utf8(body).unwrap(),
    };
    state.asked.lock().unwrap().push(asked.clone());
    // Others get between the reading and the writing of a client, if nothing keeps them out.
    tokio::task::yield_now().await;
    let (status, body) = match *state.fault.lock().unwrap() {
        Some((status, body)) => (status, body.to_owned()),
        None => {
            let (status, body) = answer(&state, &asked);
            (status, if body.is_null() { String::new() } else { body.to_string() })
        }
    };
    let response = Response::builder().status(status).header("content-type", "application/json");
    Ok(response.body(Full::from(body)).unwrap())
}

/// `GET` and `PATCH /admin/clients/{id}`.
fn hydra(state: &AdminState, asked: &Asked) -> Answered {
    let Some(id) = asked.target.strip_prefix("/admin/clients/") else {
        return (StatusCode::NOT_FOUND, json!({"error": "not found"}));
    };
    let id = percent_decode_str(id).decode_utf8().unwrap().into_owned();
    let mut clients = state.clients.lock().unwrap();
    let Some(client) = clients.get_mut(&id) else {
        return (StatusCode::NOT_FOUND, json!({"error": "Unable to locate the resource"}));
    };
    if asked.method == Method::PATCH {
        let patch: Value = serde_json::from_str(&asked.body).unwrap();
        for operation in patch.as_array().unwrap() {
            if operation["op"] == "test" {
                return (StatusCode::INTERNAL_SERVER_ERROR, json!({"error": "error"}));
            }
            assert_eq!(
                (&operation["op"], &operation["path"]),
                (&json!("replace"), &json!("/scope")),
                "{patch}"
            );
            client["scope"] = operation["value"].clone();
        }
    }
    (StatusCode::OK, client.clone())
}

/// The token endpoint of a service account `gateway:s%cret`, and what it may do in realm `t`.
fn keycloak(state: &AdminState, asked: &Asked) -> Answered {
    let not_found = (StatusCode::NOT_FOUND, json!({"error": "not found"}));
    if asked.target == "/realms/t/protocol/openid-connect/token" {
        // `gateway:s%25cret`, form-encoded as RFC 6749 section 2.3.1 wants it.
        if asked.authorization != "Basic Z2F0ZXdheTpzJTI1Y3JldA=="
            || asked.body != "grant_type=client_credentials"
        {
            return (StatusCode::UNAUTHORIZED, json!({"error": "unauthorized_client"}));
        }
        let mut tokens = state.tokens.lock().unwrap();
        let token = format!("token{}", tokens.len());
        tokens.push(token.clone());
        return (StatusCode::OK, json!({"access_token": token, "expires_in": 60, "token_type": "Bearer"}));
    }
    let token = asked.authorization.strip_prefix("Bearer ").unwrap_or_default();
    if !state.tokens.lock().unwrap().iter().any(|known| known == token) {
        return (StatusCode::UNAUTHORIZED, json!({"error": "HTTP 401 Unauthorized"}));
    }
    let Some(path) = asked.target.strip_prefix("/admin/realms/t/") else { return not_found };
    let scopes = state.scopes.lock().unwrap().clone();
    let mut clients = state.clients.lock().unwrap();
    if let Some(id) = path.strip_prefix("clients?clientId=") {
        let id = percent_decode_str(id).decode_utf8().unwrap();
        return (StatusCode::OK, json!(clients.get(&*id).into_iter().collect::<Vec<_>>()));
    }
    if path == "client-scopes" {
        let list: Vec<_> =
            scopes.iter().map(|name| json!({"id": format!("id-{name}"), "name": name})).collect();
        return (StatusCode::OK, json!(list));
    }
    let change =
        path.strip_prefix("clients/").and_then(|rest| rest.split_once("/optional-client-scopes/id-"));
    let Some((uuid, scope)) = change.filter(|_| asked.method == Method::PUT) else { return not_found };
    let scope = percent_decode_str(scope).decode_utf8().unwrap().into_owned();
    let client = clients.values_mut().find(|client| client["id"] == uuid);
    let Some(client) = client.filter(|_| scopes.contains(&&*scope)) else { return not_found };
    let optional = client["optionalClientScopes"].as_array_mut().unwrap();
    if !optional.contains(&json!(scope)) {
        optional.push(json!(scope));
    }
    (StatusCode::NO_CONTENT, Value::Null)
}

async fn start(
    folder: tempfile::TempDir,
    upstream: &Upstream,
    admin: (&str, SocketAddr),
    change: impl FnOnce(&mut GatewaySettings),
) -> Result<Gateway, AppError> {
    std::fs::write(folder.path().join("policies/mcp.yaml"), POLICY).unwrap();
    let mut settings = gateway_settings(folder.path(), upstream.addr);
    settings.audit.jsonl = Some(JsonlTarget::File(folder.path().join("audit.jsonl")));
    let gateway = settings.gateway.as_mut().unwrap();
    let (kind, addr) = admin;
    gateway.upstream_admin = Some(UpstreamAdminSettings {
        url: format!("{kind}+http://{addr}").parse().unwrap(),
        credentials_file: None,
    });
    change(gateway);
    Gateway::start_in(folder, settings).await
}

async fn with_hydra(upstream: &Upstream, admin: &Admin) -> Gateway {
    start(super::folder(), upstream, ("hydra", admin.addr), |_| {}).await.unwrap()
}

fn record(gateway: &Gateway, id: &str) -> Option<ClientRecord> {
    let mut found = None;
    let file = ClientFile::open(&gateway.folder.path().join("state")).unwrap();
    file.list(|record| {
        found = (record.client_id == id).then_some(record);
        found.is_none()
    })
    .unwrap();
    found
}

fn ask(id: &str, scope: &str) -> String {
    format!("/authorize?response_type=code&client_id={id}&scope={scope}")
}

fn old_client(id: &str) -> Value {
    json!({"client_id": id, "client_name": "old", "scope": "openid", "redirect_uris": ["https://client.example/cb"],
           "grant_types": ["authorization_code", "refresh_token"], "contacts": null, "client_uri": ""})
}

#[tokio::test]
async fn an_old_client_gets_the_baseline_without_registering_again() {
    let upstream = Upstream::start().await;
    let admin = Admin::start(hydra).await;
    let gateway = with_hydra(&upstream, &admin).await;
    admin.put("old/1", old_client("old/1"));
    let answer = gateway.get(&ask("old%2F1", "openid+offline_access")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(upstream.one().target, ask("old%2F1", "openid%20offline_access"));
    assert_eq!(admin.client("old/1")["scope"], "openid offline_access");
    assert_eq!(admin.client("old/1")["client_name"], "old", "nothing else changes");
    let methods: Vec<_> =
        admin.take().iter().map(|asked| format!("{} {}", asked.method, asked.target)).collect();
    let path = "/admin/clients/old%2F1";
    assert_eq!(methods, [format!("GET {path}"), format!("GET {path}"), format!("PATCH {path}")]);
    // What it registered is remembered as it was, and what was added next to it.
    let known = record(&gateway, "old/1").unwrap();
    assert_eq!(
        (known.source, known.registered_scope.as_str(), known.added_scope.as_str()),
        (RecordSource::Upstream, "openid", "offline_access")
    );
    assert_eq!((known.metadata.client_name.as_str(), known.metadata.redirect_uris.len()), ("old", 1));
    // The second time nothing is changed.
    assert_eq!(gateway.get(&ask("old%2F1", "openid+offline_access")).await.status, 200);
    assert!(admin.take().iter().all(|asked| asked.method == Method::GET));
    // What the policy denies is not looked for there.
    assert_eq!(gateway.get(&ask("old%2F1", "mcp:read")).await.status, 400);
    assert_eq!(admin.client("old/1")["scope"], "openid offline_access");
    // A client that is not there either is what it was: unknown.
    assert_eq!(gateway.get(&ask("nobody", "openid")).await.status, 400);
    assert_eq!(record(&gateway, "nobody"), None);
    // Each was audited as the expansion that it is, as where the server itself asks.
    let folder = gateway.stop().await;
    let lines = std::fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let expansions: Vec<_> = events.filter(|event| event["kind"] == "AUDIT_EVENT_KIND_EXPANSION").collect();
    assert_eq!(expansions.len(), 2, "{lines}");
    for expansion in expansions {
        assert_eq!(
            (&expansion["registeredScope"], &expansion["client"]["clientId"]),
            (&json!("openid"), &json!("old/1"))
        );
        assert_eq!(
            expansion["added"],
            json!([{"scope": "offline_access", "origin": "ORIGIN_BASELINE", "rule": ""}])
        );
    }
}

#[tokio::test]
async fn a_step_up_scope_never_becomes_a_registered_one() {
    let upstream = Upstream::start().await;
    let admin = Admin::start(hydra).await;
    let gateway = with_hydra(&upstream, &admin).await;
    admin.put("old", old_client("old"));
    assert_eq!(gateway.get(&ask("old", "openid+mcp:write")).await.status, 200);
    assert_eq!(admin.client("old")["scope"], "openid mcp:write");
    upstream.take();
    // Nothing asked for is what was registered, the step-up scope is not in it.
    let nothing = "/authorize?response_type=code&client_id=old";
    let registered = "/authorize?scope=openid%20offline_access&response_type=code&client_id=old";
    assert_eq!(gateway.get(nothing).await.status, 200);
    assert_eq!(upstream.one().target, registered);
    // Neither by reading the registration, which the upstream shows with all that was added …
    *upstream.state.registers.lock().unwrap() = vec![("scope", "openid mcp:write offline_access".into())];
    assert_eq!(gateway.get("/register/old").await.json()["scope"], "openid");
    upstream.state.registers.lock().unwrap().clear();
    assert_eq!(record(&gateway, "old").unwrap().registered_scope, "openid");
    // … nor by forgetting it and looking it up again.
    assert!(ClientFile::open(&gateway.folder.path().join("state")).unwrap().forget("", "old").unwrap());
    upstream.take();
    assert_eq!(gateway.get(nothing).await.status, 200);
    assert_eq!(upstream.one().target, registered);
    let known = record(&gateway, "old").unwrap();
    assert_eq!((known.source, known.registered_scope.as_str()), (RecordSource::Upstream, "openid"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_logins_of_one_old_client_leave_one_consistent_store() {
    let upstream = Upstream::start().await;
    let admin = Admin::start(hydra).await;
    let gateway = Arc::new(with_hydra(&upstream, &admin).await);
    admin.put("old", old_client("old"));
    let mut logins = JoinSet::new();
    for number in 0..50 {
        let gateway = Arc::clone(&gateway);
        let scope = ["openid+offline_access", "openid+mcp:write", "openid"][number % 3];
        logins.spawn(async move { gateway.get(&ask("old", scope)).await.status });
    }
    assert_eq!(logins.join_all().await, [200; 50]);
    let mut stored: Vec<String> =
        admin.client("old")["scope"].as_str().unwrap().split(' ').map(str::to_owned).collect();
    stored.sort_unstable();
    assert_eq!(stored, ["mcp:write", "offline_access", "openid"]);
    let changes = admin.take().into_iter().filter(|asked| asked.method == Method::PATCH).count();
    assert!(changes <= 2, "{changes} changes: each scope is added once");
    let known = record(&gateway, "old").unwrap();
    let mut added: Vec<_> = known.added_scope.split(' ').collect();
    added.sort_unstable();
    assert_eq!((known.registered_scope.as_str(), added), ("openid", vec!["mcp:write", "offline_access"]));
    Arc::into_inner(gateway).unwrap().stop().await;
}

/// What a client with a metadata document registered is in that document: it is not looked up, and what is granted is added where
/// the upstream has stored such a client.
#[tokio::test]
async fn a_client_with_a_metadata_document_is_not_remembered() {
    let upstream = Upstream::start().await;
    let admin = Admin::start(hydra).await;
    let gateway = with_hydra(&upstream, &admin).await;
    let (stored, fetched) = ("https://a.example/c.json", "https://b.example/c.json");
    admin.put(stored, old_client(stored));
    for (id, changes) in [(stored, 1), (fetched, 0)] {
        let encoded =
            percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC).to_string();
        // Stored with `openid`, which a client with a document does not hold here.
        assert_eq!(gateway.get(&ask(&encoded, "openid")).await.status, 400);
        assert_eq!(admin.take().len(), 0, "what is denied needs nothing of it");
        assert_eq!(gateway.get(&ask(&encoded, "mcp:write")).await.status, 200);
        assert_eq!(record(&gateway, id), None);
        assert_eq!(admin.take().into_iter().filter(|asked| asked.method == Method::PATCH).count(), changes);
        assert_eq!(upstream.take().len(), 1);
    }
    assert_eq!(admin.client(stored)["scope"], "openid mcp:write");
    gateway.stop().await;
}

#[tokio::test]
async fn an_admin_api_that_is_of_no_use_lets_nothing_pass_until_it_is() {
    let upstream = Upstream::start().await;
    let admin = Admin::start(hydra).await;
    let gateway = with_hydra(&upstream, &admin).await;
    admin.put("old", old_client("old"));
    let login = ask("old", "openid+offline_access");
    for (fault, reason) in [
        ((StatusCode::UNAUTHORIZED, ""), "AdminCredentialsRefused"),
        ((StatusCode::FORBIDDEN, "{}"), "AdminCredentialsRefused"),
        ((StatusCode::INTERNAL_SERVER_ERROR, "{}"), "AdminAnswerInvalid"),
        ((StatusCode::OK, "<html>"), "AdminAnswerInvalid"),
        ((StatusCode::OK, r#"{"client_id":"other","scope":"openid offline_access"}"#), "AdminAnswerInvalid"),
        (
            (StatusCode::OK, r#"{"client_id":"old","scope":"openid","scope":"offline_access"}"#),
            "AdminAnswerInvalid",
        ),
        ((StatusCode::OK, r#"{"client_id":"old","scope":["openid"]}"#), "AdminAnswerInvalid"),
    ] {
        *admin.state.fault.lock().unwrap() = Some(fault);
        refused(&gateway, &login, reason).await;
    }
    // What needs nothing of it goes on.
    let registered = gateway.register(r#"{"scope":"openid"}"#).await;
    assert_eq!(registered.status, 201);
    // It is down, and comes back.
    *admin.state.fault.lock().unwrap() = None;
    let Admin { addr, state, running } = admin;
    running.abort();
    _ = running.await;
    refused(&gateway, &login, "AdminUnreachable").await;
    upstream.take();
    let admin = Admin::start_at(addr, state, hydra).await;
    assert_eq!(gateway.get(&login).await.status, 200);
    assert_eq!(upstream.take().len(), 1);
    assert_eq!(admin.client("old")["scope"], "openid offline_access");
    assert!(!gateway.admin("/readyz?verbose").await.text().contains("UpstreamAdminFailing"));
    let metrics = gateway.admin("/metrics").await.text();
    for line in [
        "scopeward_gateway_admin_requests_total{operation=\"add\",outcome=\"ok\"} 1",
        "scopeward_gateway_admin_requests_total{operation=\"look_up\",outcome=\"error\"} 8",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    gateway.stop().await;
}

/// A login that needs the admin API is answered with `server_error`, and does not arrive.
async fn refused(gateway: &Gateway, login: &str, reason: &str) {
    let request =
        format!("GET {login} HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\nConnection: close\r\n\r\n");
    let answer = gateway.send(request).await;
    assert_eq!(
        (answer.status, answer.json()["error"].as_str()),
        (503, Some("server_error")),
        "{reason}: {answer:?}"
    );
    within(reason, async {
        while !gateway
            .admin("/readyz?verbose")
            .await
            .text()
            .contains(&format!("UpstreamAdminFailing=True {reason}:"))
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn keycloak_client(optional: &[&str]) -> Value {
    json!({"id": "uuid-1", "clientId": "old", "name": "old", "redirectUris": ["https://client.example/cb"],
           "defaultClientScopes": ["basic", "profile"], "optionalClientScopes": optional, "secret": "x"})
}

async fn with_keycloak(upstream: &Upstream, admin: &Admin, secret: &str) -> Gateway {
    let folder = super::folder();
    let file = folder.path().join("credentials");
    std::fs::write(&file, secret).unwrap();
    *upstream.state.discovery.lock().unwrap() = Some(discovery(&format!("{PUBLIC}/realms/t")).to_string());
    let change = |gateway: &mut GatewaySettings| {
        gateway.issuer_paths = vec!["/realms/t".into()];
        gateway.upstream_admin.as_mut().unwrap().credentials_file = Some(file);
    };
    start(folder, upstream, ("keycloak", admin.addr), change).await.unwrap()
}

#[tokio::test]
async fn an_old_client_of_keycloak_gets_optional_client_scopes() {
    let upstream = Upstream::start().await;
    let admin = Admin::start(keycloak).await;
    admin.put("old", keycloak_client(&["mcp:read"]));
    *admin.state.scopes.lock().unwrap() = vec!["profile", "mcp:read"];
    let gateway = with_keycloak(&upstream, &admin, "gateway:s%cret\n").await;
    // `openid` is no client scope, and every client has it.
    assert_eq!(gateway.get(&ask("old", "openid+mcp:read")).await.status, 200);
    assert_eq!(admin.client("old"), keycloak_client(&["mcp:read"]));
    let known = record(&gateway, "old").unwrap();
    assert_eq!(
        (known.issuer.as_str(), known.registered_scope.as_str()),
        ("/realms/t", "openid basic profile mcp:read")
    );
    // A realm without such a client scope.
    upstream.take();
    refused(&gateway, &ask("old", "openid+offline_access"), "AdminScopeMissing").await;
    assert_eq!(upstream.take().len(), 0);
    // It is made, and found without a restart.
    admin.state.scopes.lock().unwrap().extend(["offline_access", "mcp:write"]);
    assert_eq!(gateway.get(&ask("old", "openid+offline_access+mcp:write")).await.status, 200);
    assert_eq!(admin.client("old"), keycloak_client(&["mcp:read", "offline_access", "mcp:write"]));
    let tokens = |asked: &[Asked]| asked.iter().filter(|asked| asked.target.ends_with("/token")).count();
    assert_eq!(tokens(&admin.take()), 1, "the token is used as long as it is good");
    // It is revoked: another one is asked for.
    admin.state.tokens.lock().unwrap()[0] = "revoked".to_owned();
    assert_eq!(gateway.get(&ask("old", "openid")).await.status, 200);
    assert_eq!(tokens(&admin.take()), 1);
    // What is no scope of the policy, such as `basic`, which each client of Keycloak has, is held and never asked for.
    upstream.take();
    assert_eq!(gateway.get("/authorize?response_type=code&client_id=old").await.status, 200);
    let held = "/authorize?scope=openid%20mcp%3Aread%20offline_access&response_type=code&client_id=old";
    assert_eq!(upstream.one().target, held);
    let known = record(&gateway, "old").unwrap();
    assert_eq!(known.registered_scope, "openid basic profile mcp:read");
    assert_eq!(known.added_scope, "offline_access mcp:write");
    gateway.stop().await;
}

#[tokio::test]
async fn credentials_that_are_refused_are_a_condition_and_read_again() {
    let upstream = Upstream::start().await;
    let admin = Admin::start(keycloak).await;
    admin.put("old", keycloak_client(&["offline_access"]));
    let gateway = with_keycloak(&upstream, &admin, "gateway:wrong").await;
    let login = ask("old", "openid+offline_access");
    refused(&gateway, &login, "AdminCredentialsRefused").await;
    let file = gateway.folder.path().join("credentials");
    for (text, shown) in [("nothing", "not CLIENT_ID:SECRET"), ("", "it is empty")] {
        std::fs::write(&file, text).unwrap();
        refused(&gateway, &login, "AdminCredentialsRefused").await;
        let message = gateway.admin("/readyz?verbose").await.text();
        assert!(message.contains(shown) && !message.contains("nothing"), "{message}");
    }
    std::fs::remove_file(&file).unwrap();
    refused(&gateway, &login, "AdminCredentialsRefused").await;
    assert_eq!(upstream.take().len(), 0);
    std::fs::write(&file, "gateway:s%cret").unwrap();
    assert_eq!(gateway.get(&login).await.status, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn an_admin_api_that_cannot_be_meant_stops_the_start() {
    let upstream = Upstream::start().await;
    let addr = upstream.addr;
    let of_keycloak = |gateway: &mut GatewaySettings| {
        gateway.kind = UpstreamKind::Keycloak;
        gateway.issuer_paths = vec!["/realms/t".into()];
    };
    for (kind, change, expected) in [
        (
            "hydra",
            &of_keycloak as &dyn Fn(&mut GatewaySettings),
            "`--upstream-admin` names the admin API of another server",
        ),
        ("keycloak", &of_keycloak, "needs `--upstream-admin-credentials-file`"),
    ] {
        let error = start(super::folder(), &upstream, (kind, addr), change).await.err().unwrap();
        assert!(error.to_string().contains(expected), "{error}");
    }
}
