//! `ExpandRegistrationScopes` for one audience: the rules of the design, row by row.

use super::{api, brief, expand, set, strings};
use crate::decision::{Client, registration};
use crate::policy::ClientSource;

#[track_caller]
fn check_as(policy: &str, client: Client<'_>, scope: Option<&str>, expected: &str) {
    let set = set(&api(policy));
    assert_eq!(brief(&expand(&set, &[], scope, client)), expected, "{policy}, scope {scope:?}");
}

#[track_caller]
fn check(policy: &str, scope: impl Into<Option<&'static str>>, expected: &str) {
    check_as(policy, Client::default(), scope.into(), expected);
}

#[test]
fn the_examples_of_the_design() {
    check(
        "scopesSupported: [openid, offline_access], baselineClientScopes: [offline_access]",
        "openid",
        "ALLOW openid offline_access | added offline_access=BASELINE",
    );
    check("scopesSupported: [openid, profile]", "openid profile", "ALLOW openid profile");
    check(
        "scopesSupported: [openid, offline_access], baselineClientScopes: [openid]",
        "openid offline_access",
        "ALLOW openid offline_access",
    );
    check(
        "scopesSupported: [openid, profile, offline_access], baselineClientScopes: [openid, offline_access]",
        "openid profile",
        "ALLOW openid profile offline_access | added offline_access=BASELINE",
    );
    check(
        "scopesSupported: [openid, profile]",
        "openid admin root",
        "DENY UNSUPPORTED invalid_client_metadata | refused admin=UNSUPPORTED root=UNSUPPORTED",
    );
    for omitted in [None, Some(""), Some("   ")] {
        check(
            "scopesSupported: [\"mcp:read\", \"mcp:write\", offline_access], baselineClientScopes: [offline_access]",
            omitted,
            "ALLOW offline_access | added offline_access=DEFAULT",
        );
        check("scopesSupported: [\"mcp:read\"]", omitted, "DENY SCOPE_REQUIRED invalid_client_metadata");
    }
    let set = set(&api("scopesSupported: [openid, profile]"));
    let answer = expand(&set, &[], Some("openid admin root"), Client::default());
    assert_eq!(answer.oauth_error.unwrap().error_description, "scope not supported: admin root");
}

#[test]
fn an_answer_that_adds_nothing_is_no_expansion() {
    let set = set(&api("scopesSupported: [openid, offline_access], baselineClientScopes: [offline_access]"));
    assert!(expand(&set, &[], Some("openid"), Client::default()).is_expansion());
    assert!(!expand(&set, &[], Some("openid offline_access"), Client::default()).is_expansion());
    assert!(expand(&set, &[], None, Client::default()).is_expansion());
}

#[test]
fn an_omitted_scope_starts_from_the_defaults() {
    check(
        "scopesSupported: [a, b, c], defaultClientScopes: [b, a], baselineClientScopes: [c, b]",
        None,
        "ALLOW b a c | added b=DEFAULT a=DEFAULT c=BASELINE",
    );
    check(
        "scopesSupported: [a], defaultClientScopes: [], baselineClientScopes: [a]",
        None,
        "ALLOW a | added a=BASELINE",
    );
    check(
        "scopesSupported: [openid], defaultClientScopes: []",
        None,
        "DENY SCOPE_REQUIRED invalid_client_metadata",
    );
}

