//! `check`: is this policy valid, and if not, everything that is wrong with it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::input::Replacement;
use super::output::{bad, print};
use super::{Exit, input, report};
use crate::escape;
use crate::policy::finding::{Code, Finding, Findings};
use crate::report::{Texts, github, junit, sarif};
use crate::store::load::Loaded;

/// Check policy files
///
/// All files of all paths together are one policy. A file may be a Kubernetes ConfigMap manifest with
/// policy files in its data. Every finding is reported. Exits with 0 if the policy is valid, 1 if it is
/// not, 2 if a named path cannot be read.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// Policy folders and files; - is standard input
    #[arg(value_name = "PATH", default_value = "policies")]
    paths: Vec<PathBuf>,
    /// Read the file NEW in the place of OLD, a file of the folders; NEW may be -, OLD has no =
    #[arg(long, value_name = "OLD=NEW")]
    replace: Vec<Replacement>,
    /// Follow links out of the named folders, and show no text of what they lead to
    #[arg(long)]
    allow_outside_links: bool,
    /// Exit with 1 on warnings, too
    #[arg(long)]
    deny_warnings: bool,
    /// Accept warnings of this code, as if each file had it in acceptWarnings; several with commas
    #[arg(long, value_name = "CODE", value_parser = Code::warning, value_delimiter = ',')]
    allow: Vec<Code>,
    /// How to print the findings
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: CheckFormat,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
enum CheckFormat {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
    /// Annotations of a GitHub workflow
    Github,
    /// SARIF 2.1.0, for code scanning
    Sarif,
    /// JUnit XML, for CI servers
    Junit,
}

/// Runs the verb.
///
/// # Errors
/// If a named path cannot be read.
pub(super) fn run(args: CheckArgs) -> anyhow::Result<Exit> {
    let CheckArgs { paths, replace, allow_outside_links, deny_warnings, allow, output } = args;
    let started = SystemTime::now();
    let loader = input::loader(paths, allow_outside_links)?.allowing(allow.into_iter().collect());
    let loaded = input::replaced(loader, replace)?.load()?;
    let (is_valid, findings) = match &loaded.outcome {
        Ok(accepted) => (true, &accepted.warnings),
        Err(findings) => (false, findings),
    };
    let is_denied = is_valid && deny_warnings && !findings.is_empty();
    let texts = || -> Texts {
        let inside = loaded.files.iter().filter(|file| !file.is_outside);
        inside.map(|file| (Arc::clone(&file.path), Arc::clone(&file.text))).collect()
    };
    print(&match output {
        CheckFormat::Text => text(&loaded, findings, is_denied),
        CheckFormat::Json => json(&loaded, findings)?,
        CheckFormat::Github => github::annotations(findings, &texts()),
        CheckFormat::Sarif => sarif::log(findings, &texts())?,
        CheckFormat::Junit => {
            let files: Vec<_> = loaded.files.iter().map(|file| Arc::clone(&file.path)).collect();
            junit::findings(&files, findings, deny_warnings, started)
        }
    })?;
    Ok(if is_valid && !is_denied { Exit::Yes } else { Exit::No })
}

fn text(loaded: &Loaded, findings: &Findings, is_denied: bool) -> String {
    let mut text =
        if findings.is_empty() { String::new() } else { report::findings(findings, &loaded.files) };
    if let Ok(accepted) = &loaded.outcome {
        let set = &accepted.set;
        text.push_str(&report::valid(loaded.files.len(), set.audiences().len(), set.digest().as_str()));
    }
    if is_denied {
        text.push_str(&format!("{}: warnings are denied\n", bad("error")));
    }
    text
}

fn json(loaded: &Loaded, findings: &Findings) -> serde_json::Result<String> {
    let set = loaded.outcome.as_ref().ok().map(|accepted| &accepted.set);
    let report = JsonReport {
        valid: set.is_some(),
        digest: set.map(|set| set.digest().as_str()),
        audience_count: set.map(|set| set.audiences().len()),
        file_count: loaded.files.len(),
        error_count: findings.error_count(),
        warning_count: findings.count() - findings.error_count(),
        finding_count: findings.count(),
        findings: findings.iter().map(JsonFinding::from).collect(),
    };
    Ok(escape::json_pretty(&report)? + "\n")
}

/// What `--output json` prints; the names are a contract.
#[derive(Serialize)]
struct JsonReport<'f> {
    /// Whether a server would serve it.
    valid: bool,
    /// What it means; nothing if it is not valid.
    digest: Option<&'f str>,
    /// Nothing if it is not valid.
    audience_count: Option<usize>,
    /// Files that were read.
    file_count: usize,
    error_count: usize,
    warning_count: usize,
    /// How many findings there are, listed or not.
    finding_count: usize,
    /// At most 1,000, errors first.
    findings: Vec<JsonFinding<'f>>,
}

#[derive(Serialize)]
struct JsonFinding<'f> {
    file: &'f str,
    line: u32,
    column: u32,
    code: &'f str,
    severity: &'f str,
    audience: &'f str,
    value: &'f str,
    message: &'f str,
    suggestion: &'f str,
    page: &'f str,
}

impl<'f> From<&'f Finding> for JsonFinding<'f> {
    fn from(finding: &'f Finding) -> Self {
        let Finding { code, file, position, audience, value, message, suggestion } = finding;
        Self {
            file,
            line: position.line,
            column: position.column,
            code: code.as_str(),
            severity: finding.severity().as_str(),
            audience,
            value,
            message,
            suggestion,
            page: code.page(),
        }
    }
}
