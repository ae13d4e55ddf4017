//! Findings in the Static Analysis Results Interchange Format: SARIF 2.1.0 (OASIS Standard).
//!
//! One run of one tool. Columns count characters (`columnKind` `unicodeCodePoints`, section 3.14.17),
//! file names are URI references (section 3.4.3), each code that can be found is a rule.

use serde_json::{Value, json};

use super::{Texts, end};
use crate::escape;
use crate::policy::finding::{Code, Finding, Severity};

/// The log as JSON for people and programs, with a line break at the end.
///
/// # Errors
/// None in practice: everything in it has a JSON form.
pub fn log(findings: &[Finding], texts: &Texts) -> serde_json::Result<String> {
    let rules: Vec<Value> = Code::ALL.iter().copied().map(rule).collect();
    let results: Vec<Value> = findings.iter().map(|finding| result(finding, texts)).collect();
    let log = json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "scopeward",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    Ok(escape::json_pretty(&log)? + "\n")
}

fn rule(code: Code) -> Value {
    let meaning = code.meaning().trim().replace('\n', " ");
    let page = code.page();
    json!({
        "id": code.as_str(),
        "shortDescription": { "text": meaning },
        "help": { "text": format!("See {page}."), "markdown": format!("See `{page}`.") },
        "defaultConfiguration": { "level": level(code.severity()) },
    })
}

const fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn result(finding: &Finding, texts: &Texts) -> Value {
    let Finding { code, file, position, audience, value, message, suggestion } = finding;
    let mut physical = json!({ "artifactLocation": { "uri": uri(file) } });
    if position.line > 0
        && let Some(physical) = physical.as_object_mut()
    {
        let mut region = json!({ "startLine": position.line, "startColumn": position.column.max(1) });
        if let (Some((line, column)), Some(region)) =
            (end(position, texts.get(file).map(|text| &**text)), region.as_object_mut())
        {
            region.insert("endLine".to_owned(), line.into());
            region.insert("endColumn".to_owned(), column.into());
        }
        physical.insert("region".to_owned(), region);
    }
    let text = if suggestion.is_empty() { format!("{message}.") } else { format!("{message}. {suggestion}") };
    json!({
        "ruleId": code.as_str(),
        "ruleIndex": Code::ALL.iter().position(|known| known == code),
        "level": level(code.severity()),
        "message": { "text": text },
        "locations": [{ "physicalLocation": physical }],
        "properties": { "audience": audience, "value": value, "suggestion": suggestion },
    })
}

