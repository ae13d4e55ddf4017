//! How much work a question is, estimated before it is decided: a caller with other things to do can then decide a large one
//! elsewhere. Short questions are estimated by their length alone.

use super::{Client, MAX_SCOPES, authorize, registration, token};
use crate::policy::PolicySet;
use crate::policy::cost::{AudienceCost, COMPARED_PER_LOOKUP};
use crate::scope;
use crate::short_list::TextsRef;

/// How many look-ups deciding a registration takes at most; closer to what it takes where that is more than `enough`.
#[must_use]
pub fn of_registration(
    policy: &PolicySet,
    question: &registration::RegistrationQuestion<'_>,
    enough: usize,
) -> usize {
    let registration::RegistrationQuestion { audiences, scope, previous_scope, client } = question;
    let (scope, held) = (scope.unwrap_or_default(), previous_scope.unwrap_or_default());
    let (count, together) = match named(*audiences) {
        0 => (policy.registration_audiences().len(), 1),
        named => (named, named),
    };
    Work { policy, count, together, scope, held, client }.lookups(enough)
}

/// How many look-ups deciding an authorize request takes at most; closer to what it takes where that is more than `enough`.
#[must_use]
pub fn of_authorize(policy: &PolicySet, question: &authorize::AuthorizeQuestion<'_>, enough: usize) -> usize {
    let authorize::AuthorizeQuestion { audiences, scope, registered_scope, client } = question;
    let (scope, held) = (scope.unwrap_or_default(), registered_scope.unwrap_or_default());
    let count = deciding(policy, *audiences);
    Work { policy, count, together: count, scope, held, client }.lookups(enough)
}

/// How many look-ups deciding a request for a token takes at most; closer to what it takes where that is more than `enough`.
#[must_use]
pub fn of_token(policy: &PolicySet, question: &token::TokenQuestion<'_>, enough: usize) -> usize {
    let token::TokenQuestion { audiences, scope, client, .. } = question;
    let (scope, held) = (scope.unwrap_or_default(), question.backing().unwrap_or_default());
    let count = deciding(policy, *audiences);
    Work { policy, count, together: count, scope, held, client }.lookups(enough)
}

/// How many audiences decide a request that is not a registration.
fn deciding(policy: &PolicySet, audiences: TextsRef<'_>) -> usize {
    let count = match named(audiences) {
        0 if policy.unnamed_means_all() => policy.audiences().len(),
        named => named,
    };
    count.max(1)
}

fn named(audiences: TextsRef<'_>) -> usize {
    audiences.iter().filter(|audience| !audience.is_empty()).count()
}

struct Work<'q> {
    policy: &'q PolicySet,
    /// How many audiences decide.
    count: usize,
    /// How many of them may forbid what another one gives unasked.
    together: usize,
    scope: &'q str,
    /// What the client holds.
    held: &'q str,
    client: &'q Client<'q>,
}

impl Work<'_> {
    fn lookups(&self, enough: usize) -> usize {
        let Self { policy, count, together, scope, held, client } = *self;
        let AudienceCost { per_scope, unasked, rules, compares_patterns } = policy.cost();
        let entries = client.redirect_uris.len() + client.grant_types.len();
        let other = count * unasked * (per_scope + together) + count * rules * (1 + entries);
        let patterns = |asked: usize, held: usize| match compares_patterns {
            true => asked * held.min(MAX_SCOPES) / COMPARED_PER_LOOKUP,
            false => 0,
        };
        let work = |asked, held| count * per_scope * (asked + held) + patterns(asked, held) + other;
        // No text has more units than bytes, so most need no counting.
        let most = work(scope.len(), held.len());
        if most <= enough {
            return most;
        }
        // More scopes than that are denied without a look at them.
        if scope.len() >= 2 * MAX_SCOPES && scope::tokens(scope).count() > MAX_SCOPES {
            return 1;
        }
        work(units(scope), units(held))
    }
}

/// How many look-ups the scopes of a text are: one for each, one for each segment of it, and what hashing its bytes costs.
fn units(text: &str) -> usize {
    let ends = text.bytes().filter(|byte| matches!(byte, b' ' | b'.')).count();
    (ends + usize::from(!text.is_empty()) + text.len() / BYTES_PER_LOOKUP).min(text.len())
}

/// How many bytes are hashed in the time of a look-up.
const BYTES_PER_LOOKUP: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample::set;

    /// The look-ups of an authorize request at `count` audiences.
    fn work(policy: &PolicySet, count: usize, scope: &str, registered: &str) -> usize {
        let audiences = vec!["a0".to_owned(); count];
        let question = authorize::AuthorizeQuestion {
            audiences: (&audiences).into(),
            scope: Some(scope),
            registered_scope: Some(registered),
            client: Client::default(),
        };
        of_authorize(policy, &question, 0)
    }

    fn names(count: usize) -> String {
        (0..count).map(|number| format!("s{number:05}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn work_grows_with_scopes_audiences_and_lists() {
        let exact = set("audiences: {a0: {scopesSupported: [a]}}");
        let short = work(&exact, 1, "openid mcp:read", "openid");
        assert!(short < 50, "{short}");
        let (one, two) = (work(&exact, 1, "a", &names(20_000)), work(&exact, 1, "a", &names(40_000)));
        assert!((100_000..200_000).contains(&one), "{one}");
        assert!(two > one * 3 / 2 && two <= one * 2 + 100, "{one} {two}");
        let many = work(&exact, 16, "a", &names(20_000));
        assert!(many > one * 15, "{many}");
        let forbidden = names(800).replace(' ', ", ");
        let lists =
            format!("scopesSupported: [a], forbiddenScopes: [{forbidden}], scopeMatching: hierarchic");
        let hierarchic = work(&set(&format!("audiences: {{a0: {{{lists}}}}}")), 1, "a", &names(20_000));
        assert!(hierarchic > one * 15, "{hierarchic}");
        assert_eq!(work(&exact, 16, &names(257), &names(20_000)), 1, "it is denied at once");
        let long = of_authorize(
            &exact,
            &authorize::AuthorizeQuestion { scope: Some("a b"), ..Default::default() },
            1_000,
        );
        assert!(long >= work(&exact, 1, "a b", ""), "short questions are estimated by their length");
    }

    #[test]
    fn registration_without_audience_is_for_all_of_them() {
        let audiences: String = (0..256).map(|at| format!("  a{at}: {{scopesSupported: [a]}}\n")).collect();
        let policy = set(&format!("audiences:\n{audiences}"));
        let previous = names(2_000);
        let question =
            registration::RegistrationQuestion { previous_scope: Some(&previous), ..Default::default() };
        assert!(of_registration(&policy, &question, 0) > 2_000 * 256);
        let ordinary = registration::RegistrationQuestion {
            scope: Some("openid profile mcp:read"),
            ..Default::default()
        };
        assert!(of_registration(&policy, &ordinary, 0) < 10_000);
        let uris = vec![String::new(); 10_000];
        let client = Client { redirect_uris: (&uris).into(), ..Client::default() };
        let rules = "{name: r, when: {redirectUri: loopback}, baselineClientScopes: [a]}";
        let policy = set(&format!("audiences: {{a0: {{scopesSupported: [a], clientRules: [{rules}]}}}}"));
        let question = registration::RegistrationQuestion { client, ..Default::default() };
        assert!(of_registration(&policy, &question, 0) > 10_000);
    }
}
