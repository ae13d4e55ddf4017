//! The seam between deciding and answering: what is to be recorded of an answer, and what the answer waits for.
//!
//! Which answers are recorded is decided here, by the rules of the audit: expansions and denials. How they are kept, and
//! whether an answer waits for it, is up to the [`Recorder`]. Parsing of what only the audit wants to know about a call
//! happens here too, and only when it is asked for.

use std::fmt;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName};
use prost_types::Timestamp;

use crate::audit::{AppendReply, Appending, AuditError, EncodedEvent, MAX_CLIENT_BYTES, cut_client};
use crate::budget::Permit;
use crate::call;
use crate::decision::{Answer, MAX_SCOPES, Reason};
use crate::proto::borrowed::ClientRef;
use crate::rpc::caller::{CallOrigin, CallerIdentity, PeerAddress};
use crate::rpc::convert;
use crate::rpc::count::DecidingMethod;
use crate::rpc::deciding::AskedGrant;
use crate::rpc::encode::{FieldWriter, WireMessage};
use crate::rpc::error::RpcError;
use crate::rpc::trace_parent::{TRACE_PARENT, TraceParent};
use crate::rpc::v1;
use crate::rpc::wire_id::{DecisionId, WireId};
use crate::short_list::TextsRef;
use crate::store::Active;

/// Keeps a record of answers.
pub trait Recorder: fmt::Debug + Send + Sync {
    /// Takes room for the record of a question of so many bytes, before it is decided.
    ///
    /// # Errors
    ///
    /// [`NoRoom`], at once: the question is not to be decided.
    fn reserve(&self, request_bytes: usize) -> Result<Room, NoRoom>;

    /// Takes over what it needs of an answer that is about to be given, in the room that was reserved for it.
    ///
    /// If the answer may leave only once its record is durable, it makes a reply, which it tells when that is so. If it is told of a
    /// failure there is no answer.
    fn record(
        &self,
        kind: RecordKind,
        record: AnsweredCall<'_>,
        room: Room,
        reply: &mut dyn FnMut() -> AppendReply,
    );
}

/// How answers wait for their records.
pub trait RecordWait {
    /// What says that an answer waits, and for which record.
    type Waiting;

    /// A reply for one more record.
    fn expect(&self) -> (AppendReply, Self::Waiting);
}

/// Each answer waits by itself.
#[derive(Clone, Copy, Debug)]
pub struct WaitAlone;

impl RecordWait for WaitAlone {
    type Waiting = Appending;

    fn expect(&self) -> (AppendReply, Appending) {
        AppendReply::future()
    }
}

/// Room for one record, given back when it is dropped. Empty where nothing waits for records.
#[derive(Debug, Default)]
pub struct Room(Option<Permit>);

impl Room {
    /// The room itself; `None` if it is empty.
    #[must_use]
    pub fn into_permit(self) -> Option<Permit> {
        self.0
    }
}

impl From<Permit> for Room {
    fn from(permit: Permit) -> Self {
        Self(Some(permit))
    }
}

/// There is no room for a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("too many records wait to be written")]
pub struct NoRoom;

/// The error of an answer whose record could not be made durable. Why is for the log alone.
pub fn not_durable(error: &AuditError) -> RpcError {
    tracing::debug!(%error, "answer withheld, its audit record is not durable");
    RpcError::AuditNotDurable
}

/// What an audit record tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RecordKind {
    /// The client got a scope that it did not ask for or did not hold.
    Expansion,
    /// The request was denied.
    Denial,
}

impl RecordKind {
    /// `None` for an answer that gives what was asked and held, which is not recorded.
    #[must_use]
    pub fn of(answer: &Answer<'_>) -> Option<Self> {
        if !answer.is_allowed() {
            Some(Self::Denial)
        } else if answer.is_expansion() {
            Some(Self::Expansion)
        } else {
            None
        }
    }

