//! Questions in the console: answered as over gRPC and explained as by `explain`, and nothing comes of them.

use super::*;

/// Questions of every kind, drawn from few words so that they mean something.
fn drawn(count: u32) -> Vec<(&'static str, Value)> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |most: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % most as u64) as usize
    };
    const SCOPES: [&str; 9] = [
        "openid",
        "offline_access",
        "mcp:read",
        "mcp:write",
        "admin",
        "root",
        "pay.ments",
        "b\u{e4}d",
        "mcp:read",
    ];
    const AUDIENCES: [&str; 5] =
        ["https://mcp.example.com", "HTTPS://MCP.example.com:443/", "second", "secnd", "https://x#y"];
    let scopes = |next: &mut dyn FnMut(usize) -> usize| -> Option<String> {
        let count = next(5);
        (count < 4).then(|| (0..count).map(|_| SCOPES[next(SCOPES.len())]).collect::<Vec<_>>().join(" "))
    };
    let mut questions = Vec::new();
    for _ in 0..count {
        let kind = ["expand", "authorize", "token"][next(3)];
        let audiences: Vec<&str> = (0..next(3)).map(|_| AUDIENCES[next(AUDIENCES.len())]).collect();
        let mut question = serde_json::json!({
            "audiences": audiences,
            "client": {
                "clientId": "c", "clientName": (["Claude", "<b>\u{202e}"][next(2)]),
                "source": (["CLIENT_SOURCE_DCR", "CLIENT_SOURCE_CIMD", "CLIENT_SOURCE_UNSPECIFIED"][next(3)]),
            },
        });
        let held = match kind {
            "expand" => &["previousScope"][..],
            "authorize" => &["registeredScope"],
            _ => &["registeredScope", "grantedScope"],
        };
        for member in ["scope"].iter().chain(held) {
            if let Some(scope) = scopes(&mut next) {
                question[member] = scope.into();
            }
        }
        if kind == "token" {
            // Of those that need a granted scope only where there is one.
            let grants = ["CLIENT_CREDENTIALS", "JWT_BEARER", "REFRESH", "TOKEN_EXCHANGE"];
            let grant = grants[next(if question["grantedScope"].is_null() { 2 } else { 4 })];
            question["grant"] = format!("TOKEN_GRANT_{grant}").into();
        }
        questions.push((kind, question));
    }
    questions
}

/// What the console shows, as `explain` prints it.
fn as_printed(answer: &Value) -> String {
    let text = &answer["text"];
    let (list, str) = (
        |value: &Value| value.as_array().unwrap().clone(),
        |value: &Value| value.as_str().unwrap().to_owned(),
    );
    let in_brackets = |place: &Value| if place == "" { String::new() } else { format!("({})", str(place)) };
    let mut lines = vec![format!("{} {}", str(&text["decision"]["text"]), str(&text["gist"]))];
    lines.extend(list(&text["notes"]).iter().map(str));
    for audience in list(&text["audiences"]) {
        lines.push(format!("\n{} {}", str(&audience["audience"]), in_brackets(&audience["place"])));
        for scope in list(&audience["scopes"]) {
            lines.push(format!("  {}: {}", str(&scope["scope"]), str(&scope["outcome"]["text"])));
            for ground in list(&scope["grounds"]) {
                let place = if ground["place"] == "" {
                    String::new()
                } else {
                    format!(", {}", str(&ground["place"]))
                };
                lines.push(format!("    {}{place}", str(&ground["text"])));
            }
        }
        for rule in list(&audience["rules"]) {
            let outcome = str(&rule["outcome"]["text"]);
            lines.push(format!(
                "  client rule `{}` {}: {outcome}",
                str(&rule["name"]),
                in_brackets(&rule["place"])
            ));
        }
        for setting in list(&audience["settings"]) {
            lines.push(format!(
                "  {}: {} {}",
                str(&setting["key"]),
                str(&setting["value"]),
                in_brackets(&setting["place"])
            ));
        }
    }
    if text["refused"] != serde_json::json!([]) {
        lines.push("\nrefused".to_owned());
        lines.extend(
            list(&text["refused"])
                .iter()
                .map(|one| format!("  {}: {}", str(&one["reason"]), str(&one["message"]))),
        );
    }
    lines.push("\nthe client gets".to_owned());
    lines.extend(list(&text["clientGets"]).iter().map(|line| format!("  {}", str(line))));
    lines.push(format!("\npolicy\n  {}", str(&answer["answer"]["policy"]["digest"])));
    lines.push(format!("\nask a server\n  {}\n", str(&answer["command"])));
    lines.join("\n")
}

