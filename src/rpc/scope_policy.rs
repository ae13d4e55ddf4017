//! `ScopePolicyService`: check limits, convert, decide, record, reply. Knows neither rules nor where policies come from.
//!
//! A handler takes one snapshot of the policy and uses it to the end, a batch too. All that borrows from it happens before
//! the first await; what an answer may wait for after that is its record.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status};

use crate::audit::Appending;
use crate::budget::Budget;
use crate::call;
use crate::decision::{Answer, check_limits};
use crate::policy::AudiencePolicy;
use crate::proto::borrowed::{CheckRequestRef, ExpandRequestRef};
use crate::rpc::answering::{Answered, Answering};
use crate::rpc::batch::BatchAnswer;
use crate::rpc::caller::CallOrigin;
use crate::rpc::convert;
use crate::rpc::count::{DecidingMethod, DecisionCounts};
use crate::rpc::deciding::{AskedTexts, BatchedCheck, DecidingQuestion as _, DecidingRequest};
use crate::rpc::decision_line::LoggedDecisions;
use crate::rpc::describe::describe;
use crate::rpc::encode::{EncodedCheck, EncodedExpand, EncodedToken, WireMessage as _};
use crate::rpc::error::{Overload, RpcError};
use crate::rpc::limits::{MAX_BATCH_ITEMS, MAX_LARGE_QUESTIONS, MAX_LOOKUPS, MAX_MESSAGE_BYTES};
use crate::rpc::received::{Readable, Received};
use crate::rpc::record::{
    AnsweredCall, CallFacts, RecordKind, RecordWait, Recorder, Room, WaitAlone, not_durable,
};
use crate::rpc::shadow::Shadow;
use crate::rpc::v1;
use crate::rpc::v1::scope_policy_service_server::{ScopePolicyService, ScopePolicyServiceServer};
use crate::rpc::wire_id::{DecisionId, WireId};
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

    /// Returns `true` if the policy that serves has an audience, as the caller sees it, by whatever spelling.
    ///
    /// # Errors
    /// If there is no policy yet.
    pub fn knows_audience(&self, origin: &CallOrigin, audience: &str) -> Result<bool, RpcError> {
        self.with_policy(origin, |policy| Ok(matches!(policy.set.audience(audience), Ok(Some(_)))))
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
        (method, call, decision_id): (DecidingMethod, CallFacts<'_>, &DecisionId),
        path: impl Fn() -> String,
        (wait, respond): (&W, impl FnOnce(&Answer<'q>, &Active, &DecisionId) -> T),
    ) -> Result<Answered<T, W::Waiting>, RpcError> {
        let AskedTexts { audiences, client, scope, registered_scope, grant, correlation_id } =
            request.asked();
        check_limits(audiences, correlation_id).map_err(|error| convert::question_error(&error, &path()))?;
        request.check(path)?;
        let room = self.reserve(bytes)?;
        let answer = question.answer(&policy.set, near);
        let has_grant = grant.is_some_and(|grant| grant.granted_scope.is_some());
        if registered_scope.is_none() && method != DecidingMethod::Expand && !has_grant {
            self.counts.unknown_registration(client.and_then(|client| call::facts(client).source));
        }
        if let Some(shadow) = &self.shadow {
            shadow.offer(
                || request.to_shadow(),
                bytes,
                method,
                policy,
                known(call),
                decision_id.get().uuid(),
            );
        }
        let answered = AnsweredCall {
            method,
            asked_audiences: audiences,
            client,
            requested_scope: scope,
            registered_scope,
            grant,
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
    pub(super) fn decide_item<'q, R: DecidingRequest, T>(
        &self,
        BatchItem { at, bytes, of }: BatchItem<'_>,
        asked: (&'q R, &R::Question<'q>),
        policy: (&'q Arc<Active>, Option<&'q AudiencePolicy>),
        respond: impl FnOnce(&Answer<'q>, &Active, &WireId) -> T,
    ) -> Result<Answered<T, Appending>, RpcError> {
        // Unknown fields, which are not among these bytes, cost an item nothing.
        if bytes > MAX_MESSAGE_BYTES {
            let (field, limit) = (format!("checks[{at}]"), MAX_MESSAGE_BYTES);
            return Err(RpcError::OverLimit { field, unit: "bytes", limit, actual: bytes });
        }
        let path = || format!("checks[{at}].");
        let (method, call, decision_id) = of;
        let respond =
            |answer: &Answer<'q>, policy: &Active, id: &DecisionId| respond(answer, policy, id.get());
        let of = (method, call, &DecisionId::from(*decision_id));
        self.decide(asked, bytes, policy, of, path, (&WaitAlone, respond))
    }

    /// Decides a check of a batch and adds its answer, unless that takes more than the look-ups that are left for this turn.
    fn attempt<'q, M: BatchedCheck, C: DecidingRequest<Message = M>>(
        &self,
        item: BatchItem<'_>,
        check: &'q C,
        policy: (&'q Arc<Active>, Option<&'q AudiencePolicy>),
        left: usize,
        batch: &mut BatchAnswer<M::Response>,
    ) -> ItemAttempt<'q> {
        let question = check.question();
        let lookups = question.lookups(&policy.0.set);
        if lookups > MAX_LOOKUPS {
            return ItemAttempt::Large;
        }
        if lookups > left {
            return ItemAttempt::OutOfTurn;
        }
        let answered = self.decide_item(item, (check, &question), policy, |answer, policy, decision_id| {
            M::push(batch, answer, policy, decision_id);
            answer.audiences.first().copied()
        });
        ItemAttempt::Decided(answered, lookups)
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
            DecidingMethod::Token => {
                let received = Received::<v1::CheckTokenScopesRequest>::from(message);
                self.call(method, head, received, wait, |answer, policy, decision_id| {
                    EncodedToken::new(answer, policy, decision_id).framed()
                })
            }
            DecidingMethod::BatchCheck => Answering::Waiting(Box::pin(async move {
                let received = Received::<v1::BatchCheckAuthorizeScopesRequest>::from(message);
                let (checks, bytes) = received.read()?;
                Ok(self.batch_call(head, &checks, bytes).await?.into_framed())
            })),
            DecidingMethod::BatchToken => Answering::Waiting(Box::pin(async move {
                let received = Received::<v1::BatchCheckTokenScopesRequest>::from(message);
                let (checks, bytes) = received.read()?;
                Ok(self.batch_call(head, &checks, bytes).await?.into_framed())
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
        let respond =
            move |answer: &Answer<'_>, policy: &Active, id: &DecisionId| respond(answer, policy, id.get());
        let answered = received
            .read()
            .and_then(|(request, bytes)| self.decide_here(&request, bytes, (method, head), (wait, respond)));
        Answering::of(answered, || self.decide_elsewhere(received, (method, head), respond))
    }

    /// Answers an authorize request that another part of this process has, as a call of the RPC would be, but without messages:
    /// `respond` makes the answer into what is wanted.
    pub fn ask_check<'c, T: Send + 'static>(
        &'c self,
        head: &'c CallHead,
        request: &CheckRequestRef<'_>,
        respond: impl Fn(&Answer<'_>) -> T + Copy + Send + 'static,
    ) -> Answering<'c, T, Appending> {
        self.ask(DecidingMethod::Check, head, request, respond)
    }

    /// The same for a registration.
    pub fn ask_expand<'c, T: Send + 'static>(
        &'c self,
        head: &'c CallHead,
        request: &ExpandRequestRef<'_>,
        respond: impl Fn(&Answer<'_>) -> T + Copy + Send + 'static,
    ) -> Answering<'c, T, Appending> {
        self.ask(DecidingMethod::Expand, head, request, respond)
    }

    fn ask<'c, R, T>(
        &'c self,
        method: DecidingMethod,
        head: &'c CallHead,
        request: &R,
        respond: impl Fn(&Answer<'_>) -> T + Copy + Send + 'static,
    ) -> Answering<'c, T, Appending>
    where
        R: DecidingRequest<Message: Readable + 'static>,
        for<'r> <R::Message as Readable>::Borrowed<'r>: DecidingRequest,
        T: Send + 'static,
    {
        let respond = move |answer: &Answer<'_>, _: &Active, _: &DecisionId| respond(answer);
        let answered = self.decide_here(request, request.bytes(), (method, head), (&WaitAlone, respond));
        Answering::of(answered, || {
            self.decide_elsewhere(request.to_message().into(), (method, head), respond)
        })
    }

    /// Decides a request whose message has so many bytes; `None` if it is too large for a serving thread.
    fn decide_here<R: DecidingRequest, W: RecordWait, T>(
        &self,
        request: &R,
        bytes: usize,
        (method, head): (DecidingMethod, &CallHead),
        (wait, respond): (&W, impl Fn(&Answer<'_>, &Active, &DecisionId) -> T),
    ) -> Result<Option<Answered<T, W::Waiting>>, RpcError> {
        self.with_policy(&head.origin, |policy| {
            let question = request.question();
            if question.lookups(&policy.set) > MAX_LOOKUPS {
                return Ok(None);
            }
            let (asked, of) = ((request, &question), (method, head.call(), &DecisionId::default()));
            self.decide(asked, bytes, (policy, None), of, String::new, (wait, respond)).map(Some)
        })
    }

    /// Decides a request off the serving threads, and waits for its record.
    async fn decide_elsewhere<M, T>(
        &self,
        received: Received<M>,
        (method, head): (DecidingMethod, &CallHead),
        respond: impl Fn(&Answer<'_>, &Active, &DecisionId) -> T + Copy + Send + 'static,
    ) -> Result<T, RpcError>
    where
        M: Readable + 'static,
        for<'r> M::Borrowed<'r>: DecidingRequest,
        T: Send + 'static,
    {
        let head = head.clone();
        let decide = move |service: &Self| {
            let (request, bytes) = received.read()?;
            service.with_policy(&head.origin, |policy| {
                let (asked, of) =
                    ((&request, &request.question()), (method, head.call(), &DecisionId::default()));
                service.decide(asked, bytes, (policy, None), of, String::new, (&WaitAlone, respond))
            })
        };
        self.elsewhere(decide).await?.wait().await
    }

    /// Answers the checks of a batch, whose message has so many bytes.
    async fn batch_call<M, C>(
        &self,
        head: &CallHead,
        checks: &[(C, usize)],
        bytes: usize,
    ) -> Result<BatchAnswer<M::Response>, RpcError>
    where
        M: BatchedCheck,
        C: DecidingRequest<Message = M> + Sync,
    {
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
            let item = BatchItem { at, bytes: *bytes, of: (M::METHOD, head.call(), &decision_id) };
            let mut attempt = self.attempt::<M, C>(item, check, (&policy, near), left, &mut batch);
            if let ItemAttempt::OutOfTurn = attempt {
                // Other calls have their turn: a batch must not hold a thread for as long as it takes.
                left = MAX_LOOKUPS;
                tokio::task::yield_now().await;
                attempt = self.attempt::<M, C>(item, check, (&policy, near), left, &mut batch);
            }
            let answered = match attempt {
                ItemAttempt::Decided(answered, lookups) => {
                    left = left.saturating_sub(lookups);
                    answered.map(|Answered { response: audience, waiting }| {
                        near = audience;
                        waiting
                    })
                }
                ItemAttempt::OutOfTurn | ItemAttempt::Large => {
                    let (head, policy, bytes) = (head.clone(), Arc::clone(&policy), *bytes);
                    let check = check.to_message();
                    let decide = move |service: &Self| {
                        let item = BatchItem { at, bytes, of: (M::METHOD, head.call(), &decision_id) };
                        check.decide(service, item, &policy)
                    };
                    self.elsewhere(decide).await.map(|Answered { response, waiting }| {
                        batch.push_response(response);
                        waiting
                    })
                }
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
        let received = Received::from(request);
        let (checks, bytes) = received.read()?;
        Ok(Response::new(self.batch_call(&head, &checks, bytes).await?.into_response()?))
    }

    async fn check_token_scopes(
        &self,
        request: Request<v1::CheckTokenScopesRequest>,
    ) -> Result<Response<v1::CheckTokenScopesResponse>, Status> {
        let (head, request) = CallHead::of(request);
        Ok(Response::new(
            self.call(DecidingMethod::Token, &head, request.into(), &WaitAlone, convert::token_response)
                .wait()
                .await?,
        ))
    }

    async fn batch_check_token_scopes(
        &self,
        request: Request<v1::BatchCheckTokenScopesRequest>,
    ) -> Result<Response<v1::BatchCheckTokenScopesResponse>, Status> {
        let (head, request) = CallHead::of(request);
        let received = Received::from(request);
        let (checks, bytes) = received.read()?;
        Ok(Response::new(self.batch_call(&head, &checks, bytes).await?.into_response()?))
    }

    async fn describe_audience(
        &self,
        request: Request<v1::DescribeAudienceRequest>,
    ) -> Result<Response<v1::DescribeAudienceResponse>, Status> {
        let (head, request) = CallHead::of(request);
        Ok(Response::new(self.with_policy(&head.origin, |policy| describe(policy, &request))?))
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

/// A check of a batch: its place, how many bytes it has, and what it is of.
#[derive(Clone, Copy)]
pub(super) struct BatchItem<'c> {
    at: usize,
    bytes: usize,
    of: (DecidingMethod, CallFacts<'c>, &'c WireId),
}

/// What came of a check of a batch on a serving thread.
enum ItemAttempt<'q> {
    /// It has an answer or an error, and took so many look-ups. With the audience that decided first.
    Decided(Result<Answered<Option<&'q AudiencePolicy>, Appending>, RpcError>, usize),
    /// It is for another turn.
    OutOfTurn,
    /// It is too large for a serving thread.
    Large,
}

/// The audiences that the caller knows, if not all.
fn known(call: CallFacts<'_>) -> Option<Arc<[Box<str>]>> {
    call.origin.known_audiences().cloned()
}

#[cfg(test)]
mod tests;
