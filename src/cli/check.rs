//! `check`: is this policy valid, and if not, everything that is wrong with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::input::Replacement;
use super::output::{bad, good, print};
use super::{Exit, input, report};
use crate::access::CheckedAccess;
use crate::escape;
use crate::policy::finding::{AcceptedWarnings, Code, Finding, Findings};
use crate::report::{Texts, github, junit, sarif};
use crate::server::access::{AccessError, ReadAccess, read_access};
use crate::store::load::Loaded;
use crate::store::read::SourceFile;

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
    /// Also check this access file, and that the policy declares its audiences
    #[arg(long, value_name = "FILE")]
    access_file: Option<PathBuf>,
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
    let CheckArgs { paths, replace, allow_outside_links, access_file, deny_warnings, allow, output } = args;
    let allow: AcceptedWarnings = allow.into_iter().collect();
    let started = SystemTime::now();
    let loader = input::loader(paths, allow_outside_links)?.allowing(allow);
    let loaded = input::replaced(loader, replace)?.load()?;
    let access = access_file.as_deref().map(check_access).transpose()?;
    let mut files = loaded.files.clone();
    let mut findings = match &loaded.outcome {
        Ok(accepted) => accepted.warnings.clone(),
        Err(findings) => findings.clone(),
    };
    if let Some(CheckedFile { outcome, files: own }) = &access {
        match (outcome, &loaded.outcome) {
            (Err(found), _) => findings.append(found),
            (Ok(checked), policy) => {
                findings.append(&checked.warnings);
                if let Ok(accepted) = policy {
                    findings.append(&checked.undeclared(&accepted.set));
                }
            }
        }
        findings.accept(allow);
        files.extend(own.iter().cloned());
        files.sort_by(|one, other| one.path.cmp(&other.path));
    }
    let is_valid = loaded.outcome.is_ok() && access.as_ref().is_none_or(|access| access.outcome.is_ok());
    let is_denied = is_valid && deny_warnings && !findings.is_empty();
    let texts = || -> Texts {
        let inside = files.iter().filter(|file| !file.is_outside);
        inside.map(|file| (Arc::clone(&file.path), file.text.clone().unwrap_or_default())).collect()
    };
    print(&match output {
        CheckFormat::Text => text(&loaded, access.as_ref(), &findings, &files, is_denied),
        CheckFormat::Json => json(&loaded, is_valid, &findings)?,
        CheckFormat::Github => github::annotations(&findings, &texts()),
        CheckFormat::Sarif => sarif::log(&findings, &texts())?,
        CheckFormat::Junit => {
            let files: Vec<_> = files.iter().map(|file| Arc::clone(&file.path)).collect();
            junit::findings(&files, &findings, deny_warnings, started)
        }
    })?;
    Ok(if is_valid && !is_denied { Exit::Yes } else { Exit::No })
}

/// An access file and what came of it.
struct CheckedFile {
    outcome: Result<CheckedAccess, Findings>,
    files: Vec<SourceFile>,
}

/// Reads an access file as a server does.
///
/// # Errors
/// If it cannot be read.
fn check_access(path: &Path) -> anyhow::Result<CheckedFile> {
    match read_access(path) {
        Ok(ReadAccess { checked, files, .. }) => Ok(CheckedFile { outcome: Ok(checked), files }),
        Err(AccessError::Invalid { findings }) => {
            Ok(CheckedFile { outcome: Err(findings), files: Vec::new() })
        }
        Err(AccessError::Read(error)) => Err(error.into()),
    }
}

fn text(
    loaded: &Loaded,
    access: Option<&CheckedFile>,
    findings: &Findings,
    files: &[SourceFile],
    is_denied: bool,
) -> String {
    let mut text = if findings.is_empty() { String::new() } else { report::findings(findings, files) };
    if let Ok(accepted) = &loaded.outcome {
        let set = &accepted.set;
        text.push_str(&report::valid(loaded.files.len(), set.audiences().len(), set.digest().as_str()));
    }
    if let Some(CheckedFile { outcome: Ok(checked), .. }) = access {
        let count = match checked.list.callers().len() {
            1 => "1 caller".to_owned(),
            count => format!("{count} callers"),
        };
        text.push_str(&format!("{}: {count} in the access file\n", good("valid")));
    }
    if is_denied {
        text.push_str(&format!("{}: warnings are denied\n", bad("error")));
    }
    text
}

fn json(loaded: &Loaded, is_valid: bool, findings: &Findings) -> serde_json::Result<String> {
    let set = loaded.outcome.as_ref().ok().map(|accepted| &accepted.set);
    let report = JsonReport {
        valid: is_valid,
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
