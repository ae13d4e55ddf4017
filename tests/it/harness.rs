//! The gRPC server alone, on a free port of the loopback address, with a policy put into place by hand: for tests of what
//! stands between the caller and the decision. `service.rs` has the whole service over a policy folder.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use scopeward::policy::check::check;
use scopeward::policy::document::Document;
use scopeward::rpc::record::Recorder;
use scopeward::rpc::scope_policy::ScopePolicy;
use scopeward::rpc::v1;
use scopeward::rpc::v1::scope_policy_service_client::ScopePolicyServiceClient;
use scopeward::server::config::Config;
use scopeward::server::lifecycle::Lifecycle;
use scopeward::server::listen::{ListenAddr, ListenerProtocol, Listeners};
use scopeward::server::observe::CallCounts;
use scopeward::server::pressure::Pressure;
use scopeward::server::{Drained, Services, run};
use scopeward::store::{Active, Current};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt;

/// The audience of most tests.
pub(crate) const AUDIENCE: &str = "https://mcp.example.com";

/// Waits for an event that is sure to come. The deadline is generous: passing it is a failure, not slowness.
pub(crate) async fn within<T>(event: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(30), future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain: {event}"),
    }
}

/// A policy of one audience from the members of its mapping.
pub(crate) fn one_audience(members: &str) -> String {
    format!("audiences:\n  {AUDIENCE}: {{{members}}}\n")
}

/// The gRPC server alone.
pub(crate) struct Wire {
    pub(crate) addr: SocketAddr,
    /// Where HTTP is spoken; the same as `addr` if it is not.
    pub(crate) http: SocketAddr,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) current: Current,
    pub(crate) pressure: Pressure,
    pub(crate) calls: CallCounts,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Drained>,
}

/// What answers the calls that decide.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AnsweredBy {
    /// The server, from the bytes of a message, as it is run.
    Server,
    /// The generated service alone.
    GeneratedService,
}

impl Wire {
    /// Starts without a policy: health says NOT_SERVING.
    pub(crate) async fn start(recorder: Option<Arc<dyn Recorder>>, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_with(AnsweredBy::Server, recorder, change).await
    }

    /// Starts without a policy, with calls that decide answered so.
    pub(crate) async fn start_with(
        answered: AnsweredBy,
        recorder: Option<Arc<dyn Recorder>>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = Config { listen: vec![any_port().into()], ..Config::default() };
        change(&mut config);
        let current = Current::default();
        let lifecycle = Lifecycle::new();
        let pressure = Pressure::new(&config.limits);
        let mut policy =
            ScopePolicy::new(Arc::clone(&current)).with_large_questions(pressure.large_questions());
        if let Some(recorder) = recorder {
            policy = policy.with_recorder(recorder);
        }
        let calls = CallCounts::default();
        let services = Services::new(&lifecycle).counted_by(&pressure).observed_by(&calls);
        let services = match answered {
            AnsweredBy::Server => services.with_scope_policy(policy),
            AnsweredBy::GeneratedService => services.with(policy.into_server()),
        };
        let listeners = Listeners::bind(&config).await.expect("a free port");
        let addr = tcp(&listeners.addresses());
        let http =
            listeners.addresses_of(ListenerProtocol::Http).first().and_then(ListenAddr::tcp).unwrap_or(addr);
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(async move {
            let shutdown = async { _ = stopped.await };
            run(config, services, listeners, shutdown).await.expect("the server ends in order")
        });
        Self { addr, http, lifecycle, current, pressure, calls, stop, running }
    }

    /// Puts a policy into place.
    pub(crate) fn serve(&self, policy: &str) {
        let file: Arc<str> = "policy.yaml".into();
        let accepted = check(&file, &[Document::read(&file, policy)]).expect("the policy is valid");
        let generation = self.current.load().as_ref().map_or(0, |active| active.generation) + 1;
        let active = Active { set: accepted.set, generation, load_time: SystemTime::now() };
        self.current.store(Some(Arc::new(active)));
        self.lifecycle.serve();
    }

    /// A client with a connection of its own.
    pub(crate) async fn client(&self) -> ScopePolicyServiceClient<Channel> {
        ScopePolicyServiceClient::new(channel(self.addr).await)
    }

    /// Asks it to end, without waiting.
    pub(crate) fn begin_stop(self) -> JoinHandle<Drained> {
        _ = self.stop.send(());
        self.running
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn stop(self) -> Drained {
        within("the server ends", self.begin_stop()).await.expect("the server did not panic")
    }
}

/// A connection to a server.
pub(crate) async fn channel(addr: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).expect("an address makes a URL");
    endpoint.connect().await.expect("the server accepts connections")
}

/// A registration for [`AUDIENCE`].
pub(crate) fn registration(scope: Option<&str>) -> v1::ExpandRegistrationScopesRequest {
    v1::ExpandRegistrationScopesRequest {
        audiences: vec![AUDIENCE.to_owned()],
        scope: scope.map(str::to_owned),
        ..Default::default()
    }
}

/// An authorize request for [`AUDIENCE`].
pub(crate) fn authorize(scope: Option<&str>, registered: Option<&str>) -> v1::CheckAuthorizeScopesRequest {
    v1::CheckAuthorizeScopesRequest {
        audiences: vec![AUDIENCE.to_owned()],
        scope: scope.map(str::to_owned),
        registered_scope: registered.map(str::to_owned),
        ..Default::default()
    }
}

/// The reason of an error of ours.
/// A refresh at [`AUDIENCE`].
pub(crate) fn refresh(scope: Option<&str>, granted: &str) -> v1::CheckTokenScopesRequest {
    v1::CheckTokenScopesRequest {
        audiences: vec![AUDIENCE.to_owned()],
        scope: scope.map(str::to_owned),
        granted_scope: Some(granted.to_owned()),
        grant: v1::TokenGrant::Refresh.into(),
        ..Default::default()
    }
}

pub(crate) fn reason(status: &Status) -> String {
    match status.get_details_error_info() {
        Some(info) => {
            assert_eq!(info.domain, "scopeward");
            info.reason
        }
        None => panic!("an error without ErrorInfo: {status:?}"),
    }
}

/// One entry of the `ErrorInfo` of an error; `""` if it is not there.
pub(crate) fn info(status: &Status, key: &str) -> String {
    let info = status.get_details_error_info().expect("an ErrorInfo");
    info.metadata.get(key).cloned().unwrap_or_default()
}

/// The first TCP address of a server.
pub(crate) fn tcp(addresses: &[ListenAddr]) -> SocketAddr {
    addresses.iter().find_map(ListenAddr::tcp).expect("a TCP address")
}

pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}
