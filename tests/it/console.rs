//! The console over HTTP: what is served, to whom, and what browsers are told.

use std::net::SocketAddr;

use scopeward::rpc::v1;
use scopeward::server::config::ServerSettings;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{authorize, registration, within};
use crate::service::{POLICY, Service, settings};

mod browser;
mod questions;

/// What came back.
pub(crate) struct Answer {
    pub(crate) code: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!((self.code, self.header("content-type")), (200, "application/json"), "{}", self.body);
        serde_json::from_str(&self.body).expect("JSON")
    }
}

/// Sends bytes and reads until the connection is closed.
pub(crate) async fn raw(admin: SocketAddr, request: &[u8]) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(admin).await.expect("a connection");
        // The server may answer and close before it has read everything.
        _ = stream.write_all(request).await;
        let mut bytes = Vec::new();
        _ = stream.read_to_end(&mut bytes).await;
        String::from_utf8(bytes).expect("text")
    };
    let text = within("the console answers", exchange).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text}"));
    let mut lines = head.lines();
    let code = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
    Answer {
        code: code.expect("a status"),
        headers: lines.filter_map(header).collect(),
        body: body.to_owned(),
    }
}

/// A request without a body, for `localhost` unless `headers` has a Host.
async fn ask(admin: SocketAddr, method: &str, path: &str, headers: &[&str]) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|header| header.starts_with("Host:")) {
        request.push_str("Host: localhost\r\n");
    }
    for header in headers {
        request.push_str(&format!("{header}\r\n"));
    }
    raw(admin, format!("{request}\r\n").as_bytes()).await
}

pub(crate) async fn get(service: &Service, path: &str) -> Answer {
    ask(service.admin, "GET", path, &[]).await
}

/// A service with a console.
pub(crate) async fn start(policy: &str) -> Service {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("policies")).unwrap();
    std::fs::write(folder.path().join("policies/mcp.yaml"), policy).unwrap();
    let settings = ServerSettings { console: true, ..settings(folder.path()) };
    Service::start_in(folder, settings).await.unwrap()
}

/// Every path that the page names or asks for.
fn paths() -> Vec<String> {
    let page = include_str!("../../src/server/console/page/index.html");
    let mut paths: Vec<String> =
        page.split('"').filter(|part| part.starts_with("console/")).map(|part| format!("/{part}")).collect();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server/console/page");
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let text = std::fs::read_to_string(entry.path()).unwrap();
        assert!(
            !text.contains("://")
                || text.matches("://").count() == text.matches("http://www.w3.org/").count(),
            "{name} names another host"
        );
        if name != "index.html" {
            paths.push(format!("/console/{name}"));
        }
    }
    paths.sort();
    paths.dedup();
    assert!(paths.len() > 6, "{paths:?}");
    let api =
        ["live", "status", "help?code=UnknownKey", "audiences", "audience?name=https://mcp.example.com"];
    paths.push("/console".to_owned());
    paths.extend(api.map(|path| format!("/console/api/{path}")));
    paths
}

#[tokio::test]
async fn console_is_there_only_if_it_was_asked_for() {
    let service = Service::start(POLICY).await;
    for path in paths() {
        assert_eq!(get(&service, &path).await.code, 404, "{path}");
    }
    service.stop().await;
}

