//! `CheckAuthorizeScopes` for one audience: the rules of the design, row by row.

use super::{api, brief, set};
use crate::decision::{Client, Origin};
use crate::policy::ClientSource;

#[track_caller]
fn check_as(policy: &str, client: Client<'_>, registered: Option<&str>, scope: Option<&str>, expected: &str) {
    let set = set(&api(policy));
    let answer = super::check(&set, &[], registered, scope, client);
    assert_eq!(brief(&answer), expected, "{policy}, registered {registered:?}, scope {scope:?}");
}

#[track_caller]
fn check(
    policy: &str,
    registered: impl Into<Option<&'static str>>,
    scope: impl Into<Option<&'static str>>,
    expected: &str,
) {
    check_as(policy, Client::default(), registered.into(), scope.into(), expected);
}

#[test]
fn the_examples_of_the_design() {
    let policy = "scopesSupported: [openid, offline_access], baselineClientScopes: [offline_access]";
    check(
        policy,
        "openid offline_access",
        "openid offline_access",
        "ALLOW openid offline_access | registered openid offline_access",
    );
    check(
        policy,
        "openid offline_access",
        "openid admin",
        "DENY UNSUPPORTED invalid_scope | refused admin=UNSUPPORTED",
    );
    check(
        policy,
        "openid",
        "openid offline_access",
        "ALLOW openid offline_access | added offline_access=BASELINE | registered openid offline_access",
    );
}

#[test]
fn what_is_registered_or_in_the_baseline_is_held() {
    let policy = "scopesSupported: [a, b, c, d], baselineClientScopes: [b]";
    check(policy, "a", "b a", "ALLOW b a | added b=BASELINE | registered a b");
    check(policy, "a c", "a", "ALLOW a | registered a c");
    check(policy, "a", "a c d", "DENY UNREGISTERED invalid_scope | refused c=UNREGISTERED d=UNREGISTERED");
    check(policy, "", "b", "ALLOW b | added b=BASELINE | registered b");
    check(policy, "", "a", "DENY UNREGISTERED invalid_scope | refused a=UNREGISTERED");
    check(policy, "   ", "a", "DENY UNREGISTERED invalid_scope | refused a=UNREGISTERED");
}

#[test]
fn the_baseline_may_be_for_new_clients_only() {
    let policy = "scopesSupported: [a, b, c], baselineClientScopes: [b], clientRules: [\
        {name: r, when: {source: dcr}, baselineClientScopes: [c]}], \
        authorization: {baselineForExistingClients: false}";
    let dcr = Client { source: Some(ClientSource::Dcr), ..Client::default() };
    check_as(policy, dcr, Some("a"), Some("b"), "DENY UNREGISTERED invalid_scope | refused b=UNREGISTERED");
    check_as(policy, dcr, Some("a"), Some("c"), "DENY UNREGISTERED invalid_scope | refused c=UNREGISTERED");
    check_as(policy, dcr, Some("a"), None, "ALLOW a | added a=REGISTERED | registered a");
    check_as(policy, dcr, Some(""), None, "DENY SCOPE_REQUIRED invalid_scope");
    // Unknown is taken as registered just now, with the baseline of now.
    check_as(policy, dcr, None, Some("b c"), "ALLOW b c | added b=BASELINE c=BASELINE@r | registered b c");
}

#[test]
fn rules_cover_existing_clients_that_match() {
    let policy = "scopesSupported: [a, b, c], baselineClientScopes: [b], clientRules: [\
        {name: first, when: {softwareId: abc}, baselineClientScopes: [b, c]}, \
        {name: second, when: {source: cimd}, baselineClientScopes: [c]}]";
    let both = Client { source: Some(ClientSource::Cimd), software_id: "abc", ..Client::default() };
    check_as(
        policy,
        both,
        Some("a"),
        Some("a b c"),
        "ALLOW a b c | added b=BASELINE c=BASELINE@first | registered a b c",
    );
    let second = Client { software_id: "", ..both };
    check_as(policy, second, Some("a"), Some("c"), "ALLOW c | added c=BASELINE@second | registered a c");
    check_as(
        policy,
        second,
        Some("a"),
        None,
        "ALLOW a b c | added a=REGISTERED b=BASELINE c=BASELINE@second | registered a b c",
    );
    check_as(
        policy,
        Client::default(),
        Some("a"),
        Some("c"),
        "DENY UNREGISTERED invalid_scope | refused c=UNREGISTERED",
    );
}

