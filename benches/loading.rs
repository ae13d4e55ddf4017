//! Large policies: what a start and an edit cost, and what stays in memory.
//!
//! `cargo bench --bench loading` writes 100,000 audiences of ten scopes in 1,000 files, `-- large` 1,000,000 audiences of three
//! scopes of their own, also in 1,000 files (200 MiB). With `--against PROGRAM`, another build of `scopeward`, both take turns
//! in one run, and the ratio of their CPU times is printed: that is the figure to judge by, since machines differ.

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

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use scopeward::rpc::v1;
use scopeward::rpc::v1::scope_policy_service_client::ScopePolicyServiceClient;
use tonic::transport::Channel;

#[path = "shared/process.rs"]
mod process;

use process::{Process, median, scopeward_of};

const FILES: usize = 1_000;
const EDITS: usize = 5;
/// How long after the start or an edit everything that is done in the background has been done.
const SETTLED: Duration = Duration::from_millis(2_500);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let is_large = arguments.iter().any(|argument| argument == "large");
    let against = arguments.iter().position(|argument| argument == "--against");
    let against = against.and_then(|at| arguments.get(at + 1)).map(PathBuf::from);
    let own = PathBuf::from(env!("CARGO_BIN_EXE_scopeward"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let size = if is_large { LARGE } else { SMALL };
        println!("{}, {FILES} files", size.name);
        let mut programs = vec![("this build", own, Vec::new())];
        programs.extend(against.map(|program| ("the other", program, Vec::new())));
        for _ in 0..size.passes {
            for (name, program, figures) in &mut programs {
                let measured = measure(program, &size).await;
                println!("  {name}: {}", measured.text());
                figures.push(measured);
            }
        }
        for (name, _, figures) in &programs {
            let of = |read: fn(&Figures) -> f64| median(figures.iter().map(read).collect());
            println!(
                "  {name}, medians: start {:.2} s CPU, ready after {:.2} s, {:.0} MiB; edit {:.0} ms, {:.2} s CPU, peak {:.0} MiB; decision {:.2} of that among 10 audiences",
                of(|one| one.start_cpu),
                of(|one| one.ready_after),
                of(|one| one.resident),
                of(|one| one.edit_ms),
                of(|one| one.edit_cpu),
                of(|one| one.peak),
                of(|one| one.decision),
            );
        }
        if let [(_, _, own), (_, _, other)] = &programs[..] {
            let of = |figures: &[Figures], read: fn(&Figures) -> f64| {
                median(figures.iter().map(read).collect())
            };
            println!(
                "  CPU time against the other build: start {:.2} (goal 0.6), edit {:.2}",
                of(own, |one| one.start_cpu) / of(other, |one| one.start_cpu),
                of(own, |one| one.edit_cpu) / of(other, |one| one.edit_cpu),
            );
        }
    });
}

struct Size {
    name: &'static str,
    per_file: usize,
    audience: fn(file: usize, at: usize, text: &mut String),
    passes: usize,
}

const SMALL: Size = Size {
    name: "100,000 audiences of 10 scopes",
    per_file: 100,
    audience: |file, at, text| {
        write!(text, "  {}:\n    scopesSupported:\n", name(file, at)).unwrap();
        for scope in 0..8 {
            writeln!(text, "      - resource{scope}:read").unwrap();
        }
        text.push_str("      - openid\n      - offline_access\n    baselineClientScopes: [offline_access]\n");
    },
    passes: 3,
};

const LARGE: Size = Size {
    name: "1,000,000 audiences of three scopes of their own",
    per_file: 1_000,
    audience: |file, at, text| {
        write!(
            text,
            "  {}:\n    scopesSupported:\n      - service{file:04}.{at:03}:read\n      - service{file:04}.{at:03}:write\n      - offline_access\n    baselineClientScopes: [offline_access]\n",
            name(file, at)
        )
        .unwrap();
    },
    passes: 2,
};

fn name(file: usize, at: usize) -> String {
    format!("https://service-{file:04}-{at:03}.example.com/api")
}

