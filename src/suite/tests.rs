use std::sync::Arc;
use std::time::SystemTime;

use super::*;
use crate::policy::check;
use crate::policy::document::Document;
use crate::report::junit::shape;

mod impossible;

const POLICY: &str = "
audiences:
  https://mcp.example.com:
    scopesSupported: [openid, profile, offline_access, 'mcp:read', 'mcp:write']
    baselineClientScopes: [offline_access]
    authorization: {stepUpScopes: ['mcp:write']}
    clientRules:
      - {name: native, when: {redirectUri: loopback}, baselineClientScopes: [profile]}
      - {name: cimd, when: {source: cimd}, baselineClientScopes: ['mcp:read']}
  https://quiet.example.com:
    scopesSupported: [openid]
";

fn policy() -> PolicySet {
    let file: Arc<str> = "policy.yaml".into();
    check::check(&file, &[Document::read(&file, POLICY)]).unwrap().set
}

fn read(text: &str) -> Suite {
    Suite::read(&"policies/mcp_test.yaml".into(), text)
}

/// The findings of a file, as `line:column Code value: message`.
fn findings(text: &str) -> Vec<String> {
    let found = read(text).check(&policy());
    for finding in &found {
        assert!(finding.is_error() && !finding.suggestion.is_empty(), "{finding:?}");
        assert_eq!(&*finding.file, "policies/mcp_test.yaml");
    }
    let brief = |finding: &Finding| {
        let Finding { code, position, value, message, .. } = finding;
        format!("{}:{} {} {value}: {message}", position.line, position.column, code.as_str())
    };
    found.iter().map(brief).collect()
}

#[track_caller]
fn sound(text: &str) -> Suite {
    assert_eq!(findings(text), [""; 0]);
    read(text)
}

/// One flow mapping as the only case of a file.
fn only(case: &str) -> String {
    format!("tests: [{{name: x, {case}}}]")
}

/// Runs a file without findings.
#[track_caller]
fn ran(text: &str) -> SuiteReport {
    run(&policy(), &[sound(text)], None)
}

#[track_caller]
fn passes(case: &str) {
    let report = ran(&only(case));
    assert_eq!((report.passed(), report.failed()), (1, 0), "{:#?}", report.results);
}

/// The differences as `key: expected / actual / missing / unexpected`.
#[track_caller]
fn fails(case: &str, expected: &[&str]) {
    let report = ran(&only(case));
    let brief = |difference: &run::Mismatch| {
        let run::Mismatch { key, expected, actual, missing, unexpected } = difference;
        format!("{key}: {expected} / {actual} / {} / {}", missing.join(", "), unexpected.join(", "))
    };
    let found: Vec<String> = report.results[0].differences.iter().map(brief).collect();
    assert_eq!(found, expected);
}

const MCP: &str = "audiences: [https://mcp.example.com]";

#[test]
fn answers_as_expected_pass() {
    passes(&format!(
        "register: {{{MCP}}}, expect: {{decision: ALLOW, scope: profile openid offline_access, \
         added: [{{scope: openid, origin: DEFAULT}}, profile, {{scope: offline_access, rule: ''}}], refused: []}}"
    ));
    passes(&format!(
        "register: {{{MCP}, scope: openid, client: {{redirectUris: ['http://localhost/cb']}}}}, \
         expect: {{added: [offline_access, {{scope: profile, origin: BASELINE, rule: native}}]}}"
    ));
    passes(&format!(
        "authorize: {{{MCP}, scope: openid admin, registeredScope: openid}}, \
         expect: {{decision: DENY, error: invalid_scope, reason: UNSUPPORTED, scope: '', added: [], \
         refused: [{{scope: admin, reason: UNSUPPORTED}}], effectiveRegisteredScope: '', audienceGrants: []}}"
    ));
    passes(&format!(
        "authorize: {{{MCP}, scope: openid mcp:write, registeredScope: openid}}, \
         expect: {{decision: ALLOW, added: [{{scope: mcp:write, origin: STEP_UP}}], effectiveRegisteredScope: openid mcp:write, \
         audienceGrants: [{{audience: 'HTTPS://MCP.example.com/', scope: mcp:write openid}}]}}"
    ));
    for source in ["cimd", "CIMD"] {
        passes(&format!(
            "authorize: {{{MCP}, scope: mcp:read, client: {{source: {source}}}}}, \
             expect: {{added: [{{scope: mcp:read, rule: cimd}}]}}"
        ));
    }
}

