//! Findings as workflow annotations of GitHub Actions: one `::error ...::` line for each.
//!
//! The runner reads these lines from the output of a step. A line break or a `::` of somebody else's
//! text must not become a command of its own, so everything is escaped as the runner's toolkit does.

use std::borrow::Cow;
use std::fmt::Write;

use super::{Texts, end};
use crate::policy::finding::{Finding, Severity};

/// One line for each finding, in the order given; `""` for none.
#[must_use]
pub fn annotations(findings: &[Finding], texts: &Texts) -> String {
    let mut out = String::new();
    for finding in findings {
        let Finding { code, file, position, message, suggestion, .. } = finding;
        let command = match finding.severity() {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        // Writing to a String does not fail.
        _ = write!(out, "::{command} file={}", property(file));
        if position.line > 0 {
            _ = write!(out, ",line={},col={}", position.line, position.column);
            // A column end is for one line only.
            match end(position, texts.get(file).map(|text| &**text)) {
                Some((line, column)) if line == position.line => {
                    _ = write!(out, ",endLine={line},endColumn={column}");
                }
                Some((line, _)) => _ = write!(out, ",endLine={line}"),
                None => {}
            }
        }
        let mut text = message.clone();
        if !suggestion.is_empty() {
            text.push('\n');
            text.push_str(suggestion);
        }
        text.push('\n');
        text.push_str(code.page());
        _ = writeln!(out, ",title={}::{}", property(code.as_str()), data(&text));
    }
    out
}

fn data(text: &str) -> Cow<'_, str> {
    escape(text, &['%', '\r', '\n'])
}

fn property(text: &str) -> Cow<'_, str> {
    escape(text, &['%', '\r', '\n', ':', ','])
}

fn escape<'t>(text: &'t str, special: &[char]) -> Cow<'t, str> {
    if !text.contains(special) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if special.contains(&character) {
            _ = write!(out, "%{:02X}", u32::from(character));
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn findings_become_annotations() {
        let (findings, texts) = sample::findings();
        let file = "policies/mcp%2C 100%25 é.yaml";
        let expected = [
            "::warning file=policies/empty.yaml,title=EmptyFile::the file has no content%0A\
             declare `audiences` or delete the file%0Adocs/reference/findings/EmptyFile.md"
                .to_owned(),
            format!(
                "::error file={file},line=4,col=28,endLine=4,endColumn=42,title=BaselineScopeNotSupported::\
                 `baselineClientScopes` of `api`: `offline_access` is not in `scopesSupported`%0A\
                 add `offline_access` to `scopesSupported` or remove it here%0A\
                 docs/reference/findings/BaselineScopeNotSupported.md"
            ),
        ];
        let made = annotations(&findings, &texts);
        let lines: Vec<&str> = made.lines().collect();
        assert_eq!(lines.len(), findings.len(), "one line each: {made}");
        assert_eq!(lines[..2], expected);
        assert!(lines[2].starts_with(&format!(
            "::error file={file},line=5,col=5,endLine=5,endColumn=10,title=UnknownKey::"
        )));
        assert!(lines[3].starts_with("::error file=policies,title=NoAudience::"), "{}", lines[3]);
    }

    #[test]
    fn no_text_becomes_a_command() {
        let (mut findings, texts) = sample::findings();
        findings.truncate(1);
        findings[0].file = "a\n::error::x,line=9:%0A".into();
        findings[0].message = "b\r\n::set-output name=x::y %0A".into();
        let made = annotations(&findings, &texts);
        assert_eq!(made.lines().count(), 1);
        assert!(made.starts_with("::warning file=a%0A%3A%3Aerror%3A%3Ax%2Cline=9%3A%250A,title="), "{made}");
        assert!(made.contains("::b%0D%0A::set-output name=x::y %250A%0A"), "{made}");
    }
}
