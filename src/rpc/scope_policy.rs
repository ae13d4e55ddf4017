//! `ScopePolicyService`: check limits, convert, decide, record, reply. Knows neither rules nor where policies come from.
//!
//! A handler takes one snapshot of the policy and uses it to the end, a batch too. All that borrows from it happens before
//! the first await; what an answer may wait for after that is its record.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use prost::Message;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status};

use crate::audience::MAX_AUDIENCE_BYTES;
use crate::audit::Appending;
use crate::budget::Budget;
use crate::call;
use crate::decision::authorize::AuthorizeQuestion;
use crate::decision::{Answer, check_limits};
use crate::policy::AudiencePolicy;
use crate::proto::borrowed::CheckRequestRef;
use crate::rpc::batch::BatchAnswer;
use crate::rpc::caller::CallOrigin;
use crate::rpc::convert;
use crate::rpc::count::{DecidingMethod, DecisionCounts};
use crate::rpc::deciding::{AskedTexts, DecidingQuestion as _, DecidingRequest};
use crate::rpc::decision_line::LoggedDecisions;
use crate::rpc::encode::{EncodedCheck, EncodedExpand, WireMessage as _};
use crate::rpc::error::{Overload, RpcError};
use crate::rpc::limits::{
    DEFAULT_PAGE_SIZE, MAX_ANSWER_BYTES, MAX_BATCH_ITEMS, MAX_LARGE_QUESTIONS, MAX_LOOKUPS,
    MAX_MESSAGE_BYTES, MAX_PAGE_BYTES, MAX_PAGE_SIZE,
};
use crate::rpc::page;
use crate::rpc::received::{Readable, Received};
use crate::rpc::record::{
    AnsweredCall, CallFacts, RecordKind, RecordWait, Recorder, Room, WaitAlone, not_durable,
};
use crate::rpc::shadow::Shadow;
use crate::rpc::v1;
use crate::rpc::v1::scope_policy_service_server::{ScopePolicyService, ScopePolicyServiceServer};
use crate::rpc::wire_id::WireId;
use crate::store::{Active, Current};

/// Answers from the policy that serves. Clones share everything.
#[derive(Clone, Debug)]
pub struct ScopePolicy {
    current: Current,
    recorder: Option<Arc<dyn Recorder>>,
    counts: DecisionCounts,
    logged: LoggedDecisions,
    large_questions: Budget,
    shadow: Option<Shadow>,
}

impl ScopePolicy {
    /// Answers from `current` and keeps no record.
    pub fn new(current: Current) -> Self {
        let large_questions = Budget::new(MAX_LARGE_QUESTIONS);
        Self {
            current,
            recorder: None,
            counts: DecisionCounts::default(),
            logged: LoggedDecisions::None,
            large_questions,
            shadow: None,
        }
    }

    /// Records expansions and denials with `recorder` before they are answered.
    #[must_use]
    pub fn with_recorder(mut self, recorder: Arc<dyn Recorder>) -> Self {
        self.recorder = Some(recorder);
        self
    }

    /// Counts answers in `counts`.
    #[must_use]
    pub fn with_counts(mut self, counts: DecisionCounts) -> Self {
        self.counts = counts;
        self
    }

    /// Logs these decisions.
    #[must_use]
    pub const fn with_logged(mut self, logged: LoggedDecisions) -> Self {
        self.logged = logged;
        self
    }

    /// Takes places for large questions from `budget`.
    #[must_use]
    pub fn with_large_questions(mut self, budget: &Budget) -> Self {
        self.large_questions = budget.clone();
        self
    }

    /// Offers what it decided to `shadow`, to be decided again.
    #[must_use]
    pub fn with_shadow(mut self, shadow: Option<Shadow>) -> Self {
        self.shadow = shadow;
        self
    }

    /// The service to serve.
    pub fn into_server(self) -> ScopePolicyServiceServer<Self> {
        ScopePolicyServiceServer::new(self)
    }

