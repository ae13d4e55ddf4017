//! `check`: is this policy valid, and if not, everything that is wrong with it.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::output::{Format, print};
use super::{Exit, report};
use crate::policy::finding::Finding;
use crate::store::load::{Loaded, Loader};
use crate::store::read::ReadSettings;

/// Check policy files
///
/// All files of all paths together are one policy. Every finding is reported. Exits with 0 if the
/// policy is valid, 1 if it is not, 2 if a named path cannot be read.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// Policy folders and files
    #[arg(value_name = "PATH", default_value = "policies")]
    paths: Vec<PathBuf>,
    /// How to print the findings
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

/// Runs the verb.
///
/// # Errors
/// If a named path cannot be read.
pub(super) fn run(args: CheckArgs) -> anyhow::Result<Exit> {
    let CheckArgs { paths, output } = args;
    let loaded = Loader::new(paths, ReadSettings::default()).load()?;
    let (is_valid, findings) = match &loaded.outcome {
        Ok(accepted) => (true, &accepted.warnings),
        Err(findings) => (false, findings),
    };
    print(&match output {
        Format::Text => text(&loaded, findings),
        Format::Json => json(findings)?,
    })?;
    Ok(if is_valid { Exit::Yes } else { Exit::No })
}

fn text(loaded: &Loaded, findings: &[Finding]) -> String {
    let mut text =
        if findings.is_empty() { String::new() } else { report::findings(findings, &loaded.files) };
    if let Ok(accepted) = &loaded.outcome {
        let set = &accepted.set;
        text.push_str(&report::valid(loaded.files.len(), set.audiences().len(), set.digest().as_str()));
    }
    text
}

fn json(findings: &[Finding]) -> serde_json::Result<String> {
    let report = JsonReport { findings: findings.iter().map(JsonFinding::from).collect() };
    Ok(serde_json::to_string_pretty(&report)? + "\n")
}

/// What `--output json` prints; the names are a contract.
#[derive(Serialize)]
struct JsonReport<'f> {
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
        }
    }
}
