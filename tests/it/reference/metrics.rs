//! `docs/reference/metrics.md`, from what a server registers and shows: name, type, labels, meaning.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Labels whose values are too many to list, or come from the policy.
const OPEN: [(&str, &str); 8] = [
    ("arch", "that of the processor"),
    (
        "audience",
        "each of the first 1,000 of the policy in the order of `describe`, as spelled there; a reload adds and removes",
    ),
    ("caller", "each of the access file; empty where `authenticated_by` is `none` or `unknown`"),
    ("digest", "that of the policy that serves"),
    ("grpc_method", "an RPC of the service, or `unknown`"),
    ("revision", "the commit, or `unknown`; builds set it with `BUILD_REVISION`"),
    ("type", "a [condition](conditions.md)"),
    ("version", "that of the program"),
];

#[tokio::test]
async fn the_reference_of_the_metrics_is_what_a_server_shows() {
    let folder = tempfile::tempdir().unwrap();
    let service = crate::tls::service_with_clients(folder.path()).await;
    let (_, mut shown) = service.get("/metrics").await;
    service.stop().await;
    // A gateway shows the same, and its own.
    let upstream = crate::gateway::upstream::Upstream::start().await;
    let gateway = crate::gateway::Gateway::start(&upstream).await;
    let own = gateway.admin("/metrics").await.text();
    gateway.stop().await;
    let is_own = |line: &&str| {
        line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ").starts_with("scopeward_gateway_")
    };
    shown.extend(own.lines().filter(is_own).map(|line| format!("{line}\n")));
    let mut page = String::from(
        "# Metrics\n\nGenerated from what a server shows. After a change there, run `SCOPEWARD_BLESS=1 cargo test --test it reference`.\n\n\
         `GET /metrics` on the admin address (`--admin-listen`) shows these, in the text format of OpenMetrics. Labels have the \
         values that are listed here or come from the policy that serves; no label comes from a request. Counters start at 0 with \
         each process.\n\n| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n",
    );
    for metric in metrics(&shown) {
        let Metric { name, kind, help, labels } = metric;
        assert!(!help.is_empty(), "{name} has no help");
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, values)| match OPEN.iter().find(|(open, _)| open == label) {
                Some((_, what)) => format!("`{label}`: {what}"),
                None => {
                    let values = values.iter().map(|value| match *value {
                        "" => "empty".to_owned(),
                        value => format!("`{value}`"),
                    });
                    format!("`{label}`: {}", values.collect::<Vec<_>>().join(", "))
                }
            })
            .collect();
        writeln!(page, "| `{name}` | {kind} | {} | {} |", labels.join("; "), help.replace('|', "\\|"))
            .unwrap();
    }
    super::compare("docs/reference/metrics.md", &page);
}

struct Metric<'t> {
    name: String,
    kind: &'t str,
    help: &'t str,
    labels: BTreeMap<&'t str, BTreeSet<&'t str>>,
}

/// The metrics in the order shown.
fn metrics(text: &str) -> Vec<Metric<'_>> {
    let mut metrics: Vec<Metric<'_>> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            let help = help.trim_end_matches('.');
            metrics.push(Metric { name: name.to_owned(), kind: "", help, labels: BTreeMap::new() });
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let metric = metrics.last_mut().unwrap();
            metric.kind = rest.split(' ').nth(1).unwrap();
            if metric.kind == "counter" {
                metric.name.push_str("_total");
            }
        } else if let Some((_, rest)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let labels = rest.rsplit_once('}').unwrap().0;
            for pair in labels.split(',') {
                let (label, value) = pair.split_once('=').unwrap();
                if label != "le" {
                    metrics
                        .last_mut()
                        .unwrap()
                        .labels
                        .entry(label)
                        .or_default()
                        .insert(value.trim_matches('"'));
                }
            }
        }
    }
    metrics
}
