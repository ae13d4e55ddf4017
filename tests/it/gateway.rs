//! The gateway in front of an authorization server of this process: what is decided, remembered and passed on.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use scopeward::server::app::{App, AppError};
use scopeward::server::config::ServerSettings;
use scopeward::server::gateway::settings::{BaseUrl, GatewaySettings};
use scopeward::server::shutdown::Stopped;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::upstream::{PUBLIC, Upstream};
use crate::harness::{tcp, within};
use crate::service::settings;

mod admin;
mod flows;
mod hostile;
mod operation;
mod proxied;
mod readings;
mod spans;
pub mod upstream;
mod upstreams;

/// Unknown clients hold nothing, so that what is remembered matters.
pub const POLICY: &str = "\
audiences:
  https://mcp.example.com:
    scopesSupported: [openid, offline_access, \"mcp:read\", \"mcp:write\", admin, root]
    baselineClientScopes: [offline_access]
    forbiddenScopes: [admin]
    privilegedScopes: [root]
    authorization:
      unknownRegistration: none
";

/// A running gateway.
pub struct Gateway {
    pub folder: tempfile::TempDir,
    pub addr: SocketAddr,
    pub admin: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<Result<Stopped, AppError>>>,
}

/// Settings of a gateway whose policies and state are in `folder`.
pub fn gateway_settings(folder: &Path, upstream: SocketAddr) -> ServerSettings {
    let gateway = GatewaySettings {
        public_url: Some(PUBLIC.parse().unwrap()),
        discovery_interval: std::time::Duration::from_millis(50),
        ..GatewaySettings::new(BaseUrl::http(&upstream.to_string()).unwrap())
    };
    ServerSettings { gateway: Some(gateway), ..settings(folder) }
}

/// A folder with the policy.
pub fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("policies")).unwrap();
    std::fs::write(folder.path().join("policies/mcp.yaml"), POLICY).unwrap();
    folder
}

impl Gateway {
    pub async fn start(upstream: &Upstream) -> Self {
        Self::start_with(upstream.addr, |_| {}).await.unwrap()
    }

    pub async fn start_with(
        upstream: SocketAddr,
        change: impl FnOnce(&mut GatewaySettings),
    ) -> Result<Self, AppError> {
        let folder = folder();
        let mut settings = gateway_settings(folder.path(), upstream);
        change(settings.gateway.as_mut().unwrap());
        Self::start_in(folder, settings).await
    }

    pub async fn start_in(folder: tempfile::TempDir, settings: ServerSettings) -> Result<Self, AppError> {
        let app = App::start(settings).await?;
        let (addr, admin) = (tcp(&app.addresses()), app.admin_addr());
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(app.run(async {
            let _ = stopped.await;
        }));
        Ok(Self { folder, addr, admin, stop: Some(stop), running: Some(running) })
    }

    /// Stops, and gives the folder back.
    pub async fn stop(mut self) -> tempfile::TempDir {
        drop(self.stop.take());
        let stopped = within("the gateway stops", self.running.take().unwrap()).await.unwrap().unwrap();
        assert_eq!(stopped.abandoned, []);
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    /// Sends a request, and reads its answer to the end of the connection.
    pub async fn send(&self, request: impl AsRef<[u8]>) -> Answer {
        Answer::of(&raw(self.addr, request.as_ref()).await)
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.send(get(target)).await
    }

    pub async fn post(&self, target: &str, content_type: &str, body: &str) -> Answer {
        self.send(post(target, content_type, body)).await
    }

    pub async fn register(&self, body: &str) -> Answer {
        self.post("/register", "application/json", body).await
    }

    pub async fn form(&self, target: &str, body: &str) -> Answer {
        self.post(target, "application/x-www-form-urlencoded", body).await
    }

    /// A path of the admin endpoint.
    pub async fn admin(&self, path: &str) -> Answer {
        Answer::of(&raw(self.admin, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await)
    }
}

pub fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: auth.example.com\r\nConnection: close\r\n\r\n")
}

pub fn post(target: &str, content_type: &str, body: &str) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nHost: auth.example.com\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends bytes on a connection of their own, and reads until it ends. A peer that closes early is not an error.
pub async fn raw(addr: SocketAddr, request: &[u8]) -> Vec<u8> {
    let exchange = async {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        _ = stream.read_to_end(&mut answer).await;
        answer
    };
    within("the connection ends", exchange).await
}

/// An answer, without the framing of its body.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// Takes an answer apart; one that is not there has status 0.
    pub fn of(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end else { return Self { status: 0, head: String::new(), body: bytes.to_vec() } };
        let head = bytes[..end].iter().map(|byte| char::from(*byte)).collect::<String>();
        let mut body = bytes[end + 4..].to_vec();
        if head.to_lowercase().contains("\r\ntransfer-encoding: chunked") {
            body = dechunk(&body);
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, head, body }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// The values of a header, joined.
    pub fn header(&self, name: &str) -> Option<String> {
        let lines = self.head.split("\r\n").skip(1).filter_map(|line| line.split_once(": "));
        let values: Vec<_> =
            lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect();
        (!values.is_empty()).then(|| values.join(" | "))
    }
}

/// The data of whole chunks.
fn dechunk(mut rest: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        all.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
    all
}

/// The binary as a gateway, ended when it is dropped.
pub struct Binary {
    pub child: Child,
    pub addr: SocketAddr,
}

impl Binary {
    /// Starts with further flags, after what a shell does first. Its log is `log` in the folder.
    pub fn start(folder: &Path, upstream: &Upstream, shell: &str, flags: &[&str]) -> Self {
        let mut child = Command::new("bash")
            .args(["-c", &format!("{shell} exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_scopeward"), "gateway"])
            .args(["--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--public-url", PUBLIC])
            .arg(format!("--upstream=http://{}", upstream.addr))
            .arg("--policies")
            .arg(folder.join("policies"))
            .arg("--state-dir")
            .arg(folder.join("state"))
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let addr = ready.split_once("http=").unwrap().1.split(' ').next().unwrap().parse().unwrap();
        assert!(ready.contains(&format!("public={PUBLIC} upstream=http://{}", upstream.addr)), "{ready}");
        Self { child, addr }
    }

    pub async fn send(&self, request: impl AsRef<[u8]>) -> Answer {
        Answer::of(&raw(self.addr, request.as_ref()).await)
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.send(get(target)).await
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
