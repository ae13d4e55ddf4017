//! The limits of a policy, at, below and above each; and that a policy full of mistakes is judged in bounded time.

use super::{findings, sound};
use crate::audience::MAX_AUDIENCE_BYTES;
use crate::policy::finding::Code;
use crate::policy::sample::{api, read};
use crate::policy::{
    MAX_ALIASES, MAX_DESCRIPTION_CHARS, MAX_NAME_BYTES, MAX_REGISTRATION_AUDIENCES,
    MAX_SCOPE_DESCRIPTION_CHARS,
};

#[test]
fn limits_of_a_policy_hold_at_below_and_above() {
    #[track_caller]
    fn check(text: &str, expected: Option<Code>) {
        let found = findings(&[("a.yaml", text)]);
        for finding in &found {
            sound(&[("a.yaml", text)], finding);
        }
        assert_eq!(found.iter().map(|finding| finding.code).collect::<Vec<_>>(), Vec::from_iter(expected));
    }
    for (length, expected) in [(511, None), (512, None), (513, Some(Code::ScopeMalformed))] {
        check(&api(&format!("scopesSupported: [{}]", "a".repeat(length))), expected);
    }
    for (over, expected) in [(-1, None), (0, None), (1, Some(Code::ValueTooLarge))] {
        let length = MAX_AUDIENCE_BYTES.saturating_add_signed(over);
        check(&format!("audiences: {{{}: {{scopesSupported: [a]}}}}", "a".repeat(length)), expected);
        let length = MAX_NAME_BYTES.saturating_add_signed(over);
        let rule = |name: &str, pattern: &str| {
            api(&format!(
                "scopesSupported: [a], clientRules: [{{name: {name}, when: {{clientName: {pattern}}}, \
                 baselineClientScopes: [a]}}]"
            ))
        };
        check(&rule(&"n".repeat(length), "x"), expected);
        check(&rule("n", &"x".repeat(length)), expected);
    }
    for (count, expected) in [(9, None), (10, None), (11, Some(Code::TooManyBaselineScopes))] {
        let list = (0..count).map(|at| format!("s{at}")).collect::<Vec<_>>().join(", ");
        check(&api(&format!("scopesSupported: [{list}], baselineClientScopes: [{list}]")), expected);
        check(
            &api(&format!(
                "scopesSupported: [{list}], clientRules: [{{name: n, when: {{source: dcr}}, \
                 baselineClientScopes: [{list}]}}]"
            )),
            expected,
        );
    }
    for (count, expected) in [(2, None), (3, None), (4, Some(Code::TooManyBaselineScopes))] {
        let list = (0..count).map(|at| format!("s{at}")).collect::<Vec<_>>().join(", ");
        let text = api(&format!("scopesSupported: [{list}], baselineClientScopes: [{list}]"));
        check(&format!("{text}\nguardrails: {{maxBaselineClientScopes: 3}}"), expected);
    }
    for (max, expected) in [
        ("0", None),
        ("10", None),
        ("11", Some(Code::ValueTooLarge)),
        ("-1", Some(Code::WrongType)),
        ("1.5", Some(Code::WrongType)),
        ("99999999999", Some(Code::WrongType)),
    ] {
        let text = api("scopesSupported: [a]");
        check(&format!("{text}\nguardrails: {{maxBaselineClientScopes: {max}}}"), expected);
    }
}

#[test]
fn limits_of_names_and_texts_hold_at_below_and_above() {
    #[track_caller]
    fn check(text: &str, expected: Option<Code>) {
        let found = findings(&[("a.yaml", text)]);
        for finding in &found {
            sound(&[("a.yaml", text)], finding);
        }
        assert_eq!(found.iter().map(|finding| finding.code).collect::<Vec<_>>(), Vec::from_iter(expected));
    }
    for (over, expected) in [(-1, None), (0, None), (1, Some(Code::ValueTooLarge))] {
        let text = |most: usize| "\u{e9}".repeat(most.saturating_add_signed(over));
        let description = text(MAX_DESCRIPTION_CHARS);
        check(&api(&format!("scopesSupported: [a], description: {description}")), expected);
        let description = text(MAX_SCOPE_DESCRIPTION_CHARS);
        check(&api(&format!("scopesSupported: [a], scopeDescriptions: {{a: {description}}}")), expected);
        let aliases: Vec<_> =
            (0..MAX_ALIASES.saturating_add_signed(over)).map(|at| format!("x{at}")).collect();
        check(&api(&format!("scopesSupported: [a], aliases: [{}]", aliases.join(", "))), expected);
        let alias = "x".repeat(MAX_AUDIENCE_BYTES.saturating_add_signed(over));
        check(&api(&format!("scopesSupported: [a], aliases: [{alias}]")), expected);
        let count = MAX_REGISTRATION_AUDIENCES.saturating_add_signed(over);
        let names: Vec<_> = (0..count).map(|at| format!("x{at}")).collect();
        let audiences: Vec<_> =
            names.iter().map(|name| format!("{name}: {{scopesSupported: [a]}}")).collect();
        let audiences = format!("audiences: {{{}}}\n", audiences.join(", "));
        check(&format!("{audiences}registrationAudiences: [{}]\n", names.join(", ")), expected);
        let expected = expected.map(|_| Code::RegistrationNeedsAudience);
        check(&audiences, expected);
        check(&format!("{audiences}defaultAudience: x0\n"), None);
        check(&format!("{audiences}registrationAudiences: [x0]\n"), None);
    }
}

#[test]
fn a_name_that_ignores_queries_costs_no_more_for_being_used_often() {
    // Each audience compared with each other that differs by its query would take minutes.
    let audiences: String = (0..20_000)
        .map(|at| format!("  https://a.example/?k={at}: {{scopesSupported: [a], ignoreQuery: true}}\n"))
        .collect();
    let found = read(&[("a.yaml", &format!("audiences:\n{audiences}"))]).unwrap_err();
    assert_eq!(found.count(), 19_999);
}

#[test]
fn a_list_that_is_all_wrong_is_judged_in_bounded_time() {
    // Each entry compared with each supported scope for a "did you mean" would take minutes.
    let supported = (0..20_000).map(|at| format!("supported.scope{at}")).collect::<Vec<_>>().join(", ");
    let default = (0..20_000).map(|at| format!("supported_scope{at}")).collect::<Vec<_>>().join(", ");
    let text = api(&format!("scopesSupported: [{supported}], defaultClientScopes: [{default}]"));
    let found = read(&[("a.yaml", &text)]).unwrap_err();
    assert_eq!((found.len(), found.count()), (1000, 20_000));
}