#[tokio::test]
async fn every_answer_tells_browsers_to_keep_other_sites_out() {
    let service = start(POLICY).await;
    let mut answers = Vec::new();
    for path in paths() {
        let answer = get(&service, &path).await;
        assert_eq!(answer.code, 200, "{path}");
        let expected = match path.rsplit_once('.').map(|(_, extension)| extension) {
            Some("css") => "text/css; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ if path.contains("/api/") => "application/json",
            _ => "text/html; charset=utf-8",
        };
        assert_eq!(answer.header("content-type"), expected, "{path}");
        answers.push((path.clone(), answer));
        let head = ask(service.admin, "HEAD", &path, &[]).await;
        assert_eq!((head.code, &*head.body), (200, ""), "{path}");
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
            let refused = ask(service.admin, method, &path, &["Content-Length: 0"]).await;
            assert_eq!((refused.code, refused.header("allow")), (405, "GET, HEAD"), "{method} {path}");
            answers.push((path.clone(), refused));
        }
    }
    for (path, code) in [
        ("/console/", 308),
        ("/console/nothing", 404),
        ("/console/api", 404),
        ("/console/page/../main.js", 404),
        ("/console/api/live/", 404),
    ] {
        let answer = get(&service, path).await;
        assert_eq!(answer.code, code, "{path}");
        answers.push((path.to_owned(), answer));
    }
    assert_eq!(
        answers.iter().find(|(path, _)| path == "/console/").unwrap().1.header("location"),
        "../console"
    );
    assert_eq!(get(&service, "/consoles").await.code, 404);
    for (path, answer) in answers {
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
            ("cache-control", "no-store"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cross-origin-embedder-policy", "require-corp"),
        ] {
            assert_eq!(answer.header(name), value, "{path}");
        }
        let policy = answer.header("content-security-policy");
        let directives: Vec<&str> = policy.split("; ").collect();
        for directive in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(directives.contains(&directive), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{path}: {policy}");
        assert!(answer.headers.iter().all(|(name, _)| !name.starts_with("access-control-")), "{path}");
        assert!(answer.headers.iter().all(|(name, _)| name != "set-cookie"), "{path}");
    }
    service.stop().await;
}

#[tokio::test]
async fn names_that_may_lead_anywhere_and_other_sites_are_refused() {
    let service = start(POLICY).await;
    let ports = [
        format!("Host: 127.0.0.1:{}", service.admin.port()),
        "Host: [::1]:1".to_owned(),
        "Host: localhost:80".to_owned(),
    ];
    for host in &ports {
        assert_eq!(ask(service.admin, "GET", "/console/api/status", &[host]).await.code, 200, "{host}");
    }
    for path in
        ["/console", "/console/main.js", "/console/api/live", "/console/api/status", "/console/nothing"]
    {
        for (headers, code) in [
            (&["Host: rebound.example"][..], 421),
            (&["Host: localhost.rebound.example:50552"], 421),
            (&["Host: localhost", "Host: localhost"], 400),
            (&["Origin: http://other.example"], 403),
            (&["Origin: null"], 403),
            (&["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: script"], 403),
            (&["Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"], 403),
        ] {
            let answer = ask(service.admin, "GET", path, headers).await;
            assert_eq!(answer.code, code, "{path} {headers:?}");
            assert!(!answer.body.contains("example"), "{}", answer.body);
        }
    }
    assert_eq!(raw(service.admin, b"GET /console HTTP/1.0\r\n\r\n").await.code, 400);
    // What probes and scrapers ask for is not concerned.
    assert_eq!(ask(service.admin, "GET", "/livez", &["Host: scopeward.default.svc"]).await.code, 200);
    service.stop().await;
}

#[tokio::test]
async fn what_serves_is_shown_and_each_change_has_another_token() {
    let service = start(POLICY).await;
    let live = get(&service, "/console/api/live").await.json();
    assert_eq!(live["version"], env!("CARGO_PKG_VERSION"));
    let first = get(&service, "/console/api/status").await.json();
    assert_eq!(first["token"], live["status"]);
    assert_eq!(get(&service, "/console/api/live").await.json()["status"], live["status"], "nothing changed");
    // The same words as everywhere else.
    let (_, page) = service.get("/status.json").await;
    let page: Value = serde_json::from_str(&page).unwrap();
    for member in
        ["active", "loadTime", "source", "audienceCount", "lastAttempt", "conditions", "audienceStatusCount"]
    {
        assert_eq!(first["status"][member], page[member], "{member}");
    }
    assert_eq!(first["status"]["audienceStatuses"], serde_json::json!([]), "none is in trouble");

    service.write("mcp.yaml", &POLICY.replace("[offline_access]", "[profile]"));
    service.status_when("the edit is rejected", has("BaselineScopeNotSupported")).await;
    let second = get(&service, "/console/api/status").await.json();
    assert_ne!(second["token"], first["token"]);
    assert_eq!(get(&service, "/console/api/live").await.json()["status"], second["token"]);
    assert_eq!(second["status"]["active"], first["status"]["active"], "the last good one serves");
    let finding = &second["status"]["lastAttempt"]["findings"][0];
    assert_eq!((&finding["code"], &finding["line"]), (&"BaselineScopeNotSupported".into(), &4.into()));
    assert_eq!(second["status"]["audienceStatuses"][0]["audience"], "https://mcp.example.com");
    service.stop().await;
}

