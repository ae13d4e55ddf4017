//! The rules of the design once more, as plainly as they can be said: sets and loops over what was drawn, no code of the
//! real evaluator. Slow on purpose. Answers in the words of [`brief`](super::brief).

use std::collections::HashMap;
use std::sync::OnceLock;

use super::draw::{Asked, Drawn, SCOPES, World};
use crate::policy::ClientSource;
use crate::scope::matching::ScopeMatching;

/// `(granted, added as (origin, rule, registered) or not)`, each scope once.
type Granted = Vec<(String, Option<(usize, String, bool)>)>;
const ORIGINS: [&str; 5] = ["REGISTERED", "DEFAULT", "BASELINE", "STEP_UP", "ALWAYS"];
const REGISTERED: usize = 0;
const DEFAULT: usize = 1;
const BASELINE: usize = 2;
const STEP_UP: usize = 3;
const ALWAYS: usize = 4;

fn words(text: Option<&str>) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.unwrap_or("").split(' ') {
        if !word.is_empty() && !words.iter().any(|known| known == word) {
            words.push(word.to_owned());
        }
    }
    words
}

fn well_formed(word: &str) -> bool {
    word.len() <= 512 && word.chars().all(|one| one.is_ascii_graphic() && one != '"' && one != '\\')
}

fn matches(matching: ScopeMatching, entry: &str, scope: &str) -> bool {
    fn wild(pattern: &[&str], scope: &[&str]) -> bool {
        match (pattern, scope) {
            ([], []) => true,
            (["*"], [_, ..]) => true,
            ([one, pattern @ ..], [other, scope @ ..]) => {
                (*one == "*" || one == other) && wild(pattern, scope)
            }
            _ => false,
        }
    }
    let (entries, segments): (Vec<&str>, Vec<&str>) =
        (entry.split('.').collect(), scope.split('.').collect());
    let whole = segments.iter().all(|segment| !segment.is_empty());
    entry == scope
        || whole
            && match matching {
                ScopeMatching::Exact => false,
                ScopeMatching::Hierarchic => segments.starts_with(&entries),
                ScopeMatching::Wildcard => wild(&entries, &segments),
            }
}

/// Two patterns overlap if some plain scope is matched by both: all of four segments and less are tried, once.
fn stops(matching: ScopeMatching, one: &str, other: &str) -> bool {
    static OVERLAPS: OnceLock<HashMap<(String, String), bool>> = OnceLock::new();
    if matching != ScopeMatching::Wildcard {
        return matches(matching, one, other) || matches(matching, other, one);
    }
    let overlaps = OVERLAPS.get_or_init(|| {
        let mut plain =
            vec!["a", "b", "c", "z", "openid", "unknown", "c:*", "profile", "email", "offline_access"]
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>();
        for at in 0..400 {
            if plain[at].matches('.').count() < 3 {
                plain.extend(["a", "b", "c", "z", "x"].map(|segment| format!("{}.{segment}", plain[at])));
            }
        }
        let all: Vec<&str> = SCOPES
            .iter()
            .copied()
            .chain(["unknown", "a.b.x", "profile", "email", "offline_access"])
            .collect();
        let both = |one: &str, other: &str| {
            one == other
                || plain.iter().any(|scope| matches(matching, one, scope) && matches(matching, other, scope))
        };
        all.iter()
            .flat_map(|one| all.iter().map(move |other| (*one, *other)))
            .map(|(one, other)| ((one.to_owned(), other.to_owned()), both(one, other)))
            .collect()
    });
    // What is not drawn into policies is malformed.
    overlaps.get(&(one.to_owned(), other.to_owned())).copied().unwrap_or(one == other)
}

impl Drawn {
    fn has(&self, list: &[&str], scope: &str) -> bool {
        list.iter().any(|entry| matches(self.matching, entry, scope))
    }

    fn supports(&self, scope: &str) -> bool {
        self.has(&self.supported, scope)
    }

    fn forbids(&self, scope: &str) -> bool {
        self.forbidden.iter().any(|entry| stops(self.matching, entry, scope))
    }

    fn is_privileged(&self, scope: &str) -> bool {
        self.privileged.iter().any(|entry| stops(self.matching, entry, scope))
    }

