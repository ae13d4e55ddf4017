//! What the service does when one of its parts panics; the table is in ARCHITECTURE.md, "Parts".

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use scopeward::audit::jsonl::JsonlTarget;
use scopeward::rpc::v1;
use scopeward::rpc::v1::policy_status_service_client::PolicyStatusServiceClient;
use scopeward::rpc::v1::policy_status_service_server::PolicyStatusServiceServer;
use scopeward::rpc::v1::scope_policy_service_client::ScopePolicyServiceClient;
use scopeward::server::app::{App, AppError};
use scopeward::server::config::{Config, Fault, ServerSettings};
use scopeward::server::lifecycle::Lifecycle;
use scopeward::server::listen::Listeners;
use scopeward::server::supervisor::Part;
use scopeward::server::{Services, run};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status};

use crate::harness::within;
use crate::service::{POLICY, Service, condition, settings};

/// A folder with a policy, and settings that let a part panic while the switch is on.
fn prepared(part: Part) -> (tempfile::TempDir, ServerSettings, Arc<AtomicBool>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("policies")).unwrap();
    std::fs::write(folder.path().join("policies/mcp.yaml"), POLICY).unwrap();
    let switch = Arc::new(AtomicBool::new(false));
    let panics = Arc::clone(&switch);
    let fault = Fault(Some(Arc::new(move |at| {
        assert!(at != part || !panics.load(Ordering::SeqCst), "injected");
    })));
    let mut settings = settings(folder.path());
    settings.server.fault = fault;
    (folder, settings, switch)
}

fn expansion() -> scopeward::rpc::v1::ExpandRegistrationScopesRequest {
    crate::harness::registration(Some("openid"))
}

