//! A real Prometheus that scrapes a real server under traffic. Needs `prometheus` and `promtool`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use scopeward::rpc::v1;
use scopeward::rpc::v1::audit_service_client::AuditServiceClient;
use scopeward::rpc::v1::scope_policy_service_client::ScopePolicyServiceClient;
use serde_json::Value;
use tonic::transport::Channel;

use super::{CASES, RULES, Selector, panel_expressions, project, rules, selectors};
use crate::certs::Authority;
use crate::service::unix_channel;
use crate::tools;

const AUDIENCE: &str = "https://mcp.example.com";
const POLICY: &str = "\
audiences:
  https://mcp.example.com:
    scopesSupported: [openid, offline_access, \"mcp:read\", \"mcp:write\"]
    baselineClientScopes: [offline_access]
    forbiddenScopes: [\"mcp:write\"]
";

#[test]
fn promtool_takes_the_rules_and_their_cases() {
    if !tools::wanted("prometheus") {
        return;
    }
    for (verb, file) in [("check", RULES), ("test", CASES)] {
        let output = Command::new("promtool").args([verb, "rules"]).arg(project(file)).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{verb}: {text}");
    }
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// The server: every part that has metrics of its own is there.
fn start_server(folder: &Path) -> (Running, SocketAddr) {
    for (path, text) in
        [("policies/p.yaml", POLICY), ("shadow/p.yaml", &*POLICY.replace("\"mcp:read\", ", ""))]
    {
        fs::create_dir_all(folder.join(path).parent().unwrap()).unwrap();
        fs::write(folder.join(path), text).unwrap();
    }
    Authority::new("CA").issue(&[]).write(folder, "server");
    let uid = fs::metadata("/proc/self").unwrap().uid();
    let access = format!(
        "callers: [{{name: as, match: [{{unixUid: {uid}}}], may: [decide, describe, status, audit]}}]\n"
    );
    fs::write(folder.join("access.yaml"), access).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_scopeward"));
    command.current_dir(folder).args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.arg("--listen").arg(format!("unix:{}", folder.join("socket").display()));
    command.args(["--tls-cert-file", "server.pem", "--tls-private-key-file", "server.key"]);
    command.args(["--access-file", "access.yaml", "--shadow", "shadow", "--audit-jsonl", "audit.jsonl"]);
    command.args(["--audit-max-size", "1GiB", "--metrics-per-audience"]);
    let (server, [_, admin]) = ready(command);
    (server, admin)
}

/// Starts a server, and waits until it is ready: where it answers calls, and where it tells of itself.
fn ready(mut command: Command) -> (Running, [SocketAddr; 2]) {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let addresses = ["grpc=", "admin="].map(|name| {
        let address = line.split(name).nth(1).unwrap_or_else(|| panic!("no {name}: {line}"));
        address.split([' ', ',', '\n']).next().unwrap().parse().unwrap()
    });
    (Running(child), addresses)
}

/// Prometheus with our rules, which scrapes the targets every second.
fn start_prometheus(folder: &Path, targets: &[SocketAddr]) -> (Running, SocketAddr) {
    let targets: Vec<String> = targets.iter().map(|target| format!("'{target}'")).collect();
    let targets = targets.join(", ");
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n  - job_name: scopeward\n    \
         static_configs: [{{targets: [{targets}]}}]\n",
        project(RULES).display()
    );
    fs::write(folder.join("prometheus.yml"), config).unwrap();
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", folder.join("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()));
    command.arg("--web.listen-address=127.0.0.1:0");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("prometheus");
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let address = lines.by_ref().find_map(|line| {
        let address =
            line.split_once("address=127.0.0.1:")?.1.split_whitespace().next()?.parse::<u16>().ok()?;
        (address != 0).then(|| SocketAddr::from(([127, 0, 0, 1], address)))
    });
    // Before that its API answers with 503.
    assert!(lines.by_ref().any(|line| line.contains("Server is ready to receive web requests")));
    // Its log is read to the end, or it would stand still when the pipe is full.
    thread::spawn(move || lines.for_each(drop));
    (Running(child), address.expect("it listens"))
}

