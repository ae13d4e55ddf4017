//! The access file: who may call what, over every way in, while it changes, and what restricted callers see.

use std::fs;
use std::os::unix::fs::MetadataExt;

use scopeward::rpc::v1;
use scopeward::rpc::v1::audit_service_client::AuditServiceClient;
use scopeward::rpc::v1::policy_status_service_client::PolicyStatusServiceClient;
use scopeward::rpc::v1::scope_policy_service_client::ScopePolicyServiceClient;
use scopeward::server::app::AppError;
use scopeward::server::listen::ListenAddr;
use scopeward::server::tls::TlsFiles;
use sha2::{Digest, Sha256};
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use crate::certs::{Authority, Issued, Name, self_signed};
use crate::harness::{reason, within};
use crate::peer::{Call, Peer, WIDE};
use crate::service::{Service, condition, settings, unix_channel};
use crate::tls::{client, tls_channel};

const A: &str = "https://a.example.com";
const B: &str = "https://b.example.com";
const POLICY: &str = "\
audiences:
  https://a.example.com: {scopesSupported: [openid, x], baselineClientScopes: [x], aliases: [a-alias]}
  https://b.example.com: {scopesSupported: [openid]}
defaultAudience: https://b.example.com
";

pub(crate) fn hash(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Starts a service with an access file: TLS with client certificates on TCP, or plaintext, and a Unix socket.
async fn start(access: &str, tls: Option<TlsFiles>) -> Result<Service, AppError> {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("policies")).unwrap();
    fs::write(folder.path().join("policies/p.yaml"), POLICY).unwrap();
    fs::write(folder.path().join("access.yaml"), access).unwrap();
    let mut settings = settings(folder.path());
    settings.server.listen.push(ListenAddr::Unix(folder.path().join("socket")));
    settings.server.tls = tls;
    settings.access_file = Some(folder.path().join("access.yaml"));
    Service::start_in(folder, settings).await
}

/// The user that this test, and so its connections over the socket, runs as.
fn own_uid() -> u32 {
    fs::metadata("/proc/self").unwrap().uid()
}

type Authorized =
    InterceptedService<Channel, Box<dyn FnMut(Request<()>) -> Result<Request<()>, Status> + Send>>;

/// A channel on which each call shows a token.
fn with_token(channel: Channel, token: Option<&str>) -> Authorized {
    let value = token.map(|token| MetadataValue::try_from(format!("Bearer {token}")).unwrap());
    InterceptedService::new(
        channel,
        Box::new(move |mut request| {
            if let Some(value) = &value {
                request.metadata_mut().insert("authorization", value.clone());
            }
            Ok(request)
        }),
    )
}

fn check_request(audiences: &[&str]) -> v1::CheckAuthorizeScopesRequest {
    v1::CheckAuthorizeScopesRequest {
        audiences: audiences.iter().map(|audience| (*audience).to_owned()).collect(),
        scope: Some("openid".to_owned()),
        registered_scope: Some("openid".to_owned()),
        ..Default::default()
    }
}

