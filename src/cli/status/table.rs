//! The state of a server for people: each line says by colour, by shape and by word how it stands.

use std::fmt::{self, Write};

use crate::cli::output::{bad, bold, dim, good, notable};
use crate::cli::report::counted;
use crate::escape::clean;
use crate::rpc::v1;
use crate::status::condition_type::CONDITION_TYPES;
use crate::status::kind;

/// The whole state, from what serves down to single audiences.
pub(super) fn text(status: &v1::PolicyStatus) -> String {
    let v1::PolicyStatus {
        active,
        load_time,
        source,
        audience_count,
        last_attempt,
        conditions,
        audience_statuses,
        audience_status_count,
    } = status;
    let mut text = String::new();
    match conditions.iter().find(|condition| condition.r#type == kind::READY) {
        Some(ready) if ready.status == "True" => line(&mut text, &Shape::Good.with("ready")),
        Some(ready) if ready.status == "False" => line(&mut text, &Shape::Bad.with("not ready")),
        _ => line(&mut text, &Shape::Unknown.with("unknown")),
    }
    match active {
        Some(v1::PolicyVersion { generation, digest }) => {
            row(&mut text, "policy", &format_args!("generation {generation}, {}", clean(digest)));
            row(&mut text, "loaded", &time(load_time.as_ref()));
        }
        None => row(&mut text, "policy", &"none"),
    }
    row(&mut text, "source", &clean(source));
    row(&mut text, "audiences", audience_count);
    match last_attempt {
        Some(attempt) => row(&mut text, "attempt", &verdict(attempt, conditions)),
        None => row(&mut text, "attempt", &"none"),
    }

    heading(&mut text, &"conditions");
    table(&mut text, "  ", conditions);
    if let Some(v1::PolicyAttempt { findings, finding_count, .. }) = last_attempt
        && !findings.is_empty()
    {
        heading(&mut text, &"findings");
        for finding in findings {
            show_finding(&mut text, finding);
        }
        more(&mut text, *finding_count, findings.len());
        line(&mut text, &dim("  see `scopeward help CODE`"));
    }
    let troubled: Vec<&v1::AudienceStatus> = audience_statuses
        .iter()
        .filter(|status| status.conditions.iter().any(|one| Shape::of(one).is_trouble()))
        .collect();
    if !troubled.is_empty() {
        let of = format!("audiences in trouble: {} of {audience_status_count}", troubled.len());
        heading(&mut text, &of);
        for v1::AudienceStatus { audience, conditions } in troubled {
            line(&mut text, &format_args!("  {}", clean(audience)));
            table(&mut text, "    ", conditions);
        }
    }
    text
}

