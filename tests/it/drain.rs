//! Health and reflection, and how the server ends.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message as _;
use prost_reflect::DescriptorPool;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::harness::{Wire, channel, one_audience, reason, registration, within};
use crate::peer::{Peer, WIDE, framed};
use crate::service::Service;

const SERVICE: &str = "scopeward.v1.ScopePolicyService";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn ask(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn without_a_policy_health_says_not_serving_and_calls_are_unavailable() {
    let wire = Wire::start(None, |_| {}).await;
    let mut health = HealthClient::new(channel(wire.addr).await);
    let mut client = wire.client().await;
    for name in ["", SERVICE] {
        let status = health.check(ask(name)).await.expect("the name is known").into_inner().status();
        assert_eq!(status, ServingStatus::NotServing, "{name}");
    }
    let error = client.expand_registration_scopes(registration(Some("a"))).await.expect_err("no policy");
    assert_eq!((error.code(), reason(&error).as_str()), (Code::Unavailable, "POLICY_NOT_LOADED"));
    let retry = error.get_details_retry_info().and_then(|info| info.retry_delay);
    assert_eq!(retry, Some(Duration::from_secs(1)));

    wire.serve(&one_audience("scopesSupported: [a]"));
    for name in ["", SERVICE] {
        let status = health.check(ask(name)).await.expect("the name is known").into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{name}");
    }
    client.expand_registration_scopes(registration(Some("a"))).await.expect("an answer");
    let error = health.check(ask("scopeward.v1.Other")).await.expect_err("the name is not known");
    assert_eq!(error.code(), Code::NotFound);
    wire.stop().await;
}

#[tokio::test]
async fn every_service_has_health() {
    let service = Service::start(&one_audience("scopesSupported: [a]")).await;
    let mut health = HealthClient::new(service.channel.clone());
    for name in ["", SERVICE, "scopeward.v1.PolicyStatusService"] {
        let status = health.check(ask(name)).await.expect("the name is known").into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{name}");
    }
    service.stop().await;
}

#[tokio::test]
async fn reflection_lists_and_describes_exactly_what_is_served() {
    let wire = Wire::start(None, |_| {}).await;
    let expected = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        SERVICE,
    ];
    macro_rules! check {
        ($version:ident) => {{
            use tonic_reflection::pb::$version::ServerReflectionRequest;
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            let ask = |message_request| ServerReflectionRequest {
                host: String::new(),
                message_request: Some(message_request),
            };
            let requests = tokio_stream::iter([
                ask(MessageRequest::ListServices(String::new())),
                ask(MessageRequest::FileContainingSymbol(SERVICE.to_owned())),
            ]);
            let mut client = ServerReflectionClient::new(channel(wire.addr).await);
            let mut answers = client.server_reflection_info(requests).await.expect("an answer").into_inner();
            let answer = answers.message().await.expect("no error").expect("an answer").message_response;
            let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
            let mut names = list.service.into_iter().map(|service| service.name).collect::<Vec<_>>();
            names.sort();
            assert_eq!(names, expected);
            let answer = answers.message().await.expect("no error").expect("an answer").message_response;
            assert!(matches!(answer, Some(MessageResponse::FileDescriptorResponse(_))), "{answer:?}");

            // As `grpcurl describe` and its kin do: everything that is listed, and the details of errors, with all files
            // that those files import.
            let details = ["google.rpc.ErrorInfo", "google.rpc.RetryInfo", "google.rpc.Status"];
            let symbols = expected.iter().chain(&details);
            let mut wanted: Vec<MessageRequest> =
                symbols.map(|symbol| MessageRequest::FileContainingSymbol((*symbol).to_owned())).collect();
            let mut files = BTreeMap::new();
            while let Some(request) = wanted.pop() {
                let asked = format!("{request:?}");
                let requests = tokio_stream::iter([ask(request)]);
                let answers = client.server_reflection_info(requests).await;
                let mut answers = answers.unwrap_or_else(|error| panic!("{asked}: {error}")).into_inner();
                let answer = answers.message().await.unwrap_or_else(|error| panic!("{asked}: {error}"));
                let answer = answer.expect("an answer").message_response;
                let Some(MessageResponse::FileDescriptorResponse(found)) = answer else {
                    panic!("{asked}: {answer:?}")
                };
                for bytes in found.file_descriptor_proto {
                    let file = FileDescriptorProto::decode(&*bytes).expect("a descriptor");
                    for import in &file.dependency {
                        if !files.contains_key(import) {
                            wanted.push(MessageRequest::FileByFilename(import.clone()));
                        }
                    }
                    files.insert(file.name().to_owned(), file);
                }
            }
            let pool = DescriptorPool::from_file_descriptor_set(FileDescriptorSet {
                file: files.into_values().collect(),
            });
            let pool = pool.expect("the files fit together");
            for service in expected {
                let service = pool.get_service_by_name(service).expect("it is described");
                assert!(service.methods().len() > 0);
            }
            for message in details {
                assert!(pool.get_message_by_name(message).is_some(), "{message}");
            }
        }};
    }
    check!(v1);
    check!(v1alpha);
    wire.stop().await;
}

