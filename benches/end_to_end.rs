//! The running service under load, always beside a reference in the same run: figures from different
//! machines or moments cannot be compared, ratios can.
//!
//! `cargo bench --bench end_to_end -- decisions` compares with a bare tonic service that echoes the
//! same messages; `-- audit` compares durable expansions with batch mode, with decisions that expand
//! nothing and with the disk's own fsync rate; `-- startup` measures 100,000 audiences in 1,000 files;
//! `-- reload` measures an edit among them and the latency of decisions during an edit storm.
//! Without a name all of them run.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use scopeward::rpc::v1;
use scopeward::rpc::v1::scope_policy_service_client::ScopePolicyServiceClient;
use scopeward::rpc::v1::scope_policy_service_server::{ScopePolicyService, ScopePolicyServiceServer};
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

const BARE_SERVER: &str = "SCOPEWARD_BENCH_BARE_SERVER";
const AUDIENCE: &str = "https://mcp.example.com";
const SCOPE: &str = "openid mcp:read mcp:write offline_access";

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if std::env::var_os(BARE_SERVER).is_some() {
        runtime.block_on(bare_server());
        return;
    }
    let names: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|known| known == name);
    runtime.block_on(async {
        if wanted("decisions") {
            decisions().await;
        }
        if wanted("audit") {
            audit().await;
        }
        if wanted("startup") {
            startup();
        }
        if wanted("reload") {
            reload().await;
        }
    });
}

/// A started server process; ended when dropped.
struct Process {
    child: Child,
    address: String,
    ready_after: Duration,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let started = Instant::now();
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready_after = started.elapsed();
        let address = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("grpc="))
            .unwrap_or_else(|| panic!("no address in the ready line {line:?}"))
            .to_owned();
        Self { child, address, ready_after }
    }

    fn bare() -> Self {
        Self::start(Command::new(std::env::current_exe().unwrap()).env(BARE_SERVER, "1"))
    }

    fn scopeward(policies: &Path, state: &Path, flags: &[&str]) -> Self {
        Self::start(
            Command::new(env!("CARGO_BIN_EXE_scopeward"))
                .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
                .arg("--policies")
                .arg(policies)
                .arg("--state-dir")
                .arg(state)
                .args(flags)
                .env("SCOPEWARD_LOG", "warn"),
        )
    }

    /// Resident memory in MiB.
    fn resident(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().unwrap_or_default();
        kib / 1024.0
    }

    async fn channels(&self, count: usize) -> Vec<Channel> {
        let mut channels = Vec::new();
        for _ in 0..count {
            let endpoint = Channel::from_shared(format!("http://{}", self.address)).unwrap();
            channels.push(endpoint.tcp_nodelay(true).connect().await.expect("the server is reachable"));
        }
        channels
    }
}

/// What one run of the load generator saw.
#[derive(Clone, Copy)]
struct Load {
    per_second: f64,
    p50: f64,
    p99: f64,
}

/// Calls in closed loops: `streams` on each channel, for `duration` after a short warm-up.
async fn load(channels: &[Channel], streams: usize, duration: Duration, question: Question) -> Load {
    let measuring = Arc::new(AtomicBool::new(false));
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for channel in channels {
        for _ in 0..streams {
            let (channel, measuring, stop) = (channel.clone(), Arc::clone(&measuring), Arc::clone(&stop));
            tasks.push(tokio::spawn(async move {
                let mut client = ScopePolicyServiceClient::new(channel);
                let mut latencies: Vec<u32> = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let counted = measuring.load(Ordering::Relaxed);
                    let started = Instant::now();
                    question.ask(&mut client).await;
                    if counted {
                        latencies.push(u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX));
                    }
                }
                latencies
            }));
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    measuring.store(true, Ordering::Relaxed);
    let started = Instant::now();
    tokio::time::sleep(duration).await;
    let took = started.elapsed();
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    latencies.sort_unstable();
    let at = |share: f64| f64::from(latencies[((latencies.len() - 1) as f64 * share) as usize]) / 1000.0;
    Load { per_second: latencies.len() as f64 / took.as_secs_f64(), p50: at(0.5), p99: at(0.99) }
}

