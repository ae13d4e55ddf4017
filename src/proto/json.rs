//! Our messages as JSON, as the proto3 JSON mapping has it: lowerCamelCase names, enums by name, 64-bit integers as strings,
//! times in RFC 3339. Fields with their default value are printed too, so that a reader sees `"added": []` and not nothing;
//! only unset messages, unset optional fields and unset oneofs are left out. One thing is not as in the mapping: our bytes are
//! hashes, and are printed as hexadecimal digits instead of base64.
//!
//! Goes through the descriptors of `FILE_DESCRIPTOR_SET`, so it needs no code of its own for a new field.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use prost::{Message, Name};
use prost_reflect::{
    DescriptorError, DescriptorPool, DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MapKey,
    MessageDescriptor, ReflectMessage, Value,
};
use prost_types::{Duration, Timestamp};
use serde::ser::{Error as _, Serialize, SerializeMap, Serializer};
use serde_json::json;
use thiserror::Error;

use super::FILE_DESCRIPTOR_SET;
use crate::escape;
use crate::hex;
use crate::strict_json::{StrictJson, StrictJsonError};

/// Why a message and its JSON cannot be turned into one another.
#[derive(Debug, Error)]
pub enum JsonError {
    /// The descriptors that were compiled in cannot be read. Does not happen.
    #[error("descriptors could not be read")]
    Descriptors(#[source] DescriptorError),
    /// The descriptors do not have the message. Does not happen to the messages of `proto::v1`.
    #[error("message `{name}` is not described")]
    Unknown {
        /// The full protobuf name.
        name: String,
    },
    /// The message does not fit its description. Does not happen to the messages of `proto::v1`.
    #[error("message `{name}` does not fit its description")]
    Mismatch {
        /// The full protobuf name.
        name: String,
        /// What does not fit.
        #[source]
        source: prost::DecodeError,
    },
    /// A value has no JSON form, such as a time outside of the years 1 to 9999.
    #[error("message `{name}` has no JSON form")]
    Serialize {
        /// The full protobuf name.
        name: String,
        /// The value and why.
        #[source]
        source: serde_json::Error,
    },
    /// The JSON is not that of the message.
    #[error("`{member}`: {source}")]
    Read {
        /// The first member of the message that does not have the type of its field; empty if it is none of them.
        member: String,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
}

/// The message as one line of JSON, without a line break at the end. Members stand in the order of the field numbers, and
/// those of a map in the order of their keys.
///
/// # Errors
///
/// If the message is not one of `proto::v1`, or has a value without a JSON form.
pub fn to_string<M: Message + Name>(message: &M) -> Result<String, JsonError> {
    with(message, |message| escape::json(message))
}

/// The message as JSON for people: indented by two spaces, without a line break at the end.
///
/// # Errors
///
/// As [`to_string`].
pub fn to_string_pretty<M: Message + Name>(message: &M) -> Result<String, JsonError> {
    with(message, |message| escape::json_pretty(message))
}

/// The message as one line of JSON without the fields that have their default value: as a person writes a request.
///
/// # Errors
///
/// As [`to_string`].
pub fn to_string_of_set<M: Message + Name>(message: &M) -> Result<String, JsonError> {
    let fault = |source| JsonError::Mismatch { name: M::full_name(), source };
    let message =
        DynamicMessage::decode(descriptor::<M>()?, message.encode_to_vec().as_slice()).map_err(fault)?;
    escape::json(&message).map_err(|source| JsonError::Serialize { name: M::full_name(), source })
}

/// Reads a message. Members that it does not have are ignored, and names may be as in the proto. Bytes may be in base64 too.
///
/// # Errors
///
/// If a member does not have the type of its field.
pub fn from_value<M: Message + Name + Default>(mut value: serde_json::Value) -> Result<M, JsonError> {
    let descriptor = descriptor::<M>()?;
    bytes_to_base64(&descriptor, &mut value);
    let read = |value: serde_json::Value| {
        let options = DeserializeOptions::new().deny_unknown_fields(false);
        DynamicMessage::deserialize_with_options(descriptor.clone(), value, &options)
    };
    let message = read(value.clone()).map_err(|source| {
        // The library does not say which: only one of them alone does.
        let members = value.as_object().into_iter().flatten();
        let alone = |(name, value): (&String, &serde_json::Value)| json!({ name.as_str(): value });
        let member =
            members.filter(|member| read(alone(*member)).is_err()).map(|(name, _)| name.clone()).next();
        JsonError::Read { member: member.unwrap_or_default(), source }
    })?;
    message.transcode_to().map_err(|source| JsonError::Mismatch { name: M::full_name(), source })
}

/// Why a text is not a message of a kind.
#[derive(Debug, Error)]
pub enum JsonTextError {
    /// It is not JSON that all parsers read alike.
    #[error("it is not valid JSON: {0}")]
    Json(#[from] StrictJsonError),
    /// It does not have the fields of the message, or not their types.
    #[error("{0}")]
    Fields(serde_json::Error),
    /// Two members mean the same field, since names may be as in the proto too.
    #[error("`{}` and `{}` are the same field", escape::shown(.first), escape::shown(.second))]
    Twice {
        /// The one that comes first.
        first: String,
        /// The other one.
        second: String,
    },
}

/// Reads a message from a JSON text of somebody who may have written it by hand: a member that the message does not have is an error,
/// as the mapping has it, and so is one that is there twice. Bytes are in base64.
///
/// # Errors
///
/// [`JsonTextError`], with the place in the text where there is one.
pub fn read_text(descriptor: &MessageDescriptor, text: &[u8]) -> Result<DynamicMessage, JsonTextError> {
    check_names(descriptor, &StrictJson::read(text)?)?;
    let mut reader = serde_json::Deserializer::from_slice(text);
    DynamicMessage::deserialize(descriptor.clone(), &mut reader).map_err(JsonTextError::Fields)
}

/// Finds fields that are named twice, by both of their names.
fn check_names(descriptor: &MessageDescriptor, value: &StrictJson) -> Result<(), JsonTextError> {
    let mut seen: Vec<(u32, &str)> = Vec::new();
    for (name, value) in value.members().unwrap_or_default() {
        let Some(field) = field_of(descriptor, name) else { continue };
        if let Some((_, first)) = seen.iter().find(|(number, _)| *number == field.number()) {
            return Err(JsonTextError::Twice { first: (*first).to_owned(), second: name.clone() });
        }
        seen.push((field.number(), name));
        let Kind::Message(inner) = field.kind() else { continue };
        match value {
            StrictJson::Array(values) => values.iter().try_for_each(|value| check_names(&inner, value))?,
            value if !field.is_map() => check_names(&inner, value)?,
            _ => {}
        }
    }
    Ok(())
}

/// The field that a member stands for.
fn field_of(descriptor: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    descriptor.get_field_by_json_name(name).or_else(|| descriptor.get_field_by_name(name))
}

/// A message of any kind, to be written as JSON.
#[derive(Clone, Copy, Debug)]
pub struct MessageJson<'a>(pub &'a DynamicMessage);

impl Serialize for MessageJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        JsonValue::Message(self.0).serialize(serializer)
    }
}