/// Whether the first finding of the newest attempt has this code; a file that is being written has another one.
fn has(code: &'static str) -> impl Fn(&v1::PolicyStatus) -> bool {
    move |status| {
        let attempt = status.last_attempt.as_ref();
        attempt.and_then(|attempt| attempt.findings.first()).is_some_and(|finding| finding.code == code)
    }
}

#[tokio::test]
async fn decisions_are_counted_by_outcome() {
    let service = start(POLICY).await;
    service.scopes().expand_registration_scopes(registration(Some("openid"))).await.unwrap();
    for _ in 0..2 {
        service.scopes().check_authorize_scopes(authorize(Some("payments"), Some("openid"))).await.unwrap();
    }
    let live = get(&service, "/console/api/live").await.json();
    let expected = serde_json::json!([
        {"method": "ExpandRegistrationScopes", "decision": "ALLOW", "reason": "", "count": 1},
        {"method": "CheckAuthorizeScopes", "decision": "DENY", "reason": "UNSUPPORTED", "count": 2},
    ]);
    assert_eq!(live["decisions"], expected);
    service.stop().await;
}

#[tokio::test]
async fn a_status_of_many_findings_stays_small() {
    let service = start(POLICY).await;
    let mut policy = "audiences:\n".to_owned();
    for number in 0..1500 {
        policy.push_str(&format!(
            "  a{number}: {{scopesSupported: [x], baselineClientScopes: [\"b {number}\"]}}\n"
        ));
    }
    service.write("mcp.yaml", &policy);
    service.status_when("the edit is rejected", has("ScopeMalformed")).await;
    let answer = get(&service, "/console/api/status").await;
    assert!(answer.body.len() < 300_000, "{}", answer.body.len());
    let attempt = answer.json()["status"]["lastAttempt"].take();
    assert_eq!(attempt["findings"].as_array().unwrap().len(), 200);
    assert!(attempt["findingCount"].as_u64().unwrap() >= 1500, "{}", attempt["findingCount"]);
    service.stop().await;
}

