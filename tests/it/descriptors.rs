//! A server that has few file descriptors: files keep theirs, whatever callers do.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};

use scopeward::rpc::v1;
use scopeward::rpc::v1::policy_status_service_client::PolicyStatusServiceClient;

use crate::harness::{channel, one_audience, within};

/// A server process with limits of its own; ended when it is dropped.
struct Limited {
    child: Child,
    grpc: std::net::SocketAddr,
    // Kept open: the process would lose its standard output.
    _stdout: BufReader<ChildStdout>,
}

impl Limited {
    /// Starts the server in `folder` after the shell's `ulimit` with these arguments.
    fn start(folder: &std::path::Path, ulimit: &str) -> Self {
        let policies = folder.join("policies");
        fs::create_dir(&policies).expect("a folder");
        fs::write(policies.join("mcp.yaml"), one_audience("scopesSupported: [a]")).expect("a file");
        let script =
            format!("ulimit {ulimit} && exec \"$0\" serve --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0");
        let mut child = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_scopeward")])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut ready = String::new();
        stdout.read_line(&mut ready).expect("the ready line");
        let (_, rest) = ready.split_once("grpc=").unwrap_or_else(|| panic!("{ready}"));
        let grpc = rest.split_whitespace().next().expect("an address").parse().expect("an address");
        Self { child, grpc, _stdout: stdout }
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Limited::start(folder.path(), "-Sn 128");
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.child.id())).expect("limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("the limit");
    let mut words = line.split_whitespace().skip(3);
    let (soft, hard) = (words.next(), words.next());
    assert!(soft.is_some() && soft == hard && soft != Some("128"), "{line}");
}

#[tokio::test]
async fn edit_is_served_though_callers_take_every_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Limited::start(folder.path(), "-n 200");
    let mut status = PolicyStatusServiceClient::new(channel(server.grpc).await);
    let watch = status.watch_policy_status(v1::WatchPolicyStatusRequest {}).await.expect("a stream");
    let mut watch = watch.into_inner();
    within("a status", watch.message()).await.expect("no error").expect("a status");
    // More than there are descriptors; those over the limit are closed at once.
    let peers: Vec<_> = (0..250).filter_map(|_| TcpStream::connect(server.grpc).ok()).collect();
    assert_eq!(peers.len(), 250);
    fs::write(folder.path().join("policies/more.yaml"), "audiences: {more: {scopesSupported: [b]}}")
        .expect("a file");
    within("the edit is served", async {
        loop {
            let message = watch.message().await.expect("no error").expect("a status");
            let status = message.status.expect("a status");
            assert!(
                status.last_attempt.is_none_or(|attempt| attempt.accepted),
                "no verdict about the policy"
            );
            if status.audience_count == 2 {
                break;
            }
        }
    })
    .await;
}
