//! `PolicyStatusService`: shows the status on the wire, and converts it for everything else that shows it.
//!
//! A status is converted and encoded once, not once for each call and watcher: all responses hold the same bytes, so a
//! watcher that stalls costs next to nothing.

use std::borrow::Cow;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, stream};
use http::{Extensions, HeaderMap, HeaderValue, Request as HttpRequest, Response as HttpResponse};
use http_body::Frame;
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tower::Service;

use super::caller::CallOrigin;
use super::v1;
use super::v1::policy_status_service_server::PolicyStatusServiceServer;
use crate::audience::normalise;
use crate::policy::finding::Finding;
use crate::proto::json;
use crate::rpc::error::RpcError;
use crate::rpc::shadow::Shadow;
use crate::status::{AudienceStatus, Condition, LastAttempt, Snapshot, StatusTracker};

/// How often a watcher is sent the state although nothing changed.
pub const REPEAT_INTERVAL: Duration = Duration::from_secs(30);

/// The most bytes of one list in a status: two of them stay well under the 4 MiB that clients take by default.
pub const MAX_LIST_BYTES: usize = 1 << 20;

/// The newest status as a message. Clones share it.
#[derive(Clone, Debug)]
pub struct StatusMessages {
    tracker: Arc<StatusTracker>,
    newest: Arc<Mutex<Option<Arc<Rendered>>>>,
}

/// One status, converted.
#[derive(Debug)]
pub struct Rendered {
    snapshot: Arc<Snapshot>,
    message: v1::PolicyStatus,
    frame: OnceLock<Bytes>,
    json: OnceLock<Option<Bytes>>,
}

impl StatusMessages {
    /// The messages for what `tracker` shows.
    #[must_use]
    pub fn new(tracker: Arc<StatusTracker>) -> Self {
        Self { tracker, newest: Arc::default() }
    }

    /// What the messages are made of.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.tracker.snapshot()
    }

    /// The status now. Converted by the first that asks after a change.
    #[must_use]
    pub fn newest(&self) -> Arc<Rendered> {
        let snapshot = self.tracker.snapshot();
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*newest {
            Some(rendered) if Arc::ptr_eq(&rendered.snapshot, &snapshot) => Arc::clone(rendered),
            _ => {
                let message = convert(&snapshot);
                let rendered =
                    Arc::new(Rendered { snapshot, message, frame: OnceLock::new(), json: OnceLock::new() });
                *newest = Some(Arc::clone(&rendered));
                rendered
            }
        }
    }

    /// What a caller gets: the newest status, or its part of it if it knows certain audiences only.
    fn frame_for(&self, known: Option<&[Box<str>]>) -> Bytes {
        let Some(known) = known else { return self.newest().frame() };
        let mut message = convert(&self.tracker.snapshot_of(known));
        // Of the whole: they may speak of any audience.
        for condition in &mut message.conditions {
            condition.message = "not shown to callers that know certain audiences only".to_owned();
        }
        Rendered::frame_of(&message)
    }
}

impl Rendered {
    /// The message.
    #[must_use]
    pub const fn message(&self) -> &v1::PolicyStatus {
        &self.message
    }

    /// The message as JSON for people. `None` if it could not be printed; why is in the log.
    #[must_use]
    pub fn json(&self) -> Option<Bytes> {
        let make = || match json::to_string_pretty(&self.message) {
            Ok(text) => Some(text.into()),
            Err(error) => {
                tracing::error!(%error, "status could not be printed as JSON");
                None
            }
        };
        self.json.get_or_init(make).clone()
    }

    /// The message as gRPC sends it in either response, which have the same shape: length and bytes, not compressed.
    fn frame(&self) -> Bytes {
        self.frame.get_or_init(|| Self::frame_of(&self.message)).clone()
    }

    fn frame_of(message: &v1::PolicyStatus) -> Bytes {
        // `status` is field 1 of both responses.
        let length = message.encoded_len();
        let mut field = BytesMut::with_capacity(length + 16);
        prost::encoding::message::encode(1, message, &mut field);
        let mut frame = BytesMut::with_capacity(field.len() + 5);
        frame.put_u8(0);
        frame.put_u32(u32::try_from(field.len()).unwrap_or(u32::MAX));
        frame.put(field);
        frame.freeze()
    }
}

