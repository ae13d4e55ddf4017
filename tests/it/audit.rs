//! The audit through the whole service: what is recorded, how it is streamed and resumed, and that
//! nothing that was acknowledged is ever missing - after kill -9, and with a full disk.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use scopeward::audit::{VerifyOptions, verify};
use scopeward::rpc::v1;
use scopeward::rpc::v1::audit_service_client::AuditServiceClient;
use scopeward::rpc::v1::scope_policy_service_client::ScopePolicyServiceClient;
use scopeward::rpc::v1::stream_audit_events_request::Start;
use scopeward::rpc::v1::stream_audit_events_response::Message;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_types::StatusExt;

use crate::harness::{reason, within};
use crate::service::{DEADLINE, POLICY, Service, condition, settings};

const AUDIENCE: &str = "https://mcp.example.com";

fn registration(scope: Option<&str>) -> v1::ExpandRegistrationScopesRequest {
    v1::ExpandRegistrationScopesRequest {
        audiences: vec![AUDIENCE.to_owned()],
        scope: scope.map(str::to_owned),
        client: Some(v1::Client { client_id: "client-1".to_owned(), ..v1::Client::default() }),
        ..Default::default()
    }
}

/// Everything that a stream which does not follow sends, checkpoints left out.
async fn all(
    channel: &Channel,
    request: v1::StreamAuditEventsRequest,
) -> Result<Vec<Message>, tonic::Status> {
    let mut client = AuditServiceClient::new(channel.clone());
    let mut stream = client.stream_audit_events(request).await?.into_inner();
    let mut messages = Vec::new();
    while let Some(response) = tokio::time::timeout(DEADLINE, stream.message()).await.unwrap()? {
        match response.message.unwrap() {
            Message::Checkpoint(_) => {}
            message => messages.push(message),
        }
    }
    Ok(messages)
}

fn events(messages: Vec<Message>) -> Vec<v1::AuditEvent> {
    messages
        .into_iter()
        .map(|message| match message {
            Message::Event(event) => event,
            other => panic!("no event: {other:?}"),
        })
        .collect()
}

