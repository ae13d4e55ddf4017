//! `CheckTokenScopes`: the rules of the design, row by row (RFC 6749 sections 3.3, 5.2 and 6, RFC 8693, RFC 7523).

use super::{api, brief, set, sound, strings};
use crate::decision::limit::{MAX_ANSWER_SCOPE_BYTES, MAX_CLIENT_BYTES};
use crate::decision::token::{TokenQuestion, check_grant};
use crate::decision::{Answer, Client, Coverage, MAX_SCOPES, ScopeOutcome, TokenGrant, Withheld, token};
use crate::policy::{ClientSource, PolicySet};
use crate::scope::join;

/// Decides, and once more on the answer's own scope, which changes nothing.
#[track_caller]
fn decide<'a>(policy: &'a PolicySet, question: &TokenQuestion<'a>) -> Answer<'a> {
    let answer = token::check(policy, question);
    sound(&answer);
    assert!(answer.added.is_empty() && !answer.is_expansion(), "a token never gets more: {answer:?}");
    assert!(answer.effective_registered_scope().is_empty(), "{answer:?}");
    if answer.is_allowed() {
        let own = join(&answer.scope);
        let again = token::check(policy, &TokenQuestion { scope: Some(&own), ..*question });
        sound(&again);
        assert_eq!(again.scope, answer.scope, "deciding on its own output changes nothing");
        assert!(again.refused.is_empty(), "{again:?}");
        let again =
            token::check(policy, &TokenQuestion { granted_scope: Some(&own), scope: None, ..*question });
        assert_eq!(again.scope, answer.scope, "nor does a grant of it");
    }
    answer
}

#[track_caller]
fn asked(policy: &str, question: TokenQuestion<'_>, expected: &str) {
    let set = set(&api(policy));
    assert_eq!(brief(&decide(&set, &question)), expected, "{policy}, {question:?}");
}

/// A question with a grant.
#[track_caller]
fn granted(policy: &str, grant: &str, scope: impl Into<Option<&'static str>>, expected: &str) {
    let question = TokenQuestion { granted_scope: Some(grant), scope: scope.into(), ..Default::default() };
    asked(policy, question, expected);
    // What the client registered does not count where there is a grant.
    for registered in ["", "a b c d s p f"] {
        let client = Client { source: Some(ClientSource::Dcr), ..Client::default() };
        asked(policy, TokenQuestion { registered_scope: Some(registered), client, ..question }, expected);
    }
}

/// A question without a grant.
#[track_caller]
fn held(
    policy: &str,
    registered: impl Into<Option<&'static str>>,
    scope: impl Into<Option<&'static str>>,
    expected: &str,
) {
    let question =
        TokenQuestion { registered_scope: registered.into(), scope: scope.into(), ..Default::default() };
    asked(policy, question, expected);
}

const POLICY: &str = "scopesSupported: [a, b, c, s, p, f], baselineClientScopes: [b], defaultClientScopes: [c], \
    privilegedScopes: [p], forbiddenScopes: [f], authorization: {stepUpScopes: [s]";

#[test]
fn a_grant_says_what_a_token_may_have() {
    granted("scopesSupported: [a, b, c]", "a b", "a", "ALLOW a");
    granted("scopesSupported: [a, b, c]", "a b", "b a", "ALLOW b a");
    let beyond = "DENY EXCEEDS_GRANT invalid_scope | refused c=EXCEEDS_GRANT";
    granted("scopesSupported: [a, b, c]", "a b", "a c", beyond);
    // Neither baseline nor defaults nor step-up scopes come in.
    granted(&format!("{POLICY}}}"), "a", "b", "DENY EXCEEDS_GRANT invalid_scope | refused b=EXCEEDS_GRANT");
    granted(&format!("{POLICY}}}"), "a", "c", "DENY EXCEEDS_GRANT invalid_scope | refused c=EXCEEDS_GRANT");
    granted(&format!("{POLICY}}}"), "a", "s", "DENY EXCEEDS_GRANT invalid_scope | refused s=EXCEEDS_GRANT");
    // Once granted, they may be had like all else that was.
    granted(&format!("{POLICY}}}"), "a s p", "p s", "ALLOW p s");
}