/// Serves the status.
#[derive(Clone, Debug)]
pub struct PolicyStatus {
    messages: StatusMessages,
    draining: CancellationToken,
    repeat: Duration,
    shadow: Option<Shadow>,
}

impl PolicyStatus {
    /// Serves `messages`; streams end when `draining` is cancelled.
    #[must_use]
    pub const fn new(messages: StatusMessages, draining: CancellationToken) -> Self {
        Self { messages, draining, repeat: REPEAT_INTERVAL, shadow: None }
    }

    /// Reports what came of `shadow`.
    #[must_use]
    pub fn with_shadow(mut self, shadow: Option<Shadow>) -> Self {
        self.shadow = shadow;
        self
    }

    /// Repeats the state to watchers at another interval than [`REPEAT_INTERVAL`].
    #[must_use]
    pub const fn with_repeat(mut self, repeat: Duration) -> Self {
        self.repeat = repeat;
        self
    }

    /// The service to serve.
    #[must_use]
    pub fn into_server(self) -> SharedBodies<PolicyStatusServiceServer<Self>> {
        SharedBodies(PolicyStatusServiceServer::new(self))
    }

    /// The frames for one watcher: the state now, each that follows, and the same again now and then. Nothing is made before it
    /// is asked for, so a slow watcher gets the newest state when it is ready for one, and nothing piles up.
    fn frames(&self, known: Option<Arc<[Box<str>]>>) -> impl Stream<Item = Bytes> + Send + use<> {
        let Self { messages, draining, repeat, shadow: _ } = self.clone();
        let changes = messages.tracker.watch();
        stream::unfold((changes, true), move |(mut changes, is_first)| {
            let (messages, draining, known) = (messages.clone(), draining.clone(), known.clone());
            async move {
                if !is_first {
                    tokio::select! {
                        changed = changes.changed() => changed.ok()?,
                        () = tokio::time::sleep(repeat) => {}
                        () = draining.cancelled() => return None,
                    }
                }
                changes.mark_unchanged();
                Some((messages.frame_for(known.as_deref()), (changes, false)))
            }
        })
    }
}

type NoStates = stream::Empty<Result<v1::WatchPolicyStatusResponse, Status>>;

#[tonic::async_trait]
impl v1::policy_status_service_server::PolicyStatusService for PolicyStatus {
    async fn get_policy_status(
        &self,
        request: Request<v1::GetPolicyStatusRequest>,
    ) -> Result<Response<v1::GetPolicyStatusResponse>, Status> {
        let mut response = Response::new(v1::GetPolicyStatusResponse::default());
        let frame = self.messages.frame_for(known(request.extensions()).as_deref());
        response.extensions_mut().insert(SharedBody::new(stream::iter([frame])));
        Ok(response)
    }

    type WatchPolicyStatusStream = NoStates;

    async fn watch_policy_status(
        &self,
        request: Request<v1::WatchPolicyStatusRequest>,
    ) -> Result<Response<NoStates>, Status> {
        let mut response = Response::new(stream::empty());
        response.extensions_mut().insert(SharedBody::new(self.frames(known(request.extensions()))));
        Ok(response)
    }

    async fn get_shadow_report(
        &self,
        request: Request<v1::GetShadowReportRequest>,
    ) -> Result<Response<v1::GetShadowReportResponse>, Status> {
        let shadow = self.shadow.as_ref().ok_or(RpcError::NoShadow)?;
        let most = match request.get_ref().max_differences {
            0 => DEFAULT_DIFFERENCES,
            most => usize::try_from(most).unwrap_or(usize::MAX),
        };
        let serving = self.messages.snapshot().serving.as_ref().map(|serving| v1::PolicyVersion {
            generation: serving.generation,
            digest: serving.digest.clone(),
        });
        let mut report = v1::GetShadowReportResponse { serving, ..shadow.report(most) };
        if let Some(known) = known(request.extensions()) {
            limit_to(&mut report, &known);
        }
        Ok(Response::new(report))
    }
}

/// Leaves what a caller may see that knows certain audiences alone: counts, and differences of questions that named
/// those. The state of the shadow policy tells of all audiences.
fn limit_to(report: &mut v1::GetShadowReportResponse, known: &[Box<str>]) {
    let normal = |name: &str| normalise(name).map_or_else(|_| name.to_owned(), Cow::into_owned);
    let known: Vec<String> = known.iter().map(|name| normal(name)).collect();
    report.shadow = None;
    report.differences.retain(|one| {
        !one.audiences.is_empty() && one.audiences.iter().all(|name| known.contains(&normal(name)))
    });
}

