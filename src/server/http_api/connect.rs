//! Calls by the Connect protocol ("Connect Protocol Reference", "Unary (Request-Response) RPCs"): a POST to the path of the RPC with its
//! message as JSON or protobuf, answered in the same form. Each is turned into the message that gRPC would have carried, and answered by
//! the same services, so that a new RPC needs no line here.
//!
//! Not there: GET, since no RPC is marked as free of side effects (a denial has a record); compression, which requests are told; streams.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
};
use http::{Method as HttpMethod, Request, Response, StatusCode};
use hyper::body::Incoming;
use prost::Message as _;
use prost_reflect::DynamicMessage;
use tonic::{Code, Status};

use super::{ApiAnswer, ApiConnection, TakenCall, headers_for_services};
use crate::escape::{self, quotable};
use crate::proto::json::{self, MessageJson};
use crate::rpc::connect::{error_json, http_status};
use crate::rpc::error::RpcError;
use crate::rpc::limits::JSON_FACTOR;
use crate::server::method::Method;
use crate::server::response::hold;
use crate::server::traces::call::CONNECT;
use crate::server::web::body::{AnswerBody, CollectError};

/// The form of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ConnectCodec {
    Json,
    Proto,
}

impl ConnectCodec {
    /// That of a content type, parameters aside but for a charset that JSON does not have (RFC 8259 section 8.1).
    pub(super) fn of(content_type: &HeaderValue) -> Option<Self> {
        let text = content_type.to_str().ok()?;
        let mut parts = text.split(';').map(str::trim);
        let codec = match parts.next()?.to_ascii_lowercase().as_str() {
            "application/json" => Self::Json,
            "application/proto" => Self::Proto,
            _ => return None,
        };
        let is_known = |parameter: &str| match parameter.split_once('=') {
            Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
                value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        };
        parts.all(is_known).then_some(codec)
    }

    const fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json => "application/json",
            Self::Proto => "application/proto",
        })
    }

    /// The most bytes of a message of a method.
    const fn limit(self, method: &Method) -> usize {
        match self {
            Self::Json => method.max_message_bytes * JSON_FACTOR,
            Self::Proto => method.max_message_bytes,
        }
    }

    /// The message of a request as gRPC carries it.
    fn read(self, method: &Method, body: Bytes) -> Result<Bytes, RpcError> {
        match self {
            Self::Proto => Ok(body),
            Self::Json => {
                let (input, _) = method.messages.as_ref().ok_or(RpcError::Internal)?;
                let read = json::read_text(input, &body);
                let message = read
                    .map_err(|error| RpcError::MalformedMessage { cause: error.to_string() })?
                    .encode_to_vec();
                if message.len() > method.max_message_bytes {
                    return Err(RpcError::MessageTooLarge {
                        message: method.message().to_owned(),
                        limit: method.max_message_bytes,
                        actual: message.len(),
                    });
                }
                Ok(message.into())
            }
        }
    }

    /// An answer in this form.
    fn write(self, method: &Method, message: Bytes) -> Result<Bytes, RpcError> {
        match self {
            Self::Proto => Ok(message),
            Self::Json => {
                let (_, output) = method.messages.as_ref().ok_or(RpcError::Internal)?;
                let message = DynamicMessage::decode(output.clone(), message);
                let message = message.map_err(|_| RpcError::Internal)?;
                let text = escape::json(&MessageJson(&message)).map_err(|_| RpcError::Internal)?;
                Ok(text.into())
            }
        }
    }
}

/// An error as it is sent.
pub(super) fn refusal(status: &Status) -> ApiAnswer {
    ApiAnswer {
        code: status.code(),
        status: http_status(status.code()),
        content_type: ConnectCodec::Json.content_type(),
        headers: Vec::new(),
        body: error_json(status).into(),
    }
    .for_code()
}

impl ApiConnection {
    /// Answers a call.
    pub(super) async fn connect(&self, request: &Request<()>, body: &mut Incoming) -> Response<AnswerBody> {
        let method = self.calls.methods.over_http(request.uri().path());
        let asked = timeout(request.headers());
        let asked_or_none = asked.as_ref().ok().copied().flatten();
        let mut call = match self.take(method, CONNECT, request, asked_or_none) {
            Ok(call) => call,
            Err(status) if method.is_none() && status.code() == Code::Unimplemented => {
                let text = format!("there is no `{}` here", quotable(request.uri().path()));
                let unknown = refusal(&Status::unimplemented(text)).with_status(StatusCode::NOT_FOUND);
                return self.send(unknown, None);
            }
            Err(status) => return self.send(refusal(&status), None),
        };
        // It was taken, so there is such a method.
        let Some(method) = method else { return self.send(refusal(&RpcError::Internal.into()), None) };
        let codec = asked.map_err(|status| refusal(&status)).and_then(|_| codec_of(request));
        let answer = match codec {
            Ok(codec) => {
                let deadline = call.limits.deadline;
                let answered = self.answer(&mut call, codec, method, request.headers(), body);
                let answered = self.answer_within(&method.path, deadline, answered).await;
                answered.unwrap_or_else(|status| refusal(&status))
            }
            Err(refused) => refused,
        };
        self.send(answer, call.held)
    }

