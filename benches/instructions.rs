//! Instructions of a call, beside a bare tonic service in the same run.
//!
//! `cargo bench --bench instructions` starts the release build of `scopeward serve`, and the bare service, under callgrind
//! and asks both the same questions from this process, which runs natively. What a call costs is what N further calls add,
//! so starts, stops and connections do not count. Instructions hardly depend on what else the machine does; they say
//! nothing about the kernel, so CPU time follows, from alternating runs without callgrind. Where valgrind is absent it is
//! CPU time alone.
//!
//! A name as argument (`calls`, `core`, `spans`, `cpu`) runs one part. With `BENCH_OTHER=PATH`, another build of `scopeward`, there
//! is `other` as well: the instructions of a call of both.

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

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use scopeward::rpc::v1::scope_policy_service_client::ScopePolicyServiceClient;

#[path = "shared/bare.rs"]
mod bare;
#[path = "shared/callgrind.rs"]
mod callgrind;
#[path = "shared/collector.rs"]
mod collector;
#[path = "shared/core.rs"]
mod core;
#[path = "shared/messages.rs"]
mod messages;
#[path = "shared/process.rs"]
mod process;
#[path = "shared/question.rs"]
mod question;

use process::{BARE_SERVER, Process, median, scopeward, scopeward_of};
use question::{BATCH, Question};

/// The variable that makes this process decide so many rounds of the core, and nothing else.
const CORE_ROUNDS: &str = "BENCH_CORE_ROUNDS";
/// The same with batches of messages.
const MESSAGE_ROUNDS: &str = "BENCH_MESSAGE_ROUNDS";
/// The variable with the path of another build.
const OTHER: &str = "BENCH_OTHER";

fn main() {
    if let Ok(rounds) = std::env::var(CORE_ROUNDS) {
        let rounds = rounds.parse().unwrap();
        assert_eq!(core::decide(&core::policy(), rounds), core::ALLOWED * rounds);
        return;
    }
    if let Ok(rounds) = std::env::var(MESSAGE_ROUNDS) {
        assert!(messages::answer(core::set(&question::policy()), rounds.parse().unwrap()) > 0);
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if std::env::var_os(BARE_SERVER).is_some() {
        runtime.block_on(bare::serve());
        return;
    }
    let names: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|known| known == name);
    let has_valgrind = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !has_valgrind {
        println!("valgrind is not there: no instruction is counted, only CPU time");
    }
    if has_valgrind && wanted("calls") {
        runtime.block_on(calls());
    }
    if let Some(program) = std::env::var_os(OTHER).filter(|_| has_valgrind && wanted("other")) {
        runtime.block_on(other(Path::new(&program)));
    }
    if has_valgrind && wanted("core") {
        deciding();
    }
    if has_valgrind && wanted("spans") {
        runtime.block_on(spans());
    }
    if wanted("cpu") {
        runtime.block_on(cpu());
    }
}

/// One kind of load.
struct Load {
    question: Question,
    connections: usize,
    /// Calls at the same time on each connection.
    streams: usize,
    /// The calls that are counted.
    calls: u64,
}

const BUSY: Load = Load { question: Question::Plain, connections: 8, streams: 16, calls: 6_000 };
const SINGLE: Load = Load { connections: 1, streams: 1, calls: 3_000, ..BUSY };
const BATCHES: Load = Load { question: Question::Batch, connections: 1, streams: 4, calls: 60 };
const REGISTERED: Load = Load { question: Question::Registered, ..BUSY };
const EXPANDING: Load = Load { question: Question::Expanding, ..BUSY };

impl Load {
    /// Makes exactly so many calls.
    async fn run(&self, server: &Process, calls: u64) {
        let left = Arc::new(AtomicU64::new(calls));
        let mut tasks = Vec::new();
        for channel in server.channels(self.connections).await {
            for _ in 0..self.streams {
                let (left, question) = (Arc::clone(&left), self.question);
                let mut client = ScopePolicyServiceClient::new(channel.clone());
                tasks.push(tokio::spawn(async move {
                    while left
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                        .is_ok()
                    {
                        question.ask(&mut client).await;
                    }
                }));
            }
        }
        for task in tasks {
            task.await.unwrap();
        }
    }

    /// What one call costs a server, in instructions.
    async fn instructions(&self, command: impl Fn() -> Command) -> f64 {
        let mut counted = [0; 2];
        for (at, count) in counted.iter_mut().enumerate() {
            let calls = self.calls * (at as u64 + 1);
            let out = tempfile::tempdir().unwrap();
            let file = out.path().join("callgrind");
            let mut command = callgrind::under(&command(), &file);
            // With several, looking for work in vain counts too.
            command.env("TOKIO_WORKER_THREADS", "1");
            let server = Process::start(command);
            self.run(&server, calls).await;
            server.stop();
            *count = callgrind::total(&file);
        }
        (counted[1] - counted[0]) as f64 / self.calls as f64
    }

    /// What one call costs a server in microseconds of CPU time, that of the kernel included.
    async fn cpu(&self, server: &Process) -> f64 {
        // Enough calls for a second of CPU time, which is counted in hundredths.
        let calls = self.calls * 5;
        let before = server.cpu();
        self.run(server, calls).await;
        (server.cpu() - before) * 1e6 / calls as f64
    }
}

