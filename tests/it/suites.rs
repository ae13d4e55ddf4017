//! The shipped policies: their tests pass, leave nothing out, and notice every broken line.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use scopeward::policy::check::check;
use scopeward::policy::document::Document;
use scopeward::policy::finding::Finding;
use scopeward::policy::format::ValueKind::{Choice, ChoiceOrOne};
use scopeward::policy::keys::POLICY;
use scopeward::policy::yaml::{self, Node, NodeKind, Schema};
use scopeward::suite::run::CaseResult;
use scopeward::suite::{Suite, SuiteReport, run};

/// File name and text of each shipped policy file, or of each test file.
fn files(tests: bool) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap())
        })
        .filter(|(name, _)| name.ends_with("_test.yaml") == tests)
        .collect();
    files.sort();
    files
}

/// What became of a policy: it is not valid, its tests do not fit it, or they ran.
enum Verdict {
    Invalid,
    Unfit,
    Ran(SuiteReport),
}

fn judge(policies: &[(String, String)]) -> Verdict {
    let documents: Vec<Document> =
        policies.iter().map(|(name, text)| Document::read(&Arc::from(name.as_str()), text)).collect();
    let Ok(accepted) = check(&Arc::from("policies"), &documents) else { return Verdict::Invalid };
    let suites: Vec<Suite> =
        files(true).iter().map(|(name, text)| Suite::read(&Arc::from(name.as_str()), text)).collect();
    if suites.iter().any(|suite| !suite.check(&accepted.set).is_empty()) {
        return Verdict::Unfit;
    }
    Verdict::Ran(run(&accepted.set, &suites, None))
}

#[test]
fn shipped_policies_pass_their_tests_without_a_warning() {
    let documents: Vec<Document> =
        files(false).iter().map(|(name, text)| Document::read(&Arc::from(name.as_str()), text)).collect();
    let accepted = check(&Arc::from("policies"), &documents).unwrap();
    assert_eq!(*accepted.warnings, []);
    let mut count = 0;
    for (name, text) in files(true) {
        let suite = Suite::read(&Arc::from(name.as_str()), &text);
        let found: Vec<String> = suite.check(&accepted.set).iter().map(Finding::to_string).collect();
        assert_eq!(found, [""; 0]);
        let report = run(&accepted.set, &[suite], None);
        let failed: Vec<_> = report.results.iter().filter(|result| !result.passed()).collect();
        assert!(failed.is_empty(), "{failed:#?}");
        count += report.passed();
    }
    assert!(count > 40, "{count}");
}

#[test]
fn shipped_tests_touch_every_audience_and_rule() {
    let Verdict::Ran(report) = judge(&files(false)) else { panic!("the tests run") };
    for audience in &report.coverage {
        assert!(audience.register + audience.authorize > 0, "{} has no test", audience.audience);
        for rule in &audience.rules {
            assert!(rule.gave > 0, "{} of {} gives nothing in any test", rule.rule, audience.audience);
        }
    }
}

/// A policy with one thing changed, and what that is.
struct Mutant {
    what: String,
    text: String,
}

/// Every way to take one entry out of a list or to change one value of a file.
fn mutants(text: &str) -> Vec<Mutant> {
    let mut mutants = Vec::new();
    walk(text, &yaml::parse(text).unwrap().root.unwrap(), "", &mut mutants);
    mutants
}

fn walk(text: &str, node: &Node<'_>, path: &str, mutants: &mut Vec<Mutant>) {
    let replaced =
        |from: u32, to: u32, by: &str| format!("{}{by}{}", &text[..from as usize], &text[to as usize..]);
    match &node.kind {
        NodeKind::Mapping(entries) => {
            for (key, value) in entries {
                walk(text, value, &format!("{path}/{}", key.text()), mutants);
            }
        }
        NodeKind::Sequence(entries) => {
            for (at, entry) in entries.iter().enumerate() {
                if !matches!(entry.kind, NodeKind::Scalar { .. }) {
                    walk(text, entry, &format!("{path}/{at}"), mutants);
                    continue;
                }
                let here = entry.position;
                let (from, to) = match (at, entries.get(at + 1)) {
                    (_, Some(next)) => (here.start, next.position.start),
                    (0, None) => (here.start, here.end),
                    (_, None) => (entries[at - 1].position.end, here.end),
                };
                let what = format!("{path} without {}", entry.text());
                mutants.push(Mutant { what, text: replaced(from, to, "") });
            }
        }
        NodeKind::Scalar { text: value, schema } => {
            let others: Vec<String> = match schema {
                Schema::Number => vec!["0".to_owned()],
                Schema::Boolean => vec![(value == "false").to_string()],
                _ => spellings(path.rsplit('/').next().unwrap(), value),
            };
            for other in others {
                let what = format!("{path}: {other} for {value}");
                let text = replaced(node.position.start, node.position.end, &other);
                mutants.push(Mutant { what, text });
            }
        }
    }
}

