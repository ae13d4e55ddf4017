//! Questions that could not be answered, and the gRPC status of each: one table.
//!
//! A denial is an answer and is not here. What went wrong inside is for the log; the caller gets what they can act on. Each
//! status carries a `google.rpc.ErrorInfo` with domain `scopeward`, UNAVAILABLE a `RetryInfo`, INVALID_ARGUMENT a
//! `BadRequest` that names the field. All of it stays under [`MAX_TRAILER_BYTES`], since clients in other languages fail on
//! large trailers. Values that came from outside are escaped and cut, here and in the log.

use std::collections::HashMap;
use std::time::Duration;

use thiserror::Error;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::escape::quotable;
use crate::rpc::v1;

/// The `domain` of every `ErrorInfo` of ours.
pub const DOMAIN: &str = "scopeward";

/// The most bytes that the status, its message and its details take as trailers, names and values together.
pub const MAX_TRAILER_BYTES: usize = 3 * 1024;

/// Why a question could not be answered.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum RpcError {
    /// A field is over its limit. `unit` is what is counted, such as `bytes`.
    #[error("`{}` has {actual} {unit}, the limit is {limit}", quotable(.field))]
    OverLimit {
        /// The field as a path from the request, such as `checks[3].audiences`.
        field: String,
        /// What is counted, in the plural.
        unit: &'static str,
        /// The most that is allowed.
        limit: usize,
        /// What was sent.
        actual: usize,
    },
    /// A field that is printable ASCII has another byte.
    #[error("`{}`: byte 0x{byte:02X} at offset {offset} is not printable ASCII", quotable(.field))]
    NotPrintable {
        /// The field as a path from the request.
        field: String,
        /// The first such byte.
        byte: u8,
        /// Its 0-based offset in bytes.
        offset: usize,
    },
    /// The message is over its limit.
    #[error("message `{}` has {actual} bytes, the limit is {limit}", quotable(.message))]
    MessageTooLarge {
        /// The name of the message, such as `CheckAuthorizeScopesRequest`.
        message: String,
        /// The most bytes that are allowed.
        limit: usize,
        /// The bytes that were announced.
        actual: usize,
    },
    /// The message is no protobuf of the type that the RPC takes.
    #[error("the message could not be decoded: {}", quotable(.cause))]
    MalformedMessage {
        /// What the decoder says.
        cause: String,
    },
    /// The page size is negative.
    #[error("`page_size` is {actual}, it must not be negative")]
    InvalidPageSize {
        /// What was sent.
        actual: i32,
    },
    /// The page token is none of ours.
    #[error("`page_token` was not issued by this service")]
    InvalidPageToken,
    /// A position in the audit log came without the log that it belongs to.
    #[error("`after_sequence` needs `log_id`")]
    MissingLogId,
    /// A position in the audit log belongs to another log.
    #[error("`log_id` is `{}`, but the log of this server is `{}`", quotable(.given), quotable(.actual))]
    ForeignLogId {
        /// The log that was asked for.
        given: String,
        /// The log of this server.
        actual: String,
    },
    /// A position in the audit log is outside what is kept.
    #[error("sequence {after} is outside what is kept: the oldest is {oldest}, the newest {newest}")]
    CursorOutOfRange {
        /// The position that was asked for.
        after: u64,
        /// The oldest sequence that is kept. 0 if the log is empty.
        oldest: u64,
        /// The newest sequence. 0 if the log is empty.
        newest: u64,
    },
    /// The hash chain of the audit log is broken.
    #[error("the audit log is damaged{}; run `scopeward audit verify`", at_sequence(*sequence))]
    DataLoss {
        /// The first record that does not fit. 0 if it is not known which.
        sequence: u64,
    },
    /// The audit log could not be read, though nothing says that it is damaged.
    #[error("the audit log could not be read; its server's log says why")]
    AuditReadFailed,
    /// An enum field has a value that this version does not know.
    #[error("`{}` has the unknown value {value}", quotable(.field))]
    UnknownEnumValue {
        /// The field as a path from the request.
        field: String,
        /// What was sent.
        value: i32,
    },
    /// A field is not set without which there is no answer.
    #[error("`{}` is required: {because}", quotable(.field))]
    FieldMissing {
        /// The field as a path from the request, such as `checks[3].granted_scope`.
        field: String,
        /// What depends on it.
        because: &'static str,
    },
    /// A time is none that `google.protobuf.Timestamp` allows.
    #[error("`{field}` is not a time from the year 1 to 9999")]
    TimeOutOfRange {
        /// The field.
        field: &'static str,
    },
    /// The policy does not declare the audience to describe.
    #[error("the policy does not declare audience `{}`", quotable(.audience))]
    AudienceNotFound {
        /// The audience as asked for.
        audience: String,
    },
    /// No policy has been loaded yet.
    #[error("no policy is loaded yet; retry")]
    NoPolicy,
    /// The server is shutting down.
    #[error("the server is shutting down; retry elsewhere")]
    Draining,
    /// The connection of a stream is older than connections may get.
    #[error("this connection has reached its age; open another")]
    ConnectionExpired,
    /// A budget is used up.
    #[error("{}; retry later", cause.describe())]
    Overloaded {
        /// Which one.
        cause: Overload,
    },
    /// A report was asked for that needs a shadow policy.
    #[error("this server has no shadow policy; start it with `--shadow DIR`")]
    NoShadow,
    /// The audit record of the answer could not be made durable, so there is no answer.
    #[error("decision could not be recorded; retry")]
    AuditNotDurable,
    /// Too many audit records wait to be written, so nothing was decided.
    #[error("too many audit records wait to be written; retry later")]
    AuditQueueFull,
    /// The answer does not fit what clients take, in a batch with the answers before it.
    #[error(
        "the answer does not fit into {limit} bytes, in a batch with those before it; ask for less at once"
    )]
    AnswerTooLarge {
        /// The most bytes of an answer.
        limit: usize,
    },
    /// The caller is not known.
    #[error("the caller is not authenticated")]
    Unauthenticated,
    /// The caller may not call this method.
    #[error("the caller may not call `{}`", quotable(.method))]
    PermissionDenied {
        /// The method, such as `/scopeward.v1.AuditService/StreamAuditEvents`.
        method: String,
    },
    /// What the caller of a stream may see has changed.
    #[error("what this caller may see has changed; open the stream again")]
    AccessChanged,
    /// The deadline of the call passed before its message was here or its answer was ready.
    #[error("the deadline passed before the answer was ready")]
    DeadlineExceeded,
    /// Something went wrong inside. What, is for the log.
    #[error("the call failed inside the server")]
    Internal,
}

