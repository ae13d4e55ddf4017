//! Spans of a real server, as a collector gets them, and what a server makes of a collector that is not there.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tonic::Code;

use super::serve::{Piped, place};
use super::*;
use crate::certs::{Authority, Name};
use crate::collector::{Answer, Collected, Collector};
use crate::service::{DEADLINE, POLICY};

mod calls;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// A server that sends spans almost at once.
fn start(place: &Place, collector: &str, variables: &[(&str, &str)]) -> Piped {
    start_with(place, &[], collector, variables)
}

fn start_with(place: &Place, flags: &[&str], collector: &str, variables: &[(&str, &str)]) -> Piped {
    let first = [(ENDPOINT, collector), ("OTEL_BSP_SCHEDULE_DELAY", "10")];
    let variables: Vec<_> =
        first.iter().chain(variables).map(|(name, value)| (*name, OsStr::new(*value))).collect();
    Piped::start_with(place, &[&["--removal-quiet", "20ms"], flags].concat(), &variables)
}

fn ended(mut server: Piped) -> String {
    server.signal("TERM");
    let status = server.end();
    let errors = server.errors();
    assert_eq!(status.code(), Some(0), "{errors}");
    errors
}

fn is_reload(collected: &Collected) -> bool {
    collected.span.name == "policy reload"
}

