//! `explain`: the answer to one question under the policy in a folder, and the grounds of it.
//!
//! Offline: asks no server and leaves no trace. The decision is the one that a server makes; here its
//! trail is printed, with the lines of the files that led there.

use std::fmt::{Display, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::{Format, bad, bold, dim, good, notable, print, print_error};
use super::question::{AuthorizeArgs, ExpandArgs, TokenArgs};
use super::{Exit, report};
use crate::escape::{self, shown};
use crate::explanation::Explanation;
use crate::explanation::places::Places;
use crate::explanation::words::{AnswerText, AudienceText, Ground, RefusalText, Tone, Toned};
use crate::policy::check::Accepted;
use crate::policy::document::Document;
use crate::proto::json;
use crate::rpc::explain::{Explained, ExplainedRequest};
use crate::store::Active;
use crate::store::load::Loader;
use crate::store::read::ReadSettings;

/// Explain one decision, offline
///
/// Prints for each scope where it comes from or what stops it, with file and line; the answer that an
/// authorization server would send; and how to ask a running server the same. Exits with 0 if the
/// request is allowed, 3 if it is denied.
#[derive(Args, Debug)]
pub(super) struct ExplainArgs {
    #[command(subcommand)]
    question: ExplainCommand,
}

#[derive(Debug, Subcommand)]
enum ExplainCommand {
    /// Which scopes shall a client hold that registers like this?
    Expand {
        #[command(flatten)]
        policy: PolicyArgs,
        #[command(flatten)]
        question: ExpandArgs,
    },
    /// Which scopes may an authorize request like this get?
    Authorize {
        #[command(flatten)]
        policy: PolicyArgs,
        #[command(flatten)]
        question: AuthorizeArgs,
    },
    /// Which scopes may a token have that is asked for like this?
    Token {
        #[command(flatten)]
        policy: PolicyArgs,
        #[command(flatten)]
        question: TokenArgs,
    },
}

#[derive(Args, Debug)]
struct PolicyArgs {
    /// Policy folder
    #[arg(long, value_name = "DIR", default_value = "policies")]
    policies: PathBuf,
    /// Follow links out of the named folders, and show no text of what they lead to
    #[arg(long)]
    allow_outside_links: bool,
    /// How to print the explanation
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

/// Runs the verb.
///
/// # Errors
/// If the folder cannot be read, or the question is over a limit or lacks the grant.
pub(super) fn run(args: ExplainArgs) -> anyhow::Result<Exit> {
    match args.question {
        ExplainCommand::Expand { policy, question } => explain(&policy, &question.to_wire()),
        ExplainCommand::Authorize { policy, question } => explain(&policy, &question.to_wire()),
        ExplainCommand::Token { policy, question } => explain(&policy, &question.to_wire()),
    }
}

fn explain<Q: ExplainedRequest>(args: &PolicyArgs, question: &Q) -> anyhow::Result<Exit> {
    question.check_question()?;
    let (active, places) = load(args)?;
    let Explained { is_allowed, explanation, text, response } = question.explain(&active, &places, true);
    let command = question.command()?;
    print(&match args.output {
        Format::Text => printed(&text, active.set.digest(), &command),
        Format::Json => json_text(&json::to_string_pretty(&response)?, &explanation, &command)?,
    })?;
    Ok(if is_allowed { Exit::Yes } else { Exit::Denied })
}

/// A valid policy, and where everything in it is declared.
fn load(args: &PolicyArgs) -> anyhow::Result<(Active, Places)> {
    let PolicyArgs { policies: folder, allow_outside_links, output: _ } = args;
    let settings = ReadSettings { allow_outside_links: *allow_outside_links, ..ReadSettings::default() };
    let loaded = Loader::new(vec![folder.clone()], settings).load()?;
    match loaded.outcome {
        Ok(Accepted { set, .. }) => {
            let document = |file: &crate::store::read::SourceFile| {
                (Document::read(&file.path, file.text()), file.is_outside)
            };
            let places = Places::new(loaded.files.iter().map(document));
            // No process serves the set, so it has no generation; and no answer from it has an id.
            Ok((Active { set, generation: 0, load_time: SystemTime::UNIX_EPOCH }, places))
        }
        Err(findings) => {
            print_error(&report::findings(&findings, &loaded.files));
            let folder = folder.to_string_lossy();
            anyhow::bail!("the policy in `{}` is not valid, so it decides nothing", shown(&folder))
        }
    }
}

/// The message with the explanation as further members.
fn json_text(message: &str, explanation: &Explanation, grpcurl: &str) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct More<'e> {
        #[serde(flatten)]
        explanation: &'e Explanation,
        grpcurl: &'e str,
    }
    let more = escape::json_pretty(&More { explanation, grpcurl })?;
    // Both are objects with at least one member, indented alike.
    let message = message.trim_end().strip_suffix('}').unwrap_or(message).trim_end();
    let more = more.strip_prefix('{').unwrap_or(&more);
    Ok(format!("{message},{more}\n"))
}

fn printed(answer: &AnswerText, digest: &dyn Display, command: &str) -> String {
    let AnswerText { decision, gist, notes, audiences, refused, client_gets } = answer;
    let mut text = String::new();
    let mut line = |line: &dyn Display| {
        // Writing to a String does not fail.
        _ = writeln!(text, "{line}");
    };
    line(&format_args!("{} {gist}", styled(decision)));
    for note in notes {
        line(note);
    }
    for AudienceText { audience, place, scopes, rules, settings } in audiences {
        line(&format_args!("\n{} {}", bold(audience), dim(&in_brackets(place))));
        for scope in scopes {
            line(&format_args!("  {}: {}", bold(&scope.scope), styled(&scope.outcome)));
            for Ground { text, place } in &scope.grounds {
                match &**place {
                    "" => line(&format_args!("    {text}")),
                    place => line(&format_args!("    {text}, {}", dim(place))),
                }
            }
        }
        for rule in rules {
            let (place, outcome) = (in_brackets(&rule.place), styled(&rule.outcome));
            line(&format_args!("  client rule `{}` {}: {outcome}", rule.name, dim(&place)));
        }
        for setting in settings {
            line(&format_args!("  {}: {} {}", setting.key, setting.value, dim(&in_brackets(&setting.place))));
        }
    }
    if !refused.is_empty() {
        line(&format_args!("\n{}", bold("refused")));
        for RefusalText { reason, message } in refused {
            line(&format_args!("  {}: {message}", bad(reason)));
        }
    }
    line(&format_args!("\n{}", bold("the client gets")));
    for gets in client_gets {
        line(&format_args!("  {gets}"));
    }
    line(&format_args!("\n{}\n  {digest}", bold("policy")));
    line(&format_args!("\n{}\n  {command}", bold("ask a server")));
    text
}

fn styled(word: &Toned) -> String {
    match word.tone {
        Tone::Good => good(&word.text).to_string(),
        Tone::Bad => bad(&word.text).to_string(),
        Tone::Notable => notable(&word.text).to_string(),
        Tone::Plain => word.text.clone(),
    }
}

fn in_brackets(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!("({place})") }
}
