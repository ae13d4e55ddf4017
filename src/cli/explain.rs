//! `explain`: the answer to one question under the policy in a folder, and the grounds of it.
//!
//! Offline: asks no server and leaves no trace. The decision is the one that a server makes; here its
//! trail is printed, with the lines of the files that led there.

use std::collections::HashSet;
use std::fmt::{Display, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use prost::{Message, Name};
use serde::Serialize;
use uuid::Uuid;

use self::sources::{FilePlace, ListEntry, Sources};
use self::trail::{Asked, Explanation, Fact, NearAudiences, NotHeld, RuleMatch, Setting};
use super::output::{Format, bad, bold, dim, good, notable, print, print_error};
use super::question::{AuthorizeArgs, ExpandArgs};
use super::{Exit, report};
use crate::call;
use crate::decision::{Answer, Client, authorize, check_limits, registration};
use crate::escape::shown;
use crate::escape::{self, clean};
use crate::policy::AudiencePolicy;
use crate::policy::check::Accepted;
use crate::policy::finding::nearest_few;
use crate::proto::json::{self, JsonError};
use crate::rpc::convert;
use crate::rpc::error::RpcError;
use crate::rpc::limits::MAX_MESSAGE_BYTES;
use crate::store::Active;
use crate::store::load::Loader;
use crate::store::read::ReadSettings;

mod sources;
mod trail;

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
/// If the folder cannot be read, or the question is over a limit.
pub(super) fn run(args: ExplainArgs) -> anyhow::Result<Exit> {
    match args.question {
        ExplainCommand::Expand { policy, question } => {
            let request = question.to_wire();
            within_limits(&request, &request.audiences, &request.correlation_id)?;
            let question = call::registration(&request);
            let case = Preamble {
                audiences: &request.audiences,
                method: "ExpandRegistrationScopes",
                request: json::to_string_of_set(&request)?,
                client: &question.client,
                asked: Asked::Registration,
            };
            let loaded = Policy::load(&policy)?;
            let answer = || registration::explain(&loaded.active.set, &question);
            let message = || {
                let mut message = convert::expand_response(answer(), &loaded.active, Uuid::nil());
                message.decision_id.clear();
                json::to_string_pretty(&message)
            };
            show(&loaded, &answer(), message, &case, policy.output)
        }
        ExplainCommand::Authorize { policy, question } => {
            let request = question.to_wire();
            within_limits(&request, &request.audiences, &request.correlation_id)?;
            let question = call::authorize(&request);
            let case = Preamble {
                audiences: &request.audiences,
                method: "CheckAuthorizeScopes",
                request: json::to_string_of_set(&request)?,
                client: &question.client,
                asked: Asked::Authorize {
                    scope_omitted: question.scope.is_none_or(|scope| scope.trim_matches(' ').is_empty()),
                    registration_known: question.registered_scope.is_some(),
                },
            };
            let loaded = Policy::load(&policy)?;
            let answer = || authorize::explain(&loaded.active.set, &question);
            let message = || {
                let mut message = convert::check_response(answer(), &loaded.active, Uuid::nil());
                message.decision_id.clear();
                json::to_string_pretty(&message)
            };
            show(&loaded, &answer(), message, &case, policy.output)
        }
    }
}

/// What is printed of a question besides its answer.
struct Preamble<'q> {
    /// Those that the question names.
    audiences: &'q [String],
    method: &'static str,
    /// The question in JSON.
    request: String,
    client: &'q Client<'q>,
    asked: Asked,
}

/// A valid policy and its files as data.
struct Policy {
    active: Active,
    sources: Sources,
    /// Files outside of the folder, of which nothing is suggested.
    outside: HashSet<Arc<str>>,
}

