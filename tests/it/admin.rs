//! The admin endpoint under peers that are slow, many, or speak something else.

use scopeward::rpc::v1;
use scopeward::server::listen::ListenAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::within;
use crate::peer::{Peer, WIDE};
use crate::service::{POLICY, Service, settings};

/// Sends `request` and leaves the connection open.
async fn ask(service: &Service, request: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(service.admin).await.expect("a connection");
    stream.write_all(request).await.expect("the server reads");
    stream
}

#[tokio::test]
async fn no_text_of_a_request_is_in_the_metrics() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("policies")).unwrap();
    std::fs::write(folder.path().join("policies/mcp.yaml"), POLICY).unwrap();
    // Everybody who connects over the socket is a caller; over TCP one needs a token.
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
    let access = format!("callers: [{{name: own, match: [{{unixUid: {uid}}}], may: [decide, describe]}}]");
    std::fs::write(folder.path().join("access.yaml"), access).unwrap();
    let mut settings = settings(folder.path());
    settings.server.listen.push(ListenAddr::Unix(folder.path().join("socket")));
    settings.access_file = Some(folder.path().join("access.yaml"));
    settings.metrics_per_audience = true;
    let service = Service::start_in(folder, settings).await.unwrap();
    let client = v1::Client {
        client_id: "odd-client".to_owned(),
        client_name: "odd name".to_owned(),
        software_id: "odd software".to_owned(),
        ..Default::default()
    };
    for scope in ["openid", "openid odd:scope"] {
        for audience in ["https://mcp.example.com", "https://odd.example.com"] {
            let request = v1::ExpandRegistrationScopesRequest {
                audiences: vec![audience.to_owned()],
                scope: Some(scope.to_owned()),
                client: Some(client.clone()),
                ..Default::default()
            };
            service.scopes().expand_registration_scopes(request).await.expect("an answer");
        }
    }
    let describe = v1::DescribeAudienceRequest { audience: "odd".to_owned(), ..Default::default() };
    service.scopes().describe_audience(describe).await.expect_err("it is not known");
    let peer = Peer::connect(service.grpc, WIDE).await;
    for path in ["/odd.Service/Odd", "/scopeward.v1.ScopePolicyService/Odd", "/odd"] {
        let headers = [("authorization", "Bearer odd-token"), ("user-agent", "odd"), ("grpc-timeout", "odd")];
        within("the call ends", peer.call(path, &headers, b"odd".to_vec()).await.end()).await;
    }
    let (_, metrics) = service.get("/metrics").await;
    for expected in ["scopeward_", "grpc_method=\"unknown\"", "authenticated_by=\"unknown\"", "audience=\""] {
        assert!(metrics.contains(expected), "{expected} in {metrics}");
    }
    assert!(!metrics.contains("odd"), "{metrics}");
    service.stop().await;
}

#[tokio::test]
async fn probes_are_answered_whatever_other_peers_do() {
    let service = Service::start(POLICY).await;
    let mut peers = Vec::new();
    for number in 0..300 {
        let request: &[u8] = match number % 4 {
            0 => b"",
            1 => b"GET /live",
            2 => b"GET /livez HTTP/1.1\r\nHost: x\r\n",
            // Asks and never reads.
            _ => b"GET /status.json HTTP/1.1\r\nHost: x\r\n\r\n",
        };
        peers.push(ask(&service, request).await);
        if number % 50 == 49 {
            for path in ["/livez", "/readyz"] {
                assert_eq!(within("a probe is answered", service.get(path)).await.0, 200);
            }
        }
    }
    drop(peers);
    assert_eq!(within("monitoring is answered again", service.get("/metrics")).await.0, 200);
    service.stop().await;
}

#[tokio::test]
async fn endpoint_speaks_http_1_only_and_answers_once() {
    let service = Service::start(POLICY).await;
    for (request, expected) in [
        (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..], None),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n", Some("200 OK")),
        (b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n", Some("200 OK")),
        (b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", Some("405 Method Not Allowed")),
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", Some("404 Not Found")),
    ] {
        let mut stream = ask(&service, request).await;
        let mut answer = Vec::new();
        // It may be reset, where bytes were sent that nobody read.
        _ = within("the connection is closed", stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        let answers = answer.matches("HTTP/1.1 ").count();
        match expected {
            Some(expected) => {
                assert!(answer.starts_with(&format!("HTTP/1.1 {expected}\r\n")), "{answer}");
                assert_eq!(answers, 1, "{answer}");
            }
            None => assert!(!answer.contains("200 OK"), "{answer}"),
        }
    }
    service.stop().await;
}
