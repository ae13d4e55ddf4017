//! What holds for every policy and every question: drawn at random over a small alphabet of dotted
//! scopes, so that the ways of matching are exercised.

use std::collections::HashSet;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{brief, check, expand, set};
use crate::decision::{Answer, Client, Reason};
use crate::policy::sample::read;
use crate::policy::{AudiencePolicy, ClientSource, PolicySet};
use crate::scope::join;
use crate::scope::matching::ScopeMatching::{self, Exact, Hierarchic, Wildcard};
use crate::scope::matching::has_star_segment;

const SCOPES: &[&str] = &[
    "a", "a.b", "a.b.c", "a.c", "a.*", "a.*.c", "*", "*.b", "b", "b.a", "b.*", "a..b", "b.", "c:*", "openid",
];
const NAMES: [&str; 3] = ["https://one.example.com", "two", "urn:three"];

/// One audience as drawn; lists may hold what is not valid, see [`Drawn::valid`].
#[derive(Clone, Debug)]
struct Drawn {
    matching: ScopeMatching,
    supported: Vec<&'static str>,
    baseline: Vec<&'static str>,
    default: Option<Vec<&'static str>>,
    step_up: Vec<&'static str>,
    privileged: Vec<&'static str>,
    forbidden: Vec<&'static str>,
    rule: Vec<&'static str>,
    drops: [bool; 3],
    omitted: &'static str,
    unknown: &'static str,
    existing: bool,
}

impl Drawn {
    /// Leaves out of each list what a policy may not hold there.
    fn valid(mut self) -> Self {
        let Self { matching, supported, privileged, forbidden, .. } = self.clone();
        let stopped = |list: &[&str], scope: &str| list.iter().any(|entry| matching.stops(entry, scope));
        let may_step_up = |scope: &&str| {
            supported.iter().any(|entry| matching.matches(entry, scope)) && !stopped(&forbidden, scope)
        };
        let may_be_given = |scope: &&str| {
            may_step_up(scope)
                && !stopped(&privileged, scope)
                && !(matching == Wildcard && has_star_segment(scope))
        };
        self.step_up.retain(may_step_up);
        self.baseline.retain(may_be_given);
        self.rule.retain(may_be_given);
        if let Some(default) = &mut self.default {
            default.retain(may_be_given);
        }
        self
    }

    fn yaml(&self, name: &str) -> String {
        let list = |list: &[&str]| {
            format!("[{}]", list.iter().map(|one| format!("\"{one}\"")).collect::<Vec<_>>().join(", "))
        };
        let treatment = |drop| if drop { "drop" } else { "reject" };
        let [at_registration, unsupported, unregistered] = self.drops.map(treatment);
        let mut text = format!(
            "audiences:\n  {name}:\n    scopesSupported: {}\n    baselineClientScopes: {}\n    privilegedScopes: {}\n    \
             forbiddenScopes: {}\n    scopeMatching: {}\n    registration: {{unsupportedScopes: {at_registration}}}\n    \
             authorization: {{unsupportedScopes: {unsupported}, unregisteredScopes: {unregistered}, \
             omittedScope: {}, unknownRegistration: {}, baselineForExistingClients: {}, stepUpScopes: {}}}\n",
            list(&self.supported),
            list(&self.baseline),
            list(&self.privileged),
            list(&self.forbidden),
            self.matching.as_str(),
            self.omitted,
            self.unknown,
            self.existing,
            list(&self.step_up),
        );
        if let Some(default) = &self.default {
            text.push_str(&format!("    defaultClientScopes: {}\n", list(default)));
        }
        if !self.rule.is_empty() {
            text.push_str(&format!(
                "    clientRules: [{{name: r, when: {{source: dcr}}, baselineClientScopes: {}}}]\n",
                list(&self.rule)
            ));
        }
        text
    }
}

fn scopes(most: usize) -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(SCOPES, 0..=most).prop_shuffle()
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let lists = (
        subsequence(SCOPES, 1..=8).prop_shuffle(),
        scopes(8),
        option::of(scopes(8)),
        scopes(5),
        scopes(2),
        scopes(2),
        scopes(4),
    );
    let knobs = (
        select(vec![Exact, Hierarchic, Wildcard]),
        any::<[bool; 3]>(),
        select(vec!["registered", "default", "reject"]),
        select(vec!["omitted", "none", "supported"]),
        any::<bool>(),
    );
    (lists, knobs).prop_map(
        |(
            (supported, baseline, default, step_up, privileged, forbidden, rule),
            (matching, drops, omitted, unknown, existing),
        )| {
            Drawn {
                matching,
                supported,
                baseline,
                default,
                step_up,
                privileged,
                forbidden,
                rule,
                drops,
                omitted,
                unknown,
                existing,
            }
        },
    )
}

