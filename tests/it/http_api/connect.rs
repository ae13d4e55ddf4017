//! The Connect protocol: every RPC of one message, answered as over gRPC, and what its rules refuse.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, Kind, MessageDescriptor};
use scopeward::rpc::record::Recorder;
use scopeward::rpc::{FILE_DESCRIPTOR_SET, v1};
use scopeward::server::config::{Config, PeerLimits};
use scopeward::server::tls::TlsFiles;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Status;

use super::{Answer, post, send, send_http2, send_over, with};
use crate::access::hash;
use crate::certs::{Authority, Files};
use crate::direct::{Events, POLICY, counted};
use crate::harness::{AUDIENCE, Wire, any_port, authorize, one_audience, registration, within};
use crate::pressure::{Never, Panicking, until};
use crate::service::{self, Service};
use crate::tls::{client, handshake};

const EXPAND: &str = "/scopeward.v1.ScopePolicyService/ExpandRegistrationScopes";
const CHECK: &str = "/scopeward.v1.ScopePolicyService/CheckAuthorizeScopes";
const BATCH: &str = "/scopeward.v1.ScopePolicyService/BatchCheckAuthorizeScopes";
const DESCRIBE: &str = "/scopeward.v1.ScopePolicyService/DescribeAudience";

fn http(config: &mut Config) {
    config.http_listen = vec![any_port().into()];
}

async fn wire() -> Wire {
    let wire = Wire::start(None, http).await;
    wire.serve(&one_audience("scopesSupported: [openid, a], baselineClientScopes: [openid]"));
    wire
}

#[tokio::test]
async fn each_rpc_of_one_message_is_served_and_no_stream() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("policies")).unwrap();
    fs::write(folder.path().join("policies/mcp.yaml"), service::POLICY).unwrap();
    let mut settings = service::settings(folder.path());
    http(&mut settings.server);
    let service = Service::start_in(folder, settings).await.unwrap();
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut served = 0;
    for described in pool.services() {
        let is_ours = described.name() != "AuditService";
        for method in described.methods() {
            let path = format!("/{}/{}", described.full_name(), method.name());
            let answer = send(service.http, post(&path, "{}")).await;
            if method.is_server_streaming() || !is_ours {
                assert_eq!(
                    (answer.status.as_u16(), &answer.json()["code"]),
                    (404, &"unimplemented".into()),
                    "{path}"
                );
                continue;
            }
            served += 1;
            // Some need more than an empty message, and say so.
            let is_error = answer.status.as_u16() != 200;
            if is_error {
                let details = answer.json()["details"].as_array().cloned().unwrap_or_default();
                assert_eq!(details[0]["debug"]["domain"], "scopeward", "{path}: {answer:?}");
            }
            let mut seen = HashSet::new();
            assert!(
                !has_bytes(&method.output(), &mut seen),
                "{path}: bytes are base64 in Connect, and hexadecimal here"
            );
            let proto = with(post(&path, ""), "content-type", "application/proto");
            let proto = send_http2(service.http, proto).await;
            assert_eq!(proto.status, answer.status, "{path}: {proto:?}");
            let expected = if is_error { "application/json" } else { "application/proto" };
            assert_eq!(proto.header("content-type"), expected, "{path}");
        }
    }
    assert!(served >= 6, "{served}");
    let status =
        send(service.http, post("/scopeward.v1.PolicyStatusService/GetPolicyStatus", "{}")).await.json();
    assert_eq!(status["status"]["active"]["digest"], service.status().await.active.unwrap().digest);
    for path in [
        "/",
        "/x",
        "/scopeward.v1.ScopePolicyService",
        "/grpc.health.v1.Health/Check",
        "/livez",
        CHECK.trim_end_matches('s'),
    ] {
        assert_eq!(send(service.http, post(path, "{}")).await.status.as_u16(), 404, "{path}");
    }
    service.stop().await;
}

fn has_bytes(message: &MessageDescriptor, seen: &mut HashSet<String>) -> bool {
    seen.insert(message.full_name().to_owned())
        && message.fields().any(|field| match field.kind() {
            Kind::Bytes => true,
            Kind::Message(inner) => has_bytes(&inner, seen),
            _ => false,
        })
}