#[tokio::test]
async fn expansions_denials_and_policy_changes_are_recorded_and_nothing_else() {
    let service = Service::start(POLICY).await;
    let mut client = service.scopes();
    let mut request = Request::new(v1::ExpandRegistrationScopesRequest {
        correlation_id: "login 1".to_owned(),
        ..registration(Some("openid"))
    });
    let trace = "0af7651916cd43dd8448eb211c80319c";
    request.metadata_mut().insert("traceparent", format!("00-{trace}-b7ad6b7169203331-01").parse().unwrap());
    request.metadata_mut().insert("grpc-previous-rpc-attempts", "2".parse().unwrap());
    let expanded = client.expand_registration_scopes(request).await.unwrap().into_inner();
    // Nothing added: no event.
    client.expand_registration_scopes(registration(Some("openid offline_access"))).await.unwrap();
    let denied = client.expand_registration_scopes(registration(Some("admin"))).await.unwrap().into_inner();
    service.write("broken.yaml", "audiences: [");
    service
        .status_when("the rejected attempt", |status| !status.last_attempt.as_ref().unwrap().accepted)
        .await;

    // Denials and changes are written without anybody waiting for them: follow until all are there.
    let mut stream = AuditServiceClient::new(service.channel.clone())
        .stream_audit_events(v1::StreamAuditEventsRequest { follow: true, ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    let mut found = Vec::new();
    let mut is_first = true;
    while found.len() < 4 {
        let response =
            tokio::time::timeout(DEADLINE, stream.message()).await.expect("more events").unwrap().unwrap();
        match response.message.unwrap() {
            Message::Event(event) => found.push(event),
            Message::Checkpoint(_) => {}
            Message::Gap(gap) => panic!("{gap:?}"),
        }
        assert!(!is_first || found.is_empty(), "a checkpoint comes first");
        is_first = false;
    }
    let sequences: Vec<u64> = found.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, [1, 2, 3, 4]);
    for (event, next) in found.iter().zip(&found[1..]) {
        assert_eq!(event.hash, next.prev_hash);
    }
    let [start, expansion, denial, change] = &found[..] else { unreachable!() };
    assert_eq!(start.kind(), v1::AuditEventKind::PolicyChange);
    assert!(start.policy_change.as_ref().unwrap().accepted);

    assert_eq!(expansion.kind(), v1::AuditEventKind::Expansion);
    assert_eq!(expansion.decision_id, expanded.decision_id);
    assert_eq!(expansion.method, "/scopeward.v1.ScopePolicyService/ExpandRegistrationScopes");
    assert_eq!(expansion.audiences, [AUDIENCE]);
    assert_eq!(expansion.client.as_ref().unwrap().client_id, "client-1");
    assert_eq!(expansion.requested_scope.as_deref(), Some("openid"));
    assert_eq!(expansion.registered_scope, None);
    assert_eq!(expansion.effective_scope, "openid offline_access");
    assert_eq!(
        (&*expansion.added[0].scope, expansion.added[0].origin()),
        ("offline_access", v1::Origin::Baseline)
    );
    assert_eq!(expansion.policy, expanded.policy);
    assert_eq!((&*expansion.trace_id, expansion.attempt), (trace, 2));
    assert_eq!(expansion.correlation_id, "login 1");
    assert!(expansion.peer.starts_with("127.0.0.1:"), "{}", expansion.peer);

    assert_eq!(denial.kind(), v1::AuditEventKind::Denial);
    assert_eq!(denial.decision_id, denied.decision_id);
    assert_eq!(denial.reason(), v1::Reason::Unsupported);
    assert_eq!(denial.refused, denied.refused);
    assert_eq!(denial.correlation_id, "");

    assert_eq!(change.kind(), v1::AuditEventKind::PolicyChange);
    let change = change.policy_change.as_ref().unwrap();
    assert_eq!((change.accepted, change.finding_count), (false, 1));

    assert_eq!(service.metric("scopeward_audit_durable_sequence ").await, Some(4.0));
}

#[tokio::test]
async fn a_stream_resumes_after_a_sequence_and_filters() {
    let service = Service::start(POLICY).await;
    let mut client = service.scopes();
    for _ in 0..10 {
        client.expand_registration_scopes(registration(Some("openid"))).await.unwrap();
    }
    let everything = events(all(&service.channel, Default::default()).await.unwrap());
    assert_eq!(everything.len(), 11);
    let log_id = everything[0].log_id.clone();
    let after = |sequence, log_id: &str| v1::StreamAuditEventsRequest {
        start: Some(Start::AfterSequence(sequence)),
        log_id: log_id.to_owned(),
        ..Default::default()
    };
    let rest = events(all(&service.channel, after(7, &log_id)).await.unwrap());
    assert_eq!(rest, everything[7..]);
    let none = events(all(&service.channel, after(11, &log_id)).await.unwrap());
    assert!(none.is_empty());
    let changes = v1::StreamAuditEventsRequest {
        kinds: vec![v1::AuditEventKind::PolicyChange.into()],
        ..Default::default()
    };
    assert_eq!(events(all(&service.channel, changes).await.unwrap()).len(), 1);
    let elsewhere = v1::StreamAuditEventsRequest {
        kinds: vec![v1::AuditEventKind::Expansion.into()],
        audiences: vec!["https://other.example.com".to_owned()],
        ..Default::default()
    };
    assert!(all(&service.channel, elsewhere).await.unwrap().is_empty());
    // Compared as audiences are, at the most that a filter may have.
    let mut audiences = vec!["x".repeat(2048); 15];
    audiences.push("HTTPS://MCP.example.com:443/".to_owned());
    let here = v1::StreamAuditEventsRequest { audiences, ..Default::default() };
    assert_eq!(events(all(&service.channel, here).await.unwrap()), everything[1..]);

    let code = async |request| all(&service.channel, request).await.unwrap_err();
    let status = code(after(12, &log_id)).await;
    assert_eq!(status.code(), Code::OutOfRange);
    assert!(status.message().contains("oldest is 1") && status.message().contains("newest 11"), "{status:?}");
    assert_eq!(code(after(1, "")).await.code(), Code::InvalidArgument);
    assert_eq!(code(after(1, "00000000-0000-4000-8000-000000000000")).await.code(), Code::InvalidArgument);
    // Kinds that this log has no events of.
    let kinds = vec![v1::AuditEventKind::LogOpened.into(), v1::AuditEventKind::AccessChange.into()];
    let none = v1::StreamAuditEventsRequest { kinds, ..Default::default() };
    assert!(all(&service.channel, none).await.unwrap().is_empty());
    let named = async |request, field: &str, reason: &str| {
        let status = code(request).await;
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, reason);
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, field);
    };
    for kind in [0, 99, -1] {
        let unknown = v1::StreamAuditEventsRequest { kinds: vec![2, kind], ..Default::default() };
        named(unknown, "kinds", "ENUM_VALUE_UNKNOWN").await;
    }
    let starting = |start| v1::StreamAuditEventsRequest { start: Some(start), ..Default::default() };
    named(starting(Start::Position(7)), "position", "ENUM_VALUE_UNKNOWN").await;
    let never = prost_types::Timestamp { seconds: i64::MAX, nanos: 0 };
    named(starting(Start::StartTime(never)), "start_time", "TIME_OUT_OF_RANGE").await;
    let audiences = |audiences: Vec<String>| v1::StreamAuditEventsRequest { audiences, ..Default::default() };
    named(audiences(vec![String::new(); 17]), "audiences", "LIMIT_EXCEEDED").await;
    named(audiences(vec!["a".into(), "x".repeat(2049)]), "audiences[1]", "LIMIT_EXCEEDED").await;
}

