//! The gateway beside a plain proxy of the same crates: figures from different machines or moments cannot be compared, ratios can.
//!
//! `cargo bench --bench gateway` has three parts; a name as argument runs one. `load`: requests a second and p99 in alternating
//! rounds, where upstream, proxies and load share one process and its cores. `cpu`: CPU time of a request, that of the kernel, of the
//! upstream and of the load included, in alternating runs with each proxy in a process of its own: the same as `load`, but other work on the machine counts for
//! less. `instructions`: what a request costs each proxy alone under callgrind, where valgrind is there.
//!
//! The plain proxy passes the same requests to the same upstream, and both get the same answer of 1 KiB. Neither request is an
//! expansion, whose durable record an end-to-end bench measures; the decided one is looked up, decided, counted and passed on with what was granted.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "a bench; the files in `shared` are for several of them"
)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use scopeward::server::app::App;
use scopeward::server::config::{Config, ServerSettings};
use scopeward::server::gateway::settings::{BaseUrl, GatewaySettings};
use tokio::net::{TcpListener, TcpStream};

#[path = "shared/callgrind.rs"]
mod callgrind;
#[path = "shared/process.rs"]
mod process;

use process::{Process, median};

const PUBLIC: &str = "http://auth.example.com";
const POLICY: &str = "\
audiences:
  https://mcp.example.com:
    scopesSupported: [openid, \"mcp:read\"]
    authorization: {unknownRegistration: supported}
";
const CONNECTIONS: usize = 16;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(4);
const CPU_REQUESTS: u64 = 40_000;
const COUNTED_REQUESTS: u64 = 4_000;

/// The variable that makes a process the plain proxy of the upstream at this address.
const PLAIN_PROXY: &str = "BENCH_PLAIN_PROXY";
const REQUESTS: [(&str, &str); 2] = [
    ("a page that passes", "/page"),
    (
        "an authorize request that is decided",
        "/authorize?response_type=code&client_id=x&scope=openid&state=y",
    ),
];

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Ok(upstream) = std::env::var(PLAIN_PROXY) {
        runtime.block_on(async {
            println!("ready: http={}", plain(upstream.parse().unwrap()).await);
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap().recv().await;
        });
        return;
    }
    let names: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|known| known == name);
    if wanted("load") {
        runtime.block_on(compare_load());
    }
    if wanted("cpu") {
        runtime.block_on(compare_cpu());
    }
    let has_valgrind = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_ok();
    if wanted("instructions") && has_valgrind {
        runtime.block_on(compare_instructions());
    }
}

async fn compare_load() {
    let upstream = upstream().await;
    let plain = plain(upstream).await;
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(folder.path(), upstream).await;
    for (name, target) in REQUESTS {
        let mut ratios = Vec::new();
        println!("{name}: requests a second and p99 in ms, plain proxy and gateway");
        for _ in 0..ROUNDS {
            let (before, plain_p99) = load(plain, target).await;
            let (after, gateway_p99) = load(gateway, target).await;
            println!(
                "  {before:9.0} {plain_p99:7.2}   {after:9.0} {gateway_p99:7.2}   ratio {:.3}",
                after / before
            );
            ratios.push(after / before);
        }
        println!("  median ratio {:.3}", median(ratios));
    }
}

async fn compare_cpu() {
    let upstream = upstream().await;
    let folder = tempfile::tempdir().unwrap();
    let (plain, gateway) =
        (Process::start(plain_process(upstream)), Process::start(gateway_process(folder.path(), upstream)));
    println!(
        "CPU time of a request in microseconds, all of it and that of the proxy (medians of alternating runs)"
    );
    for (name, target) in REQUESTS {
        let (mut all, mut own, mut ratios) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()], Vec::new());
        for _ in 0..2 * ROUNDS {
            for (at, proxy) in [&plain, &gateway].into_iter().enumerate() {
                let before = (own_cpu(), proxy.cpu());
                requests(proxy.address().parse().unwrap(), target, CPU_REQUESTS).await;
                let proxy = (proxy.cpu() - before.1) * 1e6 / CPU_REQUESTS as f64;
                own[at].push(proxy);
                all[at].push(proxy + (own_cpu() - before.0) * 1e6 / CPU_REQUESTS as f64);
            }
            ratios.push(all[0][all[0].len() - 1] / all[1][all[1].len() - 1]);
        }
        let [plain, gateway] = all.map(median);
        let [plain_own, gateway_own] = own.map(median);
        println!(
            "  {name}: plain {plain:.1} ({plain_own:.1}), gateway {gateway:.1} ({gateway_own:.1}), ratio {:.3}",
            median(ratios)
        );
    }
}

async fn compare_instructions() {
    let upstream = upstream().await;
    println!("instructions of a request, of the proxy alone (what N further requests add, divided by N)");
    for (name, target) in REQUESTS {
        let plain = instructions(target, || plain_process(upstream)).await;
        let gateway = instructions(target, || {
            let folder = tempfile::tempdir().unwrap().keep();
            gateway_process(&folder, upstream)
        });
        println!("  {name}: plain {plain:.0}, gateway {:.0}", gateway.await);
    }
}