/// The audiences that the caller knows, if not all.
fn known(extensions: &Extensions) -> Option<Arc<[Box<str>]>> {
    extensions.get::<CallOrigin>()?.known_audiences().cloned()
}

/// The body that a handler gives instead of a message, in the extensions of its response.
#[derive(Clone)]
struct SharedBody(Arc<Mutex<Option<Frames>>>);

impl SharedBody {
    fn new(frames: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Frames { frames: Box::pin(frames), is_over: false }))))
    }
}

/// A body of encoded messages, with the trailers of a call that succeeded.
struct Frames {
    frames: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
    is_over: bool,
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let frame = ready!(self.frames.as_mut().poll_next(context)).map(Frame::data);
        Poll::Ready(Some(Ok(frame.unwrap_or_else(|| {
            self.is_over = true;
            Frame::trailers(HeaderMap::from_iter([(
                Status::GRPC_STATUS.clone(),
                HeaderValue::from_static("0"),
            )]))
        }))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}

/// In the extensions of a response: its bytes are shared with other responses, so that it holds next to none of its own.
#[derive(Clone, Copy, Debug)]
pub struct SharedBytes;

/// A generated service whose handlers may answer with bytes that are shared.
#[derive(Clone, Debug)]
pub struct SharedBodies<S>(S);

impl<S: NamedService> NamedService for SharedBodies<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<HttpRequest<Body>> for SharedBodies<S>
where
    S: Service<HttpRequest<Body>, Response = HttpResponse<Body>>,
    S::Future: Send + 'static,
{
    type Response = HttpResponse<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let answered = self.0.call(request);
        Box::pin(async move {
            let mut response = answered.await?;
            let shared = response.extensions_mut().remove::<SharedBody>();
            let frames = shared
                .and_then(|SharedBody(frames)| frames.lock().unwrap_or_else(PoisonError::into_inner).take());
            Ok(match frames {
                Some(frames) => {
                    response.extensions_mut().insert(SharedBytes);
                    response.map(|_| Body::new(frames))
                }
                None => response,
            })
        })
    }
}

/// Differences of a shadow report if the request does not say.
const DEFAULT_DIFFERENCES: usize = 100;

/// A status as a message: the same for gRPC, `/status.json` and the command line.
#[must_use]
pub fn convert(snapshot: &Snapshot) -> v1::PolicyStatus {
    let Snapshot { serving, source, last_attempt, conditions, audience_statuses, audience_status_count } =
        snapshot;
    v1::PolicyStatus {
        active: serving.as_ref().map(|serving| v1::PolicyVersion {
            generation: serving.generation,
            digest: serving.digest.clone(),
        }),
        load_time: serving.as_ref().map(|serving| timestamp(serving.load_time)),
        source: source.to_string(),
        audience_count: serving.as_ref().map_or(0, |serving| count(serving.audiences.len())),
        last_attempt: last_attempt.as_ref().map(attempt),
        conditions: conditions.iter().map(condition).collect(),
        audience_statuses: within_bytes(audience_statuses.iter().map(audience_status)),
        audience_status_count: count(*audience_status_count),
    }
}

fn attempt(attempt: &LastAttempt) -> v1::PolicyAttempt {
    v1::PolicyAttempt {
        attempt_time: Some(timestamp(attempt.attempt_time)),
        accepted: attempt.accepted,
        digest: attempt.digest.clone(),
        findings: within_bytes(attempt.findings.iter().map(finding)),
        finding_count: count(attempt.finding_count),
    }
}

/// As many messages as fit into [`MAX_LIST_BYTES`]; the counts next to a list say how many there are.
fn within_bytes<M: prost::Message>(messages: impl Iterator<Item = M>) -> Vec<M> {
    let mut bytes = 0;
    messages
        .take_while(|message| {
            bytes += message.encoded_len();
            bytes <= MAX_LIST_BYTES
        })
        .collect()
}

/// A finding as a message.
#[must_use]
pub fn finding(finding: &Finding) -> v1::Finding {
    v1::Finding {
        file: finding.file.to_string(),
        line: finding.position.line,
        column: finding.position.column,
        code: finding.code.as_str().to_owned(),
        severity: finding.severity().as_str().to_owned(),
        audience: finding.audience.clone(),
        value: finding.value.clone(),
        message: finding.message.clone(),
        suggestion: finding.suggestion.clone(),
    }
}

fn audience_status(status: &AudienceStatus) -> v1::AudienceStatus {
    v1::AudienceStatus {
        audience: status.audience.clone(),
        conditions: status.conditions.iter().map(condition).collect(),
    }
}

fn condition(condition: &Condition) -> v1::Condition {
    v1::Condition {
        r#type: condition.kind.to_owned(),
        status: condition.status.as_str().to_owned(),
        reason: condition.reason.to_owned(),
        message: condition.message.clone(),
        observed_generation: i64::try_from(condition.observed_generation).unwrap_or(i64::MAX),
        last_transition_time: Some(timestamp(condition.last_transition_time)),
    }
}

fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    time.into()
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_of_certain_audiences_sees_differences_of_those_alone() {
        let of = |audiences: &[&str]| v1::ShadowDifference {
            audiences: audiences.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        let mut report = v1::GetShadowReportResponse {
            shadow: Some(v1::PolicyStatus::default()),
            compared_count: 4,
            differences: vec![
                of(&["HTTPS://one.example:443/"]),
                of(&["https://two.example"]),
                of(&["https://one.example", "https://two.example"]),
                of(&[]),
            ],
            ..Default::default()
        };
        limit_to(&mut report, &["https://one.example".into()]);
        assert_eq!(report.differences, [of(&["HTTPS://one.example:443/"])]);
        assert_eq!((report.shadow, report.compared_count), (None, 4));
    }

    #[test]
    fn a_list_of_long_names_stays_within_what_clients_take() {
        let status = |count: usize| {
            let long = v1::AudienceStatus { audience: "a".repeat(2000), conditions: Vec::new() };
            within_bytes(std::iter::repeat_n(long, count))
        };
        assert_eq!(status(100).len(), 100);
        assert_eq!(status(1000).len(), MAX_LIST_BYTES / 2003);
    }

    fn messages() -> (Arc<StatusTracker>, StatusMessages) {
        let tracker = Arc::new(StatusTracker::new("policies".into(), false, SystemTime::UNIX_EPOCH));
        (Arc::clone(&tracker), StatusMessages::new(tracker))
    }

    #[test]
    fn a_status_is_converted_and_encoded_once_for_all() {
        let (tracker, messages) = messages();
        let (one, other) = (messages.newest(), messages.clone().newest());
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(one.frame().as_ptr(), other.frame().as_ptr(), "the same bytes");
        let mut frame = one.frame();
        let header = frame.split_to(5);
        assert_eq!(header[0], 0);
        assert_eq!(u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize, frame.len());
        let decoded = v1::GetPolicyStatusResponse::decode(frame).unwrap();
        assert_eq!(decoded.status.as_ref(), Some(one.message()));
        tracker.drain(SystemTime::UNIX_EPOCH);
        assert!(!Arc::ptr_eq(&one, &messages.newest()), "another state is another message");
    }

    #[tokio::test]
    async fn watchers_share_the_bytes_and_make_none_before_they_are_asked() {
        use futures_util::StreamExt as _;
        let (tracker, messages) = messages();
        let service = PolicyStatus::new(messages.clone(), CancellationToken::new());
        let mut watchers: Vec<_> = (0..100).map(|_| Box::pin(service.frames(None))).collect();
        assert!(messages.newest.lock().unwrap().is_none(), "nobody asked yet");
        let mut addresses = std::collections::HashSet::new();
        for watcher in &mut watchers {
            addresses.insert(watcher.next().await.unwrap().as_ptr() as usize);
        }
        assert_eq!(addresses.len(), 1);
        tracker.drain(SystemTime::UNIX_EPOCH);
        let next = watchers[0].next().await.unwrap();
        assert_eq!(next.as_ptr(), messages.newest().frame().as_ptr());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watcher_is_sent_the_same_again_and_ends_with_the_drain() {
        use futures_util::StreamExt as _;
        let (_board, messages) = messages();
        let draining = CancellationToken::new();
        let service = PolicyStatus::new(messages, draining.clone()).with_repeat(Duration::from_secs(30));
        let mut watcher = Box::pin(service.frames(None));
        let first = watcher.next().await.unwrap();
        assert_eq!(watcher.next().await.unwrap().as_ptr(), first.as_ptr());
        draining.cancel();
        assert!(watcher.next().await.is_none());
    }
}