#[test]
fn an_omitted_scope_stands_for_all_that_is_granted() {
    for scope in [None, Some(""), Some("   ")] {
        granted(&format!("{POLICY}}}"), "a c", scope, "ALLOW a c");
        // What has to be asked for was asked for when it was granted.
        granted(&format!("{POLICY}}}"), "p s a", scope, "ALLOW p s a");
        // The policy took back f and x since.
        granted(&format!("{POLICY}}}"), "f a x", scope, "ALLOW a");
        granted(&format!("{POLICY}}}"), "f x", scope, "DENY SCOPE_REQUIRED invalid_scope");
        granted(&format!("{POLICY}}}"), "", scope, "DENY SCOPE_REQUIRED invalid_scope");
    }
    // The settings of authorize requests do not count here.
    let reject = "scopesSupported: [a], authorization: {omittedScope: reject}";
    granted(reject, "a", None, "ALLOW a");
}

#[test]
fn a_grant_of_nothing_is_one() {
    granted("scopesSupported: [a]", "", "a", "DENY EXCEEDS_GRANT invalid_scope | refused a=EXCEEDS_GRANT");
    granted("scopesSupported: [a]", "  ", "a", "DENY EXCEEDS_GRANT invalid_scope | refused a=EXCEEDS_GRANT");
}

#[test]
fn what_the_policy_took_back_is_dropped_or_rejects() {
    let policy = format!("{POLICY}}}");
    granted(&policy, "a f x", "a f x", "ALLOW a | refused f=FORBIDDEN x=UNSUPPORTED");
    granted(
        &policy,
        "a f x",
        "f x",
        "DENY NOTHING_GRANTED invalid_scope | refused f=FORBIDDEN x=UNSUPPORTED",
    );
    let reject = format!("{POLICY}}}, token: {{unsupportedScopes: reject}}");
    let denied = "DENY FORBIDDEN invalid_scope | refused f=FORBIDDEN x=UNSUPPORTED";
    granted(&reject, "a f x", "a f x", denied);
    granted(&reject, "a f x", "a", "ALLOW a");
    // An omitted scope names none that could reject it.
    granted(&reject, "a f x", None, "ALLOW a");
}

#[test]
fn what_exceeds_the_grant_rejects_or_is_dropped() {
    let drop = format!("{POLICY}}}, token: {{exceedingScopes: drop}}");
    granted(&drop, "a", "a c", "ALLOW a | refused c=EXCEEDS_GRANT");
    granted(
        &drop,
        "a",
        "c b",
        "DENY NOTHING_GRANTED invalid_scope | refused c=EXCEEDS_GRANT b=EXCEEDS_GRANT",
    );
    // Beyond the grant is beyond the grant, whether or not the policy would drop it: less of a policy lets no request through.
    let policy = format!("{POLICY}}}");
    let denied = "DENY EXCEEDS_GRANT invalid_scope | refused x=EXCEEDS_GRANT f=EXCEEDS_GRANT";
    granted(&policy, "a", "a x f", denied);
    let other = format!("{POLICY}}}, token: {{exceedingScopes: drop, unsupportedScopes: reject}}");
    granted(&other, "a x", "a c x", "DENY UNSUPPORTED invalid_scope | refused c=EXCEEDS_GRANT x=UNSUPPORTED");
    granted(&other, "a x", "a c f", "ALLOW a | refused c=EXCEEDS_GRANT f=EXCEEDS_GRANT");
}

#[test]
fn a_token_outside_the_grammar_always_rejects_where_it_is_asked_for() {
    let drop = "scopesSupported: [a], token: {exceedingScopes: drop, unsupportedScopes: drop}";
    granted(drop, "a \"", "a \"", "DENY MALFORMED invalid_scope | refused \"=MALFORMED");
    granted(drop, "a", "a\tb", "DENY MALFORMED invalid_scope | refused a\tb=MALFORMED");
    held(drop, "a", "é a", "DENY MALFORMED invalid_scope | refused é=MALFORMED");
    // In a grant or a registration it is ignored.
    granted(drop, "\" a é", None, "ALLOW a");
    granted(drop, "\" é", None, "DENY SCOPE_REQUIRED invalid_scope");
    held(drop, "\" a", None, "ALLOW a");
}