/// A budget that is used up (`--max-calls` and the like).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Overload {
    /// As many calls as the server takes are in flight.
    Calls,
    /// As many calls as one connection may have are in flight on it.
    ConnectionCalls,
    /// As many streams as the server takes are open.
    Streams,
    /// As many streams as one connection may have are open on it.
    ConnectionStreams,
    /// Requests and answers in flight have as many bytes as the server holds.
    Bytes,
    /// Requests and answers in flight on one connection have as many bytes as it may hold.
    ConnectionBytes,
    /// As many large questions as the server takes are being decided.
    LargeQuestions,
    /// As many calls as the access file gives to one caller are in flight.
    CallerCalls,
}

impl Overload {
    /// Each of them.
    pub const ALL: [Self; 8] = [
        Self::Calls,
        Self::ConnectionCalls,
        Self::Streams,
        Self::ConnectionStreams,
        Self::Bytes,
        Self::ConnectionBytes,
        Self::LargeQuestions,
        Self::CallerCalls,
    ];

    /// The value of a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::ConnectionCalls => "connection_calls",
            Self::Streams => "streams",
            Self::ConnectionStreams => "connection_streams",
            Self::Bytes => "bytes",
            Self::ConnectionBytes => "connection_bytes",
            Self::LargeQuestions => "large_questions",
            Self::CallerCalls => "caller_calls",
        }
    }

    const fn reason(self) -> &'static str {
        match self {
            Self::Calls => "OVERLOADED",
            Self::ConnectionCalls => "CONNECTION_OVERLOADED",
            Self::Streams => "TOO_MANY_STREAMS",
            Self::ConnectionStreams => "TOO_MANY_STREAMS_ON_CONNECTION",
            Self::Bytes => "TOO_MANY_BYTES_IN_FLIGHT",
            Self::ConnectionBytes => "TOO_MANY_BYTES_IN_FLIGHT_ON_CONNECTION",
            Self::LargeQuestions => "TOO_MANY_LARGE_QUESTIONS",
            Self::CallerCalls => "CALLER_OVERLOADED",
        }
    }

    const fn describe(self) -> &'static str {
        match self {
            Self::Calls => "the server is overloaded",
            Self::ConnectionCalls => "too many calls are in flight on this connection",
            Self::Streams => "too many streams are open",
            Self::ConnectionStreams => "too many streams are open on this connection",
            Self::Bytes => "requests and answers in flight are too large together",
            Self::ConnectionBytes => {
                "requests and answers in flight on this connection are too large together"
            }
            Self::LargeQuestions => "too many large questions are being decided",
            Self::CallerCalls => "too many calls of this caller are in flight",
        }
    }
}

