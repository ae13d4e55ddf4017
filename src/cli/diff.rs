//! `diff`: what a policy change means, before it is merged.
//!
//! Compares two policies, or what a server tells of its policy with a new one, and runs recorded calls
//! through both. What counts as widening and as a flip is known below; here it is read and printed.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use clap::Args;
use serde_json::{Value, json};

use super::output::{Format, bad, dim, good, notable, print, print_error};
use super::remote::address::ServerAddress;
use super::remote::{CredentialArgs, ServerTarget, TimeoutArgs};
use super::report::{self, counted};
use super::{Exit, input};
use crate::difference::changes;
use crate::escape::{self, shown};
use crate::policy::PolicySet;
use crate::policy::change::{Change, ChangeKind};
use crate::replay;

mod against;
mod audit;

/// Show what changes from one policy to another, and what widens
///
/// A change is marked as widening if some client may get something that it could not get before.
/// Exits with 0, with 1 if --fail-on-widening is given and something widens, with 2 if a policy is not
/// valid or something cannot be read.
#[derive(Args, Debug)]
#[command(
    override_usage = "scopeward diff [OPTIONS] <OLD> [NEW]\n       scopeward diff [OPTIONS] --against <SERVER> [NEW]"
)]
pub(super) struct DiffArgs {
    /// The policy as it is, a folder or a file; left out with --against
    #[arg(value_name = "OLD", required_unless_present = "against")]
    first: Option<PathBuf>,
    /// The policy as it shall be; if it is left out, the policy of --policies
    #[arg(value_name = "NEW", conflicts_with = "against")]
    second: Option<PathBuf>,
    /// Policy folder that stands in for NEW
    #[arg(long, value_name = "DIR", default_value = "policies")]
    policies: PathBuf,
    /// Compare NEW with what the server at this address tells of its policy, instead of OLD
    #[arg(long, value_name = "SERVER", conflicts_with = "replay")]
    against: Option<ServerAddress>,
    #[command(flatten)]
    credentials: CredentialArgs,
    #[command(flatten)]
    timeout: TimeoutArgs,
    /// Run recorded calls through both policies and list each answer that flips: a state directory,
    /// the store in it, or a file of JSON lines (- is standard input)
    #[arg(long, value_name = "AUDIT")]
    replay: Option<PathBuf>,
    /// Follow links out of the named folders, and show no text of what they lead to
    #[arg(long)]
    allow_outside_links: bool,
    /// Exit with 1 if a client may get more than before
    #[arg(long)]
    fail_on_widening: bool,
    /// How to print the changes
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

/// Runs the verb.
///
/// # Errors
/// If a policy is not valid, a path cannot be read, or a server cannot be asked.
pub(super) fn run(args: DiffArgs) -> anyhow::Result<Exit> {
    let DiffArgs {
        first,
        second,
        policies,
        against,
        credentials,
        timeout,
        replay,
        allow_outside_links,
        fail_on_widening,
        output,
    } = args;
    let load = |path: &Path| load(path, allow_outside_links);
    let difference = match (first, against) {
        (new, Some(address)) => {
            to_server(&ServerTarget { address, credentials }, timeout, &new.unwrap_or(policies), &load)?
        }
        (Some(old), None) => between(&old, &second.unwrap_or(policies), replay.as_deref(), &load)?,
        // Not reached: the arguments were parsed so that one of the two is there.
        (None, None) => bail!("OLD is missing"),
    };
    print(&match output {
        Format::Text => difference.text(),
        Format::Json => escape::json_pretty(&difference.json())? + "\n",
    })?;
    Ok(if fail_on_widening && difference.may_widen() { Exit::No } else { Exit::Yes })
}

/// What was found between two policies.
struct Difference {
    before: String,
    after: String,
    changes: Vec<Change>,
    /// Only a part of the older policy could be seen.
    is_partial: bool,
    replay: Option<replay::ReplayReport>,
}

/// Loads one policy.
type Load<'l> = dyn Fn(&Path) -> anyhow::Result<PolicySet> + 'l;

fn between(old: &Path, new: &Path, records: Option<&Path>, load: &Load<'_>) -> anyhow::Result<Difference> {
    let inputs = [Some(old), Some(new), records];
    if inputs.into_iter().flatten().filter(|path| path.as_os_str() == "-").count() > 1 {
        bail!("standard input can be read only once");
    }
    // Both are read before either is complained about, so that both are.
    let (before, after) = (load(old), load(new));
    let (before, after) = (before?, after?);
    let replay = match records {
        None => None,
        Some(path) => {
            let mut replay = replay::Replay::new(&before, &after);
            audit::read(path, &mut |line| replay.take(line))?;
            Some(replay.finish())
        }
    };
    Ok(Difference {
        before: before.digest().as_str().to_owned(),
        after: after.digest().as_str().to_owned(),
        changes: changes(&before, &after),
        is_partial: false,
        replay,
    })
}

fn to_server(
    server: &ServerTarget,
    timeout: TimeoutArgs,
    new: &Path,
    load: &Load<'_>,
) -> anyhow::Result<Difference> {
    let after = load(new)?;
    let told = against::ask(server, timeout)?;
    let (before, after_digest) = (told.digest.clone(), after.digest().as_str().to_owned());
    // Equal digests say that both mean the same, also in what a server does not tell.
    let is_partial = before != after_digest;
    // Texts for people are in no digest.
    let changes = against::changes(&told, &after);
    Ok(Difference { before, after: after_digest, changes, is_partial, replay: None })
}

/// A valid policy; what is wrong with another one is printed.
fn load(path: &Path, allow_outside_links: bool) -> anyhow::Result<PolicySet> {
    let loaded = input::loader(vec![path.to_owned()], allow_outside_links)?.load()?;
    loaded.outcome.map(|accepted| accepted.set).map_err(|findings| {
        print_error(&report::findings(&findings, &loaded.files));
        anyhow!("the policy in `{}` is not valid, so it cannot be compared", shown(&path.to_string_lossy()))
    })
}

impl Difference {
    fn widening(&self) -> usize {
        self.changes.iter().filter(|change| change.widening).count()
    }