fn verdict(attempt: &v1::PolicyAttempt, conditions: &[v1::Condition]) -> String {
    let v1::PolicyAttempt { attempt_time, accepted, finding_count, .. } = attempt;
    let verdict = match accepted {
        true => Shape::Good.with("accepted"),
        false => Shape::Bad.with("rejected"),
    };
    let findings = match (finding_count, accepted) {
        // A directory that is not there has no findings.
        (0, false) => {
            let accepted = conditions.iter().find(|condition| condition.r#type == kind::POLICY_ACCEPTED);
            let message = accepted.map(|condition| clean(&condition.message)).unwrap_or_default();
            // What follows says what serves instead.
            message.split("; ").next().unwrap_or_default().to_owned()
        }
        (0, true) => "no findings".to_owned(),
        (count, true) => counted(*count as usize, "warning"),
        (count, false) => counted(*count as usize, "finding"),
    };
    format!("{verdict} {}, {findings}", time(attempt_time.as_ref()))
}

/// The conditions in columns as wide as needed, under their names.
fn table(text: &mut String, indent: &str, conditions: &[v1::Condition]) {
    let rows: Vec<(Shape, [String; 5])> = conditions
        .iter()
        .map(|condition| {
            let v1::Condition { r#type, status, reason, message, last_transition_time, .. } = condition;
            let since = time(last_transition_time.as_ref());
            let cells = [clean(r#type), clean(status), clean(reason), since.into(), clean(message)];
            (Shape::of(condition), cells.map(|cell| cell.into_owned()))
        })
        .collect();
    let mut widths = COLUMNS.map(|name| name.chars().count());
    for (_, cells) in &rows {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let padded = |cells: [&str; 5]| -> String {
        let cells = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    line(text, &format_args!("{indent}  {}", dim(&padded(COLUMNS))));
    for (shape, cells) in &rows {
        let cells = padded(cells.each_ref().map(String::as_str));
        line(text, &format_args!("{indent}{} {cells}", shape.mark()));
    }
}

fn show_finding(text: &mut String, finding: &v1::Finding) {
    let v1::Finding { file, line: at_line, column, code, severity, message, suggestion, .. } = finding;
    let shape = if severity == "error" { Shape::Bad } else { Shape::Notable };
    let place = match at_line {
        0 => file.clone(),
        _ => format!("{file}:{at_line}:{column}"),
    };
    line(text, &format_args!("  {} {} {}", shape.with(&clean(&place)), bold(&clean(code)), clean(message)));
    if !suggestion.is_empty() {
        line(text, &format_args!("      {}", dim(&clean(suggestion))));
    }
}

/// Says that a list is longer than what was sent.
fn more(text: &mut String, count: u32, listed: usize) {
    let hidden = (count as usize).saturating_sub(listed);
    if hidden > 0 {
        line(text, &format_args!("  and {hidden} more"));
    }
}

fn heading(text: &mut String, name: &dyn fmt::Display) {
    line(text, &format_args!("\n{}", bold(&name.to_string())));
}

fn row(text: &mut String, label: &str, value: &dyn fmt::Display) {
    line(text, &format_args!("  {label:<10}{value}"));
}

fn line(text: &mut String, line: &dyn fmt::Display) {
    // Writing to a String does not fail.
    _ = writeln!(text, "{line}");
}

/// A moment to the second, in UTC; `-` for none.
fn time(time: Option<&prost_types::Timestamp>) -> String {
    match time {
        None => "-".to_owned(),
        Some(time) => prost_types::Timestamp { seconds: time.seconds, nanos: 0 }.to_string(),
    }
}

/// How something stands, for those who see colours and those who do not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Shape {
    Good,
    Bad,
    Notable,
    Unknown,
    /// A condition that this version does not know: nobody can say whether it is good.
    Foreign,
}

impl Shape {
    fn of(condition: &v1::Condition) -> Self {
        let of_whichever = condition.r#type.strip_prefix("Shadow").unwrap_or(&condition.r#type);
        let is_good_when_true = match of_whichever {
            kind::READY | kind::POLICY_ACCEPTED | kind::BASELINE_SCOPES_VALID => true,
            _ if CONDITION_TYPES.iter().any(|one| one.kind == condition.r#type) => false,
            _ => return Self::Foreign,
        };
        match (&*condition.status, is_good_when_true) {
            ("True", true) | ("False", false) => Self::Good,
            ("True", false) => Self::Notable,
            ("False", true) => Self::Bad,
            _ => Self::Unknown,
        }
    }

    /// Unknown is none: when one audience is at fault, nothing can be told of all the others.
    const fn is_trouble(self) -> bool {
        matches!(self, Self::Bad | Self::Notable)
    }

    fn mark(self) -> String {
        self.with("")
    }

    /// The mark, and behind it some words in its colour.
    fn with(self, words: &str) -> String {
        let marked = |mark: &str| if words.is_empty() { mark.to_owned() } else { format!("{mark} {words}") };
        match self {
            Self::Good => good(&marked("✔")).to_string(),
            Self::Bad => bad(&marked("✘")).to_string(),
            Self::Notable => notable(&marked("!")).to_string(),
            Self::Unknown => notable(&marked("?")).to_string(),
            Self::Foreign => dim(&marked("·")).to_string(),
        }
    }
}

const COLUMNS: [&str; 5] = ["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"];

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(kind: &str, status: &str, reason: &str, message: &str) -> v1::Condition {
        v1::Condition {
            r#type: kind.into(),
            status: status.into(),
            reason: reason.into(),
            message: message.into(),
            observed_generation: 1,
            last_transition_time: Some(prost_types::Timestamp { seconds: 1_767_323_045, nanos: 600_000_000 }),
        }
    }

    fn finding(severity: &str, line: u32, suggestion: &str) -> v1::Finding {
        v1::Finding {
            file: "mcp.yaml".into(),
            line,
            column: 28,
            code: "BaselineScopeNotSupported".into(),
            severity: severity.into(),
            message: "`offline_access` is not supported".into(),
            suggestion: suggestion.into(),
            ..Default::default()
        }
    }

    fn rejected() -> v1::PolicyStatus {
        v1::PolicyStatus {
            active: Some(v1::PolicyVersion { generation: 3, digest: "sha256:00".into() }),
            load_time: Some(prost_types::Timestamp { seconds: 1_767_323_045, nanos: 5 }),
            source: "policies".into(),
            audience_count: 2,
            last_attempt: Some(v1::PolicyAttempt {
                attempt_time: Some(prost_types::Timestamp { seconds: 1_767_323_100, nanos: 0 }),
                accepted: false,
                digest: "sha256:11".into(),
                findings: vec![finding("error", 4, "remove it"), finding("warning", 0, "")],
                finding_count: 1002,
            }),
            conditions: vec![
                condition("Ready", "True", "PolicyLoaded", "requests are answered"),
                condition(
                    "PolicyAccepted",
                    "False",
                    "PolicyRejected",
                    "1 error; the next restart would fail",
                ),
                condition("ServingLastGood", "True", "PolicyNotAccepted", ""),
                condition("BaselineScopesValid", "Unknown", "X", "a\u{1b}[31m\nb"),
                condition("FromTheFuture", "True", "Y", ""),
            ],
            audience_statuses: vec![
                v1::AudienceStatus {
                    audience: "https://mcp.example.com".into(),
                    conditions: vec![condition(
                        "BaselineScopesValid",
                        "False",
                        "BaselineScopeNotSupported",
                        "m",
                    )],
                },
                v1::AudienceStatus {
                    audience: "https://fine.example.com".into(),
                    conditions: vec![condition("Ready", "True", "PolicyLoaded", "")],
                },
            ],
            audience_status_count: 2,
        }
    }

    /// As it is shown without colour.
    fn plain(status: &v1::PolicyStatus) -> String {
        anstream::adapter::strip_str(&text(status)).to_string()
    }

    #[test]
    fn everything_that_is_wrong_is_in_the_table() {
        insta::assert_snapshot!(plain(&rejected()));
    }

    #[test]
    fn an_attempt_that_found_no_files_says_why() {
        let mut status = rejected();
        status.last_attempt = Some(v1::PolicyAttempt::default());
        let message = "cannot read `policies`: no such file; generation 1 keeps serving";
        status.conditions = vec![condition("PolicyAccepted", "False", "PolicySourceMissing", message)];
        let text = plain(&status);
        assert!(text.contains("✘ rejected -, cannot read `policies`: no such file\n"), "{text}");
        assert!(!text.contains("no findings"), "{text}");
    }

    #[test]
    fn a_server_without_a_policy_has_a_table_too() {
        let conditions = vec![condition("Ready", "False", "PolicyNotLoaded", "no policy is loaded yet")];
        insta::assert_snapshot!(plain(&v1::PolicyStatus { conditions, ..Default::default() }));
        assert!(plain(&v1::PolicyStatus::default()).starts_with("? unknown\n"));
    }

    #[test]
    fn colour_is_never_the_only_sign() {
        for (kind, status, mark) in [
            ("Ready", "True", "✔"),
            ("Ready", "False", "✘"),
            ("Ready", "Unknown", "?"),
            ("Ready", "maybe", "?"),
            ("AuditDegraded", "True", "!"),
            ("AuditDegraded", "False", "✔"),
            ("FromTheFuture", "False", "·"),
        ] {
            let painted = Shape::of(&condition(kind, status, "", "")).mark();
            assert_eq!(anstream::adapter::strip_str(&painted).to_string(), mark, "{kind} {status}");
            assert!(painted.len() > mark.len(), "{kind} {status}");
        }
    }
}
