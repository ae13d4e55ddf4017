//! Questions that name several audiences, one that cannot be found, or none.

use super::{brief, check, expand, set, strings};
use crate::decision::Client;
use crate::policy::MAX_REGISTRATION_AUDIENCES;

#[track_caller]
fn registers(policy: &str, audiences: &[&str], scope: Option<&str>, expected: &str) {
    let set = set(policy);
    let audiences = strings(audiences);
    assert_eq!(brief(&expand(&set, &audiences, scope, Client::default())), expected, "{policy}");
}

#[track_caller]
fn authorizes(
    policy: &str,
    audiences: &[&str],
    registered: Option<&str>,
    scope: Option<&str>,
    expected: &str,
) {
    let set = set(policy);
    let audiences = strings(audiences);
    assert_eq!(brief(&check(&set, &audiences, registered, scope, Client::default())), expected, "{policy}");
}

const TWO: &str = "audiences:\n  one: {scopesSupported: [a, b], baselineClientScopes: [b], defaultClientScopes: [a]}\n  \
    two: {scopesSupported: [b, c, d], baselineClientScopes: [d], defaultClientScopes: [b]}\n";

#[test]
fn a_registration_joins_the_answers_in_the_order_named() {
    registers(TWO, &["one", "two"], Some("c a"), "ALLOW c a b d | added b=BASELINE d=BASELINE");
    registers(TWO, &["two", "one"], Some("c a"), "ALLOW c a d b | added d=BASELINE b=BASELINE");
    registers(TWO, &["one", "two"], None, "ALLOW a b d | added a=DEFAULT b=DEFAULT d=BASELINE");
    registers(TWO, &["one"], Some("c"), "DENY UNSUPPORTED invalid_client_metadata | refused c=UNSUPPORTED");
    registers(
        TWO,
        &["one", "two"],
        Some("x"),
        "DENY UNSUPPORTED invalid_client_metadata | refused x=UNSUPPORTED",
    );
}

#[test]
fn an_authorization_says_which_audience_grants_which_scope() {
    authorizes(
        TWO,
        &["two", "one"],
        Some("a b c"),
        Some("a b c d"),
        "ALLOW a b c d | added d=BASELINE | registered a b c d | grants two=b c d, one=a b",
    );
    authorizes(
        TWO,
        &["one", "two"],
        Some("c"),
        None,
        "ALLOW b c d | added b=BASELINE c=REGISTERED d=BASELINE | registered c b d | grants one=b, two=c d",
    );
    // An audience that grants nothing is left out.
    authorizes(TWO, &["one", "two"], Some("c"), Some("c"), "ALLOW c | registered c | grants two=c");
}

#[test]
fn one_audience_that_forbids_is_enough() {
    let policy = "audiences:\n  one: {scopesSupported: [a, b], baselineClientScopes: [b]}\n  \
        two: {scopesSupported: [c], forbiddenScopes: [b]}\n";
    authorizes(policy, &["one"], Some("b"), Some("b"), "ALLOW b | registered b");
    authorizes(
        policy,
        &["one", "two"],
        Some("b"),
        Some("b"),
        "DENY FORBIDDEN invalid_scope | refused b=FORBIDDEN",
    );
    authorizes(
        policy,
        &["one", "two"],
        Some("a b c"),
        None,
        "ALLOW a c | added a=REGISTERED c=REGISTERED | registered a c | grants one=a, two=c",
    );
    // A baseline scope that another named audience forbids is not appended.
    registers(policy, &["one"], Some("a"), "ALLOW a b | added b=BASELINE");
    registers(policy, &["one", "two"], Some("a"), "ALLOW a");
    registers(
        policy,
        &["one", "two"],
        Some("a b"),
        "DENY FORBIDDEN invalid_client_metadata | refused b=FORBIDDEN",
    );
}

