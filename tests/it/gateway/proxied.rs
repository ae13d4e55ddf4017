//! For everything that is not scope, an upstream behind the gateway and without it answers the same.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::upstream::Upstream;
use super::{Answer, Gateway, get, post, raw};
use crate::harness::within;

/// Headers between two hops, and what the framing of a body needs.
const HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    // What `/hop` names in `Connection`.
    "x-secret",
    // There where a body is framed by it, which a proxy may do otherwise.
    "content-length",
];

/// The headers that must be the same, each with its values in their order.
fn kept(answer: &Answer) -> BTreeMap<String, Vec<String>> {
    let mut kept: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in answer.head.split("\r\n").skip(1) {
        let (name, value) = line.split_once(':').unwrap();
        if !HOP.contains(&&*name.to_lowercase()) {
            kept.entry(name.to_owned()).or_default().push(value.trim().to_owned());
        }
    }
    kept
}

#[tokio::test]
async fn what_is_not_scope_is_the_same_with_and_without_the_gateway() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream).await;
    let get = |target: &str, more: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{more}\r\n")
    };
    let head = |target: &str| format!("HEAD {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let body = |method: &str, target: &str, more: &str, body: &str| {
        let length = body.len();
        format!(
            "{method} {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{more}Content-Length: {length}\r\n\r\n{body}"
        )
    };
    let chunked = |method: &str, target: &str, body: &str| {
        format!(
            "{method} {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
        )
    };
    let requests = [
        get("/echo", ""),
        get("/echo?", ""),
        get("/", ""),
        get("/echo?a=%20b&c=%2F..%2f&d=%c3%a9&e=+&e=%252e", ""),
        get("/a%20b/%7Euser/%e4%bd%a0", ""),
        get("/a;b=c/d,e/f:g@h/!$'()*+", ""),
        get("/echo?q=[]{}|^`\"<>", ""),
        get("/echo?scope=admin", ""),
        get("/echo", "Accept-Encoding: gzip, br\r\nX-One: 1\r\nX-One: 2\r\nCookie: a=1; b=2\r\n"),
        get("/echo", "TE: trailers\r\nConnection: te\r\n"),
        get("/echo", "X-ONE: MiXed\r\nAuthorization: Bearer abc\r\n"),
        get("/chunked", ""),
        get("/large?3", ""),
        get("/gzip", "Accept-Encoding: gzip\r\n"),
        get("/cookies", ""),
        get("/hop", ""),
        get("/head", ""),
        get("/redirect", ""),
        get("/no-content", ""),
        get("/not-modified", "If-None-Match: \"1\"\r\n"),
        get("/teapot", ""),
        get("/error", ""),
        get("/missing", ""),
        get("/token", ""),
        head("/head"),
        head("/echo"),
        head("/chunked"),
        head("/missing"),
        body("POST", "/echo", "", "a body"),
        body("POST", "/echo", "Content-Type: application/x-www-form-urlencoded\r\n", "scope=admin&scope=x"),
        body("PUT", "/echo", "", ""),
        body("DELETE", "/echo", "", "x"),
        body("PATCH", "/echo?x", "", "[]"),
        body("OPTIONS", "/echo", "Origin: https://a\r\nAccess-Control-Request-Method: POST\r\n", ""),
        body("REPORT", "/echo", "", "<a/>"),
        body("GET", "/echo", "", "a GET with a body"),
        chunked("POST", "/echo", "5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n"),
        chunked("GET", "/echo", "2\r\nok\r\n0\r\n\r\n"),
        chunked("PUT", "/digest", "0\r\n\r\n"),
        "GET /echo HTTP/1.0\r\n\r\n".to_owned(),
        "GET /chunked HTTP/1.0\r\nHost: h\r\n\r\n".to_owned(),
        "POST /echo HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi".to_owned(),
        body("POST", "/digest", "Expect: 100-continue\r\n", &"y".repeat(100_000)),
    ];
    let mut taken = 0;
    for request in &requests {
        let direct = raw(upstream.addr, request.as_bytes()).await;
        let behind = raw(gateway.addr, request.as_bytes()).await;
        let skip_continue = |bytes: &[u8]| {
            let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
            Answer::of(bytes.strip_prefix(interim).unwrap_or(bytes))
        };
        let (direct, behind) = (skip_continue(&direct), skip_continue(&behind));
        let line = request.lines().next().unwrap();
        // What HTTP itself refuses arrives nowhere.
        taken += usize::from(direct.status != 400);
        assert_eq!(behind.head.lines().next(), direct.head.lines().next(), "{line}");
        assert_eq!(kept(&behind), kept(&direct), "{line}");
        assert!(behind.body == direct.body, "{line}: {:?} is not {:?}", behind.text(), direct.text());
        // A HEAD says how long the body of a GET would be.
        if line.starts_with("HEAD") {
            assert_eq!(behind.header("content-length"), direct.header("content-length"), "{line}");
        }
    }
    // What arrived is the same too, but for what the gateway says of itself.
    let seen = upstream.take();
    assert_eq!(seen.len(), 2 * taken);
    assert!(taken >= requests.len() - 1, "{taken}");
    for pair in seen.chunks(2) {
        let [direct, behind] = pair else { panic!("pairs") };
        let line = format!("{} {}", direct.method, direct.target);
        assert_eq!(
            (&behind.method, &behind.target, &behind.body),
            (&direct.method, &direct.target, &direct.body)
        );
        let names = |seen: &super::upstream::Seen| {
            let mut headers: Vec<_> = seen
                .headers
                .iter()
                .filter(|(name, _)| {
                    let name = name.as_str();
                    !HOP.contains(&name)
                        && !name.starts_with("x-forwarded-")
                        && !matches!(name, "host" | "expect")
                })
                .map(|(name, value)| format!("{name}: {value:?}"))
                .collect();
            headers.sort();
            headers
        };
        assert_eq!(names(behind), names(direct), "{line}");
        assert_eq!(behind.header("host"), Some(&*upstream.addr.to_string()));
        assert_eq!(behind.header("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(behind.header("x-forwarded-host"), Some("auth.example.com"));
    }
    gateway.stop().await;
}

/// The bytes of a chunked body with its trailers, of both answers.
#[tokio::test]
async fn trailers_of_an_answer_pass_to_who_takes_them() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream).await;
    for te in ["TE: trailers\r\n", "te: Trailers\r\nConnection: TE\r\n", "TE: gzip;q=0.5\r\n", ""] {
        let request = format!(
            "GET /trailers HTTP/1.1\r\nHost: h\r\n{te}\r\nGET /end HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        );
        let mut bodies = Vec::new();
        for addr in [upstream.addr, gateway.addr] {
            let bytes = raw(addr, request.as_bytes()).await;
            let text = String::from_utf8(bytes).unwrap();
            let (head, rest) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.to_lowercase().contains("\r\ntrailer: x-sum"), "{head}");
            bodies.push(rest.split_once("HTTP/1.1 404").unwrap().0.to_owned());
        }
        assert_eq!(bodies[0], bodies[1], "{te:?}");
        let expected = te.to_lowercase().contains("trailers");
        assert_eq!(bodies[1].contains("x-sum: 1\r\n"), expected, "{te:?} {bodies:?}");
    }
    // HTTP/2 has them always.
    let stream = TcpStream::connect(gateway.addr).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("http://h/trailers").header("te", "trailers").body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    let mut body = within("an answer", response).await.unwrap().into_body();
    while let Some(part) = body.data().await {
        let part = part.unwrap();
        body.flow_control().release_capacity(part.len()).unwrap();
    }
    let trailers = within("trailers", body.trailers()).await.unwrap().unwrap();
    assert_eq!(trailers["x-sum"], "1");
    gateway.stop().await;
}