#[test]
fn an_unknown_registration_is_one_without_scope() {
    let policy = "scopesSupported: [a, b, c, d], defaultClientScopes: [a], baselineClientScopes: [a, b]";
    check(policy, None, "b a", "ALLOW b a | added b=BASELINE a=DEFAULT | registered b a");
    check(policy, None, "c", "DENY UNREGISTERED invalid_scope | refused c=UNREGISTERED");
    check(policy, None, None, "ALLOW a b | added a=DEFAULT b=BASELINE | registered a b");
    check("scopesSupported: [x]", None, None, "DENY SCOPE_REQUIRED invalid_scope");
}

#[test]
fn an_unknown_registration_may_hold_nothing() {
    let policy = "scopesSupported: [a, b], defaultClientScopes: [a], baselineClientScopes: [a], \
        authorization: {unknownRegistration: none, stepUpScopes: [b]}";
    check(policy, None, "a", "DENY UNREGISTERED invalid_scope | refused a=UNREGISTERED");
    check(policy, None, None, "DENY SCOPE_REQUIRED invalid_scope");
    check(policy, None, "b", "ALLOW b | added b=STEP_UP | registered b");
    check(policy, "", "a", "ALLOW a | added a=BASELINE | registered a");
}

#[test]
fn an_unknown_registration_may_hold_all_that_is_supported() {
    let policy = "scopesSupported: [a, b, c], defaultClientScopes: [a], baselineClientScopes: [b], \
        privilegedScopes: [c], forbiddenScopes: [x], authorization: {unknownRegistration: supported}";
    check(policy, None, "c a b", "ALLOW c a b | registered c a b");
    check(policy, None, "d", "DENY UNSUPPORTED invalid_scope | refused d=UNSUPPORTED");
    check(policy, None, "x", "DENY FORBIDDEN invalid_scope | refused x=FORBIDDEN");
    check(policy, None, None, "ALLOW a b | added a=DEFAULT b=BASELINE | registered a b");
    check(policy, "", "c", "DENY UNREGISTERED invalid_scope | refused c=UNREGISTERED");
}

#[test]
fn a_step_up_scope_is_granted_to_those_who_ask() {
    let policy =
        "scopesSupported: [a, b, c], baselineClientScopes: [c], authorization: {stepUpScopes: [b, c]}";
    check(policy, "a", "a b", "ALLOW a b | added b=STEP_UP | registered a b");
    check(policy, "a b", "b", "ALLOW b | registered a b");
    // The first origin that fits.
    check(policy, "a", "c", "ALLOW c | added c=BASELINE | registered a c");
    // Never unasked, not even what is registered or in the baseline.
    check(policy, "a b", None, "ALLOW a | added a=REGISTERED | registered a b");
    check(policy, "b", None, "DENY SCOPE_REQUIRED invalid_scope");
    check(
        "scopeMatching: hierarchic, scopesSupported: [mcp], authorization: {stepUpScopes: [mcp.admin]}",
        "",
        "mcp.admin.users",
        "ALLOW mcp.admin.users | added mcp.admin.users=STEP_UP | registered mcp.admin.users",
    );
}

#[test]
fn a_privileged_scope_is_never_given_unasked() {
    let policy = "scopesSupported: [a, b], privilegedScopes: [b]";
    check(policy, "a b", None, "ALLOW a | added a=REGISTERED | registered a b");
    check(policy, "b", None, "DENY SCOPE_REQUIRED invalid_scope");
    check(policy, "b", "b", "ALLOW b | registered b");
    check(
        "scopeMatching: hierarchic, scopesSupported: [mcp], privilegedScopes: [mcp.admin]",
        "mcp mcp.read",
        None,
        "ALLOW mcp.read | added mcp.read=REGISTERED | registered mcp mcp.read",
    );
}

#[test]
fn the_current_policy_decides() {
    let policy = "scopesSupported: [a, b], forbiddenScopes: [b]";
    check(policy, "a b gone", "a", "ALLOW a | registered a");
    check(policy, "a b gone", "b", "DENY FORBIDDEN invalid_scope | refused b=FORBIDDEN");
    check(policy, "a b gone", "gone", "DENY UNSUPPORTED invalid_scope | refused gone=UNSUPPORTED");
    check(policy, "gone b a", None, "ALLOW a | added a=REGISTERED | registered a");
    check(policy, "gone b", None, "DENY SCOPE_REQUIRED invalid_scope");
}

#[test]
fn an_omitted_scope_gets_what_is_held() {
    let policy = "scopesSupported: [a, b, c], baselineClientScopes: [c], defaultClientScopes: [b]";
    for omitted in [None, Some(""), Some("  ")] {
        check(
            policy,
            "b a",
            omitted,
            "ALLOW b a c | added b=REGISTERED a=REGISTERED c=BASELINE | registered b a c",
        );
    }
    let set = set(&api("scopesSupported: [a]"));
    let answer = super::check(&set, &[], Some("a"), None, Client::default());
    assert_eq!(answer.added[0].origin, Origin::Registered);
    assert!(!answer.is_expansion(), "giving a client what it registered is no expansion");
}