/// Sends a question.
async fn post(admin: SocketAddr, path: &str, body: &str) -> Answer {
    let head = "Host: localhost\r\nOrigin: http://localhost\r\nSec-Fetch-Site: same-origin\r\nContent-Type: application/json";
    let length = body.len();
    raw(admin, format!("POST {path} HTTP/1.1\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes())
        .await
}

/// Names of a page of audiences.
async fn names(service: &Service, query: &str) -> (Value, Vec<String>) {
    let page = get(service, &format!("/console/api/audiences?{query}")).await.json();
    let rows = page["audiences"].as_array().unwrap();
    let names = rows.iter().map(|row| row["audience"].as_str().unwrap().to_owned()).collect();
    (page, names)
}

#[tokio::test]
async fn audiences_are_searched_and_paged() {
    let mut policy = "audiences:\n".to_owned();
    for number in 100..160 {
        policy.push_str(&format!(
            "  https://n{number}.example.com: {{scopesSupported: [openid, s{number}]}}\n"
        ));
    }
    policy.push_str(
        "  other: {scopesSupported: ['<b>'], description: \"Shop \\u202E <script>\", aliases: [urn:n150]}\n",
    );
    let service = start(&policy).await;
    let (page, first) = names(&service, "").await;
    assert_eq!((&page["total"], &page["matches"], &page["from"]), (&61.into(), &61.into(), &0.into()));
    assert_eq!((first.len(), &*first[0]), (25, "https://n100.example.com"));
    // Each page follows the one before, and what is beyond the end is the last one.
    let mut all = Vec::new();
    for from in [0, 25, 50] {
        all.extend(names(&service, &format!("from={from}&limit=25")).await.1);
    }
    let listed = all.len();
    all.dedup();
    assert_eq!((listed, all.len()), (61, 61));
    let (page, last) = names(&service, "from=99999999&limit=25").await;
    assert_eq!((&page["from"], last.len()), (&50.into(), 11));
    for (query, expected) in [
        ("q=n15", 11),
        ("q=N150.EXAMPLE", 1),
        ("q=urn:n150", 1),
        ("q=shop", 1),
        ("q=n1+example&limit=1000", 60),
        ("q=scope%3As15", 10),
        ("q=scope:s150+n150", 1),
        ("q=%3Cb%3E", 0),
        ("q=scope%3A%3Cb%3E", 1),
        ("q=%00%FF%ZZ%", 0),
        ("limit=0", 61),
        ("limit=-1&from=x", 61),
        ("q=%20%09", 61),
    ] {
        let (page, rows) = names(&service, query).await;
        assert_eq!(page["matches"], expected, "{query}");
        assert!(rows.len() <= 100, "{query}");
    }
    let long = "zq+".repeat(2500);
    assert_eq!(names(&service, &format!("q={long}")).await.0["matches"], 0);
    // What does not print is spelled out on the way.
    let answer = get(&service, "/console/api/audiences?q=shop").await;
    assert!(answer.body.contains("\\u202e") && answer.body.is_ascii(), "{}", answer.body);
    service.stop().await;
}

#[tokio::test]
async fn one_audience_is_shown_with_defaults_and_places() {
    let policy = "\
guardrails: {forbiddenScopes: [root]}
audiences:
  https://mcp.example.com:
    scopesSupported: [openid, read, admin]
    privilegedScopes: [admin]
    aliases: [urn:mcp]
    authorization: {omittedScope: reject}
    clientRules:
    - name: native
      when: {redirectUri: loopback, grantTypes: [refresh_token]}
      baselineClientScopes: [read]
";
    let service = start(policy).await;
    let facts = get(&service, "/console/api/audience?name=urn%3Amcp").await.json();
    assert_eq!(facts["audience"], "https://mcp.example.com");
    assert!(facts["place"].as_str().unwrap().ends_with("mcp.yaml:3:3"), "{facts}");
    let key =
        |name: &str| facts["keys"].as_array().unwrap().iter().find(|key| key["key"] == name).unwrap().clone();
    assert_eq!(key("forbiddenScopes")["entries"], serde_json::json!(["root"]));
    assert_eq!(key("defaultClientScopes")["entries"], serde_json::json!(["openid"]));
    let omitted = key("authorization.omittedScope");
    assert_eq!(omitted["value"], "reject");
    assert!(omitted["place"].as_str().unwrap().ends_with("mcp.yaml:7:35"), "{omitted}");
    assert_eq!(key("scopeMatching")["place"], "");
    let rule = &facts["rules"][0];
    assert_eq!(rule["when"], serde_json::json!(["redirectUri: loopback", "grantTypes: [refresh_token]"]));
    assert!(rule["place"].as_str().unwrap().ends_with("mcp.yaml:9:13"), "{rule}");
    for unknown in ["", "name=", "name=nothing", "name=%00", "name=https://mcp.example.com/%23x"] {
        assert_eq!(get(&service, &format!("/console/api/audience?{unknown}")).await.code, 404, "{unknown}");
    }
    service.stop().await;
}

#[tokio::test]
async fn pages_about_findings_are_those_of_the_reference() {
    let service = start(POLICY).await;
    let help = get(&service, "/console/api/help?code=UnknownKey").await.json();
    assert_eq!(help["text"], include_str!("../../docs/reference/findings/UnknownKey.md"));
    for unknown in ["", "code=", "code=Nothing", "code=../../Cargo.toml"] {
        assert_eq!(get(&service, &format!("/console/api/help?{unknown}")).await.code, 404, "{unknown}");
    }
    service.stop().await;
}

#[tokio::test]
async fn grounds_have_places_after_an_edit_and_after_a_start_from_the_last_good_policy() {
    let service = start(POLICY).await;
    let place = |service: &Service| {
        let admin = service.admin;
        async move {
            let question = r#"{"audiences":["https://mcp.example.com"],"scope":"openid"}"#;
            let answer = post(admin, "/console/api/expand", question).await.json();
            let at = answer["text"]["audiences"][0]["scopes"][1]["grounds"][2]["place"].clone();
            at.as_str().unwrap().rsplit('/').next().unwrap().to_owned()
        }
    };
    assert_eq!(place(&service).await, "mcp.yaml:4:28");
    // Means the same, and is written elsewhere.
    service.write("mcp.yaml", &format!("# moved\n{POLICY}"));
    within("the places are those of the new file", async {
        while place(&service).await != "mcp.yaml:5:28" {}
    })
    .await;
    // What is rejected changes nothing.
    service.write("mcp.yaml", "\naudiences: {}\n");
    service
        .status_when("the edit is rejected", |status| !status.last_attempt.as_ref().unwrap().accepted)
        .await;
    assert_eq!(place(&service).await, "mcp.yaml:5:28");
    let folder = service.stop().await;
    let settings = ServerSettings { console: true, start_from_last_good: true, ..settings(folder.path()) };
    let service = Service::start_in(folder, settings).await.unwrap();
    // The copy on disk is of the last set that was accepted as another one.
    assert_eq!(place(&service).await, "mcp.yaml:4:28");
    service.stop().await;
}

/// A reader of a whole policy would show here. `CONSOLE_AUDIENCES` is their number, 10,000 if it is not set.
#[tokio::test]
async fn very_many_audiences_are_searched_in_small_answers() {
    let count = std::env::var("CONSOLE_AUDIENCES").map_or(10_000, |count| count.parse().unwrap());
    let mut policy = "audiences:\n".to_owned();
    for number in 0..count {
        policy.push_str(&format!("  https://n{number}.example.com: {{scopesSupported: [openid, s]}}\n"));
    }
    let service = start(&policy).await;
    for (query, matches) in [
        ("", count),
        ("q=n9999", 1 + count / 100_000 * 10),
        ("q=n", count),
        ("q=nothing", 0),
        ("q=scope:s", count),
    ] {
        let (page, rows) = names(&service, query).await;
        assert_eq!(page["matches"], matches, "{query}");
        assert!(rows.len() <= 25);
        let answer = get(&service, &format!("/console/api/audiences?{query}")).await;
        assert!(answer.body.len() < 4096, "{query}: {}", answer.body.len());
    }
    let (page, rows) = names(&service, &format!("from={}&limit=100", count - 10)).await;
    assert_eq!((&page["from"], rows.len()), (&(count - 100).into(), 100), "{page}");
    // What is asked for all the time does not grow with the policy.
    for path in ["/console/api/live", "/console/api/status"] {
        assert!(get(&service, path).await.body.len() < 8192, "{path}");
    }
    // An unknown name is compared with few audiences, so it is not said which one was meant.
    let answer = post(service.admin, "/console/api/expand", r#"{"audiences":["https://n1x.example.com"]}"#)
        .await
        .json();
    assert_eq!(answer["text"]["gist"], "AUDIENCE_UNKNOWN");
    assert_eq!(answer["text"]["notes"], serde_json::json!([]));
    service.stop().await;
}