#[tokio::test]
async fn requests_in_turn_share_one_connection_to_the_upstream() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start_with(upstream.addr, |gateway| {
        gateway.discovery_interval = std::time::Duration::from_secs(3600);
    });
    let gateway = gateway.await.unwrap();
    let chunked =
        "POST /digest HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let large = post("/digest", "text/plain", &"x".repeat(1 << 20));
    let trailers = get("/trailers").replace("\r\n\r\n", "\r\nTE: trailers\r\n\r\n");
    for _ in 0..5 {
        for request in [
            &get("/echo"),
            &large,
            chunked,
            &get("/head").replace("GET", "HEAD"),
            &get("/chunked"),
            &trailers,
        ] {
            assert_eq!(gateway.send(request).await.status, 200, "{request:.20}");
        }
        for (target, status) in [("/no-content", 204), ("/not-modified", 304), ("/gone", 404)] {
            assert_eq!(gateway.get(target).await.status, status);
        }
        assert_eq!(gateway.register(r#"{"scope": "openid"}"#).await.status, 201);
        assert_eq!(gateway.get("/authorize?client_id=c1&scope=openid").await.status, 200);
    }
    assert_eq!(upstream.state.connections.load(Ordering::SeqCst), 1);
    gateway.stop().await;
}

#[tokio::test]
async fn large_bodies_are_streamed_both_ways() {
    const MIB: usize = 1 << 20;
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream).await;
    // 100 MiB down, taken slowly at first.
    let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
    stream.write_all(b"GET /large?1600 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut total = 0;
    let mut buffer = vec![0; MIB];
    let reading = async {
        loop {
            // A reader that takes little holds the upstream back; nothing is kept for it here.
            let part = if total < 64 * 1024 { &mut buffer[..512] } else { &mut buffer[..] };
            match stream.read(part).await.unwrap() {
                0 => return,
                count => total += count,
            }
        }
    };
    within("the whole body", reading).await;
    assert!(total > 100 * MIB, "{total}");
    // 100 MiB up.
    let digest = async |addr| {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let (mut read, mut write) = stream.split();
        let head = format!(
            "POST /digest HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            100 * MIB
        );
        let sending = async {
            write.write_all(head.as_bytes()).await.unwrap();
            let piece = vec![b'z'; MIB];
            for _ in 0..100 {
                write.write_all(&piece).await.unwrap();
            }
        };
        let mut answer = Vec::new();
        let (_, read) = tokio::join!(sending, read.read_to_end(&mut answer));
        read.unwrap();
        Answer::of(&answer).text()
    };
    let behind = within("a large upload", digest(gateway.addr)).await;
    assert!(behind.starts_with(&format!("{} ", 100 * MIB)), "{behind}");
    assert_eq!(behind, within("a large upload", digest(upstream.addr)).await);
    gateway.stop().await;
}

#[tokio::test]
async fn http2_is_answered_like_http1() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream).await;
    let stream = TcpStream::connect(gateway.addr).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = |method: &str, target: &str, body: &'static str| {
        Request::builder()
            .method(method)
            .version(Version::HTTP_2)
            .uri(format!("http://auth.example.com{target}"))
            .body(Full::new(Bytes::from_static(body.as_bytes())))
            .unwrap()
    };
    let mut crumbs = request("GET", "/echo?a=%20", "");
    crumbs.headers_mut().append("cookie", "a=1".parse().unwrap());
    crumbs.headers_mut().append("cookie", "b=2".parse().unwrap());
    let response = client.send_request(crumbs).await.unwrap();
    assert_eq!(response.headers()["x-saw-cookie"], "a=1; b=2");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "GET /echo?a=%20\n");
    let response = client.send_request(request("POST", "/echo", "a body")).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "POST /echo\na body");
    let response = client.send_request(request("HEAD", "/head", "")).await.unwrap();
    assert_eq!(response.headers()["content-length"], "5");
    let response = client.send_request(request("GET", "/cookies", "")).await.unwrap();
    assert_eq!(response.headers().get_all("set-cookie").iter().count(), 3);
    let response = client.send_request(request("GET", "/hop", "")).await.unwrap();
    assert_eq!((response.status(), response.headers().get("x-secret")), (http::StatusCode::OK, None));
    let response =
        client.send_request(request("GET", "/authorize?client_id=x&scope=admin", "")).await.unwrap();
    assert_eq!(response.status(), 400);
    // An authority that is not the one of `host` is refused, a request that is not HTTP as well.
    let mut other = request("GET", "/echo", "");
    other.headers_mut().insert("host", "evil.example".parse().unwrap());
    assert_eq!(client.send_request(other).await.unwrap().status(), 400);
    assert!(upstream.take().iter().all(|seen| seen.path() != "/authorize"));
    drop(client);
    gateway.stop().await;
}

