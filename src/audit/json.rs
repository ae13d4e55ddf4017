//! Records as JSON: one object, in the names and forms of the proto3 JSON mapping.
//!
//! 64-bit numbers are strings, bytes are base64, times are RFC 3339 in UTC, enum values have their
//! wire names. Unlike the mapping's default, members are there even when they are empty, so that
//! consumers find a stable shape; only what an event does not have at all is left out. The same
//! record always becomes the same bytes. `docs/reference/audit-event.schema.json` describes a
//! line.

use std::time::SystemTime;

use serde::Serialize;

use super::chain::{Body, Gap, Hash, Record, to_nanos};
use super::event::{AuditEvent, ClientSource, Origin, Reason};

/// Writes a record as one line of JSON without the line break.
///
/// An event is an object with its members; anything else is marked by being inside a member
/// `gap`.
#[must_use]
pub fn line(record: &Record) -> String {
    match &record.body {
        Body::Event(event) => object(&EventJson::new(record, event)),
        Body::Gap(gap) => gap_line(&GapJson::new(record, gap)),
    }
}

/// The line for records that retention deleted before they could be written: all from the first
/// to the last sequence.
#[must_use]
pub(super) fn retention_line(log_id: &str, first: u64, last: u64, time: SystemTime) -> String {
    gap_line(&GapJson {
        log_id: log_id.to_owned(),
        sequence: last.to_string(),
        count: (last + 1 - first).to_string(),
        reason: "retention",
        first_time: timestamp(time),
        last_time: timestamp(time),
    })
}

/// A time in RFC 3339, in UTC, with 0, 3, 6 or 9 digits of fraction.
#[must_use]
pub fn timestamp(time: SystemTime) -> String {
    let nanos = to_nanos(time);
    let (seconds, fraction) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = match fraction {
        0 => String::new(),
        nanos if nanos % 1_000_000 == 0 => format!(".{:03}", nanos / 1_000_000),
        nanos if nanos % 1_000 == 0 => format!(".{:06}", nanos / 1_000),
        nanos => format!(".{nanos:09}"),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
const fn civil(days: i64) -> (i64, i64, i64) {
    // Years that begin in March have the leap day at their end; 146,097 days are 400 years.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400;
    (if month <= 2 { year + 1 } else { year }, month, day)
}

/// Bytes in base64 with padding (RFC 4648 section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| chunk.get(at).map_or(0, |byte| u32::from(*byte));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = (word >> (18 - 6 * place) & 0x3f) as usize;
            let letter = ALPHABET.get(digit).map_or('=', |letter| char::from(*letter));
            text.push(if place <= chunk.len() { letter } else { '=' });
        }
    }
    text
}

fn gap_line(gap: &GapJson) -> String {
    #[derive(Serialize)]
    struct Marked<'a> {
        gap: &'a GapJson,
    }
    object(&Marked { gap })
}

fn object(value: &impl Serialize) -> String {
    // Writing plain text and numbers to memory cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventJson<'a> {
    log_id: String,
    sequence: String,
    event_id: String,
    event_time: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_id: Option<String>,
    method: &'a str,
    audiences: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<ClientJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_scope: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registered_scope: Option<&'a str>,
    effective_scope: &'a str,
    added: Vec<AddedJson<'a>>,
    refused: Vec<RefusedJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    policy: PolicyJson<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_change: Option<PolicyChangeJson<'a>>,
    caller: CallerJson<'a>,
    peer: &'a str,
    trace_id: &'a str,
    attempt: u32,
    client_truncated: bool,
    prev_hash: String,
    hash: String,
}

impl<'a> EventJson<'a> {
    fn new(record: &Record, event: &'a AuditEvent) -> Self {
        let hash = |hash: &Hash| base64(hash);
        Self {
            log_id: record.log_id.to_string(),
            sequence: record.sequence.to_string(),
            event_id: event.event_id.to_string(),
            event_time: timestamp(event.event_time),
            kind: event.kind.wire_name(),
            decision_id: event.decision_id.map(|id| id.to_string()),
            method: &event.method,
            audiences: &event.audiences,
            client: event.client().map(|client| ClientJson {
                client_id: &client.client_id,
                source: client.source.map(ClientSource::wire_name),
                client_name: &client.client_name,
                software_id: &client.software_id,
                software_version: &client.software_version,
                redirect_uris: &client.redirect_uris,
                grant_types: &client.grant_types,
                application_type: &client.application_type,
            }),
            requested_scope: event.requested_scope.as_deref(),
            registered_scope: event.registered_scope.as_deref(),
            effective_scope: &event.effective_scope,
            added: event
                .added
                .iter()
                .map(|added| AddedJson {
                    scope: &added.scope,
                    origin: Origin::wire_name(added.origin),
                    rule: &added.rule,
                })
                .collect(),
            refused: event
                .refused
                .iter()
                .map(|refused| RefusedJson {
                    scope: &refused.scope,
                    reason: refused.reason.wire_name(),
                    message: &refused.message,
                })
                .collect(),
            reason: event.reason.map(Reason::wire_name),
            policy: PolicyJson {
                generation: event.policy.generation.to_string(),
                digest: &event.policy.digest,
            },
            policy_change: event.policy_change.as_ref().map(|change| PolicyChangeJson {
                accepted: change.accepted,
                previous_digest: &change.previous_digest,
                finding_count: change.finding_count,
            }),
            caller: CallerJson { name: &event.caller.name, authenticated_by: &event.caller.authenticated_by },
            peer: &event.peer,
            trace_id: &event.trace_id,
            attempt: event.attempt,
            client_truncated: event.client_truncated(),
            prev_hash: hash(&record.prev_hash),
            hash: hash(&record.hash),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ClientJson<'a> {
    client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
    client_name: &'a str,
    software_id: &'a str,
    software_version: &'a str,
    redirect_uris: &'a [String],
    grant_types: &'a [String],
    application_type: &'a str,
}

#[derive(Serialize)]
struct AddedJson<'a> {
    scope: &'a str,
    origin: &'static str,
    rule: &'a str,
}

#[derive(Serialize)]
struct RefusedJson<'a> {
    scope: &'a str,
    reason: &'static str,
    message: &'a str,
}

#[derive(Serialize)]
struct PolicyJson<'a> {
    generation: String,
    digest: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PolicyChangeJson<'a> {
    accepted: bool,
    previous_digest: &'a str,
    finding_count: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CallerJson<'a> {
    name: &'a str,
    authenticated_by: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GapJson {
    log_id: String,
    sequence: String,
    count: String,
    reason: &'static str,
    first_time: String,
    last_time: String,
}

impl GapJson {
    fn new(record: &Record, gap: &Gap) -> Self {
        Self {
            log_id: record.log_id.to_string(),
            sequence: record.sequence.to_string(),
            count: gap.count.to_string(),
            reason: gap.reason.wire_name(),
            first_time: timestamp(gap.first_time),
            last_time: timestamp(gap.last_time),
        }
    }
}

#[cfg(test)]
mod tests;