    fn defaults(&self) -> Vec<&'static str> {
        let implied = || {
            let may =
                |scope: &&str| self.supports(scope) && !self.is_privileged(scope) && !self.forbids(scope);
            ["openid", "profile", "email", "offline_access"].into_iter().filter(may).collect()
        };
        self.default.clone().unwrap_or_else(implied)
    }

    fn rule(&self, asked: &Asked) -> Vec<&'static str> {
        if asked.source == Some(ClientSource::Dcr) { self.rule.clone() } else { Vec::new() }
    }

    fn unknown(&self, asked: &Asked) -> &'static str {
        match asked.source {
            None => {
                if self.is_one_word {
                    self.unknown[0]
                } else {
                    "omitted"
                }
            }
            Some(ClientSource::Cimd) => self.unknown[0],
            Some(ClientSource::Dcr) => {
                if self.is_one_word {
                    self.unknown[0]
                } else {
                    self.unknown[1]
                }
            }
            Some(ClientSource::Static) => {
                if self.is_one_word {
                    self.unknown[0]
                } else {
                    self.unknown[2]
                }
            }
        }
    }

    /// What the client holds of a scope here: the origin and the rule. `None, ..` for any supported scope.
    fn held(&self, asked: &Asked, scope: &str, any: bool) -> Option<(Option<usize>, String)> {
        let unknown = self.unknown(asked);
        if let Some(registered) = &asked.registered {
            let tokens = words(Some(registered));
            let covers = |token: &String| {
                well_formed(token)
                    && matches(self.matching, token, scope)
                    && self.supports(token)
                    && !self.forbids(token)
            };
            if tokens.iter().any(|token| token == scope)
                || !self.is_privileged(scope) && tokens.iter().any(covers)
            {
                return Some((Some(REGISTERED), String::new()));
            }
        } else if any && unknown == "supported" && self.supports(scope) {
            return Some((None, String::new()));
        } else if unknown != "none" && self.has(&self.defaults(), scope) {
            return Some((Some(DEFAULT), String::new()));
        }
        if if asked.registered.is_some() { self.existing } else { unknown != "none" } {
            if self.has(&self.baseline, scope) {
                return Some((Some(BASELINE), String::new()));
            }
            if self.has(&self.rule(asked), scope) {
                return Some((Some(BASELINE), "r".to_owned()));
            }
        }
        None
    }
}

fn add(granted: &mut Granted, scope: &str, origin: usize, rule: &str, registered: bool) {
    match granted.iter_mut().find(|(known, _)| known == scope) {
        None => granted.push((scope.to_owned(), Some((origin, rule.to_owned(), registered)))),
        Some((_, Some(known))) if origin < known.0 => *known = (origin, rule.to_owned(), registered),
        Some((_, Some(known))) if origin == known.0 => known.2 &= registered,
        Some(_) => {}
    }
}

fn denial(reason: &str, error: &str, refused: &[(String, &str)]) -> (String, bool) {
    (format!("DENY {reason} {error}{}", listed(refused)), false)
}

fn listed(refused: &[(String, &str)]) -> String {
    let all: String = refused.iter().map(|(scope, reason)| format!(" {scope}={reason}")).collect();
    if all.is_empty() { all } else { format!(" | refused{all}") }
}

fn allowed(granted: &Granted, refused: &[(String, &str)], rest: &str) -> (String, bool) {
    let scopes: Vec<&str> = granted.iter().map(|(scope, _)| &**scope).collect();
    let mut added = String::new();
    for (scope, origin) in granted {
        if let Some((origin, rule, _)) = origin {
            let rule = if rule.is_empty() { String::new() } else { format!("@{rule}") };
            added += &format!(" {scope}={}{rule}", ORIGINS[*origin]);
        }
    }
    let added = if added.is_empty() { added } else { format!(" | added{added}") };
    let is_expansion =
        granted.iter().any(|(_, origin)| origin.as_ref().is_some_and(|(.., registered)| !registered));
    (format!("ALLOW {}{added}{}{rest}", scopes.join(" "), listed(refused)), is_expansion)
}

