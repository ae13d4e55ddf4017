//! The order of record and answer, with recorders of the tests' own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use scopeward::audit::{AppendReply, AuditError, GENESIS_HASH, Head, Recorded};
use scopeward::budget::Budget;
use scopeward::rpc::record::{AnsweredCall, NoRoom, RecordKind, Recorder, Room};
use scopeward::rpc::v1;
use tokio::sync::{Semaphore, mpsc};
use tonic::{Code, Request};

use crate::harness::{AUDIENCE, Wire, authorize, one_audience, reason, registration, within};
use crate::peer::{Peer, WIDE, framed};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Tells what it was given, and lets expansions wait for a permit: an error once the semaphore is closed.
#[derive(Debug)]
struct Gate {
    seen: mpsc::UnboundedSender<String>,
    permits: Arc<Semaphore>,
    room: Budget,
    ids: Mutex<Vec<String>>,
}

impl Recorder for Gate {
    fn reserve(&self, request_bytes: usize) -> Result<Room, NoRoom> {
        assert!(request_bytes > 0);
        self.room.take(1).map(Room::from).map_err(|_| NoRoom)
    }

    fn record(
        &self,
        kind: RecordKind,
        record: AnsweredCall<'_>,
        room: Room,
        reply: &mut dyn FnMut() -> AppendReply,
    ) {
        let decided = record.answer.audiences.iter().map(|audience| &*audience.audience).collect::<Vec<_>>();
        let told = format!(
            "{:?} {} {:?} {:?} {:?} peer={} trace={} attempt={}",
            kind,
            record.method.path().rsplit('/').next().unwrap_or_default(),
            decided,
            record.requested_scope,
            record.registered_scope,
            record.call.peer().is_some_and(|peer| peer.to_string().starts_with("127.0.0.1:")),
            record.call.audited_headers().trace_id,
            record.call.audited_headers().attempt,
        );
        self.ids.lock().unwrap().push(record.decision_id.get().to_string());
        self.seen.send(told).expect("the test listens");
        if kind == RecordKind::Denial {
            return;
        }
        let (permits, reply) = (Arc::clone(&self.permits), reply());
        tokio::spawn(async move {
            let permit = permits.acquire().await.map(|permit| permit.forget());
            drop(room);
            let recorded = Recorded { head: Head { sequence: 1, hash: GENESIS_HASH } };
            reply.send(permit.map(|()| recorded).map_err(|_| AuditError::Closed));
        });
    }
}

async fn start() -> (Wire, Arc<Gate>, mpsc::UnboundedReceiver<String>) {
    start_with_room(3).await
}

/// With room for so many records that wait.
async fn start_with_room(room: usize) -> (Wire, Arc<Gate>, mpsc::UnboundedReceiver<String>) {
    let (seen, told) = mpsc::unbounded_channel();
    let gate = Arc::new(Gate {
        seen,
        permits: Arc::new(Semaphore::new(0)),
        room: Budget::new(room),
        ids: Mutex::default(),
    });
    let wire = Wire::start(Some(Arc::clone(&gate) as Arc<dyn Recorder>), |_| {}).await;
    wire.serve(&one_audience("scopesSupported: [a, b], baselineClientScopes: [b]"));
    (wire, gate, told)
}

#[tokio::test]
async fn expansion_is_answered_only_once_its_record_is_durable() {
    let (wire, gate, mut told) = start().await;
    let mut client = wire.client().await;
    let mut request = Request::new(registration(Some("a")));
    let header = format!("00-{TRACE_ID}-00f067aa0ba902b7-01").parse().expect("a header");
    request.metadata_mut().insert("traceparent", header);
    request.metadata_mut().insert("grpc-previous-rpc-attempts", "2".parse().expect("a header"));
    let mut call = tokio::spawn(async move { client.expand_registration_scopes(request).await });
    let expected = format!(
        "Expansion ExpandRegistrationScopes [{AUDIENCE:?}] Some(\"a\") None peer=true trace={TRACE_ID} attempt=2"
    );
    assert_eq!(within("the record is made", told.recv()).await, Some(expected));
    // It is not durable yet, so the answer cannot be there, however long one waits.
    tokio::task::yield_now().await;
    assert!(!call.is_finished());
    gate.permits.add_permits(1);
    let answer =
        within("the answer comes", &mut call).await.expect("no panic").expect("an answer").into_inner();
    assert_eq!(answer.scope, "a b");
    assert_eq!(*gate.ids.lock().unwrap(), [answer.decision_id]);
    wire.stop().await;
}

