//! `health`: which server it asks, and what each answer and each way to have none is as an exit code.

use std::fs;
use std::net::TcpListener;

use super::*;
use crate::certs::{Authority, Name};

const ADMIN: [&str; 2] = ["--admin-listen", "127.0.0.1:0"];

/// Runs `health` with variables.
#[track_caller]
fn health(place: &Place, args: &[&str], variables: &[(&str, &str)]) -> Ran {
    let mut command = place.command(&[&["health"], args].concat());
    command.envs(variables.iter().copied());
    ran(command)
}

#[track_caller]
fn is_serving(place: &Place, args: &[&str], variables: &[(&str, &str)], at: &str) {
    let ran = health(place, args, variables);
    assert_eq!((ran.code, &*ran.stderr), (0, ""), "{args:?} {variables:?}");
    assert_eq!(ran.stdout, format!("SERVING at {at}\n"), "{args:?} {variables:?}");
}

#[track_caller]
fn is_2(place: &Place, args: &[&str], variables: &[(&str, &str)], expected: &str) {
    let ran = health(place, args, variables);
    assert_eq!((ran.code, &*ran.stdout), (2, ""), "{args:?} {variables:?}");
    assert!(ran.stderr.contains(expected) && ran.stderr.lines().count() == 1, "{args:?}: {}", ran.stderr);
}

#[test]
fn a_server_is_found_by_the_settings_that_it_has() {
    let place = Place::with_examples();
    let socket = place.0.path().join("s.sock");
    let unix = format!("unix:{}", socket.to_str().unwrap());
    let server =
        Server::start_with(&place, &[&ADMIN[..], &["--listen", "127.0.0.1:0", "--listen", &unix]].concat());
    let tcp = word(&server.ready, "grpc=").to_owned();
    let port = tcp.rsplit(':').next().unwrap();
    let http = format!("http://{tcp}/");
    for server in [&tcp, &http] {
        is_serving(&place, &["--server", server], &[], &http);
        is_serving(&place, &[], &[("SCOPEWARD_SERVER", server)], &http);
    }
    is_serving(&place, &["--server", &unix], &[], &unix);
    is_serving(&place, &["--live"], &[("SCOPEWARD_LISTEN", &tcp)], &http);
    // Of several addresses a socket is the one that needs nothing; each is what `serve` takes.
    is_serving(&place, &[], &[("SCOPEWARD_LISTEN", &format!("{tcp},{unix}"))], &unix);
    is_serving(&place, &[], &[("SCOPEWARD_LISTEN", &format!("0.0.0.0:{port}"))], &http);
    place.write("scopeward.yaml", format!("listen: ['{tcp}']\n"));
    is_serving(&place, &["--config", "scopeward.yaml"], &[], &http);
    is_serving(&place, &[], &[("SCOPEWARD_CONFIG", "scopeward.yaml")], &http);
    is_serving(&place, &[], &[("SCOPEWARD_CONFIG", "scopeward.yaml"), ("SCOPEWARD_LISTEN", &unix)], &unix);
    let ran = health(
        &place,
        &["--server", &tcp, "--service", "scopeward.v1.AuditService", "--output", "json"],
        &[],
    );
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(
        ran.json(),
        serde_json::json!({"server": http, "service": "scopeward.v1.AuditService", "status": "SERVING"})
    );

    is_2(
        &place,
        &["--server", &tcp, "--service", "no.such.Service"],
        &[],
        "NOT_FOUND: the service is not known",
    );
    is_2(&place, &[], &[("SCOPEWARD_LISTEN", "127.0.0.1:0")], "port 0");
    is_2(&place, &[], &[("SCOPEWARD_LISTEN", "localhost")], "SCOPEWARD_LISTEN in the environment");
    is_2(&place, &["--config", "nowhere.yaml"], &[], "nowhere.yaml");
    drop(server);
    is_2(&place, &["--server", &tcp], &[], "connection refused");
    is_2(&place, &["--server", &tcp, "--live"], &[], "connection refused");
}

#[test]
fn an_access_file_does_not_matter() {
    let place = Place::with_examples();
    let entry =
        format!("callers:\n- {{name: a, may: [decide], match: [{{tokenSha256: {}}}]}}\n", "ab".repeat(32));
    place.write("access.yaml", entry);
    let flags = [&ADMIN[..], &["--listen", "127.0.0.1:0", "--access-file", "access.yaml"]].concat();
    let server = Server::start_with(&place, &flags);
    is_serving(&place, &["--server", &server.url], &[], &format!("{}/", server.url));
    // No token is shown, not even read.
    is_serving(
        &place,
        &["--server", &server.url],
        &[("SCOPEWARD_TOKEN_FILE", "nowhere")],
        &format!("{}/", server.url),
    );
}

