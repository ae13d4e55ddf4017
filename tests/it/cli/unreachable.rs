//! What client verbs say where no server of ours answers: what is there, and what to try.

use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use super::*;
use crate::service::POLICY;

/// A peer that answers whatever it reads first with the same bytes, and closes. It ends with the test process.
fn peer(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            _ = stream.read(&mut [0; 1024]);
            _ = stream.write_all(answer);
            // Not reset, which could overtake the answer.
            _ = stream.shutdown(Shutdown::Write);
            _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    addr
}

/// HTTP/2: settings, and a response with status 404 and no gRPC, whatever was asked on stream 1.
const HTTP2_404: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0\0\0\x01\x01\x05\0\0\0\x01\x8d";

#[test]
fn each_verb_says_what_is_there_instead_and_what_to_try() {
    let place = Place::with(&[("policies/mcp.yaml", POLICY)]);
    let server = Server::start(&place);
    let admin = word(&server.ready, "admin=").to_owned();
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let https: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
    for (server, said) in [
        (
            admin.clone(),
            &["answers with HTTP/1", "--admin-listen", "`scopeward serve --listen` (port 50551 by default)"]
                [..],
        ),
        (
            peer(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").to_string(),
            &["answers with HTTP/1"],
        ),
        (peer(https).to_string(), &["expects TLS"]),
        (peer(b"\x15\x03\x01\0\x02\x02\x50").to_string(), &["expects TLS"]),
        (peer(b"SSH-2.0-OpenSSH_9.2\r\n").to_string(), &["something else than gRPC, `SSH-2.0-OpenSSH_9.2`"]),
        (peer(HTTP2_404).to_string(), &["answers with HTTP status 404 and not with gRPC", "proxy"]),
        (peer(b"").to_string(), &["closed the connection at once", "--max-connections"]),
        (unused.to_string(), &["connection refused; start a server there with `scopeward serve`"]),
        ("nowhere.invalid:1".to_owned(), &["the host is not known", "--server"]),
    ] {
        // All of them where most people come by, one elsewhere: they share the way.
        let verbs = if server == admin { 6 } else { 1 };
        let verbs_and_codes = [
            (&["status"][..], 2),
            (&["expand", "--scope", "openid"], 2),
            (&["describe"], 2),
            (&["audit", "tail"], 6),
            (&["audit", "verify"], 2),
            (&["diff", "--against", &*server], 2),
        ];
        for (verb, code) in verbs_and_codes.into_iter().take(verbs) {
            let flag = ["--server", &*server];
            let flag = if verb[0] == "diff" { &[][..] } else { &flag };
            let ran = place.run(&[verb, flag].concat());
            assert_eq!((ran.code, &*ran.stdout), (code, ""), "{verb:?} {server}");
            for said in said {
                assert!(ran.stderr.contains(said), "{verb:?} {server}: {said}: {}", ran.stderr);
            }
            assert!(ran.stderr.contains(&server), "{verb:?} {server}: {}", ran.stderr);
            for raw in ["transport error", "h2 ", "operation was canceled", "grpc-status", "UNKNOWN"] {
                assert!(!ran.stderr.contains(raw), "{verb:?} {server}: {}", ran.stderr);
            }
        }
    }
}

#[test]
fn a_server_at_its_limit_of_connections_is_named_as_that() {
    let place = Place::with(&[("policies/mcp.yaml", POLICY)]);
    let server = Server::start_with(
        &place,
        &["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--max-connections", "1"],
    );
    // The one connection there may be; the server's settings say that it is admitted.
    let mut held = TcpStream::connect(server.url.trim_start_matches("http://")).unwrap();
    held.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    held.read_exact(&mut [0; 9]).unwrap();
    for verb in [&["status"][..], &["expand", "--scope", "openid"], &["audit", "tail"]] {
        let ran = place.run(&[verb, &["--server", &server.url]].concat());
        assert_eq!(ran.stdout, "", "{verb:?}");
        assert!(ran.stderr.contains("closed the connection at once"), "{verb:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("scopeward_connections_refused_total"), "{verb:?}: {}", ran.stderr);
    }
}
