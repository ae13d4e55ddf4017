//! The real evaluator and the plain one answer the same questions.

use std::collections::{BTreeMap, BTreeSet};

use super::draw::{Dice, LISTS, MEMBERS, Policy, Question, WORDS};
use super::questions::{self, Verdict};
use crate::decision::{Reason, authorize, registration, token};
use crate::policy::PolicySet;
use crate::policy::sample::read;

/// Reading a policy costs more than answering a question.
const QUESTIONS: usize = 40;

/// What is asked of both, by name, with the OAuth error of its denials.
const ASKED: [(&str, &str, Plain, Real); 4] = [
    (
        "register",
        "invalid_client_metadata",
        |policy, asked| questions::register(policy, asked, false),
        |set, asked| Verdict::of(&registration::expand(set, &asked.registration(None))),
    ),
    (
        "update",
        "invalid_client_metadata",
        |policy, asked| questions::register(policy, asked, true),
        |set, asked| {
            Verdict::of(&registration::expand(set, &asked.registration(asked.registered.as_deref())))
        },
    ),
    ("authorize", "invalid_scope", questions::authorize, |set, asked| {
        Verdict::of(&authorize::check(set, &asked.authorization()))
    }),
    ("token", "invalid_scope", questions::token, |set, asked| {
        Verdict::of(&token::check(set, &asked.token()))
    }),
];

type Plain = fn(&Policy, &Question) -> Verdict;
type Real = fn(&PolicySet, &Question) -> Verdict;

/// The real evaluator and the plain one on drawn pairs of policy and question: 20,000, or as many as `TEST_NAIVE_PAIRS`
/// says, which are others each time.
#[test]
fn the_evaluator_agrees_with_a_plain_one_on_naive_pairs() {
    const SHORT: usize = 20_000;
    let pairs = std::env::var("TEST_NAIVE_PAIRS").map_or(SHORT, |count| count.parse().unwrap());
    let now = || std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    let seed = if pairs == SHORT { 7591 } else { u64::from(now()) };
    let mut dice = Dice(seed);
    let mut reached = BTreeMap::<String, usize>::new();
    for _ in 0..pairs.div_ceil(QUESTIONS) {
        let policy = dice.policy();
        let text = policy.written();
        let set = match read(&[("policy.yaml", &text)]) {
            Ok(accepted) => accepted.set,
            Err(findings) => panic!("{findings:#?}\n{text}"),
        };
        for _ in 0..QUESTIONS {
            let asked = dice.question(&policy);
            let view = asked.view(&set);
            let other = with_another_setting(&mut dice, &policy, &asked);
            for (name, _, plain, real) in ASKED {
                let expected = plain(&policy, &asked);
                let found = real(view.as_ref().unwrap_or(&set), &asked);
                assert_eq!(found, expected, "seed {seed}: {name} {asked:#?}\n{text}");
                let refused = found.refused.iter().map(|(_, reason)| format!("{name} refused {reason}"));
                let added = found.added.iter().map(|(_, origin, _)| format!("{name} added {origin}"));
                let denied = found.denial.iter().map(|(reason, error)| format!("{name} {reason} {error}"));
                for what in refused.chain(added).chain(denied).collect::<BTreeSet<_>>() {
                    *reached.entry(what).or_default() += 1;
                }
                if let Some((other, setting)) = &other
                    && concerns(setting, name)
                    && plain(other, &asked) != expected
                {
                    *reached.entry(setting.clone()).or_default() += 1;
                }
            }
        }
    }
    for what in to_be_reached() {
        let count = reached.get(&what).copied().unwrap_or(0);
        // A setting is changed by chance, and most questions are not about it.
        let least = if what.contains(' ') && !what.contains(": ") { pairs / 2000 } else { pairs / 20_000 };
        assert!(count >= least.max(1), "{what} came up {count} times only, seed {seed}: {reached:#?}");
    }
}