#[derive(Clone, Debug)]
struct Asked {
    audiences: Vec<String>,
    scope: Option<String>,
    registered: Option<String>,
    source: Option<ClientSource>,
}

impl Asked {
    fn client(&self) -> Client<'static> {
        Client { source: self.source, ..Client::default() }
    }

    fn tokens(&self) -> Vec<&str> {
        crate::scope::distinct_tokens(self.scope.as_deref().unwrap_or_default())
    }

    fn expand<'a>(&'a self, set: &'a PolicySet) -> Answer<'a> {
        expand(set, &self.audiences, self.scope.as_deref(), self.client())
    }

    fn check<'a>(&'a self, set: &'a PolicySet) -> Answer<'a> {
        check(set, &self.audiences, self.registered.as_deref(), self.scope.as_deref(), self.client())
    }
}

fn asked() -> impl Strategy<Value = Asked> {
    let token = || prop_oneof![9 => select(SCOPES), 1 => select(vec!["unknown", "a.b.x", "a\tb"])];
    let parameter = move || option::of(vec(token(), 0..6).prop_map(|tokens| tokens.join(" ")));
    let source = select(vec![None, Some(ClientSource::Dcr), Some(ClientSource::Cimd)]);
    (subsequence(&NAMES[..], 0..=3).prop_shuffle(), parameter(), parameter(), source).prop_map(
        |(audiences, scope, registered, source)| Asked {
            audiences: audiences.into_iter().map(str::to_owned).collect(),
            scope,
            registered,
            source,
        },
    )
}

/// Three files with an audience each, valid.
fn policies() -> impl Strategy<Value = [Drawn; 3]> {
    [drawn(), drawn(), drawn()].prop_map(|all| all.map(Drawn::valid))
}

fn compiled(policies: &[Drawn; 3]) -> PolicySet {
    let files: Vec<(String, String)> =
        policies.iter().zip(NAMES).map(|(one, name)| (format!("{name}.yaml"), one.yaml(name))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (&**name, &**text)).collect();
    match read(&files) {
        Ok(accepted) => accepted.set,
        Err(findings) => panic!("{findings:#?}\n{files:#?}"),
    }
}

fn supports(audience: &AudiencePolicy, scope: &str) -> bool {
    audience.scopes_supported.iter().any(|entry| audience.scope_matching.matches(entry, scope))
}

fn forbids(audience: &AudiencePolicy, scope: &str) -> bool {
    audience.forbidden_scopes.iter().any(|entry| audience.scope_matching.stops(entry, scope))
}

fn may_be_granted(audiences: &[&AudiencePolicy], scope: &str) -> bool {
    audiences.iter().any(|audience| supports(audience, scope) && !forbids(audience, scope))
        && !audiences.iter().any(|audience| forbids(audience, scope))
}