#[tokio::test]
async fn websockets_are_copied_and_other_http_is_not_changed_to() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream).await;
    let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
    let upgrade = "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    let reading = async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
    };
    within("the upgrade", reading).await;
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    // Frames of a websocket, as opaque bytes, both ways.
    for piece in [&b"\x81\x05hello"[..], &[0; 5000], b"GET /authorize?scope=admin HTTP/1.1\r\n\r\n"] {
        stream.write_all(piece).await.unwrap();
        let mut echoed = vec![0; piece.len()];
        within("the echo", stream.read_exact(&mut echoed)).await.unwrap();
        assert_eq!(echoed, piece);
    }
    drop(stream);
    assert_eq!(upstream.one().path(), "/ws");
    let h2c = upgrade.replace("websocket", "h2c").replace("/ws", "/echo");
    let answer = gateway.send(&h2c).await;
    assert_eq!(answer.status, 200, "as if it had not asked: {answer:?}");
    assert!(upstream.one().headers.get("upgrade").is_none());
    gateway.stop().await;
}

#[tokio::test]
async fn tls_offers_both_versions_of_http() {
    use crate::certs::{Authority, Name};
    use scopeward::server::tls::TlsFiles;
    let upstream = Upstream::start().await;
    let folder = super::folder();
    let authority = Authority::new("ca");
    let files = authority.issue(&[Name::Dns("localhost")]).write(folder.path(), "server");
    let mut settings = super::gateway_settings(folder.path(), upstream.addr);
    settings.server.tls =
        Some(TlsFiles { certificate: files.chain, private_key: files.key, client_ca: None });
    let gateway = Gateway::start_in(folder, settings).await.unwrap();
    for (protocol, request) in [("http/1.1", true), ("h2", false)] {
        let mut config = crate::tls::client(&authority.pem(), None);
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let stream = TcpStream::connect(gateway.addr).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        if request {
            stream.write_all(b"GET /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await.unwrap();
            let mut answer = Vec::new();
            // A peer that closes without a notice is fine.
            _ = within("the answer", stream.read_to_end(&mut answer)).await;
            assert_eq!(Answer::of(&answer).text(), "GET /echo\n");
        } else {
            let (mut client, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                    .await
                    .unwrap();
            tokio::spawn(connection);
            let request = Request::get("https://localhost/echo").body(Full::new(Bytes::new())).unwrap();
            let response = client.send_request(request).await.unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "GET /echo\n");
        }
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answer_gives_its_place_back() {
    let upstream = Upstream::start().await;
    let folder = super::folder();
    let mut settings = super::gateway_settings(folder.path(), upstream.addr);
    settings.server.limits.response_progress_timeout = std::time::Duration::from_millis(300);
    let gateway = Gateway::start_in(folder, settings).await.unwrap();
    let in_flight = async || {
        let metrics = gateway.admin("/metrics").await.text();
        let line = metrics.lines().find(|line| line.starts_with("scopeward_calls_in_flight ")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let is = async |wanted: f64| {
        within("the place", async {
            while in_flight().await != wanted {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    // HTTP/2: the window is never opened.
    let peer = crate::peer::Peer::connect(gateway.addr, 1000).await;
    let request = Request::get("http://auth.example.com/large?100").body(()).unwrap();
    let mut call = peer.send(request).await.unwrap();
    call.body.send_data(Bytes::new(), true).unwrap();
    let response = within("the head", call.response).await.unwrap();
    is(1.0).await;
    is(0.0).await;
    drop(response);
    // HTTP/1: nothing is read.
    let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
    stream.write_all(b"GET /large?1000 HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    is(1.0).await;
    is(0.0).await;
    drop(stream);
    gateway.stop().await;
}