#[test]
fn an_omitted_scope_may_get_the_defaults_that_are_held() {
    let policy = "scopesSupported: [a, b, c, d], baselineClientScopes: [c], defaultClientScopes: [c, b, a], \
        authorization: {omittedScope: default}";
    check(policy, "d a", None, "ALLOW c a | added c=DEFAULT a=REGISTERED | registered d a c");
    check(policy, "d", None, "ALLOW c | added c=DEFAULT | registered d c");
    check(policy, None, None, "ALLOW c b a | added c=DEFAULT b=DEFAULT a=DEFAULT | registered c b a");
    check(policy, "d", "d", "ALLOW d | registered d");
    let policy = "scopesSupported: [a], defaultClientScopes: [a], authorization: {omittedScope: default, \
        unknownRegistration: none}";
    check(policy, "", None, "DENY SCOPE_REQUIRED invalid_scope");
    check(policy, None, None, "DENY SCOPE_REQUIRED invalid_scope");
}

#[test]
fn an_omitted_scope_may_be_rejected() {
    let policy = "scopesSupported: [a], baselineClientScopes: [a], authorization: {omittedScope: reject}";
    check(policy, "a", None, "DENY SCOPE_REQUIRED invalid_scope");
    check(policy, None, "  ", "DENY SCOPE_REQUIRED invalid_scope");
    check(policy, "a", "a", "ALLOW a | registered a");
}

#[test]
fn each_knob_governs_its_own_reasons() {
    let lists = "scopesSupported: [a, b], forbiddenScopes: [f]";
    let all = "b f u a";
    let refused = "refused b=UNREGISTERED f=FORBIDDEN u=UNSUPPORTED";
    check(lists, "a", all, &format!("DENY UNREGISTERED invalid_scope | {refused}"));
    let drop_unregistered = format!("{lists}, authorization: {{unregisteredScopes: drop}}");
    check(&drop_unregistered, "a", all, &format!("DENY FORBIDDEN invalid_scope | {refused}"));
    check(&drop_unregistered, "a", "b a", "ALLOW a | refused b=UNREGISTERED | registered a");
    let drop_unsupported = format!("{lists}, authorization: {{unsupportedScopes: drop}}");
    check(
        &drop_unsupported,
        "a",
        "f b u",
        "DENY UNREGISTERED invalid_scope | refused f=FORBIDDEN b=UNREGISTERED u=UNSUPPORTED",
    );
    check(&drop_unsupported, "a", "f a u", "ALLOW a | refused f=FORBIDDEN u=UNSUPPORTED | registered a");
    let drop_both = format!("{lists}, authorization: {{unsupportedScopes: drop, unregisteredScopes: drop}}");
    check(&drop_both, "a", all, &format!("ALLOW a | {refused} | registered a"));
    check(&drop_both, "a", "b f u", &format!("DENY NOTHING_GRANTED invalid_scope | {refused}"));
    check(
        &drop_both,
        "a",
        "b a a\u{a0}b",
        "DENY MALFORMED invalid_scope | refused b=UNREGISTERED a\u{a0}b=MALFORMED",
    );
    // The registration knob is another one.
    let registration = format!("{lists}, registration: {{unsupportedScopes: drop}}");
    check(&registration, "a", "a u", "DENY UNSUPPORTED invalid_scope | refused u=UNSUPPORTED");
}

#[test]
fn a_description_names_those_that_reject() {
    let set = set(&api("scopesSupported: [a, b, c], authorization: {unregisteredScopes: drop}"));
    let answer = super::check(&set, &[], Some("a"), Some("b a x c y"), Client::default());
    assert_eq!(answer.oauth_error.unwrap().error_description, "scope not supported: x y");
    assert_eq!(answer.refused.len(), 4);
}

#[test]
fn the_first_reason_that_fits_is_given() {
    // Forbidden and not supported either.
    check(
        "scopesSupported: [a], forbiddenScopes: [x]",
        "x",
        "x",
        "DENY FORBIDDEN invalid_scope | refused x=FORBIDDEN",
    );
    // Forbidden and registered.
    check(
        "scopesSupported: [a], forbiddenScopes: [a]",
        "a",
        "a",
        "DENY FORBIDDEN invalid_scope | refused a=FORBIDDEN",
    );
}