/// The other values of a key.
fn spellings(key: &str, value: &str) -> Vec<String> {
    let sections = POLICY.all();
    let keys = sections.iter().flat_map(|section| section.keys);
    let mut all = match keys.into_iter().find(|known| known.name == key).map(|known| known.kind) {
        Some(Choice(names) | ChoiceOrOne(names, _)) => names.iter().map(|name| (*name).to_owned()).collect(),
        _ if key == "defaultAudience" => vec!["https://billing.shop.example.com".to_owned()],
        _ => vec!["something-else".to_owned()],
    };
    all.retain(|name| name != value);
    all
}

/// Every way to put one of these scopes more into a list of scopes.
fn wider(text: &str, scopes: &BTreeSet<String>) -> Vec<Mutant> {
    let mut mutants = Vec::new();
    for (at, line) in text.match_indices("copes: [") {
        let end = at + line.len();
        for scope in scopes {
            let text = format!("{}\"{scope}\", {}", &text[..end], &text[end..]);
            mutants.push(Mutant { what: format!("{scope} more at byte {at}"), text });
        }
    }
    mutants
}

/// No request can tell these lines: they judge policies, and no audience supports the scopes.
const FOR_POLICIES_ONLY: [&str; 3] = [
    "/guardrails/privilegedScopes without admin",
    "/guardrails/privilegedScopes without keys:write",
    "/acceptWarnings without UnusedProtection",
];

#[test]
fn every_broken_line_of_a_shipped_policy_is_noticed() {
    let policies = files(false);
    let (mut count, mut survivors) = (0, Vec::new());
    for (at, (name, text)) in policies.iter().enumerate() {
        for Mutant { what, text } in mutants(text) {
            count += 1;
            let noticed = match judge(&with(&policies, at, text)) {
                Verdict::Invalid | Verdict::Unfit => true,
                Verdict::Ran(report) => report.failed() > 0,
            };
            if !noticed && !FOR_POLICIES_ONLY.contains(&what.as_str()) {
                survivors.push(format!("{name}: {what}"));
            }
        }
    }
    assert!(survivors.is_empty(), "no test notices {survivors:#?}");
    assert!(count > 60, "{count}");
}

#[test]
fn every_test_of_a_shipped_policy_can_fail() {
    let policies = files(false);
    let Verdict::Ran(report) = judge(&policies) else { panic!("the tests run") };
    let mut idle: BTreeSet<String> = report.results.iter().map(case_name).collect();
    let scopes: BTreeSet<String> = files(true)
        .iter()
        .flat_map(|(name, text)| Suite::read(&Arc::from(name.as_str()), text).cases)
        .flat_map(|case| {
            case.call.scope.unwrap_or_default().split(' ').map(str::to_owned).collect::<Vec<_>>()
        })
        .filter(|scope| !scope.is_empty())
        .collect();
    let mut strike = |policies: Vec<(String, String)>| {
        if let Verdict::Ran(report) = judge(&policies) {
            for result in report.results.iter().filter(|result| !result.passed()) {
                idle.remove(&case_name(result));
            }
        }
        idle.is_empty()
    };
    for (at, (_, text)) in policies.iter().enumerate() {
        for mutant in mutants(text).into_iter().chain(wider(text, &scopes)) {
            strike(with(&policies, at, mutant.text));
        }
    }
    // Where one line leans on another, a test shows only when both are gone.
    'pairs: for (at, (_, text)) in policies.iter().enumerate() {
        for first in mutants(text) {
            for second in mutants(&first.text) {
                if strike(with(&policies, at, second.text)) {
                    break 'pairs;
                }
            }
        }
    }
    assert!(idle.is_empty(), "nothing makes these tests fail: {idle:#?}");
}

fn case_name(result: &CaseResult) -> String {
    format!("{}: {}", result.file, result.name)
}

fn with(policies: &[(String, String)], at: usize, text: String) -> Vec<(String, String)> {
    let mut changed = policies.to_vec();
    changed[at].1 = text;
    changed
}
