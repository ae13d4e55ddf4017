//! The running service under load, always beside a reference in the same run: figures from different
//! machines or moments cannot be compared, ratios can.
//!
//! `cargo bench --bench end_to_end -- decisions` compares with a bare tonic service that echoes the
//! same messages; `-- audit` compares durable expansions with batch mode, with decisions that expand
//! nothing and with the disk's own fsync rate, in `BENCH_STATE_DIR` if that names a folder; `-- reload`
//! measures the latency of decisions during an edit storm, server and load generator on a core each; `-- forwarding` compares decisions
//! that expand nothing with and without `--audit-forward` to the PostgreSQL of `BENCH_POSTGRES`, a URL without a password; `-- forwarded` measures
//! how many records a second reach that and the stream of `BENCH_NATS`, and how late.
//! Without a name all of them run.

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
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
        if wanted("forwarding") {
            forwarding().await;
        }
        if wanted("forwarded") {
            for variable in ["BENCH_POSTGRES", "BENCH_NATS"] {
                forwarded(variable).await;
            }
        }
    });
}

/// What one run of the load generator saw.
#[derive(Clone, Copy)]
struct Load {
    per_second: f64,
    p50: f64,
    p99: f64,
    /// CPU time of the server for a call in microseconds, that of the kernel included.
    cpu: f64,
}

/// How long calls are made before they are measured, at most.
const LONGEST_WARM_UP: Duration = Duration::from_millis(500);

