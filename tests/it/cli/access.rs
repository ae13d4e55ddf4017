//! `access new-token`, `check --access-file`, and `serve --access-file` with what verbs show.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use super::{MCP, Place, Server};
use crate::certs::Authority;

fn new_token(place: &Place) -> (String, String) {
    let ran = place.run(&["access", "new-token", "--output", "json"]);
    assert_eq!((ran.code, &*ran.stderr), (0, ""));
    let json = ran.json();
    (json["token"].as_str().unwrap().to_owned(), json["tokenSha256"].as_str().unwrap().to_owned())
}

#[test]
fn a_new_token_comes_with_its_hash() {
    let place = Place::new();
    let ((token, hash), (other, _)) = (new_token(&place), new_token(&place));
    assert_ne!(token, other);
    assert!(token.len() > 40 && token.starts_with("swt_"), "{token}");
    let expected: String =
        Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, expected);
    let ran = place.run(&["access", "new-token"]);
    assert_eq!(ran.stdout.lines().count(), 2, "{}", ran.stdout);
}

#[test]
fn a_token_lets_a_verb_in_and_a_server_without_one_says_no() {
    let place = Place::with_examples();
    let (token, hash) = new_token(&place);
    place.write("token", format!("{token}\n"));
    place.write("wrong", "swt_wrong\n");
    place.write("two", format!("{token}\n{token}\n"));
    let uid = fs::metadata("/proc/self").unwrap().uid();
    place.write(
        "access.yaml",
        format!(
            "callers:\n  - {{name: cli, match: [{{tokenSha256: {hash}}}], may: [decide]}}\n  - {{name: local, match: [{{unixUid: \
             {uid}}}], may: [status]}}\n"
        ),
    );
    let socket = format!("unix:{}", place.0.path().join("s").display());
    let listen = format!("127.0.0.1:0,{socket}");
    let server = Server::start_with(
        &place,
        &["--listen", &listen, "--admin-listen", "127.0.0.1:0", "--access-file", "access.yaml"],
    );
    let question = ["expand", "--audience", MCP, "--scope", "openid"];
    for (flags, code, expected) in [
        (&["--token-file", "token"][..], 0, ""),
        (&[], 2, "UNAUTHENTICATED (UNAUTHENTICATED)"),
        (&["--token-file", "wrong"], 2, "UNAUTHENTICATED"),
        (&["--token-file", "two"], 2, "`two`"),
        (&["--token-file", "nowhere"], 2, "`nowhere`"),
    ] {
        let ran = server.ask(&place, &[&question[..], flags].concat());
        assert_eq!(ran.code, code, "{flags:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(expected) && !ran.stderr.contains(&token), "{flags:?}: {}", ran.stderr);
    }
    let ran = server.ask(&place, &["status", "--token-file", "token"]);
    assert!(ran.stderr.contains("PERMISSION_DENIED"), "{}", ran.stderr);
    assert_eq!(place.run(&["status", "--server", &socket]).code, 0);
}

#[test]
fn an_access_file_is_checked_with_the_policy() {
    let place = Place::with_examples();
    let caller = |may: &str, audience: &str| {
        format!(
            "callers:\n  - name: as\n    match: [{{unixUid: 1}}]\n    may: [{may}]\n    audiences: [\"{audience}\"]\n"
        )
    };
    for (access, code, expected) in [
        (caller("decide", MCP), 0, "valid: 1 caller in the access file"),
        (caller("status", MCP), 0, "warning[NobodyMayDecide]"),
        (caller("decide", "https://n.example"), 0, "warning[AccessAudienceNotDeclared]"),
        (caller("decdie", MCP), 1, "did you mean `decide`?"),
        (caller("", MCP), 1, "error[NobodyMayCall]"),
        ("callers: []\n".to_owned(), 1, "callers"),
        (
            caller("decide", MCP) + &caller("status", MCP)["callers:\n".len()..].replace(": 1", ": 2"),
            1,
            "error[DuplicateCallerName]",
        ),
        (caller("decide", MCP).replace("unixUid: 1", "tokenSha256: 2cf24d"), 1, "this text has 6 bytes"),
        (
            caller("decide", MCP).replace("unixUid: 1", "tokenSha256: \"swt_a\\nb\""),
            1,
            "this text has 7 bytes",
        ),
    ] {
        place.write("access.yaml", &access);
        let ran = place.run(&["check", "--access-file", "access.yaml"]);
        assert_eq!(ran.code, code, "{}", ran.stdout);
        assert!(ran.stdout.contains(expected), "{expected}: {}", ran.stdout);
        assert!(!ran.stdout.contains("swt_"), "a token that stands in the file is not shown: {}", ran.stdout);
        let serve = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
            "--access-file",
            "access.yaml",
        ];
        if code == 1 {
            let ran = place.run(&serve);
            assert_eq!(ran.code, 1, "{}", ran.stderr);
            assert!(ran.stderr.contains(expected), "{expected}: {}", ran.stderr);
            assert!(!ran.stderr.contains("swt_"), "nor in the log: {}", ran.stderr);
        }
    }
    assert_eq!(place.run(&["check", "--access-file", "nowhere.yaml"]).code, 2);
    let ran = place.run(&[
        "serve",
        "--admin-listen",
        "127.0.0.1:0",
        "--listen",
        "127.0.0.1:0",
        "--access-file",
        "nowhere.yaml",
    ]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("`nowhere.yaml`"), "{}", ran.stderr);
}

