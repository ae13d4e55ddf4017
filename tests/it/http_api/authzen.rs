//! OpenID AuthZEN: the rules of the certification scenario for Authorization API 1.0 that are about the protocol, the examples of the profile
//! for token issuance, and an authorization server that is written from that profile's text, against the same questions over gRPC.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use scopeward::rpc::record::Recorder;
use scopeward::rpc::v1;
use serde_json::{Value, json};

use super::{Answer, post, send, send_http2, with};
use crate::access::hash;
use crate::direct::{Events, counted};
use crate::harness::{Wire, any_port};
use crate::pressure::until;
use crate::service::{self, Service};

const EVALUATION: &str = "/access/v1/evaluation";
const EVALUATIONS: &str = "/access/v1/evaluations";
const METADATA: &str = "/.well-known/authzen-configuration";
const FILES: &str = "https://api.example/files";
const POLICY: &str = r#"
audiences:
  https://api.example/files:
    scopesSupported: [openid, offline_access, files.read, files.write, files.admin, files.secret]
    baselineClientScopes: [offline_access]
    privilegedScopes: [files.admin]
    forbiddenScopes: [files.secret]
    authorization: {unsupportedScopes: drop, unregisteredScopes: drop}
  https://telemetry.example:
    scopesSupported: [telemetry.write, openid]
defaultAudience: https://api.example/files
"#;

async fn wire() -> (Wire, Arc<Events>) {
    let events = Arc::<Events>::default();
    let wire = Wire::start(Some(Arc::clone(&events) as Arc<dyn Recorder>), |config| {
        config.http_listen = vec![any_port().into()];
    })
    .await;
    wire.serve(POLICY);
    (wire, events)
}

async fn ask(wire: &Wire, path: &str, body: &Value) -> Answer {
    send(wire.http, post(path, body.to_string())).await
}

/// The decisions of a response in their order.
#[track_caller]
fn decisions(answer: &Answer) -> Vec<bool> {
    assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
    let json = answer.json();
    assert!(json.get("decision").is_none(), "it should be left out: {json}");
    let all = json["evaluations"].as_array().unwrap();
    all.iter()
        .map(|one| {
            let is_permitted = one["decision"].as_bool().unwrap();
            // A server may refuse a permit whose context it does not know.
            assert_eq!(one.get("context").is_some(), !is_permitted, "{one}");
            is_permitted
        })
        .collect()
}

fn one(action: &str) -> Value {
    json!({
        "subject": {"type": "user", "id": "alice"},
        "action": {"name": action},
        "resource": {"type": "audience", "id": FILES},
    })
}

