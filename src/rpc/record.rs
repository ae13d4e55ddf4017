//! The seam between deciding and answering: what is to be recorded of an answer, and what the answer waits for.
//!
//! Which answers are recorded is decided here, by the rules of the audit: expansions and denials. How they are kept, and
//! whether an answer waits for it, is up to the [`Recorder`]. Parsing of what only the audit wants to know about a call
//! happens here too, and only when it is asked for.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::SystemTime;

use http::HeaderMap;
use uuid::Uuid;

use crate::audit::{cut_client, new_event};
use crate::budget::Permit;
use crate::decision::{Answer, MAX_SCOPES, Reason};
use crate::proto::borrowed::ClientRef;
use crate::rpc::caller::{CallOrigin, CallerIdentity, PeerAddress};
use crate::rpc::convert;
use crate::rpc::count::DecidingMethod;
use crate::rpc::trace_parent::TraceParent;
use crate::rpc::v1;
use crate::scope::join;
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
    /// Returns what the answer has to wait for, or `None` if it may leave at once. If that fails there is no answer.
    fn record(&self, kind: RecordKind, record: AnsweredCall<'_>, room: Room) -> Option<Durable>;
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

/// Completes when a record is durable, or cannot be made so.
pub type Durable = Pin<Box<dyn Future<Output = Result<(), NotDurable>> + Send>>;

/// A record could not be made durable. Why is for the log, and the recorder has written it there.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the record could not be made durable")]
pub struct NotDurable;

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
    /// The caller's own id of the login or registration; `""` if it has none.
    pub correlation_id: &'a str,
    /// The answer.
    pub answer: &'a Answer<'a>,
    /// The policy that decided.
    pub policy: &'a Active,
    /// The id that the caller gets.
    pub decision_id: Uuid,
    /// The call.
    pub call: CallFacts<'a>,
}

impl AnsweredCall<'_> {
    /// The audit event. Its parts are the same messages as in the answer.
    #[must_use]
    pub fn event(&self, kind: RecordKind) -> v1::AuditEvent {
        let Self {
            method,
            asked_audiences,
            client,
            requested_scope,
            registered_scope,
            correlation_id,
            answer,
            policy,
            decision_id,
            call,
        } = *self;
        let kind = match kind {
            RecordKind::Expansion => v1::AuditEventKind::Expansion,
            RecordKind::Denial => v1::AuditEventKind::Denial,
        };
        let mut client = client.map(ClientRef::to_message);
        let client_truncated = client.as_mut().is_some_and(cut_client);
        // The audiences that decided; as named where they could not be found.
        let audiences = if answer.audiences.is_empty() {
            asked_audiences.to_vec()
        } else {
            answer.audiences.iter().map(|audience| audience.audience.to_string()).collect()
        };
        v1::AuditEvent {
            decision_id: decision_id.to_string(),
            method: method.path().to_owned(),
            audiences,
            client,
            client_truncated,
            requested_scope: requested_scope.map(|scope| kept(scope, answer.reason).to_owned()),
            registered_scope: registered_scope.map(str::to_owned),
            effective_scope: join(&answer.scope),
            added: convert::added(answer),
            refused: convert::refused(answer),
            reason: convert::reason(answer.reason).into(),
            policy: Some(convert::policy_version(policy)),
            caller: Some(call.caller().unwrap_or_default()),
            peer: call.peer().map(|peer| peer.to_string()).unwrap_or_default(),
            trace_id: call.trace_id().to_owned(),
            attempt: call.attempt(),
            asked_audiences: asked_audiences.to_vec(),
            correlation_id: correlation_id.to_owned(),
            ..new_event(kind, SystemTime::now())
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

    /// The trace id of the `traceparent` header: 32 hex digits in lower case (W3C Trace Context section 3.2.2.3).
    ///
    /// `""` if there is none or it is not well-formed.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        self.header("traceparent").and_then(TraceParent::read).map_or("", |parent| parent.trace_id)
    }

    /// How often the caller tried before, by its own count. 0 if it does not say, or not in a number.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.header("grpc-previous-rpc-attempts").and_then(|count| count.parse().ok()).unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
