//! Laws of the question of tokens, over the policies and questions of [`draw`](super::draw): it only narrows.

use super::draw::{Dice, Policy, Question, SCOPES};
use super::{has_star, matches, tokens};
use crate::decision::token::{self, TokenQuestion};
use crate::policy::PolicySet;
use crate::policy::sample::read;

const POLICIES: usize = 120;
const QUESTIONS: usize = 20;

#[track_caller]
fn compiled(policy: &Policy) -> PolicySet {
    let text = policy.written();
    match read(&[("policy.yaml", &text)]) {
        Ok(accepted) => accepted.set,
        Err(findings) => panic!("{findings:#?}\n{text}"),
    }
}

/// The scopes that a token gets: none on a denial.
fn scopes(set: &PolicySet, question: &TokenQuestion<'_>) -> Vec<String> {
    let answer = token::check(set, question);
    assert!(answer.added.is_empty() && !answer.is_expansion(), "nothing is ever added: {answer:?}");
    answer.scope.iter().map(|scope| (*scope).to_owned()).collect()
}

fn is_part(part: &[String], whole: &[&str]) -> bool {
    part.iter().all(|scope| whole.contains(&&**scope))
}

/// Asks drawn questions about drawn policies, and wants allowed answers among them.
fn for_each(seed: u64, check: impl Fn(&Policy, &PolicySet, &Question) -> bool) {
    let (mut dice, mut allowed) = (Dice(seed), 0);
    for _ in 0..POLICIES {
        let policy = dice.policy();
        let set = compiled(&policy);
        for _ in 0..QUESTIONS {
            let question = dice.question(&policy);
            allowed += usize::from(check(&policy, &set, &question));
        }
    }
    assert!(allowed > POLICIES * QUESTIONS / 20, "{allowed} answers say something");
}

#[test]
fn a_token_is_within_what_was_asked_granted_and_supported_and_has_nothing_forbidden() {
    for_each(1, |policy, set, asked| {
        let answer = token::check(set, &asked.token());
        for scope in &answer.scope {
            assert!(asked.words().is_empty() || asked.words().contains(scope), "{asked:?} {answer:?}");
            for one in &answer.audiences {
                let drawn = policy.audiences.iter().find(|drawn| drawn.name == &*one.audience).unwrap();
                assert!(!drawn.forbids(scope), "{asked:?} {answer:?}");
            }
            let mut granting =
                answer.audience_grants().filter(|grant| grant.scope.contains(scope)).peekable();
            assert!(granting.peek().is_some(), "{answer:?}");
            for grant in granting {
                let drawn = policy.audiences.iter().find(|drawn| drawn.name == grant.audience).unwrap();
                assert!(drawn.supports(scope), "{asked:?} {answer:?}");
                if let Some(granted) = asked.granted.as_deref().map(tokens) {
                    let is_equal = granted.contains(scope);
                    let is_covered =
                        granted.iter().any(|token| matches(drawn.word("scopeMatching"), token, scope));
                    assert!(is_equal || is_covered && !drawn.is_privileged(scope), "{asked:?} {answer:?}");
                } else if asked.words().is_empty() {
                    let is_pattern = drawn.word("scopeMatching") == "wildcard" && has_star(scope);
                    assert!(!drawn.is_privileged(scope) && !is_pattern, "{asked:?} {answer:?}");
                }
            }
        }
        answer.is_allowed()
    });
}

#[test]
fn deciding_on_a_token_again_changes_nothing() {
    for_each(2, |_, set, asked| {
        let first = scopes(set, &asked.token());
        if first.is_empty() {
            return false;
        }
        let own = first.join(" ");
        // Asked for by name, and as the grant of the next refresh.
        for (scope, granted) in [
            (Some(&*own), asked.granted.as_deref()),
            (Some(&*own), Some(&*own)),
            (None, Some(&*own)),
            (Some(""), Some(&*own)),
        ] {
            let question = TokenQuestion { scope, granted_scope: granted, ..asked.token() };
            let answer = token::check(set, &question);
            let mut again = answer.scope.to_vec();
            let mut first: Vec<&str> = first.iter().map(String::as_str).collect();
            if scope.is_none_or(str::is_empty) && answer.audiences.len() > 1 {
                // What several audiences say is joined in their order; that of scopes has no meaning (RFC 6749 section 3.3).
                again.sort_unstable();
                first.sort_unstable();
            }
            assert_eq!(again, first, "{asked:?} {answer:?}");
            assert!(answer.refused.is_empty(), "{asked:?} {answer:?}");
        }
        true
    });
}