    /// What cannot be seen may widen, too.
    fn may_widen(&self) -> bool {
        self.is_partial || self.widening() > 0
    }

    fn text(&self) -> String {
        let Self { before, after, changes, is_partial, replay } = self;
        let mut text = String::new();
        for change in changes {
            let line = change.to_string();
            // Writing to a String does not fail.
            _ = match (change.widening, change.removal) {
                (true, _) => writeln!(text, "{} {}", notable("!"), notable(&line)),
                (false, true) => writeln!(text, "{} {line}", bad("-")),
                (false, false) => writeln!(text, "{} {line}", dim("~")),
            };
        }
        let digests = format!("{before} -> {after}");
        _ = match (changes.len(), is_partial) {
            (0, _) if before == after => writeln!(text, "{}: {before}", good("no changes")),
            (0, true) => writeln!(text, "{}: {digests}", notable("no change that can be seen")),
            (0, false) => writeln!(text, "{}: {digests}", good("no changes")),
            (count, _) => {
                let widening = self.widening();
                let marked = format!("{widening} widening");
                let marked = if widening > 0 { notable(&marked) } else { good(&marked) };
                writeln!(text, "{}, {marked}: {}", counted(count, "change"), dim(&digests))
            }
        };
        if *is_partial {
            _ = writeln!(text, "note: {}", against::caveat());
        }
        if let Some(report) = replay {
            _ = write!(text, "\n{}", replay::output::text(report));
        }
        text
    }

    fn json(&self) -> Value {
        let Self { before, after, changes, is_partial, replay } = self;
        let mut json = json!({
            "before": before,
            "after": after,
            "changes": changes.iter().map(change_json).collect::<Vec<_>>(),
            "widening": self.widening(),
            "notVisible": if *is_partial { against::NOT_TOLD } else { &[] },
        });
        if let (Some(report), Some(members)) = (replay, json.as_object_mut()) {
            members.insert("replay".to_owned(), replay::output::json(report));
        }
        json
    }
}

/// One change for programs: what happened by name, and the words for people.
fn change_json(change: &Change) -> Value {
    let Change { audience, kind, widening, removal } = change;
    let (name, details) = match kind {
        ChangeKind::AudienceAdded => ("audience-added", json!({})),
        ChangeKind::AudienceRemoved => ("audience-removed", json!({})),
        ChangeKind::ScopesAdded { list, scopes } => ("scopes-added", json!({"key": list, "scopes": scopes})),
        ChangeKind::ScopesRemoved { list, scopes } => {
            ("scopes-removed", json!({"key": list, "scopes": scopes}))
        }
        ChangeKind::NamesAdded { list, names } => ("names-added", json!({"key": list, "names": names})),
        ChangeKind::NamesRemoved { list, names } => ("names-removed", json!({"key": list, "names": names})),
        ChangeKind::Reordered { list } => ("reordered", json!({"key": list})),
        ChangeKind::Setting { key, before, after } => {
            ("setting", json!({"key": key, "before": before, "after": after}))
        }
        ChangeKind::RuleAdded { name } => ("rule-added", json!({"rule": name})),
        ChangeKind::RuleRemoved { name } => ("rule-removed", json!({"rule": name})),
        ChangeKind::RuleCondition { name } => ("rule-condition", json!({"rule": name})),
        ChangeKind::AudienceRequired { requests, required } => {
            ("audience-required", json!({"requests": requests, "required": required}))
        }
        ChangeKind::Example { question } => ("example", json!({"question": question})),
    };
    let mut json = json!({
        "audience": audience,
        "change": name,
        "widening": widening,
        "removal": removal,
        "text": change.to_string(),
    });
    if let (Some(members), Value::Object(details)) = (json.as_object_mut(), details) {
        members.extend(details);
    }
    json
}