impl Policy {
    fn load(args: &PolicyArgs) -> anyhow::Result<Self> {
        let PolicyArgs { policies: folder, allow_outside_links, output: _ } = args;
        let settings = ReadSettings { allow_outside_links: *allow_outside_links, ..ReadSettings::default() };
        let loaded = Loader::new(vec![folder.clone()], settings).load()?;
        match loaded.outcome {
            // No process serves the set, so it has no generation; and no answer from it has an id.
            Ok(Accepted { set, .. }) => Ok(Self {
                active: Active { set, generation: 0, load_time: SystemTime::UNIX_EPOCH },
                sources: Sources::new(&loaded.files),
                outside: loaded
                    .files
                    .iter()
                    .filter(|file| file.is_outside)
                    .map(|file| Arc::clone(&file.path))
                    .collect(),
            }),
            Err(findings) => {
                print_error(&report::findings(&findings, &loaded.files));
                let folder = folder.to_string_lossy();
                anyhow::bail!("the policy in `{}` is not valid, so it decides nothing", shown(&folder))
            }
        }
    }
}

impl Policy {
    /// The audiences among those named that are unknown, each with those that were probably meant.
    fn near_audiences(&self, named: &[String]) -> Vec<NearAudiences> {
        let set = &self.active.set;
        let is_shown = |policy: &&Arc<AudiencePolicy>| {
            self.sources.find(policy).is_some_and(|declared| !self.outside.contains(declared.file()))
        };
        let unknown = named.iter().filter(|name| !name.is_empty() && matches!(set.audience(name), Ok(None)));
        unknown
            .map(|name| {
                let names = set.audiences().iter().flat_map(|policy| {
                    let aliases = policy.aliases.iter().map(|alias| &*alias.spelled);
                    std::iter::once(&*policy.audience).chain(aliases).map(move |name| (name, policy))
                });
                let near = nearest_few(
                    name,
                    names.filter(|(_, policy)| is_shown(policy)).map(|(name, _)| name),
                    MAX_NEAR,
                );
                NearAudiences { audience: name.clone(), near: near.into_iter().map(str::to_owned).collect() }
            })
            .collect()
    }
}

/// Most audiences that are named where one is unknown.
const MAX_NEAR: usize = 3;

/// Prints an answer; `message` makes its JSON form.
fn show(
    policy: &Policy,
    answer: &Answer<'_>,
    message: impl FnOnce() -> Result<String, JsonError>,
    case: &Preamble<'_>,
    output: Format,
) -> anyhow::Result<Exit> {
    let mut explanation = Explanation::new(&policy.sources, answer, case.client, case.asked);
    explanation.near_audiences = policy.near_audiences(case.audiences);
    print(&match output {
        Format::Text => text(policy, answer, &explanation, case),
        Format::Json => json_text(&message()?, &explanation, &grpcurl(case))?,
    })?;
    Ok(if answer.is_allowed() { Exit::Yes } else { Exit::Denied })
}

/// What a server would refuse to answer is refused here in the same words.
fn within_limits<M: Message + Name>(
    message: &M,
    audiences: &[String],
    correlation_id: &str,
) -> anyhow::Result<()> {
    let length = message.encoded_len();
    if length > MAX_MESSAGE_BYTES {
        let message = M::NAME.to_owned();
        return Err(RpcError::MessageTooLarge { message, limit: MAX_MESSAGE_BYTES, actual: length }.into());
    }
    check_limits(audiences, correlation_id).map_err(|error| convert::limit_error(&error, "").into())
}

/// The command that asks a running server the same. Needs no proto file, since the server has reflection.
fn grpcurl(case: &Preamble<'_>) -> String {
    // In a shell nothing is special between single quotes but the quote that ends them.
    let request = ascii(&case.request).replace('\'', r"'\''");
    let method = case.method;
    format!("grpcurl -plaintext -d '{request}' 127.0.0.1:50551 scopeward.v1.ScopePolicyService/{method}")
}

/// JSON with everything outside of printable ASCII escaped, so that a terminal shows what a shell gets.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            ' '..='~' => text.push(character),
            // JSON has such characters in strings only.
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    // Writing to a String does not fail.
                    _ = write!(text, "\\u{unit:04x}");
                }
            }
        }
    }
    text
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