/// What is asked.
#[derive(Clone, Copy)]
enum Question {
    /// An authorize request whose scopes are all registered: nothing to record.
    Plain,
    /// An authorize request that gets a baseline scope unasked: recorded.
    Expanding,
}

impl Question {
    async fn ask(self, client: &mut ScopePolicyServiceClient<Channel>) {
        let registered = match self {
            Self::Plain => SCOPE,
            Self::Expanding => "openid mcp:read mcp:write",
        };
        let request = v1::CheckAuthorizeScopesRequest {
            audiences: vec![AUDIENCE.to_owned()],
            scope: Some(SCOPE.to_owned()),
            registered_scope: Some(registered.to_owned()),
            client: Some(v1::Client { client_id: "bench".to_owned(), ..v1::Client::default() }),
            ..Default::default()
        };
        let answer = client.check_authorize_scopes(request).await.expect("an answer").into_inner();
        assert_eq!(answer.scope, SCOPE);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn example_policies() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "audiences:\n  {AUDIENCE}:\n    scopesSupported: [openid, offline_access, \"mcp:read\", \"mcp:write\"]\n    baselineClientScopes: [offline_access]\n"
    );
    std::fs::write(folder.path().join("mcp.yaml"), text).unwrap();
    folder
}

async fn decisions() {
    let policies = example_policies();
    let state = tempfile::tempdir().unwrap();
    let bare = Process::bare();
    let ours = Process::scopeward(policies.path(), state.path(), &[]);
    println!("decisions: CheckAuthorizeScopes with four scopes, five alternating passes of 3 s each");
    for (connections, streams) in [(8, 16), (1, 1)] {
        let (bare_channels, our_channels) =
            (bare.channels(connections).await, ours.channels(connections).await);
        let mut ratios = Vec::new();
        for pass in 1..=5 {
            let duration = Duration::from_secs(3);
            let reference = load(&bare_channels, streams, duration, Question::Plain).await;
            let measured = load(&our_channels, streams, duration, Question::Plain).await;
            let ratio = measured.per_second / reference.per_second;
            println!(
                "  {connections} x {streams}, pass {pass}: bare {:.0}/s (p50 {:.3} ms, p99 {:.3} ms), scopeward {:.0}/s (p50 {:.3} ms, p99 {:.3} ms), ratio {ratio:.3}",
                reference.per_second,
                reference.p50,
                reference.p99,
                measured.per_second,
                measured.p50,
                measured.p99
            );
            ratios.push(ratio);
        }
        println!("  {connections} x {streams}: median ratio {:.3} (goal 0.85)", median(ratios));
    }
}

async fn audit() {
    let policies = example_policies();
    let (one, two) = (tempfile::tempdir_in(".").unwrap(), tempfile::tempdir_in(".").unwrap());
    let blocking = Process::scopeward(policies.path(), one.path(), &["--audit-mode", "blocking"]);
    let batch = Process::scopeward(policies.path(), two.path(), &["--audit-mode", "batch"]);
    println!("audit: expansions, three alternating passes of 3 s each");
    for callers in [1usize, 32, 256] {
        let connections = callers.min(8);
        let streams = callers / connections;
        let (blocking_channels, batch_channels) =
            (blocking.channels(connections).await, batch.channels(connections).await);
        let (mut to_batch, mut to_plain, mut plain_ratio) = (Vec::new(), Vec::new(), Vec::new());
        for pass in 1..=3 {
            let duration = Duration::from_secs(3);
            let durable = load(&blocking_channels, streams, duration, Question::Expanding).await;
            let batched = load(&batch_channels, streams, duration, Question::Expanding).await;
            let plain = load(&blocking_channels, streams, duration, Question::Plain).await;
            let plain_batch = load(&batch_channels, streams, duration, Question::Plain).await;
            let fsyncs = fsync_rate(one.path());
            println!(
                "  {callers} callers, pass {pass}: blocking {:.0}/s (p50 {:.3} ms, p99 {:.3} ms), batch {:.0}/s (p50 {:.3} ms, p99 {:.3} ms), no expansion {:.0}/s (in batch mode {:.0}/s), disk {fsyncs:.0} fsync/s",
                durable.per_second,
                durable.p50,
                durable.p99,
                batched.per_second,
                batched.p50,
                batched.p99,
                plain.per_second,
                plain_batch.per_second
            );
            to_batch.push(durable.per_second / batched.per_second);
            to_plain.push(durable.per_second / plain.per_second);
            plain_ratio.push(plain.per_second / plain_batch.per_second);
        }
        println!(
            "  {callers} callers: median ratio blocking/batch {:.3} (goal at 256: 0.5), blocking/no expansion {:.3}, no expansion blocking/batch {:.3} (goal 0.95)",
            median(to_batch),
            median(to_plain),
            median(plain_ratio)
        );
    }
}