/// The answer to a registration in one line, and whether it is an expansion.
pub(super) fn register(world: &World, asked: &Asked, previous: Option<&str>) -> (String, bool) {
    const ERROR: &str = "invalid_client_metadata";
    let named: Vec<&Drawn> = asked.places.iter().map(|at| &world.policies[*at]).collect();
    let together = !named.is_empty();
    let targets: Vec<&Drawn> = match &world.registration {
        _ if together => named,
        Some(places) => places.iter().map(|at| &world.policies[*at]).collect(),
        None => world.policies.iter().collect(),
    };
    let grants = |scope: &str| {
        targets.iter().any(|one| one.supports(scope) && !one.forbids(scope))
            && !(together && targets.iter().any(|one| one.forbids(scope)))
    };
    let (mut granted, mut refused): (Granted, Vec<(String, &str)>) = Default::default();
    let asked_words = words(asked.scope.as_deref());
    for word in &asked_words {
        let some_grants = targets.iter().any(|one| one.supports(word) && !one.forbids(word));
        if well_formed(word) && grants(word) {
            granted.push((word.clone(), None));
            continue;
        }
        let some_support = targets.iter().any(|one| one.supports(word));
        let all_forbid = targets.iter().all(|one| one.forbids(word));
        let reason = match () {
            () if !well_formed(word) => "MALFORMED",
            () if some_grants || all_forbid || !together && some_support => "FORBIDDEN",
            () => "UNSUPPORTED",
        };
        refused.push((word.clone(), reason));
    }
    let rejects = |reason: &str| reason == "MALFORMED" || targets.iter().any(|one| !one.drops[0]);
    if let Some((_, reason)) = refused.iter().find(|(_, reason)| rejects(reason)) {
        return denial(reason, ERROR, &refused);
    }
    let omitted =
        asked_words.is_empty() || granted.is_empty() && targets.iter().all(|one| one.nothing_left[0]);
    if omitted {
        for token in words(previous).iter().filter(|token| well_formed(token) && grants(token)) {
            add(&mut granted, token, REGISTERED, "", true);
        }
    }
    for one in &targets {
        let defaults = if omitted && previous.is_none() { one.defaults() } else { Vec::new() };
        let given = defaults.into_iter().map(|scope| (scope, DEFAULT, ""));
        let given = given.chain(one.baseline.iter().map(|scope| (*scope, BASELINE, "")));
        let given = given.chain(one.rule(asked).into_iter().map(|scope| (scope, BASELINE, "r")));
        for (scope, origin, rule) in given {
            if !(together && targets.iter().any(|other| other.forbids(scope))) {
                add(&mut granted, scope, origin, rule, false);
            }
        }
    }
    match granted.is_empty() {
        true => denial(if omitted { "SCOPE_REQUIRED" } else { "NOTHING_GRANTED" }, ERROR, &refused),
        false => allowed(&granted, &refused, ""),
    }
}

