//! The real binary under a mixed load for a while: afterwards it holds no more memory, descriptors or threads than before.
//!
//! `SCOPEWARD_SOAK_SECONDS` makes it longer (see docs/performance.md); the suite runs a short form.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use scopeward::rpc::v1;
use scopeward::rpc::v1::audit_service_client::AuditServiceClient;
use scopeward::rpc::v1::policy_status_service_client::PolicyStatusServiceClient;
use scopeward::rpc::v1::scope_policy_service_client::ScopePolicyServiceClient;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

use crate::service::DEADLINE;

const SPARE: usize = 4;
const AUDIENCE: &str = "https://mcp.example.com";

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    resident_kib: u64,
    descriptors: usize,
    threads: u64,
}

impl Held {
    fn of(process: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let number = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
        Self { resident_kib: number("RssAnon:"), descriptors, threads: number("Threads:") }
    }
}

/// The server, ended with the test.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_scopeward"))
            .args(["serve", "--policies", "policies", "--state-dir", "state"])
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--removal-quiet", "200ms"])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let address = ready.split("grpc=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
        Self { child, address }
    }

    async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    fn held(&self) -> Held {
        Held::of(self.child.id())
    }

    /// What it holds once it holds no more than `first`, a few threads aside, or at the deadline: threads of the
    /// blocking pool end when they had nothing to do for a while.
    async fn held_when_idle(&self, first: Held) -> Held {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let held = self.held();
            let is_idle =
                held.descriptors <= first.descriptors && held.threads <= first.threads + SPARE as u64;
            if is_idle || Instant::now() > deadline {
                return held;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn policy(version: u64) -> String {
    format!(
        "audiences:\n  {AUDIENCE}:\n    scopesSupported: [openid, offline_access, v0, v1, v2, v3]\n    \
         baselineClientScopes: [offline_access, v{}]\n",
        version % 4
    )
}

/// What calls of a connection are told that the client's library closes: the one that met it, and the others.
const OWN_END: [&str; 2] = ["too_many_internal_resets", "Canceled, \"connection closed\""];

/// What was answered. `None` if the library of the client closed its own connection: it does after 1,024 answers
/// to calls that it had given up (`max_local_error_reset_streams` of h2), and makes a new one for the next call.
#[track_caller]
fn answered<T>(result: Result<T, tonic::Status>) -> Option<T> {
    match result {
        Err(status) if OWN_END.iter().any(|end| format!("{status:?}").contains(end)) => None,
        result => Some(result.expect("a call is answered")),
    }
}

/// Calls of every kind until `stop`; each third one is given up after a moment.
async fn calls(channel: Channel, stop: Arc<AtomicBool>, done: Arc<AtomicU64>, seed: u64) {
    let mut scopes = ScopePolicyServiceClient::new(channel.clone());
    let mut status = PolicyStatusServiceClient::new(channel);
    let mut at = seed;
    while !stop.load(Ordering::Relaxed) {
        at += 1;
        let check = |scope: &str| v1::CheckAuthorizeScopesRequest {
            audiences: vec![AUDIENCE.to_owned()],
            scope: Some(scope.to_owned()),
            registered_scope: Some("openid".to_owned()),
            ..Default::default()
        };
        let call = async {
            match at % 6 {
                0 => {
                    let request = v1::ExpandRegistrationScopesRequest {
                        audiences: vec![AUDIENCE.to_owned()],
                        scope: Some("openid".to_owned()),
                        ..Default::default()
                    };
                    scopes.expand_registration_scopes(request).await.map(drop)
                }
                1 => scopes.check_authorize_scopes(check("openid")).await.map(drop),
                2 => scopes.check_authorize_scopes(check("openid admin")).await.map(drop),
                3 => {
                    let checks = vec![check("openid"), check("openid offline_access"), check("root")];
                    let request = v1::BatchCheckAuthorizeScopesRequest { checks };
                    scopes.batch_check_authorize_scopes(request).await.map(drop)
                }
                4 => scopes.describe_audience(v1::DescribeAudienceRequest::default()).await.map(drop),
                _ => status.get_policy_status(v1::GetPolicyStatusRequest {}).await.map(drop),
            }
        };
        if at.is_multiple_of(3) {
            // Some are cancelled before the request is sent, some while they are answered.
            _ = timeout(Duration::from_micros(at % 7 * 300), call).await;
        } else {
            answered(call.await.map(drop));
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Opens streams of both kinds, reads a little or nothing, and gives them up.
async fn streams(channel: Channel, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) {
    let mut audit = AuditServiceClient::new(channel.clone());
    let mut status = PolicyStatusServiceClient::new(channel);
    let mut at = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        at += 1;
        if at.is_multiple_of(2) {
            let request = v1::StreamAuditEventsRequest { follow: true, ..Default::default() };
            let Some(stream) = answered(audit.stream_audit_events(request).await) else { continue };
            let mut stream = stream.into_inner();
            for _ in 0..at % 5 {
                _ = timeout(Duration::from_millis(20), stream.message()).await;
            }
        } else {
            let request = v1::WatchPolicyStatusRequest {};
            let Some(stream) = answered(status.watch_policy_status(request).await) else { continue };
            let mut stream = stream.into_inner();
            for _ in 0..at % 3 {
                _ = timeout(Duration::from_millis(20), stream.message()).await;
            }
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Good and broken edits, one after the other.
async fn edits(folder: std::path::PathBuf, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) {
    let file = folder.join("policies/mcp.yaml");
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        at += 1;
        let text = if at % 3 == 0 { "audiences: [".to_owned() } else { policy(at) };
        let draft = folder.join("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(&draft, &file).unwrap();
        done.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(250)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mixed_load_leaves_nothing_behind() {
    let seconds: u64 =
        std::env::var("SCOPEWARD_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("policies")).unwrap();
    std::fs::write(folder.path().join("policies/mcp.yaml"), policy(0)).unwrap();
    let server = Server::start(folder.path());

    let stop = Arc::new(AtomicBool::new(false));
    let (called, streamed, edited) = (Arc::default(), Arc::default(), Arc::default());
    let mut tasks = Vec::new();
    for seed in 0..4 {
        let channel = server.channel().await;
        tasks.push(tokio::spawn(calls(channel.clone(), Arc::clone(&stop), Arc::clone(&called), seed)));
        tasks.push(tokio::spawn(calls(channel.clone(), Arc::clone(&stop), Arc::clone(&called), seed + 17)));
        tasks.push(tokio::spawn(streams(channel, Arc::clone(&stop), Arc::clone(&streamed))));
    }
    tasks.push(tokio::spawn(edits(folder.path().to_owned(), Arc::clone(&stop), Arc::clone(&edited))));

    let total = Duration::from_secs(seconds);
    let warm = (total / 4).min(Duration::from_secs(60));
    sleep(warm).await;
    // The load moves what is held: the most of a few samples is what it is then.
    let mut first = server.held();
    for _ in 0..10 {
        sleep(warm / 20).await;
        let held = server.held();
        first.resident_kib = first.resident_kib.max(held.resident_kib);
        first.descriptors = first.descriptors.max(held.descriptors);
        first.threads = first.threads.max(held.threads);
    }
    sleep(total.saturating_sub(warm + warm / 2)).await;
    let loaded = server.held();
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let last = server.held_when_idle(first).await;
    println!(
        "{seconds} s, {} calls, {} streams, {} edits; held first {first:?}, at the end {loaded:?}, idle {last:?}",
        called.load(Ordering::Relaxed),
        streamed.load(Ordering::Relaxed),
        edited.load(Ordering::Relaxed),
    );
    // Threads of the blocking pool come and go, each with a file at most.
    assert!(last.descriptors <= first.descriptors + SPARE, "descriptors: {first:?} to {last:?}");
    assert!(last.threads <= first.threads + SPARE as u64, "threads: {first:?} to {last:?}");
    // Room for the caches of the allocator, which a short run has not filled when it is first looked at.
    assert!(
        last.resident_kib <= first.resident_kib * 5 / 4 + 16 * 1024,
        "resident memory: {first:?} to {last:?}"
    );
}
