//! `status`: asks a server, and watches it through changes and restarts.

use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::service::POLICY;

/// A `status --watch` whose lines are read one by one.
struct Watching {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Watching {
    fn start(place: &Place, server: &Server, args: &[&str]) -> Self {
        let all = [&["status", "--watch", "--server", &server.url], args].concat();
        let mut command = place.command(&all);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = Lines::of(child.stdout.take().unwrap());
        let stderr = Lines::of(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// The next line with this in it.
    #[track_caller]
    fn line(&mut self, part: &str) -> String {
        self.stdout.next_with(part)
    }

    /// The next state with this in it; for `--output json`.
    #[track_caller]
    fn state(&mut self, part: &str) -> Value {
        serde_json::from_str(&self.line(part)).expect("one document a line")
    }
}

/// The lines of a stream as they come, so that one that never comes fails the test.
pub(super) struct Lines(mpsc::Receiver<String>);

impl Lines {
    pub(super) fn of(stream: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                let Ok(()) = sender.send(line.expect("UTF-8")) else { return };
            }
        });
        Self(receiver)
    }

    #[track_caller]
    pub(super) fn next_with(&mut self, part: &str) -> String {
        let mut before = Vec::new();
        loop {
            match self.0.recv_timeout(Duration::from_secs(60)) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => before.push(line),
                Err(error) => panic!("no line with `{part}` ({error}) but {before:#?}"),
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn status_tells_what_serves() {
    let place = Place::with_examples();
    let server = Server::start(&place);
    let ran = server.ask(&place, &["status"]);
    assert_eq!((ran.code, &*ran.stderr), (0, ""));
    let digest = word(&server.ready, "digest=");
    assert!(
        ran.stdout.starts_with(&format!("✔ ready\n  policy    generation 1, {digest}\n")),
        "{}",
        ran.stdout
    );
    for line in ["  source    policies", "  audiences 4", "  attempt   ✔ accepted"] {
        assert!(ran.stdout.contains(line), "{line}: {}", ran.stdout);
    }
    let json = server.ask(&place, &["status", "--output", "json"]).json();
    assert_eq!((&json["active"]["digest"], &json["audienceCount"]), (&digest.into(), &4.into()));
    assert_eq!((&json["source"], &json["lastAttempt"]["accepted"]), (&"policies".into(), &true.into()));
    let types: Vec<&Value> = json["conditions"].as_array().unwrap().iter().map(|one| &one["type"]).collect();
    // The volume of the test may be nearly full.
    let types: Vec<&Value> = types.into_iter().filter(|kind| **kind != "AuditStorageLow").collect();
    assert_eq!(types, ["Ready", "PolicyAccepted", "BaselineScopesValid"]);
}

#[test]
fn status_needs_a_server() {
    for args in [&["status"][..], &["status", "--watch"], &["status", "--output", "json"]] {
        let ran = Place::new().run(&[args, &["--server", "http://127.217.3.9:1"]].concat());
        assert_eq!((ran.code, &*ran.stdout), (2, ""));
        assert!(ran.stderr.starts_with("error: could not connect to http://127.217.3.9:1"), "{}", ran.stderr);
    }
}

#[test]
fn a_watcher_sees_a_mistake_and_its_repair() {
    let place = Place::with_examples();
    let server = Server::start(&place);
    let mut text = Watching::start(&place, &server, &[]);
    let mut json = Watching::start(&place, &server, &["--output", "json"]);
    text.line("✔ accepted");
    assert_eq!(json.state("").pointer("/active/generation").unwrap(), "1");

    place.write("policies/new.yaml", UNSUPPORTED_BASELINE.replace("mcp.", "new."));
    text.line("✘ rejected");
    text.line("✘ BaselineScopesValid");
    text.line("! ServingLastGood");
    let finding = text.line("policies/new.yaml:4:28");
    assert!(finding.starts_with("  ✘ policies/new.yaml:4:28 BaselineScopeNotSupported"), "{finding}");
    text.line("audiences in trouble: 1 of ");
    text.line("https://new.example.com");
    let state = json.state("\"accepted\":false");
    assert_eq!(state["lastAttempt"]["findings"][0]["code"], "BaselineScopeNotSupported");

    // Asked once, the server says the same.
    let ran = server.ask(&place, &["status"]);
    assert!(ran.code == 0 && ran.stdout.contains(&finding), "{}", ran.stdout);

    place.write(
        "policies/new.yaml",
        UNSUPPORTED_BASELINE.replace("[openid]", "[openid, offline_access]").replace("mcp.", "new."),
    );
    text.line("generation 2, sha256:");
    text.line("✔ accepted");
    let state = json.state("\"accepted\":true");
    assert_eq!(state["audienceCount"], 5);
}

#[test]
fn a_watcher_outlives_the_server() {
    let place = Place::with_examples();
    let server = Server::start(&place);
    let mut watching = Watching::start(&place, &server, &["--output", "json"]);
    let before = watching.state("")["loadTime"].clone();
    let address = word(&server.ready, "grpc=").to_owned();
    assert_eq!(server.end("TERM"), Some(0));
    watching.stderr.next_with("trying again");
    let _server = Server::start_at(&place, &address);
    loop {
        let state = watching.state("\"PolicyLoaded\"");
        if state["loadTime"] != before {
            break;
        }
    }
}

#[test]
fn a_watcher_ends_when_nobody_reads() {
    let place = Place::with_examples();
    let server = Server::start(&place);
    let args = ["status", "--watch", "--server", &server.url];
    let mut child = place.command(&args).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "✔ ready\n");
    // Nothing is noticed before there is something to print.
    place.write("policies/new.yaml", UNSUPPORTED_BASELINE.replace("mcp.", "new."));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// The digest of the policy in a folder.
pub(super) fn digest(place: &Place, folder: &str) -> String {
    let checked = place.run(&["check", folder]).stdout;
    let (_, digest) = checked.split_once("sha256:").unwrap();
    format!("sha256:{}", &digest[..64])
}

#[test]
fn waiting_for_a_policy_ends_when_it_serves() {
    let place = Place::with(&[("policies/mcp.yaml", POLICY)]);
    let new = POLICY.replace("openid,", "openid, profile,");
    place.write("new/mcp.yaml", &new);
    let (old_digest, new_digest) = (digest(&place, "policies"), digest(&place, "new"));
    let listen = {
        // Free, and of an address that no other test uses.
        let listener = std::net::TcpListener::bind("127.0.46.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let wait = |digest: &str| {
        let args = ["status", "--wait", "--digest", digest, "--server", &listen, "--timeout", "60s"];
        place.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let ended = |waiting: Child| {
        let output = waiting.wait_with_output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        stdout
    };
    // Nobody is there yet.
    let waiting = wait(&old_digest);
    let server = Server::start_at(&place, &listen);
    assert!(ended(waiting).contains(&old_digest));
    assert!(ended(wait(&old_digest)).contains(&old_digest), "it serves already");

    let waiting = wait(&new_digest);
    place.write("policies/mcp.yaml", new);
    assert!(ended(waiting).contains(&new_digest));

    // An answer that is no.
    let no = server.ask(&place, &["status", "--digest", &old_digest]);
    assert_eq!(no.code, 1);
    let said = format!("the server serves {new_digest} and not {old_digest}");
    assert!(no.stdout.contains(&new_digest) && no.stderr.contains(&said), "{}", no.stderr);
    assert_eq!(server.ask(&place, &["status", "--digest", &new_digest]).code, 0);
    let late = server.ask(&place, &["status", "--wait", "--digest", &old_digest, "--timeout", "300ms"]);
    assert_eq!(late.code, 1);
    assert!(late.stderr.contains(&format!("{said} within 300 ms")), "{}", late.stderr);
}

#[test]
fn waiting_without_a_server_or_a_digest_cannot_run() {
    let place = Place::new();
    let digest = format!("sha256:{}", "00".repeat(32));
    let nobody = ["status", "--wait", "--digest", &digest, "--server", "127.217.3.9:1", "--timeout", "300ms"];
    let ran = place.run(&nobody);
    assert_eq!((ran.code, &*ran.stdout), (2, ""));
    assert!(ran.stderr.contains("could not connect to http://127.217.3.9:1"), "{}", ran.stderr);
    for args in [&["status", "--wait"][..], &["status", "--wait", "--digest", "sha256:00"]] {
        let ran = place.run(args);
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{args:?}");
        assert!(ran.stderr.contains("--digest"), "{args:?}: {}", ran.stderr);
    }
}