#[test]
fn without_a_grant_a_token_has_what_the_client_holds() {
    let policy = format!("{POLICY}}}");
    held(&policy, "a", "a b", "ALLOW a b");
    held(&policy, "a", "c", "DENY EXCEEDS_GRANT invalid_scope | refused c=EXCEEDS_GRANT");
    held(&policy, "a p", "p", "ALLOW p");
    held(&policy, "a x", "a x", "ALLOW a | refused x=UNSUPPORTED");
    held(&policy, "", "b", "ALLOW b");
    let new_only = format!("{POLICY}, baselineForExistingClients: false}}");
    held(&new_only, "a", "b", "DENY EXCEEDS_GRANT invalid_scope | refused b=EXCEEDS_GRANT");
    let rule =
        "scopesSupported: [a, b], clientRules: [{name: r, when: {source: dcr}, baselineClientScopes: [b]}]";
    let dcr = Client { source: Some(ClientSource::Dcr), ..Client::default() };
    let question = TokenQuestion { registered_scope: Some("a"), scope: Some("b a"), ..Default::default() };
    asked(rule, TokenQuestion { client: dcr, ..question }, "ALLOW b a");
    asked(rule, question, "DENY EXCEEDS_GRANT invalid_scope | refused b=EXCEEDS_GRANT");
}

#[test]
fn step_up_scopes_and_defaults_are_not_held() {
    let policy = format!("{POLICY}}}");
    held(&policy, "a", "s", "DENY EXCEEDS_GRANT invalid_scope | refused s=EXCEEDS_GRANT");
    held(&policy, "a s", "s", "ALLOW s");
    // An unknown registration is one without scope, of which only the baseline counts here.
    held(&policy, None, "c", "DENY EXCEEDS_GRANT invalid_scope | refused c=EXCEEDS_GRANT");
    held(&policy, None, "b", "ALLOW b");
    held(&policy, None, None, "ALLOW b");
    let none = format!("{POLICY}, unknownRegistration: none}}");
    held(&none, None, "b", "DENY EXCEEDS_GRANT invalid_scope | refused b=EXCEEDS_GRANT");
    held(&none, None, None, "DENY SCOPE_REQUIRED invalid_scope");
    let supported = format!("{POLICY}, unknownRegistration: supported}}");
    held(&supported, None, "p s c", "ALLOW p s c");
    held(&supported, None, "x", "DENY EXCEEDS_GRANT invalid_scope | refused x=EXCEEDS_GRANT");
    held(&supported, None, None, "ALLOW b");
}

#[test]
fn an_omitted_scope_without_a_grant_never_stands_for_what_has_to_be_asked_for() {
    let policy = format!("{POLICY}}}");
    held(&policy, "p a s", None, "ALLOW a b");
    held(&policy, "f x", None, "ALLOW b");
    let alone = "scopesSupported: [a, p], privilegedScopes: [p]";
    held(alone, "p", None, "DENY SCOPE_REQUIRED invalid_scope");
    held(alone, "p", "p", "ALLOW p");
    let wildcard = "scopesSupported: [m.*], scopeMatching: wildcard";
    held(wildcard, "m.* m.a", None, "ALLOW m.a");
    held(wildcard, "m.*", "m.*", "ALLOW m.*");
    // It is in the grant because somebody asked for it.
    granted(wildcard, "m.* m.a", None, "ALLOW m.* m.a");
    // Where the default stands in for an omitted scope at authorize, it does not here.
    held(&format!("{POLICY}, omittedScope: default}}"), "a c", None, "ALLOW a c b");
}

