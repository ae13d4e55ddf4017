//! `serve` as the real binary when those who read its output stop reading or disconnect, and how it ends.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::process::{ChildStderr, ChildStdout, ExitStatus};
use std::time::{Duration, Instant};

use scopeward::rpc::v1;
use scopeward::rpc::v1::scope_policy_service_client::ScopePolicyServiceClient;

use super::*;
use crate::service::{DEADLINE, POLICY};

/// A server with both of its outputs in our hands; ended when it is dropped.
pub(super) struct Piped {
    pub(super) child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: Option<BufReader<ChildStderr>>,
    pub(super) url: String,
    admin: String,
}

impl Piped {
    /// Starts with more flags. The ready line is taken from where it belongs; what stands on standard
    /// error before it is thrown away.
    pub(super) fn start(place: &Place, flags: &[&str]) -> Self {
        Self::start_with(place, flags, &[])
    }

    /// The same with variables in its environment.
    pub(super) fn start_with(place: &Place, flags: &[&str], variables: &[(&str, &OsStr)]) -> Self {
        let args =
            ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--debounce", "20ms"];
        let mut command = place.command(&[&args, flags].concat());
        command.envs(variables.iter().copied());
        Self::spawn(command, flags.contains(&"-"))
    }

    /// Starts a command that serves. Where standard output carries audit lines, the ready line is on standard error.
    pub(super) fn spawn(mut command: Command, has_lines: bool) -> Self {
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("the binary runs");
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut ready = String::new();
        if has_lines {
            while !ready.contains("scopeward ready:") {
                ready.clear();
                assert_ne!(stderr.read_line(&mut ready).unwrap(), 0, "a ready line");
            }
        } else {
            stdout.read_line(&mut ready).unwrap();
        }
        let (url, admin) = (format!("http://{}", word(&ready, "grpc=")), word(&ready, "admin=").to_owned());
        Self { child, stdout: Some(stdout), stderr: Some(stderr), url, admin }
    }

    /// Expands so many registrations; each is a record.
    pub(super) fn expand(&self, count: usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut client = ScopePolicyServiceClient::connect(self.url.clone()).await.unwrap();
            for _ in 0..count {
                let request = v1::ExpandRegistrationScopesRequest {
                    audiences: vec![MCP.to_owned()],
                    scope: Some("openid".to_owned()),
                    ..Default::default()
                };
                client.expand_registration_scopes(request).await.unwrap();
            }
        });
    }

    /// Asks for the status until it is as wanted.
    pub(super) fn status_when(&self, place: &Place, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let status = place.run(&["status", "--output", "json", "--server", &self.url]).json();
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "not seen: {what}: {status:#}");
        }
    }

    pub(super) fn metric(&self, name: &str) -> f64 {
        let mut stream = std::net::TcpStream::connect(&self.admin).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    pub(super) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end, but no longer than any timeout here allows.
    pub(super) fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What is left on standard error.
    pub(super) fn errors(&mut self) -> String {
        let mut text = String::new();
        self.stderr.as_mut().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

pub(super) fn place() -> Place {
    Place::with(&[("policies/mcp.yaml", POLICY)])
}

/// A good edit is served and a bad one is shown.
fn edits_are_followed(place: &Place, server: &Piped) {
    place.write("policies/mcp.yaml", POLICY.replace("mcp:write", "mcp:admin"));
    server.status_when(place, "the good edit", |status| status["active"]["generation"] == "2");
    place.write("policies/mcp.yaml", "audiences: [");
    server.status_when(place, "the bad edit", |status| status["lastAttempt"]["accepted"] == false);
}

#[test]
fn a_closed_stderr_changes_nothing_but_the_log() {
    let place = place();
    let mut server = Piped::start(&place, &["--removal-quiet", "50ms"]);
    drop(server.stderr.take());
    edits_are_followed(&place, &server);
    server.expand(1);
    assert!(server.metric("scopeward_log_lines_dropped_total") >= 1.0);
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
}

#[test]
fn a_full_stderr_changes_nothing_but_the_log() {
    let place = place();
    let mut server = Piped::start(&place, &["--removal-quiet", "50ms", "--log", "trace"]);
    let deadline = Instant::now() + DEADLINE;
    while server.metric("scopeward_log_lines_dropped_total") < 1.0 {
        assert!(Instant::now() < deadline, "the log never fills up");
        server.expand(50);
    }
    edits_are_followed(&place, &server);
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    // What was queued is whole lines.
    assert!(server.errors().contains("policy"));
}

#[test]
fn a_stalled_reader_of_audit_lines_ends_at_the_deadline_and_lines_go_on_from_there() {
    let place = place();
    let flags = ["--audit-jsonl", "-", "--shutdown-timeout", "1s"];
    let mut server = Piped::start(&place, &flags);
    server.expand(300);
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(1));
    let errors = server.errors();
    assert!(errors.contains("scopeward: abandoned audit-lines: a write did not return: its reader does not read, or the disk does not answer; the lines continue at the next start"), "{errors}");
    let mut seen = sequences(server.stdout.take().unwrap());
    assert!(seen.len() < 300, "the pipe took all lines");

    // The ready line is not among them, and nothing is missing: what was not read is written again.
    let mut server = Piped::start(&place, &flags);
    let mut more = sequences(server.stdout.take().unwrap().take_lines_through(301));
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0), "{}", server.errors());
    seen.append(&mut more);
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.iter().copied().eq(1..=*seen.last().unwrap()) && seen.len() > 300, "{seen:?}");
}

