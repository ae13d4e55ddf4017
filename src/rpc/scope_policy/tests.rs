//! Where questions are decided, and what a batch leaves to others.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Mutex;
use std::task::Poll;
use std::thread::{self, ThreadId};

use prost::Message as _;

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

/// The same of a token, with as many granted scopes.
fn token_of(granted: usize) -> v1::CheckTokenScopesRequest {
    let v1::CheckAuthorizeScopesRequest { audiences, scope, registered_scope, .. } = check_of(granted);
    let grant = v1::TokenGrant::Refresh.into();
    v1::CheckTokenScopesRequest {
        audiences,
        scope,
        granted_scope: registered_scope,
        grant,
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
        service.check_token_scopes(Request::new(token_of(registered))).await.expect("an answer");
        assert_eq!(threads.were_here(), [here], "{registered} scopes");
    }
    let checks = vec![check_of(10), check_of(20_000), check_of(10)];
    let batch = Request::new(v1::BatchCheckAuthorizeScopesRequest { checks });
    service.batch_check_authorize_scopes(batch).await.expect("an answer");
    assert_eq!(threads.were_here(), [true, false, true]);
    let checks = vec![token_of(10), token_of(20_000), token_of(10)];
    let batch = Request::new(v1::BatchCheckTokenScopesRequest { checks });
    service.batch_check_token_scopes(batch).await.expect("an answer");
    assert_eq!(threads.were_here(), [true, false, true]);
}

#[tokio::test]
async fn what_another_part_asks_is_answered_like_a_call() {
    let (service, threads) = service();
    let head = CallHead::default();
    for (registered, here) in [(10, true), (20_000, false)] {
        let message = v1::CheckAuthorizeScopesRequest {
            client: Some(v1::Client {
                client_id: "c".repeat(200),
                source: v1::ClientSource::Cimd.into(),
                redirect_uris: vec!["http://localhost".to_owned(); 3],
                ..Default::default()
            }),
            correlation_id: "login".to_owned(),
            ..check_of(registered)
        };
        let request = CheckRequestRef::of(&message);
        let more = request.bytes() - message.encoded_len();
        assert!(more < 200, "{more} more than the message has");
        let asked =
            service.ask_check(&head, &request, |answer| answer.reason).wait().await.expect("an answer");
        let called = service.check_authorize_scopes(Request::new(message)).await.expect("an answer");
        assert_eq!(i32::from(convert::reason(asked)), called.into_inner().reason);
        let message = v1::ExpandRegistrationScopesRequest {
            audiences: vec!["one".to_owned(); 16],
            previous_scope: check_of(registered).registered_scope,
            ..Default::default()
        };
        let request = ExpandRequestRef::of(&message);
        let asked =
            service.ask_expand(&head, &request, |answer| answer.reason).wait().await.expect("an answer");
        let called = service.expand_registration_scopes(Request::new(message)).await.expect("an answer");
        assert_eq!(i32::from(convert::reason(asked)), called.into_inner().reason);
        assert_eq!(threads.were_here(), [here; 4], "{registered} scopes");
    }
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
