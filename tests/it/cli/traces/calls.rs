//! The spans of calls: of every kind of call and of every end.

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use scopeward::rpc::v1;
use scopeward::rpc::v1::audit_service_client::AuditServiceClient;
use scopeward::rpc::v1::policy_status_service_client::PolicyStatusServiceClient;
use scopeward::rpc::v1::scope_policy_service_client::ScopePolicyServiceClient;
use sha2::{Digest, Sha256};
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::*;
use crate::harness::within;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const SERVICE: &str = "scopeward.v1.ScopePolicyService";

/// A server that is called, and its collector.
struct Called {
    place: Place,
    collector: Collector,
    server: Piped,
    runtime: tokio::runtime::Runtime,
}

impl Called {
    fn start(flags: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_in(place(), flags, variables)
    }

    fn start_in(place: Place, flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let collector = Collector::start(Answer::Take);
        let server = start_with(&place, flags, &collector.url(), variables);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { place, collector, server, runtime }
    }

    fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(self.server.url.clone()).unwrap();
        self.runtime.block_on(within("a connection", endpoint.connect())).unwrap()
    }

    /// Asks for the scopes of an authorize request, with these headers.
    fn authorize(
        &self,
        scope: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<v1::CheckAuthorizeScopesResponse, tonic::Status> {
        let mut request = Request::new(question(scope));
        add(request.metadata_mut(), headers);
        let mut client = ScopePolicyServiceClient::new(self.channel());
        let answer = self.runtime.block_on(within("an answer", client.check_authorize_scopes(request)));
        answer.map(tonic::Response::into_inner)
    }

    /// The span of the newest call of a method.
    fn span(&mut self, method: &str) -> Collected {
        let name = method.to_owned();
        self.collector.span(method, move |one| one.span.name == name)
    }
}

fn question(scope: &str) -> v1::CheckAuthorizeScopesRequest {
    v1::CheckAuthorizeScopesRequest {
        audiences: vec![MCP.to_owned()],
        client: Some(v1::Client {
            client_id: "client-hunter2".to_owned(),
            client_name: "name-hunter2".to_owned(),
            ..Default::default()
        }),
        scope: Some(scope.to_owned()),
        registered_scope: Some("openid mcp:read".to_owned()),
        correlation_id: "login-hunter2".to_owned(),
    }
}

