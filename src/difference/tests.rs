//! What widens and what does not, by example and against questions drawn at random.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngSeed, TestRunner};

use super::*;
use crate::decision::tests::draw::{Drawn, SCOPES, World, asked, compiled, policies};
use crate::policy::sample::set;

#[track_caller]
fn check(before: &str, after: &str, expected: &[&str]) {
    let lines: Vec<String> = changes(&set(before), &set(after)).iter().map(Change::to_string).collect();
    assert_eq!(lines, expected);
}

fn api(rest: &str) -> String {
    format!("audiences: {{api: {{scopesSupported: [a, b, a.b], defaultClientScopes: [a], {rest}}}}}")
}

#[test]
fn what_gives_nobody_more_does_not_widen() {
    // Without anything protected, equal bytes give less than prefixes.
    check(
        &api("scopeMatching: hierarchic"),
        &api("scopeMatching: exact"),
        &["api: scopeMatching hierarchic -> exact"],
    );
    let rule = |name: &str, when: &str| {
        api(&format!("clientRules: [{{name: {name}, when: {{{when}}}, baselineClientScopes: [b]}}]"))
    };
    check(
        &rule("one", "source: dcr"),
        &rule("other", "source: dcr"),
        &["api: clientRules.one removed", "api: clientRules.other added"],
    );
    check(
        &rule("one", "source: dcr"),
        &rule("one", "source: dcr, clientName: 'x*'"),
        &["api: clientRules.one when changed"],
    );
    check(
        &rule("one", "clientName: 'x*'"),
        &rule("one", "clientName: 'xy*'"),
        &["api: clientRules.one when changed"],
    );
    // Neither is a scope that the audience supports.
    check(
        &api("forbiddenScopes: [x]"),
        &api("privilegedScopes: [y]"),
        &["api: privilegedScopes +y", "api: forbiddenScopes -x"],
    );
    check(
        &api("authorization: {nothingLeft: reject}"),
        &api("authorization: {nothingLeft: default}"),
        &["api: authorization.nothingLeft reject -> default"],
    );
}

#[test]
fn what_gives_somebody_more_widens() {
    check(
        &api("scopeMatching: hierarchic, forbiddenScopes: [b]"),
        &api("forbiddenScopes: [b.c]"),
        &[
            "api: forbiddenScopes +b.c",
            "api: forbiddenScopes -b (widening)",
            "api: scopeMatching hierarchic -> exact (widening)",
        ],
    );
    let rule = |when: &str| {
        api(&format!("clientRules: [{{name: one, when: {{{when}}}, baselineClientScopes: [b]}}]"))
    };
    for (before, after) in [
        ("source: dcr", "source: cimd"),
        ("clientName: 'x*'", "clientName: '*x'"),
        ("clientName: 'xy*'", "clientName: 'x*'"),
        ("redirectUri: loopback", "redirectUri: 'http://127.0.0.1/x'"),
        ("grantTypes: [refresh_token, authorization_code]", "grantTypes: [refresh_token]"),
        ("source: dcr, grantTypes: [authorization_code]", "source: dcr"),
        ("clientIdHost: a.example", "source: cimd"),
        ("softwareId: x", "applicationType: web"),
    ] {
        check(&rule(before), &rule(after), &["api: clientRules.one when changed (widening)"]);
    }
    // Registered, and then given to a request without scope.
    check(&api("privilegedScopes: [b]"), &api(""), &["api: privilegedScopes -b (widening)"]);
    // A scope that denied the request is dropped instead, and the others of it get through.
    check(
        &api("authorization: {unsupportedScopes: drop}"),
        "audiences: {api: {scopesSupported: [a, b], defaultClientScopes: [a], authorization: {unsupportedScopes: drop}}}",
        &[
            "api: scopesSupported -a.b",
            "api: authorize `a a.b`, registration unknown: DENY UNREGISTERED -> ALLOW a (widening)",
        ],
    );
}

#[test]
fn what_a_token_gets_is_asked_too() {
    let token = |rest: &str| api(&format!("token: {{{rest}}}"));
    check(
        &api(""),
        &token("exceedingScopes: drop"),
        &["api: token.exceedingScopes reject -> drop (widening)"],
    );
    check(
        &token("unsupportedScopes: reject"),
        &api(""),
        &["api: token.unsupportedScopes reject -> drop (widening)"],
    );
    check(&api(""), &token("unsupportedScopes: reject"), &["api: token.unsupportedScopes drop -> reject"]);
    // Less of a policy gives a token less, though what is not supported is dropped: what is beyond the grant rejects in any case.
    let of = |scopes: &str| {
        format!("audiences: {{api: {{scopesSupported: [{scopes}], defaultClientScopes: []}}}}")
    };
    check(&of("a, b"), &of("a"), &["api: scopesSupported -b"]);
    check(&api(""), &api("forbiddenScopes: [b]"), &["api: forbiddenScopes +b"]);
    // A step-up scope is granted at authorize, and a client gets it with its own credentials once it is baseline.
    check(
        &api("authorization: {stepUpScopes: [b], unregisteredScopes: drop, omittedScope: reject}"),
        &api("baselineClientScopes: [b], authorization: {unregisteredScopes: drop, omittedScope: reject}"),
        &["api: baselineClientScopes +b (widening)", "api: authorization.stepUpScopes -b"],
    );
}

