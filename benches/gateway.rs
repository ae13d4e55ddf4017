//! The gateway under load beside a plain proxy of the same crates, in alternating rounds of one run: figures from different machines
//! or moments cannot be compared, ratios can.
//!
//! `cargo bench --bench gateway`. Upstream, proxies and load share the process and its cores.

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a bench")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
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

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let upstream = upstream().await;
        let plain = plain(upstream).await;
        let folder = tempfile::tempdir().unwrap();
        let gateway = gateway(folder.path(), upstream).await;
        let decided = "/authorize?response_type=code&client_id=x&scope=openid&state=y";
        for (name, target) in
            [("a page that passes", "/page"), ("an authorize request that is decided", decided)]
        {
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
            ratios.sort_by(f64::total_cmp);
            println!("  median ratio {:.3}", ratios.get(ROUNDS / 2).unwrap());
        }
    });
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
    let target: Arc<str> = target.into();
    let end = Instant::now() + ROUND;
    let loops = (0..CONNECTIONS).map(|_| {
        let target = Arc::clone(&target);
        tokio::spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (mut send, connection) = handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            let mut times = Vec::new();
            while Instant::now() < end {
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
    times.sort_by(f64::total_cmp);
    let p99 = times.get(times.len() * 99 / 100).unwrap();
    (times.len() as f64 / ROUND.as_secs_f64(), p99 * 1000.0)
}
