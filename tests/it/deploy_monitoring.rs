//! The dashboard and the rules under `deploy/`: every metric, label and value in them is one that the reference has, every alert has
//! a runbook and cases, and a real Prometheus that scrapes a real server finds data for all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use scopeward::policy::yaml::{self, Node, NodeKind};
use serde_json::Value;

mod scraped;

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(project(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// An entry of the rules file.
struct Rule {
    /// Of the alert, or of what is recorded.
    name: String,
    is_alert: bool,
    expr: String,
    severity: String,
    annotations: BTreeMap<String, String>,
}

fn get<'n, 't>(node: &'n Node<'t>, key: &str) -> Option<&'n Node<'t>> {
    let NodeKind::Mapping(entries) = &node.kind else { return None };
    entries.iter().find(|(name, _)| name.text() == key).map(|(_, value)| value)
}

fn list<'n, 't>(node: &'n Node<'t>, key: &str) -> &'n [Node<'t>] {
    match get(node, key).map(|node| &node.kind) {
        Some(NodeKind::Sequence(entries)) => entries,
        _ => &[],
    }
}

fn rules() -> Vec<Rule> {
    let file = text(RULES);
    let tree = yaml::parse(&file).expect("valid YAML").root.expect("a document");
    let all = list(&tree, "groups").iter().flat_map(|group| list(group, "rules"));
    let rule = |node: &Node<'_>| {
        let of = |key: &str| get(node, key).map(|value| value.text().to_owned());
        let annotations = match get(node, "annotations").map(|node| &node.kind) {
            Some(NodeKind::Mapping(entries)) => {
                entries.iter().map(|(key, value)| (key.text().to_owned(), value.text().to_owned())).collect()
            }
            _ => BTreeMap::new(),
        };
        Rule {
            name: of("alert").or_else(|| of("record")).expect("a name"),
            is_alert: get(node, "alert").is_some(),
            expr: of("expr").expect("an expression"),
            severity: get(node, "labels")
                .and_then(|labels| get(labels, "severity"))
                .map_or_else(String::new, |severity| severity.text().to_owned()),
            annotations,
        }
    };
    let rules: Vec<_> = all.map(rule).collect();
    assert!(rules.len() > 40, "{}", rules.len());
    rules
}

fn dashboard() -> Value {
    serde_json::from_str(&text(DASHBOARD)).expect("valid JSON")
}

/// The expressions of the dashboard, each with the title of its panel, as Grafana sends them over a range that is long enough for what
/// happens once to be in it.
fn panel_expressions() -> Vec<(String, String)> {
    let dashboard = dashboard();
    let mut found = Vec::new();
    let filled = |expr: &Value| {
        let expr = expr.as_str().expect("an expression");
        expr.replace("$__rate_interval", "5m")
            .replace("[1m]", "[5m]")
            .replace("$job", ".*")
            .replace("$instance", ".*")
    };
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            found.push((panel["title"].as_str().unwrap().to_owned(), filled(&target["expr"])));
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        if annotation["expr"].is_string() {
            found.push((annotation["name"].as_str().unwrap().to_owned(), filled(&annotation["expr"])));
        }
    }
    found
}

/// A metric of the reference: its labels, each with its values; none where they are open.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// Every series that `docs/reference/metrics.md` names.
fn reference() -> BTreeMap<String, Labels> {
    let page = text("docs/reference/metrics.md");
    let mut all = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.split(" | ").collect();
        let name = cells[0].trim_start_matches("| ").trim_matches('`');
        let mut labels = Labels::new();
        for label in cells[2].split("; ").filter(|label| !label.is_empty()) {
            let (label, values) = label.split_once(": ").unwrap_or((label, ""));
            let quoted = values.split('`').skip(1).step_by(2).map(str::to_owned);
            let is_open = !values.starts_with('`') && !values.starts_with("empty");
            let mut values: BTreeSet<_> = if is_open { BTreeSet::new() } else { quoted.collect() };
            if cells[2].contains(": empty") && !is_open {
                values.insert(String::new());
            }
            labels.insert(label.trim_matches('`').to_owned(), values);
        }
        if cells[1] == "histogram" {
            for suffix in ["_bucket", "_sum", "_count"] {
                all.insert(format!("{name}{suffix}"), labels.clone());
            }
        } else {
            all.insert(name.to_owned(), labels);
        }
    }
    assert!(all.len() > 40, "{}", all.len());
    all
}

/// What an expression selects: the name of a series, and what it wants of its labels.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Selector {
    name: String,
    matchers: String,
}

/// The selectors of an expression, read as far as ours go: a name, maybe with matchers. Lists of labels after `by`, `on` and the like
/// are left out.
fn selectors(expr: &str) -> Vec<Selector> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut rest = expr;
    let mut found = Vec::new();
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        // Part of a number or a duration, such as 1d.
        let is_unit = rest[..start].ends_with(|c: char| c.is_ascii_digit());
        let end = rest[start..].find(|c| !is_word(c)).map_or(rest.len(), |length| start + length);
        let name = &rest[start..end];
        rest = &rest[end..];
        if ["by", "on", "ignoring", "without"].contains(&name) {
            rest = rest.split_once(')').expect("a list of labels").1;
            continue;
        }
        let mut matchers = "";
        if let Some(inner) = rest.strip_prefix('{') {
            (matchers, rest) = inner.split_once('}').expect("matchers end");
        }
        if !is_unit
            && (name.contains(['_', ':']) || name == "up")
            && !rest.starts_with('(')
            && !FUNCTIONS.contains(&name)
        {
            found.push(Selector { name: name.to_owned(), matchers: matchers.to_owned() });
        }
    }
    found
}