#[tokio::test]
async fn the_first_checkpoint_says_where_the_log_ends() {
    let service = Service::start(POLICY).await;
    for _ in 0..3 {
        service.scopes().expand_registration_scopes(registration(Some("openid"))).await.unwrap();
    }
    let request = v1::StreamAuditEventsRequest::default();
    let mut client = AuditServiceClient::new(service.channel.clone());
    let mut stream = client.stream_audit_events(request).await.unwrap().into_inner();
    let mut seen = Vec::new();
    let mut hashes = Vec::new();
    while let Some(response) = stream.message().await.unwrap() {
        seen.push(match response.message.unwrap() {
            Message::Checkpoint(checkpoint) => {
                hashes.push(checkpoint.head_hash);
                ("checkpoint", checkpoint.durable_sequence)
            }
            Message::Event(event) => ("event", event.sequence),
            Message::Gap(gap) => ("gap", gap.sequence),
        });
    }
    let expected = [
        ("checkpoint", 4),
        ("checkpoint", 0),
        ("event", 1),
        ("event", 2),
        ("event", 3),
        ("event", 4),
        ("checkpoint", 4),
    ];
    assert_eq!(seen, expected);
    assert_eq!(hashes[0], hashes[2]);
}

#[tokio::test]
async fn a_restart_goes_on_with_the_same_log() {
    let service = Service::start(POLICY).await;
    service.scopes().expand_registration_scopes(registration(None)).await.unwrap();
    let before = events(all(&service.channel, Default::default()).await.unwrap());
    let folder = service.stop().await;
    let settings = crate::service::settings(folder.path());
    let service = Service::start_in(folder, settings).await.unwrap();
    // The policy change of the start delays nothing, so it may be durable a moment later.
    let after = loop {
        let after = events(all(&service.channel, Default::default()).await.unwrap());
        if after.len() > before.len() {
            break after;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(after[..before.len()], before);
    assert_eq!(after.len(), before.len() + 1, "the start itself is a policy change");
    let folder = service.stop().await;
    let report = verify(&folder.path().join("state/audit"), &VerifyOptions::default()).unwrap();
    assert!(report.bad.is_none(), "{report:?}");
}

#[tokio::test]
async fn a_stream_that_the_drain_ends_does_not_look_like_the_end_of_the_log() {
    let service = Service::start(POLICY).await;
    let request = v1::StreamAuditEventsRequest { follow: true, ..Default::default() };
    let mut stream = AuditServiceClient::new(service.channel.clone())
        .stream_audit_events(request)
        .await
        .unwrap()
        .into_inner();
    assert!(stream.message().await.unwrap().is_some(), "the stream has begun");
    let reading = async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                end => return end,
            }
        }
    };
    let (_folder, end) = tokio::time::timeout(DEADLINE, async { tokio::join!(service.stop(), reading) })
        .await
        .expect("the stream ends with the server");
    assert_eq!(end.expect_err("an error").code(), Code::Unavailable);
}

#[tokio::test]
async fn a_second_process_on_the_same_state_directory_is_refused() {
    let service = Service::start(POLICY).await;
    let mut settings = crate::service::settings(service.folder.path());
    settings.state_dir = service.folder.path().join("state");
    match scopeward::server::app::App::start(settings).await {
        Err(error) => assert!(error.to_string().contains("in use by another process"), "{error}"),
        Ok(_) => panic!("two writers"),
    }
}