trait TakeLines {
    /// Everything up to the line with this sequence.
    fn take_lines_through(self, sequence: u64) -> std::io::Cursor<Vec<u8>>;
}

impl TakeLines for BufReader<ChildStdout> {
    fn take_lines_through(mut self, sequence: u64) -> std::io::Cursor<Vec<u8>> {
        let wanted = format!("\"sequence\":\"{sequence}\"");
        let mut text = String::new();
        while !text.contains(&wanted) {
            assert_ne!(self.read_line(&mut text).unwrap(), 0, "a line with sequence {sequence}");
        }
        std::io::Cursor::new(text.into_bytes())
    }
}

/// The sequences of whole lines; each must be JSON.
fn sequences(lines: impl BufRead) -> Vec<u64> {
    let mut sequences = Vec::new();
    for line in lines.split(b'\n').map(Result::unwrap) {
        let Ok(line) = serde_json::from_slice::<Value>(&line) else {
            assert!(line.starts_with(b"{"), "{}", String::from_utf8_lossy(&line));
            break;
        };
        sequences.push(line["sequence"].as_str().unwrap().parse().unwrap());
    }
    sequences
}

#[test]
fn a_second_signal_ends_at_once_and_says_so() {
    let place = place();
    let mut server = Piped::start(&place, &["--audit-jsonl", "-", "--shutdown-timeout", "1h"]);
    server.expand(300);
    server.signal("TERM");
    let mut line = String::new();
    while !line.contains("stopping") {
        line.clear();
        assert_ne!(server.stderr.as_mut().unwrap().read_line(&mut line).unwrap(), 0, "it stops");
    }
    server.signal("INT");
    assert_eq!(server.end().code(), Some(1));
    let errors = server.errors();
    assert!(errors.contains("scopeward: SIGINT received again, ending at once"), "{errors}");
}

#[test]
fn a_target_that_holds_no_lines_is_refused_at_start() {
    let place = place();
    for (target, reason) in [
        ("/dev/full", "it is a memory device"),
        ("/dev/zero", "it is a memory device"),
        ("policies", "it is a directory"),
    ] {
        let flags = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let ran = place.run(&[&flags, &["--audit-jsonl", target][..]].concat());
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{target}");
        assert!(ran.stderr.contains(&format!("`{target}`: {reason}")), "{}", ran.stderr);
    }
    let mut command = place.command(&["serve", "--listen", "127.0.0.1:0", "--audit-jsonl", "-"]);
    command
        .args(["--admin-listen", "127.0.0.1:0"])
        .stdout(File::options().write(true).open("/dev/full").unwrap());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_log_begins_with_the_version_and_the_settings() {
    let place = place();
    let mut server = Piped::start(&place, &["--removal-quiet", "3s", "--log-format", "json"]);
    let mut line = String::new();
    server.stderr.as_mut().unwrap().read_line(&mut line).unwrap();
    let fields = serde_json::from_str::<Value>(&line).unwrap()["fields"].clone();
    assert_eq!(
        (&fields["message"], &fields["version"]),
        (&"starting".into(), &env!("CARGO_PKG_VERSION").into())
    );
    let settings = fields["settings"].as_str().unwrap();
    for setting in ["policies=policies", "removalQuiet=3s", "shutdownTimeout=20s", "startFromLastGood=false"]
    {
        assert!(settings.split(' ').any(|given| given == setting), "{setting} in {settings}");
    }
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
}