/// How often a second the disk makes 400 appended bytes durable.
fn fsync_rate(folder: &Path) -> f64 {
    let mut file = std::fs::File::create(folder.join("fsync-probe")).unwrap();
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < Duration::from_millis(500) {
        file.write_all(&[b'x'; 400]).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    f64::from(count) / started.elapsed().as_secs_f64()
}

/// 100,000 audiences of ten scopes in 1,000 files.
fn large_policies() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in 0..1000 {
        let mut text = String::from("audiences:\n");
        for audience in 0..100 {
            text.push_str(&format!(
                "  https://service-{file:04}-{audience:03}.example.com/api:\n    scopesSupported:\n"
            ));
            for scope in 0..8 {
                text.push_str(&format!("      - resource{scope}:read\n"));
            }
            text.push_str(
                "      - openid\n      - offline_access\n    baselineClientScopes: [offline_access]\n",
            );
        }
        std::fs::write(folder.path().join(format!("team-{file:04}.yaml")), text).unwrap();
    }
    folder
}

fn startup() {
    let policies = large_policies();
    println!("startup: 100,000 audiences of 10 scopes in 1,000 files, three starts");
    for _ in 0..3 {
        let state = tempfile::tempdir().unwrap();
        let server = Process::scopeward(policies.path(), state.path(), &[]);
        println!(
            "  ready after {:.2} s with {:.0} MiB resident (goal 3 s, 300 MiB)",
            server.ready_after.as_secs_f64(),
            server.resident()
        );
    }
}