#[test]
fn tokens_are_asked_for_too() {
    passes(&format!(
        "token: {{{MCP}, grant: refresh, grantedScope: openid gone, scope: openid gone}}, \
         expect: {{decision: ALLOW, scope: openid, added: [], refused: [{{scope: gone, reason: UNSUPPORTED}}], \
         audienceGrants: [{{audience: https://mcp.example.com, scope: openid}}]}}"
    ));
    passes(&format!(
        "token: {{{MCP}, grant: REFRESH, grantedScope: openid, scope: openid offline_access}}, \
         expect: {{decision: DENY, error: invalid_scope, reason: EXCEEDS_GRANT, \
         refused: [{{scope: offline_access, reason: EXCEEDS_GRANT}}]}}"
    ));
    for grant in ["client_credentials", "jwt_bearer", "CLIENT_CREDENTIALS", "JWT_BEARER"] {
        passes(&format!(
            "token: {{{MCP}, grant: {grant}, registeredScope: openid}}, expect: {{scope: openid offline_access}}"
        ));
    }
    passes(&format!(
        "token: {{{MCP}, grant: token_exchange, grantedScope: ''}}, expect: {{reason: SCOPE_REQUIRED}}"
    ));
    fails(
        &format!(
            "token: {{{MCP}, grant: refresh, grantedScope: openid}}, expect: {{scope: openid offline_access}}"
        ),
        &["scope: openid offline_access / openid / offline_access / "],
    );
    let report = ran(&only(&format!(
        "token: {{{MCP}, grant: refresh, grantedScope: openid}}, \
         table: {{columns: [grantedScope, scope, expect.scope], rows: [[profile, ~, profile]]}}"
    )));
    assert_eq!((report.passed(), report.failed()), (1, 0), "{:#?}", report.results);
    let mcp = report.coverage.iter().find(|covered| covered.audience == "https://mcp.example.com").unwrap();
    assert_eq!((mcp.register, mcp.authorize, mcp.token, mcp.is_touched()), (0, 0, 1, true));
}

/// A server would not answer it, so the case is a mistake of the file.
#[test]
fn a_token_without_what_its_grant_stands_for_is_a_mistake() {
    let missing = |what: &str| [format!("1:16 MissingKey : test case `x`: {what}")];
    for grant in ["refresh", "TOKEN_EXCHANGE"] {
        let needed = format!("`grantedScope` is required where `grant` is {}", grant.to_lowercase());
        let case = format!("token: {{{MCP}, grant: {grant}}}, expect: {{decision: ALLOW}}");
        assert_eq!(findings(&only(&case)), missing(&needed));
    }
    let case = format!("token: {{{MCP}}}, expect: {{decision: ALLOW}}");
    let found = findings(&only(&case));
    assert!(
        matches!(&*found, [one] if one.ends_with("MissingKey : test case `x`: missing key `grant` in `token`")),
        "{found:?}"
    );
    let case = format!("token: {{{MCP}, grant: password}}, expect: {{decision: ALLOW}}");
    let found = findings(&only(&case));
    assert!(matches!(&*found, [one] if one.contains("UnknownValue password")), "{found:?}");
}

#[test]
fn absent_empty_and_blank_scope_are_three_inputs() {
    passes(&format!(
        "authorize: {{{MCP}, scope: openid, registeredScope: ''}}, expect: {{reason: UNREGISTERED}}"
    ));
    passes(&format!("authorize: {{{MCP}, scope: openid}}, expect: {{decision: ALLOW}}"));
    passes(&format!(
        "authorize: {{{MCP}, scope: '  ', registeredScope: openid}}, expect: {{scope: openid offline_access}}"
    ));
}