fn write_file(folder: &Path, size: &Size, file: usize, more: &str) {
    let mut text = String::from("audiences:\n");
    for at in 0..size.per_file {
        (size.audience)(file, at, &mut text);
    }
    text.push_str(more);
    std::fs::write(folder.join(format!("team-{file:04}.yaml")), text).unwrap();
}

struct Figures {
    start_cpu: f64,
    ready_after: f64,
    resident: f64,
    edit_ms: f64,
    edit_cpu: f64,
    peak: f64,
    decision: f64,
}

impl Figures {
    fn text(&self) -> String {
        let Self { start_cpu, ready_after, resident, edit_ms, edit_cpu, peak, decision } = self;
        format!(
            "start {start_cpu:.2} s CPU, ready after {ready_after:.2} s, {resident:.0} MiB; edit {edit_ms:.0} ms, {edit_cpu:.2} s CPU, peak {peak:.0} MiB; decision {decision:.2}"
        )
    }
}

async fn measure(program: &Path, size: &Size) -> Figures {
    let few = tempfile::tempdir().unwrap();
    let ten = Size { per_file: 10, ..*size };
    write_file(few.path(), &ten, 0, "");
    let folder = tempfile::tempdir().unwrap();
    for file in 0..FILES {
        write_file(folder.path(), size, file, "");
    }
    // What was written just now is looked at twice.
    tokio::time::sleep(SETTLED).await;
    let states = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let server = Process::start(scopeward_of(program, folder.path(), states[0].path(), &[]));
    let ready_after = server.ready_after.as_secs_f64();
    tokio::time::sleep(SETTLED).await;
    let (start_cpu, resident) = (server.cpu(), server.resident());
    server.reset_peak();
    let mut client = ScopePolicyServiceClient::new(server.channels(1).await.remove(0));
    let (mut edit_ms, mut edit_cpu) = (Vec::new(), Vec::new());
    let mut more = String::new();
    for pass in 0..EDITS {
        let before = server.cpu();
        let audience = format!("https://new-{pass}.example.com");
        write!(more, "  {audience}:\n    scopesSupported: [openid]\n").unwrap();
        let started = Instant::now();
        write_file(folder.path(), size, 500, &more);
        let request = v1::DescribeAudienceRequest { audience, ..Default::default() };
        while client.describe_audience(request.clone()).await.is_err() {
            assert!(started.elapsed() < Duration::from_secs(60), "the edit is not served");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        edit_ms.push(started.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(SETTLED).await;
        edit_cpu.push(server.cpu() - before);
    }
    let peak = server.peak();
    let small = Process::start(scopeward_of(program, few.path(), states[1].path(), &[]));
    let mut ratios = Vec::new();
    for _ in 0..7 {
        let among_few = decisions(&small, 1, 10).await;
        ratios.push(decisions(&server, FILES, size.per_file).await / among_few);
    }
    Figures {
        start_cpu,
        ready_after,
        resident,
        edit_ms: median(edit_ms),
        edit_cpu: median(edit_cpu),
        peak,
        decision: median(ratios),
    }
}

/// Asks about audiences all over the policy; CPU time of the server.
async fn decisions(server: &Process, files: usize, per_file: usize) -> f64 {
    const CALLS: usize = 6_400;
    const STREAMS: usize = 16;
    let before = server.cpu();
    let channel = server.channels(1).await.remove(0);
    let tasks: Vec<_> = (0..STREAMS)
        .map(|stream| tokio::spawn(ask(channel.clone(), stream, CALLS / STREAMS, files, per_file)))
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    server.cpu() - before
}

async fn ask(channel: Channel, stream: usize, calls: usize, files: usize, per_file: usize) {
    let mut client = ScopePolicyServiceClient::new(channel);
    for call in 0..calls {
        let mixed = (stream * calls + call) * 7_919;
        let request = v1::CheckAuthorizeScopesRequest {
            audiences: vec![name(mixed % files, mixed / files % per_file)],
            scope: Some("offline_access".to_owned()),
            registered_scope: Some("offline_access".to_owned()),
            ..Default::default()
        };
        let answer = client.check_authorize_scopes(request).await.expect("an answer").into_inner();
        assert_eq!(answer.scope, "offline_access");
    }
}