#[tokio::test]
async fn drain_does_not_wait_for_watchers_idle_clients_or_silent_connections() {
    let wire = Wire::start(None, |config| {
        config.shutdown_timeout = Duration::from_secs(1200);
        // Whoever acknowledges the end is not cut off before, however slow this machine is.
        config.limits.drain_grace = Duration::from_secs(600);
        // An address that no other test listens on: one of them may be given the port as soon as it is free.
        config.listen = vec![std::net::SocketAddr::from(([127, 0, 0, 83], 0)).into()];
    })
    .await;
    wire.serve(&one_audience("scopesSupported: [a]"));
    let mut health = HealthClient::new(channel(wire.addr).await);
    let mut watch = health.watch(ask("")).await.expect("a stream").into_inner();
    let status = watch.message().await.expect("no error").expect("a status").status();
    assert_eq!(status, ServingStatus::Serving);
    let mut idle = wire.client().await;
    idle.expand_registration_scopes(registration(Some("a"))).await.expect("an answer");
    let mut silent = TcpStream::connect(wire.addr).await.expect("a connection");
    let mut half = TcpStream::connect(wire.addr).await.expect("a connection");
    half.write_all(&PREFACE[..10]).await.expect("the server reads");

    let addr = wire.addr;
    let drained = wire.stop().await;
    assert_eq!(drained.cut_calls, []);
    let status = watch.message().await.expect("no error").expect("a status").status();
    assert_eq!(status, ServingStatus::NotServing);
    assert_eq!(watch.message().await.expect("the stream ends in order"), None);
    for stream in [&mut silent, &mut half] {
        // Closed or reset, whichever the system makes of bytes that nobody read; the server's settings may come first.
        _ = within("the connection is closed", stream.read_to_end(&mut Vec::new())).await;
    }
    assert!(TcpStream::connect(addr).await.is_err(), "the listener is closed");
}

#[tokio::test]
async fn drain_does_not_wait_for_a_peer_that_acknowledges_nothing() {
    let wire = Wire::start(None, |config| {
        config.shutdown_timeout = Duration::from_secs(600);
        config.limits.drain_grace = Duration::from_millis(1);
    })
    .await;
    // It speaks HTTP/2 once, and says nothing more: the server's GOAWAY and ping stay without an answer.
    let mut deaf = TcpStream::connect(wire.addr).await.expect("a connection");
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    deaf.write_all(&[PREFACE, &settings].concat()).await.expect("the server reads");
    // Its SETTINGS: from here on it waits for calls.
    within("the server speaks HTTP/2", deaf.read_u8()).await.expect("a byte");
    let drained = wire.stop().await;
    assert_eq!(drained.cut_calls, [], "it has no call");
}

#[tokio::test]
async fn drain_does_not_wait_for_a_stream_whose_reader_stopped_inside_of_a_message() {
    let wire = Wire::start(None, |config| {
        config.shutdown_timeout = Duration::from_secs(600);
        config.limits.drain_grace = Duration::from_millis(1);
    })
    .await;
    let peer = Peer::connect(wire.addr, 10).await;
    let ask = tonic_reflection::pb::v1::ServerReflectionRequest {
        message_request: Some(
            tonic_reflection::pb::v1::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
        ..Default::default()
    };
    let mut call = peer.open("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", &[]).await;
    call.body.send_data(framed(&ask).into(), false).expect("the stream is open");
    let mut answer = within("the answer begins", call.response).await.expect("a response").into_body();
    within("its first bytes are here", answer.data()).await.expect("data").expect("no error");
    let drained = wire.stop().await;
    assert_eq!(drained.cut_calls, [], "the stream ended, its reader can ask again");
    let rest = within("the stream ends", answer.data()).await.expect("an end");
    rest.expect_err("the rest of the message never comes");
}

#[tokio::test]
async fn streams_of_an_old_connection_end_with_unavailable() {
    let wire = Wire::start(None, |config| {
        config.limits.max_connection_age = Duration::from_millis(1);
        config.limits.max_connection_age_grace = Duration::from_millis(1);
    })
    .await;
    let peer = Peer::connect(wire.addr, WIDE).await;
    let call = peer.call("/grpc.health.v1.Health/Watch", &[], framed(&ask(""))).await;
    let status = within("the stream ends", call.end()).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "CONNECTION_EXPIRED"));
    wire.stop().await;
}
