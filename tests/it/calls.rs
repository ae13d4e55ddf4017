//! What is counted of calls: every way in which one ends has its code, also those that never reach a service.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use scopeward::rpc::record::Recorder;
use scopeward::server::config::PeerLimits;
use tonic_health::pb::HealthCheckRequest;

use crate::harness::{Wire, authorize, one_audience, within};
use crate::peer::{Call, Peer, WIDE, framed};
use crate::pressure::{Never, Panicking, until};

const CHECK: &str = "/scopeward.v1.ScopePolicyService/CheckAuthorizeScopes";
const DESCRIBE: &str = "/scopeward.v1.ScopePolicyService/DescribeAudience";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// What is counted, without what is 0: kind, service, method and code, and how often.
fn counted(wire: &Wire) -> Vec<String> {
    let mut registry = Registry::default();
    wire.calls.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let value = |line: &str, name: &str| {
        let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once("} ")?;
        let labels: Vec<&str> = labels.split(',').map(|label| label.split('"').nth(1).unwrap()).collect();
        Some((labels.join(" "), value.parse::<u64>().unwrap()))
    };
    let of = |name: &str| {
        let mut found: Vec<_> = text.lines().filter_map(|line| value(line, name)).collect();
        found.retain(|(_, value)| *value > 0);
        found.sort();
        found
    };
    // What began has ended, once, and was measured.
    let mut sums = std::collections::BTreeMap::new();
    let handled = of("grpc_server_handled_total");
    for (labels, value) in &handled {
        *sums.entry(labels.rsplit_once(' ').unwrap().0.to_owned()).or_insert(0) += value;
    }
    let sums: Vec<_> = sums.into_iter().collect();
    assert_eq!(of("grpc_server_handling_seconds_count"), sums);
    let started: u64 = of("grpc_server_started_total").iter().map(|(_, value)| value).sum();
    assert!(started >= sums.iter().map(|(_, value)| value).sum());
    handled.into_iter().map(|(labels, value)| format!("{labels} {value}")).collect()
}

/// Waits until exactly this is counted.
async fn expect(wire: &Wire, expected: &[&str]) {
    let mut expected: Vec<_> = expected.iter().map(|line| (*line).to_owned()).collect();
    expected.sort();
    let last = std::sync::Mutex::new(Vec::new());
    let done = || {
        let now = counted(wire);
        let is_done = now == expected;
        *last.lock().unwrap() = now;
        is_done
    };
    let waiting = tokio::time::timeout(Duration::from_secs(30), until("it is counted", done)).await;
    assert!(waiting.is_ok(), "{:#?} instead of {expected:#?}", last.lock().unwrap());
}

async fn start(recorder: Option<Arc<dyn Recorder>>, change: impl FnOnce(&mut PeerLimits)) -> (Wire, Peer) {
    let wire = Wire::start(recorder, |config| change(&mut config.limits)).await;
    wire.serve(&one_audience("scopesSupported: [a]"));
    let peer = Peer::connect(wire.addr, WIDE).await;
    (wire, peer)
}

async fn end(call: Call) {
    within("the call ends", call.end()).await;
}

#[tokio::test]
async fn every_end_of_a_call_is_counted_with_its_code() {
    let (wire, peer) = start(None, |limits| limits.message_timeout = Duration::from_millis(50)).await;
    let allowed = framed(&authorize(Some("a"), Some("a")));
    for body in [allowed.clone(), allowed.clone(), b"no message".to_vec()] {
        end(peer.call(CHECK, &[], body).await).await;
    }
    end(peer.open(CHECK, &[]).await).await;
    let unknown = v1_describe("https://other.example.com");
    end(peer.call(DESCRIBE, &[], unknown).await).await;
    for path in ["/scopeward.v1.ScopePolicyService/Nothing", "/a.made.up.Service/Method", "/x"] {
        end(peer.call(path, &[], allowed.clone()).await).await;
    }
    end(peer.call(HEALTH, &[], framed(&HealthCheckRequest::default())).await).await;
    end(peer.call(REFLECTION, &[], Vec::new()).await).await;
    expect(
        &wire,
        &[
            "unary scopeward.v1.ScopePolicyService CheckAuthorizeScopes OK 2",
            "unary scopeward.v1.ScopePolicyService CheckAuthorizeScopes InvalidArgument 1",
            "unary scopeward.v1.ScopePolicyService CheckAuthorizeScopes DeadlineExceeded 1",
            "unary scopeward.v1.ScopePolicyService DescribeAudience NotFound 1",
            "unary unknown unknown Unimplemented 3",
            "unary grpc.health.v1.Health Check OK 1",
            "bidi_stream grpc.reflection.v1.ServerReflection ServerReflectionInfo OK 1",
        ],
    )
    .await;
    wire.stop().await;
}