    const fn of_event(self) -> v1::AuditEventKind {
        match self {
            Self::Expansion => v1::AuditEventKind::Expansion,
            Self::Denial => v1::AuditEventKind::Denial,
        }
    }
}

/// An answer and what it answers, borrowed from the call that is going on.
#[derive(Clone, Copy, Debug)]
pub struct AnsweredCall<'a> {
    /// The RPC.
    pub method: DecidingMethod,
    /// The audiences as asked. Those that decided are in `answer`.
    pub asked_audiences: TextsRef<'a>,
    /// The client as claimed; `None` if the request had none.
    pub client: Option<&'a ClientRef<'a>>,
    /// The requested scope as received.
    pub requested_scope: Option<&'a str>,
    /// The registered scope as received; at registration the previous scope.
    pub registered_scope: Option<&'a str>,
    /// For a token, what it is asked for with.
    pub grant: Option<AskedGrant<'a>>,
    /// The caller's own id of the login or registration; `""` if it has none.
    pub correlation_id: &'a str,
    /// The answer.
    pub answer: &'a Answer<'a>,
    /// The policy that decided.
    pub policy: &'a Active,
    /// The id that the caller gets.
    pub decision_id: &'a DecisionId,
    /// The call.
    pub call: CallFacts<'a>,
}

impl AnsweredCall<'_> {
    /// The audit event. Its parts are the same as those of the answer. It takes the memory of `fields`, whose content is forgotten.
    #[must_use]
    pub fn event(&self, kind: RecordKind, mut fields: Vec<u8>) -> EncodedEvent {
        let time = Timestamp::from(SystemTime::now());
        // As much as counts there, or a little more.
        let large = self.client.filter(|client| call::facts(client).bytes() > MAX_CLIENT_BYTES);
        let cut =
            large.map(ClientRef::to_message).and_then(|mut client| cut_client(&mut client).then_some(client));
        let cut = cut.as_ref().map(ClientRef::of);
        let AuditedHeaders { trace_id, attempt } = self.call.audited_headers();
        let event = AnsweredEvent {
            answered: self,
            kind: kind.of_event(),
            time,
            event_id: self.decision_id.get().of_event(),
            is_cut: cut.is_some(),
            client: cut.as_ref().or(self.client),
            peer: self.call.peer(),
            trace_id,
            attempt,
        };
        let scopes = self.requested_scope.map_or(0, |scope| 2 * scope.len());
        let granted = self.grant.and_then(|grant| grant.granted_scope);
        let held = self.registered_scope.map_or(0, str::len) + granted.map_or(0, str::len);
        fields.clear();
        fields.reserve(EVENT_BYTES + scopes + held);
        event.encode(&mut fields);
        EncodedEvent::new(event.kind, convert::reason(self.answer.reason), time, fields)
    }
}

/// An answer as an `AuditEvent` without a place in the log.
struct AnsweredEvent<'e> {
    answered: &'e AnsweredCall<'e>,
    kind: v1::AuditEventKind,
    time: Timestamp,
    event_id: WireId,
    /// The client, of which text was cut if `is_cut` says so.
    client: Option<&'e ClientRef<'e>>,
    is_cut: bool,
    peer: Option<PeerAddress>,
    trace_id: &'e str,
    attempt: u32,
}