/// The real program, so that it can be killed.
struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(folder: &Path, shell: &str) -> Self {
        let program = env!("CARGO_BIN_EXE_scopeward");
        let script = format!("{shell} exec \"$0\" \"$@\"");
        let mut child = Command::new("sh")
            .args([
                "-c",
                &script,
                program,
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
            ])
            .arg("--policies")
            .arg(folder.join("policies"))
            .arg("--state-dir")
            .arg(folder.join("state"))
            .env("SCOPEWARD_LOG", "error")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split_whitespace().find_map(|word| word.strip_prefix("grpc="));
        let address = address.unwrap_or_else(|| panic!("not ready: {line:?}")).to_owned();
        Self { child, address }
    }

    async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }
}

fn policies() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("policies")).unwrap();
    std::fs::write(folder.path().join("policies/mcp.yaml"), POLICY).unwrap();
    folder
}

/// Asks for expansions from many callers until each has an error, and gives the acknowledged ids.
async fn acknowledged(channel: &Channel, callers: usize, most: usize) -> (Vec<String>, Vec<tonic::Status>) {
    let ids = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for _ in 0..callers {
        let (mut client, ids) = (ScopePolicyServiceClient::new(channel.clone()), Arc::clone(&ids));
        tasks.push(tokio::spawn(async move {
            for _ in 0..most {
                match client.expand_registration_scopes(registration(Some("openid"))).await {
                    Ok(answer) => ids.lock().unwrap().push(answer.into_inner().decision_id),
                    Err(status) => return Some(status),
                }
            }
            None
        }));
    }
    let mut errors = Vec::new();
    for task in tasks {
        errors.extend(task.await.unwrap());
    }
    let ids = std::mem::take(&mut *ids.lock().unwrap());
    (ids, errors)
}