/// Calls in closed loops: `streams` on each channel, for `duration` after a short warm-up.
async fn load(
    server: &Process,
    channels: &[Channel],
    streams: usize,
    duration: Duration,
    question: Question,
) -> Load {
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
    tokio::time::sleep(LONGEST_WARM_UP.min(duration / 3)).await;
    measuring.store(true, Ordering::Relaxed);
    let (started, cpu) = (Instant::now(), server.cpu());
    tokio::time::sleep(duration).await;
    let (took, cpu) = (started.elapsed(), server.cpu() - cpu);
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    latencies.sort_unstable();
    let at = |share: f64| f64::from(latencies[((latencies.len() - 1) as f64 * share) as usize]) / 1000.0;
    let calls = latencies.len() as f64;
    Load { per_second: calls / took.as_secs_f64(), p50: at(0.5), p99: at(0.99), cpu: cpu * 1e6 / calls }
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
            let reference = load(&bare, &bare_channels, streams, duration, Question::Plain).await;
            let measured = load(&ours, &our_channels, streams, duration, Question::Plain).await;
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

/// The columns of a pass of `audit`: each with the mode of its server, and what that is asked. Each has a server that is started for it,
/// on an empty store: a server that finds records checks them all in the background, which takes time from every load.
const AUDIT_LOADS: [(&str, &str, Question); 5] = [
    ("blocking", "blocking", Question::Expanding),
    ("batch", "batch", Question::Expanding),
    ("none, blocking", "blocking", Question::Registered),
    ("none, batch", "batch", Question::Registered),
    (FULL, "batch", Question::Expanding),
];
/// The load whose store stays from pass to pass.
const FULL: &str = "batch, full";
/// More than a pass writes: nothing is deleted meanwhile.
const LARGE_STORE: &str = "16GiB";
/// Less than the passes of 32 callers write: from then on as much is deleted as is written.
const SMALL_STORE: &str = "512MiB";

async fn audit() {
    let policies = example_policies();
    let folder = std::env::var_os("BENCH_STATE_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let full = tempfile::tempdir_in(&folder).unwrap();
    let start = |state: &Path, mode: &str, size: &str| {
        let flags = ["--audit-mode", mode, "--audit-max-size", size];
        Process::start(scopeward(policies.path(), state, &flags))
    };
    println!(
        "audit, in {}: expansions in both modes, and calls that expand nothing; {AUDIT_PASSES} passes of {AUDIT_PASS:?} each, every other one backwards, each of their loads with a server that was started for it",
        folder.display()
    );
    for callers in [1usize, 32, 256] {
        let connections = callers.min(8);
        let streams = callers / connections;
        let mut passes: Vec<[Load; 5]> = Vec::new();
        let mut fsyncs = Vec::new();
        for pass in 1..=AUDIT_PASSES {
            let mut seen = [None; 5];
            let mut order = [0, 1, 2, 3, 4];
            if pass % 2 == 0 {
                order.reverse();
            }
            for at in order {
                let (name, mode, question) = AUDIT_LOADS[at];
                let empty = tempfile::tempdir_in(&folder).unwrap();
                let server = match name {
                    FULL => start(full.path(), mode, SMALL_STORE),
                    _ => start(empty.path(), mode, LARGE_STORE),
                };
                let channels = server.channels(connections).await;
                seen[at] = Some(load(&server, &channels, streams, AUDIT_PASS, question).await);
                server.stop();
            }
            passes.push(seen.map(|load| load.expect("each load ran")));
            if pass % 10 == 0 {
                fsyncs.push(fsync_rate(full.path()));
            }
        }
        println!("  {callers} callers, {:.0} fsync/s of this disk; medians", median(fsyncs));
        for (at, (name, ..)) in AUDIT_LOADS.into_iter().enumerate() {
            let of = |figure: fn(&Load) -> f64| median(passes.iter().map(|pass| figure(&pass[at])).collect());
            println!(
                "    {name:<15} {:>7.0}/s, p50 {:.3} ms, p99 {:.3} ms, CPU {:.1} us",
                of(|load| load.per_second),
                of(|load| load.p50),
                of(|load| load.p99),
                of(|load| load.cpu)
            );
        }
        for (name, own, reference, goal) in [
            ("expansion, `blocking` against `batch`", 0, 1, if callers == 256 { "0.90" } else { "" }),
            ("expansion, `batch`, against none", 1, 3, "0.90"),
            ("expansion, `blocking`, against none", 0, 2, ""),
            ("none, `blocking` against `batch`", 2, 3, "0.95"),
            ("expansion, `batch`, a full store against one that is not", 4, 1, ""),
        ] {
            let mut calls: Vec<f64> =
                passes.iter().map(|pass| pass[own].per_second / pass[reference].per_second).collect();
            calls.sort_by(f64::total_cmp);
            let (low, high) = median_interval(&calls);
            let cpu = passes.iter().map(|pass| pass[reference].cpu / pass[own].cpu).collect();
            println!(
                "  {callers:>3} callers, {name:<57} calls {:.3} ({low:.3} to {high:.3}), CPU {:.3} (goal {goal})",
                median(calls),
                median(cpu)
            );
        }
    }
}

/// Rounds of the five loads, and how long each of them is measured: many short ones, since what else the machine does changes from second
/// to second. Each load has a server that was started for it: two starts of one server differ by more than two rounds of one start.
const AUDIT_PASSES: usize = 40;
const AUDIT_PASS: Duration = Duration::from_millis(600);

/// The interval that has the true median in 95 of 100 cases, were the sorted figures independent of each other: those whose places are
/// about one square root of their number before and after the middle.
fn median_interval(sorted: &[f64]) -> (f64, f64) {
    let (count, away) = (sorted.len(), (sorted.len() as f64).sqrt());
    let low = ((count as f64 / 2.0 - away).floor() as usize).min(count - 1);
    (sorted[low], sorted[count - 1 - low])
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

/// Passes with and without forwarding, so many times each, and how long each is measured. Many short ones, since what else the machine
/// does changes from second to second.
const FORWARDING_PASSES: usize = 15;
const FORWARDING_PASS: Duration = Duration::from_millis(1500);
/// Who expands meanwhile, so that there is something to forward.
const EXPANDERS: u64 = 8;

/// Decisions that expand nothing, while others expand so many times a second.
async fn forwarding() {
    let Some(url) = std::env::var_os("BENCH_POSTGRES") else {
        println!(
            "forwarding: BENCH_POSTGRES names no PostgreSQL, such as postgres://postgres@127.0.0.1:5432/audit"
        );
        return;
    };
    let policies = example_policies();
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let without = Process::start(scopeward(policies.path(), one.path(), &[]));
    let with =
        Process::start(scopeward(policies.path(), two.path(), &["--audit-forward", url.to_str().unwrap()]));
    println!(
        "forwarding: decisions (8 x 4) with and without it, {FORWARDING_PASSES} passes of {FORWARDING_PASS:?} each, every other one backwards"
    );
    let sides = [(&without, without.channels(8).await), (&with, with.channels(8).await)];
    for rate in [0, 200, 1000] {
        let mut passes: Vec<[Load; 2]> = Vec::new();
        for pass in 1..=FORWARDING_PASSES {
            let mut seen = [None; 2];
            let mut order = [0, 1];
            if pass % 2 == 0 {
                order.reverse();
            }
            for at in order {
                let (server, channels) = &sides[at];
                let expanding = expanding(&channels[0], rate);
                seen[at] = Some(load(server, channels, 4, FORWARDING_PASS, Question::Plain).await);
                expanding.iter().for_each(tokio::task::JoinHandle::abort);
                // What is left to forward is not work of the next pass.
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            passes.push(seen.map(|load| load.expect("each load ran")));
        }
        let median_of = |part: fn(&Load) -> f64, side: usize| {
            median(passes.iter().map(|pass| part(&pass[side])).collect())
        };
        let ratio = median(passes.iter().map(|[off, on]| on.per_second / off.per_second).collect());
        let cpu = median(passes.iter().map(|[off, on]| off.cpu / on.cpu).collect());
        println!(
            "  {rate:>4} expansions/s: without {:.0}/s (p99 {:.3} ms), with {:.0}/s (p99 {:.3} ms), calls {ratio:.3}, CPU {cpu:.3} (goal 0.97)",
            median_of(|load| load.per_second, 0),
            median_of(|load| load.p99, 0),
            median_of(|load| load.per_second, 1),
            median_of(|load| load.p99, 1),
        );
    }
}

/// For how long records are made in each row of `forwarded`.
const FORWARDED_TIME: Duration = Duration::from_secs(5);

/// Expansions at a steady rate: whether their records reach the store as fast, how many wait, and for how long after the last one.
async fn forwarded(variable: &str) {
    let Some(url) = std::env::var_os(variable) else {
        println!("forwarded: {variable} names no store, such as nats://127.0.0.1:4222/AUDIT");
        return;
    };
    let policies = example_policies();
    println!("forwarded: to {}, expansions in `batch` for {FORWARDED_TIME:?}", url.to_string_lossy());
    for rate in [1_000, 5_000, 10_000, 20_000] {
        let state = tempfile::tempdir().unwrap();
        let flags = ["--audit-mode", "batch", "--audit-forward", url.to_str().unwrap()];
        let server = Process::start(scopeward(policies.path(), state.path(), &flags));
        let channels = server.channels(1).await;
        let records = || server.metric("scopeward_audit_forwarded_records_total");
        while records() < 1.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (begin, before, cpu) = (Instant::now(), records(), server.cpu());
        let expanding = expanding(&channels[0], rate);
        let mut most = 0.0_f64;
        while begin.elapsed() < FORWARDED_TIME {
            tokio::time::sleep(Duration::from_millis(100)).await;
            most = most.max(server.metric("scopeward_audit_forward_lag"));
        }
        let there = records() - before;
        let took = begin.elapsed().as_secs_f64();
        expanding.iter().for_each(tokio::task::JoinHandle::abort);
        let ended = Instant::now();
        // Whoever was asked last has still to be answered.
        tokio::time::sleep(Duration::from_millis(20)).await;
        while server.metric("scopeward_audit_forward_lag") > 0.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let late = ended.elapsed();
        println!(
            "  {rate:>5} expansions/s: {:.0}/s made, {:.0}/s there by then, at most {most:.0} waited, all there {:.0} ms after the last, CPU of the server {:.1} us each",
            (records() - before) / took,
            there / took,
            late.as_secs_f64() * 1000.0,
            (server.cpu() - cpu) * 1e6 / (records() - before)
        );
        server.stop();
    }
}

/// Those who expand, so many times a second together.
fn expanding(channel: &Channel, rate: u64) -> Vec<tokio::task::JoinHandle<()>> {
    // One who waits for its answers makes some 1,000 a second.
    let count = if rate > 0 { EXPANDERS.max(rate / 200) } else { 0 };
    let interval = Duration::from_secs(count) / u32::try_from(rate.max(1)).unwrap();
    (0..count).map(|_| tokio::spawn(expand(channel.clone(), interval))).collect()
}

/// Expands once in each interval, until it is stopped.
async fn expand(channel: Channel, interval: Duration) {
    let mut client = ScopePolicyServiceClient::new(channel);
    let mut next = tokio::time::interval(interval);
    loop {
        next.tick().await;
        Question::Expanding.ask(&mut client).await;
    }
}

/// Quiet and storm, so many times each.
const STORM_PASSES: usize = 7;

/// Latency of decisions without and with edits. The server, its loader included, has one core, and load generator and editor
/// have another, so that nothing but the reloads themselves is in its way.
async fn reload() {
    let has_cores = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
    let has_cores = has_cores && pin_all_threads_to("1");
    let where_from = if has_cores { "the server on a core of its own" } else { "all on the same cores" };
    println!(
        "reload: decisions (4 connections x 2) during edits of the policy and of files elsewhere, {STORM_PASSES} alternating passes of 3 s, {where_from}"
    );
    // Whoever edits takes time from the load generator, so that there are as many edits in the quiet passes.
    let elsewhere = tempfile::tempdir().unwrap();
    for (name, files, edits) in [("one audience", 0, None), ("100,000 audiences", 1_000, Some(100))] {
        let policies = example_policies();
        for file in 0..files {
            std::fs::write(policies.path().join(format!("large-{file}.yaml")), large_file(file, "")).unwrap();
        }
        let state = tempfile::tempdir().unwrap();
        let server = scopeward(policies.path(), state.path(), &["--debounce", "20ms"]);
        let server = Process::start(if has_cores { on_core("0", &server) } else { server });
        let channels = server.channels(4).await;
        let mut ratios = Vec::new();
        let (mut quiet_p99, mut storm_p99) = (Vec::new(), Vec::new());
        for pass in 1..=STORM_PASSES {
            let others = Storm::begin(elsewhere.path(), edits);
            let quiet = load(&server, &channels, 2, Duration::from_secs(3), Question::Plain).await;
            others.end();
            let storm = Storm::begin(policies.path(), edits);
            let during = load(&server, &channels, 2, Duration::from_secs(3), Question::Plain).await;
            let count = storm.end();
            let ratio = during.p99 / quiet.p99;
            println!(
                "  {name}, pass {pass}: quiet p50 {:.3} ms p99 {:.3} ms, during {count} edits p50 {:.3} ms p99 {:.3} ms, ratio {ratio:.2}",
                quiet.p50, quiet.p99, during.p50, during.p99
            );
            quiet_p99.push(quiet.p99);
            storm_p99.push(during.p99);
            ratios.push(ratio);
            // What the last edits left is loaded before it is quiet.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        ratios.sort_by(f64::total_cmp);
        println!(
            "  {name}: median p99 quiet {:.3} ms, storm {:.3} ms; ratio of the medians {:.2}, of the passes {:.2} to {:.2} (goal 1.2)",
            median(quiet_p99.clone()),
            median(storm_p99.clone()),
            median(storm_p99) / median(quiet_p99),
            ratios[0],
            ratios[ratios.len() - 1]
        );
    }
}

/// 100 audiences of ten scopes, and something more.
fn large_file(file: usize, more: &str) -> String {
    let scopes: Vec<String> = (0..10).map(|at| format!("\"area{at}:read\"")).collect();
    let mut text = "audiences:\n".to_owned();
    for at in 0..100 {
        let scopes = scopes.join(", ");
        text += &format!("  https://a{file}-{at}.example.com:\n    scopesSupported: [{scopes}]\n");
    }
    text + more
}

/// Edits that change what the policy means, one after the other.
struct Storm {
    stop: Arc<AtomicBool>,
    editor: std::thread::JoinHandle<u64>,
}

impl Storm {
    /// Edits one file of a policy; of a large one another file each time, in turn.
    fn begin(policies: &Path, files: Option<usize>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (ending, policies) = (Arc::clone(&stop), policies.to_owned());
        let small = question::policy();
        let editor = std::thread::spawn(move || {
            let mut count = 0;
            while !ending.load(Ordering::Relaxed) {
                let more = format!("    privilegedScopes: [\"area{}:read\"]\n", count % 7);
                let (name, text) = match files {
                    None => (
                        "mcp.yaml".to_owned(),
                        if count % 2 == 0 {
                            small.clone()
                        } else {
                            small.clone() + &more.replace("area", "admin")
                        },
                    ),
                    Some(files) => {
                        let file = count as usize % files;
                        (format!("large-{file}.yaml"), large_file(file, &more))
                    }
                };
                let temporary = policies.join("edited.tmp");
                std::fs::write(&temporary, text).unwrap();
                std::fs::rename(&temporary, policies.join(name)).unwrap();
                count += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            count
        });
        Self { stop, editor }
    }

    /// Returns how many edits there were.
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.editor.join().unwrap()
    }
}

/// Moves this process to a core. False if that cannot be done.
fn pin_all_threads_to(core: &str) -> bool {
    let pid = std::process::id().to_string();
    let mut command = Command::new("taskset");
    command.args(["-a", "-c", "-p", core, &pid]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The same command on a core.
fn on_core(core: &str, command: &Command) -> Command {
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", core]).arg(command.get_program()).args(command.get_args());
    pinned.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    pinned
}
