//! A whole service in this process, on free ports and temporary folders, and clients for it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use scopeward::rpc::v1;
use scopeward::rpc::v1::policy_status_service_client::PolicyStatusServiceClient;
use scopeward::rpc::v1::scope_policy_service_client::ScopePolicyServiceClient;
use scopeward::server::app::{App, AppError};
use scopeward::server::config::{Config, ServerSettings};
use scopeward::server::listen::{ListenAddr, ListenerProtocol};
use scopeward::server::shutdown::Stopped;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// How long to wait for what must happen.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The policy that most tests begin with.
pub const POLICY: &str = "\
audiences:
  https://mcp.example.com:
    scopesSupported: [openid, offline_access, \"mcp:read\", \"mcp:write\"]
    baselineClientScopes: [offline_access]
";

/// A running service; stopped when dropped, its folders deleted.
pub struct Service {
    pub folder: tempfile::TempDir,
    pub admin: std::net::SocketAddr,
    pub grpc: std::net::SocketAddr,
    /// Where HTTP is spoken; the same as `grpc` if it is not.
    pub http: std::net::SocketAddr,
    pub channel: Channel,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<Result<Stopped, AppError>>>,
}

/// Settings for a service whose policies and state are in `folder`.
pub fn settings(folder: &Path) -> ServerSettings {
    let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    ServerSettings {
        server: Config { listen: vec![any.into()], ..Config::default() },
        admin_listen: any,
        policies: folder.join("policies"),
        state_dir: folder.join("state"),
        debounce: Duration::from_millis(20),
        removal_quiet: Duration::from_millis(200),
        rescan_interval: Duration::from_secs(30),
        credentials_interval: Duration::from_millis(20),
        ..ServerSettings::default()
    }
}

/// A connection over a Unix socket.
pub async fn unix_channel(path: &Path) -> Channel {
    let path = path.to_owned();
    let connect = move |_| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
    };
    let endpoint = tonic::transport::Endpoint::from_static("http://localhost");
    endpoint.connect_with_connector(tower::service_fn(connect)).await.unwrap()
}

impl Service {
    /// Starts with one policy file.
    pub async fn start(policy: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("policies")).unwrap();
        std::fs::write(folder.path().join("policies/mcp.yaml"), policy).unwrap();
        let settings = settings(folder.path());
        Self::start_in(folder, settings).await.unwrap()
    }

    /// Starts in a folder that is prepared already.
    pub async fn start_in(folder: tempfile::TempDir, settings: ServerSettings) -> Result<Self, AppError> {
        let app = App::start(settings).await?;
        let addresses = app.addresses();
        let (grpc, admin) = (crate::harness::tcp(&addresses), app.admin_addr());
        let http = app.addresses_of(ListenerProtocol::Http).first().and_then(ListenAddr::tcp).unwrap_or(grpc);
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(app.run(async {
            let _ = stopped.await;
        }));
        // Over a socket if there is one: TCP may need certificates.
        let channel = match addresses.iter().find(|address| address.tcp().is_none()) {
            Some(ListenAddr::Unix(path)) => unix_channel(path).await,
            _ => Channel::from_shared(format!("http://{grpc}")).unwrap().connect().await.unwrap(),
        };
        Ok(Self { folder, admin, grpc, http, channel, stop: Some(stop), running: Some(running) })
    }

    /// Stops and gives the folder back, for a restart.
    pub async fn stop(mut self) -> tempfile::TempDir {
        drop(self.stop.take());
        // A client that keeps its connection must not hold up the drain.
        let stopped = self.running.take().unwrap().await.unwrap().unwrap();
        assert_eq!(stopped.abandoned, []);
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    pub fn policies(&self) -> PathBuf {
        self.folder.path().join("policies")
    }

    /// Writes a policy file in place.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.policies().join(name), text).unwrap();
    }

    pub fn scopes(&self) -> ScopePolicyServiceClient<Channel> {
        ScopePolicyServiceClient::new(self.channel.clone())
    }

    /// What an authorize request of a client that registered everything gets: generation and scope.
    pub async fn ask(&self, scope: &str) -> v1::CheckAuthorizeScopesResponse {
        let request = v1::CheckAuthorizeScopesRequest {
            audiences: vec!["https://mcp.example.com".to_owned()],
            scope: Some(scope.to_owned()),
            registered_scope: Some(scope.to_owned()),
            ..Default::default()
        };
        self.scopes().check_authorize_scopes(request).await.unwrap().into_inner()
    }

    pub async fn status(&self) -> v1::PolicyStatus {
        let mut client = PolicyStatusServiceClient::new(self.channel.clone());
        let response = client.get_policy_status(v1::GetPolicyStatusRequest {}).await.unwrap();
        response.into_inner().status.unwrap()
    }

    /// Waits until the status is as wanted; every change wakes it.
    #[track_caller]
    pub fn status_when<F>(
        &self,
        what: &'static str,
        wanted: F,
    ) -> impl Future<Output = v1::PolicyStatus> + use<F>
    where
        F: Fn(&v1::PolicyStatus) -> bool,
    {
        let mut client = PolicyStatusServiceClient::new(self.channel.clone());
        let place = std::panic::Location::caller();
        async move {
            let waiting = async {
                let request = v1::WatchPolicyStatusRequest {};
                let mut stream = client.watch_policy_status(request).await.unwrap().into_inner();
                let mut last = None;
                loop {
                    let Ok(next) = tokio::time::timeout(DEADLINE, stream.message()).await else {
                        panic!("{place}: not seen: {what}; last status {last:#?}");
                    };
                    let status = next.unwrap().expect("the stream goes on").status.unwrap();
                    if wanted(&status) {
                        return status;
                    }
                    last = Some(status);
                }
            };
            tokio::time::timeout(DEADLINE, waiting)
                .await
                .unwrap_or_else(|_| panic!("{place}: not seen: {what}"))
        }
    }

    /// A path of the admin endpoint: status code and body.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let code = text.split(' ').nth(1).unwrap().parse().unwrap();
        let body = text.split_once("\r\n\r\n").unwrap().1.to_owned();
        (code, body)
    }

    /// The value of a metric line, by everything before the value.
    pub async fn metric(&self, line: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").await;
        text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok())
    }
}

/// A condition of a status by type: status and reason.
pub fn condition<'s>(conditions: &'s [v1::Condition], kind: &str) -> Option<(&'s str, &'s str)> {
    let found = conditions.iter().find(|condition| condition.r#type == kind)?;
    Some((&found.status, &found.reason))
}