/// Waits until a metric is as large.
fn wait_for(server: &Piped, metric: &str, least: f64) {
    let deadline = Instant::now() + DEADLINE;
    while server.metric(metric) < least {
        assert!(Instant::now() < deadline, "{metric} of {least}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until so many spans were dropped for this cause.
fn wait_for_dropped(server: &Piped, cause: &str, least: f64) {
    wait_for(server, &format!("scopeward_spans_dropped_total{{cause=\"{cause}\"}}"), least);
}

#[test]
fn each_attempt_to_load_the_policy_is_a_span() {
    let place = place();
    let mut collector = Collector::start(Answer::Take);
    let server = start(
        &place,
        &collector.url(),
        &[("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod%201")],
    );
    let first = collector.span("the span of the first load", is_reload);
    let expect = |collected: &Collected, result: &str, generation: &str, findings: &str| {
        let attributes = collected.attributes();
        assert_eq!(attributes["scopeward.reload.result"], result);
        assert_eq!(attributes["scopeward.policy.generation"], generation);
        assert_eq!(attributes["scopeward.policy.findings"], findings);
    };
    // The policy has one warning.
    expect(&first, "accepted", "1", "1");
    let Collected { span, resource, .. } = &first;
    assert_eq!(span.kind, SpanKind::Internal as i32);
    assert!(span.parent_span_id.is_empty() && span.trace_id.len() == 16 && span.span_id.len() == 8);
    assert!(span.start_time_unix_nano < span.end_time_unix_nano);
    assert_eq!(span.status.as_ref().unwrap().code, StatusCode::Unset as i32);
    for (key, value) in [
        ("service.name", "scopeward"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("deployment.environment.name", "prod 1"),
        ("telemetry.sdk.language", "rust"),
    ] {
        assert_eq!(resource[key], value, "{resource:?}");
    }

    let of = |result: &'static str| {
        move |one: &Collected| is_reload(one) && one.attributes()["scopeward.reload.result"] == result
    };
    place.write("policies/mcp.yaml", "audiences: [\n");
    let rejected = collector.span("the span of a bad edit", of("rejected"));
    let findings = &rejected.attributes()["scopeward.policy.findings"];
    assert_ne!(findings, "0");
    expect(&rejected, "rejected", "1", findings);
    assert_eq!(rejected.attributes()["error.type"], "policy_rejected");
    assert_eq!(rejected.span.status.as_ref().unwrap().code, StatusCode::Error as i32);
    place.write("policies/mcp.yaml", format!("# the same\n{}", POLICY));
    expect(&collector.span("the span of the same policy", of("unchanged")), "unchanged", "1", "1");
    place.write("policies/mcp.yaml", POLICY.replace("mcp:write", "mcp:admin"));
    let second =
        |one: &Collected| of("accepted")(one) && one.attributes()["scopeward.policy.generation"] == "2";
    expect(&collector.span("the span of a good edit", second), "accepted", "2", "1");
    wait_for(&server, "scopeward_spans_exported_total", 4.0);
    let log = ended(server);
    assert!(!log.contains("spans were dropped"), "{log}");
}

#[test]
fn spans_that_wait_are_sent_at_the_end() {
    let place = place();
    let mut collector = Collector::start(Answer::Take);
    let server = start(&place, &collector.url(), &[("OTEL_BSP_SCHEDULE_DELAY", "3600000")]);
    assert_eq!(collector.asked(), 0);
    ended(server);
    collector.span("the span of the first load", is_reload);
}

#[test]
fn a_full_batch_is_sent_at_once() {
    let place = place();
    let mut collector = Collector::start(Answer::Take);
    let variables = [("OTEL_BSP_SCHEDULE_DELAY", "3600000"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")];
    let server = start(&place, &collector.url(), &variables);
    collector.span("the span of the first load", is_reload);
    ended(server);
}

#[test]
fn headers_go_with_each_export() {
    let place = place();
    let mut collector = Collector::start(Answer::Take);
    let list = "authorization=Bearer%20hunter2,x-tenant=a";
    let server =
        start_with(&place, &["--log", "trace"], &collector.url(), &[("OTEL_EXPORTER_OTLP_HEADERS", list)]);
    let span = collector.span("the span of the first load", is_reload);
    assert_eq!(span.headers.get("authorization").unwrap(), "Bearer hunter2");
    assert_eq!(span.headers.get("x-tenant").unwrap(), "a");
    let log = ended(server);
    assert!(!log.contains("hunter2"), "a secret in the log");
    // At the lowest level, too, nothing is logged of how spans are sent.
    assert!(!log.contains("TraceService"), "{log}");
}

#[test]
fn without_a_collector_in_the_environment_there_are_no_spans() {
    let place = place();
    let mut collector = Collector::start(Answer::Take);
    for variables in
        [&[("OTEL_SDK_DISABLED", "true")][..], &[("OTEL_TRACES_EXPORTER", "none")], &[(ENDPOINT, "")]]
    {
        let log = ended(start(&place, &collector.url(), variables));
        assert!(!log.contains("spans"), "{log}");
    }
    assert_eq!(collector.asked(), 0);
    // With no sampled span there is nothing to send.
    ended(start(&place, &collector.url(), &[("OTEL_TRACES_SAMPLER", "always_off")]));
    assert_eq!(collector.asked(), 0);
    ended(start(&place, &collector.url(), &[]));
    collector.span("the span of the first load", is_reload);
}

#[test]
fn a_collector_that_is_not_there_costs_spans_and_one_line() {
    let place = place();
    // Bound and not listened to: connections are refused, and nobody else gets the port.
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = refusing.local_addr().unwrap();
    drop(refusing);
    let server = start(&place, &format!("http://{addr}"), &[("OTEL_EXPORTER_OTLP_TIMEOUT", "50")]);
    wait_for_dropped(&server, "export_failed", 1.0);
    server.expand(1);
    place.write("policies/mcp.yaml", "audiences: [\n");
    wait_for_dropped(&server, "export_failed", 2.0);
    let log = ended(server);
    let lines: Vec<_> = log.lines().filter(|line| line.contains("spans were dropped")).collect();
    let [line] = &*lines else { panic!("{log}") };
    assert!(line.contains("WARN") && line.contains("could not be reached: connection refused"), "{line}");
}

#[test]
fn a_collector_that_never_answers_holds_up_nothing() {
    let place = place();
    let collector = Collector::start(Answer::Hang);
    let variables = [("OTEL_BSP_MAX_QUEUE_SIZE", "2"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000")];
    let server = start_with(&place, &["--shutdown-timeout", "5s"], &collector.url(), &variables);
    for edit in 0..5 {
        place.write("policies/mcp.yaml", format!("audiences: [ # {edit}\n"));
        let attempts = f64::from(edit) + 1.0;
        wait_for(&server, "scopeward_policy_reloads_total{result=\"rejected\"}", attempts);
    }
    server.expand(1);
    // One export, of at most two spans, hangs; two more wait; others are dropped.
    wait_for_dropped(&server, "queue_full", 2.0);
    // The shutdown is in time and clean, and says what is lost.
    let log = ended(server);
    assert!(log.contains("spans were dropped"), "{log}");
    assert_eq!(collector.asked(), 1);
}

#[test]
fn an_export_that_can_be_tried_again_is() {
    let place = place();
    let mut collector = Collector::start(Answer::Refuse(1, Code::Unavailable));
    let server = start(&place, &collector.url(), &[]);
    collector.span("the span of the first load", is_reload);
    assert_eq!(collector.asked(), 2);
    let log = ended(server);
    assert!(!log.contains("spans were dropped"), "{log}");
}

#[test]
fn an_export_that_is_refused_for_good_is_dropped() {
    let place = place();
    for code in [Code::InvalidArgument, Code::ResourceExhausted, Code::Unauthenticated] {
        let collector = Collector::start(Answer::Refuse(1, code));
        let server = start(&place, &collector.url(), &[]);
        wait_for_dropped(&server, "export_failed", 1.0);
        assert_eq!(collector.asked(), 1);
        let log = ended(server);
        assert!(log.contains(&format!("{code:?}: not ")) && !log.contains('\u{1b}'), "{log}");
    }
}

#[test]
fn spans_that_the_collector_rejects_are_counted() {
    let place = place();
    let collector = Collector::start(Answer::Reject(1));
    let server = start(&place, &collector.url(), &[]);
    wait_for_dropped(&server, "rejected", 1.0);
    assert_eq!(server.metric("scopeward_spans_exported_total"), 0.0);
    let log = ended(server);
    assert!(log.contains("the collector rejected them: too"), "{log}");
    assert!(!log.contains('\u{1b}'), "{log}");
}

#[test]
fn spans_go_over_tls_with_a_certificate_of_our_own() {
    let place = place();
    let (ca, clients) = (Authority::new("CA"), Authority::new("clients"));
    let files = ca.issue(&[Name::Dns("localhost")]).write(place.0.path(), "collector");
    clients.issue(&[]).write(place.0.path(), "client");
    place.write("ca.pem", ca.pem());
    place.write("clients.pem", clients.pem());
    let mut collector = Collector::start(Answer::Take);
    let url = collector.over_tls(&files, &place.0.path().join("clients.pem"));
    let own = [
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "client.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "client.key"),
    ];
    let server = start(&place, &url, &own);
    collector.span("the span of the first load", is_reload);
    ended(server);

    // Another authority, or no certificate: nothing arrives, and the log says why.
    let timeout = ("OTEL_EXPORTER_OTLP_TIMEOUT", "200");
    for variables in [&[("OTEL_EXPORTER_OTLP_CERTIFICATE", "clients.pem"), timeout][..], &[own[0], timeout]] {
        let server = start(&place, &url, variables);
        wait_for_dropped(&server, "export_failed", 1.0);
        let log = ended(server);
        assert!(log.contains("spans were dropped"), "{log}");
    }
}

#[test]
fn a_variable_that_says_where_spans_go_stops_the_start_if_it_is_wrong() {
    let place = place();
    place.write("empty.pem", "");
    let flags = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    for (variables, expected) in [
        (
            &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")][..],
            "OTEL_EXPORTER_OTLP_PROTOCOL in the environment has an invalid value `http/protobuf`",
        ),
        (&[(ENDPOINT, "http://127.0.0.1:4318/v1/traces")], "OTLP over HTTP"),
        (&[(ENDPOINT, "https://localhost:1")], "OTEL_EXPORTER_OTLP_CERTIFICATE"),
        (
            &[(ENDPOINT, "https://localhost:1"), ("OTEL_EXPORTER_OTLP_CERTIFICATE", "nowhere.pem")],
            "`nowhere.pem`",
        ),
        (
            &[(ENDPOINT, "https://localhost:1"), ("OTEL_EXPORTER_OTLP_CERTIFICATE", "empty.pem")],
            "`empty.pem`",
        ),
        (&[("OTEL_EXPORTER_OTLP_HEADERS", "hunter2")], "OTEL_EXPORTER_OTLP_HEADERS"),
        (&[("OTEL_TRACES_EXPORTER", "zipkin")], "one of: otlp, none"),
    ] {
        let mut command = place.command(&flags);
        command.env(ENDPOINT, "http://127.0.0.1:1").envs(variables.iter().copied());
        let ran = ran(command);
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{variables:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{expected} in {}", ran.stderr);
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    }
}

#[test]
fn any_other_variable_that_is_wrong_is_ignored_with_a_warning() {
    let place = place();
    let mut collector = Collector::start(Answer::Take);
    let mut command = place.command(&["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command
        .env(ENDPOINT, collector.url())
        .envs([
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_BSP_SCHEDULE_DELAY", "1s"),
            ("OTEL_PROPAGATORS", "b3"),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut missing =
        vec!["OTEL_TRACES_SAMPLER=`sometimes`", "OTEL_BSP_SCHEDULE_DELAY=`1s`", "OTEL_PROPAGATORS=`b3`"];
    while !missing.is_empty() {
        let line = log.next().expect("a line for each");
        missing.retain(|text| !(line.contains(text) && line.contains("WARN")));
    }
    collector.span("the span of the first load", is_reload);
    _ = child.kill();
    _ = child.wait();
}
