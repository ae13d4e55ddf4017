//! Each limit of a question at, below and above it, and what is no question at all.

use prost::Message;
use scopeward::rpc::v1;
use scopeward::rpc::v1::scope_policy_service_client::ScopePolicyServiceClient;
use scopeward::rpc::v1::{Decision, Reason};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::harness::{authorize, info, one_audience, reason, registration};
use crate::service::Service;

const MESSAGE: usize = 256 * 1024;
const BATCH: usize = 1024 * 1024;

async fn start() -> Service {
    Service::start(&one_audience("scopesSupported: [a]")).await
}

/// A registration of exactly this many bytes, most of them in a field that the server does not know.
fn registration_of(bytes: usize) -> Newer {
    let newer = |length| Newer { scope: Some("a".to_owned()), unknown: "x".repeat(length) };
    let over = newer(bytes).encoded_len() - bytes;
    let request = newer(bytes - over);
    assert_eq!(request.encoded_len(), bytes);
    request
}

#[track_caller]
fn assert_over(error: &Status, field: &str, limit: usize, actual: usize) {
    assert_eq!((error.code(), reason(error).as_str()), (Code::InvalidArgument, "LIMIT_EXCEEDED"));
    let numbers = (info(error, "field"), info(error, "limit"), info(error, "actual"));
    assert_eq!(numbers, (field.to_owned(), limit.to_string(), actual.to_string()));
}

#[track_caller]
fn assert_too_large(error: &Status, message: &str, limit: usize, actual: usize) {
    assert_eq!(
        (error.code(), reason(error).as_str()),
        (Code::InvalidArgument, "MESSAGE_TOO_LARGE"),
        "{error:?}"
    );
    let named = (info(error, "message"), info(error, "limit"), info(error, "actual"));
    assert_eq!(named, (message.to_owned(), limit.to_string(), actual.to_string()));
}

#[tokio::test]
async fn message_of_256_kib_is_answered_and_one_byte_more_is_not() {
    let service = start().await;
    for bytes in [MESSAGE - 1, MESSAGE] {
        let answer = send(&service.channel, registration_of(bytes)).await.expect("an answer");
        assert_eq!(answer.decision(), Decision::Allow);
    }
    for bytes in [MESSAGE + 1, BATCH, BATCH + 1, 3 * BATCH] {
        let error = send(&service.channel, registration_of(bytes)).await.expect_err("too large");
        assert_too_large(&error, "ExpandRegistrationScopesRequest", MESSAGE, bytes);
    }
    let answer = send(&service.channel, registration_of(100)).await.expect("an answer");
    assert_eq!(answer.decision(), Decision::Allow, "the connection goes on");
    service.stop().await;
}

