//! `expand`, `authorize` and `describe`: ask a running server, as an authorization server would.
//!
//! What comes back is printed as it is; nothing is decided here. A server is a stranger too: its text
//! is made harmless before it reaches a terminal.

use std::fmt::{Display, Write};
use std::future::Future;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use http::Uri;
use prost::{Message, Name};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use super::Exit;
use super::output::{Format, bad, bold, clean, dim, good, notable, print};
use super::question::{AuthorizeArgs, ExpandArgs};
use crate::rpc::json;
use crate::rpc::v1::scope_policy_service_client::ScopePolicyServiceClient;
use crate::rpc::v1::{self, Decision, Reason};

/// Ask a server which scopes a client shall hold that registers
///
/// Exits with 0 if the registration is allowed, 3 if it is denied, 2 if there is no answer.
#[derive(Args, Debug)]
pub(super) struct ExpandVerb {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    question: ExpandArgs,
}

/// Ask a server which scopes an authorize request may get
///
/// Exits with 0 if the request is allowed, 3 if it is denied, 2 if there is no answer.
#[derive(Args, Debug)]
pub(super) struct AuthorizeVerb {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    question: AuthorizeArgs,
}

/// Ask a server what its audiences know, for discovery documents
#[derive(Args, Debug)]
pub(super) struct DescribeVerb {
    #[command(flatten)]
    server: ServerArgs,
    /// The audience to describe; all of them if left out
    #[arg(long, value_name = "URI", default_value = "", hide_default_value = true)]
    audience: String,
}

/// Which server, and how its answer is printed.
#[derive(Args, Debug)]
pub(super) struct ServerArgs {
    /// Where the server listens
    #[arg(long, value_name = "URL", default_value = DEFAULT_SERVER, value_parser = server_uri)]
    server: Uri,
    /// How to print the answer
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

/// Runs `expand`.
///
/// # Errors
/// If there is no answer.
pub(super) fn expand(args: ExpandVerb) -> anyhow::Result<Exit> {
    let ExpandVerb { server, question } = args;
    let answer = call(&server, async |mut client| {
        client.expand_registration_scopes(question.to_wire()).await.map(Response::into_inner)
    })?;
    let v1::ExpandRegistrationScopesResponse {
        scope, added, refused, oauth_error, policy, decision_id, ..
    } = &answer;
    let shown = Shown { scope, added, refused, oauth_error, policy, decision_id, grants: &[] };
    answered(&server, answer.decision(), answer.reason(), &answer, &shown)
}

/// Runs `authorize`.
///
/// # Errors
/// If there is no answer.
pub(super) fn authorize(args: AuthorizeVerb) -> anyhow::Result<Exit> {
    let AuthorizeVerb { server, question } = args;
    let answer = call(&server, async |mut client| {
        client.check_authorize_scopes(question.to_wire()).await.map(Response::into_inner)
    })?;
    let v1::CheckAuthorizeScopesResponse {
        scope,
        added,
        refused,
        oauth_error,
        policy,
        decision_id,
        audience_grants,
        ..
    } = &answer;
    let shown = Shown { scope, added, refused, oauth_error, policy, decision_id, grants: audience_grants };
    answered(&server, answer.decision(), answer.reason(), &answer, &shown)
}

/// Runs `describe`.
///
/// # Errors
/// If there is no answer, or the server does not know the audience.
pub(super) fn describe(args: DescribeVerb) -> anyhow::Result<Exit> {
    let DescribeVerb { server, audience } = args;
    let answer = call(&server, async |mut client| {
        let mut request = v1::DescribeAudienceRequest { audience, ..Default::default() };
        let mut all = client.describe_audience(request.clone()).await?.into_inner();
        while !all.next_page_token.is_empty() {
            request.page_token = std::mem::take(&mut all.next_page_token);
            let page = client.describe_audience(request.clone()).await?.into_inner();
            all.audiences.extend(page.audiences);
            all.next_page_token = page.next_page_token;
            all.policy = page.policy;
        }
        Ok(all)
    })?;
    print(&match server.output {
        Format::Json => json::to_string_pretty(&answer)? + "\n",
        Format::Text => description(&answer),
    })?;
    Ok(Exit::Yes)
}

/// Calls a server and waits for the answer, at most [`DEADLINE`].
fn call<T>(
    args: &ServerArgs,
    ask: impl AsyncFnOnce(ScopePolicyServiceClient<Channel>) -> Result<T, Status>,
) -> anyhow::Result<T> {
    wait(async {
        let server = &args.server;
        let endpoint = Endpoint::from(server.clone()).timeout(DEADLINE);
        let channel = endpoint.connect().await.map_err(|error| unreachable(server, &error))?;
        let client = ScopePolicyServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        ask(client).await.map_err(|status| anyhow!("{}", said(&status)))
    })
}

/// Runs one call to its end on a runtime of its own.
fn wait<T>(call: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::time::timeout(DEADLINE, call)
            .await
            .unwrap_or_else(|_| Err(anyhow!("no answer within {} s", DEADLINE.as_secs())))
    })
}

fn unreachable(server: &Uri, error: &dyn std::error::Error) -> anyhow::Error {
    // The innermost cause is what the system says; the ones around it only say that it was a transport.
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let cause = cause.to_string();
    let cause = cause.split(" (os error").next().unwrap_or_default().to_lowercase();
    anyhow!(
        "no server answers at {server}: {cause}; start one with `scopeward serve`, or name another with `--server`"
    )
}