#[test]
fn the_need_to_name_an_audience_is_a_change() {
    let one = "audiences: {a: {scopesSupported: [openid]}}";
    let two = "audiences: {a: {scopesSupported: [openid]}, b: {scopesSupported: [openid]}}";
    let required = "authorize requests that name no audience: answered -> denied (narrowing)";
    check(one, two, &[required, "b: audience added (widening)"]);
    let answered = "authorize requests that name no audience: denied -> answered (widening)";
    check(two, one, &[answered, "b: audience removed"]);
    let with_default = format!("{{defaultAudience: a, {two}}}");
    check(one, &with_default, &["defaultAudience (none) -> a", "b: audience added (widening)"]);
    let many = |count: usize| {
        let names: Vec<String> =
            (0..count).map(|at| format!("a{at:03}: {{scopesSupported: [openid]}}")).collect();
        format!("audiences: {{{}}}", names.join(", "))
    };
    let register = |outcome: &str| format!("register requests that name no audience: {outcome}");
    let denied = register("answered -> denied (narrowing)");
    check(&many(256), &many(257), &[&denied, "a256: audience added (widening)"]);
    check(&many(257), &many(256), &[&register("denied -> answered (widening)"), "a256: audience removed"]);
}

/// A few settings of one audience changed, or of the set.
fn edited(world: &World, runner: &mut TestRunner) -> World {
    let mut edited = world.clone();
    let other = policies().new_tree(runner).unwrap().current();
    let place = (0..3usize).new_tree(runner).unwrap().current();
    let fields = proptest::collection::vec(0..20u8, 1..3).new_tree(runner).unwrap().current();
    let scope = select(SCOPES).new_tree(runner).unwrap().current();
    let (one, donor) = (&mut edited.policies[place], &other.policies[place]);
    let toggle = |list: &mut Vec<&'static str>| match list.iter().position(|known| *known == scope) {
        Some(at) => _ = list.remove(at),
        None => list.push(scope),
    };
    for field in fields {
        match field {
            0 => one.matching = donor.matching,
            1 => toggle(&mut one.supported),
            2 => toggle(&mut one.baseline),
            3 => one.default.clone_from(&donor.default),
            4 => toggle(&mut one.step_up),
            5 => toggle(&mut one.privileged),
            6 => toggle(&mut one.forbidden),
            7 => toggle(&mut one.rule),
            8 => toggle(&mut one.always),
            9 => one.drops[0] = !one.drops[0],
            10 => one.drops[1] = !one.drops[1],
            11 => one.drops[2] = !one.drops[2],
            12 => one.nothing_left = donor.nothing_left,
            13 => one.omitted = donor.omitted,
            14 => (one.unknown, one.is_one_word) = (donor.unknown, donor.is_one_word),
            15 => one.existing = !one.existing,
            16 => one.drops[3] = !one.drops[3],
            17 => one.drops[4] = !one.drops[4],
            18 => edited.default = other.default,
            _ => edited.registration.clone_from(&other.registration),
        }
    }
    if edited.policies[place].supported.is_empty() {
        edited.policies[place].supported.push(scope);
    }
    edited.policies = edited.policies.map(Drawn::valid);
    edited
}

/// Pairs of policies whose changes do not widen never answer a drawn question with more: 250 pairs with 300 questions each, or
/// as many as `SCOPEWARD_WIDENING_PAIRS` says.
#[test]
fn what_does_not_widen_answers_no_question_wider() {
    const PAIRS: usize = 250;
    let pairs = std::env::var("SCOPEWARD_WIDENING_PAIRS").map_or(PAIRS, |count| count.parse().unwrap());
    // The short run draws the same pairs each time; a long one draws others each time.
    let rng_seed = if pairs == PAIRS { RngSeed::Fixed(7591) } else { RngSeed::Random };
    let config = ProptestConfig { rng_seed, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new(config);
    let (mut quiet, mut marked, mut seen) = (0, 0, 0);
    for _ in 0..pairs {
        let world = policies().new_tree(&mut runner).unwrap().current();
        let other = edited(&world, &mut runner);
        let (before, after) = (compiled(&world), compiled(&other));
        let found = changes(&before, &after);
        let widens = found.iter().any(|change| change.widening);
        *if widens { &mut marked } else { &mut quiet } += 1;
        let mut is_seen = false;
        for _ in 0..60 {
            let asked = asked().new_tree(&mut runner).unwrap().current();
            for (old, new) in [
                (asked.expand(&before), asked.expand(&after)),
                (asked.update(&before), asked.update(&after)),
                (asked.check(&before), asked.check(&after)),
                (asked.refresh(&before), asked.refresh(&after)),
                (asked.credentials(&before), asked.credentials(&after)),
            ] {
                let wider = is_wider(&old, &new);
                is_seen |= wider;
                assert!(
                    !wider || widens,
                    "{asked:#?}\n{old:#?}\n{new:#?}\n{found:#?}\nbefore {}\nafter {}",
                    world.files().concat(),
                    other.files().concat()
                );
            }
        }
        seen += usize::from(is_seen);
    }
    println!("{pairs} pairs: {quiet} do not widen, {marked} do, a drawn question showed {seen} of these");
    assert!(quiet > pairs / 10 && marked > pairs / 10, "{quiet} {marked}");
    assert!(seen * 4 > marked, "{seen} of {marked}");
}
