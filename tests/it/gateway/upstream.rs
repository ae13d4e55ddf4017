//! An authorization server that does what it is told, remembers what it was sent, and answers odd things in a way that never changes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::copy;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// What clients see of a gateway in these tests.
pub const PUBLIC: &str = "http://auth.example.com";

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// What the upstream does, changed by tests while it runs.
#[derive(Debug, Default)]
pub struct UpstreamState {
    pub seen: Mutex<Vec<Seen>>,
    /// The discovery document; `None` for one that fits [`PUBLIC`].
    pub discovery: Mutex<Option<String>>,
    /// Discovery documents by their path; nothing is where none is, unless this is empty.
    pub documents: Mutex<BTreeMap<String, String>>,
    /// Members that an answer to a registration has instead of those that were sent.
    pub registers: Mutex<Vec<(&'static str, serde_json::Value)>>,
    /// `/slow` answers once this is notified.
    pub go: Notify,
    clients: Mutex<usize>,
    /// How many connections there were.
    pub connections: AtomicUsize,
}

pub struct Upstream {
    pub addr: SocketAddr,
    pub state: Arc<UpstreamState>,
    running: tokio::task::JoinHandle<()>,
}

impl Upstream {
    pub async fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), Arc::default()).await
    }

    pub async fn start_at(addr: SocketAddr, state: Arc<UpstreamState>) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let served = Arc::clone(&state);
        let running = tokio::spawn(async move {
            // Ends with this task.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                served.connections.fetch_add(1, Ordering::SeqCst);
                let state = Arc::clone(&served);
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&state), request));
                    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    _ = connection.with_upgrades().await;
                });
            }
        });
        Self { addr, state, running }
    }

    /// Closes every socket, and says how to start again.
    pub async fn stop(self) -> (SocketAddr, Arc<UpstreamState>) {
        self.running.abort();
        _ = self.running.await;
        (self.addr, self.state)
    }

    /// What arrived since the last time, without discovery.
    pub fn take(&self) -> Vec<Seen> {
        let mut seen = std::mem::take(&mut *self.state.seen.lock().unwrap());
        seen.retain(|seen| !seen.path().contains("/.well-known/"));
        seen
    }

    /// The one request that arrived since the last time.
    #[track_caller]
    pub fn one(&self) -> Seen {
        let mut seen = self.take();
        assert_eq!(seen.len(), 1, "{seen:#?}");
        seen.remove(0)
    }
}

type TestBody = UnsyncBoxBody<Bytes, Infallible>;

fn full(text: impl Into<Bytes>) -> TestBody {
    Full::new(text.into()).boxed_unsync()
}

/// Pieces of a body without a length.
fn pieces(pieces: Vec<&'static str>) -> TestBody {
    let frames = pieces.into_iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))));
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<TestBody> {
    let mut response = Response::new(full(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The document of an issuer at [`PUBLIC`].
pub fn discovery(issuer: &str) -> serde_json::Value {
    serde_json::json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{PUBLIC}/authorize"),
        "token_endpoint": format!("{PUBLIC}/token"),
        "registration_endpoint": format!("{PUBLIC}/register"),
        "pushed_authorization_request_endpoint": format!("{PUBLIC}/par"),
        "device_authorization_endpoint": format!("{PUBLIC}/device"),
        "backchannel_authentication_endpoint": format!("{PUBLIC}/bc"),
        "authorization_response_iss_parameter_supported": true,
        "scopes_supported": ["anything", "admin"],
    })
}

async fn answer(
    state: Arc<UpstreamState>,
    mut request: Request<Incoming>,
) -> Result<Response<TestBody>, Infallible> {
    let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    if request.headers().contains_key(UPGRADE) && request.uri().path() == "/ws" {
        let headers = request.headers().clone();
        let seen = Seen { method: "GET".into(), target, headers, body: Vec::new() };
        state.seen.lock().unwrap().push(seen);
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let stream = TokioIo::new(upgraded.await.unwrap());
            let (mut read, mut write) = tokio::io::split(stream);
            // An echo, until the other side has no more to say.
            _ = copy(&mut read, &mut write).await;
        });
        let response = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        return Ok(response.body(full("")).unwrap());
    }
    let (parts, body) = request.into_parts();
    // A client may break off.
    let body = body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
    let method = parts.method.clone();
    let seen = Seen { method: method.to_string(), target, headers: parts.headers, body };
    let kept =
        if seen.body.len() > 1 << 20 { Seen { body: Vec::new(), ..seen.clone() } } else { seen.clone() };
    state.seen.lock().unwrap().push(kept);
    let mut response = route(&state, &method, &seen).await;
    response.headers_mut().insert(DATE, HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"));
    Ok(response)
}