#[test]
fn the_implied_defaults_are_those_that_may_be_given() {
    check(
        "scopesSupported: [offline_access, email, x, profile, openid]",
        None,
        "ALLOW openid profile email offline_access | added openid=DEFAULT profile=DEFAULT email=DEFAULT offline_access=DEFAULT",
    );
    check(
        "scopesSupported: [offline_access, email, profile, openid], privilegedScopes: [email], forbiddenScopes: [profile]",
        None,
        "ALLOW openid offline_access | added openid=DEFAULT offline_access=DEFAULT",
    );
    check(
        "scopeMatching: wildcard, scopesSupported: [\"*\"], privilegedScopes: [\"off*\", email]",
        None,
        "ALLOW openid profile offline_access | added openid=DEFAULT profile=DEFAULT offline_access=DEFAULT",
    );
    check(
        "scopeMatching: hierarchic, scopesSupported: [openid, email], forbiddenScopes: [email.secret]",
        None,
        "ALLOW openid | added openid=DEFAULT",
    );
    check(
        "scopeMatching: hierarchic, scopesSupported: [openid, email], privilegedScopes: [email.secret]",
        None,
        "ALLOW openid | added openid=DEFAULT",
    );
}

#[test]
fn defaults_never_stand_in_for_what_was_sent_and_dropped() {
    let policy =
        "scopesSupported: [openid, x], forbiddenScopes: [x], registration: {unsupportedScopes: drop}";
    check(
        policy,
        "admin x",
        "DENY NOTHING_GRANTED invalid_client_metadata | refused admin=UNSUPPORTED x=FORBIDDEN",
    );
    check(policy, "admin openid x", "ALLOW openid | refused admin=UNSUPPORTED x=FORBIDDEN");
    check(
        "scopesSupported: [openid, a], baselineClientScopes: [a], registration: {unsupportedScopes: drop}",
        "admin",
        "ALLOW a | added a=BASELINE | refused admin=UNSUPPORTED",
    );
}

#[test]
fn a_malformed_token_rejects_even_where_others_are_dropped() {
    let policy = "scopesSupported: [openid], registration: {unsupportedScopes: drop}";
    check(policy, "openid a\tb", "DENY MALFORMED invalid_client_metadata | refused a\tb=MALFORMED");
    check(
        policy,
        "admin openid a\"b",
        "DENY MALFORMED invalid_client_metadata | refused admin=UNSUPPORTED a\"b=MALFORMED",
    );
    check(policy, "\t", "DENY MALFORMED invalid_client_metadata | refused \t=MALFORMED");
}

#[test]
fn the_reason_is_that_of_the_first_refused_scope() {
    let policy = "scopesSupported: [openid], forbiddenScopes: [root]";
    check(
        policy,
        "root admin",
        "DENY FORBIDDEN invalid_client_metadata | refused root=FORBIDDEN admin=UNSUPPORTED",
    );
    check(
        policy,
        "admin root openid",
        "DENY UNSUPPORTED invalid_client_metadata | refused admin=UNSUPPORTED root=FORBIDDEN",
    );
}

#[test]
fn spaces_are_tolerated_and_duplicates_collapse() {
    let policy = "scopesSupported: [openid, offline_access], baselineClientScopes: [openid]";
    check(policy, " offline_access", "ALLOW offline_access openid | added openid=BASELINE");
    check(policy, "offline_access  openid offline_access ", "ALLOW offline_access openid");
    check(policy, "OPENID", "DENY UNSUPPORTED invalid_client_metadata | refused OPENID=UNSUPPORTED");
    let policy = "scopesSupported: [openid]";
    check(policy, "x x", "DENY UNSUPPORTED invalid_client_metadata | refused x=UNSUPPORTED");
}

#[test]
fn not_yet_there_compares_bytes() {
    check(
        "scopeMatching: hierarchic, scopesSupported: [mcp], baselineClientScopes: [mcp.read]",
        "mcp",
        "ALLOW mcp mcp.read | added mcp.read=BASELINE",
    );
    check(
        "scopeMatching: wildcard, scopesSupported: [\"mcp.*\"], baselineClientScopes: [mcp.read]",
        "mcp.*",
        "ALLOW mcp.* mcp.read | added mcp.read=BASELINE",
    );
}