#[test]
fn tls_needs_no_more_than_the_server_has() {
    let place = Place::with_examples();
    let ca = Authority::new("CA");
    // A name that nobody calls on this machine.
    ca.issue(&[Name::Dns("scopeward.example.com")]).write(place.0.path(), "server");
    place.write("ca.pem", ca.pem());
    let flags = ["--tls-cert-file", "server.pem", "--tls-private-key-file", "server.key"];
    let server = Server::start_with(&place, &[&ADMIN[..], &["--listen", "127.0.0.2:0"], &flags].concat());
    let address = word(&server.ready, "grpc=").to_owned();
    let https = format!("https://{address}/");
    let variables = [
        ("SCOPEWARD_LISTEN", &*address),
        ("SCOPEWARD_TLS_CERT_FILE", "server.pem"),
        ("SCOPEWARD_TLS_PRIVATE_KEY_FILE", "server.key"),
    ];
    is_serving(&place, &[], &variables, &https);
    let config = format!("listen: '{address}'\ntlsCertFile: server.pem\ntlsPrivateKeyFile: server.key\n");
    place.write("scopeward.yaml", config);
    is_serving(&place, &["--config", "scopeward.yaml"], &[], &https);
    // Who names a server or a CA gets what every verb does.
    is_2(&place, &["--server", &https], &[], "--tls-ca-file");
    is_2(&place, &["--server", &https, "--tls-ca-file", "ca.pem"], &[], "not valid for name");
    is_2(&place, &["--tls-ca-file", "ca.pem"], &variables, "not valid for name");
    is_2(&place, &["--server", &address], &[], "expects TLS");
}

#[test]
fn client_certificates_are_required_for_health_too() {
    let place = Place::with_examples();
    let (ca, others) = (Authority::new("CA"), Authority::new("others"));
    ca.issue(&[]).write(place.0.path(), "server");
    ca.issue(&[]).write(place.0.path(), "client");
    others.issue(&[]).write(place.0.path(), "other");
    place.write("ca.pem", ca.pem());
    place.write("others.pem", others.pem());
    let own = [
        ("SCOPEWARD_TLS_CERT_FILE", "server.pem"),
        ("SCOPEWARD_TLS_PRIVATE_KEY_FILE", "server.key"),
        ("SCOPEWARD_TLS_CLIENT_CA_FILE", "ca.pem"),
    ];
    let start = |client_ca: &str| {
        let flags = ["--tls-cert-file", "server.pem", "--tls-private-key-file", "server.key"];
        let listen = ["--listen", "127.0.0.1:0", "--tls-client-ca-file", client_ca];
        Server::start_with(&place, &[&ADMIN[..], &listen, &flags].concat())
    };
    // The certificate of the server is one for clients, too.
    let server = start("ca.pem");
    let address = word(&server.ready, "grpc=").to_owned();
    let https = format!("https://{address}/");
    let variables = [&[("SCOPEWARD_LISTEN", &*address)][..], &own].concat();
    is_serving(&place, &[], &variables, &https);
    let client = ["--tls-cert-file", "client.pem", "--tls-private-key-file", "client.key"];
    is_serving(&place, &client, &variables, &https);
    let named = ["--server", &https, "--tls-ca-file", "ca.pem"];
    is_serving(&place, &[&named[..], &client].concat(), &[], &https);
    is_2(&place, &named, &[], "requires a client certificate");
    // Without the variable of the client CA nobody knows that one is needed.
    is_2(&place, &[], &variables[..3], "requires a client certificate");
    let other = ["--tls-cert-file", "other.pem", "--tls-private-key-file", "other.key"];
    is_2(&place, &other, &variables, "does not accept the client certificate");
    drop(server);

    // The certificate of the server is none of its clients': a probe has to bring one.
    let server = start("others.pem");
    let address = word(&server.ready, "grpc=").to_owned();
    let variables = [&[("SCOPEWARD_LISTEN", &*address)][..], &own].concat();
    is_2(&place, &[], &variables, "does not accept the client certificate");
    is_serving(&place, &other, &variables, &format!("https://{address}/"));
}

#[test]
fn a_server_that_does_not_serve_is_1_and_one_that_is_silent_is_2() {
    let place = Place::new();
    let not_serving = not_serving();
    let address = format!("http://{not_serving}/");
    let ran = health(&place, &["--server", &address], &[]);
    let expected = format!("NOT_SERVING at {address}; the server is starting or stopping\n");
    assert_eq!((ran.code, ran.stdout, &*ran.stderr), (1, expected, ""));
    let ran = health(&place, &["--server", &address, "--live"], &[]);
    assert_eq!((ran.code, ran.stdout), (0, format!("NOT_SERVING at {address}; the server answers\n")));

    // The system takes the connection, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    is_2(&place, &["--server", &silent, "--timeout", "200ms"], &[], "no answer within 200 ms");
    let nowhere = place.0.path().join("s.sock");
    is_2(&place, &["--server", &format!("unix:{}", nowhere.to_str().unwrap())], &[], "no such file");
    fs::write(&nowhere, "").unwrap();
    is_2(&place, &["--server", &format!("unix:{}", nowhere.to_str().unwrap())], &[], "connection refused");
}

/// A health service that says NOT_SERVING. It ends with the test process.
fn not_serving() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let (reporter, service) = tonic_health::server::health_reporter();
            reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
    });
    address
}
