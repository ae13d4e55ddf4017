//! The way back: events and gaps of the stream as the records that they were made from, so that a
//! client can compute their hashes for itself.
//!
//! The canonical encoding that the hashes cover is that of `docs/reference/audit-chain.md`.

use std::time::SystemTime;

use prost_types::Timestamp;
use thiserror::Error;
use uuid::Uuid;

use crate::audit::{
    AddedScope, AuditEvent, Body, Caller, Client, ClientSource, EventKind, Gap, GapReason, Hash, Origin,
    PolicyChange, PolicyVersion, Reason, Record, RefusedScope,
};
use crate::rpc::v1;

/// Why a message is not one that a record becomes. Only a server that changed it sends such.
#[derive(Debug, Error)]
#[error("`{field}` {problem}")]
pub struct ReceivedError {
    /// The field of the message.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

/// The record that an event was made from. Its hash is the one that came with it, right or wrong:
/// compare it with [`Record::expected_hash`].
///
/// # Errors
///
/// If a field does not have the form that the service gives it.
pub fn event_record(event: v1::AuditEvent) -> Result<Record, ReceivedError> {
    Ok(Record {
        log_id: uuid("log_id", &event.log_id)?,
        sequence: event.sequence,
        prev_hash: hash("prev_hash", &event.prev_hash)?,
        hash: hash("hash", &event.hash)?,
        body: Body::Event(Box::new(body(event)?)),
    })
}

/// The record that a gap was made from. The message has no hashes: `prev_hash` is that of the record
/// before, and the record's own is computed, so that what follows must name it.
///
/// # Errors
///
/// If a field does not have the form that the service gives it.
pub fn gap_record(gap: &v1::Gap, prev_hash: Hash) -> Result<Record, ReceivedError> {
    let v1::Gap { log_id, sequence, count, reason, first_time, last_time, reason_counts: _ } = gap;
    let body = Body::Gap(Gap {
        count: *count,
        reason: GapReason::from_wire_name(reason)
            .ok_or_else(|| wrong("reason", format!("has the unknown value `{reason}`")))?,
        first_time: time("first_time", *first_time)?,
        last_time: time("last_time", *last_time)?,
    });
    let log_id = uuid("log_id", log_id)?;
    let mut record = Record { log_id, sequence: *sequence, prev_hash, hash: Hash::default(), body };
    record.hash = record.expected_hash();
    Ok(record)
}

/// A hash as the messages have it.
///
/// # Errors
///
/// If it does not have 32 bytes.
pub fn hash(field: &'static str, bytes: &[u8]) -> Result<Hash, ReceivedError> {
    bytes.try_into().map_err(|_| wrong(field, format!("has {} bytes, a hash has 32", bytes.len())))
}

fn body(message: v1::AuditEvent) -> Result<AuditEvent, ReceivedError> {
    let v1::AuditEvent {
        log_id: _,
        sequence: _,
        event_id,
        event_time,
        kind,
        decision_id,
        method,
        audiences,
        client,
        requested_scope,
        registered_scope,
        effective_scope,
        added,
        refused,
        reason,
        policy,
        policy_change,
        caller,
        peer,
        trace_id,
        attempt,
        client_truncated,
        prev_hash: _,
        hash: _,
        ..
    } = message;
    let kind = required("kind", kind, EventKind::from_code)?;
    let event_time = time("event_time", event_time)?;
    let mut event = AuditEvent::new_with_id(uuid("event_id", &event_id)?, kind, event_time);
    event.decision_id = match &*decision_id {
        "" => None,
        id => Some(uuid("decision_id", id)?),
    };
    event.method = method;
    event.audiences = audiences;
    event.requested_scope = requested_scope;
    event.registered_scope = registered_scope;
    event.effective_scope = effective_scope;
    event.added = each(added, |v1::AddedScope { scope, origin, rule }| {
        Ok(AddedScope { scope, origin: required("added.origin", origin, Origin::from_code)?, rule })
    })?;
    event.refused = each(refused, |v1::RefusedScope { scope, reason, message }| {
        Ok(RefusedScope { scope, reason: required("refused.reason", reason, Reason::from_code)?, message })
    })?;
    event.reason = optional("reason", reason, Reason::from_code)?;
    let v1::PolicyVersion { generation, digest } = policy.unwrap_or_default();
    event.policy = PolicyVersion { generation, digest };
    event.policy_change = policy_change.map(|change| {
        let v1::PolicyChange { accepted, previous_digest, finding_count, .. } = change;
        PolicyChange { accepted, previous_digest, finding_count }
    });
    let v1::Caller { name, authenticated_by } = caller.unwrap_or_default();
    event.caller = Caller { name, authenticated_by };
    event.peer = peer;
    event.trace_id = trace_id;
    event.attempt = attempt;
    event.claim_stored(client.map(claims).transpose()?, client_truncated);
    Ok(event)
}

fn claims(client: v1::Client) -> Result<Client, ReceivedError> {
    let v1::Client {
        client_id,
        source,
        client_name,
        software_id,
        software_version,
        redirect_uris,
        grant_types,
        application_type,
    } = client;
    Ok(Client {
        client_id,
        source: optional("client.source", source, ClientSource::from_code)?,
        client_name,
        software_id,
        software_version,
        redirect_uris,
        grant_types,
        application_type,
    })
}

fn each<T, U>(
    list: Vec<T>,
    convert: impl Fn(T) -> Result<U, ReceivedError>,
) -> Result<Vec<U>, ReceivedError> {
    list.into_iter().map(convert).collect()
}

fn uuid(field: &'static str, text: &str) -> Result<Uuid, ReceivedError> {
    // Only the form that the service writes, so that a text that was changed is not taken for the same.
    match Uuid::parse_str(text) {
        Ok(id) if id.to_string() == text => Ok(id),
        _ => Err(wrong(field, format!("is `{text}`, which is no UUID"))),
    }
}

fn time(field: &'static str, time: Option<Timestamp>) -> Result<SystemTime, ReceivedError> {
    let time = time.ok_or_else(|| wrong(field, "is not set".to_owned()))?;
    SystemTime::try_from(time).map_err(|error| wrong(field, format!("is no time: {error}")))
}

fn required<T>(field: &'static str, value: i32, from: fn(u8) -> Option<T>) -> Result<T, ReceivedError> {
    optional(field, value, from)?.ok_or_else(|| wrong(field, "is not set".to_owned()))
}

/// The value of an enum; `None` for the number 0, which stands for none.
fn optional<T>(
    field: &'static str,
    value: i32,
    from: fn(u8) -> Option<T>,
) -> Result<Option<T>, ReceivedError> {
    match u8::try_from(value).ok().map(|code| (code, from(code))) {
        Some((0, _)) => Ok(None),
        Some((_, Some(known))) => Ok(Some(known)),
        _ => Err(wrong(field, format!("has the unknown value {value}"))),
    }
}

const fn wrong(field: &'static str, problem: String) -> ReceivedError {
    ReceivedError { field, problem }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::audit::GENESIS_HASH;
    use crate::rpc::audit::record_message;
    use crate::rpc::v1::stream_audit_events_response::Message;

    /// An event in which nothing is empty.
    fn full() -> AuditEvent {
        let time = UNIX_EPOCH + Duration::new(1_800_000_000, 123_456_789);
        let mut event = AuditEvent::new(EventKind::Expansion, time);
        event.decision_id = Some(Uuid::now_v7());
        event.method = "/scopeward.v1.ScopePolicyService/CheckAuthorizeScopes".to_owned();
        event.audiences = vec!["https://a.example".to_owned(), "b".to_owned()];
        let client = Client {
            client_id: "client".to_owned(),
            source: Some(ClientSource::Cimd),
            client_name: "größe".to_owned(),
            software_id: "s".to_owned(),
            software_version: "1".to_owned(),
            redirect_uris: vec!["http://localhost/".to_owned()],
            grant_types: vec!["authorization_code".to_owned()],
            application_type: "native".to_owned(),
        };
        event.claim_stored(Some(client), true);
        event.requested_scope = Some(String::new());
        event.registered_scope = Some(" x".to_owned());
        event.effective_scope = "x y".to_owned();
        event.added =
            vec![AddedScope { scope: "y".to_owned(), origin: Origin::StepUp, rule: "rule".to_owned() }];
        event.refused =
            vec![RefusedScope { scope: "\t".to_owned(), reason: Reason::Malformed, message: "m".to_owned() }];
        event.reason = Some(Reason::NothingGranted);
        event.policy = PolicyVersion { generation: 7, digest: "sha256:00".to_owned() };
        event.policy_change =
            Some(PolicyChange { accepted: true, previous_digest: "sha256:11".to_owned(), finding_count: 3 });
        event.caller = Caller { name: "spiffe://a".to_owned(), authenticated_by: "mtls".to_owned() };
        event.peer = "127.0.0.1:1".to_owned();
        event.trace_id = "0a".repeat(16);
        event.attempt = 2;
        event
    }

    fn sealed(sequence: u64, body: Body) -> Record {
        let hash = if sequence == 1 { GENESIS_HASH } else { [sequence as u8; 32] };
        let mut record = Record { log_id: Uuid::new_v4(), sequence, prev_hash: hash, hash: [0; 32], body };
        record.hash = record.expected_hash();
        record
    }

    fn event_message(record: &Record) -> v1::AuditEvent {
        match record_message(record.clone()) {
            Message::Event(event) => event,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_event_comes_back_as_the_record_that_it_was() {
        let empty = AuditEvent::new(EventKind::PolicyChange, UNIX_EPOCH - Duration::from_nanos(1));
        for event in [full(), empty] {
            let record = sealed(9, Body::Event(Box::new(event)));
            let received = event_record(event_message(&record)).unwrap();
            assert_eq!(received, record);
            assert_eq!(received.expected_hash(), record.hash);
        }
    }

    #[test]
    fn a_gap_comes_back_with_the_hash_that_the_next_record_names() {
        for reason in GapReason::ALL {
            let time = UNIX_EPOCH + Duration::from_nanos(1_234_567_890);
            let gap = Gap {
                count: 300,
                reason: *reason,
                first_time: time,
                last_time: time + Duration::from_secs(5),
            };
            let record = sealed(2, Body::Gap(gap));
            let Message::Gap(message) = record_message(record.clone()) else { panic!("no gap") };
            assert_eq!(gap_record(&message, record.prev_hash).unwrap(), record);
        }
    }

    #[test]
    fn no_field_of_an_event_can_be_changed_without_changing_its_hash() {
        let record = sealed(9, Body::Event(Box::new(full())));
        let message = event_message(&record);
        let bytes = prost::Message::encode_to_vec(&message);
        let mut read = 0;
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let Ok(changed) = <v1::AuditEvent as prost::Message>::decode(&*changed) else { continue };
                // Fields that are not known any more, or were 0 and are not sent, leave the message as it was.
                if changed == message {
                    continue;
                }
                let Ok(received) = event_record(changed.clone()) else { continue };
                read += 1;
                assert!(received.expected_hash() != received.hash, "{changed:?}");
            }
        }
        assert!(read > 1000, "only {read} changes gave a record");
    }

    #[test]
    fn what_the_service_never_sends_is_named() {
        #[track_caller]
        fn check(field: &str, change: impl FnOnce(&mut v1::AuditEvent)) {
            let mut message = event_message(&sealed(1, Body::Event(Box::new(full()))));
            change(&mut message);
            assert_eq!(event_record(message).unwrap_err().field, field);
        }
        check("log_id", |event| event.log_id = event.log_id.to_uppercase());
        check("kind", |event| event.kind = 0);
        check("reason", |event| event.reason = 256);
        check("event_time", |event| event.event_time = None);
        check("hash", |event| event.hash.truncate(31));
        check("added.origin", |event| event.added[0].origin = -1);
    }
}