async fn calls() {
    let policies = question::policies();
    let ours = |flags: &'static [&'static str]| {
        let policies = policies.path().to_owned();
        move || {
            // A state directory of its own for each start.
            let state = tempfile::tempdir().unwrap().keep();
            scopeward(&policies, &state, flags)
        }
    };
    println!("instructions of a call (callgrind; what N further calls add, divided by N)");
    println!("  {:<44} {:>10} {:>10} {:>7} {:>7}", "", "reference", "scopeward", "ratio", "goal");
    let row = |name: &str, reference: f64, own: f64, goal: &str| {
        let ratio = reference / own;
        println!("  {name:<44} {reference:>10.0} {own:>10.0} {ratio:>7.3} {goal:>7}");
    };
    let busy = BUSY.instructions(ours(&[])).await;
    row("8 connections x 16, against bare tonic", BUSY.instructions(process::bare).await, busy, "1.25");
    let single = SINGLE.instructions(ours(&[])).await;
    row("one at a time, against bare tonic", SINGLE.instructions(process::bare).await, single, "1.15");
    let batched = BATCHES.instructions(ours(&[])).await / BATCH as f64;
    row("a decision in a batch of 100, against 6,000", 6_000.0, batched, "1.00");
    let plain = REGISTERED.instructions(ours(&["--audit-mode", "batch"])).await;
    let expanding = EXPANDING.instructions(ours(&["--audit-mode", "batch"])).await;
    row("expansion, `batch`, against no expansion", plain, expanding, "0.90");
    let blocking = EXPANDING.instructions(ours(&["--audit-mode", "blocking"])).await;
    row("expansion, `blocking`, against `batch`", expanding, blocking, "0.90");
}

/// Instructions of a call of another build, and of this one.
async fn other(program: &Path) {
    let policies = question::policies();
    let of = |program: &Path, flags: &'static [&'static str]| {
        let (program, policies) = (program.to_owned(), policies.path().to_owned());
        move || {
            let state = tempfile::tempdir().unwrap().keep();
            scopeward_of(&program, &policies, &state, flags)
        }
    };
    let this = Path::new(env!("CARGO_BIN_EXE_scopeward"));
    for (name, load) in
        [("8 connections x 16", &BUSY), ("one at a time", &SINGLE), ("a batch of 100", &BATCHES)]
    {
        let before = load.instructions(of(program, &[])).await;
        println!("instructions of a call, {name}: {before:.0} of the other build");
        for flags in [&[][..], &["--metrics-per-audience"]] {
            let own = load.instructions(of(this, flags)).await;
            let more = (own / before - 1.0) * 100.0;
            println!("  this build {}: {own:.0}, {more:+.2} %", flags.join(" "));
        }
    }
}

/// Instructions of the pure core, in this build.
fn deciding() {
    let of_a_round = |variable| {
        let counted = [10, 20].map(|rounds: u64| {
            let out = tempfile::tempdir().unwrap();
            let file = out.path().join("callgrind");
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.env(variable, rounds.to_string());
            assert!(callgrind::under(&command, &file).status().unwrap().success());
            callgrind::total(&file)
        });
        (counted[1] - counted[0]) as f64 / 10.0
    };
    let each = of_a_round(CORE_ROUNDS) / core::DECISIONS as f64;
    println!("instructions of a decision of the pure core, mean of six questions: {each:.0}");
    let each = of_a_round(MESSAGE_ROUNDS) / BATCH as f64;
    println!("the same from the bytes of a batch to those of its answer, three registered scopes: {each:.0}");
}

/// What spans add to a call.
async fn spans() {
    let policies = question::policies();
    let collector = collector::collector().await;
    let ours = |variables: Vec<(&'static str, String)>| {
        let policies = policies.path().to_owned();
        move || {
            let state = tempfile::tempdir().unwrap().keep();
            let mut command = scopeward(&policies, &state, &[]);
            command.envs(variables.iter().map(|(name, value)| (*name, value)));
            command
        }
    };
    println!("instructions of a call with spans, those for sending them included (callgrind)");
    let without = BUSY.instructions(ours(Vec::new())).await;
    println!("  {:<44} {without:>10.0}", "no collector is named");
    for (what, ratio) in [("no span is sampled", "0"), ("1 % are sampled", "0.01"), ("all are sampled", "1")]
    {
        let variables = vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.clone()),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".to_owned()),
            ("OTEL_TRACES_SAMPLER_ARG", ratio.to_owned()),
        ];
        let own = BUSY.instructions(ours(variables)).await;
        println!("  {what:<44} {own:>10.0} {:>+7.1} %", (own / without - 1.0) * 100.0);
    }
}

async fn cpu() {
    let policies = question::policies();
    let state = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let bare = Process::start(process::bare());
    let ours = Process::start(scopeward(policies.path(), state[0].path(), &["--audit-mode", "blocking"]));
    let batch = Process::start(scopeward(policies.path(), state[1].path(), &["--audit-mode", "batch"]));
    println!("CPU time of a call in microseconds, kernel included (median of seven alternating runs)");
    println!("  {:<44} {:>10} {:>10} {:>7} {:>7}", "", "reference", "scopeward", "ratio", "goal");
    let rows: [(&str, &Load, &Process, &Load, &Process, &str); 3] = [
        ("8 connections x 16, against bare tonic", &BUSY, &bare, &BUSY, &ours, "1.05"),
        ("one at a time, against bare tonic", &SINGLE, &bare, &SINGLE, &ours, ""),
        ("expansion, `batch`, against no expansion", &REGISTERED, &batch, &EXPANDING, &batch, "0.90"),
    ];
    for (name, reference_load, reference, own_load, own, goal) in rows {
        let (mut references, mut owns, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..7 {
            references.push(reference_load.cpu(reference).await);
            owns.push(own_load.cpu(own).await);
            ratios.push(references[references.len() - 1] / owns[owns.len() - 1]);
        }
        println!(
            "  {name:<44} {:>10.1} {:>10.1} {:>7.3} {goal:>7}",
            median(references),
            median(owns),
            median(ratios)
        );
    }
}