/// The answer of the HTTP API of Prometheus.
fn api(address: SocketAddr, path: &str) -> Value {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /api/v1/{path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {head}"))
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// How many series an expression has now that are numbers.
fn evaluate(address: SocketAddr, expr: &str) -> usize {
    let answer = api(address, &format!("query?query={}", percent(expr)));
    assert_eq!(answer["status"], "success", "{expr}: {answer}");
    let found = answer["data"]["result"].as_array().unwrap();
    found.iter().filter(|series| series["value"][1] != "NaN").count()
}

/// Asks once what each part of the policy answers.
async fn ask(channel: &Channel) {
    let mut scopes = ScopePolicyServiceClient::new(channel.clone());
    let audiences = || vec![AUDIENCE.to_owned()];
    let expand = v1::ExpandRegistrationScopesRequest {
        audiences: audiences(),
        scope: Some("openid".to_owned()),
        ..Default::default()
    };
    scopes.expand_registration_scopes(expand).await.unwrap();
    let check = |scope: &str, registered: Option<&str>| v1::CheckAuthorizeScopesRequest {
        audiences: audiences(),
        scope: Some(scope.to_owned()),
        registered_scope: registered.map(str::to_owned),
        ..Default::default()
    };
    for (scope, registered) in [
        ("openid mcp:read", Some("openid mcp:read")),
        ("payments", Some("openid")),
        ("mcp:write", Some("mcp:write")),
        ("openid", None),
    ] {
        scopes.check_authorize_scopes(check(scope, registered)).await.unwrap();
    }
    let batch = v1::BatchCheckAuthorizeScopesRequest { checks: vec![check("openid", Some("openid")); 3] };
    scopes.batch_check_authorize_scopes(batch).await.unwrap();
    let describe = v1::DescribeAudienceRequest { audience: AUDIENCE.to_owned(), ..Default::default() };
    scopes.describe_audience(describe).await.unwrap();
    let describe =
        v1::DescribeAudienceRequest { audience: "https://n.example.com".to_owned(), ..Default::default() };
    scopes.describe_audience(describe).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_finds_data_for_every_expression() {
    if !tools::wanted("prometheus") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (_server, admin) = start_server(folder.path());
    let (_prometheus, prometheus) = start_prometheus(folder.path(), &[admin]);
    let channel = unix_channel(&folder.path().join("socket")).await;
    let request = v1::StreamAuditEventsRequest { follow: true, ..Default::default() };
    let mut audit =
        AuditServiceClient::new(channel.clone()).stream_audit_events(request).await.unwrap().into_inner();
    let reader = tokio::spawn(async move { while let Ok(Some(_)) = audit.message().await {} });
    let policy = folder.path().join("policies/p.yaml");

    // What must have data: every panel, every recording rule, and whatever an alert looks at.
    let mut wanted: Vec<(String, String)> = panel_expressions();
    for rule in rules() {
        if rule.is_alert {
            let looked_at = selectors(&rule.expr)
                .into_iter()
                .map(|Selector { name, matchers }| format!("{name}{{{matchers}}}"));
            wanted.extend(looked_at.map(|expr| (rule.name.clone(), expr)));
        } else {
            wanted.push((rule.name, rule.expr));
        }
    }
    let deadline = Instant::now() + Duration::from_secs(180);
    let has_data = |expr: &str| tokio::task::block_in_place(|| evaluate(prometheus, expr)) > 0;
    // The policy changes once, and is wrong from then on: two attempts that a reload shows, and a condition that somebody must see.
    // Each edit waits until what was before it was scraped, since a change between no scrapes is none.
    let mut edits = [
        ("scopeward_policy_generation == 1", POLICY.replace("[openid", "[more, openid")),
        ("scopeward_policy_generation == 2", POLICY.replace("[offline_access]", "[nowhere]")),
    ]
    .into_iter()
    .peekable();
    loop {
        if let Some((_, text)) = edits.next_if(|(seen, _)| has_data(seen)) {
            fs::write(&policy, text).unwrap();
        }
        for _ in 0..5 {
            ask(&channel).await;
        }
        // What has data once need not have it all the time.
        wanted.retain(|(_, expr)| !has_data(expr));
        if edits.peek().is_none() && wanted.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "without data: {wanted:#?}");
    }
    // What the rules make of it.
    let answer = tokio::task::block_in_place(|| api(prometheus, "rules"));
    let groups = answer["data"]["groups"].as_array().unwrap();
    let found: Vec<_> = groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert_eq!(found.len(), rules().len());
    for rule in found {
        assert_eq!((&rule["health"], &rule["lastError"]), (&"ok".into(), &Value::Null), "{rule}");
    }
    let (alerts, rejected) = loop {
        let answer = tokio::task::block_in_place(|| api(prometheus, "alerts"));
        let alerts = answer["data"]["alerts"].as_array().unwrap().clone();
        let rejected = |alert: &&Value| alert["labels"]["alertname"] == "ScopewardPolicyRejected";
        if let Some(rejected) = alerts.iter().find(rejected).cloned() {
            break (alerts, rejected);
        }
        assert!(Instant::now() < deadline, "the policy is rejected: {alerts:#?}");
    };
    let summary = rejected["annotations"]["summary"].as_str().unwrap();
    assert_eq!(summary, format!("The newest policy of {admin} is not accepted"));
    // Where the test runs may be slow, or nearly full; nothing else is wrong.
    let expected = ["PolicyRejected", "RegistrationsUnknown", "AuditVolumeLow", "LatencyBudgetBurns"];
    for alert in &alerts {
        assert!(!alert["annotations"].to_string().contains("<error"), "{alert}");
        let name = alert["labels"]["alertname"].as_str().unwrap();
        assert!(expected.iter().any(|one| name.contains(one)), "nothing else is wrong: {alert}");
    }
    reader.abort();
}

/// How long it may take until servers that differ are seen, where they are scraped every second.
const SEEN_WITHIN: Duration = Duration::from_secs(30);

/// `fleet status` for servers: its exit code and what it said of them.
fn fleet_status(servers: &[SocketAddr]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scopeward"));
    command.args(["fleet", "status"]).args(servers.iter().map(ToString::to_string));
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn servers_whose_policies_differ_are_in_fleet_status_and_in_an_alert_within_30_seconds() {
    if !tools::wanted("prometheus") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let policy = |server: &str| folder.path().join(server).join("policies/p.yaml");
    let servers = ["a", "b", "c"].map(|server| {
        fs::create_dir_all(policy(server).parent().unwrap()).unwrap();
        fs::write(policy(server), POLICY).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_scopeward"));
        command.current_dir(folder.path().join(server));
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        ready(command)
    });
    let addresses = servers.each_ref().map(|(_, [grpc, _])| *grpc);
    let admin = servers.each_ref().map(|(_, [_, admin])| *admin);
    let (_prometheus, prometheus) = start_prometheus(folder.path(), &admin);
    #[track_caller]
    fn until(what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !done() {
            assert!(Instant::now() < deadline, "not seen: {what}");
            thread::sleep(Duration::from_millis(50));
        }
    }
    let alert = |state: &str| {
        format!("ALERTS{{alertname=\"ScopewardPolicyRollout\", alertstate=\"{state}\", job=\"scopeward\"}}")
    };
    let firing = alert("firing");
    until("three servers", || evaluate(prometheus, "count(scopeward_policy_info) == 3") > 0);
    assert_eq!(fleet_status(&addresses), (Some(0), String::new()));
    assert_eq!(evaluate(prometheus, &alert("pending")) + evaluate(prometheus, &firing), 0);

    // One of them gets an edit.
    let edited = SystemTime::now();
    let wider = POLICY.replace("[openid", "[more, openid");
    fs::write(policy("b"), &wider).unwrap();
    until("the edit in `fleet status`", || fleet_status(&addresses).0 == Some(1));
    assert!(fleet_status(&addresses).1.contains("the servers serve different policies"));
    let in_status = edited.elapsed().unwrap();
    // When it began to fire, as Prometheus has it.
    let since = percent(&format!("min_over_time(timestamp({firing})[5m:1s])"));
    let since = || {
        let answer = api(prometheus, &format!("query?query={since}"));
        answer["data"]["result"][0]["value"][1].as_str().map(|seconds| seconds.parse::<f64>().unwrap())
    };
    until("the alert", || since().is_some());
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(since().unwrap());
    let in_alert = since.duration_since(edited).unwrap_or_default();
    println!("in fleet status after {in_status:?}, in the alert after {in_alert:?}");
    assert!(in_status < SEEN_WITHIN && in_alert < SEEN_WITHIN, "{in_status:?}, {in_alert:?}");

    // The others follow.
    for server in ["a", "c"] {
        fs::write(policy(server), &wider).unwrap();
    }
    until("equal policies in `fleet status`", || fleet_status(&addresses).0 == Some(0));
    until("no alert", || evaluate(prometheus, &firing) == 0);
}