/// The policy with one setting at one audience changed, and what it said before; `None` if nothing was said.
fn with_another_setting(dice: &mut Dice, policy: &Policy, asked: &Question) -> Option<(Policy, String)> {
    if policy.audiences.len() > 4 {
        return None;
    }
    let mut other = policy.clone();
    let at = policy.place_of(asked).unwrap_or(dice.below(other.audiences.len()));
    let audience = &mut other.audiences[at];
    let unknown = WORDS.iter().position(|(name, _)| *name == "authorization.unknownRegistration").unwrap();
    let setting = match asked.registered {
        // What is said of an unknown registration matters only there.
        None if dice.once_in(3) => unknown + dice.below(4),
        _ => dice.below(WORDS.len() + LISTS.len() + 6),
    };
    let before = match (WORDS.get(setting), LISTS.get(setting.saturating_sub(WORDS.len()))) {
        (Some((name, values)), _) => {
            let before = audience.word(name);
            let is_written = audience.words.insert(name, dice.pick(values)).is_some();
            // One word for all sources would hide what is said of each.
            (is_written || *name != "authorization.unknownRegistration").then(|| format!("{name}: {before}"))
        }
        (None, Some(name)) => audience.lists.remove(name).map(|_| (*name).to_owned()),
        (None, None) => match setting - WORDS.len() - LISTS.len() {
            0 => other.default_audience.take().map(|_| "defaultAudience".to_owned()),
            1 => other.registration_audiences.take().map(|_| "registrationAudiences".to_owned()),
            _ if audience.rules.is_empty() => None,
            _ => {
                let rule = audience.rules.remove(dice.below(audience.rules.len()));
                let members: Vec<&str> = rule.when.into_keys().collect();
                Some(format!("clientRules: {}", if members.len() == 1 { members[0] } else { "several" }))
            }
        },
    };
    before.map(|before| (other, before))
}

/// Every reason and origin of each question, and every setting in that another value of it would have changed an answer.
fn to_be_reached() -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for (name, error, ..) in ASKED {
        for reason in Reason::ALL.map(Reason::as_str) {
            let is_target = error == "invalid_scope" && reason.starts_with("AUDIENCE");
            let error = if is_target { "invalid_target" } else { error };
            match reason {
                "EXCEEDS_GRANT" if name != "token" => continue,
                "UNREGISTERED" if name != "authorize" => continue,
                "MALFORMED" | "FORBIDDEN" | "UNSUPPORTED" | "UNREGISTERED" | "EXCEEDS_GRANT" => {
                    all.push(format!("{name} refused {reason}"));
                }
                _ => {}
            }
            all.push(format!("{name} {reason} {error}"));
        }
        let origins: &[&str] = match name {
            "register" => &["DEFAULT", "BASELINE"],
            "update" => &["REGISTERED", "BASELINE"],
            "token" => &[],
            _ => &["REGISTERED", "DEFAULT", "BASELINE", "STEP_UP", "ALWAYS"],
        };
        all.extend(origins.iter().map(|origin| format!("{name} added {origin}")));
    }
    for (name, values) in WORDS {
        all.extend(values.iter().map(|value| format!("{name}: {value}")));
    }
    for member in MEMBERS.map(|(member, _)| member).into_iter().chain(["several"]) {
        all.push(format!("clientRules: {member}"));
    }
    all.extend(LISTS.into_iter().chain(["defaultAudience", "registrationAudiences"]).map(str::to_owned));
    all
}

/// Whether a setting can make a difference to a question; what holds of all questions can to each.
fn concerns(setting: &str, question: &str) -> bool {
    match setting.split_once('.') {
        Some(("registration", _)) => question == "register" || question == "update",
        // What an unknown client holds matters for its tokens.
        Some(("authorization", _)) => question == "authorize" || question == "token",
        Some(("token", _)) => question == "token",
        _ => true,
    }
}
