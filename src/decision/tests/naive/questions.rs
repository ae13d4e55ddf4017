//! The questions: each audience decides alone, and what they say is joined.

use super::draw::{Audience, Policy, Question};
use super::{distinct, is_token, normal, tokens, without_query, words};
use crate::decision::{Added, Answer};

/// What an answer says, in plain values.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdict {
    /// The reason and the OAuth error of a denial.
    pub(super) denial: Option<(&'static str, &'static str)>,
    scope: Vec<String>,
    /// Scope, origin, name of the client rule.
    pub(super) added: Vec<(String, &'static str, String)>,
    pub(super) refused: Vec<(String, &'static str)>,
    effective: Vec<String>,
    grants: Vec<(String, Vec<String>)>,
    is_expansion: bool,
}

impl Verdict {
    pub(super) fn of(answer: &Answer<'_>) -> Self {
        let owned = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let added = |one: &Added<'_>| (one.scope.to_owned(), one.origin.as_str(), one.rule.to_owned());
        Self {
            denial: answer
                .reason
                .map(|reason| (reason.as_str(), answer.oauth_error.as_ref().map_or("", |error| error.error))),
            scope: owned(&answer.scope),
            added: answer.added.iter().map(added).collect(),
            refused: answer.refused.iter().map(|one| (one.scope.to_owned(), one.reason.as_str())).collect(),
            effective: owned(answer.effective_registered_scope()),
            grants: answer.audience_grants().map(|one| (one.audience.to_owned(), owned(one.scope))).collect(),
            is_expansion: answer.is_expansion(),
        }
    }

    fn denied(reason: &'static str, error: &'static str, refused: Vec<(String, &'static str)>) -> Self {
        let error =
            if reason.starts_with("AUDIENCE") && error == "invalid_scope" { "invalid_target" } else { error };
        Self { denial: Some((reason, error)), refused, ..Self::default() }
    }
}

type Targets<'p> = Vec<&'p Audience>;

impl Policy {
    fn seen<'p>(&'p self, asked: &Question) -> impl Iterator<Item = &'p Audience> {
        let is_seen =
            |one: &&Audience| asked.caller_knows.as_ref().is_none_or(|known| known.contains(&one.name));
        self.audiences.iter().filter(is_seen)
    }

    fn find(&self, asked: &Question, name: &str) -> Option<&Audience> {
        let named = normal(name).unwrap();
        self.seen(asked).find(|one| {
            [one.name].iter().chain(one.list("aliases")).any(|own| {
                let own = normal(own).unwrap();
                own == named
                    || one.word("ignoreQuery") == "true" && without_query(&own) == without_query(&named)
            })
        })
    }

    fn targets(&self, asked: &Question, is_registration: bool) -> Result<Targets<'_>, &'static str> {
        let mut targets: Targets<'_> = Vec::new();
        for name in asked.audiences.iter().filter(|name| !name.is_empty()) {
            normal(name).ok_or("AUDIENCE_MALFORMED")?;
            let target = self.find(asked, name).ok_or("AUDIENCE_UNKNOWN")?;
            if !targets.iter().any(|known| known.name == target.name) {
                targets.push(target);
            }
        }
        if !targets.is_empty() {
            return Ok(targets);
        }
        let mut all: Targets<'_> = self.seen(asked).collect();
        all.sort_by_cached_key(|one| normal(one.name));
        let unnamed: Targets<'_> = match &self.registration_audiences {
            _ if asked.caller_knows.is_some() => all,
            Some(declared) if is_registration => {
                declared.iter().map(|name| self.find(asked, name).unwrap()).collect()
            }
            None if is_registration && all.len() <= 256 => all,
            _ => match (self.default_audience, &all[..]) {
                (Some(default), _) => vec![self.find(asked, default).unwrap()],
                (None, [only]) => vec![only],
                (None, _) => Vec::new(),
            },
        };
        if unnamed.is_empty() { Err("AUDIENCE_REQUIRED") } else { Ok(unnamed) }
    }
}

/// Origins in the order of preference. What is given for no origin is not added.
const ORIGINS: [&str; 5] = ["REGISTERED", "DEFAULT", "BASELINE", "STEP_UP", "ALWAYS"];
const ASKED: &str = "";

/// The granted scopes, each once, in order.
#[derive(Default)]
struct Grant(Vec<Granted>);