/// One row of the table.
struct ErrorRow {
    code: Code,
    reason: &'static str,
    /// The request field that is to blame; makes a `BadRequest`.
    field: Option<String>,
    retry_after: Option<Duration>,
    metadata: Vec<(&'static str, String)>,
}

impl RpcError {
    /// The gRPC code.
    pub fn code(&self) -> Code {
        self.row().code
    }

    /// The reason of the `ErrorInfo`: UPPER_SNAKE, stable.
    pub fn reason(&self) -> &'static str {
        self.row().reason
    }

    /// The same as an item of a batch.
    pub fn to_check_error(&self) -> v1::CheckError {
        let ErrorRow { code, reason, .. } = self.row();
        v1::CheckError { code: code.into(), reason: reason.to_owned(), message: self.to_string() }
    }

    /// The table. A new kind of error does not compile until it has a row.
    fn row(&self) -> ErrorRow {
        match self {
            Self::OverLimit { field, unit, limit, actual } => {
                ErrorRow::new(Code::InvalidArgument, "LIMIT_EXCEEDED")
                    .field(field)
                    .with("limit", limit)
                    .with("actual", actual)
                    .with("unit", unit)
            }
            Self::NotPrintable { field, byte: _, offset } => {
                ErrorRow::new(Code::InvalidArgument, "NOT_PRINTABLE").field(field).with("offset", offset)
            }
            Self::MessageTooLarge { message, limit, actual } => {
                ErrorRow::new(Code::InvalidArgument, "MESSAGE_TOO_LARGE")
                    .field("message")
                    .with("message", message)
                    .with("limit", limit)
                    .with("actual", actual)
            }
            Self::MalformedMessage { cause: _ } => {
                ErrorRow::new(Code::InvalidArgument, "MESSAGE_MALFORMED").field("message")
            }
            Self::InvalidPageSize { actual } => ErrorRow::new(Code::InvalidArgument, "PAGE_SIZE_INVALID")
                .field("page_size")
                .with("actual", actual),
            Self::InvalidPageToken => {
                ErrorRow::new(Code::InvalidArgument, "PAGE_TOKEN_INVALID").field("page_token")
            }
            Self::MissingLogId => ErrorRow::new(Code::InvalidArgument, "LOG_ID_REQUIRED").field("log_id"),
            Self::ForeignLogId { given: _, actual } => {
                ErrorRow::new(Code::InvalidArgument, "LOG_ID_FOREIGN").field("log_id").with("log_id", actual)
            }
            Self::CursorOutOfRange { after, oldest, newest } => {
                ErrorRow::new(Code::OutOfRange, "SEQUENCE_OUT_OF_RANGE")
                    .with("after_sequence", after)
                    .with("oldest_sequence", oldest)
                    .with("newest_sequence", newest)
            }
            Self::DataLoss { sequence } => {
                ErrorRow::new(Code::DataLoss, "AUDIT_CHAIN_BROKEN").with("sequence", sequence)
            }
            Self::AuditReadFailed => ErrorRow::new(Code::Internal, "AUDIT_READ_FAILED"),
            Self::UnknownEnumValue { field, value } => {
                ErrorRow::new(Code::InvalidArgument, "ENUM_VALUE_UNKNOWN").field(field).with("value", value)
            }
            Self::FieldMissing { field, because: _ } => {
                ErrorRow::new(Code::InvalidArgument, "FIELD_MISSING").field(field)
            }
            Self::TimeOutOfRange { field } => {
                ErrorRow::new(Code::InvalidArgument, "TIME_OUT_OF_RANGE").field(field)
            }
            Self::AudienceNotFound { audience } => {
                ErrorRow::new(Code::NotFound, "AUDIENCE_NOT_FOUND").with("audience", audience)
            }
            Self::NoPolicy => {
                ErrorRow::new(Code::Unavailable, "POLICY_NOT_LOADED").retry_after(Duration::from_secs(1))
            }
            Self::Draining => {
                ErrorRow::new(Code::Unavailable, "DRAINING").retry_after(Duration::from_secs(1))
            }
            Self::ConnectionExpired => {
                ErrorRow::new(Code::Unavailable, "CONNECTION_EXPIRED").retry_after(Duration::from_secs(1))
            }
            Self::Overloaded { cause } => {
                ErrorRow::new(Code::Unavailable, cause.reason()).retry_after(Duration::from_secs(1))
            }
            Self::NoShadow => ErrorRow::new(Code::NotFound, "NO_SHADOW"),
            Self::AuditNotDurable => ErrorRow::new(Code::ResourceExhausted, "AUDIT_NOT_DURABLE"),
            Self::AuditQueueFull => ErrorRow::new(Code::ResourceExhausted, "AUDIT_QUEUE_FULL"),
            Self::AnswerTooLarge { limit } => {
                ErrorRow::new(Code::ResourceExhausted, "ANSWER_TOO_LARGE").with("limit", limit)
            }
            Self::Unauthenticated => ErrorRow::new(Code::Unauthenticated, "UNAUTHENTICATED"),
            Self::PermissionDenied { method } => {
                ErrorRow::new(Code::PermissionDenied, "PERMISSION_DENIED").with("method", method)
            }
            Self::AccessChanged => {
                ErrorRow::new(Code::Unavailable, "ACCESS_CHANGED").retry_after(Duration::from_secs(1))
            }
            Self::DeadlineExceeded => ErrorRow::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
            Self::Internal => ErrorRow::new(Code::Internal, "INTERNAL"),
        }
    }
}

