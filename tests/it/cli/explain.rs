//! `explain`: what it names as the ground of an answer.

use super::*;

fn explain(rest: &str, args: &[&str]) -> Ran {
    explain_question(rest, "authorize", args)
}

fn explain_question(rest: &str, question: &str, args: &[&str]) -> Ran {
    let text = format!(
        "audiences:\n  {MCP}:\n    scopesSupported: [openid, \"mcp:read\", \"mcp:write\"]\n    baselineClientScopes: [\"mcp:read\"]\n{rest}"
    );
    let place = Place::with(&[("policies/mcp.yaml", &text)]);
    place.run(&[&["explain", question], args].concat())
}

/// The lines of an answer, without blank ones around them.
#[track_caller]
fn check(rest: &str, args: &[&str], expected: &[&str]) {
    let ran = explain(rest, args);
    for line in expected {
        assert!(ran.stdout.lines().any(|said| said.trim() == *line), "no line `{line}` in\n{}", ran.shown());
    }
}

#[test]
fn what_stands_in_where_nothing_is_left_has_its_setting() {
    let rest = "    authorization:\n      unsupportedScopes: drop\n      nothingLeft: default\n";
    let setting = "`registered` in authorization.omittedScope, the default";
    check(
        rest,
        &["--registered-scope", "openid", "--scope", "email"],
        &[
            "ALLOW openid mcp:read",
            "nothing is left of what was asked, so it is decided as if the scope had been omitted (nothingLeft)",
            &format!("stands in for the scope: {setting}"),
            "authorization.nothingLeft: default (policies/mcp.yaml:7:20)",
            "authorization.omittedScope: registered (default)",
        ],
    );
    let rest = format!("{rest}      omittedScope: default\n");
    check(
        &rest,
        &["--registered-scope", "openid", "--scope", "email"],
        &[
            "ALLOW openid",
            "stands in for the scope: `default` in authorization.omittedScope, policies/mcp.yaml:8:21",
            "authorization.omittedScope: default (policies/mcp.yaml:8:21)",
        ],
    );
    // Where something is left, it has no part in the answer.
    let ran = explain(&rest, &["--registered-scope", "openid", "--scope", "email openid"]);
    assert!(ran.code == 0 && !ran.stdout.contains("omitted"), "{}", ran.shown());
    let ran = explain("", &["--registered-scope", "openid"]);
    assert!(ran.stdout.contains(&format!("stands in for the scope: {setting}")), "{}", ran.shown());
    assert!(!ran.stdout.contains("nothing is left"), "{}", ran.shown());
}

#[test]
fn what_is_not_held_has_the_setting_that_says_so() {
    let place = "policies/mcp.yaml:6:28";
    let rest = "    authorization:\n      unknownRegistration: {dcr: none, cimd: supported}\n";
    check(
        rest,
        &["--source", "dcr", "--scope", "mcp:read"],
        &[
            &format!(
                "not held: what the client registered is unknown, which counts as nothing: `none` in authorization.unknownRegistration, {place}"
            ),
            &format!(
                "UNREGISTERED: mcp:read is supported at {MCP}, but what this client registered is unknown"
            ),
            "error_description=scope not known to be registered for this client: mcp:read",
        ],
    );
    check(
        rest,
        &["--source", "static", "--scope", "mcp:write"],
        &[&format!(
            "not held: what the client registered is unknown, which counts as a registration without scope, and nothing in the policy gives it: `omitted` in authorization.unknownRegistration, {place}"
        )],
    );
    check("", &["--scope", "mcp:read"], &["ALLOW mcp:read"]);
    check(
        rest,
        &["--registered-scope", "openid", "--scope", "mcp:write"],
        &[
            "not held: not registered, and nothing in the policy gives it",
            &format!("UNREGISTERED: mcp:write is supported at {MCP}, but this client has not registered it"),
        ],
    );
    let rest = "    authorization:\n      baselineForExistingClients: false\n";
    check(
        rest,
        &["--registered-scope", "openid", "--scope", "mcp:read"],
        &[
            "not held: not registered, and the baseline does not cover clients that registered before: `false` in authorization.baselineForExistingClients, policies/mcp.yaml:6:35",
        ],
    );
    let ran = explain(rest, &["--registered-scope", "openid", "--scope", "mcp:read", "--output", "json"]);
    let fact = &ran.json()["trail"][0];
    assert_eq!(fact["notHeld"]["because"], "BASELINE_NOT_FOR_EXISTING_CLIENTS", "{}", ran.stdout);
    assert_eq!((&fact["notHeld"]["line"], &fact["standsIn"]), (&6.into(), &Value::Null));
}

