//! The calls that the server answers from the bytes of their message, against the generated service: the same raw requests to both,
//! and the same status, headers, bytes, trailers, records and counts.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use prost::Message;
use scopeward::audit::{AppendReply, AuditError, GENESIS_HASH, Head, Recorded};
use scopeward::rpc::record::{AnsweredCall, NoRoom, RecordKind, Recorder, Room};
use scopeward::rpc::v1;
use scopeward::rpc::v1::batch_check_result::Result as ItemResult;
use scopeward::rpc::v1::batch_check_token_result::Result as TokenResult;
use scopeward::server::config::Config;
use tonic::Status;
use tonic_types::StatusExt;

use self::random::Random;
use crate::harness::{AUDIENCE, AnsweredBy, Wire, authorize, refresh, registration, within};
use crate::peer::{Peer, WIDE, framed};
use crate::pressure::{Never, Panicking, until};

mod random;

const EXPAND: &str = "/scopeward.v1.ScopePolicyService/ExpandRegistrationScopes";
const CHECK: &str = "/scopeward.v1.ScopePolicyService/CheckAuthorizeScopes";
const BATCH: &str = "/scopeward.v1.ScopePolicyService/BatchCheckAuthorizeScopes";
const TOKEN: &str = "/scopeward.v1.ScopePolicyService/CheckTokenScopes";
const TOKEN_BATCH: &str = "/scopeward.v1.ScopePolicyService/BatchCheckTokenScopes";

/// A request as it is sent.
#[derive(Clone, Debug)]
struct Raw {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    pieces: Vec<Vec<u8>>,
    end: End,
}

/// How the body of a request ends.
#[derive(Clone, Debug)]
enum End {
    /// With its last piece.
    Here,
    /// With trailers.
    Trailers,
    /// Not while the call lasts.
    Open,
    /// With a reset.
    Reset,
}

/// A call as a library would make it.
fn call(path: &str, body: Vec<u8>) -> Raw {
    Raw {
        method: Method::POST,
        path: path.to_owned(),
        headers: vec![("content-type", "application/grpc".to_owned()), ("te", "trailers".to_owned())],
        pieces: vec![body],
        end: End::Here,
    }
}

impl Raw {
    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self
    }

    fn by(self, method: Method) -> Self {
        Self { method, ..self }
    }

    fn ending(self, end: End) -> Self {
        Self { end, ..self }
    }

    fn in_pieces_of(self, size: usize) -> Self {
        let pieces = self.pieces.iter().flat_map(|piece| piece.chunks(size)).map(<[u8]>::to_vec).collect();
        Self { pieces, ..self }
    }

    /// What comes back.
    async fn sent(&self, peer: &Peer) -> Outcome {
        let mut request =
            Request::builder().method(self.method.clone()).uri(format!("http://localhost{}", self.path));
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let call = peer.send(request.body(()).expect("a request")).await;
        let mut call = call.expect("the connection takes a stream");
        // What the server refuses early is reset while it is sent.
        for (at, piece) in self.pieces.iter().enumerate() {
            let ends = matches!(self.end, End::Here) && at + 1 == self.pieces.len();
            _ = call.body.send_data(piece.clone().into(), ends);
        }
        match self.end {
            End::Trailers => {
                let mut trailers = HeaderMap::new();
                trailers.insert("traceparent", TRACEPARENT.parse().expect("a value"));
                _ = call.body.send_trailers(trailers);
            }
            End::Reset => call.body.send_reset(h2::Reason::CANCEL),
            End::Here | End::Open => {}
        }
        within("the call ends", Outcome::of(call.response)).await.without_ids(&self.path)
    }
}

/// Headers in the order in which they came.
type Fields = Vec<(String, String)>;

fn fields(headers: &HeaderMap) -> Fields {
    let field = |(name, value): (&HeaderName, &HeaderValue)| {
        let text = match name.as_str() {
            "grpc-status-details-bin" => details(headers),
            _ => value.to_str().expect("ASCII").to_owned(),
        };
        (name.to_string(), text)
    };
    headers.iter().map(field).collect()
}

/// The details of an error in words: what they say in pairs has no order on the wire.
fn details(headers: &HeaderMap) -> String {
    let status = Status::from_header_map(headers).expect("a status");
    let mut details = status.get_error_details();
    let info = details.error_info().cloned().expect("every error of ours has it");
    details.set_error_info("", "", HashMap::new());
    format!("{} {} {:?} {details:?}", info.reason, info.domain, BTreeMap::from_iter(info.metadata))
}