impl ErrorRow {
    fn new(code: Code, reason: &'static str) -> Self {
        Self { code, reason, field: None, retry_after: None, metadata: Vec::new() }
    }

    fn field(mut self, field: &str) -> Self {
        self.field = Some(quotable(field));
        self
    }

    fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.metadata.push((key, quotable(&value.to_string())));
        self
    }
}

impl From<RpcError> for Status {
    fn from(error: RpcError) -> Self {
        let ErrorRow { code, reason, field, retry_after, metadata } = error.row();
        let message = error.to_string();
        let metadata = metadata
            .into_iter()
            .chain(field.clone().map(|field| ("field", field)))
            .map(|(key, value)| (key.to_owned(), value))
            .collect::<HashMap<_, _>>();
        let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
        if retry_after.is_some() {
            details.set_retry_info(retry_after);
        }
        if let Some(field) = field {
            details.add_bad_request_violation(field, message.clone());
        }
        Self::with_error_details(code, message, details)
    }
}

fn at_sequence(sequence: u64) -> String {
    if sequence == 0 { String::new() } else { format!(" at sequence {sequence}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    /// Text that is as bad as it gets: control characters, quotes, bidi, no-break space, and long.
    fn hostile() -> String {
        "\0\t\r\n\"\\`{%}\u{202e}\u{a0}".repeat(1000)
    }

    /// One of each kind, with the largest and worst values.
    fn worst() -> Vec<RpcError> {
        vec![
            RpcError::OverLimit {
                field: hostile(),
                unit: "audiences",
                limit: usize::MAX,
                actual: usize::MAX,
            },
            RpcError::MessageTooLarge { message: hostile(), limit: usize::MAX, actual: usize::MAX },
            RpcError::MalformedMessage { cause: hostile() },
            RpcError::InvalidPageSize { actual: i32::MIN },
            RpcError::InvalidPageToken,
            RpcError::MissingLogId,
            RpcError::ForeignLogId { given: hostile(), actual: hostile() },
            RpcError::CursorOutOfRange { after: u64::MAX, oldest: u64::MAX, newest: u64::MAX },
            RpcError::DataLoss { sequence: u64::MAX },
            RpcError::AuditReadFailed,
            RpcError::UnknownEnumValue { field: hostile(), value: i32::MIN },
            RpcError::FieldMissing { field: hostile(), because: "it says what the client presents" },
            RpcError::TimeOutOfRange { field: "start_time" },
            RpcError::AudienceNotFound { audience: hostile() },
            RpcError::NoPolicy,
            RpcError::Draining,
            RpcError::ConnectionExpired,
            RpcError::Overloaded { cause: Overload::ConnectionBytes },
            RpcError::AuditNotDurable,
            RpcError::AuditQueueFull,
            RpcError::AnswerTooLarge { limit: usize::MAX },
            RpcError::Unauthenticated,
            RpcError::PermissionDenied { method: hostile() },
            RpcError::AccessChanged,
            RpcError::DeadlineExceeded,
            RpcError::Internal,
        ]
    }

    #[track_caller]
    fn check(error: RpcError, code: Code, reason: &str, message: &str, metadata: &[(&str, &str)]) {
        let status = Status::from(error.clone());
        assert_eq!((status.code(), status.message()), (code, message));
        let info = status.get_details_error_info().expect("every error has an ErrorInfo");
        assert_eq!((info.domain.as_str(), info.reason.as_str()), ("scopeward", reason));
        let expected = metadata.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        assert_eq!(info.metadata, expected);
        let item = error.to_check_error();
        assert_eq!((item.code, item.reason.as_str(), item.message.as_str()), (code as i32, reason, message));
    }

    #[test]
    fn over_limit_names_the_field_and_the_numbers() {
        let error =
            RpcError::OverLimit { field: "checks[3].scope".into(), unit: "scopes", limit: 256, actual: 257 };
        let metadata =
            [("field", "checks[3].scope"), ("limit", "256"), ("actual", "257"), ("unit", "scopes")];
        let message = "`checks[3].scope` has 257 scopes, the limit is 256";
        check(error.clone(), Code::InvalidArgument, "LIMIT_EXCEEDED", message, &metadata);
        let violations = Status::from(error).get_details_bad_request().expect("a violation").field_violations;
        assert_eq!(violations.len(), 1);
        assert_eq!(
            (violations[0].field.as_str(), violations[0].description.as_str()),
            ("checks[3].scope", message)
        );
    }

    #[test]
    fn too_large_a_message_is_an_invalid_argument() {
        let name = "DescribeAudienceRequest";
        let error = RpcError::MessageTooLarge { message: name.into(), limit: 65536, actual: 65537 };
        let metadata = [("field", "message"), ("message", name), ("limit", "65536"), ("actual", "65537")];
        let message = "message `DescribeAudienceRequest` has 65537 bytes, the limit is 65536";
        check(error, Code::InvalidArgument, "MESSAGE_TOO_LARGE", message, &metadata);
    }

    #[test]
    fn audit_cursor_out_of_range_names_both_ends() {
        let error = RpcError::CursorOutOfRange { after: 3, oldest: 10, newest: 20 };
        let metadata = [("after_sequence", "3"), ("oldest_sequence", "10"), ("newest_sequence", "20")];
        let message = "sequence 3 is outside what is kept: the oldest is 10, the newest 20";
        check(error, Code::OutOfRange, "SEQUENCE_OUT_OF_RANGE", message, &metadata);
    }

    #[test]
    fn values_from_outside_are_escaped() {
        let error = RpcError::AudienceNotFound { audience: "a`b\u{202e}\n".into() };
        let message = r"the policy does not declare audience `a\`b\u{202e}\u{a}`";
        let metadata = [("audience", r"a\`b\u{202e}\u{a}")];
        check(error, Code::NotFound, "AUDIENCE_NOT_FOUND", message, &metadata);
    }

    #[test]
    fn long_values_are_cut_and_marked() {
        assert_eq!(quotable(&"a".repeat(128)), "a".repeat(128));
        assert_eq!(quotable(&"a".repeat(129)), format!("{}...", "a".repeat(125)));
        assert!(hostile().len() > 128 && quotable(&hostile()).len() <= 128);
    }

    #[test]
    fn exactly_unavailable_says_when_to_retry() {
        for error in worst() {
            let status = Status::from(error);
            let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
            assert_eq!(retry.is_some(), status.code() == Code::Unavailable, "{status:?}");
        }
    }

    #[test]
    fn exactly_invalid_argument_names_a_field() {
        for error in worst() {
            let status = Status::from(error);
            let field = status.get_details_error_info().and_then(|info| info.metadata.get("field").cloned());
            assert_eq!(field.is_some(), status.code() == Code::InvalidArgument, "{status:?}");
            assert_eq!(status.get_details_bad_request().is_some(), field.is_some(), "{status:?}");
        }
    }

    #[test]
    fn reasons_are_distinct_upper_snake() {
        let mut reasons = worst().iter().map(RpcError::reason).collect::<Vec<_>>();
        assert!(
            reasons.iter().all(|reason| reason.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
        );
        reasons.dedup();
        let count = reasons.len();
        reasons.sort_unstable();
        reasons.dedup();
        assert_eq!(reasons.len(), count);
    }

    #[test]
    fn worst_case_stays_under_the_trailer_limit_and_is_plain_ascii() {
        for error in worst() {
            let status = Status::from(error);
            assert!(status.message().bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{status:?}");
            let mut trailers = HeaderMap::new();
            status.add_header(&mut trailers).expect("a status fits into headers");
            let bytes = trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
            assert!(bytes <= MAX_TRAILER_BYTES, "{bytes} bytes: {status:?}");
        }
    }
}