fn with<M: Message + Name>(
    message: &M,
    write: impl FnOnce(&JsonValue<'_>) -> serde_json::Result<String>,
) -> Result<String, JsonError> {
    let message = match DynamicMessage::decode(descriptor::<M>()?, message.encode_to_vec().as_slice()) {
        Ok(message) => message,
        Err(source) => return Err(JsonError::Mismatch { name: M::full_name(), source }),
    };
    write(&JsonValue::Message(&message))
        .map_err(|source| JsonError::Serialize { name: M::full_name(), source })
}

fn descriptor<M: Name>() -> Result<MessageDescriptor, JsonError> {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    let pool = match POOL.get() {
        Some(pool) => pool,
        None => {
            let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).map_err(JsonError::Descriptors)?;
            POOL.get_or_init(|| pool)
        }
    };
    let name = M::full_name();
    pool.get_message_by_name(&name).ok_or(JsonError::Unknown { name })
}

/// A message, or a value of one of its fields.
enum JsonValue<'a> {
    Message(&'a DynamicMessage),
    Field(&'a Value, Kind),
}

impl Serialize for JsonValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Message(message) if message.descriptor().full_name() == TIMESTAMP => serializer
                .collect_str(&time(message).ok_or_else(|| S::Error::custom("the time is out of range"))?),
            Self::Message(message) if message.descriptor().full_name() == DURATION => serializer
                .collect_str(&duration(message).ok_or_else(|| S::Error::custom("the duration is not one"))?),
            Self::Message(message) => {
                let mut members = serializer.serialize_map(None)?;
                for field in message.descriptor().fields() {
                    if !field.supports_presence() || message.has_field(&field) {
                        let value = message.get_field(&field);
                        members
                            .serialize_entry(field.json_name(), &JsonValue::Field(&value, field.kind()))?;
                    }
                }
                members.end()
            }
            Self::Field(value, kind) => match value {
                Value::Bool(value) => serializer.serialize_bool(*value),
                Value::I32(value) => serializer.serialize_i32(*value),
                Value::U32(value) => serializer.serialize_u32(*value),
                Value::I64(value) => serializer.collect_str(value),
                Value::U64(value) => serializer.collect_str(value),
                Value::F32(value) => serializer.serialize_f32(*value),
                Value::F64(value) => serializer.serialize_f64(*value),
                Value::String(value) => serializer.serialize_str(value),
                Value::Bytes(value) => serializer.serialize_str(&hex::encode(value)),
                Value::EnumNumber(number) => {
                    match kind.as_enum().and_then(|described| described.get_value(*number)) {
                        Some(value) => serializer.serialize_str(value.name()),
                        // As the mapping has it for a value of a newer version.
                        None => serializer.serialize_i32(*number),
                    }
                }
                Value::Message(message) => JsonValue::Message(message).serialize(serializer),
                Value::List(values) => {
                    serializer.collect_seq(values.iter().map(|value| JsonValue::Field(value, kind.clone())))
                }
                Value::Map(entries) => {
                    let of_entry = kind
                        .as_message()
                        .map_or_else(|| kind.clone(), |entry| entry.map_entry_value_field().kind());
                    let mut entries: Vec<(String, &Value)> =
                        entries.iter().map(|(key, value)| (key_text(key), value)).collect();
                    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
                    serializer.collect_map(
                        entries
                            .into_iter()
                            .map(|(key, value)| (key, JsonValue::Field(value, of_entry.clone()))),
                    )
                }
            },
        }
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