/// Functions with a `_` in their name before a `(` that a space may come before.
const FUNCTIONS: [&str; 1] = ["histogram_quantile"];

#[test]
fn selectors_are_found_in_expressions() {
    let names =
        |expr: &str| selectors(expr).into_iter().map(|one| (one.name, one.matchers)).collect::<Vec<_>>();
    let pair = |name: &str, matchers: &str| (name.to_owned(), matchers.to_owned());
    assert_eq!(
        names(
            "histogram_quantile(0.9, sum by (le, grpc_method) (rate(a_bucket{b=\"c\",d=~\"e\"}[5m]))) / 2 > on (x_y) job:z:rate1d offset 1h"
        ),
        [pair("a_bucket", "b=\"c\",d=~\"e\""), pair("job:z:rate1d", "")]
    );
    assert_eq!(
        names("up{job=~\".*x.*\"} == 0 and time() - a_b"),
        [pair("up", "job=~\".*x.*\""), pair("a_b", "")]
    );
}

/// Every metric, label and value of every expression is one that a server can show.
#[test]
fn all_that_is_asked_for_is_in_the_reference() {
    let reference = reference();
    let rules = rules();
    let conditions: BTreeSet<_> = text("docs/reference/conditions.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(str::to_owned))
        .collect();
    let of_rules = rules.iter().map(|rule| (rule.name.clone(), rule.expr.clone()));
    for (place, expr) in of_rules.chain(panel_expressions()) {
        let found = selectors(&expr);
        assert!(!found.is_empty(), "{place}: {expr}");
        for Selector { name, matchers } in found {
            if name == "up" || rules.iter().any(|rule| !rule.is_alert && rule.name == name) {
                continue;
            }
            let labels = reference.get(&name).unwrap_or_else(|| panic!("{place}: no metric `{name}`"));
            for matcher in matchers.split("\",").filter(|matcher| !matcher.is_empty()) {
                let (label, value) = matcher.split_once('"').expect("a value");
                let (label, value) = (label.trim_end_matches(['=', '~', '!']), value.trim_end_matches('"'));
                if ["job", "instance", "le"].contains(&label) {
                    continue;
                }
                let values =
                    labels.get(label).unwrap_or_else(|| panic!("{place}: `{name}` has no label `{label}`"));
                for value in value.split('|') {
                    let is_known = match label {
                        "type" => conditions.contains(value),
                        _ => values.is_empty() || values.contains(value),
                    };
                    assert!(is_known, "{place}: `{name}` has no {label}=\"{value}\"");
                }
            }
        }
    }
}

#[test]
fn every_alert_has_words_a_runbook_and_cases() {
    let guide = text("docs/guides/observing.md");
    let headings: BTreeSet<_> = guide.lines().filter_map(|line| line.strip_prefix("### Scopeward")).collect();
    let cases = text(CASES);
    let mut names = BTreeSet::new();
    for rule in rules().iter().filter(|rule| rule.is_alert) {
        let Rule { name, severity, annotations, .. } = rule;
        assert!(names.insert(name.clone()), "{name} is there twice");
        assert!(["critical", "warning", "info"].contains(&&**severity), "{name}: {severity}");
        for key in ["summary", "description"] {
            assert!(annotations.get(key).is_some_and(|text| text.len() > 20), "{name} has no {key}");
        }
        let link = format!("docs/guides/observing.md#{}", name.to_lowercase());
        assert_eq!(annotations.get("runbook_url"), Some(&link), "{name}");
        assert!(
            headings.contains(name.trim_start_matches("Scopeward")),
            "{name} has no heading in the guide"
        );
        for case in ["fires", "does not fire"] {
            assert!(cases.contains(&format!("- name: {name} {case}\n")), "{name}: no case `{case}`");
        }
    }
    let gone: Vec<_> = headings.iter().filter(|name| !names.contains(&format!("Scopeward{name}"))).collect();
    assert!(gone.is_empty(), "runbooks without an alert: {gone:?}");
}

#[test]
fn the_dashboard_can_be_imported_and_says_what_it_shows() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "scopeward");
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 39);
    assert!(dashboard["id"].is_null(), "a new one");
    let variables: Vec<_> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(variables, ["datasource", "job", "instance"]);
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: an id twice");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        assert!(x + w <= 24, "{title} is too wide");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} is over another panel");
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(panel["description"].as_str().unwrap().len() > 20, "{title} has no description");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        assert!(
            panel["type"] == "table" || panel["fieldConfig"]["defaults"]["unit"].is_string(),
            "{title} has no unit"
        );
        for target in panel["targets"].as_array().unwrap() {
            let expr = target["expr"].as_str().unwrap();
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            assert!(
                expr.contains("job=~\"$job\",instance=~\"$instance\""),
                "{title} is not of what is selected: {expr}"
            );
        }
    }
    let questions: Vec<_> = panels
        .iter()
        .filter(|panel| panel["type"] == "row")
        .map(|panel| panel["title"].as_str().unwrap())
        .collect();
    assert!(questions.iter().all(|title| title.ends_with('?')), "{questions:?}");
}

const DASHBOARD: &str = "deploy/grafana/scopeward.json";
const RULES: &str = "deploy/prometheus/scopeward.rules.yaml";
const CASES: &str = "deploy/prometheus/scopeward.rules.test.yaml";