impl WireMessage for AnsweredEvent<'_> {
    fn put(&self, fields: &mut FieldWriter<'_>) {
        let Self { answered, kind, time, event_id, client, is_cut, peer, trace_id, attempt } = self;
        let AnsweredCall {
            method,
            asked_audiences,
            client: _,
            requested_scope,
            registered_scope,
            grant,
            correlation_id,
            answer,
            policy,
            decision_id,
            call,
        } = **answered;
        fields.bytes(3, event_id.text());
        fields.message(4, time);
        fields.number(5, *kind as u64);
        fields.bytes(6, decision_id.get().text());
        fields.bytes(7, method.path().as_bytes());
        // The audiences that decided; as named where they could not be found.
        for audience in &answer.audiences {
            fields.entry(8, audience.audience.as_bytes());
        }
        if answer.audiences.is_empty() {
            asked_audiences.iter().for_each(|audience| fields.entry(8, audience.as_bytes()));
        }
        if let Some(client) = client {
            fields.message(9, *client);
        }
        if let Some(scope) = requested_scope {
            fields.entry(10, kept(scope, answer.reason).as_bytes());
        }
        if let Some(scope) = registered_scope {
            fields.entry(11, scope.as_bytes());
        }
        fields.scopes(12, &answer.scope);
        for added in &answer.added {
            fields.message(13, added);
        }
        for refused in &answer.refused {
            fields.message(14, refused);
        }
        fields.number(15, convert::reason(answer.reason) as u64);
        fields.message(16, policy);
        fields.message(18, call.origin);
        if let Some(peer) = peer {
            fields.text(19, |text| peer.append_to(text));
        }
        fields.bytes(20, trace_id.as_bytes());
        fields.number(21, (*attempt).into());
        fields.number(22, (*is_cut).into());
        asked_audiences.iter().for_each(|audience| fields.entry(25, audience.as_bytes()));
        fields.bytes(26, correlation_id.as_bytes());
        if let Some(AskedGrant { grant, granted_scope }) = grant {
            if let Some(scope) = granted_scope {
                fields.entry(28, scope.as_bytes());
            }
            fields.number(29, grant as u64);
        }
    }
}

impl WireMessage for Timestamp {
    #[inline]
    fn put(&self, fields: &mut FieldWriter<'_>) {
        fields.number(1, self.seconds.cast_unsigned());
        fields.number(2, i64::from(self.nanos).cast_unsigned());
    }
}

/// As a `Caller`.
impl WireMessage for CallOrigin {
    fn put(&self, fields: &mut FieldWriter<'_>) {
        if let Some(CallerIdentity { caller, authenticated_by }) = &self.identity {
            fields.bytes(1, caller.name.as_bytes());
            fields.bytes(2, authenticated_by.as_str().as_bytes());
        }
    }
}

/// The part of a requested scope that is recorded: all of it, or of too many tokens as many as show that.
fn kept(scope: &str, reason: Option<Reason>) -> &str {
    if reason != Some(Reason::TooManyScopes) {
        return scope;
    }
    let mut count = 0;
    let mut is_inside = false;
    let end = scope.bytes().position(|byte| {
        let is_space = byte == b' ';
        count += usize::from(is_inside && is_space);
        is_inside = !is_space;
        count > MAX_SCOPES
    });
    end.and_then(|end| scope.get(..end)).unwrap_or(scope)
}

/// About what an event has more than its scopes.
const EVENT_BYTES: usize = 700;
/// The header that says how often a caller tried before (gRPC retry design, A6).
pub static PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// What is known about a call apart from its message.
#[derive(Clone, Copy, Debug)]
pub struct CallFacts<'a> {
    /// The headers.
    pub headers: &'a HeaderMap,
    /// Where it comes from.
    pub origin: &'a CallOrigin,
}

impl CallFacts<'_> {
    /// Where the call comes from; `None` if it came over no connection.
    #[must_use]
    pub fn peer(&self) -> Option<PeerAddress> {
        self.origin.peer
    }

    /// Who calls; `None` without an access file.
    #[must_use]
    pub fn caller(&self) -> Option<v1::Caller> {
        self.origin.identity.as_ref().map(CallerIdentity::message)
    }

    /// What the audit and the log of decisions tell of the headers.
    #[must_use]
    pub fn audited_headers(&self) -> AuditedHeaders<'_> {
        let (mut parent, mut attempts) = (None, None);
        // A call has few: looking at each takes less than hashing two names.
        for (name, value) in self.headers {
            // Of one that is there twice, the first counts.
            if *name == TRACE_PARENT {
                parent = parent.or(Some(value));
            } else if *name == PREVIOUS_ATTEMPTS {
                attempts = attempts.or(Some(value));
            }
        }
        let parent = parent.and_then(|value| TraceParent::read(value.to_str().ok()?));
        let attempts = attempts.and_then(|value| value.to_str().ok()?.parse().ok());
        AuditedHeaders {
            trace_id: parent.map_or("", |parent| parent.trace_id),
            attempt: attempts.unwrap_or_default(),
        }
    }
}