fn add(metadata: &mut MetadataMap, headers: &[(&'static str, &str)]) {
    for (name, value) in headers {
        metadata.append(*name, value.parse().unwrap());
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn status(collected: &Collected) -> i32 {
    collected.span.status.as_ref().unwrap().code
}

/// The code of a call, and whether it is an error of the server.
#[track_caller]
fn ended_with(collected: &Collected, code: &str, is_error: bool) {
    let attributes = collected.attributes();
    assert_eq!(attributes["rpc.system.name"], "grpc");
    assert_eq!(attributes["rpc.status_code"], code);
    let (error, expected) =
        if is_error { (Some(code), StatusCode::Error) } else { (None, StatusCode::Unset) };
    assert_eq!(attributes.get("error.type").map(String::as_str), error);
    assert_eq!(status(collected), expected as i32);
    assert_eq!(collected.span.kind, SpanKind::Server as i32);
}

#[test]
fn an_answer_is_a_server_span_with_its_decision() {
    let mut called = Called::start(&[], &[]);
    let answer = called.authorize("openid", &[]).unwrap();
    let span = called.span("scopeward.v1.ScopePolicyService/CheckAuthorizeScopes");
    ended_with(&span, "OK", false);
    let attributes = span.attributes();
    let (host, port) = called.server.url.trim_start_matches("http://").split_once(':').unwrap();
    for (key, value) in [
        ("rpc.method", "scopeward.v1.ScopePolicyService/CheckAuthorizeScopes"),
        ("server.address", host),
        ("server.port", port),
        ("network.peer.address", "127.0.0.1"),
        ("scopeward.decision", "ALLOW"),
        ("scopeward.decision_id", &answer.decision_id),
        ("scopeward.audiences", "1"),
        ("scopeward.policy.generation", "1"),
    ] {
        assert_eq!(attributes[key], value, "{key}");
    }
    assert!(attributes["network.peer.port"].parse::<u16>().is_ok());
    assert!(!attributes.contains_key("scopeward.reason") && !attributes.contains_key("scopeward.caller"));
    assert!(span.span.parent_span_id.is_empty());
    assert!(span.span.start_time_unix_nano < span.span.end_time_unix_nano);

    called.authorize("admin", &[]).unwrap();
    let denied = |one: &Collected| {
        one.attributes().get("scopeward.decision").is_some_and(|decision| decision == "DENY")
    };
    let denial = called.collector.span("the span of a denial", denied);
    ended_with(&denial, "OK", false);
    assert_eq!(denial.attributes()["scopeward.reason"], "UNSUPPORTED");
    ended(called.server);
}

#[test]
fn the_parent_of_a_span_is_that_of_the_caller_and_the_trace_is_that_of_the_audit() {
    let mut called = Called::start(&[], &[]);
    let headers = [("traceparent", &*format!("00-{TRACE}-{PARENT}-01")), ("tracestate", "a=1,b@c=2")];
    called.authorize("admin", &headers).unwrap();
    let span = called.span(&format!("{SERVICE}/CheckAuthorizeScopes"));
    assert_eq!(
        (hex(&span.span.trace_id), hex(&span.span.parent_span_id)),
        (TRACE.to_owned(), PARENT.to_owned())
    );
    assert_eq!(span.span.trace_state, "a=1,b@c=2");
    let ran = called.place.run(&[
        "audit",
        "tail",
        "--kind",
        "denial",
        "--output",
        "json",
        // A denial is recorded soon, and its answer does not wait for that.
        "--follow",
        "--limit",
        "1",
        "--server",
        &called.server.url,
    ]);
    let event: Value = serde_json::from_str(ran.stdout.lines().next().expect("an event")).unwrap();
    assert_eq!(event["traceId"], TRACE, "{}{}", ran.stdout, ran.stderr);
    assert_eq!(event["decisionId"], span.attributes()["scopeward.decision_id"]);
    ended(called.server);
}

#[test]
fn what_is_no_parent_begins_a_trace() {
    let mut called = Called::start(&[], &[]);
    for header in [
        format!("00-{TRACE}-0000000000000000-01"),
        format!("00-{TRACE}-{PARENT}-01-more"),
        "hunter2".to_owned(),
    ] {
        called.authorize("openid", &[("traceparent", &header)]).unwrap();
    }
    // And a state that is not well-formed leaves the parent as it is.
    let headers = [("traceparent", &*format!("00-{TRACE}-{PARENT}-01")), ("tracestate", "no state")];
    called.authorize("openid", &headers).unwrap();
    let child = called.collector.span("the span with a parent", |one| hex(&one.span.trace_id) == TRACE);
    assert_eq!((hex(&child.span.parent_span_id), &*child.span.trace_state), (PARENT.to_owned(), ""));
    ended(called.server);
    let roots = called.collector.seen(|one| !is_reload(one) && one.span.parent_span_id.is_empty());
    assert_eq!(roots.len(), 3);
    assert!(roots.iter().all(|root| hex(&root.span.trace_id) != TRACE));
}

#[test]
fn only_what_the_sampler_wants_is_sent() {
    let (yes, no) = (format!("00-{TRACE}-{PARENT}-01"), format!("00-{TRACE}-{PARENT}-00"));
    let yes = [("traceparent", &*yes)];
    let no = [("traceparent", &*no)];
    // By word, argument and parent: is it sampled?
    for (sampler, argument, root, of_sampled, of_other) in [
        ("parentbased_always_on", "", true, true, false),
        ("parentbased_always_off", "", false, true, false),
        ("parentbased_traceidratio", "0", false, true, false),
        ("traceidratio", "0", false, false, false),
        ("traceidratio", "1", true, true, true),
        ("always_on", "", true, true, true),
        ("always_off", "", false, false, false),
    ] {
        let variables = [("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", argument)];
        let mut called = Called::start(&[], &variables);
        for headers in [&[][..], &yes, &no] {
            called.authorize("openid", headers).unwrap();
        }
        ended(called.server);
        let calls = called.collector.seen(|one| !is_reload(one));
        let expected = usize::from(root) + usize::from(of_sampled) + usize::from(of_other);
        assert_eq!(calls.len(), expected, "{sampler} {argument}");
        assert_eq!(calls.iter().any(|one| one.span.parent_span_id.is_empty()), root, "{sampler} {argument}");
    }
}

#[test]
fn without_the_propagator_callers_have_no_say() {
    let mut called = Called::start(&[], &[("OTEL_PROPAGATORS", "baggage")]);
    called.authorize("openid", &[("traceparent", &*format!("00-{TRACE}-{PARENT}-00"))]).unwrap();
    let span = called.span(&format!("{SERVICE}/CheckAuthorizeScopes"));
    assert!(span.span.parent_span_id.is_empty() && hex(&span.span.trace_id) != TRACE);
    ended(called.server);
}

#[test]
fn a_batch_counts_its_answers_and_an_error_is_a_code() {
    let mut called = Called::start(&[], &[]);
    let mut client = ScopePolicyServiceClient::new(called.channel());
    let checks = ["openid", "openid", "admin"].map(question).to_vec();
    called.runtime.block_on(async {
        let batch = v1::BatchCheckAuthorizeScopesRequest { checks };
        within("an answer", client.batch_check_authorize_scopes(batch)).await.unwrap();
        let wrong =
            v1::CheckAuthorizeScopesRequest { correlation_id: "x".repeat(10_000), ..question("openid") };
        let status = within("an error", client.check_authorize_scopes(wrong)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let unknown = v1::DescribeAudienceRequest {
            audience: "https://hunter2.example".to_owned(),
            ..Default::default()
        };
        within("an error", client.describe_audience(unknown)).await.unwrap_err();
    });
    let batch = called.span(&format!("{SERVICE}/BatchCheckAuthorizeScopes"));
    ended_with(&batch, "OK", false);
    let attributes = batch.attributes();
    for (key, value) in [("allowed", "2"), ("denied", "1")] {
        assert_eq!(attributes[&format!("scopeward.batch.{key}")], value, "{key}");
    }
    assert_eq!(attributes["scopeward.audiences"], "3");
    assert!(
        !attributes.contains_key("scopeward.decision") && !attributes.contains_key("scopeward.decision_id")
    );
    let wrong = called.span(&format!("{SERVICE}/CheckAuthorizeScopes"));
    ended_with(&wrong, "INVALID_ARGUMENT", false);
    assert!(!wrong.attributes().contains_key("scopeward.decision"));
    ended_with(&called.span(&format!("{SERVICE}/DescribeAudience")), "NOT_FOUND", false);
    ended(called.server);
}

#[test]
fn nothing_that_a_client_says_is_in_a_span() {
    let mut called = Called::start(&[], &[]);
    for scope in ["openid", "admin", "hunter2", "%", ""] {
        called.authorize(scope, &[("x-hunter2", "hunter2"), ("tracestate", "hunter2=1")]).unwrap();
    }
    let mut client = ScopePolicyServiceClient::new(called.channel());
    let wrong = v1::CheckAuthorizeScopesRequest { correlation_id: "x".repeat(10_000), ..question("openid") };
    called.runtime.block_on(within("an error", client.check_authorize_scopes(wrong))).unwrap_err();
    called.server.expand(1);
    ended(called.server);
    let spans = called.collector.seen(|_| true);
    assert_eq!(spans.len(), 8, "calls, and the first load");
    for one in spans {
        let text = format!("{:?}", one.span);
        for said in ["hunter2", "openid", "mcp", "admin", "xxx"] {
            assert!(!text.contains(said), "{said} in {text}");
        }
    }
}

#[test]
fn a_call_that_nobody_answers_has_the_name_of_the_system() {
    let mut called = Called::start(&[], &[]);
    let channel = called.channel();
    let path = format!("/scopeward.v1.Nothing/{}", "x".repeat(1000));
    let status = called.runtime.block_on(async {
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        client.unary(Request::new(()), path.parse().unwrap(), codec).await.unwrap_err()
    });
    assert_eq!(status.code(), Code::Unimplemented);
    let span = called.span("grpc");
    ended_with(&span, "UNIMPLEMENTED", true);
    let attributes = span.attributes();
    assert_eq!(attributes["rpc.method"], "_OTHER");
    let original = &attributes["rpc.method_original"];
    assert!(original.starts_with("scopeward.v1.Nothing/xxx") && original.len() == 255, "{original}");
    ended(called.server);
}

#[test]
fn callers_of_the_access_file_have_their_name_and_others_are_refused() {
    let place = place();
    let hash = hex(&Sha256::digest(b"t0ken"));
    place.write(
        "access.yaml",
        format!("callers:\n  - name: keycloak\n    match: [{{tokenSha256: {hash}}}]\n    may: [decide]\n"),
    );
    let mut called = Called::start_in(place, &["--access-file", "access.yaml"], &[]);
    called.authorize("openid", &[("authorization", "Bearer t0ken")]).unwrap();
    let known = called
        .collector
        .span("the span of a caller", |one| one.attributes().contains_key("scopeward.caller"));
    assert_eq!(known.attributes()["scopeward.caller"], "keycloak");
    ended_with(&known, "OK", false);
    assert_eq!(called.authorize("openid", &[]).unwrap_err().code(), Code::Unauthenticated);
    let code = |code: &'static str| {
        move |one: &Collected| one.attributes().get("rpc.status_code").is_some_and(|is| is == code)
    };
    ended_with(&called.collector.span("a refused call", code("UNAUTHENTICATED")), "UNAUTHENTICATED", false);
    let mut status = PolicyStatusServiceClient::new(called.channel());
    let refused = called.runtime.block_on(async {
        let mut request = Request::new(v1::GetPolicyStatusRequest::default());
        add(request.metadata_mut(), &[("authorization", "Bearer t0ken")]);
        within("an error", status.get_policy_status(request)).await.unwrap_err()
    });
    assert_eq!(refused.code(), Code::PermissionDenied);
    ended_with(
        &called.collector.span("a refused call", code("PERMISSION_DENIED")),
        "PERMISSION_DENIED",
        false,
    );
    ended(called.server);
    assert!(called.collector.seen(|_| true).iter().all(|one| !format!("{:?}", one.span).contains("t0ken")));
}

#[test]
fn a_stream_is_one_span_until_it_ends_however_it_ends() {
    let mut called = Called::start(&["--max-streams", "1"], &[]);
    let channel = called.channel();
    let code = |code: &'static str| {
        move |one: &Collected| one.attributes().get("rpc.status_code").is_some_and(|is| is == code)
    };
    called.server.expand(1);
    // To its end.
    called.runtime.block_on(async {
        let mut audit = AuditServiceClient::new(channel.clone());
        let request = v1::StreamAuditEventsRequest::default();
        let mut stream = within("a stream", audit.stream_audit_events(request)).await.unwrap().into_inner();
        while within("a message", stream.message()).await.unwrap().is_some() {}
    });
    let whole = called.span("scopeward.v1.AuditService/StreamAuditEvents");
    ended_with(&whole, "OK", false);
    let mut status = PolicyStatusServiceClient::new(channel);
    let watch = called.runtime.block_on(async {
        let mut watch =
            within("a stream", status.watch_policy_status(v1::WatchPolicyStatusRequest::default()))
                .await
                .unwrap()
                .into_inner();
        within("a message", watch.message()).await.unwrap();
        // Refused: there is no place for another one.
        let refused = status.watch_policy_status(v1::WatchPolicyStatusRequest::default());
        assert_eq!(within("an error", refused).await.unwrap_err().code(), Code::Unavailable);
        watch
    });
    ended_with(&called.collector.span("a refused stream", code("UNAVAILABLE")), "UNAVAILABLE", true);
    // Given up by its caller.
    called.runtime.block_on(async { drop(watch) });
    let cancelled = loop {
        // The reset leaves when the client's connection is polled.
        called.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
        if called.server.metric("scopeward_streams{service=\"policy_status\"}") == 0.0 {
            break called.collector.span("a stream that was given up", code("CANCELLED"));
        }
    };
    ended_with(&cancelled, "CANCELLED", false);
    ended(called.server);
}

#[test]
fn a_call_over_a_unix_socket_has_no_address_of_a_network() {
    let place = place();
    let socket = place.0.path().join("socket");
    let listen = format!("unix:{}", socket.display());
    let mut called = Called::start_in(place, &["--listen", &listen], &[]);
    let ran = called.place.run(&["describe", "--server", &listen]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let span = called.span(&format!("{SERVICE}/DescribeAudience"));
    ended_with(&span, "OK", false);
    assert!(!span.attributes().contains_key("network.peer.address"));
    ended(called.server);
}