fn v1_describe(audience: &str) -> Vec<u8> {
    let audience = audience.to_owned();
    framed(&scopeward::rpc::v1::DescribeAudienceRequest { audience, ..Default::default() })
}

#[tokio::test]
async fn what_the_caller_resets_is_canceled() {
    let (wire, peer) = start(Some(Arc::<Never>::default()), |_| {}).await;
    // Before its message is here, while its answer waits for a record, and a stream.
    let unfinished = peer.open(CHECK, &[]).await;
    let waiting = peer.call(CHECK, &[], framed(&authorize(Some("b"), Some("b")))).await;
    let watch = peer.call(WATCH, &[], framed(&HealthCheckRequest::default())).await;
    let mut body = within("headers", watch.response).await.expect("a stream").into_body();
    within("a status", body.data()).await.expect("a message").expect("no error");
    until("all are there", || wire.pressure.calls() == 2).await;
    drop((unfinished, waiting, body, watch.body));
    let canceled = [
        "unary scopeward.v1.ScopePolicyService CheckAuthorizeScopes Canceled 2",
        "server_stream grpc.health.v1.Health Watch Canceled 1",
    ];
    expect(&wire, &canceled).await;
    wire.stop().await;
}

#[tokio::test]
async fn an_answer_that_its_caller_does_not_take_is_canceled() {
    let wire = Wire::start(None, |_| {}).await;
    wire.serve(&one_audience("scopesSupported: [a]"));
    // Room for 1 byte of each answer.
    let narrow = Peer::connect(wire.addr, 1).await;
    let call = narrow.call(CHECK, &[], framed(&authorize(Some("a"), Some("a")))).await;
    let response = within("headers", call.response).await.expect("an answer");
    assert!(counted(&wire).is_empty(), "its last byte has not left");
    drop((response, call.body));
    expect(&wire, &["unary scopeward.v1.ScopePolicyService CheckAuthorizeScopes Canceled 1"]).await;
    wire.stop().await;
}

#[tokio::test]
async fn a_call_that_panics_is_internal() {
    let (wire, peer) = start(Some(Arc::new(Panicking)), |_| {}).await;
    end(peer.call(CHECK, &[], framed(&authorize(Some("b"), Some("b")))).await).await;
    expect(&wire, &["unary scopeward.v1.ScopePolicyService CheckAuthorizeScopes Internal 1"]).await;
    wire.stop().await;
}

#[tokio::test]
async fn what_is_refused_before_the_service_is_counted() {
    let (wire, peer) = start(None, |limits| {
        limits.max_calls = 1;
        limits.max_streams = 0;
    })
    .await;
    let waiting = peer.open(CHECK, &[]).await;
    until("it has the place", || wire.pressure.calls() == 1).await;
    let allowed = framed(&authorize(Some("a"), Some("a")));
    end(peer.call(CHECK, &[], allowed.clone()).await).await;
    end(peer.call(REFLECTION, &[], Vec::new()).await).await;
    wire.lifecycle.drain();
    end(peer.call(DESCRIBE, &[], v1_describe("")).await).await;
    let refused = [
        "unary scopeward.v1.ScopePolicyService CheckAuthorizeScopes Unavailable 1",
        "bidi_stream grpc.reflection.v1.ServerReflection ServerReflectionInfo Unavailable 1",
        "unary scopeward.v1.ScopePolicyService DescribeAudience Unavailable 1",
    ];
    expect(&wire, &refused).await;
    drop(waiting);
    wire.stop().await;
}
