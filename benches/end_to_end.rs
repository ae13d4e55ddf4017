//! The running service under load, always beside a reference in the same run: figures from different
//! machines or moments cannot be compared, ratios can.
//!
//! `cargo bench --bench end_to_end -- decisions` compares with a bare tonic service that echoes the
//! same messages; `-- audit` compares durable expansions with batch mode, with decisions that expand
//! nothing and with the disk's own fsync rate; `-- reload` measures the latency of decisions during an
//! edit storm. Without a name all of them run.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "a bench; the files in `shared` are for several of them"
)]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use scopeward::rpc::v1::scope_policy_service_client::ScopePolicyServiceClient;
use tonic::transport::Channel;

#[path = "shared/bare.rs"]
mod bare;
#[path = "shared/process.rs"]
mod process;
#[path = "shared/question.rs"]
mod question;

use process::{BARE_SERVER, Process, median, scopeward};
use question::{Question, policies as example_policies};

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if std::env::var_os(BARE_SERVER).is_some() {
        runtime.block_on(bare::serve());
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
        if wanted("reload") {
            reload().await;
        }
    });
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

async fn decisions() {
    let policies = example_policies();
    let state = tempfile::tempdir().unwrap();
    let bare = Process::start(process::bare());
    let ours = Process::start(scopeward(policies.path(), state.path(), &[]));
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
    let blocking = Process::start(scopeward(policies.path(), one.path(), &["--audit-mode", "blocking"]));
    let batch = Process::start(scopeward(policies.path(), two.path(), &["--audit-mode", "batch"]));
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

async fn reload() {
    let state = tempfile::tempdir().unwrap();
    let policies = example_policies();
    let server = Process::start(scopeward(policies.path(), state.path(), &["--debounce", "20ms"]));
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
