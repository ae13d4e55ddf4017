//! Results as JUnit XML, the form that CI servers read.
//!
//! There is no one standard. What is written here is valid under both schemas in wide use: that of
//! Apache Ant's JUnit task, which wants every attribute and the elements in one order, and that of the
//! xUnit plugin of Jenkins, which allows few other attributes.

use std::fmt::Write;
use std::sync::Arc;
use std::time::SystemTime;

use crate::policy::finding::{Finding, Severity};

/// A group of results, such as a file.
#[derive(Clone, Debug, Default)]
pub struct ResultGroup {
    /// Its name.
    pub name: String,
    /// Its results, in order.
    pub cases: Vec<ResultOutcome>,
    /// What else is to be said; may be empty.
    pub output: String,
}

/// One result.
#[derive(Clone, Debug)]
pub struct ResultOutcome {
    /// Its name.
    pub name: String,
    /// Why it failed; `None` if it passed.
    pub failure: Option<Failure>,
}

/// Why a result is a failure.
#[derive(Clone, Debug)]
pub struct Failure {
    /// One word, such as the code of a finding.
    pub kind: String,
    /// One line.
    pub message: String,
    /// The rest; may be empty.
    pub text: String,
}

/// The document. `started` is when the work began; the groups took no time that is worth a number.
#[must_use]
pub fn document(groups: &[ResultGroup], started: SystemTime) -> String {
    // `2026-01-02T03:04:05Z`, without fraction and zone: Ant's schema knows neither.
    let timestamp: String = prost_types::Timestamp::from(started).to_string().chars().take(19).collect();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for (id, group) in groups.iter().enumerate() {
        let failures = group.cases.iter().filter(|case| case.failure.is_some()).count();
        // Writing to a String does not fail.
        _ = writeln!(
            out,
            "  <testsuite id=\"{id}\" package=\"scopeward\" name=\"{}\" timestamp=\"{timestamp}\" \
             hostname=\"localhost\" tests=\"{}\" failures=\"{failures}\" errors=\"0\" time=\"0\">\n    \
             <properties></properties>",
            attribute(&group.name),
            group.cases.len(),
        );
        for case in &group.cases {
            _ = write!(
                out,
                "    <testcase name=\"{}\" classname=\"{}\" time=\"0\">",
                attribute(&case.name),
                attribute(&group.name)
            );
            if let Some(Failure { kind, message, text }) = &case.failure {
                _ = write!(
                    out,
                    "\n      <failure type=\"{}\" message=\"{}\">{}</failure>\n    ",
                    attribute(kind),
                    attribute(message),
                    content(text)
                );
            }
            out.push_str("</testcase>\n");
        }
        _ = writeln!(
            out,
            "    <system-out>{}</system-out>\n    <system-err></system-err>\n  </testsuite>",
            content(&group.output)
        );
    }
    out.push_str("</testsuites>\n");
    out
}

/// Findings as results: each error is a failed one, a file without errors has one that passed.
///
/// `files` are all files that were looked at. Warnings stand in the output of their file, or fail too
/// if `deny_warnings`.
#[must_use]
pub fn findings(
    files: &[Arc<str>],
    findings: &[Finding],
    deny_warnings: bool,
    started: SystemTime,
) -> String {
    let mut names: Vec<&Arc<str>> =
        files.iter().chain(findings.iter().map(|finding| &finding.file)).collect();
    names.sort();
    names.dedup();
    let groups: Vec<ResultGroup> = names
        .into_iter()
        .map(|name| {
            let mut group = ResultGroup { name: name.to_string(), ..ResultGroup::default() };
            for finding in findings.iter().filter(|finding| finding.file == *name) {
                if finding.severity() == Severity::Error || deny_warnings {
                    group.cases.push(failed(finding));
                } else {
                    _ = writeln!(group.output, "warning: {finding}");
                }
            }
            if group.cases.is_empty() {
                group.cases.push(ResultOutcome { name: "valid".to_owned(), failure: None });
            }
            group
        })
        .collect();
    document(&groups, started)
}