#[derive(Debug, Default, Eq, PartialEq)]
struct Outcome {
    status: u16,
    headers: Fields,
    data: Vec<u8>,
    trailers: Option<Fields>,
    /// If it was reset.
    reset: Option<h2::Reason>,
}

impl Outcome {
    async fn of(response: h2::client::ResponseFuture) -> Self {
        let mut outcome = Self::default();
        let broken = |error: h2::Error| error.reason();
        let mut body = match response.await {
            Ok(response) => {
                outcome.status = response.status().as_u16();
                outcome.headers = fields(response.headers());
                response.into_body()
            }
            Err(error) => return Self { reset: broken(error), ..outcome },
        };
        while let Some(chunk) = body.data().await {
            match chunk {
                Ok(chunk) => outcome.data.extend_from_slice(&chunk),
                Err(error) => return Self { reset: broken(error), ..outcome },
            }
        }
        match body.trailers().await {
            Ok(trailers) => outcome.trailers = trailers.as_ref().map(fields),
            Err(error) => outcome.reset = broken(error),
        }
        outcome
    }

    /// With zeros for the ids of decisions, which differ each time.
    fn without_ids(mut self, path: &str) -> Self {
        let Some(message) = self.data.get(5..).filter(|message| !message.is_empty()) else { return self };
        let ids: Vec<String> = match path.split('?').next().unwrap_or_default() {
            EXPAND => {
                vec![v1::ExpandRegistrationScopesResponse::decode(message).expect("an answer").decision_id]
            }
            CHECK => vec![v1::CheckAuthorizeScopesResponse::decode(message).expect("an answer").decision_id],
            BATCH => {
                let answer = v1::BatchCheckAuthorizeScopesResponse::decode(message).expect("an answer");
                let id = |result: v1::BatchCheckResult| match result.result {
                    Some(ItemResult::Response(response)) => Some(response.decision_id),
                    _ => None,
                };
                answer.results.into_iter().filter_map(id).collect()
            }
            TOKEN => vec![v1::CheckTokenScopesResponse::decode(message).expect("an answer").decision_id],
            TOKEN_BATCH => {
                let answer = v1::BatchCheckTokenScopesResponse::decode(message).expect("an answer");
                let id = |result: v1::BatchCheckTokenResult| match result.result {
                    Some(TokenResult::Response(response)) => Some(response.decision_id),
                    _ => None,
                };
                answer.results.into_iter().filter_map(id).collect()
            }
            _ => Vec::new(),
        };
        for id in ids {
            assert_eq!(uuid::Uuid::parse_str(&id).expect("an id").get_version_num(), 7);
            let at = self.data.windows(id.len()).position(|window| window == id.as_bytes());
            let at = at.expect("the id is in the message");
            self.data[at..at + id.len()].fill(b'0');
        }
        self
    }
}

/// Keeps the events of what is recorded.
#[derive(Debug, Default)]
pub(crate) struct Events(pub(crate) Mutex<Vec<v1::AuditEvent>>);

impl Recorder for Events {
    fn reserve(&self, _: usize) -> Result<Room, NoRoom> {
        Ok(Room::default())
    }

    fn record(
        &self,
        kind: RecordKind,
        record: AnsweredCall<'_>,
        _: Room,
        reply: &mut dyn FnMut() -> AppendReply,
    ) {
        let mut event = v1::AuditEvent::decode(record.event(kind, Vec::new()).fields()).expect("a message");
        assert!(event.peer.starts_with("127.0.0.1:"), "{}", event.peer);
        // What differs each time.
        event.peer.clear();
        event.decision_id.clear();
        event.event_id.clear();
        event.event_time = None;
        self.0.lock().expect("no panic").push(event);
        let reply = reply();
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            reply.send(Ok(Recorded { head: Head { sequence: 1, hash: GENESIS_HASH } }));
        });
    }
}

/// Has room for no record.
#[derive(Debug)]
struct Full;

impl Recorder for Full {
    fn reserve(&self, _: usize) -> Result<Room, NoRoom> {
        Err(NoRoom)
    }

    fn record(&self, _: RecordKind, _: AnsweredCall<'_>, _: Room, _: &mut dyn FnMut() -> AppendReply) {}
}

/// Has a disk that fails.
#[derive(Debug)]
struct Failing;

impl Recorder for Failing {
    fn reserve(&self, _: usize) -> Result<Room, NoRoom> {
        Ok(Room::default())
    }

