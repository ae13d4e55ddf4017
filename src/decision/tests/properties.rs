//! What holds for every policy and every question that is drawn.

use std::collections::HashSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::draw::{ALIASES, Asked, Drawn, NAMES, SCOPES, asked, compiled, policies, read_all};
use super::{brief, check};
use crate::decision::authorize::{self, AuthorizeQuestion};
use crate::decision::{Answer, Origin, Reason};
use crate::policy::AudiencePolicy;
use crate::scope::join;
use crate::scope::matching::ScopeMatching::{Exact, Hierarchic, Wildcard};
use crate::scope::matching::has_star_segment;

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
    ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() }
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
        prop_assert!(answer.refused.iter().all(|refused| refused.reason.is_about_scope()), "{:?}", answer.refused);
    }

    /// It is that of the question before, whose audience is often that of the next one too.
    #[test]
    fn an_audience_that_is_compared_first_changes_no_answer(policies in policies(), asked in asked()) {
        let set = compiled(&policies);
        for names in [NAMES, ALIASES] {
            let audiences: Vec<String> = asked.places.iter().map(|at| names[*at].to_owned()).collect();
            let question = AuthorizeQuestion {
                audiences: (&audiences).into(),
                scope: asked.scope.as_deref(),
                registered_scope: asked.registered.as_deref(),
                client: asked.client(),
            };
            let expected = authorize::check(&set, &question);
            for near in set.audiences().iter() {
                let answer = authorize::check_near(&set, &question, Some(near));
                prop_assert_eq!(brief(&answer), brief(&expected));
                let same = |(one, other): (&&AudiencePolicy, &&AudiencePolicy)| std::ptr::eq(*one, *other);
                prop_assert!(answer.audiences.iter().zip(&expected.audiences).all(same));
            }
        }
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
        let kept: Vec<&str> = answer.scope.iter().filter(|scope| tokens.contains(scope)).copied().collect();
        prop_assert!(is_subsequence(&kept, &tokens), "{:?}", answer);
        prop_assert_eq!(kept.len() + answer.refused.len(), tokens.len());
        prop_assert!(answer.refused.iter().all(|refused| refused.reason.is_about_scope()), "{:?}", answer.refused);
        for scope in answer.scope.iter().chain(answer.effective_registered_scope()) {
            prop_assert!(may_be_granted(&answer.audiences, scope), "{} in {:?}", scope, answer);
        }
        let received = crate::scope::distinct_tokens(asked.registered.as_deref().unwrap_or_default());
        for scope in answer.effective_registered_scope() {
            prop_assert!(received.contains(scope) || answer.scope.contains(scope), "{:?}", answer);
        }
        for grant in answer.audience_grants() {
            let audience = set.audience(grant.audience).unwrap().unwrap();
            prop_assert!(is_subsequence(grant.scope, &answer.scope));
            prop_assert!(grant.scope.iter().all(|scope| supports(audience, scope)), "{:?}", answer);
        }
        {
            for scope in answer.scope.iter().filter(|scope| !tokens.contains(scope)) {
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
            if !tokens.contains(scope) {
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
        prop_assert_eq!(join(&again.scope[..answer.scope.len()]), stored.clone(), "{:?}", again);
        // What the policy always grants may come on top, where the baseline of now holds it.
        prop_assert!(again.added.iter().all(|added| added.origin == Origin::Always) && again.refused.is_empty());
        prop_assert!(join(again.effective_registered_scope()).starts_with(&stored));
    }

    #[test]
    fn an_answer_is_a_legal_question_and_deciding_on_it_changes_nothing(policies in policies(), asked in asked()) {
        let set = compiled(&policies);
        for answer in [asked.expand(&set), asked.update(&set)] {
            if !answer.is_allowed() {
                continue;
            }
            let own = join(&answer.scope);
            for scope in [None, Some(own.clone())] {
                let again = Asked { scope, registered: Some(own.clone()), ..asked.clone() };
                let again = again.update(&set);
                prop_assert_eq!(join(&again.scope), own.clone(), "{:?}", again);
                prop_assert!(!again.is_expansion() && again.refused.is_empty(), "{:?}", again);
            }
        }
        let answer = asked.check(&set);
        if answer.is_allowed() {
            let own = join(&answer.scope);
            let again = Asked { scope: Some(own.clone()), ..asked.clone() };
            let again = again.check(&set);
            let regained = &again.scope[..answer.scope.len()];
            prop_assert_eq!(join(regained), own, "{:?}, first {:?}", &again, &answer);
        }
    }

    #[test]
    fn what_is_always_granted_is_held(policies in policies(), asked in asked()) {
        let set = compiled(&policies);
        let answer = asked.check(&set);
        let one = answer.audiences.len() == 1;
        for added in answer.added.iter().filter(|added| one && added.origin == Origin::Always) {
            // A client that asks for it alone gets it, unasked parts aside, and not by step-up.
            let alone = Asked { scope: Some(added.scope.to_owned()), ..asked.clone() };
            let alone = alone.check(&set);
            prop_assert!(alone.scope.contains(&added.scope), "{:?} in {:?}", added, alone);
            let origin = alone.added.iter().find(|one| one.scope == added.scope).map(|one| one.origin);
            prop_assert!(origin != Some(Origin::StepUp), "{:?}", alone);
            if added.is_registered {
                prop_assert!(origin.is_none(), "{:?}", alone);
            }
        }
        // Without the list the answer is the same but for what it adds.
        let mut without = policies.clone();
        without.policies.iter_mut().for_each(|one| one.always.clear());
        let without = compiled(&without);
        let plain = asked.check(&without);
        prop_assert_eq!(answer.reason, plain.reason);
        prop_assert_eq!(&answer.scope[..plain.scope.len()], &plain.scope[..]);
        let rest = &answer.added[plain.added.len().min(answer.added.len())..];
        prop_assert!(rest.iter().all(|added| added.origin == Origin::Always), "{:?}", answer);
    }

    #[test]
    fn nothing_left_as_default_is_the_omitted_question(policies in policies(), asked in asked()) {
        let mut lenient = policies;
        for one in &mut lenient.policies {
            (one.drops, one.nothing_left) = ([true; 5], [true; 2]);
        }
        let set = compiled(&lenient);
        let refused_all = |answer: &Answer<'_>| {
            !asked.tokens().is_empty()
                && answer.refused.len() == asked.tokens().len()
                && answer.refused.iter().all(|one| one.reason != Reason::Malformed)
        };
        let omitted = asked.omitted();
        for (answer, omitted) in [
            (asked.expand(&set), omitted.expand(&set)),
            (asked.update(&set), omitted.update(&set)),
            (asked.check(&set), omitted.check(&set)),
        ] {
            if refused_all(&answer) {
                let without_refused = Answer { refused: Vec::new(), ..answer };
                prop_assert_eq!(brief(&without_refused), brief(&omitted));
                let error = without_refused.oauth_error.map(|error| error.error_description);
                prop_assert_eq!(error, omitted.oauth_error.map(|error| error.error_description));
            }
        }
    }

    #[test]
    fn an_alias_changes_nothing(policies in policies(), asked in asked(), which in any::<[bool; 3]>()) {
        let set = compiled(&policies);
        let names = asked.places.iter().map(|at| if which[*at] { ALIASES[*at] } else { NAMES[*at] }.to_owned());
        let renamed = Asked { audiences: names.collect(), ..asked.clone() };
        prop_assert_eq!(brief(&asked.expand(&set)), brief(&renamed.expand(&set)));
        prop_assert_eq!(brief(&asked.update(&set)), brief(&renamed.update(&set)));
        prop_assert_eq!(brief(&asked.check(&set)), brief(&renamed.check(&set)));
    }

    // Row by row: what one audience alone would register, and no more.
    #[test]
    fn an_unnamed_registration_is_the_union_of_the_single_ones(policies in policies(), asked in asked()) {
        let mut lenient = policies;
        lenient.policies.iter_mut().for_each(|one| one.drops = [true; 5]);
        let set = compiled(&lenient);
        let places = lenient.registration.clone().unwrap_or(vec![0, 1, 2]);
        let unnamed = Asked { places: Vec::new(), audiences: Vec::new(), ..asked.clone() };
        let whole = unnamed.update(&set);
        if whole.reason == Some(Reason::Malformed) {
            return Ok(());
        }
        let singles: Vec<Asked> = places
            .iter()
            .map(|at| Asked { places: vec![*at], audiences: vec![NAMES[*at].to_owned()], ..asked.clone() })
            .collect();
        let singles: Vec<Answer<'_>> = singles.iter().map(|one| one.update(&set)).collect();
        let tokens = asked.tokens();
        // What is asked for and what the baseline gives; what stands in for nothing depends on what all leave.
        let is_plain = |answer: &Answer<'_>| tokens.is_empty() || answer.scope.iter().any(|scope| tokens.contains(scope));
        if singles.iter().all(is_plain) && is_plain(&whole) {
            let mut union: Vec<&str> = singles.iter().flat_map(|one| one.scope.iter().copied()).collect();
            let mut scope = whole.scope.to_vec();
            union.sort_unstable();
            union.dedup();
            scope.sort_unstable();
            prop_assert_eq!(union, scope, "{:?}", whole);
        }
        for refused in &whole.refused {
            prop_assert!(singles.iter().all(|one| !one.scope.contains(&refused.scope)), "{:?}", whole);
            if refused.reason == Reason::Forbidden {
                let supporters = places.iter().filter(|at| {
                    let audience = set.audience(NAMES[**at]).unwrap().unwrap();
                    supports(audience, refused.scope)
                });
                for at in supporters {
                    let audience = set.audience(NAMES[*at]).unwrap().unwrap();
                    prop_assert!(forbids(audience, refused.scope), "{:?}", whole);
                }
            }
        }
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
        if policies.policies[place].forbidden.contains(&more) {
            return Ok(());
        }
        let mut stricter = policies;
        // Otherwise a scope that becomes forbidden may bring the defaults in place of what was asked for.
        stricter.policies.iter_mut().for_each(|one| one.nothing_left = [false; 2]);
        stricter.policies[place].forbidden.push(more);
        // What may no longer stand in the other lists is left out of both: a step-up scope that goes away
        // would no longer be withheld from a request without scope.
        stricter.policies = stricter.policies.map(Drawn::valid);
        let mut looser = stricter.clone();
        looser.policies[place].forbidden.pop();
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
        let files = policies.files();
        let turned = read_all(&order.map(|at: usize| files[at].clone()));
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
