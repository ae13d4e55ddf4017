//! `test`: suites beside the policy, and what keeps them from being run.

use super::*;

const POLICY: &str = "\
audiences:
  https://mcp.example.com:
    scopesSupported: [openid, offline_access]
    baselineClientScopes: [offline_access]
    clientRules:
      - name: web
        when: {applicationType: web}
        baselineClientScopes: [openid]
";

const SUITE: &str = "\
tests:
  - name: the baseline is there
    register: {audiences: [https://mcp.example.com], scope: openid}
    expect: {decision: ALLOW, scope: openid offline_access, added: [offline_access]}
  - name: nobody is admin
    authorize: {audiences: [https://mcp.example.com], registeredScope: openid, scope: openid admin}
    expect: {decision: DENY, refused: [{scope: admin, reason: UNSUPPORTED}]}
";

fn place() -> Place {
    Place::with(&[("policies/mcp.yaml", POLICY), ("policies/team/mcp_test.yaml", SUITE)])
}

#[test]
fn the_example_policies_pass_their_tests() {
    let ran = Place::with_examples().run(&["test"]);
    assert_eq!((ran.code, &*ran.stderr), (0, ""), "{}", ran.stdout);
    assert!(ran.stdout.lines().last().unwrap().ends_with(" passed, 0 failed"), "{}", ran.stdout);
}

#[test]
fn tests_that_pass_exit_with_0_and_name_what_they_touched() {
    assert_snapshot!(place().run(&["test", "policies", "--coverage"]).shown(), @r"
    exit 0
    --- stdout
    policies/team/mcp_test.yaml
      ok the baseline is there
      ok nobody is admin
    coverage
      https://mcp.example.com: 1 register, 1 authorize, 0 token
        rule web: never gave a scope
    passed: 2 passed, 0 failed
    ");
}

#[test]
fn a_test_that_fails_exits_with_4_and_shows_the_way_of_the_scopes() {
    let place = place();
    place.write("policies/mcp.yaml", POLICY.replace("[offline_access]", "[]"));
    let ran = place.run(&["test"]);
    assert_snapshot!(ran.shown());
    let ran = place.run(&["test", "--output", "json"]);
    let json = ran.json();
    assert_eq!((ran.code, &json["passed"], &json["failed"]), (4, &1.into(), &1.into()));
    assert_eq!(json["cases"][0]["differences"][0]["missing"], serde_json::json!(["offline_access"]));
    let ran = place.run(&["test", "--output", "junit"]);
    assert_eq!(ran.code, 4);
    assert!(ran.stdout.contains("tests=\"2\" failures=\"1\""), "{}", ran.stdout);
}

#[test]
fn a_filter_leaves_cases_out() {
    let ran = place().run(&["test", "--filter", "admin"]);
    assert_eq!(ran.code, 0);
    assert!(ran.stdout.ends_with("passed: 1 passed, 0 failed, 1 left out by the filter\n"), "{}", ran.stdout);
}

#[test]
fn paths_may_be_files() {
    let place = place();
    let ran = place.run(&["test", "policies/mcp.yaml", "policies/team/mcp_test.yaml"]);
    assert!(ran.code == 0 && ran.stdout.contains("2 passed"), "{}", ran.stderr);
    // A file that is in a named folder, too, is run once.
    let ran = place.run(&["test", "policies", "policies/team/mcp_test.yaml"]);
    assert!(ran.code == 0 && ran.stdout.contains("2 passed"), "{}", ran.stderr);
}

#[test]
fn what_runs_no_test_is_2() {
    let place = place();
    place.write("empty/mcp.yaml", POLICY);
    for (args, said) in [
        (&["test", "--filter", "nothing"][..], "none of 2 cases has `nothing` in its name"),
        (&["test", "policies/team/mcp_test.yaml"], "only test files are named"),
        (&["test", "empty"], "no test file in `empty`"),
        (&["test", "policies/mcp.yaml"], "no test file in `policies/mcp.yaml`"),
        (&["test", "nowhere"], "cannot read `nowhere`"),
        (&["test", "policies", "nowhere_test.yaml"], "cannot read `nowhere_test.yaml`"),
    ] {
        let ran = place.run(args);
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{args:?}");
        assert!(ran.stderr.contains(said), "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn a_broken_test_file_is_reported_in_full_and_nothing_runs() {
    let place = place();
    place.write(
        "policies/broken_test.yaml",
        "\
tests:
  - name: unknown key
    register: {audiences: [https://mcp.example.com], scop: openid}
    expect: {decision: ALLOW}
  - name: unknown audience
    register: {audiences: [https://mpc.example.com]}
    expect: {decision: ALLOW}
  - name: cannot hold
    register: {audiences: [https://mcp.example.com]}
    expect: {decision: DENY, scope: openid}
",
    );
    assert_snapshot!(place.run(&["test"]).shown());
}

#[test]
fn an_invalid_policy_is_reported_and_nothing_runs() {
    let place =
        Place::with(&[("policies/mcp.yaml", UNSUPPORTED_BASELINE), ("policies/mcp_test.yaml", SUITE)]);
    let ran = place.run(&["test", "--output", "junit"]);
    assert_eq!((ran.code, &*ran.stdout), (2, ""));
    assert!(ran.stderr.contains("policies/mcp.yaml:4:28"), "{}", ran.stderr);
    assert!(
        ran.stderr.ends_with("error: the policy in `policies` is not valid, so nothing was tested\n"),
        "{}",
        ran.stderr
    );
}