    fn record(&self, _: RecordKind, _: AnsweredCall<'_>, _: Room, reply: &mut dyn FnMut() -> AppendReply) {
        reply().send(Err(AuditError::Closed));
    }
}

/// The same requests to both, with the same recorder, settings and policy.
async fn check_with<R: Recorder + 'static>(
    recorder: impl Fn() -> Arc<R>,
    change: impl Fn(&mut Config),
    policy: Option<&str>,
    requests: &[Raw],
) -> [(Arc<R>, Vec<Outcome>); 2] {
    let mut all = Vec::new();
    for answered in [AnsweredBy::Server, AnsweredBy::GeneratedService] {
        let recorder = recorder();
        let wire =
            Wire::start_with(answered, Some(Arc::clone(&recorder) as Arc<dyn Recorder>), &change).await;
        if let Some(policy) = policy {
            wire.serve(policy);
        }
        let peer = Peer::connect(wire.addr, WIDE).await;
        let mut outcomes = Vec::with_capacity(requests.len());
        for request in requests {
            outcomes.push(request.sent(&peer).await);
        }
        // HTTP/2 itself refuses some.
        let calls = outcomes.iter().filter(|outcome| outcome.status != 431).count();
        let ended = || counted(&wire).values().sum::<usize>() == calls;
        until("every call has ended", ended).await;
        until("all is given back", || wire.pressure.calls() == 0 && wire.pressure.bytes() == 0).await;
        all.push((recorder, outcomes, counted(&wire)));
        wire.stop().await;
    }
    let [(one, direct, counts), (two, generated, generated_counts)] =
        all.try_into().unwrap_or_else(|_| panic!("two of them"));
    for ((request, direct), generated) in requests.iter().zip(&direct).zip(&generated) {
        assert_eq!(direct, generated, "{request:?}");
    }
    assert_eq!(counts, generated_counts);
    [(one, direct), (two, generated)]
}

/// Calls that ended, by method and code.
pub(crate) fn counted(wire: &Wire) -> BTreeMap<String, usize> {
    let mut registry = prometheus_client::registry::Registry::default();
    wire.calls.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
    let lines = text.lines().filter_map(|line| line.strip_prefix("grpc_server_handled_total"));
    lines
        .filter_map(|line| {
            let (labels, count) = line.rsplit_once(' ')?;
            Some((labels.to_owned(), count.parse().ok()?)).filter(|(_, count)| *count > 0)
        })
        .collect()
}

/// The same requests to both; their answers.
async fn check(requests: &[Raw]) -> Vec<Outcome> {
    let [(events, outcomes), (generated, _)] =
        check_with(Arc::<Events>::default, |_| {}, Some(POLICY), requests).await;
    assert_eq!(*events.0.lock().expect("no panic"), *generated.0.lock().expect("no panic"));
    outcomes
}

/// How many of them were answered.
fn answered(outcomes: &[Outcome]) -> usize {
    outcomes.iter().filter(|outcome| !outcome.data.is_empty()).count()
}

pub(crate) const POLICY: &str = r#"
audiences:
  https://mcp.example.com:
    scopesSupported: [openid, offline_access, "mcp:read", "mcp:write", "mcp:admin"]
    baselineClientScopes: [offline_access]
    privilegedScopes: ["mcp:admin"]
    clientRules:
      - {name: desktop, when: {redirectUri: loopback}, baselineClientScopes: ["mcp:read"]}
    authorization: {stepUpScopes: ["mcp:write"]}
    aliases: ["https://mcp.example.com/v2"]
  https://files.example.com/api:
    scopesSupported: [files, files.read, files.write, files.admin]
    scopeMatching: hierarchic
    forbiddenScopes: [files.admin]
    registration: {unsupportedScopes: drop}
    authorization: {unsupportedScopes: drop, unregisteredScopes: drop, omittedScope: default}
  wild:
    scopesSupported: ["a:*", "b:x:*", c]
    scopeMatching: wildcard
    authorization: {unknownRegistration: none, alwaysGrantScopes: [c]}
"#;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn denied() -> Vec<u8> {
    framed(&authorize(Some("mcp:admin"), Some("openid")))
}

fn allowed() -> Vec<u8> {
    framed(&authorize(Some("openid"), Some("openid")))
}