/// Every decision id in the store, after checking its chain.
async fn recorded(folder: &Path) -> HashSet<String> {
    let report = verify(&folder.join("state/audit"), &VerifyOptions::default()).unwrap();
    assert!(report.bad.is_none(), "{report:?}");
    let server = Server::start(folder, "");
    let messages = all(&server.channel().await, Default::default()).await.unwrap();
    let mut ids = HashSet::new();
    for (at, message) in messages.into_iter().enumerate() {
        let sequence = match message {
            Message::Event(event) => {
                assert!(event.decision_id.is_empty() || ids.insert(event.decision_id), "an id twice");
                event.sequence
            }
            Message::Gap(gap) => gap.sequence,
            Message::Checkpoint(_) => continue,
        };
        assert_eq!(sequence, at as u64 + 1, "sequences are contiguous");
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_minus_nine_loses_no_acknowledged_expansion() {
    let folder = policies();
    let mut acknowledged_ids = Vec::new();
    for round in 0..20u64 {
        let mut server = Server::start(folder.path(), "");
        let channel = server.channel().await;
        let asking = tokio::spawn(async move { acknowledged(&channel, 32, usize::MAX).await });
        // Another moment of the work each time; what is tested does not depend on how much was done.
        tokio::time::sleep(Duration::from_millis(40 + round * 13 % 90)).await;
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        let (ids, _) = asking.await.unwrap();
        acknowledged_ids.extend(ids);
    }
    assert!(acknowledged_ids.len() > 20, "{} were acknowledged", acknowledged_ids.len());
    let recorded = recorded(folder.path()).await;
    let missing: Vec<_> = acknowledged_ids.iter().filter(|id| !recorded.contains(*id)).collect();
    println!("{} acknowledged over 20 kills, {} recorded", acknowledged_ids.len(), recorded.len());
    assert!(missing.is_empty(), "{} acknowledged and not recorded", missing.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_expansions_and_loses_none() {
    let folder = policies();
    // 1024 blocks of 512 or 1024 bytes: no file may grow beyond that. SIGXFSZ is ignored, so that
    // writing fails as on a full disk instead of ending the process.
    let server = Server::start(folder.path(), "trap '' XFSZ; ulimit -S -f 1024;");
    let channel = server.channel().await;
    let (ids, errors) = acknowledged(&channel, 16, 2000).await;
    assert!(!ids.is_empty(), "some were acknowledged before the disk was full");
    assert_eq!(errors.len(), 16, "every caller is refused in the end");
    for error in &errors {
        assert_eq!(error.code(), Code::ResourceExhausted, "{error:?}");
    }
    // Decisions that expand nothing are answered as ever, and so are denials.
    let mut client = ScopePolicyServiceClient::new(channel.clone());
    let plain = client.expand_registration_scopes(registration(Some("openid offline_access"))).await.unwrap();
    assert_eq!(plain.into_inner().decision(), v1::Decision::Allow);
    let denied = client.expand_registration_scopes(registration(Some("admin"))).await.unwrap();
    assert_eq!(denied.into_inner().decision(), v1::Decision::Deny);
    let mut status = v1::policy_status_service_client::PolicyStatusServiceClient::new(channel);
    let mut states = status.watch_policy_status(v1::WatchPolicyStatusRequest {}).await.unwrap().into_inner();
    let status = loop {
        let state = tokio::time::timeout(DEADLINE, states.message()).await.expect("seen in time");
        let state = state.unwrap().unwrap().status.unwrap();
        if condition(&state.conditions, "AuditDegraded") == Some(("True", "AuditAppendFailed")) {
            break state;
        }
    };
    assert_eq!(condition(&status.conditions, "Ready"), Some(("True", "PolicyLoaded")));
    drop(server);
    let recorded = recorded(folder.path()).await;
    let missing = ids.iter().filter(|id| !recorded.contains(*id)).count();
    println!("{} acknowledged before the disk was full, {} recorded", ids.len(), recorded.len());
    assert_eq!(missing, 0, "acknowledged and not recorded");
}

#[tokio::test]
async fn json_lines_hold_every_record_once_over_a_restart() {
    let folder = policies();
    let path = folder.path().join("audit.jsonl");
    let settings = |folder: &Path| {
        let mut settings = crate::service::settings(folder);
        settings.audit.jsonl = Some(scopeward::audit::jsonl::JsonlTarget::File(path.clone()));
        settings
    };
    let first = settings(folder.path());
    let service = Service::start_in(folder, first).await.unwrap();
    for _ in 0..3 {
        service.scopes().expand_registration_scopes(registration(Some("openid"))).await.unwrap();
    }
    let folder = service.stop().await;
    let again = settings(folder.path());
    let service = Service::start_in(folder, again).await.unwrap();
    service.scopes().expand_registration_scopes(registration(None)).await.unwrap();
    let expected = events(all(&service.channel, Default::default()).await.unwrap());
    let _folder = service.stop().await;
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: Vec<&str> = lines.iter().map(|line| line["eventId"].as_str().unwrap()).collect();
    assert_eq!(ids, expected.iter().map(|event| &*event.event_id).collect::<Vec<_>>(), "{text}");
}

/// Writes and reads over connections that expire all the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_resumes_after_its_connection_expired_without_loss_or_repeat() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("policies")).unwrap();
    std::fs::write(folder.path().join("policies/mcp.yaml"), POLICY).unwrap();
    let mut settings = settings(folder.path());
    settings.server.limits.max_connection_age = Duration::from_millis(100);
    settings.server.limits.max_connection_age_grace = Duration::from_millis(20);
    let service = Service::start_in(folder, settings).await.unwrap();
    let grpc = service.grpc;
    let writing = tokio::spawn(async move {
        let mut written = 0;
        while written < 60 {
            // A connection that expires refuses what comes too late; a new one takes it.
            let Ok(mut client) = ScopePolicyServiceClient::connect(format!("http://{grpc}")).await else {
                continue;
            };
            while written < 60
                && client.expand_registration_scopes(registration(Some("openid"))).await.is_ok()
            {
                written += 1;
            }
        }
    });
    let (mut log_id, mut seen, mut expired) = (String::new(), Vec::new(), 0);
    // The start of the server is a record too.
    while seen.len() < 61 || expired < 3 {
        let mut client = AuditServiceClient::connect(format!("http://{grpc}")).await.unwrap();
        let start = seen.last().map(|last| Start::AfterSequence(*last));
        let request = v1::StreamAuditEventsRequest {
            start,
            log_id: log_id.clone(),
            follow: true,
            ..Default::default()
        };
        let mut stream = match client.stream_audit_events(request).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status}");
                continue;
            }
        };
        let end = loop {
            match within("the next message", stream.message()).await {
                Ok(message) => match message.expect("a stream that follows does not end").message.unwrap() {
                    Message::Event(event) => {
                        log_id = event.log_id;
                        seen.push(event.sequence);
                    }
                    Message::Gap(gap) => panic!("{gap:?}"),
                    Message::Checkpoint(_) => {}
                },
                Err(status) => break status,
            }
        };
        assert_eq!((end.code(), &*reason(&end)), (Code::Unavailable, "CONNECTION_EXPIRED"));
        expired += 1;
    }
    writing.await.unwrap();
    assert!(seen.iter().copied().eq(1..=seen.len() as u64), "{seen:?}");
    service.stop().await;
}