fn is_subsequence(part: &[&str], whole: &[&str]) -> bool {
    let mut whole = whole.iter();
    part.iter().all(|one| whole.any(|other| one == other))
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_registration_stays_under_the_ceiling_and_over_the_baseline(policies in policies(), asked in asked()) {
        let set = compiled(&policies);
        // Helpers check what holds for every answer, idempotence among it.
        let answer = asked.expand(&set);
        prop_assert_eq!(brief(&answer), brief(&asked.expand(&set)), "granting is deterministic");
        if !answer.is_allowed() {
            return Ok(());
        }
        // Where none was named, each audience decides for itself.
        let named = !asked.audiences.is_empty();
        for scope in &answer.scope {
            let alone = |audience: &AudiencePolicy| supports(audience, scope) && !forbids(audience, scope);
            let fits = if named { may_be_granted(&answer.audiences, scope) } else { answer.audiences.iter().any(|audience| alone(audience)) };
            prop_assert!(fits, "{} in {:?}", scope, answer);
        }
        for audience in &answer.audiences {
            for scope in audience.baseline_client_scopes.iter() {
                let vetoed = named && answer.audiences.iter().any(|other| forbids(other, scope));
                prop_assert!(vetoed || answer.scope.contains(&scope), "{} not in {:?}", scope, answer);
            }
        }
        let tokens = asked.tokens();
        let (kept, given) = answer.scope.split_at(answer.scope.len() - answer.added.len());
        prop_assert!(is_subsequence(kept, &tokens), "{:?}", answer);
        prop_assert!(given.iter().zip(&answer.added).all(|(scope, added)| *scope == added.scope));
        prop_assert!(given.iter().all(|scope| !tokens.contains(scope)));
        prop_assert_eq!(kept.len() + answer.refused.len(), tokens.len(), "each token is kept or refused");
    }

    #[test]
    fn an_authorization_stays_under_the_ceiling(policies in policies(), asked in asked()) {
        let set = compiled(&policies);
        let answer = asked.check(&set);
        prop_assert_eq!(brief(&answer), brief(&asked.check(&set)), "granting is deterministic");
        if !answer.is_allowed() {
            return Ok(());
        }
        let tokens = asked.tokens();
        if !tokens.is_empty() {
            prop_assert!(is_subsequence(&answer.scope, &tokens), "{:?}", answer);
            prop_assert_eq!(answer.scope.len() + answer.refused.len(), tokens.len());
        }
        for scope in answer.scope.iter().chain(&answer.effective_registered_scope) {
            prop_assert!(may_be_granted(&answer.audiences, scope), "{} in {:?}", scope, answer);
        }
        let received = crate::scope::distinct_tokens(asked.registered.as_deref().unwrap_or_default());
        for scope in &answer.effective_registered_scope {
            prop_assert!(received.contains(scope) || answer.scope.contains(scope), "{:?}", answer);
        }
        for grant in &answer.audience_grants {
            let audience = set.audience(grant.audience).unwrap().unwrap();
            prop_assert!(is_subsequence(&grant.scope, &answer.scope));
            prop_assert!(grant.scope.iter().all(|scope| supports(audience, scope)), "{:?}", answer);
        }
        if tokens.is_empty() {
            for scope in &answer.scope {
                let wants_to_be_asked = |audience: &&AudiencePolicy| {
                    let matching = audience.scope_matching;
                    !supports(audience, scope)
                        || audience.privileged_scopes.iter().any(|entry| matching.stops(entry, scope))
                        || audience.step_up_scopes.iter().any(|entry| matching.matches(entry, scope))
                        || matching == Wildcard && has_star_segment(scope)
                };
                prop_assert!(!answer.audiences.iter().all(wants_to_be_asked), "{} in {:?}", scope, answer);
            }
        }
        let listed: HashSet<&str> = answer.added.iter().map(|added| added.scope).collect();
        for scope in &answer.scope {
            if tokens.is_empty() {
                prop_assert!(listed.contains(scope), "given unasked, so it is added: {:?}", answer);
            }
            if tokens.contains(scope) && received.contains(scope) {
                prop_assert!(!listed.contains(scope), "asked for and registered: {:?}", answer);
            }
        }
    }

    #[test]
    fn what_was_registered_can_be_authorized(policies in policies(), asked in asked()) {
        let set = compiled(&policies);
        let answer = asked.expand(&set);
        if !answer.is_allowed() || asked.audiences.is_empty() {
            return Ok(());
        }
        let stored = join(&answer.scope);
        let again = check(&set, &asked.audiences, Some(&stored), Some(&stored), asked.client());
        prop_assert_eq!(join(&again.scope), stored.clone(), "{:?}", again);
        prop_assert!(again.added.is_empty() && again.refused.is_empty());
        prop_assert_eq!(join(&again.effective_registered_scope), stored);
    }

    // A scope that becomes forbidden may turn a rejecting UNREGISTERED into a dropped FORBIDDEN and so let
    // the rest of a request through; what no single scope may do is become grantable.
    #[test]
    fn forbidding_more_never_grants_more(
        policies in policies(),
        asked in asked(),
        more in select(SCOPES),
        place in 0..3usize,
    ) {
        if policies[place].forbidden.contains(&more) {
            return Ok(());
        }
        let mut stricter = policies;
        stricter[place].forbidden.push(more);
        // What may no longer stand in the other lists is left out of both: a step-up scope that goes away
        // would no longer be withheld from a request without scope.
        let stricter = stricter.map(Drawn::valid);
        let mut looser = stricter.clone();
        looser[place].forbidden.pop();
        let before = compiled(&looser);
        let after = compiled(&stricter);
        for (before, after) in [(asked.expand(&before), asked.expand(&after)), (asked.check(&before), asked.check(&after))] {
            if before.reason == Some(Reason::ScopeRequired) {
                prop_assert!(!after.is_allowed(), "{:?}, before {:?}", after, before);
            }
            for scope in &after.scope {
                if before.is_allowed() {
                    prop_assert!(before.scope.contains(scope), "{} in {:?}, not in {:?}", scope, after, before);
                } else {
                    prop_assert!(
                        before.refused.iter().all(|refused| refused.scope != *scope),
                        "{} in {:?}, not in {:?}", scope, after, before
                    );
                }
                prop_assert!(!after.audiences.iter().all(|audience| forbids(audience, scope)));
            }
        }
    }

    #[test]
    fn the_order_of_files_has_no_meaning(policies in policies(), asked in asked(), order in Just([0, 1, 2]).prop_shuffle()) {
        let set = compiled(&policies);
        // Under other names and in another order.
        let files: Vec<(String, String)> = order
            .iter()
            .enumerate()
            .map(|(place, at)| (format!("{place}.yaml"), policies[*at].yaml(NAMES[*at])))
            .collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (&**name, &**text)).collect();
        let turned = read(&files).unwrap().set;
        prop_assert_eq!(set.digest(), turned.digest());
        prop_assert_eq!(brief(&asked.expand(&set)), brief(&asked.expand(&turned)));
        prop_assert_eq!(brief(&asked.check(&set)), brief(&asked.check(&turned)));
    }

    #[test]
    fn look_ups_agree_with_entry_by_entry_comparison(
        matching in select(vec![Exact, Hierarchic, Wildcard]),
        list in vec(prop_oneof!["[ab*.]{1,6}", "[ab*]([.][ab*]){0,3}"], 0..24),
        scope in prop_oneof!["[ab*.]{1,6}", "[ab*]([.][ab*]){0,3}"],
    ) {
        let list = crate::scope::ScopeList::new(list.iter().map(String::as_str));
        let equal = list.iter().position(|entry| entry == scope);
        let first = list.iter().position(|entry| matching.matches(entry, &scope));
        prop_assert_eq!(matching.find(&list, &scope), equal.or(first));
        let stop = list.iter().position(|entry| matching.stops(entry, &scope));
        prop_assert_eq!(matching.find_stop(&list, &scope), stop);
    }

    #[test]
    fn matching_laws(
        matching in select(vec![Exact, Hierarchic, Wildcard]),
        one in "[ab*.]{1,7}",
        other in "[ab*.]{1,7}",
    ) {
        prop_assert!(matching.matches(&one, &one) && matching.stops(&one, &one));
        prop_assert_eq!(matching.stops(&one, &other), matching.stops(&other, &one));
        if matching.matches(&one, &other) {
            prop_assert!(matching.stops(&one, &other));
        }
        if other.split('.').any(str::is_empty) {
            prop_assert_eq!(matching.matches(&one, &other), one == other);
        }
    }

    #[test]
    fn an_audience_is_normalised_once(audience in "(https?|x)?(://|:)?[aA@\\[\\]:08#?/.-]{0,10}") {
        if let Ok(normal) = crate::audience::normalise(&audience) {
            let again = crate::audience::normalise(&normal);
            prop_assert_eq!(again.as_deref(), Ok(&*normal));
        }
    }
}

#[test]
fn the_generator_draws_allowed_and_denied_questions() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut allowed = [0; 2];
    for _ in 0..200 {
        let (policies, asked) = (policies(), asked()).new_tree(&mut runner).unwrap().current();
        let set = compiled(&policies);
        allowed[0] += usize::from(asked.expand(&set).is_allowed());
        allowed[1] += usize::from(asked.check(&set).is_allowed());
    }
    assert!(allowed.iter().all(|count| (20..180).contains(count)), "{allowed:?}");
    // One that is by hand what the generator makes.
    assert!(set(&Drawn { supported: vec!["a"], ..example() }.yaml("two")).audience("two").is_ok());
}

fn example() -> Drawn {
    Drawn {
        matching: Exact,
        supported: Vec::new(),
        baseline: Vec::new(),
        default: None,
        step_up: Vec::new(),
        privileged: Vec::new(),
        forbidden: Vec::new(),
        rule: Vec::new(),
        drops: [false; 3],
        omitted: "registered",
        unknown: "omitted",
        existing: true,
    }
}