async fn route(state: &UpstreamState, method: &Method, seen: &Seen) -> Response<TestBody> {
    let path = seen.path();
    let text = |text: String| Response::new(full(text));
    let query = seen.target.split_once('?').map(|(_, query)| query).unwrap_or_default();
    match path {
        path if path.contains("/.well-known/") && !state.documents.lock().unwrap().is_empty() => {
            match state.documents.lock().unwrap().get(path) {
                Some(document) => text(document.clone()),
                None => status(StatusCode::NOT_FOUND, &[]),
            }
        }
        path if path.ends_with("/.well-known/openid-configuration") => {
            let own = state.discovery.lock().unwrap().clone();
            let document = own.unwrap_or_else(|| discovery(PUBLIC).to_string());
            let mut response = text(document);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        "/register" if method == Method::OPTIONS => cors(Response::new(full("")), seen),
        "/register" if query.starts_with("client_id=") => {
            configure(state, method, query.trim_start_matches("client_id="), seen)
        }
        "/register" | "/b/register" => cors(register(state, None, &seen.body), seen),
        "/par" => {
            json(StatusCode::CREATED, &serde_json::json!({"request_uri": "urn:par:1", "expires_in": 60}))
        }
        "/device" => json(StatusCode::OK, &serde_json::json!({"device_code": "d", "user_code": "u"})),
        "/bc" => json(StatusCode::OK, &serde_json::json!({"auth_req_id": "a"})),
        "/authorize" | "/b/auth" => {
            let mut response = text("a page to sign in".into());
            response.headers_mut().append("set-cookie", HeaderValue::from_static("a=1; Path=/"));
            response
        }
        // From here on what has nothing to do with scopes.
        "/echo" => {
            let mut response = text(format!("{} {}\n{}", seen.method, seen.target, seen.text()));
            for name in ["x-one", "accept-encoding", "cookie"] {
                if let Some(value) = seen.headers.get(name) {
                    response
                        .headers_mut()
                        .insert(http::HeaderName::try_from(format!("x-saw-{name}")).unwrap(), value.clone());
                }
            }
            response
        }
        "/digest" => {
            // Compared as a whole, which a test without optimizations can afford.
            let first = seen.body.first().copied().unwrap_or_default();
            let piece = vec![first; 64 * 1024];
            let is_even = seen.body.chunks(piece.len()).all(|part| part == &piece[..part.len()]);
            text(format!("{} {first} {is_even}", seen.body.len()))
        }
        "/trailers" => {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from_static("1"));
            trailers.insert("x-unnamed", HeaderValue::from_static("2"));
            let frames = [Frame::data(Bytes::from_static(b"a body")), Frame::trailers(trailers)];
            let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok))).boxed_unsync();
            let mut response = Response::new(body);
            response.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
            response
        }
        "/chunked" => Response::new(pieces(vec!["one ", "two ", "", "three"])),
        "/large" => {
            let count: usize = query.parse().unwrap();
            let piece = Bytes::from_static(&[b'x'; 64 * 1024]);
            let frames = (0..count).map(move |_| Ok(Frame::data(piece.clone())));
            Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync())
        }
        "/gzip" => {
            let mut response = Response::new(full(&b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xcbH\xcd\xc9\xc9\x07\x00\x86\xa6\x106\x05\x00\x00\x00"[..]));
            response.headers_mut().insert("content-encoding", HeaderValue::from_static("gzip"));
            response
        }
        "/cookies" => {
            let mut response = text("two".into());
            for cookie in ["a=1; Path=/; HttpOnly", "b=2; Expires=Thu, 01 Jan 2030 00:00:00 GMT", "a=3"] {
                response.headers_mut().append("set-cookie", HeaderValue::from_static(cookie));
            }
            response
        }
        "/hop" => {
            let mut response = text("hop".into());
            let headers = response.headers_mut();
            headers.insert("connection", HeaderValue::from_static("x-secret, keep-alive"));
            headers.insert("x-secret", HeaderValue::from_static("1"));
            headers.insert("keep-alive", HeaderValue::from_static("timeout=5"));
            headers.insert("proxy-authenticate", HeaderValue::from_static("Basic"));
            headers.insert("x-kept", HeaderValue::from_static("1"));
            response
        }
        "/head" => {
            let mut response = text(if method == Method::HEAD { String::new() } else { "12345".into() });
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("5"));
            response
        }
        "/slow" => {
            state.go.notified().await;
            text("at last".into())
        }
        "/redirect" => {
            status(StatusCode::FOUND, &[("location", "https://client.example/cb?code=1&state=%20x")])
        }
        "/no-content" => status(StatusCode::NO_CONTENT, &[]),
        "/not-modified" => status(StatusCode::NOT_MODIFIED, &[("etag", "\"1\"")]),
        "/teapot" => status(StatusCode::IM_A_TEAPOT, &[("x-odd", "caf\u{e9}")]),
        "/error" => status(StatusCode::INTERNAL_SERVER_ERROR, &[]),
        _ => match path.strip_prefix("/register/") {
            Some(id) => configure(state, method, id, seen),
            None => {
                let mut response = text(format!("no {path}"));
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        },
    }
}