#[tokio::test]
async fn one_evaluation_follows_the_rules_of_the_scenario() {
    let (wire, _) = wire().await;
    // Sections "Request Acceptance" and "Response Format": decisions, context, more properties, members that nobody knows.
    let mut with_context = one("files.read");
    with_context["context"] = json!({"time": "2025-06-27T18:03-07:00", "ip": "192.168.1.1"});
    let mut with_more = one("files.read");
    with_more["foo"] = "bar".into();
    with_more["futureField"] = json!({"nested": true});
    for entity in ["subject", "action", "resource"] {
        with_more[entity]["properties"] = json!({"a": [1, {"b": null}], "c": true});
        with_more[entity]["unknown"] = json!({});
    }
    for (body, is_permitted) in
        [(one("files.read"), true), (one("nowhere"), false), (with_context, true), (with_more, true)]
    {
        // "Idempotency".
        for _ in 0..3 {
            let answer = ask(&wire, EVALUATION, &body).await;
            assert_eq!(
                (answer.status.as_u16(), &answer.json()["decision"]),
                (200, &is_permitted.into()),
                "{body}"
            );
            // "Missing evaluations array", "Empty evaluations array".
            let mut empty = body.clone();
            empty["evaluations"] = json!([]);
            for body in [&body, &empty] {
                assert_eq!(ask(&wire, EVALUATIONS, body).await.json()["decision"], is_permitted, "{body}");
            }
        }
    }
    // "Error Handling": what is missing, and what has another type.
    let mut bad: Vec<(Value, &str)> = Vec::new();
    for (entity, key) in
        [("subject", "type"), ("subject", "id"), ("action", "name"), ("resource", "type"), ("resource", "id")]
    {
        let mut without = one("files.read");
        without.as_object_mut().unwrap().remove(entity);
        bad.push((without, "is missing"));
        let mut without = one("files.read");
        without[entity].as_object_mut().unwrap().remove(key);
        bad.push((without, "is missing"));
        let mut other = one("files.read");
        other[entity][key] = 123.into();
        bad.push((other, "must be a string"));
        let mut other = one("files.read");
        other[entity] = "alice".into();
        bad.push((other, "must be an object"));
    }
    for (body, part) in &bad {
        for path in [EVALUATION, EVALUATIONS] {
            refused(&ask(&wire, path, body).await, 400, part);
        }
    }
    let deep = format!(r#"{{"context":{}{}}}"#, "[".repeat(300), "]".repeat(300));
    let texts: [(&[u8], &str); 7] = [
        (b"", "not valid JSON: EOF"),
        (b"{", "not valid JSON: EOF"),
        (b"[]", "must be a JSON object"),
        (b"{\"subject\":{},\"subject\":{}}", "duplicate member `subject` at line 1 column 23"),
        (b"{\"x\":{\"a\":1,\"\\u0061\":2}}", "duplicate member `a`"),
        (deep.as_bytes(), "recursion limit"),
        (b"{\"a\":\"\xff\"}", "not valid JSON"),
    ];
    for (text, part) in texts {
        refused(&send(wire.http, post(EVALUATIONS, text.to_vec())).await, 400, part);
    }
    for content_type in ["text/plain", "application/xml", "application/json; charset=utf-16"] {
        let request = with(post(EVALUATION, one("files.read").to_string()), "content-type", content_type);
        refused(&send(wire.http, request).await, 400, "content type");
    }
    let large = format!("{{\"x\":\"{}\"}}", "a".repeat(1 << 20));
    refused(&send(wire.http, post(EVALUATION, large)).await, 413, "more than 1048576 bytes");
    for (path, method, allow) in
        [(EVALUATION, "GET", "POST"), (EVALUATIONS, "PUT", "POST"), (METADATA, "POST", "GET")]
    {
        let mut request = post(path, "{}");
        *request.method_mut() = method.parse().unwrap();
        let answer = send(wire.http, request).await;
        refused(&answer, 405, "use");
        assert_eq!(answer.header("allow"), allow);
    }
    assert_eq!(send(wire.http, post("/access/v1/search/subject", "{}")).await.status.as_u16(), 404);
    until("all is given back", || wire.pressure.calls() == 0 && wire.pressure.bytes() == 0).await;
    wire.stop().await;
}

/// An error that concerns the whole request: its body is a message.
#[track_caller]
fn refused(answer: &Answer, status: u16, part: &str) {
    assert_eq!(answer.status.as_u16(), status, "{part}: {answer:?}");
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(text.contains(part), "{part}: {text}");
}

#[tokio::test]
async fn request_ids_are_echoed_whatever_is_answered() {
    let (wire, events) = wire().await;
    let id = "bfe9eb29-ab87-4ca3-be83-a1d5d8305716";
    for (path, body, status) in [
        (EVALUATION, one("files.read").to_string(), 200),
        (EVALUATIONS, one("nowhere").to_string(), 200),
        (EVALUATION, "{".to_owned(), 400),
    ] {
        let answer = send(wire.http, with(post(path, body.clone()), "x-request-id", id)).await;
        assert_eq!((answer.status.as_u16(), answer.header("x-request-id")), (status, id));
        let answer = send_http2(wire.http, with(post(path, body.clone()), "x-request-id", "é")).await;
        assert_eq!(answer.headers["x-request-id"].as_bytes(), "é".as_bytes());
        assert!(!send(wire.http, post(path, body)).await.headers.contains_key("x-request-id"));
    }
    let events = events.0.lock().unwrap().clone();
    let correlated: Vec<&str> = events.iter().map(|event| event.correlation_id.as_str()).collect();
    assert_eq!(correlated, [id, "", ""], "where it can be one");
    wire.stop().await;
}

#[tokio::test]
async fn several_evaluations_follow_the_rules_of_the_scenario() {
    let (wire, events) = wire().await;
    // "Response array length matches request", "Response ordering", "Batch with top-level default inheritance".
    let body = json!({
        "subject": {"type": "user", "id": "alice"},
        "action": {"name": "files.read"},
        "resource": {"type": "audience", "id": FILES},
        "context": {"time": "2025-06-27T18:03-07:00"},
        "evaluations": [
            {},
            {"action": {"name": "nowhere"}},
            {"resource": {"type": "protected_resource", "id": "https://telemetry.example"}},
            {"action": {"name": "openid"}, "resource": {"type": "audience", "id": "https://telemetry.example"}, "context": {}},
        ],
    });
    assert_eq!(decisions(&ask(&wire, EVALUATIONS, &body).await), [true, false, false, true]);
    // "Batch with fully specified evaluations": the same one by one.
    let whole = json!({"evaluations": [one("files.write"), one("files.secret"), one("files.admin")]});
    assert_eq!(decisions(&ask(&wire, EVALUATIONS, &whole).await), [true, false, true]);
    // "Evaluation-level errors (execute_all semantic)".
    let body = json!({
        "subject": {"type": "user", "id": "alice"},
        "action": {"name": "files.read"},
        "options": {"evaluations_semantic": "execute_all"},
        "evaluations": [{"resource": {"type": "audience", "id": FILES}}, {}, {"resource": {"type": "audience"}}],
    });
    let answer = ask(&wire, EVALUATIONS, &body).await;
    assert_eq!(decisions(&answer), [true, false, false]);
    let error = &answer.json()["evaluations"][1]["context"]["error"];
    assert_eq!(*error, json!({"status": 400, "message": "`evaluations[1].resource` is missing"}));
    // More than a batch of the API takes.
    let many: Vec<_> = (0..512).map(|at| one(if at % 2 == 0 { "openid" } else { "nowhere" })).collect();
    let answered = decisions(&ask(&wire, EVALUATIONS, &json!({ "evaluations": many })).await);
    assert_eq!(answered, (0..512).map(|at| at % 2 == 0).collect::<Vec<_>>());
    refused(
        &ask(&wire, EVALUATIONS, &json!({ "evaluations": vec![one("openid"); 513] })).await,
        400,
        "limit is 512",
    );
    // "Evaluations semantics": what is not executed has no record.
    events.0.lock().unwrap().clear();
    let order = ["openid", "nowhere", "files.read", "elsewhere"];
    for (semantic, expected, denials) in [
        ("deny_on_first_deny", vec![true, false], 1),
        ("permit_on_first_permit", vec![true], 0),
        ("execute_all", vec![true, false, true, false], 2),
    ] {
        let body = json!({"evaluations": (order.map(one)), "options": {"evaluations_semantic": semantic, "another": 1}});
        assert_eq!(decisions(&ask(&wire, EVALUATIONS, &body).await), expected, "{semantic}");
        assert_eq!(events.0.lock().unwrap().drain(..).count(), denials, "{semantic}");
    }
    let permit = json!({"evaluations": (["nowhere", "openid", "files.read"].map(one)), "options": {"evaluations_semantic": "permit_on_first_permit"}});
    assert_eq!(decisions(&ask(&wire, EVALUATIONS, &permit).await), [false, true]);
    wire.stop().await;
}

#[tokio::test]
async fn examples_of_the_profile_are_answered() {
    let (wire, events) = wire().await;
    // "Client Credentials, One Scope".
    let body = json!({
        "subject": {"type": "client", "id": "svc-reporting"},
        "resource": {"type": "audience", "id": "https://telemetry.example"},
        "context": {"client_id": "svc-reporting"},
        "evaluations": [
            {"action": {"name": "issue:access_token:client_credentials"}},
            {"action": {"name": "telemetry.write"}},
        ],
        "options": {"evaluations_semantic": "execute_all"},
    });
    assert_eq!(decisions(&ask(&wire, EVALUATIONS, &body).await), [true, true]);
    // "Authorization Code, Downscoping", with the types of both drafts.
    let scopes = |resource_type: &str, gate: &str, jti: &str| {
        let scope =
            |name: &str| json!({"action": {"name": name}, "resource": {"type": resource_type, "id": FILES}});
        json!({
            "subject": {"type": "user", "id": "U0405936"},
            "resource": {"type": "audience", "id": FILES},
            "context": {"client_id": "chatterbox", "acr": "urn:example:loa:2", "jti": jti},
            "evaluations": [{"action": {"name": gate}}, scope("files.read"), scope("files.write"), scope("files.delete")],
            "options": {"evaluations_semantic": "execute_all"},
        })
    };
    for resource_type in ["audience", "protected_resource"] {
        let body = scopes(resource_type, "issue:access_token:authorization_code", "token-1");
        let answer = ask(&wire, EVALUATIONS, &body).await;
        assert_eq!(decisions(&answer), [true, true, true, false]);
        let context = &answer.json()["evaluations"][3]["context"];
        assert_eq!(context["reason"], "UNSUPPORTED");
        assert!(context["reason_admin"]["403"].as_str().unwrap().contains("files.delete"), "{context}");
    }
    // Arrived on a refresh.
    let body = scopes("protected_resource", "issue:access_token:refresh_token", "token-2");
    assert_eq!(decisions(&ask(&wire, EVALUATIONS, &body).await), [true, true, true, false]);
    let denied = events.0.lock().unwrap().clone();
    let told: Vec<_> = denied
        .iter()
        .map(|event| {
            let client = event.client.as_ref().map_or("", |client| client.client_id.as_str());
            let method = event.method.rsplit('/').next().unwrap();
            (method, client, event.correlation_id.as_str(), event.requested_scope())
        })
        .collect();
    let authorize = ("BatchCheckAuthorizeScopes", "chatterbox", "token-1", "files.delete");
    assert_eq!(
        told,
        [authorize, authorize, ("BatchCheckTokenScopes", "chatterbox", "token-2", "files.delete")]
    );
    // "No Scopes Requested".
    let mut gate = one("issue:access_token:client_credentials");
    assert_eq!(ask(&wire, EVALUATION, &gate).await.json(), json!({"decision": true}));
    // A gate for an audience that the policy does not know is denied, and recorded.
    gate["resource"]["id"] = "https://nobody.example".into();
    let answer = ask(&wire, EVALUATION, &gate).await.json();
    assert_eq!(
        (&answer["decision"], &answer["context"]["reason"]),
        (&false.into(), &"AUDIENCE_UNKNOWN".into())
    );
    let last = events.0.lock().unwrap().last().cloned().unwrap();
    assert_eq!(
        (last.reason(), last.asked_audiences),
        (v1::Reason::AudienceUnknown, vec!["https://nobody.example".to_owned()])
    );
    // Gates that nobody registered are denied, and no error; an empty id, which names the default audience elsewhere, names none.
    let before = events.0.lock().unwrap().len();
    for action in ["issue:access_token:password", "issue:nothing:refresh_token", "issue:", "issue:a:b:c"] {
        assert_eq!(ask(&wire, EVALUATION, &one(action)).await.json()["decision"], false, "{action}");
    }
    for (resource_type, id, action) in [
        ("audience", "", "openid"),
        ("audience", "", "issue:access_token:refresh_token"),
        ("audience", FILES, ""),
        ("audience", FILES, "openid files.read"),
        // "Authorization Detail Tuple": the policy knows no types of them.
        ("customer_information", FILES, "read:contacts"),
    ] {
        let mut body = one(action);
        body["resource"] = json!({"type": resource_type, "id": id});
        assert_eq!(ask(&wire, EVALUATION, &body).await.json()["decision"], false, "{body}");
    }
    assert_eq!(events.0.lock().unwrap().len(), before, "there is no question to record");
    // What is over a limit of the API is the denial of its evaluation.
    let mut long = one("openid");
    long["resource"]["id"] = format!("https://{}", "a".repeat(3000)).into();
    let answer = ask(&wire, EVALUATIONS, &json!({"evaluations": [long, one("openid")]})).await;
    assert_eq!(decisions(&answer), [false, true]);
    assert_eq!(answer.json()["evaluations"][0]["context"]["error"]["status"], 400);
    wire.stop().await;
}

/// An authorization server at its token endpoint, as the text of the profile has it.
struct Server {
    http: SocketAddr,
}

impl Server {
    /// The scopes of a token for `targets` by a grant, or `None` if none is issued. `residue`: what the server itself would grant.
    async fn issue(&self, grant: &str, targets: &[&str], residue: &[String]) -> Option<BTreeSet<String>> {
        let gate = format!("issue:access_token:{grant}");
        // "Forming the Batch": the gate tuples lead.
        let mut evaluations: Vec<Value> = Vec::new();
        for target in targets {
            evaluations
                .push(json!({"action": {"name": gate}, "resource": {"type": "audience", "id": target}}));
        }
        for target in targets {
            for scope in residue {
                let resource = json!({"type": "protected_resource", "id": target});
                evaluations.push(json!({"action": {"name": scope}, "resource": resource}));
            }
        }
        let body = json!({
            "subject": {"type": "user", "id": "alice"},
            "context": {"client_id": "chatterbox"},
            "evaluations": evaluations,
            "options": {"evaluations_semantic": "execute_all"},
        });
        let answer = send(self.http, post(EVALUATIONS, body.to_string())).await;
        // "Fail Closed".
        if answer.status.as_u16() != 200 {
            return None;
        }
        let permitted = decisions(&answer);
        assert_eq!(permitted.len(), evaluations.len());
        let (gates, scopes) = permitted.split_at(targets.len());
        // "A Denied Gate Removes a Target", "A Denied Scope Must Narrow Every Target".
        let surviving: Vec<usize> = (0..targets.len()).filter(|at| gates[*at]).collect();
        if surviving.is_empty() {
            return None;
        }
        let is_permitted =
            |scope: usize| surviving.iter().all(|target| scopes[target * residue.len() + scope]);
        let granted: BTreeSet<String> = residue
            .iter()
            .enumerate()
            .filter(|(at, _)| is_permitted(*at))
            .map(|(_, scope)| scope.clone())
            .collect();
        (!granted.is_empty()).then_some(granted)
    }
}

fn tokens(scope: &str) -> BTreeSet<String> {
    scope.split(' ').filter(|token| !token.is_empty()).map(str::to_owned).collect()
}

fn list(tokens: &[&str]) -> Vec<String> {
    tokens.iter().map(|token| (*token).to_owned()).collect()
}

#[tokio::test]
async fn a_login_by_tuples_gets_what_the_same_login_over_grpc_gets() {
    let (wire, _) = wire().await;
    let server = Server { http: wire.http };
    let mut grpc = wire.client().await;
    let asked = "openid files.read files.write nowhere files.secret";
    let check = v1::CheckAuthorizeScopesRequest {
        audiences: vec![FILES.to_owned()],
        scope: Some(asked.to_owned()),
        registered_scope: Some(asked.to_owned()),
        ..Default::default()
    };
    let authorized = grpc.check_authorize_scopes(check).await.unwrap().into_inner();
    assert_eq!(authorized.scope, "openid files.read files.write");
    let residue: Vec<String> = asked.split(' ').map(str::to_owned).collect();
    let granted = server.issue("authorization_code", &[FILES], &residue).await.unwrap();
    assert_eq!(granted, tokens(&authorized.scope));

    // Each later moment, from what was granted then; the policy takes a scope away in between.
    wire.serve(&POLICY.replace("files.write, ", ""));
    for (grant, name) in [
        (v1::TokenGrant::Refresh, "refresh_token"),
        (v1::TokenGrant::TokenExchange, "token_exchange"),
        (v1::TokenGrant::JwtBearer, "jwt_bearer"),
        (v1::TokenGrant::ClientCredentials, "client_credentials"),
    ] {
        let check = v1::CheckTokenScopesRequest {
            audiences: vec![FILES.to_owned()],
            granted_scope: Some(authorized.scope.clone()),
            grant: grant.into(),
            ..Default::default()
        };
        let token = grpc.check_token_scopes(check).await.unwrap().into_inner();
        assert_eq!(token.scope, "openid files.read");
        let residue: Vec<String> = granted.iter().cloned().collect();
        assert_eq!(server.issue(name, &[FILES], &residue).await.unwrap(), tokens(&token.scope), "{name}");
    }

    // Several targets: what only one of them knows is in no token for both.
    let both = [FILES, "https://telemetry.example"];
    let residue = list(&["openid", "files.read", "telemetry.write"]);
    assert_eq!(server.issue("authorization_code", &both, &residue).await, Some(tokens("openid")));
    let with_unknown = [FILES, "https://nobody.example"];
    assert_eq!(
        server.issue("authorization_code", &with_unknown, &residue).await,
        Some(tokens("openid files.read"))
    );
    assert_eq!(server.issue("authorization_code", &with_unknown[1..], &residue).await, None);
    assert_eq!(server.issue("password", &both, &residue).await, None, "a gate that nobody registered");
    // The baseline, which nobody asked about, comes in nowhere.
    assert_eq!(
        server.issue("authorization_code", &[FILES], &list(&["openid"])).await,
        Some(tokens("openid"))
    );
    wire.stop().await;
}

/// Whatever is asked, tuples give what the question about the token gives, and never more than was asked about.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tuples_and_the_token_question_agree_on_drawn_policies() {
    let scopes = ["a", "a.b", "a.b.c", "b", "b.*", "*", "c", "x:y", "issue:access_token:refresh_token"];
    let some = || proptest::sample::subsequence(scopes.to_vec(), 0..scopes.len());
    let drawn = (some(), some(), proptest::sample::select(vec!["exact", "hierarchic", "wildcard"]), some());
    let (wire, _) = wire().await;
    let server = Server { http: wire.http };
    let mut runner = TestRunner::new(Cases { cases: 48, failure_persistence: None, ..Cases::default() });
    let handle = tokio::runtime::Handle::current();
    let outcome = tokio::task::block_in_place(|| {
        runner.run(&drawn, |(supported, forbidden, matching, asked)| {
            prop_assume!(!supported.is_empty() && !asked.is_empty());
            let quoted = |list: &[&str]| list.iter().map(|scope| format!("{scope:?}")).collect::<Vec<_>>().join(", ");
            let policy = format!(
                "audiences:\n  t: {{scopesSupported: [{}], forbiddenScopes: [{}], scopeMatching: {matching}, defaultClientScopes: []}}\n",
                quoted(&supported),
                quoted(&forbidden),
            );
            let file: Arc<str> = "p.yaml".into();
            let document = scopeward::policy::document::Document::read(&file, &policy);
            // Not every drawn policy is one.
            prop_assume!(scopeward::policy::check::check(&file, &[document]).is_ok());
            wire.serve(&policy);
            let residue = list(&asked);
            let check = v1::CheckTokenScopesRequest {
                audiences: vec!["t".to_owned()],
                scope: Some(asked.join(" ")),
                granted_scope: Some(asked.join(" ")),
                grant: v1::TokenGrant::Refresh.into(),
                ..Default::default()
            };
            let (tuples, token) = handle.block_on(async {
                let mut grpc = wire.client().await;
                let token = grpc.check_token_scopes(check).await.unwrap().into_inner();
                (server.issue("refresh_token", &["t"], &residue).await, token)
            });
            prop_assert_eq!(tuples.unwrap_or_default(), tokens(&token.scope), "{}", policy);
            Ok(())
        })
    });
    outcome.unwrap();
    wire.stop().await;
}