/// A file name as a URI reference (RFC 3986 section 4.1): relative as it is, absolute with `file://`.
fn uri(file: &str) -> String {
    let path = match file {
        "-" => "stdin",
        path => path.strip_prefix("./").unwrap_or(path),
    };
    let mut out = String::with_capacity(path.len() + 8);
    if path.starts_with('/') {
        out.push_str("file://");
    }
    for byte in path.bytes() {
        // A colon in the first segment would be read as the end of a scheme.
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn findings_become_results_of_one_run() {
        let (findings, texts) = sample::findings();
        let log: Value = serde_json::from_str(&log(&findings, &texts).unwrap()).unwrap();
        assert_eq!(log["version"], "2.1.0");
        let run = &log["runs"][0];
        assert_eq!(run["columnKind"], "unicodeCodePoints");
        let results = run["results"].as_array().unwrap();
        assert_eq!(results.len(), findings.len());
        let place = &results[1]["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "policies/mcp%2C%20100%25%20%C3%A9.yaml");
        assert_eq!(
            place["region"],
            json!({ "startLine": 4, "startColumn": 28, "endLine": 4, "endColumn": 42 })
        );
        assert_eq!(results[1]["level"], "error");
        assert_eq!(results[0]["level"], "warning");
        assert_eq!(
            results[0]["locations"][0]["physicalLocation"].get("region"),
            None,
            "about the whole file"
        );
    }

    /// What the schema of SARIF 2.1.0 demands of the objects that are written here, as a table:
    /// object, its members with their types, `!` for a required one. Nothing else may stand there.
    const SCHEMA: &[(&str, &[(&str, &str)])] = &[
        ("log", &[("$schema", "uri"), ("version", "!2.1.0"), ("runs", "![run")]),
        ("run", &[("tool", "!tool"), ("results", "[result"), ("columnKind", "columnKind")]),
        ("tool", &[("driver", "!toolComponent")]),
        (
            "toolComponent",
            &[("name", "!string"), ("semanticVersion", "string"), ("rules", "[reportingDescriptor")],
        ),
        (
            "reportingDescriptor",
            &[
                ("id", "!string"),
                ("shortDescription", "multiformat"),
                ("help", "multiformat"),
                ("defaultConfiguration", "configuration"),
            ],
        ),
        ("multiformat", &[("text", "!string"), ("markdown", "string")]),
        ("configuration", &[("level", "level")]),
        (
            "result",
            &[
                ("ruleId", "string"),
                ("ruleIndex", "index"),
                ("level", "level"),
                ("message", "!message"),
                ("locations", "[location"),
                ("properties", "bag"),
            ],
        ),
        ("message", &[("text", "string")]),
        ("location", &[("physicalLocation", "physicalLocation")]),
        ("physicalLocation", &[("artifactLocation", "artifactLocation"), ("region", "region")]),
        ("artifactLocation", &[("uri", "reference")]),
        (
            "region",
            &[("startLine", "place"), ("startColumn", "place"), ("endLine", "place"), ("endColumn", "place")],
        ),
    ];

    fn conforms(value: &Value, kind: &str) {
        if let Some(kind) = kind.strip_prefix('[') {
            return value.as_array().unwrap().iter().for_each(|entry| conforms(entry, kind));
        }
        let text = || value.as_str().unwrap_or_else(|| panic!("{value} is no text for {kind}"));
        match kind {
            "string" => assert!(!text().is_empty()),
            "uri" => assert!(text().starts_with("https://")),
            "2.1.0" => assert_eq!(value, "2.1.0"),
            "columnKind" => assert!(["utf16CodeUnits", "unicodeCodePoints"].contains(&text())),
            "level" => assert!(["none", "note", "warning", "error"].contains(&text())),
            "index" => assert!(value.as_u64().is_some()),
            "place" => assert!(value.as_u64().is_some_and(|place| place >= 1), "{value}"),
            "bag" => assert!(value.is_object()),
            "reference" => {
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/%:".contains(&byte);
                assert!(text().bytes().all(allowed), "{value}");
            }
            object => {
                let (_, members) = SCHEMA.iter().find(|(name, _)| *name == object).unwrap();
                let value = value.as_object().unwrap();
                for (member, kind) in *members {
                    match value.get(*member) {
                        Some(inner) => conforms(inner, kind.trim_start_matches('!')),
                        None => assert!(!kind.starts_with('!'), "{object} needs {member}"),
                    }
                }
                for member in value.keys() {
                    assert!(members.iter().any(|(known, _)| known == member), "{object} has no {member}");
                }
            }
        }
    }

    #[test]
    fn the_log_has_the_shape_of_sarif_2_1_0() {
        let (findings, texts) = sample::findings();
        for findings in [&findings[..], &[]] {
            let log: Value = serde_json::from_str(&log(findings, &texts).unwrap()).unwrap();
            conforms(&log, "log");
            for result in log["runs"][0]["results"].as_array().unwrap() {
                let rule = &log["runs"][0]["tool"]["driver"]["rules"]
                    [result["ruleIndex"].as_u64().unwrap() as usize];
                assert_eq!(rule["id"], result["ruleId"]);
            }
        }
    }

    #[test]
    fn file_names_become_uri_references() {
        assert_eq!(uri("./policies/a.yaml"), "policies/a.yaml");
        assert_eq!(uri("/etc/scope ward/a:b.yaml"), "file:///etc/scope%20ward/a%3Ab.yaml");
        assert_eq!(uri("-"), "stdin");
        assert_eq!(uri("a#b?c.yaml"), "a%23b%3Fc.yaml");
    }
}
