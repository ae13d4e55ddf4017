//! Errors as the Connect protocol has them ("Connect Protocol Reference", "Error Codes" and "Error and EndStreamResponse"): the code by
//! its name, the status of HTTP that belongs to it, and the details of a gRPC status as JSON.
//!
//! The details are those of [`RpcError`](super::error::RpcError), so that a caller over HTTP can act on what a caller over gRPC can.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use http::StatusCode;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde::{Serialize, Serializer};
use tonic::{Code, Status};
use tonic_types::pb;

use crate::escape;
use crate::proto::json::MessageJson;

/// The status of HTTP of an error.
#[must_use]
pub fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(StatusCode::BAD_REQUEST),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The name of a code.
const fn name(code: Code) -> &'static str {
    match code {
        // There is no such error.
        Code::Ok | Code::Unknown => "unknown",
        Code::Cancelled => "canceled",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

/// An error as JSON.
#[must_use]
pub fn error_json(status: &Status) -> String {
    // Details that are none of ours are left out; the code and the message are there in any case.
    let details = pb::Status::decode(status.details()).unwrap_or_default().details;
    let details = details.iter().map(|detail| {
        let name = detail.type_url.rsplit('/').next().unwrap_or_default();
        let debug = described(name, &detail.value);
        ErrorDetail { name, value: BASE64_STANDARD_NO_PAD.encode(&detail.value), debug }
    });
    let error =
        ConnectError { code: name(status.code()), message: status.message(), details: details.collect() };
    // Texts and what was described have a JSON form.
    escape::json(&error).unwrap_or_default()
}

#[derive(Serialize)]
struct ConnectError<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<ErrorDetail<'a>>,
}

#[derive(Serialize)]
struct ErrorDetail<'a> {
    #[serde(rename = "type")]
    name: &'a str,
    value: String,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_json")]
    debug: Option<DynamicMessage>,
}

fn as_json<S: Serializer>(message: &Option<DynamicMessage>, serializer: S) -> Result<S::Ok, S::Error> {
    message.as_ref().map(MessageJson).serialize(serializer)
}

/// A message of `google.rpc`, to be read by people.
fn described(name: &str, value: &[u8]) -> Option<DynamicMessage> {
    static POOL: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    let pool = POOL.get_or_init(|| DescriptorPool::decode(pb::FILE_DESCRIPTOR_SET).ok());
    DynamicMessage::decode(pool.as_ref()?.get_message_by_name(name)?, value).ok()
}

/// As nginx has it.
const CLIENT_CLOSED_REQUEST: u16 = 499;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::rpc::error::{Overload, RpcError};

    #[test]
    fn an_error_has_its_code_and_the_details_that_grpc_has() {
        let status = Status::from(RpcError::Overloaded { cause: Overload::Calls });
        let error: Value = serde_json::from_str(&error_json(&status)).unwrap();
        assert_eq!(error["code"], "unavailable");
        assert_eq!(error["message"], status.message());
        let details = error["details"].as_array().unwrap();
        let of = |name: &str| details.iter().find(|detail| detail["type"] == name).unwrap();
        assert_eq!(of("google.rpc.RetryInfo")["debug"], json!({"retryDelay": "1s"}));
        let info = of("google.rpc.ErrorInfo");
        assert_eq!(info["debug"]["reason"], "OVERLOADED");
        let value = BASE64_STANDARD_NO_PAD.decode(info["value"].as_str().unwrap()).unwrap();
        let read = pb::ErrorInfo::decode(&*value).unwrap();
        assert_eq!(read.reason, status.get_details_error_info().unwrap().reason);
        assert_eq!(http_status(status.code()), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn every_code_has_a_name_and_a_status_that_says_error() {
        let plain = |code| error_json(&Status::new(code, "m"));
        assert_eq!(plain(Code::Unimplemented), r#"{"code":"unimplemented","message":"m"}"#);
        let mut names: Vec<_> = (1..17)
            .map(|number| {
                let code = Code::from_i32(number);
                assert!(http_status(code).as_u16() >= 400, "{code:?}");
                name(code)
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 16);
    }
}
