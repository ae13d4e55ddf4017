//! `access new-token`, `check --access-file`, and `serve --access-file` with what verbs show.

use std::fs;
use std::os::unix::fs::MetadataExt;

use sha2::{Digest, Sha256};

use super::{MCP, Place, Server};

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
    ] {
        place.write("access.yaml", &access);
        let ran = place.run(&["check", "--access-file", "access.yaml"]);
        assert_eq!(ran.code, code, "{}", ran.stdout);
        assert!(ran.stdout.contains(expected), "{expected}: {}", ran.stdout);
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
