//! Our messages as JSON, as the proto3 JSON mapping has it: lowerCamelCase names, enums by name, 64-bit integers as strings,
//! bytes in base64, times in RFC 3339. Fields with their default value are printed too, so that a reader sees `"added": []`
//! and not nothing; only unset messages, unset optional fields and unset oneofs are left out.
//!
//! Goes through the descriptors of `FILE_DESCRIPTOR_SET`, so it needs no code of its own for a new field.

use std::sync::OnceLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorError, DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Serializer;
use thiserror::Error;

use crate::rpc::FILE_DESCRIPTOR_SET;

/// Why a message could not be shown as JSON. None of it happens to the messages of `rpc::v1`.
#[derive(Debug, Error)]
pub enum JsonError {
    /// The descriptors that were compiled in cannot be read.
    #[error("descriptors could not be read")]
    Descriptors(#[source] DescriptorError),
    /// The descriptors do not have the message.
    #[error("message `{name}` is not described")]
    Unknown {
        /// The full protobuf name.
        name: String,
    },
    /// The message does not fit its description.
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
}

/// The message as one line of JSON, without a line break at the end. Members stand in the order of the field numbers.
///
/// # Errors
///
/// If the message is not one of `rpc::v1`, or has a value without a JSON form.
pub fn to_string<M: Message + Name>(message: &M) -> Result<String, JsonError> {
    let mut bytes = Vec::new();
    write(message, &mut Serializer::new(&mut bytes))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The message as JSON for people: indented by two spaces, without a line break at the end.
///
/// # Errors
///
/// As [`to_string`].
pub fn to_string_pretty<M: Message + Name>(message: &M) -> Result<String, JsonError> {
    let mut bytes = Vec::new();
    write(message, &mut Serializer::pretty(&mut bytes))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn write<M, W, F>(message: &M, serializer: &mut Serializer<W, F>) -> Result<(), JsonError>
where
    M: Message + Name,
    W: std::io::Write,
    F: serde_json::ser::Formatter,
{
    let name = M::full_name();
    let Some(descriptor) = pool()?.get_message_by_name(&name) else {
        return Err(JsonError::Unknown { name });
    };
    let message = match DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()) {
        Ok(message) => message,
        Err(source) => return Err(JsonError::Mismatch { name, source }),
    };
    message
        .serialize_with_options(serializer, &SerializeOptions::new().skip_default_fields(false))
        .map_err(|source| JsonError::Serialize { name, source })
}

fn pool() -> Result<&'static DescriptorPool, JsonError> {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    if let Some(pool) = POOL.get() {
        return Ok(pool);
    }
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).map_err(JsonError::Descriptors)?;
    Ok(POOL.get_or_init(|| pool))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::v1;
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
    fn bytes_are_base64_and_times_rfc_3339() {
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
                "headHash": "/wA=",
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
}