/// Calls each RPC of the service, and says how each ended.
async fn call_all(channel: Channel, token: Option<&str>) -> Vec<(&'static str, Code)> {
    let code = |status: &Status| status.code();
    let mut codes = Vec::new();
    let authorized = || with_token(channel.clone(), token);
    let ended = |ended: Result<(), Status>| ended.map_or_else(|status| code(&status), |()| Code::Ok);
    let mut scopes = ScopePolicyServiceClient::new(authorized());
    let expand = v1::ExpandRegistrationScopesRequest { audiences: vec![A.to_owned()], ..Default::default() };
    codes
        .push(("ExpandRegistrationScopes", ended(scopes.expand_registration_scopes(expand).await.map(drop))));
    codes.push((
        "CheckAuthorizeScopes",
        ended(scopes.check_authorize_scopes(check_request(&[A])).await.map(drop)),
    ));
    let batch = v1::BatchCheckAuthorizeScopesRequest { checks: vec![check_request(&[A])] };
    codes.push((
        "BatchCheckAuthorizeScopes",
        ended(scopes.batch_check_authorize_scopes(batch).await.map(drop)),
    ));
    let token = crate::harness::refresh(None, "openid");
    codes.push(("CheckTokenScopes", ended(scopes.check_token_scopes(token.clone()).await.map(drop))));
    let batch = v1::BatchCheckTokenScopesRequest { checks: vec![token] };
    codes.push(("BatchCheckTokenScopes", ended(scopes.batch_check_token_scopes(batch).await.map(drop))));
    let describe = v1::DescribeAudienceRequest { audience: A.to_owned(), ..Default::default() };
    codes.push(("DescribeAudience", ended(scopes.describe_audience(describe).await.map(drop))));
    let mut status = PolicyStatusServiceClient::new(authorized());
    codes.push((
        "GetPolicyStatus",
        ended(status.get_policy_status(v1::GetPolicyStatusRequest {}).await.map(drop)),
    ));
    let watch = async {
        let mut stream = status.watch_policy_status(v1::WatchPolicyStatusRequest {}).await?.into_inner();
        stream.message().await.map(drop)
    };
    codes.push(("WatchPolicyStatus", ended(watch.await)));
    let shadow = status.get_shadow_report(v1::GetShadowReportRequest::default()).await;
    codes.push(("GetShadowReport", ended(shadow.map(drop))));
    let audit = async {
        let request = v1::StreamAuditEventsRequest::default();
        let mut stream =
            AuditServiceClient::new(authorized()).stream_audit_events(request).await?.into_inner();
        stream.message().await.map(drop)
    };
    codes.push(("StreamAuditEvents", ended(audit.await)));
    let reflection = async {
        let list = MessageRequest::ListServices(String::new());
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
        let mut client = ServerReflectionClient::new(authorized());
        let requests = tokio_stream::iter([request]);
        let mut stream = client.server_reflection_info(requests).await?.into_inner();
        stream.message().await.map(drop)
    };
    codes.push(("v1.ServerReflectionInfo", ended(reflection.await)));
    let reflection = async {
        use tonic_reflection::pb::v1alpha as alpha;
        let list = alpha::server_reflection_request::MessageRequest::ListServices(String::new());
        let request = alpha::ServerReflectionRequest { host: String::new(), message_request: Some(list) };
        let mut client = alpha::server_reflection_client::ServerReflectionClient::new(authorized());
        let mut stream = client.server_reflection_info(tokio_stream::iter([request])).await?.into_inner();
        stream.message().await.map(drop)
    };
    codes.push(("v1alpha.ServerReflectionInfo", ended(reflection.await)));
    let health = HealthClient::new(authorized()).check(HealthCheckRequest::default()).await;
    codes.push(("Check", ended(health.map(drop))));
    let watch = async {
        let mut client = HealthClient::new(authorized());
        let mut stream = client.watch(HealthCheckRequest::default()).await?.into_inner();
        stream.message().await.map(drop)
    };
    codes.push(("Watch", ended(watch.await)));
    let mut nothing = tonic::client::Grpc::new(authorized());
    let path = http::uri::PathAndQuery::from_static("/scopeward.v1.ScopePolicyService/Nothing");
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let nothing = match nothing.ready().await {
        Ok(()) => nothing.unary(Request::new(()), path, codec).await.map(drop),
        Err(error) => Err(Status::unavailable(error.to_string())),
    };
    codes.push(("an RPC that is not there", ended(nothing)));
    codes
}

/// What each RPC must come to for somebody who may do this.
fn expected(may: &[&str], otherwise: Code) -> Vec<(&'static str, Code)> {
    let of = |right: &str, code: Code| if may.contains(&right) { code } else { otherwise };
    let listed = |code: Code| if otherwise == Code::Unauthenticated { otherwise } else { code };
    vec![
        ("ExpandRegistrationScopes", of("decide", Code::Ok)),
        ("CheckAuthorizeScopes", of("decide", Code::Ok)),
        ("BatchCheckAuthorizeScopes", of("decide", Code::Ok)),
        ("CheckTokenScopes", of("decide", Code::Ok)),
        ("BatchCheckTokenScopes", of("decide", Code::Ok)),
        ("DescribeAudience", of("describe", Code::Ok)),
        ("GetPolicyStatus", of("status", Code::Ok)),
        ("WatchPolicyStatus", of("status", Code::Ok)),
        // There is no shadow policy.
        ("GetShadowReport", of("status", Code::NotFound)),
        ("StreamAuditEvents", of("audit", Code::Ok)),
        ("v1.ServerReflectionInfo", listed(Code::Ok)),
        ("v1alpha.ServerReflectionInfo", listed(Code::Ok)),
        ("Check", Code::Ok),
        ("Watch", Code::Ok),
        ("an RPC that is not there", listed(Code::Unimplemented)),
    ]
}