async fn reload() {
    let policies = large_policies();
    let state = tempfile::tempdir().unwrap();
    let server = Process::scopeward(policies.path(), state.path(), &[]);
    let channels = server.channels(1).await;
    let mut client = ScopePolicyServiceClient::new(channels[0].clone());
    println!(
        "reload: one edited file among 1,000 with 100,000 audiences, time from the write until it is served"
    );
    for pass in 0..5 {
        let audience = format!("https://new-{pass}.example.com");
        let text = format!("audiences:\n  {audience}:\n    scopesSupported: [openid]\n");
        let started = Instant::now();
        std::fs::write(policies.path().join("edited.yaml"), text).unwrap();
        let request = v1::DescribeAudienceRequest { audience, ..Default::default() };
        let mut served = false;
        while !served && started.elapsed() < Duration::from_secs(30) {
            served = client.describe_audience(request.clone()).await.is_ok();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        println!(
            "  pass {pass}: {:.0} ms{}",
            started.elapsed().as_secs_f64() * 1000.0,
            if served { "" } else { " (not served)" }
        );
        // The edit after this one takes the audience away again, which waits for quiet: start from nothing.
        std::fs::remove_file(policies.path().join("edited.yaml")).unwrap();
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    drop(server);

    let policies = example_policies();
    let server = Process::scopeward(policies.path(), state.path(), &["--debounce", "20ms"]);
    let channels = server.channels(4).await;
    println!(
        "reload: latency of decisions (4 connections x 4) with and without an edit storm, alternating passes of 3 s"
    );
    let (mut quiet_p99, mut storm_p99) = (Vec::new(), Vec::new());
    for pass in 1..=3 {
        let quiet = load(&channels, 4, Duration::from_secs(3), Question::Plain).await;
        let stop = Arc::new(AtomicBool::new(false));
        let edits = Arc::new(AtomicU64::new(0));
        let writer = {
            let (stop, edits, path) =
                (Arc::clone(&stop), Arc::clone(&edits), policies.path().join("mcp.yaml"));
            let text = std::fs::read_to_string(&path).unwrap();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let count = edits.fetch_add(1, Ordering::Relaxed);
                    let added = format!("{text}    privilegedScopes: [admin{}]\n", count % 7);
                    let temporary = path.with_extension("tmp");
                    std::fs::write(&temporary, if count % 2 == 0 { &added } else { &text }).unwrap();
                    std::fs::rename(&temporary, &path).unwrap();
                    std::thread::sleep(Duration::from_millis(5));
                }
                std::fs::write(&path, &text).unwrap();
            })
        };
        let storm = load(&channels, 4, Duration::from_secs(3), Question::Plain).await;
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        println!(
            "  pass {pass}: quiet p50 {:.2} ms p99 {:.2} ms, during {} edits p50 {:.2} ms p99 {:.2} ms",
            quiet.p50,
            quiet.p99,
            edits.load(Ordering::Relaxed),
            storm.p50,
            storm.p99
        );
        quiet_p99.push(quiet.p99);
        storm_p99.push(storm.p99);
    }
    println!("  median p99: quiet {:.2} ms, storm {:.2} ms", median(quiet_p99), median(storm_p99));
}

/// Answers each question with an answer of the same shape and decides nothing.
struct Echo;

#[tonic::async_trait]
impl ScopePolicyService for Echo {
    async fn expand_registration_scopes(
        &self,
        request: Request<v1::ExpandRegistrationScopesRequest>,
    ) -> Result<Response<v1::ExpandRegistrationScopesResponse>, Status> {
        let scope = request.into_inner().scope.unwrap_or_default();
        Ok(Response::new(v1::ExpandRegistrationScopesResponse { scope, ..Default::default() }))
    }

    async fn check_authorize_scopes(
        &self,
        request: Request<v1::CheckAuthorizeScopesRequest>,
    ) -> Result<Response<v1::CheckAuthorizeScopesResponse>, Status> {
        let v1::CheckAuthorizeScopesRequest { audiences, scope, .. } = request.into_inner();
        let scope = scope.unwrap_or_default();
        let audience = audiences.into_iter().next().unwrap_or_default();
        Ok(Response::new(v1::CheckAuthorizeScopesResponse {
            decision: v1::Decision::Allow.into(),
            audience_grants: vec![v1::AudienceGrant { audience, scope: scope.clone() }],
            effective_registered_scope: scope.clone(),
            scope,
            policy: Some(v1::PolicyVersion { generation: 1, digest: format!("sha256:{}", "0".repeat(64)) }),
            decision_id: "00000000-0000-7000-8000-000000000000".to_owned(),
            ..Default::default()
        }))
    }

    async fn batch_check_authorize_scopes(
        &self,
        _: Request<v1::BatchCheckAuthorizeScopesRequest>,
    ) -> Result<Response<v1::BatchCheckAuthorizeScopesResponse>, Status> {
        Ok(Response::new(v1::BatchCheckAuthorizeScopesResponse::default()))
    }

    async fn describe_audience(
        &self,
        _: Request<v1::DescribeAudienceRequest>,
    ) -> Result<Response<v1::DescribeAudienceResponse>, Status> {
        Ok(Response::new(v1::DescribeAudienceResponse::default()))
    }
}

async fn bare_server() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("ready grpc={}", listener.local_addr().unwrap());
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder()
        .add_service(ScopePolicyServiceServer::new(Echo))
        .serve_with_incoming(incoming)
        .await
        .unwrap();
}
