//! What the span of a call is told of its decisions. Numbers and words of closed sets: nothing that a client said.

use std::sync::{Arc, Mutex, PoisonError};

use super::count::DecidingMethod;
use super::record::AnsweredCall;
use super::wire_id::WireId;
use crate::decision::Reason;

/// Of calls that have a span, and of no others. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct DecisionNotes(Arc<Mutex<Option<NotedDecisions>>>);

/// What was decided in a call.
#[derive(Clone, Debug)]
pub struct NotedDecisions {
    /// The RPC.
    pub method: DecidingMethod,
    /// The policy that decided.
    pub generation: u64,
    /// Answers that allow.
    pub allowed: u32,
    /// Answers that deny.
    pub denied: u32,
    /// Why the newest answer denies, if it does.
    pub reason: Option<Reason>,
    /// The id of the newest answer.
    pub decision_id: WireId,
    /// Audiences that decided, of all answers together.
    pub audiences: usize,
}

impl DecisionNotes {
    /// Adds an answer.
    pub(super) fn decided(&self, answered: &AnsweredCall<'_>) {
        let AnsweredCall { method, answer, policy, decision_id, .. } = *answered;
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = notes.get_or_insert(NotedDecisions {
            method,
            generation: policy.generation,
            allowed: 0,
            denied: 0,
            reason: None,
            decision_id: *decision_id.get(),
            audiences: 0,
        });
        noted.allowed += u32::from(answer.is_allowed());
        noted.denied += u32::from(!answer.is_allowed());
        noted.reason = answer.reason;
        noted.decision_id = *decision_id.get();
        noted.audiences += answer.audiences.len();
    }

    /// What was decided; `None` if nothing was.
    #[must_use]
    pub fn take(&self) -> Option<NotedDecisions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