/// What the audit and the log of decisions tell of the headers of a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AuditedHeaders<'a> {
    /// The trace id of the `traceparent` header: 32 hex digits in lower case (W3C Trace Context section 3.2.2.3).
    ///
    /// `""` if there is none or it is not well-formed.
    pub trace_id: &'a str,
    /// How often the caller tried before, by its own count. 0 if it does not say, or not in a number.
    pub attempt: u32,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prost::Message as _;

    use super::*;
    use crate::call;
    use crate::decision::{authorize, registration};
    use crate::policy::check::check;
    use crate::policy::document::Document;
    use crate::proto::borrowed::{CheckRequestRef, ExpandRequestRef};

    const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn policy() -> Active {
        let text = "audiences: {one: {scopesSupported: [a, b, c], baselineClientScopes: [b]}}";
        let file: Arc<str> = "policy.yaml".into();
        let set = check(&file, &[Document::read(&file, text)]).expect("a valid policy").set;
        Active { set, generation: 7, load_time: SystemTime::UNIX_EPOCH }
    }

    /// The event of an answer as a message, which has to be encoded as protobuf encodes it.
    fn message(record: &AnsweredCall<'_>, kind: RecordKind) -> v1::AuditEvent {
        let event = record.event(kind, b"of another event".to_vec());
        let message = v1::AuditEvent::decode(event.fields()).expect("a message");
        assert_eq!(EncodedEvent::from(message.clone()), event);
        message
    }

    #[test]
    fn event_of_an_expansion_has_all_that_is_known_of_it() {
        let policy = policy();
        let request = v1::ExpandRegistrationScopesRequest {
            audiences: vec!["one".to_owned()],
            scope: Some("a".to_owned()),
            previous_scope: Some(String::new()),
            client: Some(v1::Client { client_id: "c".repeat(5_000), ..v1::Client::default() }),
            correlation_id: "login-1".to_owned(),
        };
        let borrowed = ExpandRequestRef::of(&request);
        let question = call::registration(&borrowed);
        let answer = registration::expand(&policy.set, &question);
        let mut headers = HeaderMap::new();
        let header = format!("00-{TRACE_ID}-00f067aa0ba902b7-01");
        headers.insert("traceparent", header.parse().expect("a header"));
        headers.insert("grpc-previous-rpc-attempts", "2".parse().expect("a header"));
        let origin = CallOrigin { peer: Some(PeerAddress::Unix { uid: 998 }), ..CallOrigin::default() };
        let decision_id = DecisionId::default();
        let record = AnsweredCall {
            method: DecidingMethod::Expand,
            asked_audiences: question.audiences,
            client: borrowed.client.as_ref(),
            requested_scope: question.scope,
            registered_scope: question.previous_scope,
            grant: None,
            correlation_id: &request.correlation_id,
            answer: &answer,
            policy: &policy,
            decision_id: &decision_id,
            call: CallFacts { headers: &headers, origin: &origin },
        };
        let found = message(&record, RecordKind::Expansion);
        let expected = v1::AuditEvent {
            event_id: found.event_id.clone(),
            event_time: found.event_time,
            kind: v1::AuditEventKind::Expansion.into(),
            decision_id: decision_id.get().to_string(),
            method: "/scopeward.v1.ScopePolicyService/ExpandRegistrationScopes".to_owned(),
            audiences: vec!["one".to_owned()],
            client: Some(v1::Client { client_id: "c".repeat(4_096), ..v1::Client::default() }),
            requested_scope: Some("a".to_owned()),
            registered_scope: Some(String::new()),
            effective_scope: "a b".to_owned(),
            added: convert::added(&answer),
            policy: Some(convert::policy_version(&policy)),
            caller: Some(v1::Caller::default()),
            peer: "unix:uid=998".to_owned(),
            trace_id: TRACE_ID.to_owned(),
            attempt: 2,
            client_truncated: true,
            asked_audiences: vec!["one".to_owned()],
            correlation_id: "login-1".to_owned(),
            ..v1::AuditEvent::default()
        };
        assert_eq!(found, expected);
        assert_eq!(found.added.len(), 1);
    }

    #[test]
    fn of_the_headers_the_first_counts_of_each_name_and_only_if_it_can_be_read() {
        let parent = format!("00-{TRACE_ID}-00f067aa0ba902b7-01");
        let of = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for &(name, value) in pairs {
                headers.append(name, value.parse().expect("a header"));
            }
            let origin = CallOrigin::default();
            let facts = CallFacts { headers: &headers, origin: &origin };
            let AuditedHeaders { trace_id, attempt } = facts.audited_headers();
            (trace_id.to_owned(), attempt)
        };
        let (none, attempts) = (String::new(), "grpc-previous-rpc-attempts");
        assert_eq!(of(&[]), (none.clone(), 0));
        let both = [
            ("te", "trailers"),
            (attempts, "3"),
            ("traceparent", &*parent),
            (attempts, "4"),
            ("traceparent", "x"),
        ];
        assert_eq!(of(&both), (TRACE_ID.to_owned(), 3));
        assert_eq!(
            of(&[("traceparent", "x"), ("traceparent", &*parent), (attempts, "many"), (attempts, "4")]),
            (none, 0)
        );
    }

    #[test]
    fn event_of_a_denial_has_what_was_refused_and_the_audiences_as_asked() {
        let policy = policy();
        let (headers, origin) = (HeaderMap::new(), CallOrigin::default());
        let check = |audience: &str, scope: &str| {
            let request = v1::CheckAuthorizeScopesRequest {
                audiences: vec![audience.to_owned()],
                scope: Some(scope.to_owned()),
                registered_scope: Some("a".to_owned()),
                ..Default::default()
            };
            let borrowed = CheckRequestRef::of(&request);
            let question = call::authorize(&borrowed);
            let answer = authorize::check(&policy.set, &question);
            let record = AnsweredCall {
                method: DecidingMethod::Check,
                asked_audiences: question.audiences,
                client: None,
                requested_scope: question.scope,
                registered_scope: question.registered_scope,
                grant: None,
                correlation_id: "",
                answer: &answer,
                policy: &policy,
                decision_id: &WireId::from(uuid::Uuid::nil()).into(),
                call: CallFacts { headers: &headers, origin: &origin },
            };
            let found = message(&record, RecordKind::Denial);
            assert_eq!((found.kind(), found.client.as_ref()), (v1::AuditEventKind::Denial, None));
            assert_eq!((&found.refused, found.effective_scope.as_str()), (&convert::refused(&answer), ""));
            (found.audiences.clone(), found.refused.len(), found.reason())
        };
        let names = |name: &str| vec![name.to_owned()];
        assert_eq!(check("one", "a x"), (names("one"), 1, v1::Reason::Unsupported));
        assert_eq!(check("none", "a"), (names("none"), 0, v1::Reason::AudienceUnknown));
    }

    #[test]
    fn of_too_many_scopes_as_many_are_kept_as_show_that() {
        let many = " a ".repeat(300);
        let cut = kept(&many, Some(Reason::TooManyScopes));
        assert_eq!(crate::scope::tokens(cut).count(), MAX_SCOPES + 1);
        assert_eq!(kept(&many, None), many);
        let just = "a ".repeat(MAX_SCOPES + 1);
        assert_eq!(kept(just.trim_end(), Some(Reason::TooManyScopes)), just.trim_end());
    }
}