/// A gRPC error in one line: code, reason and message.
fn said(status: &Status) -> String {
    let mut text = code_name(status.code());
    if let Some(info) = status.get_details_error_info() {
        // Writing to a String does not fail.
        _ = write!(text, " ({})", info.reason);
    }
    _ = write!(text, ": {}", status.message());
    text
}

/// The name of a code as the gRPC documentation has it, such as INVALID_ARGUMENT.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// What both kinds of answer have, to be printed.
struct Shown<'a> {
    scope: &'a str,
    added: &'a [v1::AddedScope],
    refused: &'a [v1::RefusedScope],
    oauth_error: &'a Option<v1::OAuthError>,
    policy: &'a Option<v1::PolicyVersion>,
    decision_id: &'a str,
    grants: &'a [v1::AudienceGrant],
}

fn answered<M: Message + Name>(
    args: &ServerArgs,
    decision: Decision,
    reason: Reason,
    message: &M,
    shown: &Shown<'_>,
) -> anyhow::Result<Exit> {
    // Anything but an ALLOW is a denial.
    let is_allowed = decision == Decision::Allow;
    print(&match args.output {
        Format::Json => json::to_string_pretty(message)? + "\n",
        Format::Text => text(is_allowed, reason, shown),
    })?;
    Ok(if is_allowed { Exit::Yes } else { Exit::Denied })
}

fn text(is_allowed: bool, reason: Reason, shown: &Shown<'_>) -> String {
    let Shown { scope, added, refused, oauth_error, policy, decision_id, grants } = shown;
    let mut text = match is_allowed {
        true => format!("{} {}\n", good("ALLOW"), clean(scope)),
        false => format!("{} {}\n", bad("DENY"), short(reason.as_str_name(), "REASON_")),
    };
    for added in *added {
        let origin = short(added.origin().as_str_name(), "ORIGIN_");
        let rule = match &*added.rule {
            "" => String::new(),
            rule => format!(", client rule `{}`", clean(rule)),
        };
        let scope = clean(&added.scope);
        row(&mut text, "added", &format_args!("{} ({origin}{rule})", notable(&scope)));
    }
    for refused in *refused {
        let reason = short(refused.reason().as_str_name(), "REASON_");
        row(&mut text, "refused", &format_args!("{}: {}", bad(reason), clean(&refused.message)));
    }
    for grant in *grants {
        row(&mut text, "grant", &format_args!("{}: {}", clean(&grant.audience), clean(&grant.scope)));
    }
    if let Some(v1::OAuthError { error, error_description }) = oauth_error {
        row(&mut text, "error", &format_args!("{}: {}", clean(error), clean(error_description)));
    }
    version(&mut text, policy.as_ref());
    row(&mut text, "decision", &dim(&clean(decision_id)));
    text
}

fn description(answer: &v1::DescribeAudienceResponse) -> String {
    let mut text = String::new();
    for audience in &answer.audiences {
        let v1::AudienceDescription {
            audience,
            scopes_supported,
            baseline_client_scopes,
            default_client_scopes,
            scope_matching,
        } = audience;
        text.push_str(&format!("{}\n", bold(&clean(audience))));
        for (label, list) in [
            ("supported", scopes_supported),
            ("baseline", baseline_client_scopes),
            ("default", default_client_scopes),
        ] {
            let list = if list.is_empty() { "-".to_owned() } else { list.join(" ") };
            row(&mut text, label, &clean(&list));
        }
        row(&mut text, "matching", &clean(scope_matching));
        text.push('\n');
    }
    version(&mut text, answer.policy.as_ref());
    text
}

fn version(text: &mut String, policy: Option<&v1::PolicyVersion>) {
    if let Some(v1::PolicyVersion { generation, digest }) = policy {
        let version = format!("{}, generation {generation}", clean(digest));
        row(text, "policy", &dim(&version));
    }
}

fn row(text: &mut String, label: &str, value: &dyn Display) {
    // Writing to a String does not fail.
    _ = writeln!(text, "  {label:<10}{value}");
}

/// The name of an enum value without the name of its enum.
fn short(name: &'static str, prefix: &str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}

/// Reads `--server`.
fn server_uri(text: &str) -> Result<Uri, String> {
    let hint = "write it as http://HOST:PORT";
    let uri: Uri = text.parse().map_err(|error| format!("{error}; {hint}"))?;
    match uri.scheme_str() {
        Some("http") if matches!(uri.path(), "" | "/") && uri.query().is_none() => Ok(uri),
        Some("http") => Err(format!("a server has no path; {hint}")),
        Some("https") => Err(format!("TLS is not supported; {hint}")),
        _ => Err(hint.to_owned()),
    }
}

const DEFAULT_SERVER: &str = "http://127.0.0.1:50551";
/// How long one verb waits for its answer, connecting included.
const DEADLINE: Duration = Duration::from_secs(10);
/// The largest answer that is taken: a page of descriptions can be long.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_documented_names() {
        assert_eq!(code_name(Code::InvalidArgument), "INVALID_ARGUMENT");
        assert_eq!(code_name(Code::Unavailable), "UNAVAILABLE");
        assert_eq!(code_name(Code::OutOfRange), "OUT_OF_RANGE");
        assert_eq!(code_name(Code::DataLoss), "DATA_LOSS");
    }

    #[test]
    fn a_server_is_an_http_address() {
        assert!(server_uri("http://127.0.0.1:50551").is_ok());
        assert!(server_uri("http://[::1]:50551/").is_ok());
        for text in ["127.0.0.1:50551", "https://a:1", "http://a:1/x", "http://a:1/?x", "", "http://", "a b"]
        {
            assert!(server_uri(text).is_err(), "{text}");
        }
    }
}
