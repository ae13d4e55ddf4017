//! What piles up is bounded, refused at once with a reason, and given back: calls, streams and bytes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use scopeward::audit::AppendReply;
use scopeward::rpc::error::Overload;
use scopeward::rpc::record::{AnsweredCall, NoRoom, RecordKind, Recorder, Room};
use scopeward::rpc::v1;
use scopeward::server::method::Service;
use tonic::{Code, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_types::StatusExt;

use crate::harness::{AUDIENCE, Wire, authorize, channel, info, one_audience, reason, registration, within};
use crate::peer::{Call, Peer, WIDE, framed};

const EXPAND: &str = "/scopeward.v1.ScopePolicyService/ExpandRegistrationScopes";
const CHECK: &str = "/scopeward.v1.ScopePolicyService/CheckAuthorizeScopes";
const BATCH_CHECK: &str = "/scopeward.v1.ScopePolicyService/BatchCheckAuthorizeScopes";
const DESCRIBE: &str = "/scopeward.v1.ScopePolicyService/DescribeAudience";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// Waits until `done`. There is no event for what the server gives back, so this looks again and again.
pub(crate) async fn until(event: &str, done: impl Fn() -> bool) {
    within(event, async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

#[track_caller]
fn assert_refused(status: &Status, expected: &str) {
    assert_eq!((status.code(), reason(status).as_str()), (Code::Unavailable, expected), "{status:?}");
    assert!(status.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()));
}

#[tokio::test]
async fn calls_that_never_come_leave_room_for_others() {
    const PEERS: usize = 16;
    const CALLS: usize = 200;
    let wire = Wire::start(None, |config| config.limits.message_timeout = Duration::from_secs(3600)).await;
    wire.serve(&one_audience("scopesSupported: [a]"));
    let mut peers = Vec::new();
    let mut waiting: Vec<Call> = Vec::new();
    for _ in 0..PEERS {
        let peer = Peer::connect(wire.addr, WIDE).await;
        for number in 0..CALLS {
            let call = peer.open(CHECK, &[]).await;
            if number < 128 {
                waiting.push(call);
            } else {
                assert_refused(&within("the call is refused", call.end()).await, "CONNECTION_OVERLOADED");
            }
        }
        let health = peer.call(HEALTH, &[], framed(&HealthCheckRequest::default())).await;
        assert_eq!(within("health answers", health.end()).await.code(), Code::Ok);
        peers.push(peer);
    }
    assert_eq!(wire.pressure.calls(), PEERS * 128);
    let refused = u64::try_from(PEERS * (CALLS - 128)).expect("a small number");
    assert_eq!(wire.pressure.refused(Overload::ConnectionCalls), refused);
    let mut other = wire.client().await;
    other.expand_registration_scopes(registration(Some("a"))).await.expect("an answer");

    drop((peers, waiting));
    until("the places are given back", || wire.pressure.calls() == 0).await;
    wire.stop().await;
}

#[tokio::test]
async fn calls_over_the_limit_of_the_server_are_refused_and_health_is_not() {
    let wire = Wire::start(None, |config| config.limits.max_calls = 2).await;
    wire.serve(&one_audience("scopesSupported: [a]"));
    let peer = Peer::connect(wire.addr, WIDE).await;
    let (first, _second) = (peer.open(CHECK, &[]).await, peer.open(EXPAND, &[]).await);
    until("both are there", || wire.pressure.calls() == 2).await;
    let mut client = wire.client().await;
    let error = client.expand_registration_scopes(registration(Some("a"))).await.expect_err("no place");
    assert_refused(&error, "OVERLOADED");
    let mut health = HealthClient::new(channel(wire.addr).await);
    health.check(HealthCheckRequest::default()).await.expect("health is never refused");
    drop(first);
    until("a place is free", || wire.pressure.calls() == 1).await;
    client.expand_registration_scopes(registration(Some("a"))).await.expect("an answer");
    assert_eq!(wire.pressure.refused(Overload::Calls), 1);
    wire.stop().await;
}

#[tokio::test]
async fn message_that_does_not_arrive_in_time_ends_the_call() {
    let wire = Wire::start(None, |config| config.limits.message_timeout = Duration::from_millis(50)).await;
    wire.serve(&one_audience("scopesSupported: [a]"));
    let peer = Peer::connect(wire.addr, WIDE).await;
    for (path, part) in [(CHECK, 0), (CHECK, 3), (BATCH_CHECK, 6), (HEALTH, 0), (WATCH, 0)] {
        let mut call = peer.open(path, &[]).await;
        call.body.send_data([0, 0, 0, 0, 9, 7][..part].to_vec().into(), false).expect("the stream is open");
        let status = within("the call ends", call.end()).await;
        let expected = (Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
        assert_eq!((status.code(), reason(&status).as_str()), expected, "{path} {part}");
    }
    until("everything is given back", || wire.pressure.calls() == 0 && wire.pressure.bytes() == 0).await;
    wire.stop().await;
}

/// Never gets a record written.
#[derive(Debug, Default)]
pub(crate) struct Never(Mutex<Vec<AppendReply>>);

impl Recorder for Never {
    fn reserve(&self, _: usize) -> Result<Room, NoRoom> {
        Ok(Room::default())
    }

    fn record(&self, _: RecordKind, _: AnsweredCall<'_>, _: Room, reply: &mut dyn FnMut() -> AppendReply) {
        self.0.lock().expect("no panic").push(reply());
    }
}

#[tokio::test]
async fn deadline_of_the_caller_ends_every_kind_of_call() {
    let wire = Wire::start(Some(Arc::<Never>::default()), |_| {}).await;
    wire.serve(&one_audience("scopesSupported: [a]"));
    let peer = Peer::connect(wire.addr, WIDE).await;
    let denied = authorize(Some("b"), Some("b"));
    let batch = v1::BatchCheckAuthorizeScopesRequest { checks: vec![denied.clone(); 3] };
    let watch = HealthCheckRequest::default();
    for (path, body) in [
        (CHECK, framed(&denied)),
        (BATCH_CHECK, framed(&batch)),
        (WATCH, framed(&watch)),
        (CHECK, vec![0, 0]),
    ] {
        let mut call = peer.open(path, &[("grpc-timeout", "100m")]).await;
        call.body.send_data(body.clone().into(), body.len() > 2).expect("the stream is open");
        let status = within("the call ends", call.end()).await;
        let expected = (Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
        assert_eq!((status.code(), reason(&status).as_str()), expected, "{path}");
    }
    until("the places are given back", || wire.pressure.calls() == 0).await;
    wire.stop().await;
}

#[tokio::test]
async fn call_without_a_deadline_of_its_own_has_the_servers() {
    let wire = Wire::start(Some(Arc::<Never>::default()), |config| {
        config.limits.request_timeout = Duration::from_millis(50)
    })
    .await;
    wire.serve(&one_audience("scopesSupported: [a]"));
    let peer = Peer::connect(wire.addr, WIDE).await;
    let denied = framed(&authorize(Some("b"), Some("b")));
    for headers in [&[][..], &[("grpc-timeout", "1H")], &[("grpc-timeout", "no number")]] {
        let status = within("the call ends", peer.call(CHECK, headers, denied.clone()).await.end()).await;
        assert_eq!((status.code(), reason(&status).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    }
    wire.stop().await;
}

#[tokio::test]
async fn call_that_is_reset_gives_its_place_back() {
    let wire = Wire::start(Some(Arc::<Never>::default()), |_| {}).await;
    wire.serve(&one_audience("scopesSupported: [a]"));
    let peer = Peer::connect(wire.addr, WIDE).await;
    let call = peer.call(CHECK, &[], framed(&authorize(Some("b"), Some("b")))).await;
    until("it has its place", || wire.pressure.calls() == 1).await;
    drop(call);
    until("the place is given back", || wire.pressure.calls() == 0).await;
    wire.stop().await;
}

/// A policy whose description is `scopes` × 500 bytes and a little.
fn long_policy(scopes: usize) -> String {
    let scopes: Vec<_> = (0..scopes).map(|number| format!("{number:0500}")).collect();
    one_audience(&format!("scopesSupported: [{}]", scopes.join(", ").replace('0', "z")))
}

#[tokio::test]
async fn answers_that_a_peer_does_not_take_are_bounded_and_reset() {
    const CALLS: usize = 40;
    const SHARE: usize = 1 << 20;
    for window in [0, 1, 20_000] {
        let wire = Wire::start(None, |config| {
            config.limits.max_bytes_in_flight = 8 * SHARE;
            config.limits.response_progress_timeout = Duration::from_millis(500);
        })
        .await;
        wire.serve(&long_policy(100));
        let request = v1::DescribeAudienceRequest { audience: AUDIENCE.to_owned(), ..Default::default() };
        let peer = Peer::connect(wire.addr, window).await;
        let mut calls = Vec::new();
        for _ in 0..CALLS {
            calls.push(tokio::spawn(peer.call(DESCRIBE, &[], framed(&request)).await.response));
        }
        until("a call is refused", || wire.pressure.refused(Overload::ConnectionBytes) > 0).await;
        assert!(wire.pressure.bytes() <= SHARE, "one connection holds no more than its share");
        // Others are answered meanwhile.
        let mut client = wire.client().await;
        client.describe_audience(request).await.expect("an answer");
        until("all are reset", || wire.pressure.calls() == 0 && wire.pressure.bytes() == 0).await;
        let mut begun = 0;
        for call in calls {
            let (head, mut body) = call.await.expect("no panic").expect("headers").into_parts();
            match Status::from_header_map(&head.headers) {
                Some(status) => assert_refused(&status, "TOO_MANY_BYTES_IN_FLIGHT_ON_CONNECTION"),
                None => {
                    begun += 1;
                    let mut received = 0;
                    // What was taken is never given back, so no more than the window comes.
                    let error = loop {
                        match within("the stream ends", body.data()).await.expect("not an end in order") {
                            Ok(chunk) => received += chunk.len(),
                            Err(error) => break error,
                        }
                    };
                    assert_eq!(error.reason(), Some(h2::Reason::CANCEL), "{error}");
                    assert!(received <= usize::try_from(window).expect("a small window"), "{received}");
                }
            }
        }
        assert!(begun >= 8, "{begun} answers fit the share of a connection");
        wire.stop().await;
    }
}

#[tokio::test]
async fn small_answer_that_a_peer_does_not_take_is_reset() {
    for window in [0, 1, 20] {
        let wire =
            Wire::start(None, |config| config.limits.response_progress_timeout = Duration::from_millis(50))
                .await;
        wire.serve(&one_audience("scopesSupported: [a]"));
        let peer = Peer::connect(wire.addr, window).await;
        let call = peer.call(EXPAND, &[], framed(&registration(Some("a")))).await;
        let mut body = within("headers", call.response).await.expect("headers").into_body();
        let error = loop {
            match within("the stream ends", body.data()).await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("the answer fits a window of {window}"),
            }
        };
        assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
        until("the place is given back", || wire.pressure.calls() == 0).await;
        wire.stop().await;
    }
}

#[tokio::test]
async fn streams_have_places_of_their_own() {
    let wire = Wire::start(None, |config| {
        config.limits.max_streams = 3;
        config.limits.max_streams_per_connection = 2;
        config.limits.max_calls = 1;
    })
    .await;
    wire.serve(&one_audience("scopesSupported: [a]"));
    let (one, two) = (Peer::connect(wire.addr, WIDE).await, Peer::connect(wire.addr, WIDE).await);
    let open = async |peer: &Peer| peer.open(REFLECTION, &[]).await;
    let (first, _second) = (open(&one).await, open(&one).await);
    assert_refused(&open(&one).await.end().await, "TOO_MANY_STREAMS_ON_CONNECTION");
    let _third = open(&two).await;
    assert_refused(&open(&two).await.end().await, "TOO_MANY_STREAMS");
    assert_eq!((wire.pressure.calls(), wire.pressure.streams(Service::Reflection)), (0, 3));
    wire.client().await.expand_registration_scopes(registration(Some("a"))).await.expect("an answer");
    drop(first);
    until("its place is free", || wire.pressure.streams(Service::Reflection) == 2).await;
    let _fourth = open(&two).await;
    until("it is open", || wire.pressure.streams(Service::Reflection) == 3).await;
    wire.stop().await;
}

/// Panics where a record is made.
#[derive(Debug)]
pub(crate) struct Panicking;

impl Recorder for Panicking {
    fn reserve(&self, _: usize) -> Result<Room, NoRoom> {
        Ok(Room::default())
    }

    fn record(&self, _: RecordKind, _: AnsweredCall<'_>, _: Room, _: &mut dyn FnMut() -> AppendReply) {
        panic!("a test of what happens then")
    }
}

#[tokio::test]
async fn panic_in_a_call_is_an_error_of_that_call_alone() {
    let wire = Wire::start(Some(Arc::new(Panicking)), |_| {}).await;
    wire.serve(&one_audience("scopesSupported: [a]"));
    let mut client = wire.client().await;
    let error = client.check_authorize_scopes(authorize(Some("b"), None)).await.expect_err("a panic");
    assert_eq!((error.code(), reason(&error).as_str()), (Code::Internal, "INTERNAL"));
    client.check_authorize_scopes(authorize(Some("a"), Some("a"))).await.expect("the connection goes on");
    assert_eq!(wire.pressure.calls(), 0);
    wire.stop().await;
}

#[tokio::test]
async fn old_connection_is_retired_and_its_streams_go_on() {
    let wire =
        Wire::start(None, |config| config.limits.max_connection_age = Duration::from_millis(100)).await;
    let peer = Peer::connect(wire.addr, WIDE).await;
    let watch = peer.call(WATCH, &[], framed(&HealthCheckRequest::default())).await;
    let mut body = within("headers", watch.response).await.expect("a stream").into_body();
    within("a status", body.data()).await.expect("a message").expect("no error");
    within("the connection takes no further call", async {
        while let Ok(mut call) = peer.try_open(HEALTH, &[]).await {
            _ = call.body.send_data(framed(&HealthCheckRequest::default()).into(), true);
            call.end().await;
        }
    })
    .await;
    wire.serve(&one_audience("scopesSupported: [a]"));
    let message = within("the change arrives", body.data()).await.expect("a message").expect("no error");
    let status: HealthCheckResponse = prost::Message::decode(&message[5..]).expect("a status");
    assert_eq!(status.status, 1, "serving");
    wire.stop().await;
}

#[tokio::test]
async fn body_that_is_no_message_is_an_invalid_argument() {
    let wire = Wire::start(None, |_| {}).await;
    wire.serve(&one_audience("scopesSupported: [a]"));
    let peer = Peer::connect(wire.addr, WIDE).await;
    for path in [EXPAND, BATCH_CHECK, DESCRIBE, HEALTH, WATCH] {
        for body in [&[][..], &[0, 0], &[0, 0, 0, 0, 9, 7], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 0, 0]] {
            let status = peer.call(path, &[], body.to_vec()).await.end().await;
            let expected = (Code::InvalidArgument, "MESSAGE_MALFORMED");
            assert_eq!((status.code(), reason(&status).as_str()), expected, "{path} {body:?}");
        }
    }
    for body in [&[0, 0, 0, 0, 9, 7][..], &[1, 0, 0, 0, 0]] {
        let status = peer.call(REFLECTION, &[], body.to_vec()).await.end().await;
        let expected = (Code::InvalidArgument, "MESSAGE_MALFORMED");
        assert_eq!((status.code(), reason(&status).as_str()), expected, "reflection {body:?}");
    }
    // An encoding that is named is for the service to judge.
    let named = peer.call(EXPAND, &[("grpc-encoding", "gzip")], vec![1, 0, 0, 0, 0]).await.end().await;
    assert_eq!(named.code(), Code::Unimplemented);
    assert_eq!(peer.call("/no/such", &[], Vec::new()).await.end().await.code(), Code::Unimplemented);
    wire.stop().await;
}

#[tokio::test]
async fn message_over_the_limit_is_refused_before_its_bytes_are_here() {
    let folder = crate::service::Service::start(&one_audience("scopesSupported: [a]")).await;
    let peer = Peer::connect(folder.grpc, WIDE).await;
    for (path, message, limit) in [
        (EXPAND, "ExpandRegistrationScopesRequest", 262_144),
        (CHECK, "CheckAuthorizeScopesRequest", 262_144),
        (BATCH_CHECK, "BatchCheckAuthorizeScopesRequest", 1_048_576),
        (DESCRIBE, "DescribeAudienceRequest", 262_144),
        ("/scopeward.v1.AuditService/StreamAuditEvents", "StreamAuditEventsRequest", 262_144),
        ("/scopeward.v1.PolicyStatusService/GetPolicyStatus", "GetPolicyStatusRequest", 262_144),
        ("/scopeward.v1.PolicyStatusService/WatchPolicyStatus", "WatchPolicyStatusRequest", 262_144),
        (HEALTH, "HealthCheckRequest", 262_144),
        (REFLECTION, "ServerReflectionRequest", 262_144),
    ] {
        let mut call = peer.open(path, &[]).await;
        let prefix = [&[0][..], &u32::to_be_bytes(limit + 1)].concat();
        call.body.send_data(prefix.into(), false).expect("the stream is open");
        let status = within("the call is refused", call.end()).await;
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "MESSAGE_TOO_LARGE"));
        assert_eq!((info(&status, "message").as_str(), info(&status, "limit")), (message, limit.to_string()));
    }
    folder.stop().await;
}

#[tokio::test]
async fn watchers_of_the_status_that_do_not_read_share_its_bytes() {
    const WATCHERS: u32 = 32;
    let service = crate::service::Service::start(&one_audience("scopesSupported: [a]")).await;
    let path = "/scopeward.v1.PolicyStatusService/WatchPolicyStatus";
    let mut peers = Vec::new();
    for _ in 0..3 {
        let peer = Peer::connect(service.grpc, 0).await;
        for _ in 0..WATCHERS {
            let watch = peer.call(path, &[], framed(&v1::WatchPolicyStatusRequest {})).await;
            let response = within("headers", watch.response).await.expect("a stream");
            peers.push((peer.clone(), response));
        }
        let refused = peer.call(path, &[], framed(&v1::WatchPolicyStatusRequest {})).await;
        assert_refused(&refused.end().await, "TOO_MANY_STREAMS_ON_CONNECTION");
    }
    let open = f64::from(3 * WATCHERS);
    assert_eq!(service.metric("scopeward_streams{service=\"policy_status\"} ").await, Some(open));
    assert_eq!(service.metric("scopeward_bytes_in_flight ").await, Some(0.0));
    assert_eq!(service.metric("scopeward_calls_in_flight ").await, Some(0.0));
    assert_eq!(service.metric("scopeward_connections ").await, Some(4.0), "those and the test's own");
    let line = "scopeward_calls_refused_total{cause=\"connection_streams\"} ";
    assert_eq!(service.metric(line).await, Some(3.0));
    drop(peers);
    within("the places are given back", async {
        while service.metric("scopeward_streams{service=\"policy_status\"} ").await != Some(0.0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    service.stop().await;
}