struct Granted {
    scope: String,
    origin: &'static str,
    rule: &'static str,
    is_registered: bool,
    at: Vec<&'static str>,
}

impl Grant {
    /// Of two origins the first that fits is taken; what is not registered at one audience is an expansion.
    fn give(
        &mut self,
        scope: &str,
        at: &Audience,
        origin: &'static str,
        rule: &'static str,
        is_registered: bool,
    ) {
        let place = |origin: &str| ORIGINS.iter().position(|one| *one == origin);
        let Some(known) = self.0.iter_mut().find(|one| one.scope == scope) else {
            let (scope, at) = (scope.to_owned(), vec![at.name]);
            return self.0.push(Granted { scope, origin, rule, is_registered, at });
        };
        known.at.push(at.name);
        if known.origin == ASKED || origin != ASKED && place(origin) < place(known.origin) {
            (known.origin, known.rule, known.is_registered) = (origin, rule, is_registered);
        } else if known.origin == origin {
            known.is_registered &= is_registered;
        }
    }
}

/// What one audience says of a scope that was asked for: the origin and rule if it is granted, else the reason.
type Opinion = Result<(&'static str, &'static str), &'static str>;

/// What differs between the questions until something is given unasked.
struct Kind {
    error: &'static str,
    /// The knob for a scope that is refused for this reason.
    treatment: fn(&'static str) -> &'static str,
    nothing_left: Option<&'static str>,
}

struct Hearing<'p> {
    targets: Targets<'p>,
    error: &'static str,
    grant: Grant,
    refused: Vec<(String, &'static str)>,
    /// Whether nothing was asked for, or it counts so.
    is_omitted: bool,
    /// Whether an audience that forbids a scope takes it away from all.
    has_veto: bool,
}

/// Joins what each audience says alone of what is asked for. `Err` if the whole is denied.
fn hear<'p>(
    policy: &'p Policy,
    asked: &Question,
    kind: &Kind,
    alone: impl Fn(&Audience, &str) -> Opinion,
) -> Result<Hearing<'p>, Box<Verdict>> {
    let Kind { error, treatment, nothing_left } = *kind;
    let denied = |reason| Box::new(Verdict::denied(reason, error, Vec::new()));
    let is_registration = error == "invalid_client_metadata";
    let targets = policy.targets(asked, is_registration).map_err(denied)?;
    if asked.scope.as_deref().unwrap_or("").split(' ').filter(|word| !word.is_empty()).count() > 256 {
        return Err(denied("TOO_MANY_SCOPES"));
    }
    if asked.person.client_name.len() > 64 * 1024 {
        return Err(denied("CLIENT_TOO_LARGE"));
    }
    let has_veto = !is_registration || asked.audiences.iter().any(|name| !name.is_empty());
    let (mut grant, mut refused) = (Grant::default(), Vec::new());
    for word in asked.words() {
        let opinions: Vec<Opinion> = targets.iter().map(|one| alone(one, word)).collect();
        let some_grants = opinions.iter().any(Result::is_ok);
        let some_forbids = targets.iter().any(|one| one.forbids(word));
        let closest = ["EXCEEDS_GRANT", "UNREGISTERED", "UNSUPPORTED", "FORBIDDEN"];
        let reason = match () {
            () if !is_token(word) => "MALFORMED",
            () if some_grants && has_veto && some_forbids => "FORBIDDEN",
            () if some_grants => {
                for (one, opinion) in targets.iter().zip(opinions) {
                    if let Ok((origin, rule)) = opinion {
                        grant.give(word, one, origin, rule, false);
                    }
                }
                continue;
            }
            () if !has_veto && targets.iter().any(|one| one.supports(word)) => "FORBIDDEN",
            () => closest.into_iter().find(|reason| opinions.contains(&Err(*reason))).unwrap(),
        };
        refused.push((word.to_owned(), reason));
    }
    let says = |knob, value| move |one: &&Audience| one.word(knob) == value;
    let rejects = |reason| reason == "MALFORMED" || targets.iter().any(says(treatment(reason), "reject"));
    if let Some((_, reason)) = refused.iter().find(|(_, reason)| rejects(reason)) {
        return Err(Box::new(Verdict::denied(reason, error, refused)));
    }
    let counts_as_omitted = nothing_left.is_some_and(|knob| targets.iter().all(says(knob, "default")));
    let is_omitted = asked.words().is_empty() || grant.0.is_empty() && counts_as_omitted;
    Ok(Hearing { targets, error, grant, refused, is_omitted, has_veto })
}