#[tokio::test]
async fn denial_is_recorded_and_does_not_wait() {
    let (wire, _gate, mut told) = start().await;
    let mut client = wire.client().await;
    let answer = client.check_authorize_scopes(authorize(Some("c"), Some(""))).await.expect("an answer");
    assert_eq!(answer.into_inner().decision(), v1::Decision::Deny);
    let expected = format!(
        "Denial CheckAuthorizeScopes [{AUDIENCE:?}] Some(\"c\") Some(\"\") peer=true trace= attempt=0"
    );
    assert_eq!(told.recv().await, Some(expected));
    wire.stop().await;
}

#[tokio::test]
async fn what_was_asked_and_held_is_not_recorded() {
    let (wire, _gate, mut told) = start().await;
    let mut client = wire.client().await;
    let answer = client.expand_registration_scopes(registration(Some("a b"))).await.expect("an answer");
    assert_eq!(answer.into_inner().scope, "a b");
    let answer =
        client.check_authorize_scopes(authorize(None, Some("a b"))).await.expect("an answer").into_inner();
    assert_eq!((answer.scope.as_str(), answer.added.len()), ("a b", 2));
    assert!(told.try_recv().is_err());
    wire.stop().await;
}

#[tokio::test]
async fn expansion_that_cannot_be_recorded_is_not_answered() {
    let (wire, gate, _told) = start().await;
    gate.permits.close();
    let mut client = wire.client().await;
    let error = client.expand_registration_scopes(registration(Some("a"))).await.expect_err("no record");
    assert_eq!((error.code(), reason(&error).as_str()), (Code::ResourceExhausted, "AUDIT_NOT_DURABLE"));
    assert_eq!(error.message(), "decision could not be recorded; retry");

    use v1::batch_check_result::Result::{Error, Response};
    let checks = vec![authorize(Some("b"), Some("a")), authorize(Some("a"), Some("a"))];
    let request = v1::BatchCheckAuthorizeScopesRequest { checks };
    let results = client.batch_check_authorize_scopes(request).await.expect("an answer").into_inner().results;
    let Some(Error(error)) = &results[0].result else { panic!("{results:?}") };
    assert_eq!((error.code, error.reason.as_str()), (8, "AUDIT_NOT_DURABLE"));
    assert!(matches!(results[1].result, Some(Response(_))), "an item that expands nothing is answered");
    wire.stop().await;
}

#[tokio::test]
async fn stuck_call_is_cut_off_at_the_drain_deadline() {
    let (seen, mut told) = mpsc::unbounded_channel();
    let gate =
        Gate { seen, permits: Arc::new(Semaphore::new(0)), room: Budget::new(3), ids: Mutex::default() };
    let wire =
        Wire::start(Some(Arc::new(gate)), |config| config.shutdown_timeout = Duration::from_millis(100))
            .await;
    wire.serve(&one_audience("scopesSupported: [a, b], baselineClientScopes: [b]"));
    let mut client = wire.client().await;
    let call = tokio::spawn(async move { client.expand_registration_scopes(registration(Some("a"))).await });
    within("the call is in flight", told.recv()).await;
    let cut = wire.stop().await.cut_calls;
    assert_eq!(cut, [("/scopeward.v1.ScopePolicyService/ExpandRegistrationScopes".to_owned(), 1)]);
    within("the call ends", call).await.expect("no panic").expect_err("it was cut off");
}

#[tokio::test]
async fn call_in_flight_is_answered_while_draining() {
    let (wire, gate, mut told) = start().await;
    let mut client = wire.client().await;
    let draining = wire.lifecycle.draining().clone();
    let call = tokio::spawn(async move { client.expand_registration_scopes(registration(Some("a"))).await });
    within("the call is in flight", told.recv()).await;
    let ended = wire.begin_stop();
    within("draining begins", draining.cancelled()).await;
    gate.permits.add_permits(1);
    let answer = within("the answer comes", call).await.expect("no panic").expect("an answer");
    assert_eq!(answer.into_inner().scope, "a b");
    let drained = within("the server ends", ended).await.expect("no panic");
    assert_eq!(drained.cut_calls, []);
}