#[test]
fn where_knobs_differ_reject_wins() {
    let policy = "audiences:\n  drop: {scopesSupported: [a, b], registration: {unsupportedScopes: drop}, \
        authorization: {unsupportedScopes: drop, unregisteredScopes: drop}}\n  \
        reject: {scopesSupported: [a], authorization: {omittedScope: reject}}\n";
    registers(policy, &["drop"], Some("a x"), "ALLOW a | refused x=UNSUPPORTED");
    registers(
        policy,
        &["drop", "reject"],
        Some("a x"),
        "DENY UNSUPPORTED invalid_client_metadata | refused x=UNSUPPORTED",
    );
    authorizes(
        policy,
        &["drop"],
        Some("a"),
        Some("x b a"),
        "ALLOW a | refused x=UNSUPPORTED b=UNREGISTERED | registered a",
    );
    authorizes(
        policy,
        &["reject", "drop"],
        Some("a"),
        Some("a x"),
        "DENY UNSUPPORTED invalid_scope | refused x=UNSUPPORTED",
    );
    authorizes(
        policy,
        &["reject", "drop"],
        Some("a"),
        Some("a b"),
        "DENY UNREGISTERED invalid_scope | refused b=UNREGISTERED",
    );
    authorizes(policy, &["drop", "reject"], Some("a"), None, "DENY SCOPE_REQUIRED invalid_scope");
}

#[test]
fn a_scope_that_all_refuse_has_the_reason_closest_to_a_grant() {
    authorizes(
        TWO,
        &["one", "two"],
        Some("a"),
        Some("c"),
        "DENY UNREGISTERED invalid_scope | refused c=UNREGISTERED",
    );
    let set = set(TWO);
    let audiences = strings(&["one", "two"]);
    let answer = check(&set, &audiences, Some("a"), Some("c x"), Client::default());
    assert_eq!(answer.refused[0].message, "c is supported at two, but this client has not registered it");
    assert_eq!(answer.refused[1].message, "x is not supported at one and 1 more");
}

#[test]
fn a_forbidden_scope_is_unregistered_where_another_audience_is_closer_to_a_grant() {
    let policy = "audiences:\n  one: {scopesSupported: [a, b], forbiddenScopes: [b]}\n  \
        two: {scopesSupported: [b]}\n  three: {scopesSupported: [c]}\n";
    let denied = |reason: &str| format!("DENY {reason} invalid_scope | refused b={reason}");
    authorizes(policy, &["one", "two"], Some("a"), Some("b"), &denied("UNREGISTERED"));
    authorizes(policy, &["one", "three"], Some("a"), Some("b"), &denied("UNSUPPORTED"));
    authorizes(policy, &["one"], Some("a"), Some("b"), &denied("FORBIDDEN"));
    // Where one would grant it, what stands in the way is that another forbids it.
    authorizes(policy, &["one", "two"], Some("b"), Some("b"), &denied("FORBIDDEN"));
}

#[test]
fn each_audience_matches_in_its_own_way() {
    let policy = "audiences:\n  tree: {scopeMatching: hierarchic, scopesSupported: [mcp]}\n  \
        plain: {scopesSupported: [mcp, mcp.read]}\n";
    authorizes(
        policy,
        &["tree", "plain"],
        Some("mcp"),
        Some("mcp.read"),
        "ALLOW mcp.read | registered mcp mcp.read | grants tree=mcp.read",
    );
    authorizes(
        policy,
        &["plain"],
        Some("mcp"),
        Some("mcp.read"),
        "DENY UNREGISTERED invalid_scope | refused mcp.read=UNREGISTERED",
    );
}

#[test]
fn each_audience_takes_an_unknown_registration_in_its_own_way() {
    let policy = "audiences:\n  none: {scopesSupported: [a], authorization: {unknownRegistration: none}}\n  \
        all: {scopesSupported: [a, b], authorization: {unknownRegistration: supported}}\n";
    authorizes(policy, &["none", "all"], None, Some("a b"), "ALLOW a b | registered a b | grants all=a b");
    authorizes(
        policy,
        &["none"],
        None,
        Some("a"),
        "DENY UNREGISTERED invalid_scope | refused a=UNREGISTERED",
    );
}

#[test]
fn an_audience_is_found_by_its_normal_form_and_named_as_in_the_policy() {
    let policy = "audiences:\n  HTTPS://One.example.com/: {scopesSupported: [a]}\n  https://two.example.com/mcp: {scopesSupported: [a, b]}\n";
    authorizes(
        policy,
        &["https://one.EXAMPLE.com:443", "https://one.example.com", "https://two.example.com/mcp"],
        Some("a b"),
        Some("a b"),
        "ALLOW a b | registered a b | grants HTTPS://One.example.com/=a, https://two.example.com/mcp=a b",
    );
}

