//! `shadow report`: what a second policy would have answered to live traffic.

use std::fmt::Write;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use tonic::Response;

use super::Exit;
use super::output::{Format, bad, bold, dim, good, notable, print};
use super::remote::{self, MAX_ANSWER_BYTES, ServerArgs, connect, said};
use super::report::counted;
use crate::escape::clean;
use crate::proto::json;
use crate::rpc::v1;
use crate::rpc::v1::ShadowDifferenceKind as Kind;
use crate::rpc::v1::policy_status_service_client::PolicyStatusServiceClient;

/// Show what a second policy would have answered
#[derive(Args, Debug)]
pub(super) struct ShadowVerb {
    #[command(subcommand)]
    verb: ShadowSubverb,
}

#[derive(Debug, Subcommand)]
enum ShadowSubverb {
    Report(ShadowReportArgs),
}

/// Show how the answers of the policy of `serve --shadow` differ from those that were given
///
/// Counts since the start of the server by kind, and the newest differences. Exits with 0 if the server
/// answered, whatever differs; 2 if it did not or has no shadow policy.
#[derive(Args, Debug)]
struct ShadowReportArgs {
    /// How many of the newest differences to show; a server keeps 1,000
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the verb.
///
/// # Errors
/// If there is no answer, or the server has no shadow policy.
pub(super) fn run(args: ShadowVerb) -> anyhow::Result<Exit> {
    let ShadowVerb { verb: ShadowSubverb::Report(ShadowReportArgs { limit, server }) } = args;
    let ServerArgs { server, timeout, output } = server;
    let report = remote::wait(timeout, async {
        let channel = connect(&server, timeout).await?;
        let mut client = PolicyStatusServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        let request = v1::GetShadowReportRequest { max_differences: limit.into() };
        let answer = client.get_shadow_report(request).await;
        answer.map(Response::into_inner).map_err(|status| anyhow!("{}", said(&status)))
    })?;
    print(&match output {
        Format::Text => text(&report),
        Format::Json => json::to_string_pretty(&report)? + "\n",
    })?;
    Ok(Exit::Yes)
}

fn text(report: &v1::GetShadowReportResponse) -> String {
    let v1::GetShadowReportResponse {
        shadow,
        serving,
        start_time,
        compared_count,
        dropped_count,
        difference_counts,
        differences,
    } = report;
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    let shadow = shadow.clone().unwrap_or_default();
    line(format!("  serving   {}", version(serving.as_ref())));
    line(format!("  shadow    {}", version(shadow.active.as_ref())));
    if let Some(attempt) = shadow.last_attempt.filter(|attempt| !attempt.accepted) {
        let findings = counted(usize::try_from(attempt.finding_count).unwrap_or(usize::MAX), "finding");
        line(format!(
            "  {}",
            bad(&format!("its newest files are not valid, {findings}; see `scopeward check`"))
        ));
    }
    let since = start_time.as_ref().map(|time| format!(" since {time}")).unwrap_or_default();
    line(format!("  compared  {compared_count}{since}, not compared {dropped_count}"));
    let total: u64 = difference_counts.iter().map(|one| one.count).sum();
    let shown = match total {
        0 => good("no differences").to_string(),
        1 => notable("1 difference").to_string(),
        total => notable(&format!("{total} differences")).to_string(),
    };
    line(format!("  {shown}"));
    for v1::ShadowDifferenceCount { kind, count } in difference_counts {
        if *count > 0 {
            line(format!("    {count:>8}  {}", words(Kind::try_from(*kind).unwrap_or_default())));
        }
    }
    for difference in differences {
        line(String::new());
        line(one(difference));
    }
    text
}

fn one(difference: &v1::ShadowDifference) -> String {
    let v1::ShadowDifference {
        kind: _,
        decision_time,
        decision_id,
        method,
        audiences,
        client_id,
        requested_scope,
        registered_scope,
        serving,
        shadow,
        truncated,
        granted_scope,
        grant: _,
    } = difference;
    let mut text = format!("{}", bold(words(difference.kind())));
    let time = decision_time.as_ref().map(ToString::to_string).unwrap_or_default();
    let method = method.rsplit('/').next().unwrap_or_default();
    let mut row = |label: &str, value: String| {
        // Writing to a String does not fail.
        _ = write!(text, "\n  {label:<12}{value}");
    };
    row("question", format!("{} {}", clean(method), dim(&format!("{time} {}", clean(decision_id)))));
    row("client", if client_id.is_empty() { "not named".to_owned() } else { clean(client_id).into_owned() });
    if !audiences.is_empty() {
        row("audiences", clean(&audiences.join(" ")).into_owned());
    }
    row("asked", scope(requested_scope.as_deref()));
    if difference.grant() == v1::TokenGrant::Unspecified {
        row("registered", scope(registered_scope.as_deref()));
    } else {
        let grant = difference.grant().as_str_name();
        row("grant", grant.strip_prefix("TOKEN_GRANT_").unwrap_or(grant).to_owned());
        row("granted", scope(granted_scope.as_deref()));
        if granted_scope.is_none() {
            row("registered", scope(registered_scope.as_deref()));
        }
    }
    row("serving", answer(serving.as_ref()));
    row("shadow", answer(shadow.as_ref()));
    if *truncated {
        row("", dim("long texts are cut").to_string());
    }
    text
}

fn answer(answer: Option<&v1::ShadowAnswer>) -> String {
    let Some(answer) = answer else { return "unknown".to_owned() };
    if answer.decision() == v1::Decision::Allow {
        return format!("{} {}", good("ALLOW"), clean(&answer.scope));
    }
    let reason = answer.reason().as_str_name();
    format!("{} {}", bad("DENY"), reason.strip_prefix("REASON_").unwrap_or(reason))
}

fn scope(scope: Option<&str>) -> String {
    match scope {
        None => dim("not said").to_string(),
        Some("") => "\"\"".to_owned(),
        Some(scope) => clean(scope).into_owned(),
    }
}

fn version(version: Option<&v1::PolicyVersion>) -> String {
    match version {
        None => "none".to_owned(),
        Some(v1::PolicyVersion { generation, digest }) => {
            format!("generation {generation}, {}", clean(digest))
        }
    }
}

/// What a kind means for the client.
const fn words(kind: Kind) -> &'static str {
    match kind {
        Kind::AllowToDeny => "allowed, the shadow policy denies",
        Kind::DenyToAllow => "denied, the shadow policy allows",
        Kind::Wider => "the shadow policy grants more",
        Kind::Narrower => "the shadow policy grants less",
        Kind::Other => "another answer, neither more nor less",
        Kind::Unspecified => "of a kind that this version does not know",
    }
}