#[tokio::test]
async fn access_metadata_and_counts() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("policies")).unwrap();
    fs::write(folder.path().join("policies/p.yaml"), POLICY).unwrap();
    let access = format!(
        "callers:\n- name: as\n  match:\n  - tokenSha256: {}\n  may: [decide]\n  audiences: [{FILES}]\n- name: other\n  match:\n  - tokenSha256: {}\n  may: [describe, status]\n",
        hash("secret"),
        hash("other")
    );
    fs::write(folder.path().join("access.yaml"), access).unwrap();
    let mut settings = service::settings(folder.path());
    settings.server.http_listen = vec![any_port().into()];
    settings.server.listen = vec![scopeward::server::listen::ListenAddr::Unix(folder.path().join("socket"))];
    settings.access_file = Some(folder.path().join("access.yaml"));
    let service = Service::start_in(folder, settings).await.unwrap();
    let of = |token: &str, body: &Value| {
        let request = with(post(EVALUATION, body.to_string()), "x-request-id", "7");
        match token {
            "" => request,
            token => with(request, "authorization", &format!("Bearer {token}")),
        }
    };
    for (token, status) in [("", 401), ("wrong", 401), ("other", 403)] {
        let answer = send(service.http, of(token, &one("openid"))).await;
        refused(&answer, status, "caller");
        assert_eq!(answer.header("x-request-id"), "7");
        assert_eq!(answer.header("www-authenticate"), if status == 401 { "Bearer" } else { "" });
    }
    assert_eq!(send(service.http, of("secret", &one("openid"))).await.json()["decision"], true);
    // What a caller does not know is not there for it, as a scope and as a gate.
    for action in ["telemetry.write", "issue:access_token:refresh_token"] {
        let mut foreign = one(action);
        foreign["resource"]["id"] = "https://telemetry.example".into();
        let answer = send(service.http, of("secret", &foreign)).await.json();
        assert_eq!(answer["context"]["reason"], "AUDIENCE_UNKNOWN", "{action}");
    }
    // Metadata are for everybody, and name the server as the caller does.
    let mut request = post(METADATA, "");
    *request.method_mut() = "GET".parse().unwrap();
    request.headers_mut().insert("host", "pdp.example.com:8443".parse().unwrap());
    let answer = send(service.http, request).await;
    assert_eq!(
        answer.json(),
        json!({
            "policy_decision_point": "http://pdp.example.com:8443",
            "access_evaluation_endpoint": "http://pdp.example.com:8443/access/v1/evaluation",
            "access_evaluations_endpoint": "http://pdp.example.com:8443/access/v1/evaluations",
            "capabilities": ["urn:openid:authzen:capability:token-issuance"],
        })
    );
    let (_, metrics) = service.get("/metrics").await;
    let count = |method: &str, code: &str| {
        let labels = format!(
            "grpc_server_handled_total{{grpc_type=\"unary\",grpc_service=\"openid.authzen\",grpc_method=\"{method}\",grpc_code=\"{code}\"}} "
        );
        metrics.lines().find_map(|line| line.strip_prefix(&labels)).map_or(0, |count| count.parse().unwrap())
    };
    assert_eq!((count("AccessEvaluation", "OK"), count("AccessEvaluation", "Unauthenticated")), (3, 2));
    assert_eq!((count("AccessEvaluation", "PermissionDenied"), count("Metadata", "OK")), (1, 1));
    service.stop().await;
}

#[tokio::test]
async fn what_is_full_or_has_no_policy_is_no_decision() {
    let http = |config: &mut scopeward::server::config::Config| config.http_listen = vec![any_port().into()];
    let wire = Wire::start(None, http).await;
    for body in [one("openid"), one("issue:access_token:refresh_token")] {
        refused(&ask(&wire, EVALUATION, &body).await, 503, "no policy is loaded yet");
    }
    wire.stop().await;
    let wire = Wire::start(None, |config| {
        http(config);
        config.limits.max_calls = 0;
    })
    .await;
    refused(&ask(&wire, EVALUATION, &one("openid")).await, 503, "overloaded");
    let counts: BTreeMap<_, _> =
        counted(&wire).into_iter().filter(|(labels, _)| labels.contains("authzen")).collect();
    assert_eq!(counts.values().sum::<usize>(), 1, "{counts:?}");
    wire.stop().await;
}