/// The answer to an authorize request in one line, and whether it is an expansion.
pub(super) fn authorize(world: &World, asked: &Asked) -> (String, bool) {
    const ERROR: &str = "invalid_scope";
    let places = match (&asked.places[..], world.default) {
        ([], Some(default)) => vec![default],
        ([], None) => return denial("AUDIENCE_REQUIRED", "invalid_target", &[]),
        (places, _) => places.to_vec(),
    };
    let targets: Vec<&Drawn> = places.iter().map(|at| &world.policies[*at]).collect();
    let forbidden = |scope: &str| targets.iter().any(|one| one.forbids(scope));
    let (mut granted, mut refused): (Granted, Vec<(String, &str)>) = Default::default();
    let mut at: Vec<Vec<String>> = vec![Vec::new(); targets.len()];
    let asked_words = words(asked.scope.as_deref());
    for word in &asked_words {
        let held = |one: &Drawn| {
            let step_up = || one.has(&one.step_up, word).then(|| (Some(STEP_UP), String::new()));
            one.held(asked, word, true).or_else(step_up)
        };
        let reason = |one: &&Drawn| match () {
            () if one.forbids(word) => "FORBIDDEN",
            () if !one.supports(word) => "UNSUPPORTED",
            () if held(one).is_none() => "UNREGISTERED",
            () => "",
        };
        let reasons: Vec<&str> = targets.iter().map(reason).collect();
        let some_grants = reasons.contains(&"");
        if well_formed(word) && some_grants && !forbidden(word) {
            granted.push((word.clone(), None));
            for (one, at) in targets.iter().zip(&mut at).filter(|(one, _)| reason(one).is_empty()) {
                at.push(word.clone());
                if let Some((Some(origin), rule)) =
                    held(one).filter(|(origin, _)| *origin != Some(REGISTERED))
                {
                    let last = granted.last_mut().unwrap();
                    if last.1.as_ref().is_none_or(|known| origin < known.0) {
                        last.1 = Some((origin, rule, false));
                    }
                }
            }
            continue;
        }
        let closest =
            ["UNREGISTERED", "UNSUPPORTED", "FORBIDDEN"].into_iter().find(|one| reasons.contains(one));
        let reason = match () {
            () if !well_formed(word) => "MALFORMED",
            () if some_grants => "FORBIDDEN",
            () => closest.unwrap(),
        };
        refused.push((word.clone(), reason));
    }
    let rejects = |reason: &str| match reason {
        "MALFORMED" => true,
        "UNREGISTERED" => targets.iter().any(|one| !one.drops[2]),
        _ => targets.iter().any(|one| !one.drops[1]),
    };
    if let Some((_, reason)) = refused.iter().find(|(_, reason)| rejects(reason)) {
        return denial(reason, ERROR, &refused);
    }
    let omitted =
        asked_words.is_empty() || granted.is_empty() && targets.iter().all(|one| one.nothing_left[1]);
    if omitted && targets.iter().all(|one| one.omitted != "reject") {
        for (one, at) in targets.iter().zip(&mut at) {
            let known = asked.registered.is_some();
            let mut offers: Vec<(String, usize, String)> = Vec::new();
            let origin_of = |scope: &str, origin| match one.held(asked, scope, false) {
                Some((Some(origin), rule)) => (scope.to_owned(), origin, rule),
                _ => (scope.to_owned(), origin, String::new()),
            };
            if one.omitted == "default" {
                for scope in one.defaults() {
                    match one.held(asked, scope, false) {
                        Some((Some(REGISTERED), _)) => {
                            offers.push((scope.to_owned(), REGISTERED, String::new()))
                        }
                        Some(_) => offers.push((scope.to_owned(), DEFAULT, String::new())),
                        None => {}
                    }
                }
            } else {
                for token in words(asked.registered.as_deref()).iter().filter(|token| well_formed(token)) {
                    offers.push((token.clone(), REGISTERED, String::new()));
                }
                if !known && one.unknown(asked) != "none" {
                    offers.extend(
                        one.defaults().iter().map(|scope| ((*scope).to_owned(), DEFAULT, String::new())),
                    );
                }
                if if known { one.existing } else { one.unknown(asked) != "none" } {
                    offers.extend(one.baseline.iter().map(|scope| origin_of(scope, BASELINE)));
                    offers.extend(one.rule(asked).iter().map(|scope| origin_of(scope, BASELINE)));
                }
            }
            for (scope, origin, rule) in offers {
                let is_pattern =
                    one.matching == ScopeMatching::Wildcard && scope.split('.').any(|part| part == "*");
                let must_be_asked = one.is_privileged(&scope) || one.has(&one.step_up, &scope) || is_pattern;
                if one.supports(&scope) && !forbidden(&scope) && !must_be_asked && !at.contains(&scope) {
                    at.push(scope.clone());
                    add(&mut granted, &scope, origin, &rule, origin == REGISTERED);
                }
            }
        }
    } else if !omitted {
        for (one, at) in targets.iter().zip(&mut at) {
            for scope in one.always.iter().filter(|_| !at.is_empty()).copied().collect::<Vec<_>>() {
                let held = one.held(asked, scope, true);
                if let Some((origin, _)) = held
                    && !forbidden(scope)
                    && !asked_words.iter().any(|word| word == scope)
                {
                    at.push(scope.to_owned());
                    add(&mut granted, scope, ALWAYS, "", origin == Some(REGISTERED));
                }
            }
        }
    }
    if granted.is_empty() {
        return denial(if omitted { "SCOPE_REQUIRED" } else { "NOTHING_GRANTED" }, ERROR, &refused);
    }
    let is_granted = |scope: &String| granted.iter().any(|(known, _)| known == scope);
    let mut effective = words(asked.registered.as_deref());
    effective.retain(|token| {
        let is_supported = targets.iter().any(|one| one.supports(token));
        well_formed(token) && (is_granted(token) || is_supported && !forbidden(token))
    });
    for (scope, _) in &granted {
        if !effective.contains(scope) {
            effective.push(scope.clone());
        }
    }
    let mut rest = format!(" | registered {}", effective.join(" "));
    if targets.len() > 1 {
        let mut grants = Vec::new();
        for (place, at) in places.iter().zip(&at) {
            let own: Vec<&str> = granted
                .iter()
                .map(|(scope, _)| &**scope)
                .filter(|scope| at.iter().any(|one| one == scope))
                .collect();
            if !own.is_empty() {
                grants.push(format!("{}={}", super::draw::NAMES[*place], own.join(" ")));
            }
        }
        rest += &format!(" | grants {}", grants.join(", "));
    }
    allowed(&granted, &refused, &rest)
}
