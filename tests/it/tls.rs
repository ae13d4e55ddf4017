//! TLS: what is served, who gets in, material that changes while the server runs, and peers that speak something else.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use scopeward::rpc::v1;
use scopeward::rpc::v1::scope_policy_service_client::ScopePolicyServiceClient;
use scopeward::server::config::Config;
use scopeward::server::listen::{ListenAddr, Listeners};
use scopeward::server::pressure::ConnectionRefusal;
use scopeward::server::tls::TlsFiles;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::certs::{Authority, Issued, Name, self_signed};
use crate::harness::{Wire, authorize, one_audience, within};
use crate::service::{POLICY, Service, settings};

const LOCALHOST: &[Name<'_>] = &[Name::Dns("localhost")];

/// What a client trusts and shows.
pub(crate) fn client(ca: &str, own: Option<&Issued>) -> ClientConfig {
    client_of(ca, own, &[&rustls::version::TLS13, &rustls::version::TLS12])
}

fn client_of(ca: &str, own: Option<&Issued>, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(Issued { chain, key }) => {
            let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
            builder
                .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
                .unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

pub(crate) async fn handshake(addr: SocketAddr, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(addr).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::from(addr.ip()), stream).await
}

/// A connection over TLS.
pub(crate) async fn tls_channel(
    addr: SocketAddr,
    config: ClientConfig,
) -> Result<Channel, tonic::transport::Error> {
    let connect = move |_| {
        let config = config.clone();
        async move { handshake(addr, config).await.map(hyper_util::rt::TokioIo::new) }
    };
    let endpoint = Endpoint::from_shared(format!("https://{addr}")).unwrap();
    endpoint.connect_with_connector(tower::service_fn(connect)).await
}

/// Asks something that is allowed.
async fn ask(channel: Channel) -> Result<(), tonic::Status> {
    let question = authorize(Some("openid"), Some("openid"));
    let answer = ScopePolicyServiceClient::new(channel).check_authorize_scopes(question).await?;
    assert_eq!(answer.into_inner().decision(), v1::Decision::Allow);
    Ok(())
}

/// The leaf that a server shows.
async fn leaf(addr: SocketAddr, config: ClientConfig) -> Vec<u8> {
    let stream = handshake(addr, config).await.expect("a handshake");
    stream.get_ref().1.peer_certificates().expect("certificates")[0].to_vec()
}

fn der(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

fn files(folder: &Path, server: &Issued, client_ca: Option<&str>) -> TlsFiles {
    let written = server.write(folder, "server");
    let client_ca = client_ca.map(|pem| {
        fs::write(folder.join("clients.pem"), pem).unwrap();
        folder.join("clients.pem")
    });
    TlsFiles { certificate: written.chain, private_key: written.key, client_ca }
}

/// The gRPC server alone, with TLS.
async fn wire(files: &TlsFiles, change: impl FnOnce(&mut Config)) -> Wire {
    let wire = Wire::start(None, |config| {
        config.tls = Some(files.clone());
        change(config);
    })
    .await;
    wire.serve(&one_audience("scopesSupported: [openid]"));
    wire
}

/// A whole service with TLS on TCP, and a Unix socket to look at it.
async fn service(tls: &TlsFiles) -> Service {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("policies")).unwrap();
    fs::write(folder.path().join("policies/mcp.yaml"), POLICY).unwrap();
    let mut settings = settings(folder.path());
    settings.server.listen.push(ListenAddr::Unix(folder.path().join("socket")));
    settings.server.tls = Some(tls.clone());
    settings.metrics_per_audience = true;
    Service::start_in(folder, settings).await.unwrap()
}

/// A whole service that shows every metric.
pub(crate) async fn service_with_clients(folder: &Path) -> Service {
    let server = Authority::new("CA").issue(LOCALHOST);
    service(&files(folder, &server, Some(&Authority::new("clients").pem()))).await
}

/// The status of a condition with its reason; nothing if it is not there.
fn condition(status: &v1::PolicyStatus, kind: &str) -> Option<(String, String)> {
    let found = status.conditions.iter().find(|condition| condition.r#type == kind)?;
    Some((found.status.clone(), found.reason.clone()))
}

fn holds(status: &v1::PolicyStatus, kind: &str, expected: (&str, &str)) -> bool {
    condition(status, kind).is_some_and(|(status, reason)| (&*status, &*reason) == expected)
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_served_with_http_2() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new("CA");
    let wire = wire(&files(folder.path(), &ca.issue(LOCALHOST), None), |_| {}).await;
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = client_of(&ca.pem(), None, &[version]);
        let stream = handshake(wire.addr, config.clone()).await.expect("a handshake");
        let connection = stream.get_ref().1;
        assert_eq!(connection.protocol_version(), Some(version.version));
        assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
        let suite = format!("{:?}", connection.negotiated_cipher_suite().expect("a suite").suite());
        assert!(suite.contains("GCM") || suite.contains("CHACHA20"), "{suite}");
        ask(tls_channel(wire.addr, config).await.expect("a connection")).await.expect("an answer");
    }
    // Another protocol than HTTP/2 is refused, and so is a server whose certificate is another's.
    let mut http_1 = client(&ca.pem(), None);
    http_1.alpn_protocols = vec![b"http/1.1".to_vec()];
    handshake(wire.addr, http_1).await.expect_err("no protocol in common");
    handshake(wire.addr, client(&Authority::new("CA").pem(), None)).await.expect_err("another CA");
    wire.stop().await;
}

#[tokio::test]
async fn with_a_client_ca_every_client_needs_a_certificate_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, clients) = (Authority::new("CA"), Authority::new("clients"));
    let wire = wire(&files(folder.path(), &ca.issue(LOCALHOST), Some(&clients.pem())), |_| {}).await;
    let name = &[Name::Uri("spiffe://example.org/as")];
    for (own, is_let_in) in [
        (Some(clients.issue(name)), true),
        (None, false),
        (Some(Authority::new("clients").issue(name)), false),
        (Some(clients.issue_expired(name)), false),
        (Some(self_signed(name)), false),
        // Issued by a CA that only signs servers.
        (Some(ca.issue(name)), false),
    ] {
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            let config = client_of(&ca.pem(), own.as_ref(), &[version]);
            // With TLS 1.3 the client hears of a refusal with its first call only.
            let asked = match tls_channel(wire.addr, config).await {
                Ok(channel) => {
                    within("an answer or an error", ask(channel)).await.map_err(|error| error.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            assert_eq!(asked.is_ok(), is_let_in, "{version:?}: {asked:?}");
        }
    }
    assert_eq!(wire.pressure.connections_refused(ConnectionRefusal::Handshake), 10);
    wire.stop().await;
}

#[tokio::test]
async fn an_intermediate_is_sent_along() {
    let folder = tempfile::tempdir().unwrap();
    let root = Authority::new("root");
    let between = root.intermediate("between");
    let mut server = between.issue(LOCALHOST);
    server.chain.push_str(&between.pem());
    let wire = wire(&files(folder.path(), &server, None), |_| {}).await;
    ask(tls_channel(wire.addr, client(&root.pem(), None)).await.unwrap()).await.unwrap();
    wire.stop().await;
}

#[tokio::test]
async fn material_that_cannot_be_used_stops_the_start_and_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let root = Authority::new("root");
    let between = root.intermediate("between");
    let server = between.issue(LOCALHOST);
    let (chain, key) = (server.chain.clone() + &between.pem(), server.key.clone());
    let good = [("chain", chain.clone()), ("key", key.clone()), ("ca", root.pem())];
    let folder_path = folder.path().to_owned();
    let start = async |changed: &[(&str, Option<String>)]| {
        for (name, text) in &good {
            let text = changed
                .iter()
                .find(|(changed, _)| changed == name)
                .map_or(Some(text), |(_, text)| text.as_ref());
            let path = folder_path.join(name);
            match text {
                Some(text) => fs::write(path, text).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
        }
        let tls = TlsFiles {
            certificate: folder_path.join("chain"),
            private_key: folder_path.join("key"),
            client_ca: Some(folder_path.join("ca")),
        };
        let listen = vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()];
        let config = Config { listen, tls: Some(tls), ..Config::default() };
        let bound = Listeners::bind(&config).await;
        bound.map(drop).map_err(|error| error.to_string().replace(folder_path.to_str().unwrap(), ""))
    };
    assert_eq!(start(&[]).await, Ok(()));
    let other = root.issue(LOCALHOST);
    let swapped = between.pem() + &server.chain;
    let unrelated = server.chain.clone() + &Authority::new("other").pem();
    let garbled = chain.replacen("MII", "M!!", 1);
    let certificate_without_content = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (name, text, expected) in [
        ("chain", None, "certificate file `/chain`: No such file or directory (os error 2)"),
        ("key", None, "private key file `/key`: No such file or directory (os error 2)"),
        ("ca", None, "CA file `/ca`: No such file or directory (os error 2)"),
        ("chain", Some(String::new()), "certificate file `/chain`: it has no certificate"),
        ("ca", Some(String::new()), "CA file `/ca`: it has no certificate"),
        ("ca", Some(key.clone()), "CA file `/ca`: it has no certificate"),
        ("key", Some(chain.clone()), "private key file `/key`: it has no private key that is not encrypted"),
        (
            "key",
            Some(other.key.clone()),
            "private key file `/key`: it belongs to another certificate than the first one of the certificate file",
        ),
        (
            "chain",
            Some(swapped),
            "certificate file `/chain`: the chain is in the wrong order: the certificate of the private key is number 2 and must be the first",
        ),
        (
            "chain",
            Some(unrelated),
            "certificate file `/chain`: the chain is in the wrong order: certificate 1 is not issued by certificate 2",
        ),
        ("chain", Some(garbled), "certificate file `/chain`: it is not valid PEM: "),
        (
            "chain",
            Some(certificate_without_content.to_owned()),
            "certificate file `/chain`: certificate 1 cannot be used: ",
        ),
        ("ca", Some("x".repeat(1 + (1 << 20))), "CA file `/ca`: it has more than 1048576 bytes"),
    ] {
        let error = start(&[(name, text)]).await.expect_err(expected);
        assert!(error.starts_with(expected), "{error}, not {expected}");
        assert!(!error.contains("MII"), "{error}");
    }
    fs::remove_file(folder_path.join("ca")).unwrap();
    fs::create_dir(folder_path.join("ca")).unwrap();
    let tls = TlsFiles {
        certificate: folder_path.join("chain"),
        private_key: folder_path.join("key"),
        client_ca: Some(folder_path.join("ca")),
    };
    let config = Config { tls: Some(tls), ..Config::default() };
    let error = Listeners::bind(&config).await.expect_err("a folder").to_string();
    assert!(error.ends_with("it is not a regular file"), "{error}");
}

#[tokio::test]
async fn tls_may_be_reached_from_other_machines() {
    let folder = tempfile::tempdir().unwrap();
    let tls = files(folder.path(), &Authority::new("CA").issue(LOCALHOST), None);
    let listen = vec![SocketAddr::from(([0, 0, 0, 0], 0)).into()];
    let config = Config { listen, tls: Some(tls), ..Config::default() };
    Listeners::bind(&config).await.expect("it is encrypted");
}

#[tokio::test]
async fn peers_that_do_not_do_their_part_are_closed_and_disturb_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new("CA");
    let short = |config: &mut Config| config.limits.handshake_timeout = Duration::from_millis(100);
    let wire = wire(&files(folder.path(), &ca.issue(LOCALHOST), None), short).await;
    let good = tls_channel(wire.addr, client(&ca.pem(), None)).await.expect("a connection");
    // The head of a TLS record whose rest never comes, and nothing at all.
    for greeting in [&[][..], &[0x16], &[0x16, 3, 1, 2, 0, 1, 0]] {
        let mut stream = TcpStream::connect(wire.addr).await.unwrap();
        stream.write_all(greeting).await.unwrap();
        let mut rest = Vec::new();
        _ = within("it is closed", stream.read_to_end(&mut rest)).await;
        ask(good.clone()).await.expect("others are served");
    }
    assert_eq!(wire.pressure.connections_refused(ConnectionRefusal::HandshakeTimeout), 3);
    // Plaintext HTTP/2 and HTTP/1 where TLS is spoken.
    for greeting in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(wire.addr).await.unwrap();
        stream.write_all(greeting).await.unwrap();
        let mut rest = Vec::new();
        _ = within("it is closed", stream.read_to_end(&mut rest)).await;
        ask(good.clone()).await.expect("others are served");
    }
    assert_eq!(wire.pressure.connections_refused(ConnectionRefusal::Handshake), 2);
    // All of them were admitted as connections, and gave their places back.
    within("their places are free", async {
        while wire.pressure.connections() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // After the handshake a peer has to begin with HTTP/2 as elsewhere.
    wire.stop().await;
}

#[tokio::test]
async fn silent_handshakes_count_as_connections() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new("CA");
    let few = |config: &mut Config| config.limits.max_connections = 2;
    let wire = wire(&files(folder.path(), &ca.issue(LOCALHOST), None), few).await;
    let silent = [TcpStream::connect(wire.addr).await.unwrap(), TcpStream::connect(wire.addr).await.unwrap()];
    within("both are counted", async {
        while wire.pressure.connections() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    handshake(wire.addr, client(&ca.pem(), None)).await.expect_err("there is no place");
    // A shutdown does not wait for them.
    wire.stop().await;
    drop(silent);
}

#[tokio::test]
async fn tls_where_plaintext_is_spoken_is_closed_at_once() {
    let wire = Wire::start(None, |_| {}).await;
    wire.serve(&one_audience("scopesSupported: [openid]"));
    let refused = within("an error", handshake(wire.addr, client(&Authority::new("CA").pem(), None))).await;
    refused.expect_err("it speaks no TLS");
    ask(crate::harness::channel(wire.addr).await).await.expect("others are served");
    wire.stop().await;
}

#[tokio::test]
async fn ten_rotations_by_symlink_under_full_load_fail_no_call() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new("CA");
    let material: Vec<Issued> = (0..11).map(|_| ca.issue(LOCALHOST)).collect();
    for (at, issued) in material.iter().enumerate() {
        let folder = folder.path().join(format!("v{at}"));
        fs::create_dir(&folder).unwrap();
        issued.write(&folder, "server");
    }
    // As Kubernetes mounts a secret: the files are links through `..data`, which is swapped.
    let point_at = |at: usize| {
        symlink(format!("v{at}"), folder.path().join("..tmp")).unwrap();
        fs::rename(folder.path().join("..tmp"), folder.path().join("..data")).unwrap();
    };
    point_at(0);
    for name in ["server.pem", "server.key"] {
        symlink(format!("..data/{name}"), folder.path().join(name)).unwrap();
    }
    let tls = TlsFiles {
        certificate: folder.path().join("server.pem"),
        private_key: folder.path().join("server.key"),
        client_ca: None,
    };
    let service = service(&tls).await;
    let (addr, config) = (service.grpc, client(&ca.pem(), None));
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    // As many callers as keep the server busy all the time: most share connections that stay, some open one for each call.
    let mut kept = Vec::new();
    for _ in 0..8 {
        kept.push(tls_channel(addr, config.clone()).await.expect("a connection"));
    }
    let opened = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..68)
        .map(|caller| {
            let (config, stop, calls) = (config.clone(), Arc::clone(&stop), Arc::clone(&calls));
            let (kept, opened) = ((caller < 64).then(|| kept[caller % 8].clone()), Arc::clone(&opened));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let channel = match &kept {
                        Some(kept) => kept.clone(),
                        None => {
                            opened.fetch_add(1, Ordering::Relaxed);
                            tls_channel(addr, config.clone()).await.expect("a connection")
                        }
                    };
                    ask(channel).await.expect("an answer");
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    for (at, issued) in material.iter().enumerate().skip(1) {
        let before = calls.load(Ordering::Relaxed);
        let began = Instant::now();
        point_at(at);
        within("the new certificate is served", async {
            while leaf(addr, config.clone()).await != der(&issued.chain) {}
        })
        .await;
        slowest = slowest.max(began.elapsed());
        within("everybody calls under it", async {
            while calls.load(Ordering::Relaxed) < before + 136 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        if at == 5 {
            // In between, a certificate comes without its key: the pair that serves stays.
            let broken = folder.path().join("broken");
            fs::create_dir(&broken).unwrap();
            fs::write(broken.join("server.pem"), &material[6].chain).unwrap();
            fs::write(broken.join("server.key"), &issued.key).unwrap();
            symlink("broken", folder.path().join("..tmp")).unwrap();
            fs::rename(folder.path().join("..tmp"), folder.path().join("..data")).unwrap();
            let mismatch = ("False", "TlsKeyMismatch");
            service
                .status_when("it is refused", move |status| holds(status, "TlsMaterialValid", mismatch))
                .await;
            assert_eq!(leaf(addr, config.clone()).await, der(&issued.chain));
        }
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("no call failed");
    }
    let (calls, opened) = (calls.load(Ordering::Relaxed), opened.load(Ordering::Relaxed));
    assert!(calls > 1000 && opened > 10, "{calls} calls, {opened} connections");
    println!("{calls} calls, {opened} connections, the slowest rotation took {slowest:?}");
    service.stop().await;
}

#[tokio::test]
async fn broken_material_leaves_the_last_good_in_use_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new("CA");
    let (first, second) = (ca.issue(LOCALHOST), ca.issue(LOCALHOST));
    let tls = files(folder.path(), &first, None);
    let service = service(&tls).await;
    let loaded = ("True", "TlsMaterialLoaded");
    let status =
        service.status_when("it is valid", move |status| holds(status, "TlsMaterialValid", loaded)).await;
    assert_eq!(condition(&status, "TlsCertificateExpiring"), None);
    for (path, text, reason) in [
        (&tls.private_key, Some(second.key.clone()), "TlsKeyMismatch"),
        (&tls.private_key, Some(String::new()), "TlsPrivateKeyInvalid"),
        (&tls.certificate, Some("no PEM".to_owned()), "TlsCertificateInvalid"),
        (&tls.certificate, Some(second.chain.clone() + &first.chain), "TlsChainOutOfOrder"),
        (&tls.certificate, None, "TlsFileUnreadable"),
    ] {
        match text {
            Some(text) => fs::write(path, text).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
        let status = service
            .status_when(reason, move |status| holds(status, "TlsMaterialValid", ("False", reason)))
            .await;
        let message = &status.conditions.iter().find(|one| one.r#type == "TlsMaterialValid").unwrap().message;
        assert!(message.contains(path.to_str().unwrap()) && message.contains("stays in use"), "{message}");
        assert_eq!(leaf(service.grpc, client(&ca.pem(), None)).await, der(&first.chain), "{reason}");
        first.write(folder.path(), "server");
        service
            .status_when("it is valid again", move |status| holds(status, "TlsMaterialValid", loaded))
            .await;
    }
    // One whose time is over does not replace one that is valid.
    ca.issue_expired(LOCALHOST).write(folder.path(), "server");
    let expired = ("False", "TlsCertificateExpired");
    service.status_when("it is refused", move |status| holds(status, "TlsMaterialValid", expired)).await;
    // Renamed into place, as an editor or an agent does.
    let new = second.write(folder.path(), "new");
    fs::rename(new.chain, &tls.certificate).unwrap();
    fs::rename(new.key, &tls.private_key).unwrap();
    service.status_when("the second is valid", move |status| holds(status, "TlsMaterialValid", loaded)).await;
    assert_eq!(leaf(service.grpc, client(&ca.pem(), None)).await, der(&second.chain));
    let (_, metrics) = service.get("/metrics").await;
    assert!(metrics.contains("scopeward_tls_not_after_timestamp_seconds{role=\"server\"}"), "{metrics}");
    service.stop().await;
}

#[tokio::test]
async fn a_new_client_ca_counts_for_new_connections() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, old, new) = (Authority::new("CA"), Authority::new("old"), Authority::new("new"));
    let tls = files(folder.path(), &ca.issue(LOCALHOST), Some(&old.pem()));
    let service = service(&tls).await;
    let (of_old, of_new) =
        (client(&ca.pem(), Some(&old.issue(&[]))), client(&ca.pem(), Some(&new.issue(&[]))));
    let kept = tls_channel(service.grpc, of_old.clone()).await.unwrap();
    ask(kept.clone()).await.expect("it is let in");
    fs::write(tls.client_ca.as_ref().unwrap(), new.pem()).unwrap();
    let is_let_in = async |config: &ClientConfig| match tls_channel(service.grpc, config.clone()).await {
        Ok(channel) => ask(channel).await.is_ok(),
        Err(_) => false,
    };
    within("the new one is let in", async { while !is_let_in(&of_new).await {} }).await;
    assert!(!is_let_in(&of_old).await);
    ask(kept).await.expect("a connection that is open stays");
    service.stop().await;
}

#[tokio::test]
async fn a_certificate_that_expires_soon_is_a_condition() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new("CA");
    let tls = files(folder.path(), &ca.issue_expired(LOCALHOST), None);
    let service = service(&tls).await;
    let expired = ("True", "CertificateExpired");
    service.status_when("it is over", move |status| holds(status, "TlsCertificateExpiring", expired)).await;
    ca.issue(LOCALHOST).write(folder.path(), "server");
    let is_gone = |status: &v1::PolicyStatus| condition(status, "TlsCertificateExpiring").is_none();
    service.status_when("it is replaced", is_gone).await;
    service.stop().await;
}

#[tokio::test]
async fn a_key_that_everybody_may_read_is_used_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new("CA");
    let tls = files(folder.path(), &ca.issue(LOCALHOST), None);
    fs::set_permissions(&tls.private_key, fs::Permissions::from_mode(0o644)).unwrap();
    let wire = wire(&tls, |_| {}).await;
    ask(tls_channel(wire.addr, client(&ca.pem(), None)).await.unwrap()).await.unwrap();
    wire.stop().await;
}