/// The same question on the command line.
fn explained(folder: &std::path::Path, kind: &str, question: &Value) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_scopeward"));
    command.args(["explain", kind, "--policies"]).arg(folder).env("NO_COLOR", "1");
    for audience in question["audiences"].as_array().unwrap() {
        command.args(["--audience", audience.as_str().unwrap()]);
    }
    for (member, flag) in [
        ("scope", "--scope"),
        ("previousScope", "--previous-scope"),
        ("registeredScope", "--registered-scope"),
        ("grantedScope", "--granted-scope"),
    ] {
        if let Some(value) = question[member].as_str() {
            command.args([flag, value]);
        }
    }
    if let Some(grant) = question["grant"].as_str() {
        let grant = grant.trim_start_matches("TOKEN_GRANT_").to_lowercase().replace('_', "-");
        command.args(["--grant", &grant]);
    }
    let client = &question["client"];
    command.args([
        "--client-id",
        client["clientId"].as_str().unwrap(),
        "--client-name",
        client["clientName"].as_str().unwrap(),
    ]);
    match client["source"].as_str().unwrap() {
        "CLIENT_SOURCE_DCR" => _ = command.args(["--source", "dcr"]),
        "CLIENT_SOURCE_CIMD" => _ = command.args(["--source", "cimd"]),
        _ => {}
    }
    let output = command.output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Everything that an explanation speaks of.
const RICH: &str = "\
guardrails: {forbiddenScopes: [root], privilegedScopes: [admin]}
audiences:
  https://mcp.example.com:
    scopesSupported: [openid, offline_access, 'mcp:read', 'mcp:write', admin]
    baselineClientScopes: [offline_access]
    authorization: {stepUpScopes: ['mcp:write'], unregisteredScopes: drop, nothingLeft: default, alwaysGrantScopes: [offline_access]}
    clientRules:
    - {name: claude, when: {clientName: Claude*}, baselineClientScopes: ['mcp:read']}
  second:
    scopesSupported: [openid, pay]
    scopeMatching: hierarchic
    registration: {unsupportedScopes: drop}
    authorization: {unsupportedScopes: drop, baselineForExistingClients: false, unknownRegistration: {dcr: none, cimd: supported}}
";

#[tokio::test]
async fn console_grpc_and_explain_give_the_same_answer() {
    use scopeward::proto::json;
    let service = start(RICH).await;
    let (mut allowed, mut denied) = (0, 0);
    for (at, (kind, question)) in drawn(300).into_iter().enumerate() {
        let path = format!("/console/api/{kind}");
        let answer = post(service.admin, &path, &question.to_string()).await.json();
        let (mut scopes, decision_id) = (service.scopes(), String::new());
        let grpc = match kind {
            "expand" => {
                let request: v1::ExpandRegistrationScopesRequest =
                    json::from_value(question.clone()).unwrap();
                let answer = scopes.expand_registration_scopes(request).await.unwrap().into_inner();
                json::to_string(&v1::ExpandRegistrationScopesResponse { decision_id, ..answer })
            }
            "authorize" => {
                let request: v1::CheckAuthorizeScopesRequest = json::from_value(question.clone()).unwrap();
                let answer = scopes.check_authorize_scopes(request).await.unwrap().into_inner();
                json::to_string(&v1::CheckAuthorizeScopesResponse { decision_id, ..answer })
            }
            _ => {
                let request: v1::CheckTokenScopesRequest = json::from_value(question.clone()).unwrap();
                let answer = scopes.check_token_scopes(request).await.unwrap().into_inner();
                json::to_string(&v1::CheckTokenScopesResponse { decision_id, ..answer })
            }
        }
        .unwrap();
        assert_eq!(answer["answer"], serde_json::from_str::<Value>(&grpc).unwrap(), "{question}");
        if answer["answer"]["decision"] == "DECISION_ALLOW" {
            allowed += 1
        } else {
            denied += 1
        }
        // A process each is slow.
        if at % 10 == 0 {
            let printed = explained(&service.policies(), kind, &question);
            assert_eq!(as_printed(&answer), printed, "{question}");
        }
    }
    assert!(allowed > 30 && denied > 30, "{allowed} allowed, {denied} denied");
    service.stop().await;
}