    /// Calls `answer` with the policy that serves, as the caller sees it.
    fn with_policy<T>(
        &self,
        origin: &CallOrigin,
        answer: impl FnOnce(&Arc<Active>) -> Result<T, RpcError>,
    ) -> Result<T, RpcError> {
        let current = self.current.load();
        let active = current.as_ref().ok_or(RpcError::NoPolicy)?;
        match origin.view(active) {
            None => answer(active),
            Some(view) => answer(&view),
        }
    }

    /// Calls `decide` off the serving threads: a question of more than [`MAX_LOOKUPS`] would hold up every other call of its
    /// thread. One that is cancelled before it begins never does, and leaves no record.
    async fn elsewhere<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&Self) -> Result<T, RpcError> + Send + 'static,
    ) -> Result<T, RpcError> {
        let overloaded = RpcError::Overloaded { cause: Overload::LargeQuestions };
        let place = self.large_questions.take(1).map_err(|_| overloaded)?;
        let service = self.clone();
        let deciding = tokio::task::spawn_blocking(move || {
            let answer = decide(&service);
            drop(place);
            answer
        });
        AbortOnDropHandle::new(deciding).await.unwrap_or(Err(RpcError::Internal))
    }

    /// Takes room for the record of a question of so many bytes before it is decided, so that no decision is made that cannot be
    /// recorded.
    fn reserve(&self, bytes: usize) -> Result<Room, RpcError> {
        let Some(recorder) = &self.recorder else {
            return Ok(Room::default());
        };
        recorder.reserve(bytes).map_err(|_| RpcError::AuditQueueFull)
    }

    /// Tells everybody of an answer who is told of each. Returns what the answer has to wait for, if it has to.
    fn decided<W: RecordWait>(&self, answered: AnsweredCall<'_>, room: Room, wait: &W) -> Option<W::Waiting> {
        self.counts.decided(answered.method, answered.answer);
        if let Some(notes) = &answered.call.origin.notes {
            notes.decided(&answered);
        }
        self.logged.log(&answered);
        let kind = RecordKind::of(answered.answer)?;
        let mut waiting = None;
        let mut reply = || {
            let (reply, expected) = wait.expect();
            waiting = Some(expected);
            reply
        };
        self.recorder.as_ref()?.record(kind, answered, room, &mut reply);
        waiting
    }

    /// Decides a request whose message has so many bytes. `near`: an audience that it may well name. `path` leads to the question inside of the message, for errors;
    /// `wait` is how the answer waits for its record; `respond` makes it into what is sent.
    fn decide<'q, R: DecidingRequest, W: RecordWait, T>(
        &self,
        (request, question): (&'q R, &R::Question<'q>),
        bytes: usize,
        (policy, near): (&'q Arc<Active>, Option<&'q AudiencePolicy>),
        (method, call, decision_id): (DecidingMethod, CallFacts<'_>, &WireId),
        path: impl FnOnce() -> String,
        (wait, respond): (&W, impl FnOnce(&Answer<'q>, &Active, &WireId) -> T),
    ) -> Result<Answered<T, W::Waiting>, RpcError> {
        let AskedTexts { audiences, client, scope, registered_scope, correlation_id } = request.asked();
        check_limits(audiences, correlation_id).map_err(|error| convert::limit_error(&error, &path()))?;
        let room = self.reserve(bytes)?;
        let answer = question.answer(&policy.set, near);
        if registered_scope.is_none() && method != DecidingMethod::Expand {
            self.counts.unknown_registration(client.and_then(|client| call::facts(client).source));
        }
        if let Some(shadow) = &self.shadow {
            shadow.offer(|| request.to_shadow(), bytes, method, policy, known(call), decision_id.uuid());
        }
        let answered = AnsweredCall {
            method,
            asked_audiences: audiences,
            client,
            requested_scope: scope,
            registered_scope,
            correlation_id,
            answer: &answer,
            policy,
            decision_id,
            call,
        };
        let waiting = self.decided(answered, room, wait);
        Ok(Answered { response: respond(&answer, policy, decision_id), waiting })
    }

    /// Decides a check of a batch.
    fn decide_item<'q, T>(
        &self,
        at: usize,
        (check, question): (&'q CheckRequestRef<'_>, &AuthorizeQuestion<'q>),
        bytes: usize,
        policy: (&'q Arc<Active>, Option<&'q AudiencePolicy>),
        of: (DecidingMethod, CallFacts<'_>, &WireId),
        respond: impl FnOnce(&Answer<'q>, &Active, &WireId) -> T,
    ) -> Result<Answered<T, Appending>, RpcError> {
        // Unknown fields, which are not among these bytes, cost an item nothing.
        if bytes > MAX_MESSAGE_BYTES {
            let (field, limit) = (format!("checks[{at}]"), MAX_MESSAGE_BYTES);
            return Err(RpcError::OverLimit { field, unit: "bytes", limit, actual: bytes });
        }
        let path = || format!("checks[{at}].");
        self.decide((check, question), bytes, policy, of, path, (&WaitAlone, respond))
    }
}

/// The calls that decide, as the generated service and [`ScopePolicy::answer`] take them.
impl ScopePolicy {
    /// Answers a call from the bytes of its message, as the generated service would: the one message of an answer, with its length
    /// prefix. `wait` is how it waits for its record, unless it is decided elsewhere or a batch.
    pub fn answer<'c, W: RecordWait>(
        &'c self,
        method: DecidingMethod,
        head: &'c CallHead,
        message: Bytes,
        wait: &W,
    ) -> Answering<'c, Bytes, W::Waiting> {
        match method {
            DecidingMethod::Expand => {
                let received = Received::<v1::ExpandRegistrationScopesRequest>::from(message);
                self.call(method, head, received, wait, |answer, policy, decision_id| {
                    EncodedExpand::new(answer, policy, decision_id).framed()
                })
            }
            DecidingMethod::Check => {
                let received = Received::<v1::CheckAuthorizeScopesRequest>::from(message);
                self.call(method, head, received, wait, |answer, policy, decision_id| {
                    EncodedCheck::new(answer, policy, decision_id).framed()
                })
            }
            DecidingMethod::BatchCheck => Answering::Waiting(Box::pin(async move {
                Ok(self.batch_call(head, message.into()).await?.into_framed())
            })),
        }
    }

    /// Answers a call of one question. `respond` makes the answer into what is sent.
    fn call<'c, M, W, T>(
        &'c self,
        method: DecidingMethod,
        head: &'c CallHead,
        received: Received<M>,
        wait: &W,
        respond: impl Fn(&Answer<'_>, &Active, &WireId) -> T + Copy + Send + 'static,
    ) -> Answering<'c, T, W::Waiting>
    where
        M: Readable + 'static,
        W: RecordWait,
        for<'r> M::Borrowed<'r>: DecidingRequest,
        T: Send + 'static,
    {
        let answered = received.read().and_then(|(request, bytes)| {
            self.with_policy(&head.origin, |policy| {
                let question = request.question();
                if question.lookups(&policy.set) > MAX_LOOKUPS {
                    return Ok(None);
                }
                let of = (method, head.call(), &WireId::now());
                let asked = (&request, &question);
                self.decide(asked, bytes, (policy, None), of, String::new, (wait, respond)).map(Some)
            })
        });
        match answered {
            Ok(Some(Answered { response, waiting: None })) => Answering::Done(Ok(response)),
            Ok(Some(Answered { response, waiting: Some(waiting) })) => {
                Answering::Recording(response, waiting)
            }
            Ok(None) => Answering::Waiting(Box::pin(async move {
                let head = head.clone();
                let decide = move |service: &Self| {
                    let (request, bytes) = received.read()?;
                    service.with_policy(&head.origin, |policy| {
                        let (asked, of) =
                            ((&request, &request.question()), (method, head.call(), &WireId::now()));
                        service.decide(asked, bytes, (policy, None), of, String::new, (&WaitAlone, respond))
                    })
                };
                self.elsewhere(decide).await?.wait().await
            })),
            Err(error) => Answering::Done(Err(error)),
        }
    }

    async fn batch_call(
        &self,
        head: &CallHead,
        received: Received<v1::BatchCheckAuthorizeScopesRequest>,
    ) -> Result<BatchAnswer, RpcError> {
        let (checks, bytes) = received.read()?;
        if checks.len() > MAX_BATCH_ITEMS {
            let (field, actual) = ("checks".to_owned(), checks.len());
            return Err(RpcError::OverLimit { field, unit: "checks", limit: MAX_BATCH_ITEMS, actual });
        }
        // One policy from start to end.
        let policy = self.current.load_full().ok_or(RpcError::NoPolicy)?;
        let policy = head.origin.view(&policy).unwrap_or(policy);
        let mut batch = BatchAnswer::of(checks.len(), bytes);
        // All are decided, and handed to the recorder, before the first is waited for: they share its next write.
        let mut records = Vec::new();
        let mut left = MAX_LOOKUPS;
        let mut decision_id = WireId::now();
        // Neighbours often name the same audience.
        let mut near = None;
        for (at, (check, bytes)) in checks.iter().enumerate() {
            decision_id = decision_id.following();
            let question = check.question();
            let lookups = question.lookups(&policy.set);
            let answered = if lookups > MAX_LOOKUPS {
                let (head, policy, bytes) = (head.clone(), Arc::clone(&policy), *bytes);
                let check = check.to_message();
                let decide = move |service: &Self| {
                    let check = CheckRequestRef::of(&check);
                    let asked = (&check, &check.question());
                    let of = (DecidingMethod::BatchCheck, head.call(), &decision_id);
                    service.decide_item(at, asked, bytes, (&policy, None), of, convert::check_response)
                };
                self.elsewhere(decide).await.map(|Answered { response, waiting }| {
                    batch.push_response(response);
                    waiting
                })
            } else {
                if lookups > left {
                    // Other calls have their turn: a batch must not hold a thread for as long as it takes.
                    left = MAX_LOOKUPS;
                    tokio::task::yield_now().await;
                }
                left -= lookups;
                let asked = (check, &question);
                let of = (DecidingMethod::BatchCheck, head.call(), &decision_id);
                let answered = self.decide_item(
                    at,
                    asked,
                    *bytes,
                    (&policy, near),
                    of,
                    |answer, policy, decision_id| {
                        batch.push(EncodedCheck::new(answer, policy, decision_id).into_item());
                        answer.audiences.first().copied()
                    },
                );
                answered.map(|Answered { response: audience, waiting }| {
                    near = audience;
                    waiting
                })
            };
            match answered {
                Ok(waiting) => records.extend(waiting.map(|waiting| (at, waiting))),
                Err(error) => batch.push_error(&error),
            }
        }
        let mut failed = Vec::new();
        for (at, waiting) in records {
            if let Err(error) = waiting.await {
                not_durable(&error);
                failed.push(at);
            }
        }
        batch.fail(&failed, &RpcError::AuditNotDurable);
        Ok(batch)
    }
}

#[tonic::async_trait]
impl ScopePolicyService for ScopePolicy {
    async fn expand_registration_scopes(
        &self,
        request: Request<v1::ExpandRegistrationScopesRequest>,
    ) -> Result<Response<v1::ExpandRegistrationScopesResponse>, Status> {
        let (head, request) = CallHead::of(request);
        Ok(Response::new(
            self.call(DecidingMethod::Expand, &head, request.into(), &WaitAlone, convert::expand_response)
                .wait()
                .await?,
        ))
    }

    async fn check_authorize_scopes(
        &self,
        request: Request<v1::CheckAuthorizeScopesRequest>,
    ) -> Result<Response<v1::CheckAuthorizeScopesResponse>, Status> {
        let (head, request) = CallHead::of(request);
        Ok(Response::new(
            self.call(DecidingMethod::Check, &head, request.into(), &WaitAlone, convert::check_response)
                .wait()
                .await?,
        ))
    }

    async fn batch_check_authorize_scopes(
        &self,
        request: Request<v1::BatchCheckAuthorizeScopesRequest>,
    ) -> Result<Response<v1::BatchCheckAuthorizeScopesResponse>, Status> {
        let (head, request) = CallHead::of(request);
        Ok(Response::new(self.batch_call(&head, request.into()).await?.into_response()?))
    }

    async fn describe_audience(
        &self,
        request: Request<v1::DescribeAudienceRequest>,
    ) -> Result<Response<v1::DescribeAudienceResponse>, Status> {
        let (head, request) = CallHead::of(request);
        let describe = |policy: &Arc<Active>| {
            let (audiences, next_page_token) =
                if request.audience.is_empty() { page_of(policy, &request)? } else { one(policy, &request)? };
            let policy = Some(convert::policy_version(policy));
            let response = v1::DescribeAudienceResponse { audiences, next_page_token, policy };
            if response.encoded_len() > MAX_ANSWER_BYTES {
                return Err(RpcError::AnswerTooLarge { limit: MAX_ANSWER_BYTES });
            }
            Ok(response)
        };
        Ok(Response::new(self.with_policy(&head.origin, describe)?))
    }
}

/// What came with a message.
#[derive(Clone, Debug, Default)]
pub struct CallHead {
    /// The headers.
    pub headers: HeaderMap,
    /// Where the call comes from.
    pub origin: CallOrigin,
}

impl CallHead {
    fn of<T>(request: Request<T>) -> (Self, T) {
        let (metadata, mut extensions, message) = request.into_parts();
        let origin = CallOrigin::take(&mut extensions);
        (Self { headers: metadata.into_headers(), origin }, message)
    }

    fn call(&self) -> CallFacts<'_> {
        let Self { headers, origin } = self;
        CallFacts { headers, origin }
    }
}

