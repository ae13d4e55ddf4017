//! What is found in policies, and what is not.

use std::sync::Arc;

use super::{CheckedDocument, Guardrails, check_document, check_text};
use crate::audience::MAX_AUDIENCE_BYTES;
use crate::policy::document::Document;
use crate::policy::finding::{AcceptedWarnings, Code, Finding, Findings};
use crate::policy::sample::{api, read};

mod cases;
mod limits;
mod mutated;
mod patched;

/// A file as a store judges it, which is the same as judging what was read of all of it.
#[track_caller]
fn judged(file: &str, text: &str, guardrails: &Guardrails) -> CheckedDocument {
    let file = Arc::from(file);
    let checked = check_text(&file, text, guardrails, AcceptedWarnings::NONE, Findings::new());
    let document = Document::read(&file, text);
    let whole = check_document(document, guardrails, AcceptedWarnings::NONE, Findings::new());
    assert_eq!(format!("{checked:?}"), format!("{whole:?}"), "{text}");
    checked
}

/// What is wrong; what is only doubtful has tests of its own, but for files and audiences that are not there.
fn findings(files: &[(&str, &str)]) -> Vec<Finding> {
    let found = match read(files) {
        Ok(accepted) => accepted.warnings.into_vec(),
        Err(findings) => findings.into_vec(),
    };
    let is_of_a_set = |code| matches!(code, Code::EmptyFile | Code::RegistrationNeedsAudience);
    found.into_iter().filter(|finding| finding.is_error() || is_of_a_set(finding.code)).collect()
}

/// `file:line:column Code value -> suggestion`.
fn brief(finding: &Finding) -> String {
    format!(
        "{}:{}:{} {} {:?} -> {}",
        finding.file,
        finding.position.line,
        finding.position.column,
        finding.code.as_str(),
        finding.value,
        finding.suggestion
    )
}

/// What holds for every finding, whatever it is about; returns what it underlines.
#[track_caller]
fn placed<'t>(files: &[(&str, &'t str)], finding: &Finding) -> &'t str {
    assert!(!finding.message.is_empty() && !finding.message.ends_with('.'), "{finding:?}");
    assert!(!finding.suggestion.is_empty() && !finding.suggestion.ends_with('.'), "{finding:?}");
    assert!(finding.message.chars().all(|character| !character.is_control()), "{finding:?}");
    let place = (finding.position.line as usize, finding.position.column as usize);
    let Some((_, text)) = files.iter().find(|(name, _)| *name == &*finding.file) else {
        assert_eq!(place, (0, 0), "{finding:?}");
        return "";
    };
    let (start, end) = (finding.position.start as usize, finding.position.end as usize);
    if place.0 > 0 {
        // A carriage return breaks a line too (YAML 1.2 section 5.4), and a byte order mark has no width.
        let before = text[..start].replace("\r\n", "\n").replace('\r', "\n");
        let before = before.trim_start_matches('\u{feff}');
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
        assert_eq!(place, (line, column), "{finding:?}");
    }
    &text[start..end]
}

/// Checks a finding of a text without escapes in places that matter, aliases or folded lines.
#[track_caller]
fn sound(files: &[(&str, &str)], finding: &Finding) {
    let underlined = placed(files, finding);
    let value = finding.value.strip_suffix("...").unwrap_or(&finding.value);
    if !underlined.is_empty() && !underlined.contains('\\') && !underlined.starts_with('*') {
        assert!(underlined.contains(value), "{finding:?} underlines {underlined:?}");
    }
}

#[track_caller]
fn check_files(files: &[(&str, &str)], expected: &[&str]) {
    let findings = findings(files);
    for finding in &findings {
        sound(files, finding);
    }
    let found: Vec<String> = findings.iter().map(brief).collect();
    assert_eq!(found, expected, "{files:#?}");
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    check_files(&[("a.yaml", text)], expected);
}

#[track_caller]
fn valid(text: &str) {
    check(text, &[]);
    assert!(read(&[("a.yaml", text)]).is_ok());
}