fn status(status: StatusCode, headers: &[(&'static str, &'static str)]) -> Response<TestBody> {
    let mut response = Response::new(full(""));
    *response.status_mut() = status;
    for (name, value) in headers {
        response.headers_mut().insert(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    response
}

fn cors(mut response: Response<TestBody>, seen: &Seen) -> Response<TestBody> {
    if let Some(origin) = seen.headers.get("origin") {
        response.headers_mut().insert("access-control-allow-origin", origin.clone());
        response.headers_mut().insert("vary", HeaderValue::from_static("Origin"));
    }
    response
}

/// One registered client (RFC 7592).
fn configure(state: &UpstreamState, method: &Method, id: &str, seen: &Seen) -> Response<TestBody> {
    match *method {
        Method::DELETE => status(StatusCode::NO_CONTENT, &[]),
        Method::GET => {
            let scope = serde_json::json!({"scope": "openid mcp:read"}).to_string();
            register(state, Some(id), scope.as_bytes())
        }
        _ => register(state, Some(id), &seen.body),
    }
}

/// Registers what it is told, as Hydra does.
fn register(state: &UpstreamState, id: Option<&str>, body: &[u8]) -> Response<TestBody> {
    let Ok(serde_json::Value::Object(mut client)) = serde_json::from_slice(body) else {
        return json(StatusCode::BAD_REQUEST, &serde_json::json!({"error": "invalid_client_metadata"}));
    };
    let id = id.map_or_else(
        || {
            let mut clients = state.clients.lock().unwrap();
            *clients += 1;
            format!("c{clients}")
        },
        str::to_owned,
    );
    client.insert("registration_client_uri".into(), format!("{PUBLIC}/register/{id}").into());
    client.insert("registration_access_token".into(), "token".into());
    client.insert("client_id".into(), id.into());
    for (name, value) in &*state.registers.lock().unwrap() {
        match value {
            serde_json::Value::Null => _ = client.remove(*name),
            value => _ = client.insert((*name).into(), value.clone()),
        }
    }
    json(StatusCode::CREATED, &client.into())
}