#[tokio::test]
async fn what_the_console_is_asked_is_neither_recorded_nor_counted() {
    let service = start(POLICY).await;
    // The policy is recorded a moment after it serves.
    while service.metric("scopeward_audit_appended_total ").await != Some(1.0) {
        tokio::task::yield_now().await;
    }
    let question = r#"{"audiences":["https://mcp.example.com"],"scope":"openid"}"#;
    let answer = post(service.admin, "/console/api/expand", question).await.json();
    assert_eq!(answer["answer"]["scope"], "openid offline_access", "an expansion");
    let denied = question.replace("openid", "payments");
    post(service.admin, "/console/api/authorize", &denied).await.json();
    assert_eq!(get(&service, "/console/api/live").await.json()["decisions"], serde_json::json!([]));
    assert_eq!(service.metric("scopeward_audit_appended_total ").await, Some(1.0));
    assert_eq!(
        service.metric("scopeward_unknown_registrations_total{source=\"unspecified\"} ").await,
        Some(0.0)
    );
    service.stop().await;
}

#[tokio::test]
async fn odd_questions_are_refused() {
    let service = start(RICH).await;
    let many: Vec<String> = (0..9000).map(|number| format!("s{number}")).collect();
    let audiences = vec!["second"; 16];
    let large =
        serde_json::json!({"audiences": audiences, "scope": "a b c d", "registeredScope": many.join(" ")})
            .to_string();
    assert!(large.len() < 64 * 1024);
    for (body, code) in [
        ("", 400),
        ("{", 400),
        ("[]", 400),
        ("null", 400),
        (r#"{"audiences": 7}"#, 400),
        (r#"{"scope": ["a"]}"#, 400),
        (r#"{"correlationId": "\u0000"}"#, 400),
        (&format!(r#"{{"audiences": ["{}"]}}"#, "a".repeat(3000)), 400),
        (&serde_json::json!({"audiences": vec!["second"; 17]}).to_string(), 400),
        (&format!(r#"{{"scope": "{}"}}"#, "a".repeat(64 * 1024)), 413),
        (&"[".repeat(10_000), 400),
        (&large, 413),
    ] {
        let answer = post(service.admin, "/console/api/authorize", body).await;
        assert_eq!(answer.code, code, "{body:.80}: {}", answer.body);
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        assert!(answer.body.len() < 400, "{}", answer.body);
    }
    for content_type in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
    {
        let request = format!(
            "POST /console/api/expand HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        assert_eq!(raw(service.admin, request.as_bytes()).await.code, 415, "{content_type}");
    }
    let request = "POST /console/api/expand HTTP/1.1\r\nHost: localhost\r\nOrigin: http://other.example\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(raw(service.admin, request.as_bytes()).await.code, 403);
    let refused = get(&service, "/console/api/expand").await;
    assert_eq!((refused.code, refused.header("allow")), (405, "POST"));
    // Text of others comes back as text.
    let hostile = r#"{"audiences":["</script><b>\u202e"],"scope":"<img src=x>"}"#;
    let answer = post(service.admin, "/console/api/authorize", hostile).await;
    assert_eq!(answer.json()["text"]["gist"], "AUDIENCE_UNKNOWN");
    assert!(answer.body.is_ascii(), "{}", answer.body);
    service.stop().await;
}

#[tokio::test]
async fn questions_that_do_not_come_take_their_places_and_no_others() {
    let service = start(POLICY).await;
    let head = b"POST /console/api/expand HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{";
    let mut slow = Vec::new();
    // Each holds a place from its head on, at most eight.
    let refused = loop {
        let mut stream = TcpStream::connect(service.admin).await.unwrap();
        stream.write_all(head).await.unwrap();
        slow.push(stream);
        let answer = post(service.admin, "/console/api/expand", "{}").await;
        if answer.code == 503 {
            break answer;
        }
        assert!(slow.len() < 500, "questions are taken without end");
    };
    assert_eq!(refused.header("retry-after"), "1");
    for path in ["/livez", "/readyz", "/console/api/live", "/console/api/audiences", "/metrics"] {
        assert_eq!(get(&service, path).await.code, 200, "{path}");
    }
    // One that does not come in time is told so, and its place is free again.
    let mut text = String::new();
    within("a slow question ends", slow.remove(0).read_to_string(&mut text)).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    drop(slow);
    within("places are free again", async {
        while post(service.admin, "/console/api/expand", "{}").await.code != 200 {}
    })
    .await;
    service.stop().await;
}
