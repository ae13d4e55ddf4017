//! How test results are shown: to people, as JSON, as JUnit XML.
//!
//! Text carries its colours always; whoever prints it takes them out where they do not belong.

use std::fmt::Write;
use std::time::SystemTime;

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};

use super::run::{AudienceCoverage, CaseResult, Mismatch, SuiteReport};
use crate::escape::shown;
use crate::report::junit::{self, Failure, ResultGroup, ResultOutcome};

/// For people: a line for each case, for a failed one what was expected, what came and why, then the
/// coverage if asked for, then one line with the counts.
#[must_use]
pub fn text(report: &SuiteReport, with_coverage: bool) -> String {
    let mut out = String::new();
    let mut file = None;
    for result in &report.results {
        if file != Some(&result.file) {
            file = Some(&result.file);
            line(&mut out, 0, &shown(&result.file));
        }
        let verdict = if result.passed() { painted("ok", GOOD) } else { painted("FAILED", BAD) };
        line(&mut out, 1, &format!("{verdict} {}", shown(&result.name)));
        if !result.passed() {
            failure(&mut out, 2, result);
        }
    }
    if with_coverage {
        line(&mut out, 0, "coverage");
        for audience in &report.coverage {
            coverage(&mut out, audience);
        }
    }
    let verdict = if report.failed() == 0 { painted("passed", GOOD) } else { painted("failed", BAD) };
    let mut counts = format!("{verdict}: {} passed, {} failed", report.passed(), report.failed());
    if report.filtered > 0 {
        _ = write!(counts, ", {} left out by the filter", report.filtered);
    }
    line(&mut out, 0, &counts);
    out
}

fn failure(out: &mut String, level: usize, result: &CaseResult) {
    let place = result.position;
    line(out, level, &format!("at {}:{}:{}", shown(&result.file), place.line, place.column));
    for Mismatch { key, expected, actual, missing, unexpected } in &result.differences {
        line(out, level, key);
        line(out, level + 1, &format!("expected: {}", shown(expected)));
        line(out, level + 1, &format!("actual:   {}", shown(actual)));
        // For a single value both lines say it all.
        if !missing.is_empty() {
            line(out, level + 1, &format!("missing:    {}", each(missing)));
        }
        if !unexpected.is_empty() {
            line(out, level + 1, &format!("unexpected: {}", each(unexpected)));
        }
    }
    if !result.trail.is_empty() {
        line(out, level, "because");
        for step in &result.trail {
            line(out, level + 1, step);
        }
    }
}

/// Entries one by one, since a long list may be cut only between them.
fn each(entries: &[String]) -> String {
    entries.iter().map(|entry| shown(entry)).collect::<Vec<_>>().join(", ")
}

fn coverage(out: &mut String, covered: &AudienceCoverage) {
    let AudienceCoverage { audience, register, authorize, token, rules } = covered;
    let mut text = shown(audience);
    if covered.is_touched() {
        _ = write!(text, ": {register} register, {authorize} authorize, {token} token");
    } else {
        _ = write!(text, ": {}", painted("no case", NOTABLE));
    }
    line(out, 1, &text);
    for rule in rules {
        let times = match rule.gave {
            0 => painted("never gave a scope", NOTABLE),
            gave => format!("gave a scope in {gave} of them"),
        };
        line(out, 2, &format!("rule {}: {times}", shown(&rule.rule)));
    }
}

fn line(out: &mut String, level: usize, text: &str) {
    out.push_str(&"  ".repeat(level));
    out.push_str(text);
    out.push('\n');
}

fn painted(text: &str, style: Style) -> String {
    format!("{style}{text}{style:#}")
}

const GOOD: Style = Style::new().bold().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green)));
const BAD: Style = Style::new().bold().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red)));
const NOTABLE: Style = Style::new().bold().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));

/// For programs; the coverage is always there.
#[must_use]
pub fn json(report: &SuiteReport) -> Value {
    let case = |result: &CaseResult| {
        let difference = |difference: &Mismatch| {
            json!({
                "key": difference.key,
                "expected": difference.expected,
                "actual": difference.actual,
                "missing": difference.missing,
                "unexpected": difference.unexpected,
            })
        };
        json!({
            "file": &*result.file,
            "line": result.position.line,
            "column": result.position.column,
            "name": result.name,
            "question": result.kind.as_str(),
            "passed": result.passed(),
            "differences": result.differences.iter().map(difference).collect::<Vec<_>>(),
            "trail": result.trail,
        })
    };
    let covered = |covered: &AudienceCoverage| {
        let rules = covered.rules.iter().map(|rule| json!({ "name": rule.rule, "gave": rule.gave }));
        json!({
            "audience": covered.audience,
            "register": covered.register,
            "authorize": covered.authorize,
            "token": covered.token,
            "rules": rules.collect::<Vec<_>>(),
        })
    };
    json!({
        "passed": report.passed(),
        "failed": report.failed(),
        "filtered": report.filtered,
        "cases": report.results.iter().map(case).collect::<Vec<_>>(),
        "coverage": report.coverage.iter().map(covered).collect::<Vec<_>>(),
    })
}

/// As JUnit XML: one group for each test file.
#[must_use]
pub fn junit(report: &SuiteReport, started: SystemTime) -> String {
    let mut groups: Vec<ResultGroup> = Vec::new();
    for result in &report.results {
        if groups.last().is_none_or(|group| group.name != *result.file) {
            groups.push(ResultGroup { name: result.file.to_string(), ..ResultGroup::default() });
        }
        let Some(group) = groups.last_mut() else { continue };
        group.cases.push(ResultOutcome { name: result.name.clone(), failure: failed(result) });
    }
    junit::document(&groups, started)
}

fn failed(result: &CaseResult) -> Option<Failure> {
    let first = result.differences.first()?;
    let mut text = String::from("\n");
    failure(&mut text, 0, result);
    let message = format!("{}: expected {}, actual {}", first.key, first.expected, first.actual);
    Some(Failure { kind: first.key.to_owned(), message, text })
}