#[test]
fn every_mistake_of_every_file_is_reported_at_once() {
    let files = [
        ("c.yaml", "audiences:\n  c:\n    scopesSupported: [a\n"),
        (
            "b.yaml",
            "audiences:\n  b:\n    scopesSupported: [a]\n    baselineClientScopes: [b1]\n    bogus: 1\n  \
             b2:\n    scopesSupported: a\n  b3:\n    scopesSupported: [a]\n    baselineClientScopes: [b3]\n\
             audiences:\n  b4:\n    scopesSupported: []\n    defaultClientScopes: [\" x\"]\n",
        ),
        ("a.yaml", "audiences:\n  b:\n    scopesSupported: [a]\n    authorization: {stepUpScopes: [a, a]}\n"),
        ("d.yaml", "guardrails: {forbiddenScopes: [\"a b\"]}\n"),
    ];
    let expected = [
        "a.yaml:4:39 DuplicateEntry",
        "b.yaml:2:3 DuplicateAudience",
        "b.yaml:4:28 BaselineScopeNotSupported",
        "b.yaml:5:5 UnknownKey",
        "b.yaml:7:22 WrongType",
        "b.yaml:10:28 BaselineScopeNotSupported",
        "b.yaml:11:1 DuplicateKey",
        "b.yaml:13:22 EmptyValue",
        "b.yaml:14:27 ScopeMalformed",
        "c.yaml:3:22 YamlSyntax",
        "d.yaml:1:32 ScopeMalformed",
    ];
    let found = findings(&files);
    let places: Vec<String> =
        found.iter().map(|one| brief(one).split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(places, expected);
    let mut turned = files;
    turned.reverse();
    assert_eq!(findings(&turned), found, "the order of files has no meaning");
}

#[test]
fn a_wrong_key_or_type_hides_no_other_finding_of_its_audience() {
    check(
        "audiences:\n  api:\n    scopesSupported: []\n    baselineClientScopes: [x]\n    colour: 1\n    \
         privilegedScopes: {}\n",
        &[
            "a.yaml:3:22 EmptyValue \"\" -> list every scope that the audience knows",
            "a.yaml:4:28 BaselineScopeNotSupported \"x\" -> add `x` to `scopesSupported` or remove it here",
            "a.yaml:5:5 UnknownKey \"colour\" -> one of: scopesSupported, baselineClientScopes, \
             defaultClientScopes, privilegedScopes, forbiddenScopes, scopeMatching, registration, \
             authorization, token, clientRules, scopeDescriptions, aliases, ignoreQuery, description",
            "a.yaml:6:23 WrongType \"\" -> write a list of strings",
        ],
    );
}

#[test]
fn a_list_of_wrong_entries_is_not_called_empty() {
    check(
        "audiences:\n  api:\n    scopesSupported: [1]\n",
        &["a.yaml:3:23 WrongType \"1\" -> quote it: \"1\""],
    );
}

#[test]
fn nothing_is_said_to_be_undeclared_while_a_file_cannot_be_read() {
    check_files(
        &[("a.yaml", "audiences: [api]\n"), ("b.yaml", "defaultAudience: api\n")],
        &["a.yaml:1:12 WrongType \"\" -> write each audience as a key, without `- ` in front of it"],
    );
}

#[test]
fn the_guardrails_are_those_of_the_first_file_by_name() {
    let files = [
        ("c.yaml", "guardrails: {forbiddenScopes: [b]}\n"),
        ("b.yaml", "guardrails: {forbiddenScopes: [a]}\n"),
        ("a.yaml", "audiences: {api: {scopesSupported: [a, b], baselineClientScopes: [a, b]}}\n"),
    ];
    check_files(
        &files,
        &[
            "a.yaml:1:67 BaselineScopeForbidden \"a\" -> remove it here",
            "c.yaml:1:1 DuplicateGuardrails \"guardrails\" -> keep all guardrails in one file",
        ],
    );
}

#[test]
fn warnings_leave_a_set_valid() {
    let accepted = read(&[("a.yaml", ""), ("b.yaml", &api("scopesSupported: [openid]"))]).unwrap();
    assert_eq!(accepted.warnings.len(), 1);
    assert_eq!(accepted.set.audiences().len(), 1);
}

#[test]
fn stars_and_empty_segments_are_plain_text_where_no_pattern_is_meant() {
    for matching in ["exact", "hierarchic"] {
        valid(&api(&format!(
            "scopeMatching: {matching}, scopesSupported: [\"mcp.*\", \"a..b\", \"*\"], \
             baselineClientScopes: [\"mcp.*\", \"a..b\"], defaultClientScopes: [\"*\"]"
        )));
    }
    valid(&api("scopeMatching: wildcard, scopesSupported: [\"mcp:*\", \"a..b\", \"mcp.*\"], \
         baselineClientScopes: [\"mcp:*\", \"a..b\"], authorization: {stepUpScopes: [\"mcp.*\"]}"));
}

#[test]
fn a_step_up_scope_may_be_privileged() {
    valid(&api(
        "scopesSupported: [admin], privilegedScopes: [admin], authorization: {stepUpScopes: [admin]}",
    ));
}

#[test]
fn hostile_text_never_reaches_a_message_raw() {
    let mega = "x".repeat(1 << 20);
    for hostile in ["\\0", "\\t", "\\r\\n", "\\u202E", "\\u00A0", "\\u2028", "\\uFEFF", "\\e[31m", &mega] {
        // YAML has no key of that length.
        let key = if hostile == mega { "" } else { hostile };
        let text = format!(
            "\"k{key}\": 1\ndefaultAudience: \"d{hostile}\"\naudiences:\n  \"a{key}\":\n    \
             scopesSupported: [\"s{hostile}\", b]\n    scopeMatching: \"m{hostile}\"\n    \
             \"u{key}\": {{}}\n    clientRules:\n      - {{name: \"n{hostile}\", when: \
             {{clientIdHost: \"h{hostile}\", grantTypes: [\"g{hostile}\", \"g{hostile}\"]}}, \
             baselineClientScopes: [b]}}\n      - {{name: \"n{hostile}\", when: {{source: dcr}}, \
             baselineClientScopes: [b]}}\n"
        );
        let found = findings(&[("a.yaml", &text)]);
        assert!(found.len() >= 6, "{found:#?}");
        for finding in &found {
            let shown = format!("{finding} {}", finding.suggestion);
            assert!(shown.len() < 2000, "{} bytes", shown.len());
            let is_plain = |character: char| matches!(character, ' '..='~');
            assert!(shown.chars().all(is_plain), "{shown:?}");
            assert!(finding.value.len() <= 256 && finding.audience.len() <= MAX_AUDIENCE_BYTES);
        }
    }
}
