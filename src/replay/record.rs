//! Audit records, as messages or in their JSON form, as the calls that they tell of.
//!
//! One record is one line of JSON: an `AuditEvent`, or an object with `event`, `gap` or `checkpoint` in it, in the
//! proto3 JSON mapping. Members that are not known are not looked at.

use serde_json::Value;

use crate::call::{self, Call};
use crate::decision::RequestKind;
use crate::proto::json::{JsonError, from_value};
use crate::proto::v1::{AuditEvent, AuditEventKind, Gap, Reason};

/// One line of the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Line {
    /// A call.
    Call(Box<RecordedCall>),
    /// Events that are missing.
    Gap {
        /// How many.
        count: u64,
    },
    /// A policy change, a checkpoint, or nothing.
    Other,
}

/// A call as recorded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RecordedCall {
    /// Its place in the log; 0 if unknown.
    pub sequence: u64,
    /// The question.
    pub call: Call,
    /// Whether it was allowed.
    pub allowed: bool,
    /// The granted scopes as recorded; `""` on a denial.
    pub scope: String,
    /// The client's metadata was cut.
    pub client_truncated: bool,
    /// It does not say which audiences were named; those that decided stand in for them.
    pub audiences_assumed: bool,
    /// It was denied because there was more client metadata than is looked at, and so than is recorded.
    pub client_too_large: bool,
}

/// Why a line is not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not JSON.
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON of another kind.
    #[error("not an audit record: {0}")]
    NoRecord(&'static str),
    /// A member of another type than the API gives it.
    #[error("not an audit record: {0}")]
    Member(#[from] JsonError),
}

impl Line {
    /// Reads one line. Blank lines are [`Line::Other`].
    ///
    /// # Errors
    /// [`RecordError`] if it is neither blank nor an audit record.
    pub fn read(line: &str) -> Result<Self, RecordError> {
        if line.trim().is_empty() {
            return Ok(Self::Other);
        }
        let Value::Object(mut members) = serde_json::from_str(line)? else {
            return Err(RecordError::NoRecord("not an object"));
        };
        if let Some(gap) = members.remove("gap") {
            return Ok(Self::gap(&from_value(gap)?));
        }
        if members.contains_key("checkpoint") {
            return Ok(Self::Other);
        }
        let value = members.remove("event").unwrap_or(Value::Object(members));
        let tells_what_was_asked =
            ["askedAudiences", "asked_audiences"].iter().any(|name| value.get(name).is_some());
        let mut event: AuditEvent = from_value(value)?;
        let audiences_assumed = !tells_what_was_asked;
        if audiences_assumed {
            // An older line: the audiences that decided are the best that is known.
            event.asked_audiences.clone_from(&event.audiences);
        }
        let line = Self::event(event)?;
        Ok(match line {
            Self::Call(recorded) => Self::Call(Box::new(RecordedCall { audiences_assumed, ..*recorded })),
            other => other,
        })
    }

    /// What a gap tells.
    #[must_use]
    pub const fn gap(gap: &Gap) -> Self {
        Self::Gap { count: gap.count }
    }

    /// What an event tells.
    ///
    /// # Errors
    /// [`RecordError::NoRecord`] if its kind or its method is unknown.
    pub fn event(event: AuditEvent) -> Result<Self, RecordError> {
        let allowed = match event.kind() {
            AuditEventKind::Expansion => true,
            AuditEventKind::Denial => false,
            AuditEventKind::PolicyChange | AuditEventKind::LogOpened | AuditEventKind::AccessChange => {
                return Ok(Self::Other);
            }
            AuditEventKind::Unspecified => return Err(RecordError::NoRecord("no known `kind`")),
        };
        let kind = match event.method.rsplit('/').next() {
            Some("ExpandRegistrationScopes") => RequestKind::Registration,
            Some("CheckAuthorizeScopes" | "BatchCheckAuthorizeScopes") => RequestKind::Authorize,
            Some("CheckTokenScopes" | "BatchCheckTokenScopes") => RequestKind::Token,
            _ => return Err(RecordError::NoRecord("no known `method`")),
        };
        let client_too_large = event.reason() == Reason::ClientTooLarge;
        let grant = call::grant(event.grant());
        let call = Call {
            kind,
            audiences: event.asked_audiences,
            scope: event.requested_scope,
            registered_scope: event.registered_scope,
            grant,
            granted_scope: event.granted_scope,
            client: event.client.unwrap_or_default(),
        };
        Ok(Self::Call(Box::new(RecordedCall {
            sequence: event.sequence,
            call,
            allowed,
            scope: event.effective_scope,
            client_truncated: event.client_truncated,
            audiences_assumed: false,
            client_too_large,
        })))
    }
}

#[cfg(test)]
mod tests;
