//! TLS and tokens on the command line: `serve` with its files, and verbs that show theirs.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{MCP, Place, Server, word};
use crate::certs::{Authority, Name};

const FLAGS: [&str; 2] = ["--admin-listen", "127.0.0.1:0"];

#[test]
fn verbs_speak_tls_with_a_server_that_wants_certificates() {
    let place = Place::with_examples();
    let (ca, clients) = (Authority::new("CA"), Authority::new("clients"));
    ca.issue(&[Name::Dns("localhost")]).write(place.0.path(), "server");
    clients.issue(&[]).write(place.0.path(), "client");
    place.write("ca.pem", ca.pem());
    place.write("clients.pem", clients.pem());
    let server = Server::start_with(
        &place,
        &[
            &FLAGS[..],
            &["--listen", "127.0.0.1:0,0.0.0.0:0", "--tls-cert-file", "server.pem"],
            &["--tls-private-key-file", "server.key", "--tls-client-ca-file", "clients.pem"],
        ]
        .concat(),
    );
    let address = word(&server.ready, "grpc=");
    let https = format!("https://{address}");
    let ask = |server: &str, flags: &[&str]| {
        let question = ["expand", "--audience", MCP, "--scope", "openid", "--server", server];
        place.run(&[&question[..], flags].concat())
    };
    let own = ["--tls-cert-file", "client.pem", "--tls-private-key-file", "client.key"];
    let ca = ["--tls-ca-file", "ca.pem"];
    let ran = ask(&https, &[&ca[..], &own].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let by_name = format!("https://localhost:{}", address.rsplit(':').next().unwrap());
    let ran = ask(&by_name, &[&ca[..], &own].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for verb in ["tail", "verify"] {
        let question = ["audit", verb, "--server", &https];
        let ran = place.run(&[&question[..], &ca, &own].concat());
        assert_eq!(ran.code, 0, "{verb}: {}", ran.stderr);
        let ran = place.run(&question);
        assert!(ran.stderr.contains("--tls-ca-file"), "{verb}: {}", ran.stderr);
    }
    for (flags, expected) in [
        (&own[..], "--tls-ca-file"),
        (&[&ca[..], &own[..2]].concat(), "--tls-private-key-file"),
        (&[&["--tls-ca-file", "clients.pem"][..], &own].concat(), "UnknownIssuer"),
        (&[&["--tls-ca-file", "nowhere.pem"][..], &own].concat(), "`nowhere.pem`"),
    ] {
        let ran = ask(&https, flags);
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{flags:?}");
        assert!(ran.stderr.contains(expected), "{flags:?}: {}", ran.stderr);
    }
    // Without a certificate, and in plaintext, there is no answer.
    for (server, flags) in [(&https, &ca[..]), (&format!("http://{address}"), &[])] {
        let ran = ask(server, flags);
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{server}");
    }
}

#[test]
fn tls_files_that_are_wrong_are_2_and_named() {
    let place = Place::with_examples();
    let ca = Authority::new("CA");
    ca.issue(&[]).write(place.0.path(), "server");
    ca.issue(&[]).write(place.0.path(), "other");
    let both = ["--tls-cert-file", "server.pem", "--tls-private-key-file", "server.key"];
    for (flags, expected) in [
        (&both[..2], "--tls-private-key-file"),
        (&["--tls-client-ca-file", "server.pem"], "--tls-cert-file"),
        (&["--tls-cert-file", "nowhere", "--tls-private-key-file", "server.key"], "`nowhere`"),
        (&["--tls-cert-file", "server.pem", "--tls-private-key-file", "other.key"], "`other.key`"),
        (&[&both[..], &["--tls-client-ca-file", "server.key"]].concat(), "`server.key`"),
    ] {
        let ran = place.run(&[&["serve", "--listen", "127.0.0.1:0"], &FLAGS[..], flags].concat());
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{flags:?}");
        assert!(ran.stderr.contains(expected), "{flags:?}: {}", ran.stderr);
    }
}

#[test]
fn a_key_that_everybody_may_read_is_warned_about() {
    let place = Place::with_examples();
    let files = Authority::new("CA").issue(&[]).write(place.0.path(), "server");
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).unwrap();
    let flags =
        ["--listen", "127.0.0.1:0", "--tls-cert-file", "server.pem", "--tls-private-key-file", "server.key"];
    let mut command = place.command(&[&["serve"], &FLAGS[..], &flags].concat());
    let mut child =
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let warning = lines.map(Result::unwrap).find(|line| line.contains("may read the private key"));
    child.kill().unwrap();
    child.wait().unwrap();
    let warning = warning.expect("a warning");
    assert!(warning.contains("WARN") && warning.contains("server.key"), "{warning}");
}