#[test]
fn one_scope_of_a_grant_covers_others_as_the_audience_matches_them() {
    let exact = "scopesSupported: [m, m.a]";
    granted(exact, "m", "m.a", "DENY EXCEEDS_GRANT invalid_scope | refused m.a=EXCEEDS_GRANT");
    let hierarchic = "scopesSupported: [m], scopeMatching: hierarchic";
    granted(hierarchic, "m", "m.a.b", "ALLOW m.a.b");
    granted(hierarchic, "m", None, "ALLOW m");
    granted(hierarchic, "m.a", "m", "DENY EXCEEDS_GRANT invalid_scope | refused m=EXCEEDS_GRANT");
    // A scope that covers others has to be supported itself, and never covers a privileged one.
    let narrow = "scopesSupported: [m.a], scopeMatching: hierarchic";
    granted(narrow, "m", "m.a", "DENY EXCEEDS_GRANT invalid_scope | refused m.a=EXCEEDS_GRANT");
    let privileged = "scopesSupported: [m], privilegedScopes: [m.p], scopeMatching: hierarchic";
    granted(privileged, "m.x", "m.p", "DENY EXCEEDS_GRANT invalid_scope | refused m.p=EXCEEDS_GRANT");
    granted(privileged, "m", "m.p", "DENY EXCEEDS_GRANT invalid_scope | refused m.p=EXCEEDS_GRANT");
    granted(privileged, "m.p", "m.p", "ALLOW m.p");
    let wildcard = "scopesSupported: [m.*], forbiddenScopes: [m.f], scopeMatching: wildcard";
    granted(wildcard, "m.*", "m.a", "DENY EXCEEDS_GRANT invalid_scope | refused m.a=EXCEEDS_GRANT");
    granted("scopesSupported: [m.*], scopeMatching: wildcard", "m.*", "m.a m.b", "ALLOW m.a m.b");
}

/// RFC 6749 section 6: a refresh "MUST NOT include any scope not originally granted".
#[test]
fn no_edit_of_the_policy_lets_a_refresh_gain_a_scope() {
    let before = set(&api("scopesSupported: [a, b]"));
    for after in [
        "scopesSupported: [a, b, c]",
        "scopesSupported: [a, b, c], baselineClientScopes: [c]",
        "scopesSupported: [a, b, c], defaultClientScopes: [c]",
        "scopesSupported: [a, b, c], authorization: {stepUpScopes: [c], unknownRegistration: supported}",
        "scopesSupported: [a, b, c], baselineClientScopes: [b], authorization: {alwaysGrantScopes: [b, c]}",
        "scopesSupported: [a, b, c], clientRules: [{name: r, when: {source: dcr}, baselineClientScopes: [b, c]}]",
        "scopesSupported: [a, b, c], token: {exceedingScopes: drop}",
    ] {
        let after = set(&api(after));
        for scope in [None, Some("a"), Some("a c"), Some("c"), Some("b")] {
            let client = Client { source: Some(ClientSource::Dcr), ..Client::default() };
            let question = TokenQuestion { granted_scope: Some("a"), scope, client, ..Default::default() };
            let old = decide(&before, &question);
            let new = decide(&after, &question);
            assert!(
                new.scope.iter().all(|scope| *scope == "a"),
                "{scope:?}: {} {}",
                brief(&old),
                brief(&new)
            );
        }
    }
}

const TWO: &str = "audiences:\n  one: {scopesSupported: [a, b]}\n  two: {scopesSupported: [b, c], forbiddenScopes: [f], \
    token: {exceedingScopes: drop}}\n  three: {scopesSupported: [f, d], token: {exceedingScopes: drop}}\n";

#[track_caller]
fn at(audiences: &[&str], question: TokenQuestion<'_>, expected: &str) {
    let (set, names) = (set(TWO), strings(audiences));
    let question = TokenQuestion { audiences: (&names).into(), ..question };
    assert_eq!(brief(&decide(&set, &question)), expected, "{audiences:?}, {question:?}");
}

