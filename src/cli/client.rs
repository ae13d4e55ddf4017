//! `expand`, `authorize`, `token` and `describe`: ask a running server, as an authorization server would.
//!
//! What comes back is printed as it is; nothing is decided here. A server is not trusted either: its text
//! is made harmless before it reaches a terminal.

use std::fmt::{Display, Write};

use anyhow::anyhow;
use clap::Args;
use prost::{Message, Name};
use tonic::{Code, Response, Status};

use super::Exit;
use super::output::{Format, bad, bold, dim, good, notable, print};
use super::question::{AuthorizeArgs, ExpandArgs, TokenArgs};
use super::remote::{MAX_ANSWER_BYTES, Remote, ServerArgs, ServerTarget, TimeoutArgs, connect, said, wait};
use crate::escape::{clean, shown};
use crate::policy::finding::nearest_few;
use crate::proto::json;
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

/// Ask a server which scopes a token may have
///
/// Exits with 0 if the request is allowed, 3 if it is denied, 2 if there is no answer.
#[derive(Args, Debug)]
pub(super) struct TokenVerb {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    question: TokenArgs,
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

/// Runs `expand`.
///
/// # Errors
/// If there is no answer.
pub(super) fn expand(args: ExpandVerb) -> anyhow::Result<Exit> {
    let ExpandVerb { server, question } = args;
    let answer = call(&server.server, server.timeout, async |mut client| {
        client.expand_registration_scopes(question.to_wire()).await.map(Response::into_inner)
    })?;
    let v1::ExpandRegistrationScopesResponse {
        scope, added, refused, oauth_error, policy, decision_id, ..
    } = &answer;
    let shown = PrintedAnswer { scope, added, refused, oauth_error, policy, decision_id, grants: &[] };
    answered(&server, answer.decision(), answer.reason(), &answer, &shown)
}

/// Runs `authorize`.
///
/// # Errors
/// If there is no answer.
pub(super) fn authorize(args: AuthorizeVerb) -> anyhow::Result<Exit> {
    let AuthorizeVerb { server, question } = args;
    let answer = call(&server.server, server.timeout, async |mut client| {
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
    let shown =
        PrintedAnswer { scope, added, refused, oauth_error, policy, decision_id, grants: audience_grants };
    answered(&server, answer.decision(), answer.reason(), &answer, &shown)
}

/// Runs `token`.
///
/// # Errors
/// If there is no answer.
pub(super) fn token(args: TokenVerb) -> anyhow::Result<Exit> {
    let TokenVerb { server, question } = args;
    let answer = call(&server.server, server.timeout, async |mut client| {
        client.check_token_scopes(question.to_wire()).await.map(Response::into_inner)
    })?;
    let v1::CheckTokenScopesResponse {
        scope,
        refused,
        oauth_error,
        policy,
        decision_id,
        audience_grants,
        ..
    } = &answer;
    let shown = PrintedAnswer {
        scope,
        added: &[],
        refused,
        oauth_error,
        policy,
        decision_id,
        grants: audience_grants,
    };
    answered(&server, answer.decision(), answer.reason(), &answer, &shown)
}

/// Runs `describe`.
///
/// # Errors
/// If there is no answer, or the server does not know the audience.
pub(super) fn describe(args: DescribeVerb) -> anyhow::Result<Exit> {
    let DescribeVerb { server, audience } = args;
    let answer = describe_all(&server.server, server.timeout, audience)?;
    print(&match server.output {
        Format::Json => json::to_string_pretty(&answer)? + "\n",
        Format::Text => description(&answer),
    })?;
    Ok(Exit::Yes)
}

/// Describes an audience, or all of them if it is empty, on as many pages as it takes.
///
/// # Errors
/// If there is no answer, or the policy never stands still for all of them.
pub(super) fn describe_all(
    server: &ServerTarget,
    timeout: TimeoutArgs,
    audience: String,
) -> anyhow::Result<v1::DescribeAudienceResponse> {
    call(server, timeout, async |mut client| {
        for _ in 0..DESCRIBE_ATTEMPTS {
            match describe_at_once(&mut client, &audience).await {
                Ok(Some(all)) => return Ok(all),
                Ok(None) => {}
                Err(status) if status.code() == Code::NotFound => {
                    return Err(with_near_audiences(&mut client, &audience, status).await);
                }
                Err(status) => return Err(status),
            }
        }
        Err(Status::aborted("the policy changes again and again while it is described"))
    })
}

/// An error about an unknown audience, with those on the first page that were probably meant.
async fn with_near_audiences(
    client: &mut ScopePolicyServiceClient<Remote>,
    audience: &str,
    status: Status,
) -> Status {
    let Ok(known) = client.describe_audience(v1::DescribeAudienceRequest::default()).await else {
        return status;
    };
    let known = known.into_inner().audiences;
    let names = known.iter().flat_map(|known| std::iter::once(&known.audience).chain(&known.aliases));
    let near: Vec<String> = nearest_few(audience, names.map(String::as_str), MAX_NEAR)
        .into_iter()
        .map(|near| format!("`{}`", shown(near)))
        .collect();
    if near.is_empty() {
        return status;
    }
    let message = format!("{}; did you mean {}?", status.message(), near.join(" or "));
    Status::with_details_and_metadata(
        status.code(),
        message,
        status.details().to_vec().into(),
        status.metadata().clone(),
    )
}

/// Most audiences that are named where one is unknown.
const MAX_NEAR: usize = 3;

/// Every page of one policy; nothing if the policy changed between two pages.
async fn describe_at_once(
    client: &mut ScopePolicyServiceClient<Remote>,
    audience: &str,
) -> Result<Option<v1::DescribeAudienceResponse>, Status> {
    let mut request = v1::DescribeAudienceRequest { audience: audience.to_owned(), ..Default::default() };
    let mut all = client.describe_audience(request.clone()).await?.into_inner();
    while !all.next_page_token.is_empty() {
        request.page_token = std::mem::take(&mut all.next_page_token);
        let page = client.describe_audience(request.clone()).await?.into_inner();
        if page.policy != all.policy {
            return Ok(None);
        }
        all.audiences.extend(page.audiences);
        all.next_page_token = page.next_page_token;
    }
    Ok(Some(all))
}

/// Calls a server and waits for the answer.
fn call<T>(
    server: &ServerTarget,
    timeout: TimeoutArgs,
    ask: impl AsyncFnOnce(ScopePolicyServiceClient<Remote>) -> Result<T, Status>,
) -> anyhow::Result<T> {
    wait(timeout, async {
        let channel = connect(server, timeout).await?;
        let client = ScopePolicyServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        ask(client).await.map_err(|status| anyhow!("{}", said(&status)))
    })
}

/// What all kinds of answer have, to be printed.
struct PrintedAnswer<'a> {
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
    shown: &PrintedAnswer<'_>,
) -> anyhow::Result<Exit> {
    // Anything but an ALLOW is a denial.
    let is_allowed = decision == Decision::Allow;
    print(&match args.output {
        Format::Json => json::to_string_pretty(message)? + "\n",
        Format::Text => text(is_allowed, reason, shown),
    })?;
    Ok(if is_allowed { Exit::Yes } else { Exit::Denied })
}

fn text(is_allowed: bool, reason: Reason, shown: &PrintedAnswer<'_>) -> String {
    let PrintedAnswer { scope, added, refused, oauth_error, policy, decision_id, grants } = shown;
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
            privileged_scopes,
            step_up_scopes,
            advertised_scopes,
            scope_descriptions,
            description,
            aliases,
        } = audience;
        text.push_str(&format!("{}\n", bold(&clean(audience))));
        if !description.is_empty() {
            wide(&mut text, "about", &clean(description));
        }
        // What every audience has, then what few have.
        for (label, list, is_always_shown) in [
            ("supported", scopes_supported, true),
            ("advertised", advertised_scopes, true),
            ("baseline", baseline_client_scopes, true),
            ("default", default_client_scopes, true),
            ("privileged", privileged_scopes, false),
            ("step-up", step_up_scopes, false),
            ("aliases", aliases, false),
        ] {
            if is_always_shown || !list.is_empty() {
                let list = if list.is_empty() { "-".to_owned() } else { list.join(" ") };
                wide(&mut text, label, &clean(&list));
            }
        }
        wide(&mut text, "matching", &clean(scope_matching));
        let mut described: Vec<_> = scope_descriptions.iter().collect();
        described.sort();
        for (scope, about) in described {
            wide(&mut text, "scope", &format_args!("{}: {}", clean(scope), clean(about)));
        }
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

/// A row of a description, whose labels are longer.
fn wide(text: &mut String, label: &str, value: &dyn Display) {
    row(text, &format!("{label:<12}"), value);
}

/// The name of an enum value without the name of its enum.
fn short(name: &'static str, prefix: &str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}

/// How often all pages are asked for again because the policy changed between two of them.
const DESCRIBE_ATTEMPTS: usize = 5;