fn failed(finding: &Finding) -> ResultOutcome {
    let Finding { code, position, message, suggestion, .. } = finding;
    let place =
        if position.line > 0 { format!(" {}:{}", position.line, position.column) } else { String::new() };
    ResultOutcome {
        name: format!("{}{place}", code.as_str()),
        failure: Some(Failure {
            kind: code.as_str().to_owned(),
            message: message.clone(),
            text: format!("{finding}\n{suggestion}\n{}", code.page()),
        }),
    }
}

fn attribute(text: &str) -> String {
    escape(text, true)
}

fn content(text: &str) -> String {
    escape(text, false)
}

/// XML 1.0 section 2.2: most control characters cannot stand in a document, not even escaped.
fn escape(text: &str, in_attribute: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            // Only `]]>` needs it; doing it always is simpler.
            '>' => out.push_str("&gt;"),
            '"' if in_attribute => out.push_str("&quot;"),
            '\t' | '\n' if !in_attribute => out.push(character),
            '\t' | '\n' | '\r' => _ = write!(out, "&#{};", u32::from(character)),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
pub(crate) mod shape {
    //! A reader for just the XML that is written here, and the rules of both schemas on it.

    use std::collections::BTreeMap;

    #[derive(Debug, Default)]
    pub(crate) struct Element {
        pub(crate) name: String,
        pub(crate) attributes: BTreeMap<String, String>,
        pub(crate) children: Vec<Element>,
        pub(crate) text: String,
    }

    pub(crate) fn parse(xml: &str) -> Element {
        let xml = xml.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n").expect("a declaration");
        assert!(
            xml.chars().all(|c| matches!(c, '\t' | '\n' | '\u{20}'..='\u{fffd}' | '\u{10000}'..)),
            "a character that XML 1.0 does not allow"
        );
        let mut open = vec![Element::default()];
        let mut rest = xml;
        while let Some(at) = rest.find('<') {
            let (text, tag) = rest.split_at(at);
            open.last_mut().unwrap().text.push_str(&unescape(text));
            let (tag, behind) = tag[1..].split_once('>').expect("a tag ends");
            rest = behind;
            if let Some(name) = tag.strip_prefix('/') {
                let done = open.pop().unwrap();
                assert_eq!(done.name, name, "tags are nested");
                open.last_mut().unwrap().children.push(done);
                continue;
            }
            let (name, mut attributes) = tag.split_once(' ').unwrap_or((tag, ""));
            let mut element = Element { name: name.to_owned(), ..Element::default() };
            while let Some((name, behind)) = attributes.trim_start().split_once("=\"") {
                let (value, behind) = behind.split_once('"').expect("a value ends");
                assert!(!value.contains('<'));
                assert!(element.attributes.insert(name.to_owned(), unescape(value)).is_none());
                attributes = behind;
            }
            assert_eq!(attributes.trim(), "");
            open.push(element);
        }
        assert_eq!((open.len(), rest), (1, "\n"));
        let mut root = open.pop().unwrap();
        assert_eq!(root.children.len(), 1);
        root.children.remove(0)
    }

    fn unescape(text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('&') {
            out.push_str(before);
            let (name, behind) = behind.split_once(';').expect("an entity ends");
            out.push(match name {
                "amp" => '&',
                "lt" => '<',
                "gt" => '>',
                "quot" => '"',
                "#9" => '\t',
                "#10" => '\n',
                "#13" => '\r',
                other => panic!("unknown entity {other}"),
            });
            rest = behind;
        }
        out + rest
    }

    /// Attributes and order of elements as Ant's schema wants them, and nothing that Jenkins refuses.
    pub(crate) fn conforms(xml: &str) -> Element {
        let root = parse(xml);
        assert_eq!((root.name.as_str(), root.attributes.len()), ("testsuites", 0));
        for (id, suite) in root.children.iter().enumerate() {
            assert_eq!(suite.name, "testsuite");
            let names: Vec<&str> = suite.attributes.keys().map(String::as_str).collect();
            let wanted =
                ["errors", "failures", "hostname", "id", "name", "package", "tests", "time", "timestamp"];
            assert_eq!(names, wanted);
            assert_eq!(suite.attributes["id"], id.to_string());
            assert!(!suite.attributes["name"].trim().is_empty());
            let time = &suite.attributes["timestamp"];
            let digits: Vec<&str> = time.split(['-', 'T', ':']).collect();
            assert_eq!(
                digits.iter().map(|part| part.len()).collect::<Vec<_>>(),
                [4, 2, 2, 2, 2, 2],
                "{time}"
            );
            let [properties, cases @ .., out, err] = &suite.children[..] else { panic!("too few elements") };
            assert_eq!(
                (&*properties.name, &*out.name, &*err.name),
                ("properties", "system-out", "system-err")
            );
            let mut failures = 0;
            for case in cases {
                assert_eq!(case.name, "testcase");
                let names: Vec<&str> = case.attributes.keys().map(String::as_str).collect();
                assert_eq!(names, ["classname", "name", "time"]);
                assert!(case.children.len() <= 1);
                for failure in &case.children {
                    failures += 1;
                    assert_eq!(failure.name, "failure");
                    let names: Vec<&str> = failure.attributes.keys().map(String::as_str).collect();
                    assert_eq!(names, ["message", "type"]);
                }
            }
            assert_eq!(suite.attributes["tests"], cases.len().to_string());
            assert_eq!(suite.attributes["failures"], failures.to_string());
        }
        root
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::sample;
    use super::*;

    fn moment() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_323_045_678)
    }

    #[test]
    fn findings_become_failed_results() {
        let (found, _) = sample::findings();
        let files = [sample::FILE.into(), "policies/empty.yaml".into(), "policies/good.yaml".into()];
        let root = shape::conforms(&findings(&files, &found, false, moment()));
        let names: Vec<&str> = root.children.iter().map(|suite| &*suite.attributes["name"]).collect();
        assert_eq!(names, ["policies", "policies/empty.yaml", "policies/good.yaml", sample::FILE]);
        assert_eq!(root.children[0].attributes["timestamp"], "2026-01-02T03:04:05");
        assert_eq!(root.children[1].attributes["failures"], "0");
        assert!(root.children[1].children.iter().any(|child| child.text.contains("EmptyFile")));
        assert_eq!(root.children[2].attributes["tests"], "1");
        let case = &root.children[3].children[1];
        assert_eq!(case.attributes["name"], "BaselineScopeNotSupported 4:28");
        assert!(case.children[0].text.contains(":4:28: `baselineClientScopes` of `api`"));

        let denied = shape::conforms(&findings(&files, &found, true, moment()));
        assert_eq!(denied.children[1].attributes["failures"], "1");
    }

    #[test]
    fn hostile_text_cannot_leave_its_place() {
        let text = "\"/><x a='1'>&amp;]]>\u{0}\u{1b}[31m\u{ffff}\ttab\nline\r";
        let group = ResultGroup {
            name: text.to_owned(),
            cases: vec![ResultOutcome {
                name: text.to_owned(),
                failure: Some(Failure { kind: text.into(), message: text.into(), text: text.into() }),
            }],
            output: text.to_owned(),
        };
        let root = shape::conforms(&document(&[group], moment()));
        let shown = "\"/><x a='1'>&amp;]]>\u{fffd}\u{fffd}[31m\u{fffd}\ttab\nline\r";
        let suite = &root.children[0];
        assert_eq!(suite.attributes["name"], shown);
        assert_eq!(suite.children[1].children[0].text, shown);
        assert_eq!(suite.children[2].text, shown);
    }
}