fn text(loaded: &Policy, answer: &Answer<'_>, explanation: &Explanation, case: &Preamble<'_>) -> String {
    let Policy { active, sources, outside: _ } = loaded;
    let mut text = String::new();
    let mut line = |line: &dyn Display| {
        // Writing to a String does not fail.
        _ = writeln!(text, "{line}");
    };
    match answer.reason {
        None => line(&format_args!("{} {}", good("ALLOW"), answer.scope.join(" "))),
        Some(reason) => line(&format_args!("{} {}", bad("DENY"), reason.as_str())),
    }
    for NearAudiences { audience, near } in &explanation.near_audiences {
        let near: Vec<String> = near.iter().map(|near| format!("`{}`", shown(near))).collect();
        let hint = match near.as_slice() {
            [] => "the audiences of the policy are named differently".to_owned(),
            near => format!("did you mean {}?", near.join(" or ")),
        };
        line(&format_args!("no audience `{}` in the policy; {hint}", shown(audience)));
    }
    if explanation.as_omitted && answer.trail.iter().any(|step| step.asked) {
        line(
            &"nothing is left of what was asked, so it is decided as if the scope had been omitted (nothingLeft)",
        );
    }
    for policy in &answer.audiences {
        let audience = &*policy.audience;
        let place = sources.find(policy).map(|declared| declared.place());
        line(&format_args!("\n{} {}", bold(&clean(audience)), dim(&in_brackets(place.as_ref()))));
        for scope in scopes(explanation, audience) {
            line(&scope);
        }
        for rule in explanation.client_rules.iter().filter(|rule| rule.audience == audience) {
            line(&rule_text(rule));
        }
        for setting in explanation.settings.iter().filter(|setting| setting.audience == audience) {
            line(&setting_text(setting));
        }
    }
    if !answer.refused.is_empty() {
        line(&format_args!("\n{}", bold("refused")));
        for refused in &answer.refused {
            line(&format_args!("  {}: {}", bad(refused.reason.as_str()), refused.message));
        }
    }
    line(&format_args!("\n{}", bold("the client gets")));
    match (&answer.oauth_error, case.asked) {
        (Some(error), _) => {
            line(&format_args!("  error={}", error.error));
            line(&format_args!("  error_description={}", error.error_description));
        }
        (None, Asked::Registration) => {
            line(&format_args!("  scope={} (RFC 7591 section 3.2.1)", answer.scope.join(" ")));
        }
        (None, Asked::Authorize { .. }) => {
            line(&format_args!("  scope={} (RFC 6749 section 3.3)", answer.scope.join(" ")));
            for grant in &answer.audience_grants {
                line(&format_args!("  at {}: {}", clean(grant.audience), grant.scope.join(" ")));
            }
        }
    }
    line(&format_args!("\n{}\n  {}", bold("policy"), active.set.digest()));
    line(&format_args!("\n{}\n  {}", bold("ask a server"), grpcurl(case)));
    text
}

/// How each scope fared at one audience, a paragraph each, in the order of the trail.
fn scopes(explanation: &Explanation, audience: &str) -> Vec<String> {
    let facts: Vec<&Fact> = explanation.trail.iter().filter(|fact| fact.audience == audience).collect();
    let mut scopes: Vec<&str> = Vec::new();
    for fact in &facts {
        if !scopes.contains(&&*fact.scope) {
            scopes.push(&fact.scope);
        }
    }
    scopes
        .into_iter()
        .map(|scope| scope_text(scope, facts.iter().copied().filter(|fact| fact.scope == scope)))
        .collect()
}