async fn instructions(target: &str, command: impl Fn() -> Command) -> f64 {
    let mut counted = [0; 2];
    for (at, count) in counted.iter_mut().enumerate() {
        let out = tempfile::tempdir().unwrap();
        let file = out.path().join("callgrind");
        let mut command = callgrind::under(&command(), &file);
        // With several, looking for work in vain counts too.
        command.env("TOKIO_WORKER_THREADS", "1");
        let proxy = Process::start(command);
        requests(proxy.address().parse().unwrap(), target, COUNTED_REQUESTS * (at as u64 + 1)).await;
        proxy.stop();
        *count = callgrind::total(&file);
    }
    (counted[1] - counted[0]) as f64 / COUNTED_REQUESTS as f64
}

fn plain_process(upstream: SocketAddr) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(PLAIN_PROXY, upstream.to_string());
    command
}

fn gateway_process(folder: &Path, upstream: SocketAddr) -> Command {
    let policies = folder.join("policies");
    std::fs::create_dir(&policies).unwrap();
    std::fs::write(policies.join("policy.yaml"), POLICY).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_scopeward"));
    command
        .args(["gateway", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--public-url", PUBLIC])
        .arg(format!("--upstream=http://{upstream}"))
        .arg("--policies")
        .arg(policies)
        .arg("--state-dir")
        .arg(folder.join("state"))
        .env("SCOPEWARD_LOG", "warn");
    command
}

/// CPU time of this process in seconds.
fn own_cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Answers every path with 1 KiB.
async fn upstream() -> SocketAddr {
    let document =
        serde_json::json!({"issuer": PUBLIC, "authorization_endpoint": format!("{PUBLIC}/authorize")});
    let document = Bytes::from(document.to_string());
    let page = Bytes::from(vec![b'x'; 1024]);
    listen(move |request: Request<Incoming>| {
        let is_discovery = request.uri().path().starts_with("/.well-known/");
        let body = if is_discovery { document.clone() } else { page.clone() };
        async move { Ok::<_, Infallible>(Response::new(Full::new(body))) }
    })
    .await
}

/// Passes everything on, and does nothing else.
async fn plain(upstream: SocketAddr) -> SocketAddr {
    let client: Client<_, Incoming> =
        Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).set_host(false).build_http();
    let host = HeaderValue::try_from(upstream.to_string()).unwrap();
    listen(move |request: Request<Incoming>| {
        let (client, host) = (client.clone(), host.clone());
        async move {
            let (mut parts, body) = request.into_parts();
            let target = parts.uri.path_and_query().unwrap().clone();
            let uri = Uri::builder().scheme("http").authority(host.as_bytes()).path_and_query(target);
            parts.uri = uri.build().unwrap();
            parts.headers.insert(HOST, host);
            client.request(Request::from_parts(parts, body)).await
        }
    })
    .await
}

async fn listen<S, F, B, E>(service: S) -> SocketAddr
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, E>> + Send + 'static,
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: std::error::Error + Send + Sync,
    E: std::error::Error + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let connection =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(service.clone()));
            tokio::spawn(async move { _ = connection.await });
        }
    });
    address
}

async fn gateway(folder: &std::path::Path, upstream: SocketAddr) -> SocketAddr {
    let policies = folder.join("policies");
    std::fs::create_dir(&policies).unwrap();
    std::fs::write(policies.join("policy.yaml"), POLICY).unwrap();
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let settings = ServerSettings {
        server: Config { listen: vec![any.into()], ..Config::default() },
        admin_listen: any,
        policies,
        state_dir: folder.join("state"),
        gateway: Some(GatewaySettings {
            public_url: Some(PUBLIC.parse().unwrap()),
            ..GatewaySettings::new(BaseUrl::http(&upstream.to_string()).unwrap())
        }),
        ..ServerSettings::default()
    };
    let app = App::start(settings).await.unwrap();
    let address = app.addresses().first().unwrap().tcp().unwrap();
    tokio::spawn(app.run(std::future::pending()));
    address
}

/// Requests in closed loops, one on each connection: how many a second, and the 99th percentile of their time in milliseconds.
async fn load(address: SocketAddr, target: &str) -> (f64, f64) {
    let end = Instant::now() + ROUND;
    let mut times = ask_while(address, target, move || Instant::now() < end).await;
    times.sort_by(f64::total_cmp);
    let p99 = times.get(times.len() * 99 / 100).unwrap();
    (times.len() as f64 / ROUND.as_secs_f64(), p99 * 1000.0)
}

/// So many requests in the same loops.
async fn requests(address: SocketAddr, target: &str, count: u64) {
    let left = Arc::new(AtomicU64::new(count));
    let is_one_left = move || {
        let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        taken.is_ok()
    };
    ask_while(address, target, is_one_left).await;
}

/// Asks as long as `more` says so: the time of each request in seconds.
async fn ask_while(
    address: SocketAddr,
    target: &str,
    more: impl Fn() -> bool + Clone + Send + 'static,
) -> Vec<f64> {
    let target: Arc<str> = target.into();
    let loops = (0..CONNECTIONS).map(|_| {
        let (target, more) = (Arc::clone(&target), more.clone());
        tokio::spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (mut send, connection) = handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            let mut times = Vec::new();
            while more() {
                let request =
                    Request::get(&*target).header(HOST, "auth.example.com").body(Empty::<Bytes>::new());
                let began = Instant::now();
                let response = send.send_request(request.unwrap()).await.unwrap();
                assert!(response.status().is_success(), "{response:?}");
                response.into_body().collect().await.unwrap();
                times.push(began.elapsed().as_secs_f64());
            }
            times
        })
    });
    let mut times = Vec::new();
    for one in loops.collect::<Vec<_>>() {
        times.extend(one.await.unwrap());
    }
    times
}