#[tokio::test]
async fn batch_of_1_mib_is_answered_and_one_byte_more_is_not() {
    let service = start().await;
    let mut client = service.scopes();
    for (bytes, fits) in [(BATCH, true), (BATCH + 1, false)] {
        let padding = |length| v1::CheckAuthorizeScopesRequest {
            client: Some(v1::Client { client_name: "x".repeat(length), ..Default::default() }),
            ..authorize(Some("a"), Some("a"))
        };
        let mut checks = vec![padding(60_000); 17];
        let mut request = v1::BatchCheckAuthorizeScopesRequest { checks: checks.clone() };
        checks.push(padding(bytes - request.encoded_len()));
        request.checks = checks.clone();
        let over = request.encoded_len() - bytes;
        checks.pop();
        checks.push(padding(
            bytes - v1::BatchCheckAuthorizeScopesRequest { checks: checks.clone() }.encoded_len() - over,
        ));
        request.checks = checks;
        assert_eq!(request.encoded_len(), bytes);
        match client.batch_check_authorize_scopes(request).await {
            Ok(answer) => assert!(fits && answer.into_inner().results.len() == 18),
            Err(error) => {
                assert!(!fits, "{error:?}");
                assert_too_large(&error, "BatchCheckAuthorizeScopesRequest", BATCH, bytes);
            }
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn batch_has_at_most_100_checks_each_within_the_limit_of_one() {
    use v1::batch_check_result::Result::{Error, Response};
    let service = start().await;
    let mut client = service.scopes();
    let mut batch = async |checks| {
        let request = v1::BatchCheckAuthorizeScopesRequest { checks };
        client.batch_check_authorize_scopes(request).await.map(|answer| answer.into_inner().results)
    };
    let one = authorize(Some("a"), Some("a"));
    assert_eq!(batch(vec![one.clone(); 100]).await.expect("an answer").len(), 100);
    assert_over(&batch(vec![one.clone(); 101]).await.expect_err("too many"), "checks", 100, 101);

    let large = v1::CheckAuthorizeScopesRequest {
        client: Some(v1::Client { client_name: "x".repeat(MESSAGE), ..Default::default() }),
        ..one.clone()
    };
    let results = batch(vec![one, large]).await.expect("an answer");
    assert!(matches!(results[0].result, Some(Response(_))));
    let Some(Error(error)) = &results[1].result else { panic!("{results:?}") };
    assert_eq!((error.code, error.reason.as_str()), (3, "LIMIT_EXCEEDED"));
    assert!(error.message.starts_with("`checks[1]` has "), "{error:?}");
    service.stop().await;
}

#[tokio::test]
async fn more_scopes_than_a_request_may_name_are_a_denial() {
    let service = start().await;
    let mut client = service.scopes();
    let scopes = |count: usize| vec!["a"; count].join(" ");
    let answer =
        client.expand_registration_scopes(registration(Some(&scopes(256)))).await.expect("an answer");
    assert_eq!(answer.into_inner().scope, "a");
    let answer =
        client.expand_registration_scopes(registration(Some(&scopes(257)))).await.expect("an answer");
    let answer = answer.into_inner();
    assert_eq!((answer.decision(), answer.reason()), (Decision::Deny, Reason::TooManyScopes));
    let error = answer.oauth_error.expect("a denial has an OAuth error");
    assert_eq!(error.error, "invalid_client_metadata");
    assert_eq!(error.error_description, "too many scopes: 257 were requested, at most 256");
    // What this service gave out has no number.
    let request = authorize(Some("a"), Some(&scopes(20_000)));
    assert_eq!(client.check_authorize_scopes(request).await.expect("an answer").into_inner().scope, "a");
    let request =
        v1::ExpandRegistrationScopesRequest { previous_scope: Some(scopes(20_000)), ..registration(None) };
    assert_eq!(client.expand_registration_scopes(request).await.expect("an answer").into_inner().scope, "a");
    service.stop().await;
}

#[tokio::test]
async fn question_has_at_most_16_audiences_of_2_kib() {
    let service = start().await;
    let mut client = service.scopes();
    let mut request = authorize(Some("a"), Some("a"));
    request.audiences = vec![request.audiences[0].clone(); 16];
    assert_eq!(
        client.check_authorize_scopes(request.clone()).await.expect("an answer").into_inner().scope,
        "a"
    );
    request.audiences = vec![request.audiences[0].clone(); 17];
    assert_over(
        &client.check_authorize_scopes(request.clone()).await.expect_err("too many"),
        "audiences",
        16,
        17,
    );

    request.audiences = vec!["x".repeat(2048)];
    let answer = client.check_authorize_scopes(request.clone()).await.expect("an answer").into_inner();
    assert_eq!(answer.reason(), Reason::AudienceUnknown);
    request.audiences = vec!["x".to_owned(), "x".repeat(2049)];
    let error = client.check_authorize_scopes(request).await.expect_err("too long");
    assert_over(&error, "audiences[1]", 2048, 2049);
    service.stop().await;
}

#[tokio::test]
async fn scope_over_512_bytes_is_malformed_which_is_an_answer() {
    let service = start().await;
    let mut client = service.scopes();
    for (length, expected) in [(512, Reason::Unsupported), (513, Reason::Malformed)] {
        let request = registration(Some(&"s".repeat(length)));
        let answer = client.expand_registration_scopes(request).await.expect("an answer").into_inner();
        assert_eq!((answer.decision(), answer.reason()), (Decision::Deny, expected), "{length}");
    }
    service.stop().await;
}

/// What a newer caller may send: a field that this server does not know.
#[derive(Clone, PartialEq, Message)]
struct Newer {
    #[prost(string, optional, tag = "2")]
    scope: Option<String>,
    #[prost(string, tag = "99")]
    unknown: String,
}

/// What a careless caller may send: a scope that is not UTF-8.
#[derive(Clone, PartialEq, Message)]
struct NotText {
    #[prost(bytes = "vec", tag = "2")]
    scope: Vec<u8>,
}

async fn send<M: Message + 'static>(
    channel: &Channel,
    message: M,
) -> Result<v1::ExpandRegistrationScopesResponse, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.expect("the channel is ready");
    let path = "/scopeward.v1.ScopePolicyService/ExpandRegistrationScopes".parse().expect("a path");
    let codec = tonic_prost::ProstCodec::default();
    grpc.unary(tonic::Request::new(message), path, codec).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn message_that_cannot_be_decoded_is_an_invalid_argument() {
    let service = start().await;
    let channel = service.channel.clone();
    let error = send(&channel, NotText { scope: vec![0xff, 0xfe] }).await.expect_err("not UTF-8");
    assert_eq!((error.code(), reason(&error).as_str()), (Code::InvalidArgument, "MESSAGE_MALFORMED"));
    assert_eq!(info(&error, "field"), "message");
    let mut client = ScopePolicyServiceClient::new(channel);
    client.expand_registration_scopes(registration(Some("a"))).await.expect("the connection goes on");
    service.stop().await;
}

#[tokio::test]
async fn hostile_text_is_answered_and_never_echoed_raw() {
    let service = start().await;
    let mut client = service.scopes();
    for text in ["a\0b", "a\tb", "a\"b", "a\\b", "a\u{202e}b", "a\u{a0}b", "\u{7f}", "a\r\nb"] {
        let answer = client.expand_registration_scopes(registration(Some(text))).await.expect("an answer");
        let answer = answer.into_inner();
        assert_eq!((answer.decision(), answer.reason()), (Decision::Deny, Reason::Malformed), "{text:?}");
        assert_eq!(answer.refused[0].scope, text, "tokens are told as received");
        let description = answer.oauth_error.expect("an OAuth error").error_description;
        let allowed = |byte| matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\';
        assert!(description.bytes().all(allowed) && description.len() <= 512, "{description:?}");
    }
    service.stop().await;
}