#[test]
fn one_unknown_or_malformed_audience_denies_the_whole() {
    authorizes(TWO, &["one", "three"], Some("a"), Some("a"), "DENY AUDIENCE_UNKNOWN invalid_target");
    authorizes(
        TWO,
        &["https://x.example/#f", "three"],
        Some("a"),
        Some("a"),
        "DENY AUDIENCE_MALFORMED invalid_target",
    );
    authorizes(TWO, &["three", ""], Some("a"), Some("a"), "DENY AUDIENCE_UNKNOWN invalid_target");
    // RFC 7591 section 3.2.2 has only one error that fits a registration.
    registers(TWO, &["One"], Some("a"), "DENY AUDIENCE_UNKNOWN invalid_client_metadata");
    registers(TWO, &["a\n"], Some("a"), "DENY AUDIENCE_MALFORMED invalid_client_metadata");
    let set = set(TWO);
    let audiences = strings(&["three", "one", "https://x.example/#f", "four"]);
    let answer = check(&set, &audiences, None, Some("a"), Client::default());
    assert_eq!(
        answer.oauth_error.unwrap().error_description,
        "audience unknown: three four; audience malformed: https://x.example/#f"
    );
}

#[test]
fn an_empty_audience_counts_as_left_out() {
    registers(TWO, &["", "one"], Some("a"), "ALLOW a b | added b=BASELINE");
    registers(TWO, &["", ""], Some("c a"), "ALLOW c a b d | added b=BASELINE d=BASELINE");
    authorizes(TWO, &["one", ""], Some("a"), Some("a"), "ALLOW a | registered a");
    authorizes(TWO, &[""], Some("a"), Some("a"), "DENY AUDIENCE_REQUIRED invalid_target");
}

#[test]
fn a_registration_that_names_none_is_forbidden_only_what_all_that_support_it_forbid() {
    let policy = "audiences:\n  one: {scopesSupported: [a, b, c], forbiddenScopes: [b, c, x], \
        registration: {unsupportedScopes: drop}}\n  two: {scopesSupported: [b], baselineClientScopes: [b], \
        registration: {unsupportedScopes: drop}}\n";
    registers(policy, &[], Some("a"), "ALLOW a b | added b=BASELINE");
    registers(policy, &[], Some("b a"), "ALLOW b a");
    // Both are named: one that forbids is enough.
    registers(policy, &["one", "two"], Some("a b"), "ALLOW a | refused b=FORBIDDEN");
    registers(policy, &["one", "two"], None, "DENY SCOPE_REQUIRED invalid_client_metadata");
    // Nobody supports `x`; all that support `c` forbid it.
    registers(policy, &[], Some("a x c"), "ALLOW a b | added b=BASELINE | refused x=UNSUPPORTED c=FORBIDDEN");
    registers(policy, &["one", "two"], Some("a x c"), "ALLOW a | refused x=UNSUPPORTED c=UNSUPPORTED");
}

#[test]
fn no_audience_at_authorize_means_the_default_or_the_only_one() {
    let with_default = format!("{TWO}defaultAudience: two\n");
    authorizes(&with_default, &[], Some("a b"), Some("b"), "ALLOW b | registered b");
    authorizes(
        &with_default,
        &[],
        Some("a"),
        Some("a"),
        "DENY UNSUPPORTED invalid_scope | refused a=UNSUPPORTED",
    );
    authorizes(
        "audiences: {one: {scopesSupported: [a]}}",
        &[],
        Some("a"),
        Some("a"),
        "ALLOW a | registered a",
    );
    authorizes(TWO, &[], Some("a"), Some("a"), "DENY AUDIENCE_REQUIRED invalid_target");
}