#[test]
fn what_a_token_gets_has_its_grounds() {
    let rest = "    privilegedScopes: [\"mcp:write\"]\n    token:\n      exceedingScopes: drop\n";
    #[track_caller]
    fn check(rest: &str, args: &[&str], expected: &[&str]) {
        let ran = explain_question(rest, "token", args);
        for line in expected {
            assert!(
                ran.stdout.lines().any(|said| said.trim() == *line),
                "no line `{line}` in\n{}",
                ran.shown()
            );
        }
        assert!(!ran.stdout.contains("added"), "{}", ran.shown());
    }
    check(
        rest,
        &["--grant", "refresh", "--granted-scope", "openid email", "--scope", "openid email mcp:read"],
        &[
            "ALLOW openid",
            "in the grant: `openid`",
            "email: refused, UNSUPPORTED",
            &format!("UNSUPPORTED: email is not supported at {MCP} now, though the grant has it"),
            "mcp:read: refused, EXCEEDS_GRANT",
            "not in the grant",
            &format!("EXCEEDS_GRANT: mcp:read is not granted at {MCP}: the grant does not cover it"),
            "token.unsupportedScopes: drop (default)",
            "token.exceedingScopes: drop (policies/mcp.yaml:7:24)",
            "scope=openid (RFC 6749 section 3.3)",
        ],
    );
    // What was granted is not withheld for having to be asked for.
    check(
        rest,
        &["--grant", "token-exchange", "--granted-scope", "mcp:write"],
        &[
            "ALLOW mcp:write",
            "mcp:write: granted",
            "not asked for",
            "privileged, and granted before: `mcp:write` in privilegedScopes, policies/mcp.yaml:5:24",
        ],
    );
    let own = ["--grant", "client-credentials", "--source", "dcr"];
    check(
        rest,
        &[&own[..], &["--registered-scope", "openid mcp:write"]].concat(),
        &[
            "ALLOW openid mcp:read",
            "mcp:write: not given, PRIVILEGED",
            "authorization.baselineForExistingClients: true (default)",
        ],
    );
    check(
        rest,
        &[&own[..], &["--scope", "openid"]].concat(),
        &[
            "DENY NOTHING_GRANTED",
            "not held: what the client registered is unknown, which for a token counts as no more than the baseline: `omitted` in authorization.unknownRegistration, the default",
            "error_description=scope not held by this client: openid",
        ],
    );
    let ran = explain_question(
        rest,
        "token",
        &["--grant", "refresh", "--granted-scope", "", "--scope", "openid", "--output", "json"],
    );
    let fact = &ran.json()["trail"][0];
    assert_eq!((ran.code, &fact["notHeld"]["because"]), (3, &"NOT_IN_GRANT".into()), "{}", ran.stdout);
    assert!(ran.json()["grpcurl"].as_str().unwrap().ends_with("ScopePolicyService/CheckTokenScopes"));
}

#[test]
fn explain_says_why_a_scope_was_added() {
    let place = Place::with_examples();
    let ran = place.run(&[
        "explain",
        "expand",
        "--audience",
        MCP,
        "--scope",
        "openid",
        "--redirect-uri",
        "http://127.0.0.1:33418/callback",
        "--grant-type",
        "authorization_code",
        "--grant-type",
        "refresh_token",
        "--client-name",
        "it's \u{e9}",
    ]);
    assert_snapshot!(ran.shown());
}

#[test]
fn explain_says_why_a_request_is_denied() {
    let ran = Place::with_examples().run(&[
        "explain",
        "authorize",
        "--audience",
        MCP,
        "--registered-scope",
        "openid",
        "--scope",
        "openid mcp:write mcp:read root imperson\u{7}ate superuser",
    ]);
    assert_snapshot!(ran.shown());
}