/// What a call came to, without what differs each time.
#[derive(Debug, PartialEq)]
enum Outcome {
    Answered(Value),
    Refused { code: String, message: String, details: BTreeMap<String, Value> },
}

/// Zeros for the ids of decisions.
fn without_ids(mut answer: Value) -> Value {
    match &mut answer {
        Value::Object(members) => {
            for (name, value) in members {
                if name == "decisionId" {
                    *value = "".into();
                } else {
                    *value = without_ids(value.take());
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| *value = without_ids(value.take())),
        _ => {}
    }
    answer
}

/// Details in words; what they say in pairs has no order on the wire.
fn details(name: &str, value: &[u8]) -> (String, Value) {
    let value = match name {
        "google.rpc.ErrorInfo" => {
            let info = tonic_types::pb::ErrorInfo::decode(value).unwrap();
            json!([info.reason, info.domain, BTreeMap::from_iter(info.metadata)])
        }
        _ => json!(format!("{value:?}")),
    };
    (name.to_owned(), value)
}

fn of_grpc<M: Message + Name>(answer: Result<tonic::Response<M>, Status>) -> Outcome {
    match answer {
        Ok(answer) => {
            let text = scopeward::proto::json::to_string(answer.get_ref()).unwrap();
            Outcome::Answered(without_ids(serde_json::from_str(&text).unwrap()))
        }
        Err(status) => {
            let all = tonic_types::pb::Status::decode(status.details()).unwrap().details;
            let of = |detail: &prost_types::Any| {
                details(detail.type_url.trim_start_matches("type.googleapis.com/"), &detail.value)
            };
            let mut code = String::new();
            for letter in format!("{:?}", status.code()).chars() {
                if letter.is_uppercase() && !code.is_empty() {
                    code.push('_');
                }
                code.extend(letter.to_lowercase());
            }
            let message = status.message().to_owned();
            Outcome::Refused { code, message, details: all.iter().map(of).collect() }
        }
    }
}

fn of_connect(answer: &Answer) -> Outcome {
    let answer = answer.json();
    let Some(code) = answer["code"].as_str() else { return Outcome::Answered(without_ids(answer)) };
    let of = |detail: &Value| {
        let value = BASE64_STANDARD_NO_PAD.decode(detail["value"].as_str().unwrap()).unwrap();
        details(detail["type"].as_str().unwrap(), &value)
    };
    Outcome::Refused {
        code: code.to_owned(),
        message: answer["message"].as_str().unwrap().to_owned(),
        details: answer["details"].as_array().unwrap().iter().map(of).collect(),
    }
}

/// A question of each kind.
#[derive(Clone)]
enum Asked {
    Expand(v1::ExpandRegistrationScopesRequest),
    Check(v1::CheckAuthorizeScopesRequest),
    Batch(v1::BatchCheckAuthorizeScopesRequest),
    Describe(v1::DescribeAudienceRequest),
}

impl Asked {
    fn json(&self) -> (&'static str, String) {
        use scopeward::proto::json::to_string_of_set as json;
        match self {
            Self::Expand(request) => (EXPAND, json(request).unwrap()),
            Self::Check(request) => (CHECK, json(request).unwrap()),
            Self::Batch(request) => (BATCH, json(request).unwrap()),
            Self::Describe(request) => (DESCRIBE, json(request).unwrap()),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Expand(request) => request.encode_to_vec(),
            Self::Check(request) => request.encode_to_vec(),
            Self::Batch(request) => request.encode_to_vec(),
            Self::Describe(request) => request.encode_to_vec(),
        }
    }

    async fn over_grpc(self, wire: &Wire) -> Outcome {
        let mut client = wire.client().await;
        let with_parent = |mut request: tonic::Request<v1::CheckAuthorizeScopesRequest>| {
            request.metadata_mut().insert("traceparent", TRACEPARENT.parse().unwrap());
            request
        };
        match self {
            Self::Expand(request) => of_grpc(client.expand_registration_scopes(request).await),
            Self::Check(request) => {
                of_grpc(client.check_authorize_scopes(with_parent(tonic::Request::new(request))).await)
            }
            Self::Batch(request) => of_grpc(client.batch_check_authorize_scopes(request).await),
            Self::Describe(request) => of_grpc(client.describe_audience(request).await),
        }
    }
}

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn questions() -> Vec<Asked> {
    let mut desktop = registration(Some("openid"));
    desktop.client = Some(v1::Client {
        client_id: "c".to_owned(),
        source: v1::ClientSource::Dcr.into(),
        client_name: "Ä \"client\"\u{202e}".to_owned(),
        redirect_uris: vec!["http://127.0.0.1:7/cb".to_owned()],
        ..Default::default()
    });
    let mut both = authorize(Some("openid files.read"), Some("openid files"));
    both.audiences.push("https://files.example.com/api".to_owned());
    let mut many = authorize(Some("openid"), None);
    many.audiences = vec![AUDIENCE.to_owned(); 17];
    let mut unprintable = registration(Some("openid"));
    unprintable.correlation_id = "a\u{7}".to_owned();
    let batch = |checks| Asked::Batch(v1::BatchCheckAuthorizeScopesRequest { checks });
    let describe = |audience: &str, page_size| {
        Asked::Describe(v1::DescribeAudienceRequest {
            audience: audience.to_owned(),
            page_size,
            ..Default::default()
        })
    };
    vec![
        Asked::Check(authorize(Some("openid mcp:read"), Some("openid mcp:read"))),
        Asked::Check(authorize(Some("offline_access"), Some("openid"))),
        Asked::Check(authorize(Some("mcp:admin"), Some("mcp:read"))),
        Asked::Check(authorize(Some(r#"bad"scope"#), Some("openid"))),
        Asked::Check(authorize(Some("nowhere"), None)),
        Asked::Check(authorize(Some(""), Some(""))),
        Asked::Check(authorize(None, None)),
        Asked::Check(both.clone()),
        Asked::Check(many.clone()),
        // More look-ups than are made on a serving thread.
        Asked::Check(v1::CheckAuthorizeScopesRequest {
            audiences: vec!["https://files.example.com/api".to_owned(); 16],
            ..authorize(Some("x"), Some(&"s ".repeat(20_000)))
        }),
        Asked::Expand(registration(Some("openid"))),
        Asked::Expand(registration(Some("nowhere"))),
        Asked::Expand(registration(None)),
        Asked::Expand(desktop),
        Asked::Expand(unprintable),
        batch(vec![both, authorize(Some("nothing"), None), authorize(None, None), many]),
        batch(Vec::new()),
        batch(vec![authorize(Some("openid"), None); 101]),
        describe("", 0),
        describe(AUDIENCE, 0),
        describe("https://nobody.example.com", 0),
        describe("", -1),
    ]
}

#[tokio::test]
async fn answers_errors_events_and_counts_are_those_of_grpc() {
    let mut all = Vec::new();
    for over in ["grpc", "json", "proto", "json over http2"] {
        let events = Arc::<Events>::default();
        let wire = Wire::start(Some(Arc::clone(&events) as Arc<dyn Recorder>), http).await;
        let mut outcomes = Vec::new();
        // Without a policy first: UNAVAILABLE.
        for asked in
            questions().into_iter().take(1).chain([Asked::Check(authorize(None, None))]).chain(questions())
        {
            if outcomes.len() == 2 {
                wire.serve(POLICY);
            }
            let (path, text) = asked.json();
            let json = with(post(path, text), "traceparent", TRACEPARENT);
            outcomes.push(match over {
                "grpc" => asked.over_grpc(&wire).await,
                "json" => of_connect(&send(wire.http, json).await),
                "json over http2" => of_connect(&send_http2(wire.http, json).await),
                _ => {
                    let request = with(post(path, asked.bytes()), "content-type", "application/proto");
                    let answer = send(wire.http, with(request, "traceparent", TRACEPARENT)).await;
                    if answer.status.as_u16() == 200 {
                        assert_eq!(answer.header("content-type"), "application/proto");
                        let read = |text: Result<String, _>| serde_json::from_str(&text.unwrap()).unwrap();
                        use scopeward::proto::json::to_string as json;
                        Outcome::Answered(without_ids(match path {
                            EXPAND => read(json(
                                &v1::ExpandRegistrationScopesResponse::decode(answer.body).unwrap(),
                            )),
                            CHECK => {
                                read(json(&v1::CheckAuthorizeScopesResponse::decode(answer.body).unwrap()))
                            }
                            BATCH => read(json(
                                &v1::BatchCheckAuthorizeScopesResponse::decode(answer.body).unwrap(),
                            )),
                            _ => read(json(&v1::DescribeAudienceResponse::decode(answer.body).unwrap())),
                        }))
                    } else {
                        of_connect(&answer)
                    }
                }
            });
        }
        until("all is given back", || wire.pressure.calls() == 0 && wire.pressure.bytes() == 0).await;
        let count = outcomes.len();
        until("every call has ended", || counted(&wire).values().sum::<usize>() == count).await;
        let mut events = events.0.lock().unwrap().clone();
        // The trace is that of the authorize requests alone.
        events
            .iter_mut()
            .filter(|event| !event.method.ends_with("/CheckAuthorizeScopes"))
            .for_each(|event| event.trace_id.clear());
        all.push((over, outcomes, events, counted(&wire)));
        wire.stop().await;
    }
    let (_, grpc, grpc_events, grpc_counts) = all.remove(0);
    assert!(grpc.iter().filter(|outcome| matches!(outcome, Outcome::Refused { .. })).count() >= 6);
    assert!(grpc_events.iter().any(|event| !event.trace_id.is_empty()) && grpc_events.len() > 5);
    for (over, outcomes, events, counts) in all {
        for (at, (ours, grpc)) in outcomes.iter().zip(&grpc).enumerate() {
            assert_eq!(ours, grpc, "{over}, question {at}");
        }
        assert_eq!(events, grpc_events, "{over}");
        assert_eq!(counts, grpc_counts, "{over}");
    }
}

/// An error with this status and code, whose message has this in it.
#[track_caller]
fn check(answer: &Answer, status: u16, code: &str, part: &str) {
    let error = answer.json();
    assert_eq!((answer.status.as_u16(), error["code"].as_str().unwrap()), (status, code), "{answer:?}");
    assert!(error["message"].as_str().unwrap().contains(part), "{part}: {answer:?}");
}

/// The reason of an error of ours.
fn reason(answer: &Answer) -> String {
    let error = answer.json();
    let details = error["details"].as_array().unwrap();
    let info = details.iter().find(|detail| detail["type"] == "google.rpc.ErrorInfo").unwrap();
    info["debug"]["reason"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn requests_that_are_no_calls_are_refused_by_the_rules_of_the_protocol() {
    let wire = wire().await;
    let ask = |request| send(wire.http, request);
    for method in ["GET", "PUT", "OPTIONS"] {
        let mut request = post(CHECK, "{}");
        *request.method_mut() = method.parse().unwrap();
        let answer = ask(request).await;
        check(&answer, 405, "unimplemented", "POST");
        assert_eq!(answer.header("allow"), "POST");
    }
    for content_type in
        ["text/plain", "application/connect+json", "application/grpc", "application/x-www-form-urlencoded"]
    {
        let answer = ask(with(post(CHECK, "{}"), "content-type", content_type)).await;
        check(&answer, 415, "invalid_argument", "content type");
        assert_eq!(answer.header("accept-post"), "application/json, application/proto");
    }
    let mut without = post(CHECK, "{}");
    without.headers_mut().remove("content-type");
    assert_eq!(ask(without).await.status.as_u16(), 415);
    assert_eq!(ask(with(post(CHECK, "{}"), "connect-protocol-version", "1")).await.status.as_u16(), 200);
    check(
        &ask(with(post(CHECK, "{}"), "connect-protocol-version", "2")).await,
        400,
        "invalid_argument",
        "`2`",
    );
    assert_eq!(ask(with(post(CHECK, "{}"), "content-encoding", "identity")).await.status.as_u16(), 200);
    let coded = ask(with(post(CHECK, "{}"), "content-encoding", "gzip")).await;
    check(&coded, 501, "unimplemented", "only `identity`");
    assert_eq!(coded.header("accept-encoding"), "identity");
    check(
        &ask(with(post(CHECK, "{}"), "connect-timeout-ms", "soon")).await,
        400,
        "invalid_argument",
        "connect-timeout-ms",
    );
    assert_eq!(ask(with(post(CHECK, "{}"), "connect-timeout-ms", "9999999999")).await.status.as_u16(), 200);
    assert_eq!(
        ask(with(post(CHECK, "{}"), "accept-encoding", "gzip, br")).await.header("content-encoding"),
        ""
    );
    wire.stop().await;
}

#[tokio::test]
async fn bodies_that_are_no_messages_are_refused_with_the_place() {
    let wire = wire().await;
    let deep = format!(r#"{{"client":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let bad: &[(&str, &str)] = &[
        ("", "EOF"),
        ("{", "EOF"),
        ("[]", "line 1 column 0"),
        ("{} {}", "trailing"),
        (r#"{"scope":1}"#, "line 1 column 10"),
        ("{\n  \"registred_scope\": \"a\"\n}", "registred_scope"),
        (r#"{"scope":"a","scope":"b"}"#, "duplicate member"),
        (r#"{"scope":"a","sc\u006fpe":"b"}"#, "duplicate member"),
        (r#"{"registeredScope":"a","registered_scope":"b"}"#, "are the same field"),
        (r#"{"client":{"clientId":"a","client_id":"b"}}"#, "are the same field"),
        (r#"{"client":{"source":"CLIENT_SOURCE_NOBODY"}}"#, "CLIENT_SOURCE_NOBODY"),
        (&deep, "recursion"),
        ("{\"scope\":\"\u{7}\"}", "control character"),
    ];
    for (body, part) in bad {
        let answer = send(wire.http, post(CHECK, (*body).to_owned())).await;
        check(&answer, 400, "invalid_argument", part);
        assert_eq!(reason(&answer), "MESSAGE_MALFORMED", "{body}");
    }
    assert_eq!(send(wire.http, post(CHECK, &b"{\"scope\":\"\xff\"}"[..])).await.status.as_u16(), 400);
    let proto = with(post(CHECK, &b"\x0a\xff"[..]), "content-type", "application/proto");
    check(&send(wire.http, proto).await, 400, "invalid_argument", "could not be decoded");
    // As the mapping has it: both names, null as unset, numbers of enums.
    let names = r#"{"audiences":["https://mcp.example.com"],"scope":"openid","registered_scope":null,"client":{"source":1}}"#;
    assert_eq!(send(wire.http, post(CHECK, names)).await.json()["decision"], "DECISION_ALLOW");
    wire.stop().await;
}

#[tokio::test]
async fn messages_over_the_limit_are_refused_before_they_are_there() {
    let wire = wire().await;
    let registered = |bytes: usize| format!(r#"{{"registeredScope":"{}"}}"#, "a".repeat(bytes));
    assert_eq!(send(wire.http, post(CHECK, registered(200_000))).await.status.as_u16(), 200);
    for body in [registered(262_145), registered(600_000)] {
        let answer = send(wire.http, post(CHECK, body)).await;
        check(&answer, 400, "invalid_argument", "the limit is");
        assert_eq!(reason(&answer), "MESSAGE_TOO_LARGE");
    }
    let proto = with(post(CHECK, vec![0; 262_145]), "content-type", "application/proto");
    check(&send(wire.http, proto).await, 400, "invalid_argument", "has 262145 bytes, the limit is 262144");
    // What is only announced is refused as well.
    let mut stream = TcpStream::connect(wire.http).await.unwrap();
    let head = format!(
        "POST {CHECK} HTTP/1.1\r\nHost: a\r\nContent-Type: application/proto\r\nContent-Length: 999999999\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    within("a status line", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 400");
    drop(stream);
    until("all is given back", || wire.pressure.calls() == 0 && wire.pressure.bytes() == 0).await;
    wire.stop().await;
}

#[tokio::test]
async fn budgets_deadlines_and_panics_are_those_of_grpc() {
    let start = |recorder: Option<Arc<dyn Recorder>>, change: fn(&mut PeerLimits)| async move {
        let wire = Wire::start(recorder, |config| {
            http(config);
            change(&mut config.limits);
        })
        .await;
        wire.serve(&one_audience("scopesSupported: [a]"));
        wire
    };
    let denied = || post(CHECK, r#"{"scope":"b","registeredScope":"b"}"#);
    // No place: UNAVAILABLE with the cause.
    let wire = start(None, |limits| limits.max_calls = 0).await;
    let full = send(wire.http, denied()).await;
    check(&full, 503, "unavailable", "overloaded");
    assert_eq!(reason(&full), "OVERLOADED");
    wire.stop().await;
    // A body that does not come.
    let wire = start(None, |limits| limits.message_timeout = Duration::from_millis(20)).await;
    let mut slow = TcpStream::connect(wire.http).await.unwrap();
    let head = format!(
        "POST {CHECK} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{{"
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("an answer", slow.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 504") && answer.contains("DEADLINE_EXCEEDED"), "{answer}");
    wire.stop().await;
    // A record that does not become durable: the deadline of the caller counts.
    let wire = start(Some(Arc::<Never>::default()), |_| {}).await;
    let waiting = send(wire.http, with(post(EXPAND, "{}"), "connect-timeout-ms", "30")).await;
    check(&waiting, 504, "deadline_exceeded", "deadline");
    // A caller that goes away takes its call with it.
    let mut gone = TcpStream::connect(wire.http).await.unwrap();
    let body = "{}";
    let head = format!(
        "POST {EXPAND} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    gone.write_all(head.as_bytes()).await.unwrap();
    until("the call is in flight", || wire.pressure.calls() == 1).await;
    drop(gone);
    until("it is given back", || wire.pressure.calls() == 0).await;
    let canceled = counted(&wire).into_iter().filter(|(labels, _)| labels.contains("Canceled")).count();
    assert_eq!(canceled, 1, "{:?}", counted(&wire));
    wire.stop().await;
    let wire = start(Some(Arc::new(Panicking)), |_| {}).await;
    let panicked = send(wire.http, denied()).await;
    check(&panicked, 500, "internal", "inside the server");
    let fine = send(wire.http, post(CHECK, r#"{"scope":"a","registeredScope":"a"}"#)).await;
    assert_eq!(fine.json()["decision"], "DECISION_ALLOW");
    until("all is given back", || wire.pressure.calls() == 0).await;
    wire.stop().await;
}

#[tokio::test]
async fn heads_that_programs_in_front_may_read_differently_are_refused() {
    let wire = wire().await;
    for head in [
        "Host: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked",
        "Host: a\r\nHost: b\r\nContent-Length: 2",
        "Content-Length: 2",
    ] {
        let mut stream = TcpStream::connect(wire.http).await.unwrap();
        let request =
            format!("POST {CHECK} HTTP/1.1\r\nContent-Type: application/json\r\n{head}\r\n\r\n{{}}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within("the connection ends", stream.read_to_string(&mut answer)).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 400") && answer.contains("invalid_argument"),
            "{head}: {answer}"
        );
    }
    wire.stop().await;
}

#[tokio::test]
async fn a_refusal_leaves_its_connection_of_use() {
    let wire = wire().await;
    let mut stream = TcpStream::connect(wire.http).await.unwrap();
    let body = "x".repeat(50_000);
    let mut statuses = Vec::new();
    for (path, content_type, body) in [
        (CHECK, "text/plain", &*body),
        ("/nowhere", "application/json", &*body),
        (CHECK, "application/json", "{}"),
    ] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(within("a head", stream.read_u8()).await.unwrap());
        }
        let head = String::from_utf8(answer).unwrap();
        let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
        within("a body", stream.read_exact(&mut vec![0; length.parse().unwrap()])).await.unwrap();
        statuses.push(head[9..12].to_owned());
    }
    assert_eq!(statuses, ["415", "404", "200"]);
    wire.stop().await;
}

#[tokio::test]
async fn drain_finishes_calls_closes_idle_connections_and_names_what_it_cuts() {
    let wire = wire().await;
    let mut idle = TcpStream::connect(wire.http).await.unwrap();
    idle.write_all(format!("POST {CHECK} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}").as_bytes())
        .await
        .unwrap();
    within("an answer", idle.read_exact(&mut [0; 12])).await.unwrap();
    let drained = wire.stop().await;
    assert_eq!(drained.cut_calls, []);
    within("the connection is closed", idle.read_to_end(&mut Vec::new())).await.unwrap();

    let wire = Wire::start(Some(Arc::<Never>::default()), |config| {
        http(config);
        config.shutdown_timeout = Duration::from_millis(200);
    })
    .await;
    wire.serve(&one_audience("scopesSupported: [openid, a], baselineClientScopes: [a]"));
    let stuck = tokio::spawn({
        let addr = wire.http;
        async move {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            let body = r#"{"scope":"openid"}"#;
            let head = format!(
                "POST {EXPAND} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    until("the call is in flight", || wire.pressure.calls() == 1).await;
    let drained = wire.stop().await;
    assert_eq!(drained.cut_calls, [(EXPAND.to_owned(), 1)]);
    stuck.await.unwrap();
}

#[tokio::test]
async fn access_file_and_tls_count_as_for_grpc() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("policies")).unwrap();
    fs::write(folder.path().join("policies/mcp.yaml"), service::POLICY).unwrap();
    let access = format!(
        "callers:\n- name: web\n  match:\n  - tokenSha256: {}\n  may: [decide]\n- name: shell\n  match:\n  - tokenSha256: {}\n  may: [describe]\n- name: auditor\n  match:\n  - tokenSha256: {}\n  may: [audit]\n",
        hash("secret"),
        hash("other"),
        hash("auditor")
    );
    fs::write(folder.path().join("access.yaml"), access).unwrap();
    let authority = Authority::new("ca");
    let Files { chain: certificate, key: private_key } = authority.issue(&[]).write(folder.path(), "server");
    let mut settings = service::settings(folder.path());
    http(&mut settings.server);
    settings.server.listen.push(scopeward::server::listen::ListenAddr::Unix(folder.path().join("socket")));
    settings.server.tls = Some(TlsFiles { certificate, private_key, client_ca: None });
    settings.access_file = Some(folder.path().join("access.yaml"));
    let service = Service::start_in(folder, settings).await.unwrap();
    let connect = async |addr, alpn: &[u8]| {
        let mut config = client(&authority.pem(), None);
        config.alpn_protocols = vec![alpn.to_vec()];
        handshake(addr, config).await
    };
    let ask = async |token: &str, path: &str, alpn: &[u8]| {
        let stream = connect(service.http, alpn).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn));
        let request = post(path, r#"{"scope":"nothing"}"#);
        let request = if token.is_empty() {
            request
        } else {
            with(request, "authorization", &format!("Bearer {token}"))
        };
        send_over(stream, request).await
    };
    let http1: &[u8] = b"http/1.1";
    let unknown = ask("", CHECK, http1).await;
    check(&unknown, 401, "unauthenticated", "not authenticated");
    assert_eq!(unknown.header("www-authenticate"), "Bearer");
    // Nobody learns what there is.
    check(&ask("", "/x", http1).await, 401, "unauthenticated", "not authenticated");
    check(&ask("wrong", CHECK, http1).await, 401, "unauthenticated", "not authenticated");
    check(&ask("other", CHECK, http1).await, 403, "permission_denied", "may not call");
    assert_eq!(ask("secret", CHECK, http1).await.json()["decision"], "DECISION_DENY");
    let http2 = connect(service.http, b"h2").await.unwrap();
    assert_eq!(http2.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    drop(http2);
    // gRPC is HTTP/2 alone.
    connect(service.grpc, http1).await.unwrap_err();
    let denials =
        v1::StreamAuditEventsRequest { kinds: vec![v1::AuditEventKind::Denial.into()], ..Default::default() };
    let mut audit = v1::audit_service_client::AuditServiceClient::new(service.channel.clone());
    let mut audit = audit.stream_audit_events(with_token(denials, "auditor")).await.unwrap().into_inner();
    let event = loop {
        let message = within("an event", audit.message()).await.unwrap().unwrap();
        if let Some(v1::stream_audit_events_response::Message::Event(event)) = message.message {
            break event;
        }
    };
    assert_eq!(event.method, CHECK);
    let caller = event.caller.unwrap();
    assert_eq!((caller.name.as_str(), caller.authenticated_by.as_str()), ("web", "token"));
    drop(audit);
    service.stop().await;
}

fn with_token<T>(message: T, token: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}