#[test]
fn a_registered_entry_covers_what_it_matches() {
    let wildcard = "scopeMatching: wildcard, scopesSupported: [\"mcp.*\", openid]";
    check(wildcard, "mcp.*", "mcp.read", "ALLOW mcp.read | registered mcp.* mcp.read");
    check(wildcard, "mcp.read", "mcp.*", "DENY UNREGISTERED invalid_scope | refused mcp.*=UNREGISTERED");
    // A pattern is not given unasked.
    check(wildcard, "mcp.* openid", None, "ALLOW openid | added openid=REGISTERED | registered mcp.* openid");
    let hierarchic = "scopeMatching: hierarchic, scopesSupported: [mcp]";
    check(hierarchic, "mcp", "mcp.read.all", "ALLOW mcp.read.all | registered mcp mcp.read.all");
    check(hierarchic, "mcp.read", "mcp", "DENY UNREGISTERED invalid_scope | refused mcp=UNREGISTERED");
    check(hierarchic, "mcp.*", None, "ALLOW mcp.* | added mcp.*=REGISTERED | registered mcp.*");
    let exact = "scopesSupported: [mcp, mcp.read]";
    check(exact, "mcp", "mcp.read", "DENY UNREGISTERED invalid_scope | refused mcp.read=UNREGISTERED");
}

#[test]
fn a_registered_token_covers_others_only_if_it_could_be_granted_itself() {
    let denied = |scope: &str| format!("DENY UNREGISTERED invalid_scope | refused {scope}=UNREGISTERED");
    // Not supported (any more), or forbidden.
    let wildcard =
        "scopeMatching: wildcard, scopesSupported: [agent.run, agent.stop, admin], forbiddenScopes: [root.*]";
    for token in ["*", "agent.*", "root.*"] {
        check(wildcard, token, "agent.run", &denied("agent.run"));
        check(wildcard, token, "admin", &denied("admin"));
    }
    check(wildcard, "agent.* agent.run", "agent.run", "ALLOW agent.run | registered agent.run");
    let hierarchic = "scopeMatching: hierarchic, scopesSupported: [agent.run, mcp]";
    check(hierarchic, "agent", "agent.run", &denied("agent.run"));
    check(
        hierarchic,
        "agent agent.run",
        "agent.run.now",
        "ALLOW agent.run.now | registered agent.run agent.run.now",
    );
    // `mcp` would grant the forbidden `mcp.admin`, so it is forbidden itself.
    let forbidden = "scopeMatching: hierarchic, scopesSupported: [mcp], forbiddenScopes: [mcp.admin]";
    check(forbidden, "mcp", "mcp.read", &denied("mcp.read"));
    check(forbidden, "mcp.read", "mcp.read.all", "ALLOW mcp.read.all | registered mcp.read mcp.read.all");
}

#[test]
fn a_privileged_scope_needs_an_equal_token_or_step_up() {
    let denied = |scope: &str| format!("DENY UNREGISTERED invalid_scope | refused {scope}=UNREGISTERED");
    let policy =
        "scopeMatching: wildcard, scopesSupported: [\"*\", \"mcp.*\"], privilegedScopes: [mcp.admin]";
    check(policy, "*", "mcp.read", "ALLOW mcp.read | registered * mcp.read");
    check(policy, "*", "mcp.admin", &denied("mcp.admin"));
    // A pattern that reaches a privileged scope is privileged.
    check(policy, "*", "mcp.*", &denied("mcp.*"));
    check(policy, "* mcp.admin", "mcp.admin", "ALLOW mcp.admin | registered * mcp.admin");
    let step_up = format!("{policy}, authorization: {{stepUpScopes: [mcp.admin]}}");
    check(&step_up, "*", "mcp.admin", "ALLOW mcp.admin | added mcp.admin=STEP_UP | registered * mcp.admin");
    let hierarchic = "scopeMatching: hierarchic, scopesSupported: [mcp], privilegedScopes: [mcp.admin]";
    check(hierarchic, "mcp", "mcp.read", "ALLOW mcp.read | registered mcp mcp.read");
    check(hierarchic, "mcp", "mcp.admin", &denied("mcp.admin"));
    check(hierarchic, "mcp", "mcp.admin.users", &denied("mcp.admin.users"));
}

#[test]
fn a_refusal_says_that_a_scope_was_withdrawn() {
    let set = set(&api("scopesSupported: [a], forbiddenScopes: [f]"));
    let answer = super::check(&set, &[], Some("a f gone"), Some("x gone f a"), Client::default());
    let messages: Vec<&str> = answer.refused.iter().map(|one| &*one.message).collect();
    let expected = [
        "x is not supported at api",
        "gone is not supported at api now, though this client registered it",
        "f is forbidden at api now, though this client registered it",
    ];
    assert_eq!(messages, expected);
    assert_eq!(
        answer.oauth_error.unwrap().error_description,
        "scope not supported: x; scope registered but not granted now: gone f"
    );
}