#[test]
fn several_audiences_decide_alone_and_are_joined() {
    let question = |grant, scope| TokenQuestion { granted_scope: Some(grant), scope, ..Default::default() };
    let all = "ALLOW a b c | grants one=a b, two=b c";
    at(&["one", "two"], question("a b c", None), all);
    at(&["one", "two"], question("a b c", Some("a b c")), all);
    at(&["two", "one"], question("a b c", None), "ALLOW b c a | grants two=b c, one=b a");
    at(&["one"], question("a b c", None), "ALLOW a b");
    // Forbidden at one of them is forbidden at all.
    at(&["three"], question("d f", None), "ALLOW d f");
    at(&["three", "two"], question("d f", None), "ALLOW d | grants three=d");
    at(&["three", "two"], question("d f", Some("d f")), "ALLOW d | refused f=FORBIDDEN | grants three=d");
    // Where they differ, reject wins.
    let beyond = "DENY EXCEEDS_GRANT invalid_scope | refused c=EXCEEDS_GRANT";
    at(&["one", "two"], question("b", Some("b c")), beyond);
    at(&["three", "two"], question("b", Some("b c")), "ALLOW b | refused c=EXCEEDS_GRANT | grants two=b");
    // Not supported anywhere, and granted before.
    at(
        &["one", "two"],
        question("b x", Some("b x")),
        "ALLOW b | refused x=UNSUPPORTED | grants one=b, two=b",
    );
}

#[test]
fn audiences_are_found_as_at_authorize() {
    let question = TokenQuestion { granted_scope: Some("a"), ..Default::default() };
    at(&[], question, "DENY AUDIENCE_REQUIRED invalid_target");
    at(&["", "one"], question, "ALLOW a");
    at(&["one", "one"], question, "ALLOW a");
    at(&["nope"], question, "DENY AUDIENCE_UNKNOWN invalid_target");
    at(&["one", "https://x#y"], question, "DENY AUDIENCE_MALFORMED invalid_target");
    let set =
        set("audiences: {one: {scopesSupported: [a]}, two: {scopesSupported: [b]}}\ndefaultAudience: one");
    assert_eq!(brief(&decide(&set, &question)), "ALLOW a");
}

#[test]
fn as_many_scopes_as_were_granted_may_be_asked_for() {
    let names: Vec<String> = (0..2 * MAX_SCOPES).map(|at| format!("s{at}")).collect();
    let set = set(&api(&format!("scopesSupported: [{}]", names.join(", "))));
    let all = names.join(" ");
    let question = TokenQuestion { scope: Some(&all), ..Default::default() };
    let granted = TokenQuestion { granted_scope: Some(&all), ..question };
    assert_eq!(decide(&set, &granted).scope.len(), names.len());
    let registered = TokenQuestion { registered_scope: Some(&all), ..question };
    assert_eq!(decide(&set, &registered).scope.len(), names.len());
    // What is registered does not count next to a grant.
    let narrower = TokenQuestion { granted_scope: Some("s1"), ..registered };
    assert_eq!(brief(&decide(&set, &narrower)), "DENY TOO_MANY_SCOPES invalid_scope");
    let large = "x".repeat(MAX_CLIENT_BYTES + 1);
    let client = Client { client_name: &large, ..Client::default() };
    let question = TokenQuestion { granted_scope: Some("s1"), client, ..Default::default() };
    assert_eq!(brief(&decide(&set, &question)), "DENY CLIENT_TOO_LARGE invalid_scope");
}

#[test]
fn a_grant_that_would_not_fit_the_next_question_is_a_denial() {
    let names: Vec<String> = (0..200).map(|at| format!("{at:0500}")).collect();
    let all = names.join(" ");
    assert!(all.len() > MAX_ANSWER_SCOPE_BYTES);
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    let set = set(&api(&format!("scopesSupported: [{}]", quoted.join(", "))));
    let question = TokenQuestion { granted_scope: Some(&all), ..Default::default() };
    assert_eq!(brief(&decide(&set, &question)), "DENY TOO_MANY_SCOPES invalid_scope");
}