#[test]
fn differences_name_what_is_missing_and_what_is_too_much() {
    fails(
        &format!(
            "register: {{{MCP}, scope: openid}}, \
             expect: {{decision: DENY, error: invalid_client_metadata, refused: [{{scope: openid, reason: FORBIDDEN}}]}}"
        ),
        &[
            "decision: DENY / ALLOW /  / ",
            "refused: openid (FORBIDDEN) / (none) / openid (FORBIDDEN) / ",
            "error: invalid_client_metadata / (none) /  / ",
        ],
    );
    fails(
        &format!(
            "register: {{{MCP}, scope: openid}}, \
             expect: {{scope: openid mcp:read, added: [{{scope: mcp:read, origin: BASELINE, rule: cimd}}]}}"
        ),
        &[
            "scope: openid mcp:read / openid offline_access / mcp:read / offline_access",
            "added: mcp:read (BASELINE, rule cimd) / offline_access (BASELINE) / mcp:read (BASELINE, rule cimd) / offline_access (BASELINE)",
        ],
    );
    fails(
        &format!("register: {{{MCP}, scope: admin}}, expect: {{decision: ALLOW, scope: admin}}"),
        &["decision: ALLOW / DENY /  / ", "scope: admin / (none) / admin / "],
    );
    fails(
        &format!(
            "authorize: {{{MCP}, scope: openid, registeredScope: openid}}, \
             expect: {{effectiveRegisteredScope: openid profile, audienceGrants: [{{audience: 'https://quiet.example.com'}}]}}"
        ),
        &[
            "effectiveRegisteredScope: openid profile / openid / profile / ",
            "audienceGrants: https://quiet.example.com / https://mcp.example.com (openid) / \
             https://quiet.example.com / https://mcp.example.com (openid)",
        ],
    );
    fails(
        &format!("authorize: {{{MCP}, scope: openid x}}, expect: {{reason: FORBIDDEN, refused: []}}"),
        &["refused: (none) / x (UNSUPPORTED) /  / x (UNSUPPORTED)", "reason: FORBIDDEN / UNSUPPORTED /  / "],
    );
}

#[test]
fn a_failed_case_tells_the_way_of_each_scope() {
    let report = ran(&only(&format!(
        "register: {{{MCP}, scope: openid admin, client: {{source: cimd}}}}, expect: {{decision: ALLOW}}"
    )));
    assert_eq!(
        report.results[0].trail,
        [
            "openid at https://mcp.example.com: asked: granted",
            "admin at https://mcp.example.com: asked, not in scopesSupported: UNSUPPORTED",
        ]
    );
}

