//! `check` and a server say the same about the same files, field by field.
//!
//! The corpus are the examples of the pages about findings and the example policies. Each is checked by the command
//! line and then served by one server, into whose folder it is written.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use scopeward::policy::finding::{Code, Severity};
use scopeward::rpc::v1;
use serde_json::{Value, json};

use crate::findings;
use crate::service::{POLICY, Service, settings};

/// Files of one policy by name.
type Files = BTreeMap<String, String>;

fn corpus() -> Vec<(String, Files)> {
    let mut corpus = vec![(
        "what the server starts with".to_owned(),
        Files::from([("mcp.yaml".to_owned(), POLICY.to_owned())]),
    )];
    for (at, code) in Code::ALL.iter().enumerate() {
        // Each warning, and enough errors to know that they come the same way.
        if code.severity() == Severity::Warning || at % 4 == 0 {
            let files: Files = findings::example(*code)
                .into_iter()
                .filter(|(name, _)| !name.ends_with("_test.yaml"))
                .collect();
            if !files.is_empty() {
                corpus.push((code.as_str().to_owned(), files));
            }
        }
    }
    // What a file accepts is left out everywhere, and not more than that.
    let accepting = "acceptWarnings: [OfflineAccessForEveryClient, NoDefaultAudience]\naudiences:\n  a: \
        {scopesSupported: [openid, offline_access], baselineClientScopes: [offline_access]}\n";
    let baseline = "{scopesSupported: [openid, offline_access], baselineClientScopes: [offline_access]}";
    corpus.push((
        "accepted warnings".to_owned(),
        Files::from([
            ("a.yaml".to_owned(), accepting.to_owned()),
            ("b.yaml".to_owned(), format!("audiences:\n  b: {baseline}\n")),
        ]),
    ));
    corpus.push((
        "accepted warnings alone".to_owned(),
        Files::from([
            ("a.yaml".to_owned(), accepting.to_owned()),
            (
                "b.yaml".to_owned(),
                format!("audiences:\n  b: {baseline}\nacceptWarnings: [OfflineAccessForEveryClient]\n"),
            ),
        ]),
    ));
    let examples = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("policies")).unwrap();
    let examples = examples.map(|entry| entry.unwrap().path()).map(|path| {
        (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(&path).unwrap())
    });
    corpus.push(("the example policies".to_owned(), examples.collect()));
    corpus
}

/// What `check` says: digest if valid, count, and findings without their pages, in an order of their own.
fn checked(policies: &Path) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scopeward"));
    let output = command.arg("check").arg(policies).args(["--output", "json"]).output().unwrap();
    let mut report: Value = serde_json::from_slice(&output.stdout).expect("JSON on standard output");
    let mut findings = std::mem::take(report["findings"].as_array_mut().unwrap());
    for finding in &mut findings {
        finding.as_object_mut().unwrap().remove("page");
    }
    said(report["digest"].as_str(), report["finding_count"].as_u64().unwrap(), findings)
}

fn said(digest: Option<&str>, count: u64, mut findings: Vec<Value>) -> Value {
    findings.sort_by_key(Value::to_string);
    json!({ "digest": digest, "count": count, "findings": findings })
}

/// What a server says by gRPC, as [`checked`] does.
fn served(status: &v1::PolicyStatus) -> Value {
    let attempt = status.last_attempt.as_ref().expect("an attempt");
    let findings = attempt.findings.iter().map(|finding| {
        let v1::Finding { file, line, column, code, severity, audience, value, message, suggestion } = finding;
        json!({
            "file": file, "line": line, "column": column, "code": code, "severity": severity, "audience": audience,
            "value": value, "message": message, "suggestion": suggestion,
        })
    });
    let digest = attempt.accepted.then_some(&*attempt.digest);
    said(digest, attempt.finding_count.into(), findings.collect())
}

#[tokio::test]
async fn check_and_a_server_say_the_same_about_the_same_files() {
    let folder = tempfile::tempdir().unwrap();
    let policies = folder.path().join("policies");
    fs::create_dir(&policies).unwrap();
    fs::write(policies.join("mcp.yaml"), POLICY).unwrap();
    let mut settings = settings(folder.path());
    settings.removal_quiet = Duration::ZERO;
    let service = Service::start_in(folder, settings).await.unwrap();
    let (mut valid, mut warnings, mut errors) = (0, 0, 0);
    for (name, files) in corpus() {
        for old in fs::read_dir(&policies).unwrap() {
            let old = old.unwrap();
            if !files.contains_key(&*old.file_name().to_string_lossy()) {
                fs::remove_file(old.path()).unwrap();
            }
        }
        for (name, text) in &files {
            fs::write(policies.join(name), text).unwrap();
        }
        let expected = checked(&policies);
        let wanted = expected.clone();
        let status = service.status_when("what `check` says", move |status| served(status) == wanted).await;
        assert_eq!(served(&status), expected, "{name}");
        // Each way to ask shows the same.
        let (_, page) = service.get("/status.json").await;
        let page: Value = serde_json::from_str(&page).unwrap();
        let attempt = &page["lastAttempt"];
        let mut listed = attempt["findings"].as_array().unwrap().clone();
        listed.sort_by_key(Value::to_string);
        assert_eq!(Value::from(listed), expected["findings"], "{name}");
        assert_eq!(attempt["findingCount"], expected["count"], "{name}");
        let count = expected["count"].as_f64().unwrap();
        assert_eq!(service.metric("scopeward_policy_findings ").await, Some(count), "{name}");
        valid += u32::from(!expected["digest"].is_null());
        let severities = expected["findings"].as_array().unwrap().iter().map(|finding| &finding["severity"]);
        for severity in severities {
            *(if severity == "error" { &mut errors } else { &mut warnings }) += 1;
        }
    }
    assert!(
        valid >= 8 && warnings >= 8 && errors >= 8,
        "{valid} valid, {warnings} warnings, {errors} errors"
    );
}