#[tokio::test]
async fn without_room_for_a_record_nothing_is_decided() {
    let (wire, gate, mut told) = start().await;
    let mut client = wire.client().await;
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.expand_registration_scopes(registration(Some("a"))).await })
        })
        .collect();
    for _ in 0..3 {
        within("the record is made", told.recv()).await.expect("a record");
    }
    // An expansion, a denial, and an answer that would not be recorded: none of them is known before.
    for scope in ["a", "x", "a b"] {
        let refused =
            client.expand_registration_scopes(registration(Some(scope))).await.expect_err("no room");
        assert_eq!(
            (refused.code(), reason(&refused)),
            (Code::ResourceExhausted, "AUDIT_QUEUE_FULL".to_owned())
        );
    }
    assert!(told.try_recv().is_err(), "nothing was decided");
    gate.permits.add_permits(3);
    for call in waiting {
        within("the answer comes", call).await.expect("no panic").expect("an answer");
    }
    assert_eq!(gate.room.used(), 0);
    // What is not recorded gives its room back at once.
    for scope in ["a b", "x"] {
        client.expand_registration_scopes(registration(Some(scope))).await.expect("an answer");
        assert_eq!(gate.room.used(), 0);
    }
    wire.stop().await;
}

#[tokio::test]
async fn call_that_is_cancelled_before_its_message_is_here_leaves_no_record() {
    let (wire, gate, mut told) = start().await;
    let peer = Peer::connect(wire.addr, WIDE).await;
    let message = framed(&registration(Some("denied")));
    let mut call = peer.open("/scopeward.v1.ScopePolicyService/ExpandRegistrationScopes", &[]).await;
    let half = message[..message.len() - 1].to_vec();
    call.body.send_data(half.into(), false).expect("the stream is open");
    within("the call is in flight", async {
        while wire.pressure.calls() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    drop(call);
    within("the call ends", async {
        while wire.pressure.calls() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert!(told.try_recv().is_err(), "nothing was decided");
    assert_eq!(gate.room.used(), 0);
    wire.stop().await;
}

#[tokio::test]
async fn many_answers_of_a_connection_wait_at_once_and_hold_nothing_else_up() {
    const WAITING: usize = 60;
    let (wire, gate, mut told) = start_with_room(WAITING + 1).await;
    let mut client = wire.client().await;
    let waiting: Vec<_> = (0..WAITING)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.expand_registration_scopes(registration(Some("a"))).await })
        })
        .collect();
    for _ in 0..WAITING {
        within("the record is made", told.recv()).await.expect("a record");
    }
    let plain = client.check_authorize_scopes(authorize(Some("a"), Some("a"))).await.expect("an answer");
    assert_eq!(plain.into_inner().scope, "a");
    assert_eq!(wire.pressure.calls(), WAITING, "each holds its place until its answer has left");
    assert!(waiting.iter().all(|call| !call.is_finished()));
    // Some of them, then the rest.
    gate.permits.add_permits(WAITING / 3);
    within("those are answered", async {
        while waiting.iter().filter(|call| call.is_finished()).count() < WAITING / 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(waiting.iter().filter(|call| call.is_finished()).count(), WAITING / 3);
    gate.permits.add_permits(WAITING);
    for call in waiting {
        within("the answer comes", call).await.expect("no panic").expect("an answer");
    }
    wire.stop().await;
}

#[tokio::test]
async fn answers_that_wait_when_their_connection_ends_give_their_places_back() {
    let (wire, gate, mut told) = start_with_room(8).await;
    let peer = Peer::connect(wire.addr, WIDE).await;
    let message = framed(&registration(Some("a")));
    let mut calls = Vec::new();
    for _ in 0..8 {
        let mut call = peer.open("/scopeward.v1.ScopePolicyService/ExpandRegistrationScopes", &[]).await;
        call.body.send_data(message.clone().into(), true).expect("the stream is open");
        calls.push(call);
        within("the record is made", told.recv()).await.expect("a record");
    }
    assert_eq!(wire.pressure.calls(), 8);
    drop((calls, peer));
    within("the calls end", async {
        while wire.pressure.calls() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    // Records that become durable then have nobody to tell.
    gate.permits.add_permits(8);
    within("they are durable", async {
        while gate.room.used() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let mut client = wire.client().await;
    gate.permits.add_permits(1);
    client.expand_registration_scopes(registration(Some("a"))).await.expect("an answer");
    wire.stop().await;
}