#[test]
fn a_question_says_what_is_presented_and_what_that_stands_for() {
    let said = |grant, scope| check_grant(grant, scope).err().map(|error| error.to_string());
    let missing = Some("`grant` is required: what the client presents for the token".to_owned());
    assert_eq!(said(None, None), missing);
    assert_eq!(said(None, Some("a")), missing);
    for (grant, is_needed) in [
        (TokenGrant::Refresh, true),
        (TokenGrant::TokenExchange, true),
        (TokenGrant::ClientCredentials, false),
        (TokenGrant::JwtBearer, false),
    ] {
        let needed = format!("`granted_scope` is required where `grant` is {}", grant.as_str());
        assert_eq!(said(Some(grant), None), is_needed.then_some(needed));
        assert_eq!(said(Some(grant), Some("")), None);
    }
}

#[test]
fn refusals_say_what_there_was() {
    let policy = set(&api(&format!("{POLICY}}}")));
    let words = |question: TokenQuestion<'_>| {
        let answer = token::check(&policy, &question);
        let message = answer.refused.first().map(|refused| refused.message.clone()).unwrap_or_default();
        (message, answer.oauth_error.map(|error| error.error_description).unwrap_or_default())
    };
    let (c, x) = (Some("c"), Some("x"));
    let granted =
        |grant, scope| words(TokenQuestion { granted_scope: Some(grant), scope, ..Default::default() });
    let said = |message: &str, description: &str| (message.to_owned(), description.to_owned());
    assert_eq!(
        granted("a", c),
        said("c is not granted at api: the grant does not cover it", "scope exceeds the grant: c")
    );
    assert_eq!(
        granted("x", x),
        said("x is not supported at api now, though the grant has it", "scope granted before but not now: x")
    );
    let held = |registered, scope| {
        words(TokenQuestion { registered_scope: registered, scope, ..Default::default() })
    };
    assert_eq!(
        held(Some("a"), c),
        said(
            "c is not granted at api: there is no grant, and this client does not hold it",
            "scope not held by this client: c"
        )
    );
    assert_eq!(
        held(None, c),
        said(
            "c is not granted at api: there is no grant, and what this client registered is unknown",
            "scope not held by this client: c"
        )
    );
    assert_eq!(
        held(Some("x"), x),
        said(
            "x is not supported at api now, though this client registered it",
            "scope registered but not granted now: x"
        )
    );
}

#[test]
fn the_trail_tells_how_each_scope_fared() {
    let policy = set(&api(&format!("{POLICY}}}")));
    let steps = |question: TokenQuestion<'_>| {
        let answer = token::explain(&policy, &question);
        assert_eq!(brief(&answer), brief(&token::check(&policy, &question)));
        let step = |step: &crate::decision::ScopeStep<'_>| {
            let held = match step.held {
                None => "-".to_owned(),
                Some(Coverage::Granted(token)) => format!("granted {token}"),
                Some(Coverage::Registered(token)) => format!("registered {token}"),
                Some(Coverage::Baseline(at)) => format!("baseline {at}"),
                Some(other) => format!("{other:?}"),
            };
            let outcome = match step.outcome {
                ScopeOutcome::Granted => "yes".to_owned(),
                ScopeOutcome::Refused(reason) => reason.as_str().to_owned(),
                ScopeOutcome::Withheld(Withheld::Privileged) => "privileged".to_owned(),
                ScopeOutcome::Withheld(why) => format!("{why:?}"),
            };
            format!("{}{}: {held}: {outcome}", if step.asked { "" } else { "(unasked) " }, step.scope)
        };
        answer.trail.iter().map(step).collect::<Vec<_>>()
    };
    let granted = TokenQuestion { granted_scope: Some("a f p"), ..Default::default() };
    assert_eq!(
        steps(TokenQuestion { scope: Some("a f b"), ..granted }),
        ["a: granted a: yes", "f: granted f: FORBIDDEN", "b: -: EXCEEDS_GRANT"]
    );
    assert_eq!(
        steps(granted),
        ["(unasked) a: granted a: yes", "(unasked) f: granted f: Forbidden", "(unasked) p: granted p: yes"]
    );
    assert_eq!(
        steps(TokenQuestion { registered_scope: Some("a p"), ..Default::default() }),
        [
            "(unasked) a: registered a: yes",
            "(unasked) p: registered p: privileged",
            "(unasked) b: baseline 0: yes"
        ]
    );
}
