//! Spans of a gateway, as a collector gets them.

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use rustix::process::{Pid, Signal, kill_process};

use super::upstream::{PUBLIC, Upstream};
use super::{Answer as HttpAnswer, Binary, folder, get, post};
use crate::collector::{Answer, Collected, Collector};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

struct Traced {
    runtime: tokio::runtime::Runtime,
    collector: Collector,
    upstream: Upstream,
    gateway: Binary,
    folder: tempfile::TempDir,
}

impl Traced {
    fn start(variables: &str) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let collector = Collector::start(Answer::Take);
        let upstream = runtime.block_on(Upstream::start());
        let folder = folder();
        let shell = format!(
            "export OTEL_EXPORTER_OTLP_ENDPOINT={} OTEL_BSP_SCHEDULE_DELAY=10 {variables};",
            collector.url()
        );
        let gateway = Binary::start(folder.path(), &upstream, &shell, &[]);
        Self { runtime, collector, upstream, gateway, folder }
    }

    fn send(&self, request: &str) -> HttpAnswer {
        self.runtime.block_on(self.gateway.send(request))
    }

    /// The spans of a request to the gateway and of what it sent to the upstream, by an attribute of the first.
    fn pair(&mut self, key: &str, value: &str) -> (Collected, Collected) {
        let is_server = |one: &Collected| {
            one.span.kind == SpanKind::Server as i32
                && one.attributes().get(key).is_some_and(|found| found == value)
        };
        let server = self.collector.span(value, is_server);
        let id = server.span.span_id.clone();
        let client = self.collector.span("the span below", |one| one.span.parent_span_id == id);
        (server, client)
    }

    fn end(mut self) {
        kill_process(Pid::from_child(&self.gateway.child), Signal::TERM).unwrap();
        assert!(self.gateway.child.wait().unwrap().success());
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn status(collected: &Collected) -> i32 {
    collected.span.status.as_ref().unwrap().code
}

#[test]
fn a_login_is_a_span_with_its_decision_and_the_upstream_gets_its_parent() {
    let mut traced = Traced::start("");
    let registered = traced.send(&post("/register", "application/json", r#"{"scope":"openid"}"#));
    assert_eq!(registered.status, 201);
    let id = registered.json()["client_id"].as_str().unwrap().to_owned();
    let (server, _) = traced.pair("scopeward.endpoint", "registration");
    assert_eq!(server.span.name, "POST /register");
    assert!(server.span.parent_span_id.is_empty());
    traced.upstream.take();

    let target = format!("/authorize?client_id={id}&scope=openid&state=hunter2");
    let caller = format!("traceparent: 00-{TRACE}-{CALLER}-01\r\ntracestate: vendor=1\r\n");
    let request = get(&target).replacen("\r\n", &format!("\r\n{caller}"), 1);
    assert_eq!(traced.send(&request).status, 200);
    let (server, client) = traced.pair("scopeward.endpoint", "authorization");
    assert_eq!((&*server.span.name, &*client.span.name), ("GET /authorize", "GET"));
    assert_eq!((hex(&server.span.trace_id), hex(&server.span.parent_span_id)), (TRACE.into(), CALLER.into()));
    assert_eq!(client.span.kind, SpanKind::Client as i32);
    let attributes = server.attributes();
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/authorize"),
        ("http.response.status_code", "200"),
        ("url.scheme", "http"),
        ("server.address", PUBLIC.trim_start_matches("http://")),
        ("server.port", "80"),
        ("network.peer.address", "127.0.0.1"),
        ("scopeward.decision", "ALLOW"),
        ("scopeward.policy.generation", "1"),
    ] {
        assert_eq!(attributes.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert_eq!(client.attributes()["server.port"], traced.upstream.addr.port().to_string());
    assert_eq!(client.attributes()["http.response.status_code"], "200");
    let seen = traced.upstream.one();
    let parent = format!("00-{TRACE}-{}-01", hex(&client.span.span_id));
    assert_eq!(seen.header("traceparent"), Some(&*parent));
    assert_eq!(seen.header("tracestate"), Some("vendor=1"));

    // A denial is no error, and goes nowhere.
    let denied = traced.send(&get(&format!("/authorize?client_id={id}&scope=admin")));
    assert_eq!(denied.status, 400);
    let denial = traced.collector.span("a denial", |one| {
        one.attributes().get("scopeward.decision").is_some_and(|decision| decision == "DENY")
    });
    assert_eq!(denial.attributes()["scopeward.reason"], "FORBIDDEN");
    assert_eq!(denial.attributes()["http.response.status_code"], "400");
    assert_eq!(status(&denial), StatusCode::Unset as i32);
    // What passes has no route: its path is what a client thinks of.
    let own = "traceparent: 00-hunter2\r\ntracestate: hunter2=1\r\nx-hunter2: hunter2\r\n";
    traced.send(&get("/hunter2?hunter2").replacen("\r\n", &format!("\r\n{own}"), 1));
    let (server, client) = traced.pair("scopeward.endpoint", "other");
    assert_eq!((&*server.span.name, server.attributes().get("http.route")), ("GET", None));
    assert_eq!(server.attributes()["http.response.status_code"], "404");
    assert_eq!((status(&server), status(&client)), (StatusCode::Unset as i32, StatusCode::Error as i32));
    let seen = traced.upstream.one();
    assert!(seen.header("traceparent").unwrap().starts_with(&format!("00-{}", hex(&server.span.trace_id))));
    assert_eq!(seen.header("tracestate"), None);
    traced.send("HUNTER2 /page HTTP/1.1\r\nHost: hunter2\r\nConnection: close\r\n\r\n");
    traced.collector.span("an odd method", |one| one.span.name == "_OTHER");
    for one in traced.collector.seen(|_| true) {
        let text = format!("{:?}", one.span);
        assert!(
            !text.contains("unter2") && !text.contains("UNTER2") && !text.contains(&format!("{id:?}")),
            "{text}"
        );
    }
    // Where the upstream does not answer, both are errors.
    let runtime = tokio::runtime::Handle::clone(traced.runtime.handle());
    let Traced { upstream, .. } = &mut traced;
    let other = runtime.block_on(Upstream::start());
    runtime.block_on(std::mem::replace(upstream, other).stop());
    assert_eq!(traced.send(&get("/page")).status, 502);
    let (server, client) = traced.pair("http.response.status_code", "502");
    assert_eq!((status(&server), status(&client)), (StatusCode::Error as i32, StatusCode::Error as i32));
    assert_eq!(server.attributes()["error.type"], "502");
    let cause = client.attributes()["error.type"].clone();
    assert!(["connect", "broken"].contains(&&*cause), "{cause}");
    traced.end();
}

#[test]
fn a_request_that_is_not_sampled_keeps_the_parent_of_its_caller() {
    let mut traced = Traced::start("OTEL_TRACES_SAMPLER=always_off");
    let header = format!("00-{TRACE}-{CALLER}-01");
    let request = get("/page").replacen("\r\n", &format!("\r\ntraceparent: {header}\r\n"), 1);
    traced.send(&request);
    assert_eq!(traced.upstream.one().header("traceparent"), Some(&*header));
    assert_eq!(traced.collector.seen(|_| true).len(), 0);
    assert!(traced.folder.path().exists());
    traced.end();
}
