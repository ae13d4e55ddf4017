//! What a peer may use up, spoken to below gRPC where clients are too polite.

use std::net::SocketAddr;
use std::time::Duration;

use scopeward::server::ServerError;
use scopeward::server::config::Config;
use scopeward::server::listen::Listeners;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::{Wire, channel, one_audience, registration, within};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

/// A frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The next frame, or `None` when the connection is closed.
async fn read_frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[3], payload))
}

async fn connect(addr: SocketAddr) -> TcpStream {
    TcpStream::connect(addr).await.expect("a connection")
}

#[tokio::test]
async fn connection_without_a_first_frame_is_closed() {
    let wire =
        Wire::start(None, |config| config.limits.first_frame_timeout = Duration::from_millis(50)).await;
    // This one speaks at once, and stays.
    let mut health = HealthClient::new(channel(wire.addr).await);
    let mut watch = health.watch(HealthCheckRequest::default()).await.expect("a stream").into_inner();
    watch.message().await.expect("no error").expect("a status");
    for greeting in [&PREFACE[..0], &PREFACE[..10], PREFACE, &[PREFACE, &[0; 8]].concat()] {
        let mut stream = connect(wire.addr).await;
        stream.write_all(greeting).await.expect("the server reads");
        let mut rest = Vec::new();
        // The server may have sent its own settings before; what counts is the end.
        _ = within("the connection is closed", stream.read_to_end(&mut rest)).await;
    }
    wire.serve(&one_audience("scopesSupported: [a]"));
    let status = within("the change arrives", watch.message()).await;
    status.expect("the connection is still there").expect("a status");
    wire.stop().await;
}

#[tokio::test]
async fn connection_over_the_limit_is_closed_at_once() {
    let wire = Wire::start(None, |config| config.limits.max_connections = 2).await;
    wire.serve(&one_audience("scopesSupported: [a]"));
    let mut first = wire.client().await;
    first.expand_registration_scopes(registration(Some("a"))).await.expect("an answer");
    let second = connect(wire.addr).await;
    let mut third = connect(wire.addr).await;
    assert!(within("the third is closed", third.read_u8()).await.is_err());
    first.expand_registration_scopes(registration(Some("a"))).await.expect("the first goes on");

    drop(second);
    // The place is free as soon as the server has noticed; until then a connection is closed again.
    within("a place is free", async {
        loop {
            let mut stream = connect(wire.addr).await;
            _ = stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
            if read_frame(&mut stream).await.is_some() {
                break;
            }
        }
    })
    .await;
    wire.stop().await;
}

#[tokio::test]
async fn server_announces_its_limits() {
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    const MAX_HEADER_LIST_SIZE: u16 = 6;
    let wire = Wire::start(None, |_| {}).await;
    let mut stream = connect(wire.addr).await;
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.expect("the server reads");
    let (kind, payload) = within("the settings arrive", read_frame(&mut stream)).await.expect("a frame");
    assert_eq!(kind, SETTINGS);
    let setting = |wanted: u16| {
        payload.chunks(6).find_map(|setting| {
            let id = u16::from_be_bytes([setting[0], setting[1]]);
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            (id == wanted).then_some(value)
        })
    };
    assert_eq!(setting(MAX_CONCURRENT_STREAMS), Some(256));
    assert_eq!(setting(MAX_HEADER_LIST_SIZE), Some(16 * 1024));
    drop(stream);
    wire.stop().await;
}