impl Hearing<'_> {
    fn is_vetoed(&self, scope: &str) -> bool {
        self.has_veto && self.targets.iter().any(|one| one.forbids(scope))
    }

    /// `registered`: what the answer says of it, where it does.
    fn verdict(self, registered: Option<&str>) -> Verdict {
        let granted = self.grant.0;
        if granted.is_empty() {
            let reason = if self.is_omitted { "SCOPE_REQUIRED" } else { "NOTHING_GRANTED" };
            return Verdict::denied(reason, self.error, self.refused);
        }
        let added = granted.iter().filter(|one| one.origin != ASKED);
        let mut grants = Vec::new();
        for one in self.targets.iter().filter(|_| self.error != "invalid_client_metadata") {
            let own = granted.iter().filter(|granted| granted.at.contains(&one.name));
            let own: Vec<String> = own.map(|granted| granted.scope.clone()).collect();
            if !own.is_empty() {
                grants.push((one.name.to_owned(), own));
            }
        }
        let scope: Vec<String> = granted.iter().map(|one| one.scope.clone()).collect();
        let mut whole = Vec::new();
        if let Some(registered) = registered {
            let forbids = |word: &str| self.targets.iter().any(|one| one.forbids(word));
            let supports = |word: &str| self.targets.iter().any(|one| one.supports(word));
            let kept = tokens(registered).into_iter().filter(|word| supports(word) && !forbids(word));
            whole = kept.map(str::to_owned).collect();
            whole.extend(scope.iter().filter(|scope| !words(registered).contains(&&***scope)).cloned());
        }
        Verdict {
            denial: None,
            added: added.clone().map(|one| (one.scope.clone(), one.origin, one.rule.to_owned())).collect(),
            is_expansion: added.clone().any(|one| !one.is_registered),
            scope,
            refused: self.refused,
            effective: whole,
            grants,
        }
    }
}

fn supported(at: &Audience, scope: &str) -> Result<(), &'static str> {
    match () {
        () if at.forbids(scope) => Err("FORBIDDEN"),
        () if !at.supports(scope) => Err("UNSUPPORTED"),
        () => Ok(()),
    }
}

const REGISTRATION: Kind = Kind {
    error: "invalid_client_metadata",
    treatment: |_| "registration.unsupportedScopes",
    nothing_left: Some("registration.nothingLeft"),
};

/// `ExpandRegistrationScopes`. What is registered is what is updated, if it is an update.
pub(super) fn register(policy: &Policy, asked: &Question, is_update: bool) -> Verdict {
    let previous = asked.registered.as_deref().filter(|_| is_update);
    let heard = hear(policy, asked, &REGISTRATION, |at, scope| supported(at, scope).map(|()| (ASKED, "")));
    let mut hearing = match heard {
        Ok(hearing) => hearing,
        Err(denied) => return *denied,
    };
    let targets = hearing.targets.clone();
    for token in tokens(previous.unwrap_or("")).into_iter().filter(|_| hearing.is_omitted) {
        for at in targets.iter().filter(|at| supported(at, token).is_ok()) {
            if !hearing.is_vetoed(token) {
                hearing.grant.give(token, at, "REGISTERED", "", true);
            }
        }
    }
    for at in targets {
        let defaults = if hearing.is_omitted && previous.is_none() { at.defaults() } else { Vec::new() };
        let given = defaults.into_iter().map(|scope| (scope, "DEFAULT", ""));
        let given = given
            .chain(at.baseline(&asked.person).into_iter().map(|(scope, rule)| (scope, "BASELINE", rule)));
        for (scope, origin, rule) in given {
            if !asked.words().contains(&scope) && !hearing.is_vetoed(scope) {
                hearing.grant.give(scope, at, origin, rule, false);
            }
        }
    }
    hearing.verdict(None)
}

const AUTHORIZATION: Kind = Kind {
    error: "invalid_scope",
    treatment: |reason| match reason {
        "UNREGISTERED" => "authorization.unregisteredScopes",
        _ => "authorization.unsupportedScopes",
    },
    nothing_left: Some("authorization.nothingLeft"),
};