#[tokio::test]
async fn answers_are_the_same_bytes() {
    let check_of = |scope, registered| call(CHECK, framed(&authorize(scope, registered)));
    let expand_of = |scope| call(EXPAND, framed(&registration(scope)));
    let client = |redirect: &str| v1::Client {
        client_id: "c".to_owned(),
        source: v1::ClientSource::Dcr.into(),
        client_name: "Ä client".to_owned(),
        redirect_uris: vec![redirect.to_owned()],
        ..Default::default()
    };
    let mut both = authorize(Some("openid files.read"), Some("openid files"));
    both.audiences.push("https://files.example.com/api".to_owned());
    let mut desktop = registration(Some("openid"));
    desktop.client = Some(client("http://127.0.0.1:7/cb"));
    desktop.correlation_id = "login-7".to_owned();
    let batch = v1::BatchCheckAuthorizeScopesRequest {
        checks: vec![both.clone(), authorize(Some("nothing"), None), authorize(None, None), both.clone()],
    };
    let requests = vec![
        check_of(Some("openid mcp:read"), Some("openid mcp:read")),
        check_of(Some("openid"), Some("openid")),
        check_of(Some("offline_access"), Some("openid")),
        check_of(Some("mcp:write"), Some("")),
        check_of(Some("mcp:admin"), Some("mcp:read")),
        check_of(Some(r#"bad"scope"#), Some("openid")),
        check_of(Some("nowhere"), None),
        check_of(Some(""), Some("openid")),
        check_of(None, None),
        expand_of(Some("openid")),
        expand_of(Some("nowhere")),
        expand_of(None),
        call(EXPAND, framed(&desktop)),
        call(CHECK, framed(&both)),
        call(BATCH, framed(&batch)),
        call(BATCH, framed(&v1::BatchCheckAuthorizeScopesRequest::default())),
        // A message without any field.
        call(CHECK, vec![0; 5]),
        call(CHECK, denied()).with("traceparent", TRACEPARENT).with("grpc-previous-rpc-attempts", "2"),
        call(CHECK, denied()).ending(End::Trailers),
        // Decided off the serving threads.
        call(CHECK, framed(&large())),
        call(TOKEN, framed(&refresh(Some("openid"), "openid mcp:read"))),
        call(TOKEN, framed(&refresh(None, "openid mcp:admin nowhere"))),
        call(TOKEN, framed(&refresh(Some("mcp:read nowhere"), "mcp:read nowhere"))),
        call(TOKEN, framed(&refresh(Some("mcp:read"), "openid"))),
        call(TOKEN, framed(&credentials())),
        call(TOKEN, framed(&large_token())),
        call(TOKEN_BATCH, framed(&token_batch())),
        call(TOKEN_BATCH, framed(&v1::BatchCheckTokenScopesRequest::default())),
    ];
    let outcomes = check(&requests).await;
    assert_eq!(answered(&outcomes), requests.len());
}

/// More look-ups than are made on a serving thread.
fn large() -> v1::CheckAuthorizeScopesRequest {
    let registered: Vec<_> = (0..20_000).map(|number| format!("s{number}")).collect();
    v1::CheckAuthorizeScopesRequest {
        audiences: vec!["https://files.example.com/api".to_owned(); 16],
        ..authorize(Some("x"), Some(&registered.join(" ")))
    }
}

/// A client that asks with its own credentials, at two audiences.
fn credentials() -> v1::CheckTokenScopesRequest {
    v1::CheckTokenScopesRequest {
        audiences: vec![AUDIENCE.to_owned(), "https://files.example.com/api".to_owned()],
        granted_scope: None,
        registered_scope: Some("openid files".to_owned()),
        grant: v1::TokenGrant::ClientCredentials.into(),
        correlation_id: "login-7".to_owned(),
        ..refresh(Some("openid offline_access files.read"), "")
    }
}

/// More look-ups than are made on a serving thread.
fn large_token() -> v1::CheckTokenScopesRequest {
    let v1::CheckAuthorizeScopesRequest { audiences, registered_scope, .. } = large();
    v1::CheckTokenScopesRequest { audiences, granted_scope: registered_scope, ..refresh(Some("x"), "") }
}

/// Answers of each kind, and an error.
fn token_batch() -> v1::BatchCheckTokenScopesRequest {
    let without_grant = v1::CheckTokenScopesRequest { granted_scope: None, ..refresh(None, "") };
    let checks = vec![
        refresh(None, "openid"),
        refresh(Some("nowhere"), "openid nowhere"),
        without_grant,
        credentials(),
        large_token(),
    ];
    v1::BatchCheckTokenScopesRequest { checks }
}

#[tokio::test]
async fn errors_have_the_same_status_and_details() {
    let mut many = authorize(Some("openid"), None);
    many.audiences = vec![AUDIENCE.to_owned(); 17];
    let mut unprintable = registration(Some("openid"));
    unprintable.correlation_id = "a\u{7}".to_owned();
    let batch = |checks: usize| v1::BatchCheckAuthorizeScopesRequest {
        checks: vec![authorize(Some("openid"), None); checks],
    };
    let mut with_bad_item = batch(2);
    with_bad_item.checks.push(many.clone());
    let prefixed = |message: &[u8]| {
        let length = u32::try_from(message.len()).expect("a short message");
        [&[0][..], &length.to_be_bytes(), message].concat()
    };
    let requests = vec![
        call(CHECK, framed(&many)),
        call(EXPAND, framed(&unprintable)),
        call(BATCH, framed(&batch(101))),
        call(BATCH, framed(&with_bad_item)),
        // No wire type 7, no end of a varint, no UTF-8, a length beyond the end, a group.
        call(CHECK, prefixed(&[0x0F])),
        call(CHECK, prefixed(&[0xFF; 11])),
        call(CHECK, prefixed(&[0x0A, 1, 0xFF])),
        call(CHECK, prefixed(&[0x0A, 9, b'a'])),
        call(EXPAND, prefixed(&[0x13])),
        call(BATCH, prefixed(&[0x0A, 2, 0x0A, 7])),
        // What a newer caller knows.
        call(CHECK, prefixed(&[0xA2, 6, 1, b'x'])),
        // No grant, one without its scope, one that nobody knows, too many.
        call(TOKEN, prefixed(&[])),
        call(TOKEN, framed(&v1::CheckTokenScopesRequest { granted_scope: None, ..refresh(None, "") })),
        call(TOKEN, framed(&v1::CheckTokenScopesRequest { grant: 99, ..refresh(None, "a") })),
        call(TOKEN, framed(&v1::CheckTokenScopesRequest { grant: 300, ..refresh(None, "a") })),
        call(TOKEN, framed(&v1::CheckTokenScopesRequest { grant: -1, ..refresh(None, "a") })),
        call(
            TOKEN_BATCH,
            framed(&v1::BatchCheckTokenScopesRequest { checks: vec![refresh(None, "a"); 101] }),
        ),
    ];
    let outcomes = check(&requests).await;
    assert_eq!(answered(&outcomes), 2, "the batch with a bad item, and the unknown field");
}

#[tokio::test]
async fn odd_framing_is_answered_the_same() {
    let message = denied();
    let compressed = |flag: u8| [&[flag][..], &message[1..]].concat();
    let over = |limit: usize| {
        let mut body = vec![0; 5];
        body[1..].copy_from_slice(&u32::try_from(limit + 1).expect("a small limit").to_be_bytes());
        body
    };
    let mut requests = vec![
        call(CHECK, Vec::new()),
        call(CHECK, message[..3].to_vec()),
        call(CHECK, message[..message.len() - 1].to_vec()),
        call(CHECK, [&message[..], &[0]].concat()),
        call(CHECK, [&message[..], &message[..]].concat()),
        call(CHECK, message.clone()).in_pieces_of(1),
        call(CHECK, message.clone()).in_pieces_of(7).ending(End::Trailers),
        call(CHECK, over(256 * 1024)).ending(End::Open),
        call(BATCH, over(1024 * 1024)).ending(End::Open),
        call(CHECK, vec![0, 255, 255, 255, 255]).ending(End::Open),
        // The body breaks off.
        call(CHECK, message[..4].to_vec()).ending(End::Reset),
        call(CHECK, message.clone()).ending(End::Reset).in_pieces_of(9),
        call(BATCH, Vec::new()).ending(End::Trailers),
    ];
    for flag in [0, 1, 2, 255] {
        for encoding in
            [None, Some("identity"), Some("gzip"), Some("deflate"), Some("zstd"), Some("x"), Some("")]
        {
            let request = call(CHECK, compressed(flag));
            requests.push(match encoding {
                Some(encoding) => request.with("grpc-encoding", encoding),
                None => request,
            });
        }
    }
    let outcomes = check(&requests).await;
    assert!(answered(&outcomes) >= 4, "whole messages were answered");
}

#[tokio::test]
async fn odd_headers_are_answered_the_same() {
    let request = || call(CHECK, denied());
    let mut requests = vec![
        request().without("te"),
        request().without("content-type"),
        request().without("content-type").with("content-type", "application/json"),
        request().without("content-type").with("content-type", "application/grpc+proto"),
        request().with("grpc-accept-encoding", "gzip, zstd, identity"),
        request().with("grpc-encoding", "identity").with("grpc-encoding", "gzip"),
        request().with("accept-encoding", "gzip"),
        request().with("content-length", &denied().len().to_string()),
        request().with("grpc-timeout", "10S"),
        request().with("grpc-timeout", "99999999H"),
        request().with("grpc-timeout", "soon"),
        request().with("authorization", "Bearer of-nobody"),
        request().with("connection-specific", "x").with("x-bin", "not base64!"),
        request().with("grpc-status", "13").with("grpc-message", "from the caller"),
        request().by(Method::GET),
        request().by(Method::HEAD),
        request().by(Method::PUT),
        request().by(Method::OPTIONS),
        request().by(Method::from_bytes(b"BREW").expect("a method")),
        call(&format!("{CHECK}?x=1"), denied()),
        call(&format!("{CHECK}/"), denied()),
        call(&format!("{}%73", &CHECK[..CHECK.len() - 1]), denied()),
        call("/scopeward.v1.ScopePolicyService/CheckTokenScopes", denied()),
        call("/scopeward.v1.ScopePolicyService/checkauthorizescopes", denied()),
        call("/", denied()),
    ];
    for count in [30, 60] {
        let mut many = request();
        for _ in 0..count {
            many = many.with("x-many", "value");
        }
        requests.push(many);
    }
    let long = "v".repeat(1000);
    // More than a list of headers may have: HTTP/2 refuses it.
    requests.push((0..17).fold(request(), |request, _| request.with("x-long", &long)));
    let outcomes = check(&requests).await;
    assert!(answered(&outcomes) >= 17, "{} were answered", answered(&outcomes));
}

#[tokio::test]
async fn refusals_of_the_server_and_the_record_are_the_same() {
    let requests = [
        call(CHECK, denied()),
        call(CHECK, allowed()),
        call(EXPAND, framed(&registration(None))),
        call(
            BATCH,
            framed(&v1::BatchCheckAuthorizeScopesRequest { checks: vec![authorize(Some("x"), None); 3] }),
        ),
    ];
    let malformed = [call(CHECK, vec![0, 0, 0, 0, 1, 0x0F]), call(BATCH, vec![0, 0, 0, 0, 1, 0x0F])];
    check_with(Arc::<Events>::default, |_| {}, None, &[&requests[..], &malformed].concat()).await;
    check_with(|| Arc::new(Full), |_| {}, Some(POLICY), &requests).await;
    check_with(|| Arc::new(Failing), |_| {}, Some(POLICY), &requests).await;
    check_with(|| Arc::new(Panicking), |_| {}, Some(POLICY), &requests).await;
    let timed: Vec<_> = requests.iter().map(|request| request.clone().with("grpc-timeout", "60m")).collect();
    check_with(Arc::<Never>::default, |_| {}, Some(POLICY), &timed).await;
    let hurried = |config: &mut Config| config.limits.message_timeout = Duration::from_millis(20);
    let open: Vec<_> = requests
        .iter()
        .map(|request| {
            let cut = request.pieces[0][..7].to_vec();
            call(&request.path, cut).ending(End::Open)
        })
        .collect();
    check_with(Arc::<Events>::default, hurried, Some(POLICY), &open).await;
    for budget in [8, 8 * 30, 8 * 120, 8 * 400] {
        let little = |config: &mut Config| config.limits.max_bytes_in_flight = budget;
        check_with(Arc::<Events>::default, little, Some(POLICY), &requests).await;
    }
}

/// `DIRECT_QUESTIONS` asks more of them than the suite does.
#[tokio::test]
async fn random_questions_have_the_same_bytes() {
    let count = std::env::var("DIRECT_QUESTIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(400);
    let mut random = Random(0x5C0F_E0A2_D1FF_0001);
    let requests: Vec<_> =
        (0..count).map(|at| if at % 4 == 0 { random.damaged() } else { random.call() }).collect();
    let outcomes = check(&requests).await;
    assert!(answered(&outcomes) > count / 2, "{} of {count} were answered", answered(&outcomes));
}