#[test]
fn the_matrix_has_every_rpc() {
    let mut known: Vec<_> = expected(&[], Code::Unauthenticated).into_iter().map(|(rpc, _)| rpc).collect();
    let pool = prost_reflect::DescriptorPool::decode(scopeward::rpc::FILE_DESCRIPTOR_SET).unwrap();
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let at = known.iter().position(|rpc| *rpc == method.name());
        known.remove(at.unwrap_or_else(|| panic!("{} is not in the matrix", method.full_name())));
    }
    assert_eq!(
        known,
        [
            "v1.ServerReflectionInfo",
            "v1alpha.ServerReflectionInfo",
            "Check",
            "Watch",
            "an RPC that is not there"
        ]
    );
}

#[tokio::test]
async fn every_rpc_for_every_kind_of_identity() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, clients) = (Authority::new("CA"), Authority::new("clients"));
    let server = ca.issue(&[]).write(folder.path(), "server");
    fs::write(folder.path().join("clients.pem"), clients.pem()).unwrap();
    let tls = TlsFiles {
        certificate: server.chain,
        private_key: server.key,
        client_ca: Some(folder.path().join("clients.pem")),
    };
    let access = format!(
        "callers:
  - name: as
    match: [{{spiffeId: spiffe://example.org/as}}]
    may: [decide, describe]
  - name: monitoring
    match: [{{dnsName: monitoring.example.org}}]
    may: [status]
  - name: idle
    match: [{{spiffeId: spiffe://example.org/idle}}]
    may: []
  - name: elsewhere
    match: [{{spiffeId: spiffe://example.org/elsewhere}}]
    may: [decide, describe, status, audit]
    audiences: [\"{B}\"]
  - name: bot
    match: [{{tokenSha256: {}}}, {{tokenSha256: {}}}]
    may: [audit]
  - name: local
    match: [{{unixUid: {}}}]
    may: [decide, describe, status, audit]
  - name: other user
    match: [{{unixUid: 54321}}]
    may: [decide]
",
        hash("old"),
        hash("new"),
        own_uid(),
    );
    let service = start(&access, Some(tls)).await.expect("it starts");
    let none = clients.issue(&[Name::Uri("spiffe://example.org/unknown")]);
    let id = |id: &'static str| clients.issue(&[Name::Uri(id)]);
    let denied = Code::PermissionDenied;
    let stranger = expected(&[], Code::Unauthenticated);
    let tls_cases: Vec<(&str, Issued, Option<&str>, Vec<_>)> = vec![
        ("right", id("spiffe://example.org/as"), None, expected(&["decide", "describe"], denied)),
        ("dns", clients.issue(&[Name::Dns("monitoring.example.org")]), None, expected(&["status"], denied)),
        ("no right at all", id("spiffe://example.org/idle"), None, expected(&[], denied)),
        ("right CA, no entry", none.clone(), None, stranger.clone()),
        ("no names", clients.issue(&[]), None, stranger.clone()),
        (
            "two URIs are no SPIFFE ID",
            clients.issue(&[Name::Uri("spiffe://example.org/as"), Name::Uri("spiffe://example.org/idle")]),
            None,
            stranger.clone(),
        ),
        ("old token", none.clone(), Some("old"), expected(&["audit"], denied)),
        ("new token", none.clone(), Some("new"), expected(&["audit"], denied)),
        ("wrong token", none.clone(), Some("wrong"), stranger.clone()),
        ("the hash as token", none.clone(), Some("2cf24dba"), stranger.clone()),
        (
            "wrong token, right certificate",
            id("spiffe://example.org/as"),
            Some("wrong"),
            expected(&["decide", "describe"], denied),
        ),
    ];
    for (what, own, token, expected) in tls_cases {
        let channel = tls_channel(service.grpc, client(&ca.pem(), Some(&own))).await.expect(what);
        assert_eq!(call_all(channel, token).await, expected, "{what}");
    }
    // Of another audience: the answer is a denial or NOT_FOUND, as for one that is nowhere.
    let own = id("spiffe://example.org/elsewhere");
    let channel = tls_channel(service.grpc, client(&ca.pem(), Some(&own))).await.unwrap();
    let mut all = expected(&["decide", "describe", "status", "audit"], denied);
    let describe = all.iter_mut().find(|(rpc, _)| *rpc == "DescribeAudience").unwrap();
    describe.1 = Code::NotFound;
    assert_eq!(call_all(channel, None).await, all, "another audience");
    // These do not even get a connection.
    for (what, own) in [
        ("none", None),
        ("wrong CA", Some(Authority::new("clients").issue(&[Name::Uri("spiffe://example.org/as")]))),
        ("expired", Some(clients.issue_expired(&[Name::Uri("spiffe://example.org/as")]))),
        ("self-signed", Some(self_signed(&[Name::Uri("spiffe://example.org/as")]))),
    ] {
        if let Ok(channel) = tls_channel(service.grpc, client(&ca.pem(), own.as_ref())).await {
            for (rpc, code) in within("all fail", call_all(channel, None)).await {
                assert!(
                    matches!(code, Code::Unknown | Code::Unavailable | Code::Internal),
                    "{what}: {rpc} {code:?}"
                );
            }
        }
    }
    let local = unix_channel(&service.folder.path().join("socket")).await;
    assert_eq!(
        call_all(local, None).await,
        expected(&["decide", "describe", "status", "audit"], denied),
        "unix"
    );

    // Each call is counted, also those of connections that showed nothing known; audit and the rest of the test come later.
    let (_, shown) = service.get("/metrics").await;
    let value = |line: String| {
        let value = shown.lines().find_map(|shown| shown.strip_prefix(&line));
        value.unwrap_or_else(|| panic!("no {line} in {shown}")).trim().parse::<u64>().unwrap()
    };
    let counted = |caller: &str, by: &str| {
        value(format!("scopeward_caller_calls_total{{caller=\"{caller}\",authenticated_by=\"{by}\"}}"))
    };
    // Of all calls, those of health need no caller.
    let calls = expected(&[], denied).len() as u64 - 2;
    for (caller, by, rounds) in [
        ("as", "mtls", 2),
        ("monitoring", "mtls", 1),
        ("idle", "mtls", 1),
        ("elsewhere", "mtls", 1),
        ("bot", "token", 2),
        ("local", "unix", 1),
        ("", "unknown", 5),
        ("local", "mtls", 0),
    ] {
        assert_eq!(counted(caller, by), rounds * calls, "{caller} {by}");
    }
    assert!(counted("", "none") >= 26);
    // What the access file refuses never reaches a service, and has its code.
    for (kind, method, denied, unknown) in [
        ("unary", "scopeward.v1.ScopePolicyService CheckAuthorizeScopes", 4, 5),
        ("unary", "scopeward.v1.PolicyStatusService GetPolicyStatus", 5, 5),
        ("server_stream", "scopeward.v1.PolicyStatusService WatchPolicyStatus", 5, 5),
        ("server_stream", "scopeward.v1.AuditService StreamAuditEvents", 4, 5),
        ("bidi_stream", "grpc.reflection.v1.ServerReflection ServerReflectionInfo", 0, 5),
        ("unary", "grpc.health.v1.Health Check", 0, 0),
    ] {
        let (service, name) = method.split_once(' ').unwrap();
        for (code, expected) in [("PermissionDenied", denied), ("Unauthenticated", unknown)] {
            let labels = format!(
                "grpc_type=\"{kind}\",grpc_service=\"{service}\",grpc_method=\"{name}\",grpc_code=\"{code}\""
            );
            assert_eq!(value(format!("grpc_server_handled_total{{{labels}}}")), expected, "{method} {code}");
        }
    }

    // Who it was is in the audit.
    let mut client = AuditServiceClient::new(service.channel.clone());
    let mut events =
        client.stream_audit_events(v1::StreamAuditEventsRequest::default()).await.unwrap().into_inner();
    let mut who = Vec::new();
    let mut kinds = Vec::new();
    while let Some(response) = events.message().await.unwrap() {
        let Some(v1::stream_audit_events_response::Message::Event(event)) = response.message else {
            continue;
        };
        kinds.push(event.kind());
        let caller = event.caller.unwrap_or_default();
        if !caller.name.is_empty() {
            who.push((caller.name, caller.authenticated_by));
        }
    }
    who.sort();
    who.dedup();
    let pair = |name: &str, by: &str| (name.to_owned(), by.to_owned());
    assert_eq!(who, [pair("as", "mtls"), pair("elsewhere", "mtls"), pair("local", "unix")]);
    assert!(kinds.contains(&v1::AuditEventKind::AccessChange));
    service.stop().await;
}

fn restricted() -> String {
    format!(
        "callers:\n  - {{name: all, match: [{{tokenSha256: {}}}], may: [decide, describe, status, audit]}}\n  - {{name: a, \
         match: [{{tokenSha256: {}}}], may: [decide, describe, status, audit], audiences: [a-alias]}}\n  - {{name: local, match: \
         [{{unixUid: {}}}], may: [status]}}\n",
        hash("all"),
        hash("a"),
        own_uid()
    )
}

async fn tcp(service: &Service) -> Channel {
    crate::harness::channel(service.grpc).await
}

#[tokio::test]
async fn for_a_caller_of_some_audiences_the_others_are_unknown() {
    let service = start(&restricted(), None).await.unwrap();
    let channel = tcp(&service).await;
    let mut own = ScopePolicyServiceClient::new(with_token(channel.clone(), Some("a")));
    let mut check = async |audiences: &[&str]| {
        own.check_authorize_scopes(check_request(audiences)).await.unwrap().into_inner()
    };
    assert_eq!(check(&[A]).await.decision(), v1::Decision::Allow);
    assert_eq!(check(&["a-alias"]).await.decision(), v1::Decision::Allow);
    // One that exists and one that does not are told apart by nothing but the name that was sent.
    let plain = |answer: v1::CheckAuthorizeScopesResponse, name: &str| {
        let answer = v1::CheckAuthorizeScopesResponse { decision_id: String::new(), ..answer };
        format!("{answer:?}").replace(name, "NAME")
    };
    let (there, nowhere) = (check(&[B]).await, check(&["https://n.example.com"]).await);
    assert_eq!(there.reason(), v1::Reason::AudienceUnknown);
    assert_eq!(plain(there, B), plain(nowhere, "https://n.example.com"));
    // None named means its own, though the policy has another default.
    let answer = check(&[]).await;
    assert_eq!(answer.audience_grants[0].audience, A);
    let expand =
        v1::ExpandRegistrationScopesRequest { scope: Some("openid".to_owned()), ..Default::default() };
    assert_eq!(own.expand_registration_scopes(expand).await.unwrap().into_inner().scope, "openid x");
    let batch =
        v1::BatchCheckAuthorizeScopesRequest { checks: vec![check_request(&[B]), check_request(&[])] };
    let batch = own.batch_check_authorize_scopes(batch).await.unwrap().into_inner().results;
    let decisions: Vec<_> = batch
        .into_iter()
        .map(|result| match result.result.unwrap() {
            v1::batch_check_result::Result::Response(response) => response.decision(),
            v1::batch_check_result::Result::Error(error) => panic!("{error:?}"),
        })
        .collect();
    assert_eq!(decisions, [v1::Decision::Deny, v1::Decision::Allow]);
    let refresh = |audiences: &[&str]| v1::CheckTokenScopesRequest {
        audiences: audiences.iter().map(|audience| (*audience).to_owned()).collect(),
        ..crate::harness::refresh(None, "openid")
    };
    let token = own.check_token_scopes(refresh(&[B])).await.unwrap().into_inner();
    assert_eq!(token.reason(), v1::Reason::AudienceUnknown);
    let token = own.check_token_scopes(refresh(&[])).await.unwrap().into_inner();
    assert_eq!(token.audience_grants[0].audience, A);
    let all = own.describe_audience(v1::DescribeAudienceRequest::default()).await.unwrap().into_inner();
    assert_eq!(all.audiences.iter().map(|one| &*one.audience).collect::<Vec<_>>(), [A]);
    let mut texts = Vec::new();
    for name in [B, "https://n.example.com"] {
        let request = v1::DescribeAudienceRequest { audience: name.to_owned(), ..Default::default() };
        let status = own.describe_audience(request).await.expect_err("it is unknown");
        texts.push((status.code(), status.message().replace(name, "NAME"), reason(&status)));
    }
    assert_eq!(texts[0], texts[1]);

    // The status and the audit of others are not shown.
    // In one step: a file that is only cut off yet would be rejected for something else.
    let next = service.folder.path().join("next.yaml");
    fs::write(&next, POLICY.replace("[openid]", "[openid, \"a b\"]")).unwrap();
    fs::rename(next, service.policies().join("p.yaml")).unwrap();
    let rejected =
        |status: &v1::PolicyStatus| status.last_attempt.as_ref().is_some_and(|last| !last.accepted);
    let whole = service.status_when("it is rejected", rejected).await;
    assert_eq!(whole.last_attempt.unwrap().finding_count, 1);
    let mut status = PolicyStatusServiceClient::new(with_token(channel.clone(), Some("a")));
    let got =
        status.get_policy_status(v1::GetPolicyStatusRequest {}).await.unwrap().into_inner().status.unwrap();
    let watched = status
        .watch_policy_status(v1::WatchPolicyStatusRequest {})
        .await
        .unwrap()
        .into_inner()
        .message()
        .await;
    assert_eq!(watched.unwrap().unwrap().status.unwrap(), got);
    assert!(!format!("{got:?}").contains("b.example.com"), "{got:?}");
    assert_eq!((got.audience_count, got.audience_status_count, got.audience_statuses.len()), (1, 1, 1));
    assert_eq!(got.last_attempt.unwrap().finding_count, 0);
    let mut others = ScopePolicyServiceClient::new(with_token(channel.clone(), Some("all")));
    let denied = v1::CheckAuthorizeScopesRequest { scope: Some("no".to_owned()), ..check_request(&[A, B]) };
    others.check_authorize_scopes(denied).await.unwrap();
    let audit = async |token| {
        let mut client = AuditServiceClient::new(with_token(channel.clone(), Some(token)));
        let request = v1::StreamAuditEventsRequest::default();
        let mut stream = client.stream_audit_events(request).await.unwrap().into_inner();
        let mut callers = Vec::new();
        while let Some(response) = stream.message().await.unwrap() {
            if let Some(v1::stream_audit_events_response::Message::Event(event)) = response.message {
                callers.push(event.caller.unwrap_or_default().name);
            }
        }
        callers
    };
    // A denial is recorded without delaying its answer.
    let whole = within("the denial is in the audit", async {
        loop {
            let whole = audit("all").await;
            if whole.iter().any(|name| name == "all") {
                return whole;
            }
        }
    })
    .await;
    assert!(whole.iter().any(String::is_empty), "{whole:?}");
    let seen = audit("a").await;
    assert!(!seen.is_empty() && seen.iter().all(|name| name == "a"), "{seen:?}");
    service.stop().await;
}

#[tokio::test]
async fn a_change_counts_at_once_and_what_is_broken_changes_nothing() {
    let service = start(&restricted(), None).await.unwrap();
    let path = service.folder.path().join("access.yaml");
    let channel = tcp(&service).await;
    let may = async |token: &str| {
        let mut client = ScopePolicyServiceClient::new(with_token(channel.clone(), Some(token)));
        client.check_authorize_scopes(check_request(&[A])).await.map(drop).map_err(|status| status.code())
    };
    let mut watching = PolicyStatusServiceClient::new(with_token(channel.clone(), Some("all")));
    let mut watch = watching.watch_policy_status(v1::WatchPolicyStatusRequest {}).await.unwrap().into_inner();
    watch.message().await.unwrap().expect("a status");
    // Rotation: the new token counts beside the old one.
    let both =
        restricted().replace(&hash("all"), &format!("{}}}, {{tokenSha256: {}", hash("all"), hash("all2")));
    fs::write(&path, &both).unwrap();
    within("the new token counts", async { while may("all2").await.is_err() {} }).await;
    assert_eq!(may("all").await, Ok(()));
    // Then the old one is taken away: what disappears waits until nothing is written.
    fs::write(&path, restricted().replace(&hash("all"), &hash("all2"))).unwrap();
    within("the old token is refused", async { while may("all").await.is_ok() {} }).await;
    assert_eq!((may("all").await, may("all2").await), (Err(Code::Unauthenticated), Ok(())));
    // A stream of somebody who is no longer known ends.
    let ended = within("the stream ends", async {
        loop {
            match watch.message().await {
                Ok(Some(_)) => {}
                other => return other,
            }
        }
    })
    .await;
    assert_eq!(ended.expect_err("it is revoked").code(), Code::Unauthenticated);
    let accepted = |status: &v1::PolicyStatus, expected: &str| {
        status.conditions.iter().any(|one| one.r#type == "AccessAccepted" && one.status == expected)
    };
    for broken in ["callers: []\n", "callers: [\n", "callers: [{name: a, match: [], may: []}]\n"] {
        fs::write(&path, broken).unwrap();
        service.status_when("it is rejected", move |status| accepted(status, "False")).await;
        assert_eq!(
            (may("all2").await, may("a").await, may("x").await),
            (Ok(()), Ok(()), Err(Code::Unauthenticated))
        );
        fs::write(&path, restricted().replace(&hash("all"), &hash("all2"))).unwrap();
        service.status_when("it is valid again", move |status| accepted(status, "True")).await;
    }
    fs::remove_file(&path).unwrap();
    service.status_when("it is gone", move |status| accepted(status, "False")).await;
    assert_eq!(may("all2").await, Ok(()));
    service.stop().await;
}

#[tokio::test]
async fn a_caller_has_its_own_number_of_calls() {
    let access = format!(
        "callers:\n  - {{name: few, match: [{{tokenSha256: {}}}], may: [decide, status], maxCalls: 1}}\n  - {{name: local, match: \
         [{{unixUid: {}}}], may: [status]}}\n",
        hash("few"),
        own_uid()
    );
    let service = start(&access, None).await.unwrap();
    let channel = tcp(&service).await;
    // A stream of its own holds its one place.
    let mut status = PolicyStatusServiceClient::new(with_token(channel.clone(), Some("few")));
    let mut watch = status.watch_policy_status(v1::WatchPolicyStatusRequest {}).await.unwrap().into_inner();
    watch.message().await.unwrap().expect("a status");
    let mut scopes = ScopePolicyServiceClient::new(with_token(channel.clone(), Some("few")));
    let refused = scopes.check_authorize_scopes(check_request(&[A])).await.expect_err("it has one already");
    assert_eq!((refused.code(), &*reason(&refused)), (Code::Unavailable, "CALLER_OVERLOADED"));
    drop(watch);
    within("the place is free", async {
        while scopes.check_authorize_scopes(check_request(&[A])).await.is_err() {}
    })
    .await;
    let (_, metrics) = service.get("/metrics").await;
    assert!(metrics.contains("scopeward_calls_refused_total{cause=\"caller_calls\"}"), "{metrics}");
    service.stop().await;
}

#[tokio::test]
async fn an_access_file_that_cannot_be_used_stops_the_start() {
    for access in
        ["", "callers: []\n", "callers: [{name: a, match: [{unixUid: 1}], may: []}]\n", "\u{fffe}: ["]
    {
        match start(access, None).await.map(drop) {
            Err(AppError::Access(_)) => {}
            other => panic!("{access:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn another_user_of_the_machine_is_nobody() {
    let access =
        "callers: [{name: other, match: [{unixUid: 54321}], may: [decide, status, audit, describe]}]\n";
    let service = start(access, None).await.unwrap();
    assert_eq!(call_all(service.channel.clone(), None).await, expected(&[], Code::Unauthenticated));
    service.stop().await;
}

// The message, in which an audience would stand, is never sent: the refusal cannot depend on it, nor on the policy.
#[tokio::test]
async fn a_call_without_the_right_is_refused_before_its_message_is_there() {
    let access = format!(
        "callers: [{{name: a, match: [{{tokenSha256: {}}}], may: [status], audiences: [a-alias]}}, {{name: local, match: \
         [{{unixUid: {}}}], may: [status]}}]\n",
        hash("a"),
        own_uid()
    );
    let service = start(&access, None).await.unwrap();
    let peer = Peer::connect(service.grpc, WIDE).await;
    for (path, token, code) in [
        ("/scopeward.v1.ScopePolicyService/CheckAuthorizeScopes", "Bearer a", Code::PermissionDenied),
        ("/scopeward.v1.ScopePolicyService/ExpandRegistrationScopes", "Bearer a", Code::PermissionDenied),
        ("/scopeward.v1.ScopePolicyService/BatchCheckAuthorizeScopes", "Bearer a", Code::PermissionDenied),
        ("/scopeward.v1.ScopePolicyService/DescribeAudience", "Bearer a", Code::PermissionDenied),
        ("/scopeward.v1.AuditService/StreamAuditEvents", "Bearer a", Code::PermissionDenied),
        ("/scopeward.v1.ScopePolicyService/CheckAuthorizeScopes", "Bearer b", Code::Unauthenticated),
        ("/scopeward.v1.PolicyStatusService/GetPolicyStatus", "Bearer b", Code::Unauthenticated),
    ] {
        let Call { body, response } = peer.open(path, &[("authorization", token)]).await;
        let ended = within("it is refused", response).await.expect("a response");
        let status = Status::from_header_map(ended.headers()).expect("a status without a message");
        drop(body);
        assert_eq!(status.code(), code, "{path}");
        assert!(!status.message().contains("example.com"), "{}", status.message());
    }
    service.stop().await;
}

#[tokio::test]
async fn without_an_access_file_a_server_that_others_reach_says_so() {
    let any = |ip: [u8; 4]| ListenAddr::Tcp((ip, 0).into());
    for (addresses, plaintext, access, expected) in [
        (vec![any([127, 0, 0, 1])], false, None, false),
        (vec![any([0, 0, 0, 0])], true, None, true),
        (vec![any([127, 0, 0, 1]), any([0, 0, 0, 0])], false, None, true),
        (vec![any([0, 0, 0, 0])], true, Some(restricted()), false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("policies")).unwrap();
        fs::write(folder.path().join("policies/p.yaml"), POLICY).unwrap();
        let server = Authority::new("CA").issue(&[]).write(folder.path(), "server");
        let tls = TlsFiles { certificate: server.chain, private_key: server.key, client_ca: None };
        let what = format!("{addresses:?} {plaintext} {}", access.is_some());
        let mut settings = settings(folder.path());
        settings.server.listen = addresses;
        settings.server.listen.push(ListenAddr::Unix(folder.path().join("socket")));
        settings.server.tls = (!plaintext).then_some(tls);
        settings.server.insecure_allow_remote_plaintext = plaintext;
        settings.access_file = access.map(|text| {
            fs::write(folder.path().join("access.yaml"), text).unwrap();
            folder.path().join("access.yaml")
        });
        let service = Service::start_in(folder, settings).await.unwrap();
        let status = service.status().await;
        let wanted = expected.then_some(("True", "NoAccessFile"));
        assert_eq!(condition(&status.conditions, "AccessUnrestricted"), wanted, "{what}");
        service.stop().await;
    }
}

#[tokio::test]
async fn a_rejected_access_file_says_where_it_is_wrong() {
    let service = start(&restricted(), None).await.unwrap();
    let path = service.folder.path().join("access.yaml");
    fs::write(&path, restricted().replacen("may: [decide", "may: [decied", 1)).unwrap();
    let rejected = |status: &v1::PolicyStatus| {
        condition(&status.conditions, "AccessAccepted") == Some(("False", "AccessFileInvalid"))
    };
    let status = service.status_when("it is rejected", rejected).await;
    let message = &status.conditions.iter().find(|one| one.r#type == "AccessAccepted").unwrap().message;
    let place = format!("{}:2:", path.display());
    assert!(
        message.starts_with("1 error, first ") && message.contains(&place) && message.contains("`decied`"),
        "{message}"
    );
    assert!(message.contains("the last good file keeps counting"), "{message}");
    service.stop().await;
}