#[tokio::test]
async fn peer_that_provokes_resets_without_end_is_sent_away() {
    const ENHANCE_YOUR_CALM: u32 = 11;
    const END_HEADERS: u8 = 4;
    // POST http / (RFC 7541 appendix A), which opens a stream; then a window update beyond the largest window, which
    // is an error of that stream (RFC 9113 section 6.9.1) that the server has to answer with a reset.
    const REQUEST: &[u8] = &[0x83, 0x86, 0x84];
    let wire = Wire::start(None, |config| config.limits.max_local_error_reset_streams = 50).await;
    let stream = connect(wire.addr).await;
    let (mut read, mut write) = stream.into_split();
    let writing = tokio::spawn(async move {
        let mut greeting = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        for number in 0..100_000_u32 {
            let id = 2 * number + 1;
            greeting.extend(frame(HEADERS, END_HEADERS, id, REQUEST));
            greeting.extend(frame(WINDOW_UPDATE, 0, id, &[0x7f, 0xff, 0xff, 0xff]));
            // An error is the end that this test is about.
            if write.write_all(&greeting).await.is_err() {
                return number;
            }
            greeting.clear();
        }
        100_000
    });
    let mut received = Vec::new();
    _ = within("the connection is closed", read.read_to_end(&mut received)).await;
    let mut rest = received.as_slice();
    let mut code = None;
    while let [l0, l1, l2, kind, _, _, _, _, _, after @ ..] = rest {
        let length = usize::from(*l0) << 16 | usize::from(*l1) << 8 | usize::from(*l2);
        let Some((payload, next)) = after.split_at_checked(length) else { break };
        if *kind == GOAWAY {
            code = Some(u32::from_be_bytes([payload[4], payload[5], payload[6], payload[7]]));
        }
        rest = next;
    }
    assert_eq!(code, Some(ENHANCE_YOUR_CALM));
    assert!(within("the writer notices", writing).await.expect("no panic") < 100_000);
    wire.stop().await;
}

#[tokio::test]
async fn peer_that_asks_and_never_reads_is_cut_off() {
    const END_STREAM_END_HEADERS: u8 = 5;
    let wire = Wire::start(None, |_| {}).await;
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(wire.addr).await.expect("a connection");
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let mut asked = 0_u32;
    // An error is the end that this test is about.
    while within("the server reads or closes", stream.write_all(&bytes)).await.is_ok() {
        assert!(asked < 10_000_000, "asked without end");
        bytes.clear();
        for _ in 0..1000 {
            // POST http / (RFC 7541 appendix A), which nobody answers.
            bytes.extend(frame(HEADERS, END_STREAM_END_HEADERS, 2 * asked + 1, &[0x83, 0x86, 0x84]));
            asked += 1;
        }
    }
    wire.stop().await;
}

#[tokio::test]
async fn port_in_use_is_an_error_that_names_the_address() {
    let wire = Wire::start(None, |_| {}).await;
    let config = Config { listen: vec![wire.addr.into()], ..Config::default() };
    let error = Listeners::bind(&config).await.expect_err("the port is in use");
    let message = error.to_string();
    assert!(message.starts_with(&format!("could not listen on {}: ", wire.addr)), "{message}");
    wire.stop().await;
}

#[tokio::test]
async fn remote_address_in_plaintext_is_refused_unless_it_is_allowed() {
    for (listen, is_loopback) in [
        ("0.0.0.0:0", false),
        ("[::]:0", false),
        ("192.0.2.1:0", false),
        ("[::ffff:192.0.2.1]:0", false),
        ("127.0.0.1:0", true),
        ("127.1.2.3:0", true),
    ] {
        let listen: SocketAddr = listen.parse().expect("an address");
        let config = Config { listen: vec![listen.into()], ..Config::default() };
        let bound = Listeners::bind(&config).await;
        match bound {
            Ok(_) => assert!(is_loopback, "{listen}"),
            Err(ServerError::RemotePlaintext { addr }) => {
                assert!(!is_loopback && addr == listen, "{listen}");
            }
            Err(error) => panic!("{listen}: {error}"),
        }
    }
    let listen: SocketAddr = "0.0.0.0:0".parse().expect("an address");
    let config =
        Config { listen: vec![listen.into()], insecure_allow_remote_plaintext: true, ..Config::default() };
    Listeners::bind(&config).await.expect("it is allowed");
}
