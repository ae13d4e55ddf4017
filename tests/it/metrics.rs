//! What `/metrics` shows moves as it should, is valid, and does not grow.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use scopeward::rpc::v1;

use crate::openmetrics::{Sample, parse};
use crate::service::{Service, settings};
use crate::tools;

const POLICY: &str = "\
audiences:
  https://a.example.com:
    scopesSupported: [openid, x, y, z, w]
    baselineClientScopes: [x]
    defaultClientScopes: [openid]
    forbiddenScopes: [w]
    authorization: {unsupportedScopes: drop, unregisteredScopes: drop, stepUpScopes: [y], alwaysGrantScopes: [openid]}
  \"an \\\"odd\\\\name\\\"\": {scopesSupported: [openid]}
defaultAudience: https://a.example.com
";

/// A service that counts by audience.
async fn start(policy: &str) -> Service {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("policies")).unwrap();
    std::fs::write(folder.path().join("policies/p.yaml"), policy).unwrap();
    let mut settings = settings(folder.path());
    settings.metrics_per_audience = true;
    Service::start_in(folder, settings).await.unwrap()
}

async fn samples(service: &Service) -> Vec<Sample> {
    let (code, text) = service.get("/metrics").await;
    assert_eq!(code, 200);
    parse(&text)
}

/// The series of a metric that are not 0, by the values of their labels.
async fn values(service: &Service, name: &str) -> BTreeMap<String, f64> {
    let samples = samples(service).await;
    let found = samples.iter().filter(|sample| sample.name == name && sample.value != 0.0);
    found
        .map(|sample| (sample.labels.values().cloned().collect::<Vec<_>>().join(" "), sample.value))
        .collect()
}

fn map<const N: usize>(pairs: [(&str, f64); N]) -> BTreeMap<String, f64> {
    pairs.into_iter().map(|(labels, value)| (labels.to_owned(), value)).collect()
}

fn check(
    audiences: &[&str],
    scope: Option<&str>,
    registered: Option<&str>,
) -> v1::CheckAuthorizeScopesRequest {
    v1::CheckAuthorizeScopesRequest {
        audiences: audiences.iter().map(|audience| (*audience).to_owned()).collect(),
        scope: scope.map(str::to_owned),
        registered_scope: registered.map(str::to_owned),
        ..Default::default()
    }
}

#[tokio::test]
async fn scopes_and_audiences_are_counted_over_the_wire() {
    let service = start(POLICY).await;
    let a = "https://a.example.com";
    let odd = "an \"odd\\name\"";
    let expand = v1::ExpandRegistrationScopesRequest { audiences: vec![a.to_owned()], ..Default::default() };
    // Gives `openid` as default and `x` as baseline.
    service.scopes().expand_registration_scopes(expand).await.unwrap();
    // Adds `openid` always, `y` by step-up, and drops `z`, `w` and two that nobody knows.
    let mixed = check(&[a], Some("x y z w b c"), Some("openid x"));
    service.scopes().check_authorize_scopes(mixed.clone()).await.unwrap();
    let checks = vec![
        mixed,
        check(&[odd], Some("openid no"), Some("openid")),
        check(&["https://A.example.com/"], None, Some("openid")),
        check(&[a, odd], Some("openid"), Some("openid")),
        check(&["https://unknown.example.com"], Some("openid"), Some("openid")),
        check(&[odd], Some("no\u{1}"), Some("openid")),
    ];
    let batch = v1::BatchCheckAuthorizeScopesRequest { checks };
    service.scopes().batch_check_authorize_scopes(batch).await.unwrap();
    assert_eq!(
        values(&service, "scopeward_scopes_added_total").await,
        map([("ALWAYS", 2.0), ("BASELINE", 2.0), ("DEFAULT", 1.0), ("REGISTERED", 1.0), ("STEP_UP", 2.0)])
    );
    assert_eq!(
        values(&service, "scopeward_scopes_refused_total").await,
        map([("FORBIDDEN", 2.0), ("MALFORMED", 1.0), ("UNREGISTERED", 2.0), ("UNSUPPORTED", 5.0)])
    );
    assert_eq!(
        values(&service, "scopeward_audience_decisions_total").await,
        map([
            ("https://a.example.com ALLOW", 5.0),
            ("an \"odd\\name\" ALLOW", 1.0),
            ("an \"odd\\name\" DENY", 2.0),
        ])
    );
    assert_eq!(
        values(&service, "scopeward_decisions_total").await,
        map([
            ("ALLOW BatchCheckAuthorizeScopes ", 3.0),
            ("DENY BatchCheckAuthorizeScopes AUDIENCE_UNKNOWN", 1.0),
            ("DENY BatchCheckAuthorizeScopes MALFORMED", 1.0),
            ("DENY BatchCheckAuthorizeScopes UNSUPPORTED", 1.0),
            ("ALLOW CheckAuthorizeScopes ", 1.0),
            ("ALLOW ExpandRegistrationScopes ", 1.0),
        ])
    );
    service.stop().await;
}