/// RFC 3339 in UTC, with 0, 3, 6 or 9 digits of fraction; `None` outside of what the mapping allows.
fn time(message: &DynamicMessage) -> Option<Timestamp> {
    let seconds = message.get_field_by_name("seconds")?.as_i64()?;
    let nanos = message.get_field_by_name("nanos")?.as_i32()?;
    Some(Timestamp { seconds, nanos }).filter(is_in_range)
}

/// Seconds with a fraction where there is one, such as `1.500s`.
fn duration(message: &DynamicMessage) -> Option<Duration> {
    let seconds = message.get_field_by_name("seconds")?.as_i64()?;
    let nanos = message.get_field_by_name("nanos")?.as_i32()?;
    Some(Duration { seconds, nanos })
}

/// Returns `true` for a time from the year 1 to 9999, which are those that `google.protobuf.Timestamp` allows.
#[must_use]
pub fn is_in_range(time: &Timestamp) -> bool {
    let Timestamp { seconds, nanos } = time;
    (FIRST_SECOND..=LAST_SECOND).contains(seconds) && (0..1_000_000_000).contains(nanos)
}

/// Turns hexadecimal digits into base64 wherever a message has bytes. Anything else stays as it is.
fn bytes_to_base64(descriptor: &MessageDescriptor, value: &mut serde_json::Value) {
    let Some(members) = value.as_object_mut() else { return };
    for (name, value) in members {
        match field_of(descriptor, name).map(|field| (field.kind(), field.is_list() || field.is_map())) {
            Some((Kind::Bytes, false)) => {
                if let Some(bytes) = value.as_str().and_then(hex::decode) {
                    *value = BASE64.encode(bytes).into();
                }
            }
            Some((Kind::Message(inner), false)) if inner.full_name() != TIMESTAMP => {
                bytes_to_base64(&inner, value)
            }
            _ => {}
        }
    }
}