#[test]
fn the_rows_of_a_table_are_cases() {
    let report = ran("
tests:
  - name: what an mcp client is granted
    authorize: {audiences: [https://mcp.example.com], registeredScope: openid, client: {source: dcr}}
    expect: {decision: ALLOW}
    table:
      columns: [name, scope, registeredScope, client.source, expect.decision, expect.scope, expect.refused]
      rows:
        - [~, openid, openid, ~, ALLOW, openid, []]
        - [a baseline scope, offline_access, '', ~, ALLOW, offline_access, ~]
        - [~, mcp:read, openid, cimd, ALLOW, mcp:read, ~]
        - [~, mcp:read, openid, dcr, DENY, ~, [{scope: mcp:read, reason: UNREGISTERED}]]
        - [~, ~, ~, ~, ALLOW, openid profile offline_access, ~]
");
    let names: Vec<&str> = report.results.iter().map(|result| &*result.name).collect();
    assert_eq!(
        names,
        [
            "what an mcp client is granted, row 1",
            "what an mcp client is granted: a baseline scope",
            "what an mcp client is granted, row 3",
            "what an mcp client is granted, row 4",
            "what an mcp client is granted, row 5",
        ]
    );
    assert_eq!(report.results[3].position.line, 12);
    assert_eq!(report.failed(), 0, "{:#?}", report.results);
}

#[test]
fn broken_tables_are_reported() {
    let table = |table: &str| {
        findings(&format!(
            "tests:\n- name: t\n  register: {{{MCP}}}\n  expect: {{decision: ALLOW}}\n  table: {table}\n"
        ))
    };
    assert_eq!(
        table("{columns: [scop, scope, scope, registeredScope, expect.color], rows: [[a, openid, b, c, d]]}"),
        [
            "5:21 UnknownKey scop: test case `t`: unknown column `scop` of a `register` table",
            "5:34 DuplicateEntry scope: test case `t`: duplicate column `scope`",
            "5:41 UnknownKey registeredScope: test case `t`: unknown column `registeredScope` of a `register` table",
            "5:58 UnknownKey expect.color: test case `t`: unknown column `expect.color` of a `register` table",
        ]
    );
    assert_eq!(
        table("{columns: [scope], rows: [[openid, x], openid, [1]]}"),
        [
            "5:36 WrongType : test case `t`: a row has 2 cells, the table has 1 columns",
            "5:49 WrongType openid: test case `t`: `rows` needs a list of cells, not a string",
            "5:58 WrongType 1: test case `t`: `scope` needs a string, not a number",
        ]
    );
    assert_eq!(
        table("{}"),
        [
            "5:10 MissingKey : test case `t`: missing key `columns` in `table`",
            "5:10 MissingKey : test case `t`: missing key `rows` in `table`"
        ]
    );
    assert_eq!(table("{columns: [scope], rows: []}"), ["5:35 EmptyValue : test case `t`: `rows` is empty"]);
    assert_eq!(table("{columns: [], rows: [[]]}"), ["5:20 EmptyValue : test case `t`: `columns` is empty"]);
    let rows = "[openid],".repeat(MAX_ROWS + 1);
    assert_eq!(
        table(&format!("{{columns: [scope], rows: [{rows}]}}")),
        ["5:10 ValueTooLarge : test case `t`: the table has 10001 rows, which is too much to spell out"]
    );
}

#[test]
fn what_a_table_shares_is_reported_once() {
    let text = "
tests:
  - name: t
    register: {audience: [x], client: {source: web}}
    table:
      columns: [scope, expect.decision]
      rows: [[openid, ALLOW], [profile, ALLOW]]
";
    assert_eq!(
        findings(text),
        [
            "4:16 UnknownKey audience: test case `t`: unknown key `audience` in `register`",
            "4:48 UnknownValue web: test case `t`: unknown value `web` of `source`",
        ]
    );
}

#[test]
fn every_mistake_of_a_file_is_reported_with_its_place() {
    let text = "
tests:
  - name: one
    register: {scope: openid, registeredScope: openid, client: {redirectURIs: []}}
    expects: {decision: ALLOW}
  - name: one
    authorize: {scope: 5, audiences: https://mcp.example.com}
    expect: {decision: allow, added: openid, refused: [{reason: UNSUPORTED}], error: server_error, color: red}
  - register: {}
    authorize: {}
    expect: {decision: ALLOW}
  - name: ''
    expect: {}
  - name: three
    register: {}
    expect: {}
  - four
suite: x
";
    assert_eq!(
        findings(text),
        [
            "3:5 MissingKey : test case `one`: missing key `expect` or `table` in `test case`",
            "4:31 UnknownKey registeredScope: test case `one`: unknown key `registeredScope` in `register`",
            "4:65 UnknownKey redirectURIs: test case `one`: unknown key `redirectURIs` in `client`",
            "5:5 UnknownKey expects: test case `one`: unknown key `expects` in `test case`",
            "7:24 WrongType 5: test case `one`: `scope` needs a string, not a number",
            "7:38 WrongType https://mcp.example.com: test case `one`: `audiences` needs a list of strings, not a string",
            "8:24 UnknownValue allow: test case `one`: unknown value `allow` of `decision`",
            "8:38 WrongType openid: test case `one`: `added` needs a list, not a string",
            "8:56 MissingKey : test case `one`: missing key `scope` in `refused`",
            "8:65 UnknownValue UNSUPORTED: test case `one`: unknown value `UNSUPORTED` of `reason`",
            "8:86 UnknownValue server_error: test case `one`: unknown value `server_error` of `error`",
            "8:100 UnknownKey color: test case `one`: unknown key `color` in `expect`",
            "9:5 MissingKey : missing key `name` in `test case`",
            "10:5 DuplicateKey authorize: `test case` has either `register`, `authorize` or `token`, and only one of them",
            "12:5 MissingKey : missing key `register`, `authorize` or `token` in `test case`",
            "12:11 EmptyValue : `name` is empty",
            "13:13 EmptyValue : `expect` is empty",
            "16:13 EmptyValue : test case `three`: `expect` is empty",
            "17:5 WrongType four: `test case` needs a mapping, not a string",
            "18:1 UnknownKey suite: unknown key `suite` in `test file`",
        ]
    );
}

#[test]
fn files_that_are_no_suites_are_reported() {
    assert_eq!(findings(""), ["0:0 MissingKey : missing key `tests` in `test file`"]);
    assert_eq!(findings("{}"), ["1:1 MissingKey : missing key `tests` in `test file`"]);
    assert_eq!(findings("tests: []"), ["1:8 EmptyValue : `tests` is empty"]);
    assert_eq!(findings("tests: x"), ["1:8 WrongType x: `tests` needs a list, not a string"]);
    assert_eq!(findings("[]"), ["1:1 WrongType : `test file` needs a mapping, not a list"]);
    assert!(findings("a: [").iter().all(|line| line.contains("YamlSyntax")));
}

#[test]
fn names_are_unique_in_a_file() {
    let case = format!("{{name: x, register: {{{MCP}, scope: openid}}, expect: {{decision: ALLOW}}}}");
    let text = format!("tests:\n- {case}\n- {case}\n");
    assert_eq!(
        findings(&text),
        ["3:10 DuplicateTestName x: test case `x`: duplicate name `x`, first on line 2"]
    );
}

#[test]
fn an_audience_that_the_policy_does_not_declare_is_a_mistake_of_the_file() {
    let text =
        only("register: {audiences: [https://mcp.example.org, 'https://x:y']}, expect: {decision: ALLOW}");
    assert_eq!(
        findings(&text),
        [
            "1:42 TestAudienceNotDeclared https://mcp.example.org: the policy does not declare the audience `https://mcp.example.org`",
            "1:67 TestAudienceNotDeclared https://x:y: audience `https://x:y`: the port of an audience is a number up to 65535",
        ]
    );
    assert_eq!(read(&text).check(&policy())[0].suggestion, "did you mean `https://mcp.example.com`?");
    passes(
        "register: {audiences: [https://mcp.example.org]}, expect: {reason: AUDIENCE_UNKNOWN, error: invalid_client_metadata}",
    );
    passes("authorize: {audiences: ['https://x#y']}, expect: {decision: DENY, reason: AUDIENCE_MALFORMED}");
    passes("authorize: {}, expect: {reason: AUDIENCE_REQUIRED}");
}

#[test]
fn limits_of_the_api_hold_for_cases() {
    let audiences = "a, ".repeat(17);
    let text = only(&format!("register: {{audiences: [{audiences}]}}, expect: {{reason: AUDIENCE_UNKNOWN}}"));
    assert_eq!(
        findings(&text),
        ["1:16 ValueTooLarge : test case `x`: `audiences` names 17 audiences, at most 16"]
    );
    // What a client chooses is answered.
    let scope = "a ".repeat(300);
    passes(&format!("register: {{{MCP}, scope: '{scope}'}}, expect: {{reason: TOO_MANY_SCOPES}}"));
}

fn two_files() -> Vec<Suite> {
    let one = format!(
        "tests:\n- {{name: registers <&> asks, register: {{{MCP}, client: {{source: cimd}}}}, expect: {{decision: ALLOW}}}}\n\
         - {{name: over-asks, authorize: {{{MCP}, scope: admin}}, expect: {{decision: ALLOW}}}}\n"
    );
    let two = format!(
        "tests:\n- {{name: asks, authorize: {{{MCP}, scope: openid}}, expect: {{decision: ALLOW}}}}\n"
    );
    vec![Suite::read(&"one_test.yaml".into(), &one), Suite::read(&"two_test.yaml".into(), &two)]
}

#[test]
fn a_filter_chooses_by_part_of_the_name() {
    let report = run(&policy(), &two_files(), Some("asks"));
    assert_eq!((report.passed(), report.failed(), report.filtered), (2, 1, 0));
    let report = run(&policy(), &two_files(), Some("over"));
    assert_eq!((report.passed(), report.failed(), report.filtered), (0, 1, 2));
    assert_eq!(run(&policy(), &two_files(), Some("no such")).filtered, 3);
}

#[test]
fn coverage_counts_audiences_and_rules_that_gave() {
    let report = run(&policy(), &two_files(), None);
    let [mcp, quiet] = &report.coverage[..] else { panic!("two audiences") };
    assert_eq!((mcp.register, mcp.authorize), (1, 2));
    assert!(mcp.is_touched() && !quiet.is_touched());
    let gave: Vec<_> = mcp.rules.iter().map(|rule| (&*rule.rule, rule.gave)).collect();
    assert_eq!(gave, [("native", 0), ("cimd", 1)]);
}

#[test]
fn a_rule_that_matches_but_adds_nothing_did_not_give() {
    let case = format!(
        "register: {{{MCP}, scope: mcp:read, client: {{source: cimd}}}}, expect: {{decision: ALLOW}}"
    );
    let report = ran(&only(&case));
    assert_eq!(report.coverage[0].rules[1].gave, 0);
}

#[test]
fn results_are_shown_to_people() {
    let report = run(&policy(), &two_files(), None);
    let text = anstream::adapter::strip_str(&output::text(&report, true)).to_string();
    assert_eq!(
        text,
        "one_test.yaml
  ok registers <&> asks
  FAILED over-asks
    at one_test.yaml:3:10
    decision
      expected: ALLOW
      actual:   DENY
    because
      admin at https://mcp.example.com: asked, not in scopesSupported: UNSUPPORTED
two_test.yaml
  ok asks
coverage
  https://mcp.example.com: 1 register, 2 authorize, 0 token
    rule native: never gave a scope
    rule cimd: gave a scope in 1 of them
  https://quiet.example.com: no case
failed: 2 passed, 1 failed
"
    );
}

#[test]
fn results_are_shown_to_programs() {
    let report = run(&policy(), &two_files(), Some("over"));
    let json = output::json(&report);
    assert_eq!((&json["passed"], &json["failed"], &json["filtered"]), (&0.into(), &1.into(), &2.into()));
    let case = &json["cases"][0];
    assert_eq!(
        (&case["name"], &case["line"], &case["question"]),
        (&"over-asks".into(), &3.into(), &"authorize".into())
    );
    assert_eq!(case["differences"][0]["expected"], "ALLOW");
    assert_eq!(json["coverage"][0]["rules"][1]["name"], "cimd");
}

#[test]
fn results_are_shown_as_junit() {
    let report = run(&policy(), &two_files(), None);
    let root = shape::conforms(&output::junit(&report, SystemTime::UNIX_EPOCH));
    let counts: Vec<_> = root
        .children
        .iter()
        .map(|suite| {
            (&*suite.attributes["name"], &*suite.attributes["tests"], &*suite.attributes["failures"])
        })
        .collect();
    assert_eq!(counts, [("one_test.yaml", "2", "1"), ("two_test.yaml", "1", "0")]);
    let cases = &root.children[0].children;
    assert_eq!(cases[1].attributes["name"], "registers <&> asks");
    let failure = &cases[2].children[0];
    assert_eq!(failure.attributes["message"], "decision: expected ALLOW, actual DENY");
    assert!(failure.text.contains("admin at https://mcp.example.com"));
}