#[test]
fn no_audience_at_registration_means_all_up_to_256() {
    #[track_caller]
    fn check(audiences: usize, default: &str, expected: &str) {
        let mut policy = format!("{default}audiences:\n");
        for at in 0..audiences {
            policy.push_str(&format!(
                "  a{at:03}: {{scopesSupported: [s{at:03}], baselineClientScopes: [s{at:03}]}}\n"
            ));
        }
        registers(&policy, &[], Some("s000"), expected);
    }
    check(1, "", "ALLOW s000");
    check(3, "", "ALLOW s000 s001 s002 | added s001=BASELINE s002=BASELINE");
    // All of them together goes before the default.
    check(2, "defaultAudience: a001\n", "ALLOW s000 s001 | added s001=BASELINE");
    let set_of = |count: usize| (1..count).map(|at| format!(" s{at:03}")).collect::<String>();
    let added = |count: usize| (1..count).map(|at| format!(" s{at:03}=BASELINE")).collect::<String>();
    for count in [17, MAX_REGISTRATION_AUDIENCES - 1, MAX_REGISTRATION_AUDIENCES] {
        check(count, "", &format!("ALLOW s000{} | added{}", set_of(count), added(count)));
    }
    check(MAX_REGISTRATION_AUDIENCES + 1, "", "DENY AUDIENCE_REQUIRED invalid_client_metadata");
    check(MAX_REGISTRATION_AUDIENCES + 1, "defaultAudience: a000\n", "ALLOW s000");
}

#[test]
fn a_scope_given_by_two_audiences_is_added_once_under_the_first_origin() {
    let policy = "audiences:\n  one: {scopesSupported: [a], defaultClientScopes: [], baselineClientScopes: [a]}\n  \
        two: {scopesSupported: [a], defaultClientScopes: [a]}\n";
    registers(policy, &["one", "two"], None, "ALLOW a | added a=DEFAULT");
    authorizes(
        policy,
        &["one", "two"],
        None,
        None,
        "ALLOW a | added a=DEFAULT | registered a | grants one=a, two=a",
    );
}

#[test]
fn registrations_that_name_none_are_for_the_audiences_that_the_policy_says() {
    let policy = format!("{TWO}registrationAudiences: [two]\n");
    registers(&policy, &[], Some("c"), "ALLOW c d | added d=BASELINE");
    registers(&policy, &[], Some("a"), "DENY UNSUPPORTED invalid_client_metadata | refused a=UNSUPPORTED");
    registers(&policy, &["one"], Some("a"), "ALLOW a b | added b=BASELINE");
}

#[test]
fn an_alias_and_a_query_that_is_ignored_mean_the_audience() {
    let policy = "audiences:\n  https://one.example.com/mcp: {scopesSupported: [a], aliases: [\"https://one.example.com/mcp/\", 7f3c], \
        ignoreQuery: true}\n  two: {scopesSupported: [a]}\n";
    for name in [
        "https://one.example.com/mcp",
        "https://ONE.example.com/mcp/",
        "7f3c",
        "https://one.example.com/mcp?kb_name=x",
        "https://one.example.com:443/mcp/?kb_name=x&y",
    ] {
        authorizes(policy, &[name], Some("a"), Some("a"), "ALLOW a | registered a");
        let grants = "ALLOW a | registered a | grants https://one.example.com/mcp=a, two=a";
        authorizes(policy, &[name, "two", "7f3c"], Some("a"), Some("a"), grants);
    }
    authorizes(policy, &["7F3C"], Some("a"), Some("a"), "DENY AUDIENCE_UNKNOWN invalid_target");
}

#[test]
fn each_audience_always_grants_where_it_grants_what_was_asked_for() {
    let policy = "audiences:\n  one: {scopesSupported: [a, x], authorization: {alwaysGrantScopes: [x]}}\n  \
        two: {scopesSupported: [b, x, y], authorization: {alwaysGrantScopes: [y]}}\n";
    authorizes(
        policy,
        &["one", "two"],
        Some("a b x y"),
        Some("a"),
        "ALLOW a x | added x=ALWAYS | registered a b x y | grants one=a x",
    );
    authorizes(
        policy,
        &["one", "two"],
        Some("a b x y"),
        Some("b a"),
        "ALLOW b a x y | added x=ALWAYS y=ALWAYS | registered a b x y | grants one=a x, two=b y",
    );
    // What another named audience forbids is not granted.
    let forbids = policy.replace("[b, x, y]", "[b, y], forbiddenScopes: [x]");
    authorizes(&forbids, &["one", "two"], Some("a x"), Some("a"), "ALLOW a | registered a | grants one=a");
}