/// Less of a policy gives a token less: also where more of it was a denial.
#[test]
fn narrowing_a_policy_never_widens_a_token() {
    let (mut dice, mut allowed, mut narrower) = (Dice(3), 0, 0);
    for _ in 0..POLICIES {
        let policy = dice.policy();
        let set = compiled(&policy);
        for narrow in (0..4).filter_map(|_| narrowed(&mut dice, &policy)).collect::<Vec<_>>() {
            let narrow_set = compiled(&narrow);
            for _ in 0..QUESTIONS {
                let asked = dice.question(&policy);
                let before = scopes(&set, &asked.token());
                let after = scopes(&narrow_set, &asked.token());
                let whole: Vec<&str> = before.iter().map(String::as_str).collect();
                assert!(
                    is_part(&after, &whole),
                    "{asked:?}: {after:?} is not within {before:?}\n{}",
                    narrow.written()
                );
                allowed += usize::from(!before.is_empty());
                narrower += usize::from(after.len() < before.len());
            }
        }
    }
    assert!(allowed > 500 && narrower > 50, "{allowed} answers say something, {narrower} were narrower");
}

/// One audience supports, gives or tolerates less. `None` where that would take something else away too: a step-up scope
/// is one that a token does not get unasked.
fn narrowed(dice: &mut Dice, policy: &Policy) -> Option<Policy> {
    let mut narrow = policy.clone();
    let at = dice.below(narrow.audiences.len().min(4));
    let one = &mut narrow.audiences[at];
    match dice.below(7) {
        0 => one.lists.entry("forbiddenScopes").or_default().push(dice.pick(SCOPES)),
        1 => one.lists.entry("privilegedScopes").or_default().push(dice.pick(SCOPES)),
        2 => {
            let supported = one.lists.get_mut("scopesSupported").filter(|list| list.len() > 1)?;
            supported.remove(dice.below(supported.len()));
        }
        3 => _ = one.lists.remove("baselineClientScopes")?,
        4 => _ = one.rules.pop()?,
        5 => {
            let reject = dice.pick(&["token.unsupportedScopes", "token.exceedingScopes"]);
            _ = one.words.insert(reject, "reject");
        }
        _ => {
            one.words.retain(|name, _| !name.starts_with("authorization.unknownRegistration"));
            one.words.insert("authorization.unknownRegistration", "none");
        }
    }
    for list in ["forbiddenScopes", "privilegedScopes"] {
        let entries = one.lists.entry(list).or_default();
        *entries = super::distinct(std::mem::take(entries));
    }
    let of = one.clone();
    let may_be_asked = |scope: &&str| of.supports(scope) && !of.forbids(scope);
    if !one.list("authorization.stepUpScopes").iter().all(&may_be_asked) {
        return None;
    }
    let may_be_given = |scope: &&'static str| may_be_asked(&&**scope) && !of.is_privileged(scope);
    for list in ["baselineClientScopes", "defaultClientScopes", "authorization.alwaysGrantScopes"] {
        if let Some(list) = one.lists.get_mut(list) {
            list.retain(|scope| may_be_given(scope));
        }
    }
    for rule in &mut one.rules {
        rule.scopes.retain(|scope| may_be_given(scope));
    }
    one.rules.retain(|rule| !rule.scopes.is_empty());
    Some(narrow)
}

/// Whatever edits come after one another: what a refresh has lost stays lost, since the next grant is its answer.
#[test]
fn no_edits_of_a_policy_let_a_refresh_gain_a_scope() {
    let mut dice = Dice(4);
    let (mut refreshed, mut lost) = (0, 0);
    for _ in 0..POLICIES {
        let audience = dice.pick(&["urn:three", "four"]).to_owned();
        let mut grant: Vec<String> = SCOPES.iter().map(|scope| (*scope).to_owned()).collect();
        for _ in 0..6 {
            let policy = dice.policy();
            let set = compiled(&policy);
            let audiences = [audience.clone()];
            let drawn = dice.question(&policy);
            let granted = grant.join(" ");
            let question = TokenQuestion {
                audiences: (&audiences).into(),
                scope: None,
                granted_scope: Some(&granted),
                ..drawn.token()
            };
            let whole: Vec<&str> = grant.iter().map(String::as_str).collect();
            let next = scopes(&set, &question);
            assert!(is_part(&next, &whole), "{next:?} is not within {grant:?}");
            // Of what was not granted nothing can be asked for, but what a granted scope stands for.
            for scope in SCOPES.iter().filter(|scope| !whole.contains(scope)) {
                let asked = scopes(&set, &TokenQuestion { scope: Some(scope), ..question });
                let stands_for = |token: &&str| {
                    ["hierarchic", "wildcard"].into_iter().any(|matching| matches(matching, token, scope))
                };
                assert!(asked.is_empty() || whole.iter().any(stands_for), "{scope} of {grant:?}");
            }
            if !next.is_empty() {
                (refreshed, lost) = (refreshed + 1, lost + grant.len() - next.len());
                grant = next;
            }
        }
    }
    assert!(refreshed > POLICIES && lost > POLICIES, "{refreshed} refreshes, {lost} scopes lost");
}
