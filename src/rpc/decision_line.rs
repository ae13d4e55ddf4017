//! A line in the log for each decision (`--log-decisions`), for people and for tools that read logs.
//!
//! What a caller or a client chose is escaped and cut; nothing of the headers is shown but the id of the trace. A line tells what was
//! decided. Whether the answer left is not known yet; the record that counts is the audit.

use std::fmt::Write as _;

use tracing::info;

use super::record::AnsweredCall;
use crate::escape::shown;
use crate::scope::tokens;

/// Which decisions have a line in the log.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LoggedDecisions {
    /// None.
    #[default]
    None,
    /// Denials.
    Denied,
    /// Each.
    All,
}

impl LoggedDecisions {
    /// Logs a decision, if it is to be.
    pub(super) fn log(self, answered: &AnsweredCall<'_>) {
        let AnsweredCall {
            method,
            asked_audiences,
            client,
            requested_scope,
            registered_scope: _,
            grant,
            correlation_id,
            answer,
            policy,
            decision_id,
            call,
        } = *answered;
        match self {
            Self::None => return,
            Self::Denied if answer.is_allowed() => return,
            Self::Denied | Self::All => {}
        }
        let audiences = if answer.audiences.is_empty() {
            list(asked_audiences.iter().map(shown))
        } else {
            list(answer.audiences.iter().map(|audience| shown(&audience.audience)))
        };
        let added = answer.added.iter().map(|added| format!("{}={}", added.scope, added.origin.as_str()));
        let refused = answer.refused.iter();
        let refused = refused.map(|refused| format!("{}={}", shown(refused.scope), refused.reason.as_str()));
        let caller = call.caller().map(|caller| caller.name);
        info!(
            decision = if answer.is_allowed() { "ALLOW" } else { "DENY" },
            reason = answer.reason.map(|reason| reason.as_str()),
            method = method.name(),
            audiences,
            client_id = client.map(|client| shown(client.client_id)),
            grant = grant.map(|grant| grant.grant.as_str_name().trim_start_matches("TOKEN_GRANT_")),
            asked = requested_scope.map(|scope| list(tokens(scope).map(shown))),
            effective = list(answer.scope.iter().map(|scope| (*scope).to_owned())),
            added = list(added),
            refused = list(refused),
            decision_id = %decision_id.get(),
            generation = policy.generation,
            caller,
            trace_id = Some(call.audited_headers().trace_id).filter(|id| !id.is_empty()),
            correlation_id = Some(shown(correlation_id)).filter(|id| !id.is_empty()),
            "decided"
        );
    }
}

/// The items in a row, and how many did not fit.
fn list(mut items: impl Iterator<Item = String>) -> String {
    let mut text = String::new();
    while let Some(item) = items.next() {
        if !text.is_empty() && text.len() + item.len() > MAX_LIST_BYTES {
            // Writing to a String does not fail.
            _ = write!(text, " and {} more", 1 + items.count());
            break;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&item);
    }
    text
}

/// The most bytes of a list in a line, unless its first item is longer.
const MAX_LIST_BYTES: usize = 1000;