/// An answer: most are there at once.
pub enum Answering<'c, T, W> {
    /// It is there, or why there is none.
    Done(Result<T, RpcError>),
    /// It is there, and may leave once its record is durable.
    Recording(T, W),
    /// It waits for the answers and records of a batch, or for a thread that decides large questions.
    Waiting(Pin<Box<dyn Future<Output = Result<T, RpcError>> + Send + 'c>>),
}

impl<T> Answering<'_, T, Appending> {
    async fn wait(self) -> Result<T, RpcError> {
        match self {
            Self::Done(answer) => answer,
            Self::Recording(response, waiting) => Answered { response, waiting: Some(waiting) }.wait().await,
            Self::Waiting(answer) => answer.await,
        }
    }
}

/// A response, and what it has to wait for.
struct Answered<T, W> {
    response: T,
    waiting: Option<W>,
}

impl<T> Answered<T, Appending> {
    /// The response once its record is durable. How long that may take is up to the deadline of the call.
    async fn wait(self) -> Result<T, RpcError> {
        let Self { response, waiting } = self;
        if let Some(waiting) = waiting {
            waiting.await.map_err(|error| not_durable(&error))?;
        }
        Ok(response)
    }
}

type Descriptions = (Vec<v1::AudienceDescription>, String);

/// The audiences that the caller knows, if not all.
fn known(call: CallFacts<'_>) -> Option<Arc<[Box<str>]>> {
    call.origin.known_audiences().cloned()
}