    async fn answer(
        &self,
        call: &mut TakenCall,
        codec: ConnectCodec,
        method: &Method,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Result<ApiAnswer, Status> {
        let body =
            self.body(body, call, codec.limit(method)).await.map_err(|error| no_message(&error, method))?;
        let message = codec.read(method, body)?;
        let origin = call.origin.clone();
        let answer = self.calls.unary(&method.path, headers_for_services(headers), origin, &message).await?;
        let body = codec.write(method, answer)?;
        hold(&mut call.held, body.len()).map_err(|cause| RpcError::Overloaded { cause })?;
        let (code, content_type) = (Code::Ok, codec.content_type());
        Ok(ApiAnswer { code, status: StatusCode::OK, content_type, headers: Vec::new(), body })
    }
}

/// Why there is no message.
fn no_message(error: &CollectError, method: &Method) -> Status {
    match *error {
        CollectError::TooLarge { limit, actual } => {
            RpcError::MessageTooLarge { message: method.message().to_owned(), limit, actual }.into()
        }
        CollectError::NoRoom(cause) => RpcError::Overloaded { cause }.into(),
        CollectError::TooLate => RpcError::DeadlineExceeded.into(),
        // Nobody reads it.
        CollectError::Broken => Status::cancelled(error.to_string()),
    }
}

/// The form of a request that can be answered, or what is wrong with its head.
fn codec_of(request: &Request<()>) -> Result<ConnectCodec, ApiAnswer> {
    let headers = request.headers();
    if request.method() != HttpMethod::POST {
        let refused = refusal(&Status::unimplemented("calls are made by POST"));
        let refused = refused.with_status(StatusCode::METHOD_NOT_ALLOWED);
        return Err(refused.with(ALLOW, HeaderValue::from_static("POST")));
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let codec = match (types.next(), types.next()) {
        (Some(content_type), None) => ConnectCodec::of(content_type),
        _ => None,
    };
    let codec = codec.ok_or_else(|| {
        let text = format!("the content type must be one of {MEDIA_TYPES}");
        let refused =
            refusal(&Status::invalid_argument(text)).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        refused.with(ACCEPT_POST, HeaderValue::from_static(MEDIA_TYPES))
    })?;
    let mut versions = headers.get_all(PROTOCOL_VERSION).iter();
    if let Some(version) = versions.find(|version| version.as_bytes() != b"1") {
        let text = format!(
            "`connect-protocol-version` must be `1`, it is `{}`",
            quotable(&String::from_utf8_lossy(version.as_bytes()))
        );
        return Err(refusal(&Status::invalid_argument(text)));
    }
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    if let Some(coding) = codings.find(|coding| !coding.as_bytes().eq_ignore_ascii_case(IDENTITY.as_bytes()))
    {
        let text = format!(
            "content encoding `{}` is not supported, only `{IDENTITY}` is",
            quotable(&String::from_utf8_lossy(coding.as_bytes()))
        );
        let refused = refusal(&Status::unimplemented(text));
        return Err(refused.with(ACCEPT_ENCODING, HeaderValue::from_static(IDENTITY)));
    }
    Ok(codec)
}

/// How long the caller waits, if it says so: at most 10 digits ("Timeout-Milliseconds").
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let is_number = (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse().ok().filter(|_| is_number) {
        Some(milliseconds) => Ok(Some(Duration::from_millis(milliseconds))),
        None => Err(Status::invalid_argument("`connect-timeout-ms` must be a number of at most 10 digits")),
    }
}

const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
const TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const MEDIA_TYPES: &str = "application/json, application/proto";
const IDENTITY: &str = "identity";
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_type_names_the_form_of_a_message() {
        #[track_caller]
        fn check(content_type: &str, expected: Option<ConnectCodec>) {
            let value = HeaderValue::from_str(content_type).unwrap();
            assert_eq!(ConnectCodec::of(&value), expected, "{content_type}");
        }
        check("application/json", Some(ConnectCodec::Json));
        check("Application/JSON; charset=UTF-8", Some(ConnectCodec::Json));
        check("application/json;charset=\"utf-8\"; x=y", Some(ConnectCodec::Json));
        check("application/proto", Some(ConnectCodec::Proto));
        for other in [
            "",
            "text/json",
            "application/json, application/proto",
            "application/json; charset=utf-16",
            "application/connect+json",
            "application/grpc",
            "application/x-www-form-urlencoded",
            "application/jsonx",
        ] {
            check(other, None);
        }
    }

    #[test]
    fn timeout_is_a_number_of_milliseconds() {
        #[track_caller]
        fn check(value: &'static str, expected: Option<u64>) {
            let headers = HeaderMap::from_iter([(TIMEOUT, HeaderValue::from_static(value))]);
            let read = timeout(&headers).ok().flatten();
            assert_eq!(read, expected.map(Duration::from_millis), "{value:?}");
        }
        check("5000", Some(5000));
        check("0", Some(0));
        check("9999999999", Some(9_999_999_999));
        for bad in ["", "-1", "+1", "1.5", "1s", "10000000000", " 1"] {
            check(bad, None);
        }
        assert_eq!(timeout(&HeaderMap::new()).unwrap(), None);
    }
}