/// What a server logs until it is ready and stops.
fn log_of(place: &Place, flags: &[&str]) -> String {
    let serve = ["serve", "--admin-listen", "127.0.0.1:0"];
    let mut command = place.command(&[&serve[..], flags].concat());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut ready = String::new();
    stdout.read_line(&mut ready).unwrap();
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap()
}

#[test]
fn a_server_warns_of_callers_that_cannot_reach_it_as_it_listens() {
    let place = Place::with_examples();
    let ca = Authority::new("CA");
    ca.issue(&[]).write(place.0.path(), "server");
    place.write("ca.pem", ca.pem());
    let socket = format!("127.0.0.1:0,unix:{}", place.0.path().join("s").display());
    let tls = ["--tls-cert-file", "server.pem", "--tls-private-key-file", "server.key"];
    let with_ca = [&tls[..], &["--tls-client-ca-file", "ca.pem"]].concat();
    let plaintext = ["--insecure-allow-remote-plaintext"];
    let (certificates, users, tokens, nobody) = (
        "the access file has callers with certificates, but no --tls-client-ca-file says who issues them",
        "the access file has callers with unixUid, but the server listens on no Unix socket",
        "the access file has callers with tokens, which other machines send in plaintext",
        "everybody who reaches the server may call everything",
    );
    let all = [certificates, users, tokens, nobody];
    let hash = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let token = format!("tokenSha256: {hash}");
    for (entry, listen, flags, expected) in [
        (Some("spiffeId: spiffe://example.org/as"), "127.0.0.1:0", &tls[..], Some(certificates)),
        (Some("dnsName: as.example.org"), "127.0.0.1:0", &[], Some(certificates)),
        (Some("dnsName: as.example.org"), "127.0.0.1:0", &with_ca, None),
        (Some("unixUid: 1"), "127.0.0.1:0", &[], Some(users)),
        (Some("unixUid: 1"), &*socket, &[], None),
        (Some(&*token), "127.0.0.1:0", &[], None),
        (Some(&*token), "0.0.0.0:0", &tls, None),
        (Some(&*token), "0.0.0.0:0", &plaintext, Some(tokens)),
        (None, "0.0.0.0:0", &plaintext, Some(nobody)),
        (None, &*socket, &[], None),
    ] {
        let mut all_flags = [&["--listen", listen], flags].concat();
        if let Some(entry) = entry {
            place.write(
                "access.yaml",
                format!("callers: [{{name: as, match: [{{{entry}}}], may: [decide]}}]\n"),
            );
            all_flags.extend(["--access-file", "access.yaml"]);
        }
        let log = log_of(&place, &all_flags);
        let warned: Vec<_> = all.into_iter().filter(|text| log.contains(text)).collect();
        assert_eq!(warned, expected.into_iter().collect::<Vec<_>>(), "{entry:?} {all_flags:?}: {log}");
        if let Some(text) = expected {
            let line = log.lines().find(|line| line.contains(text)).unwrap();
            assert!(line.contains("WARN"), "{line}");
            assert!(entry.is_none() || line.contains("caller=\"as\" count=1"), "{line}");
        }
    }
}

#[test]
fn a_server_warns_of_such_callers_when_a_new_file_brings_them_too() {
    let place = Place::with_examples();
    let entry = |more: &str| {
        let zeros = "0".repeat(64);
        format!("callers:\n  - {{name: as, match: [{{tokenSha256: \"{zeros}\"}}], may: [decide]}}\n{more}")
    };
    place.write("access.yaml", entry(""));
    let flags = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--access-file", "access.yaml"];
    let mut command = place.command(&[&["serve"], &flags[..]].concat());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut before = Vec::new();
    for line in lines {
        match line.split_once("the access file counts ") {
            Some((_, fields)) if fields.contains("generation=1") => {
                place
                    .write("access.yaml", entry("  - {name: local, match: [{unixUid: 1}], may: [status]}\n"));
            }
            Some((_, fields)) if fields.contains("generation=2") => break,
            _ => before.push(line),
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let warning = before.iter().find(|line| line.contains("the server listens on no Unix socket"));
    assert!(warning.is_some_and(|line| line.contains("caller=\"local\"")), "{before:#?}");
}
