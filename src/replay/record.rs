//! Audit records in their JSON form, read back as the calls that they tell of.
//!
//! One record is one line: an `AuditEvent`, or a message of the stream with `event`, `gap` or
//! `checkpoint` in it, in the proto3 JSON mapping: names in lowerCamelCase or as in the proto, 64-bit
//! integers as strings or numbers, enums by name. Members that are not needed here are not looked at.

use serde_json::{Map, Value};

use crate::call::{Call, Moment, OwnedClient};
use crate::policy::ClientSource;

/// One line of the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Line {
    /// A call.
    Call(Box<Recorded>),
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
pub struct Recorded {
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
}

/// Why a line is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not JSON.
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON of another kind.
    #[error("not an audit record: {0}")]
    NoRecord(&'static str),
    /// A member of another type than the API gives it.
    #[error("`{name}` is not {expected}")]
    Member {
        /// The member.
        name: &'static str,
        /// What it should be.
        expected: &'static str,
    },
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
        let Value::Object(members) = serde_json::from_str(line)? else {
            return Err(RecordError::NoRecord("not an object"));
        };
        let members = Members(&members);
        if let Some(event) = members.object("event", "event")? {
            return Self::event(&event);
        }
        if let Some(gap) = members.object("gap", "gap")? {
            return Ok(Self::Gap { count: gap.number("count", "count")? });
        }
        if members.get("checkpoint", "checkpoint").is_some() {
            return Ok(Self::Other);
        }
        Self::event(&members)
    }

    fn event(event: &Members<'_>) -> Result<Self, RecordError> {
        let allowed = match event.text("kind", "kind")? {
            Some("AUDIT_EVENT_KIND_EXPANSION") => true,
            Some("AUDIT_EVENT_KIND_DENIAL") => false,
            Some("AUDIT_EVENT_KIND_POLICY_CHANGE") => return Ok(Self::Other),
            Some(_) => return Err(RecordError::NoRecord("unknown `kind`")),
            None => return Err(RecordError::NoRecord("no `kind`")),
        };
        let moment = match event.text("method", "method")?.and_then(|method| method.rsplit('/').next()) {
            Some("ExpandRegistrationScopes") => Moment::Register,
            Some("CheckAuthorizeScopes" | "BatchCheckAuthorizeScopes") => Moment::Authorize,
            _ => return Err(RecordError::NoRecord("unknown `method`")),
        };
        let client = match event.object("client", "client")? {
            Some(client) => read_client(&client)?,
            None => OwnedClient::default(),
        };
        let call = Call {
            moment,
            audiences: event.texts("audiences", "audiences")?,
            scope: event.text("requestedScope", "requested_scope")?.map(str::to_owned),
            registered_scope: event.text("registeredScope", "registered_scope")?.map(str::to_owned),
            client,
        };
        Ok(Self::Call(Box::new(Recorded {
            sequence: event.number("sequence", "sequence")?,
            call,
            allowed,
            scope: event.owned("effectiveScope", "effective_scope")?,
            client_truncated: event.flag("clientTruncated", "client_truncated")?,
        })))
    }
}

fn read_client(client: &Members<'_>) -> Result<OwnedClient, RecordError> {
    let source = match client.text("source", "source")? {
        Some("CLIENT_SOURCE_DCR") => Some(ClientSource::Dcr),
        Some("CLIENT_SOURCE_CIMD") => Some(ClientSource::Cimd),
        Some("CLIENT_SOURCE_STATIC") => Some(ClientSource::Static),
        // A source that this version does not know holds no rule.
        Some(_) | None => None,
    };
    Ok(OwnedClient {
        client_id: client.owned("clientId", "client_id")?,
        source,
        client_name: client.owned("clientName", "client_name")?,
        software_id: client.owned("softwareId", "software_id")?,
        software_version: client.owned("softwareVersion", "software_version")?,
        redirect_uris: client.texts("redirectUris", "redirect_uris")?,
        grant_types: client.texts("grantTypes", "grant_types")?,
        application_type: client.owned("applicationType", "application_type")?,
    })
}

/// The members of a message, by either of their names. `null` is the same as not there.
struct Members<'v>(&'v Map<String, Value>);

impl<'v> Members<'v> {
    fn get(&self, camel: &'static str, snake: &'static str) -> Option<&'v Value> {
        self.0.get(camel).or_else(|| self.0.get(snake)).filter(|value| !value.is_null())
    }

    fn object(&self, camel: &'static str, snake: &'static str) -> Result<Option<Self>, RecordError> {
        match self.get(camel, snake) {
            None => Ok(None),
            Some(Value::Object(members)) => Ok(Some(Members(members))),
            Some(_) => Err(RecordError::Member { name: camel, expected: "an object" }),
        }
    }

    fn text(&self, camel: &'static str, snake: &'static str) -> Result<Option<&'v str>, RecordError> {
        let error = RecordError::Member { name: camel, expected: "a string" };
        self.get(camel, snake).map(|value| value.as_str().ok_or(error)).transpose()
    }

    fn owned(&self, camel: &'static str, snake: &'static str) -> Result<String, RecordError> {
        Ok(self.text(camel, snake)?.unwrap_or_default().to_owned())
    }

    fn texts(&self, camel: &'static str, snake: &'static str) -> Result<Vec<String>, RecordError> {
        let error = || RecordError::Member { name: camel, expected: "a list of strings" };
        let Some(value) = self.get(camel, snake) else { return Ok(Vec::new()) };
        let entries = value.as_array().ok_or_else(error)?;
        entries.iter().map(|entry| entry.as_str().map(str::to_owned).ok_or_else(error)).collect()
    }

    fn number(&self, camel: &'static str, snake: &'static str) -> Result<u64, RecordError> {
        let error = RecordError::Member { name: camel, expected: "a whole number" };
        match self.get(camel, snake) {
            None => Ok(0),
            Some(value) => {
                value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok())).ok_or(error)
            }
        }
    }

    fn flag(&self, camel: &'static str, snake: &'static str) -> Result<bool, RecordError> {
        let error = RecordError::Member { name: camel, expected: "a boolean" };
        self.get(camel, snake).map_or(Ok(false), |value| value.as_bool().ok_or(error))
    }
}

#[cfg(test)]
mod tests;