#[test]
fn each_way_of_matching_decides_what_is_supported() {
    check(
        "scopesSupported: [mcp, \"mcp.*\"]",
        "mcp.read",
        "DENY UNSUPPORTED invalid_client_metadata | refused mcp.read=UNSUPPORTED",
    );
    check("scopeMatching: hierarchic, scopesSupported: [mcp]", "mcp.read.all mcp", "ALLOW mcp.read.all mcp");
    check("scopeMatching: wildcard, scopesSupported: [\"mcp.*\"]", "mcp.read.all", "ALLOW mcp.read.all");
    check(
        "scopeMatching: wildcard, scopesSupported: [\"mcp.*\"]",
        "mcp mcp. mcp..read",
        "DENY UNSUPPORTED invalid_client_metadata | refused mcp=UNSUPPORTED mcp.=UNSUPPORTED mcp..read=UNSUPPORTED",
    );
}

#[test]
fn a_scope_that_would_grant_a_forbidden_one_is_forbidden() {
    let denied = "DENY FORBIDDEN invalid_client_metadata | refused";
    check(
        "scopeMatching: hierarchic, scopesSupported: [mcp], forbiddenScopes: [mcp.admin]",
        "mcp mcp.admin.users",
        &format!("{denied} mcp=FORBIDDEN mcp.admin.users=FORBIDDEN"),
    );
    check(
        "scopeMatching: hierarchic, scopesSupported: [mcp], forbiddenScopes: [mcp.admin]",
        "mcp.read",
        "ALLOW mcp.read",
    );
    check(
        "scopeMatching: wildcard, scopesSupported: [\"*\", \"mcp.*\"], forbiddenScopes: [\"*.admin\"]",
        "mcp.* * mcp.admin",
        &format!("{denied} mcp.*=FORBIDDEN *=FORBIDDEN mcp.admin=FORBIDDEN"),
    );
    check("scopesSupported: [mcp], forbiddenScopes: [mcp.admin]", "mcp", "ALLOW mcp");
}

#[test]
fn a_privileged_scope_may_be_asked_for() {
    check("scopesSupported: [openid, admin], privilegedScopes: [admin]", "admin", "ALLOW admin");
}

#[test]
fn matching_rules_come_behind_the_baseline_in_policy_order() {
    let policy = "scopesSupported: [a, b, c, d], baselineClientScopes: [a], clientRules: [\
        {name: loopback, when: {redirectUri: loopback}, baselineClientScopes: [c, a]}, \
        {name: claude, when: {source: dcr, clientName: \"Claude*\"}, baselineClientScopes: [b, c]}]";
    let redirect_uris = strings(&["http://localhost:1/cb"]);
    let claude = Client { source: Some(ClientSource::Dcr), client_name: "Claude Code", ..Client::default() };
    check_as(policy, Client::default(), Some("d"), "ALLOW d a | added a=BASELINE");
    check_as(
        policy,
        claude,
        Some("d"),
        "ALLOW d a b c | added a=BASELINE b=BASELINE@claude c=BASELINE@claude",
    );
    check_as(
        policy,
        Client { redirect_uris: (&redirect_uris).into(), ..claude },
        Some("d"),
        "ALLOW d a c b | added a=BASELINE c=BASELINE@loopback b=BASELINE@claude",
    );
    check_as(policy, claude, None, "ALLOW a b c | added a=BASELINE b=BASELINE@claude c=BASELINE@claude");
    check_as(policy, Client { source: None, ..claude }, Some("c"), "ALLOW c a | added a=BASELINE");
}

#[test]
fn guardrails_hold_for_every_audience() {
    let text = "guardrails: {forbiddenScopes: [root], privilegedScopes: [email]}\n\
        audiences: {one: {scopesSupported: [openid, email, root]}, two: {scopesSupported: [email, root]}}";
    let set = set(text);
    let one = strings(&["one"]);
    let two = strings(&["two"]);
    let brief = |audiences, scope| brief(&expand(&set, audiences, scope, Client::default()));
    assert_eq!(brief(&one, None), "ALLOW openid | added openid=DEFAULT");
    assert_eq!(brief(&one, Some("root")), "DENY FORBIDDEN invalid_client_metadata | refused root=FORBIDDEN");
    assert_eq!(brief(&two, None), "DENY SCOPE_REQUIRED invalid_client_metadata");
    assert_eq!(brief(&two, Some("email")), "ALLOW email");
}