#[test]
fn malformed_registered_tokens_are_ignored() {
    let policy = "scopesSupported: [a]";
    check(policy, "a\tb a \"", "a", "ALLOW a | registered a");
    check(policy, "a\tb", "a", "DENY UNREGISTERED invalid_scope | refused a=UNREGISTERED");
    check(policy, "\t", None, "DENY SCOPE_REQUIRED invalid_scope");
}

#[test]
fn the_answer_keeps_the_order_asked() {
    let policy = "scopesSupported: [a, b, c, d], baselineClientScopes: [d]";
    check(policy, "a b c", " c  b d c a", "ALLOW c b d a | added d=BASELINE | registered a b c d");
}

#[test]
fn what_is_always_granted_is_granted_last_to_those_who_hold_it() {
    let policy = "scopesSupported: [a, b, c, d, s], baselineClientScopes: [c], \
        authorization: {alwaysGrantScopes: [c, b], stepUpScopes: [s], unregisteredScopes: drop}";
    // A step-up that asks for the new scope alone keeps what the client had.
    check(policy, "a b", "s", "ALLOW s c b | added s=STEP_UP c=ALWAYS b=ALWAYS | registered a b s c");
    check(policy, "a", "a", "ALLOW a c | added c=ALWAYS | registered a c");
    // Asked for, it stands where it was asked for.
    check(policy, "a b", "b a", "ALLOW b a c | added c=ALWAYS | registered a b c");
    // Not where nothing that was asked for is granted, and not where nothing is asked for.
    check(policy, "a b", "d", "DENY NOTHING_GRANTED invalid_scope | refused d=UNREGISTERED");
    check(policy, "a b", None, "ALLOW a b c | added a=REGISTERED b=REGISTERED c=BASELINE | registered a b c");
    let set = set(&api(
        "scopesSupported: [a, b, c], baselineClientScopes: [c], authorization: {alwaysGrantScopes: [b, c]}",
    ));
    let is_expansion =
        |registered| super::check(&set, &[], Some(registered), Some("a"), Client::default()).is_expansion();
    assert!(!is_expansion("a b c"), "what the client registered is no expansion");
    assert!(is_expansion("a b"), "what the baseline gives unasked is one");
}

#[test]
fn nothing_left_may_mean_the_omitted_scope() {
    let policy = "scopesSupported: [a, b], baselineClientScopes: [b], \
        authorization: {unsupportedScopes: drop, unregisteredScopes: drop, nothingLeft: default}";
    check(
        policy,
        "a",
        "openid email",
        "ALLOW a b | added a=REGISTERED b=BASELINE | refused openid=UNSUPPORTED email=UNSUPPORTED | registered a b",
    );
    check(policy, "a", "a email", "ALLOW a | refused email=UNSUPPORTED | registered a");
    check(
        "scopesSupported: [a], authorization: {unsupportedScopes: drop, nothingLeft: default}",
        "",
        "x",
        "DENY SCOPE_REQUIRED invalid_scope | refused x=UNSUPPORTED",
    );
    // One that rejects leaves no question.
    let rejects = "scopesSupported: [a], authorization: {nothingLeft: default}";
    check(rejects, "a", "x", "DENY UNSUPPORTED invalid_scope | refused x=UNSUPPORTED");
    check(policy, "a", "a\tb", "DENY MALFORMED invalid_scope | refused a\tb=MALFORMED");
}

#[test]
fn an_unknown_registration_counts_by_the_source_of_the_client() {
    let policy = "scopesSupported: [a, b], defaultClientScopes: [a], \
        authorization: {unknownRegistration: {cimd: supported, dcr: none}}";
    let from = |source| Client { source, ..Client::default() };
    let denied = "DENY UNREGISTERED invalid_scope | refused a=UNREGISTERED b=UNREGISTERED";
    check_as(policy, from(Some(ClientSource::Cimd)), None, Some("a b"), "ALLOW a b | registered a b");
    check_as(policy, from(Some(ClientSource::Dcr)), None, Some("a b"), denied);
    for source in [Some(ClientSource::Static), None] {
        check_as(policy, from(source), None, Some("a"), "ALLOW a | added a=DEFAULT | registered a");
    }
    check_as(policy, from(Some(ClientSource::Dcr)), Some("a b"), Some("a b"), "ALLOW a b | registered a b");
}