const TIMESTAMP: &str = "google.protobuf.Timestamp";
const DURATION: &str = "google.protobuf.Duration";
/// 0001-01-01T00:00:00Z.
const FIRST_SECOND: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z.
const LAST_SECOND: i64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1;
    use serde_json::{Value, json};

    #[track_caller]
    fn check<M: Message + Name>(message: &M, expected: Value) {
        let line = to_string(message).expect("a message of ours has a JSON form");
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Value>(&line).expect("JSON"), expected);
        let pretty = to_string_pretty(message).expect("a message of ours has a JSON form");
        assert_eq!(serde_json::from_str::<Value>(&pretty).expect("JSON"), expected);
    }

    #[test]
    fn decision_has_enums_by_name_and_camel_case() {
        let message = v1::CheckAuthorizeScopesResponse {
            decision: v1::Decision::Deny.into(),
            oauth_error: Some(v1::OAuthError {
                error: "invalid_scope".into(),
                error_description: String::new(),
            }),
            reason: v1::Reason::ScopeRequired.into(),
            policy: Some(v1::PolicyVersion { generation: u64::MAX, digest: "sha256:00".into() }),
            ..Default::default()
        };
        check(
            &message,
            json!({
                "decision": "DECISION_DENY",
                "scope": "",
                "added": [],
                "refused": [],
                "oauthError": {"error": "invalid_scope", "errorDescription": ""},
                "policy": {"generation": "18446744073709551615", "digest": "sha256:00"},
                "decisionId": "",
                "reason": "REASON_SCOPE_REQUIRED",
                "effectiveRegisteredScope": "",
                "audienceGrants": [],
            }),
        );
    }

    #[test]
    fn unset_optional_and_empty_optional_differ() {
        check(&v1::ExpandRegistrationScopesRequest::default(), json!({"audiences": [], "correlationId": ""}));
        let empty = v1::ExpandRegistrationScopesRequest { scope: Some(String::new()), ..Default::default() };
        check(&empty, json!({"audiences": [], "scope": "", "correlationId": ""}));
    }

    #[test]
    fn bytes_are_hexadecimal_and_times_rfc_3339() {
        let message = v1::Checkpoint {
            log_id: "l".into(),
            durable_sequence: 7,
            head_hash: vec![0xff, 0],
            server_time: Some(prost_types::Timestamp { seconds: 0, nanos: 500_000_000 }),
        };
        check(
            &message,
            json!({
                "logId": "l",
                "durableSequence": "7",
                "headHash": "ff00",
                "serverTime": "1970-01-01T00:00:00.500Z",
            }),
        );
    }

    #[test]
    fn oneof_prints_only_what_is_set() {
        let error = v1::CheckError { code: 3, reason: "LIMIT_EXCEEDED".into(), message: "m".into() };
        let message = v1::BatchCheckResult { result: Some(v1::batch_check_result::Result::Error(error)) };
        check(&message, json!({"error": {"code": 3, "reason": "LIMIT_EXCEEDED", "message": "m"}}));
    }

    #[test]
    fn members_stand_in_field_order() {
        let text =
            to_string_pretty(&v1::AudienceGrant { audience: "a".into(), scope: "s".into() }).expect("JSON");
        assert_eq!(text, "{\n  \"audience\": \"a\",\n  \"scope\": \"s\"\n}");
    }

    #[test]
    fn time_without_a_json_form_is_an_error() {
        let server_time = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 });
        let message = v1::Checkpoint { server_time, ..Default::default() };
        assert!(matches!(to_string(&message), Err(JsonError::Serialize { .. })));
    }

    #[test]
    fn maps_stand_in_the_order_of_their_keys() {
        let reason_counts = [("b".to_owned(), 2), ("a".to_owned(), u64::MAX)].into();
        let text = to_string(&v1::Gap { reason_counts, ..Default::default() }).expect("JSON");
        assert!(text.ends_with(r#""reasonCounts":{"a":"18446744073709551615","b":"2"}}"#), "{text}");
    }

    #[test]
    fn a_message_is_read_back_as_it_was() {
        let event = v1::AuditEvent {
            log_id: "l".into(),
            sequence: u64::MAX,
            event_time: Some(prost_types::Timestamp { seconds: 1, nanos: 1 }),
            kind: v1::AuditEventKind::Denial.into(),
            client: Some(v1::Client::default()),
            requested_scope: Some(String::new()),
            refused: vec![v1::RefusedScope { scope: "\t".into(), reason: 1, message: String::new() }],
            reason: 99,
            prev_hash: vec![0xab; 32],
            hash: vec![0xcd; 32],
            log_opened: Some(v1::LogOpened { previous_hash: vec![1; 32], ..Default::default() }),
            ..Default::default()
        };
        let text = to_string(&event).expect("JSON");
        let mut value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(from_value::<v1::AuditEvent>(value.clone()).expect("a message"), event);
        // As it was written before hashes were hexadecimal, and by other programs.
        value["hash"] = "zc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc0=".into();
        value["client_truncated"] = true.into();
        value["sequence"] = 7.into();
        value["fromTheFuture"] = 1.into();
        let read: v1::AuditEvent = from_value(value.clone()).expect("a message");
        assert_eq!((read.hash, read.client_truncated, read.sequence), (vec![0xcd; 32], true, 7));
        value["sequence"] = "x".into();
        assert!(
            matches!(from_value::<v1::AuditEvent>(value), Err(JsonError::Read { member, .. }) if member == "sequence")
        );
    }
}