/// `CheckAuthorizeScopes`.
pub(super) fn authorize(policy: &Policy, asked: &Question) -> Verdict {
    let alone = |at: &Audience, scope: &str| {
        supported(at, scope)?;
        match at.held(asked, scope) {
            _ if at.holds_anything(asked) => Ok((ASKED, "")),
            Some(("REGISTERED", _)) => Ok((ASKED, "")),
            Some(other) => Ok(other),
            None if at.has("authorization.stepUpScopes", scope) => Ok(("STEP_UP", "")),
            None => Err("UNREGISTERED"),
        }
    };
    let mut hearing = match hear(policy, asked, &AUTHORIZATION, alone) {
        Ok(hearing) => hearing,
        Err(denied) => return *denied,
    };
    let targets = hearing.targets.clone();
    let is_refused = targets.iter().any(|one| one.word("authorization.omittedScope") == "reject");
    for at in targets.iter().filter(|_| hearing.is_omitted && !is_refused) {
        let held: Vec<&str> = match at.word("authorization.omittedScope") {
            "default" => at.defaults(),
            _ => {
                let mut held = tokens(asked.registered.as_deref().unwrap_or(""));
                held.extend(if asked.registered.is_none() { at.defaults() } else { Vec::new() });
                if at.has_baseline(asked) {
                    held.extend(at.baseline(&asked.person).into_iter().map(|(scope, _)| scope));
                }
                held
            }
        };
        for scope in distinct(held) {
            if let Some((origin, rule)) = at.held(asked, scope)
                && supported(at, scope).is_ok()
                && !hearing.is_vetoed(scope)
                && !at.must_be_asked(scope)
            {
                // The first origin that fits: what is given as a default is one, whatever it is held by.
                let is_default = origin == "BASELINE" && at.word("authorization.omittedScope") == "default";
                let (origin, rule) = if is_default { ("DEFAULT", "") } else { (origin, rule) };
                hearing.grant.give(scope, at, origin, rule, origin == "REGISTERED");
            }
        }
    }
    let granting: Vec<&str> = hearing.grant.0.iter().flat_map(|one| one.at.clone()).collect();
    for at in targets.iter().filter(|at| !hearing.is_omitted && granting.contains(&at.name)) {
        for scope in at.list("authorization.alwaysGrantScopes") {
            let held = at.held(asked, scope);
            let is_held = held.is_some() || at.holds_anything(asked);
            if is_held && !asked.words().contains(scope) && !hearing.is_vetoed(scope) {
                let is_registered = held.is_some_and(|(origin, _)| origin == "REGISTERED");
                hearing.grant.give(scope, at, "ALWAYS", "", is_registered);
            }
        }
    }
    hearing.verdict(Some(asked.registered.as_deref().unwrap_or("")))
}

const TOKEN: Kind = Kind {
    error: "invalid_scope",
    treatment: |reason| match reason {
        "EXCEEDS_GRANT" => "token.exceedingScopes",
        _ => "token.unsupportedScopes",
    },
    nothing_left: None,
};

/// `CheckTokenScopes`.
pub(super) fn token(policy: &Policy, asked: &Question) -> Verdict {
    // Whatever the policy says of it: it governs what was granted and is no longer supported.
    let alone = |at: &Audience, scope: &str| {
        let is_covered = match &asked.granted {
            Some(granted) => at.covers(granted, scope),
            None => {
                let is_registered = asked.registered.as_ref().is_some_and(|known| at.covers(known, scope));
                let is_any = at.holds_anything(asked) && at.supports(scope);
                is_registered || is_any || at.given(asked, scope).is_some()
            }
        };
        if is_covered { supported(at, scope).map(|()| (ASKED, "")) } else { Err("EXCEEDS_GRANT") }
    };
    let mut hearing = match hear(policy, asked, &TOKEN, alone) {
        Ok(hearing) => hearing,
        Err(denied) => return *denied,
    };
    for at in hearing.targets.clone().into_iter().filter(|_| hearing.is_omitted) {
        let mut all = tokens(asked.granted.as_deref().or(asked.registered.as_deref()).unwrap_or(""));
        if asked.granted.is_none() && at.has_baseline(asked) {
            all.extend(at.baseline(&asked.person).into_iter().map(|(scope, _)| scope));
        }
        for scope in distinct(all) {
            let is_given = asked.granted.is_some() || !at.must_be_asked(scope);
            if is_given && supported(at, scope).is_ok() && !hearing.is_vetoed(scope) {
                hearing.grant.give(scope, at, ASKED, "", true);
            }
        }
    }
    hearing.verdict(None)
}