fn one(policy: &Active, request: &v1::DescribeAudienceRequest) -> Result<Descriptions, RpcError> {
    let name = &request.audience;
    if name.len() > MAX_AUDIENCE_BYTES {
        let (field, actual) = ("audience".to_owned(), name.len());
        return Err(RpcError::OverLimit { field, unit: "bytes", limit: MAX_AUDIENCE_BYTES, actual });
    }
    // What cannot name an audience names none of this policy.
    let found = policy.set.audience(name).ok().flatten();
    let audience = found.ok_or_else(|| RpcError::AudienceNotFound { audience: name.clone() })?;
    Ok((vec![convert::audience_description(audience)], String::new()))
}

fn page_of(policy: &Active, request: &v1::DescribeAudienceRequest) -> Result<Descriptions, RpcError> {
    let size = match usize::try_from(request.page_size) {
        Err(_) => return Err(RpcError::InvalidPageSize { actual: request.page_size }),
        Ok(0) => DEFAULT_PAGE_SIZE,
        Ok(size) => size.min(MAX_PAGE_SIZE),
    };
    let all = policy.set.audiences();
    let start = if request.page_token.is_empty() {
        0
    } else {
        let last = page::last_of(&request.page_token).ok_or(RpcError::InvalidPageToken)?;
        all.partition_point(|audience| audience.normal() <= last.as_str())
    };
    let rest = all.get(start..).unwrap_or_default();
    let mut descriptions = Vec::with_capacity(size.min(rest.len()));
    let mut bytes = 0;
    for audience in rest.iter().take(size) {
        let description = convert::audience_description(audience);
        bytes += description.encoded_len();
        // One that is too long for a page has one to itself, or there would be no way past it.
        if bytes > MAX_PAGE_BYTES && !descriptions.is_empty() {
            break;
        }
        descriptions.push(description);
    }
    let is_last_page = descriptions.len() == rest.len();
    let last = descriptions.len().checked_sub(1).and_then(|at| rest.get(at)).filter(|_| !is_last_page);
    Ok((descriptions, last.map(|last| page::token_after(last.normal())).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::pin::pin;
    use std::sync::Mutex;
    use std::task::Poll;
    use std::thread::{self, ThreadId};

    use super::*;
    use crate::audit::AppendReply;
    use crate::rpc::record::NoRoom;

    /// Remembers where answers were recorded.
    #[derive(Debug, Default)]
    struct Threads(Mutex<Vec<ThreadId>>);

    impl Recorder for Threads {
        fn reserve(&self, _: usize) -> Result<Room, NoRoom> {
            Ok(Room::default())
        }

        fn record(&self, _: RecordKind, _: AnsweredCall<'_>, _: Room, _: &mut dyn FnMut() -> AppendReply) {
            self.0.lock().expect("no panic").push(thread::current().id());
        }
    }

    impl Threads {
        /// Whether each answer since the last time was decided on this thread.
        fn were_here(&self) -> Vec<bool> {
            let here = thread::current().id();
            self.0.lock().expect("no panic").drain(..).map(|thread| thread == here).collect()
        }
    }

    fn service() -> (ScopePolicy, Arc<Threads>) {
        let file: Arc<str> = "policy.yaml".into();
        let text = "audiences: {one: {scopesSupported: [a], scopeMatching: hierarchic}}";
        let document = crate::policy::document::Document::read(&file, text);
        let set = crate::policy::check::check(&file, &[document]).expect("a valid policy").set;
        let current = Current::default();
        let load_time = std::time::SystemTime::now();
        current.store(Some(Arc::new(Active { set, generation: 1, load_time })));
        let threads = Arc::<Threads>::default();
        (ScopePolicy::new(current).with_recorder(Arc::clone(&threads) as Arc<dyn Recorder>), threads)
    }

    /// Denied, with as many registered scopes.
    fn check_of(registered: usize) -> v1::CheckAuthorizeScopesRequest {
        let registered: Vec<_> = (0..registered).map(|number| format!("s{number}")).collect();
        v1::CheckAuthorizeScopesRequest {
            audiences: vec!["one".to_owned(); 16],
            scope: Some("x".to_owned()),
            registered_scope: Some(registered.join(" ")),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn large_question_is_decided_off_the_serving_thread() {
        let (service, threads) = service();
        for (registered, here) in [(10, true), (300, true), (20_000, false)] {
            service.check_authorize_scopes(Request::new(check_of(registered))).await.expect("an answer");
            assert_eq!(threads.were_here(), [here], "{registered} scopes");
            let request = v1::ExpandRegistrationScopesRequest {
                audiences: vec!["one".to_owned(); 16],
                previous_scope: check_of(registered).registered_scope,
                ..Default::default()
            };
            service.expand_registration_scopes(Request::new(request)).await.expect("an answer");
            assert_eq!(threads.were_here(), [here], "{registered} scopes");
        }
        let checks = vec![check_of(10), check_of(20_000), check_of(10)];
        let batch = Request::new(v1::BatchCheckAuthorizeScopesRequest { checks });
        service.batch_check_authorize_scopes(batch).await.expect("an answer");
        assert_eq!(threads.were_here(), [true, false, true]);
    }

    #[tokio::test]
    async fn large_question_without_a_place_is_refused_and_small_ones_are_not() {
        let (service, threads) = service();
        let budget = Budget::new(1);
        let service = service.with_large_questions(&budget);
        let place = budget.take(1).expect("a place");
        let refused = service.check_authorize_scopes(Request::new(check_of(20_000))).await.expect_err("full");
        assert_eq!(refused.code(), tonic::Code::Unavailable);
        assert!(refused.message().contains("too many large questions"), "{refused}");
        let checks = vec![check_of(10), check_of(20_000), check_of(10)];
        let batch = Request::new(v1::BatchCheckAuthorizeScopesRequest { checks });
        let answer = service.batch_check_authorize_scopes(batch).await.expect("an answer").into_inner();
        let errors: Vec<_> = answer
            .results
            .into_iter()
            .map(|result| match result.result.expect("a result") {
                v1::batch_check_result::Result::Response(_) => String::new(),
                v1::batch_check_result::Result::Error(error) => error.reason,
            })
            .collect();
        assert_eq!(errors, ["", "TOO_MANY_LARGE_QUESTIONS", ""]);
        assert_eq!(threads.were_here(), [true, true], "what was refused was not decided");
        drop(place);
        service.check_authorize_scopes(Request::new(check_of(20_000))).await.expect("an answer");
        assert_eq!(budget.used(), 0, "the place is free again");
    }

    #[test]
    fn large_question_that_is_cancelled_before_its_turn_leaves_no_record() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build();
        runtime.expect("a runtime").block_on(async {
            let (service, threads) = service();
            let budget = Budget::new(1);
            let service = service.with_large_questions(&budget);
            let (release, released) = std::sync::mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || released.recv());
            let mut call = Box::pin(service.check_authorize_scopes(Request::new(check_of(20_000))));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(call.as_mut().poll(&mut context).is_pending(), "it waits for a thread");
            drop(call);
            release.send(()).expect("the thread waits");
            busy.await.expect("no panic").expect("released");
            // The thread takes what comes in order: by now it would have decided.
            tokio::task::spawn_blocking(|| ()).await.expect("no panic");
            assert!(threads.were_here().is_empty(), "nothing was decided");
            assert_eq!(budget.used(), 0, "the place is free again");
        });
    }

    /// How often a batch of these checks lets others have their turn.
    async fn turns(checks: Vec<v1::CheckAuthorizeScopesRequest>) -> usize {
        let (service, _) = service();
        let count = checks.len();
        let request = Request::new(v1::BatchCheckAuthorizeScopesRequest { checks });
        let mut batch = pin!(service.batch_check_authorize_scopes(request));
        let mut turns = 0;
        let answer = poll_fn(|cx| match batch.as_mut().poll(cx) {
            Poll::Pending => {
                turns += 1;
                Poll::Pending
            }
            ready => ready,
        });
        assert_eq!(answer.await.expect("an answer").into_inner().results.len(), count);
        turns
    }

    #[tokio::test]
    async fn large_batch_lets_others_have_their_turn_after_each_item() {
        let scopes: Vec<_> = (0..100).map(|number| format!("scope.{number}")).collect();
        let check = v1::CheckAuthorizeScopesRequest {
            audiences: vec!["one".to_owned(); 16],
            scope: Some(scopes.join(" ")),
            registered_scope: Some(scopes.join(" ")),
            ..Default::default()
        };
        assert_eq!(turns(vec![check; 100]).await, 99);
    }

    #[tokio::test]
    async fn small_batch_is_decided_at_a_stretch() {
        let check = v1::CheckAuthorizeScopesRequest { scope: Some("a".to_owned()), ..Default::default() };
        assert_eq!(turns(vec![check; 100]).await, 0);
    }
}