/// One scope may have several facts: asked for, given by the baseline, given by a rule.
fn scope_text<'f>(scope: &str, facts: impl Iterator<Item = &'f Fact> + Clone) -> String {
    let asked = facts.clone().any(|fact| fact.asked);
    let mut text = format!("  {}: ", bold(scope));
    let decisive = facts.clone().next();
    _ = match decisive.map(|fact| (fact.outcome, fact.reason)) {
        Some(("GRANTED", _)) if asked => write!(text, "{}", good("granted")),
        Some(("GRANTED", _)) => write!(text, "{}", notable("added")),
        Some(("WITHHELD", reason)) => write!(text, "{}", notable(&format!("not given, {reason}"))),
        Some((_, reason)) => write!(text, "{}", bad(&format!("refused, {reason}"))),
        None => Ok(()),
    };
    let mut ground = |ground: String| {
        text.push_str("\n    ");
        text.push_str(&ground);
    };
    ground(if asked { "asked for" } else { "not asked for" }.to_owned());
    if let Some(fact) = decisive {
        ground(match &fact.supported {
            Some(entry) => format!("supported: {}", entry_text(entry)),
            None => "in no entry of scopesSupported".to_owned(),
        });
        if let Some(entry) = &fact.forbidden {
            ground(format!("forbidden: {}", entry_text(entry)));
        }
        if let Some(entry) = &fact.privileged {
            ground(format!("privileged, never given unasked: {}", entry_text(entry)));
        }
        if fact.always {
            ground("in authorization.alwaysGrantScopes".to_owned());
        }
        if let Some(not_held) = &fact.not_held {
            ground(not_held_text(not_held));
        }
        if let Some(entry) = &fact.stands_in {
            ground(format!("stands in for the scope: {}", entry_text(entry)));
        }
    }
    for holding in facts.filter_map(|fact| fact.held.as_ref()) {
        let entry = &holding.entry;
        ground(match (holding.origin, &*holding.rule) {
            ("REGISTERED", _) => format!("registered: `{}`", entry.entry),
            ("ANY_SUPPORTED", _) => {
                format!("registration unknown, which counts as any supported scope: {}", entry_text(entry))
            }
            (origin, "") => format!("held by {origin}: {}", entry_text(entry)),
            (origin, rule) => {
                format!("held by {origin}, client rule `{}`: {}", shown(rule), entry_text(entry))
            }
        });
    }
    text
}

fn not_held_text(not_held: &NotHeld) -> String {
    let NotHeld { because, setting } = not_held;
    let Some(setting) = setting else {
        return "not held: not registered, and nothing in the policy gives it".to_owned();
    };
    let why = match *because {
        "REGISTRATION_UNKNOWN" if setting.entry == "none" => {
            "what the client registered is unknown, which counts as nothing"
        }
        "REGISTRATION_UNKNOWN" => {
            "what the client registered is unknown, which counts as a registration without scope, and nothing in the policy gives it"
        }
        _ => "not registered, and the baseline does not cover clients that registered before",
    };
    format!("not held: {why}: {}", entry_text(setting))
}

fn entry_text(entry: &ListEntry) -> String {
    let ListEntry { list, entry, place } = entry;
    match place {
        Some(place) => format!("`{}` in {list}, {}", clean(entry), dim(&place.to_string())),
        None if list.starts_with("authorization.") => format!("`{}` in {list}, the default", clean(entry)),
        None if *list == "defaultClientScopes" => {
            format!("`{}` in {list}, which is not declared and filled in", clean(entry))
        }
        None => format!("`{}` in {list}", clean(entry)),
    }
}

fn rule_text(rule: &RuleMatch) -> String {
    let RuleMatch { audience: _, name, holds, not_met, place } = rule;
    let outcome = match holds {
        true => good("holds").to_string(),
        false => format!("does not hold for this client: {}", not_met.join(", ")),
    };
    format!("  client rule `{}` {}: {outcome}", shown(name), dim(&in_brackets(place.as_ref())))
}

fn setting_text(setting: &Setting) -> String {
    let Setting { audience: _, key, value, place } = setting;
    let place = place.as_ref().map_or_else(|| "default".to_owned(), FilePlace::to_string);
    format!("  {key}: {value} {}", dim(&format!("({place})")))
}

fn in_brackets(place: Option<&FilePlace>) -> String {
    place.map(|place| format!("({place})")).unwrap_or_default()
}