#[tokio::test]
async fn counters_by_audience_follow_the_policy_and_do_not_grow() {
    let policy = |first: usize, count: usize| {
        let mut text = "audiences:\n".to_owned();
        for number in first..first + count {
            text.push_str(&format!("  https://a{number:05}.example.com: {{scopesSupported: [a]}}\n"));
        }
        text.push_str("  https://z.example.com: {scopesSupported: [a]}\n");
        text
    };
    let service = start(&policy(0, 3)).await;
    let ask = async |audience: &str| {
        let request = check(&[audience], Some("a"), Some("a"));
        service.scopes().check_authorize_scopes(request).await.unwrap();
    };
    let counted = async || {
        let samples = samples(&service).await;
        let name = "scopeward_audience_decisions_total";
        samples
            .into_iter()
            .filter(|sample| sample.name == name)
            .map(|sample| sample.labels["audience"].clone())
            .collect::<std::collections::BTreeSet<_>>()
    };
    let serve = async |text: &str, generation: u64| {
        service.write("p.yaml", text);
        let served =
            move |status: &v1::PolicyStatus| status.active.as_ref().unwrap().generation == generation;
        service.status_when("the policy serves", served).await;
    };
    ask("https://a00001.example.com").await;
    ask("https://z.example.com").await;
    let z = "scopeward_audience_decisions_total{audience=\"https://z.example.com\",decision=\"ALLOW\"}";
    for round in 1..8 {
        serve(&policy(round, 3), u64::try_from(round + 1).unwrap()).await;
        ask("https://z.example.com").await;
        assert_eq!(service.metric(z).await, Some((round + 1) as f64), "what stays goes on");
        assert_eq!(counted().await.len(), 4, "{round}");
        assert!(!counted().await.contains(&format!("https://a{:05}.example.com", round - 1)));
    }
    // The first 1,000 in order.
    serve(&policy(0, 1100), 9).await;
    let counted = counted().await;
    assert_eq!(counted.len(), 1000);
    assert!(counted.contains("https://a00999.example.com") && !counted.contains("https://z.example.com"));
    ask("https://z.example.com").await;
    assert_eq!(service.metric(z).await, None);
    service.stop().await;
}

#[tokio::test]
async fn the_process_and_the_build_are_shown() {
    let service = Service::start(crate::service::POLICY).await;
    let samples = samples(&service).await;
    let value = |name: &str| {
        let found: Vec<_> = samples.iter().filter(|sample| sample.name == name).collect();
        assert_eq!(found.len(), 1, "{name}");
        found[0].value
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let start = value("process_start_time_seconds");
    assert!(start <= now + 1.0 && start > now - 3600.0 * 24.0, "{start} at {now}");
    assert!(value("process_cpu_seconds_total") > 0.0);
    assert!(value("process_threads") >= 2.0);
    let (resident, all) = (value("process_resident_memory_bytes"), value("process_virtual_memory_bytes"));
    assert!(resident > 1e6 && all > resident, "{resident} {all}");
    assert!(value("process_open_fds") > 3.0 && value("process_open_fds") < value("process_max_fds"));
    assert_eq!(value("scopeward_build_info"), 1.0);
    let build = samples.iter().find(|sample| sample.name == "scopeward_build_info").unwrap();
    assert_eq!(build.labels["version"], env!("CARGO_PKG_VERSION"));
    assert!(!build.labels["revision"].is_empty());
    assert!(!samples.iter().any(|sample| sample.name.starts_with("scopeward_audience_decisions")));
    service.stop().await;
}

#[tokio::test]
async fn promtool_takes_the_metrics() {
    if !tools::wanted("prometheus") {
        return;
    }
    let service = start(POLICY).await;
    let (_, text) = service.get("/metrics").await;
    service.stop().await;
    // promtool reads the older text format: there a counter has its whole name in its metadata, and nothing has a unit.
    let lines = text.lines().filter(|line| !line.starts_with("# UNIT") && *line != "# EOF").map(|line| {
        match line.strip_suffix(" counter").and_then(|line| line.strip_prefix("# TYPE ")) {
            Some(name) => format!("# TYPE {name}_total counter\n"),
            None => format!("{line}\n"),
        }
    });
    let mut counters = std::collections::HashSet::new();
    for line in text.lines() {
        if let Some(name) = line.strip_suffix(" counter").and_then(|line| line.strip_prefix("# TYPE ")) {
            counters.insert(name.to_owned());
        }
    }
    let older: String = lines
        .map(|line| match line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            Some((name, help)) if counters.contains(name) => format!("# HELP {name}_total {help}"),
            _ => line,
        })
        .collect();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    promtool.stdin.take().unwrap().write_all(older.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*said), (Some(0), ""));
}