#[test]
fn an_update_without_scope_keeps_what_the_client_holds() {
    let policy = "scopesSupported: [a, b, c, openid], baselineClientScopes: [c], forbiddenScopes: [f], privilegedScopes: [b]";
    #[track_caller]
    fn update(policy: &str, previous: &str, scope: Option<&str>, expected: &str) {
        let set = set(&api(policy));
        let question = registration::RegistrationQuestion {
            scope,
            previous_scope: Some(previous),
            ..Default::default()
        };
        let answer = registration::expand(&set, &question);
        assert_eq!(brief(&answer), expected, "previous {previous:?}, scope {scope:?}");
        if answer.is_allowed() {
            let own = answer.scope.join(" ");
            let again =
                registration::RegistrationQuestion { scope: None, previous_scope: Some(&own), ..question };
            assert_eq!(registration::expand(&set, &again).scope, answer.scope, "an update on its own answer");
        }
    }
    let expected = "ALLOW b a c | added b=REGISTERED a=REGISTERED c=BASELINE";
    for omitted in [None, Some(""), Some("  ")] {
        update(policy, "b f gone a\tb a", omitted, expected);
    }
    // What is there already is no expansion.
    update(policy, "c a", None, "ALLOW c a | added c=REGISTERED a=REGISTERED");
    // A new registration takes the defaults, an update does not.
    check(policy, None, "ALLOW openid c | added openid=DEFAULT c=BASELINE");
    update(policy, "", None, "ALLOW c | added c=BASELINE");
    update("scopesSupported: [openid]", "gone", None, "DENY SCOPE_REQUIRED invalid_client_metadata");
    // A scope that is sent decides alone.
    update(policy, "a", Some("openid"), "ALLOW openid c | added c=BASELINE");
    update(
        policy,
        "a gone",
        Some("gone"),
        "DENY UNSUPPORTED invalid_client_metadata | refused gone=UNSUPPORTED",
    );
}

#[test]
fn an_update_that_keeps_what_was_registered_is_no_expansion() {
    let set = set(&api("scopesSupported: [a, b], baselineClientScopes: [b]"));
    let update = |previous| registration::RegistrationQuestion {
        previous_scope: Some(previous),
        ..Default::default()
    };
    assert!(!registration::expand(&set, &update("a b")).is_expansion());
    assert!(registration::expand(&set, &update("a")).is_expansion());
}

#[test]
fn nothing_left_may_mean_the_omitted_scope() {
    let policy = "scopesSupported: [openid, a, b], baselineClientScopes: [b], \
        registration: {unsupportedScopes: drop, nothingLeft: default}";
    check(
        policy,
        "profile email",
        "ALLOW openid b | added openid=DEFAULT b=BASELINE | refused profile=UNSUPPORTED email=UNSUPPORTED",
    );
    check(policy, "profile a", "ALLOW a b | added b=BASELINE | refused profile=UNSUPPORTED");
    check(
        "scopesSupported: [a], registration: {unsupportedScopes: drop, nothingLeft: default}",
        "x",
        "DENY SCOPE_REQUIRED invalid_client_metadata | refused x=UNSUPPORTED",
    );
    let rejects = "scopesSupported: [openid], registration: {nothingLeft: default}";
    check(rejects, "x", "DENY UNSUPPORTED invalid_client_metadata | refused x=UNSUPPORTED");
    // An update keeps what the client holds.
    let set = set(&api(policy));
    let question = registration::RegistrationQuestion {
        scope: Some("profile"),
        previous_scope: Some("a"),
        ..Default::default()
    };
    assert_eq!(
        brief(&registration::expand(&set, &question)),
        "ALLOW a b | added a=REGISTERED b=BASELINE | refused profile=UNSUPPORTED"
    );
}