#[test]
fn explain_knows_a_default_that_was_filled_in() {
    let policy = "audiences: {a: {scopesSupported: [openid, x], forbiddenScopes: [x]}}\n";
    let place = Place::with(&[("policies/a.yaml", policy)]);
    assert_snapshot!(place.run(&["explain", "expand"]).shown());
}

#[test]
fn explain_tells_no_scope_from_an_empty_one() {
    let place = Place::with_examples();
    let grpcurl = |args: &[&str]| place.run(args).json()["grpcurl"].as_str().unwrap().to_owned();
    let base = ["explain", "authorize", "--audience", MCP, "--output", "json"];
    assert!(!grpcurl(&base).contains("\"registeredScope\""));
    let empty = grpcurl(&[&base[..], &["--registered-scope", "", "--scope", ""]].concat());
    assert!(empty.contains("\"registeredScope\":\"\"") && empty.contains("\"scope\":\"\""), "{empty}");
    // Unknown holds the defaults and the baseline, registered with nothing only the baseline.
    let scope = |args: &[&str]| place.run(args).json()["scope"].as_str().unwrap().to_owned();
    assert_eq!(scope(&base), "openid mcp:read offline_access");
    assert_eq!(scope(&[&base[..], &["--registered-scope", ""]].concat()), "offline_access");
}

#[test]
fn explain_writes_the_message_and_its_trail_as_json() {
    let ran = Place::with_examples().run(&[
        "explain",
        "authorize",
        "--audience",
        MCP,
        "--registered-scope",
        "openid",
        "--scope",
        "openid admin",
        "--output",
        "json",
    ]);
    assert_eq!(ran.code, 3);
    let json = ran.json();
    assert_eq!(json["decision"], "DECISION_DENY");
    assert_eq!(json["oauthError"]["error"], "invalid_scope");
    assert_eq!(json["decisionId"], "");
    let facts = json["trail"].as_array().unwrap();
    assert_eq!(facts.len(), 2);
    assert_eq!(facts[0]["outcome"], "GRANTED");
    assert_eq!(facts[0]["supported"]["file"], "policies/mcp-server.yaml");
    assert_eq!(facts[0]["held"]["origin"], "REGISTERED");
    assert_eq!(facts[1]["reason"], "UNSUPPORTED");
    assert_eq!(facts[1]["privileged"]["file"], "policies/guardrails.yaml");
    assert_eq!(facts[1]["supported"], Value::Null);
}

#[test]
fn explain_refuses_what_a_server_would_refuse_to_answer() {
    let place = Place::with_examples();
    let at = "x ".repeat(256);
    assert_eq!(place.run(&["explain", "expand", "--scope", &at]).code, 3);
    let over = "x ".repeat(257);
    let ran = place.run(&["explain", "expand", "--scope", &over]);
    assert_eq!(ran.code, 3);
    assert!(ran.stdout.starts_with("DENY TOO_MANY_SCOPES\n"), "{}", ran.stdout);
    let ran = place.run(&[&["explain", "expand"][..], &["--audience", "a"].repeat(17)].concat());
    assert_eq!(ran.code, 2);
    assert_eq!(ran.stderr, "error: `audiences` has 17 audiences, the limit is 16\n");
    let ran = place.run(&["explain", "authorize", "--correlation-id", "-\t"]);
    let expected = "error: `correlation_id`: byte 0x09 at offset 1 is not printable ASCII\n";
    assert_eq!((ran.code, &*ran.stderr), (2, expected));
    let ran = place.run(&["explain", "token", "--grant", "refresh"]);
    let expected =
        "error: `granted_scope` is required: it says what the grant that is refreshed stands for\n";
    assert_eq!((ran.code, &*ran.stderr), (2, expected));
    // Clients send what they like.
    let ran = place.run(&["explain", "expand", "--scope", "-x"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stdout.contains("-x is not supported"), "{}", ran.stdout);
}

#[test]
fn explain_needs_a_valid_policy() {
    let place = Place::with(&[("policies/mcp.yaml", UNSUPPORTED_BASELINE)]);
    let ran = place.run(&["explain", "expand"]);
    assert_eq!((ran.code, &*ran.stdout), (2, ""));
    assert!(ran.stderr.contains("BaselineScopeNotSupported"), "{}", ran.stderr);
}