#[tokio::test]
async fn a_panic_of_the_audit_writer_ends_the_process_with_its_name() {
    let (_folder, settings, switch) = prepared(Part::AuditWriter);
    let app = App::start(settings).await.unwrap();
    let channel = crate::harness::channel(crate::harness::tcp(&app.addresses()));
    let running = tokio::spawn(app.run(std::future::pending()));
    let mut client = ScopePolicyServiceClient::new(channel.await);
    client.expand_registration_scopes(expansion()).await.expect("an answer");
    switch.store(true, Ordering::SeqCst);
    client.expand_registration_scopes(expansion()).await.expect_err("no answer without a record");
    let error = within("the service ends", running).await.unwrap().unwrap_err();
    let AppError::Ended { part, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*part, Part::AuditWriter);
    assert!(error.to_string().starts_with("audit-writer ended unexpectedly: "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_the_audit_lines_is_a_condition_until_they_are_written_again() {
    let (folder, mut settings, switch) = prepared(Part::AuditLines);
    let lines = folder.path().join("audit.jsonl");
    settings.audit.jsonl = Some(JsonlTarget::File(lines.clone()));
    let service = Service::start_in(folder, settings).await.unwrap();
    switch.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        service.scopes().expand_registration_scopes(expansion()).await.unwrap();
    }
    let ended = ("True", "AuditLinesEnded");
    service
        .status_when("the panic", move |status| {
            condition(&status.conditions, "AuditLinesStalled") == Some(ended)
        })
        .await;
    let ends = "scopeward_part_unexpected_ends_total{part=\"audit-lines\"}";
    assert!(service.metric(ends).await >= Some(1.0));
    switch.store(false, Ordering::SeqCst);
    service
        .status_when("the recovery", |status| condition(&status.conditions, "AuditLinesStalled").is_none())
        .await;
    let folder = service.stop().await;
    let text = std::fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    // The policy change of the start, and three expansions, each exactly once: the file says what is there.
    assert_eq!(text.lines().count(), 4, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_never_answers_cannot_hold_the_shutdown_up() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("policies")).unwrap();
    std::fs::write(folder.path().join("policies/mcp.yaml"), POLICY).unwrap();
    // Whether it hangs.
    let disk = Arc::new((Mutex::new(false), Condvar::new()));
    let (stuck, mut is_stuck) = mpsc::unbounded_channel();
    let fault = Fault(Some({
        let disk = Arc::clone(&disk);
        Arc::new(move |at| {
            let (hangs, changed) = &*disk;
            let hangs = hangs.lock().unwrap();
            if at == Part::AuditWriter && *hangs {
                _ = stuck.send(());
                drop(changed.wait_while(hangs, |hangs| *hangs).unwrap());
            }
        })
    }));
    let mut settings = settings(folder.path());
    settings.server.fault = fault;
    settings.server.shutdown_timeout = Duration::from_secs(2);
    settings.audit.jsonl = Some(JsonlTarget::File(folder.path().join("audit.jsonl")));
    let app = App::start(settings).await.unwrap();
    let channel = crate::harness::channel(crate::harness::tcp(&app.addresses()));
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(app.run(async { _ = stopped.await }));
    let mut client = ScopePolicyServiceClient::new(channel.await);
    client.expand_registration_scopes(expansion()).await.expect("an answer");

    *disk.0.lock().unwrap() = true;
    let call = tokio::spawn(async move { client.expand_registration_scopes(expansion()).await });
    within("the writer hangs", is_stuck.recv()).await.unwrap();
    stop.send(()).unwrap();
    let stopped = within("the service ends", running).await.unwrap().unwrap();
    let abandoned: Vec<&str> = stopped.abandoned.iter().map(|left| left.part.name()).collect();
    assert_eq!(abandoned, ["grpc", "audit-writer"], "{:?}", stopped.abandoned);
    within("the call fails", call).await.unwrap().expect_err("its record is not durable");
    *disk.0.lock().unwrap() = false;
    disk.1.notify_all();
}

#[tokio::test]
async fn a_panic_of_a_connection_ends_that_connection_and_nothing_else() {
    let (folder, settings, switch) = prepared(Part::Connection);
    let service = Service::start_in(folder, settings).await.unwrap();
    // Its connection is served by the time that there is an answer.
    service.scopes().expand_registration_scopes(expansion()).await.expect("an answer");
    switch.store(true, Ordering::SeqCst);
    let mut lost = TcpStream::connect(service.grpc).await.unwrap();
    assert_eq!(within("the socket is closed", lost.read(&mut [0])).await.unwrap(), 0);
    switch.store(false, Ordering::SeqCst);
    service.scopes().expand_registration_scopes(expansion()).await.expect("the other connection answers");
    let mut next = ScopePolicyServiceClient::new(crate::harness::channel(service.grpc).await);
    next.expand_registration_scopes(expansion()).await.expect("a new connection answers");
    drop(next);
    service.stop().await;
}

/// A status service whose watches panic after their first message.
struct Panics;

#[tonic::async_trait]
impl v1::policy_status_service_server::PolicyStatusService for Panics {
    async fn get_policy_status(
        &self,
        _: Request<v1::GetPolicyStatusRequest>,
    ) -> Result<Response<v1::GetPolicyStatusResponse>, Status> {
        Ok(Response::new(v1::GetPolicyStatusResponse::default()))
    }

    type WatchPolicyStatusStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchPolicyStatusResponse, Status>> + Send>>;

    async fn watch_policy_status(
        &self,
        _: Request<v1::WatchPolicyStatusRequest>,
    ) -> Result<Response<Self::WatchPolicyStatusStream>, Status> {
        let first = tokio_stream::once(Ok(v1::WatchPolicyStatusResponse::default()));
        // Not at once, so that the first message leaves.
        let second = futures_util::stream::once(async {
            tokio::task::yield_now().await;
            panic!("injected")
        });
        Ok(Response::new(Box::pin(first.chain(second))))
    }

    async fn get_shadow_report(
        &self,
        _: Request<v1::GetShadowReportRequest>,
    ) -> Result<Response<v1::GetShadowReportResponse>, Status> {
        Ok(Response::new(v1::GetShadowReportResponse::default()))
    }
}

#[tokio::test]
async fn a_panic_in_a_status_watch_ends_that_stream_with_an_error_and_nothing_else() {
    let config =
        Config { listen: vec![std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()], ..Config::default() };
    let listeners = Listeners::bind(&config).await.unwrap();
    let addr = crate::harness::tcp(&listeners.addresses());
    let services = Services::new(&Lifecycle::new()).with(PolicyStatusServiceServer::new(Panics));
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(run(config, services, listeners, async { _ = stopped.await }));
    let mut client = PolicyStatusServiceClient::new(crate::harness::channel(addr).await);
    let mut other = client.watch_policy_status(v1::WatchPolicyStatusRequest {}).await.unwrap().into_inner();
    for _ in 0..3 {
        let watching = client.watch_policy_status(v1::WatchPolicyStatusRequest {});
        let mut stream = within("a stream", watching).await.unwrap().into_inner();
        assert!(within("the first message", stream.message()).await.unwrap().is_some());
        let error = within("the end", stream.message()).await.expect_err("not a stream that ends in order");
        assert_eq!(error.code(), Code::Internal, "{error}");
    }
    // The same connection still answers.
    assert!(within("the other stream", other.message()).await.unwrap().is_some());
    client.get_policy_status(v1::GetPolicyStatusRequest {}).await.unwrap();
    drop((client, other));
    stop.send(()).unwrap();
    within("the server ends", running).await.unwrap().unwrap();
}
